"""What the page shows of attacks: every figure in its table, a ROC in log scale, and ε claimed and audited.

Those that draw return (heading, words, HTML that is safe as it is), or None where the results have nothing of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eval.report import canvas, charts
from eval.report.canvas import Result
from eval.tasks import membership
from privacy import attacks

Part = tuple[str, str, str] | None
TASKS = ("membership", "exposure", "inversion")


def figures(rows: Sequence[Result]) -> list[tuple[str, str]]:
    """(task label, metric) of every attack and its control, headline or not."""
    found = [(label, key) for row in rows for label, own in row["tasks"].items() for key in own]
    return [key for key in dict.fromkeys(found) if key[0].partition("@")[0] in TASKS]


def roc(scored: Mapping[str, Sequence[Result]], options: Mapping[str, Any], label: str) -> Part:
    """scored: model → its rows of the membership task. The attack is the one that was chosen beforehand."""
    curves = {}
    for model, rows in scored.items():
        found = membership.all_scores([*map(dict, rows)]).get(options["attack"])
        member_N = np.array([bool(row["member"]) for row in rows if row["member"] is not None])
        if found is not None and len(known := np.flatnonzero(~np.isnan(found))):
            curves[model] = tuple(rate[0] for rate in attacks.curve(found[known], member_N[known]))
    if not curves:
        return None
    drawn = canvas.picture(
        lambda width: charts.roc(curves, width=width), f"Members found against false accusations, {label}"
    )
    words = (
        f"The share of training texts that the attack “{options['attack']}” finds, against the share of other texts it "
        "accuses falsely. Both axes are logarithmic: what counts is the left, who can be named almost surely. The line "
        "is guessing."
    )
    return f"Who can be found in the training data ({label})", words, drawn


def epsilons(rows: Sequence[Result], label: str) -> Part:
    """ε of each model's claim, and the lower bound that the audit proves."""

    def value(row: Result, kind: str) -> float | None:
        return (row["tasks"].get(label, {}).get(f"epsilon_{kind}") or {}).get("value")

    found = {row["model"]: (value(row, "claimed"), value(row, "audited")) for row in rows}
    found = {model: pair for model, pair in found.items() if pair != (None, None)}
    if not found:
        return None
    drawn = canvas.picture(lambda width: charts.epsilons(found, width=width), "ε claimed and audited of each model")
    words = (
        "ε bounds what anyone can learn about one text of the training data; smaller is more private. Claimed: by the "
        "run’s accountant, from run.json. Audited: a lower bound at 95 % confidence, from planted canaries. An audit "
        "above the claim refutes it; one below proves nothing."
    )
    return f"ε claimed and ε audited ({label})", words, drawn
