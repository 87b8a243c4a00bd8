"""Stories: told about chosen clips, refused where they are none, a dataset like any other, the same after a kill."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import digests
from manifests import TASKS, TooManyRefusals, UserError, load_recipe
from manifests.recipe import Recipe, Row
from pipelines.verify import shard_tasks, verify_index, verify_shard
from salmonn.proofread import NoStory, proofread
from salmonn.story import TRIES, Stories, write_stories
from salmonn.story_plan import RECIPE, STAGE, TASK, Telling, Writer, choose, make_telling
from shards import Dataset, Stream
from shards.audio import Wave, read_flac
from shards.refusals import STORIES

WRITER = Writer(run="instruct", step=7, weights="w" * 64, model="m" * 64, frozen="f" * 64, tools={"torch": "0"})
TELLING = Telling(count=4, max_new_tokens=40)
SOURCE = ("audiocaps", "train")
WORLD = {
    SOURCE: [(1600 + 160 * n, ("audio_caption",)) for n in range(20)],
    ("librispeech", "dev-clean"): [(3200, ("asr",))] * 3,
}
ANIMALS = ("A dog", "Two cats", "The old goat", "Some hens", "One very tired horse")


class Fabulist:
    """Tells what a model might, by the number of the clip it is asked about; `rotten` of them are no stories."""

    def __init__(self, rotten: dict[int, tuple[str, bool]] | None = None, killed_at: int | None = None) -> None:
        self.rotten, self.killed_at, self.asked = rotten or {}, killed_at, 0
        self.heard: list[Wave] = []

    def __call__(self, wave: Wave, prompt: str, seed: int) -> tuple[str, bool]:
        if self.asked == self.killed_at:
            raise KeyboardInterrupt
        assert prompt in TASKS[TASK].prompts
        self.heard.append(wave)
        self.asked += 1
        told = (
            f"{ANIMALS[seed % 5]} woke when a tone of {len(wave)} samples rang. By noon, {seed % 1009} more had come."
        )
        return self.rotten.get(self.asked - 1, (told, True))


@pytest.fixture(scope="module")
def world(make_dataset: Callable[..., Dataset]) -> Dataset:
    return make_dataset(WORLD, shards=3)


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe(RECIPE)


def tell(out: Path, world: Dataset, recipe: Recipe, teller: Fabulist, telling: Telling = TELLING) -> Stories:
    return write_stories(str(out), world, recipe, STAGE, telling, WRITER, teller)


def problems(folder: Path) -> list[str]:
    """All that a verification of every byte finds."""
    dataset = Dataset(folder)
    tasks = shard_tasks(str(folder), dataset.manifest.sources, decode=True)
    return [*verify_index(dataset), *(problem for task in tasks for problem in verify_shard(task).problems)]


# ---------------------------------------------------------------- what is a story


@pytest.mark.parametrize(
    ("text", "finished", "told"),
    [
        ("  A dog barks. It rains.  ", True, "A dog barks. It rains."),
        ("A dog barks and", True, "A dog barks and"),  # the model ended it so
        ("A dog barks. It rai", False, "A dog barks."),
        ('He said: "Run!" And they', False, 'He said: "Run!"'),
        ("It cost 3.50 and he laughed. Then", False, "It cost 3.50 and he laughed."),
        ("A dog barks. It rains.", False, "A dog barks. It rains."),
        ("\u72d7\u5728\u53eb\u3002\u5929\u5728\u4e0b", False, "\u72d7\u5728\u53eb\u3002"),
        ("The sea. \ufffd", False, "The sea."),  # a letter cut in two behind the last sentence
        ("No, no, no! cried the goat, and would not leave the hill.", True, None),
    ],
)
def test_a_story_is_kept_and_one_cut_off_ends_with_a_sentence(text: str, finished: bool, told: str | None) -> None:
    assert proofread(text, finished=finished) == (told or text)


@pytest.mark.parametrize(
    ("text", "finished", "reason"),
    [
        ("", True, "empty_story"),
        (" \n", False, "empty_story"),
        ("...", True, "empty_story"),
        ("... and then the", False, "empty_story"),  # what is whole of it has no word
        ("A dog barks and barks at", False, "unfinished_story"),
        ("A \ufffd dog.", True, "garbled_story"),
        ("the the the the the the the", True, "repeated_story"),
        ("A dog barks. " * 40, False, "repeated_story"),
        ("It began well, with a king. " + "And then he ran. " * 5, True, "repeated_story"),
        ("aaaaaaaaaaaaaaaaaaaaaaaa", True, "repeated_story"),
        ("\u72d7\u53eb" * 20, True, "repeated_story"),
    ],
)
def test_what_is_no_story_is_refused_with_its_reason(text: str, finished: bool, reason: str) -> None:
    with pytest.raises(NoStory) as none:
        proofread(text, finished=finished)
    assert none.value.reason == reason in STORIES
    assert len(none.value.detail) <= 120


@given(st.text(alphabet="ab .!\u3002\ufffd\n", max_size=60), st.booleans())
def test_proofreading_twice_changes_nothing(text: str, finished: bool) -> None:
    try:
        story = proofread(text, finished=finished)
    except NoStory:
        return
    assert story == story.strip() and story in text and any(map(str.isalnum, story)) and "\ufffd" not in story
    assert proofread(story, finished=True) == proofread(story, finished=finished) == story


def test_prose_cut_anywhere_is_no_loop() -> None:
    text = (Path(__file__).parents[1] / "ARCHITECTURE.md").read_text()
    prose = " ".join(line for line in text.splitlines() if line[:1].isalpha())
    for start in range(0, min(len(prose), 8000), 400):
        for length in (60, 250, 1000):
            piece = prose[start : start + length].strip()
            assert proofread(piece, finished=True) == piece


# ---------------------------------------------------------------- which clips


def test_clips_are_chosen_by_seed_each_once_and_within_the_rows_bounds(world: Dataset, recipe: Recipe) -> None:
    orders = [[choice.key for choice in choose(world, recipe, STAGE, seed)] for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert len(set(orders[0])) == 20
    assert set(orders[0]) == set(orders[2]) == set(world.table(*SOURCE)["key"].to_pylist())
    [row] = recipe.activate
    short = msgspec.structs.replace(recipe, activate=(msgspec.structs.replace(row, max_seconds=0.15),))
    chosen = choose(world, short, STAGE, 0)
    assert [c.key for c in chosen] == [key for key in orders[0] if key in {c.key for c in chosen}]
    rows = {row["key"]: row["seconds"] for row in world.table(*SOURCE).to_pylist()}
    assert {c.key for c in chosen} == {key for key, seconds in rows.items() if seconds <= 0.15}


def test_splits_take_turns(make_dataset: Callable[..., Dataset]) -> None:
    world = make_dataset(
        {("audiocaps", "train"): [(1600, ("audio_caption",))] * 9, ("audiocaps", "val"): [(1600, ())] * 3}
    )
    rows = tuple(Row(task=TASK, corpus="audiocaps", splits=(split,)) for split in ("train", "val"))
    splits = [choice.split for choice in choose(world, Recipe(title="t", name="t", activate=rows), STAGE, 0)]
    assert splits == ["train", "val"] * 3 + ["train"] * 6


# ---------------------------------------------------------------- the dataset


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, world: Dataset, recipe: Recipe) -> Path:
    out = tmp_path_factory.mktemp("told") / "stories"
    rotten = {1: ("", True), 2: ("no no no no no no no no", True)}
    made = tell(out, world, recipe, Fabulist(rotten))
    assert (made.tried, made.asked, made.reasons) == (6, 6, {"empty_story": 1, "repeated_story": 1})
    return out


def test_the_dataset_is_whole_and_says_who_wrote_it(told: Path, world: Dataset) -> None:
    assert problems(told) == []
    dataset = Dataset(told)
    [source] = dataset.manifest.sources
    assert (source.found, source.packed, source.excluded, source.quarantined) == (6, 4, 2, 0)
    assert (source.tasks, source.license, source.published_clips) == ((TASK,), "CC0-1.0", 20)
    quarantined = pq.read_table(told / source.quarantine.path).to_pylist()
    assert [(row["verdict"], row["reason"]) for row in quarantined] == [
        ("excluded", "empty_story"),
        ("excluded", "repeated_story"),
    ]
    provenance = dataset.manifest.provenance
    assert {name: provenance[name] for name in ("run", "step", "lora_scale", "seed", "decoding", "clips_of")} == {
        "run": "instruct",
        "step": "7",
        "lora_scale": "0.5",
        "seed": "0",
        "decoding": "4 beams",
        "clips_of": world.digest,
    }
    assert "written by a model" in (told / "README.md").read_text()
    assert not (told / "build").exists()


def test_audio_is_copied_and_one_story_stands_in_place_of_all_instructions(told: Path, world: Dataset) -> None:
    dataset = Dataset(told)
    for row in dataset.table(*SOURCE).to_pylist():
        was = world.row(row["key"])
        places = {"shard", "flac_offset", "json_offset", "json_bytes", "json_crc32"}
        changed = places | {"tasks", "prompts", "answers", "prompt_traits", "answer_traits"}
        for name in row.keys() - changed:
            assert row[name] == was[name] or row[name] != row[name], name  # NaN is not itself
        both = []
        for url, of in ((told, row), (Path(world.url), was)):
            shard = (url / of["shard"]).read_bytes()
            both.append(shard[of["flac_offset"] : of["flac_offset"] + of["flac_bytes"]])
        assert both[0] == both[1]
        assert row["tasks"] == [TASK]
        assert row["prompts"][0] in TASKS[TASK].prompts
        assert [len(answers) for answers in row["answers"]] == [1]
        assert [[one["bytes"] for one in of] for of in row["answer_traits"]] == [[len(row["answers"][0][0].encode())]]


def test_the_model_hears_what_is_stored_up_to_half_a_minute(
    make_dataset: Callable[..., Dataset], recipe: Recipe, tmp_path: Path
) -> None:
    world = make_dataset({SOURCE: [(16_000 * 31, ("audio_caption",)), (1601, ())]})
    teller = Fabulist()
    tell(tmp_path, world, recipe, teller, Telling(count=2))
    assert sorted(len(wave) for wave in teller.heard) == [1601, 16_000 * 30]
    for row in world.table(*SOURCE).to_pylist():
        content = (Path(world.url) / row["shard"]).read_bytes()[row["flac_offset"] :][: row["flac_bytes"]]
        [wave] = [w for w in teller.heard if len(w) == min(row["samples"], 480_000)]
        assert np.array_equal(wave * 32768, read_flac(content, "x")[: len(wave)])


def test_the_same_bytes_whenever_it_is_killed(
    told: Path, world: Dataset, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rotten = {1: ("", True), 2: ("no no no no no no no no", True)}
    for kill in range(6):
        out = tmp_path / f"killed-{kill}"
        with pytest.raises(KeyboardInterrupt):
            tell(out, world, recipe, Fabulist(rotten, killed_at=kill))
        with pytest.raises(UserError, match="its build has not finished, run it again"):
            Dataset(out)
        again = {number - kill: story for number, story in rotten.items()}
        made = tell(out, world, recipe, Fabulist(again))
        assert made.asked == 6 - kill
        assert digests(out) == digests(told)
    # Killed when all was told but not all written; and a finished one is left alone.
    from shards import finishing

    with monkeypatch.context() as patch:
        patch.setattr(finishing, "card", lambda manifest: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            tell(tmp_path / "late", world, recipe, Fabulist(rotten))
    assert tell(tmp_path / "late", world, recipe, Fabulist()).asked == 0
    assert digests(tmp_path / "late") == digests(told)
    again_made = tell(told, world, recipe, Fabulist(killed_at=0))
    assert (again_made.asked, again_made.tried, len(again_made.stories)) == (0, 6, 4)


def test_a_recipe_streams_it_and_webdataset_reads_it(told: Path, recipe: Recipe) -> None:
    webdataset = pytest.importorskip("webdataset")
    stream = Stream(Dataset(told), recipe, stage=STAGE, epochs=1, max_examples=1)
    dealt = {example.key: example.answer for batch in stream for example in batch.examples}
    paths = [str(told / file.path) for source in Dataset(told).manifest.sources for file in source.shards]
    read = {
        sample["__key__"]: json.loads(sample["json"])["instructions"][0]["answers"][0]
        for sample in webdataset.WebDataset(paths, shardshuffle=False)
    }
    assert dealt == read and len(dealt) == 4


def test_the_audit_of_its_recipe_passes(
    make_dataset: Callable[..., Dataset], recipe: Recipe, tmp_path: Path, world: Dataset
) -> None:
    from shards.audit import audit

    tell(tmp_path, world, recipe, Fabulist(), Telling())
    report = audit(Dataset(tmp_path), recipe)
    # Nobody measured the clips of this world, which is said; nothing else is wrong.
    odd = {gate.name: gate.sentence for gate in report.gates if gate.verdict != "PASS"}
    assert odd.keys() == {"quality"} and "not measured" in odd["quality"]


# ---------------------------------------------------------------- what is refused


def test_a_story_is_not_told_twice_and_too_few_stories_stop_it(world: Dataset, recipe: Recipe, tmp_path: Path) -> None:
    same = {number: ("The same old story.", True) for number in range(99)}
    with pytest.raises(TooManyRefusals, match=r"only 1 of 4 stories came of 16 clips \(same_story 15\)"):
        tell(tmp_path, world, recipe, Fabulist(same))
    assert TRIES * TELLING.count == 16


def test_a_damaged_clip_is_quarantined_and_the_next_is_taken(world: Dataset, recipe: Recipe, tmp_path: Path) -> None:
    shutil.copytree(world.url, tmp_path / "world")
    first = choose(world, recipe, STAGE, 0)[0]
    row = world.row(first.key)
    shard = tmp_path / "world" / row["shard"]
    content = bytearray(shard.read_bytes())
    content[row["flac_offset"] + row["flac_bytes"] - 1] ^= 1
    shard.write_bytes(content)
    made = tell(tmp_path / "out", Dataset(tmp_path / "world"), recipe, Fabulist())
    assert (made.tried, made.reasons) == (5, {"corrupt": 1})
    [source] = Dataset(tmp_path / "out").manifest.sources
    assert (source.quarantined, source.packed) == (1, 4)
    assert problems(tmp_path / "out") == []


def test_another_telling_into_the_same_folder_is_refused_by_name(
    told: Path, world: Dataset, recipe: Recipe, tmp_path: Path
) -> None:
    weaker = msgspec.structs.replace(TELLING, lora_scale=0.25)
    with pytest.raises(UserError, match=r"holds another dataset \(run instruct, step 7, lora_scale 0.5, seed 0\)"):
        tell(told, world, recipe, Fabulist(), weaker)
    with pytest.raises(KeyboardInterrupt):
        tell(tmp_path, world, recipe, Fabulist(killed_at=2))
    with pytest.raises(UserError, match=r"was begun otherwise: lora_scale was 0\.5, is 0\.25\. Go back, or"):
        tell(tmp_path, world, recipe, Fabulist(), weaker)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("mine")
    with pytest.raises(UserError, match=r"is not empty and holds no dataset \(letter\.txt"):
        tell(tmp_path / "home", world, recipe, Fabulist())
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["letter.txt"]


def test_a_mistake_is_one_sentence(world: Dataset, recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"names 20 clips of .*, too few for 21 stories; lower --count"):
        tell(tmp_path / "o", world, recipe, Fabulist(), Telling(count=21))
    speech = Recipe(title="s", name="s", activate=(Row(task="asr", corpus="librispeech", splits=("dev-clean",)),))
    with pytest.raises(UserError, match=r"stage 'activate' of recipe 's' has no corpus that serves .* 'audio_story'"):
        tell(tmp_path / "o", world, speech, Fabulist())
    other = Recipe(title="s", name="s", activate=(Row(task=TASK, corpus="audiocaps", splits=("val",)),))
    with pytest.raises(UserError, match=r"has no audiocaps:val; did you mean 'audiocaps:train'\?"):
        tell(tmp_path / "o", world, other, Fabulist())
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("count", "scale", "beams", "sample", "tokens", "said"),
    [
        (0, 0.5, None, None, 200, "count is 0"),
        (12, 1.5, None, None, 200, r"lora_scale is 1\.5; stories need one from 0"),
        (12, float("nan"), None, None, 200, "lora_scale is nan"),
        (12, 0.5, 0, None, 200, "beams 0"),
        (12, 0.5, None, 0.0, 200, r"--sample is 0\.0; the temperature must be above 0"),
        (12, 0.5, None, float("inf"), 200, "the temperature is inf"),
        (12, 0.5, 4, 0.7, 200, r"--sample 0\.7 draws tokens and --beams 4 searches for them"),
        (12, 0.5, None, None, 0, "max_new_tokens 0"),
    ],
)
def test_how_stories_are_told_is_checked(
    count: int, scale: float, beams: int | None, sample: float | None, tokens: int, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        make_telling(count, scale, 0, beams, sample, tokens)


def test_drawing_takes_one_beam() -> None:
    assert make_telling(12, 0.5, 0, None, 0.7, 200).beams == 1
    assert make_telling(12, 0.5, 0, None, None, 200) == Telling()


# ---------------------------------------------------------------- the model


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from salmonn.training.trainer import run_training
    from tiny_model import ToneStream, config

    folder = tmp_path_factory.mktemp("runs") / "instruct"
    run_training(config(folder, steps=2), ToneStream())
    return folder


def test_a_run_tells_at_its_scale_and_the_same_whatever_it_told_before(run: Path) -> None:
    from salmonn.teller import RunTeller
    from salmonn.training.run import load_run
    from tiny_model import tone

    telling = Telling(beams=2, max_new_tokens=5, lora_scale=0.25)
    teller = RunTeller(str(run), telling)
    weights = run / "checkpoints" / "step-000002" / "model.safetensors"
    assert teller.writer.run == "instruct"
    assert msgspec.json.decode(msgspec.json.encode(teller.writer), type=Writer) == teller.writer
    assert (teller.writer.step, teller.writer.weights) == (2, hashlib.sha256(weights.read_bytes()).hexdigest())
    _, model, _ = load_run(run)
    waves = [tone(300, 0.5), tone(2000, 0.7)]
    said = [teller(wave, "Tell a story.", seed) for seed, wave in enumerate(waves)]
    wrapped = model.config.prompt.wrap("Tell a story.")
    ids = [model.generate_ids([wave], [wrapped], 2, 5, 0.25)[0] for wave in waves]
    assert said == [(model.decode(one), one[-1] == model.tokenizer.eos_token_id) for one in ids]
    assert teller(waves[0], "Tell a story.", 7) == said[0]
    asked = []
    model.generate_ids = lambda *values: asked.append(values) or [[1]]
    teller.model = model
    teller(waves[0], "Tell a story.", 0)
    assert asked[0][2:] == (2, 5, 0.25, 0.0)


def test_tokens_are_drawn_by_the_seed_and_other_random_numbers_are_left_alone(run: Path) -> None:
    import torch

    from salmonn.teller import RunTeller
    from tiny_model import tone

    teller = RunTeller(str(run), Telling(beams=1, temperature=1.0, max_new_tokens=6))
    before = torch.get_rng_state()
    said = [teller(tone(300, 0.5), "Tell a story.", seed)[0] for seed in (2**64 - 1, 1, 2**64 - 1, 3)]
    assert said[0] == said[2]
    assert len(set(said)) > 1
    assert torch.equal(torch.get_rng_state(), before)


def test_a_run_without_a_checkpoint_tells_nothing(run: Path, tmp_path: Path) -> None:
    from salmonn.teller import RunTeller

    shutil.copy(run / "config.json", tmp_path / "config.json")
    with pytest.raises(UserError, match="has no checkpoint yet; train it first"):
        RunTeller(str(tmp_path), TELLING)


STAGE_2 = """title = "Captions, then stories"

[[instruct]]
task = "audio_caption"
corpus = "audiocaps"
splits = ["train"]
"""


@pytest.mark.slow
def test_the_stage_as_a_user_walks_it(make_dataset: Callable[..., Dataset], tmp_path: Path) -> None:
    """Train, let the run tell stories, learn them at a constant rate: they are learnt, and the rest stays as it was."""
    from typer.testing import CliRunner

    from salmonn.cli import app
    from salmonn.config import OptimizerConfig
    from salmonn.training.run import Log, load_run
    from salmonn.training.settings import BatchConfig
    from salmonn.training.trainer import train
    from tiny_model import MODEL, config

    world = make_dataset({SOURCE: [(1600 * (n + 1), ("audio_caption",)) for n in range(20)]}, shards=2)
    (tmp_path / "two.toml").write_text(STAGE_2)
    model = msgspec.structs.replace(MODEL, max_answer_tokens=40)
    settings = {"model": model, "checkpoint_every": 100}
    rates = OptimizerConfig(start_lr=1e-3, peak_lr=1e-2, final_lr=3e-3, warmup_steps=5, clip_norm=1.0)
    two = config(
        tmp_path / "instruct",
        dataset=world.url,
        recipe=str(tmp_path / "two.toml"),
        steps=40,
        optimizer=rates,
        **settings,
    )
    train(two)

    def story(out: str, *more: str) -> str:
        command = ["story", str(tmp_path / "instruct"), "--out", str(tmp_path / out), "--count", "4", "--sample", "0.8"]
        done = CliRunner().invoke(app, [*command, "--max-new-tokens", "30", *more])
        assert done.exit_code == 0, (done.output, done.exception)
        return done.output

    assert "4 stories of" in story("stories") and "recipe = 'stories', stage = 'activate'" in story("stories")
    story("again")
    assert digests(tmp_path / "again") == digests(tmp_path / "stories")
    story("other", "--seed", "1")
    assert Dataset(tmp_path / "other").digest != Dataset(tmp_path / "stories").digest
    assert problems(tmp_path / "stories") == []

    three = config(
        tmp_path / "activate",
        dataset=str(tmp_path / "stories"),
        recipe=RECIPE,
        stage=STAGE,
        steps=12,
        init_from=str(tmp_path / "instruct"),
        parts=("qformer", "lora"),
        optimizer=OptimizerConfig(schedule="constant", peak_lr=3e-3, start_lr=0.0, final_lr=0.0, weight_decay=0.0),
        batch=BatchConfig(max_examples=1),
        **settings,
    )
    result = train(three)
    lines = Log(tmp_path / "activate").lines()
    assert result.steps == 12 and {line.lr for line in lines} == {3e-3}
    assert {line.examples for line in lines} == {1} and {task for line in lines for task in line.tasks} == {TASK}
    assert sum(line.loss for line in lines[-4:]) < sum(line.loss for line in lines[:4])
    (_, before, _), (_, after, _) = load_run(tmp_path / "instruct"), load_run(tmp_path / "activate")
    assert before.frozen_digest() == after.frozen_digest()
    was, now = before.trainable_state(), after.trainable_state()
    learnt = {name for part in ("qformer", "lora") for name in after.parts()[part]}
    changed = {name for name in was if not was[name].equal(now[name])}
    assert changed and changed <= learnt
    assert {name for name in was if "embed_tokens" in name} and not {name for name in changed if "embed_tokens" in name}
