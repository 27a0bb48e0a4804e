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
    small = "her" if small in ("his", "him", "hers") else small
    return small + mark, (classes().get(small) or "~" + small[-2:]) + mark


@cache
def classes() -> dict[str, str]:
    """Word → the class of words used alike; of people.json, which takes them from pronouns.json when it has none."""
    return (loglinear.load(FILE)[0] if FILE.exists() else {}) or loglinear.load(pronouns.FILE)[0]
