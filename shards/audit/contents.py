"""What a dataset holds, counted: targets and actual, the funnel, prompts, answers, duplicates, refusals, licences."""

from __future__ import annotations

from manifests import TASKS, Recipe
from manifests.recipe import Row
from shards.audio import REASONS
from shards.audit.database import Database
from shards.audit.digits import neat, share, shown
from shards.audit.mixture import ordered
from shards.audit.report import (
    AnswerClass,
    Answers,
    Duplicates,
    Funnel,
    Licence,
    Origin,
    Prompts,
    Reason,
    Refusal,
    Target,
    Totals,
)
from shards.index import Dataset
from shards.refusals import STORIES

LABEL_TIMES = 5
"""So often, at least, the labels of a task are given on average."""
MEANINGS = {
    "excluded audio_missing": "the corpus lists the clip, but its audio is not among the files",
    "excluded no_instruction": "no task of the recipe can ask anything of the clip",
    **{f"excluded {reason}": meaning for reason, meaning in STORIES.items()},
    **{f"quarantined {reason}": meaning for reason, meaning in REASONS.items()},
}


def totals(dataset: Dataset, database: Database) -> Totals:
    """Return the dataset in a line."""
    sources = dataset.manifest.sources
    [(samples, hours, examples)] = database.ask("totals")
    return Totals(
        hours=neat(hours or 0),
        samples=samples,
        examples=int(examples or 0),
        corpora=tuple(sorted({source.corpus for source in sources})),
        splits=len(sources),
        tasks=tuple(ordered({task for source in sources for task in source.tasks})),
        found=sum(source.found for source in sources),
        refused=sum(source.quarantined + source.excluded for source in sources),
        shards=sum(len(source.shards) for source in sources),
        bytes=sum(file.bytes for source in sources for file in source.shards),
    )


def targets(recipe: Recipe, stages: tuple[str, ...], database: Database) -> tuple[Target, ...]:
    """Return every row of `stages` with what is meant to be there and what is."""
    held = {(corpus, split, task): (samples, hours) for corpus, split, task, samples, hours in database.ask("held")}
    examples = {(corpus, split, task): count for corpus, split, task, count in database.ask("examples")}
    return tuple(target(stage, row, held, examples) for stage in stages for row in recipe.stage(stage))


def target(
    stage: str,
    row: Row,
    held: dict[tuple[str, str, str], tuple[int, float]],
    examples: dict[tuple[str, str, str], int],
) -> Target:
    """Return one row with what is meant to be there and what is."""
    names = [(row.corpus, split, row.task) for split in row.splits]
    samples = sum(held[name][0] for name in names if name in held)
    hours = sum(held[name][1] for name in names if name in held)
    return Target(
        stage=stage,
        task=row.task,
        corpus=row.corpus,
        splits=row.splits,
        absent=tuple(name[1] for name in names if name not in held),
        target_hours=row.hours,
        target_samples=row.samples,
        hours=neat(hours),
        samples=samples,
        examples=sum(examples.get(name, 0) for name in names),
        hours_off=neat(hours / row.hours - 1) if row.hours else None,
        samples_off=neat(samples / row.samples - 1) if row.samples else None,
    )


def funnel(dataset: Dataset, database: Database) -> tuple[Funnel, ...]:
    """Return every split from what is published to what is packed."""
    indexed = {(corpus, split): (samples, hours) for corpus, split, samples, hours in database.ask("splits")}
    refused: dict[tuple[str, str], dict[str, int]] = {}
    for corpus, split, verdict, clips in database.ask("refused"):
        refused.setdefault((corpus, split), {})[verdict] = clips
    return tuple(
        Funnel(
            corpus=source.corpus,
            split=source.split,
            published=source.published_clips,
            found=source.found,
            packed=source.packed,
            quarantined=source.quarantined,
            excluded=source.excluded,
            indexed=indexed.get((source.corpus, source.split), (0, 0.0))[0],
            refused=refused.get((source.corpus, source.split), {}),
            hours=neat(indexed.get((source.corpus, source.split), (0, 0.0))[1]),
            coverage=share(source.packed, source.published_clips) if source.published_clips else None,
            reasons=counted(source.reasons),
            skipped={shown(task): counted(reasons) for task, reasons in sorted(source.skipped.items())},
        )
        for source in dataset.manifest.sources
    )


def counted(reasons: dict[str, int]) -> dict[str, int]:
    """Return counts of reasons in the order of their names."""
    return {shown(reason): clips for reason, clips in sorted(reasons.items())}


def prompts(database: Database) -> tuple[Prompts, ...]:
    """Return the stored prompts of every task."""
    rows = {row[0]: row[1:] for row in database.ask("prompts")}
    made = []
    for task in ordered(rows):
        examples, distinct, frequent, times = rows[task]
        made.append(
            Prompts(
                task=task,
                examples=int(examples),
                distinct=distinct,
                paraphrases=len(TASKS[task].prompts) if task in TASKS else None,
                frequent=shown(frequent),
                frequent_share=share(times, int(examples)),
            )
        )
    return tuple(made)


def answers(database: Database) -> tuple[Answers, ...]:
    """Return the answers of every task; the classes of those that have few different ones."""
    said = {row[0]: row[1:] for row in database.ask("answers")}
    frequent: dict[str, list[tuple[str, int, int]]] = {}
    for task, answer, times, distinct in database.ask("frequent"):
        frequent.setdefault(task, []).append((answer, times, distinct))
    asked = {row[0]: row[1:] for row in database.ask("unanswered")}
    made = []
    for task in ordered(asked):
        examples, unanswered = asked[task]
        count, empty, least, median, most = said.get(task, (0, 0, 0, 0.0, 0))
        top = frequent.get(task, [("", 0, 0)])
        # Labels come again and again; a few answers that hardly do are only a small task.
        labels = top if top[0][2] * LABEL_TIMES <= count else []
        made.append(
            Answers(
                task=task,
                examples=examples,
                answers=count,
                distinct=top[0][2],
                empty=empty + unanswered,
                words_least=least,
                words_median=neat(median),
                words_most=most,
                frequent=shown(top[0][0]),
                frequent_share=share(top[0][1], count),
                classes=tuple(
                    AnswerClass(answer=shown(answer), count=times, share=share(times, count))
                    for answer, times, distinct in labels
                    if distinct == len(labels)
                ),
            )
        )
    return tuple(made)


def duplicates(database: Database) -> Duplicates:
    """Return the samples with the very same audio."""
    [(groups, surplus, shared, first, first_shared)] = database.ask("copies")
    md5 = first_shared or first
    same = database.ask("copy", pcm_md5=md5) if md5 else []
    return Duplicates(groups=groups, surplus=int(surplus), shared=shared, keys=tuple(shown(row[2]) for row in same))


def reasons(database: Database) -> tuple[Reason, ...]:
    """Return why clips were refused, the most frequent reason first."""
    return tuple(
        Reason(
            verdict=verdict,
            reason=shown(reason),
            meaning=MEANINGS.get(f"{verdict} {reason}", "a reason of another version, not explained here"),
            corpus=corpus,
            split=split,
            clips=clips,
        )
        for verdict, reason, corpus, split, clips in database.ask("reasons")
    )


def refusals(database: Database) -> tuple[Refusal, ...]:
    """Return the first refusals."""
    return tuple(
        Refusal(id=shown(name), corpus=corpus, split=split, verdict=verdict, reason=shown(reason), detail=shown(detail))
        for corpus, split, name, verdict, reason, detail in database.ask("refusals")
    )


def licences(database: Database) -> tuple[Licence, ...]:
    """Return the hours of each corpus under each licence."""
    return tuple(
        Licence(corpus=corpus, license=shown(name), samples=samples, hours=neat(hours))
        for corpus, name, samples, hours in database.ask("licences")
    )


def origins(dataset: Dataset) -> tuple[Origin, ...]:
    """Return what proves each split."""
    return tuple(
        Origin(
            corpus=source.corpus,
            split=source.split,
            terms=shown(source.license),
            shards=len(source.shards),
            bytes=sum(file.bytes for file in source.shards),
            index_sha256=source.index.sha256,
        )
        for source in dataset.manifest.sources
    )
