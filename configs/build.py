"""Settings → what a run is made of, and whether it is done. Read by the recipe only; components know no settings."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import set_seed

from configs import schema
from configs.schema import Config
from counterfactuals.batch import BatchPlan
from counterfactuals.corpus import Corpus
from counterfactuals.lexicon import load_lexicon
from counterfactuals.pairs import PairSet, build_pairs
from counterfactuals.provenance import model_fingerprint
from counterfactuals.reverse import Reverser
from counterfactuals.sample import write_sample
from counterfactuals.tokenizer import load_tokenizer, train_bpe
from counterfactuals.vocabulary import role_tokens
from debias import checkpoint, models
from debias.ops import VocabularyRoles
from debias.optim import build_optimizer, configure_deepspeed
from debias.task import DistillTask


def already_done(config: Config, folder: Path) -> bool:
    """Whether `folder` holds this very run, complete. ValueError if it holds a run of other settings."""
    if not (folder / "config.yaml").exists():
        return False
    changed = schema.differences(folder / "config.yaml", config)
    if changed:
        raise ValueError(
            f"{folder}: holds a run with other settings ({'; '.join(changed)}); "
            "choose another output_dir, or delete the folder"
        )
    if not (folder / "run.json").exists():
        return False
    checkpoint.same_inputs(folder / "inputs.json", made_from(config))
    return True


def made_from(config: Config) -> dict[str, str]:
    named = {"teacher.model": config.teacher.model, "student.model": config.student.model}
    return {key: model_fingerprint(path_of(config, model)) for key, model in named.items() if model}


def path_of(config: Config, model: str) -> str:
    return str(Path(config.output_dir) / model[4:] / "model") if model.startswith("run:") else model


def corpus_of(config: Config) -> Corpus:
    data = config.data
    source = data.source
    if source == "sample":
        source = str(write_sample(Path(config.output_dir) / "sample") / "train.jsonl")
    return Corpus(source, subset=data.subset, split=data.split, text_field=data.text_field, max_texts=data.max_texts)


def make_models(config: Config, corpus: Corpus) -> tuple[Any, Any, Any]:
    """Tokenizer, teacher (or None) and student, checked against each other."""
    set_seed(config.seed)
    teacher: Any = None
    student: Any = None
    tokenizer: Any = None
    if config.teacher.model:
        options: dict[str, Any] = {"setting": "teacher.model", "trust_remote_code": config.teacher.trust_remote_code}
        teacher = models.load_model(path_of(config, config.teacher.model), dtype=config.teacher.dtype, **options)
        tokenizer = load_tokenizer(path_of(config, config.teacher.model), **options)
    if config.student.model:
        student = models.load_model(path_of(config, config.student.model), setting="student.model")
        own = load_tokenizer(path_of(config, config.student.model), setting="student.model")
        if tokenizer is not None:
            models.same_vocabulary(tokenizer, own, this="teacher.model", that="student.model")
        tokenizer = own
    if config.tokenizer.name:
        own = load_tokenizer(config.tokenizer.name, setting="tokenizer.name")
        if tokenizer is not None:
            models.same_vocabulary(tokenizer, own, this="the model", that="tokenizer.name")
        tokenizer = own
    if config.tokenizer.train_vocab_size:
        tokenizer = train_bpe(corpus, config.tokenizer.train_vocab_size)
    if config.student.init == "layers":
        assert teacher is not None
        keep = models.kept_layers(config.student.layers, models.num_layers(teacher))
        student = models.student_from_layers(teacher, keep)
    elif config.student.init == "random":
        student = models.random_student(config.student.config, tokenizer, config.data.max_length)
    models.check_sizes(student, teacher, tokenizer, config.data.max_length)
    models.set_dropout(student, config.student.dropout)
    if config.train.gradient_checkpointing:
        student.gradient_checkpointing_enable({"use_reentrant": False})
    return tokenizer, teacher, student


def make_reverser(config: Config) -> Reverser:
    c = config.counterfactual
    return Reverser(load_lexicon(c.lexicon), c.direction, c.policy, tuple(c.protected), c.seed)


def make_pairs(config: Config, corpus: Corpus, reverser: Reverser, tokenizer: Any) -> PairSet:
    return build_pairs(
        corpus,
        reverser,
        tokenizer,
        config.data.pairs_dir or Path(config.output_dir) / "pairs",
        max_length=config.data.max_length,
        workers=config.data.workers,
        progress=lambda progress: print(f"pairs    {progress}", flush=True),
    )


def make_plan(config: Config, pairs: PairSet) -> tuple[BatchPlan, int]:
    """Which pairs are in which step, and the number of steps."""
    sequences = 1 + pairs.has_cf * config.counterfactual.augment
    plan = BatchPlan(pairs.lengths, sequences, batch_size=config.train.batch_size, seed=config.seed)
    return plan, config.train.max_steps or math.ceil(plan.steps_per_epoch * (config.train.epochs or 1))


def collate_options(config: Config, tokenizer: Any) -> dict[str, Any]:
    c = config.counterfactual
    options = {"op": config.loss.op, "vocabulary": config.loss.vocabulary, "pad_id": tokenizer.eos_token_id or 0}
    return options | {"augment": c.augment, "perturb": c.perturb, "stop_at_cue": c.stop_at_cue}


def make_task(
    config: Config, reverser: Reverser, tokenizer: Any, teacher: Any, student: Any, accelerator: Accelerator
) -> tuple[Any, Any]:
    """The task and its optimizer, prepared for the processes and the precision of `accelerator`."""
    roles = None
    if config.loss.vocabulary == "reversed":
        size = student.get_output_embeddings().weight.shape[0]
        roles = VocabularyRoles.build(role_tokens(reverser, tokenizer, size), accelerator.device)
    if teacher is not None:
        teacher = teacher.to(accelerator.device)
    options = {key: value for key, value in vars(config.loss).items() if key != "vocabulary"}
    task = DistillTask(student, teacher, roles=roles, **options)
    o = config.optim
    optimizer = build_optimizer(task, lr=o.lr, betas=o.betas, eps=o.eps, weight_decay=o.weight_decay)
    configure_deepspeed(
        accelerator, micro_batch_size=config.train.micro_batch_size, max_grad_norm=config.optim.max_grad_norm
    )
    return accelerator.prepare(task, optimizer)


def check_evaluation(whole: Config) -> None:
    """Refuse mistakes in eval.* before hours of training."""
    if whole.eval.tasks:
        from eval.run import check

        if whole.data.source == "sample":
            write_sample(Path(whole.output_dir) / "sample")
        check(whole.eval.tasks, data_dir=_evaluation_data(whole), seed=whole.seed)


def _evaluation_data(whole: Config) -> str | Path | None:
    return whole.eval.data_dir or (Path(whole.output_dir) / "sample" if whole.data.source == "sample" else None)


def evaluate(whole: Config, runs: dict[str, Config]) -> dict[str, Any]:
    """Measure every model of the command with the same tasks."""
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
        batch_size=whole.eval.batch_size,
        trust_remote_code=any(config.teacher.trust_remote_code for config in runs.values()),
    )
