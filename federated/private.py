"""A guarantee for each client, with all its texts (user-level differential privacy).

Clients are asked independently of each other, each with the same probability; the difference of each is clipped, the
clipped ones are summed, noise is added once, and the sum divided by the number of clients that is expected. One client
more or less moves the sum by at most the bound. The server sees the differences: it is trusted. Source: McMahan et al.
2018, "Learning differentially private recurrent language models" (arXiv 1710.06963).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from federated.message import Tensors
from federated.server import Mean
from privacy.noise import Keys


@dataclass(frozen=True)
class Guarantee:
    """rate: the chance of a client to be asked; noise: standard deviation of the noise over max_norm, the bound."""

    keys: Keys
    rate: float
    max_norm: float
    noise: float
    facts: dict[str, Any]

    def choose(self, texts_N: np.ndarray, round: int) -> np.ndarray:
        """The clients of a round, a secret's choice; one without texts could add nothing, and is left alone."""
        asked = self.keys.draws("clients", round).random(len(texts_N)) < self.rate
        return np.flatnonzero(asked & (texts_N > 0))

    def mean(self, weights: Tensors, round: int, clients: int) -> PrivateMean:
        return PrivateMean(self, weights, round, self.rate * clients)


class PrivateMean(Mean):
    """Sum of clipped differences and noise, over the expected number: also where nobody answers."""

    def __init__(self, guarantee: Guarantee, weights: Tensors, round: int, expected: float):
        super().__init__()
        self.sum = {name: x.double() * 0.0 for name, x in sorted(weights.items())}
        self.weight, self._guarantee, self._round = expected, guarantee, round

    def add(self, difference: Tensors, weight: float) -> bool:
        norm = math.sqrt(sum(float(x.double().square().sum()) for x in difference.values()))
        if not math.isfinite(norm):
            return False
        for name, x in difference.items():
            self.sum[name] += x.double() * min(1.0, self._guarantee.max_norm / max(norm, 1e-30))
        return True

    def result(self) -> Tensors:
        g = self._guarantee
        for number, total in enumerate(self.sum.values()):
            g.keys.add_noise_(total, g.max_norm * g.noise, self._round, number)
        return super().result()
