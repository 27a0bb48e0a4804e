"""Perplexity: exp of the mean negative log-likelihood per token.

Source: Hugging Face's sliding-window recipe ("Perplexity of fixed-length models"), window 1024, stride 512, as ERA
(Gupta et al. 2022) reports WikiText-2. Version 1. Lower is better. There is no ideal value: the lowest possible one is
the exponential of the text's entropy.

mode `sliding` reads a plain text file as one text, whose first token is not scored. mode `documents` reads a jsonl
file; each text is its own context after the begin-of-text token, and long texts slide. `auto` decides by the file's
name. `bos=every` puts the start token before every window, later ones too, as Gemma needs it. `balanced` scores each
text and its role reversal together: a model that unlearns a skew of the world must get worse on skewed text, but need
not get worse on this. A model with fewer positions than `window` gets a shorter window
and stride in proportion; each row says which (`fitted_…`). Intervals: bootstrap over documents (or windows).

The Hub's WikiText-2 is the raw text, joined as in the recipe (GPT-2 small: 25.17 in the paper's table). The tokenised
form, with <unk>, is another text; figures on the two do not compare.

Not measured: the quality of sampled text. Models with different tokenizers do not compare.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from eval.data import find_data, read_jsonl, read_text
from eval.measures.intervals import bootstrap, cluster_sums
from eval.model import Scorer, windows
from eval.task import Hub, Metrics, Row, check_options, figure

FILE = "wikitext2/test.txt"
OPTIONS = {
    "file": FILE,
    "mode": "auto",
    "window": 1024,
    "stride": 512,
    "balanced": False,
    "lexicon": "gender",
    "text_field": "text",
    "max_texts": 0,
    "bos": "first",
}


def hub_text(records: Iterable[Mapping[str, Any]]) -> str:
    """One text from the Hub's records {"text"}, empty lines included, joined as in the recipe."""
    return "\n\n".join(record["text"] for record in records)


def load(data_dir: Path, options: Mapping[str, Any], limit: int | None, seed: int) -> list[Row]:
    windows(0, options["window"], options["stride"])  # refuses what does not fit together
    check_options("perplexity", options, max_texts=0, bos=("first", "every"))
    path = find_data(data_dir, options["file"], "the text to score, .txt as one text or .jsonl as documents")
    mode = options["mode"]
    if mode == "auto":
        mode = "documents" if path.name.removesuffix(".gz").endswith(".jsonl") else "sliding"
    if mode == "documents":
        field = options["text_field"]
        texts = [row[field] for row in read_jsonl(path, [field])]
        for number, text in enumerate(texts, 1):
            if not isinstance(text, str):
                raise ValueError(f"{path} row {number}: {field} must be text")
        texts = [text for text in texts if text.strip()][: options["max_texts"] or None]
        texts = texts[:limit]
    elif mode == "sliding":
        texts = [text] if (text := read_text(path)).strip() else []
    else:
        raise ValueError(f"perplexity.mode {mode!r}: must be auto, sliding or documents")
    if not texts:
        raise ValueError(f"{path}: no text; all of it is empty")
    # In sliding mode a limit is a number of windows, cut when the tokens are known.
    rows = [
        {"text": text, "document": i, "reversed": False, "mode": mode, "limit": limit} for i, text in enumerate(texts)
    ]
    if options["balanced"]:
        from counterfactuals.text.lexicon import load_lexicon
        from counterfactuals.text.reverse import reverse

        lexicon = load_lexicon(options["lexicon"])
        rows += [{**row, "text": reverse(row["text"], lexicon).reversed, "reversed": True} for row in rows]
    return rows


def score(scorer: Scorer, rows: list[Row], options: Mapping[str, Any], seed: int) -> list[Row]:
    documents = rows[0]["mode"] == "documents"
    # A text without gendered words equals its reversal: score it once, count it twice.
    texts = list(dict.fromkeys(row["text"] for row in rows))
    every = options["bos"] == "every"
    start = scorer.bos if every else []
    ids = scorer.encode(texts, bos=documents and not every)
    limit = rows[0]["limit"]
    window, stride = scorer.fit(options["window"], options["stride"])
    if not documents:
        if window != options["window"]:
            print(
                f"perplexity: the model reads {window} tokens at most: window {window}, stride {stride} "
                f"instead of {options['window']}, {options['stride']}",
                file=sys.stderr,
            )
        if limit is not None:
            ids = [row[: window + stride * (limit - 1)] for row in ids]
    found: dict[str, list] = {text: [] for text in texts}
    for part in scorer.sliding(ids, window=options["window"], stride=options["stride"], start=start):
        found[texts[part.text]].append(part)
    return [
        {
            "document": row["document"],
            "reversed": row["reversed"],
            "window": i,
            "tokens": w.num_tokens,
            "nll": w.nll,
            "fitted_window": window,
            "fitted_stride": stride,
        }
        for row in rows
        for i, w in enumerate(found[row["text"]])
    ]


def aggregate(rows: list[Row], options: Mapping[str, Any], seed: int) -> Metrics:
    if not rows:
        raise ValueError("perplexity: no token to score; the texts are empty or of one token")
    documents = {row["document"] for row in rows}
    clusters = [row["document"] if len(documents) > 1 else row["window"] for row in rows]
    sums_C2 = cluster_sums(clusters, [(row["nll"], row["tokens"]) for row in rows])
    nll, tokens = sums_C2.sum(0)
    interval = bootstrap(sums_C2, lambda s: np.exp(s[:, 0] / s[:, 1]), seed=seed)
    return {"perplexity": figure(np.exp(nll / tokens), interval, ideal=None, n=tokens)}


HUB = {FILE: Hub("Salesforce/wikitext", "test", hub_text, config="wikitext-2-raw-v1")}
