"""The runs of capitals in a text that may be names, what stands beside them, and what the models look at.

"When Mr. John F. Kennedy said so": the given name John, the surname Kennedy, introduced by a title. `sign` is what the
words right beside a run show it to be: a title, a relation or "born" a person, "the" or "Street" a thing.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

from counterfactuals.text import loglinear, pronouns
from counterfactuals.text.document import Document, Mention
from counterfactuals.text.names import Names

FILE = Path(__file__).with_name("people.json")
NEAR = 30  # tokens after a name in which a word of a role may be its own
# What the models look at: the name's first and last word, their classes and endings; the words before and after it.
TEMPLATES = (
    "first", "last", "first_class", "last_class", "classes", "first_end", "last_end", "shape", "before", "after",
    "before_class", "after_class", "around", "after_two", "role",
)  # fmt: skip
MOST = 4  # places of a name that the models look at
OWN = 8  # so many of them are of the name itself
_CAPITALS = frozenset(filter(str.isupper, map(chr, range(0x250))))
_APOSTROPHES, _QUOTES = frozenset("'’"), frozenset('"“”')
_SHORT_ENDS = frozenset(("t", "m", "re", "ve", "ll", "d"))
_BORN = frozenset(("born", "née", "nee", "b", "died", "d"))
PRONOUNS = frozenset(("he", "him", "his", "himself", "she", "her", "hers", "herself"))
_FIRMS = frozenset(("&", "Inc", "Ltd", "LLC", "Corp"))
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
        events = [m for m in self.mentions if m.word in ("men", "women") and document.word(m.last) in _APOSTROPHES]
        self.events = {document.passage_of(m.start): m for m in events}  # passage → "women's", of a contest

    def after(self, token: int, full: bool = False) -> Mention | None:
        """The next one from `token` on, if it is near; full: or a far pronoun of the same passage, or an event."""
        at = bisect_left(self.starts, token)
        found = self.mentions[at] if at < len(self.starts) else None
        if found is not None and found.first < token + NEAR:
            return found
        if not full or not (found or self.events):
            return None
        passage = self.document.passage_of(self.document.starts[token - 1])
        if found and found.word in PRONOUNS and self.document.passage_of(found.start) == passage:
            return found
        return self.events.get(passage)

    def near(self, begin: int, last: int, full: bool) -> bool:
        """A role stands before these tokens, among them or after: "Dutchman Pieter", "In his villas, Le Corbusier"."""
        before = self.before(begin)
        apart = begin - before.last if before else NEAR
        if any(map(self.document.mention_at, range(begin, last))):
            return True
        return (
            apart == 0
            or (full and apart < 12 and self.document.word(begin - 1) == ",")
            or self.after(last, full) is not None
        )

    def before(self, token: int) -> Mention | None:
        """The last one before `token`."""
        at = bisect_left(self.starts, token)
        return self.mentions[at - 1] if at else None

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
    no_name, small, found, done = names.no_name, set(words), [], 0
    for token in [token for token, word in enumerate(words) if word[0] in _CAPITALS]:
        if token < done:
            continue
        word, following = words[token], document.word(token + 1)
        done = _end(document, names, token) if following[0] in _CAPITALS or following in goes_on else token + 1
        alone = done == token + 1
        if alone and (word in no_name or not (ordinary or word in known or word.lower() not in small)):
            continue
        if word.isascii() and known.isdisjoint(words[token:done]) and not roles.near(token, done, not alone):
            continue
        shortened = following in _APOSTROPHES and document.word(token + 2).lower() in _SHORT_ENDS  # "Don't"
        glued = document.glued(token) and words[token - 1] in "-'’_@" and document.glued(token - 1)
        if glued or (alone and shortened):
            continue
        is_small = word.lower() in small or word.endswith("ly")
        if not alone and is_small and document.opens(token) and not _title(names, word):
            token += 1  # "Presently Mary"
        run = _run(document, names, token, done)
        if run is not None:
            run.sign = _sign(document, names.context, run)
            found.append(run)
    return found


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
    if end == begin + 1:
        if document.mention_at(begin) is not None:
            return None
        return Run(begin, begin, end, [begin], "", "surname" if len(words[begin]) == 1 else "")
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
            stays = mention is None and word.lower() in document.lexicon.rules  # "Queen Anne style"
            lead, group, cut = "thing" if stays else kind, mention.group if mention else group, number + 1
        elif mention is not None:
            if (
                number + 1 == len(tokens)
                or not (word in context["openers"] or word.endswith(("man", "woman")))
                or len(word) < 6
            ):
                return None  # "Women Voters"
            lead, group, cut = "surname", mention.group, number + 1  # "Actress Ann Lee", "Dutchman Pieter"
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


def title_of(document: Document, token: int) -> str:
    """The title right before a name, in small letters: "mr", "lady"; "" if none."""
    at = token - 1 - (document.word(token - 1) == ".")
    title = document.word(at)
    return title.lower() if title[0] in _CAPITALS and _title(names_of(document), title) else ""


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
    usual = len(tokens) == 2 and all(names.usual.get(words[token], 9) < 2 for token in tokens)
    if usual and not any(words[token] in names.weak or names.entries[words[token]][0] for token in tokens):
        return tokens, ""  # "Sadie Kate"; female names are no surnames
    if len(tokens) == 2 and words[tokens[1] - 1] == "-":  # "Mary-Jane"; not "Ann-Martin"
        one, other = (names.entry(words[token]) for token in tokens)
        if one and other and one[0] == other[0]:
            return tokens, ""
    return given, surname


# ---------------------------------------------------------------- signs


def _sign(document: Document, context: dict[str, frozenset[str]], run: Run) -> str:
    """What the words right beside a run show it to be."""
    name, full, before, after = document.words[run.given[0]], bool(run.surname), *_around(document, run)
    if (
        run.lead == "thing"
        or _is_place(document, context, run, before, after)
        or _is_in_quotes(document, run, before, after)
    ):
        return "thing"
    if not context["fixed"].isdisjoint(
        (f"{name}_{run.surname}", f"{document.word(run.first - 1)}_{name}", "" if full else name)
    ):
        return "thing"
    if full and _is_born(document, run.last):
        return "person"
    owned = after[0] in _APOSTROPHES and after[1] == "s"
    if owned and (after[2] in context["things"] or (f"{name}'s" in context["fixed"] and not after[2].isalpha())):
        return "thing"  # "at Wendy's."
    own = context["things"].intersection(document.words[run.first + 1 : run.last])
    if (own and run.lead != "surname" and not own <= context["perhaps_things"]) or before == "&" or after[0] in _FIRMS:
        return "thing"
    if not full and _is_reference(before, after):
        return "surname"
    if run.lead or is_after_role(document, run.begin):
        return "person" if full else run.lead or "given"
    if full and (before in context["before_person"] or (after[0] if after[0] != "," else after[1]) in ("who", "whose")):
        return "person"
    return "thing" if before in _ARTICLES and run.begin == run.first else ""


def _around(document: Document, run: Run) -> tuple[str, tuple[str, str, str]]:
    """The word before a run, the three after it."""
    one, two, three, *_ = *document.words[run.last : run.last + 3], "\n", "\n", "\n"
    return document.word(run.begin - 1), (one, two, three)


def _is_place(
    document: Document, context: dict[str, frozenset[str]], run: Run, before: str, after: tuple[str, str, str]
) -> bool:
    """A month, a place, or what is called after somebody: "in May", "in Virginia", "city of Tena", "Jasper county"."""
    name, full = document.words[run.given[0]], bool(run.surname)
    if name in context["months"]:
        dated = any(word.isdigit() for word in (before, after[0], document.word(run.begin - 2)))
        if dated or before in context["before_month"]:
            return True
    if after[0] in context["after_place"]:  # "Jasper county", "the Lucia Shipley chair"
        return True
    if run.lead:
        return False
    if before == "of" and document.word(run.begin - 2).lower() in context["place_of"]:
        return True
    if after[0] == "," and after[1] in context["regions"]:  # "Charlotte, North Carolina"
        return True
    return (
        before in context["before_places"]
        and not full
        and (name in context["places"] or name in names_of(document).rare)
    )


def _is_in_quotes(document: Document, run: Run, before: str, after: tuple[str, str, str]) -> bool:
    """The name of a work: "Monte Walsh", "Jerry's"; not a nickname: William "Bill" Smith."""
    end = after[2] if after[0] in _APOSTROPHES and after[1] == "s" else after[0]
    if before not in _QUOTES or end not in _QUOTES:
        return False
    return bool(run.surname) or document.word(run.begin - 2)[0] not in _CAPITALS


def _is_reference(before: str, after: tuple[str, str, str]) -> bool:
    """ "Russell (1939)", "(Marcus 183)"."""
    year = after[0] in ("(", ",") and after[1].isdigit() and len(after[1]) == 4 and after[2] in (")", ":", ",")
    return year or (after[0].isdigit() and before == "(")


def _is_born(document: Document, token: int) -> bool:
    """ "(born 1911", "(May 2, 1911 – June 8, 1980)", ", born in": a life begins at `token`, right after the name."""
    first, second = document.word(token), document.word(token + 1)
    if first != "(":
        return first == "," and second == "born"
    inside = document.words[token + 1 : token + 14]
    inside = inside[: inside.index(")")] if ")" in inside else inside
    years = any(word.isdigit() and len(word) > 2 for word in inside) and not {"–", "-"}.isdisjoint(inside)
    return second in _BORN or years or "born" in inside


def is_after_role(document: Document, token: int) -> bool:
    """Right after a word of a role: "his wife Mary", "the Dutchman Pieter", "her son, Tom"; no title, no name."""
    at = token - 1
    if document.word(at) == "," and document.word(token + 1) in (",", ".", ";", ")"):
        at -= 1
    mention = document.mention_at(at)
    if mention is None or mention.group is None or mention.rule in ("pronoun", "name", "title"):
        return False
    names = names_of(document)
    related = mention.word not in names.context["no_relation"] and not _title(names, mention.word)
    return related and not document.glued(token) and (document.words[at].islower() or not document.opens(at))


# ---------------------------------------------------------------- what the models look at


def keys(document: Document, run: Run, roles: Roles) -> tuple[str, ...]:
    """One key for each of `TEMPLATES`."""
    return _own_keys(names_of(document), *_own(document, run)) + _beside_keys(document, run, roles)


def _own(document: Document, run: Run) -> tuple[str, str, str]:
    """A name's first word, its surname and its shape."""
    words = document.words
    first, marks = words[run.given[0]], "".join(mark for mark in "-." if mark in words[run.first : run.last])
    return first, run.surname, f"{len(run.given) + bool(run.surname)}{'C' * first.isupper()}{marks}{run.lead[:1]}"


@lru_cache(maxsize=1 << 14)
def _own_keys(names: Names, first: str, surname: str, shape: str) -> tuple[str, ...]:
    one, one_class, one_end = _word_keys(names, first)
    other, other_class, other_end = _word_keys(names, surname) if surname else ("", "", "")
    return one, other, one_class, other_class, f"{one_class}_{other_class}", one_end, other_end, shape


@lru_cache(maxsize=1 << 14)
def _own_score(name: str, names: Names, first: str, surname: str, shape: str) -> float:
    return loglinear.score(loglinear.load(FILE)[1][name], _own_keys(names, first, surname, shape))


def _beside_keys(document: Document, run: Run, roles: Roles) -> tuple[str, ...]:
    names, (x, y, z) = names_of(document), _around(document, run)[1]
    if x in _APOSTROPHES and y == "s":
        x, y = "'s", z
    before, before_class = _neighbour(names, "^" if document.opens(run.begin) else document.word(run.begin - 1))
    after, after_class = _neighbour(names, x)
    two = f"{after_class}_{_neighbour(names, y)[1]}"
    around = f"{before_class}_{after_class}"
    return before, after, before_class, after_class, around, two, roles.agreement(run)


def pooled(document: Document, those: list[Run], roles: Roles, *models: str) -> list[float]:
    """By each model the log odds from a name's places: its own words once, what is beside it the more with each."""
    some = those[:: -(-len(those) // MOST)]
    rows = [_beside_keys(document, run, roles) for run in some]
    names, found = names_of(document), []
    for name in models:
        tables = loglinear.load(FILE)[1][name].tables[OWN:]
        own = sum(_own_score(name, names, *_own(document, run)) for run in some) / len(some)
        beside = sum(table.get(key, 0.0) for row in rows for table, key in zip(tables, row))
        found.append(own + beside / len(some) ** 0.5)
    return found


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
    small = "her" if small in ("his", "him", "hers") else small
    return small + mark, (classes().get(small) or "~" + small[-2:]) + mark


@cache
def classes() -> dict[str, str]:
    """Word → the class of words used alike; of people.json, which takes them from pronouns.json when it has none."""
    return (loglinear.load(FILE)[0] if FILE.exists() else {}) or loglinear.load(pronouns.FILE)[0]
