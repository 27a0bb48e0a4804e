"""What a private step does in place of the backward pass and of clipping: each text clipped, summed, noise, divided."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from privacy.account import Schedule
from privacy.clip import UnitGradients
from privacy.noise import Keys

SMALL = 0.01  # automatic clipping adds it to a norm (Bu et al. 2023)
RATE = 0.2  # of the adaptive bound (Andrew et al. 2021)
COUNT_NOISE = 5.0  # of the count behind it, as a multiple of the noise multiplier: costs 0.5 % more noise elsewhere


class Mechanism:
    """Clips what each text adds to a step's gradient, and adds noise once, after the sum over micro-batches and ranks.

    clip: how a gradient g becomes what is summed, and by how much one text can move the sum (`sensitivity`).
      flat: g · min(1, C / ‖g‖); C. automatic: g / (‖g‖ + 0.01); 1.
      micro: the mean gradient of a micro-batch, each of the L parameters clipped to C / √L; 2 C, since a text that
      joins a clipped mean can turn it round (eDP-SGD, Dupuy et al. 2022, who count C).
    max_norm: C. adaptive: C follows this quantile of the norms (flat only), by a count with noise of its own.
    divisor: what the sum is divided by, the same in every step. noise_multiplier, schedule: see account.epsilon.

        >>> loss, sums = task(batch)
        >>> mechanism.backward(loss)      # for each micro-batch
        >>> mechanism.release(step)       # parameters have their .grad
    """

    def __init__(
        self,
        task: Any,
        keys: Keys,
        schedule: Schedule,
        *,
        noise_multiplier: float,
        divisor: float,
        clip: str = "flat",
        max_norm: float = 1.0,
        adaptive: float | None = None,
    ):
        self._parameters = [parameter for parameter in task.parameters() if parameter.requires_grad]
        self._keys, self._schedule, self._noise, self._divisor = keys, schedule, noise_multiplier, divisor
        self._clip, self.max_norm, self._adaptive = clip, max_norm, adaptive
        self._total: dict[nn.Parameter, Tensor] = {}
        self._below = 0.0  # units with a norm below the bound, less those above it, in halves
        self._tokens = 1
        self._gradients = None if clip == "micro" else UnitGradients(task)
        if clip == "micro":
            task.register_forward_pre_hook(self._count)

    @property
    def sensitivity(self) -> float:
        return {"flat": self.max_norm, "automatic": 1.0, "micro": 2 * self.max_norm}[self._clip]

    def state(self) -> dict[str, float]:
        """What a checkpoint keeps."""
        return {"max_norm": self.max_norm} if self._adaptive is not None else {}

    def _count(self, task: Any, given: tuple[Any, ...]) -> None:
        self._tokens = max(given[0].num_tokens, 1)

    def _factor(self, norm_U: Tensor) -> Tensor:
        if self._clip == "automatic":
            return 1 / (norm_U + SMALL)
        self._below += float(((norm_U <= self.max_norm).double() - 0.5)[norm_U > 0].sum())
        return (self.max_norm / norm_U).clamp(max=1)

    def backward(self, loss: Tensor) -> None:
        """Add what the texts of a micro-batch contribute; `loss` is their sum, as DistillTask returns it."""
        if self._gradients is not None:
            self._gradients.add(loss, self._total, self._factor)
            return
        (loss / self._tokens).backward()
        bound = self.max_norm / math.sqrt(len(self._parameters))
        for parameter in self._parameters:
            if parameter.grad is not None:
                own = parameter.grad.mul_((bound / parameter.grad.norm()).clamp(max=1))
                self._total[parameter] = self._total[parameter].add_(own) if parameter in self._total else own
                parameter.grad = None

    def release(self, step: int) -> Tensor:
        """Put the sum over all ranks, with the noise of `step` (from 0), into the parameters' .grad; returns its norm.

        Every rank adds the same noise to the same sum.
        """
        noise = self._noise * self._schedule.share(step)
        deviation = noise * self.sensitivity if noise else 0.0
        if self._adaptive is not None:  # the noise of gradient and count together is that of `noise`
            deviation /= math.sqrt(1 - 1 / (2 * COUNT_NOISE) ** 2)
        for number, parameter in enumerate(self._parameters):
            total = self._total.pop(parameter, None)
            total = torch.zeros_like(parameter) if total is None else total.contiguous()
            _add_ranks_(total)
            self._keys.add_noise_(total, deviation, step, number)
            parameter.grad = total.div_(self._divisor)
        if self._adaptive is not None:
            self._adapt(step, COUNT_NOISE * noise)
        return torch.nn.utils.get_total_norm([parameter.grad for parameter in self._parameters])

    def _adapt(self, step: int, deviation: float) -> None:
        """Move the bound towards the quantile (Andrew et al. 2021, Algorithm 1)."""
        assert self._adaptive is not None
        below = torch.tensor(self._below, dtype=torch.float64, device=self._parameters[0].device)
        _add_ranks_(below)
        share = (float(below) + deviation * float(self._keys.draws("count", step).standard_normal())) / self._divisor
        self.max_norm *= math.exp(-RATE * (share + 0.5 - self._adaptive))
        self._below = 0.0


def _add_ranks_(value: Tensor) -> None:
    if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
        torch.distributed.all_reduce(value)
