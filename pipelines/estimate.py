"""Estimate: how many processor hours a recipe's build takes, what they cost, and where they go, before any is spent."""

from __future__ import annotations

import msgspec
from rich.table import Table

from manifests import Recipe, files, load_corpus
from manifests.console import hours as told
from manifests.console import size
from manifests.console import table as new_table
from manifests.tables import FORMAT as MANIFEST_FORMAT
from manifests.tables import read_table
from pipelines.layout import BYTES_PER_SECOND
from pipelines.scan import manifest_path

RATES = {
    "flac16": 1.0,
    "trusted": 0.15,
    "wav16": 1.2,
    "flac32": 2.3,
    "wav44": 2.2,
    "mp3": 3.2,
    "opus": 8.0,
    "mix": 2.2,
    "speech": 1.4,
}
"""Cpu-seconds for an hour of audio as it is stored, by the form it is published in (benchmarks/rates.py, two cores):
copied after its MD5 was checked, copied on the word of the archive's digest, and decoded, resampled and encoded."""
PER_CLIP = 0.0002
"""Cpu-seconds for a clip beside its audio: texts, prompts, its rows. Packing less storing, on short bundled clips."""
READ_BACK = 0.07
"""Cpu-seconds to read an hour of packed audio back and hash it."""
RAY = 1.1
"""What distribution adds: at most a tenth of the work (benchmarks/build.py)."""

FORMATS = {
    "audiocaps": "opus",  # WebM as YouTube has it; less if one's own copies are FLAC
    "clotho": "wav44",
    "coreasoning": "speech",
    "covost2": "mp3",
    "gigaspeech": "wav16",  # the Hub's segments; the official release is 16 kHz Opus
    "iemocap": "wav16",
    "inspec": "speech",
    "librimix": "mix",
    "librispeech": "flac16",
    "millionsong": "mp3",  # the user's own audio
    "musiccaps": "opus",
    "musicnet": "wav44",
    "slurp": "flac16",
    "voxceleb1": "wav16",
    "wavcaps": "flac32",
    "wikiqa": "speech",
}
"""The form of each corpus's audio as published, a key of RATES."""
UNKNOWN = "mp3"
"""The form assumed of a corpus that is not listed: dearer than most."""


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """One split of one corpus."""

    corpus: str
    split: str
    form: str
    """A key of RATES."""
    known: str
    """Where clips and hours are from: ``its manifest``, ``published counts`` or ``the recipe``."""
    clips: int
    hours: float
    """Of audio."""

    @property
    def cpu_seconds(self) -> float:
        """What packing and reading back take, on one processor."""
        return RAY * (self.hours * (RATES[self.form] + READ_BACK) + self.clips * PER_CLIP)

    @property
    def bytes_out(self) -> float:
        """What its shards take on disk, about."""
        return self.hours * 3600 * BYTES_PER_SECOND

    def shards(self, shard_mb: float) -> int:
        """How many shards of `shard_mb` MiB it makes, about."""
        return max(1, round(self.bytes_out / (shard_mb * 2**20)))


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A whole build. It counts processors, not the network: reading and writing may be what one waits for."""

    recipe: str
    costs: tuple[Cost, ...]

    @property
    def hours(self) -> float:
        """Hours of audio."""
        return sum(cost.hours for cost in self.costs)

    @property
    def clips(self) -> int:
        """Clips in all."""
        return sum(cost.clips for cost in self.costs)

    @property
    def cpu_hours(self) -> float:
        """Processor hours."""
        return sum(cost.cpu_seconds for cost in self.costs) / 3600

    @property
    def bytes_out(self) -> float:
        """What the shards take on disk, about."""
        return sum(cost.bytes_out for cost in self.costs)

    def wall_hours(self, workers: int) -> float:
        """Hours on a clock with so many processors, if storage keeps up."""
        return self.cpu_hours / workers

    def price(self, per_cpu_hour: float) -> float:
        """What the processor hours cost, in the currency of the price of one."""
        return self.cpu_hours * per_cpu_hour

    def by_form(self) -> dict[str, tuple[float, float]]:
        """Map each form of audio to its hours of audio and its processor hours, the dearest first."""
        found: dict[str, tuple[float, float]] = {}
        for cost in self.costs:
            hours, cpu = found.get(cost.form, (0.0, 0.0))
            found[cost.form] = (hours + cost.hours, cpu + cost.cpu_seconds / 3600)
        return dict(sorted(found.items(), key=lambda item: -item[1][1]))


def estimate(recipe: Recipe, root: str = "", *, trusted: bool = False) -> Estimate:
    """Return what building a recipe takes: from the manifests below `root` where a split is scanned, else as published.

    With `trusted`, conforming FLAC is copied on the word of the archive's digest.
    """
    costs = []
    for corpus, split in recipe.sources():
        clips, seconds, known = extent(recipe, root, corpus, split)
        form = FORMATS.get(corpus, UNKNOWN)
        form = "trusted" if trusted and form == "flac16" else form
        costs.append(Cost(corpus=corpus, split=split, form=form, known=known, clips=clips, hours=seconds / 3600))
    return Estimate(recipe=recipe.name, costs=tuple(costs))


def extent(recipe: Recipe, root: str, corpus: str, split: str) -> tuple[int, float, str]:
    """Return the clips of a split, its seconds, and who says so."""
    place = manifest_path(root, corpus, split) if root else ""
    if place and files.exists(place):
        rows = read_table(place, MANIFEST_FORMAT, ["seconds"])
        return rows.num_rows, float(sum(rows["seconds"].to_pylist())), "its manifest"
    published = load_corpus(corpus).split(split)
    if published.hours:
        return published.clips, published.hours * 3600, "published counts"
    # Some corpora come without audio, so nobody publishes its length: what the recipe means to have of it then counts.
    rows_of = [
        row for stage in recipe.stages for row in recipe.stage(stage) if (row.corpus, row.splits) == (corpus, (split,))
    ]
    hours = max((row.hours or 0.0 for row in rows_of), default=0.0)
    samples = max((row.samples or 0 for row in rows_of), default=0)
    return samples or published.clips, hours * 3600, "the recipe" if hours else "nobody"


def table(made: Estimate, price: float = 0.0, shard_mb: float = 256) -> Table:
    """Return an estimate as a table: a row a split, the dearest first, the sum last; money if a `price` is given."""
    numbers = ("clips", "audio", "shards", "on disk", "cpu time", "share", *(["cost"] if price else []))
    shown = new_table(
        f"Building {made.recipe} would take", "split", "published as", *numbers, "known from", right=numbers
    )
    whole = made.cpu_hours * 3600
    for cost in sorted(made.costs, key=lambda cost: -cost.cpu_seconds):
        shown.add_row(
            f"{cost.corpus}:{cost.split}",
            cost.form,
            f"{cost.clips:,}",
            told(cost.hours * 3600),
            f"{cost.shards(shard_mb):,}",
            size(cost.bytes_out),
            told(cost.cpu_seconds),
            f"{cost.cpu_seconds / whole:.1%}" if whole else "",
            *([f"{cost.cpu_seconds / 3600 * price:,.2f}"] if price else []),
            cost.known,
        )
    shown.add_section()
    shards = sum(cost.shards(shard_mb) for cost in made.costs)
    sums = (f"{made.clips:,}", told(made.hours * 3600), f"{shards:,}", size(made.bytes_out), told(whole), "")
    shown.add_row("all", "", *sums, *([f"{made.price(price):,.2f}"] if price else []), "")
    return shown
