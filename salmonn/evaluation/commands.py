"""The commands generate-answers and evaluate: what they print and write."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from rich.markup import escape

from manifests import UserError
from manifests.console import Bars, console, table
from manifests.files import write_whole
from salmonn.evaluation.answers import Made
from salmonn.evaluation.request import Request, Share
from salmonn.evaluation.sheet import figures_page
from salmonn.evaluation.spans import read_scalings, read_steps
from salmonn.scoring.commands import find_judge, show

# What needs torch is imported where it is used: a mistake is told at once, not after ten seconds.
if TYPE_CHECKING:
    from salmonn.evaluation.evaluate import Evaluation
    from salmonn.evaluation.figures import Figure
    from salmonn.evaluation.generate import OnBatch

NAMED = 5
"""Damaged samples of a task whose names are printed; the file has all."""


class Where(msgspec.Struct, frozen=True, kw_only=True):
    """Which answers are made, and where they go."""

    out: str = ""
    """By default ``RUN/evaluation/STAGE``."""
    anew: bool = False
    """Whether answers that were made otherwise are replaced."""
    share: Share = Share()


def understand(options: Mapping[str, Any]) -> tuple[Request, Where]:
    """Return what the options of a command ask; UserError if it cannot be."""
    share = Share(workers=options["workers"], address=options["address"])
    asked = {name: options[name] for name in Request.__struct_fields__}
    asked["tasks"] = tuple(dict.fromkeys(part.strip() for part in options["tasks"].split(",") if part.strip()))
    return Request(**asked), Where(out=options["out"], anew=options["anew"], share=share)


def generate_answers(run: str, request: Request, where: Where) -> None:
    """Let a run answer every example of a stage, and print what was made."""
    prepare(run, request)
    from salmonn.evaluation.generate import generate_answers as generate

    with telling() as on_batch:
        made = generate(run, request, out=where.out or None, anew=where.anew, share=where.share, on_batch=on_batch(""))
    show_made(made)
    place = where.out or Path(run) / "evaluation" / request.stage
    console.print(f"the answers are in {place}; salmonn score {place} says what they are worth", soft_wrap=True)


def evaluate(
    run: str, request: Request, where: Where, *, json: str = "", html: str = "", judge: str = "", judge_model: str = ""
) -> Evaluation:
    """Let a run answer a stage, score the answers, and print both."""
    prepare(run, request)
    by = find_judge(judge, judge_model)
    from salmonn.evaluation.evaluate import evaluate as assess

    with telling() as on_batch:
        found = assess(
            run,
            request,
            out=where.out or None,
            anew=where.anew,
            share=where.share,
            judge=by,
            on_batch=on_batch(""),
        )
    show_made(found.tasks)
    show(found.results, json, html, where.out or Path(run) / "evaluation" / request.stage)
    return found


def figures(
    run: str,
    request: Request,
    where: Where,
    *,
    steps: str = "",
    scales: str = "",
    perplexity: bool = False,
    json: str = "",
    html: str = "",
    judge: str = "",
    judge_model: str = "",
) -> None:
    """Evaluate a run at many of its steps, or with LoRA at many strengths; print and write the figures."""
    if steps and scales:
        raise UserError("--at-steps and --lora-scales are two figures; ask for one at a time")
    if scales and request.lora_scale != 1:
        raise UserError(f"--lora-scales takes the place of --lora-scale {request.lora_scale:g}; leave one out")
    at, scalings = read_steps(steps) if steps else None, read_scalings(scales) if scales else []
    prepare(run, request)
    by = find_judge(judge, judge_model)
    from salmonn.evaluation.figures import How, at_newest, at_scales, at_steps

    with telling() as on_batch:
        how = How(perplexity=perplexity, out=where.out, anew=where.anew, share=where.share, judge=by, on_batch=on_batch)
        if scales:
            drawn = at_scales(run, scalings, request, how)
        elif steps:
            drawn = at_steps(run, at, request, how)
        else:
            drawn = at_newest(run, request, how)
    for figure in drawn:
        show_figure(figure)
        place = Path(where.out or Path(run) / "evaluation" / request.stage) / figure.name
        console.print(f"the figure is {place}.svg, its numbers {place}.json", soft_wrap=True)
    if json:
        write_whole(json, msgspec.json.format(msgspec.json.encode(drawn)) + b"\n")
        console.print(f"the numbers are in {json}", soft_wrap=True)
    if html:
        write_whole(html, figures_page(drawn).encode())
        console.print(f"the page is {html}", soft_wrap=True)


def prepare(run: str, request: Request) -> None:
    """Raise UserError for what can be told without torch: no run, no dataset, no such stage or task."""
    path = Path(run) / "config.json"
    if not path.is_file():
        raise UserError(f"there is no run in {run!r}; salmonn train makes one")
    from salmonn.training.settings import TrainConfig

    try:
        config = msgspec.json.decode(path.read_bytes(), type=TrainConfig)
    except msgspec.MsgspecError as error:
        raise UserError(f"{path}: not the settings of a run: {error}") from None
    request.asking(config.dataset, config.recipe)


@contextlib.contextmanager
def telling() -> Iterator[_Telling]:
    """Show how far the answers of each place are."""
    with Bars() as bars:
        yield _Telling(bars)


class _Telling:
    """Makes of a place who is told of its batches."""

    def __init__(self, bars: Bars) -> None:
        self.bars = bars

    def __call__(self, place: str) -> OnBatch:
        """Return who shows the batches of one place: a bar a task."""
        done: dict[str, int] = {}
        head = f"{Path(place).name} " if place else ""

        def note(task: str, examples: int, total: int) -> None:
            done[task] = done.get(task, 0) + examples
            self.bars(f"{head}{task}", done[task], total)

        return note


def show_made(made: Mapping[str, Made]) -> None:
    """Print what was answered, and each damaged sample that was not."""
    shown = table("Answers", "task", "answers", "unfinished", "cut at 30 s", "damaged", "longest", "decoding")
    for task, one in made.items():
        plan = one.plan
        how = f"beam {plan.beams}" + (f", LoRA x{plan.lora_scale:g}" if plan.lora_scale != 1 else "")
        counts = map(str, (one.answers, one.unfinished, one.cut, len(one.damaged)))
        shown.add_row(task, *counts, f"{plan.max_new_tokens} tokens", how)
    console.print(shown)
    for task, one in made.items():
        if one.damaged:
            names = ", ".join(damage.key for damage in one.damaged[:NAMED])
            more = f" and {len(one.damaged) - NAMED} more" if len(one.damaged) > NAMED else ""
            console.print(f"  {task}: damaged, and so not asked about: {escape(names)}{more}", soft_wrap=True)


def show_figure(figure: Figure) -> None:
    """Print the numbers of a figure, an x a column."""
    shown = table(escape(figure.title), "score", "task", "set", *(f"{point.x:g}" for point in figure.points))
    for name, task, place, cells in figure.rows():
        shown.add_row(*map(escape, (name, task, place, *cells)))
    console.print(shown)
