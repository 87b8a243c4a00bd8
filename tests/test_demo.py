"""The whole road in one command: two corpora to shards, stream, training with a stop and a resume, scores, audit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from shards import Dataset


def walk(out: Path, steps: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "salmonn.cli", "demo", "--out", str(out), "--steps", str(steps)]
    return subprocess.run(command, capture_output=True, text=True, timeout=220)


@pytest.mark.slow
def test_the_demo_walks_the_road_and_a_second_walk_finds_all_done(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    first = walk(out, 20)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "Traceback" not in first.stdout + first.stderr
    for number in range(1, 7):
        assert f"{number}/6 took" in first.stdout
    assert "steps 11 to 15 were trained twice and gave the same losses, to the bit" in first.stdout
    assert sum(source.packed for source in Dataset(out / "dataset").manifest.sources) == 189

    losses = [json.loads(line)["loss"] for line in (out / "run" / "log.jsonl").read_text().splitlines()]
    assert len(losses) == 20 and sum(losses[-5:]) < sum(losses[:5])
    scores = json.loads((out / "run" / "evaluation" / "evaluate" / "scores.json").read_text())
    counts = {task: told["answers"] for task, told in scores["tasks"].items()}
    assert counts["asr"] == 33 and counts["gender_recognition"] == 30 and len(counts) == 16
    made = ("audit/audit.html", "audit/report.json", "dataset/README.md", "run/evaluation/evaluate/asr.jsonl")
    for name in (*made, "scores.html"):
        assert (out / name).stat().st_size > 1000 and str(out / name.split("/")[0]) in first.stdout

    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    second = walk(out, 20)
    assert second.returncode == 0 and "All is done" in second.stdout
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == before
