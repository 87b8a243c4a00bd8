"""Refusals: the caps that source audio is held to, and a code for each thing that can be wrong with it."""

from __future__ import annotations

MAX_SECONDS = 3 * 3600.0
MAX_CHANNELS = 16
MIN_RATE, MAX_RATE = 4_000, 192_000

REASONS = {
    "audio_missing": "the file was there at the scan and is gone",
    "zero_length": "the file has no bytes",
    "not_audio": "no decoder recognizes the file",
    "truncated": "the file ends before its header says",
    "corrupt": "the decoder met damaged data",
    "md5_mismatch": "the samples are not those the FLAC header signed",
    "no_samples": "the file or the span holds no audio",
    "too_long": f"longer than {MAX_SECONDS / 3600:.0f} hours, or its header lies",
    "channels": f"more than {MAX_CHANNELS} channels, or not the channel the clip names",
    "sample_rate": f"sample rate outside {MIN_RATE} to {MAX_RATE} Hz",
    "speech_failed": "the voice could not speak the text",
    "not_finite": "samples that are not numbers",
}

STORIES = {
    "empty_story": "the model wrote no word",
    "garbled_story": "bytes that are no text stand in what the model wrote",
    "unfinished_story": "the model was cut off before its first sentence ended",
    "repeated_story": "the model said the same over and over",
    "same_story": "the model had told the same story of another clip",
}
"""Of a clip whose audio is good, but a model that was to tell a story about it told none."""


class Refused(Exception):
    """Audio that cannot be packed: `reason` is a code of REASONS, `detail` is for the reader."""

    def __init__(self, reason: str, detail: str) -> None:
        assert reason in REASONS, reason
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def hold(name: str, rate: int, channels: int, frames: int | None = None) -> None:
    """Hold what a decoder says of the file `name` against the caps; `frames` None means that it does not know."""
    if not MIN_RATE <= rate <= MAX_RATE:
        raise Refused("sample_rate", f"{name}: {rate} Hz")
    if not 1 <= channels <= MAX_CHANNELS:
        raise Refused("channels", f"{name}: {channels} channels")
    if frames is not None and frames > MAX_SECONDS * rate:
        raise Refused("too_long", f"{name}: {frames} frames at {rate} Hz")
