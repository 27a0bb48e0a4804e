"""A run with `privacy.epsilon`: what is refused, how much noise it needs, and what its run.json says."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.utils import broadcast_object_list

from configs import schema
from configs.load import FREE, path_of
from configs.schema import Config
from counterfactuals.files import read_yaml
from counterfactuals.tokens.pairs import PairSet
from privacy.account import Schedule, calibrate, epsilon
from privacy.mechanism import Mechanism
from privacy.noise import Keys, check_secret, load_secret
from privacy.plan import PoissonPlan

NOT_COVERED = (  # ends a sentence that begins "The guarantee does not cover"
    "metrics.jsonl and the progress that is shown, the number of texts, the choice of settings after looking at the "
    "private texts, what else was published from them, or one person's several texts together"
)


def check(config: Config, runs: Mapping[str, Config]) -> None:
    """Refuse what can be known to break the guarantee: an open secret, and models made from the same texts."""
    if config.privacy.epsilon is None:
        return
    check_secret(Path(config.privacy.secret))
    for key, model in (("teacher.model", config.teacher.model), ("student.model", config.student.model)):
        own = _data_of(config, model, runs) if model else None
        if own is not None and _source(own) == _source(schema.to_dict(config)["data"]):
            raise ValueError(
                f"{key}: {model} was trained on {config.data.source}, the private texts themselves, and would hand "
                "them on; take one that was trained on other texts"
            )


def _data_of(config: Config, model: str, runs: Mapping[str, Config]) -> dict[str, Any] | None:
    """The settings `data` of the run that made a model, where that is known."""
    run = model.removeprefix("run:")
    if run != model and run in runs:
        return schema.to_dict(runs[run])["data"]
    saved = Path(path_of(config, model)).parent / "config.yaml"  # a run that is not among --runs is trained already
    found = read_yaml(saved) if saved.is_file() else None
    return found["data"] if isinstance(found, dict) and isinstance(found.get("data"), dict) else None


def _source(data: Mapping[str, Any]) -> tuple[Any, ...]:
    path = str(data.get("source"))
    return os.path.realpath(path) if os.path.exists(path) else path, data.get("subset"), data.get("split")


def schedule_of(config: Config, rate: float, steps: int) -> Schedule:
    return Schedule(rate, steps, config.privacy.decay, max(1, round(1 / rate)))


def noise_of(config: Config, schedule: Schedule, num_texts: float) -> float:
    """The noise multiplier that gives privacy.epsilon; ValueError for a delta that is too large, or where none does."""
    p = config.privacy
    assert p.epsilon is not None and p.delta is not None
    if p.delta >= 1 / num_texts:
        raise ValueError(
            f"privacy.delta: {p.delta:g} allows to publish one of {num_texts:,.0f} texts as it is; it must be below "
            f"1 / number of texts, {1 / num_texts:.1e}"
        )
    return calibrate(p.epsilon, schedule, p.delta)


def keys_of(config: Config, inputs: Mapping[str, str]) -> Keys:
    """Keys of this run alone, the same on all ranks. inputs: fingerprints of what it is made from."""
    free = tuple(key for key in FREE if config.privacy.clip != "micro" or key != "train.micro_batch_size")
    tree = schema.to_dict(config)
    flat = {f"{section}.{key}": value for section in schema.SECTIONS for key, value in tree[section].items()}
    decides = {key: value for key, value in flat.items() if not key.startswith(free)} | {"seed": config.seed}
    context = json.dumps([sorted(decides.items()), sorted(inputs.items())]).encode()
    on_main = int(os.environ.get("RANK", "0")) == 0
    [secret] = broadcast_object_list([load_secret(Path(config.privacy.secret)) if on_main else None])
    return Keys(secret, context)


def plan_of(config: Config, pairs: PairSet, sequences: np.ndarray, inputs: Mapping[str, str]) -> PoissonPlan:
    options: dict[str, Any] = {"batch_size": config.train.batch_size, "apart": config.privacy.clip == "micro"}
    return PoissonPlan(pairs.texts(), pairs.lengths, sequences, keys=keys_of(config, inputs), **options)


def check_launch(accelerator: Any) -> None:
    """Refuse what was not shown to keep the guarantee, however it was asked for."""
    kind = accelerator.distributed_type
    if kind in ("FSDP", "DEEPSPEED"):
        raise ValueError(f"privacy.epsilon: not together with {kind.value}; train in one process or with DDP")
    if accelerator.mixed_precision == "fp16":
        raise ValueError("privacy.epsilon: not together with fp16, which skips steps; set train.precision bf16 or no")


def mechanism_of(config: Config, task: Any, batches: PoissonPlan, steps: int) -> tuple[Mechanism, dict[str, Any]]:
    """What clips and adds noise, and what run.json holds, from which ε follows (privacy.account.epsilon)."""
    p, schedule = config.privacy, schedule_of(config, batches.rate, steps)
    noise = noise_of(config, schedule, batches.num_texts)
    micro = p.clip == "micro"
    divisor = config.train.batch_size / config.train.micro_batch_size if micro else batches.rate * batches.num_texts
    options: dict[str, Any] = {"clip": p.clip, "max_norm": p.max_norm, "adaptive": p.adaptive, "divisor": divisor}
    facts: dict[str, Any] = {"epsilon": epsilon(noise, schedule, p.delta or 0.0), "delta": p.delta}
    facts |= {"noise_multiplier": noise, "sampling_rate": batches.rate, "steps": steps, "unit": p.unit, "clip": p.clip}
    facts |= {"decay": p.decay, "epoch_steps": schedule.epoch_steps, "texts": batches.num_texts}
    facts["not_covered"] = NOT_COVERED
    return Mechanism(task, batches.keys, schedule, noise_multiplier=noise, **options), {"privacy": facts}


def describe(config: Config, *, num_texts: float, num_sequences: float, steps: int) -> str:
    """A line for --dry_run: the noise, and what it is measured in."""
    p, rate = config.privacy, min(1.0, config.train.batch_size / num_sequences)
    noise = noise_of(config, schedule_of(config, rate, steps), num_texts)
    unit = {"flat": f"the bound {p.max_norm:g}", "automatic": "1", "micro": f"2 × the bound {p.max_norm:g}"}[p.clip]
    held = f"each step holds a text with probability {rate:.3g}"
    return f"ε {p.epsilon:g} at δ {p.delta:g}: noise {noise:.3g} × {unit} ({p.clip}); {held}"
