"""A head start: threads of this process do the work until it has taken longer than starting Ray would have.

Most of packing is spent outside of Python's lock (decoding, digests, measures), so that a few threads keep a few cores
busy. What Ray gives beyond that, workers that may die one by one and other machines, is worth its start in long work.
"""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

PATIENCE = 2
"""Times its seconds after which items in hand are stopped and left to Ray: a long one must not hold up all others."""
GRACE = 10.0
"""Seconds that threads have to come to their next clip after they were told to stop."""
THREAD = threading.local()
"""Of a thread of a head start: `told`, the event that tells it to stop."""


class Stopped(BaseException):
    """Raised where a thread is to stop: like KeyboardInterrupt, it passes what handles errors."""


def stop_if_told() -> None:
    """Raise Stopped in a thread of a head start that is over; called between clips, where work can break off.

    An exception from outside, as Ray's, may come where C code that calls Python swallows it: libsndfile would take it
    for the end of the file.
    """
    told: threading.Event | None = getattr(THREAD, "told", None)
    if told is not None and told.is_set():
        raise Stopped


class HeadStart(Generic[Item, Result]):
    """Threads that take items from a queue until their seconds are over."""

    def __init__(self, workers: int, seconds: float, function: Callable[[Item], Result], items: Iterator[Item]) -> None:
        """Do `function` to `items`, at most `workers` at a time, beginning none after so many seconds."""
        self.workers, self.seconds = workers, seconds
        self.function, self.items = function, items
        self.begin = time.monotonic()
        self.turn = threading.Lock()
        self.told = threading.Event()
        self.in_hand: dict[int, Item] = {}
        self.results: queue.SimpleQueue[tuple[int, Any, BaseException | None]] = queue.SimpleQueue()
        """The number of an item, or -1 of a thread that ends; what the function returned or raised."""
        self.unfinished: list[Item] = []
        """What was begun here and has to be done anew."""

    def run(self) -> Iterator[tuple[Item, Result]]:
        """Yield (item, function(item)) in the order they finish; what was not begun stays among the items.

        The first error of the function is raised as it was. However this ends, the threads stop at their next clip.
        """
        threads = [threading.Thread(target=self.work, args=(number,), daemon=True) for number in range(self.workers)]
        for thread in threads:
            thread.start()
        running = len(threads)
        try:
            while running:
                left = self.begin + PATIENCE * self.seconds - time.monotonic()
                try:
                    number, result, error = self.results.get(timeout=min(max(0.0, left), threading.TIMEOUT_MAX))
                except queue.Empty:
                    return
                if error is not None:
                    raise error
                if number < 0:
                    running -= 1
                else:
                    yield self.in_hand.pop(number), result
        finally:
            self.told.set()
            self.unfinished = list(self.in_hand.values())
            until = time.monotonic() + GRACE
            with held():
                for thread in threads:
                    thread.join(max(0.0, until - time.monotonic()))

    def work(self, number: int) -> None:
        """Do items until there are none, or the time is over; thread 2 of 4 numbers them 2, 6, 10 ..."""
        THREAD.told = self.told
        try:
            while time.monotonic() < self.begin + self.seconds:
                with self.turn:
                    item = next(self.items, None)
                if item is None:
                    break
                self.in_hand[number] = item
                self.results.put((number, self.function(item), None))
                number += self.workers
            self.results.put((-1, None, None))
        except Stopped:
            return
        except BaseException as error:
            self.results.put((-1, None, error))


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Hear Ctrl-C only at the end of this, as KeyboardInterrupt: half-ended, Ray leaves processes and threads files."""
    if threading.current_thread() is not threading.main_thread():  # which alone hears it
        yield
        return
    heard: list[int] = []
    usual = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
        if heard:
            raise KeyboardInterrupt
