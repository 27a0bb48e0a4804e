"""Embedding association tests: effect size, permutation p, random-effects combination. Plain numpy, in float64.

s(w, A, B) = mean over a of cos(w, a) − mean over b of cos(w, b). Positive effect sizes: X goes with A, Y with B.
Sources: WEAT (Caliskan et al. 2017), SEAT (May et al. 2019; sent-bias `weat.py`), CEAT (Guo & Caliskan 2021).
Shapes: N items, D width, leading dimensions (draws) where they make sense.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from eval.measures.vectors import unit


def associations(targets: Any, a: Any, b: Any) -> np.ndarray:
    """s(w, A, B) of each target: (…, N, D), (…, NA, D), (…, NB, D) → (…, N)."""
    direction = unit(a).mean(-2) - unit(b).mean(-2)  # the mean of cosines is the cosine part of the mean
    return (unit(targets) @ direction[..., None])[..., 0]


def effect_size(s_x: Any, s_y: Any) -> np.ndarray:
    """(mean s over X − mean s over Y) / std of s over X ∪ Y, ddof 1: (…, NX), (…, NY) → (…). NaN where it is 0."""
    s_x, s_y = np.asarray(s_x, np.float64), np.asarray(s_y, np.float64)
    spread = np.concatenate([s_x, s_y], -1).std(-1, ddof=1)
    difference = s_x.mean(-1) - s_y.mean(-1)
    return np.divide(difference, spread, out=np.full(np.shape(difference), np.nan), where=spread > 0)


def permutation_p(s_x: Any, s_y: Any, *, num_samples: int = 100_000, seed: int = 0) -> float:
    """One-sided p: the share of partitions of X ∪ Y into sets of these sizes whose first set sums to at least X's.

    Exact if there are at most `num_samples` partitions; else so many are drawn, the first of which counts as a hit
    (as in sent-bias), so p is never 0.
    """
    s_x, s_y = np.asarray(s_x, np.float64), np.asarray(s_y, np.float64)
    both, size = np.concatenate([s_x, s_y]), len(s_x)
    least = s_x.sum() - 1e-12 * max(1.0, np.abs(both).sum())  # equal up to rounding counts as equal
    if math.comb(len(both), size) <= num_samples:
        sums = np.array([both[list(chosen)].sum() for chosen in itertools.combinations(range(len(both)), size)])
        return float((sums >= least).mean())
    generator = np.random.default_rng(seed)
    hits, left = 1, num_samples - 1
    while left:
        part = min(left, max(1, 2**21 // len(both)))
        drawn = generator.permuted(np.tile(both, (part, 1)), axis=1)[:, :size].sum(1)
        hits += int((drawn >= least).sum())
        left -= part
    return hits / num_samples


def bootstrap_effects(s_x: Any, s_y: Any, *, num_resamples: int = 1000, seed: int = 0) -> np.ndarray:
    """Effect sizes of resamples of X and of Y, each drawn from itself: (R,)."""
    generator = np.random.default_rng(seed)
    s_x, s_y = np.asarray(s_x, np.float64), np.asarray(s_y, np.float64)
    drawn = [s[generator.integers(len(s), size=(num_resamples, len(s)))] for s in (s_x, s_y)]
    return effect_size(*drawn)


def chance_effects(s_x: Any, s_y: Any, *, num_draws: int = 1000, seed: int = 0) -> np.ndarray:
    """Effect sizes of random splits of X ∪ Y into sets of the same sizes: what chance alone gives, (draws,)."""
    s_x, s_y = np.asarray(s_x, np.float64), np.asarray(s_y, np.float64)
    both = np.tile(np.concatenate([s_x, s_y]), (num_draws, 1))
    drawn = np.random.default_rng(seed).permuted(both, axis=1)
    return effect_size(drawn[:, : len(s_x)], drawn[:, len(s_x) :])


def random_effects(effects: Any, variances: Any) -> tuple[np.ndarray, np.ndarray]:
    """Combined effect size and its standard error, of N effect sizes with variances V_i: (…, N), (…, N) → (…), (…).

    Random-effects model (Hedges & Vevea 1998) as in CEAT: W = 1/V; Q = ΣW·ES² − (ΣW·ES)²/ΣW;
    σ²_between = max(0, (Q − (N−1)) / (ΣW − ΣW²/ΣW)); v = 1/(V + σ²_between); CES = Σv·ES/Σv; SE = 1/√Σv.
    """
    effects, variances = np.asarray(effects, np.float64), np.asarray(variances, np.float64)
    weights = 1 / variances
    total = weights.sum(-1)
    q = (weights * effects**2).sum(-1) - (weights * effects).sum(-1) ** 2 / total
    c = total - (weights**2).sum(-1) / total
    excess = q - (effects.shape[-1] - 1)
    between = np.maximum(0.0, np.divide(excess, c, out=np.zeros(np.shape(c)), where=c > 0))
    v = 1 / (variances + between[..., None])
    return (v * effects).sum(-1) / v.sum(-1), 1 / np.sqrt(v.sum(-1))


def bootstrap_combined(effects: Any, variances: Any, *, num_resamples: int = 1000, seed: int = 0) -> np.ndarray:
    """Combined effect sizes of resamples of the N draws: (R,)."""
    effects, variances = np.asarray(effects, np.float64), np.asarray(variances, np.float64)
    generator, out, step = np.random.default_rng(seed), np.empty(num_resamples), max(1, 2**19 // len(effects))
    for begin in range(0, num_resamples, step):
        drawn = generator.integers(len(effects), size=(min(step, num_resamples - begin), len(effects)))
        out[begin : begin + step] = random_effects(effects[drawn], variances[drawn])[0]
    return out


def two_tailed_p(value: float, error: float) -> float:
    """P(|Z| ≥ |value / error|) of a standard normal Z."""
    from scipy.stats import norm

    return float(2 * norm.sf(abs(value / error)))
