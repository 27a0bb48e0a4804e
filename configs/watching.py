"""What watches a run: where its figures go, and the small evaluations during training."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from configs import schema
from configs.schema import Config
from debias.run.tracking import Sink, TensorBoardSink, WandbSink


def sinks_of(config: Config, name: str, folder: Path, *, step: int) -> list[Sink]:
    """Where figures go besides metrics.jsonl."""
    if config.tracking.to == "wandb":
        return [WandbSink(folder, **wandb_options(config, name))]
    return [TensorBoardSink(folder, step=step)] if config.tracking.to == "tensorboard" else []


def wandb_options(config: Config, name: str) -> dict[str, Any]:
    """Options of WandbSink."""
    t = config.tracking
    group = t.group or Path(config.output_dir).name
    title = "-".join(part for part in (t.name or group, name) if part)
    options = {"entity": t.entity, "project": t.project, "group": group, "tags": t.tags, "mode": t.mode}
    return options | {"title": title, "config": schema.to_dict(config)}


def evaluation_data(config: Config) -> str | Path:
    """The folder with the evaluation data."""
    own = Path(config.output_dir) / "sample" if config.data.source in ("sample", "self") else None
    return config.eval.data_dir or own or "data"


def probe_of(config: Config, tokenizer: Any) -> Callable[[Any], dict[str, float]]:
    """The small evaluation of a student during training: {TASK/METRIC: value}."""
    if not config.eval.every:
        return lambda student: {}
    from eval.probe import Probe

    e = config.eval
    probe = Probe(e.during, data_dir=evaluation_data(config), limit=e.during_limit, seed=config.seed)
    return partial(probe, tokenizer=tokenizer, batch_size=e.batch_size)
