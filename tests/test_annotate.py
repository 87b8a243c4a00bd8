"""Annotating with a model behind a server that misbehaves: all requests counted, none asked twice, no secret told."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from chat_server import Endpoint, completion, serving
from manifests import Failed, UserError, load_corpus
from manifests.annotations import Annotations
from manifests.chat import LARGEST, Limits, address_of, retry_after
from manifests.join import join
from pipelines.annotate import annotate, annotate_by_rule, path_of, price
from pipelines.annotate_commands import annotate as command
from pipelines.annotate_commands import splits_of
from pipelines.ask import describe, key_of, parse
from pipelines.journal import open_journal

SECRET = "sk-a-secret-that-nobody-may-see"
QUICK = Limits(parallel=4, retries=3, timeout=5.0, backoff=0.01)
SOURCES = [("librispeech", "dev-clean")]


def right(asked: dict[str, Any]) -> bytes:
    """An answer in the right form that depends on what was asked."""
    word = asked["messages"][1]["content"].split()[-1]
    return completion({"questions": [{"question": f"Is {word} said?", "answer": "Yes."}]})


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    """A model on this machine, and the token for it in the environment."""
    monkeypatch.setenv("SALMONN_API_KEY", SECRET)
    with serving(lambda _, asked: (200, {}, right(asked))) as server:
        yield server


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, corpora: Path) -> Path:
    """A folder with twenty transcripts, each another, and the miniature of AudioCaps."""
    root = tmp_path_factory.mktemp("root")
    write_tree(root, [f"MISTER QUILTER SAW {'TWO ' * number}BOYS NUMBER{number}" for number in range(20)])
    (root / "raw" / "audiocaps").symlink_to(corpora / "audiocaps", target_is_directory=True)
    return root


def write_tree(root: Path, lines: list[str]) -> None:
    """Write transcripts as LibriSpeech publishes them."""
    folder = root / "raw/librispeech/LibriSpeech"
    (folder / "dev-clean/1/2").mkdir(parents=True)
    (folder / "SPEAKERS.TXT").write_text("1    | F | dev-clean        | 1.00 | A\n")
    text = "".join(f"1-2-{number:04d} {line}\n" for number, line in enumerate(lines))
    (folder / "dev-clean/1/2/1-2.trans.txt").write_text(text)


def texts(root: Path) -> list[str]:
    clips = load_corpus("librispeech").clips(root / "raw" / "librispeech", "dev-clean")
    return [describe(clip) for clip in clips]


def run(root: Path, out: Path, endpoint: Endpoint, **more: Any) -> Any:
    options: dict[str, Any] = {"endpoint": endpoint.url, "model": "m", "count": 3, "limits": QUICK} | more
    return annotate(SOURCES, str(root), str(out), **options)


def rows(out: Path) -> list[dict[str, str]]:
    return json.loads(out.read_text())["annotation"]


def test_every_clip_is_asked_about_once_and_never_again(root: Path, tmp_path: Path, endpoint: Endpoint) -> None:
    out = tmp_path / "qa" / "librispeech.json"
    made = run(root, out, endpoint)
    count = len(texts(root))
    assert made.requests == len(endpoint.asked) == made.annotated == made.pairs == count
    first = endpoint.asked[0]
    assert (first["model"], first["temperature"]) == ("m", 0)
    assert sorted(asked["messages"][1]["content"] for asked in endpoint.asked) == sorted(texts(root))
    assert {head["Authorization"] for head in endpoint.heads} == {f"Bearer {SECRET}"}
    assert {head["path"] for head in endpoint.heads} == {"/v1/chat/completions"}
    content = out.read_bytes()
    assert rows(out)[0] == {
        "path": "librispeech/LibriSpeech/dev-clean/1/2/1-2-0000.flac",
        "text": "Yes.",
        "task": "QA",
        "Q": f"Is {texts(root)[0].split()[-1]} said?",
        "clip": "librispeech/1-2-0000",
    }
    again = run(root, out, endpoint)
    assert again.requests == 0 and len(endpoint.asked) == count and again.plan.known == count
    assert out.read_bytes() == content
    # Another model or another number of questions is another question.
    assert run(root, tmp_path / "qa" / "librispeech.json", endpoint, model="n").requests == count
    assert run(root, tmp_path / "qa" / "librispeech.json", endpoint, count=2).requests == count


def test_what_is_written_joins_its_clips(root: Path, tmp_path: Path, endpoint: Endpoint) -> None:
    run(root, tmp_path / "a.json", endpoint)
    clips = list(load_corpus("librispeech").clips(root / "raw" / "librispeech", "dev-clean"))
    made, report = join(clips, Annotations.read([str(tmp_path / "a.json")]), ("speech_qa",))
    assert report.joined == len(clips) and report.unjoined == 0
    assert all(len(clip.questions) == 1 for clip in made)


def test_a_server_that_fails_now_and_then_is_asked_again(root: Path, tmp_path: Path, endpoint: Endpoint) -> None:
    troubles = [
        (500, {}, b"boom"),
        (429, {"Retry-After": "0.3"}, b"slow down"),
        (503, {}, b"<html>busy</html>"),
        (0, {}, b""),
        (200, {}, b"not json"),
        (200, {}, b'{"choices": []}'),
        (502, {"Retry-After": "soon"}, b""),
    ]
    count = len(texts(root))
    endpoint.script = lambda number, asked: troubles[number] if number < len(troubles) else (200, {}, right(asked))
    made = run(root, tmp_path / "a.json", endpoint)
    assert made.pairs == count and not made.failed
    assert len(endpoint.asked) == made.requests == count + len(troubles)


def test_retry_after_holds_every_request(root: Path, tmp_path: Path, endpoint: Endpoint) -> None:
    endpoint.script = lambda number, asked: (429, {"Retry-After": "1"}, b"") if number == 0 else (200, {}, right(asked))
    run(root, tmp_path / "a.json", endpoint, limits=Limits(parallel=1, backoff=0.01))
    assert endpoint.times[1] - endpoint.times[0] >= 1.0


def test_a_wrong_answer_is_told_what_is_wrong_then_counted(root: Path, tmp_path: Path, endpoint: Endpoint) -> None:
    stubborn = texts(root)[2]
    seen: set[str] = set()

    def script(_: int, asked: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        described = asked["messages"][1]["content"]
        if described == stubborn:
            return 200, {}, completion({"questions": [{"question": "Q?", "answer": ""}]})
        if described in seen:
            return 200, {}, right(asked)
        seen.add(described)
        return 200, {}, completion("Sure! Here are your questions: ...")

    endpoint.script = script
    made = run(root, tmp_path / "a.json", endpoint)
    count = len(texts(root))
    assert made.failed == {"wrong_answer": 1} and made.pairs == count - 1
    assert made.requests == 2 * (count - 1) + 3
    assert "librispeech/1-2-0002: wrong_answer: Expected `str` of length >= 1" in made.examples[0]
    second = next(asked for asked in endpoint.asked if len(asked["messages"]) == 4)
    assert second["messages"][2]["role"] == "assistant" and "malformed" in second["messages"][3]["content"]
    assert not [row for row in rows(tmp_path / "a.json") if row["clip"].endswith("1-2-0002")]
    # It is not asked again, unless that is wanted.
    asked_before = len(endpoint.asked)
    assert run(root, tmp_path / "a.json", endpoint).failed == {"wrong_answer": 1}
    assert len(endpoint.asked) == asked_before
    endpoint.script = lambda _, asked: (200, {}, right(asked))
    made = run(root, tmp_path / "a.json", endpoint, again=True)
    assert made.requests == 1 and made.pairs == count and not made.failed


def test_a_refused_text_is_counted_and_asked_again_next_time(root: Path, tmp_path: Path, endpoint: Endpoint) -> None:
    long = texts(root)[1]
    endpoint.script = lambda _, asked: (
        (400, {}, b"too long") if asked["messages"][1]["content"] == long else (200, {}, right(asked))
    )
    made = run(root, tmp_path / "a.json", endpoint)
    assert made.failed == {"http_400": 1} and "too long" in made.examples[0]
    endpoint.script = lambda _, asked: (200, {}, right(asked))
    assert run(root, tmp_path / "a.json", endpoint).requests == 1


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_wrong_token_or_address_stops_at_once(root: Path, tmp_path: Path, endpoint: Endpoint, status: int) -> None:
    endpoint.script = lambda *_: (status, {}, f"Incorrect API key provided: {SECRET}".encode())
    with pytest.raises(UserError, match=f"answers {status}") as caught:
        run(root, tmp_path / "a.json", endpoint)
    assert len(endpoint.asked) <= QUICK.parallel
    assert SECRET not in str(caught.value) and "***" in str(caught.value)
    assert not (tmp_path / "a.json").exists()


def test_a_server_that_is_down_stops_the_run_and_keeps_what_it_said(
    root: Path, tmp_path: Path, endpoint: Endpoint
) -> None:
    endpoint.script = lambda number, asked: (200, {}, right(asked)) if number < 5 else (503, {}, b"down")
    with pytest.raises(Failed, match=r"in a row got no answer, the last for http_503: down; 5 of"):
        run(root, tmp_path / "a.json", endpoint, limits=Limits(parallel=2, retries=1, backoff=0.001))
    endpoint.script = lambda _, asked: (200, {}, right(asked))
    assert run(root, tmp_path / "a.json", endpoint).requests == len(texts(root)) - 5


def test_a_redirect_is_not_followed(root: Path, tmp_path: Path, endpoint: Endpoint) -> None:
    endpoint.script = lambda *_: (307, {"Location": f"{endpoint.url}/elsewhere"}, b"")
    with pytest.raises(Failed, match="http_307"):
        run(root, tmp_path / "a.json", endpoint)
    assert {head["path"] for head in endpoint.heads} == {"/v1/chat/completions"}


def test_slow_and_endless_responses_are_given_up(root: Path, tmp_path: Path, endpoint: Endpoint) -> None:
    def script(number: int, asked: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        if number == 0:
            time.sleep(0.6)
        return 200, {}, right(asked) if number else b" " * (3 * LARGEST)

    endpoint.script = script
    made = run(root, tmp_path / "a.json", endpoint, limits=Limits(parallel=1, retries=2, timeout=0.3, backoff=0.01))
    assert made.pairs == len(texts(root)) and made.requests == made.pairs + 1
    endpoint.asked.clear()
    endpoint.script = lambda number, asked: (200, {}, right(asked) if number else b" " * (3 * LARGEST))
    made = run(root, tmp_path / "b.json", endpoint)
    assert made.pairs == len(texts(root)) and made.requests == made.pairs + 1


def test_rate_and_concurrency_are_held(root: Path, tmp_path: Path, endpoint: Endpoint) -> None:
    def slow(_: int, asked: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        time.sleep(0.03)
        return 200, {}, right(asked)

    endpoint.script = slow
    run(root, tmp_path / "a.json", endpoint, limits=Limits(parallel=3))
    assert endpoint.most == 3
    endpoint.times.clear()
    run(root, tmp_path / "b.json", endpoint, limits=Limits(parallel=8, per_minute=1200))
    gaps = [later - earlier for earlier, later in zip(endpoint.times, endpoint.times[1:], strict=False)]
    # 0.05 s apart when sent; what arrives has been through two schedulers.
    assert sum(gaps) >= 0.05 * len(gaps) - 0.04
    assert endpoint.most <= 8


def test_texts_alike_are_asked_about_once(tmp_path: Path, endpoint: Endpoint) -> None:
    write_tree(tmp_path / "root", ["THE SAME", "THE SAME", "ANOTHER"])
    made = run(tmp_path / "root", tmp_path / "a.json", endpoint)
    assert (made.requests, made.pairs, made.annotated) == (2, 3, 3)


KILLED = """
import sys
from pipelines.annotate_commands import annotate
annotate(["librispeech:dev-clean"], sys.argv[1], sys.argv[2], endpoint=sys.argv[3], model="m", parallel=2)
"""


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT])
def test_killed_and_run_again_it_asks_only_what_is_left(
    root: Path, tmp_path: Path, endpoint: Endpoint, blow: signal.Signals
) -> None:
    enough = threading.Event()

    def script(number: int, asked: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        time.sleep(0.02 if number < 7 else 30 if not enough.is_set() else 0)
        return 200, {}, right(asked)

    endpoint.script = script
    out = tmp_path / "a.json"
    command = [sys.executable, "-c", KILLED, str(root), str(out), endpoint.url]
    with subprocess.Popen(command, stdout=-1, stderr=-1, text=True, env=dict(os.environ)) as process:
        journal = tmp_path / "a.json.journal.jsonl"
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and (not journal.exists() or journal.read_bytes().count(b"\n") < 6):
            time.sleep(0.01)
        process.send_signal(blow)
        told = "".join(process.communicate(timeout=30))
    assert SECRET not in told + journal.read_text()
    assert process.returncode != 0 and not out.exists()
    kept = journal.read_bytes().count(b"\n")
    assert kept >= 6
    with open(journal, "ab") as file:
        file.write(b'{"key":"torn')
    enough.set()
    endpoint.script = lambda _, asked: (200, {}, right(asked))
    made = run(root, out, endpoint)
    count = len(texts(root))
    assert made.plan.known == kept and made.requests == count - kept and made.pairs == count
    run(root, tmp_path / "whole.json", endpoint)
    assert out.read_bytes() == (tmp_path / "whole.json").read_bytes()


def test_the_secret_is_nowhere(
    root: Path, tmp_path: Path, endpoint: Endpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    def script(number: int, _: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        if number % 3 == 0:
            return 500, {"X-Token": SECRET}, SECRET.encode()
        if number % 3 == 1:
            return 400, {}, SECRET.encode()
        escaped = "".join(f"\\u{ord(sign):04x}" for sign in SECRET)
        told = f'{{"questions": [{{"question": "What is {SECRET}?", "answer": "{escaped}"}}]}}'
        return 200, {}, completion(told)

    endpoint.script = script
    out = tmp_path / "a.json"
    command(["librispeech:dev-clean"], str(root), str(out), endpoint.url, "m", parallel=1, retries=0)
    printed = capsys.readouterr()
    written = "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    assert "***" in written and "http_400" in printed.out
    assert SECRET not in written + printed.out + printed.err


def test_dry_run_asks_and_writes_nothing_and_prices_what_is_left(
    root: Path, tmp_path: Path, endpoint: Endpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "a.json"
    options = {"endpoint": endpoint.url, "model": "m", "dry_run": True, "price_in": 1000.0, "price_out": 2000.0}
    command(["librispeech:dev-clean"], str(root), str(out), **options)
    count, plan = len(texts(root)), price(SOURCES, str(root), str(out), "m", 3)
    told = capsys.readouterr().out
    cost = (plan.tokens_in * 1000 + plan.tokens_out * 2000) / 1e6
    assert f"{count} requests" in told and f"about {cost:,.2f} at 1000 and 2000" in told
    assert not endpoint.asked and not out.parent.exists()
    run(root, out, endpoint)
    sent = sum(len(message["content"]) for asked in endpoint.asked for message in asked["messages"])
    assert plan.tokens_in == sent // 4
    left = price(SOURCES, str(root), str(out), "m", 3)
    assert (left.requests, left.known, left.tokens_in, left.tokens_out) == (0, count, 0, 0)
    command(["librispeech:dev-clean"], str(root), str(out), dry_run=True)
    assert "no request" in capsys.readouterr().out


def test_without_an_endpoint_questions_are_made_by_rule(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.json"
    command(["librispeech:dev-clean", "audiocaps"], str(root), str(out))
    assert f"{out} written" in capsys.readouterr().out
    first = out.read_bytes()
    made = annotate_by_rule([*SOURCES, *splits_of(["audiocaps"], str(root))], str(root), str(out))
    assert out.read_bytes() == first and made.pairs == len(rows(out)) > made.annotated > 0
    assert {row["task"] for row in rows(out)} == {"QA"}
    assert {row["clip"].split("/")[0] for row in rows(out)} == {"librispeech", "audiocaps"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"endpoint": "http://x/v1"}, "--model"),
        ({"model": "m"}, "--endpoint"),
        ({"endpoint": "ftp://x/v1", "model": "m"}, "https://host/v1"),
        ({"endpoint": "http://[x", "model": "m"}, "no address"),
        ({"endpoint": "https://me:pass@host/v1", "model": "m"}, "SALMONN_API_KEY"),
        ({"endpoint": "https://host/v1?key=pass", "model": "m"}, "SALMONN_API_KEY"),
        ({"questions": 0}, "1 to 20"),
        ({"parallel": 0}, "--parallel is 0"),
        ({"retries": -1}, "--retries is -1"),
        ({"per_minute": -1.0}, "--per-minute"),
        ({"price_in": float("nan")}, "--price-in"),
        ({"timeout": 0.0}, "--timeout"),
    ],
)
def test_mistakes_are_told_and_write_nothing(root: Path, tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)) as caught:
        command(["librispeech:dev-clean"], str(root), str(tmp_path / "a.json"), **options)
    assert "pass" not in str(caught.value) and not list(tmp_path.iterdir())


def test_more_mistakes(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = str(tmp_path / "a.json")
    with pytest.raises(UserError, match="did you mean 'dev-clean'"):
        command(["librispeech:dev-claen"], str(root), out)
    with pytest.raises(UserError, match="there is no folder"):
        command(["librispeech"], str(tmp_path), out)
    with pytest.raises(UserError, match="local path"):
        annotate(SOURCES, str(root), "memory://a.json", endpoint="http://x", model="m")
    monkeypatch.setenv("SALMONN_API_KEY", "two\nlines")
    with pytest.raises(UserError, match="SALMONN_API_KEY") as caught:
        annotate(SOURCES, str(root), out, endpoint="http://x", model="m")
    assert "lines" not in str(caught.value)


def test_a_journal_has_one_writer_and_strange_lines_are_told(tmp_path: Path) -> None:
    place = tmp_path / "j.jsonl"
    with (
        open_journal(str(place)),
        pytest.raises(UserError, match="another run"),
        open_journal(str(place)),
    ):
        pass
    place.write_text('{"key":"a","pairs":[["q","a"]]}\n{"what": 1}\n')
    with pytest.raises(UserError, match="line 2"), open_journal(str(place)):
        pass


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "malformed|truncated"),
        ("[]", "Expected `object`"),
        ('{"questions": []}', "0 pairs"),
        ('{"questions": [], "more": 1}', "unknown field"),
        ('{"questions": [{"question": "a?"}]}', "`answer`"),
        ('{"questions": [{"question": "a?", "answer": " "}]}', "matching regex"),
        ('{"questions": [{"question": "a?", "answer": 3}]}', "Expected `str`"),
        ('{"questions": [{"question": "a?", "answer": "b"}, {"question": "a?", "answer": "c"}]}', "twice"),
        (json.dumps({"questions": [{"question": f"{n}?", "answer": "b"} for n in range(4)]}), "4 pairs"),
    ],
)
def test_answers_are_held_to_their_form(content: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse(content, 3)


def test_answers_between_fences_are_read() -> None:
    content = '```json\n{"questions": [{"question": " a? ", "answer": "b"}]}\n```\n'
    assert parse(content, 3) == (("a?", "b"),)


def test_addresses_and_headers() -> None:
    for given in ("http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/", "http://h:1/v1/chat/completions"):
        assert address_of(given) == "http://h:1/v1/chat/completions"
    assert address_of("https://h/api/v3") == "https://h/api/v3/chat/completions"
    assert retry_after("7") == 7.0 and retry_after("-1") == retry_after("nan") == retry_after("soon") == 0.0
    assert retry_after("1e9") == 3600.0
    assert 50 < retry_after(formatdate(time.time() + 60, usegmt=True)) <= 60


def test_keys_depend_on_all_that_an_answer_depends_on() -> None:
    keys = {key_of(model, text, count) for model in "ab" for text in ("x", "y") for count in (1, 2)}
    assert len(keys) == 8


def test_a_segment_is_named_by_its_id() -> None:
    from manifests import AudioRef, Clip

    whole, part = AudioRef(path="a/b.flac"), AudioRef(path="a/b.opus", start=1.0, seconds=2.0)
    assert path_of(Clip(id="c/one", audio=(whole,))) == "c/a/b.flac"
    for audio in ((part,), (), (whole, whole)):
        assert path_of(Clip(id="c/one", audio=audio)) == "c/one"
