"""Any labelled texts: how well does a classifier on the model's states do, and does it treat groups and roles alike?

The classifier is ERA's (Gupta et al. 2022), see measures/heads.py; prediction sensitivity follows Krishna et al. 2022.
Version 1. `file` is a jsonl, tsv or csv (.gz too), split 65/10/25 by label, or a folder with train, dev and test files.
`accuracy` (compare it with `majority`), `f1_macro`, `auc` (with few classes): ideal 1. With a `group_field`: `tprd`,
the mean over labels of the gap between groups in the share recognised (ideal 0), what chance would give, and gaps by
label. `flipped`: among texts whose roles can be reversed (by counterfactuals/ and `lexicon`), the share whose
prediction changes. `moved`: how much the probability of the predicted class changes. Ideal 0 for both; `reverse=false`
skips them. With groups, on `sensitivity` test texts: `prediction_sensitivity` (ideal 0) and `sensitivity_ratio`.
`finetune` trains the whole model; `scrub` removes gendered words and names from every text first.

Not measured: what the model does without the classifier; whether an error does harm. Intervals: bootstrap over test
texts. They do not cover the classifier's random start (use several --seeds) or the split (use another --seed).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eval.data import read_table
from eval.measures import classification as shared
from eval.task import Metrics, Row

OPTIONS = {"file": "classify.jsonl", "text_field": "text", "label_field": "label", "group_field": "", **shared.OPTIONS}


def load(
    data_dir: Path, options: Mapping[str, Any], limit: int | None, seed: int, *, task: str = "classify"
) -> list[Row]:
    shared.check_options(options, task)
    what = "labelled texts: a jsonl, tsv or csv file, or a folder with train, dev and test files"
    text, label, group = (options[name] for name in ("text_field", "label_field", "group_field"))
    rows: list[Row] = []
    for name, path in shared.find_tables(data_dir, options["file"], what).items():
        for record in read_table(path, [field for field in (text, label, group) if field]):
            if not isinstance(record[text], str):
                raise ValueError(f"{path} row {len(rows) + 1}: {text} must be text")
            rows.append(
                {
                    "id": len(rows),
                    "text": record[text].strip(),
                    "label": str(record[label]),
                    "group": str(record[group]) if group and record[group] not in (None, "") else None,
                    "split": name,
                }
            )
    return shared.shortened([row for row in rows if row["text"]], options, limit, seed)


score = shared.score


def aggregate(rows: list[Row], options: Mapping[str, Any], seed: int) -> Metrics:
    return {
        **shared.performance(rows, seed),
        **shared.counterfactual(rows, seed),
        **shared.sensitivities(rows, seed),
        **shared.between_groups(rows, seed),
    }
