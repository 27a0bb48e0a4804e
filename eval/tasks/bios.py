"""Bias in Bios: is a person's occupation recognised as often for women as for men?

Paper: De-Arteaga et al. 2019, in ERA's protocol (Gupta et al. 2022): the language model is frozen; attention pooling
with a learned query over its last layer's states, then a linear layer; 65/10/25 split, 20 epochs, batches of 256, AdamW
at 1e-3. Version 1. `accuracy` (ideal 1); `tprd`: mean over occupations of |TPR female − TPR male| (ideal 0), with
`tprd_by_chance`, what so few people would show if gender had no influence, and its p; `gap/OCCUPATION`: TPR female −
TPR male, with n the test people of the smaller gender. `flipped`, `moved`, `prediction_sensitivity`, `finetune` and
`scrub` are as in `classify`.

`file`: the folder bias_in_bios (train, dev, test; --hub fetches it) if it exists, else wiki_bios.jsonl.gz, biographies
whose occupation and gender were read from Wikipedia articles. This substitute's figures are not comparable with the
paper's. Its first sentence, which names the occupation, is left out as De-Arteaga et al. do (`first_sentence` true
keeps it), and so are occupations with fewer than `min_people`. 20 epochs of so few texts are 280 steps: too few for the
head of a narrow model, whose TPRD is then near 0 because it recognises nobody. Check that `accuracy` is well above
`majority`; if not, raise `lr` or `epochs` for every model alike.

Not measured: who gets which job; other genders; other occupations. Intervals: bootstrap over the people of the test.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from eval.data import read_table
from eval.measures import classification as shared
from eval.task import Hub, Row, check_options
from eval.tasks import classify

OPTIONS = {"file": "auto", "first_sentence": False, "min_people": 20, **shared.OPTIONS}
_PROFESSIONS = """
accountant architect attorney chiropractor comedian composer dentist dietitian dj filmmaker interior_designer journalist
model nurse painter paralegal pastor personal_trainer photographer physician poet professor psychologist rapper
software_engineer surgeon teacher yoga_teacher
"""
PROFESSIONS = _PROFESSIONS.split()  # in the order of the Hub's numbers
GENDERS = {"0": "m", "1": "f", "m": "m", "f": "f", "male": "m", "female": "f"}
_ABBREVIATIONS = """
mr mrs ms dr st jr sr prof rev gen lt col capt sgt hon no vs inc ltd co corp c ca b d
jan feb mar apr aug sept oct nov dec
"""
_SHORT = frozenset(_ABBREVIATIONS.split())  # their dot does not end a sentence
_END = re.compile(r"(?P<word>[^\s(]*)[.!?][\"”’')]*\s+(?=[\"“‘'(]?[A-Z0-9À-ÖØ-Þ])|\n")


def after_first_sentence(text: str) -> str:
    """What follows the first sentence, which ends outside brackets and not at a title's or an initial's dot."""
    for match in _END.finditer(text):
        word = match["word"] or ""
        if text[: match.start()].count("(") > text[: match.start()].count(")") and match[0] != "\n":
            continue
        letters = word.rstrip(".").lower()
        if match[0] != "\n" and (letters in _SHORT or len(letters) == 1 or "." in letters):
            continue
        return text[match.end() :].strip()
    return ""


def hub_records(records: Iterable[Mapping[str, Any]]) -> str:
    """jsonl of the Hub's records {"hard_text", "profession": number, "gender": 0 (male) or 1}, professions by name."""
    return "".join(
        json.dumps(
            {
                "hard_text": record["hard_text"],
                "profession": PROFESSIONS[record["profession"]],
                "gender": GENDERS[str(record["gender"])],
            },
            ensure_ascii=False,
        )
        + "\n"
        for record in records
    )


def load(data_dir: Path, options: Mapping[str, Any], limit: int | None, seed: int) -> list[Row]:
    shared.check_options(options, "bios")
    check_options("bios", options, min_people=1)
    file = options["file"]
    if file == "auto":
        file = "bias_in_bios" if (data_dir / "bias_in_bios").is_dir() else "wiki_bios.jsonl.gz"
    what = "biographies with occupation and gender, wiki_bios.jsonl.gz or a folder bias_in_bios of train, dev and test"
    rows: list[Row] = []
    for name, path in shared.find_tables(data_dir, file, what).items():
        records = read_table(path, [])
        hard = "hard_text" in records[0]
        fields = ("hard_text", "profession", "gender") if hard else ("text", "occupation", "gender")
        for number, record in enumerate(records, 1):
            if not all(record.get(field) not in (None, "") for field in fields):
                raise ValueError(f"{path} row {number}: needs the fields {', '.join(fields)}")
            text, label, gender = (str(record[field]).strip() for field in fields)
            if gender not in GENDERS:
                raise ValueError(f"{path} row {number}: gender {gender!r} must be one of {', '.join(GENDERS)}")
            if hard and label.isdigit() and int(label) < len(PROFESSIONS):
                label = PROFESSIONS[int(label)]
            if not hard and not options["first_sentence"]:
                text = after_first_sentence(text)
            rows.append(
                {
                    "id": record.get("id", len(rows)),
                    "text": text,
                    "label": label,
                    "group": GENDERS[gender],
                    "split": name,
                }
            )
    told = len(rows)
    rows = [row for row in rows if row["text"]]
    counts = Counter(row["label"] for row in rows)
    rows = [row for row in rows if counts[row["label"]] >= options["min_people"]]
    if not rows:
        raise ValueError(f"{data_dir / file}: no occupation has min_people {options['min_people']} biographies")
    if len(rows) < told:
        kept = len({row["label"] for row in rows})
        print(
            f"bios: {len(rows)} of {told} biographies: those with text beyond the first sentence, "
            f"of {kept} occupations with {options['min_people']} people or more",
            file=sys.stderr,
        )
    return shared.shortened(rows, options, limit, seed)


score, aggregate = classify.score, classify.aggregate
HUB = {f"bias_in_bios/{part}.jsonl": Hub("LabHC/bias_in_bios", part, hub_records) for part in ("train", "dev", "test")}
