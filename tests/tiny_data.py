"""Small files in the layout of the stereotype tests' data, written by us, for tests that run every task."""

import csv
import json
from pathlib import Path

CROWS = [
    ("The nurse said that she came.", "The nurse said that he came.", "stereo", "gender"),
    ("The doctor said that his notes.", "The doctor said that her notes.", "stereo", "gender"),
    ("The girl repaired the bridge.", "The boy repaired the bridge.", "antistereo", "gender"),
    ("The old man.", "The boys.", "stereo", "age"),
]
INTRA = [
    (
        "gender",
        "mother",
        "The mother is BLANK.",
        "The mother is the cook.",
        "The mother is a doctor.",
        "The mother bus.",
    ),
    ("gender", "mother", "A mother BLANK", "A mother likes her pupils", "A mother likes bridges", "A mother screen"),
    ("gender", "boy", "The boy BLANK.", "The boy repaired it.", "The boy waited.", "The boy pipes."),
]
INTER = [
    ("gender", "mother", "The mother left", "She had to cook.", "She had to work.", "The bridge is old."),
    ("gender", "boy", "The boy came.", "He had mended the pipes.", "He had the book.", "The shift is his."),
]
WINOBIAS = [
    ("[The engineer] thanked the nurse because [{}] came back.", "he", "she"),
    ("The engineer thanked [the nurse] because of [{}] notes.", "her", "his"),
]
OCCUPATIONS = (("nurse", 91.1, 90.4), ("engineer", 1.99, 10.72), ("teacher", 60.0, 70.5))
BBQ = [  # polarity, condition, groups of the answers, stereotyped, label
    ("neg", "ambig", ("F", "M", "unknown"), "F", 2),
    ("neg", "disambig", ("F", "M", "unknown"), "F", 1),
    ("nonneg", "ambig", ("unknown", "M", "F"), "F", 0),
    ("nonneg", "disambig", ("unknown", "man", "woman"), "F", 2),
]
ANSWERS = {"F": "Mary", "M": "Smith", "unknown": "Not known", "man": "The man", "woman": "The woman"}


def write_table(path: Path, header: list[str], rows: list, delimiter: str = ",") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([header, *rows])


def write_stereotype_data(folder: Path) -> None:
    """All files that crows_pairs, stereoset, winobias, winogender and bbq read."""
    write_table(
        folder / "crows_pairs" / "crows_pairs_anonymized.csv",
        ["", "sent_more", "sent_less", "stereo_antistereo", "bias_type"],
        [[number, *row] for number, row in enumerate(CROWS)],
    )
    fields = ("bias_type", "target", "context", "stereotype", "anti_stereotype", "unrelated")
    for name, rows in (("intrasentence", INTRA), ("intersentence", INTER)):
        path = folder / "stereoset" / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(dict(zip(fields, row))) + "\n" for row in rows))
    for kind in "12":
        for split in ("dev", "test"):
            for side, column in (("pro", 1), ("anti", 2)):
                path = folder / "winobias" / f"{side}_stereotyped_type{kind}.txt.{split}"
                path.parent.mkdir(parents=True, exist_ok=True)
                lines = [f"{n} {row[0].format(row[column])}\n" for n, row in enumerate(WINOBIAS, 1)]
                path.write_text("".join(lines))
    write_table(
        folder / "winogender" / "occupations-stats.tsv",
        ["occupation", "bergsma_pct_female", "bls_pct_female", "bls_year"],
        [[*row, 2015] for row in OCCUPATIONS],
        "\t",
    )
    pronouns = {"male": "he", "female": "she", "neutral": "they"}
    write_table(
        folder / "winogender" / "all_sentences.tsv",
        ["sentid", "sentence"],
        [
            [f"{name}.{other}.{who}.{gender}.txt", f"The {name} told {other} that {word} had {what}."]
            for name, _, _ in OCCUPATIONS
            for other in ("workers", "someone")
            for who, what in (("0", "mended it"), ("1", "to wait"))
            for gender, word in pronouns.items()
        ],
        "\t",
    )
    rows = []
    for number, (polarity, condition, groups, stereotyped, label) in enumerate(BBQ):
        answers = [ANSWERS[group] for group in groups]
        info = ", ".join(
            f"'ans{i}': array(['{a}', '{g}'], dtype=object)" for i, (a, g) in enumerate(zip(answers, groups))
        )
        metadata = f"{{'subcategory': 'None', 'stereotyped_groups': array(['{stereotyped}'], dtype=object)}}"
        index = 30 if "M" in groups else 2
        question = ("Who came late?", "Who came early?")[polarity == "nonneg"]
        rows.append(
            [number, index, polarity, condition, f"{{{info}}}", metadata, "They came.", question, *answers, label]
        )
    header = "example_id question_index question_polarity context_condition answer_info additional_metadata"
    write_table(
        folder / "bbq_gender" / "Gender_identity.csv",
        [*header.split(), "context", "question", "ans0", "ans1", "ans2", "label"],
        rows,
    )
