"""The training step of the published recipe, plainly: what benchmarks/train.py holds the project's step against.

Shapes as in salmonn/model.py. Written from the recipe's description, on the same weights as ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torchaudio
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader
from transformers import WhisperFeatureExtractor

from salmonn.batch import IGNORED, lay_out, tokenize_all
from salmonn.beats import Beats, to_patches
from salmonn.features import LONGEST, fit_length

WORKERS = 8
"""Processes that make features where there is a GPU, as released."""


class Clips(torch.utils.data.Dataset[Any]):
    """One clip an item, its features made by the CPU, alone."""

    def __init__(self, clips: list[tuple[Any, str]], mel_bins: int) -> None:
        self.clips, self.extractor = clips, WhisperFeatureExtractor(feature_size=mel_bins)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor, str]:
        """Return mel_MF, the waveform and the answer."""
        wave, text = self.clips[number]
        fitted = fit_length(wave)
        mel = self.extractor(fitted, sampling_rate=16_000, return_tensors="pt").input_features[0]
        return mel, torch.from_numpy(fitted), text


class Published:
    """Takes steps as the published recipe does, with the weights of `model`."""

    def __init__(self, model: Any, device: torch.device) -> None:
        self.model, self.device = model.train(), device
        self.half = device.type == "cuda"
        for part in (model.whisper, model.llm.get_base_model()):
            part.set_attn_implementation("eager")
        self.weights = [weight for weight in model.parameters() if weight.requires_grad]
        decayed = [weight for weight in self.weights if weight.ndim >= 2]
        plain = [weight for weight in self.weights if weight.ndim < 2]
        groups = [{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=1e-5, betas=(0.9, 0.999))
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.half)

    def loaded(self, batches: list[tuple[list[Any], list[str]]]) -> Iterator[tuple[list[Any], list[str]]]:
        """Yield batches whose waveforms have become (mel_MF, waveform_S), made by worker processes on a GPU's host."""
        clips = [clip for waves, texts in batches for clip in zip(waves, texts, strict=True)]
        dataset = Clips(clips, self.model.whisper.config.num_mel_bins)
        workers = WORKERS if self.half else 0
        loader = DataLoader(dataset, batch_size=len(batches[0][0]), collate_fn=list, num_workers=workers)
        for batch in loader:
            yield [(mel, wave) for mel, wave, _ in batch], [text for _, _, text in batch]

    def step(self, clips: list[tuple[torch.Tensor, torch.Tensor]], prompts: list[str], answers: list[str]) -> None:
        """Learn from one batch."""
        with torch.autocast(self.device.type, torch.float16, enabled=self.half):
            loss = self.loss(clips, prompts, answers)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()

    def loss(self, clips: list[tuple[torch.Tensor, torch.Tensor]], prompts: list[str], answers: list[str]) -> Any:
        """Return the mean over the answer tokens, from the logits of every position."""
        model = self.model
        mel_BMF = torch.stack([mel for mel, _ in clips]).to(self.device)
        audio_BS = nn.utils.rnn.pad_sequence([wave for _, wave in clips], batch_first=True).to(self.device)
        with torch.no_grad():
            speech_BFC = model.whisper(mel_BMF).last_hidden_state
            sound_BFC = self.beats(audio_BS, [len(wave) for _, wave in clips]) if model.beats is not None else None
        audio_BAD = self.windows(model.qformer, speech_BFC, sound_BFC)
        rows = tokenize_all(model.tokenizer, prompts, answers, model.config)
        text = lay_out(rows, audio_tokens=audio_BAD.shape[1], pad_id=model.tokenizer.pad_token_id, padding="right")
        logits_BTV = model.llm(
            inputs_embeds=model.embed(text, audio_BAD),
            attention_mask=text.mask_BT.to(self.device, torch.int64),
            use_cache=False,
        ).logits.float()
        labels_BT = text.labels_BT.to(self.device)
        vocabulary = logits_BTV.shape[-1]
        return functional.cross_entropy(
            logits_BTV[:, :-1].reshape(-1, vocabulary), labels_BT[:, 1:].reshape(-1), ignore_index=IGNORED
        )

    def windows(self, qformer: Any, speech_BFC: torch.Tensor, sound_BFC: torch.Tensor | None) -> torch.Tensor:
        """Return the audio tokens, by unfold over an image of the frames."""
        joined_BFC = qformer.join(speech_BFC.float(), None if sound_BFC is None else sound_BFC.float())
        b, _, c = joined_BFC.shape
        image = joined_BFC.transpose(1, 2).unsqueeze(2)
        windows = functional.unfold(image, kernel_size=(1, qformer.kernel), stride=(1, qformer.stride))
        windows = windows.view(b, c, qformer.kernel, -1).permute(0, 3, 2, 1).reshape(-1, qformer.kernel, c)
        query = qformer.query_1QE.expand(len(windows), -1, -1)
        mask = torch.ones(windows.shape[:-1], dtype=torch.long, device=self.device)
        hidden = qformer.blip(
            query_embeds=query, encoder_hidden_states=windows, encoder_attention_mask=mask
        ).last_hidden_state
        return qformer.projection(hidden).reshape(b, -1, qformer.projection.out_features)

    def beats(self, audio_BS: torch.Tensor, lengths: list[int]) -> torch.Tensor:
        """Return BEATs' features, with attention that keeps its biases and its weights."""
        beats: Beats = self.model.beats
        assert audio_BS.shape[1] <= LONGEST
        banks = [
            torchaudio.compliance.kaldi.fbank(
                wave[None].double() * 2**15, num_mel_bins=128, sample_frequency=16_000, frame_length=25, frame_shift=10
            )
            for wave in audio_BS
        ]
        mel_BFM = ((torch.stack(banks) - 15.41663) / (2 * 6.55582)).float()
        x_BTC = beats.widen(beats.patch_norm(beats.patch(to_patches(mel_BFM).to(beats.patch.weight.dtype))))
        b, t, c = x_BTC.shape
        own_BT = beats.own_tokens(torch.tensor(lengths, device=self.device), t)
        encoder = beats.encoder
        x_BTC = x_BTC.masked_fill(~own_BT[:, :, None], 0)
        places = encoder.conv(x_BTC.transpose(1, 2))[:, :, :t].transpose(1, 2)
        x_BTC = encoder.norm(x_BTC + functional.gelu(places))
        heads = encoder.bias_HR.shape[0]
        reach = encoder.bias_HR.shape[1] // 2
        offsets = torch.arange(t, device=self.device)
        offsets = (offsets[None] - offsets[:, None]).clamp(-reach, reach) + reach
        bias = encoder.bias_HR[:, offsets].unsqueeze(0).repeat(b, 1, 1, 1)
        for layer in encoder.layers:
            q, k, v = layer.qkv(x_BTC).view(b, t, 3, heads, c // heads).permute(2, 0, 3, 1, 4)
            gate = layer.gates(q.transpose(1, 2)).transpose(1, 2)[..., None]
            weights = q @ k.transpose(-1, -2) / (c // heads) ** 0.5 + gate * bias
            weights = weights.masked_fill(~own_BT[:, None, None], float("-inf")).float().softmax(-1).to(v.dtype)
            attended = layer.out((weights @ v).transpose(1, 2).reshape(b, t, c))
            x_BTC = layer.attention_norm(x_BTC * layer.alpha + attended)
            x_BTC = layer.ffn_norm(x_BTC * layer.alpha + layer.fc2(functional.gelu(layer.fc1(x_BTC))))
        return x_BTC.masked_fill(~own_BT[:, :, None], 0)
