"""Status: of every split below ROOT what is fetched, verified, unpacked and missing, why, and what is next."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from manifests import Corpus, UserError, corpus_names, files, load_corpus
from manifests.console import console, size, table
from manifests.corpus import parse_source
from manifests.tables import FORMAT, read_table
from pipelines.fetching.hub import HUB_CORPORA, hub_status, planned_files, unpacked_path
from pipelines.fetching.hub_tasks import is_archive
from pipelines.fetching.videos import VIDEO_CORPORA, video_status
from pipelines.items import Item, Outcome, finished, hopeless, items_of, read_outcome
from pipelines.scan import disk_folder, manifest_path, raw_folder

LATER = "not fetched yet"


class State(msgspec.Struct, frozen=True, kw_only=True):
    """How far a split is."""

    corpus: str
    split: str
    files: int
    """Files that it needs and a program can fetch, as far as is known: those of the Hub are once they were listed."""
    fetched: int
    verified: int
    """Of those, files whose digest was held against a published one or the lock; of the others it was learned."""
    unpacked: int
    archives: int
    bytes: int
    """Of what is fetched."""
    readable: bool
    """Whether the reader of the corpus finds it."""
    scanned: bool
    coverage: float
    """Share of the published clips that the last scan found with their audio."""
    why: str
    """What is missing and why, in a clause; empty if nothing is."""
    step: str
    """The command that comes next: fetch, scan or build."""
    begun: bool
    """Whether anything of it is there, or was tried."""
    again: bool
    """Whether a file failed for good, so that it is not tried again unless that is asked for."""

    @property
    def word(self) -> str:
        """How far it is in a word or two."""
        if self.scanned:
            return f"scanned {'<0.1%' if 0 < self.coverage < 0.0005 else f'{self.coverage:.1%}'}"
        if self.readable:
            return "to scan"
        if self.fetched and self.fetched == self.files:
            return "to unpack" if self.unpacked < self.archives else "not readable"
        return "incomplete" if self.fetched else "failed" if self.begun else "nothing yet"


def status_of(corpus: Corpus, split: str, root: str) -> State:
    """Return how far one split is; asks no network."""
    items = items_of(corpus, (split,))
    outcomes = {item.key: read_outcome(root, item) for item in items}
    there = [item for item in items if finished(root, item, outcomes[item.key], unpack=False)]
    done = [outcome for item in there if (outcome := outcomes[item.key])]
    on_hub = corpus.name in HUB_CORPORA
    found, planned, missing = hub_status(corpus.name, (split,), root) if on_hub else (0, 0, 0)
    files_of_hub = planned_files(corpus.name, (split,), root) if on_hub else {}
    packed = [files.exists(unpacked_path(root, corpus.name, path)) for path in files_of_hub if is_archive(path)]
    reason = unreadable(corpus, split, root)
    reasons = [trouble(item, outcomes[item.key]) for item in items if item not in there]
    reasons += [f"{planned - found:,} files of the Hub, {size(missing)}"] if planned > found else []
    if on_hub and not planned and reason:
        gated = f"accept its terms at huggingface.co/datasets/{HUB_CORPORA[corpus.name].name} and set HF_TOKEN"
        reasons.append(LATER + (f"; {gated}" if corpus.facts.access == "gated" else ""))
    reasons += videos(corpus, split, root)
    if not items and not on_hub and reason:
        reasons = (
            [f"{LATER}: a person gets it; salmonn fetch {corpus.name} says how"]
            if not files.exists(disk_folder(root, corpus.name))
            else [reason]
        )
    scanned = files.exists(manifest_path(root, corpus.name, split))
    return State(
        corpus=corpus.name,
        split=split,
        files=len(items) + planned,
        fetched=len(there) + found,
        verified=sum(bool(outcome.verified) for outcome in done) + found,
        unpacked=sum(outcome.unpacked for outcome in done) + sum(packed),
        archives=sum(bool(item.into) for item in items) + len(packed),
        bytes=sum(outcome.bytes for outcome in done) + sum(file.bytes for file in files_of_hub.values()) - missing,
        again=any(hopeless(item, outcomes[item.key]) for item in items),
        begun=bool(planned or scanned or not reason or any(outcomes.values())),
        readable=not reason,
        scanned=scanned,
        coverage=covered(corpus, split, root) if scanned else 0.0,
        why="; ".join([reason for reason in reasons if reason] or ([reason] if reason else [])),
        step=("build" if scanned else "scan") if not reason else "fetch",
    )


def trouble(item: Item, outcome: Outcome | None) -> str:
    """Say why an item is not there."""
    if outcome is not None and outcome.state != "ok":
        return f"{item.name}: {outcome.why}"
    return f"{item.name}: {'takes credentials' if item.by_hand else LATER}"


def videos(corpus: Corpus, split: str, root: str) -> list[str]:
    """Say which videos of a split are missing."""
    if corpus.name not in VIDEO_CORPORA:
        return []
    try:
        counts = video_status(corpus.name, (split,), root)
    except UserError:
        return []
    rest = {status: count for status, count in counts.items() if status != "ok" and count}
    told = ", ".join(f"{count:,} {status.replace('_', ' ')}" for status, count in sorted(rest.items()))
    return [f"audio of {sum(rest.values()):,} of {sum(counts.values()):,} videos: {told}"] if rest else []


def unreadable(corpus: Corpus, split: str, root: str) -> str:
    """Say why the reader of a corpus does not find a split; empty if it does."""
    try:
        next(corpus.clips(raw_folder(root, corpus.name), split, lambda *_: None), None)
    except UserError as error:
        return str(error)
    return ""


def covered(corpus: Corpus, split: str, root: str) -> float:
    """Return the share of the published clips that a scan found with their audio."""
    try:
        states = read_table(manifest_path(root, corpus.name, split), FORMAT, ["state"])["state"]
    except UserError:
        return 0.0
    counts = {one["values"]: one["counts"] for one in states.value_counts().to_pylist()}
    return float(counts.get("ok", 0) / max(1, corpus.split(split).clips))


def by_corpus(states: Iterable[State]) -> dict[str, list[str]]:
    """Map corpora to their splits; to none where all of them are meant."""
    splits: dict[str, list[str]] = {}
    for one in states:
        splits.setdefault(one.corpus, []).append(one.split)
    return {name: [] if len(those) == len(load_corpus(name).splits) else those for name, those in splits.items()}


def typed(states: Iterable[State]) -> str:
    """Return splits as arguments of a command."""
    return " ".join(" ".join(f"{name}:{one}" for one in those) or name for name, those in by_corpus(states).items())


def named(states: Iterable[State]) -> str:
    """Return splits as a person reads them."""
    return "; ".join(f"{name} {', '.join(those)}".strip() for name, those in by_corpus(states).items())


def next_steps(states: list[State], root: str) -> list[str]:
    """Return the commands that come next, one a kind."""
    steps = []
    for step in ("fetch", "scan"):
        if those := [one for one in states if one.step == step]:
            again = " --again" if step == "fetch" and any(one.again for one in those) else ""
            steps.append(f"salmonn {step} {typed(those)} --root {root}{again}")
    if any(one.scanned for one in states):
        steps.append(f"salmonn build RECIPE --root {root} --out DATASET")
    return steps


def notes(states: list[State]) -> Iterator[str]:
    """Yield a line for every reason why something is missing, with all the splits that it holds for."""
    reasons: dict[tuple[str, str], list[State]] = {}
    for one in states:
        # Of a split that nobody asked for yet, the table says all there is to say.
        if one.why and (one.begun or not one.why.endswith(LATER)):
            reasons.setdefault((one.corpus, one.why), []).append(one)
    for (_, why), those in reasons.items():
        yield f"  {named(those)}: {why}"


def begun(name: str, root: str) -> bool:
    """Whether anything of a corpus is below `root`."""
    return files.exists(disk_folder(root, name)) or files.exists(files.join(root, "fetch", name))


def status(sources: list[str], root: str) -> list[State]:
    """Return and print how far corpora are: the splits named, or those of which anything is below `root`."""
    wanted = [(corpus, splits) for corpus, splits in map(parse_source, sources)]
    if not sources:
        wanted = [(corpus, corpus.splits) for corpus in map(load_corpus, corpus_names()) if begun(corpus.name, root)]
    states = [status_of(corpus, split, root) for corpus, splits in wanted for split in dict.fromkeys(splits)]
    # Who names no split wants to hear of those at hand; of the others it is enough that they are not.
    at_hand = {one.corpus for one in states if one.begun}
    shown = states if sources else [one for one in states if one.begun or one.corpus not in at_hand]
    if shown:
        show(shown, root)
    for step in next_steps(shown, root):
        console.print(f"next: {step}", markup=False)
    if others := [one for one in states if one not in shown]:
        console.print(f"not begun: {named(others)}", markup=False)
    if not sources and (absent := [name for name in corpus_names() if not begun(name, root)]):
        console.print(f"nothing yet of {', '.join(absent)}", markup=False)
        if not states:
            console.print(f"next: salmonn fetch CORPUS[:SPLIT] --root {root}", markup=False)
    return states


def show(states: list[State], root: str) -> None:
    """Print states as a table, and below it what is missing."""
    numbers = ("fetched", "verified", "unpacked", "bytes")
    made = table(f"In {root}", "split", *numbers, "state", right=numbers)
    for one in states:
        made.add_row(
            f"{one.corpus}:{one.split}",
            f"{one.fetched} of {one.files}" if one.files else "-",
            str(one.verified) if one.files else "-",
            f"{one.unpacked} of {one.archives}" if one.archives else "-",
            size(one.bytes) if one.bytes else "-",
            one.word,
        )
    console.print(made)
    if any(one.verified < one.fetched for one in states):
        console.print("fetched, not verified: no digest is published; fetch.lock keeps the one that came")
    if told := list(notes(states)):
        console.print("missing:")
    for line in told:
        console.print(line, markup=False)
