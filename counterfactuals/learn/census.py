"""The table of given names from a census list and the project's own: which carry a role, which are exchanged."""

from __future__ import annotations

import csv
import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from math import log
from pathlib import Path
from typing import Any

import yaml

from counterfactuals.files import write_whole
from counterfactuals.text.names import GROUPS, USUAL, names_context

KINDS = ("words", "surnames", "places", "regions", "full_names", "commons")  # sections of names_context.yaml
NUM_WEAK = 4  # the first of them: alone their names are mostly something else
NOT_PAIRED = ("mononyms", "before_given", "before_surname", "before_thing", "fixed")
LISTS = tuple(sorted(Path(__file__).parent.glob("names_*.yaml")))  # pairs by language, "female male"
RARE = 5000  # bearers; of rarer names more are entered under the wrong sex
RATIO = 10  # of the frequencies of a pair, at most
LIKENESS = 0.7  # weight of letters against the logarithm of frequency


def make(csv_path: str | Path, lists: Sequence[Path] = LISTS, *, known: float = 0.05) -> dict[str, Any]:
    """The table of given names from a census list (columns name, male, female: how many bear it) and the project's own.

    A name is known if the rarer sex is below `known` of its bearers, twice that if it is rare; the lists in
    names_context.yaml come first. Names are paired from the most frequent down: each takes, of the free names of about
    its rank in the other group, the one most like it in frequency and letters. A counterpart has to be recognised where
    its partner was, so a name that is also a word, a place or a surname looks among those of the same kind, then of
    another such kind; other names among themselves. Titles and what is left have no partner. The pairs of `lists` come
    after the `USUAL[1]` most frequent ones; their names are left out of the census. Deterministic.
    """
    ours, of_either = _listed(lists)
    count, kinds, single, either = _sorted(csv_path, of_either.union(*ours), known)
    pairs: list[tuple[str, str]] = []
    plain = kinds.pop((False,) * len(KINDS), ([], []))
    rest: tuple[list[str], list[str]] = ([], [])
    for kind, like in sorted(kinds.items()):
        for left, names in zip(rest if any(kind[:NUM_WEAK]) else plain, _pair(*like, count, pairs), strict=True):
            left += names
    for unpaired in (_pair(*rest, count, pairs), _pair(*plain, count, pairs, by_rank=True)):
        for label, names in zip(GROUPS, unpaired, strict=True):
            single[label] += names
    pairs.sort(key=lambda pair: (-count[pair[0]] - count[pair[1]], pair))
    pairs[USUAL[1] : USUAL[1]] = ours
    either |= of_either
    return {
        "source": "US Social Security Administration, given names of births 1880–2010: public domain; "
        f"and {len(lists)} lists written by the project: {', '.join(path.name for path in lists)}",
        "command": "python -m counterfactuals names --census us_first_names_1880_2010.csv --output given_names.json",
        "counts": {"pairs": len(pairs), "either": len(either), **{f"single_{g}": len(single[g]) for g in GROUPS}},
        "pairs": pairs,
        "single": single,
        "either": sorted(either),
    }


Kinds = dict[tuple[bool, ...], tuple[list[str], list[str]]]  # which of KINDS → the names of each group


def _sorted(
    csv_path: str | Path, listed: set[str], known: float
) -> tuple[dict[str, int], Kinds, dict[str, list[str]], set[str]]:
    """The census without `listed` names: bearers by name, names to pair by kind, single ones, those of either group."""
    context, kinds = names_context(), Kinds()
    count: dict[str, int] = {}
    single: dict[str, list[str]] = {group: [] for group in GROUPS}
    either = set(context["either"] - listed)
    alone = frozenset().union(*(context[section] for section in NOT_PAIRED))
    for name, male, female in _census(csv_path):
        both = male + female
        if name in either or name in listed:
            continue
        fits_both = min(male, female) >= (known if both > RARE else 2 * known) * both
        if fits_both and name not in context["female"] | context["male"]:
            either.add(name)
            continue
        group = int(name in context["male"] or (male > female and name not in context["female"]))
        count[name] = both
        kind = tuple(name in context[section] for section in KINDS)
        (single[GROUPS[group]] if name in alone else kinds.setdefault(kind, ([], []))[group]).append(name)
    return count, kinds, single, either


def _listed(lists: Sequence[Path]) -> tuple[list[tuple[str, str]], set[str]]:
    """The pairs of names_*.yaml and the names of either group. ValueError for a name that stands twice."""
    pairs: list[tuple[str, str]] = []
    either: set[str] = set()
    sections = [section for path in lists for section in yaml.safe_load(path.read_text(encoding="utf-8")).items()]
    for section, text in sections:
        if section == "either":
            either.update(text.split())
        else:
            pairs += [(female, male) for female, male in map(str.split, text.split(","))]
    twice = [name for name, times in Counter([*chain(*pairs), *either]).items() if times > 1]
    if twice:
        raise ValueError(f"{lists[0].parent}/names_*.yaml: {twice[0]!r} stands twice")
    return pairs, either


def write(table: dict[str, Any], path: Path) -> None:
    """Write the table, a pair a line; whole or not at all."""
    rows = {key: json.dumps(value, ensure_ascii=False) for key, value in table.items()}
    rows["pairs"] = rows["pairs"].replace("], [", "],\n[")
    write_whole(path, "{\n" + ",\n".join(f'"{key}": {value}' for key, value in rows.items()) + "\n}\n")


def _pair(
    female: list[str], male: list[str], count: dict[str, int], pairs: list[tuple[str, str]], by_rank: bool = False
) -> tuple[list[str], list[str]]:
    """Append to `pairs` until no like names are left; what is left of both."""
    females, males = (sorted(names, key=lambda name: (-count[name], name)) for names in (female, male))
    fewer, more = (females, males) if len(females) < len(males) else (males, females)
    ranks = {name: rank for rank, name in enumerate(more)}
    left = []
    for rank, name in enumerate(fewer):
        if not by_rank:
            near = bisect_left(more, -count[name], key=lambda n: -count[n])
            window = more[max(0, near - 6) : near + 6]
        else:
            window = more[: 6 + rank // 40]
            if rank - ranks[window[0]] > len(window):  # passed over long enough
                window = window[:1]
        scores = {n: LIKENESS * _likeness(name, n) - abs(log(count[n] / count[name])) for n in window}
        other = max(scores, key=lambda n: (scores[n], n), default=None)
        if other is None or not 1 / RATIO < count[other] / count[name] < RATIO:
            left.append(name)
        else:
            more.remove(other)
            pairs.append((name, other) if fewer is females else (other, name))
    return (left, more) if fewer is females else (more, left)


def _census(csv_path: str | Path) -> Iterator[tuple[str, int, int]]:
    with open(csv_path, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        try:
            for row in reader:
                name, male, female = row["name"], int(row["male"]), int(row["female"])
                if not name.isprintable() or not name.strip() or min(male, female) < 0 or not male + female:
                    raise ValueError
                yield name, male, female
        except UnicodeDecodeError:
            raise ValueError(f"{csv_path}: not UTF-8; convert it, e.g. with iconv") from None
        except (KeyError, TypeError, ValueError, AttributeError, csv.Error):
            raise ValueError(
                f"{csv_path}, line {reader.line_num}: expected the columns name, male, female: a name and two counts"
            ) from None
        if reader.line_num < 2:
            raise ValueError(f"{csv_path}: no name in it; expected the columns name, male, female")


def _likeness(one: str, other: str) -> float:
    """0 for names that share nothing, up to about 1 for a shared stem."""
    alike = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return alike / max(len(one), len(other)) + 0.2 * (one[-1] == other[-1]) - 0.05 * abs(len(one) - len(other))
