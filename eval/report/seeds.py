"""Models trained with several seeds → one row each, with an interval over the seeds."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_SEEDED = re.compile(r"(.+)-seed(\d+)$")


def over_training_seeds(rows: Sequence[Mapping[str, Any]], confidence: float = 0.95) -> list[dict[str, Any]]:
    """One row for the rows NAME-seed0, NAME-seed1 …: means over seeds, with Student's t intervals of the mean.

    value: mean over the seeds that have one; low, high: its interval (None for a single seed); seeds: how many. The
    interval says how far the mean may move if models are trained again with other seeds. It does not cover the choice
    of prompts: that is in the rows of single models. Rows without a seed in their name stay as they are.
    """
    from scipy import stats

    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        seeded = _SEEDED.match(row["model"])
        groups.setdefault(seeded[1] if seeded else row["model"], []).append(row)
    found = []
    for name, members in groups.items():
        if not _SEEDED.match(members[0]["model"]):
            found.append(dict(members[0]))
            continue
        tasks: dict[str, dict[str, Any]] = {}
        for label, metrics in members[0]["tasks"].items():
            tasks[label] = {}
            for metric, first in metrics.items():
                figures = [row["tasks"].get(label, {}).get(metric, {}).get("value") for row in members]
                values = np.array([value for value in figures if value is not None], dtype=np.float64)
                mean = float(values.mean()) if len(values) else None
                low = high = None
                if len(values) > 1:
                    half = stats.t.ppf((1 + confidence) / 2, len(values) - 1) * stats.sem(values)
                    low, high = float(values.mean() - half), float(values.mean() + half)
                tasks[label][metric] = {"value": mean, "low": low, "high": high, "seeds": len(values)}
                tasks[label][metric]["ideal"] = first.get("ideal")
        found.append({"model": name, "tasks": tasks})
    return found
