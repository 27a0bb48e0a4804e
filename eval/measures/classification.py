"""What the classification tasks share: labelled texts, splits, scored rows, figures.

A row is {"id", "text", "label", "group" (or None), "split": train | dev | test}. Each task is one file in tasks/.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from eval.data import TABLES, find_data, thinned
from eval.measures import groups as gaps
from eval.measures import heads
from eval.measures.intervals import Interval, interval, resampled_sums
from eval.model import Scorer
from eval.task import Metrics, Row, average, figure
from eval.task import check_options as check_ranges

OPTIONS: dict[str, Any] = {
    **heads.OPTIONS,
    "scrub": False,
    "reverse": True,
    "lexicon": "gender",
    "sensitivity": 200,
    "sensitivity_classes": "predicted",
    "protected_weights": "gradient",
    "train_texts": 0,
}
SPLITS = {"train": ("train",), "dev": ("dev", "validation", "valid", "val"), "test": ("test",)}
ONE_LABEL = "the head predicts one label for all"
MANY_CLASSES = 10  # with more, rows keep no probability for each class and there is no AUC


def check_options(options: Mapping[str, Any], task: str) -> None:
    """ValueError for an option out of its range."""
    heads.check_options(options, task)
    choices: Any = {"sensitivity_classes": ("predicted", "uniform"), "protected_weights": ("gradient", "attention")}
    check_ranges(task, options, sensitivity=0, train_texts=0, **choices)
    _reverser(options["lexicon"])  # refuses an unknown one


def find_tables(data_dir: Path, file: str, what: str) -> dict[str, Path]:
    """{"": the file}, or for a folder its train, dev and test files; without a test file the dev file is the test."""
    folder = data_dir / file
    if not folder.is_dir():
        return {"": find_data(data_dir, file, what)}
    found: dict[str, Path] = {}
    for split, names in SPLITS.items():
        candidates = [folder / f"{name}{suffix}" for name in names for suffix in TABLES]
        if path := next(filter(Path.is_file, candidates), None):
            found[split] = path
    if "test" not in found and "dev" in found:
        found["test"] = found.pop("dev")
    for split in ("train", "test"):
        if split not in found:
            find_data(data_dir, f"{file}/{split}.jsonl", what)  # raises
    return found


def split(labels: Sequence[Any], seed: int, *, dev: float = 0.10, test: float = 0.25) -> list[str]:
    """train, dev or test for each row: these shares of every label, drawn by the seed."""
    members: dict[Any, list[int]] = {}
    for i, label in enumerate(labels):
        members.setdefault(label, []).append(i)
    out = ["train"] * len(labels)
    for label, rows in members.items():
        random.Random(f"{seed} {label}").shuffle(rows)
        num_test, num_dev = round(test * len(rows)), round(dev * len(rows))
        for i in rows[:num_test]:
            out[i] = "test"
        for i in rows[num_test : num_test + num_dev]:
            out[i] = "dev"
    return out


def shortened(rows: list[Row], options: Mapping[str, Any], limit: int | None, seed: int) -> list[Row]:
    """At most `train_texts` training rows (0: all). With a limit: so many test rows, no dev rows, 10 × to train.

    The seed decides which are left out, and the splits where the data have none ("split": ""); the order stays.
    """
    if rows and not rows[0]["split"]:
        rows = [row | {"split": part} for row, part in zip(rows, split([row["label"] for row in rows], seed))]
    most: dict[str, float] = {"train": options["train_texts"] or np.inf, "dev": np.inf, "test": np.inf}
    if limit is not None:
        most = {"train": min(most["train"], 10 * limit + 50), "dev": 0, "test": limit}
    kept: set[int] = set()
    for name, size in most.items():
        places = [i for i, row in enumerate(rows) if row["split"] == name]
        kept |= set(places if size >= len(places) else random.Random(f"{seed} {name}").sample(places, int(size)))
    rows = [row for i, row in enumerate(rows) if i in kept]
    for name in ("train", "test"):
        if not any(row["split"] == name for row in rows):
            raise ValueError(f"no text left in the {name} split")
    if len({row["label"] for row in rows if row["split"] == "train"}) < 2:
        raise ValueError("the texts to train on have one label only")
    return rows


@lru_cache(maxsize=4)
def _reverser(lexicon: str) -> Any:
    from counterfactuals.text.lexicon import load_lexicon
    from counterfactuals.text.reverse import Reverser

    return Reverser(load_lexicon(lexicon), policy="reverse")


def scrub(text: str, lexicon: str = "gender") -> str:
    """The text with "_" in place of each gendered word and each person's name that the lexicon knows."""
    found = _reverser(lexicon)(text)
    spots = {(span.start, span.end) for span in found.spans if span.rule != "article"}
    spots |= {(flag.start, flag.end) for flag in found.flags}
    pieces, end = [], 0
    for start, stop in sorted(spots):
        if start >= end:
            pieces += [text[end:start], "_"]
            end = stop
    return "".join(pieces) + text[end:]


def score(scorer: Scorer, rows: list[Row], options: Mapping[str, Any], seed: int) -> list[Row]:
    """Train on the train rows; return dev and test rows with predictions, test rows also of their reversal."""

    def read(text: str) -> str:
        return scrub(text, options["lexicon"]) if options["scrub"] else text

    train = [row for row in rows if row["split"] == "train"]
    judged = [row for row in rows if row["split"] != "train"]
    labels = sorted({row["label"] for row in train})
    target_N = gaps.numbered([row["label"] for row in train], labels)
    reversals: dict[int, str] = {}
    if options["reverse"]:
        reverser = _reverser(options["lexicon"])
        others = {n: reverser(row["text"]).reversed for n, row in enumerate(judged) if row["split"] == "test"}
        # Only what differs within the tokens that are read can change a prediction.
        sides = [
            heads.encode(scorer, side, options) for side in ([judged[n]["text"] for n in others], [*others.values()])
        ]
        reversals = {n: read(others[n]) for n, text, other in zip(others, *sides) if text != other}
    train_texts, texts = ([read(row["text"]) for row in part] for part in (train, judged))
    wanted = [*texts, *reversals.values()]
    chosen = sensitive_rows(judged, options["sensitivity"])
    groups = sorted({row["group"] for row in train if row["group"] is not None})
    sensitive = bool(chosen) and len(groups) > 1
    # One pass of the frozen model over each text; train texts come first.
    states = None
    if not options["finetune"] or sensitive:
        read_by_frozen = [*train_texts, *([] if options["finetune"] else wanted)]
        states = heads.States(scorer, heads.encode(scorer, read_by_frozen, options), options["layer"])
    if options["finetune"]:
        classifier = heads.finetune(scorer, train_texts, target_N, len(labels), options, seed)
        probs_NK = classifier.probabilities(wanted)
    else:
        assert states is not None
        classifier = heads.train(scorer, states, np.arange(len(train)), target_N, len(labels), options, seed)
        probs_NK = classifier.probabilities(states, len(train) + np.arange(len(wanted)))
    out = [_scored(row, probs_K, labels) for row, probs_K in zip(judged, probs_NK)]
    for n, row in enumerate(out):
        if options["reverse"] and row["split"] == "test":
            row |= {"reversible": n in reversals, "flipped": False, "moved": 0.0}
    for (n, _), reversed_K in zip(reversals.items(), probs_NK[len(judged) :]):
        best = int(probs_NK[n].argmax())
        out[n]["flipped"] = int(reversed_K.argmax()) != best
        out[n]["moved"] = float(abs(probs_NK[n, best] - reversed_K[best]))
    if sensitive:
        assert states is not None
        known = np.array([i for i, row in enumerate(train) if row["group"] is not None])
        group_N = gaps.numbered([train[i]["group"] for i in known], groups)
        protected = heads.train(scorer, states, known, group_N, len(groups), options, seed)
        found = heads.sensitivity(
            classifier,
            protected,
            [texts[n] for n in chosen],
            classes=options["sensitivity_classes"],
            protected_weights=options["protected_weights"],
        )
        for n, value, ratio in zip(chosen, *found):
            out[n] |= {"sensitivity": float(value), "sensitivity_ratio": float(ratio) if np.isfinite(ratio) else None}
    return out


def sensitive_rows(rows: Sequence[Row], most: int) -> list[int]:
    """Indices of at most `most` test rows, spread evenly."""
    return thinned([n for n, row in enumerate(rows) if row["split"] == "test"], most)


def _scored(row: Row, probs_K: np.ndarray, labels: Sequence[str]) -> Row:
    best = int(probs_K.argmax())
    out = {key: value for key, value in row.items() if key != "text"}
    out |= {"predicted": labels[best], "p": float(probs_K[best])}
    out["p_label"] = float(probs_K[labels.index(row["label"])]) if row["label"] in labels else 0.0
    if len(labels) <= MANY_CLASSES:
        out["probs"] = dict(zip(labels, probs_K.tolist()))
    return out


def macro_f1(sums: np.ndarray) -> np.ndarray:
    """Mean F1 over classes from (…, 3·K) counts: right, true and predicted ones of each; without absent classes."""
    right, true, predicted = np.split(sums, 3, axis=-1)
    return gaps.mean_known(gaps.rates(2 * right, true + predicted))


def performance(rows: list[Row], seed: int) -> Metrics:
    """accuracy, f1_macro, auc (few classes) of the test rows, dev_accuracy; standard metrics from scikit-learn.

    `majority`: the share of the most common label of the test, which accuracy must exceed to mean anything.
    """
    from sklearn.metrics import accuracy_score, f1_score

    test = [row for row in rows if row["split"] == "test"]
    dev = [row for row in rows if row["split"] == "dev"]
    true, predicted = [row["label"] for row in test], [row["predicted"] for row in test]
    names = sorted({*true, *predicted})
    one_hot_N2K = [np.eye(len(names))[gaps.numbered(values, names)] for values in (true, predicted)]
    counts_NC = np.concatenate([one_hot_N2K[0] * one_hot_N2K[1], *one_hot_N2K], 1)
    sums_RC = resampled_sums(counts_NC, seed=seed)
    accuracies = sums_RC[:, : len(names)].sum(1) / len(test)
    f1 = f1_score(true, predicted, average="macro", zero_division=0)
    metrics: Metrics = {
        "accuracy": figure(accuracy_score(true, predicted), interval(accuracies), ideal=1.0, n=len(test)),
        "f1_macro": figure(f1, interval(macro_f1(sums_RC)), ideal=1.0, n=len(test)),
    }
    if "probs" in test[0] and len(test[0]["probs"]) > 1:
        classes = sorted(test[0]["probs"])
        probs_NK = np.array([[row["probs"][name] for name in classes] for row in test])
        true_N = gaps.numbered(true, classes)
        metrics["auc"] = figure(
            multiclass_auc(true_N, probs_NK), _auc_bounds(true_N, probs_NK, seed), ideal=1.0, n=len(test)
        )
    metrics["majority"] = figure(max(map(true.count, names)) / len(true), ideal=None, n=len(test))
    if dev:
        right = [row["label"] == row["predicted"] for row in dev]
        metrics["dev_accuracy"] = figure(float(np.mean(right)), ideal=1.0, n=len(dev))
    return metrics


def multiclass_auc(true_N: np.ndarray, probs_NK: np.ndarray) -> float:
    """ROC AUC; of more than two classes the mean over pairs of classes (Hand & Till). NaN if a class is absent."""
    from sklearn.metrics import roc_auc_score

    if probs_NK.shape[1] == 2:
        return gaps.auc(probs_NK[:, 1], true_N == 1)
    if set(true_N.tolist()) != set(range(probs_NK.shape[1])):
        return float("nan")
    return float(roc_auc_score(true_N, probs_NK, multi_class="ovo", average="macro"))


def _auc_bounds(true_N: np.ndarray, probs_NK: np.ndarray, seed: int) -> Interval:
    times_RN = gaps.resample_times(len(true_N), seed=seed)
    found = []
    for a, b in itertools.permutations(range(probs_NK.shape[1]), 2):
        rows = np.flatnonzero((true_N == a) | (true_N == b))
        found.append(gaps.resampled_auc(probs_NK[rows, a], true_N[rows] == a, times_RN[:, rows]))
    return interval(np.mean(found, 0))


def counterfactual(rows: list[Row], seed: int) -> Metrics:
    """How predictions change when roles are reversed, over the test texts that can be reversed. Ideal: 0 for both.

    `flipped`: share of predictions that change; `moved`: mean change of the first predicted class's probability.
    """
    reversible = [row for row in rows if row.get("reversible")]
    metrics: Metrics = {}
    for name in ("flipped", "moved") if any("reversible" in row for row in rows) else ():
        metrics[name] = average([row[name] for row in reversible], ideal=0.0, seed=seed)
    return metrics


def sensitivities(rows: list[Row], seed: int) -> Metrics:
    """Means of accumulated prediction sensitivity (ideal 0) and of its ratio to that with equal token weights."""
    metrics: Metrics = {}
    for key, name, ideal in (("sensitivity", "prediction_sensitivity", 0.0), ("sensitivity_ratio",) * 2 + (None,)):
        if values := [row[key] for row in rows if row.get(key) is not None]:
            metrics[name] = average(values, ideal=ideal, seed=seed)
    return metrics


def between_groups(rows: list[Row], seed: int) -> Metrics:
    """TPRD, the TPRD that chance would give, the gap of each label, accuracy by group; over test rows with a group.

    `gap/LABEL`: of two groups the first's true positive rate minus the second's, in alphabetical order; of more the
    largest minus the smallest. n is the smallest group's number of people there. `tprd_by_chance`: mean and 95 % range
    of the TPRD if groups were assigned at random within each label; p: the share of assignments at least as large.
    """
    test = [row for row in rows if row["split"] == "test" and row["group"] is not None]
    groups = sorted({row["group"] for row in test})
    if len(groups) < 2:
        return {}
    labels = sorted({row["label"] for row in test})
    label_N, group_N = (
        gaps.numbered([row[key] for row in test], n) for key, n in (("label", labels), ("group", groups))
    )
    correct_N = np.array([row["label"] == row["predicted"] for row in test], float)
    shape = (len(labels), len(groups))
    one_hot = gaps.cells(label_N, group_N, *shape)
    hits_LG, counts_LG = ((one_hot * x[:, None]).sum(0).reshape(shape) for x in (correct_N, np.ones(len(test))))
    hits_RLG, counts_RLG = gaps.resampled_cells(label_N, group_N, correct_N, *shape, seed=seed)
    rates_LG, rates_RLG = gaps.rates(hits_LG, counts_LG), gaps.rates(hits_RLG, counts_RLG)
    tprd, tprds = (gaps.mean_known(gaps.spread(r)) for r in (rates_LG, rates_RLG))
    chance = gaps.chance_differences(hits_LG, counts_LG, seed=seed)
    shared = np.flatnonzero((counts_LG > 0).sum(1) > 1)
    p = float((1 + (chance >= tprd - 1e-12).sum()) / (1 + len(chance))) if len(shared) else np.nan
    band = interval(chance)
    # A head that predicts one label treats everybody alike because it tells nobody apart.
    note = ONE_LABEL if len({row["predicted"] for row in test}) == 1 else ""
    bounds, n = interval(tprds, around=float(tprd)), int(counts_LG[shared].sum())
    metrics: Metrics = {
        "tprd": figure(float(tprd), bounds, ideal=0.0, n=n, p=p, note=note),
        "tprd_by_chance": figure(float(chance.mean()), (band[0], band[1]), ideal=None, n=len(shared), small=False),
    }
    totals = counts_LG.sum(0)
    for g, name in enumerate(groups):
        hits_R, counts_R = hits_RLG[:, :, g].sum(1), counts_RLG[:, :, g].sum(1)
        bounds = interval(gaps.rates(hits_R, counts_R))
        metrics[f"accuracy/{name}"] = figure(hits_LG[:, g].sum() / totals[g], bounds, ideal=None, n=int(totals[g]))
    for i in shared:
        present = counts_LG[i][counts_LG[i] > 0]
        two = len(groups) == 2
        gap = rates_LG[i, 0] - rates_LG[i, 1] if two else gaps.spread(rates_LG[i])
        resampled = rates_RLG[:, i, 0] - rates_RLG[:, i, 1] if two else gaps.spread(rates_RLG[:, i])
        metrics[f"gap/{labels[i]}"] = figure(float(gap), interval(resampled), ideal=0.0, n=int(present.min()))
    return metrics
