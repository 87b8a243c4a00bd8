"""How long scoring 30,000 transcripts takes, interval included, beside jiwer and Whisper's normaliser alone.

One process, one core. Usage: python benchmarks/score.py [ANSWERS] [--digits]; with --digits every answer holds numbers,
which the normaliser spends most on. The limit is 20 s.
"""

from __future__ import annotations

import random
import sys
import time

import jiwer
from whisper_normalizer.english import EnglishTextNormalizer

from salmonn.scoring.answer import Answer
from salmonn.scoring.metrics import score

WORDS = ("the of and one said mister don't colour it's hundred", "brown's house where he was not that")


def answers(count: int, digits: bool) -> list[Answer]:
    """Transcripts of thirty words of which one in twenty is missing."""
    draw, words = random.Random(3), " ".join(WORDS).split()
    made = []
    for number in range(count):
        right = [draw.choice(words) for _ in range(30)]
        said = [word for word in right if draw.random() > 0.05] + (["21", "$20"] if digits else [])
        texts = {"answer": " ".join(said), "references": (" ".join(right),)}
        made.append(Answer(key=str(number), task="asr", corpus="librispeech", split="test-clean", **texts))
    return made


def main() -> None:
    count = int(next((word for word in sys.argv[1:] if word.isdigit()), "30000"))
    rows = answers(count, "--digits" in sys.argv)
    begin = time.process_time()
    made = score("wer", rows)
    ours = time.process_time() - begin
    begin = time.process_time()
    normalize = EnglishTextNormalizer()
    plain = jiwer.process_words(
        [normalize(row.references[0]) for row in rows], [normalize(row.answer) for row in rows]
    ).wer
    theirs = time.process_time() - begin
    assert made.value is not None and abs(made.value - plain) < 1e-9, (made.value, plain)
    print(f"{count:,} answers: WER {plain:.4f} ({made.low:.4f} to {made.high:.4f})")
    print(f"ours, with its interval {ours:.1f} cpu-s (limit 20); the libraries alone, without one {theirs:.1f} cpu-s")


if __name__ == "__main__":
    main()
