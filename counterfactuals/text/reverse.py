"""Text → its counterfactual: the lexicon's words exchanged for those of the other role, offsets exact on both sides.

    >>> from counterfactuals.text.lexicon import load_lexicon
    >>> reverse("He gave her his book.", load_lexicon("gender")).reversed
    'She gave him her book.'

Words are matched whole, in small letters, Capitalised or in CAPITALS, and the counterpart is written alike; other
mixtures ("sHe") are left. A word ends at an apostrophe or a hyphen, so what follows stays ("she'd" → "he'd",
"mother-in-law" → "father-in-law"); the dot of "Mr." stays too, outside the span. Underscores around a word mark it
("_she_"), within it they are part of it ("she_wolf"). Web addresses, @handles, e-mail names and the lexicon's fixed
phrases are left. Given names: names.py, persons.py.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import random
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import islice
from typing import Any, NamedTuple

from counterfactuals.text import pronouns
from counterfactuals.text.doubts import SIGNS, doubts
from counterfactuals.text.lexicon import MOST_GROUPS, Lexicon, Rule, cycles
from counterfactuals.text.scan import Scanner, trie

Edit = tuple[int, int, str, str, float]  # start, end, target, rule, confidence
UNSURE = 0.8  # a pronoun decided with less confidence is flagged
POLICIES = ("reverse", "skip", "keep_names")


class Span(NamedTuple):
    """`text[start:end]` became `reversed[cf_start:cf_end]` (characters).

    rule: pair, one_way, pronoun, title, name, pool or article (a, an). confidence: what the pronoun classifier gives
    its choice, in [.5, 1]; 1 for every other rule.
    """

    start: int
    end: int
    cf_start: int
    cf_end: int
    rule: str
    confidence: float = 1.0


class Flag(NamedTuple):
    """`text[start:end]` may leave the reversed text incoherent.

    kind: sex_bound, a word that stays (pregnant); name, a person's that has no counterpart, or a name that may be no
    person's; sense, a word that may be no person's role here; pronoun, decided with little confidence.
    """

    start: int
    end: int
    kind: str


@dataclass(frozen=True, slots=True)
class Reversal:
    """A text and its counterfactual. `spans` are sorted, do not overlap and hold every difference; () if none.

    `cue` is the offset in `text` of the first thing that carries the role and stays: a flag, a word that `direction` or
    `protected` leaves and, where "skip" left a whole text, its first such word. None if there is none.
    `turn`: where words of pools were replaced, each group by the next of a cyclic order, its place in `lexicon.cycles`.
    """

    text: str
    reversed: str
    spans: tuple[Span, ...]
    cue: int | None = None
    flags: tuple[Flag, ...] = ()
    turn: int = 0


@dataclass(frozen=True)
class Reverser:
    """A lexicon and how it is applied; a pure function from text to Reversal. `many` is the faster way.

    direction: "both", or the group whose words are replaced. policy: "reverse" replaces what it can and flags what
    carries the role and stays; "skip" leaves a flagged text whole; "keep_names" replaces words only, as the paper does.
    protected: words, names and phrases that stay. seed: of the choices among the words of pools.
    ValueError for an unknown group or policy, or a protected word that the lexicon would not replace anyway.
    """

    lexicon: Lexicon
    direction: str = "both"
    policy: str = "reverse"
    protected: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if self.direction != "both":
            self.lexicon.check_group(self.direction)
        if self.policy not in POLICIES:
            raise ValueError(f"policy: no {self.policy!r}; there is {', '.join(POLICIES)}")
        for word in self.protected:
            if " " not in word and word.lower() not in self.lexicon.rules and word.capitalize() not in self._named:
                close = difflib.get_close_matches(word.lower(), self.lexicon.rules, n=1)
                hint = f" (did you mean {close[0]!r}?)" if close else ""
                raise ValueError(f"protected: {word!r} is nothing that lexicon {self.lexicon.name} replaces{hint}")

    @cached_property
    def _stays(self) -> frozenset[str]:
        return frozenset(form for word in self.protected for form in (word.lower(), word.capitalize()))

    @property
    def _named(self) -> frozenset[str]:
        names = self.lexicon.names
        return frozenset(name for pair in names.pairs for name in pair) if names else frozenset()

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over the lexicon's content and the options."""
        options = [self.direction, self.policy, sorted(self.protected), self.seed]
        return hashlib.sha256(json.dumps([self.lexicon.fingerprint, options]).encode()).hexdigest()

    def components(self) -> tuple[tuple[tuple[str, ...], ...], ...]:
        """`Lexicon.components` of what is exchanged: without protected words, with names unless they are kept."""
        found = self.lexicon.components(names=self.policy != "keep_names")
        return tuple(c for c in found if not any(word in self._stays for side in c for word in side))

    def pools(self) -> tuple[tuple[tuple[str, ...], ...], ...]:
        """For each topic the words of each group that are exchanged, many to many; topics without protected words."""
        found = (tuple(sides[group] for group in self.lexicon.groups) for sides in self.lexicon.pools.values())
        return tuple(c for c in found if not any(word in self._stays for side in c for word in side))

    def __call__(self, text: str) -> Reversal:
        pattern, entries, _ = _compiled(self.lexicon, self.protected)
        plain = _without_underscores(text)
        return _marked_again(text, self._reversal(plain, pattern.finditer(plain), entries))

    def many(self, texts: Sequence[str], *, brief: bool = False) -> Iterator[Reversal]:
        """The same of each text, faster. brief: of a text that "skip" leaves whole, not all flags are looked for."""
        _, entries, scanner = _compiled(self.lexicon, self.protected)
        brief = brief and self.policy == "skip" and self.lexicon.names is not None
        plain_texts = [_without_underscores(text) for text in texts]
        for text, plain, (matches, signs) in zip(texts, plain_texts, scanner(plain_texts)):
            yield _marked_again(text, self._reversal(plain, matches, entries, signs=signs, brief=brief))

    def _reversal(
        self,
        text: str,
        matches: Iterable[re.Match[str]],
        entries: dict[str, Entry],
        *,
        signs: int = -1,
        brief: bool = False,
    ) -> Reversal:
        groups, direction, protected = self.lexicon.groups, self.direction, self._stays
        both = direction == "both"
        edits: list[Edit] = []
        flags: list[Flag] = []
        stays: list[int] = []  # where what carries the role is left on purpose
        marks: list[tuple[int, int, int | None]] = []  # for the names: words by group, and what they may not touch
        titles: list[tuple[int, int]] = []  # King, Sir
        pooled: dict[str, str] = {}
        waiting: list[tuple[int, str, Rule]] = []  # edits whose target is chosen only if the text is not left anyway
        for match in matches:
            start, end = match.span()
            entry = entries.get(text[start:end])
            if entry is None:  # a fixed phrase or an address
                marks.append((start, end, None))
                continue
            word, rule, targets, group = entry
            if rule is None:
                marks.append((start, end, None))
                flags.append(Flag(start, end, "sex_bound"))
                continue
            if rule.only and not CONDITIONS[rule.only](text, start, end):
                if (
                    rule.only == "lower"
                    and _ALONE.search(text, max(0, start - 8), start)
                    and _SMALL_NEXT.match(text, end)
                ):
                    flags.append(Flag(start, end, "sense"))  # "with Kings acting like fathers"
                continue
            marks.append((start, end, group))
            if (not both and direction != rule.group) or word in protected:
                stays.append(start)
                continue
            confidence = 1.0
            if rule.kind == "pool":
                target = _from_pool(self, text, start, end, word, pooled)
            elif len(targets) == 1:
                target = targets[0]
            elif brief:
                waiting.append((len(edits), word, rule))
                target = targets[0]
            else:
                chosen, confidence = CHOICES[rule.kind](word, rule, text, start, end)
                target = targets[chosen]
                if confidence < UNSURE:
                    flags.append(Flag(start, end, "pronoun"))
            if text[start].isupper() and rule.kind != "one_way" and word not in _BEFORE_SURNAME:
                titles.append((start, end))
            edits.append((start, end, target, rule.kind, confidence))
        names = self.lexicon.names
        if names:
            things, places = names.context["things"], names.context["capital_others"]
            spoken = len(edits)
            if brief and (stays or flags or edits):
                first = min([*stays, *[flag.start for flag in flags[:1]], *[edit[0] for edit in edits[:1]]])

                def doubted() -> bool:
                    found = doubts(text, edits, things, places, signs=signs, complete=False)
                    flags.extend(Flag(start, end, "sense") for start, end in islice(found, 1))
                    return bool(flags)

                found, cue = names.find_until(text, marks, first, bool(flags), doubted, protected)
                if cue is not None:
                    flags += [Flag(start, end, "name") for start, end, *_ in found]
                    return Reversal(text, text, (), cue, tuple(flags), _turn(self, text) if pooled else 0)
            else:
                found = names.find(text, marks)
            keep = self.policy == "keep_names"
            for start, end, role, name, sure in found:
                other = not both and name and direction != groups[role or 0]
                if other or (protected and text[start:end].capitalize() in protected):
                    stays.append(start)
                    continue
                if not sure or name is None or keep:
                    flags.append(Flag(start, end, "name"))
                if name is not None and not keep:
                    rule_name = "name" if text[start:end].isascii() else "one_way"  # José → … → Jose
                    edits.append((start, end, name, rule_name, 1.0))
            starts = {start for start, *_ in found} if titles else ()
            for start, end in titles:  # "Queen Mary" has to become "King …", else it names nobody
                if end + 1 not in starts and _NAME_RIGHT_AFTER.match(text, end) and not text[start:end].isupper():
                    flags.append(Flag(start, end, "name"))
            for number, word, rule in waiting if not flags else ():
                start, end, *_ = edits[number]
                chosen, confidence = CHOICES[rule.kind](word, rule, text, start, end)
                edits[number] = start, end, entries[text[start:end]].targets[chosen], rule.kind, confidence
                if confidence < UNSURE:
                    flags.append(Flag(start, end, "pronoun"))
                    break
            named = edits[spoken:]
            edits.sort()
            if edits and not (brief and flags):
                again = brief and all(rule == "name" for *_, rule, _ in named)
                senses = doubts(text, edits, things, places, signs=signs, again=again)
                flags += [Flag(start, end, "sense") for start, end in islice(senses, 1 if brief else None)]
            flags.sort()
        if flags:
            stays.append(flags[0].start)
            if self.policy == "skip" and edits:
                stays.append(edits[0][0])
                edits = []
        edits = [_owner(text, edit) if text[edit[1] : edit[1] + 1] in _APOSTROPHES else edit for edit in edits]
        near = [edit for edit in edits if text[edit[0] - 2 : edit[0]] in _ARTICLE_ENDS]
        articles = list(filter(None, [_article(text, *edit[:3]) for edit in near]))
        if articles:
            edits = sorted([*edits, *articles])
        turn = _turn(self, text) if pooled else 0
        return _replaced(text, edits, min(stays, default=None), tuple(flags), turn)


def reverse(text: str, lexicon: Lexicon, **options: Any) -> Reversal:
    """Exchange the roles in `text`: `Reverser(lexicon, **options)(text)`."""
    return _reverser(lexicon, **options)(text)


_reverser = lru_cache(maxsize=16)(Reverser)


def _replaced(text: str, edits: list[Edit], cue: int | None, flags: tuple[Flag, ...], turn: int) -> Reversal:
    pieces: list[str] = []
    spans: list[Span] = []
    copied = shift = 0  # text[:copied] is in pieces; offsets on the reversed side are ahead by shift
    for start, end, target, rule, confidence in edits:
        place = (start, end, start + shift, start + shift + len(target), rule, confidence)
        spans.append(tuple.__new__(Span, place))  # twice as fast as Span(*place)
        pieces += (text[copied:start], target)
        copied = end
        shift += len(target) - (end - start)
    pieces.append(text[copied:])
    return Reversal(text, "".join(pieces), tuple(spans), cue, flags, turn)


def _without_underscores(text: str) -> str:
    """The same length, with `*` for the underscores that mark a word: "_she_", not "she_wolf"."""
    return _MARKS.sub(lambda found: "*" * len(found[0]), text) if "_" in text else text


def _marked_again(text: str, done: Reversal) -> Reversal:
    """The reversal of `text` from that of the text without underscores."""
    if done.text is text:
        return done
    edits = [(s.start, s.end, done.reversed[s.cf_start : s.cf_end], s.rule, s.confidence) for s in done.spans]
    return _replaced(text, edits, done.cue, done.flags, done.turn)


_MARKS = re.compile(r"(?<![\w@])_+|(?<!_)_+(?![\w@])")


def _article(text: str, start: int, end: int, target: str) -> Edit | None:
    """ "a" becomes "an", or the other way, where the word after it now begins with another sound."""
    found = _ARTICLE.search(text, max(0, start - 4), start)
    old, new = (_VOWEL.match(word) is not None for word in (text[start:end], target))
    if found is None or old == new or old != (len(found[1]) == 2):
        return None
    article = found[1]
    written = article[0] if old else article + ("N" if text[start:end].isupper() and article == "A" else "n")
    return found.start(1), found.end(1), written, "article", 1.0


def _owner(text: str, edit: Edit) -> Edit:
    """ "the ladies' room" ⇌ "the gentlemen's room", "the princess' room" → "the prince's …"; not 'Yes, ladies' he."""
    start, end, target, rule, confidence = edit
    word, apostrophe = text[start:end], text[end]
    ends_in_s = word[-1] in "sS"
    if ends_in_s == (target[-1] in "sS"):
        return edit
    if not ends_in_s:
        plural = word[-3:].lower() == "men" and _S.match(text, end + 1)
        return (start, end + 2, target + apostrophe, rule, confidence) if plural else edit
    if not _OWNED.match(text, end + 1) or _QUOTE_OPEN.search(text, max(0, start - 200), start):
        return edit
    back = rule if target[-3:].lower() == "men" else "one_way"  # the prince's → the princess's
    return start, end + 1, target + apostrophe + ("S" if word.isupper() else "s"), back, confidence


_APOSTROPHES = frozenset("'’")
_S = re.compile(r"[sS](?!\w)")
_OWNED = re.compile(r"\s\w|[:;,.!?)]|\s*$")
_QUOTE_OPEN = re.compile(r"(?<!\w)['‘](?=\w)")
_ARTICLE_ENDS = frozenset(("a ", "n ", "A ", "N "))
_ARTICLE = re.compile(r"(?<![\w'’.-])(an?) $", re.IGNORECASE)
_VOWEL = re.compile(
    r"(?!eu|ewe|one\b|once|uni|use|usu|uti|uk|ur[aiou]|uga)[aeiou]|heir|hono|hour|[à-æè-ïò-öù-ü]", re.IGNORECASE
)


def _from_pool(reverser: Reverser, text: str, start: int, end: int, word: str, chosen: dict[str, str]) -> str:
    """A word of the group that takes the place of `word`'s: the same all through it, drawn by the seed."""
    if word not in chosen:
        lexicon, rule = reverser.lexicon, reverser.lexicon.rules[word]
        assert rule.topic is not None
        draw, after = _order(reverser, text)
        group = lexicon.groups[after[lexicon.groups.index(rule.group)]]
        words = list(lexicon.pools[rule.topic][group])
        draw.shuffle(words)
        taken = set(chosen.values())
        chosen[word] = next((w for w in words if w not in taken), words[0])
    target, surface = chosen[word], text[start:end]
    if surface.isupper() and not word.isupper() and len(surface) > 1:
        return target.upper()
    opens = word[0].islower() or start == 0 or text[max(0, start - 8) : start].rstrip(" \"“‘'(")[-1:] in ".!?:\n"
    return target[0].upper() + target[1:] if surface[0].isupper() and opens else target


def _order(reverser: Reverser, text: str) -> tuple[random.Random, tuple[int, ...]]:
    """A text's cyclic order of the groups, as the group after each, so that every group becomes another one."""
    draw = random.Random(reverser.seed << 32 | zlib.crc32(text.encode()))
    order = list(range(len(reverser.lexicon.groups)))
    draw.shuffle(order)
    after = dict(zip(order, order[1:] + order[:1]))
    return draw, tuple(after[group] for group in range(len(order)))


def _turn(reverser: Reverser, text: str) -> int:
    after = _order(reverser, text)[1]
    return cycles(len(after)).index(after) if len(after) <= MOST_GROUPS else 0


def _is_before_name(text: str, start: int, end: int) -> bool:
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
        return dotted or _is_before_name(text, start, end)
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
    """In small letters or a rank.

    "King Harald", "the Danish King Harald", "the King"; not "Larry King" or "King wrote".
    """
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
    "title": _is_before_name,
    "title_or_lower": lambda text, start, end: _is_lower(text, start, end) or _is_before_name(text, start, end),
}


def _pronoun(word: str, rule: Rule, text: str, start: int, end: int) -> tuple[int, float]:
    target, probability = pronouns.decide(word, text, start, end)
    return rule.targets.index(target), probability


CHOICES: dict[str, Callable[[str, Rule, str, int, int], tuple[int, float]]] = {  # → which target, how sure
    "pronoun": _pronoun,
    "title": lambda word, rule, text, start, end: (int(_is_before_name(text, start, end)), 1.0),
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
_ALONE = re.compile(r"\b(?:with|by|as|for|from|and|to|that|when|as if) $")
_SMALL_NEXT = re.compile(r" [a-z]")
_NAME_RIGHT_AFTER = re.compile(r"(?:['’]s)? (?!I\b)[A-ZÀ-ÖØ-Þ]")
_TITLES = "mr ms lady lord he she his her him himself herself women men womens mens"
_BEFORE_SURNAME = frozenset(_TITLES.split())
_NATIONAL = ("ish", "an", "ese", "ch", "ic", "gal")


class Entry(NamedTuple):
    """What a way to write a word stands for: its rule (None: a cue), its targets written alike, its group's number."""

    word: str
    rule: Rule | None
    targets: tuple[str, ...]
    group: int | None


@lru_cache(maxsize=16)
def _compiled(lexicon: Lexicon, protected: tuple[str, ...] = ()) -> tuple[re.Pattern[str], dict[str, Entry], Scanner]:
    entries: dict[str, Entry] = {}
    for word in lexicon.cues:
        entries.update((surface, Entry(word, None, (), None)) for surface in _spellings(word))
    for word, rule in lexicon.rules.items():
        group = lexicon.groups.index(rule.group)
        for surface in _spellings(word):
            targets = tuple(_written_like(surface, target) for target in rule.targets)
            entries[surface] = Entry(word, rule, targets, group)
    phrases = [*lexicon.fixed, *(phrase for phrase in protected if " " in phrase)]
    fixed = [s for p in phrases for s in (_spellings(p) if p.islower() else _apostrophes(p))]
    words = {*entries, *fixed}
    inside = r"\w@\u0300-\u036f"  # combining accents belong to their word, and \w does not hold them; "[T]he" is a word
    pattern = re.compile(rf"(?<![{inside}])(?<!\w\])(?:(?:https?://|www\.)\S+|{trie(words)})(?![{inside}])")
    return pattern, entries, Scanner(pattern, words | {"http", "https", "www"}, *SIGNS)


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
