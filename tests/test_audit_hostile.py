"""Two hundred hostile texts in every text of a report: a browser finds nothing in the page that acts."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any

import msgspec
import pytest

from browser import find, open_page
from shards.audit import Report, audit
from shards.audit.page import render
from test_audit import build, clean, recipe_of

# A browser is no part of a fresh machine; the parser of tests/test_audit_page.py judges the same page without one.
needs_browser = pytest.mark.skipif(find() is None, reason="there is no Chromium on this machine")

ACTS = (
    "<script>window.hit=1</script>",
    "<img src=x onerror=window.hit=1>",
    "<svg onload=window.hit=1>",
    "<a href=javascript:window.hit=1>x</a>",
    "<iframe srcdoc='<script>parent.hit=1</script>'></iframe>",
    "<body onload=window.hit=1>",
    "<input autofocus onfocus=window.hit=1>",
    "<details open ontoggle=window.hit=1>x</details>",
    "<object data=javascript:window.hit=1></object>",
    "<meta http-equiv=refresh content='0;url=javascript:window.hit=1'>",
    "<base href=//evil.example/>",
    "<link rel=stylesheet href=//evil.example/x.css>",
    "<form action=javascript:window.hit=1><button>x</button></form>",
    "<math><mtext></mtext><script>window.hit=1</script></math>",
    "<style>*{background:url(//evil.example/x)}</style>",
    "<video><source onerror=window.hit=1></video>",
    "<svg><animate onbegin=window.hit=1 attributeName=x dur=1s>",
    "<svg><a xlink:href=javascript:window.hit=1><text>x</text></a></svg>",
    "javascript:window.hit=1",
    "<template><script>window.hit=1</script></template>",
)
BREAKS = ("", '">', "'>", "</title></style></script>", "</bdi></td></table>", "-->", "]]>", "</text></svg>", '" ', "' ")
"""What ends the place that a text stands in: each before each of the acts."""
HOSTILE = tuple(f"{before}{act}" for before, act in itertools.product(BREAKS, ACTS))

FOUND = """(() => {
  const bad = [];
  if (window.hit) bad.push('a script ran');
  for (const node of document.querySelectorAll('*')) {
    const tag = node.localName;
    if (/^(script|iframe|object|embed|base|form|input|button|template|animate|math)$/.test(tag)) bad.push(tag);
    for (const { name, value } of node.attributes) {
      if (name.startsWith('on')) bad.push(tag + ' ' + name);
      const points = /^(xlink:)?href$|^src$|^srcdoc$|^action$|^data$/.test(name);
      if (points && !/^(#[\\w-]+|data:(,|audio|image\\/png).*)$/s.test(value))
        bad.push(tag + ' ' + name + '=' + value.slice(0, 60));
    }
  }
  return bad;
})()"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A report with every section, as plain values."""
    folder = tmp_path_factory.mktemp("hostile")
    world = clean()
    before = build(folder / "before", world)
    world.clips["librispeech", "train-clean-100"].pop()
    world.clips["librispeech", "train-clean-100"][0].asked[0][2][0] = "something else"
    world.refused = [("audiocaps", "train", "audiocaps/x", "excluded", "audio_missing", "gone")]
    world.skipped, world.tools = {"asr": {"no_text": 2}}, {"tool": "1.0"}
    made = audit(build(folder / "now", world), recipe_of(samples=25, hours=0.001), other=before)
    made = msgspec.structs.replace(made, clips=made.clips[:3])
    plain: dict[str, Any] = msgspec.to_builtins(made, builtin_types=(bytes,))
    return plain


def poisoned(value: Any, texts: dict[str, str], shift: int, inside: str = "") -> Any:
    """Return plain values with each text replaced, and always by the same one, so that what belongs together does."""
    if isinstance(value, dict):
        names = {name: poisoned(name, texts, shift) if inside in FREE else name for name in value}
        return {names[name]: poisoned(one, texts, shift, name) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [poisoned(one, texts, shift) for one in value]
    if isinstance(value, str) and value not in ("PASS", "WARN", "FAIL", ""):
        return texts.setdefault(value, f"{HOSTILE[(len(texts) + shift) % len(HOSTILE)]} {len(texts)}")
    return value


FREE = ("reasons", "tools", "asr", "skipped", "refused")
"""Fields whose names come from the data."""


async def look(report: dict[str, Any], shifts: range, folder: Path) -> tuple[set[str], list[str], list[str], list[str]]:
    """Return the hostile texts that were shown, and what acted, was asked of the network or complained of."""
    shown: set[str] = set()
    acted: list[str] = []
    path = folder / "page.html"
    path.write_text("<!DOCTYPE html><title>none</title>")
    async with open_page(path.as_uri(), folder / "profile") as page:
        for shift in shifts:
            texts: dict[str, str] = {}
            made = msgspec.convert(poisoned(report, texts, shift), Report)
            path.write_text(render(made), encoding="utf-8")
            await page.call("Page.navigate", url=f"{path.as_uri()}?{shift}")
            await page.until(f"location.search === '?{shift}' && document.readyState === 'complete'")
            acted += await page.js(FOUND)
            said = await page.js("document.documentElement.textContent")
            shown |= {text for text in texts.values() if text in said}
        asked = [url for url in page.asked if not url.startswith(("file:", "data:"))]
        return shown, acted, asked, page.complaints


@needs_browser
@pytest.mark.parametrize("shifts", [range(0, 200, 40), pytest.param(range(200), marks=pytest.mark.slow)])
def test_no_text_acts(report: dict[str, Any], shifts: range, tmp_path: Path) -> None:
    assert len(set(HOSTILE)) == 200
    shown, acted, asked, complaints = asyncio.run(look(report, shifts, tmp_path))
    # Not one is cut off or lost on the way: each of the two hundred is read somewhere, as a text.
    assert {text.rpartition(" ")[0] for text in shown} == set(HOSTILE)
    assert acted == [] and asked == [] and complaints == []


@needs_browser
def test_the_look_would_find_what_acts(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<!DOCTYPE html><title>x</title>" + "".join(ACTS))

    async def find_them() -> list[str]:
        async with open_page((tmp_path / "page.html").as_uri(), tmp_path / "profile") as page:
            await page.until("document.readyState === 'complete'")
            found: list[str] = await page.js(FOUND)
            return found

    found = asyncio.run(find_them())
    assert "a script ran" in found and {"script", "iframe", "form", "base"} <= set(found)
    assert any("onerror" in one for one in found) and any("javascript:" in one for one in found)
