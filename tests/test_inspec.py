"""Inspec: abstracts are unwrapped and spoken whole, keyphrases joined; held against another way of unwrapping."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests import Clip, UserError, load_corpus
from manifests.corpora.inspec import FOLDERS
from manifests.corpora.wikiqa import VOICES

Refusals = list[tuple[str, str, str]]


def read(root: Path | str, split: str) -> tuple[list[Clip], Refusals]:
    refused: Refusals = []
    clips = list(load_corpus("inspec").clips(root, split, lambda *told: refused.append(told)))
    return clips, refused


def write(root: Path, name: str, abstract: bytes, keywords: bytes = b"one; two\r\n") -> None:
    folder = root / "Hulth2003" / "Test"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.abstr").write_bytes(abstract)
    (folder / f"{name}.uncontr").write_bytes(keywords)


@pytest.fixture(scope="module")
def root(corpora: Path) -> Path:
    return corpora / "inspec"


@pytest.mark.parametrize("split", FOLDERS)
def test_the_words_are_those_of_the_files_in_their_order(root: Path, split: str) -> None:
    clips, refused = read(root, split)
    folder = root / "Hulth2003" / FOLDERS[split]
    assert not refused
    assert {clip.id for clip in clips} == {f"inspec/{path.stem}" for path in folder.glob("*.abstr")}
    for clip in clips:
        stem = clip.id.removeprefix("inspec/")
        assert re.findall(r"\w+", clip.text) == re.findall(r"\w+", (folder / f"{stem}.abstr").read_text())
        phrases = " ".join((folder / f"{stem}.uncontr").read_text().split()).split("; ")
        assert clip.labels == {"keywords": "; ".join(phrases)}


def test_one_clip_is_read_in_full(root: Path) -> None:
    (first, second), _ = read(root, "test")
    assert (first.id, second.id) == ("inspec/193", "inspec/205")
    # Title and phrases are wrapped; wrapped lines have a space between, the title ends with a full stop.
    assert first.text.startswith(
        "Lamps, flags and horns: the network of the keepers of a northern coast. Lighthouses were the first network "
        "that carried messages at the speed of light, yet"
    )
    assert first.labels == {
        "keywords": "lighthouses; message logs; correlated failures; fog; network resilience; horns"
    }
    (ref,) = first.audio
    assert (ref.path, ref.speech, ref.seconds) == ("", first.text, None)
    assert ref.voice in VOICES
    assert (first.language, first.license) == ("en", "research use")
    assert not any(letter in clip.text for clip in (first, second) for letter in "\r\n\t")


def test_a_title_that_ends_in_a_question_mark_keeps_it(root: Path) -> None:
    ((clip,), _) = read(root, "validation")
    assert clip.text.startswith("Where do readers stop? Of four hundred readers")
    assert clip.labels["keywords"] == "electronic books; reading behaviour; sentence length"


def test_an_abstract_is_longer_than_a_model_hears_and_refused_by_nobody(root: Path) -> None:
    from shards.speech import synthesize

    clip = read(root, "test")[0][0]
    pcm, rate = synthesize(clip.audio[0].speech, clip.audio[0].voice)
    assert len(pcm) / rate > 60


@pytest.mark.parametrize("published", ["Hulth2003/{}", "{}", "{0}/{0}", "Hulth2003/{0}/{0}"])
def test_the_zips_may_be_unpacked_in_several_ways(root: Path, tmp_path: Path, published: str) -> None:
    for folder in FOLDERS.values():
        shutil.copytree(root / "Hulth2003" / folder, tmp_path / published.format(folder))
    for split in FOLDERS:
        assert read(tmp_path, split) == read(root, split)


def test_the_root_may_be_the_published_folder(root: Path) -> None:
    assert read(root / "Hulth2003", "test") == read(root, "test")


@pytest.mark.parametrize("name", ["", "Hulth2003"])
def test_a_zip_that_is_not_unpacked_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir(exist_ok=True)
    (tmp_path / name / "Validation.zip").touch()
    with pytest.raises(UserError, match=r"inspec: there is no \*\.abstr in .*Validation'; unpack Validation\.zip"):
        read(tmp_path, "validation")


@pytest.mark.parametrize(
    ("abstract", "keywords", "told"),
    [
        (b"only a title", b"one; two\r\n", "not a title"),
        (b"a title\r\n\r\n", b"one; two\r\n", "not a title"),
        (b"\r\nan abstract\r\n", b"one; two\r\n", "not a title"),
        (b"", b"one; two\r\n", "not a title"),
        (b"a title\r\nan \xff\r\n", b"one; two\r\n", "not UTF-8"),
        (b"a title\r\nan abstract\r\n", b" ; ;\r\n", "no keyphrase"),
        (b"a title\r\nan abstract\r\n", b"", "no keyphrase"),
    ],
)
def test_a_damaged_document_is_refused_and_the_rest_is_read(
    tmp_path: Path, abstract: bytes, keywords: bytes, told: str
) -> None:
    write(tmp_path, "7", abstract, keywords)
    write(tmp_path, "8", b"a title\r\nan abstract\r\n")
    clips, refused = read(tmp_path, "test")
    assert [clip.id for clip in clips] == ["inspec/8"]
    assert [(reason, name) for reason, name, _ in refused] == [("malformed_row", "inspec/7")]
    assert told in refused[0][2]
    assert "Test/7." in refused[0][2]


def test_a_half_of_a_document_is_refused(tmp_path: Path) -> None:
    for name in ("6", "7", "8"):
        write(tmp_path, name, b"a title\r\nan abstract\r\n")
    (tmp_path / "Hulth2003/Test/6.abstr").unlink()
    (tmp_path / "Hulth2003/Test/7.uncontr").unlink()
    clips, refused = read(tmp_path, "test")
    assert [clip.id for clip in clips] == ["inspec/8"]
    assert [told[:2] for told in refused] == [("no_abstract", "inspec/6"), ("no_keywords", "inspec/7")]


words = st.text(st.characters(exclude_categories=["Z", "C"], exclude_characters=";."), min_size=1, max_size=9)
lines = st.lists(st.lists(words, min_size=1, max_size=4).map(" ".join), min_size=1, max_size=4)
phrases = st.lists(st.lists(words, min_size=1, max_size=3), min_size=1, max_size=5)


@settings(max_examples=60)
@given(lines, lines, phrases)
def test_any_document_in_the_published_format_is_read_back(title: list, abstract: list, keywords: list) -> None:
    with tempfile.TemporaryDirectory() as folder:
        text = "\n\t".join(title) + "\r\n" + "\n\t".join(abstract) + "\r\n"
        wrapped = "; ".join("\n\t".join(phrase) for phrase in keywords) + "\r\n"
        write(Path(folder), "1", text.encode(), wrapped.encode())
        ((clip,), _) = read(folder, "test")
    stop = "" if title[-1].endswith(("?", "!")) else "."
    assert clip.text == " ".join(title) + stop + " " + " ".join(abstract)
    assert clip.labels["keywords"].split("; ") == [" ".join(phrase) for phrase in keywords]


@pytest.mark.slow
def test_the_real_corpus_has_the_published_counts() -> None:
    folder = Path(os.environ.get("SALMONN_REAL_CORPORA", "/nowhere"), "inspec")
    if not folder.is_dir():
        # Hulth2003 has no licence to bundle it by, and only some have a copy.
        pytest.skip("set SALMONN_REAL_CORPORA to a folder that holds inspec/Hulth2003")
    for split in FOLDERS:
        clips, refused = read(folder, split)
        assert len(clips) == load_corpus("inspec").split(split).clips
        assert not refused
        assert all(clip.labels["keywords"] for clip in clips)
