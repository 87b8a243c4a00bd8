"""The mixture: what a dry run of the very plan the trainer uses deals in one cycle of each stage."""

from __future__ import annotations

import math

import msgspec
import numpy as np
from markupsafe import Markup

from manifests import UserError
from shards.audit import plots
from shards.audit.digits import neat, share
from shards.audit.dry_run import Counted, dry_run
from shards.audit.figures import percent
from shards.audit.sections.batching import Batching, Histogram, batching, histogram, padding
from shards.audit.verdicts import Gate, fail, good, warn
from shards.audit.view import View, ordered
from shards.plan import Budget, Order

GATES = ("epochs", "realised", "padding")
QUERIES: dict[str, str] = {}
EPOCHS = 4.0
"""Beyond four times in a cycle, data that is repeated is worth less and less (Muennighoff et al., 2023, for text)."""
SIGMAS = 3.0
"""So many standard deviations of a draw by lot a share may be off: by chance it is more in 0.3 % of all mixtures."""
RARE = 3.0902
"""Standard deviations that one of a thousand draws exceeds: for chi-square."""


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """One row of a stage as the first cycle deals it."""

    task: str
    corpus: str
    splits: tuple[str, ...]
    weight: float | None
    intended: float
    by_examples: float
    by_seconds: float
    by_tokens: float
    examples: int
    draws: int
    hours: float
    tokens: int
    epochs: float
    """Draws for each example."""
    never: float
    """Share of its examples that the cycle does not deal."""


class TaskShare(msgspec.Struct, frozen=True, kw_only=True):
    """One task of a stage: what it was to have, and what it has."""

    task: str
    intended: float
    realised: float
    draws: int
    expected: float
    """Draws that the intended share is."""
    sigma: float
    """Standard deviation of the draws if they were by lot."""


class Mixture(msgspec.Struct, frozen=True, kw_only=True):
    """The first cycle of a stage."""

    draws: int
    examples: int
    hours: float
    tokens: int
    """Of answers, of several right ones the longest: a third of its bytes, rounded up, as the stream counts them."""
    temperature: float | None
    """Rows are dealt in proportion to their examples to this power; None if they have weights."""
    shares: tuple[Share, ...]
    tasks: tuple[TaskShare, ...]
    furthest: float
    """Examples that any task was off at worst, wherever within the cycle that was looked at."""
    chi_square: float
    """Of the draws of the tasks against those intended."""
    freedom: int
    """Its degrees of freedom: what draws by lot would give on average."""
    chi_limit: float
    """What draws by lot would exceed once in a thousand times."""
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
    return tuple(rehearse(view, stage) for stage in view.stages)


def rehearse(view: View, stage: str) -> Stage:
    """Deal the first cycle of a stage; a stage that the dataset does not hold has a problem and no mixture."""
    dataset, recipe, settings = view.dataset, view.recipe, view.settings
    digest = recipe.digest(stage)
    held = {(source.corpus, source.split) for source in dataset.manifest.sources}
    for row in recipe.stage(stage):
        if missing := [f"{row.corpus}:{split}" for split in row.splits if (row.corpus, split) not in held]:
            problem = f"the dataset has no {', '.join(missing)}, which {row.name} asks for; build it, or drop the row"
            return Stage(name=stage, digest=digest, problem=problem, mixture=None)
    budget = Budget(seconds=settings.max_seconds, examples=settings.max_examples, longest=settings.longest)
    try:
        order = Order(dataset, recipe, stage, settings.seed, budget, answers=True)
    except UserError as error:
        return Stage(name=stage, digest=digest, problem=str(error), mixture=None)
    weighted = order.queues[0].row.weight is not None
    temperature = None if weighted else recipe.temperature.get(stage, 1.0)
    return Stage(name=stage, digest=digest, problem="", mixture=mixed(order, temperature, settings.world_size))


def mixed(order: Order, temperature: float | None, world_size: int) -> Mixture:
    """Return what the first cycle of `order` deals."""
    counted = dry_run(order)
    tasks = task_shares(order, counted)
    return Mixture(
        draws=int(counted.draws.sum()),
        examples=order.examples,
        hours=neat(counted.seconds.sum() / 3600),
        tokens=int(counted.tokens.sum()),
        temperature=temperature,
        shares=shares(order, counted),
        tasks=tasks,
        furthest=neat(counted.off),
        chi_square=neat(sum((row.draws - row.expected) ** 2 / row.expected for row in tasks)),
        freedom=len(tasks) - 1,
        chi_limit=neat(chi_limit(len(tasks) - 1)),
        batching=batching(counted, order.budget.longest, world_size),
        durations=histogram(counted, order.budget.longest),
    )


def shares(order: Order, counted: Counted) -> tuple[Share, ...]:
    """Return what each row of the stage is of the cycle: of its examples, its audio and its answers."""
    draws, audio, said = counted.draws.tolist(), counted.seconds.tolist(), counted.tokens.tolist()
    return tuple(
        Share(
            task=queue.row.task,
            corpus=queue.row.corpus,
            splits=queue.row.splits,
            weight=queue.row.weight,
            intended=neat(order.shares[place]),
            by_examples=share(draws[place], sum(draws)),
            by_seconds=share(audio[place], sum(audio)),
            by_tokens=share(said[place], sum(said)),
            examples=len(queue.sample),
            draws=draws[place],
            hours=neat(audio[place] / 3600),
            tokens=int(said[place]),
            epochs=neat(draws[place] / len(queue.sample)),
            # A queue deals each of its examples before it deals one again.
            never=share(max(0, len(queue.sample) - draws[place]), len(queue.sample)),
        )
        for place, queue in enumerate(order.queues)
    )


def task_shares(order: Order, counted: Counted) -> tuple[TaskShare, ...]:
    """Return what each task of the stage was to have, and what it has."""
    total, made = int(counted.draws.sum()), []
    for task in counted.tasks:
        mine = np.array([queue.row.task == task for queue in order.queues])
        intended, draws = float(order.shares[mine].sum()), int(counted.draws[mine].sum())
        made.append(
            TaskShare(
                task=task,
                intended=neat(intended),
                realised=share(draws, total),
                draws=draws,
                expected=neat(total * intended),
                sigma=neat(math.sqrt(total * intended * max(0.0, 1 - intended))),
            )
        )
    return tuple(made)


def chi_limit(freedom: int) -> float:
    """Return what chi-square exceeds once in a thousand times (Wilson and Hilferty, 1931)."""
    return freedom * (1 - 2 / (9 * freedom) + RARE * math.sqrt(2 / (9 * freedom))) ** 3 if freedom else 0.0


def gates(found: tuple[Stage, ...]) -> tuple[Gate, ...]:
    """Judge how often data is repeated, whether shares are what was intended, and the padding."""
    dealt = [(stage.name, stage.mixture) for stage in found if stage.mixture]
    return epochs(dealt), realised(dealt), padding([(name, mixture.batching) for name, mixture in dealt])


def epochs(stages: list[tuple[str, Mixture]]) -> Gate:
    """No row is repeated so often in a cycle that it is learnt by heart."""
    rows = [(row.epochs, name, row) for name, mixture in stages for row in mixture.shares]
    if not rows:
        return fail("epochs", "No audited stage can be dealt from this dataset.")
    most, stage, row = max(rows, key=lambda entry: entry[0])
    said = f"A cycle of {stage} deals {row.task} of {row.corpus} {most:.2f} times"
    least, other, rare = min(rows, key=lambda entry: entry[0])
    seldom = f" {rare.task} of {rare.corpus} in {other} is dealt {least:.2f} times: {rare.never:.0%} of it not at all."
    seldom = seldom if rare.never else ""
    if most > EPOCHS:
        return warn("epochs", f"{said}: above {EPOCHS:g}, repetition teaches less and less.{seldom}")
    return good("epochs", f"{said}; no row is repeated more.{seldom}")


def realised(stages: list[tuple[str, Mixture]]) -> Gate:
    """Every task has the share that the recipe gives it, within an example or what chance would do."""
    rows = [(abs(row.draws - row.expected), name, row) for name, mixture in stages for row in mixture.tasks]
    if not rows:
        return fail("realised", "No audited stage can be dealt from this dataset.")
    beyond = [entry for entry in rows if entry[0] > max(1.0, SIGMAS * entry[2].sigma)]
    if beyond:
        off, stage, row = max(beyond, key=lambda entry: entry[0])
        said = f"A cycle of {stage} deals {row.task} {row.draws:,} times, not {row.expected:,.0f}"
        return fail("realised", f"{said}: {off:,.0f} off, more than {SIGMAS:g} standard deviations of chance.")
    off, stage, row = max(rows, key=lambda entry: entry[0])
    said = f"Every task is dealt as often as the recipe says, within {max(off, 0.01):.2f} examples"
    return good("realised", f"{said} ({row.task} in {stage}); drawn by lot it could be {SIGMAS * row.sigma:,.0f} off.")


def mixture_bars(mixture: Mixture) -> list[tuple[str, Markup]]:
    """Return the four shares of a stage, each a bar in which every row has its part."""
    bars = []
    for name, field in (
        ("intended", "intended"),
        ("of examples", "by_examples"),
        ("of audio", "by_seconds"),
        ("of answer tokens", "by_tokens"),
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
