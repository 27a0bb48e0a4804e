"""HellaSwag: which of four endings continues a description of everyday acts?

Paper: Zellers et al. 2019. Version 1. As lm-evaluation-harness's `hellaswag` without examples: the context is
"activity: context" without WikiHow's brackets, and an ending counts by its log-probability after it. `acc`: the share
of contexts whose right ending has the greatest; `acc_norm`: the greatest log-probability a character. Ideal 1,
chance .25.

`file` is the authors' jsonl (activity_label, ctx_a, ctx_b, endings, label), or text of six lines a context ("activity:
context", number of the right ending, four endings), in which an unfinished last sentence is taken as ctx_b. `bos`: auto
puts the begin-of-text token first where the tokenizer does so itself, as the harness does.

Not measured: understanding as such; some endings are ungrammatical or hardly worse than the right one. Intervals:
bootstrap over contexts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from eval.data import find_data, hub_jsonl, read_jsonl, read_text, thinned
from eval.measures.sentences import BOS, after_context
from eval.model import Scorer
from eval.task import Hub, Metrics, Row, average, check_options

FILE, TEXT_FILE = "hellaswag/val.jsonl", "hellaswag/val.txt.bz2"
OPTIONS = {"file": FILE, "bos": "auto"}
FIELDS = ("activity_label", "ctx_a", "ctx_b", "endings", "label")
UNFINISHED = re.compile(r"(.*[.!?][\"')]*) ([^.!?]+)")


def clean(text: str) -> str:
    """A text without the brackets of WikiHow, as the harness's `preprocess` leaves it."""
    return re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ")


def _read_text(path: Path) -> list[Row]:
    """The rows of a text of six lines a context, with the authors' fields."""
    lines = read_text(path).removesuffix("\n").split("\n")
    if len(lines) % 6:
        raise ValueError(
            f"{path}: {len(lines)} lines; needs six a context: it, the number of the right ending, four endings"
        )
    rows = []
    for first in range(0, len(lines), 6):
        activity, _, context = lines[first].partition(": ")
        parts = UNFINISHED.fullmatch(context)
        a, b = parts.groups() if parts else (context, "")
        row = (activity, a, b, lines[first + 2 : first + 6], lines[first + 1])
        rows.append(dict(zip(FIELDS, row)))
    return rows


def load(data_dir: Path, options: Mapping[str, Any], limit: int | None, seed: int) -> list[Row]:
    check_options("hellaswag", options, bos=BOS)
    file = options["file"]
    if file == FILE and not (data_dir / FILE).is_file() and (data_dir / TEXT_FILE).is_file():
        file = TEXT_FILE
    path = find_data(data_dir, file, "HellaSwag's validation set, the authors' jsonl or text of six lines a context")
    name = path.name.removesuffix(".gz").removesuffix(".bz2")
    rows = []
    for number, row in enumerate(read_jsonl(path, FIELDS) if name.endswith(".jsonl") else _read_text(path), 1):
        endings, label = row["endings"], str(row["label"])
        if not isinstance(endings, list) or label not in map(str, range(len(endings))):
            raise ValueError(f"{path} row {number}: needs a list of endings, and the number of the right one (from 0)")
        query = f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"
        rows.append({"context": clean(query), "endings": [clean(text) for text in endings], "label": int(label)})
    return thinned(rows, limit)


def score(scorer: Scorer, rows: list[Row], options: Mapping[str, Any], seed: int) -> list[Row]:
    texts = [(row["context"], " " + ending) for row in rows for ending in row["endings"]]
    logps = iter(scorer.continuation_logprobs(after_context(scorer, texts, options["bos"])))
    out = []
    for row in rows:
        logp = [float(next(logps)) for _ in row["endings"]]
        per_character = np.array(logp) / [max(1, len(ending)) for ending in row["endings"]]
        found = {"acc": np.argmax(logp), "acc_norm": np.argmax(per_character)}
        hits = {name: bool(best == row["label"]) for name, best in found.items()}
        out.append({"context": row["context"], "label": row["label"], "logp": logp, **hits})
    return out


def aggregate(rows: list[Row], options: Mapping[str, Any], seed: int) -> Metrics:
    return {name: average([row[name] for row in rows], ideal=1.0, seed=seed) for name in ("acc", "acc_norm")}


HUB = {FILE: Hub("Rowan/hellaswag", "validation", partial(hub_jsonl, fields=FIELDS))}
