"""Rule: given names. Which capitals are a person's name, what becomes of each, and which names leave a doubt.

`runs` gathers the capitalised words. Whether a run is a person's name is told by what is beside it: by a sign that
decides alone (a title, a relation, "born"), else by the score of a model over the words around it (people.json, learnt
from plain text by learn/people.py). What a name is in one place it is in the whole document: its places pool their
evidence. The models see no difference between a name and its partner, or between she and he, so what is found in a
text is found in its reversal.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from math import log
from pathlib import Path

from counterfactuals.text import loglinear, pronouns
from counterfactuals.text.document import Document, Mention
from counterfactuals.text.names import Names

FILE = Path(__file__).with_name("people.json")
SHOWN = 6.0  # log odds of a name where a sign decides
# Log odds added for a name that is hardly a surname, a place or a word elsewhere, and for a word that is in no table.
PLAIN = {"alone": 2.0, "full": 1.0, "unknown": 1.5}
SURE, UNSURE = 1.5, 0.3  # a replaced name of lower log odds is doubted: one that is often something else; any other
MOST = 6  # places of a name that the models look at
NEAR = 30  # tokens after a name in which a word of a role may be its own
# What the models look at: the name's first and last word, their classes and endings; the words before and after it.
TEMPLATES = (
    "first", "last", "first_class", "last_class", "classes", "first_end", "last_end", "shape", "before", "after",
    "before_class", "after_class", "around", "after_two", "role",
)  # fmt: skip
OWN = 8  # so many of them are of the name itself
_CAPITALS = frozenset(filter(str.isupper, map(chr, range(0x250))))
_APOSTROPHES, _QUOTES = frozenset("'’"), frozenset('"“”')
_SHORT_ENDS = frozenset(("t", "m", "re", "ve", "ll", "d"))
_BORN = frozenset(("born", "née", "nee", "b", "died", "d"))
_ARTICLES = frozenset(("the", "The", "a", "A", "an", "An"))


@dataclass(slots=True, eq=False)
class Run:
    """Capitalised words, tokens `first` to `last` (exclusive); `begin` is where a title before them begins.

    given: the tokens of the given names. surname: the last word; "" if one name stands alone. lead: how a title before
    introduces the name, as "given" (Aunt), "surname" (Mr.) or "thing" (St.), else "". group: the role that it shows.
    sign: what is beside shows a "given" name, a "surname", a full "person" or a "thing", else "". score: the log odds
    that the run begins with a person's given name.
    """

    begin: int
    first: int
    last: int
    given: list[int]
    surname: str
    lead: str = ""
    group: int | None = None
    sign: str = ""
    score: float = 0.0


# ---------------------------------------------------------------- the rules


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


def names_of(document: Document) -> Names:
    names = document.lexicon.names
    assert names is not None
    return names


class Roles:
    """The words of roles in a document, without names."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.mentions = [m for m in document.mentions if m.group is not None and m.rule != "name"]
        self.starts = [m.first for m in self.mentions]

    def after(self, token: int) -> Mention | None:
        """The next one from `token` on, if it is near."""
        at = bisect_left(self.starts, token)
        return self.mentions[at] if at < len(self.starts) and self.starts[at] < token + NEAR else None

    def agreement(self, run: Run) -> str:
        """How far the next one after a name is, and whether it is of its group: "agrees-near", "any-far"."""
        role = self.after(run.last)
        if role is None:
            return "none"
        far = "near" if role.first < run.last + 10 else "far"
        entry = names_of(self.document).entry(self.document.words[run.given[0]])
        return f"{'any' if entry is None else 'agrees' if entry[0] == role.group else 'differs'}-{far}"


# ---------------------------------------------------------------- the runs of capitals


def runs(document: Document, roles: Roles, *, ordinary: bool = False) -> list[Run]:
    """Every run of capitalised words that may be a name; without those of unknown words far from any word of a role.

    ordinary: with unknown words that stand alone here and are written small elsewhere in the text.
    """
    names, words = names_of(document), document.words
    known, goes_on = names.known, names.context["particles"] | set("-'’.")
    small, found, done = set(words), [], 0
    for token in [token for token, word in enumerate(words) if word[0] in _CAPITALS]:
        if token < done:
            continue
        following = document.word(token + 1)
        done = _end(document, names, token) if following[0] in _CAPITALS or following in goes_on else token + 1
        if words[token].isascii() and known.isdisjoint(words[token:done]) and not roles.after(token):
            continue
        alone = done == token + 1
        if alone and not ordinary and words[token] not in known and words[token].lower() in small:
            continue
        shortened = following in _APOSTROPHES and document.word(token + 2).lower() in _SHORT_ENDS  # "Don't"
        glued = document.glued(token) and words[token - 1] in "-'’_@" and document.glued(token - 1)
        if glued or (alone and (shortened or words[token] in names.no_name)):
            continue
        if not alone and document.opens(token) and _is_small(words[token], small) and not _title(names, words[token]):
            token += 1  # "Presently Mary"
        run = _run(document, names, token, done)
        if run is not None:
            run.sign = _sign(document, names.context, run)
            found.append(run)
    return found


def _is_small(word: str, small: set[str]) -> bool:
    """The text writes the word small elsewhere, or it is an adverb."""
    return word.lower() in small or word.endswith("ly")


def _end(document: Document, names: Names, token: int) -> int:
    """The end (exclusive) of the run of capitals from `token` on: "J. K. O'Brien-Smith", "Ludwig van Beethoven"."""
    words, starts, ends, size = document.words, document.starts, document.ends, len(document.words)
    particles, shortened = names.context["particles"], names.context["shortened"]
    while token + 1 < size:
        word, following = words[token + 1], token + 2
        if starts[token + 1] > ends[token]:
            if word[0] in _CAPITALS:
                other = word.isupper() != words[token].isupper() and len(word) > 1 < len(words[token])
                if other and word not in names.context["after_name"]:
                    break  # "IAN Yeah"; not "John Paul II"
                token += 1
                continue
            if word not in particles:
                break
            while following < size and words[following] in particles:
                following += 1
        elif word == ".":
            if words[token] not in shortened and (len(words[token]) > 1 or words[token] == "I"):
                break
        elif not document.glued(following) or (word != "-" and words[token] not in ("O", "D", "L")):
            break
        if following >= size or words[following][0] not in _CAPITALS:
            break
        token = following
    return token + 1


def _run(document: Document, names: Names, begin: int, end: int) -> Run | None:
    """The run without openers and titles; None if nothing is left."""
    words, context = document.words, names.context
    tokens = [token for token in range(begin, end) if words[token][0].isalpha()]
    regnal = words[tokens[-1]] in context["after_name"]
    while len(tokens) > 1 and (words[tokens[-1]] in context["after_name"] or words[tokens[-1]] in names.no_name):
        tokens.pop()
    while len(tokens) > 2 and words[tokens[-1]] not in names.entries and _title(names, words[tokens[-1]]):
        tokens.pop()  # "James McClelland President"
    lead, group, cut = "", None, 0
    for number, token in enumerate(tokens):
        word, mention = words[token], document.mention_at(token)
        kind = _title(names, word if mention is None else mention.word)
        if kind and (number + 1 < len(tokens) or mention is not None):
            lead, group, cut = kind, mention.group if mention else group, number + 1
        elif mention is not None:  # "Women Voters"
            return None
        elif number == cut and word in context["openers"] and number + 1 < len(tokens):
            if word in names.entries and words[tokens[number + 1]] not in names.entries:
                continue  # "Will Smith"; not "When John"
            begin, cut = tokens[number + 1], number + 1
            lead = "thing" if word in _ARTICLES else lead  # "A Christmas Carol"
    tokens = tokens[cut:]
    if len(tokens) > 1 and words[tokens[0]] in context["before_thing"]:
        lead, tokens = lead or "thing", tokens[1:]
    if not tokens:
        return None
    given, surname = _split(words, names, tokens)
    if lead == "given" and regnal:  # "Pope John Paul II"
        given, surname = tokens, ""
    if not surname and len(words[tokens[0]]) == 1 and not lead:
        lead = "surname"  # "J. Smith"
    return Run(begin, tokens[0], tokens[-1] + 1, given, surname, lead, group)


def _title(names: Names, word: str) -> str:
    """By this title: "surname" or "given", what follows it; "" of another word."""
    small, loud, context = word.lower(), word.capitalize(), names.context
    if loud in context["before_given"]:
        return "given"
    if small in context["surname_roles"] or small in context["before_person"] or loud in context["before_surname"]:
        return "surname"  # "Mr. Lee", "Champion Ann Lee"
    return ""


def _split(words: list[str], names: Names, tokens: list[int]) -> tuple[list[int], str]:
    """The tokens of the given names, without initials, and the surname; "" if there is one name alone."""
    particles, surname = names.context["particles"], words[tokens[-1]]
    last = next((n for n, token in enumerate(tokens) if words[token] in particles), len(tokens) - 1)
    given = [token for token in tokens[:last] if len(words[token]) > 1]
    if not given:
        return [tokens[-1]], ""
    if len(surname) == 1:  # "Steven J."
        return given[:1], ""
    if f"{words[given[0]]}_{surname}" in names.doubles:  # "Mary Ann"
        return [*given, tokens[-1]], ""
    if len(tokens) == 2 and words[tokens[1] - 1] == "-":  # "Mary-Jane"; not "Ann-Martin"
        one, other = (names.entry(words[token]) for token in tokens)
        if one and other and one[0] == other[0]:
            return tokens, ""
    return given, surname


# ---------------------------------------------------------------- signs


def _sign(document: Document, context: dict[str, frozenset[str]], run: Run) -> str:
    """What the words right beside a run show it to be."""
    words, full, name = document.words, bool(run.surname), document.words[run.given[0]]
    before, after, second = document.word(run.begin - 1), document.word(run.last), document.word(run.last + 1)
    if name in context["months"]:
        dated = any(word.isdigit() for word in (before, after, document.word(run.begin - 2)))
        if dated or before in context["before_month"]:
            return "thing"
    if run.lead == "thing" or not context["fixed"].isdisjoint(
        (f"{name}_{run.surname}", f"{document.word(run.first - 1)}_{name}", "" if full else name)
    ):
        return "thing"
    if not run.lead and (
        (after == "," and second in context["regions"])  # "Charlotte, North Carolina"
        or (before in context["before_places"] and name in context["places"] and not full)  # "in Virginia"
    ):
        return "thing"
    if full and _is_born(document, run.last):
        return "person"
    own = context["things"].intersection(words[run.first + 1 : run.last])
    owned = after in _APOSTROPHES and second == "s" and document.word(run.last + 2) in context["things"]
    shop = after in _APOSTROPHES and second == "s" and f"{name}'s" in context["fixed"]
    if shop and not document.word(run.last + 2).isalpha():  # "at Wendy's."
        return "thing"
    if (own and run.lead != "surname" and not own <= context["perhaps_things"]) or owned:
        return "thing"
    if after in ("&", "Inc", "Ltd", "LLC", "Corp") or before == "&":
        return "thing"
    year = (
        after in ("(", ",") and second.isdigit() and len(second) == 4 and document.word(run.last + 2) in (")", ":", ",")
    )
    if not full and (year or (after.isdigit() and before == "(")):  # "Russell (1939)", "(Marcus 183)": a reference
        return "surname"
    if run.lead or is_after_role(document, run.begin):
        return "person" if full else run.lead or "given"
    if full and before in context["before_person"]:
        return "person"
    if before in _ARTICLES and run.begin == run.first:
        return "thing"
    if full and (after if after != "," else second) in ("who", "whose"):
        return "person"
    return "thing" if before in _QUOTES and after in _QUOTES and not full else ""


def _is_born(document: Document, token: int) -> bool:
    """ "(born 1911", "(1911–1980)", ", born in": a life begins at `token`, right after the name."""
    first, second = document.word(token), document.word(token + 1)
    if first != "(":
        return first == "," and second == "born"
    years = second.isdigit() and document.word(token + 2) in "–-" and document.word(token + 3).isdigit()
    return second in _BORN or years or "born" in document.words[token : token + 12]


def is_after_role(document: Document, token: int) -> bool:
    """Right after a word of a role in small letters: "his wife Mary", "the actress Ann Lee", "her son, Tom"."""
    at = token - 1
    if document.word(at) == "," and document.word(token + 1) in (",", ".", ";", ")"):
        at -= 1
    mention = document.mention_at(at)
    if mention is None or mention.group is None or mention.rule in ("pronoun", "name"):
        return False
    related = mention.word not in names_of(document).context["no_relation"]
    return related and document.words[at].islower() and not document.glued(token)


# ---------------------------------------------------------------- what the models look at


def keys(document: Document, run: Run, roles: Roles) -> tuple[str, ...]:
    """One key for each of `TEMPLATES`."""
    names, words = names_of(document), document.words
    first = words[run.given[0]]
    one, one_class, one_end = _word_keys(names, first)
    other, other_class, other_end = _word_keys(names, run.surname) if run.surname else ("", "", "")
    marks = [mark for mark in "-." if mark in words[run.first : run.last]]
    shape = f"{len(run.given) + bool(run.surname)}{'C' * first.isupper()}{''.join(marks)}{run.lead[:1]}"
    x, y = document.word(run.last), document.word(run.last + 1)
    if x in _APOSTROPHES and y == "s":
        x, y = "'s", document.word(run.last + 2)
    before, before_class = _neighbour(names, "^" if document.opens(run.begin) else document.word(run.begin - 1))
    after, after_class = _neighbour(names, x)
    two = f"{after_class}_{_neighbour(names, y)[1]}"
    return (
        one, other, one_class, other_class, f"{one_class}_{other_class}", one_end, other_end, shape, before, after,
        before_class, after_class, f"{before_class}_{after_class}", two, roles.agreement(run),
    )  # fmt: skip


@lru_cache(maxsize=1 << 15)
def _word_keys(names: Names, word: str) -> tuple[str, str, str]:
    """A word of a name, its class and its ending; alike for a name and its partner."""
    entry = names.entry(word)
    if entry is not None:
        group, partner = entry
        return (word.capitalize() if group == 0 or partner is None else partner), "name" if partner else "single", ""
    small = word.lower()
    return (word, "either", "") if word in names.either else (small, classes().get(small) or "?", small[-3:])


@lru_cache(maxsize=1 << 15)
def _neighbour(names: Names, word: str) -> tuple[str, str]:
    """The word before or after a name, and its class, without gender."""
    loud = word[0].isupper()
    if loud and (word in names.entries or word in names.either):
        return "NAME", "NAME"
    small, mark = pronouns.normal(word), "+" * loud
    return small + mark, (classes().get(small) or "~" + small[-2:]) + mark


@cache
def classes() -> dict[str, str]:
    """Word → the class of words used alike; of people.json, which takes them from pronouns.json when it has none."""
    return (loglinear.load(FILE)[0] if FILE.exists() else {}) or loglinear.load(pronouns.FILE)[0]
