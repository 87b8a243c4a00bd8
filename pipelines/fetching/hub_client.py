"""How we speak to the Hugging Face Hub: its library, the token, patience, and what its errors mean to a person."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Literal, TypeVar
from urllib.parse import urlsplit

from manifests import Failed, UserError, files
from pipelines.fetching.hosts import Forbidden, Unreachable, check, trust, untrusted

Result = TypeVar("Result")

ENDPOINT = "https://huggingface.co"
WAITS = (1.0, 4.0, 16.0)
"""Seconds before the second try of a request, and before those after it."""
TRUE = ("1", "ON", "YES", "TRUE")
"""What huggingface_hub takes for yes in HF_HUB_OFFLINE."""
EXTRA = "huggingface_hub, which is not installed here: pip install huggingface_hub"


def endpoint() -> str:
    """Return the address of the Hub, or of what stands for it by HF_ENDPOINT."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or ENDPOINT


def find_token() -> str | Literal[False]:
    """Return the token of the environment; UserError if no header can hold it.

    False means none at all, not that of some login on this machine, of which nobody would know.
    """
    found = os.environ.get("HF_TOKEN", "").strip()
    if not (found.isascii() and found.isprintable()) or " " in found:
        raise UserError("the environment variable HF_TOKEN holds a character that no token has")
    return found or False


def download(library: Any, token: str | bool, url: str, digest: str, size: int, sink: BinaryIO) -> None:
    """Append to `sink` what it lacks of the file at `url`, which has `size` bytes and the name `digest` on the Hub."""
    utils, file_download = importlib.import_module("huggingface_hub.utils"), library.file_download
    utils.disable_progress_bars()
    # Its warnings tell addresses whole, and those of storage are signed.
    utils.logging.set_verbosity_error()
    headers = utils.build_hf_headers(token=token)
    about = library.get_hf_file_metadata(url, token=token, endpoint=endpoint())
    if about.etag != digest:
        raise Failed(f"{files.redact(url)}: the Hub offers {about.etag}, where its list has {digest}; try again")
    here, there = urlsplit(url), urlsplit(about.location)
    if there.scheme not in ("https", here.scheme):
        raise Failed(f"{files.redact(url)}: the Hub leads to {files.redact(about.location)!r}, which is not https")
    if (there.scheme, there.netloc) != (here.scheme, here.netloc):
        headers.pop("authorization", None)
    # hf_hub_download begins anew whenever a process died: this is what it calls to fetch, from where we are.
    done = os.fstat(sink.fileno()).st_size
    if done < size:
        file_download.http_get(about.location, sink, resume_size=done, headers=headers, expected_size=size)


def patiently(ask: Callable[[], Result]) -> Result:
    """Ask, and again after a while where the trouble may pass: no connection, too many requests, a server's error."""
    errors = importlib.import_module("huggingface_hub.errors")
    for wait in (*WAITS, None):
        try:
            return ask()
        except errors.OfflineModeIsEnabled:
            raise
        except errors.HTTPError as error:
            code = code_of(error)
            if wait is None or untrusted(error) or (code and code < 500 and code not in (408, 429)):
                raise
            time.sleep(wait)
    raise AssertionError


@functools.cache
def guard() -> None:
    """Let the library's client check every address that a redirect names, and trust the certificates that we do."""
    library, utils = importlib.import_module("huggingface_hub"), importlib.import_module("huggingface_hub.utils")
    usual = utils.get_session()
    hooks = {**usual.event_hooks, "request": [*usual.event_hooks["request"], look]}
    kind, settings = type(usual), {"follow_redirects": True, "timeout": None}
    library.set_client_factory(lambda: kind(event_hooks=hooks, verify=trust(), **settings))


def look(request: Any) -> None:
    """Raise Forbidden if the Hub sends us where nothing may be fetched from."""
    here, there = urlsplit(endpoint()), urlsplit(str(request.url))
    if (here.scheme, here.hostname, here.port) != (there.scheme, there.hostname, there.port):
        with contextlib.suppress(Unreachable):
            check(str(request.url), is_private(endpoint()))


@functools.cache
def is_private(address: str) -> bool:
    """Whether the user's own Hub is at a private address: then its storage may be, too."""
    try:
        check(address)
    except Forbidden:
        return True
    except Unreachable:
        return False
    return False


def code_of(error: BaseException) -> int:
    """Return the status of the response that an error is about, 0 if there was none."""
    return int(getattr(getattr(error, "response", None), "status_code", 0))


@contextlib.contextmanager
def hub(repo: str) -> Iterator[tuple[Any, str | bool]]:
    """Give huggingface_hub and the token of the environment; what goes wrong becomes one sentence without secrets."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in TRUE:
        raise UserError("HF_HUB_OFFLINE is set, so the Hub is not asked; unset it to fetch")
    try:
        library = importlib.import_module("huggingface_hub")
        errors = importlib.import_module("huggingface_hub.errors")
    except ImportError:
        raise UserError(f"corpora of the Hub need {EXTRA}") from None
    guard()
    token = find_token()
    where, page = files.redact(endpoint()), f"{ENDPOINT}/datasets/{repo}"
    have = "the token in HF_TOKEN" if token else "no token (HF_TOKEN is not set)"
    try:
        yield library, token
    except errors.OfflineModeIsEnabled:
        raise UserError("the Hub is switched off for this process (HF_HUB_OFFLINE); unset it and start anew") from None
    except errors.GatedRepoError:
        raise UserError(
            f"{repo} is gated, and {have} does not open it: accept its terms at {page} with your account, then set "
            f"HF_TOKEN to a token of that account that may read ({ENDPOINT}/settings/tokens)"
        ) from None
    except errors.RevisionNotFoundError:
        raise UserError(f"{repo} at {where} has no such revision; leave it out for the newest") from None
    except errors.RepositoryNotFoundError:
        raise UserError(
            f"{where} shows no dataset {repo} to {have}; is HF_ENDPOINT right, and the token valid?"
        ) from None
    except errors.HTTPError as error:
        code = code_of(error)
        if why := untrusted(error):
            raise Failed(f"{where} {why}") from None
        if code in (401, 403):
            raise UserError(
                f"{where} refuses {have} ({code}) for {repo}; make one that may read at {ENDPOINT}/settings/tokens"
            ) from None
        told = f"answers {code}" if code else "cannot be reached"
        raise Failed(f"{where} {told}; run it again, it goes on from here") from None
    except Forbidden as error:
        raise UserError(f"{where} leads elsewhere for a file of {repo}, and {error}") from None
    except errors.FileMetadataError:
        raise Failed(f"{where} does not answer as the Hub does; is HF_ENDPOINT right?") from None
    except OSError as error:
        # Also what the library raises when a file has another length than was told.
        raise Failed(f"{repo}: {error.strerror or 'what came has the wrong length'}; run it again") from None
