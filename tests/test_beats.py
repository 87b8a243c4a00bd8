"""BEATs against the reference (tests/golden/beats) and torchaudio; batches, short clips, wrong and hostile files."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torchaudio.compliance import kaldi

from manifests.errors import UserError
from salmonn import beats as room
from salmonn.beats import Beats, BeatsSettings, load_beats_file
from salmonn.beats_published import DEMANDED, SIZES, TABLE, published_shapes
from salmonn.fbank import DEVIATION, MEAN, fbank, tables

GOLDEN = Path(__file__).parent / "golden" / "beats"
CASES = json.loads((GOLDEN / "cases.json").read_text())
TENSORS = load_file(GOLDEN / "cases.safetensors")
TOY = BeatsSettings(
    layers=2, width=16, heads=2, ffn=24, patch_width=8, conv_positions=6, conv_groups=4, buckets=32, max_distance=40
)


def wave(clip: str) -> torch.Tensor:
    return TENSORS[f"{clip}.wave_int16"].float() / 32768


def golden_checkpoint() -> dict[str, Any]:
    return {"cfg": json.loads((GOLDEN / "config.json").read_text()), "model": load_file(GOLDEN / "model.safetensors")}


@pytest.fixture(scope="module")
def golden() -> Beats:
    return Beats.from_published(golden_checkpoint())


@pytest.fixture(scope="module")
def toy() -> Beats:
    torch.manual_seed(3)
    return Beats(TOY)


def padded(waves: list[torch.Tensor], more: int = 0, fill: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    lengths = [len(w) for w in waves]
    rows = [torch.nn.functional.pad(w, (0, max(lengths) + more - len(w)), value=fill) for w in waves]
    return torch.stack(rows), torch.tensor(lengths)


def noise(samples: int, seed: int) -> torch.Tensor:
    return torch.randn(samples, generator=torch.Generator().manual_seed(seed)) * 0.1


# the reference


def test_buckets_equal_the_reference(golden: Beats) -> None:
    expected = load_file(GOLDEN / "buckets.safetensors")
    assert golden.settings.bucket_of(expected["rel"].long()).equal(expected["bucket"].long())


def test_fbank_equals_the_reference() -> None:
    clip = CASES["fbank_clip"]
    mel_BFM = fbank(*padded([wave(clip)]))
    assert mel_BFM.shape == (1, CASES["clips"][clip]["fbank_frames"], 128)
    assert (mel_BFM[0] - TENSORS[f"{clip}.fbank"]).abs().max() < 2e-5  # the tolerance is 1e-3; ours is 3e-6 away


@pytest.mark.parametrize("clip", CASES["clips"])
def test_a_clip_alone_equals_the_reference(golden: Beats, clip: str) -> None:
    features_BTC = golden(*padded([wave(clip)]))
    assert features_BTC.shape == (1, CASES["clips"][clip]["tokens"], 48)
    assert Beats.tokens(CASES["clips"][clip]["samples"]) == CASES["clips"][clip]["tokens"]
    assert (features_BTC[0] - TENSORS[f"{clip}.output"]).abs().max() < 2e-4


@pytest.mark.parametrize("batch", CASES["batches"])
def test_clips_of_a_batch_equal_the_reference_alone(golden: Beats, batch: str) -> None:
    facts = CASES["batches"][batch]
    features_BTC = golden(*padded([wave(clip) for clip in facts["clips"]]))
    assert features_BTC.shape[1] == facts["padded_tokens"]
    for x_TC, clip, tokens in zip(features_BTC, facts["clips"], facts["tokens"], strict=True):
        assert (x_TC[:tokens] - TENSORS[f"{clip}.output"]).abs().max() < 2e-4
        assert not x_TC[tokens:].any()


# the filter bank


def kaldi_fbank(w: torch.Tensor) -> torch.Tensor:
    energies = kaldi.fbank((w.double() * 2**15)[None], num_mel_bins=128, sample_frequency=16000)
    return ((energies - MEAN) / (2 * DEVIATION)).float()


def test_the_mel_triangles_are_torchaudios_to_the_bit() -> None:
    expected, _ = kaldi.get_mel_banks(128, 512, 16000.0, 20.0, 0.0, 100.0, -500.0, 1.0)
    assert tables(torch.device("cpu"))[1].equal(expected.double())


@given(
    clips=st.lists(
        st.tuples(st.integers(1, 9000), st.floats(0, 0.5), st.floats(-0.5, 0.5), st.floats(1, 8000)),
        min_size=1,
        max_size=4,
    ),
    more=st.integers(0, 700),
)
@settings(max_examples=25)
def test_fbank_equals_torchaudio_clip_by_clip(clips: list[tuple[int, float, float, float]], more: int) -> None:
    """Noise on a tone and an offset, of any loudness down to silence; what lies beyond a clip is not a number."""
    waves = [
        noise(samples, samples) * loudness + offset + 0.3 * torch.sin(torch.arange(samples) * hz * 2 * np.pi / 16000)
        for samples, loudness, offset, hz in clips
    ]
    mel_BFM = fbank(*padded(waves, more, fill=torch.nan))
    for w, mel_FM in zip(waves, mel_BFM, strict=True):
        expected = kaldi_fbank(w) if len(w) >= 400 else torch.zeros(0, 128)
        assert torch.allclose(mel_FM[: len(expected)], expected, atol=1e-5)
        assert not mel_FM[len(expected) :].any()


def test_fbank_stays_float32_of_full_precision_under_autocast() -> None:
    batch = padded([noise(16000, 1)])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mel_BFM = fbank(*batch)
    assert mel_BFM.dtype == torch.float32
    assert mel_BFM.equal(fbank(*batch))


def test_digital_silence_has_the_lowest_energy_everywhere() -> None:
    assert fbank(*padded([torch.zeros(1000)])).unique().tolist() == pytest.approx(
        [(np.log(2**-23) - MEAN) / 2 / DEVIATION]
    )


# batches and lengths


@given(lengths=st.lists(st.integers(1, 30_000), min_size=1, max_size=4), more=st.integers(0, 9000))
@settings(max_examples=15)
def test_a_clip_has_the_same_features_in_any_batch(toy: Beats, lengths: list[int], more: int) -> None:
    waves = [noise(samples, place) for place, samples in enumerate(lengths)]
    features_BTC = toy(*padded(waves, more, fill=torch.nan))
    own_BT = Beats.own_tokens(torch.tensor(lengths), features_BTC.shape[1])
    assert features_BTC.shape == (len(lengths), Beats.tokens(max(lengths) + more), 16)
    for w, x_TC, own_T in zip(waves, features_BTC, own_BT, strict=True):
        alone_TC = toy(*padded([w]))[0]
        assert len(alone_TC) == Beats.tokens(len(w)) == own_T.sum()
        assert torch.allclose(x_TC[own_T], alone_TC, atol=1e-5)
        assert not x_TC[~own_T].any()


@pytest.mark.parametrize(
    ("samples", "tokens"),
    [(0, 0), (1, 0), (399, 0), (400, 0), (2799, 0), (2800, 8), (5359, 8), (5360, 16), (480_000, 1496)],
)
def test_a_clip_below_sixteen_frames_has_no_tokens(toy: Beats, samples: int, tokens: int) -> None:
    assert Beats.tokens(samples) == tokens
    assert Beats.own_tokens(torch.tensor([samples]), 2000).sum() == tokens
    if samples < 6000:
        assert toy(*padded([noise(samples, 0)])).shape == (1, tokens, 16)
        # nor does it disturb the others, or become a not-a-number beside them
        features_BTC = toy(*padded([noise(samples, 0), noise(8000, 1)]))
        assert features_BTC.isfinite().all()
        assert torch.allclose(features_BTC[1], toy(*padded([noise(8000, 1)]))[0], atol=1e-5)


def test_the_position_bias_is_the_table_at_the_bucket_of_key_minus_query(golden: Beats) -> None:
    table_GH = golden_checkpoint()["model"][f"encoder.layers.0.{TABLE}"]
    for t in (1, 8, 96, 1000):  # the last is beyond max_distance
        place_T = torch.arange(t)
        expected_TTH = table_GH[golden.settings.bucket_of(place_T[None] - place_T[:, None])]
        assert golden.encoder.position_bias(t).flip(2).equal(expected_TTH.permute(2, 0, 1))


@pytest.mark.parametrize("limit", [1, 5000, 20_000, 100_000])
def test_memory_is_bounded_without_changing_the_features(
    toy: Beats, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    batch = padded([noise(samples, samples) for samples in (16000, 9000, 16000)])  # 48 tokens: 2304 a clip and head
    whole_BTC = toy(*batch)
    made = []
    addcmul = torch.addcmul
    monkeypatch.setattr(torch, "addcmul", lambda *args: made.append(addcmul(*args)) or made[-1])
    monkeypatch.setitem(room.BIASES_AT_ONCE, "cpu", limit)
    assert torch.allclose(toy(*batch), whole_BTC, atol=1e-6)
    assert max(mask.numel() for mask in made) <= max(limit, 48 * 48)
    assert sum(mask.numel() for mask in made) == TOY.layers * 3 * 2 * 48 * 48


def test_bfloat16_weights_give_nearly_the_same_features() -> None:
    batch = padded([wave("one_1s"), wave("one_3s2")])
    exact_BTC = Beats.from_published(golden_checkpoint())(*batch)
    half_BTC = Beats.from_published(golden_checkpoint()).to(torch.bfloat16)(*batch)
    assert half_BTC.dtype == torch.bfloat16
    assert (half_BTC.float() - exact_BTC).norm() < 0.02 * exact_BTC.norm()
    assert not half_BTC[0, 48:].any()


def test_the_encoder_compiles_to_one_graph(toy: Beats) -> None:
    x_BTC, own_BT = torch.randn(2, 24, 16), torch.arange(24) < torch.tensor([[24], [8]])
    compiled = torch.compile(toy.encoder, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        assert torch.allclose(compiled(x_BTC, own_BT), toy.encoder(x_BTC, own_BT), atol=1e-6)


# weights


def test_the_published_sizes_make_the_published_tensors() -> None:
    """252 entries and 90,717,055 distinct parameters were counted in the released checkpoint's layout."""
    shapes = published_shapes(BeatsSettings())
    classifier = [(527, 768), (527,)]
    assert len(shapes) + 11 + len(classifier) == 252
    assert sum(int(np.prod(shape)) for shape in [*shapes.values(), *classifier]) == 90_717_055
    with torch.device("meta"):
        beats = Beats(BeatsSettings())
    assert all(parameter.is_meta and not parameter.requires_grad for parameter in beats.parameters())


def test_what_is_not_used_is_listed(golden: Beats) -> None:
    assert golden.ignored == ("model.predictor.bias", "model.predictor.weight")
    checkpoint = golden_checkpoint() | {"label_dict": {0: "/m/09x0r"}}
    assert Beats.from_published(checkpoint).ignored == (*golden.ignored, "label_dict")


def test_copies_of_the_shared_table_may_be_left_out(golden: Beats) -> None:
    checkpoint = golden_checkpoint()
    for layer in (1, 2):
        del checkpoint["model"][f"encoder.layers.{layer}.{TABLE}"]
    batch = padded([wave("one_1s")])
    assert Beats.from_published(checkpoint)(*batch).equal(golden(*batch))


def test_loading_draws_nothing_and_shares_nothing() -> None:
    checkpoint = golden_checkpoint()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    beats = Beats.from_published(checkpoint)
    assert torch.get_rng_state().equal(before)
    batch = padded([wave("one_1s")])
    features_BTC = beats(*batch)
    for tensor in checkpoint["model"].values():
        tensor.zero_()
    assert beats(*batch).equal(features_BTC)


def test_random_weights_follow_the_seed_and_the_state_does_not_grow_with_use() -> None:
    models = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        models.append(Beats(TOY))
    batch = padded([noise(16000, 1)])
    one, same, other = (beats(*batch) for beats in models)
    assert one.equal(same) and not torch.allclose(one, other, atol=0.1)
    assert one.std(dim=1).mean() > 0.1, "the sound gets through"
    names = set(models[0].state_dict())
    assert names == {name for name, _ in models[0].named_parameters()}
    models[2].load_state_dict(models[0].state_dict(), strict=True)
    assert models[2](*batch).equal(one)


def test_train_mode_changes_nothing(golden: Beats) -> None:
    batch = padded([wave("one_1s")])
    expected = golden(*batch)
    golden.train()
    assert golden(*batch).equal(expected)
    golden.eval()


# checkpoints that are not one


def drop(model: dict[str, Any]) -> None:
    del model["encoder.layers.1.fc1.weight"], model["patch_embedding.weight"]


def rename(model: dict[str, Any]) -> None:
    model["encoder.layers.9.fc1.weight"] = model["encoder.layers.1.fc1.weight"]


def transpose(model: dict[str, Any]) -> None:
    model["encoder.layers.2.fc2.weight"] = model["encoder.layers.2.fc2.weight"].T


def count(model: dict[str, Any]) -> None:
    model["layer_norm.bias"] = model["layer_norm.bias"].long()


def text(model: dict[str, Any]) -> None:
    model["layer_norm.bias"] = "text"


def number(model: dict[Any, Any]) -> None:
    model[7] = model["layer_norm.bias"]


def untie(model: dict[str, Any]) -> None:
    model[f"encoder.layers.2.{TABLE}"] = model[f"encoder.layers.2.{TABLE}"] + 1e-3


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (drop, "misses encoder.layers.1.fc1.weight, patch_embedding.weight"),
        (rename, "unknown encoder.layers.9.fc1.weight"),
        (transpose, r"encoder.layers.2.fc2.weight \(96, 48\) instead of \(48, 96\)"),
        (count, "no tensor of real numbers: layer_norm.bias"),
        (text, "no tensor of real numbers: layer_norm.bias"),
        (number, "unknown 7"),
        (untie, rf"encoder.layers.2.{TABLE} unlike that of layer 0"),
    ],
)
def test_tensors_that_do_not_fit_are_named(spoil: Callable[[dict[str, Any]], None], told: str) -> None:
    checkpoint = golden_checkpoint()
    spoil(checkpoint["model"])
    with pytest.raises(UserError, match=told):
        Beats.from_published(checkpoint)


OTHERS: list[tuple[str, Any, str]] = [
    ("activation_fn", "relu", "activation_fn = 'relu'; only 'gelu'"),
    ("conv_bias", True, "conv_bias = True; only False"),
    ("conv_bias", torch.zeros(2), "conv_bias = tensor.*; only False"),
    ("deep_norm", False, "deep_norm = False; only True"),
    ("gru_rel_pos", False, "gru_rel_pos = False; only True"),
    ("input_patch_size", 8, "input_patch_size = 8; only 16"),
    ("layer_norm_first", True, "layer_norm_first = True; only False"),
    ("relative_position_embedding", False, "relative_position_embedding = False; only True"),
    ("encoder_layers", 2, "unknown encoder.layers.2.fc1.bias.* and 17 more"),
    ("encoder_layers", 4, "misses encoder.layers.3.fc1.bias"),
    ("encoder_layers", "12", "encoder_layers = '12'; it must be a whole number"),
    ("encoder_layers", True, "encoder_layers = True; it must be a whole number"),
    ("encoder_layers", 0, "layers is 0; it must be at least 1"),
    ("encoder_ffn_embed_dim", 95, r"fc1.weight \(96, 48\) instead of \(95, 48\)"),
    ("encoder_attention_heads", 5, "width 48 is not a multiple of heads 5"),
    ("conv_pos_groups", 7, "width 48 is not a multiple of conv_groups 7"),
    ("num_buckets", 318, "buckets 318 must be a multiple of 4"),
    ("max_distance", 80, "max_distance 80 above a quarter"),
    ("max_distances", 800, "unknown entry 'max_distances'.*did you mean 'max_distance'"),
    ("rope_theta", 1e4, "unknown entry 'rope_theta'"),
]


@pytest.mark.parametrize(("name", "value", "told"), OTHERS, ids=[f"{name}={value}" for name, value, _ in OTHERS])
def test_a_cfg_that_would_compute_something_else_is_refused(name: str, value: Any, told: str) -> None:
    checkpoint = golden_checkpoint()
    checkpoint["cfg"][name] = value
    with pytest.raises(UserError, match=told):
        Beats.from_published(checkpoint)


@pytest.mark.parametrize("name", [*SIZES, *DEMANDED])
def test_a_cfg_that_leaves_something_open_is_refused(name: str) -> None:
    checkpoint = golden_checkpoint()
    del checkpoint["cfg"][name]
    with pytest.raises(UserError, match=f"cfg lacks {name}"):
        Beats.from_published(checkpoint)


def test_cfg_entries_without_effect_may_have_any_value_or_none(golden: Beats) -> None:
    checkpoint = golden_checkpoint()
    checkpoint["cfg"] |= {"dropout": 0.3, "encoder_layerdrop": 0.5, "predictor_class": 527}
    del checkpoint["cfg"]["finetuned_model"]
    batch = padded([wave("one_1s")])
    assert Beats.from_published(checkpoint)(*batch).equal(golden(*batch))


@pytest.mark.parametrize("checkpoint", [{}, {"cfg": {}}, {"model": {}, "epoch": 1}, {"cfg": {}, "model": [1]}])
def test_a_dictionary_without_the_two_parts_is_refused(checkpoint: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="holds 'cfg' and 'model'; this one holds"):
        Beats.from_published(checkpoint)


# files


def test_a_file_gives_the_same_encoder(tmp_path: Path, golden: Beats) -> None:
    torch.save(golden_checkpoint(), tmp_path / "beats.pt")
    batch = padded([wave("one_1s")])
    assert load_beats_file(tmp_path / "beats.pt")(*batch).equal(golden(*batch))


class Hostile:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value, protocol=2))])
def test_a_hostile_pickle_is_refused_and_not_run(tmp_path: Path, write: Callable[[Any, Path], None]) -> None:
    path, mark = tmp_path / "beats.pt", tmp_path / "it ran"
    write(golden_checkpoint() | {"cfg": Hostile(mark)}, path)
    with pytest.raises(UserError, match=r"beats\.pt.*is no BEATs checkpoint: it asks for (posix|nt)\.mkdir") as told:
        load_beats_file(path)
    assert not mark.exists()
    assert "weights_only" not in str(told.value), "nobody is told how to run it"
    with path.open("rb") as file:
        torch.load(file, weights_only=False) if write is torch.save else pickle.load(file)  # noqa: S301
    assert mark.exists(), "the pickle is a live one"


def test_files_that_are_no_checkpoint_are_named(tmp_path: Path) -> None:
    whole = tmp_path / "whole.pt"
    torch.save(golden_checkpoint(), whole)
    contents = {"empty": b"", "page": b"<html>Not found</html>", "cut": whole.read_bytes()[:100_000]}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(
            UserError, match=f"{name}' is no BEATs checkpoint: its bytes are damaged or hold more than tensors"
        ):
            load_beats_file(tmp_path / name)
    torch.save([1, 2], tmp_path / "list")
    with pytest.raises(UserError, match="it holds a list, not cfg and model"):
        load_beats_file(tmp_path / "list")
    with pytest.raises(UserError, match=r"no BEATs checkpoint to read at .*away.*No such file.*put BEATs_iter3_plus"):
        load_beats_file(tmp_path / "away")
    with pytest.raises(UserError, match="no BEATs checkpoint to read at"):
        load_beats_file(tmp_path)
    torch.save({"cfg": {}, "model": {}}, tmp_path / "bare")
    with pytest.raises(UserError, match=r"the BEATs checkpoint '.*bare': cfg lacks activation_fn"):
        load_beats_file(tmp_path / "bare")
