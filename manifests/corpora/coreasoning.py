"""Co-reasoning, ours: a question is spoken over a clip of AudioCaps, and what else is heard answers it.

SALMONN's own set of this kind (arXiv 2310.13289) is not public. The tree is a link to AudioCaps::

    audiocaps/dataset/test.csv                        the folder of the corpus audiocaps, see there
    audiocaps/audio/test/7fmOlUlwoNg_20.flac

The recipe: a clip is asked which animal is heard if its captions name one, else a question of TOPICS to which they
say yes, else one to which they say no; of AudioCaps test that makes as many yes as no. The question is drawn, and a
voice to speak it. Clip and question begin together, the clip at SOUND and the question at SPEECH of its full scale:
that sums to 1, so nothing clips. Whoever changes any of it counts RECIPE up. One record, for ``A dog barks``::

    Which animal do you hear?                         A dog

A caption proves that something is heard, hardly ever that something is not. So yes takes a word of a short list in half
of the captions at least, and no takes captions that hold nothing of a long list of beginnings of words: with ``spla``
there might be water. Clips whose captions answer no question are refused as ``no_question``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from manifests import draw, files
from manifests.clips import AudioRef, Clip, Refuse
from manifests.corpora import audiocaps
from manifests.corpora.wikiqa import VOICES
from manifests.errors import UserError

RECIPE = 1
SEED = 0
SOUND, SPEECH = 0.3, 0.7
"""Linear gains: the question is 7 dB above a clip as loud as itself."""


def words(text: str) -> tuple[str, ...]:
    """Return the words of `text`."""
    return tuple(text.split())


class Topic(msgspec.Struct, frozen=True, kw_only=True):
    """A question whose answer is yes or no."""

    question: str
    heard: frozenset[str]
    """Words each of which says that it is heard."""
    hints: tuple[str, ...]
    """Beginnings of words each of which leaves open whether it is heard."""
    share: int
    """How often it is asked where no is the answer: as yes is, or the question alone would give the answer away."""


TOPICS = (
    Topic(
        question="Do you hear water?",
        share=4,
        heard=frozenset(words("water rain raindrops stream ocean faucet waterfall")),
        hints=words(
            "aqua bath beach boat boil bubbl creek dish drain drip drop faucet fill fizz flow flush fountain "
            "gargl gurgl hiss hose lake leak liquid motorboat ocean paddl patter pond pool pour rain rinse river "
            "row sail sea ship shore shower sink sizzl sloshing spill spla spray sprinkl squirt steam storm "
            "stream surf swim tap thunder toilet trickl tub underwater wash water wave wet"
        ),
    ),
    Topic(
        question="Do you hear an engine?",
        share=6,
        heard=frozenset(words("engine engines motorcycle motorbike motorboat")),
        hints=words(
            "accelerat air aircraft auto bike blender boat bus car chainsaw compress copter craft cycl drill driv "
            "drone engine fan flies fly gear generator helicopter hum idl jet lawn locomotive machin mechanic "
            "moped motor mow pass plane power propell rac race rev roar rotor rumbl saw scooter sewing ship siren "
            "subway tank throttl tire tool tractor traffic train truck tug turbine vacuum van vehicle vibrat "
            "vroom whir"
        ),
    ),
    Topic(
        question="Do you hear a bird?",
        share=3,
        heard=frozenset(words("bird birds pigeon pigeons duck ducks rooster owl crow")),
        hints=words(
            "animal bird call caw chick chirp cluck cock coo crow cuckoo dove duck eagle fowl gees gobbl goose "
            "gull hawk hen hoot nature owl parrot peacock peck pigeon quack rooster seagull sing song squawk swan "
            "turkey tweet warbl whistl wildlife wing"
        ),
    ),
    Topic(
        question="Do you hear music?",
        share=1,
        heard=frozenset(words("music song guitar piano")),
        hints=words(
            "accordion band bass beat bell brass chant chim choir clap concert danc drum flute game guitar "
            "harmonica harp horn hum instrument jingl melod music orchest perform piano play radio rap rhythm "
            "sang saxo sing song strum sung tap television theme trumpet tune tv ukulele violin whistl xylophone"
        ),
    ),
    Topic(
        question="Do you hear laughter?",
        share=3,
        heard=frozenset(words("laugh laughs laughing laughter giggles giggling chuckles")),
        hints=words(
            "amus applau audience bab cackl cheer child chuckl comedy crowd fun giggl haha happ hoot humor jok "
            "kid laugh play scream smil snicker squeal"
        ),
    ),
    Topic(
        question="Do you hear wind?",
        share=3,
        heard=frozenset(("wind",)),
        hints=words(
            "air blow blust breez distort draft flap gust hurricane microphone muffl outdoor outside rustl static "
            "storm thunder tornado weather whoosh wind woosh"
        ),
    ),
    Topic(
        question="Do you hear a siren?",
        share=1,
        heard=frozenset(("siren", "sirens")),
        hints=words("alarm alert ambulance beep emergency fire horn police siren truck vehicle wail whoop"),
    ),
    Topic(
        question="Do you hear a baby?",
        share=1,
        heard=frozenset(("baby", "babies", "infant")),
        hints=words(
            "bab boy child coo cri cry girl infant kid little newborn scream small sob toddler wail whimper young"
        ),
    ),
)
WHICH_ANIMAL = "Which animal do you hear?"
ANIMALS = {
    word: name
    for name, called in {
        "A dog": "dog dogs puppy puppies",
        "A cat": "cat cats kitten kittens",
        "A horse": "horse horses",
        "A goat": "goat goats",
        "A sheep": "sheep lamb lambs",
        "A pig": "pig pigs hog hogs",
        "A cow": "cow cows cattle",
        "A frog": "frog frogs toad toads",
        "A duck": "duck ducks",
        "A pigeon": "pigeon pigeons",
        "A rooster": "rooster roosters",
        "An owl": "owl owls",
    }.items()
    for word in words(called)
}
OTHER_ANIMALS = words(
    "animal bark bee bird bleat bug chicken cock creature cricket crow donkey elephant flies fly fowl "
    "geese goose gull hen hound insect lion monkey mosquito parrot seagull snake tiger turkey wasp wolf "
    "wolv"
)
"""Beginnings of words: with one of them in a caption there may be another animal."""
MADE = ("imitat", "mimic", "pretend", "toy", "squeaky", "like", "calls")
"""Beginnings of words that leave open whether it is what it is called: duck calls, a toy dog, something like water."""


def clips(root: str, split: str, refuse: Refuse) -> Iterator[Clip]:
    """Yield every clip of AudioCaps `split` with a question over it, in their order; `root` links to AudioCaps."""
    folder = files.join(root, "audiocaps")
    if not files.is_folder(folder):
        raise UserError(f"coreasoning: there is no folder {folder!r}; link the folder of AudioCaps there")
    for clip in audiocaps.clips(folder, split, refuse):
        name = clip.id.removeprefix("audiocaps/")
        options = questions(clip.captions)
        if not options:
            refuse("no_question", f"coreasoning/{name}", f"captions such as {clip.captions[0][:60]!r} answer none")
            continue
        question, answer = draw.choice(options, "coreasoning", RECIPE, SEED, "question", name)
        voice = draw.choice(VOICES, "coreasoning", RECIPE, SEED, "voice", name)
        sound = tuple(
            msgspec.structs.replace(ref, path=f"audiocaps/{ref.path}", gain=SOUND * ref.gain) for ref in clip.audio
        )
        yield Clip(
            id=f"coreasoning/{name}",
            audio=(*sound, AudioRef(speech=question, voice=voice, gain=SPEECH)) if sound else (),
            join="mix",
            language="en",
            text=question,
            captions=clip.captions,
            labels={"recipe": f"coreasoning {RECIPE}, seed {SEED}, sound {SOUND} + question {SPEECH}"},
            questions=(("", answer),),
            license=clip.license,
        )


def questions(captions: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return the questions to draw from and their answers, which `captions` prove: of one kind of answer alone."""
    told = [frozenset(re.findall(r"[a-z]+", caption.lower())) for caption in captions]
    said = frozenset().union(*told)
    made = begins(said, MADE)
    animals = {ANIMALS[word] for word in said if word in ANIMALS}
    if len(animals) == 1 and not made:
        (name,) = animals
        others = said - {"bark", "barks", "barking"} if name == "A dog" else said
        if not begins(others, OTHER_ANIMALS) and often(
            told, frozenset(word for word in ANIMALS if ANIMALS[word] == name)
        ):
            return [(WHICH_ANIMAL, name)]
    heard = [(topic.question, "Yes") for topic in TOPICS if often(told, topic.heard) and not made]
    silent = [(topic.question, "No") for topic in TOPICS if not begins(said, topic.hints) for _ in range(topic.share)]
    return heard or silent


def begins(said: frozenset[str], beginnings: tuple[str, ...]) -> bool:
    """Whether a word that is said begins with one of `beginnings`."""
    return any(word.startswith(beginnings) for word in said)


def often(told: list[frozenset[str]], heard: frozenset[str]) -> bool:
    """Whether half of the captions at least hold a word of `heard`."""
    return 2 * sum(not heard.isdisjoint(caption) for caption in told) >= len(told) > 0
