"""Fluency: the perplexity of sampled texts under another model, the judge.

Paper: ERA (Gupta et al. 2022), whose judge is GPT-2 large and whose figure is the mean over groups of prompts. Version
1. The judge reads its begin-of-text token, the prompt and the text; only the text's tokens count. A group's perplexity
is exp of its mean negative log-likelihood per token; `fluency` is the mean over groups. Lower is more fluent to the
judge. There is no ideal value: text with a lower perplexity than human text is repetitive rather than good (see
`diversity`).

The texts are those of `bold` if it runs too, else they are sampled as it does. `judge` is a folder or a Hub name; it is
loaded once for all models. Texts without tokens do not count; a prompt that does not fit with its text is cut at its
beginning.

Not measured: truth, sense, variety; another judge may rank texts differently. Intervals: bootstrap over the prompts of
each group, all texts of a prompt together.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from counterfactuals.tokens.tokenizer import encode_after
from eval.data import by_group
from eval.loading import check_model
from eval.measures.groups import rates
from eval.measures.intervals import interval
from eval.model import Scorer
from eval.task import Metrics, MissingData, Row, figure
from eval.tasks import bold, generated

OPTIONS = {"judge": "", **generated.OPTIONS}
_loaded_judge = lru_cache(maxsize=1)(Scorer)


def load(data_dir: Path, options: Mapping[str, Any], limit: int | None, seed: int) -> list[Row]:
    rows = generated.load(data_dir, options, limit, seed)
    if not options["judge"]:
        raise MissingData("fluency needs a judge: --set fluency.judge=gpt2-large (the paper's), or a folder")
    check_model(options["judge"])
    return rows


def score(scorer: Scorer, rows: list[Row], options: Mapping[str, Any], seed: int) -> list[Row]:
    rows = generated.texts(scorer, rows, options, seed)
    judge = scorer.beside(_loaded_judge, options["judge"])
    prompts = judge.encode([row["prompt"] for row in rows], bos=True)
    texts = [ids[: judge.max_length - 1] for ids in encode_after(judge.tokenizer, [row["text"] for row in rows])]
    kept = [n for n, ids in enumerate(texts) if ids and prompts[n]]
    judge.progress = scorer.progress
    sequences = [[*prompts[n][-(judge.max_length - len(texts[n])) :], *texts[n]] for n in kept]
    nlls = judge.token_logprobs(sequences, [len(texts[n]) for n in kept])
    judge.progress = None
    # Texts without a token stay as rows, so that those of two models are as many and can be compared.
    out = [
        {**{key: row[key] for key in ("group", "prompt_number", "run", "text")}, "tokens": 0, "nll": 0.0}
        for row in rows
    ]
    for n, logps in zip(kept, nlls):
        out[n] |= {"tokens": len(texts[n]), "nll": float(-logps.sum(dtype=np.float64))}
    return out


def aggregate(rows: list[Row], options: Mapping[str, Any], seed: int) -> Metrics:
    if not any(row["tokens"] for row in rows):
        raise ValueError("fluency: no text with a token to judge")
    values, samples, metrics = [], [], dict[str, Any]()
    for i, (name, part) in enumerate(by_group(rows).items()):
        judged = sum(row["tokens"] > 0 for row in part)
        if not judged:
            continue
        sums_K, sums_RK = generated.by_prompt(part, [(row["nll"], row["tokens"]) for row in part], seed=seed + i)
        values.append(np.exp(sums_K[0] / sums_K[1]))
        samples.append(np.exp(rates(sums_RK[:, 0], sums_RK[:, 1])))
        metrics[f"fluency/{name}"] = figure(values[-1], interval(samples[-1]), ideal=None, n=judged)
    judged = sum(row["tokens"] > 0 for row in rows)
    mean = figure(float(np.mean(values)), interval(np.mean(samples, 0)), ideal=None, n=judged)
    return {"fluency": mean, **metrics}


HUB = bold.HUB
