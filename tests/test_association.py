"""eval.measures.association against the formulas written out in loops, and against cases solved by hand."""

import itertools
import math

import numpy as np
import pytest

from eval.measures.association import (
    associations,
    bootstrap_combined,
    bootstrap_effects,
    effect_size,
    permutation_p,
    random_effects,
    two_tailed_p,
)


def cosine(u, v):
    return sum(a * b for a, b in zip(u, v)) / math.sqrt(sum(a * a for a in u) * sum(b * b for b in v))


def plain_s(w, a, b):
    return sum(cosine(w, x) for x in a) / len(a) - sum(cosine(w, x) for x in b) / len(b)


def plain_std(values):
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))


def plain_effect(x, y, a, b):
    s_x, s_y = ([plain_s(w, a, b) for w in words] for words in (x, y))
    return (sum(s_x) / len(s_x) - sum(s_y) / len(s_y)) / plain_std(s_x + s_y)


def plain_random_effects(effects, variances):
    w = [1 / v for v in variances]
    q = sum(wi * e * e for wi, e in zip(w, effects)) - sum(wi * e for wi, e in zip(w, effects)) ** 2 / sum(w)
    c = sum(w) - sum(wi * wi for wi in w) / sum(w)
    between = (q - (len(effects) - 1)) / c if q >= len(effects) - 1 else 0.0
    v = [1 / (variance + between) for variance in variances]
    return sum(vi * e for vi, e in zip(v, effects)) / sum(v), math.sqrt(1 / sum(v)), between


@pytest.fixture
def sets():
    """X, Y, A and B of unequal sizes, width 7, far from the origin as a language model's states are."""
    generator = np.random.default_rng(1)
    return [generator.normal(3, 1, size=(n, 7)) for n in (5, 4, 6, 3)]


def test_effect_by_hand():
    """A along the first axis, B along the second: s is the difference of a vector's cosines to the axes."""
    a, b = [[2.0, 0.0]], [[0.0, 5.0]]
    x, y = [[1.0, 0.0], [3.0, 4.0]], [[0.0, 1.0], [4.0, 3.0]]
    np.testing.assert_allclose(associations(x, a, b), [1, -0.2])
    np.testing.assert_allclose(associations(y, a, b), [-1, 0.2])
    # means 0.4 and −0.4; squares sum to 2.08 around 0, ddof 1
    assert float(effect_size([1, -0.2], [-1, 0.2])) == pytest.approx(0.8 / math.sqrt(2.08 / 3))


def test_effect_equals_the_loops(sets):
    x, y, a, b = sets
    s_x, s_y = associations(x, a, b), associations(y, a, b)
    np.testing.assert_allclose(s_x, [plain_s(w, a, b) for w in x], atol=1e-12)
    assert float(effect_size(s_x, s_y)) == pytest.approx(plain_effect(x, y, a, b), abs=1e-10)
    both = effect_size(np.stack([s_x, s_x * 2]), np.stack([s_y, s_y * 2]))  # leading dimensions; scale does not matter
    np.testing.assert_allclose(both, plain_effect(x, y, a, b), atol=1e-10)
    assert math.isnan(effect_size([1, 1], [1, 1]))


def test_p_by_hand():
    """Of the six ways to pick two of {3, 2, 1, 0}, sums 5 4 3 3 2 1: at least 4 has two, at least 3 four of them."""
    assert permutation_p([3, 1], [2, 0]) == pytest.approx(2 / 6)
    assert permutation_p([3, 0], [2, 1]) == pytest.approx(4 / 6)  # an equal sum counts
    assert permutation_p([0, 1], [2, 3]) == 1
    assert permutation_p([1, 1], [1, 1]) == 1


def test_p_is_exact_where_it_can_be_and_drawn_elsewhere(sets):
    x, y, a, b = sets
    s_x, s_y = associations(x, a, b), associations(y, a, b)
    both = [*s_x, *s_y]
    sums = [sum(both[i] for i in chosen) for chosen in itertools.combinations(range(9), 5)]
    exact = np.mean([total >= sum(s_x) - 1e-12 for total in sums])
    assert permutation_p(s_x, s_y, num_samples=126) == pytest.approx(exact)
    drawn = permutation_p(s_x, s_y, num_samples=125, seed=3)
    assert drawn != exact and drawn == permutation_p(s_x, s_y, num_samples=125, seed=3)
    assert permutation_p(np.arange(30.0), -np.arange(30.0), num_samples=1000) == 1 / 1000  # the observed one alone
    far = permutation_p(*np.random.default_rng(0).normal(size=(2, 20)), num_samples=20_000)
    x20, y20 = np.random.default_rng(0).normal(size=(2, 20))
    z = (x20.sum() - 20 * np.mean([x20, y20])) / (np.std([x20, y20], ddof=1) * math.sqrt(20 * 20 / 40))
    assert far == pytest.approx(0.5 * math.erfc(z / math.sqrt(2)), abs=0.02)


def test_random_effects_by_hand():
    # Equal variances: weights 1, Q = 2 − 0 = 2 over N − 1 = 1, c = 2 − 1 = 1, so σ²_between = 1 and v = 1/2 each.
    ces, error = random_effects([1.0, -1.0], [1.0, 1.0])
    assert (float(ces), float(error)) == pytest.approx((0.0, 1.0))
    # Q = 8/3 − … below: effects alike, no variance between them: v = 1/V.
    ces, error = random_effects([0.5, 0.5, 0.5], [1.0, 0.5, 0.25])
    assert (float(ces), float(error)) == pytest.approx((0.5, 1 / math.sqrt(7)))
    assert two_tailed_p(1.959964, 1) == pytest.approx(0.05, abs=1e-6)


def test_random_effects_equal_the_loops():
    generator = np.random.default_rng(2)
    for spread in (0.001, 1.0, 30.0):
        effects, variances = generator.normal(0.3, spread, 200), generator.uniform(0.01, 2, 200)
        ces, error, between = plain_random_effects(effects.tolist(), variances.tolist())
        assert (between == 0) == (spread == 0.001)
        found = random_effects(effects, variances)
        np.testing.assert_allclose(found, (ces, error), rtol=1e-9)
        np.testing.assert_allclose(random_effects(effects[None], variances[None]), np.array([[ces], [error]]))


def test_resamples_are_of_the_statistic_itself():
    generator = np.random.default_rng(4)
    effects, variances = generator.normal(0.4, 0.5, 400), generator.uniform(0.2, 0.3, 400)
    found = bootstrap_combined(effects, variances, num_resamples=500)
    assert found.mean() == pytest.approx(float(random_effects(effects, variances)[0]), abs=0.01)
    assert found.std() == pytest.approx(0.5 / math.sqrt(400), rel=0.15)
    x, y = generator.normal(1, 1, 60), generator.normal(0, 1, 60)
    found = bootstrap_effects(x, y, num_resamples=500)
    assert found.mean() == pytest.approx(float(effect_size(x, y)), abs=0.05)
    assert np.array_equal(found, bootstrap_effects(x, y, num_resamples=500))
