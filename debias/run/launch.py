"""Processes: how many there are, what each may use, and that none is silently missing."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, set_seed

WAIT = timedelta(hours=12)  # how long ranks wait for each other: the first may be preparing pairs


def make_accelerator(
    *, batch_size: int, micro_batch_size: int, precision: str | None = None, cpu_threads: int = 0
) -> Accelerator:
    """Accelerate's state for this process; accumulation follows from the batch sizes and the number of ranks.

    precision None: as given to `accelerate launch`. cpu_threads 0: the ranks share all cores this process may use.
    Raises ValueError if the sizes do not divide, or if fewer processes run than were launched.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    accumulation, rest = divmod(batch_size, micro_batch_size * world)
    if rest or not accumulation:
        raise ValueError(
            f"train.batch_size: {batch_size} is not a multiple of train.micro_batch_size {micro_batch_size} "
            f"times {world} ranks"
        )
    on_cpu = not torch.cuda.is_available() or _asked("ACCELERATE_USE_CPU")
    deepspeed = _asked("ACCELERATE_USE_DEEPSPEED")
    if deepspeed and on_cpu:
        _prepare_deepspeed_on_cpu()
    # without a backend DeepSpeed chooses another on CPU ranks
    group = InitProcessGroupKwargs(backend="gloo" if on_cpu else None, timeout=WAIT)
    accelerator = Accelerator(
        gradient_accumulation_steps=accumulation,
        mixed_precision=precision,
        cpu=on_cpu and not deepspeed,
        kwargs_handlers=[group] if world > 1 or deepspeed else None,
    )
    _check_launch(accelerator, world)
    if accelerator.device.type == "cpu":
        torch.set_num_threads(cpu_threads or max(1, num_cores() // world))
    return accelerator


def num_cores() -> int:
    """Cores that this process may use; all of the machine's where that is not known, as on macOS."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_launch(accelerator: Accelerator, world: int) -> None:
    """Refuse a launch that Accelerate has silently turned into another."""
    for kind in ("DEEPSPEED", "FSDP"):
        if _asked(f"ACCELERATE_USE_{kind}") and accelerator.distributed_type != kind:
            raise ValueError(
                f"{kind} was asked for, but Accelerate runs {accelerator.distributed_type.value} on "
                f"{accelerator.device.type}: take another profile of configs/accelerate"
            )
    if accelerator.num_processes != world:
        raise ValueError(
            f"{world} processes were launched, but Accelerate runs {accelerator.num_processes}; on a CPU use "
            f"ACCELERATE_USE_CPU=true torchrun --nproc_per_node {world} train_distill.py …"
        )


def _asked(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in ("1", "true", "yes")


def _prepare_deepspeed_on_cpu() -> None:
    """Make DeepSpeed run on CPU ranks; without this Accelerate silently trains with DDP."""
    os.environ.pop("ACCELERATE_USE_CPU", None)
    os.environ.setdefault("LOCAL_RANK", "0")
    import deepspeed.ops

    # its shared-memory collectives take a minute to compile in the first run; gloo has the same
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def configure_deepspeed(
    accelerator: Any, *, micro_batch_size: int, max_grad_norm: float, precision: str | None = None
) -> None:
    """Fill in what Accelerate's "auto" cannot know, since no data loader is prepared, or gets wrong: it clips at 1.0,
    and keeps the batch sizes of an earlier run of the same command.

    precision None leaves what the JSON says.
    """
    plugin = getattr(accelerator.state, "deepspeed_plugin", None)
    if plugin is not None:
        config = plugin.deepspeed_config
        accumulation, world = accelerator.gradient_accumulation_steps, accelerator.num_processes
        config["train_micro_batch_size_per_gpu"] = micro_batch_size
        config["gradient_accumulation_steps"] = accumulation
        config["train_batch_size"] = micro_batch_size * accumulation * world
        config["gradient_clipping"] = max_grad_norm
        if precision is not None:
            config |= {kind: config.get(kind, {}) | {"enabled": precision == kind} for kind in ("bf16", "fp16")}


def refuse_overflow(optimizer: Any) -> None:
    """Make ZeRO skip steps with non-finite gradients in float32 too, as it does in bf16 and fp16."""
    zero: Any = getattr(optimizer, "optimizer", None)
    if hasattr(zero, "check_grad_overflow"):
        zero.check_grad_overflow = True


def is_sharded(accelerator: Accelerator) -> bool:
    """Whether no rank holds the whole model (FSDP, ZeRO-3)."""
    return accelerator.distributed_type == "FSDP" or is_zero3(accelerator)


def is_zero3(accelerator: Accelerator) -> bool:
    plugin = getattr(accelerator.state, "deepspeed_plugin", None)
    return plugin is not None and plugin.zero_stage == 3


def load_whole_again() -> None:
    """After a run under ZeRO-3: otherwise transformers splits every model loaded from then on among the ranks."""
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    unset_hf_deepspeed_config()


def any_rank(world: int) -> Callable[..., list[bool]]:
    """A function of this rank's flags that tells which of them are true on any rank.

    The flags do not go through the GPUs, so it does not wait for their queues.
    """
    if world == 1:
        return lambda *flags: list(flags)
    on_gloo = torch.distributed.get_backend() == "gloo"
    group = None if on_gloo else torch.distributed.new_group(backend="gloo", timeout=WAIT)

    def ask(*flags: bool) -> list[bool]:
        counts = torch.tensor(flags, dtype=torch.int32)
        torch.distributed.all_reduce(counts, torch.distributed.ReduceOp.MAX, group=group)
        return counts.bool().tolist()

    return ask


def seed_step(seed: int, step: int, rank: int) -> None:
    """Make dropout a function of (seed, step, rank): a resumed run needs no saved random states."""
    set_seed(int(np.random.SeedSequence([seed, step, rank]).generate_state(1)[0]))
