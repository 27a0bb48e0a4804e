"""Load and check an attribute's word table: the words that carry a role, and what each becomes in the other role.

A lexicon is one YAML file; `lexicons/gender.yaml` is the one to read and explains each of its sections.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

LEXICONS = Path(__file__).parent / "lexicons"
CHOICES = ("pronoun", "title")  # how an ambiguous word finds its counterpart; reverse.py holds the code
CONDITIONS = ("abbreviation", "lower", "not_name", "title", "title_or_lower")  # where a word is reversed; likewise
_PRONOUNS = {"her": ("him", "his"), "his": ("her", "hers")}  # what the pronoun rule decides; pronouns.py holds the code
_CONTEXT_BOUND = ("lower", "title", "title_or_lower")  # elsewhere another word altogether: to miss, to count, God
_KEYS = (
    "name",
    "version",
    "licence",
    "source",
    "groups",
    "pairs",
    "compounds",
    "one_way",
    "ambiguous",
    "only",
    "fixed",
    "cues",
)
_REQUIRED = ("name", "version", "licence", "source", "groups", "pairs")


@dataclass(frozen=True)
class Rule:
    """What becomes of a word; `kind`: "pair", "one_way" or one of `CHOICES`, `only`: one of `CONDITIONS` or None."""

    group: str
    targets: tuple[str, ...]
    kind: str
    only: str | None = None


@dataclass(frozen=True, eq=False)
class Lexicon:
    """An attribute's words, in lower case. `rules` holds every word that is reversed, in the order of the file.

    `fingerprint` is the SHA-256 of the parsed content: comments and layout do not change it.
    """

    name: str
    version: int
    licence: str
    source: str
    groups: tuple[str, ...]
    fingerprint: str
    rules: dict[str, Rule] = field(repr=False)
    cues: frozenset[str] = field(repr=False)
    fixed: tuple[str, ...] = field(repr=False)

    def words(self, group: str) -> frozenset[str]:
        """The words of a group that are reversed. ValueError for a group the lexicon has not."""
        self.check_group(group)
        return frozenset(word for word, rule in self.rules.items() if rule.group == group)

    def check_group(self, group: str) -> None:
        if group not in self.groups:
            raise ValueError(f"lexicon {self.name}: no group {group!r}; it has {', '.join(self.groups)}")

    def components(self) -> tuple[tuple[tuple[str, ...], ...], ...]:
        """Connected sets of words, each a tuple of words for each group: (("her", "hers"), ("him", "his")), …

        Left out are words reversed only in a context that the word alone does not show (Miss, Count, God), and those
        whose counterpart names anyone (hostess → host). Sorted within a tuple; sets in the order of the file.
        """
        kept = {word: rule for word, rule in self.rules.items() if rule.only not in _CONTEXT_BOUND}
        parent = {word: word for word in kept}

        def root(word: str) -> str:
            while parent[word] != word:
                word = parent[word]
            return word

        for word, rule in kept.items():
            for target in rule.targets:
                if target in kept:
                    parent[root(target)] = root(word)
        sets: dict[str, list[str]] = {}
        for word in kept:
            sets.setdefault(root(word), []).append(word)
        split = (tuple(tuple(sorted(w for w in s if kept[w].group == g)) for g in self.groups) for s in sets.values())
        return tuple(component for component in split if all(component))


def load_lexicon(name_or_path: str | Path) -> Lexicon:
    """A lexicon by name ("gender": a file in `counterfactuals/lexicons/`) or by the path of a .yaml file.

    ValueError, one line naming the file and the word, for an unknown name and for anything wrong in the file.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = LEXICONS / f"{name_or_path}.yaml"
        known = sorted(p.stem for p in LEXICONS.glob("*.yaml"))
        if str(name_or_path) not in known:
            raise ValueError(
                f"no lexicon {str(name_or_path)!r}{_did_you_mean(str(name_or_path), known)}; "
                f"there is {', '.join(known)}, or give the path of a .yaml file"
            )
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)
        return parse_lexicon(content)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def parse_lexicon(content: Any) -> Lexicon:
    """A lexicon from its file's parsed content. ValueError, one line with section and word, where it is wrong."""
    if not isinstance(content, dict):
        raise ValueError("a lexicon is a mapping with the keys " + ", ".join(_KEYS))
    _check_keys(content, _KEYS, "top level")
    for key in _REQUIRED:
        if not content.get(key):
            raise ValueError(f"{key}: missing or empty")
    for key in ("name", "licence", "source"):
        if not isinstance(content[key], str):
            raise ValueError(f"{key}: expected text, got {content[key]!r}")
    if not isinstance(content["version"], int):
        raise ValueError(f"version: expected a whole number, got {content['version']!r}")
    groups = tuple(_strings(content["groups"], "groups"))
    if len(groups) != 2 or groups[0] == groups[1]:
        raise ValueError(f"groups: expected two different names, got {', '.join(groups)}")

    rules: dict[str, Rule] = {}

    def add(word: str, rule: Rule, where: str) -> None:
        for checked in (word, *rule.targets):
            if checked != checked.lower() or not checked[:1].isalpha():
                raise ValueError(f"{where}: {checked!r} is not a word in lower case")
        if word in rules:
            earlier = rules[word]
            both = f"already stands for {earlier.group}" if earlier.group != rule.group else "stands twice"
            raise ValueError(f"{where}: {word!r} {both} (→ {', '.join(earlier.targets)}); a word has one rule")
        rules[word] = rule

    for where, left, right in _pairs(content):
        if left == right:
            raise ValueError(f"{where}: {left!r} stands on both sides of its pair")
        add(left, Rule(groups[0], (right,), "pair"), where)
        add(right, Rule(groups[1], (left,), "pair"), where)
    for group, rows in _by_group(content, "one_way", groups):
        for row in _strings(rows, f"one_way.{group}"):
            word, target = _columns(row, f"one_way.{group}")
            add(word, Rule(group, (target,), "one_way"), f"one_way.{group}")
    for group, entries in _by_group(content, "ambiguous", groups):
        for word, choice in _mapping(entries, f"ambiguous.{group}").items():
            where = f"ambiguous.{group}.{word}"
            _check_keys(_mapping(choice, where), CHOICES, where)
            if len(choice) != 1:
                raise ValueError(f"{where}: expected one of {', '.join(CHOICES)} with its two words")
            ((kind, targets),) = choice.items()
            if len(_strings(targets, where)) != 2:
                raise ValueError(f"{where}: expected two words to choose from, got {targets!r}")
            if kind == "pronoun" and sorted(targets) != sorted(_PRONOUNS.get(word, ())):
                known = " and ".join(f"{w}: [{', '.join(two)}]" for w, two in _PRONOUNS.items())
                raise ValueError(f"{where}: the pronoun rule knows {known}, not {word}: [{', '.join(targets)}]")
            add(word, Rule(group, tuple(targets), kind), where)
    _check_targets(rules)

    only = _mapping(content.get("only") or {}, "only")
    _check_keys(only, CONDITIONS, "only")
    for condition, words in only.items():
        for word in _strings(words, f"only.{condition}"):
            rule = rules.get(word)
            if rule is None:
                raise ValueError(
                    f"only.{condition}: {word!r} is not a word of this lexicon{_did_you_mean(word, rules)}"
                )
            if rule.only:
                raise ValueError(f"only.{condition}: {word!r} stands twice (already under {rule.only})")
            rules[word] = Rule(rule.group, rule.targets, rule.kind, condition)

    fixed = _strings(content.get("fixed") or [], "fixed")
    for phrase in fixed:
        if phrase in rules:
            raise ValueError(f"fixed: {phrase!r} is a word of this lexicon; a phrase is more than that word")
    cues = _strings(content.get("cues") or [], "cues")
    for cue in cues:
        if cue in rules or cue != cue.lower():
            raise ValueError(f"cues: {cue!r} " + ("is also reversed" if cue in rules else "is not in lower case"))
    for section, words in (("fixed", fixed), ("cues", cues)):
        for word in words:
            if words.count(word) > 1:
                raise ValueError(f"{section}: {word!r} stands twice")
    for group in groups:
        if not any(rule.group == group for rule in rules.values()):
            raise ValueError(f"groups: {group!r} has no word")
    canonical = json.dumps(content, ensure_ascii=False, sort_keys=True)
    return Lexicon(
        name=content["name"],
        version=content["version"],
        licence=content["licence"],
        source=content["source"],
        groups=groups,
        fingerprint=hashlib.sha256(canonical.encode()).hexdigest(),
        rules=rules,
        cues=frozenset(cues),
        fixed=tuple(fixed),
    )


def _pairs(content: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    for topic, rows in _mapping(content["pairs"], "pairs").items():
        for row in _strings(rows, f"pairs.{topic}"):
            yield (f"pairs.{topic}", *_columns(row, f"pairs.{topic}"))
    for patterns, stems in _mapping(content.get("compounds") or {}, "compounds").items():
        for stem in _strings(stems, "compounds"):
            for pattern in patterns.split(","):
                yield ("compounds", *_columns(pattern.replace("*", stem), "compounds"))


def _check_targets(rules: dict[str, Rule]) -> None:
    for word, rule in rules.items():
        for target in rule.targets:
            back = rules.get(target)
            if back is None and rule.kind != "one_way":
                raise ValueError(f"ambiguous: {word!r} → {target!r}, which has no rule of its own")
            if back and back.group == rule.group:
                raise ValueError(
                    f"one_way: {word!r} → {target!r}, but both are {rule.group}: the role would not change"
                )
            if back and rule.kind == back.kind == "one_way" and word in back.targets:
                raise ValueError(f"one_way: {word!r} → {target!r} → {word!r} is a cycle; write it once under pairs")


def _by_group(content: dict[str, Any], section: str, groups: tuple[str, ...]) -> list[tuple[str, Any]]:
    entries = _mapping(content.get(section) or {}, section)
    _check_keys(entries, groups, section)
    return [(group, rows) for group, rows in entries.items() if rows]


def _columns(row: str, where: str) -> tuple[str, str]:
    columns = row.split()
    if len(columns) != 2:
        raise ValueError(f"{where}: {row!r} is not two words (a column is a word of one group)")
    return columns[0], columns[1]


def _strings(value: Any, where: str) -> list[str]:
    if not isinstance(value, list):
        raise ValueError(f"{where}: expected a list, got {value!r}")
    for item in value:
        if not isinstance(item, str) or not item.strip():
            raise ValueError(f"{where}: {item!r} is not text (YAML reads no, on and 1 as values: quote them)")
    return value


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ValueError(f"{where}: expected a mapping from words, got {value!r}")
    return value


def _check_keys(mapping: dict[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in mapping:
        if key not in known:
            raise ValueError(
                f"{where}: unknown key {key!r}{_did_you_mean(str(key), known)}; known are {', '.join(known)}"
            )


def _did_you_mean(word: str, known: Any) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


class _StrictLoader(yaml.SafeLoader):
    """PyYAML keeps the last of two equal keys without a word; here that is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise ValueError(f"line {key_node.start_mark.line + 1}: {key!r} cannot be a key")
            if key in seen:
                raise ValueError(f"line {key_node.start_mark.line + 1}: {key!r} stands twice")
            seen.add(key)
        return super().construct_mapping(node, deep)
