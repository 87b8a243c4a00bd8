"""Commands that use datasets: look, stream, train, evaluate. A part of the roof."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from salmonn.cli_options import RecipeName, Stage, app


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
    steps: Annotated[
        int | None,
        typer.Option(help="How many steps to deal, by default 100; to plan, by default an epoch.", show_default=False),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="End after so many epochs.", show_default=False)] = None,
    world_size: Annotated[int, typer.Option(help="Ranks, and so batches, of a step.")] = 1,
    rank: Annotated[
        int | None,
        typer.Option(help="Deal only the batches of this rank; without it, those of all.", show_default=False),
    ] = None,
    threads: Annotated[int, typer.Option(help="Threads that read and decode.")] = 2,
    seed: Annotated[int, typer.Option(help="Seed of the order.")] = 0,
    max_seconds: Annotated[float, typer.Option(help="Audio in a batch, with its padding.")] = 120.0,
    max_examples: Annotated[int, typer.Option(help="Examples in a batch.")] = 8,
    max_tokens: Annotated[int, typer.Option(help="Tokens in a batch, with their padding; 0 for no limit.")] = 0,
    unit: Annotated[str, typer.Option(help="What shares count: examples, seconds or tokens.")] = "examples",
    window: Annotated[int, typer.Option(help="Shards whose examples are shuffled among each other.")] = 64,
    cache: Annotated[str, typer.Option(help="A local folder that keeps shards of a dataset elsewhere.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
    plan_only: Annotated[bool, typer.Option("--plan-only", help="Read no audio: count what would be dealt.")] = False,
) -> None:
    """Deal batches as a trainer would be dealt them; prints shares, padding, randomness and throughput."""
    from shards import commands as looking

    looking.stream(
        dataset,
        recipe,
        stage,
        steps=steps,
        epochs=epochs,
        world_size=world_size,
        rank=rank,
        threads=threads,
        seed=seed,
        max_seconds=max_seconds,
        max_examples=max_examples,
        max_tokens=max_tokens,
        unit=unit,
        window=window,
        cache=cache,
        as_json=as_json,
        plan_only=plan_only,
    )


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="The TOML file of the run.")],
    steps: Annotated[
        int | None, typer.Option(help="Train to this step instead of the file's.", show_default=False)
    ] = None,
    reseed: Annotated[
        bool, typer.Option("--reseed", help="Go on, but deal the examples anew: of a changed dataset, recipe or seed.")
    ] = False,
) -> None:
    """Train a model on a dataset. Run the same command again to resume, exactly."""
    from salmonn import commands as running

    running.train(config, steps, reseed)


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
