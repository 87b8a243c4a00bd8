"""The models that benchmarks/train.py trains: the sizes of published parts, with random weights."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from salmonn.beats import Beats, BeatsSettings
from salmonn.config import SalmonnConfig, load_preset
from salmonn.model import Salmonn
from salmonn.tokenizer import byte_tokenizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sizes:
    """Width, layers, heads and width between of the encoder and of the language model, and its vocabulary."""

    preset: str
    whisper: tuple[int, int, int, int]
    llm: tuple[int, int, int, int]
    vocabulary: int
    kv_heads: int


SIZES: dict[str, Sizes | None] = {
    "tiny": None,
    # whisper-small and Qwen2.5-0.5B; whisper-large-v2 and Vicuna-7B: their published config.json.
    "compact": Sizes(
        preset="compact", whisper=(768, 12, 12, 3072), llm=(896, 24, 14, 4864), vocabulary=151_936, kv_heads=2
    ),
    "7b": Sizes(
        preset="salmonn-7b", whisper=(1280, 32, 20, 5120), llm=(4096, 32, 32, 11008), vocabulary=32_000, kv_heads=32
    ),
}


def make_model(name: str, device: torch.device, *, published: bool) -> Salmonn:
    """Make the model of a preset on `device`; `published`: in the types that the published recipe has.

    A byte tokenizer reads the text; the vocabulary, and so the logits, are as wide as the published one's.
    """
    sizes = SIZES[name]
    if sizes is None:
        return Salmonn.from_config(load_preset(name).model, device)
    config: SalmonnConfig = load_preset(sizes.preset).model
    gpu = device.type == "cuda"
    frozen = torch.bfloat16 if gpu and not published else torch.float32
    llm_type = (torch.float16 if published else torch.bfloat16) if gpu else torch.float32
    tokenizer = byte_tokenizer()
    torch.manual_seed(0)
    with device:
        width, layers, heads, ffn = sizes.whisper
        encoder = WhisperEncoder(
            transformers.WhisperConfig(
                d_model=width, encoder_layers=layers, encoder_attention_heads=heads, encoder_ffn_dim=ffn
            )
        ).to(frozen)
        beats = Beats(BeatsSettings()).to(frozen)
        width, layers, heads, ffn = sizes.llm
        torch.set_default_dtype(llm_type)
        llm = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=sizes.vocabulary,
                hidden_size=width,
                num_hidden_layers=layers,
                num_attention_heads=heads,
                num_key_value_heads=sizes.kv_heads,
                intermediate_size=ffn,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
        torch.set_default_dtype(torch.float32)
        for part in (encoder, beats, llm):
            part.requires_grad_(False).eval()
        model = Salmonn(config, whisper=encoder, llm=llm, tokenizer=tokenizer, beats=beats)
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()
    return model.to(device)


def time_a_save(saves: int = 4) -> dict[str, float]:
    """Seconds a step waits for a checkpoint of what the 13B preset trains, and the size of its weights' file in MB.

    Between saves the one before is let end, as it does between checkpoints of a run.
    """
    from salmonn.training.saves import Saver
    from salmonn.training.skeleton import skeleton

    model, _ = skeleton(load_preset("salmonn-13b").model)
    weights = {name: torch.randn(model.get_parameter(name).shape) for name in model.trained}
    slots = ("exp_avg", "exp_avg_sq")
    memory = {f"{name}/{slot}": torch.randn(weight.shape) for name, weight in weights.items() for slot in slots}
    waited = []
    with (
        tempfile.TemporaryDirectory(dir=Path(__file__).parent, prefix=".train-") as folder,
        Saver(Path(folder), keep=1) as saver,
    ):
        saver.reserve(model=weights, optimizer=memory)
        time.sleep(5)  # steps are taken until the first is saved
        for step in range(1, saves + 1):
            saver.wait()
            begin = time.perf_counter()
            saver.begin(step=step, horizon=saves, model=weights, optimizer=memory, stream={}, config="", frozen="")
            waited.append(time.perf_counter() - begin)
        saver.wait()
        (file,) = Path(folder).glob("step-*/model.safetensors")
        size = file.stat().st_size
    count = sum(weight.numel() for weight in weights.values())
    return {"first": waited[0], "later, at most": max(waited[1:]), "MB": size / 1e6, "weights": count}


def time_the_waiting(steps: int) -> dict[str, float]:
    """Train the tiny preset on an hour of real speech; return the share of the time that it waited for data."""
    from build import RECIPE
    from salmonn.training.run import StepLog
    from salmonn.training.settings import BatchConfig, TrainConfig
    from salmonn.training.trainer import train
    from speech import write_corpus

    lines: list[StepLog] = []
    with tempfile.TemporaryDirectory(dir=Path(__file__).parent, prefix=".train-") as folder:
        write_corpus(Path(folder), 1.0)
        recipe = Path(folder, "bench.toml")
        recipe.write_text(RECIPE)
        command = [sys.executable, "-m", "salmonn.cli", "build", str(recipe), "--root", folder]
        subprocess.run([*command, "--out", f"{folder}/dataset"], check=True, stdout=subprocess.DEVNULL)
        config = TrainConfig(
            run=f"{folder}/run",
            dataset=f"{folder}/dataset",
            recipe=str(recipe),
            model="tiny",
            steps=steps,
            batch=BatchConfig(max_seconds=240.0, max_examples=8),
        )
        train(config, on_step=lines.append)
    lines = lines[2:]
    waited, took = sum(line.wait_seconds for line in lines), sum(line.seconds for line in lines)
    return {"waited": waited, "took": took, "share": waited / took}
