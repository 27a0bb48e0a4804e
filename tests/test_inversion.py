"""Model inversion: layouts of tokens, losses against plain forward passes, searches on functions with a known best."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.inversion import of_head
from eval.measures import heads, targets
from privacy import inversion
from tests.runs import script

DIGITS = list("0123456789")
ROW = {"prefix": "The nurse said", "alphabet": DIGITS, "secret": [4, 8, 1], "label": "b", "planted": True}


@pytest.fixture(scope="module")
def language(scorer):
    return targets.LanguageModel(scorer)


@pytest.fixture(scope="module")
def head(scorer):
    trained = heads.train(
        scorer, heads.States(scorer, [[1, 2], [3, 4, 5]], -1), np.arange(2), np.array([0, 1]), 2, heads.OPTIONS, 0
    )
    return trained, of_head(trained, ["a", "b"])


def test_a_layout_puts_the_text_together(language, scorer):
    where = language.layout(ROW)
    assert where.ids([4, 8, 1]) == scorer.encode(["The nurse said 4 8 1"], bos=True)[0]
    assert where.symbols.shape == (10, 2)  # this tokenizer cuts a blank and a digit apart


def test_a_layout_knows_what_stands_after_the_secret():
    def encode(text):  # as BERT's: a token before and one after
        return [101, *(ord(word[0]) for word in text.split()), 102]

    where = inversion.layout(encode, "call", DIGITS, 2)
    assert where.left == (101, ord("c")) and where.right == (102,)
    assert where.ids([1, 2]) == encode("call 1 2") and where.ids([1], whole=False) == [101, ord("c"), ord("1")]


def test_symbols_of_unlike_size_are_refused():
    def encode(text):
        return [ord(c) for c in text]

    with pytest.raises(ValueError, match="blocks of one size"):
        inversion.layout(encode, "call", ["red", "green"], 2)


def test_a_mixture_of_one_symbol_is_the_text_itself(language, head, scorer):
    where = language.layout(ROW)
    codes = [(4, 8, 1), (0, 0, 9)]
    soft = language.loss(where, ROW)(inversion.one_hot(codes, 10)).detach().numpy()
    np.testing.assert_allclose(soft, language.losses(where, ROW, codes), atol=1e-4)
    pairs = [(list(where.left), where.ids(code)[len(where.left) :]) for code in codes]
    np.testing.assert_allclose(soft, -scorer.continuation_logprobs(pairs), atol=1e-4)
    np.testing.assert_allclose(
        language.losses(where, ROW, [(4,)]), -scorer.continuation_logprobs([(pairs[0][0], pairs[0][1][:2])]), atol=1e-4
    )
    trained, goal = head
    where = goal.layout(ROW)
    expected = -np.log(trained.probabilities(["The nurse said 4 8 1"])[0, 1])
    assert goal.losses(where, ROW, [(4, 8, 1)])[0] == pytest.approx(expected, abs=1e-5)
    with pytest.raises(ValueError, match="the classifier knows a, b"):
        goal.loss(where, {**ROW, "label": "c"})


def test_gradients_flow_into_the_mixture(language, head):
    for goal in (language, head[1]):
        mixture = torch.full((2, 3, 10), 0.1, requires_grad=True)
        goal.loss(goal.layout(ROW), ROW)(mixture).sum().backward()
        assert mixture.grad.abs().sum() > 0


def test_descent_finds_the_least_of_a_smooth_loss():
    best = torch.tensor([3, 1, 4, 1])
    target = inversion.one_hot([tuple(best.tolist())], 10)[0]
    code, value = inversion.invert(lambda w: ((w - target) ** 2).sum((1, 2)), length=4, num_symbols=10, restarts=2)
    assert code == (3, 1, 4, 1) and value == pytest.approx(0, abs=1e-6)


def test_a_beam_finds_what_greed_misses():
    """The first symbol that looks best leads to a bad end."""
    cost = {(0,): 1.0, (1,): 2.0, (0, 0): 5.0, (0, 1): 6.0, (1, 0): 2.5, (1, 1): 9.0}
    loss_of = lambda codes: [cost[code] for code in codes]  # noqa: E731
    assert inversion.beam(loss_of, length=2, num_symbols=2, width=1) == (0, 0)
    assert inversion.beam(loss_of, length=2, num_symbols=2, width=2) == (1, 0)
    assert len(inversion.every_code(2, 3)) == 9


def trials(folder: Path, target: str, cases: str, *more: str) -> dict:
    code, said = script("benchmarks/inversion.py", "--target", target, "--cases", cases, *more, output=folder / "said")
    assert code == 0, said[-2000:]
    return json.loads(said.splitlines()[-1])["cases"]


@pytest.mark.parametrize("target", ["lm", "head"])
def test_trials_with_and_without_a_guarantee_run(target, tmp_path):
    size = ["--trials", "1", "--steps", "2", "--texts", "40", "--repeats", "5", "--decoys", "3", "--restarts", "1"]
    found = trials(tmp_path, target, "dp_joined,augmentation", *size)
    assert list(found) == ["dp_joined", "augmentation"]
    assert all(0 <= case["digits"] <= 1 and case["held_loss"] > 0 and case["steps"] == 2 for case in found.values())


@pytest.mark.slow
@pytest.mark.parametrize(("target", "least", "rank"), [("lm", 0.5, 1), ("head", 0.1, 50)])
def test_whole_codes_are_read_out_of_the_weights(target, least, rank, tmp_path):
    """20 trials, n = 4, R = 100, no defence; a control without canary: chance. A head rarely knows the whole code."""
    found = trials(tmp_path, target, "none,control")
    assert found["none"]["inversion"] >= least and found["none"]["median_rank"] <= rank
    assert found["none"]["digits"] > 0.4 and found["control"]["inversion"] <= 0.05
    assert found["control"]["median_rank"] > 500 and abs(found["control"]["digits"] - 0.1) < 0.15


@pytest.mark.slow
@pytest.mark.parametrize("target", ["lm", "head"])
def test_copies_that_are_one_text_are_not_found_under_dp(target, tmp_path):
    """ε = 3 like the control. Copies that count as a text each are not protected together."""
    assert trials(tmp_path, target, "dp_joined", "--trials", "5")["dp_joined"]["inversion"] == 0
