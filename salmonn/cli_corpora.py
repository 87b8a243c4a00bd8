"""Commands about corpora: what there is, how to get it, and what is in it. A part of the roof."""

from __future__ import annotations

from typing import Annotated

import typer

from salmonn.cli_options import Address, HeadStart, Root, Workers, app


@app.command()
def corpora() -> None:
    """List the corpora: licence, access, splits with their published sizes, tasks they serve."""
    from manifests import catalogue

    catalogue.show_corpora()


@app.command()
def tasks() -> None:
    """List the tasks: level, metric, prompts, and the corpora that serve them."""
    from manifests import catalogue

    catalogue.show_tasks()


@app.command()
def recipe(
    name: Annotated[str, typer.Argument(help="A recipe's name, or the path of its TOML file.")],
    dataset: Annotated[str, typer.Option(help="A dataset, to show what it has beside what is meant.")] = "",
) -> None:
    """Show what a recipe mixes in each stage, with its targets."""
    from manifests import catalogue

    actual = None
    if dataset:
        from shards import commands as looking

        actual = looking.actual_sizes(dataset, name)
    catalogue.show_recipe(name, actual)


@app.command()
def fetch(
    sources: Annotated[list[str], typer.Argument(help="CORPUS or CORPUS:SPLIT, as many as you like.")],
    root: Root = "data",
    workers: Annotated[int | None, typer.Option(help="Files at a time; by default 8.", show_default=False)] = None,
    address: Address = "local",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be fetched, and write nothing.")] = False,
    mirror: Annotated[
        str, typer.Option(help="An address that replaces scheme and host of all files.", envvar="SALMONN_MIRROR")
    ] = "",
    allow_private: Annotated[bool, typer.Option("--allow-private", help="Also fetch from private addresses.")] = False,
    per_host: Annotated[int, typer.Option(help="Files at a time from one host.")] = 2,
    deadline: Annotated[float, typer.Option(help="Seconds for one file; 0 reckons them from its size.")] = 0.0,
    unpack: Annotated[bool, typer.Option("--unpack/--no-unpack", help="Unpack archives.")] = True,
    stream: Annotated[
        bool, typer.Option("--stream", help="Do not unpack tars; index them, and read them where they lie.")
    ] = False,
    remove_archives: Annotated[
        bool, typer.Option("--remove-archives", help="Remove archives once unpacked; else they stay in .archives/.")
    ] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Hash again what is there.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Also try what failed for good before.")] = False,
    from_dir: Annotated[str, typer.Option("--from", help="Adopt this copy of the corpus, by links.")] = "",
    copy: Annotated[bool, typer.Option("--copy", help="Adopt by copying.")] = False,
    videos: Annotated[
        bool, typer.Option("--videos", help="Download the audio of published video ids (yt-dlp).")
    ] = False,
    audio_dir: Annotated[str, typer.Option(help="Take that audio from your own copies in this folder.")] = "",
    cookies: Annotated[str, typer.Option(help="A cookies.txt for the videos.")] = "",
) -> None:
    """Fetch corpora as published: resumed, digests checked, unpacked. Run it again for what is left to do."""
    from pipelines.fetching.commands import Extras
    from pipelines.fetching.commands import fetch as run

    extras = Extras(from_dir=from_dir, copy=copy, videos=videos, audio_dir=audio_dir, cookies=cookies)
    run(
        sources,
        root,
        workers,
        address,
        dry_run=dry_run,
        mirror=mirror,
        allow_private=allow_private,
        per_host=per_host,
        deadline=deadline,
        unpack=unpack,
        stream=stream,
        remove_archives=remove_archives,
        verify=verify,
        again=again,
        extras=extras,
    )


@app.command()
def unpack(
    archives: Annotated[
        list[str], typer.Argument(help="tar, tar.gz, zip (of a split one, the .zip), 7z, or the Hub's Parquet.")
    ],
    into: Annotated[str, typer.Option(help="The folder to fill; by default the one in which each archive lies.")] = "",
) -> None:
    """Unpack archives, all or nothing, under checked names; audio inside Parquet becomes a file a row."""
    from pipelines.unpacking.commands import unpack as run

    run(archives, into)


@app.command()
def status(
    sources: Annotated[
        list[str] | None, typer.Argument(help="CORPUS or CORPUS:SPLIT; without, all that is begun.")
    ] = None,
    root: Root = "data",
) -> None:
    """Show of every split what is fetched, verified, unpacked and missing, why, and what comes next."""
    from pipelines.fetching.status import status as run

    run(sources or [], root)


@app.command()
def scan(
    sources: Annotated[list[str], typer.Argument(help="CORPUS or CORPUS:SPLIT, as many as you like.")],
    root: Root = "data",
    workers: Workers = None,
    address: Address = "local",
    min_coverage: Annotated[
        float, typer.Option(help="Share of a split's published clips to demand (exit code 1).")
    ] = 0.0,
    head_start: HeadStart = 30.0,
) -> None:
    """Read corpora as published and write their manifests; compares what is found with what is published."""
    from pipelines import commands as building

    building.scan(sources, root, workers, address, min_coverage, head_start)


@app.command()
def annotate(
    sources: Annotated[list[str], typer.Argument(help="CORPUS or CORPUS:SPLIT, as many as you like.")],
    out: Annotated[str, typer.Option(help="The file to write; below ROOT/annotations/<corpus>/ the scan finds it.")],
    root: Root = "data",
    endpoint: Annotated[str, typer.Option(help="An OpenAI-compatible endpoint; without one, questions by rule.")] = "",
    model: Annotated[str, typer.Option(help="The model to ask there. SALMONN_API_KEY holds the token.")] = "",
    questions: Annotated[int, typer.Option(help="Questions a clip, at most.")] = 3,
    per_minute: Annotated[float, typer.Option(help="Requests a minute, at most; 0 is as many as go.")] = 0.0,
    parallel: Annotated[int, typer.Option(help="Requests at a time.")] = 8,
    retries: Annotated[int, typer.Option(help="How often a request is tried again.")] = 5,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for an answer.")] = 120.0,
    again: Annotated[bool, typer.Option("--again", help="Also ask anew what failed for good before.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count requests, tokens and cost, and ask nothing.")
    ] = False,
    price_in: Annotated[float, typer.Option(help="Price of a million tokens of prompt.")] = 0.0,
    price_out: Annotated[float, typer.Option(help="Price of a million tokens of answer.")] = 0.0,
) -> None:
    """Make question-answer pairs about clips with text or captions, by rule or by a language model."""
    from pipelines.annotate_commands import annotate as run

    limits = (questions, per_minute, parallel, retries, timeout)
    run(sources, root, out, endpoint, model, *limits, again, dry_run, price_in, price_out)
