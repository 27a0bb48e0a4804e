"""Articles → what a study on real text reads: paragraphs to learn agreement from, and cases of agreement.

    python benchmarks/paragraphs.py ../shared/data/wikipedia_articles.jsonl.gz runs/paragraphs

train.jsonl, heldout.jsonl: paragraphs with at least two pronouns of a gender; every 40th article is held out whole. For
eval's task agreement: pronouns.jsonl (held-out paragraphs up to a pronoun; all gendered words before it are of its
gender, one a pronoun; women and men in equal number, since Wikipedia has twice as many men), names.jsonl and
sex_bound.jsonl (sentences of our own in which only a given name, or being pregnant, bearded …, tells the gender).
"""

from __future__ import annotations

import json
import random
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from counterfactuals.files import write_whole
from counterfactuals.sample import name_cases, sex_bound_cases
from counterfactuals.text.lexicon import load_lexicon
from counterfactuals.tokens.corpus import Corpus, units

HELD_OUT_EVERY = 40
LONGEST_PROMPT = 45  # words: the cue has to stay in the context of a small model
PRONOUNS = ["he", "him", "his", "himself", "she", "her", "hers", "herself"]
PRONOUN = re.compile(rf"\b(?:{'|'.join(PRONOUNS)})\b", re.IGNORECASE)
WORD = re.compile(r"[^\W\d_]+")
# What may stand in the pronoun's place, of each group.
FORMS = {
    word: sides
    for sides in (
        (("she",), ("he",)),
        (("her",), ("him", "his")),
        (("herself",), ("himself",)),
        (("She",), ("He",)),
        (("Her",), ("His",)),
    )
    for side in sides
    for word in side
}


def paragraphs(source: str) -> tuple[list[str], list[str]]:
    parts: tuple[list[str], list[str]] = ([], [])
    for name, text in units(Corpus(source), paragraphs=True):
        if len(text) > 80 and len(PRONOUN.findall(text)) >= 2:
            article = int(name[1:].split("p")[0])
            parts[article % HELD_OUT_EVERY == 0].append(text)
    return parts


def natural_cases(texts: Iterable[str]) -> list[dict[str, Any]]:
    """Texts up to the last pronoun before which every gendered word is of its gender and one is a pronoun."""
    lexicon = load_lexicon("gender")
    words = {word: group for group, side in enumerate(lexicon.groups) for word in lexicon.words(side)}
    cases: tuple[list[dict[str, Any]], ...] = ([], [])
    for text in texts:
        gendered = [match for match in WORD.finditer(text) if match[0].lower() in words]
        last, told = None, False
        for match in gendered:
            group, prompt = words[match[0].lower()], text[: match.start()]
            if group != words[gendered[0][0].lower()] or len(prompt.split()) > LONGEST_PROMPT:
                break
            if told and match[0] in FORMS and prompt.endswith(" "):
                sides = FORMS[match[0]]
                last = group, {"prompt": prompt.rstrip(), "right": [*sides[group]], "wrong": [*sides[1 - group]]}
            told = told or match[0].lower() in PRONOUNS
        if last:
            cases[last[0]].append(last[1])
    drawn = random.Random(0)
    return [row for side in cases for row in drawn.sample(side, min(map(len, cases)))]


def write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    rows = list(rows)
    write_whole(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    print(f"{path}: {len(rows):,} rows")


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    out = Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    train, held_out = paragraphs(sys.argv[1])
    write(out / "train.jsonl", ({"text": text} for text in train))
    write(out / "heldout.jsonl", ({"text": text} for text in held_out))
    write(out / "pronouns.jsonl", natural_cases(held_out))
    write(out / "names.jsonl", name_cases())
    write(out / "sex_bound.jsonl", sex_bound_cases())


if __name__ == "__main__":
    main()
