"""The command push: what it checks, what it sends, and what it prints."""

from __future__ import annotations

import tempfile

from manifests.console import Bars, console, size, table
from pipelines.pushing.checks import check_licences, check_readable, check_whole
from pipelines.pushing.parcel import Parcel, make_parcel
from pipelines.pushing.upload import Repository, Sent, upload
from pipelines.pushing.writer import check_repo, check_token, page_of, writing
from shards.index import Dataset
from shards.papers import facts_of


def push(url: str, repo: str, private: bool, revision: str, only: tuple[str, ...], dry_run: bool) -> Sent | None:
    """Check a dataset and bring it to the Hub; with `dry_run` check it alone, and ask the Hub nothing."""
    check_repo(repo)
    dataset = Dataset(url)
    if not dry_run:
        check_token()
    base = f"{page_of(repo)}/resolve/{revision or 'main'}/"
    with tempfile.TemporaryDirectory(prefix="salmonn-push-") as stage, tempfile.TemporaryDirectory() as cache:
        parcel = make_parcel(dataset, only, stage, page_of(repo), base)
        check_licences(parcel)
        check_whole(dataset, parcel)
        read = check_readable(dataset, parcel, cache)
        describe(parcel, read)
        if dry_run:
            console.print(f"Nothing was sent: without --dry-run it goes to {page_of(repo)}")
            return None
        with writing(repo) as (library, api):
            repository = Repository(library, api, repo, revision)
            repository.open(private)
            with Bars() as bars:
                sent = upload(parcel, repository, bars)
    tell(sent, page_of(repo))
    return sent


def describe(parcel: Parcel, read: int) -> None:
    """Print what goes, and under which licences."""
    numbers = ("clips", "shards", "size")
    made = table("To be pushed", "corpus", *numbers, "licence", right=numbers)
    for corpus in parcel.papers.corpora:
        sources = [part.source for part in parcel.papers.of(corpus)]
        shards = [file for source in sources for file in source.shards]
        made.add_row(
            corpus,
            f"{sum(source.packed for source in sources):,}",
            f"{len(shards):,}",
            size(sum(file.bytes for file in shards)),
            ", ".join(dict.fromkeys(part.terms.name for part in parcel.papers.of(corpus))),
        )
    console.print(made)
    console.print(f"datasets reads it: {read:,} samples, the first of each split")
    for corpus in parcel.papers.corpora:
        if (facts := facts_of(corpus)) and facts.sharing:
            console.print(f"[bold]{corpus}[/]: {facts.sharing}")
    terms = parcel.papers.terms
    console.print(f"The licence of the whole: {terms.name} ({'' if terms.commercial else 'not '}for commercial use)")


def tell(sent: Sent, page: str) -> None:
    """Print what was done."""
    if not sent.commits:
        console.print(f"{page} is as it should be: all {sent.kept:,} files are there")
        return
    console.print(
        f"{sent.files:,} files ({size(sent.bytes)}) sent in {sent.commits:,} commits, {sent.kept:,} were there already"
        + (f", {sent.removed:,} of an earlier push removed" if sent.removed else "")
    )
    console.print(page, soft_wrap=True)
