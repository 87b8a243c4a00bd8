"""AudioCaps v1 and v2.0 (https://github.com/cdjkim/audiocaps): captions of ten-second AudioSet clips.

The captions as published, and audio that the user brings, since none is published. Both versions caption the same
videos, so the splits train, val, test and train-v2, val-v2, test-v2 look for audio in the same three folders::

    dataset/test.csv                                  v1, as in the repository
    dataset2.0/test.csv                               v2.0
    audio/test/7fmOlUlwoNg_20.flac                    any container; or Y<youtube_id>.*, or <youtube_id>.*

One row; train has one caption a clip, val and test have five rows a clip, in v2.0 not side by side::

    audiocap_id,youtube_id,start_time,caption
    103549,7fmOlUlwoNg,20,Constant rattling noise and sharp vibrations

A clip is (youtube_id, start_time), start_time in whole seconds. A youtube_id may begin with a hyphen. The ids of v2.0
begin with ``audiocaps/v2/``: both versions fit into one dataset.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from manifests import files
from manifests.clips import AudioRef, Clip, Refuse
from manifests.errors import UserError
from manifests.sheets import read_rows

COLUMNS = ["audiocap_id", "youtube_id", "start_time", "caption"]
SECOND = re.compile(r"[0-9]{1,6}")


def clips(root: str, split: str, refuse: Refuse) -> Iterator[Clip]:
    """Yield one clip per (youtube_id, start_time) in the order of the csv, with all its captions.

    A clip without a file has no audio: videos vanish from YouTube every week, and the scan counts them.
    """
    part, _, version = split.partition("-")
    table, prefix = (f"dataset2.0/{part}.csv", "audiocaps/v2") if version else (f"dataset/{part}.csv", "audiocaps")
    if not files.exists(files.join(root, table)):
        raise UserError(
            f"audiocaps: there is no file {files.join(root, table)!r}; it is {table} of the published repository"
        )
    folder = f"audio/{part}"
    found = {name.rsplit(".", 1)[0]: f"{folder}/{name}" for name in files.names(files.join(root, folder))}
    for (video, start), captions in read_captions(files.join(root, table), f"audiocaps/{table}", refuse).items():
        stem = f"{video}_{start}"
        path = found.get(stem) or found.get(f"Y{video}") or found.get(video, "")
        yield Clip(
            id=f"{prefix}/{stem}",
            audio=(AudioRef(path=path),) if path else (),
            captions=tuple(captions),
            license="MIT",
        )


def read_captions(path: str, label: str, refuse: Refuse) -> dict[tuple[str, int], list[str]]:
    """Map (youtube_id, start second) to its captions, in the order of the file."""
    captions: dict[tuple[str, int], list[str]] = {}
    for place, row in read_rows(path, label, COLUMNS, refuse):
        _, video, start, caption = row.values()
        if not video or not SECOND.fullmatch(start):
            refuse("malformed_row", place, f"{','.join(row.values())[:80]!r} is not {','.join(COLUMNS)}")
            continue
        captions.setdefault((video, int(start)), []).append(caption)
    return captions
