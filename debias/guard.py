"""What may befall a run: it is asked to stop, a step comes out as no number, memory is short, another rank is gone."""

from __future__ import annotations

import json
import math
import os
import signal
import threading
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from counterfactuals.files import explain
from counterfactuals.tokens.batch import PairBatch

SIGNALS = ("SIGTERM", "SIGINT", "SIGUSR1")  # SIGUSR1: what SLURM is asked to send ahead of the time limit


class StopRequest:
    """Use as a context manager around a loop. `signal`: the name of the signal that asked for a stop, "" if none did.

    A second Ctrl-C ends the process at once, as a first one does outside the loop.
    """

    def __init__(self) -> None:
        self.signal = ""
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # Python takes signals there only
            known = [signal.Signals[name] for name in SIGNALS if hasattr(signal, name)]
            self._before = {number: signal.signal(number, self._ask) for number in known}
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: Any) -> None:
        self.signal = signal.Signals(number).name
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_DFL)


def is_finite(sums: Mapping[str, torch.Tensor], grad_norm: Any, *, scaled: bool) -> bool:
    """Whether losses and gradient are numbers. scaled: with fp16, whose loss scaling answers for the gradient."""
    values = [*sums.values()] if scaled or grad_norm is None else [*sums.values(), torch.as_tensor(grad_norm)]
    return all(math.isfinite(value) for value in torch.stack([v.float().to(values[0].device) for v in values]).tolist())


class NonFinite:
    """The policy for steps whose loss or gradient is no number: "stop", or "skip" at most max_skips of them.

    Their batches are written below `folder`, to be looked at; no such step reaches the weights, or a checkpoint.
    """

    def __init__(self, folder: Path, *, policy: str, max_skips: int, skipped: int = 0):
        self.folder, self.policy, self.max_skips, self.skipped = folder, policy, max_skips, skipped

    def handle(self, step: int, rank: int, batches: Iterable[PairBatch], figures: Mapping[str, Any]) -> None:
        """Keep this rank's micro-batches of step `step` (from 0). Raises ValueError unless the policy skips it."""
        said = {key: str(float(value)) for key, value in figures.items()}  # JSON knows no NaN
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
        where = f"step {step + 1}: no finite step ({what}); its batches are in {self.folder}"
        if self.policy == "stop":
            raise ValueError(
                f"{where}; lower optim.lr, set train.precision no, or leave such steps out: train.on_nan skip"
            )
        if self.skipped > self.max_skips:
            raise ValueError(f"{where}; it is number {self.skipped}, train.max_skips allows {self.max_skips}")
        if rank == 0:
            print(f"warning: {where}; left out", flush=True)


def in_plain_words(error: Exception) -> str:
    """What went wrong on this machine and the way out. An error that says neither of those is raised again."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error):
        return (
            "out of memory: lower train.micro_batch_size (the result stays the same to rounding), loss.chunk_rows or "
            "data.max_length, or set train.gradient_checkpointing; the same command goes on from the last checkpoint"
        )
    if isinstance(error, OSError) and error.errno:
        return explain(error)
    if isinstance(error, ValueError | OSError):
        return str(error)
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if several and any(word in str(error) for word in ("onnection", "imed out", "imeout", "NCCL", "gloo")):
        return "another rank has ended, its message says why; the same command goes on from the last checkpoint"
    raise error
