"""Translations: BLEU with the tokenizer of the language, and the share of answers that are in its script at all.

More than half of the public model's answers in Japanese hold none: the score of all, and beside it of the others alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from salmonn.scoring import bleu
from salmonn.scoring.answer import Answer
from salmonn.scoring.bootstrap import mean_interval
from salmonn.scoring.score import Score

KANA = re.compile("[\u3041-\u3096\u30a1-\u30fa\u31f0-\u31ff\uff66-\uff9d]")
HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
LATIN = re.compile("[A-Za-z\u00c0-\u024f]")


def chinese(answers: Sequence[Answer]) -> Score:
    """Return the score of translations into Chinese, signs apart."""
    return score(answers, "zh", "Chinese")


def german(answers: Sequence[Answer]) -> Score:
    """Return the score of translations into German."""
    return score(answers, "13a", "German")


def japanese(answers: Sequence[Answer]) -> Score:
    """Return the score of translations into Japanese, words as MeCab parts them."""
    return score(answers, "ja-mecab", "Japanese")


def score(answers: Sequence[Answer], tokenizer: str, language: str) -> Score:
    """Return the BLEU of all answers, with the share in the script of `language` beside it."""
    flags = [in_script(one.answer, language) or one.answer.strip() in one.references for one in answers]
    low, high = mean_interval(flags)
    share = Score(
        name="in the right script",
        value=sum(flags) / len(flags),
        low=low,
        high=high,
        count=len(flags),
        details={"how": SCRIPTS[language]},
    )
    result = bleu.score(answers, tokenizer)
    if 0 < sum(flags) < len(flags):
        kept = [one for one, flag in zip(answers, flags, strict=True) if flag]
        alone = bleu.score(kept, tokenizer).text()
        result = msgspec.structs.replace(
            result, details=result.details | {f"BLEU4 of those in {language} alone": alone}
        )
    return msgspec.structs.replace(result, also=(share,))


SCRIPTS = {
    "Chinese": "holds Han characters and no kana",
    "Japanese": "holds kana",
    "German": "holds Latin letters and neither Han characters nor kana",
}


def in_script(text: str, language: str) -> bool:
    """Whether a text is in the script of `language`."""
    kana, han, latin = KANA.search(text), HAN.search(text), LATIN.search(text)
    if language == "Japanese":
        return bool(kana)
    if language == "Chinese":
        return bool(han) and not kana
    return bool(latin) and not han and not kana
