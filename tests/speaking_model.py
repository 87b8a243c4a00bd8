"""A run whose answers differ from sound to sound: one step on tones, then connecting weights wide enough to tell."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import msgspec
import safetensors.torch
import torch

from salmonn.training.trainer import run_training
from tiny_model import MODEL, ToneStream, config

replace = msgspec.structs.replace
SPEAKING = replace(
    MODEL,
    whisper=replace(MODEL.whisper, init_std=0.5),
    # A thousand pieces in place of bytes: what it says is nonsense, but in letters.
    llm=replace(MODEL.llm, init_std=0.15, pieces="tiny"),
)


def speaking_run(folder: Path) -> Path:
    """Make a run in `folder` and return it. A hundred steps would teach it no more than to say one thing always."""
    run_training(config(folder, steps=1, model=SPEAKING), ToneStream())
    (checkpoint,) = (folder / "checkpoints").iterdir()
    weights = safetensors.torch.load_file(checkpoint / "model.safetensors")
    random = torch.Generator().manual_seed(5)
    for name in sorted(weights):
        if "lora_B" in name or ("qformer." in name and weights[name].ndim >= 2):
            weights[name] = torch.randn(weights[name].shape, generator=random) * 0.4
    content = safetensors.torch.save(weights)
    (checkpoint / "model.safetensors").write_bytes(content)
    state = json.loads((checkpoint / "state.json").read_bytes())
    state["files"]["model.safetensors"] = hashlib.sha256(content).hexdigest()
    (checkpoint / "state.json").write_text(json.dumps(state))
    return folder
