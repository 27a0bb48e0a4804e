"""A text as every rule sees it: its words with their places, and the mentions that the rules found in it."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import accumulate, pairwise
from operator import add, sub
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    from counterfactuals.text.lexicon import Lexicon

DOUBTS = Path(__file__).with_name("doubts.yaml")
SHORT, LONG = 200, 1200  # characters: shorter lines are joined to one passage, longer ones split at a sentence's end
# A token: a plain word, an address, a word with its accents, "[T]he", the end of a line, or one other character.
TOKEN = re.compile(
    r"\w+(?=[ ,])|(?:https?://|www\.)\S+|[\w.+-]{0,64}@[\w.@-]+|\[\w\]\w+|\w(?:\w|[\u0300-\u036f])*|\n|[^\w\s]"
)
_GAP_AND_TOKEN = re.compile(rf"([^\S\n]*)({TOKEN.pattern})")
_MARKUP = re.compile(r"(?<![\w@])_+|(?<!_)_+(?![\w@])")  # "_she_", not "she_wolf"
_FENCE = re.compile(r"^[ \t]*(```|~~~).*?(?:^[ \t]*\1|\Z)", re.MULTILINE | re.DOTALL)
_SENTENCE_END = re.compile(r"[.!?][\"”’')\]]*\s+(?=[\"“‘(A-Z])")
_ENDS_SENTENCE = frozenset(".!?:\n…")
_QUOTES = frozenset("\"“”‘’'`«»*([{")


@dataclass(slots=True)
class Mention:
    """`text[start:end]`, tokens `first` to `last` (exclusive), carries a role.

    word: the lexicon's word in lower case, or the name. group: number of the group whose role it carries, None if it
    shows none. target: what it becomes, written alike; None: it stays. rule: pair, one_way, pronoun, title, pool or
    name; cue for what never changes. confidence: of a choice between two targets. reasons: why the reversal of its
    passage may be wrong: keys of doubts.yaml, each "kind:detail".
    """

    start: int
    end: int
    first: int
    last: int
    word: str
    group: int | None
    target: str | None
    rule: str
    confidence: float = 1.0
    reasons: list[str] = field(default_factory=list)

    def doubt(self, reason: str) -> None:
        """Add a reason, once."""
        if reason not in self.reasons:
            self.reasons.append(reason)


class Document:
    """A text's tokens and mentions.

    words, starts, ends: tokens and their places in `text`; white space belongs to none, the end of a line is one.
    mentions: sorted by place, apart from each other; rules read and add to them by `add`. seed: of the choices among
    the words of pools.
    """

    def __init__(self, text: str, lexicon: Lexicon, seed: int = 0) -> None:
        self.text = _MARKUP.sub(lambda mark: "*" * len(mark[0]), text) if "_" in text else text
        self.lexicon, self.seed = lexicon, seed
        end = max(len(self.text.rstrip()), self.text.rfind("\n") + 1)  # looking for a token in blanks takes long
        pairs = _GAP_AND_TOKEN.findall(self.text, 0, end)  # they cover the text, so their lengths give the places
        self.words = [word for _, word in pairs]
        lengths = list(map(len, self.words))
        self.ends = list(accumulate(map(add, (len(gap) for gap, _ in pairs), lengths)))
        self.starts = list(map(sub, self.ends, lengths))
        self.mentions: list[Mention] = []
        self._taken: dict[int, Mention] = {}

    def add(self, mentions: Iterable[Mention]) -> None:
        """Add mentions; one that touches a token of an earlier one is left out."""
        for mention in mentions:
            tokens = range(mention.first, mention.last)
            if not any(token in self._taken for token in tokens):
                self._taken.update((token, mention) for token in tokens)
                self.mentions.append(mention)
        self.mentions.sort(key=lambda mention: mention.start)

    def remove(self, mention: Mention) -> None:
        """Take a mention back: it carries no role after all."""
        self.mentions.remove(mention)
        for token in range(mention.first, mention.last):
            del self._taken[token]

    def mention_at(self, token: int) -> Mention | None:
        return self._taken.get(token)

    def word(self, token: int) -> str:
        """The token's word; a line's end before the first and after the last."""
        return self.words[token] if 0 <= token < len(self.words) else "\n"

    def glued(self, token: int) -> bool:
        """No white space between this token and the one before."""
        return 0 < token < len(self.words) and self.starts[token] == self.ends[token - 1]

    def token_at(self, place: int) -> int:
        """The token that holds the character at `place`, or the last before it."""
        return bisect_right(self.starts, place) - 1

    def opens(self, token: int) -> bool:
        """The token begins a sentence or a line, quotes and brackets before it aside."""
        token -= 1
        while token >= 0 and self.words[token] in _QUOTES:
            token -= 1
        return token < 0 or self.words[token] in _ENDS_SENTENCE

    def sentence(self, token: int) -> tuple[int, int]:
        """First token and end (exclusive) of the sentence around a token, by full stops and ends of lines.

        At most 100 tokens on either side: what has no full stops is no sentence, and may be a whole book.
        """
        first = last = token
        while first > max(0, token - 100) and self.words[first - 1] not in _ENDS_SENTENCE:
            first -= 1
        while last < min(len(self.words), token + 100) and self.words[last] not in _ENDS_SENTENCE:
            last += 1
        return first, last

    @cached_property
    def code(self) -> list[tuple[int, int]]:
        """Fenced blocks of code, which are left."""
        marked = "```" in self.text or "~~~" in self.text
        return [match.span() for match in _FENCE.finditer(self.text)] if marked else []

    @cached_property
    def passages(self) -> list[tuple[int, int]]:
        return passages(self.text)

    def passage_of(self, place: int) -> int:
        """The number of the passage that holds the character at `place`."""
        return bisect_right(self._passage_starts, place) - 1

    @cached_property
    def _passage_starts(self) -> list[int]:
        return [start for start, _ in self.passages]


def passages(text: str) -> list[tuple[int, int]]:
    """(start, end) of each passage: a line, short lines joined, long ones split; together they are the text.

    >>> passages("Short.\\nToo.\\n")
    [(0, 13)]
    """
    bounds, start = [0], 0
    while start < len(text):
        line_end = text.find("\n", start) + 1 or len(text)
        end = line_end
        if line_end - bounds[-1] > LONG:
            cut = _SENTENCE_END.search(text, min(bounds[-1] + LONG // 2, line_end), line_end)
            end = cut.end() if cut else line_end
        if end - bounds[-1] >= SHORT or end == len(text):
            bounds.append(end)
        start = end
    if len(bounds) > 2 and bounds[-1] - bounds[-2] < SHORT and text[bounds[-2] - 1] != "\n":
        del bounds[-2]  # the rest of a long line
    return list(pairwise(bounds)) or [(0, 0)]


@cache
def doubts() -> dict[str, float]:
    """Reason → the probability that a passage with it is reversed wrongly, fitted by learn/doubts.py."""
    return yaml.safe_load(DOUBTS.read_text(encoding="utf-8"))["doubts"]
