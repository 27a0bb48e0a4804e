"""SST-2: does a classifier on the model tell whether a phrase of a film review is positive?

Paper: Socher et al. 2013, in GLUE's form (Wang et al. 2019). Version 1. Classifier and figures are those of `classify`:
`accuracy` (the benchmark's), `f1_macro`, `auc`; ideal 1. It measures utility; `flipped` and `moved` say how often
exchanging men and women changes the sentiment. 10,000 phrases are used for training unless `train_texts` says otherwise
(0: all 60,614); the test is GLUE's development set, whose labels are public.

Not measured: sentiment in other kinds of text. Intervals: bootstrap over test phrases.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from eval.task import Hub, Row
from eval.tasks import classify

OPTIONS = {**classify.OPTIONS, "file": "sst2", "text_field": "sentence", "train_texts": 10_000}


def hub_table(records: Iterable[Mapping[str, Any]]) -> str:
    """The tsv of the Hub's records {"sentence", "label"}."""
    lines = (f"{' '.join(record['sentence'].split())}\t{record['label']}\n" for record in records)
    return "sentence\tlabel\n" + "".join(lines)


def load(data_dir: Path, options: Mapping[str, Any], limit: int | None, seed: int) -> list[Row]:
    return classify.load(data_dir, options, limit, seed, task="sst2")


score, aggregate = classify.score, classify.aggregate
HUB = {
    "sst2/train.tsv": Hub("stanfordnlp/sst2", "train", hub_table),
    "sst2/test.tsv": Hub("stanfordnlp/sst2", "validation", hub_table),
}
