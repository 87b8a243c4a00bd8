"""Chat completions of any OpenAI-compatible endpoint: retried, at a limited rate, and the token kept to itself.

Who annotates, judges, or is evaluated, is asked through it. It needs aiohttp, which manifests/ does without elsewhere.
"""

from __future__ import annotations

import asyncio
import email.utils
import os
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec

from manifests import draw, files
from manifests.errors import UserError

TOKEN = "SALMONN_API_KEY"
LONGEST_WAIT = 3600.0
"""Seconds that a server can make us wait."""
LARGEST = 1 << 20
"""Bytes of an answer that are read."""
RETRIED = (408, 409, 425, 429)
"""Beside 5xx, the statuses that pass."""
WRONG = {
    401: "is its token in the environment variable {variable}?",
    403: "does the token in {variable} allow it?",
    404: "is {option} the address above /chat/completions, and the model's a name it knows?",
    405: "is {option} the address above /chat/completions?",
}
"""Statuses that no second try mends, and no other clip either."""


class Unanswered(Exception):
    """A question that got no answer: `reason` is a code to count."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


class Message(msgspec.Struct, frozen=True):
    """What the model said; nothing if it refused."""

    content: str | None = None


class Choice(msgspec.Struct, frozen=True):
    """One of its answers."""

    message: Message
    finish_reason: str | None = None
    """``stop`` if the model ended it, ``length`` if the allowed number of tokens did."""


class Completion(msgspec.Struct, frozen=True):
    """What we read of a response."""

    choices: list[Choice]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How hard to ask."""

    per_minute: float = 0.0
    """Requests, tries anew among them; 0 is no limit."""
    parallel: int = 8
    retries: int = 5
    timeout: float = 120.0
    """Seconds for one response."""
    backoff: float = 1.0
    """Seconds before the first try anew; twice as many before each further one, up to a minute."""


def address_of(endpoint: str, option: str = "--endpoint", variable: str = TOKEN) -> str:
    """Return the address to ask of an endpoint as people give it; UserError if it is none, or holds a secret."""
    try:
        parts = urlsplit(endpoint)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise UserError(f"{option} is {files.redact(endpoint)!r}, which is no address") from None
    if not valid:
        raise UserError(f"{option} is {files.redact(endpoint)!r}; it must be like https://host/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise UserError(
            f"{option} {files.redact(endpoint)!r} has more than an address; a token goes into the environment "
            f"variable {variable}"
        )
    path = parts.path.rstrip("/").removesuffix("/chat/completions") or "/v1"
    return f"{parts.scheme}://{parts.netloc}{path}/chat/completions"


def token(variable: str = TOKEN) -> str:
    """Return the token of the environment, empty if there is none; UserError if no header can hold it."""
    found = os.environ.get(variable, "").strip()
    if not (found.isascii() and found.isprintable()):
        raise UserError(f"the environment variable {variable} holds a character that no token has")
    return found


class Chat:
    """A conversation partner behind HTTP, for use as an async context."""

    def __init__(
        self, endpoint: str, model: str, limits: Limits, option: str = "--endpoint", variable: str = TOKEN
    ) -> None:
        """Ask `model` at `endpoint`, which `option` gave, with the token in the environment `variable`."""
        self.url, self.model, self.limits = address_of(endpoint, option, variable), model, limits
        self.option, self.variable = option, variable
        self.secret = token(variable)
        self.gate = asyncio.Lock()
        self.next = 0.0
        """The monotonic second before which nothing is sent."""
        self.sent = 0

    async def __aenter__(self) -> Chat:
        headers = {"Authorization": f"Bearer {self.secret}"} if self.secret else {}
        timeout = aiohttp.ClientTimeout(total=self.limits.timeout)
        self.session = aiohttp.ClientSession(headers=headers, timeout=timeout)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.session.close()

    def redact(self, text: str) -> str:
        """Return `text` without the token, which servers like to repeat."""
        return text.replace(self.secret, "***") if self.secret else text

    def shown(self, text: str) -> str:
        """Return the beginning of a response in one line, for a person."""
        return " ".join(self.redact(text).split())[:200] or "empty"

    async def turn(self) -> None:
        """Wait until the next request may go out."""
        async with self.gate:
            while (wait := self.next - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            if self.limits.per_minute > 0:
                self.next = time.monotonic() + 60 / self.limits.per_minute

    async def ask(self, messages: list[dict[str, str]]) -> str:
        """Return what the model says to `messages`; Unanswered if it says nothing, UserError if it never will."""
        return (await self.complete(messages)).message.content or ""

    async def complete(self, messages: Sequence[Mapping[str, Any]], **more: Any) -> Choice:
        """Return what the model says and why it ended; `more` are further fields of the request. Errors as `ask`."""
        body = msgspec.json.encode({"model": self.model, "temperature": 0, **more, "messages": messages})
        trouble = Unanswered("unreachable", "")
        for attempt in range(self.limits.retries + 1):
            await self.turn()
            self.sent += 1
            wait = 0.0
            try:
                status, headers, text = await self.post(body)
            except TimeoutError:
                trouble = Unanswered("timeout", f"no response within {self.limits.timeout:g} s")
            except (aiohttp.ClientError, OSError) as error:
                trouble = Unanswered("unreachable", self.shown(str(error) or type(error).__name__))
            else:
                if status == 200:
                    try:
                        return msgspec.json.decode(text, type=Completion).choices[0]
                    except (msgspec.MsgspecError, IndexError):
                        trouble = Unanswered("no_completion", self.shown(text))
                elif status in WRONG:
                    why = WRONG[status].format(option=self.option, variable=self.variable)
                    raise UserError(f"{self.url} answers {status} ({self.shown(text)}); {why}")
                elif status < 500 and status not in RETRIED:
                    raise Unanswered(f"http_{status}", self.shown(text))
                else:
                    trouble = Unanswered(f"http_{status}", self.shown(text))
                    wait = retry_after(headers.get("Retry-After", ""))
            if attempt < self.limits.retries:
                await self.hold(body, attempt, wait)
        raise trouble

    async def post(self, body: bytes) -> tuple[int, Any, str]:
        """Send one request; return status, headers and text. A redirect is not followed: it could take the token."""
        headers = {"Content-Type": "application/json"}
        async with self.session.post(self.url, data=body, headers=headers, allow_redirects=False) as response:
            data = bytearray()
            async for chunk in response.content.iter_chunked(1 << 16):
                data += chunk
                if len(data) > LARGEST:
                    break
            return response.status, response.headers, data.decode("utf-8", "replace")

    async def hold(self, body: bytes, attempt: int, wait: float) -> None:
        """Wait before a try anew; what the server asked for holds for every request."""
        if wait:
            self.next = max(self.next, time.monotonic() + wait)
            return
        # Requests that failed together must not come back together.
        spread = 0.75 + draw.number(body.decode(), attempt) / 2**65
        await asyncio.sleep(min(60.0, self.limits.backoff * 2**attempt) * spread)


def retry_after(header: str) -> float:
    """Return the seconds that a Retry-After header asks for, as a number or a date; 0 if it asks for none."""
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(header).timestamp() - time.time()
        except (ValueError, TypeError):
            return 0.0
    return min(max(seconds, 0.0), LONGEST_WAIT) if seconds == seconds else 0.0
