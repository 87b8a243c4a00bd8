"""Translations and captions: as sacrebleu, rouge-score and pycocoevalcap count them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor.meteor import Meteor
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU

from salmonn.scoring import captions, java
from salmonn.scoring.bleu import bleu_of, grams
from salmonn.scoring.metrics import score
from salmonn.scoring.music import rouge_l
from scored import answer, answers

GOLDEN = json.loads((Path(__file__).parent / "golden" / "scoring" / "meteor.json").read_text())
# METEOR and the tokenizer of the Penn Treebank are Java programs, and no machine of a user is promised Java: without it
# the scores say so, which other tests of this file hold.
JAVA = pytest.mark.skipif(shutil.which("java") is None, reason="needs Java")
CHINESE = [
    ("\u6211\u559c\u6b22\u8fd9\u53ea\u5c0f\u732b\u3002", "\u6211\u559c\u6b22\u8fd9\u53ea\u732b\u3002"),
    ("\u4eca\u5929\u4e0b\u96e8\u4e86", "\u4eca\u5929\u5929\u6c14\u5f88\u597d\u3002"),
    ("", "\u4ed6\u8d70\u4e86\u3002"),
]
JAPANESE = [
    (
        "\u79c1\u306f\u732b\u304c\u597d\u304d\u3067\u3059\u3002",
        "\u79c1\u306f\u3053\u306e\u732b\u304c\u597d\u304d\u3067\u3059\u3002",
    ),
    ("\u4eca\u5929\u5929\u6c14\u5f88\u597d", "\u4eca\u65e5\u306f\u3044\u3044\u5929\u6c17\u3067\u3059\u3002"),
]
GERMAN = [
    ("Ich mag Katzen, sehr!", "Ich mag diese Katze sehr."),
    ("Das Wetter ist heute gut.", "Das Wetter ist heute sch\u00f6n."),
]
CLIPS = {
    "a": (
        ["A dog barks, loudly!", "dogs are barking", "the dog's bark", "barking of a dog", "a dog"],
        "A dog is barking.",
    ),
    "b": (["Two men speak (while music plays)", "men talk", "speech with music", "music", "a dog"], "men are speaking"),
    "c": (["rain falls on a tin roof", "it rains", "heavy rain", "rain", "water drips"], ""),
    "d": (["birds chirp and a car passes", "birds", "a car", "chirping", "traffic"], "birds chirp and a car passes"),
}


@pytest.mark.parametrize(
    ("task", "pairs", "tokenizer"),
    [
        ("translation_en_zh", CHINESE, "zh"),
        ("translation_en_ja", JAPANESE, "ja-mecab"),
        ("translation_en_de", GERMAN, "13a"),
        ("music_caption", [("a slow sad song", "a slow song with a sad piano"), ("", "drums")], "13a"),
    ],
)
def test_bleu_is_sacrebleus(task: str, pairs: list[tuple[str, str]], tokenizer: str) -> None:
    metric = BLEU(tokenize=tokenizer)
    metrics = {"zh": "bleu_zh", "ja-mecab": "bleu_ja", "13a": "bleu_de"}
    name = "music_caption" if task == "music_caption" else metrics[tokenizer]
    made = score(name, answers(task, [(said, [right]) for said, right in pairs]))
    expected = metric.corpus_score([said for said, _ in pairs], [[right for _, right in pairs]])
    assert made.value == expected.score
    assert made.details["signature"] == str(metric.get_signature())
    assert f"tok:{tokenizer}" in str(made.details["signature"])


def test_the_tokenizer_decides_for_chinese() -> None:
    pairs = [(right, [right[:-2] + "\u554a\u3002"]) for _, right in CHINESE]
    assert BLEU(tokenize="13a").corpus_score([said for said, _ in pairs], [[right[0] for _, right in pairs]]).score == 0
    made = score("bleu_zh", answers("translation_en_zh", pairs))
    assert made.value is not None and made.value > 30


def test_several_references_as_many_as_each_has() -> None:
    rows = [("a dog barks at the man", ["a dog barks at a man", "the dog barks at the man"]), ("rain falls", ["rain"])]
    streams = [["a dog barks at a man", "rain"], ["the dog barks at the man", None]]
    expected = BLEU(tokenize="13a").corpus_score([said for said, _ in rows], streams)  # type: ignore[arg-type]
    assert score("bleu_de", answers("translation_en_de", rows)).value == expected.score


WORDS = st.lists(st.sampled_from(["a", "dog", "barks", "loudly", "the", "rain"]), max_size=9).map(" ".join)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(WORDS, st.lists(WORDS, min_size=1, max_size=3)), min_size=1, max_size=5))
def test_bleu_of_summed_ngrams_is_that_of_the_set(rows: list[tuple[str, list[str]]]) -> None:
    lines = answers("translation_en_de", rows)
    made = score("bleu_de", lines)
    assert bleu_of(grams(lines, "13a").sum(axis=0, keepdims=True))[0] == pytest.approx(made.value, abs=1e-9)


def test_answers_in_another_script_are_counted() -> None:
    made = score("bleu_ja", answers("translation_en_ja", [(said, [right]) for said, right in JAPANESE]))
    assert (made.also[0].name, made.also[0].value) == ("in the right script", 0.5)
    alone = BLEU(tokenize="ja-mecab").corpus_score([JAPANESE[0][0]], [[JAPANESE[0][1]]]).score
    assert made.details["BLEU4 of those in Japanese alone"] == f"{alone:.1f}"
    shares = {
        metric: score(metric, [answer("translation_en_zh", said, "x")]).also[0].value
        for metric, said in (("bleu_zh", "\u306d\u3053\u732b"), ("bleu_de", "Hallo"), ("bleu_ja", "\u732b"))
    }
    assert shares == {"bleu_zh": 0, "bleu_de": 1, "bleu_ja": 0}


@settings(max_examples=60, deadline=None)
@given(WORDS, st.lists(WORDS, min_size=1, max_size=4))
def test_rouge_l_is_rouge_scores(said: str, right: list[str]) -> None:
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    expected = max(scorer.score(one, said)["rougeL"].fmeasure for one in right)
    assert rouge_l(answers("music_caption", [(said, right)])).value == pytest.approx(expected)


def caption_parts(monkeypatch: pytest.MonkeyPatch | None = None) -> dict[str, float | None]:
    lines = [answer("audio_caption", said, *right, key=key) for key, (right, said) in CLIPS.items()]
    return {part.name: part.value for part in score("caption", lines).parts()}


def theirs() -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """References and answers as pycocoevalcap's own tokenizer parts them."""
    right = {key: [{"caption": text} for text in texts] for key, (texts, _) in CLIPS.items()}
    said = {key: [{"caption": text}] for key, (_, text) in CLIPS.items()}
    return PTBTokenizer().tokenize(right), PTBTokenizer().tokenize(said)


@JAVA
def test_tokens_are_those_of_the_penn_treebank() -> None:
    right, _ = theirs()
    texts = [text for texts, _ in CLIPS.values() for text in texts]
    assert java.ptb(texts) == [text for texts in right.values() for text in texts]
    assert java.ptb(["", "Caf\u00e9 \u2028 ||| x", ""]) == ["", "caf\u00e9 | | | x", ""]


@JAVA
def test_cider_d_is_pycocoevalcaps_over_the_whole_set() -> None:
    right, said = theirs()
    parted = [right[key] for key in CLIPS], [said[key][0] for key in CLIPS]
    expected, each = Cider().compute_score(right, said)
    found = captions.cider_d(*parted)
    assert found == pytest.approx(each) and found.mean() == pytest.approx(expected)
    # The idf is that of the set: parts of it have other scores.
    assert captions.cider_d(parted[0][::3], parted[1][::3]).mean() != pytest.approx(np.mean(each[::3]))
    # And one reference of five is another score.
    assert captions.cider_d([one[:1] for one in parted[0]], parted[1]).mean() != pytest.approx(expected)


def test_meteor_of_summed_counts_is_the_jars() -> None:
    """Counts and scores of the jar that pycocoevalcap 1.2 brings."""
    counts = np.array(GOLDEN["counts"], dtype=float)
    assert java.meteor_of(counts) == pytest.approx(GOLDEN["scores"], abs=1e-12)
    assert java.meteor_of(counts.sum(axis=0, keepdims=True))[0] == pytest.approx(GOLDEN["score"], abs=1e-12)


@JAVA
@pytest.mark.slow
def test_meteor_is_pycocoevalcaps() -> None:
    right, said = theirs()
    expected, each = Meteor().compute_score(right, said)
    counts = java.meteor_sums([right[key] for key in CLIPS], [said[key][0] for key in CLIPS])
    assert java.meteor_of(counts) == pytest.approx(each, abs=1e-12)
    found = caption_parts()
    assert found["METEOR"] == pytest.approx(expected, abs=1e-12)
    assert found["CIDEr-D"] == pytest.approx(Cider().compute_score(right, said)[0])
    lines = answers("audio_caption", [("||| " * 50, ["a dog"]), ("dog " * 100_000, ["a dog"]), ("a dog", [])])
    made = score("caption", lines)
    assert made.value is not None
    assert made.details["answers read up to a thousand words"] == 1


def fake_java(folder: Path, script: str) -> None:
    """A program called java that does as `script` says."""
    folder.mkdir(exist_ok=True)
    (folder / "java").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "java").chmod(0o755)


def test_without_java_each_score_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    lines = [answer("audio_caption", said, *right, key=key) for key, (right, said) in CLIPS.items()]
    made = {part.name: part for part in score("caption", lines).parts()}
    assert {name: part.value is None for name, part in made.items()} == {
        "METEOR": True,
        "CIDEr-D": False,
        "SPICE": True,
        "SPIDEr": True,
    }
    assert made["METEOR"].note == "needs Java 17, which is not on this machine"
    assert made["METEOR"].count == len(CLIPS)
    assert "nltk's Treebank" in str(made["CIDEr-D"].details["tokenizer"])
    assert made["SPIDEr"].note == "SPICE needs Java 17, which is not on this machine"


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("echo out of memory >&2; exit 3", "PTBTokenizer failed, with Java's exit code 3: out of memory"),
        ("cat", "METEOR did not return 23 numbers for each of 4 answers"),
        ("exec sleep 60", "PTBTokenizer took more than 0 s"),
        ("true", "PTBTokenizer returned 1 lines for 24 texts"),
    ],
)
def test_a_java_that_fails_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, told: str) -> None:
    fake_java(tmp_path / "bin", script)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    if "sleep" in script:
        monkeypatch.setattr(java, "TIMEOUT", 0.2)
    lines = [answer("audio_caption", said, *right, key=key) for key, (right, said) in CLIPS.items()]
    made = score("caption", lines)
    assert made.value is None
    assert told in made.note


def test_spice_runs_where_its_parts_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A program in SPICE's place: the real one needs CoreNLP, which is not ours to bring."""
    for part in java.SPICE_PARTS:
        (tmp_path / part).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / part).touch()
    told = [{"image_id": at, "scores": {"All": {"f": value}}} for at, value in ((1, 0.25), (0, 0.5), (2, None))]
    told[2]["scores"]["All"]["f"] = float("nan")  # type: ignore[index]
    (tmp_path / "told.json").write_text(json.dumps(told))
    fake_java(tmp_path / "bin", f'while [ "$1" != "-out" ]; do shift; done; cp {tmp_path}/told.json "$2"')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(java, "folder", lambda: tmp_path)
    assert java.spice([["a"], ["b"], ["c"]], ["a", "b", "c"]).tolist() == [0.5, 0.25, 0.0]
    (tmp_path / "told.json").write_text("[]")
    with pytest.raises(java.JavaMissing, match="SPICE wrote no scores"):
        java.spice([["a"]], ["a"])
    (tmp_path / java.SPICE_PARTS[1]).unlink()
    with pytest.raises(java.JavaMissing, match=r"needs stanford-corenlp-3\.6\.0-models\.jar of Stanford CoreNLP"):
        java.spice([["a"]], ["a"])
