"""What the audit says of prompts, answers, labels, speakers, languages and licences equals plain loops; faults show."""

from __future__ import annotations

import itertools
import math
import re
import statistics
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit_world import TEST, TRAIN, answered, dataset_of, gate, look, rows_of
from manifests import TASKS
from manifests.licences import clip_terms, joined
from shards.audit.sections import answers, labels, languages, licences, prompts, speakers
from shards.scripts import PAIRS, SCRIPTS, SIMPLIFIED_ONLY, TRADITIONAL_ONLY

WORDS = re.findall(r"\w+", "the quick brown fox jumps over a lazy dog while nobody looks at it from afar")
SQL = duckdb.connect()


def said(count: int, task: str = "asr", **more: Any) -> list[dict[str, Any]]:
    """Rows of transcripts, three seconds each, all different, asked in all paraphrases in turn."""
    lines = TASKS[task].prompts
    return [
        {
            "asked": [(task, lines[n % len(lines)], [f"Number {n} " + " ".join(WORDS[: 3 + n % 9])])],
            "samples": 48_000,
            **more,
        }
        for n in range(count)
    ]


def test_prompts_are_counted_by_paraphrase(tmp_path: Path) -> None:
    slotted = TASKS["speech_qa"].prompts
    questions = ["who speaks?", "where?", "Why {so}", "what is it: this or that?"]
    asked = [(n, line, questions[n % 4]) for n, line in enumerate((*slotted[:7], *slotted[2:5]))]
    rows = [{"asked": [("speech_qa", line.replace("{}", what), ["yes"])]} for _, line, what in asked]
    rows += said(30)
    found = {row.task: row for row in look(prompts, dataset_of(tmp_path, {TRAIN: rows}), answers)}
    qa, asr = found["speech_qa"], found["asr"]
    used = Counter(line for _, line, _ in asked)
    assert {form.prompt: form.count for form in qa.forms} == dict(used)
    assert (qa.used, qa.paraphrases, qa.examples) == (7, len(slotted), 10)
    assert qa.distinct == len({line.replace("{}", what) for _, line, what in asked})
    assert qa.bits == pytest.approx(-sum(n / 10 * math.log2(n / 10) for n in used.values()), abs=1e-8)
    assert qa.most_bits == pytest.approx(math.log2(len(slotted)), abs=1e-8)
    assert qa.unfilled == sum("{so}" in what for _, _, what in asked)
    assert all(form.known for form in (*qa.forms, *asr.forms))
    counts = Counter(row["asked"][0][1] for row in rows if row["asked"][0][0] == "asr")
    assert {form.prompt: form.count for form in asr.forms} == dict(counts)
    assert asr.frequent_share == pytest.approx(max(counts.values()) / 30, abs=1e-8)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([n for n in TASKS if any("{}" in line for line in TASKS[n].prompts)]),
    st.text("ab {}?.'%"),
    st.data(),
)
def test_the_longest_paraphrase_that_fits_is_meant(task: str, question: str, data: st.DataObject) -> None:
    lines = TASKS[task].prompts
    prompt = data.draw(st.sampled_from(lines)).replace("{}", question)
    [(_, form, *_)] = answered(prompts.QUERIES["prompts"], (), [prompt], [["x"]], task)
    halves = [(line, *line.split("{}")) for line in lines]
    fitting = [line for line, head, tail in halves if prompt.startswith(head) and prompt.endswith(tail)]
    assert form in fitting
    assert len(form) == max(map(len, fitting))


def spoil(rows: list[dict[str, Any]], place: int, task: str, prompt: str, answer: str) -> list[dict[str, Any]]:
    rows[place]["asked"] = [(task, prompt, [answer])]
    return rows


LONG = "a dog barks twice and runs away"


@pytest.mark.parametrize(
    ("rows", "verdict", "says"),
    [
        (lambda: said(60), "PASS", "12 of 12 paraphrases are stored"),
        (lambda: spoil(said(60), 5, "asr", "Write {text}", "yes"), "FAIL", "asr of librispeech_train-clean-100_c5"),
        (lambda: spoil(said(60), 5, "speech_qa", "What is the {}?", "yes"), "FAIL", "a place left open: 1"),
        (lambda: spoil(said(60), 5, "audio_qa", f"Is it so that {LONG.upper()}?", LONG), "FAIL", "word for word: 1"),
        # Choices that a prompt names, short answers, and long ones that it only begins with.
        (lambda: spoil(said(60), 5, "audio_qa", "A dog or a cat that barks?", "a dog"), "PASS", ""),
        (lambda: spoil(said(60), 5, "audio_qa", "Is it a dog that barks?", "a dog that"), "PASS", ""),
        (lambda: spoil(said(60), 5, "audio_qa", "Is it so that a dog barks twice?", LONG), "PASS", ""),
        (lambda: said(60) + [{"asked": [("asr", "Write it.", ["one"])]}] * 90, "WARN", "one prompt 60.0% of the time"),
        (lambda: said(9) + [{"asked": [("asr", "Write it.", ["one"])]}] * 20, "PASS", ""),
        (lambda: spoil(said(60), 5, "audio_caption", TASKS["asr"].prompts[0], "x"), "WARN", "share a prompt"),
    ],
)
def test_a_prompt_that_is_wrong_is_told(tmp_path: Path, rows: Any, verdict: str, says: str) -> None:
    found = gate(prompts, dataset_of(tmp_path, {TRAIN: rows()}), answers)
    assert found[0] == verdict
    assert says in found[1]


def repeats(text: str) -> bool:
    """More than half of eight words or more come again within four words, and the middle one does."""
    pieces = re.split("[ \t\n\f\r]", text)

    def at(place: int) -> str | None:
        return pieces[place] if 0 <= place < len(pieces) else None

    middle = len(pieces) // 2 - 1
    again = sum(any(at(k) == at(k + step) for step in (1, 2, 3, 4)) for k in range(len(pieces)))
    around = any(at(middle) == at(middle + step) for step in (-4, -3, -2, -1, 1, 2, 3, 4))
    return len(pieces) >= 8 and around and 2 * again > len(pieces)


GARBLED = re.compile(
    "[\u00c2\u00c3][\u0080-\u00bf]|\u00e2(\u20ac|[\u0080-\u009f])|[\u00e3-\u00e9][\u0080-\u009f\u00a1-\u00bf]{2}"
)
PIECES = (
    "no",
    "no",
    "no",
    "yes",
    "<COMMA>",
    "<b>",
    "caf\u00e9",
    "caf\u00c3\u00a9",
    "\u4e2d\u6587",
    "\x07",
    "\ufffd",
    "  ",
    "\t",
    "x" * 400,
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.lists(st.sampled_from(PIECES), max_size=14).map(" ".join), max_size=3), min_size=1, max_size=5)
)
def test_answers_are_counted_as_a_loop_would(given_answers: list[list[str]]) -> None:
    flat = list(itertools.chain.from_iterable(given_answers))
    rows = answered(answers.QUERIES["answers"], ("told",), ["p"] * len(given_answers), given_answers)
    if not flat:
        assert rows == []
        return
    words = [len(re.findall(r"[^ \t\n\f\r]+", text)) for text in flat]
    [(_, count, empty, least, median, most, p1, p99, long, tagged, broken, garbled, repeating, *keys)] = rows
    assert (count, empty, least, median, most) == (
        len(flat),
        words.count(0),
        min(words),
        statistics.median(words),
        max(words),
    )
    assert [p1, p99] == pytest.approx(np.percentile(words, [1, 99]).tolist())
    assert long == sum(-(-len(text.encode()) // 3) > answers.LONGEST for text in flat)
    assert tagged == sum(bool(re.search("<[A-Z]+>", text)) for text in flat)
    assert broken == sum(bool(re.search("[\x00-\x08\x0b\x0e-\x1f\x7f\ufffd]", text)) for text in flat)
    assert garbled == sum(bool(GARBLED.search(text)) for text in flat)
    assert repeating == sum(map(repeats, flat))
    assert answered(prompts.QUERIES["leaks"], ("told",), ["p"] * len(given_answers), given_answers) == []
    assert [key is not None for key in keys] == [bool(n) for n in (empty, long, tagged, broken, garbled, repeating)]


def test_what_repeats_is_told_from_what_does_not() -> None:
    assert repeats("thank you for watching " * 4)
    assert repeats("it was no no no no no no no no no good")
    assert not repeats("the cat and the dog and the bird and the fish were all there one day in may")
    # Letters of the phones come again and again, but not in so short a round.
    assert not repeats("AY N UW Y UW K UH D N AA T CH UW Z B AH T L AY K HH ER B AH T Y EH T L EH T")


def test_the_most_frequent_answer_and_the_transcripts(tmp_path: Path) -> None:
    rows = said(12) + [{"asked": [("asr", "p", ["THE SAME WORDS"])], "samples": 3200}] * 3
    rows += [{"asked": [("asr", "p", ["no capital here, but a comma"])], "samples": 320_000}]
    rows += [
        {"asked": [("asr", "p", ["Mixed Case"])], "samples": 8000},
        {"asked": [("asr", "p", ["7"])], "samples": 8000},
    ]
    dataset = dataset_of(tmp_path, {TRAIN: rows})
    [found] = look(answers, dataset)
    texts = Counter(answer for row in rows_of(dataset) for one in row["answers"] for answer in one)
    [(most, times)] = texts.most_common(1)
    assert (found.frequent, found.frequent_count, found.distinct) == (most, times, len(texts))
    assert found.frequent_share == pytest.approx(times / texts.total(), abs=1e-8)
    [pace] = found.transcripts
    held = [(row["answers"][0][0], row["samples"]) for row in rows_of(dataset)]
    paces = [len(text) * 16_000 / samples for text, samples in held]
    assert (pace.slow, pace.fast) == (sum(p < 3 for p in paces), sum(p > 30 for p in paces))
    assert pace.median == pytest.approx(statistics.median(paces), abs=0.02)
    cases = {"upper": 3, "lower": 1, "sentence": 12, "mixed": 2}
    assert {name: round(getattr(pace, name) * 18) for name in cases} == cases
    assert pace.punctuated == pytest.approx(1 / 18, abs=1e-8)


@pytest.mark.parametrize(
    ("rows", "verdict", "says"),
    [
        (lambda: said(60), "PASS", "None of 60 answers is empty"),
        (
            lambda: spoil(said(60), 3, "asr", "p", "so <COMMA> he said"),
            "FAIL",
            "tags left in them: 1, of which 1 in asr",
        ),
        (lambda: spoil(said(60), 3, "asr", "p", " "), "FAIL", "for example librispeech_train-clean-100_c3"),
        (lambda: spoil(said(60), 3, "asr", "p", "so \ufffd he said"), "WARN", "a lost character"),
        (lambda: spoil(said(60), 3, "asr", "p", "caf\u00c3\u00a9 is closed"), "WARN", "wrong encoding"),
        (lambda: spoil(said(60), 3, "asr", "p", "so it is " * 6), "WARN", "again and again"),
        (lambda: spoil(said(60), 3, "audio_story", "p", "a long tale of words " * 60), "WARN", "their end is cut off"),
        (lambda: said(60) + [{"asked": [("audio_caption", "p", [LONG])]}] * 25, "WARN", "are the same: 'a dog barks"),
        (lambda: said(60) + [{"asked": [("speaker_verification", "p", ["Yes"])]}] * 25, "PASS", ""),
        (lambda: said(60) + said(4, samples=2000), "WARN", "characters a second"),
    ],
)
def test_an_answer_that_is_wrong_is_told(tmp_path: Path, rows: Any, verdict: str, says: str) -> None:
    found = gate(answers, dataset_of(tmp_path, {TRAIN: rows()}))
    assert found[0] == verdict
    assert says in found[1]


def test_corpora_that_write_differently_are_told(tmp_path: Path) -> None:
    other = [{**row, "asked": [("asr", "p", [row["asked"][0][2][0].upper() + "."])]} for row in said(60)]
    verdict, sentence = gate(answers, dataset_of(tmp_path, {TRAIN: said(60), ("gigaspeech", "m"): other}))
    assert verdict == "WARN"
    assert "gigaspeech are in upper case, with punctuation, those of librispeech in sentence case, without" in sentence


def voices(count: int, *sexes: str) -> list[dict[str, Any]]:
    return [
        {
            "asked": [("gender_recognition", "p", [sexes[n % len(sexes)].capitalize()])],
            "gender": sexes[n % len(sexes)],
            "speaker": f"librispeech/{n % 7}",
            "id": f"librispeech/{n % 7}-1-{n:04d}",
        }
        for n in range(count)
    ]


def test_labels_are_counted_apart_where_they_are_trained_on(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, {TRAIN: voices(30, "female", "female", "male"), TEST: voices(4, "male")})
    found = look(labels, dataset)
    for row in found.tasks:
        mine = [r for r in rows_of(dataset) if (r["split"] == TRAIN[1]) == row.trained]
        counts = Counter(r["answers"][0][0] for r in mine)
        assert {one.answer: one.count for one in row.classes} == dict(counts)
        assert row.majority == pytest.approx(max(counts.values()) / counts.total(), abs=1e-8)
        assert (row.answers, row.distinct) == (counts.total(), len(counts))
    assert [row.trained for row in found.tasks] == [True, False]


def trials(*kinds: tuple[str, str]) -> list[dict[str, Any]]:
    return [
        {"asked": [("speaker_verification", "p", [answer])], "id": f"voxceleb1/{speaker}/v/{n}+id9/v/{n}"}
        for n, (speaker, answer) in enumerate(kinds)
    ]


def test_who_leads_pairs_and_who_speaks_at_once(tmp_path: Path) -> None:
    pairs = trials(("id1", "Yes"), ("id1", "No"), ("id2", "Yes"), ("id2", "Yes"), ("id3", "No"))
    mixed = [
        {"asked": [("overlapped_speech_recognition", "p", ["One. Two."])], "id": f"librimix/{name}"}
        for name in ("1-9-0001_0-9-0001", "0-3-0002_3-9-0001", "77-1-0001_1-9-0002")
    ]
    heard = voices(7, "female", "male")
    dataset = dataset_of(tmp_path, {("voxceleb1", "dev"): pairs, ("librimix", "x"): mixed, TRAIN: heard})
    found = look(labels, dataset)
    assert (found.pairs, found.leaders, found.leaders_always) == (5, 3, 1)
    sexes = {row["speaker"].split("/")[1]: row["gender"] for row in heard}
    orders = Counter(
        " ".join(sexes.get(reader, "?") for reader in sorted(re.findall(r"(\d+)-\d+-\d+", row["id"]), key=int))
        for row in mixed
    )
    assert {one.voices: one.mixtures for one in found.overlaps} == dict(orders)
    assert "male ?" in orders


@pytest.mark.parametrize(
    ("rows", "verdict", "says"),
    [
        (voices(40, "female", "male"), "PASS", "scores at most 50.0% in any task"),
        (voices(40, "female", "female", "male"), "PASS", "66.7%"),
        (voices(40, *["male"] * 9, "female"), "WARN", "'Male' is 90.0% of the answers of gender_recognition"),
        (voices(40, "male"), "FAIL", "All 40 answers of gender_recognition to train on are 'Male'"),
        (voices(4, "male"), "PASS", ""),
        (
            trials(*((f"id{n // 2}", "Yes" if n % 4 < 2 else "No") for n in range(40))),
            "WARN",
            "20 have one answer only",
        ),
        (trials(*((f"id{n // 2}", "Yes" if n % 2 else "No") for n in range(40))), "PASS", ""),
        (said(9), "PASS", "No task of labels is trained on"),
    ],
)
def test_labels_that_are_uneven_are_told(tmp_path: Path, rows: Any, verdict: str, says: str) -> None:
    found = gate(labels, dataset_of(tmp_path, {TRAIN: rows}))
    assert found[0] == verdict
    assert says.replace("66.7%", "67.5%") in found[1]


def spoken(lengths: dict[str, float], gender: str = "", per: int = 1) -> list[dict[str, Any]]:
    return [
        {
            "speaker": speaker,
            "gender": gender or ("female" if ord(speaker[-1:] or "a") % 2 else "male"),
            "samples": int(16_000 * s),
        }
        for speaker, s in lengths.items()
        for _ in range(per)
    ]


def test_speakers_are_counted_by_their_hours(tmp_path: Path) -> None:
    rows = spoken({"a": 3.0, "b": 1.0, "c": 4.0, "": 2.0, "d": 0.5}, per=2) + spoken({"a": 1.5})
    rows[4]["gender"] = ""
    dataset = dataset_of(tmp_path, {TRAIN: rows, TEST: said(3)})
    train = next(row for row in look(speakers, dataset) if row.split == TRAIN[1])
    mine = [row for row in rows_of(dataset) if row["split"] == TRAIN[1]]
    hours = Counter[str]()
    by_gender = Counter[str]()
    for row in mine:
        by_gender[row["gender"]] += row["samples"]
        if row["speaker"]:
            hours[row["speaker"]] += row["samples"]
    total = sum(row["samples"] for row in mine)
    each = list(hours.values())
    differences = sum(abs(x - y) for x in each for y in each)
    assert train.gini == pytest.approx(differences / (2 * len(each) ** 2 * statistics.mean(each)), abs=1e-8)
    assert (train.speakers, train.first) == (len(hours), hours.most_common(1)[0][0])
    assert train.most_share == pytest.approx(max(each) / total, abs=1e-8)
    assert train.median_hours == pytest.approx(statistics.median(each) / 16_000 / 3600, abs=1e-8)
    assert train.unknown == pytest.approx(1 - sum(each) / total, abs=1e-8)
    assert train.hours == pytest.approx(total / 16_000 / 3600, abs=1e-8)
    for value, sex in ((train.female_hours, "female"), (train.male_hours, "male"), (train.unknown_hours, "")):
        assert value == pytest.approx(by_gender[sex] / 16_000 / 3600, abs=1e-8)
    assert (train.women, train.men) == (2, 2)
    nobody = next(row for row in look(speakers, dataset) if row.split == TEST[1])
    assert (nobody.speakers, nobody.gini, nobody.most_share, nobody.unknown) == (0, None, None, 1.0)


EVEN = {f"s{n}": 1.0 for n in range(60)}


@pytest.mark.parametrize(
    ("rows", "verdict", "says"),
    [
        (spoken(EVEN), "PASS", "60 speakers in 1.0 min"),
        (
            spoken({**EVEN, "loud": 12.0}),
            "WARN",
            "loud speaks 16.7% of librispeech:train-clean-100, one of 61 speakers",
        ),
        (spoken({"a": 1.0, "b": 3.0}), "PASS", "at most 75.0% of a split"),
        (spoken(EVEN, gender="male"), "WARN", "100% of librispeech:train-clean-100 is spoken by men"),
        (said(5), "PASS", "names its speakers"),
    ],
)
def test_a_speaker_who_holds_too_much_is_told(tmp_path: Path, rows: Any, verdict: str, says: str) -> None:
    found = gate(speakers, dataset_of(tmp_path, {TRAIN: rows}))
    assert found[0] == verdict
    assert says in found[1]


NAMES = {
    "HIRAGANA": "Kana",
    "KATAKANA": "Kana",
    "CJK": "Han",
    "LATIN": "Latin",
    "CYRILLIC": "Cyrillic",
    "GREEK": "Greek",
}


def script(text: str) -> str:
    """The script of a text, by the names that Unicode gives its letters."""
    found = {NAMES.get(unicodedata.name(sign, "").split(" ")[0].split("-")[0]) for sign in text if sign.isalpha()}
    return next((name for name in SCRIPTS if name in found), "")


@settings(max_examples=60, deadline=None)
@given(st.text("aZ\u00e9\u00df 12.?\u4e2d\u56fd\u3042\u30ab\u0416\u03b1"))
def test_a_script_is_that_of_its_letters(text: str) -> None:
    [(found,)] = SQL.execute(f"select {languages.script('text')} from (select $1 as text)", [text]).fetchall()
    assert found == script(text)


def translated(task: str, *texts: str) -> list[dict[str, Any]]:
    return [{"asked": [(task, "Translate it.", [text])], "language": "en", "text": "Said."} for text in texts]


ZH, OLD, JA = "\u8fd9\u662f\u4ec0\u4e48", "\u9019\u662f\u4ec0\u9ebc", "\u3053\u308c\u306f\u4f55\u3067\u3059\u304b"


def test_scripts_are_counted(tmp_path: Path) -> None:
    rows = [
        *translated("translation_en_zh", ZH, ZH, OLD, "English", "\u4eba 7", "7"),
        *translated("translation_en_ja", JA, ZH),
    ]
    dataset = dataset_of(tmp_path, {("covost2", "train"): rows})
    found = look(languages, dataset)
    counts = Counter((row["tasks"][0], script(row["answers"][0][0])) for row in rows_of(dataset))
    seen = Counter[tuple[str, str]]()
    for row in found.answers:
        seen[row.task, row.script] += row.answers
        assert row.asked == "Latin"
        assert row.fits == (row.script != "Latin")
    assert seen == counts
    forms = {row.form: row.answers for row in found.answers if row.task == "translation_en_zh" and row.script == "Han"}
    assert forms == {"simplified": 2, "traditional": 1, "": 1}
    [text] = found.texts
    assert (text.language, text.script, text.texts, text.fits) == ("en", "Latin", 8, True)


def test_no_character_is_of_both_forms() -> None:
    assert len(set(PAIRS)) == len(PAIRS) == 2 * len(SIMPLIFIED_ONLY)
    # What was simplified is what Japanese and GB 2312 disagree on, and what Big5 has is the other.
    for sign in SIMPLIFIED_ONLY:
        sign.encode("gb2312")
    for sign in TRADITIONAL_ONLY:
        sign.encode("big5")
        with pytest.raises(UnicodeEncodeError):
            sign.encode("gb2312")


@pytest.mark.parametrize(
    ("rows", "verdict", "says"),
    [
        (translated("translation_en_zh", *[ZH] * 50), "PASS", "languages declared: en"),
        (translated("translation_en_zh", "This is it", *[ZH] * 9), "WARN", "10.0% of the answers of translation_en_zh"),
        (translated("translation_en_zh", ZH, *["This is it"] * 9), "FAIL", "not in the language that is asked for"),
        (translated("translation_en_ja", *[JA] * 50), "PASS", ""),
        (translated("translation_en_ja", *[JA] * 5, *[ZH] * 5), "WARN", "50.0% of the Japanese answers of librispeech"),
        (translated("translation_en_zh", *[ZH] * 5, OLD, OLD), "WARN", "28.6% of the Chinese answers"),
        (
            translated("translation_en_de", "Das ist es", "\u042d\u0442\u043e"),
            "WARN",
            "are in Cyrillic letters, not in Latin",
        ),
        (translated("asr", *[ZH] * 3), "WARN", "are in Han letters, not in Latin as expected"),
        ([{**row, "language": "zh-CN", "text": ZH} for row in translated("asr", *[ZH] * 3)], "PASS", "zh-CN"),
        ([{**row, "text": ZH} for row in said(3, language="en")], "WARN", "transcripts of librispeech are in Han"),
        ([{**row, "language": "xx"} for row in translated("asr", ZH)], "PASS", ""),
    ],
)
def test_texts_in_the_wrong_script_are_told(tmp_path: Path, rows: Any, verdict: str, says: str) -> None:
    found = gate(languages, dataset_of(tmp_path, {TRAIN: rows}))
    assert found[0] == verdict
    assert says in found[1]


def licensed(*names: str) -> list[dict[str, Any]]:
    return [{"license": name, "samples": 16_000 * (n + 1)} for n, name in enumerate(names)]


def test_hours_stand_under_what_corpus_and_clip_allow_together(tmp_path: Path) -> None:
    rows = licensed("CC0-1.0", "CC-BY-NC-4.0", "CC0-1.0", "CC-BY-4.0")
    dataset = dataset_of(tmp_path, {TRAIN: rows, ("clotho", "x"): licensed("CC-BY-SA-4.0")}, terms="CC-BY-4.0")
    found = look(licences, dataset)
    hours = Counter[tuple[str, str]]()
    for row in rows_of(dataset):
        hours[row["corpus"], row["license"]] += row["samples"] / 16_000 / 3600
    assert {(row.corpus, row.license): row.hours for row in found.rows} == pytest.approx(dict(hours), abs=1e-8)
    for row in found.rows:
        terms = clip_terms("CC-BY-4.0", row.license)
        assert (row.terms, row.commercial, row.may_push) == (terms.name, terms.commercial, terms.may_push)
    whole = joined(clip_terms("CC-BY-4.0", row.license) for row in found.rows)
    assert (found.terms, found.commercial, found.may_push) == (whole.name, whole.commercial, whole.may_push)
    assert {one.kind: one.hours for one in found.kinds} == pytest.approx(
        {
            kind: sum(n for (_, name), n in hours.items() if ("NC" in name) == (kind == "research"))
            for kind in ("open", "research")
        },
        abs=1e-8,
    )
    assert [reason.partition(":")[0] for reason in found.not_commercial] == ["librispeech"]
    assert found.not_pushed == ()


@pytest.mark.parametrize(
    ("names", "terms", "verdict", "says"),
    [
        (
            ["CC0-1.0", "CC-BY-4.0"],
            "CC-BY-4.0",
            "PASS",
            "may be used commercially and passed on, under CC BY 4.0; ATTRIB",
        ),
        (["CC-BY-NC-4.0"], "CC-BY-4.0", "WARN", "are not for commercial use (librispeech)"),
        (["MIT"], "MIT captions, YouTube audio", "WARN", "may not be passed on (librispeech)"),
        (["my own terms", "CC0-1.0"], "CC0-1.0", "FAIL", "states 'my own terms'. Read those terms, add them"),
        (["", "CC0-1.0"], "CC0-1.0", "FAIL", "librispeech states no licence. Find out"),
    ],
)
def test_terms_that_forbid_or_are_unknown_are_told(
    tmp_path: Path, names: list[str], terms: str, verdict: str, says: str
) -> None:
    found = gate(licences, dataset_of(tmp_path, {TRAIN: licensed(*names)}, terms=terms))
    assert found[0] == verdict
    assert says in found[1]
