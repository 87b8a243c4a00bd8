"""The tiny preset on sixteen real utterances: it learns them by heart, and then says them word for word."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile

from manifests import load_corpus
from manifests.text import sentence_case
from salmonn.training.run import load_run
from salmonn.training.settings import TrainConfig, resolve
from salmonn.training.trainer import run_training
from tiny_model import Batch, Example

MINIATURE = Path(__file__).parent / "corpora" / "librispeech"
PROMPT = "Please write down what the speaker says."
UTTERANCES, AT_ONCE = 16, 8


def utterances() -> list[Example]:
    """Sixteen utterances of the miniature, the shortest first, with their own transcripts."""
    found = []
    for split in ("train-clean-100", "dev-clean", "test-clean"):
        for clip in load_corpus("librispeech").clips(str(MINIATURE), split):
            path = MINIATURE / clip.audio[0].path
            if not path.exists() or not clip.text:
                continue
            try:
                audio, rate = soundfile.read(path, dtype="float32")
            except soundfile.LibsndfileError:  # the miniature holds broken files on purpose
                continue
            assert rate == 16_000
            text = sentence_case(clip.text)
            found.append(
                Example(
                    key=clip.id,
                    task="asr",
                    prompt=PROMPT,
                    answer=text,
                    answers=(text,),
                    audio=audio,
                    seconds=len(audio) / rate,
                )
            )
    assert len({one.answer for one in found}) >= UTTERANCES
    return sorted(found, key=lambda one: one.seconds)[:UTTERANCES]


class ByHeart:
    """Deals the same utterances over and over, eight a batch."""

    def __init__(self, examples: list[Example]) -> None:
        self.examples, self.dealt = examples, 0

    def __iter__(self) -> Iterator[Batch]:
        while True:
            at = self.dealt * AT_ONCE % len(self.examples)
            some = tuple(self.examples[at : at + AT_ONCE])
            self.dealt += 1
            seconds = sum(one.seconds for one in some)
            longest = max(one.seconds for one in some)
            yield Batch(
                step=self.dealt, micro=0, examples=some, seconds=seconds, padding=1 - seconds / AT_ONCE / longest
            )

    def state_dict(self) -> dict[str, Any]:
        return {"dealt": self.dealt}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.dealt = state["dealt"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_sixteen_utterances_are_learnt_by_heart(tmp_path: Path) -> None:
    examples = utterances()
    config = resolve(
        TrainConfig(
            run=str(tmp_path / "run"),
            dataset="utterances",
            recipe="utterances",
            model="tiny",
            steps=400,
            threads=2,
            device="cpu",
        )
    )
    losses: list[float] = []
    run_training(config, ByHeart(examples), on_step=lambda line: losses.append(line.tasks["asr"].loss))
    assert max(losses[-2:]) < 0.05, losses[-2:]
    _, model, _ = load_run(tmp_path / "run")
    prompts = [model.config.prompt.wrap(PROMPT)] * UTTERANCES
    # The prompt is the same for all: only the sound tells them apart.
    said = model.generate([one.audio for one in examples], prompts, beams=1)
    assert said == [one.answer for one in examples]
    assert model.generate([examples[3].audio], prompts[:1], beams=4) == [examples[3].answer]
