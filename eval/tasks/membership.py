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
`classifier=FOLDER`, a sequence classification model, or `head=true`, a head trained on the members, is attacked in
place of the language model: rows have "label", p is that of the label.

Not measured: what a stronger attack would find; texts that stand out are found more often than the average says.
Intervals: bootstrap over members and over non-members.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eval.classifier import check_classifier, named_classifier
from eval.data import find_data, read_jsonl, thinned
from eval.measures import heads, targets
from eval.measures.intervals import interval
from eval.model import Scorer, check_model
from eval.task import Metrics, Row, Task, figure
from eval.task import check_options as check_ranges
from privacy import attacks

OPTIONS: dict[str, Any] = {
    "members": "members.jsonl",
    "nonmembers": "nonmembers.jsonl",
    "population": "",
    "reference": "",
    "shadows": "",
    "attack": "loss",
    "any_split": False,
    "twins": True,
    "lexicon": "gender",
    "max_tokens": 256,
    "classifier": "",
    "head": False,
    "finetune": True,
    "epochs": 20,
    "lr": 1e-3,
    "finetune_epochs": 3,
    "finetune_lr": 5e-5,
}
SIGNALS = ("logp", "min_k", "min_k_plus", "bytes", "reference", "neighbour", "twin")
RATES = (0.01, 0.001)


def load(data_dir: Path, options: Mapping[str, Any], limit: int | None, seed: int) -> list[Row]:
    check_ranges("membership", options, max_tokens=2, attack=(*attacks.ATTACKS, "lira", "rmia"))
    labelled = bool(options["classifier"] or options["head"])
    rows: list[Row] = []
    for side in ("members", "nonmembers"):
        path = find_data(data_dir, options[side], 'a jsonl of {"text"}: one half of a random split of one corpus')
        found = read_jsonl(path, ["text", "label"] if labelled else ["text"])
        for row in thinned(found, None if limit is None else max(1, limit // 2)):
            kept = {key: row[key] for key in ("text", "label", "neighbours", "in") if key in row}
            rows.append({"id": len(rows), "member": side == "members", **kept})
    _check_models(options)
    texts, member_N = [row["text"] for row in rows], np.array([row["member"] for row in rows])
    blind_N = attacks.blind(texts, member_N)
    shared = set(np.array(texts, object)[member_N]) & set(np.array(texts, object)[~member_N])
    reason = f"{len(shared)} texts stand on both sides" if shared else ""
    if not attacks.split_is_random(blind_N, member_N):
        found = attacks.auc(*attacks.curve(blind_N, member_N))[0]
        reason = f"words alone, without the model, tell them apart (AUC {found:.2f})"
    if reason and not options["any_split"]:
        raise ValueError(
            f"membership: members and non-members are no random split of one corpus: {reason}; every attack would "
            "measure that. Split one corpus by chance (evenhand privacy plant --holdout N), or set any_split=true"
        )
    for row, score in zip(rows, blind_N.tolist()):
        row |= {"blind": None if np.isnan(score) else score, "warning": reason}
    if options["population"]:
        path = find_data(data_dir, options["population"], "texts that no model was trained on")
        rows += [
            {"id": -1, "member": None, "text": row["text"], "label": row.get("label")}
            for row in read_jsonl(path, ["text"])
        ]
    return rows


def _check_models(options: Mapping[str, Any]) -> None:
    if options["classifier"] and options["head"]:
        raise ValueError("membership: give classifier or head, not both")
    for name in [options["reference"], *_shadows(options)]:
        if options["classifier"]:
            check_classifier(name or options["classifier"], "membership.classifier")
        elif name:
            check_model(name)
    if _shadows(options) and options["head"]:
        raise ValueError("membership.shadows: a head has none; train classifiers and name their folders")


def _shadows(options: Mapping[str, Any]) -> list[str]:
    return [name.strip() for name in options["shadows"].split(",") if name.strip()]


def score(scorer: Scorer, rows: list[Row], options: Mapping[str, Any], seed: int) -> list[Row]:
    from counterfactuals.text.lexicon import load_lexicon
    from counterfactuals.text.reverse import Reverser

    texts = [row["text"] for row in rows]
    signals = _reader(scorer, rows, options, seed)
    out = [
        {**{key: row.get(key) for key in ("id", "member", "blind", "warning", "in")}, **found}
        for row, found in zip(rows, signals(texts, rows))
    ]
    if options["twins"]:
        reverse = Reverser(load_lexicon(options["lexicon"]))
        reversed_texts = [reverse(text).reversed for text in texts]
        chosen = [n for n, text in enumerate(texts) if reversed_texts[n] != text and rows[n]["member"] is not None]
        for n, found in zip(chosen, signals([reversed_texts[n] for n in chosen], [rows[n] for n in chosen])):
            out[n] |= {"twin": found["logp"], "of_twin": found}
    near = [(n, text) for n, row in enumerate(rows) for text in row.get("neighbours") or ()]
    for (n, _), found in zip(near, signals([text for _, text in near], [rows[n] for n, _ in near])):
        out[n].setdefault("near", []).append(found["logp"])
    for row in out:
        if row.get("near"):
            row["neighbour"] = float(np.mean(row.pop("near")))
    for name in [options["reference"], *_shadows(options)]:
        if name:
            other = _reader(
                _other(scorer, name, options), rows, {**options, "classifier": options["classifier"] and name}, seed
            )
            for row, found in zip(out, other(texts, rows)):
                if name == options["reference"]:
                    row["reference"] = found["logp"]
                else:
                    row.setdefault("shadows", []).append(found["logp"])
    return out


def _other(scorer: Scorer, name: str, options: Mapping[str, Any]) -> Scorer:
    """A second model, on the same device; for a classifier `_reader` loads it itself."""
    return scorer if options["classifier"] else Scorer(name, device=scorer.device, batch_size=scorer.batch_size)


def _reader(scorer: Scorer, rows: Sequence[Row], options: Mapping[str, Any], seed: int) -> Any:
    """A function: texts and their rows → signals of each, {"logp", "bytes", …}; a text without a token has none."""
    if options["classifier"] or options["head"]:
        names, predict = _labelled(scorer, rows, options, seed)

        def of_labels(texts: Sequence[str], rows: Sequence[Row]) -> list[Row]:
            logp_NK = np.log(np.maximum(predict(texts), 1e-30)) if texts else []
            return [
                {"logp": float(logp_K[names[str(row["label"])]]), "bytes": attacks.compressed(text)}
                for logp_K, text, row in zip(logp_NK, texts, rows)
            ]

        return of_labels

    def of_texts(texts: Sequence[str], rows: Sequence[Row]) -> list[Row]:
        longest = min(options["max_tokens"], scorer.max_length)
        ids = [row[:longest] or [0] for row in scorer.encode(texts, bos=True)]
        logps, moments = scorer.token_moments(ids)
        out = []
        for text, logp_T, (mean_T, std_T) in zip(texts, logps, moments):
            found = {"logp": float(np.mean(logp_T, dtype=np.float64)) if len(logp_T) else None}
            plus = attacks.lowest_mean(attacks.standardised(logp_T, mean_T, std_T)) if len(logp_T) else None
            low = attacks.lowest_mean(logp_T) if len(logp_T) else None
            out.append({**found, "bytes": attacks.compressed(text), "min_k": low, "min_k_plus": plus})
        return out

    return of_texts


def _labelled(scorer: Scorer, rows: Sequence[Row], options: Mapping[str, Any], seed: int) -> tuple[dict[str, int], Any]:
    """Label names → numbers, and texts → probabilities, of the classifier or of a head trained on the members."""
    if options["classifier"]:
        classifier = named_classifier("membership", {**options, "classifier_labels": ""}, scorer)
        names = {str(name): int(i) for name, i in classifier.model.config.label2id.items()}
        predict = classifier.class_probabilities
    else:
        members = [row for row in rows if row["member"]]
        found = sorted({str(row["label"]) for row in rows})
        names = {name: i for i, name in enumerate(found)}
        settings = {**heads.OPTIONS, **{key: options[key] for key in heads.OPTIONS if key in options}}
        labels = np.array([names[str(row["label"])] for row in members])
        head = targets.train_head(scorer, [row["text"] for row in members], labels, len(names), settings, seed)
        predict = head.probabilities
    unknown = {str(row["label"]) for row in rows} - set(names)
    if unknown:
        raise ValueError(f"membership: label {sorted(unknown)[0]!r}: the classifier knows {', '.join(names)}")
    return names, predict


def aggregate(rows: list[Row], options: Mapping[str, Any], seed: int) -> Metrics:
    found = all_scores(rows)
    rows = [row for row in rows if row["member"] is not None]
    member_N, warning = np.array([row["member"] for row in rows]), rows[0]["warning"]
    note = f"no random split: {warning}" if warning else ""
    metrics: Metrics = {}
    twins = [{**row, **(row.get("of_twin") or dict.fromkeys(SIGNALS))} for row in rows]
    swapped = _scores([{**row, "reference": None, "neighbour": None, "twin": None} for row in twins])
    for prefix, table in (("", found), ("twin/", swapped)):
        for name, scores_N in table.items():
            known_N = ~np.isnan(scores_N)
            if not (known_N & member_N).any() or not (known_N & ~member_N).any():
                continue
            at = RATES if not prefix and name != "blind" else ()
            measured = attacks.measure(scores_N[known_N], member_N[known_N], at=at, seed=seed)
            metrics |= _figures(prefix, name, measured, int(known_N.sum()), note)
    chosen = options["attack"]
    if f"auc/{chosen}" not in metrics:
        raise ValueError(f"membership.attack {chosen!r}: these rows do not have what it needs")
    first = {key: metrics[f"{key}/{chosen}"] for key in ("auc", "tpr_1%", "tpr_0.1%")}
    return {**first, **metrics}


def _figures(prefix: str, name: str, measured: Mapping[Any, Any], n: int, note: str) -> Metrics:
    out: Metrics = {}
    for key, found in measured.items():
        label = prefix + name if prefix else f"{'auc' if key == 'auc' else f'tpr_{key:.1%}'.replace('.0%', '%')}/{name}"
        ideal = 0.5 if key == "auc" else key
        if isinstance(found, str):
            out[label] = figure(np.nan, ideal=ideal, n=n, note=found)
        else:
            out[label] = figure(found[0], interval(found[1]), ideal=ideal, n=n, note=note)
    return out


def all_scores(rows: Sequence[Row]) -> dict[str, np.ndarray]:
    """The score of each member and non-member (N,) by attack; NaN where a row lacks what it needs."""
    population = [row for row in rows if row["member"] is None]
    rows = [row for row in rows if row["member"] is not None]
    return {**_scores(rows), **_with_shadows(rows, population), "blind": _column(rows, "blind")}


def _column(rows: Sequence[Row], name: str) -> np.ndarray:
    return np.array([np.nan if row.get(name) is None else row[name] for row in rows], np.float64)


def _scores(rows: Sequence[Row]) -> dict[str, np.ndarray]:
    columns = {name: _column(rows, name) for name in SIGNALS}
    return {name: attack(columns) for name, attack in attacks.ATTACKS.items()}


def _with_shadows(rows: Sequence[Row], population: Sequence[Row]) -> dict[str, np.ndarray]:
    """LiRA, and RMIA where there is a population; empty without shadow models."""
    if not rows[0].get("shadows"):
        return {}
    p_N, shadows_SN = (
        np.exp(np.array(x, np.float64)) for x in ([r["logp"] for r in rows], [r["shadows"] for r in rows])
    )
    shadows_SN = shadows_SN.T
    in_SN = np.array([row["in"] or [0] * len(shadows_SN) for row in rows], bool).T
    if in_SN.shape != shadows_SN.shape:
        raise ValueError(f'membership: "in" of a row names {len(in_SN)} shadow models, there are {len(shadows_SN)}')
    out = {"lira": attacks.lira(attacks.logit(p_N), attacks.logit(shadows_SN), in_SN)}
    if population:
        p_Z = np.exp([row["logp"] for row in population])
        out_SZ = np.exp([row["shadows"] for row in population]).T
        out["rmia"] = attacks.rmia(p_N, shadows_SN, p_Z, out_SZ, in_SN=in_SN)
    return out


TASK = Task(
    name="membership",
    rows=load,
    score=score,
    aggregate=aggregate,
    options=OPTIONS,
    meaning="can training texts be told from others: AUC, and members found at 1 % and 0.1 % false accusations",
    ideal="0.5 (auc, twin), 0.01 (tpr_1%), 0.001 (tpr_0.1%)",
    data='members=FILE, nonmembers=FILE, jsonl of {"text"}: a random split of one corpus',
    source="Yeom 2018, Carlini 2021 and 2022, Shi 2024, Zhang 2024, Mattern 2023, Zarifzadeh 2024; twins: ours",
    headline=("auc", "tpr_1%", "tpr_0.1%", "twin/loss"),
    not_measured="what a stronger attack would find; single texts that stand out",
    licence="the corpus' own",
)
