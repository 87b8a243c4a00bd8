"""The programs in Java that captions are scored with, from the jars that pycocoevalcap brings: PTB, METEOR, SPICE.

pycocoevalcap starts them too, but it writes into its own folder, reads by the machine's character set, waits for ever,
and fetches what SPICE lacks from the network. Here nothing is fetched, everything is UTF-8 and has an end, and what
cannot be done is said: `JavaMissing` holds the sentence for the table.
"""

from __future__ import annotations

import functools
import json
import math
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from salmonn.scoring.bootstrap import Floats
from salmonn.scoring.libraries import library

TIMEOUT = 1800.0
"""Seconds that one program may take; METEOR takes about ten for the thousand clips of AudioCaps."""
PTB_JAR = "tokenizer/stanford-corenlp-3.4.1.jar"
METEOR_JAR = "meteor/meteor-1.5.jar"
SPICE_JAR = "spice/spice-1.0.jar"
SPICE_PARTS = ("spice/lib/stanford-corenlp-3.6.0.jar", "spice/lib/stanford-corenlp-3.6.0-models.jar")


class JavaMissing(Exception):
    """A program that cannot run here; the text says what is missing, for the table."""


@functools.cache
def folder() -> Path:
    """Return the folder of pycocoevalcap, which holds the jars."""
    return Path(next(iter(library("pycocoevalcap").__path__)))


def java() -> str:
    """Return the path of Java; JavaMissing if there is none."""
    found = shutil.which("java")
    if found is None:
        raise JavaMissing("needs Java 17, which is not on this machine")
    return found


def run(name: str, arguments: Sequence[str], said: str = "", within: str | Path | None = None) -> str:
    """Return what a Java program writes; JavaMissing if it fails or takes too long."""
    command = [java(), "-Dfile.encoding=UTF-8", *arguments]
    try:
        done = subprocess.run(command, input=said.encode(), capture_output=True, timeout=TIMEOUT, cwd=within)
    except subprocess.TimeoutExpired:
        raise JavaMissing(f"{name} took more than {TIMEOUT:.0f} s") from None
    except OSError as error:
        raise JavaMissing(f"{name} could not be started: {error.strerror}") from None
    if done.returncode:
        why = " ".join(done.stderr.decode(errors="replace").split())[-200:]
        raise JavaMissing(f"{name} failed, with Java's exit code {done.returncode}: {why}")
    return done.stdout.decode("utf-8", errors="replace")


def ptb(texts: Sequence[str]) -> list[str]:
    """Return texts in tokens of the Penn Treebank, in lower case and without punctuation, as the COCO captions are."""
    punctuation = set(library("pycocoevalcap.tokenizer.ptbtokenizer").PUNCTUATIONS)
    lines = [" ".join(text.split()) for text in texts]
    arguments = ("edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase", "-encoding", "UTF-8")
    # A line behind the last keeps an empty last one from being lost.
    told = run("PTBTokenizer", ["-cp", str(folder() / PTB_JAR), *arguments], "\n".join([*lines, "end"]) + "\n")
    found = told.split("\n")
    if found[len(lines) : len(lines) + 1] != ["end"]:
        raise JavaMissing(f"PTBTokenizer returned {len(found)} lines for {len(lines)} texts")
    return [" ".join(token for token in line.split(" ") if token not in punctuation) for line in found[: len(lines)]]


def meteor_sums(references: Sequence[Sequence[str]], answers: Sequence[str]) -> Floats:
    """Return METEOR's counts [N, 23] of each tokenized answer against the reference of several that it fits best."""
    lines = [
        f"SCORE ||| {' ||| '.join(meteor_text(one) for one in right)} ||| {meteor_text(said)}"
        for right, said in zip(references, answers, strict=True)
    ]
    arguments = ["-Xmx2G", "-jar", str(folder() / METEOR_JAR), "-", "-", "-stdio", "-l", "en", "-norm"]
    told = run("METEOR", arguments, "".join(f"{line}\n" for line in lines))
    try:
        sums_N23 = np.array([line.split() for line in told.splitlines()], dtype=np.float64).reshape(len(lines), 23)
    except ValueError:
        raise JavaMissing(f"METEOR did not return 23 numbers for each of {len(lines)} answers") from None
    # Where all words match in one piece the jar pays no penalty, and adds no chunk to the sums of a set.
    lengths_N2, chunks_N, hits_N2 = sums_N23[:, :2], sums_N23[:, 20], sums_N23[:, 21:]
    sums_N23[(lengths_N2 == hits_N2).all(axis=1) & (chunks_N == 1), 20] = 0
    return sums_N23


def meteor_text(text: str) -> str:
    """Return `text` without the sign that parts METEOR's fields."""
    return " ".join(re.sub(r"\|\|+", " ", text).split())


WEIGHTS = np.array([1.0, 0.6, 0.8, 0.6])
"""Of exact, stemmed, synonymous and paraphrased matches, in the English parameters of METEOR 1.5."""
ALPHA, BETA, GAMMA, DELTA = 0.85, 0.2, 0.6, 0.75


def meteor_of(sums_R23: Floats) -> Floats:
    """Return METEOR's score [R] of summed counts: the harmonic mean of weighted precision and recall, less a penalty.

    Source: Denkowski and Lavie, 2014, section 2, with the parameters that ``-l en`` sets. The jar computes the same of
    one set; the interval needs a thousand, and a program each would take an hour.
    """
    said_R, right_R, said_small_R, right_small_R = sums_R23[:, :4].T
    stages_R44 = sums_R23[:, 4:20].reshape(-1, 4, 4)
    chunks_R, said_hits_R, right_hits_R = sums_R23[:, 20:].T

    def share(content_RS: Floats, small_RS: Floats, length_R: Floats, small_R: Floats) -> Floats:
        hits_R = (DELTA * content_RS + (1 - DELTA) * small_RS) @ WEIGHTS
        weight_R = DELTA * (length_R - small_R) + (1 - DELTA) * small_R
        made_R: Floats = np.divide(hits_R, weight_R, out=np.zeros_like(hits_R), where=weight_R > 0)
        return made_R

    precision_R = share(stages_R44[:, :, 0], stages_R44[:, :, 2], said_R, said_small_R)
    recall_R = share(stages_R44[:, :, 1], stages_R44[:, :, 3], right_R, right_small_R)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean_R = 1 / ((1 - ALPHA) / precision_R + ALPHA / recall_R)
        broken_R = chunks_R / ((said_hits_R + right_hits_R) / 2)
    penalty_R = GAMMA * broken_R**BETA
    possible_R = (precision_R > 0) & (recall_R > 0)
    return np.where(possible_R, mean_R * (1 - penalty_R), 0.0)


def spice(references: Sequence[Sequence[str]], answers: Sequence[str]) -> Floats:
    """Return the F of SPICE [N] of each answer; JavaMissing names the parts that are not there."""
    java()
    if missing := [part for part in SPICE_PARTS if not (folder() / part).is_file()]:
        names = " and ".join(Path(part).name for part in missing)
        raise JavaMissing(f"needs {names} of Stanford CoreNLP 3.6.0 in pycocoevalcap's folder spice/lib")
    rows = [
        {"image_id": number, "test": said, "refs": list(right)}
        for number, (right, said) in enumerate(zip(references, answers, strict=True))
    ]
    with tempfile.TemporaryDirectory() as kept:
        asked, told = Path(kept) / "asked.json", Path(kept) / "told.json"
        asked.write_text(json.dumps(rows), encoding="utf-8")
        arguments = ["-Xmx8G", "-jar", str(folder() / SPICE_JAR), str(asked), "-out", str(told), "-subset", "-silent"]
        run("SPICE", arguments, within=kept)
        try:
            found = {row["image_id"]: float(row["scores"]["All"]["f"]) for row in json.loads(told.read_bytes())}
            values = [found[number] for number in range(len(rows))]
        except (OSError, ValueError, KeyError, TypeError):
            raise JavaMissing("SPICE wrote no scores") from None
    # With no proposition on either side SPICE divides nothing by nothing.
    return np.array([0.0 if math.isnan(value) else value for value in values])
