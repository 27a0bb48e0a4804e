"""Charts as plain HTML and SVG, without scripts: text keeps the page's size, colours follow its light or dark theme.

A model is told apart by colour and by shape (`MARKS`), so nothing hangs on colour alone. Positions are percentages of
the plotting area. The style stands in page.html.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

# One symbol a series, drawn around the origin in a 20 × 20 box.
MARKS = (
    '<circle r="6.4"/>',
    '<rect x="-5.8" y="-5.8" width="11.6" height="11.6"/>',
    '<path d="M0-8.2 8.2 0 0 8.2-8.2 0Z"/>',
    '<path d="M0-7.6 7.4 5.8-7.4 5.8Z"/>',
    '<path d="M0 7.6 7.4-5.8-7.4-5.8Z"/>',
    '<path d="M-2.6-7.4h5.2v4.8h4.8v5.2h-4.8v4.8h-5.2v-4.8h-4.8v-5.2h4.8Z"/>',
    '<path d="M-7-4.4-4.4-7 0-2.6 4.4-7 7-4.4 2.6 0 7 4.4 4.4 7 0 2.6-4.4 7-7 4.4-2.6 0Z"/>',
)
NUM_MARKS = len(MARKS)


class Point(NamedTuple):
    """A value with its interval (None: unknown) of one series."""

    series: int
    value: float
    low: float | None = None
    high: float | None = None


class Spot(NamedTuple):
    """A labelled place in a scatter. `hollow`: not measured here, only shown for comparison."""

    label: str
    x: float
    y: float
    series: int = 0
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    hollow: bool = False


def sprite() -> str:
    """The marks' definitions, once on a page."""
    symbols = "".join(
        f'<symbol id="m{i}" viewBox="-10 -10 20 20" overflow="visible">{mark}</symbol>' for i, mark in enumerate(MARKS)
    )
    return f'<svg width="0" height="0" class="sprite" aria-hidden="true">{symbols}</svg>'


def mark(series: int, style: str = "", *, hollow: bool = False) -> str:
    kind = f"mark s{series % NUM_MARKS}{' hollow' if hollow else ''}"
    shape = f'<use href="#m{series % NUM_MARKS}" x="-10" y="-10" width="20" height="20"/>'
    return f'<svg class="{kind}" style="{style}" viewBox="-10 -10 20 20" aria-hidden="true">{shape}</svg>'


def legend(names: Sequence[str]) -> str:
    items = "".join(f"<li>{mark(i)}{escape(name)}</li>" for i, name in enumerate(names))
    return f'<ul class="legend">{items}</ul>'


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from low to high, about so many."""
    if not high > low:
        return [low]
    raw = (high - low) / about
    step = min((m * 10 ** math.floor(math.log10(raw)) for m in (1, 2, 2.5, 5, 10)), key=lambda s: abs(s - raw))
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _at(value: float, low: float, high: float) -> str:
    return f"{100 * (min(max(value, low), high) - low) / ((high - low) or 1):.2f}%"


def _text(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 10_000 else f"{value:,.0f}"


def dots(
    groups: Mapping[str, Sequence[Point]],
    names: Sequence[str],
    *,
    span: tuple[float, float],
    reference: float | None = None,
    labels: Mapping[float, str] | None = None,
    describe: str = "",
) -> str:
    """One line for each group, one mark a series with its interval; a line where `reference` lies."""
    low, high = span
    shown = dict(labels) if labels else {tick: _text(tick) for tick in ticks(low, high)}
    line = "" if reference is None else f'<i class="ref" style="left:{_at(reference, low, high)}"></i>'
    rows = []
    for group, points in groups.items():
        inside = []
        said = []
        for k, point in enumerate(points):
            top = f"{100 * (k + 1) / (len(points) + 1):.1f}%"
            colour = f"s{point.series % NUM_MARKS}"
            if point.low is not None and point.high is not None:
                left, width = _at(point.low, low, high), 100 * max(0.0, (min(point.high, high) - max(point.low, low)))
                style = f"left:{left};width:{width / (high - low):.2f}%;top:{top}"
                inside.append(f'<i class="range {colour}" style="{style}"></i>')
            inside.append(mark(point.series, f"left:{_at(point.value, low, high)};top:{top}"))
            said.append(f"{names[point.series]} {_text(point.value)}")
        height = f"height:{max(1.6, 0.62 * (len(points) + 1)):.2f}rem"
        title = escape(f"{group}: {', '.join(said)}", quote=True)
        track = f'<div class="track" style="{height}" title="{title}">{line}{"".join(inside)}</div>'
        rows.append(f'<div class="name">{escape(group)}</div>{track}')
    axis = "".join(f'<span style="left:{_at(tick, low, high)}">{escape(text)}</span>' for tick, text in shown.items())
    kind = "axis ends" if labels else "axis"
    rows.append(f'<div class="name"></div><div class="{kind}">{axis}</div>')
    return f'<div class="dots" role="img" aria-label="{escape(describe, quote=True)}">{"".join(rows)}</div>'


def scatter(
    spots: Sequence[Spot],
    *,
    x_name: str,
    y_name: str,
    y_span: tuple[float, float] | None = None,
    y_reference: tuple[float, str] | None = None,
    describe: str = "",
) -> str:
    """Spots with crosses for their intervals and their labels beside them, moved apart where they would overlap."""
    xs = [x for spot in spots for x in (spot.x, *(spot.x_range or ()))]
    ys = [y for spot in spots for y in (spot.y, *(spot.y_range or ()))]
    pad = 0.08 * ((max(xs) - min(xs)) or abs(xs[0]) or 1)
    left, right = min(xs) - pad, max(xs) + pad
    bottom, top = y_span or (min(ys) - 0.08 * ((max(ys) - min(ys)) or 1), max(ys) + 0.08 * ((max(ys) - min(ys)) or 1))

    def x(value: float) -> float:
        return 100 * (value - left) / (right - left)

    def y(value: float) -> float:
        return 100 * (top - value) / (top - bottom)

    parts = []
    for tick in ticks(left, right, 4):
        parts.append(f'<i class="grid v" style="left:{x(tick):.2f}%"></i>')
        parts.append(f'<span class="xt" style="left:{x(tick):.2f}%">{_text(tick)}</span>')
    for tick in ticks(bottom, top):
        parts.append(f'<i class="grid h" style="top:{y(tick):.2f}%"></i>')
        parts.append(f'<span class="yt" style="top:{y(tick):.2f}%">{_text(tick)}</span>')
    if y_reference:
        value, name = y_reference
        parts.append(f'<i class="ref h" style="top:{y(value):.2f}%"><b>{escape(name)}</b></i>')
    for spot in spots:
        colour = f"s{spot.series % NUM_MARKS}"
        if spot.x_range:
            a, b = x(spot.x_range[0]), x(spot.x_range[1])
            style = f"left:{a:.2f}%;width:{b - a:.2f}%;top:{y(spot.y):.2f}%"
            parts.append(f'<i class="range {colour}" style="{style}"></i>')
        if spot.y_range:
            a, b = y(min(spot.y_range[1], top)), y(max(spot.y_range[0], bottom))
            style = f"left:{x(spot.x):.2f}%;top:{a:.2f}%;height:{b - a:.2f}%"
            parts.append(f'<i class="range up {colour}" style="{style}"></i>')
    # what labels keep clear of, in percent: left, right, middle and half of the height; first the intervals' lines
    taken = [(x(spot.x_range[0]), x(spot.x_range[1]), y(spot.y), 0.5) for spot in spots if spot.x_range]
    for spot in sorted(spots, key=lambda spot: (spot.hollow, y(spot.y))):
        px, py = x(spot.x), y(spot.y)
        flip = px + 2.2 * len(spot.label) > 94
        width = 2.2 * len(spot.label) + 3  # on a phone
        begin, end = (px - width - 2, px - 2) if flip else (px + 2, px + width + 2)
        base = py - 3.8 if spot.x_range else py  # off the line of its own interval
        middle = base
        for step in range(1, 24):  # the nearest free height
            if all(end < a or b < begin or abs(middle - m) > h + 2.5 for a, b, m, h in taken) and 1 < middle < 99:
                break
            middle = base + 2.4 * (step // 2 + 1) * (1 if step % 2 else -1)
        taken.append((begin, end, middle, 2.5))
        side = "right:" + f"{100 - px + 2:.2f}%" if flip else "left:" + f"{px + 2:.2f}%"
        parts.append(mark(spot.series, f"left:{px:.2f}%;top:{py:.2f}%", hollow=spot.hollow))
        kind = "label hollow" if spot.hollow else "label"
        parts.append(f'<span class="{kind}" style="{side};top:{middle:.2f}%">{escape(spot.label)}</span>')
    plot = f'<div class="plot" role="img" aria-label="{escape(describe, quote=True)}">{"".join(parts)}</div>'
    return f'<div class="yname">{escape(y_name)}</div>{plot}<div class="xname">{escape(x_name)}</div>'


def shares(models: Mapping[str, Sequence[tuple[str, int]]]) -> str:
    """One bar a model, cut into named parts of its total; the parts' names stand once, above."""
    names = [name for name, _ in next(iter(models.values()))]
    keys = "".join(f'<li><i class="key p{i}"></i>{escape(name)}</li>' for i, name in enumerate(names))
    rows = []
    for model, parts in models.items():
        total = sum(count for _, count in parts) or 1
        bars = "".join(
            f'<i class="p{i}" style="width:{100 * count / total:.2f}%" title="{escape(name, quote=True)} {count:,}">'
            f"<b>{f'{100 * count / total:.0f} %' if count / total >= 0.08 else ''}</b></i>"
            for i, (name, count) in enumerate(parts)
        )
        rows.append(f'<div class="name">{escape(model)}</div><div class="stack">{bars}</div>')
    return f'<ul class="legend">{keys}</ul><div class="dots">{"".join(rows)}</div>'


def curves(series: Mapping[str, Sequence[tuple[float, float]]], *, x_name: str, y_name: str, describe: str = "") -> str:
    """A line a series; every curve has a mark at its end, as in the legend."""
    xs = [x for line in series.values() for x, _ in line]
    ys = sorted(y for line in series.values() for _, y in line)
    bottom = ys[0]
    top = ys[min(len(ys) - 1, int(0.97 * len(ys)))]  # the first steps would flatten the rest
    bottom, top = bottom - 0.05 * ((top - bottom) or 1), top + 0.05 * ((top - bottom) or 1)
    right = max(xs) or 1

    def point(x: float, y: float) -> tuple[float, float]:
        return 100 * x / right, 100 * (top - min(y, top)) / (top - bottom)

    lines, marks = [], []
    for k, line in enumerate(series.values()):
        path = " ".join(f"{a:.2f},{b:.2f}" for a, b in (point(x, y) for x, y in line))
        lines.append(f'<polyline class="s{k % NUM_MARKS}" points="{path}"/>')
        a, b = point(*line[-1])
        marks.append(mark(k, f"left:{a:.2f}%;top:{b:.2f}%"))
    grid = []
    for tick in ticks(0, right, 4):
        grid.append(f'<span class="xt" style="left:{100 * tick / right:.2f}%">{_text(tick)}</span>')
    for tick in ticks(bottom, top):
        height = f"top:{100 * (top - tick) / (top - bottom):.2f}%"
        grid.append(f'<i class="grid h" style="{height}"></i><span class="yt" style="{height}">{_text(tick)}</span>')
    drawn = f'<svg viewBox="0 0 100 100" preserveAspectRatio="none" aria-hidden="true">{"".join(lines)}</svg>'
    inside = "".join(grid) + drawn + "".join(marks)
    plot = f'<div class="plot lines" role="img" aria-label="{escape(describe, quote=True)}">{inside}</div>'
    return f'<div class="yname">{escape(y_name)}</div>{plot}<div class="xname">{escape(x_name)}</div>'
