"""Which splits have to be scanned, and their scans on Ray."""

from __future__ import annotations

from manifests import files, load_corpus
from pipelines.executor import Executor, Watch
from pipelines.scan import ScanResult, ScanTask, current, raw_folder, scan, stale


def scan_missing(
    sources: list[tuple[str, str]], root: str, executor: Executor, watch: Watch
) -> dict[tuple[str, str], ScanResult]:
    """Scan the splits that have no manifest yet, or whose files changed since; all their files must be there."""
    now = {corpus: current(root, corpus) for corpus in dict.fromkeys(corpus for corpus, _ in sources)}
    todo = [source for source in sources if stale(root, *source, now[source[0]])]
    return scan_all(todo, root, executor, watch, now)


def scan_all(
    sources: list[tuple[str, str]],
    root: str,
    executor: Executor,
    watch: Watch,
    now: dict[str, str] | None = None,
) -> dict[tuple[str, str], ScanResult]:
    """Scan splits on Ray; UserError before any work if the published files of one are not there."""
    now = now or {corpus: current(root, corpus) for corpus in dict.fromkeys(corpus for corpus, _ in sources)}
    for corpus, split in sources:
        # Readers raise before their first clip if the tree is not as published.
        next(load_corpus(corpus).clips(raw_folder(root, corpus), split, lambda *_: None), None)
    if sources:
        files.require_writable(files.join(root, "manifests"))
    results = {}
    tasks = [ScanTask(root=files.absolute(root), corpus=c, split=s, listing=now[c]) for c, s in sources]
    for task, result in executor.run(scan, tasks):
        results[task.corpus, task.split] = result
        watch("scan", len(results), len(tasks))
    return {source: results[source] for source in sources}
