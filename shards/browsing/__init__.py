"""Browsing: a dataset as a page on this machine, to filter, to search and to listen to."""

from __future__ import annotations

import importlib.util

from manifests.errors import UserError


def serve(url: str, port: int, show: bool = False) -> None:
    """Show the page of the dataset at `url` until SIGINT or SIGTERM; UserError for what is missing."""
    if importlib.util.find_spec("aiohttp") is None:
        raise UserError("the page needs aiohttp, which is not installed: pip install -e '.[serve]'")
    from shards.browsing.server import serve as run

    run(url, port, show)
