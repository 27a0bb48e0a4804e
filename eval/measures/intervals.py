"""Bootstrap intervals, differences between models over the same resamples, correlations. Plain numpy and scipy.

Shapes: C clusters (what is resampled as one piece), K columns, R resamples.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


def cluster_sums(clusters: Sequence[Any], values_NK: Any) -> np.ndarray:
    """Sums of rows that share a cluster: (N, K) → (C, K), clusters in order of first appearance."""
    number: dict[Any, int] = {}
    index = [number.setdefault(cluster, len(number)) for cluster in clusters]
    values_NK = np.asarray(values_NK, np.float64)
    out = np.zeros((len(number), *values_NK.shape[1:]))
    np.add.at(out, index, values_NK)
    return out


def resampled_sums(values_CK: Any, *, num_resamples: int = 1000, seed: int = 0) -> np.ndarray:
    """Column sums of bootstrap resamples of the C rows, one per cluster of dependent values: (R, K)."""
    values_CK = np.asarray(values_CK, np.float64)
    num_clusters = len(values_CK)
    generator = np.random.default_rng(seed)
    out = np.empty((num_resamples, values_CK.shape[1]))
    step = max(1, 2**21 // max(1, num_clusters))
    for begin in range(0, num_resamples, step):
        size = min(step, num_resamples - begin)
        drawn = generator.integers(num_clusters, size=(size, num_clusters))
        drawn += np.arange(size)[:, None] * num_clusters
        weights = np.bincount(drawn.ravel(), minlength=size * num_clusters).reshape(size, num_clusters)
        out[begin : begin + size] = weights @ values_CK
    return out


class Interval(tuple[float, float]):
    """(low, high), with the resampled values (R,) that it comes from; undefined values are NaN.

    Resamples of the same seed and number of clusters are the same draws, so those of two models are paired.
    """

    samples: np.ndarray | None
    most: float | None  # what a folded value, whose bias was removed, can be at most; None: of other values

    def __new__(cls, low: float, high: float, samples: np.ndarray | None = None, *, most: float | None = None):
        self = super().__new__(cls, (float(low), float(high)))
        self.samples, self.most = samples, most
        return self


def interval(samples: Any, confidence: float = 0.95, *, around: float | None = None, most: float = 1.0) -> Interval:
    """Percentile interval of resampled values; NaNs (undefined resamples) are left out.

    (NaN, NaN) if none is left or all are equal: one prompt, or 0 of n, says nothing about the value's uncertainty.
    Folded values are biased by noise: min(m/f, f/m) and minima are pulled down, |x| is pushed up. A value has that
    bias once, its resamples have it twice. `around` a value in [0, `most`] both biases (each: value − mean of the
    resamples) are removed: the interval is shifted by twice the bias, but always contains the value, and is kept
    within [0, `most`].
    """
    samples_R = np.asarray(samples, np.float64)
    folded = None if around is None else most
    known = samples_R[~np.isnan(samples_R)]
    with np.errstate(invalid="ignore"):  # a ratio without a denominator is infinite
        if not len(known) or np.ptp(known) < 1e-12:
            return Interval(np.nan, np.nan, samples_R, most=folded)
        low, high = np.quantile(known, [(1 - confidence) / 2, (1 + confidence) / 2])
    if around is not None:
        bias = around - known.mean()
        low, high = np.clip([low + min(bias, 2 * bias), high + max(bias, 2 * bias)], 0, most)
    return Interval(low, high, samples_R, most=folded)


def paired_difference(value: float, first: Interval, second: Interval) -> tuple[Interval, float]:
    """Interval and two-sided bootstrap p of second − first = `value`, from resamples that are the same draws of both.

    The resampled differences are centred on `value`: noise biases a folded ratio once in both models' values and twice
    in both models' resamples, so one bias would be left. p is twice the smaller share of them on either side of 0. Each
    side counts the value itself once, so p is never 0. NaN without resamples, or if one of them is infinite (a ratio
    without a denominator).
    """
    if first.samples is None or second.samples is None or len(first.samples) != len(second.samples):
        return Interval(np.nan, np.nan), float("nan")
    if np.isinf(first.samples).any() or np.isinf(second.samples).any():
        return Interval(np.nan, np.nan), float("nan")
    samples_R = second.samples - first.samples
    samples_R = samples_R[~np.isnan(samples_R)]
    if not len(samples_R):
        return Interval(np.nan, np.nan), float("nan")
    samples_R = samples_R + (value - samples_R.mean())
    p = 2 * (1 + min((samples_R <= 0).sum(), (samples_R >= 0).sum())) / (1 + len(samples_R))
    return interval(samples_R), float(min(1.0, p))


def bootstrap(
    values_CK: Any, statistic: Callable[[np.ndarray], Any], *, num_resamples: int = 1000, seed: int = 0
) -> Interval:
    """Percentile bootstrap interval of statistic(column sums), rows being the clusters; NaN for fewer than two rows.

    `statistic` maps (R, K) sums to (R,) values: perplexity is lambda s: np.exp(s[:, 0] / s[:, 1]), rows (nll, tokens).
    """
    if len(values_CK) < 2:
        return Interval(np.nan, np.nan)
    return interval(statistic(resampled_sums(values_CK, num_resamples=num_resamples, seed=seed)))


def pearson(x: Any, y: Any) -> np.ndarray:
    """Pearson's r over the last axis; NaN where either side is constant or has one value only."""
    from scipy import stats

    x, y = np.broadcast_arrays(np.asarray(x, np.float64), np.asarray(y, np.float64))
    if x.shape[-1] < 2:
        return np.full(x.shape[:-1], np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", (stats.ConstantInputWarning, stats.NearConstantInputWarning))
        return np.asarray(stats.pearsonr(x, y, axis=-1).statistic)


def spearman(x: Any, y: Any) -> np.ndarray:
    """Spearman's ρ over the last axis: Pearson's r of the ranks, where equal values share the mean of theirs."""
    from scipy.stats import rankdata

    return pearson(rankdata(x, axis=-1), rankdata(y, axis=-1))
