"""Which texts are in a step: each with the same probability, whatever else is there (Poisson sampling)."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from privacy.noise import Keys


class PoissonPlan:
    """Stands for counterfactuals.tokens.batch.BatchPlan in a private run: batches are a function of (keys, step).

    text_P, lengths, sequences: for each pair the number of its text (rising, without gaps), its tokens, and its trained
    sequences (1 or 2). A step holds whole texts, on average as many as have batch_size trained sequences; it may hold
    more, fewer, or none. apart: the micro-batch of a text is drawn as well, so that it does not depend on the others.
    """

    position: ClassVar[dict[str, int]] = {}

    def __init__(
        self,
        text_P: np.ndarray,
        lengths: np.ndarray,
        sequences: np.ndarray,
        *,
        batch_size: int,
        keys: Keys,
        apart: bool = False,
    ):
        self.text_P, self._lengths, self._sequences = text_P, lengths, sequences
        self.keys, self._apart = keys, apart
        self._first = np.append(np.flatnonzero(np.diff(text_P, prepend=-1)), len(text_P))  # pair of each text
        self.num_texts = len(self._first) - 1
        total = int(sequences.sum(dtype=np.int64))
        self.rate = batch_size / total
        if self.rate > 1:
            raise ValueError(f"train.batch_size: {batch_size} sequences, but the corpus has only {total}; lower it")
        self.steps_per_epoch = max(1, round(1 / self.rate))

    def seek(self, facts: dict[str, Any]) -> None:
        """Every step is at hand."""

    def texts(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the texts of `step` (from 0), and for each a number from 0 to 1 that decides its micro-batch."""
        drawn = self.keys.draws("texts", step).random(self.num_texts)
        chosen = np.flatnonzero(drawn < self.rate)
        return chosen, drawn[chosen] / self.rate

    def exchanged(self, step: int, chosen: np.ndarray) -> np.ndarray:
        """Whether each of these pairs is seen from its other side in this step (counterfactual.augment: one)."""
        return self.keys.draws("side", step).integers(2, size=len(self.text_P), dtype=np.uint8)[chosen].astype(bool)

    def _pairs(self, texts: np.ndarray) -> np.ndarray:
        return np.concatenate([np.arange(0), *(np.arange(self._first[u], self._first[u + 1]) for u in texts)])

    def batch(self, step: int) -> np.ndarray:
        """Indices of the pairs of `step`."""
        return self._pairs(self.texts(step)[0])

    def micro_batches(self, step: int, *, accumulation: int, rank: int = 0, world: int = 1) -> list[np.ndarray]:
        """This rank's share of `step`, in `accumulation` parts of whole texts; some may be empty."""
        (texts, where), parts = self.texts(step), accumulation * world
        if self._apart:
            number = (where * parts).astype(int)
        else:  # texts of like length together, and about as many sequences in each part
            longest = np.array([self._lengths[self._first[u] : self._first[u + 1]].max() for u in texts], dtype=int)
            texts = texts[np.argsort(-longest, kind="stable")]
            weight = np.array([self._sequences[self._first[u] : self._first[u + 1]].sum() for u in texts], dtype=int)
            number = (np.cumsum(weight) - weight) * parts // max(int(weight.sum()), 1)
        return [self._pairs(texts[number == part]) for part in range(rank, parts, world)]

    def padding(self, parts: int, steps: int = 200) -> float:
        """Share of padding in the first `steps` steps, cut into `parts` micro-batches each; 0 is ideal."""
        padded = real = 1
        for step in range(steps):
            for chosen in self.micro_batches(step, accumulation=parts):
                padded += int(self._lengths[chosen].max(initial=0)) * int(self._sequences[chosen].sum())
                real += int((self._lengths[chosen].astype(int) * self._sequences[chosen]).sum())
        return 1 - real / padded
