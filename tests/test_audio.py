"""Audio: what conforms is copied bit for bit, the rest is decoded, resampled and joined; what is damaged is refused."""

from __future__ import annotations

import contextlib
import hashlib
import io
import random
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from manifests import AudioRef, UserError
from shards.audio import (
    MAX_CHANNELS,
    REASONS,
    Refused,
    decode,
    encode,
    load_audio,
    pcm_md5,
    probe,
    read_flac,
    to_pcm,
)
from shards.flac import RATE, conforms, flac_info
from shards.render import SILENCE, Stored, joined, store

BROKEN = {"6385-220959-0000": "truncated", "7511-102419-0000": "zero_length", "0-errorpage_30": "not_audio"}
"""Files of the miniatures that are damaged on purpose, and what is wrong with them."""
REAL = "librispeech/LibriSpeech/test-clean/1089/134691/1089-134691-0000.flac"


@pytest.fixture(scope="module")
def flac(corpora: Path) -> bytes:
    """A real LibriSpeech file: 2.1 s, 16 kHz, mono, 16 bits."""
    return (corpora / REAL).read_bytes()


@pytest.fixture(scope="module")
def speech(flac: bytes) -> np.ndarray:
    return soundfile.read(io.BytesIO(flac), dtype="int16")[0]


def put(
    folder: Path, content: bytes | np.ndarray, name: str = "a.wav", rate: int = RATE, subtype: str = "PCM_16"
) -> AudioRef:
    """Write bytes, or samples as a sound file, and return the reference to all of it."""
    if isinstance(content, bytes):
        (folder / name).write_bytes(content)
    else:
        soundfile.write(folder / name, content, rate, subtype=subtype)
    return AudioRef(path=name)


def stored(folder: Path, *refs: AudioRef, join: str = "single") -> Stored:
    return store(str(folder), refs, join)  # type: ignore[arg-type]


def samples(of: Stored) -> np.ndarray:
    """Decode with soundfile alone."""
    pcm, rate = soundfile.read(io.BytesIO(of.flac), dtype="int16")
    assert rate == RATE
    assert pcm.ndim == 1
    assert len(pcm) == of.samples
    return pcm


def refusal(folder: Path, *refs: AudioRef) -> str:
    with pytest.raises(Refused) as refused:
        stored(folder, *refs)
    assert refused.value.reason in REASONS
    assert refs[0].path in refused.value.detail, "a refusal names the file"
    return refused.value.reason


def wav_header(*, rate: int = RATE, channels: int = 1, data: bytes = bytes(2000), claimed: int | None = None) -> bytes:
    """A 16-bit WAV file, written by hand, so that its header can lie."""
    size = len(data) if claimed is None else claimed
    form = struct.pack("<HHIIHH", 1, channels, rate, min(rate * channels * 2, 2**32 - 1), channels * 2, 16)
    return (
        b"RIFF"
        + struct.pack("<I", 36 + size)
        + b"WAVEfmt "
        + struct.pack("<I", 16)
        + form
        + b"data"
        + struct.pack("<I", size)
        + data
    )


def with_samples(flac: bytes, count: int) -> bytes:
    """A FLAC file whose header claims `count` samples."""
    packed = int.from_bytes(flac[18:26], "big") >> 36 << 36 | count
    return flac[:18] + packed.to_bytes(8, "big") + flac[26:]


# -- copies


def test_every_whole_file_of_librispeech_is_copied_bit_for_bit(corpora: Path) -> None:
    root = corpora / "librispeech"
    paths = [path for path in sorted(root.rglob("*.flac")) if path.stem not in BROKEN]
    assert len(paths) > 60
    for path in paths:
        of = stored(root, AudioRef(path=path.relative_to(root).as_posix()))
        assert of.flac == path.read_bytes()
        assert (of.action, of.source_rate) == ("copy", RATE)
        assert of.pcm_md5 == hashlib.md5(samples(of).astype("<i2").tobytes()).hexdigest()


def test_the_files_that_the_miniatures_hold_broken_are_refused(corpora: Path) -> None:
    for name, reason in BROKEN.items():
        (path,) = corpora.rglob(f"{name}.*")
        assert refusal(path.parent, AudioRef(path=path.name)) == reason


def test_the_header_of_a_flac_is_read_as_libsndfile_reads_it(corpora: Path) -> None:
    for path in sorted(corpora.rglob("*.flac")):
        info = flac_info(path.read_bytes())
        if path.stat().st_size == 0:
            assert info is None
            continue
        told = soundfile.info(path)
        assert info is not None
        assert (info.rate, info.channels, info.samples) == (told.samplerate, told.channels, told.frames)
        assert told.subtype == f"PCM_{info.bits}"


@pytest.mark.parametrize(
    ("rate", "channels", "subtype"),
    [(44100, 1, "PCM_16"), (16000, 2, "PCM_16"), (16000, 1, "PCM_24"), (16000, 1, "PCM_S8")],
)
def test_another_flac_is_not_copied(tmp_path: Path, rate: int, channels: int, subtype: str) -> None:
    wave = np.random.default_rng(0).normal(0, 0.1, (4000, channels))
    ref = put(tmp_path, wave, "a.flac", rate, subtype)
    assert not conforms(flac_info((tmp_path / "a.flac").read_bytes()))
    assert stored(tmp_path, ref).action == "transcode"


def test_a_flac_without_a_signature_is_encoded_anew_with_one(tmp_path: Path, flac: bytes, speech: np.ndarray) -> None:
    of = stored(tmp_path, put(tmp_path, flac[:26] + bytes(16) + flac[42:], "a.flac"))
    assert of.action == "transcode"
    assert np.array_equal(samples(of), speech)


def test_a_flac_of_unknown_length_is_whole_audio(tmp_path: Path, flac: bytes, speech: np.ndarray) -> None:
    # RFC 9639: 0 samples in the header means unknown, as encoders that write to a pipe leave it.
    of = stored(tmp_path, put(tmp_path, with_samples(flac, 0), "a.flac"))
    assert np.array_equal(samples(of), speech)


# -- damage


def test_a_flipped_bit_in_the_audio_is_refused(tmp_path: Path, flac: bytes) -> None:
    chance = random.Random(0)
    begins = len(flac) - 30_000
    for _ in range(60):
        hurt = bytearray(flac)
        hurt[chance.randrange(begins, len(flac))] ^= 1 << chance.randrange(8)
        assert refusal(tmp_path, put(tmp_path, bytes(hurt), "a.flac")) in ("md5_mismatch", "corrupt", "truncated")


def test_a_wrong_signature_is_refused(tmp_path: Path, flac: bytes) -> None:
    assert refusal(tmp_path, put(tmp_path, flac[:30] + b"\0" + flac[31:], "a.flac")) == "md5_mismatch"


def test_a_flac_cut_anywhere_is_refused(tmp_path: Path, flac: bytes) -> None:
    chance = random.Random(1)
    for length in [1, 3, 4, 41, 42, 43, len(flac) - 1, *(chance.randrange(1, len(flac)) for _ in range(100))]:
        reason = refusal(tmp_path, put(tmp_path, flac[:length], "a.flac"))
        assert reason in ("not_audio", "truncated", "corrupt", "md5_mismatch")


def test_a_cut_in_the_middle_is_called_truncated(tmp_path: Path, flac: bytes) -> None:
    assert refusal(tmp_path, put(tmp_path, flac[: len(flac) // 2], "a.flac")) == "truncated"


def test_a_flac_that_is_cut_and_must_be_decoded_is_refused_too(tmp_path: Path, speech: np.ndarray) -> None:
    put(tmp_path, np.stack([speech, speech], 1), "whole.flac", 22050)
    whole = (tmp_path / "whole.flac").read_bytes()
    for length in random.Random(2).sample(range(100, len(whole)), 30):
        assert refusal(tmp_path, put(tmp_path, whole[:length], "a.flac")) in ("not_audio", "truncated", "corrupt")


@pytest.mark.parametrize("rate", [16000, 44100])
def test_a_wav_that_ends_before_its_header_says_is_refused(tmp_path: Path, speech: np.ndarray, rate: int) -> None:
    put(tmp_path, speech, "whole.wav", rate)
    whole = (tmp_path / "whole.wav").read_bytes()
    for length in (len(whole) // 2, len(whole) - 2):
        assert refusal(tmp_path, put(tmp_path, whole[:length])) == "truncated"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "zero_length"),
        (b"<!DOCTYPE html><html><body>429 Too Many Requests</body></html>", "not_audio"),
        (b"fLaC", "not_audio"),
        (b"RIFF", "not_audio"),
        (bytes(10_000), "not_audio"),
        (wav_header(data=b""), "no_samples"),
        (wav_header(rate=1), "sample_rate"),
        (wav_header(rate=1_000_000), "sample_rate"),
        (wav_header(rate=3_999), "sample_rate"),
        (wav_header(channels=17, data=bytes(3400)), "channels"),
        (wav_header(channels=1024, data=bytes(20480)), "channels"),
    ],
)
def test_what_is_no_usable_audio_has_its_own_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    assert refusal(tmp_path, put(tmp_path, content)) == reason


@pytest.mark.parametrize("rate", [4_000, 192_000])
def test_the_outermost_rates_are_taken(tmp_path: Path, rate: int) -> None:
    assert stored(tmp_path, put(tmp_path, wav_header(rate=rate))).samples == pytest.approx(1000 * RATE / rate, abs=1)


@pytest.mark.parametrize("conforming", [True, False])
def test_a_header_that_claims_the_longest_flac_costs_no_memory(tmp_path: Path, flac: bytes, conforming: bool) -> None:
    lie = with_samples(flac, 2**36 - 1)
    if not conforming:
        lie = lie[:26] + bytes(16) + lie[42:]
    assert refusal(tmp_path, put(tmp_path, lie, "a.flac")) == "too_long"


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_refused(tmp_path: Path, wrong: float) -> None:
    wave = np.zeros(100_000, np.float32)
    wave[90_000] = wrong
    assert refusal(tmp_path, put(tmp_path, wave, subtype="FLOAT")) == "not_finite"


def test_a_file_that_is_gone_is_refused_as_missing(tmp_path: Path) -> None:
    assert refusal(tmp_path, AudioRef(path="nowhere/a.flac")) == "audio_missing"


def test_noise_in_any_container_is_refused_or_decoded_but_never_a_crash(tmp_path: Path, corpora: Path) -> None:
    chance = random.Random(3)
    wholes = [
        path.read_bytes()
        for path in sorted(corpora.rglob("*"))
        if path.suffix in (".ogg", ".mp3", ".wav") and path.stat().st_size < 70_000
    ]
    for number in range(40):
        hurt = bytearray(wholes[number % len(wholes)])
        begin = chance.randrange(len(hurt))
        hurt[begin : begin + 200] = chance.randbytes(len(hurt[begin : begin + 200]))
        with contextlib.suppress(Refused):
            assert len(samples(stored(tmp_path, put(tmp_path, bytes(hurt), "a.bin"))))


# -- transcoding

RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)


@pytest.mark.parametrize("rate", RATES)
def test_any_rate_comes_out_with_the_length_and_shape_of_an_independent_resampler(
    tmp_path: Path, speech: np.ndarray, rate: int
) -> None:
    import torch
    from torchaudio.functional import resample

    of = stored(tmp_path, put(tmp_path, speech, rate=rate))
    assert (of.action, of.source_rate) == ("transcode", rate)
    ours = samples(of).astype(np.float64)
    assert abs(len(ours) - round(len(speech) * RATE / rate)) <= 1
    theirs = resample(torch.from_numpy(speech / 32768).float(), rate, RATE).numpy()
    shorter = min(len(ours), len(theirs))
    assert np.corrcoef(ours[:shorter], theirs[:shorter])[0, 1] > 0.99
    assert np.abs(ours[:shorter] / 32768 - theirs[:shorter]).max() < 0.05


@given(rate=st.sampled_from(RATES), count=st.integers(5, 200_000))
def test_the_length_is_within_one_sample_of_the_exact_one(rate: int, count: int) -> None:
    sink = io.BytesIO()
    soundfile.write(sink, np.zeros(count, np.int16), rate, format="WAV")
    wave, told = decode(sink.getvalue(), AudioRef(path="a.wav"))
    assert told == rate
    assert abs(len(wave) - round(count * RATE / rate)) <= 1


@pytest.mark.parametrize("suffix", ["ogg", "mp3", "flac", "wav"])
def test_real_sound_of_every_container_decodes_as_soundfile_and_torchaudio_have_it(corpora: Path, suffix: str) -> None:
    import torch
    from torchaudio.functional import resample

    root = corpora / "audiocaps" / "audio" / "train"
    path = min((p for p in root.glob(f"*.{suffix}") if "errorpage" not in p.name), key=lambda p: p.stat().st_size)
    wave, rate = soundfile.read(path, dtype="float32", always_2d=True)
    of = stored(root, AudioRef(path=path.name))
    ours, theirs = samples(of) / 32768, resample(torch.from_numpy(wave.mean(1)), rate, RATE).numpy()
    assert abs(len(ours) - len(theirs)) <= 1
    shorter = min(len(ours), len(theirs))
    assert np.corrcoef(ours[:shorter], theirs[:shorter])[0, 1] > 0.99
    assert of.source_rate == rate


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_sixteen_bits_at_sixteen_kilohertz_survive_any_container(
    tmp_path: Path, speech: np.ndarray, subtype: str
) -> None:
    exact = speech / 32768 if subtype in ("FLOAT", "DOUBLE") else speech
    of = stored(tmp_path, put(tmp_path, exact, subtype=subtype))
    assert np.array_equal(samples(of), speech)
    assert of.action == "transcode"


@given(st.lists(st.integers(-32768, 32767), min_size=1, max_size=200))
def test_encoding_is_lossless_and_signs_what_it_holds(values: list[int]) -> None:
    pcm = np.array(values, np.int16)
    data = encode(pcm)
    info = flac_info(data)
    assert info is not None
    assert conforms(info)
    assert info.samples == len(pcm)
    assert info.md5 == pcm_md5(pcm) == hashlib.md5(pcm.astype("<i2").tobytes()).hexdigest()
    assert np.array_equal(soundfile.read(io.BytesIO(data), dtype="int16")[0], pcm)
    assert np.array_equal(read_flac(data, "a"), pcm)
    assert data == encode(pcm)


@given(st.lists(st.integers(-32768, 32767), min_size=1, max_size=50))
def test_samples_that_went_through_floats_are_the_same(values: list[int]) -> None:
    pcm = np.array(values, np.int16)
    assert np.array_equal(to_pcm(pcm.astype(np.float32) / np.float32(32768)), pcm)


def test_loud_waves_are_clipped_and_never_wrap() -> None:
    assert to_pcm(np.array([2.0, -2.0, 1.0, -1.0, 0.99999], np.float32)).tolist() == [
        32767,
        -32768,
        32767,
        -32768,
        32767 + 1 - 1,
    ]


def test_a_stored_clip_signs_its_samples_and_is_the_same_each_time(tmp_path: Path, speech: np.ndarray) -> None:
    ref = put(tmp_path, speech, rate=44100)
    of = stored(tmp_path, ref)
    info = flac_info(of.flac)
    assert info is not None
    assert of.pcm_md5 == info.md5 == pcm_md5(samples(of))
    assert of == stored(tmp_path, ref)
    # once stored, a clip conforms: storing it again changes no byte
    again = stored(tmp_path, put(tmp_path, of.flac, "again.flac"))
    assert (again.action, again.flac) == ("copy", of.flac)


# -- channels, gain, spans


def stereo(folder: Path, rate: int = RATE) -> tuple[AudioRef, np.ndarray]:
    wave = (np.random.default_rng(0).integers(-9000, 9000, (8000, 2)) * 2).astype(np.int16)
    return put(folder, wave, rate=rate), wave


def test_without_a_choice_the_mean_of_the_channels_is_taken(tmp_path: Path) -> None:
    ref, wave = stereo(tmp_path)
    assert np.array_equal(samples(stored(tmp_path, ref)), wave.mean(1))


@pytest.mark.parametrize("channel", [0, 1])
def test_a_channel_that_is_named_is_taken(tmp_path: Path, channel: int) -> None:
    ref, wave = stereo(tmp_path)
    assert np.array_equal(samples(stored(tmp_path, AudioRef(path=ref.path, channel=channel))), wave[:, channel])


def test_a_channel_that_is_not_there_is_refused(tmp_path: Path, flac: bytes) -> None:
    assert refusal(tmp_path, AudioRef(path=stereo(tmp_path)[0].path, channel=2)) == "channels"
    put(tmp_path, flac, "mono.flac")
    assert refusal(tmp_path, AudioRef(path="mono.flac", channel=1)) == "channels"


def test_sixteen_channels_are_taken(tmp_path: Path) -> None:
    wave = np.tile(np.arange(100, dtype=np.int16)[:, None], (1, MAX_CHANNELS))
    assert np.array_equal(samples(stored(tmp_path, put(tmp_path, wave))), wave[:, 0])


@pytest.mark.parametrize("gain", [0.5, 1.0, 2.0, -1.0, 0.0])
def test_gain_is_a_factor_and_clips(tmp_path: Path, gain: float) -> None:
    wave = np.arange(-20000, 20000, 8, dtype=np.int16)
    ref = AudioRef(path=put(tmp_path, wave).path, gain=gain)
    assert np.array_equal(samples(stored(tmp_path, ref)), np.clip(wave * gain, -32768, 32767))


@given(start=st.integers(0, 7999), length=st.none() | st.integers(1, 8000))
def test_a_span_is_a_slice(start: int, length: int | None, spans: Path) -> None:
    wave = soundfile.read(spans / "a.wav", dtype="int16")[0]
    ref = AudioRef(path="a.wav", start=start / RATE, seconds=None if length is None else length / RATE)
    # A span may be longer than the file: then it ends with it.
    wanted = wave[start:] if length is None else wave[start : start + length]
    of = stored(spans, ref)
    assert np.array_equal(samples(of), wanted)
    assert of.action == ("transcode" if start == 0 and length is None else "render")


@pytest.fixture(scope="module")
def spans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spans")
    put(folder, np.random.default_rng(1).integers(-30000, 30000, 8000).astype(np.int16))
    return folder


def test_a_span_of_a_conforming_file_is_cut_to_the_sample(tmp_path: Path, flac: bytes, speech: np.ndarray) -> None:
    put(tmp_path, flac, "a.flac")
    of = stored(tmp_path, AudioRef(path="a.flac", start=0.25, seconds=1.0))
    assert of.action == "render"
    assert np.array_equal(samples(of), speech[4000:20000])


@pytest.mark.parametrize(
    "ref", [AudioRef(path="a.wav", start=0.5), AudioRef(path="a.wav", start=99), AudioRef(path="a.wav", seconds=0.0)]
)
def test_a_span_without_samples_is_refused(spans: Path, ref: AudioRef) -> None:
    assert refusal(spans, ref) == "no_samples"


# -- joins


def test_a_concatenation_has_a_tenth_of_a_second_of_silence_between(tmp_path: Path) -> None:
    waves = [np.full(count, value, np.int16) for count, value in [(300, 1000), (200, -2000), (100, 3000)]]
    refs = [put(tmp_path, wave, f"{number}.wav") for number, wave in enumerate(waves)]
    silence = np.zeros(1600, np.int16)
    assert SILENCE == 1600
    of = stored(tmp_path, *refs, join="concat")
    assert np.array_equal(samples(of), np.concatenate([waves[0], silence, waves[1], silence, waves[2]]))
    assert of.action == "render"


def test_a_mixture_is_the_sum_and_as_long_as_its_longest(tmp_path: Path) -> None:
    short, long = np.full(300, 1000, np.int16), np.arange(1000, dtype=np.int16)
    refs = put(tmp_path, short, "0.wav"), put(tmp_path, long, "1.wav")
    expected = long.copy()
    expected[:300] += 1000
    for order in (refs, refs[::-1]):
        assert np.array_equal(samples(stored(tmp_path, *order, join="mix")), expected)


def test_the_same_file_may_stand_twice_with_other_spans_and_gains(spans: Path) -> None:
    wave = soundfile.read(spans / "a.wav", dtype="int16")[0]
    refs = AudioRef(path="a.wav", seconds=0.1), AudioRef(path="a.wav", start=0.1, seconds=0.05, gain=0.5)
    of = stored(spans, *refs, join="concat")
    expected = np.concatenate([wave[:1600], np.zeros(1600), np.rint(wave[1600:2400] * 0.5)])
    assert np.array_equal(samples(of), expected)


@given(st.lists(st.integers(1, 500), min_size=1, max_size=4), st.sampled_from(["concat", "mix"]))
def test_the_length_of_a_join_is_the_sum_with_its_silences_or_the_longest(counts: list[int], join: str) -> None:
    parts = [np.array_split(np.ones(count, np.float32), 1 + count % 3) for count in counts]
    wave = np.concatenate(list(joined(parts, join)))  # type: ignore[arg-type]
    expected = max(counts) if join == "mix" else sum(counts) + SILENCE * (len(counts) - 1)
    assert len(wave) == expected
    assert wave.sum() == sum(counts)


def test_one_bad_file_of_a_join_refuses_the_clip_by_name(tmp_path: Path, flac: bytes) -> None:
    put(tmp_path, flac, "good.flac")
    put(tmp_path, flac[:10_000], "bad.flac")
    with pytest.raises(Refused, match=r"bad\.flac"):
        stored(tmp_path, AudioRef(path="good.flac"), AudioRef(path="bad.flac"), join="mix")


# -- the other doors


def test_probe_says_what_the_header_claims_and_never_raises(tmp_path: Path, flac: bytes, speech: np.ndarray) -> None:
    put(tmp_path, flac, "a.flac")
    assert probe(str(tmp_path / "a.flac"), len(flac)) == pytest.approx(len(speech) / RATE)
    for content in (b"", b"<html>", wav_header(rate=1), wav_header(channels=17), with_samples(flac, 2**36 - 1)):
        put(tmp_path, content, "b.bin")
        assert probe(str(tmp_path / "b.bin"), len(content)) == 0
    assert probe(str(tmp_path / "nowhere"), 5) == 0


def test_a_user_s_own_file_is_loaded_or_told_in_one_sentence(tmp_path: Path, flac: bytes, speech: np.ndarray) -> None:
    put(tmp_path, flac, "a.flac")
    wave = load_audio(str(tmp_path / "a.flac"))
    assert wave.dtype == np.float32
    assert np.array_equal(wave, speech / np.float32(32768))
    put(tmp_path, b"<html>", "b.flac")
    for name, told in [("b.flac", "no decoder recognizes"), ("nowhere.flac", "No such file"), ("", "directory")]:
        with pytest.raises(UserError, match=told):
            load_audio(str(tmp_path / name))
