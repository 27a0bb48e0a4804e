"""Learns from plain text, without labels, which capitals are a person's name: the models of text/people.py.

The text labels itself. Where a title, a relation or "born" stands beside a name, or "the" or a word such as "Street",
it is shown what the name is; then it is the same everywhere in that document. The models learn from those other places,
so they never see the sign that labelled them. "full" tells a person's full name from other runs of capitals, "alone" a
person's name that stands alone from other words, "given" a given name from a surname. Every tenth text is held out.
"""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np

from counterfactuals.learn.pronouns import data_file, descend, packed
from counterfactuals.text import loglinear, pronouns, words
from counterfactuals.text.document import Document
from counterfactuals.text.lexicon import Lexicon
from counterfactuals.text.runs import FILE, OWN, TEMPLATES, Run, Scene, agreement, keys, runs, spread
from counterfactuals.tokens.corpus import read_texts

MODELS = ("alone", "given", "full")
HELD_OUT = 10
LONGEST = 100_000  # characters of a longer text, such as a novel, are read as several documents
MOST = 12  # places of a name in a document, at most
NUM_WEIGHTS = 30_000
DROPOUT = 0.15  # how often the words of a name count as unknown, so that those around them are learnt
AGREE = 4, 0.85  # a name of the table alone is a person's from so many words of a role after it, of which so many agree
PLACING = frozenset(("in", "at", "near", "from", "to", "In", "At", "of"))
BESIDE = range(OWN, len(TEMPLATES) - 1)  # the templates of what is beside a name, but for the next word of a role
Sample = tuple[str, tuple[str, ...], bool]  # model, keys, whether it is a person's name


def learn(
    sources: Sequence[str],
    lexicon: Lexicon,
    *,
    note: str = "",
    command: str = "",
    seed: int = 0,
    log: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """The content of people.json, learnt from all texts of `sources` (anything `corpus.read_texts` reads).

    `lexicon`: with a table of given names. ValueError if it has none, or if the text holds no names. Deterministic.
    """
    if lexicon.names is None:
        raise ValueError(f"learn_names: lexicon {lexicon.name} has no names")
    rows: dict[tuple[str, bool], list[Sample]] = defaultdict(list)
    num_texts = num_characters = 0
    for number, text in enumerate(_texts(sources)):
        num_texts, num_characters = num_texts + 1, num_characters + len(text)
        for sample in samples(text, lexicon):
            rows[sample[0], number % HELD_OUT == HELD_OUT - 1].append(sample)
    log(f"{num_texts:,} texts, {num_characters:,} characters")
    models, measured = {}, {}
    for name in MODELS:
        train, held = rows[name, False], rows[name, True]
        if not train or not held:
            raise ValueError("learn_names: the text holds too few names")
        models[name] = _fit(train, seed)
        measured[name] = {"trained_on": len(train), **_measured(models[name], held)}
        log(f"{name}: {json.dumps(measured[name])}")
    classes = loglinear.load(FILE)[0] or loglinear.load(pronouns.FILE)[0]
    about = "Weights of counterfactuals/text/people.py, in tenths; learnt by counterfactuals/learn/people.py."
    facts = {"note": note, "texts": num_texts, "characters": num_characters, "command": command}
    return data_file(about, sources, classes, models, **facts, held_out=measured)


def _texts(sources: Sequence[str]) -> Iterator[str]:
    for text in chain.from_iterable(map(read_texts, sources)):
        for start in range(0, len(text), LONGEST):
            yield text[start : start + LONGEST]


# ---------------------------------------------------------------- labels


def samples(text: str, lexicon: Lexicon) -> Iterator[Sample]:
    """The names of a text that it shows to be a person's or not, by a sign beside another place of the same name."""
    document = Document(text, lexicon)
    words.find(document)
    scene = Scene(document)
    full: defaultdict[tuple[str, str], list[Run]] = defaultdict(list)
    alone: defaultdict[str, list[Run]] = defaultdict(list)
    for run in runs(scene, ordinary=True):
        first = document.words[run.given[0]]
        if run.surname:
            full[first, run.surname].append(run)
        elif len(run.given) == 1:
            alone[first].append(run)
    returns = set()  # words alone that come back as surnames do: after a title, or never after "the" or "in"
    for word, those in alone.items():
        seen = {run.sign for run in those}
        if "surname" in seen or not ("thing" in seen or any(scene.words[r.begin - 1] in PLACING for r in those)):
            returns.add(word)
    shown: Counter[tuple[str, str]] = Counter()  # (word, "given" or "surname") of full names shown to be a person's
    for (first, surname), those in full.items():
        signs = Counter(run.sign for run in those)
        named = surname in returns
        if (signs["person"] or named) and not signs["thing"]:
            shown[first, "given"] += 1
            shown[surname, "surname"] += 1
        for run in spread(those, MOST):
            person, thing = signs["person"] - (run.sign == "person") + named, signs["thing"] - (run.sign == "thing")
            if bool(person) != bool(thing):
                yield "full", keys(scene, run), bool(person)
    small = {word for word in document.words if word.islower()}
    for word, those in alone.items():
        signs = Counter(run.sign for run in those)
        agreeing = Counter(agreement(scene, run)[:2] for run in those)
        is_agreed = agreeing["ag"] >= AGREE[0] and agreeing["ag"] >= AGREE[1] * (agreeing["ag"] + agreeing["di"])
        for run in spread(those, MOST):
            own = Counter([run.sign])
            given = bool(signs["given"] - own["given"] + shown[word, "given"])
            last = bool(signs["surname"] - own["surname"] + shown[word, "surname"])
            other = bool(signs["thing"] - own["thing"])
            if not (given or last or other):
                given, other = is_agreed, word.lower() in small
            if given + last + other == 1:
                row = keys(scene, run)
                yield "alone", row, not other
                if not other:  # what is beside a name tells little here, but much of the kind of text
                    yield "given", tuple("" if n in BESIDE else key for n, key in enumerate(row)), given


# ---------------------------------------------------------------- fitting


def _fit(rows: list[Sample], seed: int) -> dict[str, Any]:
    """Logistic regression by AdaGrad; half-way the least useful weights are dropped. As it stands in people.json."""
    generator = random.Random(seed)
    own = {n for n, template in enumerate(TEMPLATES) if template in ("first", "last")}
    counts = Counter(pair for _, row, _ in rows for pair in enumerate(row))
    index = {pair: number for number, pair in enumerate((p for p, c in counts.items() if c >= 3 and p[1]), 1)}
    ids_NF = np.full((len(rows), len(TEMPLATES) + 1), len(index) + 1, np.int32)  # the last is the bias; 0: none
    for ids_F, (_, row, _) in zip(ids_NF, rows, strict=True):
        dropped = own if generator.random() < DROPOUT else frozenset()
        ids_F[:-1] = [0 if pair[0] in dropped else index.get(pair, 0) for pair in enumerate(row)]
    y_N = np.array([label for _, _, label in rows], float)
    w = np.zeros(len(index) + 2)
    options: dict[str, Any] = {"epochs": 4, "rate": 0.15, "decay": 2e-4}
    descend(w, ids_NF, y_N, **options, seed=seed)
    use = np.abs(w) * np.sqrt(np.bincount(ids_NF.ravel(), minlength=len(w)))
    use[-1] = np.inf
    dropped_W = use < np.sort(use)[-NUM_WEIGHTS:][0]
    w[dropped_W] = 0
    ids_NF[dropped_W[ids_NF]] = 0
    descend(w, ids_NF, y_N, **options, seed=seed + 1)
    tenths = np.round(w * 10).astype(int)
    tables: dict[str, dict[str, int]] = {template: {} for template in TEMPLATES}
    for (place, key), number in index.items():
        tables[TEMPLATES[place]][key] = int(tenths[number])
    return packed(int(tenths[-1]), tables)


def _measured(model: dict[str, Any], held: list[Sample]) -> dict[str, Any]:
    """The share of held-out places of either label that the model gets right."""
    weights = [{k: int(w) / 10 for w, row in t.items() for k in row.split(" ")} for t in model["weights"].values()]
    loaded = loglinear.Model(model["bias"] / 10, TEMPLATES, tuple(weights))
    right: dict[str, Any] = {}
    for label, name in ((True, "persons"), (False, "others")):
        hits = [(loglinear.score(loaded, row) > 0) == label for _, row, person in held if person == label]
        right[name] = {"n": len(hits), "right": round(sum(hits) / len(hits), 4) if hits else None}
    return right
