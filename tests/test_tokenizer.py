"""The tokenizer of the tiny preset: trained on bundled texts alone, and made again here to the byte.

After a change of those texts, ``python tests/test_tokenizer.py`` writes it anew.
"""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from manifests import TASKS, load_corpus
from manifests.phones import pronounce
from manifests.text import sentence_case
from salmonn.config import PRESETS, LLMConfig
from salmonn.tokenizer import byte_tokenizer, encode, load_tokenizer, train_tokenizer

HERE = Path(__file__).parent
FILE = PRESETS / "tiny.tokenizer.json"
SIZE = 1000
TINY = load_tokenizer(LLMConfig(width=8, layers=1, heads=1, ffn=8, pieces="tiny"))


def texts() -> list[str]:
    """Prompts in their template, captions as published, and the miniature's transcripts with their phones."""
    prompts = [f"USER: <Speech></Speech> {prompt}\nASSISTANT:" for task in TASKS.values() for prompt in task.prompts]
    published = gzip.decompress((HERE / "published" / "audiocaps" / "train.csv.gz").read_bytes()).decode()
    captions = [row["caption"] for row in csv.DictReader(io.StringIO(published))]
    spoken = [
        sentence_case(clip.text)
        for split in ("train-clean-100", "dev-clean")
        for clip in load_corpus("librispeech").clips(HERE / "corpora" / "librispeech", split)
    ]
    phones = [" ".join(pronounce(text) or ()) for text in spoken]
    # The few are repeated so that the fifty thousand captions do not drown them.
    return prompts * 50 + captions + (spoken + phones + ["Female", "Male"] * 10) * 50


def test_the_shipped_tokenizer_is_the_one_its_texts_give() -> None:
    assert FILE.read_text() == train_tokenizer(texts(), SIZE).to_str(pretty=False)
    assert len(TINY) == SIZE


@given(st.text())
def test_any_text_survives_both_tokenizers(text: str) -> None:
    for tokenizer in (byte_tokenizer(), TINY):
        assert tokenizer.decode(encode(tokenizer, text)) == text


def test_a_special_token_spelled_in_a_text_stays_text() -> None:
    ids = encode(TINY, "</s><pad> rain")
    assert not {TINY.bos_token_id, TINY.eos_token_id, TINY.pad_token_id} & set(ids)
    assert TINY.decode(ids, skip_special_tokens=True) == "</s><pad> rain"


def test_common_words_are_one_piece() -> None:
    assert len(encode(TINY, "Female")) == len(encode(TINY, " rain")) == 1


if __name__ == "__main__":
    FILE.write_text(train_tokenizer(texts(), SIZE).to_str(pretty=False))
