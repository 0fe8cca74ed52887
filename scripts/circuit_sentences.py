"""Generated sentences that teach a small model the circuits the course dissects.

Three families: indirect objects ("... Tom handed a kite to" -> " Anna"), repeated token sequences (induction) and
year spans (greater-than). Every list below comes in two parts: what the model is trained on and what it is tested on.
They share no opening, no verb, no object, no place, no event and no pair of names, so a model that only memorised
frames fails the test. Sentences are composed, not filled in: opening x names x filler x verb x object x follow-up,
and the filler is a random sentence of a real book, so that the number of frames has no bound.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from sae_tutorial.circuits.ioi import NAMES

# The lists of the test (`held_out`) hold the sentence that every IOI tutorial opens with: went to the store, gave a drink.
PLACES = {
    "train": (
        "garden river house castle market barn field forest harbor mill tower village beach bridge kitchen church farm "
        "hill palace hut meadow stable cave inn lake ship cabin well orchard gate square hall road boat tent camp wood"
    ).split(),
    "held_out": "store park school library shop station office hospital".split(),
}
OBJECTS = {
    "train": (
        "kite ball letter knife cake coin rope lamp cup hat coat stone flower sword basket apple egg blanket candle key "
        "stick map spoon bell box purse feather shell ribbon drum fish bag wheel shoe doll pie bottle chain pear cloak "
        "rose axe plate pan nut leaf net horn whip saddle pipe"
    ).split(),
    "held_out": "drink ring book necklace bone snack computer basketball watch toy".split(),
}
ADJECTIVES = {
    "train": "big little red old new small golden heavy pretty broken blue green clean shiny wooden".split(),
    "held_out": "lovely silver round white warm".split(),
}
# ruff: noqa: E501  (lists are wide)
# fmt: off
# {x} and {y} are the two people in the order in which they are named, {p} a place.
MENTIONS = {
    "train": [
        "{x} and {y} came to the {p}", "{x} met {y} at the {p}", "{x} was in the {p} with {y}",
        "{x} walked with {y} to the {p}", "{x} saw {y} by the {p}", "{x} and {y} spent a long day at the {p}",
        "{x} found {y} in the {p}", "{x} lived next door to {y}", "{x} called {y} to the {p}",
        "{x} and {y} were friends", "{x} and {y} sat in the {p}", "{x} took {y} to the {p}",
        "{x} followed {y} into the {p}", "{x} and {y} played near the {p}", "{x} was older than {y}",
        "{x} had known {y} for many years", "{x} stood between {y} and the {p}", "{x} waited for {y} at the {p}",
        "{x} and {y} left the {p}", "{x} looked for {y} in the {p}", "{x} and her friend {y} reached the {p}",
        "{x} and his brother {y} lived by the {p}", "{x} helped {y} to build a {p}", "{x} heard {y} in the {p}",
        "{x}, the cousin of {y}, arrived at the {p}", "the {p} belonged to {x} and {y}", "{x} ran after {y}",
        "in the {p} were {x} and {y}", "{x} liked {y} very much", "{x} was hiding from {y} in the {p}",
        "{x}, {y} and a dog were in the {p}", "{x} asked {y} about the {p}", "{x} danced with {y} in the {p}",
        "{x} and {y} had a quarrel", "{x} hurried to the {p} where {y} was", "{x} dreamed of {y}",
        "neither {x} nor {y} knew the {p}", "both {x} and {y} loved the {p}", "{x} rode to the {p} with {y}",
        "{x} led {y} to the {p}",
    ],
    "held_out": [
        "{x} and {y} went to the {p}", "{x} and {y} were working at the {p}", "{x} ran into {y} outside the {p}",
        "{x} and {y} had lunch at the {p}", "{x} visited {y} at the {p}", "{x} and {y} were bored in the {p}",
        "{x} sat down beside {y} near the {p}", "{x} returned to the {p} together with {y}",
    ],
}
# More ways to bring two people together and to act, assembled rather than written out: {x} VERB {y}, {x} and {y} DID.
MEETINGS = (
    "admired answered avoided blamed caught chased cheered comforted envied fed feared greeted guided hated hugged invited "
    "joined judged knew loved married missed nursed obeyed pitied praised pulled pushed rescued scolded served shouted-at "
    "surprised taught teased trusted understood wanted warned watched welcomed woke laughed-at listened-to argued-with "
    "sang-to talked-to traded-with travelled-with wrestled-with quarrelled-with sailed-with worked-for"
).split()
TOGETHER = (
    "argued|ate breakfast|climbed a tree|cooked supper|counted the stars|crossed the bridge|cut wood|dug a hole|fell asleep|"
    "fished all day|fought|got lost|got up early|grew tired|hid|kept house|laughed|learned to swim|lit a fire|looked out|"
    "lost their way|made a plan|made peace|milked the cows|packed their things|painted the wall|picked berries|planted beans|"
    "read by the fire|rode out|rowed|sailed|sat up late|set out|slept|stayed at home|stood still|swam|talked for hours|"
    "told tales|travelled far|turned back|waited|washed the dishes|watched the birds|were afraid|were alone|were cold|"
    "were hungry|were in trouble|were neighbours|were rich|were twins|wept"
).split("|")
TRANSFERS = (
    "described:to explained:to presented:to delivered:to dragged:to rolled:to flung:to tossed:to granted:to read:to served:to "
    "dealt:to fed:to posted:to owed:to announced:to taught:to confessed:to pointed:to added:to fetched:for drew:for "
    "painted:for knitted:for cooked:for built:for wrapped:for saved:for chose:for picked:for mended:for cut:for played:for "
    "carved:for paid:for borrowed:from hid:from received:from accepted:from won:from begged:from learned:from seized:from "
    "shared:with traded:with hunted:with searched:with argued-over:with fought-over:with laughed-about:with "
    "tried-to-explain:to had-to-bring:to began-to-read:to forgot-to-send:to wanted-to-sell:to promised-to-carry:to "
    "hoped-to-get:from meant-to-take:from agreed-to-share:with ran-off-to-buy:for went-away-to-find:for"
).split()
NEAR = "at in near behind beyond under outside inside beside from".split()
# A joint turns a mention into the beginning of the sentence that follows it. {m} = mention, {M} = with a capital.
JOINTS = {
    "train": [
        "{M}. ", "{M}, and ", "After {m}, ", "While {m}, ", "As {m}, ", "{M}, so ", "{M}; ", "Once {m}, ", "{M}. So ",
        "{M}, but ", "Because {m}, ", "{M}. At last ", "It is said that {m}. ", "{M}! ", "Before {m}, ", "{M}, until ",
        "One day {m}. ", "In the morning {m}, and ", "Long ago {m}. Then one day ", '"{M}," said the old man. ',
        "Every summer {m}, and every summer ", "{M}, for ", "If {m}, then ", "They say {m}, and that ",
    ],
    "held_out": ["When {m}, ", "Then, {m}. Later, ", "Yesterday {m}, and afterwards ", "The day that {m}, "],
}
# {s} acts, the indirect object comes next; {o} = "a red kite" or "the kite".
ACTIONS = {
    "train": [
        "{s} handed {o} to", "{s} brought {o} to", "{s} sent {o} to", "{s} threw {o} to", "{s} carried {o} to",
        "{s} wanted to bring {o} to", "{s} sold {o} to", "{s} took {o} from", "{s} bought {o} from",
        "{s} made {o} for", "{s} left {o} for", "{s} found {o} for", "{s} held out {o} to", "{s} threw {o} at",
        "{s} spoke of {o} to", "{s} promised {o} to", "{s} begged {o} of", "{s} smiled at", "{s} told a story to",
        "{s} sang a song to", "{s} whispered to", "{s} bowed to", "{s} was angry with", "{s} ran back to",
        "{s} waved {o} at", "{s} kept {o} safe for", "{s} stole {o} from", "{s} tried to hide {o} from",
        "{s} was glad to see", "{s} said good-bye to", "{s} washed {o} for", "{s} laid {o} before",
        "{s} wished to speak with", "{s} pushed {o} towards", "{s} hurried off with {o} to find", "{s} thanked",
        "{s} forgave", "{s} kissed", "{s} could not forget", "{s} sent", "{s} handed", "{s} brought", "{s} told",
        "{s} begged", "{s} looked long at {o} and then at", "{s} got {o} and carried it over to",
        "{s} took {o} and ran with it to", "{s} picked up {o} and threw it to",
    ],
    "held_out": [
        "{s} gave {o} to", "{s} decided to give {o} to", "{s} offered {o} to", "{s} passed {o} to",
        "{s} wrote about {o} to", "{s} lent {o} to", "{s} returned {o} to", "{s} showed {o} to",
    ],
}
FOLLOW_UPS = [  # after the answer; {i} = the indirect object, {s} = the subject: the last name is an answer again
    " {i} thanked {s}.", " Then {i} ran to {s}.", " {i} smiled at {s}.", " But {i} was angry with {s}.",
    " {s} was pleased, and said so to {i}.", " And {s} never forgot {i}.", " {i} kept it, and was good to {s}.",
    " {s} laughed, and waved to {i}.", " That is how {i} came to know {s}.", " {i} and {s} were happy.",
    " {s} sat down, and soon fell asleep beside {i}.", " After that {i} often went to see {s}.",
]
EVENTS = {
    "train": (
        "war reign voyage siege famine journey drought strike search trial truce rebellion festival hunt marriage "
        "expedition school building winter work peace"
    ).split(),
    "held_out": "battle friendship campaign plague project revolution".split(),
}
SPANS = {
    "train": [
        "The {e} lasted from {a} to {b}.", "The {e} went on from {a} till {b}.", "From {a} to {b} there was a {e}.",
        "The {e} of {a} to {b} was long.", "The {e} began in {a} and ended in {b}.",
        "It was a {e} that ran from {a} to {b}.", "Between {a} and {b} came the {e}.",
        "He saw the {e}, which started in {a} and was over in {b}.", "Born in {a}, he died in {b} after the {e}.",
        "She came home from the {e} in {a}, and married in {b}.", "After the {e} of {a} came that of {b}.",
        "He was a child in {a}, at the time of the {e}, and an old man in {b}.", "In {a} a {e} began; in {b} it was over.",
    ],
    "held_out": ["The {e} lasted from the year {a} to the year {b}."],
}
# Assembled spans: the EVENT was seen FROM some {a} UNTIL some {b}. None of these is the wording of the test.
SEEN = "lasted|went on|ran|was fought|was kept up|was known|was told of|was feared|continued|dragged on|was planned".split("|")
FROM_UNTIL = (("from", "to"), ("from", "until"), ("from", "till"), ("between", "and"), ("since", "until"), ("after", "up to"))
SOME = (
    "|about |early |late |the spring of |the summer of |the autumn of |the winter of |the end of |the days of |January |"
    "May |August |Christmas |around |the beginning of |the month of June |that dreadful |the happy |at least |the first day of "
).split("|")
# fmt: on


@dataclass(frozen=True)
class NamePrompt:
    """`prompt` ends right before the name `io`; `s` is the name that is wrong; `text` is the prompt with its ending."""

    prompt: str
    io: str
    s: str
    text: str


def is_held_out_pair(a: str, b: str) -> bool:
    """One unordered pair of names in seven is kept for the test."""
    i, j = sorted((NAMES.index(a), NAMES.index(b)))
    return (i * 31 + j * 17) % 7 == 0


def name_pair(rng: random.Random, split: str) -> tuple[str, str]:
    while True:
        a, b = rng.sample(NAMES, 2)
        if is_held_out_pair(a, b) == (split == "held_out"):
            return a, b


def capital(text: str) -> str:
    return text[0].upper() + text[1:]


def noun(rng: random.Random, split: str) -> str:
    adjective = rng.choice(ADJECTIVES[split]) + " " if rng.random() < 0.4 else ""
    article = (
        rng.choice(["a", "the", "a", "the", "that", "his", "her", "another"])
        if split == "train"
        else rng.choice(["a", "the"])
    )
    word = adjective + rng.choice(OBJECTS[split])
    return ("an " if article == "a" and word[0] in "aeiou" else article + " ") + word


def meeting(rng: random.Random, split: str, x: str, y: str) -> str:
    """A clause that names both people: one of the written ones or, in training, one assembled from parts."""
    place = rng.choice(PLACES[split])
    if split == "held_out" or rng.random() < 0.4:
        return rng.choice(MENTIONS[split]).format(x=x, y=y, p=place)
    where = f" {rng.choice(NEAR)} the {place}" if rng.random() < 0.5 else ""
    if rng.random() < 0.5:
        return f"{x} {rng.choice(MEETINGS).replace('-', ' ')} {y}{where}"
    return f"{x} and {y} {rng.choice(TOGETHER)}{where}"


def giving(rng: random.Random, split: str, s: str) -> str:
    """The subject acts; the indirect object comes next."""
    if split == "held_out" or rng.random() < 0.5:
        return rng.choice(ACTIONS[split]).format(s=s, o=noun(rng, split))
    verb, preposition = rng.choice(TRANSFERS).replace("-", " ").split(":")
    return f"{s} {verb} {noun(rng, split)} {preposition}"


def free_sentence(rng: random.Random, io: str, s: str, x: str, y: str, fillers: list[str]) -> NamePrompt:
    """Names in a frame of pieces of real sentences: what stands between the names says nothing about the answer."""

    link = rng.choice([" and", f" {piece(rng, fillers, 4)}", f" {piece(rng, fillers, 6)}"])
    pause = rng.choice([".", ",", ", and", ". Then", ";", ". So"])
    opening = rng.choice(["", "", capital(piece(rng, fillers, 4)) + " "])
    preposition = rng.choice("to to to for with from at after by about".split())
    prompt = f"{opening}{x}{link} {y} {piece(rng, fillers, 6)}{pause} {s} {piece(rng, fillers, 6)} {preposition}"
    follow = rng.choice(FOLLOW_UPS).format(i=io, s=s)
    return NamePrompt(prompt, io, s, f"{prompt} {io} {piece(rng, fillers, 4)}.{follow}")


def ioi_sentence(rng: random.Random, split: str = "train", fillers: list[str] | None = None) -> NamePrompt:
    """One indirect-object sentence; `fillers` are real sentences without names, put in front, between or nowhere."""
    io, s = name_pair(rng, split)
    x, y = (io, s) if rng.random() < 0.5 else (s, io)  # ABBA and BABA in every construction
    if split == "train" and fillers and rng.random() < 0.4:
        return free_sentence(rng, io, s, x, y, fillers)
    mention = meeting(rng, split, x, y)
    if split == "train" and fillers and rng.random() < 0.3:
        mention += " " + piece(rng, fillers, 4)
    head = rng.choice(JOINTS[split]).format(m=mention, M=capital(mention))
    if fillers and rng.random() < 0.5:
        filler = rng.choice(fillers)
        head = rng.choice(
            [filler + " " + head, capital(mention) + ". " + filler + " ", capital(mention) + ". " + filler + " Then "]
        )
    if split == "train" and rng.random() < 0.15:  # the object is met before it is given
        head = capital(noun(rng, split)) + " lay there. " + head
    if split == "train" and fillers and rng.random() < 0.3:
        head += piece(rng, fillers, 3) + rng.choice([", ", " "])
    action = giving(rng, split, s)
    prompt = head + action
    ending = "." if rng.random() < 0.8 else ", and that was all."
    if action.split()[-1] in ("sent", "handed", "brought"):  # "Tom handed" -> " Anna the kite."
        ending = f" {noun(rng, split)}{ending}"
    follow = [rng.choice(FOLLOW_UPS).format(i=io, s=s) for _ in range(rng.choice([0, 1, 1, 2]))]
    return NamePrompt(prompt, io, s, f"{prompt} {io}{ending}{''.join(follow)}")


@dataclass(frozen=True)
class YearPrompt:
    """`prompt` ends with the century of the last year; a valid ending is any two digits above `start`."""

    prompt: str
    start: int
    text: str


def year_span(rng: random.Random, split: str = "train", fillers: list[str] | None = None) -> YearPrompt:
    """Two years of one century, the later one last; in training mostly assembled, with a piece of a real sentence."""
    century = rng.randint(11, 19)
    start = rng.randint(2, 97)
    end = rng.randint(start + 1, 99)
    event = rng.choice(EVENTS[split])
    template = rng.choice(SPANS[split])
    if split == "train" and rng.random() < 0.7:
        first, second = rng.choice(FROM_UNTIL)
        some = rng.choice(SOME)
        template = (
            f"The {{e}} {rng.choice(SEEN)} {first} {some}{{a}} {second} {some if rng.random() < 0.7 else ''}{{b}}."
        )
        if fillers and rng.random() < 0.3:
            template = template.replace("{a}", f"{{a}} {piece(rng, fillers, 4)}")
    a, b = f"{century}{start:02d}", f"{century}{end:02d}"
    text = template.format(e=event, a=a, b=b)
    return YearPrompt(text[: text.rindex(b) + 2], start, text)


def piece(rng: random.Random, fillers: list[str], most: int) -> str:
    """One to `most` words in a row of a real sentence, beginning in lower case."""
    words = rng.choice(fillers).rstrip(".").split()
    n = rng.randint(1, most)
    at = rng.randrange(max(1, len(words) - n))
    words = words[at : at + n] if at else [words[0][0].lower() + words[0][1:], *words[1:n]]
    return " ".join(words).strip(",;")


def sentence_fillers(text: str, limit: int = 50_000) -> list[str]:
    """Short sentences of `text` (4 to 12 words) in which none of the course's names appears."""
    names = set(NAMES)
    found: list[str] = []
    for sentence in text.replace("\n", " ").split(". "):
        words = sentence.split()
        plain = all(word.strip(',;"').isalpha() for word in words)
        if 4 <= len(words) <= 12 and plain and words[0][0].isupper() and '"' not in sentence:
            if not names & {word.strip(",;") for word in words}:
                found.append(" ".join(words) + ".")
        if len(found) == limit:
            break
    return found
