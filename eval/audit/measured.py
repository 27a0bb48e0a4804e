"""A model's figures with the resamples they come from: read again from the rows that an evaluation kept."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.data import by_group
from eval.report.page import Study
from eval.run import extent, over_seeds
from eval.task import Metrics, Row, file_name, suggest
from eval.tasks import find_task


@dataclass(frozen=True)
class Measured:
    """One row of a results.json: `figures` and `parts`, the scored rows of each seed, by task label."""

    name: str
    folder: Path
    figures: Mapping[str, Metrics]
    parts: Mapping[str, list[list[Row]]]
    config: Mapping[str, Any]
    versions: Mapping[str, str]

    def rows(self, label: str) -> list[Row]:
        return [row for part in self.parts[label] for row in part]


def read(source: str, labels: Iterable[str] | None = None) -> Measured:
    """The model of FOLDER:NAME, or of a FOLDER with one model; `labels`: only these tasks, as far as they are there."""
    folder, name = split(source)
    study = Study.load(folder)
    known = {row["model"]: row for row in study.results["rows"]}
    name = name or (next(iter(known)) if len(known) == 1 else "")
    if name not in known:
        raise ValueError(f"{source}: {suggest(name, known, 'model')}; write {folder}:NAME")
    config = study.results.get("config", {})
    missing = [key for key in ("tasks", "seed", "seeds", "inputs") if key not in config]
    if missing:
        raise ValueError(f"{study.folder}: its results do not say {missing[0]}; evaluate the model once more")
    wanted = [label for label in known[name]["tasks"] if labels is None or label in set(labels)]
    parts = {label: _parts(study.folder, label, name) for label in wanted}
    figures = {label: figures_of(label, found, config) for label, found in parts.items()}
    return Measured(name, study.folder, figures, parts, config, study.results.get("versions", {}))


def split(source: str) -> tuple[Path, str]:
    """(folder, model's name or "") of FOLDER:NAME or FOLDER."""
    if Path(source).exists():
        return Path(source), ""
    folder, _, name = source.rpartition(":")
    return Path(folder or source), name if folder else ""


def is_run(source: str) -> bool:
    """Whether this names results rather than a model."""
    return (split(source)[0] / "results.json").is_file() or source.endswith("results.json")


def _parts(folder: Path, label: str, name: str) -> list[list[Row]]:
    """The rows that a task scored for this model, a list for each seed, without the marks of model and seed."""
    path = folder / f"rows-{file_name(label)}.jsonl"
    try:
        with path.open(encoding="utf-8") as file:
            rows = [row for line in file if (row := json.loads(line)).pop("model") == name]
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{path}: cannot be read ({error}); evaluate the model once more") from None
    if not rows:
        raise ValueError(f"{path}: has no rows of {name!r}; evaluate the model once more")
    return list(by_group([{"seed": None, **row} for row in rows], "seed").values())


def figures_of(label: str, parts: list[list[Row]], config: Mapping[str, Any]) -> Metrics:
    """What the task says of these rows, a list for each seed."""
    task = find_task(label.partition("@")[0])
    if task is None:
        raise ValueError(f"these results have a task {label!r} that this version does not know")
    version = config["inputs"].get(label, {}).get("version")
    if version != task.version:
        raise ValueError(f"{label}: measured with version {version} of the task, this is {task.version}; measure again")
    runs = [task.aggregate(rows, config["tasks"][label], config["seeds"][0]) for rows in parts]
    return runs[0] if len(runs) == 1 else over_seeds(runs)


def check_comparable(a: Measured, b: Measured, labels: Iterable[str]) -> None:
    """ValueError, one line, unless both models were measured on the same rows with the same options and seeds."""
    # results of older versions lack both, which is the default
    begin = [key for key in ("start_token", "chat") if (a.config.get(key) or None) != (b.config.get(key) or None)]
    for label in labels:
        one, two = (found.config["tasks"][label] for found in (a, b))
        what = next((f"{label}.{key}" for key in one if one[key] != two.get(key)), "")
        if begin:
            what = begin[0]
        elif a.config["inputs"][label] != b.config["inputs"][label]:
            what = f"{label}: data"
        elif a.config["seeds"] != b.config["seeds"]:
            what = "seeds"
        elif not what and [extent(rows) for rows in a.parts[label]] != [extent(rows) for rows in b.parts[label]]:
            what = f"{label}: rows (another tokenizer, or texts too long for one model)"
        if what:
            raise ValueError(
                f"{a.name} and {b.name} cannot be compared: not the same {what}; evaluate both with the same command"
            )
