"""Every setting of a run: its type, its default and its meaning in one line; loading, checking and printing them.

A configuration is YAML with the sections below. `runs:` lists several models that one command trains one after the
other, each as overrides of the rest; `run:NAME` refers to the model of an earlier one. With `seeds:` each run is
trained once a seed, as NAME-seedS, unless it says `seeds: []`; `run:NAME` is then the model of the same seed.
Command-line `key.sub=value` pairs win over the file. All problems are collected and reported together before anything
is loaded.
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import math
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml


class ConfigError(ValueError):
    """One or more settings are wrong; the message has a line for each."""


def setting(default: Any, meaning: str) -> Any:
    if isinstance(default, (dict, list)):
        return field(default_factory=lambda: copy.deepcopy(default), metadata={"meaning": meaning})
    return field(default=default, metadata={"meaning": meaning})


@dataclass
class Data:
    source: str = setting(
        "sample", "sample (built in), a jsonl(.gz)/txt/parquet file or a folder of them, or a Hub data set"
    )
    subset: str | None = setting(None, "configuration name of a Hub data set")
    split: str = setting("train", "split of a Hub data set")
    text_field: str = setting("text", "field or column that holds the text")
    max_texts: int | None = setting(None, "read at most this many texts")
    max_length: int = setting(1024, "tokens in a training sequence; longer texts are cut into several")
    pairs_dir: str | None = setting(
        None,
        "folder for prepared pairs, or a pair set from python -m counterfactuals build; default: OUTPUT_DIR/pairs",
    )
    workers: int = setting(1, "processes that prepare pairs; the result does not depend on it")
    streaming: bool = setting(False, "make pairs while training and keep none on disk: for a corpus of any size")
    shuffle_buffer: int = setting(4096, "pairs that streaming holds and shuffles at a time")


@dataclass
class Tokenizer:
    name: str | None = setting(
        None, "tokenizer by path or Hub name; default: the teacher's, or the pretrained student's"
    )
    train_vocab_size: int | None = setting(None, "train a byte-level BPE of this size on the corpus instead")


@dataclass
class Teacher:
    model: str | None = setting(None, "path, Hub name or run:NAME; null trains without a teacher")
    dtype: Literal["float32", "bfloat16", "float16"] = setting("float32", "precision of the frozen weights")
    trust_remote_code: bool = setting(False, "allow model code from the Hub to run here")
    cache: str | None = setting(
        None,
        "folder of its stored predictions (auto: OUTPUT_DIR/teacher_cache), made by python -m debias cache or the "
        "first run; training then runs no teacher",
    )
    cache_bytes: int = setting(150, "bytes that a stored prediction takes at most")


@dataclass
class Student:
    init: Literal["layers", "pretrained", "random"] = setting(
        "layers", "layers: copied from the teacher; pretrained: student.model; random: from student.config"
    )
    layers: str | list[int] = setting("even", "even = [0,2,4,…]; hf = [0,2,4,7,9,11]; all; or a list of teacher layers")
    model: str | None = setting(None, "path, Hub name or run:NAME of a pretrained student")
    config: dict[str, Any] = setting(
        {}, "model configuration for random init, e.g. {n_layer: 4, n_embd: 64, n_head: 4}"
    )
    dropout: float | None = setting(None, "dropout of every kind; default: what the model's own configuration says")


@dataclass
class Counterfactual:
    lexicon: str = setting("gender", "name of a lexicon, or path of a YAML file")
    direction: str = setting("both", "both, or the group whose words are replaced (female: texts lose her, not him)")
    policy: Literal["skip", "reverse", "keep_names"] = setting(
        "skip",
        "skip: texts not reversed coherently get no counterfactual; reverse: they do; keep_names: words only",
    )
    protected: list[str] = setting([], "words, names and phrases of the lexicon that stay")
    seed: int = setting(0, "of the choices among a lexicon's many-to-many words")
    augment: bool = setting(False, "train on the counterfactual texts too")
    perturb: Literal["both", "original"] = setting("both", "whose teacher predictions are combined when augmenting")
    stop_at_cue: bool = setting(True, "reversed vocabulary: keep the plain target after a cue that was not reversed")


@dataclass
class Loss:
    op: str = setting(
        "none", "how a prediction and its counterfactual are combined: none, max, mean, exp_mean, swap, mix"
    )
    mix: float = setting(0.5, "op mix: the counterfactual's share, in log space; 0.5 is mean")
    strength: float = setting(1.0, "how far a target moves, in log space, from the plain one (0) to the op's (1)")
    strength_warmup: float = setting(0.0, "share of the steps over which strength rises linearly from 0")
    vocabulary: Literal["plain", "reversed"] = setting(
        "plain", "reversed: carry the counterfactual's row through the role reversal"
    )
    divergence: Literal["forward", "reverse", "jsd"] = setting(
        "forward", "KL(teacher‖student), KL(student‖teacher), Jensen–Shannon"
    )
    tau: float = setting(2.0, "temperature that softens both distributions; the divergence is scaled by tau²")
    kd_weight: float = setting(0.5, "weight of the distillation term; 0 = cross-entropy only")
    lm_weight: float = setting(0.5, "weight of the cross-entropy with the text")
    hidden_weight: float = setting(
        0.0, "weight of 1 − cosine between hidden states of student and teacher; needs equal widths"
    )
    hidden_layers: Literal["last", "kept"] = setting(
        "last", "states compared: last, or kept: after every block, by the layer map of student.layers"
    )
    hidden_target: Literal["mean", "own"] = setting(
        "mean", "mean: of the teacher's states on a text and its counterfactual; own: the teacher's own state"
    )
    chunk_rows: int = setting(256, "token positions whose logits exist at one time")


@dataclass
class Optim:
    lr: float = setting(1e-3, "peak learning rate")
    betas: list[float] = setting([0.9, 0.98], "AdamW's decay rates")
    eps: float = setting(1e-6, "AdamW's epsilon")
    weight_decay: float = setting(0.0, "AdamW's weight decay, on matrices only")
    warmup: float = setting(0.05, "share of the steps with a rising learning rate")
    schedule: Literal["linear", "cosine", "constant"] = setting("linear", "decay after warm-up, to 0")
    max_grad_norm: float = setting(5.0, "gradients are clipped to this norm")


@dataclass
class Train:
    epochs: float | None = setting(None, "passes over the corpus")
    max_steps: int | None = setting(None, "optimizer steps; wins over epochs")
    batch_size: int = setting(
        64, "sequences in one optimizer step, over all ranks; with augmentation both texts of a pair count"
    )
    batch_by: Literal["sequences", "tokens"] = setting(
        "sequences",
        "what both sizes count; tokens: of data.max_length a sequence, texts of like length together (little padding)",
    )
    micro_batch_size: int = setting(64, "sequences in one forward pass of one rank; accumulation follows from it")
    precision: Literal["no", "bf16", "fp16"] | None = setting(None, "autocast; null: what accelerate launch was told")
    compile: bool = setting(False, "torch.compile for the blocks of student and teacher")
    gradient_checkpointing: bool = setting(False, "recompute the student's activations in the backward pass")
    cpu_threads: int = setting(0, "threads of each CPU rank; 0 = all cores shared by the ranks")
    log_every: int = setting(10, "steps between lines in metrics.jsonl")
    log_plain: bool = setting(
        False, "in those lines kd_plain too: the divergence from the teacher's predictions as they are"
    )
    save_every: int = setting(500, "steps between checkpoints; 0 = none")
    keep_checkpoints: int = setting(2, "older ones are deleted")
    keep_best: str | None = setting(
        None, "figure of metrics.jsonl, e.g. loss: the checkpoint before which its mean was lowest is kept too"
    )
    on_nan: Literal["stop", "skip"] = setting(
        "stop", "a step whose loss or gradient is no number: stop, or leave it out"
    )
    max_skips: int = setting(10, "steps that on_nan skip leaves out before it stops")


@dataclass
class Tracking:
    to: Literal["none", "wandb", "tensorboard"] = setting(
        "none", "where figures go beside metrics.jsonl; tracking: wandb is short for tracking: {to: wandb}"
    )
    mode: Literal["online", "offline", "disabled"] = setting("online", "of Weights & Biases")
    project: str = setting("evenhand", "of Weights & Biases")
    entity: str | None = setting(None, "user or team of Weights & Biases; default: the one who is logged in")
    group: str | None = setting(None, "what the runs of one study share; default: the name of output_dir")
    tags: list[str] = setting([], "labels of the runs")
    name: str | None = setting(None, "of the run, with the run's own name behind; default: the group")
    artifacts: bool = setting(False, "keep the model and, by reference, the pair set as artifacts")
    watching: Literal["auto", "lines", "json", "quiet"] = setting(
        "auto", "progress on the console: a bar on a terminal, else lines; JSON lines; or nothing"
    )


@dataclass
class Hub:
    repo: str | None = setting(
        None, "name on the Hugging Face Hub to push each model to, {run} standing for the run's name"
    )
    private: bool = setting(True, "whether a new repository there is private")


@dataclass
class Eval:
    tasks: dict[str, dict[str, Any]] = setting({}, "task[@label]: its options; see python -m eval --list")
    data_dir: str | None = setting(None, "folder with the evaluation sets; sample: OUTPUT_DIR/sample")
    models: dict[str, str] = setting({}, "further models in the table, label: path or Hub name")
    batch_size: int = setting(32, "texts in one forward pass")
    every: int = setting(0, "steps between small evaluations during training; 0 = none")
    during: dict[str, dict[str, Any]] = setting(
        {}, "their tasks and options, as in eval.tasks; their figures go into metrics.jsonl"
    )
    during_limit: int = setting(64, "rows of a task in them, at most")


@dataclass
class Config:
    output_dir: str = setting("runs/run", "everything a run writes is below this folder")
    seed: int = setting(0, "of initial weights, data order, dropout and sampling")
    data: Data = field(default_factory=Data)
    tokenizer: Tokenizer = field(default_factory=Tokenizer)
    teacher: Teacher = field(default_factory=Teacher)
    student: Student = field(default_factory=Student)
    counterfactual: Counterfactual = field(default_factory=Counterfactual)
    loss: Loss = field(default_factory=Loss)
    optim: Optim = field(default_factory=Optim)
    train: Train = field(default_factory=Train)
    tracking: Tracking = field(default_factory=Tracking)
    eval: Eval = field(default_factory=Eval)
    hub: Hub = field(default_factory=Hub)
    runs: dict[str, dict[str, Any]] = setting({}, "name: overrides, for several models trained one after the other")
    seeds: list[int] = setting([], "train each of runs once a seed, as NAME-seedS; a run with `seeds: []` only once")


SECTIONS = {key: hint for key, hint in typing.get_type_hints(Config).items() if dataclasses.is_dataclass(hint)}
FIRST = {key: dataclasses.fields(section)[0].name for key, section in SECTIONS.items()}  # setting of each section
PER_RUN = ("data", "tokenizer", "teacher", "student", "counterfactual", "loss", "optim", "train", "seed")
UNIONS = (types.UnionType, typing.Union)
RESERVED = ("sample", "pairs", "model", "checkpoints", "teacher_cache")
OPS = ("none", "max", "mean", "exp_mean", "swap", "mix")


def load(path: str | Path | None = None, overrides: typing.Sequence[str] = ()) -> tuple[Config, dict[str, Config]]:
    """Read a YAML file and `key.sub=value` overrides; return the whole configuration and one for each run.

    Raises ConfigError with one line for each unknown key, ill-typed value or impossible combination.
    """
    tree: dict[str, Any] = {}
    if path is not None:
        try:
            tree = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
        except OSError as error:
            raise ConfigError(f"--config {path}: {error.strerror or error}") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(f"--config {path}: not valid YAML: {' '.join(str(error).split())}") from None
        if not isinstance(tree, dict):
            raise ConfigError(f"--config {path}: expected a mapping of settings, found {type(tree).__name__}")
    problems: list[str] = []
    _expand(tree)
    for item in overrides:
        _override(tree, item, problems)
        _expand(tree)
    whole = _build(Config, tree, "", problems)
    runs: dict[str, Config] = {}
    for name, change in _seeded(whole, tree, problems).items():
        where = f"runs.{name}." if name else ""
        if name and (not isinstance(name, str) or not name.replace("_", "").replace("-", "").isalnum()):
            problems.append(f"runs.{name}: a run's name is letters, digits, '-' and '_' (it becomes a folder)")
            continue
        if name in RESERVED:
            problems.append(f"runs.{name}: this folder has another use; choose another name")
        if name in whole.eval.models:
            problems.append(f"eval.models.{name}: is also the name of a run")
        if not isinstance(change, (dict, types.NoneType)):
            problems.append(f"runs.{name}: expected settings to override, found {change!r}")
            continue
        base = {key: value for key, value in tree.items() if key not in ("runs", "seeds")}
        for key in set(change or {}) - set(PER_RUN):
            problems.append(
                f"{where}{key}: cannot differ between runs; a run may set {', '.join(PER_RUN)}{_near(key, PER_RUN)}"
            )
        change = {key: value for key, value in (change or {}).items() if key in PER_RUN}
        found: list[str] = []
        config = _build(Config, _merge(base, change), "", found)
        config.runs = {}
        found = [line for line in found if line not in problems]
        problems += [where + line for line in found] + [where + line for line in _impossible(config, list(runs))]
        runs[name] = config
    if len({config.train.precision for config in runs.values()}) > 1:
        problems.append("train.precision: must be the same in all runs of one command")
    if problems:
        raise ConfigError("\n".join(dict.fromkeys(problems)))
    return whole, runs


def _expand(tree: dict[str, Any]) -> None:
    """One word in place of a section is its first setting: `tracking: wandb`, `teacher: gpt2`."""
    for key, first in FIRST.items():
        if isinstance(tree.get(key), str):
            tree[key] = {first: tree[key]}


def _seeded(whole: Config, tree: dict[str, Any], problems: list[str]) -> dict[str, Any]:
    """The runs with one entry a seed: name → overrides."""
    if not whole.runs:
        if whole.seeds:
            problems.append("seeds: goes with runs; set seed for one model")
        return {"": {}}
    seeds: dict[str, list[int]] = {}
    for name, change in whole.runs.items():
        try:
            seeds[name] = _typed((change or {}).get("seeds", whole.seeds), list[int])
            if len(set(seeds[name])) < len(seeds[name]):
                raise ValueError("a seed is named twice")
        except (ValueError, AttributeError) as error:
            problems.append(f"runs.{name}.seeds: {error}")
            seeds[name] = []
    runs: dict[str, Any] = {}
    for name, change in whole.runs.items():
        if not isinstance(change, dict):
            runs[name] = change
            continue
        change = {key: value for key, value in change.items() if key != "seeds"}
        _expand(change)
        for seed in seeds[name]:
            if f"{name}-seed{seed}" in whole.runs:
                problems.append(f"runs.{name}-seed{seed}: is also the name of {name} with seed {seed}")
            own: dict[str, Any] = {"seed": seed}
            for section in ("teacher", "student"):
                settings = [side.get(section) for side in (change, tree)]
                model = next((s["model"] for s in settings if isinstance(s, dict) and "model" in s), None)
                if isinstance(model, str) and seeds.get(model.removeprefix("run:")) and model.startswith("run:"):
                    own[section] = {"model": f"{model}-seed{seed}"}
            runs[f"{name}-seed{seed}"] = _merge(change, own)
        if not seeds[name]:
            runs[name] = change
    return runs


def _override(tree: dict[str, Any], item: str, problems: list[str]) -> None:
    key, equals, text = item.partition("=")
    if not equals or not key:
        problems.append(f"{item}: expected key.sub=value")
        return
    *parents, leaf = key.split(".")
    for parent in parents:
        inner = tree.get(parent)
        if not isinstance(inner, (dict, types.NoneType)):
            problems.append(f"{item}: {parent} holds a value, not settings")
            return
        tree[parent] = tree = dict(inner or {})  # ours: a YAML alias stands for one mapping in several places
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = text
    if leaf in FIRST and isinstance(value, str) and isinstance(tree.get(leaf), dict):
        value = tree[leaf] | {FIRST[leaf]: value}  # the section's other settings stay as the file has them
    tree[leaf] = value


def _merge(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in change.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = _merge(base[key], value) if both else value
    return copy.deepcopy(merged)


def _build(cls: type, tree: Any, where: str, problems: list[str]) -> Any:
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        problems.append(f"{where.rstrip('.')}: expected settings, found {tree!r}")
        return cls()
    hints = typing.get_type_hints(cls)
    values = {}
    for key, value in tree.items():
        if key not in hints:
            elsewhere = [name for name in names() if name.rpartition(".")[2] == key]
            hint = f"; did you mean {elsewhere[0]}?" if elsewhere else _near(str(key), hints)
            problems.append(f"{where}{key}: unknown setting{hint or '; known: ' + ', '.join(hints)}")
        elif dataclasses.is_dataclass(hints[key]):
            values[key] = _build(typing.cast(type, hints[key]), value, f"{where}{key}.", problems)
        else:
            try:
                values[key] = _typed(value, hints[key])
            except ValueError as error:
                problems.append(f"{where}{key}: {error}")
    return cls(**values)


def _near(word: str, known: typing.Iterable[str]) -> str:
    match = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {match[0]}?" if match else ""


def _typed(value: Any, hint: Any) -> Any:
    """`value` as `hint`, or ValueError. A float may be written as an int or, as PyYAML reads 3e-4, as a string."""
    options = typing.get_args(hint)
    origin = typing.get_origin(hint)
    if origin is Literal:
        value = "no" if value is False and "no" in options else value  # YAML reads a bare no as false
        if value not in options:
            raise ValueError(f"must be one of {', '.join(options)}, not {value!r}{_near(str(value), options)}")
        return value
    if origin in UNIONS:
        for option in options:
            try:
                return _typed(value, option)
            except ValueError:
                continue
        raise ValueError(f"must be {_say(hint)}, not {value!r}")
    if hint is types.NoneType and value is None:
        return None
    if hint is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            number = float(value)
            if math.isfinite(number):
                return number
        except ValueError:
            pass
        raise ValueError(f"must be {_say(hint)}, not {value!r}")
    if origin is list and isinstance(value, list):
        return [_typed(item, options[0]) for item in value]
    if origin is dict and isinstance(value, (dict, types.NoneType)):
        return {str(key): _typed(item, options[1]) for key, item in (value or {}).items()}
    if hint is Any:
        return value
    if isinstance(hint, type) and isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    if origin is dict or hint is dict:
        raise ValueError(f"must be a mapping, not {value!r}")
    raise ValueError(f"must be {_say(hint)}, not {value!r}")


def _say(hint: Any) -> str:
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false", types.NoneType: "null"}
    if typing.get_origin(hint) is Literal:
        return ", ".join(typing.get_args(hint))
    if typing.get_origin(hint) in UNIONS:
        return " or ".join(_say(option) for option in typing.get_args(hint))
    if typing.get_origin(hint) is list:
        return f"a list of {_say(typing.get_args(hint)[0]).removeprefix('a ')}s"
    return names.get(hint, str(hint))


def _impossible(c: Config, earlier: list[str]) -> list[str]:
    """Combinations that no run can have; `earlier` names the runs that come before this one."""
    problems = []

    def check(good: bool, line: str) -> None:
        if not good:
            problems.append(line)

    check(c.loss.op in OPS, f"loss.op: must be one of {', '.join(OPS)}, not {c.loss.op!r}{_near(c.loss.op, OPS)}")
    for key in ("teacher.model", "student.model"):
        section, leaf = key.split(".")
        model = getattr(getattr(c, section), leaf)
        if model is not None and model.startswith("run:"):
            name = model[4:]
            check(
                name in earlier,
                f"{key}: {model} is not an earlier run{_near(name, earlier)}; earlier: {', '.join(earlier) or 'none'}",
            )
    if c.teacher.model is None:
        check(c.loss.kd_weight == 0, "loss.kd_weight: without a teacher it must be 0; or name one in teacher.model")
        check(
            c.student.init != "layers", "student.init: layers needs teacher.model; without one use pretrained or random"
        )
    if c.loss.kd_weight == 0:
        check(c.loss.op == "none", "loss.op: has no effect when loss.kd_weight is 0; use none")
    check(c.loss.kd_weight >= 0 and c.loss.lm_weight >= 0, "loss.kd_weight, loss.lm_weight: must not be negative")
    check(
        c.loss.kd_weight > 0 or c.loss.lm_weight > 0,
        "loss.kd_weight, loss.lm_weight: both are 0: nothing to learn from",
    )
    check(c.loss.tau > 0, f"loss.tau: must be above 0, not {c.loss.tau:g}")
    if c.loss.op == "none":
        check(
            c.loss.vocabulary == "plain",
            "loss.vocabulary: reversed needs an op that combines; with loss.op none use plain",
        )
        check(
            c.loss.strength == 1 and c.loss.strength_warmup == 0,
            "loss.strength, loss.strength_warmup: have no effect with loss.op none",
        )
    check(c.loss.hidden_weight >= 0, f"loss.hidden_weight: must not be negative, not {c.loss.hidden_weight:g}")
    if c.loss.hidden_weight > 0:
        check(c.teacher.model is not None, "loss.hidden_weight: above 0 needs teacher.model")
        check(c.teacher.cache is None, "loss.hidden_weight: needs the teacher's hidden states, which no cache keeps")
        check(
            c.loss.hidden_layers == "last" or c.student.init == "layers",
            "loss.hidden_layers: kept goes by student.layers, with student.init layers; use last",
        )
    else:
        check(
            c.loss.hidden_layers == "last" and c.loss.hidden_target == "mean",
            "loss.hidden_layers, loss.hidden_target: matter only with loss.hidden_weight above 0",
        )
    check(0 < c.loss.strength <= 1, f"loss.strength: above 0, at most 1, not {c.loss.strength:g}; for 0 use op none")
    check(0 <= c.loss.strength_warmup <= 1, f"loss.strength_warmup: from 0 to 1, not {c.loss.strength_warmup:g}")
    check(0 <= c.loss.mix <= 1, f"loss.mix: from 0 to 1, not {c.loss.mix:g}")
    check(c.loss.mix == 0.5 or c.loss.op == "mix", "loss.mix: matters only with loss.op mix")
    if c.counterfactual.perturb == "original":
        check(
            c.counterfactual.augment and c.loss.op != "none",
            "counterfactual.perturb: original matters only with counterfactual.augment and an op; use both",
        )
    check(
        (c.student.model is not None) == (c.student.init == "pretrained"),
        "student.model: goes with student.init pretrained, and only with it",
    )
    check(
        bool(c.student.config) == (c.student.init == "random"),
        "student.config: goes with student.init random, and only with it",
    )
    if isinstance(c.student.layers, str):
        known = ("even", "hf", "all")
        check(
            c.student.layers in known,
            f"student.layers: must be {', '.join(known)} or a list of layers, not {c.student.layers!r}",
        )
    if c.tokenizer.train_vocab_size is not None:
        check(
            c.tokenizer.train_vocab_size >= 257,
            "tokenizer.train_vocab_size: at least 257 (256 bytes and <|endoftext|>)",
        )
        check(c.tokenizer.name is None, "tokenizer.name: not together with tokenizer.train_vocab_size")
        check(
            c.teacher.model is None and c.student.init == "random",
            "tokenizer.train_vocab_size: only for a random student without a teacher",
        )
    if c.student.init == "random" and c.teacher.model is None:
        check(
            bool(c.tokenizer.name or c.tokenizer.train_vocab_size),
            "tokenizer.name: needed to train from scratch (or tokenizer.train_vocab_size)",
        )
    check(
        c.train.epochs is not None or c.train.max_steps is not None,
        "train.epochs or train.max_steps: one of them must be set",
    )
    for name in ("batch_size", "micro_batch_size", "log_every", "keep_checkpoints"):
        check(getattr(c.train, name) >= 1, f"train.{name}: must be at least 1, not {getattr(c.train, name)}")
    check(
        min(c.train.save_every, c.train.cpu_threads, c.train.max_skips) >= 0,
        "train.save_every, train.cpu_threads, train.max_skips: must not be negative",
    )
    check(
        c.train.max_steps is None or c.train.max_steps >= 1,
        f"train.max_steps: must be at least 1, not {c.train.max_steps}",
    )
    check(c.train.epochs is None or c.train.epochs > 0, f"train.epochs: must be above 0, not {c.train.epochs}")
    if min(c.train.batch_size, c.train.micro_batch_size) >= 1:
        check(
            c.train.batch_size % c.train.micro_batch_size == 0,
            f"train.batch_size: {c.train.batch_size} is not a multiple of "
            f"train.micro_batch_size {c.train.micro_batch_size}",
        )
    if c.counterfactual.augment:
        check(
            c.train.micro_batch_size >= 2,
            "train.micro_batch_size: at least 2 with counterfactual.augment (a text and its counterfactual)",
        )
    check(c.data.workers >= 1, f"data.workers: must be at least 1, not {c.data.workers}")
    if c.data.streaming:
        for key in ("data.pairs_dir", "teacher.cache", "tokenizer.train_vocab_size"):
            section, leaf = key.split(".")
            check(getattr(getattr(c, section), leaf) is None, f"{key}: not together with data.streaming")
        check(not c.tracking.artifacts, "tracking.artifacts: not together with data.streaming, which keeps no pair set")
        check(c.train.max_steps is not None, "train.max_steps: needed with data.streaming, whose corpus has no length")
        check(
            c.data.shuffle_buffer >= c.train.batch_size,
            f"data.shuffle_buffer: at least train.batch_size {c.train.batch_size}, not {c.data.shuffle_buffer}",
        )
    check(c.data.max_length >= 2, f"data.max_length: must be at least 2, not {c.data.max_length}")
    check(
        c.data.max_texts is None or c.data.max_texts >= 1, f"data.max_texts: must be at least 1, not {c.data.max_texts}"
    )
    check(
        c.loss.chunk_rows >= 2,
        f"loss.chunk_rows: must be at least 2 (a row and its counterpart), not {c.loss.chunk_rows}",
    )
    check(c.optim.lr > 0 and c.optim.eps > 0, "optim.lr, optim.eps: must be above 0")
    check(
        len(c.optim.betas) == 2 and all(0 <= beta < 1 for beta in c.optim.betas),
        f"optim.betas: two numbers in [0, 1), not {c.optim.betas}",
    )
    check(0 <= c.optim.warmup <= 1, f"optim.warmup: a share between 0 and 1, not {c.optim.warmup:g}")
    check(
        c.optim.max_grad_norm > 0 and c.optim.weight_decay >= 0,
        "optim.max_grad_norm must be above 0, optim.weight_decay not negative",
    )
    check(
        c.student.dropout is None or 0 <= c.student.dropout < 1, f"student.dropout: in [0, 1), not {c.student.dropout}"
    )
    check(0 <= c.seed < 2**32, f"seed: from 0 to 2**32 - 1, not {c.seed}")
    check(c.teacher.cache_bytes >= 1, f"teacher.cache_bytes: must be at least 1, not {c.teacher.cache_bytes}")
    check("" not in (c.teacher.model, c.student.model), "teacher.model, student.model: empty; use null for none")
    check(c.data.source != "", "data.source: empty; use sample, a path or a Hub name")
    check(
        c.eval.every >= 0 and bool(c.eval.during) == (c.eval.every > 0),
        "eval.every, eval.during: set both (steps between small evaluations, and their tasks) or neither",
    )
    check(c.eval.during_limit >= 1, f"eval.during_limit: must be at least 1, not {c.eval.during_limit}")
    check(c.eval.batch_size >= 1, f"eval.batch_size: must be at least 1, not {c.eval.batch_size}")
    check(
        c.counterfactual.stop_at_cue or c.loss.vocabulary == "reversed",
        "counterfactual.stop_at_cue: matters only with loss.vocabulary reversed",
    )
    check(
        c.student.init == "layers" or c.student.layers == "even",
        "student.layers: matters only with student.init layers",
    )
    return problems


def to_dict(config: Config) -> dict[str, Any]:
    return {key: value for key, value in dataclasses.asdict(config).items() if key not in ("runs", "seeds") or value}


def to_yaml(config: Config) -> str:
    return yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True)


# what may change when a run goes on: beyond rounding it decides neither the weights nor the figures in metrics.jsonl
FREE = (
    *("output_dir", "tracking", "hub", "eval.tasks", "eval.data_dir", "eval.models", "eval.batch_size"),
    *("data.pairs_dir", "data.workers", "loss.chunk_rows", "train.save_every", "train.keep_checkpoints"),
    *("train.cpu_threads", "train.micro_batch_size", "train.gradient_checkpointing", "train.on_nan", "train.max_skips"),
    "train.keep_best",
)
LOOKED_AT = ("eval.", "train.log_")  # what was looked at on the way: no reason to train a complete run again


def differences(path: Path, config: Config, *, complete: bool = False) -> list[str]:
    """Settings in a saved config.yaml that differ from `config`, as "key: saved, now".

    Those in FREE do not count, nor those in LOOKED_AT if the run is complete.
    """

    def flat(tree: dict[str, Any], where: str = "") -> dict[str, Any]:
        leaves: dict[str, Any] = {}
        for key, value in tree.items():
            leaves |= flat(value, f"{where}{key}.") if isinstance(value, dict) and value else {where + key: value}
        return leaves

    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        tree = None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: not valid YAML; delete this folder, or choose another output_dir")
    saved, now = flat(tree), flat(to_dict(config))
    saved = {key: value for key, value in flat(to_dict(Config())).items() if key in now} | saved  # of an older version
    keys = [key for key in dict.fromkeys([*saved, *now]) if not key.startswith(FREE + LOOKED_AT * complete)]
    return [f"{key}: {saved.get(key)}, now {now.get(key)}" for key in keys if saved.get(key) != now.get(key)]


def names(cls: type = Config, where: str = "") -> dict[str, dataclasses.Field]:
    """Every setting by its full key."""
    hints = typing.get_type_hints(cls)
    found: dict[str, dataclasses.Field] = {}
    for item in dataclasses.fields(cls):
        if dataclasses.is_dataclass(hints[item.name]):
            found |= names(typing.cast(type, hints[item.name]), f"{where}{item.name}.")
        else:
            found[where + item.name] = item
    return found


def describe(section: str = "") -> str:
    """All settings, or those of a section, with default and meaning: for `--settings`."""
    sections = dict.fromkeys(key.partition(".")[0] for key in names())
    if section and section not in sections:
        raise ConfigError(
            f"--settings {section}: no such section{_near(section, sections)}; there is {', '.join(sections)}"
        )
    lines = []
    for key, item in names().items():
        if section and key.partition(".")[0] != section:
            continue
        factory = item.default_factory
        default = item.default if factory is dataclasses.MISSING else factory()
        shown = yaml.safe_dump(default, default_flow_style=True).split("\n")[0]
        lines.append(f"{key:<32} {shown:<12} {item.metadata['meaning']}")
    return "\n".join(lines)
