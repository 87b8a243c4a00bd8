"""Scripts: in which letters a text is written, as RE2 and Unicode know them, and which Chinese it is."""

from __future__ import annotations

SCRIPTS = {
    "Kana": r"\p{Hiragana}\p{Katakana}",
    "Hangul": r"\p{Hangul}",
    "Han": r"\p{Han}",
    "Cyrillic": r"\p{Cyrillic}",
    "Greek": r"\p{Greek}",
    "Arabic": r"\p{Arabic}",
    "Hebrew": r"\p{Hebrew}",
    "Devanagari": r"\p{Devanagari}",
    "Thai": r"\p{Thai}",
    "Latin": r"\p{Latin}",
}
"""Scripts in the order in which they are looked for: the first that a text has a letter of is its script."""

PAIRS = (
    "\u8fd9\u9019\u4eec\u5011\u6765\u4f86\u56fd\u570b\u65f6\u6642\u8bf4\u8aaa\u5bf9\u5c0d\u4f1a\u6703"
    "\u8fc7\u904e\u53d1\u767c\u7ecf\u7d93\u5173\u95dc\u5f00\u958b\u95ee\u554f\u65e0\u7121\u8fd8\u9084"
    "\u4e1c\u6771\u8f66\u8eca\u957f\u9577\u95e8\u9580\u9a6c\u99ac\u9e1f\u9ce5\u9c7c\u9b5a\u9f99\u9f8d"
    "\u5b66\u5b78\u89c1\u898b\u8bdd\u8a71\u8ba9\u8b93\u8bb0\u8a18\u8fdb\u9032\u52a8\u52d5\u673a\u6a5f"
    "\u7535\u96fb\u73b0\u73fe\u5b9e\u5be6\u4e66\u66f8\u5934\u982d\u4e1a\u696d\u4e2a\u500b\u6837\u6a23"
)
"""Frequent characters that were simplified, each before its traditional form; a text has those of one form only."""
SIMPLIFIED_ONLY, TRADITIONAL_ONLY = PAIRS[0::2], PAIRS[1::2]
