"""The croissant.json of a dataset: Croissant 1.1, the description of datasets that search engines and tools read.

Every file stands in it with its sha256, and the index of every split as a set of records that a tool can read
(https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html). Of the RAI vocabulary it says what the dataset
itself knows: how clips were gathered, prepared, annotated and left out. Nothing in it depends on the clock.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pyarrow as pa

from manifests import files
from shards.index import FOR_MACHINES, SCHEMA, File, Source
from shards.papers import Papers, facts_of, total

CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
"""The context that the specification asks for, word for word."""
TYPES = {
    pa.string(): "sc:Text",
    pa.bool_(): "sc:Boolean",
    pa.int32(): "cr:Int32",
    pa.int64(): "cr:Int64",
    pa.uint32(): "cr:UInt32",
    pa.float32(): "cr:Float32",
    pa.float64(): "cr:Float64",
}
MEANINGS = {
    "key": "The name of the sample: its files in the shard are <key>.flac and <key>.json.",
    "id": "The clip's own name in its corpus.",
    "shard": "The shard that holds the sample.",
    "flac_offset": "Bytes from the start of the shard to the FLAC file.",
    "json_offset": "Bytes from the start of the shard to the JSON file.",
    "samples": "Length of the audio at 16 kHz.",
    "text": "The transcript, as published.",
    "license": "What the clip states.",
    "tasks": "What is asked: one entry an instruction, like prompts and answers.",
    "answers": "For each instruction, all answers that are right.",
    "sources": "The files of the corpus that the audio was made of.",
}
"""What a column of the index means, where its name does not say."""


def croissant(papers: Papers, page: str = "", base: str = "") -> bytes:
    """Return the content of croissant.json: `page` is the dataset's address, `base` what its files' paths go on from.

    Without them the dataset is described as it lies in its folder.
    """
    manifest, terms = papers.manifest, papers.terms
    titles = {corpus: facts.title if (facts := facts_of(corpus)) else corpus for corpus in papers.corpora}
    sources = [part.source for part in papers.parts]
    hours = sum(source.seconds for source in sources) / 3600
    packed = sum(source.packed for source in sources)
    about = f"{packed:,} clips, {hours:,.2f} hours of audio with instructions, of {', '.join(titles.values())}."
    cited = [facts.attribution for corpus in papers.corpora if (facts := facts_of(corpus)) and facts.attribution]
    told = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": manifest.title,
        "description": about,
        "conformsTo": ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"],
        # Semantic versioning: of the format, and which content of it.
        "version": f"{manifest.format.rpartition('-')[2]}.0.0+{manifest.digest[:12]}",
        "license": terms.url or (f"{base}ATTRIBUTION.md" if base else terms.name),
        "citeAs": "; ".join(dict.fromkeys(cited)),
        "url": page,
        "inLanguage": sorted(tag for tag in total(part.languages for part in papers.parts) if tag),
        "keywords": sorted(total(part.instructions for part in papers.parts)),
        "isLiveDataset": False,
        **responsible(papers),
        "distribution": [one for source in sources for one in distribution(source, base)],
        "recordSet": [record_set(source) for source in sources],
    }
    kept = {name: value for name, value in told.items() if value not in ("", [], None)}
    return msgspec.json.format(msgspec.json.encode(kept)) + b"\n"


def distribution(source: Source, base: str) -> list[dict[str, Any]]:
    """Return the files of one split."""
    table, tar = "application/x-parquet", "application/x-tar"
    index = file_object(source.index, table, "The index: one row a sample.", base)
    refused = file_object(source.quarantine, table, "What was refused, and why.", base)
    shards = [file_object(file, tar, "A WebDataset shard: pairs of FLAC and JSON.", base) for file in source.shards]
    return [index, refused, *shards]


def file_object(file: File, kind: str, about: str, base: str) -> dict[str, Any]:
    """Return one file."""
    return {
        "@type": "cr:FileObject",
        "@id": file.path,
        "name": file.path,
        "description": about,
        "contentUrl": f"{base}{file.path}",
        "contentSize": f"{file.bytes} B",
        "encodingFormat": kind,
        "sha256": file.sha256,
    }


def record_set(source: Source) -> dict[str, Any]:
    """Return the records of the index of one split: its columns, but for those that tell a person nothing."""
    name = files.join(source.corpus, source.split)
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": f"The samples of {source.corpus}, split {source.split}: {source.packed:,}.",
        "key": {"@id": f"{name}/key"},
        "field": [column(source, name, one) for one in SCHEMA if one.name not in FOR_MACHINES],
    }


def column(source: Source, name: str, of: pa.Field) -> dict[str, Any]:
    """Return one column of the index as a field."""
    depth, kind = 0, of.type
    while pa.types.is_list(kind):
        depth, kind = depth + 1, kind.value_type
    told = {
        "@type": "cr:Field",
        "@id": f"{name}/{of.name}",
        "name": of.name,
        "description": MEANINGS.get(of.name, ""),
        "dataType": TYPES[kind],
        "source": {"fileObject": {"@id": source.index.path}, "extract": {"column": of.name}},
    }
    if depth:
        told |= {"isArray": True, "arrayShape": ",".join(["-1"] * depth)}
    return {key: value for key, value in told.items() if value != ""}


def responsible(papers: Papers) -> dict[str, Any]:
    """Return what the dataset itself knows for the RAI vocabulary; what nobody knows is left out."""
    sources = [part.source for part in papers.parts]
    found, packed = (sum(getattr(source, name) for source in sources) for name in ("found", "packed"))
    reasons = total([source.reasons for source in sources])
    why = ", ".join(f"{reason} {number:,}" for reason, number in reasons.items())
    done = ", ".join(f"{number:,} clips: {action}" for action, number in total(p.actions for p in papers.parts).items())
    written = "; ".join(f"{name} {value}" for name, value in sorted(papers.manifest.provenance.items()))
    made = total(part.provenance for part in papers.parts)
    tools = sorted({*made, *([written] if written else [])})
    lost = f"{found - packed:,} of {found:,} clips were left out{f': {why}' if why else ''}."
    prepared = f"Audio is stored as FLAC, 16 kHz, mono, 16 bits ({done})." if done else "There is no audio in it."
    published = "Answers are what the corpora publish, or follow by rule."
    return {
        "rai:dataCollection": f"Gathered from published corpora: {', '.join(papers.corpora)}.",
        "rai:dataCollectionType": ["Secondary data analysis"],
        "rai:dataCollectionMissingData": lost,
        "rai:dataPreprocessingProtocol": [prepared],
        "rai:dataAnnotationProtocol": [
            "Answers were written by a model." if written else published,
            "Prompts are paraphrases, drawn by the hash of a sample's key.",
        ],
        "rai:machineAnnotationTools": tools,
        "rai:personalSensitiveInformation": ["Voices of people; for some corpora their gender, as published."]
        if any(tag for part in papers.parts for tag in part.languages)
        else [],
    }
