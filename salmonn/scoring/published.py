"""The numbers that the paper publishes, to stand beside ours (SALMONN, ICLR 2024, Table 3).

Each is as the paper prints it: error rates, METEOR, SPIDEr, BLEU and ROUGE-L times a hundred, accuracies and following
rates as shares. "without" and "with" are SALMONN before and after activation tuning.
"""

from __future__ import annotations

import msgspec


class Published(msgspec.Struct, frozen=True):
    """One row of the paper: a score of a task on a test set."""

    task: str
    corpus: str
    split: str
    score: str
    without: float | None
    with_: float | None
    reference: float | None = None
    """What the paper holds it against."""
    by: str = ""
    """Whose that reference is."""
    digits: int = 1
    note: str = ""


WHISPER_VICUNA = "Whisper and Vicuna"
PUBLISHED = (
    Published("asr", "librispeech", "test-clean", "WER", 2.1, 2.1, 2.2, "Whisper"),
    Published("asr", "librispeech", "test-other", "WER", 4.9, 4.9, 5.1, "Whisper"),
    Published("asr", "gigaspeech", "test", "WER", 9.1, 10.0, 9.2, "Whisper"),
    Published("translation_en_zh", "covost2", "test", "BLEU4", 34.4, 33.1, 38.9, "Wang et al., 2021"),
    Published("audio_caption", "audiocaps", "test", "METEOR", 25.6, 24.0, 25.0, "WavCaps"),
    Published("audio_caption", "audiocaps", "test", "SPIDEr", 47.6, 40.3, 48.5, "WavCaps"),
    Published("phone_recognition", "librispeech", "test-clean", "PER", 4.2, 4.2, 3.1, "WavLM"),
    Published("emotion_recognition", "iemocap", "test", "accuracy", 0.63, 0.69, 0.81, "", 2),
    Published("music_caption", "musiccaps", "eval", "BLEU4", 3.5, 5.5, 6.1),
    Published("music_caption", "musiccaps", "eval", "ROUGE-L", 22.1, 21.8, 21.5),
    Published("overlapped_speech_recognition", "librimix", "libri2mix-test", "cpWER", 20.7, 23.0, 7.6),
    Published(
        *("speaker_verification", "voxceleb1", "verification-test", "accuracy", 0.93, 0.94, None, "", 2),
        "the paper does not name its list of trials; ours is that of VoxCeleb1",
    ),
    Published("translation_en_de", "covost2", "test", "BLEU4", 19.7, 18.6, 16.5),
    Published("translation_en_ja", "covost2", "test", "BLEU4", 22.0, 22.7, 15.6),
    Published("keyword_extraction", "inspec", "test", "accuracy", 0.30, 0.32, 0.31, "", 2),
    Published(
        "spoken_query_qa", "wikiqa", "test", "accuracy", 0.19, 0.41, 0.77, WHISPER_VICUNA, 2, "judged by GPT-3.5"
    ),
    Published("spoken_query_qa", "wikiqa", "test", "following rate", 0.29, 0.98, 1.00, WHISPER_VICUNA, 2),
    Published("slot_filling", "slurp", "test", "accuracy", 0.33, 0.41, 0.46, WHISPER_VICUNA, 2),
    Published("slot_filling", "slurp", "test", "following rate", 0.77, 0.99, 1.00, WHISPER_VICUNA, 2),
    Published("audio_story", "audiocaps", "test", "diversity", 7.77, 82.57, None, "", 2),
    Published("audio_story", "audiocaps", "test", "following rate", 0.00, 1.00, None, "", 2),
    Published(
        "audio_story", "audiocaps", "test", "repeat rate", 0.002, 0.001, None, "", 3, "the paper does not define it"
    ),
    Published(
        *("speech_audio_coreasoning", "coreasoning", "test", "accuracy", 0.02, 0.50, None, "", 2),
        "of the paper's own recordings, which are not public, judged by GPT-3.5; ours are made anew",
    ),
    Published(
        "speech_audio_coreasoning",
        "coreasoning",
        "test",
        "following rate",
        0.04,
        0.73,
        None,
        "",
        2,
        "as of its accuracy",
    ),
)


def published(task: str, corpus: str, split: str, score: str) -> Published | None:
    """Return the paper's row for a score on a test set, or None if it has none."""
    asked = (task, corpus, split, score)
    return next((row for row in PUBLISHED if (row.task, row.corpus, row.split, row.score) == asked), None)
