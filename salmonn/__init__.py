"""The model and its trainer: a Whisper encoder, a window Q-Former and a language model with LoRA.

The public names load on first use, so that ``import salmonn`` (and ``salmonn --help``) needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from salmonn.config import SalmonnConfig
    from salmonn.evaluation.evaluate import evaluate
    from salmonn.generation import generate
    from salmonn.model import Salmonn
    from salmonn.training.trainer import train

__all__ = ["Salmonn", "SalmonnConfig", "evaluate", "generate", "train"]

ROOMS = {
    "Salmonn": "salmonn.model",
    "SalmonnConfig": "salmonn.config",
    "evaluate": "salmonn.evaluation.evaluate",
    "generate": "salmonn.generation",
    "train": "salmonn.training.trainer",
}


def __getattr__(name: str) -> Any:
    """Import the room of a public name when it is first asked for (PEP 562)."""
    if name not in ROOMS:
        raise AttributeError(f"module 'salmonn' has no attribute {name!r}")
    return getattr(importlib.import_module(ROOMS[name]), name)
