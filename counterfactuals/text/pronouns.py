"""Rule: which of him/his a "her" becomes, and which of her/hers a "his": by the words around it.

Two log-linear models give the log odds that a noun of its own follows. They are learnt without labels from plain text
(`learn/pronouns.py`): where the text says *him, me, us, them* or *his, my, our, their*, it shows what "her" would be
there; *hers, mine, ours, theirs* show the same for "his". What they look at are the words beside the pronoun, their
classes, and whether the subject before it is of the same person: "he made her bed" is another bed than "she made her
bed". Few things are decided outright: "him or her", a sentence's end, a noun for a person ("her intern").

pronouns.json holds the weights and what they score on held-out text, pronouns.yaml the words written by hand; accuracy
on annotated text: `python benchmarks/pronouns.py`.
"""

from __future__ import annotations

from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

import yaml

from counterfactuals.text import loglinear
from counterfactuals.text.document import Document

REASONS = {0.6: "pronoun:open", 0.8: "pronoun:unsure", 0.95: "pronoun:likely"}  # below this confidence, the first
FILE = Path(__file__).with_name("pronouns.json")
WORDS = FILE.with_suffix(".yaml")
COUNTERPARTS = {"her": ("him", "his"), "his": ("hers", "her")}  # without a noun of its own, with one
OWN = {"her": "she", "his": "he"}  # the subject of the same person
CERTAIN = 4.0  # log odds where a rule decides: .98
CLOSED = -3.0  # at most, before an end: .05
CLAUSE = 10  # tokens before the pronoun in which its clause's subject is looked for
# subject a b [her] x y z: the tokens around; xc: the class of x; v: the stem of b; s: whose the subject is
TEMPLATES = (
    "x", "y", "v", "xc", "yc", "bc", "s", "shape", "a_b", "x_yc", "v_xc", "v_yc", "xc_yc", "bc_xc", "v_xc_yc",
    "bc_xc_yc", "xc_yc_zc", "s_v", "s_xc", "s_bc_xc", "s_v_xc", "v_x", "x_y",
)  # fmt: skip
PERSON, PERSONS, GIVING = "@", "@s", "@2"  # classes: nouns for a person, for several, verbs with two objects
_PERSON_ENDINGS = ("ist", "ian", "or", "er", "ee", "mate", "man", "ant", "ent", "graph", "crat", "ard")
_CLAUSE_VERBS = "would wouldn could couldn had hadn were weren was wasn did didn might 'd to"
_WOULD = frozenset(_CLAUSE_VERBS.split())
_PLACES = "away back down here in now off on out over there through up"
_DIRECTIONS = frozenset(_PLACES.split())
_CLOSING, _OPENING = frozenset('"”'), frozenset('"“')  # not the mark of "his" photo
_QUOTES = frozenset("\"“”'‘’`«»")
_ENDS = frozenset('.!?;:¶"“”')
_SUBJECTS = {"=": "=", "≠": "≠", **dict.fromkeys(("i", "we", "you", "they", "who"), "i")}
_PAIRS = """
she:he herself:himself woman:man women:men girl:boy girls:boys lady:gentleman ladies:gentlemen female:male
mother:father mothers:fathers mum:dad mom:dad mama:papa daughter:son daughters:sons sister:brother sisters:brothers
wife:husband wives:husbands widow:widower aunt:uncle aunts:uncles niece:nephew nieces:nephews bride:groom
girlfriend:boyfriend girlfriends:boyfriends fiancée:fiancé fiancee:fiance grandmother:grandfather grandma:grandpa
granddaughter:grandson stepmother:stepfather stepdaughter:stepson queen:king princess:prince duchess:duke
empress:emperor countess:count goddess:god heroine:hero actress:actor mistress:master maid:servant nun:monk
mrs:mr miss:mr ms:mr
"""
_SAME = {"\n": "¶", **dict(pair.split(":") for pair in _PAIRS.split())}  # what follows "his" is to fit "her" as well


class Around(NamedTuple):
    """The tokens around a pronoun as `relative` gives them: a b [her] x y z.

    subject: "=" is the pronoun's person, "≠" the other of she and he, "i" anyone else's, "-" none in the clause.
    shape: how x is written: "end", "glued" to the pronoun, "capital", "loud" (GED) or "blank".
    """

    a: str
    b: str
    subject: str
    x: str
    y: str
    z: str
    shape: str


class Words(NamedTuple):
    """pronouns.yaml: nouns for a person → class, those that are nothing else; verbs; spellings; verb forms."""

    classes: dict[str, str]
    persons: frozenset[str]
    naming: tuple[str, ...]
    giving: tuple[str, ...]
    spelt: dict[str, str]
    verbs: dict[str, str]


class Stems(NamedTuple):
    """Of the verbs after which a noun may say what she is ("made her captain"); that take two ("gave her flowers")."""

    naming: frozenset[str]
    giving: frozenset[str]


def choose(document: Document) -> None:
    """Rule: decide each "her" and "his"; one decided with little confidence is doubted.

    "I told her brother." → his; "I told her yesterday." → him; "I told him or her time." → him.
    """
    for mention in document.mentions:
        if mention.rule == "pronoun":
            target, mention.confidence = decide(mention.word, document, mention.first)
            surface = document.words[mention.first]
            loud = surface.isupper()
            mention.target = target.upper() if loud else target.capitalize() if surface[0].isupper() else target
            reason = next((reason for bound, reason in REASONS.items() if mention.confidence < bound), None)
            if reason is not None:
                mention.doubt(reason)


def decide(word: str, document: Document, token: int) -> tuple[str, float]:
    """The counterpart of the pronoun at `token`, in lower case, and the probability that it is right.

    `word` is that pronoun in lower case: "her" becomes him or his, "his" becomes her or hers. ValueError for others.
    """
    if word not in COUNTERPARTS:
        raise ValueError(f"pronouns: no rule for {word!r}; it knows 'her' and 'his'")
    owns = _beside_partner(word, document, token)
    if owns is None:
        found = around(document, token, OWN[word])
        classes, models = loglinear.load(FILE)
        score = loglinear.score(models[word], keys(found, classes))
        if word == "her" and found.x in words().persons and stem(found.b) not in stems().naming:
            score = max(score, CERTAIN)
        if _closed(document, token, found) or (word == "her" and _is_wish(found)):
            score = min(score, CLOSED)
    else:
        score = CERTAIN if owns else -CERTAIN
    alone, owning = COUNTERPARTS[word]
    return owning if score > 0 else alone, loglinear.probability(abs(score))


def around(document: Document, token: int, own: str) -> Around:
    """The tokens around a pronoun whose subject form is `own`. A line that goes on in small letters was wrapped."""
    return Around(*_before(document.words, token, own), *_after(document, token, own))


def _before(all_words: list[str], token: int, own: str) -> tuple[str, str, str]:
    """The two tokens before, and whose subject the nearest one in the clause is."""
    found: list[str] = []
    while len(found) < CLAUSE:
        token = _step(all_words, token, -1)
        found.append(relative(all_words[token], own) if token >= 0 else "¶")
        if found[-1] in _SUBJECTS or (len(found) > 1 and found[-1] in _ENDS) or token < 0:
            break
    b, a = (*found, "¶")[:2]
    if len(found) == 1:
        a = relative(all_words[at], own) if (at := _step(all_words, token, -1)) >= 0 else "¶"
    return a, b, _SUBJECTS.get(found[-1], "-")


def _after(document: Document, token: int, own: str) -> tuple[str, str, str, str]:
    """The three tokens after, and how the first is written. his/her book: the book follows."""
    all_words, end = document.words, token
    if document.word(token + 1) in ("/", "or") and document.word(token + 2).lower() in ("her", "hers", "his", "him"):
        end = token + 2
    first = _step(all_words, end, 1)
    second = _step(all_words, first, 1)
    if document.word(first) == "right" and document.word(second) in _DIRECTIONS:  # right away: no right of hers
        first, second = second, _step(all_words, second, 1)
    x, y, z = (document.word(at) for at in (first, second, _step(all_words, second, 1)))
    if first >= len(all_words):
        shape = "end"
    elif first == end + 1 and document.glued(first):
        shape = "glued"
    elif x[0].isupper() and not all_words[token].isupper():
        shape = "loud" if x.isupper() and len(x) > 1 else "capital"
    else:
        shape = "blank"
    if x in _QUOTES:
        x = "“" if shape != "glued" and document.glued(first + 1) else "”"
    return relative(x, own), relative(y, own), relative(z, own), shape


def _step(all_words: list[str], token: int, by: int) -> int:
    """The next token to the left or right that is no mark of emphasis and no line's end within a sentence."""
    token += by
    while 0 <= token < len(all_words):
        if all_words[token] != "*" and not (all_words[token] == "\n" and _is_wrapped(all_words, token)):
            break
        token += by
    return token


def _is_wrapped(all_words: list[str], token: int) -> bool:
    return token + 1 < len(all_words) and all_words[token + 1][0].islower()


def keys(found: Around, classes: dict[str, str]) -> tuple[str, ...]:
    """What the models look at, one key for each of `TEMPLATES`."""
    a, b, s, x, y, z, shape = found
    v = stem(b)
    bc = GIVING if v in stems().giving else word_class(b, classes)
    xc, yc, zc = word_class(x, classes), word_class(y, classes), word_class(z, classes)
    v_xc, bc_xc, xc_yc, s_v = f"{v}_{xc}", f"{bc}_{xc}", f"{xc}_{yc}", f"{s}_{v}"
    return (
        x, y, v, xc, yc, bc, s, shape, f"{a}_{b}", f"{x}_{yc}", v_xc, f"{v}_{yc}", xc_yc, bc_xc, f"{v_xc}_{yc}",
        f"{bc_xc}_{yc}", f"{xc_yc}_{zc}", s_v, f"{s}_{xc}", f"{s}_{bc_xc}", f"{s_v}_{xc}", f"{v}_{x}",
        f"{x}_{y}",
    )  # fmt: skip


def word_class(word: str, classes: dict[str, str]) -> str:
    """The class of a normal word; of an unknown one by its ending, for most end as persons do or as things do."""
    known = words().classes.get(word) or classes.get(word)
    if known is not None:
        return known
    if word.endswith(_PERSON_ENDINGS):
        return PERSON
    return PERSONS if word[-1] == "s" and word[:-1].endswith(_PERSON_ENDINGS) else "~" + word[-2:]


def _beside_partner(word: str, document: Document, token: int) -> bool | None:
    """Whether it owns what follows, as its partner in "him or her", "his & hers" shows; None if it has none."""
    for step in (-1, 1):
        joint, partner = document.word(token + step).lower(), document.word(token + 2 * step).lower()
        if joint not in ("or", "/", "and", "&"):
            continue
        either = joint in ("or", "/")
        if word == "her" and either and partner in ("him", "his"):
            return partner == "his"
        if word == "his" and partner == "hers":
            return False
        if word == "his" and partner == "her" and (either or step == 1) and document.word(token + 3)[0].isalpha():
            return True
    return None


def _is_wish(found: Around) -> bool:
    """ "wished her luck"; a thing of hers is wished only to do something: "wish her hair was longer"."""
    after = (found.x, found.y, found.z)
    return stem(found.b) == "wish" and not any(
        token in _WOULD or word_class(token, {}) in (PERSON, PERSONS) for token in after
    )


def _closed(document: Document, token: int, found: Around) -> bool:
    """Before the end of a sentence or a text, or a smiley; the plain text that is learnt from ends otherwise."""
    x, after = found.x, document.word(token + 1)
    smiley = "\u2600" <= after[0] <= "\u27bf" or after[0] >= "\U0001f300" or (x == ":" and document.glued(token + 2))
    if found.shape == "end" or smiley or x in ("!", "?", ";", "lol") or (x == "." and found.y != "."):
        return True
    return found.shape == "glued" and after in _CLOSING and document.word(token - 1) not in _OPENING


@lru_cache(maxsize=1 << 16)
def relative(token: str, own: str) -> str:
    """The token in lower case, of no gender and in its usual spelling; "=" for `own`, "≠" for the other of she and he.

    >>> relative("He", "she"), relative("SHE", "she"), relative("Mother", "she"), relative("bc", "she")
    ('≠', '=', 'father', 'because')
    """
    small = words().spelt.get(token.lower(), token.lower())
    if small == own:
        return "="
    return "≠" if small in ("she", "he") else _POSSESSIVE.get(small) or normal(small)


_POSSESSIVE = dict.fromkeys(("him", "his", "hers"), "her")  # around her, "her" is any of them


@lru_cache(maxsize=1 << 16)
def normal(token: str) -> str:
    """In lower case, of no gender; "0" for a number."""
    token = token.lower()
    if token in _SAME:
        return _SAME[token]
    first = token[0]
    return "'" + token[1:] if first == "’" and len(token) > 1 else "0" if first.isdigit() else token


@lru_cache(maxsize=1 << 14)
def stem(verb: str) -> str:
    """A verb's form without its ending, so that "offers", "offered" and "offering" are one; made alike, not spelt.

    >>> stem("gave") == stem("giving"), stem("wished") == stem("wish")
    (True, True)
    """
    verb = words().verbs.get(verb, verb)
    for ending in ("ing", "ed", "es", "s"):
        if verb.endswith(ending) and len(verb) - len(ending) >= 3 and not verb.endswith("ss"):
            verb = verb[: -len(ending)]
            if verb[-1] == verb[-2] and len(verb) > 3 and verb[-1] not in "sl":
                verb = verb[:-1]
            break
    verb = verb[:-1] + "y" if len(verb) > 3 and verb[-1] == "i" else verb
    return verb[:-1] if len(verb) > 3 and verb[-1] == "e" else verb


@cache
def words() -> Words:
    """The words of pronouns.yaml."""
    data = yaml.safe_load(WORDS.read_text(encoding="utf-8"))
    persons = data["persons"] + data["persons_too"]
    return Words(
        {**dict.fromkeys(map(_plural, persons), PERSONS), **dict.fromkeys(persons, PERSON)}
        | dict.fromkeys(data["plurals"], PERSONS),
        frozenset(data["persons"]),
        tuple(data["naming"]),
        tuple(data["giving"]),
        {form: word for word, forms in data["spelt"].items() for form in forms.split()},
        {form: verb for verb, forms in data["verbs"].items() for form in forms.split()},
    )


@cache
def stems() -> Stems:
    """The stems of the verbs of naming and of giving."""
    return Stems(*(frozenset(map(stem, verbs)) for verbs in (words().naming, words().giving)))


def _plural(noun: str) -> str:
    if noun.endswith("man"):
        return noun[:-3] + "men"
    if noun[-1] == "y" and noun[-2] not in "aeou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s")
