"""The commands train, evaluate and generate: what they print."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from manifests import UserError, load_recipe
from manifests.console import Bars, console, table
from salmonn.training.settings import TrainConfig, load_train_config
from shards import Dataset, Stream
from shards.audio import load_audio

# What needs torch is imported where it is used: a mistake in a settings file is told at once, not after ten seconds.
if TYPE_CHECKING:
    from salmonn.evaluation import EvaluationResult
    from salmonn.training.run import StepLog
    from salmonn.training.trainer import RunResult

EVERY = 10
"""Steps that one line of the table sums up, at least."""


def train(path: Path, steps: int | None, reseed: bool = False) -> None:
    """Train the run that a TOML file describes, and print how its loss went."""
    config = load_train_config(path)
    if steps is not None:
        config = msgspec.structs.replace(config, steps=steps)
    Stream(Dataset(config.dataset), load_recipe(config.recipe), stage=config.stage)
    show_run(*follow(config, reseed=reseed))


def follow(
    config: TrainConfig, stop_after: int | None = None, *, reseed: bool = False
) -> tuple[RunResult, list[StepLog]]:
    """Train with a bar that shows step, loss and speed; return the result and the steps of this call."""
    from salmonn.training.trainer import train as run_training

    lines: list[StepLog] = []
    with Bars() as bars:

        def note(line: StepLog) -> None:
            lines.append(line)
            bars("train", line.step, config.steps, f"loss {line.loss:.3f}")

        return run_training(config, stop_after=stop_after, on_step=note, reseed=reseed), lines


def show_run(result: RunResult, lines: list[StepLog]) -> None:
    """Print a call of `train`: loss and share of answer tokens hit, over its steps and by task."""
    if not lines:
        console.print(f"{result.run} is trained to step {result.steps}, nothing to do")
        return
    shown = table("", "steps", "loss", "hits", "padding", "waited", right=("loss", "hits", "padding", "waited"))
    parts = spans(lines)
    for part in parts:
        tokens = sum(line.tokens for line in part)
        hits = sum(task.accuracy * task.tokens for line in part for task in line.tasks.values())
        shown.add_row(
            f"{part[0].step}-{part[-1].step}",
            f"{sum(line.loss * line.tokens for line in part) / tokens:.3f}",
            f"{hits / tokens:.1%}",
            f"{sum(line.padding for line in part) / len(part):.1%}",
            f"{sum(line.wait_seconds for line in part) / max(1e-9, sum(line.seconds for line in part)):.1%}",
        )
    console.print(shown)
    show_tasks(parts)
    went = f"steps {lines[0].step} to {lines[-1].step}" + (
        f" (resumed at {result.resumed_from})" if result.resumed_from else ""
    )
    console.print(
        f"{went} in {result.seconds:.1f} s, {len(lines) / result.seconds:.1f} steps a second; kept in {result.run}"
    )
    if result.ended == "signal":
        console.print("asked to stop, and saved; run the same command again to go on")


def spans(lines: list[StepLog]) -> list[list[StepLog]]:
    """Cut the steps of a call into at most ten parts."""
    width = max(EVERY, -(-len(lines) // 10))
    return [lines[first : first + width] for first in range(0, len(lines), width)]


def show_tasks(parts: list[list[StepLog]]) -> None:
    """Print each task's loss and hits at the beginning and at the end of a call: has it been learnt at all?"""
    names = sorted({task for part in parts for line in part for task in line.tasks})
    columns = ("loss at first", "at last", "hits at first", "at last ")
    shown = table("", "task", *columns, right=columns)
    for name in names:
        told = [summed(part, name) for part in parts]
        seen = [one for one in told if one is not None]
        (first_loss, first_hits), (last_loss, last_hits) = seen[0], seen[-1]
        shown.add_row(name, f"{first_loss:.3f}", f"{last_loss:.3f}", f"{first_hits:.1%}", f"{last_hits:.1%}")
    console.print(shown)


def summed(part: list[StepLog], task: str) -> tuple[float, float] | None:
    """Return a task's loss and share of hits over some steps, None if they hold none of its examples."""
    of = [line.tasks[task] for line in part if task in line.tasks]
    tokens = sum(one.tokens for one in of)
    if not tokens:
        return None
    return sum(one.loss * one.tokens for one in of) / tokens, sum(one.accuracy * one.tokens for one in of) / tokens


def evaluate(run: str, stage: str, limit: int | None, beams: int) -> None:
    """Evaluate a run and print its scores."""
    show_scores(assess(run, stage, limit, beams))


def assess(run: str, stage: str, limit: int | None, beams: int, max_new_tokens: int = 200) -> EvaluationResult:
    """Evaluate a run with a bar."""
    require_run(run)
    from salmonn.evaluation import evaluate as run_evaluation

    done = 0
    with Bars() as bars:

        def note(examples: int) -> None:
            nonlocal done
            done += examples
            bars("evaluate", done, total)

        total = count_examples(run, stage, limit)
        return run_evaluation(run, stage=stage, limit=limit, beams=beams, max_new_tokens=max_new_tokens, on_batch=note)


def require_run(run: str) -> None:
    """Raise UserError unless the folder `run` is one that training made."""
    if not (Path(run) / "config.json").is_file():
        raise UserError(f"there is no run in {run!r}; salmonn train makes one")


def count_examples(run: str, stage: str, limit: int | None) -> int:
    """Return how many examples an evaluation will answer."""
    from salmonn.training.run import read_run_config

    config = read_run_config(run)
    examples = Stream(Dataset(config.dataset), load_recipe(config.recipe), stage=stage, epochs=1).order.examples
    return examples if limit is None else min(limit, examples)


def show_scores(result: EvaluationResult) -> None:
    """Print the scores of an evaluation."""
    shown = table(
        f"{result.stage} of {result.recipe}, step {result.step}, {result.beams} beams",
        *("task", "metric", "score", "examples", "unfinished", "counted as"),
        right=("score", "examples", "unfinished"),
    )
    for task in result.tasks:
        name, value, how = ("-", "-", task.note)
        if task.score is not None:
            name, value = task.score.name, f"{task.score.value:.1%}"
            how = ", ".join(f"{name} {value}" for name, value in task.score.details.items())
        shown.add_row(task.task, name, value, str(task.count), str(task.unfinished), how)
    console.print(shown)


def generate(run: str, audio: list[str], prompt: str, beams: int, max_new_tokens: int, lora_scale: float) -> None:
    """Ask a run about sound files and print its answers."""
    if not prompt.strip():
        raise UserError("--prompt is empty; ask something, for example 'Please write down what the speaker says.'")
    require_run(run)
    for path in audio:
        load_audio(path)
    from salmonn.generation import generate as run_generation

    answers = run_generation(run, audio, prompt, beams=beams, max_new_tokens=max_new_tokens, lora_scale=lora_scale)
    for path, answer in zip(audio, answers, strict=True):
        console.print(f"[bold]{path}[/]")
        console.print(f"  {answer}", markup=False)
