"""Reading the tasks' data: finding files, fetching them from the Hub, tables, prompts, smaller selections."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import itertools
import json
import random
import sys
import zlib
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from counterfactuals.files import one_line, write_whole
from counterfactuals.sample import FILES as SAMPLE_FILES
from eval.task import MissingData, MissingFile, Row, Task

BOLD = TypeAdapter(dict[str, dict[str, list[str]]])  # group, title, prompts
TABLES = (".jsonl", ".tsv", ".csv", ".jsonl.gz", ".tsv.gz", ".csv.gz")  # what read_table reads


def find_data(data_dir: Path, file: str, what: str) -> Path:
    """The path of a data file: `file` itself if absolute, "builtin/…" of the package, else under `data_dir`.

    Missing: says what it is, and how to get it.
    """
    own = file.startswith("builtin/")
    path = Path(__file__).with_name("prompts") / file[len("builtin/") :] if own else data_dir / file  # absolute wins
    if not path.is_file():
        made = ", `evenhand sample --output_dir DIR` writes a small one" if file in SAMPLE_FILES else ""
        raise MissingFile(
            f"{path} is missing: {what}{made}. "
            "Name the folder that has it with --data_dir (eval.data_dir), or the file with --set TASK.file=PATH"
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
            reason = one_line(error)
            raise MissingData(
                f"{path} is missing, and the Hub's {source.dataset} could not be read: {reason}"
            ) from error
        print(f"{task.name}: {path} is from the Hub's {source.dataset} ({task.licence})", file=sys.stderr)


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, unpacked if its name ends in .gz or .bz2."""
    unpack: Any = {".gz": gzip.open, ".bz2": bz2.open}.get(path.suffix, open)
    try:
        with unpack(path, "rt", encoding="utf-8") as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error.reason})") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}: not a complete {path.suffix} file ({error})") from error


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
    """Rows {"group", "title", "prompt"} of a BOLD file {group: {title: [prompt, …]}}, without spaces at the ends.

    `per_group` > 0 keeps that many prompts of each group, drawn by `seed`; `limit` keeps that many in all, spread
    evenly over the groups.
    """
    if per_group < 0:
        raise ValueError(f"prompts_per_group {per_group}: must be 0 (all) or more")
    try:
        table = by_frame(path) if path.suffix == ".yaml" else BOLD.validate_json(read_text(path))
    except ValidationError as error:
        raise ValueError(
            f"{path}: not in BOLD's layout {{group: {{title: [prompt, …]}}}} ({what_differs(error)})"
        ) from None
    grouped = {
        group: [(title, prompt.strip()) for title, prompts in titles.items() for prompt in prompts if prompt.strip()]
        for group, titles in table.items()
    }
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


def what_differs(error: ValidationError) -> str:
    """Which fields are not what their type says, and how, in one line."""
    return "; ".join(f"{'.'.join(map(str, one['loc'])) or 'the whole'}: {one['msg']}" for one in error.errors()[:5])


def read_frames(path: Path) -> Row:
    """{"frames": [text with one {}], "fill": {group: [word]}, …} of a YAML file: prompts by frame, group and word."""
    try:
        table = yaml.safe_load(read_text(path))
        words = [list(map(str.strip, own)) for own in table["fill"].values()]
        if not all("{}" in frame for frame in table["frames"]) or not all(words):
            raise ValueError("a frame without {}, or a group without words")
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError) as error:
        reason = one_line(error)
        raise ValueError(
            f"{path}: not in the layout {{frames: [text with {{}}], fill: {{group: [word]}}}} ({reason})"
        ) from None
    return table


def by_frame(path: Path) -> dict[str, dict[str, list[str]]]:
    """The frames of a YAML file in BOLD's layout: {group: {word: [prompt, …]}}."""
    table = read_frames(path)
    return {
        group: {word: [frame.replace("{}", word) for frame in table["frames"]] for word in words}
        for group, words in table["fill"].items()
    }


def by_group(rows: Iterable[Row], *keys: str) -> dict[Any, list[Row]]:
    """Rows by their value of a key ("group" if none is named), or by those of several, in order of first appearance."""
    value_of = itemgetter(*keys or ("group",))
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(value_of(row), []).append(row)
    return groups


def thinned(rows: Sequence[Any], limit: int | None) -> list[Any]:
    """At most `limit` rows, one drawn from each of so many equal parts, the same ones every time.

    They are drawn because every n-th of rows that alternate (she, he, she, he) would be of one side only.
    """
    if limit is None or limit >= len(rows):
        return list(rows)
    ends = [i * len(rows) // max(1, limit) for i in range(limit + 1)]
    draw = random.Random(0)
    return [rows[draw.randrange(begin, end)] for begin, end in itertools.pairwise(ends)]


def hub_jsonl(records: Iterable[Row], fields: Sequence[str]) -> str:
    """A line for each record, with these fields."""
    return "".join(json.dumps({key: row[key] for key in fields}, ensure_ascii=False) + "\n" for row in records)


def hub_csv(
    records: Iterable[Row], columns: Sequence[str], *, labels: Mapping[str, Sequence[str]] | None = None
) -> str:
    """The csv file of records from the Hub; `labels`: the class names of columns that hold class numbers."""
    out = io.StringIO(newline="")
    table = csv.DictWriter(out, columns, extrasaction="ignore", lineterminator="\n")
    table.writeheader()
    for record in records:
        named = {key: names[record[key]] for key, names in (labels or {}).items() if isinstance(record[key], int)}
        table.writerow({**record, **named})
    return out.getvalue()


def chosen(value: str, known: Sequence[str], setting: str) -> list[str]:
    """The parts of "a,b", or all that are known for "all". ValueError for others."""
    parts = list(known) if value == "all" else [part.strip() for part in value.split(",") if part.strip()]
    for part in parts:
        if part not in known:
            raise ValueError(f"{setting} {part!r}: must be all, or some of {', '.join(known)}")
    if not parts:
        raise ValueError(f"{setting}: names nothing; give all, or some of {', '.join(known)}")
    return parts
