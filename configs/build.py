"""Config → Run: the data, models, task and plan of one training run, built once. Nothing below sees a Config."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, set_seed

from configs import private, schema, teachers, watching
from configs.load import path_of
from configs.schema import Config
from configs.selfwritten import own_texts
from counterfactuals.files import sha256_of, write_whole
from counterfactuals.provenance import model_fingerprint
from counterfactuals.sample import write_sample
from counterfactuals.text.lexicon import load_lexicon
from counterfactuals.text.reverse import Reverser
from counterfactuals.tokens.align import AlignedPair
from counterfactuals.tokens.batch import BatchPlan, PairBatch, collate
from counterfactuals.tokens.chat import AssistantTokens
from counterfactuals.tokens.corpus import Corpus
from counterfactuals.tokens.pairs import PairSet, build_pairs
from counterfactuals.tokens.stream import PairStream
from counterfactuals.tokens.tokenizer import load_tokenizer, set_start, train_bpe
from counterfactuals.tokens.vocabulary import role_tokens
from debias import models
from debias.cache.store import TeacherCache, build_cache, fingerprint_parts, open_cache
from debias.ops import VocabularyRoles
from debias.optim import build_optimizer, lr_share
from debias.run import checkpoint
from debias.run.guard import NonFinite
from debias.run.launch import configure_deepspeed, is_sharded, is_zero3, make_accelerator, refuse_overflow
from debias.run.tracking import Tracker
from debias.task import DistillTask
from eval import loading
from privacy.mechanism import Mechanism
from privacy.plan import PoissonPlan

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Data:
    """Pairs of texts, and which of them are in which step."""

    pairs: PairSet | PairStream
    plan: BatchPlan | PairStream | PoissonPlan
    cache: TeacherCache | None
    collation: dict[str, Any]  # options of collate
    one_side: bool  # counterfactual.augment: one

    def num_tokens(self, step: int) -> int:
        """Trained predictions of the whole batch, over accumulation and ranks; 1 where there is none."""
        chosen = self.plan.batch(step)
        return self.predictions(chosen, self._exchanged(step, chosen))

    def predictions(self, chosen: np.ndarray, exchanged: np.ndarray) -> int:
        """Trained predictions of these pairs, at least 1. exchanged: which are seen from their other side."""
        augment, said = self.collation["augment"], self.collation["said"]
        if said is None:
            options = {"exchanged": exchanged} if self.one_side else {}
            return max(1, self.pairs.predictions(chosen, augment=augment, **options))
        pairs = self._pairs(chosen, exchanged)
        texts = [pair.input_ids for pair in pairs] + [pair.cf_input_ids for pair in pairs if augment and pair.reversed]
        return max(1, sum(int(said(ids)[1:].sum()) for ids in texts))

    def micro_batches(self, step: int, **share: int) -> Iterator[PairBatch]:
        """The batches of one rank. share: accumulation, rank, world."""
        texts = self.plan.text_P if isinstance(self.plan, PoissonPlan) else None
        for chosen in self.plan.micro_batches(step, **share):
            indices = chosen if len(chosen) else np.zeros(1, dtype=int)  # a private step may hold no text
            units, exchanged = None if texts is None else texts[indices], self._exchanged(step, indices)
            batch = collate(self._pairs(indices, exchanged), units=units, **self.collation)
            if not len(chosen):
                batch = replace(batch, trained_R=torch.zeros_like(batch.trained_R))
            yield batch if self.cache is None else self.cache.attach(batch, indices, exchanged)

    def _pairs(self, indices: np.ndarray, exchanged: np.ndarray) -> list[AlignedPair]:
        return [self.pairs[i].exchanged() if other else self.pairs[i] for i, other in zip(indices, exchanged)]

    def _exchanged(self, step: int, indices: np.ndarray) -> np.ndarray:
        """Which of these pairs are seen from their other side."""
        if not self.one_side or isinstance(self.pairs, PairStream) or isinstance(self.plan, PairStream):
            return np.zeros(len(indices), dtype=bool)
        return self.plan.exchanged(step, indices) & self.pairs.has_cf[indices]


@dataclass(frozen=True)
class Models:
    """teacher is None if training does not run it: nothing learns from it, or its predictions are cached."""

    tokenizer: Any
    teacher: Any
    student: Any
    num_parameters: int  # of the student, counted before it is split among ranks
    kept: list[int]  # the teacher's layers that the student was made of, if it was
    facts: dict[str, Any]  # how these were chosen, for run.json


@dataclass(frozen=True)
class Plan:
    """The number of steps, what changes with the step, and what is done how often (0 = never)."""

    steps: int
    seed: int
    lr: float
    warmup: float
    schedule: str
    max_grad_norm: float
    log_every: int
    log_plain: bool
    eval_every: int
    save_every: int
    keep_checkpoints: int
    keep_best: str | None

    def lr_at(self, step: int) -> float:
        return self.lr * lr_share(step, self.steps, self.warmup, self.schedule)

    def due(self, step: int, every: int) -> bool:
        """Whether something that is done every so many steps is done after `step` (from 0), or it is the last one."""
        return every > 0 and ((step + 1) % every == 0 or step + 1 == self.steps)


@dataclass(frozen=True)
class Run:
    """One training run, restored from its newest checkpoint. first: steps that are done; probe: a small evaluation.

    private: what clips and adds noise, and facts of it for run.json; None without privacy.epsilon.
    """

    folder: Path
    first: int
    accelerator: Accelerator
    data: Data
    models: Models
    task: Any
    optimizer: Any
    plan: Plan
    tracker: Tracker
    non_finite: NonFinite
    probe: Callable[[Any], dict[str, float]]
    private: Mechanism | None
    facts: dict[str, Any]

    def hashes(self) -> dict[str, str]:
        """sha256 of the run's inputs (inputs.json), of its pair set's files, and of the model that came out."""
        found = json.loads((self.folder / "inputs.json").read_text(encoding="utf-8"))
        if self.data.pairs.folder is not None:
            shards = sorted(self.data.pairs.folder.glob("*.safetensors"))
            found["pairs"] = hashlib.sha256("".join(map(sha256_of, shards)).encode()).hexdigest()
        return found | {"model": model_fingerprint(str(self.folder / "model"))}


def make_run(config: Config, name: str, folder: Path, *, allow_changes: bool = False) -> Run:
    """Build everything a run needs and resume it from its newest checkpoint, if there is one."""
    corpus, t = corpus_of(config), config.train
    parts = models_of(config, corpus)  # before Accelerator exists: otherwise DeepSpeed ZeRO-3 would split the teacher
    accelerator = make_accelerator(
        batch_size=t.batch_size, micro_batch_size=t.micro_batch_size, precision=t.precision, cpu_threads=t.cpu_threads
    )
    reverser = reverser_of(config)
    with accelerator.main_process_first():
        pairs = pairs_of(config, corpus, reverser, parts.tokenizer, accelerator)
    cache = cache_of(config, pairs, accelerator)
    inputs = inputs_of(config) | {"corpus": pairs.meta["fingerprint"]}
    facts = dict(parts.facts)
    if "influence" in facts:
        inputs["student.layers"] = str(parts.kept)
    if config.teacher.erase == "leace":
        facts["erased"] = teachers.erase(parts.teacher, pairs, reverser, parts.tokenizer, accelerator.device)
    batches, plan = plan_of(config, pairs, inputs)
    data = Data(pairs, batches, cache, collation_of(config, parts.tokenizer), config.counterfactual.augment == "one")
    task, optimizer = task_of(config, reverser, parts, accelerator, cache)
    mechanism = None
    if isinstance(batches, PoissonPlan):
        mechanism, spent = private.mechanism_of(config, task, batches, plan.steps)
        facts |= spent
        inputs["privacy.secret or setting"] = batches.keys.tag()

    folder.mkdir(parents=True, exist_ok=True)
    on_main = accelerator.is_main_process
    if on_main:
        checkpoint.same_inputs(folder / "inputs.json", inputs)
    saved = checkpoint.restore(accelerator, task, optimizer, folder / "checkpoints", allow_changes=allow_changes)
    batches.seek(saved)
    first = saved["step"]
    if mechanism is not None:
        mechanism.max_norm = saved.get("max_norm", mechanism.max_norm)
    if first > plan.steps:
        raise ValueError(f"{folder}: has already done {first} steps, more than {plan.steps}; raise train.max_steps")
    if on_main:
        write_whole(folder / "config.yaml", schema.to_yaml(config))
    probe = watching.probe_of(config, parts.tokenizer)
    sinks = watching.sinks_of(config, name, folder, step=first) if on_main else []
    shown = {"on": on_main, "watching": config.tracking.watching, "sinks": sinks}
    tracker = Tracker(folder / "metrics.jsonl", name or "student", plan.steps, step=first, **shown)
    bad = NonFinite(folder / "bad_batches", policy=t.on_nan, max_skips=t.max_skips, skipped=saved.get("skipped", 0))
    shared = (accelerator, data, parts, task, optimizer, plan, tracker, bad, probe)
    return Run(folder, first, *shared, mechanism, facts)


def inputs_of(config: Config) -> dict[str, str]:
    """Fingerprints of the models, texts and word tables that a run is made from, as far as they are files here."""
    named = {"teacher.model": config.teacher.model, "student.model": config.student.model}
    paths = {key: path_of(config, model) for key, model in named.items() if model}
    found = {key: model_fingerprint(path) for key, path in paths.items() if Path(path).exists()}
    files = {"data.prompts": config.data.prompts, "counterfactual.lexicon": config.counterfactual.lexicon}
    found |= {key: sha256_of(Path(path)) for key, path in files.items() if path and Path(path).is_file()}
    if config.data.source not in ("sample", "self") and Path(config.data.source).expanduser().exists():
        found["data.source"] = corpus_of(config).fingerprint
    return found


def corpus_of(config: Config) -> Corpus:
    data, source = config.data, config.data.source
    if source == "sample":
        source = str(write_sample(Path(config.output_dir) / "sample") / "train.jsonl")
    elif source == "self":
        source = str(own_texts(config, path_of(config, config.teacher.model or ""), reverser_of(config)))
    return Corpus(source, subset=data.subset, split=data.split, text_field=data.text_field, max_texts=data.max_texts)


def reverser_of(config: Config) -> Reverser:
    c = config.counterfactual
    return Reverser(load_lexicon(c.lexicon), c.direction, c.policy, tuple(c.protected), c.seed)


def tokenizer_of(config: Config, corpus: Corpus | None = None) -> Any:
    """The tokenizer of teacher, student or tokenizer.name, which must agree; or one trained on the corpus."""
    tokenizer = _tokenizer(config, corpus)
    t = config.tokenizer
    set_start(tokenizer, t.start_token, setting="tokenizer.start_token", every=t.start_every)
    return tokenizer


def _tokenizer(config: Config, corpus: Corpus | None) -> Any:
    if config.tokenizer.train_vocab_size:
        return train_bpe(corpus_of(config) if corpus is None else corpus, config.tokenizer.train_vocab_size)
    named = {"teacher.model": config.teacher.model, "student.model": config.student.model}
    tokenizer: Any = None
    first = ""
    for setting, name in (named | {"tokenizer.name": config.tokenizer.name}).items():
        if name:
            remote = config.teacher.trust_remote_code and setting == "teacher.model"
            own = load_tokenizer(path_of(config, name), setting=setting, trust_remote_code=remote)
            if tokenizer is not None:
                models.same_vocabulary(tokenizer, own, this=first, that=setting)
            tokenizer, first = own, setting
    return tokenizer


def teacher_of(config: Config, *, meta: bool = False) -> Any:
    """The teacher; meta: without its weights, on the meta device. Where a student is made of it, with whole weights."""
    t = config.teacher
    options: dict[str, Any] = {"setting": "teacher.model", "trust_remote_code": t.trust_remote_code}
    if meta:
        return loading.meta_model(path_of(config, t.model or ""), **options)
    options["packed"] = "unpack" if config.student.init == "layers" else "keep"
    return loading.load_model(path_of(config, t.model or ""), dtype=t.dtype, **options)


def models_of(config: Config, corpus: Corpus) -> Models:
    """Tokenizer, teacher and student, checked together."""
    set_seed(config.seed)
    teacher: Any = None
    student: Any = None
    runs_teacher = (config.loss.kd_weight > 0 or config.loss.hidden_weight > 0) and not config.teacher.cache
    if config.teacher.model:
        teacher = teacher_of(config, meta=not runs_teacher and config.student.init != "layers")
    tokenizer = tokenizer_of(config, corpus)
    if config.student.model:
        student = loading.load_model(path_of(config, config.student.model), setting="student.model", packed="refuse")
    kept, facts = list[int](), dict[str, Any]()
    if config.student.init == "layers":
        kept, facts = teachers.kept_layers(config, teacher, tokenizer, corpus)
        student = models.student_from_layers(teacher, kept)
    elif config.student.init == "random":
        student = models.random_student(config.student.config, tokenizer, config.data.max_length)
    models.check_models(student, teacher, tokenizer, config.data.max_length, cached=bool(config.teacher.cache))
    models.set_dropout(student, config.student.dropout)
    size = student.num_parameters()
    if config.student.lora:
        models.add_lora(student, **config.student.lora)
    if config.train.gradient_checkpointing:
        models.checkpoint_activations(student)
    return Models(tokenizer, teacher if runs_teacher else None, student, size, kept, facts)


def pairs_of(
    config: Config, corpus: Corpus, reverser: Reverser, tokenizer: Any, accelerator: Accelerator | None = None
) -> PairSet | PairStream:
    """accelerator: whose ranks share the work on a stream; None: one process."""
    data, corpus = config.data, replace(corpus, tokenizer=tokenizer)
    if not data.streaming:
        folder = data.pairs_dir or Path(config.output_dir) / "pairs"
        options: dict[str, Any] = {"max_length": data.max_length, "workers": data.workers}
        options["max_doubt"] = config.counterfactual.max_doubt
        return build_pairs(corpus, reverser, tokenizer, folder, progress=_log_as("pairs"), **options)
    options = {"max_length": data.max_length, "buffer": data.shuffle_buffer, "batch_size": config.train.batch_size}
    options |= {"seed": config.seed, "augment": config.counterfactual.augment == "both"}
    options["max_doubt"] = config.counterfactual.max_doubt
    options["by_tokens"] = config.train.batch_by == "tokens"
    if accelerator is not None:
        options |= {"rank": accelerator.process_index, "world": accelerator.num_processes, "gather": gather_object}
    return PairStream(corpus, reverser, tokenizer, **options)


def cache_of(config: Config, pairs: PairSet | PairStream, accelerator: Accelerator) -> TeacherCache | None:
    """The teacher's stored predictions, made by the first rank if need be; None without teacher.cache."""
    if not (config.teacher.cache and config.teacher.model and config.loss.kd_weight):
        return None
    assert isinstance(pairs, PairSet)  # a stream cannot be cached, see checks.py
    with accelerator.main_process_first():
        found = open_cache(cache_folder(config), pairs, cache_parts(config, pairs))
        if found is None:
            if is_zero3(accelerator):
                raise ValueError("teacher.cache: make it with `evenhand cache` first; ZeRO-3 would split the teacher")
            found = store_teacher(config, pairs, accelerator.device, accelerator.mixed_precision)
    stored, own = found.meta["precision"], accelerator.mixed_precision
    if stored not in ("no", own) and accelerator.is_main_process:  # "no" is exact, whatever the run's precision
        log.warning(
            "%s: was made with train.precision %s, this run has %s; its predictions are only that precise. To make new "
            "ones, name another folder in teacher.cache",
            *(found.folder, stored, own),
        )
    return found


def cache_folder(config: Config) -> Path:
    folder = config.teacher.cache or "auto"
    return Path(config.output_dir) / "teacher_cache" if folder == "auto" else Path(folder)


def cache_parts(config: Config, pairs: PairSet) -> dict[str, Any]:
    teacher = model_fingerprint(path_of(config, config.teacher.model or ""))
    return fingerprint_parts(teacher, config.teacher.dtype, pairs, config.teacher.cache_bytes)


def store_teacher(config: Config, pairs: PairSet, device: Any, precision: str) -> TeacherCache:
    """Run the teacher over all pairs and store its predictions."""
    parts, teacher = cache_parts(config, pairs), teacher_of(config)
    options: dict[str, Any] = {"device": device, "precision": precision, "progress": _log_as("teacher")}
    return build_cache(cache_folder(config), pairs, teacher, parts, **options)


def _log_as(what: str) -> Callable[[Any], None]:
    """Progress of a long preparation, line by line."""
    return lambda progress: log.info("%-8s %s", what, progress)


def plan_of(
    config: Config, pairs: PairSet | PairStream, inputs: Mapping[str, str]
) -> tuple[BatchPlan | PairStream | PoissonPlan, Plan]:
    """Which pairs are in which step, and the steps. inputs: fingerprints of what the run is made from."""
    t = config.train
    batches: BatchPlan | PairStream | PoissonPlan
    if isinstance(pairs, PairStream):
        batches, steps = pairs, t.max_steps or 0
    else:
        sequences = np.uint8(1) + pairs.has_cf * np.uint8(config.counterfactual.augment == "both")  # a byte each
        options: dict[str, Any] = {"batch_size": t.batch_size, "seed": config.seed}
        lengths = pairs.lengths
        if t.batch_by == "tokens":
            lengths, options["max_length"] = np.maximum(lengths, pairs.cf_lengths), config.data.max_length
        if config.privacy.epsilon is None:
            batches = BatchPlan(lengths, sequences, **options)
        else:
            batches = private.plan_of(config, pairs, sequences, inputs)
        steps = t.max_steps or math.ceil(batches.steps_per_epoch * (t.epochs or 1))
    return batches, steps_of(config, steps)


def steps_of(config: Config, number: int) -> Plan:
    """What is done in which of so many steps, or rounds."""
    t, o = config.train, config.optim
    return Plan(
        steps=number,
        seed=config.seed,
        lr=o.lr,
        warmup=o.warmup,
        schedule=o.schedule,
        max_grad_norm=o.max_grad_norm,
        log_every=t.log_every,
        log_plain=t.log_plain,
        eval_every=config.eval.every,
        save_every=t.save_every,
        keep_checkpoints=t.keep_checkpoints,
        keep_best=t.keep_best,
    )


def collation_of(config: Config, tokenizer: Any) -> dict[str, Any]:
    """Options of `collate`."""
    c = config.counterfactual
    options = {"op": config.loss.op, "vocabulary": config.loss.vocabulary, "pad_id": tokenizer.eos_token_id or 0}
    options["couple"] = teachers.pairs_hidden_states(config)
    options["said"] = AssistantTokens(tokenizer) if config.data.loss_on == "assistant" else None
    return options | {"augment": c.augment == "both", "perturb": c.perturb, "stop_at_cue": c.stop_at_cue}


def task_of(
    config: Config, reverser: Reverser, parts: Models, accelerator: Accelerator, cache: TeacherCache | None
) -> tuple[Any, Any]:
    """The task and its optimizer, prepared for the processes and precision of `accelerator`."""
    if config.eval.every and is_sharded(accelerator):
        raise ValueError("eval.every: one rank alone cannot run a student in shards (FSDP, ZeRO-3); set it to 0")
    if config.student.lora and is_sharded(accelerator):
        raise ValueError("student.lora: not for a student in shards (FSDP, ZeRO-3); leave it out")
    student, teacher = parts.student, parts.teacher
    options = {key: value for key, value in vars(config.loss).items() if key not in ("vocabulary", "hidden_layers")}
    if config.loss.vocabulary == "reversed":
        size = min(m.get_output_embeddings().weight.shape[0] for m in (student, teacher) if m is not None)
        options["roles"] = VocabularyRoles.build(role_tokens(reverser, parts.tokenizer, size), accelerator.device)
    if teacher is not None:
        teacher = teacher if teacher.device == accelerator.device else teacher.to(accelerator.device)
    if config.loss.hidden_weight:
        models.check_widths(student, teacher)
        options["hidden_layers"] = models.hidden_map(config.loss.hidden_layers, parts.kept)
    codec = cache.codec.to(accelerator.device) if cache is not None else None
    task = DistillTask(student, teacher, codec=codec, **options)
    if config.train.compile:
        models.compile_layers(*(model for model in (student, teacher) if model is not None))
    o, t = config.optim, config.train
    optimizer = build_optimizer(task, lr=o.lr, betas=o.betas, eps=o.eps, weight_decay=o.weight_decay, name=o.name)
    sizes: dict[str, Any] = {"micro_batch_size": t.micro_batch_size, "max_grad_norm": o.max_grad_norm}
    configure_deepspeed(accelerator, precision=t.precision, **sizes)
    if config.privacy.epsilon is None:
        task, optimizer = accelerator.prepare(task, optimizer)
    else:  # its gradients do not come from autograd: nothing of DDP's is of use
        private.check_launch(accelerator)
        task, optimizer = accelerator.prepare_model(task, evaluation_mode=True), accelerator.prepare(optimizer)
    refuse_overflow(optimizer)
    return task, optimizer
