"""AdamW and its learning rate, as a pure function of the step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn


def build_optimizer(
    module: nn.Module, *, lr: float, betas: Sequence[float], eps: float, weight_decay: float
) -> torch.optim.AdamW:
    """Fused AdamW over the parameters of `module`; weight decay on matrices and embeddings only."""
    matrices = [p for p in module.parameters() if p.requires_grad and p.dim() >= 2]
    vectors = [p for p in module.parameters() if p.requires_grad and p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=(betas[0], betas[1]), eps=eps, fused=True)


def configure_deepspeed(
    accelerator: Any, *, micro_batch_size: int, max_grad_norm: float, precision: str | None = None
) -> None:
    """Fill in what Accelerate's "auto" cannot know (no data loader is prepared), gets wrong (clipping at 1.0) or keeps
    from an earlier run of the same command (batch sizes).

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
    """Make ZeRO leave out steps with gradients that are no numbers in float32 too, as it does in bf16 and fp16."""
    zero: Any = getattr(optimizer, "optimizer", None)
    if hasattr(zero, "check_grad_overflow"):
        zero.check_grad_overflow = True


def lr_share(step: int, total: int, warmup: float, kind: str) -> float:
    """Share of the peak learning rate at `step` (from 0): linear rise over warmup · total steps, then decay to 0."""
    rise = warmup * total
    if step < rise:
        return (step + 1) / (rise + 1)
    if kind == "constant":
        return 1.0
    left = (total - step) / max(total - rise, 1)
    return left if kind == "linear" else 0.5 * (1 - math.cos(math.pi * left))
