"""What all pictures share: colours and marks, a canvas with a legend, saving as a file or as SVG inside the page.

A model is told apart by colour and by mark, so that nothing depends on colour alone. Colours: Okabe & Ito (2008).
"""

from __future__ import annotations

import io
import math
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

Result = Mapping[str, Any]
# Dark to light so that neighbours differ in grey too; black stays for reference lines.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a7f00")
MARKS = ("o", "s", "D", "^", "v", "P", "X")
INK, GREY, FAINT, BAND, PAPER = "#222222", "#666666", "#d9d9d9", "#f6f6f6", "#ffffff"
POLES = ("#2f6fb0", "#d9d6ce", "#c6622a")  # male, neutral, female
WIDE, NARROW = 8.5, 4.1  # inches
FEW = 5  # what was counted over fewer is drawn hollow
# In the page colours are the theme's, which has a light and a dark form.
_THEME = {
    **{colour: f"--c{i}" for i, colour in enumerate(COLOURS)},
    **{colour: f"--p{i}" for i, colour in enumerate(POLES)},
    INK: "--ink", GREY: "--soft", FAINT: "--line", BAND: "--faint", PAPER: "--card",
}  # fmt: skip
_FONT: Any = {"font.family": "DejaVu Sans", "svg.fonttype": "none", "font.size": 10}


def picture(draw: Callable[[float], Any], describe: str) -> str:
    """The HTML of a chart, drawn once for wide and once for narrow screens; the page's style shows one of them."""
    return "".join(
        f'<div class="{kind}">{svg(draw(width), f"{describe}, {kind}")}</div>'
        for kind, width in (("wide", WIDE), ("narrow", NARROW))
    )


def svg(figure: Any, describe: str) -> str:
    """The figure as an SVG element without scripts, links or fonts of its own, in the colours of the page's theme."""
    import matplotlib

    out = io.StringIO()
    with matplotlib.rc_context({**_FONT, "svg.hashsalt": describe}):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    used = set(re.findall(r"#([\w-]+)", text))
    text = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", text)  # once on a page
    text = re.sub(
        r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', rf'<svg role="img" aria-label="{escape(describe)}" viewBox="\1">', text
    )
    text = re.sub(r"(font: [^;\"]*?px) [^;\"]*", r"\1 system-ui, sans-serif", text)
    text = text.replace("xlink:href", "href")
    return re.sub(r"#[0-9a-f]{6}\b", lambda found: f"var({_THEME[found[0]]})" if found[0] in _THEME else found[0], text)


def save(figure: Any, path: str | Path) -> Path:
    """Write the figure as PNG, SVG or PDF, by the name of the file."""
    import matplotlib

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(_FONT):
        figure.savefig(path, dpi=160, facecolor="white")
    return path


def canvas(
    width: float,
    height: float,
    *,
    margins: tuple[float, float, float],
    names: Sequence[str] = (),
    title: str = "",
    subtitle: str = "",
    rows: int = 1,
    titled: bool = False,
) -> tuple[Any, list[Any]]:
    """A figure with `rows` axes, one below the other, and a legend of the models on top.

    width, height: of the axes' part, in inches; what stands above it adds to the height. margins: left, right, below.
    titled: the axes have titles of their own.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    lines = math.ceil(len(names) / _legend_columns(width, names)) if names else 0
    head = 0.12 + 0.34 * bool(title) + 0.28 * bool(subtitle) + 0.25 * lines + 0.22 * titled
    whole = height + head
    figure = Figure(figsize=(width, whole))
    left, right, below = margins
    figure.subplots_adjust(left / width, below / whole, 1 - right / width, 1 - head / whole)
    y = 1 - 0.1 / whole
    for text, size, weight, colour, used in ((title, 14, "bold", INK, 0.34), (subtitle, 10, "normal", GREY, 0.28)):
        if text:
            figure.text(0.12 / width, y, text, fontsize=size, weight=weight, color=colour, va="top")
            y -= used / whole
    if names:
        handles = [Line2D([], [], linestyle="", markersize=7, **style(k), label=name) for k, name in enumerate(names)]
        figure.legend(
            handles=handles, loc="upper left", bbox_to_anchor=(0.02 / width, y + 0.05 / whole), frameon=False,
            ncols=_legend_columns(width, names), fontsize=10, labelcolor=INK, handletextpad=0.1, columnspacing=1.3,
            borderpad=0, labelspacing=0.55,
        )  # fmt: skip
    axes = list(figure.subplots(rows, 1, squeeze=False)[:, 0])
    for each in axes:
        for side in ("top", "right", "left"):
            each.spines[side].set_visible(False)
        each.spines["bottom"].set_color(FAINT)
        each.tick_params(length=0, colors=INK, labelsize=10)
        each.set_axisbelow(True)
        each.patch.set_visible(False)
    return figure, axes


def style(series: int) -> dict[str, Any]:
    """Colour and mark of a series."""
    return {"color": COLOURS[series % len(COLOURS)], "marker": MARKS[series % len(MARKS)]}


def _legend_columns(width: float, names: Sequence[str]) -> int:
    return max(1, int((width - 0.3) / (0.42 + 0.085 * max(map(len, names)))))


def wrapped(name: str, most: int) -> str:
    return "\n".join(textwrap.wrap(name.replace("_", " "), most)) or name


def text_width(text: str) -> float:
    """Inches of a line in 10 points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    return text_to_path.get_text_width_height_descent(text or " ", FontProperties(size=10), False)[0] / 72
