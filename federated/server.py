"""What the server does with the clients' differences Δ_k = w_k − w: a weighted mean, then a step of its optimizer.

Sources: FedAvg, McMahan et al. 2017; FedAvgM, Hsu et al. 2019; FedAdam and FedYogi, Reddi et al. 2021 (arXiv
2003.00295), algorithm 2: no bias correction, second moments begin at τ².
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn

from federated.message import Tensors


class Mean:
    """Weighted mean of differences, added one after the other: only their sum is kept, in float64.

    The order decides the last digit: add in the order of the clients' numbers.
    """

    def __init__(self) -> None:
        self.sum: Tensors = {}
        self.weight = 0.0

    def add(self, difference: Tensors, weight: float) -> bool:
        """Add one, unless it is not finite: False then."""
        if not all(bool(torch.isfinite(x).all()) for x in difference.values()):
            return False
        for name, x in difference.items():
            self.sum[name] = self.sum.get(name, 0.0) + x.double() * weight
        self.weight += weight
        return True

    def result(self) -> Tensors:
        return {name: (x / self.weight).float() for name, x in self.sum.items()}


class ServerOptimizer(torch.optim.Optimizer):
    """w ← w + step, where `grad` of a parameter is −Δ, the clients' mean difference with its sign turned.

    Its moments have AdamW's names, so that a checkpoint keeps them alike (debias/run/shards.py).
    """

    def __init__(self, parameters: Iterable[nn.Parameter], name: str, *, lr: float, betas: Sequence[float], eps: float):
        self.name = name
        super().__init__(list(parameters), {"lr": lr, "betas": (betas[0], betas[1]), "eps": eps})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            (beta1, beta2), tau = group["betas"], group["eps"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                delta, state = -parameter.grad, self.state[parameter]
                if not state or state["step"] == 0:  # begun, or restored from before the first step
                    state["step"] = torch.tensor(0.0)
                    state["exp_avg"] = torch.zeros_like(delta)
                    state["exp_avg_sq"] = torch.full_like(delta, tau**2)
                state["step"] += 1
                first, second = state["exp_avg"], state["exp_avg_sq"]
                if self.name == "fedavg":
                    move = delta
                elif self.name == "fedavgm":
                    move = first.mul_(beta1).add_(delta)
                else:
                    first.mul_(beta1).add_(delta, alpha=1 - beta1)
                    square = delta.square()
                    if self.name == "fedadam":
                        second.mul_(beta2).add_(square, alpha=1 - beta2)
                    else:  # fedyogi
                        second.sub_((1 - beta2) * square * (second - square).sign())
                    move = first / (second.sqrt() + tau)
                parameter.add_(move, alpha=group["lr"])


def apply(student: nn.Module, mean: Tensors, optimizer: ServerOptimizer) -> None:
    """Move the student, which holds the weights that were sent, as the clients' mean difference says."""
    for name, parameter in student.named_parameters():
        parameter.grad = -mean[name].to(parameter.device)
    optimizer.step()
    optimizer.zero_grad()
