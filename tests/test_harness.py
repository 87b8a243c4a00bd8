"""Our evaluation sets as lmms-eval and UltraEval-Audio read them, held by the libraries that these load them with."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import datasets
import pandas
import pytest
import sacrebleu
import yaml

from conftest import World, tone
from manifests import TASKS, UserError
from salmonn.evaluation.harness import export_eval
from shards import Dataset
from shards.audio import read_flac

WORLD: World = {
    ("librispeech", "test-clean"): [(800 + 160 * clip, ("asr", "gender_recognition")) for clip in range(70)],
    ("librispeech", "test-other"): [(800 + 160 * clip, ("asr",)) for clip in range(4)],
    ("covost2", "test"): [(1600, ("translation_en_zh", "translation_en_ja", "translation_en_de"))] * 2,
    ("audiocaps", "test"): [(16_000 * 31, ("audio_caption", "audio_story"))],
    ("wikiqa", "test"): [(1600, ("spoken_query_qa",))] * 3,
}
RECIPE = 'title = "small"\n' + "".join(
    f'[[evaluate]]\ntask = "{task}"\ncorpus = "{corpus}"\nsplits = {json.dumps(splits)}\n'
    for task, corpus, splits in (
        ("asr", "librispeech", ["test-clean", "test-other"]),
        ("gender_recognition", "librispeech", ["test-clean"]),
        *((f"translation_en_{language}", "covost2", ["test"]) for language in ("zh", "ja", "de")),
        ("audio_caption", "audiocaps", ["test"]),
        ("audio_story", "audiocaps", ["test"]),
        ("spoken_query_qa", "wikiqa", ["test"]),
    )
)
SETS = {
    "asr_librispeech_test_clean": 70,
    "asr_librispeech_test_other": 4,
    "audio_caption_audiocaps_test": 1,
    "audio_story_audiocaps_test": 1,
    "gender_recognition_librispeech_test_clean": 70,
    "spoken_query_qa_wikiqa_test": 3,
    "translation_en_de_covost2_test": 2,
    "translation_en_ja_covost2_test": 2,
    "translation_en_zh_covost2_test": 2,
}


@pytest.fixture(scope="module")
def data(make_dataset: Callable[..., Dataset]) -> Dataset:
    return make_dataset(WORLD)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("recipe") / "small.toml"
    path.write_text(RECIPE)
    return str(path)


@pytest.fixture(scope="module")
def lmms(data: Dataset, recipe: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("lmms") / "out"
    made = export_eval(data.url, "lmms-eval", out, recipe=recipe)
    assert dict.fromkeys(made.sets) == dict.fromkeys(SETS) and made.questions == sum(SETS.values())
    return out


@pytest.fixture(scope="module")
def ultra(data: Dataset, recipe: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ultra") / "out"
    export_eval(data.url, "ultraeval-audio", out, recipe=recipe)
    return out


def read_yaml(path: Path) -> dict[str, Any]:
    """As lmms-eval reads it: ``!function utils.name`` is a tag."""

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!function", lambda loader, node: ("function", loader.construct_scalar(node)))
    found = yaml.load(path.read_text(encoding="utf-8"), Loader)  # a SafeLoader with one tag more
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="module")
def utils(lmms: Path) -> ModuleType:
    """The copied file, imported as lmms-eval imports it: by its path, alone."""
    spec = importlib.util.spec_from_file_location("utils_of_the_export", lmms / "tasks" / "utils.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_hugging_face_loads_every_set_with_its_sounds(lmms: Path, data: Dataset, tmp_path: Path) -> None:
    assert datasets.get_dataset_config_names(str(lmms)) == list(SETS)
    for name, count in SETS.items():
        loaded = datasets.load_dataset(str(lmms), name, split="test", cache_dir=str(tmp_path))
        assert loaded.num_rows == count and loaded.features["audio"] == datasets.Audio(sampling_rate=16_000)
        assert loaded["key"] == sorted(loaded["key"])
        for row in loaded.cast_column("audio", datasets.Audio(decode=False)):
            place = int(row["key"].rpartition("-")[2])
            samples = WORLD[row["corpus"], row["source_split"]][place][0]
            assert (read_flac(row["audio"]["bytes"], "x") == tone(samples, place)).all()
            clip = f"{row['corpus']}/{row['source_split']}-{place}"
            assert row["references"] == [f"{clip} one", f"{clip} two"] and row["answer"] == f"{clip} one"
            assert row["prompt"] == f"Stored prompt of {row['task']}." and name.startswith(row["task"])


def test_every_task_names_its_set_and_functions_that_are_there(lmms: Path, utils: ModuleType) -> None:
    group = read_yaml(lmms / "tasks" / "_salmonn.yaml")
    assert group == {"group": "salmonn_evaluate", "task": [f"salmonn_{name}" for name in SETS]}
    keys = None
    for name in SETS:
        task = read_yaml(lmms / "tasks" / f"salmonn_{name}.yaml")
        assert (task["task"], task["dataset_path"], task["dataset_name"]) == (f"salmonn_{name}", str(lmms), name)
        assert task["test_split"] == "test" and task["output_type"] == "generate_until"
        assert task["generation_kwargs"]["max_new_tokens"] == 200
        keys = keys or set(task)
        assert set(task) == keys
        [metric] = task["metric_list"]
        named = [value for value in (*task.values(), metric["aggregation"]) if isinstance(value, tuple)]
        for _, function in named:
            room, _, called = function.partition(".")
            assert room == "utils" and callable(getattr(utils, called)), function
        assert metric["aggregation"] == "mean" or metric["aggregation"][0] == "function"
        # What processes an answer must give the metric that is summed up.
        doc = {"audio": 1, "prompt": "P", "answer": "Male", "references": ["Male", "Man"]}
        process = getattr(utils, task["process_results"][1].partition(".")[2])
        assert list(process(doc, ["male."])) == [metric["metric"]] == list(process(doc, []))
        assert metric["higher_is_better"] is (metric["metric"] != "wer")


def test_what_lmms_eval_calls(utils: ModuleType) -> None:
    doc = {"audio": "sound", "prompt": "Who?", "answer": "Male", "references": ["Male", "Man"]}
    assert utils.doc_to_audio(doc) == ["sound"] and utils.doc_to_target(doc) == "Male"
    assert utils.doc_to_text(doc) == "Who?" == utils.doc_to_text(doc, None)
    assert utils.doc_to_text(doc, {"pre_prompt": "<", "post_prompt": ">"}) == "<Who?>"
    said = {"Male": 1.0, "male.": 1.0, '"Man," he said': 1.0, "Female": 0.0, "": 0.0, "A man": 0.0}
    assert {one: utils.process_accuracy(doc, [one])["accuracy"] for one in said} == said
    assert (
        utils.process_answered(doc, [" "]) == {"answered": 0.0} and utils.process_answered(doc, ["x"])["answered"] == 1
    )
    pairs = [("我爱你们", "我爱你"), ("今天天气很好啊", "今天天气很好")]
    zh = [{"answer": answer, "references": [right]} for answer, right in pairs]
    expected = sacrebleu.corpus_bleu([a for a, _ in pairs], [[r for _, r in pairs]], tokenize="zh").score
    assert utils.bleu_zh(zh, None) == pytest.approx(expected) and expected > 10 > utils.bleu_de(zh)


def test_ultraeval_s_registry_holds_together(ultra: Path) -> None:
    registry = {
        kind: yaml.safe_load((ultra / "registry" / kind / "salmonn.yaml").read_text())
        for kind in ("dataset", "prompt", "eval_task", "agg")
    }
    assert list(registry["dataset"]) == [f"salmonn-{name}".replace("_", "-") for name in SETS]
    for entries in registry.values():
        assert all(set(entry) == {"class", "args"} for entry in entries.values())
        assert all(entry["class"].startswith("audio_evals.") for entry in entries.values())
    for name, entry in registry["dataset"].items():
        args = entry["args"]
        task = registry["eval_task"][args["default_task"]]["args"]
        assert task["prompt"] in registry["prompt"] and task["dataset"] in registry["dataset"]
        assert not task["agg"].startswith("salmonn-") or task["agg"] in registry["agg"]
        # As its RelativePath loads it: by pandas, with the sounds below the prefix.
        frame = pandas.read_json(args["f_name"], lines=True)
        assert len(frame) == SETS[Path(args["f_name"]).stem] and args["ref_col"] in frame.columns
        assert {"WavPath", "prompt"} <= set(frame.columns)
        for row in frame.to_dict(orient="records"):
            place = int(row["key"].rpartition("-")[2])
            pcm = read_flac((Path(args["file_path_prefix"]) / row["WavPath"]).read_bytes(), "x")
            assert (pcm == tone(len(pcm), place)).all() and row["prompt"] == f"Stored prompt of {row['task']}."
        assert name.replace("-", "_").startswith("salmonn_" + row["task"])
    [message] = registry["prompt"]["salmonn-asked"]["args"]["template"]
    assert [part["value"] for part in message["contents"]] == ["{{WavPath}}", "{{prompt}}"]
    assert registry["eval_task"]["salmonn-bleu_ja"]["args"]["agg"] == "salmonn-bleu-ja"
    loaded = datasets.load_dataset("json", data_files=str(ultra / "data" / "asr_librispeech_test_other.jsonl"))
    assert loaded["train"].num_rows == 4


def test_every_metric_has_a_place_in_both() -> None:
    from salmonn.evaluation.lmms_eval import AGGREGATED
    from salmonn.evaluation.ultraeval_audio import SCORED

    metrics = {task.metric for task in TASKS.values()}
    assert set(AGGREGATED) <= metrics and set(SCORED) - {"slots", "coreasoning"} <= metrics


@pytest.mark.parametrize("to", ["lmms-eval", "ultraeval-audio"])
def test_it_appears_whole_or_not_at_all(
    data: Dataset, recipe: str, tmp_path: Path, to: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(done: int, of: int, name: str) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        export_eval(data.url, to, out, recipe=recipe, on_set=stop)
    assert not out.exists()
    made = export_eval(data.url, to, out, recipe=recipe, limit=2)
    assert made.questions == 6 * 2 + 2 * 1
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    readme = (out / "README.md").read_text()
    assert all(name in readme or f"salmonn-{name}".replace("_", "-") in readme for name in made.sets)
    with pytest.raises(UserError, match="is there already"):
        export_eval(data.url, to, out, recipe=recipe)


def test_mistakes_are_told(data: Dataset, recipe: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'lmms-eval'"):
        export_eval(data.url, "lmm-eval", tmp_path / "x", recipe=recipe)
    with pytest.raises(UserError, match="stage"):
        export_eval(data.url, "lmms-eval", tmp_path / "x", recipe=recipe, stage="nothing")
    assert not list(tmp_path.iterdir())


def test_the_command(data: Dataset, recipe: str, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from salmonn.cli import app

    out = tmp_path / "out"
    told = ["export-eval", data.url, "--to", "lmms-eval", "--out", str(out), "--recipe", recipe, "--limit", "1"]
    done = CliRunner().invoke(app, told)
    assert done.exit_code == 0 and "8 questions of" in done.output, done.output
    assert (out / "tasks" / "_salmonn.yaml").is_file()
