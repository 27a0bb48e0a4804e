"""Rule: the lexicon's words. A mention for each that is replaced, and for each cue, that stays.

Words are matched whole, in small letters, Capitalised or in CAPITALS, and the counterpart is written alike; other
mixtures ("sHe") are left. A word ends at an apostrophe or a hyphen, so what follows stays ("she'd" → "he'd"). Web
addresses, @handles, e-mail names, code and the lexicon's fixed phrases are left.
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

from counterfactuals.text.document import TOKEN, Document, Mention
from counterfactuals.text.lexicon import MOST_GROUPS, Lexicon, Rule, cycles


@dataclass(frozen=True, slots=True)
class Entry:
    """What a way to write a word stands for: its rule (None: a cue), its targets written alike, its group's number."""

    word: str
    rule: Rule | None
    targets: tuple[str, ...] = ()
    group: int | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """entries: of one token. phrases: of several, by their first token, longest first; None: a fixed phrase, left.

    begins: the first tokens of both.
    """

    entries: dict[str, Entry] = field(default_factory=dict)
    phrases: dict[str, list[tuple[list[str], Entry | None]]] = field(default_factory=dict)
    begins: set[str] = field(default_factory=set)


def find(document: Document) -> None:
    """Add a mention for every word of the lexicon and every cue in the document."""
    table = _table(document.lexicon)
    begins, all_words = table.begins, document.words
    found: list[Mention] = []
    pooled: dict[str, str] = {}
    done = 0  # tokens before this one are decided
    for token in [token for token, word in enumerate(all_words) if word in begins]:
        if token < done:
            continue
        last, entry = _longest(all_words, token, table)
        if last == token:
            continue
        done = last
        if entry is None or _is_left(document, token, last):
            continue
        mention = _mention(document, token, last, entry, pooled)
        if mention is not None:
            found.append(mention)
    document.add(found)


def _longest(all_words: list[str], token: int, table: Table) -> tuple[int, Entry | None]:
    """End (exclusive) and entry of the longest phrase or word that begins at `token`."""
    for tokens, entry in table.phrases.get(all_words[token], ()):
        if all_words[token : token + len(tokens)] == tokens:
            return token + len(tokens), entry
    entry = table.entries.get(all_words[token])
    return (token if entry is None else token + 1), entry


def _is_left(document: Document, first: int, last: int) -> bool:
    """Part of an identifier or of code: "mother.name", "wife()"."""
    if any(start <= document.starts[first] < end for start, end in document.code):
        return True
    before, after = document.word(first - 1), document.word(last)
    if before == "." and document.glued(first) and document.glued(first - 1) and document.word(first - 2).isalpha():
        return True
    next_is_glued = document.glued(last) and document.glued(last + 1)
    return after == "." and next_is_glued and document.word(last + 1).islower()


def _mention(document: Document, first: int, last: int, entry: Entry, pooled: dict[str, str]) -> Mention | None:
    text, start, end = document.text, document.starts[first], document.ends[last - 1]
    rule = entry.rule
    if rule is None:
        return Mention(start, end, first, last, entry.word, None, None, "cue", reasons=["sex_bound:cue"])
    if rule.only and not CONDITIONS[rule.only](text, start, end):
        return None
    if rule.kind == "pool":
        target = _from_pool(document, start, end, entry.word, pooled)
    elif rule.kind == "title":
        target = entry.targets[int(is_before_name(text, start, end))]
    else:
        target = entry.targets[0]
    return Mention(start, end, first, last, entry.word, entry.group, target, rule.kind)


# ---------------------------------------------------------------- many groups


def _from_pool(document: Document, start: int, end: int, word: str, chosen: dict[str, str]) -> str:
    """A word of the group that takes the place of `word`'s: the same all through a text, drawn by the seed."""
    text, lexicon = document.text, document.lexicon
    if word not in chosen:
        rule = lexicon.rules[word]
        assert rule.topic is not None
        draw, after = _order(document)
        group = lexicon.groups[after[lexicon.groups.index(rule.group)]]
        words = list(lexicon.pools[rule.topic][group])
        draw.shuffle(words)
        taken = set(chosen.values())
        chosen[word] = next((w for w in words if w not in taken), words[0])
    target, surface = chosen[word], text[start:end]
    if surface.isupper() and not word.isupper() and len(surface) > 1:
        return target.upper()
    opens = word[0].islower() or document.opens(document.token_at(start))
    return target[0].upper() + target[1:] if surface[0].isupper() and opens else target


def _order(document: Document) -> tuple[random.Random, tuple[int, ...]]:
    """A text's cyclic order of the groups, as the group after each, so that every group becomes another one."""
    draw = random.Random(document.seed << 32 | zlib.crc32(document.text.encode("utf-8", "surrogatepass")))
    order = list(range(len(document.lexicon.groups)))
    draw.shuffle(order)
    after = dict(zip(order, order[1:] + order[:1]))
    return draw, tuple(after[group] for group in range(len(order)))


def turn(document: Document) -> int:
    """The place of the text's cyclic order in `lexicon.cycles`; 0 for more groups than MOST_GROUPS."""
    after = _order(document)[1]
    return cycles(len(after)).index(after) if len(after) <= MOST_GROUPS else 0


# ---------------------------------------------------------------- conditions of the lexicon's section `only`


def is_before_name(text: str, start: int, end: int) -> bool:
    """ "Sir Ian", "Count of Toulouse", "MISS JONES", "Lord and Lady Day"; not "Yes, Sir" or "Sir I"."""
    if text[start].islower():
        return False
    after = _NAME.match(text, end)
    if after is None or not after[1][0].isupper() or after[1] == "I":
        return _AND_TITLE.match(text, end) is not None
    return not text.endswith(("First ", "Second "), 0, start)


def _is_abbreviation(text: str, start: int, end: int) -> bool:
    """ "Mr. Ito", "Mr Ito", "Mr. and Mrs. Ito", "mr ito", "MR. ITO", "TO MR ITO"; not "5 ms.", "an MS", "MS DOS"."""
    word, dotted = text[start:end], text.startswith(".", end)
    if word.isupper() and not dotted:
        loud = _LOUD_NAME.match(text, end)
        return loud is not None and (
            loud[1] is not None or _LOUD_BEFORE.search(text, max(0, start - 9), start) is not None
        )
    if word.isupper() and dotted and text[end + 2 : end + 4].istitle():  # "patients with MS. The"
        return False
    if word[1:].islower() and word[0].isupper():
        return dotted or is_before_name(text, start, end)
    if text[max(0, start - 2) : start].strip().isdigit():
        return False
    if not dotted:
        return _SMALL_NAME.match(text, end) is not None
    after = _NAME.match(text, end + 1)
    if after is None:
        return False
    return after[1][0].isupper() == word.isupper()


def _is_lower(text: str, start: int, end: int) -> bool:
    """ "kings", or "Kings and queens", which is no team."""
    return text[start].islower() or _AND_PARTNER.match(text, end) is not None


def _is_not_name(text: str, start: int, end: int) -> bool:
    """In small letters or a rank: "King Harald", "the Danish King Harald", "the King"; not "Larry King"."""
    if not text[start].isupper() or text[start:end].isupper():
        return True
    found = _PREVIOUS.search(text, max(0, start - 24), start)
    before = found[1] if found else ""
    if before.lower() in _LEADS or before in _OPENERS:
        return True
    if before[:1].isupper() and not before.endswith(_NATIONAL):
        return False
    after = _NAME.match(text, end)
    return after is not None and (after[1][0].isupper() or after[0].lstrip().startswith("of "))


def _in_sentence(text: str, start: int) -> bool:
    """Right after a word or a comma, so that a capital is not that of a sentence's beginning."""
    before = text[max(0, start - 2) : start]
    return len(before) == 2 and before[1] == " " and (before[0].isalnum() or before[0] == ",")


CONDITIONS: dict[str, Callable[[str, int, int], bool]] = {
    "abbreviation": _is_abbreviation,
    "lower": _is_lower,
    "not_name": _is_not_name,
    "rank": lambda text, start, end: (
        text[start].isupper() and (_in_sentence(text, start) or _is_not_name(text, start, end))
    ),
    "title": is_before_name,
    "title_or_lower": lambda text, start, end: _is_lower(text, start, end) or is_before_name(text, start, end),
}
_NAME = re.compile(r"\s{1,2}(?:of\s)?[\"“‘'\[]?([^\W\d_]+)")
_AND_TITLE = re.compile(r"\s(?:and|or|&)\s(?:Mr|Ms|Mrs|Miss|Dr|Lady|Lord|Dame|Sir|Baroness|Countess)\b")
_SMALL_NAME = re.compile(  # "mr ito", "mr and mrs ito"; not "ms later"
    r" (?:(?:and|&) mrs? |(?!(?:a|after|and|apart|are|as|at|but|delay|for|from|had|has|if|in|is|it|later|latency|of|on|"
    r"or|per|that|the|then|to|was|were|when|with)\b)[a-z]{2})"
)
_LOUD_NAME = re.compile(r" (?!DOS\b|SQL\b|WORD\b|EXCEL\b|OFFICE\b|WINDOWS\b)[A-Z][A-Z'’-]+(\n|:|$|,? [A-Z]{2})?")
_LOUD_BEFORE = re.compile(r"[A-Z]{2},? $")
_AND_PARTNER = re.compile(r" and (?:queens|kings|goddess(?:es)?|gods?|ladies|cowgirls|cowboys|wizards)\b")
_PREVIOUS = re.compile(r"(?<![^\W_])([^\W\d_]+)\s$")
_LEADING = """
the a an his her our my your their its this that these those no any every each former late young old new dear crown
grand good great last first second third future vice
"""
_LEADS = frozenset(_LEADING.split())  # a capital after these is a rank: "the King", "Crown Prince"
_OPENING = """
When While After Before If As Although Though Since Until Once Because Both In On By For From To Under With Then But And
That Also However
"""
_OPENERS = frozenset(_OPENING.split())  # a capital after these may be a rank: "When King Charles"
_NATIONAL = ("ish", "an", "ese", "ch", "ic", "gal")


# ---------------------------------------------------------------- the table of one lexicon


@lru_cache(maxsize=16)
def _table(lexicon: Lexicon) -> Table:
    table = Table()
    for word in lexicon.cues:
        for surface in _spellings(word):
            _enter(table, surface, Entry(word, None))
    for word, rule in lexicon.rules.items():
        group = lexicon.groups.index(rule.group)
        for surface in _spellings(word):
            targets = tuple(_written_like(surface, target) for target in rule.targets)
            _enter(table, surface, Entry(word, rule, targets, group))
    for phrase in lexicon.fixed:
        for surface in _spellings(phrase) if phrase.islower() else _apostrophes(phrase):
            _enter(table, surface, None)
    for rows in table.phrases.values():
        rows.sort(key=lambda row: -len(row[0]))
    table.begins.update(table.entries, table.phrases)
    return table


def _enter(table: Table, surface: str, entry: Entry | None) -> None:
    tokens = TOKEN.findall(surface)
    if len(tokens) == 1 and entry is not None:
        table.entries[surface] = entry
    else:
        table.phrases.setdefault(tokens[0], []).append((tokens, entry))


def _spellings(word: str) -> set[str]:
    forms = {word, word.upper()}
    if word.islower():
        forms |= {word[0].upper() + word[1:], _titled(word)}
    return {s for form in forms for s in _apostrophes(form)}


def _titled(words: str) -> str:
    return " ".join(w if w in ("of", "the") else w[0].upper() + w[1:] for w in words.split(" "))


def _apostrophes(word: str) -> set[str]:
    return {word, word.replace("'", "’")}


def _written_like(surface: str, target: str) -> str:
    if surface.isupper():
        return target.upper()
    if " " in surface and surface == _titled(surface):
        return _titled(target)
    return target[0].upper() + target[1:] if surface[0].isupper() else target
