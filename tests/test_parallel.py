"""Several processes are as good as one: the same losses, the same examples, one end, and one word when one fails."""

from __future__ import annotations

import itertools
import json
import math
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from torch import distributed, nn

from manifests import Recipe, UserError
from salmonn.training.gradients import Gradients
from salmonn.training.parallel import Ranks, layers_of, shard_frozen, share_of
from salmonn.training.run import Log, StepLog
from salmonn.training.saves import checkpoint_paths, newest_checkpoint, random_state, set_random_state
from salmonn.training.settings import BatchConfig, TrainConfig
from salmonn.training.trainer import run_training
from shards import Dataset, Stream
from tiny_model import LIBRI, RECIPE, STEADY, ToneStream, config, run_ranks, train_tones

torch.set_num_threads(1)
TWO = BatchConfig(max_examples=4, micro_batches=2)


def steady(run: Path, **changes: Any) -> TrainConfig:
    return config(run, **{"model": STEADY, "batch": TWO, "steps": 10, **changes})


def lines(run: Path) -> list[StepLog]:
    return Log(run).lines()


def losses(run: Path) -> list[float]:
    return [line.loss for line in lines(run)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("alone")
    run_training(steady(run), ToneStream(micro_batches=2))
    return run


def weights(run: Path) -> dict[str, torch.Tensor]:
    found = newest_checkpoint(run / "checkpoints")
    assert found is not None
    return found.model


def test_two_processes_have_the_curve_of_one(alone: Path, tmp_path: Path) -> None:
    assert run_ranks(2, train_tones, steady(tmp_path)) == [0, 0]
    one, two = lines(alone), lines(tmp_path)
    assert [line.step for line in two] == list(range(1, 11))
    assert losses(tmp_path) == pytest.approx(losses(alone), abs=1e-5)
    assert one[-1].loss < one[0].loss
    for mine, other in zip(one, two, strict=True):
        assert (mine.examples, mine.tokens, mine.mixture) == (other.examples, other.tokens, other.mixture)
        assert (mine.cut, mine.truncated, mine.lr) == (other.cut, other.truncated, other.lr)
        assert other.grad_norm == pytest.approx(mine.grad_norm, rel=1e-3)
        assert other.padding == pytest.approx(mine.padding)
        for task in mine.tasks:
            assert other.tasks[task].loss == pytest.approx(mine.tasks[task].loss, abs=1e-5)


@pytest.mark.slow
def test_a_rank_without_examples_is_no_special_case(tmp_path: Path) -> None:
    """Its batch was damaged, or is behind the last one: the step learns from what the others have."""
    settings = [steady(tmp_path / name, steps=3) for name in ("one", "two", "dealt")]
    run_training(settings[0], ToneStream(micro_batches=2, empty=3))
    assert run_ranks(2, train_tones, settings[1], None, 3) == [0, 0]
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-5)
    assert lines(tmp_path / "one")[1].examples == 3, "the second step has the third batch only"


@pytest.mark.slow
def test_a_model_cut_over_the_ranks_learns_the_same(alone: Path, tmp_path: Path) -> None:
    assert run_ranks(2, train_tones, steady(tmp_path, shard_frozen=True), 5) == [0, 0]
    assert losses(tmp_path) == pytest.approx(losses(alone)[:5], abs=1e-5)
    whole = weights(tmp_path)
    assert {name: x.shape for name, x in whole.items()} == {name: x.shape for name, x in weights(alone).items()}


def in_parts(whole: TrainConfig, parts: TrainConfig) -> None:
    """Train one run through, and one in parts; each begins with other random numbers, as a new process would."""
    with Ranks.from_environment() as ranks:
        for settings, stop_after in ((whole, None), (parts, 1), (parts, 2), (parts, None)):
            torch.manual_seed(ranks.rank + len(checkpoint_paths(parts.folder)))
            stream = ToneStream(micro_batches=2, rank=ranks.rank, world_size=2)
            run_training(settings, stream, ranks=ranks, stop_after=stop_after)


@pytest.mark.slow
def test_two_processes_resume_to_the_bit_with_dropout(tmp_path: Path) -> None:
    whole, parts = (config(tmp_path / name, batch=TWO, steps=4) for name in ("whole", "parts"))
    assert run_ranks(2, in_parts, whole, parts) == [0, 0]
    assert len(losses(parts.folder)) == 4
    assert losses(parts.folder) == losses(whole.folder)
    for name in ("model.safetensors", "optimizer.safetensors", "state.json"):
        files = [checkpoint_paths(run.folder / "checkpoints")[-1] / name for run in (whole, parts)]
        assert files[0].read_bytes() == files[1].read_bytes()
    found = newest_checkpoint(whole.folder / "checkpoints")
    assert found is not None
    states = {name: x for name, x in found.optimizer.items() if name.startswith("random/")}
    assert states.keys() == {"random/0/cpu", "random/1/cpu"}
    assert not states["random/0/cpu"].equal(states["random/1/cpu"]), "each rank draws its own"


def test_random_states_of_another_number_of_ranks_begin_anew_the_same_way() -> None:
    saved = random_state(Ranks())
    drawn = torch.rand(3)
    torch.manual_seed(9)
    set_random_state(saved, Ranks(), 7)
    assert torch.rand(3).equal(drawn)
    saved["random/1/cpu"] = saved["random/0/cpu"]
    seen = []
    for names in ((7, 1), (7, 1), (7, 2)):
        set_random_state(saved, Ranks(), *names)
        seen.append(torch.rand(3))
    assert seen[0].equal(seen[1])
    assert not seen[0].equal(seen[2])
    set_random_state({}, Ranks(rank=1, world_size=2), 7, 1)
    assert not torch.rand(3).equal(seen[0]), "each rank draws its own"


def test_a_number_of_processes_that_cannot_share_a_step_is_refused(tmp_path: Path) -> None:
    assert [share_of(6, Ranks(world_size=n)) for n in (1, 2, 3, 6)] == [6, 3, 2, 1]
    with pytest.raises(UserError, match=r"batch\.micro_batches is 6, which 4 processes cannot share.*a multiple of 4"):
        share_of(6, Ranks(world_size=4))


def test_the_environment_says_who_we_are(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with Ranks.from_environment() as ranks:
        assert (ranks.rank, ranks.world_size, ranks.first) == (0, 1, True)
        assert ranks.sum_numbers([1.5, 2.0]) == [1.5, 2.0]
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="MASTER_ADDR or MASTER_PORT is not set: start the processes by torchrun"):
        Ranks.from_environment()
    monkeypatch.setenv("WORLD_SIZE", "many")
    with pytest.raises(UserError, match="WORLD_SIZE is 'many'; it should be a number"):
        Ranks.from_environment()


# -- when something goes wrong on one rank


class Troubled(ToneStream):
    """Deals one good batch, then trouble."""

    def __init__(self, how: str, **options: Any) -> None:
        super().__init__(**options)
        self.how = how

    def __iter__(self) -> Any:
        for number, batch in enumerate(super().__iter__()):
            if number == 1 and self.how == "gone":
                raise UserError("the dataset is gone")
            if number == 1 and self.how == "crash":
                raise ZeroDivisionError("a mistake of ours")
            if number == 1 and self.how == "signal":
                os.kill(os.getpid(), signal.SIGTERM)
            if number == 1 and self.how == "infinite":
                batch.examples[1].audio[:] = math.nan
            yield batch


TROUBLES = ("gone", "crash", "signal", "infinite", "empty folder")


def meet_troubles(folder: str) -> None:
    """Train on two ranks, of which rank 1 meets trouble in the second step; write what each has to say."""
    told = []
    with Ranks.from_environment() as ranks:
        for how in TROUBLES:
            dealt = {"micro_batches": 2, "rank": ranks.rank, "world_size": 2}
            stream = Troubled(how, **dealt) if ranks.rank == 1 else ToneStream(**dealt)
            settings = steady(Path(folder, how))
            if how == "empty folder":  # as on a machine that does not have the run's folder
                settings = steady(Path(folder, "signal" if ranks.first else how))
            try:
                result = run_training(settings, stream, ranks=ranks)
                told.append((result.ended, str(result.steps)))
            except Exception as error:
                told.append((type(error).__name__, str(error)))
    Path(folder, f"{ranks.rank}.json").write_text(json.dumps(told))


@pytest.mark.slow
def test_what_happens_to_one_rank_ends_all_after_the_same_step(tmp_path: Path) -> None:
    assert run_ranks(2, meet_troubles, str(tmp_path)) == [0, 0]
    first, second = (
        dict(zip(TROUBLES, json.loads((tmp_path / f"{rank}.json").read_text()), strict=True)) for rank in "01"
    )
    assert first["gone"] == second["gone"] == ["UserError", "the dataset is gone"]
    assert first["crash"] == ["Failed", "rank 1 failed: a mistake of ours"]
    assert second["crash"] == ["ZeroDivisionError", "a mistake of ours"]
    assert first["signal"] == second["signal"] == ["signal", "2"]
    assert first["infinite"] == second["infinite"], "all ranks name the examples of all"
    kind, text = first["infinite"]
    assert kind == "UserError"
    # Rank 1 was dealt batch 3, of which the second example is no sound; rank 0 batch 2.
    assert "step 2: the loss is nan" in text
    assert "The step's examples: tone-22, tone-14, tone-15, tone-16, tone-21, tone-23, tone-24. Look" in text
    assert first["empty folder"] == second["empty folder"]
    assert "the newest checkpoint's step is 2 on rank 0 but 0 on rank 1" in first["empty folder"][1]
    assert {how: len(lines(tmp_path / how)) for how in TROUBLES[:4]} == dict(zip(TROUBLES, (1, 1, 2, 1), strict=False))


# -- the parts


def sum_up(out: str) -> None:
    """Check sums, and what stands on them, on two ranks."""
    with Ranks.from_environment() as ranks:
        torch.manual_seed(3)
        layer, whole = nn.Linear(5, 3), nn.Linear(5, 3)
        whole.load_state_dict(layer.state_dict())
        x = torch.randn(6, 5)
        gradients = Gradients(layer.parameters(), ranks)
        for _ in range(2):
            gradients.clear()
            rows = x[:5] if ranks.first else x[5:]
            layer(rows).square().sum().backward()
            gradients.mean(torch.tensor(6.0))
        whole(x).square().sum().div(6).backward()
        for mine, other in zip(layer.parameters(), whole.parameters(), strict=True):
            assert torch.allclose(mine.grad, other.grad, atol=1e-6)
        norm = gradients.clip(0.5)
        expected = torch.nn.utils.clip_grad_norm_(whole.parameters(), 0.5)
        assert norm == pytest.approx(float(expected), rel=1e-5)
        for mine, other in zip(layer.parameters(), whole.parameters(), strict=True):
            assert torch.allclose(mine.grad, other.grad, atol=1e-6)
        assert ranks.sum_numbers([1.0, float(ranks.rank)]) == [2.0, 1.0]
        assert ranks.gather(ranks.rank) == [0, 1]
        ranks.barrier()
        ranks.demand_equal("the step", 4)
        with pytest.raises(UserError, match="the step is 0 on rank 0 but 1 on rank 1; all machines"):
            ranks.demand_equal("the step", ranks.rank)
    Path(out, str(ranks.rank)).touch()
    assert not distributed.is_initialized()


@pytest.mark.slow
def test_sums_over_ranks(tmp_path: Path) -> None:
    assert run_ranks(2, sum_up, str(tmp_path)) == [0, 0]
    assert {path.name for path in tmp_path.iterdir()} == {"0", "1"}


def cut_up(out: str) -> None:
    """Cut a model over two ranks: half of each frozen layer is here, and gradients reach what is trained."""
    from salmonn.model import Salmonn

    with Ranks.from_environment() as ranks:
        model = Salmonn.from_config(STEADY).train()
        frozen = {name: weight.numel() for name, weight in model.llm.named_parameters() if not weight.requires_grad}
        shard_frozen(model.llm, ranks)
        held = {}
        for name, weight in model.llm.named_parameters():
            local = weight.to_local() if hasattr(weight, "to_local") else weight
            assert weight.requires_grad <= (local is weight), "trained weights are whole on every rank"
            held[name] = local.numel()
        inside = [name for name in frozen if ".layers." in name]
        assert sum(held[name] for name in inside) <= 0.55 * sum(frozen[name] for name in inside)
        tones = [np.sin(np.arange(16_000, dtype=np.float32) * pitch) for pitch in (0.1, 0.2)]
        model.loss(tones, [STEADY.prompt.wrap("What?")] * 2, ["low", "high"]).backward()
        assert all(weight.grad is not None for weight in model.parameters() if weight.requires_grad)
    Path(out, str(ranks.rank)).touch()


@pytest.mark.slow
def test_a_frozen_model_is_cut_over_the_ranks(tmp_path: Path) -> None:
    assert run_ranks(2, cut_up, str(tmp_path)) == [0, 0]
    assert {path.name for path in tmp_path.iterdir()} == {"0", "1"}
    with pytest.raises(UserError, match="no list of layers"):
        layers_of(nn.Linear(2, 2))


# -- the stream itself, and the ways to start

DICE = random.Random("parallel")
WORLD = {
    ("speech", "one"): [(DICE.randrange(320, 4800), ("asr", "gender_recognition")) for _ in range(17)],
    ("sound", "one"): [(DICE.randrange(320, 4800), ("audio_caption",)) for _ in range(13)],
}


@pytest.fixture(scope="module")
def dataset(make_dataset: Callable[..., Dataset]) -> Dataset:
    return make_dataset(WORLD, shards=2)


@pytest.fixture(scope="module")
def recipe(make_recipe: Callable[..., Recipe]) -> Recipe:
    return make_recipe(
        ("asr", "speech", ("one",), 1.0),
        ("gender_recognition", "speech", ("one",), 0.5),
        ("audio_caption", "sound", ("one",), 1.2),
    )


class Noted(Stream):
    """A stream that writes down the keys it deals."""

    out = Path()

    def __iter__(self) -> Any:
        for batch in super().__iter__():
            with (self.out / f"{self.rank}-of-{self.world_size}").open("a") as file:
                file.write(json.dumps([batch.step, batch.micro, [e.key for e in batch.examples]]) + "\n")
            yield batch


SMALL = {"max_seconds": 0.7, "max_examples": 3, "longest": 0.3, "threads": 1}


def train_noted(settings: TrainConfig, dataset: Dataset, recipe: Recipe, out: str, stop_after: int | None) -> None:
    with Ranks.from_environment() as ranks:
        shared = {"rank": ranks.rank, "world_size": ranks.world_size, "micro_batches": 2}
        stream = Noted(dataset, recipe, **shared, **SMALL)
        stream.out = Path(out)
        run_training(settings, stream, ranks=ranks, stop_after=stop_after)


@pytest.mark.slow
def test_resumed_on_another_world_size_the_same_examples_are_dealt(
    dataset: Dataset, recipe: Recipe, tmp_path: Path
) -> None:
    whole, parts = (steady(tmp_path / name, steps=4) for name in ("whole", "parts"))
    run_training(whole, Stream(dataset, recipe, micro_batches=2, **SMALL))
    for world_size, stop_after in ((1, 1), (2, 2), (1, None)):
        told = (parts, dataset, recipe, str(tmp_path), stop_after)
        assert run_ranks(world_size, train_noted, *told) == [0] * world_size
    notes = [json.loads(line) for path in tmp_path.glob("*-of-*") for line in path.read_text().splitlines()]
    batches = itertools.islice(Stream(dataset, recipe, micro_batches=2, **SMALL), 8)
    assert sorted(notes) == [[batch.step, batch.micro, [e.key for e in batch.examples]] for batch in batches]
    assert losses(parts.folder) == pytest.approx(losses(whole.folder), abs=1e-5)


def launch(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a Python command to its end; if it does not come to it, leave no process behind."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    with subprocess.Popen([sys.executable, *command], **options) as process:
        try:
            out, error = process.communicate(timeout=200)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, error)


TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node")


@pytest.mark.slow
def test_torchrun_starts_the_same(alone: Path, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import sys, msgspec\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from salmonn.training.settings import TrainConfig\n"
        "from tiny_model import train_tones\n"
        "train_tones(msgspec.json.decode(open(sys.argv[1], 'rb').read(), type=TrainConfig))\n"
    )
    told = tmp_path / "config.json"
    told.write_bytes(msgspec.json.encode(steady(tmp_path / "run")))
    done = launch(*TORCHRUN, "2", str(program), str(told))
    assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "run") == pytest.approx(losses(alone), abs=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_command_under_torchrun(make_dataset: Callable[..., Dataset], tmp_path: Path) -> None:
    """`salmonn train` on two processes, then on one: refused if they cannot share a step, else resumed."""
    recipe, dataset = tmp_path / "recipe.toml", make_dataset(LIBRI)
    recipe.write_text(RECIPE)
    settings = tmp_path / "run.toml"
    settings.write_text(
        f'run = "{tmp_path / "run"}"\ndataset = "{dataset.url}"\nrecipe = "{recipe}"\nmodel = "tiny"\nsteps = 3\n'
        'threads = 1\ndevice = "cpu"\n[batch]\nmax_examples = 2\nmicro_batches = 2\n'
    )
    train = ("-m", "salmonn", "train", str(settings))
    refused = launch(*TORCHRUN, "3", *train)
    assert refused.returncode != 0
    assert "which 3 processes cannot share" in " ".join((refused.stdout + refused.stderr).split())
    assert not (tmp_path / "run").exists()
    done = launch(*TORCHRUN, "2", *train, "--steps", "2")
    assert done.returncode == 0, done.stderr
    done = launch(*train)
    assert done.returncode == 0, done.stderr
    assert [line.step for line in lines(tmp_path / "run")] == [1, 2, 3]
