"""Models × tasks → results.json: each model is loaded once and shared by its tasks."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from counterfactuals.files import write_whole
from counterfactuals.provenance import versions
from eval.scoring import Scorer, check_model, find_device
from eval.task import Row, Task, suggest
from eval.tasks import TASKS

_console = Console(stderr=True)
_OUTPUTS = ("results.json", "report.md", "rows-*.jsonl", "groups-*.png", "tradeoff.png")


def resolve(tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[Task, dict[str, Any]]]:
    """Check task names (`task` or `task@label`) and options, and fill in the defaults: {label: (task, options)}.

    An option takes the type of its default; numbers and booleans may come as text. All problems are reported at once.
    """
    resolved, problems = {}, []
    for label, given in tasks.items():
        name = label.partition("@")[0]
        if name not in TASKS:
            problems.append(suggest(name, TASKS, "task"))
            continue
        if any(character in label for character in "/\\\0") or label.endswith("@"):
            problems.append(f"task {label!r}: a label after @ must not be empty or hold a slash")
            continue
        options = dict(TASKS[name].options)
        for key, value in given.items():
            if key not in options:
                problems.append(f"{label}: {suggest(key, options, 'option')}")
                continue
            try:
                options[key] = _as(type(options[key]), value)
            except (ValueError, OverflowError, TypeError):
                problems.append(f"{label}.{key}={value!r}: must be {type(options[key]).__name__}")
        resolved[label] = (TASKS[name], options)
    if problems:
        raise ValueError("; ".join(problems))
    if not resolved:
        raise ValueError(f"no task named (there are: {', '.join(TASKS)})")
    return resolved


def _as(kind: type, value: Any) -> Any:
    if kind is bool:
        known = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if str(value).lower() not in known:
            raise ValueError(value)
        return known[str(value).lower()]
    if kind is int and (isinstance(value, bool) or float(value) != int(float(value))):
        raise ValueError(value)
    return kind(float(value)) if kind is int else kind(value)


def check(
    tasks: Mapping[str, Mapping[str, Any]], *, data_dir: str | Path | None, limit: int | None = None, seed: int = 0
) -> tuple[dict[str, tuple[Task, dict[str, Any]]], dict[str, list[Row]]]:
    """All that can be checked without a model: names, options, data. Returns what `resolve` does, and rows by label."""
    if limit is not None and limit < 1:
        raise ValueError(f"limit {limit}: must be at least 1")
    if seed < 0:
        raise ValueError(f"seed {seed}: must not be negative")
    resolved = resolve(tasks)
    if data_dir is None:
        raise ValueError("the tasks need data: name its folder with eval.data_dir (config) or --data_dir (eval)")
    inputs = {label: task.rows(Path(data_dir), options, limit, seed) for label, (task, options) in resolved.items()}
    return resolved, inputs


def write_json(path: Path, content: Any) -> None:
    """Write JSON so that the file is either the old one or the whole new one."""
    write_whole(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def evaluate(
    models: Mapping[str, str | Path | Scorer],
    tasks: Mapping[str, Mapping[str, Any]],
    *,
    data_dir: str | Path | None,
    output_dir: str | Path,
    seed: int = 0,
    batch_size: int = 64,
    device: str | torch.device | None = None,
    limit: int | None = None,
    trust_remote_code: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Run every task on every model; write and return {"rows": [{"model", "tasks"}, …], "versions", "config"}.

    `models`: label → local folder, Hub name or Scorer. `tasks`: name → options; "perplexity@skewed" runs perplexity
    under that name. `limit`: rows a task at most (prompts, documents, windows), for a quick look. Writes
    output_dir/results.json, anew after each model, and output_dir/rows-TASK.jsonl with the scores of each row. What an
    earlier evaluation left there goes; if a model fails, the files hold the models before it.
    All task names, options, data files, local models and the device are checked before a model is loaded.
    """
    if not models:
        raise ValueError("no model named")
    if batch_size < 1:
        raise ValueError(f"batch_size {batch_size}: must be at least 1")
    resolved, inputs = check(tasks, data_dir=data_dir, limit=limit, seed=seed)
    for model in models.values():
        if not isinstance(model, Scorer):
            check_model(model)
    device = find_device(device)
    output_dir = Path(output_dir)
    result: dict[str, Any] = {
        "rows": [],
        "versions": versions(),
        "config": {
            "models": {label: "loaded" if isinstance(model, Scorer) else str(model) for label, model in models.items()},
            "tasks": {label: options for label, (_, options) in resolved.items()},
            "data_dir": str(data_dir),
            "seed": seed,
            "batch_size": batch_size,
            "device": str(device),
            "limit": limit,
        },
    }
    output_dir.mkdir(parents=True, exist_ok=True)
    for pattern in _OUTPUTS:
        for stale in output_dir.glob(pattern):
            stale.unlink()
    row_files = {label: output_dir / f".rows-{label}.jsonl.{os.getpid()}" for label in resolved}
    finished: dict[str, int] = {}  # bytes of each row file that belong to models with every task done
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    try:
        with Progress(
            *columns, console=_console, disable=quiet or not _console.is_terminal, transient=True
        ) as progress:
            for model_label, model in models.items():
                scorer = (
                    model
                    if isinstance(model, Scorer)
                    else Scorer(model, device=device, batch_size=batch_size, trust_remote_code=trust_remote_code)
                )
                row: dict[str, Any] = {"model": model_label, "tasks": {}}
                for label, (task, options) in resolved.items():
                    bar = progress.add_task(f"{model_label} · {label}", total=None)
                    scorer.progress = lambda done, total, bar=bar: progress.update(bar, completed=done, total=total)
                    start = time.perf_counter()
                    scored = task.score(scorer, inputs[label], options, seed)
                    row["tasks"][label] = task.aggregate(scored, options, seed)
                    _append(row_files[label], model_label, scored)
                    progress.remove_task(bar)
                    if not quiet:
                        _console.print(
                            f"{model_label} · {label}: {_headline(task, row['tasks'][label])}, "
                            f"{time.perf_counter() - start:.1f} s",
                            markup=False,
                            soft_wrap=True,
                        )
                scorer.progress = None
                result["rows"].append(row)
                write_json(output_dir / "results.json", result)
                finished = {label: file.stat().st_size for label, file in row_files.items()}
                del scorer
    finally:
        for label, file in row_files.items():
            if label in finished:
                os.truncate(file, finished[label])
                os.replace(file, output_dir / f"rows-{label}.jsonl")
            else:
                file.unlink(missing_ok=True)
    return result


def _append(path: Path, model: str, rows: list[Row]) -> None:
    with path.open("a", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps({"model": model, **row}, ensure_ascii=False) + "\n")


def _headline(task: Task, metrics: Mapping[str, Mapping[str, Any]]) -> str:
    shown = [(name, metrics[name]["value"]) for name in task.headline if name in metrics]
    return ", ".join(f"{name} {'undefined' if value is None else format(value, '.4g')}" for name, value in shown)
