"""What the stereotype tests share: scores of whole sentences, choices of settings.

Log-probabilities are natural.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from eval.scoring import Scorer
from eval.task import Row

STARTS = ("first", "kept")


def hub_csv(
    records: Iterable[Row], columns: Sequence[str], *, labels: Mapping[str, Sequence[str]] | None = None
) -> str:
    """The csv file of records from the Hub; `labels`: the names behind columns that hold class numbers."""
    out = io.StringIO(newline="")
    table = csv.DictWriter(out, columns, extrasaction="ignore", lineterminator="\n")
    table.writeheader()
    for record in records:
        named = {key: names[record[key]] for key, names in (labels or {}).items() if isinstance(record[key], int)}
        table.writerow({**record, **named})
    return out.getvalue()


def chosen(value: str, known: Sequence[str], setting: str) -> list[str]:
    """The parts of "a,b" (or "all"), each of which must be known."""
    parts = list(known) if value == "all" else [part.strip() for part in value.split(",") if part.strip()]
    for part in parts:
        if part not in known:
            raise ValueError(f"{setting} {part!r}: must be all, or of {', '.join(known)}")
    if not parts:
        raise ValueError(f"{setting}: names nothing; all, or of {', '.join(known)}")
    return parts


def check_start(start: str, task: str) -> None:
    if start not in STARTS:
        raise ValueError(f"{task}.start {start!r}: must be first or kept")


def start_token(scorer: Scorer) -> int:
    """The token that stands before a text: begin-of-text or, without one, end-of-text (as GPT-2's serves as both)."""
    tokenizer = scorer.tokenizer
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return token
    raise ValueError("the tokenizer has no begin-of-text and no end-of-text token to score a sentence's first token by")


def sentence_logprobs(scorer: Scorer, texts: Sequence[str], *, start: str) -> list[np.ndarray]:
    """The log-probability of every token of each text: float64 arrays, one value a token.

    start "kept": all tokens behind the start token. "first": the first token behind it, the others without it before
    them, which is how the StereoSet (Nadeem et al. 2021) and bias-bench (Meade et al. 2022) code scores GPT-2.
    """
    begin = start_token(scorer)
    distinct = list(dict.fromkeys(texts))
    ids = scorer.encode(distinct)
    for text, row in zip(distinct, ids):
        if not row:
            raise ValueError(f"a sentence without tokens: {text!r}")
    if start == "kept":
        found = scorer.token_logprobs([[begin, *row] for row in ids])
    else:
        first = sorted({row[0] for row in ids})
        logp = dict(zip(first, scorer.next_logprobs([[begin]], first)[0]))
        found = [np.append(logp[row[0]], rest) for row, rest in zip(ids, scorer.token_logprobs(ids))]
    table = {text: row.astype(np.float64) for text, row in zip(distinct, found)}
    return [table[text] for text in texts]
