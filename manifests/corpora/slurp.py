"""SLURP (https://github.com/pswietojanski/slurp): commands to a home assistant, read aloud, with their slots.

The repository and the two archives of https://zenodo.org/records/4274930, which its script unpacks into audio/; the
tables may also lie beside the audio, as SpeechBrain's recipe has them::

    dataset/slurp/devel.jsonl                         a sentence a line; train, train_synthetic, devel, test
    dataset/slurp/metadata.json                       who speaks: F, M or UNK, E (native) or O, a number; may be absent
    audio/slurp_real/audio-1434542201-headset.flac    16 kHz, mono
    audio/slurp_synth/...                             the audio of train_synthetic

One line, with the lemma and tag of each token left out::

    {"slurp_id": 13804, "sentence": "siri what is one american dollar in japanese yen",
     "sentence_annotation": "siri what is one [currency_name : american dollar] in [currency_name : japanese yen]",
     "intent": "qa_currency", "action": "currency", "tokens": [{"surface": "siri", "id": 0}, ...], "scenario": "qa",
     "recordings": [{"file": "audio-1434542201-headset.flac", "wer": 0.0, "ent_wer": 0.0, "status": "correct"},
                    {"file": "audio-1434542201.flac", "wer": 0.0, "ent_wer": 0.0, "status": "correct"}],
     "entities": [{"span": [4, 5], "type": "currency_name"}, {"span": [7, 8], "type": "currency_name"}]}

A clip is a recording: every take of a sentence is one, and the close-talk ``-headset`` twin of a take is one more. The
label ``mic`` tells them apart (``headset`` or ``far``; synthetic speech has none). The value of a slot is the tokens of
its span; the tokenizer parts "jessica's", and we join it again. A slot may occur twice in a sentence, as above. A
sentence without slots has text alone. The intent is mostly, not always, scenario_action: both are labels as published.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from manifests import files
from manifests.clips import AudioRef, Clip, Refuse
from manifests.errors import UserError

GENDERS = {"FE": "female", "FO": "female", "ME": "male", "MO": "male"}


class Token(msgspec.Struct, frozen=True):
    """A word, or a part of one."""

    id: int
    surface: str


class Entity(msgspec.Struct, frozen=True):
    """A slot: its type, and the ids of the tokens that fill it."""

    type: str
    span: list[int]


class Recording(msgspec.Struct, frozen=True):
    """One file in which the sentence is read."""

    file: str


class Sentence(msgspec.Struct, frozen=True):
    """What we use of a line."""

    sentence: str
    intent: str
    scenario: str
    tokens: list[Token]
    entities: list[Entity]
    recordings: list[Recording]


class Reader(msgspec.Struct, frozen=True):
    """Who reads a recording: ``FO-488``."""

    usrid: str = ""


class Entry(msgspec.Struct, frozen=True):
    """What we use of metadata.json about a sentence."""

    recordings: dict[str, Reader]


def clips(root: str, split: str, refuse: Refuse) -> Iterator[Clip]:
    """Yield every recording of `split`, sentence by sentence in the order of the table."""
    name = f"{split.replace('-', '_')}.jsonl"
    places = [files.join(root, "dataset/slurp", name), files.join(root, name)]
    table = next((place for place in places if files.exists(place)), "")
    if not table:
        raise UserError(
            f"slurp: there is no file {places[0]!r}; it is dataset/slurp/{name} of github.com/pswietojanski/slurp"
        )
    synthetic = split == "train-synthetic"
    folder = "slurp_synth" if synthetic else "slurp_real"
    folder = f"audio/{folder}" if files.is_folder(files.join(root, "audio", folder)) else folder
    readers = {} if synthetic else read_readers(table.removesuffix(name) + "metadata.json")
    decoder = msgspec.json.Decoder(Sentence)
    for number, line in enumerate(files.read_bytes(table).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = decoder.decode(line)
            questions = tuple(slot(entity, row.tokens) for entity in row.entities)
            for recording in row.recordings:
                if "/" in recording.file or not recording.file.endswith(".flac"):
                    raise ValueError(f"{recording.file[:60]!r} is no name of a FLAC file")
        except (msgspec.DecodeError, ValueError) as error:
            refuse("malformed_row", f"slurp/{name}:{number}", str(error))
            continue
        for recording in row.recordings:
            reader = readers.get(recording.file, "")
            labels = {"scenario": row.scenario, "intent": row.intent}
            if not synthetic:
                labels["mic"] = "headset" if recording.file.endswith("-headset.flac") else "far"
            yield Clip(
                id=f"slurp/{recording.file.removesuffix('.flac')}",
                audio=(AudioRef(path=f"{folder}/{recording.file}"),),
                language="en",
                speaker=f"slurp/{reader}" if reader else "",
                gender=GENDERS.get(reader.partition("-")[0], ""),
                text=row.sentence,
                labels=labels,
                questions=questions,
                license="CC-BY-NC-4.0",
            )


def slot(entity: Entity, tokens: list[Token]) -> tuple[str, str]:
    """Return the name of a slot in words, and its value; ValueError if its span is not of `tokens`."""
    surfaces = {token.id: token.surface for token in tokens}
    if not entity.span or not surfaces.keys() >= set(entity.span):
        raise ValueError(f"the span {entity.span} of {entity.type!r} is not among the {len(tokens)} tokens")
    value = ""
    for surface in map(surfaces.__getitem__, entity.span):
        # "jessica" "'s" and "do" "n't" are one word each, and a comma is none.
        joined = surface.startswith("'") or surface in ("n't", ",") or not value
        value += surface if joined else f" {surface}"
    return entity.type.replace("_", " "), value.rstrip(",")


def read_readers(path: str) -> dict[str, str]:
    """Map the name of each recording to who reads it; none where metadata.json is absent."""
    if not files.exists(path):
        return {}
    try:
        entries = msgspec.json.decode(files.read_bytes(path), type=dict[str, Entry])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not SLURP's metadata.json ({error}); fetch it anew") from None
    return {name: reader.usrid for entry in entries.values() for name, reader in entry.recordings.items()}
