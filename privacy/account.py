"""ε of a private run: Gaussian noise on sums over texts that are sampled independently of each other, step by step.

A step adds the gradients of its texts, each of bounded norm, and noise. Two corpora that differ in one text, which is
there or not, then give outputs whose probabilities differ by a factor of e^ε at most, but for events of probability δ.
The accounting is dp-accounting's, with privacy loss distributions (Koskela et al. 2020), and rounds up.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

LARGEST = 1000.0  # noise, as a multiple of the sensitivity, that still trains something
INTERVAL = 1e-3  # of the discretised privacy loss


@dataclass(frozen=True)
class Schedule:
    """Steps that each hold a text with probability sampling_rate.

    The noise of the first epoch_steps steps is multiplied by `decay` in the next ones, by decay² after those, …
    """

    sampling_rate: float
    steps: int
    decay: float = 1.0
    epoch_steps: int = 1

    def share(self, step: int) -> float:
        """Noise at `step` (from 0), as a share of the first step's."""
        return self.decay ** (step // self.epoch_steps)


@lru_cache
def epsilon(noise_multiplier: float, schedule: Schedule, delta: float) -> float:
    """ε at δ. noise_multiplier: standard deviation of the first step's noise over the sensitivity of its sum."""
    import dp_accounting as dp
    from dp_accounting.pld import PLDAccountant

    accountant = PLDAccountant(dp.NeighboringRelation.ADD_OR_REMOVE_ONE, value_discretization_interval=INTERVAL)
    every = schedule.steps if schedule.decay == 1 else schedule.epoch_steps
    for begin in range(0, schedule.steps, every):
        noise = dp.GaussianDpEvent(noise_multiplier * schedule.share(begin))
        sampled = dp.PoissonSampledDpEvent(schedule.sampling_rate, noise)
        accountant.compose(dp.SelfComposedDpEvent(sampled, min(every, schedule.steps - begin)))
    return float(accountant.get_epsilon(delta))


@lru_cache
def calibrate(target: float, schedule: Schedule, delta: float) -> float:
    """The smallest noise multiplier, to 0.1 %, with ε at most `target`; ValueError where no useful one has it."""
    from scipy.optimize import brentq

    low = high = 1.0
    while epsilon(high, schedule, delta) > target:
        low, high = high, 2 * high
        if high > LARGEST:
            raise ValueError(
                f"privacy.epsilon: {target:g} is impossible in {schedule.steps:,} steps that each hold a text with "
                f"probability {schedule.sampling_rate:.3g}; take fewer steps, a smaller train.batch_size or more texts"
            )
    while low == high or (low > 0.05 and epsilon(low, schedule, delta) <= target):
        low, high = low / 2, low
    if low <= 0.05 and epsilon(low, schedule, delta) <= target:
        return low
    found: float = brentq(lambda noise: epsilon(noise, schedule, delta) - target, low, high, rtol=2e-4)
    while epsilon(found, schedule, delta) > target:
        found *= 1.0005
    return found
