"""Meaning triples of sentences: <object, action, scene>, found by rules without a parser (Farhadi et al. 2010, section 4).

"a black dog is running through the wet grass" -> dog, run, grass. The words of a triple are roots (attributes.root), so that
"dogs run" and "a dog is running" agree. A sentence that lacks a part has None there.
"""

from typing import NamedTuple

from satnp.captioners.attributes import FUNCTION_WORDS, root

BE = frozenset("is are was were be being been".split())
PREPOSITIONS = frozenset("""
in on at through across over under near by beside behind into onto along down up above below of around inside outside with to
from past against between towards toward off left right
""".split())
PLACES = PREPOSITIONS - frozenset("with of to from by left right".split())  # before a scene
NUMBERS = frozenset("one two three four five six several many some both".split())
COLOURS = frozenset("""
black white brown red blue green yellow orange purple pink tan grey gray golden blond blonde dark light
""".split())  # content words that are never an object, an action or a scene
# verbs that captions have in other forms than -ing
VERBS = frozenset("run jump play sit stand ride walk wear hold swim climb look catch carry chase throw leap smile".split())


class Triple(NamedTuple):
    object: str | None
    action: str | None
    scene: str | None


def triple_of(words):
    """The triple of a tokenised sentence.

    The action is the first word in -ing, or the first verb of VERBS; the object is the last content word before it, without
    what follows a preposition; the scene is the last content word of the last phrase that begins with a word of PLACES.
    """
    words = [word for word in words if word.isalpha()]
    at = next((t for t, word in enumerate(words) if t and is_action(word)), None)
    before = words if at is None else words[:at]
    cut = next((t for t, word in enumerate(before) if t and (word in PREPOSITIONS or word in BE)), len(before))
    nouns = [word for word in before[:cut] if is_content(word)]
    scene = None
    for t, word in enumerate(words):
        if word in PLACES and t > 0:
            phrase = words[t + 1 :]
            end = next((k for k, x in enumerate(phrase) if x in PREPOSITIONS or x in BE or is_action(x)), len(phrase))
            found = [x for x in phrase[:end] if is_content(x)]
            scene = found[-1] if found else scene
    return Triple(*(x and root(x) for x in (nouns[-1] if nouns else None, None if at is None else words[at], scene)))


def is_action(word):
    """True for a word in -ing, and for a form of one of VERBS."""
    return word not in FUNCTION_WORDS and (len(word) > 5 and word.endswith("ing") or root(word) in VERB_ROOTS)


def is_content(word):
    """True for a word that may be an object, an action or a scene."""
    return word not in FUNCTION_WORDS and word not in PREPOSITIONS and word not in NUMBERS and word not in COLOURS


VERB_ROOTS = frozenset(map(root, VERBS))
