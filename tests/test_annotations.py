"""Annotations in the released format: read as a stream, joined by stem, counted to the last row, written back."""

from __future__ import annotations

import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests import AudioRef, Clip, UserError, load_corpus
from manifests.annotations import Annotations, Row, place_of, write
from manifests.join import QUESTIONS, annotated, join, merge
from manifests.json_list import CHUNK, stream_list

RELEASED = Path(__file__).parent / "annotations" / "released.json"
QA = ("asr", "speech_qa", "audio_story")


class Refusals(list):
    """What a reader refused."""

    def __call__(self, *words: str) -> None:
        self.append(words)


def clip(name: str, path: str = "", **more: Any) -> Clip:
    return Clip(id=name, audio=(AudioRef(path=path),) if path else (), **more)


def put(place: Path, *rows: Any) -> str:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps({"annotation": rows}))
    return str(place)


def ask(path: str, question: str = "What?", text: str = "That.", **more: Any) -> dict[str, Any]:
    return {"path": path, "text": text, "task": "QA", "Q": question} | more


def joined(folder: Path, clips: list[Clip], *rows: Any, tasks: tuple[str, ...] = QA) -> tuple[list[Clip], Any]:
    return join(clips, Annotations.read([put(folder / "corpus" / "rows.json", *rows)]), tasks)


def test_a_file_as_released_joins_whatever_the_prefix() -> None:
    refused = Refusals()
    read = Annotations.read([str(RELEASED)], refused)
    assert refused == [("malformed_row", "annotations/released.json:8", "Expected `str`, got `int` - at `$.text`")]
    assert read.passed == {"asr": 2, "speaker_verification": 1}
    path = "LibriSpeech/dev-clean/1272/128104/1272-128104-0000.flac"
    own = clip("librispeech/1272-128104-0000", path, questions=(("Own?", "Yes."),))
    (made,), report = join([own], read, QA)
    assert made.questions == (
        ("Own?", "Yes."),
        ("Who is the apostle of the middle classes?", "Mister Quilter"),
        ("What is welcome?", "His gospel"),
        ("Whose apostle is he?", "The middle classes"),
    )
    assert made.labels == {"story": "Once upon a time a critic praised a painter."}
    assert (report.rows, report.joined, report.repeated, report.unjoined) == (7, 6, 2, 1)
    assert report.listed == ("annotations/released.json:6 'LibriSpeech/dev-clean/9999/1/9999-1-0000'",)
    assert "join no clip: annotations/released.json:6" in "\n".join(report.told("librispeech"))


def test_every_row_is_joined_passed_or_refused() -> None:
    refused = Refusals()
    read = Annotations.read([str(RELEASED)], refused)
    total = len(json.loads(RELEASED.read_text())["annotation"])
    for tasks in ((), ("asr",), ("music_qa",), ("audio_story",), QA):
        clips, report = join([clip("librispeech/1272-128104-0000")], read, tasks)
        assert report.joined + report.unjoined + sum(report.passed.values()) + len(refused) == total
        assert bool(clips[0].questions) == any(task in QUESTIONS for task in tasks)
        assert ("story" in clips[0].labels) == ("audio_story" in tasks)


@pytest.mark.parametrize("name", ["QA", "qa", "inference_QA", "audio_QA", "music_qa", "gender_QA"])
def test_all_kinds_of_qa_serve_the_task_of_the_corpus(tmp_path: Path, name: str) -> None:
    for task in QUESTIONS:
        (made,), _ = joined(tmp_path, [clip("c/one", "one.wav")], ask("one.mp3", task=name), tasks=(task,))
        assert made.questions == (("What?", "That."),)


def test_of_two_stems_alike_the_longest_common_path_decides(tmp_path: Path) -> None:
    clips = [clip("c/1", "x/a/one.wav"), clip("c/2", "x/b/one.wav"), clip("c/3", "y/b/one.wav")]
    rows = [ask("/p/a/one.flac", "a"), ask("/q/y/b/one.wav", "yb"), ask("/q/b/one.wav", "b"), ask("one.wav", "none")]
    made, report = joined(tmp_path, clips, *rows)
    assert [[question for question, _ in one.questions] for one in made] == [["a"], [], ["yb"]]
    assert report.unjoined == 2
    assert [line.split()[0] for line in report.listed] == ["corpus/rows.json:3", "corpus/rows.json:4"]


def test_a_number_in_a_folder_means_that_folder(tmp_path: Path) -> None:
    own = clip("voxceleb1/id10270/5r0dWxy17C8/00001", "wav/id10270/5r0dWxy17C8/00001.wav")
    rows = [
        ask("/Voxceleb1/id10270/5r0dWxy17C8/00001.wav", "its"),
        ask("/Voxceleb1/id10271/gIz6ssAkZTo/00001.wav", "x"),
    ]
    (made,), report = joined(tmp_path, [own], *rows)
    assert made.questions == (("its", "That."),)
    assert report.unjoined == 1
    (made,), report = joined(tmp_path, [clip("musicnet/1727", "musicnet/train_data/1727.wav")], ask("/m/1727.wav"))
    assert len(made.questions) == 1


def test_names_that_join(tmp_path: Path) -> None:
    for own, path in [
        (clip("wavcaps/YbQ8n3l1i4.wav"), "/WavCaps/AudioSet_SL/YbQ8n3l1i4.wav"),
        (clip("wavcaps/YbQ8n3l1i4"), "/WavCaps/AudioSet_SL/YbQ8n3l1i4.wav.flac"),
        (clip("audiocaps/-0.5_30"), "-0.5_30.wav"),
        (clip("audiocaps/7fmOlUlwoNg_20", "audio/test/Y7fmOlUlwoNg.m4a"), "/AudioCaps/test/Y7fmOlUlwoNg.wav"),
        (clip("gigaspeech/POD1_S0000103", "audio/podcast/POD1.opus"), "/GigaSpeech/POD1_S0000103.wav"),
        (clip("librispeech/a"), "C:\\data\\a.FLAC"),
    ]:
        (made,), report = joined(tmp_path, [own], ask(path))
        assert len(made.questions) == 1 and not report.unjoined, path


def test_segments_of_one_recording_are_not_told_apart_by_its_name(tmp_path: Path) -> None:
    clips = [
        Clip(id=f"g/POD1_{number}", audio=(AudioRef(path="POD1.opus", start=number, seconds=1.0),)) for number in (1, 2)
    ]
    made, report = joined(tmp_path, clips, ask("/g/POD1.opus", "all"), ask("/g/POD1_2.wav", "second"))
    assert [one.questions for one in made] == [(), (("second", "That."),)]
    assert report.unjoined == 1


def test_a_row_that_names_its_clip_belongs_to_no_other(tmp_path: Path) -> None:
    clips = [clip("v/a/00001", "a/00001.wav"), clip("v/b/c.d", "b/c.d.wav")]
    rows = [
        ask("x.flac", "named", clip="v/b/c.d"),
        ask("a/00001.wav", "gone", clip="v/z"),
        ask("c.d.wav", "s", clip="w/1"),
    ]
    made, report = joined(tmp_path, clips, *rows)
    assert [[question for question, _ in one.questions] for one in made] == [[], ["named", "s"]]
    assert report.unjoined == 1


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (7, "Expected `object`"),
        (None, "Expected `object`"),
        ({"text": "x"}, "`path`"),
        ({"path": "x"}, "`text`"),
        ({"path": "x", "text": None}, "`str`"),
        ({"path": "x", "text": "y", "expand_wav": "z"}, "`array`"),
        ({"path": "x", "text": "y", "task": "QA"}, "without Q"),
        ({"path": "", "text": "y", "task": "QA", "Q": "z"}, "without path"),
        ({"path": "x", "text": " ", "task": "audio_story_telling"}, "without text"),
        ({"path": "x", "text": "\ud800", "task": "QA", "Q": "z"}, "half a character"),
    ],
)
def test_a_malformed_row_is_refused_by_file_and_number_and_the_next_is_read(
    tmp_path: Path, row: Any, words: str
) -> None:
    url, refused = put(tmp_path / "c" / "a.json", ask("one.wav"), row, ask("two.wav")), Refusals()
    read = Annotations.read([url], refused)
    assert [note.place for note in read.notes] == ["one", "two"]
    ((reason, where, detail),) = refused
    assert (reason, where) == ("malformed_row", "c/a.json:2") and words in detail
    with pytest.raises(UserError, match=r"a\.json:2"):
        Annotations.read([url])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "ends before an object"),
        (b"[1]", "an object"),
        (b"{}", "no list 'annotation'"),
        (b'{"annotations": []}', "no list 'annotation'"),
        (b'{"annotation": {}}', "a list was expected"),
        (b'{"annotation": [{}, {]}', "row 2: not JSON"),
        (b'{"annotation": [{}, {"a": 1}', "row 2: not JSON"),
        (b'{"annotation": [{},]}', "row 1"),
        (b'{"annotation": []} more', "more behind its end"),
        (b'{"annotation": ["\xff"]}', "not UTF-8"),
        (b'{"annotation": [' + b"[" * 100_000 + b"]" * 100_000 + b"]}", "nests too deeply"),
        (b'{"annotation": [' + b"9" * 5000 + b"]}", "row 1: not JSON"),
    ],
)
def test_a_file_that_is_not_json_is_the_users_mistake(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.json.*" + words):
        Annotations.read([str(tmp_path / "a.json")], Refusals())


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


@given(
    rows=st.lists(VALUES, max_size=12),
    before=st.dictionaries(st.text(max_size=5).filter(lambda key: key != "annotation"), VALUES, max_size=2),
    chunk=st.integers(1, 40),
    indent=st.none() | st.integers(0, 3),
    ascii_only=st.booleans(),
)
def test_the_stream_reads_what_json_reads(
    tmp_path_factory: pytest.TempPathFactory, rows: Any, before: Any, chunk: int, indent: int | None, ascii_only: bool
) -> None:
    text = json.dumps(before | {"annotation": rows} | {"z": before}, indent=indent, ensure_ascii=ascii_only)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("manifests.json_list.CHUNK", chunk)
        patch.setattr("manifests.files.open_read", lambda _: io.BytesIO(text.encode("utf-8", "surrogatepass")))
        assert list(stream_list("a.json", "annotation")) == json.loads(text)["annotation"]


def test_reading_takes_the_memory_of_a_chunk_not_of_the_file(tmp_path: Path) -> None:
    place = tmp_path / "long.json"
    row = json.dumps({"path": "/LibriSpeech/a.flac", "text": "w" * 900})
    place.write_text('{"annotation": [' + ", ".join([row] * 30_000) + "]}")
    tracemalloc.start()
    read = Annotations.read([str(place)])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert read.passed == {"asr": 30_000}
    assert place.stat().st_size > 25 * CHUNK and peak < 12 * CHUNK


@pytest.mark.parametrize("bad", ["[1, 2", '{"a": tru}', '"never ends'])
def test_a_value_without_end_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: str) -> None:
    monkeypatch.setattr("manifests.json_list.LONGEST", 1000)
    monkeypatch.setattr("manifests.json_list.CHUNK", 100)
    (tmp_path / "a.json").write_text(f'{{"annotation": [{bad}' + " " * 50_000)
    with pytest.raises(UserError, match="row 1: not JSON"):
        Annotations.read([str(tmp_path / "a.json")])


def test_reports_of_splits_are_put_together(tmp_path: Path) -> None:
    rows = [ask(f"/c/{number}.wav") for number in range(100)] + [{"path": "x", "text": "y"}]
    read = Annotations.read([put(tmp_path / "c" / "a.json", *rows)])
    reports = [
        join([clip(f"c/{number}") for number in numbers], read, QA)[1] for numbers in (range(40), range(60, 99), ())
    ]
    assert [report.joined for report in reports] == [40, 39, 0]
    whole = merge(reports)
    assert (whole.rows, whole.joined, whole.unjoined, whole.passed) == (100, 79, 21, {"asr": 1})
    assert [line.split()[0] for line in whole.listed] == [f"c/a.json:{number + 1}" for number in [*range(40, 60)]]
    assert "1 more" in whole.told("c")[1]
    assert merge(reports[:1]) == reports[0] and merge([]).told("c") == []


def test_a_corpus_finds_its_files_below_the_root(tmp_path: Path, corpora: Path) -> None:
    corpus, refused = load_corpus("librispeech"), Refusals()
    clips = list(corpus.clips(corpora / "librispeech", "dev-clean"))
    same, report = annotated(str(tmp_path), corpus, iter(clips), refused)
    assert list(same) == clips and report.told("librispeech") == []
    folder = tmp_path / "annotations" / "librispeech"
    put(folder / "b.json", ask(clips[0].audio[0].path, "second"), {"path": 3})
    put(folder / "a.json", ask(f"/other/prefix/{clips[0].id.split('/')[1]}.wav", "first"))
    (folder / "a.json.journal.jsonl").write_text("not an annotation file")
    made, report = annotated(str(tmp_path), corpus, iter(clips), refused)
    served = any(task in QUESTIONS for task in corpus.facts.tasks)
    assert [len(one.questions) for one in made][:2] == [2 if served else 0, 0]
    assert report.rows == (2 if served else 0)
    assert refused == [("malformed_row", "librispeech/b.json:2", "Expected `str`, got `int` - at `$.path`")]


@given(
    st.lists(
        st.builds(
            Row,
            path=st.text(min_size=1),
            text=st.text(),
            task=st.text(max_size=5),
            question=st.text(),
            expand_wav=st.tuples(st.text()) | st.just(()),
            clip=st.text(max_size=5),
        )
    )
)
def test_what_is_written_is_what_json_reads(tmp_path_factory: pytest.TempPathFactory, rows: list[Row]) -> None:
    place = tmp_path_factory.getbasetemp() / "written.json"
    assert write(str(place), rows) == len(rows)
    read = json.loads(place.read_text(encoding="utf-8"))
    assert list(read) == ["annotation"]
    for row, found in zip(rows, read["annotation"], strict=True):
        assert (found["path"], found["text"], found["task"], found["Q"]) == (row.path, row.text, row.task, row.question)
        assert tuple(found.get("expand_wav", ())) == row.expand_wav and found.get("clip", "") == row.clip
    assert list(stream_list(str(place), "annotation")) == read["annotation"]


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/a/b.wav", "a/b"),
        ("b.flac.wav", "b"),
        (".wav", ".wav"),
        ("a.b/c", "a.b/c"),
        ("x.1", "x.1"),
        ("/", ""),
        ("", ""),
    ],
)
def test_places(path: str, place: str) -> None:
    assert place_of(path) == place
