"""The gradients of a step in one piece: summed over batches and ranks, divided by the answer tokens, clipped.

Each weight's gradient is a view into one flat buffer, so that a step costs one all-reduce and no copies.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from salmonn.training.parallel import Ranks


class Gradients:
    """The gradients of the weights that learn, on every rank the same after `mean`."""

    def __init__(self, weights: Iterable[nn.Parameter], ranks: Ranks) -> None:
        """Give each weight a gradient of zeros; backward adds to it from here on."""
        self.weights, self.ranks = list(weights), ranks
        self.flats: list[torch.Tensor] = []
        for dtype in dict.fromkeys(weight.dtype for weight in self.weights):
            alike = [weight for weight in self.weights if weight.dtype == dtype]
            flat = torch.zeros(sum(weight.numel() for weight in alike), dtype=dtype, device=alike[0].device)
            for weight, part in zip(alike, torch.split(flat, [weight.numel() for weight in alike]), strict=True):
                weight.grad = part.view_as(weight)
            self.flats.append(flat)

    def clear(self) -> None:
        """Forget the step before."""
        for flat in self.flats:
            flat.zero_()

    def mean(self, count: torch.Tensor) -> None:
        """Sum over the ranks and divide by `count`, a number [] on the device: dividing the loss is the same."""
        for flat in self.flats:
            self.ranks.sum(flat)
            flat.div_(count.to(flat.dtype))

    def clip(self, longest: float) -> torch.Tensor:
        """Return the norm [] of all gradients together, float32, and shorten them to `longest` if that is not 0."""
        grads = [weight.grad for weight in self.weights if weight.grad is not None]
        norm = torch.nn.utils.get_total_norm(grads)
        if longest:
            torch.nn.utils.clip_grads_with_norm_(self.weights, longest, norm)
        return norm.float()
