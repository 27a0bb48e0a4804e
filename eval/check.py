"""What can be checked before a model is loaded: task names, options, data. Every mistake is found here first."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eval.data import fetch
from eval.task import MissingData, MissingFile, Row, Task, suggest
from eval.tasks import TASKS, find_task

Resolved = dict[str, tuple[Task, dict[str, Any]]]  # label → task and its options


def resolve(tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[Task, dict[str, Any]]]:
    """Check task names (`task` or `task@label`) and options, and fill in the defaults: {label: (task, options)}.

    An option takes the type of its default; numbers and booleans may come as text. Every task also has `limit`, at most
    so many rows, which is listed only where it is given. All problems are reported at once.
    """
    resolved, problems = {}, []
    for label, given in tasks.items():
        name = label.partition("@")[0]
        task = find_task(name)
        if task is None:
            problems.append(suggest(name, [*TASKS, "lm_eval:NAME"], "task"))
            continue
        if any(part in label for part in "/\\\0") or label.endswith("@") or ":" in label.partition("@")[2]:
            problems.append(f"task {label!r}: a label after @ must not be empty or hold a slash or colon")
            continue
        options = dict(task.options)
        for key, value in given.items():
            if key == "limit":
                if not str(value).isdigit() or int(value) < 1:
                    problems.append(f"{label}.limit={value!r}: must be a whole number above 0")
                    continue
                options[key] = 0
            if key not in options:
                problems.append(f"{label}: {suggest(key, options, 'option')}")
                continue
            try:
                options[key] = _as(type(options[key]), value)
            except (ValueError, OverflowError, TypeError):
                problems.append(f"{label}.{key}={value!r}: must be {type(options[key]).__name__}")
        resolved[label] = (task, options)
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
    if kind is str and isinstance(value, bool):
        return str(value).lower()
    return kind(float(value)) if kind is int else kind(value)


def check(
    tasks: Mapping[str, Mapping[str, Any]],
    *,
    data_dir: str | Path,
    limit: int | None = None,
    seed: int = 0,
    hub: bool = False,
    skipped: dict[str, str] | None = None,
) -> tuple[dict[str, tuple[Task, dict[str, Any]]], dict[str, list[Row]]]:
    """All that can be checked without a model: names, options, data. Returns what `resolve` does, and rows by label.

    hub: first take data files that data_dir lacks from the Hub. skipped: a dict that is filled with {label: reason} of
    tasks whose data is missing; without it, missing data is an error. A task that follows another task of the run
    gets the other task's values for the options that both have.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit {limit}: must be at least 1")
    if seed < 0:
        raise ValueError(f"seed {seed}: must not be negative")
    resolved = resolve(tasks)
    inputs = {}
    # A task that follows another one runs after it.
    resolved = dict(sorted(resolved.items(), key=lambda item: leader(item[0], resolved) is not None))
    for label, (task, options) in list(resolved.items()):
        followed = leader(label, resolved)
        if followed:
            options |= {key: value for key, value in resolved[followed][1].items() if key in options}
        try:
            if hub:
                fetch(task, Path(data_dir))
            inputs[label] = task.rows(Path(data_dir), options, options.get("limit", limit), seed)
        except MissingData as error:
            reason = str(error)
            if isinstance(error, MissingFile):
                reason += f". Source: {task.source}; licence: {task.licence}"
                names = ", ".join(dict.fromkeys(source.dataset for source in task.hub.values()))
                reason += f"; --hub takes it from the Hub ({names})" if names else ""
            if skipped is None:
                raise MissingData(reason) from error
            skipped[label] = reason
            del resolved[label]
    if not resolved:
        raise ValueError(f"{data_dir}: has the data of none of these tasks: {', '.join(tasks)}")
    return resolved, inputs


def leader(label: str, resolved: Mapping[str, tuple[Task, Any]]) -> str | None:
    """The label of the task whose scored rows this task uses: with the same @label if there is one, else the first."""
    followed = resolved[label][0].follows
    found = [other for other, (task, _) in resolved.items() if task.name == followed]
    same = [other for other in found if other.partition("@")[2] == label.partition("@")[2]]
    return next(iter(same or found), None)
