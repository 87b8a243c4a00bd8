"""The command `salmonn`: the roof over the four packages. Each command imports what it needs when it is called."""

from __future__ import annotations

import errno
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core


class Interruptible(typer.core.TyperGroup):
    """Says what to do after Ctrl-C, of which typer would say nothing."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            print("salmonn: stopped; nothing is lost, run the same command again to go on", file=sys.stderr)
            raise typer.Exit(130) from None


app = typer.Typer(
    name="salmonn",
    cls=Interruptible,
    help="Build SALMONN's instruction shards from public corpora, stream them, train on them, audit them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Root = Annotated[
    str, typer.Option(help="The folder of the corpora: raw/<corpus>/ as published.", envvar="SALMONN_ROOT")
]
Workers = Annotated[int | None, typer.Option(help="Processes at a time; by default one a core.", show_default=False)]
Address = Annotated[str, typer.Option(help="The Ray cluster: local, auto, or ray://HOST:PORT.")]
RecipeName = Annotated[str, typer.Option("--recipe", help="A recipe's name, or the path of its TOML file.")]
Stage = Annotated[str, typer.Option(help="Which stage of the recipe.")]


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
def scan(
    sources: Annotated[list[str], typer.Argument(help="CORPUS or CORPUS:SPLIT, as many as you like.")],
    root: Root = "data",
    workers: Workers = None,
    address: Address = "local",
    min_coverage: Annotated[
        float, typer.Option(help="Share of a split's published clips to demand (exit code 1).")
    ] = 0.0,
) -> None:
    """Read corpora as published and write their manifests; compares what is found with what is published."""
    from pipelines import commands as building

    building.scan(sources, root, workers, address, min_coverage)


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


@app.command()
def export_annotations(
    dataset: Annotated[str, typer.Argument(help="The folder of the dataset.")],
    out: Annotated[str, typer.Option(help="The JSON file to write.")],
    audio: Annotated[str, typer.Option(help="A folder for the FLAC files that the annotations name.")] = "",
) -> None:
    """Write a dataset's instructions in the format of the annotations released with SALMONN."""
    from shards import commands as looking

    looking.export(dataset, out, audio)


@app.command()
def build(
    recipe: Annotated[str, typer.Argument(help="A recipe's name, or the path of its TOML file.")],
    out: Annotated[str, typer.Option(help="The folder of the dataset.")],
    root: Root = "data",
    workers: Workers = None,
    address: Address = "local",
    shard_mb: Annotated[float, typer.Option(help="Size of a shard, in MiB.")] = 256,
    budget: Annotated[float, typer.Option(help="Share of clips with bad audio at which to stop (exit code 3).")] = 0.05,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be built, and write nothing.")] = False,
) -> None:
    """Build a dataset: scan, pack, verify. Run the same command again to go on after an interruption."""
    from pipelines import commands as building

    if dry_run:
        building.price(recipe, root, shard_mb)
    else:
        building.build(recipe, root, out, workers, address, shard_mb, budget)


@app.command()
def verify(
    dataset: Annotated[str, typer.Argument(help="The folder of the dataset.")],
    data: Annotated[bool, typer.Option("--data", help="Also read every byte back and decode every clip.")] = False,
    data_subset: Annotated[str, typer.Option(help="Read back a share of the shards, for example 5%.")] = "",
    workers: Workers = None,
    address: Address = "local",
) -> None:
    """Hold a dataset against its index. Exit code 1 if anything is wrong."""
    from pipelines import commands as building

    building.verify(dataset, "100%" if data else data_subset, workers, address)


@app.command()
def audit(
    dataset: Annotated[str, typer.Argument(help="The folder of the dataset.")],
    recipe: RecipeName,
    html: Annotated[Path, typer.Option(help="Where to write the page.")] = Path("audit.html"),
    seed: Annotated[int, typer.Option(help="Seed of the order that the mixture is measured in.")] = 0,
) -> None:
    """Write one page on what is in a mixture: targets, shares, padding, refusals, licences, clips to listen to."""
    from shards import commands as looking

    looking.audit(dataset, recipe, html, seed)


@app.command()
def peek(
    dataset: Annotated[str, typer.Argument(help="The folder of the dataset.")],
    key: Annotated[str, typer.Argument(help="A sample's key; without one, the first sample of each split.")] = "",
    audio: Annotated[Path | None, typer.Option(help="Write the sample's FLAC to this file.")] = None,
) -> None:
    """Show a sample: its audio's facts, its prompts and its answers."""
    from shards import commands as looking

    looking.peek(dataset, key, audio)


@app.command()
def stream(
    dataset: Annotated[str, typer.Argument(help="The folder of the dataset.")],
    recipe: RecipeName,
    stage: Stage = "instruct",
    steps: Annotated[int, typer.Option(help="How many batches to deal.")] = 100,
    seed: Annotated[int, typer.Option(help="Seed of the order.")] = 0,
    max_seconds: Annotated[float, typer.Option(help="Audio in a batch, with its padding.")] = 120.0,
    max_examples: Annotated[int, typer.Option(help="Examples in a batch.")] = 8,
    threads: Annotated[int, typer.Option(help="Threads that read and decode.")] = 2,
) -> None:
    """Deal batches as a trainer would be dealt them; prints shares, padding and throughput."""
    from shards import commands as looking

    looking.stream(dataset, recipe, stage, steps, seed, max_seconds, max_examples, threads)


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="The TOML file of the run.")],
    steps: Annotated[
        int | None, typer.Option(help="Train to this step instead of the file's.", show_default=False)
    ] = None,
) -> None:
    """Train a model on a dataset. Run the same command again to resume, exactly."""
    from salmonn import commands as running

    running.train(config, steps)


@app.command()
def evaluate(
    run: Annotated[str, typer.Argument(help="The folder of the run.")],
    stage: Stage = "evaluate",
    limit: Annotated[int | None, typer.Option(help="At most so many examples.", show_default=False)] = None,
    beams: Annotated[int, typer.Option(help="Width of the beam search; 1 is greedy.")] = 4,
) -> None:
    """Answer every example of a stage and score the answers."""
    from salmonn import commands as running

    running.evaluate(run, stage, limit, beams)


@app.command()
def generate(
    run: Annotated[str, typer.Argument(help="The folder of the run.")],
    audio: Annotated[list[str], typer.Argument(help="Sound files in any format libsndfile reads.")],
    prompt: Annotated[str, typer.Option(help="What to ask.")],
    beams: Annotated[int, typer.Option(help="Width of the beam search; 1 is greedy.")] = 4,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.")] = 200,
    lora_scale: Annotated[float, typer.Option(help="Factor on the strength of LoRA.")] = 1.0,
) -> None:
    """Ask a trained model about sound files."""
    from salmonn import commands as running

    running.generate(run, audio, prompt, beams, max_new_tokens, lora_scale)


@app.command()
def demo(
    out: Annotated[str, typer.Option(help="Where to put everything.")] = "build/demo",
    steps: Annotated[int, typer.Option(help="How long to train.")] = 240,
) -> None:
    """Walk the whole road on the bundled miniature: scan, build, stream, train, evaluate, audit. CPU, no network."""
    from pipelines import commands as building
    from pipelines.annotate_commands import annotate as ask
    from salmonn.demo import walk

    walk(out, steps, annotate=ask, scan=building.scan, build=building.build)


def main() -> None:
    """Run the command; a user's mistake is one sentence and exit code 2."""
    try:
        app()
    except (ValueError, RuntimeError, OSError) as error:
        code, sentence = explain(error)
        if code is None:
            raise
        print(f"salmonn: {sentence}", file=sys.stderr)
        sys.exit(code)


def explain(error: Exception) -> tuple[int | None, str]:
    """Return the exit code and the sentence for an error; no code for one that is ours to mend."""
    from manifests.errors import Failed, TooManyRefusals, UserError

    for kind, code in ((UserError, 2), (TooManyRefusals, 3), (Failed, 1)):
        if isinstance(error, kind):
            return code, str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
        where = f" at {error.filename}" if error.filename else ""
        return (
            2,
            f"{error.strerror}{where}; nothing is lost, make room or choose another place and run the command again",
        )
    return None, ""


if __name__ == "__main__":
    main()
