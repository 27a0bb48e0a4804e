"""What a private run costs, its random numbers, and which texts are in a step."""

import os

import numpy as np
import pytest
import torch

from privacy.account import Schedule, calibrate, epsilon
from privacy.noise import Keys, check_secret, load_secret
from privacy.plan import PoissonPlan

# noise, sampling rate, steps, delta; ε by PRVAccountant (eps_error .01) and RDPAccountant's bound, of opacus 1.6.0 and
# dp-accounting 0.6.0, computed once in an environment of their own
ORACLES = [
    (1.0, 256 / 50000, 2000, 1e-5, 1.2498, 1.4863),
    (0.7, 0.01, 500, 1e-5, 3.6073, 4.3759),
    (0.6, 0.004, 800, 1e-6, 4.3130, 5.2378),
    (2.0, 0.05, 1000, 1e-5, 3.7100, 4.0244),
    (1.2, 0.02, 3000, 1e-6, 5.6789, 6.0971),
]
KEYS = Keys(b"s" * 32, b"a test")


@pytest.mark.parametrize(("noise", "rate", "steps", "delta", "prv", "rdp"), ORACLES)
def test_epsilon_is_that_of_other_accountants(noise, rate, steps, delta, prv, rdp):
    found = epsilon(noise, Schedule(rate, steps), delta)
    assert found == pytest.approx(prv, rel=0.02) and found < rdp


def test_half_the_noise_costs_what_the_documentation_says():
    assert epsilon(0.5, Schedule(256 / 50000, 2000), 1e-5) == pytest.approx(10.27, rel=0.01)


def test_the_noise_found_gives_the_epsilon_asked_for():
    for target, schedule in ((3.0, Schedule(0.05, 100)), (1.0, Schedule(0.05, 100, decay=0.9, epoch_steps=50))):
        noise = calibrate(target, schedule, 1e-5)
        assert 0.995 * target < epsilon(noise, schedule, 1e-5) <= target


def test_noise_that_decays_costs_more_than_noise_that_does_not():
    falling = Schedule(0.02, 200, decay=0.8, epoch_steps=50)
    assert epsilon(1.0, falling, 1e-5) > epsilon(1.0, Schedule(0.02, 200), 1e-5)
    assert epsilon(1.0, falling, 1e-5) < epsilon(0.8**3, Schedule(0.02, 200), 1e-5)


def test_an_epsilon_that_no_noise_gives_is_refused():
    with pytest.raises(ValueError, match=r"^privacy\.epsilon: 0\.0001 is impossible in 100 steps"):
        calibrate(1e-4, Schedule(0.5, 100), 1e-6)


def test_noise_is_normal_and_its_own_in_every_step():
    """To 1 % in 10^6 numbers; two steps and two parameters are not correlated."""
    drawn = []
    for numbers in ((0, 0), (1, 0), (0, 1)):
        KEYS.add_noise_(noise := torch.full((1_000_000,), 2.0), 3.0, *numbers)
        drawn.append((noise - 2) / 3)
        assert float(drawn[-1].std()) == pytest.approx(1, abs=0.01) and abs(float(drawn[-1].mean())) < 0.005
        assert float((drawn[-1] ** 4).mean()) == pytest.approx(3, abs=0.05)
    assert float(torch.corrcoef(torch.stack(drawn)).triu(1).abs().max()) < 0.005
    KEYS.add_noise_(again := torch.zeros(1_000_000), 1.0, 1, 0)
    assert torch.equal(again, (drawn[1] * 3).div(3)) or torch.allclose(again, drawn[1], atol=1e-5)


def test_the_secret_alone_decides_the_noise():
    """Not the seeds of torch and numpy; and another run, or another secret, has other noise."""

    def noise(keys: Keys, seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        np.random.seed(seed)
        keys.add_noise_(found := torch.zeros(8), 1.0, 0, 0)
        return found

    assert torch.equal(noise(KEYS, 0), noise(Keys(b"s" * 32, b"a test"), 1))
    others = [Keys(b"t" * 32, b"a test"), Keys(b"s" * 32, b"another run")]
    assert all(not torch.isclose(noise(KEYS, 0), noise(other, 0)).any() for other in others)
    assert len({KEYS.tag(), *(other.tag() for other in others)}) == 3


def test_a_secret_is_made_for_its_owner_alone(tmp_path):
    path = tmp_path / "folder" / "secret"
    made = load_secret(path)
    assert len(made) == 32 and path.stat().st_mode & 0o777 == 0o600 and load_secret(path) == made
    assert [file.name for file in path.parent.iterdir()] == ["secret"]
    os.chmod(path, 0o640)
    with pytest.raises(ValueError, match="can be read by others"):
        check_secret(path)
    os.chmod(path, 0o600)
    path.write_bytes(b"short")
    with pytest.raises(ValueError, match="fewer than 32 bytes"):
        check_secret(path)


def plan(batch_size: int = 20, **options) -> PoissonPlan:
    """100 texts of one to three pairs, each of one or two trained sequences."""
    draw = np.random.default_rng(0)
    text_P = np.repeat(np.arange(100), draw.integers(1, 4, 100))
    lengths, sequences = draw.integers(2, 60, len(text_P)), draw.integers(1, 3, len(text_P))
    return PoissonPlan(text_P, lengths, sequences, batch_size=batch_size, keys=KEYS, **options)


def test_texts_are_sampled_independently():
    """The number of texts in a step varies as a binomial one does, and two texts are together as often as by chance."""
    poisson = plan()
    held = np.zeros((3000, 100))
    for step in range(3000):
        held[step, poisson.texts(step)[0]] = 1
    rate = poisson.rate
    assert held.mean() == pytest.approx(rate, rel=0.03)
    assert held.sum(1).var() == pytest.approx(100 * rate * (1 - rate), rel=0.1)
    assert abs(np.corrcoef(held.T)[np.triu_indices(100, 1)]).mean() < 0.02
    assert any(len(plan(batch_size=1).batch(step)) == 0 for step in range(20))


@pytest.mark.parametrize("apart", [False, True])
def test_micro_batches_hold_whole_texts_once_each(apart):
    poisson = plan(apart=apart)
    for step in range(20):
        parts = [poisson.micro_batches(step, accumulation=2, rank=rank, world=2) for rank in range(2)]
        assert [len(part) for part in parts] == [2, 2]
        chosen = [micro for part in parts for micro in part]
        assert sorted(np.concatenate(chosen)) == sorted(poisson.batch(step))
        texts = [set(poisson.text_P[micro]) for micro in chosen]
        assert sum(map(len, texts)) == len(set.union(*texts))
        assert np.isin(poisson.text_P, list(set.union(*texts))).sum() == len(poisson.batch(step))


def test_a_micro_batch_that_is_clipped_does_not_depend_on_other_texts():
    """Without some text, every other one is still in the micro-batch it was in."""
    whole, fewer = plan(apart=True), plan(apart=True)
    texts, where = whole.texts(0)
    fewer.texts = lambda step: (texts[1:], where[1:])
    for mine, theirs in zip(*(p.micro_batches(0, accumulation=4) for p in (whole, fewer)), strict=True):
        assert set(mine) - set(theirs) <= set(np.flatnonzero(whole.text_P == texts[0])) and set(theirs) <= set(mine)
