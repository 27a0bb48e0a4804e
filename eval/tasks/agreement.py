"""Pronoun agreement: does a text keep the gender it began with?

Source: Evenhand's own. It measures the coherence that plain teacher perturbation can destroy. Version 1. For each
prompt: P(right) / (P(right) + P(wrong)), where each is the summed probability of its words as the next words, each
after a space, or with --chat at the beginning of a reply (all tokens of a word count). The figure is the mean over
rows: 1 is ideal, 0.5 is chance.
`agreement/female` and `agreement/male` are the halves by the gender of the right words: a model that always says "he"
scores 0 on one and 1 on the other.

Not measured: how likely any of these words is at all; agreement over long distances. Intervals: bootstrap over rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from counterfactuals.tokens.tokenizer import encode_after
from eval.data import by_frame, find_data, read_frames, read_jsonl, thinned
from eval.measures.polarity import FEMALE_WORDS, MALE_WORDS
from eval.model import Scorer
from eval.task import Metrics, Row, average

OPTIONS = {"file": "agreement.jsonl", "bos": True}


def load(data_dir: Path, options: Mapping[str, Any], limit: int | None, seed: int) -> list[Row]:
    path = find_data(data_dir, options["file"], 'prompts with right and wrong next words, {"prompt", "right", "wrong"}')
    rows = _cases(path) if path.suffix == ".yaml" else read_jsonl(path, ["prompt", "right", "wrong"])
    for number, row in enumerate(rows, 1):
        if not isinstance(row["prompt"], str) or not isinstance(row.get("half"), str | None):
            raise ValueError(f"{path} row {number}: prompt (and half, if given) must be text")
        for side in ("right", "wrong"):
            words = row[side]
            if not isinstance(words, list) or not words or not all(isinstance(w, str) and w.strip() for w in words):
                raise ValueError(f"{path} row {number}: {side} must be a list of words, not empty")
    return thinned(rows, limit)  # halves may follow each other


def _cases(path: Path) -> list[Row]:
    """A case for each frame, word and half; without `wrong` the wrong words are the right ones of the other halves."""
    table = read_frames(path)
    halves = {half: table.get("right", {}).get(half) for half in table["fill"]}
    wrong = {half: [w for other in halves if other != half for w in halves[other] or ()] for half in halves}
    wrong |= table.get("wrong", {})
    return [
        {"prompt": prompt, "right": halves[half], "wrong": wrong[half], "half": half}
        for half, words in by_frame(path).items()
        for prompts in words.values()
        for prompt in prompts
    ]


def _half(right: list[str]) -> str | None:
    words = {word.lower() for word in right}
    return "female" if words & set(FEMALE_WORDS) else "male" if words & set(MALE_WORDS) else None


def score(scorer: Scorer, rows: list[Row], options: Mapping[str, Any], seed: int) -> list[Row]:
    contexts = scorer.encode_prompts([row["prompt"].rstrip() for row in rows], bos=options["bos"])
    words = sorted({word for row in rows for word in (*row["right"], *row["wrong"])})
    tokens = dict(zip(words, encode_after(scorer.tokenizer, [scorer.continuation(f" {word}") for word in words])))
    # One run a prompt gives every word of one token; the others take a run each.
    single = sorted({ids[0] for ids in tokens.values() if len(ids) == 1})
    column = {token: i for i, token in enumerate(single)}
    next_NK = scorer.next_logprobs(contexts, single)
    several = [
        (n, word) for n, row in enumerate(rows) for word in (*row["right"], *row["wrong"]) if len(tokens[word]) > 1
    ]
    longer = dict(zip(several, scorer.continuation_logprobs([(contexts[n], tokens[word]) for n, word in several])))
    out = []
    for n, row in enumerate(rows):
        mass = {}
        for side in ("right", "wrong"):
            logps = [
                longer[n, word] if len(tokens[word]) > 1 else next_NK[n, column[tokens[word][0]]] for word in row[side]
            ]
            mass[side] = float(np.exp(np.array(logps, np.float64)).sum())
        total = mass["right"] + mass["wrong"]
        out.append(
            {
                **row,
                "half": row.get("half") or _half(row["right"]),
                "p_right": mass["right"],
                "p_wrong": mass["wrong"],
                "agreement": mass["right"] / total if total > 0 else 0.5,
            }
        )
    return out


def aggregate(rows: list[Row], options: Mapping[str, Any], seed: int) -> Metrics:
    parts = {"agreement": rows}
    for half in sorted({row["half"] for row in rows} - {None}):
        parts[f"agreement/{half}"] = [row for row in rows if row["half"] == half]
    return {name: average([row["agreement"] for row in part], ideal=1.0, seed=seed) for name, part in parts.items()}
