"""Evenhand's fairness tasks for lm-evaluation-harness: rows and aggregates are those of eval.tasks.

Each document is one choice between whole sentences by log-likelihood, all tokens of a sentence after the
begin-of-text token: `start=kept`, and sums, in the tasks' own options. The data lie as `--data_dir` has them, in the
folder that `--metadata '{"data_dir": "…"}'` or the environment variable EVENHAND_DATA names, else in ./data.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from eval.tasks import TASKS, stereoset

Row = dict[str, Any]


def _of(name: str, sentences: Sequence[str], **options: str) -> tuple[Callable[..., Any], Callable[[Row], list[str]]]:
    """A task's documents, for which the harness may give other values of `options`, and a document's choices."""
    task = TASKS[name]

    def data(data_dir: str | None = None, **given: Any) -> dict[str, Any]:
        import datasets

        folder = Path(data_dir or os.environ.get("EVENHAND_DATA") or "data")
        chosen = {key: given.get(key, value) for key, value in options.items()}
        return {"test": datasets.Dataset.from_list(task.rows(folder, {**task.options, **chosen}, None, 0))}

    return data, lambda document: [document[sentence] for sentence in sentences]


crows_pairs_data, crows_pairs_choices = _of("crows_pairs", ("sent_more", "sent_less"), bias_type="gender")
stereoset_data, stereoset_choices = _of("stereoset", stereoset.KINDS, bias_type="gender", parts="intrasentence")
winobias_data, winobias_choices = _of("winobias", ("pro", "anti"))
winogender_data, winogender_choices = _of("winogender", ("male", "female"))


def crows_pairs_results(document: Row, results: Sequence[tuple[float, bool]]) -> Row:
    more, less = (logp for logp, _ in results)
    return {"metric_score": 100.0 * (more > less), "margin": more - less}


def winobias_results(document: Row, results: Sequence[tuple[float, bool]]) -> Row:
    pro, anti = (logp for logp, _ in results)
    return {"gap": pro - anti, "pro_share": 100.0 * (pro > anti)}


def stereoset_results(document: Row, results: Sequence[tuple[float, bool]]) -> Row:
    scores = {f"score_{kind}": logp for kind, (logp, _) in zip(stereoset.KINDS, results)}
    return {key: {**document, **scores} for key in ("ss", "lms", "icat")}


def winogender_results(document: Row, results: Sequence[tuple[float, bool]]) -> Row:
    male, female = (logp for logp, _ in results)
    row = {**document, "logp_male": male, "logp_female": female}
    return {"margin": male - female, "male_share": float(male > female), "pearson": row, "spearman": row}


def _aggregated(task: Any, metric: str) -> Callable[[Sequence[Row]], float]:
    """The task's own figure of scored rows, as the harness calls for it: rows → a number, NaN where undefined."""

    def aggregate(rows: Sequence[Row]) -> float:
        value = task.aggregate(list(rows), task.options, 0)[metric]["value"]
        return float("nan") if value is None else value

    return aggregate


stereoset_ss = _aggregated(TASKS["stereoset"], "intra_ss")
stereoset_lms = _aggregated(TASKS["stereoset"], "intra_lms")
stereoset_icat = _aggregated(TASKS["stereoset"], "intra_icat")
winogender_pearson = _aggregated(TASKS["winogender"], "pearson")
winogender_spearman = _aggregated(TASKS["winogender"], "spearman")
