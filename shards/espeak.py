"""The speaker: a program of its own that turns text into sound with espeak-ng. shards/speech.py runs it by its path.

espeak-ng keeps state from one utterance to the next that no call resets: the same sentence twice in a process gives
different samples. It also draws the noise of breathy voices from a generator that starts with the time of day. So this
process initialises the library once and never speaks; each utterance is made in a fresh fork of it with a seed, and
the same words give the same bytes wherever and whenever they are spoken. Forking is safe in a process with one thread
only, which a worker of a cluster is not, and cheap in a small one: hence a program apart, which imports the standard
library and nothing else.

stdin brings three frames a request: a seed in decimal, a voice and a text. stdout answers with two: a status, and PCM
or a sentence. The first answer comes before any request and tells the facts of the library in JSON. A frame is four
bytes that say how many follow, and those.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import select
import signal
import struct
import sys
from pathlib import Path

SYNCHRONOUS = 2
"""AUDIO_OUTPUT_SYNCHRONOUS of speak_lib.h: sound goes to the callback, and Synth returns when all is said."""
DO_NOT_EXIT = 0x8000
"""espeakINITIALIZE_DONT_EXIT: errors are returned; otherwise the library ends the process."""
UTF8 = 1
"""espeakCHARS_UTF8, without espeakSSML and espeakPHONEMES: the text is words, not markup."""
CPU_SECONDS = 60
"""Of one utterance: enough for half a day of speech, at about 1,000 times its speed."""
WATCH_SECONDS = 2.0
"""How often an idle speaker looks whether its parent lives: a fork of the parent may hold stdin open after that."""

Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)


class Voice(ctypes.Structure):
    """The beginning of espeak_VOICE of speak_lib.h."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_char_p),
        ("identifier", ctypes.c_char_p),
    )


def read_frame(handle: int) -> bytes:
    """Return the next frame; EOFError where the other side has closed."""
    (length,) = struct.unpack(">I", read_exactly(handle, 4))
    return read_exactly(handle, length)


def read_exactly(handle: int, length: int) -> bytes:
    """Return `length` bytes; EOFError if they end before."""
    pieces = []
    while length:
        piece = os.read(handle, min(length, 1 << 20))
        if not piece:
            raise EOFError
        pieces.append(piece)
        length -= len(piece)
    return b"".join(pieces)


def write_frames(handle: int, *frames: bytes) -> None:
    """Write `frames`, all of their bytes."""
    left = memoryview(b"".join(struct.pack(">I", len(frame)) + frame for frame in frames))
    while left:
        left = left[os.write(handle, left) :]


def open_library(library: str, data: str) -> tuple[ctypes.CDLL, int]:
    """Return espeak-ng, initialised, and its sample rate."""
    espeak = ctypes.CDLL(library)
    espeak.espeak_Info.restype = ctypes.c_char_p
    espeak.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(Voice))
    size, number, pointer = ctypes.c_size_t, ctypes.c_uint, ctypes.c_void_p
    espeak.espeak_Synth.argtypes = (ctypes.c_char_p, size, number, ctypes.c_int, number, number, pointer, pointer)
    # The library has room for a path of 160 characters, and a virtual environment may lie deeper: give it a short one.
    os.chdir(Path(data).parent)
    rate = espeak.espeak_Initialize(SYNCHRONOUS, 0, b".", DO_NOT_EXIT)
    if rate <= 0:
        raise OSError(f"espeak-ng does not start with the data in {data!r} (error {rate})")
    return espeak, rate


def list_voices(espeak: ctypes.CDLL) -> dict[str, str]:
    """Map each name of a voice, which is a language or the name of its file, to what espeak_SetVoiceByName takes."""
    voices: dict[str, str] = {}
    place = 0
    listed = espeak.espeak_ListVoices(None)
    while listed[place]:
        voice = listed[place].contents
        identifier = voice.identifier.decode()
        # The first byte of languages is a priority. SetVoiceByName knows the file 'gmw/en', not its language 'en-gb'.
        language = voice.languages[1:].decode()
        if has_dictionary(identifier, language):
            for name in (language, identifier.rsplit("/", 1)[-1]):
                voices.setdefault(name.lower(), identifier)
        place += 1
    return voices


def has_dictionary(identifier: str, language: str) -> bool:
    """Whether the data of a voice are whole: some are listed that would read letters only."""
    lines = Path("espeak-ng-data", "lang", identifier).read_text("utf-8").splitlines()
    named = [line.split()[1] for line in lines if line.startswith("dictionary ")]
    return Path("espeak-ng-data", f"{(named or language.split('-'))[0]}_dict").exists()


def speak(espeak: ctypes.CDLL, seed: int, voice: bytes, text: bytes) -> bytes:
    """Return `text` as 16-bit PCM in the byte order of the machine. Once in the life of a process."""
    pieces = []
    # The generator multiplies modulo 2**31 - 1, so that from 0 it never moves.
    espeak.espeak_ng_SetRandSeed(ctypes.c_long(1 + seed % (2**31 - 2)))

    def collect(samples: int | None, count: int, _events: int | None) -> int:
        if samples and count > 0:
            pieces.append(ctypes.string_at(samples, 2 * count))
        return 0

    callback = Callback(collect)
    espeak.espeak_SetSynthCallback(callback)
    for error in (
        espeak.espeak_SetVoiceByName(voice),
        espeak.espeak_Synth(text, len(text) + 1, 0, 1, 0, UTF8, None, None),
        espeak.espeak_Synchronize(),
    ):
        if error:
            raise OSError(f"espeak-ng fails with error {error}")
    return b"".join(pieces)


def utter(espeak: ctypes.CDLL, seed: int, voice: bytes, text: bytes) -> tuple[bytes, bytes]:
    """Speak in a fork; return the status and the PCM, or what went wrong."""
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(receiving)
            resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
            with open(sending, "wb") as pipe:
                pipe.write(speak(espeak, seed, voice, text))
            code = 0
        finally:
            os._exit(code)
    os.close(sending)
    with open(receiving, "rb") as pipe:
        pcm = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return (b"ok", pcm) if code == 0 else (b"failed", f"espeak-ng ended with status {code}".encode())


def serve(library: str, data: str, parent: int) -> None:
    """Answer requests until stdin ends or the process `parent` is no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent; its end is ours
    requests, answers = os.dup(0), os.dup(1)
    # What the library prints must not come between the frames.
    os.dup2(2, 1)
    espeak, rate = open_library(library, data)
    facts = {
        "version": espeak.espeak_Info(None).decode(),
        "rate": rate,
        "voices": list_voices(espeak),
        "variants": sorted(path.name for path in Path(data, "voices", "!v").iterdir()),
    }
    write_frames(answers, b"ok", json.dumps(facts).encode())
    while os.getppid() == parent:
        if select.select([requests], [], [], WATCH_SECONDS)[0]:
            try:
                seed, voice, text = (read_frame(requests) for _ in range(3))
            except EOFError:
                return
            write_frames(answers, *utter(espeak, int(seed), voice, text))


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2], int(sys.argv[3]))
