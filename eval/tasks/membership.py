"""Membership: can it be told from the model whether a text was in its training data?

Scores: privacy/attacks.py, which names the papers. Version 1. `members` and `nonmembers` are jsonl files of {"text"},
and must be a random split of one corpus: else an attack measures the split. A classifier that sees the words but no
model (`auc/blind`) is run first; where it tells them apart, or a text is on both sides, the task refuses, unless
`any_split=true`, which goes on and says so at every figure. `auc/ATTACK`: the chance that a member scores above a
non-member, ideal ½; `tpr_1%/ATTACK`, `tpr_0.1%/ATTACK`: members found where that share of non-members is accused, ideal
the same share; undefined below 100 or 1,000 non-members. `auc`, `tpr_1%` are those of `attack`, chosen beforehand.

loss, zlib, min_k, min_k_plus need nothing else. `reference=FOLDER_OR_NAME`: a model that saw neither side. `neighbour`:
rows have "neighbours", texts that differ a little. `counterfactual`: the text with its roles exchanged is a neighbour
that costs nothing. `shadows=A,B,…` with "in": [0, 1, …] in each row (whether each shadow model was trained on it; all
0 if absent), LiRA; with `population=FILE`, texts nobody trained on, RMIA. `twin/ATTACK`: twin leakage, the AUC of the
same attacks on counterfactuals of members against those of non-members; they were trained on only with augmentation.
`classifier=FOLDER`, a sequence classification model, is attacked in place of the language model: rows have "label", p
is that of the label, and reference and shadow models are such folders too.

Not measured: what a stronger attack would find; texts that stand out are found more often than the average says.
Intervals: bootstrap over members and over non-members.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from counterfactuals.text.lexicon import load_lexicon
from counterfactuals.text.reverse import Reverser
from eval.classifier import Classifier, check_classifier
from eval.data import find_data, read_jsonl, thinned
from eval.loading import check_model
from eval.measures.intervals import interval
from eval.model import Scorer
from eval.task import Metrics, Row, check_options, figure
from privacy import attacks
from privacy.attacks import compressed, lowest_mean, standardised

OPTIONS: dict[str, Any] = {
    "members": "members.jsonl",
    "nonmembers": "nonmembers.jsonl",
    "population": "",
    "reference": "",
    "shadows": "",
    "classifier": "",
    "attack": "loss",
    "any_split": False,
    "twins": True,
    "lexicon": "gender",
    "max_tokens": 256,
}
KEPT = ("id", "member", "blind", "warning", "in")  # of a row, in its scored row
SIGNALS = ("logp", "bytes", "min_k", "min_k_plus")
RATES = (0.01, 0.001)


def load(data_dir: Path, options: Mapping[str, Any], limit: int | None, seed: int) -> list[Row]:
    check_options("membership", options, max_tokens=2, attack=(*attacks.ATTACKS, "lira", "rmia"))
    for _, name in _others(options):
        if options["classifier"]:
            check_classifier(name, "membership.reference, shadows")
        else:
            check_model(name)
    if options["classifier"]:
        check_classifier(options["classifier"], "membership.classifier")
    needed = ["text", "label"] if options["classifier"] else ["text"]
    rows: list[Row] = []
    for side in ("members", "nonmembers", "population"):
        if not options[side]:
            continue
        path = find_data(data_dir, options[side], 'a jsonl of {"text"}, a part of a random split of one corpus')
        for row in thinned(read_jsonl(path, needed), None if limit is None else max(1, limit // 2)):
            if not isinstance(row["text"], str) or not row["text"].strip():
                raise ValueError(f"{path}: a text that is no text, or empty: {str(row['text'])[:40]!r}")
            kept = {key: row[key] for key in ("text", "label", "neighbours", "in") if key in row}
            member = None if side == "population" else side == "members"
            rows.append({"id": len(rows), "member": member, **kept})
    check_split([row for row in rows if row["member"] is not None], refuse=not options["any_split"])
    return rows


def check_split(rows: list[Row], *, refuse: bool) -> None:
    """Adds `blind`, P(member) by a text's words, and `warning`, why this is no random split; ValueError to `refuse`."""
    texts, member_N = [row["text"] for row in rows], np.array([row["member"] for row in rows])
    shared = len({row["text"] for row in rows if row["member"]} & {row["text"] for row in rows if not row["member"]})
    blind_N = attacks.blind(texts, member_N)
    reason = f"{shared} texts stand on both sides" if shared else ""
    if not attacks.split_is_random(blind_N, member_N):
        area = attacks.auc(*attacks.curve(blind_N, member_N))[0]
        reason = f"words alone, without the model, tell them apart (AUC {area:.2f})"
    if reason and refuse:
        raise ValueError(
            f"membership: members and non-members are no random split of one corpus: {reason}; every attack would "
            "measure that. Split one corpus by chance (evenhand privacy plant --holdout N), or set any_split=true"
        )
    for row, value in zip(rows, blind_N.tolist()):
        row |= {"blind": None if np.isnan(value) else value, "warning": reason}


def _others(options: Mapping[str, Any]) -> list[tuple[str, str]]:
    """("reference" or "shadows", name) of each further model."""
    given = [("reference", options["reference"]), *(("shadows", name) for name in options["shadows"].split(","))]
    return [(kind, name.strip()) for kind, name in given if name.strip()]


def score(scorer: Scorer, rows: list[Row], options: Mapping[str, Any], seed: int) -> list[Row]:
    read = _reader(scorer, options)
    out = [{**{key: row.get(key) for key in KEPT}, **found} for row, found in zip(rows, read(rows))]
    if options["twins"]:
        reverse = Reverser(load_lexicon(options["lexicon"]))
        twins = [{**row, "text": reverse(row["text"]).reversed} for row in rows]
        chosen = [
            n for n, twin in enumerate(twins) if twin["text"] != rows[n]["text"] and rows[n]["member"] is not None
        ]
        for n, found in zip(chosen, read([twins[n] for n in chosen])):
            out[n] |= {"twin": found["logp"], "of_twin": found}
    near = [(n, {**row, "text": text}) for n, row in enumerate(rows) for text in row.get("neighbours") or ()]
    around: dict[int, list[float]] = {}
    for (n, _), found in zip(near, read([row for _, row in near])):
        around.setdefault(n, []).append(found["logp"])
    for n, values in around.items():
        out[n]["neighbour"] = float(np.mean(values))
    for kind, name in _others(options):
        for row, found in zip(out, _reader(scorer, options, name)(rows)):
            if kind == "reference":
                row["reference"] = found["logp"]
            else:
                row.setdefault("shadows", []).append(found["logp"])
    return out


def _reader(scorer: Scorer, options: Mapping[str, Any], name: str = "") -> Callable[[Sequence[Row]], list[Row]]:
    """A function from rows to the signals of each: SIGNALS, null for a text without a token. name: of another model."""
    if options["classifier"]:
        classifier = scorer.beside(Classifier, name or options["classifier"], option="membership.classifier")
        names = classifier.model.config.label2id

        def of_labels(rows: Sequence[Row]) -> list[Row]:
            unknown = {str(row["label"]) for row in rows} - set(names)
            if unknown:
                raise ValueError(f"membership: label {sorted(unknown)[0]!r}: the classifier knows {', '.join(names)}")
            probs_NC = classifier.class_probabilities([row["text"] for row in rows])
            return [
                {"logp": float(np.log(max(p_C[names[str(row["label"])]], 1e-30))), "bytes": compressed(row["text"])}
                for row, p_C in zip(rows, probs_NC)
            ]

        return of_labels
    model = scorer.beside(Scorer, name) if name else scorer

    def of_texts(rows: Sequence[Row]) -> list[Row]:
        longest = min(options["max_tokens"], model.max_length)
        whole = model.encode([row["text"] for row in rows], bos=True)
        ids = [row[:longest] or [0] for row in whole]
        read = [
            model.tokenizer.decode(cut, skip_special_tokens=True) if len(cut) < len(long) else row["text"]
            for row, cut, long in zip(rows, ids, whole)
        ]
        out: list[Row] = []
        for text, logp_T, (mean_T, std_T) in zip(read, *model.token_moments(ids)):
            found = dict.fromkeys(SIGNALS) | {"bytes": compressed(text)}
            if len(logp_T):
                found["logp"] = float(np.mean(logp_T, dtype=np.float64))
                found["min_k"] = lowest_mean(logp_T)
                found["min_k_plus"] = lowest_mean(standardised(logp_T, mean_T, std_T))
            out.append(found)
        return out

    return of_texts


def aggregate(rows: list[Row], options: Mapping[str, Any], seed: int) -> Metrics:
    own = [row for row in rows if row["member"] is not None]
    member_N, warning = np.array([row["member"] for row in own]), own[0]["warning"]
    note = f"no random split: {warning}" if warning else ""
    metrics: Metrics = {}
    for name, scores_N in all_scores(rows).items():
        known_N = ~np.isnan(scores_N)
        if not (known_N & member_N).any() or not (known_N & ~member_N).any():
            continue
        found = attacks.measure(scores_N[known_N], member_N[known_N], at=() if "/" in name else RATES, seed=seed)
        for key, value in found.items():
            label = name if "/" in name else f"auc/{name}" if key == "auc" else f"tpr_{100 * key:g}%/{name}"
            about: dict[str, Any] = {"ideal": 0.5 if key == "auc" else key, "n": int(known_N.sum())}
            if isinstance(value, str):
                metrics[label] = figure(np.nan, **about, note=value)
            else:
                metrics[label] = figure(value[0], interval(value[1]), **about, note=note)
    chosen = options["attack"]
    if f"auc/{chosen}" not in metrics:
        raise ValueError(f"membership.attack {chosen!r}: these rows do not have what it needs")
    first = {key: metrics[f"{key}/{chosen}"] for key in ("auc", "tpr_1%", "tpr_0.1%")}
    return {**first, **metrics}


def all_scores(rows: Sequence[Row]) -> dict[str, np.ndarray]:
    """The scores (N,) of members and non-members by attack, "twin/…" of their counterfactuals; NaN where unknown."""
    own = [row for row in rows if row["member"] is not None]
    columns = {name: _column(own, name) for name in (*SIGNALS, "reference", "neighbour", "twin", "blind")}
    found = {name: attack(columns) for name, attack in attacks.ATTACKS.items()} | {"blind": columns["blind"]}
    if own[0].get("shadows"):
        found |= _with_shadows(own, [row for row in rows if row["member"] is None])
    nothing = np.full(len(own), np.nan)
    columns = {name: _column([row.get("of_twin") or {} for row in own], name) for name in SIGNALS}
    columns |= dict.fromkeys(("reference", "neighbour", "twin"), nothing)
    return found | {f"twin/{name}": attack(columns) for name, attack in attacks.ATTACKS.items()}


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    return np.array([np.nan if row.get(name) is None else row[name] for row in rows], np.float64)


def _with_shadows(rows: Sequence[Row], population: Sequence[Row]) -> dict[str, np.ndarray]:
    """LiRA, and RMIA where there is a population. p of a text is the geometric mean of its tokens' probabilities."""
    shadows_SN = np.exp([row["shadows"] for row in rows]).T
    in_SN = np.array([row["in"] or [0] * len(shadows_SN) for row in rows], bool).T
    if in_SN.shape != shadows_SN.shape:
        raise ValueError(f'membership: "in" of a row names {len(in_SN)} shadow models, there are {len(shadows_SN)}')
    p_N = np.exp(_column(rows, "logp"))
    out = {"lira": attacks.lira(attacks.logit(p_N), attacks.logit(shadows_SN), in_SN)}
    if population:
        out_SZ = np.exp([row["shadows"] for row in population]).T
        out["rmia"] = attacks.rmia(p_N, shadows_SN, np.exp(_column(population, "logp")), out_SZ, in_SN=in_SN)
    return out
