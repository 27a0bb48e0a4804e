"""Inversion: can a planted secret be computed from the weights, by gradient descent on the model's input?

ModIvA, Parikh et al. 2022, restated for causal language models; see privacy/inversion.py. Version 1. For `attacked`
planted canaries, and as many that were kept out (`…/control`): `found`, the share whose whole secret gradient descent
gives, by chance 1 / (symbols ^ length); `symbols`, the share of single symbols. Beside them, on the same canaries, what
needs no gradient: `enumerated` (the secret is likeliest of all, where there are at most 10⁴), `greedy`, `beam`. For a
language model beam search is the stronger attack; inversion is for classifiers (`classifier=FOLDER`), where greedy and
beam see half-finished texts only.

Not measured: prefixes that the attacker does not know. Intervals: bootstrap over canaries.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from eval.measures import targets
from eval.model import Scorer
from eval.task import Metrics, Row, average, check_options
from privacy import inversion

OPTIONS = {"attacked": 10, "restarts": 32, "steps": 1000, "beam": 10, **targets.OPTIONS}
MOST = 10_000  # codes to try one by one


def load(data_dir: Path, options: Mapping[str, Any], limit: int | None, seed: int) -> list[Row]:
    check_options("inversion", options, attacked=1, restarts=1, steps=1, beam=1)
    rows = targets.load("inversion", data_dir, options, limit)
    return [row for side in (True, False) for row in [r for r in rows if r["planted"] is side][: options["attacked"]]]


def score(scorer: Scorer, rows: list[Row], options: Mapping[str, Any], seed: int) -> list[Row]:
    goal = targets.target("inversion", scorer, options)
    out = []
    for row in rows:
        secret, where = tuple(row["secret"]), goal.layout(row)
        size: dict[str, Any] = {"length": len(secret), "num_symbols": len(row["alphabet"])}
        settings = {key: options[key] for key in ("restarts", "steps")}
        code, _ = inversion.invert(goal.loss(where, row), **size, **settings, seed=seed + row["id"])
        found = {"id": row["id"], "planted": row["planted"], "found": code == secret}
        found["symbols"] = float(np.mean([a == b for a, b in zip(code, secret)]))
        found["chance"] = size["num_symbols"] ** -size["length"]
        if 1 / found["chance"] <= MOST + 0.5:
            codes = inversion.every_code(**size)
            losses = goal.losses(where, row, codes)
            found["enumerated"] = bool(losses[codes.index(secret)] <= losses.min())
        for name, width in (("greedy", 1), ("beam", options["beam"])):
            search = inversion.beam(lambda some: goal.losses(where, row, some), **size, width=width)  # noqa: B023
            found[name] = search == secret
        out.append(found)
        if scorer.progress:
            scorer.progress(len(out), len(rows))
    return out


def aggregate(rows: list[Row], options: Mapping[str, Any], seed: int) -> Metrics:
    metrics: Metrics = {}
    for suffix, planted in (("", True), ("/control", False)):
        part = [row for row in rows if row["planted"] is planted]
        for name in ("found", "symbols", "enumerated", "greedy", "beam"):
            if part and name in part[0]:
                ideal = None if name == "symbols" else part[0]["chance"]
                metrics[f"{name}{suffix}"] = average([row[name] for row in part], ideal=ideal, seed=seed)
    return metrics
