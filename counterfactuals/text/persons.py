"""Who in a text is a person, by name: the runs of capitals are gathered, then decided in the light of the whole text.

A name is *sure* to be a person's if something around it shows one: a title or relation before it, "(born 1911)" or "is
an author" after it, a pronoun of its group nearby, the surname coming back alone. Other names are replaced too, but
not surely. A person whose name is not in the table ("Barack Obama") is found by the same signs and has no target.

Where a single flag leaves a text whole, `place` and `shows_unknown` read that off a part of it; a test compares them
with the whole search.
"""

from __future__ import annotations

import re
import sys
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain, pairwise
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from counterfactuals.text.names import Names

LONGEST = 80  # characters of a given and a family name
NEAR = 120  # characters after a name in which a pronoun is taken for its own

Mark = tuple[int, int, int | None]
Tokens = list[tuple[str, int]]  # words and where they start


class Found(NamedTuple):
    """A given name `text[start:end]` and its counterpart; `target` None: a person's name that has none here.

    `sure`: the text shows that it is a person's name.
    """

    start: int
    end: int
    group: int | None
    target: str | None
    sure: bool = True


class Full(NamedTuple):
    """A run of capitals that may be a person's full name."""

    given: Tokens
    name: str  # "" of a run that begins with no known name
    last: str
    start: int
    end: int
    group: int | None
    doubtful: bool = False  # the first name or the surname is mostly something else


class Document:
    """Gathers the runs of capitals, then decides the full names, then the names that stand alone."""

    def __init__(self, names: Names, text: str, marks: Sequence[Mark], protected: frozenset[str] = frozenset()) -> None:
        self.names, self.text, self.marks, self.context = names, text, marks, names.context
        self.protected = protected
        self.starts = [mark[0] for mark in marks]
        self.groups = {mark[2] for mark in marks} - {None}
        self.out: dict[int, Found] = {}
        self.alone: list[tuple[str, int]] = []
        self.full: list[Full] = []
        self.unknown: list[Full] = []
        self.words: set[str] = set()  # that stand alone
        self.surnames: set[str] = set()
        self.things: set[str] = set()  # words of names of things
        self.sure: set[str] = set()  # given names of persons
        self.eponyms: list[tuple[int, int]] = []  # names of things that begin with a given name
        self.shown: list[Found] = []  # names without target, for a text that is to have one
        self.described: dict[int, bool] = {}  # what was asked already, as are these two
        self.single: dict[str, bool] = {}
        self.replaced: dict[str, bool] = {}
        self.asked = 0  # how many of the unknown `shows_unknown` has looked at
        self.stop = sys.maxsize  # names from here on are not asked for
        self.runs = self._gathered()

    def place(self, cue: int) -> int | None:
        """`cue` or where a name before it stands; None if the runs up to there, one by one, do not decide that.

        What was gathered by then serves `shows_unknown` and `found`.
        """
        run, person, stop = None, cue, cue  # person: whom the first pronoun may belong to, see _doubt_pronouns
        done = 0, 0, 0, 0  # how many there were before this run
        for match in chain(self.runs, (None,)):  # the run before is in the lists then
            if run is not None:
                now = len(self.full), len(self.unknown), len(self.alone), len(self.eponyms)
                if now != done or self.text[run.end() : run.end() + 1] == "-":
                    known, unknown, alone, things = done
                    first = self._first_of(cue, self.full[known:], self.unknown[unknown:], self.alone[alone:])
                    other = self._first_thing(cue, self.eponyms[things:], run.end())
                    if first is None or other is None:
                        return None
                    person, stop, done = first, min(first, other), now
                    if stop < cue:
                        break
            run = match
            if match is None or match.start() >= cue:
                break
        first = self._first_single(stop)
        if first is None or (stop == cue and run is not None and self._hyphened(run.end())):
            return None
        full = self._whose() if person == cue else None
        if full and full.start < first:
            certain = first == cue == self._first_mark[0] and self._is_clear(full.start, full.end)  # type: ignore[index]
            return full.start if certain else None
        return first

    def shows_unknown(self, runs: Iterable[re.Match[str]]) -> bool:
        """Whether one of the runs before and of these, looked at one by one, surely has no target."""
        for _ in chain(runs, (None,)):  # the run before is in the list then
            if len(self.unknown) > self.asked:
                new = [
                    full
                    for full in self.unknown[self.asked :]
                    if self._is_clear(full.start, full.end) and self._is_unknown(full)
                ]
                if new and self._shows(Found(full.start, full.end, None, None) for full in new):
                    return True
                self.asked = len(self.unknown)
        return False

    def _shows(self, found: Iterable[Found]) -> bool:
        """Whether a name has no target and is not protected: the text is flagged then."""
        left = [one for one in found if one.target is None]
        self.shown = left and [one for one in left if self.text[one.start : one.end].capitalize() not in self.protected]
        return bool(self.shown)

    def _first_of(self, cue: int, full: list[Full], unknown: list[Full], alone: Tokens) -> int | None:
        """Where the first name of a run stands that gave these; `cue` if none is before it; None if that is unsure."""
        stop = cue
        for word, start in alone:
            if start < cue and not self._is_left(word, start):
                if not self._is_named(word, start):
                    return None
                stop = min(stop, start)
        for one in (*full, *unknown):
            start = one.given[0][1] if one.name else one.start
            if start < cue and (one.name or not self._is_no_person(one)):
                if self._is_kept(one) if one.name else self._is_unknown(one):
                    if not self._is_clear(start, one.end):
                        return None
                    stop = min(stop, start)
                elif not (self._is_never_kept(one) if one.name else self._is_never_unknown(one)):
                    return None
        return stop

    def _first_thing(self, cue: int, things: list[tuple[int, int]], hyphen: int) -> int | None:
        """The same of names of things that keep a person's role, and of a run that a hyphen may follow."""
        found = [cue]
        for start, end in things:
            _, *others = self.text[start:end].split(" ")
            if self._is_known(others) or self._honours:
                found.append(start)
            elif any(self.text.find(word, end) >= 0 for word in others):
                return None
        if match := self._hyphened(hyphen):
            found.append(match.start())
        start = min(found)
        return start if start == cue or self._is_clear(start, self.text.find(" ", start)) else None

    def _first_single(self, stop: int) -> int | None:
        """`stop` or where a word before it stands that is a name by what the rest of the text holds; None if unsure."""
        names, things, text = self.names, self.context["things"], self.text
        if _MARRIED.search(text, 0, stop):
            return None
        for match in _CAPITALISED.finditer(text, 0, stop):
            word, (start, end) = match[0], match.span()
            if match[1]:  # "I'd" is a word as well
                return None
            if not names.is_settled(word):  # see _doubt_unresolved, _doubt_couples
                if text.startswith(_AND, end):
                    return None
                left = word in self.surnames or word in self.things or not self._may_stand_for_person(start)
                if not left and not self._is_never_single(word):
                    return start if self._is_single(word) and self._is_clear(start, end) else None
            if text.find(word, end) >= 0 and names.entry(word) and not self._is_never_replaced(word):  # see _doubt_same
                return None
            subject = word not in names.plain and word not in things and _SUBJECT_FIRST.match(text, start)
            if subject and not self._before(start) and self._has_mark(end, None):  # see _doubt_unknown_alone
                return None
        return stop

    def _places(self, word: str) -> Iterator[tuple[int, int]]:
        """Where a word stands that is not glued to letters."""
        start = self.text.find(word)
        while start >= 0:
            end = start + len(word)
            if not (self.text[start - 1 : start].isalnum() or self.text[end : end + 1].isalnum()):
                yield start, end
            start = self.text.find(word, end)

    def _is_single(self, word: str) -> bool:
        """Whether a word is a run of its own wherever it stands, so that it is no surname and in no thing's name."""
        text = self.text
        if not word.isalpha():
            return False
        for start, end in self._places(word):
            if text[start - 1 : start] in _GLUE or text[end : end + 1] == "_" or _GOES_ON.match(text, end):
                return False
            if text[start - 1 : start] in _SPACES:
                chunk = text[text.rfind(" ", 0, start - 1) + 1 : start - 1].rpartition("\n")[2]
                dotted = chunk.endswith(".") and not (len(chunk) > 2 and chunk[-3:-1].isalnum())  # "J. Lee"
                if dotted or (chunk[-1:].isalnum() and (not chunk.islower() or chunk in _PARTICLE_WORDS)):
                    return False
        return True

    def _is_never_single(self, word: str) -> bool:
        """Whether a word is no run of its own anywhere, nor what is left of one without titles and the like."""
        if word not in self.single:
            self.single[word] = any(self._may_be_single(*place) for place in self._places(word))
        return not self.single[word]

    def _may_be_single(self, start: int, end: int) -> bool:
        text, before = self.text, self._before(start)
        if _GOES_ON_PLAINLY.match(text, end):
            return False
        if text[start - 1 : start] != " " or not before[:1].isupper() or not before.isalpha():
            return True
        begin = start - len(before) - 1
        return before in self.names.leading or text[begin - 1 : begin].isalnum() or bool(_NO_RUN.match(text, begin))

    def _is_never_replaced(self, word: str) -> bool:
        """Whether a name that is mostly something else stands nowhere in the text where it is a given name."""
        if word not in self.replaced:
            weak = word in self.names.weak
            self.replaced[word] = not weak or any(self._may_be_given(word, *place) for place in self._places(word))
        return not self.replaced[word]

    def _may_be_given(self, word: str, start: int, end: int) -> bool:
        names, context, before = self.names, self.context, self._before(start)
        if (
            before in ("-", *_QUOTES)
            or before in context["before_given"]
            or (before[:1].isupper() and before not in context["openers"])  # "Ann Lee September Day"
            or f"{before}_{word}" in context["doubles"]
            or self._is_after_mark(start)
            or self._is_before_nickname(end)
        ):
            return True
        if not _GOES_ON.match(self.text, end):
            return False
        run = _RUN.match(self.text, start)
        return (  # not "Roman Catholic"
            word not in names.doubtful
            or before in names.introduces
            or not run
            or not run[0].replace(" ", "", 1).isalpha()
            or run[0].endswith(("Jr", "Sr"))
            or self._is_described(run.end())
            or self._is_before_nickname(run.end())
        )

    def _is_never_kept(self, full: Full) -> bool:
        """Of a known name that is not surely kept: nothing in the rest of the text makes it a person's."""
        names, (first, start) = self.names, full.given[0]
        before = self._before(full.start)
        if (
            first not in names.doubtful
            or self._is_of_thing(full, before)
            or self._has_mark(full.end, None)
            or not self._is_never_replaced(first)
        ):
            return False
        return first not in self.context["capital_given"] or not (  # see _doubt_left
            self._before(start) in self.context["before_place"]
            or self.text.startswith(("'s ", "’s "), full.end)
            or self._may_stand_for_person(start)
        )

    def _is_never_unknown(self, full: Full) -> bool:
        """Of a run that `_is_unknown` does not take for a person's: nothing in the rest of the text makes it one."""
        if self.text.startswith(_JOINED, full.end) or self.text.endswith(_JOINED, 0, full.start):
            return False
        before = self._before(full.start)
        if before in _NO_NAME_AFTER or not (before in _PERSON_AFTER or not before.islower()):
            return True
        return not full.last or (full.last not in self.words and self._is_never_single(full.last))

    def _is_named(self, word: str, start: int) -> bool:
        """Whether a name that stands alone, and is not left, is surely found, whatever the rest of the text says."""
        names, context, text, end = self.names, self.context, self.text, start + len(word)
        before, entry = self._before(start), self.names.entry(word)
        if (
            entry is None
            or word in names.mononyms
            or before in _QUOTES
            or self._is_passed(word, start)
            or _TITLE_GROUP.get(before, entry[0]) != entry[0]
            or not self._is_clear(start, end)
        ):
            return False
        after_mark = self._is_after_mark(start) or self._is_before_nickname(end)
        if after_mark or before in context["before_given"]:
            placed = word in names.places and (before in context["before_place"] or before in _OF)
            return not placed and (after_mark or word not in context["surnames"])
        common = word in context["commons"] and before in _SENTENCE_BEFORE and not _VERB_AFTER.match(text, end)
        if common or before in context["before_place"] or word in names.weak or word in context["capital_closing"]:
            return False
        return self._is_single(word)

    def _is_known(self, words: Sequence[str]) -> bool:
        return not (self.words.isdisjoint(words) and self.surnames.isdisjoint(words))

    def _is_clear(self, start: int, end: int) -> bool:
        """Whether no mark touches the first word of text[start:end]."""
        space = self.text.find(" ", start, end)
        end = space if space >= 0 else end
        near = bisect_left(self.starts, start)
        after = near < len(self.starts) and self.starts[near] < end
        return not after and (near == 0 or self.marks[near - 1][1] <= start)

    def _is_left(self, word: str, start: int) -> bool:
        """Whether a name that stands alone is none here, whatever the rest of the text says."""
        end, before, text = start + len(word), self._before(start), self.text
        if (
            before in _SAINTS
            or text[end : end + 5] == " and "
            or text[start - 5 if start > 5 else 0 : start] == " and "
        ):
            return False
        if word in self.names.places and (before in _SUBJECT_AFTER or _OWN.match(text, end)):  # see _doubt_left
            return False
        if self._is_after_strange_title(word, before):
            return False
        if word in self.names.never_alone and self._is_never_replaced(word):
            return True
        if self.text.find(word, end) >= 0 or self._is_before_nickname(end):  # see _doubt_same, _decide_alone
            return False
        return self._is_passed(word, start)

    def _is_passed(self, word: str, start: int) -> bool:
        """Whether what stands right beside a name that stands alone shows that it is none."""
        end, before, context = start + len(word), self._before(start), self.context
        region = _REGION.match(self.text, end)
        return (
            before in self.names.titles
            or before in _NO_NAME_AFTER
            or word in context["fixed"]
            or (self.text[end : end + 1] in "'’" and f"{word}'s" in context["fixed"])
            or (before == "of" and _OF_THING.search(self.text, max(0, start - 20), start) is not None)
            or _THING_AFTER.match(self.text, end) is not None
            or (region is not None and region[1] in context["regions"])
        )

    def _is_kept(self, full: Full) -> bool:
        """Whether a known full name is surely found, however sure it is a person's."""
        before = self._before(full.start)
        if self._is_of_thing(full, before) or _TITLE_GROUP.get(before, full.group) != full.group:
            return False
        if full.start == 0 and self.groups == {1 - (full.group or 0)}:
            return False
        plain = not full.doubtful and before not in self.context["before_no_person"]
        return plain or self._shows_person(full, before)

    def found(self, stop: int = sys.maxsize, *, enough: bool = False) -> list[Found]:
        """All names; those from `stop` on may be missing. enough: the first that `_shows` one is, in `shown` then."""
        gendered = bool(self.groups)
        deque(self.runs, maxlen=0)
        if not (gendered or self.full or self.alone):
            return []
        if gendered and stop < len(self.text):  # else names behind it decide whether those before are doubted
            self._narrow(stop)
        self._decide_full()
        self._take_names()
        decisions = deque([self._decide_alone])
        if self.groups:  # else nothing is doubted, see _emit
            decisions.appendleft(self._decide_unknown)
            decisions += [self._doubt_couples, self._doubt_unknown_alone, self._doubt_pronouns]
            decisions += [self._doubt_small] if gendered and self.text.islower() else []
            decisions += [self._doubt_left, self._doubt_married, self._doubt_things]
            decisions += [self._doubt_unresolved] if gendered else []
            decisions += [self._doubt_same]
        while not (enough and self._shows(self.out.values())) and decisions:
            decisions.popleft()()
        return sorted(self.out.values())

    def _narrow(self, stop: int) -> None:
        """Forget what decides nothing before `stop`: names far behind it that share no word with what comes before."""
        first = self._first_mark
        # before the first mark every name matters, see _doubt_pronouns
        self.stop = max(stop, first[0] if first else 0) + 2 * LONGEST
        text, stop = self.text[: self.stop], self.stop
        self.full = [one for one in self.full if one.start < stop or any(w in text for w in one.name.split(" "))]
        self.unknown = [one for one in self.unknown if one.start < stop]
        self.alone = [(word, start) for word, start in self.alone if start < stop or word in text]

    def _gathered(self) -> Iterator[re.Match[str]]:
        """Each run of capitals, just before it is looked at."""
        names, known, unclear, odd = self.names, self.names.alone, self.names.unclear, self.names.odd
        things = names.bodies
        labels, plain, inside, entries = names.labels, names.plain, names.inside, names.entries
        add, new = self.words.add, tuple.__new__  # twice as fast as Full(…)
        for match in _RUN.finditer(self.text):
            yield match
            run = match[0]
            if run.isalpha():
                add(run)
                if run in known or (not run.isascii() and names.entry(run)):
                    self.alone.append((run, match.start()))
                continue
            words = run.split(" ")
            first, last = words[0], words[-1]
            if len(words) == 2 and first in plain and last.isalpha():
                if first in labels:  # "In Paris", "The King"; not "New York"
                    add(last)
                    if last in known:
                        self.alone.append((last, match.end() - len(last)))
                continue
            start, end = match.span()
            if last in things and first not in known and not self._follows(_BORN, end):  # "Tyrrhenian Sea"
                self.things.update(words)
                continue
            if (
                first in unclear
                or last in odd
                or last.isupper()
                or first.isupper()
                or not (first.isalpha() and last.isalpha())
            ):
                self._gather(run, start)
            elif entry := entries.get(first) or (None if first.isascii() else names.entry(first)):
                if len(words) > 2:
                    self._gather(run, start)
                    continue
                self.surnames.add(last)  # "Ann Lee"
                if not self._follows(_COMPANY, end):
                    self.full.append(new(Full, ([(first, start)], run, last, start, end, entry[0], False)))
            elif len(words) > 2 and not inside.isdisjoint(words):
                self._gather(run, start)
            else:
                self.surnames.add(last)
                self.unknown.append(new(Full, ([], "", last, start, end, None, False)))
                if len(words) > 2 and not entries.keys().isdisjoint(words):
                    self._find_inside(_tokens(run, start), end)

    def _gather(self, run: str, at: int) -> None:
        """Take a run of several words apart: what introduces it, given names, surname; or a thing."""
        names, context = self.names, self.context
        tokens = _tokens(run, at)
        if tokens and tokens[0][0] in _PLACE_FIRST and len(tokens) > 2:  # "Camp Colonel John Day"
            self.things.update(word for word, _ in tokens)
            return
        words = [word for word, _ in tokens]
        if leading := self._num_leading(words):
            tokens, words = tokens[leading:], words[leading:]
        loud = run.isupper()
        while len(words) > 1 and _is_after_name(words[-1]) and not loud:
            tokens.pop()
            words.pop()
        if (
            len(words) > 2
            and words[1] in names.entries
            and not loud
            and (words[0].isupper() or (words[0] in names.places and self._before(tokens[0][1]) in _OF))
        ):
            tokens, words = tokens[1:], words[1:]  # "MG Carl Day", "Minister of Italy Carl Day"
        if not tokens:
            return
        end = tokens[-1][1] + len(words[-1])
        if len(words) == 1 and "-" not in words[0]:
            word, start = tokens[0]
            self.words.add(word)
            before = self._before(start)
            if before in context["before_surname"] and not self._is_before_nickname(end):
                self.surnames.add(word)
            elif word in names.alone or names.entry(word):
                self.alone.append((word, start))
            elif before in context["before_given"]:  # "King Shapur"
                self.unknown.append(Full(tokens, "", "", start, end, None))
            return
        things = context["things"].intersection(words[1:])
        if (
            words[0] in context["before_thing"]
            or (words[0].isupper() and len(words[0]) > 2 and not loud)
            or (len(words[-1]) == 1 and words[0] in names.places)  # Washington D.C.
            or "_".join(words[:2]) in context["fixed"]
            or (
                things
                and not context["perhaps_things"].issuperset(things)
                and not self._follows(_BORN, end)
                and self._before(tokens[0][1]) not in _TITLE_GROUP  # "Mr. William Mitchell Plant"
            )
            or self._follows(_COMPANY, end)
        ):
            self.things.update(words)
            if words[0] in names.entries and words[0] not in names.places:  # "Abner Doubleday Day"
                self.eponyms.append((tokens[0][1], end))
            else:
                self._find_inside(tokens, end)
            return
        given, last = tokens[:-1], words[-1]
        if len(last) == 1 or (last.isupper() and _REGNAL.fullmatch(last)):
            last = ""
            if len(given) > 1 and given[-1][0] in context["capital_surnames"]:  # "Walter Smith III"
                *given, (last, _) = given
        elif "_".join(words) in context["doubles"] or len(words) == 1:
            given, last = tokens, ""
        while len(given) > 1 and len(given[0][0]) == 1:
            given = given[1:]
        if last:
            self.surnames.add(last)
        first = given[0][0]
        if _has_fathers_name(run):
            self.unknown.append(Full(given, "", last, tokens[0][1], end, None))
            return
        entry = names.entry(first) or ("-" in first and names.entry(first.partition("-")[0]))
        if entry:
            name = " ".join(words)
            initial = run.endswith(("Jr", "Sr")) or (len(last) > 1 and 1 in map(len, words[1:-1]))
            doubtful = not initial and (first in names.doubtful or bool(things))
            self.full.append(Full(given, name, last, tokens[0][1], end, entry[0], doubtful))
            if initial and first not in names.doubtful:  # not "Canon W. R. Birt"
                self.sure.add(name)
        elif len(first) > 1 and (
            first not in context["unisex"]
            or any(word in names.entries and word not in names.weak for word, _ in given[1:])  # "Jessie Jane Lee"
        ):
            self.unknown.append(Full(given, "", last, tokens[0][1], end, None))

    def _find_inside(self, tokens: Tokens, end: int) -> None:
        """A person at the end of a run that begins as a thing: "Minister of Traditional Affairs Ann Lee"."""
        names = self.names
        for number, (word, start) in enumerate(tokens[1:-1], 1):
            if word in names.entries and word not in names.weak:
                rest = tokens[number:]
                if self.context["things"].isdisjoint(word for word, _ in rest):
                    self.unknown.append(Full(rest[:-1], "", rest[-1][0], start, end, None))
                return

    def _num_leading(self, words: list[str]) -> int:
        """How many words of a run stand before the name: "When", "British", "President", "New York Mayor"."""
        names, context, last = self.names, self.context, len(words) - 1
        kinds = [*map(names.leading.get, words[:-1])]
        number = 0
        if any(kinds) and ("surname" in kinds or "given" in kinds):
            return max(number for number, kind in enumerate(kinds, 1) if kind in ("surname", "given"))
        while number < last and kinds[number]:
            if words[number] in names.entries and words[number + 1] not in names.entries:  # "Will Smith"
                return number
            number += 1
        if number == 0 < last and (
            (words[0] in context["no_person"] and not (words[0] in names.entries and words[1] in names.entries))
            or words[0].lower() in context["before_person"]
        ):
            return next((n for n in range(1, last) if words[n] in names.entries and words[n] not in names.weak), 0)
        return number

    def _decide_full(self) -> None:
        """A full name is a person's for the whole text if it is so in one place."""
        kept: list[tuple[Full, str]] = []
        for full in self.full:
            before = self._before(full.start)
            if self._is_of_thing(full, before):
                self.things.update(full.name.split(" "))
                self.eponyms.append((full.start, full.end))
                continue
            if _TITLE_GROUP.get(before, full.group) != full.group:  # "Mrs. John Smith"
                continue
            if full.start == 0 and self.groups == {1 - (full.group or 0)} and self._is_described(full.end):
                self.things.add(full.given[0][0])  # "Hanna Khayat was born …. He"
                continue
            kept.append((full, before))
            shown = self._shows_person(full, before)
            plain = not full.doubtful and before not in self.context["before_no_person"]
            if not shown and plain and full.given[0][0] not in self.things:
                shown = (
                    before in _PERSON_AFTER
                    or full.last in self.words
                    or self._has_surname(full)
                    or self._has_mark(full.end, full.group)
                )
            if shown:
                self.sure.add(full.name)
        for (one, _), (other, _) in pairwise(kept):  # "Ann Lee, John Day and Mary Fry"
            near = other.start - one.end <= 6 and not (one.doubtful or other.doubtful)
            if near and self.text[one.end : other.start] in _LISTED:
                self.sure.update((one.name, other.name))
        for full, before in kept:
            sure = full.name in self.sure
            if not sure and (full.doubtful or before in self.context["before_no_person"]):
                if (
                    full.doubtful
                    and full.given[0][0] not in self.names.doubtful
                    and self._has_mark(full.end, full.group)
                ):
                    self._emit(Found(full.start, full.end, None, None))  # "Charles Martin Hall … his"
                continue  # "the John Lennon song", "Marine Species"
            if sure:
                self.sure.add(full.given[0][0])
            sure = sure and not self._may_name_thing(full, before) and self._is_whole(full) and not self._is_other(full)
            for number, (word, start) in enumerate(full.given):
                self._emit_parts(word, start, full.group, sure, first=not number)

    def _is_other(self, full: Full) -> bool:
        """ "Chalmers Smith worked at home. She": all words of a role are the other's, and the next means this name."""
        if full.group is None or self.groups != {1 - full.group} or not _DOES.match(self.text, full.end):
            return False
        start, end, _ = next((m for m in self.marks if m[0] >= full.end and m[2] is not None), (0, 0, 0))
        others = (other.start for other in (*self.full, *self.unknown))
        return self.text[start:end] in ("She", "He") and not any(full.end < other < start for other in others)

    def _has_surname(self, full: Full) -> bool:
        """Whether the words alone are those of a person's name."""
        names, first = self.names, full.given[0][0]
        if first in names.unsteady:
            return False
        return full.last in names.plain_surnames or (
            first in names.context["capital_personal"]
            and full.last in names.context["capital_surnames"]
            and full.last not in names.odd
        )

    def _is_of_thing(self, full: Full, before: str) -> bool:
        dotted = _DOTTED.match(self.text, full.end)  # "The John Day Jr. House"
        return (
            before in self.context["before_thing"]
            or (before in _QUOTES and not _QUOTES.isdisjoint(self.text[full.end : full.end + 2]))  # a ship
            or self._follows(_IS_THING, full.end)
            or before in _BODIES
            or before == "&"
            or before[:1].isdigit()  # "the 7th Earl Nelson"
            or (dotted is not None and dotted[1] in self.context["things"])
            or (before == "of" and _OF_THING.search(self.text, max(0, full.start - 20), full.start) is not None)
            or (self.text[full.start - 3 : full.start] in _QUOTE_ENDS and _YEAR.match(self.text, full.end) is not None)
        )

    def _may_name_thing(self, full: Full, before: str) -> bool:
        """Whether a run that begins with a given name may be a place's, a body's, a work's or a month's."""
        context, text, first, last = self.context, self.text, full.given[0][0], full.last
        if first in _MONTHS and before.islower() and before not in _PERSON_AFTER:  # "in early June Moran won"
            return True
        described = self._is_described(full.end)
        common = last in context["capital_words"] or last in context["capital_others"]
        odd = (common or full.doubtful) and last not in context["capital_surnames"]
        if odd and (not described or (common and full.doubtful)):  # "Velvet Buzzsaw", "Early Years"
            return True
        shown = described or last in self.words or self._has_mark(full.end, full.group)
        if first in self.names.unsteady and not shown:  # "Preston North End"
            return True
        if before == "for" and _PLAYS.search(text, max(0, full.start - 60), full.start):  # "a midfielder for Ann Lee"
            return True
        if _BAND.match(text, full.end):
            return True
        near = max(0, full.start - 60)
        likely = before in _COMPANY_BEFORE or text.find("merge", near, full.start) >= 0
        if likely and _CORPORATE.search(text, near, full.start):  # "a merger between Day & Co and Ann Lee"
            return True
        if f"{first}_{last}" in context["bodies"] and not described:  # "defeated Navy and George Mason"
            return True
        region = _REGION.match(text, full.end)  # "Wesley Chapel, Florida"
        return self._is_institution(full.end) or (region is not None and region[1] in context["regions"])

    def _is_institution(self, end: int) -> bool:
        """ "Herbert Morrison technical high school" """
        after = _NEXT_WORDS.match(self.text, end)
        return after is not None and after[1].capitalize() in self.context["institutions"]

    def _is_whole(self, full: Full) -> bool:
        """Whether every part of a full name is understood: those before the surname, and the surname itself."""
        names, (first, *middle) = self.names, [word for word, _ in full.given]
        if self.text.startswith(_PARTICLES_LEFT, full.end):  # "Alessandro Ottaviano de' Medici"
            return False
        for word in middle:
            entry = names.entry(word)
            if entry and entry[0] == full.group and entry[1] is None:
                return False
            if not entry and len(word) > 1 and (len(middle) > 1 or names.may_be_given(word)):
                return False
        beside = (*middle, full.last, self._before(full.start))
        if not self.context["second_given"].isdisjoint(beside):  # "Giovanni Battista", "Christian Jonatan"
            return False
        if middle and first in names.weak and names.entry(middle[0]):
            return names.entries.get(first, (0, None))[1] is not None
        last = full.last and full.last not in names.weak and names.entry(full.last)
        return not last or full.last in self.words or full.last in names.resolved  # "Joel Christopher"

    def _take_names(self) -> None:
        """Where no word shows a role, the names that are replaced do, of no one group."""
        if not self.groups:
            self.groups = {None} if self.out else set()
            self.unknown = self._partners() if self.out else []

    def _partners(self) -> list[Full]:
        """ "Bohumil Váňa and Adrian Haydon": of the unknown names those beside one that is replaced."""
        given = {full.start: full for full in self.full if full.given[0][1] in self.out}
        both = sorted([*given.values(), *self.unknown], key=attrgetter("start"))
        beside = [pair for pair in pairwise(both) if self.text[pair[0].end : pair[1].start] in _PARTNERS]
        beside += [pair for pair in pairwise(both) if self.text.endswith(" known as ", pair[0].end, pair[1].start)]
        return [
            other if one.start in given else one
            for one, other in beside
            if (one.start in given) != (other.start in given)
        ]

    def _decide_unknown(self) -> None:
        """Persons whose name is not in the table."""
        if not self.groups:
            return
        known = {full.end for full in self.full} | {full.start for full in self.full}
        listed: set[int] = set()
        for one, other in pairwise(sorted([*self.full, *self.unknown], key=attrgetter("start"))):
            if other.start - one.end <= 6 and self.text[one.end : other.start] in _LISTED:
                listed.update(full.start for full in (one, other) if one.end in known or other.start in known)
        for full in self.unknown:
            if self._is_unknown(full, listed=full.start in listed):
                self._emit(Found(full.start, full.end, None, None))
        for start, end, group in self.marks:  # "her brother Andrés", "the king Shapur"
            if group is not None and self.text[end + 1 : end + 2].isupper() and self.text[start].islower():
                match = _NEXT_CAPITAL.match(self.text, end)
                word = match[1] if match else ""
                either = word in self.names.either and word in self.context["unisex"]
                named = self.names.entry(word) or either or word in self.names.leading
                if len(word) > 2 and not named and self.text[start:end] not in self.context["pronouns"]:
                    self._emit(Found(end + 1, end + 1 + len(word), None, None))

    def _is_unknown(self, full: Full, *, listed: bool = False) -> bool:
        """Whether a run that begins with no known name is a person's; the more of the text is known, the likelier."""
        name = self.text[full.start : full.end]
        words = _words_of(name)
        if not self.names.may_be_person(words) and not self._is_described(full.end):
            return self._opens_paragraph(full, words)
        if listed:
            return True
        before = self._before(full.start)
        if self._shows_person(full, before) or _has_fathers_name(name):
            return True
        if before in _NO_NAME_AFTER:
            return False
        introduced = before in _PERSON_AFTER or not before.islower()
        if introduced and (full.last in self.words or self._has_mark(full.end, None)):
            return True
        return (
            before not in self.context["before_no_person"]
            and (self.names.may_be_given(words[0]) or words[0] in self.names.either)
            and self._may_be_surname(words[-1])
        )

    def _is_no_person(self, full: Full) -> bool:
        """Of a run that begins with no known name: it is no person's, whatever the rest of the text says."""
        words = _words_of(self.text[full.start : full.end])
        likely = self.names.may_be_person(words) or self._is_described(full.end)
        return not likely and not self._opens_paragraph(full, words)

    def _decide_alone(self) -> None:
        names, context, text = self.names, self.context, self.text
        if not self.alone:
            return
        times = Counter(word for word, _ in self.alone)
        for word, start in self.alone:
            end = start + len(word)
            before = self._before(start)
            if before in _SAINTS and text[end : end + 1] == " " and self._has_mark(end, None):
                self._emit(Found(start, end, None, None))
            if before in context["before_surname"] and self._is_before_nickname(end):  # General Robert "Rosie" Lee
                self._emit(Found(start, end, None, None))
            if self._is_after_strange_title(word, before):
                self._emit(Found(start, end, None, None))
            known = word in self.sure or word in context["fixed"]
            if before in _QUOTES and text[end : end + 1] in _QUOTES and not known:  # a ship, a song
                entry = names.entry(word)  # "Ann “Liz” Lee"
                if entry and text[start - 2 : start - 1] == " " and _SURNAME_AFTER.match(text, end + 1):
                    own = any(f.group == entry[0] and 0 < start - f.end < 9 for f in self.out.values())
                    self._emit(Found(start, end, entry[0], entry[1], own))
                elif _ALIAS.search(text, max(0, start - 40), start):
                    self._emit(Found(start, end, None, None))
                continue
            if self._is_passed(word, start):
                continue
            if word in names.mononyms:
                if self.groups and before not in context["before_no_person"]:
                    self._emit(Found(start, end, None, None))
                continue
            entry = names.entry(word)
            assert entry is not None
            if _TITLE_GROUP.get(before, entry[0]) != entry[0]:  # "Lady Clifford"; "Lady Edward" keeps his name
                couple = text.endswith((" and ", "&amp; ", "& "), 0, start - len(before) - 1)
                if not couple and not self._may_follow_title(word, before):
                    self._emit(Found(start, end, None, None))
                continue
            after_mark = self._is_after_mark(start) or self._is_before_nickname(end)
            related = before in context["before_given"] or after_mark
            if word in self.sure or related:
                if word in names.places and (before in context["before_place"] or before in _OF):
                    continue
                if word in context["surnames"] and word not in self.sure and not after_mark:  # "Lord Nelson"
                    continue
                sure = word not in self.surnames or word in self.sure
            elif word in self.surnames or word in self.things or before in context["before_place"]:
                continue
            elif word in context["capital_closing"]:  # "Malik"
                if self._has_mark(end, None):
                    self._emit(Found(start, end, None, None))
                continue
            elif word in names.weak:
                if word in context["surnames"] and (self._has_mark(end, None) or word in context["capital_given"]):
                    self._emit(Found(start, end, None, None))
                continue
            elif word in context["commons"] and before in _SENTENCE_BEFORE and not _VERB_AFTER.match(text, end):
                continue  # "Mark my words"
            else:
                likely = times[word] > 1 or before in _SUBJECT_AFTER
                sure = likely and word in names.common and self._has_mark(end, entry[0])
            if word not in self.sure and (word in names.doubtful or self.groups == {1 - entry[0]}):
                sure = False  # "Roman"; "she … Gregory"
            sure = sure and not self._is_institution(end)
            self._emit(Found(start, end, entry[0], _written_like(word, entry[1]), sure))

    def _doubt_couples(self) -> None:
        """ "Simon and Ann": if one of two names is replaced and the other is left, it is flagged."""
        for (one, start), (other, other_start) in pairwise(self.alone):
            if other_start - start - len(one) != 5 or self.text[other_start - 5 : other_start] != " and ":
                continue
            if (start in self.out) != (other_start in self.out):
                word, at = (other, other_start) if start in self.out else (one, start)
                self._emit(Found(at, at + len(word), None, None))
        for start in [f.start for f in self.out.values() if f.target is not None]:  # "Bonaventura und Johanna Day"
            if not self.text.endswith(_AND, 0, start):
                continue
            beside = _BESIDE.search(self.text, max(0, start - 40), start)
            if beside and beside.start(1) not in self.out and self.names.may_be_given(beside[1]):
                known = self.names.entry(beside[1]) or beside[1] in self.names.either
                if not (known or beside[1] in self.surnames):
                    self._emit(Found(*beside.span(1), None, None))
        for word, start in self.alone:  # "born to Eugene and Maria Day"
            end = start + len(word)
            if start not in self.out and end + 5 in self.out and self.text[end : end + 5] == " and ":
                self._emit(Found(start, end, None, None))

    def _doubt_unknown_alone(self) -> None:
        """ "Wanessa made her choice": what no full name in the text shows to be a surname may be a given name."""
        names, context, text = self.names, self.context, self.text
        if not self.groups:
            return
        for match in (*filter(None, [_SUBJECT_FIRST.match(text)]), *_SUBJECT_ALONE.finditer(text, 0, self.stop)):
            word, (start, end) = match[1], match.span(1)
            if not self._has_mark(end, None) or self._before(start):  # "Mr. Okafor"
                continue
            named = names.entry(word) or word in names.either or word in self.surnames or word in self.things
            if named or word in context["openers"] or word in context["no_person"] or word in context["things"]:
                continue
            mark, stop, _ = self.marks[bisect_left(self.starts, end)]
            if text[mark:stop].lower() in context["pronouns"] and not any(end < start < mark for start in self.out):
                self._emit(Found(start, end, None, None))

    def _doubt_pronouns(self) -> None:
        """The first pronoun belongs to whoever stands before it: if only an unknown name does, that one is flagged."""
        first = self._first_mark
        if first and not any(start < first[0] for start in self.out) and (full := self._whose()):
            self._emit(Found(full.start, full.end, None, None))

    @cached_property
    def _first_mark(self) -> Mark | None:
        """The first word of a role."""
        return next((mark for mark in self.marks if mark[2] is not None), None)

    def _whose(self) -> Full | None:
        """The unknown name that the first word of a role belongs to, if that is a pronoun."""
        first = self._first_mark
        if first is None or self.text[first[0] : first[1]].lower() not in self.context["pronouns"]:
            return None
        begin = self.text.rfind("\n", 0, first[0]) + 1
        for full in reversed(self.unknown):
            if begin <= full.start < first[0] and self.names.may_be_person(self.text[full.start : full.end].split(" ")):
                return full
        return None

    def _opens_paragraph(self, full: Full, words: list[str]) -> bool:
        """ "Franck Decloquement, an expert": what a paragraph is about, unless both words are known as no name."""
        if full.start and self.text[full.start - 1] != "\n":
            return False
        if words[-1] in self.context["things"] or self.names.no_names.issuperset((words[0], words[-1])):
            return False
        return _ABOUT.match(self.text, full.end) is not None and not self._follows(_IS_THING, full.end)

    def _may_be_surname(self, word: str) -> bool:
        context = self.context
        return word in context["capital_surnames"] or not (
            word in context["capital_others"] or word in context["capital_words"]
        )

    def _doubt_small(self) -> None:
        """Given names in a text without capitals: "prince harry" """
        for word in self.names.small.intersection(self.text.split()):
            start = self.text.find(word)
            while _glued(self.text, start, start + len(word)):
                start = self.text.find(word, start + 1)
            self._emit(Found(start, start + len(word), None, None))

    def _doubt_left(self) -> None:
        """Names of the table that stay, where the text may speak of a person."""
        names = self.names
        for full in self.full:
            first, start = full.given[0]
            if start in self.out or self._follows(_IS_THING, full.end):
                continue
            before = self._before(start)
            placed = before in self.context["before_place"] and self._has_surname(full)  # "towards Ann Lee"
            placed = placed or (self.text.startswith(("'s ", "’s "), full.end) and before not in _NO_NAME_AFTER)
            if before in _TITLE_GROUP or not (placed or self._may_stand_for_person(start)):  # "Lady John Smith"
                continue
            if first not in names.weak or first in self.context["capital_given"] or self._has_mark(full.end, None):
                self._emit(Found(start, full.end, None, None))
        for word, start in self.alone:  # "Augusta ran the shop"
            end = start + len(word)
            subject = self._before(start) in _SUBJECT_AFTER and _DID_NEXT.match(self.text, end)
            if start not in self.out and word in names.places and (subject or _OWN.match(self.text, end)):
                self._emit(Found(start, end, None, None))

    def _doubt_things(self) -> None:
        """ "Abner Doubleday Day", where the text is about Doubleday: the name keeps his role."""
        for start, end in self.eponyms:
            if start < self.stop and (self._is_known(self.text[start:end].split(" ")[1:]) or self._honours):
                self._emit(Found(start, end, None, None))

    @cached_property
    def _honours(self) -> bool:
        """ "the Ann Lee Prize … in her memory" """
        return _HONOUR.search(self.text) is not None

    def _doubt_unresolved(self) -> None:
        """ "Alexios marched": a word that may be a given name, for nothing shows it to be something else."""
        names, text, stop = self.names, self.text, self.stop
        for word in self.words - names.resolved - self.surnames - self.things - names.alone - names.either:
            if not names.may_be_given(word) or names.entry(word):
                continue
            start = text.find(word, 0, stop)
            while start >= 0:
                end = start + len(word)
                if not _glued(text, start, end) and self._may_stand_for_person(start):
                    self._emit(Found(start, end, None, None))
                    break
                start = text.find(word, end, stop)
        hyphen = text.find("-", 0, stop)
        while hyphen >= 0:
            if match := self._hyphened(hyphen):
                self._emit(Found(match.start(), match.end(), None, None))
            hyphen = text.find("-", hyphen + 1, stop)

    def _hyphened(self, hyphen: int) -> re.Match[str] | None:
        """ "Kim Jong-un", if that is a hyphen."""
        text, low = self.text, max(0, hyphen - LONGEST)
        if text[hyphen : hyphen + 1] != "-":
            return None
        blank = text.rfind(" ", low, hyphen)
        begin = max(low, text.rfind(" ", low, max(low, blank)) + 1)
        return _HYPHENED.search(text, begin, hyphen + 8) if blank >= 0 else None

    def _doubt_married(self) -> None:
        """ "He married Chandrika": who is married stays."""
        for match in _MARRIED.finditer(self.text, 0, self.stop):
            word, start = match[1], match.start(1)
            if start not in self.out and word not in self.names.leading and word not in self.names.either:
                self._emit(Found(start, match.end(), None, None))

    def _doubt_same(self) -> None:
        """ "The Abraham story", "Squire Rowe": a given name that is replaced in one place and stays in another."""
        text, names = self.text, self.names
        replaced = {text[f.start : f.end] for f in self.out.values() if f.target is not None}
        last = {full.given[0][0]: f" {full.last}" for full in self.full if full.last}
        for name in sorted(replaced):
            start = text.find(name)
            while start >= 0:
                end = start + len(name)
                if start not in self.out and not _glued(text, start, end):
                    before = self._before(start)
                    surname = before[:1].isupper() and before not in names.leading and before not in _NO_NAME_AFTER
                    place = name in names.places and (before in names.context["before_place"] or before in _OF)
                    other = surname or place or (before in names.titles and self._may_follow_title(name, before))
                    if not other or (
                        name in last and text.startswith(last[name], end)
                    ):  # "Secretary-General Kofi Annan"
                        self._emit(Found(start, end, None, None))
                        break
                start = text.find(name, end)

    def _is_after_strange_title(self, word: str, before: str) -> bool:
        """ "Hon. Lily": a title after which a surname should stand."""
        return before in self.names.titles and word in self.names.common and not self._may_follow_title(word, before)

    def _may_follow_title(self, name: str, title: str) -> bool:
        """ "General Nelson", "Port Nelson"; not "Pastor Ted", whose name is no surname."""
        context = self.context
        return title in context["before_thing"] or name in context["surnames"] or name in context["capital_surnames"]

    def _may_stand_for_person(self, start: int) -> bool:
        before = self._before(start)
        if before == "of":  # "Anjou"; "the son of Afonso"
            return self._is_after_mark(start - 3)
        return not (
            before in _NO_NAME_AFTER or before in self.context["before_no_person"] or before in self.names.titles
        )

    def _shows_person(self, full: Full, before: str) -> bool:
        """A title, a relation or an occupation stands before the name, or a description after it."""
        return (
            before in self.names.introduces
            or self._is_after_mark(full.start)
            or self._is_described(full.end)
            or self._is_before_nickname(full.end)
        )

    def _is_after_mark(self, start: int) -> bool:
        """Right after a word of a role: "his wife Mary", "the actress Ann Lee"; not "her Mary"."""
        near = bisect_left(self.starts, start) - 1
        if near < 0:
            return False
        begin, end, group = self.marks[near]
        if group is None or not 0 < start - end <= 2:
            return False
        return self.text[begin:end].lower() not in self.context["pronouns"]

    def _has_mark(self, end: int, group: int | None) -> bool:
        """Whether the next word of a role, in the same paragraph, is of this group (None: any)."""
        near = bisect_left(self.starts, end)
        while near < len(self.marks) and self.marks[near][2] is None:
            near += 1
        if near == len(self.marks) or self.starts[near] - end > NEAR:
            return False
        return group in (None, self.marks[near][2]) and "\n" not in self.text[end : self.starts[near]]

    def _is_before_nickname(self, end: int) -> bool:
        return self.text[end + 1 : end + 2] in _QUOTES_OPEN and self._follows(_NICKNAME, end)

    def _is_described(self, end: int) -> bool:
        """Whether a description follows a name, as often asked as it takes."""
        found = self.described.get(end)
        if found is None:
            found = self.described[end] = self._follows(_DESCRIBED, end)
        return found

    def _follows(self, pattern: re.Pattern[str], end: int) -> bool:
        return self.text[end : end + 1] in _BEGIN and pattern.match(self.text, end) is not None

    def _before(self, start: int) -> str:
        """The word or sign right before; "" at the start of a sentence."""
        text = self.text
        if text[start - 1 : start] not in _SPACES:
            return text[start - 1 : start].strip()
        word = text[start - 20 if start > 20 else 0 : start - 1].rpartition(" ")[2]
        if word.isalpha():
            return word
        word = word[word.rfind("\n") + 1 :].lstrip("(\"“‘['")
        if word.endswith((".", ",")) and word[:-1].isalpha() and (word[-1] == "," or word[:-1] in _SHORTENED):
            return word[:-1]
        if word in ("&", "&amp;"):
            return "&"
        return word if word[-1:].isalnum() else ""

    def _emit_parts(self, word: str, start: int, group: int | None, sure: bool, *, first: bool) -> None:
        """A given name, or each part of a hyphenated one; after the first only what is surely a name of its group."""
        if "-" not in word:
            entry = self.names.entry(word)
            if entry and entry[0] == group:
                self._emit(Found(start, start + len(word), group, _written_like(word, entry[1]), sure))
            elif first and self.groups:
                self._emit(Found(start, start + len(word), None, None))
            return
        entries = [(part, self.names.entry(part[0])) for part in _PART.finditer(word)]
        unlike = any(entry is None or entry[0] != group for _, entry in entries)
        if unlike or any(part[0] in self.names.weak for part, _ in entries[1:]):  # "Jean-Paul", "Martin-Wells"
            if first and self.groups:
                self._emit(Found(start, start + len(word), None, None))
            return
        for part, entry in entries:
            assert entry is not None
            span = start + part.start(), start + part.end()
            self._emit(Found(*span, group, _written_like(part[0], entry[1]), sure))

    def _emit(self, found: Found) -> None:
        """Keep what no mark and no earlier find stands in."""
        near = bisect_left(self.starts, found.start)
        inside_previous = near > 0 and self.marks[near - 1][1] > found.start
        if inside_previous or (near < len(self.starts) and self.starts[near] < found.end):
            if found.target is None and " " in self.text[found.start : found.end]:
                self._emit(found._replace(end=self.text.index(" ", found.start)))
            return
        if found.target is not None or self.groups:
            self.out.setdefault(found.start, found)


def _tokens(run: str, at: int) -> Tokens:
    """The words of a run that begins at `at`, without small particles; none of a very long run."""
    if len(run) >= 150:
        return []
    if run.replace(" ", "").isalpha():  # as the expression does, faster
        tokens = []
        for word in run.split(" "):
            if word[0].isupper():
                tokens.append((word, at))
            at += len(word) + 1
        return tokens
    return [(match[0], at + match.start()) for match in _WORD.finditer(run)]


def _words_of(name: str) -> list[str]:
    """Those of a full name; not the number of "Afonso III"."""
    words = name.split(" ")
    return words[:-1] if words[-1].isupper() and len(words) > 1 and _REGNAL.fullmatch(words[-1]) else words


def _is_after_name(word: str) -> bool:
    likely = word.isupper() or word.startswith("FR")  # FRHistS
    return word in ("Jr", "Sr") or (likely and _AFTER_NAME.fullmatch(word) is not None)


def _has_fathers_name(name: str) -> bool:
    """bin Talal, Abu Bakr, Petrovich."""
    likely = "vich" in name or "vna" in name or "bin" in name or "ibn" in name or "Abu " in name
    return likely and _FATHERS_NAME.search(name) is not None


def _glued(text: str, start: int, end: int) -> bool:
    """Whether text[start:end] is only part of a word."""
    before, after = text[start - 1 : start] if start else "", text[end : end + 1]
    return before.isalnum() or after.isalnum() or before in ("-", "_") or after in ("-", "_")


def _written_like(word: str, target: str | None) -> str | None:
    return target.upper() if target and word.isupper() and len(word) > 1 else target


_CAPITAL = "A-Z" + "".join(c for c in map(chr, range(0xC0, 0x250)) if c.isupper())
_P = "+" if sys.version_info >= (3, 11) else ""  # possessive: matches the same, faster
_TAIL = rf"\w*{_P}(?:['’](?!s\b)\w+|-[{_CAPITAL}]\w*)*{_P}"
_TOKEN = rf"(?:(?:al|el|ad|as|ash|an|ar)-)?[{_CAPITAL}]{_TAIL}"
_SMALL = "de del della di da dos du des van von der den ter la le bin ibn bint al el zu y af av"
_PARTICLE_WORDS = frozenset(_SMALL.split())
_PARTICLES = rf"(?:(?:{_SMALL.replace(' ', '|')})[ \xa0]){{0,2}}"
# how frequent openers go on: He, In, …
_SHORT = r"(?<=H)e|h?is|n|s|(?<=[AI])t|f|ts|er|nd|fter|rom|or|ut|hey|ith|hile|(?<=[TW])hen|"
_NO_RUN = re.compile(rf"[{_CAPITAL}](?:{_SHORT}|he) ")
_RUN = re.compile(
    rf"[{_CAPITAL}](?<![\w-].)(?!(?:{_SHORT}|he) ){_TAIL}"
    rf"(?:(?: |(?<!\w\w)\.[ \xa0]?|\xa0)(?:[{_CAPITAL}]{_TAIL}|(?=[abdelitvyz]){_PARTICLES}{_TOKEN}))*{_P}",
    re.DOTALL,
)
_GOES_ON_PLAINLY = re.compile(rf"[ \xa0][{_CAPITAL}](?!r\b)[a-zà-ÿ]")  # not "Jr"
_GOES_ON = re.compile(rf"['’](?!s\b)\w|-|[ \xa0](?:[{_CAPITAL}]|(?=[abdelitvyz]){_PARTICLES}{_TOKEN})")
_CAPITALISED = re.compile(rf"(?<!\w)[{_CAPITAL}]\w*(['’](?!s\b)\w)?")
_WORD = re.compile(rf"(?<!\w){_TOKEN}")
_PART = re.compile(r"[^-]+")
_REGNAL = re.compile(r"I{1,3}|IV|VI{0,3}|IX|XI{0,3}|XIV|XVI{0,3}|XIX|X|V")
_AFTER_NAME = re.compile(r"(?!(?:[IVX]+|A?FC|[CRSHBA]C|[SF]K|GAA|LL[CP]|CF)$)[A-Z]{2,5}|FR[A-Z][a-z]+[A-Z]?")
_COMPANY = re.compile(
    r",? (?:Inc|Ltd|LLC|Corp|Co|PLC|plc|GmbH|S\.A)\b|,? (?:&|&amp;) (?![A-Z]\w+ [A-Z])"
    r"| and (?:Associates|Partners|Sons|Company)\b|['’]s (?:School|College|Church)\b"
)
_THING_AFTER = re.compile(
    r"-\w| &|&| \d| et al\b|,? \(?(?:19|20)\d\d[a-z]?\)"
    r"|['’]s (?:School|College|Church|Hospital|Day|Restaurant|Cathedral|Island)\b"
)
_REGION = re.compile(r", (\w+)")
_NEXT_CAPITAL = re.compile(rf" ([{_CAPITAL}]\w+)")
_QUOTES_OPEN = frozenset('"“(')
_NICKNAME = re.compile(rf" [\"“(][{_CAPITAL}]\w+[\"”)] [{_CAPITAL}]")
_SURNAME_AFTER = re.compile(rf" [{_CAPITAL}](?:\w|\. [{_CAPITAL}])")
_FATHERS_NAME = re.compile(r" (?:bin|ibn|bint) |\w(?:[oe]vich|[oe]vna|ievich)\b|\bAbu ")
_NO_NAME_AFTER = frozenset(("the", "The", "a", "A", "an", "An", "&", "v", "v.", "vs"))
_SENTENCE_BEFORE = frozenset(("", '"', "“", "‘", ":", "("))
_VERB_AFTER = re.compile(r"['’]s\b| (?:\w+ed|is|was|has|had|says|said|went|came|took|did|does|and(?= [A-Z]))\b|,")
_NO_PERSONS = (
    "band group duo trio label company ship gallery galleries brand vessel schooner firm rabbit dog cat pony parrot "
    "lion elephant tiger gorilla chimpanzee dolphin orca"
)
_BODIES = frozenset(_NO_PERSONS.split())
_JOINING = "and but that when then because if as so while where who"
_SUBJECT_AFTER = _SENTENCE_BEFORE | frozenset(_JOINING.split())
_VERB = r"['’]s | (?:\w+ed|is|was|has|had|made|began|won|said|says) "
_SUBJECT = rf"([{_CAPITAL}][a-zà-ÿ]{{2,}}{_P})(?<![^s]s)(?={_VERB})"
_SUBJECT_FIRST, _SUBJECT_ALONE = re.compile(_SUBJECT), re.compile(r"[.!?\n] " + _SUBJECT)
_DID = "ran|came|went|took|left|wrote|became|got|gave|told|said|says|made|began|won|saw|knew"
_DID_NEXT = re.compile(rf" (?:\w+ed|{_DID})\b")
_DOTTED = re.compile(rf"(?: [JS]r)?\. ([{_CAPITAL}]\w+)")
_QUOTE_ENDS = frozenset(('", ', "”, "))  # "… Words", Peter Lang, 2005
_YEAR = re.compile(r", (?:19|20)\d\d\b")
_SHORTENINGS = "Mr Mrs Ms Messrs Dr Prof Rev Hon Gov Sen Rep Gen Maj Col Capt Cmdr Lt Sgt Cpl Adm St Ste Ft Mt"
_SHORTENED = frozenset(_SHORTENINGS.split())
_OWN = re.compile(  # "Florence's mother"
    r"['’]s (?:own )?(?:home|death|life|body|room|husband|wife|mother|father|brother|sister|son|daughter|marriage)\b"
)
_ALIAS = re.compile(r"\b(?:alias|pseudonym|nickname|called|named?|known as|as) [\"'“‘]$")
_OF_THING = re.compile(r"\b(?:Order|Bank|Port|World|Treaty|Castle|Museum) of $")
_DOES = re.compile(r" (?:\w+ed|is|was|has|had)\b| \(born\b")
_SAINTS = frozenset(("St", "Saint", "Sankt", "San", "Santa"))
_HYPHENED = re.compile(r"(?<![\w-])[A-Z][a-z]+ [A-Z][a-z]+-[a-z]{2,6}(?![\w-])")
_ABOUT = re.compile(r", an? | \(| (?:is|was) an? ")
_KIND = "state national technical academic county memorial high public regional elementary middle grammar"
_KINDS = "|".join(f"{word}|{word.capitalize()}" for word in _KIND.split())
_NEXT_WORDS = re.compile(rf"(?:['’]s)? (?:(?:{_KINDS}) )*(\w+)")
_PARTICLES_LEFT = (" de'", " de’", " d'", " d’", " di ", " da ", " dei ")
_THING = (
    "film album song single band chain company brand restaurant series novel book game documentary musical opera "
    "statue sculpture painting ship boat racehorse thoroughbred hotel school village town city community suburb river "
    "organization organisation club magazine newspaper EP mixtape sitcom show podcast building house"
)
_IS_THING = re.compile(  # not "is a film actor"
    rf" (?:is|was|are|were) (?:an?|the) (?:[\w'’&;-]+ ){{0,6}}?(?:{_THING.replace(' ', '|')})"
    r"(?=[.,;]| (?:by|directed|from|in|that|which|of|on|based|written|produced|located|founded)\b)"
)
_PLACE_FIRST = frozenset(("Camp", "Fort", "Mount", "Lake", "Port", "Hotel", "Hurricane", "Operation"))
_BESIDE = re.compile(rf"(?<![{_CAPITAL}]\w )(?<!\w)(?<!\w )([{_CAPITAL}]\w+) (?:and|und|et) $")
_AND = (" and ", " und ", " et ")
_MARRIED = re.compile(rf"arr(?<=\b[Mm]arr)(?:ied|ies|ying) ([{_CAPITAL}]\w+)")  # plain letters first: faster
_MONTHS = frozenset(("April", "May", "June", "August"))
_PARTNERS = frozenset((" and ", " with ", " / ", "/"))
_JOINED = (", ", " and ", " or ", " / ", "/")  # how those begin and end
_LISTED = frozenset((", ", " and ", ", and ", " or ", " / ", "/"))
_AGENT = (
    "by with to against beat beating defeated defeating married marrying featuring starring including than like said"
)
_PERSON_AFTER = frozenset(_AGENT.split())
_OF = frozenset(("of", "from", "to", "From", "To"))
_BEGIN_BORN = (
    r"(?:,? (?:Jr|Sr|[A-Z]{2,5})\b\.?){0,4},?(?: \([^()\n]{0,40}\))?(?:,? born\b"
    r"| \([^()\n]{0,80}?(?:\bborn\b|\bb\. |\bnée\b|\bdied\b|\bd\. "
    r"|\d{3,4}\)?(?: BC)?\s?[–—-]\s?(?:[^()\n]{0,20}\d{3,4}|present|\?)))"
)
_BORN = re.compile(_BEGIN_BORN)
_DESCRIBED = re.compile(
    _BEGIN_BORN + r"|,? (?:who|whose|himself|herself|was born|also known as|better known as)\b"
    r"|,? (?:is|was|became) (?:an?|the|one of the) (?:[\w'’-]+,? ){0,6}?(?:\w+(?:ist|ian|woman|man|player|maker|er|or)"
    r"|coach|model|poet|judge|pilot|priest|nun|chef|saint|king|queen|student|athlete)\b"
)
_PLAYS = re.compile(
    r"\b(?:play\w*|appear\w*|sign\w*|debut|midfielder|forward|defender|goalkeeper|striker|winger|back|scored|caps?|matches|"
    r"loan\w*|coach|manager|seasons?)\b[^.]* for $"
)
_BAND = re.compile(rf" and (?:[Tt]he|[Hh]is|[Hh]er) [{_CAPITAL}]\w+s\b")  # "Gary Lewis and the Playboys"
_CORPORATE = re.compile(
    r"\b(?:(?:acquired|manufactured|distributed|operated|sponsored|marketed) by (?:the )?|shares (?:of|in) |"
    r"merge[rd] (?:between|with|of) [^.]{0,45}|(?:subsidiary|division|imprint|brand) of )$"
)
_COMPANY_BEFORE = frozenset(("by", "the", "of", "in"))  # one of these before a name or "merge", where it matches
_HONOUR = re.compile(  # in her memory, after him; what is rare and plain first
    r" h(?:(?<=\bin h)|(?<=\bafter h)|(?<=\bfor h)|(?<=\bto h)|(?<=\bby h))(?:er|im|is)(?: (?:memory|hono|name)|[.,])"
)
_BEGIN = frozenset((" ", ",", "'", "’"))  # what the patterns for what follows begin with
_SPACES = frozenset((" ", "\xa0"))
_TITLE_GROUP = {"Mrs": 0, "Lady": 0, "Dame": 0, "Mr": 1, "Lord": 1, "Sir": 1}
_GLUE = frozenset("-'’_.&")
_QUOTES = frozenset("\"'“”‘’")
