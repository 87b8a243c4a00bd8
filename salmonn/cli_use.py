"""Commands that use datasets and what is trained on them: look, stream, train, ask. A part of the roof."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from salmonn.cli_options import ModelConfig, RecipeName, Stage, app


@app.command()
def peek(
    dataset: Annotated[str, typer.Argument(help="The folder of the dataset.")],
    key: Annotated[str, typer.Argument(help="A sample's key; without one, the first sample of each split.")] = "",
    audio: Annotated[Path | None, typer.Option(help="Write the sample's FLAC to this file.")] = None,
    wav: Annotated[Path | None, typer.Option(help="Write it as 16-bit WAV to this file.")] = None,
    play: Annotated[bool, typer.Option("--play", help="Play it.")] = False,
) -> None:
    """Show a sample on the terminal: its audio's facts and shape, its prompts and its answers."""
    from shards.peek import peek as show

    show(dataset, key, audio, wav, play)


@app.command()
def serve(
    dataset: Annotated[str, typer.Argument(help="The folder of the dataset, or its address.")],
    port: Annotated[int, typer.Option(help="Port to listen at on this machine; 0 takes a free one.")] = 8770,
    show: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Open a page on this machine to browse, filter, search and listen to a dataset and its quarantine."""
    from shards.browsing import serve as run

    run(dataset, port, show)


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
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what it will cost: weights, memory, steps, hours, epochs.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
    workers: Annotated[
        int, typer.Option(min=0, help="Processes on a Ray cluster, one a GPU; 0 trains here, alone or by torchrun.")
    ] = 0,
    address: Annotated[str, typer.Option(help="Of the Ray cluster, 'auto' for this machine's.")] = "",
) -> None:
    """Train a model on a dataset. Run the same command again to resume, exactly."""
    from salmonn import commands as running

    how = running.How(steps=steps, reseed=reseed, dry_run=dry_run, as_json=as_json, workers=workers, address=address)
    running.train(config, how)


@app.command()
def story(
    run: Annotated[str, typer.Argument(help="The folder of the run that tells them, after instruction tuning.")],
    out: Annotated[str, typer.Option(help="The folder of the dataset of stories.")],
    count: Annotated[int, typer.Option(help="How many stories.")] = 12,
    lora_scale: Annotated[float, typer.Option(help="Factor on the strength of LoRA; 1 is as trained.")] = 0.5,
    data: Annotated[str, typer.Option(help="The dataset of the clips, by default the run's.", show_default=False)] = "",
    recipe: Annotated[
        str,
        typer.Option(help="The recipe that names the clips, by default the run's or 'stories'.", show_default=False),
    ] = "",
    stage: Stage = "activate",
    seed: Annotated[int, typer.Option(help="Seed of the choice of clips, and of tokens that are drawn.")] = 0,
    beams: Annotated[
        int | None, typer.Option(help="Width of the beam search, by default 4; 1 is greedy.", show_default=False)
    ] = None,
    sample: Annotated[
        float | None,
        typer.Option(help="Draw tokens at this temperature instead of searching for them.", show_default=False),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Longest story, in tokens.")] = 200,
) -> None:
    """Let a run tell stories about clips, as a dataset for activation tuning. The same command goes on after a stop."""
    from salmonn import commands as running
    from salmonn.story_plan import make_telling

    telling = make_telling(count, lora_scale, seed, beams, sample, max_new_tokens)
    running.story(run, out, telling, data, recipe, stage)


@app.command()
def generate(
    run: Annotated[str, typer.Argument(help="The folder of the run, or a released .pth file (see --config).")],
    audio: Annotated[list[str], typer.Argument(help="Sound files: any container, rate and number of channels.")],
    prompt: Annotated[str, typer.Option(help="What to ask of each.")],
    beams: Annotated[int, typer.Option(help="Width of the beam search; 1 is greedy.")] = 4,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.")] = 200,
    lora_scale: Annotated[float, typer.Option(help="Factor on the strength of LoRA.")] = 1.0,
    config: ModelConfig = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a file, each on its line.")] = False,
) -> None:
    """Ask a trained model about sound files."""
    from salmonn import commands as running
    from salmonn.generation import Question

    question = Question(prompt=prompt, beams=beams, max_new_tokens=max_new_tokens, lora_scale=lora_scale)
    running.generate(run, audio, question, config, as_json)


@app.command()
def chat(
    run: Annotated[str, typer.Argument(help="The folder of the run, or a released .pth file (see --config).")],
    host: Annotated[str, typer.Option(help="Address to listen at; any other than this machine's own opens it.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="Port to listen at; 0 takes a free one.")] = 7860,
    max_upload_mb: Annotated[int, typer.Option(help="Largest sound file that the page takes, in MB.")] = 50,
    config: ModelConfig = "",
) -> None:
    """Open a page in the browser on which to ask a trained model: microphone or file, prompt, answer."""
    from salmonn.chat import serve

    serve(run, config, host, port, max_upload_mb)


@app.command()
def export(
    run: Annotated[str, typer.Argument(help="The folder of the run.")],
    to: Annotated[str, typer.Option(help="released: a .pth file; merged: a Hugging Face folder; adapter: peft's.")],
    out: Annotated[str, typer.Option(help="Where to write it; nothing may be there yet.")],
) -> None:
    """Write a trained model in a form that other code reads."""
    from salmonn import export_commands

    export_commands.export(run, to, out)


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
