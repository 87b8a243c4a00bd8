"""The demo: the whole road on the bundled miniature, from corpora on disk to an audit page; CPU, no network."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from manifests import Failed, UserError, load_recipe
from manifests.console import console

MINIATURES = Path(__file__).resolve().parents[1] / "tests" / "corpora"
RECIPE = "mini"
SHARD_MB = 1.0
"""So small that the miniature makes several shards a split."""
ASKED = ("librispeech", "audiocaps", "wavcaps")
"""Corpora about which questions are made, by rule: the annotations released with SALMONN ask about them too."""
AGAIN = 5
"""Steps trained twice, to see that a resumed run gives the same losses."""
STEPS_IN_ALL = 6


def walk(
    out: str, steps: int, *, annotate: Callable[..., None], scan: Callable[..., None], build: Callable[..., None]
) -> None:
    """Walk the road in the folder `out`; what an earlier walk has done is not done again.

    `annotate`, `scan` and `build` are commands of pipelines, handed in by the roof: this package does not know it.
    """
    if steps < 4 * AGAIN:
        raise UserError(f"--steps is {steps}; the demo needs at least {4 * AGAIN} to stop and resume in between")
    place = Path(out)
    if finished(place, steps):
        console.print(f"All is done in {out}; remove that folder to walk the road again.")
        show_paths(place)
        return
    begin = time.perf_counter()
    root, dataset = str(place / "corpora"), str(place / "dataset")
    with step(1, "make questions about the bundled corpora, and scan them"):
        adopt(place / "corpora")
        for corpus in ASKED:
            mine = [source for source in sources() if source.startswith(f"{corpus}:")]
            annotate(mine, root, str(place / "corpora" / "annotations" / corpus / "by-rule.json"))
        scan(sources(), root)
    with step(2, "build the dataset: shards, index, quarantine"):
        console.print("  Some files are broken or missing, on purpose: each must be refused with its reason.")
        # So little work would be over before Ray is up, and none would be started; here it is shown.
        build(RECIPE, root, dataset, shard_mb=SHARD_MB, head_start=0.0)
    with step(3, "stream it"):
        deal(dataset)
    with step(4, f"train the tiny preset for {steps} steps, stop it in the middle, resume it"):
        learn(place, dataset, steps)
    with step(5, "evaluate it on the test splits"):
        assess(place)
    with step(6, "audit the mixture"):
        look(place, dataset)
    console.print(f"\n[bold]The whole road took {time.perf_counter() - begin:.0f} s.[/]")
    show_paths(place)


@contextlib.contextmanager
def step(number: int, what: str) -> Iterator[None]:
    """Head one step and say how long it took."""
    console.print(f"\n[bold]{number}/{STEPS_IN_ALL}  {what}[/]")
    begin = time.perf_counter()
    yield
    console.print(f"[dim]{number}/{STEPS_IN_ALL} took {time.perf_counter() - begin:.1f} s[/]")


def sources() -> list[str]:
    """Return the splits that the recipe draws on, as the command line names them."""
    return [f"{corpus}:{split}" for corpus, split in load_recipe(RECIPE).sources()]


def adopt(root: Path) -> None:
    """Put links to the miniatures where fetched corpora would lie."""
    if not MINIATURES.is_dir():
        raise UserError(f"the demo needs the miniatures of a checkout; there is no folder {str(MINIATURES)!r}")
    (root / "raw").mkdir(parents=True, exist_ok=True)
    for corpus in {source.partition(":")[0] for source in sources()}:
        link = root / "raw" / corpus
        if link.is_symlink():
            link.unlink()
        if not link.exists():
            link.symlink_to(MINIATURES / corpus, target_is_directory=True)


def deal(dataset: str) -> None:
    """Stream a few cycles of the dataset and print what was dealt."""
    from shards import Dataset, Stream
    from shards.commands import show_stream

    show_stream(Stream(Dataset(dataset), load_recipe(RECIPE), max_seconds=60.0), 100)


def learn(place: Path, dataset: str, steps: int) -> None:
    """Train half of the steps, lose the last checkpoint, resume from the one before, and train to the end."""
    from salmonn.commands import follow
    from salmonn.training.saves import checkpoint_paths
    from salmonn.training.settings import BatchConfig, TrainConfig
    from salmonn.training.show import show_run

    half = steps // 2
    config = TrainConfig(
        run=str(place / "run"),
        dataset=dataset,
        recipe=RECIPE,
        model="tiny",
        steps=steps,
        batch=BatchConfig(max_seconds=60.0, max_examples=8),
        checkpoint_every=half,
        keep=3,
    )
    checkpoints = place / "run" / "checkpoints"
    if not checkpoint_paths(checkpoints):
        result, before = follow(config, stop_after=half + AGAIN)
        show_run(result, before)
        shutil.rmtree(max(checkpoint_paths(checkpoints)))
        console.print(
            f"  stopped after step {half + AGAIN}, and its last checkpoint removed, as if the power had failed"
        )
        result, after = follow(config)
        same = [line.loss for line in before[half:]] == [line.loss for line in after[:AGAIN]]
        show_run(result, after)
        if not same:
            raise Failed(
                f"steps {half + 1} to {half + AGAIN} gave other losses after resuming: a bug, please report it"
            )
        console.print(f"  steps {half + 1} to {half + AGAIN} were trained twice and gave the same losses, to the bit")
        return
    show_run(*follow(config))


def assess(place: Path) -> None:
    """Answer and score the test split, and say what the scores mean."""
    from salmonn.evaluation.commands import Where, evaluate
    from salmonn.evaluation.request import Request

    # A walk of more steps has another model to ask.
    request = Request(beams=1, max_new_tokens=48)
    evaluate(str(place / "run"), request, Where(anew=True), html=str(place / "scores.html"))
    console.print(
        "  These scores are bad, and honestly so: random weights, four minutes of speech and a minute of training\n"
        "  teach the model what an answer looks like, not to hear. They show that the road is whole."
    )


def look(place: Path, dataset: str) -> None:
    """Write the audit page."""
    from shards.audit.commands import show

    show(dataset, RECIPE, place / "audit")


def finished(place: Path, steps: int) -> bool:
    """Whether an earlier walk came to its end with as many steps or more."""
    scores = place / "run" / "evaluation" / "evaluate" / "scores.json"
    if not all((place / name).exists() for name in ("audit/audit.html", "dataset/dataset.json")) or not scores.exists():
        return False
    return bool(msgspec.json.decode(scores.read_bytes())["step"] == steps)


def show_paths(place: Path) -> None:
    """Print what the demo made."""
    for path, what in {
        "audit/audit.html": "the audit: open it in a browser",
        "audit/report.json": "the same numbers for programs",
        "dataset": "shards, index, quarantine, dataset card",
        "run": "settings, log, checkpoints",
        "run/evaluation": "every answer, and the scores",
        "scores.html": "the scores beside the paper's",
    }.items():
        console.print(f"  {place / path!s:<32} {what}")
