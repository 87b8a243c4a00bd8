"""Learning: a tiny model on the real miniature learns what it is told, and of voices what holds for others.

One model is trained from random weights on both tasks at once, by the trainer, from shards through the stream: the
gender of 40 voices of LibriSpeech (20 women, 20 men), each clip whole and in pieces of two seconds, and the
transcripts of the eight shortest of those clips. It is held to 95 % of all tokens of the answers it was trained on, and
to the gender of ten voices it never heard: the 30 clips of test-other, half of them women's, so that the commonest
answer alone scores 50 %. Who guesses 30 times has 21 right or more with a probability of 2.1 % (each clip taken for
itself, though the 30 are of ten voices).

Pieces, rates and windows were chosen on the 40 voices alone: ten of them told by a model of the other thirty, four
times over (36 of 41 clips with these). Seed 0 was named beforehand, as the first: seeds 0, 1, 2 have 22, 22 and 20
of the 30 right, so the seed matters. After a first run (24 of 30) only the steps were raised, from 400 to 500, for the
transcripts' sake. That a Whisper should pass the log-mel on was found earlier, by small classifiers that were asked
about those ten as well.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
import pytest
import soundfile
import torch
from transformers import WhisperConfig as WhisperSettings
from transformers import WhisperModel

from conftest import write_dataset, write_source
from manifests import TASKS, Clip, load_corpus, load_recipe
from manifests.clips import AudioRef
from manifests.settings import read_toml
from manifests.tasks import instruct
from salmonn.config import Preset, QFormerConfig, WhisperConfig
from salmonn.evaluation.asking import Asking
from salmonn.evaluation.evaluate import Evaluation, evaluate
from salmonn.evaluation.request import Request
from salmonn.features import LogMel, stack
from salmonn.model import Salmonn
from salmonn.qformer import WindowQFormer
from salmonn.training.run import load_run
from salmonn.training.settings import BatchConfig, TrainConfig
from salmonn.training.trainer import train
from shards import Dataset
from shards.flac import RATE
from shards.index import Source
from shards.render import store
from shards.sample import Sample, key_of
from shards.writer import open_shard

SETTINGS = Path(__file__).parent / "learning.toml"
TRAINED, HELD_OUT = ("train-clean-100", "dev-clean"), "test-other"
VOICES = 20
"""Of each gender that are trained on: as many as there are women; of the men those with the most to hear."""
TRANSCRIPTS = 8
PIECE, HOP = 2.0, 1.0
"""Seconds. Pieces, one begun every second, are many examples of a voice, each with other words: what they share is the
voice. Without them the model tells the clips it knows, and no others."""
STEPS = 500
"""As many as the transcripts take: at 400 seed 0 had 107 of their 112 tokens right, the voices long before."""
RECIPE = """title = "voices and words"
[[instruct]]
task = "gender_recognition"
corpus = "librispeech"
splits = ["train-clean-100", "dev-clean"]
weight = 0.8
[[instruct]]
task = "asr"
corpus = "librispeech"
splits = ["train-clean-100", "dev-clean"]
weight = 0.2
[[evaluate]]
task = "gender_recognition"
corpus = "librispeech"
splits = ["test-other"]
"""

Found = list[tuple[Clip, float]]
"""Clips, each with its seconds."""


def clips(miniature: Path, split: str) -> Found:
    """The clips of a split whose audio can be read: some is broken on purpose."""
    found = []
    for clip in load_corpus("librispeech").clips(str(miniature), split):
        path = miniature / clip.audio[0].path
        if path.exists() and path.stat().st_size:
            try:
                audio, rate = soundfile.read(path)
            except soundfile.LibsndfileError:
                continue
            found.append((clip, len(audio) / rate))
    return found


def balanced(read: dict[str, Found]) -> dict[str, Found]:
    """Leave in what is trained on as many women as men."""
    heard: dict[str, dict[str, float]] = {"female": {}, "male": {}}
    for split in TRAINED:
        for clip, seconds in read[split]:
            of_gender = heard[clip.gender]
            of_gender[clip.speaker] = of_gender.get(clip.speaker, 0.0) + seconds
    assert min(map(len, heard.values())) == VOICES
    kept = {
        speaker
        for of_gender in heard.values()
        for speaker in sorted(of_gender, key=lambda one: -of_gender[one])[:VOICES]
    }
    return {
        split: [one for one in found if split == HELD_OUT or one[0].speaker in kept] for split, found in read.items()
    }


def pieces(clip: Clip, seconds: float) -> Iterator[Clip]:
    """A clip of three seconds and more cut into overlapping pieces of two, all of one length, as batches are."""
    for number in range(int((seconds - PIECE) / HOP) + 1 if seconds > PIECE + HOP else 0):
        span = AudioRef(path=clip.audio[0].path, start=HOP * number, seconds=PIECE)
        yield msgspec.structs.replace(clip, id=f"{clip.id}-{number}", audio=(span,))


def write_split(folder: str, miniature: Path, split: str, asked: Iterable[tuple[Clip, tuple[str, ...]]]) -> Source:
    """Write clips, and what some tasks ask of each, as one shard; return its source."""
    path = f"shards/librispeech/{split}-000000.tar"
    with open_shard(folder, path) as writer:
        for clip, tasks in asked:
            stored, key = store(str(miniature), clip.audio), key_of(clip.id)
            sample = Sample(
                key=key,
                id=clip.id,
                corpus="librispeech",
                split=split,
                samples=stored.samples,
                seconds=stored.samples / RATE,
                language=clip.language,
                speaker=clip.speaker,
                gender=clip.gender,
                text=clip.text,
                license="CC-BY-4.0",
                instructions=tuple(one for task in tasks for one in instruct(TASKS[task], clip, key)),
            )
            writer.add(sample, stored, [clip.audio[0].path], 2 * stored.samples)
    return write_source(folder, "librispeech", split, [writer.table()], [writer.proof()])


@pytest.fixture(scope="module")
def voices(tmp_path_factory: pytest.TempPathFactory, corpora: Path) -> Dataset:
    """The miniature of LibriSpeech: what is trained on whole and in pieces, what is held out as it is."""
    read = balanced({split: clips(corpora / "librispeech", split) for split in (*TRAINED, HELD_OUT)})
    shortest = sorted((one for split in TRAINED for one in read[split]), key=lambda one: one[1])[:TRANSCRIPTS]
    told = {clip.id for clip, _ in shortest}
    folder, sources = str(tmp_path_factory.mktemp("voices")), []
    for split, found in read.items():
        asked = [
            (clip, ("gender_recognition", "asr") if clip.id in told else ("gender_recognition",)) for clip, _ in found
        ]
        if split != HELD_OUT:
            asked += [(piece, ("gender_recognition",)) for one in found for piece in pieces(*one)]
        sources.append(write_split(folder, corpora / "librispeech", split, asked))
    trained, held_out = (
        {clip.speaker for split in which for clip, _ in read[split]} for which in (TRAINED, [HELD_OUT])
    )
    assert len(trained) == 2 * VOICES and len(held_out) == 10 and not trained & held_out
    return write_dataset(folder, sources)


def token_hits(model: Salmonn, asking: Asking) -> dict[str, tuple[int, int]]:
    """Of each task, how many answer tokens are the likeliest, teacher-forced, and how many there are, EOS included."""
    hits, tokens = Counter[str](), Counter[str]()
    for task, batches in asking.batches.items():
        for read in asking.read(task, range(len(batches))):
            assert not read.damaged
            rows = [one.open for one in read.heard]
            prompts = [model.config.prompt.wrap(row.prompt) for row in rows]
            with torch.no_grad():
                found = model.answer_tokens(
                    [one.wave_S for one in read.heard], prompts, [row.references[0] for row in rows]
                )
            hits[task] += int(found.correct_N.sum())
            tokens[task] += len(found.correct_N)
    return {task: (hits[task], tokens[task]) for task in tokens}


def write_ears(folder: Path, voices: Dataset) -> str:
    """Write a Whisper of no layers that passes its log-mel on, and return its folder.

    It stands for a trained one, as random ones lose the voice. Of each frame the bins as they deviate in voices that
    are trained on, less their neighbourhood of four bins: what is left is the voice more than the microphone. It knows
    nothing of who is speaking: all it has of the data is the mean and the deviation of each bin.
    """
    log_mel, frames = LogMel(80), list[torch.Tensor]()
    asking = Asking(voices, load_recipe(folder / "voices.toml"), "instruct", tasks=("gender_recognition",))
    for batch in asking.read("gender_recognition", range(0, len(asking.batches["gender_recognition"]), 3)):
        for one in batch.heard:
            frames.append(log_mel(stack([one.wave_S])[0])[0, :, : len(one.wave_S) // 160])
    mean_M, deviation_M = torch.cat(frames, dim=1).mean(dim=1), torch.cat(frames, dim=1).std(dim=1)
    layer = {"encoder_layers": 0, "encoder_attention_heads": 2, "encoder_ffn_dim": 16}
    other = {"decoder_layers": 0, "decoder_attention_heads": 2, "decoder_ffn_dim": 16, "vocab_size": 16}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    whisper = WhisperModel(WhisperSettings(d_model=80, num_mel_bins=80, **layer, **other, **ids))
    with torch.no_grad():
        for weight in whisper.parameters():
            weight.zero_()
        bins_M = torch.arange(80)
        near_MM = torch.exp(-((bins_M[:, None] - bins_M) ** 2) / 2 / 4**2)
        lifted_MM = torch.eye(80) - near_MM / near_MM.sum(dim=1, keepdim=True)
        encoder = whisper.encoder
        # Behind each convolution is a GELU, which passes on what is well above zero.
        encoder.conv1.weight[bins_M, bins_M, 1] = 1 / deviation_M
        encoder.conv1.bias.copy_(4 - mean_M / deviation_M)
        for place, share in enumerate((0.25, 0.5, 0.25)):
            encoder.conv2.weight[:, :, place] = 2 * share * lifted_MM
        encoder.conv2.bias.fill_(2.0)
        encoder.layer_norm.weight.fill_(1.0)
    whisper.save_pretrained(folder / "ears")
    return str(folder / "ears")


def settings(voices: Dataset, folder: Path, seed: int) -> TrainConfig:
    """A run on the voices; `seed` draws the order of the examples and all weights that are trained but the words."""
    (folder / "voices.toml").write_text(RECIPE)
    preset = read_toml(SETTINGS, Preset)
    replace = msgspec.structs.replace
    return TrainConfig(
        run=str(folder / "run"),
        dataset=str(voices.url),
        recipe=str(folder / "voices.toml"),
        model=replace(
            preset.model,
            whisper=WhisperConfig(folder=write_ears(folder, voices)),
            qformer=replace(preset.model.qformer, seed=seed),
            lora=replace(preset.model.lora, seed=seed),
        ),
        optimizer=preset.optimizer,
        batch=BatchConfig(max_examples=8, max_seconds=240.0, micro_batches=2),
        steps=STEPS,
        seed=seed,
        threads=1,
        device="cpu",
    )


def learn_and_tell(voices: Dataset, folder: Path, seed: int) -> tuple[dict[str, tuple[int, int]], Evaluation]:
    """Train; return the hits among the tokens that were trained on, and the scores on what was held out."""
    config = settings(voices, folder, seed)
    assert train(config).steps == STEPS
    _, model, _ = load_run(config.run)
    learnt = token_hits(model, Asking(voices, load_recipe(config.recipe), "instruct"))
    return learnt, evaluate(config.run, Request(beams=1, max_new_tokens=5), out=folder / "answers")


@pytest.mark.slow
@pytest.mark.timeout(3600)  # on a busy machine; it takes six minutes of one CPU's time
def test_what_is_trained_on_is_learnt_and_the_voices_of_others_are_told(voices: Dataset, tmp_path: Path) -> None:
    began = sum(os.times()[:4])
    learnt, evaluation = learn_and_tell(voices, tmp_path, seed=0)
    seconds = sum(os.times()[:4]) - began
    [told] = evaluation.results.sets
    assert told.score is not None and (told.task, told.split, told.count) == ("gender_recognition", HELD_OUT, 30)
    print(f"\ntokens that are right: {learnt}; voices of others: {told.score.details}; {seconds:.0f} s of CPU")

    assert learnt.keys() == {"asr", "gender_recognition"}
    assert all(right >= 0.95 * many for right, many in learnt.values()), learnt
    assert told.score.details["commonest answer alone"] == "50.0%"
    assert int(told.score.details["correct"]) >= 21, told.score


def test_a_narrow_q_former_passes_the_sound_on_where_its_weights_begin_wider() -> None:
    """Of N(0, 0.02), meant for 768 channels, 64 channels make tokens in which other sounds hardly differ."""

    def spread(**settings: float) -> float:
        """How far the tokens of unlike windows differ, in parts of their size."""
        config = QFormerConfig(width=64, layers=1, heads=2, ffn=128, dropout=0.0, **settings)
        with torch.no_grad():
            tokens_BAD = WindowQFormer(config, speech_width=64, llm_width=32).eval()(windows_BFC)
        return float(tokens_BAD.std(dim=(0, 1)).mean() / tokens_BAD.square().mean().sqrt())

    windows_BFC = torch.randn(4, 1500, 64, generator=torch.Generator().manual_seed(0))
    assert spread(init_std=0.07) > 5 * spread(), (spread(init_std=0.07), spread())
    assert spread(init_std=0.02) == spread()
