"""`salmonn peek`: what it says of a sample, that no text does anything to a terminal, and the sounds that it writes."""

from __future__ import annotations

import ast
import io
import os
import re
import shutil
import stat
import subprocess
import sys
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import browsed
from browsed import HOSTILE, rows_of
from manifests import Failed, UserError
from shards import Dataset, peek
from shards.audio import encode
from shards.browsing import facts, sounds
from shards.flac import RATE
from shards.quality import Quality, measure

TOP = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("peeked") / "dataset"
    browsed.write(str(place))
    return place


@pytest.fixture(scope="module")
def rows(folder: Path) -> list[dict]:
    return rows_of(Dataset(folder))


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What goes to a terminal of 80 columns, colours and all."""
    sink = io.StringIO()
    terminal = Console(file=sink, force_terminal=True, highlight=False, soft_wrap=True, width=80)
    monkeypatch.setattr(peek, "console", terminal)
    return sink


def test_the_command_shows_a_sample_and_writes_it(folder: Path, rows: list[dict], tmp_path: Path) -> None:
    row = next(row for row in rows if row["speaker"] == "spk/7" and row["gender"] == "female" and row["text"])
    flac, sound = tmp_path / "one.flac", tmp_path / "one.wav"
    command = ["peek", folder, row["key"], "--audio", flac, "--wav", sound]
    done = subprocess.run(
        [sys.executable, "-m", "salmonn.cli", *map(str, command)], capture_output=True, text=True, cwd=TOP, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    for words in (row["id"], "spk/7", "female", row["shard"], f"{row['seconds']:.3f} s", row["pcm_md5"]):
        assert words in done.stdout
    assert row["prompts"][0] in done.stdout
    with wave.open(str(sound)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16_000, 1, 2)
        pcm = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    assert np.array_equal(pcm, soundfile.read(flac, dtype="int16")[0]) and len(pcm) == row["samples"]
    stored = (folder / row["shard"]).read_bytes()[row["flac_offset"] :][: row["flac_bytes"]]
    assert flac.read_bytes() == stored


def test_without_a_key_it_shows_the_first_of_each_split(folder: Path, printed: io.StringIO) -> None:
    peek.peek(str(folder), "")
    assert re.findall(r"\n?\x1b\[1m(\w+_ab_000-x)\x1b\[0m\n", printed.getvalue()) == [
        "librispeech_ab_000-x", "wavcaps_ab_000-x", "covost2_ab_000-x",
    ]  # fmt: skip
    for option in ("audio", "wav"):
        with pytest.raises(UserError, match=rf"--{option} needs the KEY"):
            peek.peek(str(folder), "", **{option: Path("x")})
    with pytest.raises(UserError, match="--play needs the KEY"):
        peek.peek(str(folder), "", play=True)
    with pytest.raises(UserError, match="did you mean 'covost2_ab_000-x'"):
        peek.peek(str(folder), "covost2_ab_000-y")


def test_no_text_from_data_means_anything_to_the_terminal(folder: Path, rows: list[dict], printed: io.StringIO) -> None:
    shown = [row for row in rows if row["text"] in HOSTILE or "owned" in "".join(row["prompts"])]
    assert len(shown) > 9
    for row in shown:
        peek.peek(str(folder), row["key"])
    told = printed.getvalue()
    # All that rich itself writes is bold, on and off.
    assert "\x1b" not in told.replace("\x1b[1m", "").replace("\x1b[0m", "")
    assert not set(told) & {"\x07", "\x00", "\x85", "\u202e", "\u2066", "\t", "\r"}
    written = (r"\x1b]0;owned\x07 \x1b[31mred", r"\u202eright to left\u2066", r"line\nbreak\ttab \x00nul \x85")
    for words in ("[bold]loud[/bold]", *written):
        assert words in told, words


@given(st.text())
def test_what_is_visible_is_one_plain_line_that_tells_what_was_there(text: str) -> None:
    told = facts.visible(text)
    assert told.isprintable() or not any(c in told for c in "\n\r\t\x1b\x9b\x07\u202e\u2028")
    assert len(told.splitlines()) <= 1
    undone = re.sub(r"\\(x..|u....|n|r|t)", lambda found: str(ast.literal_eval(f'"{found[0]}"')), told)
    assert undone == text or "\\" in text


def test_bars_follow_the_sound() -> None:
    quiet, loud = np.zeros(RATE, np.int16), np.full(RATE, 20_000, np.int16)
    ramp = (np.linspace(0, 1, 8 * RATE) * 30_000).astype(np.int16)
    assert peek.bars(np.concatenate([quiet, loud]), 10) == " " * 5 + "\u2588" * 5
    steps = [peek.BARS.index(mark) for mark in peek.bars(ramp, 64)]
    assert steps == sorted(steps) and set(steps) == set(range(1, 9))
    # Whatever is not silence is seen beside what is much louder; on terminals of ASCII, too.
    faint = np.concatenate([quiet, np.full(RATE, 1, np.int16), loud])
    assert peek.bars(faint, 3) == " \u2581\u2588" and peek.bars(faint, 3, plain=True) == " .#"
    assert peek.bars(quiet[:0], 4) == peek.bars(quiet, 4) == "    "


@given(st.integers(1, 400), st.integers(1, 200))
def test_bars_are_as_many_as_asked_whatever_the_length(samples: int, width: int) -> None:
    made = peek.bars(np.full(samples, -9, np.int16), width)
    assert made == "\u2588" * width


@given(st.lists(st.integers(-32768, 32767), max_size=300), st.integers(1, 50))
def test_peaks_are_the_ends_of_each_stretch(samples: list[int], count: int) -> None:
    made = sounds.peaks(np.array(samples, np.int16), count)
    assert len(made) == min(len(samples), count)
    if samples:
        assert min(low for low, _ in made) == round(min(samples) * 1000 / 32768)
        assert max(high for _, high in made) == round(max(samples) * 1000 / 32768)


def test_every_measure_of_quality_is_told_in_words() -> None:
    pcm = np.concatenate([np.zeros(4000, np.int16), np.tile(np.array([32767, 32767, -32768, -32768], np.int16), 4000)])
    row = {name: getattr(measure(pcm), name) for name in Quality.__struct_fields__}
    told = dict(facts.quality_of(row))
    assert told["peak"] == "1.000 of full scale (0.0 dB)" and told["clipped"] == "80% of the samples"
    assert told["silence before"] == "0.24 s" and told["silent"] == "19% of the time"
    unknown = {name: getattr(Quality(), name) for name in Quality.__struct_fields__}
    assert {text for _, text in facts.quality_of(unknown)} == {"cannot be told"}
    assert len(facts.quality_of(unknown)) == len(Quality.__struct_fields__) - 1
    silent = dict(facts.quality_of({name: getattr(measure(pcm[:4000]), name) for name in Quality.__struct_fields__}))
    assert silent["sound"] == "none: every sample is zero"
    assert facts.quality_of({}) == ()


@pytest.fixture
def player(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """A function that puts a program that plays sounds on the PATH, which has no other."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def put(name: str, script: str) -> None:
        place = tmp_path / name
        place.write_text(f"#!{sys.executable}\nimport sys\n{script}\n")
        place.chmod(place.stat().st_mode | stat.S_IXUSR)

    return put


def test_it_plays_by_what_is_there(
    folder: Path, rows: list[dict], tmp_path: Path, player: Callable[[str, str], None], printed: io.StringIO
) -> None:
    row = rows[1]
    with pytest.raises(UserError, match=r"none of ffplay, paplay, aplay, afplay is on the PATH; --wav"):
        peek.peek(str(folder), row["key"], play=True)
    # This one finds no device, and says so; ffplay would end with 0.
    player("ffplay", "sys.exit(print('Audio open failed: no \\x1b device', file=sys.stderr))")
    with pytest.raises(Failed, match=r"cannot play the sound \(ffplay: Audio open failed: no .* device\); --wav"):
        peek.peek(str(folder), row["key"], play=True)
    kept = tmp_path / "played.wav"
    player("aplay", f"open({str(kept)!r}, 'wb').write(open(sys.argv[-1], 'rb').read()); print(sys.argv[1:-1])")
    peek.peek(str(folder), row["key"], play=True)
    assert np.array_equal(soundfile.read(kept, dtype="int16")[0], sounds.pcm_of(str(folder), row))
    player("aplay", "sys.exit(3)")
    with pytest.raises(Failed, match=r"ffplay: .*; aplay: exit code 3"):
        peek.peek(str(folder), row["key"], play=True)


def test_a_damaged_sound_is_told_beside_the_facts(
    folder: Path, rows: list[dict], tmp_path: Path, printed: io.StringIO
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    row = rows[2]
    with open(copy / row["shard"], "r+b") as file:
        file.seek(row["flac_offset"] + 60)
        file.write(b"damage")
    peek.peek(str(copy), row["key"])
    told = printed.getvalue()
    assert "its bytes are not those that were written" in told and "salmonn verify" in told and row["id"] in told
    with pytest.raises(Failed, match="not those that were written"):
        peek.peek(str(copy), row["key"], wav=tmp_path / "x.wav")
    assert not (tmp_path / "x.wav").exists()
    os.unlink(copy / row["shard"])
    with pytest.raises(Failed, match="cannot be read: No such file"):
        peek.peek(str(copy), row["key"], wav=tmp_path / "x.wav")


def test_a_wav_of_any_samples_is_what_others_read() -> None:
    for pcm in (np.zeros(0, np.int16), np.array([1, -32768, 32767], np.int16), np.arange(-9, 9, dtype=np.int16)):
        read, rate = soundfile.read(io.BytesIO(peek.to_wav(pcm)), dtype="int16")
        assert rate == RATE and np.array_equal(read, pcm)
    assert encode(pcm)[:4] == b"fLaC"
