"""Learns from plain text what capitalised words mostly are: surnames, other names and words, or perhaps given names.

persons.py doubts a text in which a capitalised word that may be a given name is left: no list has the given names of
the world, but what is *not* one shows in how it is used. Surnames follow known given names. Names of places, peoples
and bodies follow "the" or "in". Words that open sentences are elsewhere written small. What remains, as most foreign
given names do, is unresolved.
"""

from __future__ import annotations

import datetime
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from counterfactuals.files import write_whole
from counterfactuals.text.names import Names
from counterfactuals.tokens.corpus import read_texts

CAPITAL = "A-Z" + "".join(c for c in map(chr, range(0xC0, 0x250)) if c.isupper())
_CAPITALISED = rf"[{CAPITAL}][\w-]*(?:['’](?!s\b)\w[\w-]*)*"
RUN = re.compile(rf"(?<![\w'’.-]){_CAPITALISED}(?: {_CAPITALISED})*")
SMALL = re.compile(r"(?<![\w'’-])[a-zß-ÿ]{2,}(?![\w’'])")
_DETERMINERS = "the The a A an An this This these its Its their Their our my your any each every some no"
_PLACING = "in In at At near Near into across around toward towards throughout outside"
PLACING = frozenset(f"{_DETERMINERS} {_PLACING}".split())
FREQUENT = 300  # pairs of given names that are hardly surnames
FIRSTS = 2  # different known given names that a surname follows
OTHER = 0.15  # share of a word's places, at least, that are after "the" or "in" where it is no person's name
ENDING = (3, 6), 8, 0.2  # lengths; surnames that end so, at least; given names among the words that end so, at most
COMMON = 20, 2  # times a word is written small, at least; times as often as with a capital inside names
PERSONAL = 20, 0.3, 0.15  # words after a given name, at least; firm surnames, at least; no surnames, at most
MIXED = 8, 0.4  # words after a given name, at least; of these no surnames, at least
SECTIONS = ("surnames", "firm", "personal", "mixed", "given", "closing", "others", "words", "endings")


def learn(
    sources: Sequence[str],
    names: Names,
    *,
    note: str = "",
    command: str = "",
    log: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """The content of capitals.json, learnt from all texts of `sources` (anything `corpus.read_texts` reads).

    `names`: the table of given names that surnames are recognised by. Its sections: surnames follow known given names
    and open no more names than they close; firm are those that follow several of these, and no other words more often;
    personal are given names that stand before surnames; mixed are those that often stand before something else; given
    are words of the table that are mostly something else when alone, but open more names than they close; closing are
    its given names that close more names than they open; others stand after "the" or "in" in `OTHER` of their places;
    words open sentences or stand in names and are mostly written small; endings are of surnames, hardly of given names.
    Deterministic.
    """
    counts = _count(sources)
    log(f"{counts.texts:,} texts, {counts.characters:,} characters")
    seen, placed, small = counts.seen, counts.placed, counts.small
    context = names.context
    given = (frozenset(names.entries) | names.either) - names.weak - context["commons"]
    frequent = {name for pair in names.pairs[:FREQUENT] for name in pair}
    no_first = context["openers"] | context["no_person"] | context["before_thing"] | context["before_given"]
    firsts: defaultdict[str, set[str]] = defaultdict(set)
    closes: Counter[str] = Counter()  # how often after a known given name
    opens: Counter[str] = Counter()  # how often before a surname
    for (first, last), number in counts.pairs.items():
        if first in given and last not in context["things"]:
            firsts[last].add(first)
            closes[last] += number
    for (first, last), number in counts.pairs.items():
        if len(firsts.get(last, ())) >= FIRSTS and first not in no_first:
            opens[first] += number
    surnames = {
        word
        for word, found in firsts.items()
        if (opens[word] <= closes[word] if len(found) >= FIRSTS else not opens[word] and closes[word] > 1)
        and closes[word] >= min(placed[word], OTHER * seen[word])  # not "Muslims"
        and len(word) > 2
        and not (word in given or word.isupper())
    }
    others = {
        word
        for word, number in seen.items()
        if placed[word] >= max(2, OTHER * number) and not (word in given or word in surnames or word.isupper())
    }
    words = {
        word
        for word, number in counts.opening.items()
        if number > 1 and small[word.lower()] >= max(5, opens[word]) and not (word in given or word.isupper())
    }
    least, share = COMMON
    common = {
        word
        for word, number in counts.inside.items()
        if len(word) > 2 and small[word.lower()] >= max(least, share * number) and not (word in given or word.isupper())
    }
    no_names = others | words | common | context["things"]
    strange_firsts = no_names | names.weak | no_first
    strange: Counter[str] = Counter()  # how often after a word that is no given name
    for (first, last), number in counts.pairs.items():
        if first in strange_firsts and first not in given:
            strange[last] += number
    firm = {word for word in surnames if len(firsts[word]) >= FIRSTS and closes[word] >= strange[word]}
    lasts: defaultdict[str, set[str]] = defaultdict(set)
    for first, last in counts.pairs:
        if first in names.entries:
            lasts[first].add(last)
    followed = {
        first: (len(found), len(found & firm), len(found & (no_names - firm))) for first, found in lasts.items()
    }
    at_least, firm_share, odd_share = PERSONAL
    openers = {word for word in opens if opens[word] > 2 * closes[word]} - others - words
    sections = {
        "surnames": surnames,
        "firm": firm,
        "personal": {
            first
            for first, (number, good, odd) in followed.items()
            if number >= at_least and good >= firm_share * number and odd <= odd_share * number
        },
        "mixed": {
            first for first, (number, _, odd) in followed.items() if number >= MIXED[0] and odd >= MIXED[1] * number
        },
        "given": {word for word in names.weak if opens[word] > closes[word]} - surnames - others,
        "closing": {word for word in given - names.either - frequent if closes[word] > max(2, 2 * opens[word])},
        "others": others,
        "words": (words | common) - others - surnames,
        "endings": _endings(surnames, given | openers),
    }
    return {
        "about": "What capitalised words mostly are: see counterfactuals/capitals.py, which learnt them.",
        "provenance": {
            "command": command,
            "date": datetime.date.today().isoformat(),
            "sources": [Path(source).name for source in sources],
            "texts": counts.texts,
            "characters": counts.characters,
            "note": note,
            "counts": {section: len(sections[section]) for section in SECTIONS},
        },
        **{section: sorted(sections[section]) for section in SECTIONS},
    }


@dataclass
class _Counts:
    texts: int = 0
    characters: int = 0
    seen: Counter[str] = field(default_factory=Counter)  # not at the start of a sentence, or before another capital
    placed: Counter[str] = field(default_factory=Counter)  # of these, after "the" or "in"
    opening: Counter[str] = field(default_factory=Counter)  # alone at the start of a sentence
    small: Counter[str] = field(default_factory=Counter)
    inside: Counter[str] = field(default_factory=Counter)  # in runs of several words
    pairs: Counter[tuple[str, str]] = field(default_factory=Counter)  # first and last word of a run of capitals


def _count(sources: Sequence[str]) -> _Counts:
    counts = _Counts()
    for text in (text for source in sources for text in read_texts(source)):
        counts.texts += 1
        counts.characters += len(text)
        counts.small.update(SMALL.findall(text))
        for match in RUN.finditer(text):
            words, start = match[0].split(" "), match.start()
            if len(words) > 1:
                counts.inside.update(words)
            before = text[max(0, start - 15) : start]
            previous = before[:-1].rpartition(" ")[2] if before.endswith(" ") else ""
            first = words[0]
            if len(words) == 1 and not previous[-1:].isalnum() and not previous.endswith(","):
                counts.opening[first] += 1
                continue
            counts.seen[first] += 1
            if previous in PLACING:
                counts.placed[first] += 1
            elif 1 < len(words) < 5:
                counts.pairs[first, words[-1]] += 1
    return counts


def write(learnt: dict[str, Any], path: Path) -> None:
    """Write capitals.json, a section a line; whole or not at all."""
    table = {key: " ".join(value) if key in SECTIONS else value for key, value in learnt.items()}
    write_whole(path, json.dumps(table, ensure_ascii=False, indent=1) + "\n")


def _endings(surnames: set[str], given: set[str] | frozenset[str]) -> set[str]:
    """The shortest endings that many surnames and hardly any given name have."""
    (least, most), number, share = ENDING
    of_given = Counter(word[-length:] for word in given for length in range(least, most) if len(word) > length + 1)
    of_surnames = Counter(
        word[-length:] for word in surnames for length in range(least, most) if len(word) > length + 1
    )
    good = {
        ending
        for ending, count in of_surnames.items()
        if count >= number and of_given[ending] <= share * (count + of_given[ending])
    }
    return {ending for ending in good if not any(ending[cut:] in good for cut in range(1, len(ending) - least + 1))}
