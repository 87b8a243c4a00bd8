r"""Inspec (Hulth, EMNLP 2003, https://aclanthology.org/W03-1028): abstracts of papers with keyphrases by indexers.

The published tree, once the three zips in Hulth2003.tar.gz are unpacked; a zip may bring a folder of its own name::

    Hulth2003/Training/1.abstr                        Training, Validation or Test
    Hulth2003/Training/1.uncontr                      any keyphrases; 1.contr, those of a thesaurus, are not read

Long lines are wrapped by ``\n\t``. The title, which may be wrapped too, ends at the first ``\r\n``. One abstract and
its keyphrases, of the format (the text is ours)::

    A cheap sensor\n\tfor rivers\r\nThe height of a river is measured by\n\tsound. ...\r\n
    river gauges; ultrasonic\n\tsensors\r\n

The clip is the title and the abstract, synthesized by a voice drawn for the document. Most take longer than the 30 s
that SALMONN hears; they are packed whole, and the keyphrases are those of the whole.
"""

from __future__ import annotations

from collections.abc import Iterator

from manifests import draw, files
from manifests.clips import AudioRef, Clip, Refuse
from manifests.corpora.wikiqa import VOICES
from manifests.errors import UserError

FOLDERS = {"train": "Training", "validation": "Validation", "test": "Test"}


def clips(root: str, split: str, refuse: Refuse) -> Iterator[Clip]:
    """Yield every document of `split` in the order of its name; `root` holds the folder Hulth2003, or is it."""
    folder = find_folder(root, FOLDERS[split])
    listed = files.names(folder)
    phrased = {name.removesuffix(".uncontr") for name in listed if name.endswith(".uncontr")}
    texts = {name.removesuffix(".abstr") for name in listed if name.endswith(".abstr")}
    for name in sorted(texts | phrased):
        clip_id = f"inspec/{name}"
        if name not in texts:
            refuse("no_abstract", clip_id, f"there is {name}.uncontr and no {name}.abstr")
            continue
        if name not in phrased:
            refuse("no_keywords", clip_id, f"there is {name}.abstr and no {name}.uncontr")
            continue
        try:
            title, abstract = read_abstract(files.join(folder, f"{name}.abstr"))
            keywords = read_keywords(files.join(folder, f"{name}.uncontr"))
        except ValueError as error:
            refuse("malformed_row", clip_id, str(error))
            continue
        text = f"{title} {abstract}" if title.endswith((".", "?", "!")) else f"{title}. {abstract}"
        yield Clip(
            id=clip_id,
            audio=(AudioRef(speech=text, voice=draw.choice(VOICES, "inspec", name)),),
            language="en",
            text=text,
            labels={"keywords": "; ".join(keywords)},
            license="research use",
        )


def find_folder(root: str, name: str) -> str:
    """Return the folder of a split: below Hulth2003 or not, and within a folder of its own name or not."""
    top = files.join(root, "Hulth2003") if files.is_folder(files.join(root, "Hulth2003")) else root
    for folder in (files.join(top, name), files.join(top, name, name)):
        if files.names(folder, ".abstr"):
            return folder
    raise UserError(
        f"inspec: there is no *.abstr in {files.join(top, name)!r}; unpack {name}.zip of Hulth2003.tar.gz there"
    )


def read_abstract(path: str) -> tuple[str, str]:
    """Return title and abstract, without their wrapping; ValueError if one is missing or they are not text."""
    title, end, abstract = unwrapped(path).partition("\r\n")
    abstract = abstract.replace("\r\n", " ").strip()
    if not end or not title.strip() or not abstract:
        raise ValueError(f"{path}: not a title, a line end (CR LF) and an abstract")
    return title.strip(), abstract


def read_keywords(path: str) -> list[str]:
    """Return the keyphrases; ValueError if there is none."""
    phrases = [phrase.strip() for phrase in unwrapped(path).replace("\r\n", " ").split(";")]
    if not any(phrases):
        raise ValueError(f"{path}: no keyphrase")
    return [phrase for phrase in phrases if phrase]


def unwrapped(path: str) -> str:
    r"""Return the text of a file with its lines joined. Bytes, since ``\r\n`` and ``\n`` mean different things."""
    try:
        return files.read_bytes(path).decode("utf-8").replace("\n\t", " ")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start})") from None
