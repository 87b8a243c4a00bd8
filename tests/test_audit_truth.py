"""The truth of the audit: forty planted faults, each found and named by its gate; the clean twin raises no failure."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import soundfile

from manifests import Recipe
from planted_world import LENGTH, Clip, World, build, clean, noise, recipe, sentence
from shards.audio import resample, to_pcm
from shards.audit import Report, audit
from shards.flac import RATE
from shards.sample import key_of

LIBRI, TEST = ("librispeech", "train-clean-100"), ("librispeech", "test-clean")
CAPTIONED, HELD_OUT = ("audiocaps", "train"), ("audiocaps", "test")
CLOTHO, WAVCAPS, MUSIC = ("clotho", "development"), ("wavcaps", "freesound"), ("musiccaps", "train")
EMOTION, PAIRS = ("iemocap", "session1"), ("voxceleb1", "verification-train")
TRANSLATED, PODCAST = ("covost2", "train"), ("gigaspeech", "xs")


class Fault(msgspec.Struct, frozen=True):
    """One fault: how it is planted, the gate that must not pass, and where the report must name it."""

    name: str
    plant: Callable[[World], Any]
    gate: str
    section: str
    needle: str
    """A text that stands in that section of the planted report, and not in that of the twin."""


def of(split: tuple[str, str], number: int) -> Callable[[World], Clip]:
    return lambda world: world.clips[split][number]


def key(split: tuple[str, str], number: int) -> str:
    """The key that a clip of the clean world has."""
    return key_of(clean().clips[split][number].id)


def same_audio(world: World, split: tuple[str, str], number: int, other: tuple[str, str], its: int) -> None:
    world.clips[split][number].pcm = world.clips[other][its].pcm


def twice(world: World) -> None:
    one, other = world.clips[LIBRI][0], world.clips[LIBRI][1]
    other.pcm, other.asked, other.text = one.pcm, one.asked, one.text


def twice_otherwise_stored(world: World) -> None:
    one, other = world.clips[CLOTHO][2], world.clips[CLOTHO][3]
    other.pcm, other.asked = one.pcm, one.asked
    path = Path("/dev/shm") / "otherwise.flac"
    soundfile.write(path, one.pcm, RATE, format="FLAC", compression_level=0.0)
    other.flac = path.read_bytes()
    path.unlink()


def quieter(world: World, split: tuple[str, str], number: int, other: tuple[str, str], its: int) -> None:
    pcm = world.clips[other][its].pcm
    world.clips[split][number].pcm = (pcm.astype(np.float64) * 0.4).astype(np.int16)


def same_text(world: World, split: tuple[str, str], number: int, other: tuple[str, str], its: int) -> None:
    mine, theirs = world.clips[split][number], world.clips[other][its]
    mine.text = theirs.text
    mine.asked[0] = ("asr", mine.asked[0][1], list(theirs.asked[0][2]))


def asked(world: World, split: tuple[str, str], number: int, *, prompt: str = "", answer: str | None = None) -> None:
    clip = world.clips[split][number]
    task, was, answers = clip.asked[0]
    clip.asked[0] = (task, prompt or was, answers if answer is None else [answer])


def one_caption(world: World) -> None:
    for number in range(25):
        asked(world, WAVCAPS, number, answer="A loud machine is running somewhere")


def one_answer(world: World, split: tuple[str, str], answer: str, but: int = 0) -> None:
    for number in range(but, len(world.clips[split])):
        asked(world, split, number, answer=answer)


def one_prompt(world: World) -> None:
    # Enough of them that chance does not explain it.
    for number in range(40):
        if number not in (14, 15):
            asked(world, LIBRI, number, prompt="Write it down.")


def prompt_of_another_task(world: World) -> None:
    asked(world, EMOTION, 0, prompt="Do what you always do with this clip.")
    asked(world, TRANSLATED, 0, prompt="Do what you always do with this clip.")


def told_in_the_prompt(world: World) -> None:
    clip = world.clips[LIBRI][15]
    answer = clip.asked[0][2][0]
    clip.asked[0] = ("asr", f"The answer is: {answer}. What is said?", [answer])


def fast(world: World) -> None:
    said = sentence(random.Random(5), 60)
    clip = world.clips[LIBRI][16]
    clip.text, clip.asked[0] = said.upper(), ("asr", clip.asked[0][1], [said.capitalize()])


def telephone(world: World) -> None:
    clip = world.clips[LIBRI][20]
    narrow = resample(clip.pcm[::1].astype(np.float32) / 32768, RATE)
    spectrum = np.fft.rfft(narrow)
    spectrum[int(3400 / RATE * len(narrow)) :] = 0
    clip.pcm = to_pcm(np.fft.irfft(spectrum, len(narrow)).astype(np.float32))


def silent_but_a_click(world: World) -> None:
    pcm = np.zeros(LENGTH, np.int16)
    pcm[-2000:] = noise(3)[:2000]
    world.clips[CAPTIONED][4].pcm = pcm


def one_speaker(world: World) -> None:
    for clip in world.clips[LIBRI]:
        if int(clip.speaker.partition("/")[2]) % 2:
            clip.speaker = "librispeech/9101"


def zeros(world: World) -> None:
    world.clips[CAPTIONED][2].pcm = np.zeros(LENGTH, np.int16)


def clipped(world: World) -> None:
    world.clips[CAPTIONED][3].pcm = np.clip(noise(2, 60000.0).astype(np.int64) * 40, -32768, 32767).astype(np.int16)


def offset(world: World) -> None:
    world.clips[CAPTIONED][5].pcm = (world.clips[CAPTIONED][5].pcm // 2 + 6000).astype(np.int16)


def video(world: World) -> None:
    world.clips[MUSIC][1].id = "musiccaps/testvide002"


def same_video(world: World) -> None:
    world.clips[CAPTIONED][1].id = "audiocaps/testvide000_70"


def same_file(world: World) -> None:
    world.clips[CLOTHO][0].id = "clotho/development/Rain 0.wav"


def verification_speaker(world: World) -> None:
    world.clips[PAIRS][0].id = "voxceleb1/id10270/vida/00001+id10270/vidb/00002"


def same_speaker(world: World) -> None:
    world.clips[LIBRI][11].speaker = "librispeech/9200"


def own_licence(world: World) -> None:
    world.clips[CLOTHO][1].license = "The Wind Company's terms"


def no_licence(world: World) -> None:
    world.terms["covost2"] = ""
    for clip in world.clips[TRANSLATED]:
        clip.license = ""


def refused(world: World) -> None:
    world.refused += [
        ("iemocap", "session1", f"iemocap/bad{n}", "quarantined", "truncated", "cut off") for n in range(20)
    ]


FAULTS = (
    Fault("the same bytes twice", twice, "duplicates", "duplicates", key(LIBRI, 1)),
    Fault("the same sound, otherwise stored", twice_otherwise_stored, "duplicates", "duplicates", key(CLOTHO, 3)),
    Fault(
        "one text, two clips",
        lambda w: same_text(w, PODCAST, 7, PODCAST, 6),
        "duplicates",
        "duplicates",
        key(PODCAST, 7),
    ),
    Fault("a quieter copy", lambda w: quieter(w, LIBRI, 7, LIBRI, 6), "duplicates", "duplicates", key(LIBRI, 7)),
    Fault(
        "one sound, two answers", lambda w: same_audio(w, LIBRI, 9, LIBRI, 8), "duplicates", "duplicates", key(LIBRI, 9)
    ),
    Fault(
        "a sound of another corpus",
        lambda w: same_audio(w, WAVCAPS, 0, CAPTIONED, 0),
        "duplicates",
        "duplicates",
        key(WAVCAPS, 0),
    ),
    Fault("one caption for many clips", one_caption, "answers", "answers", "A loud machine is running somewhere"),
    Fault("trained on a test clip", lambda w: same_audio(w, LIBRI, 10, TEST, 0), "leak", "leakage", key(LIBRI, 10)),
    Fault("the same video, another moment", same_video, "leak", "leakage", "audiocaps_testvide000_70"),
    Fault("a test video in another corpus", video, "leak", "leakage", "musiccaps_testvide002"),
    Fault("a test speaker", same_speaker, "leak", "leakage", "librispeech/9200"),
    Fault("a test sentence", lambda w: same_text(w, LIBRI, 12, TEST, 2), "leak", "leakage", key(LIBRI, 12)),
    Fault("a test clip made quieter", lambda w: quieter(w, LIBRI, 13, TEST, 3), "leak", "leakage", key(LIBRI, 13)),
    Fault("a test sound by its name", same_file, "leak", "leakage", key_of("clotho/development/Rain 0.wav")),
    Fault("a speaker of the verification test", verification_speaker, "leak", "leakage", "id10270"),
    Fault("one emotion", lambda w: one_answer(w, EMOTION, "Neutral", 1), "labels", "gates", "emotion_recognition"),
    Fault("always yes", lambda w: one_answer(w, PAIRS, "Yes"), "labels", "gates", "speaker_verification"),
    Fault(
        "an open place in a prompt",
        lambda w: asked(w, LIBRI, 14, prompt="Write {language} down."),
        "prompts",
        "prompts",
        key(LIBRI, 14),
    ),
    Fault("one prompt for all", one_prompt, "prompts", "prompts", "Write it down."),
    Fault(
        "one prompt for two tasks",
        prompt_of_another_task,
        "prompts",
        "prompts",
        "Do what you always do with this clip.",
    ),
    Fault("an answer in its prompt", told_in_the_prompt, "prompts", "prompts", key(LIBRI, 15)),
    Fault("no answer", lambda w: asked(w, PODCAST, 0, answer=" "), "answers", "answers", key(PODCAST, 0)),
    Fault(
        "tags of the transcriber",
        lambda w: asked(w, PODCAST, 1, answer="yes <COMMA> we do <PERIOD>"),
        "answers",
        "answers",
        key(PODCAST, 1),
    ),
    Fault(
        "an answer without end",
        lambda w: asked(w, PODCAST, 2, answer=sentence(random.Random(1), 900)),
        "answers",
        "answers",
        key(PODCAST, 2),
    ),
    Fault(
        "the same words again and again",
        lambda w: asked(w, PODCAST, 3, answer="thank you " * 20),
        "answers",
        "answers",
        key(PODCAST, 3),
    ),
    Fault(
        "a letter that was lost",
        lambda w: asked(w, PODCAST, 4, answer="na\ufffdve as it may be"),
        "answers",
        "answers",
        key(PODCAST, 4),
    ),
    Fault("more words than one can say", fast, "answers", "answers", key(LIBRI, 16)),
    Fault(
        "a translation in other letters",
        lambda w: one_answer(w, TRANSLATED, "It was not translated at all"),
        "languages",
        "languages",
        key(TRANSLATED, 0),
    ),
    Fault("nothing but zeros", zeros, "quality", "quality", key(CAPTIONED, 2)),
    Fault("clipping", clipped, "quality", "quality", key(CAPTIONED, 3)),
    Fault("silence", silent_but_a_click, "quality", "quality", key(CAPTIONED, 4)),
    Fault("an offset", offset, "quality", "quality", key(CAPTIONED, 5)),
    Fault("a telephone", telephone, "quality", "quality", key(LIBRI, 20)),
    Fault("one speaker too much", one_speaker, "speakers", "gates", "librispeech/9101"),
    Fault("a licence of its own", own_licence, "licence", "licences", "The Wind Company's terms"),
    Fault("no licence", no_licence, "licence", "gates", "covost2"),
    Fault("refusals that nobody lists", lambda w: w.unlisted.update({MUSIC: 3}), "counts", "gates", "musiccaps"),
    Fault("half of the corpus is gone", lambda w: w.published.update({CAPTIONED: 16}), "coverage", "targets", "0.5"),
    Fault("many refusals", refused, "refusals", "quarantine", "truncated"),
)


def leaves(value: Any) -> list[str]:
    """All texts and numbers of plain values."""
    if isinstance(value, dict):
        return [text for name, one in value.items() for text in [str(name), *leaves(one)]]
    if isinstance(value, list | tuple):
        return [text for one in value for text in leaves(one)]
    return [str(value)]


def audited(folder: Path, plants: tuple[Callable[[World], Any], ...], order: Recipe) -> Report:
    world = clean()
    for plant in plants:
        plant(world)
    return audit(build(folder, world), order)


def told(report: Report, section: str, gate: str) -> list[str]:
    """What a section says; of the gates, only what the one in question does."""
    if section == "gates":
        return [one.sentence for one in report.gates if one.name == gate]
    return leaves(msgspec.to_builtins(getattr(report, section)))


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return audited(tmp_path_factory.mktemp("truth") / "clean", (), recipe())


def test_the_clean_twin_raises_no_failure(twin: Report) -> None:
    assert {gate.name for gate in twin.gates if gate.verdict == "FAIL"} == set()
    expected = {fault.gate for fault in FAULTS}
    assert expected <= {gate.name for gate in twin.gates}


def test_a_dataset_with_all_of_them_names_each(twin: Report, tmp_path: Path) -> None:
    report = audited(tmp_path, tuple(fault.plant for fault in FAULTS), recipe())
    named = [fault for fault in FAULTS if fault.section != "gates"]
    missed = [one.name for one in named if not any(one.needle in text for text in told(report, one.section, one.gate))]
    alarmed = [one.name for one in named if any(one.needle in text for text in told(twin, one.section, one.gate))]
    assert len(named) >= 30
    assert missed == [] and alarmed == []
    assert {gate.name for gate in report.gates if gate.verdict == "PASS"}.isdisjoint(fault.gate for fault in FAULTS)


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_is_caught_by_its_gate_and_named(fault: Fault, twin: Report, tmp_path: Path) -> None:
    report = audited(tmp_path, (fault.plant,), recipe())
    [gate] = [gate for gate in report.gates if gate.name == fault.gate]
    [before] = [gate for gate in twin.gates if gate.name == fault.gate]
    worse = ("PASS", "WARN", "FAIL")
    assert gate.verdict != "PASS"
    assert gate.sentence != before.sentence and worse.index(gate.verdict) >= worse.index(before.verdict)
    assert any(fault.needle in text for text in told(report, fault.section, fault.gate))
    assert not any(fault.needle in text for text in told(twin, fault.section, fault.gate))
