"""CoVoST 2 (https://github.com/facebookresearch/covost): what Common Voice 4 reads in English, in other languages.

The translations, and Common Voice as it unpacks: version 4 flat, later ones under ``cv-corpus-<version>-<date>/en/``::

    covost_v2.en_zh-CN.tsv, covost_v2.en_de.tsv, covost_v2.en_ja.tsv     those that are there are read, one suffices
    validated.tsv
    clips/common_voice_en_19664034.mp3                                   mono, mostly 48 kHz

One row of a translation, after its header; one row of validated.tsv (more columns, in any order)::

    path\ttranslation\tsplit
    common_voice_en_18540003.mp3\tWenn Wasser knapp ist, verschwenden Sie es nicht.\tdev
    path\tsentence\tclient_id
    common_voice_en_18540003.mp3\tWhen water is scarce, avoid wasting it.\td277a1f3904ae00b...

The tables are read as get_covost_splits.py of the repository does: tabs alone separate, a backslash escapes, quotes are
letters (so a sentence keeps the ``""`` of its source), and "null" or "NA" is a sentence. A clip is what validated.tsv
and a translation both list, in the order of validated.tsv; train is the splits train and train_covost. One clip carries
the translations of all languages.
"""

from __future__ import annotations

import csv
import operator
from collections.abc import Iterator

from manifests import files
from manifests.clips import AudioRef, Clip, Refuse
from manifests.errors import UserError

LANGUAGES = ("zh-CN", "de", "ja")
SPLITS = {"train": ("train", "train_covost"), "dev": ("dev",), "test": ("test",)}
UNUSED = ("dev_covost", "test_covost")
"""Splits that a table may name and get_covost_splits.py gives to nobody."""
GENDERS = {"female": "female", "male": "male", "female_feminine": "female", "male_masculine": "male"}
TRANSLATED = ["path", "translation", "split"]
VALIDATED = ["path", "sentence", "client_id"]
OPTIONAL = ["gender"]


def clips(root: str, split: str, refuse: Refuse) -> Iterator[Clip]:
    """Yield the translated clips of `split` in the order of validated.tsv, then refuse those it does not list."""
    voice = find_voice(root)
    translations = read_translations(root, voice, split, refuse)
    missing = set(translations)
    name = f"{voice}validated.tsv"
    for number, (path, sentence, speaker, gender) in read_rows(root, name, VALIDATED, refuse):
        if path not in translations:
            continue
        missing.discard(path)
        if not sentence:
            refuse("malformed_row", f"covost2/{name}:{number}", f"{path} has no sentence")
            continue
        yield Clip(
            id=f"covost2/{path.removesuffix('.mp3')}",
            audio=(AudioRef(path=f"{voice}clips/{path}"),),
            language="en",
            speaker=f"covost2/{speaker}" if speaker else "",
            gender=GENDERS.get(gender, ""),
            text=sentence,
            translations=translations[path],
            license="CC0-1.0",
        )
    for path in translations:
        if path in missing:
            refuse("not_validated", f"covost2/{path.removesuffix('.mp3')}", f"it is translated, but not in {name}")


def find_voice(root: str) -> str:
    """Return the folder of Common Voice's English, relative to `root`, with a slash behind it; empty for `root`."""
    releases = [name for name in files.names(root) if name.startswith("cv-corpus-")]
    # CoVoST 2 was made on version 4: where several versions are unpacked, that is the one.
    releases.sort(key=lambda name: (name.split("-")[2] != "4", name))
    places = ["", "en/", *(f"{release}/{inside}" for release in releases for inside in ("en/", ""))]
    for place in places:
        if files.exists(files.join(root, place, "validated.tsv")):
            return place
    raise UserError(
        f"covost2: there is no validated.tsv in {root!r}, nor in en/ or cv-corpus-4-2019-12-10/en/ below it; "
        "unpack Common Voice Corpus 4, English, there"
    )


def read_translations(root: str, voice: str, split: str, refuse: Refuse) -> dict[str, dict[str, str]]:
    """Map the name of each clip of `split` to its translations, by language."""
    places = [place for place in dict.fromkeys(("", "covost2/", voice)) if files.is_folder(files.join(root, place))]
    names = {
        language: f"{place}covost_v2.en_{language}.tsv"
        for language in LANGUAGES
        for place in reversed(places)
        if files.exists(files.join(root, place, f"covost_v2.en_{language}.tsv"))
    }
    if not names:
        raise UserError(
            f"covost2: there is no covost_v2.en_zh-CN.tsv in {root!r}, nor one for de or ja; "
            "unpack the archives of dl.fbaipublicfiles.com/covost there"
        )
    wanted = SPLITS[split]
    others = {part for parts in (*SPLITS.values(), UNUSED) for part in parts}.difference(wanted)
    translations: dict[str, dict[str, str]] = {}
    for language, name in names.items():
        for number, (path, translation, part, _) in read_rows(root, name, TRANSLATED, refuse):
            if part in others:
                continue
            if part not in wanted:
                refuse("malformed_row", f"covost2/{name}:{number}", f"{part[:40]!r} is no split of CoVoST 2")
                continue
            told = translations.setdefault(path, {})
            if "/" in path or not path.endswith(".mp3") or not translation or language in told:
                why = "is there twice" if language in told else "is no clip with its translation"
                refuse("malformed_row", f"covost2/{name}:{number}", f"{path[:60]!r} {why}")
            else:
                told[language] = translation
    return {path: told for path, told in translations.items() if told}


def read_rows(root: str, name: str, columns: list[str], refuse: Refuse) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield the line and the values of `columns`, then of OPTIONAL, of each row of a table; UserError if one lacks."""
    path = files.join(root, name)
    rows = csv.reader(
        read_lines(path, name, refuse), delimiter="\t", quoting=csv.QUOTE_NONE, escapechar="\\", strict=True
    )
    try:
        header = [column.removeprefix("\ufeff") for column in next(rows, [])]
    except csv.Error as error:
        raise UserError(f"{path} is not a table of tab-separated columns ({error}); unpack it anew") from None
    if not set(columns) <= set(header):
        raise UserError(f"{path}: the columns are {header[:12]}, but {', '.join(columns)} must be among them")
    # An absent column reads as the empty string put behind every row.
    places = [header.index(column) if column in header else len(header) for column in columns + OPTIONAL]
    pick, width, whole = operator.itemgetter(*places), len(header), False
    while not whole:
        try:
            for row in rows:
                if len(row) == width:
                    row.append("")
                    yield rows.line_num, pick(row)
                elif row:
                    told = "\t".join(row)[:80]
                    refuse("malformed_row", f"covost2/{name}:{rows.line_num}", f"{told!r} is not {width} columns")
            whole = True
        except csv.Error as error:
            # The reader goes on with the next line.
            refuse("malformed_row", f"covost2/{name}:{rows.line_num}", str(error))


def read_lines(path: str, name: str, refuse: Refuse) -> Iterator[str]:
    """Yield the lines of a table one by one; what is not UTF-8 is refused and reads as an empty line."""
    with files.open_read(path) as file:
        for number, line in enumerate(file, start=1):
            try:
                yield line.decode()
            except UnicodeDecodeError as error:
                refuse("malformed_row", f"covost2/{name}:{number}", f"not UTF-8 ({error.reason} at {error.start})")
                yield "\n"
