"""A corpus that is never prepared: its pairs are made while it is read, a buffer at a time, and not written.

Stands for the pair set and for the batch plan at once. A buffer's pairs are shuffled and dealt into steps as those of a
whole corpus are, by (seed, number of the buffer), so that a step does not depend on the number of ranks. Its last,
incomplete batch is left out. After its last text the source begins again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np

from counterfactuals.text.reverse import Reverser
from counterfactuals.tokens.align import AlignedPair, Splicer
from counterfactuals.tokens.batch import BatchPlan
from counterfactuals.tokens.pairs import Texts, fingerprint_parts, make_pairs
from counterfactuals.tokens.shards import fingerprint_of

CHUNK, CHARACTERS = 16, 250_000  # texts that are reversed together, and their characters: whichever is reached first
SHARE = 8  # chunks that a rank makes at a time, before the ranks wait for each other


class PairStream:
    """Pairs and batches of a source of any size, in memory that depends on `buffer` (pairs) alone.

    Every rank reads the source and makes the pairs of its share of it. By `gather` (one list of those of all ranks, in
    their order) it gets the others', so that buffers are those of one rank. All ranks ask for the same steps, in order.
    position: what a checkpoint keeps, and `seek` takes: the buffer that the latest step came from, and how many texts
    of the source come before it; they are read again, but not reversed.
    """

    folder = None

    def __init__(
        self,
        texts: Texts,
        reverser: Reverser,
        tokenizer: Any,
        *,
        max_length: int,
        max_doubt: float | None = None,
        buffer: int,
        batch_size: int,
        seed: int,
        augment: bool = False,
        by_tokens: bool = False,
        rank: int = 0,
        world: int = 1,
        gather: Callable[[list], list] = list,
    ):
        self._texts, self._reverser, self._splicer = texts, reverser, Splicer(tokenizer)
        self._max_length, self._max_doubt = max_length, max_doubt
        self._buffer, self._augment = buffer, augment
        self._rank, self._world, self._gather = rank, world, gather
        self._plan_options: dict[str, Any] = {
            "batch_size": batch_size,
            "seed": seed,
            "max_length": max_length if by_tokens else None,
        }
        parts = fingerprint_parts(texts.fingerprint, reverser, tokenizer, max_length)
        self.meta = {"fingerprint": fingerprint_of(parts, max_doubt)}
        self.seek({})

    def seek(self, facts: dict[str, Any]) -> None:
        """Go to the position that a checkpoint's facts hold; to the beginning, if they hold none."""
        self.position = dict.fromkeys(("buffer", "first_step", "texts", "pairs", "with_counterfactual"), 0)
        self.position |= facts.get("stream", {})
        self._read = self._used = self.position["texts"]
        self._source = self._endless(self._read)
        self._made: deque[tuple[list[AlignedPair], int, int]] = deque()  # pairs, number of texts, texts up to there
        self._filled: BatchPlan | None = None

    @property
    def _plan(self) -> BatchPlan:
        """Of the buffer, which is filled when it is first asked for."""
        if self._filled is None:
            self._fill()
        assert self._filled is not None
        return self._filled

    def _endless(self, skip: int) -> Iterator[str]:
        """The source's texts from number `skip` on, again and again; self._read: texts of this pass so far."""
        while True:
            for text in islice(self._texts, skip, None):
                self._read += 1
                yield text
            if not self._read:
                raise ValueError("data.source: no text in it")
            self._read = skip = 0

    def _chunk(self) -> list[str]:
        texts: list[str] = []
        characters = 0
        while len(texts) < CHUNK and characters < CHARACTERS:
            texts.append(next(self._source))
            characters += len(texts[-1])
        return texts

    def _make(self) -> None:
        """The pairs of the next chunks, SHARE of them made by each rank."""
        chunks, ends = [], []
        for _ in range(SHARE * self._world):
            chunks.append(self._chunk())
            ends.append(self._read)
        own = chunks[SHARE * self._rank : SHARE * (self._rank + 1)]
        made = [list(self._pairs_of(texts)) for texts in own]
        self._made.extend(zip(self._gather(made), map(len, chunks), ends, strict=True))

    def _pairs_of(self, texts: list[str]) -> Iterator[AlignedPair]:
        for pair in make_pairs(texts, self._reverser, self._splicer, max_length=self._max_length):
            yield pair.within(self._max_doubt)

    def _fill(self) -> None:
        pairs: list[AlignedPair] = []
        read = 0
        while len(pairs) < self._buffer:
            if not self._made:
                self._make()
            more, num_texts, self._used = self._made.popleft()
            pairs += more
            read += num_texts
            if read > 1000 * CHUNK and not pairs:
                raise ValueError(f"data.source: no text of two tokens or more among {read:,}; nothing to train on")
        self._pairs = pairs
        self.has_cf = np.array([pair.reversed for pair in pairs])
        self.lengths = np.array([len(pair.input_ids) for pair in pairs])
        self.cf_lengths = np.array([len(pair.cf_input_ids) for pair in pairs]) * self.has_cf
        by_tokens = self._plan_options["max_length"] is not None
        longest = np.maximum(self.lengths, self.cf_lengths) if by_tokens else self.lengths
        try:
            self._filled = BatchPlan(longest, 1 + self.has_cf * self._augment, **self._plan_options)
        except ValueError:
            raise ValueError(
                f"data.shuffle_buffer: {len(pairs)} pairs make no batch; raise it, or lower train.batch_size"
            ) from None

    def _step(self, step: int) -> tuple[BatchPlan, int]:
        """The plan of the buffer that `step` comes from, and the step's number there."""
        if step < self.position["first_step"]:
            raise ValueError(f"step {step} lies before the buffer that is read; steps are asked for in order")
        while True:
            plan, position = self._plan, self.position
            place = step - position["first_step"]
            if place < plan.steps_per_epoch:
                return plan, position["buffer"] * plan.steps_per_epoch + place  # an epoch of its own, so an order
            position["first_step"] += plan.steps_per_epoch
            position["buffer"], position["texts"] = position["buffer"] + 1, self._used
            position["pairs"] += len(self._pairs)
            position["with_counterfactual"] += int(self.has_cf.sum())
            self._fill()

    def batch(self, step: int) -> np.ndarray:
        """Which pairs of the buffer are in step `step`; the buffer is then the one that the step comes from."""
        plan, place = self._step(step)
        return plan.batch(place)

    def micro_batches(self, step: int, **ranks: int) -> list[np.ndarray]:
        plan, place = self._step(step)
        return plan.micro_batches(place, **ranks)

    def padding(self, parts: int) -> float:
        """Of the buffer's first steps; see BatchPlan.padding."""
        return self._plan.padding(parts)

    def predictions(self, chosen: np.ndarray, *, augment: bool) -> int:
        """As PairSet.predictions, of pairs in the buffer."""
        return int((self.lengths[chosen] - 1 + (self.cf_lengths[chosen] - 1) * self.has_cf[chosen] * augment).sum())

    def size(self) -> dict[str, float]:
        """Pairs read so far, and the share of them that have a counterfactual."""
        assert self._plan
        pairs = self.position["pairs"] + len(self._pairs)
        number = self.position["with_counterfactual"] + int(self.has_cf.sum())
        return {"pairs": pairs, "with_counterfactual": number / pairs}

    def __getitem__(self, i: int) -> AlignedPair:
        return self._pairs[i]
