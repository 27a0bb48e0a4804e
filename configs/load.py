"""A YAML file and `key.sub=value` overrides → the whole configuration, and one for each model to train.

A file has the sections of schema.py. `runs:` lists several models that one command trains in turn, each as overrides of
the rest; `run:NAME` refers to the model of an earlier one. With `seeds:` each run is trained once per seed, as
NAME-seedS, unless it says `seeds: []`; `run:NAME` is then the model of the same seed. One word in place of a section is
its first setting: `tracking: wandb`, `teacher: gpt2`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from configs import checks
from configs.schema import PER_RUN, SECTIONS, Config, ConfigError, to_dict, validate
from counterfactuals.files import near, parse_yaml, read_yaml

FIRST = {key: next(iter(section.model_fields)) for key, section in SECTIONS.items()}  # first setting of each section
# settings that may change when a run resumes: they decide neither the weights nor metrics.jsonl, except for rounding
FREE = (
    *("output_dir", "tracking", "hub", "eval.tasks", "eval.data_dir", "eval.models", "eval.batch_size"),
    *("data.pairs_dir", "data.workers", "loss.chunk_rows", "train.save_every", "train.keep_checkpoints"),
    *("train.cpu_threads", "train.micro_batch_size", "train.gradient_checkpointing", "train.on_nan", "train.max_skips"),
    *("train.keep_best", "privacy.secret"),
)
# folders below output_dir with another use
RESERVED = ("sample", "self", "pairs", "model", "checkpoints", "teacher_cache", "clients", "evaluation")


def load(path: str | Path | None = None, overrides: Sequence[str] = ()) -> tuple[Config, dict[str, Config]]:
    """The whole configuration and one for each run, by name ("" where there are no runs).

    Raises ConfigError with one line for each unknown key, ill-typed value or impossible combination.
    """
    tree = _read(path) if path is not None else {}
    lines: list[str] = []
    for item in overrides:
        _override(tree, item, lines)
        _expand(tree)
    whole, found = validate(tree)
    lines += found
    runs: dict[str, Config] = {}
    for name, change in _by_seed(whole, tree, lines).items():
        where = f"runs.{name}." if name else ""
        lines += _name_problems(name, whole)
        lines += [
            f"{where}{key}: cannot differ between runs; a run may set {', '.join(PER_RUN)}{near(key, PER_RUN)}"
            for key in change.keys() - {*PER_RUN}
        ]
        base = {key: value for key, value in tree.items() if key not in ("runs", "seeds")}
        config, found = validate(_merge(base, {key: value for key, value in change.items() if key in PER_RUN}))
        lines += [where + line for line in found if line not in lines]
        wrong = [line.partition(":")[0] for line in found]  # these have their defaults now: no rule can judge them
        broken = checks.problems(config, list(runs))
        lines += [where + line for line in broken if not any(key in line for key in wrong)]
        runs[name] = config
    if len({config.train.precision for config in runs.values()}) > 1:
        lines.append("train.precision: must be the same in all runs of one command")
    if lines:
        raise ConfigError("\n".join(dict.fromkeys(lines)))
    return whole, runs


def path_of(config: Config, model: str) -> str:
    """Path or Hub name of a model; run:NAME is the model of that run."""
    return str(Path(config.output_dir) / model[4:] / "model") if model.startswith("run:") else model


def differences(path: Path, config: Config, *, ignored: Sequence[str] = ()) -> list[str]:
    """Settings in a saved config.yaml that differ from `config`, as "key: saved, now". ignored: beginnings of keys."""
    try:
        tree = read_yaml(path)
    except ValueError:
        tree = None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: not valid YAML; delete this folder, or choose another output_dir")
    now = _flat(to_dict(config))
    defaults = {key: value for key, value in _flat(to_dict(Config())).items() if key in now}
    saved = defaults | _flat(tree)  # an older version did not know every setting
    keys = [key for key in dict.fromkeys([*saved, *now]) if not key.startswith(tuple(ignored))]
    return [f"{key}: {saved.get(key)}, now {now.get(key)}" for key in keys if saved.get(key) != now.get(key)]


def _flat(tree: dict[str, Any], where: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= _flat(value, f"{where}{key}.") if isinstance(value, dict) and value else {where + key: value}
    return leaves


def _read(path: str | Path) -> dict[str, Any]:
    try:
        tree = read_yaml(path) or {}
    except OSError as error:
        raise ConfigError(f"--config {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise ConfigError(f"--config {path}: {error}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"--config {path}: expected a mapping of settings, found {type(tree).__name__}")
    tree = _text_keys(tree)
    _expand(tree)
    return tree


def _text_keys(tree: Any) -> Any:
    """YAML keys as text, also those it reads as numbers or truth values."""
    return {str(key): _text_keys(value) for key, value in tree.items()} if isinstance(tree, dict) else tree


def _expand(tree: dict[str, Any]) -> None:
    """One word in place of a section is its first setting."""
    for key, first in FIRST.items():
        if isinstance(tree.get(key), str):
            tree[key] = {first: tree[key]}


def _override(tree: dict[str, Any], item: str, lines: list[str]) -> None:
    """Set one `key.sub=value` in `tree`; a line where that is impossible."""
    key, equals, text = item.partition("=")
    if not equals or not key:
        lines.append(f"{item}: expected key.sub=value")
        return
    *parents, leaf = key.split(".")
    for parent in parents:
        inner = tree.get(parent)
        if not isinstance(inner, dict | None):
            lines.append(f"{item}: {parent} holds a value, not settings")
            return
        tree[parent] = tree = dict(inner or {})  # a copy: a YAML alias puts one mapping in several places
    try:
        value = _text_keys(parse_yaml(text))
    except yaml.YAMLError:
        value = text
    except ValueError as error:
        lines.append(f"{item}: {error}")
        return
    if isinstance(value, str) and not text.lstrip().startswith(("'", '"', "|", ">", "&", "!")):
        value = text.strip()  # a path may hold " #", where YAML would begin a comment
    if leaf in FIRST and isinstance(value, str) and isinstance(tree.get(leaf), dict):
        value = tree[leaf] | {FIRST[leaf]: value}  # the section's other settings stay as the file has them
    tree[leaf] = value


def _merge(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in change.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = _merge(base[key], value) if both else value
    return copy.deepcopy(merged)


def _by_seed(whole: Config, tree: dict[str, Any], lines: list[str]) -> dict[str, dict[str, Any]]:
    """What each run changes, with an entry per seed: name → overrides."""
    if not whole.runs:
        if whole.seeds:
            lines.append("seeds: goes with runs; set seed for one model")
        return {"": {}}
    seeds: dict[str, list[int]] = {}
    for name, change in whole.runs.items():
        own, found = validate({"seeds": change.get("seeds", whole.seeds)})
        lines += [f"runs.{name}.{line}" for line in found]
        seeds[name] = own.seeds
    runs: dict[str, dict[str, Any]] = {}
    for name, change in whole.runs.items():
        change = {key: value for key, value in change.items() if key != "seeds"}
        _expand(change)
        for seed in seeds[name]:
            if f"{name}-seed{seed}" in whole.runs:
                lines.append(f"runs.{name}-seed{seed}: is also the name of {name} with seed {seed}")
            runs[f"{name}-seed{seed}"] = _merge(change, _with_seed(seed, change, tree, seeds))
        if not seeds[name]:
            runs[name] = change
    return runs


def _with_seed(seed: int, change: dict[str, Any], tree: dict[str, Any], seeds: dict[str, list[int]]) -> dict[str, Any]:
    """What a run with this seed changes further: its seed, and earlier runs that have seeds too."""
    own: dict[str, Any] = {"seed": seed}
    for section in ("teacher", "student"):
        settings = [side.get(section) for side in (change, tree)]
        model = next((s["model"] for s in settings if isinstance(s, dict) and "model" in s), None)
        if isinstance(model, str) and model.startswith("run:") and seeds.get(model.removeprefix("run:")):
            own[section] = {"model": f"{model}-seed{seed}"}
    return own


def _name_problems(name: str, whole: Config) -> list[str]:
    lines = []
    if name and not name.replace("_", "").replace("-", "").isalnum():
        lines.append(f"runs.{name}: a run's name is letters, digits, '-' and '_' (it becomes a folder)")
    if name in RESERVED:
        lines.append(f"runs.{name}: this folder has another use; choose another name")
    labels = [name] if name else ["student", *["teacher"] * (whole.teacher.model is not None)]  # in results.json
    taken = "is also the name of a model that this command evaluates; choose another"
    lines += [f"eval.models.{label}: {taken}" for label in labels if label in whole.eval.models]
    return lines
