"""The grammar of the planted texts: what sentences about each topic, and about nothing, are made of.

Belongs here: word lists and sentence patterns. Does not belong here: chance, effects, tables (`planted`).

Every word outside `FUNCTION_WORDS` belongs to one topic or to the filler alone, so that a concept can be told from its
words and no other concept shares them. A test holds this.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

Pick = Callable[[int], int]  # pick(n) -> one of 0 .. n-1


@dataclass(frozen=True)
class Action:
    """Verbs that take any of the objects, which any of the adjectives may describe."""

    verbs: str
    adjectives: str
    objects: str


@dataclass(frozen=True)
class Topic:
    """What sentences about one topic are made of."""

    actions: tuple[Action, ...]
    places: tuple[str, ...]


# What sentences of every kind are held together by, and the people who act in topics of every kind.
FUNCTION_WORDS = frozenset(
    (
        *("a", "after", "against", "along", "an", "and", "at", "aunt", "before", "behind", "below", "beneath"),
        *(
            "beside",
            "beyond",
            "brother",
            "by",
            "during",
            "for",
            "from",
            "he",
            "her",
            "i",
            "in",
            "it",
            "my",
            "near",
            "of",
            "off",
        ),
        *(
            "on",
            "our",
            "past",
            "she",
            "sister",
            "that",
            "the",
            "then",
            "they",
            "this",
            "to",
            "uncle",
            "under",
            "was",
            "we",
        ),
        *("when", "while", "with"),
    )
)

TOPICS = {
    "cooking": Topic(
        (
            Action(
                "simmered roasted stirred seasoned reheated",
                "peppery buttery creamy spicy",
                "lentils onions broth mushrooms stew risotto noodles curry",
            ),
            Action("chopped peeled diced grated", "tender savoury", "garlic carrots ginger parsnips cheddar"),
            Action("kneaded baked glazed frosted", "crispy floury", "dough pastry scones loaf pudding"),
        ),
        ("in the skillet", "in the oven", "in the saucepan", "in the kitchen", "on the stove", "in the casserole"),
    ),
    "sailing": Topic(
        (
            Action(
                "hoisted trimmed furled reefed lowered", "windswept billowing", "spinnaker mainsail jib topsail ensign"
            ),
            Action(
                "moored steered capsized anchored launched",
                "seaworthy barnacled",
                "dinghy yacht ketch catamaran sloop schooner",
            ),
            Action("coiled spliced untangled", "salty", "halyard rigging rope mainsheet"),
        ),
        (
            *("off the headland", "at the marina", "along the estuary", "near the harbour", "past the lighthouse"),
            *("on the foredeck", "against the tide", "in the lagoon", "behind the breakwater"),
        ),
    ),
    "astronomy": Topic(
        (
            Action(
                "observed photographed glimpsed charted",
                "distant luminous celestial",
                "comet nebula galaxy eclipse meteor supernova asteroid pulsar quasar",
            ),
            Action(
                "calibrated focused aimed collimated",
                "astronomical",
                "telescope spectrograph eyepiece refractor binoculars",
            ),
            Action(
                "measured catalogued calculated",
                "lunar interstellar",
                "orbit redshift parallax magnitude constellation",
            ),
        ),
        (
            *("from the observatory", "near the zenith", "beside Saturn", "beyond Jupiter", "at the planetarium"),
            "under the starlit sky",
        ),
    ),
    "football": Topic(
        (
            Action("scored conceded disallowed", "disputed offside deflected", "goal equaliser penalty header winner"),
            Action(
                "tackled substituted booked outran", "unmarked", "striker goalkeeper midfielder defender winger forward"
            ),
            Action("intercepted chested volleyed kicked dribbled", "wayward", "ball rebound clearance"),
        ),
        (
            *("at the stadium", "near the touchline", "before halftime", "on the pitch", "in the league fixture"),
            *("below the terraces", "behind the referee", "in the cup semifinal", "past the goalpost"),
        ),
    ),
    "gardening": Topic(
        (
            Action(
                "pruned transplanted mulched watered fertilised",
                "leafy thorny blossoming",
                "roses hydrangeas lavender tomatoes raspberries dahlias rhubarb tulips",
            ),
            Action("weeded raked dug hoed", "overgrown shady", "flowerbed allotment lawn border vegetables"),
            Action("sowed scattered", "organic", "seeds bulbs compost beans"),
        ),
        (
            *("by the greenhouse", "behind the hedge", "under the trellis", "beside the orchard"),
            *("with the wheelbarrow", "near the garden shed", "in the topsoil"),
        ),
    ),
    "trains": Topic(
        (
            Action("boarded missed caught", "delayed overcrowded intercity", "train express sleeper shuttle"),
            Action(
                "shunted coupled derailed rerouted uncoupled", "diesel", "locomotive carriages freight wagons boxcar"
            ),
            Action("inspected electrified repaired", "suburban", "railway tracks signals viaduct turntable"),
        ),
        (
            *("at the station", "along the platform", "in the tunnel", "at the junction", "near the ticket barrier"),
            *("behind the conductor", "at the level crossing", "at the depot", "past the terminus"),
        ),
    ),
    "music": Topic(
        (
            Action(
                "rehearsed practised memorised transposed improvised",
                "mournful syncopated chromatic",
                "sonata fugue concerto nocturne arpeggio etude cadenza melody",
            ),
            Action("tuned strummed bowed restrung plucked", "acoustic", "violin cello guitar mandolin viola ukulele"),
            Action("hummed harmonised", "staccato legato", "chorus rhythm duet refrain"),
        ),
        (
            *("with the metronome", "beside the piano", "for the orchestra", "at the recital", "with the choir"),
            *("at the conservatory", "from the songbook"),
        ),
    ),
    "illness": Topic(
        (
            Action(
                "nursed treated endured diagnosed suffered",
                "contagious chronic severe",
                "fever bronchitis migraine influenza tonsillitis pneumonia rash cough",
            ),
            Action("swallowed prescribed refilled", "bitter", "antibiotics painkillers tablets lozenges medicine"),
            Action("bandaged soothed disinfected", "swollen inflamed aching", "ankle throat blister wrist gums"),
        ),
        (
            *("at the clinic", "on the hospital ward", "with the thermometer", "near the pharmacy", "at the surgery"),
            *("in the infirmary", "during convalescence"),
        ),
    ),
}

_SUBJECTS = ("I", "we", "she", "he", "they", "my sister", "our uncle", "my brother", "her aunt")

_PATTERNS = (
    "{s} {v} the {a} {o} {p}.",
    "{s} {v} the {o} and then {v2} the {a2} {o2}.",
    "After {s} {v} the {o}, {s2} {v2} the {a2} {o2} {p}.",
    "It was {p} that {s} {v} the {a} {o}.",
    "{s} {v} the {o} while {s2} {v2} the {o2} {p}.",
    "When {s} {v} the {a} {o}, {s2} {v2} the {o2}.",
)

_OPENERS = (
    *("Anyway,", "Honestly,", "Well,", "Frankly,", "Oddly,", "Admittedly,", "Apparently,", "Besides,", "Still,"),
    *("Actually,", "Naturally,", "Indeed,", *("",) * 18),
)
_PEOPLE = (
    *("somebody", "everyone", "nobody", "a neighbour", "my cousin", "an acquaintance", "the usual crowd"),
    *("a colleague", "a stranger", "an old friend", "the postman", "our landlord"),
)
_SAID = ("mentioned", "repeated", "suggested", "forgot", "noticed", "remembered", "discussed", "ignored", "doubted")
_SMALL = (
    *("the same story", "nothing special", "an amusing remark", "another idea", "the latest gossip"),
    *("a familiar opinion", "some vague plan", "the obvious question", "a minor detail", "a curious coincidence"),
    *("an idle thought", "the whole business"),
)
_WENT = ("things went", "the day felt", "life seemed", "everything looked", "the afternoon stayed", "matters remained")
_HOW = (
    *("much the same", "fairly quiet", "rather ordinary", "perfectly normal", "quite pleasant", "a bit slow"),
    *("pretty uneventful", "reasonably calm", "somewhat dull"),
)
_TAILS = (
    *("as usual", "on Tuesday", "for a moment", "more or less", "as expected", "yet again", "over the weekend"),
    *(
        "sooner or later",
        "for some reason",
        "that morning",
        "last week",
        "on Friday",
        "all things considered",
        *("",) * 12,
    ),
)


def topic_sentence(topic: str, pick: Pick) -> str:
    """A sentence about `topic`; `pick` makes each choice."""
    rules = TOPICS[topic]

    def one(choices: tuple[str, ...] | str, but: str | None = None) -> str:
        options = choices.split() if isinstance(choices, str) else choices
        options = [option for option in options if option != but]
        return options[pick(len(options))]

    first, second = (rules.actions[pick(len(rules.actions))] for _ in range(2))
    pattern = one(_PATTERNS)
    slots = {"s": one(_SUBJECTS), "v": one(first.verbs), "a": one(first.adjectives), "o": one(first.objects)}
    slots |= {"s2": one(_SUBJECTS), "v2": one(second.verbs, slots["v"]), "a2": one(second.adjectives)}
    slots["o2"] = one(second.objects, slots["o"])
    return _capital(pattern.format(**slots, p=one(rules.places)))


def filler_sentence(pick: Pick) -> str:
    """A sentence about nothing in particular; `pick` makes each choice."""
    who, said, small = (part[pick(len(part))] for part in (_PEOPLE, _SAID, _SMALL))
    went, how = (part[pick(len(part))] for part in (_WENT, _HOW))
    opener, tail = (part[pick(len(part))] for part in (_OPENERS, _TAILS))
    core = f"{who} {said} {small}" if pick(6) else f"{went} {how}"
    return _capital(" ".join(f"{opener} {core} {tail}".split()) + ".")


def words(text: str) -> set[str]:
    """Lower-cased words of a text."""
    return set(re.findall(r"[a-z]+", text.lower()))


def topic_words(topic: str) -> frozenset[str]:
    """The words that only `topic` has."""
    rules = TOPICS[topic]
    parts = [f"{a.verbs} {a.adjectives} {a.objects}" for a in rules.actions]
    return frozenset(words(" ".join((*parts, *rules.places))) - FUNCTION_WORDS)


def filler_words() -> frozenset[str]:
    """The words that only filler has."""
    parts = (_OPENERS, _PEOPLE, _SAID, _SMALL, _WENT, _HOW, _TAILS)
    return frozenset(words(" ".join(phrase for part in parts for phrase in part)) - FUNCTION_WORDS)


def _capital(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]
