"""What the stream of a run will deal, counted on its plan without audio: examples, hours, epochs, its fullest batch."""

from __future__ import annotations

import msgspec
import numpy as np
import pyarrow as pa

from manifests import TASKS, Recipe, files
from manifests.recipe import Row
from salmonn.config import SPEECH, SalmonnConfig
from salmonn.training.settings import TrainConfig
from shards import Dataset, Stream
from shards.plan import Order
from shards.queues import token_lengths
from shards.realised import Part, Share, Tally, answer_tokens, count, planned

EVERYTHING = 1 << 40
"""A budget of tokens that no batch reaches: with it the stream reads how long texts are, and deals the same."""
SLOT = 60
"""Tokens of a text that fills a prompt's slot, where no dataset says."""
ASSUMED = 100
"""Tokens of the longest answer in a batch, where no dataset says: an utterance of 30 s has about as many."""


class Fullest(msgspec.Struct, frozen=True, kw_only=True):
    """The batch of a run that takes most memory."""

    examples: int
    tokens: int
    """Positions of the language model, audio and padding included: rows times the longest row."""
    answers: int
    """Answer tokens, where a softmax over the vocabulary is taken."""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the recipe as it was meant; None where the recipe does not say."""

    name: str
    samples: int | None
    hours: float | None


class Data(msgspec.Struct, frozen=True, kw_only=True):
    """What the stream will deal in all steps of the run."""

    examples: int
    hours: float
    epochs: float
    """Examples dealt by examples there are."""
    examples_per_step: float
    padding: float
    """Share of padding in the audio, 0 to 1."""
    tasks: tuple[Share, ...]
    rows: tuple[Share, ...]


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """What the data of a run comes to."""

    fullest: Fullest
    data: Data | None = None
    """None without a dataset."""
    targets: tuple[Target, ...] = ()
    """Without a dataset: what the recipe means to have."""
    remarks: tuple[str, ...] = ()


def forecast(config: TrainConfig, recipe: Recipe, audio: int) -> Forecast:
    """Return what the stream will deal, each clip being `audio` tokens; `config` is resolved.

    A dataset that is not built yet is no error: the recipe's own figures are told then.
    """
    fixed = audio + wrapping(config.sizes)
    if not files.exists(files.join(config.dataset, "dataset.json")):
        return intended(config, recipe.stage(config.stage), fixed)
    batch = config.batch
    stream = Stream(
        Dataset(config.dataset),
        recipe,
        stage=config.stage,
        seed=config.seed,
        micro_batches=batch.micro_batches,
        max_seconds=batch.max_seconds,
        max_examples=batch.max_examples,
        max_tokens=EVERYTHING,
    )
    order = stream.order
    tally, filled = Tally(order, answer_tokens(stream.dataset, order)), Fill(order, config.sizes, fixed)
    count(planned(order, batches=config.steps * batch.micro_batches), tally, filled)
    examples = int(tally.by_row[0].sum())
    data = Data(
        examples=examples,
        hours=float(tally.by_row[1].sum()) / 3600,
        epochs=examples / order.examples,
        examples_per_step=examples / config.steps,
        padding=tally.padding,
        tasks=tally.tasks,
        rows=tally.rows,
    )
    return Forecast(fullest=filled.fullest, data=data)


def intended(config: TrainConfig, rows: tuple[Row, ...], fixed: int) -> Forecast:
    """Return what the recipe says of itself, and a batch as full as may be; each row of it has `fixed` tokens more."""
    each, many = bytes_a_token(config.sizes), config.batch.max_examples
    answer = min(config.sizes.max_answer_tokens, ASSUMED * each)
    prompt = max(prompt_tokens(row) for row in rows) * each
    return Forecast(
        fullest=Fullest(examples=many, tokens=many * (fixed + prompt + answer), answers=many * answer),
        targets=tuple(Target(name=row.name, samples=row.samples, hours=row.hours) for row in rows),
        remarks=(
            f"there is no dataset in {files.redact(config.dataset)!r} yet: hours and samples are the recipe's own, and "
            f"the fullest batch is taken to have answers of {answer} tokens",
        ),
    )


class Fill:
    """Finds the fullest batch among those planned."""

    def __init__(self, order: Order, sizes: SalmonnConfig, fixed: int) -> None:
        """Each row of a batch has `fixed` tokens beside its instruction and its answer."""
        each = bytes_a_token(sizes)
        self.order = order
        self.prompt = np.concatenate([queue.prompt for queue in order.queues]) * each + fixed
        answer = np.concatenate([queue.answer for queue in order.queues]) * each
        self.answer = np.minimum(answer + 1, sizes.max_answer_tokens)
        self.fullest = Fullest(examples=0, tokens=0, answers=0)

    def add(self, part: Part) -> None:
        """Look at one more part of the plan."""
        place = self.order.offsets[part.queue] + part.item
        starts = np.cumsum(part.sizes) - part.sizes
        answer = self.answer[place]
        tokens = np.maximum.reduceat(self.prompt[place] + answer, starts) * part.sizes
        answers = np.add.reduceat(answer, starts)
        self.fullest = Fullest(
            examples=max(self.fullest.examples, int(part.sizes.max())),
            tokens=max(self.fullest.tokens, int(tokens.max())),
            answers=max(self.fullest.answers, int(answers.max())),
        )


def wrapping(sizes: SalmonnConfig) -> int:
    """Return how many tokens the template adds to an instruction, BOS included."""
    text = sizes.prompt.wrap("").replace(SPEECH, "")
    return 1 + -(-len(text.encode()) // 3) * bytes_a_token(sizes)


def bytes_a_token(sizes: SalmonnConfig) -> int:
    """Return by how much a tokenizer's texts are longer than the plan's guess, a token for three bytes."""
    return 3 if not sizes.llm.folder and sizes.llm.pieces == "bytes" else 1


def prompt_tokens(row: Row) -> int:
    """Return the tokens of the longest prompt of a row's task."""
    prompts = TASKS[row.task].prompts
    longest = int(token_lengths(pa.array(prompts), None).max())
    return longest + (SLOT if any("{}" in prompt for prompt in prompts) else 0)
