"""Languages: whether texts are written in the script of the language that is declared, or that a task asks for."""

from __future__ import annotations

import msgspec

from shards.audit.digits import share, shown
from shards.audit.figures import percent
from shards.audit.verdicts import Gate, fail, good, warn
from shards.audit.view import View, ordered
from shards.scripts import SCRIPTS, SIMPLIFIED_ONLY, TRADITIONAL_ONLY

GATES = ("languages",)
SOME, MOST = 0.01, 0.5
"""Shares of answers in an unexpected script that warn, and that fail where the task names the language."""
NO_KANA = 0.1
"""Share of Japanese answers without any kana that is a warning: a short sentence may do without."""
TRADITIONAL = 0.01

WRITTEN = {
    "zh": "Han",
    "ja": "Kana",
    "ko": "Hangul",
    **dict.fromkeys(("ru", "uk", "bg"), "Cyrillic"),
    "el": "Greek",
    **dict.fromkeys(("ar", "fa"), "Arabic"),
    "he": "Hebrew",
    "hi": "Devanagari",
    "th": "Thai",
    **dict.fromkeys(("en", "de", "fr", "es", "it", "pt", "nl", "pl", "sv", "da", "fi", "cs", "tr", "vi"), "Latin"),
}
"""The script of a language (the first part of BCP 47). A script cannot tell German from English."""
TARGETS = {"translation_en_zh": "Han", "translation_en_ja": "Kana", "translation_en_de": "Latin"}
"""Tasks that name the language of their answers."""
SPOKEN = ("asr", "overlapped_speech_recognition")
"""Tasks whose answers are in the language that is spoken."""
TOGETHER = ("Han", "Kana")
"""A Japanese sentence may have no kana in it; that is counted apart."""


def script(column: str) -> str:
    """Return the SQL for the script of a text; empty if it has no letter of these. Most begin with one of ASCII."""
    tests = " ".join(f"when regexp_matches({column}, '[{signs}]') then '{name}'" for name, signs in SCRIPTS.items())
    return (
        f"case when strlen({column}) = length({column})\n"
        f"            then case when ascii({column}) between 65 and 90 or ascii({column}) between 97 and 122\n"
        f"                        or regexp_matches({column}, '[A-Za-z]') then 'Latin' else '' end\n"
        f"         {tests} else '' end"
    )


QUERIES = {
    "scripts": """\
select task, corpus, language, asked, script, case when script = 'Han' then form else '' end as form,
       sum(answers)::bigint as answers, min(key) as example
from told where words is not null group by all
order by task, corpus, language, answers desc, asked, script, form""",
    "texts": f"""\
select corpus, language, {script("text")} as script, count(*) as texts, min(key) as example
from samples where text <> '' group by all order by corpus, language, texts desc, script""",
}


class Script(msgspec.Struct, frozen=True, kw_only=True):
    """Answers of one task and corpus in one script, asked for in one script."""

    task: str
    corpus: str
    language: str
    """Declared, of what is spoken."""
    asked: str
    """The script of the prompts."""
    script: str
    """The script of the answers; empty if they have no letter."""
    form: str
    """Of Han: simplified, traditional or both, by characters that differ; empty if none of them is there."""
    answers: int
    share: float
    """Of the answers of the task and corpus."""
    expected: str
    """The script that the task or the language asks for, empty if neither says."""
    fits: bool
    key: str
    """A sample of them, if they are odd."""


class Text(msgspec.Struct, frozen=True, kw_only=True):
    """Transcripts of one corpus and language in one script."""

    corpus: str
    language: str
    script: str
    texts: int
    share: float
    expected: str
    fits: bool
    key: str


class Languages(msgspec.Struct, frozen=True, kw_only=True):
    """In which scripts answers and transcripts are written."""

    answers: tuple[Script, ...]
    texts: tuple[Text, ...]
    simplified: str
    """The characters by which simplified Chinese is known."""
    traditional: str


def look(view: View) -> Languages:
    """Return in which scripts answers and transcripts are written."""
    rows = view.database.ask("scripts")
    answers: dict[tuple[str, str], int] = {}
    for task, corpus, _, _, _, _, count, _ in rows:
        answers[task, corpus] = answers.get((task, corpus), 0) + count
    found = view.database.ask("texts")
    texts: dict[str, int] = {}
    for corpus, _, _, count, _ in found:
        texts[corpus] = texts.get(corpus, 0) + count
    order = {task: place for place, task in enumerate(ordered({row[0] for row in rows}))}
    return Languages(
        answers=tuple(
            Script(
                task=task,
                corpus=corpus,
                language=shown(language),
                asked=asked,
                script=script,
                form=form,
                answers=count,
                share=share(count, answers[task, corpus]),
                expected=expected(task, language, asked, script),
                fits=fits(expected(task, language, asked, script), script),
                key=shown(key) if odd(expected(task, language, asked, script), script, form) else "",
            )
            for task, corpus, language, asked, script, form, count, key in sorted(rows, key=lambda row: order[row[0]])
        ),
        texts=tuple(
            Text(
                corpus=corpus,
                language=shown(language),
                script=script,
                texts=count,
                share=share(count, texts[corpus]),
                expected=written_in(language),
                fits=fits(written_in(language), script),
                key=shown(key) if odd(written_in(language), script) else "",
            )
            for corpus, language, script, count, key in found
        ),
        simplified=SIMPLIFIED_ONLY,
        traditional=TRADITIONAL_ONLY,
    )


def written_in(language: str) -> str:
    """Return the script of a language, empty if it is not known here."""
    return WRITTEN.get(language.partition("-")[0].lower(), "")


def expected(task: str, language: str, asked: str, script: str) -> str:
    """Return the script that answers should have: what the task names, what is spoken, or what the prompt is in."""
    if task in TARGETS:
        return TARGETS[task]
    if task in SPOKEN:
        return written_in(language)
    return script if script == written_in(language) else asked


def fits(wanted: str, script: str) -> bool:
    """Whether a script is as wanted; figures alone fit anywhere, and so does what nothing is known of."""
    return not wanted or not script or script == wanted or (wanted == "Kana" and script == "Han")


def odd(wanted: str, script: str, form: str = "") -> bool:
    """Whether one would like to see an example."""
    return (wanted != "" and script != wanted) or form in ("traditional", "both")


def gates(found: Languages) -> tuple[Gate, ...]:
    """Judge the scripts."""
    return (judged(found),)


def judged(found: Languages) -> Gate:
    """Answers are in the script that the task or the language asks for, Chinese ones in simplified characters."""
    odd: dict[tuple[str, str], list[Script]] = {}
    for row in found.answers:
        if not row.fits:
            odd.setdefault((row.task, row.corpus), []).append(row)
    part, rows = max(((sum(row.share for row in rows), rows) for rows in odd.values()), key=first_of, default=(0.0, []))
    if part > SOME:
        row = rows[0]
        said = f"{percent(part)} of the answers of {row.task} of {row.corpus} are in {row.script} letters, not in"
        said = f"{said} {row.expected} as expected, for example {row.key}"
        if part > MOST and row.task in TARGETS:
            return fail("languages", f"{said}: the translations are not in the language that is asked for.")
        return warn("languages", f"{said}; is the language declared rightly?")
    if wrong := [text for text in found.texts if not text.fits and text.share > SOME]:
        text = max(wrong, key=lambda text: text.share)
        said = (
            f"{percent(text.share)} of the transcripts of {text.corpus} are in {text.script} letters, but declared as"
        )
        return warn("languages", f"{said} {text.language!r}, for example {text.key}; is the language declared rightly?")
    bare = [row for row in found.answers if row.task == "translation_en_ja" and row.script == "Han" and row.answers > 1]
    if part := max((row.share for row in bare), default=0.0):
        row = max(bare, key=lambda row: row.share)
        if part > NO_KANA:
            said = f"{percent(part)} of the Japanese answers of {row.corpus} have no kana, for example {row.key}"
            return warn("languages", f"{said}: they may be Chinese.")
    old = [row for row in found.answers if row.form in ("traditional", "both") and row.task == "translation_en_zh"]
    if old and (part := max(row.share for row in old)) > TRADITIONAL:
        row = max(old, key=lambda row: row.share)
        said = (
            f"{percent(part)} of the Chinese answers of {row.corpus} have traditional characters, for example {row.key}"
        )
        return warn("languages", f"{said}; the rest is simplified: decide for one.")
    spoken = sorted({row.language for row in found.answers if row.language})
    return good(
        "languages",
        f"Answers are in the letters that are asked for; languages declared: {', '.join(spoken) or 'none'}.",
    )


def first_of(pair: tuple[float, object]) -> float:
    """Order pairs by their number alone."""
    return pair[0]
