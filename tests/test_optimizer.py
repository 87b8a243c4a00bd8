"""The optimizer: its rate against torch's schedulers, its groups, and a memory that survives a resume to the bit."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR

from manifests.errors import UserError
from manifests.settings import convert
from salmonn.config import OptimizerConfig
from salmonn.training.optimizer import learning_rate, load_optimizer_tensors, make_optimizer, optimizer_tensors

RELEASED = OptimizerConfig()


def scheduled(scheduler: type, rate: float, steps: int, **settings: float) -> list[float]:
    """What one of torch's schedulers does to a rate, step by step."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=rate)
    made, rates = scheduler(optimizer, **settings), []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        made.step()
    return rates


@pytest.mark.parametrize(("warmup", "horizon"), [(0, 40), (1, 40), (7, 40), (40, 40), (300, 40)])
def test_warm_up_and_cosine_are_torch_s(warmup: int, horizon: int) -> None:
    config = OptimizerConfig(start_lr=1e-6, peak_lr=3e-5, final_lr=1e-5, warmup_steps=warmup)
    ours = [learning_rate(config, step, horizon) for step in range(horizon + 1)]
    # The cosine runs from step 0, hidden behind the warm-up: as released it is not begun anew at its end.
    oracle = scheduled(CosineAnnealingLR, 3e-5, horizon + 1, T_max=horizon, eta_min=1e-5)
    if warmup:
        rising = scheduled(LinearLR, 3e-5, warmup, start_factor=1e-6 / 3e-5, total_iters=warmup)
        oracle[:warmup] = rising[: horizon + 1]
    assert ours == pytest.approx(oracle, rel=1e-9)


def test_the_released_stage_1_at_places_worked_out_by_hand() -> None:
    rates = [learning_rate(RELEASED, step, 90_000) for step in (0, 1500, 3000, 45_000, 90_000, 95_000)]
    cosine = 1e-5 + 2e-5 * (1 + math.cos(math.pi / 30)) / 2
    assert rates == pytest.approx([1e-6, 1.55e-5, cosine, 2e-5, 1e-5, 1e-5])


@given(
    step=st.integers(0, 200_000),
    horizon=st.integers(1, 100_000),
    warmup=st.integers(0, 5_000),
    rates=st.tuples(st.floats(0, 1e-5), st.floats(0, 1e-5), st.floats(1e-5, 1e-2)),
)
def test_the_rate_stays_between_its_ends(
    step: int, horizon: int, warmup: int, rates: tuple[float, float, float]
) -> None:
    start, final, peak = rates
    config = OptimizerConfig(start_lr=start, final_lr=final, peak_lr=peak, warmup_steps=warmup)
    rate = learning_rate(config, step, horizon)
    assert min(start, final) * (1 - 1e-9) <= rate <= peak * (1 + 1e-9)
    constant = OptimizerConfig(start_lr=start, final_lr=final, peak_lr=peak, warmup_steps=warmup, schedule="constant")
    assert learning_rate(constant, step, horizon) == peak


def test_a_dozen_steps_of_activation_tuning_leave_the_warm_up_only_with_a_constant() -> None:
    """The stage-3 caveat: as released, twelve steps would move the weights at a thirtieth of the rate."""
    released = [learning_rate(RELEASED, step, 12) for step in range(12)]
    assert max(released) < 1.2e-6
    constant = OptimizerConfig(schedule="constant")
    assert [learning_rate(constant, step, 12) for step in range(12)] == [3e-5] * 12


def test_an_unknown_schedule_is_told() -> None:
    with pytest.raises(UserError, match=r"here: Invalid enum value 'linear' - at `\.schedule`"):
        convert({"schedule": "linear"}, OptimizerConfig, where="here")


class Toy(nn.Module):
    """A query, a matrix and a LayerNorm: every kind of tensor that is trained."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.query = nn.Parameter(torch.randn(1, 1, 4))
        self.linear = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)

    def learn(self, optimizer: torch.optim.AdamW, step: int) -> None:
        """Take one step whose gradient depends on its number alone."""
        for weight in self.parameters():
            weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(step))
        optimizer.step()


def weights_of(toy: Toy) -> dict[str, nn.Parameter]:
    return dict(toy.named_parameters())


def test_only_tensors_of_two_dimensions_and_more_decay() -> None:
    toy = Toy(0)
    before = {name: weight.detach().clone() for name, weight in weights_of(toy).items()}
    optimizer = make_optimizer(weights_of(toy), OptimizerConfig(weight_decay=0.5))
    for group in optimizer.param_groups:
        group["lr"] = 0.1
    for weight in toy.parameters():
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    for name, weight in weights_of(toy).items():
        expected = before[name] * (0.95 if name in ("query", "linear.weight") else 1.0)
        assert torch.allclose(weight, expected, rtol=1e-6), name


def test_it_is_adamw_of_the_released_settings() -> None:
    """Against the update written out (Loshchilov and Hutter, Algorithm 2), two steps of one tensor."""
    toy, config = Toy(1), OptimizerConfig(peak_lr=1e-2, weight_decay=0.05)
    weight = toy.linear.weight.detach().double().clone()
    optimizer = make_optimizer(weights_of(toy), config)
    for group in optimizer.param_groups:
        group["lr"] = 1e-2
    mean = square = torch.zeros(4, 4, dtype=torch.float64)
    for step in (1, 2):
        toy.learn(optimizer, step)
        grad = toy.linear.weight.grad
        assert grad is not None
        mean = 0.9 * mean + 0.1 * grad
        square = 0.999 * square + 0.001 * grad.double() ** 2
        update = (mean / (1 - 0.9**step)) / ((square / (1 - 0.999**step)).sqrt() + 1e-8)
        weight = weight - 1e-2 * 0.05 * weight - 1e-2 * update
    assert torch.allclose(toy.linear.weight.double(), weight, atol=1e-6)


def test_a_memory_put_back_goes_on_to_the_bit() -> None:
    through, stopped = Toy(2), Toy(2)
    first, second = make_optimizer(weights_of(through), RELEASED), make_optimizer(weights_of(stopped), RELEASED)
    for step in range(6):
        through.learn(first, step)
    for step in range(3):
        stopped.learn(second, step)
    memory = {name: tensor.clone() for name, tensor in optimizer_tensors(weights_of(stopped), second).items()}
    assert sorted(memory) == sorted(
        f"{n}/{slot}" for n in weights_of(stopped) for slot in ("exp_avg", "exp_avg_sq", "step")
    )
    resumed = Toy(3)
    resumed.load_state_dict(stopped.state_dict())
    third = make_optimizer(weights_of(resumed), RELEASED)
    load_optimizer_tensors(weights_of(resumed), third, memory)
    for step in range(3, 6):
        resumed.learn(third, step)
    for name, weight in weights_of(resumed).items():
        assert torch.equal(weight, weights_of(through)[name]), name
