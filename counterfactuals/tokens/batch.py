"""Pairs → training batches: which pairs belong to a step, and the one type that crosses packages.

N sequences (originals first, then counterfactuals), T positions, R prediction rows (a row at p predicts token p+1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import numpy as np
import torch

from counterfactuals.tokens.align import AlignedPair


@dataclass
class PairBatch:
    """Texts, their counterfactuals, and the prediction rows to learn from.

    ids_NT: token ids, right-padded (causal models need no mask). The student sees sequences [0, num_trained), the
    teacher all N, each once. Rows are flat positions n·T + p, in an order that puts a row and its counterpart side by
    side: rows [0, 2·num_pairs) are such couples, the rest are single.
    perturb_R: the row's target is combined with its counterpart's (with its own role reversal, if the row is single).
    trained_R: the student learns this row; a row that only serves as a counterpart is not trained.
    turn_R: how the roles of a row's counterpart are carried back, for a lexicon of several groups: t + 1 along cyclic
    order t for a text's row, −t − 1 against it for a counterfactual's; 0 where the context holds no role.
    teacher_PB: a cached teacher's predictions as bytes, by flat position (debias/cache.py).
    unit_N: the text that each sequence comes from, counted from 0 within the batch, for privacy/.
    combined: perturb_R was made for an op; without it (op "none") no target may be combined.
    reversed: it was made for the reversed vocabulary.
    """

    ids_NT: torch.Tensor
    row_R: torch.Tensor
    label_R: torch.Tensor
    perturb_R: torch.Tensor
    trained_R: torch.Tensor
    turn_R: torch.Tensor
    num_pairs: int
    num_trained: int
    teacher_PB: torch.Tensor | None = None
    unit_N: torch.Tensor | None = None
    combined: bool = True
    reversed: bool = False

    @property
    def num_tokens(self) -> int:
        """Predictions the student is trained on: what the sums of losses are divided by."""
        return int(self.trained_R.sum())

    def to(self, device: torch.device | str) -> PairBatch:
        """Tokens and rows on `device`. Masks stay on the host: chunks are planned from them without waiting for it."""
        found = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("perturb_R", "trained_R")}
        tensors: dict[str, Any] = {name: x for name, x in found.items() if torch.is_tensor(x)}
        return replace(self, **{name: x.to(device, non_blocking=True) for name, x in tensors.items()})


def collate(
    pairs: Sequence[AlignedPair],
    *,
    pad_id: int = 0,
    op: str = "none",
    couple: bool = False,
    augment: bool = False,
    perturb: str = "both",
    vocabulary: str = "plain",
    stop_at_cue: bool = True,
    said: Callable[[np.ndarray], np.ndarray] | None = None,
    units: np.ndarray | None = None,
) -> PairBatch:
    """Stack pairs into a PairBatch.

    op "none": no target is combined, and counterfactuals are there only when augmenting, unless couple: something else
    than an op compares a row with its counterpart. vocabulary "reversed": a sequence without a counterfactual is its
    own (its row is combined with its own role reversal); rows after a cue, a role that stays, keep the plain target.
    So does a sequence that was left inside a reversed text: its cue is its first role. With the plain vocabulary rows
    without a counterpart stay. perturb "original": rows of counterfactuals keep the teacher's prediction. units: each
    pair's text. said: which tokens, (T,) → (T,), are trained on.
    """
    _check_options(perturb=perturb, vocabulary=vocabulary, augment=augment)
    combine = op != "none" or couple
    with_counterfactual = [n for n, pair in enumerate(pairs) if pair.reversed] if combine or augment else []
    sequences = [pair.input_ids for pair in pairs] + [pairs[n].cf_input_ids for n in with_counterfactual]
    ids_NT = _padded(sequences, pad_id)
    width = ids_NT.shape[1]
    couples, singles = [], []  # tables of rows
    cf_start_of = {n: (len(pairs) + c) * width for c, n in enumerate(with_counterfactual)}
    for n, pair in enumerate(pairs):
        start, cf_start = n * width, cf_start_of.get(n)
        rows, free = _rows(pair, stop_at_cue and vocabulary == "reversed")
        if cf_start is None:
            singles.append(_table(start + rows, perturbed=free & (combine and vocabulary == "reversed")))
            continue
        own_row, other_row, alone, cf_alone = _counterparts(pair, combine)
        singles.append(_table(start + alone))
        if augment:
            singles.append(_table(cf_start + cf_alone))
        perturbed, turn = free[own_row], np.where(own_row < pair.first_replaced, 0, pair.turn + 1)
        own = _table(start + own_row, perturbed=perturbed, turn=turn)
        other = _table(cf_start + other_row, perturbed=perturbed & (perturb == "both"), trained=augment, turn=-turn)
        couples.append(np.stack([own, other], axis=2).reshape(4, -1))
    row_R, perturb_R, trained_R, turn_R = np.concatenate(couples + singles, axis=1)
    if said is not None:
        trained_R &= _padded([said(sequence) for sequence in sequences], 0).ravel()[row_R + 1]
    return PairBatch(
        ids_NT=torch.from_numpy(ids_NT),
        row_R=torch.from_numpy(row_R),
        label_R=torch.from_numpy(ids_NT.ravel()[row_R + 1]),
        perturb_R=torch.from_numpy(perturb_R.astype(bool)),
        trained_R=torch.from_numpy(trained_R.astype(bool)),
        turn_R=torch.from_numpy(turn_R),
        num_pairs=sum(table.shape[1] for table in couples) // 2,
        num_trained=len(sequences) if augment else len(pairs),
        unit_N=None if units is None else _from_zero(np.append(units, units[with_counterfactual])),
        combined=combine,
        reversed=vocabulary == "reversed",
    )


def _check_options(**given: Any) -> None:
    known = {"perturb": ("both", "original"), "vocabulary": ("plain", "reversed"), "augment": (True, False)}
    for name, value in given.items():
        if value not in known[name]:
            raise ValueError(f"collate: {name} must be {known[name][0]} or {known[name][1]}, not {value!r}")


def _rows(pair: AlignedPair, stop_at_cue: bool) -> tuple[np.ndarray, np.ndarray]:
    """The rows of a sequence, and whether each may be combined: its context holds no cue."""
    rows = np.arange(len(pair.input_ids) - 1)
    return rows, rows < pair.cue if stop_at_cue and pair.cue >= 0 else rows >= 0


def _counterparts(pair: AlignedPair, combine: bool) -> tuple[np.ndarray, ...]:
    """Rows of the text and their counterparts; the rows of the text, and of the counterfactual, that have none."""
    rows, cf_rows = np.arange(len(pair.input_ids) - 1), np.arange(len(pair.cf_input_ids) - 1)
    other = pair.cf_index[1:] - 1  # row p predicts token p+1; the counterpart's row predicts token s
    # a fresh window (a text cut in several) may begin with a counterpart at 0, which no row predicts
    coupled = (other >= 0) & combine
    return rows[coupled], other[coupled], rows[~coupled], np.setdiff1d(cf_rows, other[coupled])


def _from_zero(number_N: np.ndarray) -> torch.Tensor:
    """The same numbers without gaps, from 0."""
    return torch.from_numpy(np.unique(number_N, return_inverse=True)[1])


def _padded(sequences: Sequence[np.ndarray], pad_id: int) -> np.ndarray:
    ids_NT = np.full((len(sequences), max(map(len, sequences))), pad_id, dtype=np.int64)
    for n, sequence in enumerate(sequences):
        ids_NT[n, : len(sequence)] = sequence
    return ids_NT


def _table(row_R: np.ndarray, *, perturbed: Any = False, trained: bool = True, turn: Any = 0) -> np.ndarray:
    """(4, R): flat positions, and for each whether its target is combined, whether it is trained, and its turn."""
    return np.stack(np.broadcast_arrays(row_R, perturbed, trained, turn)).astype(np.int64)


class BatchPlan:
    """Which pairs make up each optimizer step: a pure function of (seed, step), whatever the number of ranks.

    batch_size counts sequences the student trains on, so a pair whose two texts are both trained counts twice. With
    max_length it counts that many tokens instead, and texts of like length share a step: as much work in every step,
    and little padding. Each epoch is a new permutation; its last, incomplete batch is left out (other texts the next
    time).
    """

    WINDOW = 64  # steps whose texts are sorted by length together
    position: ClassVar[dict[str, int]] = {}  # none to save: what a step holds follows from its number

    def __init__(
        self, lengths: np.ndarray, sequences: np.ndarray, *, batch_size: int, seed: int, max_length: int | None = None
    ):
        """lengths, sequences: for each pair its tokens (of the longer side) and trained sequences (1 or 2)."""
        self.lengths, self.sequences, self.seed, self._by_length = lengths, sequences, seed, max_length is not None
        self._size = batch_size * (max_length or 1)
        total = sum(int(self._weights(part).sum()) for part in _slices(len(lengths)))
        self.steps_per_epoch = total // self._size
        if self.steps_per_epoch == 0:
            what = "sequences" if max_length is None else f"times {max_length} tokens"
            raise ValueError(f"train.batch_size: {batch_size} {what}, but the corpus has only {total}; lower it")
        self._epoch = self._drawn_for = -1

    def seek(self, facts: dict[str, Any]) -> None:
        """Every step is at hand; see PairStream.seek."""

    def _weights(self, chosen: np.ndarray | slice) -> np.ndarray:
        weights = self.sequences[chosen].astype(np.int64)
        return weights * self.lengths[chosen] if self._by_length else weights

    def _start(self, epoch: int) -> None:
        """Keeps 4 bytes a pair and 8 a step; what is summed and sorted goes through a slice at a time."""
        draw = np.random.default_rng([self.seed, epoch])
        order = np.arange(len(self.lengths), dtype=np.uint32)
        draw.shuffle(order)
        steps = np.arange(self.steps_per_epoch)
        if self._by_length:
            for window, begin in enumerate(range(0, self.steps_per_epoch, self.WINDOW)):
                ends = (begin, begin + self.WINDOW)
                first, stop = (-(-end * len(order) // self.steps_per_epoch) for end in ends)  # rounded up
                part, rising = order[first:stop], 1 if window % 2 else -1
                # in turn, so that neighbours across two windows are alike as well
                part[:] = part[np.argsort(rising * self.lengths[part], kind="stable")]
            steps = draw.permutation(steps)
        self._order, self._steps, self._epoch = order, steps, epoch
        self._bounds = np.zeros(self.steps_per_epoch + 1, dtype=np.int64)  # pairs before each step
        done = step = 0
        for part_of in _slices(len(order)):
            after = done + np.cumsum(self._weights(order[part_of]))
            upto = min(int(after[-1]) // self._size, self.steps_per_epoch)  # steps that begin at or before its end
            targets = np.arange(step + 1, upto + 1) * self._size
            self._bounds[step + 1 : upto + 1] = part_of.start + 1 + np.searchsorted(after, targets)
            done, step = int(after[-1]), max(step, upto)

    def batch(self, step: int) -> np.ndarray:
        """Indices of the pairs of step `step` (from 0), longest first."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._start(epoch)
        place = int(self._steps[place])
        chosen = self._order[self._bounds[place] : self._bounds[place + 1]].astype(np.int64)
        return chosen[np.argsort(-self.lengths[chosen], kind="stable")]

    def exchanged(self, step: int, chosen: np.ndarray) -> np.ndarray:
        """Whether each of these pairs is seen from its other side in this step (counterfactual.augment: one).

        A pure function of (seed, epoch, pair): drawn for every second epoch, and the other side in the one after it.
        """
        epoch = step // self.steps_per_epoch
        if epoch // 2 != self._drawn_for:
            draw = np.random.default_rng([self.seed, epoch // 2, 1])
            self._drawn, self._drawn_for = draw.integers(2, size=len(self.lengths), dtype=np.uint8), epoch // 2
        return (self._drawn[chosen] ^ (epoch & 1)).astype(bool)

    def micro_batches(self, step: int, *, accumulation: int, rank: int = 0, world: int = 1) -> list[np.ndarray]:
        """This rank's micro-batches of step `step`: neighbours in length, dealt to the ranks in turn.

        Each trains batch_size / (accumulation · world) sequences, or that many times max_length tokens; up to a pair
        more where one straddles the bound.
        """
        chosen, parts = self.batch(step), accumulation * world
        weights = self._weights(chosen)
        before = np.cumsum(weights) - weights
        number = np.arange(1, parts)
        bounds = np.searchsorted(before, number * (self._size // parts))
        # a batch that begins after a straddling pair is shorter than the others: none of its parts may be empty
        bounds = np.clip(bounds, number, len(chosen) - parts + number)
        return np.split(chosen, bounds)[rank::world]

    def padding(self, parts: int, steps: int = 200) -> float:
        """Share of padding in the first `steps` steps, cut into `parts` micro-batches each; 0 is ideal."""
        padded = real = 0
        for step in range(min(steps, self.steps_per_epoch)):
            for chosen in self.micro_batches(step, accumulation=parts):
                padded += int(self.lengths[chosen].max()) * int(self.sequences[chosen].sum())
                real += int((self.lengths[chosen] * self.sequences[chosen]).sum())
        return 1 - real / padded


def _slices(total: int, size: int = 1 << 20) -> list[slice]:
    return [slice(begin, min(begin + size, total)) for begin in range(0, total, size)]
