"""Licences: what the terms that corpora and clips state allow, and which of several hold together.

Not legal advice: what the texts say, as far as it decides whether shards may be passed on. Shards hold audio resampled,
cut and joined with instructions, which is a change of it. Terms that nobody here has read grant nothing.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable

import msgspec


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What one licence, or several that hold together, allow and ask."""

    name: str
    """As a person says it: ``CC BY-NC 4.0``."""
    why: str
    """One clause that says what decides: after ``because``, or after a colon."""
    spdx: str = ""
    """The SPDX identifier, empty if there is none."""
    hub: str = "other"
    """The Hugging Face Hub's identifier, ``other`` if it has none for these terms."""
    url: str = ""
    """Where the text of the terms is."""
    redistribute: bool = False
    """Whether it may be passed on at all, in some form and for some purpose."""
    commercial: bool = False
    """Whether it may be used commercially."""
    derivatives: bool = False
    """Whether what was made of it, as shards are, may be passed on."""
    attribution: bool = True
    """Whether its authors have to be named."""
    share_alike: bool = False
    """Whether what was made of it has to be passed on under the same terms."""
    by_clip: bool = False
    """Whether every clip states its own terms beside these, so that a clip that states none has none."""
    known: bool = True
    """Whether anyone here has read them. Of unknown terms nothing is allowed."""

    @property
    def may_push(self) -> bool:
        """Whether a dataset made of it may be published."""
        return self.redistribute and self.derivatives

    @property
    def strictness(self) -> int:
        """A number that orders terms: unknown ones above all, then no passing on, no changes, no commerce, the rest."""
        asked = (self.share_alike, not self.commercial, not self.derivatives, not self.redistribute, not self.known)
        return int(self.attribution) + sum(2 << place for place, holds in enumerate(asked) if holds)

    def covers(self, other: Terms) -> bool:
        """Whether who keeps these terms keeps the other ones, too.

        Terms that no public licence states, and share-alike ones of another kind, are kept by keeping them alone.
        """
        if self == other:
            return True
        if not other.spdx or (other.share_alike and self.spdx.rpartition("-")[0] != other.spdx.rpartition("-")[0]):
            return False
        return self.strictness & other.strictness == other.strictness


YOUTUBE = "its audio belongs to those who put it on YouTube, and nobody granted to pass it on; only {} are licensed"

STATED = {
    "MIT": Terms(
        name="MIT licence",
        spdx="MIT",
        hub="mit",
        url="https://opensource.org/license/mit",
        why="anything goes with its notice kept",
        redistribute=True,
        commercial=True,
        derivatives=True,
    ),
    "Apache-2.0": Terms(
        name="Apache License 2.0",
        spdx="Apache-2.0",
        hub="apache-2.0",
        url="https://www.apache.org/licenses/LICENSE-2.0",
        why="anything goes with its notices kept",
        redistribute=True,
        commercial=True,
        derivatives=True,
    ),
    "MIT captions, YouTube audio": Terms(
        name="MIT captions, YouTube audio",
        url="https://github.com/cdjkim/audiocaps",
        why=YOUTUBE.format("its captions (MIT)"),
    ),
    "CC-BY-SA-4.0 captions, YouTube audio": Terms(
        name="CC BY-SA 4.0 captions, YouTube audio",
        url="https://huggingface.co/datasets/google/MusicCaps",
        why=YOUTUBE.format("its captions (CC BY-SA 4.0)"),
        share_alike=True,
    ),
    "CC-BY-4.0 lists, YouTube audio": Terms(
        name="CC BY 4.0 lists, YouTube audio",
        url="https://www.robots.ox.ac.uk/~vgg/data/voxceleb/",
        why=YOUTUBE.format("its lists (CC BY 4.0)"),
    ),
    "CC by clip, Tampere University captions": Terms(
        name="Creative Commons by clip, captions of Tampere University",
        url="https://zenodo.org/records/4783391",
        why="its captions are for experimental and non-commercial purposes, with their notice and source named",
        redistribute=True,
        derivatives=True,
        by_clip=True,
    ),
    "academic use only (WavCaps)": Terms(
        name="academic use only (WavCaps)",
        url="https://huggingface.co/datasets/cvssp/WavCaps",
        why="it is for academic use, and what of its audio may be passed on is for each of its four sources to say",
    ),
    "GigaSpeech terms of access (non-commercial research and education)": Terms(
        name="GigaSpeech terms of access",
        url="https://huggingface.co/datasets/speechcolab/gigaspeech",
        why="who got it has agreed to keep it to non-commercial research and education, and others have to agree, too",
    ),
    "IEMOCAP release form": Terms(
        name="IEMOCAP release form",
        url="https://sail.usc.edu/iemocap/",
        why="who got it has signed to pass on nothing of it, labels included",
    ),
    "MSD research use": Terms(
        name="Million Song Dataset, research use",
        url="http://millionsongdataset.com",
        why="its metadata are for research, and it publishes no audio: whose the audio is, only you know",
    ),
    "research use": Terms(
        name="research use",
        why="it is for research, and says nothing of passing it on",
    ),
    "research use, acknowledging the Inspec Database and The IET": Terms(
        name="research use, acknowledging the Inspec Database and The IET",
        url="https://aclanthology.org/W03-1028",
        why="its abstracts are The IET's: it is for research, and says nothing of passing it on",
    ),
    "Microsoft Research Data License": Terms(
        name="Microsoft Research Data License",
        url="https://www.microsoft.com/en-us/download/details.aspx?id=52419",
        why="it is for non-commercial use or research, and is passed on under the same terms with changes marked",
        redistribute=True,
        derivatives=True,
        share_alike=True,
    ),
    "Sampling+": Terms(
        name="CC Sampling+ 1.0",
        url="https://creativecommons.org/licenses/sampling+/1.0/",
        why="whole works are passed on for non-commercial purposes only",
        redistribute=True,
        derivatives=True,
    ),
    "CC0-1.0": Terms(
        name="CC0 1.0",
        spdx="CC0-1.0",
        hub="cc0-1.0",
        url="https://creativecommons.org/publicdomain/zero/1.0/",
        why="its makers have waived their rights",
        redistribute=True,
        commercial=True,
        derivatives=True,
        attribution=False,
    ),
}
"""What corpora and readers state, as they state it, beside the Creative Commons licences, whose names are read."""

SAME = {
    "research use of the metadata; the audio is the user's own": "MSD research use",
    "CC-BY-4.0 texts, CC-BY-NC-4.0 audio": "CC-BY-NC-4.0",
    "Public domain": "CC0-1.0",
    "CC0": "CC0-1.0",
    "CC-SAMPLING+-1.0": "Sampling+",
}
"""Other ways to state the same."""

CREATIVE_COMMONS = re.compile(r"cc[ -]by((?:-nc)?(?:-sa|-nd)?)[ -](\d\.\d)(?:[ -]\w+)?", re.ASCII | re.IGNORECASE)
CC_PAGE = re.compile(r"https?://(?:www\.)?creativecommons\.org/(?:licenses|publicdomain)/([a-z+-]+)/(\d\.\d)(?:/.*)?")
ON_THE_HUB = {
    "by": ("2.0", "2.5", "3.0", "4.0"),
    "by-sa": ("3.0", "4.0"),
    "by-nc": ("2.0", "3.0", "4.0"),
    "by-nd": ("4.0",),
    "by-nc-nd": ("3.0", "4.0"),
    "by-nc-sa": ("2.0", "3.0", "4.0"),
}
"""The versions that the Hub has an identifier for (huggingface.co/docs/hub/repositories-licenses)."""


@functools.cache
def terms(license: str) -> Terms:
    """Return what a licence allows, as a corpus or a clip states it: a name of `STATED`, an SPDX name or a CC page.

    A statement that nobody here knows gives unknown terms, which allow nothing and say so.
    """
    stated = license.strip()
    if page := CC_PAGE.fullmatch(stated):
        kind, version = page.groups()
        stated = {"zero": "CC0-1.0", "sampling+": "Sampling+", "mark": "CC0-1.0"}.get(kind, f"CC-{kind}-{version}")
    folded = {name.casefold(): name for name in (*STATED, *SAME)}
    stated = folded.get(stated.casefold(), stated)
    stated = SAME.get(stated, stated)
    if stated in STATED:
        return STATED[stated]
    if match := CREATIVE_COMMONS.fullmatch(stated):
        return creative_commons("by" + match[1].lower(), match[2])
    why = f"nobody here has read {stated!r}" if stated else "it states no licence"
    return Terms(name=stated or "no licence stated", why=f"{why}, and unknown terms allow nothing", known=False)


def creative_commons(kind: str, version: str) -> Terms:
    """Return the terms of a Creative Commons licence: ``by-nc-sa``, ``4.0``."""
    parts = kind.split("-")
    asked = {"nc": "no commercial use", "nd": "nothing made of it may be passed on", "sa": "the same terms for others"}
    named = f"cc-{kind}-{version}"
    return Terms(
        name=f"CC {kind.upper()} {version}",
        why="; ".join(["its authors are named", *(asked[part] for part in parts if part in asked)]),
        spdx=named.upper(),
        hub=named if version in ON_THE_HUB.get(kind, ()) else "other",
        url=f"https://creativecommons.org/licenses/{kind}/{version}/",
        redistribute=True,
        commercial="nc" not in parts,
        derivatives="nd" not in parts,
        share_alike="sa" in parts,
    )


def clip_terms(corpus: str, clip: str) -> Terms:
    """Return the terms of a clip: what its corpus states for all of it, and what the clip states, hold together.

    A clip's statement alone would mislead: that of AudioCaps (MIT) is about its captions. Where each clip states its
    own (Clotho), one that only repeats its corpus has none.
    """
    if terms(clip).by_clip:
        return terms("")
    return msgspec.structs.replace(strictest((corpus, clip)), by_clip=False)


def strictest(licences: Iterable[str]) -> Terms:
    """Return the terms of what holds parts under each of these licences: the strictest wins.

    Where it does not cover the others (share-alike beside non-commercial), all conditions hold together under a joint
    name. The terms of nothing at all are unknown.
    """
    return joined([terms(license) for license in licences])


def joined(several: Iterable[Terms]) -> Terms:
    """Return the strictest of some terms, or their conditions together where it does not cover the others."""
    # Of versions of one licence the newest, which the older ones of a share-alike kind allow to take.
    ordered = sorted(sorted(set(several), key=lambda one: one.name, reverse=True), key=lambda one: -one.strictness)
    apart: list[Terms] = []
    for one in ordered:
        if not any(other.covers(one) for other in apart):
            apart.append(one)
    if not apart:
        return terms("")
    if len(apart) == 1:
        return apart[0]
    return Terms(
        name=" and ".join(one.name for one in apart),
        why="; ".join(f"{one.name}: {one.why}" for one in apart),
        redistribute=all(one.redistribute for one in ordered),
        commercial=all(one.commercial for one in ordered),
        derivatives=all(one.derivatives for one in ordered),
        attribution=any(one.attribution for one in ordered),
        share_alike=any(one.share_alike for one in ordered),
        by_clip=any(one.by_clip for one in ordered),
        known=all(one.known for one in ordered),
    )
