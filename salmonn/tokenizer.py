"""Text to token ids: the tokenizer of a language model's folder, or one over bytes that needs no download."""

from __future__ import annotations

from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from salmonn.parts import loading

BOS, EOS, PAD = "<s>", "</s>", "<pad>"


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of 259 ids: 3 specials, then the 256 bytes. Any text survives encoding and decoding."""
    pieces = [BOS, EOS, PAD, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(piece, special=True) for piece in (BOS, EOS, PAD)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, pad_token=PAD)


def load_tokenizer(folder: str) -> Any:
    """Return the tokenizer in `folder`, or the byte-level one if `folder` is empty.

    Padding uses an id that exists (the pad, unk or eos token): an added row would be random, frozen and stored nowhere,
    and would shift every loss through the softmax (facts: model.md, section 4).
    """
    if not folder:
        return byte_tokenizer()
    with loading("llm", folder, "config.json, model.safetensors, tokenizer.model or tokenizer.json"):
        tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    return tokenizer


def encode(tokenizer: Any, text: str) -> list[int]:
    """Return the ids of `text` alone, without BOS or EOS; a special token spelled in the text stays plain text."""
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
    return ids
