"""A small world to evaluate, its recipe, and a request that asks little of each example."""

from __future__ import annotations

from salmonn.evaluation.request import Request

WORLD = {
    ("librispeech", "test-clean"): [
        (4000 + 1500 * (clip * 7 % 11), ("asr", "gender_recognition")) for clip in range(11)
    ],
    ("librispeech", "test-other"): [(3000 + 900 * clip, ("asr",)) for clip in range(6)],
    ("audiocaps", "test"): [(9000, ("audio_caption",)), (31 * 16_000, ("audio_caption",))],
}
ROWS = """title = "small"
[[evaluate]]
task = "asr"
corpus = "librispeech"
splits = ["test-clean", "test-other"]
[[evaluate]]
task = "gender_recognition"
corpus = "librispeech"
splits = ["test-clean"]
[[evaluate]]
task = "audio_caption"
corpus = "audiocaps"
splits = ["test"]
"""
SMALL = Request(beams=1, max_new_tokens=5, batch_examples=3)
