"""The place of a dataset: whether what lies there is foreign, finished, begun or to be renewed; and who works there."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator

import msgspec

from manifests import Recipe, UserError, files
from pipelines.changes import changes
from pipelines.layout import Frozen
from pipelines.renew import OLD, memory, read_frozen, remember, take_down
from shards.index import Dataset


def refuse_foreign(out: str, recipe: Recipe) -> None:
    """Raise UserError if the folder `out` holds what no run of `recipe` would write."""
    if not files.exists(out):
        return
    if not files.is_folder(out):
        raise UserError(f"{out!r} is a file; give the folder of a dataset, or a new one")
    names = [name for name in files.names(out) if not name.endswith(".tmp")]
    if names and "dataset.json" not in names and "build" not in names:
        raise UserError(f"the folder {out!r} is not empty and holds no dataset ({names[0]} ...); give a new one")
    made_by = recipe_of(out)
    if made_by and made_by != recipe.name:
        raise UserError(f"{out!r} was made by the recipe {made_by!r}, not {recipe.name!r}; give another --out")


def recipe_of(out: str) -> str:
    """Return the name of the recipe that made, or began to make, the dataset in `out`; empty if there is none."""
    if files.exists(files.join(out, "dataset.json")):
        return Dataset(out).manifest.recipe
    for folder in ("build", OLD):
        if frozen := read_frozen(files.join(out, folder)):
            return frozen.plan.recipe
    return ""


def finished(out: str, frozen: Frozen, root: str, retry: bool) -> Dataset | None:
    """Return the dataset in `out` if it is what `frozen` makes; None if there is none, or it must be renewed.

    UserError if it is of another plan and nothing is remembered of how it was built: then it cannot be renewed.
    """
    if not files.exists(files.join(out, "dataset.json")):
        return None
    dataset = Dataset(out)
    workshop = files.join(out, "build")
    begun = read_frozen(workshop)
    if begun is not None and begun.plan.digest == dataset.manifest.plan:
        # Killed between dataset.json and the end.
        remember(out, root)
    known = read_frozen(memory(root, out))
    if known is not None and known.plan.digest != dataset.manifest.plan:
        known = None
    if retry and known and any(source.quarantined for source in dataset.manifest.sources):
        return None
    if dataset.manifest.plan == frozen.plan.digest and (known is None or known.seen == frozen.seen):
        if not files.exists(files.join(workshop, "taking-down")):
            files.remove_tree(workshop)
        return dataset
    if known is None:
        raise UserError(
            f"{out!r} holds a dataset of another plan, and nothing is remembered in {files.join(root, 'builds')!r} of "
            "how it was built, so that it cannot be renewed; give another --out"
        )
    return None


@contextlib.contextmanager
def locked(out: str) -> Iterator[None]:
    """Hold a local dataset folder for this process, until it ends or dies; UserError if another build holds it."""
    if not files.is_local(out):
        yield
        return
    folder = os.path.join(files.local(out), "build")
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "lock"), "wb") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"another build is writing to {out!r}; wait for it, or give another --out") from None
        yield


def prepare(out: str, root: str, frozen: Frozen, tell: Callable[[str], None]) -> None:
    """Make `out` ready for a plan: go on where a run of the same plan was stopped, or take down what there is."""
    if files.exists(files.join(out, "build/taking-down")):
        take_down(out, root)
    begun = read_frozen(files.join(out, "build"))
    finished = files.exists(files.join(out, "dataset.json"))
    if finished or (begun is not None and begun.digest != frozen.digest):
        before = begun or read_frozen(memory(root, out))
        for line in changes(before, frozen) if before else ():
            tell(line)
        take_down(out, root)
        begun = None
    if begun is None:
        files.write_whole(files.join(out, "build/plan.json"), msgspec.json.encode(frozen, order="sorted"))
