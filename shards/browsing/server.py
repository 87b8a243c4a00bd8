"""The server of the page, by aiohttp: on this machine alone, for GET and HEAD, under names that are this machine's."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import socket
import webbrowser
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from manifests import Failed, UserError, files
from manifests.console import console
from shards.browsing.address import read_query
from shards.browsing.page import FILES, FOLDER, POLICY, about, row_of, show
from shards.browsing.queries import Asker
from shards.browsing.refused import refusals
from shards.browsing.sounds import Span, Unsatisfiable, blocks, matches, pcm_of, peaks, ranged, stored
from shards.browsing.table import Table
from shards.index import Dataset

HOST = "127.0.0.1"
NAMES = re.compile(r"(127\.0\.0\.1|localhost)(:[0-9]+)?", re.ASCII | re.IGNORECASE)
"""What this machine may be called. A site elsewhere can have its own name lead here, and then read what it asks."""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
PATIENCE = 1.0
"""Seconds that open connections are given at the end."""


def serve(url: str, port: int, show_it: bool = False) -> None:
    """Show the page until SIGINT or SIGTERM; UserError for what is missing."""
    dataset = Dataset(url)
    with listening(port) as door:
        with console.status("reading the index") as status:
            table = Table(
                dataset, lambda done, total: status.update(f"reading the index: {done:,} of {total:,} samples")
            )
        with contextlib.closing(table):
            asyncio.run(run(table, door, show_it))


def listening(port: int) -> socket.socket:
    """Return a socket that listens on this machine alone; UserError if the port cannot be had."""
    try:
        return socket.create_server((HOST, port))
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"cannot listen at port {port} of {HOST}: {why}; choose another with --port, --port 0 takes a free one"
        ) from None


async def run(table: Table, door: socket.socket, show_it: bool) -> None:
    """Serve until a signal says to end."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    runner = web.AppRunner(make_app(table), access_log=None, handle_signals=False, shutdown_timeout=PATIENCE)
    await runner.setup()
    await web.SockSite(runner, door).start()
    address = f"http://{HOST}:{door.getsockname()[1]}/"
    told = f"{table.count:,} samples of {files.redact(table.dataset.url)} are at {address} (Ctrl-C ends it)"
    console.print(told, markup=False)
    if show_it:
        webbrowser.open(address)
    try:
        await ended.wait()
    finally:
        await runner.cleanup()


class Server:
    """Answers requests. What takes time is done in threads, one at a time at the table."""

    def __init__(self, table: Table) -> None:
        """Serve one table."""
        self.table, self.asker, self.about = table, Asker(table), about(table)

    async def at_table(self, request: web.Request, work: Callable[[], Any]) -> Any:
        """Do `work` while nobody else is at the table; not at all if whoever asked has gone meanwhile."""

        def alone() -> Any:
            with self.table.lock:
                gone = request.transport is None or request.transport.is_closing()
                return None if gone else work()

        return await asyncio.to_thread(alone)

    async def file(self, request: web.Request) -> web.StreamResponse:
        """Answer with a file of the page."""
        name = request.path.removeprefix("/") or "page.html"
        if name not in FILES:
            raise web.HTTPNotFound
        return web.Response(body=(FOLDER / name).read_bytes(), content_type=FILES[name], charset="utf-8")

    async def dataset(self, request: web.Request) -> web.StreamResponse:
        """Answer with what there is to say of the dataset."""
        return told(self.about)

    async def samples(self, request: web.Request) -> web.StreamResponse:
        """Answer a query."""
        query = read_query(request.query.items())
        return told(await self.at_table(request, lambda: self.asker.find(query)))

    async def refusals(self, request: web.Request) -> web.StreamResponse:
        """Answer with a page of the quarantine."""
        return told(await self.at_table(request, lambda: refusals(self.table, request.query.items())))

    async def sample(self, request: web.Request) -> web.StreamResponse:
        """Answer with one sample."""
        key = request.match_info["key"]
        return told(known(await self.at_table(request, lambda: show(self.table, key))))

    async def peaks(self, request: web.Request) -> web.StreamResponse:
        """Answer with the outline of a sound."""
        row = await self.row(request)
        return told(await asyncio.to_thread(lambda: peaks(pcm_of(self.table.dataset.url, row))))

    async def row(self, request: web.Request) -> dict[str, Any]:
        """Return the row of the index that a request is about."""
        key = request.match_info["key"]
        row: dict[str, Any] = known(await self.at_table(request, lambda: row_of(self.table, key)))[1]
        return row

    async def sound(self, request: web.Request) -> web.StreamResponse:
        """Answer with the FLAC of a sample, or with a range of it, straight from its shard."""
        row = await self.row(request)
        sound = stored(self.table.dataset.url, row)
        headers = {"ETag": sound.tag, "Accept-Ranges": "bytes", "Content-Type": "audio/flac"}
        if matches(request.headers.get("If-None-Match"), sound.tag):
            return web.Response(status=304, headers={"ETag": sound.tag})
        asked = request.headers.get("Range") if request.method == "GET" else None  # RFC 9110, 14.2
        try:
            span = ranged(asked, request.headers.get("If-Range"), sound.tag, sound.length)
        except Unsatisfiable:
            return web.Response(status=416, headers={"Content-Range": f"bytes */{sound.length}"})
        partial = span is not None
        if span is None:
            span = Span(0, sound.length)
        else:
            headers["Content-Range"] = f"bytes {span.start}-{span.end - 1}/{sound.length}"
        response = web.StreamResponse(status=206 if partial else 200, headers=headers)
        response.content_length = span.end - span.start
        parts = iter(()) if request.method == "HEAD" else blocks(sound, span)
        # Before anything is sent, so that a shard that is missing can still be told.
        part = await asyncio.to_thread(next, parts, b"")
        try:
            await response.prepare(request)
            while part:
                await response.write(part)
                part = await asyncio.to_thread(next, parts, b"")
            await response.write_eof()
        except Failed:
            # What was promised cannot be kept, and only a broken connection says so now.
            if request.transport is not None:
                request.transport.abort()
        except ConnectionError:
            pass  # who listened is gone: a browser takes of a sound what it plays
        return response


def make_app(table: Table) -> web.Application:
    """Return the page as an application of aiohttp."""
    server = Server(table)
    app = web.Application(middlewares=[guard])
    app.on_response_prepare.append(sign)
    app.add_routes(
        [
            web.get("/api/dataset", server.dataset),
            web.get("/api/samples", server.samples),
            web.get("/api/refusals", server.refusals),
            web.get("/api/sample/{key}", server.sample),
            web.get("/api/peaks/{key}", server.peaks),
            web.get("/audio/{key}.flac", server.sound),
            web.get("/{name:[a-z]*[.]?[a-z]*}", server.file),
        ]
    )
    return app


@web.middleware
async def guard(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Let pass what may be asked, and answer with a sentence what goes wrong."""
    if not all(NAMES.fullmatch(name) for name in request.headers.getall("Host", [""])):
        return failure(421, f"this page is served to this machine alone, under the name {HOST}")
    if request.method not in ("GET", "HEAD"):
        return failure(405, "this page can only be read", Allow="GET, HEAD")
    try:
        return await handler(request)
    except UserError as error:
        return failure(400, str(error))
    except Failed as error:
        return failure(502, str(error))
    except web.HTTPException as error:
        return failure(error.status, NOTHING if error.status == 404 else error.reason)


async def sign(request: web.Request, response: web.StreamResponse) -> None:
    """Put on every answer what it may be used for."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)


NOTHING = "there is nothing here of that name"


def known(found: Any) -> Any:
    """Return what was found; 404 if it is nothing."""
    if found is None:
        raise web.HTTPNotFound
    return found


def told(value: Any) -> web.Response:
    """Answer with a record as JSON."""
    return web.Response(body=msgspec.json.encode(value), content_type="application/json", charset="utf-8")


def failure(status: int, sentence: str, **headers: str) -> web.Response:
    """Answer with what went wrong."""
    response = told({"error": sentence})
    response.set_status(status)
    response.headers.update(headers)
    return response
