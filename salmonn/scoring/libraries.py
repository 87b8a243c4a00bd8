"""The libraries that scores are made with: imported when they are needed, and named with their versions."""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import Any

from manifests.errors import UserError


def library(module: str) -> Any:
    """Return a module of the extra `score`; UserError says how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(f"scoring needs {error.name or module}; pip install -e '.[score]' installs it") from None


def version(distribution: str) -> str:
    """Return the version of an installed library, as the index of packages names it."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
