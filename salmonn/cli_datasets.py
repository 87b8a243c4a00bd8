"""Commands that make datasets and keep them. A part of the roof."""

from __future__ import annotations

from typing import Annotated

import typer

from salmonn.cli_options import Address, HeadStart, Root, Workers, app


@app.command()
def build(
    recipe: Annotated[str, typer.Argument(help="A recipe's name, or the path of its TOML file.")],
    out: Annotated[str, typer.Option(help="The folder of the dataset.")],
    root: Root = "data",
    workers: Workers = None,
    address: Address = "local",
    shard_mb: Annotated[float, typer.Option(help="Size of a shard, in MiB.")] = 256,
    budget: Annotated[float, typer.Option(help="Share of clips with bad audio at which to stop (exit code 3).")] = 0.05,
    trust_digests: Annotated[
        bool, typer.Option("--trust-digests", help="Copy FLAC of archives that fetch verified without decoding it.")
    ] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try refused clips again.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would take, and write nothing.")] = False,
    price: Annotated[float, typer.Option(help="With --dry-run: price of a processor hour.")] = 0.0,
    head_start: HeadStart = 30.0,
) -> None:
    """Build a dataset: scan, pack, verify. The same command goes on after a stop, and renews after a change."""
    from pipelines import commands as building

    if dry_run:
        building.price(recipe, root, shard_mb, trust_digests, price)
    else:
        building.build(recipe, root, out, workers, address, shard_mb, budget, trust_digests, retry_failed, head_start)


@app.command()
def gc(
    dataset: Annotated[str, typer.Argument(help="The folder of the dataset.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list it.")] = False,
) -> None:
    """Remove what killed or changed builds left behind: half-written files, shards that no index names."""
    from pipelines import commands as building

    building.gc(dataset, dry_run)


@app.command()
def submit(
    recipe: Annotated[str, typer.Argument(help="A recipe's name, or the path of its TOML file, which is sent along.")],
    out: Annotated[str, typer.Option(help="The folder of the dataset, as the nodes of the cluster see it.")],
    address: Annotated[str, typer.Option(help="The dashboard of the cluster's head: http://HOST:8265.")],
    more: Annotated[
        list[str] | None, typer.Argument(help="After --: further options of build.", show_default=False)
    ] = None,
    root: Root = "data",
    workers: Workers = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Also send it to a cluster that takes jobs from anyone.")
    ] = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not follow the job to its end.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Also if it has run before: a failed build goes on.")] = False,
    shared_storage: Annotated[
        bool, typer.Option("--shared-storage", help="Every node sees the local --root and --out.")
    ] = False,
    code: Annotated[bool, typer.Option("--code", help="Run this checkout's code there, not the cluster's.")] = False,
) -> None:
    """Build a dataset on a running Ray cluster, as a job: sent once, followed to its end, its exit code handed on."""
    from pipelines.submit_commands import submit as run

    options = tuple(more or ())
    raise typer.Exit(
        run(recipe, root, out, address, workers, options, insecure, not no_wait, again, shared_storage, code)
    )


@app.command()
def verify(
    dataset: Annotated[str, typer.Argument(help="The folder of the dataset.")],
    data: Annotated[bool, typer.Option("--data", help="Also read every byte back and decode every clip.")] = False,
    data_subset: Annotated[str, typer.Option(help="Read back a share of the shards, for example 5%.")] = "",
    workers: Workers = None,
    address: Address = "local",
    head_start: HeadStart = 30.0,
) -> None:
    """Hold a dataset against its index. Exit code 1 if anything is wrong."""
    from pipelines import commands as building

    building.verify(dataset, "100%" if data else data_subset, workers, address, head_start)


@app.command()
def push(
    dataset: Annotated[str, typer.Argument(help="The folder of the dataset.")],
    repo: Annotated[str, typer.Argument(help="ACCOUNT/NAME on the Hugging Face Hub; made if it is not there.")],
    private: Annotated[bool, typer.Option("--private", help="If it is made: for you alone to see.")] = False,
    revision: Annotated[str, typer.Option(help="A branch to push to, made if it is not there.")] = "",
    only: Annotated[
        list[str] | None, typer.Option(help="Only these corpora, with commas between.", show_default=False)
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check it all, and send nothing.")] = False,
) -> None:
    """Publish a dataset on the Hugging Face Hub, as far as licences allow. The same command goes on after a stop."""
    from pipelines.pushing.commands import push as run

    corpora = tuple(name.strip() for several in only or () for name in several.split(",") if name.strip())
    run(dataset, repo, private, revision, corpora, dry_run)


@app.command()
def export_annotations(
    dataset: Annotated[str, typer.Argument(help="The folder of the dataset.")],
    out: Annotated[str, typer.Option(help="The JSON file to write.")],
    audio: Annotated[str, typer.Option(help="A folder for the FLAC files that the annotations name.")] = "",
) -> None:
    """Write a dataset's instructions in the format of the annotations released with SALMONN."""
    from shards import commands as looking

    looking.export(dataset, out, audio)
