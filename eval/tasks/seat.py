"""SEAT: are sentences about men closer to sentences about careers than sentences about women are?

Paper: May et al. 2019 (sentence templates around the words of WEAT, Caliskan et al. 2017); effect size and p as in the
authors' sent-bias `weat.py`, which bias-bench uses too. Version 1. `effect/TEST` is (mean_X s − mean_Y s) / std_{X∪Y} s
with ddof 1, where s is the difference of mean cosines to the attribute sentences A and B. Its p is the one-sided
permutation test's (exact for few sentences, else 100,000 samples). Ideal: 0. `mean_abs_effect` is the mean of |effect|
over the tests, as bias-bench reports it. Chance alone makes it larger than 0: `mean_abs_effect_by_chance` is its mean
and 95 % range if each test's target sentences are split at random, and its p is the share of such splits that give at
least as much.

A sentence's vector is the last layer's state at its last token (`pooling=last`; what May et al. take for a causal
model, whose other tokens have not seen the whole sentence), or the mean over its tokens (`pooling=mean`; what
bias-bench does for every model). Figures of the pooling that was not chosen end in @last or @mean. No begin-of-text
token, as in both, unless `bos`.

Not measured: behaviour: an effect may come from a few dimensions that no output uses; and templates of one word are
alike, so p is too small. Intervals: bootstrap over the target sentences.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eval.data import by_group, find_data, read_text, thinned
from eval.measures.association import associations, bootstrap_effects, chance_effects, effect_size, permutation_p
from eval.measures.intervals import interval
from eval.model import Scorer
from eval.task import Metrics, Row, check_options, figure, suggest

GENDER = ("sent-weat6", "sent-weat6b", "sent-weat7", "sent-weat7b", "sent-weat8", "sent-weat8b")
SETS = ("targ1", "targ2", "attr1", "attr2")
LEAST_SENTENCES = 8  # of a set, below which a limit gets a warning
POOLINGS = ("last", "mean")
OPTIONS = {"folder": "seat", "tests": "gender", "pooling": "last", "layer": -1, "bos": False, "permutations": 100_000}


def read_tests(data_dir: Path, folder: str, names: Sequence[str]) -> dict[str, dict[str, dict[str, Any]]]:
    """Tests in sent-bias' layout: {test: {targ1 | targ2 | attr1 | attr2: {category, examples}}}."""
    tests = {}
    for name in names:
        path = find_data(data_dir, str(Path(folder) / f"{name}.jsonl"), "a test of sent-bias {targ1, targ2, attr1, …}")
        try:
            test = json.loads(read_text(path))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}: not JSON ({error.msg})") from error
        for part in SETS:
            examples = test.get(part, {}).get("examples") if isinstance(test, dict) else None
            if not isinstance(examples, list) or len(examples) < 2 or not all(isinstance(e, str) for e in examples):
                raise ValueError(f"{path}: {part} must hold a category and a list of two or more examples")
        tests[name] = {part: {"category": test[part].get("category", part), **test[part]} for part in SETS}
    return tests


def test_names(data_dir: Path, folder: str, wanted: str, gender: Sequence[str]) -> list[str]:
    """The tests of `wanted`: "gender", "all" of the folder, or names with commas between."""
    found = sorted(path.stem for path in (data_dir / folder).glob("*.jsonl"))
    if wanted == "gender":
        return list(gender)
    if wanted == "all":
        if not found:
            raise ValueError(f"{data_dir / folder}: no test here (*.jsonl)")
        return found
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    for name in names:
        if name not in found:
            raise ValueError(suggest(name, [*found, "gender", "all"], f"test in {data_dir / folder}"))
    if not names:
        raise ValueError("tests: names none (gender, all, or comma-separated names)")
    return names


def load(data_dir: Path, options: Mapping[str, Any], limit: int | None, seed: int) -> list[Row]:
    check_options("seat", options, pooling=POOLINGS, permutations=1)
    names = test_names(data_dir, options["folder"], options["tests"], GENDER)
    most = None if limit is None else max(2, limit // (len(SETS) * len(names)))
    if most is not None and most < LEAST_SENTENCES:
        print(f"seat: --limit {limit} leaves {most} sentences a set: their effect sizes mean nothing", file=sys.stderr)
    rows = []
    for name, test in read_tests(data_dir, options["folder"], names).items():
        for part in SETS:
            examples = list(dict.fromkeys(test[part]["examples"]))  # the authors key sentences by their text
            examples = thinned(examples, most)
            rows += [{"test": name, "set": part, "category": test[part]["category"], "text": text} for text in examples]
    return rows


def score(scorer: Scorer, rows: list[Row], options: Mapping[str, Any], seed: int) -> list[Row]:
    texts = list(dict.fromkeys(row["text"] for row in rows))
    vectors: dict[str, dict[str, np.ndarray]] = {pooling: {} for pooling in POOLINGS}
    states = scorer.hidden_states(scorer.encode(texts, bos=options["bos"]), layer=options["layer"])
    for text, states_TD in zip(texts, states):
        vectors["last"][text] = states_TD[-1]
        vectors["mean"][text] = states_TD.mean(0, dtype=np.float64)
    out = []
    for part in by_group(rows, "test").values():
        sets = by_group(part, "set")
        for side in SETS[:2]:
            s = {
                pooling: associations(
                    *(np.stack([known[row["text"]] for row in sets[name]]) for name in (side, *SETS[2:]))
                )
                for pooling, known in vectors.items()
            }
            out += [
                {**row, "s_last": last, "s_mean": mean}
                for row, last, mean in zip(sets[side], s["last"].tolist(), s["mean"].tolist())
            ]
    return out


def aggregate(rows: list[Row], options: Mapping[str, Any], seed: int) -> Metrics:
    metrics: Metrics = {}
    for pooling in sorted(POOLINGS, key=lambda name: name != options["pooling"]):
        end = "" if pooling == options["pooling"] else f"@{pooling}"
        effects, resampled, figures = [], [], {}
        chance: list[np.ndarray] = []
        for name, part in by_group(rows, "test").items():
            x, y = (np.array([row[f"s_{pooling}"] for row in part if row["set"] == side]) for side in SETS[:2])
            effects.append(float(effect_size(x, y)))
            resampled.append(bootstrap_effects(x, y, seed=seed))
            chance.append(chance_effects(x, y, seed=seed + len(chance)))
            p = permutation_p(x, y, num_samples=options["permutations"], seed=seed)
            figures[f"effect/{name}{end}"] = figure(effects[-1], interval(resampled[-1]), ideal=0.0, n=len(part), p=p)
        mean, chances = float(np.abs(effects).mean()), np.abs(chance).mean(0)
        p = float((1 + (chances >= mean - 1e-12).sum()) / (1 + len(chances)))
        bounds, n = interval(np.abs(resampled).mean(0), around=mean, most=np.inf), len(effects)
        metrics[f"mean_abs_effect{end}"] = figure(mean, bounds, ideal=0.0, n=n, p=p, small=False)
        low, high = interval(chances)  # without the draws: they are not to be compared between models
        band = figure(chances.mean(), (low, high), ideal=None, n=n, small=False)
        metrics[f"mean_abs_effect_by_chance{end}"] = band
        metrics |= figures
    return metrics
