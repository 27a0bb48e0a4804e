"""Rules of a gate: a figure, and how far it may be from the reference or from a fair model's.

A file of rules is YAML, {rules: [{figure: TASK.METRIC, KIND: MARGIN}, …], tasks: {label: options}}; `tasks` says how to
measure models that are not measured yet. A name such as `release` is a set of sets.yaml.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from counterfactuals.files import read_yaml
from eval.audit.measured import Measured
from eval.measures.intervals import Interval, paired_difference
from eval.report.table import lower_is_better
from eval.task import Figure, suggest

SETS = Path(__file__).with_name("sets.yaml")
KINDS = {  # kind: what the margin means
    "worse_by": "at most {} worse than the reference",
    "differs_by": "within {} of the reference",
    "at_least": "at least {}",
    "at_most": "at most {}",
    "each_group": "equitability of at least {} in every group",
    "not_reversed": "no group on the other side than with the reference, beyond equitability {}",
}
COLUMNS = ("must not differ", "must differ", "quality")


class Claim(NamedTuple):
    """That low ≤ value ≤ high, where `interval` has the resamples of the value, counted over n."""

    value: float
    interval: Interval
    low: float
    high: float
    n: int
    small: bool  # whether that is too few
    group: str = ""


@dataclass(frozen=True)
class Rule:
    figure: str
    kind: str
    margin: float
    percent: bool = False
    column: str = "quality"

    @property
    def label(self) -> str:
        return self.figure.partition(".")[0]

    @property
    def metric(self) -> str:
        return self.figure.partition(".")[2]

    @property
    def is_relative(self) -> bool:
        return "reference" in KINDS[self.kind]

    @property
    def meaning(self) -> str:
        if self.kind == "worse_by" and self.margin < 0:
            return f"at least {-self.margin:g} better than the reference"
        return KINDS[self.kind].format(f"{100 * self.margin:g} %" if self.percent else f"{self.margin:g}")


class Rules(NamedTuple):
    name: str
    rules: list[Rule]
    tasks: dict[str, dict[str, Any]]  # label → options


def read_rules(source: str) -> Rules:
    """The rules of a file, or of a built-in set. ValueError names each rule that is wrong, and why."""
    sets = yaml.safe_load(SETS.read_text(encoding="utf-8"))
    shared = sets.pop("tasks")
    content: Any = sets.get(source)
    if content is None:
        if not Path(source).is_file():
            raise ValueError(f"rules: {suggest(source, sets, 'file or built-in set')}")
        try:
            content = read_yaml(source)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from None
    if not isinstance(content, dict) or not isinstance(content.get("rules"), list) or not content["rules"]:
        raise ValueError(f"{source}: must have a list `rules`, each {{figure: TASK.METRIC, KIND: MARGIN}}")
    problems: list[str] = []
    rules = [rule for i, given in enumerate(content["rules"], 1) if (rule := _rule(given, i, problems))]
    if unknown := set(content) - {"rules", "tasks"}:
        problems.append(f"unknown key {min(map(str, unknown))!r} (there are: rules, tasks)")
    options = content.get("tasks") or {}
    if not isinstance(options, dict) or not all(isinstance(own, dict) for own in options.values()):
        problems.append("tasks: must be {LABEL: {OPTION: VALUE}}")
    if problems:
        raise ValueError(f"{source}: " + "; ".join(problems))
    tasks = {rule.label: shared.get(rule.label, {}) for rule in rules} | options
    return Rules(Path(source).stem, rules, tasks)


def _rule(given: Any, number: int, problems: list[str]) -> Rule | None:
    """One rule; None, and a line more in `problems`, if it makes no sense."""
    where = f"rule {number}"
    if not isinstance(given, dict) or not isinstance(given.get("figure"), str) or "." not in given["figure"]:
        problems.append(f"{where}: needs figure: TASK.METRIC")
        return None
    kinds = [key for key in given if key in KINDS]
    unknown = [str(key) for key in given if key not in (*KINDS, "figure", "column")]
    if unknown or len(kinds) != 1:
        problems.append(
            f"{where}: {suggest(unknown[0], KINDS, 'kind')}" if unknown else f"{where}: needs one of {', '.join(KINDS)}"
        )
        return None
    text = str(given[kinds[0]]).strip()
    percent = text.endswith("%")
    try:
        margin = float(text.rstrip("% ")) / (100 if percent else 1)
    except ValueError:
        margin = math.nan
    if not math.isfinite(margin) or (percent and kinds[0] not in ("worse_by", "differs_by")):
        problems.append(f"{where}: {kinds[0]} {text!r}: must be a number" + " or, with a reference, N %")
        return None
    if kinds[0] in ("each_group", "not_reversed") and not 0 < margin < 1:
        problems.append(f"{where}: {kinds[0]} {text}: an equitability, must lie between 0 and 1")
        return None
    if kinds[0] == "differs_by" and margin <= 0:
        problems.append(f"{where}: differs_by {text}: must be above 0")
        return None
    if given.get("column", "quality") not in COLUMNS:
        problems.append(f"{where}: {suggest(given['column'], COLUMNS, 'column')}")
        return None
    return Rule(given["figure"], kinds[0], margin, percent, given.get("column", "quality"))


def claims(rule: Rule, a: Measured, b: Measured) -> list[Claim]:
    """What has to hold for the rule: one claim, or one for each group. ValueError if it names no figure of the results.

    A difference is that of the same resamples of both models' rows, centred on the value (see `paired_difference`).
    """
    if rule.kind in ("each_group", "not_reversed"):
        return _group_claims(rule, a, b)
    one, two = (_figure(rule, found, rule.metric) for found in (a, b))
    if one["value"] is None or two["value"] is None:
        return [Claim(math.nan, Interval(math.nan, math.nan), -math.inf, math.inf, two["n"], two["small"])]
    if rule.kind == "at_least":
        return [Claim(two["value"], two.interval, rule.margin, math.inf, two["n"], two["small"])]
    if rule.kind == "at_most":
        return [Claim(two["value"], two.interval, -math.inf, rule.margin, two["n"], two["small"])]
    if one.interval.samples is None or two.interval.samples is None:
        raise ValueError(f"{rule.figure}: has no resamples to compare by; use at_least or at_most")
    scale = abs(one["value"]) if rule.percent else 1.0
    if scale == 0:
        raise ValueError(f"{rule.figure}: the reference has 0, of which no share can be taken; give a number, not N %")
    loss = _loss(rule, one["ideal"])
    value = (loss(two["value"]) - loss(one["value"])) / scale
    losses = [Interval(math.nan, math.nan, loss(found.interval.samples) / scale) for found in (one, two)]
    bounds, _ = paired_difference(value, *losses)
    low = -rule.margin if rule.kind == "differs_by" else -math.inf
    n, small = min(one["n"], two["n"]), one["small"] or two["small"]
    return [Claim(value, bounds, low, rule.margin, n, small)]


def _loss(rule: Rule, ideal: float | None) -> Any:
    """What is worse the more it is: the distance from the ideal, or perplexity; the value itself for `differs_by`."""
    if rule.kind == "differs_by" or lower_is_better(rule.metric):
        return lambda value: value
    if ideal is None:
        raise ValueError(f"{rule.figure}: has no ideal value, so neither side is worse; use differs_by or at_least")
    return lambda value: np.abs(value - ideal)


def _group_claims(rule: Rule, a: Measured, b: Measured) -> list[Claim]:
    """That each group's male share lies where both sides' ratio is at least the margin; or is not past that on the
    side that the reference did not favour."""
    fair = (rule.margin / (1 + rule.margin), 1 / (1 + rule.margin))
    figures = b.figures.get(rule.label, {})
    names = [name for name in figures if name.startswith(f"{rule.metric}/") and figures[name]["ideal"] == 0.5]
    if not names:
        _figure(rule, b, rule.metric)
        raise ValueError(f"{rule.figure}: is not measured by group; male_share of next_word, bold and stories is")
    found = []
    for name in names:
        one, two = (_figure(rule, side, name) for side in (a, b))
        if two["value"] is None or one["value"] is None:
            continue
        low, high = fair
        if rule.kind == "not_reversed":
            low, high = (low, 1.0) if one["value"] > 0.5 else (0.0, high)
        found.append(Claim(two["value"], two.interval, low, high, two["n"], two["small"], name.partition("/")[2]))
    if not found:
        raise ValueError(f"{rule.figure}: is undefined in every group")
    return found


def _figure(rule: Rule, found: Measured, metric: str) -> Figure:
    if rule.label not in found.figures:
        raise ValueError(f"{rule.figure}: {found.name}: {suggest(rule.label, found.config['tasks'], 'task')}")
    figures = found.figures[rule.label]
    if metric not in figures:
        known: Sequence[str] = [name for name in figures if "/" not in name]
        raise ValueError(f"{rule.figure}: {found.name}: {suggest(metric, known, 'figure')}")
    return figures[metric]
