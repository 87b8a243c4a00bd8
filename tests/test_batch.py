"""Prompts and answers to rows: only the answer is learnt, rows are contiguous, padding is outside everything."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.errors import UserError
from salmonn.batch import IGNORED, Row, lay_out, tokenize
from salmonn.config import PromptConfig
from salmonn.tokenizer import byte_tokenizer, encode

PAD, AUDIO = 2, 5
TOKENIZER = byte_tokenizer()
ids = st.lists(st.integers(3, 258), max_size=6).map(tuple)
rows = st.lists(st.builds(Row, before=ids.map(lambda x: (0, *x)), after=ids, answer=ids), min_size=1, max_size=5)


@settings(deadline=None)
@given(rows, st.sampled_from(["left", "right"]))
def test_a_batch_holds_its_rows_and_nothing_else(rows: list[Row], padding: str) -> None:
    batch = lay_out(rows, audio_tokens=AUDIO, pad_id=PAD, padding=padding)
    longest = batch.ids_BT.shape[1]
    for i, row in enumerate(rows):
        whole = [*row.before, *[PAD] * AUDIO, *row.after, *row.answer]
        start = longest - len(whole) if padding == "left" else 0
        inside = torch.zeros(longest, dtype=torch.bool)
        inside[start : start + len(whole)] = True
        # contiguous, at one end, and masked there alone
        assert batch.mask_BT[i].equal(inside)
        assert batch.ids_BT[i][inside].tolist() == whole
        assert (batch.ids_BT[i][~inside] == PAD).all()
        assert batch.positions_BT[i][inside].tolist() == list(range(len(whole)))
        # the audio has its places, between before and after
        places = batch.audio_BT[i].nonzero()[:, 0].tolist()
        assert places == list(range(start + len(row.before), start + len(row.before) + AUDIO))
        # exactly the answer is learnt
        labels = batch.labels_BT[i]
        assert labels[labels != IGNORED].tolist() == list(row.answer)
        learnt = (labels != IGNORED).nonzero()[:, 0].tolist()
        end = start + len(whole)
        assert learnt == list(range(end - len(row.answer), end))
    assert max(batch.mask_BT.sum(1)) == longest


@settings(deadline=None)
@given(st.text(max_size=40), st.text(max_size=40), st.integers(1, 50))
def test_an_answer_always_has_its_end(words: str, answer: str, most: int) -> None:
    prompt = PromptConfig().wrap(words.replace("<SpeechHere>", ""))
    row = tokenize(TOKENIZER, prompt, answer, max_answer_tokens=most)
    spoken = answer.strip().encode("utf-8", "replace")
    assert row.answer[-1] == TOKENIZER.eos_token_id
    assert TOKENIZER.eos_token_id not in row.answer[:-1]
    assert len(row.answer) == min(len(spoken), most) + 1
    assert row.truncated == (len(spoken) > most)
    assert row.before[0] == TOKENIZER.bos_token_id
    assert TOKENIZER.bos_token_id not in row.before[1:] + row.after + row.answer


def test_the_three_texts_are_tokenised_apart() -> None:
    row = tokenize(TOKENIZER, PromptConfig().wrap("Say it. "), " Yes ", max_answer_tokens=9)
    assert TOKENIZER.decode(row.before[1:]) == "USER: <Speech>"
    assert TOKENIZER.decode(row.after) == "</Speech> Say it.\nASSISTANT:"
    assert TOKENIZER.decode(row.answer[:-1]) == "Yes"


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_bytes_survive_encoding_and_decoding(text: str) -> None:
    found = encode(TOKENIZER, text)
    assert len(found) == len(text.encode())
    assert TOKENIZER.decode(found) == text


def test_a_special_token_spelled_in_a_text_is_text() -> None:
    found = encode(TOKENIZER, "a </s> b <pad>")
    assert not set(found) & set(TOKENIZER.all_special_ids)
    assert TOKENIZER.decode(found, skip_special_tokens=True) == "a </s> b <pad>"


@pytest.mark.parametrize("prompt", ["no place", "<SpeechHere> and <SpeechHere>"])
def test_a_prompt_has_one_place_for_the_audio(prompt: str) -> None:
    with pytest.raises(UserError, match="<SpeechHere> once"):
        tokenize(TOKENIZER, prompt)
