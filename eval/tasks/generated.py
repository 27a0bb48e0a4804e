"""What tasks on sampled texts share: rows {"group", "prompt", "prompt_number", "run", "text"}, as `bold` writes them.

Such a task follows bold: if bold runs too, its texts are judged. Alone, the task samples with the options below.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eval.measures.intervals import cluster_sums, resampled_sums
from eval.model import Scorer
from eval.task import Row
from eval.tasks import bold

SAMPLING = ("file", "prompts_per_group", "texts_per_prompt", "runs", "top_p", "temperature", "max_new_tokens", "bos")
OPTIONS = {name: bold.OPTIONS[name] for name in SAMPLING}


def load(data_dir: Path, options: Mapping[str, Any], limit: int | None, seed: int) -> list[Row]:
    return bold.load(data_dir, {**bold.OPTIONS, **{name: options[name] for name in SAMPLING}}, limit, seed)


def texts(scorer: Scorer, rows: list[Row], options: Mapping[str, Any], seed: int) -> list[Row]:
    """The rows as they are if they hold texts, else with sampled ones."""
    if "text" in rows[0]:
        return rows
    return bold.score(scorer, rows, {**bold.OPTIONS, **{name: options[name] for name in SAMPLING}}, seed)


def by_prompt(rows: Sequence[Row], values_NK: Any, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Sums over one group's rows, (K,), and over resamples of its prompts, (R, K)."""
    sums_CK = cluster_sums([row["prompt_number"] for row in rows], values_NK)
    return sums_CK.sum(0), resampled_sums(sums_CK, seed=seed)
