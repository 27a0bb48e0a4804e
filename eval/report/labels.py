"""Where the labels of a scatter plot go, so that they cover neither each other nor a point nor a line."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

BESIDE = 8  # typographic points from a spot to a label beside it


def label(
    axes: Any,
    names: Sequence[str],
    points: Sequence[tuple[float, float]],
    *,
    faint: Collection[int],
    ink: str,
    grey: str,
) -> None:
    """Put each name in a free place near its point; a thin line leads to those that are not beside theirs.

    `faint`: the indices of names in `grey`.
    """
    dot = axes.figure.dpi / 72  # pixels of a typographic point, in which places are given
    spots_N2 = axes.transData.transform(points) / dot
    texts = [
        axes.annotate(name, point, (0, 0), textcoords="offset points", fontsize=9, zorder=5)
        for name, point in zip(names, points)
    ]
    sizes_N2 = np.array([text.get_window_extent().size for text in texts]) / dot
    drawn = [axes.transData.transform(line.get_xydata()) / dot for line in axes.lines]
    ends = [np.sort(np.stack([path[:-1], path[1:]]), 0) for path in drawn]
    lines_M4 = np.concatenate([_box(low - 1, high + 1) for low, high in ends])
    boxes_N4 = label_boxes(spots_N2, sizes_N2, lines_M4, axes.bbox.extents / dot)
    leader = {"arrowstyle": "-", "color": grey, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 0}
    for i, end in enumerate(_nearest(boxes_N4, spots_N2) - spots_N2):
        texts[i].set(position=boxes_N4[i, :2] - spots_N2[i], color=grey if i in faint else ink)
        if np.hypot(*end) > 2 * BESIDE:
            axes.annotate("", points[i], end, textcoords="offset points", arrowprops=leader, zorder=3)


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
        cost_C += 5000 * ((box_C4[:, :2] < inside_4[:2]) | (box_C4[:, 2:] > inside_4[2:])).any(1)
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
