r"""WikiQA (https://www.microsoft.com/en-us/download/details.aspx?id=52419): questions to Bing, answered in Wikipedia.

The published tree, UTF-8, fields between tabs and never quoted: a quotation mark is a character::

    WikiQACorpus/WikiQA-train.tsv                     also -dev and -test; WikiQA.tsv is all three together

A header and one row, of the format (the licence forbids a change unmarked, so this text is ours), with its tabs as \t::

    QuestionID\tQuestion\tDocumentID\tDocumentTitle\tSentenceID\tSentence\tLabel
    Q1\thow is salt made\tD1\tSalt\tD1-0\tSalt is made by drying sea water .\t1

A clip is a question that has an answer: a sentence labelled 1, or several, each of which is right. More than half of
the questions have none and are refused as ``no_answer``. Their audio is synthesized, by a voice drawn for the question.
Some questions are in capitals; they are spoken like any other.
"""

from __future__ import annotations

from collections.abc import Iterator

from manifests import draw, files
from manifests.clips import AudioRef, Clip, Refuse
from manifests.errors import UserError

COLUMNS = ["QuestionID", "Question", "DocumentID", "DocumentTitle", "SentenceID", "Sentence", "Label"]
VOICES = ("en-us", "en-us+f3", "en-gb", "en-gb+f2")
"""Of espeak-ng: American and British, as they are and with a woman's timbre."""


def clips(root: str, split: str, refuse: Refuse) -> Iterator[Clip]:
    """Yield every question of `split` that has an answer; `root` holds the folder WikiQACorpus, or is it."""
    inside = files.join(root, "WikiQACorpus")
    table = files.join(inside if files.is_folder(inside) else root, f"WikiQA-{split}.tsv")
    if not files.exists(table):
        raise UserError(
            f"wikiqa: there is no file {table!r}; WikiQACorpus.zip holds it as WikiQACorpus/WikiQA-{split}.tsv"
        )
    for name, (question, answers) in read_questions(table, refuse).items():
        if not answers:
            refuse("no_answer", f"wikiqa/{name}", f"none of its sentences answers {question[:60]!r}")
            continue
        yield Clip(
            id=f"wikiqa/{name}",
            audio=(AudioRef(speech=question, voice=draw.choice(VOICES, "wikiqa", name)),),
            language="en",
            text=question,
            questions=tuple(("", answer) for answer in answers),
            license="Microsoft Research Data License",
        )


def read_questions(path: str, refuse: Refuse) -> dict[str, tuple[str, list[str]]]:
    """Map the id of each question to the question and the sentences that answer it, in the order of the file."""
    try:
        # Not splitlines: a sentence may hold what Unicode calls a line end.
        header, *lines = files.read_text(path).split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); unpack it anew") from None
    if header.split("\t") != COLUMNS:
        raise UserError(f"{path}: the columns are {header[:80].split()}, but WikiQA has {COLUMNS}, with tabs between")
    questions: dict[str, tuple[str, list[str]]] = {}
    for number, line in enumerate(lines, start=2):
        if not line.strip():
            continue
        row = line.split("\t")
        if len(row) != len(COLUMNS) or row[6] not in ("0", "1") or not (row[0] and row[1].strip() and row[5].strip()):
            name = path.rsplit("/", 1)[-1]
            refuse("malformed_row", f"wikiqa/{name}:{number}", f"{line[:60]!r} is not {', '.join(COLUMNS)} with tabs")
            continue
        _, answers = questions.setdefault(row[0], (row[1], []))
        if row[6] == "1":
            answers.append(row[5])
    return questions
