"""A folder of an audio language model of transformers as one who answers: its own processor, its own chat template."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers

from manifests.errors import UserError
from salmonn.evaluation.request import Decoding
from salmonn.evaluation.respondent import Reply
from salmonn.parts import loading, seeded
from shards.flac import RATE

BLOCK = 1 << 24
"""Bytes read at a time."""
SHORTEST = 3200
"""Samples that a sound has at least, of silence if need be: transformers' Qwen2-Audio takes a clip of one token, up to
0.08 s, for one that its processor has not seen, and fails."""


class FolderRespondent:
    """Any model that AutoModelForMultimodalLM knows: Qwen2-Audio, Voxtral, Granite Speech, Audio Flamingo and others.

    No code in the folder is run and nothing is downloaded: a folder that needs either is refused.
    """

    def __init__(self, folder: str | Path) -> None:
        """Stand before the model in `folder`; it is made when it is first asked. UserError if none is there."""
        self.folder = Path(folder)
        if not (self.folder / "config.json").is_file():
            raise UserError(
                f"--model hf:{folder}: there is no config.json; it must be a model's folder on this machine"
            )
        self.opened: tuple[Any, Any] | None = None
        self.digest = ""

    @property
    def name(self) -> str:
        """The folder's name with the first letters of the digest of its files."""
        self.digest = self.digest or digest_of(self.folder)
        return f"hf:{self.folder.resolve().name}@{self.digest[:12]}"

    def reply(
        self, waves: Sequence[npt.NDArray[np.float32]], prompts: Sequence[str], decoding: Decoding
    ) -> list[Reply]:
        """Return the answers, made in one batch with padding on the left."""
        if decoding.lora_scale != 1:
            raise UserError(f"the LoRA scale is {decoding.lora_scale:g}; {self.name} has no LoRA of ours, only 1 fits")
        processor, model = self.open()
        asked = [
            [{"role": "user", "content": [{"type": "audio", "audio": filled(wave)}, {"type": "text", "text": prompt}]}]
            for wave, prompt in zip(waves, prompts, strict=True)
        ]
        try:
            inputs = processor.apply_chat_template(
                asked,
                tokenize=True,
                add_generation_prompt=True,
                return_dict=True,
                processor_kwargs={"padding": True, "return_tensors": "pt", "sampling_rate": RATE},
            )
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(
                f"the processor of {str(self.folder)!r} does not take a sound with a question: {error}"
            ) from None
        inputs = inputs.to(model.device, model.dtype)
        more = {"return_audio": False} if "return_audio" in inspect.signature(model.generate).parameters else {}
        with seeded(decoding.seed), torch.inference_mode():
            made = model.generate(
                **inputs,
                max_new_tokens=decoding.max_new_tokens,
                num_beams=decoding.beams,
                do_sample=False,
                **more,
            )
        ends = ends_of(model)
        new = [row[inputs["input_ids"].shape[1] :] for row in made.tolist()]
        texts = processor.batch_decode(new, skip_special_tokens=True)
        return [
            Reply(answer=text.strip(), finished=bool(ends.intersection(ids)))
            for text, ids in zip(texts, new, strict=True)
        ]

    def open(self) -> tuple[Any, Any]:
        """Return processor and model, on a GPU if there is one."""
        if self.opened is None:
            here: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
            gpu = torch.cuda.is_available()
            transformers.utils.logging.disable_progress_bar()
            with loading("--model hf", str(self.folder), "a processor with a chat template and *.safetensors"):
                processor = transformers.AutoProcessor.from_pretrained(self.folder, **here)
                model = transformers.AutoModelForMultimodalLM.from_pretrained(
                    self.folder, dtype="auto" if gpu else torch.float32, use_safetensors=True, **here
                )
            rate = getattr(getattr(processor, "feature_extractor", None), "sampling_rate", None)
            if rate != RATE or getattr(processor, "chat_template", None) is None:
                raise UserError(
                    f"--model hf:{self.folder}: its processor must hear at {RATE} Hz and have a chat template; it "
                    f"hears at {rate} and has {'one' if getattr(processor, 'chat_template', None) else 'none'}"
                )
            # Answers begin where prompts end, so what pads a prompt must stand before it.
            processor.tokenizer.padding_side = "left"
            self.opened = processor, model.eval().to("cuda" if gpu else "cpu")
        return self.opened


def filled(wave: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return a sound with silence behind it up to `SHORTEST`."""
    return np.pad(wave, (0, max(0, SHORTEST - len(wave))))


def ends_of(model: Any) -> set[int]:
    """Return the ids with which a model ends an answer."""
    ends = model.generation_config.eos_token_id
    return {ends} if isinstance(ends, int) else set(ends or ())


def digest_of(folder: Path) -> str:
    """Return what tells a model's folder from any other: a digest of all its files, hidden ones left out."""
    told = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or any(part.startswith(".") for part in Path(name).parts):
            continue
        one = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                one.update(block)
        told.update(f"{name}\0{one.hexdigest()}\n".encode())
    return told.hexdigest()
