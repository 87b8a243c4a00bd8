"""How fast a training step is, beside the step of the published recipe on the same batches and the same weights.

`published` is that recipe's step written down plainly: log-mel and filter bank by the CPU, sample by sample (in eight
worker processes where there is a GPU), attention that keeps its matrix, logits of all positions in float32, the
language model in float16 with a loss scaler on a GPU and all in float32 on a CPU. `ours` is the project's. Both have 88
audio tokens a clip, LoRA, AdamW, and take the same batches of real speech. Each is a process of its own, in turns,
round after round; weights are random. Usage::

    python benchmarks/train.py [--preset tiny | compact | 7b] [--batch 8] [--steps 6] [--rounds 3] [--json FILE]
        [--compile] [--only NAME ...]
    python benchmarks/train.py --saves          how long a step waits for a checkpoint of the 13B preset's trained part
    python benchmarks/train.py --waiting        share of a training run's time spent waiting for data

A preset's published parts are made with random weights of their sizes. Examples a second count the best round, and
memory is the peak of the device (of the process, on a CPU).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from speech import peak_memory, utterances
from train_published import Published
from train_sizes import SIZES, make_model

PROMPT = "Please write down what the speaker says."
WORDS = (
    "He hoped there would be stew for dinner, turnips and carrots and bruised potatoes and fat mutton pieces "
    "to be ladled out in thick peppered sauce."
)
A_SECOND = 2.7
"""Words of read speech."""

Step = Callable[[list[Any], list[str], list[str]], None]


def batches(size: int, steps: int) -> list[tuple[list[Any], list[str]]]:
    """Waveforms of real speech, float32, and transcripts as long as they would be."""
    speech = [pcm.astype("float32") / 32768 for pcm in utterances(size * steps)]
    texts = [" ".join((WORDS.split() * 4)[: max(1, round(len(wave) / 16_000 * A_SECOND))]) for wave in speech]
    starts = range(0, size * steps, size)
    return [(speech[at : at + size], texts[at : at + size]) for at in starts]


def ours(model: Any, device: torch.device, compiled: bool) -> Step:
    """The project's step, without the stream."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-5)
    model.train().speed_up(compile=compiled)

    def step(waves: list[Any], prompts: list[str], answers: list[str]) -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            tokens = model.answer_tokens(waves, prompts, answers)
        tokens.nll_N.sum().backward()
        for weight in weights:
            if weight.grad is not None:
                weight.grad /= len(tokens.nll_N)
        optimizer.step()

    return step


def contend(name: str, preset: str, size: int, steps: int, compiled: bool) -> dict[str, float]:
    """Take steps as `name` does; return examples a second of wall and of processor time, and MiB at the peak."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = make_model(preset, device, published=name == "published")
    dealt = batches(size, steps + 2)
    prompt = model.config.prompt.wrap(PROMPT)
    clock: Iterator[tuple[list[Any], list[str]]] = iter(dealt)
    if name == "published":
        recipe = Published(model, device)
        clock = recipe.loaded(dealt)
        step: Step = recipe.step
    else:
        step = ours(model, device, compiled)
    for _ in range(2):  # to warm up, and to compile
        waves, texts = next(clock)
        step(waves, [prompt] * size, texts)
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(steps):
        waves, texts = next(clock)
        step(waves, [prompt] * size, texts)
    if device.type == "cuda":
        torch.cuda.synchronize()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    memory = torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else peak_memory()
    return {"examples/s": size * steps / wall, "examples/cpu-s": size * steps / cpu, "MiB": memory}


def saves() -> None:
    """Time what a checkpoint of the 13B preset's trained part takes from the step that makes it, and its size."""
    from train_sizes import time_a_save

    print(json.dumps(time_a_save()))


def waiting(steps: int = 40) -> None:
    """Train the tiny preset on a dataset of real speech and print the share of the time that data was waited for."""
    from train_sizes import time_the_waiting

    print(json.dumps(time_the_waiting(steps)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=sorted(SIZES), default="tiny")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=("published", "ours"), default=("published", "ours"))
    parser.add_argument("--compile", action="store_true", help="compile ours' encoders")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--saves", action="store_true")
    parser.add_argument("--waiting", action="store_true")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        print(json.dumps(contend(options.run, options.preset, options.batch, options.steps, options.compile)))
        return
    if options.saves or options.waiting:
        return saves() if options.saves else waiting()
    told: dict[str, list[dict[str, float]]] = {name: [] for name in options.only}
    for _ in range(options.rounds):
        for name in told:
            command = [sys.executable, __file__, "--run", name, "--preset", options.preset]
            command += ["--batch", str(options.batch), "--steps", str(options.steps)]
            command += ["--compile"] if options.compile else []
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(f"{name}: {done.stderr[-2000:]}")
            told[name].append(json.loads(done.stdout.splitlines()[-1]))
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(f"{options.preset}, batches of {options.batch}, {options.steps} steps, {options.rounds} rounds, {device}")
    for name, rounds in told.items():
        best = {what: max(one[what] for one in rounds) for what in rounds[0]}
        middle = {what: statistics.median(one[what] for one in rounds) for what in rounds[0]}
        print(f"{name:10}", "  ".join(f"{what} {best[what]:.3f} ({middle[what]:.3f})" for what in best))
    if len(told) == 2:
        for what in told["ours"][0]:
            pick = min if what == "MiB" else max
            theirs, mine = (pick(one[what] for one in told[name]) for name in ("published", "ours"))
            print(f"ours of published, {what}: {mine / theirs:.2f}")
    if options.json:
        options.json.write_text(json.dumps(told))


if __name__ == "__main__":
    main()
