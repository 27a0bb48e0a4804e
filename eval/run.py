"""Models × tasks → results.json: each model is loaded once and shared by its tasks."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from counterfactuals.files import write_whole
from counterfactuals.provenance import versions
from counterfactuals.tokens.tokenizer import load_tokenizer, set_start
from eval.cache import Cache, digest, stamps
from eval.check import Resolved, check, leader
from eval.loading import check_model, fingerprint_path
from eval.measures.intervals import Interval, interval, paired_difference
from eval.model import Scorer, chat_text, find_device
from eval.ranks import SharedScorer, of_first
from eval.task import Metrics, Row, Task, figure, file_name, finite, suggest

_console = Console(stderr=True)
_OUTPUTS = (
    *("results.json", "report.md", "report.html", "rows-*.jsonl", ".rows-*.jsonl.*"),
    *("groups-*.png", "tradeoff.png"),
)
TELL_EVERY = 30.0  # seconds between two progress lines where stderr is no terminal


def evaluate(
    models: Mapping[str, str | Path | Scorer],
    tasks: Mapping[str, Mapping[str, Any]],
    *,
    data_dir: str | Path,
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
    start_token: str | None = None,
    chat: bool = False,
    quiet: bool = False,
    shared: bool = False,
) -> dict[str, Any]:
    """Run every task on every model; write and return {"rows": [{"model", "tasks"}, …], "differences", "versions", …}.

    Writes output_dir/results.json, anew after each model, and output_dir/rows-TASK.jsonl with the scores of each row;
    files of an earlier evaluation there are deleted. If a model fails, the files hold the models before it.
    ValueError for mistakes in names, options, data, local models and the device, before any model is loaded.

    models: label → local folder, Hub name or Scorer. tasks: name → options; "perplexity@mine" is perplexity once more.
    seeds: tasks that sample run once for each; figures are means. limit: at most so many rows a task, for a quick look.
    reference: what "differences" subtracts from every other model, over the same resamples; default: the first model.
    hub: take missing data from the Hub. skip_missing: leave out, and name under "skipped", tasks without data or that a
    model cannot do. cache_dir: where scored rows are kept; default: output_dir/.cache, cleared of what was not used.
    shared: every process of torch.distributed calls this, and they share the work (eval/ranks.py); only the first one's
    folders are of use. start_token, chat: see Scorer; "start" in each row of the result says what texts began with.
    """
    seeds = list(seeds) or [seed]
    reference = _check_request(models, reference, seeds, batch_size)
    device, skipped = find_device(device), dict[str, str]()
    resolved, inputs = check(
        tasks, data_dir=data_dir, limit=limit, seed=seeds[0], hub=hub, skipped=skipped if skip_missing else None
    )
    names = {label: "loaded" if isinstance(model, Scorer) else str(model) for label, model in models.items()}
    config: dict[str, Any] = {"models": names, "tasks": {label: options for label, (_, options) in resolved.items()}}
    config |= {"reference": reference, "data_dir": str(data_dir), "seed": seeds[0], "seeds": seeds}
    config |= {"batch_size": batch_size, "device": str(device), "limit": limit, "start_token": start_token}
    config |= {"chat": chat, "inputs": _marks(resolved, inputs, start_token, chat)}
    result: dict[str, Any] = {"rows": [], "differences": [], "versions": versions(), "config": config}
    if skipped:
        result["skipped"] = skipped
    output = _Output(Path(output_dir), resolved)
    cache = Cache(output.folder / ".cache" if cache_dir is None else Path(cache_dir))
    work = _Work(resolved, inputs, seeds, cache, skip_missing=skip_missing)
    loading = {"device": device, "batch_size": batch_size, "trust_remote_code": trust_remote_code, "shared": shared}
    loading |= {"start_token": start_token, "chat": chat}
    with output, _Reporter(quiet=quiet) as reporter:
        _evaluate_models(models, loading, work, output, reporter, result)
    if cache_dir is None:
        cache.prune()
    return result


def _check_request(models: Mapping[str, Any], reference: str | None, seeds: Sequence[int], batch_size: int) -> str:
    """ValueError for a request that makes no sense; returns the label of the reference."""
    if not models:
        raise ValueError("no model named")
    reference = next(iter(models)) if reference is None else reference
    if reference not in models:
        raise ValueError(f"reference: {suggest(reference, models, 'model')}")
    if batch_size < 1:
        raise ValueError(f"batch_size {batch_size}: must be at least 1")
    if len(set(seeds)) < len(seeds) or min(seeds) < 0:
        what = "seeds" if len(seeds) > 1 else "seed"
        raise ValueError(f"{what} {', '.join(map(str, seeds))}: must differ and not be negative")
    for model in models.values():
        if not isinstance(model, Scorer):
            check_model(model)
    return reference


def _marks(
    resolved: Resolved, inputs: Mapping[str, list[Row]], start_token: str | None, chat: bool
) -> dict[str, dict[str, Any]]:
    """What two evaluations must share to be compared: each task's version, a hash of its data, what texts begin with.

    Start token and chat are named only where they are given, so that older results can still be compared.
    """
    begin: dict[str, Any] = {"start_token": start_token} if start_token is not None else {}
    begin |= {"chat": chat} if chat else {}
    return {
        label: {"version": task.version, "rows": digest(inputs[label]), **begin}
        for label, (task, _) in resolved.items()
    }


def _evaluate_models(
    models: Mapping[str, str | Path | Scorer],
    loading: Mapping[str, Any],
    work: _Work,
    output: _Output,
    reporter: _Reporter,
    result: dict[str, Any],
) -> None:
    """All models one after the other; `result` grows, and is saved, with each."""
    extents: dict[str, dict[str, Any]] = {}
    for label, model in models.items():
        loaded = _Loaded(model, **loading)
        row, extents[label], failed = _evaluate_model(label, loaded, work, output, reporter)
        result["config"].setdefault("fingerprints", {})[label] = loaded.fingerprint
        result["rows"].append(row)
        if failed:
            result.setdefault("skipped", {}).update(failed)
        result["differences"] += _new_differences(result, result["config"]["reference"], extents)
        output.save(result)


def _evaluate_model(
    model: str, loaded: _Loaded, work: _Work, output: _Output, reporter: _Reporter
) -> tuple[dict[str, Any], dict[str, Any], dict[str, str]]:
    """All tasks on one model: its row of results.json, the extent of each task's rows, and what it could not do."""
    row: dict[str, Any] = {"model": model, "start": loaded.start, "tasks": {}}
    extents: dict[str, Any] = {}
    failed: dict[str, str] = {}
    scored: dict[tuple[str, int], list[Row]] = {}  # of tasks that others follow
    for label, (task, _) in work.resolved.items():
        start, ran = time.perf_counter(), loaded.num_scored
        try:
            with reporter.follow(f"{model} · {label}") as loaded.progress:
                metrics, parts = work.run(loaded, label, scored)
        except ValueError as error:
            if loaded.broken:
                raise
            if not work.skip_missing:
                raise ValueError(f"{model} · {label}: {error}") from None
            failed[f"{model} · {label}"] = str(error)
            continue
        row["tasks"][label] = metrics
        extents[label] = [extent(rows) for _, rows in parts]
        for seed, rows in parts:
            mark = {"seed": seed} if len(work.seeds) > 1 and task.sampled else {}
            output.append(label, {"model": model, **mark}, rows)
        took = f"{time.perf_counter() - start:.1f} s" if loaded.num_scored > ran else "kept from before"
        reporter.say(f"{model} · {label}: {_headline(task, metrics)}, {took}")
    return row, extents, failed


@dataclass
class _Work:
    """What is to be done with each model: tasks with options, their data, seeds."""

    resolved: Resolved
    inputs: Mapping[str, list[Row]]
    seeds: Sequence[int]
    cache: Cache
    skip_missing: bool

    def run(
        self, loaded: _Loaded, label: str, scored: dict[tuple[str, int], list[Row]]
    ) -> tuple[Metrics, list[tuple[int, list[Row]]]]:
        """One task on one model: its figures (over all seeds if it samples) and (seed, scored rows) of each run.

        `scored` holds, by (label, seed), the rows of tasks that others follow; this task's are added if one does.
        """
        task, options = self.resolved[label]
        followed = leader(label, self.resolved)
        parts, runs = [], []
        for seed in self.seeds if task.sampled else self.seeds[:1]:
            if followed and (followed, seed) not in scored:
                raise ValueError(f"{followed}, whose texts it scores, failed")
            rows = scored[followed, seed] if followed else self.inputs[label]
            rows = _scored(loaded, task, options, rows, seed, self.cache)
            if any(other.follows == task.name for other, _ in self.resolved.values()):
                scored[label, seed] = rows
            runs.append(task.aggregate(rows, options, self.seeds[0]))
            parts.append((seed, rows))
        return runs[0] if len(runs) == 1 else over_seeds(runs), parts


class _Output:
    """results.json and rows-TASK.jsonl; on leaving, the hidden files of rows are cut after the last whole model."""

    def __init__(self, folder: Path, labels: Iterable[str]) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._partial = {label: folder / f".rows-{file_name(label)}.jsonl.{os.getpid()}" for label in labels}
        self._complete: dict[str, int] = {}  # bytes of each file that belong to complete models

    def append(self, label: str, mark: Mapping[str, Any], rows: list[Row]) -> None:
        with self._partial[label].open("a", encoding="utf-8") as file:
            for row in rows:
                file.write(json.dumps({**mark, **row}, ensure_ascii=False) + "\n")

    def save(self, result: Mapping[str, Any]) -> None:
        if not self._complete:  # the first model is measured: earlier results go
            stale = {file for pattern in _OUTPUTS for file in self.folder.glob(pattern)}
            for file in stale.difference(self._partial.values()):
                file.unlink()
        write_json(self.folder / "results.json", result)
        self._complete = {label: file.stat().st_size for label, file in self._partial.items() if file.exists()}

    def __enter__(self) -> _Output:
        return self

    def __exit__(self, *_: Any) -> None:
        for label, file in self._partial.items():
            if label in self._complete:
                os.truncate(file, self._complete[label])
                os.replace(file, self.folder / f"rows-{file_name(label)}.jsonl")
            else:
                file.unlink(missing_ok=True)


class _Reporter:
    """Progress on stderr: a bar in a terminal, elsewhere a line every half minute; one line for each finished task."""

    def __init__(self, *, quiet: bool) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        self._quiet, self._lines = quiet, not (quiet or _console.is_terminal)
        self._bars = Progress(*columns, console=_console, disable=quiet or self._lines, transient=True)

    def __enter__(self) -> _Reporter:
        self._bars.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._bars.stop()

    def say(self, text: str) -> None:
        if not self._quiet:
            _console.print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)

    @contextlib.contextmanager
    def follow(self, name: str) -> Iterator[Callable[[int, int], None]]:
        """A function for one task's progress: it is called with the rows done and the rows in all."""
        bar = self._bars.add_task(name, total=None)
        start = told = time.monotonic()
        before = 0

        def tell(done: int, total: int) -> None:
            nonlocal start, told, before
            self._bars.update(bar, completed=done, total=total)
            now = time.monotonic()
            if done < before:  # the task reads its rows once more
                start = now
            before = done
            if self._lines and now - told >= TELL_EVERY:
                told, left = now, (now - start) * (total - done) / max(1, done)
                self.say(f"{name}: {done:,} of {total:,} rows ({done / total:.0%}), {left / 60:.1f} min left")

        try:
            yield tell
        finally:
            self._bars.remove_task(bar)


def write_json(path: Path, content: Any) -> None:
    """Write JSON so that the file is either the old one or the whole new one."""
    write_whole(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


class _Loaded:
    """A model that is loaded when it is first needed; a folder's fingerprint is known without loading it."""

    def __init__(self, model: str | Path | Scorer, *, shared: bool, **options: Any) -> None:
        self._model, self._options, self.shared = model, options, shared
        self._scorer = model if isinstance(model, Scorer) else None
        self.num_scored = 0
        self.broken = False  # whether it could not be loaded
        self.progress: Callable[[int, int], None] | None = None

    @property
    def scorer(self) -> Scorer:
        if self._scorer is None:
            self.broken = True
            self._scorer = (SharedScorer if self.shared else Scorer)(self._model, **self._options)
            self.broken = False
        return self._scorer

    @cached_property
    def fingerprint(self) -> str:
        if isinstance(self._model, str | Path) and Path(self._model).exists():
            return fingerprint_path(self._model)
        return self.scorer.fingerprint()

    @cached_property
    def start(self) -> str:
        """What texts begin with: start token, or an empty message in the chat template. Loads the tokenizer only."""
        tokenizer, chat = getattr(self._scorer, "tokenizer", None), getattr(self._scorer, "chat", self._options["chat"])
        if tokenizer is None:
            trusted = self._options["trust_remote_code"]
            tokenizer = load_tokenizer(str(self._model), setting="model", trust_remote_code=trusted)
            set_start(tokenizer, self._options["start_token"], setting="start token")
        return chat_text(tokenizer, "") if chat else tokenizer.bos_token or "none"

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
    """The task's scored rows: kept ones for the same model, task version, options, data and seed, else scored now."""
    key = {
        "model": loaded.fingerprint,
        "task": task.name,
        "version": task.version,
        "options": dict(options),
        "files": stamps(options),
        "data": digest(rows),
        "seed": seed,
        "start": loaded.start,
        "evenhand": versions()["evenhand"],
    }
    kept = of_first(cache.read(key)) if loaded.shared else cache.read(key)
    return cache.write(key, loaded.score(task, rows, options, seed)) if kept is None else kept


def over_seeds(runs: Sequence[Metrics]) -> Metrics:
    """The figures of runs with several seeds as one: means of the values and of the paired resamples; counts are added.

    Bounds without resamples (fair_band_avg) are averaged; there is no `p`.
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
            most = figures[0].interval.most
            bounds = interval(known) if most is None else interval(known, around=value, most=most)
        else:
            bounds = Interval(*np.mean([found.interval for found in figures], 0))
        merged[name] = figure(
            value,
            bounds,
            ideal=figures[0]["ideal"],
            n=sum(found["n"] for found in figures),
            small=all(found["small"] for found in figures),
            note=next((found["note"] for found in figures if "note" in found), ""),
        )
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
        merged[name] |= {"spread": spread, "by_seed": [found["value"] for found in figures]}
    return merged


def extent(rows: Sequence[Row]) -> tuple[int, list[int], list[int]]:
    """How many rows there are, which of them the model left out, and how many tokens each window has."""
    left_out = [n for n, row in enumerate(rows) if row.get("left_out")]
    return len(rows), left_out, [row["tokens"] for row in rows if "window" in row]


def _new_differences(
    result: Mapping[str, Any], reference: str, extents: Mapping[str, Mapping[str, list[Any]]]
) -> list[dict[str, Any]]:
    """The differences of models not compared yet from the reference, of tasks whose rows are the same in both."""
    base = next((row for row in result["rows"] if row["model"] == reference), None)
    if base is None:
        return []
    known = {reference, *(entry["model"] for entry in result["differences"])}
    found = []
    for row in result["rows"]:
        if row["model"] not in known:
            own = extents[row["model"]]
            paired = [label for label in own if own[label] == extents[reference].get(label)]
            found.append(differences(base, row, paired))
    return found


def differences(first: Mapping[str, Any], other: Mapping[str, Any], labels: Sequence[str]) -> dict[str, Any]:
    """A model's figures minus another's: {"model", "minus", "tasks": {label: {metric: value, low, high and p}}}.

    Resamples are the same draws of both models' rows, so what they have in common cancels. p: see
    `paired_difference`. Figures without resamples, and undefined ones, are left out.
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
            found_of = zip(("value", "low", "high", "p"), (value, *bounds, p))
            tasks[label][name] = {key: finite(x) for key, x in found_of}
    return {"model": other["model"], "minus": first["model"], "tasks": tasks}


def _headline(task: Task, metrics: Mapping[str, Mapping[str, Any]]) -> str:
    shown = [(name, metrics[name]["value"]) for name in task.headlines(metrics)]
    return ", ".join(f"{name} {'undefined' if value is None else format(value, '.4g')}" for name, value in shown)
