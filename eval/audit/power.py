"""How many prompts, and samples of each, a claim needs: from the spread of rows that were scored already."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np
from scipy.stats import norm

from eval.audit.judge import CONFIDENCE, MANY
from eval.audit.measured import Measured, figures_of
from eval.audit.rules import Claim, Rule, claims
from eval.task import SMALL, Row

POWER = 0.8


def plan(rules: Sequence[Rule], a: Measured, b: Measured | None) -> list[str]:
    """A line for each rule: how many rows let a model that keeps the rule pass it four times in five.

    Such a model is taken to be: equal to the reference (`worse_by`, `differs_by`), twice as much better as asked, even
    in every group, or else what model `b` is. Without `b` the differences of two models are taken to have the spread
    of unpaired ones: an upper bound.
    """
    lines = []
    for rule in rules:
        found, half = claims(rule, a, b or a), None
        halves = [half_of for side in (a, b or a) if (half_of := _half(side, rule.label))]
        if len(halves) == 2:
            half = claims(rule, *halves)
        unpaired = b is None and rule.kind in ("worse_by", "differs_by")
        own = claims(Rule(rule.figure, "at_least", 0.0), a, a) if unpaired else found
        spread = math.sqrt(2) if unpaired else 1.0
        scale = abs(a.figures[rule.label][rule.metric]["value"] or 1) if unpaired and rule.percent else 1.0
        needed = [_needed(rule, claim, spread * _sd(one) / scale) for claim, one in zip(found, own)]
        worst = max(range(len(needed)), key=lambda i: needed[i])
        where = f" ({found[worst].group})" if found[worst].group else ""
        text = f"{rule.figure}{where}, {rule.meaning}: {_count(needed[worst], found[worst].n)}"
        if half and not unpaired and needed[worst] < math.inf:
            text += _samples(a.rows(rule.label), needed[worst], _sd(found[worst]), _sd(half[worst]))
        lines.append(text)
    return lines


def _needed(rule: Rule, claim: Claim, sd: float) -> float:
    """Rows × (sd · (z of the interval + z of the power) / distance from the margin)²; infinite past the margin."""
    value = claim.value
    if rule.kind in ("worse_by", "differs_by"):
        value = min(0.0, 2 * rule.margin)
    elif rule.kind in ("each_group", "not_reversed"):
        value = 0.5
    distance = min(claim.high - value, value - claim.low)
    two_sided = math.isfinite(claim.low) and math.isfinite(claim.high) and rule.kind != "not_reversed"
    z = norm.ppf((1 + CONFIDENCE) / 2) + norm.ppf((1 + POWER) / 2 if two_sided else POWER)
    return claim.n * (sd * z / distance) ** 2 if distance > 0 else math.inf


def _sd(claim: Claim) -> float:
    samples = claim.interval.samples
    known = np.array([]) if samples is None else samples[np.isfinite(samples)]
    return float(known.std()) if len(known) else math.nan


def _count(rows: float, there: int) -> str:
    if math.isnan(rows):
        return "cannot be said: the figure has no spread here"
    if rows > MANY:
        return "no number of rows is enough: the model is past the margin"
    return f"{max(SMALL, math.ceil(rows)):,} rows (there are {there:,})"


def _half(found: Measured, label: str) -> Measured | None:
    """The same with every second text of each prompt; None where prompts have one text."""
    halves = []
    for rows in found.parts[label]:
        by_prompt = [list(part) for _, part in groupby(rows, key=lambda row: row.get("prompt_number"))]
        if any(len(part) < 2 or "prompt_number" not in part[0] for part in by_prompt):
            return None
        halves.append([row for part in by_prompt for row in part[::2]])
    return replace(found, figures={**found.figures, label: figures_of(label, halves, found.config)})


def _samples(rows: list[Row], needed: float, sd: float, half_sd: float) -> str:
    """What that is in prompts, for fewer and for more texts of each.

    The variance of a figure over P prompts with k texts each is (between + within / k) / P; with half the texts
    (between + 2 within / k) / P. Both are known, so both parts are.
    """
    prompts = len({row["prompt_number"] for row in rows})
    k = len(rows) / prompts
    within = max(0.0, half_sd**2 - sd**2)  # / k
    between = max(0.0, sd**2 - within)
    factor = needed / len(rows)
    said = []
    for times in (0.25, 1, 4):
        share = (between + within / times) / (between + within) if between + within else 1 / times
        if k * times >= 1:
            said.append(f"{max(1, math.ceil(prompts * factor * share)):,} prompts × {k * times:.0f} texts")
    return "; " + " or ".join(said)
