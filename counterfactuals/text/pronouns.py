"""Which of him/his a "her" is, and which of her/hers a "his" is: two log-linear classifiers over the words around it.

Learnt without labels from plain text (`learn/pronouns.py`): where the text says *him, me, us, them* or *his, my,
our, their*, it shows what "her" would be there; *hers, mine, ours, theirs* show the same for "his". The weights, where
they come from and what they score on held-out text are in pronouns.json, in a form that can be read. Accuracy on
annotated text: `python benchmarks/pronouns.py`.
"""

from __future__ import annotations

import json
import math
import re
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

from counterfactuals.text.document import Document

UNSURE = 0.8  # a pronoun decided with less confidence is doubted
FILE = Path(__file__).with_name("pronouns.json")
COUNTERPARTS = {"her": ("him", "his"), "his": ("hers", "her")}  # without a noun of its own, with one
BEFORE, AFTER = 28, 80  # characters looked at
# a b [her] x y z: the tokens around; xc: the class of x
TEMPLATES = (
    "x", "y", "b", "xc", "yc", "bc", "xc_yc", "b_xc", "bc_xc", "a_b", "x_yc", "b_xc_yc", "xc_yc_zc", "shape",
)  # fmt: skip
_TOKEN = r"(?<=\w)['’][^\W_]+|[^\W_]+|\n(?![ \t>]*[a-z])|[^\w\s*]"  # a line that goes on in small letters was wrapped
_TOKENS = re.compile(_TOKEN)
_SKIP = r"(?:[^\S\n]|[*_]|\n(?=[ \t>]*[a-z]))*"
_NEXT = re.compile(rf"{_SKIP}({_TOKEN})?{_SKIP}({_TOKEN})?{_SKIP}({_TOKEN})?")
_JOINED = re.compile(r"(?:\s?/\s?| or )(?:hers?|his|him)\b", re.IGNORECASE)  # his/her book: the book follows
CLOSED = -3.0  # log odds at most, .05, that a noun follows an end
_CLOSED = re.compile(  # of a sentence, of the text, or before a smiley; the plain text learnt from ends otherwise
    r"[!?;]|\.(?!\.)|\s*(?:\Z|[\u2600-\u27bf\U0001f300-\U0001faff]|[:;]-?[()DPp]|(?:lol|lmao|haha|tho|tbh|smh|xx)\b)",
    re.IGNORECASE,
)
_CLOSING, _OPENING = frozenset('"”'), frozenset('"“')  # not the mark of "his" photo
_QUOTES = frozenset("\"“”'‘’`«»")
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


class Model(NamedTuple):
    """Log odds that a noun of its own follows: `bias` plus, for each of `TEMPLATES`, what its table has for the key."""

    bias: float
    tables: tuple[dict[str, float], ...]


def decide(word: str, text: str, start: int, end: int) -> tuple[str, float]:
    """The counterpart of the pronoun at `text[start:end]`, in lower case, and the probability that it is right.

    `word` is that pronoun in lower case: "her" becomes him or his, "his" becomes her or hers. ValueError for others.
    """
    if word not in COUNTERPARTS:
        raise ValueError(f"pronouns: no rule for {word!r}; it knows 'her' and 'his'")
    classes, models = load(FILE)
    score, tables = models[word]
    for table, key in zip(tables, keys(text, start, end, classes)):
        score += table.get(key, 0.0)
    if _CLOSED.match(text, end) or (text[end : end + 1] in _CLOSING and text[start - 1 : start] not in _OPENING):
        score = min(score, CLOSED)
    alone, owning = COUNTERPARTS[word]
    return owning if score > 0 else alone, 1 / (1 + math.exp(-abs(score)))


def choose(document: Document) -> None:
    """Rule: decide each "her" and "his"; one decided with little confidence is doubted."""
    for mention in document.mentions:
        if mention.rule == "pronoun":
            target, mention.confidence = decide(mention.word, document.text, mention.start, mention.end)
            surface = document.text[mention.start : mention.end]
            loud = surface.isupper()
            mention.target = target.upper() if loud else target.capitalize() if surface[0].isupper() else target
            if mention.confidence < UNSURE:
                mention.doubt("pronoun:unsure")


def resolve(word: str, text: str, start: int, end: int) -> str:
    """The counterpart alone: see `decide`."""
    return decide(word, text, start, end)[0]


def keys(text: str, start: int, end: int, classes: dict[str, str]) -> tuple[str, ...]:
    """What the classifiers look at, one key for each of `TEMPLATES`."""
    if text.startswith(("/", " /", " or "), end) and (joined := _JOINED.match(text, end)):
        end = joined.end()
    found = _NEXT.match(text, end, end + AFTER)
    assert found is not None  # every part may be empty
    x, y, z = found.groups("\n")
    after = found.end(1)
    if after < 0:
        shape = "end"
    elif not text[end].isspace() and text[end] not in "*_":
        shape = "glued"
    else:
        shape = "capital" if x[0].isupper() and not text[start:end].isupper() else "blank"
    if x in _QUOTES:
        x = "“" if shape != "glued" and text[after : after + 1].isalnum() else "”"
    begin = max(0, start - BEFORE)
    words = text[begin:start].rsplit(" ", 3)
    if len(words) == 4 and not words[3] and words[1].isalpha() and words[2].isalpha():  # two plain words, as mostly
        _, a, b, _ = words
    else:
        a, b = ("\n", "\n", *_TOKENS.findall(text, begin, start))[-2:]
    a, b, x, y = normal(a), normal(b), normal(x), normal(y)
    get = classes.get
    bc, xc, yc, zc = get(b) or "~" + b[-2:], get(x) or "~" + x[-2:], get(y) or "~" + y[-2:], get(normal(z), "~")
    b_xc, xc_yc = f"{b}_{xc}", f"{xc}_{yc}"
    return (
        x, y, b, xc, yc, bc, xc_yc, b_xc, f"{bc}_{xc}", f"{a}_{b}", f"{x}_{yc}", f"{b_xc}_{yc}", f"{xc_yc}_{zc}", shape,
    )  # fmt: skip


def tokens(text: str) -> list[str]:
    """All tokens as the classifiers see them: words, clitics ('s), numbers as 0, marks, and ends of lines as ¶."""
    return [normal(token) for token in _TOKENS.findall(text)]


@lru_cache(maxsize=1 << 16)
def normal(token: str) -> str:
    """In lower case, of no gender; "0" for a number."""
    token = token.lower()
    if token in _SAME:
        return _SAME[token]
    first = token[0]
    return "'" + token[1:] if first == "’" and len(token) > 1 else "0" if first.isdigit() else token


@cache
def load(path: Path) -> tuple[dict[str, str], dict[str, Model]]:
    """Word → class, and the models of "her" and "his", from the data file."""
    data = json.loads(path.read_text(encoding="utf-8"))
    classes = {word: name for name, words in data["classes"].items() for word in words.split(" ")}
    models = {}
    for word, model in data["models"].items():
        tables = tuple(
            {key: int(tenths) / 10 for tenths, words in model["weights"][name].items() for key in words.split(" ")}
            for name in TEMPLATES
        )
        models[word] = Model(model["bias"] / 10, tables)
    return classes, models
