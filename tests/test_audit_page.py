"""The page of the audit: nothing in the data can act on its reader, and it says what audit.json says."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from manifests import Recipe
from manifests.recipe import Row
from shards.audit import Report, audit, figures, page, plots, write
from shards.audit.digits import LONGEST_TEXT, shown
from shards.audit.report import FORMAT
from shards.audit.sections import clips as listen
from shards.audit.sections import targets
from shards.flac import RATE
from test_audit import Made, World, build, clean, recipe_of

HOSTILE = (
    "<script>alert(1)</script>",
    "</script><script src=//evil.example/x.js></script>",
    '" onmouseover="alert(1)" x="',
    "' onfocus='alert(1)' autofocus='",
    "</details></pre></style></title><img src=x onerror=alert(1)>",
    '<a href="javascript:alert(1)">click</a>',
    "javascript:alert(1)",
    "{{ report.sql }}{% raw %}<%= 7 * 7 %>${7*7}",
    "<svg/onload=alert(1)>",
    "<!-- <![CDATA[ ]]> -->&lt;b&gt;&#x3C;i&#x3E;",
    "\x00\x1b[31m\x08\u202egnp.exe\u2066 \ufeff",
    "<meta http-equiv=refresh content=0;url=//evil.example><base href=//evil.example>",
    "]]></data><data value=666>666</data>",
)
VOID = {"meta", "link", "br", "img"}


class Page(HTMLParser):
    """A page as a parser sees it: tags with attributes, text, and whether all that is opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.figures: list[tuple[str, str]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs)
        self.tags.append((tag, dict(attrs)))
        if tag == "data":
            self.figures.append((dict(attrs)["value"] or "", ""))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "data":
            value, text = self.figures[-1]
            self.figures[-1] = (value, text + data)
        if "style" not in self.open:
            self.text += data


def hostile(texts: tuple[str, ...]) -> World:
    """A world in which every text that can come from outside is one of `texts`."""
    clips = [
        Made(name=f"h{n}", asked=[("asr", text, [text, *texts]), ("gender_recognition", text, [text])], license=text)
        for n, text in enumerate(texts)
    ]
    return World(
        clips={("librispeech", "dev-clean"): clips},
        refused=[("librispeech", "dev-clean", text, "quarantined", text, text) for text in texts],
        title=texts[0],
        tools={text: text for text in texts},
        skipped={"asr": {text: 1 for text in texts}},
        terms=texts[1],
    )


def dev_recipe(title: str = "t") -> Recipe:
    rows = tuple(Row(task=t, corpus="librispeech", splits=("dev-clean",)) for t in ("asr", "gender_recognition"))
    return Recipe(title=title, name=title, instruct=rows)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, str, bytes]:
    folder = tmp_path_factory.mktemp("page")
    world = clean()
    world.refused = [("audiocaps", "train", "audiocaps/x", "excluded", "audio_missing", "gone")]
    world.skipped = {"asr": {"no_text": 2}}
    report = audit(build(folder, world), recipe_of(samples=25, hours=0.001))
    write(report, folder / "audit.html", folder / "audit.json")
    return report, (folder / "audit.html").read_text(encoding="utf-8"), (folder / "audit.json").read_bytes()


def test_hostile_texts_stay_texts(tmp_path: Path) -> None:
    # The audit tells of control characters, and of prompts of four words or more that hold their answer: so have these.
    odd = {7: "harmless: one of many words", 10: "harmless\x1b 10"}
    harmless = tuple(odd.get(n, f"harmless {n}") for n in range(len(HOSTILE)))
    pages = []
    for name, texts in (("hostile", HOSTILE), ("harmless", harmless)):
        report = audit(build(tmp_path / name, hostile(texts)), dev_recipe(texts[2]))
        pages.append(Page(page.render(report)))
        assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report
    attacked, twin = pages
    for tag, attributes in attacked.tags:
        assert tag not in {"script", "iframe", "object", "embed", "base", "form"}
        assert tag != "img" or re.fullmatch(r"data:image/png;base64,[A-Za-z0-9+/=]+", attributes["src"] or "")
        for name, value in attributes.items():
            assert not name.startswith("on")
            assert "javascript:" not in (value or "")
            if name in ("href", "src"):
                assert value is not None
                assert re.fullmatch(r"#\w+|data:,|data:(audio/mpeg|image/png);base64,[A-Za-z0-9+/=]+", value)
    # The very same elements with the very same names of attributes: no text became a part of the page.
    shape = [(tag, sorted(attributes)) for tag, attributes in attacked.tags]
    assert shape == [(tag, sorted(attributes)) for tag, attributes in twin.tags]
    for text in HOSTILE:
        assert shown(text) in attacked.text
    assert "\x1b" not in attacked.text


def test_the_page_needs_no_network_and_runs_nothing(written: tuple[Report, str, bytes]) -> None:
    report, text, _ = written
    parsed = Page(text)
    [policy] = [a["content"] for tag, a in parsed.tags if tag == "meta" and a.get("http-equiv")]
    assert policy == page.POLICY
    assert policy.startswith("default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'")
    assert not {tag for tag, _ in parsed.tags} & {"script", "iframe", "object", "embed", "form", "base"}
    assert "http://" not in text
    assert "https://" not in text
    assert "@import" not in text
    assert "url(" not in text
    assert len(report.clips) == 10
    assert sum(tag == "audio" for tag, _ in parsed.tags) == 10 + len(report.extremes)


def test_the_page_is_made_of_the_json_alone(written: tuple[Report, str, bytes]) -> None:
    report, text, numbers = written
    assert json.loads(numbers)["format"] == FORMAT
    again = msgspec.json.decode(numbers, type=Report)
    assert again == report
    assert page.render(again) == text


def leaves(value: Any) -> list[Any]:
    """All numbers in a JSON value, and the lengths of its lists."""
    if isinstance(value, dict):
        return [leaf for one in value.values() for leaf in leaves(one)]
    if isinstance(value, list):
        return [len(value), *(leaf for one in value for leaf in leaves(one))]
    return [value] if isinstance(value, int | float) else []


def test_every_figure_of_the_page_is_in_the_json(written: tuple[Report, str, bytes]) -> None:
    report, text, numbers = written
    known = set(leaves(json.loads(numbers)))
    read = Page(text).figures
    assert len(read) > 150
    kinds = ("hours", "seconds", "share", "change", "bytes", "count", "tenths", "ratio", "number", "limit")
    for value, said in read:
        assert json.loads(value) in known
        assert said in {figures.spoken(json.loads(value), kind) for kind in kinds}
    # Where they stand: the shares of the first row of the mixture, in its row.
    assert report.mixture[0].mixture is not None
    share = report.mixture[0].mixture.shares[0]
    row = re.search(r'<section id="mixture">.*?<tbody>\s*<tr>(.*?)</tr>', text, re.DOTALL)
    assert row is not None
    cells = dict(re.findall(r'data-label="([a-z ]+)"><data value="([^"]+)"', row[1]))
    assert {name: json.loads(value) for name, value in cells.items()} == {
        "weight": share.weight,
        "intended": share.intended,
        "of examples": share.by_examples,
        "of audio": share.by_seconds,
        "of tokens": share.by_tokens,
        "examples": share.examples,
        "draws": share.draws,
        "audio": share.hours,
        "tokens": share.tokens,
        "epochs": share.epochs,
    }


def test_the_largest_page_is_below_five_megabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = "word <&\"'> " * 500
    clips = [Made(name=f"n{n}", asked=[("asr", long, [f"{k}{long}" for k in range(30)])] * 2) for n in range(12)]
    world = World(
        clips={("librispeech", "dev-clean"): clips},
        refused=[("librispeech", "dev-clean", f"{n}{long}", "quarantined", "corrupt", long) for n in range(30)],
    )
    dataset = build(tmp_path, world)
    monkeypatch.setattr(listen, "excerpt", lambda pcm, most=None: (bytes(most or listen.MOST_MP3), pcm))
    report = audit(dataset, dev_recipe())
    write(report, tmp_path / "a.html", tmp_path / "a.json")
    assert len(report.clips) == 10
    assert (tmp_path / "a.html").stat().st_size < 5_000_000
    assert (tmp_path / "a.json").stat().st_size < 5_000_000


def test_a_clip_that_does_not_fit_is_shortened(monkeypatch: pytest.MonkeyPatch) -> None:
    pcm = (np.random.default_rng(0).normal(size=8 * RATE) * 9000).astype(np.int16)
    whole, _ = listen.excerpt(pcm)
    monkeypatch.setattr(listen, "MOST_MP3", len(whole) - 1)
    mp3, heard = listen.excerpt(pcm)
    assert len(heard) == 4 * RATE
    assert 0 < len(mp3) < len(whole)
    for samples in (1, 7, 200):
        assert listen.excerpt(pcm[:samples])[0]
        assert len(listen.peaks(pcm[:samples])) == min(samples, listen.PEAKS)


def test_texts_are_cut_and_said_to_be() -> None:
    assert shown("a\nb\x00c") == "a b c"
    assert shown("x" * LONGEST_TEXT) == "x" * LONGEST_TEXT
    assert shown("x" * 1000) == "x" * LONGEST_TEXT + "... (1000 characters)"


@pytest.mark.parametrize(
    ("value", "kind", "said"),
    [
        (4361.2, "hours", "4,361 h"),
        (1.5, "hours", "1.5 h"),
        (0.05, "hours", "3.0 min"),
        (0.01, "hours", "36.0 s"),
        (0, "hours", "0 s"),
        (99.96, "hours", "100 h"),
        (0.99999, "hours", "1.0 h"),
        (2_300_000, "count", "2,300,000"),
        (0.4, "share", "40.0%"),
        (0.0001, "share", "<0.1%"),
        (0.99999, "share", ">99.9%"),
        (1.0, "share", "100%"),
        (-0.1, "change", "\u221210.0%"),
        (0.1, "change", "+10.0%"),
        (0.0, "change", "0%"),
        (1_500_000, "bytes", "1.5 MB"),
        (999, "bytes", "999 B"),
        (7.25, "ratio", "7.25"),
        (30.0, "limit", "30 s"),
    ],
)
def test_numbers_are_read_as_people_write_them(value: float, kind: str, said: str) -> None:
    assert figures.spoken(value, kind) == said


def svg(text: str) -> ET.Element:
    return ET.fromstring(text)


def test_a_bar_is_as_wide_as_its_parts() -> None:
    drawn = svg(plots.bar([(2, "#111111", "a & <b>"), (0, "#222222", "none"), (6, "#333333", "c")], "title <x>"))
    assert drawn.findtext("title") == "title <x>"
    rects = drawn.findall("rect")
    assert [(rect.get("x"), rect.get("width")) for rect in rects] == [("0%", "25%"), ("25%", "75%")]
    assert [rect.findtext("title") for rect in rects] == ["a & <b>", "c"]
    assert svg(plots.bar([(0, "#111111", "nothing")], "empty")).findall("rect") == []


def test_a_histogram_stacks_its_series() -> None:
    drawn = svg(plots.histogram([0.0, 1.0, 2.0], [("asr", [3, 0, 1]), ("<b>", [5, 2, 0])], "t"))
    rects = drawn.findall(".//rect")
    assert [rect.findtext("title") for rect in rects] == [
        "asr, 0 to 1 s: 3",
        "<b>, 0 to 1 s: 5",
        "<b>, 1 to 2 s: 2",
        "asr, 2 or more s: 1",
    ]
    heights = [float(rect.get("height") or 0) for rect in rects]
    unit = heights[0] / 3
    assert heights == pytest.approx([3 * unit, 5 * unit, 2 * unit, unit], abs=0.05)
    tops = [float(rect.get("y") or 0) for rect in rects]
    assert tops[1] == pytest.approx(tops[0] - heights[1], abs=0.02)
    svg(plots.histogram([0.0, 1.0], [("asr", [0, 0])], "nothing"))


def test_a_waveform_is_as_high_as_its_peaks() -> None:
    drawn = svg(plots.waveform([0, 100, 50], "#111111", "w"))
    path = drawn.find("path")
    assert path is not None
    heights = [float(height) for height in re.findall(r"v([\d.]+)", path.get("d") or "")]
    assert heights == pytest.approx([0.8, 47, 23.5], abs=0.01)
    svg(plots.waveform([], "#111111", "nothing"))


def luminance(colour: str) -> float:
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_colours_stand_out_from_light_and_dark() -> None:
    css = (Path(page.__file__).parent / "page.css").read_text()
    light, dark = (dict(re.findall(r"--(\w+): (#\w{6})", part)) for part in css.split("@media")[:2])
    for colour in {*plots.COLOURS, targets.PACKED, targets.QUARANTINED, targets.EXCLUDED, plots.colour("unknown")}:
        assert contrast(colour, light["page"]) >= 3
        assert contrast(colour, dark["page"]) >= 3
    for theme in (light, dark):
        for ink in ("ink", "soft"):
            assert contrast(theme[ink], theme["page"]) >= 4.5
            assert contrast(theme[ink], theme["panel"]) >= 4.5
    for tone in ("pass", "warn", "fail"):
        assert contrast(light[tone], "#ffffff") >= 4.5
    assert len(set(plots.COLOURS)) == len(plots.COLOURS)
