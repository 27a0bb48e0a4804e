"""Scores of membership against vectors of published code, and rates computed by hand.

The vectors were made once with the authors' public code, retyped and run on these inputs (numpy 2, float64): Min-K%
and Min-K%++ by run.py of zjysteven/mink-plus-plus (62281ab), LiRA by a copy of plot.py of the authors of Carlini et
al. 2022 (`generate_ours`, its sign turned round), RMIA by attacks.py of privacytrustlab/ml_privacy_meter (a555fce;
privacy-meter 1.0.1 has it not).
"""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from privacy import attacks

LOGITS = [
    [0.0, 0.6, -0.55, -1.78, -0.91],
    [-1.98, 0.12, 2.68, -0.98, -1.24],
    [0.98, 0.71, 0.21, -1.86, -0.06],
    [1.39, -2.69, -0.92, -3.8, -2.58],
    [-3.68, -0.47, -2.53, 0.54, 0.31],
    [-0.37, -5.03, -1.08, -0.1, 0.23],
    [-3.06, -0.96, -1.96, -1.62, 2.12],
    [-1.62, -0.07, 1.77, -1.17, -0.22],
]
NEXT = [3, 1, 4, 2, 2, 0, 1, 3]
SHADOWS = [
    [1.11, 1.06, -0.23, 1.08],
    [2.36, -0.55, 1.86, 1.12],
    [0.36, 3.0, 1.76, -0.2],
    [1.07, 1.58, 0.81, 1.68],
    [0.93, 1.67, 2.44, 0.32],
    [1.2, 0.54, 1.13, -0.19],
]
IN = np.array([[1, 0, 1, 0], [0, 1, 0, 1], [1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 0, 1], [0, 1, 1, 0]], bool)
TARGET = [0.92, 1.3, 2.4, 2.65]


def log_probabilities():
    logp = np.array(LOGITS) - np.log(np.exp(LOGITS).sum(1, keepdims=True))
    mean = (np.exp(logp) * logp).sum(1)
    std = np.sqrt((np.exp(logp) * logp**2).sum(1) - mean**2)
    return logp[np.arange(8), NEXT], mean, std


@pytest.mark.parametrize(
    ("share", "min_k", "min_k_plus"),
    [
        (0.2, -3.8674497083927104, -4.396137469007382),
        (0.5, -3.3645268910835604, -3.0586425017976744),
        (1.0, -2.7659169893220144, -2.2527636953919683),
    ],
)
def test_min_k_equals_the_authors_code(share, min_k, min_k_plus):
    logp, mean, std = log_probabilities()
    assert attacks.lowest_mean(logp, share) == pytest.approx(min_k, abs=1e-9)
    found = attacks.lowest_mean(attacks.standardised(logp, mean, std), share)
    assert found == pytest.approx(min_k_plus, abs=1e-6)


def test_min_k_takes_one_token_at_least():
    assert attacks.lowest_mean([-1.0, -3.0]) == -3.0
    assert np.isnan(attacks.lowest_mean([]))
    np.testing.assert_array_equal(attacks.standardised([-1.0, -2.0], [-1.5, -2.0], [0.5, 0.0]), [1.0, 0.0])


def test_lira_equals_the_authors_code():
    own = [0.7115966579777504, -1.2975604878281577, -2.7887215999539547, 7.479241208095061]
    np.testing.assert_allclose(attacks.lira(TARGET, SHADOWS, IN, shared=False), own, atol=1e-6)


def test_lira_with_few_shadows_shares_a_variance():
    """As above; the authors' code takes the in-models' variance for both sides, ours each side's own."""
    shared = [-0.0266068967278007, -0.3999194485767662, -1.496821118139836, 4.602638230187008]
    np.testing.assert_allclose(attacks.lira(TARGET, SHADOWS, IN), shared, atol=1e-6)


def test_lira_without_in_models_is_a_one_sided_test():
    shadows = np.array([[1.0, 0.0], [3.0, 2.0]])
    found = attacks.lira([2.0, 2.0], shadows, np.zeros((2, 2)), shared=False)
    np.testing.assert_allclose(found, stats.norm.logcdf([0, 1]), atol=1e-12)
    with pytest.raises(ValueError, match="at least two shadow models"):
        attacks.lira([2.0], [[1.0], [2.0]], [[1], [0]])


def test_rmia_equals_the_authors_code():
    p = [0.252, 0.844, 0.922, 0.404, 0.565]
    out = np.array([[0.872, 0.672], [0.9, 0.187], [0.881, 0.586], [0.49, 0.275], [0.4, 0.074]]).T
    z = [0.166, 0.374, 0.905, 0.179, 0.532, 0.375, 0.468]
    out_z = [[0.87, 0.769, 0.927, 0.816, 0.391, 0.945, 0.893], [0.668, 0.693, 0.812, 0.795, 0.263, 0.589, 0.748]]
    found = attacks.rmia(p, out, z, out_z)
    np.testing.assert_allclose(found, [2 / 7, 1, 1, 5 / 7, 1], atol=1e-12)
    # a shadow model that was trained on a text does not count for it
    more, seen = np.vstack([out, np.full(5, 0.99)]), np.zeros((3, 5))
    seen[2] = 1
    np.testing.assert_array_equal(attacks.rmia(p, more, z, np.vstack([out_z, out_z[0]])[:2], in_SN=seen), found)


def test_rmia_by_hand_with_a_larger_gamma():
    """p(x) = ½ (1.3 · 0.4 + 0.7) = 0.61; ratios 0.61 / 0.61 = 1, and of z 0.305 / 0.61 = ½ and 2."""
    assert attacks.rmia([0.61], [[0.4]], [0.305, 1.22], [[0.4, 0.4]])[0] == 0.5
    assert attacks.rmia([0.61], [[0.4]], [0.305, 1.22], [[0.4, 0.4]], gamma=3)[0] == 0.0


def test_logit_and_zlib_by_hand():
    np.testing.assert_allclose(attacks.logit([0.5, 0.9]), [0, np.log(9)], atol=1e-12)
    assert np.isfinite(attacks.logit([0.0, 1.0])).all()
    assert attacks.compressed("a" * 1000) < attacks.compressed("the quick brown fox jumps over it")


def test_scores_of_columns_by_hand():
    columns = {
        name: np.array([value]) for name, value in zip(("logp", "bytes", "reference", "twin"), (-2.0, 50, -3, -5))
    }
    found = {name: attacks.ATTACKS[name](columns)[0] for name in ("loss", "zlib", "reference", "counterfactual")}
    assert found == {"loss": -2, "zlib": -0.04, "reference": 1, "counterfactual": 3}


def test_rates_by_hand_with_a_tie():
    scores, member = [4, 3, 3, 2, 1], [1, 1, 0, 0, 1]
    fpr, tpr = attacks.curve(scores, member)
    np.testing.assert_allclose(fpr[0], [0, 0, 0.5, 1, 1])
    np.testing.assert_allclose(tpr[0], [0, 1 / 3, 2 / 3, 2 / 3, 1])
    assert attacks.auc(fpr, tpr)[0] == pytest.approx(roc_auc_score(member, scores))
    assert attacks.tpr_at(fpr, tpr, 0.5, 2)[0] == pytest.approx(2 / 3)


def test_a_resample_is_the_curve_of_the_repeated_texts():
    rng = np.random.default_rng(0)
    scores, member = rng.normal(size=30).round(1), rng.random(30) < 0.5
    weights = rng.integers(1, 4, size=(3, 30))
    found = attacks.auc(*attacks.curve(scores, member, weights))
    for value, weight in zip(found, weights):
        assert value == pytest.approx(roc_auc_score(np.repeat(member, weight), np.repeat(scores, weight)))


def test_rates_where_non_members_are_too_few_are_refused():
    member = np.repeat([True, False], [500, 999])
    found = attacks.measure(np.arange(1499.0), member, num_resamples=10)
    assert found[0.001] == "TPR at 0.1% FPR needs 1,000 non-members; there are 999"
    assert found[0.01][0] == 0 and found["auc"][0] == 0
    member = np.repeat([True, False], [500, 1000])
    assert attacks.measure(-np.arange(1500.0), member, num_resamples=10)[0.001][0] == 1


def test_the_interval_of_the_auc_covers_the_truth():
    """Scores N(1, 1) and N(0, 1): the AUC is Φ(1 / √2); 95 % intervals cover it in about 95 % of draws."""
    truth, covered = stats.norm.cdf(1 / np.sqrt(2)), 0
    for seed in range(100):
        scores = np.random.default_rng(seed).normal(np.repeat([1.0, 0.0], 60))
        samples = attacks.measure(scores, np.repeat([True, False], 60), at=(), num_resamples=200)["auc"][1]
        covered += np.quantile(samples, 0.025) <= truth <= np.quantile(samples, 0.975)
    assert 88 <= covered <= 99


def test_words_alone_tell_what_is_no_random_split():
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(["red", "blue", "green", "house", "tree"], 8)) for _ in range(400)]
    member = np.arange(400) < 200
    assert attacks.split_is_random(attacks.blind(texts, member), member)
    dated = [text + (" 2019" if m else " 2024") for text, m in zip(texts, member)]
    assert not attacks.split_is_random(attacks.blind(dated, member), member)
    assert np.isnan(attacks.blind(texts[:8], np.arange(8) < 4)).all()


@pytest.mark.parametrize("member", [[True, True], [False, False]])
def test_one_side_alone_is_refused(member):
    with pytest.raises(ValueError, match="needs some of each"):
        attacks.curve([1.0, 2.0], member)
    with pytest.raises(ValueError, match="not a number"):
        attacks.curve([1.0, np.nan], [True, False])
