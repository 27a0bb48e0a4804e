"""Accuracy of "her" → him or his and "his" → her or hers, ours against the rules that public tools use, in one run.

    python benchmarks/pronouns.py [--data_dir ../shared/data]

Labels come from annotation (UD English EWT), from a sentence's masculine twin (WinoBias, Winogender), or from masking:
a him or his of the text is covered by "her", he and she around it are exchanged, and it is told again. "balanced" is
the mean of the accuracies on him and on his (or on her and hers). The last line is JSON.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import re
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from counterfactuals.text.document import Document
from counterfactuals.text.lexicon import load_lexicon
from counterfactuals.text.pronouns import REASONS, decide

NOT_OWNED = re.compile(
    "a about after again all an and another any are as at away back be because before but by down during for from had "
    "has he if in into is it not now of off on or out over she so than that the then there they this through to today "
    "too under until up was we were what when where which while who with without you".replace(" ", "|"),
    re.IGNORECASE,
)
SUBJECTS = {"he": "she", "she": "he", "himself": "herself", "herself": "himself"}
SUBJECT = re.compile(rf"\b(?:{'|'.join(SUBJECTS)})\b", re.IGNORECASE)
GENDER = load_lexicon("gender")
MASKED = re.compile(r"\b(?:him|his)\b", re.IGNORECASE)


class Case(NamedTuple):
    """`text[start:end]` is "her" or "his"; `answer` is its counterpart there."""

    text: str
    start: int
    end: int
    answer: str


def joined(tokens: list[str], index: int) -> tuple[str, int]:
    """Text from tokens, and where token `index` starts in it."""
    text, at = "", 0
    for number, token in enumerate(tokens):
        glued = re.fullmatch(r"[.,;:!?)\]%…/]+|n't|'(s|d|ll|re|ve|m)", token) or text.endswith(("(", "[", "$", "/"))
        text += "" if glued or not number else " "
        at = len(text) if number == index else at
        text += token
    return text, at


def ewt(data_dir: Path, word: str, *, covering: bool = False) -> list[Case]:
    """Cases annotated by hand: of `word` itself, or of what it may stand for, covered by it."""
    owning, alone = {"her": ("his", "him"), "his": ("her", "hers")}[word]
    cases = []
    with (data_dir / "pronouns_ewt_dev" / "cases.jsonl").open(encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            form, index = row["tokens"][row["index"]].lower(), row["index"]
            answer = alone if row["xpos"] == "PRP" else owning  # PRP$, and once DT, stand before a noun
            if form != (answer if covering else word):
                continue
            text, start = joined(row["tokens"], index)
            end = start + len(form)
            cases.append(covered(text, start, end, word, answer) if covering else Case(text, start, end, answer))
    return cases


def covered(text: str, start: int, end: int, word: str, answer: str) -> Case:
    """`word` in the place of `text[start:end]`, written alike, and the subjects around it of the other gender."""
    before, after = (
        SUBJECT.sub(lambda found: alike(found[0], SUBJECTS[found[0].lower()]), part)
        for part in (text[:start], text[end:])
    )
    cover = alike(text[start:end], word)
    return Case(before + cover + after, len(before), len(before) + len(cover), answer)


def alike(model: str, word: str) -> str:
    """`word` in capitals, capitalised or small, as `model` is."""
    return word.upper() if model.isupper() else word.capitalize() if model[0].isupper() else word


def masked(texts: Iterable[str]) -> list[Case]:
    """Each him or his of the texts, covered by "her"."""
    return [covered(text, *found.span(), "her", found[0].lower()) for text in texts for found in MASKED.finditer(text)]


def winobias(data_dir: Path) -> list[Case]:
    """Each "her" whose twin sentence reads him or his there."""
    cases = []
    for path in sorted((data_dir / "winobias").glob("pro_stereotyped_*")):
        sides = [
            [re.sub(r"^\d+ |[\[\]]", "", line) for line in file.read_text(encoding="utf-8").splitlines()]
            for file in (path, path.with_name(path.name.replace("pro_", "anti_")))
        ]
        for left, right in zip(*sides, strict=True):
            for text, twin in ((left, right), (right, left)):
                words, twins = list(re.finditer(r"\w+", text)), re.findall(r"\w+", twin)
                if len(words) == len(twins):
                    cases += [
                        Case(text, *found.span(), other.lower())
                        for found, other in zip(words, twins, strict=True)
                        if found[0].lower() == "her" and other.lower() in ("him", "his")
                    ]
    return cases


def winogender(data_dir: Path) -> list[Case]:
    """Each "her" of a template's female sentence; the template says whether it is him or his."""
    cases = []
    with (data_dir / "winogender" / "templates.tsv").open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream, delimiter="\t"):
            text = row["sentence"].replace("$OCCUPATION", row["occupation(0)"]).replace("$NOM_PRONOUN", "she")
            text = text.replace("$PARTICIPANT", row["other-participant(1)"])
            for mark, answer in (("$ACC_PRONOUN", "him"), ("$POSS_PRONOUN", "his")):
                if mark in text:
                    start = text.index(mark)
                    cases.append(Case(text.replace(mark, "her"), start, start + 3, answer))
    return cases


def column(path: Path, name: str, delimiter: str = ",") -> list[str]:
    """The distinct texts of one column, in order."""
    csv.field_size_limit(10**8)
    with path.open(encoding="utf-8", newline="") as stream:
        rows = csv.reader(
            stream, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if delimiter == "," else csv.QUOTE_NONE
        )
        number = next(rows).index(name)
        return list(dict.fromkeys(row[number] for row in rows))


def data_sets(data_dir: Path) -> dict[str, list[Case]]:
    """Name → cases."""
    gap = [column(data_dir / "gap" / f"gap-{part}.tsv", "Text", "\t") for part in ("development", "validation", "test")]
    sst2 = [column(data_dir / "sst2" / f"{part}.tsv", "sentence", "\t") for part in ("dev", "test")]
    return {
        "EWT her": ewt(data_dir, "her"),
        "WinoBias her": winobias(data_dir),
        "Winogender her": winogender(data_dir),
        "EWT him, his masked": ewt(data_dir, "her", covering=True),
        "GAP him, his masked": masked(itertools.chain(*gap)),
        "SST-2 him, his masked": masked(itertools.chain(*sst2)),
        "HateXplain him, his masked": masked(column(data_dir / "hatexplain" / "preprocessed.csv", "text")),
        "EWT his": ewt(data_dir, "his"),
        "EWT her, hers masked": ewt(data_dir, "his", covering=True),
    }


def next_word_rule(case: Case) -> str:
    """No noun of its own before a mark, the end, or one of 60 words that cannot open what is owned."""
    alone, owning = ("him", "his") if case.text[case.start : case.end].lower() == "her" else ("hers", "her")
    found = re.match(r"\s+(\w+)", case.text[case.end : case.end + 60])
    return owning if found and not NOT_OWNED.fullmatch(found[1]) else alone


def told(case: Case) -> tuple[str, float]:
    """The answer of counterfactuals/text/pronouns.py and its probability."""
    document = Document(case.text, GENDER)
    return decide(case.text[case.start : case.end].lower(), document, document.token_at(case.start))


def ours(case: Case) -> str:
    """The answer of counterfactuals/text/pronouns.py."""
    return told(case)[0]


RULES: dict[str, Callable[[Case], str]] = {
    "always him / hers": lambda case: "him" if case.answer.startswith("hi") else "hers",
    "always his / her": lambda case: "his" if case.answer.startswith("hi") else "her",
    "next word": next_word_rule,
    "ours": ours,
}


def accuracy(cases: list[Case], rule: Callable[[Case], str]) -> tuple[float, float]:
    """Share right, and the mean of the shares right of each answer, both in [0, 1]."""
    right = {answer: [rule(case) == answer for case in cases if case.answer == answer] for answer in answers(cases)}
    hits = [sum(marks) for marks in right.values()]
    sizes = [len(marks) for marks in right.values()]
    return sum(hits) / sum(sizes), sum(hit / size for hit, size in zip(hits, sizes, strict=True)) / len(sizes)


def answers(cases: list[Case]) -> list[str]:
    """The answers that occur, sorted."""
    return sorted({case.answer for case in cases})


def calibration(cases: list[Case]) -> tuple[list[tuple[float, int, float, float]], float]:
    """Per band of stated probability: its lower edge, cases, mean probability, share right; and the mean distance."""
    answers = map(told, cases)
    marks = [(probability, answer == case.answer) for (answer, probability), case in zip(answers, cases, strict=True)]
    edges = (0.5, *REASONS, 0.99, 1.01)
    bands = []
    for low, high in itertools.pairwise(edges):
        inside = [(probability, right) for probability, right in marks if low <= probability < high]
        if inside:
            mean, share = (sum(column) / len(inside) for column in zip(*inside, strict=True))
            bands.append((low, len(inside), mean, share))
    return bands, sum(n * abs(mean - share) for _, n, mean, share in bands) / len(marks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, default=Path("../shared/data"), help="folder of the public data sets")
    data_dir = parser.parse_args().data_dir
    if not (data_dir / "pronouns_ewt_dev").is_dir():
        parser.error(f"--data_dir {data_dir}: holds no folder pronouns_ewt_dev")
    sets = data_sets(data_dir)

    print("| share right / balanced, % | n | " + " | ".join(RULES) + " |\n|---|--:|" + "--:|" * len(RULES))
    result: dict[str, Any] = {}
    for name, cases in sets.items():
        row = {rule: accuracy(cases, decision) for rule, decision in RULES.items()}
        cells = [f"{100 * share:.1f} / {100 * balanced:.1f}" for share, balanced in row.values()]
        print(f"| {name} | {len(cases)} | " + " | ".join(cells) + " |")
        result[name] = {"n": len(cases), **{rule: [round(x, 4) for x in figures] for rule, figures in row.items()}}

    everything = [case for cases in sets.values() for case in cases]
    bands, error = calibration(everything)
    print("\n| stated probability from | n | mean stated | share right |\n|--:|--:|--:|--:|")
    for low, n, mean, share in bands:
        print(f"| {low} | {n} | {mean:.3f} | {share:.3f} |")

    documents = [(document := Document(case.text, GENDER), document.token_at(case.start)) for case in everything]
    begin = time.perf_counter()
    for document, token in documents:
        decide("her", document, token)
    speed = (time.perf_counter() - begin) / len(everything) * 1e6
    print(f"\nmean distance of the two {error:.3f}; {speed:.1f} µs a decision")
    print(json.dumps({"accuracy": result, "calibration_error": round(error, 4), "microseconds": round(speed, 2)}))


if __name__ == "__main__":
    main()
