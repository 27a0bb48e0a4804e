"""Learns from plain text what capitalised words mostly are: surnames, other names and words, or perhaps given names.

names.py doubts a text in which a capitalised word that may be a given name is left: no list has the given names of the
world, but what is *not* one shows in how it is used. Surnames follow known given names. Names of places, peoples and
bodies follow "the" or "in". Words that open sentences are elsewhere written small. What remains, as most foreign given
names do, is unresolved.
"""

from __future__ import annotations

import datetime
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from counterfactuals.corpus import read_texts
from counterfactuals.files import write_whole
from counterfactuals.names import Names

CAPITAL = "A-Z" + "".join(c for c in map(chr, range(0xC0, 0x250)) if c.isupper())
RUN = re.compile(rf"(?<![\w'’.-])[{CAPITAL}][\w-]*(?:['’](?!s\b)\w[\w-]*)*(?: [{CAPITAL}][\w-]*(?:['’](?!s\b)\w[\w-]*)*)*")
SMALL = re.compile(r"(?<![\w'’-])[a-zß-ÿ]{2,}(?![\w’'])")
DETERMINERS = frozenset("the The a A an An this This these its Its their Their our my your any each every some no".split())
PLACING = frozenset("in In at At near Near into across around toward towards throughout outside".split())
FIRSTS = 2  # different known given names that a surname follows
OTHER = 0.15  # share of a word's places, at least, that are after "the" or "in" where it is no person's name
ENDING = (3, 6), 8, 0.2  # lengths; surnames that end so, at least; given names among the words that end so, at most
SECTIONS = ("surnames", "given", "closing", "others", "words", "endings")


def learn(
    sources: Sequence[str],
    names: Names,
    *,
    note: str = "",
    command: str = "",
    log: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """The content of capitals.json, learnt from all texts of `sources` (anything `corpus.read_texts` reads).

    `names`: the table of given names that surnames are recognised by. surnames: follow `FIRSTS` known given names and
    open no more names than they close. others: stand after "the" or "in" in `OTHER` of their places. given: the
    table has them among its surnames and words, but they open more names than they close. closing: given names of the table that close more
    names than they open. words: open
    sentences and are elsewhere written small. endings: of surnames, hardly of given names. Deterministic.
    """
    seen: Counter[str] = Counter()  # not at the start of a sentence, or before another capital
    placed: Counter[str] = Counter()  # of these, after "the" or "in"
    opening: Counter[str] = Counter()  # alone at the start of a sentence
    small: Counter[str] = Counter()
    pairs: Counter[tuple[str, str]] = Counter()  # first and last word of a run
    num_texts = num_characters = 0
    for source in sources:
        for text in read_texts(source):
            num_texts += 1
            num_characters += len(text)
            small.update(SMALL.findall(text))
            for match in RUN.finditer(text):
                words, start = match[0].split(" "), match.start()
                before = text[max(0, start - 15) : start]
                previous = before[:-1].rpartition(" ")[2] if before.endswith(" ") else ""
                first = words[0]
                if len(words) == 1 and not previous[-1:].isalnum() and not previous.endswith(","):
                    opening[first] += 1
                    continue
                seen[first] += 1
                if previous in DETERMINERS or previous in PLACING:
                    placed[first] += 1
                elif 1 < len(words) < 5:
                    pairs[first, words[-1]] += 1
    log(f"{num_texts:,} texts, {num_characters:,} characters")
    context = names.context
    given = (frozenset(names.entries) | names.either) - names.weak - context["commons"]
    no_first = context["openers"] | context["no_person"] | context["before_thing"] | context["before_given"]
    firsts: defaultdict[str, set[str]] = defaultdict(set)
    closes: Counter[str] = Counter()
    for (first, last), number in pairs.items():
        if first in given and last not in context["things"]:
            firsts[last].add(first)
            closes[last] += number
    opens: Counter[str] = Counter()
    for (first, last), number in pairs.items():
        if len(firsts.get(last, ())) >= FIRSTS and first not in no_first:
            opens[first] += number
    people = {
        word
        for word, found in firsts.items()
        if (opens[word] <= closes[word] if len(found) >= FIRSTS else not opens[word] and closes[word] > 1)
        and len(word) > 2
        and word not in given
        and not word.isupper()
        and closes[word] >= min(placed[word], OTHER * seen[word])  # "Shia Muslims"
    }
    others = {
        word
        for word, number in seen.items()
        if placed[word] >= max(2, OTHER * number) and word not in given | people and not word.isupper()
    }
    words = {
        word
        for word, number in opening.items()
        if number > 1 and small[word.lower()] >= max(5, opens[word]) and word not in given and not word.isupper()
    }
    frequent = {name for pair in names.pairs[:300] for name in pair}
    weak = {word for word in names.weak if opens[word] > closes[word]}
    endings = _endings(people, given | {word for word in opens if opens[word] > 2 * closes[word]} - others - words)
    found = {
        "surnames": people,
        "given": weak - people - others,
        "closing": {word for word in given - names.either - frequent if closes[word] > max(2, 2 * opens[word])},
        "others": others,
        "words": words - others - people,
        "endings": endings,
    }
    return {
        "about": "What capitalised words mostly are: see counterfactuals/capitals.py, which learnt them.",
        "provenance": {
            "command": command,
            "date": datetime.date.today().isoformat(),
            "sources": [Path(source).name for source in sources],
            "texts": num_texts,
            "characters": num_characters,
            "note": note,
            "counts": {section: len(found[section]) for section in SECTIONS},
        },
        **{section: sorted(found[section]) for section in SECTIONS},
    }


def write(learnt: dict[str, Any], path: Path) -> None:
    """Write capitals.json, a section a paragraph of lines; whole or not at all."""
    table = {key: " ".join(value) if key in SECTIONS else value for key, value in learnt.items()}
    write_whole(path, json.dumps(table, ensure_ascii=False, indent=1) + "\n")


def _endings(surnames: set[str], given: set[str] | frozenset[str]) -> set[str]:
    """The shortest endings that many surnames and hardly any given name have."""
    (least, most), number, share = ENDING
    of_given = Counter(word[-length:] for word in given for length in range(least, most) if len(word) > length + 1)
    of_surnames = Counter(word[-length:] for word in surnames for length in range(least, most) if len(word) > length + 1)
    good = {
        ending
        for ending, count in of_surnames.items()
        if count >= number and of_given[ending] <= share * (count + of_given[ending])
    }
    return {ending for ending in good if not any(ending[cut:] in good for cut in range(1, len(ending) - least + 1))}
