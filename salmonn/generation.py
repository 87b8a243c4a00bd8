"""Answers to one question about any sound files, by a run's newest checkpoint or by a released one."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import numpy.typing as npt

from manifests.errors import UserError
from salmonn.config import SPEECH, Preset, load_preset, preset_names

# A mistake in a file or a prompt is told at once, not after ten seconds of torch: that is imported where it is used.
if TYPE_CHECKING:
    from salmonn.model import Salmonn

LOG = logging.getLogger("salmonn")
BATCH = 8
"""Files answered at once; the answers do not depend on it."""
LONGEST = 30.0
"""Seconds that a model hears of a file."""
MOST_BEAMS = 64
"""A search so wide takes a model of 13 billion weights all of a large GPU; more is a slip of the finger."""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of each file, and how its answer is searched for; UserError if it cannot be."""

    prompt: str
    """The bare instruction, for example ``Please transcribe the speech.``"""
    beams: int = 4
    """Width of the beam search; 1 is greedy."""
    max_new_tokens: int = 200
    """Longest answer, in tokens."""
    lora_scale: float = 1.0
    """Factor on LoRA's scaling (paper, Figure 3): 1 as trained, 0 the language model without its adapter."""

    def __post_init__(self) -> None:
        if not self.prompt.strip():
            raise UserError("the prompt is empty; ask something, such as 'Please write down what the speaker says.'")
        if SPEECH in self.prompt:
            raise UserError(f"the prompt holds {SPEECH}; it stands for the sound and is put in for you: leave it out")
        if not 1 <= self.beams <= MOST_BEAMS:
            raise UserError(f"beams is {self.beams}; it must be from 1 (greedy) to {MOST_BEAMS}")
        if self.max_new_tokens < 1:
            raise UserError(f"max_new_tokens is {self.max_new_tokens}; it must be at least 1")
        if not (math.isfinite(self.lora_scale) and self.lora_scale >= 0):
            raise UserError(
                f"lora_scale is {self.lora_scale}; it must be a number from 0 (no LoRA) on, and 1 is as trained"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A sound file, opened."""

    path: str
    wave_S: npt.NDArray[np.float32]
    """What is heard of it: mono at 16 kHz, in [-1, 1], the first 30 s."""
    cut: float
    """Seconds behind those."""


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to one file: a line of ``salmonn generate --json``."""

    path: str
    prompt: str
    answer: str
    finished: bool
    """Whether the model ended the answer itself, within the allowed number of tokens."""
    seconds: float
    """Of audio that was heard."""
    cut: float
    """Seconds of the file behind 30 s, that were not."""


def listen(path: str) -> Recording:
    """Open a sound file of any container, rate and number of channels; UserError if it cannot be used.

    Channels are averaged, as they are where a dataset is packed, so that a model hears what it was trained on, and a
    voice on the right one is not missed. (The released code took the first channel; for mono files it is the same.)
    """
    # The codecs live in shards; a model without files to decode runs without them.
    from shards.audio import load_audio
    from shards.flac import RATE

    wave_S = load_audio(path)
    heard = round(LONGEST * RATE)
    # A copy: a slice would keep the whole of an hour in memory.
    return Recording(path=path, wave_S=wave_S[:heard].copy(), cut=max(0, len(wave_S) - heard) / RATE)


def open_model(source: str | Path, config: str = "") -> Salmonn:
    """Return the model of a run's newest checkpoint, or of a released ``.pth``: in eval mode, on a GPU if there is one.

    A released file holds only what was trained: `config` names what belongs to it, a preset or the path of a TOML file
    like those of ``salmonn/presets/``. UserError if something is not there, or does not fit.
    """
    demand_source(source, config)
    if not Path(source).is_file():
        from salmonn.training.run import load_run

        return load_run(source)[1]
    preset = read_config(config)
    import torch

    from salmonn.checkpoint import read_released
    from salmonn.model import Salmonn

    model = Salmonn.from_config(preset.model, "cuda" if torch.cuda.is_available() else "cpu")
    read_released(model, source)
    return model.eval()


def demand_source(source: str | Path, config: str) -> None:
    """Raise UserError unless `source` is a file and `config` readable, or a folder and `config` empty."""
    if Path(source).is_file():
        if not config:
            raise UserError(
                f"{str(source)!r} is a file: a released checkpoint holds what was trained; --config names the rest, "
                f"a preset ({', '.join(preset_names())}) or a TOML file with the folders of Whisper, BEATs and the LLM"
            )
        read_config(config)
    elif config:
        raise UserError(f"--config is for a released .pth file; the run {str(source)!r} keeps its own settings")


def read_config(config: str) -> Preset:
    """Return the model settings that a preset's name or a TOML file's path stands for."""
    from manifests.settings import read_toml

    return read_toml(config, Preset) if config.endswith(".toml") else load_preset(config)


def reply(model: Salmonn, recordings: Sequence[Recording], question: Question) -> list[Reply]:
    """Return the answers to some recordings, in order; each depends on its own recording alone."""
    prompts = [model.config.prompt.wrap(question.prompt)] * len(recordings)
    waves = [recording.wave_S for recording in recordings]
    answers = model.generate_ids(waves, prompts, question.beams, question.max_new_tokens, question.lora_scale)
    from shards.flac import RATE

    return [
        Reply(
            path=recording.path,
            prompt=question.prompt,
            answer=model.decode(ids),
            finished=ids[-1:] == [model.tokenizer.eos_token_id],
            seconds=len(recording.wave_S) / RATE,
            cut=recording.cut,
        )
        for recording, ids in zip(recordings, answers, strict=True)
    ]


def replies(source: str | Path, paths: Sequence[str], question: Question, *, config: str = "") -> Iterator[Reply]:
    """Yield the answer to each file, in order; all are opened before the model is, so that a bad one is told soon.

    A file takes 2 MB until all are answered. UserError as `listen`, `open_model` and `Question` say; a warning tells
    how many files are longer than 30 s.
    """
    demand_source(source, config)
    recordings = [listen(path) for path in paths]
    model = open_model(source, config)
    for first in range(0, len(recordings), BATCH):
        yield from reply(model, recordings[first : first + BATCH], question)
    cut = sum(recording.cut > 0 for recording in recordings)
    if cut:
        LOG.warning("%d of %d files are longer than 30 s; what comes after was not heard", cut, len(recordings))


def generate(
    run: str | Path,
    audio_paths: Sequence[str | Path],
    prompt: str,
    *,
    beams: int = 4,
    max_new_tokens: int = 200,
    lora_scale: float = 1.0,
    config: str = "",
) -> list[str]:
    """Return the answers of a run's newest checkpoint, or of a released ``.pth`` with its `config`, one for each file.

    `prompt` is the bare instruction; see `Question`, `listen` and `replies` for the rest.
    """
    question = Question(prompt=prompt, beams=beams, max_new_tokens=max_new_tokens, lora_scale=lora_scale)
    return [one.answer for one in replies(run, [str(path) for path in audio_paths], question, config=config)]
