"""The bytes: audio, samples, shards, the index, the order they are dealt in, the stream, the audit."""

from shards.index import Dataset
from shards.stream import Batch, Example, Stream

__all__ = ["Batch", "Dataset", "Example", "Stream"]
