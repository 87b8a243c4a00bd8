"""Known evaluation sets: what nothing that is trained on may share, also where the dataset does not hold them.

lists/NAME.txt.gz has an upstream name or a speaker a line, as shards/audit/upstream.py writes them. They come from the
published tables: AudioCaps v1 (2.0 has the same videos in val and test), the rows of MusicCaps with is_audioset_eval,
VoxCeleb1's 40 speakers of verification, LibriSpeech's SPEAKERS.TXT. The mixtures of LibriMix's dev and test are made of
dev-clean and test-clean. WavCaps' blacklist for AudioCaps is AudioCaps' own lists (its val and test; with its train for
the longest), so it needs none of its own; that for Clotho is not ours to pass on.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import msgspec

from manifests import Recipe, UserError
from manifests.corpus import parse_source
from manifests.errors import nearest
from shards.index import Dataset

FOLDER = Path(__file__).parent / "lists"
LISTS = {
    "audiocaps-test": "80a744263cda9fd5d1906067a4f5ff8a78e040e17203ea040ccce7093936740b",
    "audiocaps-val": "eb96ef8862ababc18411fa299f968b8084033c78670ea6f6ae7c20d9d218c45b",
    "librispeech-dev-clean": "a1fbd4ab5ef7bddaebc3265ef5747502b9e16111dc1aa0449b80feee121f0da2",
    "librispeech-dev-other": "c3f9e4b2491ec413c2095a74b913171cc85ab5bf4e0f7512400ee6aa1474b956",
    "librispeech-test-clean": "70398bd81a84134a4a0975190a440200268b230a799a976b810a8ae87792b396",
    "librispeech-test-other": "2557fe3bc573970639d0a46da4bae7355f41b24d921a1bbf432e1af0f839afe2",
    "musiccaps-eval": "4f6ae9be5a248115eab9bd1f9b0dbebcfe585a9033ebb0c2c626d0d338165307",
    "voxceleb1-test": "a6bc6522fc354ddc8d6d552709abad6b839a7518966229a64fb0c3ac43f1a659",
}
"""The SHA-256 of each file."""

Kind = Literal["origin", "speaker"]
YOUTUBE, LIBRISPEECH = ("audiocaps", "coreasoning", "musiccaps", "wavcaps"), ("librimix", "librispeech")


class Known(msgspec.Struct, frozen=True):
    """What is known of an evaluation set."""

    name: str
    """Of its list."""
    kind: Kind
    found_in: tuple[str, ...]
    """Corpora in which something of it could be."""
    published: bool = False
    """Whether it is the test set of its corpus, which is looked for even if nobody asks."""


SETS: dict[tuple[str, str], Known] = {
    ("audiocaps", "test"): Known("audiocaps-test", "origin", YOUTUBE, True),
    ("audiocaps", "test-v2"): Known("audiocaps-test", "origin", YOUTUBE),
    ("audiocaps", "val"): Known("audiocaps-val", "origin", YOUTUBE),
    ("audiocaps", "val-v2"): Known("audiocaps-val", "origin", YOUTUBE),
    ("coreasoning", "test"): Known("audiocaps-test", "origin", YOUTUBE),
    ("librimix", "libri2mix-dev"): Known("librispeech-dev-clean", "speaker", LIBRISPEECH),
    ("librimix", "libri2mix-test"): Known("librispeech-test-clean", "speaker", LIBRISPEECH),
    ("librimix", "libri3mix-dev"): Known("librispeech-dev-clean", "speaker", LIBRISPEECH),
    ("librimix", "libri3mix-test"): Known("librispeech-test-clean", "speaker", LIBRISPEECH),
    ("librispeech", "dev-clean"): Known("librispeech-dev-clean", "speaker", LIBRISPEECH),
    ("librispeech", "dev-other"): Known("librispeech-dev-other", "speaker", LIBRISPEECH),
    ("librispeech", "test-clean"): Known("librispeech-test-clean", "speaker", LIBRISPEECH, True),
    ("librispeech", "test-other"): Known("librispeech-test-other", "speaker", LIBRISPEECH, True),
    ("musiccaps", "eval"): Known("musiccaps-eval", "origin", YOUTUBE, True),
    ("voxceleb1", "test"): Known("voxceleb1-test", "speaker", ("voxceleb1",), True),
    ("voxceleb1", "verification-test"): Known("voxceleb1-test", "speaker", ("voxceleb1",)),
}


@functools.cache
def names_of(name: str) -> tuple[str, ...]:
    """Return the lines of a list; UserError if it is not the file that came with this version."""
    path = FOLDER / f"{name}.txt.gz"
    content = path.read_bytes() if path.exists() else b""
    if hashlib.sha256(content).hexdigest() != LISTS[name]:
        raise UserError(f"{path} is missing or not as published with this version; install it anew")
    return tuple(gzip.decompress(content).decode().split("\n")[:-1])


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """What a split is, when it is asked what leaks into what."""

    trained: bool = False
    evaluated: bool = False
    asked: bool = False
    """Whether the recipe evaluates on it, or --against names it; else it is a test set that everyone uses."""


def sides(
    dataset: Dataset, recipe: Recipe, stages: Iterable[str], against: Iterable[str]
) -> dict[tuple[str, str], Side]:
    """Map splits to what they are; UserError for one of `against` that nothing is known of."""
    trained = {
        (row.corpus, split)
        for stage in stages
        if stage != "evaluate"
        for row in recipe.stage(stage)
        for split in row.splits
    }
    asked = {(row.corpus, split) for row in recipe.evaluate for split in row.splits} | named(dataset, against)
    known = {name for name, facts in SETS.items() if facts.published}
    return {
        name: Side(trained=name in trained, evaluated=name in asked | known, asked=name in asked)
        for name in sorted(trained | asked | known)
    }


def named(dataset: Dataset, against: Iterable[str]) -> set[tuple[str, str]]:
    """Return the splits that are meant by CORPUS:SPLIT, each in the dataset or known here."""
    held = {(source.corpus, source.split) for source in dataset.manifest.sources}
    found = set()
    for text in against:
        corpus, splits = parse_source(text)
        for split in splits:
            if (corpus.name, split) not in held | SETS.keys():
                names = [":".join(name) for name in sorted(held | SETS.keys())]
                raise UserError(
                    f"--against {text}: the dataset has no {corpus.name}:{split}, and no list of what is in it comes "
                    f"with this program; {nearest(f'{corpus.name}:{split}', names)}"
                )
            found.add((corpus.name, split))
    return found


def tables(sides: dict[tuple[str, str], Side]) -> str:
    """Return the SQL that makes the tables `sides` and `known`."""
    rows = ",\n".join(
        f"  ('{corpus}', '{split}', {side.trained}, {side.evaluated}, {side.asked})".lower()
        for (corpus, split), side in sides.items()
    )
    trained = {corpus for (corpus, _), side in sides.items() if side.trained}
    lists = "".join(
        f"\nunion all select '{corpus}', '{split}', '{SETS[corpus, split].kind}', "
        f"unnest(string_split('{' '.join(names_of(SETS[corpus, split].name))}', ' '))"
        for (corpus, split), side in sides.items()
        if side.evaluated and (corpus, split) in SETS and trained.intersection(SETS[corpus, split].found_in)
    )
    return TABLES.format(rows=rows, lists=lists)


TABLES = """\
-- what is trained on, and what nothing of it may be in
create table sides as select * from (values
{rows}
) as side (corpus, split, trained, evaluated, asked);
-- what is known of evaluation sets, whether the dataset holds them or not
create table known as select '' as corpus, '' as split, '' as kind, '' as name where false{lists};"""
