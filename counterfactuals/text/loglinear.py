"""Log-linear models: a bias plus one weight for each key of a place in the text give the log odds of "yes" there.

A data file is JSON that can be read:

    {"about": …, "provenance": {…},
     "classes": {"A": "able due likely", …},                          a letter for words that are used alike
     "models": {"her": {"bias": -2, "weights": {"next": {"-13": "at by", "21": "book"}, …}}, …}}

Weights are in tenths: each template ("next": the next word) has a table from its weights to the keys that have them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple


class Model(NamedTuple):
    """bias: log odds where no key is known. templates: their names, in order. tables: the weights of each, by key."""

    bias: float
    templates: tuple[str, ...]
    tables: tuple[dict[str, float], ...]


@cache
def load(path: Path) -> tuple[dict[str, str], dict[str, Model]]:
    """(Word → its class, name → model) of a data file; read once. Classes are {} if the file has none."""
    data = json.loads(path.read_text(encoding="utf-8"))
    classes = {word: name for name, words in data.get("classes", {}).items() for word in words.split(" ")}
    models = {
        name: Model(
            model["bias"] / 10,
            tuple(model["weights"]),
            tuple(
                {key: int(tenths) / 10 for tenths, keys in table.items() for key in keys.split(" ")}
                for table in model["weights"].values()
            ),
        )
        for name, model in data["models"].items()
    }
    return classes, models


def score(model: Model, keys: Iterable[str]) -> float:
    """The log odds of "yes" at a place with these keys, one for each template; a key without a weight counts 0.

    >>> model = Model(-0.5, ("next",), ({"book": 2.0},))
    >>> score(model, ["book"]), score(model, ["hat"])
    (1.5, -0.5)
    """
    total = model.bias
    for table, key in zip(model.tables, keys):
        total += table.get(key, 0.0)
    return total


def probability(log_odds: float) -> float:
    """1 / (1 + e^−log_odds), without overflow."""
    odds = math.exp(-abs(log_odds))
    return 1 / (1 + odds) if log_odds >= 0 else odds / (1 + odds)
