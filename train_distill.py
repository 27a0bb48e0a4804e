"""Distil a language model without distilling its gender bias: read config, build, one loop, save, evaluate, report.

accelerate launch train_distill.py --config configs/quickstart.yaml [key.sub=value …]
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from transformers.utils.logging import disable_progress_bar

from configs import schema
from configs.schema import Config
from counterfactuals.batch import BatchPlan, collate
from counterfactuals.corpus import Corpus
from counterfactuals.files import write_whole
from counterfactuals.lexicon import load_lexicon
from counterfactuals.pairs import PairSet, build_pairs
from counterfactuals.provenance import model_fingerprint
from counterfactuals.reverse import Reverser
from counterfactuals.sample import write_sample
from counterfactuals.tokenizer import load_tokenizer, train_bpe
from counterfactuals.vocabulary import role_tokens
from debias import checkpoint, models
from debias.launch import make_accelerator
from debias.ops import VocabularyRoles
from debias.optim import build_optimizer, configure_deepspeed, lr_share
from debias.task import DistillTask
from debias.tracking import Tracker, write_facts


def main(argv: list[str] | None = None) -> int:
    disable_progress_bar()  # transformers' bars for loading weights; ours is the run's
    try:
        arguments = parse(argv)
        whole, runs = schema.load(arguments.config, arguments.override)
        if arguments.print_config:
            print(schema.to_yaml(whole), end="")
            return 0
        for config in runs.values():
            make_reverser(config)  # a mistake in counterfactual.* ends here, not after models are loaded
        check_evaluation(whole)
        for name, config in runs.items():
            train(config, name, Path(whole.output_dir) / name)
        if int(os.environ.get("RANK", "0")) == 0:
            report(whole, runs)
    except (ValueError, OSError) as error:
        print("\n".join(f"error: {line}" for line in str(error).splitlines()), file=sys.stderr)
        return 2
    return 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="settings (key, default, meaning):\n" + schema.describe(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", metavar="FILE.yaml", help="settings of the run; see configs/")
    parser.add_argument("--print_config", action="store_true", help="print the resolved settings and stop")
    parser.add_argument("override", nargs="*", metavar="key.sub=value", help="settings that win over the file")
    return parser.parse_intermixed_args(argv)


def train(config: Config, name: str, folder: Path) -> None:
    """Train one model into `folder`; goes on where a killed run stopped, and does nothing if it is complete."""
    if already_done(config, folder):
        print(f"{name or 'model'}: complete in {folder}", flush=True)
        return
    # the teacher is loaded before Accelerator exists, else DeepSpeed ZeRO-3 would partition it
    source, tokenizer, teacher, student = build_models(config, folder)
    t = config.train
    accelerator = make_accelerator(
        batch_size=t.batch_size, micro_batch_size=t.micro_batch_size, precision=t.precision, cpu_threads=t.cpu_threads
    )
    world, accumulation = accelerator.num_processes, accelerator.gradient_accumulation_steps
    set_seed(config.seed + accelerator.process_index)  # dropout differs between ranks; weights are drawn before

    reverser = make_reverser(config)
    with accelerator.main_process_first():
        pairs = prepare_pairs(config, source, reverser, tokenizer)
    augment = config.counterfactual.augment
    sequences = 1 + pairs.has_cf * augment
    plan = BatchPlan(pairs.lengths, sequences, batch_size=config.train.batch_size, seed=config.seed)
    total = config.train.max_steps or math.ceil(plan.steps_per_epoch * (config.train.epochs or 1))
    predictions = pairs.lengths - 1 + (pairs.cf_lengths - 1) * pairs.has_cf * augment

    task, optimizer = build_task(config, reverser, tokenizer, teacher, student, accelerator)
    folder.mkdir(parents=True, exist_ok=True)
    if accelerator.is_main_process:
        checkpoint.same_inputs(folder / "inputs.json", made_from(config) | {"corpus": pairs.meta["fingerprint"]})
        write_whole(folder / "config.yaml", schema.to_yaml(config))
    first = checkpoint.restore(accelerator, folder / "checkpoints")
    rank, on_main, form = accelerator.process_index, accelerator.is_main_process, collate_options(config, tokenizer)

    with Tracker(folder / "metrics.jsonl", name or "student", total, step=first, on=on_main) as tracker:
        for step in range(first, total):
            task.train()
            num_tokens = int(predictions[plan.batch(step)].sum())  # of the whole batch, over accumulation and ranks
            for group in optimizer.param_groups:
                group["lr"] = config.optim.lr * lr_share(step, total, config.optim.warmup, config.optim.schedule)
            sums: dict[str, torch.Tensor] = {}
            for indices in plan.micro_batches(step, accumulation=accumulation, rank=rank, world=world):
                batch = collate([pairs[i] for i in indices], **form).to(accelerator.device)
                with accelerator.accumulate(task):
                    loss, parts = task(batch)
                    # ranks and micro-batches are averaged by DDP and Accelerate; ours is a sum divided once
                    accelerator.backward(loss * (world * accumulation / num_tokens))
                    sums = {key: part + sums.get(key, 0) for key, part in parts.items()}
                    # ---- optimizer step ----
                    if accelerator.sync_gradients:
                        grad_norm = accelerator.clip_grad_norm_(task.parameters(), config.optim.max_grad_norm)
                    optimizer.step()
                    optimizer.zero_grad()
                    # ------------------------
            tracker.advance(num_tokens)
            if due(step, config.train.log_every, total):
                means = (accelerator.reduce(torch.stack(list(sums.values())), "sum") / num_tokens).tolist()
                if not math.isfinite(means[0]):
                    raise ValueError(f"loss is {means[0]} at step {step + 1}: lower optim.lr, or train.precision no")
                figures = dict(zip(sums, means), grad_norm=float(grad_norm))
                tracker.log(**figures, lr=optimizer.param_groups[0]["lr"], num_tokens=num_tokens)
            if due(step, config.train.save_every, total) and step + 1 < total:
                checkpoint.save(accelerator, folder / "checkpoints", step + 1, keep=config.train.keep_checkpoints)

    checkpoint.export(accelerator, task, tokenizer, folder / "model")
    if accelerator.is_main_process:
        here = {"steps_here": total - first, "tokens_here": tracker.tokens, "seconds_here": tracker.seconds}
        size = {"pairs": len(pairs), "with_counterfactual": pairs.has_cf.mean(), "parameters": student.num_parameters()}
        ran = {"ranks": world, "precision": accelerator.mixed_precision}
        write_facts(folder / "run.json", steps=total, **here, **size, **ran)
    accelerator.wait_for_everyone()
    accelerator.free_memory()


def due(step: int, every: int, total: int) -> bool:
    return every > 0 and ((step + 1) % every == 0 or step + 1 == total)


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


def build_models(config: Config, folder: Path) -> tuple[str, Any, Any, Any]:
    """Corpus path or name, tokenizer, teacher (or None) and student, checked against each other."""
    set_seed(config.seed)
    source = config.data.source
    if source == "sample":
        source = str(write_sample(Path(config.output_dir) / "sample") / "train.jsonl")
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
        tokenizer = train_bpe(Corpus(source, **reading(config)), config.tokenizer.train_vocab_size)
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
    return source, tokenizer, teacher, student


def reading(config: Config) -> dict[str, Any]:
    data = config.data
    return {"subset": data.subset, "split": data.split, "text_field": data.text_field, "max_texts": data.max_texts}


def make_reverser(config: Config) -> Reverser:
    c = config.counterfactual
    return Reverser(load_lexicon(c.lexicon), c.direction, c.policy, tuple(c.protected), c.seed)


def prepare_pairs(config: Config, source: str, reverser: Reverser, tokenizer: Any) -> PairSet:
    return build_pairs(
        Corpus(source, **reading(config)),
        reverser,
        tokenizer,
        config.data.pairs_dir or Path(config.output_dir) / "pairs",
        max_length=config.data.max_length,
        workers=config.data.workers,
        progress=lambda progress: print(f"pairs    {progress}", flush=True),
    )


def collate_options(config: Config, tokenizer: Any) -> dict[str, Any]:
    c = config.counterfactual
    options = {"op": config.loss.op, "vocabulary": config.loss.vocabulary, "pad_id": tokenizer.eos_token_id or 0}
    return options | {"augment": c.augment, "perturb": c.perturb, "stop_at_cue": c.stop_at_cue}


def build_task(
    config: Config, reverser: Reverser, tokenizer: Any, teacher: Any, student: Any, accelerator: Accelerator
) -> tuple[Any, Any]:
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
        check(whole.eval.tasks, data_dir=evaluation_data(whole), seed=whole.seed)


def evaluation_data(whole: Config) -> str | Path | None:
    return whole.eval.data_dir or (Path(whole.output_dir) / "sample" if whole.data.source == "sample" else None)


def report(whole: Config, runs: dict[str, Config]) -> None:
    """Measure every model of the command with the same tasks; write results.json, tables and pictures."""
    if not whole.eval.tasks:
        return
    from eval.report import print_report, write_report
    from eval.run import evaluate

    output = Path(whole.output_dir)
    found = {name or "student": str(output / name / "model") for name in runs}
    if list(runs) == [""] and runs[""].teacher.model:
        found = {"teacher": runs[""].teacher.model} | found
    results = evaluate(
        whole.eval.models | found,
        whole.eval.tasks,
        data_dir=evaluation_data(whole),
        output_dir=output,
        seed=whole.seed,
        batch_size=whole.eval.batch_size,
        trust_remote_code=any(config.teacher.trust_remote_code for config in runs.values()),
    )
    write_report(results, output)
    print_report(results["rows"])
    print(f"written to {output}: results.json, report.md", flush=True)


if __name__ == "__main__":
    sys.exit(main())
