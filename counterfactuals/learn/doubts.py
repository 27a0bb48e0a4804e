"""Fits text/doubts.yaml: how often a passage with a reason for doubt is reversed wrongly, from marked passages.

A passage is right if none of its reasons struck: P(right) = Π (1 − p(reason)). The p are those of largest likelihood
(a convex problem in −log(1 − p)), each drawn towards the mean error rate as if a few passages more had been read.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from scipy.optimize import minimize

from counterfactuals.files import write_whole

COMMON = ("base", "named")  # reasons of every passage, and of every name that turns
PRIOR = 4.0  # passages that are added for each reason, wrong at the mean rate


class Marked(NamedTuple):
    """A passage that was read: its reasons for doubt, and whether its reversal is wrong."""

    reasons: tuple[str, ...]
    wrong: bool


def read_marks(paths: Iterable[str | Path]) -> list[Marked]:
    """The marked rows of audit files that name reasons; a borderline case, by its kind, counts as right.

    ValueError for a file without the columns.
    """
    found = []
    for path in paths:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            missing = {"verdict", "reasons"} - set(rows.fieldnames or ())
            if missing:
                raise ValueError(f"{path}: no column {', '.join(sorted(missing))}; is this a marked audit.csv?")
            for row in rows:
                if row["verdict"] in ("ok", "wrong"):
                    wrong = row["verdict"] == "wrong" and not (row.get("kind") or "").startswith("borderline")
                    found.append(Marked(tuple(_reasons(row["reasons"])), wrong))
    if not found:
        raise ValueError("learn_doubts: no marked passage in these files")
    return found


def _reasons(cell: str) -> Iterator[str]:
    """The reasons of a cell: "base named*2" are base, named, named."""
    for part in cell.split():
        reason, _, times = part.partition("*")
        yield from [reason] * int(times or 1)


def fit(marked: Sequence[Marked], reasons: Sequence[str]) -> dict[str, float]:
    """Reason → the probability that it makes its passage wrong; a reason that was never marked gets the mean rate.

    >>> marks = [Marked(("a",), False)] * 90 + [Marked(("a", "b"), True)] * 10
    >>> {reason: round(p, 2) for reason, p in fit(marks, ["a", "b"]).items()}
    {'a': 0.0, 'b': 0.74}
    """
    rate = sum(passage.wrong for passage in marked) / len(marked)
    place = {reason: n for n, reason in enumerate(reasons)}
    kinds = Counter(marked)
    counts = np.zeros((len(kinds) + len(place), len(place)))  # how often each reason stands in each kind of passage
    right, wrong = np.zeros((2, len(counts)))
    for row, (passage, times) in enumerate(kinds.items()):
        for reason in passage.reasons:
            counts[row, place[reason]] += 1
        (wrong if passage.wrong else right)[row] = times
    for n in place.values():
        row = len(kinds) + n
        counts[row, n], right[row], wrong[row] = 1, PRIOR * (1 - rate), PRIOR * rate
    for reason in set(COMMON) & place.keys():  # these have marks enough
        right[len(kinds) + place[reason]] = wrong[len(kinds) + place[reason]] = 0

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        total = counts @ theta + 1e-9
        hit = -np.expm1(-total)  # P(wrong)
        value = float(right @ total - wrong @ np.log(hit))
        return value, counts.T @ (right - wrong * (1 - hit) / hit)

    start = np.full(len(place), -math.log1p(-min(rate, 0.9)))
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(place))
    return {reason: float(-np.expm1(-found.x[n])) for reason, n in place.items()}


def write(found: dict[str, float], marked: Sequence[Marked], path: Path, command: str) -> None:
    """Write doubts.yaml, whole or not at all; after each reason how many marked passages had it, and the wrong ones."""
    seen: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    for passage in marked:
        seen.update(set(passage.reasons))
        wrong.update(set(passage.reasons) if passage.wrong else ())
    lines = [
        "# Why a passage may be reversed wrongly: reason → the probability that it makes its passage wrong.",
        "# A passage's doubt is 1 − Π (1 − p) over its reasons: base once, named for each name that turns.",
        f"# Fitted on {len(marked):,} marked passages, {sum(p.wrong for p in marked):,} wrong: {command}",
        "doubts:",
    ]
    lines += [f"  {reason}: {found[reason]:.4f} # {wrong[reason]} of {seen[reason]}" for reason in sorted(found)]
    write_whole(path, "\n".join(lines) + "\n")


def calibration(marked: Sequence[Marked], doubts: dict[str, float], edges: Sequence[float]) -> list[dict[str, Any]]:
    """For each range of doubt between `edges`: how many passages, their mean doubt and the share that is wrong."""
    doubt = np.array([1 - math.prod(1 - doubts[reason] for reason in passage.reasons) for passage in marked])
    wrong = np.array([passage.wrong for passage in marked])
    rows = []
    for low, high in pairwise(edges):
        inside = (doubt >= low) & (doubt < high)
        if inside.any():
            rows.append(
                {"from": low, "to": high, "passages": int(inside.sum())}
                | {"doubt": float(doubt[inside].mean()), "wrong": float(wrong[inside].mean())}
            )
    return rows


def known(path: Path) -> list[str]:
    """The reasons that doubts.yaml names."""
    return list(yaml.safe_load(path.read_text(encoding="utf-8"))["doubts"])
