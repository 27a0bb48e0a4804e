"""Rule: the lexicon's words. A mention for each that is replaced, and for each cue, that stays.

Words are matched whole, in small letters, Capitalised or in CAPITALS, and the counterpart is written alike; other
mixtures ("sHe") are left. A word ends at an apostrophe or a hyphen, so what follows stays ("she'd" → "he'd"). Web
addresses, @handles, e-mail names, code and the lexicon's fixed phrases are left.
"""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from counterfactuals.text.conditions import CONDITIONS, JOINTS, is_before_name
from counterfactuals.text.document import TOKEN, Document, Mention
from counterfactuals.text.lexicon import MOST_GROUPS, Lexicon, Rule, cycles


@dataclass(frozen=True, slots=True)
class Entry:
    """What a way to write a word stands for: its rule (None: a cue), its targets written alike, its group's number."""

    word: str
    rule: Rule | None
    targets: tuple[str, ...] = ()
    group: int | None = None


class Phrase(NamedTuple):
    """Tokens in a row; `offset` of them stand before the one that they are looked up by. entry None: left."""

    tokens: list[str]
    offset: int
    entry: Entry | None


Table = dict[str, list[Phrase]]  # phrases by the token that they are looked up by, longest first


def find(document: Document) -> None:
    """Add a mention for every word of the lexicon and every cue in the document."""
    table = _table(document.lexicon)
    found: list[Mention] = []
    pooled: dict[str, str] = {}
    done = 0  # tokens before this one are decided
    for token in [token for token, word in enumerate(document.words) if word in table]:
        for tokens, offset, entry in table[document.words[token]]:
            first = token - offset
            last = first + len(tokens)
            if first >= done and document.words[first:last] == tokens:
                done = last
                if entry is not None and not _is_left(document, first, last):
                    found += _mention(document, first, last, entry, pooled)
                break
    document.add(found)


def _is_left(document: Document, first: int, last: int) -> bool:
    """Part of an identifier, of code or of a longer word: "mother.name", "person.wife", "wife()"."""
    if document.code and any(start <= document.starts[first] < end for start, end in document.code):
        return True
    before, after = document.word(first - 1), document.word(last)
    inside = document.glued(first) and document.glued(first - 1) and document.word(first - 2).isalpha()
    if inside and before in (".", "'", "’"):  # person.wife, al-Nu'man
        return True
    if after not in (".", "(") or not (document.glued(last) and document.glued(last + 1)):
        return False
    return document.word(last + 1) == ")" if after == "(" else document.word(last + 1).islower()


def _mention(document: Document, first: int, last: int, entry: Entry, pooled: dict[str, str]) -> list[Mention]:
    """The mention of these tokens; none where the condition of their word does not hold."""
    start, end = document.starts[first], document.ends[last - 1]
    rule = entry.rule
    if rule is None:
        return [Mention(start, end, first, last, entry.word, None, None, "cue")]
    if rule.only and not CONDITIONS[rule.only](document, first, last):
        return []
    if rule.kind == "pool":
        target = _from_pool(document, first, document.text[start:end], entry.word, pooled)
    elif rule.kind == "title":
        target = entry.targets[int(is_before_name(document, first, last))]
    elif entry.word == "mr" and (partner := _with_mrs(document, first, last)):
        target = _written_like(document.words[first], partner)
    else:
        target = entry.targets[0]
    return [Mention(start, end, first, last, entry.word, entry.group, target, rule.kind)]


def _with_mrs(document: Document, first: int, last: int) -> str | None:
    """ "Mr. and Mrs. Day", "Mrs. and Mr. Day", "Mr/Mrs": here "mr" is exchanged with "mrs"."""
    after = last + (document.word(last) == ".")
    before = first - 2 - (document.word(first - 2) == ".")
    for joint, other in ((after, after + 1), (first - 1, before)):
        if document.word(joint) in JOINTS and document.word(other).lower() == "mrs":
            return "mrs"
    return None


# ---------------------------------------------------------------- many groups


def _from_pool(document: Document, first: int, surface: str, word: str, chosen: dict[str, str]) -> str:
    """A word of the group that takes the place of `word`'s: the same all through a text, drawn by the seed."""
    lexicon = document.lexicon
    if word not in chosen:
        rule = lexicon.rules[word]
        assert rule.topic is not None
        draw, after = _order(document)
        group = lexicon.groups[after[lexicon.groups.index(rule.group)]]
        words = list(lexicon.pools[rule.topic][group])
        draw.shuffle(words)
        taken = set(chosen.values())
        chosen[word] = next((w for w in words if w not in taken), words[0])
    target = chosen[word]
    if surface.isupper() and not word.isupper() and len(surface) > 1:
        return target.upper()
    opens = word[0].islower() or document.opens(first)
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


# ---------------------------------------------------------------- the table of one lexicon


@lru_cache(maxsize=16)
def _table(lexicon: Lexicon) -> Table:
    rows: list[tuple[str, Entry | None]] = [
        (surface, Entry(word, None)) for word in lexicon.cues for surface in _spellings(word)
    ]
    for word, rule in lexicon.rules.items():
        group = lexicon.groups.index(rule.group)
        for surface in _spellings(word):
            targets = tuple(_written_like(surface, target) for target in rule.targets)
            rows.append((surface, Entry(word, rule, targets, group)))
            if rule.only == "code":  # 45F: an age with its code
                rows += [(f"{n}{surface}", Entry(word, rule, (f"{n}{targets[0]}",), group)) for n in range(1, 110)]
    for phrase in lexicon.fixed:
        rows += [(surface, None) for surface in (_spellings if phrase.islower() else _apostrophes)(phrase)]
    split = [(TOKEN.findall(surface), entry) for surface, entry in rows]
    single = {tokens[0] for tokens, entry in split if len(tokens) == 1 and entry is not None}
    table: Table = {}
    for tokens, entry in split:
        offset = _key(tokens, single)
        table.setdefault(tokens[offset], []).append(Phrase(tokens, offset, entry))
    for phrases in table.values():
        phrases.sort(key=lambda phrase: (-len(phrase.tokens), phrase.entry is not None))
    return table


def _key(tokens: list[str], single: set[str]) -> int:
    """Which token a phrase is looked up by: its first word of a role, or a longer, rarer one before that."""
    role = next((i for i, token in enumerate(tokens) if token in single), len(tokens) - 1)
    return role if len(tokens[role]) > 3 else max(range(role + 1), key=lambda i: (len(tokens[i]), i))


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
    if surface.isupper() and (len(surface) > 1 or len(target) == 1):
        return target.upper()
    if " " in surface and surface == _titled(surface):
        return _titled(target)
    return target[0].upper() + target[1:] if surface[0].isupper() else target
