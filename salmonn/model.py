"""SALMONN: a frozen Whisper encoder, a trained window Q-Former, and a frozen language model with trained LoRA.

Shapes: B clips, S samples at 16 kHz, F frames, A audio tokens a clip (88 in the paper), T text and audio positions,
D width of the language model, N answer tokens of the batch, V vocabulary.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import peft
import torch
from peft.helpers import rescale_adapter_scale
from peft.tuners.lora import LoraLayer
from torch import nn
from torch.nn import functional

from manifests.errors import UserError, nearest
from salmonn.batch import IGNORED, TextBatch, lay_out, tokenize
from salmonn.config import LoraConfig, SalmonnConfig
from salmonn.features import LogMel, Waveform
from salmonn.parts import load_llm, load_whisper, seeded
from salmonn.qformer import WindowQFormer
from salmonn.tokenizer import load_tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerTokens:
    """What the model made of every answer token of a batch, each EOS included, row after row."""

    nll_N: torch.Tensor
    """Negative log likelihood, float32, with its gradient."""
    correct_N: torch.Tensor
    """Whether the likeliest token was the right one (teacher-forced), bool."""
    row_N: torch.Tensor
    """Which row of the batch a token belongs to, int64."""
    truncated: int
    """How many answers were longer than `max_answer_tokens` and lost their end."""


class Salmonn(nn.Module):
    """The whole model. Frozen parts stay in eval mode whatever `train` is called with."""

    def __init__(self, config: SalmonnConfig, *, whisper: Any, llm: Any, tokenizer: Any) -> None:
        """Join frozen parts that are already there; `from_config` makes them."""
        super().__init__()
        self.config = config
        self.tokenizer = tokenizer
        self.log_mel = LogMel(whisper.config.num_mel_bins)
        self.whisper = whisper
        llm_width = llm.get_input_embeddings().embedding_dim
        self.qformer = WindowQFormer(config.qformer, speech_width=whisper.config.d_model, llm_width=llm_width)
        self.llm = add_lora(llm, config.lora)
        self.eval()

    @classmethod
    def from_config(cls, config: SalmonnConfig) -> Self:
        """Make the model that `config` describes, on the CPU; UserError if a part's folder is not there."""
        tokenizer = load_tokenizer(config.llm)
        llm = load_llm(config.llm, tokenizer)
        return cls(config, whisper=load_whisper(config.whisper), llm=llm, tokenizer=tokenizer)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.qformer.query_1QE.device

    def train(self, mode: bool = True) -> Self:
        """Set the mode of what is trained; a frozen encoder in train mode would drop layers and change its features."""
        super().train(mode)
        self.whisper.eval()
        self.llm.eval()
        for module in self.llm.modules():
            if isinstance(module, LoraLayer):
                module.lora_dropout.train(mode)
        return self

    def audio_tokens(self, waveforms: Sequence[Waveform]) -> torch.Tensor:
        """Return tokens_BAD, float32, of mono waveforms at 16 kHz: as many for every clip, whatever its length."""
        mel_BMF = self.log_mel(waveforms).to(self.device, self.whisper.dtype)
        with torch.no_grad():
            speech_BFC = self.whisper(mel_BMF).last_hidden_state
        tokens_BAD: torch.Tensor = self.qformer(speech_BFC.float())
        return tokens_BAD

    def answer_tokens(
        self, waveforms: Sequence[Waveform], prompts: Sequence[str], answers: Sequence[str]
    ) -> AnswerTokens:
        """Return the loss and the hits of every answer token; `prompts` already hold the template.

        A step over several batches sums `nll_N` over all and divides by the number of tokens of all.
        """
        rows = [
            tokenize(self.tokenizer, prompt, answer, max_answer_tokens=self.config.max_answer_tokens)
            for prompt, answer in zip(prompts, answers, strict=True)
        ]
        audio_BAD = self.audio_tokens(waveforms)
        text = lay_out(rows, audio_tokens=audio_BAD.shape[1], pad_id=self.tokenizer.pad_token_id, padding="right")
        labels_BT = text.labels_BT.to(self.device)
        # The token at a position is predicted from the position before it; the softmax is taken nowhere else.
        predicts_BT = functional.pad(labels_BT[:, 1:] != IGNORED, (0, 1))
        logits_NV = self.llm(
            inputs_embeds=self.embed(text, audio_BAD),
            attention_mask=text.mask_BT.to(self.device, torch.int64),
            position_ids=text.positions_BT.to(self.device),
            logits_to_keep=predicts_BT,
            use_cache=False,
        ).logits.float()
        labels_N = labels_BT[labels_BT != IGNORED]
        return AnswerTokens(
            nll_N=functional.cross_entropy(logits_NV, labels_N, reduction="none"),
            correct_N=logits_NV.detach().argmax(dim=-1) == labels_N,
            row_N=(labels_BT != IGNORED).nonzero()[:, 0],
            truncated=sum(row.truncated for row in rows),
        )

    def loss(self, waveforms: Sequence[Waveform], prompts: Sequence[str], answers: Sequence[str]) -> torch.Tensor:
        """Return the mean negative log likelihood over all answer tokens; `prompts` already hold the template."""
        return self.answer_tokens(waveforms, prompts, answers).nll_N.mean()

    def embed(self, text: TextBatch, audio_BAD: torch.Tensor) -> torch.Tensor:
        """Return embeddings_BTD: the words' own, and the audio tokens in their places."""
        words_BTD = self.llm.get_input_embeddings()(text.ids_BT.to(self.device))
        embeddings_BTD: torch.Tensor = words_BTD.masked_scatter(
            text.audio_BT.to(self.device)[:, :, None], audio_BAD.to(words_BTD.dtype)
        )
        return embeddings_BTD

    @torch.no_grad()
    def generate_ids(
        self,
        waveforms: Sequence[Waveform],
        prompts: Sequence[str],
        beams: int = 4,
        max_new_tokens: int = 200,
        lora_scale: float = 1.0,
    ) -> list[list[int]]:
        """Return the new token ids of each answer; one that ended has its EOS as the last, one cut off has none.

        `lora_scale` multiplies LoRA's scaling: 1 as trained, 0 the language model alone (paper, Figure 3).
        """
        if beams < 1 or max_new_tokens < 1:
            raise UserError(f"beams is {beams} and max_new_tokens is {max_new_tokens}; both must be at least 1")
        training = self.training
        self.eval()
        rows = [tokenize(self.tokenizer, prompt) for prompt in prompts]
        audio_BAD = self.audio_tokens(waveforms)
        text = lay_out(rows, audio_tokens=audio_BAD.shape[1], pad_id=self.tokenizer.pad_token_id, padding="left")
        with rescale_adapter_scale(self.llm, lora_scale):
            ids_BT = self.llm.generate(
                inputs_embeds=self.embed(text, audio_BAD),
                attention_mask=text.mask_BT.to(self.device, torch.int64),
                num_beams=beams,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                pad_token_id=self.tokenizer.pad_token_id,
                eos_token_id=self.tokenizer.eos_token_id,
                bos_token_id=self.tokenizer.bos_token_id,
            )
        self.train(training)
        return [until(ids, self.tokenizer.eos_token_id) for ids in ids_BT.tolist()]

    def generate(
        self,
        waveforms: Sequence[Waveform],
        prompts: Sequence[str],
        beams: int = 4,
        max_new_tokens: int = 200,
        lora_scale: float = 1.0,
    ) -> list[str]:
        """Return the answers to prompts that already hold the template; see `generate_ids`."""
        return [self.decode(ids) for ids in self.generate_ids(waveforms, prompts, beams, max_new_tokens, lora_scale)]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of answer ids, without special tokens and spaces at the ends."""
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True)
        return text.strip()

    def trainable_state(self) -> dict[str, torch.Tensor]:
        """Return the trained tensors by name: all that a checkpoint of this model must hold."""
        return {name: weight.detach() for name, weight in self.named_parameters() if weight.requires_grad}

    def load_trainable(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Fill in every trained tensor; UserError names what is missing, not ours, or of another shape."""
        own = self.trainable_state()
        wrong = sorted(own.keys() ^ tensors.keys())
        wrong += [name for name in sorted(own.keys() & tensors.keys()) if own[name].shape != tensors[name].shape]
        if wrong:
            raise UserError(f"these weights are not of this model: {wrong[0]!r} and {len(wrong) - 1} more do not fit")
        for name, weight in own.items():
            weight.copy_(tensors[name])

    def frozen_digest(self) -> str:
        """Return the sha256 of all frozen weights: trained ones mean nothing on another base model."""
        digest = hashlib.sha256()
        for name, weight in sorted(self.named_parameters()):
            if not weight.requires_grad:
                digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}\n".encode())
                digest.update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()


def add_lora(llm: Any, config: LoraConfig) -> Any:
    """Return the language model with fresh adapters, which at first change nothing; UserError for an unknown layer."""
    layers = {name.rpartition(".")[2] for name, _ in llm.named_modules() if name}
    for name in (*config.targets, *config.trained_modules):
        if name not in layers:
            raise UserError(f"lora: the language model has no layer {name!r}; {nearest(name, layers)}")
    settings = peft.LoraConfig(
        r=config.r,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=list(config.targets),
        modules_to_save=list(config.trained_modules) or None,
        task_type="CAUSAL_LM",
    )
    with seeded(config.seed), warnings.catch_warnings():
        # peft asks transformers by a name that is going away; nothing a user could mend.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        return peft.get_peft_model(llm, settings)


def until(ids: Sequence[int], end: int) -> list[int]:
    """Return `ids` up to the first `end`, with it; what follows in a batch is padding."""
    ids = list(ids)
    return ids[: ids.index(end) + 1] if end in ids else ids
