"""What the audit says of the audio equals a loop over the index; bad audio shows, and can be seen and heard."""

from __future__ import annotations

import io
import itertools
import math
import re
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from audit_world import TEST, TRAIN, dataset_of, gate, look, recipe_of, rows_of
from shards.audit import audit, page, plots, spectrogram
from shards.audit.sections import extremes, licences, quality, speakers
from shards.flac import RATE
from shards.index import Dataset
from test_audit_page import Page, contrast, svg

GOOD = {
    "peak": 0.5,
    "clipped": 0.0,
    "dc": 0.001,
    "rms_dbfs": -22.0,
    "lufs": -23.0,
    "silence": 0.1,
    "leading_silence": 0.2,
    "trailing_silence": 0.2,
    "snr_db": 30.0,
    "bandwidth_hz": 7750.0,
    "all_zero": False,
}
UNMEASURED = {name: math.nan for name in GOOD} | {"all_zero": False}
ZERO = UNMEASURED | {"peak": 0.0, "clipped": 0.0, "dc": 0.0, "silence": 1.0, "leading_silence": 0.1, "all_zero": True}


def clips(count: int, **more: Any) -> list[dict[str, Any]]:
    return [{**GOOD, "asked": [("asr", "p", [f"word {n}"])], **more} for n in range(count)]


def drawn(count: int, seed: int) -> list[dict[str, Any]]:
    """Clips of all kinds of quality, some measures of which cannot be told."""
    dice = np.random.default_rng(seed)
    rows = []
    for n in range(count):
        made = {
            "peak": float(dice.choice([0.005, 0.3, 1.0])),
            "clipped": float(dice.choice([0, 0.0005, 0.002, 0.3])),
            "dc": float(dice.choice([-0.03, 0.0, 0.01, 0.5])),
            "lufs": float(dice.normal(-28, 14)),
            "silence": float(dice.random()),
            "leading_silence": float(dice.choice([0.0, 1.9, 2.5, 7.0])),
            "snr_db": float(dice.normal(20, 25)),
            "bandwidth_hz": float(dice.choice([500, 2000, 2125, 4250, 4375, 7375, 7500, 8000])),
        }
        made = {name: float(np.float32(math.nan if dice.random() < 0.1 else value)) for name, value in made.items()}
        if n % 9 == 8:
            made = {name: math.nan for name in made}
        rows.append({**GOOD, "rms_dbfs": -20.0, **made})
    return rows


BAD = {
    "all_zero": lambda row: row["all_zero"],
    "silent": lambda row: row["silence"] > 0.8,
    "half_silent": lambda row: row["silence"] > 0.4,
    "leading": lambda row: row["leading_silence"] > 2,
    "clipped": lambda row: row["clipped"] > 0.001,
    "faint": lambda row: row["peak"] < 0.01,
    "offset": lambda row: abs(row["dc"]) > 0.02,
    "quiet": lambda row: row["lufs"] < -45,
    "hum": lambda row: row["bandwidth_hz"] <= 2000,
    "telephone": lambda row: 2000 < row["bandwidth_hz"] <= 4250,
    "dull": lambda row: 4250 < row["bandwidth_hz"] < 7500,
}
"""In Python, nothing holds of what is not a number."""


@pytest.fixture(scope="module")
def varied(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    rows = {TRAIN: drawn(70, 1), TEST: drawn(30, 2), ("audiocaps", "train"): drawn(40, 3)}
    return dataset_of(tmp_path_factory.mktemp("varied"), rows)


def test_clips_are_counted_as_a_loop_would(varied: Dataset) -> None:
    found = look(quality, varied)
    assert len(found.splits) == 3
    for split in found.splits:
        mine = [row for row in rows_of(varied) if (row["corpus"], row["split"]) == (split.corpus, split.split)]
        assert (split.clips, split.measured) == (len(mine), sum(not math.isnan(row["peak"]) for row in mine))
        assert split.faults == {name: sum(bool(bad(row)) for row in mine) for name, bad in BAD.items()}
        assert split.trained == (split.split != "dev-clean")
        for name, median in split.medians.items():
            values = [row[name] for row in mine if not math.isnan(row[name])]
            assert median == pytest.approx(statistics.median(values), abs=1e-3)


def test_levels_are_counted_in_bins_that_take_what_lies_beyond(varied: Dataset) -> None:
    found = look(quality, varied)
    for levels, name in ((found.loudness, "lufs"), (found.noise, "snr_db")):
        inner = [-math.inf, *levels.edges[1:-1], math.inf]
        for bars in levels.bars:
            values = [row[name] for row in rows_of(varied) if row["corpus"] == bars.corpus]
            expected = [sum(low <= value < high for value in values) for low, high in itertools.pairwise(inner)]
            assert list(bars.counts) == expected


def test_the_worst_of_each_measure_are_listed(varied: Dataset) -> None:
    found = look(quality, varied).worst
    rows = rows_of(varied)
    ends = {
        "silence": lambda row: -row["silence"],
        "leading_silence": lambda row: -row["leading_silence"],
        "clipped": lambda row: -row["clipped"],
        "dc": lambda row: -abs(row["dc"]),
        "lufs": lambda row: row["lufs"],
        "loud": lambda row: -row["lufs"],
        "snr_db": lambda row: row["snr_db"],
        "bandwidth_hz": lambda row: row["bandwidth_hz"],
    }
    assert list(dict.fromkeys(clip.measure for clip in found)) == list(ends)
    for measure, end in ends.items():
        bad = sorted((end(row), row["key"]) for row in rows if not math.isnan(end(row)))[:5]
        assert [clip.key for clip in found if clip.measure == measure] == [key for _, key in bad]
        values = [abs(value) if measure in ("dc", "silence", "clipped") else value for value, _ in bad]
        told = [clip.value for clip in found if clip.measure == measure]
        assert [abs(value) for value in told] == pytest.approx([abs(value) for value in values], abs=1e-4)


@pytest.mark.parametrize(
    ("rows", "verdict", "says"),
    [
        (clips(30), "PASS", "All 30 clips were measured"),
        ([*clips(30), {**ZERO}], "FAIL", "nothing but zeros: 1, 1 of them in librispeech:train-clean-100"),
        ([*clips(30), {**UNMEASURED}], "WARN", "The audio of 1 of 31 clips was not measured"),
        ([{**UNMEASURED}] * 9, "WARN", "9 of 9 clips was not measured"),
        (
            [*clips(28), *clips(2, silence=0.9)],
            "WARN",
            "2 of 30 clips of librispeech:train-clean-100 (6.7%): more than 80%",
        ),
        ([*clips(50), *clips(1, silence=0.9)], "PASS", ""),
        ([*clips(10), *clips(20, silence=0.95)], "FAIL", "20 of 30 clips"),
        ([*clips(1), *clips(3, silence=0.95)], "WARN", "3 of 4 clips"),
        (clips(30, clipped=0.002), "WARN", "more than 0.1% of the samples clipped"),
        (clips(30, peak=0.002), "FAIL", "no sample above 1% of full scale"),
        (clips(30, dc=-0.1), "WARN", "a DC offset"),
        (clips(30, bandwidth_hz=3500.0), "WARN", "as by telephone"),
        # These may be of the matter: a tone, music without its top, noise, a long way to the first sound.
        (clips(30, bandwidth_hz=1500.0, snr_db=-20.0, leading_silence=3.0, lufs=-50.0), "PASS", ""),
        (clips(30, bandwidth_hz=7000.0, lufs=math.nan), "PASS", ""),
    ],
)
def test_audio_that_is_bad_is_told(tmp_path: Path, rows: Any, verdict: str, says: str) -> None:
    found = gate(quality, dataset_of(tmp_path, {TRAIN: rows}))
    assert found[0] == verdict
    assert says in found[1]


def test_zeros_to_evaluate_on_do_not_fail(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, {TRAIN: clips(20), TEST: [*clips(9), {**ZERO}]})
    assert gate(quality, dataset)[0] == "PASS"
    counted = {row.split: row.faults["all_zero"] for row in look(quality, dataset).splits}
    assert counted == {TRAIN[1]: 0, TEST[1]: 1}


def test_the_extremes_can_be_heard(tmp_path: Path) -> None:
    rows = clips(12, asked=[("asr", "p", ["one"])])
    rows[3] |= {"silence": 0.93, "leading_silence": 4.0}
    rows[5] |= {"lufs": -61.0}
    dataset = dataset_of(tmp_path, {TRAIN: rows})
    found = look(extremes, dataset, quality)
    keys = {measured.measure: one.clip.key for one in found for measured in one.measures}
    assert keys["silence"] == keys["leading_silence"] == f"librispeech_{TRAIN[1]}_c3"
    assert keys["lufs"] == f"librispeech_{TRAIN[1]}_c5"
    assert len({one.clip.key for one in found}) == len(found)
    worst = {clip.measure: clip.value for clip in reversed(look(quality, dataset).worst)}
    assert {measured.measure: measured.value for one in found for measured in one.measures} == worst
    for one in found:
        assert (one.clip.problem, one.clip.task) == ("", "asr")
        assert 0 < len(one.clip.mp3) <= extremes.MOST_MP3
    report = audit(dataset, recipe_of(dataset))
    text = page.render(report)
    assert report.extremes == found
    parsed = Page(text)
    images = [attributes for tag, attributes in parsed.tags if tag == "img"]
    assert len(images) == len(report.clips) + len(found)
    assert "most silence" in parsed.text
    assert spectrogram.HELP not in parsed.text


def test_without_librosa_the_page_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spectrogram, "installed", lambda: False)
    dataset = dataset_of(tmp_path, {TRAIN: clips(3)})
    report = audit(dataset, recipe_of(dataset))
    assert {clip.spectrogram for clip in report.clips} == {b""}
    parsed = Page(page.render(report))
    assert spectrogram.HELP in parsed.text
    assert "img" not in {tag for tag, _ in parsed.tags}


def tone(pitch: float, seconds: float = 2.0) -> np.ndarray[Any, Any]:
    return (np.sin(np.arange(round(seconds * RATE)) * 2 * np.pi * pitch / RATE) * 9000).astype(np.int16)


@pytest.mark.parametrize("pitch", [200.0, 1000.0, 5000.0])
def test_a_tone_is_bright_at_its_pitch(pitch: float) -> None:
    picture = spectrogram.spectrogram(np.concatenate([np.zeros(RATE, np.int16), tone(pitch)]))
    image = Image.open(io.BytesIO(picture))
    assert image.format == "PNG"
    assert (image.height, image.width <= spectrogram.WIDTH) == (spectrogram.BANDS, True)
    levels = np.asarray(image)
    assert levels[:, : image.width // 4].max() == 0
    steady = levels[:, image.width // 2 : -2]
    # Slaney's mel scale, as librosa has it: linear to 1 kHz, 15 mels there, then 27 for a factor of 6.4.
    mel = pitch * 3 / 200 if pitch < 1000 else 15 + math.log(pitch / 1000) * 27 / math.log(6.4)
    top = 15 + math.log(8) * 27 / math.log(6.4)
    bright = image.height - 1 - int(np.median(steady.argmax(axis=0)))
    assert abs(bright - (mel / top * (spectrogram.BANDS + 1) - 1)) <= 1
    assert steady.max() == spectrogram.SHADES - 1
    assert spectrogram.spectrogram(tone(pitch)) == spectrogram.spectrogram(tone(pitch))


def test_pictures_are_small_and_of_anything() -> None:
    noise = (np.random.default_rng(0).normal(size=30 * RATE) * 9000).clip(-32768, 32767).astype(np.int16)
    assert len(spectrogram.spectrogram(noise)) < 15_000
    assert spectrogram.spectrogram(np.zeros(0, np.int16)) == b""
    for samples in (1, 100, 5000):
        for pcm in (noise[:samples], np.zeros(samples, np.int16)):
            image = Image.open(io.BytesIO(spectrogram.spectrogram(pcm)))
            assert image.height == spectrogram.BANDS
            assert np.asarray(image).max() == (0 if not pcm.any() else spectrogram.SHADES - 1)


def test_a_palette_grows_brighter() -> None:
    colours = np.frombuffer(spectrogram.palette(), np.uint8).reshape(-1, 3).astype(float)
    assert len(colours) == spectrogram.SHADES
    brightness = colours @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(brightness) > 0).all()


def test_columns_are_as_high_as_their_shares() -> None:
    drawn_columns = svg(plots.columns([(0.5, "a & <b>"), (0.25, "c"), (0.0, "never")], 0.25, "#111111", "t", 40))
    rects = drawn_columns.findall("rect")
    assert [float(rect.get("height") or 0) for rect in rects] == [40, 20, 0]
    assert [rect.findtext("title") for rect in rects] == ["a & <b>", "c", "never"]
    line = drawn_columns.find("line")
    assert line is not None
    assert line.get("y1") == "20"
    svg(plots.columns([], 0.0, "#111111", "nothing"))


def test_levels_are_stacked() -> None:
    drawn_levels = svg(plots.levels([-8.0, -4.0, 0.0], [("one", [3, 0]), ("<b>", [1, 2])], "t", "dB"))
    titles = [rect.findtext("title") for rect in drawn_levels.findall(".//rect")]
    assert titles == ["one, -8 to -4 dB: 3", "<b>, -8 to -4 dB: 1", "<b>, -4 to 0 dB: 2"]
    heights = [float(rect.get("height") or 0) for rect in drawn_levels.findall(".//rect")]
    assert heights == pytest.approx([3 * heights[1], heights[1], 2 * heights[1]], abs=0.05)
    svg(plots.levels([0.0, 1.0], [], "nothing", "dB"))


def test_the_colours_of_these_sections_stand_out() -> None:
    css = (Path(page.__file__).parent / "page.css").read_text()
    light, dark = (dict(re.findall(r"--(\w+): (#\w{6})", part)) for part in css.split("@media")[:2])
    kinds = (fill for fill, _ in licences.KINDS.values())
    for colour in (speakers.FEMALE, speakers.MALE, speakers.UNKNOWN, *kinds):
        assert contrast(colour, light["page"]) >= 3
        assert contrast(colour, dark["page"]) >= 3
    shades = Counter(plots.shade(place) for place in range(len(plots.COLOURS)))
    assert shades == Counter(plots.COLOURS)


def test_corpora_without_a_colour_of_their_own_stand_together() -> None:
    counts = {f"corpus{n:02d}": [n, 1] for n in range(15)}
    bars = quality.levels((0, 1, 2), {name: list(held) for name, held in counts.items()}).bars
    assert len(bars) == len(plots.COLOURS)
    assert [bar.corpus for bar in bars[:-1]] == [f"corpus{n:02d}" for n in range(4, 15)]
    assert (bars[-1].corpus, bars[-1].counts) == ("others", (0 + 1 + 2 + 3, 4))
    assert len(quality.levels((0, 1, 2), dict(list(counts.items())[:12])).bars) == 12
