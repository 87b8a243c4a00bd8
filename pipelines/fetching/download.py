"""Download: one file over HTTP(S), resumed where it can be, and under its final name only when it is the right one."""

from __future__ import annotations

import time

from manifests import draw, files
from pipelines.fetching.exchange import Exchange
from pipelines.fetching.hosts import Forbidden, Unreachable, host_of
from pipelines.fetching.line import Line
from pipelines.fetching.part import Busy, Part, open_part
from pipelines.fetching.wanted import Got, Limits, Unfetched, Wanted


class Breaker:
    """Hosts that failed so often in a row that they are left alone for a while, for one process."""

    def __init__(self, limit: int = 6, rest: float = 60.0) -> None:
        """Leave a host alone for `rest` seconds after `limit` failures in a row."""
        self.limit, self.rest = limit, rest
        self.failures: dict[str, int] = {}
        self.since: dict[str, float] = {}

    def check(self, host: str) -> None:
        """Raise Unfetched while `host` is left alone; the first caller after that may try it once."""
        if self.failures.get(host, 0) < self.limit:
            return
        if time.monotonic() - self.since[host] < self.rest:
            raise Unfetched(
                "host_down", f"{host} failed {self.failures[host]} times in a row; it is left alone for now"
            )
        self.since[host] = time.monotonic()

    def note(self, host: str, well: bool) -> None:
        """Note how a try at `host` went."""
        self.failures[host] = 0 if well else self.failures.get(host, 0) + 1
        self.since[host] = time.monotonic()


def download(wanted: Wanted, limits: Limits, breaker: Breaker | None = None) -> Got:
    """Fetch one file; Unfetched if that failed, OSError if it cannot be written. A part is kept for the next call.

    The bytes so far lie beside the final name as ``<name>.part``; Ctrl-C, SIGKILL and a lost connection leave them, and
    the next call asks for the rest alone, if the server can tell that the file is still the same.
    """
    try:
        with open_part(wanted.path) as part:
            return Effort(wanted, limits, part, breaker or Breaker()).run()
    except Busy:
        raise Unfetched("busy", f"another process is fetching {wanted.name}") from None


class Effort:
    """All tries to fetch one file."""

    def __init__(self, wanted: Wanted, limits: Limits, part: Part, breaker: Breaker) -> None:
        """Fetch `wanted` into `part`."""
        self.wanted, self.limits, self.part, self.breaker = wanted, limits, part, breaker
        self.exchange = Exchange(wanted, limits, part)
        self.end = time.monotonic() + limits.seconds(wanted.bytes)
        self.tries = 0
        self.wrong: set[tuple[str, str]] = set()
        """Addresses and the digests of the whole but wrong files that they gave."""

    def run(self) -> Got:
        """Try each address in turn, with growing pauses between the rounds."""
        left = list(dict.fromkeys(self.wanted.urls))
        troubles: dict[str, Unfetched] = {}
        for turn in range(self.limits.tries):
            for url in list(left):
                try:
                    return self.attempt(url)
                except Unfetched as error:
                    troubles[url] = error
                    if error.reason in ("disk_full", "deadline"):
                        raise
                    # Nobody mends a certificate in a minute, but the user may before the next run.
                    if error.permanent or error.reason == "certificate":
                        left.remove(url)
            if not left:
                break
            if turn + 1 < self.limits.tries:
                self.pause(turn, [troubles[url] for url in left])
        # Of several troubles one that passes is told: then a later run tries again.
        told = sorted(troubles.values(), key=lambda error: error.permanent)
        raise told[0] if told else Unfetched("no_address", f"{self.wanted.name} has no address", permanent=True)

    def pause(self, turn: int, troubles: list[Unfetched]) -> None:
        """Wait before the next round, at least until the first server that asked for time has had it.

        The pause is anything from nothing to its longest: who failed together must not come back together.
        """
        longest = min(self.limits.longest, self.limits.backoff * 2**turn)
        first = min(troubles, key=lambda error: error.wait)
        wait = max(first.wait, longest * draw.number(self.wanted.path, turn, time.monotonic_ns()) / 2**64)
        if time.monotonic() + wait >= self.end:
            said = f"{first.why}; the next try would come after the time for {self.wanted.name} is up"
            raise Unfetched(first.reason, said, wait=wait)
        time.sleep(wait)

    def attempt(self, url: str) -> Got:
        """Try one address once."""
        host = host_of(url)
        self.breaker.check(host)
        self.tries += 1
        line = Line()
        try:
            with line.within(self.end - time.monotonic()):
                sha256 = self.exchange.take(url, line)
        except Forbidden as error:
            raise Unfetched("forbidden", str(error), permanent=True) from None
        except Unreachable as error:
            self.breaker.note(host, False)
            if time.monotonic() >= self.end:
                raise Unfetched("deadline", f"{host} was too slow: the time for {self.wanted.name} is up") from None
            raise Unfetched(error.reason, str(error)) from None
        except Unfetched as error:
            self.breaker.note(host, error.permanent or not error.reason.startswith("http_"))
            if error.sha256:
                # The same wrong bytes twice are no accident of the way.
                error.permanent = (url, error.sha256) in self.wrong
                self.wrong.add((url, error.sha256))
            raise
        finally:
            line.drop()
        self.breaker.note(host, True)
        return Got(
            url=files.redact(url),
            bytes=self.part.size,
            sha256=sha256,
            received=self.exchange.received,
            tries=self.tries,
        )
