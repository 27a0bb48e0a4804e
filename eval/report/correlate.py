"""Do measures of bias agree over a set of models? After Cao et al., ACL 2022 (intrinsic and extrinsic metrics).

    evenhand correlate runs/*/results.json --output_dir runs/correlations

Every pair of measures gets Pearson's r and Spearman's ρ over the models that have both, with a bootstrap interval over
models and a permutation p. A measure counts by its distance from the ideal, so that more is worse in each, or by its
value where it has no ideal. `--by_group` takes groups for models, and what is measured by group by its value: do next
words and long texts favour the same side of each occupation? Fewer than three models say nothing and are refused; with
few the intervals are wide, and say so. A correlation over models of one family is no law: neither a measure's validity
nor cause is measured.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from counterfactuals.files import write_whole
from eval.measures.intervals import interval, pearson, spearman
from eval.report import canvas, charts
from eval.report.page import Study
from eval.report.table import headlines, is_utility, name_of, render
from eval.run import write_json
from eval.task import finite, suggest

LEAST = 3  # models
EXTRINSIC = {"bold", "stories", "honest", "regard", "bios", "classify", "hatexplain"}  # what a model does in use
Key = tuple[str, str]  # task label, metric


def kind(key: Key) -> str:
    """intrinsic (of representations and probabilities), extrinsic (generation and downstream tasks) or utility."""
    if is_utility(*key):
        return "utility"
    return "extrinsic" if key[0].partition("@")[0] in EXTRINSIC else "intrinsic"


def read_results(paths: Sequence[str | Path]) -> list[dict[str, Any]]:
    """Rows {"model", "tasks"} of results.json files (or their folders); what several say of one model is put together.

    ValueError for a file of another kind, and for two values of one figure of one model.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {}
    inputs: dict[str, Any] = {}
    for path in paths:
        results = Study.load(path).results
        for label, own in results.get("config", {}).get("inputs", {}).items():
            if inputs.setdefault(label, own) != own:
                raise ValueError(
                    f"{path}: {label} was measured on other data, with another start token or --chat, or by another "
                    "version, than in an earlier file; measure it again"
                )
        for row in results["rows"]:
            tasks = found.setdefault(row["model"], {})
            for label, metrics in row["tasks"].items():
                known = tasks.setdefault(label, {})
                for metric, figure in metrics.items():
                    if metric in known and known[metric]["value"] != figure["value"]:
                        raise ValueError(
                            f"{path}: {row['model']} has another {label}.{metric} than in an earlier file; "
                            "give models their own names (--model NAME=PATH when they are measured)"
                        )
                    known[metric] = figure
    return [{"model": model, "tasks": tasks} for model, tasks in found.items()]


def groups_of(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows as those of models for each group of each model: its figures METRIC/GROUP, by value (they have a side)."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        for label, metrics in row["tasks"].items():
            for name, figure in metrics.items():
                metric, _, group = name.partition("/")
                if group:
                    tasks = found.setdefault(f"{row['model']}: {group}", {})
                    tasks.setdefault(label, {})[metric] = {**figure, "ideal": None}
    return [{"model": name, "tasks": tasks} for name, tasks in found.items()]


def choose(rows: Sequence[Mapping[str, Any]], wanted: Sequence[str] = ()) -> list[Key]:
    """The measures to correlate: those named ("bios.tprd"), or every headline figure, as far as three models have it.

    One that is the same for every model correlates with nothing; by default it is left out.
    """
    every = dict.fromkeys((label, m) for row in rows for label, metrics in row["tasks"].items() for m in metrics)
    names = {f"{label}.{metric}": (label, metric) for label, metric in every}
    for name in wanted:
        if name not in names:
            raise ValueError(suggest(name, names, "measure"))
    keys = [names[name] for name in wanted] or headlines(rows)
    keys = [key for key in keys if np.isfinite(column(rows, key)).sum() >= LEAST]
    if not wanted:
        keys = [key for key in keys if np.ptp(column(rows, key)[np.isfinite(column(rows, key))]) > 0]
    if len(keys) < 2:
        raise ValueError(f"needs two measures that {LEAST} models or more have; found {len(keys)}")
    order = ("intrinsic", "extrinsic", "utility")
    return sorted(keys, key=lambda key: order.index(kind(key)))


def column(rows: Sequence[Mapping[str, Any]], key: Key) -> np.ndarray:
    """A measure of each model, (models,): |value − ideal|, or the value where there is no ideal; NaN without one."""
    out = []
    for row in rows:
        figure = row["tasks"].get(key[0], {}).get(key[1]) or {}
        value, ideal = figure.get("value"), figure.get("ideal")
        out.append(math.nan if value is None else value if ideal is None else abs(value - ideal))
    return np.array(out, np.float64)


METHODS = {"pearson": pearson, "spearman": spearman}


def correlation(
    x: Any, y: Any, method: str, *, seed: int = 0, num_resamples: int = 2000, num_permutations: int = 10_000
) -> dict[str, Any]:
    """{"value", "low", "high", "p", "n"} of two measures of n models, NaN where a model lacks one of them.

    Interval: percentiles over resamples of the models (of those in which neither is constant). p: two-sided, share of
    the ways to deal the y to the x (all of up to 7 models, else drawn, the observed one counted) that correlate at
    least as strongly.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    n = len(x)
    if n < LEAST:
        return {"value": None, "low": None, "high": None, "p": None, "n": n}
    measure, generator = METHODS[method], np.random.default_rng(seed)
    value = float(measure(x, y))
    if math.isnan(value):
        return {"value": None, "low": None, "high": None, "p": None, "n": n}
    drawn = generator.integers(n, size=(num_resamples, n))
    low, high = interval(measure(x[drawn], y[drawn]))
    if math.factorial(n) <= num_permutations:
        order = np.array(list(itertools.permutations(range(n))))
    else:
        order = generator.permuted(np.tile(np.arange(n), (num_permutations, 1)), axis=1)
        order[0] = np.arange(n)
    p = float((np.abs(measure(x, y[order])) >= abs(value) - 1e-12).mean())
    return {"value": value, "low": finite(low), "high": finite(high), "p": p, "n": n}


def correlate(
    rows: Sequence[Mapping[str, Any]], *, measures: Sequence[str] = (), seed: int = 0, by_group: bool = False
) -> dict[str, Any]:
    """{"models", "by_group", "measures": [{name, kind, values}], "pairs": [{a, b, pearson, spearman}]}.

    Refuses under 3 models, or groups of models.
    """
    if by_group:
        rows = groups_of(rows)
    if len(rows) < LEAST:
        names = ", ".join(row["model"] for row in rows)
        raise ValueError(
            f"{len(rows)} {'groups' if by_group else 'models'} ({names}): a correlation needs {LEAST} or more, "
            "and is worth little below 8"
        )
    keys = choose(rows, measures)
    if by_group:  # most groups are of one task only
        rows = [row for row in rows if sum(np.isfinite(column([row], key)[0]) for key in keys) > 1]
    columns = {key: column(rows, key) for key in keys}
    return {
        "models": [row["model"] for row in rows],
        "by_group": by_group,
        "measures": [
            {
                "name": ".".join(key),
                "kind": kind(key),
                "values": [finite(value) for value in columns[key].tolist()],
            }
            for key in keys
        ],
        "pairs": [
            {
                "a": ".".join(a),
                "b": ".".join(b),
                **{name: correlation(columns[a], columns[b], name, seed=seed) for name in METHODS},
            }
            for a, b in itertools.combinations(keys, 2)
        ],
    }


def _cell(found: Mapping[str, Any]) -> str:
    if found["value"] is None:
        return "–"
    bounds = "" if found["low"] is None else f" [{found['low']:.2f}, {found['high']:.2f}]"
    return f"{found['value']:.2f}{bounds}, p {found['p']:.2g}"


def markdown(result: Mapping[str, Any]) -> str:
    """Every pair as a row, pairs of an intrinsic and an extrinsic measure first."""
    kinds = {measure["name"]: measure["kind"] for measure in result["measures"]}
    crossed = [pair for pair in result["pairs"] if {kinds[pair["a"]], kinds[pair["b"]]} == {"intrinsic", "extrinsic"}]
    others = [pair for pair in result["pairs"] if pair not in crossed]
    return render(
        Path(__file__).with_name("correlations.md"),
        result=result,
        what="groups" if result["by_group"] else "models",
        parts={"Intrinsic against extrinsic": crossed, "Other pairs": others},
        label=_label,
        cell=_cell,
    )


def _label(name: str) -> str:
    label, _, metric = name.partition(".")
    return name_of(label, metric)


def plot(result: Mapping[str, Any], path: str | Path) -> Path:
    """The matrix as a picture: Spearman's ρ below the diagonal, Pearson's r above; bold: the interval excludes 0."""
    names = [measure["name"] for measure in result["measures"]]
    place = {name: i for i, name in enumerate(names)}
    grid: list[list[float | None]] = [[None] * len(names) for _ in names]
    sure = []
    for pair in result["pairs"]:
        i, j = place[pair["a"]], place[pair["b"]]  # i < j
        for cell, found in (((i, j), pair["pearson"]), ((j, i), pair["spearman"])):
            grid[cell[0]][cell[1]] = found["value"]
            if found["low"] is not None and (found["low"] > 0 or found["high"] < 0):
                sure.append(cell)
    counts = [sum(value is not None for value in measure["values"]) for measure in result["measures"]]
    labels = [f"{_label(name)} (n={count})" for name, count in zip(names, counts)]
    what = "groups" if result["by_group"] else "models"
    title = f"{len(result['models'])} {what}: Pearson r above, Spearman ρ below\nbold: the 95 % interval excludes 0"
    return canvas.save(charts.correlations(grid, sure, labels, title), path)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="evenhand correlate",
        description="How measures of bias correlate over a set of models: correlations.md, .json and .png.",
    )
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULTS.JSON", help="what evenhand eval wrote")
    parser.add_argument(
        "--measures",
        default="",
        metavar="TASK.METRIC,…",
        help="which to correlate; default: each task's headline figures",
    )
    parser.add_argument("--by_group", action="store_true", help="over the groups of each model, as occupations")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/correlations"), metavar="DIR")
    parser.add_argument("--seed", type=int, default=0, help="of resamples and permutations (0)")
    options = parser.parse_args(list(arguments))
    if options.seed < 0:
        raise ValueError(f"seed {options.seed}: must not be negative")
    wanted = [name.strip() for name in options.measures.split(",") if name.strip()]
    rows = read_results(options.results)
    result = correlate(rows, measures=wanted, seed=options.seed, by_group=options.by_group)
    text = markdown(result)
    write_json(options.output_dir / "correlations.json", result)
    plot(result, options.output_dir / "correlations.png")
    write_whole(options.output_dir / "correlations.md", text)
    print(text)
    print(f"written to {options.output_dir}")
