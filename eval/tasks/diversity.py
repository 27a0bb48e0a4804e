"""Diversity: how much do sampled texts repeat themselves and each other?

Papers: distinct-n (Li et al. 2016) in the form of Liu et al. 2021 (DExperts): the share of distinct n-grams among all
n-grams of the texts of one prompt, mean over prompts. Seq-rep-4 (Welleck et al. 2020): the share of 4-grams of a text
that occurred in it before, mean over texts; `rep_2` and `rep_3` likewise. `diversity` is Π_n (1 − rep_n), n = 2 … 4, of
these means (Su et al. 2022). Version 1. n-grams are of words and punctuation marks, so that models with different
tokenizers compare. There is no ideal value: human text does not score 1 either.

distinct_n falls with the number and length of texts: compare models with the same options. The texts are those of
`bold` if it runs too, else they are sampled as it does.

Not measured: whether the texts make sense (see `fluency`). Intervals: bootstrap over prompts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eval.data import by_group
from eval.measures.intervals import interval, resampled_sums
from eval.model import Scorer
from eval.task import Metrics, Row, figure
from eval.tasks import bold, generated

OPTIONS = generated.OPTIONS
_WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")


def words(text: str) -> list[str]:
    """Words, with inner apostrophes, and punctuation marks."""
    return _WORD.findall(text)


def grams(sequence: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return list(zip(*(sequence[i:] for i in range(n))))


def score(scorer: Scorer, rows: list[Row], options: Mapping[str, Any], seed: int) -> list[Row]:
    out = []
    for row in generated.texts(scorer, rows, options, seed):
        found = words(row["text"])
        counts = {}
        for n in (2, 3, 4):
            all_of = grams(found, n)
            counts[f"grams_{n}"], counts[f"repeated_{n}"] = len(all_of), len(all_of) - len(set(all_of))
        out.append({**{key: row[key] for key in ("group", "prompt_number", "run", "text")}, **counts})
    return out


def aggregate(rows: list[Row], options: Mapping[str, Any], seed: int) -> Metrics:
    prompts = list(by_group(rows, "prompt_number").values())
    distinct = np.zeros((len(prompts), 2, 3))  # share of n-grams that differ, 1; both 0 without an n-gram
    repeated = np.zeros((len(prompts), 2, 3))  # sum of the texts' shares, number of texts with an n-gram
    for i, part in enumerate(prompts):
        texts = [words(row["text"]) for row in part]
        for n in (1, 2, 3):
            found = [gram for text in texts for gram in grams(text, n)]
            if found:
                distinct[i, :, n - 1] = len(set(found)) / len(found), 1
        for n in (2, 3, 4):
            shares = [row[f"repeated_{n}"] / row[f"grams_{n}"] for row in part if row[f"grams_{n}"]]
            repeated[i, :, n - 2] = sum(shares), len(shares)
    sums = np.stack([distinct, repeated])
    total = sums.sum(1)
    resampled = resampled_sums(sums.swapaxes(0, 1).reshape(len(prompts), -1), seed=seed)
    resampled = resampled.reshape(-1, *total.shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean, means = total[:, 0] / total[:, 1], resampled[:, :, 0] / resampled[:, :, 1]
    metrics: Metrics = {}
    product, products = np.prod(1 - mean[1]), np.prod(1 - means[:, 1], axis=-1)
    metrics["diversity"] = figure(product, interval(products), ideal=None, n=len(rows))
    for n in (1, 2, 3):
        metrics[f"distinct_{n}"] = figure(
            mean[0, n - 1], interval(means[:, 0, n - 1]), ideal=None, n=int(total[0, 1, n - 1])
        )
    for n, name in ((2, "rep_2"), (3, "rep_3"), (4, "seq_rep_4")):
        metrics[name] = figure(mean[1, n - 2], interval(means[:, 1, n - 2]), ideal=None, n=int(total[1, 1, n - 2]))
    return metrics


load = generated.load
HUB = bold.HUB
