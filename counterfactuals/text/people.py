"""Rule: given names. Which capitals are a person's name, what becomes of each, and which names leave a doubt.

Whether a run of capitals is a person's name is told by what is beside it: by a sign that decides alone (a title, a
relation, "born"), else by how usual the name is and the score of a model over the words around it (people.json, learnt
from plain text by learn/people.py). What a name is in one place it is in the whole document: its places pool their
evidence. The models see no gender of names or pronouns, so what is found in a text is found in its reversal.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from math import log
from zlib import crc32

from counterfactuals.text.conditions import LISTS
from counterfactuals.text.document import Document, Mention
from counterfactuals.text.names import USUAL, Entry
from counterfactuals.text.runs import CLOSE, QUOTES, Run, Scene, pooled, runs

SHOWN = 6.0  # log odds of a name where a sign decides
# Log odds added for a name that is hardly a surname, a place or a word elsewhere, by how usual it is; for other words.
ALONE, FULL, UNKNOWN = (2.0, 1.75, 1.0, -1.0), (1.0, 1.0, 0.5, -0.5), 2.0
SURE, UNSURE = 1.5, 0.3  # a replaced name of lower log odds is doubted: one that is often something else; any other
# After these titles stands a surname; so usual (see names.USUAL) a name has to be to be a given name there.
COURTESY = {"miss": 3, "lady": 3, "mrs": 2, "ms": 1, "mr": 0, "lord": 0}
PRONOUNS = LISTS["PRONOUNS"]
BESIDE = 12  # tokens after what is perhaps a name in which a word of a role leaves a doubt
LONELY = 1.5  # log odds that a name loses that stands alone, far from every role, where nothing shows a person
ADOPTED = 3.0  # a name without a partner gets one where it is a person's by these log odds, and a pronoun follows


def find(document: Document) -> None:
    """Add a mention for each given name that is replaced, and for each person's name that stays though a role turns."""
    if document.lexicon.names is not None:
        scene = Scene(document)
        cast = Cast(scene)
        document.add(cast.replaced())
        document.add(_small(scene))
        document.add(cast.left())


def doubt(document: Document) -> None:
    """Once all rules have run: a name that stays is no doubt where no role turns; a title and its name go together."""
    turning = {document.passage_of(m.start) for m in document.mentions if m.target is not None and m.group is not None}
    for mention in document.mentions:
        if mention.target is None and mention.rule == "name" and document.passage_of(mention.start) not in turning:
            mention.reasons.clear()
        elif mention.target is not None and not _fits_title(document, mention):
            mention.doubt("name:title")


def _fits_title(document: Document, mention: Mention) -> bool:
    """A name that turns stands after no title that stays, a title that turns before no given name that stays."""
    names, word = document.lexicon.names, document.word
    if mention.target is None or names is None or word(mention.first)[0].islower():
        return True
    if mention.rule == "name":
        at = mention.first - 1 - (word(mention.first - 1) == ".")
        before, title = document.mention_at(at), word(at)
        is_role = title[0].isupper() and title in names.titles and title.lower() in document.lexicon.rules
        return not is_role or (before is not None and before.target is not None)
    at = mention.last + (word(mention.last) == ".")
    entry, after = names.entry(word(at)), document.mention_at(at)
    if mention.word not in names.titles or entry is None or entry[0] != mention.group:
        return True
    surname = mention.word in COURTESY and (entry[0] == 1 or word(at + 1)[0].isupper())
    return surname or word(at) in names.weak or (after is not None and after.target is not None)


class Cast:
    """Who in a document is a person: full names first, then the names that stand alone."""

    def __init__(self, scene: Scene) -> None:
        self.scene, self.words, self.names = scene, scene.words, scene.names
        self.runs = runs(scene)
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
        self.adopted: dict[str, Entry] = {}  # first words of full names that the table pairs with none
        self._introduce()
        self._decide_full()
        self._decide_alone()
        self._adopt()

    def entry(self, word: str) -> Entry | None:
        return self.adopted.get(word) or self.names.entry(word)

    def _introduce(self) -> None:
        """ "Miss Mary", "Lady Clara", "Mrs Rachel": a usual given name of the title's group, here never a surname."""
        no_given = {surname for _, surname in self.full} | self.names.context["surnames"]
        for word, those in self.alone.items():
            for run in those:
                title = self.scene.title(run.first) if run.lead else ""
                if title in COURTESY and run.sign != "thing":
                    entry, usual = self.names.entry(word), self.names.usual.get(word, 9) <= COURTESY[title]
                    fits = entry is not None and entry[1] is not None and entry[0] == run.group and usual
                    weak = word in no_given or (word in self.names.weak and title not in ("miss", "lady"))
                    run.sign = "given" if fits and not weak else "surname"
            if any(run.sign == "surname" for run in those):
                for run in those:
                    run.sign = "surname" if run.lead == "surname" else run.sign

    def _decide_full(self) -> None:
        """Score each full name: its places are pooled, but a place that shows a thing stands for itself."""
        for (first, surname), those in self.full.items():
            rest = [run for run in those if run.sign != "thing"]
            if not rest:
                continue
            known = self.names.entry(first) is not None
            score = SHOWN if any(run.sign for run in rest) else pooled(self.scene, rest, "full")[0]
            if known and first not in self.names.weak:
                score += FULL[self.names.usual.get(first, 2)]
            for run in rest:
                run.score = score
            if score > 0:
                self.given.add(first)
                self.surnames[surname] = max(self.surnames.get(surname, 0), SHOWN if known else min(score, SHOWN / 2))

    def _adopt(self) -> None:
        """A partner for the first names that have none, of persons whose group a relation or the next pronoun shows."""
        persons = [run.first for run in self.runs if run.score > 0]
        usual = self.names.pairs[: USUAL[0]]
        for (first, _), those in self.full.items():
            known = self.names.entry(first)
            if (known and known[1]) or first in self.names.settled or len(first) < 3 or first.isupper():
                continue
            shown = [self._group(run, persons) for run in those if run.score > ADOPTED]
            groups = {known[0]} if known and those[0].score > 0 else {group for group in shown if group is not None}
            if len(groups) == 1:
                at = crc32(first.encode()) % len(usual)
                targets = (pair[1 - max(groups)] for pair in usual[at:] + usual)
                self.adopted[first] = max(groups), next((name for name in targets if name not in self.words), None)

    def _group(self, run: Run, persons: list[int]) -> int | None:
        """The group of the person whose full name this is, where it is shown."""
        scene = self.scene
        if scene.is_after_role(run.begin):
            role = scene.document.mention_at(run.begin - 1) or scene.document.mention_at(run.begin - 2)
            return role.group if role else None
        role, joined = scene.after(run.last), "and" in (self.words[run.begin - 1], self.words[run.last])
        if run.group is not None or joined or role is None or role.target is None or role.word not in PRONOUNS:
            return run.group
        return None if bisect_left(persons, role.first) > bisect_left(persons, run.last) else role.group

    def _decide_alone(self) -> None:
        """Score each name that stands alone; the higher the more of the names alone in this text are given names."""
        scores: dict[str, tuple[float, float]] = {}
        longer = self.names.nicknames.keys() & (self.given | self.alone.keys())
        short_forms = {short for name in longer for short in self.names.nicknames[name]} - self.names.context["commons"]
        num_given = num_surnames = 1
        for word, those in self.alone.items():
            num_surnames += those[0].sign == "surname"
            rest = [run for run in those if run.sign not in ("thing", "surname")]
            known = self.names.entry(word) is not None
            if not rest:
                continue
            if word in self.given or any(run.sign == "given" for run in rest):
                person = given = SHOWN
            elif self.surnames.get(word, 0.0) > (SURE if known else 0):
                person, given = SHOWN, -SHOWN
            else:
                person, given = pooled(self.scene, rest, "alone", "given")
                if known and word not in self.names.weak:
                    more = ALONE[self.names.usual.get(word, 2)] + UNKNOWN * (word in short_forms)  # Emmy beside Emily
                    more -= 2 * (word.isupper() and len(word) > 1)
                    person, given = person + more, given + more
                elif not known and word not in self.names.either:
                    given += UNKNOWN
                if not any(self.scene.near[run.first] for run in those):
                    person -= LONELY
            scores[word] = person, given
            if known and person > 0:
                num_given, num_surnames = num_given + (given > 0), num_surnames + (given <= 0)
        style = log(num_given / num_surnames)
        for word, (person, given) in scores.items():
            strange = word in self.names.strange
            score = min(person, given + min(style, 1)) - 1 if strange else min(person, given + style)
            for run in self.alone[word]:
                run.score = score if run.sign not in ("thing", "surname") else 0.0

    def replaced(self) -> Iterator[Mention]:
        """The given names that turn."""
        persons = [run for run in self.runs if run.score > 0 and self.entry(self.words[run.given[0]])]
        family = self._family({self.words[run.given[0]] for run in persons})
        for run in persons:
            first = self.words[run.given[0]]
            group, partner = self.entry(first) or (None, None)
            if partner is None or run.group not in (None, group):
                continue
            for token in run.given:
                word = self.words[token]
                other_group, target = (
                    (group, partner) if token == run.given[0] else self.names.entry(word) or (None, None)
                )
                surname = bool(run.surname) and token != run.given[0] and word in self.names.weak
                if target is None or other_group != group or surname:  # "William Jackson Hooker"
                    continue
                target = family.get(word) or target
                target = target.upper() if word.isupper() and len(word) > 1 else target
                mention = _mention(self.scene, token, token + 1, group, target)
                if not run.surname and word in self.names.context["mononyms"]:
                    mention.doubt("name:famous")  # "Antony and Cleopatra"
                elif first in self.adopted:
                    mention.doubt("name:adopted")
                elif not (run.surname or run.sign or first in self.given) and self.names.usual.get(first, 2) > 1:
                    mention.doubt("name:rare_alone")
                if word in family and family[word] is None:
                    mention.doubt("name:nickname")
                if run.score < (SURE if first in self.names.weak else UNSURE):
                    mention.doubt("name:weak")
                yield mention
        inside = {token for run in self.runs for token in range(run.first, run.last)} if self.adopted else ()
        for token in [n for n, word in enumerate(self.words) if word in self.adopted and n not in inside]:
            if self.words[token - 1] not in self.names.context["before_places"]:
                yield _mention(self.scene, token, token + 1, *self.adopted[self.words[token]])

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

    def left(self) -> Iterator[Mention]:
        """The names of persons that stay: near a word of a role that turns, or where the same name turns elsewhere."""
        scene = self.scene
        turning = {scene.document.passage_of(m.start) for m in scene.roles if m.target is not None}
        turned: defaultdict[int, set[tuple[str, str]]] = defaultdict(set)
        stay, joints = [], set()
        for run in self.runs:
            passage = scene.passage(run.first)
            if run.score > 0 and scene.document.mention_at(run.given[0]):
                turned[passage].add((self.words[run.given[0]], run.surname))
                joints |= {token for token in (run.begin - 1, run.last) if self.words[token] == "and"}
            else:
                stay.append((run, passage))
        persons = [run.first for run in self.runs if run.score > 0]
        for run, passage in stay:
            group, _ = self.names.entry(self.words[run.given[0]]) or (None, None)
            reason = self._reason(run, turned[passage])
            if passage not in turning and reason != "name:namesake":
                continue  # no role turns there, so a name may stay, but not the one that turns beside it
            sure = reason in ("name:famous", "name:namesake")
            sure = sure or (bool(run.surname) and not joints.isdisjoint((run.begin - 1, run.last)))  # and another turns
            if reason and (sure or self._is_owner(run, group, persons)):
                mention = _mention(scene, run.first, run.last, group, None)
                mention.doubt(reason)
                yield mention

    def _is_owner(self, run: Run, group: int | None, persons: list[int]) -> bool:
        """The role right before a name or the next one after it, with no other name between, may be this person's."""
        scene, full = self.scene, bool(run.surname) and group is None
        titled = run.group is not None and (run.lead == "given" or bool(run.surname))
        if titled or scene.is_after_role(run.begin):
            return True
        after_comma = self.words[run.begin - 1] == ","
        role = scene.document.mention_at(scene.document.sentence(run.begin)[0] + 1) if after_comma else None
        if role is not None and role.rule == "pronoun" and group in (None, role.group):
            return True  # "In his review, Ann Lee said"
        role = scene.after(run.last)
        if role is None or role.target is None or group not in (None, role.group):
            return False
        if role.first >= run.last + (CLOSE if run.score > 0 else BESIDE) and not full:
            return False
        between = bisect_left(persons, role.first) - bisect_left(persons, run.last)
        return not between and (full or "\n" not in self.words[run.last : role.first])

    def _reason(self, run: Run, turned: set[tuple[str, str]]) -> str:
        """Why a name that stays may leave its passage wrong; "" if it does not."""
        first = self.words[run.given[0]]
        entry, is_person = self.names.entry(first), run.score > 0
        if first in self.names.context["mononyms"]:
            return "name:famous"
        words = {*self.words[run.first : run.last], ""}
        if not is_person and run.last > run.first + 1 and any(words.issuperset(pair) for pair in turned):
            return "name:namesake"
        other_group = entry is not None and run.group not in (None, entry[0])  # Mrs. John Smith
        quoted = bool(entry and run.surname) and self.words[run.begin - 1] in QUOTES and first not in self.names.weak
        stays = entry is None and first in self.names.context["unisex"]
        if stays or other_group or (run.sign in ("thing", "surname") and not quoted):
            return ""
        if entry or first in self.names.either:
            if is_person:
                return "" if entry and entry[1] else "name:no_partner"
            return "name:maybe" if run.score > (-SHOWN if entry else -SHOWN / 2) else ""
        return "name:unknown" if is_person else ""


def _small(scene: Scene) -> Iterator[Mention]:
    """ "we saw tom": given names in a sentence that does not begin with a capital."""
    names, document, words = scene.names, scene.document, scene.words
    for token in [token for token, word in enumerate(words) if word in names.small]:
        begins_loud = words[document.sentence(token)[0]][0].isupper()
        if begins_loud or words[token - 1] in names.context["no_name_after"] or document.glued(token):
            continue
        group, partner = names.entries[names.small[words[token]]]
        mention = _mention(scene, token, token + 1, group, partner and partner.lower())
        mention.doubt("name:small")
        yield mention


def _mention(scene: Scene, first: int, last: int, group: int | None, target: str | None) -> Mention:
    start, end = scene.document.starts[first], scene.document.ends[last - 1]
    return Mention(start, end, first, last, scene.document.text[start:end], group, target, "name")
