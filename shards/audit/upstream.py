"""Upstream: what a sample was made of, by a name that is the same in every corpus, and whose voices are in it.

SQL over the columns of the index. Two samples that share an upstream name hold the same recording, or parts of it: a
video in AudioCaps, WavCaps and MusicCaps; an utterance of LibriSpeech in a mixture of LibriMix; one of VoxCeleb1 in
eight pairs. The ids are those of the readers in manifests/corpora, whose docstrings show a true record each.
"""

from __future__ import annotations

ORIGINS = r"""case corpus
  when 'audiocaps' then ['youtube:' || regexp_extract(id, '^audiocaps/(?:v2/)?(.*)_[0-9]+$', 1)]
  when 'coreasoning' then ['youtube:' || regexp_extract(id, '^coreasoning/(.*)_[0-9]+$', 1)]
  when 'musiccaps' then ['youtube:' || substr(id, 11)]
  when 'wavcaps' then [case split
    when 'audioset-sl' then 'youtube:' || regexp_extract(id, '^wavcaps/audioset-sl/Y(.*?)(?:[.]wav)?$', 1)
    when 'freesound' then 'freesound:' || substr(id, 19) else id end]
  when 'clotho' then ['clotho:' || replace(substr(id, 9 + len(split)), '&#39;', '__39_')]
  when 'slurp' then [regexp_replace(id, '-headset$', '')]
  when 'librimix' then list_transform(string_split(substr(id, 10), '_'), lambda name: 'librispeech/' || name)
  when 'voxceleb1' then case when contains(id, '+')
    then list_transform(string_split(substr(id, 11), '+'), lambda name: 'voxceleb1/' || name) else [id] end
  else [id] end"""
"""The upstream names of a sample, a list. A clip of Clotho is known by the name of its file, which is that of the sound
on Freesound: five stand in two splits, one of them with its apostrophe written in two ways (clotho-dataset issue 3).
One take of SLURP is one, however near the microphone. What has no rule is its own source, by its id."""

VOICES = r"""case corpus
  when 'librimix' then list_transform(string_split(substr(id, 10), '_'),
    lambda name: 'librispeech/' || split_part(name, '-', 1))
  when 'voxceleb1' then case when speaker <> '' then [speaker]
    else list_transform(string_split(substr(id, 11), '+'), lambda name: 'voxceleb1/' || split_part(name, '/', 1)) end
  else case when speaker <> '' then [speaker] else [] end end"""
"""The speakers of a sample, a list, also where it has several; empty where they are not known."""

UNSEEN = ("iemocap", "librimix", "librispeech", "voxceleb1")
"""Corpora whose evaluation is of unseen speakers: their published splits share none."""

SCRIPTED = ("covost2", "iemocap", "slurp")
"""Corpora in which a sentence is said by several people by design: the same lines in every session, prompts that are
read by many."""


def composed(corpus: str, split: str) -> bool:
    """Whether the clips of a split are pairs or mixtures of clips that stand elsewhere, too."""
    return corpus in ("librimix", "coreasoning") or (corpus, split.partition("-")[0]) == ("voxceleb1", "verification")


UNHEARD = " .,;:!?'\"`()[]{}<>/\\|*_~@#$%^&+=-\t\n\r\u00a0\u00ab\u00bb\u2013\u2014\u2018\u2019\u201c\u201d\u2026\u3001\u3002\uff01\uff0c\uff1f"
"""Characters of a transcript that say nothing: white space and punctuation."""

SAID = f"""lower(translate(
  case when contains(text, '<') then regexp_replace(text, '<[A-Z]+>', '', 'g') else text end,
  {", ".join(())}'{UNHEARD.replace("'", "''")}', ''))"""
