"""Rule: given names. Which capitals are a person's name, what becomes of each, and which names leave a doubt.

`runs` gathers the capitalised words. A run that stands alone ("Mary") or is a full name ("Mary Smith") is a person's by
what is beside it: signs that decide alone (a title, a relation, "born"), else the score of a model over the words around it
(people.json, learnt from plain text by learn/people.py). What a name is in one place it is in the whole document:
occurrences pool their evidence. The model sees no difference between a name and its partner, or between she and he,
so what is recognised in a text is recognised in its reversal.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import log
from pathlib import Path

from counterfactuals.text import loglinear, pronouns
from counterfactuals.text.document import Document, Mention
from counterfactuals.text.names import Names

FILE = Path(__file__).with_name("people.json")
SHOWN = 6.0  # log odds of a name where a sign decides
SURE = 1.5  # a name that is replaced with lower log odds is doubted
MOST = 6  # places of a name that the model looks at
PLAIN = {"alone": 2.0, "full": 1.0}  # added for a name that is hardly a surname, a place or a word elsewhere
OWN = 8  # so many of TEMPLATES are of the name itself
NEAR = 30  # tokens after a name in which a word of a role may be its own
# What the models look at: the name's first and last word, their classes and endings; the words before and after it.
TEMPLATES = (
    "first", "last", "first_class", "last_class", "classes", "first_end", "last_end", "shape", "before", "after",
    "before_class", "after_class", "around", "after_two", "role",
)  # fmt: skip
_SHORT_ENDS = frozenset(("t", "m", "re", "ve", "ll", "d"))


@dataclass(slots=True, eq=False)
class Run:
    """Capitalised words, tokens `first` to `last` (exclusive); `begin` is where a title before them begins.

    given: the tokens that may be given names: all but the surname. surname: the last word; "" if one stands alone.
    lead: how what stands before introduces the name: "given" (Aunt), "surname" (Mr.), "thing" (St.) or "".
    group: the role that the title shows. sign: what is beside shows that it is a "given" name, a "surname", a full
    "person" or a "thing"; else "".
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
    """Add a mention for each given name that is replaced, and for each person's name that stays, with a reason why."""
    if document.lexicon.names is None:
        return
    cast = Cast(document)
    document.add(cast.replaced())
    document.add(cast.small())
    document.add(cast.left())


def doubt(document: Document) -> None:
    """Take back the names that stay where nothing turns; doubt those less whose role the turning words hardly are."""
    if document.lexicon.names is None:
        return
    roles = Roles(document)
    for mention in [m for m in document.mentions if m.rule == "name" and m.target is None]:
        beside = [m for m in document.in_passage(mention) if m.target is not None and m.group is not None]
        own = _is_owner(document, roles, mention)
        if own:
            continue
        if any(m.rule != "name" for m in beside) and mention.group is None and "name:maybe" not in mention.reasons:
            mention.reasons[:] = ["name:far"]
        else:
            document.remove(mention)


def _is_owner(document: Document, roles: Roles, mention: Mention) -> bool:
    """A word of a role that turns and may be this name's stands right before it or is the next after it."""
    if is_after_role(document, mention.first):
        return True
    role = roles.after(mention.last)
    if role is None or role.target is None or mention.group not in (None, role.group):
        return False
    start, end = mention.end, role.start
    between = [
        m for m in document.mentions[bisect_left(document.mentions, start, key=lambda m: m.start) :] if m.start < end
    ]
    if any(m.rule == "name" and m.group in (None, role.group) for m in between):
        return False
    return "\n" not in document.words[mention.last : role.first]


class Cast:
    """Who in a document is a person: full names first, then the names that stand alone."""

    def __init__(self, document: Document) -> None:
        self.document, self.words, self.roles = document, document.words, Roles(document)
        self.names = names_of(document)
        self.full: defaultdict[tuple[str, str], list[Run]] = defaultdict(list)
        self.alone: defaultdict[str, list[Run]] = defaultdict(list)
        for run in runs(document, self.roles):
            first = self.words[run.given[0]]
            if not run.surname and len(run.given) == 1:
                self.alone[first].append(run)
            else:
                self.full[first, run.surname].append(run)
        self.givens: Counter[str] = Counter()  # log odds that a word alone is a given name, from the full names
        self.surnames: Counter[str] = Counter()  # the same of a surname
        self._decide_full()
        self._decide_alone()

    def _decide_full(self) -> None:
        """Score each full name: its places are pooled, but a place that shows a thing stands for itself."""
        titled = {word for word, those in self.alone.items() if any(run.sign == "surname" for run in those)}
        for (first, surname), those in self.full.items():
            rest = [run for run in those if run.sign != "thing"]
            shown = any(run.sign in ("person", "given") for run in rest) or surname in titled
            known = self.names.entry(first) is not None
            if not rest or not (known or shown or any(self._matters(run) for run in rest)):
                continue
            score = SHOWN if shown else self._pooled(rest, "full")[0]
            if known and first not in self.names.weak:
                score += PLAIN["full"]
            for run in rest:
                run.score = score
            if score > 0:
                self.givens[first] = int(SHOWN)
                self.surnames[surname] = max(self.surnames[surname], int(SHOWN if known else min(score, SHOWN / 2)))

    def _decide_alone(self) -> None:
        """Score each name that stands alone; surnames the lower the more of the names of this text are given names."""
        scores: dict[str, tuple[float, float]] = {}
        for word, those in self.alone.items():
            rest = [run for run in those if run.sign not in ("thing", "surname")]
            entry = self.names.entry(word)
            if not rest or not (entry or any(self._matters(run) for run in rest)):
                continue
            signs = Counter(run.sign for run in those)
            person, given = self._pooled(rest, "alone", "given")
            if entry is not None and word not in self.names.weak and not (word.isupper() and len(word) > 1):
                person, given = person + PLAIN["alone"], given + PLAIN["alone"]
            if self.givens[word] or signs["given"]:
                person, given = max(person, 0) + SHOWN, max(given, 0) + SHOWN
            given -= self.surnames[word] + SHOWN * signs["surname"] / len(those)
            scores[word] = person, given
        of_table = [given > 0 for word, (person, given) in scores.items() if person > 0 and self.names.entry(word)]
        num_surnames = sum(run.sign == "surname" for those in self.alone.values() for run in those[:1])
        style = log((of_table.count(True) + 1) / (of_table.count(False) + num_surnames + 1))
        for word, (person, given) in scores.items():
            for run in self.alone[word]:
                if run.sign not in ("thing", "surname"):
                    run.score = min(person, given + (style if not self.surnames[word] else 0))

    def _pooled(self, those: list[Run], *models: str) -> list[float]:
        """By each model the log odds of a name from its places: its own words once, what is beside it the more the oftener."""
        some = those[:: -(-len(those) // MOST)]
        rows = [keys(self.document, run, self.roles) for run in some]
        found = []
        for model in map(loglinear.load(FILE)[1].__getitem__, models):
            scores = [[table.get(key, 0.0) for table, key in zip(model.tables, row)] for row in rows]
            own, beside = sum(sum(score[:OWN]) for score in scores), sum(sum(score[OWN:]) for score in scores)
            found.append(model.bias + own / len(some) + beside / len(some) ** 0.5)
        return found

    def _matters(self, run: Run) -> bool:
        """A word of a role is near, so an unknown name would be doubted."""
        role = self.roles.after(run.last)
        return role is not None or run.sign in ("given", "person")

    def replaced(self) -> Iterator[Mention]:
        """The given names that turn."""
        for those in (*self.full.values(), *self.alone.values()):
            for run in those:
                first = self.words[run.given[0]]
                entry = self.names.entry(first)
                if entry is None or entry[1] is None or run.score <= 0 or run.group not in (None, entry[0]):
                    continue
                for token in run.given:
                    other = self.names.entry(self.words[token])
                    if other is None or other[0] != entry[0] or other[1] is None:
                        continue
                    mention = self._mention(token, token + 1, other[0], self._target(self.words[token], other[1]))
                    if run.score < SURE and token == run.given[0]:
                        mention.doubt("name:weak_full" if run.surname else "name:weak_alone")
                    yield mention

    def left(self) -> Iterator[Mention]:
        """The names of persons that stay."""
        for those in (*self.full.values(), *self.alone.values()):
            for run in those:
                reason = self._reason(run)
                if reason:
                    entry = self.names.entry(self.words[run.given[0]])
                    mention = self._mention(run.first, run.last, entry and entry[0], None)
                    mention.doubt(reason)
                    yield mention

    def _reason(self, run: Run) -> str:
        """Why a name that stays may leave its passage wrong; "" if it does not."""
        first, context = self.words[run.given[0]], self.names.context
        entry = self.names.entry(first)
        if first in context["mononyms_male"] or first in context["mononyms_female"]:
            return "name:famous"
        if run.group is not None and entry is not None and entry[0] != run.group:
            return ""  # Mrs. John Smith
        if entry is not None and (run.sign != "thing" or run.surname) and run.sign != "surname":
            if run.score > 0:
                return "name:no_partner" if entry[1] is None else ""
            return "name:maybe" if run.score > -SHOWN else ""
        if first in context["unisex"] or run.sign == "thing" or run.score <= 0:
            either = first in self.names.either and first not in context["unisex"] and run.sign == ""
            return "name:maybe" if either and run.score > -SHOWN / 2 else ""
        if first in self.names.either:
            return "name:no_partner"
        return "name:unknown_full" if run.surname else "name:unknown_alone"

    def _mention(self, first: int, last: int, group: int | None, target: str | None) -> Mention:
        document = self.document
        start, end = document.starts[first], document.ends[last - 1]
        return Mention(start, end, first, last, document.text[start:end], group, target, "name")

    def _target(self, word: str, partner: str) -> str:
        if word.islower():
            return partner.lower()
        return partner.upper() if word.isupper() and len(word) > 1 else partner

    def small(self) -> Iterator[Mention]:
        """ "we saw tom": given names in a sentence that does not begin with a capital."""
        small, document = self.names.small, self.document
        if small.keys().isdisjoint(self.words):
            return
        for token in [token for token, word in enumerate(self.words) if word in small]:
            first, _ = document.sentence(token)
            before, after = document.word(token - 1), document.word(token + 1)
            if (
                self.words[first][0].isupper()
                or before in self.names.context["no_name_after"]
                or document.glued(token)
                or after in "@._"
            ):
                continue
            group, partner = self.names.entries[small[self.words[token]]]
            mention = self._mention(token, token + 1, group, partner and partner.lower())
            mention.doubt("name:small")
            yield mention


def names_of(document: Document) -> Names:
    names = document.lexicon.names
    assert names is not None
    return names


# ---------------------------------------------------------------- the runs of capitals


_CAPITALS = frozenset(filter(str.isupper, map(chr, range(0x250))))
_JOINS = frozenset("-'’.")


def runs(document: Document, roles: Roles) -> list[Run]:
    """Every run of capitalised words that may be a name; without those of unknown words far from any word of a role."""
    names, words = names_of(document), document.words
    known, goes_on = names.known, names.context["particles"] | _JOINS
    small, found, done = set(words), [], 0
    for token in [token for token, word in enumerate(words) if word[0] in _CAPITALS]:
        if token < done:
            continue
        following = document.word(token + 1)
        done = _end(document, token) if following[0] in _CAPITALS or following in goes_on else token + 1
        if words[token].isascii() and known.isdisjoint(words[token:done]) and not roles.after(token):
            continue
        if done == token + 1 and (words[token] in names.no_name or _is_shortened(document, done)):
            continue
        if document.glued(token) and words[token - 1] in "-'’_@" and document.glued(token - 1):
            continue
        while done - token > 1 and document.opens(token) and _is_small(words, small, token):
            token += 1  # "Presently Mary"
        run = _run(document, names, token, done)
        if run is not None:
            run.sign = _sign(document, names, run)
            found.append(run)
    return found


def _is_small(words: list[str], small: set[str], token: int) -> bool:
    """A capitalised word that the text writes small elsewhere, or an adverb."""
    word = words[token].lower()
    return word != words[token + 1].lower() and (word in small or word.endswith("ly")) and words[token + 1][0] in _CAPITALS


def _end(document: Document, token: int) -> int:
    """The end (exclusive) of the run of capitals that begins at `token`: "J. K. O'Brien-Smith", "Ludwig van Beethoven"."""
    words, starts, ends, size = document.words, document.starts, document.ends, len(document.words)
    particles, shortened = (names_of(document).context[section] for section in ("particles", "shortened"))
    while token + 1 < size:
        word, following = words[token + 1], token + 2
        if starts[token + 1] > ends[token]:
            if word[0].isupper():
                if word.isupper() != words[token].isupper() and len(word) > 1 < len(words[token]):
                    break  # "IAN Yeah"
                token += 1
                continue
            if word not in particles:
                break
            while following < size and words[following] in particles:
                following += 1
        elif following == size or not (
            (word == "-" and starts[following] == ends[token + 1])
            or (word in "'’" and words[token] in ("O", "D", "L") and starts[following] == ends[token + 1])
            or (word == "." and (words[token] in shortened or (len(words[token]) == 1 and words[token] != "I")))
        ):
            break
        if following == size or not words[following][0].isupper():
            break
        token = following
    return token + 1


def _is_shortened(document: Document, token: int) -> bool:
    """ "Don't", "I'm": an ending stands at `token` behind an apostrophe."""
    return document.word(token) in "'’" and document.word(token + 1).lower() in _SHORT_ENDS


def _run(document: Document, names: Names, begin: int, end: int) -> Run | None:
    """The run without openers and titles; None if nothing is left."""
    words, context = document.words, names.context
    tokens = [token for token in range(begin, end) if words[token][0].isalpha()]
    while len(tokens) > 1 and (words[tokens[-1]] in context["after_name"] or words[tokens[-1]] in names.no_name):
        tokens.pop()
    lead, group, cut = "", None, 0
    for number, token in enumerate(tokens):
        word, mention = words[token], document.mention_at(token)
        kind = _title(names, word if mention is None else mention.word)
        if kind and (number + 1 < len(tokens) or mention is not None):
            lead, group, cut = kind, mention.group if mention else group, number + 1
        elif mention is not None:  # "Women Voters"
            return None
        elif number == cut and word in context["openers"] and _opens_name(names, words, tokens[number:]):
            begin, cut = tokens[number + 1], number + 1
            lead = "thing" if word in ("A", "An", "The") else lead  # "A Christmas Carol"
    tokens = tokens[cut:]
    if len(tokens) > 1 and words[tokens[0]] in context["before_thing"]:
        lead, tokens = lead or "thing", tokens[1:]
    if not tokens:
        return None
    given, surname = _split(document, names, tokens)
    if not surname and len(words[tokens[0]]) == 1 and not lead:
        lead = "surname"  # "J. Smith"
    return Run(begin, tokens[0], tokens[-1] + 1, given, surname, lead, group)


def _title(names: Names, word: str) -> str:
    """ "surname" or "given", by what follows this title; "" of another word."""
    if word in names.context["surname_roles"] or word in names.context["before_surname"]:
        return "surname"
    if word.lower() in names.context["before_person"]:  # "Champion Ann Lee"
        return "surname"
    return "given" if word.capitalize() in names.context["before_given"] else ""


def _split(document: Document, names: Names, tokens: list[int]) -> tuple[list[int], str]:
    """The tokens of the given names, without initials, and the surname; "" if there is one name alone."""
    words, particles = document.words, names.context["particles"]
    last = next((n for n, token in enumerate(tokens) if words[token] in particles), len(tokens) - 1)
    given = [token for token in tokens[:last] if len(words[token]) > 1]
    surname = words[tokens[-1]]
    if not given:
        return [tokens[-1]], ""
    if len(surname) == 1:  # "Steven J."
        return given[:1], ""
    if f"{words[given[0]]}_{surname}" in names.doubles:
        return [*given, tokens[-1]], ""
    if len(tokens) == 2 and words[tokens[1] - 1] == "-":
        one, other = (names.entry(words[token]) for token in tokens)
        if one and other and one[0] == other[0]:
            return tokens, ""
    return given, surname


def _opens_name(names: Names, words: list[str], tokens: list[int]) -> bool:
    """The first word is a label before a name or opens the sentence: "When John"; not "Will Smith"."""
    return len(tokens) > 1 and not (words[tokens[0]] in names.entries and words[tokens[1]] not in names.entries)


# ---------------------------------------------------------------- signs


def _sign(document: Document, names: Names, run: Run) -> str:
    """What the words right beside a run show it to be."""
    words, context, full = document.words, names.context, bool(run.surname)
    before, after = document.word(run.begin - 1), document.word(run.last)
    before_name = words[run.first - 1] if run.first else ""
    near = {before, after, document.word(run.begin - 2)}
    if words[run.given[0]] in context["months"] and (any(map(str.isdigit, near)) or before in context["before_month"]):
        return "thing"
    if run.lead == "thing" or f"{words[run.given[0]]}_{run.surname}" in context["fixed"]:
        return "thing"
    if not full and (
        words[run.given[0]] in context["fixed"] or f"{before_name}_{words[run.first]}" in context["fixed"]
    ):
        return "thing"
    if after == "," and document.word(run.last + 1) in context["regions"] and not run.lead:
        return "thing"
    if _is_born(document, run.last) and full:
        return "person"
    own = words[run.first + 1 : run.last]
    if any(word in context["things"] and word not in context["perhaps_things"] for word in own) and not run.lead:
        return "thing"
    if after in ("&", "Inc", "Ltd", "LLC", "Corp") or before == "&" or _is_named_after(document, names, run.last):
        return "thing"
    if run.lead == "surname" or run.lead == "given":
        return "person" if full else run.lead
    if is_after_role(document, run.begin):
        return "person" if full else "given"
    if full and before in context["before_person"]:
        return "person"
    if before in ("the", "The", "a", "A", "an", "An") and run.begin == run.first:
        return "thing"
    if full and (after in ("who", "whose") or (after == "," and document.word(run.last + 1) in ("who", "whose"))):
        return "person"
    if before in _QUOTED and after in _QUOTED and not full:
        return "thing"
    return ""


_QUOTED = frozenset('"“”')
_BORN = frozenset(("born", "née", "nee", "b", "died", "d"))


def _is_born(document: Document, token: int) -> bool:
    """ "(born 1911", "(1911–1980)", ", born in": a life begins at `token`, right after the name."""
    first, second = document.word(token), document.word(token + 1)
    if first == ",":
        return second == "born"
    if first != "(":
        return False
    year = second.isdigit() and document.word(token + 2) in "–-" and document.word(token + 3).isdigit()
    return second in _BORN or year or any(word == "born" for word in document.words[token : token + 12])


def _is_named_after(document: Document, names: Names, token: int) -> bool:
    """ "'s Hospital": what belongs to the name is a place's or a body's."""
    return (
        document.word(token) in "'’"
        and document.word(token + 1) == "s"
        and document.word(token + 2) in names.context["things"]
    )


def is_after_role(document: Document, token: int) -> bool:
    """Right after a word of a role in small letters: "his wife Mary", "the actress Ann Lee", "her son, Tom"."""
    at = token - 1
    if document.word(at) == "," and document.word(token + 1) in ",.;)":
        at -= 1
    mention, no = document.mention_at(at), names_of(document).context["no_relation"]
    if mention is None or mention.group is None or mention.rule in ("pronoun", "name") or mention.word in no:
        return False
    return document.words[at].islower() and not document.glued(token)


# ---------------------------------------------------------------- the models


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
        """Whether the next one after a name is of its group ("agrees", "differs"; "any": of an unknown one), and how far."""
        role = self.after(run.last)
        if role is None:
            return "none"
        far = "near" if role.first < run.last + 10 else "far"
        entry = names_of(self.document).entry(self.document.words[run.given[0]])
        return f"{'any' if entry is None else 'agrees' if entry[0] == role.group else 'differs'}-{far}"


def keys(document: Document, run: Run, roles: Roles) -> tuple[str, ...]:
    """What a model looks at, one key for each of `TEMPLATES`."""
    names, words = names_of(document), document.words
    first, last = words[run.given[0]], run.surname or words[run.last - 1]
    one, one_class, one_end = _word_keys(names, first)
    other, other_class, other_end = _word_keys(names, last) if run.surname else ("", "", "")
    size = len(run.given) + bool(run.surname)
    shape = f"{min(size, 4)}{'C' * first.isupper()}{'-' * ('-' in words[run.first : run.last])}"
    shape += "." * ("." in words[run.first : run.last]) + run.lead[:1]
    b = "^" if document.opens(run.begin) else document.word(run.begin - 1)
    x, y = document.word(run.last), document.word(run.last + 1)
    if x in "'’" and y == "s":
        x, y = "'s", document.word(run.last + 2)
    before, before_class = _neighbour(names, b)
    after, after_class = _neighbour(names, x)
    two_class = _neighbour(names, y)[1]
    return (
        one, other, one_class, other_class, f"{one_class}_{other_class}", one_end, other_end, shape, before, after,
        before_class, after_class, f"{before_class}_{after_class}", f"{after_class}_{two_class}",
        roles.agreement(run),
    )  # fmt: skip


@lru_cache(maxsize=1 << 15)
def _word_keys(names: Names, word: str) -> tuple[str, str, str]:
    """A name's word itself, its class and its ending; alike for a name and its partner."""
    entry = names.entry(word)
    if entry is not None:
        group, partner = entry
        word = word if word in names.entries else word.capitalize()
        return (word if group == 0 or partner is None else partner), "name" if partner else "single", ""
    if word in names.either:
        return word, "either", ""
    small = word.lower()
    return small, _classes().get(small) or "?", small[-3:]


@lru_cache(maxsize=1 << 15)
def _neighbour(names: Names, word: str) -> tuple[str, str]:
    """The word before or after, and its class, without gender."""
    if word[0].isupper() and (word in names.entries or word in names.either):
        return "NAME", "NAME"
    small = pronouns.normal(word)
    upper = "+" if word[0].isupper() else ""
    return small + upper, (_classes().get(small) or "~" + small[-2:]) + upper


def _classes() -> dict[str, str]:
    return loglinear.load(pronouns.FILE)[0]
