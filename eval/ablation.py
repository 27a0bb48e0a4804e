"""Models trained with several seeds → one row each, with an interval over the seeds; table and Pareto picture."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from counterfactuals.files import write_whole
from eval.report import COLOURS, GREY, INK, _name, _save, cross, having, headlines, markdown

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
    from matplotlib.figure import Figure

    found = having(rows, x, y)
    points = [(across["value"], up["value"]) for _, across, up in found]
    front = pareto(points)
    figure = Figure(figsize=(8.5, 6), layout="constrained")
    axes = figure.add_subplot()
    corners = [points[front[0]]]  # no axes.step, whose corners labels could not keep clear of
    for i in front[1:]:
        corners += [(points[i][0], corners[-1][1]), points[i]]
    axes.plot(*zip(*corners), color=BLUE, linewidth=1.2, zorder=1)
    for i, (_, across, up) in enumerate(found):
        colour = BLUE if i in front else GREY
        cross(axes, across, up, color=colour, linewidth=1.1, alpha=0.55, zorder=2)
        axes.scatter(*points[i], s=42, color=colour, edgecolor="white", linewidth=0.8, zorder=4)
    axes.set_xlabel(f"{_name(*x)}  (left is better)")
    axes.set_ylabel(f"{_name(*y)}  (up is fairer)")
    axes.set_title("Equitability against perplexity; blue: no model beats it in both", loc="left", fontsize=12)
    axes.grid(color="#f0f0f0", linewidth=1)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.draw_without_rendering()  # now all stands where it will be
    _label(axes, [name for name, *_ in found], points, front)
    return _save(figure, path)


def _label(axes: Any, names: Sequence[str], points: Sequence[tuple[float, float]], front: Sequence[int]) -> None:
    """Names in free places near their points; a thin line leads to those that are not beside theirs."""
    dot = axes.figure.dpi / 72  # pixels of a typographic point, in which places are given
    spots_N2 = axes.transData.transform(points) / dot
    texts = [
        axes.annotate(name.replace("_", " "), point, (0, 0), textcoords="offset points", fontsize=9, zorder=5)
        for name, point in zip(names, points)
    ]
    sizes_N2 = np.array([text.get_window_extent().size for text in texts]) / dot
    drawn = [axes.transData.transform(line.get_xydata()) / dot for line in axes.lines]
    ends = [np.sort(np.stack([path[:-1], path[1:]]), 0) for path in drawn]
    lines_M4 = np.concatenate([_box(low - 1, high + 1) for low, high in ends])
    boxes_N4 = label_boxes(spots_N2, sizes_N2, lines_M4, axes.bbox.extents / dot)
    leader = {"arrowstyle": "-", "color": "#777777", "linewidth": 0.7, "shrinkA": 0, "shrinkB": 0}
    for i, end in enumerate(_nearest(boxes_N4, spots_N2) - spots_N2):
        texts[i].set(position=boxes_N4[i, :2] - spots_N2[i], color=INK if i in front else "#555555")
        if np.hypot(*end) > 2 * BESIDE:
            axes.annotate("", points[i], end, textcoords="offset points", arrowprops=leader, zorder=3)


BESIDE = 8  # typographic points from a spot to a label beside it


def label_boxes(spots_N2: np.ndarray, sizes_N2: np.ndarray, lines_M4: np.ndarray, inside_4: np.ndarray) -> np.ndarray:
    """Where labels go, each near its spot, in typographic points: N boxes (left, bottom, right, top) of C places.

    Each, from the uppermost down, takes the place that costs least. It costs to be far from its spot, to lie as near to
    another, to cover a line (boxes M); more to cover a spot; most to cover another label or the way from one to its
    spot, or to leave the box `inside`.
    """
    dots_N4, near_4 = _box(spots_N2 - 5, spots_N2 + 5), np.array([-8, -8, 8, 8])
    found_N4, ways_W4 = np.full((len(spots_N2), 4), np.nan), np.empty((0, 4))  # nan overlaps nothing
    aside, up = (grid.ravel() for grid in np.meshgrid([BESIDE, 20, 35, 50, 70, 90], np.arange(-150, 151, 4)))
    for i in np.argsort(-spots_N2[:, 1], kind="stable"):
        spot_2, (width, height) = spots_N2[i], sizes_N2[i]
        offset_C2 = np.concatenate([np.stack([x, up - height / 2], 1) for x in (aside, -aside - width)])
        box_C4 = _box(spot_2 + offset_C2, spot_2 + offset_C2 + sizes_N2[i])
        way_C2 = _nearest(box_C4, spot_2) - spot_2
        way_CK2 = spot_2 + way_C2[:, None] * np.linspace(0, 1, 16)[:, None]
        way_CK4 = _box(way_CK2, way_CK2)
        others_O4 = np.delete(dots_N4, i, 0)
        cost_C = np.hypot(way_C2[:, 0], 2 * way_C2[:, 1]) + 50 * _hits(box_C4, lines_M4) + 300 * _hits(box_C4, dots_N4)
        cost_C += 50 * _hits(box_C4 + near_4, others_O4)
        cost_C += 1000 * (_hits(box_C4, found_N4) + _hits(box_C4, ways_W4))
        cost_C += 1000 * _hits(way_CK4.reshape(-1, 4), found_N4).reshape(len(cost_C), -1).sum(1)
        cost_C += 1000 * ((box_C4[:, :2] < inside_4[:2]) | (box_C4[:, 2:] > inside_4[2:])).any(1)
        best = cost_C.argmin()
        found_N4[i], ways_W4 = box_C4[best], np.concatenate([ways_W4, way_CK4[best]])
    return found_N4


def _box(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    return np.concatenate([low, high], -1)


def _nearest(box_N4: np.ndarray, to: np.ndarray) -> np.ndarray:
    """The point of each box's left or right edge, at half its height, that is nearest to `to`."""
    middle_N2 = (box_N4[:, :2] + box_N4[:, 2:]) / 2
    left = np.abs(box_N4[:, 0] - to[..., 0]) < np.abs(box_N4[:, 2] - to[..., 0])
    return np.stack([np.where(left, box_N4[:, 0], box_N4[:, 2]), middle_N2[:, 1]], 1)


def _hits(box_N4: np.ndarray, other_M4: np.ndarray) -> np.ndarray:
    """How many of the others each box overlaps."""
    one, two = box_N4[:, None], other_M4[None]
    return ((one[..., :2] < two[..., 2:]) & (two[..., :2] < one[..., 2:])).all(-1).sum(1)
