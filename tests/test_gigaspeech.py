"""GigaSpeech in its three layouts, read by us, by lhotse and by SQL; releases of our own making, read back exactly."""

from __future__ import annotations

import csv
import itertools
import json
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from manifests import Clip, UserError, load_corpus
from manifests.corpora.gigaspeech import SUBSETS
from pipelines.unpacking import commands as unpack_commands

SPLITS = (*SUBSETS, "dev", "test")
GARBAGE = ("<SIL>", "<MUSIC>", "<NOISE>", "<OTHER>")
COLUMNS = ["sid", "speaker", "text_tn", "begin_time", "end_time", "aid", "path", "title", "url", "source", "category"]
Refused = list[tuple[str, str, str]]


def read(root: Path | str, split: str) -> tuple[list[Clip], Refused]:
    refused: Refused = []
    clips = list(load_corpus("gigaspeech").clips(root, split, lambda *told: refused.append(told)))
    return clips, refused


def facts(clips: list[Clip]) -> list[tuple[str, str, str]]:
    return [(clip.id, clip.text, clip.speaker) for clip in clips]


@pytest.fixture(scope="module")
def root(corpora: Path) -> Path:
    return corpora / "gigaspeech"


@pytest.fixture(scope="module")
def release(root: Path) -> dict[str, Any]:
    return json.loads((root / "GigaSpeech.json").read_text())


def additional(release: dict[str, Any]) -> dict[str, list[tuple[dict, dict]]]:
    """The segments of each part of the Hub: what is in a subset and not in the next smaller one."""
    parts: dict[str, list[tuple[dict, dict]]] = {}
    for audio in release["audios"]:
        for segment in audio["segments"]:
            mine = {mark.strip("{}").lower() for mark in segment["subsets"]}
            parts.setdefault(next(part for part in SPLITS if part in mine), []).append((audio, segment))
    return parts


def cut(root: Path, audio: dict, segment: dict, place: Path) -> None:
    """Write a segment as the WAV that the Hub has of it."""
    pcm, rate = soundfile.read(root / audio["path"], dtype="int16")
    place.parent.mkdir(parents=True, exist_ok=True)
    begin, end = (round(segment[name] * rate) for name in ("begin_time", "end_time"))
    soundfile.write(place, pcm[begin:end], rate)


@pytest.fixture(scope="module")
def hub(root: Path, release: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature as the Hub's chunks: two segments a chunk, unpacked."""
    top = tmp_path_factory.mktemp("hub")
    for part, segments in additional(release).items():
        more = "_additional" if part in SUBSETS[1:] else ""
        chunks = [segments[first : first + 2] for first in range(0, len(segments), 2)]
        (top / "data").mkdir(exist_ok=True)
        (top / f"data/{part}_n_archives{more}.txt").write_text(f"{len(chunks)}\n")
        for number, chunk in enumerate(chunks):
            name = f"{part}_chunks_{number:04}"
            table = top / f"data/metadata/{part}_metadata{more}/{name}_metadata.csv"
            table.parent.mkdir(parents=True, exist_ok=True)
            with open(table, "w", newline="") as file:
                rows = csv.writer(file)
                rows.writerow(COLUMNS)
                for audio, segment in chunk:
                    row = [segment[key] for key in ("sid", "speaker", "text_tn", "begin_time", "end_time")]
                    rows.writerow([*row, audio["aid"], audio["path"], 'A "title",\nin two lines', "u", "podcast", ""])
                    cut(root, audio, segment, top / f"data/audio/{part}_files{more}/{name}/{segment['sid']}.wav")
    return top


def write_parquet(path: Path, segments: list[tuple[dict, dict]], root: Path | None = None) -> None:
    """Write the Hub's parquet of some segments; with `root`, unpack their audio beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {"segment_id": "sid", "speaker": "speaker", "text": "text_tn", "begin_time": "begin_time"}
    table = {name: [segment[key] for _, segment in segments] for name, key in columns.items()}
    table["audio"] = [{"bytes": b"RIFF", "path": f"{segment['sid']}.wav"} for _, segment in segments]
    pq.write_table(pa.table(table), path)
    for audio, segment in segments if root else []:
        cut(root, audio, segment, path.with_suffix("") / f"{segment['sid']}.wav")


@pytest.mark.parametrize("split", SPLITS)
def test_lhotse_parses_the_same_segments(root: Path, release: dict[str, Any], split: str) -> None:
    from lhotse.recipes.gigaspeech import parse_utterance

    theirs = []
    for audio in release["audios"]:
        marks = {segment["sid"]: segment["subsets"] for segment in audio["segments"]}
        recording, segments = parse_utterance(audio, root)
        path = Path(recording.sources[0].source).relative_to(root).as_posix()
        for one in segments:
            if "{" + split.upper() + "}" in marks[one.id] and one.text not in GARBAGE:
                theirs.append((f"gigaspeech/{one.id}", path, one.start, one.duration, one.text))
    clips, _ = read(root, split)
    ours = [(c.id, c.audio[0].path, c.audio[0].start, c.audio[0].seconds, c.text) for c in clips]
    assert ours == theirs
    assert len(ours) >= 2


@pytest.mark.parametrize("split", SPLITS)
def test_clips_and_refusals_are_all_that_sql_finds(root: Path, split: str) -> None:
    query = """select s.sid, s.text_tn from (select unnest(audio.segments) as s from
        (select unnest(audios) as audio from read_json(?))) where list_contains(s.subsets, ?)"""
    listed = dict(duckdb.execute(query, [str(root / "GigaSpeech.json"), "{" + split.upper() + "}"]).fetchall())
    clips, refused = read(root, split)
    assert {c.id.split("/")[1]: c.text for c in clips} == {k: v for k, v in listed.items() if v not in GARBAGE}
    assert {told[1].split("/")[1] for told in refused} == {k for k, v in listed.items() if v in GARBAGE}


def test_one_clip_is_read_in_full(root: Path) -> None:
    clip = next(clip for clip in read(root, "s")[0] if clip.id == "gigaspeech/POD9000000001_S0000000")
    assert clip.text == "BLACK AND BITTER <COMMA> BUT WELCOME ENOUGH TO THE FARMERS <PERIOD>"
    assert clip.audio[0].path == "audio/podcast/P0001/POD9000000001.opus"
    assert (clip.audio[0].start, clip.audio[0].seconds, clip.join) == (0.25, 2.99, "single")
    assert (clip.language, clip.speaker, clip.gender) == ("en", "", "")
    assert "non-commercial" in clip.license


@pytest.mark.parametrize("split", SPLITS)
def test_every_segment_lies_within_its_recording(root: Path, split: str) -> None:
    for clip in read(root, split)[0]:
        recording = soundfile.info(root / clip.audio[0].path)
        assert recording.samplerate == 16000
        assert clip.audio[0].start + clip.audio[0].seconds <= recording.duration


def test_subsets_nest_and_count_by_the_segment(root: Path, release: dict[str, Any]) -> None:
    ids = {split: {clip.id for clip in read(root, split)[0]} for split in SPLITS}
    for smaller, larger in itertools.pairwise(SUBSETS):
        assert ids[smaller] < ids[larger]
    assert not ids["dev"] & ids["xl"] and not ids["test"] & ids["xl"]
    of_m = {audio["aid"] for audio in release["audios"] if "{M}" in audio["subsets"]}
    within = {clip_id for clip_id in ids["xl"] if clip_id.split("/")[1].split("_")[0] in of_m}
    assert ids["m"] < within


def test_garbage_is_refused_by_name(root: Path) -> None:
    told = [
        (reason, clip_id, detail) for split in ("xl", "dev", "test") for reason, clip_id, detail in read(root, split)[1]
    ]
    assert {reason for reason, _, _ in told} == {"garbage_utterance"}
    assert {detail.split()[0] for _, _, detail in told} == set(GARBAGE)
    with pytest.raises(UserError, match=r"gigaspeech/YOU9100000001_S0000001: garbage_utterance"):
        list(load_corpus("gigaspeech").clips(root, "dev"))


@pytest.mark.parametrize(
    ("typed", "meant"), [("m", "m"), ("M", "m"), ("train-m", "m"), ("DEV", "dev"), ("validation", "dev"), ("XL", "xl")]
)
def test_usual_names_of_the_splits_resolve(typed: str, meant: str) -> None:
    assert load_corpus("gigaspeech").expand(typed) == (meant,)


@pytest.mark.parametrize("split", SPLITS)
def test_the_chunks_of_the_hub_hold_the_same(root: Path, hub: Path, split: str) -> None:
    release, chunks = read(root, split), read(hub, split)
    assert sorted(facts(chunks[0])) == sorted(facts(release[0]))
    assert sorted(chunks[1]) == sorted(release[1])
    spans = {clip.id: clip.audio[0] for clip in release[0]}
    for clip in chunks[0]:
        wav = soundfile.info(hub / clip.audio[0].path)
        assert (clip.audio[0].start, clip.audio[0].seconds) == (0.0, None)
        assert wav.duration == pytest.approx(spans[clip.id].seconds, abs=1e-3)


def test_m_is_the_chunks_of_xs_s_and_m_in_that_order(hub: Path) -> None:
    folders = [clip.audio[0].path.split("/")[2] for clip in read(hub, "m")[0]]
    assert list(dict.fromkeys(folders)) == ["xs_files", "s_files_additional", "m_files_additional"]
    assert read(hub, "m")[0][0].audio[0].path == "data/audio/xs_files/xs_chunks_0000/AUD9000000001_S0000000.wav"


def test_a_chunk_without_its_metadata_is_named(hub: Path, tmp_path: Path) -> None:
    shutil.copytree(hub / "data", tmp_path / "data")
    (tmp_path / "data/metadata/dev_metadata/dev_chunks_0001_metadata.csv").unlink()
    with pytest.raises(UserError, match=r"no file .*dev_chunks_0001_metadata\.csv"):
        read(tmp_path, "dev")
    shutil.rmtree(tmp_path / "data/metadata/m_metadata_additional")
    (tmp_path / "data/m_n_archives_additional.txt").unlink()
    assert read(tmp_path, "s")[0]
    with pytest.raises(UserError, match=r"no file .*m_chunks_0000_metadata\.csv"):
        read(tmp_path, "m")
    (tmp_path / "data/test_n_archives.txt").write_text("<html>")
    with pytest.raises(UserError, match=r"test_n_archives\.txt.*<html>"):
        read(tmp_path, "test")


def test_a_chunk_that_is_still_packed_says_so(hub: Path, tmp_path: Path) -> None:
    shutil.copytree(hub / "data", tmp_path / "data")
    chunk = tmp_path / "data/audio/xs_files/xs_chunks_0000"
    shutil.rmtree(chunk)
    assert len(read(tmp_path, "xs")[0]) == len(read(hub, "xs")[0])
    chunk.with_suffix(".tar.gz").touch()
    with pytest.raises(UserError, match=r"not unpacked; run: salmonn unpack .*/xs_chunks_0000\.tar\.gz$"):
        read(tmp_path, "xs")


@pytest.mark.parametrize(
    "row", ["POD1_S1,N/A", "../x,N/A,HI,0,1,a,p,t,u,s,c", ",N/A,HI,0,1,a,p,t,u,s,c", "a,b,c,d,e,f,g,h,i,j,k,l"]
)
def test_a_damaged_row_of_a_chunk_is_refused_with_its_line(hub: Path, tmp_path: Path, row: str) -> None:
    shutil.copytree(hub / "data", tmp_path / "data")
    table = tmp_path / "data/metadata/xs_metadata/xs_chunks_0000_metadata.csv"
    table.write_text(table.read_text() + row + "\n")
    clips, refused = read(tmp_path, "xs")
    assert facts(clips) == facts(read(hub, "xs")[0])
    # The titles of the two rows before it go over two lines each.
    assert [told[:2] for told in refused] == [
        ("malformed_row", "gigaspeech/data/metadata/xs_metadata/xs_chunks_0000_metadata.csv:6")
    ]


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"sid,text\n1,2\n", b"\xff\xfe\x00\n"])
def test_a_chunk_table_of_another_kind_is_a_sentence(hub: Path, tmp_path: Path, content: bytes) -> None:
    shutil.copytree(hub / "data", tmp_path / "data")
    (tmp_path / "data/metadata/xs_metadata/xs_chunks_0000_metadata.csv").write_bytes(content)
    with pytest.raises(UserError, match=r"xs_chunks_0000_metadata\.csv"):
        read(tmp_path, "xs")


def test_the_parquet_files_of_the_hub_hold_the_same(root: Path, release: dict[str, Any], tmp_path: Path) -> None:
    parts = additional(release)
    in_m = [*parts["xs"], *parts["s"], *parts["m"]]
    write_parquet(tmp_path / "m/train-00000-of-00002.parquet", in_m[:3], root)
    write_parquet(tmp_path / "m/train-00001-of-00002.parquet", in_m[3:], root)
    write_parquet(tmp_path / "m/validation-00000-of-00001.parquet", parts["dev"], root)
    write_parquet(tmp_path / "test/test/0000.parquet", parts["test"], root)
    for split in ("m", "dev", "test"):
        clips, refused = read(tmp_path, split)
        assert sorted(facts(clips)) == sorted(facts(read(root, split)[0]))
        assert sorted(refused) == sorted(read(root, split)[1])
        assert all((tmp_path / clip.audio[0].path).is_file() for clip in clips)
    assert read(tmp_path, "test")[0][0].audio[0].path == "test/test/0000/POD9200000001_S0000001.wav"
    with pytest.raises(UserError, match=r"holds neither GigaSpeech\.json nor .* 'xs'"):
        read(tmp_path, "xs")


def test_audio_that_is_still_inside_parquet_is_refused_with_the_place_it_goes_to(
    release: dict[str, Any], tmp_path: Path
) -> None:
    write_parquet(tmp_path / "xs/train-00000-of-00001.parquet", additional(release)["xs"])
    clips, refused = read(tmp_path, "xs")
    assert not clips
    assert {told[0] for told in refused} == {"audio_in_parquet"}
    assert "no xs/train-00000-of-00001/AUD9000000001_S0000000.wav yet" in refused[0][2]
    assert refused[0][2].endswith(f"; run: salmonn unpack {tmp_path}/xs/train-00000-of-00001.parquet")


def test_the_hubs_parquet_is_read_whole_once_our_unpack_was_there(
    root: Path, release: dict[str, Any], tmp_path: Path
) -> None:
    segments = additional(release)["xs"] + additional(release)["s"]
    table = tmp_path / "s/train-00000-of-00001.parquet"
    write_parquet(table, segments)
    rows = pq.read_table(table).to_pylist()
    for number, (audio, segment) in enumerate(segments):
        cut(root, audio, segment, tmp_path / "cut.wav")
        rows[number]["audio"] = {"bytes": (tmp_path / "cut.wav").read_bytes(), "path": "/home/someone/x.wav"}
    pq.write_table(pa.Table.from_pylist(rows), table)
    told = read(tmp_path, "s")[1]
    assert {reason for reason, _, _ in told} == {"audio_in_parquet"}
    words = shlex.split(told[0][2].split("run: ")[1])
    assert words[:2] == ["salmonn", "unpack"]
    unpack_commands.unpack(words[2:])
    clips, refused = read(tmp_path, "s")
    assert sorted(facts(clips)) == sorted(facts(read(root, "s")[0]))
    assert {reason for reason, _, _ in refused} <= {"garbage_utterance"}
    for clip in clips:
        row = next(row for row in rows if f"gigaspeech/{row['segment_id']}" == clip.id)
        assert (tmp_path / clip.audio[0].path).read_bytes() == row["audio"]["bytes"]


def test_a_chunk_of_the_hub_is_read_whole_once_our_unpack_was_there(hub: Path, tmp_path: Path) -> None:
    shutil.copytree(hub / "data", tmp_path / "data")
    for folder in sorted((tmp_path / "data/audio").glob("*/*")):
        subprocess.run(["tar", "czf", f"{folder}.tar.gz", "-C", folder.parent, folder.name], check=True)
        shutil.rmtree(folder)
    for _ in range(len(read(hub, "m")[0]) + 1):
        try:
            clips, refused = read(tmp_path, "m")
            break
        except UserError as error:  # it names one chunk after the other
            unpack_commands.unpack(shlex.split(str(error).split("run: ")[1])[2:])
    assert (facts(clips), refused) == (facts(read(hub, "m")[0]), read(hub, "m")[1])
    assert len(clips) > 3
    for clip in clips:
        assert (tmp_path / clip.audio[0].path).read_bytes() == (hub / clip.audio[0].path).read_bytes()


def test_brackets_without_end_are_a_sentence_in_little_memory(tmp_path: Path) -> None:
    (tmp_path / "GigaSpeech.json").write_text('{"audios": [' + "[" * 100_000)
    with pytest.raises(UserError, match=r"GigaSpeech\.json, row 1: not JSON \(it nests too deeply\)"):
        read(tmp_path, "xs")


def test_parquet_that_is_not_gigaspeech_is_a_sentence(tmp_path: Path) -> None:
    place = tmp_path / "xs/train-00000-of-00001.parquet"
    place.parent.mkdir()
    pq.write_table(pa.table({"segment_id": ["a"], "text": ["b"]}), place)
    with pytest.raises(UserError, match=r"train-00000-of-00001\.parquet has no column 'speaker'"):
        read(tmp_path, "xs")
    place.write_bytes(place.read_bytes()[:40])
    with pytest.raises(UserError, match=r"train-00000-of-00001\.parquet is not a whole Parquet file"):
        read(tmp_path, "xs")
    pq.write_table(pa.table({"segment_id": ["a", None, "a/b"], "text": [None, "b", "c"], "speaker": ["x"] * 3}), place)
    places = [f"gigaspeech/xs/train-00000-of-00001.parquet:{number}" for number in range(3)]
    assert [told[:2] for told in read(tmp_path, "xs")[1]] == [("malformed_row", where) for where in places]


def test_the_root_may_hold_the_folder_of_the_release_or_be_it(root: Path, tmp_path: Path) -> None:
    (tmp_path / "GigaSpeech").symlink_to(root, target_is_directory=True)
    around, inside = read(tmp_path, "dev")[0], read(root, "dev")[0]
    assert facts(around) == facts(inside)
    assert all((tmp_path / clip.audio[0].path).is_file() for clip in around)


def test_nothing_at_all_says_what_is_looked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"neither GigaSpeech\.json nor data/metadata/ nor m/\*\.parquet"):
        read(tmp_path, "m")
    with pytest.raises(UserError, match=r"there is no folder .*nowhere.*accept the terms"):
        read(tmp_path / "nowhere", "m")


SEGMENT = {"sid": "A_S1", "speaker": "N/A", "begin_time": 0, "end_time": 2.5, "text_tn": "HI", "subsets": ["{XS}"]}
GOOD = {"path": "audio/a.opus", "segments": [SEGMENT]}


@pytest.mark.parametrize(
    ("audio", "where"),
    [
        ("not an object", "[0]"),
        ({"path": "audio/a.opus"}, "[0]"),
        ({"path": 7, "segments": []}, "[0]"),
        ({"path": "../../etc/passwd", "segments": [SEGMENT]}, "[0]"),
        ({"path": "/etc/passwd", "segments": [SEGMENT]}, "[0]"),
        ({"path": "a.opus", "segments": [None]}, "[0].segments[0]"),
        ({"path": "a.opus", "segments": [SEGMENT | {"sid": "a/b"}]}, "[0].segments[0]"),
        ({"path": "a.opus", "segments": [SEGMENT | {"begin_time": "soon"}]}, "[0].segments[0]"),
        ({"path": "a.opus", "segments": [SEGMENT | {"end_time": 0.0}]}, "[0].segments[0]"),
        ({"path": "a.opus", "segments": [SEGMENT | {"begin_time": -1.0}]}, "[0].segments[0]"),
        ({"path": "a.opus", "segments": [{"sid": "A", "subsets": ["{XS}"]}]}, "[0].segments[0]"),
    ],
)
def test_a_damaged_entry_is_refused_with_its_place_and_the_rest_is_read(
    tmp_path: Path, audio: object, where: str
) -> None:
    (tmp_path / "GigaSpeech.json").write_text(json.dumps({"version": "v1.0.0", "audios": [audio, GOOD]}))
    clips, refused = read(tmp_path, "xs")
    assert [clip.id for clip in clips] == ["gigaspeech/A_S1"]
    assert [told[:2] for told in refused] == [("malformed_row", f"gigaspeech/GigaSpeech.json:audios{where}")]


@pytest.mark.parametrize("content", ["", "<html>404</html>", "{}", '{"audios": []}', '{"audio": [{}]}', "[1, 2]", "\0"])
def test_json_of_another_kind_is_a_sentence_that_names_the_file(tmp_path: Path, content: str) -> None:
    (tmp_path / "GigaSpeech.json").write_text(content)
    with pytest.raises(UserError, match=r"GigaSpeech\.json"):
        read(tmp_path, "xs")


def test_the_release_is_read_as_a_stream_and_a_torn_end_is_told(tmp_path: Path) -> None:
    torn = json.dumps({"audios": [GOOD] * 20000})[:-1000]
    (tmp_path / "GigaSpeech.json").write_text(torn)
    stream = load_corpus("gigaspeech").clips(tmp_path, "xs")
    assert next(stream).id == "gigaspeech/A_S1"
    with pytest.raises(UserError, match=r"GigaSpeech\.json, row \d+: not JSON"):
        list(stream)


def test_a_named_speaker_is_kept(tmp_path: Path) -> None:
    audio = GOOD | {"segments": [SEGMENT | {"speaker": "Jane"}]}
    (tmp_path / "GigaSpeech.json").write_text(json.dumps({"audios": [audio]}))
    assert read(tmp_path, "xs")[0][0].speaker == "gigaspeech/Jane"


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20) | st.sampled_from(GARBAGE)
segments = st.fixed_dictionaries(
    {"begin": st.integers(0, 900000), "length": st.integers(1, 3000), "text": texts, "subset": st.sampled_from(SPLITS)}
)


@given(st.lists(st.lists(segments, max_size=4), min_size=1, max_size=3))
def test_any_release_is_read_back_exactly(world: list[list[dict]]) -> None:
    audios, expected = [], {split: [] for split in SPLITS}
    for number, drawn in enumerate(world):
        path, made = f"audio/youtube/P0001/YOU{number:010}.opus", []
        for place, one in enumerate(drawn):
            sid, begin, end = f"YOU{number:010}_S{place:07}", one["begin"] / 100, (one["begin"] + one["length"]) / 100
            first = SPLITS.index(one["subset"])
            within = SUBSETS[first:] or (one["subset"],)
            marks = ["{" + name.upper() + "}" for name in within]
            times = {"begin_time": begin, "end_time": end}
            made.append({"sid": sid, "speaker": "N/A", **times, "text_tn": one["text"], "subsets": marks})
            for split in within if not set(one["text"].split()) & set(GARBAGE) else ():
                expected[split].append((f"gigaspeech/{sid}", path, begin, one["length"] / 100, one["text"]))
        audios.append({"path": path, "segments": made})
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "GigaSpeech.json").write_text(json.dumps({"audios": audios}), encoding="utf-8")
        for split in SPLITS:
            clips, refused = read(folder, split)
            assert [(c.id, c.audio[0].path, c.audio[0].start, c.audio[0].seconds, c.text) for c in clips] == expected[
                split
            ]
            assert {reason for reason, _, _ in refused} <= {"garbage_utterance"}
