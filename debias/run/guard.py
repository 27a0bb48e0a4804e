"""What may happen to a training loop: it is asked to stop, or a step is not finite."""

from __future__ import annotations

import json
import logging
import math
import signal
import threading
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from counterfactuals.tokens.batch import PairBatch

log = logging.getLogger(__name__)
SIGNALS = ("SIGTERM", "SIGINT", "SIGUSR1")  # SLURM can be told to send SIGUSR1 ahead of the time limit


class StopRequest:
    """A context manager around a loop. asked: whether a signal has asked for a stop.

    A second Ctrl-C ends the process at once, as a first one does outside the loop.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # Python handles signals only there
            known = [signal.Signals[name] for name in SIGNALS if hasattr(signal, name)]
            self._before = {number: signal.signal(number, self._ask) for number in known}
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: Any) -> None:
        self.asked = True
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_DFL)


def is_finite(sums: Mapping[str, torch.Tensor], grad_norm: Any, *, scaled: bool) -> bool:
    """Whether losses and gradient are finite. scaled: fp16, where loss scaling checks the gradient itself."""
    values = [*sums.values()] if scaled or grad_norm is None else [*sums.values(), torch.as_tensor(grad_norm)]
    return all(math.isfinite(value) for value in torch.stack([v.float().to(values[0].device) for v in values]).tolist())


class NonFinite:
    """What to do with a step whose loss or gradient is not finite: "stop", or "skip" at most max_skips of them.

    Its batches are written below `folder` for inspection. It reaches neither the weights nor a checkpoint.
    """

    def __init__(self, folder: Path, *, policy: str, max_skips: int, skipped: int = 0):
        self.folder, self.policy, self.max_skips, self.skipped = folder, policy, max_skips, skipped

    def handle(self, step: int, rank: int, batches: Iterable[PairBatch], figures: Mapping[str, Any]) -> None:
        """Keep this rank's micro-batches of step `step` (from 0). Raises ValueError unless the policy skips it."""
        said = {key: str(float(value)) for key, value in figures.items()}  # JSON has no NaN
        for number, batch in enumerate(batches):
            tensors = {f.name: getattr(batch, f.name) for f in fields(batch) if f.name.endswith(("_NT", "_R"))}
            tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
            facts = {"step": step + 1, "rank": rank, "micro_batch": number, "figures": said}
            facts |= {"num_pairs": batch.num_pairs, "num_trained": batch.num_trained}
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.folder / f"step-{step + 1:07d}-rank{rank}-{number}.safetensors"
            save_file(tensors, path, {"facts": json.dumps(facts)})
        self.skipped += 1
        what = ", ".join(f"{key} {value}" for key, value in said.items())
        where = f"step {step + 1}: not finite ({what}); its batches are in {self.folder}"
        if self.policy == "stop":
            raise ValueError(
                f"{where}; lower optim.lr, set train.precision no, or skip such steps with train.on_nan skip"
            )
        if self.skipped > self.max_skips:
            raise ValueError(f"{where}; it is number {self.skipped}, and train.max_skips allows {self.max_skips}")
        if rank == 0:
            log.warning("%s; skipped", where)
