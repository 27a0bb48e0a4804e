"""Federated: who holds what, who is asked, when texts come and go, what the server does with the answers."""

import tracemalloc

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from federated import arrival, partition, select
from federated.engine import summary
from federated.message import pack, unpack
from federated.private import Guarantee
from federated.server import Mean, ServerOptimizer, apply
from privacy.noise import Keys


def draw(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# ---------------------------------------------------------------- who holds what


@pytest.mark.parametrize("alpha", [0.1, 1.0, 10.0])
def test_label_shares_have_the_moments_of_dirichlet(alpha):
    prior = np.array([0.5, 0.3, 0.2])
    share_NL = partition.label_shares(alpha, prior, 200_000, draw())
    variance = prior * (1 - prior) / (3 * alpha + 1)
    assert share_NL.mean(axis=0) == pytest.approx(prior, rel=0.02)
    assert share_NL.var(axis=0) == pytest.approx(variance, rel=0.02)


@pytest.mark.parametrize("beta", [1.0, 5.0, 100.0])
def test_sizes_have_the_moments_of_dirichlet(beta):
    clients, texts = 2_000, 10_000_000
    found = np.concatenate([partition.sizes(texts, clients, beta, draw(seed)) for seed in range(20)])
    mean, shares = 1 / clients, (found - 1) / (texts - clients)
    assert found.sum() == pytest.approx(20 * texts) and found.min() >= 1
    assert shares.mean() == pytest.approx(mean, rel=1e-9)
    assert shares.var() == pytest.approx(mean * (1 - mean) / (clients * beta + 1), rel=0.02)


def test_what_is_dealt_is_what_was_drawn():
    """On the texts themselves: the variance of a label's share among clients of equal size, for 2,000 clients."""
    label_T = draw(1).integers(0, 4, 400_000)
    owner = partition.divide(label_T, 2_000, alpha=1.0, concentration=None, seed=0)
    counts = np.zeros((2_000, 4))
    np.add.at(counts, (owner, label_T), 1)
    shares = counts / counts.sum(axis=1, keepdims=True)
    assert shares.mean(axis=0) == pytest.approx(np.full(4, 0.25), rel=0.02)
    assert shares.var(axis=0).mean() == pytest.approx(0.25 * 0.75 / 5, rel=0.05)
    assert counts.sum(axis=1) == pytest.approx(np.full(2_000, 200), abs=4)


def test_every_text_has_one_client_and_iid_is_even():
    owner = partition.divide(np.zeros(1_003, dtype=int), 10, alpha=None, concentration=None, seed=3)
    assert sorted(np.bincount(owner)) == [100] * 7 + [101] * 3
    again = partition.divide(np.zeros(1_003, dtype=int), 10, alpha=None, concentration=None, seed=3)
    assert (owner == again).all()


def test_small_alpha_gives_clients_of_one_label():
    label_T = draw().integers(0, 2, 5_000)
    owner = partition.divide(label_T, 50, alpha=0.01, concentration=None, seed=0)
    women = np.bincount(owner, label_T, minlength=50) / np.bincount(owner, minlength=50)
    assert ((women < 0.05) | (women > 0.95)).mean() > 0.9


def test_clusters_gather_texts_of_like_words():
    texts = ["bread oven flour"] * 5 + ["ship sea harbour"] * 5 + ["flour oven"] * 2
    label_T, names = partition.clusters(texts, 2, seed=0)
    assert len(set(label_T[:5])) == len(set(label_T[5:10])) == 1 and label_T[0] != label_T[5]
    assert label_T[10] == label_T[0] and "oven" in names[label_T[0]]


def test_numbered_keeps_names_in_order():
    number_T, names = partition.numbered(["b", "a", "b"])
    assert number_T.tolist() == [1, 0, 1] and names == ["a", "b"]


@pytest.mark.parametrize(
    ("label_T", "clients", "options", "says"),
    [
        (np.zeros(3, dtype=int), 4, {"alpha": None, "concentration": None}, "only 3 texts"),
        (np.arange(100) % 2, 90, {"alpha": 0.05, "concentration": 0.1}, "would hold no text"),
        (np.arange(100_000), 10_000, {"alpha": 1.0, "concentration": None}, "too many"),
    ],
)
def test_impossible_divisions_are_refused(label_T, clients, options, says):
    with pytest.raises(ValueError, match=says):
        partition.divide(label_T, clients, seed=0, **options)


def test_ten_thousand_clients_take_little_memory():
    label_T = draw().integers(0, 20, 300_000).astype(np.int32)
    tracemalloc.start()
    owner = partition.divide(label_T, 10_000, alpha=0.5, concentration=5.0, seed=0)
    texts_N = np.bincount(owner, minlength=10_000)
    for round in range(20):
        chosen = select.choose(texts_N, 100, "activity", seed=0, round=round)
        assert len(set(chosen.tolist())) == 100
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 * 2**20


# ---------------------------------------------------------------- who is asked

TEXTS = np.array([1, 2, 3, 4, 10, 0])


@pytest.mark.parametrize(
    ("rule", "options", "expected"),
    [
        ("uniform", {}, [0.2, 0.2, 0.2, 0.2, 0.2, 0]),
        ("activity", {}, [0.05, 0.1, 0.15, 0.2, 0.5, 0]),
        ("activity", {"exponent": 0.0}, [0.2, 0.2, 0.2, 0.2, 0.2, 0]),
        ("activity", {"exponent": 2.0}, [1 / 130, 4 / 130, 9 / 130, 16 / 130, 100 / 130, 0]),
        ("mixture", {"uniform_share": 0.5}, [0.125, 0.15, 0.175, 0.2, 0.35, 0]),
    ],
)
def test_who_is_asked_is_as_frequent_as_the_rule_says(rule, options, expected):
    assert select.probabilities(TEXTS, rule, **options) == pytest.approx(expected)
    asked = [select.choose(TEXTS, 1, rule, seed=7, round=round, **options)[0] for round in range(4_000)]
    counts = np.bincount(asked, minlength=6)
    assert counts[5] == 0 and chisquare(counts[:5], 4_000 * np.array(expected[:5])).pvalue > 0.01


def test_several_are_drawn_without_replacement():
    """Inclusion of the largest among two drawn by activity, against the sum over the first one drawn."""
    p = np.array([0.05, 0.1, 0.15, 0.2, 0.5])
    second = sum(p[first] * p[4] / (1 - p[first]) for first in range(4))
    found = [4 in select.choose(TEXTS, 2, "activity", seed=1, round=round) for round in range(4_000)]
    assert np.mean(found) == pytest.approx(p[4] + second, abs=0.02)
    uniform = np.concatenate([select.choose(TEXTS, 3, "uniform", seed=1, round=round) for round in range(3_000)])
    assert chisquare(np.bincount(uniform)[:5]).pvalue > 0.01


def test_the_choice_depends_on_seed_and_round_alone():
    one, two = (select.choose(np.full(50, 3), 10, "uniform", seed=0, round=4) for _ in range(2))
    assert (one == two).all() and (np.diff(one) > 0).all()
    others = [select.choose(np.full(50, 3), 10, "uniform", seed=s, round=r) for s, r in ((1, 4), (0, 5))]
    assert all((one != other).any() for other in others)


def test_the_most_active_are_those_with_most_texts():
    assert select.choose(TEXTS, 2, "most_active", seed=0, round=0).tolist() == [3, 4]
    assert select.choose(TEXTS, 9, "most_active", seed=0, round=0).tolist() == [0, 1, 2, 3, 4]


def test_a_share_of_those_asked_does_not_answer():
    assert select.answers(np.arange(20_000), 0.3, seed=0, round=0).mean() == pytest.approx(0.7, abs=0.01)
    assert select.answers(np.arange(20), 0.0, seed=0, round=0).all()


# ---------------------------------------------------------------- when texts come and go


def test_periods_are_equally_long_and_in_order():
    assert [arrival.period_of(round, 7, 3) for round in range(7)] == [0, 0, 0, 1, 1, 2, 2]
    assert {arrival.period_of(round, 7, 1) for round in range(7)} == {0}


def test_windows_cover_all_texts_and_drop_old_ones():
    assert [arrival.window(10, period, 3) for period in range(3)] == [(0, 3), (0, 6), (0, 10)]
    assert [arrival.window(10, period, 3, 1) for period in range(3)] == [(0, 3), (3, 6), (6, 10)]
    assert [arrival.window(10, period, 3, 2) for period in range(3)] == [(0, 3), (0, 6), (3, 10)]
    first, end = arrival.window(np.array([10, 2]), 1, 3, 1)
    assert first.tolist() == [3, 0] and end.tolist() == [6, 1]


# ---------------------------------------------------------------- what the server does


def one_parameter(name: str, deltas: list[float], **options: float) -> list[float]:
    module = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(module.weight)
    settings = {"lr": 0.1, "betas": (0.9, 0.99), "eps": 0.001} | options
    optimizer = ServerOptimizer(module.parameters(), name, **settings)
    found = []
    for delta in deltas:
        apply(module, {"weight": torch.tensor([[delta]])}, optimizer)
        found.append(module.weight.item())
    return found


def test_fedavg_adds_the_mean_difference():
    assert one_parameter("fedavg", [0.5, -0.25], lr=1.0) == pytest.approx([0.5, 0.25])


def test_fedavgm_has_momentum():
    assert one_parameter("fedavgm", [1.0, 1.0], lr=1.0) == pytest.approx([1.0, 1.0 + 1.9])


def test_fedadam_is_that_of_the_paper():
    """m₁ = .1 · .5; v₁ = .99 · 1e-6 + .01 · .25; then Δ = −.2."""
    m1, v1 = 0.05, 0.99e-6 + 0.0025
    w1 = 0.1 * m1 / (v1**0.5 + 0.001)
    m2, v2 = 0.9 * m1 - 0.02, 0.99 * v1 + 0.01 * 0.04
    w2 = w1 + 0.1 * m2 / (v2**0.5 + 0.001)
    assert [w1, w2] == pytest.approx([0.098020, 0.143784], abs=1e-5)
    assert one_parameter("fedadam", [0.5, -0.2]) == pytest.approx([w1, w2], rel=1e-5)


def test_fedyogi_is_that_of_the_paper():
    """v₁ = 1e-6 + .01 · .25, as v₀ < Δ²; v₂ = v₁ + .01 · .04."""
    m1, v1 = 0.05, 1e-6 + 0.0025
    w1 = 0.1 * m1 / (v1**0.5 + 0.001)
    m2, v2 = 0.9 * m1 - 0.02, v1 + 0.0004
    w2 = w1 + 0.1 * m2 / (v2**0.5 + 0.001)
    assert one_parameter("fedyogi", [0.5, -0.2]) == pytest.approx([w1, w2], rel=1e-5)


def test_a_mean_weighs_and_leaves_out_what_is_not_finite():
    mean = Mean()
    assert mean.add({"a": torch.tensor([1.0, 2.0])}, 1.0)
    assert mean.add({"a": torch.tensor([4.0, 0.0])}, 2.0)
    assert not mean.add({"a": torch.tensor([float("nan"), 0.0])}, 5.0)
    assert not mean.add({"a": torch.tensor([float("inf"), 0.0])}, 5.0)
    assert mean.result()["a"].tolist() == pytest.approx([3.0, 2 / 3])


def test_the_lowest_figure_of_a_client_is_not_called_the_worst():
    """Of perplexity the lowest is the best; of the loss the worst is the highest."""
    answers = [{"loss": loss, "perplexity/perplexity": figure} for loss, figure in ((1.0, 20.0), (2.0, 10.0))]
    expected = {"loss": 1.5, "lowest_client/perplexity/perplexity": 10.0, "worst_client/loss": 2.0}
    assert summary(answers) == expected


def test_a_message_comes_back_as_it_was():
    tensors, facts = unpack(pack({"w": torch.arange(3.0)}, round=2, loss=float("nan")))
    assert tensors["w"].tolist() == [0, 1, 2] and facts["round"] == 2 and np.isnan(facts["loss"])
    for damaged in (b"", b"abc", pack({"w": torch.arange(3.0)})[:-1]):
        with pytest.raises(ValueError, match="damaged"):
            unpack(damaged)


# ---------------------------------------------------------------- a guarantee for each client


def guarantee(noise: float) -> Guarantee:
    return Guarantee(Keys(b"secret", b"run"), rate=0.2, max_norm=2.0, noise=noise, facts={})


def test_no_client_moves_the_sum_by_more_than_the_bound():
    weights = {"a": torch.zeros(2), "b": torch.zeros(1)}
    mean = guarantee(0.0).mean(weights, round=0, clients=10)  # two are expected
    assert mean.add({"a": torch.tensor([6.0, 0.0]), "b": torch.tensor([8.0])}, 99.0)  # norm 10: a fifth is kept
    assert mean.add({"a": torch.tensor([0.5, 0.5]), "b": torch.tensor([0.0])}, 1.0)
    assert not mean.add({"a": torch.tensor([float("nan"), 0.5]), "b": torch.tensor([0.0])}, 1.0)
    found = mean.result()
    assert found["a"].tolist() == pytest.approx([0.85, 0.25]) and found["b"].tolist() == pytest.approx([0.8])


def test_the_noise_of_a_round_is_as_large_as_said_and_its_own():
    weights = {"a": torch.zeros(100_000)}
    first, again, later = (guarantee(3.0).mean(weights, round, 10).result()["a"] for round in (0, 0, 1))
    assert float(first.std()) == pytest.approx(3.0 * 2.0 / 2.0, rel=0.02) and (first == again).all()
    assert abs(float(torch.corrcoef(torch.stack([first, later]))[0, 1])) < 0.02


def test_a_secret_asks_each_client_with_the_same_probability():
    texts_N = np.array([1, 50, 0, 7])
    asked = np.concatenate([guarantee(1.0).choose(texts_N, round) for round in range(5_000)])
    assert np.bincount(asked, minlength=4)[[0, 1, 3]] == pytest.approx([1_000] * 3, abs=100) and 2 not in asked
