"""Trust: which files of a corpus came out of archives whose digests the publisher names, and have not changed since."""

from __future__ import annotations

import zlib

from manifests import files, mounts
from manifests.corpus import load_corpus
from manifests.tables import read_table
from pipelines.items import items_of, outcome_path, read_outcome
from pipelines.unpacking.unpack import RECORD

Trusted = dict[str, tuple[int, int]]
"""Path, relative to the folder of the corpus, to the bytes and the time of change that unpacking left it with."""


def trusted_files(root: str, corpus: str) -> Trusted:
    """Return the files of a corpus that fetch unpacked from archives of the right digest; empty if there are none.

    A file is trusted as long as its size and its time are those it was written with; who writes to it loses that.
    So is a member of an archive that is mounted, with its CRC-32 in the place of a time, and as long as nobody writes
    to its tar.
    """
    known: Trusted = {}
    folder = f"raw/{corpus}/"
    facts = load_corpus(corpus)
    home = files.join(root, "raw", corpus)
    mounted = files.is_local(home) and mounts.mountable(files.absolute(home))
    for item in items_of(facts, facts.splits):
        outcome = read_outcome(root, item)
        record = outcome_path(root, item).removesuffix(".json") + ".unpacked.parquet"
        if outcome is None or not (outcome.verified and outcome.unpacked) or not files.exists(record):
            continue
        inner = f"{item.into}/".removeprefix(folder) if f"{item.into}/" != folder else ""
        table = read_table(record, RECORD, ["path", "bytes", "mtime_ns"])
        paths, sizes, stamps = (table[name].to_pylist() for name in ("path", "bytes", "mtime_ns"))
        if mounted:  # what files.read_head makes of it there
            stamps = [zlib.crc32(str(stamp).encode()) for stamp in stamps]
        known.update((f"{inner}{path}", (size, stamp)) for path, size, stamp in zip(paths, sizes, stamps, strict=True))
    return known
