"""The end of a dataset: README.md, then dataset.json, whose existence says that all the rest is there."""

from __future__ import annotations

import msgspec

from manifests import files
from shards.card import card
from shards.index import Manifest


def publish(url: str, manifest: Manifest) -> Manifest:
    """Write README.md and then dataset.json of the dataset at `url`; all that they name must be there."""
    files.write_whole(files.join(url, "README.md"), card(manifest).encode())
    files.write_whole(
        files.join(url, "dataset.json"), msgspec.json.format(msgspec.json.encode(manifest, order="sorted"))
    )
    return manifest
