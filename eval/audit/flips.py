"""Single answers that differ between two forms of a model while the averages stay: a float model and its 8 bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from eval.audit.measured import Measured
from eval.measures.intervals import bootstrap
from eval.task import Row

ANSWERS: dict[str, Callable[[Row], Any]] = {  # task: what a row's answer is
    "next_word": lambda row: "male" if row["p_male"] > row["p_female"] else "female",
    "agreement": lambda row: "right" if row["p_right"] > row["p_wrong"] else "wrong",
    "crows_pairs": lambda row: "stereotype" if row["logp_more"] > row["logp_less"] else "other",
    "stereoset": lambda row: "stereotype" if row["score_stereotype"] > row["score_anti_stereotype"] else "other",
    "winobias": lambda row: "stereotype" if row["logp_pro"] > row["logp_anti"] else "other",
    "winogender": lambda row: "male" if row["logp_male"] > row["logp_female"] else "female",
    "impact": lambda row: "selected" if row["selected"] else "not selected",
    "bbq": lambda row: row.get("answer"),
    "blimp": lambda row: "right" if row["right"] else "wrong",
    "hellaswag": lambda row: row["logp"].index(max(row["logp"])),
    "last_word": lambda row: "right" if row["correct"] else "wrong",
}


class Flips(NamedTuple):
    """Of n paired answers: the share that differs with its interval, and how many went from one answer to another."""

    label: str
    n: int
    share: float
    low: float
    high: float
    moves: dict[str, int]


def flips(a: Measured, b: Measured) -> list[Flips]:
    """One entry for each task that both have and whose rows hold an answer."""
    found = []
    for label in a.parts:
        answer = ANSWERS.get(label.partition("@")[0])
        if answer and label in b.parts:
            pairs = [(answer(one), answer(two)) for one, two in zip(a.rows(label), b.rows(label), strict=True)]
            differs_N = np.array([one != two for one, two in pairs], np.float64)
            bounds = bootstrap(np.stack([differs_N, np.ones(len(pairs))], 1), lambda s: s[:, 0] / s[:, 1])
            moved = [f"{one} → {two}" for one, two in pairs if one != two]
            moves = {name: moved.count(name) for name in sorted(set(moved))}
            found.append(Flips(label, len(pairs), float(differs_N.mean()), bounds[0], bounds[1], moves))
    return found
