"""The commands train, story and generate: what they print."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from rich.text import Text

from manifests import UserError, files, load_recipe
from manifests.console import Bars, console
from salmonn.story_plan import RECIPE, Telling
from salmonn.training.loggers import demand_installed
from salmonn.training.settings import TrainConfig, load_train_config, resolve
from salmonn.training.show import Pace, show_price, show_run
from shards import Dataset, Stream

# What needs torch is imported where it is used: a mistake in a settings file is told at once, not after ten seconds.
if TYPE_CHECKING:
    from salmonn.generation import Question
    from salmonn.training.run import StepLog
    from salmonn.training.trainer import RunResult


class How(msgspec.Struct, frozen=True, kw_only=True):
    """How the command train goes about a run, beside the run's own settings."""

    steps: int | None = None
    """Instead of the file's."""
    reseed: bool = False
    dry_run: bool = False
    """Only tell what it will cost."""
    as_json: bool = False
    workers: int = 0
    """Processes on a Ray cluster; 0 trains here, as one of torchrun's or alone."""
    address: str = ""
    """Of the cluster."""


def train(path: Path, how: How) -> None:
    """Train the run that a TOML file describes, and print how its loss went; or print what it will cost."""
    config = load_train_config(path)
    if how.steps is not None:
        if how.steps < 1:
            raise UserError(f"--steps is {how.steps}; it must be at least 1")
        config = msgspec.structs.replace(config, steps=how.steps)
    if how.dry_run:
        from salmonn.training.price import price

        told = price(config, processes=how.workers or 1)
        print_json(told) if how.as_json else show_price(told)
        return
    check(config)
    result, lines = follow(config, how=how)
    if os.environ.get("RANK", "0") != "0":
        return
    print_json(result) if how.as_json else show_run(result, lines, told_lines(config.folder))


def check(config: TrainConfig) -> None:
    """Raise UserError for what can be told without torch: a preset, a dataset, a stage, a logger that is not there."""
    resolve(config)
    demand_installed(config.loggers)
    recipe, longest = load_recipe(config.recipe), config.batch.max_seconds
    Stream(Dataset(config.dataset), recipe, stage=config.stage, max_seconds=longest)
    if config.init_from and not Path(config.init_from).exists() and not (config.folder / "checkpoints").is_dir():
        raise UserError(
            f"init_from: there is nothing at {config.init_from!r}; it can be the folder of a run, of a checkpoint, or "
            "a released .pth file"
        )


def follow(
    config: TrainConfig, stop_after: int | None = None, *, how: How | None = None
) -> tuple[RunResult, list[StepLog]]:
    """Train with a bar that shows loss, speed and the time left; return the result and the steps of this call."""
    how = how or How()
    lines: list[StepLog] = []
    pace = Pace(config.steps)
    with contextlib.nullcontext() if how.as_json else Bars() as bars:

        def note(line: StepLog) -> None:
            lines.append(line)
            if bars is not None:
                bars("train", line.step, config.steps, pace.note(line))

        if not how.workers and not how.address:
            from salmonn.training.trainer import train as run_training

            return run_training(config, stop_after=stop_after, on_step=note, reseed=how.reseed), lines
        from salmonn.training.ray_train import train_on_ray

        result = train_on_ray(
            config,
            address=how.address,
            workers=how.workers or 1,
            reseed=how.reseed,
            stop_after=stop_after,
            on_step=note,
        )
    # Steps done again after a kill were not told a second time.
    return result, [line for line in told_lines(config.folder) if line.step > result.resumed_from]


def told_lines(folder: Path) -> list[StepLog]:
    """Return the log of the run in `folder`."""
    from salmonn.training.run import Log

    return Log(folder).lines()


def print_json(told: msgspec.Struct) -> None:
    """Print a record as one JSON object."""
    print(msgspec.json.format(msgspec.json.encode(told, enc_hook=str)).decode())


def require_run(run: str) -> None:
    """Raise UserError unless the folder `run` is one that training made."""
    if not (Path(run) / "config.json").is_file():
        raise UserError(f"there is no run in {run!r}; salmonn train makes one")


def story(run: str, out: str, telling: Telling, data: str, recipe: str, stage: str) -> None:
    """Let a run tell stories about clips of a dataset, and print what came of it."""
    require_run(run)
    files.require_writable(out)
    from salmonn.story import write_stories
    from salmonn.teller import RunTeller

    teller = RunTeller(run, telling)
    dataset = Dataset(data or teller.config.dataset)
    own = teller.config.recipe
    named = recipe or (own if stage in load_recipe(own).stages else RECIPE)
    with Bars() as bars:

        def note(taken: int, tried: int) -> None:
            bars("story", taken, telling.count, f"{tried} clips tried")

        made = write_stories(out, dataset, load_recipe(named), stage, telling, teller.writer, teller, on_clip=note)
    words = sorted(len(one.split()) for one in made.stories)
    refused = ", ".join(f"{reason} {count}" for reason, count in sorted(made.reasons.items()))
    console.print(
        f"{len(words)} stories of {words[0]} to {words[-1]} words (median {words[len(words) // 2]}), told by step "
        f"{teller.writer.step} at LoRA scale {telling.lora_scale:g} about {made.tried} clips"
        + (f"; refused: {refused}" if refused else "")
    )
    console.print(Text(f"  {made.stories[0]}"))
    done = "was finished before" if not made.asked else "is written"
    console.print(f"{out} {done}; train on it with recipe = {named!r}, stage = {stage!r} and init_from = {run!r}")


def generate(run: str, audio: list[str], question: Question, config: str, as_json: bool) -> None:
    """Ask a run about sound files and print its answers as they come: for people, or a JSON object a line."""
    from salmonn.generation import replies

    if not Path(run).is_file():
        require_run(run)
    for one in replies(run, audio, question, config=config):
        if as_json:
            print(msgspec.json.encode(one).decode(), flush=True)
            continue
        # Text, not strings: a path may look like rich's markup, and an answer may.
        console.print(Text(one.path, style="bold"))
        console.print(Text(f"  {one.answer}"))
        if not one.finished:
            console.print(f"  [dim](cut off after {question.max_new_tokens} tokens)[/]")
