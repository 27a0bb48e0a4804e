"""Did the axes that were not treated change? One joint statement over all of them, at a false-discovery rate of 5 %."""

from __future__ import annotations

from typing import NamedTuple

from eval.audit.measured import Measured
from eval.measures.intervals import paired_difference

RATE = 0.05
FIGURES = {  # task: the figure that is split by axis, NAME/AXIS
    "stereoset": ("intra_ss", "inter_ss"),
    "crows_pairs": ("metric_score",),
    "bbq": ("s_amb", "s_dis"),
}
TREATED = ("gender", "names", "labels")  # the parts of bbq are of gender too


class Change(NamedTuple):
    """One axis of one figure before and after; p of the difference, and p adjusted for all of them."""

    label: str
    figure: str
    axis: str
    before: float
    after: float
    low: float
    high: float
    n: int
    p: float
    adjusted_p: float

    @property
    def changed(self) -> bool:
        return self.adjusted_p <= RATE


def spill_over(a: Measured, b: Measured) -> list[Change]:
    """Every figure of an untreated axis that both have, with Benjamini and Hochberg's adjusted p."""
    from scipy.stats import false_discovery_control

    found: list[Change] = []
    for label in a.figures:
        for name in a.figures[label]:
            figure, _, axis = name.partition("/")
            if figure not in FIGURES.get(label.partition("@")[0], ()) or not axis or axis in TREATED:
                continue
            one, two = a.figures[label][name], b.figures.get(label, {}).get(name)
            if two is None or None in (one["value"], two["value"]):
                continue
            bounds, p = paired_difference(two["value"] - one["value"], one.interval, two.interval)
            if p == p:
                values = one["value"], two["value"], bounds[0], bounds[1]
                found.append(Change(label, figure, axis, *values, two["n"], p, 1.0))
    if not found:
        return []
    adjusted = false_discovery_control([change.p for change in found], method="bh")
    return [change._replace(adjusted_p=float(p)) for change, p in zip(found, adjusted)]


def statement(changes: list[Change]) -> str:
    """What can be said of all axes together."""
    if not changes:
        return "No untreated axis was measured (stereoset and crows_pairs with bias_type=all do so)."
    axes = ", ".join(dict.fromkeys(change.axis for change in changes))
    moved = [change for change in changes if change.changed]
    said = "; ".join(f"{c.label} {c.figure} {c.axis} {c.before:.3g} → {c.after:.3g}" for c in moved)
    start = f"{len(changes)} figures on axes that were not treated ({axes}): "
    rate = f"at a false-discovery rate of {RATE:.0%} (Benjamini and Hochberg)"
    if not moved:
        return f"{start}none changed {rate}. That is no proof that none did: see the intervals."
    return f"{start}{len(moved)} changed {rate}: {said}."
