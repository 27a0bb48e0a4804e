"""Every setting of a run: type, default, bound and meaning, on the field.

`validate` checks a tree of settings and names everything that is wrong with it; `configs/load.py` makes that tree from
a YAML file and the command line; `configs/checks.py` holds the rules between several settings.
"""

from __future__ import annotations

import copy
import typing
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic.fields import FieldInfo

from configs.fields import (
    ConfigError,
    Number,
    Op,
    Options,
    Policy,
    Section,
    Tasks,
    as_augment,
    as_mapping,
    as_no,
    check_betas,
    check_distinct,
    check_layers,
    default_of,
    kind_of,
    setting,
)
from counterfactuals.files import near


class Data(Section):
    source: str = setting(
        "sample",
        "sample (built in), self (the teacher writes it), a jsonl(.gz)/txt/parquet file or a folder of them, or a Hub "
        "data set",
        min_length=1,
    )
    subset: str | None = setting(None, "configuration name of a Hub data set")
    split: str = setting("train", "split of a Hub data set")
    text_field: str = setting("text", "field that holds the text, or messages; or prompt,completion (chat template)")
    loss_on: Literal["all", "assistant"] = setting("all", "learn every token, or only what the assistant says")
    max_texts: int | None = setting(None, "read at most this many texts; source self: write so many (4096)", ge=1)
    prompts: str | None = setting(
        None,
        "source self: file of neutral beginnings of texts, one a line, with {role}, {a_role} or {roles} where a role "
        "goes; default: built in",
        min_length=1,
    )
    cued_every: int = setting(
        3, "source self: every N-th text has a prompt that names a group, and teaches what must stay", ge=2
    )
    choose_from: int = setting(
        1, "source self: write N times as many texts, keep the least balanced, of neutral and cued ones each", ge=1
    )
    max_length: int = setting(1024, "tokens in a training sequence; longer texts are cut into several", ge=2)
    pairs_dir: str | None = setting(
        None, "folder for prepared pairs, or a pair set from `evenhand build`; default: OUTPUT_DIR/pairs"
    )
    workers: int = setting(1, "processes that prepare pairs; the result does not depend on it", ge=1)
    streaming: bool = setting(False, "make pairs while training and keep none on disk, for a corpus of any size")
    shuffle_buffer: int = setting(4096, "pairs that streaming holds and shuffles at a time", ge=1)


class Tokenizer(Section):
    name: str | None = setting(
        None, "path or Hub name of the tokenizer; default: the teacher's, or the pretrained student's", min_length=1
    )
    train_vocab_size: int | None = setting(
        None,
        "train a byte-level BPE tokenizer with this many tokens on the corpus instead",
        ge=257,
    )
    start_token: str | None = setting(
        None,
        "token that texts begin with, or none; the model keeps it. Default: begin of text (chat models: a chat marker)",
        min_length=1,
    )
    start_every: bool = setting(False, "the later pieces of a long text begin with it too, as Gemma needs it")


class Teacher(Section):
    model: str | None = setting(
        None, "folder, FILE.gguf, adapter folder, Hub name or run:NAME; null trains without a teacher", min_length=1
    )
    dtype: Literal["float32", "bfloat16", "float16"] = setting("float32", "precision of the frozen weights")
    trust_remote_code: bool = setting(False, "run code that comes with a model from the Hub")
    cache: str | None = setting(
        None,
        "folder of the teacher's stored predictions (auto: OUTPUT_DIR/teacher_cache), made by `evenhand cache` or the "
        "first run; training then does not run the teacher",
        min_length=1,
    )
    erase: Literal["none", "leace"] = setting(
        "none", "leace: no linear probe finds a text's group in its last hidden states; fitted on this run's pairs"
    )
    cache_bytes: int = setting(150, "largest size of a stored prediction, in bytes", ge=1)


class Student(Section):
    init: Literal["layers", "pretrained", "random"] = setting(
        "layers", "layers: copied from the teacher; pretrained: student.model; random: from student.config"
    )
    layers: Annotated[str | list[int], BeforeValidator(check_layers)] = setting(
        "even",
        "teacher layers to keep: even = 0, 2, 4, …; even:N = N, spread evenly; influence:N = the N that change most "
        "what they read, on texts of this run; hf = 0, 2, 4, 7, 9, 11; all; or a list",
    )
    model: str | None = setting(None, "path, Hub name or run:NAME of a pretrained student", min_length=1)
    config: Options = setting({}, "model configuration for random init, e.g. {n_layer: 4, n_embd: 64, n_head: 4}")
    dropout: Number | None = setting(None, "rate of every dropout; default: the model's own configuration", ge=0, lt=1)
    lora: Options = setting({}, "train only a LoRA adapter (peft), e.g. {rank: 8}; also alpha, targets and dropout")


class Counterfactual(Section):
    lexicon: str = setting("gender", "name of a lexicon, or path of a YAML file", min_length=1)
    direction: str = setting("both", "both, or the only group whose words are replaced (female: she becomes he)")
    policy: Policy = setting(
        "skip",
        "a passage whose reversal is wrong with more than this probability, in [0, 1], gets no counterfactual; "
        "skip: the recommended number, reverse: 1, keep_names: 1 and no name is replaced",
    )
    max_doubt: Number | None = setting(
        None, "sequences of a pair set with more doubt than this are used without their counterfactual", ge=0, le=1
    )
    protected: list[str] = setting([], "words, names and phrases of the lexicon that are never replaced")
    seed: int = setting(0, "seed of the choice where a word has several counterparts", ge=0)
    augment: Annotated[Literal["none", "one", "both"], BeforeValidator(as_augment)] = setting(
        "none",
        "train on the counterfactual texts too: both texts of a pair (true), or one, drawn anew each time that the "
        "pair is seen, so that as many different texts are seen as without it; none (false): the originals",
    )
    perturb: Literal["both", "original"] = setting(
        "both", "with augment: combine the teacher's predictions on both texts, or on the original only"
    )
    stop_at_cue: bool = setting(
        True, "reversed vocabulary: keep the plain target after the first word of a role that was not reversed"
    )


class Loss(Section):
    op: Op = setting(
        "none", "how a prediction and its counterfactual are combined: none, max, mean, exp_mean, swap or mix"
    )
    mix: Number = setting(0.5, "op mix: weight of the counterfactual in log space; 0.5 equals mean", ge=0, le=1)
    strength: Number = setting(
        1.0, "how far the target moves, in log space, from the plain one (0) to the op's (1)", gt=0, le=1
    )
    strength_warmup: Number = setting(0.0, "fraction of the steps over which strength rises from 0", ge=0, le=1)
    amplify: Number = setting(1.0, "factor of the log-odds between groups where the text has named a group", ge=1, le=2)
    vocabulary: Literal["plain", "reversed"] = setting(
        "plain", "reversed: swap the roles in the counterfactual's prediction before it is combined"
    )
    divergence: Literal["forward", "reverse", "jsd"] = setting(
        "forward", "KL(teacher‖student), KL(student‖teacher) or Jensen–Shannon"
    )
    tau: Number = setting(2.0, "temperature that softens both distributions; the divergence is scaled by tau²", gt=0)
    kd_weight: Number = setting(0.5, "weight of the distillation loss; 0 = cross-entropy only", ge=0)
    lm_weight: Number = setting(0.5, "weight of the cross-entropy with the text", ge=0)
    role_weight: Number = setting(
        0.0,
        "reversed vocabulary: extra weight of how the words of a role share their probability, also where it is small",
        ge=0,
    )
    hidden_weight: Number = setting(
        0.0, "weight of 1 − cosine between hidden states of student and teacher; needs equal widths", ge=0
    )
    hidden_layers: Literal["last", "kept"] = setting(
        "last", "hidden states to compare: the last, or those after every kept block (see student.layers)"
    )
    hidden_target: Literal["mean", "own"] = setting(
        "mean", "what they learn: the mean of the teacher's states on a text and its counterfactual, or its own state"
    )
    chunk_rows: int = setting(256, "predictions whose logits are in memory at one time", ge=2)


class Optim(Section):
    lr: Number = setting(1e-3, "peak learning rate", gt=0)
    betas: Annotated[list[Number], AfterValidator(check_betas)] = setting([0.9, 0.98], "AdamW's decay rates")
    eps: Number = setting(1e-6, "AdamW's epsilon", gt=0)
    weight_decay: Number = setting(0.0, "weight decay, on matrices only; not for sgd", ge=0)
    warmup: Number = setting(0.05, "fraction of the steps over which the learning rate rises from 0", ge=0, le=1)
    schedule: Literal["linear", "cosine", "constant"] = setting("linear", "decay to 0 after the warm-up, or none")
    max_grad_norm: Number = setting(5.0, "gradients are clipped to this norm; not with privacy.epsilon", gt=0)
    name: Literal["adamw", "sgd"] = setting("adamw", "AdamW, or plain gradient descent (no momentum, no decay)")


class Privacy(Section):
    epsilon: Number | None = setting(
        None, "train with differential privacy: what a text can change at most (docs/privacy.md); null: without", gt=0
    )
    delta: Number | None = setting(
        None, "probability that epsilon does not cover; below 1 / number of texts", gt=0, lt=1
    )
    unit: Literal["text", "client"] = setting(
        "text",
        "what is protected: a text (a row of the corpus), with all its sequences and counterfactuals; or, with "
        "federated.rounds, a client with all its texts",
    )
    clip: Literal["flat", "automatic", "micro"] = setting(
        "flat",
        "flat: a text's gradient is clipped to max_norm; automatic: it is divided by its norm; micro: a micro-batch is "
        "clipped as a whole (eDP-SGD), which needs twice the noise",
    )
    max_norm: Number = setting(1.0, "largest norm of a text's gradient, of its summed loss; not for automatic", gt=0)
    adaptive: Number | None = setting(
        None, "clip flat: max_norm follows this quantile of the texts' norms, from 0 to 1", gt=0, lt=1
    )
    decay: Number = setting(1.0, "factor of the noise from epoch to epoch", gt=0, le=1)
    secret: str = setting(
        "privacy.secret",
        "file that decides sampling and noise; made if it is missing, and never to be published",
        min_length=1,
    )


class Train(Section):
    epochs: Number | None = setting(None, "passes over the corpus", gt=0)
    max_steps: int | None = setting(None, "optimizer steps; takes precedence over epochs", ge=1)
    batch_size: int = setting(
        64, "sequences in one optimizer step, over all ranks; with augment both, both texts of a pair count", ge=1
    )
    batch_by: Literal["sequences", "tokens"] = setting(
        "sequences",
        "unit of both batch sizes; tokens: batch_size × data.max_length tokens, texts of similar length together",
    )
    micro_batch_size: int = setting(64, "sequences in one forward pass of one rank; sets the accumulation", ge=1)
    precision: Annotated[Literal["no", "bf16", "fp16"] | None, BeforeValidator(as_no)] = setting(
        None, "autocast; null: as given to accelerate launch"
    )
    compile: bool = setting(False, "torch.compile for the blocks of student and teacher")
    gradient_checkpointing: bool = setting(False, "recompute the student's activations in the backward pass")
    cpu_threads: int = setting(0, "threads of each CPU rank; 0: the cores are shared equally among the ranks", ge=0)
    log_every: int = setting(10, "steps between lines in metrics.jsonl", ge=1)
    log_plain: bool = setting(False, "also log kd_plain, the divergence from the unchanged teacher")
    save_every: int = setting(500, "steps between checkpoints; 0 = none", ge=0)
    keep_checkpoints: int = setting(2, "newest checkpoints to keep", ge=1)
    keep_best: str | None = setting(
        None,
        "figure in metrics.jsonl, e.g. loss: also keep the checkpoint with its lowest mean since the last one",
    )
    on_nan: Literal["stop", "skip"] = setting("stop", "when a loss or gradient is not finite: stop, or skip the step")
    max_skips: int = setting(10, "steps that on_nan: skip may skip before the run stops", ge=0)


class Federated(Section):
    rounds: int = setting(
        0,
        "rounds of federated training, which all other periods (_every) then count in; 0: the texts are in one place",
        ge=0,
    )
    clients: int | None = setting(None, "how many clients hold the texts; with partition key one for each value", ge=1)
    partition: Literal["iid", "label", "cluster", "key"] = setting(
        "iid",
        "who holds what: texts at random; label or cluster: more of some labels, or clusters of texts, than of others; "
        "key: a client for each value of the label",
    )
    label: str | None = setting(
        None, "field of the corpus, or several joined by +, e.g. occupation+gender", min_length=1
    )
    alpha: Number = setting(
        1.0, "partition label or cluster: Dirichlet concentration, 0.1: clients unlike each other", gt=0
    )
    quantity: Number | None = setting(
        None, "Dirichlet concentration of the clients' numbers of texts, 1: uneven; null: equal numbers", gt=0
    )
    clusters: int = setting(10, "partition cluster: number of clusters of texts", ge=2)
    partition_seed: int = setting(0, "seed of who holds what", ge=0)
    select: Literal["uniform", "activity", "most_active", "mixture"] = setting(
        "uniform",
        "who is asked: anyone; the active with p ∝ texts^activity; the most active; a mixture of the first two",
    )
    per_round: int = setting(10, "clients asked in a round", ge=1)
    activity: Number = setting(1.0, "exponent of select activity and mixture; 0: uniform", ge=0)
    mixture: Number = setting(0.5, "select mixture: share of uniform", ge=0, le=1)
    periods: int = setting(1, "periods in which a client's texts arrive, in their order; 1: all are there", ge=1)
    keep_periods: int | None = setting(None, "periods that a client keeps its texts for; null: for good", ge=1)
    local_steps: int = setting(
        10, "optimizer steps of a client in a round; rounds × local_steps is train.max_steps", ge=1
    )
    proximal: Number = setting(0.0, "FedProx: weight μ of μ/2 · ‖w − w_t‖² in a client's loss", ge=0)
    algorithm: Literal["fedavg", "fedavgm", "fedadam", "fedyogi"] = setting(
        "fedavg", "what the server does with the mean of the clients' differences"
    )
    server_lr: Number = setting(1.0, "the server's learning rate; about 0.01 for fedadam and fedyogi", gt=0)
    server_betas: Annotated[list[Number], AfterValidator(check_betas)] = setting(
        [0.9, 0.99], "the server's decay rates; fedavgm uses the first"
    )
    server_eps: Number = setting(1e-3, "τ of fedadam and fedyogi: how adaptive they are", gt=0)
    weights: Literal["tokens", "uniform"] = setting(
        "tokens", "weight of a client in the mean: the predictions it learns from, or the same for all"
    )
    missing: Number = setting(0.0, "in process: share of those asked that do not answer, drawn at random", ge=0, lt=1)
    timeout: Number = setting(3600.0, "Flower: seconds after which a client comes too late for a round", gt=0)


class Tracking(Section):
    to: Literal["none", "wandb", "tensorboard"] = setting(
        "none", "where to log besides metrics.jsonl: nowhere, Weights & Biases (wandb) or TensorBoard"
    )
    mode: Literal["online", "offline", "disabled"] = setting(
        "online", "wandb: send at once, write to disk for `wandb sync`, or do nothing"
    )
    project: str = setting("evenhand", "wandb: project that the runs belong to", min_length=1)
    entity: str | None = setting(None, "wandb: user or team that owns the project; default: whoever is logged in")
    group: str | None = setting(None, "wandb: name shared by the runs of a study; default: name of output_dir")
    tags: list[str] = setting([], "wandb: labels of the runs")
    name: str | None = setting(None, "wandb: prefix of the runs' names; default: the group")
    artifacts: bool = setting(False, "wandb: store the model, and a reference to the pair set, as artifacts")
    watching: Literal["auto", "lines", "json", "quiet"] = setting(
        "auto", "progress on the console: a bar on a terminal and lines elsewhere, lines, JSON lines, or nothing"
    )


class Hub(Section):
    repo: str | None = setting(
        None,
        "Hugging Face Hub repository to push each model to; {run} becomes the run's name",
        min_length=1,
    )
    private: bool = setting(True, "create the repository as private")


class Eval(Section):
    tasks: Tasks = setting({}, "task[@label]: its options; see `evenhand eval --list`")
    data_dir: str | None = setting(
        None, "folder with the evaluation data; default: data; for the sample OUTPUT_DIR/sample"
    )
    models: Annotated[dict[str, str], BeforeValidator(as_mapping)] = setting(
        {}, "more models to evaluate for comparison, label: path or Hub name"
    )
    batch_size: int = setting(32, "texts in one forward pass", ge=1)
    every: int = setting(0, "steps between small evaluations during training; 0 = none", ge=0)
    during: Tasks = setting({}, "tasks of the small evaluations, as in eval.tasks; results go to metrics.jsonl")
    during_limit: int = setting(64, "rows per task in a small evaluation, at most", ge=1)


class Config(Section):
    output_dir: str = setting("runs/run", "folder for everything a run writes", min_length=1)
    seed: int = setting(0, "seed of initial weights, data order, dropout and sampling", ge=0, lt=2**32)
    data: Data = Field(default_factory=Data)
    tokenizer: Tokenizer = Field(default_factory=Tokenizer)
    teacher: Teacher = Field(default_factory=Teacher)
    student: Student = Field(default_factory=Student)
    counterfactual: Counterfactual = Field(default_factory=Counterfactual)
    loss: Loss = Field(default_factory=Loss)
    optim: Optim = Field(default_factory=Optim)
    privacy: Privacy = Field(default_factory=Privacy)
    train: Train = Field(default_factory=Train)
    federated: Federated = Field(default_factory=Federated)
    tracking: Tracking = Field(default_factory=Tracking)
    eval: Eval = Field(default_factory=Eval)
    hub: Hub = Field(default_factory=Hub)
    runs: Tasks = setting({}, "name: overrides, for several models trained one after the other")
    seeds: Annotated[list[int], AfterValidator(check_distinct)] = setting(
        [], "train each of runs once per seed, as NAME-seedS; a run with `seeds: []` only once"
    )


SECTIONS: dict[str, type[Section]] = {
    key: item.annotation
    for key, item in Config.model_fields.items()
    if isinstance(item.annotation, type) and issubclass(item.annotation, Section)
}
PER_RUN = (
    "data", "tokenizer", "teacher", "student", "counterfactual", "loss", "optim", "privacy", "train",
    "federated", "seed",
)  # fmt: skip


def names() -> dict[str, FieldInfo]:
    """Every setting by its full key."""
    found: dict[str, FieldInfo] = {}
    for key, item in Config.model_fields.items():
        if key in SECTIONS:
            found |= {f"{key}.{leaf}": inner for leaf, inner in SECTIONS[key].model_fields.items()}
        else:
            found[key] = item
    return found


def validate(tree: dict[str, Any]) -> tuple[Config, list[str]]:
    """Settings of a tree, and a line for each that is wrong; a wrong one has its default in what is returned."""
    tree, problems = copy.deepcopy(tree), list[str]()
    while True:
        try:
            return Config.model_validate(tree), problems
        except ValidationError as error:
            for found in error.errors():
                problems.append(_line(found))
                *parents, leaf = map(str, found["loc"][: 2 if found["loc"][0] in SECTIONS else 1])
                place = tree[parents[0]] if parents else tree
                place.pop(leaf, None)


def _line(error: Any) -> str:
    """What pydantic found, as `key: what is wrong, and the way out`."""
    loc, kind, value = error["loc"], error["type"], error["input"]
    key = ".".join(str(part) for part in loc if isinstance(part, str))
    bounds = {"greater_than": "above {gt:g}", "greater_than_equal": "at least {ge:g}"}
    bounds |= {"less_than": "below {lt:g}", "less_than_equal": "at most {le:g}"}
    if kind == "extra_forbidden":
        return f"{key}: unknown setting{_where(str(loc[-1]), loc[0] if len(loc) > 1 else '')}"
    if kind == "value_error":
        return f"{key}: {error['ctx']['error']}"
    if kind in bounds:
        return f"{key}: must be {bounds[kind].format(**error['ctx'])}, not {value!r}"
    if kind == "string_too_short":
        return f"{key}: must not be empty"
    if kind == "model_type":
        return f"{key}: expected settings, found {value!r}"
    if key in names():
        item = names()[key]
        hint = near(str(value), typing.get_args(item.annotation)) if kind == "literal_error" else ""
        return f"{key}: must be {kind_of(item.annotation)}, not {value!r}{hint}"
    return f"{key}: must be a mapping of settings, not {value!r}" if kind == "dict_type" else f"{key}: {error['msg']}"


def _where(word: str, section: str) -> str:
    known = SECTIONS[section].model_fields if section else Config.model_fields
    elsewhere = [key for key in names() if key.rpartition(".")[2] == word]
    hint = f"; did you mean {elsewhere[0]}?" if elsewhere else near(word, known)
    return hint or "; known: " + ", ".join(known)


def describe(section: str = "") -> str:
    """All settings, or those of a section, with default and meaning: for `--settings`."""
    sections = dict.fromkeys(key.partition(".")[0] for key in names())
    if section and section not in sections:
        raise ConfigError(
            f"--settings {section}: no such section{near(section, sections)}; there is {', '.join(sections)}"
        )
    chosen = {key: item for key, item in names().items() if section in ("", key.partition(".")[0])}
    return "\n".join(f"{key:<32} {default_of(item):<12} {item.description}" for key, item in chosen.items())


def to_dict(config: Config) -> dict[str, Any]:
    return {key: value for key, value in config.model_dump().items() if key not in ("runs", "seeds") or value}


def to_yaml(config: Config) -> str:
    return yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True)
