"""Learns what `counterfactuals.text.pronouns` decides with, from plain text and without labels.

Three passes over the text: the most frequent words; their neighbours, by which k-means sorts them into classes; and
contexts of pronouns whose form says whether a noun of its own follows, on which two log-linear models are fitted.
Every tenth text is held out. The same sources and seed give the same file on the same machine.
"""

from __future__ import annotations

import datetime
import json
import random
import re
import string
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from counterfactuals.files import write_whole
from counterfactuals.text.document import TOKEN, Document
from counterfactuals.text.pronouns import TEMPLATES, Around, around, keys, normal
from counterfactuals.tokens.corpus import read_texts

OWNING = {"her": ("his", "my", "our", "their"), "his": ("my", "our", "their")}  # forms with a noun of their own
ALONE = {"her": ("him", "me", "us", "them"), "his": ("hers", "mine", "ours", "theirs")}
SUBJECTS = {  # form → the subject of the same person
    **dict.fromkeys(("him", "his"), "he"), "hers": "she", **dict.fromkeys(("me", "my", "mine"), "i"),
    **dict.fromkeys(("us", "our", "ours"), "we"), **dict.fromkeys(("them", "their", "theirs"), "they"),
}  # fmt: skip
SHARE_OWNING = {"her": 0.42, "his": 0.996}  # assumed; "hers" a little rarer than it is, for it reads worse when wrong
CLASS_NAMES = string.ascii_letters + string.digits
MASCULINE = frozenset(("him", "his"))  # these count double: the others stand in other surroundings
HELD_OUT = 10
L2 = 2e-3  # higher than needed for the held-out text: rare words then lean on their classes
BEFORE, AFTER = 80, 100  # characters kept of the text around
WORD_DROPOUT, FREQUENT = 0.25, 1500  # how often the word after the pronoun counts as unknown, unless so frequent


def learn(
    sources: Sequence[str],
    *,
    note: str = "",
    command: str = "",
    seed: int = 0,
    num_words: int = 22000,
    num_classes: int = len(CLASS_NAMES),
    num_contexts: int = 50000,
    num_weights: int = 44000,
    log: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """The content of pronouns.json, learnt from all texts of `sources` (anything `corpus.read_texts` reads).

    note: free text for the provenance, such as the sources' licences. num_contexts: at most so many of each form in
    each source, so that a small one is not lost.
    num_weights: at most so many, 9 of 11 for "her". ValueError where the text holds too few of the forms.
    """
    if not 0 < num_classes <= len(CLASS_NAMES):
        raise ValueError(f"learn_pronouns: num_classes {num_classes}; 1 to {len(CLASS_NAMES)} have a name")

    def texts() -> Iterator[str]:
        for source in sources:
            yield from read_texts(source)

    words, num_texts, num_characters = frequent_words(texts(), num_words)
    log(f"{num_texts} texts, {num_characters} characters, {len(words)} words kept")
    classes = word_classes(texts(), words, num_classes=num_classes, seed=seed)
    log(f"{len(set(classes.values()))} classes")
    models, measured = {}, {}
    for pronoun, share in (("her", 9), ("his", 2)):
        samples = contexts(map(read_texts, sources), pronoun, num_contexts=num_contexts, seed=seed)
        models[pronoun], measured[pronoun] = fit_model(
            pronoun, samples, classes, num_weights=num_weights * share // 11, seed=seed
        )
        log(f"{pronoun}: {json.dumps(measured[pronoun])}")
    about = "Weights of text/pronouns.py, in tenths, and classes of words; learnt by learn/pronouns.py."
    facts = {"note": note, "texts": num_texts, "characters": num_characters, "command": command, "seed": seed}
    return data_file(about, sources, classes, models, **facts, held_out=measured)


def data_file(
    about: str, sources: Sequence[str], classes: dict[str, str], models: dict[str, Any], **facts: Any
) -> dict[str, Any]:
    """The content of a file of learnt weights. classes: word → its class; facts: of its provenance."""
    members: dict[str, list[str]] = {}
    for word, name in classes.items():
        members.setdefault(name, []).append(word)
    made = {"sources": [Path(source).name for source in sources], "date": datetime.date.today().isoformat()}
    listed = {name: " ".join(sorted(members[name])) for name in sorted(members)}
    return {"about": about, "provenance": made | facts, "classes": listed, "models": models}


def packed(bias: int, weights: Mapping[str, Mapping[str, int]]) -> dict[str, object]:
    """A model as it is written to a data file. bias and weights (template → key → weight) in tenths; no weight is 0."""
    tables = {}
    for template, table in weights.items():
        rows: dict[int, list[str]] = {}
        for key, tenths in sorted(table.items()):
            if tenths:
                rows.setdefault(tenths, []).append(key)
        tables[template] = {str(tenths): " ".join(rows[tenths]) for tenths in sorted(rows)}
    return {"bias": bias, "weights": tables}


def write(data: dict[str, Any], path: Path) -> None:
    """Write the data file, one table entry a line; whole or not at all."""
    write_whole(path, json.dumps(data, ensure_ascii=False, indent=0) + "\n")


def frequent_words(texts: Iterable[str], num_words: int) -> tuple[list[str], int, int]:
    """The most frequent tokens, most frequent first; the number of texts; the number of characters."""
    counts: Counter[str] = Counter()
    num_texts = num_characters = 0
    for text in texts:
        num_texts += 1
        num_characters += len(text)
        counts.update(_tokens(text))
        if len(counts) > 3_000_000:  # bounded memory: what is rare so far stays rare
            counts = Counter({word: count for word, count in counts.items() if count > 2})
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [word for word, _ in ranked[:num_words]], num_texts, num_characters


def _tokens(text: str) -> list[str]:
    return [normal(token) for token in TOKEN.findall(text)]


def word_classes(
    texts: Iterable[str], words: Sequence[str], *, num_classes: int, seed: int, num_neighbours: int = 200
) -> dict[str, str]:
    """Word → class: k-means (cosine) on roots of how often each frequent token stands left and right."""
    index = {word: i for i, word in enumerate(words)}
    num_neighbours = min(num_neighbours, len(words))
    width = num_neighbours + 1  # the last one stands for all other tokens
    counts = np.zeros((len(words) + 1) * 2 * width)
    for text in texts:
        ids = np.fromiter((index.get(token, len(words)) for token in _tokens(text)), np.int64)
        left, right = ids[:-1], ids[1:]
        at = np.concatenate(
            [right * 2 * width + np.minimum(left, width - 1), (left * 2 + 1) * width + np.minimum(right, width - 1)]
        )
        seen, times = np.unique(at, return_counts=True)
        counts[seen] += times
    table_V2C = counts.reshape(len(words) + 1, 2, width)[: len(words)]
    points_VC = np.sqrt(table_V2C / np.maximum(table_V2C.sum(-1, keepdims=True), 1)).reshape(len(words), -1)
    mass_V1 = np.sqrt(table_V2C.sum((1, 2)))[:, None]
    centres_KC = points_VC[:num_classes].copy()  # the most frequent words
    generator = np.random.default_rng(seed)
    nearest_V = np.zeros(len(words), np.int64)
    for _ in range(15):
        nearest_V = (points_VC @ centres_KC.T).argmax(1)
        for k in range(len(centres_KC)):
            mine = nearest_V == k
            centre = (
                (points_VC[mine] * mass_V1[mine]).sum(0) if mine.any() else points_VC[generator.integers(len(words))]
            )
            centres_KC[k] = centre / max(float(np.linalg.norm(centre)), 1e-9)
    return {word: CLASS_NAMES[k] for word, k in zip(words, nearest_V.tolist(), strict=True)}


def contexts(
    sources: Iterable[Iterable[str]], pronoun: str, *, num_contexts: int, seed: int
) -> dict[tuple[str, bool], list[Around]]:
    """(Form, held out or not) → what stands around a uniform sample of its places in each source."""
    forms = OWNING[pronoun] + ALONE[pronoun]
    pattern = re.compile(rf"(?<![\w'’])(?:{'|'.join(forms)})(?![\w'’])", re.IGNORECASE)
    generator = random.Random(seed)
    samples: dict[tuple[str, bool], list[Around]] = {(form, held): [] for form in forms for held in (False, True)}
    for texts in sources:
        sampled: defaultdict[tuple[str, bool], list[Around]] = defaultdict(list)
        seen: Counter[tuple[str, bool]] = Counter()
        for number, text in enumerate(texts):
            held = number % HELD_OUT == HELD_OUT - 1
            room = num_contexts // HELD_OUT if held else num_contexts
            for found in pattern.finditer(text):
                if found[0] == "US":  # the country
                    continue
                box = found[0].lower(), held
                seen[box] += 1
                at = len(sampled[box]) if len(sampled[box]) < room else generator.randrange(seen[box])
                if at < room:
                    sampled[box][at : at + 1] = [_around(text, *found.span(), SUBJECTS[box[0]])]
        for box, places in sampled.items():
            samples[box] += places
    return samples


def _around(text: str, start: int, end: int, own: str) -> Around:
    left = max(0, start - BEFORE)
    left = text.find(" ", left, start) + 1 if left else 0
    document = Document(text[left : end + AFTER], None)  # type: ignore[arg-type]
    return around(document, document.token_at(start - left), own)


def fit_model(
    pronoun: str,
    samples: dict[tuple[str, bool], list[Around]],
    classes: dict[str, str],
    *,
    num_weights: int,
    seed: int,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The model, as it stands in pronouns.json, and its accuracy on held-out contexts by form."""
    forms = OWNING[pronoun] + ALONE[pronoun]
    rows = _rows([place for form in forms for place in samples[form, False]], classes, random.Random(seed))
    y = np.array([float(form in OWNING[pronoun]) for form in forms for _ in samples[form, False]])
    weight = np.array([1.0 if form in MASCULINE else 0.5 for form in forms for _ in samples[form, False]])
    if not 0 < y.sum() < len(y):
        raise ValueError(f"learn_pronouns: no {' or '.join(ALONE[pronoun])}, or no {' or '.join(OWNING[pronoun])}")
    share = SHARE_OWNING[pronoun]
    if pronoun == "her":
        weight[y == 0] *= weight[y == 1].sum() / weight[y == 0].sum() * (1 - share) / share
        shift = 0.0
    else:  # too lopsided to fit so: fitted one to one, and moved
        weight[y == 0] *= weight[y == 1].sum() / weight[y == 0].sum()
        shift = float(np.log(share / (1 - share)))
    index, ids_NF = _index(rows)
    tenths = np.round(_fit_sparse(ids_NF, y, weight, num_weights, seed) * 10).astype(int)
    bias = int(tenths[-1] + round(shift * 10))
    tables: dict[str, dict[str, int]] = {name: {} for name in TEMPLATES}
    for (place, key), at in index.items():
        tables[TEMPLATES[place]][key] = int(tenths[at])
    right: dict[str, Any] = {"trained_on": len(y)}
    for form in forms:
        places = [keys(place, classes) for place in samples[form, True]]
        scores = [bias + sum(tenths[index[at]] for at in enumerate(place) if at in index) for place in places]
        hits = sum((score > 0) == (form in OWNING[pronoun]) for score in scores)
        right[form] = {"n": len(scores), "right": round(float(hits / len(scores)), 4) if scores else None}
    return packed(bias, tables), right


def _rows(places: Sequence[Around], classes: dict[str, str], generator: random.Random) -> list[tuple[str | None, ...]]:
    """The keys of each place. A word after the pronoun that is not frequent now and then counts as unknown."""
    frequent = {word for word, _ in Counter(place.x for place in places).most_common(FREQUENT)}
    rows: list[tuple[str | None, ...]] = []
    for place in places:
        if place.x in frequent or generator.random() >= WORD_DROPOUT:
            rows.append(keys(place, classes))
            continue
        unknown = keys(place, {word: classes[word] for word in place if word in classes and word != place.x})
        rows.append(
            tuple(None if "x" in name.split("_") else key for name, key in zip(TEMPLATES, unknown, strict=True))
        )
    return rows


def _index(rows: Sequence[Sequence[str | None]], least: int = 3) -> tuple[dict[tuple[int, str], int], np.ndarray]:
    """(Place in `TEMPLATES`, key) → number of its weight, and the numbers of each row. 0: rare or None; last: bias."""
    counts = Counter((place, key) for row in rows for place, key in enumerate(row) if key is not None)
    kept = [at for at, count in counts.items() if count >= least]
    index = {at: number for number, at in enumerate(kept, 1)}
    ids_NF = np.zeros((len(rows), len(TEMPLATES) + 1), np.int32)
    ids_NF[:, -1] = len(kept) + 1
    for ids_F, row in zip(ids_NF, rows, strict=True):
        ids_F[:-1] = [index.get((place, key), 0) if key is not None else 0 for place, key in enumerate(row)]
    return index, ids_NF


def _fit_sparse(ids_NF: np.ndarray, y: np.ndarray, weight: np.ndarray, num_weights: int, seed: int) -> np.ndarray:
    """Logistic regression with about `num_weights` weights not 0: fitted four times, least useful dropped between."""
    bias = int(ids_NF[0, -1])
    counts = np.bincount(ids_NF.ravel(), minlength=bias + 1)
    w = np.zeros(bias + 1)
    size = bias + 1
    for part in range(4):
        descend(w, ids_NF, y, weight=weight, epochs=3, rate=0.1 if part else 0.2, decay=L2, seed=seed + part)
        if part < 3 and num_weights < size:
            use = np.abs(w) * np.sqrt(counts)
            use[bias], use[0] = np.inf, 0
            keep = int(size * (num_weights / size) ** ((part + 1) / 3))
            kept = use >= np.sort(use)[-keep]
            ids_NF = np.where(kept[ids_NF], ids_NF, 0)
            w[~kept] = 0
    return w


def descend(
    w: np.ndarray,
    ids_NF: np.ndarray,
    y: np.ndarray,
    *,
    weight: np.ndarray | None = None,
    epochs: int,
    rate: float,
    decay: float,
    seed: int,
) -> None:
    """Logistic regression on sums of weights w[ids], by AdaGrad with a little L2, in place; weight 0 stays 0."""
    generator = np.random.default_rng(seed)
    squares = np.full(len(w), 1e-2)
    for epoch in range(epochs):
        order = generator.permutation(len(ids_NF))
        for first in range(0, len(order), 512):
            rows = order[first : first + 512]
            ids = ids_NF[rows]
            error = 1 / (1 + np.exp(-w[ids].sum(1))) - y[rows]
            slope = (error if weight is None else error * weight[rows])[:, None] + decay * w[ids]
            np.add.at(squares, ids, slope**2)
            np.add.at(w, ids, -rate * (1 - epoch / epochs) * slope / np.sqrt(squares[ids]))
            w[0] = 0
