"""The plan of a fetch as a person reads it: which files would come, how much that is, and whether it has room."""

from __future__ import annotations

from collections.abc import Sequence

from manifests import Failed, UserError, files
from manifests.console import console, size, table
from pipelines.fetching.board import told
from pipelines.fetching.fetch import Settings, room
from pipelines.fetching.hub import HUB_CORPORA, is_there
from pipelines.fetching.hub_tasks import plan_of
from pipelines.items import Item, finished, read_outcome

Wishes = dict[str, tuple[str, ...]]
"""Corpus to the splits asked for."""


def amount(items: Sequence[Item], there: int = 0) -> str:
    """Return how much `items` are beside the bytes that are `there`, of which some publish no size."""
    known = [item.bytes for item in items if item.bytes]
    unknown = len(items) - len(known)
    files_of = f"{unknown} file{'s' * (unknown != 1)} of unknown size"
    if not known and unknown:
        return files_of
    return size(max(0, sum(known) - there)) + (f" and {files_of}" if unknown else "")


def show_plan(wishes: Wishes, items: list[Item], settings: Settings) -> bool:
    """Print what would be fetched and where it would go; nothing is fetched or written, only the Hub is asked.

    UserError or Failed, after all is printed, if the Hub would refuse a corpus. Returns whether anything would be
    fetched.
    """
    made = table(f"Would fetch into {files.join(settings.root, 'raw')}", "file", "bytes", "state", right=("bytes",))
    todo, parts, notes = [], 0, []
    for item in items:
        outcome = read_outcome(settings.root, item)
        part = files.size(files.join(settings.root, f"{item.path}.part")) or 0
        if finished(settings.root, item, outcome, settings.unpack):
            state = "there"
        elif item.by_hand:
            state = "by hand"
            notes.append(f"{item.key} takes credentials that a program does not get: see {item.urls[0]}")
        else:
            failed = outcome if outcome and outcome.state != "ok" else None
            state = "failed before" if failed else "to fetch"
            state += f", {size(part)} there" if part else ""
            notes += [f"{item.key} {told(failed)}"] if failed else []
            todo.append(item)
            parts += part
        made.add_row(item.key, f"{item.bytes:,}" if item.bytes else "?", state)
    hub, refused = 0, None
    for name in [name for name in wishes if name in HUB_CORPORA]:
        try:
            plan = plan_of(name, wishes[name], settings.root)
        except (UserError, Failed) as error:
            refused = refused or error
            continue
        missing = sum(file.bytes for file in plan.files if not is_there(plan, file, settings.root))
        made.add_row(f"{name}: {len(plan.files):,} files of", f"{plan.bytes:,}", "to fetch" if missing else "there")
        made.add_row(f"  {plan.repo} @ {plan.commit[:12]}", "", f"{size(missing)} missing" if missing else "")
        hub += missing
    if made.rows:
        console.print(made)
    for note in notes:
        console.print(note, markup=False)
    free = room([], settings)[1]
    rest = [amount(todo, parts)] if todo else []
    rest += [f"{size(hub)} of the Hub"] if hub else []
    if refused:
        raise refused
    console.print(f"{' and '.join(rest) or 'nothing'} to fetch, {size(free)} free there; nothing was written")
    return bool(todo or hub)
