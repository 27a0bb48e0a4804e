"""Distil a language model without distilling its gender bias: read config, build, one loop, save, evaluate, report.

accelerate launch train_distill.py --config configs/quickstart.yaml [key.sub=value …]
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import torch
from transformers.utils.logging import disable_progress_bar

from configs import build, schema
from configs.plan import describe
from configs.schema import Config
from counterfactuals.files import write_whole
from counterfactuals.tokens.batch import collate
from debias import checkpoint, shards
from debias.guard import NonFinite, StopRequest, in_plain_words, is_finite
from debias.launch import any_rank, load_whole_again, make_accelerator, seed_step
from debias.optim import lr_share
from debias.tracking import Tracker, write_facts


def main(argv: list[str] | None = None) -> int:
    disable_progress_bar()  # transformers' bars for loading weights; ours is the run's
    try:
        arguments = parse(argv)
        if arguments.settings is not None:
            print(schema.describe(arguments.settings))
            return 0
        whole, runs = schema.load(arguments.config, arguments.override)
        build.apart_in_a_sweep(whole, *runs.values())
        if arguments.print_config:
            print(schema.to_yaml(whole), end="")
            return 0
        for config in runs.values():
            build.make_reverser(config)  # a mistake in counterfactual.* ends here, not after models are loaded
            build.check_figure(config)
        build.check_evaluation(whole, list(runs))
        if arguments.dry_run or arguments.plan:
            print(describe(whole, runs, arguments.plan))
            return 0
        for name, config in runs.items():
            if not train(config, name, Path(whole.output_dir) / name, allow_changes=arguments.allow_changes):
                return 0  # asked to stop
        if whole.eval.tasks and int(os.environ.get("RANK", "0")) == 0:
            report(whole, runs)
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        print("\n".join(f"error: {line}" for line in in_plain_words(error).splitlines()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130
    return 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="exit codes: 0 done or stopped on request, 2 a mistake (one line says which), 130 interrupted",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", metavar="FILE.yaml", help="settings of the run; see configs/")
    parser.add_argument("--settings", nargs="?", const="", metavar="SECTION", help="list every setting, or a section's")
    parser.add_argument("--print_config", action="store_true", help="print the resolved settings and stop")
    parser.add_argument(
        "--dry_run", action="store_true", help="check everything, train nothing, print what it would cost"
    )
    parser.add_argument("--plan", metavar="GPU[:PRICE]", help="the same, with the hours on 1, 8 and 64 of these GPUs")
    parser.add_argument("--allow_changes", action="store_true", help="go on with a run though settings have changed")
    parser.add_argument("override", nargs="*", metavar="key.sub=value", help="settings that win over the file")
    return parser.parse_intermixed_args(argv)


def train(config: Config, name: str, folder: Path, *, allow_changes: bool = False) -> bool:
    """Train one model into `folder`; goes on where a killed run stopped, and does nothing if it is complete.

    Returns whether the model is complete; False: a signal asked for a stop.
    """
    if build.already_done(config, folder, allow_changes=allow_changes):
        print(f"{name or 'model'}: complete in {folder}", flush=True)
        return True
    # models are loaded before Accelerator exists, else DeepSpeed ZeRO-3 would partition them
    corpus = build.corpus_of(config)
    tokenizer, teacher, student = build.make_models(config, corpus)
    t = config.train
    accelerator = make_accelerator(
        batch_size=t.batch_size, micro_batch_size=t.micro_batch_size, precision=t.precision, cpu_threads=t.cpu_threads
    )
    world, accumulation = accelerator.num_processes, accelerator.gradient_accumulation_steps
    reverser = build.make_reverser(config)
    with accelerator.main_process_first():
        pairs = build.make_pairs(config, corpus, reverser, tokenizer, accelerator)
    cache = build.make_cache(config, pairs, accelerator)
    plan, total = build.make_plan(config, pairs)
    parameters = student.num_parameters()  # ZeRO-3 leaves none of them whole

    task, optimizer = build.make_task(config, reverser, tokenizer, teacher, student, accelerator, cache)
    folder.mkdir(parents=True, exist_ok=True)
    if accelerator.is_main_process:
        checkpoint.same_inputs(folder / "inputs.json", build.made_from(config) | {"corpus": pairs.meta["fingerprint"]})
    saved = checkpoint.restore(accelerator, task, optimizer, folder / "checkpoints", allow_changes=allow_changes)
    plan.seek(saved)
    first, rank, on_main = saved["step"], accelerator.process_index, accelerator.is_main_process
    if first > total:
        raise ValueError(f"{folder}: has {first} steps behind it, of {total}; raise train.max_steps")
    if on_main:
        write_whole(folder / "config.yaml", schema.to_yaml(config))
    bad = NonFinite(folder / "bad_batches", policy=t.on_nan, max_skips=t.max_skips, skipped=saved.get("skipped", 0))
    form, ask = build.collate_options(config, tokenizer), any_rank(world)

    probe = build.make_probe(config)
    sinks = build.make_sinks(config, name, folder, step=first) if on_main else []
    metrics, label, watching = folder / "metrics.jsonl", name or "student", config.tracking.watching
    tracker = Tracker(metrics, label, total, step=first, on=on_main, watching=watching, sinks=sinks)
    since_save: list[float] = []
    with tracker, StopRequest() as stop:
        for step in range(first, total):
            task.train()
            seed_step(config.seed, step, rank)
            # of the whole batch, over accumulation and ranks
            num_tokens = pairs.predictions(plan.batch(step), augment=config.counterfactual.augment)
            for group in optimizer.param_groups:
                group["lr"] = config.optim.lr * lr_share(step, total, config.optim.warmup, config.optim.schedule)
            sums: dict[str, torch.Tensor] = {}
            compare = t.log_plain and due(step, t.log_every, total)
            chosen = plan.micro_batches(step, accumulation=accumulation, rank=rank, world=world)
            for indices in chosen:
                batch = collate([pairs[i] for i in indices], **form)
                if cache is not None:
                    batch = cache.attach(batch, indices)
                with accelerator.accumulate(task):
                    loss, parts = task(batch.to(accelerator.device), progress=step / total, plain=compare)
                    # ranks and micro-batches are averaged by DDP and Accelerate; ours is a sum divided once
                    accelerator.backward(loss * (world * accumulation / num_tokens))
                    sums = {key: part + sums.get(key, 0) for key, part in parts.items()}
            # ---- optimizer step ----
            grad_norm = shards.whole(accelerator.clip_grad_norm_(task.parameters(), config.optim.max_grad_norm))
            finite = is_finite(sums, grad_norm, scaled=accelerator.mixed_precision == "fp16")
            broken, asked = ask(not finite, bool(stop.signal))
            if not broken or accelerator.scaler is not None:  # which leaves such steps out itself
                optimizer.step()
            optimizer.zero_grad()
            # ------------------------
            tracker.advance(num_tokens)
            figures: dict[str, float] = {}
            if broken:
                batches = (collate([pairs[i] for i in indices], **form) for indices in chosen)
                bad.handle(step, rank, batches, sums | {"grad_norm": grad_norm})
            elif due(step, t.log_every, total):
                means = (accelerator.reduce(torch.stack(list(sums.values())), "sum") / num_tokens).tolist()
                figures |= dict(zip(sums, means), grad_norm=float(grad_norm))
                figures |= {"lr": optimizer.param_groups[0]["lr"], "num_tokens": num_tokens}
            if due(step, config.eval.every, total) and on_main:
                student = accelerator.unwrap_model(task).student
                figures |= probe(student, tokenizer, batch_size=config.eval.batch_size)
            if figures:
                tracker.log(**figures)
                since_save += [figures[t.keep_best]] if t.keep_best in figures else []
            if (asked or due(step, t.save_every, total)) and step + 1 < total:
                state: dict[str, Any] = {"keep": t.keep_checkpoints, "skipped": bad.skipped}
                if plan.position:
                    state["stream"] = plan.position
                if since_save:
                    state["figure"] = sum(since_save) / len(since_save)
                    since_save.clear()
                checkpoint.save(accelerator, task, optimizer, tokenizer, folder / "checkpoints", step + 1, **state)
                if asked:
                    print(f"stopped after step {step + 1} of {total}; the same command goes on from there", flush=True)
                    return False

    checkpoint.export(accelerator, task, optimizer, tokenizer, folder / "model")
    size = pairs.size() | {"parameters": parameters}  # of a stream: by all ranks together
    if accelerator.is_main_process:
        here = {"steps_here": total - first, "tokens_here": tracker.tokens, "seconds_here": tracker.seconds}
        ran = {"ranks": world, "precision": accelerator.mixed_precision, "skipped": bad.skipped}
        ran["padding"] = plan.padding(world * accumulation)
        made = {"sha256": build.hashes(folder, pairs)}
        write_facts(folder / "run.json", steps=total, **here, **size, **ran, **made)
    accelerator.wait_for_everyone()
    accelerator.free_memory()
    load_whole_again()
    return True


def due(step: int, every: int, total: int) -> bool:
    return every > 0 and ((step + 1) % every == 0 or step + 1 == total)


def report(whole: Config, runs: dict[str, Config]) -> None:
    """Measure every model of the command; write results.json, tables and pictures."""
    from eval.report.page import Study, write_page
    from eval.report.seeds import over_training_seeds, write_ablation
    from eval.report.table import print_report, write_report

    results, output = build.evaluate(whole, runs), Path(whole.output_dir)
    shown = results
    if whole.seeds:  # of many runs, their means
        print(f"written to {write_ablation(results['rows'], output)}", flush=True)
        shown = results | {"rows": over_training_seeds(results["rows"])}
    write_report(shown, output)
    title = output.name.replace("_", " ").capitalize()
    write_page([Study(output.name, output, shown)], output / "report.html", title=title)
    build.publish_all(whole, runs, results)
    print_report(shown["rows"])
    print(f"written to {whole.output_dir}: report.html, report.md, results.json", flush=True)


if __name__ == "__main__":
    sys.exit(main())
