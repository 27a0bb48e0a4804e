"""What a benchmark is: a Task, a figure, and how its input files are found and read."""

from __future__ import annotations

import csv
import difflib
import gzip
import io
import itertools
import json
import math
import random
import sys
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from counterfactuals.files import write_whole
from eval.metrics import Interval, bootstrap
from eval.scoring import Scorer

Row = dict[str, Any]
Metrics = dict[str, "Figure"]


@dataclass(frozen=True)
class Hub:
    """A data set on the Hugging Face Hub, and how its records become the text of a data file."""

    dataset: str
    split: str
    text: Callable[[Iterable[Row]], str]  # records → what the file of the `--data_dir` layout holds
    config: str | None = None
    revision: str | None = None


@dataclass(frozen=True)
class Task:
    """One benchmark: rows(data_dir, options, limit, seed) → score(scorer, rows, options, seed) → aggregate(rows, …).

    `rows` reads the data, without a model; `score` returns rows with scores (kept in rows-TASK.jsonl); `aggregate`
    turns those, as JSON gives them back, into metrics and needs nothing else. What it resamples with its seed (through
    eval.metrics: bootstrap, resampled_sums) is drawn alike for every model, as long as their rows are in one order.
    """

    name: str
    rows: Callable[[Path, Mapping[str, Any], int | None, int], list[Row]]
    score: Callable[[Scorer, list[Row], Mapping[str, Any], int], list[Row]]
    aggregate: Callable[[list[Row], Mapping[str, Any], int], Metrics]
    options: Mapping[str, Any]
    meaning: str
    ideal: str
    data: str
    source: str
    headline: tuple[str, ...]
    not_measured: str = ""  # what a good score does not say
    licence: str = ""  # of the data
    version: int = 1  # raised when the same model would score otherwise
    hub: Mapping[str, Hub] = field(default_factory=dict)  # where --hub takes a file of --data_dir from
    sampled: bool = False  # scores depend on the seed: several seeds are worth a run each
    follows: str = ""  # a task whose scored rows, where it is run too, this one scores instead of its own


class MissingData(ValueError):
    """What a task needs is not there: a file of data, or an option without default. `--tasks all` passes it over."""


class MissingFile(MissingData):
    """A file of data is not there."""


SMALL = 30  # figures counted over fewer are marked
TABLES = (".jsonl", ".tsv", ".csv", ".jsonl.gz", ".tsv.gz", ".csv.gz")  # what read_table reads


class Figure(dict):
    """One metric as it stands in results.json; `interval` keeps the resamples, for differences between models."""

    interval: Interval


def figure(
    value: float,
    interval: tuple[float, float] | None = None,
    *,
    ideal: float | None,
    n: int,
    p: float | None = None,
    small: bool | None = None,
) -> Figure:
    """One metric for results.json. What is undefined or infinite becomes null; n is what the value was counted over.

    `distance` is |value − ideal|; `small` says that n is below 30, unless told (a count has nothing to be small about);
    `p`, where a task tests its value, comes last.
    """

    def finite(x: float) -> float | None:
        return float(x) if math.isfinite(x) else None

    low, high = interval or (math.nan, math.nan)
    out = Figure(value=finite(value), low=finite(low), high=finite(high), ideal=ideal)
    out["distance"] = None if ideal is None or out["value"] is None else abs(out["value"] - ideal)
    out |= {"n": int(n), "small": bool(n < SMALL) if small is None else small}
    if p is not None:
        out["p"] = finite(p)
    out.interval = interval if isinstance(interval, Interval) else Interval(low, high)
    return out


def average(values: Any, *, ideal: float | None, seed: int) -> Figure:
    """The mean of one value a row, with a bootstrap interval over rows."""
    values_N2 = np.stack([np.asarray(values, np.float64), np.ones(len(values))], axis=1)
    if not len(values_N2):
        return figure(np.nan, ideal=ideal, n=0)
    interval = bootstrap(values_N2, lambda s: s[:, 0] / s[:, 1], seed=seed)
    return figure(values_N2[:, 0].mean(), interval, ideal=ideal, n=len(values_N2))


def percentage(hits: Any, *, ideal: float | None, seed: int) -> Figure:
    """100 × the mean of `hits` (booleans, one a row), with a bootstrap interval over rows."""
    return average(100 * np.asarray(hits, np.float64), ideal=ideal, seed=seed)


def suggest(name: str, known: Iterable[str], what: str) -> str:
    """An error line for an unknown name: what exists, and the nearest of it."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"no {what} {name!r}{hint} (there are: {', '.join(known)})"


def find_data(data_dir: Path, file: str, what: str) -> Path:
    """The path of a data file: `file` itself if absolute, else under `data_dir`. Missing: says what it is."""
    path = Path(file) if Path(file).is_absolute() else data_dir / file
    if not path.is_file():
        raise MissingFile(
            f"{path} is missing: {what}. "
            "Name the folder that has it with --data_dir, or the file with --set TASK.file=PATH"
        )
    return path


def fetch(task: Task, data_dir: Path) -> None:
    """Write each data file of the task that `data_dir` lacks from its set on the Hugging Face Hub."""
    for file, source in task.hub.items():
        path = data_dir / file
        if path.exists():
            continue
        from datasets import load_dataset

        try:
            records = load_dataset(source.dataset, source.config, split=source.split, revision=source.revision)
            write_whole(path, source.text(records))
        except (OSError, ValueError, KeyError) as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise MissingData(
                f"{path} is missing, and the Hub's {source.dataset} could not be read: {reason}"
            ) from error
        print(f"{task.name}: {path} is from the Hub's {source.dataset} ({task.licence})", file=sys.stderr)


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, unpacked if its name ends in .gz."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error.reason})") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}: not a complete .gz file ({error})") from error


def read_jsonl(path: Path, needed: Sequence[str]) -> list[Row]:
    """The objects of a jsonl file, each of which must have the fields `needed`."""
    rows = []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} line {number}: not JSON ({error.msg})") from error
        lacking = [field for field in needed if not isinstance(row, dict) or field not in row]
        if lacking:
            raise ValueError(f"{path} line {number}: lacks the field {lacking[0]!r}")
        rows.append(row)
    if not rows:
        raise ValueError(f"{path}: no rows")
    return rows


def read_table(path: Path, needed: Sequence[str]) -> list[Row]:
    """The rows of a jsonl, tsv or csv file (.gz too), each with the fields `needed`. In a tsv quotes mean nothing."""
    name = path.name.removesuffix(".gz")
    if name.endswith(".jsonl"):
        return read_jsonl(path, needed)
    if not name.endswith((".tsv", ".csv")):
        raise ValueError(f"{path}: cannot read this kind of file; known: {', '.join(TABLES)}")
    style: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if name.endswith(".tsv") else {}
    try:
        table = csv.DictReader(io.StringIO(read_text(path), newline=""), **style)
        for field in needed:
            if field not in (table.fieldnames or ()):
                found = ", ".join(table.fieldnames or ()) or "nothing"
                raise ValueError(f"{path}: lacks the field {field!r} (its first line names {found})")
        rows = list(table)
    except csv.Error as error:
        raise ValueError(f"{path}: not a readable table ({error})") from error
    short = next((i for i, row in enumerate(rows, 2) if any(row[field] is None for field in needed)), None)
    if short is not None:
        raise ValueError(f"{path} line {short}: has fewer fields than the first line")
    if not rows:
        raise ValueError(f"{path}: no rows")
    return rows


def read_prompts(path: Path, *, per_group: int, limit: int | None, seed: int) -> list[Row]:
    """Rows {"group", "title", "prompt"} of a BOLD file {group: {title: [prompt, …]}}, blanks at the ends cut off.

    `per_group` > 0 keeps that many prompts of each group, drawn by `seed`; `limit` keeps that many in all, spread
    evenly over the groups.
    """
    if per_group < 0:
        raise ValueError(f"prompts_per_group {per_group}: must be 0 (all) or more")
    grouped: dict[str, list[tuple[str, str]]] = {}
    try:
        table = json.loads(read_text(path))
        if not isinstance(table, dict):
            raise TypeError("the whole is no object")
        for group, titles in table.items():
            if not isinstance(titles, dict):
                raise TypeError(f"{group!r} holds no object of titles")
            for title, prompts in titles.items():
                if not isinstance(prompts, list) or not all(isinstance(prompt, str) for prompt in prompts):
                    raise TypeError(f"{group!r}, {title!r} holds no list of texts")
            grouped[group] = [
                (title, prompt.strip()) for title, prompts in titles.items() for prompt in prompts if prompt.strip()
            ]
    except (json.JSONDecodeError, TypeError) as error:
        raise ValueError(f"{path}: not in BOLD's layout {{group: {{title: [prompt, …]}}}} ({error})") from error
    if not any(grouped.values()):
        raise ValueError(f"{path}: no prompts")
    quota = {group: min(len(found), per_group or len(found)) for group, found in grouped.items()}
    if limit is not None:
        while sum(quota.values()) > limit:
            largest = max(quota, key=lambda group: quota[group])
            quota[largest] -= 1
    rows = []
    for group, found in grouped.items():
        chosen = sorted(random.Random(f"{seed} {group}").sample(range(len(found)), quota[group]))
        rows += [{"group": group, "title": found[i][0], "prompt": found[i][1]} for i in chosen]
    return rows


def by_group(rows: Sequence[Row], key: str = "group") -> dict[str, list[Row]]:
    """Rows by the value of `key`, in order of first appearance."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row[key], []).append(row)
    return groups


def thinned(rows: Sequence[Any], limit: int | None) -> list[Any]:
    """At most `limit` rows, spread over all of them: one of each of so many equal parts, the same every time.

    Drawn, since every n-th of rows that alternate (she, he, she, he) would be one side only.
    """
    if limit is None or limit >= len(rows):
        return list(rows)
    ends = [i * len(rows) // max(1, limit) for i in range(limit + 1)]
    draw = random.Random(0)
    return [rows[draw.randrange(begin, end)] for begin, end in itertools.pairwise(ends)]


def sampling(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a task that say how texts are sampled, as Scorer.sample takes them."""
    return {name: options[name] for name in ("bos", "top_p", "temperature", "max_new_tokens")}


def check_sampling(options: Mapping[str, Any], task: str) -> None:
    """ValueError for a setting that no text can be sampled with."""
    if options["max_new_tokens"] < 1:
        raise ValueError(f"{task}.max_new_tokens {options['max_new_tokens']}: must be at least 1")
    if not 0 < options["top_p"] <= 1:
        raise ValueError(f"{task}.top_p {options['top_p']}: must be above 0 and at most 1")
    if not 0 < options["temperature"] < math.inf:
        raise ValueError(f"{task}.temperature {options['temperature']}: must be above 0 and finite")


def cluster_sums(clusters: Sequence[Any], values_NK: Any) -> np.ndarray:
    """Sums of rows that share a cluster: (N, K) → (C, K), clusters in order of first appearance."""
    number: dict[Any, int] = {}
    index = [number.setdefault(cluster, len(number)) for cluster in clusters]
    values_NK = np.asarray(values_NK, np.float64)
    out = np.zeros((len(number), *values_NK.shape[1:]))
    np.add.at(out, index, values_NK)
    return out
