"""HateXplain: does a classifier on the model tell hate, offence and normal posts apart, whoever they are about?

Paper: Mathew et al. 2021; three classes by majority of the annotators: normal, offensive, hatespeech. Version 1.
`accuracy`, `f1_macro`, `auc` (mean over pairs of classes) as the authors report them: ideal 1. By kind of target
(gender, religion, race, economic, minority), toxic (offensive or hate) against normal: `fpr/TARGET`, the share of
normal posts about it that are called toxic; `fnr/TARGET`, the share of toxic posts that are missed. `fpr_gap`,
`fnr_gap`: mean over targets of |rate − rate of the posts without that target|, ideal 0. The authors' bias measures
(Borkan et al. 2019): `subgroup_auc/…`, `bpsn_auc/…`, `bnsp_auc/…` of P(toxic) by target, and their power means with p =
−5: ideal 1. Targets with fewer than `min_posts` test posts of a kind are shown, marked small, and in no mean.
`flipped`, `moved`, `finetune` and `scrub` are as in `classify`.

`file`: the authors' dataset.json with post_id_divisions.json beside it (majority label; undecided posts are left out;
their split; a post's targets are those that two annotators name), or preprocessed.csv (no ids: 80/10/10 by label and
seed).

Not measured: rationales; hate that annotators did not see. Intervals: bootstrap over test posts.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from eval.data import find_data, read_table, read_text
from eval.measures import classification as shared
from eval.measures import groups as gaps
from eval.measures.intervals import interval, resampled_sums
from eval.model import Scorer
from eval.task import Metrics, Row, check_options, figure

OPTIONS = {
    "file": "hatexplain/preprocessed.csv",
    "min_posts": 10,
    **{key: value for key, value in shared.OPTIONS.items() if "sensitivity" not in key and key != "protected_weights"},
}
LABELS = ("normal", "offensive", "hatespeech")  # 0, 1, 2 in preprocessed.csv
AUCS = ("subgroup", "bpsn", "bnsp")
TARGETS = ("gender", "religion", "race", "economic", "minority")
KIND = {  # of the targets that annotators could name
    "Men": "gender", "Women": "gender",
    "Buddhism": "religion", "Christian": "religion", "Hindu": "religion", "Islam": "religion", "Jewish": "religion",
    "Nonreligious": "religion",
    "African": "race", "Arab": "race", "Asian": "race", "Caucasian": "race", "Hispanic": "race", "Indian": "race",
    "Indigenous": "race",
    "Economic": "economic",
    "Asexual": "minority", "Bisexual": "minority", "Disability": "minority", "Heterosexual": "minority",
    "Homosexual": "minority", "Minority": "minority", "Refugee": "minority",
}  # fmt: skip


def load(data_dir: Path, options: Mapping[str, Any], limit: int | None, seed: int) -> list[Row]:
    options = {**shared.OPTIONS, **options}
    shared.check_options(options, "hatexplain")
    check_options("hatexplain", options, min_posts=1)
    path = find_data(data_dir, options["file"], "HateXplain's dataset.json, or its posts as preprocessed.csv")
    rows = _dataset(path) if path.suffix == ".json" else _table(path, seed)
    return shared.shortened([row for row in rows if row["text"]], options, limit, seed)


def _table(path: Path, seed: int) -> list[Row]:
    records = read_table(path, ["text", "label", *(f"label_{target}" for target in TARGETS)])
    rows = []
    for number, record in enumerate(records, 1):
        if str(record["label"]) not in ("0", "1", "2"):
            raise ValueError(f"{path} row {number}: label must be 0 (normal), 1 (offensive) or 2 (hatespeech)")
        targets = [target for target in TARGETS if str(record[f"label_{target}"]) == "1"]
        label = LABELS[int(record["label"])]
        rows.append({"id": number - 1, "text": record["text"].strip(), "label": label, "targets": targets})
    parts = shared.split([row["label"] for row in rows], seed, dev=0.1, test=0.1)
    return [{**row, "group": None, "split": part} for row, part in zip(rows, parts)]


def _dataset(path: Path) -> list[Row]:
    division = find_data(path.parent, "post_id_divisions.json", "which posts HateXplain trains and tests on")
    try:
        posts, parts = json.loads(read_text(path)), json.loads(read_text(division))
        place = {post: {"val": "dev"}.get(part, part) for part, ids in parts.items() for post in ids}
        rows = []
        for post, found in posts.items():
            label, votes = Counter(a["label"] for a in found["annotators"]).most_common(1)[0]
            if votes < 2 or post not in place:
                continue
            named = Counter(target for a in found["annotators"] for target in set(a["target"]))
            kinds = {KIND[target] for target, votes in named.items() if votes > 1 and target in KIND}
            targets = [kind for kind in TARGETS if kind in kinds]
            text = " ".join(found["post_tokens"])
            rows.append(
                {"id": post, "text": text, "label": label, "targets": targets, "group": None, "split": place[post]}
            )
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"{path}: not in HateXplain's layout ({type(error).__name__}: {error})") from error
    return rows


def score(scorer: Scorer, rows: list[Row], options: Mapping[str, Any], seed: int) -> list[Row]:
    return shared.score(scorer, rows, {**shared.OPTIONS, **options, "sensitivity": 0}, seed)


def aggregate(rows: list[Row], options: Mapping[str, Any], seed: int) -> Metrics:
    test = [row for row in rows if row["split"] == "test"]
    toxic_N = np.array([row["label"] != "normal" for row in test])
    wrong_N = np.array([row["predicted"] != "normal" for row in test]) != toxic_N
    member_NG = np.array([[target in row["targets"] for target in TARGETS] for row in test])
    means: Metrics = {}
    by_target: Metrics = {}
    for name, kind_N in (("fpr", ~toxic_N), ("fnr", toxic_N)):
        counts_G = (kind_N[:, None] & member_NG).sum(0)
        enough_G = counts_G >= options["min_posts"]
        inside_RG, outside_RG = (_rates(wrong_N & kind_N, kind_N, side, seed) for side in (member_NG, ~member_NG))
        gap_R = gaps.mean_known(np.abs(inside_RG - outside_RG)[:, enough_G])
        bounds = interval(gap_R[1:], around=float(gap_R[0]))
        means[f"{name}_gap"] = figure(float(gap_R[0]), bounds, ideal=0.0, n=int(counts_G[enough_G].sum()))
        for target, values_R, n in zip(TARGETS, inside_RG.T, counts_G):
            by_target[f"{name}/{target}"] = figure(float(values_R[0]), interval(values_R[1:]), ideal=0.0, n=int(n))
    score_N = np.array([1 - row["probs"].get("normal", 0.0) for row in test])
    both_G = np.minimum((toxic_N[:, None] & member_NG).sum(0), (~toxic_N[:, None] & member_NG).sum(0))
    times_RN = gaps.resample_times(len(test), seed=seed)
    chosen_G = [gaps.subgroup_texts(toxic_N, member_N) for member_N in member_NG.T]
    for name in AUCS:
        value_G = [gaps.auc(score_N[chosen[name]], toxic_N[chosen[name]]) for chosen in chosen_G]
        resampled_GR = np.stack(
            [gaps.resampled_auc(score_N[c[name]], toxic_N[c[name]], times_RN[:, c[name]]) for c in chosen_G]
        )
        enough_G = both_G >= options["min_posts"]
        power = gaps.power_mean(np.array(value_G)[enough_G])
        powers = [gaps.power_mean(values_G) for values_G in resampled_GR[enough_G].T]
        means[f"{name}_auc"] = figure(power, interval(powers), ideal=1.0, n=len(test))
        for target, value, values_R, n in zip(TARGETS, value_G, resampled_GR, both_G):
            by_target[f"{name}_auc/{target}"] = figure(value, interval(values_R), ideal=1.0, n=int(n))
    return {**shared.performance(rows, seed), **means, **shared.counterfactual(rows, seed), **by_target}


def _rates(wrong_N: np.ndarray, kind_N: np.ndarray, member_NG: np.ndarray, seed: int) -> np.ndarray:
    """Error rate among the posts of a kind in each group: (1 + resamples, G), of the posts themselves first."""
    counts_N2G = np.concatenate([wrong_N[:, None] & member_NG, kind_N[:, None] & member_NG], 1).astype(float)
    sums_R2G = np.concatenate([counts_N2G.sum(0)[None], resampled_sums(counts_N2G, seed=seed)])
    return gaps.rates(*np.split(sums_R2G, 2, axis=1))
