"""Upstream: what a sample was made of, by a name that is the same in every corpus, and whose voices are in it.

SQL over the columns of the index. Two samples that share an upstream name hold the same recording, or parts of it: a
video in AudioCaps, WavCaps and MusicCaps; an utterance of LibriSpeech in a mixture of LibriMix; one of VoxCeleb1 in
eight pairs. The ids are those of the readers in manifests/corpora, whose docstrings show a true record each.
"""

from __future__ import annotations

ORIGINS = r"""case corpus
  when 'audiocaps' then [regexp_replace(id, '^audiocaps/(?:v2/)?(.+)_[0-9]+$', 'youtube:\1')]
  when 'coreasoning' then [regexp_replace(id, '^coreasoning/(.+)_[0-9]+$', 'youtube:\1')]
  when 'musiccaps' then [regexp_replace(id, '^musiccaps/', 'youtube:')]
  when 'wavcaps' then [case split
    when 'audioset-sl' then regexp_replace(id, '^wavcaps/audioset-sl/Y(.+?)(?:[.]wav)?$', 'youtube:\1')
    else regexp_replace(id, '^wavcaps/freesound/', 'freesound:') end]
  when 'clotho' then [replace(regexp_replace(id, '^clotho/[a-z]+/', 'clotho:'), '&#39;', '__39_')]
  when 'slurp' then [regexp_replace(id, '-headset$', '')]
  when 'librimix' then list_transform(string_split(id[10:], '_'), lambda name: 'librispeech/' || name)
  when 'voxceleb1' then list_transform(string_split(id[11:], '+'), lambda name: 'voxceleb1/' || name)
  else [id] end"""
"""The upstream names of a sample, a list. A clip of Clotho is known by the name of its file, which is that of the sound
on Freesound: five stand in two splits, one of them with its apostrophe written in two ways (clotho-dataset, issue 3).
One take of SLURP is one, however near the microphone. What has no rule is its own source, by its id."""

VOICES = r"""case corpus
  when 'librimix' then
    list_transform(string_split(id[10:], '_'), lambda name: 'librispeech/' || split_part(name, '-', 1))
  when 'voxceleb1' then
    list_transform(string_split(id[11:], '+'), lambda name: 'voxceleb1/' || split_part(name, '/', 1))
  else case when speaker = '' then [] else [speaker] end end"""
"""The speakers of a sample, a list, also where it has several; empty where they are not known."""

SAID = r"""trim(case when regexp_full_match(text, '[A-Za-z0-9 ]*') then lower(text)
  else regexp_replace(lower(text), '<[a-z]+> ?|[^\pL\pN ]+', '', 'g') end)"""
"""A transcript without case, punctuation, and the tags of GigaSpeech."""

UNSEEN = ("iemocap", "librimix", "librispeech", "voxceleb1")
"""Corpora whose evaluation is of unseen speakers: their published splits share none."""

SCRIPTED = ("covost2", "iemocap", "slurp")
"""Corpora in which several people say one sentence by design: the same lines in every session of IEMOCAP, prompts that
many read in Common Voice and SLURP."""


def composed(corpus: str, split: str) -> bool:
    """Whether the clips of a split are pairs or mixtures of clips that stand elsewhere, too."""
    return corpus in ("coreasoning", "librimix") or (corpus == "voxceleb1" and split.startswith("verification-"))
