"""The paper's figures from a run: scores against steps (Figure 2) or LoRA's scaling (Figure 3), perplexity (Figure 4).

RUN/evaluation/STAGE/steps/step-NNNNNN/   the answers and scores at a step
RUN/evaluation/STAGE/scales/step-NNNNNN-SCALING/   and with LoRA at another strength
RUN/evaluation/STAGE/NAME.json, NAME.svg  the figures: steps, scales, newest, each also with -perplexity
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from manifests.errors import UserError
from manifests.files import write_whole
from salmonn.evaluation.curves import Curve, Panel, draw
from salmonn.evaluation.evaluate import assess
from salmonn.evaluation.generate import OnBatch, Request, Share
from salmonn.evaluation.perplexity import measure, told_in
from salmonn.evaluation.respondent import RunModel
from salmonn.evaluation.spans import MOST_POINTS
from salmonn.scoring.judge import Judge
from salmonn.scoring.results import Results


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """How the evaluations of a figure are done."""

    perplexity: bool = False
    """Whether a figure of perplexity is made, too."""
    out: str = ""
    """Where answers and figures go, by default ``RUN/evaluation/STAGE``."""
    anew: bool = False
    """Whether answers that were made otherwise are replaced."""
    share: Share | None = None
    judge: Judge | None = None
    on_batch: Callable[[str], OnBatch | None] = lambda place: None
    """Told of each place; returns who is told of its batches."""


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """One number at one x, in the unit it is shown in."""

    task: str
    set: str
    """Corpus and split."""
    name: str
    """Of the score."""
    value: float
    low: float | None = None
    high: float | None = None
    count: int = 0
    """Answers."""


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """All numbers at one x."""

    x: float
    model: str
    lora_scale: float
    """Factor on LoRA's scaling; 1 is as trained."""
    values: tuple[Value, ...]


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """A figure: what its file holds, its table and its curves show."""

    name: str
    title: str
    x_label: str
    stage: str
    recipe: str
    points: tuple[Point, ...]
    mark: float | None = None
    """Where a dashed line stands: LoRA's scaling as trained."""

    def panels(self) -> list[Panel]:
        """Return its curves, a panel for each score, in the order in which they come."""
        curves: dict[str, dict[tuple[str, str], list[tuple[float, Value]]]] = {}
        for point in self.points:
            for value in point.values:
                curves.setdefault(value.name, {}).setdefault((value.task, value.set), []).append((point.x, value))
        return [
            Panel(title=name, curves=tuple(curve(task, place, found) for (task, place), found in mine.items()))
            for name, mine in curves.items()
        ]

    def rows(self) -> list[tuple[str, str, str, list[str]]]:
        """Return its table: score, task, test set, and a cell for each x, ``-`` where there is no value."""
        cells: dict[tuple[str, str, str], dict[float, str]] = {}
        for point in self.points:
            for one in point.values:
                cells.setdefault((one.name, one.task, one.set), {})[point.x] = f"{one.value:.4g}"
        order = list(dict.fromkeys(name for name, _, _ in cells))
        return [
            (*key, [cells[key].get(point.x, "-") for point in self.points])
            for key in sorted(cells, key=lambda key: order.index(key[0]))
        ]

    def svg(self) -> str:
        """Return the drawing."""
        return draw(self.panels(), self.title, self.x_label, self.mark)


def curve(task: str, place: str, found: Sequence[tuple[float, Value]]) -> Curve:
    """Return the line of one score on one test set."""
    return Curve(
        name=f"{task.replace('_', ' ')}, {place}",
        task=task,
        x=tuple(x for x, _ in found),
        y=tuple(value.value for _, value in found),
        low=tuple(value.low for _, value in found),
        high=tuple(value.high for _, value in found),
    )


def at_steps(run: str | Path, steps: Sequence[int] | None, request: Request, how: How | None = None) -> list[Figure]:
    """Evaluate kept checkpoints, by default all; return the figure of their scores, and of perplexity if asked for.

    Step 0 is the run before its first step, where its weights came from elsewhere (init_from). UserError for a step
    that is not kept.
    """
    model = RunModel(run)
    kept = model.steps()
    chosen = sorted(set(kept if steps is None else steps))
    for step in chosen:
        model.at(step)  # told now, not after hours
    if not chosen:
        raise UserError(f"the run {str(run)!r} has no checkpoint yet; train it first")
    places = [(float(step), step, request.lora_scale, f"steps/step-{step:06d}") for step in chosen]
    title = f"{model.config.folder.resolve().name}: scores at each step"
    return follow(model, places, request, "steps", title, "step", None, how or How())


def at_scales(run: str | Path, scalings: Sequence[float], request: Request, how: How | None = None) -> list[Figure]:
    """Evaluate the newest checkpoint with LoRA at these scalings; return the figure of their scores, and so on.

    A scaling is what Figure 3 has on its axis, alpha / r: 4 as the paper trained it, and 0 is no LoRA.
    """
    model = RunModel(run)
    step = model.at().step
    places = [
        (value, step, value / model.scaling, f"scales/step-{step:06d}-{value:g}") for value in sorted(set(scalings))
    ]
    title = f"{model.config.folder.resolve().name}, step {step}: scores at each scaling of LoRA"
    label = f"LoRA scaling (alpha / r); trained at {model.scaling:g}"
    return follow(model, places, request, "scales", title, label, model.scaling, how or How())


def at_newest(run: str | Path, request: Request, how: How | None = None) -> list[Figure]:
    """Evaluate the newest checkpoint alone: one point of each figure."""
    model = RunModel(run)
    step = model.at().step
    title = f"{model.config.folder.resolve().name}: scores at step {step}"
    return follow(model, [(step, step, request.lora_scale, "")], request, "newest", title, "step", None, how or How())


def follow(
    model: RunModel,
    places: Sequence[tuple[float, int, float, str]],
    request: Request,
    name: str,
    title: str,
    x_label: str,
    mark: float | None,
    how: How,
) -> list[Figure]:
    """Evaluate a run at each of `places` (x, step, factor on LoRA, folder); write the figures and return them."""
    if len(places) > MOST_POINTS:
        raise UserError(f"{len(places)} evaluations are too many for one figure; ask for at most {MOST_POINTS}")
    asking = request.asking(model.config.dataset, model.config.recipe)
    top = Path(how.out) if how.out else model.config.folder / "evaluation" / request.stage
    points = []
    for x, step, factor, place in places:
        found = assess(
            model.at(step),
            asking,
            msgspec.structs.replace(request, lora_scale=factor),
            top / place,
            step=step,
            anew=how.anew,
            share=how.share,
            judge=how.judge,
            on_batch=how.on_batch(place),
        )
        points.append(Point(x=x, model=found.model, lora_scale=factor, values=values_of(found.results)))
    drawn = [
        Figure(
            name=name,
            title=title,
            x_label=x_label,
            stage=asking.stage,
            recipe=asking.recipe.name,
            points=tuple(points),
            mark=mark,
        )
    ]
    if how.perplexity:
        # One text at every x: the answers of the last place, where no reference is an answer.
        told = told_in(top / places[-1][3])
        measured = []
        for point, (_, step, factor, _) in zip(points, places, strict=True):
            rows = measure(model.at(step), asking, told, factor)
            values = tuple(
                Value(
                    task=row.task,
                    set="/".join((row.corpus, row.split)),
                    name=f"perplexity {how} instruction",
                    value=value,
                    count=row.answers,
                )
                for row in rows
                for how, value in (("with", row.instructed), ("without", row.uninstructed))
            )
            measured.append(msgspec.structs.replace(point, values=values))
        title = title.replace("scores", "perplexity of answers")
        drawn.append(msgspec.structs.replace(drawn[0], name=f"{name}-perplexity", title=title, points=tuple(measured)))
    for figure in drawn:
        write_whole(top / f"{figure.name}.json", msgspec.json.format(msgspec.json.encode(figure)) + b"\n")
        write_whole(top / f"{figure.name}.svg", figure.svg().encode())
    return drawn


def values_of(results: Results) -> tuple[Value, ...]:
    """Return every score that has a value, as it is shown."""
    return tuple(
        Value(
            task=one.task,
            set="/".join(part for part in (one.corpus, one.split) if part),
            name=part.name,
            value=part.value * part.scale,
            low=None if part.low is None else part.low * part.scale,
            high=None if part.high is None else part.high * part.scale,
            count=part.count,
        )
        for one in results.sets
        if one.score is not None
        for part in one.score.parts()
        if part.value is not None
    )
