"""Ray Train: the processes of a run on a Ray cluster, of this machine or a running one. Each does what `train` does.

Ray starts one process a rank, tells each by the environment which it is, as torchrun does, and starts all again if one
dies: they then resume from the newest checkpoint. Only this room of the package knows Ray; a trainer starts without.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from manifests.errors import Failed, UserError
from salmonn.training.parallel import Ranks, first_line, share_of
from salmonn.training.run import Log, StepLog
from salmonn.training.settings import TrainConfig, resolve
from salmonn.training.trainer import RunResult

RESTARTS = 3
"""How often a run goes on after a process or a machine of it died."""
LOOK = 1.0
"""Seconds between looks at the log, to tell how far the run is."""


def train_on_ray(
    config: TrainConfig,
    *,
    address: str = "local",
    workers: int = 1,
    reseed: bool = False,
    stop_after: int | None = None,
    on_step: Callable[[StepLog], None] | None = None,
) -> RunResult:
    """Do what `train` does in `workers` processes on a cluster, each with a GPU if there are enough.

    `address` is ``local`` (or empty), which starts Ray on this machine for the occasion, ``auto``, HOST:PORT or
    ``ray://HOST:PORT``. All machines must see the run's folder and the dataset by the same names. UserError if the
    cluster cannot be reached, or for what `train` refuses; Failed if processes kept dying.
    """
    if workers < 1:
        raise UserError(f"--workers is {workers}; it must be at least 1")
    config = resolve(config)
    share_of(config.batch.micro_batches, Ranks(world_size=workers))
    with cluster(address or "local", workers) as ray:
        gpus = int(ray.cluster_resources().get("GPU", 0))
        if config.device == "cuda" and gpus < workers:
            raise UserError(f"device is 'cuda' but the cluster has {gpus} GPU(s) for --workers {workers}")
        told = {
            "config": msgspec.json.encode(config),
            "reseed": reseed,
            "stop_after": stop_after,
            "folder": os.getcwd(),
            "gpu": config.device != "cpu" and gpus >= workers,
        }
        with watching(config.folder, on_step):
            return fit(told, workers, config.folder)


def fit(told: dict[str, Any], workers: int, run: Path) -> RunResult:
    """Run `work` in as many processes, and again if one dies; return what rank 0 returned."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    keeping = run.absolute() / "ray"
    trainer = TorchTrainer(
        work,
        train_loop_config=told,
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=told["gpu"]),
        run_config=RunConfig(storage_path=str(keeping), failure_config=FailureConfig(max_failures=RESTARTS)),
    )
    try:
        answer = trainer.fit().return_value
    except Exception as error:  # of Ray, or of a worker in Ray's wrapping
        raise Failed(f"the run stopped, and went no further after {RESTARTS} restarts: {first_line(error)}") from error
    finally:
        # What Ray Train notes of its own is of no use once it is over: checkpoints are ours.
        shutil.rmtree(keeping, ignore_errors=True)
    return opened(answer)


def opened(answer: dict[str, Any]) -> RunResult:
    """Return the result that `work` packed, or raise the mistake."""
    if "result" not in answer:
        raise (UserError if answer["mistake"] else Failed)(answer["error"])
    return msgspec.json.decode(answer["result"], type=RunResult, dec_hook=lambda kind, value: kind(value))


def work(told: dict[str, Any]) -> dict[str, Any]:
    """Be one rank: train, and return the result or the mistake, which would be the same when tried again."""
    from salmonn.training.trainer import train

    if not told["gpu"]:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray lets a process that asked for none see all
    with contextlib.suppress(OSError):
        os.chdir(told["folder"])
    config = msgspec.json.decode(told["config"], type=TrainConfig)
    try:
        result = train(config, stop_after=told["stop_after"], reseed=told["reseed"])
    except (UserError, Failed) as error:
        return {"error": str(error), "mistake": isinstance(error, UserError)}
    return {"result": msgspec.json.encode(result, enc_hook=str)}


@contextlib.contextmanager
def cluster(address: str, workers: int) -> Iterator[Any]:
    """Start Ray on this machine, or join a running cluster; yield the module, and leave or end it afterwards."""
    for name, value in (("USAGE_STATS_ENABLED", "0"), ("DEDUP_LOGS", "0"), ("ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")):
        os.environ.setdefault(f"RAY_{name}", value)
    try:
        import ray
    except ImportError:
        raise UserError(
            "--workers and --address need Ray, which is not installed here: pip install ray[train]"
        ) from None
    folder = ""
    options: dict[str, Any] = {"address": address, "logging_level": logging.ERROR, "log_to_driver": False}
    if address == "local":
        # Sockets in it must have short names: at most 107 bytes with what Ray adds.
        place = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
        folder = tempfile.mkdtemp(prefix="ray-", dir=place if len(os.fsencode(place)) <= 28 else "/tmp")
        options |= {"num_cpus": workers + 1, "include_dashboard": False, "_temp_dir": folder}
    try:
        try:
            knock(address)
            ray.init(**options)
        except (OSError, OverflowError, ValueError, RuntimeError) as error:
            if address == "local":
                raise Failed(f"Ray does not start on this machine ({first_line(error)})") from None
            raise UserError(
                f"cannot reach a Ray cluster at {address!r} ({first_line(error)}); is it running? "
                "'ray start --head' starts one, and --address local takes this machine alone"
            ) from None
        yield ray
    finally:
        ray.shutdown()
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def knock(address: str) -> None:
    """Connect to HOST:PORT or ray://HOST:PORT once; OSError if nobody is there, for which Ray takes half a minute."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10.0).close()


@contextlib.contextmanager
def watching(run: Path, on_step: Callable[[StepLog], None] | None) -> Iterator[None]:
    """Tell `on_step` each new line of the run's log, where this machine sees its folder."""
    log, over = Log(run), threading.Event()
    seen = max((line.step for line in log.lines()), default=0)

    def look() -> None:
        nonlocal seen
        for line in log.lines():
            if line.step > seen and on_step is not None:
                seen = line.step
                on_step(line)

    def watch() -> None:
        while not over.wait(LOOK):
            with contextlib.suppress(OSError, msgspec.MsgspecError):
                look()

    thread = threading.Thread(target=watch, daemon=True)
    if on_step is not None:
        thread.start()
    try:
        yield
    finally:
        over.set()
        if on_step is not None:
            thread.join()
            look()
