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
    """Return the keys allowed at `place` (for example ``instruct[...]``) of the struct `kind`."""
    for step in filter(None, re.split(r"\.|(?=\[)", place)):
        info = msgspec.inspect.type_info(kind)
        if isinstance(info, msgspec.inspect.StructType) and not step.startswith("["):
            kind = next(field.type for field in msgspec.structs.fields(kind) if field.encode_name == step)
        elif isinstance(info, msgspec.inspect.DictType):
            kind = kind.__args__[1]
        else:
            kind = kind.__args__[0]
    return [field.encode_name for field in msgspec.structs.fields(kind)]
