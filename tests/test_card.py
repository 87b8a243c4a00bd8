"""The papers of a dataset: its card as the Hub reads it, its listing for a person, and whose work it is."""

from __future__ import annotations

import re
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pyarrow.compute as pc
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from conftest import World, digests
from manifests import TASKS, Recipe
from shards import Dataset
from shards.attribution import attribution
from shards.card import CATEGORIES, SIZES, card, size_category
from shards.finishing import PAPERS, publish
from shards.markdown import LONGEST, plain, quoted
from shards.papers import Example, Papers, gather, refusals

WORLD: World = {
    ("librispeech", "dev-clean"): [(1600, ("asr", "gender_recognition"))] * 5,
    ("librispeech", "test-clean"): [(800, ("asr",))] * 3,
    ("clotho", "evaluation"): [(3200, ("audio_caption",))] * 4,
    ("covost2", "test"): [(1600, ("asr", "translation_en_zh"))] * 2,
    ("musicnet", "test"): [],  # all of it was refused
}
HOSTILE = "<script>alert(1)</script> | x\n\n---\n[a](javascript:b) `c` ![d](http://e) www.f.example \x1b[31m &lt; $\\x$"


@pytest.fixture(scope="module")
def folder(make_dataset: Callable[..., Dataset]) -> Path:
    dataset = make_dataset(WORLD, shards=2)
    for path in Path(dataset.url).glob("shards/musicnet/*"):  # nothing was packed into them
        path.unlink()
    publish(dataset.url, stated(dataset))
    return Path(dataset.url)


def stated(dataset: Dataset) -> msgspec.Struct:
    """The manifest with licences of three kinds."""
    licences = {"librispeech": "CC-BY-4.0", "clotho": "CC by clip, Tampere University captions"}
    sources = tuple(
        msgspec.structs.replace(source, license=licences.get(source.corpus, "CC0-1.0"), shards=source.shards)
        if source.packed
        else msgspec.structs.replace(source, shards=())
        for source in dataset.manifest.sources
    )
    return msgspec.structs.replace(dataset.manifest, sources=sources)


@pytest.fixture(scope="module")
def papers(folder: Path) -> Papers:
    return gather(str(folder), Dataset(folder).manifest)


def head_of(text: str) -> dict:
    """The YAML of a card."""
    _, head, body = text.split("---\n", 2)
    assert body.startswith("\n# ")
    return yaml.safe_load(head)


def table(text: str, first: str) -> list[list[str]]:
    """The cells of the table whose first column has this name."""
    lines = text[text.index(f"\n| {first} |") + 1 :].splitlines()
    found = [line for line in lines[: next(n for n, line in enumerate([*lines, ""]) if not line.startswith("|"))]]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in found[2:]]


def test_the_hub_s_library_reads_the_card_and_finds_every_shard(folder: Path) -> None:
    from huggingface_hub import DatasetCard, DatasetCardData

    data = DatasetCard.load(folder / "README.md").data
    assert isinstance(data, DatasetCardData)
    told = data.to_dict()
    assert told["pretty_name"] == "A small world" and told["size_categories"] == ["n<1K"]
    assert told["language"] == ["en", "zh"]
    assert told["task_categories"] == [
        "audio-classification",
        "audio-text-to-text",
        "automatic-speech-recognition",
        "text-generation",
        "translation",
    ]
    # Clotho's captions are for non-commercial use under a licence that the Hub has no name for: it holds for all.
    assert (told["license"], told["license_link"]) == ("other", "ATTRIBUTION.md")
    assert told["license_name"] == "creative-commons-by-clip-captions-of-tampere-university"
    # One configuration a corpus, but for the one without shards.
    assert [config["config_name"] for config in told["configs"]] == ["clotho", "covost2", "librispeech"]
    named = {
        (config["config_name"], part["split"]): part["path"]
        for config in told["configs"]
        for part in config["data_files"]
    }
    for source in Dataset(folder).manifest.sources:
        paths = [file.path for file in source.shards]
        assert named.pop((source.corpus, source.split.replace("-", "_")), []) == paths
    assert not named


def test_a_licence_of_the_hub_stands_where_it_covers_all(make_dataset: Callable[..., Dataset]) -> None:
    dataset = make_dataset({("librispeech", "dev-clean"): [(1600, ("asr",))], ("covost2", "test"): [(1600, ("asr",))]})
    both = {"librispeech": "CC-BY-4.0", "covost2": "CC0-1.0"}
    sources = [msgspec.structs.replace(one, license=both[one.corpus]) for one in dataset.manifest.sources]
    told = gather(dataset.url, msgspec.structs.replace(dataset.manifest, sources=tuple(sources)))
    head = head_of(card(told))
    assert head["license"] == "cc-by-4.0" and "license_name" not in head


def test_the_listing_gives_the_numbers_of_the_index(folder: Path) -> None:
    text, dataset = (folder / "README.md").read_text(), Dataset(folder)
    listed = table(text, "corpus")
    assert [row[:3] for row in listed] == [[s.corpus, s.split, str(s.packed)] for s in dataset.manifest.sources]
    assert [row[6] for row in listed] == [", ".join(source.tasks) for source in dataset.manifest.sources]
    asked: dict[str, int] = {}
    for source in dataset.manifest.sources:
        for task in pc.list_flatten(dataset.table(source.corpus, source.split)["tasks"]).to_pylist():
            asked[task] = asked.get(task, 0) + 1
    tasks = table(text, "task")
    assert {row[0]: int(row[1]) for row in tasks} == asked and len(asked) == 4
    for task, _, about, prompt, answer in tasks:
        assert about == TASKS[task].about and answer.endswith("*(and 1 more)*")
        assert prompt == f"Stored prompt of {task}.".replace("_", r"\_")
    assert "14 clips" in text and "21 instructions" in text


def test_attribution_names_every_corpus_its_authors_and_what_its_clips_state(folder: Path) -> None:
    text = (folder / "ATTRIBUTION.md").read_text()
    sections = dict(zip(*[iter(re.split(r"(?m)^## .* \(`(\w+)`\)$", text)[1:])] * 2, strict=True))
    assert list(sections) == ["clotho", "covost2", "librispeech", "musicnet"]
    assert "K. Drossos" in sections["clotho"] and "clotho\\_metadata" in sections["clotho"]
    assert (
        "V. Panayotov" in sections["librispeech"] and "creativecommons.org/licenses/by/4.0" in sections["librispeech"]
    )
    assert "Mozilla Data Collective" in sections["covost2"]
    assert "No clip of it was packed" in sections["musicnet"]
    assert "8 decoded, brought to 16 kHz" in sections["librispeech"]
    cells = table(sections["clotho"], "licence that a clip states")
    assert [(row[0].split()[0], row[1]) for row in cells] == [("CC0-1.0", "4")]
    # What the corpus states holds beside it: its captions are not for commercial use.
    assert "passed on as here" in cells[0][2] and "commercially" not in cells[0][2]


def test_papers_depend_on_the_dataset_alone_and_are_no_part_of_what_is_verified(folder: Path, tmp_path: Path) -> None:
    from pipelines.collect import orphans
    from pipelines.verify import verify_index

    shutil.copytree(folder, tmp_path / "copy")
    for name in PAPERS:
        (tmp_path / "copy" / name).unlink()
    publish(str(tmp_path / "copy"), Dataset(folder).manifest)
    assert digests(tmp_path / "copy") == digests(folder)
    assert orphans(str(tmp_path / "copy")) == []
    assert verify_index(Dataset(tmp_path / "copy")) == []


def test_which_corpora_may_not_be_published_is_said_with_the_clips_that_forbid_it(papers: Papers) -> None:
    assert refusals(papers) == {}
    parts = [
        msgspec.structs.replace(part, licences={"CC0-1.0": 3, "CC-BY-NC-ND-4.0": 1})
        if part.source.corpus == "clotho"
        else part
        for part in papers.parts
    ]
    found = refusals(msgspec.structs.replace(papers, parts=tuple(parts)))
    assert list(found) == ["clotho"] and found["clotho"].startswith("1 of its 4 clips, ")
    assert "nothing made of it may be passed on" in found["clotho"]


@given(st.text(max_size=200), st.text(max_size=200))
def test_whatever_a_text_holds_the_yaml_gives_it_back_and_the_table_keeps_its_cells(
    papers: Papers, title: str, said: str
) -> None:
    example = Example(task="asr", key="k", prompt=said, answers=(said, said))
    part = msgspec.structs.replace(papers.parts[-1], examples=(example,), instructions={"asr": 1})
    manifest = msgspec.structs.replace(papers.manifest, title=title)
    text = card(msgspec.structs.replace(papers, parts=(part,), manifest=manifest))
    assert head_of(text)["pretty_name"] == title
    [row] = table(text, "task")
    assert len(row) == 5 and row[3] == plain(said).strip()


def test_no_text_of_others_becomes_markup(papers: Papers) -> None:
    shown = plain(HOSTILE, 999)
    assert "\n" not in shown and "\x1b" not in shown
    bare = re.sub(r"\\[\\`*_\[\]<>|~$&@:.]", "", shown)
    assert not re.search(r"[<>`\[\]|&$*_]|://|www\.", bare)
    part = msgspec.structs.replace(papers.parts[0], licences={HOSTILE: 1})
    told = msgspec.structs.replace(papers, parts=(part,))
    for text in (card(told).split("---\n")[2], attribution(told)):
        assert "alert" in text and "alert" not in text.replace(shown, "")
    assert len(plain("word " * 999)) <= LONGEST and plain("word " * 999).endswith("...")
    assert yaml.safe_load(quoted("\u2028\x85\x00\U0001f600")) == "\u2028\x85\x00\U0001f600"


def test_the_hub_s_classes_of_size() -> None:
    edges = [10**power for power in range(3, 11)]
    assert [size_category(edge - 1) for edge in edges] == list(SIZES)
    assert [size_category(edge) for edge in edges] == [*SIZES[1:], SIZES[-1]]
    assert size_category(0) == "n<1K"


def test_every_task_has_a_category_that_the_hub_knows() -> None:
    from datasets.utils.metadata import known_task_ids

    assert set(CATEGORIES) == set(TASKS)
    assert set(CATEGORIES.values()) <= set(known_task_ids)


def test_datasets_reads_every_split_of_a_build_by_its_configuration(built: Path, tmp_path: Path) -> None:
    import datasets

    sources = Dataset(built).manifest.sources
    assert sorted(datasets.get_dataset_config_names(str(built))) == sorted({s.corpus for s in sources if s.shards})
    for corpus in sorted({source.corpus for source in sources}):
        splits = datasets.load_dataset(str(built), corpus, streaming=True, cache_dir=str(tmp_path))
        mine = {source.split.replace("-", "_"): source for source in sources if source.corpus == corpus}
        assert set(splits) == set(mine)
        for name, source in mine.items():
            raw = splits[name].cast(datasets.Features(splits[name].features | {"flac": datasets.Value("binary")}))
            keys = [sample["__key__"] for sample in raw]
            assert keys == Dataset(built).table(corpus, source.split, ["key"])["key"].to_pylist()


def test_the_card_s_own_program_runs(
    folder: Path, make_recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import manifests

    [program] = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), flags=re.DOTALL)
    recipe = make_recipe(("asr", "librispeech", ("dev-clean",), None))
    monkeypatch.setattr(manifests, "load_recipe", lambda name: recipe if name == "small" else None)
    seen: list = []
    loops = re.sub(r"(?m)^    (.+)$", r"    seen.append((\1)); break", program)
    (tmp_path / "program.py").write_text(loops.replace("DATASET", str(folder)))
    runpy.run_path(str(tmp_path / "program.py"), {"seen": seen})
    flac, webdataset, batch = seen
    assert flac[0] == webdataset[0] and flac[2] == webdataset[2] and flac[2][:4] == b"fLaC"
    assert [one["task"] for one in flac[1]] == [one["task"] for one in webdataset[1]] == ["audio_caption"]
    assert {one[1] for one in batch} == {"asr"}
