"""Load and check an attribute's word table: the words that carry a role, and what each becomes in the other role.

A lexicon is one YAML file; `lexicons/gender.yaml` is the one to read and explains each of its sections.
"""

from __future__ import annotations

import difflib
import hashlib
import itertools
import json
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from counterfactuals.text.names import Names

LEXICONS = Path(__file__).parents[1] / "lexicons"
MAX_BYTES = 5_000_000  # of a lexicon file; gender.yaml has 0.03 million
MOST_GROUPS = 6  # of a lexicon whose reversal is followed through a prediction: 120 cyclic orders
CHOICES = ("pronoun", "title")  # how an ambiguous word finds its counterpart; reverse.py holds the code
CONDITIONS = (
    "abbreviation",
    "lower",
    "not_name",
    "rank",
    "title",
    "title_or_lower",
)  # where a word is reversed; likewise
_PRONOUNS = {"her": ("him", "his"), "his": ("her", "hers")}  # what the pronoun rule decides; pronouns.py holds the code
_CONTEXT_BOUND = (
    "lower",
    "rank",
    "title",
    "title_or_lower",
)  # elsewhere another word altogether: to miss, to count, God
_REQUIRED = ("name", "version", "licence", "source", "groups")
_OF_TWO_GROUPS = ("pairs", "compounds", "one_way", "ambiguous", "names")
_KEYS = (*_REQUIRED, *_OF_TWO_GROUPS, "pools", "only", "fixed", "cues")


@dataclass(frozen=True)
class Rule:
    """What becomes of a word; `kind`: "pair", "one_way", "pool" or one of `CHOICES`, `only`: one of `CONDITIONS`.

    A word of a pool has no `targets`: it becomes any word of another group in `Lexicon.pools[topic]`.
    """

    group: str
    targets: tuple[str, ...]
    kind: str
    only: str | None = None
    topic: str | None = None


@dataclass(frozen=True, eq=False)
class Lexicon:
    """An attribute's words. `rules` holds every word that is replaced, in the order of the file.

    Words are in lower case; in `pools` (topic → group → words) those with a capital are written as in the file.
    `fingerprint` is the SHA-256 of the parsed content and of the names: comments and layout do not change it.
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
    pools: dict[str, dict[str, tuple[str, ...]]] = field(repr=False, default_factory=dict)
    names: Names | None = field(repr=False, default=None)

    def words(self, group: str) -> frozenset[str]:
        """The words of a group that are reversed. ValueError for a group the lexicon has not."""
        self.check_group(group)
        return frozenset(word for word, rule in self.rules.items() if rule.group == group)

    def check_group(self, group: str) -> None:
        if group not in self.groups:
            raise ValueError(f"lexicon {self.name}: no group {group!r}; it has {', '.join(self.groups)}")

    def components(self, names: bool = False) -> tuple[tuple[tuple[str, ...], ...], ...]:
        """Connected sets of words, each a tuple of words for each group: (("her", "hers"), ("him", "his")), …

        Left out are words reversed only in a context that the word alone does not show (Miss, Count, God), those
        whose counterpart names anyone (hostess → host), and pools, which have no one-to-one exchange.
        Sorted within a tuple; sets in the order of the file. names: also the given names, (("Mary",), ("James",)), …,
        but for those that alone are mostly something else (Grace, Paris).
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
        found = tuple(component for component in split if all(component))
        if names and self.names:
            weak = self.names.weak
            found += tuple(((a,), (b,)) for a, b in self.names.pairs if a not in weak and b not in weak)
        return found


@lru_cache
def cycles(num_groups: int) -> tuple[tuple[int, ...], ...]:
    """Every cyclic order of the groups, as the group that comes after each.

    >>> cycles(3)
    ((1, 2, 0), (2, 0, 1))
    """
    found = []
    for order in itertools.permutations(range(1, num_groups)):
        after = dict(zip((0, *order), (*order, 0)))
        found.append(tuple(after[group] for group in range(num_groups)))
    return tuple(found)


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
        content = yaml.load(_read(path), Loader=_StrictLoader)  # nosec B506
        return parse_lexicon(content, path.parent)
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ValueError(f"{path}: nested too deeply for a lexicon") from None
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except ValueError as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from None


def _read(path: Path) -> str:
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path.stat().st_size} bytes; a lexicon has at most {MAX_BYTES}")
    content = path.read_bytes()
    if b"\0" in content:
        line = content[: content.index(b"\0")].count(b"\n") + 1
        raise ValueError(f"line {line}: a NUL character; a lexicon is plain text in UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(f"line {line}: not UTF-8 (byte 0x{content[error.start]:02x}); save it as UTF-8") from None


def parse_lexicon(content: Any, folder: Path = LEXICONS) -> Lexicon:
    """A lexicon from its file's parsed content; `names` is looked for in `folder`.

    ValueError, one line with section and word, where it is wrong.
    """
    if not isinstance(content, dict):
        raise ValueError("a lexicon is a mapping with the keys " + ", ".join(_KEYS))
    _check_keys(content, _KEYS, "top level")
    for key in _REQUIRED:
        if not content.get(key):
            raise ValueError(f"{key}: missing or empty")
    for key in ("name", "licence", "source"):
        if not isinstance(content[key], str):
            raise ValueError(f"{key}: expected text, got {content[key]!r}")
    if type(content["version"]) is not int:
        raise ValueError(f"version: expected a whole number, got {content['version']!r}")
    groups = tuple(_strings(content["groups"], "groups"))
    if len(groups) < 2 or len(set(groups)) < len(groups):
        raise ValueError(f"groups: expected two or more different names, got {', '.join(groups)}")
    for key in _OF_TWO_GROUPS:
        if key in content and len(groups) != 2:
            raise ValueError(f"{key}: takes exactly two groups, this lexicon has {len(groups)}; put its words in pools")

    rules: dict[str, Rule] = {}

    def add(word: str, rule: Rule, where: str) -> None:
        for checked in (word, *rule.targets):
            if checked != " ".join(checked.lower().split()) or not checked[:1].isalpha():
                raise ValueError(f"{where}: {checked!r} is not a word in lower case, or words with one blank between")
        if word in rules:
            earlier = rules[word]
            both = f"already stands for {earlier.group}" if earlier.group != rule.group else "stands twice"
            to = ", ".join(earlier.targets) or f"pools.{earlier.topic}"
            raise ValueError(f"{where}: {word!r} {both} (→ {to}); a word has one rule")
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
    pools = _pools(content, groups)
    spelt = {word.lower(): word for word in rules}
    for topic, sides in pools.items():
        for group in groups:
            for word in sides[group]:
                if word.lower() in spelt:
                    other = rules[spelt[word.lower()]]
                    seen = f"as {spelt[word.lower()]!r} " if spelt[word.lower()] != word else ""
                    place = f"pools.{other.topic}.{other.group}" if other.topic else f"the words of {other.group}"
                    raise ValueError(f"pools.{topic}.{group}: {word!r} already stands {seen}in {place}")
                spelt[word.lower()] = word
                rules[word] = Rule(group, (), "pool", topic=topic)

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
            rules[word] = replace(rule, only=condition)

    fixed = _strings(content.get("fixed") or [], "fixed")
    for phrase in fixed:
        if phrase in rules:
            raise ValueError(f"fixed: {phrase!r} is a word of this lexicon; a phrase is more than that word")
    cues = _strings(content.get("cues") or [], "cues")
    for cue in cues:
        if cue in rules:
            raise ValueError(f"cues: {cue!r} is also reversed")
    for section, words in (("fixed", fixed), ("cues", cues)):
        for word in words:
            if words.count(word) > 1:
                raise ValueError(f"{section}: {word!r} stands twice")
    for group in groups:
        if not any(rule.group == group for rule in rules.values()):
            raise ValueError(f"groups: {group!r} has no word")
    names = _names(content.get("names"), folder)
    canonical = json.dumps([content, names.fingerprint] if names else content, ensure_ascii=False, sort_keys=True)
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
        pools=pools,
        names=names,
    )


def _pairs(content: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    for topic, rows in _mapping(content.get("pairs") or {}, "pairs").items():
        for row in _strings(rows, f"pairs.{topic}"):
            yield (f"pairs.{topic}", *_columns(row, f"pairs.{topic}"))
    for patterns, stems in _mapping(content.get("compounds") or {}, "compounds").items():
        for stem in _strings(stems, "compounds"):
            for pattern in patterns.split(","):
                yield ("compounds", *_columns(pattern.replace("*", stem), "compounds"))


def _pools(content: dict[str, Any], groups: tuple[str, ...]) -> dict[str, dict[str, tuple[str, ...]]]:
    pools = {}
    for topic, sides in _mapping(content.get("pools") or {}, "pools").items():
        _check_keys(_mapping(sides, f"pools.{topic}"), groups, f"pools.{topic}")
        for group in groups:
            where = f"pools.{topic}.{group}"
            if not sides.get(group):
                raise ValueError(f"{where}: missing or empty; a topic has words of every group")
            for word in _strings(sides[group], where):
                if not word[0].isalpha() or word != " ".join(word.split()):
                    raise ValueError(f"{where}: {word!r} is not a word, or words with one blank between them")
        pools[topic] = {group: tuple(sides[group]) for group in groups}
    return pools


def _names(file: Any, folder: Path) -> Names | None:
    if file is None:
        return None
    if not isinstance(file, str) or not file.strip():
        raise ValueError(f"names: expected the name of a file, got {file!r}")
    from counterfactuals.text.names import load_names

    if not (folder / file).is_file():
        raise ValueError(f"names: {folder / file}: no such file (the path is relative to the lexicon)")
    return load_names(folder / file)


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
        way = [word]
        while (step := rules.get(way[-1])) and step.kind == "one_way" and word not in way[1:]:
            if step.targets[0] in way[1:]:
                break  # a cycle further on, reported from one of its own words
            way.append(step.targets[0])
        if word in way[1:]:
            raise ValueError(f"one_way: {' → '.join(map(repr, way))} is a cycle; write one pair of it under pairs")


def _by_group(content: dict[str, Any], section: str, groups: tuple[str, ...]) -> list[tuple[str, Any]]:
    entries = _mapping(content.get(section) or {}, section)
    _check_keys(entries, groups, section)
    return [(group, rows) for group, rows in entries.items() if rows]


def _columns(row: str, where: str) -> tuple[str, str]:
    columns = row.split()
    if len(columns) != 2:
        raise ValueError(f"{where}: {row!r} is not two words (a column is a word of one group)")
    return columns[0].replace("_", " "), columns[1].replace("_", " ")


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
    """PyYAML keeps the last of two equal keys without a word; here that is an error, as is all but plain YAML."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or event.anchor or getattr(event, "tag", None):
            raise ValueError(f"line {event.start_mark.line + 1}: anchors, aliases and tags (& * !) are not read")
        return super().compose_node(parent, index)

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
