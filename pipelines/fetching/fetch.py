"""Fetch: bring what corpora publish below ROOT, several hosts at a time, and do again only what is left to do."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

from manifests import Corpus, Failed, UserError, files
from pipelines.executor import Executor
from pipelines.fetching.download import Breaker, download
from pipelines.fetching.hosts import host_of
from pipelines.fetching.lock import Changed, Locked, changed, learn, read_lock
from pipelines.fetching.part import BLOCK
from pipelines.fetching.wanted import Got, Limits, Unfetched, Wanted
from pipelines.items import Item, Outcome, finished, hopeless, outcome_path, read_outcome, safe, write_outcome

FULL = (errno.ENOSPC, errno.EDQUOT)
NO_ROOM = "the disk is full; nothing is lost, make room and run the command again"
PARALLEL = 8
"""Files at a time, where the user does not say."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How to fetch."""

    root: str
    limits: Limits = Limits()
    per_host: int = 2
    """Files at a time from one host."""
    unpack: bool = True
    stream: bool = False
    """Instead of unpacking tars, keep them as they are read best: plain, with an index."""
    remove_archives: bool = False
    verify: bool = False
    """Also hash what is there."""
    again: bool = False
    """Also try what failed for good."""


class Lane(msgspec.Struct, frozen=True, kw_only=True):
    """One of the few workers that may ask a host: it takes what no other lane of the host has taken."""

    number: int
    items: tuple[Item, ...]
    settings: Settings


def left_to_do(items: Sequence[Item], settings: Settings) -> list[Item]:
    """Return the items that are not there and verified, without those that take a person or failed for good."""
    left = []
    for item in items:
        outcome = read_outcome(settings.root, item)
        done = finished(settings.root, item, outcome, settings.unpack) and not settings.verify
        # What was refused for its address alone is not hopeless any more once the user permits such addresses.
        permitted = outcome is not None and outcome.reason == "forbidden" and settings.limits.allow_private
        if not (done or item.by_hand or (hopeless(item, outcome) and not (settings.again or permitted))):
            left.append(item)
    return left


def lanes(items: Sequence[Item], settings: Settings) -> list[Lane]:
    """Return the lanes of every host: each knows all the host's items, the largest first, and claims as it goes."""
    hosts: dict[str, list[Item]] = {}
    for item in items:
        hosts.setdefault(host_of(item.urls[0]), []).append(item)
    made = [
        Lane(number=number, items=tuple(sorted(there, key=lambda item: -item.bytes)), settings=settings)
        for there in hosts.values()
        for number in range(min(settings.per_host, len(there)))
    ]
    return sorted(made, key=lambda lane: lane.number)


def workers_for(made: Sequence[Lane], workers: int | None, address: str) -> int | None:
    """Return how many lanes to run at a time: a download waits for the network, so cores do not count."""
    return max(1, min(workers or PARALLEL, len(made))) if address == "local" else workers


def fetch(items: Sequence[Item], settings: Settings, executor: Executor) -> dict[str, Outcome]:
    """Fetch `items`, all that are left to do; return what became of each by its key.

    UserError if the disk is too small. What fails does not stop the rest.
    """
    require_room(items, settings)
    for _ in executor.run(fetch_lane, lanes(items, settings)):
        pass
    found = {item.key: read_outcome(settings.root, item) for item in items}
    busy = "another fetch has it in hand"
    return {
        key: outcome or Outcome(key=key, state="transient", reason="busy", why=busy) for key, outcome in found.items()
    }


def room(items: Sequence[Item], settings: Settings) -> tuple[int, int]:
    """Return the bytes that items of known size need, archives unpacked beside themselves, and those that are free."""
    need = 0
    for item in items:
        part = files.size(files.join(settings.root, f"{item.path}.part")) or 0
        there = files.size(files.join(settings.root, item.path)) or part
        need += max(0, item.bytes - there) + (item.bytes if item.into and settings.unpack else 0)
    place = os.path.abspath(files.local(settings.root))
    while not os.path.exists(place):
        place = os.path.dirname(place)
    disk = os.statvfs(place)
    return need, disk.f_bavail * disk.f_frsize


def require_room(items: Sequence[Item], settings: Settings) -> None:
    """Raise UserError unless the disk has room for what is known of the items."""
    need, free = room(items, settings)
    if need > free:
        raise UserError(
            f"{settings.root!r} has {free / 1e9:,.1f} GB free and at least {need / 1e9:,.1f} GB are needed; fetch "
            "fewer splits, choose another --root, or make room"
        )


def fetch_lane(lane: Lane) -> int:
    """Fetch the items of a lane that no other lane has; return how many. Safe to run twice, also at the same time."""
    breaker, done = Breaker(), 0
    for item in lane.items:
        with claimed(lane.settings.root, item) as mine:
            if not mine:
                continue
            before = read_outcome(lane.settings.root, item)
            if before and finished(lane.settings.root, item, before, lane.settings.unpack) and not lane.settings.verify:
                continue
            outcome = fetch_item(item, lane.settings, breaker, before)
        done += 1
        if outcome.reason == "disk_full":
            break
    return done


@contextlib.contextmanager
def claimed(root: str, item: Item) -> Iterator[bool]:
    """Take an item for this process, if no other has it; the system gives it back when the process ends, however."""
    place = files.local(outcome_path(root, item))
    os.makedirs(os.path.dirname(place), exist_ok=True)
    claim = os.path.join(os.path.dirname(place), f".{os.path.basename(place)}.claim")
    with open(claim, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True


def fetch_item(item: Item, settings: Settings, breaker: Breaker, before: Outcome | None) -> Outcome:
    """Bring one item to its place, unpack it, and write down what became of it."""
    begin = time.monotonic()
    try:
        outcome = obtain(item, settings, breaker)
        if before and before.sha256 == outcome.sha256 and before.unpacked and not before.streamed:
            outcome = msgspec.structs.replace(outcome, unpacked=True, files=before.files)
        elif item.into and settings.unpack:
            outcome = unpacked(item, settings, outcome)
        # Last, so that an archive which nobody knows and which cannot be unpacked is not what later ones are held to.
        learn(settings.root, item.key, outcome.url, outcome.bytes, outcome.sha256)
    except Changed as error:
        outcome = failed(item, Unfetched("changed", str(error), permanent=True))
    except Unfetched as error:
        outcome = failed(item, error)
    except OSError as error:
        if error.errno not in FULL:
            raise
        outcome = failed(item, Unfetched("disk_full", NO_ROOM))
    passed = round(time.monotonic() - begin, 3)
    outcome = msgspec.structs.replace(outcome, identity=item.identity, seconds=passed)
    try:
        return write_outcome(settings.root, item, outcome)
    except OSError as error:
        if error.errno not in FULL:
            raise
        return outcome


def failed(item: Item, error: Unfetched) -> Outcome:
    """Return the outcome of an item that was not had."""
    state: Literal["permanent", "transient"] = "permanent" if error.permanent else "transient"
    return Outcome(key=item.key, state=state, reason=error.reason, why=error.why)


def obtain(item: Item, settings: Settings, breaker: Breaker) -> Outcome:
    """Return the outcome of an item that is in its place and has the right digest; Unfetched if that cannot be had."""
    root, place = settings.root, files.join(settings.root, item.path)
    locked = read_lock(root).get(item.key)
    got = found(place, item, locked)
    reason = "found" if got else "fetched"
    if got is None:
        sha256 = item.sha256 or (locked.sha256 if locked else "")
        wanted = Wanted(path=place, urls=item.urls, md5=item.md5, sha256=sha256, bytes=item.bytes)
        try:
            got = download(wanted, settings.limits, breaker)
        except Unfetched as error:
            if locked and error.sha256 and not item.md5 and not item.sha256:
                # No digest is published, so this is not damage: what is at the address is not what it was.
                error.why = changed(root, item.key, locked, error.sha256)
            raise
    published = bool(item.md5 or item.sha256)
    return Outcome(
        key=item.key,
        state="ok",
        reason=reason,
        url=got.url,
        bytes=got.bytes,
        sha256=got.sha256,
        verified="published" if published else "lock" if locked else "",
        received=got.received,
        tries=got.tries,
    )


def found(place: str, item: Item, locked: Locked | None) -> Got | None:
    """Return what is at `place` already, hashed; None if nothing is, or not what it should be.

    A file that nobody knows a digest of is taken as it is: someone put it there.
    """
    size = files.size(place)
    if size is None or (item.bytes and size != item.bytes):
        return None
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with files.open_read(place) as file:
        while block := file.read(BLOCK):
            sha256.update(block)
            md5.update(block)
    if item.md5 not in ("", md5.hexdigest()) or item.sha256 not in ("", sha256.hexdigest()):
        return None
    if locked and not (item.md5 or item.sha256) and locked.sha256 != sha256.hexdigest():
        return None
    return Got(url=files.redact(item.urls[0]), bytes=size, sha256=sha256.hexdigest())


def unpacked(item: Item, settings: Settings, outcome: Outcome) -> Outcome:
    """Return the outcome of an archive whose content is in place; Unfetched if it cannot be unpacked."""
    from pipelines.unpacking.stream_archive import can_stream, stream_archive
    from pipelines.unpacking.unpack import unpack

    archive, into = files.join(settings.root, item.path), files.join(settings.root, item.into)
    record = outcome_path(settings.root, item).removesuffix(".json") + ".unpacked.parquet"
    try:
        streamed = settings.stream and can_stream(archive)
        inner = item.into.removeprefix(f"raw/{item.corpus}").strip("/")
        held = stream_archive(archive, inner=inner, record=record) if streamed else unpack(archive, into, record=record)
    except UserError as error:
        if isinstance(error.__context__, OSError) and error.__context__.errno in FULL:
            raise Unfetched("disk_full", NO_ROOM) from None
        if not outcome.verified:
            files.remove(archive)
        raise Unfetched("archive", str(error), permanent=True) from None
    except Failed as error:
        raise Unfetched("busy", str(error)) from None
    if settings.remove_archives and not streamed:
        files.remove(archive)
    removed = not files.exists(archive)
    return msgspec.structs.replace(outcome, unpacked=True, files=held.files, removed=removed, streamed=streamed)


def link(corpus: Corpus, root: str) -> list[str]:
    """Link folders of other corpora that a corpus reads into its own; return the corpora that are not there yet."""
    from pipelines.unpacking.stream_archive import share_streamed

    missing = []
    for place, source in corpus.facts.links.items():
        safe(corpus.name, "a link", place), safe(corpus.name, "a link", source)
        at, there = (os.path.join(files.local(root), "raw", part) for part in (f"{corpus.name}/{place}", source))
        shared = share_streamed(corpus.name, place, source, os.path.join(files.local(root), "raw"))
        if os.path.isdir(at):
            continue
        if not os.path.isdir(there):
            if shared:
                continue
            missing.append(source.partition("/")[0])
            continue
        os.makedirs(os.path.dirname(at), exist_ok=True)
        with contextlib.suppress(FileExistsError):
            # Folders on the way may be links themselves, to other disks.
            relative = os.path.relpath(os.path.realpath(there), os.path.realpath(os.path.dirname(at)))
            os.symlink(relative, at, target_is_directory=True)
    return missing
