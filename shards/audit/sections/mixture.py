"""The mixture: a dry run of the plan the trainer uses, one cycle of each stage, without reading audio."""

from __future__ import annotations

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup
from numpy.typing import NDArray

from manifests import Recipe, UserError
from shards.audit import plots
from shards.audit.digits import neat, share
from shards.audit.figures import percent
from shards.audit.sections.batching import Batching, Histogram, batching, histogram
from shards.audit.verdicts import Gate, fail, good, warn
from shards.audit.view import View, ordered
from shards.audit.words import mean_words
from shards.index import Dataset
from shards.plan import Budget, Dealt, Order

GATES = ("epochs",)
QUERIES: dict[str, str] = {}
EPOCHS = 4.0
"""Beyond four times in a cycle, data that is repeated is worth less and less (Muennighoff et al., 2023, for text)."""

Numbers = NDArray[np.float64]


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """One row of a stage as the first cycle deals it."""

    task: str
    corpus: str
    splits: tuple[str, ...]
    weight: float | None
    intended: float
    by_examples: float
    by_seconds: float
    by_words: float
    examples: int
    draws: int
    epochs: float
    """Draws for each example."""


class Mixture(msgspec.Struct, frozen=True, kw_only=True):
    """The first cycle of a stage."""

    draws: int
    examples: int
    hours: float
    words: float
    """Of answers; an example with several right answers counts their mean."""
    shares: tuple[Share, ...]
    batching: Batching
    durations: Histogram


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """One stage of the recipe."""

    name: str
    digest: str
    problem: str
    """Why it cannot be dealt from this dataset; empty if it can."""
    mixture: Mixture | None


def look(view: View) -> tuple[Stage, ...]:
    """Return what a dry run of every stage deals."""
    budget = Budget(
        seconds=view.settings.max_seconds, examples=view.settings.max_examples, longest=view.settings.longest
    )
    return tuple(dry_run(view.dataset, view.recipe, stage, view.settings.seed, budget) for stage in view.stages)


def dry_run(dataset: Dataset, recipe: Recipe, stage: str, seed: int, budget: Budget) -> Stage:
    """Deal the first cycle of a stage; a stage that the dataset does not hold has a problem and no mixture."""
    digest = recipe.digest(stage)
    held = {(source.corpus, source.split) for source in dataset.manifest.sources}
    for row in recipe.stage(stage):
        if missing := [f"{row.corpus}:{split}" for split in row.splits if (row.corpus, split) not in held]:
            problem = f"the dataset has no {', '.join(missing)}, which {row.name} asks for; build it, or drop the row"
            return Stage(name=stage, digest=digest, problem=problem, mixture=None)
    try:
        order = Order(dataset, recipe, stage, seed, budget)
    except UserError as error:
        return Stage(name=stage, digest=digest, problem=str(error), mixture=None)
    dealt = order.cycle(0)
    seconds = at(dealt, [queue.seconds for queue in order.queues])
    words = at(dealt, answer_words(dataset, order))
    kept = np.minimum(seconds, budget.longest)
    mixture = Mixture(
        draws=len(dealt.item),
        examples=order.examples,
        hours=neat(kept.sum() / 3600),
        words=neat(words.sum()),
        shares=shares(order, dealt, kept, words),
        batching=batching(dealt, seconds, budget.longest),
        durations=histogram(order, dealt, seconds, budget.longest),
    )
    return Stage(name=stage, digest=digest, problem="", mixture=mixture)


def at(dealt: Dealt, of_queues: list[Numbers]) -> Numbers:
    """Return what `of_queues` holds of each draw: arrays like those of the queues."""
    firsts = np.cumsum([0, *(len(array) for array in of_queues[:-1])])
    drawn: Numbers = np.concatenate(of_queues)[firsts[dealt.queue] + dealt.item]
    return drawn


def answer_words(dataset: Dataset, order: Order) -> list[Numbers]:
    """Return the words of the answer of every example of every queue; of several answers, their mean."""
    counted: dict[tuple[str, str], tuple[pa.Array, Numbers]] = {}
    of_queues = []
    for queue in order.queues:
        parts = []
        for split in queue.row.splits:
            source = (queue.row.corpus, split)
            if source not in counted:
                counted[source] = instruction_words(dataset, *source)
            tasks, words = counted[source]
            parts.append(words[pc.equal(tasks, queue.row.task).to_numpy(zero_copy_only=False)])
        of_queues.append(np.concatenate(parts))
        assert len(of_queues[-1]) == len(queue.sample), queue.row.name
    return of_queues


def instruction_words(dataset: Dataset, corpus: str, split: str) -> tuple[pa.Array, Numbers]:
    """Return the task of each instruction of a split, and the mean words of its answers."""
    table = dataset.table(corpus, split, ["tasks", "answers"])
    return table["tasks"].combine_chunks().flatten(), mean_words(table["answers"])


def shares(order: Order, dealt: Dealt, seconds: Numbers, words: Numbers) -> tuple[Share, ...]:
    """Return what each row of the stage is of the cycle: of its examples, its audio and its answers."""
    rows = len(order.queues)
    draws = np.bincount(dealt.queue, minlength=rows).tolist()
    audio = np.bincount(dealt.queue, weights=seconds, minlength=rows).tolist()
    said = np.bincount(dealt.queue, weights=words, minlength=rows).tolist()
    return tuple(
        Share(
            task=queue.row.task,
            corpus=queue.row.corpus,
            splits=queue.row.splits,
            weight=queue.row.weight,
            intended=neat(order.shares[place]),
            by_examples=share(draws[place], sum(draws)),
            by_seconds=share(audio[place], sum(audio)),
            by_words=share(said[place], sum(said)),
            examples=len(queue.sample),
            draws=draws[place],
            epochs=neat(draws[place] / len(queue.sample)),
        )
        for place, queue in enumerate(order.queues)
    )


def gates(found: tuple[Stage, ...]) -> tuple[Gate, ...]:
    """Judge how often data is repeated."""
    return (epochs(found),)


def epochs(stages: tuple[Stage, ...]) -> Gate:
    """No row is repeated so often in a cycle that it is learnt by heart."""
    rows = [(row.epochs, stage.name, row) for stage in stages if stage.mixture for row in stage.mixture.shares]
    if not rows:
        return fail("epochs", "No audited stage can be dealt from this dataset.")
    most, stage, row = max(rows, key=lambda entry: entry[0])
    said = f"A cycle of {stage} deals {row.task} of {row.corpus} {most:.2f} times"
    if most > EPOCHS:
        return warn("epochs", f"{said}: above {EPOCHS:g}, repetition teaches less and less.")
    return good("epochs", f"{said}; no row is repeated more.")


def mixture_bars(mixture: Mixture) -> list[tuple[str, Markup]]:
    """Return the four shares of a stage, each a bar in which every row has its part."""
    bars = []
    for name, field in (
        ("intended", "intended"),
        ("of examples", "by_examples"),
        ("of audio", "by_seconds"),
        ("of answer words", "by_words"),
    ):
        parts = [
            (getattr(row, field), plots.colour(row.task), f"{row.task} of {row.corpus}: {percent(getattr(row, field))}")
            for row in mixture.shares
        ]
        bars.append((name, Markup(plots.bar(parts, f"shares {name}: {'; '.join(part[2] for part in parts)}", 22))))
    return bars


def tasks_of(stages: tuple[Stage, ...]) -> list[str]:
    """Return the tasks that any of `stages` deals."""
    return ordered({row.task for stage in stages if stage.mixture for row in stage.mixture.shares})


DRAWN = {"shares": mixture_bars, "tasks_of": tasks_of}
