"""Canaries, exposure, and the audit in one run: against published values, by hand, and on a mechanism of known ε."""

import json
import math

import numpy as np
import pytest
from scipy import optimize, stats

from privacy import audit


@pytest.mark.parametrize(
    ("canaries", "guesses", "right", "epsilon"),
    [  # jax-privacy 2.0.0, auditing._epsilon_one_run(0, m, r, v, .05, 1e-5), to 1e-6
        (200, 200, 200, 4.1882158),
        (1000, 1000, 1000, 5.7822831),
        (1000, 100, 100, 3.4653762),
        (1000, 100, 90, 1.6261437),
        (100, 100, 90, 1.6303580),
        (5000, 500, 500, 4.9777576),
        (200, 150, 120, 1.0385586),
        (100, 100, 50, 0.0),
    ],
)
def test_the_bound_equals_published_code(canaries, guesses, right, epsilon):
    found = audit.epsilon_bound(canaries=canaries, guesses=guesses, right=right, delta=1e-5)
    assert found == pytest.approx(epsilon, abs=2e-6)


def test_the_p_value_equals_published_code():
    """jax-privacy 2.0.0, auditing._one_run_p_value at ε = 1, δ = 1e-5."""
    for counts, p in (((200, 150, 120), 0.03235541961941015), ((5000, 500, 500), 0.0006348298680443834)):
        found = audit.p_value(1.0, canaries=counts[0], guesses=counts[1], right=counts[2], delta=1e-5)
        assert found == pytest.approx(p, rel=1e-9)


def gaussian_epsilon(sigma, delta):
    """ε of the Gaussian mechanism with sensitivity 1 (Balle & Wang 2018, theorem 8)."""

    def gap(epsilon):
        a, b = 1 / (2 * sigma) - epsilon * sigma, -1 / (2 * sigma) - epsilon * sigma
        return stats.norm.cdf(a) - math.exp(epsilon) * stats.norm.cdf(b) - delta

    return optimize.brentq(gap, 0, 50)


def test_the_bound_is_below_the_true_epsilon_of_noise():
    """Each canary moves a coordinate of its own by 1, and N(0, σ²) is added: 100 audits of 400 canaries."""
    sigma, found = 1.0, []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        planted = rng.random(400) < 0.5
        found.append(audit.one_run(planted + rng.normal(0, sigma, 400), planted, delta=1e-5)["epsilon"])
    truth = gaussian_epsilon(sigma, 1e-5)
    assert sum(epsilon > truth for epsilon in found) <= 5 and np.mean(found) > 0.1 * truth


def test_a_mechanism_without_noise_is_caught():
    rng = np.random.default_rng(0)
    planted = rng.random(100) < 0.5
    found = audit.one_run(planted + rng.normal(0, 1e-3, 100), planted, delta=1e-5)
    assert found["epsilon"] > 1 and found["right"] > 0.85 * found["guesses"]


def test_scores_that_know_nothing_prove_nothing():
    bounds = []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        bounds.append(audit.one_run(rng.normal(size=100), rng.random(100) < 0.5, delta=1e-5)["epsilon"])
    assert sum(bound > 0 for bound in bounds) <= 20 + 2 * 4.4  # 5 %, and two standard deviations
    even = audit.one_run(np.zeros(100), np.arange(100) < 50, delta=1e-5)  # ties are not cut in the order of the record
    assert even["right"] < 0.7 * even["guesses"]


def test_ranks_and_exposure_by_hand():
    assert audit.rank(2.0, [3.0, 1.0, 2.0, 2.0]) == 3.0  # one is better, two are as good
    assert audit.exposure(1, 1024) == 10 and audit.exposure(1024, 1024) == 0
    chance = np.mean([audit.exposure(place, 10_000) for place in range(1, 10_001)])
    assert chance == pytest.approx(math.log2(math.e), abs=1e-3)
    with pytest.raises(ValueError, match="rank 0 of 10"):
        audit.exposure(0, 10)


def test_the_chance_of_drawing_a_secret_by_hand():
    np.testing.assert_allclose(audit.found_in([math.log(0.5), 0.0, -800.0], 2), [0.75, 1.0, 0.0])


def test_canaries_are_planted_by_fair_coins():
    record = audit.draw(number=2000, prefix="Box {number} opens with", seed=1)
    assert len({canary.prefix for canary in record.canaries}) == 2000
    planted = sum(canary.planted for canary in record.canaries)
    assert abs(planted - 1000) < 4 * 22.4
    first = [canary.secret[0] for canary in record.canaries]
    assert min(first.count(digit) for digit in audit.DIGITS) > 120
    assert audit.draw(number=2, prefix="{number}").seed != audit.draw(number=2, prefix="{number}").seed


def test_planted_ones_stand_in_the_corpus_as_often_as_said():
    record = audit.draw(number=20, prefix="Box {number} opens with", repeats=3, labels=["x", "y"], seed=2)
    rows = [{"body": f"text {n}", "kind": "x"} for n in range(50)]
    mixed = audit.mix(rows, record, text="body", label="kind")
    assert [row for row in mixed if row in rows] == rows  # the others keep their order
    for canary in record.canaries:
        assert mixed.count({"body": canary.text, "kind": canary.label}) == 3 * canary.planted


def test_a_record_comes_back_and_is_for_its_owner_only(tmp_path):
    record = audit.draw(number=3, prefix="{number}", seed=5)
    path = tmp_path / "planted.json"
    path.write_text(record.to_json())
    path.chmod(0o600)
    assert audit.Record.read(path) == record
    path.chmod(0o640)
    with pytest.raises(ValueError, match="others can read it"):
        audit.Record.read(path)
    path.chmod(0o600)
    for spoilt in ('{"canaries": []}', record.to_json().replace("true", "3")):
        path.write_text(spoilt)
        with pytest.raises(ValueError, match="not a record"):
            audit.Record.read(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"number": 0}, "number 0: must be at least 1"),
        ({"number": 2}, "need a prefix each"),
        ({"number": 1, "alphabet": ["1"]}, "two or more different symbols"),
        ({"number": 1, "alphabet": ["1", "a b"]}, "without spaces"),
        ({"number": 1, "length": 0}, "length 0"),
    ],
)
def test_canaries_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        audit.draw(**{"prefix": "the code is", **options})


def test_the_claim_is_that_of_the_runs_own_file(tmp_path):
    run, other = tmp_path / "run", tmp_path / "copy"
    (run / "model").mkdir(parents=True)
    (other).mkdir()
    assert audit.claimed(run / "model") is None and audit.claimed("gpt2") is None and audit.claimed("") is None
    (run / "run.json").write_text(json.dumps({"privacy": {"epsilon": 3, "delta": 1e-6, "unit": "text"}}))
    assert audit.claimed(run / "model")["epsilon"] == 3.0
    (tmp_path / "run.json").write_text(json.dumps({"privacy": {"epsilon": 1, "delta": 1e-6}}))
    assert audit.claimed(other) is None  # beside a folder of another name it is of something else
    (run / "run.json").write_text(json.dumps({"privacy": {"epsilon": "low"}}))
    with pytest.raises(ValueError, match="must hold the numbers epsilon and delta"):
        audit.claimed(run / "model")
