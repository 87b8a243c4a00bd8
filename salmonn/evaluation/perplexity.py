"""Perplexity of answers, with the instruction and without it (paper, section 5.4 and Figure 4).

With: exp of the mean negative log likelihood of an answer's tokens, its end included, given the sound and the
instruction. Without: given the sound alone, in the same template with no word of instruction: what the model would
say of a sound unasked. Over a test set all tokens count alike, as in the training loss.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import msgspec
import torch

from manifests import TASKS
from salmonn.evaluation.asking import Asking
from salmonn.evaluation.respondent import RunRespondent
from salmonn.features import Waveform
from salmonn.lora import rescale_adapter_scale
from salmonn.model import Salmonn
from salmonn.scoring.answer import Answer, read_answers
from salmonn.tokenizer import encode

Told = Mapping[tuple[str, str, str, str], str]
"""What was answered, by task, key, prompt and slot."""


class Perplexity(msgspec.Struct, frozen=True, kw_only=True):
    """Of one task's answers on one test set."""

    task: str
    corpus: str
    split: str
    instructed: float
    """Given the sound and the instruction."""
    uninstructed: float
    """Given the sound alone."""
    answers: int
    tokens: int
    """Of the answers, each end included."""
    truncated: int
    """Answers longer than the model's max_answer_tokens, that lost their end."""
    of: str
    """Whose answers: ``references`` (the first of each example), or ``model``, where no reference is of the kind that
    the task asks for."""


class Tally:
    """Sums over one test set."""

    def __init__(self) -> None:
        self.nll = {True: 0.0, False: 0.0}
        self.answers = self.tokens = self.truncated = 0


def measure(respondent: RunRespondent, asking: Asking, told: Told, lora_scale: float = 1.0) -> list[Perplexity]:
    """Return the perplexity of the answers to all that is asked, each test set apart.

    Answers are the first reference of each example; of a task whose references are only what it is judged by, as a
    story's captions are, those that `told` holds. What has neither is left out.
    """
    model = respondent.model()
    tallies: dict[tuple[str, str, str], Tally] = defaultdict(Tally)
    with torch.no_grad(), rescale_adapter_scale(model.llm, lora_scale):
        for task, batches in asking.batches.items():
            for read in asking.read(task, range(len(batches))):
                rows = [(one.wave_S, one.open, text_of(one.open, asking.stage, told)) for one in read.heard]
                waves = [wave for wave, _, text in rows if text]
                asked = [(row, text) for _, row, text in rows if text]
                if asked:
                    add(model, waves, asked, tallies)
    return [
        Perplexity(
            task=task,
            corpus=corpus,
            split=split,
            instructed=math.exp(tally.nll[True] / tally.tokens),
            uninstructed=math.exp(tally.nll[False] / tally.tokens),
            answers=tally.answers,
            tokens=tally.tokens,
            truncated=tally.truncated,
            of="model" if by_model(task, asking.stage) else "references",
        )
        for (task, corpus, split), tally in sorted(tallies.items())
    ]


def add(
    model: Salmonn,
    waves: list[Waveform],
    asked: list[tuple[Answer, str]],
    tallies: dict[tuple[str, str, str], Tally],
) -> None:
    """Add one batch to the sums of its test sets."""
    texts = [text for _, text in asked]
    for instructed in (True, False):
        prompts = [model.config.prompt.wrap(row.prompt if instructed else "") for row, _ in asked]
        tokens = model.answer_tokens(waves, prompts, texts)
        nll_B = torch.zeros(len(asked), dtype=torch.float64).index_add_(
            0, tokens.row_N.cpu(), tokens.nll_N.double().cpu()
        )
        count_B = torch.bincount(tokens.row_N.cpu(), minlength=len(asked))
        for place, (row, text) in enumerate(asked):
            tally = tallies[row.task, row.corpus, row.split]
            tally.nll[instructed] += float(nll_B[place])
            if instructed:
                tally.answers += 1
                tally.tokens += int(count_B[place])
                tally.truncated += len(encode(model.tokenizer, text.strip())) > model.config.max_answer_tokens


def by_model(task: str, stage: str) -> bool:
    """Whether the references of a task are no answers to it, but what answers are judged by."""
    return stage == "evaluate" and TASKS[task].judged_by is not None


def text_of(row: Answer, stage: str, told: Told) -> str:
    """Return the answer whose perplexity is measured; empty if there is none."""
    if by_model(row.task, stage):
        return told.get((row.task, row.key, row.prompt, row.slot), "")
    return row.references[0] if row.references else ""


def told_in(folder: Path) -> dict[tuple[str, str, str, str], str]:
    """Return the answers in the files of a folder."""
    rows = (row for path in sorted(folder.glob("*.jsonl")) for row in read_answers(path))
    return {(row.task, row.key, row.prompt, row.slot): row.answer for row in rows}
