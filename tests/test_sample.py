"""Samples: keys that every reader takes, tars that every reader reads, and faults that are found."""

from __future__ import annotations

import io
import json
import re
import string
import tarfile
import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests import Clip, Instruction, UserError, files
from shards import Dataset
from shards.sample import BLOCK, Sample, Tape, key_of, member, member_header, members, tar_end

LAW = re.compile(r"[a-z0-9_-]{1,90}")

hostile = (
    st.text(max_size=20)
    | st.text(st.sampled_from("aA0._-/ \0\n\u00e9e\u0301\u00df\u0130"), max_size=12)
    | st.text(st.sampled_from("ab/_-"), min_size=1, max_size=8)
    | st.text(string.ascii_lowercase, min_size=60, max_size=300)
    | st.sampled_from(
        ["", ".", "..", "../..", "/", "-x", "--", "__x__/y", ".hidden", "a/b.c", "a/b/c", "Track 2.0 (Clean)"]
    )
)


@st.composite
def twins(draw: st.DrawFn) -> list[str]:
    """Ids that differ only where a careless key would not: case, form of accents, separators, the end."""
    name = draw(hostile)
    forms = {name, name.upper(), name.lower(), name + "x", name + ".", name + "/", "a/" + name}
    forms |= {unicodedata.normalize(form, name) for form in ("NFC", "NFD", "NFKC")}
    forms |= {name.replace(old, new) for old in "._-/" for new in "._-/"}
    return sorted(forms)


# 400 worlds of 25 ids and more: above 10,000.
@settings(max_examples=400)
@given(st.lists(twins(), min_size=2, max_size=3))
def test_hostile_ids_have_lawful_keys_and_no_two_share_one(groups: list[list[str]]) -> None:
    ids = {name for group in groups for name in group}
    keys = {name: key_of(name) for name in ids}
    assert not [key for key in keys.values() if not LAW.fullmatch(key)]
    assert len(set(keys.values())) == len(ids)
    assert keys == {name: key_of(name) for name in ids}


@given(st.integers(1, 100), st.integers(1, 100))
def test_a_key_is_lawful_however_long_corpus_and_name_are(corpus: int, name: int) -> None:
    key = key_of(f"{'c' * corpus}/{'n' * name}")
    assert LAW.fullmatch(key)
    assert len(member(f"{key}.flac", b"")) == BLOCK


@pytest.mark.parametrize(
    ("clip_id", "key"),
    [
        ("librispeech/1272-128104-0000", "librispeech_1272-128104-0000"),
        ("iemocap/ses01f_impro01_f000", "iemocap_ses01f_impro01_f000"),
    ],
)
def test_a_clean_id_can_be_read_in_its_key(clip_id: str, key: str) -> None:
    assert key_of(clip_id) == key


def test_an_id_that_is_not_clean_leaves_its_words_in_the_key() -> None:
    assert key_of("audiocaps/-Ab_cD.e_20").startswith("audiocaps-ab-cd-e-20-x")
    assert key_of("audiocaps/r1nicOVtvkQ_130") != key_of("audiocaps/r1nicovtvkq_130")


def test_a_key_is_the_same_on_every_machine() -> None:
    # Written down once: another key here and no published dataset can be resumed or compared.
    assert key_of("audiocaps/r1nicOVtvkQ_130") == "audiocaps-r1nicovtvkq-130-xe3a323209b9200df35a8008e5f068ec"


# -- tars

names = st.text("abcdefghij0123456789_-", min_size=1, max_size=90)
contents = st.lists(st.tuples(names, st.sampled_from(["flac", "json"]), st.binary(max_size=1500)), max_size=6)


def tar_of(parts: list[tuple[str, str, bytes]]) -> bytes:
    body = b"".join(member(f"{name}.{kind}", content) for name, kind, content in parts)
    return body + tar_end(len(body))


@given(contents)
def test_tarfile_reads_the_same_names_and_contents_with_nothing_of_when_and_who(
    parts: list[tuple[str, str, bytes]],
) -> None:
    data = tar_of(parts)
    assert len(data) % tarfile.RECORDSIZE == 0
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        found = tar.getmembers()
        assert [(info.name, tar.extractfile(info).read()) for info in found] == [  # type: ignore[union-attr]
            (f"{name}.{kind}", content) for name, kind, content in parts
        ]
        for info in found:
            assert info.isreg()
            assert (info.mtime, info.uid, info.gid, info.uname, info.gname, info.mode) == (0, 0, 0, "", "", 0o644)
            assert not info.pax_headers


@given(st.text("abcxyz019_-", min_size=1, max_size=95).map("{}.flac".format), st.integers(0, 8**11 - 1))
def test_a_header_is_the_one_that_tarfile_makes(name: str, length: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = length, 0o644
    assert member_header(name, length) == info.tobuf(format=tarfile.USTAR_FORMAT)


@given(contents)
def test_members_are_where_they_are_said_to_be(parts: list[tuple[str, str, bytes]]) -> None:
    data = tar_of(parts)
    placed = [place for place, _ in members(Tape(io.BytesIO(data)), "a.tar")]
    assert [(place.name, data[place.offset : place.offset + place.length]) for place in placed] == [
        (f"{name}.{kind}", content) for name, kind, content in parts
    ]


def test_tarfile_s_own_tars_are_read_too() -> None:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in ("a.flac", "a.json"):
            info = tarfile.TarInfo(name)
            info.size = 700
            tar.addfile(info, io.BytesIO(bytes(700)))
    placed = [place for place, _ in members(Tape(io.BytesIO(sink.getvalue())), "a.tar")]
    assert [(place.name, place.offset, place.length) for place in placed] == [
        ("a.flac", 512, 700),
        ("a.json", 2048, 700),
    ]


TWO = member("a.flac", b"f" * 700) + member("a.json", b"j" * 20)


def linked() -> bytes:
    info = tarfile.TarInfo("a.flac")
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return info.tobuf(format=tarfile.USTAR_FORMAT)


def pax() -> bytes:
    info = tarfile.TarInfo("a.flac")
    info.mtime = 0.5
    return info.tobuf(format=tarfile.PAX_FORMAT)


FAULTS = {
    "a flipped bit in a header": TWO[:5] + bytes([TWO[5] ^ 1]) + TWO[6:] + tar_end(len(TWO)),
    "a zeroed page over a header": TWO[:100] + bytes(300) + TWO[400:] + tar_end(len(TWO)),
    "a cut in a header": TWO[: 512 + 1024 + 100],
    "a cut in a content": TWO[:900],
    "a size beyond the end": member("a.flac", bytes(5000))[:BLOCK] + bytes(2 * BLOCK),
    "a link": linked() + tar_end(BLOCK),
    "a pax header": pax() + tar_end(len(pax())),
    "no tar": b"<html>" * 300,
}


def folder_entry() -> bytes:
    info = tarfile.TarInfo("a")
    info.type = tarfile.DIRTYPE
    return info.tobuf(format=tarfile.USTAR_FORMAT)


FAULTS["a folder"] = folder_entry() + tar_end(BLOCK)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found_and_told_with_the_tar_and_the_place(fault: str) -> None:
    with pytest.raises(UserError, match=r"broken\.tar: .* at byte \d+"):
        list(members(Tape(io.BytesIO(FAULTS[fault])), "broken.tar"))


@given(st.integers(0, len(TWO) - 1), st.integers(1, 255))
def test_no_changed_byte_of_a_header_goes_unnoticed(place: int, change: int) -> None:
    data = bytearray(TWO + tar_end(len(TWO)))
    header = place < BLOCK or BLOCK + 1024 <= place < 2 * BLOCK + 1024
    data[place] ^= change
    try:
        found = [
            (placed.name, placed.offset, placed.length) for placed, _ in members(Tape(io.BytesIO(bytes(data))), "a.tar")
        ]
    except UserError:
        assert header
    else:
        # The bytes of the checksum itself may be spelled in two ways; names, places and lengths are as written.
        assert found == [("a.flac", 512, 700), ("a.json", 2048, 20)]


# -- the JSON of a sample


def test_a_sample_is_json_with_sorted_names_and_no_nulls() -> None:
    sample = Sample(
        key="k", id="a/k", corpus="a", split="s", samples=16000, seconds=1.0, language="", speaker="", gender="",
        text="caf\u00e9", license="", instructions=(Instruction(task="asr", prompt="Say.", answers=("Caf\u00e9",)),),
    )  # fmt: skip
    found = json.loads(sample.encode())
    assert list(found) == sorted(found)
    assert None not in found.values()
    assert found["instructions"] == [{"answers": ["Caf\u00e9"], "prompt": "Say.", "slot": "", "task": "asr"}]
    assert set(found) == set(Sample.__struct_fields__)
    assert not hasattr(Clip, "key"), "keys are made by key_of alone"


# -- foreign readers

WORLD = {("toy", "train"): [(800, ("asr",)), (900, ("asr", "gender_recognition")), (1000, ("audio_caption",))]}


@pytest.fixture(scope="module")
def dataset(make_dataset: Callable[..., Dataset]) -> Dataset:
    return make_dataset(WORLD)


def test_webdataset_reads_a_shard_as_the_index_has_it(dataset: Dataset) -> None:
    import soundfile
    import webdataset

    row_of = {row["key"]: row for row in dataset.table("toy", "train").to_pylist()}
    shard = files.join(dataset.url, next(iter(row_of.values()))["shard"])
    found = list(webdataset.WebDataset(shard, shardshuffle=False, empty_check=False))
    assert [sample["__key__"] for sample in found] == list(row_of)
    for sample in found:
        row = row_of[sample["__key__"]]
        told = json.loads(sample["json"])
        assert (told["id"], told["samples"]) == (row["id"], row["samples"])
        assert [instruction["task"] for instruction in told["instructions"]] == row["tasks"]
        assert soundfile.info(io.BytesIO(sample["flac"])).frames == row["samples"]


def test_the_byte_ranges_of_the_index_are_the_members(dataset: Dataset) -> None:
    for row in dataset.table("toy", "train").to_pylist():
        shard = files.read_bytes(files.join(dataset.url, row["shard"]))
        assert shard[row["flac_offset"] :][:4] == b"fLaC"
        assert json.loads(shard[row["json_offset"] : row["json_offset"] + row["json_bytes"]])["key"] == row["key"]
