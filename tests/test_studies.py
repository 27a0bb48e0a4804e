"""Figures in the tables of the documents are those of docs/studies/*.json."""

import json
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
NUMBER = r"(-?\d*\.?\d+)"
CELL = re.compile(rf"{NUMBER}(?: \[{NUMBER}, {NUMBER}\]| \({NUMBER}–{NUMBER}\))?")  # 0.5 [0.4, 0.6] or 0.5 (0.4–0.6)
Figure = tuple[float, float, float]  # a value and its range
Row = tuple[tuple[str, ...], dict[str, Figure]]  # where it stands in the study, and its figures


def tables(document: str) -> Iterator[tuple[list[str], list[list[str]]]]:
    """Each table of a document: its header's cells and its rows' cells."""
    text = (ROOT / document).read_text(encoding="utf-8")
    for block in re.findall(r"(?:^\|.*\|\n)+", text + "\n", flags=re.M):
        header, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines())
        yield header, rows


def figure(node: Any) -> Figure | None:
    """A value with its interval, or the mean of the seeds with the smallest and largest. None: no figure."""
    if isinstance(node, dict) and {"value", "low", "high"} <= node.keys():
        return node["value"], node["low"], node["high"]
    seeds = node.get("seeds") if isinstance(node, dict) else node
    if isinstance(seeds, list | tuple) and seeds and all(isinstance(number, int | float) for number in seeds):
        return mean(seeds), min(seeds), max(seeds)
    return None


def measured(node: Any, *path: str) -> Iterator[Row]:
    """Every row of figures in a study, with the names on the way to it. Lists of lists: seeds, each with periods."""
    if isinstance(node, list) and node and all(isinstance(seed, list) for seed in node):
        node = {str(period): seeds for period, seeds in enumerate(zip(*node, strict=True))}
    if isinstance(node, dict):
        if figures := {key: found for key, value in node.items() if (found := figure(value))}:
            yield path, figures
        for key, value in node.items():
            if figure(value) is None:
                yield from measured(value, *path, key)


def shows(cell: str, figure: Figure) -> bool:
    """Whether the cell is the figure, rounded to its own digits; studies keep four, so a half may go either way."""
    shown = [number for number in CELL.fullmatch(cell).groups() if number]
    within = (0.5 * 10 ** -len(number.partition(".")[2]) + 6e-5 for number in shown)
    return all(abs(float(a) - b) <= c for a, b, c in zip(shown, figure, within, strict=False))


def check(lines: list[tuple[list[str], list[str]]], rows: list[Row]) -> None:
    """Each line (its labels, its cells) is one row of the study, and each column the same figure in all lines."""
    known = {name for path, _ in rows for name in path}
    choices = []
    for labels, cells in lines:
        names = known.intersection(label for text in labels for label in (text, *re.findall("^`(.+?)`", text)))
        found = [row for path, row in rows if names <= set(path)]
        found = [row for row in found if all(any(shows(cell, one) for one in row.values()) for cell in cells)]
        assert found, f"the study has no row with these figures: {' | '.join(labels + cells)}"
        choices.append(found)
    columns = list(zip(*(cells for _, cells in lines), strict=True))
    for chosen in product(*choices):
        keys = set.intersection(*(set(row) for row in chosen))
        if all(any(all(map(shows, column, (row[key] for row in chosen))) for key in keys) for column in columns):
            return
    raise AssertionError("a column is not the same figure in all its lines")


# document, how its table's header begins, how many columns are labels, study
TABLES = [
    ("README.md", "SmolLM2", 1, "smollm2"),
    ("docs/smollm2.md", "figure | before", 1, "smollm2"),
    ("docs/smollm2.md", "measure | before", 1, "smollm2"),
    ("docs/smollm2.md", "row | next word", 1, "smollm2"),
    ("docs/privacy.md", "student | ε", 2, "private"),
    ("docs/federated.md", " | perplexity", 1, "federated"),
    ("docs/federated.md", " | fewest", 1, "federated"),
    ("docs/federated.md", " | attack", 2, "federated"),
]
NAMES = {  # in a table: in the study
    "before": "teacher",
    "after": "debias",
    "another seed": "debias_seed1",
    "a third seed": "debias_seed2",
    "against the teacher's loss": "reference",
}


def in_lines(header: list[str], body: list[list[str]], labels: int) -> list[tuple[list[str], list[str]]]:
    """A line a model: its labels and its cells, without aims."""
    cells = [i for i in range(labels, len(header)) if header[i] != "aim"]
    if header[0] in ("figure", "measure"):  # a column a model
        return [([NAMES.get(header[i], header[i])], [line[i] for line in body]) for i in cells]
    if header[:2] == ["student", "ε"]:
        body = [[line[0], line[0] if line[1] == "∞" else f"{line[0]}_{line[1]}", *line[2:]] for line in body]
        return [(line[1:2], [line[i] for i in cells]) for line in body]
    return [([NAMES.get(label, label) for label in line[:labels]], [line[i] for i in cells]) for line in body]


@pytest.mark.parametrize(("document", "beginning", "labels", "study"), TABLES)
def test_tables_show_the_figures_of_their_study(document, beginning, labels, study):
    rows = list(measured(json.loads((ROOT / f"docs/studies/{study}.json").read_text(encoding="utf-8"))))
    found = [(header, body) for header, body in tables(document) if " | ".join(header).startswith(beginning)]
    assert found, f"{document} has no table that begins with {beginning}"
    for header, body in found:
        check(in_lines(header, body, labels), rows)


def test_the_benchmark_of_clients_is_quoted_as_it_was_printed():
    measured = json.loads((ROOT / "docs/studies/federated.json").read_text(encoding="utf-8"))["benchmark"]
    quoted = re.search(r'^ *(\{"federated_min.*\})$', (ROOT / "docs/federated.md").read_text(encoding="utf-8"), re.M)
    assert quoted and json.loads(quoted[1]).items() <= measured.items()


@pytest.mark.parametrize(
    "wrong", ["0.39 (0.38–0.40)", "0.385 (0.370–0.390)", "0.385 (0.380–0.391)", "0.600 (0.500–0.700)"]
)
def test_a_wrong_figure_is_seen(wrong):
    rows = [(("rows", "plain"), {"auc": (0.385, 0.38, 0.39)}), (("rows", "even"), {"auc": (0.6, 0.5, 0.7)})]
    check([(["`plain`: as it is"], ["0.385 (0.380–0.390)"])], rows)
    with pytest.raises(AssertionError, match="no row"):
        check([(["`plain`: as it is"], [wrong])], rows)
