"""The page of scores: the table is all there, how each is computed, and no text from outside becomes more than text."""

from __future__ import annotations

import base64
import hashlib
import html.parser
import random
import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from salmonn.scoring.answer import Answer
from salmonn.scoring.page import SAMPLES, render, samples, write_page
from salmonn.scoring.results import score_answers
from salmonn.scoring.table import rows

HOSTILE = [
    "<script>alert(1)</script>",
    "</style><script>alert(2)</script>",
    '"><img src=x onerror=alert(3)>',
    "{{ 7 * 7 }}{% include 'page.html.j2' %}",
    "javascript:alert(4)",
    "</bdi></dd></body></html><iframe src='https://evil.example'>",
    "\u202egnp.exe",
    "a\x00b\x1b[31m\u2028\ud800",
    "&lt;b&gt; &amp;amp;",
    "<!--",
    "]]>",
    "x" * 5000,
]
VOID = {"meta", "link", "br", "img"}


class Reader(html.parser.HTMLParser):
    """Collects tags, attributes and texts, and holds that every tag is closed."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.apart: list[str] = []
        """Texts whose direction is their own affair."""
        self.together: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.texts.append(data)
            (self.apart if "bdi" in self.open else self.together).append(data)


def answer(number: int, task: str = "gender_recognition", **more: object) -> Answer:
    told = {"key": f"k{number}", "corpus": "librispeech", "split": "test-clean", "prompt": "Who?", "answer": "Male"}
    return msgspec.convert({"task": task, "references": ["Male"], **told, **more}, Answer)


ROWS = [
    *[answer(n, finished=n > 1, cut=float(n == 3)) for n in range(9)],
    *[answer(n, "asr", answer="two words", references=["two words"]) for n in range(3)],
    *[answer(n, "spoken_query_qa", corpus="wikiqa", split="test", question="Why?") for n in range(2)],
    answer(0, "my_own"),
]


def page_of(answers: list[Answer]) -> str:
    return render(score_answers(answers), samples(answers))


def test_every_number_of_the_table_is_on_the_page_with_how_it_is_computed() -> None:
    results = score_answers(ROWS)
    page = page_of(ROWS)
    text = "\n".join(one.strip() for one in Reader(page).texts if one.strip())
    for row in rows(results):
        for said in (row.task, row.set, row.score, row.value, row.interval, row.without, row.with_, row.by, row.how):
            assert said in ("-", "") or said in text, said
        assert row.asked in text and row.made_of in text and row.note in text
    for word in ("ours", "w/o", "w/", "reference", "unfinished", "How computed", results.judge, "unfinished"):
        assert word in text
    for said in ("2.1", "Whisper", "there is no task 'my_own'"):
        assert said in text
    assert "1 clips were longer than 30 s" in text


def test_a_browser_loads_nothing_and_runs_nothing() -> None:
    page = page_of(ROWS)
    reader = Reader(page)
    assert page.lstrip().startswith("<!DOCTYPE html>") and not reader.open
    policy = next(a["content"] for tag, a in reader.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'") and "unsafe" not in policy
    [style] = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy and "url(" not in style and "@import" not in style
    assert not {tag for tag, _ in reader.tags} & {"script", "iframe", "img", "object", "embed", "form", "base", "svg"}
    for tag, attributes in reader.tags:
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "src", "action")]
        assert attributes.get("href") in (None, "data:,", "#scores", "#how", "#answers"), tag


def hostile_rows(texts: list[str]) -> list[Answer]:
    return [
        answer(
            number,
            task,
            key=f"{number}{whole}",
            corpus=whole[:100],
            split=whole[:100],
            prompt=whole,
            answer=text,
            references=[text, "b"],
            question=text,
            slot=whole,
            model=whole[:100],
        )
        for number, text in enumerate(texts)
        # No file of answers holds half a character; what a program of ours writes may.
        for whole in [text.replace("\ud800", "")]
        for task in ("audio_qa", "audio_story", "asr", whole[:100] or "none")
    ]


def test_hostile_texts_stay_texts() -> None:
    plain, page = Reader(page_of(hostile_rows(["x"]))), page_of(hostile_rows(HOSTILE))
    reader = Reader(page)
    assert {tag for tag, _ in reader.tags} == {tag for tag, _ in plain.tags}
    assert not re.search(r"<(script|img|iframe)", page) and page.count("</html>") == 1
    text = "".join(reader.texts)
    for said in HOSTILE[:5] + HOSTILE[8:11]:
        assert said in text, said
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u2028\ud800-\udfff]", page)
    assert "x" * 2001 not in text and "3,000 more characters" in text
    # A text that turns the direction of writing turns only its own.
    assert any("\u202e" in said for said in reader.apart) and not any("\u202e" in said for said in reader.together)


@given(st.lists(st.text(max_size=60), min_size=1, max_size=4, unique=True))
def test_no_text_breaks_the_page(texts: list[str]) -> None:
    reader = Reader(page_of(hostile_rows(texts)))
    assert not reader.open and not {tag for tag, _ in reader.tags} & {"script", "img", "iframe"}


def test_samples_are_the_same_in_any_order_and_for_every_model() -> None:
    both = ROWS + [msgspec.structs.replace(one, model="another", answer="No.") for one in ROWS]
    mixed = both[:]
    random.Random(3).shuffle(mixed)
    assert samples(mixed) == samples(both) and page_of(mixed) == page_of(both)
    drawn: dict[str, list[list[str]]] = {}
    for one in samples(both):
        assert len(one.answers) == min(one.count, SAMPLES)
        drawn.setdefault(one.task, []).append([each.key for each in one.answers])
    assert all(len(keys) == 2 and keys[0] == keys[1] for keys in drawn.values())


def test_the_file_is_the_page_of_a_folder(tmp_path: Path) -> None:
    for task in {one.task for one in ROWS}:
        lines = [msgspec.json.encode(one) + b"\n" for one in ROWS if one.task == task]
        (tmp_path / f"{task}.jsonl").write_bytes(b"".join(lines))
    write_page(score_answers(ROWS), tmp_path / "page.html", tmp_path)
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == page_of(ROWS)
    write_page(score_answers(ROWS), tmp_path / "page.html")
    assert 'id="answers"' not in (tmp_path / "page.html").read_text()


def test_the_command_writes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from salmonn.scoring.commands import score

    (tmp_path / "a.jsonl").write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in ROWS))
    score(str(tmp_path / "a.jsonl"), "", str(tmp_path / "page.html"), "", "")
    assert "the page is" in capsys.readouterr().out
    assert 'id="answers"' in (tmp_path / "page.html").read_text()
