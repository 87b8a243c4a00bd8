"""Recipes: the bundled ones load, every mistake is named with the nearest right value, the digest is of the mixture."""

from __future__ import annotations

from pathlib import Path

import pytest

from manifests import TASKS, Recipe, UserError, load_corpus, load_recipe, recipe_names

ROW = '[[instruct]]\ntask = "asr"\ncorpus = "librispeech"\nsplits = ["dev-clean"]\n'
OTHER = '[[instruct]]\ntask = "audio_caption"\ncorpus = "audiocaps"\nsplits = ["val"]\n'


def read(tmp_path: Path, text: str, name: str = "mine") -> Recipe:
    place = tmp_path / f"{name}.toml"
    place.write_text('title = "Mine"\n' + text)
    return load_recipe(place)


@pytest.mark.parametrize("name", recipe_names())
def test_a_bundled_recipe_loads_and_names_what_there_is(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.title
    for stage in recipe.stages:
        for row in recipe.stage(stage):
            assert row.task in TASKS
            assert set(row.splits) <= set(load_corpus(row.corpus).splits)


def test_the_miniature_is_among_the_bundled() -> None:
    assert "mini" in recipe_names()
    assert set(load_recipe("mini").stages) >= {"pretrain", "instruct", "evaluate"}


def test_a_recipe_is_called_as_its_file(tmp_path: Path) -> None:
    recipe = read(tmp_path, ROW, name="breakfast")
    assert recipe.name == "breakfast"
    assert recipe.stages == ("instruct",)
    assert recipe.stage("instruct")[0].name == "asr of librispeech"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        # keys
        (f"tilte = 'x'\n{ROW}", r"unknown key 'tilte'; did you mean 'title'\?"),
        (ROW.replace("[[instruct]]", "[[instruckt]]"), r"unknown key 'instruckt'; did you mean 'instruct'\?"),
        (ROW + "wieght = 1.0", r"unknown key 'wieght' in \[instruct.*\]; did you mean 'weight'\?"),
        (ROW + "[instruct.extra]\na = 1", r"unknown key 'extra' in \[instruct.*\]"),
        # types
        (ROW + 'weight = "half"', r"weight"),
        (ROW.replace('["dev-clean"]', '"dev-clean"'), r"splits"),
        (ROW + "samples = 1.5", r"samples"),
        (ROW.replace('task = "asr"\n', ""), r"task"),
        ("[instruct]\ntask = 'asr'", r"instruct"),
        # names
        (ROW.replace('"asr"', '"asrr"'), r"no task 'asrr'; did you mean 'asr'\?"),
        (ROW.replace("librispeech", "librispech"), r"no corpus 'librispech'; did you mean 'librispeech'\?"),
        (ROW.replace("dev-clean", "dev-clear"), r"librispeech has no split 'dev-clear'; did you mean 'dev-clean'\?"),
        (ROW.replace('["dev-clean"]', "[]"), r"asr of librispeech has no splits; librispeech has .*dev-clean"),
        (
            ROW.replace('"asr"', '"audio_caption"'),
            r"librispeech does not serve the task 'audio_caption'; it serves asr",
        ),
        # weights
        (ROW + "weight = 0.0", r"weight of asr of librispeech is 0\.0; it must be above 0"),
        (ROW + "weight = -1.0", r"weight of asr of librispeech is -1\.0"),
        (ROW + "weight = nan", r"weight of asr of librispeech is nan"),
        (ROW + "weight = inf", r"weight of asr of librispeech is inf"),
        (ROW + "weight = 1.0\n" + OTHER, r"audio_caption of audiocaps has no weight but other rows have"),
        # twice
        (ROW + ROW, r"asr of librispeech:dev-clean stands in two rows"),
        (ROW.replace('["dev-clean"]', '["dev-clean", "dev-clean"]'), r"asr of librispeech:dev-clean stands in"),
        # nothing
        ("", r"no stage has a row"),
        ("instruct = []", r"no stage has a row"),
        ("[[", r"not valid TOML"),
    ],
)
def test_a_mistake_is_named_with_what_would_be_right(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        read(tmp_path, text)


@pytest.mark.parametrize("wrong", ["asrr", "librispech", "dev-clear"])
def test_a_wrong_name_is_told_with_the_file_and_the_stage_it_stands_in(tmp_path: Path, wrong: str) -> None:
    right = {"asrr": "asr", "librispech": "librispeech", "dev-clear": "dev-clean"}[wrong]
    with pytest.raises(UserError, match=r"mine\.toml.*'instruct'"):
        read(tmp_path, ROW.replace(f'"{right}"', f'"{wrong}"'))


def test_one_split_may_serve_two_tasks_and_two_stages(tmp_path: Path) -> None:
    gender = ROW.replace('"asr"', '"gender_recognition"')
    recipe = read(tmp_path, ROW + gender + ROW.replace("[[instruct]]", "[[evaluate]]"))
    assert recipe.stages == ("instruct", "evaluate")
    assert recipe.sources() == {("librispeech", "dev-clean"): ("asr", "gender_recognition")}


def test_a_recipe_that_is_not_there_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"no recipe 'minni'; did you mean 'mini'\?"):
        load_recipe("minni")
    with pytest.raises(UserError, match=r"no settings file 'nowhere/mine\.toml'"):
        load_recipe("nowhere/mine.toml")


def test_a_stage_that_is_not_there_lists_those_that_are(tmp_path: Path) -> None:
    recipe = read(tmp_path, ROW)
    for absent in ("pretrain", "instrct", "title", "name"):
        with pytest.raises(UserError, match=rf"recipe 'mine' has no stage '{absent}'; it has instruct"):
            recipe.stage(absent)


def test_sources_are_the_union_over_stages_sorted(tmp_path: Path) -> None:
    sources = read(tmp_path, OTHER + ROW).sources()
    assert list(sources) == [("audiocaps", "val"), ("librispeech", "dev-clean")]
    mini = load_recipe(Path(__file__).parent / "two.toml").sources()
    assert mini["librispeech", "train-clean-100"] == ("asr", "gender_recognition", "phone_recognition")
    assert mini["librispeech", "test-other"] == ("asr", "gender_recognition")
    assert mini["audiocaps", "train"] == ("audio_caption",)


def test_the_digest_is_of_the_mixture_and_not_of_targets_titles_or_names(tmp_path: Path) -> None:
    plain = read(tmp_path, ROW + "weight = 0.5")
    aims = read(tmp_path, ROW + "weight = 0.5\nhours = 5.4\nsamples = 2703", name="renamed")
    assert plain.digest("instruct") == aims.digest("instruct")


@pytest.mark.parametrize(
    "text",
    [
        ROW,
        ROW + "weight = 0.25",
        ROW.replace("dev-clean", "dev-other") + "weight = 0.5",
        ROW.replace('"asr"', '"phone_recognition"') + "weight = 0.5",
        ROW + "weight = 0.5\n" + OTHER + "weight = 0.5",
    ],
)
def test_the_digest_changes_with_all_that_the_order_depends_on(tmp_path: Path, text: str) -> None:
    plain = read(tmp_path, ROW + "weight = 0.5")
    assert plain.digest("instruct") != read(tmp_path, text, name="other").digest("instruct")


def test_the_digest_of_one_stage_does_not_know_the_others(tmp_path: Path) -> None:
    alone = read(tmp_path, ROW)
    both = read(tmp_path, ROW + OTHER.replace("[[instruct]]", "[[pretrain]]"), name="both")
    assert alone.digest("instruct") == both.digest("instruct")
