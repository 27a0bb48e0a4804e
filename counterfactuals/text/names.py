"""Given names: who has which partner in the other group, and the words of English that stand beside names.

A table (lexicons/given_names.json, made by learn/census.py) pairs each given name with one of like frequency in the
other group: always the same, one to one, so a document stays consistent and reversing twice returns the name. Names
that fit either group stay. Which capitals in a text are a person's name is decided in people.py.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from bisect import bisect
from collections import Counter
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache
from itertools import chain
from pathlib import Path

import yaml

from counterfactuals.text import loglinear

CONTEXT = Path(__file__).with_name("names_context.yaml")
MODEL = Path(__file__).with_name("people.json")
GROUPS = ("female", "male")
_LETTERS = str.maketrans(
    {"ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "đ": "d", "Đ": "D", "ð": "d", "ı": "i", "ß": "ss", "æ": "ae"}
)
Entry = tuple[int, str | None]
USUAL = 250, 700, 6000  # ranks of pairs, by how many bear the name, between the most usual names and the rarer ones


@dataclass(frozen=True, eq=False)
class Names:
    """`pairs` of given names in the order of the lexicon's groups, `single` names of each group without a partner.

    Names of `either` group are known and left. `context`: the sections of names_context.yaml. `fingerprint`: SHA-256
    of the table, of that file and of the model in people.json.
    """

    pairs: tuple[tuple[str, str], ...]
    single: tuple[frozenset[str], frozenset[str]]
    either: frozenset[str]
    fingerprint: str
    context: dict[str, frozenset[str]] = field(repr=False)

    @cached_property
    def entries(self) -> dict[str, Entry]:
        """name → (group, partner or None)"""
        table: dict[str, Entry] = {n: (g, None) for g in (0, 1) for n in self.single[g]}
        for female, male in self.pairs:
            table[female], table[male] = (0, male), (1, female)
        no = self.context["no_given"]
        return {n: (group, None if other in no else other) for n, (group, other) in table.items() if n not in no}

    @cached_property
    def usual(self) -> dict[str, int]:
        """Name of a pair → 0 if it is one of the most usual, up to len(USUAL)."""
        return {name: bisect(USUAL, rank) for rank, pair in enumerate(self.pairs) for name in pair}

    @cached_property
    def placelike(self) -> frozenset[str]:
        """Places, and the names of few bearers, which may be any."""
        return self.context["places"] | {name for name, number in self.usual.items() if number > 1}

    @cached_property
    def weak(self) -> frozenset[str]:
        """Names that alone are mostly something else: surnames, places, words."""
        return frozenset().union(*(self.context[section] for section in ("surnames", "words", "places", "regions")))

    @cached_property
    def strange(self) -> frozenset[str]:
        """The weak names that are no surnames: places, months, words."""
        return (self.weak - self.context["surnames"]) | self.context["places"]

    @cached_property
    def forms(self) -> dict[str, Entry]:
        """Name in any of its forms → its entry: Søren, Soren, SOREN."""
        english = loglinear.load(MODEL)[0]
        plain_forms = {plain(name): entry for name, entry in self.entries.items() if not name.isascii()}
        plain_forms = {name: entry for name, entry in plain_forms.items() if name.lower() not in english}  # Sölve, Máté
        forms = {name: entry for name, entry in plain_forms.items() if name not in self.either} | self.entries
        words = self.context["words"]  # "YOU WILL NOT"
        return {name.upper(): entry for name, entry in forms.items() if len(name) > 2 and name not in words} | forms

    @cached_property
    def settled(self) -> frozenset[str]:
        """Names that get no partner by themselves: of anyone, places, and words of classes in which names are rare."""
        classes = loglinear.load(MODEL)[0]
        sizes = Counter(classes.values())
        held = Counter(classes.get(name.lower(), "") for pair in self.pairs[: USUAL[1]] for name in pair)
        nouns = {word.capitalize() for word, name in classes.items() if held[name] < sizes[name] / 30} - self.either
        return self.strange.union(nouns, *(self.context[s] for s in ("unisex", "no_given", "mononyms")))

    @cached_property
    def small(self) -> dict[str, str]:
        """Usual given names that are hardly another word, in small letters → as in the table."""
        frequent = {name for pair in self.pairs[: USUAL[1]] for name in pair if name in self.entries}
        no_names = self.weak | self.context["commons"] | self.context["openers"] | self.context["small_words"]
        return {name.lower(): name for name in frequent - no_names if len(name) > 2}

    @cached_property
    def nicknames(self) -> dict[str, tuple[str, ...]]:
        """Name → its short forms, each of which is a name of the table too."""
        rows = [row.split(":") for row in self.context["nicknames"]]
        group = {name: group for name, (group, _) in self.entries.items()}
        kept = [(name, short.split("/")) for name, short in rows if name in group]
        return {name: tuple(n for n in short if group.get(n) == group[name]) for name, short in kept}

    @cached_property
    def known(self) -> frozenset[str]:
        """Names that matter far from any word of a role too: they turn, or leave a doubt."""
        return self.context["mononyms"] | {name for name, (_, partner) in self.forms.items() if partner}

    @cached_property
    def titles(self) -> dict[str, str]:
        """Title, in any letters → what follows it, a "given" name or a "surname": Aunt, Mr, champion."""
        context = self.context
        kinds = dict.fromkeys(context["before_surname"] | context["before_person"], "surname")
        kinds |= dict.fromkeys(context["before_given"], "given")
        return {form: kind for t, kind in kinds.items() for form in (t.lower(), t.capitalize(), t.upper())}

    @cached_property
    def goes_on(self) -> frozenset[str]:
        """What may stand between two capitals of one name."""
        return self.context["particles"] | set("-'’.")

    @cached_property
    def no_name(self) -> frozenset[str]:
        """Capitalised words that alone are never a name: "When", "I"."""
        return self.context["openers"] - self.entries.keys()

    def entry(self, word: str) -> Entry | None:
        """Group and partner of a name, also in CAPITALS, without its accents, or with some: Renée."""
        found = self.forms.get(word)
        return found if found or word.isascii() else self.forms.get(plain(word))


@lru_cache(maxsize=1 << 14)
def plain(word: str) -> str:
    """Without accents: "Renée" → "Renee"."""
    word = unicodedata.normalize("NFD", word.translate(_LETTERS))
    return "".join(c for c in word if not unicodedata.combining(c))


def load_names(path: str | Path) -> Names:
    """The table that `learn.census.make` wrote. ValueError, one line naming the file, if it is not one."""
    path = Path(path)
    try:
        content = path.read_bytes()
        table = json.loads(content)
        pairs = tuple((female, male) for female, male in table["pairs"])
        single = (frozenset(table["single"]["female"]), frozenset(table["single"]["male"]))
        either = frozenset(table["either"])
        if not all(isinstance(name, str) and name for name in chain(*pairs, *single, either)):
            raise TypeError("a name that is no text")
        if len({*chain(*pairs)}) < 2 * len(pairs):
            raise ValueError("a name stands in two pairs")
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: not a table of given names ({error}); write one with the command `names`") from None
    model = MODEL.read_bytes() if MODEL.exists() else b""
    digest = hashlib.sha256(content + CONTEXT.read_bytes() + model).hexdigest()
    return Names(pairs, single, either, digest, names_context())


@cache
def names_context() -> dict[str, frozenset[str]]:
    sections = yaml.safe_load(CONTEXT.read_text(encoding="utf-8"))
    return {section: frozenset(words.split()) for section, words in sections.items()}
