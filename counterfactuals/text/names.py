"""Given names: the table of who has which partner in the other role, and what English tells beside it.

A table (`lexicons/given_names.json`, made by census.py) pairs each given name with one of like frequency in the other
group: always the same, one to one, so a document stays consistent and reversing twice returns the name. Names that fit
either group stay. Of a run of capitals all but the last word may be given names ("Mary Ann Smith"); the surname stays,
also where it stands alone ("James wrote" after "Henry James"). Places, things and bodies named after someone stay;
names_context.yaml holds the words that tell. Who in a text is a person is decided in persons.py.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache
from itertools import chain
from pathlib import Path

import yaml

CONTEXT = Path(__file__).with_name("names_context.yaml")
CAPITALS = Path(__file__).with_name("capitals.json")
GROUPS = ("female", "male")


@dataclass(frozen=True, eq=False)
class Names:
    """`pairs` of given names in the order of the lexicon's groups, `single` names of each group without a partner.

    Names of `either` group are known and left. `fingerprint`: SHA-256 of the table and of names_context.yaml, whose
    sections are in `context`.
    """

    pairs: tuple[tuple[str, str], ...]
    single: tuple[frozenset[str], frozenset[str]]
    either: frozenset[str]
    fingerprint: str
    context: dict[str, frozenset[str]] = field(repr=False)

    @cached_property
    def entries(self) -> dict[str, tuple[int, str | None]]:
        """name → (group, partner or None)"""
        table: dict[str, tuple[int, str | None]] = {n: (g, None) for g in (0, 1) for n in self.single[g]}
        for female, male in self.pairs:
            table[female], table[male] = (0, male), (1, female)
        return {name: entry for name, entry in table.items() if name not in self.context["no_given"]}

    @cached_property
    def mononyms(self) -> frozenset[str]:
        return self.context["mononyms_female"] | self.context["mononyms_male"]

    @cached_property
    def alone(self) -> frozenset[str]:
        """Words that may stand for a person alone."""
        return frozenset(self.entries) | self.mononyms

    @cached_property
    def weak(self) -> frozenset[str]:
        """Names that alone are mostly something else."""
        return self.context["surnames"] | self.context["words"] | self.places

    @cached_property
    def never_alone(self) -> frozenset[str]:
        """Names that alone are no person's, unless the text introduces one: "May", "German"."""
        return self.weak - self.context["surnames"] - self.context["capital_closing"] - self.mononyms

    @cached_property
    def places(self) -> frozenset[str]:
        return self.context["places"] | self.context["regions"]

    @cached_property
    def doubtful(self) -> frozenset[str]:
        """Names that are mostly something else even before a surname: "Marine Species", "Atlanta Falcons"."""
        return (self.context["words"] | self.places) - self.context["full_names"]

    @cached_property
    def titles(self) -> frozenset[str]:
        """Words that keep the name after their dot."""
        return self.context["before_surname"] | self.context["before_thing"]

    @cached_property
    def leading(self) -> dict[str, str]:
        """What may stand before the name within a run of capitals → how it introduces the name."""
        context = self.context
        kinds = dict.fromkeys(context["openers"], "label") | dict.fromkeys(context["before_surname"], "surname")
        return kinds | dict.fromkeys(context["before_given"], "given")

    @cached_property
    def labels(self) -> frozenset[str]:
        """Words that open a sentence and are no name."""
        return self.context["openers"] - frozenset(self.entries) - self.either

    @cached_property
    def no_person(self) -> frozenset[str]:
        """First words of names of places and bodies."""
        return self.context["no_person"] - frozenset(self.entries) - self.either - self.context["openers"]

    @cached_property
    def plain(self) -> frozenset[str]:
        """First words of a run of two that is no name."""
        return self.labels | self.no_person

    @cached_property
    def introduces(self) -> frozenset[str]:
        """Words that show that a person's name follows."""
        context = self.context
        return context["before_person"] | context["before_given"] | context["before_surname"]

    @cached_property
    def unclear(self) -> frozenset[str]:
        """First words of a run that need a closer look."""
        context = self.context
        names = self.doubtful | self.either | self.mononyms
        return names | context["before_thing"] | context["no_person"] | frozenset(self.leading)

    @cached_property
    def bodies(self) -> frozenset[str]:
        """Last words of places, bodies and things, and of no person."""
        return self.context["things"] - self.context["perhaps_things"]

    @cached_property
    def inside(self) -> frozenset[str]:
        """Words that tell something wherever they stand in a run."""
        titles = self.context["before_given"] | self.context["before_surname"]
        return titles | self.context["things"] | {"bin", "ibn", "bint", "Abu"}

    @cached_property
    def resolved(self) -> frozenset[str]:
        """Capitalised words that are hardly anyone's given name, by the lists and by what capitals.py learnt."""
        context = self.context
        lists = ("capital_surnames", "capital_others", "capital_words", "openers", "things", "no_person")
        titles = self.titles | context["before_given"] | context["regions"]
        return titles.union(*(context[section] for section in lists)) - context["unresolved"]

    @cached_property
    def small(self) -> frozenset[str]:
        """Frequent given names that are hardly another word, in small letters."""
        frequent = {name for pair in self.pairs[:1500] for name in pair}
        names = frequent - self.weak - self.context["commons"] - self.context["capital_words"]
        return frozenset(name.lower() for name in names if len(name) > 3)

    @cached_property
    def plain_surnames(self) -> frozenset[str]:
        """Surnames of several persons that are hardly anything else."""
        context = self.context
        return context["capital_firm"] - context["perhaps_things"] - context["things"] - context["no_person"]

    @cached_property
    def unsteady(self) -> frozenset[str]:
        """Given names that, before another capitalised word, often begin the name of a place or a body."""
        return self.weak | self.context["capital_mixed"] | self.context["landforms"]

    @cached_property
    def endings(self) -> tuple[str, ...]:
        """How surnames end and given names hardly do."""
        return (*self.context["capital_endings"], "ing")

    def may_be_given(self, word: str) -> bool:
        """Of a capitalised word that is not in the table: nothing known of it speaks against a given name."""
        return (
            word not in self.resolved
            and len(word) > 2
            and not (word.isupper() or word.startswith(("Mc", "Mac", "O'", "O’")) or word.endswith(self.endings))
        )

    def is_settled(self, word: str) -> bool:
        """Of a capitalised word that is no known name: it is left without a doubt, wherever it stands."""
        return (
            word in self.resolved
            or word in self.alone
            or word in self.either
            or not self.may_be_given(word)
            or self.entry(word) is not None
        )

    @cached_property
    def no_names(self) -> frozenset[str]:
        """Capitalised words that are neither given names nor surnames."""
        return self.context["capital_others"] | self.context["things"] | self.context["openers"]

    @cached_property
    def odd(self) -> frozenset[str]:
        """Last words of a run that are no plain surname."""
        second = (phrase.partition("_")[2] for phrase in self.context["fixed"] | self.context["doubles"])
        return self.context["things"] | frozenset(second)

    @cached_property
    def common(self) -> frozenset[str]:
        """Names that stand for a person even alone; men's are surnames too often (Thomas, Cooper)."""
        return frozenset(female for female, _ in self.pairs[:400]) - self.weak

    def entry(self, word: str) -> tuple[int, str | None] | None:
        """Group and partner of a name, also in CAPITALS or with accents that the census leaves out."""
        found = self.entries.get(word)
        if found is not None or (word[1:].islower() and word.isascii()):
            return found
        if not word.isascii():
            found = self.entries.get(_folded(word))
        if found is None and len(word) > 2 and word.isupper():
            found = self.entries.get(word.capitalize())
        return found

    def may_be_person(self, words: Sequence[str]) -> bool:
        """Of a run that begins with no known name."""
        context, first, last = self.context, words[0], words[-1]
        adjective, noun = context["ends_adjective"], context["ends_noun"]
        return not (
            first in self.no_person
            or first in context["openers"]
            or (last in context["no_person"] and last not in context["capital_surnames"])
            or len(words) > 6
            or first.isupper()
            or last.isupper()
            or not context["things"].isdisjoint(words)
            or (first[-3:] in adjective or first[-4:] in adjective)
            or (last[-3:] in noun or last[-4:] in noun)
        )


@lru_cache(maxsize=1 << 14)
def _folded(word: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFD", word) if not unicodedata.combining(c))


def load_names(path: str | Path) -> Names:
    """The table that `make` wrote. ValueError, one line naming the file, if it is not one."""
    path = Path(path)
    try:
        content = path.read_bytes()
        table = json.loads(content)
        pairs = tuple((female, male) for female, male in table["pairs"])
        single = (frozenset(table["single"]["female"]), frozenset(table["single"]["male"]))
        either = frozenset(table["either"])
        if not all(isinstance(name, str) and name for name in chain(*pairs, *single, either)):
            raise TypeError("a name that is no text")
        twice = len(set(chain.from_iterable(pairs))) < 2 * len(pairs)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a table of given names ({error}); write one with the command `names`") from None
    if twice:
        raise ValueError(f"{path}: a name stands in two pairs")
    digest = hashlib.sha256(content + CONTEXT.read_bytes() + CAPITALS.read_bytes()).hexdigest()
    partner = {one: other for pair in pairs for one, other in (pair, pair[::-1])}
    context = dict(names_context())
    doubles = (double.split("_") for double in context["doubles"])
    context["doubles"] |= {f"{partner[a]}_{partner[b]}" for a, b in doubles if a in partner and b in partner}
    return Names(pairs, single, either, digest, context)


@cache
def names_context() -> dict[str, frozenset[str]]:
    sections = yaml.safe_load(CONTEXT.read_text(encoding="utf-8"))
    capitals = json.loads(CAPITALS.read_text(encoding="utf-8"))
    sections |= {
        f"capital_{section}": capitals[section]
        for section in ("surnames", "firm", "personal", "mixed", "given", "closing", "others", "words", "endings")
    }
    return {section: frozenset(words.split()) for section, words in sections.items()}
