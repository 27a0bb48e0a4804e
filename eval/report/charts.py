"""The charts of report.md and report.html, drawn by matplotlib.

Every function returns a matplotlib Figure; `width` is in inches, so that the page can draw for wide and narrow screens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from eval.report.canvas import (
    BAND,
    COLOURS,
    FAINT,
    FEW,
    GREY,
    INK,
    PAPER,
    POLES,
    WIDE,
    Result,
    canvas,
    style,
    text_width,
    wrapped,
)  # fmt: skip
from eval.report.labels import label as put_labels


class Spot(NamedTuple):
    """A labelled point of a scatter plot with its intervals. `hollow`: not measured here, shown for comparison."""

    label: str
    x: float
    y: float
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    hollow: bool = False


def _marks(axes: Any, k: int, places: Sequence[tuple[float, Result]]) -> None:
    """A model's marks, each at (y, figure), with intervals; hollow where there is none, or n is below FEW."""
    colour = style(k)["color"]
    known = [(y, figure) for y, figure in places if figure.get("low") is not None and figure.get("high") is not None]
    if known:
        lows, highs = ([figure[key] for _, figure in known] for key in ("low", "high"))
        axes.hlines([y for y, _ in known], lows, highs, color=colour, linewidth=1.4, alpha=0.6, zorder=2)
    sure = [(y, figure) for y, figure in known if figure.get("n", FEW) >= FEW]
    unsure = [place for place in places if place not in sure]
    for part, looks in (
        (sure, {"markerfacecolor": colour, "markeredgecolor": PAPER, "markeredgewidth": 0.8}),
        (unsure, {"markerfacecolor": PAPER, "markeredgewidth": 1.4}),
    ):
        if part:
            xs, ys = [figure["value"] for _, figure in part], [y for y, _ in part]
            axes.plot(xs, ys, linestyle="", markersize=7, zorder=3 + k, **style(k), **looks)


def _at_left(names: Iterable[str], width: float) -> tuple[list[str], float]:
    """Names beside an upright axis, cut into lines, and the inches that they need."""
    ticks = [wrapped(name, 40 if width >= WIDE else 15) for name in names]
    return ticks, 0.25 + max(text_width(line) for tick in ticks for line in tick.split("\n"))


# ---------------------------------------------------------------- groups


def group_figures(rows: Sequence[Result], task: str) -> dict[str, list[Result | None]]:
    """The figure male_share/GROUP of each model (None: undefined), by group. Groups that no model has are left out.

    A share counted over one text is no figure of a group: all of one is always all female or all male. Nor is one in
    percent, as old results of Winogender have it.
    """
    prefix = "male_share/"
    keys = dict.fromkeys(key for row in rows for key in row["tasks"].get(task, {}) if key.startswith(prefix))
    groups = {}
    for key in keys:
        found = [row["tasks"].get(task, {}).get(key) for row in rows]
        known = [f if f and f.get("value") is not None and f.get("ideal") == 0.5 else None for f in found]
        known = [None if f and f.get("n") == 1 and f.get("low") is None else f for f in known]
        if any(known):
            groups[key.removeprefix(prefix)] = known
    return groups


def groups(
    rows: Sequence[Result],
    task: str,
    *,
    title: str = "",
    width: float = WIDE,
    reference: int = 0,
) -> Any:
    """The male share of each group of `task`: a line a group, one mark a model, parity marked.

    Parity is ½. Groups are sorted by the values of model number `reference`.
    ValueError where no group has such a figure.
    """
    found = group_figures(rows, task)
    if not found:
        raise ValueError(f"{task}: no group has a male_share, counted over more than one, in these results")
    names = [row["model"] for row in rows]
    order = sorted(found, key=lambda g: (found[g][reference] is None, (found[g][reference] or {}).get("value", 0)))
    ticks, left = _at_left(order, width)
    step = max(0.34, 0.11 * len(rows), *(0.2 * (1 + tick.count("\n")) for tick in ticks))
    hollow = "hollow: counted over fewer than 5, or no interval"
    meaning = f"male share of male and female, by group; lines: 95 % intervals; {hollow}"
    subtitle = meaning if title else ""
    figure, (axes,) = canvas(
        width, 0.5 + step * len(order), margins=(left, 0.35, 0.42), names=names, title=title, subtitle=subtitle
    )
    axes.barh(range(0, len(order), 2), 1e6, left=-5e5, height=1, color=BAND, zorder=0)
    axes.axvline(0.5, color=INK, linewidth=1, zorder=1)
    spread = min(0.62, 0.16 * (len(rows) - 1))  # lines of one group apart, so that marks do not hide each other
    for k in range(len(rows)):
        offset = spread / 2 - (spread * k / (len(rows) - 1) if len(rows) > 1 else 0)
        _marks(axes, k, [(i + offset, one) for i, group in enumerate(order) if (one := found[group][k])])
    axes.set_yticks(range(len(order)), ticks)
    axes.set_ylim(-0.6, len(order) - 0.4)
    wide, narrow = ("all female", "25 %", "parity", "75 %", "all male"), ("all\nfemale", "", "parity", "", "all\nmale")
    axes.set_xlim(-0.03, 1.03)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], wide if width >= WIDE else narrow)
    return figure


# ---------------------------------------------------------------- one figure against another


def spots(rows: Sequence[Result], x: tuple[str, str], y: tuple[str, str], *, level: float = 1.0) -> list[Spot]:
    """A spot for each model that has both figures, each a (task, metric); x in units of `level`. ValueError if none."""

    def span(figure: Result, unit: float) -> tuple[float, float] | None:
        return None if figure.get("low") is None else (figure["low"] / unit, figure["high"] / unit)

    found = []
    for row in rows:
        across, up = (row["tasks"].get(task, {}).get(metric, {}) for task, metric in (x, y))
        if across.get("value") is not None and up.get("value") is not None:
            found.append(Spot(row["model"], across["value"] / level, up["value"], span(across, level), span(up, 1.0)))
    if not found:
        raise ValueError(f"no model has both {x[0]}.{x[1]} and {y[0]}.{y[1]} in these results")
    return found


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points that no other beats in both (smaller first, larger second), from left to right."""
    order = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1]))
    front: list[int] = []
    for i in order:
        if not front or points[i][1] > points[front[-1]][1]:
            front.append(i)
    return front


def is_crowded(found: Sequence[Spot]) -> bool:
    """Whether there are more models than can be told apart by colour."""
    return sum(not spot.hollow for spot in found) > len(COLOURS)


def tradeoff(
    found: Sequence[Spot],
    *,
    x_name: str,
    y_name: str,
    title: str = "",
    subtitle: str = "",
    width: float = WIDE,
) -> Any:
    """Fairness (up is better) against perplexity (left is better): a mark with a cross of intervals a model.

    Where they are crowded, a line joins the models that no other beats in both, and the others are grey.
    """
    points, front = [(spot.x, spot.y) for spot in found], is_crowded(found)
    models = [i for i, spot in enumerate(found) if not spot.hollow]
    best = [models[k] for k in pareto([points[i] for i in models])] if front else []
    figure, (axes,) = canvas(width, min(5.0, 1.0 * width), margins=(0.75, 0.25, 0.6), title=title, subtitle=subtitle)
    axes.axhline(1, color=INK, linewidth=1, zorder=1)
    axes.annotate(
        "parity", (0, 1), xycoords=("axes fraction", "data"), xytext=(4, 3), textcoords="offset points", color=GREY
    )
    if best:
        corners = [points[best[0]]]  # no axes.step, whose corners labels could not keep clear of
        for i in best[1:]:
            corners += [(points[i][0], corners[-1][1]), points[i]]
        axes.plot(*zip(*corners), color=COLOURS[0], linewidth=1.2, zorder=1)
    for i, spot in enumerate(found):
        looks = {"color": COLOURS[0] if i in best else GREY, "marker": "o"} if front else style(i)
        for span, xs, ys in ((spot.x_range, spot.x_range, [spot.y] * 2), (spot.y_range, [spot.x] * 2, spot.y_range)):
            if span:
                axes.plot(xs, ys, color=looks["color"], linewidth=1.3, alpha=0.6, zorder=2)
        if spot.hollow:
            looks |= {"color": GREY, "markerfacecolor": PAPER, "marker": "o"}
        else:
            looks |= {"markeredgecolor": PAPER}
        axes.plot(spot.x, spot.y, linestyle="", markersize=8, zorder=4, **looks)
    axes.set_ylim(min(-0.02, *(y for _, y in points)), max(1.08, *(y for _, y in points)))
    axes.margins(x=0.15)
    axes.locator_params(axis="x", nbins=7 if width >= WIDE else 4)
    axes.grid(color=FAINT, linewidth=0.6)
    axes.set_xlabel(x_name, color=INK)
    axes.set_ylabel(y_name, color=INK)
    figure.draw_without_rendering()  # now all stands where it will be
    faint = [i for i, spot in enumerate(found) if spot.hollow or (front and i not in best)]
    names = [wrapped(spot.label, 60 if width >= WIDE else 18) for spot in found]
    put_labels(axes, names, points, faint=faint, ink=INK, grey=GREY)
    return figure


# ---------------------------------------------------------------- other pictures


def strips(panels: Mapping[str, Sequence[Result | None]], names: Sequence[str], *, width: float = WIDE) -> Any:
    """A panel for each figure, each on its own scale: a line a model, and the ideal value as a line upright."""
    each = 0.22 * len(names) + 0.62
    figure, axes = canvas(
        width, each * len(panels) + 0.1, margins=(0.25, 0.35, 0.35), names=names, rows=len(panels), titled=True
    )
    figure.subplots_adjust(hspace=0.62 / (each - 0.62))
    for panel, (name, figures) in zip(axes, panels.items()):
        known = [one for one in figures if one]
        ideal = known[0]["ideal"]
        for k, one in enumerate(figures):
            if one:
                _marks(panel, k, [(-k, one)])
        panel.axvline(ideal, color=INK, linewidth=1, zorder=1)
        panel.set_title(f"{name} (ideal: {ideal:g})", loc="left", fontsize=10, color=INK, pad=3)
        panel.set_ylim(-len(names) + 0.4, 0.6)
        panel.set_yticks([])
        panel.margins(x=0.04)
        panel.locator_params(axis="x", nbins=8 if width >= WIDE else 4)
        panel.grid(axis="x", color=FAINT, linewidth=0.6)
    return figure


def shares(counts: Mapping[str, Mapping[str, int]], *, width: float = WIDE) -> Any:
    """One bar a model, cut into male, neutral and female parts of its total."""
    from matplotlib.patches import Patch

    labels, left = _at_left(counts, width)
    figure, (axes,) = canvas(width, 0.42 * len(counts) + 0.45, margins=(left, 0.2, 0.05))
    for i, parts in enumerate(counts.values()):
        total, begin = sum(parts.values()) or 1, 0.0
        for colour, count in zip(POLES, parts.values()):
            share = count / total
            axes.barh(i, share, left=begin, height=0.68, color=colour)
            if share >= (0.06 if width >= WIDE else 0.14):
                ink = INK if colour == POLES[1] else PAPER
                axes.text(begin + share / 2, i, f"{share:.0%}", ha="center", va="center", color=ink, fontsize=9)
            begin += share
    axes.set_yticks(range(len(counts)), labels)
    axes.set_ylim(len(counts) - 0.4, -0.95)
    axes.set_xlim(0, 1)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    keys = [Patch(color=colour, label=name) for colour, name in zip(POLES, next(iter(counts.values())))]
    axes.legend(
        handles=keys, loc="upper left", bbox_to_anchor=(0, 1.02), ncols=3, frameon=False, labelcolor=INK, borderpad=0
    )
    return figure


def holdings(count_NL: Any, labels: Sequence[str], total_N: Sequence[int], *, width: float = WIDE) -> Any:
    """Which client holds what: bars of its number of texts, and below them the shares of each label in them."""
    left = 0.3 + max(text_width(name[:40]) for name in labels)
    height = 0.2 * len(labels) + 0.5
    figure, (top, below) = canvas(width, 1.2 + height, margins=(max(left, 0.8), 0.2, 0.5), rows=2)
    top.bar(range(len(total_N)), total_N, color=COLOURS[0], width=0.8)
    top.set_ylabel("texts", color=INK)
    share_LN = (count_NL / count_NL.sum(axis=1, keepdims=True).clip(1)).T
    below.imshow(share_LN, aspect="auto", cmap="Blues", vmin=0, vmax=share_LN.max(), interpolation="nearest")
    below.set_yticks(range(len(labels)), [name[:40] for name in labels], fontsize=8)
    below.set_xlabel("client; darker: a larger share of its texts", color=INK)
    top.get_gridspec().set_height_ratios([1.2, height])
    figure.subplots_adjust(hspace=0.15)
    top.set_xticks([])
    for axes in (top, below):
        axes.set_xlim(-0.5, len(total_N) - 0.5)
    return figure


def curves(panels: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]], unit: str, *, width: float = WIDE) -> Any:
    """A panel for each figure taken while training: {figure: {model: [(step, value), …]}}; unit: of the steps."""
    names = list(dict.fromkeys(model for lines in panels.values() for model in lines))
    height = 2.1
    figure, axes = canvas(
        width, height * len(panels), margins=(0.65, 0.3, 0.55), names=names, rows=len(panels), titled=True
    )
    figure.subplots_adjust(hspace=0.45)
    for panel, (name, lines) in zip(axes, panels.items()):
        for model, line in lines.items():
            k = names.index(model)
            panel.plot(*zip(*line), color=style(k)["color"], linewidth=1.6, zorder=2)
            panel.plot(
                *line[-1], linestyle="", markersize=6, markeredgecolor=PAPER, zorder=3, clip_on=False, **style(k)
            )
        values = sorted(value for line in lines.values() for _, value in line)
        low, high = (
            values[0],
            values[min(len(values) - 1, int(0.97 * len(values)))],
        )  # the first steps would flatten the rest
        pad = 0.06 * ((high - low) or 1)
        panel.set_ylim(low - pad, high + pad)
        panel.set_title(name, loc="left", fontsize=10, color=INK, pad=4)
        panel.locator_params(nbins=5)
        panel.locator_params(axis="x", integer=True)
        panel.grid(color=FAINT, linewidth=0.6)
    axes[-1].set_xlabel(unit, color=INK)
    return figure


def roc(curves: Mapping[str, tuple[Any, Any]], *, width: float = WIDE) -> Any:
    """True against false positive rate on logarithmic axes, {model: (fpr (P,), tpr (P,))}, and the line of guessing."""
    names = list(curves)
    least = min(min(rate[rate > 0]) for pair in curves.values() for rate in pair)
    least = min(least, 0.1) / 1.5
    figure, (axes,) = canvas(width, min(4.6, width), margins=(0.75, 0.3, 0.6), names=names)
    axes.plot([least, 1], [least, 1], color=INK, linewidth=1, zorder=1)
    for k, (fpr, tpr) in enumerate(curves.values()):
        axes.plot(
            fpr.clip(least), tpr.clip(least), color=style(k)["color"], linewidth=1.6, zorder=2, drawstyle="steps-post"
        )
        at = len(fpr) // 2
        axes.plot(
            fpr[at].clip(least),
            tpr[at].clip(least),
            linestyle="",
            markersize=7,
            markeredgecolor=PAPER,
            zorder=3,
            **style(k),
        )
    axes.set(xscale="log", yscale="log", xlim=(least, 1.1), ylim=(least, 1.1))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("")
    axes.grid(color=FAINT, linewidth=0.6)
    axes.set_xlabel("others accused falsely", color=INK)
    axes.set_ylabel("training texts found", color=INK)
    return figure


def epsilons(found: Mapping[str, tuple[float | None, float | None]], *, width: float = WIDE) -> Any:
    """A line a model: ε claimed (None: no claim) and the ε that an audit proves, {model: (claimed, audited)}."""
    labels, left = _at_left(found, width)
    figure, (axes,) = canvas(width, 0.5 * len(found) + 0.6, margins=(left, 0.35, 0.6), names=["claimed", "audited"])
    for i, pair in enumerate(found.values()):
        if None not in pair:
            axes.plot(pair, [i, i], color=FAINT, linewidth=2, zorder=1)
        for k, value in enumerate(pair):
            if value is not None:
                axes.plot(value, i, linestyle="", markersize=9, markeredgecolor=PAPER, zorder=3, **style(k))
    most = max(value for pair in found.values() for value in pair if value is not None)
    axes.set_xlim(-0.03 * max(most, 1), 1.08 * max(most, 1))
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.set_yticks(range(len(found)), labels)
    axes.grid(axis="x", color=FAINT, linewidth=0.6)
    axes.set_xlabel("ε (smaller is more private)", color=INK)
    return figure


def correlations(
    grid: Sequence[Sequence[float | None]], sure: Iterable[tuple[int, int]], labels: Sequence[str], title: str
) -> Any:
    """A matrix of correlations as coloured cells; bold: cells (row, column) in `sure`."""
    import numpy as np
    from matplotlib.figure import Figure

    size, bold = len(labels), set(sure)
    figure = Figure(figsize=(3.4 + 0.8 * size, 2.8 + 0.62 * size), layout="constrained")
    axes = figure.add_subplot()
    for row, values in enumerate(grid):
        for column, value in enumerate(values):
            if value is not None:
                axes.text(
                    column, row, f"{value:.2f}", ha="center", va="center", fontsize=9,
                    color="white" if abs(value) > 0.65 else INK, weight="bold" if (row, column) in bold else "normal",
                )  # fmt: skip
    image = axes.imshow(np.array(grid, float), cmap="PuOr", vmin=-1, vmax=1)
    axes.set_xticks(range(size), labels, rotation=40, ha="right", fontsize=9)
    axes.set_yticks(range(size), labels, fontsize=9)
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_title(title, fontsize=10, color=INK, loc="left")
    figure.colorbar(image, ax=axes, shrink=0.7, ticks=[-1, -0.5, 0, 0.5, 1])
    return figure
