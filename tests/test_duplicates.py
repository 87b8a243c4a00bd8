"""Duplicates: copies of each kind are found where they are planted and nowhere else; likeness keeps to brute force."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.audio import to_mp3
from shards.audit import clashes, heard, likeness
from shards.audit.likeness import CLOSE, SHARE, Prints, across, confirm, within
from shards.audit.sections import duplicates
from shards.audit.sections.duplicates import Duplicates
from shards.fingerprint import LIMIT, alike, fingerprint, words_of
from shards.flac import RATE
from twins import Twin, recipe_of, shelve, speech, view_of

Asked = tuple[tuple[str, str, tuple[str, ...]], ...]


def look(folder: Path, clips: list[Twin]) -> Duplicates:
    names = sorted({f"{clip.corpus}:{clip.split}" for clip in clips})
    return duplicates.look(view_of(shelve(folder, clips), recipe_of(names, [])))


def verdict_of(found: Duplicates) -> tuple[str, str]:
    [gate] = duplicates.gates(found)
    return gate.verdict, gate.sentence


def tone(pitch: int) -> np.ndarray:
    return (np.sin(np.arange(RATE) * pitch / 900) * 9000).astype(np.int16)


def clean() -> list[Twin]:
    return [
        *(
            Twin(corpus="librispeech", split="dev-clean", name=f"1-1-{n}", text=f"sentence {n} of a book")
            for n in range(5)
        ),
        *(Twin(corpus="musicnet", split="train", name=f"{n}") for n in range(4)),
    ]


def test_a_dataset_without_copies_has_none(tmp_path: Path) -> None:
    found = look(tmp_path, clean())
    assert (found.groups, found.surplus, found.same_bytes, found.likely_pairs) == (0, 0, 0, 0)
    assert (found.copies, found.conflicts, found.likely, found.reuse) == ((), (), (), ())
    assert verdict_of(found) == (
        "PASS",
        "No two samples have the same audio, sample for sample, and none sound alike.",
    )


def smaller(pcm: np.ndarray) -> bytes:
    """A FLAC file of the same samples that is not ours."""
    sink = io.BytesIO()
    soundfile.write(sink, pcm, RATE, format="FLAC", subtype="PCM_16", compression_level=0.0)
    return sink.getvalue()


def test_copies_are_told_by_bytes_and_by_samples(tmp_path: Path) -> None:
    planted = [
        Twin(corpus="librispeech", split="dev-clean", name="2-1-0", pcm=tone(7)),
        Twin(corpus="librispeech", split="dev-clean", name="2-1-1", pcm=tone(7)),
        Twin(corpus="musicnet", split="train", name="10", pcm=tone(7)),
        Twin(corpus="musicnet", split="train", name="11", pcm=tone(8)),
        Twin(corpus="musicnet", split="test", name="12", pcm=tone(8), flac=smaller(tone(8))),
    ]
    found = look(tmp_path, clean() + planted)
    assert (found.groups, found.surplus, found.same_bytes) == (2, 3, 1)
    places = {(c.corpus, c.split, c.other_corpus, c.other_split): c.recordings for c in found.copies}
    assert places == {
        ("librispeech", "dev-clean", "librispeech", "dev-clean"): 1,
        ("librispeech", "dev-clean", "musicnet", "train"): 1,
        ("musicnet", "test", "musicnet", "train"): 1,
    }
    assert verdict_of(found)[0] == "WARN"
    assert verdict_of(found)[1].startswith("Samples that repeat the audio of another: 3, for example ")


@pytest.mark.parametrize(
    ("one", "other", "matters"),
    [
        ((("asr", "Write.", ("a", "b")),), (("asr", "Other.", ("b", "a")),), None),
        ((("asr", "Write.", ("a",)),), (("gender_recognition", "Who?", ("Male",)),), None),
        ((("asr", "Write.", ("a",)),), (("asr", "Write.", ("b",)),), True),
        ((("asr", "Write.", ("b",)),), (("asr", "Write.", ("a",)),), True),
        ((("audio_caption", "Say.", ("a dog",)),), (("audio_caption", "Say.", ("a bark",)),), False),
        ((("speech_qa", "Where?", ("here",)),), (("speech_qa", "When?", ("now",)),), None),
    ],
)
def test_copies_with_other_answers_contradict_each_other(
    tmp_path: Path, one: Asked, other: Asked, matters: bool | None
) -> None:
    planted = [
        Twin(corpus="librispeech", split="dev-clean", name="2-1-0", pcm=tone(7), asked=one),
        Twin(corpus="librispeech", split="test-clean", name="2-1-1", pcm=tone(7), asked=other),
    ]
    found = look(tmp_path, clean() + planted)
    assert [(conflict.task, conflict.recordings, conflict.matters) for conflict in found.conflicts] == (
        [] if matters is None else [(one[0][0], 1, matters)]
    )
    said = verdict_of(found)[1]
    assert said.startswith("Recordings that are there twice with different answers: 1") == bool(matters)
    if matters:
        assert "asr wants 'a' and 'b'" in said
        [[pair]] = [conflict.examples for conflict in found.conflicts]
        assert pair[0][0] != pair[1][0]


def test_what_is_said_again_by_other_audio_is_counted(tmp_path: Path) -> None:
    said = "No, I do not think that he would."
    planted = [
        *(Twin(corpus="covost2", split="train", name=f"common_voice_en_{n}", text=said) for n in range(3)),
        Twin(corpus="covost2", split="test", name="common_voice_en_9", text=said.upper().strip(".")),
        Twin(corpus="covost2", split="test", name="common_voice_en_10", text="yes"),
        Twin(corpus="covost2", split="test", name="common_voice_en_11", text="yes"),
        # The same audio says the same: that is a copy, not a text said again.
        *(
            Twin(corpus="slurp", split=s, name=s, pcm=tone(9), text="turn it on, please, now")
            for s in ("test", "train")
        ),
    ]
    found = {row.corpus: row for row in look(tmp_path, clean() + planted).texts}
    assert (found["covost2"].texts, found["covost2"].different, found["covost2"].repeated) == (4, 1, 3)
    assert found["covost2"].most == 4
    assert (found["slurp"].texts, found["slurp"].different, found["slurp"].repeated) == (2, 1, 0)
    assert (found["librispeech"].texts, found["librispeech"].repeated) == (5, 0)


def test_what_is_meant_to_be_there_often_is_a_table_and_no_fault(tmp_path: Path) -> None:
    planted = [
        Twin(corpus="librimix", split="libri2mix-train-100", name="1-1-0_1-1-1"),
        Twin(corpus="librimix", split="libri2mix-train-100", name="1-1-2_3-1-1"),
        *(Twin(corpus="voxceleb1", split="verification-train", name=f"id1/a/1+id1/a/{n}") for n in range(2, 5)),
        Twin(
            corpus="librispeech",
            split="train-clean-100",
            name="9-9-9",
            asked=(("asr", "Write.", ("a",)), ("phone_recognition", "Phones.", ("AH",))),
        ),
    ]
    found = look(tmp_path, clean() + planted)
    assert {row.corpora: (row.sources, row.uses) for row in found.reuse} == {
        "librimix, librispeech": (3, 6),
        "voxceleb1": (4, 6),
    }
    assert found.tasks["librispeech"] == {"asr": 6, "phone_recognition": 1}
    assert verdict_of(found)[0] == "PASS"


@pytest.mark.parametrize("first", [1, 8])
def test_tables_and_numbers_are_those_of_the_sql_beside_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    monkeypatch.setattr(clashes, "FIRST", first)
    dice = np.random.default_rng(first)
    said = ["", "yes", "No, I do not think that he would.", "no i do not think <COMMA> that HE would", "\u00c4h, " * 9]
    places = [("librispeech", "dev-clean"), ("librispeech", "test-clean"), ("slurp", "test"), ("voxceleb1", "dev")]
    planted = [
        Twin(
            corpus=corpus,
            split=split,
            name=f"{'+'.join(map(str, dice.permutation(9)[: 1 + n % 2]))}-{n % 7}{'-headset' * (n % 3 == 0)}",
            pcm=tone(int(dice.integers(1, 30))),
            text=said[dice.integers(len(said))],
            asked=tuple(
                (task, "Ask.", tuple(dice.choice(["a", "b", "c"], 2).tolist()))
                for task in dice.permutation(["asr", "gender_recognition", "audio_caption", "speech_qa"]).tolist()[
                    : 1 + n % 3
                ]
            ),
        )
        for n, (corpus, split) in enumerate(places[k % 4] for k in range(90))
    ]
    names = {(clip.corpus, clip.split, clip.name): clip for clip in planted}
    view = view_of(shelve(tmp_path, list(names.values())), recipe_of([":".join(place) for place in places], []))
    found = duplicates.look(view)
    monkeypatch.chdir(tmp_path)
    plain = duckdb.connect()
    plain.execute(view.database.views)
    for table in ("places", "said", "(select pcm_md5, corpus, split, key, all_zero, tasks from doubles)"):
        rows = plain.execute(f"select * from {table} order by all").fetchall()
        assert view.database.connection.execute(f"select * from {table} order by all").fetchall() == rows
        assert len(rows) > 3
    assert view.database.ask("sources") == plain.execute(duplicates.QUERIES["sources"]).fetchall()
    rows = plain.execute(duplicates.QUERIES["conflicts"]).fetchall()
    assert [
        (row.task, row.recordings, [list(map(list, pair)) for pair in row.examples]) for row in found.conflicts
    ] == [(task, recordings, examples) for task, recordings, examples in rows]
    assert max(recordings for _, recordings, _ in rows) > 8
    assert plain.execute(duplicates.QUERIES["repeated"]).fetchall() == view.database.ask("repeated")


def decoded(file: bytes) -> np.ndarray:
    wave, rate = soundfile.read(io.BytesIO(file))
    return whole(32768 * (wave if rate == RATE else soxr.resample(wave, rate, RATE)))


def coded(pcm: np.ndarray, subtype: str) -> np.ndarray:
    sink = io.BytesIO()
    soundfile.write(sink, pcm, RATE, format="OGG", subtype=subtype)
    return decoded(sink.getvalue())


def whole(wave: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(wave), -32768, 32767).astype(np.int16)


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mp3": lambda pcm: decoded(to_mp3(pcm)),
    "vorbis": lambda pcm: coded(pcm, "VORBIS"),
    "opus": lambda pcm: coded(pcm, "OPUS"),
    "10 dB down": lambda pcm: whole(pcm * 10**-0.5),
    "8 kHz and back": lambda pcm: whole(soxr.resample(soxr.resample(pcm.astype(float), RATE, 8000), 8000, RATE)),
    "cut off the grid": lambda pcm: pcm[5927:-4001],
}


@pytest.mark.slow
def test_copies_that_were_changed_sound_alike_and_others_do_not(tmp_path: Path, corpora: Path) -> None:
    clips = {name: pcm for name, pcm in speech(corpora).items() if len(pcm) > 5 * RATE}
    assert len(clips) > 30
    names = list(clips)[::2]
    planted = [Twin(corpus="librispeech", split="train-clean-100", name=name, pcm=pcm) for name, pcm in clips.items()]
    planted += [
        Twin(corpus="clotho", split="development", name=f"development/{change}/{name}", pcm=alter(clips[name]))
        for change, alter in CHANGES.items()
        for name in names
    ]
    view = view_of(shelve(tmp_path, planted), recipe_of(["librispeech:train-clean-100"], []))
    found = duplicates.look(view)
    keys = dict(view.database.connection.execute("select key, id from samples").fetchall())
    pairs = view.database.connection.execute("select key, other_key from likely").fetchall()
    ids = {(keys[one].rpartition("/")[2], keys[other].rpartition("/")[2]) for one, other in pairs}
    # Nothing but a clip and what was made of it, though many are of one reader.
    assert {one for one, other in ids if one != other} == set()
    for change in CHANGES:
        made = [keys[one] for one, other in pairs if f"/{change}/" in keys[other]]
        hits = {name for name in made if name.startswith("librispeech/")}
        assert len(hits) >= 0.85 * len(names), change
    assert found.likely_pairs == len(pairs) / 2
    assert found.heard.clips == len(planted)
    assert verdict_of(found)[0] == "WARN"
    assert "pairs that sound alike" in verdict_of(found)[1]


def prints_of(clips: list[list[int]], first: int = 0) -> Prints:
    """The words of clips, numbered from `first` on."""
    sizes = [len(words) for words in clips]
    return Prints(
        np.array([word for words in clips for word in words], np.uint64),
        np.repeat(np.arange(first, first + len(clips), dtype=np.uint32), sizes),
    )


WORDS = st.integers(0, 2**64 - 1)
FLIPS = st.lists(st.integers(0, 63), max_size=12)


@st.composite
def families(draw: st.DrawFn) -> list[list[int]]:
    """Clips of a few words, many of them near to each other."""
    base = draw(st.lists(WORDS, min_size=1, max_size=3))
    clips = []
    for _ in range(draw(st.integers(1, 6))):
        clip = []
        for _ in range(draw(st.integers(0, 3))):
            word = draw(st.sampled_from(base))
            for bit in draw(FLIPS):
                word ^= 1 << bit
            clip.append(word)
        clips.append(clip)
    return clips


def near(one: list[int], other: list[int]) -> list[list[int]]:
    return alike(np.array(one, np.uint64), np.array(other, np.uint64)).tolist()


@settings(max_examples=80, deadline=None)
@given(families(), families())
def test_evaluation_sets_are_searched_as_by_brute_force(trained: list[list[int]], held: list[list[int]]) -> None:
    found = set(map(tuple, across([prints_of(trained[:2]), prints_of(trained[2:], 2)], prints_of(held)).tolist()))
    assert found <= {(i, j) for i, one in enumerate(trained) for j, other in enumerate(held) if near(one, other)}
    # A table of a few words has chunks of 12 bits, spread over the word: whoever shares one whole is found.
    places = np.linspace(0, 52, likeness.CHUNKS).round().astype(int).tolist()
    expected = {
        (i, j)
        for i, one in enumerate(trained)
        for j, other in enumerate(held)
        for place, against in near(one, other)
        if any((one[place] ^ other[against]) >> shift & 4095 == 0 for shift in places)
    }
    assert found == expected


@settings(max_examples=80, deadline=None)
@given(families())
def test_a_few_clips_are_all_held_against_each_other(clips: list[list[int]]) -> None:
    count = sum(map(len, clips))
    found = set(map(tuple, within(lambda: [prints_of(clips)], count).tolist()))
    pairs = [(i, j) for j in range(len(clips)) for i in range(j)]
    if count <= likeness.NEAR:
        assert found == {(i, j) for i, j in pairs if near(clips[i], clips[j])}
    assert found <= set(pairs)


@settings(max_examples=60, deadline=None)
@given(families())
def test_a_pair_is_confirmed_by_all_its_words(clips: list[list[int]]) -> None:
    pairs = [(i, j) for j in range(len(clips)) for i in range(j) if clips[i] and clips[j]]
    made = confirm(np.array(pairs, np.int64).reshape(-1, 2), lambda: [prints_of(clips[:1]), prints_of(clips[1:], 1)])
    expected = {}
    for i, j in pairs:
        short, long = (clips[i], clips[j]) if len(clips[i]) <= len(clips[j]) else (clips[j], clips[i])
        bits = [min((word ^ other).bit_count() for other in long) for word in short]
        shared = sum(least <= LIMIT for least in bits)
        if (shared > 1 or min(bits) <= CLOSE) and SHARE * shared >= len(short):
            expected[i, j] = (shared, min(bits))
    facts = zip(made.shared.tolist(), made.bits.tolist(), strict=True)
    assert dict(zip(map(tuple, made.pairs.tolist()), facts, strict=True)) == expected
    assert made.bits.tolist() == sorted(made.bits.tolist())


def flipped(dice: np.random.Generator, words: np.ndarray, rate: float) -> np.ndarray:
    bits = dice.random((words.size, 64)) < rate
    return words ^ np.packbits(bits, axis=1, bitorder="little").view("<u8").reshape(words.shape)


@pytest.mark.parametrize(("rate", "of_sets", "of_all"), [(0.0, 1.0, 1.0), (0.05, 0.995, 0.99), (0.1, 0.85, 0.7)])
def test_near_copies_among_many_are_found(rate: float, of_sets: float, of_all: float) -> None:
    dice = np.random.default_rng(1)
    words = dice.integers(0, 2**64, (40_000, 6), np.uint64)
    words[-1000:] = flipped(dice, words[:1000], rate)
    clips = np.repeat(np.arange(len(words), dtype=np.uint32), 6)
    planted = {(n, len(words) - 1000 + n) for n in range(1000)}

    def read() -> list[Prints]:
        return [Prints(words[k : k + 9000].ravel(), clips[6 * k : 6 * k + 54_000]) for k in range(0, len(words), 9000)]

    held = Prints(words[:2000].ravel(), clips[: 6 * 2000])
    rest = [Prints(block.words[block.clips >= 2000], block.clips[block.clips >= 2000]) for block in read()]
    found = confirm(np.sort(across(rest, held), axis=1), read)
    assert len(planted & set(map(tuple, found.pairs.tolist()))) >= 1000 * of_sets
    assert len(found.pairs) <= 1000
    everything = confirm(within(read, words.size), read)
    assert len(planted & set(map(tuple, everything.pairs.tolist()))) >= 1000 * of_all
    assert len(everything.pairs) <= 1000


def test_sorting_in_parts_finds_the_same_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    dice = np.random.default_rng(2)
    words = dice.integers(0, 2**64, (6000, 6), np.uint64)
    words[5000:] = flipped(dice, words[:1000], 0.03)
    clips = np.repeat(np.arange(6000, dtype=np.uint32), 6)
    blocks = [
        Prints(words.ravel()[first : first + 5000], clips[first : first + 5000]) for first in range(0, 36000, 5000)
    ]
    whole_pairs = set(map(tuple, within(lambda: blocks, words.size).tolist()))
    monkeypatch.setattr(likeness, "SORTED", 3000)
    parted = set(map(tuple, within(lambda: blocks, words.size).tolist()))
    assert len({(n, 5000 + n) for n in range(1000)} & parted) >= 995
    assert len(whole_pairs & parted) >= 0.95 * len(whole_pairs)


def test_a_sound_that_all_clips_hold_does_not_stop_it(monkeypatch: pytest.MonkeyPatch) -> None:
    # 3,000 clips that begin with one jingle are four and a half million pairs; none of them is a copy of another.
    dice = np.random.default_rng(3)
    words = dice.integers(0, 2**64, (3000, 6), np.uint64)
    words[:, 0] = 12345
    clips = np.repeat(np.arange(3000, dtype=np.uint32), 6)
    blocks = [Prints(words.ravel(), clips)]
    pairs = within(lambda: blocks, words.size)
    assert len(pairs) < 3000 * likeness.NEAR * len(likeness.TURNS) + 1
    assert len(confirm(pairs, lambda: blocks).pairs) == 0
    monkeypatch.setattr(likeness, "MOST", 100)
    assert len(within(lambda: blocks, words.size)) == 100


def test_words_are_read_by_the_numbers_of_their_clips(
    tmp_path: Path, corpora: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = list(speech(corpora).items())[:9]
    planted = [Twin(corpus="abc"[n % 3], split="xy"[n % 2], name=name, pcm=pcm) for n, (name, pcm) in enumerate(clips)]
    planted.append(Twin(corpus="librimix", split="libri2mix-dev", name="1-1-1_2-2-2", pcm=clips[0][1]))
    planted.append(Twin(corpus="a", split="x", name="without"))
    view = view_of(shelve(tmp_path, planted), recipe_of(["a:x"], ["b:y"]))
    parts = tuple(heard.parts_of(view))
    sides = {(part.source.corpus, part.trained, part.evaluated) for part in parts}
    assert sides >= {("a", True, False), ("b", False, True)}
    monkeypatch.setattr(heard, "ROWS", 1)
    pcm = {(clip.corpus, clip.name): clip.pcm for clip in planted}
    table = heard.facts(view, parts, np.arange(10))
    for most in (1, 3, 99):
        said: dict[int, list[int]] = {}
        for block in heard.Memory(view, 0).prints(parts, most):
            for word, clip in zip(block.words.tolist(), block.clips.tolist(), strict=True):
                said.setdefault(clip, []).append(word)
        for row in table.to_pylist():
            expected = pcm[row["corpus"], row["id"].partition("/")[2]]
            words = [] if expected is None else words_of(fingerprint(expected)).tolist()
            assert said.get(row["clip"], []) == words[:most]
    assert table.num_rows == 10
    assert heard.facts(view, parts, np.array([2, 7]))["clip"].to_pylist() == [2, 7]
    monkeypatch.setattr(heard, "BUDGET", 12)
    assert heard.hear(view).words == heard.FEWEST
