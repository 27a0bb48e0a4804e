"""What a benchmark is: a Task, and the Figures that it computes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from counterfactuals.files import near
from eval.measures.intervals import Interval, bootstrap
from eval.model import Scorer

Row = dict[str, Any]
Metrics = dict[str, "Figure"]


@dataclass(frozen=True)
class Hub:
    """A data set on the Hugging Face Hub, and how its records become the text of a data file."""

    dataset: str
    split: str
    text: Callable[[Iterable[Row]], str]  # records → what the file of the `--data_dir` layout holds
    config: str | None = None
    revision: str | None = None


@dataclass(frozen=True)
class Task:
    """One benchmark: rows(data_dir, options, limit, seed) → score(scorer, rows, options, seed) → aggregate(rows, …).

    `rows` reads the data, without a model; `score` returns rows with scores (kept in rows-TASK.jsonl); `aggregate`
    turns these, as read back from JSON, into metrics and needs nothing else. Its resamples (measures/intervals.py) are
    the same draws for every model, as long as the models' rows are in the same order.
    """

    name: str
    rows: Callable[[Path, Mapping[str, Any], int | None, int], list[Row]]
    score: Callable[[Scorer, list[Row], Mapping[str, Any], int], list[Row]]
    aggregate: Callable[[list[Row], Mapping[str, Any], int], Metrics]
    options: Mapping[str, Any]
    meaning: str
    ideal: str
    data: str
    source: str
    headline: Sequence[str]
    not_measured: str = ""  # what a good score does not say
    licence: str = ""  # of the data
    version: int = 1  # raised when the same model would score otherwise
    hub: Mapping[str, Hub] = field(default_factory=dict)  # where --hub takes a file of --data_dir from
    utility: bool = False  # its figures say how good a model is, not how fair
    sampled: bool = False  # scores depend on the seed: several seeds are worth a run each
    follows: str = ""  # a task whose scored rows, where it is run too, this one scores instead of its own
    tier: str = "exploratory"  # how far it is to be trusted (tasks.yaml), why, and who says so
    why: str = "not rated by this project"
    sources: Sequence[str] = ()

    def headlines(self, metrics: Iterable[str]) -> list[str]:
        """Which of these figures stand in tables: those named as `headline`, or else the figures of the whole."""
        metrics = list(metrics)
        if not self.headline:
            return metrics
        named = [name for name in self.headline if name in metrics]
        return named or [name for name in metrics if "/" not in name] or metrics


class MissingData(ValueError):
    """Something a task needs is missing: a data file, or an option without default. `--tasks all` skips the task."""


class MissingFile(MissingData):
    """A file of data is not there."""


SMALL = 30  # figures counted over fewer are marked


class Figure(dict):
    """One metric as it stands in results.json; `interval` keeps the resamples, for differences between models."""

    interval: Interval


def finite(x: Any) -> Any:
    """What JSON can hold: null for a number that is undefined or infinite; anything else as it is."""
    return None if isinstance(x, float) and not math.isfinite(x) else x


def figure(
    value: float,
    interval: tuple[float, float] | None = None,
    *,
    ideal: float | None,
    n: int,
    p: float | None = None,
    small: bool | None = None,
    note: str = "",
) -> Figure:
    """One metric for results.json. Undefined and infinite values become null.

    n: how many rows (texts, people, …) were counted. `distance` is |value − ideal|. `small` says that n is below 30,
    unless given (a count is never small). p: if the task tests the value. note: what a reader of the value must know.
    """

    low, high = interval or (math.nan, math.nan)
    out = Figure(value=finite(float(value)), low=finite(float(low)), high=finite(float(high)), ideal=ideal)
    out["distance"] = None if ideal is None or out["value"] is None else abs(out["value"] - ideal)
    out |= {"n": int(n), "small": bool(n < SMALL) if small is None else small}
    if p is not None:
        out["p"] = finite(float(p))
    if note:
        out["note"] = note
    out.interval = interval if isinstance(interval, Interval) else Interval(low, high)
    return out


def average(values: Any, *, ideal: float | None, seed: int) -> Figure:
    """The mean of one value per row, with a bootstrap interval over rows."""
    values_N2 = np.stack([np.asarray(values, np.float64), np.ones(len(values))], axis=1)
    if not len(values_N2):
        return figure(np.nan, ideal=ideal, n=0)
    interval = bootstrap(values_N2, lambda s: s[:, 0] / s[:, 1], seed=seed)
    return figure(values_N2[:, 0].mean(), interval, ideal=ideal, n=len(values_N2))


def percentage(hits: Any, *, ideal: float | None, seed: int) -> Figure:
    """100 × the mean of `hits` (one boolean per row), with a bootstrap interval over rows."""
    return average(100 * np.asarray(hits, np.float64), ideal=ideal, seed=seed)


def check_options(task: str, options: Mapping[str, Any], **allowed: float | tuple[str, ...]) -> None:
    """ValueError that names every option outside what is allowed: a least value, or a choice of texts."""
    problems = []
    for name, limit in allowed.items():
        if isinstance(limit, tuple):
            if options[name] not in limit:
                choice = " or ".join([", ".join(limit[:-1]), limit[-1]])
                problems.append(f"{task}.{name} {options[name]!r}: must be {choice}")
        elif not options[name] >= limit:
            problems.append(f"{task}.{name} {options[name]}: must be at least {limit}")
    if problems:
        raise ValueError("; ".join(problems))


def suggest(name: str, known: Iterable[str], what: str) -> str:
    """An error line for an unknown name: what exists, and the closest match."""
    known = list(known)
    return f"no {what} {name!r}{near(name, known)} (there are: {', '.join(known)})"


def file_name(label: str) -> str:
    """A task's label in a file name: lm_eval:NAME has a colon, which some file systems do not allow."""
    return label.replace(":", "-")
