"""The audio of videos: which segments are there, cutting them out, and taking them from one's own copies."""

from __future__ import annotations

import io
import os
import wave

from manifests import AudioRef, UserError, files
from pipelines.fetching.video_list import Segment, Video
from shards.audio import PCM, Refused, decode, encode, probe, to_pcm
from shards.flac import RATE

SLACK = 0.5
"""Seconds by which a clip that is cut already may be longer than its segment: codecs pad, people round."""
LARGEST = 1 << 30
"""Bytes of one video: half a day of audio at 192 kbit/s."""
CONTAINERS = (".flac", ".wav", ".ogg", ".opus", ".mp3", ".m4a", ".mp4", ".aac", ".webm", ".mka", ".mkv")


class Shelf:
    """Which segments are in the folder of a corpus, in any container that its reader takes."""

    def __init__(self, folder: str) -> None:
        """Look below `folder`, into each of its folders once."""
        self.folder = folder
        self.stems: dict[str, set[str]] = {}

    def holds(self, segment: Segment) -> bool:
        """Whether the segment is there."""
        place, _, name = segment.path.rpartition("/")
        if place not in self.stems:
            self.stems[place] = {os.path.splitext(one)[0] for one in files.names(files.join(self.folder, place))}
        return not self.stems[place].isdisjoint((os.path.splitext(name)[0], *segment.also))

    def missing(self, video: Video) -> list[Segment]:
        """Return the segments of a video that are not there."""
        return [segment for segment in video.segments if not self.holds(segment)]


def cut(data: bytes, name: str, segment: Segment) -> PCM:
    """Return the samples of a segment at 16 kHz, mono, from a whole video; fewer if it ends before. Refused if none."""
    ref = AudioRef(path=name, start=segment.start, seconds=segment.end - segment.start)
    return to_pcm(decode(data, ref)[0])


def store(raw: str, path: str, pcm: PCM) -> None:
    """Write samples to `path` below the folder of a corpus, as WAV or as FLAC by its name."""
    if path.endswith(".wav"):
        sink = io.BytesIO()
        with wave.open(sink, "wb") as sound:
            sound.setparams((1, 2, RATE, 0, "NONE", "not compressed"))
            sound.writeframes(pcm.astype("<i2").tobytes())
        files.write_whole(files.join(raw, path), sink.getvalue())
    else:
        files.write_whole(files.join(raw, path), encode(pcm))


def find_copies(folder: str) -> dict[str, list[str]]:
    """Map the stem of every file below `folder` that may hold audio to its paths. UserError if there is no folder."""
    if not files.is_folder(folder):
        raise UserError(f"--audio-dir: there is no folder {folder!r}")
    found: dict[str, list[str]] = {}
    for path in files.walk(folder):
        stem, ending = os.path.splitext(path.rsplit("/", 1)[-1])
        if ending.lower() in CONTAINERS:
            found.setdefault(stem, []).append(files.join(folder, path))
    return found


def take_copy(video: Video, segment: Segment, copies: dict[str, list[str]], raw: str) -> tuple[str, str]:
    """Store a segment from the first of one's own copies that has it; return a status, empty if stored, and a detail.

    ``<id>_<start>.*`` is the segment. ``<id>.*`` is the segment where it is no longer than that, otherwise the whole
    video, and cut. Both may begin with ``Y``, as those of AudioSet do.
    """
    said = ("absent", "")
    named = [f"{video.id}_{segment.start:g}", video.id]
    for name in [name for stem in named for name in (stem, f"Y{stem}")]:
        for path in copies.get(name, ()):
            try:
                status = take_file(path, name.endswith(named[0]), video.id, segment, raw)
            except Refused as refusal:
                status = "short" if refusal.reason == "no_samples" else "undecodable"
            if not status:
                return "", ""
            said = (status, path) if said[0] == "absent" else said
    return said


def take_file(path: str, cut_already: bool, name: str, segment: Segment, raw: str) -> str:
    """Store a segment from one file; return why not, if it does not have it. Refused if it cannot be decoded."""
    size = files.size(path) or 0
    if size > LARGEST:
        return "too_large"
    wanted = segment.end - segment.start
    length = probe(path, size)
    data = files.read_bytes(path)
    if not length or length <= wanted + SLACK:
        # Read to its end, which shows its true length, and whether it is whole.
        pcm = to_pcm(decode(data, AudioRef(path=name))[0])
        length = len(pcm) / RATE
        if length <= wanted + SLACK:
            ending = os.path.splitext(path)[1].lower()
            if segment.path.endswith(".wav") and ending != ".wav":
                store(raw, segment.path, pcm)
            else:
                files.write_whole(files.join(raw, os.path.splitext(segment.path)[0] + ending), data)
            return ""
    if cut_already or length <= segment.start:
        return "wrong_length"
    store(raw, segment.path, cut(data, name, segment))
    return ""
