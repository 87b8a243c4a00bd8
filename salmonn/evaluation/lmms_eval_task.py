"""What lmms-eval calls of our tasks: copied into an export as its utils.py, where nothing else of ours is needed.

Scores that lmms-eval has or sacrebleu counts are counted there; for the others it counts who answered at all, and
``salmonn evaluate --answers`` scores the samples that it logs. Its own scores are not ours: another normaliser.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

Pair = dict[str, Any]
"""``answer`` and its ``references``."""


def doc_to_audio(doc: dict[str, Any], kwargs: dict[str, Any] | None = None) -> list[Any]:
    """Return the sound of a question."""
    return [doc["audio"]]


def doc_to_text(doc: dict[str, Any], kwargs: dict[str, Any] | None = None) -> str:
    """Return what is asked: the prompt that is stored, since its wording moves every score."""
    told = kwargs or {}
    return f"{told.get('pre_prompt', '')}{doc['prompt']}{told.get('post_prompt', '')}"


def doc_to_target(doc: dict[str, Any], kwargs: dict[str, Any] | None = None) -> str:
    """Return the first of the right answers."""
    return str(doc["answer"])


def pair(doc: dict[str, Any], results: Sequence[str]) -> Pair:
    """Return an answer beside its references."""
    return {"answer": str(results[0]).strip() if results else "", "references": list(doc["references"])}


def process_wer(doc: dict[str, Any], results: Sequence[str]) -> dict[str, Pair]:
    """Keep what the word error rate is counted from."""
    return {"wer": pair(doc, results)}


def process_bleu(doc: dict[str, Any], results: Sequence[str]) -> dict[str, Pair]:
    """Keep what BLEU is counted from."""
    return {"bleu": pair(doc, results)}


def process_accuracy(doc: dict[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Count an answer as right if its first word is a reference's, in any case and without signs around it."""
    one = pair(doc, results)
    return {"accuracy": float(first_word(one["answer"]) in {first_word(right) for right in one["references"]})}


def process_answered(doc: dict[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Count who answered at all."""
    return {"answered": float(bool(pair(doc, results)["answer"]))}


def first_word(text: str) -> str:
    """Return the first word of a text, folded."""
    return (text.split() or [""])[0].strip(".,;:!?\"'").casefold()


def wer(results: Sequence[Pair], args: Any = None) -> float:
    """Return the word error rate in per cent over all answers, with lmms-eval's normaliser."""
    counted = importlib.import_module("lmms_eval.tasks.librispeech.utils")
    return 100 * float(counted.compute_wer([one["references"][0] for one in results], told(results), "en"))


def bleu(results: Sequence[Pair], tokenize: str) -> float:
    """Return corpus BLEU."""
    sacrebleu = importlib.import_module("sacrebleu")
    right = [[one["references"][0] for one in results]]
    return float(sacrebleu.corpus_bleu(told(results), right, tokenize=tokenize).score)


def bleu_zh(results: Sequence[Pair], args: Any = None) -> float:
    """Return BLEU of Chinese, which has no spaces: by characters."""
    return bleu(results, "zh")


def bleu_de(results: Sequence[Pair], args: Any = None) -> float:
    """Return BLEU of German."""
    return bleu(results, "13a")


def bleu_ja(results: Sequence[Pair], args: Any = None) -> float:
    """Return BLEU of Japanese; it needs sacrebleu[ja]."""
    return bleu(results, "ja-mecab")


def told(results: Sequence[Pair]) -> list[str]:
    """Return the answers alone."""
    return [one["answer"] for one in results]
