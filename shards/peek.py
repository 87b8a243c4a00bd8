"""The command peek: one sample on a terminal, its facts, its sound as a line of bars, what is asked and answered."""

from __future__ import annotations

import io
import shutil
import subprocess
import tempfile
import wave
from pathlib import Path
from typing import Any

import numpy as np

from manifests import Failed, UserError, files
from manifests.console import console
from manifests.tables import open_parquet
from shards.audio import PCM
from shards.browsing.facts import Facts, facts_of, instructions_of, quality_of, visible
from shards.browsing.sounds import flac_of, pcm_of, stored
from shards.flac import RATE
from shards.index import Dataset

BARS = " \u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"
PLAIN = " .:-=+*#"
"""For terminals that show ASCII alone."""
INDENT, NARROWEST, WIDEST = 2, 10, 120
"""Columns of a line of bars."""
PLAYERS = (
    ("ffplay", "-nodisp", "-autoexit", "-hide_banner", "-loglevel", "error"),
    ("paplay",),
    ("aplay", "-q"),
    ("afplay",),
)
"""Programs that play a WAV file, those first that find a device by themselves."""


def peek(url: str, key: str, audio: Path | None = None, wav: Path | None = None, play: bool = False) -> None:
    """Print a sample, or the first of each split; write its FLAC or a WAV, or play it, if asked."""
    dataset = Dataset(url)
    if not key:
        for option, given in (("--audio", audio), ("--wav", wav), ("--play", play)):
            if given:
                raise UserError(f"{option} needs the KEY of a sample; salmonn peek without one shows some")
        for source in dataset.manifest.sources:
            for row in first_row(dataset, source.corpus, source.split):
                show_row(row, heard(dataset, row))
                said("")
        return
    row = dataset.row(key)
    pcm = heard(dataset, row)
    show_row(row, pcm)
    if audio:
        files.write_whole(str(audio), flac_of(stored(dataset.url, row)))
        said(f"wrote {audio}")
    if wav or play:
        # Whoever wants the sound itself is told what is wrong with it.
        pcm = pcm_of(dataset.url, row)
    if wav and pcm is not None:
        files.write_whole(str(wav), to_wav(pcm))
        said(f"wrote {wav}")
    if play and pcm is not None:
        play_sound(to_wav(pcm))


def first_row(dataset: Dataset, corpus: str, split: str) -> list[dict[str, Any]]:
    """Return the first row of the index of a split, if it has one, without those that follow: there may be millions."""
    dataset.table(corpus, split, [])
    with open_parquet(files.join(dataset.url, dataset.source(corpus, split).index.path)) as parquet:
        batch = next(parquet.iter_batches(batch_size=1, use_threads=False), None)
    return [] if batch is None else list(batch.to_pylist())


def heard(dataset: Dataset, row: dict[str, Any]) -> PCM | None:
    """Return the samples of a row; None if they cannot be read, for its facts can be shown all the same."""
    try:
        return pcm_of(dataset.url, row)
    except Failed as failure:
        said(f"{failure}")
        return None


def show_row(row: dict[str, Any], pcm: PCM | None) -> None:
    """Print one row of the index, and the shape of its sound."""
    said(row["key"], style="bold")
    show_facts(facts_of(row))
    if pcm is not None:
        width = min(max(console.width - INDENT, NARROWEST), WIDEST)
        said(" " * INDENT + bars(pcm, width, plain=console.options.ascii_only))
    show_facts(quality_of(row))
    if row["text"]:
        show_facts((("text", row["text"]),))
    for task, prompt, answers in instructions_of(row):
        said(f"  {visible(task)}", style="bold")
        show_facts((("  prompt", prompt), *(("  answer", answer) for answer in answers)))


def show_facts(facts: Facts) -> None:
    """Print names and what is said of them, below one another."""
    for name, text in facts:
        said(f"  {name:<15}  {text}")


def said(text: str, style: str | None = None) -> None:
    """Print a line in which no text from data means anything to rich or to the terminal."""
    console.print(visible(text), style=style, markup=False, soft_wrap=True)


def bars(pcm: PCM, width: int, plain: bool = False) -> str:
    """Return the loudness of a sound over time as `width` bars: the RMS of each stretch, the loudest a full one."""
    marks = PLAIN if plain else BARS
    if not len(pcm):
        return marks[0] * width
    edges = np.linspace(0, len(pcm), width + 1)
    starts = np.minimum(edges[:-1].astype(np.int64), len(pcm) - 1)
    counts = np.maximum(edges[1:].astype(np.int64) - starts, 1)
    sums = np.concatenate([[0.0], np.cumsum(pcm.astype(np.float64) ** 2)])
    level = np.sqrt((sums[np.minimum(starts + counts, len(pcm))] - sums[starts]) / counts)
    loudest = level.max()
    # Whatever sounds at all is told from silence.
    steps = np.ceil(level / loudest * (len(marks) - 1)).astype(int) if loudest else np.zeros(width, int)
    return "".join(marks[step] for step in steps)


def to_wav(pcm: PCM) -> bytes:
    """Return samples as a WAV file: 16 kHz, mono, 16 bits."""
    sink = io.BytesIO()
    with wave.open(sink, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(np.ascontiguousarray(pcm, "<i2").tobytes())
    return sink.getvalue()


def play_sound(content: bytes) -> None:
    """Play a WAV file with the first program that can; UserError if there is none, Failed if none of them could."""
    found = [(path, *command) for command in PLAYERS if (path := shutil.which(command[0]))]
    if not found:
        names = ", ".join(command[0] for command in PLAYERS)
        raise UserError(f"nothing here plays sounds: none of {names} is on the PATH; --wav out.wav writes the sound")
    complaints = []
    with tempfile.NamedTemporaryFile(prefix="salmonn-", suffix=".wav") as file:
        file.write(content)
        file.flush()
        for path, name, *options in found:
            done = subprocess.run([path, *options, file.name], stdin=subprocess.DEVNULL, capture_output=True, text=True)
            # ffplay ends well where there is no device, and only says so.
            if done.returncode == 0 and not (name == "ffplay" and done.stderr.strip()):
                return
            words = (done.stderr or done.stdout).split()
            complaints.append(f"{name}: {' '.join(words)[:200] or f'exit code {done.returncode}'}")
    raise Failed(f"cannot play the sound ({visible('; '.join(complaints))}); --wav out.wav writes it")
