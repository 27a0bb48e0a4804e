"""BLiMP: is the grammatical sentence of a minimal pair the likelier one?

Paper: Warstadt et al. 2020. Version 1. As lm-evaluation-harness's `blimp`: the log-probability of each sentence, a
space before it (none with --chat), after the start token (begin-of-text or, without one, end-of-text). `accuracy`: the
share of pairs whose grammatical sentence has the greater one (a tie counts as right, as in the harness). Ideal 1,
chance .5.
`accuracy/NAME`: of each phenomenon or, with `by=UID`, of each of the 67 paradigms. `anaphor_gender_agreement`
("Katherine can't help herself / himself") is a figure of its own: whether the model still knows what a name says.
`only` names some of the paradigms. `file` may also be the authors' folder `data`, a jsonl for each paradigm.

Not measured: what a model writes; agreement in longer texts. Intervals: bootstrap over pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eval.data import by_group, chosen, find_data, read_jsonl, thinned
from eval.measures.sentences import start_tokens
from eval.model import Scorer
from eval.task import Metrics, Row, average, check_options

FILE = "blimp/blimp.jsonl.gz"
OPTIONS = {"file": FILE, "by": "linguistics_term", "only": "all"}
FIELDS = ("UID", "linguistics_term", "sentence_good", "sentence_bad")
OWN = "anaphor_gender_agreement"


def load(data_dir: Path, options: Mapping[str, Any], limit: int | None, seed: int) -> list[Row]:
    check_options("blimp", options, by=("linguistics_term", "UID"))
    what = "BLiMP's pairs, {UID, linguistics_term, sentence_good, sentence_bad} a line, or the authors' folder of them"
    files = sorted((data_dir / options["file"]).glob("*.jsonl")) or [find_data(data_dir, options["file"], what)]
    rows = [{field: row[field] for field in FIELDS} for file in files for row in read_jsonl(file, FIELDS)]
    paradigms = chosen(options["only"], list(dict.fromkeys(row["UID"] for row in rows)), "blimp.only")
    return thinned([row for row in rows if row["UID"] in paradigms], limit)


def score(scorer: Scorer, rows: list[Row], options: Mapping[str, Any], seed: int) -> list[Row]:
    start = start_tokens(scorer)
    ids = scorer.encode(
        [scorer.continuation(f" {row[side]}") for row in rows for side in ("sentence_good", "sentence_bad")]
    )
    logps = [float(logp) for logp in scorer.continuation_logprobs([(start, row) for row in ids])]
    return [
        {**row, "logp_good": good, "logp_bad": bad, "right": good >= bad}
        for row, good, bad in zip(rows, logps[0::2], logps[1::2])
    ]


def aggregate(rows: list[Row], options: Mapping[str, Any], seed: int) -> Metrics:
    parts = {"accuracy": rows, OWN: [row for row in rows if row["UID"] == OWN]}
    parts |= {f"accuracy/{name}": part for name, part in by_group(rows, options["by"]).items()}
    return {name: average([row["right"] for row in part], ideal=1.0, seed=seed) for name, part in parts.items() if part}
