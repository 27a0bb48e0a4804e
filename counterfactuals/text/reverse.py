"""Text → its counterfactual: RULES find who carries a role, then each passage is reversed or left by its doubt.

>>> from counterfactuals.text.lexicon import load_lexicon
>>> reverse("He gave her his book.", load_lexicon("gender")).reversed
'She gave him her book.'
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

from counterfactuals.files import near
from counterfactuals.text import people, pronouns, senses, surface, words
from counterfactuals.text.document import Document, Mention, doubts
from counterfactuals.text.lexicon import Lexicon

RULES: tuple[Callable[[Document], None], ...] = (  # in this order: later rules read what earlier ones found
    words.find,  # the lexicon's words, fixed phrases and cues
    pronouns.choose,  # her → him or his, his → her or hers
    people.find,  # given names
    senses.doubt,  # a word in another sense: ships, titles of works, idioms
    people.doubt,  # a name that stays beside a pronoun that turns
)
POLICIES = {"reverse": 1.0, "skip": 0.2, "keep_names": 1.0}  # a passage with more doubt than this is left
LEAST = 0.02  # doubts below this are no flag


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
    """`text[start:end]` may leave the reversal of its passage wrong, with the probability `doubt`.

    kind: sex_bound, a word that stays (pregnant); name, of a person without a counterpart, or perhaps no person's;
    sense, a word that may carry no role here; pronoun, decided with little confidence. reason: more precisely.
    """

    start: int
    end: int
    kind: str
    reason: str
    doubt: float


class Passage(NamedTuple):
    """`text[start:end]`: the probability that its reversal is wrong, and whether it was reversed.

    doubt: 1 − Π (1 − doubt of a reason) over `reasons`; 0 where no role turns. reasons: keys of doubts.yaml: "base"
    once, "named" for each name that turns, the others once for each word that has them.
    """

    start: int
    end: int
    doubt: float
    reversed: bool
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reversal:
    """A text and its counterfactual. `spans` are sorted, do not overlap and hold every difference; () if none.

    stays: offsets in `text` of what carries a role and stays: flagged words, words that `direction` or `protected`
    leaves, and all words of roles in a passage that is left. passages: together they are the text.
    turn: only where words of pools were replaced: the cyclic order of the groups that was used, an index into
    `lexicon.cycles`; with two groups there is one order, 0.
    """

    text: str
    reversed: str
    spans: tuple[Span, ...] = ()
    flags: tuple[Flag, ...] = ()
    stays: tuple[int, ...] = ()
    passages: tuple[Passage, ...] = ()
    turn: int = 0

    @property
    def cue(self) -> int | None:
        """The first of `stays`."""
        return self.stays[0] if self.stays else None

    @property
    def doubt(self) -> float:
        """The probability that something in this text is reversed wrongly: 1 − Π (1 − doubt) of its passages."""
        return 1 - math.prod(1 - passage.doubt for passage in self.passages if passage.reversed)


def threshold(policy: str | float) -> float:
    """The doubt from which on a passage is left. ValueError for an unknown name and a number outside [0, 1]."""
    if policy in POLICIES:
        return POLICIES[policy]
    try:
        value = float(policy)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ValueError(f"policy: no {policy!r}; there is {', '.join(POLICIES)}, or a doubt from 0 to 1")
    return value


@dataclass(frozen=True)
class Reverser:
    """A lexicon and how it is applied; a pure function from text to Reversal.

    direction: "both", or the group whose words are replaced. policy: which passages are left: those with more doubt
    than this number; "reverse" is 1, "skip" the default, "keep_names" reverses all but no names, as the paper does.
    protected: words, names and phrases that stay. seed: of the choices among the words of pools.
    ValueError for an unknown group or policy, or a protected word that the lexicon would not replace anyway.
    """

    lexicon: Lexicon
    direction: str = "both"
    policy: str | float = "reverse"
    protected: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if self.direction != "both":
            self.lexicon.check_group(self.direction)
        threshold(self.policy)
        names = self.lexicon.names
        for word in self.protected:
            named = names is not None and word.capitalize() in names.entries
            if " " not in word and word.lower() not in self.lexicon.rules and not named:
                hint = near(word.lower(), self.lexicon.rules)
                raise ValueError(f"protected: {word!r} is nothing that lexicon {self.lexicon.name} replaces{hint}")

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over the lexicon's content and the options."""
        policy = "keep_names" if self.policy == "keep_names" else threshold(self.policy)
        options = [self.direction, policy, sorted(self.protected), self.seed]
        return hashlib.sha256(json.dumps([self.lexicon.fingerprint, options]).encode()).hexdigest()

    @cached_property
    def _protected(self) -> frozenset[str]:
        return frozenset(word.lower() for word in self.protected)

    def components(self) -> tuple[tuple[tuple[str, ...], ...], ...]:
        """`Lexicon.components` of what is exchanged: without protected words, with names unless they are kept."""
        found = self.lexicon.components(names=self.policy != "keep_names")
        return tuple(c for c in found if not any(word.lower() in self._protected for side in c for word in side))

    def pools(self) -> tuple[tuple[tuple[str, ...], ...], ...]:
        """For each topic the words of each group that are exchanged, many to many; topics without protected words.

        Where names are kept, a topic with "name" in its own name is left out.
        """
        pools = (sides for topic, sides in self.lexicon.pools.items() if not self._keeps(topic))
        found = (tuple(sides[group] for group in self.lexicon.groups) for sides in pools)
        return tuple(c for c in found if not any(word.lower() in self._protected for side in c for word in side))

    def __call__(self, text: str, *, whole: bool = False) -> Reversal:
        """Reverse a text passage by passage. whole: it is one passage, reversed or left as one."""
        document = Document(text, self.lexicon, self.seed)
        if whole:
            document.passages = [(0, len(text))]
        for rule in RULES:
            rule(document)
        return self._decided(text, document)

    def many(self, texts: Iterable[str]) -> Iterator[Reversal]:
        return map(self, texts)

    def fields(self, texts: Sequence[str]) -> list[str]:
        """Several fields of one record, such as a prompt and its response, reversed or left together."""
        gap = "\n\n"
        reversal = self(gap.join(texts), whole=True)
        found, end = [], -len(gap)
        for text in texts:
            start = end + len(gap)
            end = start + len(text)
            found.append(part(reversal, start, end))
        return found

    def _keeps(self, topic: str) -> bool:
        """The policy keeps names, and this topic of a pool, or rule, is one of names."""
        return self.policy == "keep_names" and "name" in topic

    def _stays(self, mention: Mention) -> bool:
        """This mention stays as it is, by itself or by an option."""
        group = mention.group
        topic = self.lexicon.rules[mention.word].topic if mention.rule == "pool" else mention.rule
        if mention.target is None or self._keeps(topic or ""):
            return True
        other = self.direction != "both" and (group is None or self.lexicon.groups[group] != self.direction)
        return other or mention.word.lower() in self._protected

    def _decided(self, text: str, document: Document) -> Reversal:
        most = threshold(self.policy)
        edits: list[Mention] = []  # of the passages that are reversed
        flags: list[Flag] = []
        stays: list[int] = []
        found: list[Passage] = []
        mentions = iter(document.mentions)
        mention = next(mentions, None)
        for start, end in document.passages:
            inside = []
            while mention is not None and mention.start < end:
                inside.append(mention)
                mention = next(mentions, None)
            turned = [m for m in inside if not self._stays(m)]
            reasons = _reasons(inside, turned)
            doubt = 1 - math.prod(1 - doubts()[reason] for reason in reasons)
            flags += _flags(inside)
            is_reversed = bool(turned) and doubt <= most
            found.append(Passage(start, end, round(doubt, 4), is_reversed, reasons))
            moved = {m.start for m in turned} if is_reversed else set()
            edits += turned if is_reversed else []
            stays += [m.start for m in inside if m.start not in moved and (m.group is not None or m.reasons)]
        turn = words.turn(document) if any(m.rule == "pool" for m in edits) else 0
        reversed_, spans = _replaced(text, surface.edits(document, edits))
        return Reversal(text, reversed_, spans, tuple(flags), tuple(stays), tuple(found), turn)


def _reasons(mentions: Sequence[Mention], turned: Sequence[Mention]) -> tuple[str, ...]:
    """Why the reversal of a passage may be wrong; () where nothing turns."""
    if not turned:
        return ()
    names = {mention.word for mention in turned if mention.rule == "name"}
    named = {(reason, mention.word) for mention in mentions for reason in mention.reasons}
    return ("base", *("named",) * len(names), *sorted(reason for reason, _ in named))


def _flags(mentions: Sequence[Mention]) -> Iterator[Flag]:
    for mention in mentions:
        for key in mention.reasons:
            if doubts()[key] > LEAST:
                kind, _, reason = key.partition(":")
                yield Flag(mention.start, mention.end, kind, reason, doubts()[key])


def part(reversal: Reversal, start: int, end: int) -> str:
    """The reversed side of `text[start:end]`, which no span may cross."""
    shift_start = shift_end = 0
    for span in reversal.spans:
        shift = span.cf_end - span.end
        if span.end <= start:
            shift_start = shift
        if span.end <= end:
            shift_end = shift
    return reversal.reversed[start + shift_start : end + shift_end]


def reverse(text: str, lexicon: Lexicon, **options: Any) -> Reversal:
    """Exchange the roles in `text`: `Reverser(lexicon, **options)(text)`."""
    return _reverser(lexicon, **options)(text)


_reverser = lru_cache(maxsize=16)(Reverser)


def _replaced(text: str, edits: Iterable[surface.Edit]) -> tuple[str, tuple[Span, ...]]:
    """The text with its edits made, and a span for each that changes something."""
    pieces: list[str] = []
    spans: list[Span] = []
    copied = shift = 0  # text[:copied] is in pieces; offsets on the reversed side are ahead by shift
    for start, end, target, rule, confidence in edits:
        if text[start:end] == target:
            continue
        spans.append(Span(start, end, start + shift, start + shift + len(target), rule, confidence))
        pieces += (text[copied:start], target)
        copied = end
        shift += len(target) - (end - start)
    pieces.append(text[copied:])
    return "".join(pieces), tuple(spans)
