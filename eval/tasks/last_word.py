"""Last word: can a model predict the last word of a passage, which takes the whole passage?

Paper: LAMBADA (Paperno et al. 2016), in the form OpenAI used for GPT-2. Version 1. The context is a text up to its last
space, the target that space and the rest, all of its tokens. `accuracy`: the share of texts whose target is what greedy
decoding writes (ideal 1). `perplexity`: exp of the mean negative log-likelihood per word. Both are as in the
lm-evaluation-harness's lambada_openai. A passage that is too long for the model is cut at its beginning. `bos`: auto
puts the begin-of-text token first where the tokenizer does so itself, as the harness does.

Not measured: understanding as such; passages that more than one word could end. Intervals: bootstrap over texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from eval.data import find_data, hub_jsonl, read_jsonl
from eval.measures.intervals import bootstrap
from eval.measures.sentences import BOS, after_context
from eval.model import Scorer
from eval.task import Hub, Metrics, Row, check_options, figure

FILE = "lambada/test.jsonl"
OPTIONS = {"file": FILE, "text_field": "text", "bos": "auto"}


def load(data_dir: Path, options: Mapping[str, Any], limit: int | None, seed: int) -> list[Row]:
    check_options("last_word", options, bos=BOS)
    path = find_data(data_dir, options["file"], 'passages to finish, {"text"} a line (LAMBADA is not shipped)')
    field = options["text_field"]
    rows = []
    for number, row in enumerate(read_jsonl(path, [field])[:limit], 1):
        text = row[field].strip() if isinstance(row[field], str) else ""
        context, _, word = text.rpartition(" ")
        if not context.strip():
            raise ValueError(f"{path} row {number}: {field} must be text of two words at least")
        rows.append({"context": context, "word": word})
    return rows


def score(scorer: Scorer, rows: list[Row], options: Mapping[str, Any], seed: int) -> list[Row]:
    texts = [(row["context"], " " + row["word"]) for row in rows]
    pairs = after_context(scorer, texts, options["bos"])
    logps, greedy = scorer.greedy_continuations(pairs)
    return [
        {"word": row["word"], "logp": float(logp), "correct": bool(correct), "tokens": len(word)}
        for row, logp, correct, (_, word) in zip(rows, logps, greedy, pairs)
    ]


def aggregate(rows: list[Row], options: Mapping[str, Any], seed: int) -> Metrics:
    values_N3 = np.array([(row["correct"], -row["logp"], 1.0) for row in rows])
    correct, nll, n = values_N3.sum(0)
    accuracies = bootstrap(values_N3, lambda s: s[:, 0] / s[:, 2], seed=seed)
    perplexities = bootstrap(values_N3, lambda s: np.exp(s[:, 1] / s[:, 2]), seed=seed)
    return {
        "accuracy": figure(correct / n, accuracies, ideal=1.0, n=len(rows)),
        "perplexity": figure(np.exp(nll / n), perplexities, ideal=None, n=len(rows)),
    }


HUB = {FILE: Hub("EleutherAI/lambada_openai", "test", partial(hub_jsonl, fields=["text"]), config="default")}
