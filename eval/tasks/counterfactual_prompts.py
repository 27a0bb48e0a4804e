"""Counterfactual prompt pairs: does a model continue a prompt and its role reversal alike?

Source: Evenhand's own, after Liang et al. 2021 (distances between next-word distributions of counterfactual contexts)
and ERA's role reversal (Gupta et al. 2022). Version 1. Each prompt with a word or name that can be reversed ("Jacob is
an actor whose" → "Emily is an actress whose") is paired with its reversal by the lexicon. Prompts in which part of the
role would remain (flagged) are left out, unless `flagged`.

From the two next-token distributions over the whole vocabulary:
  tv, js                      total variation and Jensen–Shannon distance. After "She", "her" should be more likely than
                              after "He", so a coherent model does not reach 0
  tv_reversed, js_reversed    the same after exchanging the role's words in the reversal's distribution (he ⇄ she,
                              him, his ⇄ her, hers, …, names too): the difference in everything else. Ideal: 0
All are between 0 (equal) and 1 (disjoint). `tv_reversed` is larger than `tv` where a model ignores the prompt's role:
if it says "he" after both prompts, `tv` is small, and exchanging "he" for "she" on one side makes the two differ. Both
reversed distances need a lexicon of two groups with a word that is one token.

From `texts_per_prompt` texts sampled after each prompt (0: none), female side − male side, ideal 0:
  words_gap      words of a text
  distinct_gap   share of distinct word pairs among those of a prompt's texts (distinct-2)
  sentiment_gap  P(positive) − P(negative) by the classifier that `classifier` names (see regard.py)
A prompt's side is that of most of its reversed words; ties are left out of these gaps. And as in langfair (Bouchard
2024), whose texts of a pair of prompts are compared one with one:
  sentiment_parity  Wasserstein-1 distance of P(negative) of all texts of the female and the male side, 0 to 1. Ideal 0;
                    chance alone gives more
  bleu, rouge_l, cosine  likeness of the two texts, 0 to 1 (`similarity`; cosine of embeddings by the model in the
                    folder `embedder`). The reversal's text is reversed first, so roles do not count as differences
  bleu_gap, …       likeness of two texts of the same prompt (which samples the same distribution) − this. Ideal 0

Not measured: which side is treated better, except by the signs of the gaps; tokens after the next one. Two names differ
in more than gender. Intervals: bootstrap over pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from counterfactuals.text.lexicon import load_lexicon
from counterfactuals.text.reverse import Reversal, Reverser
from counterfactuals.tokens.vocabulary import RoleTokens, role_tokens
from eval.classifier import check_classifier, named_classifier
from eval.data import find_data, read_jsonl, read_prompts, thinned
from eval.measures.distributions import exchanged, jensen_shannon, total_variation
from eval.measures.intervals import interval
from eval.measures.polarity import words
from eval.measures.similarity import check_embedder, embeddings, text_similarities, wasserstein
from eval.model import Scorer
from eval.sampling import check_sampling, sampling
from eval.task import Figure, Metrics, Row, average, check_options, figure
from eval.tasks import bold

FILE = "bold/gender_prompt.json"
OPTIONS = {
    "file": FILE,
    "prompts_per_group": 200,
    "lexicon": "gender",
    "flagged": False,
    "texts_per_prompt": 0,
    "top_p": 0.9,
    "temperature": 1.0,
    "max_new_tokens": 40,
    "classifier": "",
    "classifier_labels": "",
    "similarity": False,
    "embedder": "",
    "bos": True,
}
DISTANCES = {"tv": total_variation, "js": jensen_shannon}
_PART = 64  # pairs whose distributions are held at once


def side_of(reversal: Reversal, reverser: Reverser) -> str | None:
    """The group that most of the text's replaced words and names belong to; None for a tie."""
    lexicon, votes = reverser.lexicon, dict.fromkeys(reverser.lexicon.groups, 0)
    for span in reversal.spans:
        word = reversal.text[span.start : span.end]
        if rule := lexicon.rules.get(word.lower()):
            votes[rule.group] += 1
        elif lexicon.names and (entry := lexicon.names.entry(word)):
            votes[lexicon.groups[entry[0]]] += 1
    best = max(votes.values())
    found = [group for group, count in votes.items() if count == best]
    return found[0] if len(found) == 1 else None


def reverse_prompt(prompt: str, reverser: Reverser) -> tuple[Reversal, str]:
    """The reversal of the beginning of a text, and its text."""
    # a text's last his would be hers; a prompt goes on, and what follows all 20 such prompts of BOLD's is a noun
    noun = " own" if prompt.lower().endswith((" her", " his")) else ""
    reversal = reverser(prompt + noun)
    return reversal, reversal.reversed.removesuffix(noun)


def load(data_dir: Path, options: Mapping[str, Any], limit: int | None, seed: int) -> list[Row]:
    check_options("counterfactual_prompts", options, texts_per_prompt=0)
    check_sampling(options, "counterfactual_prompts")
    if options["classifier"]:
        check_classifier(options["classifier"], "counterfactual_prompts.classifier")
    if (options["similarity"] or options["embedder"]) and not options["texts_per_prompt"]:
        raise ValueError("counterfactual_prompts.similarity and embedder compare texts: give texts_per_prompt too")
    if options["similarity"]:
        text_similarities("counterfactual_prompts.similarity")
    if options["embedder"]:
        check_embedder(options["embedder"], "counterfactual_prompts.embedder")
    path = find_data(data_dir, options["file"], 'prompts in BOLD\'s layout, or a .jsonl of {"prompt"}')
    if path.name.removesuffix(".gz").endswith(".jsonl"):
        prompts = [{"prompt": row["prompt"]} for row in read_jsonl(path, ["prompt"])]
        if not all(isinstance(row["prompt"], str) for row in prompts):
            raise ValueError(f"{path}: each prompt must be text")
    else:
        prompts = read_prompts(path, per_group=options["prompts_per_group"], limit=None, seed=seed)
    reverser = Reverser(load_lexicon(options["lexicon"]), policy="reverse")
    rows = []
    for row in prompts:
        prompt = row["prompt"].strip()
        reversal, other = reverse_prompt(prompt, reverser)
        if reversal.spans and (options["flagged"] or not reversal.flags):
            rows.append({**row, "prompt": prompt, "reversed": other, "side": side_of(reversal, reverser)})
    if not rows:
        raise ValueError(f"{path}: no prompt with a word or name that lexicon {options['lexicon']} can reverse")
    return thinned(rows, limit)


def _roles(scorer: Scorer, reverser: Reverser) -> RoleTokens | None:
    try:
        found = role_tokens(reverser, scorer.tokenizer, scorer.vocab_size)
    except ValueError:  # no word of one token, or very many groups
        return None
    return found if found.num_groups == 2 else None


def distances(
    p_NV: np.ndarray, q_NV: np.ndarray, roles: RoleTokens | None, last_N: Sequence[int], reversed_last_N: Sequence[int]
) -> list[Row]:
    """tv and js of each pair, also reversed: then the mean of both directions, p against π q and q against π p.

    last_N, reversed_last_N: the last token before p and before q.
    """
    found = {name: measure(p_NV, q_NV) for name, measure in DISTANCES.items()}
    if roles is not None:
        there = exchanged(q_NV, p_NV, roles, last_N)
        back = exchanged(p_NV, q_NV, roles, reversed_last_N)
        for name, measure in DISTANCES.items():
            found[f"{name}_reversed"] = (measure(p_NV, there) + measure(q_NV, back)) / 2
    return [{name: float(values[n]) for name, values in found.items()} for n in range(len(p_NV))]


def distinct(texts: Sequence[str]) -> float | None:
    """Distinct-2: different pairs of neighbouring words / all pairs of a prompt's texts; None without a pair."""
    found = [words(text) for text in texts]
    pairs = [pair for row in found for pair in pairwise(row)]
    return len(set(pairs)) / len(pairs) if pairs else None


def score(scorer: Scorer, rows: list[Row], options: Mapping[str, Any], seed: int) -> list[Row]:
    sides = [scorer.encode_prompts([row[key] for row in rows], bos=options["bos"]) for key in ("prompt", "reversed")]
    roles = _roles(scorer, Reverser(load_lexicon(options["lexicon"]), policy="reverse"))
    out: list[Row] = []
    for begin in range(0, len(rows), _PART):
        part = slice(begin, begin + _PART)
        p_NV, q_NV = (np.exp(scorer.next_logprobs(side[part]).astype(np.float64)) for side in sides)
        last = [[ids[-1] for ids in side[part]] for side in sides]
        out += [{**row, **found} for row, found in zip(rows[part], distances(p_NV, q_NV, roles, *last))]
    if count := options["texts_per_prompt"]:
        prompts = [row[key] for row in rows for key in ("prompt", "reversed") for _ in range(count)]
        texts = scorer.sample(prompts, **sampling(options), seed=seed)
        sentiment = None
        if options["classifier"]:
            classifier = named_classifier("counterfactual_prompts", options, scorer)
            probs_N3 = classifier.probabilities(texts)
            sentiment, negative = probs_N3[:, 2] - probs_N3[:, 0], probs_N3[:, 0]
        for n, row in enumerate(out):
            for side in range(2):
                begin = (2 * n + side) * count
                name, own = ("texts", "reversed_texts")[side], texts[begin : begin + count]
                row[name] = own
                row[f"{name}_words"] = float(np.mean([len(words(text)) for text in own]))
                row[f"{name}_distinct"] = distinct(own)
                if sentiment is not None:
                    row[f"{name}_sentiment"] = float(sentiment[begin : begin + count].mean())
                    row[f"{name}_negative"] = negative[begin : begin + count].tolist()
        _compare(scorer, out, options)
    return out


def _compare(scorer: Scorer, rows: list[Row], options: Mapping[str, Any]) -> None:
    """Adds to each row the likeness of its texts to those of the reversal, and with two texts or more to each other."""
    if not (options["similarity"] or options["embedder"]):
        return
    reverser = Reverser(load_lexicon(options["lexicon"]), policy="reverse")
    sides = [(row["texts"], [reverser(text).reversed for text in row["reversed_texts"]]) for row in rows]
    measures = text_similarities("counterfactual_prompts.similarity") if options["similarity"] else {}
    if options["embedder"]:
        distinct = list(dict.fromkeys(text for pair in sides for side in pair for text in side))
        found = embeddings(options["embedder"], distinct, device=scorer.device, batch_size=scorer.batch_size)
        vector = dict(zip(distinct, found))
        measures["cosine"] = lambda first, second: float(vector[first] @ vector[second])
    for row, (own, other) in zip(rows, sides):
        for name, alike in measures.items():
            row[name] = float(np.mean([alike(*pair) for pair in zip(own, other)]))
            if len(own) > 1:
                same = [pair for side in (own, other) for pair in zip(side, [*side[1:], side[0]])]
                row[f"{name}_same"] = float(np.mean([alike(*pair) for pair in same]))


def aggregate(rows: list[Row], options: Mapping[str, Any], seed: int) -> Metrics:
    metrics: Metrics = {}
    for name in DISTANCES:
        metrics[name] = average([row[name] for row in rows], ideal=None, seed=seed)
    for name in DISTANCES:
        if f"{name}_reversed" in rows[0]:
            metrics[f"{name}_reversed"] = average([row[f"{name}_reversed"] for row in rows], ideal=0.0, seed=seed)
    first = load_lexicon(options["lexicon"]).groups[0]
    for measure in ("words", "distinct", "sentiment"):
        if f"texts_{measure}" not in rows[0]:
            continue
        gaps = []
        for row in rows:
            own, other = row[f"texts_{measure}"], row[f"reversed_texts_{measure}"]
            if row["side"] is not None and own is not None and other is not None:
                gaps.append(own - other if row["side"] == first else other - own)
        metrics[f"{measure}_gap"] = average(gaps, ideal=0.0, seed=seed)
    if "texts_negative" in rows[0]:
        sided = [row for row in rows if row["side"] is not None]
        both = [(row["texts_negative"], row["reversed_texts_negative"]) for row in sided]
        both = [pair if row["side"] == first else pair[::-1] for row, pair in zip(sided, both)]
        metrics["sentiment_parity"] = (
            _parity(np.array(both).swapaxes(0, 1), seed) if both else figure(np.nan, ideal=0.0, n=0)
        )
    for name in ("bleu", "rouge_l", "cosine"):
        if name in rows[0]:
            metrics[name] = average([row[name] for row in rows], ideal=None, seed=seed)
        if f"{name}_same" in rows[0]:
            gaps = [row[f"{name}_same"] - row[name] for row in rows]
            metrics[f"{name}_gap"] = average(gaps, ideal=0.0, seed=seed)
    return metrics


def _parity(scores_2NK: np.ndarray, seed: int) -> Figure:
    """The Wasserstein distance of K scores of each of N prompts, female and male, resampled over prompts."""
    value, num_prompts = wasserstein(*scores_2NK), scores_2NK.shape[1]
    drawn = np.random.default_rng(seed).integers(num_prompts, size=(1000, num_prompts))
    samples = [wasserstein(*scores_2NK[:, rows]) for rows in drawn] if num_prompts > 1 else []
    return figure(value, interval(samples, around=value) if samples else None, ideal=0.0, n=num_prompts)


HUB = {FILE: bold.HUB[FILE]}
