"""The command `salmonn audit`: what is in a mixture, whether it is right, and what else one would ask of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from salmonn.cli_options import app


@app.command()
def audit(
    dataset: Annotated[str, typer.Argument(help="The folder of the dataset.")],
    recipe: Annotated[
        str, typer.Option(help="A recipe's name or file: `salmonn recipe` lists them. --sql and --notebook need none.")
    ] = "",
    out: Annotated[Path, typer.Option(help="The folder for audit.html, report.json and the lists.")] = Path("audit"),
    stage: Annotated[
        list[str] | None, typer.Option(help="A stage to look at; may be repeated. All of the recipe by default.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the order that the mixture is measured in.")] = 0,
    max_seconds: Annotated[float, typer.Option(help="Seconds of audio of a batch, with padding.")] = 120.0,
    max_examples: Annotated[int, typer.Option(help="Examples of a batch.")] = 8,
    world_size: Annotated[int, typer.Option(help="GPUs for which steps are counted.")] = 1,
    against: Annotated[
        list[str] | None,
        typer.Option(help="A further evaluation set, CORPUS:SPLIT, that must not be trained on; may be repeated."),
    ] = None,
    diff: Annotated[str, typer.Option(help="The folder of another build to compare with.")] = "",
    fail_on: Annotated[
        str, typer.Option(help="Gates with commas, or all: exit with 1 if one of them fails.", metavar="GATE,...")
    ] = "",
    sql: Annotated[
        str, typer.Option(help="Only ask this of the tables samples, instructions, refusals and roles (DuckDB).")
    ] = "",
    csv: Annotated[bool, typer.Option("--csv", help="Print the answer to --sql as CSV.")] = False,
    notebook: Annotated[
        Path | None, typer.Option(help="Only write every instruction with its sample's facts to this Parquet file.")
    ] = None,
) -> None:
    """Say what is in a mixture, on one page: targets, shares, padding, faults, leaks, licences, clips to listen to."""
    from manifests.errors import UserError
    from shards.audit import commands as auditing

    if csv and not sql:
        raise UserError("--csv prints the answer to --sql; give the query as well")
    if sql:
        auditing.tell(dataset, recipe, sql, stage or (), csv)
    if notebook is not None:
        auditing.keep(dataset, recipe, notebook, stage or ())
    if sql or notebook is not None:
        return
    if not recipe:
        raise UserError("salmonn audit needs --recipe: the mixture it is to judge; `salmonn recipe` lists them")
    auditing.show(
        dataset,
        recipe,
        out,
        stages=stage or (),
        seed=seed,
        max_seconds=max_seconds,
        max_examples=max_examples,
        world_size=world_size,
        against=against or (),
        other=diff,
        fail_on=fail_on,
    )
