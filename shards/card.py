"""The README.md of a dataset: a Hugging Face dataset card, so that its viewer and `datasets` find the shards."""

from __future__ import annotations

import re

from shards.index import Manifest, Source


def split_name(source: Source) -> str:
    """Return a split's name as `datasets` allows it: no hyphens."""
    return re.sub(r"\W", "_", source.split)


def card(manifest: Manifest) -> str:
    """Return the text of README.md."""
    corpora = sorted({source.corpus for source in manifest.sources})
    packed = sum(source.packed for source in manifest.sources)
    lines = [
        "---",
        f"pretty_name: {manifest.title!r}",
        "license: other",
        "tags:",
        "- webdataset",
        "- audio",
        "- instructions",
    ]
    lines += ["size_categories:", f"- {size_category(packed)}", "configs:"]
    for corpus in corpora:
        lines += [f"- config_name: {corpus}", "  data_files:"]
        for source in manifest.sources:
            if source.corpus == corpus and source.shards:
                lines += [
                    f"  - split: {split_name(source)}",
                    "    path:",
                    *(f"    - {file.path}" for file in source.shards),
                ]
    lines += ["---", "", f"# {manifest.title}", ""]
    lines += [
        "Speech, sound and their instructions as WebDataset shards. A sample is `<key>.flac` (16 kHz, mono, 16 bits)",
        "and `<key>.json` (who, what, and every instruction with all its right answers). `index/` holds one row a",
        "sample with its byte range, `quarantine/` what was refused and why, `dataset.json` the digests of it all.",
        "",
        "| corpus | split | samples | hours | tasks | licence |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {s.corpus} | {s.split} | {s.packed:,} | {s.seconds / 3600:.2f} | {', '.join(s.tasks)} | {s.license} |"
        for s in manifest.sources
    ]
    if manifest.provenance:
        told = "; ".join(f"{name} {value}" for name, value in sorted(manifest.provenance.items()))
        lines += ["", f"**The answers were written by a model** ({told})."]
    lines += ["", f"Built from the recipe `{manifest.recipe}`; digest `{manifest.digest}`.", ""]
    return "\n".join(lines)


def size_category(samples: int) -> str:
    """Return the size class of the Hugging Face Hub."""
    steps = [(10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M")]
    return next((name for limit, name in steps if samples < limit), "n>10M")
