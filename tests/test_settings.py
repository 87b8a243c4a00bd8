"""Settings: what is not there, not TOML, not known or of another type is told by its name and place."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests import UserError
from manifests.corpus import FOLDER, Facts, parse_source
from manifests.errors import nearest
from manifests.settings import convert, read_toml


class Paint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    colour: str
    coats: int = 1


class Room(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    floor: str = "wood"
    paint: Paint | None = None


class House(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    street: str
    number: int = 1
    rooms: tuple[Room, ...] = ()
    doors: dict[str, Paint] = {}
    roof: Paint = Paint(colour="red")


def read(tmp_path: Path, text: str) -> House:
    place = tmp_path / "house.toml"
    place.write_text(text)
    return read_toml(place, House)


def test_what_is_right_is_read(tmp_path: Path) -> None:
    text = (
        'street = "Main"\n[[rooms]]\nfloor = "stone"\npaint.colour = "blue"\n[doors.front]\ncolour = "green"\ncoats = 2'
    )
    blue, green = Paint(colour="blue"), Paint(colour="green", coats=2)
    assert read(tmp_path, text) == House(
        street="Main", rooms=(Room(floor="stone", paint=blue),), doors={"front": green}
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("stret = 'Main'", r"unknown key 'stret'; did you mean 'street'\?"),
        ("xyz = 1", r"unknown key 'xyz'; known: doors, number, roof, rooms, street"),
        ("street = 'a'\n[roof]\ncolor = 'red'", r"unknown key 'color' in \[roof\]; did you mean 'colour'\?"),
        ("street = 'a'\n[[rooms]]\nflor = 'red'", r"unknown key 'flor' in \[rooms.*\]; did you mean 'floor'\?"),
        ("street = 'a'\n[doors.front]\ncots = 2", r"unknown key 'cots' in \[doors.*\]; did you mean 'coats'\?"),
        (
            "street = 'a'\n[[rooms]]\n[rooms.paint]\ncots = 2",
            r"unknown key 'cots' in \[rooms.*paint\]; did you mean 'coats'\?",
        ),
        ("street = 5", r"street"),
        ("street = 'a'\nnumber = 'five'", r"number"),
        ("street = 'a'\nnumber = 1.5", r"number"),
        ("street = 'a'\nrooms = 'many'", r"rooms"),
        ("street = 'a'\n[roof]\ncolour = []", r"roof.*colour"),
        ("number = 3", r"street"),
        ("street = 'a'\n[roof]\ncoats = 2", r"colour"),
        ("street = \nnumber = 2\n", r"not valid TOML.*line 1"),
        ("street = 'a'\nstreet = 'b'\nnumber = 2\n", r"not valid TOML.*line 2"),
    ],
)
def test_what_is_wrong_is_told_with_the_file_and_the_remedy(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(UserError, match=rf"house\.toml: .*{told}"):
        read(tmp_path, text)


def test_a_missing_file_is_told_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no settings file .*nowhere\.toml"):
        read_toml(tmp_path / "nowhere.toml", House)


def test_a_folder_and_bytes_that_are_no_text_are_told_by_their_path(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read the settings file"):
        read_toml(tmp_path, House)
    (tmp_path / "house.toml").write_bytes(b"street = '\xff'")
    with pytest.raises(UserError, match=r"cannot read the settings file .*house\.toml"):
        read_toml(tmp_path / "house.toml", House)


keys = st.sampled_from(
    ["street", "number", "rooms", "doors", "roof", "colour", "coats", "floor", "paint", "colr", "[x]", "a.b", "`"]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inside: st.lists(inside, max_size=2) | st.dictionaries(keys, inside, max_size=2),
    max_leaves=6,
)


@given(st.dictionaries(keys, values, max_size=4))
def test_any_values_are_a_house_or_one_sentence(values: dict[str, object]) -> None:
    try:
        house = convert(values, House, where="here")
    except UserError as error:
        told = str(error)
    else:
        assert convert(msgspec.to_builtins(house), House, where="again") == house
        return
    assert told.startswith("here: ")
    assert "\n" not in told
    assert "$" not in told


@given(st.text(max_size=8), st.lists(st.text("abcdef", min_size=1, max_size=8), max_size=5))
def test_the_nearest_name_is_a_known_one_or_all_are_listed(name: str, known: list[str]) -> None:
    said = nearest(name, known)
    if said.startswith("did you mean"):
        assert said[len("did you mean '") : -len("'?")] in known
    else:
        assert all(other in said for other in known)
    if name in known:
        assert said == f"did you mean {name!r}?"


# -- the facts of the corpora are settings too


def test_a_typing_error_in_the_facts_of_a_split_is_a_sentence(tmp_path: Path) -> None:
    published = (FOLDER / "librispeech.toml").read_text()
    (tmp_path / "mine.toml").write_text(published.replace("hours = 5.4", "hour = 5.4", 1))
    with pytest.raises(UserError, match=r"mine\.toml: unknown key 'hour' in \[splits.*\]; did you mean 'hours'\?"):
        read_toml(tmp_path / "mine.toml", Facts)


def test_a_source_is_a_corpus_or_one_of_its_splits() -> None:
    corpus, splits = parse_source("librispeech")
    assert (corpus.name, len(splits)) == ("librispeech", 7)
    assert parse_source("librispeech:dev-clean")[1] == ("dev-clean",)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("libri", r"no corpus 'libri'"),
        ("librispech", r"no corpus 'librispech'; did you mean 'librispeech'\?"),
        ("librispeech:train", r"librispeech has no split 'train'"),
        ("librispeech:", r"librispeech has no split ''"),
        ("", r"no corpus ''"),
        ("../corpora/librispeech", r"no corpus"),
    ],
)
def test_a_source_that_is_none_is_told_with_what_there_is(text: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        parse_source(text)
