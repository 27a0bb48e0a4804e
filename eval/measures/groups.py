"""How classification differs between groups of people: rates, gaps, and the gap that chance alone would give.

Plain numpy; N people, L labels, G groups, R resamples. Sources: true positive rate gap, De-Arteaga et al. 2019 (Bias in
Bios); subgroup AUCs, Borkan et al. 2019, as HateXplain (Mathew et al. 2021) uses them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from eval.measures.intervals import resampled_sums


def numbered(values: Sequence[Any], names: Sequence[Any]) -> np.ndarray:
    """The index of each value in `names`; −1 if it is not there."""
    place = {name: i for i, name in enumerate(names)}
    return np.array([place.get(value, -1) for value in values], np.int64)


def cells(label_N: np.ndarray, group_N: np.ndarray, num_labels: int, num_groups: int) -> np.ndarray:
    """One-hot cell (label, group) of each person, (N, L·G); zeros for one without a group."""
    out = np.zeros((len(label_N), num_labels * num_groups))
    known = (group_N >= 0) & (label_N >= 0)
    out[np.flatnonzero(known), (label_N * num_groups + group_N)[known]] = 1
    return out


def rates(hits: Any, counts: Any) -> np.ndarray:
    """hits / counts of any shape; NaN where the count is 0."""
    hits, counts = np.asarray(hits, np.float64), np.asarray(counts, np.float64)
    return np.divide(hits, counts, out=np.full(np.broadcast_shapes(hits.shape, counts.shape), np.nan), where=counts > 0)


def spread(rates_LG: Any) -> np.ndarray:
    """Largest minus smallest known rate over the last axis, |difference| for two groups; NaN with fewer than two."""
    rates_LG = np.asarray(rates_LG, np.float64)
    known = ~np.isnan(rates_LG)
    high = np.where(known, rates_LG, -np.inf).max(-1)
    low = np.where(known, rates_LG, np.inf).min(-1)
    return np.where(known.sum(-1) > 1, high - low, np.nan)


def mean_known(values: Any) -> np.ndarray:
    """Mean over the last axis of what is not NaN; NaN if nothing is left."""
    values = np.asarray(values, np.float64)
    known = ~np.isnan(values)
    return rates(np.where(known, values, 0.0).sum(-1), known.sum(-1))


def tpr_difference(hits_LG: Any, counts_LG: Any) -> np.ndarray:
    """TPRD: mean over labels of the spread over groups of P(predicted = label | label, group); (…, L, G) → (…).

    Labels with people of one group only are left out. 0 is parity.
    """
    return mean_known(spread(rates(hits_LG, counts_LG)))


def resampled_cells(
    label_N: np.ndarray, group_N: np.ndarray, correct_N: np.ndarray, num_labels: int, num_groups: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Correct people and all people by (label, group) in resamples of the N people: (R, L, G) each."""
    one_hot = cells(label_N, group_N, num_labels, num_groups)
    sums = resampled_sums(np.concatenate([one_hot * correct_N[:, None], one_hot], 1), seed=seed)
    return tuple(part.reshape(-1, num_labels, num_groups) for part in np.split(sums, 2, axis=1))  # type: ignore[return-value]


def chance_differences(hits_LG: Any, counts_LG: Any, *, num_draws: int = 1000, seed: int = 0) -> np.ndarray:
    """TPRD with groups assigned at random among the people of each label, so that only chance differs: (draws,).

    A label's hits are spread over its groups by a multivariate hypergeometric draw. A mean of absolute gaps is above 0
    by chance; the fewer people, the more.
    """
    hits_LG, counts_LG = np.asarray(hits_LG, np.int64), np.asarray(counts_LG, np.int64)
    generator = np.random.default_rng(seed)
    drawn = [
        generator.multivariate_hypergeometric(counts, hits.sum(), size=num_draws, method="marginals")
        for hits, counts in zip(hits_LG, counts_LG)
    ]
    return tpr_difference(np.stack(drawn, 1), counts_LG)


def auc(score_N: Any, positive_N: Any) -> float:
    """Area under the ROC curve: P(score of a positive > of a negative), ties half; NaN without both kinds."""
    positive_N = np.asarray(positive_N, bool)
    if positive_N.all() or not positive_N.any():
        return float("nan")
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(positive_N, score_N))


def resampled_auc(score_N: Any, positive_N: Any, times_RN: np.ndarray) -> np.ndarray:
    """`auc` of resamples, each given as how often it has each text: (R, N) → (R,); NaN without both kinds."""
    score_N, positive_N = np.asarray(score_N, np.float64), np.asarray(positive_N, bool)
    if not len(score_N):
        return np.full(len(times_RN), np.nan)
    order = np.argsort(score_N, kind="stable")
    starts = np.flatnonzero(np.diff(score_N[order], prepend=-np.inf))  # of runs of equal scores
    times_RN = times_RN[:, order]
    up_RS = np.add.reduceat(times_RN * positive_N[order], starts, axis=1)
    down_RS = np.add.reduceat(times_RN * ~positive_N[order], starts, axis=1)
    won_R = (up_RS * (down_RS.cumsum(1) - down_RS / 2)).sum(1)  # positives × negatives below, ties half
    return rates(won_R, up_RS.sum(1) * down_RS.sum(1))


def resample_times(num_texts: int, *, num_resamples: int = 200, seed: int = 0) -> np.ndarray:
    """How often each resample has each text: (R, N)."""
    generator = np.random.default_rng(seed)
    drawn = (generator.integers(num_texts, size=num_texts) for _ in range(num_resamples))
    return np.stack([np.bincount(rows, minlength=num_texts) for rows in drawn]).astype(np.float64)


def subgroup_texts(positive_N: Any, member_N: Any) -> dict[str, np.ndarray]:
    """The texts (N,) over which Borkan et al.'s three AUCs of one group are computed.

    subgroup: the group's texts. bpsn: its negatives and the others' positives (low: its innocent texts are called
    toxic). bnsp: its positives and the others' negatives (low: what is toxic about it is missed).
    """
    positive_N, member_N = np.asarray(positive_N, bool), np.asarray(member_N, bool)
    return {
        "subgroup": member_N,
        "bpsn": np.where(positive_N, ~member_N, member_N),
        "bnsp": np.where(positive_N, member_N, ~member_N),
    }


def power_mean(values: Any, power: float = -5) -> float:
    """Generalised mean (1/n Σ v^p)^(1/p) without NaNs; p = −5 stresses the worst group (Borkan et al. 2019)."""
    values = np.asarray(values, np.float64)
    values = values[~np.isnan(values)]
    if not len(values):
        return float("nan")
    return 0.0 if (values <= 0).any() else float((values**power).mean() ** (1 / power))
