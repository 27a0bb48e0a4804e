"""Several processes share one evaluation: `accelerate launch -m eval …`, or torchrun.

Each runs the whole evaluation, but computes every n-th batch only of what is asked of its model, and then they exchange
results. The batches are those of one process, and so are the figures. Process 0 alone reads kept rows, writes and
prints. Not shared, and done by each: training heads (and the states for them), other models (judges, classifiers),
lm-evaluation-harness's tasks.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import torch
from torch import distributed

from eval.model import Scorer


@contextlib.contextmanager
def joined() -> Iterator[int]:
    """Joins the processes that a launcher started; gives this one's number, 0 where it is alone."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield 0
        return
    # gloo, as Python objects are exchanged; a process that dies ends the others through the launcher
    distributed.init_process_group("gloo", timeout=timedelta(days=1))
    try:
        yield distributed.get_rank()
    finally:
        distributed.destroy_process_group()


def own_device() -> str | None:
    """The GPU of this process among those of its machine; None: none, or `accelerate launch --cpu`."""
    if os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true"):
        return "cpu"
    if not torch.cuda.is_available():
        return None
    return f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % torch.cuda.device_count()}"


def of_first(value: Any) -> Any:
    """What process 0 gave here; every process calls this."""
    holder = [value]
    distributed.broadcast_object_list(holder, src=0)
    return holder[0]


class SharedScorer(Scorer):
    """A scorer whose batches are shared: every process makes the same calls in the same order."""

    __qualname__ = Scorer.__qualname__  # part of a fingerprint: shared or not, a model scores alike
    _own: list[int] | None = None  # rows that this process has done of the call in progress

    def _batches(self, lengths: Sequence[int], **options: Any) -> Iterator[list[int]]:
        count, rank = distributed.get_world_size(), distributed.get_rank()
        for number, rows in enumerate(super()._batches(lengths, **options)):
            if self._own is None:  # of a call that is not shared
                yield rows
            elif number % count == rank:
                self._own += rows
                yield rows

    def _shared(self, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """The result of `call`, a value a row, for the rows of every process; calls inside it are not shared."""
        outer, own = self._own, list[int]()
        self._own = own if outer is None else None
        try:
            found = call(*args, **options)
        finally:
            self._own = outer
        if outer is not None:
            return found
        columns = found if isinstance(found, tuple) else (found,)
        parts: list[Any] = [None] * distributed.get_world_size()
        distributed.all_gather_object(parts, (own, [[column[row] for row in own] for column in columns]))
        for rows, values in parts:
            for column, new in zip(columns, values):
                for row, value in zip(rows, new):
                    column[row] = value
        return found

    def _token_scores(self, *args: Any, **options: Any) -> Any:
        return self._shared(super()._token_scores, *args, **options)

    def next_logprobs(self, *args: Any, **options: Any) -> Any:
        return self._shared(super().next_logprobs, *args, **options)

    def hidden_states(self, *args: Any, **options: Any) -> Any:
        return self._shared(super().hidden_states, *args, **options)

    def sample_ids(self, *args: Any, **options: Any) -> Any:
        return self._shared(super().sample_ids, *args, **options)
