"""The command evaluate for models that are not ours, and for answers that are there already."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from manifests.console import console
from manifests.errors import UserError
from salmonn.evaluation.commands import Where, show_made, telling
from salmonn.evaluation.request import Request
from salmonn.scoring.commands import find_judge, show

RECIPE = "salmonn"
"""Whose stage is asked unless another is named: a foreign model has no recipe of its own."""


def evaluate(options: Mapping[str, Any], request: Request, where: Where) -> None:
    """Put the questions of a stage to another model, or take its answers from a file; score and print them."""
    demand(options, request, where)
    by = find_judge(options["judge"], options["judge_model"])
    asking = request.asking(options["data"], RECIPE)
    folder = Path(where.out)
    if options["answers"]:
        from salmonn.evaluation.evaluate import scored
        from salmonn.evaluation.given import take_answers

        joined = take_answers(options["answers"], asking, request, folder, model=options["model"], anew=where.anew)
        results = scored(folder, joined.made, by)
        told = (
            f"{joined.taken:,} answers taken; {len(joined.missing):,} questions have none and count as answered with "
        )
        console.print(f"{told}nothing; {len(joined.unknown):,} answers are to no question that is asked")
    else:
        from salmonn.evaluation.foreign import open_foreign

        respondent = open_foreign(options["model"], options["url"])
        from salmonn.evaluation.evaluate import assess

        with telling() as on_batch:
            found = assess(respondent, asking, request, folder, anew=where.anew, judge=by, on_batch=on_batch(""))
        show_made(found.tasks)
        results = found.results
    show(results, options["json"], options["html"], where.out)


def demand(options: Mapping[str, Any], request: Request, where: Where) -> None:
    """Raise UserError for options that do not go together."""
    what = "--answers" if options["answers"] else "--model"
    if options["run"]:
        raise UserError(f"{what} takes the place of the run {options['run']!r}; leave one out")
    for name, given in (("--data", request.data), ("--out", where.out)):
        if not given:
            raise UserError(f"{what} needs {name}: without a run there is none to go by")
    if where.share.workers or where.share.address:
        raise UserError(f"--workers and --address are for runs; {what} is answered in this process")
    if options["at_steps"] or options["lora_scales"] or options["perplexity"]:
        raise UserError(f"figures are drawn of runs; {what} has neither steps nor LoRA")
    if request.lora_scale != 1:
        raise UserError(f"--lora-scale {request.lora_scale:g} is for runs; {what} has no LoRA of ours")
