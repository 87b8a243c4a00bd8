"""Verify finds what can go wrong with a dataset on disk: twelve kinds of fault, planted one at a time."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conftest import digests
from manifests import UserError
from manifests.tables import write_table
from pipelines.collect import collect, orphans
from pipelines.verify import shard_tasks, verify_index, verify_shard
from shards import Dataset
from shards.index import SCHEMA, File, Manifest, digest_of, with_traits
from shards.sample import member, tar_end

SHARD = "shards/librispeech/train-clean-100-000000.tar"
INDEX = "index/librispeech/train-clean-100.parquet"


def problems(folder: Path, *, decode: bool = True) -> list[str]:
    """All that a verification of every byte finds."""
    dataset = Dataset(folder)
    found = verify_index(dataset)
    for task in shard_tasks(str(folder), dataset.manifest.sources, decode=decode):
        found += verify_shard(task).problems
    return found


def members_of(path: Path) -> list[tuple[str, bytes]]:
    with tarfile.open(path) as tar:
        return [(info.name, tar.extractfile(info).read()) for info in tar.getmembers()]  # type: ignore[union-attr]


def write_members(path: Path, parts: list[tuple[str, bytes]]) -> None:
    body = b"".join(member(name, content) for name, content in parts)
    path.write_bytes(body + tar_end(len(body)))


def row_of(folder: Path) -> dict:
    return next(
        row for row in Dataset(folder).table("librispeech", "train-clean-100").to_pylist() if row["shard"] == SHARD
    )


def cut(folder: Path) -> None:
    os.truncate(folder / SHARD, (folder / SHARD).stat().st_size - 4096)


def flip(folder: Path) -> None:
    content = bytearray((folder / SHARD).read_bytes())
    content[row_of(folder)["flac_offset"] + 5000] ^= 1
    (folder / SHARD).write_bytes(content)


def zero_page(folder: Path) -> None:
    content = bytearray((folder / SHARD).read_bytes())
    row = row_of(folder)
    page = (row["flac_offset"] + row["flac_bytes"] // 2) // 4096 * 4096
    assert any(content[page : page + 4096])
    content[page : page + 4096] = bytes(4096)
    (folder / SHARD).write_bytes(content)


def duplicate_key(folder: Path) -> None:
    table = pq.read_table(folder / INDEX)
    change_index(folder, pa.concat_tables([table.slice(0, 1), table.slice(0, table.num_rows - 1)]))


def interleave(folder: Path) -> None:
    parts = members_of(folder / SHARD)
    parts[0], parts[2] = parts[2], parts[0]
    write_members(folder / SHARD, parts)


def missing_member(folder: Path) -> None:
    write_members(folder / SHARD, members_of(folder / SHARD)[:-1])


def wrong_count(folder: Path) -> None:
    change_manifest(folder, packed=+1, found=+1)


def foreign_member(folder: Path) -> None:
    write_members(folder / SHARD, [*members_of(folder / SHARD), ("stranger.json", b"{}")])


def symlink(folder: Path) -> None:
    (folder / SHARD).rename(folder.parent / f"{folder.name}.tar")
    (folder / SHARD).symlink_to(folder.parent / f"{folder.name}.tar")


def link_member(folder: Path) -> None:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        info = tarfile.TarInfo(members_of(folder / SHARD)[0][0])
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(info)
    (folder / SHARD).write_bytes(sink.getvalue())


def oversize(folder: Path) -> None:
    with open(folder / SHARD, "ab") as file:
        file.write(bytes(10240))


def index_drift(folder: Path) -> None:
    """The index says otherwise than the shard, and dataset.json agrees with the index."""
    table = pq.read_table(folder / INDEX)
    texts = table["text"].to_pylist()
    texts[0] += " AND MORE"
    column = table.schema.get_field_index("text")
    change_index(folder, table.set_column(column, table.schema.field("text"), pa.array(texts)))


def answers_drift(folder: Path) -> None:
    """The index has an answer that the shard has not, and tells rightly of it."""
    rows = pq.read_table(folder / INDEX).to_pylist()
    rows[0]["answers"][0][0] += " AND MORE"
    change_index(folder, with_traits(pa.Table.from_pylist(rows, schema=SCHEMA)))


def traits_drift(folder: Path) -> None:
    """The index tells of an answer what is not so."""
    table = pq.read_table(folder / INDEX)
    rows = table.to_pylist()
    rows[0]["answer_traits"][0][0]["words"] += 1
    change_index(folder, pa.Table.from_pylist(rows, schema=SCHEMA))


def stale_shard(folder: Path) -> None:
    """A shard of an earlier build lies among the others."""
    shutil.copy(folder / SHARD, folder / SHARD.replace("000000", "000099"))


def missing_shard(folder: Path) -> None:
    (folder / SHARD).unlink()


def swapped(folder: Path) -> None:
    """Two shards under one another's names, each whole."""
    other = folder / SHARD.replace("000000", "000001")
    first, second = (folder / SHARD).read_bytes(), other.read_bytes()
    (folder / SHARD).write_bytes(second)
    other.write_bytes(first)


def change_index(folder: Path, table: pa.Table) -> None:
    """Write an index and make dataset.json agree with it, as a program would that tampers with both."""
    write_table(str(folder / INDEX), table)
    content = (folder / INDEX).read_bytes()
    proof = File(path=INDEX, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    manifest = Dataset(folder).manifest
    sources = tuple(
        msgspec.structs.replace(source, index=proof) if source.index.path == INDEX else source
        for source in manifest.sources
    )
    digest = digest_of([source.index for source in sources])
    save(folder, msgspec.structs.replace(manifest, sources=sources, digest=digest))


def change_manifest(folder: Path, **more: int) -> None:
    manifest = Dataset(folder).manifest
    first, *rest = manifest.sources
    changed = {name: getattr(first, name) + count for name, count in more.items()}
    save(folder, msgspec.structs.replace(manifest, sources=(msgspec.structs.replace(first, **changed), *rest)))


def save(folder: Path, manifest: Manifest) -> None:
    (folder / "dataset.json").write_bytes(msgspec.json.encode(manifest, order="sorted"))


FAULTS: dict[Callable[[Path], None], str] = {
    cut: "bytes",
    flip: "its flac is not what was written",
    zero_page: "its (flac|json) is not what was written|no tar header",
    duplicate_key: "a key stands in it twice",
    interleave: "not those of the index, in that order",
    missing_member: "not those of the index, in that order",
    wrong_count: "dataset.json says",
    foreign_member: "not those of the index, in that order",
    symlink: "a link to another place",
    link_member: "is not a plain file",
    oversize: "bytes, dataset.json says",
    index_drift: "text is .* in the shard, .* in the index",
    answers_drift: "its instructions are others in the shard than in the index",
    traits_drift: "what its index row tells of its texts is not so",
    stale_shard: "000099.tar: not in dataset.json; salmonn gc removes it",
    missing_shard: "missing",
    swapped: "not those of the index, in that order",
}


def test_a_clean_dataset_has_no_problem(built: Path) -> None:
    assert problems(built) == []


@pytest.mark.parametrize("plant", FAULTS, ids=lambda plant: plant.__name__)
def test_a_planted_fault_is_found_and_named(plant: Callable[[Path], None], built: Path, tmp_path: Path) -> None:
    folder = tmp_path / "dataset"
    shutil.copytree(built, folder)
    plant(folder)
    found = problems(folder)
    assert any(re.search(FAULTS[plant], problem) for problem in found), found
    assert all(len(problem) < 400 for problem in found)


@pytest.mark.parametrize("plant", [cut, wrong_count, symlink, oversize, stale_shard, missing_shard, duplicate_key])
def test_what_needs_no_data_is_found_without_reading_it(
    plant: Callable[[Path], None], built: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "dataset"
    shutil.copytree(built, folder)
    plant(folder)
    assert verify_index(Dataset(folder))


def test_garbage_is_listed_then_removed_and_nothing_else(built: Path, tmp_path: Path) -> None:
    folder = tmp_path / "dataset"
    shutil.copytree(built, folder)
    clean = digests(folder)
    assert orphans(str(folder)) == [] == collect(str(folder))
    stale_shard(folder)
    (folder / "shards/librispeech/.train.tar.123-ab.tmp").write_bytes(b"half")
    (folder / "build/commits/0123").mkdir(parents=True)
    (folder / "build/commits/0123/x.parquet").write_bytes(b"old")
    dirty = digests(folder)
    listed = collect(str(folder), dry_run=True)
    assert {orphan.path for orphan in listed} == dirty.keys() - clean.keys()
    assert digests(folder) == dirty
    assert collect(str(folder)) == listed
    assert digests(folder) == clean and not (folder / "build").exists()


def test_no_garbage_is_looked_for_in_a_folder_that_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / ".notes.tmp").write_text("mine")
    with pytest.raises(UserError, match="no dataset and no build"):
        collect(str(tmp_path))
    assert (tmp_path / ".notes.tmp").exists()
