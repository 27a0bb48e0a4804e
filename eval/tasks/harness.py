"""Any task of EleutherAI's lm-evaluation-harness by name, `lm_eval:NAME`, on the model that is already loaded.

Paper: that of the named task; the harness is Gao et al. (https://github.com/EleutherAI/lm-evaluation-harness), the
optional extra `evenhand[lm_eval]`. Version 1. NAME is a task, group or tag of the harness, or of a YAML file in the
folder `include_path`, which needs no network if its data is local. Figures are the harness's own (`acc`, `acc_norm`,
…), with the filter after a dot unless it is `none`. Whether higher is better depends on the metric. The harness does
not say what a task does not measure: read its paper.

Interval: value ± 1.96 of the harness's standard errors. A metric that is a mean over documents is also resampled over
them, so that models are compared document by document.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from eval.measures.intervals import Interval
from eval.model import Scorer
from eval.task import Metrics, MissingData, Row, Task, average, figure, suggest

PREFIX = "lm_eval:"
OPTIONS = {"include_path": "", "num_fewshot": -1}


def _manager(include_path: str, name: str) -> Any:
    """The harness's task index: of `include_path` alone where that has the name (quick), else of its own tasks too."""
    try:
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise MissingData(f"{PREFIX}{name} needs the harness: pip install 'evenhand[lm_eval]'") from error
    if include_path:
        if not Path(include_path).is_dir():
            raise ValueError(f"{PREFIX}{name}.include_path {include_path!r}: no such folder")
        own = TaskManager(include_path=include_path, include_defaults=False)
        if name in own.all_tasks:
            return own
    whole = TaskManager(include_path=include_path or None)
    if name not in whole.all_tasks:
        near = suggest(name, whole.all_tasks, "task of the harness").partition(" (there are")[0]
        raise ValueError(f"{near}; `lm-eval ls tasks` lists them, and include_path names a folder with others")
    return whole


_cached_manager = functools.lru_cache(maxsize=4)(_manager)


def load(name: str, data_dir: Path, options: Mapping[str, Any], limit: int | None, seed: int) -> list[Row]:
    """One row with what the harness is asked for, and its version: it reads its data itself."""
    _cached_manager(options["include_path"], name)
    return [{"task": name, "limit": limit, "lm_eval": version("lm_eval")}]


def score(name: str, scorer: Scorer, rows: list[Row], options: Mapping[str, Any], seed: int) -> list[Row]:
    """Rows {"metric", "value", "stderr", "n"} of the task, then rows {"doc", metric: value, …} of each document."""
    import datasets
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    model = HFLM(
        pretrained=scorer.model,
        tokenizer=scorer.tokenizer,
        batch_size=scorer.batch_size,
        max_length=scorer.max_length,
        device=str(scorer.device),
    )
    try:
        with contextlib.redirect_stdout(None):
            found = lm_eval.simple_evaluate(
                model=model,
                tasks=[name],
                num_fewshot=None if options["num_fewshot"] < 0 else options["num_fewshot"],
                limit=rows[0]["limit"],
                task_manager=_cached_manager(options["include_path"], name),
                random_seed=seed,
                numpy_random_seed=seed,
                torch_random_seed=seed,
                fewshot_random_seed=seed,
                bootstrap_iters=1000,
                verbosity="ERROR",
                apply_chat_template=scorer.chat,
            )
    except OSError as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f"{PREFIX}{name}: its data could not be read: {reason}") from error
    return harness_rows(found)


def harness_rows(found: Mapping[str, Any]) -> list[Row]:
    """The rows of a result of `lm_eval.simple_evaluate`, tasks and groups in its order."""
    out: list[Row] = []
    tables = dict(found["results"]) | dict(found.get("groups") or {})
    for task, table in tables.items():
        n = found.get("n-samples", {}).get(task, {}).get("effective", 0)
        for key, value in table.items():
            metric, comma, chosen = key.partition(",")
            if not comma or metric.endswith("_stderr") or isinstance(value, str | bool) or value is None:
                continue
            stderr = table.get(f"{metric}_stderr,{chosen}")
            out.append(
                {
                    "task": task,
                    "metric": metric,
                    "filter": chosen,
                    "value": float(value),
                    "stderr": float(stderr) if isinstance(stderr, int | float) else None,
                    "n": n or sum(len(part) for part in (found.get("samples") or {}).values()),
                }
            )
    for task, samples in (found.get("samples") or {}).items():
        for sample in samples:
            scores = {name: sample[name] for name in sample.get("metrics", ()) if isinstance(sample[name], int | float)}
            out.append({"task": task, "doc": sample["doc_id"], "filter": sample.get("filter", "none"), **scores})
    return out


def aggregate(name: str, rows: list[Row], options: Mapping[str, Any], seed: int) -> Metrics:
    metrics: Metrics = {}
    documents = [row for row in rows if "doc" in row]
    for row in rows:
        if "metric" not in row:
            continue
        label = "/".join(
            [row["metric"] + ("" if row["filter"] == "none" else f".{row['filter']}")]
            + ([] if row["task"] == name else [row["task"]])
        )
        error = 1.96 * row["stderr"] if row["stderr"] is not None else math.nan
        bounds = Interval(row["value"] - error, row["value"] + error)
        values = [
            float(document[row["metric"]])
            for document in documents
            if (document["task"], document["filter"]) == (row["task"], row["filter"]) and row["metric"] in document
        ]
        if len(values) > 1 and math.isclose(np.mean(values), row["value"], rel_tol=1e-6, abs_tol=1e-9):
            bounds = Interval(*bounds, samples=average(values, ideal=None, seed=seed).interval.samples)
        metrics[label] = figure(row["value"], bounds, ideal=None, n=row["n"])
    return metrics


def task(label: str) -> Task | None:
    """The task `lm_eval:NAME`, or None for a name of another form."""
    name = label.removeprefix(PREFIX)
    if not name or name == label:
        return None
    return Task(
        name=label,
        rows=functools.partial(load, name),
        score=functools.partial(score, name),
        aggregate=functools.partial(aggregate, name),
        options=OPTIONS,
        meaning=f"the task {name} of lm-evaluation-harness, as that reports it",
        ideal="the named task's",
        data="what the task's YAML names; include_path=FOLDER for one's own YAML files",
        source="lm-evaluation-harness (Gao et al.)",
        headline=(),
        not_measured="see the named task",
        licence="the named task's",
        utility=True,
    )
