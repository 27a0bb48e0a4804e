"""results.json → tables: on the terminal and, with pictures beside it, as report.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from eval.report import canvas, charts
from eval.tasks import find_task

Result = Mapping[str, Any]


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


def markdown(rows: Sequence[Result], metrics: Sequence[tuple[str, str]] | None = None) -> str:
    """The same table in Markdown, ideal values in the heading."""
    columns = list(metrics) if metrics is not None else headlines(rows)
    heading = []
    for label, metric in columns:
        found: Mapping[str, Any] = next(
            (row["tasks"][label][metric] for row in rows if metric in row["tasks"].get(label, {})), {}
        )
        ideal = found.get("ideal")
        heading.append(
            name_of(label, metric)
            + (" ↓" if metric == "perplexity" else "" if ideal is None else f" (ideal {ideal:g})")
        )
    lines = ["| model | " + " | ".join(heading) + " |", "|---|" + "---:|" * len(columns)]
    for row in rows:
        cells = [shown(row["tasks"].get(label, {}).get(metric)) for label, metric in columns]
        lines.append(f"| {row['model']} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def differences(result: Result) -> str:
    """Each model's headline figures minus those of the reference, in Markdown; empty for a single model."""
    entries = result.get("differences") or []
    columns = headlines(result["rows"])
    columns = [key for key in columns if any(entry["tasks"].get(key[0], {}).get(key[1]) for entry in entries)]
    if not columns:
        return ""
    lines = [
        f"| minus {entries[0]['minus']} | " + " | ".join(name_of(*column) for column in columns) + " |",
        "|---|" + "---:|" * len(columns),
    ]
    for entry in entries:
        cells = [shown_difference(entry["tasks"].get(label, {}).get(metric)) for label, metric in columns]
        lines.append(f"| {entry['model']} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


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


def _pictures(rows: Sequence[Result], output_dir: Path) -> Iterator[str]:
    """Draw groups-TASK.png and tradeoff.png where there is something to draw; their lines in Markdown."""
    for label in dict.fromkeys(label for row in rows for label in row["tasks"]):
        if charts.group_figures(rows, label):
            figure = charts.groups(rows, label, title=f"Disparity by group: {name_of(label, label)}")
            path = canvas.save(figure, output_dir / f"groups-{label}.png")
            yield f"![male share by group, {label}]({path.name})\n"
    keys = fairness_and_utility(rows)
    if keys and len(rows) > 1:
        fairness, utility = keys
        figure = charts.tradeoff(
            charts.spots(rows, utility, fairness),
            x_name=f"{name_of(*utility)} (left is better)",
            y_name=f"{name_of(*fairness)} (up is fairer)",
            title="Equitability against perplexity",
            subtitle="lines: 95 % intervals",
        )
        yield f"![equitability against perplexity]({canvas.save(figure, output_dir / 'tradeoff.png').name})\n"


def _measured(result: Result) -> Iterator[str]:
    """What each task measures and does not, what was left out, and where chance would put a fair model."""
    rows = result["rows"]
    labels = list(dict.fromkeys(label for row in rows for label in row["tasks"]))
    for label in labels:
        if task := find_task(label.partition("@")[0]):
            yield (
                f"* **{label}**: {task.meaning}. Ideal: {task.ideal}. Source: {task.source}. "
                f"Does not measure {task.not_measured}."
            )
    for label, reason in result.get("skipped", {}).items():
        yield f"* **{label}** was left out: {reason}"
    for label in labels:
        for row in rows:
            band = row["tasks"].get(label, {}).get("fair_band_avg")
            if band and band["value"] is not None:
                yield (
                    f"* {label}, {row['model']}: a perfectly fair model with as many polar texts would score "
                    f"{shown(band)} on average over groups."
                )


def write_report(result: Result, output_dir: str | Path, *, title: str = "Evaluation") -> Path:
    """Write report.md with the table and its pictures beside it (groups-TASK.png, tradeoff.png); returns its path."""
    output_dir, rows, config = Path(output_dir), result["rows"], result["config"]
    output_dir.mkdir(parents=True, exist_ok=True)
    parts = [f"# {title}\n", *(f"**{note}**\n" for note in notes(config)[: bool(config.get("limit"))]), markdown(rows)]
    parts.append(
        "In brackets: 95 % intervals, by bootstrap, or by Student's t where a row is a mean over training seeds; n "
        "where a figure was counted over few. All figures: results.json; the scores of each row: rows-TASK.jsonl.\n"
    )
    if apart := differences(result):
        parts += ["## Differences\n", apart]
        parts.append("Paired: the same rows are resampled for both models. p: two-sided, bootstrap.\n")
    parts += _pictures(rows, output_dir)
    parts += ["## What was measured\n", *_measured(result)]
    parts += [f"* {note}" for note in notes(config)[bool(config.get("limit")) :]]
    for start in dict.fromkeys(row["start"] for row in rows if "start" in row):
        models = ", ".join(row["model"] for row in rows if row.get("start") == start)
        parts.append(f"* What stands before a text ({models}): `{start!r}`.")
    settings = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    seeds = config.get("seeds") or [config["seed"]]
    parts.append(f"\nSeed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}; {settings}.\n")
    path = output_dir / "report.md"
    path.write_text("\n".join(parts), encoding="utf-8")
    return path
