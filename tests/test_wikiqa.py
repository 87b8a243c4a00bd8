"""WikiQA: questions with answers become spoken clips, the others are counted; held against the csv module."""

from __future__ import annotations

import csv
import os
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests import Clip, UserError, load_corpus
from manifests.corpora.wikiqa import COLUMNS, VOICES

Refusals = list[tuple[str, str, str]]
SPLITS = ("train", "dev", "test")


def read(root: Path | str, split: str) -> tuple[list[Clip], Refusals]:
    refused: Refusals = []
    clips = list(load_corpus("wikiqa").clips(root, split, lambda *told: refused.append(told)))
    return clips, refused


def write(root: Path, *rows: str, split: str = "test") -> Path:
    table = root / "WikiQACorpus" / f"WikiQA-{split}.tsv"
    table.parent.mkdir(exist_ok=True)
    table.write_text("".join(f"{row}\n" for row in ("\t".join(COLUMNS), *rows)), encoding="utf-8", newline="")
    return table


def row(name: str = "Q1", question: str = "how", sentence: str = "So .", label: str = "1") -> str:
    return "\t".join((name, question, "D1", "Title", "D1-0", sentence, label))


def by_csv(table: Path) -> dict[str, tuple[str, list[str]]]:
    """The questions of a table as the csv module reads it, with their positive sentences."""
    questions: dict[str, tuple[str, list[str]]] = {}
    with open(table, newline="", encoding="utf-8") as file:
        for fields in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            _, answers = questions.setdefault(fields["QuestionID"], (fields["Question"], []))
            answers += [fields["Sentence"]] if fields["Label"] == "1" else []
    return questions


@pytest.fixture(scope="module")
def root(corpora: Path) -> Path:
    return corpora / "wikiqa"


@pytest.mark.parametrize("split", SPLITS)
def test_the_csv_module_reads_the_same(root: Path, split: str) -> None:
    clips, refused = read(root, split)
    theirs = by_csv(root / "WikiQACorpus" / f"WikiQA-{split}.tsv")
    assert {c.id: (c.text, [a for _, a in c.questions]) for c in clips} == {
        f"wikiqa/{name}": told for name, told in theirs.items() if told[1]
    }
    assert [(reason, name) for reason, name, _ in refused] == [
        ("no_answer", f"wikiqa/{name}") for name, told in theirs.items() if not told[1]
    ]
    assert clips
    assert refused


def test_one_clip_is_read_in_full(root: Path) -> None:
    clip = next(clip for clip in read(root, "test")[0] if clip.id == "wikiqa/Q0")
    assert clip.text == "HOW MANY STRINGS DOES A GUITAR HAVE"
    assert clip.questions == (
        ("", "Most guitars have six strings ."),
        ("", "There are also guitars with seven or twelve strings ."),
    )
    (ref,) = clip.audio
    assert (ref.path, ref.speech, ref.start, ref.seconds, ref.gain) == ("", clip.text, 0.0, None, 1.0)
    assert ref.voice in VOICES
    assert (clip.language, clip.join, clip.license) == ("en", "single", "Microsoft Research Data License")


def test_a_quotation_mark_is_a_character(root: Path) -> None:
    clip = next(clip for clip in read(root, "test")[0] if clip.id == "wikiqa/Q4")
    assert clip.text == 'what is a " fermata'
    assert clip.questions == (("", 'A fermata (from Italian , " pause " ) is a sign in music .'),)


def test_the_same_question_has_the_same_voice_and_all_voices_speak(tmp_path: Path) -> None:
    write(tmp_path, *(row(f"Q{number}") for number in range(400)))
    voices = {clip.id: clip.audio[0].voice for clip in read(tmp_path, "test")[0]}
    assert voices == {clip.id: clip.audio[0].voice for clip in read(tmp_path, "test")[0]}
    assert set(Counter(voices.values())) == set(VOICES)
    assert min(Counter(voices.values()).values()) > 70


def test_every_voice_can_be_synthesized() -> None:
    from shards.speech import synthesize

    assert len({synthesize("how are you", voice)[0].tobytes() for voice in VOICES}) == len(VOICES)


def test_the_root_may_be_the_published_folder(root: Path) -> None:
    assert read(root / "WikiQACorpus", "dev") == read(root, "dev")


@pytest.mark.parametrize(
    "broken",
    [
        row() + "\tmore",
        "\t".join(row().split("\t")[:6]),
        row(label="2"),
        row(label=""),
        row(question=" "),
        row(sentence=""),
        row(name=""),
        "<html>",
    ],
)
def test_a_damaged_row_is_refused_by_file_and_line_and_the_rest_is_read(tmp_path: Path, broken: str) -> None:
    write(tmp_path, row("Q1"), broken, row("Q2"))
    clips, refused = read(tmp_path, "test")
    assert [clip.id for clip in clips] == ["wikiqa/Q1", "wikiqa/Q2"]
    assert [told[:2] for told in refused] == [("malformed_row", "wikiqa/WikiQA-test.tsv:3")]


def test_windows_line_ends_and_a_byte_order_mark_change_nothing(tmp_path: Path) -> None:
    table = write(tmp_path, row("Q1"), row("Q2", label="0"))
    plain = read(tmp_path, "test")
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes().replace(b"\n", b"\r\n"))
    assert read(tmp_path, "test") == plain


def test_a_tree_that_is_not_the_published_one_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"wikiqa: there is no file .*WikiQA-dev\.tsv.*WikiQACorpus\.zip"):
        read(tmp_path, "dev")
    write(tmp_path).write_text("question,answer\n")
    with pytest.raises(UserError, match=r"WikiQA-test\.tsv: the columns are .*question,answer.*QuestionID"):
        read(tmp_path, "test")
    write(tmp_path).write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"WikiQA-test\.tsv is not UTF-8"):
        read(tmp_path, "test")
    with pytest.raises(UserError, match=r"wikiqa has no split 'tset'; did you mean 'test'\?"):
        read(tmp_path, "tset")


# What the csv module, too, takes for a character: no tab and no line end of its own.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\t\r\n\x00"), min_size=1, max_size=20)
texts = (texts | st.sampled_from(['"', '""', "a\u2028b", "\x85c", "'", "=1"])).filter(str.strip)
worlds = st.dictionaries(
    st.integers(1, 99),
    st.tuples(texts, st.lists(st.tuples(texts, st.sampled_from("01")), min_size=1, max_size=4)),
    max_size=5,
)


@settings(max_examples=60)
@given(worlds)
def test_any_table_in_the_published_format_is_read_back_exactly(world: dict) -> None:
    rows = [row(f"Q{n}", question, text, label) for n, (question, told) in world.items() for text, label in told]
    with tempfile.TemporaryDirectory() as folder:
        table = write(Path(folder), *rows)
        clips, refused = read(folder, "test")
        theirs = by_csv(table)
    assert theirs == {f"Q{n}": (q, [t for t, label in told if label == "1"]) for n, (q, told) in world.items()}
    assert {c.id: (c.text, [a for _, a in c.questions]) for c in clips} == {
        f"wikiqa/{name}": told for name, told in theirs.items() if told[1]
    }
    assert len(clips) + len(refused) == len(world)


@pytest.mark.slow
def test_the_real_corpus_has_the_published_counts() -> None:
    folder = Path(os.environ.get("SALMONN_REAL_CORPORA", "/nowhere"), "wikiqa")
    if not folder.is_dir():
        pytest.skip("set SALMONN_REAL_CORPORA to a folder that holds wikiqa/WikiQACorpus/WikiQA-test.tsv")
    clips, refused = read(folder, "test")
    assert (len(clips), len(refused)) == (243, 633 - 243)
    assert sum(len(clip.questions) for clip in clips) == 293
    assert {reason for reason, _, _ in refused} == {"no_answer"}
