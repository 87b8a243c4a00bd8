"""Stories for activation tuning: the model tells them about clips of a dataset, at a reduced LoRA scale.

After instruction tuning SALMONN answers everything like a task that it was trained on; with a weaker LoRA it can still
tell a story. A dozen of those, learnt with LoRA at full strength, bring back what tuning overgrew (paper, activation
tuning). They are a dataset of their own, with audio copied byte for byte, streamed and trained on like any other.

DATASET/build/plan.json           what was asked for, while it is at work
DATASET/build/stories/NNNNNN.json what the model said of each clip: a killed run goes on behind the last
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import msgspec
import numpy as np

from manifests import TASKS, Instruction, Recipe, TooManyRefusals, UserError, draw, files
from salmonn.proofread import NoStory, head, proofread
from salmonn.story_plan import TASK, Choice, Plan, Telling, Writer, choose, clips_of, differences
from shards import Dataset
from shards.audio import Refused, Wave, read_flac
from shards.excerpt import Part, Taken, counted, write_excerpt
from shards.flac import RATE
from shards.index import FORMAT, Manifest
from shards.reading import Damaged, Reader

TRIES = 4
"""So many clips may be tried for each story that is asked for."""
LONGEST = 30 * RATE
"""Samples that a model hears of a clip."""

Teller = Callable[[Wave, str, int], tuple[str, bool]]
"""Tells a story: of float32 [samples] at 16 kHz, to a prompt, with a seed; the text, and whether it was finished."""


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """What the model said of a clip."""

    text: str = ""
    finished: bool = False
    """Whether the model ended it itself."""
    damage: str = ""
    """Why the clip could not be heard, if it could not: a code of shards.refusals and the detail."""


class Stories(msgspec.Struct, frozen=True, kw_only=True):
    """What `write_stories` did."""

    dataset: str
    digest: str
    stories: tuple[str, ...]
    tried: int
    """Clips that the model was asked about."""
    reasons: dict[str, int]
    """Why what it said was not taken, and how often."""
    asked: int
    """Of these, asked about by this call; the others had been before it was killed."""


def write_stories(
    out: str,
    dataset: Dataset,
    recipe: Recipe,
    stage: str,
    telling: Telling,
    writer: Writer,
    teller: Teller,
    *,
    on_clip: Callable[[int, int], None] = lambda taken, tried: None,
) -> Stories:
    """Let `teller` tell stories about clips of `dataset`, and write them as the dataset `out`.

    Run again with the same arguments, it goes on where it was killed, and ends in the same bytes. `on_clip` is told
    how many stories were taken, of how many clips. UserError if `out` holds anything else or there are too few clips;
    TooManyRefusals if too little of what the model says is a story.
    """
    plan = Plan(
        format=FORMAT,
        dataset=dataset.digest,
        recipe=recipe.name,
        stage=stage,
        mixture=recipe.digest(stage),
        prompts=TASKS[TASK].prompts,
        telling=telling,
        writer=writer,
    )
    if finished(out, plan):
        return summary(out, asked=0)
    choices = choose(dataset, recipe, stage, telling.seed)
    if len(choices) < telling.count:
        raise UserError(
            f"stage {stage!r} of recipe {recipe.name!r} names {len(choices)} clips of {files.redact(dataset.url)!r}, "
            f"too few for {telling.count} stories; lower --count, or name another --data, --recipe or --stage"
        )
    files.write_whole(files.join(out, "build/plan.json"), msgspec.json.encode(plan, order="sorted"))
    journal = Journal(out, dataset, telling.seed, teller)
    taken: dict[Choice, Taken] = {}
    stories: set[str] = set()
    for choice in choices[: TRIES * telling.count]:
        one = taken[choice] = judge(choice, journal.draft(len(taken), choice), stories)
        stories |= {answer for asked in one.instructions for answer in asked.answers}
        on_clip(len(stories), len(taken))
        if len(stories) == telling.count:
            break
    else:
        reasons = counted([one.reason for one in taken.values() if one.reason])
        why = ", ".join(f"{reason} {count}" for reason, count in reasons.items())
        raise TooManyRefusals(
            f"only {len(stories)} of {telling.count} stories came of {len(taken)} clips ({why}); try another "
            "--lora-scale, --sample 0.7 or a better trained run, with an --out of its own"
        )
    parts = [
        Part(
            corpus=corpus,
            split=split,
            clips=tuple(t for c, t in taken.items() if (c.corpus, c.split) == (corpus, split)),
        )
        for corpus, split in dict.fromkeys((corpus, split) for corpus, split, *_ in clips_of(recipe, stage))
    ]
    write_excerpt(dataset, out, parts, about(plan, recipe, dataset))
    files.remove_tree(files.join(out, "build"))
    return summary(out, asked=journal.asked)


def judge(choice: Choice, draft: Draft, told: set[str]) -> Taken:
    """Return what becomes of a clip: its story as the answer to its prompt, or why there is none."""
    if draft.damage:
        reason, _, detail = draft.damage.partition(": ")
        return Taken(row=choice.row, verdict="quarantined", reason=reason, detail=detail)
    try:
        story = proofread(draft.text, finished=draft.finished)
        if story in told:
            raise NoStory("same_story", head(story))
    except NoStory as nothing:
        return Taken(row=choice.row, reason=nothing.reason, detail=nothing.detail)
    return Taken(row=choice.row, instructions=(Instruction(task=TASK, prompt=choice.prompt, answers=(story,)),))


class Journal:
    """What the model said so far: each clip's draft is a file, so that no story is told twice."""

    def __init__(self, out: str, dataset: Dataset, seed: int, teller: Teller) -> None:
        """Keep drafts in the workshop of `out`; `teller` tells those that are not there."""
        self.out, self.dataset, self.seed, self.teller = out, dataset, seed, teller
        self.asked = 0
        """Drafts that were not there."""

    def draft(self, number: int, choice: Choice) -> Draft:
        """Return what the model said of the clip with this number."""
        place = files.join(self.out, f"build/stories/{number:06d}.json")
        if files.exists(place):
            return msgspec.json.decode(files.read_bytes(place), type=Draft)
        self.asked += 1
        try:
            text, finished = self.teller(self.hear(choice), choice.prompt, draw.number("tell", self.seed, choice.key))
            made = Draft(text=text, finished=finished)
        except Refused as refused:
            made = Draft(damage=str(refused))
        files.write_whole(place, msgspec.json.encode(made, order="sorted"))
        return made

    def hear(self, choice: Choice) -> Wave:
        """Return what a model hears of a clip, as float32 [samples]; Refused if its bytes are damaged."""
        reader = Reader(self.dataset, [(choice.corpus, choice.split)])
        try:
            held = reader.read(choice.row)
            pcm = read_flac(bytes(held.flac), held.where, crc32=held.crc32, frames=held.samples)
        except Damaged as damaged:
            raise Refused("corrupt", str(damaged)) from None
        finally:
            reader.close()
        return pcm[:LONGEST].astype(np.float32) / np.float32(32768)


def finished(out: str, plan: Plan) -> bool:
    """Whether the dataset of `plan` is finished in `out`; UserError if something else is there, finished or begun."""
    if files.exists(files.join(out, "dataset.json")):
        made = Dataset(out).manifest
        if made.plan == plan.digest:
            files.remove_tree(files.join(out, "build"))
            return True
        how = f" ({told_of(made.provenance)})" if made.provenance else ""
        raise UserError(f"{files.redact(out)!r} holds another dataset{how}; give another --out")
    place = files.join(out, "build/plan.json")
    if files.exists(place):
        try:
            before = msgspec.json.decode(files.read_bytes(place), type=Plan)
        except msgspec.MsgspecError:
            raise UserError(f"{files.redact(out)!r} holds a build that is not finished; give another --out") from None
        if before != plan:
            changed = "; ".join(differences(before, plan))
            raise UserError(f"{files.redact(out)!r} was begun otherwise: {changed}. Go back, or give another --out")
    elif names := [name for name in files.names(out) if name != "build"]:
        raise UserError(f"the folder {files.redact(out)!r} is not empty and holds no dataset ({names[0]} ...)")
    files.require_writable(out)
    files.remove_attempts(out)
    return False


def about(plan: Plan, recipe: Recipe, dataset: Dataset) -> Manifest:
    """Return what dataset.json says beside its sources: which model told the stories, and how."""
    telling, writer = plan.telling, plan.writer
    return Manifest(
        format=FORMAT,
        recipe=recipe.name,
        title=f"{telling.count} stories told by {writer.run} at step {writer.step}",
        plan=plan.digest,
        digest="",
        sources=(),
        tools=dataset.manifest.tools | writer.tools,
        provenance={
            "run": writer.run,
            "step": str(writer.step),
            "weights": writer.weights,
            "lora_scale": str(telling.lora_scale),
            "seed": str(telling.seed),
            "decoding": f"temperature {telling.temperature}" if telling.temperature else f"{telling.beams} beams",
            "max_new_tokens": str(telling.max_new_tokens),
            "clips_of": dataset.digest,
        },
    )


def told_of(provenance: dict[str, str]) -> str:
    """Return in a few words how a dataset's answers were written."""
    return ", ".join(
        f"{name} {provenance[name]}" for name in ("run", "step", "lora_scale", "seed") if name in provenance
    )


def summary(out: str, *, asked: int) -> Stories:
    """Return what a finished dataset of stories holds."""
    dataset = Dataset(out)
    sources = dataset.manifest.sources
    tables = [dataset.table(source.corpus, source.split, ["answers"]) for source in sources]
    return Stories(
        dataset=out,
        digest=dataset.digest,
        stories=tuple(row[0][0] for table in tables for row in table["answers"].to_pylist()),
        tried=sum(source.found for source in sources),
        reasons=dict(sum((Counter(source.reasons) for source in sources), Counter[str]())),
        asked=asked,
    )
