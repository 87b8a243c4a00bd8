"""BEATs as published: the settings and tensors of its checkpoint, checked, and brought into the form that ours takes.

A checkpoint is ``{'cfg': {...}, 'model': {...}}``; the one of the paper is
BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt2.pt of github.com/microsoft/unilm/tree/master/beats.
Shapes: C width, E width of a patch, H heads, D = C / H, G buckets, R = 2 * max_distance + 1 offsets.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import msgspec
import torch

from manifests.errors import UserError, nearest
from salmonn.fbank import BINS

PAPERS = "BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt2.pt"
PATCH = 16
"""Frames and bins of a patch: the same in every published BEATs."""
BANDS = BINS // PATCH
"""Patches, and so tokens, of one time: 8."""
SIZES = {
    "encoder_layers": "layers",
    "encoder_embed_dim": "width",
    "encoder_ffn_embed_dim": "ffn",
    "encoder_attention_heads": "heads",
    "embed_dim": "patch_width",
    "conv_pos": "conv_positions",
    "conv_pos_groups": "conv_groups",
    "num_buckets": "buckets",
    "max_distance": "max_distance",
}
"""The sizes in a checkpoint's cfg, and our names for them."""
DEMANDED: dict[str, object] = {
    "activation_fn": "gelu",
    "conv_bias": False,
    "deep_norm": True,
    "gru_rel_pos": True,
    "input_patch_size": PATCH,
    "layer_norm_first": False,
    "relative_position_embedding": True,
}
"""What changes the computation and has one value in every published checkpoint."""
WITHOUT_EFFECT = {
    "activation_dropout",
    "attention_dropout",
    "dropout",
    "dropout_input",
    "encoder_layerdrop",
    "finetuned_model",
    "layer_wise_gradient_decay_ratio",
    "predictor_class",
    "predictor_dropout",
}
"""Of training or of the classifier: nothing to an encoder that is frozen."""
RENAMES = {
    "layer_norm": "patch_norm",
    "post_extract_proj": "widen",
    "encoder.pos_conv.0": "encoder.conv",
    "encoder.layer_norm": "encoder.norm",
}
LAYER_RENAMES = {
    "self_attn.out_proj": "out",
    "self_attn_layer_norm": "attention_norm",
    "fc1": "fc1",
    "fc2": "fc2",
    "final_layer_norm": "ffn_norm",
}
TABLE = "self_attn.relative_attention_bias.weight"
NAMED = 3
"""How many tensors an error names of each kind of fault."""


class BeatsSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The sizes of a BEATs encoder; defaults are those of the published one."""

    layers: int = 12
    width: int = 768
    heads: int = 12
    ffn: int = 3072
    patch_width: int = 512
    conv_positions: int = 128
    """Tokens that the position convolution sees."""
    conv_groups: int = 16
    buckets: int = 320
    """Of relative positions, both signs together."""
    max_distance: int = 800
    """Tokens; from there on all distances share a bucket. (The class default is 1280: a checkpoint says its own.)"""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if getattr(self, name) < 1:
                raise UserError(f"beats: {name} is {getattr(self, name)}; it must be at least 1")
        for name in ("heads", "conv_groups"):
            if self.width % getattr(self, name):
                raise UserError(f"beats: width {self.width} is not a multiple of {name} {getattr(self, name)}")
        if self.buckets % 4 or self.max_distance <= self.buckets // 4:
            raise UserError(
                f"beats: buckets {self.buckets} must be a multiple of 4 and max_distance {self.max_distance} "
                "above a quarter of them"
            )

    @classmethod
    def of_published(cls, cfg: Mapping[str, Any]) -> Self:
        """Return the settings that a checkpoint's cfg states; UserError for what would make another computation."""
        for name, value in cfg.items():
            if name not in SIZES.keys() | DEMANDED.keys() | WITHOUT_EFFECT:
                known = nearest(str(name), SIZES.keys() | DEMANDED.keys() | WITHOUT_EFFECT)
                raise UserError(f"cfg has an unknown entry {name!r}, which may change what BEATs computes; {known}")
            if name in DEMANDED and (type(value), value) != (type(DEMANDED[name]), DEMANDED[name]):
                raise UserError(f"cfg has {name} = {value!r}; only {DEMANDED[name]!r} is known here, as in {PAPERS}")
            if name in SIZES and type(value) is not int:
                raise UserError(f"cfg has {name} = {value!r}; it must be a whole number")
        missing = sorted((SIZES.keys() | DEMANDED.keys()) - cfg.keys())
        if missing:
            raise UserError(f"cfg lacks {', '.join(missing)}; {PAPERS} has them")
        return cls(**{own: cfg[name] for name, own in SIZES.items()})

    def bucket_of(self, offset_N: torch.Tensor) -> torch.Tensor:
        """Return the bucket of each offset (key minus query position, int64): T5's, with a half for each sign.

        Below a quarter of the buckets each distance has its own, then they widen with its logarithm.
        """
        half, exact = self.buckets // 2, self.buckets // 4
        distance_N = offset_N.abs()
        # Logarithm, division and product in float32, in this order: a bucket's border lies at a whole number.
        growth_N = (distance_N.clamp(min=1).float() / exact).log() / math.log(self.max_distance / exact)
        far_N = (exact + (growth_N * (half - exact)).long()).clamp(max=half - 1)
        return torch.where(distance_N < exact, distance_N, far_N) + half * (offset_N > 0)

    def spread(self, table_GH: torch.Tensor) -> torch.Tensor:
        """Return the bias bias_HR of every offset from -max_distance to max_distance; farther ones equal the ends."""
        reach = self.max_distance
        return table_GH[self.bucket_of(torch.arange(-reach, reach + 1, device=table_GH.device))].T.contiguous()


def published_shapes(settings: BeatsSettings) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every tensor that a checkpoint of these settings must hold."""
    c, e, h, f = settings.width, settings.patch_width, settings.heads, settings.ffn
    k, d = settings.conv_positions, c // h
    shapes: dict[str, tuple[int, ...]] = {
        "patch_embedding.weight": (e, 1, PATCH, PATCH),
        "layer_norm.weight": (e,),
        "layer_norm.bias": (e,),
        "post_extract_proj.weight": (c, e),
        "post_extract_proj.bias": (c,),
        "encoder.pos_conv.0.weight_g": (1, 1, k),
        "encoder.pos_conv.0.weight_v": (c, c // settings.conv_groups, k),
        "encoder.pos_conv.0.bias": (c,),
        "encoder.layer_norm.weight": (c,),
        "encoder.layer_norm.bias": (c,),
        f"encoder.layers.0.{TABLE}": (settings.buckets, h),
    }
    for i in range(settings.layers):
        layer = f"encoder.layers.{i}"
        linear = {f"self_attn.{name}_proj": (c, c) for name in ("q", "k", "v", "out")}
        linear |= {"self_attn.grep_linear": (8, d), "fc1": (f, c), "fc2": (c, f)}
        for name, shape in linear.items():
            shapes |= {f"{layer}.{name}.weight": shape, f"{layer}.{name}.bias": shape[:1]}
        for name in ("self_attn_layer_norm", "final_layer_norm"):
            shapes |= {f"{layer}.{name}.weight": (c,), f"{layer}.{name}.bias": (c,)}
        shapes[f"{layer}.self_attn.grep_a"] = (1, h, 1, 1)
    return shapes


def check_tensors(settings: BeatsSettings, model: Mapping[str, Any]) -> list[str]:
    """Return the names in `model` that are not used; UserError names what is missing, not known or not as it must be.

    The classifier (``predictor.*``) is not used. Layers share the first one's table of position biases, of which a
    checkpoint holds a copy for each; a copy that differs is refused, since ours would not compute with it.
    """
    shapes = published_shapes(settings)
    copies = {f"encoder.layers.{i}.{TABLE}" for i in range(1, settings.layers)}
    classifier = [name for name in model if str(name).startswith("predictor.")]
    faults = {
        "misses": sorted(shapes.keys() - model.keys()),
        "holds the unknown": sorted(map(str, model.keys() - shapes.keys() - copies - set(classifier))),
        "holds what is no tensor of real numbers:": sorted(
            str(name) for name, value in model.items() if not (torch.is_tensor(value) and value.is_floating_point())
        ),
    }
    if not any(faults.values()):
        faults["holds tensors of another shape than cfg makes:"] = [
            f"{name} {tuple(model[name].shape)} instead of {shape}"
            for name, shape in shapes.items()
            if tuple(model[name].shape) != shape
        ]
    told = [
        f"{fault} {', '.join(names[:NAMED])}" + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
        for fault, names in faults.items()
        if names
    ]
    if told:
        raise UserError(f"model {'; '.join(told)}")
    for name in sorted(copies & model.keys()):
        if not model[name].equal(model[f"encoder.layers.0.{TABLE}"]):
            raise UserError(f"model holds {name} unlike that of layer 0, which all layers share")
    return classifier


def own_tensors(settings: BeatsSettings, model: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the checked tensors of a checkpoint in our names, float32 copies.

    What is fixed in a frozen encoder is worked out once: the weight norm of the convolution, the bias of each offset,
    the sums of four that the gates take, and one matrix for query, key and value.
    """
    given = {name: tensor.detach().to("cpu", torch.float32) for name, tensor in model.items()}
    stretch, direction = (given[f"encoder.pos_conv.0.weight_{factor}"] for factor in "gv")
    # torch's weight_norm over dimension 2: one length for each place of the kernel.
    given["encoder.pos_conv.0.weight"] = stretch * direction / direction.norm(dim=(0, 1), keepdim=True)
    own = {
        "patch.weight": given["patch_embedding.weight"].flatten(1),
        "encoder.bias_HR": settings.spread(given[f"encoder.layers.0.{TABLE}"]),
    }
    renames = dict(RENAMES)
    for i in range(settings.layers):
        layer = f"encoder.layers.{i}"
        renames |= {f"{layer}.{published}": f"{layer}.{name}" for published, name in LAYER_RENAMES.items()}
        own[f"{layer}.gate_scale_H"] = given[f"{layer}.self_attn.grep_a"].flatten()
        for kind in ("weight", "bias"):
            own[f"{layer}.qkv.{kind}"] = torch.cat([given[f"{layer}.self_attn.{name}_proj.{kind}"] for name in "qkv"])
            # Eight values, of which four make one: the sum of a linear layer's rows is a row.
            rows = given[f"{layer}.self_attn.grep_linear.{kind}"]
            own[f"{layer}.gate.{kind}"] = torch.stack([four.sum(dim=0) for four in rows.chunk(2)])
    own |= {f"{name}.{kind}": given[f"{old}.{kind}"] for old, name in renames.items() for kind in ("weight", "bias")}
    return {name: tensor.clone() for name, tensor in own.items()}


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Return what a checkpoint's file holds, on the CPU; nothing in it is run. UserError if it is none."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(
            f"there is no BEATs checkpoint to read at {str(path)!r} ({error.strerror}); put {PAPERS} of "
            "github.com/microsoft/unilm/tree/master/beats there"
        ) from None
    except Exception as error:  # a damaged or hostile file fails anywhere in the reader
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = (
            f"it asks for {named[1]}, which is no tensor and is never run"
            if named
            else "its bytes are damaged or hold more than tensors"
        )
        raise UserError(f"{str(path)!r} is no BEATs checkpoint: {what}") from None
    if not isinstance(checkpoint, dict):
        raise UserError(
            f"{str(path)!r} is no BEATs checkpoint: it holds a {type(checkpoint).__name__}, not cfg and model"
        )
    return checkpoint
