"""Tasks: their prompts, their answers on real clips, phones against the lexicon itself, the form of a transcript."""

from __future__ import annotations

import collections
import gzip
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests import TASKS, AudioRef, Clip, UserError, draw, load_corpus
from manifests.phones import FOLDER, lexicons, pronounce, word_sources
from manifests.tasks import NoAnswer, find_task, instruct
from manifests.text import sentence_case

CMUDICT_39 = set(
    "AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW V W Y Z ZH".split()  # noqa: SIM905
)


def clip(**facts: object) -> Clip:
    return Clip(id="any/thing", audio=(AudioRef(path="a.wav"),), **facts)  # type: ignore[arg-type]


SLOTTED = {"speech_qa", "audio_qa", "music_qa", "slot_filling"}
FULL_STOPS = "\u3002\uff1f"
ANY = clip(
    text="YES\nNO",
    gender="male",
    captions=("A dog barks",),
    translations={"zh-CN": "x", "de": "x", "ja": "x"},
    labels={"emotion": "sad", "same_speaker": "yes", "keywords": "a; b", "story": "Once upon a time."},
    questions=(("Who speaks?", "A man"), ("", "Rain")),
)
"""A clip of which every task can ask something."""


def answers(task: str, of: Clip) -> tuple[str, ...]:
    (instruction,) = instruct(TASKS[task], of, "some_key")
    assert instruction.task == task
    assert instruction.prompt in TASKS[task].prompts
    return instruction.answers


@pytest.fixture(scope="module")
def librispeech(corpora: Path) -> dict[str, Clip]:
    """Every clip of the miniature, by the name of its file."""
    corpus = load_corpus("librispeech")
    splits = ("train-clean-100", "dev-clean", "test-clean", "test-other")
    clips = [clip for split in splits for clip in corpus.clips(corpora / "librispeech", split)]
    return {clip.id.split("/")[1]: clip for clip in clips}


# -- prompts


@pytest.mark.parametrize("task", TASKS)
def test_a_task_has_ten_prompts_or_more_and_all_are_sentences_of_their_own(task: str) -> None:
    prompts = TASKS[task].prompts
    assert len(prompts) >= 12
    assert len({prompt.lower() for prompt in prompts}) == len(prompts)
    for prompt in prompts:
        assert prompt.isascii() or task == "translation_en_zh"
        assert prompt == prompt.strip()
        # one place for the question where the task has one, none for the audio: the model's template has that
        assert prompt.count("{}") == (task in SLOTTED)
        bare = prompt.replace("{}", "")
        assert not bare or bare.rstrip()[-1] in ".?!:," + FULL_STOPS
        assert not re.search(r"[{}<>%\[\]$]", bare)


def test_no_two_tasks_share_a_prompt() -> None:
    prompts = [prompt.lower() for task in TASKS.values() if task.name not in SLOTTED for prompt in task.prompts]
    assert len(set(prompts)) == len(prompts)


def test_every_file_of_prompts_has_its_task() -> None:
    folder = Path(FOLDER).parent / "prompts"
    assert {path.stem for path in folder.glob("*.txt")} == set(TASKS)


@pytest.mark.parametrize("task", TASKS)
def test_prompts_are_drawn_by_key_alone_and_about_equally_often(task: str) -> None:
    of = ANY
    drawn = [instruct(TASKS[task], of, f"key_{number}")[0].prompt for number in range(2400)]
    assert drawn == [instruct(TASKS[task], of, f"key_{number}")[0].prompt for number in range(2400)]
    counts = collections.Counter(drawn)
    question = next((q for q, _ in ANY.questions if q), "")
    assert counts.keys() == {prompt.replace("{}", question) for prompt in TASKS[task].prompts}
    expected = len(drawn) / len(counts)
    chi_squared = sum((count - expected) ** 2 / expected for count in counts.values())
    assert chi_squared < 40, "not one in ten thousand uniform draws of twelve is so uneven"


def test_the_prompts_of_two_tasks_on_one_clip_are_drawn_apart() -> None:
    keys = [f"key_{number}" for number in range(400)]
    places = [
        [TASKS[task].prompts.index(instruct(TASKS[task], clip(text="YES"), key)[0].prompt) for key in keys]
        for task in ("asr", "phone_recognition")
    ]
    same = sum(one == other for one, other in zip(*places, strict=True))
    assert 10 < same < 70


@given(st.lists(st.text(max_size=5) | st.integers(), max_size=4), st.integers(1, 50))
def test_a_choice_is_one_of_the_options_and_always_the_same(names: list[str | int], count: int) -> None:
    options = list(range(count))
    assert draw.choice(options, *names) in options
    assert draw.choice(options, *names) == draw.choice(options, *names)


def test_a_draw_is_the_same_on_every_machine() -> None:
    # Written down once: another number here deals every published dataset in another order.
    assert draw.number("order", 0, "asr", "librispeech", "dev-clean", 0) == 11782413385614490404


# -- answers, held against answers made by hand from the published texts and CMUdict


def test_asr_answers_in_sentence_case(librispeech: dict[str, Clip]) -> None:
    said = {
        "1272-128104-0000": "Mister quilter is the apostle of the middle classes and we are glad to welcome his gospel",
        "1089-134691-0000": "He could wait no longer",
        "1688-142285-0002": "You don't mean that you thought me so silly",
    }
    for name, text in said.items():
        assert answers("asr", librispeech[name]) == (text,)


def test_gender_answers_one_word(librispeech: dict[str, Clip]) -> None:
    # Kara Shallenberg, |CBW|Simon, Peter Bobbe
    found = [
        answers("gender_recognition", librispeech[n]) for n in ("19-198-0000", "60-121082-0000", "1089-134691-0000")
    ]
    assert found == [("Female",), ("Male",), ("Male",)]


def test_phones_are_those_of_the_dictionary_without_stress(librispeech: dict[str, Clip]) -> None:
    # he HH IY1, could K UH1 D, wait W EY1 T, no N OW1, longer L AO1 NG G ER0
    assert answers("phone_recognition", librispeech["1089-134691-0000"]) == ("HH IY K UH D W EY T N OW L AO NG G ER",)
    assert answers("phone_recognition", librispeech["1272-128104-0000"])[0].startswith(
        "M IH S T ER K W IH L T ER IH Z DH AH AH P AA S AH L"
    )


def test_every_caption_is_a_right_answer_once(corpora: Path) -> None:
    rooster = next(c for c in load_corpus("audiocaps").clips(corpora / "audiocaps", "test") if "3-107219" in c.id)
    assert answers("audio_caption", rooster) == (
        "A rooster is crowing",
        "A cock crows",
        "Crowing of a rooster",
        "A rooster calls out",
        "A rooster crows in the morning",
    )
    assert answers("audio_caption", clip(captions=(" rain ", "rain", "wind", ""))) == ("rain", "wind")


@pytest.mark.parametrize(
    ("task", "of", "reason"),
    [
        ("asr", clip(), "no_text"),
        ("asr", clip(text=" - ... "), "empty_answer"),
        ("phone_recognition", clip(), "no_text"),
        ("phone_recognition", clip(text="CALL 42"), "no_pronunciation"),
        ("gender_recognition", clip(), "no_gender"),
        ("gender_recognition", clip(gender="unknown"), "no_gender"),
        ("audio_caption", clip(), "no_caption"),
        ("audio_caption", clip(captions=("", " ")), "empty_answer"),
    ],
)
def test_a_clip_of_which_nothing_can_be_asked_has_a_reason(task: str, of: Clip, reason: str) -> None:
    with pytest.raises(NoAnswer) as nothing:
        instruct(TASKS[task], of, "key")
    assert nothing.value.reason == reason


def test_a_transcript_without_a_spoken_word_has_no_phones_for_the_same_reason_as_no_text() -> None:
    with pytest.raises(NoAnswer) as nothing:
        instruct(TASKS["phone_recognition"], clip(text=" - ... "), "key")
    assert nothing.value.reason in ("empty_answer", "no_text")


def test_an_unknown_task_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"no task 'gender_recogniton'; did you mean 'gender_recognition'\?"):
        find_task("gender_recogniton")


# -- phones


def test_all_phones_of_the_lexicon_are_the_39() -> None:
    for words in lexicons().values():
        assert {phone for phones in words.values() for phone in phones} <= CMUDICT_39
        assert all(words.values())
    assert {phone for phones in lexicons()["cmudict"].values() for phone in phones} == CMUDICT_39


def test_every_word_of_the_miniature_is_pronounced(librispeech: dict[str, Clip]) -> None:
    for of in librispeech.values():
        phones = pronounce(sentence_case(of.text))
        assert phones, of.id
        assert set(phones) <= CMUDICT_39


def test_cmudict_is_read_as_an_independent_parser_reads_it() -> None:
    row = re.compile(r"^(?P<word>[^\s(]+)(?P<variant>\(\d+\))? (?P<phones>[A-Z0-9 ]+?)(?: #.*)?$")
    corpus_words = {
        line.split("\t")[0].lower()
        for line in gzip.decompress((FOLDER / "librispeech-g2p.txt.gz").read_bytes()).decode().splitlines()
    }
    told: dict[str, tuple[str, ...]] = {}
    for line in gzip.decompress((FOLDER / "cmudict.dict.gz").read_bytes()).decode().splitlines():
        match = row.match(line)
        assert match, line
        if not match["variant"]:
            told[match["word"]] = tuple(re.sub(r"\d", "", match["phones"]).split())
    assert len(told) > 120_000
    assert lexicons()["cmudict"] == told
    assert set(lexicons()["librispeech-g2p"]) == corpus_words


def test_the_lexicon_of_the_corpus_goes_before_cmudict() -> None:
    text = gzip.decompress((FOLDER / "librispeech-g2p.txt.gz").read_bytes()).decode()
    rows = dict(reversed([line.lower().split("\t", 1) for line in text.splitlines()]))
    for word in list(rows)[:: len(rows) // 500]:
        assert pronounce(word) == tuple(re.sub(r"\d", "", rows[word]).upper().split())


def test_a_word_of_no_lexicon_is_guessed_with_phones_of_the_39() -> None:
    pytest.importorskip("gruut")
    assert word_sources("the blorfinate 1999") == {"cmudict": 1, "gruut": 1, "unknown": 1}
    phones = pronounce("blorfinate")
    assert phones
    assert set(phones) <= CMUDICT_39
    assert phones[:2] == ("B", "L")
    assert pronounce("The blorfinate") == ("DH", "AH", *phones)


@pytest.mark.parametrize("text", ["the 42", "caf\u00e9 x9z", "\u4f60\u597d", "'"])
def test_what_is_no_english_word_has_no_phones_at_all(text: str) -> None:
    assert pronounce(text) is None


# -- the form of a transcript


@given(st.text())
def test_sentence_case_done_twice_is_sentence_case_done_once(text: str) -> None:
    assert sentence_case(sentence_case(text)) == sentence_case(text)


@given(st.text(st.sampled_from("aAzZ\u00e9\u00c9\u00df\u0130\ufb01 '\u2019.,-_!?0\t\n\u0301")))
def test_sentence_case_leaves_words_with_single_spaces_and_no_punctuation(text: str) -> None:
    words = sentence_case(text)
    assert words == " ".join(words.split())
    assert not set(words) & set(".,-_!?\u2019")
    assert words[1:] == words[1:].lower()
    assert all(word.strip("'") for word in words.split())


@given(st.lists(st.text(st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZ"), min_size=1, max_size=9), min_size=1, max_size=9))
def test_sentence_case_loses_no_letter(words: list[str]) -> None:
    assert sentence_case(" ".join(words)) == " ".join(words).capitalize()


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("DON'T STOP", "Don't stop"),
        ("'TIS THE BOYS' DOG", "'tis the boys' dog"),
        ("It\u2019s 5 o'clock -- really?", "It's 5 o'clock really"),
        ("well-known, e.g. here", "Well known e g here"),
        ("\u00c9COLE", "\u00c9cole"),
        ("", ""),
        ("...", ""),
    ],
)
def test_sentence_case_by_example(text: str, form: str) -> None:
    assert sentence_case(text) == form


@pytest.mark.parametrize(
    "text",
    [
        "\u0939\u093f\u0928\u094d\u0926\u0940",  # Hindi: vowels are marks
        "\u0e44\u0e17\u0e22\u0e19\u0e35\u0e49",  # Thai: tones are marks
        "s\u0331a",  # a letter that has no composed form
    ],
)
def test_marks_belong_to_their_letters(text: str) -> None:
    kept = unicodedata.normalize("NFC", text)
    assert sentence_case(text).lower() == kept


# -- the other tasks, on clips made for them


def test_labels_are_answered_in_the_words_of_the_released_annotations() -> None:
    assert answers("emotion_recognition", clip(labels={"emotion": "angry"})) == ("Angry",)
    assert answers("speaker_verification", clip(labels={"same_speaker": "no"})) == ("No",)
    for task, wrong in (("emotion_recognition", {"emotion": "surprised"}), ("speaker_verification", {})):
        with pytest.raises(NoAnswer):
            instruct(TASKS[task], clip(labels=wrong), "k")


def test_overlapped_speech_is_a_sentence_for_each_speaker_in_order() -> None:
    two = clip(text="HE COULD WAIT NO LONGER\nYOU DON'T MEAN THAT")
    assert answers("overlapped_speech_recognition", two) == ("He could wait no longer. You don't mean that.",)
    with pytest.raises(NoAnswer, match="no_second_speaker"):
        instruct(TASKS["overlapped_speech_recognition"], clip(text="ALONE"), "k")


def test_each_question_is_an_instruction_and_its_several_answers_are_all_right() -> None:
    asked = clip(questions=(("Who?", "Tom"), ("Where?", "Here"), ("Who?", "Thomas"), ("", "spoken")))
    made = instruct(TASKS["speech_qa"], asked, "k")
    assert [(one.slot, one.answers) for one in made] == [("Who?", ("Tom", "Thomas")), ("Where?", ("Here",))]
    assert all(one.slot in one.prompt for one in made)
    assert answers("spoken_query_qa", asked) == ("spoken",)


def test_tags_of_gigaspeech_are_not_spoken() -> None:
    text = "FOUR O'CLOCK TOMORROW AFTERNOON <COMMA> SAID WILLIAMS <PERIOD>"
    assert answers("asr", clip(text=text)) == ("Four o'clock tomorrow afternoon said williams",)


def test_translations_are_answered_as_published() -> None:
    assert answers("translation_en_zh", clip(translations={"zh-CN": "\u4f60\u597d\u3002"})) == ("\u4f60\u597d\u3002",)
    with pytest.raises(NoAnswer, match="no_translation"):
        instruct(TASKS["translation_en_de"], clip(translations={"ja": "x"}), "k")


def test_keywords_are_one_answer() -> None:
    assert answers("keyword_extraction", clip(labels={"keywords": "neural nets; ears"})) == ("neural nets, ears",)


def test_torchaudio_parses_cmudict_to_the_same_phones(tmp_path: Path) -> None:
    """Its parser takes the older layout, so a part of our file is written in that one: WORD  PH1 PH2, upper case."""
    from torchaudio.datasets import CMUDict

    words = {word: phones for word, phones in lexicons()["cmudict"].items() if word.isalpha()}
    chosen = dict(list(words.items())[::97])
    folder = tmp_path
    lines = [f"{word.upper()}  {' '.join(phones)}" for word, phones in chosen.items()]
    (folder / "cmudict-0.7b").write_text(";;; part of CMUdict\n" + "\n".join(lines) + "\n", encoding="latin-1")
    (folder / "cmudict-0.7b.symbols").write_text("\n".join(sorted(CMUDICT_39)) + "\n")
    read = CMUDict(folder, exclude_punctuations=True, download=False)
    told = {word.lower(): tuple(phones) for word, phones in (read[place] for place in range(len(read)))}
    assert len(told) > 1000
    assert told == chosen
