"""What changed between the build of a dataset and now, in sentences: why shards are written anew."""

from __future__ import annotations

from pipelines.layout import Frozen, SourcePlan


def changes(old: Frozen, new: Frozen) -> list[str]:
    """Say what differs between two frozen plans, the widest first."""
    lines = []
    before, after = old.plan, new.plan
    if before.tools != after.tools:
        lines.append(f"made with {told(before.tools, after.tools)}: all audio is made anew")
    if before.format != after.format:
        lines.append(f"the format was {before.format}, it is {after.format}: everything is made anew")
    if before.trusted != after.trusted:
        lines.append(f"--trust-digests is {'on' if after.trusted else 'off'} now: all audio is read anew")
    if before.shard_bytes != after.shard_bytes:
        was, now = (f"{plan.shard_bytes / 2**20:g}" for plan in (before, after))
        lines.append(f"shards are of {now} MB, they were of {was}: all are written anew, audio is copied over")
    asked = sorted(task for task in before.asks.keys() & after.asks.keys() if before.asks[task] != after.asks[task])
    if asked:
        lines.append(
            f"the prompts or the answers of {', '.join(asked)} changed: "
            "their shards are written anew, audio is copied over"
        )
    olds, news = ({source.name: source for source in plan.sources} for plan in (before, after))
    lines += [f"{name} is no longer in the recipe" for name in olds if name not in news]
    lines += [f"{name} is new: {source.clips:,} clips" for name, source in news.items() if name not in olds]
    for name in news:
        if name in olds:
            lines += source_changes(olds[name], news[name], old.seen.get(name) != new.seen.get(name))
    return lines


def source_changes(old: SourcePlan, new: SourcePlan, touched: bool) -> list[str]:
    """Say what differs in one split; `touched` says that the scan saw other files."""
    lines = []
    if old.tasks != new.tasks or old.evaluated != new.evaluated:
        lines.append(f"{new.name} is asked {', '.join(new.tasks)}; it was {', '.join(old.tasks)}")
    if old.manifest != new.manifest or touched:
        lines.append(f"{new.name}: its files changed; {old.clips:,} clips then, {new.clips:,} now")
    if old.shards != new.shards:
        lines.append(f"{new.name}: {new.shards:,} shards in place of {old.shards:,}, each of which gets other clips")
    return lines


def told(old: dict[str, str], new: dict[str, str]) -> str:
    """Name the tools that differ: ``soxr 1.0 (now 1.1)``."""
    names = sorted(old.keys() | new.keys())
    return ", ".join(f"{n} {old.get(n, 'none')} (now {new.get(n, 'none')})" for n in names if old.get(n) != new.get(n))
