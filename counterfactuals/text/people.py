"""Rule: given names. Which capitals are a person's name, what becomes of each, and which names leave a doubt.

Whether a run of capitals is a person's name is told by what is beside it: by a sign that decides alone (a title, a
relation, "born"), else by the score of a model over the words around it (people.json, learnt from plain text by
learn/people.py). What a name is in one place it is in the whole document: its places pool their evidence. The models
see no difference between a name and its partner, or between she and he, so what is found in a text is found in its
reversal.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator
from math import log

from counterfactuals.text import loglinear
from counterfactuals.text.document import Document, Mention
from counterfactuals.text.runs import FILE, OWN, Roles, Run, is_after_role, keys, names_of, runs

SHOWN = 6.0  # log odds of a name where a sign decides
# Log odds added for a name that is hardly a surname, a place or a word elsewhere, and for a word that is in no table.
PLAIN = {"alone": 2.0, "full": 1.0, "unknown": 2.0}
SURE, UNSURE = 1.5, 0.3  # a replaced name of lower log odds is doubted: one that is often something else; any other
MOST = 6  # places of a name that the models look at


def find(document: Document) -> None:
    """Add a mention for each given name that is replaced, and for each person's name that stays though a role turns."""
    if document.lexicon.names is not None:
        cast = Cast(document)
        document.add(cast.replaced())
        document.add(cast.small())
        document.add(cast.left())


def doubt(document: Document) -> None:
    """Names that stay are no doubt where, after all, no role turns."""
    turning = {document.passage_of(m.start) for m in document.mentions if m.target is not None and m.group is not None}
    for mention in document.mentions:
        if mention.rule == "name" and mention.target is None and document.passage_of(mention.start) not in turning:
            mention.reasons.clear()


class Cast:
    """Who in a document is a person: full names first, then the names that stand alone."""

    def __init__(self, document: Document) -> None:
        self.document, self.words, self.names = document, document.words, names_of(document)
        self.roles = Roles(document)
        self.full: defaultdict[tuple[str, str], list[Run]] = defaultdict(list)
        self.alone: defaultdict[str, list[Run]] = defaultdict(list)
        for run in runs(document, self.roles):
            first = self.words[run.given[0]]
            if run.surname or len(run.given) > 1:
                self.full[first, run.surname].append(run)
            else:
                self.alone[first].append(run)
        self.given: dict[str, float] = {}  # first words of full names, surnames → the log odds that these are persons'
        self.surnames: dict[str, float] = {}
        self._decide_full()
        self._decide_alone()
        self.runs = [run for those in (*self.full.values(), *self.alone.values()) for run in those]

    def _decide_full(self) -> None:
        """Score each full name: its places are pooled, but a place that shows a thing stands for itself."""
        titled = {word for word, those in self.alone.items() if any(run.sign == "surname" for run in those)}
        for (first, surname), those in self.full.items():
            rest = [run for run in those if run.sign != "thing"]
            shown = any(run.sign for run in rest) or surname in titled
            known = self.names.entry(first) is not None
            if not rest or not (known or shown or any(map(self.roles.after, (run.last for run in rest)))):
                continue
            score = SHOWN if shown else self._pooled(rest, "full")[0]
            if known and first not in self.names.weak:
                score += PLAIN["full"]
            for run in rest:
                run.score = score
            if score > 0:
                self.given[first] = SHOWN
                self.surnames[surname] = max(self.surnames.get(surname, 0), SHOWN if known else min(score, SHOWN / 2))

    def _decide_alone(self) -> None:
        """Score each name that stands alone; the higher the more of the names alone in this text are given names."""
        scores: dict[str, tuple[float, float]] = {}
        for word, those in self.alone.items():
            rest = [run for run in those if run.sign not in ("thing", "surname")]
            entry, signs = self.names.entry(word), Counter(run.sign for run in those)
            if not rest or not (entry or signs["given"] or any(map(self.roles.after, (run.last for run in rest)))):
                continue
            if word in self.given or signs["given"]:
                person = given = SHOWN
            elif self.surnames.get(word, 0.0) > (0 if entry is None else SURE):
                person, given = SHOWN, -SHOWN
            else:
                person, given = self._pooled(rest, "alone", "given")
                if entry is None:
                    given += PLAIN["unknown"] if word not in self.names.either else 0
                elif word not in self.names.weak and not (word.isupper() and len(word) > 1):
                    person, given = person + PLAIN["alone"], given + PLAIN["alone"]
            scores[word] = person, given - SHOWN * signs["surname"] / len(those)
        of_table = [given > 0 for word, (person, given) in scores.items() if person > 0 and self.names.entry(word)]
        num_surnames = sum(those[0].sign == "surname" for those in self.alone.values())
        style = log((of_table.count(True) + 1) / (of_table.count(False) + num_surnames + 1))
        for word, (person, given) in scores.items():
            strange = word in self.names.strange
            score = min(person, given + min(style, 1)) - 1 if strange else min(person, given + style)
            for run in self.alone[word]:
                run.score = score if run.sign not in ("thing", "surname") else 0.0

    def _pooled(self, those: list[Run], *models: str) -> list[float]:
        """By each model the log odds from a name's places: its own words once, what is beside it the more with each."""
        some = those[:: -(-len(those) // MOST)]
        rows = [keys(self.document, run, self.roles) for run in some]
        found = []
        for model in (loglinear.load(FILE)[1][name] for name in models):
            own = beside = 0.0
            for row in rows:
                scores = [table.get(key, 0.0) for table, key in zip(model.tables, row)]
                own += sum(scores[:OWN])
                beside += sum(scores[OWN:])
            found.append(model.bias + own / len(some) + beside / len(some) ** 0.5)
        return found

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
                mention = self._mention(token, token + 1, group, written_like(word, family.get(word) or entry[1]))
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
        names = [m.first for m in self.document.mentions if m.rule == "name"]
        for run in self.runs:
            reason = self._reason(run)
            if not reason or self.document.passage_of(self.document.starts[run.first]) not in turning:
                continue
            entry = self.names.entry(self.words[run.given[0]])
            group = entry[0] if entry else None
            if not self._is_owner(run, group, names):
                if entry or reason == "name:maybe":
                    continue
                reason = "name:far"
            mention = self._mention(run.first, run.last, group, None)
            mention.doubt(reason)
            yield mention

    def _is_owner(self, run: Run, group: int | None, names: list[int]) -> bool:
        """The role right before a name or the next one after it, with no other name between, may be this person's."""
        if is_after_role(self.document, run.begin):
            return True
        role = self.roles.after(run.last)
        if role is None or role.target is None or group not in (None, role.group):
            return False
        between = bisect_left(names, role.first) - bisect_left(names, run.last)
        return not between and "\n" not in self.words[run.last : role.first]

    def _reason(self, run: Run) -> str:
        """Why a name that stays may leave its passage wrong; "" if it does not."""
        first, context = self.words[run.given[0]], self.names.context
        entry = self.names.entry(first)
        if first in context["mononyms_male"] or first in context["mononyms_female"]:
            return "name:famous"
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
