"""The command annotate: what it prints."""

from __future__ import annotations

import time

from manifests import Failed, UserError, load_corpus
from manifests.chat import Limits
from manifests.console import Bars, console, table
from manifests.corpus import parse_source
from pipelines.annotate import Made, Plan, annotate_by_rule, price
from pipelines.annotate import annotate as run_annotate
from pipelines.scan import raw_folder


def annotate(
    sources: list[str],
    root: str,
    out: str,
    endpoint: str = "",
    model: str = "",
    questions: int = 3,
    per_minute: float = 0.0,
    parallel: int = 8,
    retries: int = 5,
    timeout: float = 120.0,
    again: bool = False,
    dry_run: bool = False,
    price_in: float = 0.0,
    price_out: float = 0.0,
) -> None:
    """Write question-answer pairs about the clips of `sources` and print what became of them."""
    check(endpoint, model, questions, per_minute, parallel, retries, timeout, price_in, price_out)
    wanted = splits_of(sources, root)
    begin = time.perf_counter()
    if dry_run:
        show_price(price(wanted, root, out, model, questions) if endpoint else None, price_in, price_out)
        return
    if not endpoint:
        made = annotate_by_rule(wanted, root, out, questions)
    else:
        limits = Limits(per_minute=per_minute, parallel=parallel, retries=retries, timeout=timeout)
        with Bars() as bars:
            made = run_annotate(
                wanted,
                root,
                out,
                endpoint=endpoint,
                model=model,
                count=questions,
                limits=limits,
                again=again,
                watch=bars,
            )
    show_made(made, out, time.perf_counter() - begin)


def check(
    endpoint: str,
    model: str,
    questions: int,
    per_minute: float,
    parallel: int,
    retries: int,
    timeout: float,
    price_in: float,
    price_out: float,
) -> None:
    """Raise UserError for options that make no sense."""
    if bool(endpoint) != bool(model):
        raise UserError("--endpoint and --model belong together; without both, questions are made by rule")
    if not 1 <= questions <= 20:
        raise UserError(f"--questions is {questions}; it can be 1 to 20")
    for name, value, least in (("parallel", parallel, 1), ("retries", retries, 0)):
        if value < least:
            raise UserError(f"--{name} is {value}; it must be at least {least}")
    for name, number in (("per-minute", per_minute), ("price-in", price_in), ("price-out", price_out)):
        if not number >= 0:
            raise UserError(f"--{name} is {number}; it cannot be below 0")
    if not timeout > 0:
        raise UserError(f"--timeout is {timeout}; it must be above 0")


def splits_of(sources: list[str], root: str) -> list[tuple[str, str]]:
    """Return the splits that are meant: of a corpus without a split, those that are there."""
    wanted: dict[tuple[str, str], None] = {}
    for source in sources:
        corpus, splits = parse_source(source)
        found, trouble = [], None
        for split in splits:
            try:
                next(load_corpus(corpus.name).clips(raw_folder(root, corpus.name), split, lambda *_: None), None)
                found.append((corpus.name, split))
            except UserError as error:
                trouble = trouble or error
        if trouble and (":" in source or not found):
            raise trouble
        wanted.update(dict.fromkeys(found))
    return list(wanted)


def show_price(plan: Plan | None, price_in: float, price_out: float) -> None:
    """Print what a run would ask."""
    if plan is None:
        console.print("without --endpoint questions are made by rule: no request, no cost; nothing was written")
        return
    cost = (plan.tokens_in * price_in + plan.tokens_out * price_out) / 1e6
    console.print(f"{plan.clips:,} clips, {plan.without:,} of them without text or captions")
    console.print(f"{plan.texts:,} different texts, {plan.known:,} of them answered already")
    console.print(f"{plan.requests:,} requests, about {plan.tokens_in:,} tokens in and {plan.tokens_out:,} tokens out")
    if price_in or price_out:
        console.print(f"about {cost:,.2f} at {price_in:g} and {price_out:g} a million tokens")
    console.print("nothing was asked and nothing written")


def show_made(made: Made, out: str, took: float) -> None:
    """Print what a run made; Failed if that is nothing."""
    plan = made.plan
    shown = table(f"Annotated in {took:.1f} s", "what", "number", right=("number",))
    rows = [
        ("clips", plan.clips),
        ("without text or captions", plan.without),
        ("with questions", made.annotated),
        ("questions", made.pairs),
    ]
    if made.requests or plan.known:
        rows += [("texts answered by an earlier run", plan.known), ("requests", made.requests)]
    for what, number in [*rows, *((f"failed: {reason}", count) for reason, count in made.failed.items())]:
        shown.add_row(what, f"{number:,}")
    console.print(shown)
    for line in made.examples:
        console.print(line, markup=False, style="dim")
    if plan.clips and not made.pairs:
        raise Failed(f"not one question about {plan.clips:,} clips; {out} holds an empty list")
    console.print(f"{out} written", markup=False)
