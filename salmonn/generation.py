"""Answers of a trained run to one question about any audio files."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from salmonn.training.run import load_run

LOG = logging.getLogger("salmonn")
BATCH = 8
"""Files answered at once; the answers do not depend on it."""


def generate(
    run: str | Path,
    audio_paths: Sequence[str | Path],
    prompt: str,
    *,
    beams: int = 4,
    max_new_tokens: int = 200,
    lora_scale: float = 1.0,
) -> list[str]:
    """Return the answers of the run's newest checkpoint to `prompt`, one for each file, in order.

    `prompt` is the bare instruction, for example ``Please transcribe the speech.``; `lora_scale` multiplies LoRA's
    scaling (paper, Figure 3). UserError for a run or a file that is not there. Audio after 30 s is not
    heard, which a warning tells.
    """
    # The codecs live in shards; a model without files to decode runs without them.
    from shards.audio import load_audio

    waveforms = [load_audio(str(path)) for path in audio_paths]
    config, model, _ = load_run(run)
    wrapped = config.sizes.prompt.wrap(prompt)
    answers: list[str] = []
    for i in range(0, len(waveforms), BATCH):
        some = waveforms[i : i + BATCH]
        answers += model.generate(some, [wrapped] * len(some), beams, max_new_tokens, lora_scale)
    if model.log_mel.cut:
        LOG.warning(
            "%d of %d files are longer than 30 s; what comes after was not heard", model.log_mel.cut, len(answers)
        )
    return answers
