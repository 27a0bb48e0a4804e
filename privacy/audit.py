"""Canaries: planting them by a coin each, how exposed they are, and the ε that their discovery proves.

A canary is a known prefix and a secret, n symbols of an alphabet: "Box 17 opens with 4 8 1 5". Which canaries a model
has seen is written into a record; the audit guesses it from the model, and counts how often it is right.
"""

from __future__ import annotations

import json
import math
import random
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

DIGITS = tuple("0123456789")
SIGNIFICANCE = 0.05  # of the lower bound for ε: it is too high in at most so large a share of audits
GUESSED = (1 / 8, 1 / 4, 1 / 2, 1)  # shares of the canaries to guess, chosen before anything is seen


# ---------------------------------------------------------------- canaries and their record


@dataclass(frozen=True)
class Canary:
    """prefix + " " + the secret's symbols with spaces between. planted: whether its coin put it into the corpus."""

    prefix: str
    secret: tuple[str, ...]
    planted: bool
    label: str | None = None  # in a labelled corpus

    @property
    def text(self) -> str:
        return f"{self.prefix} {' '.join(self.secret)}"


@dataclass(frozen=True)
class Record:
    """What `plant` did: who holds it knows every secret and every coin, so its file is for its owner only."""

    canaries: tuple[Canary, ...]
    alphabet: tuple[str, ...]
    repeats: int
    seed: int

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False, indent=1) + "\n"

    @classmethod
    def read(cls, path: Path) -> Record:
        """ValueError, one line, if it is not a record or others may read it."""
        if path.stat().st_mode & 0o077:
            raise ValueError(f"{path}: others can read it, and it holds every secret; chmod 600 {path}")
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            canaries = tuple(Canary(**{**c, "secret": tuple(c["secret"])}) for c in found.pop("canaries"))
            record = cls(canaries, tuple(found.pop("alphabet")), **found)
            known = set(record.alphabet)
            assert all(isinstance(c.planted, bool) for c in canaries)
            assert len(known) > 1 and canaries and all(c.secret and known.issuperset(c.secret) for c in canaries)
        except (ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
            raise ValueError(f"{path}: not a record that `evenhand privacy plant` wrote ({error})") from None
        return record


def draw(
    *,
    number: int,
    prefix: str,
    length: int = 4,
    alphabet: Sequence[str] = DIGITS,
    repeats: int = 1,
    labels: Sequence[str] = (),
    seed: int | None = None,
) -> Record:
    """`number` canaries with random secrets, each planted with probability ½.

    prefix: "{number}" in it stands for the canary's number; without it there may be one canary only. labels: one of
    them is drawn for each canary. seed: None takes one from the system: who knows the seed knows coins and secrets.
    """
    for name, value in (("number", number), ("length", length), ("repeats", repeats)):
        if value < 1:
            raise ValueError(f"{name} {value}: must be at least 1")
    if number > 1 and "{number}" not in prefix:
        raise ValueError(f"prefix {prefix!r}: {number} canaries need a prefix each; write {{number}} in it")
    if len(set(alphabet)) != len(alphabet) or len(alphabet) < 2 or any(not s or s.split() != [s] for s in alphabet):
        raise ValueError(f"alphabet {' '.join(alphabet)!r}: needs two or more different symbols without spaces")
    seed = secrets.randbits(64) if seed is None else seed
    toss = random.Random(seed)
    canaries = []
    for i in range(1, number + 1):
        secret = tuple(toss.choice(alphabet) for _ in range(length))
        planted, label = toss.random() < 0.5, toss.choice(labels) if labels else None
        canaries.append(Canary(prefix.replace("{number}", str(i)).strip(), secret, planted, label))
    return Record(tuple(canaries), tuple(alphabet), repeats, seed)


def mix(rows: Sequence[dict[str, Any]], record: Record, *, text: str, label: str = "") -> list[dict[str, Any]]:
    """The corpus' rows with each planted canary at `repeats` random places; `text`, `label`: the names of fields."""
    planted = [canary for canary in record.canaries if canary.planted for _ in range(record.repeats)]
    added = [{text: canary.text, **({label: canary.label} if label else {})} for canary in planted]
    place = random.Random(record.seed + 1)
    keyed = [(place.random(), row) for row in added] + [((i + 0.5) / len(rows), row) for i, row in enumerate(rows)]
    return [row for _, row in sorted(keyed, key=lambda pair: pair[0])]


# ---------------------------------------------------------------- exposure and extraction


def rank(own: float, others: Any) -> float:
    """1 + the number of other candidates that the model finds likelier; of those as likely half count."""
    others = np.asarray(others, np.float64)
    return 1 + float((others > own).sum()) + float((others == own).sum()) / 2


def exposure(place: float, number: int) -> float:
    """log₂ |R| − log₂ rank (Carlini et al. 2019): bits of the secret that the model gives away; 1.44 by chance.

    place: rank among `number` candidates, the secret included. Where they are a sample of R, the rank is scaled up to
    all of R, so that the value is at most log₂ of the sample: no more can be seen.
    """
    if not 1 <= place <= number:
        raise ValueError(f"rank {place} of {number}: must be from 1 to the number of candidates")
    return math.log2(number / place)


def found_in(logp: Any, tries: int) -> np.ndarray:
    """The chance that at least one of `tries` samples at temperature 1 is the secret of that log-probability."""
    logp = np.minimum(np.asarray(logp, np.float64), 0)
    with np.errstate(divide="ignore"):
        return -np.expm1(tries * np.log1p(-np.exp(logp)))


# ---------------------------------------------------------------- audit in one run


def p_value(epsilon: float, *, canaries: int, guesses: int, right: int, delta: float) -> float:
    """The chance of so many right guesses, or more, if training is (ε, δ)-private (Steinke et al. 2023, theorem 5.2).

    q = e^ε / (1 + e^ε), β = P[Bin(r, q) ≥ v], α = max_i (P[Bin ≥ v − i] − β) / i; p = β + 2 m δ α, at most 1.
    """
    from scipy import stats

    if not 0 <= right <= guesses <= canaries or not 0 <= delta < 1 or epsilon < 0:
        raise ValueError(
            f"{right} right of {guesses} guesses on {canaries} canaries, ε {epsilon}, δ {delta}: impossible"
        )
    q = 1 / (1 + math.exp(-epsilon))
    beta = float(stats.binom.sf(right - 1, guesses, q))
    i = np.arange(1, right + 1)
    alpha = float(np.max((stats.binom.sf(right - i - 1, guesses, q) - beta) / i, initial=0))
    return min(1.0, beta + 2 * canaries * delta * alpha)


def epsilon_bound(
    *, canaries: int, guesses: int, right: int, delta: float, significance: float = SIGNIFICANCE
) -> float:
    """The largest ε with `p_value` < significance: with confidence 1 − significance, training is not that private."""

    def is_refuted(epsilon: float) -> bool:
        found = p_value(epsilon, canaries=canaries, guesses=guesses, right=right, delta=delta)
        return found < significance

    if not is_refuted(0):
        return 0.0
    low, high = 0.0, 1.0
    while is_refuted(high) and high < 64:
        low, high = high, 2 * high
    for _ in range(32):
        middle = (low + high) / 2
        low, high = (middle, high) if is_refuted(middle) else (low, middle)
    return low


def one_run(scores_M: Any, planted_M: Any, *, delta: float, guessed: Sequence[float] = GUESSED) -> dict[str, Any]:
    """Guess the planted canaries from the scores (M,), the higher the likelier: {"epsilon", "guesses", "right"}.

    guessed: shares of the canaries to guess on: the highest scores of them as planted, as many of the lowest as not.
    Of several shares the best bound is given, each at significance / number of shares, which pays for the choice.
    Ties are cut by a fixed draw. Valid only if an independent fair coin decided for each canary.
    """
    scores_M, planted_M = np.asarray(scores_M, np.float64), np.asarray(planted_M, bool)
    number = len(scores_M)
    if number < 2:
        raise ValueError(f"{number} canaries: an audit needs two or more")
    order = np.lexsort((np.random.default_rng(0).permutation(number), -scores_M))
    found = []
    for share in guessed:
        each = max(1, int(share * number / 2))
        right = int(planted_M[order[:each]].sum() + (~planted_M[order[-each:]]).sum())
        counts = {"guesses": 2 * each, "right": right}
        level = SIGNIFICANCE / len(guessed)
        found.append({"epsilon": epsilon_bound(canaries=number, delta=delta, significance=level, **counts), **counts})
    return max(found, key=lambda one: one["epsilon"])


def claimed(model: str | Path) -> dict[str, Any] | None:
    """The `privacy` of the run.json of a model, RUN/model or a copy of it: epsilon, delta, …; None without one."""
    folder = Path(model).absolute()
    for path in (folder / "run.json", folder.parent / "run.json"):
        if str(model) and folder.is_dir() and path.is_file() and (path.parent == folder or folder.name == "model"):
            try:
                found = json.loads(path.read_text(encoding="utf-8")).get("privacy")
                if found is None:
                    continue
                return {**found, "epsilon": float(found["epsilon"]), "delta": float(found["delta"])}
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(f"{path}: privacy must hold the numbers epsilon and delta ({error!r})") from None
    return None
