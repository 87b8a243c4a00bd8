"""Text to token ids: the tokenizer of a language model's folder, or a small one that needs no download."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from manifests.errors import UserError
from salmonn.config import PRESETS, LLMConfig
from salmonn.parts import loading

BOS, EOS, PAD = "<s>", "</s>", "<pad>"


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of 259 ids: 3 specials, then the 256 bytes. Any text survives encoding and decoding."""
    pieces = [BOS, EOS, PAD, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(piece, special=True) for piece in (BOS, EOS, PAD)])
    return wrapped(tokenizer)


def train_tokenizer(texts: Iterable[str], size: int) -> Tokenizer:
    """Return a tokenizer of `size` ids that joins what often stands together in `texts`; the rest stays bytes.

    The same texts give the same tokenizer. This is how presets/tiny.tokenizer.json was made (tests/test_tokenizer.py).
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[BOS, EOS, PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def wrapped(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """Return a tokenizer as transformers has them."""
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, pad_token=PAD)


def load_tokenizer(config: LLMConfig) -> Any:
    """Return the tokenizer in the language model's folder, or the one its settings name for random weights.

    Padding uses an id that exists (the pad, unk or eos token): an added row would be random, frozen and stored nowhere,
    and would shift every loss through the softmax.
    """
    if not config.folder:
        if config.pieces == "bytes":
            return byte_tokenizer()
        return wrapped(Tokenizer.from_file(str(PRESETS / f"{config.pieces}.tokenizer.json")))
    with loading("llm", config.folder, "config.json, model.safetensors, tokenizer.model or tokenizer.json"):
        tokenizer = AutoTokenizer.from_pretrained(config.folder, trust_remote_code=False)
    if tokenizer.eos_token_id is None:
        raise UserError(f"llm: the tokenizer in {config.folder!r} names no eos_token, so no answer could ever end")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    return tokenizer


def demand_vocabulary(tokenizer: Any, rows: int, folder: str) -> None:
    """Raise UserError if the tokenizer makes ids that a language model of `rows` embeddings has not.

    Added tokens count only if texts or rows can hold them: some folders add a [PAD] that their model lacks.
    """
    added = set(tokenizer.added_tokens_decoder)
    ids = [i for i in tokenizer.get_vocab().values() if i not in added] + [tokenizer.eos_token_id]
    if tokenizer.bos_token_id is not None:
        ids.append(tokenizer.bos_token_id)
    if max(ids) >= rows:
        raise UserError(
            f"llm: the tokenizer in {folder!r} makes ids up to {max(ids)}, but the language model there embeds only "
            f"{rows}: it belongs to another model; put that model's own tokenizer files into the folder"
        )
    if tokenizer.pad_token_id >= rows:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token


def encode(tokenizer: Any, text: str) -> list[int]:
    """Return the ids of `text` alone, without BOS or EOS; a special token spelled in the text stays plain text."""
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
    return ids


def encode_between(tokenizer: Any, text: str, head: str, tail: str) -> list[int]:
    """Return the ids of a text that begins with `head` and ends with `tail`, which come from the prompt's template.

    A special token spelled there is meant, such as ``<|im_start|>``; between them it stays plain text.
    """
    specials = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    specials = [special for special in specials if special in head or special in tail]
    if not specials or not text.startswith(head) or not text[len(head) :].endswith(tail):
        return encode(tokenizer, text)
    ids: list[int] = []
    done = 0
    for found in re.finditer("|".join(re.escape(s) for s in sorted(specials, key=len, reverse=True)), text):
        if found.end() <= len(head) or found.start() >= len(text) - len(tail):
            ids += encode(tokenizer, text[done : found.start()]) if found.start() > done else []
            ids.append(tokenizer.convert_tokens_to_ids(found.group()))
            done = found.end()
    return ids + (encode(tokenizer, text[done:]) if done < len(text) else [])
