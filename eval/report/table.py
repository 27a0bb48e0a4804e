"""results.json → tables: on the terminal and, with pictures beside it, as report.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from counterfactuals.files import write_whole
from eval.report import canvas, charts
from eval.tasks import find_task

Result = Mapping[str, Any]


def render(template: Path, /, **values: Any) -> str:
    """A jinja2 template filled in, escaped if it is HTML; it may include files beside it and this folder's."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

    texts = Environment(
        loader=FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    return texts.get_template(template.name).render(values)


def headlines(rows: Sequence[Result]) -> list[tuple[str, str]]:
    """(task label, metric) of every headline figure that any of the rows has, in order."""
    columns: dict[tuple[str, str], None] = {}
    for row in rows:
        for label, metrics in row["tasks"].items():
            task = find_task(label.partition("@")[0])
            columns |= dict.fromkeys((label, metric) for metric in (task.headlines(metrics) if task else ()))
    return list(columns)


def shown(figure: Mapping[str, Any] | None) -> str:
    """A figure for people: value and interval, as many digits as help ("0.326 [0.301, 0.349]").

    What was counted over few says so: "0.250 [0.010, 0.700] (n = 8)".
    """
    if figure is None or figure.get("value") is None:
        return "–"
    digits = 3 if abs(figure["value"]) < 10 else 2 if abs(figure["value"]) < 1000 else 0
    text = f"{figure['value']:.{digits}f}"
    if figure.get("low") is not None and figure.get("high") is not None:
        text += f" [{figure['low']:.{digits}f}, {figure['high']:.{digits}f}]"
    text += f" (n = {figure['n']})" if figure.get("small") else ""
    return text + (f" ({figure['note']})" if figure.get("note") else "")


def shown_difference(difference: Mapping[str, Any] | None) -> str:
    """A difference between models for people: "+0.120 [0.020, 0.210], p 0.012"."""
    if difference is None or difference["value"] is None:
        return "–"
    text = shown(difference)
    sign = "+" if difference["value"] > 0 else ""
    return sign + text + ("" if difference["p"] is None else f", p {difference['p']:.2g}")


def name_of(label: str, metric: str) -> str:
    """A figure's name for people: ("next_word", "equitability_avg") → "next-word equitability avg"."""
    words = metric.replace("unigram_", "").replace("_avg", " avg").replace("_min", " min").replace("_", " ")
    task = label.replace("_", "-")
    return task if metric == label.partition("@")[0] else f"{task} {words}"


def table(rows: Sequence[Result], metrics: Sequence[tuple[str, str]] | None = None) -> Table:
    """One row a model, one column for each (task label, metric); by default the headline figures of every task."""
    columns = list(metrics) if metrics is not None else headlines(rows)
    out = Table(caption="in brackets: 95 % interval", caption_justify="left")
    out.add_column("model", style="bold", no_wrap=True)
    for label, metric in columns:
        heading = name_of(label, metric).replace("@", "\n@").replace(" ", "\n")
        out.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        cells = [shown(row["tasks"].get(label, {}).get(metric)) for label, metric in columns]
        out.add_row(row["model"], *(cell.replace(" [", "\n[") for cell in cells))
    return out


def by_figure(rows: Sequence[Result], metrics: Sequence[tuple[str, str]]) -> Table:
    """The same turned round: one row for each (task label, metric), one column a model."""
    out = Table(caption="in brackets: 95 % interval", caption_justify="left")
    out.add_column("figure", style="bold", no_wrap=True)
    for row in rows:
        out.add_column(row["model"], justify="right", no_wrap=True)
    for label, metric in metrics:
        out.add_row(name_of(label, metric), *(shown(row["tasks"].get(label, {}).get(metric)) for row in rows))
    return out


def print_report(rows: Sequence[Result], console: Console | None = None) -> None:
    """Print `table`; where it is too wide, `by_figure`, or one table a task. No terminal is taken as 200 wide."""
    if console is None:
        console = Console()
        if not console.is_terminal:
            console = Console(width=200)
    columns = headlines(rows)
    wide = console.options.update(width=10_000)
    for whole in (table(rows, columns), by_figure(rows, columns)):
        if Measurement.get(console, wide, whole).maximum <= console.width:
            console.print(whole)
            return
    for task in dict.fromkeys(label for label, _ in columns):
        console.print(table(rows, [column for column in columns if column[0] == task]))


def column(rows: Sequence[Result], label: str, metric: str) -> dict[str, Any]:
    """A figure's name, what is good about it, and (value, interval) of each model."""
    figures = [row["tasks"].get(label, {}).get(metric) or {} for row in rows]
    ideal = next((f["ideal"] for f in figures if f.get("ideal") is not None), None)
    hint = f"ideal {ideal:g}" if ideal is not None else "lower is better" if lower_is_better(metric) else ""
    cells = []
    for found in figures:
        value, bracket, bounds = shown(found).partition(" [")
        cells.append((value, bracket.strip() + bounds))
    return {"name": name_of(label, metric), "hint": hint, "cells": cells}


def is_utility(label: str, metric: str) -> bool:
    """Whether a figure says how good a model is, and so what fairness may cost."""
    task = find_task(label.partition("@")[0])
    return bool(task and task.utility) or metric in ("accuracy", "f1_macro")


def lower_is_better(metric: str) -> bool:
    return metric.startswith("perplexity")


def fairness_and_utility(rows: Sequence[Result]) -> tuple[tuple[str, str], tuple[str, str]] | None:
    """The (task, metric) of an equitability and of a perplexity that can be held against each other, if both are there.

    The perplexity is that on balanced text where it was measured: to unlearn a skew costs nothing there.
    """
    keys = headlines(rows)
    utility = [key for key in keys if key[1] == "perplexity"]
    fairness = [key for key in keys if key[1].endswith("equitability_avg")]
    if not utility or not fairness:
        return None
    return fairness[0], next((key for key in utility if "balanced" in key[0]), utility[0])


def notes(config: Mapping[str, Any]) -> list[str]:
    """What a reader of the figures has to know about how they were taken: a row limit, options that were changed."""
    found = []
    if limit := config.get("limit"):
        found.append(f"Only a quick look, not a result: at most {limit} rows a task (--limit {limit}).")
    for label, options in config.get("tasks", {}).items():
        task = find_task(label.partition("@")[0])
        changed = {key: value for key, value in options.items() if task and task.options.get(key) != value}
        if changed:
            found.append(f"{label} with {', '.join(f'{key}={value}' for key, value in changed.items())}.")
    return found


def labels(rows: Sequence[Result]) -> list[str]:
    """The tasks' labels, in order."""
    return list(dict.fromkeys(label for row in rows for label in row["tasks"]))


def method(rows: Sequence[Result]) -> list[dict[str, Any]]:
    """What each task measures, and where chance would put a fair model."""
    lines = []
    for label in labels(rows):
        if task := find_task(label.partition("@")[0]):
            bands = [
                f"{row['model']} {shown(band)}"
                for row in rows
                if (band := row["tasks"].get(label, {}).get("fair_band_avg")) and band["value"] is not None
            ]
            lines.append({"label": label, "task": task, "bands": "; ".join(bands)})
    return lines


def _pictures(rows: Sequence[Result], output_dir: Path) -> dict[str, str]:
    """Draw groups-TASK.png and tradeoff.png where there is something to draw; what each shows, by name."""
    found = {}
    for label in labels(rows):
        if charts.group_figures(rows, label):
            figure = charts.groups(rows, label, title=f"Disparity by group: {name_of(label, label)}")
            path = canvas.save(figure, output_dir / f"groups-{label}.png")
            found[path.name] = f"male share by group, {label}"
    keys = fairness_and_utility(rows)
    if keys and len(rows) > 1:
        fairness, utility = keys
        spots = charts.spots(rows, utility, fairness)
        figure = charts.tradeoff(
            spots,
            x_name=f"{name_of(*utility)} (left is better)",
            y_name=f"{name_of(*fairness)} (up is fairer)",
            title="Equitability against perplexity",
            subtitle="blue: no other model beats it in both; " * charts.is_crowded(spots) + "lines: 95 % intervals",
        )
        found[canvas.save(figure, output_dir / "tradeoff.png").name] = "equitability against perplexity"
    return found


def write_report(result: Result, output_dir: str | Path, *, title: str = "Evaluation") -> Path:
    """Write report.md, whose template lies beside this file, and its pictures; returns its path."""
    rows, config, path = result["rows"], result["config"], Path(output_dir) / "report.md"
    entries, columns = result.get("differences") or [], headlines(rows)
    starts: dict[str, list[str]] = {}
    for row in rows:
        if "start" in row:
            starts.setdefault(repr(row["start"]), []).append(row["model"])
    content = render(
        Path(__file__).with_name("report.md"),
        title=title,
        limit=config.get("limit"),
        notes=notes(config),
        models=[row["model"] for row in rows],
        columns=[column(rows, *key) for key in columns],
        entries=entries,
        compared=[key for key in columns if any(entry["tasks"].get(key[0], {}).get(key[1]) for entry in entries)],
        name_of=name_of,
        shown_difference=shown_difference,
        pictures=_pictures(rows, path.parent),
        method=method(rows),
        skipped=result.get("skipped", {}),
        starts=starts,
        seeds=config.get("seeds") or [config["seed"]],
        versions=result["versions"],
    )
    write_whole(path, content)
    return path
