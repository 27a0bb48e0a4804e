"""Classifiers on states: pooling, training and prediction sensitivity against plain computations."""

import copy

import numpy as np
import pytest
import torch

from eval.measures import heads

OPTIONS = {**heads.OPTIONS, "max_tokens": 12, "epochs": 30, "train_batch": 8, "lr": 0.01, "finetune_batch": 8}
WOMEN = ["She works as a nurse and likes her kitchen.", "The woman said that she saw the queen.", "Her mother waited."]
MEN = ["He works as a cook and likes his kitchen.", "The man said that he saw the king.", "His brother waited."]
TEXTS = [*WOMEN, *MEN] * 4
LABELS = [0, 0, 0, 1, 1, 1] * 4


@pytest.fixture(scope="module")
def states(scorer):
    return heads.States(scorer, heads.encode(scorer, TEXTS, OPTIONS), -1)


@pytest.fixture(scope="module")
def classifier(scorer, states):
    return heads.train(scorer, states, np.arange(len(TEXTS)), np.array(LABELS), 2, OPTIONS, 0)


def plain_probabilities(classifier, embedded_BTD):
    """Texts of one length from their embeddings by transformers alone, the head written out, in double precision."""
    model = copy.deepcopy(classifier.scorer.model).double()
    states = model.transformer(inputs_embeds=embedded_BTD).last_hidden_state
    query, linear = classifier.head.query.double(), classifier.head.linear
    exps = (torch.einsum("btd,d->bt", states, query) / len(query) ** 0.5).exp()
    weight = exps / exps.sum(1, keepdim=True)
    logits = torch.einsum("bt,btd,kd->bk", weight, states, linear.weight.double()) + linear.bias.double()
    return logits.exp() / logits.exp().sum(1, keepdim=True), weight


def embeddings(classifier, ids):
    return classifier.scorer.model.get_input_embeddings().weight[ids].detach().double()


def test_states_are_each_texts_own(scorer, states):
    ids = heads.encode(scorer, TEXTS, OPTIONS)
    assert max(map(len, ids)) == 12
    batch_BTD, mask_BT = states.batch(np.array([4, 1]))
    for found, mask, n in zip(batch_BTD, mask_BT, [4, 1]):
        assert mask.sum() == len(ids[n])
        with torch.no_grad():
            expected = scorer.model.transformer(torch.tensor([ids[n]])).last_hidden_state[0]
        torch.testing.assert_close(found[mask], expected, atol=1e-5, rtol=1e-5)


def test_many_states_are_halved_and_put_on_disk(scorer, states, monkeypatch):
    ids = heads.encode(scorer, TEXTS, OPTIONS)
    monkeypatch.setattr(heads, "_HALF", 0)
    half = heads.States(scorer, ids, -1)
    monkeypatch.setattr(heads, "_DISK", 0)
    disk = heads.States(scorer, ids, -1)
    assert (states.flat.dtype, half.flat.dtype, disk.flat.dtype) == (np.float32, np.float16, np.float16)
    assert isinstance(disk.flat, np.memmap) and not isinstance(half.flat, np.memmap)
    np.testing.assert_array_equal(half.flat, disk.flat)
    np.testing.assert_allclose(states.flat, half.flat, atol=2e-3)


def test_probabilities_equal_the_head_written_out(classifier, states):
    probs_NK = classifier.probabilities(states)
    np.testing.assert_allclose(probs_NK.sum(1), 1, atol=1e-9)
    np.testing.assert_allclose(classifier.probabilities(TEXTS[:5]), probs_NK[:5], atol=1e-6)
    np.testing.assert_allclose(classifier.probabilities(states, np.array([7, 2])), probs_NK[[7, 2]], atol=1e-6)
    for n in range(4):
        ids = classifier.encode([TEXTS[n]])[0]
        with torch.no_grad():
            plain, _ = plain_probabilities(classifier, embeddings(classifier, ids)[None])
        np.testing.assert_allclose(probs_NK[n], plain[0].numpy(), atol=1e-5)


def test_training_learns_and_is_seeded(scorer, states, classifier):
    assert (classifier.probabilities(states).argmax(1) == LABELS).all()
    again, other = (
        heads.train(scorer, states, np.arange(len(TEXTS)), np.array(LABELS), 2, OPTIONS, seed) for seed in (0, 1)
    )
    np.testing.assert_array_equal(again.probabilities(states), classifier.probabilities(states))
    assert not np.array_equal(other.probabilities(states), classifier.probabilities(states))
    few = heads.train(scorer, states, np.array([0, 3]), np.array([0, 1]), 2, OPTIONS, 0)
    assert few.probabilities(states, np.array([0, 3])).argmax(1).tolist() == [0, 1]


def test_training_is_adamw_on_cross_entropy(scorer, states):
    """One full batch: the first step of AdamW moves every entry by lr against its gradient's sign."""
    options = {**OPTIONS, "epochs": 1, "train_batch": 100, "lr": 1e-3}
    rows, labels = np.arange(len(TEXTS)), np.array(LABELS)
    trained = heads.train(scorer, states, rows, labels, 2, options, 5).head
    start = heads.Head(scorer.width, 2, torch.Generator().manual_seed(5))
    logits, _ = start(*states.batch(rows))
    loss = -torch.log_softmax(logits, -1)[torch.arange(len(rows)), torch.from_numpy(labels)].mean()
    loss.backward()
    for moved, first in zip(trained.parameters(), start.parameters()):
        expected = first * (1 - 1e-3 * 0.01) - 1e-3 * first.grad.sign() * (first.grad.abs() > 1e-6)
        torch.testing.assert_close(moved.detach(), expected.detach(), atol=2e-5, rtol=0)


def test_finetuning_moves_a_copy(scorer):
    before = {name: tensor.clone() for name, tensor in scorer.model.state_dict().items()}
    options = {**OPTIONS, "finetune_epochs": 8, "finetune_lr": 1e-3}
    tuned = heads.finetune(scorer, TEXTS, np.array(LABELS), 2, options, 0)
    assert (tuned.probabilities(TEXTS).argmax(1) == LABELS).all()
    for name, tensor in scorer.model.state_dict().items():
        assert torch.equal(tensor, before[name])
    moved = tuned.scorer.model.state_dict()
    assert any(not torch.equal(moved[name], before[name]) for name in before)
    assert all(parameter.grad is None for parameter in scorer.model.parameters())
    again = heads.finetune(scorer, TEXTS, np.array(LABELS), 2, options, 0)
    np.testing.assert_allclose(again.probabilities(TEXTS), tuned.probabilities(TEXTS), atol=1e-6)


def finite_differences(classifier, ids, which):
    """Σ_d |∂p_k / ∂e_td| by central differences, and the pooling weights: (T,), (T,)."""
    embedded = embeddings(classifier, ids)
    steps = torch.eye(embedded.numel(), dtype=torch.float64).reshape(-1, *embedded.shape) * 1e-5
    with torch.no_grad():
        _, weight = plain_probabilities(classifier, embedded[None])
        up, down = (plain_probabilities(classifier, embedded + sign * steps)[0][:, which] for sign in (1, -1))
    slopes = ((up - down) / 2e-5).reshape(embedded.shape)
    return slopes.abs().sum(1).numpy(), weight[0].numpy()


def test_sensitivity_equals_finite_differences(scorer, states, classifier):
    """wᵀ|J|v with every derivative by finite differences, for both w and both v."""
    labels = np.array([0, 1, 0, 1, 0, 1] * 4)
    protected = heads.train(scorer, states, np.arange(len(TEXTS)), labels, 2, OPTIONS, 3)
    texts = ["Her mother waited.", "The man said"]
    for n, text in enumerate(texts):
        ids = classifier.encode([text])[0]
        moved = np.stack([finite_differences(classifier, ids, k)[0] for k in (0, 1)])
        best = int(classifier.probabilities([text])[0].argmax())
        group = int(protected.probabilities([text])[0].argmax())
        by_gradient, by_attention = finite_differences(protected, ids, group)
        for classes, w in (("predicted", np.eye(2)[best]), ("uniform", np.full(2, 0.5))):
            for weights, v in (("gradient", by_gradient), ("attention", by_attention)):
                expected = sum(w[k] * moved[k, t] * v[t] / v.sum() for k in (0, 1) for t in range(len(ids)))
                even = (w @ moved).mean()
                values, ratios = heads.sensitivity(
                    classifier, protected, texts, classes=classes, protected_weights=weights
                )
                assert values[n] == pytest.approx(expected, rel=1e-3, abs=1e-6)
                assert ratios[n] == pytest.approx(expected / even, rel=1e-3)


def test_accumulated_by_hand():
    jacobian = [[1.0, -2.0, 0.0], [-3.0, 0.5, 4.0]]
    assert heads.accumulated(jacobian, [0.25, 0.75], [0.0, 0.5, 0.5]) == pytest.approx(0.25 * 1 + 0.75 * 2.25)


def test_a_classifier_blind_to_its_text_is_not_sensitive(scorer, classifier):
    blind = copy.deepcopy(classifier.head)
    with torch.no_grad():
        blind.linear.weight.zero_()
    task = heads.TrainedHead(scorer, blind, OPTIONS)
    values, ratios = heads.sensitivity(task, classifier, TEXTS[:3])
    np.testing.assert_array_equal(values, 0)
    assert np.isnan(ratios).all()
    with pytest.raises(ValueError, match="predicted or uniform, gradient or attention"):
        heads.sensitivity(task, classifier, TEXTS[:3], classes="all")
