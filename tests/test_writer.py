"""Writing a shard and reading it back: whatever differs from what was written is found before the shard counts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import instruction, tone
from manifests.errors import Failed
from shards.audio import encode, pcm_md5
from shards.flac import RATE
from shards.render import Stored
from shards.sample import Sample
from shards.writer import READ, ShardWriter, open_shard

SHARD = "shards/a/train-000000.tar"


def written(folder: Path) -> ShardWriter:
    """Write a shard of three clips, the last longer than what is read at a time."""
    with open_shard(str(folder), SHARD) as writer:
        for place, samples in enumerate((16, 1600, 16 * READ)):
            pcm = tone(samples, place)
            stored = Stored(
                flac=encode(pcm), samples=samples, pcm_md5=pcm_md5(pcm), action="transcode", source_rate=RATE
            )
            sample = Sample(
                key=f"a_{place}",
                id=f"a/{place}",
                corpus="a",
                split="train",
                samples=samples,
                seconds=samples / RATE,
                language="en",
                speaker="",
                gender="",
                text="",
                license="CC0-1.0",
                instructions=(instruction("asr", f"a/{place}"),),
            )
            writer.add(sample, stored, [f"{place}.wav"], 2 * samples)
    assert any(row["flac_bytes"] > 2 * READ for row in writer.rows)
    return writer


def test_what_was_written_is_read_back_and_its_digest_is_the_file_s(tmp_path: Path) -> None:
    writer = written(tmp_path)
    writer.read_back(str(tmp_path / SHARD))
    content = (tmp_path / SHARD).read_bytes()
    assert writer.proof().sha256 == hashlib.sha256(content).hexdigest()
    assert writer.proof().bytes == len(content)
    for row in writer.rows:
        assert content[row["flac_offset"] :].startswith(b"fLaC")
        assert content[row["json_offset"] :].startswith(b'{"corpus":"a"')


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> tuple[ShardWriter, Path]:
    folder = tmp_path_factory.mktemp("shard")
    return written(folder), folder / SHARD


@given(st.data())
def test_no_changed_byte_is_read_back(shard: tuple[ShardWriter, Path], data: st.DataObject) -> None:
    writer, path = shard
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    assert at_byte(writer, path, bytes(content)) <= place < len(content)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content[:-1],
        lambda content: content[:100_000],
        lambda content: content[:700],
        lambda content: b"",
        lambda content: content + b"\0",
        lambda content: content[512:],
        lambda content: content[:4096] + content,
    ],
    ids=["a byte short", "cut in a clip", "cut at the start", "empty", "a byte more", "a block lost", "said twice"],
)
def test_no_other_length_is_read_back(shard: tuple[ShardWriter, Path], change: Callable[[bytes], bytes]) -> None:
    writer, path = shard
    assert 0 <= at_byte(writer, path, change(path.read_bytes())) < writer.bytes


def at_byte(writer: ShardWriter, path: Path, content: bytes) -> int:
    """Read `content` back in the place of the shard, and return which byte is told; then put the shard back."""
    whole = path.read_bytes()
    path.write_bytes(content)
    try:
        with pytest.raises(Failed, match=r"train-000000.tar: .* is not what was written; it is removed") as told:
            writer.read_back(str(path))
        assert not path.exists()
    finally:
        path.write_bytes(whole)
    return int(str(told.value).split(" at byte ")[1].split()[0])
