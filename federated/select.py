"""Which clients a round asks: pure in (seed, round). N clients.

Source: Dupuy et al. 2022, "Learnings from federated learning in the real world" (arXiv 2202.03925): a device's activity
is its number of samples.
"""

from __future__ import annotations

import numpy as np


def probabilities(texts_N: np.ndarray, rule: str, *, exponent: float = 1.0, uniform_share: float = 0.5) -> np.ndarray:
    """(N,) chance to be drawn first; 0 without a text at hand. rule: uniform, activity or mixture."""
    has = texts_N > 0
    even = has / has.sum()
    if rule == "uniform":
        return even
    weight = np.where(has, np.maximum(texts_N, 1) / max(texts_N.max(), 1), 0.0) ** exponent * has
    active = weight / weight.sum()
    return active if rule == "activity" else uniform_share * even + (1 - uniform_share) * active


def choose(
    texts_N: np.ndarray,
    number: int,
    rule: str,
    *,
    seed: int,
    round: int,
    exponent: float = 1.0,
    uniform_share: float = 0.5,
) -> np.ndarray:
    """The clients that round `round` asks, in order: `number` of them, or all that have a text.

    most_active takes those with the most texts, lower numbers first. The other rules draw one after the other without
    replacement, each with its probability among those that are left (the largest of log p + Gumbel noise).
    """
    number = min(number, int((texts_N > 0).sum()))
    if rule == "most_active":
        return np.sort(np.argsort(-texts_N, kind="stable")[:number])
    p_N = probabilities(texts_N, rule, exponent=exponent, uniform_share=uniform_share)
    with np.errstate(divide="ignore"):
        key_N = np.log(p_N) + np.random.default_rng([seed, round, 0xA5C]).gumbel(size=len(p_N))
    return np.sort(np.argpartition(-key_N, number - 1)[:number]) if number else np.zeros(0, dtype=np.int64)


def answers(chosen: np.ndarray, missing: float, *, seed: int, round: int) -> np.ndarray:
    """(len(chosen),) whether each answers, in a simulation where a share `missing` does not."""
    return np.random.default_rng([seed, round, 0x0FF]).random(len(chosen)) >= missing
