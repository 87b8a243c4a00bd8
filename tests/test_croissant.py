"""The croissant.json of a dataset, as the library of those who wrote the specification reads it."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from conftest import World
from shards import Dataset
from shards.croissant import croissant
from shards.finishing import publish
from shards.index import FOR_MACHINES, SCHEMA
from shards.papers import gather

mlcroissant = pytest.importorskip("mlcroissant", reason="it is in the extra `test`")

WORLD: World = {
    ("librispeech", "dev-clean"): [(1600 + clip, ("asr", "gender_recognition")) for clip in range(5)],
    ("clotho", "evaluation"): [(3200, ("audio_caption",))] * 4,
}


@pytest.fixture(scope="module")
def folder(make_dataset: Callable[..., Dataset]) -> Path:
    dataset = make_dataset(WORLD, shards=2)
    publish(dataset.url, dataset.manifest)
    return Path(dataset.url)


def test_it_is_valid_and_lacks_but_the_date_that_no_build_knows(folder: Path) -> None:
    described = mlcroissant.Dataset(str(folder / "croissant.json")).metadata
    issues = described.ctx.issues
    assert issues.errors == set()
    assert [warning for warning in issues.warnings if "datePublished" not in warning] == []
    assert described.ctx.is_v1_1() and described.name == "A small world"
    assert described.version == f"{Dataset(folder).manifest.format[-1]}.0.0+{Dataset(folder).digest[:12]}"
    assert described.license == ["https://creativecommons.org/publicdomain/zero/1.0/"]
    assert "K. Drossos" in described.cite_as and "V. Panayotov" in described.cite_as
    assert described.data_collection_missing_data == "0 of 9 clips were left out."
    assert described.machine_annotation_tools in (None, [])


def test_it_names_every_file_with_its_digest(folder: Path) -> None:
    described = mlcroissant.Dataset(str(folder / "croissant.json")).metadata
    told = {one.content_url: (one.sha256, one.content_size) for one in described.distribution}
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    texts = {"README.md", "ATTRIBUTION.md", "croissant.json", "dataset.json"}
    assert told == {
        name: (hashlib.sha256(content).hexdigest(), f"{len(content)} B")
        for name, content in found.items()
        if name not in texts
    }


def test_its_records_are_the_rows_of_the_index(folder: Path) -> None:
    described, dataset = mlcroissant.Dataset(str(folder / "croissant.json")), Dataset(folder)
    assert [one.id for one in described.metadata.record_sets] == ["clotho/evaluation", "librispeech/dev-clean"]
    for name in ("clotho/evaluation", "librispeech/dev-clean"):
        rows = dataset.table(*name.split("/")).drop_columns(list(FOR_MACHINES)).to_pylist()
        read = [
            {key.removeprefix(f"{name}/"): as_text(value) for key, value in one.items()}
            for one in described.records(name)
        ]
        assert len(read) == len(rows) == len(WORLD[tuple(name.split("/"))])
        for one, row in zip(read, rows, strict=True):
            assert set(one) == set(row) == {field.name for field in SCHEMA} - {*FOR_MACHINES}
            # What cannot be said of a sample's sound is not a number in the index, and nothing in a record.
            assert one == {column: None if value != value else value for column, value in row.items()}
            assert one["answers"] and all(isinstance(answer, str) for several in one["answers"] for answer in several)


def as_text(value: object) -> object:
    """A record's value with its bytes read as text, and numpy's numbers as Python's."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, list):
        return [as_text(one) for one in value]
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and math.isnan(value) else value


def test_a_changed_file_is_noticed(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    index = tmp_path / "copy/index/clotho/evaluation.parquet"
    index.write_bytes(index.read_bytes()[:-1] + b"?")
    described = mlcroissant.Dataset(str(tmp_path / "copy/croissant.json"))
    with pytest.raises(Exception, match="An error occurred") as caught:
        list(described.records("clotho/evaluation"))
    assert "is not identical with the" in str(caught.value.__cause__)


def test_on_the_hub_files_are_found_by_their_addresses(folder: Path, tmp_path: Path) -> None:
    page = "https://example.org/datasets/me/small"
    told = gather(str(folder), Dataset(folder).manifest)
    content = json.loads(croissant(told, page, f"{page}/resolve/main/"))
    assert content["url"] == page
    assert all(one["contentUrl"] == f"{page}/resolve/main/{one['@id']}" for one in content["distribution"])
    (tmp_path / "croissant.json").write_text(json.dumps(content))
    described = mlcroissant.Dataset(str(tmp_path / "croissant.json")).metadata
    assert described.url == page and described.ctx.issues.errors == set()


def test_who_wrote_the_answers_and_what_was_left_out_is_said(folder: Path) -> None:
    manifest = Dataset(folder).manifest
    source = msgspec.structs.replace(manifest.sources[0], found=6, excluded=2, reasons={"no_audio": 2})
    changed = msgspec.structs.replace(
        manifest, provenance={"run": "instruct", "step": "7"}, sources=(source, *manifest.sources[1:])
    )
    content = json.loads(croissant(gather(str(folder), changed)))
    assert content["rai:machineAnnotationTools"] == ["run instruct; step 7"]
    assert content["rai:dataAnnotationProtocol"][0] == "Answers were written by a model."
    assert content["rai:dataCollectionMissingData"] == "2 of 11 clips were left out: no_audio 2."
