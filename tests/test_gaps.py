"""eval.measures.groups on tables made by hand, against loops and against scikit-learn."""

import math

import numpy as np
import pytest

from eval.measures import groups as gaps


def plain_tprd(people):
    """(label, group, predicted) → mean over labels of |TPR of one group − TPR of the other|."""
    found = []
    for label in sorted({p[0] for p in people}):
        rates = []
        for group in sorted({p[1] for p in people}):
            part = [p for p in people if p[:2] == (label, group)]
            if part:
                rates.append(sum(p[2] == label for p in part) / len(part))
        if len(rates) == 2:
            found.append(abs(rates[0] - rates[1]))
    return sum(found) / len(found)


def test_rates_and_spread_by_hand():
    rates = gaps.rates([[1, 3], [0, 0], [2, 0]], [[2, 4], [5, 0], [2, 1]])
    np.testing.assert_array_equal(rates, [[0.5, 0.75], [0, np.nan], [1, 0]])
    np.testing.assert_array_equal(gaps.spread(rates), [0.25, np.nan, 1])
    assert gaps.tpr_difference([[1, 3], [0, 0], [2, 0]], [[2, 4], [5, 0], [2, 1]]) == 0.625
    assert gaps.spread([0.2, 0.9, 0.4]) == pytest.approx(0.7)
    assert math.isnan(gaps.mean_known([np.nan, np.nan]))


def test_cells_and_resamples():
    label_N, group_N = np.array([0, 0, 1, 1, 0]), np.array([0, 1, 1, -1, 0])
    np.testing.assert_array_equal(gaps.cells(label_N, group_N, 2, 2).sum(0), [2, 1, 0, 1])
    correct_N = np.array([1.0, 0, 1, 1, 1])
    hits_RLG, counts_RLG = gaps.resampled_cells(label_N, group_N, correct_N, 2, 2, seed=0)
    assert hits_RLG.shape == (1000, 2, 2)
    assert (hits_RLG[:, 0, 1] == 0).all() and (hits_RLG[:, 0, 0] == counts_RLG[:, 0, 0]).all()
    assert counts_RLG.sum((1, 2)).max() <= 5
    np.testing.assert_allclose(counts_RLG.mean(0), [[2, 1], [0, 1]], atol=0.15)


def test_chance_deals_groups_anew():
    """One label, one of two men and one of two women right, 2 right in all: of the 6 ways to deal them 4 give gap 0."""
    found = gaps.chance_differences([[1, 1]], [[2, 2]], num_draws=6000)
    assert set(found) == {0.0, 1.0}
    assert found.mean() == pytest.approx(2 / 6, abs=0.03)
    generator = np.random.default_rng(0)
    people = [("a", str(group), "a" if hit else "b") for group, hit in generator.integers(0, 2, size=(40, 2))]
    dealt = []
    for _ in range(2000):
        groups = generator.permutation([p[1] for p in people])
        dealt.append(plain_tprd([(p[0], g, p[2]) for p, g in zip(people, groups)]))
    hits, counts = (
        [sum(p[1] == g and (p[2] == "a" or all_of) for p in people) for g in "01"] for all_of in (False, True)
    )
    found = gaps.chance_differences([hits], [counts], num_draws=2000)
    assert found.mean() == pytest.approx(np.mean(dealt), abs=0.01)
    assert np.quantile(found, 0.95) == pytest.approx(np.quantile(dealt, 0.95), abs=0.03)


def test_aucs_by_hand():
    score, toxic, member = [0.9, 0.8, 0.3, 0.6, 0.2, 0.7], [1, 0, 0, 1, 0, 1], [1, 1, 1, 0, 0, 0]
    score, toxic = np.array(score), np.array(toxic)
    found = {name: gaps.auc(score[c], toxic[c]) for name, c in gaps.subgroup_texts(toxic, member).items()}
    assert found["subgroup"] == 1  # .9 above .8 and .3
    assert found["bpsn"] == 0.5  # its negatives .8, .3 against the others' positives .6, .7: two of four pairs in order
    assert found["bnsp"] == 1  # .9 against .2
    assert gaps.auc([0.5, 0.5], [1, 0]) == 0.5
    assert math.isnan(gaps.auc([0.1, 0.2], [1, 1]))
    assert gaps.power_mean([0.5, 1.0, np.nan]) == pytest.approx(((0.5**-5 + 1) / 2) ** (-1 / 5))
    assert gaps.power_mean([0.0, 1.0]) == 0
    assert gaps.power_mean([0.7, 0.7]) == pytest.approx(0.7)


def test_resampled_aucs_equal_those_of_the_resamples():
    generator = np.random.default_rng(0)
    score, toxic = generator.integers(0, 8, size=40) / 8, generator.integers(0, 2, size=40)  # with ties
    times = gaps.resample_times(40, num_resamples=30, seed=1)
    assert (times.sum(1) == 40).all()
    found = gaps.resampled_auc(score, toxic, times)
    for value, counts in zip(found, times.astype(int)):
        assert value == pytest.approx(gaps.auc(np.repeat(score, counts), np.repeat(toxic, counts)))
    assert np.isnan(gaps.resampled_auc(score, np.ones(40), times)).all()
    assert np.isnan(gaps.resampled_auc([], [], np.ones((3, 0)))).all()
