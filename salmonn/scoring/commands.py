"""The command score: what it reads, and what it prints and writes of the scores."""

from __future__ import annotations

from pathlib import Path

import msgspec
from rich.text import Text

from manifests.console import console
from manifests.errors import UserError
from manifests.files import write_whole
from salmonn.scoring.judge import Judge, StringMatch
from salmonn.scoring.results import Results, score_all
from salmonn.scoring.table import remarks, rows, scores_table, ways


def score(answers: str, json: str, html: str, judge: str, judge_model: str) -> None:
    """Score a file or a folder of answers; print the table, and write it where it is wanted."""
    show(score_all(answers, find_judge(judge, judge_model)), json, html, answers)


def find_judge(url: str = "", model: str = "") -> Judge:
    """Return the judge behind an endpoint, or the one that compares strings; UserError if only half is named."""
    if not url and not model:
        return StringMatch()
    if not url:
        raise UserError(f"--judge-model {model!r} needs --judge, the address of an OpenAI-compatible endpoint")
    from salmonn.scoring.endpoint import EndpointJudge

    return EndpointJudge(url, model)


def show(results: Results, json: str = "", html: str = "", answers: str | Path = "") -> None:
    """Print the table of `results`, and write it as JSON and as a page where a path is given.

    The page shows samples of the `answers` that were scored.
    """
    console.print(scores_table(results))
    for title, lines in (("How they are counted", ways(results)), ("Remarks", remarks(results))):
        console.print(f"\n[bold]{title}[/]")
        for line in lines:
            # Text, not a string: a prompt may look like rich's markup.
            console.print(Text(f"  {line}"))
    if json:
        write_whole(json, to_json(results))
        console.print(f"the scores are in {json}", soft_wrap=True)
    if html:
        from salmonn.scoring.page import write_page

        write_page(results, html, answers)
        console.print(f"the page is {html}", soft_wrap=True)


def to_json(results: Results) -> bytes:
    """Return results, and the rows of their table, as JSON."""
    told = {**msgspec.to_builtins(results), "table": msgspec.to_builtins(rows(results))}
    return msgspec.json.format(msgspec.json.encode(told)) + b"\n"
