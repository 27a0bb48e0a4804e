"""Rule: a word of the lexicon in a sense that is no person's role: ships, titles of works, idioms, animals.

Where the tokens around show it plainly the mention is taken back and the word stays; where they hint at it a reason is
added. What words nearby tell is data, in senses.yaml; the functions tell the rest: verbs, exclamations, names.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

from counterfactuals.text.conditions import LISTS, data
from counterfactuals.text.document import Document, Mention

WITHIN = 4  # tokens before a word that a rule's `within` looks at
Rows = dict[str, list[tuple[str, ...]]]  # phrases by their token that is next to the word


@dataclass(frozen=True)
class Sense:
    """One rule of senses.yaml, whose head explains the fields."""

    words: frozenset[str]
    before: Rows = field(default_factory=dict)
    after: Rows = field(default_factory=dict)
    not_before: frozenset[str] = frozenset()
    within: frozenset[str] = frozenset()
    passage: frozenset[str] = frozenset()
    unless: frozenset[str] = frozenset()
    leave: bool = False
    turn: bool = False
    doubt: str | None = None
    spread: str | None = None

    def holds(self, document: Document, mention: Mention, near: frozenset[str]) -> bool:
        """Whether all that the rule names is found. near: the tokens of the mention's passage."""
        if (self.passage and self.passage.isdisjoint(near)) or not self.unless.isdisjoint(near):
            return False
        first, last = mention.first, mention.last
        before = document.word(first - 1).lower()
        last += document.word(last) == "-" and document.glued(last)  # sister-city
        if self.after and not any(
            _reads(document, last, row) for row in self.after.get(document.word(last).lower(), ())
        ):
            return False
        if self.before and not any(_reads(document, first - len(row), row) for row in self.before.get(before, ())):
            return False
        if before in self.not_before or not self.within:
            return before not in self.not_before
        begin = max(0, first - WITHIN)
        if self.within.isdisjoint(document.words[begin:first]):
            return False
        return not self.within.isdisjoint(document.words[max(begin, document.sentence(first)[0]) : first])


def doubt(document: Document) -> None:
    """Take back mentions that carry no role here, and add reasons "sense:…" and "sex_bound:…" to doubtful ones."""
    if len(document.lexicon.groups) != 2 or not document.mentions:
        return
    senses, kinds = load()
    nearby: dict[int, frozenset[str]] = {}
    spread: dict[str, frozenset[str]] = {}
    for mention in list(document.mentions):
        word = mention.word
        if mention.rule == "name":
            continue
        if mention.rule == "cue":
            mention.doubt("sex_bound:" + kinds.get(word, "body"))
        elif _is_no_role(document, mention):
            document.remove(mention)
            continue
        passage = document.passage_of(mention.start)
        near = nearby.get(passage) or nearby.setdefault(passage, _tokens_of(document, passage))
        for sense in senses.get(word, ()):
            if sense.holds(document, mention, near):
                if sense.leave:
                    document.remove(mention)
                if sense.doubt is None:
                    break
                mention.doubt(sense.doubt)
                if sense.spread:
                    spread[sense.spread] = sense.words
    if spread and LISTS["WOMEN"].isdisjoint(document.words):  # the whole text is about a ship
        for reason, words in spread.items():
            for mention in document.mentions:
                if mention.word in words:
                    mention.doubt(reason)


def _tokens_of(document: Document, passage: int) -> frozenset[str]:
    start, end = document.passages[passage]
    return frozenset(document.words[max(0, document.token_at(start)) : document.token_at(end - 1) + 1])


def _reads(document: Document, first: int, row: tuple[str, ...]) -> bool:
    return all(document.word(first + i).lower() == word for i, word in enumerate(row))


def _is_no_role(document: Document, mention: Mention) -> bool:
    """The word is a verb, an exclamation, mankind, or part of a name of something; odd capitals are doubted."""
    word = mention.word
    capital = document.words[mention.first][0].isupper()
    if not (capital or word in _LOOKED_AT or word.endswith("man")):
        return False
    if word == "man" and (_is_verb(document, mention) or _is_mankind(document, mention)):
        return True
    if word in LISTS["EXCLAIMED"] and _is_exclaimed(document, mention):
        return True
    official = word in LISTS["GENERIC"] or (word.endswith("man") and mention.group == 1 and word != "man")
    if official and _is_said_of(document, mention):
        return True
    if word not in LISTS["PRONOUNS"]:
        return capital and _is_in_name(document, mention)
    if capital and document.word(mention.last) not in LISTS["HONOURS"]:
        _doubt_capital(document, mention)
    return False


def _is_verb(document: Document, mention: Mention) -> bool:
    """ "to man the pumps", "sailors man the hawsers", "who man its stalls"; not "gave the old man the keys"."""
    if document.word(mention.last).lower() not in LISTS["OBJECTS"]:
        return False
    before = [document.word(mention.first - back).lower() for back in (1, 2, 3)]
    return before[0] == "to" or (LISTS["DETERMINERS"].isdisjoint(before) and not document.opens(mention.first))


def _is_mankind(document: Document, mention: Mention) -> bool:
    """ "the nature of man", "early man", "Man is free", "of God and man"; not "a kind of man", "man and wife"."""
    word, after = document.words[mention.first], document.word(mention.last)
    if word == "Man" and not document.word(mention.first - 1).isalpha():
        return after in LISTS["MODAL"]
    if word != "man" or after in ("and", "or", "of", "who", "with", "-"):
        return False
    before, second = document.word(mention.first - 1), document.word(mention.first - 2)
    clause = before.lower() in LISTS["CLAUSE"] and after in LISTS["MODAL"]  # too often, man has erred
    early = before in ("early", "primitive", "prehistoric", "modern") and second not in LISTS["DETERMINERS"]
    return clause or early or (before in LISTS["OF"] and second not in LISTS["KIND"])


def _is_exclaimed(document: Document, mention: Mention) -> bool:
    """ "Man, he is tall.", "Thanks, man.", "and boy was he great"; not "Man, 45, held" or "Boy, come here"."""
    before, after, second = (document.word(token) for token in (mention.first - 1, mention.last, mention.last + 1))
    if mention.word == "boy" and before.lower() not in LISTS["DETERMINERS"]:
        asks, whom = (second, document.word(mention.last + 2)) if after == "," else (after, second)
        if asks.lower() in LISTS["ASKS"] and whom.lower() in LISTS["WHOM"]:
            return True
    if not document.opens(mention.first):
        return before == "," and after in _CLOSES and mention.word != "boy"
    if mention.word == "boy":
        return second.lower() in LISTS["EXCLAIMS"] if after == "," else after.lower() in LISTS["WHOM"]
    return after in (",", "!") and not second[0].isdigit()


def _is_said_of(document: Document, mention: Mention) -> bool:
    """ "She was elected chairman": the word is said of anyone, and fits him as well."""
    begin = document.sentence(mention.first)[0]
    before = document.words[max(begin, mention.first - 6) : mention.first]
    if LISTS["LINKS"].isdisjoint(before):
        return False
    words = {other.word for token in range(begin, mention.first) if (other := document.mention_at(token))}
    return not words.isdisjoint(("she", "her")) and words <= {"she", "her", "herself"}


def _is_in_name(document: Document, mention: Mention) -> bool:
    """A capitalised word that is part of the name of a body, a place or a work; a capital without a reason is doubted.

    "League of Women Voters", "Ladies Home Journal", "Queen Street", "the Prince of Wales pub", "Sons of Anarchy",
    "King's Cross", "Jack Dustman", 'the film "Wonder Woman"'.
    """
    word, first, last = mention.word, mention.first, mention.last
    if len(document.words[first]) > 1 and document.words[first].isupper():  # "PRIDE MAN FESTIVAL"
        nearby = {document.word(token).lower() for token in (first - 1, last)}
        return not nearby.isdisjoint(LISTS["THINGS"]) and _is_in_title(document, first, last)
    if word in LISTS["PARENTS"]:
        if document.word(last)[0].isupper():  # Mama Cash
            mention.doubt("sense:capital")
        return document.word(first - 1)[0].isupper() and not document.opens(first - 1)  # Raymond Anthony Papa
    begin, end = _run(document, first, last)
    rest = {part.lower() for token, part in enumerate(document.words[begin:end], begin) if not first <= token < last}
    if document.word(begin) in LISTS["SHIP_MARKS"] or _is_in_title(document, first, last):
        return True
    if word in LISTS["GROUPS"]:
        if rest & LISTS["SPORTS"]:  # the Women's World Cup turns
            return False
        if rest & LISTS["THINGS"] and word in document.words:  # a League of Women Voters, in a text about women
            mention.doubt("sense:capital")
        elif rest & LISTS["THINGS"] or (word in LISTS["KIN_GROUPS"] and _is_body(document, mention, begin)):
            return True
    elif word in LISTS["PERSONAL"] and end <= last + 2:  # Sir James Hall
        return False
    elif rest & LISTS["THINGS"] and (word in LISTS["RANKS"] or rest.isdisjoint(("of", "the", "for", "and"))):
        return word not in LISTS["OFFICES"] or document.word(first - 1) != ","  # Ann Day, Chairman Day Foundation
    if word in LISTS["RANKS"]:
        if document.word(last) in "'’" and document.word(last + 1) == "s":  # King's Cross
            owned = document.word(last + 2)
            return owned[0].isupper() and owned.lower() not in document.lexicon.rules
        return end > last and document.word(end) in LISTS["PUBS"]  # the Prince of Wales pub
    if word.endswith("man") and len(word) > 5 and word not in LISTS["OFFICES"]:  # a surname, or a place
        if begin < first and document.word(first - 1)[0].isupper():
            return True
        if document.word(first - 1).lower() not in LISTS["DETERMINERS"]:
            _doubt_capital(document, mention)
    if word in LISTS["PLAIN"]:
        _doubt_capital(document, mention)
    return False


def _is_body(document: Document, mention: Mention, begin: int) -> bool:
    """ "Greene Brothers", "Big Sisters", "Sons of Anarchy"; not "Daughters of miners"."""
    before = document.word(mention.first - 1)
    if begin < mention.first and (before[0].isupper() or before == "&"):
        return True
    after = document.word(mention.last + 1 + (document.word(mention.last + 1) == "the"))
    return document.word(mention.last) == "of" and after[0].isupper()


def _doubt_capital(document: Document, mention: Mention) -> None:
    """A capital inside a sentence, where nothing asks for one: God's "He", "Invisible Man"."""
    before = document.word(mention.first - 1)
    inside = before in (",", "&") or (before.isalpha() and not document.glued(mention.first))
    if inside:
        mention.doubt("sense:capital")


def _run(document: Document, first: int, last: int) -> tuple[int, int]:
    """First token and end of the run of capitalised words near a word: with of, the, and, 's between them."""
    begin, end = first, last  # of at most 20 tokens or so on either side
    while begin > first - 20 and (
        step := next((n for n in (1, 2, 3) if _joins(document, begin - n, begin, begin - n)), 0)
    ):
        begin -= step
    while end < last + 20 and (
        step := next((n for n in (1, 2, 3) if _joins(document, end - 1, end - 1 + n, end - 1 + n)), 0)
    ):
        end += step
    return begin, end


def _joins(document: Document, left: int, right: int, other: int) -> bool:
    """What stands between two tokens joins them to one name; `other` of the two has a capital of its own."""
    word = document.word(other)
    capital = word[0].isupper() and word not in LISTS["FUNCTION"]
    return capital and left >= 0 and all(between in _JOINS for between in document.words[left + 1 : right])


def _is_in_title(document: Document, first: int, last: int) -> bool:
    """Between quotes or asterisks, in capitals like the title of a work: “Invisible Man”; not "Yes, Sir"."""
    begin, end = first - 1, last
    while begin > first - 9 and document.word(begin) not in _BOUNDS:
        begin -= 1
    while end < last + 9 and document.word(end) not in _BOUNDS:
        end += 1
    if document.word(begin) not in _QUOTES or document.word(end) not in _QUOTES:
        return False
    opened = document.glued(begin + 1) and not (document.glued(begin) and document.word(begin - 1).isalnum())
    if not opened or not document.glued(end) or document.word(begin - 1) in ":=":  # "sex": "Female"
        return False
    words = document.words[begin + 1 : end]
    return "," not in words[:-1] and (len(words) > 3 or words[-1] not in ",.!?") and _capitals(words) > 0.7


def _capitals(words: list[str]) -> float:
    """The share of words with a capital, without "of" and the like; 0 for no words."""
    named = [word for word in words if word[0].isalpha() and word not in LISTS["SMALL"]]
    return sum(word[0].isupper() for word in named) / max(len(named), 1)


@cache
def load() -> tuple[dict[str, list[Sense]], dict[str, str]]:
    """Word → the rules that look at it, and cue → its kind of reason."""
    found: dict[str, list[Sense]] = {}
    for row in data()["rules"]:
        sense = Sense(**{key: _parsed(key, value) for key, value in row.items()})
        for word in sense.words:
            found.setdefault(word, []).append(sense)
    return found, {word: kind for kind, words in data()["sex_bound"].items() for word in _split(words)}


def _parsed(key: str, value: Any) -> Any:
    if not isinstance(value, str) or key in ("doubt", "spread"):
        return value
    words = _split(value)
    if key in ("before", "after"):
        found: Rows = {}
        for row in (tuple(word.split(" ")) for word in words):
            found.setdefault(row[0 if key == "after" else -1], []).append(row)
        return found
    if key in ("passage", "unless", "within"):
        words += [form for word in words for form in (word.capitalize(), word.upper())]
    return frozenset(words)


def _split(text: str) -> list[str]:
    parts = (data()["lists"][part[1:]] if part[0] == "$" else part for part in text.split())
    return [word.replace("_", " ") for part in parts for word in part.split()]


_LOOKED_AT = LISTS["EXCLAIMED"] | LISTS["GENERIC"]
_JOINS = frozenset(("of", "the", "for", "and", "&", "'", "’", "s", "de", "-"))
_QUOTES = frozenset("\"“”‘’'*«»")
_BOUNDS = _QUOTES | frozenset(".\n;:?!")
_CLOSES = frozenset('.,!?;\n"”')
