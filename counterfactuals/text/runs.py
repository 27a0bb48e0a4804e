"""The runs of capitals in a text that may be names, what stands beside them, and what the models look at.

"When Mr. John F. Kennedy said so": the given name John, the surname Kennedy, introduced by a title. `sign` is what the
words right beside a run show it to be: a title, a relation or "born" a person, "the" or "Street" a thing.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from counterfactuals.text import loglinear, pronouns
from counterfactuals.text.document import Document, Mention
from counterfactuals.text.names import Names

FILE = Path(__file__).with_name("people.json")
NEAR, CLOSE, AHEAD = 60, 30, 9  # tokens after a full name, a name alone, before it in which a role may be its own
# What the models look at: the name's first and last word, their classes and endings; the words before and after it.
TEMPLATES = (
    "first", "last", "first_class", "last_class", "classes", "first_end", "last_end", "shape", "before", "after",
    "before_class", "after_class", "around", "after_two", "role",
)  # fmt: skip
MOST = 4  # places of a name that the models look at
OWN = 8  # so many of TEMPLATES are of the name itself
_CAPITALS = frozenset(filter(str.isupper, map(chr, range(0x250))))
_APOSTROPHES, QUOTES = frozenset("'’"), frozenset('"“”')
_SHORT_ENDS = frozenset(("t", "m", "re", "ve", "ll", "d"))
_PREFIXES = ("O", "D", "L")  # O'Brien
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


class Scene:
    """A document as the rules for names read it: its words, followed by ends of lines, and its words of roles.

    near: by token, whether an unknown full name there may own a role that turns (1), or even a name alone (2).
    """

    def __init__(self, document: Document) -> None:
        assert document.lexicon.names is not None
        self.document, self.names = document, document.lexicon.names
        self.words = [*document.words, *"\n" * 16]  # so that words[-1] is one too
        self.roles = [m for m in document.mentions if m.group is not None and m.rule != "name"]
        self._starts = [m.first for m in self.roles]
        self.near = bytearray(len(self.words))
        for value, distance, ahead in ((1, NEAR, AHEAD), (2, CLOSE, 1)):
            for m in self.roles:
                if m.target is not None:
                    begin = max(0, m.first - distance + 1)
                    self.near[begin : m.last + ahead] = bytes((value,)) * (m.last + ahead - begin)

    def after(self, token: int) -> Mention | None:
        """The next role from `token` on, if it is near."""
        at = bisect_left(self._starts, token)
        found = self.roles[at] if at < len(self.roles) else None
        return found if found is not None and found.first < token + NEAR else None

    def passage(self, token: int) -> int:
        return self.document.passage_of(self.document.starts[token])

    def title(self, token: int) -> str:
        """The title right before a name, in small letters: "mr", "lady"; "" if none."""
        title = self.words[token - 2 if self.words[token - 1] == "." else token - 1]
        return title.lower() if title[0] in _CAPITALS and title in self.names.titles else ""

    def is_after_role(self, token: int) -> bool:
        """Right after a word of a role: "his wife Mary", "the Dutchman Pieter", "her son, Tom"; no title, no name."""
        at = token - 1
        if self.words[at] == "," and self.words[token + 1] in (",", ".", ";", ")", "("):
            at -= 1
        mention = self.document.mention_at(at)
        if mention is None or mention.group is None or mention.rule in ("pronoun", "name", "title"):
            return False
        if mention.word in self.names.titles or self.document.glued(token):
            return False
        return self.words[at].islower() or not self.document.opens(at)


# ---------------------------------------------------------------- the runs of capitals


def runs(scene: Scene, *, ordinary: bool = False) -> list[Run]:
    """Every run of capitalised words that may be a name; without those of unknown words far from any word of a role.

    ordinary: with unknown words that stand alone here and are written small elsewhere in the text.
    """
    document, names, words, near = scene.document, scene.names, scene.words, scene.near
    known, no_name, small, found, done = names.known, names.no_name, set(words), [], 0
    for token in [token for token, word in enumerate(words) if word[0] in _CAPITALS]:
        if token < done:
            continue
        word, following, done = words[token], words[token + 1], token + 1
        if following[0] in _CAPITALS or following in names.goes_on:
            done = _end(scene, token)
        if done == token + 1:
            if word in no_name or not (word in known or near[token] > 1 or not word.isascii()):
                continue
            if word not in known and not ordinary and word.lower() in small:
                continue
            if following in _APOSTROPHES and words[token + 2].lower() in _SHORT_ENDS:  # "Don't"
                continue
        elif not (near[token] or near[done]) and word.isascii() and known.isdisjoint(words[token:done]):
            continue
        if words[token - 1] in "-'’_@" and document.glued(token) and document.glued(token - 1):
            continue
        begin = token
        adverb = word.endswith("ly") and word not in known
        if done > token + 1 and (adverb or word.lower() in small) and word not in names.titles:
            begin += document.opens(token)  # "Presently Mary"
        run = _run(scene, begin, done)
        if run is not None:
            run.sign = _sign(scene, run)
            found.append(run)
    return found


def _end(scene: Scene, token: int) -> int:
    """The end (exclusive) of the run of capitals from `token` on: "J. K. O'Brien-Smith", "Ludwig van Beethoven"."""
    words, glued, context = scene.words, scene.document.glued, scene.names.context
    particles, after_name = context["particles"], context["after_name"]
    while True:
        word, following = words[token + 1], token + 2
        if word[0] in _CAPITALS and not glued(token + 1):
            other_case = word.isupper() != words[token].isupper() and len(words[token]) > 1 < len(word)
            if other_case and after_name.isdisjoint((word, words[token])):
                return token + 1  # "IAN Yeah"; not "John Paul II", "King Edward VI School"
            following = token + 1
        elif word in particles:
            while words[following] in particles:
                following += 1
        elif word == ".":
            if words[token] not in context["shortened"] and (len(words[token]) > 1 or words[token] == "I"):
                return token + 1
        elif word not in "-'’" or not glued(following) or (word != "-" and words[token] not in _PREFIXES):
            return token + 1
        if words[following][0] not in _CAPITALS:
            return token + 1
        token = following


def _run(scene: Scene, begin: int, end: int) -> Run | None:
    """The run without openers and titles; None if nothing is left."""
    document, names, words, context = scene.document, scene.names, scene.words, scene.names.context
    one, nickname, other, after = words[end : end + 4]
    around = one in QUOTES and other in QUOTES and nickname[0] in _CAPITALS and after[0] in _CAPITALS
    around = around and after not in names.no_name and document.mention_at(end + 3) is None  # 'John "Jack" Smith'
    if end == begin + 1 and not around:
        if document.mention_at(begin) is not None:
            return None
        return Run(begin, begin, end, [begin], "", "surname" if len(words[begin]) == 1 else "")
    tokens = [token for token in (*range(begin, end), *[end + 3] * around) if words[token][0].isalpha()]
    regnal = words[tokens[-1]] in context["after_name"]
    while len(tokens) > 1 and (words[tokens[-1]] in context["after_name"] or words[tokens[-1]] in names.no_name):
        tokens.pop()
    while len(tokens) > 2 and words[tokens[-1]] not in names.entries and words[tokens[-1]] in names.titles:
        tokens.pop()  # "James McClelland President"
    lead, group, cut = "", None, 0
    for number, token in enumerate(tokens):
        word, mention, is_last = words[token], document.mention_at(token), number + 1 == len(tokens)
        kind = names.titles.get(word if mention is None else mention.word)
        if kind and (mention is not None or not is_last):
            stays = mention is None and word.lower() in document.lexicon.rules  # "Queen Anne style"
            lead, group, cut = "thing" if stays else kind, mention.group if mention else group, number + 1
        elif mention is not None:
            if is_last or len(word) < 6 or not (word in context["openers"] or word.endswith(("man", "woman"))):
                return None  # "Women Voters"
            lead, group, cut = "surname", mention.group, number + 1  # "Actress Ann Lee", "Dutchman Pieter"
        elif number == cut and word in context["openers"] and not is_last and words[token + 1] != ".":
            begin, cut = tokens[number + 1], number + 1
            lead = "thing" if word in _ARTICLES else lead  # "A Christmas Carol"
    tokens = tokens[cut:]
    if len(tokens) > 1 and words[tokens[0]] in context["before_thing"]:
        lead, tokens = lead or "thing", tokens[1:]
    if not tokens:
        return None
    given, surname = (tokens, "") if lead == "given" and regnal else _split(words, names, tokens)  # "Pope John Paul II"
    if not surname and len(words[tokens[0]]) == 1 and not lead:
        lead = "surname"  # "J. Smith"
    return Run(begin, tokens[0], min(tokens[-1] + 1, end), given, surname, lead, group)


def _split(words: list[str], names: Names, tokens: list[int]) -> tuple[list[int], str]:
    """The tokens of the given names, without initials, and the surname; "" if there is one name alone."""
    particles, surname = names.context["particles"], words[tokens[-1]]
    last = next((n for n, token in enumerate(tokens) if words[token] in particles), len(tokens) - 1)
    inner = {token for token in tokens if words[token - 1] in _APOSTROPHES and words[token - 2] in _PREFIXES}
    given = [token for token in tokens[:last] if len(words[token]) > 1 and token not in inner]
    if not given:
        return [tokens[-1]], ""
    if len(tokens) == 2:
        one, other = (names.entry(words[token]) for token in tokens)
        if one and other and one[0] == other[0]:
            usual = all(names.usual.get(words[token], 9) < 2 and words[token] not in names.weak for token in tokens)
            if words[tokens[1] - 1] == "-" or (usual and one[0] == 0):
                return tokens, ""  # "Mary-Jane", "Sadie Kate"; female names are no surnames
    return given, surname


# ---------------------------------------------------------------- signs


def _sign(scene: Scene, run: Run) -> str:
    """What the words right beside a run show it to be."""
    words, context, full = scene.words, scene.names.context, bool(run.surname)
    name, before, after = words[run.given[0]], words[run.begin - 1], words[run.last : run.last + 3]
    if run.lead == "thing" or before in context["before_work"] or after[0] in context["after_place"]:
        return "thing"  # "Jasper county", "the film Annie Hall"
    is_place = before == "of" and words[run.begin - 2].lower() in context["place_of"]
    if not run.lead and (is_place or (after[0] == "," and after[1] in context["regions"])):
        return "thing"  # "University of Victoria", "Charlotte, North Carolina"
    placelike = context["places"] if after[0] in _APOSTROPHES else scene.names.placelike
    if before in context["before_places"] and not (full or run.lead) and name in placelike:
        return "thing"  # "in Virginia"
    fixed = (f"{name}_{run.surname}",) if full else (f"{words[run.first - 1]}_{name}", name)
    if not context["fixed"].isdisjoint(fixed):
        return "thing"
    if after[0] in _APOSTROPHES and after[1] == "s":
        if after[2] in context["things"] or (f"{name}'s" in context["fixed"] and not after[2].isalpha()):
            return "thing"  # "at Wendy's."
        after = [after[2], "", ""]
    if before in QUOTES and after[0] in QUOTES and (full or words[run.begin - 2][0] not in _CAPITALS):
        return "thing"  # the work "Monte Walsh", "Jerry's"; not William "Bill" Smith
    own = context["things"].intersection(words[run.first + 1 : run.last]) if full else ()
    if own and run.lead != "surname" and not own <= context["perhaps_things"]:
        return "thing"
    if full and after[0] in ("(", ",") and after[1] == "born":
        return "person"
    if after[0] in ("and", "&") and not full:
        after = words[run.last + 2 : run.last + 5]  # "(Russell and Schumm, 1987)"
    year = after[0] in ("(", ",") and after[1].isdigit() and after[2] in (")", ":", ",", ";")
    if not full and (year or after[:2] == ["et", "al"] or (after[0].isdigit() and (before == "(" or after[1] == ":"))):
        return "surname"  # "Russell (1939)", "(Marcus 183)", "Matthew 5:3"
    if run.lead or scene.is_after_role(run.begin):
        return "person" if full else run.lead or "given"
    return "thing" if before in _ARTICLES and run.begin == run.first else ""


# ---------------------------------------------------------------- what the models look at


def keys(scene: Scene, run: Run) -> tuple[str, ...]:
    """One key for each of `TEMPLATES`."""
    return _own_keys(scene.names, *_own(scene.words, run)) + _beside_keys(scene.names, *_beside(scene, run))


def spread(those: list[Run], most: int) -> list[Run]:
    """At most so many of them, evenly."""
    return those[:: -(-len(those) // most)]


def pooled(scene: Scene, those: list[Run], *models: str) -> list[float]:
    """By each model the log odds from a name's places: its own words once, what is beside it the more with each."""
    some, names, found = spread(those, MOST), scene.names, []
    own, beside = _own(scene.words, some[0]), [_beside(scene, run) for run in some]
    for name in models:
        scores = [_beside_score(name, names, *words) for words in beside]
        found.append(_own_score(name, names, *own) + sum(scores) / len(some) ** 0.5)
    return found


def agreement(scene: Scene, run: Run) -> str:
    """How far the next role after a name is, and whether it is of its group: "agrees-near", "any-far"."""
    role = scene.after(run.last)
    if role is None or role.first >= run.last + CLOSE:
        return "none"
    entry = scene.names.entry(scene.words[run.given[0]])
    agrees = "any" if entry is None else "agrees" if entry[0] == role.group else "differs"
    return f"{agrees}-{'near' if role.first < run.last + 10 else 'far'}"


def _own(words: list[str], run: Run) -> tuple[str, str, str]:
    """A name's first word, its surname and its shape."""
    first, marks = words[run.given[0]], ""
    if run.last > run.first + 1:
        marks = "".join(mark for mark in "-." if mark in words[run.first : run.last])
    return first, run.surname, f"{len(run.given) + bool(run.surname)}{'C' * first.isupper()}{marks}{run.lead[:1]}"


def _own_keys(names: Names, first: str, surname: str, shape: str) -> tuple[str, ...]:
    one, one_class, one_end = _word_keys(names, first)
    other, other_class, other_end = _word_keys(names, surname) if surname else ("", "", "")
    return one, other, one_class, other_class, f"{one_class}_{other_class}", one_end, other_end, shape


@lru_cache(maxsize=1 << 14)
def _own_score(name: str, names: Names, first: str, surname: str, shape: str) -> float:
    return loglinear.score(loglinear.load(FILE)[1][name], _own_keys(names, first, surname, shape))


def _beside(scene: Scene, run: Run) -> tuple[str, str, str, str]:
    """The word before a name, the two after it, and the next role."""
    x, y, z = scene.words[run.last : run.last + 3]
    if x in _APOSTROPHES and y == "s":
        x, y = "'s", z
    return "^" if scene.document.opens(run.begin) else scene.words[run.begin - 1], x, y, agreement(scene, run)


def _beside_keys(names: Names, before: str, after: str, second: str, role: str) -> tuple[str, ...]:
    before, before_class = _neighbour(names, before)
    after, after_class = _neighbour(names, after)
    two = f"{after_class}_{_neighbour(names, second)[1]}"
    return before, after, before_class, after_class, f"{before_class}_{after_class}", two, role


@lru_cache(maxsize=1 << 16)
def _beside_score(name: str, names: Names, *words: str) -> float:
    tables = loglinear.load(FILE)[1][name].tables[OWN:]
    return sum(table.get(key, 0.0) for table, key in zip(tables, _beside_keys(names, *words), strict=True))


def _word_keys(names: Names, word: str) -> tuple[str, str, str]:
    """A word of a name, its class and its ending; alike for a name and its partner."""
    entry = names.entry(word)
    if entry is not None:
        group, partner = entry
        return (word.capitalize() if group == 0 or partner is None else partner), "name" if partner else "single", ""
    small, classes = word.lower(), loglinear.load(FILE)[0]
    return (word, "either", "") if word in names.either else (small, classes.get(small, "?"), small[-3:])


@lru_cache(maxsize=1 << 15)
def _neighbour(names: Names, word: str) -> tuple[str, str]:
    """The word before or after a name, and its class, without gender."""
    loud = word[0].isupper()
    if loud and (word in names.entries or word in names.either):
        return "NAME", "NAME"
    small, mark = pronouns.normal(word), "+" * loud
    small = "her" if small in ("his", "him", "hers") else small
    return small + mark, (loglinear.load(FILE)[0].get(small) or "~" + small[-2:]) + mark
