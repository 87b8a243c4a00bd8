"""Foreign readers: plain tarfile, webdataset and Hugging Face datasets read our shards and see what the index says."""

from __future__ import annotations

import json
import tarfile
import zlib
from pathlib import Path
from typing import Any

import pytest

from shards import Dataset

FIELDS = (
    "key",
    "id",
    "corpus",
    "split",
    "samples",
    "seconds",
    "language",
    "speaker",
    "gender",
    "text",
    "license",
    "provenance",
)


@pytest.fixture(scope="module")
def rows(built: Path) -> dict[str, dict[str, Any]]:
    """Every row of the index by key."""
    dataset = Dataset(built)
    return {
        row["key"]: row
        for source in dataset.manifest.sources
        for row in dataset.table(source.corpus, source.split).to_pylist()
    }


def shard_paths(built: Path) -> list[str]:
    return [str(built / file.path) for source in Dataset(built).manifest.sources for file in source.shards]


def agrees(row: dict[str, Any], flac: bytes, told: dict[str, Any]) -> None:
    """Hold one sample as a reader gives it against its index row."""
    assert zlib.crc32(flac) == row["flac_crc32"]
    assert {name: told[name] for name in FIELDS} == {name: row[name] for name in FIELDS}
    instructions = told["instructions"]
    assert [i["task"] for i in instructions] == row["tasks"]
    assert [i["prompt"] for i in instructions] == row["prompts"]
    assert [list(i["answers"]) for i in instructions] == row["answers"]
    assert set(told) == {*FIELDS, "instructions"}


def test_tarfile_finds_every_member_at_its_byte_range(built: Path, rows: dict[str, dict[str, Any]]) -> None:
    seen = []
    for path in shard_paths(built):
        content = Path(path).read_bytes()
        with tarfile.open(path) as tar:
            for member in tar:
                key, kind = member.name.split(".")
                row = rows[key]
                assert (member.offset_data, member.size) == (row[f"{kind}_offset"], row[f"{kind}_bytes"])
                assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")
                assert Path(path) == built / row["shard"]
                seen.append(member.name)
                if kind == "json":
                    flac = content[row["flac_offset"] :][: row["flac_bytes"]]
                    agrees(row, flac, json.loads(content[row["json_offset"] :][: row["json_bytes"]]))
    assert seen == [name for key in rows for name in (f"{key}.flac", f"{key}.json")]


def test_webdataset_reads_every_sample(built: Path, rows: dict[str, dict[str, Any]]) -> None:
    import webdataset

    seen = []
    for sample in webdataset.WebDataset(shard_paths(built), shardshuffle=False):
        agrees(rows[sample["__key__"]], sample["flac"], json.loads(sample["json"]))
        seen.append(sample["__key__"])
    assert seen == list(rows)


@pytest.mark.parametrize("streaming", [True, False])
def test_hugging_face_datasets_reads_every_sample_under_one_schema(
    built: Path, rows: dict[str, dict[str, Any]], tmp_path: Path, streaming: bool
) -> None:
    import datasets

    files = {"train": shard_paths(built)}
    # It takes its schema from the first five samples. Audio, even undecoded, would need torchcodec; raw bytes do not.
    features = datasets.load_dataset("webdataset", data_files=files, split="train", streaming=True).features
    assert isinstance(features["flac"], datasets.Audio)
    features["flac"] = datasets.Value("binary")
    loaded = datasets.load_dataset(
        "webdataset",
        data_files=files,
        split="train",
        streaming=streaming,
        features=features,
        cache_dir=str(tmp_path),
    )
    seen = []
    for sample in loaded:
        agrees(rows[sample["__key__"]], sample["flac"], sample["json"])
        seen.append(sample["__key__"])
    assert seen == list(rows)


def test_the_dataset_card_names_every_shard_for_the_hub(built: Path) -> None:
    from huggingface_hub import DatasetCard

    card = DatasetCard.load(built / "README.md").data.to_dict()
    named = [path for config in card["configs"] for part in config["data_files"] for path in part["path"]]
    assert sorted(named) == sorted(file.path for source in Dataset(built).manifest.sources for file in source.shards)
