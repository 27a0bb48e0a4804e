"""Processes: how many there are, what each may use, and that none is silently missing."""

from __future__ import annotations

import os
from datetime import timedelta

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs


def make_accelerator(
    *, batch_size: int, micro_batch_size: int, precision: str | None = None, cpu_threads: int = 0
) -> Accelerator:
    """Accelerate's state for this process; accumulation follows from the batch sizes and the number of ranks.

    precision None takes what `accelerate launch` was told. cpu_threads 0: all cores this process may use, shared by the
    ranks. Raises ValueError if the sizes do not divide, or if fewer processes run than were launched.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    accumulation, rest = divmod(batch_size, micro_batch_size * world)
    if rest or not accumulation:
        raise ValueError(
            f"train.batch_size: {batch_size} is not a multiple of train.micro_batch_size {micro_batch_size} "
            f"times {world} ranks"
        )
    on_cpu = not torch.cuda.is_available()
    # DeepSpeed on CPU ranks takes another backend unless told; ranks wait long while the first prepares the pairs
    group = InitProcessGroupKwargs(backend="gloo" if on_cpu else None, timeout=timedelta(hours=12))
    accelerator = Accelerator(
        gradient_accumulation_steps=accumulation,
        mixed_precision=precision,
        cpu=on_cpu,
        kwargs_handlers=[group] if world > 1 else None,
    )
    if accelerator.num_processes != world:
        raise ValueError(
            f"{world} processes were launched, but Accelerate runs {accelerator.num_processes}; on a CPU use "
            f"ACCELERATE_USE_CPU=true torchrun --nproc_per_node {world} train_distill.py …"
        )
    if accelerator.device.type == "cpu":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(cpu_threads or max(1, cores // world))
    return accelerator
