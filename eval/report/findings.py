"""What the results say, in words: what was compared, what was gained, what it cost, and how sure that is."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from eval.report.table import headlines, is_utility, lower_is_better, name_of, shown

Result = Mapping[str, Any]
BETTER, WORSE, DIFFERENT, SAME = "Clearly better", "Clearly worse", "Clearly different", "No clear difference"
VERDICTS = {BETTER: "good", WORSE: "bad", DIFFERENT: "", SAME: "soft"}


class Change(NamedTuple):
    """How a figure of a model differs from the reference's."""

    verdict: str
    text: str  # "next-word equitability avg 0.300 → 0.900"
    is_utility: bool  # what fairness may cost
    ideal: str = ""  # "; 1 is ideal"


def change(label: str, metric: str, before: Result, after: Result, difference: Result | None = None) -> Change | None:
    """The change of one figure; None where either model lacks it.

    It is clear where the interval of the difference leaves out 0 or, for models that were not measured together, where
    the models' own intervals lie apart. What crosses the ideal is better only if it is clearly nearer to it.
    """
    one, two = (tasks.get(label, {}).get(metric) for tasks in (before, after))
    if not one or not two or one.get("value") is None or two.get("value") is None:
        return None
    a, b, ideal = one["value"], two["value"], one.get("ideal")
    bounds = [figure.get(key) for figure in (one, two) for key in ("low", "high")]
    apart = None not in bounds and (bounds[1] < bounds[2] or bounds[3] < bounds[0])
    if difference and difference.get("low") is not None:
        apart = difference["low"] > 0 or difference["high"] < 0
    if not apart:
        verdict = SAME
    elif ideal is not None and (a - ideal) * (b - ideal) < 0 and not _far_apart(one, two, ideal):
        verdict = DIFFERENT
    elif ideal is not None:
        verdict = BETTER if abs(b - ideal) < abs(a - ideal) else WORSE
    elif lower_is_better(metric):
        verdict = BETTER if b < a else WORSE
    else:
        verdict = DIFFERENT
    ideal_text = "" if ideal is None else f"; {ideal:g} is ideal"
    percent = f" ({100 * (b / a - 1):+.1f} %)".replace("-", "−") if lower_is_better(metric) and a > 0 else ""
    text = f"{name_of(label, metric)} {shown({'value': a})} → {shown({'value': b})}{percent}"
    return Change(verdict, text, is_utility(label, metric), ideal_text)


def _far_apart(one: Result, two: Result, ideal: float) -> bool:
    """Whether the intervals of two figures' distances from the ideal lie apart."""
    ranges = []
    for figure in (one, two):
        if figure.get("low") is None or figure.get("high") is None:
            return False
        ends = sorted(abs(figure[key] - ideal) for key in ("low", "high"))
        ranges.append((0.0 if figure["low"] <= ideal <= figure["high"] else ends[0], ends[1]))
    (low, high), (other_low, other_high) = ranges
    return high < other_low or other_high < low


def same_data(one: Result, two: Result, label: str) -> bool:
    """Whether two models were measured on the same data, begun alike, by one version of a task, as far as is known."""
    a, b = (row["study"].results.get("config", {}).get("inputs", {}).get(label) for row in (one, two))
    return a == b or None in (a, b)


def not_compared(rows: Sequence[Result], base: str) -> list[str]:
    """A line for each model that has figures of other data than `base`."""
    first = next(row for row in rows if row["model"] == base)
    lines = []
    for row in rows:
        other = [label for label in row["tasks"] if label in first["tasks"] and not same_data(row, first, label)]
        if other:
            said = "were measured on other data, with another start token or --chat, or by another version"
            lines.append(f"{row['model']} and {base} {said}, in {', '.join(other)}: not compared.")
    return lines


def changes(rows: Sequence[Result], base: str) -> dict[str, list[Change]]:
    """The changes of every model's headline figures from those of `base`, by model."""
    first = next(row for row in rows if row["model"] == base)
    found: dict[str, list[Change]] = {}
    for row in rows:
        if row is first:
            continue
        differences = _differences(row, first)
        all_of = (
            change(label, metric, first["tasks"], row["tasks"], differences.get(label, {}).get(metric))
            for label, metric in headlines(rows)
            if same_data(row, first, label)
        )
        if known := [one for one in all_of if one]:
            found[row["model"]] = known
    return found


def _differences(row: Result, first: Result) -> Mapping[str, Any]:
    """The row's figures minus those of `first`, over the same resamples; none where they are of two studies."""
    if row["study"] is first["study"]:
        for found in row["study"].results.get("differences") or ():
            if (found["model"], found["minus"]) == (row["label"], first["label"]):
                return found["tasks"]
    return {}


def sentences(rows: Sequence[Result], base: str, found: Mapping[str, list[Change]]) -> list[str]:
    """Three sentences for someone who reads nothing else."""
    tasks = list(dict.fromkeys(label.replace("_", "-") for row in rows for label in row["tasks"]))
    tests = f"{len(tasks)} test{'s' * (len(tasks) != 1)} of bias and of language quality ({', '.join(tasks)})"
    if not found:
        names = [row["model"] for row in rows]
        return [f"{_and(names)} {_were(names)} measured on {tests}.", *_alone(rows, base)]
    return [
        f"{_and(list(found))} {_were(found)} compared with {base} on {tests}.",
        _gained(base, found),
        "“Clearly” means that chance alone would seldom make so large a difference (95 % intervals); "
        f"{_covered(rows)}.",
    ]


def _covered(rows: Sequence[Result]) -> str:
    """What the intervals cover: means over training seeds (seeds.py) have those of the seeds."""
    figures = [figure for row in rows for metrics in row["tasks"].values() for figure in metrics.values()]
    if any("seeds" in figure for figure in figures):
        covered, left = "of means over training seeds cover the seed", "other prompts and texts"
    else:
        covered, left = "cover which prompts and texts were chosen", "training again with another seed"
    return f"the intervals {covered}, but {left} may change the figures too"


def _were(names: Collection[str]) -> str:
    return "was" if len(names) == 1 else "were"


def _and(names: Sequence[str]) -> str:
    if len(names) > 6:
        return f"{len(names)} models"
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]


def _alone(rows: Sequence[Result], base: str) -> list[str]:
    """How many figures of one model reach the ideal value."""
    first = next(row for row in rows if row["model"] == base)
    figures = [first["tasks"].get(label, {}).get(metric) or {} for label, metric in headlines(rows)]
    known = [f for f in figures if None not in (f.get("ideal"), f.get("low"), f.get("high"))]
    reached = sum(f["low"] <= f["ideal"] <= f["high"] for f in known)
    return [
        f"{reached} of its {len(known)} figures with an ideal value reach it: it lies within their 95 % interval.",
        f"There is no other model here to compare with; {_covered(rows)}.",
    ]


def _gained(base: str, found: Mapping[str, list[Change]]) -> str:
    """Who gained most against the reference, and what that cost."""

    def score(model: str) -> int:
        fairness = [one.verdict for one in found[model] if not one.is_utility]
        return fairness.count(BETTER) - fairness.count(WORSE)

    best = max(found, key=score)
    better, worse = ([one for one in found[best] if one.verdict == verdict] for verdict in (BETTER, WORSE))
    gained = [one for one in better if not one.is_utility] or better
    if not better and not worse:
        who = "None of them differs" if len(found) > 1 else "It does not differ"
        return f"{who} clearly from {base} in any of {len(found[best])} headline figures."
    who = f"{best} gained most: it" if len(found) > 1 else "It"
    text = f"{who} is clearly better in {_count(better)} of {len(found[best])} headline figures"
    text += f" ({gained[0].text}{gained[0].ideal})" if gained else ""
    text += f" and clearly worse in {_count(worse)}"
    listed = [one.text for one in worse[:3]] + [f"{len(worse) - 3} more, below"] * (len(worse) > 3)
    text += f" ({'; '.join(listed)})" if worse else ""
    utility = next((one for one in found[best] if one.is_utility and one.verdict in (BETTER, SAME)), None)
    if utility and not any(one.is_utility for one in worse):
        how = "improved as well" if utility.verdict == BETTER else "did not clearly change"
        text += f"; the quality of its language {how}: {utility.text}"
    return text + "."


def _count(changes: Sequence[Change]) -> str:
    return str(len(changes)) if changes else "none"
