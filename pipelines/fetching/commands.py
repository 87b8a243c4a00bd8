"""The command fetch: what it does one after the other, and what it prints."""

from __future__ import annotations

import re
import time

import msgspec

from manifests import Corpus, Failed, UserError, files, load_corpus
from manifests.console import Bars, console, hours, size
from manifests.corpus import parse_source
from pipelines.commands import readable
from pipelines.executor import Executor
from pipelines.fetching.adopt import adopt, page
from pipelines.fetching.board import Board
from pipelines.fetching.fetch import PARALLEL, Settings, lanes, left_to_do, link, workers_for
from pipelines.fetching.fetch import fetch as run_fetch
from pipelines.fetching.hub import HUB_CORPORA
from pipelines.fetching.hub_tasks import fetch_from_hub
from pipelines.fetching.plan import Wishes, amount, show_plan
from pipelines.fetching.video_status import ABOUT, TRANSIENT
from pipelines.fetching.videos import VIDEO_CORPORA, VideoOptions, fetch_videos, list_videos
from pipelines.fetching.wanted import Limits
from pipelines.items import Item, finished, hopeless, items_of, read_outcome


class Extras(msgspec.Struct, frozen=True, kw_only=True):
    """What concerns one way to get a corpus alone."""

    from_dir: str = ""
    """A copy of the corpus to adopt."""
    copy: bool = False
    """Adopt by copying, not by links."""
    videos: bool = False
    """Download the audio of corpora that publish only ids."""
    audio_dir: str = ""
    """A folder of one's own copies of that audio."""
    cookies: str = ""


def fetch(
    sources: list[str],
    root: str,
    workers: int | None = None,
    address: str = "local",
    *,
    dry_run: bool = False,
    mirror: str = "",
    allow_private: bool = False,
    per_host: int = 2,
    deadline: float = 0.0,
    unpack: bool = True,
    stream: bool = False,
    remove_archives: bool = False,
    verify: bool = False,
    again: bool = False,
    extras: Extras | None = None,
) -> None:
    """Fetch corpora and print what became of each of their files.

    UserError if nothing could be done, Failed if something failed; both say what to do next.
    """
    extras = extras or Extras()
    check(root, mirror, per_host, deadline)
    if stream and not unpack:
        raise UserError(
            "--stream and --no-unpack: archives are either read as they are or left alone; give one of them"
        )
    wishes = wishes_of(sources)
    check_extras(extras, wishes)
    settings = Settings(
        root=files.absolute(root),
        limits=Limits(allow_private=allow_private, deadline=deadline),
        per_host=per_host,
        unpack=unpack,
        stream=stream,
        remove_archives=remove_archives,
        verify=verify,
        again=again,
    )
    if extras.from_dir:
        adopt_one(wishes, root, extras, dry_run)
        return
    items = [item for name, splits in wishes.items() for item in items_of(load_corpus(name), splits, mirror)]
    if dry_run:
        if not show_plan(wishes, items, settings):
            show_pages(wishes, settings, root)
        return
    begin = time.perf_counter()
    failed = fetch_items(items, settings, workers, address, wishes)
    failed += fetch_hubs(wishes, settings, workers, address)
    failed += fetch_audio(wishes, settings, extras)
    if failed:
        lost = [item for item in items if hopeless(item, read_outcome(settings.root, item))]
        then = ["the same command tries again"] if len(failed) > len(lost) else []
        then += [f"--again tries {'it' if len(lost) == 1 else 'what failed for good'} all the same"] if lost else []
        told = f"{'; '.join(failed[:5])}{f' and {len(failed) - 5} more' if len(failed) > 5 else ''}"
        raise Failed(f"not fetched: {told}; {', '.join(then)}")
    waiting = show_pages(wishes, settings, root)
    if not any(fetchable(name, items) for name in wishes) and waiting:
        raise UserError(f"{', '.join(waiting)}: nothing to fetch by a program; a person takes the steps above")
    console.print(
        f"done in {hours(time.perf_counter() - begin)}; next: salmonn scan {' '.join(sources)} --root {root}",
        markup=False,
    )


def show_pages(wishes: Wishes, settings: Settings, root: str) -> list[str]:
    """Print how a person gets what no program can; return the corpora."""
    waiting = [name for name, splits in wishes.items() if not complete(load_corpus(name), splits, settings)]
    for name in waiting:
        console.print("\n" + page(name).replace("ROOT", root), markup=False)
    return waiting


def check(root: str, mirror: str, per_host: int, deadline: float) -> None:
    """Raise UserError for options that make no sense."""
    if not files.is_local(root):
        raise UserError(f"--root is {files.redact(root)!r}; corpora are fetched into a folder of this machine")
    if mirror and not re.match(r"https?://[^/]", mirror):
        raise UserError(f"--mirror is {files.redact(mirror)!r}; it must be like https://host or https://host/path")
    if per_host < 1:
        raise UserError(f"--per-host is {per_host}; it must be at least 1")
    if not deadline >= 0:
        raise UserError(f"--deadline is {deadline}; it is seconds for a file, or 0 to reckon them from its size")


def wishes_of(sources: list[str]) -> Wishes:
    """Return corpora and splits as typed, each once."""
    wishes: Wishes = {}
    for corpus, splits in map(parse_source, sources):
        wishes[corpus.name] = tuple(dict.fromkeys((*wishes.get(corpus.name, ()), *splits)))
    return wishes


def check_extras(extras: Extras, wishes: Wishes) -> None:
    """Raise UserError for options that do not go with the others, before anything is fetched."""
    if extras.copy and not extras.from_dir:
        raise UserError("--copy goes with --from DIR, the copy of a corpus to adopt")
    if extras.from_dir and len(wishes) != 1:
        raise UserError(f"--from adopts one corpus, not {len(wishes)}: {', '.join(wishes)}")
    if extras.cookies and not extras.videos:
        raise UserError("--cookies goes with --videos, which downloads what they are for")
    if extras.videos and extras.audio_dir:
        raise UserError("--videos downloads, --audio-dir takes your own copies; give one of them at a time")
    if (extras.videos or extras.audio_dir) and not set(wishes) & set(VIDEO_CORPORA):
        option = "--videos" if extras.videos else "--audio-dir"
        raise UserError(f"{option} is for corpora that publish ids of videos: {', '.join(VIDEO_CORPORA)}")
    if extras.audio_dir and not files.is_folder(extras.audio_dir):
        raise UserError(f"--audio-dir: there is no folder {extras.audio_dir!r}")


def adopt_one(wishes: Wishes, root: str, extras: Extras, dry_run: bool) -> None:
    """Adopt a local copy of the one corpus that is meant."""
    ((name, splits),) = wishes.items()
    whole = splits == load_corpus(name).splits
    made = adopt(name, extras.from_dir, root, extras.copy, () if whole else splits, dry_run)
    means = ", ".join(f"{count:,} by {how}" for how, count in made.linked.items()) or "all of it was there"
    console.print(f"{name}: {made.files:,} files, {size(made.bytes)} in {made.folder} ({means})", markup=False)
    for split in made.splits:
        passed = f", {split.refused:,} rows passed over" if split.refused else ""
        published = f"{split.with_audio:,} of {split.published:,} published clips have audio{passed}"
        console.print(f"  {name}:{split.split}: {published}", markup=False)
    for one, said in made.unread.items():
        console.print(f"  {name}:{one}: not in this copy ({said})", markup=False)
    if made.empty:
        console.print(f"  {made.empty:,} files are empty", markup=False)
    if made.broken:
        console.print(f"  no FLAC by their first bytes: {', '.join(made.broken)}", markup=False)
    those = [name] if whole else [f"{name}:{split}" for split in splits]
    then = f"salmonn scan {' '.join(those)} --root {root}"
    console.print("nothing was written" if dry_run else f"next: {then}", markup=False)


def fetch_items(items: list[Item], settings: Settings, workers: int | None, address: str, wishes: Wishes) -> list[str]:
    """Fetch the files of web servers, link what corpora read of each other; return what failed, in a few words."""
    todo = left_to_do(items, settings)
    if todo:
        console.print(f"{len(todo)} of {len(items)} files to fetch: {amount(todo)}")
        for name in dict.fromkeys(item.corpus for item in todo):
            console.print(f"[dim]{name}: {load_corpus(name).facts.license}[/]")
        count = workers_for(lanes(todo, settings), workers, address)
        with Executor(count, address) as executor, Board(todo, settings.root):
            run_fetch(todo, settings, executor)
    there = sum(finished(settings.root, item, read_outcome(settings.root, item), settings.unpack) for item in items)
    if items:
        console.print(f"{there} of {len(items)} files are there")
    for name in wishes:
        for missing in link(load_corpus(name), settings.root):
            console.print(f"{name} reads {missing}, which is not there yet: salmonn fetch {missing}", markup=False)
    outcomes = {item.key: read_outcome(settings.root, item) for item in items}
    return [f"{key} ({outcome.why})" for key, outcome in outcomes.items() if outcome and outcome.state != "ok"]


def fetch_hubs(wishes: Wishes, settings: Settings, workers: int | None, address: str) -> list[str]:
    """Fetch the corpora of the Hub; return what failed."""
    failed: list[str] = []
    for name in [name for name in wishes if name in HUB_CORPORA]:
        count = min(workers or PARALLEL, settings.per_host)
        try:
            with Executor(count, address) as executor, Bars() as bars:
                made = fetch_from_hub(
                    name,
                    wishes[name],
                    settings.root,
                    executor=executor,
                    unpack=settings.unpack,
                    remove=settings.remove_archives,
                    verify=settings.verify,
                    watch=bars,
                )
        except UserError as error:
            if len(wishes) == 1:
                raise
            failed.append(str(error))
            continue
        console.print(
            f"{name}: {made.files - len(made.failed):,} of {made.files:,} files of the Hub are there, "
            f"{made.fetched:,} fetched and {made.unpacked:,} unpacked now, {size(made.bytes)}",
            markup=False,
        )
        failed += [f"{path} ({why})" for path, why in made.failed.items()]
    return failed


def fetch_audio(wishes: Wishes, settings: Settings, extras: Extras) -> list[str]:
    """Fetch the audio of corpora that publish ids, if that is asked for; return what failed."""
    named = [name for name in wishes if name in VIDEO_CORPORA]
    if not (extras.videos or extras.audio_dir):
        for name in named:
            console.print(
                f"{name} publishes ids, no audio: --audio-dir DIR takes your own copies, --videos downloads it"
            )
        return []
    options = VideoOptions(audio_dir=extras.audio_dir, cookies=extras.cookies, retry_failed=settings.again)
    failed = []
    for name in named:
        total = len(list_videos(name, wishes[name], settings.root))
        tried = 0
        with Bars() as bars:

            def seen(video: str, status: str, name: str = name, total: int = total, bars: Bars = bars) -> None:
                nonlocal tried
                tried += 1
                bars(name, tried, total, f"{video} {status}")

            counts = fetch_videos(name, wishes[name], settings.root, options, seen)
        console.print(f"{name}: audio of {counts.get('ok', 0):,} of {sum(counts.values()):,} videos is there")
        for status, number in counts.items():
            if status != "ok":
                console.print(f"  {number:,} {status.replace('_', ' ')}: {ABOUT[status]}", markup=False)
        # What is not among one's own copies will not be there the next time either.
        later = sum(number for status, number in counts.items() if status in TRANSIENT) if extras.videos else 0
        if later:
            failed.append(f"{name}: {later:,} videos whose trouble may pass")
    return failed


def fetchable(name: str, items: list[Item]) -> bool:
    """Whether there is anything of a corpus that a program can fetch."""
    return name in HUB_CORPORA or any(item.corpus == name and not item.by_hand for item in items)


def complete(corpus: Corpus, splits: tuple[str, ...], settings: Settings) -> bool:
    """Whether nothing is left for a person to do: all is open, or its reader finds what was asked for."""
    if corpus.facts.access == "open":
        return True
    return all(readable(settings.root, corpus.name, split) for split in splits)
