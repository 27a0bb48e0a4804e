"""counterfactual.augment: one: a pair is seen from one side, the other side the next time."""

import itertools

import numpy as np
import pytest
import torch
from test_task import gpt2, pairs
from test_train import _fresh_accelerator, arguments, corpus, lines, weights  # noqa: F401 (fixtures)

import train_distill
from configs import build
from configs.load import load
from counterfactuals.text.lexicon import load_lexicon
from counterfactuals.text.reverse import Reverser
from counterfactuals.tokens.batch import BatchPlan, collate
from counterfactuals.tokens.pairs import make_pairs
from debias import models
from debias.task import DistillTask
from tests.runs import fresh

ONE = "counterfactual.augment=one"


def test_a_turned_pair_is_the_pair_of_the_counterfactual(tiny_tokenizer):
    reverser = Reverser(load_lexicon("gender"))
    text = "The nurse said that she would finish her shift before the king came."
    (pair,) = make_pairs([text], reverser, tiny_tokenizer, max_length=100)
    (other,) = make_pairs([reverser(text).reversed], reverser, tiny_tokenizer, max_length=100)
    exchanged = pair.exchanged()
    for name in ("input_ids", "cf_input_ids", "cf_index"):
        assert np.array_equal(getattr(exchanged, name), getattr(other, name))
    again = exchanged.exchanged()
    assert np.array_equal(again.cf_index, pair.cf_index) and again.turn == pair.turn


@pytest.mark.parametrize("op", ["none", "max", "swap"])
def test_both_sides_one_after_the_other_are_both_together(op):
    teacher = gpt2()
    task = DistillTask(models.student_from_layers(teacher, [0, 2]), teacher, op=op, chunk_rows=16)
    texts = pairs()
    with torch.no_grad():
        together = task(collate(texts, op=op, augment=True))[1]
        first = task(collate(texts, op=op))[1]
        second = task(collate([pair.exchanged() for pair in texts if pair.reversed], op=op))[1]
    for name in together:
        torch.testing.assert_close(first[name] + second[name], together[name])


def test_the_side_is_a_function_of_seed_epoch_and_pair():
    count = 1000
    plan, again = (BatchPlan(np.full(count, 9), np.ones(count), batch_size=10, seed=5) for _ in range(2))
    chosen, steps = np.arange(count), plan.steps_per_epoch
    sides = [plan.exchanged(epoch * steps, chosen) for epoch in range(4)]
    assert 400 < sides[0].sum() < 600 and 400 < sides[2].sum() < 600 and (sides[0] != sides[2]).any()
    assert (sides[0] != sides[1]).all() and (sides[2] != sides[3]).all()  # both sides in two epochs
    assert all(np.array_equal(again.exchanged((e + 1) * steps - 1, chosen[::7]), sides[e][::7]) for e in (3, 0, 2))


def test_a_resumed_run_ends_with_the_same_weights(arguments, tmp_path, monkeypatch):  # noqa: F811
    arguments = [*arguments, ONE, "train.max_steps=20", "train.save_every=8"]
    assert train_distill.main([*arguments, f"output_dir={tmp_path / 'whole'}"]) == 0
    fresh()
    original, calls = build.collate, itertools.count()

    def dies(*args, **kwargs):
        if next(calls) == 2 * 18:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    monkeypatch.setattr(build, "collate", dies)
    assert train_distill.main(arguments) == 130
    monkeypatch.setattr(build, "collate", original)
    fresh()
    assert train_distill.main(arguments) == 0
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "run")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert lines(tmp_path / "whole" / "metrics.jsonl") == lines(tmp_path / "run" / "metrics.jsonl")


def test_a_cached_teacher_serves_the_side_that_is_seen(arguments, tmp_path):  # noqa: F811
    """With every prediction stored exactly, nothing else would give the live teacher's weights."""
    arguments = [*arguments, ONE, "teacher.cache_bytes=4000", "student.dropout=0"]
    for name, more in (("live", []), ("cached", ["teacher.cache=auto"])):
        assert train_distill.main([*arguments, *more, f"output_dir={tmp_path / name}"]) == 0
        fresh()
    live, cached = weights(tmp_path / "live"), weights(tmp_path / "cached")
    for name in live:
        torch.testing.assert_close(live[name], cached[name], rtol=1e-3, atol=1e-4)


def test_the_predictions_of_a_step_are_counted_exactly(arguments, tmp_path):  # noqa: F811
    config = load(None, [*arguments, ONE])[1][""]
    data = build.make_run(config, "", tmp_path / "run").data
    for step in (0, 9, 17):
        batches = list(data.micro_batches(step, accumulation=2, rank=0, world=1))
        assert data.num_tokens(step) == sum(batch.num_tokens for batch in batches)
        assert all(batch.num_trained < len(batch.ids_NT) for batch in batches)


def test_true_and_false_are_both_and_none():
    for given, kept in (("true", "both"), ("false", "none"), ("one", "one"), ("both", "both")):
        config = load(None, ["teacher.model=x", "train.max_steps=1", f"counterfactual.augment={given}"])[1][""]
        assert config.counterfactual.augment == kept
    with pytest.raises(ValueError, match="one is not for"):
        load(None, ["teacher.model=x", "train.max_steps=1", ONE, "data.streaming=true", "train.batch_size=64"])
