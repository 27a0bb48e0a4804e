"""Models × tasks → results.json: each model is loaded once and shared by its tasks."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from eval.scoring import Scorer
from eval.task import Row, Task, suggest
from eval.tasks import TASKS

_console = Console(stderr=True)


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
            except ValueError:
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


def versions() -> dict[str, str]:
    """Versions of what a figure depends on."""
    try:
        own = version("evenhand")
    except PackageNotFoundError:
        own = "not installed"
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "evenhand": own,
    }


def write_json(path: Path, content: Any) -> None:
    """Write JSON so that the file is either the old one or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def evaluate(
    models: Mapping[str, str | Path | Scorer],
    tasks: Mapping[str, Mapping[str, Any]],
    *,
    data_dir: str | Path,
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
    output_dir/results.json, anew after each model, and output_dir/rows-TASK.jsonl with the scores of each row.
    All task names, options and data files are checked before a model is loaded.
    """
    if not models:
        raise ValueError("no model named")
    if limit is not None and limit < 1:
        raise ValueError(f"limit {limit}: must be at least 1")
    resolved = resolve(tasks)
    data_dir, output_dir = Path(data_dir), Path(output_dir)
    inputs = {label: task.rows(data_dir, options, limit, seed) for label, (task, options) in resolved.items()}
    result: dict[str, Any] = {
        "rows": [],
        "versions": versions(),
        "config": {
            "models": {label: "loaded" if isinstance(model, Scorer) else str(model) for label, model in models.items()},
            "tasks": {label: options for label, (_, options) in resolved.items()},
            "data_dir": str(data_dir),
            "seed": seed,
            "batch_size": batch_size,
            "device": str(device or ("cuda" if torch.cuda.is_available() else "cpu")),
            "limit": limit,
        },
    }
    output_dir.mkdir(parents=True, exist_ok=True)
    row_files = {label: output_dir / f".rows-{label}.jsonl.{os.getpid()}" for label in resolved}
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
                    if not quiet and _console.is_terminal:
                        _console.print(
                            f"{model_label} · {label}: {_headline(task, row['tasks'][label])}, "
                            f"{time.perf_counter() - start:.1f} s"
                        )
                scorer.progress = None
                result["rows"].append(row)
                write_json(output_dir / "results.json", result)
                del scorer
        for label, file in row_files.items():
            os.replace(file, output_dir / f"rows-{label}.jsonl")
    finally:
        for file in row_files.values():
            file.unlink(missing_ok=True)
    return result


def _append(path: Path, model: str, rows: list[Row]) -> None:
    with path.open("a", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps({"model": model, **row}, ensure_ascii=False) + "\n")


def _headline(task: Task, metrics: Mapping[str, Mapping[str, Any]]) -> str:
    shown = [(name, metrics[name]["value"]) for name in task.headline if name in metrics]
    return ", ".join(f"{name} {'undefined' if value is None else format(value, '.4g')}" for name, value in shown)
