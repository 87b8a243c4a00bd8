"""Questions without a model: made by rule from a transcript or captions, with answers that stand in them.

A question is asked only where one answer is right: the word it names stands once, the noun is counted once, one thing
makes the sound. What is drawn depends on the clip's id alone.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator

import msgspec

from manifests import draw
from manifests.clips import Clip
from manifests.text import sentence_case

MOST = 3
"""Questions of a clip."""

PARAPHRASES = {
    "after": (
        'Which word comes right after "{}"?',
        'What is the next word after "{}"?',
        'Which word does the speaker say directly after "{}"?',
        'The speaker says "{}". What is the word that follows?',
    ),
    "before": (
        'Which word comes right before "{}"?',
        'What is the word just before "{}"?',
        'Which word does the speaker say directly before "{}"?',
        'Which word leads up to "{}"?',
    ),
    "first": (
        "What is the first word that is said?",
        "Which word does the speaker begin with?",
        "With which word does the speech start?",
        "What word is said first?",
    ),
    "last": (
        "What is the last word that is said?",
        "Which word does the speaker end with?",
        "With which word does the speech end?",
        "What word is said last?",
    ),
    "name": (
        'Who is called "{}"?',
        'Which name follows the title "{}"?',
        'Whose name is given with the title "{}"?',
        'What is the name of the person addressed as "{}"?',
    ),
    "how many": (
        "How many {} are mentioned?",
        "How many {} does the speaker mention?",
        "What number of {} is named?",
        "How many {} are there, according to the speaker?",
    ),
    "how many heard": (
        "How many {} are heard?",
        "How many {} are there in the recording?",
        "What is the number of {} in this recording?",
        "How many {} can you hear?",
    ),
    "heard first": (
        "What is heard first?",
        "Which sound comes first?",
        "What does the recording begin with?",
        "What happens at the beginning?",
    ),
    "heard last": (
        "What is heard last?",
        "Which sound comes last?",
        "What does the recording end with?",
        "What happens at the end?",
    ),
    "who": (
        "Who or what is {}?",
        "Who or what can be heard {}?",
        "Who or what do you hear {}?",
        "In this recording, who or what is {}?",
    ),
}


class Found(msgspec.Struct, frozen=True):
    """A question that can be asked: its kind, what it is about, and where its answer stands in a text."""

    kind: str
    about: str
    answer: str
    text: str
    start: int
    """Of the answer in `text`, in characters."""


def words(text: str) -> frozenset[str]:
    """Return the words of a list."""
    return frozenset(text.split())


NUMBERS = words(
    "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen "
    "nineteen twenty thirty forty fifty sixty seventy eighty ninety"
)
MORE_NUMBERS = NUMBERS | words("one hundred thousand million dozen half")
JOINED_NUMBERS = words("and or point to")
NO_PLURAL = words(
    "is was has does as us this his its hers ours yours theirs thus yes always perhaps sometimes besides afterwards "
    "towards unless less across whereas says goes comes makes takes seems looks times miss seconds minutes"
)
TITLES = words("mister missus mr mrs")
SMALL = words("a an the and or but of to in on at is was he she it his her who that said i you we they")
PEOPLE = words(
    "man woman boy girl child baby person male female adult kid toddler infant speaker announcer singer crowd audience "
    "people men women children someone somebody"
)
THINGS = PEOPLE | words(
    "dog cat puppy kitten bird duck goose rooster chicken hen horse cow sheep goat pig frog insect bee fly cricket owl "
    "pigeon crow snake lion wolf animal engine motor car truck bus vehicle motorcycle train boat motorboat helicopter "
    "airplane plane aircraft jet tractor lawnmower ambulance siren horn whistle alarm bell clock phone telephone door "
    "toilet machine drill saw chainsaw fan computer printer keyboard water wind rain thunder music stream river food "
    "fire gun"
)
VERBS = (
    "speak speaks talk talks talking narrate narrates narrating say says saying speaking; laugh laughs giggle "
    "giggles giggling chuckle chuckles chuckling laughing; sing sings singing; cry cries weep weeps weeping sob "
    "sobs sobbing crying; snore snores snoring; cough coughs coughing; sneeze sneezes sneezing; whistles whistling; "
    "scream screams screaming; barks bark barking; meow meows meowing; chirp chirps tweet tweets tweeting chirping; "
    "quack quacks quacking; bleat bleats bleating; croak croaks croaking; growl growls growling; buzz buzzes "
    "buzzing; hum hums humming; roar roars roaring; revs revving; idles idling; ring rings ringing; beep beeps "
    "beeping; honk honks honking; blare blares blaring; ticks ticking; rumble rumbles rumbling; crackle crackles "
    "crackling; drips dripping; splash splashes splashing; fry fries frying"
)
SOUNDS = {form: forms.split()[-1] for forms in VERBS.split(";") for form in forms.split()}
"""Every form of a verb, or of verbs of one meaning, to the form that a question asks with."""
VOICES = words("speech voice voices conversation conversations chatter narration")
DETERMINERS = words("a an the some several many multiple one two three four five six")
LEFT_ALONE = words("with while as by when")
"""Words after which a noun may stand without a determiner: ``with birds chirping``."""
PLACES = words("in on at near over from to behind into inside through under against by beside past of like for")
"""Before a noun they mean where or whose, not who: ``a man in a car speaking``."""
PLURAL = re.compile(r"[a-z]+s|men|women|children|people")
THEN = re.compile(r",? (?:(?:and )?(?:(?:is|are) )?followed by|(?:and )?then) ", re.IGNORECASE)
NO_THEN = words("now since by until till from just even every back")
TOKEN = re.compile(r"[^\W\d_]+(?:['-][^\W\d_]+)*|[^\s]")


def questions_for(clip: Clip) -> tuple[tuple[str, str], ...]:
    """Return up to three questions about a clip with their answers; none where its text holds nothing to ask."""
    kinds: dict[str, list[Found]] = {}
    for found in candidates(clip):
        kinds.setdefault(found.kind, []).append(found)
    drawn = sorted(kinds, key=lambda kind: draw.number("question", clip.id, kind))
    pairs = []
    for kind in drawn[: 1 + draw.number("questions", clip.id) % MOST]:
        found = draw.choice(kinds[kind], "about", clip.id, kind)
        pairs.append((draw.choice(PARAPHRASES[kind], "asked", clip.id, kind).format(found.about), found.answer))
    return tuple(pairs)


def candidates(clip: Clip) -> list[Found]:
    """Return every question that can be asked of a clip in English; of a pair or a mixture, none."""
    if clip.join != "single":
        return []
    english = clip.language.partition("-")[0] in ("", "en")
    said = " ".join(sentence_case(clip.text).lower().split()) if english else ""
    heard = [
        found
        for caption in dict.fromkeys(" ".join(caption.split()) for caption in clip.captions)
        for found in (*in_turn(caption), *sounding(caption), *counted(caption, "how many heard"))
    ]
    # Captions of one clip can differ in what they count or whom they hear; then nobody knows.
    answers: dict[tuple[str, str], set[str]] = {}
    for found in heard:
        answers.setdefault((found.kind, found.about), set()).add(found.answer.lower())
    sure = [found for found in heard if not found.about or len(answers[found.kind, found.about]) == 1]
    return [*neighbours(said), *named(said), *counted(said, "how many"), *sure]


def spans(text: str) -> list[tuple[str, int]]:
    """Return the words of a transcript and where each begins."""
    return [(match.group(), match.start()) for match in re.finditer(r"[^ ]+", text)]


def neighbours(text: str) -> Iterator[Found]:
    """Yield the questions for the word after or before one that stands once, and for the first and the last word."""
    found = spans(text)
    if len(found) < 3:
        return
    for kind, at in (("first", 0), ("last", len(found) - 1)):
        yield Found(kind, "", found[at][0], text, found[at][1])
    times = Counter(word for word, _ in found)
    once = [at for at, (word, _) in enumerate(found) if times[word] == 1]
    # A long word is heard more surely than a short one.
    for at in [at for at in once if len(found[at][0]) > 3] or once:
        if at + 1 < len(found):
            yield Found("after", found[at][0], found[at + 1][0], text, found[at + 1][1])
        if at > 0:
            yield Found("before", found[at][0], found[at - 1][0], text, found[at - 1][1])


def named(text: str) -> Iterator[Found]:
    """Yield the question for the name behind a title that stands once."""
    found = spans(text)
    times = Counter(word for word, _ in found)
    for (title, _), (name, start) in itertools.pairwise(found):
        if title in TITLES and times[title] == 1 and name not in SMALL | TITLES and not name.endswith("'s"):
            yield Found("name", title, name, text, start)


def counted(text: str, kind: str) -> Iterator[Found]:
    """Yield the question for the number of what is counted once."""
    tokens = [(match.group().lower(), match.start(), match.end()) for match in TOKEN.finditer(text)]
    times = Counter(token for token, _, _ in tokens)
    for at, ((number, start, end), (noun, behind, over)) in enumerate(itertools.pairwise(tokens)):
        if number in NUMBERS and behind == end + 1 and text[end] == " " and times[noun] == 1:
            # "Two hundred and ten men" are not ten, nor are "one or two men" two.
            before = at - 2 if at > 1 and tokens[at - 1][0] in JOINED_NUMBERS else at - 1
            alone = before < 0 or tokens[before][0] not in MORE_NUMBERS
            if alone and PLURAL.fullmatch(noun) and noun not in NO_PLURAL and text[over : over + 1] != "'":
                yield Found(kind, noun, text[start:end], text, start)


def in_turn(caption: str) -> Iterator[Found]:
    """Yield the questions for what is heard first and last where a caption says what follows what."""
    text = caption.rstrip(" .")
    breaks = list(THEN.finditer(text))
    if not breaks or ". " in text:
        return
    head, tail = text[: breaks[0].start()].rstrip(" ,;"), text[breaks[-1].end() :]
    if " " in head and head.rsplit(" ", 1)[-1].lower() not in NO_THEN:
        yield Found("heard first", "", head, text, 0)
    if " " in tail and text[: breaks[-1].start()].rsplit(" ", 1)[-1].lower() not in NO_THEN:
        yield Found("heard last", "", tail, text, breaks[-1].end())


def sounding(caption: str) -> Iterator[Found]:
    """Yield the question for who or what makes a sound, where a caption has one maker of it."""
    tokens = [(match.group().lower(), match.start(), match.end()) for match in TOKEN.finditer(caption)]
    lower = [token for token, _, _ in tokens]
    times = Counter(SOUNDS.get(token, "speaking" if token in VOICES else "") for token in lower)
    for at, token in enumerate(lower):
        doing = SOUNDS.get(token, "")
        if doing and times[doing] == 1:
            last = at - 2 if at > 1 and lower[at - 1] in ("is", "are") else at - 1
            first = begin(lower, last)
            if first is not None:
                start, end = tokens[first][1], tokens[last][2]
                yield Found("who", doing, caption[start:end], caption, start)


def begin(tokens: list[str], last: int) -> int | None:
    """Return where the noun phrase that ends at `last` begins, None if it is no subject that stands alone."""
    if last < 0 or not thing(tokens[last]):
        return None
    first = last
    while first > 0 and last - first < 3 and tokens[first] not in DETERMINERS and plain(tokens[first - 1]):
        first -= 1
    before = first - 1
    while before >= 0 and tokens[before] in (",", "and"):
        before -= 1
    # Of "a man and a woman speaking" the woman is half the answer.
    if before >= 0 and before < first - 1 and thing(tokens[before]):
        return None
    left = tokens[first - 1] if first else ""
    followed = left == "by" and first > 1 and tokens[first - 2] == "followed"
    if tokens[first] in DETERMINERS:
        return first if left not in PLACES or followed else None
    return first if first == 0 or (left in LEFT_ALONE and (left != "by" or followed)) else None


def thing(token: str) -> bool:
    """Whether a token names what makes sounds."""
    return token in THINGS or (token.endswith("s") and token[:-1] in THINGS)


def plain(token: str) -> bool:
    """Whether a token can stand inside a noun phrase: a word that joins nothing, makes no sound, and is no place."""
    joins = token in LEFT_ALONE or token in PLACES or token in SMALL - DETERMINERS
    return token.isalpha() and not joins and token not in SOUNDS and not token.endswith("ly")
