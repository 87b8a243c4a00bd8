"""The command unpack: what it prints."""

from __future__ import annotations

import os
import time

from manifests import files
from manifests.console import console, size
from pipelines.unpacking.unpack import unpack as run

REASONS = {
    "macos": "that macOS added",
    "option": "with names that begin with a dash",
    "no_audio": "rows without audio",
    "no_name": "rows without a name",
}


def unpack(archives: list[str], into: str = "") -> None:
    """Unpack archives into a folder, by default each into the one in which it lies, and print what came of each."""
    for archive in archives:
        begin = time.perf_counter()
        folder = into or os.path.dirname(files.local(archive)) or "."
        made = run(archive, folder)
        console.print(
            f"{archive}: {made.files:,} files, {size(made.bytes)} into {folder} ({time.perf_counter() - begin:.1f} s)",
            markup=False,
        )
        for reason, count in made.skipped.items():
            console.print(f"passed over: {count:,} {REASONS.get(reason, reason)}", markup=False)
