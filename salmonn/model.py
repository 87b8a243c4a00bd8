"""SALMONN: two frozen encoders, Whisper and BEATs, a trained window Q-Former, and a frozen language model with LoRA.

Shapes: B clips, S samples at 16 kHz, F frames, A audio tokens a clip (88 in the paper), T text and audio positions,
D width of the language model, N answer tokens of the batch, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import nn
from torch.nn import functional

from manifests.errors import UserError
from salmonn.batch import IGNORED, TextBatch, lay_out, tokenize_all
from salmonn.beats import Beats
from salmonn.config import SalmonnConfig
from salmonn.features import LogMel, Waveform, stack
from salmonn.lora import LoraLayer, add_lora, rescale_adapter_scale
from salmonn.parts import load_beats, load_llm, load_whisper, weights_digest
from salmonn.qformer import WindowQFormer
from salmonn.tokenizer import demand_vocabulary, load_tokenizer


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

    def __init__(
        self, config: SalmonnConfig, *, whisper: Any, llm: Any, tokenizer: Any, beats: Beats | None = None
    ) -> None:
        """Join frozen parts that are already there; `from_config` makes them."""
        super().__init__()
        self.config = config
        self.tokenizer = tokenizer
        self.log_mel = LogMel(whisper.config.num_mel_bins)
        self.whisper = whisper
        self.beats = beats
        self.qformer = WindowQFormer(
            config.qformer,
            speech_width=whisper.config.d_model,
            audio_width=beats.settings.width if beats is not None else 0,
            llm_width=llm.get_input_embeddings().embedding_dim,
        )
        self.llm_dtype: torch.dtype = llm.get_input_embeddings().weight.dtype
        self.llm = add_lora(llm, config.lora)
        # Noted now: a stage that trains some parts only holds the others still, which makes them no part of the base.
        self.trained = tuple(name for name, weight in self.named_parameters() if weight.requires_grad)
        self.eval()

    @classmethod
    def from_config(cls, config: SalmonnConfig, device: torch.device | str = "cpu", *, place: bool = True) -> Self:
        """Make the model that `config` describes, on `device`; UserError if a part's folder or file is not there.

        On ``meta`` it has sizes and names, but no weights (and no tokenizer if that is in a folder): nothing large is
        read, and sizes of all published BEATs are taken for a file that is not here. Without `place` it stays on the
        CPU, in the types it has on `device`: to be sharded, or moved, by the caller.
        """
        device = torch.device(device)
        outline = device.type == "meta"
        tokenizer = None if outline and config.llm.folder else load_tokenizer(config.llm)
        llm = load_llm(config.llm, tokenizer, device)
        if tokenizer is not None:
            demand_vocabulary(tokenizer, llm.get_input_embeddings().num_embeddings, config.llm.folder)
        whisper = load_whisper(config.whisper, device)
        beats = load_beats(config.beats, device) if config.beats is not None else None
        with torch.device("meta" if outline else "cpu"):
            model = cls(config, whisper=whisper, llm=llm, tokenizer=tokenizer, beats=beats)
        return model.to(device) if place else model

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.qformer.query_1QE.device

    def train(self, mode: bool = True) -> Self:
        """Set the mode of what is trained; a frozen encoder in train mode would drop layers and change its features."""
        super().train(mode)
        self.whisper.eval()
        self.llm.eval()
        if self.beats is not None:
            self.beats.eval()
        for module in self.llm.modules():
            if isinstance(module, LoraLayer):
                module.lora_dropout.train(mode)
            # transformers computes a layer twice only where it stands in train mode; what is inside it stays in eval.
            if getattr(module, "gradient_checkpointing", False):
                module.training = mode
        return self

    def speed_up(self, compile: bool = False, gradient_checkpointing: bool = False) -> None:
        """Compile the frozen encoders; let the language model's layers be computed twice instead of kept.

        Names and results stay, but for the last bits. UserError for a language model that cannot be computed twice.
        """
        if compile:
            # Whisper has one shape for every batch of as many clips; BEATs takes the clips as long as they are.
            self.whisper.compile()
            if self.beats is not None:
                self.beats.encoder.compile(dynamic=True)
        if gradient_checkpointing:
            base = self.llm.get_base_model()
            if not base.supports_gradient_checkpointing:
                raise UserError(f"gradient_checkpointing: {type(base).__name__} does not offer it; leave it out")
            base.gradient_checkpointing_enable({"use_reentrant": False})
            self.train(self.training)

    def parts(self) -> dict[str, list[str]]:
        """Return the names of all trained weights by part, each once; a part that this model has not is empty."""
        parts: dict[str, list[str]] = {part: [] for part in ("qformer", "ln", "projection", "lora", "words")}
        for name in self.trained:
            if name.startswith("llm."):
                parts["words" if ".modules_to_save." in name else "lora"].append(name)
            else:
                second = name.split(".")[1]
                part = "ln" if second.startswith("ln_") else "projection" if second == "projection" else "qformer"
                parts[part].append(name)
        return parts

    def audio_tokens(self, waveforms: Sequence[Waveform]) -> torch.Tensor:
        """Return tokens_BAD, float32, of mono waveforms at 16 kHz: as many for every clip, whatever its length.

        Features are computed where the model is.
        """
        self.log_mel.count(waveforms)
        audio_BS, lengths_B = stack(waveforms)
        audio_BS = audio_BS.to(self.device)
        sound_BFC, sound_B = None, None
        with torch.no_grad():
            mel_BMF = self.log_mel(audio_BS)
            speech_BFC = self.whisper(mel_BMF.to(self.whisper.dtype)).last_hidden_state.float()
            if self.beats is not None:
                sound_BFC = self.beats(audio_BS, lengths_B.to(self.device)).float()
                sound_B = torch.tensor([self.beats.tokens(length) for length in lengths_B.tolist()]).to(self.device)
        tokens_BAD: torch.Tensor = self.qformer(speech_BFC, sound_BFC, sound_B)
        return tokens_BAD

    def answer_tokens(
        self, waveforms: Sequence[Waveform], prompts: Sequence[str], answers: Sequence[str]
    ) -> AnswerTokens:
        """Return the loss and the hits of every answer token; `prompts` already hold the template.

        A step over several batches sums `nll_N` over all and divides by the number of tokens of all.
        """
        rows = tokenize_all(self.tokenizer, prompts, answers, self.config)
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
        temperature: float = 0.0,
    ) -> list[list[int]]:
        """Return the new token ids of each answer; one that ended has its EOS as the last, one cut off has none.

        `lora_scale` multiplies LoRA's scaling: 1 as trained, 0 the language model alone (paper, Figure 3). With a
        `temperature` above 0, tokens are drawn by torch's random numbers instead of searched for.
        """
        if beams < 1 or max_new_tokens < 1:
            raise UserError(f"beams is {beams} and max_new_tokens is {max_new_tokens}; both must be at least 1")
        training = self.training
        self.eval()
        rows = tokenize_all(self.tokenizer, prompts, [None] * len(prompts), self.config)
        audio_BAD = self.audio_tokens(waveforms)
        text = lay_out(rows, audio_tokens=audio_BAD.shape[1], pad_id=self.tokenizer.pad_token_id, padding="left")
        with rescale_adapter_scale(self.llm, lora_scale):
            ids_BT = self.llm.generate(
                inputs_embeds=self.embed(text, audio_BAD),
                attention_mask=text.mask_BT.to(self.device, torch.int64),
                num_beams=beams,
                max_new_tokens=max_new_tokens,
                **drawing(temperature),
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
        own = dict(self.named_parameters())
        return {name: own[name].detach() for name in self.trained}

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
        """Return the sha256 of all frozen weights: trained ones mean nothing on another base model.

        It is the same on every device: parts whose type is ``auto`` count as they are in bfloat16.
        """
        settings = {"whisper": self.config.whisper, "beats": self.config.beats, "llm": self.config.llm}
        auto = {part for part, chosen in settings.items() if chosen is not None and chosen.dtype == "auto"}
        trained = set(self.trained)
        return weights_digest(
            (n, w, n.partition(".")[0] in auto) for n, w in self.named_parameters() if n not in trained
        )


def drawing(temperature: float) -> dict[str, Any]:
    """Return how generation takes a token: the likeliest, or one drawn from all of them at a temperature."""
    if not temperature:
        return {"do_sample": False}
    return {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}


def until(ids: Sequence[int], end: int) -> list[int]:
    """Return `ids` up to the first `end`, with it; what follows in a batch is padding."""
    ids = list(ids)
    return ids[: ids.index(end) + 1] if end in ids else ids
