"""What benchmarks/stream.py prints of its runs: a line a contender, and ours beside the limit and the best peer."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np


def slope(points: list[list[float]]) -> tuple[float, float, float]:
    """Return how many MiB memory grows by in 100,000 samples behind the first third, how sure that is, and of how many.

    One more batch held for a moment is 7.7 MB for good: over few samples that is a steep slope, over many it is none.
    """
    examples = np.array(points)[:, 0] / 100_000
    late = examples > examples[-1] / 3
    (growth, _), ((variance, _), _) = np.polyfit(examples[late], np.array(points)[late, 1], 1, cov=True)
    return float(growth), float(variance) ** 0.5, float(examples[-1] * 100_000)


def table(found: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, float]]:
    """Print a line a contender; return its figures."""
    print(f"\n{'':32} {'h/cpu-s':>8} {'median':>7} {'h/s':>7} {'median':>7} {'padding':>8} {'peak MB':>8}")
    figures = {}
    for name, runs in found.items():
        by_cpu, by_wall = ([run["hours"] / run[clock] for run in runs] for clock in ("cpu", "wall"))
        line = figures[name] = {
            "cpu": max(by_cpu), "cpu_median": statistics.median(by_cpu),
            "wall": max(by_wall), "wall_median": statistics.median(by_wall),
            "padding": runs[0]["padding"], "peak": max(run["peak"] for run in runs),
        }  # fmt: skip
        print(
            f"{name:32} {line['cpu']:8.2f} {line['cpu_median']:7.2f} {line['wall']:7.2f} {line['wall_median']:7.2f} "
            f"{line['padding']:8.1%} {line['peak']:8.0f}"
        )
    return figures


def gates(
    figures: dict[str, dict[str, float]], ours: list[str], peers: list[str], growth: tuple[float, float, float] | None
) -> list[tuple[str, float, float, str]]:
    """Print what is asked of the stream, best by best and median by median; return these lines."""
    rows: list[tuple[str, float, float, str]] = []
    mine, theirs = ([one for one in names if one in figures] for names in (ours, peers))
    given = [name for name in figures if name.startswith("(")]
    for key, unit, at_least in (("cpu", "cpu-second", 1.7), ("wall", "second", 2.0)):
        pick = [(key, "best"), (f"{key}_median", "median")]
        best = {kind: max((figures[one][field] for one in mine), default=0.0) for field, kind in pick}
        if key == "cpu":
            rows.append((f"hours per {unit}", best["best"], best["median"], "at least 2.0"))
        for threads in ("1 thread", "2 threads"):
            us, limit = figures.get(f"ours, {threads}"), figures.get(f"bare dr_flac, {threads}")
            if us and limit:
                ratios = [us[field] / limit[field] for field, _ in pick]
                rows.append((f"of the bare loop, {threads}, per {unit}", ratios[0], ratios[1], "at least 0.9"))
        for names, asked in ((theirs, f"at least {at_least}"), (given, "not asked")):
            if mine and names:
                peer = max(names, key=lambda name: figures[name][key])
                ratios = [best[kind] / max(figures[name][field] for name in names) for field, kind in pick]
                rows.append((f"times {peer}, per {unit}", ratios[0], ratios[1], asked))
    if mine:
        peak = max(figures[name]["peak"] for name in mine)
        rows.append(("MB at the peak", peak, peak, "under 500"))
        rows.append(("padding", *[max(figures[name]["padding"] for name in mine)] * 2, "at most 0.05"))
    if growth:
        rows.append(
            (f"MB per 100,000 samples (+-{growth[1]:.1f}, over {growth[2]:,.0f})", growth[0], growth[0], "under 5")
        )
    print(f"\n{'ours':56} {'best':>7} {'median':>7}")
    for what, first, second, asked in rows:
        print(f"{what:56} {first:7.2f} {second:7.2f}   {asked}")
    return rows
