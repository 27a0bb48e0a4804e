"""What an evaluation will take: every task is run with a scorer that counts tokens instead of reading them.

Speed is measured on the model itself, in two seconds or so: tokens a second in short rows, in long rows, and written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from eval.check import Resolved, leader
from eval.model import Scorer
from eval.task import Row

SHORT, LONG = 16, 256  # tokens a row


class NotCounted(Exception):
    """A task that trains, loads another model or runs the model itself: its work cannot be counted so."""


class CountingScorer(Scorer):
    """Answers every question at once, with zeros; `read`, `rows` and `written` say what it would have taken."""

    def __init__(self, scorer: Scorer) -> None:
        self.__dict__.update(scorer.__dict__)
        self.read = self.rows = self.written = 0

    @property
    def model(self) -> Any:
        raise NotCounted

    def beside(self, *_: Any, **__: Any) -> Any:
        raise NotCounted

    def _count(self, ids: Sequence[Sequence[int]]) -> None:
        self.read += sum(map(len, ids))
        self.rows += len(ids)

    def _token_scores(self, ids: Any, last: Any, **_: Any) -> tuple[list[np.ndarray], list[bool], list[np.ndarray]]:
        self._count(ids)
        sizes = [len(row) - 1 for row in ids] if last is None else last
        moments = [np.ones((2, size), np.float32) for size in sizes]
        return [np.zeros(size, np.float32) for size in sizes], [True] * len(ids), moments

    def next_logprobs(self, ids: Any, keep: Any = None) -> np.ndarray:
        self._count(ids)
        return np.zeros((len(ids), self.vocab_size if keep is None else len(keep)), np.float32)

    def each_states(self, ids: Any, *, layer: int = -1) -> Iterator[tuple[int, torch.Tensor]]:
        self._count(ids)
        yield from ((number, torch.zeros(len(row), self.width)) for number, row in enumerate(ids))

    def states(self, *_: Any, **__: Any) -> Any:
        raise NotCounted

    def sample_ids(self, ids: Any, **options: Any) -> list[list[int]]:
        self._count(sorted(set(map(tuple, ids))))
        self.written += len(ids) * options.get("max_new_tokens", 100)
        return [[row[-1]] for row in ids]


@dataclass(frozen=True)
class Speed:
    """Seconds a token: read in rows of SHORT and of LONG tokens, and written."""

    short: float
    long: float
    written: float

    @classmethod
    def measure(cls, scorer: Scorer) -> Speed:
        token = (scorer.bos or [0])[0]

        def timed(work: Callable[[], Any], tokens: int) -> float:
            work()  # the first time is slower
            start = time.perf_counter()
            work()
            return (time.perf_counter() - start) / tokens

        length = min(LONG, scorer.max_length)
        short, long = [[token] * SHORT] * 24, [[token] * length] * 2
        new = min(6, scorer.max_length - 4)
        return cls(
            timed(lambda: scorer.token_logprobs(short), SHORT * 24),
            timed(lambda: scorer.token_logprobs(long), length * 2),
            timed(lambda: scorer.sample_ids([[token] * 4] * 24, max_new_tokens=new), 24 * new),
        )

    def seconds(self, count: CountingScorer) -> float:
        length = count.read / max(1, count.rows)
        share = min(1.0, max(0.0, (length - SHORT) / (LONG - SHORT)))
        return count.read * ((1 - share) * self.short + share * self.long) + count.written * self.written


def estimate(
    scorer: Scorer, resolved: Resolved, inputs: dict[str, list[Row]], num_seeds: int
) -> dict[str, tuple[int, int, float | None]]:
    """{label: (rows, tokens read or written, seconds)} for one model; None: not all of it can be counted."""
    speed, found = Speed.measure(scorer), {}
    for label, (task, options) in resolved.items():
        count, rows = CountingScorer(scorer), inputs[label]
        if leader(label, resolved):
            found[label] = (0, 0, None if options.get("judge") else 0.0)
            continue
        try:
            task.score(count, rows, options, 0)
            times = num_seeds if task.sampled else 1
            found[label] = (len(rows), times * (count.read + count.written), times * speed.seconds(count))
        except NotCounted:
            found[label] = (len(rows), count.read, None)
    return found


def table(found: dict[str, tuple[int, int, float | None]], num_models: int) -> str:
    """A line for each task, and the sum over tasks and models."""
    lines = [f"{'task':24} {'rows':>8} {'tokens':>11} {'minutes':>8}"]
    for label, (rows, tokens, seconds) in found.items():
        minutes = "?" if seconds is None else f"{seconds / 60:.1f}"
        lines.append(f"{label:24} {rows:8,} {tokens:11,} {minutes:>8}")
    total = num_models * sum(seconds or 0.0 for _, _, seconds in found.values()) / 60
    models = f" for {num_models} models" if num_models > 1 else ""
    unknown = " and what is marked ?" if any(seconds is None for *_, seconds in found.values()) else ""
    return "\n".join([*lines, f"about {total:.1f} minutes{models}{unknown}, at the speed measured just now"])
