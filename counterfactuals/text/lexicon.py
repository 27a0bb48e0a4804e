"""Load and check an attribute's word table: the words that carry a role, and what each becomes in the other role.

A lexicon is one YAML file; `lexicons/gender.yaml` is the one to read and explains each of its sections.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from counterfactuals.files import StrictLoader, near, one_line
from counterfactuals.text.lexicon_file import Rule, check, refuse, shaped
from counterfactuals.text.names import Names, load_names

LEXICONS = Path(__file__).parents[1] / "lexicons"
MAX_BYTES = 5_000_000  # of a lexicon file; gender.yaml has 0.03 million
MOST_GROUPS = 6  # of a lexicon whose reversal is followed through a prediction: 120 cyclic orders
ANYWHERE = ("abbreviation", "not_name")  # under other conditions of `only`, elsewhere another word: to miss, to count


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
        kept = {word: rule for word, rule in self.rules.items() if rule.only in (None, *ANYWHERE)}
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

    ValueError for an unknown name and for anything wrong in the file: one line, with file and word, for each problem.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = LEXICONS / f"{name_or_path}.yaml"
        known = sorted(p.stem for p in LEXICONS.glob("*.yaml"))
        if str(name_or_path) not in known:
            raise ValueError(
                f"no lexicon {str(name_or_path)!r}{near(str(name_or_path), known)}; "
                f"there is {', '.join(known)}, or give the path of a .yaml file"
            )
    try:
        return parse_lexicon(_read(path), path.parent)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except ValueError as error:
        raise ValueError("\n".join(f"{path}: {line}" for line in str(error).splitlines())) from None


def parse_lexicon(content: Any, folder: Path = LEXICONS) -> Lexicon:
    """A lexicon from its file's parsed content; `names` is looked for in `folder`.

    ValueError, one line with section and word for each problem. Words are checked once every section has its shape.
    """
    file = shaped(content)
    rules = check(file)
    if file.names and not (folder / file.names).is_file():
        refuse([f"names: {folder / file.names}: no such file (the path is relative to the lexicon)"])
    names = load_names(folder / file.names) if file.names else None
    canonical = json.dumps([content, names.fingerprint] if names else content, ensure_ascii=False, sort_keys=True)
    return Lexicon(
        name=file.name,
        version=file.version,
        licence=file.licence,
        source=file.source,
        groups=tuple(file.groups),
        fingerprint=hashlib.sha256(canonical.encode()).hexdigest(),
        rules=rules,
        cues=frozenset(file.cues),
        fixed=tuple(file.fixed),
        pools={topic: {g: tuple(sides[g]) for g in file.groups} for topic, sides in file.pools.items()},
        names=names,
    )


# ---------------------------------------------------------------- YAML, read strictly


def _read(path: Path) -> Any:
    """The content of a YAML file. ValueError, one line, where it is not plain YAML in UTF-8; FileNotFoundError."""
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path.stat().st_size} bytes; a lexicon has at most {MAX_BYTES}")
    content = path.read_bytes()
    if b"\0" in content:
        line = content[: content.index(b"\0")].count(b"\n") + 1
        raise ValueError(f"line {line}: a NUL character; a lexicon is plain text in UTF-8")
    try:
        return yaml.load(content.decode("utf-8-sig"), Loader=_PlainLoader)  # nosec B506
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(f"line {line}: not UTF-8 (byte 0x{content[error.start]:02x}); save it as UTF-8") from None
    except yaml.YAMLError as error:
        raise ValueError(f"not valid YAML: {one_line(error)}") from None
    except RecursionError:
        raise ValueError("nested too deeply for a lexicon") from None


class _PlainLoader(StrictLoader, yaml.SafeLoader):
    """All but plain YAML is an error."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or event.anchor or getattr(event, "tag", None):
            raise ValueError(f"line {event.start_mark.line + 1}: anchors, aliases and tags (& * !) are not read")
        return super().compose_node(parent, index)
