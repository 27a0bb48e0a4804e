"""Settings → what a run is made of, and whether it is done. Read by the recipe only; components know no settings."""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from accelerate.utils import gather_object, set_seed

from configs import schema
from configs.schema import Config
from counterfactuals.files import sha256_of
from counterfactuals.provenance import model_fingerprint
from counterfactuals.sample import write_sample
from counterfactuals.text.lexicon import load_lexicon
from counterfactuals.text.reverse import Reverser
from counterfactuals.tokens.batch import BatchPlan
from counterfactuals.tokens.corpus import Corpus
from counterfactuals.tokens.pairs import PairSet, build_pairs
from counterfactuals.tokens.stream import PairStream
from counterfactuals.tokens.tokenizer import load_tokenizer, train_bpe
from counterfactuals.tokens.vocabulary import role_tokens
from debias import checkpoint, models, publish
from debias.cache import TeacherCache, build_cache, fingerprint_parts, open_cache
from debias.launch import is_sharded
from debias.ops import VocabularyRoles
from debias.optim import build_optimizer, configure_deepspeed, refuse_overflow
from debias.task import DistillTask
from debias.tracking import Sink, in_a_sweep
from debias.tracking import check as check_sink
from debias.tracking import make_sinks as sinks_of


def already_done(config: Config, folder: Path, *, allow_changes: bool = False) -> bool:
    """Whether `folder` holds this very run, complete. ValueError if it holds a run of other settings.

    With allow_changes such a run goes on with the new settings, also if it was complete; changes.jsonl says so.
    """
    if not (folder / "config.yaml").exists():
        return False
    changed = schema.differences(folder / "config.yaml", config, complete=(folder / "run.json").exists())
    if changed and not allow_changes:
        raise ValueError(
            f"{folder}: holds a run with other settings ({'; '.join(changed)}); "
            "choose another output_dir, delete the folder, or go on with the new ones: --allow_changes"
        )
    if changed:
        if int(os.environ.get("RANK", "0")) == 0:
            with (folder / "changes.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps({"changed": changed}) + "\n")
            print(f"{folder}: goes on with other settings: {'; '.join(changed)}", flush=True)
            (folder / "run.json").unlink(missing_ok=True)
        return False
    if not (folder / "run.json").exists():
        return False
    checkpoint.same_inputs(folder / "inputs.json", made_from(config))
    return True


def made_from(config: Config) -> dict[str, str]:
    named = {"teacher.model": config.teacher.model, "student.model": config.student.model}
    return {key: model_fingerprint(path_of(config, model)) for key, model in named.items() if model}


def hashes(folder: Path, pairs: PairSet | PairStream) -> dict[str, str]:
    """sha256 of what a run was made from (inputs.json), of its pair set's files and of the model that came out."""
    found = json.loads((folder / "inputs.json").read_text(encoding="utf-8"))
    if pairs.folder is not None:
        shards = sorted(pairs.folder.glob("*.safetensors"))
        found["pairs"] = hashlib.sha256("".join(map(sha256_of, shards)).encode()).hexdigest()
    return found | {"model": model_fingerprint(str(folder / "model"))}


def path_of(config: Config, model: str) -> str:
    return str(Path(config.output_dir) / model[4:] / "model") if model.startswith("run:") else model


def corpus_of(config: Config) -> Corpus:
    data = config.data
    source = data.source
    if source == "sample":
        source = str(write_sample(Path(config.output_dir) / "sample") / "train.jsonl")
    return Corpus(source, subset=data.subset, split=data.split, text_field=data.text_field, max_texts=data.max_texts)


def make_models(config: Config, corpus: Corpus) -> tuple[Any, Any, Any]:
    """Tokenizer, teacher (None if training does not run it: nothing learns from it, or what does is cached) and
    student, checked together.
    """
    set_seed(config.seed)
    teacher: Any = None
    student: Any = None
    live = (config.loss.kd_weight > 0 or config.loss.hidden_weight > 0) and not config.teacher.cache
    if config.teacher.model:
        teacher = load_teacher(config, hollow=not live and config.student.init != "layers")
    tokenizer = make_tokenizer(config, corpus)
    if config.student.model:
        student = models.load_model(path_of(config, config.student.model), setting="student.model")
    if config.student.init == "layers":
        assert teacher is not None
        keep = models.kept_layers(config.student.layers, models.num_layers(teacher))
        student = models.student_from_layers(teacher, keep)
    elif config.student.init == "random":
        student = models.random_student(config.student.config, tokenizer, config.data.max_length)
    models.check_sizes(student, teacher, tokenizer, config.data.max_length)
    models.set_dropout(student, config.student.dropout)
    if config.train.gradient_checkpointing:
        models.checkpoint_activations(student)
    return tokenizer, teacher if live else None, student


def load_teacher(config: Config, *, hollow: bool = False) -> Any:
    """hollow: its sizes alone, without values."""
    t = config.teacher
    options: dict[str, Any] = {"setting": "teacher.model", "trust_remote_code": t.trust_remote_code}
    if hollow:
        return models.hollow_model(path_of(config, t.model or ""), **options)
    return models.load_model(path_of(config, t.model or ""), dtype=t.dtype, **options)


def make_tokenizer(config: Config, corpus: Corpus) -> Any:
    """The teacher's, the student's, the one that is named or trained; where there are several, they must agree."""
    if config.tokenizer.train_vocab_size:
        return train_bpe(corpus, config.tokenizer.train_vocab_size)
    tokenizer: Any = None
    this = ""
    for setting, name in (
        ("teacher.model", config.teacher.model),
        ("student.model", config.student.model),
        ("tokenizer.name", config.tokenizer.name),
    ):
        if name:
            remote = config.teacher.trust_remote_code and setting == "teacher.model"
            own = load_tokenizer(path_of(config, name), setting=setting, trust_remote_code=remote)
            if tokenizer is not None:
                models.same_vocabulary(tokenizer, own, this=this, that=setting)
            tokenizer, this = own, setting
    return tokenizer


def make_reverser(config: Config) -> Reverser:
    c = config.counterfactual
    return Reverser(load_lexicon(c.lexicon), c.direction, c.policy, tuple(c.protected), c.seed)


def make_pairs(
    config: Config, corpus: Corpus, reverser: Reverser, tokenizer: Any, accelerator: Accelerator | None = None
) -> PairSet | PairStream:
    """accelerator: of the ranks that share the work on a stream; None: one process."""
    if config.data.streaming:
        ranks: dict[str, Any] = {}
        if accelerator is not None:
            ranks = {"rank": accelerator.process_index, "world": accelerator.num_processes, "gather": gather_object}
        return PairStream(
            corpus,
            reverser,
            tokenizer,
            max_length=config.data.max_length,
            buffer=config.data.shuffle_buffer,
            batch_size=config.train.batch_size,
            seed=config.seed,
            augment=config.counterfactual.augment,
            by_tokens=config.train.batch_by == "tokens",
            **ranks,
        )
    return build_pairs(
        corpus,
        reverser,
        tokenizer,
        config.data.pairs_dir or Path(config.output_dir) / "pairs",
        max_length=config.data.max_length,
        workers=config.data.workers,
        progress=lambda progress: print(f"pairs    {progress}", flush=True),
    )


def make_cache(config: Config, pairs: PairSet | PairStream, accelerator: Accelerator) -> TeacherCache | None:
    """The teacher's stored predictions, made by the first rank if need be; None without teacher.cache."""
    if not (config.teacher.cache and config.teacher.model and config.loss.kd_weight):
        return None
    assert isinstance(pairs, PairSet)  # the settings allow no cache of a stream
    parts = cache_parts(config, pairs)
    with accelerator.main_process_first():
        found = open_cache(cache_folder(config), pairs, parts)
        if found is None:
            plugin = getattr(accelerator.state, "deepspeed_plugin", None)
            if plugin is not None and plugin.zero_stage == 3:
                raise ValueError(
                    "teacher.cache: make it with `python -m debias cache` first; ZeRO-3 splits the teacher"
                )
            found = store_teacher(config, pairs, accelerator.device, accelerator.mixed_precision)
    kept, own = found.meta["precision"], accelerator.mixed_precision
    if kept not in ("no", own) and accelerator.is_main_process:  # "no" is the teacher itself, whatever the run's
        print(
            f"warning: {found.folder}: was made with train.precision {kept}, this run has {own}; its predictions are "
            "as coarse as that. Name another folder in teacher.cache for new ones",
            file=sys.stderr,
            flush=True,
        )
    return found


def cache_folder(config: Config) -> Path:
    folder = config.teacher.cache or "auto"
    return Path(config.output_dir) / "teacher_cache" if folder == "auto" else Path(folder)


def cache_parts(config: Config, pairs: PairSet) -> dict[str, Any]:
    teacher = model_fingerprint(path_of(config, config.teacher.model or ""))
    return fingerprint_parts(teacher, config.teacher.dtype, pairs, config.teacher.cache_bytes)


def store_teacher(config: Config, pairs: PairSet, device: Any, precision: str) -> TeacherCache:
    return build_cache(
        cache_folder(config),
        pairs,
        load_teacher(config),
        cache_parts(config, pairs),
        device=device,
        precision=precision,
        progress=lambda line: print(f"teacher  {line}", flush=True),
    )


def make_plan(config: Config, pairs: PairSet | PairStream) -> tuple[BatchPlan | PairStream, int]:
    """Which pairs are in which step, and the number of steps."""
    if isinstance(pairs, PairStream):
        return pairs, config.train.max_steps or 0
    sequences = np.uint8(1) + pairs.has_cf * np.uint8(config.counterfactual.augment)  # a byte each
    options: dict[str, Any] = {"batch_size": config.train.batch_size, "seed": config.seed}
    if config.train.batch_by == "tokens":
        longest = np.maximum(pairs.lengths, pairs.cf_lengths)
        plan = BatchPlan(longest, sequences, max_length=config.data.max_length, **options)
    else:
        plan = BatchPlan(pairs.lengths, sequences, **options)
    return plan, config.train.max_steps or math.ceil(plan.steps_per_epoch * (config.train.epochs or 1))


def repairs_hidden(config: Config) -> bool:
    """Whether hidden states learn from both sides, so that the teacher sees counterfactuals whatever the op."""
    return config.loss.hidden_weight > 0 and config.loss.hidden_target == "mean"


def collate_options(config: Config, tokenizer: Any) -> dict[str, Any]:
    c = config.counterfactual
    options = {"op": config.loss.op, "vocabulary": config.loss.vocabulary, "pad_id": tokenizer.eos_token_id or 0}
    options["couple"] = repairs_hidden(config)
    return options | {"augment": c.augment, "perturb": c.perturb, "stop_at_cue": c.stop_at_cue}


def make_task(
    config: Config,
    reverser: Reverser,
    tokenizer: Any,
    teacher: Any,
    student: Any,
    accelerator: Accelerator,
    cache: TeacherCache | None = None,
) -> tuple[Any, Any]:
    """The task and its optimizer, prepared for the processes and the precision of `accelerator`."""
    if config.eval.every and is_sharded(accelerator):
        raise ValueError("eval.every: one rank alone cannot run a student in shards (FSDP, ZeRO-3); set it to 0")
    roles = None
    if config.loss.vocabulary == "reversed":
        size = student.get_output_embeddings().weight.shape[0]
        roles = VocabularyRoles.build(role_tokens(reverser, tokenizer, size), accelerator.device)
    if teacher is not None:
        teacher = teacher.to(accelerator.device)
    if config.train.compile:
        models.compile_layers(*(model for model in (student, teacher) if model is not None))
    options = {key: value for key, value in vars(config.loss).items() if key != "vocabulary"}
    if config.loss.hidden_weight:
        models.check_widths(student, teacher)
        depth = models.num_layers(teacher)
        keep = models.kept_layers(config.student.layers, depth) if config.student.init == "layers" else []
        options["hidden_layers"] = models.hidden_map(config.loss.hidden_layers, keep)
    else:
        del options["hidden_layers"]
    codec = cache.codec.to(accelerator.device) if cache is not None else None
    task = DistillTask(student, teacher, codec=codec, roles=roles, **options)
    o = config.optim
    optimizer = build_optimizer(task, lr=o.lr, betas=o.betas, eps=o.eps, weight_decay=o.weight_decay)
    configure_deepspeed(
        accelerator,
        micro_batch_size=config.train.micro_batch_size,
        max_grad_norm=config.optim.max_grad_norm,
        precision=config.train.precision,
    )
    task, optimizer = accelerator.prepare(task, optimizer)
    refuse_overflow(optimizer)
    return task, optimizer


def make_sinks(config: Config, name: str, folder: Path, *, step: int) -> list[Sink]:
    """Where figures go beside metrics.jsonl."""
    to = config.tracking.to
    options = _wandb_options(config, name) if to == "wandb" else {"config": schema.to_dict(config)}
    return sinks_of(to, folder, step=step, **options)


def _wandb_options(config: Config, name: str) -> dict[str, Any]:
    t = config.tracking
    group = t.group or Path(config.output_dir).name
    title = "-".join(part for part in (t.name or group, name) if part)
    options = {"entity": t.entity, "project": t.project, "group": group, "tags": t.tags, "mode": t.mode}
    return options | {"title": title, "config": schema.to_dict(config)}


def make_probe(config: Config) -> Any:
    """The small evaluation during training, or None."""
    if not config.eval.every:
        return None
    from eval.probe import Probe

    e = config.eval
    return Probe(e.during, data_dir=_evaluation_data(config), limit=e.during_limit, seed=config.seed)


def figures_of(tasks: dict[str, dict[str, Any]]) -> list[str]:
    """TASK/METRIC of the headline figures that these tasks give."""
    from eval.run import resolve

    if not tasks:
        return []
    return [f"{label}/{metric}" for label, (task, _) in resolve(tasks).items() for metric in task.headline]


def apart_in_a_sweep(*configs: Config) -> None:
    """A run that an agent of a W&B sweep starts gets a folder of its own, named by the run's id.

    ValueError for several runs: the agent has one id, and their figures would go into one run.
    """
    if in_a_sweep():
        _, *runs = configs
        if len(runs) > 1:
            raise ValueError(f"runs: a sweep's agent starts one run, this configuration has {len(runs)}; give it one")
        for config in configs:
            config.output_dir = str(Path(config.output_dir) / os.environ["WANDB_RUN_ID"])


def check_figure(config: Config) -> None:
    """Refuse a figure in train.keep_best that metrics.jsonl would not have."""
    wanted, loss = config.train.keep_best, config.loss
    known = {"hidden": loss.hidden_weight > 0, "kd_plain": config.train.log_plain and loss.kd_weight > 0}
    always = ("loss", "kd", "lm", "grad_norm", "lr", "num_tokens")
    known |= dict.fromkeys([*always, *figures_of(config.eval.during)], True)
    if wanted is not None and not known.get(wanted):
        there = ", ".join(name for name, is_there in known.items() if is_there)
        raise ValueError(f"train.keep_best: metrics.jsonl will have no {wanted!r}; it will have {there}")


def check_evaluation(whole: Config, runs: Sequence[str]) -> None:
    """Refuse mistakes in eval.*, tracking.* and hub.* before hours of training."""
    check_sink(whole.tracking.to, whole.tracking.mode)
    publish.check_push(whole.hub.repo, runs)
    if whole.eval.tasks or whole.eval.every:
        from eval.run import check

        if whole.data.source == "sample":
            write_sample(Path(whole.output_dir) / "sample")
        if whole.eval.tasks:
            check(whole.eval.tasks, data_dir=_evaluation_data(whole), seed=whole.seed)
        make_probe(whole)


def _evaluation_data(whole: Config) -> str | Path | None:
    return whole.eval.data_dir or (Path(whole.output_dir) / "sample" if whole.data.source == "sample" else None)


def evaluate(whole: Config, runs: dict[str, Config]) -> dict[str, Any]:
    """Measure every model of the command with the same tasks; differences are from the run `plain`, if there is one."""
    from eval.run import evaluate

    output = Path(whole.output_dir)
    found = {name or "student": str(output / name / "model") for name in runs}
    if list(runs) == [""] and runs[""].teacher.model:
        found = {"teacher": runs[""].teacher.model} | found
    return evaluate(
        whole.eval.models | found,
        whole.eval.tasks,
        data_dir=_evaluation_data(whole),
        output_dir=output,
        seed=whole.seed,
        reference="plain" if "plain" in runs else None,
        batch_size=whole.eval.batch_size,
        trust_remote_code=any(config.teacher.trust_remote_code for config in runs.values()),
    )


def publish_all(whole: Config, runs: dict[str, Config], results: dict[str, Any]) -> None:
    """A card for each trained model; to Weights & Biases and the Hub what settings ask for."""
    from eval.report.card import write_card
    from eval.report.table import headlines

    output, rows = Path(whole.output_dir), results["rows"]
    folders = {name or "student": name for name in runs}
    for label, name in folders.items():
        settings, facts = (
            schema.to_dict(runs[name]),
            json.loads((output / name / "run.json").read_text(encoding="utf-8")),
        )
        title = f"{output.name}-{label}"
        given = {"model": label, "title": title, "settings": settings, "facts": facts}
        write_card(output / name / "model", rows, versions=results["versions"], **given)
    if whole.tracking.to == "wandb":
        sets = (
            {label: _pair_set(runs[name], name) for label, name in folders.items()}
            if whole.tracking.artifacts
            else None
        )
        publish.to_wandb(rows, headlines(rows), output, folders, pair_sets=sets, **_wandb_options(whole, ""))
    if whole.hub.repo:
        for label, name in folders.items():
            repo = whole.hub.repo.replace("{run}", label)
            print(f"pushed   {publish.push(output / name / 'model', repo, private=whole.hub.private)}", flush=True)


def _pair_set(config: Config, name: str) -> Path:
    output = Path(config.output_dir)
    folder = Path(config.data.pairs_dir or output / "pairs")
    if (folder / "meta.json").exists():
        return folder
    fingerprint = json.loads((output / name / "inputs.json").read_text(encoding="utf-8"))["corpus"]
    return folder / f"pairs-{fingerprint[:16]}"
