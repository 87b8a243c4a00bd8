"""The layout that UltraEval-Audio reads: JSON lines beside the sounds, and a registry of YAML files.

OUT/audio/CORPUS/SPLIT/KEY.flac     the sounds
OUT/data/SET.jsonl                  a question a line, also in the form that load_dataset("json") takes
OUT/registry/{dataset,prompt,eval_task,agg}/salmonn.yaml

Followed in github.com/OpenBMB/UltraEval-Audio: audio_evals/registry.py, audio_evals/dataset/dataset.py (RelativePath),
audio_evals/eval_task.py, audio_evals/main.py, audio_evals/agg/base.py, audio_evals/evaluator/base.py, and registry/
dataset, prompt/aqa.yaml, eval_task/asr.yaml, evaluator/common.yaml, agg/naive.yaml.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from salmonn.evaluation.harness import Item, Set, Source

SCORED = {
    "wer": ("wer", "wer", "reference"),
    "bleu_zh": ("dump", "bleu-zh", "reference"),
    "bleu_de": ("dump", "bleu", "reference"),
    # Its own entry for Japanese names a language that its class does not know, and falls back on 13a.
    "bleu_ja": ("dump", "salmonn-bleu-ja", "reference"),
    "caption": ("coco", "coco", "references"),
    "music_caption": ("coco", "coco", "references"),
    "accuracy": ("prefix-match", "acc", "reference"),
    "judge": ("exist-match", "acc", "references"),
    "slots": ("exist-match", "acc", "references"),
    "coreasoning": ("exist-match", "acc", "references"),
}
"""Our metric to its evaluator, its aggregator, and the column of what is right."""
DUMPED = ("dump", "dump", "references")
"""For metrics that it has not: answers are written down."""


def write(folder: Path, place: Path, source: Source, sets: list[Set], one: Set, items: Iterator[Item]) -> None:
    """Write one of `sets` into `folder`, which will stand at `place`; with the first, what belongs to all."""
    if one is sets[0]:
        (folder / "data").mkdir()
        for kind, content in registry(place, sets).items():
            path = folder / "registry" / kind / "salmonn.yaml"
            path.parent.mkdir(parents=True)
            path.write_text(content, encoding="utf-8")
        (folder / "README.md").write_text(readme(place, source, sets), encoding="utf-8")
    with (folder / "data" / f"{one.name}.jsonl").open("w", encoding="utf-8") as lines:
        for item in items:
            asked = item.open
            sound = Path("audio") / asked.corpus / asked.split / f"{asked.key}.flac"
            (folder / sound).parent.mkdir(parents=True, exist_ok=True)
            (folder / sound).write_bytes(item.flac)
            told = {
                "WavPath": str(sound),
                "key": asked.key,
                "task": asked.task,
                "prompt": asked.prompt,
                "slot": asked.slot,
                "reference": asked.references[0],
                "references": list(asked.references),
            }
            lines.write(json.dumps(told, ensure_ascii=True) + "\n")


def dataset_of(one: Set) -> str:
    """Return what UltraEval-Audio calls a set."""
    return f"salmonn-{one.name}".replace("_", "-")


def registry(place: Path, sets: list[Set]) -> dict[str, str]:
    """Return the YAML files of the registry by kind; JSON is YAML, which spares us its quoting."""
    metrics = sorted({one.metric for one in sets})
    datasets = {
        dataset_of(one): {
            "class": "audio_evals.dataset.dataset.RelativePath",
            "args": {
                "default_task": f"salmonn-{one.metric}",
                "f_name": str(place / "data" / f"{one.name}.jsonl"),
                "file_path_prefix": str(place),
                "ref_col": SCORED.get(one.metric, DUMPED)[2],
            },
        }
        for one in sets
    }
    contents = [{"type": "audio", "value": "{{WavPath}}"}, {"type": "text", "value": "{{prompt}}"}]
    prompts = {
        "salmonn-asked": {
            "class": "audio_evals.prompt.base.Prompt",
            "args": {"template": [{"role": "user", "contents": contents}]},
        }
    }
    first = {one.metric: dataset_of(one) for one in reversed(sets)}
    tasks = {
        f"salmonn-{metric}": {
            "class": "audio_evals.base.EvalTaskCfg",
            "args": {
                "dataset": first[metric],
                "prompt": "salmonn-asked",
                "model": "qwen2-audio-chat",
                "evaluator": SCORED.get(metric, DUMPED)[0],
                "agg": SCORED.get(metric, DUMPED)[1],
            },
        }
        for metric in metrics
    }
    sums = {"salmonn-bleu-ja": {"class": "audio_evals.agg.base.BLEU", "args": {"lang": "ja"}}}
    kinds: dict[str, Mapping[str, object]] = {"dataset": datasets, "prompt": prompts, "eval_task": tasks, "agg": sums}
    return {kind: yaml(entries) for kind, entries in kinds.items()}


def yaml(entries: Mapping[str, object]) -> str:
    """Return named entries as YAML, one a paragraph."""
    return "\n".join(f"{json.dumps(name)}: {json.dumps(entry, indent=2)}\n" for name, entry in entries.items())


def readme(place: Path, source: Source, sets: list[Set]) -> str:
    """Return the page that says how it is used."""
    lines = "".join(f"| {dataset_of(one)} | {len(one.questions):,} | {one.metric} |\n" for one in sets)
    return f"""\
# Evaluation sets of {json.dumps(source.title)[1:-1]}

Stage {source.stage!r} of recipe {source.recipe!r}, dataset {source.digest[:12]}; written by
`salmonn export-eval`. Each corpus keeps its licence.

| dataset | questions | our metric |
|---|---|---|
{lines}
    python audio_evals/main.py --registry_path {place / "registry"} --dataset {dataset_of(sets[0])} --model MODEL

If the folder moves, set `f_name` and `file_path_prefix` in registry/dataset/salmonn.yaml. Clips are whole here; SALMONN
hears the first 30 s of them. Its scores follow rules of its own (its WER is another normaliser's); metrics that it has
not are dumped. For ours, write key and answer of each line into a file for `salmonn evaluate --answers`.
"""
