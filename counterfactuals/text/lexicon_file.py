"""What a lexicon's file may hold: sections of the right shape, and words that go together.

Every problem is one line with its section and its word; all problems of a kind are told at once.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, StrictInt, ValidationError

from counterfactuals.files import near
from counterfactuals.text.conditions import CONDITIONS
from counterfactuals.text.pronouns import COUNTERPARTS

CHOICES = ("pronoun", "title")  # how an ambiguous word finds its counterpart: pronouns.py and words.py hold the code
OF_TWO_GROUPS = ("pairs", "compounds", "one_way", "ambiguous", "names")


@dataclass(frozen=True)
class Rule:
    """What becomes of a word; `kind`: "pair", "one_way", "pool" or one of `CHOICES`; `only`: one of `CONDITIONS`.

    A word of a pool has no `targets`: it becomes any word of another group in `Lexicon.pools[topic]`.
    """

    group: str
    targets: tuple[str, ...]
    kind: str
    only: str | None = None
    topic: str | None = None


# ---------------------------------------------------------------- the file's shape


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{value!r} is not text (YAML reads no, on and 1 as values: quote them)")
    return value


def _lower(value: Any) -> str:
    word = _text(value)
    if word != " ".join(word.lower().split()) or not word[:1].isalpha():
        raise ValueError(f"{word!r} is not a word in lower case, or words with one blank between")
    return word


def _any_case(value: Any) -> str:
    word = _text(value)
    if not word[:1].isalpha() or word != " ".join(word.split()):
        raise ValueError(f"{word!r} is not a word, or words with one blank between them")
    return word


def _two_words(value: Any) -> tuple[str, str]:
    """ "leading_lady leading_man" → ("leading lady", "leading man")."""
    columns = _text(value).split()
    if len(columns) != 2:
        raise ValueError(f"{value!r} is not two words (a column is a word of one group)")
    left, right = (_lower(column.replace("_", " ")) for column in columns)
    if left == right:
        raise ValueError(f"{left!r} stands on both sides of its pair")
    return left, right


def _patterns(value: Any) -> tuple[tuple[str, ...], ...]:
    """ "*woman *man, *women *men" → (("*woman", "*man"), ("*women", "*men"))."""
    patterns = _text(value).split(",")
    for pattern in patterns:
        _two_words(pattern.replace("*", "x"))
    return tuple(tuple(pattern.split()) for pattern in patterns)


Text = Annotated[str, BeforeValidator(_text)]
Word = Annotated[str, BeforeValidator(_lower)]
PoolWord = Annotated[str, BeforeValidator(_any_case)]
Row = Annotated[tuple[str, str], BeforeValidator(_two_words)]
Patterns = Annotated[tuple[tuple[str, str], ...], BeforeValidator(_patterns)]


class File(BaseModel):
    """The sections of a lexicon's file, as gender.yaml explains them; rows are two words, of either group."""

    name: Text
    version: StrictInt
    licence: Text
    source: Text
    groups: list[Text]
    names: Text | None = None
    pairs: dict[Text, list[Row]] = {}
    compounds: dict[Patterns, list[Word]] = {}
    one_way: dict[Text, list[Row]] = {}
    ambiguous: dict[Text, dict[Word, dict[Text, list[Word]]]] = {}
    pools: dict[Text, dict[Text, list[PoolWord]]] = {}
    only: dict[Text, list[Text]] = {}
    fixed: list[Text] = []
    cues: list[Text] = []


_SAID = {  # what pydantic finds → what we say, with the value
    "list_type": "expected a list, got {!r}",
    "dict_type": "expected a mapping from words, got {!r}",
    "missing": "missing or empty",
    "int_type": "expected a whole number, got {!r}",
}


def shaped(content: Any) -> File:
    """The file's content, each section of the right shape. ValueError, one line a problem."""
    sections = list(File.model_fields)
    if not isinstance(content, dict):
        raise ValueError("a lexicon is a mapping with the keys " + ", ".join(sections))
    problems = _unknown_keys(content, sections, "top level")
    given = {key: content[key] for key in sections if content.get(key) not in (None, "", [], {})}
    try:
        file = File.model_validate(given)
    except ValidationError as error:
        for found in error.errors():
            where = ".".join(part for part in found["loc"] if isinstance(part, str) and part != "[key]")
            said = _SAID.get(found["type"], "{2}" if "ctx" in found else "{1}")
            problems.append(f"{where}: {said.format(found['input'], found['msg'], found.get('ctx', {}).get('error'))}")
    refuse(problems)
    return file


# ---------------------------------------------------------------- words that go together


def check(file: File) -> dict[str, Rule]:
    """The rules of a file, in its order. ValueError, one line for each word that does not go with the others."""
    refuse([*_group_problems(file), *_choice_problems(file)])
    rules: dict[str, Rule] = {}
    problems = list(_add_words(file, rules)) or list(_target_problems(rules))
    refuse([*problems, *_add_pools(file, rules), *_restrict(file, rules), *_phrase_problems(file, rules)])
    refuse(f"groups: {g!r} has no word" for g in file.groups if not any(r.group == g for r in rules.values()))
    return rules


def _group_problems(file: File) -> Iterator[str]:
    """Two or more groups; sections of pairs take two; sections by group name these groups."""
    groups = file.groups
    if len(groups) < 2 or len(set(groups)) < len(groups):
        yield f"groups: expected two or more different names, got {', '.join(groups)}"
        return
    for section in OF_TWO_GROUPS:
        if getattr(file, section) and len(groups) != 2:
            yield f"{section}: takes exactly two groups, this lexicon has {len(groups)}; put its words in pools"
    yield from _unknown_keys(file.one_way, groups, "one_way")
    yield from _unknown_keys(file.ambiguous, groups, "ambiguous")
    for topic, sides in file.pools.items():
        yield from _unknown_keys(sides, groups, f"pools.{topic}")
        for group in groups:
            if not sides.get(group):
                yield f"pools.{topic}.{group}: missing or empty; a topic has words of every group"


def _add_words(file: File, rules: dict[str, Rule]) -> Iterator[str]:
    """Add pairs, compounds, one_way and ambiguous to `rules`; a word that stands twice is a problem."""
    for where, word, rule in _words(file):
        if word in rules:
            earlier = rules[word]
            both = f"already stands for {earlier.group}" if earlier.group != rule.group else "stands twice"
            yield f"{where}: {word!r} {both} (→ {', '.join(earlier.targets)}); a word has one rule"
        else:
            rules[word] = rule


def _words(file: File) -> Iterator[tuple[str, str, Rule]]:
    """(Section, word, its rule), in the order of the file."""
    sections = {f"pairs.{topic}": rows for topic, rows in file.pairs.items()}
    sections["compounds"] = [
        (left.replace("*", stem), right.replace("*", stem))
        for patterns, stems in file.compounds.items()
        for stem in stems
        for left, right in patterns
    ]
    for where, rows in sections.items():
        for left, right in rows:
            yield where, left, Rule(file.groups[0], (right,), "pair")
            yield where, right, Rule(file.groups[1], (left,), "pair")
    for group, rows in file.one_way.items():
        for word, target in rows:
            yield f"one_way.{group}", word, Rule(group, (target,), "one_way")
    for group, choices in file.ambiguous.items():
        for word, choice in choices.items():
            for kind, targets in choice.items():
                yield f"ambiguous.{group}.{word}", word, Rule(group, tuple(targets), kind)


def _choice_problems(file: File) -> Iterator[str]:
    """An ambiguous word has one of `CHOICES` and two words; the pronoun rule knows which two."""
    for group, choices in file.ambiguous.items():
        for word, choice in choices.items():
            where = f"ambiguous.{group}.{word}"
            yield from _unknown_keys(choice, CHOICES, where)
            if len(choice) != 1:
                yield f"{where}: expected one of {', '.join(CHOICES)} with its two words"
            for kind, targets in choice.items():
                if len(targets) != 2:
                    yield f"{where}: expected two words to choose from, got {targets!r}"
                elif kind == "pronoun" and sorted(targets) != sorted(COUNTERPARTS.get(word, ())):
                    known = " and ".join(f"{w}: [{', '.join(sorted(two))}]" for w, two in COUNTERPARTS.items())
                    yield f"{where}: the pronoun rule knows {known}, not {word}: [{', '.join(targets)}]"


def _target_problems(rules: dict[str, Rule]) -> Iterator[str]:
    """A target has a rule of its own that leads to another group; words that go one way do not lead in a circle."""
    for word, rule in rules.items():
        for target in rule.targets:
            back = rules.get(target)
            if back is None and rule.kind != "one_way":
                yield f"ambiguous: {word!r} → {target!r}, which has no rule of its own"
            if back and back.group == rule.group:
                yield f"one_way: {word!r} → {target!r}, but both are {rule.group}: the role would not change"
        way = [word]
        while (step := rules.get(way[-1])) and step.kind == "one_way" and word not in way[1:]:
            if step.targets[0] in way[1:]:
                break  # a cycle further on, reported from one of its own words
            way.append(step.targets[0])
        if word in way[1:] and word == next(first for first in rules if first in way):
            yield f"one_way: {' → '.join(map(repr, way))} is a cycle; write one pair of it under pairs"


def _add_pools(file: File, rules: dict[str, Rule]) -> Iterator[str]:
    """Add the words of pools to `rules`; in any case a word stands once."""
    spelt = {word.lower(): word for word in rules}
    for topic, group in itertools.product(file.pools, file.groups):
        for word in file.pools[topic].get(group, ()):
            earlier = spelt.setdefault(word.lower(), word)
            if earlier in rules:
                other = rules[earlier]
                seen = f"as {earlier!r} " if earlier != word else ""
                place = f"pools.{other.topic}.{other.group}" if other.topic else f"the words of {other.group}"
                yield f"pools.{topic}.{group}: {word!r} already stands {seen}in {place}"
            else:
                rules[word] = Rule(group, (), "pool", topic=topic)


def _restrict(file: File, rules: dict[str, Rule]) -> Iterator[str]:
    """Set `only` of the words that are reversed under a condition."""
    yield from _unknown_keys(file.only, CONDITIONS, "only")
    for condition, words in file.only.items():
        for word in words:
            rule = rules.get(word)
            if rule is None:
                yield f"only.{condition}: {word!r} is not a word of this lexicon{near(word, rules)}"
            elif rule.only:
                yield f"only.{condition}: {word!r} stands twice (already under {rule.only})"
            else:
                rules[word] = replace(rule, only=condition)


def _phrase_problems(file: File, rules: dict[str, Rule]) -> Iterator[str]:
    """A fixed phrase or a cue stands once, and is no word that is reversed."""
    for phrase in file.fixed:
        if phrase in rules:
            yield f"fixed: {phrase!r} is a word of this lexicon; a phrase is more than that word"
    for cue in file.cues:
        if cue in rules:
            yield f"cues: {cue!r} is also reversed"
    for section, words in (("fixed", file.fixed), ("cues", file.cues)):
        yield from (f"{section}: {word!r} stands twice" for word, times in Counter(words).items() if times > 1)


# ---------------------------------------------------------------- messages


def _unknown_keys(keys: Iterable[Any], known: Iterable[str], where: str) -> list[str]:
    known = list(known)
    return [
        f"{where}: unknown key {key!r}{near(str(key), known)}; known are {', '.join(known)}"
        for key in keys
        if key not in known
    ]


def refuse(problems: Iterable[str]) -> None:
    """ValueError with all problems, one a line, if there are any."""
    lines = [" ".join(problem.split()) for problem in problems]
    if lines:
        raise ValueError("\n".join(lines))
