"""Prompts and answers to rows of one length: BOS, before, audio tokens, after, answer, EOS, and padding at one end.

Shapes: B rows, T positions of the longest row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from manifests.errors import UserError
from salmonn.config import SPEECH, PromptConfig, SalmonnConfig
from salmonn.tokenizer import encode, encode_between

IGNORED = -100
"""Label of a position that is not learnt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The token ids of one example around its audio tokens."""

    before: tuple[int, ...]
    """BOS and the text before the audio."""
    after: tuple[int, ...]
    """The text from the audio to the answer."""
    answer: tuple[int, ...] = ()
    """Answer and EOS; empty when the model is to write it."""
    truncated: bool = False
    """Whether the answer was longer than allowed and lost its end (never its EOS)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextBatch:
    """Rows of one length. `mask_BT` is true on content, `audio_BT` where the audio tokens go."""

    ids_BT: torch.Tensor
    """int64; the pad id on audio and padding."""
    audio_BT: torch.Tensor
    mask_BT: torch.Tensor
    positions_BT: torch.Tensor
    """int64, counted from 0 at the BOS of each row; 0 on padding."""
    labels_BT: torch.Tensor
    """int64; the answer with its EOS, -100 elsewhere."""


def tokenize(
    tokenizer: Any,
    prompt: str,
    answer: str | None = None,
    *,
    max_answer_tokens: int = 0,
    template: PromptConfig | None = None,
) -> Row:
    """Return the row of a prompt that already holds the template, and of its answer if there is one.

    The text before the audio, the text after it and the answer are tokenised separately, as the released model was
    trained. Special tokens spelled in `template` are meant; anywhere else they are plain text. UserError unless the
    prompt holds ``<SpeechHere>`` exactly once.
    """
    halves = prompt.split(SPEECH)
    if len(halves) != 2:
        times = len(halves) - 1
        raise UserError(
            f"a prompt must hold {SPEECH} once, where the audio goes; it is there {times} times: {prompt!r}"
        )
    bos = () if tokenizer.bos_token_id is None else (tokenizer.bos_token_id,)
    borders = template.borders() if template is not None else (("", ""), ("", ""))
    before, after = (
        tuple(encode_between(tokenizer, half, *border)) for half, border in zip(halves, borders, strict=True)
    )
    if answer is None:
        return Row(before=bos + before, after=after)
    # Leading spaces are tokenised differently by different tokenizers, so none is left.
    ids = encode(tokenizer, answer.strip())
    kept = (*ids[:max_answer_tokens], tokenizer.eos_token_id)
    return Row(before=bos + before, after=after, answer=kept, truncated=len(ids) > max_answer_tokens)


def tokenize_all(
    tokenizer: Any, prompts: Sequence[str], answers: Sequence[str | None], config: SalmonnConfig
) -> list[Row]:
    """Return the row of each prompt, which already holds the template of `config`, and of its answer if it has one."""
    return [
        tokenize(tokenizer, prompt, answer, max_answer_tokens=config.max_answer_tokens, template=config.prompt)
        for prompt, answer in zip(prompts, answers, strict=True)
    ]


def lay_out(rows: Sequence[Row], *, audio_tokens: int, pad_id: int, padding: Literal["left", "right"]) -> TextBatch:
    """Return the rows as tensors on the CPU: padding on the right to train, on the left to generate.

    Padding is outside mask and positions, so that a row's result does not depend on its batch.
    """
    lengths = [len(row.before) + audio_tokens + len(row.after) + len(row.answer) for row in rows]
    shape = (len(rows), max(lengths))
    ids_BT = torch.full(shape, pad_id)
    audio_BT = torch.zeros(shape, dtype=torch.bool)
    mask_BT = torch.zeros(shape, dtype=torch.bool)
    positions_BT = torch.zeros(shape, dtype=torch.int64)
    labels_BT = torch.full(shape, IGNORED)
    for i, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        start = shape[1] - length if padding == "left" else 0
        end = start + length
        speech = start + len(row.before)
        ids_BT[i, start:speech] = torch.tensor(row.before, dtype=torch.int64)
        audio_BT[i, speech : speech + audio_tokens] = True
        ids_BT[i, speech + audio_tokens : end] = torch.tensor(row.after + row.answer, dtype=torch.int64)
        mask_BT[i, start:end] = True
        positions_BT[i, start:end] = torch.arange(length)
        labels_BT[i, end - len(row.answer) : end] = torch.tensor(row.answer, dtype=torch.int64)
    return TextBatch(ids_BT=ids_BT, audio_BT=audio_BT, mask_BT=mask_BT, positions_BT=positions_BT, labels_BT=labels_BT)
