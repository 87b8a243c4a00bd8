"""What an audit of metadata costs: a synthetic dataset of 2.3 million samples, and of 23 million, against the limits.

Everything that `salmonn audit` does is in the time, from opening the dataset to the page on the disk, in a process of
its own on two cores; only the ten clips to listen to cannot be heard, for the dataset has no shards (audit_index.py).
Prints the time and the memory of every section, and of every query with --queries; exits with 1 if a limit is broken.
Sections go on side by side, and so the cpu of one holds that of others meanwhile; with --in-turn each is alone.

Usage: python benchmarks/audit.py [SAMPLES ...] [--at FOLDER] [--queries] [--in-turn]. Datasets stay in FOLDER, if any.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from audit_index import write_dataset
from manifests import load_recipe
from speech import peak_memory

SAMPLES = 2_300_000
LIMITS = {2_300_000: (10.0, 1024.0), 23_000_000: (120.0, 2048.0)}
"""Samples: seconds on two cores, and MiB. Fewer samples have the limits of the next larger number."""
CORES = 2


class Cost(msgspec.Struct, frozen=True):
    """What one part of an audit took."""

    name: str
    wall: float
    cpu: float
    """Of all threads."""
    peak: float
    """MiB of the process, by its end."""
    query: bool


def timed(costs: list[Cost], name: str, query: bool, work: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that does the work and notes what it took."""

    def run(*args: Any, **values: Any) -> Any:
        wall, cpu = time.perf_counter(), time.process_time()
        made = work(*args, **values)
        told = f"  {args[1]}" if query else name
        costs.append(Cost(told, time.perf_counter() - wall, time.process_time() - cpu, peak_memory(), query))
        return made

    return run


def work(folder: str, queries: bool, in_turn: bool) -> None:
    """Audit one dataset and print what that took; exit with 1 if a limit is broken."""
    import shards.audit
    from shards import Dataset
    from shards.audit import audit, write
    from shards.audit.database import Database
    from shards.audit.sections import ROOMS

    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    costs: list[Cost] = []
    shards.audit.TOGETHER = 0 if in_turn else shards.audit.TOGETHER
    for name, room in ROOMS.items():
        room.look = timed(costs, name, False, room.look)  # type: ignore[attr-defined]
    Database.ask = timed(costs, "", True, Database.ask)  # type: ignore[method-assign]
    begin, cpu = time.perf_counter(), time.process_time()
    dataset = Dataset(folder)
    report = audit(dataset, load_recipe("salmonn"))
    page, numbers = Path(folder) / "audit.html", Path(folder) / "report.json"
    write(report, page, numbers)
    wall, used, peak = time.perf_counter() - begin, time.process_time() - cpu, peak_memory()
    samples = report.totals.samples
    seconds, most = next(LIMITS[size] for size in [*sorted(LIMITS), max(LIMITS)] if samples <= size * 1.01)
    print(f"{'part':26} {'seconds':>8} {'cpu':>8} {'MiB':>7}")
    for cost in costs:
        if queries or not cost.query:
            print(f"{cost.name:26} {cost.wall:8.2f} {cost.cpu:8.2f} {cost.peak:7.0f}")
    print(
        f"{samples:,} samples, {report.totals.examples:,} instructions, index of "
        f"{sum(source.index.bytes for source in dataset.manifest.sources) / 1e9:.2f} GB: "
        f"{wall:.1f} s (limit {seconds:g}), {used:.1f} s of cpu, {peak:.0f} MiB (limit {most:g}), "
        f"page {page.stat().st_size / 1e6:.2f} MB, report {numbers.stat().st_size / 1e6:.2f} MB; "
        f"load of the machine {os.getloadavg()[0]:.1f}"
    )
    sys.exit(int(wall > seconds or peak > most))


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("samples", nargs="*", type=int, default=[SAMPLES])
    asked.add_argument("--at", help="folder in which the datasets stay")
    asked.add_argument("--queries", action="store_true", help="tell the time of each query, too")
    asked.add_argument("--in-turn", action="store_true", help="one section after the other")
    options = asked.parse_args()
    broken = 0
    for samples in options.samples:
        with tempfile.TemporaryDirectory(dir=Path(__file__).parent, prefix="tmp-audit-") as here:
            folder = f"{options.at or here}/{samples}"
            if not Path(folder, "dataset.json").exists():
                write_dataset(folder, samples, lambda said: print(said, file=sys.stderr))
            process = multiprocessing.get_context("spawn").Process(
                target=work, args=(folder, options.queries, options.in_turn)
            )
            process.start()
            process.join()
            broken |= process.exitcode or 0
    sys.exit(int(broken != 0))


if __name__ == "__main__":
    main()
