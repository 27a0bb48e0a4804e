"""results.json → table, Markdown and pictures. Colours: Okabe & Ito (2008), told apart by colour-blind readers too."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from eval.tasks import find_task

Result = Mapping[str, Any]
# Dark to light so that neighbours differ in grey too; black stays for reference lines.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
MARKS = ("o", "s", "D", "^", "v", "P", "X")
INK, GREY, FAINT = "#222222", "#666666", "#d9d9d9"


def headlines(rows: Sequence[Result]) -> list[tuple[str, str]]:
    """(task label, metric) of every headline figure that any of the rows has, in order."""
    columns: dict[tuple[str, str], None] = {}
    for row in rows:
        for label, metrics in row["tasks"].items():
            task = find_task(label.partition("@")[0])
            for metric in (task.headline or metrics) if task else ():
                if metric in metrics:
                    columns[label, metric] = None
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
    return text + (f" (n = {figure['n']})" if figure.get("small") else "")


def shown_difference(difference: Mapping[str, Any] | None) -> str:
    """A difference between models for people: "+0.120 [0.020, 0.210], p 0.012"."""
    if difference is None or difference["value"] is None:
        return "–"
    text = shown(difference)
    sign = "+" if difference["value"] > 0 else ""
    return sign + text + ("" if difference["p"] is None else f", p {difference['p']:.2g}")


def _name(label: str, metric: str) -> str:
    words = metric.replace("unigram_", "").replace("_avg", " avg").replace("_min", " min").replace("_", " ")
    task = label.replace("_", "-")
    return task if metric == label.partition("@")[0] else f"{task} {words}"


def table(rows: Sequence[Result], metrics: Sequence[tuple[str, str]] | None = None) -> Table:
    """One row a model, one column for each (task label, metric); by default the headline figures of every task."""
    columns = list(metrics) if metrics is not None else headlines(rows)
    out = Table(caption="in brackets: 95 % interval", caption_justify="left")
    out.add_column("model", style="bold", no_wrap=True)
    for label, metric in columns:
        heading = _name(label, metric).replace("@", "\n@").replace(" ", "\n")
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
        out.add_row(_name(label, metric), *(shown(row["tasks"].get(label, {}).get(metric)) for row in rows))
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
            _name(label, metric) + (" ↓" if metric == "perplexity" else "" if ideal is None else f" (ideal {ideal:g})")
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
        f"| minus {entries[0]['minus']} | " + " | ".join(_name(*column) for column in columns) + " |",
        "|---|" + "---:|" * len(columns),
    ]
    for entry in entries:
        cells = [shown_difference(entry["tasks"].get(label, {}).get(metric)) for label, metric in columns]
        lines.append(f"| {entry['model']} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _legend_columns(width: float, labels: Sequence[str]) -> int:
    """How many labels of a legend fit side by side in so many inches."""
    return max(1, int((width - 0.3) / (0.45 + 0.088 * max(map(len, labels)))))


def _figure(width: float, height: float, title: str, subtitle: str, labels: Sequence[str]) -> tuple[Any, Any]:
    """A figure of that many inches whose uppermost inch holds title, subtitle and (by `_legend`) the models' labels.

    Where the labels need more than one row, the figure is higher by the others.
    """
    from matplotlib.figure import Figure

    more = 0.24 * (math.ceil(len(labels) / _legend_columns(width, labels)) - 1)
    height += more
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(rect=(0, 0, 0.99, 1 - (1.02 + more) / height))  # type: ignore[call-arg, union-attr]
    left = 0.12 / width
    figure.text(left, 1 - 0.12 / height, title, fontsize=14, weight="bold", color=INK, va="top")
    figure.text(left, 1 - 0.42 / height, subtitle, fontsize=10, color=GREY, va="top")
    axes = figure.add_subplot()
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
    axes.tick_params(length=0, colors=INK, labelsize=10)
    axes.set_axisbelow(True)
    return figure, axes


def _legend(figure: Any, axes: Any) -> None:
    width, height = figure.get_size_inches()
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="upper left",
        bbox_to_anchor=(0.02 / width, 1 - 0.62 / height),
        ncols=_legend_columns(width, labels),
        frameon=False,
        fontsize=10.5,
        labelcolor=INK,
        handletextpad=0.1,
        columnspacing=1.3,
    ).set_in_layout(False)


def _save(figure: Any, path: str | Path) -> Path:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=160, facecolor="white")
    return path


_MEANING = {
    "male_share": "male share of male and female, by group; thin lines: 95 % intervals",
    "equitability": "min(m/f, f/m) by group, 1 is parity; thin lines: 95 % intervals",
    "ratio": "male : female by group, 1 is parity; thin lines: 95 % intervals",
}


def plot_groups(
    rows: Sequence[Result],
    task: str,
    path: str | Path,
    *,
    metric: str = "male_share",
    title: str | None = None,
) -> Path:
    """One line for each group of `task`, one mark a model, parity marked: who moved, and where to. PNG, SVG or PDF.

    `metric` is what stands before the slash: male_share (0 all female, 1 all male, parity ½), equitability or ratio.
    Groups are in the order of the first model's values. Results without such figures: ValueError.
    """
    prefix = metric + "/"
    keys = dict.fromkeys(key for row in rows for key in row["tasks"].get(task, {}) if key.startswith(prefix))
    groups = [key.removeprefix(prefix) for key in keys]
    if not groups:
        raise ValueError(f"no figure {prefix}GROUP of task {task!r} in these results")

    def value(row: Result, group: str, bound: str = "value") -> float | None:
        return row["tasks"].get(task, {}).get(prefix + group, {}).get(bound)

    rows = [row for row in rows if any(value(row, group) is not None for group in groups)]
    if not rows:
        raise ValueError(f"every {prefix}GROUP of task {task!r} is undefined in these results")
    groups.sort(key=lambda group: (value(rows[0], group) is None, value(rows[0], group)))
    kind = next((known for known in _MEANING if metric.endswith(known)), "ratio")
    subtitle = f"{task.replace('_', '-')}: {_MEANING[kind]}"
    spread = min(0.62, 0.16 * (len(rows) - 1))  # lines of one group apart, so that marks do not hide each other
    figure, axes = _figure(
        8.5,
        1.5 + len(groups) * max(0.34, 0.11 * len(rows)),
        title or "Disparity by group",
        subtitle,
        [row["model"] for row in rows],
    )
    axes.axvline(0.5 if kind == "male_share" else 1.0, color=INK, linewidth=1, zorder=1)
    axes.barh(range(0, len(groups), 2), 1e6, left=-5e5, height=1, color="#f6f6f6", zorder=0)
    for k, row in enumerate(rows):
        colour, mark = COLOURS[k % len(COLOURS)], MARKS[k % len(MARKS)]
        offset = spread / 2 - (spread * k / (len(rows) - 1) if len(rows) > 1 else 0)
        points = [(found, i + offset) for i, group in enumerate(groups) if (found := value(row, group)) is not None]
        for i, group in enumerate(groups):
            low, high = value(row, group, "low"), value(row, group, "high")
            if low is not None and high is not None:
                axes.plot([low, high], [i + offset] * 2, color=colour, linewidth=1.3, alpha=0.6, zorder=2)
        xs, ys = zip(*points)
        axes.scatter(
            xs, ys, s=44, color=colour, marker=mark, edgecolor="white", linewidth=0.7, label=row["model"], zorder=3 + k
        )
    axes.set_yticks(range(len(groups)), [group.replace("_", " ") for group in groups])
    axes.set_ylim(-0.6, len(groups) - 0.4)
    if kind == "male_share":
        axes.set_xlim(-0.02, 1.02)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["all female", "25 %", "parity", "75 %", "all male"])
    elif kind == "equitability":
        axes.set_xlim(-0.02, 1.03)
    else:
        values = [found for row in rows for group in groups if (found := value(row, group))]
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlim(min([0.5, *values]) / 1.3, max([2.0, *values]) * 1.3)
        axes.set_xlabel("male : female", color=INK)
    _legend(figure, axes)
    return _save(figure, path)


def having(rows: Sequence[Result], x: tuple[str, str], y: tuple[str, str]) -> list[tuple[str, Result, Result]]:
    """(model, figure x, figure y) of the rows that have both, each a (task, metric). ValueError if none has."""
    found = [(row["model"], *(row["tasks"].get(task, {}).get(metric, {}) for task, metric in (x, y))) for row in rows]
    found = [(name, a, b) for name, a, b in found if a.get("value") is not None and b.get("value") is not None]
    if not found:
        raise ValueError(f"no model has both {x[0]}.{x[1]} and {y[0]}.{y[1]} in these results")
    return found


def cross(axes: Any, x: Result, y: Result, **style: Any) -> None:
    """The intervals of two figures as lines through their point."""
    if x.get("low") is not None:
        axes.plot([x["low"], x["high"]], [y["value"]] * 2, **style)
    if y.get("low") is not None:
        axes.plot([x["value"]] * 2, [y["low"], y["high"]], **style)


def plot_tradeoff(
    rows: Sequence[Result],
    path: str | Path,
    *,
    x: tuple[str, str] = ("perplexity", "perplexity"),
    y: tuple[str, str] = ("next_word", "equitability_avg"),
    title: str = "Equitability against perplexity",
) -> Path:
    """Fairness (up is better) against perplexity (left is better), each a (task, metric): a mark and cross a model."""
    found = having(rows, x, y)
    subtitle = "up: fairer, left: better language model; thin lines: 95 % intervals"
    figure, axes = _figure(7.5, 5, title, subtitle, [name for name, *_ in found])
    axes.axhline(1, color=INK, linewidth=1, zorder=1)
    axes.annotate(
        "parity", (0, 1), xycoords=("axes fraction", "data"), xytext=(4, 4), textcoords="offset points", color=GREY
    )
    for k, (name, across, up) in enumerate(found):
        colour, mark = COLOURS[k % len(COLOURS)], MARKS[k % len(MARKS)]
        cross(axes, across, up, color=colour, linewidth=1.3, alpha=0.6)
        axes.scatter(
            across["value"],
            up["value"],
            s=90,
            color=colour,
            marker=mark,
            edgecolor="white",
            linewidth=0.8,
            label=name,
            zorder=3 + k,
        )
    axes.set_ylim(-0.02, 1.06)
    axes.margins(x=0.12)
    axes.grid(color="#f0f0f0", linewidth=1)
    axes.set_xlabel(_name(*x), color=INK)
    axes.set_ylabel(_name(*y), color=INK)
    _legend(figure, axes)
    return _save(figure, path)


def write_report(result: Result, output_dir: str | Path, *, title: str = "Evaluation") -> Path:
    """Write report.md with the table and its pictures beside it (groups-TASK.png, tradeoff.png); returns its path."""
    output_dir, rows = Path(output_dir), result["rows"]
    output_dir.mkdir(parents=True, exist_ok=True)
    parts = [f"# {title}\n", markdown(rows)]
    parts.append(
        "In brackets: 95 % intervals, by bootstrap, or by Student's t where a row is a mean over training seeds; n "
        "where a figure was counted over few. All figures: results.json; the scores of each row: rows-TASK.jsonl.\n"
    )
    if apart := differences(result):
        parts.append("## Differences\n")
        parts.append(apart)
        parts.append("Paired: the same rows are resampled for both models. p: two-sided, bootstrap.\n")
    labels = list(dict.fromkeys(label for row in rows for label in row["tasks"]))
    for label in labels:
        metrics = [metrics for row in rows if (metrics := row["tasks"].get(label))]
        if any(
            figure["value"] is not None for m in metrics for key, figure in m.items() if key.startswith("male_share/")
        ):
            picture = plot_groups(rows, label, output_dir / f"groups-{label}.png")
            parts.append(f"![male share by group, {label}]({picture.name})\n")
    lines = headlines(rows)
    utility = next((key for key in lines if key[1] == "perplexity"), None)
    fairness = next((key for key in lines if key[1].endswith("equitability_avg")), None)
    if utility and fairness and len(rows) > 1:
        picture = plot_tradeoff(rows, output_dir / "tradeoff.png", x=utility, y=fairness)
        parts.append(f"![equitability against perplexity]({picture.name})\n")
    parts.append("## What was measured\n")
    for label in labels:
        task = find_task(label.partition("@")[0])
        if task:
            parts.append(
                f"* **{label}**: {task.meaning}. Ideal: {task.ideal}. Source: {task.source}. "
                f"Does not measure {task.not_measured}."
            )
    for label, reason in result.get("skipped", {}).items():
        parts.append(f"* **{label}** was left out: {reason}")
    for label in labels:
        for row in rows:
            band = row["tasks"].get(label, {}).get("fair_band_avg")
            if band and band["value"] is not None:
                parts.append(
                    f"* {label}, {row['model']}: a perfectly fair model with as many polar texts would score "
                    f"{shown(band)} on average over groups."
                )
    settings = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    seeds = result["config"].get("seeds") or [result["config"]["seed"]]
    parts.append(f"\nSeed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}; {settings}.\n")
    path = output_dir / "report.md"
    path.write_text("\n".join(parts), encoding="utf-8")
    return path
