"""Rules and two sets of resamples → pass, fail, or how many rows would be enough."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from eval.audit.measured import Measured
from eval.audit.rules import Claim, Rule, claims
from eval.task import SMALL

PASS, FAIL, UNSURE = "pass", "fail", "not enough data"
CONFIDENCE = 0.95
MANY = 10_000_000  # rows: more are never named


@dataclass(frozen=True)
class Judgement:
    """What became of a rule. value, low and high: of the worst claim; rows: how many would be enough, 0 if never."""

    rule: Rule
    verdict: str
    value: float
    low: float
    high: float
    n: int
    rows: int = 0
    group: str = ""

    @property
    def text(self) -> str:
        where = f" ({self.group})" if self.group else ""
        ends = f" [{self.low:.3g}, {self.high:.3g}]" if math.isfinite(self.low) else ""
        sign = "+" if self.rule.kind in ("worse_by", "differs_by") else ""
        scale, unit = (100, " %") if self.rule.percent else (1, "")
        if scale != 1 and ends:
            ends = f" [{scale * self.low:.3g}, {scale * self.high:.3g}]"
        value = f"{scale * self.value:{sign}.3g}{unit}" if math.isfinite(self.value) else "undefined"
        enough = f"; about {self.rows:,} rows would be enough, there are {self.n:,}" if self.rows else ""
        return f"{self.verdict}: {self.rule.figure}{where} {value}{ends}, wanted: {self.rule.meaning}{enough}"


def judge(rules: Sequence[Rule], a: Measured, b: Measured) -> list[Judgement]:
    """Each rule on model `b` against the reference `a`.

    A rule passes if the 95 % interval lies within its margin, so each pass is an equivalence or non-inferiority test
    (one-sided 2.5 %), and needs no correction where all rules must pass. It fails if the interval, widened for the
    number of rules and groups (Bonferroni), lies beyond the margin: some rule fails by chance at most 5 % of the time
    where all of them hold. Otherwise there is not enough data. So is it where a figure is
    `small`, counted over fewer than 30 rows.
    """
    found = [claims(rule, a, b) for rule in rules]
    return [_judged(rule, own, 1 - (1 - CONFIDENCE) / (len(rules) * len(own))) for rule, own in zip(rules, found)]


def _judged(rule: Rule, own: Sequence[Claim], wide: float) -> Judgement:
    """The worst claim: one that fails, else one that needs most rows, else the one nearest its margin."""
    order = {PASS: 0, UNSURE: 1, FAIL: 2}
    judged = [_one(rule, claim, wide) for claim in own]
    room = [min(claim.high - found.high, found.low - claim.low) for claim, found in zip(own, judged)]
    worst = max(range(len(own)), key=lambda i: (order[judged[i].verdict], judged[i].rows, -np.nan_to_num(room[i])))
    return judged[worst]


def _one(rule: Rule, claim: Claim, wide: float) -> Judgement:
    low, high = _ends(claim)
    # by the normal quantile: a thousand resamples do not reach into such tails
    wider = norm.ppf((1 + wide) / 2) / norm.ppf((1 + CONFIDENCE) / 2)
    wide_low, wide_high = claim.value - wider * (claim.value - low), claim.value + wider * (high - claim.value)

    def found(verdict: str, rows: int = 0) -> Judgement:
        return Judgement(rule, verdict, claim.value, low, high, claim.n, rows, claim.group)

    if claim.small or not math.isfinite(low):
        return found(UNSURE, max(SMALL, 2 * claim.n))
    if claim.low <= low and high <= claim.high:
        return found(PASS)
    if wide_low > claim.high or wide_high < claim.low:
        return found(FAIL)
    return found(UNSURE, _enough(claim, (low, high), (wide_low, wide_high)))


def _ends(claim: Claim) -> tuple[float, float]:
    """The interval of the value; the value itself where all resamples agree (as for a model against itself)."""
    samples_R = claim.interval.samples
    known = np.empty(0) if samples_R is None else samples_R[~np.isnan(samples_R)]
    agree = len(known) and np.isfinite(known).all() and np.ptp(known) < 1e-12
    return (claim.value, claim.value) if agree else claim.interval


def _enough(claim: Claim, ends: tuple[float, float], wide: tuple[float, float]) -> int:
    """How many rows would settle the claim if the value stays as it is: intervals shrink as 1 / √rows."""
    gaps = [(claim.high - claim.value, ends[1] - claim.value), (claim.value - claim.low, claim.value - ends[0])]
    if min(gap for gap, _ in gaps) <= 0:  # beyond the margin already
        gaps = [(claim.value - claim.high, claim.value - wide[0]), (claim.low - claim.value, wide[1] - claim.value)]
        gaps = [max(gaps)]
    factor = max((half / gap) ** 2 if gap > 0 else math.inf for gap, half in gaps)
    return min(MANY, math.ceil(claim.n * factor)) if math.isfinite(factor) else MANY
