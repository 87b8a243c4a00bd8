"""What became of a video: a status by name, and which words of yt-dlp mean which."""

from __future__ import annotations

import re

import msgspec

from manifests import files

ABOUT = {
    "ok": "its audio is in the folder of the corpus",
    "waiting": "not tried yet",
    "absent": "not among one's own copies",
    "private": "the uploader made it private",
    "removed": "taken down, or its account is gone",
    "age": "only for who proves an age; a cookies file may help",
    "geo": "not shown in this country",
    "members_only": "only for members or for money",
    "live": "a live stream, or one that has not begun",
    "unavailable": "the site says no more than that",
    "short": "it ends before the segment begins",
    "wrong_length": "a copy of one's own that is neither the segment nor long enough to hold it",
    "too_large": "more bytes than one video may have",
    "undecodable": "no decoder reads its audio",
    "malformed": "its id is no id of a video, or its segment is no span of time",
    "network": "the connection failed or broke off",
    "timeout": "not done before its deadline",
    "crashed": "the downloader died over it",
    "rate_limit": "the site asked for fewer requests",
    "bot_check": "the site asks for proof of a person; a cookies file may help",
    "forbidden": "the site refused the audio itself; yt-dlp may be too old",
    "format": "no audio that can be downloaded; yt-dlp may be too old, or lack the JavaScript runtime it needs",
    "failed": "anything else; its detail is in the journal",
}
"""Every status, and what it means to a person."""
NOW = frozenset({"network", "timeout", "crashed"})
"""Worth another try in the same run."""
SLOW_DOWN = frozenset({"rate_limit", "bot_check"})
"""Worth another try after a pause of all: the site counts requests by the address they come from."""
TRANSIENT = NOW | SLOW_DOWN | {"waiting", "absent", "forbidden", "format", "failed"}
"""Tried again by the next run."""
PERMANENT = frozenset(ABOUT) - TRANSIENT - {"ok"}
"""Tried again only when asked for."""

WORDS = (
    # The first that matches decides. Most are reasons that YouTube gives and yt-dlp passes on.
    ("rate_limit", r"rate.?limited|too many requests|isn't available, try again later"),
    ("bot_check", r"not a bot|captcha|unusual traffic"),
    ("age", r"confirm your age|age.restricted|inappropriate for some users|verify your age"),
    (
        "members_only",
        r"members.only|channel's members|join this channel|premium member|requires? payment|purchase|rental",
    ),
    ("private", r"private video|video is private|is now private"),
    ("geo", r"(available|blocked it|block) in your (country|location|region)|from your location|geo.?restrict"),
    ("removed", r"removed|terminated|no longer available|account .{0,40}closed|copyright|does not exist|deleted"),
    ("live", r"live event|live stream|premieres? in|is not currently live|is live\b"),
    ("too_large", r"larger than max.filesize"),
    ("format", r"\bdrm\b|requested format|no video formats|unsupported url|images are available|unusual and will be"),
    ("timeout", r"timed out|timeout"),
    (
        "network",
        r"unable to (connect|resolve)|resolution|bytes read|giving up after|unreachable|remote end closed|"
        r"connection (reset|refused|aborted)",
    ),
    ("unavailable", r"unavailable|not available|isn't available"),
)
KINDS = {
    "TimeoutError": "timeout",
    "GeoRestrictedError": "geo",
    "UserNotLive": "live",
    "UnsupportedError": "format",
    "_UnsafeExtensionError": "format",
    "ContentTooShortError": "network",
    "TransportError": "network",
    "ConnectionError": "network",
    "CookieLoadError": "failed",
}
"""Classes of errors, with those they are made from, and what they say by themselves."""
CODES = {
    401: "forbidden",
    403: "forbidden",
    404: "removed",
    408: "timeout",
    410: "removed",
    429: "rate_limit",
    451: "geo",
}
PREFIX = re.compile(r"^error: *(\[[^]]+\] *)?([a-z0-9_-]{11}: )?")
"""What yt-dlp puts before a reason. An id may spell anything."""
ADDRESS = re.compile(r"https?://\S+")
UNPRINTED = re.compile(r"\x1b\[[0-9;]*m|[\x00-\x1f\x7f]+")


class Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """An error of yt-dlp as its process tells it."""

    kinds: tuple[str, ...]
    """The classes of the error and of what caused it, outermost first, each with those it is made from."""
    message: str = ""
    code: int = 0
    """The status of the response over HTTP, if there was one."""


def classify(trouble: Trouble) -> str:
    """Return the status that an error means."""
    for kind in ("GeoRestrictedError", "UserNotLive"):
        if kind in trouble.kinds:
            return KINDS[kind]
    text = PREFIX.sub("", trouble.message.lower()).replace("\u2019", "'")
    said = next((status for status, words in WORDS if re.search(words, text)), "")
    # The words of a page beat the code it came with, but for words as vague as "unavailable": 503 has them too.
    if said and said not in ("unavailable", "network", "timeout"):
        return said
    if trouble.code:
        return CODES.get(trouble.code, "network" if trouble.code >= 500 else said or "failed")
    return said or next((KINDS[kind] for kind in trouble.kinds if kind in KINDS), "failed")


def tidy(message: str, *secrets: str) -> str:
    """Return a message fit for a log: a line of 200 characters at most, without query strings and `secrets`."""
    for secret in filter(None, secrets):
        message = message.replace(secret, "...")
    message = ADDRESS.sub(lambda found: files.redact(found[0]), message)
    return " ".join(UNPRINTED.sub(" ", message).split())[:200]
