"""AdamW and its learning rate: warm-up and cosine as released with the paper, or a constant."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn

from salmonn.config import OptimizerConfig


def learning_rate(config: OptimizerConfig, step: int, horizon: int) -> float:
    """Return the rate for the step with this number, counted from 0, in a run of `horizon` steps.

    It depends on nothing else, so a resumed run goes on with it. As released, the cosine is evaluated at the global
    step, not from the end of the warm-up; unlike there, the warm-up does not begin again in each epoch. A constant has
    no warm-up: the dozen steps of activation tuning would not leave it (facts: the released stage 3 stays near 1e-6).
    """
    if config.schedule == "constant":
        return config.peak_lr
    if step < config.warmup_steps:
        return config.start_lr + (config.peak_lr - config.start_lr) * step / config.warmup_steps
    cosine = (1 + math.cos(math.pi * min(step / horizon, 1.0))) / 2
    return config.final_lr + (config.peak_lr - config.final_lr) * cosine


def make_optimizer(weights: Mapping[str, nn.Parameter], config: OptimizerConfig) -> torch.optim.AdamW:
    """Return AdamW over the trained weights; only tensors of two dimensions and more decay."""
    groups = [
        {"params": [w for w in weights.values() if w.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [w for w in weights.values() if w.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.start_lr, betas=(config.beta1, config.beta2))


def optimizer_tensors(weights: Mapping[str, nn.Parameter], optimizer: torch.optim.AdamW) -> dict[str, torch.Tensor]:
    """Return the optimizer's memory, each tensor named ``weight name/exp_avg`` or the like."""
    return {
        f"{name}/{slot}": value
        for name, weight in weights.items()
        for slot, value in optimizer.state.get(weight, {}).items()
    }


def load_optimizer_tensors(
    weights: Mapping[str, nn.Parameter], optimizer: torch.optim.AdamW, tensors: Mapping[str, torch.Tensor]
) -> None:
    """Give the optimizer the memory that `optimizer_tensors` returned."""
    for key, value in tensors.items():
        name, _, slot = key.rpartition("/")
        weight = weights[name]
        # AdamW counts its steps on the CPU, one number a weight.
        optimizer.state[weight][slot] = value.clone() if slot == "step" else value.to(weight.device, copy=True)
