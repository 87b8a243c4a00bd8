"""The facts of a sample in words: what `salmonn peek` prints and the page shows beside its sound."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from manifests.console import size

CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What a terminal obeys rather than shows: control characters, and those that turn the direction of writing."""
UNTOLD = "cannot be told"

Facts = tuple[tuple[str, str], ...]
"""Names and what is said of them."""


def visible(text: str) -> str:
    """Return `text` with all that a terminal would obey written out, so that no text from data does anything there."""
    return CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def facts_of(row: dict[str, Any]) -> Facts:
    """Return the facts of a row of the index: who, where from, under which licence, where it is stored."""
    sources = ", ".join(row.get("sources") or ())
    made = f"{ACTIONS.get(row['action'], row['action'])} {sources}".strip()
    offset, length = row["flac_offset"], row["flac_bytes"]
    told = (
        ("id", row["id"]),
        ("from", f"{row['corpus']}, {row['split']}"),
        ("length", f"{row['seconds']:.3f} s, {row['samples']:,} samples at 16 kHz"),
        ("speaker", row["speaker"]),
        ("gender", row["gender"]),
        ("language", row["language"]),
        ("licence", row["license"]),
        ("made", f"{made} ({row['source_rate']:,} Hz, {size(row['source_bytes'])})"),
        ("provenance", row["provenance"]),
        ("stored", f"{row['shard']}, bytes {offset:,} to {offset + length - 1:,} ({size(length)})"),
        ("MD5 of samples", row["pcm_md5"]),
    )
    return tuple((name, str(value)) for name, value in told if value)


ACTIONS = {"copy": "copied, byte for byte, from", "transcode": "converted from", "render": "rendered from"}


def quality_of(row: dict[str, Any]) -> Facts:
    """Return what was measured of a sample when it was packed, in words; empty if the index has none of it."""
    told = []
    for name, speak in SPOKEN.items():
        value = row.get(name)
        if value is not None:
            told.append((NAMES[name], UNTOLD if math.isnan(value) else speak(value)))
    if row.get("all_zero"):
        told.append(("sound", "none: every sample is zero"))
    return tuple(told)


def share(value: float) -> str:
    """Return a share in percent, with as many digits as small ones need."""
    percent = 100 * value
    return f"{percent:.0f}%" if percent >= 10 or percent == 0 else f"{percent:.2g}%"


def clipped(value: float) -> str:
    """Say how much of a sound is cut off at the ends of the scale."""
    return f"{share(value)} of the samples" if value else "nowhere"


def full(value: float) -> str:
    """Say how near a peak comes to full scale."""
    return f"{value:.3f} of full scale" + (f" ({20 * math.log10(value):.1f} dB)" if value > 0 else "")


SPOKEN: dict[str, Callable[[float], str]] = {
    "peak": full,
    "clipped": clipped,
    "lufs": lambda value: f"{value:.1f} LUFS",
    "rms_dbfs": lambda value: f"{value:.1f} dB of full scale",
    "silence": lambda value: f"{share(value)} of the time",
    "leading_silence": lambda value: f"{value:.2f} s",
    "trailing_silence": lambda value: f"{value:.2f} s",
    "snr_db": lambda value: f"{value:.0f} dB over its own floor",
    "bandwidth_hz": lambda value: f"sounds up to {value / 1000:.1f} kHz of 8",
    "dc": lambda value: f"{value:+.4f} of full scale" if abs(value) >= 0.00005 else "none",
}
NAMES = {
    "peak": "peak",
    "clipped": "clipped",
    "lufs": "loudness",
    "rms_dbfs": "RMS level",
    "silence": "silent",
    "leading_silence": "silence before",
    "trailing_silence": "silence behind",
    "snr_db": "signal",
    "bandwidth_hz": "bandwidth",
    "dc": "DC offset",
}


def instructions_of(row: dict[str, Any]) -> list[tuple[str, str, list[str]]]:
    """Return task, prompt and answers of every instruction of a row of the index."""
    return list(zip(row["tasks"], row["prompts"], row["answers"], strict=True))
