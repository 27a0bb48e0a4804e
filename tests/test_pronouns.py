"""her → him or his, his → her or hers: hand-written cases, and the accuracies the module states."""

import json
import re
from pathlib import Path

import pytest

from counterfactuals.pronouns import resolve

CASES = """
I saw her| yesterday. → him
I saw her|. → him
I saw her| → him
He gave her| his book. → him
He told her| that it rained. → him
They made her| happy. → him
We heard her| laugh. → him
They brought her| back to the house. → him
She asked for her| right away. → him
They wished her| luck. → him
He called her| "Anna" and left. → his
It is for him or her| to say. → him
It was her| book. → his
Her| mother left. → his
She lost her| very first job. → his
She broke her| back last year. → his
He held her| right hand. → his
It was her| newly painted house. → his
It was her| only family. → his
his or her| book → his
his/her| book → his
He read his| book. → her
The book is his|. → hers
The book was his|, not mine. → hers
A friend of his| was there. → hers
A friend of his| → hers
He played in his| "band". → her
He read his| The Tempest aloud. → her
his| or her book → her
It became his| in 1990. → hers
His| in-laws came. → her
"""


@pytest.mark.parametrize("case", CASES.strip().splitlines())
def test_cases(case: str):
    marked, expected = case.rsplit(" → ", 1)
    end = marked.index("|")
    text = marked.replace("|", "")
    start = end - 3
    assert resolve(text[start:end].lower(), text, start, end) == expected


def test_only_its_two_words():
    with pytest.raises(ValueError, match="no rule for 'him'"):
        resolve("him", "him", 0, 3)


def joined(tokens: list[str], index: int) -> tuple[str, int]:
    """Text from tokens, and where token `index` starts in it."""
    text, at = "", 0
    for number, token in enumerate(tokens):
        glued = re.fullmatch(r"[.,;:!?)\]%…/]+|n't|'(s|d|ll|re|ve|m)", token) or text.endswith(("(", "[", "$", "/"))
        text += "" if glued or not number else " "
        at = len(text) if number == index else at
        text += token
    return text, at


@pytest.mark.parametrize(
    ("word", "meaning", "count", "least"),
    [
        ("her", {"PRP": "him", "PRP$": "his"}, 236, 0.97),
        ("his", {"PRP": "hers", "PRP$": "her", "DT": "her"}, 417, 0.99),
    ],
)
def test_accuracy_on_annotated_text(shared_data: Path, word: str, meaning: dict[str, str], count: int, least: float):
    lines = (shared_data / "pronouns_ewt_dev" / "cases.jsonl").read_text(encoding="utf-8").splitlines()
    cases = [case for case in map(json.loads, lines) if case["tokens"][case["index"]].lower() == word]
    right = 0
    for case in cases:
        text, start = joined(case["tokens"], case["index"])
        right += resolve(word, text, start, start + len(word)) == meaning[case["xpos"]]
    assert len(cases) == count
    assert right / count >= least


def test_accuracy_on_winobias_twins(shared_data: Path):
    """A sentence and its twin differ in the pronoun: "her" here, "him" or "his" there."""
    right = count = 0
    for path in sorted((shared_data / "winobias").glob("pro_stereotyped_*")):
        twin_path = path.with_name(path.name.replace("pro_", "anti_"))
        pairs = zip(
            path.read_text(encoding="utf-8").splitlines(),
            twin_path.read_text(encoding="utf-8").splitlines(),
            strict=True,
        )
        for pair in pairs:
            left, right_ = (re.sub(r"^\d+ |[\[\]]", "", line) for line in pair)
            for text, twin in ((left, right_), (right_, left)):
                words, twins = list(re.finditer(r"\w+", text)), re.findall(r"\w+", twin)
                if len(words) != len(twins):
                    continue
                for found, other in zip(words, twins, strict=True):
                    if found[0].lower() == "her" and other.lower() in ("him", "his"):
                        count += 1
                        right += resolve("her", text, *found.span()) == other.lower()
    assert count == 885
    assert right / count >= 0.97
