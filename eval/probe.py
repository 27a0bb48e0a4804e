"""A small evaluation of a model while it is trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eval.check import check
from eval.model import Scorer


class Probe:
    """Tasks on at most `limit` rows each. Data is read, and mistakes are refused, when this is made."""

    def __init__(self, tasks: Mapping[str, Mapping[str, Any]], *, data_dir: str | Path, limit: int, seed: int):
        self.seed = seed
        self.tasks, self.rows = check(tasks, data_dir=data_dir, limit=limit, seed=seed)

    def __call__(self, model: Any, tokenizer: Any, *, batch_size: int) -> dict[str, float]:
        """The headline figures, {"next_word/equitability_avg": .4}; undefined ones are left out.

        Uses none of the process's random number generators; leaves the model in evaluation mode.
        """
        scorer = Scorer(model, tokenizer, device=model.device, batch_size=batch_size)
        figures = {}
        for label, (task, options) in self.tasks.items():
            metrics = task.aggregate(task.score(scorer, self.rows[label], options, self.seed), options, self.seed)
            for name in task.headlines(metrics):
                if metrics[name]["value"] is not None:
                    figures[f"{label}/{name}"] = metrics[name]["value"]
        return figures
