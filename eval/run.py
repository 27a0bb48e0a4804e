"""Models × tasks → results.json: each model is loaded once and shared by its tasks."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from counterfactuals.files import write_whole
from counterfactuals.provenance import versions
from eval.cache import Cache, digest, stamps
from eval.metrics import Interval, interval, paired_difference
from eval.scoring import Scorer, check_model, find_device, fingerprint_folder
from eval.task import Metrics, MissingData, MissingFile, Row, Task, fetch, figure, suggest
from eval.tasks import TASKS, find_task

_console = Console(stderr=True)
_OUTPUTS = (
    "results.json",
    "report.md",
    "report.html",
    "rows-*.jsonl",
    ".rows-*.jsonl.*",
    "groups-*.png",
    "tradeoff.png",
)


def resolve(tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[Task, dict[str, Any]]]:
    """Check task names (`task` or `task@label`) and options, and fill in the defaults: {label: (task, options)}.

    An option takes the type of its default; numbers and booleans may come as text. All problems are reported at once.
    """
    resolved, problems = {}, []
    for label, given in tasks.items():
        name = label.partition("@")[0]
        task = find_task(name)
        if task is None:
            problems.append(suggest(name, [*TASKS, "lm_eval:NAME"], "task"))
            continue
        if any(character in label for character in "/\\\0") or label.endswith("@"):
            problems.append(f"task {label!r}: a label after @ must not be empty or hold a slash")
            continue
        options = dict(task.options)
        for key, value in given.items():
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
    return kind(float(value)) if kind is int else kind(value)


def check(
    tasks: Mapping[str, Mapping[str, Any]],
    *,
    data_dir: str | Path | None,
    limit: int | None = None,
    seed: int = 0,
    hub: bool = False,
    skipped: dict[str, str] | None = None,
) -> tuple[dict[str, tuple[Task, dict[str, Any]]], dict[str, list[Row]]]:
    """All that can be checked without a model: names, options, data. Returns what `resolve` does, and rows by label.

    `hub`: data files that data_dir lacks are taken from the Hub first. `skipped`, a dict to be filled with {label:
    reason}: tasks whose data is not there are left out, not refused. A task that follows another one of the run has no
    rows of its own, and that one's values of the options they share.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit {limit}: must be at least 1")
    if seed < 0:
        raise ValueError(f"seed {seed}: must not be negative")
    resolved = resolve(tasks)
    if data_dir is None:
        raise ValueError("the tasks need data: name its folder with eval.data_dir (config) or --data_dir (eval)")
    inputs = {}
    # Whoever follows comes after.
    resolved = dict(sorted(resolved.items(), key=lambda item: leader(item[0], resolved) is not None))
    for label, (task, options) in list(resolved.items()):
        followed = leader(label, resolved)
        if followed:
            options |= {key: value for key, value in resolved[followed][1].items() if key in options}
        try:
            if hub:
                fetch(task, Path(data_dir))
            rows = task.rows(Path(data_dir), options, limit, seed)
            inputs[label] = [] if followed else rows
        except MissingData as error:
            reason = str(error)
            if isinstance(error, MissingFile):
                reason += f". From {task.source}; licence: {task.licence}"
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
    """The label whose scored rows this one scores: the task it follows, under the same @label or the first one run."""
    followed = resolved[label][0].follows
    found = [other for other, (task, _) in resolved.items() if task.name == followed]
    same = [other for other in found if other.partition("@")[2] == label.partition("@")[2]]
    return next(iter(same or found), None)


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
    seeds: Sequence[int] = (),
    reference: str | None = None,
    batch_size: int = 64,
    device: str | torch.device | None = None,
    limit: int | None = None,
    hub: bool = False,
    skip_missing: bool = False,
    cache_dir: str | Path | None = None,
    trust_remote_code: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Run every task on every model; write and return {"rows": [{"model", "tasks"}, …], "differences", "versions", …}.

    `models`: label → local folder, Hub name or Scorer. `tasks`: name → options; "perplexity@skewed" runs perplexity
    under that name. `limit`: rows a task at most (prompts, documents, windows), for a quick look. `seeds`: tasks that
    sample are run once for each; their figures are means, with `spread` and the values by seed. `hub` takes missing
    data from the Hub; `skip_missing` leaves tasks out whose data is missing or that a model cannot do, and names them,
    with the reason, under "skipped".
    "differences" holds every other model's figures minus those of `reference` (a label; default: the first model), over
    resamples that are the same draws of both.

    Writes output_dir/results.json, anew after each model, and output_dir/rows-TASK.jsonl with the scores of each row.
    What an earlier evaluation left there goes; if a model fails, the files hold the models before it. Scored rows are
    kept in `cache_dir` (output_dir/.cache, cleared of what the run did not use): a run that was killed, started again,
    scores only what is not there.
    All task names, options, data files, local models and the device are checked before a model is loaded.
    """
    if not models:
        raise ValueError("no model named")
    reference = next(iter(models)) if reference is None else reference
    if reference not in models:
        raise ValueError(f"reference: {suggest(reference, models, 'model')}")
    if batch_size < 1:
        raise ValueError(f"batch_size {batch_size}: must be at least 1")
    seeds = list(seeds) or [seed]
    if len(set(seeds)) < len(seeds) or min(seeds) < 0:
        what = "seeds" if len(seeds) > 1 else "seed"
        raise ValueError(f"{what} {', '.join(map(str, seeds))}: must differ and not be negative")
    skipped: dict[str, str] = {}
    resolved, inputs = check(
        tasks, data_dir=data_dir, limit=limit, seed=seeds[0], hub=hub, skipped=skipped if skip_missing else None
    )
    for model in models.values():
        if not isinstance(model, Scorer):
            check_model(model)
    device = find_device(device)
    output_dir = Path(output_dir)
    result: dict[str, Any] = {
        "rows": [],
        "differences": [],
        "versions": versions(),
        "config": {
            "models": {label: "loaded" if isinstance(model, Scorer) else str(model) for label, model in models.items()},
            "tasks": {label: options for label, (_, options) in resolved.items()},
            "reference": reference,
            "data_dir": str(data_dir),
            "seed": seeds[0],
            "seeds": seeds,
            "batch_size": batch_size,
            "device": str(device),
            "limit": limit,
        },
    }
    if skipped:
        result["skipped"] = skipped
    output_dir.mkdir(parents=True, exist_ok=True)
    for pattern in _OUTPUTS:
        for stale in output_dir.glob(pattern):
            stale.unlink()
    cache = Cache(output_dir / ".cache" if cache_dir is None else Path(cache_dir))
    row_files = {label: output_dir / f".rows-{file_name(label)}.jsonl.{os.getpid()}" for label in resolved}
    extents: dict[str, dict[str, list[Any]]] = {}  # by model and task: what rows there are
    finished: dict[str, int] = {}  # bytes of each row file that belong to models with every task done
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    try:
        with Progress(
            *columns, console=_console, disable=quiet or not _console.is_terminal, transient=True
        ) as progress:
            for model_label, model in models.items():
                loaded = _Loaded(model, device=device, batch_size=batch_size, trust_remote_code=trust_remote_code)
                row: dict[str, Any] = {"model": model_label, "tasks": {}}
                extents[model_label] = {}
                scored: dict[tuple[str, int], list[Row]] = {}  # of tasks that others follow
                for label, (task, _) in resolved.items():
                    bar = progress.add_task(f"{model_label} · {label}", total=None)
                    loaded.progress = lambda done, total, bar=bar: progress.update(bar, completed=done, total=total)
                    start, ran = time.perf_counter(), loaded.num_scored
                    try:
                        row["tasks"][label], parts = _run(loaded, label, resolved, inputs, scored, seeds, cache)
                    except ValueError as error:
                        if loaded.broken:
                            raise
                        if not skip_missing:
                            raise ValueError(f"{model_label} · {label}: {error}") from None
                        result.setdefault("skipped", {})[f"{model_label} · {label}"] = str(error)
                        progress.remove_task(bar)
                        continue
                    extents[model_label][label] = [_extent(rows) for _, rows in parts]
                    for run_seed, rows in parts:
                        mark = {"seed": run_seed} if len(seeds) > 1 and task.sampled else {}
                        _append(row_files[label], {"model": model_label, **mark}, rows)
                    progress.remove_task(bar)
                    if not quiet:
                        seconds = f"{time.perf_counter() - start:.1f} s"
                        _console.print(
                            f"{model_label} · {label}: {_headline(task, row['tasks'][label])}, "
                            + (seconds if loaded.num_scored > ran else "kept from before"),
                            markup=False,
                            soft_wrap=True,
                        )
                result["rows"].append(row)
                result["differences"] += _new_differences(result, reference, extents)
                write_json(output_dir / "results.json", result)
                finished = {label: file.stat().st_size for label, file in row_files.items() if file.exists()}
                del loaded
    finally:
        for label, file in row_files.items():
            if label in finished:
                os.truncate(file, finished[label])
                os.replace(file, output_dir / f"rows-{file_name(label)}.jsonl")
            else:
                file.unlink(missing_ok=True)
    if cache_dir is None:
        cache.prune()
    return result


def _run(
    loaded: _Loaded,
    label: str,
    resolved: Mapping[str, tuple[Task, dict[str, Any]]],
    inputs: Mapping[str, list[Row]],
    scored: dict[tuple[str, int], list[Row]],
    seeds: Sequence[int],
    cache: Cache,
) -> tuple[Metrics, list[tuple[int, list[Row]]]]:
    """One task on one model: its figures, over all seeds if it samples, and (seed, scored rows) of each run.

    `scored` holds the rows by (label, seed) that other tasks follow, and is filled with this task's if one does.
    """
    task, options = resolved[label]
    followed = leader(label, resolved)
    parts, runs = [], []
    for seed in seeds if task.sampled else seeds[:1]:
        if followed and (followed, seed) not in scored:
            raise ValueError(f"{followed}, whose texts it scores, failed")
        rows = _scored(loaded, task, options, scored[followed, seed] if followed else inputs[label], seed, cache)
        if any(other.follows == task.name for other, _ in resolved.values()):
            scored[label, seed] = rows
        runs.append(task.aggregate(rows, options, seeds[0]))
        parts.append((seed, rows))
    return runs[0] if len(runs) == 1 else over_seeds(runs), parts


class _Loaded:
    """A model that is loaded when it is first asked to score, and known by its fingerprint before that if it can be."""

    def __init__(self, model: str | Path | Scorer, **options: Any) -> None:
        self._model, self._options = model, options
        self._scorer = model if isinstance(model, Scorer) else None
        self.num_scored = 0
        self.broken = False  # it could not be loaded
        self.progress: Callable[[int, int], None] | None = None

    @property
    def scorer(self) -> Scorer:
        if self._scorer is None:
            self.broken = True
            self._scorer = Scorer(self._model, **self._options)
            self.broken = False
        return self._scorer

    @cached_property
    def fingerprint(self) -> str:
        if isinstance(self._model, str | Path) and Path(self._model).is_dir():
            return fingerprint_folder(self._model)
        return self.scorer.fingerprint()

    def score(self, task: Task, rows: list[Row], options: Mapping[str, Any], seed: int) -> list[Row]:
        self.num_scored += 1
        self.scorer.progress = self.progress
        try:
            return task.score(self.scorer, rows, options, seed)
        finally:
            self.scorer.progress = None


def _scored(
    loaded: _Loaded, task: Task, options: Mapping[str, Any], rows: list[Row], seed: int, cache: Cache
) -> list[Row]:
    """The task's scored rows: those kept for the same model, task version, options, data and seed, or scored now."""
    key = {
        "model": loaded.fingerprint,
        "task": task.name,
        "version": task.version,
        "options": dict(options),
        "files": stamps(options),
        "data": digest(rows),
        "seed": seed,
        "evenhand": versions()["evenhand"],
    }
    kept = cache.read(key)
    return cache.write(key, loaded.score(task, rows, options, seed)) if kept is None else kept


def over_seeds(runs: Sequence[Metrics]) -> Metrics:
    """Figures of runs of several seeds as one: mean of the values and of the paired resamples, counts added.

    Of bounds without resamples (fair_band_avg: where chance puts the figure of one run) the means; there is no `p`.
    `spread` is the standard deviation over seeds (ddof 1), `by_seed` the values. Undefined values are left out.
    """
    merged: Metrics = {}
    for name in dict.fromkeys(name for metrics in runs for name in metrics):
        figures = [metrics[name] for metrics in runs if name in metrics]
        values = [found["value"] for found in figures if found["value"] is not None]
        value = float(np.mean(values)) if values else math.nan
        samples = [found.interval.samples for found in figures if found.interval.samples is not None]
        if len(samples) == len(figures):
            known = np.ma.masked_invalid(np.stack(samples)).mean(0).filled(math.nan)
            bounds = interval(known, around=value if figures[0].interval.corrected else None)
        else:
            bounds = Interval(*np.mean([found.interval for found in figures], 0))
        merged[name] = figure(
            value,
            bounds,
            ideal=figures[0]["ideal"],
            n=sum(found["n"] for found in figures),
            small=all(found["small"] for found in figures),
        )
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
        merged[name] |= {"spread": spread, "by_seed": [found["value"] for found in figures]}
    return merged


def _extent(rows: Sequence[Row]) -> tuple[int, list[int], list[int]]:
    """How many rows there are, which of them the model had to leave out, and the tokens of each that is a window."""
    left_out = [n for n, row in enumerate(rows) if row.get("left_out")]
    return len(rows), left_out, [row["tokens"] for row in rows if "window" in row]


def _new_differences(
    result: Mapping[str, Any], reference: str, extents: Mapping[str, Mapping[str, list[Any]]]
) -> list[dict[str, Any]]:
    """The differences between the reference and the models not compared yet: none before its own row is there.

    Rows that are not the same ones (another tokenizer cut them otherwise, a shorter model left some out) are no pairs.
    """
    base = next((row for row in result["rows"] if row["model"] == reference), None)
    if base is None:
        return []
    known = {reference, *(entry["model"] for entry in result["differences"])}
    found = []
    for row in result["rows"]:
        if row["model"] not in known:
            own = extents[row["model"]]
            paired = [label for label, extent in own.items() if extent == extents[reference].get(label)]
            found.append(differences(base, row, paired))
    return found


def differences(first: Mapping[str, Any], other: Mapping[str, Any], labels: Sequence[str]) -> dict[str, Any]:
    """A model's figures minus another's: {"model", "minus", "tasks": {label: {metric: value, low, high and p}}}.

    Resamples are the same draws of both models' rows, so what the rows have in common cancels. p: see
    `eval.metrics.paired_difference`. Figures without resamples, and undefined ones, are left out.
    """
    tasks: dict[str, dict[str, Any]] = {}
    for label in labels:
        tasks[label] = {}
        for name, found in other["tasks"][label].items():
            base = first["tasks"][label].get(name)
            if base is None or None in (base["value"], found["value"]) or found.interval.samples is None:
                continue
            value = found["value"] - base["value"]
            bounds, p = paired_difference(value, base.interval, found.interval)
            tasks[label][name] = {
                key: x if math.isfinite(x) else None
                for key, x in zip(("value", "low", "high", "p"), (value, *bounds, p))
            }
    return {"model": other["model"], "minus": first["model"], "tasks": tasks}


def file_name(label: str) -> str:
    """A task's label as part of a file name: lm_eval:NAME has a colon, which not every file system takes."""
    return label.replace(":", "-")


def _append(path: Path, mark: Mapping[str, Any], rows: list[Row]) -> None:
    with path.open("a", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps({**mark, **row}, ensure_ascii=False) + "\n")


def _headline(task: Task, metrics: Mapping[str, Mapping[str, Any]]) -> str:
    shown = [(name, metrics[name]["value"]) for name in task.headline or metrics if name in metrics]
    return ", ".join(f"{name} {'undefined' if value is None else format(value, '.4g')}" for name, value in shown)
