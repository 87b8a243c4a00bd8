"""Ray's Jobs API over HTTP: who guards it, what runs there, how to send a job and follow it.

Spoken directly and not by `ray.job_submission`: that client lets the variable RAY_ADDRESS replace the address it was
given, so what was found to be guarded need not be where the job goes; it follows redirects with the token, waits
without end, and takes seconds to import. The calls are few and documented (docs.ray.io, "Ray Jobs REST API").
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp
import msgspec

from manifests import Failed, UserError, files

WAIT = aiohttp.ClientTimeout(total=120, sock_connect=15, sock_read=60)
FOLLOW = aiohttp.ClientTimeout(total=None, sock_connect=15)
LARGEST = 64 << 20
"""Bytes of an answer that are read."""
PATIENCE = 60
"""Times in a row that a cluster may be out of reach before following is given up, `PAUSE` seconds apart."""
PAUSE = 5.0
TOKEN_FILE = "~/.ray/auth_token"


class Reply(msgspec.Struct, frozen=True):
    """An answer: its HTTP status and its text."""

    status: int
    text: str


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What the API says of one job; of jobs that are not ours, some of it is missing."""

    status: str
    submission_id: str | None = None
    message: str | None = None
    metadata: dict[str, str] | None = None
    driver_exit_code: int | None = None

    @property
    def over(self) -> bool:
        """Whether it has ended, well or not."""
        return self.status in ("SUCCEEDED", "FAILED", "STOPPED")

    @property
    def exit_code(self) -> int:
        """The exit code of its command; 1 for one that was killed or never began."""
        code = self.driver_exit_code
        return 0 if self.status == "SUCCEEDED" else code if code and code > 0 else 1


def token() -> str:
    """Return this user's token for Ray clusters, from where Ray itself looks for it; empty if there is none."""
    found = os.environ.get("RAY_AUTH_TOKEN", "")
    place = os.environ.get("RAY_AUTH_TOKEN_PATH", "")
    if not found:
        path = os.path.expanduser(place or TOKEN_FILE)
        try:
            found = files.read_text(path) if place or os.path.isfile(path) else ""
        except (OSError, ValueError):
            raise UserError(f"cannot read the token of the Ray cluster in the file {path!r}") from None
    found = found.strip()
    if not (found.isascii() and found.isprintable()):
        raise UserError("the token of the Ray cluster is not one line of plain characters; write it anew")
    return found


def address_of(text: str) -> str:
    """Return the address of a Jobs API as people give it, without what may end it; UserError if it is none."""
    shown = files.redact(text)
    try:
        parts = urlsplit(text)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or not text.isprintable() or " " in text:
        raise UserError(
            f"--address is {shown!r}; write where the dashboard of the cluster's head is, such as http://127.0.0.1:8265"
        )
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise UserError(
            f"--address {shown!r} holds more than a place; a token goes into RAY_AUTH_TOKEN or {TOKEN_FILE}"
        )
    return text.rstrip("/")


def on_this_machine(address: str) -> bool:
    """Whether all that the host of `address` means are loopback addresses: nobody else's machine, and no wire."""
    host = urlsplit(address).hostname or ""
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        raise UserError(f"--address {address}: there is no host {host!r}") from None
    return all(ipaddress.ip_address(place.split("%")[0]).is_loopback for place in found)


class Jobs:
    """The Jobs API at one address. It sees the token only after it has asked for one."""

    def __init__(self, address: str) -> None:
        self.address = address_of(address)
        self.near = on_this_machine(self.address)
        self.headers: dict[str, str] = {}

    def ask(self, method: str, path: str, *, data: bytes | None = None, json: Any = None) -> Reply:
        """Return the answer to one request; UserError if there is none, or if it is no answer of a Jobs API."""
        try:
            reply = asyncio.run(self.request(method, path, data, json))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            why = str(error) or type(error).__name__
            raise UserError(
                f"cannot reach a Ray cluster at {self.address} ({why}); is its dashboard running there?"
            ) from None
        if reply.status in (401, 403) and self.headers:
            raise UserError(
                f"{self.address} refuses the token; is RAY_AUTH_TOKEN (or {TOKEN_FILE}) that of the cluster?"
            )
        if 300 <= reply.status < 400:
            raise UserError(
                f"{self.address} sends us elsewhere, so no token goes there; give the address of the head itself"
            )
        return reply

    async def request(self, method: str, path: str, data: bytes | None, json: Any) -> Reply:
        """Send one request, without following redirects: they would carry the token away."""
        async with (
            aiohttp.ClientSession(headers=self.headers, timeout=WAIT) as session,
            session.request(method, self.address + path, data=data, json=json, allow_redirects=False) as answer,
        ):
            body = await answer.content.read(LARGEST)
            while not answer.content.at_eof() and len(body) < LARGEST:
                body += await answer.content.read(LARGEST - len(body))
            return Reply(answer.status, body.decode("utf-8", "replace"))

    def is_guarded(self) -> bool:
        """Whether the API wants a token: asked without one. UserError if it answers like something else."""
        reply = self.ask("GET", "/api/jobs/")
        if reply.status in (401, 403):
            return True
        self.read(reply, list[Job])
        return False

    def sign_in(self) -> None:
        """Give every further request this user's token; UserError if there is none."""
        if not (found := token()):
            raise UserError(
                f"{self.address} wants a token; put that of the cluster into RAY_AUTH_TOKEN or {TOKEN_FILE}"
            )
        self.headers = {"Authorization": f"Bearer {found}"}

    def read(self, reply: Reply, kind: Any) -> Any:
        """Return an answer's JSON as `kind`; UserError if it is something else."""
        try:
            if reply.status == 200:
                return msgspec.json.decode(reply.text, type=kind)
        except msgspec.MsgspecError:
            pass
        raise UserError(
            f"what answers at {self.address} is not the Jobs API of a Ray cluster (status {reply.status}); "
            "give the address of its dashboard, and let its nodes have ray[default]"
        )

    def all(self) -> list[Job]:
        """Return every job the cluster remembers, whoever sent it."""
        found: list[Job] = self.read(self.ask("GET", "/api/jobs/"), list[Job])
        return found

    def job(self, name: str) -> Job:
        """Return one job."""
        found: Job = self.read(self.ask("GET", f"/api/jobs/{quote(name)}"), Job)
        return found

    def upload(self, name: str, package: bytes) -> None:
        """Store a package (a zip) under a name made of its digest, unless it is there."""
        path = f"/api/packages/gcs/{quote(name)}"
        if self.ask("GET", path).status == 200:
            return
        reply = self.ask("PUT", path, data=package)
        if reply.status != 200:
            raise Failed(f"{self.address} did not take the recipe (status {reply.status}): {last_line(reply.text)}")

    def send(self, name: str, entrypoint: str, runtime_env: dict[str, Any], metadata: dict[str, str]) -> bool:
        """Send a job under `name`; False if the cluster has one of that name, which Ray refuses."""
        order = {"submission_id": name, "entrypoint": entrypoint, "runtime_env": runtime_env, "metadata": metadata}
        reply = self.ask("POST", "/api/jobs/", json=order)
        if reply.status != 200 and "already exists" in reply.text:
            return False
        if reply.status != 200:
            raise Failed(f"{self.address} did not take the job (status {reply.status}): {last_line(reply.text)}")
        return True

    def follow(self, name: str, tell: Callable[[str], None]) -> Job:
        """Tell a job's output as it comes, until the job is over; Failed if the cluster is out of reach for long."""
        told, lost = 0, 0

        def more(text: str, start: int) -> int:
            nonlocal told
            if start + len(text) > told:
                tell(text[max(0, told - start) :])
                told = start + len(text)
            return start + len(text)

        while True:
            try:
                asyncio.run(self.tail(name, more))
                job = self.job(name)
                if job.over:
                    # The stream may end before the last lines are written.
                    more(
                        str(self.read(self.ask("GET", f"/api/jobs/{quote(name)}/logs"), dict[str, str]).get("logs")), 0
                    )
                    return job
                lost = 0
            except (aiohttp.ClientError, TimeoutError, OSError, UserError) as error:
                lost += 1
                if lost > PATIENCE:
                    raise Failed(
                        f"lost sight of {name}, which may still run ({error}); the same command finds it"
                    ) from None
            time.sleep(PAUSE if lost else 1.0)

    async def tail(self, name: str, more: Callable[[str, int], int]) -> None:
        """Hand on a job's output from its beginning until the stream ends: `more` gets a text and where it starts."""
        url, place = f"{self.address}/api/jobs/{quote(name)}/logs/tail", 0
        async with (
            aiohttp.ClientSession(headers=self.headers, timeout=FOLLOW) as session,
            session.ws_connect(url, heartbeat=30.0, max_msg_size=LARGEST) as stream,
        ):
            async for message in stream:
                if message.type is aiohttp.WSMsgType.TEXT:
                    place = more(message.data, place)


def last_line(text: str) -> str:
    """Return the last line of an answer, where Python's tracebacks say what happened."""
    return (text.strip().splitlines() or ["no reason given"])[-1][:300]
