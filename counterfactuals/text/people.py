"""Rule: given names. Which capitals are a person's name, what becomes of each, and which names leave a doubt.

Whether a run of capitals is a person's name is told by what is beside it: by a sign that decides alone (a title, a
relation, "born"), else by how usual the name is and the score of a model over the words around it (people.json, learnt
from plain text by learn/people.py). What a name is in one place it is in the whole document: its places pool their
evidence. The models see no difference between a name and its partner, or between she and he, so what is found in a
text is found in its reversal.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import pairwise
from math import log

from counterfactuals.text.document import Document, Mention
from counterfactuals.text.names import Names
from counterfactuals.text.runs import (
    NEAR,
    PRONOUNS,
    Roles,
    Run,
    is_after_role,
    names_of,
    pooled,
    runs,
    title_of,
)

SHOWN = 6.0  # log odds of a name where a sign decides
# Log odds added for a name that is hardly a surname, a place or a word elsewhere, by how usual it is; for other words.
ALONE, FULL, UNKNOWN = (2.0, 1.75, 1.0, -1.0), (1.0, 1.0, 0.5, -0.5), 2.0
SURE, UNSURE = 1.5, 0.3  # a replaced name of lower log odds is doubted: one that is often something else; any other
# After these titles stands a surname; so usual (see names.USUAL) a name has to be to be a given name there.
COURTESY = {"miss": 3, "lady": 3, "mrs": 2, "ms": 1, "mr": 0, "lord": 0}
BESIDE = 12  # tokens after a rare name that stays in which a role leaves a doubt


def find(document: Document) -> None:
    """Add a mention for each given name that is replaced, and for each person's name that stays though a role turns."""
    if document.lexicon.names is not None:
        cast = Cast(document)
        document.add(cast.replaced())
        document.add(cast.small())
        document.add(cast.left())


def doubt(document: Document) -> None:
    """Once all rules have run: a name that stays is no doubt where no role turns; a title and its name go together."""
    turning = {document.passage_of(m.start) for m in document.mentions if m.target is not None and m.group is not None}
    for mention in document.mentions:
        if mention.rule == "name" and mention.target is None:
            if document.passage_of(mention.start) not in turning:
                mention.reasons.clear()
        elif document.lexicon.names is not None and not _fits_title(document, names_of(document), mention):
            mention.doubt("name:title")


def _fits_title(document: Document, names: Names, mention: Mention) -> bool:
    """A name that turns stands after no title that stays, a title that turns before no given name that stays."""
    if mention.target is None or document.words[mention.first][0].islower():
        return True
    if mention.rule == "name":
        title = title_of(document, mention.first)
        at = mention.first - 1 - (document.word(mention.first - 1) == ".")
        before = document.mention_at(at)
        return title not in document.lexicon.rules or (before is not None and before.target is not None)
    at = mention.last + (document.word(mention.last) == ".")
    entry, after = names.entry(document.word(at)), document.mention_at(at)
    if title_of(document, at) != mention.word or entry is None or entry[0] != mention.group:
        return True
    surname = mention.word in COURTESY and (entry[0] == 1 or document.word(at + 1)[0].isupper())
    return surname or document.word(at) in names.weak or (after is not None and after.target is not None)


class Cast:
    """Who in a document is a person: full names first, then the names that stand alone."""

    def __init__(self, document: Document) -> None:
        self.document, self.words, self.names = document, document.words, names_of(document)
        self.roles = Roles(document)
        self.runs = runs(document, self.roles)
        self.full: defaultdict[tuple[str, str], list[Run]] = defaultdict(list)
        self.alone: defaultdict[str, list[Run]] = defaultdict(list)
        for run in self.runs:
            first = self.words[run.given[0]]
            if run.surname or len(run.given) > 1:
                self.full[first, run.surname].append(run)
            else:
                self.alone[first].append(run)
        self.given: set[str] = set()  # first words of full names
        self.surnames: dict[str, float] = {}  # surname → the log odds that it is a person's
        self._introduce()
        self._decide_full()
        self._decide_alone()

    def _introduce(self) -> None:
        """ "Miss Mary", "Lady Clara", "Mrs Rachel": a usual given name of the title's group, here never a surname."""
        for one, other in pairwise(self.runs):  # "the Charles and Lucia Shipley chair"
            if other.sign == "thing" and other.surname and self.words[one.last : other.begin] == ["and"]:
                one.sign = "thing"
        surnames = {surname for _, surname in self.full}
        for word, those in self.alone.items():
            entry = self.names.entry(word)
            for run in those:
                title = title_of(self.document, run.first)
                if title in COURTESY and run.lead and run.sign != "thing":
                    fits = entry is not None and entry[1] is not None and entry[0] == run.group
                    fits = fits and self.names.usual.get(word, 9) <= COURTESY[title] and word not in surnames
                    fits = fits and word not in self.names.context["surnames"]
                    known = title in ("miss", "lady") or word not in self.names.weak
                    run.sign = "given" if fits and known else "surname"
            if any(run.sign == "surname" for run in those):
                for run in those:
                    run.sign = "surname" if run.lead == "surname" else run.sign

    def _decide_full(self) -> None:
        """Score each full name: its places are pooled, but a place that shows a thing stands for itself."""
        titled = {word for word, those in self.alone.items() if any(run.sign == "surname" for run in those)}
        for (first, surname), those in self.full.items():
            rest = [run for run in those if run.sign != "thing"]
            shown = any(run.sign for run in rest) or surname in titled
            known = self.names.entry(first) is not None
            if not rest or not (known or shown or any(self.roles.near(run.begin, run.last, True) for run in rest)):
                continue
            score = SHOWN if shown else pooled(self.document, rest, self.roles, "full")[0]
            if known and first not in self.names.weak:
                score += FULL[self.names.usual.get(first, 2)]
            for run in rest:
                run.score = score
            if score > 0:
                self.given.add(first)
                self.surnames[surname] = max(self.surnames.get(surname, 0), SHOWN if known else min(score, SHOWN / 2))

    def _decide_alone(self) -> None:
        """Score each name that stands alone; the higher the more of the names alone in this text are given names."""
        scores: dict[str, tuple[float, float]] = {}
        for word, those in self.alone.items():
            rest = [run for run in those if run.sign not in ("thing", "surname")]
            entry, signs = self.names.entry(word), Counter(run.sign for run in those)
            if not rest or not (entry or signs["given"] or any(self.roles.after(run.last) for run in rest)):
                continue
            if word in self.given or signs["given"]:
                person = given = SHOWN
            elif self.surnames.get(word, 0.0) > (0 if entry is None else SURE):
                person, given = SHOWN, -SHOWN
            else:
                person, given = pooled(self.document, rest, self.roles, "alone", "given")
                if entry is None:
                    given += UNKNOWN if word not in self.names.either else 0
                elif word not in self.names.weak:
                    loud = word.isupper() and len(word) > 1
                    more = ALONE[self.names.usual.get(word, 2)] - 2 * loud
                    person, given = person + more, given + more
            scores[word] = person, given - SHOWN * signs["surname"] / len(those)
        of_table = [given > 0 for word, (person, given) in scores.items() if person > 0 and self.names.entry(word)]
        num_surnames = sum(those[0].sign == "surname" for those in self.alone.values())
        style = log((of_table.count(True) + 1) / (of_table.count(False) + num_surnames + 1))
        for word, (person, given) in scores.items():
            strange = word in self.names.strange
            score = min(person, given + min(style, 1)) - 1 if strange else min(person, given + style)
            for run in self.alone[word]:
                run.score = score if run.sign not in ("thing", "surname") else 0.0

    def replaced(self) -> Iterator[Mention]:
        """The given names that turn."""
        persons = [run for run in self.runs if run.score > 0 and self.names.entry(self.words[run.given[0]])]
        family = self._family({self.words[run.given[0]] for run in persons})
        for run in persons:
            first = self.words[run.given[0]]
            group, partner = self.names.entry(first) or (None, None)
            if partner is None or run.group not in (None, group):
                continue
            for token in run.given:
                word = self.words[token]
                entry = self.names.entry(word)
                if entry is None or entry[0] != group or entry[1] is None:
                    continue
                if token != run.given[0] and run.surname and word in self.names.uncertain:
                    continue  # "William Jackson Hooker"
                mention = self._mention(token, token + 1, group, written_like(word, family.get(word) or entry[1]))
                if not run.surname and word in self.names.famous:
                    mention.doubt("name:famous")  # "Antony and Cleopatra"
                if word in family and family[word] is None:
                    mention.doubt("name:nickname")
                if run.score < (SURE if first in self.names.weak else UNSURE):
                    mention.doubt("name:weak_full" if run.surname else "name:weak_alone")
                yield mention

    def _family(self, words: set[str]) -> dict[str, str | None]:
        """Short form of a name in the text → the same short form of that name's partner, or None: Steve → Cindy."""
        found: dict[str, str | None] = {}
        short_forms = self.names.nicknames
        for name in words & short_forms.keys():
            entry = self.names.entry(name)
            others = short_forms.get(entry[1] or "", ()) if entry else ()
            for place, short in enumerate(short_forms[name]):
                if short in words:
                    found[short] = others[place] if place < len(others) else None
        return found

    def small(self) -> Iterator[Mention]:
        """ "we saw tom": given names in a sentence that does not begin with a capital."""
        names, document, small = self.names, self.document, self.names.small
        if small.keys().isdisjoint(self.words):
            return
        no_name_after = names.context["no_name_after"]
        for token in [token for token, word in enumerate(self.words) if word in small]:
            begins_loud = self.words[document.sentence(token)[0]][0].isupper()
            if begins_loud or document.word(token - 1) in no_name_after or document.glued(token):
                continue
            if document.word(token + 1) not in ("@", ".", "_") or not document.glued(token + 2):
                group, partner = names.entries[small[self.words[token]]]
                mention = self._mention(token, token + 1, group, partner and partner.lower())
                mention.doubt("name:small")
                yield mention

    def left(self) -> Iterator[Mention]:
        """The names of persons that stay, near a word of a role that turns."""
        turning = {self.document.passage_of(m.start) for m in self.roles.mentions if m.target is not None}
        turned: defaultdict[int, set[tuple[str, str]]] = defaultdict(set)
        for run in self.runs:
            if run.score > 0 and self.document.mention_at(run.given[0]):
                turned[self._passage(run)].add((self.words[run.given[0]], run.surname))
        names = [run.first for run in self.runs if run.score > 0]
        for run in self.runs:
            passage = self._passage(run)
            reason = self._reason(run, turned[passage]) if passage in turning else ""
            if not reason:
                continue
            entry = self.names.entry(self.words[run.given[0]])
            group = entry[0] if entry else None
            sure = reason in ("name:famous", "name:namesake")
            if not sure and not self._is_owner(run, group, names):
                if entry or reason == "name:maybe":
                    continue
                reason = "name:far"
            mention = self._mention(run.first, run.last, group, None)
            mention.doubt(reason)
            yield mention

    def _passage(self, run: Run) -> int:
        return self.document.passage_of(self.document.starts[run.first])

    def _is_owner(self, run: Run, group: int | None, names: list[int]) -> bool:
        """The role right before a name or the next one after it, with no other name between, may be this person's."""
        document, full = self.document, bool(run.surname) and group is None
        titled = run.group is not None and (run.lead == "given" or bool(run.surname))
        if titled or is_after_role(document, run.begin):
            return True
        first, before = bisect_left(names, run.first), self.roles.before(run.begin)
        if before and before.word in PRONOUNS and document.word(run.begin - 1) == ",":  # "In her villas, Le Corbusier"
            same = bisect_left(names, before.first) == first and document.sentence(before.first)[1] > run.begin
            if same and run.surname and run.score > 0:
                return True
        role = self.roles.after(run.last, full)
        if role is None or role.target is None or group not in (None, role.group):
            return False
        far = role.first >= run.last + NEAR
        subject = run.sign == "person" and document.opens(run.begin)
        if role.first < run.last or (full and subject and role.word in PRONOUNS):
            return True
        rare = group is not None and run.score <= 0 and self.words[run.given[0]] in self.names.rare
        if (far and run.score < SHOWN / 2) or (rare and role.first > run.last + BESIDE):
            return False
        between = bisect_left(names, role.first) - bisect_left(names, run.last)
        return not between and (full or "\n" not in self.words[run.last : role.first])

    def _reason(self, run: Run, turned: set[tuple[str, str]]) -> str:
        """Why a name that stays may leave its passage wrong; "" if it does not."""
        first, context = self.words[run.given[0]], self.names.context
        entry = self.names.entry(first)
        if first in self.names.famous:
            return "name:famous"
        if turned and run.score <= 0 and run.last > run.first + 1:
            words = {*self.words[run.first : run.last], ""}
            if any(words.issuperset(pair) for pair in turned):
                return "name:namesake"
        if run.sign in ("thing", "surname") or (entry and run.group not in (None, entry[0])):  # Mrs. John Smith
            return ""
        if entry is not None:
            if run.score > 0:
                return "name:no_partner" if entry[1] is None else ""
            placed = first in self.names.strange and self.document.word(run.begin - 1) in context["before_place"]
            return "name:maybe" if run.score > -SHOWN and not placed else ""
        if first in context["unisex"]:
            return ""
        if first in self.names.either:
            return "name:no_partner" if run.score > 0 else "name:maybe" if run.score > -SHOWN / 2 else ""
        if run.surname or run.score <= 0:
            return "name:unknown_full" if run.score > 0 else ""
        return "name:unknown_alone" if run.score > SURE else "name:unknown_word"

    def _mention(self, first: int, last: int, group: int | None, target: str | None) -> Mention:
        start, end = self.document.starts[first], self.document.ends[last - 1]
        return Mention(start, end, first, last, self.document.text[start:end], group, target, "name")


def written_like(word: str, target: str) -> str:
    return target.upper() if word.isupper() and len(word) > 1 else target
