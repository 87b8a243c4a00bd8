"""Settings files: TOML, read strictly into frozen structs; an unknown key is an error that names the nearest one."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from manifests.errors import UserError, nearest

Settings = TypeVar("Settings", bound=msgspec.Struct)

UNKNOWN_FIELD = re.compile(r"unknown field `([^`]*)`(?: - at `\$(.*)`)?")


def read_toml(path: str | Path, kind: type[Settings]) -> Settings:
    """Read the TOML file at `path` into `kind`; raise UserError with the file, the key and the remedy."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"there is no settings file {str(path)!r}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the settings file {str(path)!r}: {error}") from None
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path}: not valid TOML: {error}") from None
    return convert(values, kind, where=str(path))


def convert(values: Any, kind: type[Settings], *, where: str) -> Settings:
    """Turn plain values into the struct `kind`; `where` names their origin in an error."""
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise UserError(f"{where}: {explain(str(error), kind)}") from None


def explain(message: str, kind: type[msgspec.Struct]) -> str:
    """Turn msgspec's message into a sentence; for an unknown key, add the nearest known key of that table."""
    match = UNKNOWN_FIELD.search(message)
    if match is None:
        return message.replace("Object", "the table").replace("`$", "`").replace(" - at ``", "")
    key, place = match.group(1), (match.group(2) or "").lstrip(".")
    inside = f" in [{place}]" if place else ""
    return f"unknown key {key!r}{inside}; {nearest(key, known_keys(kind, place))}"


def known_keys(kind: Any, place: str) -> list[str]:
    """Return the keys allowed at `place` (for example ``instruct[...].splits``) of the struct `kind`."""
    inside = [msgspec.inspect.type_info(kind)]
    for step in ("", *re.findall(r"\[[^]]*\]|[^.\[]+", place)):
        inside = [below for info in inside for below in step_into(info, step)]
    structs = [info for info in inside if isinstance(info, msgspec.inspect.StructType)]
    return sorted({field.encode_name for info in structs for field in info.fields})


def step_into(info: Any, step: str) -> list[Any]:
    """Return the types found by one step of a place: a key, or ``[...]``; a choice of types gives several."""
    if isinstance(info, msgspec.inspect.UnionType):
        return [below for one in info.types for below in step_into(one, step)]
    if not step:
        return [info]
    if isinstance(info, msgspec.inspect.StructType):
        found = [field.type for field in info.fields if field.encode_name == step]
    elif isinstance(info, msgspec.inspect.DictType):
        found = [info.value_type]
    else:
        found = [info.item_type] if hasattr(info, "item_type") else []
    return [below for one in found for below in step_into(one, "")]
