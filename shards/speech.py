"""Speech synthesis: text to PCM, for the corpora that have questions or abstracts and no audio.

A voice is named ``en-us`` or, of a certain engine, ``ENGINE:VOICE``. espeak-ng is embedded; other engines are plug-ins:
a package offers one under the entry point group ``salmonn.voices``, named as the engine and loading to a callable
without arguments that returns an Engine.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import threading
from importlib.metadata import entry_points
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from manifests import UserError, files
from manifests.errors import nearest
from shards import espeak

# Written apart, since it names no module: tests/test_house.py would read an import of the upper floor.
GROUP = ".".join(("salmonn", "voices"))
NOT_WORDS = {code: " " for code in (*range(9), 11, 12, *range(14, 32), 127)}
"""Control characters: NUL would end the text for espeak-ng, and \\x01 begins a command to it."""

PCM = NDArray[np.int16]


class SpeechFailed(RuntimeError):
    """An engine that broke down over an utterance, twice."""


class Engine(Protocol):
    """What speaks. The same text, voice and seed must give the same samples where `deterministic` is true."""

    @property
    def name(self) -> str:
        """What stands before the colon of a voice."""

    @property
    def version(self) -> str:
        """Of the software."""

    @property
    def licence(self) -> str:
        """Of the software and the voices, as an SPDX expression where there is one."""

    @property
    def deterministic(self) -> bool:
        """Whether builds with this engine can be repeated to the byte."""

    @property
    def weights_sha256(self) -> str:
        """Of whatever besides the version decides how it sounds; empty if nothing does."""

    def synthesize(self, text: str, voice: str, seed: int) -> tuple[PCM, int]:
        """Return the samples of one channel and their rate in Hz; UserError if there is no such voice."""


def synthesize(text: str, voice: str, seed: int = 0) -> tuple[PCM, int]:
    """Speak `text`; return the samples of one channel and their rate in Hz.

    UserError if there is nothing to speak or nobody of that name to speak it. Text without a pronounceable character
    may give no samples. Where an engine draws nothing for a voice, it sounds the same with every seed.
    """
    if not text.strip():
        raise UserError(f"there is no text to speak: {text!r} is empty; give at least a word")
    _, colon, rest = voice.partition(":")
    speaker = engine_of(voice)
    pcm, rate = speaker.synthesize(text, rest if colon else voice, seed)
    if not isinstance(pcm, np.ndarray) or pcm.dtype != np.int16 or pcm.ndim != 1:
        shape = f"{pcm.dtype} of shape {pcm.shape}" if isinstance(pcm, np.ndarray) else type(pcm).__name__
        raise UserError(f"the speech engine {speaker.name!r} returned {shape}; int16 samples of one channel are due")
    return pcm, rate


def engine_of(voice: str) -> Engine:
    """Return the engine behind a voice: ``engine:voice``, or a voice of the embedded one."""
    engine, colon, _ = voice.partition(":")
    return find_engine(engine) if colon else EMBEDDED


def register(engine: Engine) -> None:
    """Make `engine` known in this process under its name."""
    ENGINES[engine.name] = engine


def find_engine(name: str) -> Engine:
    """Return the engine called `name`, registered or installed as a plug-in; UserError with the nearest if none is."""
    if name not in ENGINES:
        for plug_in in entry_points(group=GROUP, name=name):
            ENGINES[name] = plug_in.load()()
            return ENGINES[name]
        known = {*ENGINES, *(plug_in.name for plug_in in entry_points(group=GROUP))}
        raise UserError(f"there is no speech engine {name!r}; {nearest(name, known)}")
    return ENGINES[name]


def engine_versions() -> dict[str, str]:
    """Map the name of each engine there is here to its version and weights: they belong to what identifies a build."""
    known = {*ENGINES, *(plug_in.name for plug_in in entry_points(group=GROUP))}
    if not EMBEDDED.installed:
        known.discard(EMBEDDED.name)
    versions = {}
    for engine in map(find_engine, sorted(known)):
        weights = f" weights {engine.weights_sha256[:16]}" if engine.weights_sha256 else ""
        versions[engine.name] = f"{engine.version}{weights}{'' if engine.deterministic else ' (not repeatable)'}"
    return versions


class Espeak:
    """espeak-ng from the package espeakng-loader, in a speaker process (shards/espeak.py) started at the first word.

    The speaker ends with this process and is started anew if it dies. Threads take turns; a fork starts its own.
    """

    name = "espeak-ng"
    licence = "GPL-3.0-or-later"
    deterministic = True

    def __init__(self) -> None:
        self.forget()
        os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        """Be as if nothing had been started: what a fork inherits belongs to its parent."""
        self.turn = threading.Lock()
        self.speaker: Speaker | None = None

    @property
    def installed(self) -> bool:
        """Whether the package is here."""
        return importlib.util.find_spec("espeakng_loader") is not None

    @property
    def version(self) -> str:
        """Of the library, as it says itself."""
        with self.turn:
            return str(self.running().facts["version"])

    @functools.cached_property
    def weights_sha256(self) -> str:
        """Of the library and its data: names and digests of all files."""
        library, data = locate()
        digest = hashlib.sha256(hashlib.sha256(files.read_bytes(library)).digest())
        for name in files.walk(data):
            digest.update(f"{name}\n".encode() + hashlib.sha256(files.read_bytes(files.join(data, name))).digest())
        return digest.hexdigest()

    def synthesize(self, text: str, voice: str, seed: int) -> tuple[PCM, int]:
        """Speak with a voice such as ``en-us``, or ``en-us+f3``, a variant; `seed` draws the noise of breathy ones."""
        words = text.translate(NOT_WORDS).encode("utf-8", "replace")
        with self.turn:
            name = find_voice(voice, self.running().facts)
            for attempt in (1, 2):
                speaker = self.running()
                try:
                    return speaker.say(seed, name, words), int(speaker.facts["rate"])
                except (OSError, EOFError) as error:
                    # Whatever killed it, a stranger or the text: the text is tried once more by a new one.
                    self.stop()
                    if attempt == 2:
                        raise SpeechFailed(f"the espeak-ng process died twice over {text[:60]!r}: {error!r}") from None
                except BaseException:
                    # An interrupt between question and answer: the next question must not get this answer.
                    self.stop()
                    raise
        raise AssertionError

    def running(self) -> Speaker:
        """Return the speaker, started if need be; call it in your turn only."""
        if self.speaker is None:
            self.speaker = Speaker()
        return self.speaker

    def stop(self) -> None:
        """End the speaker."""
        if self.speaker is not None:
            self.speaker.close()
            self.speaker = None


class Speaker:
    """A process of shards/espeak.py and the pipes to it."""

    def __init__(self) -> None:
        library, data = locate()
        # -I and -S: nothing of this process's environment, and none of its packages, has a say in how it sounds.
        program = [sys.executable, "-I", "-S", espeak.__file__, library, data, str(os.getpid())]
        self.process = subprocess.Popen(
            program, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={"LC_ALL": "C.UTF-8"}
        )
        assert self.process.stdin and self.process.stdout
        self.requests, self.answers = self.process.stdin.fileno(), self.process.stdout.fileno()
        try:
            _, told = espeak.read_frame(self.answers), espeak.read_frame(self.answers)
        except EOFError:
            self.close()
            raise SpeechFailed(f"espeak-ng does not start from {library!r}; its words are in the log") from None
        self.facts: dict[str, Any] = json.loads(told)

    def say(self, seed: int, voice: str, words: bytes) -> PCM:
        """Return `words` spoken; EOFError or OSError if the process has died, SpeechFailed if the utterance did."""
        espeak.write_frames(self.requests, str(seed).encode(), voice.encode(), words)
        status, answer = espeak.read_frame(self.answers), espeak.read_frame(self.answers)
        if status != b"ok":
            raise SpeechFailed(f"{answer.decode()} over {words[:60].decode('utf-8', 'replace')!r}")
        return np.frombuffer(answer, np.int16)

    def close(self) -> None:
        """Kill the process and wait for its end."""
        self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        self.process.wait()


def locate() -> tuple[str, str]:
    """Return the paths of the library and its data; UserError if the package is not installed."""
    try:
        loader = importlib.import_module("espeakng_loader")
    except ImportError:
        raise UserError(
            "speech needs the package espeakng-loader, which is not installed here; pip install espeakng-loader"
        ) from None
    return str(loader.get_library_path()), str(loader.get_data_path())


def find_voice(voice: str, facts: dict[str, Any]) -> str:
    """Return the name espeak-ng has for a voice; UserError with the nearest: itself, it takes another in silence."""
    base, plus, variant = voice.partition("+")
    if base.lower() not in facts["voices"]:
        raise UserError(f"espeak-ng has no voice {voice!r}; {nearest(base.lower(), facts['voices'])}")
    if plus and variant not in facts["variants"]:
        raise UserError(f"espeak-ng has no variant {variant!r} of {base!r}; {nearest(variant, facts['variants'])}")
    return str(facts["voices"][base.lower()]) + plus + variant


EMBEDDED = Espeak()
ENGINES: dict[str, Engine] = {EMBEDDED.name: EMBEDDED}
