"""A workspace of Weights & Biases as code: losses, disparity and utility while training, results, speed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from counterfactuals.files import one_line, write_whole

LOSSES = ("loss", "kd", "kd_plain", "lm", "hidden")


def workspace(
    *, project: str, entity: str, during: Sequence[str], results: Sequence[str], name: str = "Evenhand"
) -> Any:
    """A wandb_workspaces Workspace. during, results: TASK/METRIC of figures during training and of finished models.

    ValueError if wandb-workspaces is not installed.
    """
    try:
        import wandb_workspaces.reports.v2 as wr
        import wandb_workspaces.workspaces as ws
    except ImportError:
        raise ValueError("dashboard: wandb-workspaces is not installed: pip install 'evenhand[wandb]'") from None

    def lines(title: str, keys: Sequence[str]) -> Any:
        return wr.LinePlot(title=title, x="Step", y=list(keys))

    def by_task(keys: Sequence[str]) -> dict[str, list[str]]:
        tasks: dict[str, list[str]] = {}
        for key in keys:
            tasks.setdefault(key.partition("/")[0], []).append(key)
        return tasks

    while_training = [lines(task, keys) for task, keys in by_task(during).items()]
    finished: list[Any] = [wr.BarPlot(title=key, metrics=[key]) for key in results]
    sections = [
        ws.Section(name="Losses", panels=[lines(key, [key]) for key in LOSSES], is_open=True),
        ws.Section(name="Disparity and utility while training", panels=while_training, is_open=bool(during)),
        ws.Section(name="Results", panels=finished, is_open=bool(results)),
        ws.Section(
            name="Optimisation and speed",
            panels=[lines(key, [key]) for key in ("lr", "grad_norm", "tokens_per_s", "num_tokens")],
        ),
    ]
    return ws.Workspace(entity=entity, project=project, name=name, sections=sections)


def save(made: Any, out: Path | None) -> str:
    """Save to the server, or as JSON to the file `out`; returns where it is. ValueError if the server refuses."""
    if out is not None:
        write_whole(out, json.dumps(made._to_model().model_dump(mode="json"), indent=1) + "\n")
        return str(out)
    try:
        made.save()
    except Exception as error:  # the client raises anything without a key, project or network
        raise ValueError(f"dashboard: {one_line(error)}; --output FILE.json writes it instead") from None
    return str(made.url)
