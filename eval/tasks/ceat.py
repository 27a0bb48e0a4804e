"""CEAT: how are words associated in the contexts of real text, over random draws of contexts?

Paper: Guo & Caliskan 2021 (tests 6, 7 and 8 are the gender tests of WEAT), as ERA (Gupta et al. 2022) reports it.
Version 1. Each draw takes one random context of each word. Its effect size is (mean_X s − mean_Y s) / std_{X∪Y} s, ddof
1, with variance V = std². A random-effects model (`measures/association.py`) combines the draws: `ces/TEST` is the
combined effect size (ideal 0) with its two-sided p, `se/TEST` its standard error, `mean_abs_ces` the mean of |ces|.

A word's vector is the last layer's state at its last sub-token, in a context of `window` words as in the authors' code:
four before and four after it, or the first or last nine of its line (0: the whole line). As in their code a space and
no begin-of-text token stands before the context, unless `bos`. At most `contexts` occurrences of a word, drawn evenly
from the corpus, are embedded, each once. Words must match whole and in their own case, and follow a space (so that they
are the same tokens everywhere). A word that does not occur is left out with a message.

Not measured: behaviour. Standard error and interval cover the draws of contexts, not the choice of corpus or words.
Intervals: bootstrap over the draws, which are the same for every model.
"""

from __future__ import annotations

import bisect
import itertools
import random
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from counterfactuals.tokens.corpus import read_texts
from eval.data import by_group, find_data
from eval.measures.association import associations, bootstrap_combined, effect_size, random_effects, two_tailed_p
from eval.measures.intervals import interval
from eval.model import Scorer
from eval.task import Metrics, Row, check_options, figure
from eval.tasks.seat import SETS, read_tests, test_names

GENDER = ("weat6", "weat7", "weat8")
OPTIONS = {
    "corpus": "wikipedia_articles.jsonl.gz",
    "text_field": "text",
    "max_texts": 0,
    "folder": "seat",
    "tests": "gender",
    "draws": 10_000,
    "contexts": 1000,
    "window": 9,
    "layer": -1,
    "bos": False,
}
_WORD = re.compile(r"(?<!\S)[^\W_]+(?:['’-][^\W_]+)*(?=[^\w\s]*(?!\S))")  # a space before, punctuation may follow


def around(text: str, start: int, window: int) -> tuple[str, int]:
    """`window` space-separated words of the line that contains `start`, and the position of `start` in them.

    As the authors cut it: half of the window before the word, or the line's first or last words where it is near an
    end. (Their slice loses the last word after it; a causal model does not see that one.)
    """
    begin = text.rfind("\n", 0, start) + 1
    end = text.find("\n", start)
    line = text[begin : len(text) if end < 0 else end]
    spans = [match.span() for match in re.finditer(r"\S+", line)]
    if window and len(spans) > window:
        word = bisect.bisect_right(spans, (start - begin, len(line))) - 1
        first = min(max(0, word - window // 2), len(spans) - window)
        spans = spans[first : first + window]
    return line[spans[0][0] : spans[-1][1]], start - begin - spans[0][0]


def load(data_dir: Path, options: Mapping[str, Any], limit: int | None, seed: int) -> list[Row]:
    """One row a test: its words by set, and the contexts (text, offset of the word in it) of each word."""
    check_options("ceat", options, draws=2, contexts=1, window=0, max_texts=0)
    names = test_names(data_dir, options["folder"], options["tests"], GENDER)
    tests = read_tests(data_dir, options["folder"], names)
    corpus = find_data(data_dir, options["corpus"], "the texts to take contexts from; name it with --set ceat.corpus=")
    # With a limit there are so many draws, each of which takes one context of a word.
    draws = options["draws"] if limit is None else min(options["draws"], max(2, limit))
    wanted = {word for test in tests.values() for part in SETS for word in test[part]["examples"]}
    contexts = find_contexts(
        read_texts(str(corpus), text_field=options["text_field"], max_texts=options["max_texts"] or None),
        wanted,
        most=options["contexts"] if limit is None else min(options["contexts"], draws),
        window=options["window"],
        seed=seed,
    )
    rows = []
    for name, test in tests.items():
        words = {part: [word for word in test[part]["examples"] if contexts[word]] for part in SETS}
        missing = [word for part in SETS for word in test[part]["examples"] if not contexts[word]]
        if missing:
            print(f"ceat: {name}: without {', '.join(missing)}, which {corpus.name} does not have", file=sys.stderr)
        for part in SETS:
            if len(words[part]) < 2:
                raise ValueError(f"{corpus}: has too few words of {name} {part}; name a longer corpus")
        used = {word: contexts[word] for part in SETS for word in words[part]}
        rows.append({"test": name, "words": words, "contexts": used, "draws": draws})
    return rows


def find_contexts(
    texts: Any, words: set[str], *, most: int, window: int, seed: int
) -> dict[str, list[tuple[str, int]]]:
    """At most `most` contexts (text, offset) of each word, all occurrences equally likely."""
    found: dict[str, list[tuple[str, int]]] = {word: [] for word in words}
    seen = dict.fromkeys(words, 0)
    draw = random.Random(seed)
    for text in texts:
        for match in _WORD.finditer(text):
            word = match[0]
            if word not in words:
                continue
            seen[word] += 1
            if len(found[word]) < most:
                found[word].append(around(text, match.start(), window))
            elif (place := int(draw.random() * seen[word])) < most:
                found[word][place] = around(text, match.start(), window)
    return found


def drawn(counts: Sequence[int], draws: int, seed: int) -> np.ndarray:
    """The context of each word that each draw takes, all equally likely: (draws, words)."""
    return np.random.default_rng(seed).integers(np.array(counts), size=(draws, len(counts)))


def embed(scorer: Scorer, contexts: Mapping[str, Sequence[tuple[str, int]]], *, layer: int, bos: bool) -> dict:
    """{word: (contexts, D)}: the state at the last sub-token of the word.

    The text is read up to the word's end, after a space: no state of a causal model sees what follows.
    """
    places = [(word, i) for word, found in contexts.items() for i in range(len(found))]
    texts = [" " + contexts[w][i][0][: contexts[w][i][1] + len(w)] for w, i in places]
    ids = [row[-scorer.max_length :] for row in scorer.encode(texts, bos=bos)]
    out = {word: np.empty((len(found), scorer.width), np.float32) for word, found in contexts.items()}
    for (word, i), states_1D in zip(places, scorer.hidden_states(ids, [[-1]] * len(ids), layer=layer)):
        out[word][i] = states_1D[0]
    return out


def score(scorer: Scorer, rows: list[Row], options: Mapping[str, Any], seed: int) -> list[Row]:
    contexts = {word: found for row in rows for word, found in row["contexts"].items()}
    vectors = embed(scorer, contexts, layer=options["layer"], bos=options["bos"])
    out = []
    for row in rows:
        effects, variances = draw_effects([[vectors[w] for w in row["words"][s]] for s in SETS], row["draws"], seed)
        out += [
            {"test": row["test"], "draw": i, "effect": effect, "variance": variance}
            for i, (effect, variance) in enumerate(zip(effects.tolist(), variances.tolist()))
        ]
    return out


def draw_effects(sets: Sequence[Sequence[np.ndarray]], draws: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Effect size and variance of each draw; `sets`: for X, Y, A and B the vectors (contexts, D) of each word."""
    words = [vectors for part in sets for vectors in part]
    chosen = drawn([len(vectors) for vectors in words], draws, seed)
    bounds = np.cumsum([0, *map(len, sets)])
    effects, variances = np.empty(draws), np.empty(draws)
    step = max(1, 2**22 // (len(words) * words[0].shape[1]))
    for begin in range(0, draws, step):
        part = chosen[begin : begin + step]
        picked = np.stack([vectors[part[:, i]] for i, vectors in enumerate(words)], axis=1)  # (draws, words, D)
        x, y, a, b = (picked[:, low:high] for low, high in itertools.pairwise(bounds))
        s_x, s_y = associations(x, a, b), associations(y, a, b)
        effects[begin : begin + step] = effect_size(s_x, s_y)
        variances[begin : begin + step] = np.concatenate([s_x, s_y], 1).var(1, ddof=1)
    return effects, variances


def aggregate(rows: list[Row], options: Mapping[str, Any], seed: int) -> Metrics:
    figures: Metrics = {}
    combined, resampled = [], []
    for name, part in by_group(rows, "test").items():
        effects, variances = (np.array([row[key] for row in part]) for key in ("effect", "variance"))
        ces, error = map(float, random_effects(effects, variances))
        combined.append(ces)
        resampled.append(bootstrap_combined(effects, variances, seed=seed))
        p = two_tailed_p(ces, error)
        figures[f"ces/{name}"] = figure(ces, interval(resampled[-1]), ideal=0.0, n=len(part), p=p)
        figures[f"se/{name}"] = figure(error, ideal=None, n=len(part))
    mean = float(np.abs(combined).mean())
    bounds = interval(np.abs(resampled).mean(0), around=mean, most=np.inf)
    return {"mean_abs_ces": figure(mean, bounds, ideal=0.0, n=len(combined), small=False), **figures}
