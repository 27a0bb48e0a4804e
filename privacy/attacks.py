"""Was this text in the training data? Scores of membership, each from one forward pass, and how well they tell.

Every score is higher for likelier members. Shapes: N texts, T tokens, S shadow models, Z texts of the population,
R resamples, P points of a curve. Natural logarithms. Sources are named at each function; docs/privacy-audits.md says
in plain words what each one looks at.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

MIN_K = 0.2  # of a text's tokens that Min-K% and Min-K%++ look at
FEW_SHADOWS = 8  # below so many on a side, LiRA shares one variance between texts


def lowest_mean(values_T: Any, share: float = MIN_K) -> float:
    """Min-K% (Shi et al. 2024) of token log-probabilities, Min-K%++ of `standardised` ones.

    The mean of the lowest `share` of them (rounded down, at least one); NaN without a token.
    """
    values_T = np.sort(np.asarray(values_T, np.float64))
    return float(values_T[: max(1, int(len(values_T) * share))].mean()) if len(values_T) else np.nan


def standardised(logp_T: Any, mean_T: Any, std_T: Any) -> np.ndarray:
    """(log p − μ) / σ of each token, with μ and σ of log p over the vocabulary under the model (Zhang et al. 2024).

    0 where σ is 0: such a model is certain, or knows nothing, whatever the token is.
    """
    gap_T, std_T = np.asarray(logp_T, np.float64) - mean_T, np.asarray(std_T, np.float64)
    return np.divide(gap_T, std_T, out=np.zeros_like(gap_T), where=std_T > 1e-6)


def compressed(text: str) -> int:
    """Bytes of the text after zlib: what loss / zlib divides by (Carlini et al. 2021)."""
    return len(zlib.compress(text.encode()))


def logit(p: Any) -> np.ndarray:
    """log p − log(1 − p), which LiRA takes for normal; p is kept within [1e-12, 1 − 1e-12]."""
    p = np.clip(np.asarray(p, np.float64), 1e-12, 1 - 1e-12)
    return np.log(p) - np.log1p(-p)


def lira(target_N: Any, shadows_SN: Any, in_SN: Any, *, shared: bool | None = None) -> np.ndarray:
    """Likelihood ratio (Carlini et al. 2022): log N(φ; in-models) − log N(φ; out-models) of each text (N,).

    φ: `logit` of a probability, of the model under attack and of shadow models; in_SN: whether a shadow model was
    trained on a text. Centre: the median, as in the authors' code. Without in-models at a text: log Φ of how far φ is
    above the out-models (their offline attack). shared: one variance for all texts; by default where a text has fewer
    than 8 models on a side. ValueError if a text has no two out-models.
    """
    from scipy import stats

    target_N, shadows_SN = np.asarray(target_N, np.float64), np.asarray(shadows_SN, np.float64)
    in_SN = np.asarray(in_SN, bool)
    num_in, num_out = in_SN.sum(0), (~in_SN).sum(0)
    if len(shadows_SN) == 0 or num_out.min() < 2:
        raise ValueError("LiRA needs at least two shadow models that were not trained on each text")
    online = bool((num_in >= 2).all())
    if shared is None:
        shared = min(num_out.min(), num_in.min() if online else num_out.min()) < FEW_SHADOWS

    def normal(side_SN: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        values_SN = np.where(side_SN, shadows_SN, np.nan)
        std = np.full(len(target_N), np.nanstd(values_SN)) if shared else np.nanstd(values_SN, 0)
        return np.nanmedian(values_SN, 0), std + 1e-30

    centre_out, std_out = normal(~in_SN)
    if not online:
        return stats.norm.logcdf(target_N, centre_out, std_out)
    return stats.norm.logpdf(target_N, *normal(in_SN)) - stats.norm.logpdf(target_N, centre_out, std_out)


def rmia(
    p_N: Any, out_SN: Any, p_Z: Any, out_SZ: Any, *, a: float = 0.3, gamma: float = 1.0, in_SN: Any = None
) -> np.ndarray:
    """Relative attack (Zarifzadeh et al. 2024): the share of the population that a text's ratio beats (N,).

    p_N: the model's probability of each text; out_SN: those of shadow models; p_Z, out_SZ: of texts of the population,
    which no model was trained on. r = p / p(x), p(x) = ½ [(1 + a) p̄_out + (1 − a)]; score: share of z with
    r_x / r_z ≥ γ. in_SN: shadow models trained on a text, which do not count for it.
    """
    p_N, out_SN, p_Z, out_SZ = (np.asarray(x, np.float64) for x in (p_N, out_SN, p_Z, out_SZ))
    if in_SN is not None:
        out_SN = np.where(np.asarray(in_SN, bool), np.nan, out_SN)
        if np.isnan(out_SN).all(0).any():
            raise ValueError("RMIA needs a shadow model that was not trained on each text")
    ratio_N, ratio_Z = (p / (((1 + a) * np.nanmean(out, 0) + (1 - a)) / 2) for p, out in ((p_N, out_SN), (p_Z, out_SZ)))
    return np.searchsorted(np.sort(ratio_Z), ratio_N / gamma, side="right") / len(ratio_Z)


Columns = Mapping[str, np.ndarray]
# Name → score (N,) from columns (N,), NaN where unknown: mean log-probability of a text's tokens (logp), under a
# reference model, of its neighbours (their mean), of its counterfactual (twin); bytes after zlib; min_k, min_k_plus.
ATTACKS: dict[str, Callable[[Columns], np.ndarray]] = {
    "loss": lambda c: c["logp"],
    "reference": lambda c: c["logp"] - c["reference"],
    "zlib": lambda c: c["logp"] / c["bytes"],
    "min_k": lambda c: c["min_k"],
    "min_k_plus": lambda c: c["min_k_plus"],
    "neighbour": lambda c: c["logp"] - c["neighbour"],
    "counterfactual": lambda c: c["logp"] - c["twin"],
}


# ---------------------------------------------------------------- how well a score tells


def curve(scores_N: Any, member_N: Any, weights_RN: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rates (R, P) at each distinct threshold from the highest down, from (0, 0) to (1, 1).

    weights_RN: how often each text counts (resamples); without: once each, and R = 1. Equal scores are one point.
    """
    scores_N, member_N = np.asarray(scores_N, np.float64), np.asarray(member_N, bool)
    if not len(scores_N) or member_N.all() or not member_N.any():
        raise ValueError(f"{member_N.sum()} members, {(~member_N).sum()} non-members: needs some of each")
    if np.isnan(scores_N).any():
        raise ValueError("a score is not a number")
    order = np.argsort(-scores_N, kind="stable")
    last_P = np.append(np.flatnonzero(np.diff(scores_N[order])), len(order) - 1)
    weights_RN = np.ones((1, len(order))) if weights_RN is None else np.asarray(weights_RN, np.float64)
    rates = []
    for side_N in (~member_N, member_N):
        found_RP = np.cumsum((weights_RN * side_N)[:, order], 1)[:, last_P]
        rates.append(np.pad(found_RP / found_RP[:, -1:], ((0, 0), (1, 0))))
    return rates[0], rates[1]


def auc(fpr_RP: np.ndarray, tpr_RP: np.ndarray) -> np.ndarray:
    """Area under each curve (R,): the chance that a member scores above a non-member; ½ is guessing."""
    return (np.diff(fpr_RP, axis=1) * (tpr_RP[:, 1:] + tpr_RP[:, :-1]) / 2).sum(1)


def tpr_at(fpr_RP: np.ndarray, tpr_RP: np.ndarray, most: float, num_nonmembers: int) -> np.ndarray:
    """The share of members found (R,) where at most the share `most` of non-members is accused.

    ValueError where there are fewer than 1 / `most` non-members: one of them would already be too many.
    """
    if num_nonmembers * most < 1 - 1e-9:
        raise ValueError(f"TPR at {most:.1%} FPR needs {round(1 / most):,} non-members; there are {num_nonmembers:,}")
    return np.where(fpr_RP <= most + 1e-12, tpr_RP, 0).max(1)


def measure(
    scores_N: Any, member_N: Any, *, at: tuple[float, ...] = (0.01, 0.001), num_resamples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """{"auc": (value, resampled values (R,)), 0.01: the same of the TPR there, or the words why there is none}.

    Resampled are members and non-members, each among themselves; the draws depend on their numbers and the seed only.
    """
    member_N = np.asarray(member_N, bool)
    num_out, own = int((~member_N).sum()), curve(scores_N, member_N)
    wanted: dict[Any, Any] = {"auc": auc}
    samples: dict[Any, list[np.ndarray]] = {}
    out: dict[Any, Any] = {}
    for most in at:
        try:
            tpr_at(*own, most, num_out)
            wanted[most] = lambda fpr, tpr, most=most: tpr_at(fpr, tpr, most, num_out)
        except ValueError as error:
            out[most] = str(error)
    for weights_RN in _resamples(member_N, num_resamples, seed):
        drawn = curve(scores_N, member_N, weights_RN)
        for key, statistic in wanted.items():
            samples.setdefault(key, []).append(statistic(*drawn))
    out |= {key: (float(statistic(*own)[0]), np.concatenate(samples[key])) for key, statistic in wanted.items()}
    return out


def _resamples(member_N: np.ndarray, num_resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each text is drawn (rows, N), for so many rows at a time as fit into memory."""
    generator, size = np.random.default_rng(seed), max(1, 2**22 // len(member_N))
    for begin in range(0, num_resamples, size):
        rows = min(size, num_resamples - begin)
        weights_RN = np.empty((rows, len(member_N)), np.int64)
        for side_N in (member_N, ~member_N):
            count = int(side_N.sum())
            drawn = generator.integers(count, size=(rows, count)) + np.arange(rows)[:, None] * count
            weights_RN[:, side_N] = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
        yield weights_RN


def blind(texts: list[str], member_N: Any, *, folds: int = 5) -> np.ndarray:
    """P(member) of each text (N,) by its words alone, without any model of ours: out of fold, logistic regression.

    Where this tells members from non-members, they are no random split of one corpus, and every attack measures the
    split as well ("Blind baselines", Das et al. 2024). NaN with fewer than 2 × `folds` texts on a side.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline

    member_N = np.asarray(member_N, bool)
    if min(member_N.sum(), (~member_N).sum()) < 2 * folds:
        return np.full(len(texts), np.nan)
    words = TfidfVectorizer(token_pattern=r"\S+", max_features=20_000, sublinear_tf=True)
    parts = StratifiedKFold(folds, shuffle=True, random_state=0)
    model = make_pipeline(words, LogisticRegression(C=10, max_iter=200))
    return cross_val_predict(model, texts, member_N, cv=parts, method="predict_proba")[:, 1]


def split_is_random(scores_N: np.ndarray, member_N: Any) -> bool:
    """Whether `blind` scores tell no more than chance: an AUC less than four standard errors above ½ (p about 3e-5)."""
    member_N = np.asarray(member_N, bool)
    if np.isnan(scores_N).any():
        return True  # too few to see
    num_in, num_out = int(member_N.sum()), int((~member_N).sum())
    error = ((num_in + num_out + 1) / (12 * num_in * num_out)) ** 0.5
    return bool(auc(*curve(scores_N, member_N))[0] - 0.5 < 4 * error)
