"""The Hub for who writes to it: its library, the token, patience, and what its errors mean to a person."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from manifests import Failed, UserError, files
from pipelines.fetching.hosts import Forbidden, untrusted
from pipelines.fetching.hub_client import ENDPOINT, TRUE, code_of, endpoint, guard
from pipelines.pushing.checks import EXTRA

Result = TypeVar("Result")

WAITS = (1.0, 4.0, 16.0, 60.0)
"""Seconds before the second try of a request, and before those after it."""
LONGEST_WAIT = 330.0
"""Seconds that the Hub is taken at its word when it says how long to wait: its windows are of five minutes."""
REPO = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?/[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")


def check_repo(repo: str) -> None:
    """Raise UserError unless a repository can have this name."""
    if not REPO.fullmatch(repo) or "--" in repo or ".." in repo:
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", repo.rpartition("/")[2]).strip("-.") or "my-dataset"
        raise UserError(f"a dataset on the Hub cannot be called {repo!r}; it is ACCOUNT/NAME, as in my-account/{name}")


def page_of(repo: str) -> str:
    """Return the address of a dataset on the Hub."""
    return f"{files.redact(endpoint())}/datasets/{repo}"


def find_token(library: Any) -> str:
    """Return the token of the environment, or that of the login saved on this machine; UserError if there is none."""
    found = (library.get_token() or "").strip()
    if not found:
        raise UserError(
            f"pushing takes a token of your account that may write: make one at {ENDPOINT}/settings/tokens, and set "
            "HF_TOKEN to it, or log in with `hf auth login`"
        )
    if not (found.isascii() and found.isprintable()) or " " in found:
        raise UserError("the token of the Hub (HF_TOKEN, or the saved login) holds a character that no token has")
    return found


def check_token() -> None:
    """Raise UserError unless there is a library to push with and a token: found out before the work, not after it."""
    find_token(load_library())


def load_library() -> Any:
    """Return huggingface_hub; UserError if it is not installed."""
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError:
        raise UserError(f"push needs huggingface_hub, {EXTRA}") from None


def insistently(ask: Callable[[], Result]) -> Result:
    """Ask, and again after a while where the trouble may pass; as long after as the Hub says, if it does."""
    errors = importlib.import_module("huggingface_hub.errors")
    for wait in (*WAITS, None):
        try:
            return ask()
        except errors.OfflineModeIsEnabled:
            raise
        except (errors.HTTPError, RuntimeError) as error:
            # Where it sends several files at a time, the library wraps what went wrong with one.
            cause = error if isinstance(error, errors.HTTPError) else error.__cause__
            if not isinstance(cause, errors.HTTPError):
                raise
            code = code_of(cause)
            if wait is None or untrusted(cause) or (code and code < 500 and code not in (408, 429)):
                raise cause from None
            time.sleep(max(wait, told_to_wait(cause)))
    raise AssertionError


def told_to_wait(error: BaseException) -> float:
    """Return the seconds after which the Hub says to ask again, 0 if it says nothing."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    window = importlib.import_module("huggingface_hub.utils").parse_ratelimit_headers(headers)
    after = str(headers.get("retry-after", ""))
    told = float(after) if after.isdecimal() else 0.0
    if window is not None and window.remaining == 0:
        told = max(told, float(window.reset_in_seconds))
    return min(told, LONGEST_WAIT)


@contextlib.contextmanager
def writing(repo: str) -> Iterator[tuple[Any, Any]]:
    """Give huggingface_hub and its API with the user's token; what goes wrong becomes one sentence without secrets."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in TRUE:
        raise UserError("HF_HUB_OFFLINE is set, so nothing can be pushed; unset it")
    library = load_library()
    errors, utils = (importlib.import_module(f"huggingface_hub.{name}") for name in ("errors", "utils"))
    guard()
    utils.disable_progress_bars()
    # Its warnings tell addresses whole, and those of storage are signed.
    utils.logging.set_verbosity_error()
    where, tokens = files.redact(endpoint()), f"{ENDPOINT}/settings/tokens"
    try:
        yield library, library.HfApi(endpoint=endpoint(), token=find_token(library))
    except errors.OfflineModeIsEnabled:
        raise UserError("the Hub is switched off for this process (HF_HUB_OFFLINE); unset it and start anew") from None
    except errors.RevisionNotFoundError:
        raise UserError(f"{repo} at {where} has no such --revision, and it could not be made") from None
    except errors.BadRequestError as error:
        raise UserError(f"{where} does not take {repo} as it is (400): {server_words(error)}") from None
    except errors.HTTPError as error:
        code = code_of(error)
        if why := untrusted(error):
            raise Failed(f"{where} {why}") from None
        if code == 401 or isinstance(error, errors.RepositoryNotFoundError):
            raise UserError(
                f"{where} refuses the token for {repo} ({code}): is it whole, is it still valid, and does the account "
                f"exist? {tokens} lists yours"
            ) from None
        if code == 403:
            raise UserError(
                f"{where} does not let this token write to {repo} (403): it takes one that may write there, made at "
                f"{tokens}, or an account of your own"
            ) from None
        told = "asks to wait (429)" if code == 429 else f"answers {code}" if code else "cannot be reached"
        raise Failed(f"{where} {told}; run it again, it goes on from here") from None
    except Forbidden as error:
        raise UserError(f"{where} leads elsewhere for {repo}, and {error}") from None
    except OSError as error:
        raise Failed(f"{repo}: {error.strerror or 'it was cut off'}; run it again, it goes on from here") from None
    except (UserError, Failed):
        raise
    except (KeyError, json.JSONDecodeError):
        raise Failed(f"{where} does not answer as the Hub does; is HF_ENDPOINT right?") from None
    except ValueError as error:
        # What the library finds wrong by itself, or the Hub with the head of the card.
        raise UserError(f"{where} does not take {repo} as it is: {' '.join(str(error).split())[:300]}") from None
    except RuntimeError as error:
        raise Failed(
            f"{repo}: the upload was cut off ({type(error).__name__}); run it again, it goes on from here"
        ) from None


def server_words(error: Any) -> str:
    """Return what the Hub says is wrong with a request, in one line."""
    told = " ".join(str(getattr(error, "server_message", None) or "it says no more").split())
    return told[:300]
