"""AdamW or plain gradient descent, and the learning rate as a pure function of the step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn


def build_optimizer(
    module: nn.Module, *, lr: float, betas: Sequence[float], eps: float, weight_decay: float, name: str = "adamw"
) -> torch.optim.Optimizer:
    """Fused AdamW over the parameters of `module`, weight decay on matrices and embeddings only; or plain "sgd"."""
    trained = [p for p in module.parameters() if p.requires_grad]
    if name == "sgd":
        return torch.optim.SGD(trained, lr=lr, fused=True)
    matrices = [p for p in trained if p.dim() >= 2]
    vectors = [p for p in trained if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=(betas[0], betas[1]), eps=eps, fused=True)


def lr_share(step: int, total: int, warmup: float, kind: str) -> float:
    """Fraction of the peak learning rate at `step` (from 0): linear rise over warmup · total steps, then decay to 0."""
    rise = warmup * total
    if step < rise:
        return (step + 1) / (rise + 1)
    if kind == "constant":
        return 1.0
    left = (total - step) / max(total - rise, 1)
    return left if kind == "linear" else 0.5 * (1 - math.cos(math.pi * left))
