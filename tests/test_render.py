"""Rendering: what is trusted is not decoded, the rest is decoded once; a span is the same whatever was read before."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import random
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import msgspec
import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from manifests import AudioRef, files
from shards import dr_flac, render
from shards.audio import encode, open_sound, pcm_md5, read_flac
from shards.fingerprint import fingerprint
from shards.flac import flac_info
from shards.quality import UNKNOWN, measure
from shards.refusals import Refused
from shards.render import Stored, joined, store
from sounds import RATE, SPEECH, by_libsndfile, every_kind, speech


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of each kind, two seconds long."""
    folder = tmp_path_factory.mktemp("kinds")
    for name, data in every_kind().items():
        (folder / name).write_bytes(data)
    return folder


def samples(of: Stored) -> np.ndarray:
    return soundfile.read(io.BytesIO(of.flac), dtype="int16")[0]


def same(first: Stored, second: Stored) -> bool:
    """Equality that takes NaN for NaN."""
    return msgspec.json.encode(first) == msgspec.json.encode(second)


# -- trust and proof


def test_a_trusted_copy_decodes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = store(str(folder), (AudioRef(path="flac"),))

    def no(*_: object, **__: object) -> None:
        raise AssertionError("decoded")

    for name in ("measure", "fingerprint", "open_sound", "Encoder"):
        monkeypatch.setattr(render, name, no)
    monkeypatch.setattr(dr_flac, "decode", no)
    of = store(str(folder), (AudioRef(path="flac"),), trusted=True)
    assert of.quality == UNKNOWN
    assert plain.fingerprint and not of.fingerprint
    assert same(of, msgspec.structs.replace(plain, quality=UNKNOWN, fingerprint=b""))
    assert of.pcm_md5 == flac_info(of.flac).md5


def test_trust_goes_no_further_than_the_header(folder: Path, tmp_path: Path) -> None:
    flac = (folder / "flac").read_bytes()
    claims = int.from_bytes(flac[18:26], "big") >> 36 << 36
    for number, (lie, reason) in enumerate(
        [
            (flac[:18] + (claims | 2**36 - 1).to_bytes(8, "big") + flac[26:], "too_long"),
            (b"", "zero_length"),
            (flac[:41], "not_audio"),
        ]
    ):
        (tmp_path / str(number)).write_bytes(lie)
        with pytest.raises(Refused) as refused:
            store(str(tmp_path), (AudioRef(path=str(number)),), trusted=True)
        assert refused.value.reason == reason
    # What does not conform is decoded and proven as ever.
    unsigned = flac[:26] + bytes(16) + flac[42:-100]
    (tmp_path / "unsigned").write_bytes(unsigned)
    with pytest.raises(Refused, match="truncated"):
        store(str(tmp_path), (AudioRef(path="unsigned"),), trusted=True)
    for name in ("wav", "mp3", "m4a"):
        assert same(
            store(str(folder), (AudioRef(path=name),), trusted=True), store(str(folder), (AudioRef(path=name),))
        )


def test_quality_and_fingerprint_are_those_of_the_stored_samples(folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        of = store(str(folder), (AudioRef(path=path.name),))
        assert msgspec.json.encode(of.quality) == msgspec.json.encode(measure(samples(of)))
        assert not math.isnan(of.quality.peak)
        assert of.fingerprint == fingerprint(samples(of))
        assert of.pcm_md5 == pcm_md5(samples(of))
        bare = store(str(folder), (AudioRef(path=path.name),), measured=False)
        assert same(bare, msgspec.structs.replace(of, quality=UNKNOWN, fingerprint=b""))


def test_a_mistaken_fast_decoder_refuses_no_good_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = store(str(folder), (AudioRef(path="flac"),))
    data = (folder / "flac").read_bytes()
    for wrong in (None, np.zeros(flac_info(data).samples, np.int16)):
        monkeypatch.setattr(dr_flac, "decode", lambda *_, wrong=wrong: wrong)
        assert same(store(str(folder), (AudioRef(path="flac"),)), right)
    monkeypatch.undo()
    monkeypatch.setattr(dr_flac, "miniaudio", None)
    assert dr_flac.version() == ""
    assert same(store(str(folder), (AudioRef(path="flac"),)), right)


def test_damage_is_named_as_libsndfile_names_it(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flac, chance, seen = (folder / "flac").read_bytes(), random.Random(5), set()
    for number in range(60):
        hurt = bytearray(flac)
        hurt[chance.randrange(9000, len(flac))] ^= 1 << chance.randrange(8)
        (tmp_path / "hurt").write_bytes(hurt if number % 2 else flac[: chance.randrange(100, len(flac))])
        reasons = []
        for library in (dr_flac.miniaudio, None):
            monkeypatch.setattr(dr_flac, "miniaudio", library)
            with pytest.raises(Refused) as refused:
                store(str(tmp_path), (AudioRef(path="hurt"),))
            reasons.append((refused.value.reason, refused.value.detail))
            monkeypatch.undo()
        assert reasons[0] == reasons[1]
        seen.add(reasons[0][0])
    assert seen == {"truncated", "corrupt"} or seen == {"truncated", "corrupt", "md5_mismatch"}


def test_a_file_that_shrank_since_the_scan_is_refused(folder: Path) -> None:
    size = (folder / "au").stat().st_size
    assert store(str(folder), (AudioRef(path="au"),), size=size).samples
    with pytest.raises(Refused, match=f"truncated: au: {size} bytes, {size + 1}"):
        store(str(folder), (AudioRef(path="au"),), size=size + 1)
    # A file that stands twice in a clip was counted once.
    pair = (AudioRef(path="au", seconds=1.0), AudioRef(path="au", start=1.0))
    assert store(str(folder), pair, "concat", size=size).samples == 2 * RATE + 1600


def test_neither_a_folder_nor_a_pipe_is_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder", "nothing", "../nothing"):
        with pytest.raises(Refused, match="audio_missing"):
            store(str(tmp_path), (AudioRef(path=name),))


# -- the fast decoder


def test_it_decodes_all_speech_as_libsndfile_does(corpora: Path) -> None:
    paths = [path for path in sorted((corpora / "librispeech").rglob("*.flac")) if path.stat().st_size > 42]
    right = 0
    for path in paths:
        data = path.read_bytes()
        pcm = dr_flac.decode(data, flac_info(data).samples)
        right += pcm is not None and pcm_md5(pcm) == flac_info(data).md5
    assert right >= len(paths) - 1 > 60, "all but the one that the miniature holds broken"


def test_it_decodes_into_a_buffer_and_nowhere_else() -> None:
    pcm = np.arange(-3000, 3000, dtype=np.int16)
    data, out = encode(pcm), np.full(7000, 77, np.int16)
    assert np.shares_memory(dr_flac.decode(data, 6000, out), out)
    assert np.array_equal(out[:6000], pcm)
    assert (out[6000:] == 77).all()
    assert np.array_equal(dr_flac.decode(data, 10), pcm[:10])
    assert dr_flac.decode(data, 6001) is None
    for wrong in (out[:5999], out[::2], out.astype(np.int32)):
        with pytest.raises(ValueError, match="buffer"):
            dr_flac.decode(data, 6000, wrong)


def test_it_leaves_alone_what_is_not_ours() -> None:
    stereo = np.zeros((1000, 2), np.int16)
    for data in (
        by_libsndfile(stereo, RATE, "FLAC"),
        by_libsndfile(stereo[:, 0], RATE, "FLAC", "PCM_24"),
        b"",
        b"fLaC" + bytes(100),
        by_libsndfile(stereo, RATE, "WAV"),
    ):
        assert dr_flac.decode(data, 1000) is None
    whole = encode(stereo[:, 0])
    assert dr_flac.decode(whole, 0) is None
    assert dr_flac.decode(whole, dr_flac.MAX_SAMPLES + 1) is None


def test_a_stored_clip_is_read_by_its_checksum_or_by_its_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    import zlib

    pcm = np.random.default_rng(0).integers(-900, 900, 20_000).astype(np.int16)
    data = encode(pcm)
    crc = zlib.crc32(data)
    for library in (dr_flac.miniaudio, None):
        monkeypatch.setattr(dr_flac, "miniaudio", library)
        assert np.array_equal(read_flac(data, "a", crc32=crc, frames=len(pcm)), pcm)
        assert np.array_equal(read_flac(data, "a"), pcm)
        hurt = data[:9000] + bytes([data[9000] ^ 4]) + data[9001:]
        for given_crc in (crc, None):
            with pytest.raises(Refused, match="corrupt"):
                read_flac(hurt, "a", crc32=given_crc, frames=len(pcm))
        with pytest.raises(Refused, match="truncated"):
            read_flac(data, "a", crc32=crc, frames=len(pcm) + 1)
        with pytest.raises(Refused):
            read_flac(by_libsndfile(pcm, RATE, "FLAC", "PCM_24"), "a")
        monkeypatch.undo()


# -- spans

LENGTH = 20
"""Seconds of the recordings that spans are cut from."""
RECORDINGS = {
    "flac": lambda wave: by_libsndfile(wave, RATE, "FLAC"),
    "vorbis": lambda wave: by_libsndfile(wave, RATE, "OGG", "VORBIS"),
    "opus": lambda wave: by_libsndfile(wave, RATE, "OGG", "OPUS"),
    "mp3": lambda wave: by_libsndfile(wave, RATE, "MP3", "MPEG_LAYER_III"),
    "wav": lambda wave: by_libsndfile(wave, RATE, "WAV", "FLOAT"),
}


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("long")
    wave = np.concatenate(
        [soundfile.read(path, dtype="float32")[0] for path in sorted(SPEECH.parents[2].rglob("*.flac"))]
    )
    for name, made in RECORDINGS.items():
        (folder / name).write_bytes(made(np.resize(wave, LENGTH * RATE)))
    return folder


@pytest.mark.parametrize("kind", RECORDINGS)
def test_a_span_is_a_slice_of_the_whole(long: Path, kind: str) -> None:
    with soundfile.SoundFile(long / kind) as file:
        whole = file.read(dtype="float32")
    chance, off = random.Random(kind), []
    for _ in range(60):
        first, count = chance.randrange(len(whole) - 100), chance.choice([50, 5000, 70_000])
        of = store(str(long), (AudioRef(path=kind, start=first / RATE, seconds=count / RATE),))
        wanted = np.clip(np.rint(whole[first : first + count] * 32768), -32768, 32767)
        assert of.samples == len(wanted)
        off.append(np.abs(samples(of) - wanted).max())
    # MP3 adds in another order; the decoder of Opus comes only near to where it would have been.
    assert max(off) <= {"mp3": 1, "opus": 2000}.get(kind, 0)
    assert kind != "opus" or np.median(off) < 100


@pytest.mark.parametrize("kind", RECORDINGS)
def test_a_span_is_the_same_whatever_was_read_before_it(long: Path, kind: str) -> None:
    chance = random.Random(1)
    spans = [AudioRef(path=kind, start=chance.uniform(0, LENGTH - 1), seconds=0.7) for _ in range(25)]
    forth = {span.start: store(str(long), (span,)).pcm_md5 for span in spans}
    back = {span.start: store(str(long), (span,)).pcm_md5 for span in reversed(spans)}
    assert forth == back
    assert len(set(forth.values())) == len(spans)


def test_a_span_reads_a_part_of_the_file(long: Path) -> None:
    class Counting(io.BytesIO):
        read_bytes = 0

        def read(self, size: int = -1) -> bytes:  # type: ignore[override]
            data = super().read(size)
            self.read_bytes += len(data)
            return data

    for kind in ("flac", "wav"):
        data = (long / kind).read_bytes()
        file = Counting(data)
        with open_sound(file, kind, len(data)) as sound:
            assert sum(map(len, sound.blocks(15 * RATE, RATE))) == RATE
        assert file.read_bytes < len(data) / 2


def test_a_span_of_a_flac_of_unknown_length(long: Path, tmp_path: Path) -> None:
    flac = (long / "flac").read_bytes()
    packed = int.from_bytes(flac[18:26], "big") >> 36 << 36
    (tmp_path / "a").write_bytes(flac[:18] + packed.to_bytes(8, "big") + flac[26:])
    for start, seconds in [(0.0, 1.0), (7.5, 2.0), (19.0, 5.0), (19.0, None)]:
        open_ended = store(str(tmp_path), (AudioRef(path="a", start=start, seconds=seconds),))
        counted = store(str(long), (AudioRef(path="flac", start=start, seconds=seconds),))
        assert same(open_ended, counted)
    with pytest.raises(Refused, match="no_samples"):
        store(str(tmp_path), (AudioRef(path="a", start=21.0),))


@pytest.mark.parametrize("kind", ["mp3", "vorbis", "wav"])
def test_blocks_are_those_of_one_long_read(long: Path, kind: str) -> None:
    """Soundfile seeks after each read, and an MP3 comes out wrong behind that."""
    data = (long / kind).read_bytes()
    with open_sound(io.BytesIO(data), kind, len(data)) as sound:
        ours = np.concatenate(list(sound.blocks(0, None)))[:, 0]
    # The first seek, that soundfile makes before any read, changes the last bit of an MP3's floats.
    assert np.abs(ours - soundfile.read(long / kind, dtype="float32")[0]).max() <= (kind == "mp3") * 2**-22


# -- joins


@given(st.lists(st.lists(st.integers(1, 90_000), max_size=4), min_size=1, max_size=3))
def test_a_mixture_does_not_depend_on_the_blocks_it_comes_in(counts: list[list[int]]) -> None:
    chance = np.random.default_rng(sum(map(sum, counts)))
    parts = [[chance.normal(size=count).astype(np.float32) for count in blocks] for blocks in counts]
    ours = np.concatenate([np.zeros(0, np.float32), *joined(parts, "mix")])
    signals = [np.concatenate([np.zeros(0, np.float32), *blocks]) for blocks in parts]
    total = np.zeros(max(map(len, signals)), np.float32)
    for signal in signals:
        total[: len(signal)] += signal
    assert np.array_equal(ours, total)


def test_a_join_longer_than_the_cap_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "MAX_SECONDS", 3.0)
    pair = (AudioRef(path="wav"), AudioRef(path="mp3"))
    assert store(str(folder), pair, "mix").samples == 2 * RATE
    with pytest.raises(Refused, match="too_long"):
        store(str(folder), pair, "concat")


# -- elsewhere


def test_files_elsewhere_give_the_same(folder: Path) -> None:
    names = sorted(path.name for path in folder.iterdir())
    memory = fsspec.filesystem("memory")
    for name in names:
        memory.pipe_file(f"/kinds/{name}", (folder / name).read_bytes())
    for name in names:
        for ref in (AudioRef(path=name), AudioRef(path=name, start=0.3, seconds=0.5)):
            assert same(store("memory://kinds", (ref,)), store(str(folder), (ref,))), name
    with pytest.raises(Refused, match="audio_missing"):
        store("memory://kinds", (AudioRef(path="nothing"),))


def test_a_remote_recording_is_read_once_for_its_spans_unless_it_is_long(
    long: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsspec.filesystem("memory").pipe_file("/long/vorbis", (long / "vorbis").read_bytes())
    spans = [AudioRef(path="vorbis", start=float(start), seconds=1.0) for start in range(0, 16, 3)]
    wanted = [store(str(long), (span,)) for span in spans]
    reads, read_bytes = [], files.read_bytes
    monkeypatch.setattr(files, "read_bytes", lambda url: reads.append(url) or read_bytes(url))
    for limit, times in ((render.RECORDING, 1), (1000, 0)):
        monkeypatch.setattr(render, "RECORDING", limit)
        reads.clear()
        assert all(same(store("memory://long", (span,)), of) for span, of in zip(spans, wanted, strict=True))
        assert store("memory://long", (spans[0], spans[1]), "mix").samples == RATE
        assert len(reads) == times


def test_a_file_over_http_gives_the_same_and_its_loss_is_no_fault_of_the_file(folder: Path) -> None:
    class Server(SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(folder))  # type: ignore[arg-type]

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        root = f"http://127.0.0.1:{server.server_address[1]}"
        for name in ("flac", "vorbis", "wav", "webm"):
            assert same(store(root, (AudioRef(path=name),)), store(str(folder), (AudioRef(path=name),)))
        server.shutdown()

    class Failing(io.BytesIO):
        left = 60_000

        def read(self, size: int = -1) -> bytes:  # type: ignore[override]
            self.left -= size
            if self.left < 0:
                raise ConnectionResetError("the line is dead")
            return super().read(size)

    for name in ("flac24", "wav", "rf64"):
        data = (folder / name).read_bytes()
        with pytest.raises(ConnectionResetError), open_sound(Failing(data), name, len(data)) as sound:
            list(sound.blocks(0, None))


# -- memory

THREE_HOURS = """
import json, resource, sys
import numpy as np
from manifests import AudioRef, files
from shards.render import store

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
of = store(sys.argv[1], (AudioRef(path=sys.argv[2]),))
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([of.action, of.samples, before // 1024, after // 1024]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "hours", "rate"),
    [("a.flac", 2.99, RATE), ("b.flac", 1.9, RATE), ("c.wav", 2.99, 22050), ("d.wav", 1.9, 8000)],
)
def test_the_longest_clips_take_less_than_600_megabytes(tmp_path: Path, name: str, hours: float, rate: int) -> None:
    minute = (speech(60, rate) * 32767).astype(np.int16)
    with soundfile.SoundFile(tmp_path / name, "w", rate, 1, subtype="PCM_16") as file:
        for _ in range(round(hours * 60)):
            file.write(minute)
    child = [sys.executable, "-c", THREE_HOURS, str(tmp_path), name]
    made = subprocess.run(child, capture_output=True, text=True, check=True)
    action, count, before, after = json.loads(made.stdout)
    assert action == ("copy" if name.endswith("flac") else "transcode")
    assert count == pytest.approx(hours * 3600 * RATE, rel=0.01)
    print(f"{name}: {hours} h, {before} MB before, {after} MB at most")
    assert after < 600


def test_the_md5_is_taken_of_the_samples_and_not_of_a_view(folder: Path) -> None:
    pcm = np.arange(1000, dtype=np.int16)
    assert pcm_md5(pcm[::2]) == hashlib.md5(pcm[::2].astype("<i2").tobytes()).hexdigest()
    assert pcm_md5(pcm.astype(">i2")) == hashlib.md5(pcm.astype("<i2").tobytes()).hexdigest()
