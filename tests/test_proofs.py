"""Proofs: MD5 of many messages at a time against hashlib; and a shard with a clip that is not what it signs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import digests, tone
from manifests import load_recipe
from pipelines import pack
from pipelines.build import build
from shards import Dataset, proofs
from shards.audio import encode, pcm_md5
from shards.proofs import BYTES, CLIPS, Proofs, Unproven


@given(st.lists(st.integers(0, 400) | st.sampled_from([4096, 70_001]), max_size=30), st.integers(0, 2**32 - 1))
def test_the_loop_in_c_digests_as_hashlib_does(lengths: list[int], seed: int) -> None:
    assert proofs.digests is not proofs.digests_one_by_one, "shards/_md5.c was not built: run 'make setup'"
    draw = np.random.default_rng(seed)
    messages = [draw.bytes(length) for length in lengths]
    assert proofs.digests(messages) == [hashlib.md5(message).digest() for message in messages]


def test_every_length_is_padded_as_it_should_be() -> None:
    messages = [bytes(range(length % 256)) + bytes(length) for length in range(300)]
    assert proofs.digests(messages) == [hashlib.md5(message).digest() for message in messages]


def test_what_has_no_bytes_cannot_be_digested() -> None:
    for wrong in (3, [b"", 3], [np.zeros((4, 4))[:, 1]]):
        with pytest.raises((TypeError, ValueError, BufferError)):
            proofs.digests(wrong)


@pytest.mark.parametrize("way", ["compiled", "hashlib"])
@pytest.mark.parametrize("wrong", [None, 0, 3, CLIPS - 1, CLIPS, CLIPS + 2])
def test_one_wrong_clip_among_many_is_noticed(wrong: int | None, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if way == "hashlib":
        monkeypatch.setattr(proofs, "digests", proofs.digests_one_by_one)
    held = Proofs()

    def work() -> None:
        for place in range(CLIPS + 3):
            pcm = tone(100 + place, place)
            held.add(pcm[::2] if place == 5 else pcm, pcm_md5(pcm[::2] if place == 5 else pcm[place == wrong :]))
        held.settle()

    if wrong is None:
        work()
    else:
        with pytest.raises(Unproven):
            work()
    assert held.bytes == 0 and not held.pcms


def test_no_more_than_so_many_bytes_are_held() -> None:
    held, pcm = Proofs(), np.zeros(BYTES // 4, np.int16)
    held.add(pcm, pcm_md5(pcm))
    assert held.bytes == pcm.nbytes
    held.add(pcm, pcm_md5(pcm))
    assert held.bytes == 0


class Here:
    """Runs tasks in this process."""

    def run(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        for item in items:
            yield item, function(item)


def corpus(root: Path, wrong: int | None) -> None:
    """Thirty clips in the layout of LibriSpeech, of which one signs another MD5 than that of its samples."""
    top = root / "raw" / "librispeech" / "LibriSpeech"
    folder = top / "train-clean-100" / "19" / "198"
    folder.mkdir(parents=True)
    (top / "SPEAKERS.TXT").write_text("19 | F | train-clean-100 | 1.0 | x\n")
    names = [f"19-198-{number:04d}" for number in range(30)]
    for number, name in enumerate(names):
        flac = bytearray(encode(tone(8000 + number, number)))
        flac[30] ^= number == wrong
        (folder / f"{name}.flac").write_bytes(flac)
    (folder / "19-198.trans.txt").write_text("".join(f"{name} WHAT IS SAID\n" for name in names))


RECIPE = 'title = "t"\n[[instruct]]\ntask = "asr"\ncorpus = "librispeech"\nsplits = ["train-clean-100"]\n'


@pytest.mark.parametrize("wrong", [None, 2, 29])
def test_a_clip_that_is_not_what_it_signs_is_refused_and_no_other(
    wrong: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus(tmp_path, wrong)
    (tmp_path / "recipe.toml").write_text(RECIPE)
    recipe = load_recipe(tmp_path / "recipe.toml")
    tries: list[bool] = []
    once = pack.pack_shard

    def counted(task: Any, held: Proofs | None) -> Any:
        tries.append(held is not None)
        return once(task, held)

    monkeypatch.setattr(pack, "pack_shard", counted)
    build(recipe, str(tmp_path), str(tmp_path / "out"), executor=Here(), budget=1.0)  # type: ignore[arg-type]
    assert tries == ([True] if wrong is None else [True, False])
    source = Dataset(tmp_path / "out").source("librispeech", "train-clean-100")
    assert (source.packed, source.quarantined) == ((30, 0) if wrong is None else (29, 1))
    refused = pq.read_table(tmp_path / "out" / source.quarantine.path).to_pylist()
    assert [(row["id"][-4:], row["reason"]) for row in refused] == (
        [] if wrong is None else [(f"{wrong:04d}", "md5_mismatch")]
    )
    # Clip by clip from the start, the same bytes.
    monkeypatch.setattr(pack, "pack_shard", lambda task, held: once(task, None))
    build(recipe, str(tmp_path), str(tmp_path / "slow"), executor=Here(), budget=1.0)  # type: ignore[arg-type]
    assert digests(tmp_path / "slow") == digests(tmp_path / "out")
