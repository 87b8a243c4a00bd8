"""The end of a dataset: its papers, then dataset.json, whose existence says that all the rest is there."""

from __future__ import annotations

import msgspec

from manifests import files
from shards.attribution import attribution
from shards.card import card
from shards.croissant import croissant
from shards.index import Manifest
from shards.papers import gather

PAPERS = ("README.md", "ATTRIBUTION.md", "croissant.json")
"""The files that tell of a dataset, made of its manifest and its index alone."""


def publish(url: str, manifest: Manifest) -> Manifest:
    """Write the papers and then dataset.json of the dataset at `url`; all that they name must be there."""
    told = gather(url, manifest)
    made = (card(told).encode(), attribution(told).encode(), croissant(told))
    for name, content in zip(PAPERS, made, strict=True):
        files.write_whole(files.join(url, name), content)
    files.write_whole(files.join(url, "dataset.json"), encoded(manifest))
    return manifest


def encoded(manifest: Manifest) -> bytes:
    """Return the content of dataset.json."""
    return msgspec.json.format(msgspec.json.encode(manifest, order="sorted"))
