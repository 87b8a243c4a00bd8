"""The layout that lmms-eval reads: a dataset that Hugging Face's library loads, and a YAML file a task.

OUT/README.md                 names the sets to load_dataset, and says how to run them
OUT/data/SET/test.parquet     a question a row, with its sound in it
OUT/tasks/salmonn_SET.yaml    a task; OUT/tasks/_salmonn.yaml groups them, OUT/tasks/utils.py is what they call

Followed in github.com/EvolvingLMMs-Lab/lmms-eval: docs/guides/task_guide.md, lmms_eval/api/task.py (how a dataset is
loaded, and how functions are called), lmms_eval/tasks/librispeech/*.yaml and utils.py, lmms_eval/tasks/clotho_aqa.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from salmonn.evaluation.harness import Item, Set, Source

GROUP = 64
"""Rows of a row group: what is in memory at a time, up to a minute and a half of FLAC a row."""
TEXTS = ("key", "task", "corpus", "source_split", "prompt", "slot", "question", "transcript", "answer")
FEATURES = {
    "audio": {"sampling_rate": 16000, "_type": "Audio"},
    **{name: {"dtype": "string", "_type": "Value"} for name in TEXTS},
    "references": {"feature": {"dtype": "string", "_type": "Value"}, "_type": "List"},
}
"""As `datasets` writes into the schema of its own files; without it, a sound would be a struct of bytes."""
SCHEMA = pa.schema(
    [
        ("audio", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        *((name, pa.string()) for name in TEXTS),
        ("references", pa.list_(pa.string())),
    ],
    metadata={"huggingface": json.dumps({"info": {"features": FEATURES}})},
)
AGGREGATED = {
    "wer": ("wer", "wer", "utils.wer", False),
    "bleu_zh": ("bleu", "bleu", "utils.bleu_zh", True),
    "bleu_de": ("bleu", "bleu", "utils.bleu_de", True),
    "bleu_ja": ("bleu", "bleu", "utils.bleu_ja", True),
    "accuracy": ("accuracy", "accuracy", "mean", True),
}
"""Our metric to theirs: what processes an answer, the metric's name, how it is summed up, whether higher is better."""
ANSWERED = ("answered", "answered", "mean", True)


def write(folder: Path, place: Path, source: Source, sets: list[Set], one: Set, items: Iterator[Item]) -> None:
    """Write one of `sets` into `folder`, which will stand at `place`; with the first, what belongs to all."""
    if one is sets[0]:
        (folder / "tasks").mkdir()
        copied = Path(__file__).with_name("lmms_eval_task.py").read_text(encoding="utf-8")
        (folder / "tasks" / "utils.py").write_text(copied, encoding="utf-8")
        names = "".join(f"  - {task_of(each)}\n" for each in sets)
        group = f"group: {group_of(source)}\ntask:\n{names}"
        (folder / "tasks" / "_salmonn.yaml").write_text(group, encoding="utf-8")
        (folder / "README.md").write_text(readme(place, source, sets), encoding="utf-8")
    data = folder / "data" / one.name
    data.mkdir(parents=True)
    with pq.ParquetWriter(data / "test.parquet", SCHEMA, compression="zstd") as writer:
        while some := list(itertools.islice(items, GROUP)):
            writer.write_table(pa.Table.from_pylist([row(item) for item in some], SCHEMA))
    (folder / "tasks" / f"{task_of(one)}.yaml").write_text(task(place, one), encoding="utf-8")


def row(item: Item) -> dict[str, object]:
    """Return the row of one question."""
    asked = item.open
    return {
        "audio": {"bytes": item.flac, "path": f"{asked.key}.flac"},
        "key": asked.key,
        "task": asked.task,
        "corpus": asked.corpus,
        "source_split": asked.split,
        "prompt": asked.prompt,
        "slot": asked.slot,
        "question": asked.question,
        "transcript": asked.transcript,
        "answer": asked.references[0],
        "references": list(asked.references),
    }


def task_of(one: Set) -> str:
    """Return what lmms-eval calls a set; ours has a name before it, for theirs may be called the same."""
    return f"salmonn_{one.name}"


def group_of(source: Source) -> str:
    """Return what it calls all of them."""
    return f"salmonn_{source.stage}"


def task(place: Path, one: Set) -> str:
    """Return the YAML of a task; JSON's strings are YAML's."""
    process, metric, aggregation, higher = AGGREGATED.get(one.metric, ANSWERED)
    summed = f"!function {aggregation}" if aggregation.startswith("utils.") else aggregation
    return f"""\
task: {json.dumps(task_of(one))}
dataset_path: {json.dumps(str(place))}
dataset_name: {json.dumps(one.name)}
test_split: test
output_type: generate_until
doc_to_visual: !function utils.doc_to_audio
doc_to_text: !function utils.doc_to_text
doc_to_target: !function utils.doc_to_target
process_results: !function utils.process_{process}
generation_kwargs:
  max_new_tokens: {one.longest}
  temperature: 0
  top_p: 1.0
  num_beams: 1
  do_sample: false
metric_list:
  - metric: {metric}
    aggregation: {summed}
    higher_is_better: {str(higher).lower()}
metadata:
  - version: 1.0
"""


def readme(place: Path, source: Source, sets: list[Set]) -> str:
    """Return the card: its head is what load_dataset reads."""
    configs = "".join(
        f"- config_name: {json.dumps(one.name)}\n"
        f"  data_files:\n  - split: test\n    path: data/{one.name}/test.parquet\n"
        for one in sets
    )
    lines = "".join(f"| {one.name} | {len(one.questions):,} | {one.metric} |\n" for one in sets)
    return f"""\
---
configs:
{configs}---
# Evaluation sets of {json.dumps(source.title)[1:-1]}

Stage {source.stage!r} of recipe {source.recipe!r}, dataset {source.digest[:12]}; written by
`salmonn export-eval`. Each corpus keeps its licence.

| set | questions | our metric |
|---|---|---|
{lines}
    lmms-eval --model qwen2_audio --include_path {place / "tasks"} --tasks {group_of(source)} \\
      --log_samples --output_path logs

If the folder moves, set `dataset_path` in tasks/*.yaml. Clips are whole here; SALMONN hears the first 30 s of them.
lmms-eval counts some scores by rules of its own, and for other tasks only who answered. For ours, of any task:

    salmonn evaluate --answers logs/.../SAMPLES.jsonl --data DATASET --stage {source.stage}
"""
