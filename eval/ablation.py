"""Models trained with several seeds → one row each, with an interval over the seeds; table and Pareto picture."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from counterfactuals.files import write_whole
from eval.report import COLOURS, GREY, INK, headlines, markdown

_SEEDED = re.compile(r"(.+)-seed(\d+)$")
BLUE = COLOURS[0]


def over_training_seeds(rows: Sequence[Mapping[str, Any]], confidence: float = 0.95) -> list[dict[str, Any]]:
    """One row for all NAME-seedS, in order: means, and Student's intervals for the mean over seeds.

    value: mean over the seeds that have one; low, high: its interval (None for a single seed); n: seeds. The interval
    is about training anew (weights, data order), not about other prompts: those of one model are in `rows`. Rows
    without a seed in their name stay as they are.
    """
    from scipy.stats import t as student

    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        seeded = _SEEDED.match(row["model"])
        groups.setdefault(seeded[1] if seeded else row["model"], []).append(row)
    found = []
    for name, members in groups.items():
        if not _SEEDED.match(members[0]["model"]):
            found.append(dict(members[0]))
            continue
        tasks: dict[str, dict[str, Any]] = {}
        for label, metrics in members[0]["tasks"].items():
            tasks[label] = {}
            for metric, first in metrics.items():
                figures = [row["tasks"].get(label, {}).get(metric, {}).get("value") for row in members]
                values = np.array([value for value in figures if value is not None], dtype=np.float64)
                mean = float(values.mean()) if len(values) else None
                low = high = None
                if len(values) > 1:
                    half = student.ppf((1 + confidence) / 2, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
                    low, high = float(values.mean() - half), float(values.mean() + half)
                tasks[label][metric] = {"value": mean, "low": low, "high": high, "n": len(values)}
                tasks[label][metric]["ideal"] = first.get("ideal")
        found.append({"model": name, "tasks": tasks})
    return found


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points that no other beats in both (smaller first, larger second), from left to right."""
    order = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1]))
    front: list[int] = []
    for i in order:
        if not front or points[i][1] > points[front[-1]][1]:
            front.append(i)
    return front


def write_ablation(rows: Sequence[Mapping[str, Any]], output_dir: str | Path) -> Path:
    """Write ablation.md, and ablation.png where equitability and perplexity were measured; returns the former."""
    output_dir, rows = Path(output_dir), over_training_seeds(rows)
    seeds = max((figure["n"] for row in rows for task in row["tasks"].values() for figure in task.values()), default=0)
    parts = ["# Ablation\n", markdown(rows)]
    parts.append("Means over training seeds; in brackets: 95 % intervals of the mean (Student's t) over the seeds.\n")
    columns = headlines(rows)
    utility = [key for key in columns if key[1] == "perplexity"]
    fairness = [key for key in columns if key[1].endswith("equitability_avg")]
    if utility and fairness and seeds:
        # on text whose roles are balanced, unlearning a skew costs nothing: what it costs there is quality
        balanced = next((key for key in utility if "balanced" in key[0]), utility[0])
        picture = plot_pareto(rows, output_dir / "ablation.png", x=balanced, y=fairness[0])
        parts.append(f"![equitability against perplexity]({picture.name})\n")
    path = output_dir / "ablation.md"
    write_whole(path, "\n".join(parts))
    return path


def plot_pareto(rows: Sequence[Mapping[str, Any]], path: str | Path, *, x: tuple[str, str], y: tuple[str, str]) -> Path:
    """Perplexity against equitability: a point and a cross of intervals a model, and the line of those unbeaten."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    def at(row: Mapping[str, Any], key: tuple[str, str]) -> Mapping[str, Any]:
        return row["tasks"].get(key[0], {}).get(key[1], {})

    rows = [row for row in rows if at(row, x).get("value") is not None and at(row, y).get("value") is not None]
    if not rows:
        raise ValueError(f"no model has both {x[0]}.{x[1]} and {y[0]}.{y[1]} in these results")
    points = [(at(row, x)["value"], at(row, y)["value"]) for row in rows]
    front = pareto(points)
    figure = Figure(figsize=(8.5, 6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.step(
        [points[i][0] for i in front], [points[i][1] for i in front], where="post", color=BLUE, linewidth=1.2, zorder=1
    )
    for i, (row, (across, up)) in enumerate(zip(rows, points)):
        colour = BLUE if i in front else GREY
        low, high = at(row, x).get("low"), at(row, x).get("high")
        if low is not None and high is not None:
            axes.plot([low, high], [up, up], color=colour, linewidth=1.1, alpha=0.55, zorder=2)
        low, high = at(row, y).get("low"), at(row, y).get("high")
        if low is not None and high is not None:
            axes.plot([across, across], [low, high], color=colour, linewidth=1.1, alpha=0.55, zorder=2)
        axes.scatter(across, up, s=42, color=colour, edgecolor="white", linewidth=0.8, zorder=3)
    figure.draw_without_rendering()
    _label(axes, [row["model"] for row in rows], points, front)
    axes.set_xlabel(f"{x[0].replace('_', '-')} {x[1]}  (left is better)".replace("perplexity perplexity", "perplexity"))
    axes.set_ylabel(f"{y[0].replace('_', '-')} {y[1].replace('_', ' ')}  (up is fairer)")
    axes.set_title("Equitability against perplexity; blue: no model beats it in both", loc="left", fontsize=12)
    axes.grid(color="#f0f0f0", linewidth=1)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=160, facecolor="white")
    return path


def _label(axes: Any, names: Sequence[str], points: Sequence[tuple[float, float]], front: Sequence[int]) -> None:
    """Names beside their points, each at the first of some places inside where it covers neither a name nor a point."""
    dots = axes.figure.dpi / 72  # pixels of a typographic point, in which places are given
    taken = [(px - 5, py - 5, px + 5, py + 5) for px, py in axes.transData.transform(points)]
    for i, name in enumerate(names):
        px, py = axes.transData.transform(points[i])
        boxes = {}
        for dy in (4, -13, 17, -26, 30, -39):
            for dx in (8, -8):
                left, width = px + dx * dots, (5.2 if dx > 0 else -5.2) * len(name) * dots
                boxes[dx, dy] = (min(left, left + width), py + dy * dots, max(left, left + width), py + (dy + 9) * dots)
        inside = {place: box for place, box in boxes.items() if axes.bbox.x0 < box[0] and box[2] < axes.bbox.x1}
        free = [place for place, box in inside.items() if not any(_overlap(box, other) for other in taken)]
        place = free[0] if free else (8, 4)
        taken.append(boxes[place])
        axes.annotate(
            name.replace("_", " "),
            points[i],
            xytext=place,
            textcoords="offset points",
            ha="left" if place[0] > 0 else "right",
            fontsize=9,
            color=INK if i in front else "#555555",
        )


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
