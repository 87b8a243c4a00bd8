"""Ray: the one room that knows it. Runs plain functions on many items and hands their results back as they come."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from manifests.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")

Watch = Callable[[str, int, int], None]
"""Told a step of the work, how much of it is done, and how much there is."""

OBJECT_STORE = 80 * 2**20
"""Bytes, about the least Ray takes. Only rows of a few hundred bytes pass through it, never audio."""
AHEAD = 4
"""Items given to Ray ahead of each worker: enough to keep it busy, few enough that stopping is quick."""
RETRIES = 3
"""How often an item is tried again after its worker process or node died. Commits are idempotent, so this is safe."""


class Executor:
    """A Ray cluster to run functions on: this machine's, started for the occasion, or a running one by its address.

    Used as a context manager; Ray starts on the first `run`, so a command that finds nothing to do never pays for it.
    """

    def __init__(self, workers: int | None = None, address: str = "local") -> None:
        """Use `workers` processes at a time, by default one a core; `address` is ``local``, ``auto`` or ``ray://...``."""
        if workers is not None and workers < 1:
            raise UserError(f"--workers is {workers}; it must be at least 1")
        self.address = address
        self.workers = workers
        self.ray: Any = None

    def __enter__(self) -> Executor:
        return self

    def __exit__(self, *_: object) -> None:
        if self.ray is not None:
            self.ray.shutdown()
            self.ray = None

    def start(self) -> None:
        """Start or join the cluster, once."""
        if self.ray is not None:
            return
        # Read by Ray at import. The exporter processes are for the dashboard, which a build does not show.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_DEDUP_LOGS", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        if self.address != "local" and token_is_set():
            os.environ.setdefault("RAY_AUTH_MODE", "token")
        import ray

        quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        try:
            if self.address == "local":
                ray.init(
                    address="local",
                    num_cpus=self.workers or os.cpu_count() or 1,
                    object_store_memory=OBJECT_STORE,
                    include_dashboard=False,
                    **quiet,
                )
            else:
                ray.init(address=self.address, **quiet)
        except (ConnectionError, ValueError, RuntimeError) as error:
            hint = "is it running, and is RAY_AUTH_TOKEN (or ~/.ray/auth_token) that of the cluster?"
            raise UserError(f"cannot reach a Ray cluster at {self.address!r} ({first_line(error)}); {hint}") from None
        self.ray = ray

    def window(self) -> int:
        """Return how many items to give to Ray at once."""
        if self.workers and self.address != "local":
            # A shared cluster has more processors than the user asked for; only this holds the build to its share.
            return self.workers
        return AHEAD * int(self.ray.cluster_resources().get("CPU", 1))

    def run(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[tuple[Item, Result]]:
        """Yield (item, function(item)) in the order they finish, at most `workers` at a time.

        The first error of the function is raised here, as it was; what runs besides is then cancelled. An item whose
        worker dies is tried again, so the function must bear being run twice, also at the same time.
        """
        queue = iter(items)
        first = next(queue, None)
        if first is None:
            return
        self.start()
        ray = self.ray
        task = ray.remote(num_cpus=1, max_retries=RETRIES)(function)
        waiting: dict[Any, Item] = {task.remote(first): first}
        window = self.window()
        try:
            while waiting:
                while len(waiting) < window and (item := next(queue, None)) is not None:
                    waiting[task.remote(item)] = item
                done, _ = ray.wait(list(waiting), num_returns=1)
                item = waiting.pop(done[0])
                yield item, self.result(done[0])
        finally:
            for reference in waiting:
                with contextlib.suppress(Exception):
                    ray.cancel(reference, force=True)

    def result(self, reference: Any) -> Any:
        """Return what a task returned, or raise what it raised without Ray's wrapping."""
        try:
            return self.ray.get(reference)
        except self.ray.exceptions.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, Exception) else error) from None


def token_is_set() -> bool:
    """Whether this user has a token for Ray clusters."""
    places = (os.environ.get("RAY_AUTH_TOKEN_PATH", ""), os.path.expanduser("~/.ray/auth_token"))
    return bool(os.environ.get("RAY_AUTH_TOKEN")) or any(os.path.isfile(place) for place in places if place)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
