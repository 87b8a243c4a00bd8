"""One test for all corpora: each brings a miniature and its facts, never test code of its own for what all promise."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from manifests import TASKS, Clip, UserError, corpus_names, files, load_corpus, load_recipe
from manifests.tables import Scanned, read_manifest, write_manifest
from pipelines.annotate import annotate_by_rule
from pipelines.build import build
from pipelines.executor import Executor
from shards import Dataset, Stream

SOURCES = [(name, split) for name in corpus_names() for split in load_corpus(name).splits]
TABLE = (
    "librispeech gigaspeech covost2 audiocaps clotho iemocap musiccaps librimix voxceleb1 wavcaps millionsong musicnet "
    "slurp wikiqa inspec"
)


def read(corpora: Path, name: str, split: str) -> tuple[list[Clip], list[tuple[str, str, str]]]:
    """The clips of a split of a miniature, and what its reader passed over."""
    refused: list[tuple[str, str, str]] = []
    root = str(corpora / name)
    clips = list(load_corpus(name).clips(root, split, lambda *told: refused.append(told)))
    return clips, refused


def present(corpora: Path, name: str, split: str) -> bool:
    """Whether the miniature has a split: not every one of a hundred thousand hours has."""
    try:
        read(corpora, name, split)
    except UserError:
        return False
    return True


def test_the_fifteen_corpora_of_the_paper_are_there() -> None:
    assert set(TABLE.split()) <= set(corpus_names())


def test_every_corpus_has_a_miniature_with_clips(corpora: Path) -> None:
    for name in corpus_names():
        splits = [split for split in load_corpus(name).splits if present(corpora, name, split)]
        assert splits, name
        assert any(clip.audio for split in splits for clip in read(corpora, name, split)[0]), name


@pytest.mark.parametrize(("name", "split"), SOURCES, ids=[f"{name}:{split}" for name, split in SOURCES])
def test_a_reader_keeps_the_promises_of_all_readers(corpora: Path, tmp_path: Path, name: str, split: str) -> None:
    if not present(corpora, name, split):
        with pytest.raises(UserError, match=name):
            read(corpora, name, split)
        return
    clips, refused = read(corpora, name, split)
    assert (clips, refused) == read(corpora, name, split), "the same tree is read the same way twice"
    assert clips or refused
    for clip in clips:
        assert clip.id.startswith(f"{name}/") and len(clip.id) > len(name) + 1
        assert (len(clip.audio) < 2) == (clip.join == "single")
        assert clip.gender in ("", "female", "male")
        assert not clip.speaker or clip.speaker.startswith(f"{name}/")
        assert clip.license
        for ref in clip.audio:
            assert bool(ref.path) != bool(ref.speech)
            assert not ref.path.startswith("/") and ".." not in ref.path.split("/")
            if ref.path:
                # Where a layout has one official place, a clip may name it although the file is not there.
                assert "\\" not in ref.path
    assert len({clip.id for clip in clips}) == len(clips)
    manifest = str(tmp_path / "split.parquet")
    write_manifest(manifest, [Scanned(clip=clip) for clip in clips])
    assert [row.clip for row in read_manifest(manifest)] == clips
    for reason, told, detail in refused:
        assert re.fullmatch(r"[a-z_0-9]+", reason) and told and detail


@pytest.mark.parametrize("name", corpus_names())
def test_the_facts_of_a_corpus_are_whole(name: str) -> None:
    facts = load_corpus(name).facts
    assert facts.tasks and set(facts.tasks) <= set(TASKS)
    assert facts.homepage.startswith("http") and facts.license and facts.steps
    for split in facts.splits.values():
        assert split.clips > 0 and split.hours >= 0
        for archive in split.archives:
            assert re.fullmatch(r"[0-9a-f]{32}|", archive.md5) and re.fullmatch(r"[0-9a-f]{64}|", archive.sha256)
    for alias, splits in facts.aliases.items():
        assert alias not in facts.splits and set(splits) <= set(facts.splits)


def test_every_task_is_served_by_a_corpus() -> None:
    served = {task for name in corpus_names() for task in load_corpus(name).facts.tasks}
    assert served == set(TASKS)


def test_the_papers_recipe_names_every_corpus_and_every_task() -> None:
    recipe = load_recipe("salmonn")
    rows = [row for stage in recipe.stages for row in recipe.stage(stage)]
    assert recipe.stages == ("pretrain", "instruct", "activate", "evaluate")
    assert {row.task for row in rows} == set(TASKS)
    assert set(TABLE.split()) <= {row.corpus for row in rows}
    # The paper's total: about 2.3 M samples, and 4,400 h with every corpus counted once.
    assert sum(row.samples or 0 for row in recipe.instruct) == 2_367_300
    assert len({row.task for row in recipe.instruct}) == 12


def test_the_aliases_people_type_resolve() -> None:
    assert load_corpus("librispeech").expand("train-960") == ("train-clean-100", "train-clean-360", "train-other-500")
    assert load_corpus("gigaspeech").expand("m") == ("m",)
    assert load_corpus("iemocap").expand("train") == ("session1", "session2", "session3", "session4")


@pytest.fixture(scope="module")
def everything(corpora: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The dataset of the recipe `mini`: every corpus, task, reader and renderer."""
    place = tmp_path_factory.mktemp("everything")
    (place / "raw").mkdir()
    for name in corpus_names():
        (place / "raw" / name).symlink_to(corpora / name, target_is_directory=True)
    recipe = load_recipe("mini")
    for name in ("librispeech", "audiocaps", "wavcaps"):
        mine = [source for source in recipe.sources() if source[0] == name]
        annotate_by_rule(mine, str(place), str(place / "annotations" / name / "by-rule.json"))
    with Executor(2, head_start=600.0) as executor:
        build(recipe, str(place), str(place / "dataset"), executor=executor, shard_bytes=2**20)
    return Dataset(place / "dataset")


def test_all_corpora_build_into_one_dataset_and_no_clip_vanishes(everything: Dataset, corpora: Path) -> None:
    assert {source.corpus for source in everything.manifest.sources} == set(corpus_names())
    for source in everything.manifest.sources:
        clips, refused = read(corpora, source.corpus, source.split)
        assert source.found == len(clips) + len(refused)
        assert source.found == source.packed + source.quarantined + source.excluded
        assert source.packed, source
        kept = everything.table(source.corpus, source.split, ["id"])["id"].to_pylist()
        listed = pq.read_table(files.join(everything.url, source.quarantine.path))["id"].to_pylist()
        assert sorted(kept + listed) == sorted([clip.id for clip in clips] + [told for _, told, _ in refused])


def test_every_row_of_every_stage_is_dealt(everything: Dataset) -> None:
    recipe = load_recipe("mini")
    for stage in recipe.stages:
        stream = Stream(everything, recipe, stage=stage, epochs=3 if stage != "evaluate" else 1)
        dealt = Counter((example.task, example.corpus) for batch in stream for example in batch.examples)
        assert set(dealt) == {(row.task, row.corpus) for row in recipe.stage(stage)}


def test_pairs_mixtures_segments_and_speech_are_rendered(everything: Dataset) -> None:
    rendered: dict[str, set[str]] = {}
    for source in everything.manifest.sources:
        actions = everything.table(source.corpus, source.split, ["action"])["action"].to_pylist()
        rendered.setdefault(source.corpus, set()).update(actions)
    for corpus in ("gigaspeech", "voxceleb1", "librimix", "wikiqa", "inspec", "coreasoning"):
        assert "render" in rendered[corpus], corpus
    assert rendered["librispeech"] == {"copy"}
    asked = everything.table("coreasoning", "test").to_pylist()[0]
    assert re.match(r"speech by espeak-ng [\d.]+, voice \S+; ", asked["provenance"])
    assert rendered["covost2"] == {"transcode"}
