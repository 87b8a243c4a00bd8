"""AudioCaps v1 (https://github.com/cdjkim/audiocaps): captions of ten-second AudioSet clips.

The captions as published, and audio that the user brings, since none is published::

    dataset/test.csv                                  dataset/ of the repository
    audio/test/7fmOlUlwoNg_20.flac                    any container; or Y<youtube_id>.*, or <youtube_id>.*

One row; train has one caption a clip, val and test have five rows a clip::

    audiocap_id,youtube_id,start_time,caption
    103549,7fmOlUlwoNg,20,Constant rattling noise and sharp vibrations
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from manifests import files
from manifests.clips import AudioRef, Clip, Refuse
from manifests.errors import UserError

COLUMNS = ["audiocap_id", "youtube_id", "start_time", "caption"]


def clips(root: str, split: str, refuse: Refuse) -> Iterator[Clip]:
    """Yield one clip per (youtube_id, start_time) in the order of the csv, with all its captions.

    A clip without a file has no audio: videos vanish from YouTube every week, and the scan counts them.
    """
    table = files.join(root, "dataset", f"{split}.csv")
    if not files.exists(table):
        raise UserError(f"audiocaps: there is no file {table!r}; it is dataset/{split}.csv of the published repository")
    folder = f"audio/{split}"
    found = {name.rsplit(".", 1)[0]: f"{folder}/{name}" for name in files.names(files.join(root, folder))}
    for (video, start), captions in read_captions(table, refuse).items():
        path = next((found[stem] for stem in (f"{video}_{start}", f"Y{video}", video) if stem in found), "")
        yield Clip(
            id=f"audiocaps/{video}_{start}",
            audio=(AudioRef(path=path),) if path else (),
            captions=tuple(captions),
            license="MIT",
        )


def read_captions(path: str, refuse: Refuse) -> dict[tuple[str, int], list[str]]:
    """Map (youtube_id, start second) to its captions, in the order of the file."""
    rows = csv.DictReader(io.StringIO(files.read_text(path), newline=""))
    if rows.fieldnames != COLUMNS:
        raise UserError(f"{path}: the columns are {rows.fieldnames}, but AudioCaps has {COLUMNS}")
    captions: dict[tuple[str, int], list[str]] = {}
    for row in rows:
        if None in row or None in row.values() or not row["start_time"].isdecimal():
            told = ",".join(str(value) for value in row.values())
            name = path.rsplit("/", 1)[-1]
            refuse("malformed_row", f"audiocaps/{name}:{rows.line_num}", f"{told[:80]!r} is not {','.join(COLUMNS)}")
            continue
        captions.setdefault((row["youtube_id"], int(row["start_time"])), []).append(row["caption"].strip())
    return captions
