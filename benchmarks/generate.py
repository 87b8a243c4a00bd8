"""How fast answers are generated in batches, beside the same clips one by one, by the tiny preset on a CPU.

Both ways answer the same clips of speech to the same prompt with the same greedy search, in turns, in one process,
round after round; the answers must be equal, and the benchmark fails where they are not. Weights are random, so that
most answers go on to the longest allowed, as do those of a model that tells stories. Usage::

    python benchmarks/generate.py [--preset tiny] [--clips 48] [--batch 16] [--tokens 60] [--beams 1] [--rounds 3]
        [--threads N] [--json FILE]

Told are the wall time and the processor's time of each round, the best of each, and how many times faster batches are.
Exits with 1 below --least (2.5 by default), which is asked of the wall time.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

from salmonn.config import load_preset
from salmonn.model import Salmonn
from speech import utterances

PROMPT = "Please write down what the speaker says."


def clips_of(many: int) -> list[np.ndarray]:
    """As many utterances of speech, the longest first, as an evaluation asks about them."""
    waves = (wave[: 30 * 16_000].astype(np.float32) / np.float32(32768) for wave in utterances(many))
    return sorted(waves, key=len)[::-1]


def answer(model: Salmonn, waves: list[np.ndarray], batch: int, beams: int, tokens: int) -> tuple[list, float, float]:
    """The ids of all answers, the wall seconds and the processor's seconds."""
    prompt = model.config.prompt.wrap(PROMPT)
    begin, spent = time.perf_counter(), time.process_time()
    ids = []
    for first in range(0, len(waves), batch):
        mine = waves[first : first + batch]
        ids += model.generate_ids(mine, [prompt] * len(mine), beams, tokens)
    return ids, time.perf_counter() - begin, time.process_time() - spent


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("clips", 48), ("batch", 16), ("tokens", 60), ("beams", 1), ("rounds", 3), ("threads", 0)):
        asked.add_argument(f"--{name}", type=int, default=default)
    asked.add_argument("--preset", default="tiny")
    asked.add_argument("--least", type=float, default=2.5)
    asked.add_argument("--json", type=Path)
    told = asked.parse_args()
    if told.threads:
        torch.set_num_threads(told.threads)
    model = Salmonn.from_config(load_preset(told.preset).model).eval()
    waves = clips_of(told.clips)
    answer(model, waves[:2], 2, told.beams, 4)  # warm
    rounds = []
    for number in range(told.rounds):
        single, wall_one, cpu_one = answer(model, waves, 1, told.beams, told.tokens)
        batched, wall_many, cpu_many = answer(model, waves, told.batch, told.beams, told.tokens)
        same = sum(a == b for a, b in zip(single, batched, strict=True))
        if same != len(waves):
            print(f"{len(waves) - same} of {len(waves)} answers differ between batches and single clips")
            return 1
        rounds.append(
            {"single_s": wall_one, "batched_s": wall_many, "single_cpu_s": cpu_one, "batched_cpu_s": cpu_many}
        )
        print(
            f"round {number + 1}: single {wall_one:.2f} s (cpu {cpu_one:.2f}), batches of {told.batch} "
            f"{wall_many:.2f} s (cpu {cpu_many:.2f}), "
            f"{wall_one / wall_many:.2f}x by wall, {cpu_one / cpu_many:.2f}x by cpu",
            flush=True,
        )
    best = {name: min(each[name] for each in rounds) for name in rounds[0]}
    wall, cpu = best["single_s"] / best["batched_s"], best["single_cpu_s"] / best["batched_cpu_s"]
    made = sum(map(len, batched))
    print(
        f"{told.preset}, {told.clips} clips, {made} tokens, {torch.get_num_threads()} threads: single "
        f"{told.clips / best['single_s']:.1f} clips/s, batches {told.clips / best['batched_s']:.1f} clips/s: "
        f"{wall:.2f}x by wall, {cpu:.2f}x by cpu; the answers are equal"
    )
    if told.json:
        report = {"rounds": rounds, "wall": wall, "cpu": cpu, "tokens": made, "threads": torch.get_num_threads()}
        told.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0 if wall >= told.least else 1


if __name__ == "__main__":
    sys.exit(main())
