"""Speech: the same words sound the same anywhere, the speaker lives and dies with its process, engines can be added."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests import UserError
from shards import espeak, speech
from shards.speech import SpeechFailed, engine_versions, register, synthesize

TOP = Path(__file__).parents[1]
SENTENCE = "A person snoring with another man speaking, as a door slams shut."
VOICES = ("en-us", "en-gb", "en-us+f3", "en-gb+f2", "en-us+klatt", "de")
"""The variants draw noise."""


def digest(text: str, voice: str, seed: int = 0) -> str:
    pcm, rate = synthesize(text, voice, seed)
    return hashlib.sha256(f"{rate}".encode() + pcm.tobytes()).hexdigest()


def speaker_pid() -> int:
    synthesize("one", "en-us")
    assert speech.EMBEDDED.speaker is not None
    return speech.EMBEDDED.speaker.process.pid


def gone(pid: int) -> bool:
    """Whether a process ends within ten seconds; a zombie has ended."""
    for _ in range(200):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.05)
    return False


def start(*lines: str) -> subprocess.Popen[str]:
    """Run a program that has this module as `t`, as a worker would."""
    program = "\n".join(("import os, sys, time", "sys.path.insert(0, 'tests')", "import test_speech as t", *lines))
    return subprocess.Popen([sys.executable, "-c", program], cwd=TOP, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("voice", VOICES)
def test_a_sentence_sounds_the_same_whatever_was_said_before(voice: str) -> None:
    first = digest(SENTENCE, voice)
    synthesize("Something else, said in between.", "en-us+f4")
    assert {digest(SENTENCE, voice) for _ in range(2)} == {first}


def test_a_sentence_sounds_the_same_in_another_process() -> None:
    running = [start("for voice in t.VOICES:", "    print(t.digest(t.SENTENCE, voice))") for _ in range(2)]
    told = [process.communicate(timeout=60)[0].split() for process in running]
    assert told[0] == told[1] == [digest(SENTENCE, voice) for voice in VOICES]
    assert len(set(told[0])) == len(VOICES)


def test_the_seed_is_the_noise_of_breathy_voices_and_changes_no_other() -> None:
    assert len({digest("hello", "en-us+f3", seed) for seed in (0, 1, -1, 2**40)}) == 4
    assert len({digest("hello", "en-us", seed) for seed in (0, 1, -1, 2**40)}) == 1


def test_speech_is_sound_of_about_the_right_length() -> None:
    pcm, rate = synthesize(SENTENCE, "en-us")
    assert (pcm.dtype, pcm.ndim, rate) == (np.int16, 1, 22050)
    assert 2.5 < len(pcm) / rate < 5
    assert 3000 < np.abs(pcm.astype(int)).max() < 32767


def test_an_abstract_of_two_hundred_words_is_spoken_whole_and_fast() -> None:
    sentence = "The method is simple and the results are better than those of the older method. "
    start = time.monotonic()
    pcm, rate = synthesize(sentence * 14, "en-us")
    assert time.monotonic() - start < 5
    assert 50 < len(pcm) / rate < 120
    assert len(pcm) > 10 * len(synthesize(sentence, "en-us")[0])
    assert np.abs(pcm[-rate * 3 :].astype(int)).max() > 3000


def test_a_question_takes_some_milliseconds() -> None:
    synthesize("one", "en-us")
    start = time.monotonic()
    for number in range(40):
        synthesize(f"how are glacier caves formed in {number}?", "en-us")
    assert (time.monotonic() - start) / 40 < 0.1  # 0.008 s on an idle machine


@pytest.mark.parametrize(
    "text", ["caf\u00e9 na\u00efve", "\u4f60\u597d", "\U0001f600", "\ud800 lone", "e\u0301", "\u202egnp"]
)
def test_any_script_is_spoken(text: str) -> None:
    assert len(synthesize(text, "en-us")[0]) > 1000


def test_text_is_words_and_never_commands() -> None:
    # NUL would end the text, \x01 would make the voice faster, markup and [[phonemes]] would be obeyed.
    assert digest("one\x00two", "en-us") == digest("one two", "en-us")
    assert digest("one \x01450S two", "en-us") == digest("one  450S two", "en-us")
    assert len(synthesize("<break time='20s'/> one", "en-us")[0]) < 22050 * 10
    assert digest("[[h@'loU]]", "en-us") != digest("hello", "en-us")


@settings(max_examples=30)
@given(st.text(min_size=1, max_size=40), st.sampled_from(VOICES))
def test_any_text_is_spoken_twice_alike_or_refused_as_empty(text: str, voice: str) -> None:
    if text.strip():
        assert digest(text, voice) == digest(text, voice)
    else:
        with pytest.raises(UserError, match="no text to speak"):
            synthesize(text, voice)


@pytest.mark.parametrize(
    ("voice", "told"),
    [
        ("en-uk", r"espeak-ng has no voice 'en-uk'; did you mean 'en-us'\?"),
        ("en-us+f33", r"espeak-ng has no variant 'f33' of 'en-us'; did you mean 'f3'\?"),
        ("../../etc/passwd", r"espeak-ng has no voice '\.\./\.\./etc/passwd'; known: af, "),
        ("", r"espeak-ng has no voice ''; known: "),
        # Listed by espeak-ng, but espeakng-loader 0.2.4 lacks its dictionary.
        ("fo", r"espeak-ng has no voice 'fo'; "),
        ("espeakng:en-us", r"there is no speech engine 'espeakng'; did you mean 'espeak-ng'\?"),
    ],
)
def test_an_unknown_voice_is_refused_with_the_nearest(voice: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        synthesize("hello", voice)


def test_a_voice_may_use_the_dictionary_of_another() -> None:
    assert len(synthesize("god dag", "nb")[0]) > 5000


def test_a_voice_has_several_names() -> None:
    # espeak-ng itself does not know its own language en-gb.
    assert digest("hello", "en-gb") == digest("hello", "en") == digest("hello", "espeak-ng:en-gb")
    assert digest("hello", "en-US") == digest("hello", "en-us")


def test_without_the_package_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(UserError, match=r"espeakng-loader, which is not installed"):
        speech.Espeak().synthesize("hello", "en-us", 0)
    assert "espeak-ng" not in engine_versions()


def test_a_broken_library_is_told_as_such(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "espeak.so").write_text("no library")
    monkeypatch.setattr(speech, "locate", lambda: (str(tmp_path / "espeak.so"), str(tmp_path)))
    with pytest.raises(SpeechFailed, match=r"does not start from .*espeak\.so"):
        speech.Espeak().synthesize("hello", "en-us", 0)


def test_the_data_may_lie_deeper_than_the_library_has_room_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    library, data = speech.locate()
    deep = tmp_path.joinpath(*["a_virtual_environment_of_a_worker"] * 8)
    deep.mkdir(parents=True)
    (deep / "espeak-ng-data").symlink_to(data)
    monkeypatch.setattr(speech, "locate", lambda: (library, str(deep / "espeak-ng-data")))
    engine = speech.Espeak()
    assert np.array_equal(engine.synthesize("hello", "en-us", 0)[0], synthesize("hello", "en-us")[0])
    engine.stop()


def test_a_speaker_that_died_is_started_anew() -> None:
    before, pid = digest(SENTENCE, "en-us"), speaker_pid()
    os.kill(pid, signal.SIGKILL)
    assert gone(pid)
    assert digest(SENTENCE, "en-us") == before
    assert speaker_pid() != pid


def test_an_utterance_that_breaks_the_library_is_a_failure_and_the_next_is_spoken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(speech, "find_voice", lambda _voice, _facts: "no such voice")
        with pytest.raises(SpeechFailed, match=r"status 1 over 'hello'"):
            synthesize("hello", "en-us")
    assert len(synthesize("hello", "en-us")[0]) > 1000


def test_an_interrupted_question_does_not_get_the_next_ones_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = digest("two", "en-us")

    def interrupt(_handle: int) -> bytes:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(espeak, "read_frame", interrupt)
        with pytest.raises(KeyboardInterrupt):
            synthesize("one and a good deal more", "en-us")
    assert digest("two", "en-us") == wanted


def test_threads_take_turns_and_get_their_own_answers() -> None:
    texts = [f"number {number}" for number in range(24)]
    wanted = [digest(text, "en-us") for text in texts]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda text: digest(text, "en-us"), texts)) == wanted


def test_the_speaker_has_one_thread_and_little_memory() -> None:
    status = Path(f"/proc/{speaker_pid()}/status").read_text()
    facts = dict(line.split(":", 1) for line in status.splitlines())
    assert int(facts["Threads"]) == 1
    assert int(facts["VmRSS"].split()[0]) < 60_000  # kB


def test_the_speaker_ends_when_its_parent_is_killed() -> None:
    with start("print(t.speaker_pid(), flush=True)", "time.sleep(60)") as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    assert gone(pid)


def test_a_fork_speaks_through_a_speaker_of_its_own() -> None:
    program = start(
        "mine, child = t.speaker_pid(), os.fork()",
        "print((t.speaker_pid() == mine) == (child != 0), t.digest('hello', 'en-us'), flush=True)",
        "os._exit(0) if child == 0 else os.wait()",
    )
    out, _ = program.communicate(timeout=60)
    assert out.split() == ["True", digest("hello", "en-us")] * 2


class Tones:
    """An engine in ten lines: each letter is a sine of its own."""

    name = "tones"
    version = "1"
    licence = "Apache-2.0"
    deterministic = True
    weights_sha256 = "ab" * 32

    def synthesize(self, text: str, voice: str, seed: int) -> tuple[np.ndarray, int]:
        if voice not in ("low", "high"):
            raise UserError(f"tones has no voice {voice!r}; known: high, low")
        base = 200 if voice == "low" else 800
        waves = [np.sin(np.arange(800) * 2 * np.pi * (base + ord(letter) + seed) / 8000) for letter in text]
        return (np.concatenate(waves) * 9000).astype(np.int16), 8000


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> dict[str, speech.Engine]:
    """The registry, put back after the test."""
    monkeypatch.setattr(speech, "ENGINES", dict(speech.ENGINES))
    return speech.ENGINES


def test_another_engine_speaks_under_its_name(engines: dict) -> None:
    register(Tones())
    pcm, rate = synthesize("abc", "tones:low", 3)
    assert (len(pcm), rate) == (2400, 8000)
    assert not np.array_equal(pcm, synthesize("abc", "tones:low", 4)[0])
    with pytest.raises(UserError, match="tones has no voice 'mid'"):
        synthesize("abc", "tones:mid")
    assert engine_versions()["tones"] == "1 weights abababababababab"


def test_an_installed_package_brings_an_engine(engines: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("tones", f"{__name__}:Tones", speech.GROUP)
    monkeypatch.setattr(speech, "entry_points", lambda group, name="tones": [point] if name == "tones" else [])
    assert set(engine_versions()) == {"espeak-ng", "tones"}
    assert synthesize("abc", "tones:high")[1] == 8000
    with pytest.raises(UserError, match=r"no speech engine 'tone'; did you mean 'tones'\?"):
        synthesize("abc", "tone:high")


def test_an_engine_that_returns_anything_but_samples_is_named(engines: dict) -> None:
    class Floats(Tones):
        def synthesize(self, text: str, voice: str, seed: int) -> tuple[np.ndarray, int]:
            return np.zeros((2, 9)), 8000

    register(Floats())
    with pytest.raises(UserError, match=r"'tones' returned float64 of shape \(2, 9\); int16 samples"):
        synthesize("abc", "tones:low")


def test_the_versions_name_the_library_and_the_digest_of_its_data() -> None:
    versions = engine_versions()
    assert versions["espeak-ng"].startswith("1.5")
    assert f"weights {speech.EMBEDDED.weights_sha256[:16]}" in versions["espeak-ng"]
    library, _ = speech.locate()
    assert speech.EMBEDDED.weights_sha256 != hashlib.sha256(Path(library).read_bytes()).hexdigest()
