"""The README.md of a dataset: a Hugging Face dataset card, so that its viewer and `datasets` find the shards."""

from __future__ import annotations

import re
from collections.abc import Iterable

from manifests.tasks import TASKS
from shards.index import Source
from shards.markdown import plain, quoted, rows
from shards.papers import Example, Papers, facts_of, total

SPEECH = "automatic-speech-recognition"
CLASSES = "audio-classification"
QUESTIONS = "question-answering"
TEXT = "text-generation"
CATEGORIES = {
    "asr": SPEECH,
    "phone_recognition": SPEECH,
    "overlapped_speech_recognition": SPEECH,
    "translation_en_zh": "translation",
    "translation_en_de": "translation",
    "translation_en_ja": "translation",
    "emotion_recognition": CLASSES,
    "gender_recognition": CLASSES,
    "speaker_verification": CLASSES,
    "speech_qa": QUESTIONS,
    "audio_qa": QUESTIONS,
    "music_qa": QUESTIONS,
    "spoken_query_qa": QUESTIONS,
    "slot_filling": QUESTIONS,
    "speech_audio_coreasoning": QUESTIONS,
    "audio_caption": TEXT,
    "music_caption": TEXT,
    "audio_story": TEXT,
    "keyword_extraction": TEXT,
}
"""Our tasks in the Hub's words (huggingface.co/tasks). All of them are audio-text-to-text besides."""
WRITTEN_IN = {"translation_en_zh": "zh", "translation_en_de": "de", "translation_en_ja": "ja"}
"""The language of a task's answers, where it is not that of the audio."""
SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B", "1B<n<10B")
"""The Hub's classes of size: each ten times the one before, from a thousand samples on."""
LOADING = """\
```python
import datasets  # a configuration is a corpus; without torchcodec, audio comes as the bytes of a FLAC file

split = datasets.load_dataset("DATASET", "{corpus}", split="{split}", streaming=True)
split = split.cast(datasets.Features(split.features | {{"flac": datasets.Value("binary")}}))
for sample in split:
    sample["__key__"], sample["json"]["instructions"], sample["flac"]["bytes"]

import json, webdataset

for sample in webdataset.WebDataset("DATASET/{shard}", shardshuffle=False):
    sample["__key__"], json.loads(sample["json"])["instructions"], sample["flac"]

from manifests import load_recipe
from shards import Dataset, Stream  # mixed by a recipe, in batches

for batch in Stream(Dataset("DATASET"), load_recipe("{recipe}")):
    [(example.key, example.task, example.prompt, example.answer, example.audio) for example in batch.examples]
```"""


def split_name(source: Source) -> str:
    """Return a split's name as `datasets` allows it: no hyphens."""
    return re.sub(r"\W", "_", source.split)


def card(papers: Papers) -> str:
    """Return the text of README.md."""
    title = plain(papers.manifest.title)
    body = [*about(papers), *listing(papers), *answers(papers), *loading(papers), *licensed(papers)]
    told = f"Built from the recipe `{papers.manifest.recipe}`; digest `{papers.manifest.digest}`."
    return "\n".join([*head(papers), "", f"# {title}", "", *body, "", told, ""])


def head(papers: Papers) -> list[str]:
    """Return the lines of YAML that the Hub reads."""
    terms = papers.terms
    lines = ["---", f"pretty_name: {quoted(papers.manifest.title)}", f"license: {terms.hub}"]
    if terms.hub == "other":
        lines += [f"license_name: {quoted(slug(terms.name))}", "license_link: ATTRIBUTION.md"]
    lines += listed("language", languages(papers))
    lines += listed("task_categories", categories(papers))
    lines += listed("size_categories", [size_category(sum(part.source.packed for part in papers.parts))])
    if machine_made(papers):
        lines += listed("annotations_creators", ["machine-generated"])
    lines += listed("tags", ["audio", "instructions", "webdataset"])
    configs: list[str] = []
    for corpus in papers.corpora:
        splits = [part.source for part in papers.of(corpus) if part.source.shards]
        configs += [f"- config_name: {quoted(corpus)}", "  data_files:"] if splits else []
        for source in splits:
            configs += [f"  - split: {quoted(split_name(source))}", "    path:"]
            configs += [f"    - {quoted(file.path)}" for file in source.shards]
    return [*lines, *(["configs:", *configs] if configs else []), "---"]


def listed(name: str, values: Iterable[str]) -> list[str]:
    """Return the lines of a YAML list, none for an empty one."""
    lines = [f"- {quoted(value)}" for value in values]
    return [f"{name}:", *lines] if lines else []


def slug(name: str) -> str:
    """Return the name of some terms as the Hub takes it for `license_name`: lower case and hyphens."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.")[:96]


def languages(papers: Papers) -> list[str]:
    """Return the languages of audio and answers as the Hub names them: the first part of a BCP 47 tag."""
    spoken = total(part.languages for part in papers.parts)
    tasks = total(part.instructions for part in papers.parts)
    found = {tag.partition("-")[0].lower() for tag in spoken} | {
        WRITTEN_IN[task] for task in tasks if task in WRITTEN_IN
    }
    return sorted("multilingual" if tag == "mul" else tag for tag in found if re.fullmatch("[a-z]{2,3}", tag))


def categories(papers: Papers) -> list[str]:
    """Return the Hub's categories of the tasks that the dataset asks."""
    tasks = total(part.instructions for part in papers.parts)
    return sorted({"audio-text-to-text"} | {CATEGORIES.get(task, "other") for task in tasks}) if tasks else []


def size_category(samples: int) -> str:
    """Return the Hub's class of a number of samples."""
    return SIZES[min(max(len(str(samples)) - 3, 0), len(SIZES) - 1)]


def about(papers: Papers) -> list[str]:
    """Return what the dataset is, in a few sentences."""
    sources = [part.source for part in papers.parts]
    files = [file for source in sources for file in source.shards]
    hours = sum(source.seconds for source in sources) / 3600
    return [
        f"{sum(source.packed for source in sources):,} clips, {hours:,.2f} hours of speech, sound and music with",
        f"{sum(total(part.instructions for part in papers.parts).values()):,} instructions, as WebDataset shards:",
        f"{len(files):,} files, {sum(file.bytes for file in files) / 2**30:,.2f} GiB. A sample is `<key>.flac`",
        "(16 kHz, mono, 16 bits) and `<key>.json` (who, what, and every instruction with all its right answers).",
        "`index/` holds one row a sample with its byte range, `quarantine/` what was refused and why, `dataset.json`",
        "the digests of it all, `croissant.json` the same for machines, `ATTRIBUTION.md` whose work this is and under",
        "which licences.",
        "",
    ]


def listing(papers: Papers) -> list[str]:
    """Return what is in the dataset: a table of splits, and one of tasks with an example of each."""
    numbers = [
        (
            source.corpus,
            source.split,
            f"{source.packed:,}",
            f"{source.seconds / 3600:,.2f}",
            f"{len(source.shards):,}",
            f"{sum(file.bytes for file in source.shards) / 2**20:,.1f}",
            ", ".join(source.tasks),
            plain(source.license),
        )
        for source in (part.source for part in papers.parts)
    ]
    names = ("corpus", "split", "clips", "hours", "shards", "MiB", "tasks", "licence")
    lines = ["## What is in it", "", *rows(names, numbers), ""]
    counts = total(part.instructions for part in papers.parts)
    shown: dict[str, Example] = {}
    for part in papers.parts:
        shown = {example.task: example for example in part.examples} | shown
    asked = [
        (task, f"{number:,}", about_task(task), *(shown_as(shown[task]) if task in shown else ("", "")))
        for task, number in counts.items()
    ]
    table = rows(("task", "instructions", "what it asks", "for example", "a right answer"), asked)
    return [*lines, *(["## What is asked", "", *table, ""] if asked else [])]


def about_task(task: str) -> str:
    """Return what a task asks, in a few words."""
    return TASKS[task].about if task in TASKS else ""


def shown_as(example: Example) -> tuple[str, str]:
    """Return a prompt and one of its answers for a table."""
    more = f" *(and {len(example.answers) - 1} more)*" if len(example.answers) > 1 else ""
    return plain(example.prompt), plain(example.answers[0]) + more if example.answers else ""


def machine_made(papers: Papers) -> bool:
    """Whether a model wrote the answers."""
    return bool(papers.manifest.provenance)


def answers(papers: Papers) -> list[str]:
    """Return who wrote the answers and made the audio."""
    lines = ["## Who made it", ""]
    if machine_made(papers):
        told = "; ".join(f"{plain(name)} {plain(value)}" for name, value in sorted(papers.manifest.provenance.items()))
        lines += [f"**The answers were written by a model** ({told})."]
    else:
        lines += ["Answers are what the corpora publish, in the form that training takes, or follow from it by rule;"]
        lines += ["prompts are paraphrases written for this project."]
    titles = {corpus: facts.title if (facts := facts_of(corpus)) else corpus for corpus in papers.corpora}
    for corpus in papers.corpora:
        made = total(part.provenance for part in papers.of(corpus))
        if made:
            clips = sum(made.values())
            lines += [
                f"Audio of {clips:,} clips of {plain(titles[corpus])} was made, not recorded: {plain(min(made))}."
            ]
    return [*lines, ""]


def loading(papers: Papers) -> list[str]:
    """Return how the dataset is loaded, in Python."""
    first = next((part.source for part in papers.parts if part.source.shards), None)
    if first is None:
        return []
    program = LOADING.format(
        corpus=first.corpus,
        split=split_name(first),
        shard=first.shards[0].path,
        recipe=papers.manifest.recipe,
    )
    return [
        "## How to load it",
        "",
        "`DATASET` is its folder, or for the first of these the name of its repository on the Hub:",
        "",
        program,
        "",
    ]


def licensed(papers: Papers) -> list[str]:
    """Return under which terms the dataset is, as a whole."""
    terms = papers.terms
    yes = {True: "yes", False: "no"}
    return [
        "## Licences",
        "",
        "Each corpus keeps its own: see `ATTRIBUTION.md`. For the whole, the strictest holds:",
        f"{plain(terms.name, 999)} (commercial use: {yes[terms.commercial]}; authors named: {yes[terms.attribution]};",
        f"share alike: {yes[terms.share_alike]}; may be passed on as it is here: {yes[terms.may_push]}).",
    ]
