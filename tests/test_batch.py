import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch

from counterfactuals.text.lexicon import cycles, load_lexicon
from counterfactuals.text.reverse import Reverser
from counterfactuals.tokens import batch as batch_module
from counterfactuals.tokens.align import AlignedPair
from counterfactuals.tokens.batch import BatchPlan, collate
from counterfactuals.tokens.pairs import build_pairs
from counterfactuals.tokens.tokenizer import train_bpe

# six tokens, of which token 2 is replaced by two tokens; token 4 one for one
PAIR = AlignedPair(
    np.array([9, 1, 2, 3, 4, 5]), np.array([9, 1, 20, 21, 3, 40, 5]), np.array([0, 1, 2, 4, 5, 6], dtype=np.int32)
)
ALONE = AlignedPair(np.array([9, 1, 7]), np.array([9, 1, 7]), np.arange(3, dtype=np.int32))
CUED = AlignedPair(np.array([9, 1, 7, 8]), np.array([9, 1, 7, 8]), np.arange(4, dtype=np.int32), cue=2)


def couples(batch) -> list[tuple[int, int]]:
    return [tuple(x) for x in batch.row_R[: 2 * batch.num_pairs].view(-1, 2).tolist()]


def test_rows_and_their_counterparts_are_side_by_side():
    batch = collate([PAIR, ALONE], op="max", augment=True)
    width = 7
    assert batch.ids_NT.shape == (3, width) and batch.num_trained == 3
    assert batch.ids_NT[1].tolist() == [9, 1, 7, 0, 0, 0, 0]
    # rows predict the next token: 1↔1, 2↔20 (the word's beginning), 3↔3 (its last token's row), 4↔40, 5↔5
    assert couples(batch) == [(0, 14), (1, 15), (2, 17), (3, 18), (4, 19)]
    alone = batch.row_R[2 * batch.num_pairs :].tolist()
    assert alone == [16, 7, 8]  # inside the longer word; the text without a counterfactual
    assert batch.perturb_R.tolist() == [True] * 10 + [False] * 3
    assert batch.trained_R.all() and batch.num_tokens == 5 + 6 + 2
    flat = batch.ids_NT.flatten()
    assert torch.equal(batch.label_R, flat[batch.row_R + 1])


def test_without_augmentation_counterfactual_rows_only_serve():
    batch = collate([PAIR, ALONE], op="max")
    assert batch.num_trained == 2 and batch.num_tokens == 5 + 2
    trained = set(batch.row_R[batch.trained_R].tolist())
    assert trained == {0, 1, 2, 3, 4, 7, 8}
    assert batch.trained_R[: 2 * batch.num_pairs].view(-1, 2).tolist() == [[True, False]] * 5


def test_op_none_needs_no_counterfactual():
    batch = collate([PAIR, ALONE])
    assert len(batch.ids_NT) == 2 and batch.num_pairs == 0 and not batch.perturb_R.any()
    augmented = collate([PAIR, ALONE], augment=True)
    assert len(augmented.ids_NT) == 3 and augmented.num_pairs == 0 and augmented.num_tokens == 13


def test_perturbing_the_original_only():
    batch = collate([PAIR], op="max", augment=True, perturb="original")
    assert batch.perturb_R[: 2 * batch.num_pairs].view(-1, 2).tolist() == [[True, False]] * 5
    assert batch.trained_R.all()


def test_reversed_vocabulary_makes_a_text_its_own_counterpart_until_a_cue():
    batch = collate([ALONE, CUED], op="max", vocabulary="reversed")
    assert batch.num_pairs == 0
    by_row = dict(zip(batch.row_R.tolist(), batch.perturb_R.tolist()))
    assert by_row == {0: True, 1: True, 4: True, 5: True, 6: False}  # row 6 has the cue (position 2) in its context
    ignored = collate([ALONE, CUED], op="max", vocabulary="reversed", stop_at_cue=False)
    assert ignored.perturb_R.all()
    assert not collate([ALONE, CUED], op="max").perturb_R.any()


def test_the_order_of_several_groups_reaches_the_rows():
    """Before the first replaced word no role is named; after it a text turns one way, its counterfactual the other."""
    batch = collate([replace(PAIR, turn=4), ALONE], op="max", augment=True, vocabulary="reversed")
    assert couples(batch) == [(0, 14), (1, 15), (2, 17), (3, 18), (4, 19)]
    assert batch.turn_R[:10].view(-1, 2).tolist() == [[0, 0], [0, 0], [5, -5], [5, -5], [5, -5]]
    assert not batch.turn_R[10:].any()


def test_texts_of_four_groups_turn_as_they_were_reversed(tmp_path):
    """From text to rows: own token of group g ↔ token of the group after g in the order that turn_R names."""
    race = load_lexicon("race")
    words = "Jamal went from Nigeria to Germany, where a Mexican met an Italian and a Kenyan of China."
    texts = [f"{n}: {words}" for n in range(12)]
    tokenizer, reverser = train_bpe(texts * 20, 500), Reverser(race, seed=1)
    pairs = build_pairs(Texts(texts), reverser, tokenizer, tmp_path, max_length=200)
    assert len({pair.turn for pair in pairs}) > 2
    for text, pair in zip(texts, pairs):
        after = cycles(4)[pair.turn]
        reversal = reverser(text)
        assert reversal.turn == pair.turn and len(reversal.spans) >= 6
        for span in reversal.spans:
            if span.rule == "pool":
                own = race.rules[text[span.start : span.end]].group
                other = race.rules[reversal.reversed[span.cf_start : span.cf_end]].group
                assert race.groups[after[race.groups.index(own)]] == other


class Texts(list):
    fingerprint, share = "texts", None


def test_a_window_that_begins_inside_a_text():
    """Its first token has no row that predicts it, on either side."""
    pair = AlignedPair(np.array([2, 3]), np.array([20, 21, 3]), np.array([0, 2], dtype=np.int32))
    batch = collate([pair], op="max", augment=True)
    assert couples(batch) == [(0, 4)] and batch.num_tokens == 1 + 2


def plan(**changes) -> BatchPlan:
    rng = np.random.default_rng(0)
    options = {"batch_size": 16, "seed": 0} | changes
    return BatchPlan(rng.integers(3, 50, 100), rng.integers(1, 3, 100), **options)


def test_batches_hold_batch_size_sequences_and_every_epoch_sees_each_pair_at_most_once():
    p = plan()
    seen = [p.batch(step) for step in range(p.steps_per_epoch)]
    sizes = [int(p.sequences[b].sum()) for b in seen]
    assert all(abs(size - 16) <= 1 for size in sizes)
    indices = np.concatenate(seen)
    assert len(set(indices)) == len(indices) >= 100 - 16
    again = np.concatenate([p.batch(p.steps_per_epoch + step) for step in range(p.steps_per_epoch)])
    assert not np.array_equal(indices, again)


def test_a_step_depends_on_seed_and_step_alone():
    assert np.array_equal(plan().batch(7), plan().batch(7))
    p = plan()
    p.batch(30)
    assert np.array_equal(p.batch(7), plan().batch(7))
    assert not np.array_equal(plan(seed=1).batch(7), plan().batch(7))


@pytest.mark.parametrize(("accumulation", "world"), [(1, 1), (4, 1), (2, 2), (1, 4)])
def test_ranks_and_micro_batches_share_out_the_same_batch(accumulation, world):
    p = plan()
    parts = [
        part for rank in range(world) for part in p.micro_batches(3, accumulation=accumulation, rank=rank, world=world)
    ]
    assert len(parts) == accumulation * world
    assert sorted(np.concatenate(parts)) == sorted(p.batch(3))
    spread = [np.ptp(p.lengths[part]) for part in parts]
    assert accumulation * world == 1 or max(spread) < np.ptp(p.lengths[p.batch(3)])


def test_a_corpus_smaller_than_a_batch_is_refused():
    with pytest.raises(ValueError, match=r"train\.batch_size: 1000 sequences, but the corpus has only"):
        plan(batch_size=1000)


def test_a_micro_batch_holds_the_sequences_it_is_meant_to_hold():
    p = plan()
    parts = p.micro_batches(3, accumulation=4)
    assert all(abs(int(p.sequences[part].sum()) - 4) <= 1 for part in parts)


@pytest.mark.parametrize("max_length", [None, 50])
def test_no_micro_batch_is_empty(max_length):
    """Also where a pair that straddles two batches leaves the second one short."""
    rng = np.random.default_rng(2)
    p = BatchPlan(rng.integers(3, 50, 900), rng.integers(1, 3, 900), batch_size=16, seed=0, max_length=max_length)
    for step in range(p.steps_per_epoch):
        parts = p.micro_batches(step, accumulation=8)
        assert len(parts) == 8 and all(len(part) for part in parts)
        assert np.array_equal(np.concatenate(parts), p.batch(step))


def by_tokens(lengths: np.ndarray, sequences: np.ndarray, **changes) -> BatchPlan:
    return BatchPlan(lengths, sequences, **({"batch_size": 16, "seed": 0, "max_length": 50} | changes))


def skewed(count: int = 3000) -> tuple[np.ndarray, np.ndarray]:
    """Many short texts, some long ones, as in paragraphs."""
    rng = np.random.default_rng(1)
    return np.clip(rng.gamma(1.5, 10, count).astype(int) + 2, 2, 50), rng.integers(1, 3, count)


def test_by_tokens_every_step_has_as_many_and_little_padding():
    lengths, sequences = skewed()
    p, plain = by_tokens(lengths, sequences), BatchPlan(lengths, sequences, batch_size=16, seed=0)
    tokens = [int((lengths[b] * sequences[b]).sum()) for b in map(p.batch, range(p.steps_per_epoch))]
    assert all(abs(count - 16 * 50) <= 2 * 50 for count in tokens)
    assert p.padding(1) < 0.05 < 0.4 < plain.padding(1)
    padded = [int(lengths[b].max() * sequences[b].sum()) for b in map(p.batch, range(p.steps_per_epoch))]
    assert np.quantile(padded, 0.98) <= 1.25 * 16 * 50  # what memory is needed for


def test_by_tokens_every_epoch_sees_each_pair_at_most_once_in_an_order_of_its_own():
    p = by_tokens(*skewed())
    first, second = (
        [p.batch(epoch * p.steps_per_epoch + step) for step in range(p.steps_per_epoch)] for epoch in (0, 1)
    )
    indices = np.concatenate(first)
    assert len(set(indices)) == len(indices) > 0.98 * 3000
    assert not np.array_equal(first[0], second[0])
    means = [p.lengths[b].mean() for b in first]
    assert abs(np.corrcoef(means, range(len(means)))[0, 1]) < 0.3  # long texts do not come first
    assert np.array_equal(by_tokens(*skewed()).batch(40), p.batch(40))  # seed and step alone


@pytest.mark.parametrize(("accumulation", "world"), [(1, 1), (4, 1), (2, 2), (1, 8)])
def test_by_tokens_ranks_and_micro_batches_share_out_the_same_batch(accumulation, world):
    p = by_tokens(*skewed())
    for step in (0, 5, p.steps_per_epoch - 1):
        parts = [
            part
            for rank in range(world)
            for part in p.micro_batches(step, accumulation=accumulation, rank=rank, world=world)
        ]
        assert len(parts) == accumulation * world and all(len(part) for part in parts)
        assert np.array_equal(np.sort(np.concatenate(parts)), np.sort(p.batch(step)))
        counts = [int((p.lengths[part] * p.sequences[part]).sum()) for part in parts]
        assert max(counts) <= 16 * 50 / len(parts) + 2 * 50


@pytest.mark.parametrize("max_length", [None, 50])
def test_sums_over_a_slice_at_a_time_give_the_bounds_of_one_sum_over_all(max_length, monkeypatch):
    whole = batch_module._slices
    lengths, sequences = skewed(700)
    for size in (1, 7, 500, 700, 1000):
        monkeypatch.setattr(batch_module, "_slices", lambda total, size=size: whole(total, size))
        p = BatchPlan(lengths.astype(np.int16), sequences, batch_size=4, seed=3, max_length=max_length)
        p.batch(p.steps_per_epoch)
        weights = sequences * (1 if max_length is None else lengths)
        before = np.cumsum(weights[p._order]) - weights[p._order]
        starts = np.arange(p.steps_per_epoch + 1) * 4 * (max_length or 1)
        assert p._bounds.tolist() == np.searchsorted(before, starts).tolist()


@pytest.mark.parametrize(("max_length", "most"), [(None, 5), (50, 5)])
def test_a_plan_keeps_few_bytes_a_pair(max_length, most):
    """4 for the order and 8 for each step; and not much more while an epoch's order is made."""
    count = 3 << 20
    lengths, sequences = np.full(count, 40, dtype=np.int16), np.ones(count, dtype=np.uint8)
    tracemalloc.start()
    p = BatchPlan(lengths, sequences, batch_size=64, seed=0, max_length=max_length)
    p.batch(0)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < most * count and peak < most * count + 64 * (1 << 20)
