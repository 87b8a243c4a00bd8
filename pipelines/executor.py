"""Ray: the one room that knows it. Runs plain functions on many items and hands their results back as they come."""

from __future__ import annotations

import atexit
import contextlib
import itertools
import logging
import os
import shutil
import socket
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, TypeVar

from manifests.errors import Failed, UserError
from pipelines.head_start import HeadStart, held

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
GRACE = 3.0
"""Seconds a task has to stop by itself."""
KNOCK = 10.0
"""Seconds given to a cluster to take a connection."""
HEAD_START = 30.0
"""Seconds: work on this machine that is done in less never starts Ray, which takes 3 to 8."""
LONGEST_TEMP = 28
"""Bytes of a folder below which Ray's sockets fit: with what Ray adds, their paths may have 107."""
UNASKED = ("start_api_server", "start_monitor", "start_log_monitor")
"""Servers for a dashboard that is not served, for machines that are not added, for logs that nobody is told."""
HINTS = {
    "auto": "start one by `ray start --head`, or name the one you mean as HOST:PORT; is {token}?",
    "ray://": "is its --ray-client-server-port (10001 by default) this, and is {token}?",
    "": "is it running, and is {token}?",
}
"""What to do when a cluster cannot be reached, by how its address begins."""
TOKEN = "RAY_AUTH_TOKEN (or ~/.ray/auth_token) that of the cluster"


class Executor:
    """A Ray cluster to run functions on: this machine's, started for the occasion, or a running one by its address.

    Used as a context manager; Ray starts on the first `run`, so a command that finds nothing to do never pays for it.
    On this machine work may have a head start, without Ray: so long it is done by threads of this process.
    """

    def __init__(self, workers: int | None = None, address: str = "local", head_start: float = 0.0) -> None:
        """Use `workers` processes at a time, by default one a core; `address` is ``local``, ``auto`` or ``ray://...``.

        `head_start`: seconds, of all runs together, before Ray is started on this machine.
        """
        if workers is not None and workers < 1:
            raise UserError(f"--workers is {workers}; it must be at least 1")
        if not head_start >= 0:
            raise UserError(f"--head-start is {head_start:g}; it is a number of seconds, 0 to start Ray at once")
        self.address = address
        self.workers = workers
        self.head_start = head_start if address == "local" else 0.0
        self.ray: Any = None
        self.folder = ""

    def __enter__(self) -> Executor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(keep_logs=self.ray is not None and isinstance(error, self.ray.exceptions.RayError))

    def start(self) -> None:
        """Start or join the cluster, once; UserError if it cannot be reached, within a minute."""
        if self.ray is not None:
            return
        set_environment(self.address)
        import ray

        self.ray = ray
        try:
            self.start_here() if self.address == "local" else self.join()
        except BaseException:
            self.stop()
            raise

    def start_here(self) -> None:
        """Start Ray on this machine, in a folder of its own that goes when the build ends."""
        self.folder = temporary_folder()
        # Ctrl-C while Ray starts leaves its processes to Ray's own exit handler. Ours, registered before, comes after.
        atexit.register(self.remove_folder)
        try:
            with without_unasked():
                self.ray.init(
                    address="local",
                    num_cpus=self.workers or os.cpu_count() or 1,
                    object_store_memory=OBJECT_STORE,
                    include_dashboard=False,
                    logging_level=logging.ERROR,
                    log_to_driver=False,
                    _temp_dir=self.folder,
                )
        except (ValueError, RuntimeError) as error:
            raise Failed(f"Ray does not start on this machine ({first_line(error)})") from None

    def join(self) -> None:
        """Join a running cluster."""
        try:
            knock(self.address)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what they say of an address is said below
                self.ray.init(address=self.address, logging_level=logging.ERROR, log_to_driver=False)
        except (OSError, OverflowError, ValueError, RuntimeError) as error:
            hint = next(hint for begin, hint in HINTS.items() if self.address.startswith(begin)).format(token=TOKEN)
            raise UserError(f"cannot reach a Ray cluster at {self.address!r} ({first_line(error)}); {hint}") from None

    def stop(self, keep_logs: bool = False) -> None:
        """Leave the cluster; end one that was started here, with all its processes, and remove what it wrote."""
        with held():
            if self.ray is not None:
                self.ray.shutdown()
                self.ray = None
            if keep_logs:
                self.folder = ""
            self.remove_folder()

    def remove_folder(self) -> None:
        """Remove what a Ray that was started here wrote."""
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)

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
        if first is not None and self.ray is None and self.head_start > 0:
            queue = itertools.chain([first], queue)
            ahead = HeadStart(self.workers or os.cpu_count() or 1, self.head_start, function, queue)
            yield from ahead.run()
            self.head_start -= time.monotonic() - ahead.begin
            queue = itertools.chain(ahead.unfinished, queue)
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
            self.cancel(list(waiting))

    def cancel(self, references: list[Any]) -> None:
        """Stop tasks: first as Ctrl-C does, so that they remove what they were writing, then by force."""
        for force in (False, True):
            for reference in references:
                with contextlib.suppress(Exception):
                    self.ray.cancel(reference, force=force)
            with contextlib.suppress(Exception):
                _, references = self.ray.wait(references, num_returns=len(references), timeout=GRACE)

    def result(self, reference: Any) -> Any:
        """Return what a task returned, or raise what it raised without Ray's wrapping."""
        try:
            return self.ray.get(reference)
        except self.ray.exceptions.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, Exception) else error) from None


def set_environment(address: str) -> None:
    """Set what Ray reads from the environment when it is imported, unless the user did."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address == "auto":
        # Ray may find one that is gone. It is tried once, which takes 41 s, and not 20 times.
        os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "1")
    if address != "local" and token_is_set():
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def temporary_folder() -> str:
    """Make a folder for what Ray writes while it runs, where its sockets have names short enough."""
    place = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    return tempfile.mkdtemp(prefix="ray-", dir=place if len(os.fsencode(place)) <= LONGEST_TEMP else "/tmp")


@contextlib.contextmanager
def without_unasked() -> Iterator[None]:
    """Let Ray start without servers that a build on one machine never asks: they are a third of what its start takes.

    Ray has no setting for it, so their names are its own; one that a later Ray no longer has is simply started.
    """
    from ray._private.node import Node

    usual = {name: getattr(Node, name) for name in UNASKED if hasattr(Node, name)}
    for name in usual:
        setattr(Node, name, lambda *args, **options: None)
    try:
        yield
    finally:
        for name, method in usual.items():
            setattr(Node, name, method)


def knock(address: str) -> None:
    """Connect to HOST:PORT or ray://HOST:PORT once; OSError if nobody is there, for which Ray takes half a minute."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK).close()


def token_is_set() -> bool:
    """Whether this user has a token for Ray clusters."""
    places = (os.environ.get("RAY_AUTH_TOKEN_PATH", ""), os.path.expanduser("~/.ray/auth_token"))
    return bool(os.environ.get("RAY_AUTH_TOKEN")) or any(os.path.isfile(place) for place in places if place)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
