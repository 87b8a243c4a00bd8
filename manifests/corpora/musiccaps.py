"""MusicCaps (https://huggingface.co/datasets/google/MusicCaps): music of ten seconds, described by musicians.

The table as published, and audio that the user brings, since none is published: the ten seconds of each row, cut out::

    musiccaps-public.csv
    audio/-0Gj8-vB1q4_30.flac                         any container; <ytid>_<start_s>.*, or <ytid>.*

One row, here in three lines; there are line ends inside the quotes of captions, and a ytid may begin with a hyphen::

    ytid,start_s,end_s,audioset_positive_labels,aspect_list,caption,author_id,is_balanced_subset,is_audioset_eval
    R60qQ3ag8y8,100,110,"/m/04rlf,/m/04szw,/m/05148p4,/m/05r5c,/m/0dwt5","['jazz', 'piano', 'vibraphone', 'duo',
    'peppy', 'latin', 'upbeat', 'instrumental']",An instrumental jazz piano and vibraphone duo. Peppy and upbeat with a
    latin tinge.,8,False,True

No splits are published: ``eval`` are the rows of AudioSet's evaluation set, ``train`` all others. aspect_list is a
Python literal, kept as the label ``aspects``, with semicolons between.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from manifests import files
from manifests.clips import AudioRef, Clip, Refuse
from manifests.errors import UserError
from manifests.sheets import read_rows

TABLE = "musiccaps-public.csv"
COLUMNS = [
    "ytid",
    "start_s",
    "end_s",
    "audioset_positive_labels",
    "aspect_list",
    "caption",
    "author_id",
    "is_balanced_subset",
    "is_audioset_eval",
]
SPLITS = {"True": "eval", "False": "train"}
LONGEST = 10_000
"""Characters of an aspect_list; the published stay below 1,000, and Python's parser is no place for a megabyte."""


def clips(root: str, split: str, refuse: Refuse) -> Iterator[Clip]:
    """Yield the rows of `split` in the order of the table; a clip without a file has no audio."""
    table = files.join(root, TABLE)
    if not files.exists(table):
        raise UserError(
            f"musiccaps: there is no file {table!r}; it is {TABLE} of huggingface.co/datasets/google/MusicCaps"
        )
    found = {name.rsplit(".", 1)[0]: f"audio/{name}" for name in files.names(files.join(root, "audio"))}
    for place, row in read_rows(table, f"musiccaps/{TABLE}", COLUMNS, refuse):
        video, told = row["ytid"], row["is_audioset_eval"]
        if not video or told not in SPLITS:
            detail = f"ytid is {video[:60]!r}, is_audioset_eval {told[:60]!r}, which should be True or False"
            refuse("malformed_row", place, detail)
            continue
        if SPLITS[told] != split:
            continue
        aspects = read_aspects(row["aspect_list"])
        if aspects is None:
            refuse("malformed_row", place, f"aspect_list {row['aspect_list'][:60]!r} is not a list of words")
            continue
        path = found.get(f"{video}_{row['start_s']}") or found.get(video)
        yield Clip(
            id=f"musiccaps/{video}",
            audio=(AudioRef(path=path),) if path else (),
            captions=(row["caption"],),
            labels={"aspects": aspects} if aspects else {},
            license="CC-BY-SA-4.0",
        )


def read_aspects(text: str) -> str | None:
    """Read the literal of a list of words into one text, semicolons between; None if it is none. Executes nothing."""
    if len(text) > LONGEST:
        return None
    try:
        aspects = ast.literal_eval(text)
        if not isinstance(aspects, list):
            return None
        told = "; ".join(aspects)
        told.encode("utf-8")  # a literal can hold half a surrogate pair, which no file can
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
    return told
