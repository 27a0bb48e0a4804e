"""Distil a language model without distilling its gender bias: read config, build, one loop, save, evaluate, report.

accelerate launch train_distill.py --config configs/quickstart.yaml [key.sub=value …]
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers.utils.logging import disable_progress_bar

from configs import build, federation, plan, schema, selfwritten, study
from configs.build import Run
from configs.load import load
from debias.run import checkpoint, shards
from debias.run.command import run_command
from debias.run.guard import StopRequest, is_finite
from debias.run.launch import any_rank, load_whole_again, seed_step
from debias.run.tracking import write_facts


def main(argv: Sequence[str] | None = None) -> int:
    disable_progress_bar()  # transformers' bars while weights are loaded; ours shows the run
    return run_command(lambda: command(parse(argv)))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="evenhand train",
        description=__doc__,
        epilog="exit codes: 0 done or stopped on request, 2 a mistake (one line says which), 130 interrupted",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", metavar="FILE.yaml", help="settings of the run; see configs/")
    parser.add_argument("--output_dir", metavar="DIR", help="the same as output_dir=DIR")
    parser.add_argument("--seed", metavar="N", help="the same as seed=N")
    parser.add_argument("--runs", metavar="NAME,…", help="only these of its runs, in the order of the file")
    parser.add_argument("--settings", nargs="?", const="", metavar="SECTION", help="list every setting, or a section's")
    parser.add_argument("--print_config", action="store_true", help="print the resolved settings and stop")
    parser.add_argument("--dry_run", action="store_true", help="check everything, print what it would cost, and stop")
    parser.add_argument("--plan", metavar="GPU[:PRICE]", help="the same, with the hours on 1, 8 and 64 of these GPUs")
    parser.add_argument("--minutes", type=float, metavar="N", help="source self: write and train for about so long")
    tokens = "source self: train on about so many; data.choose_from times as many are written"
    parser.add_argument("--tokens", type=int, metavar="N", help=tokens)
    parser.add_argument("--allow_changes", action="store_true", help="resume a run although settings have changed")
    parser.add_argument("override", nargs="*", metavar="key.sub=value", help="settings that win over the file")
    return parser.parse_intermixed_args(argv)


def command(arguments: argparse.Namespace) -> None:
    """Do what the command line asks for: list, print, estimate, or train and evaluate every run."""
    if arguments.settings is not None:
        print(schema.describe(arguments.settings))
        return
    flags = {"output_dir": arguments.output_dir, "seed": arguments.seed}
    given = [f"{key}={value}" for key, value in flags.items() if value is not None]
    whole, runs = load(arguments.config, [*arguments.override, *given])
    if arguments.runs is not None:
        runs = study.select_runs(runs, arguments.runs.split(","))
    study.folder_in_a_sweep(whole, *runs.values())
    if not arguments.print_config:
        study.check(whole, runs)
    if arguments.minutes is not None or arguments.tokens is not None:
        selfwritten.set_num_texts(whole, runs, minutes=arguments.minutes, tokens=arguments.tokens)
    if arguments.print_config:
        print(schema.to_yaml(whole), end="")
        return
    if arguments.dry_run or arguments.plan is not None:
        print(plan.describe(whole, runs, arguments.plan))
        return
    for name, config in runs.items():
        folder = Path(whole.output_dir) / name
        done = study.is_complete(config, folder, allow_changes=arguments.allow_changes)
        if done:
            print(f"{name or 'model'}: complete in {folder}", flush=True)
        elif config.federated.rounds:
            done = federation.train(config, name, folder, allow_changes=arguments.allow_changes)
        else:
            done = train(build.make_run(config, name, folder, allow_changes=arguments.allow_changes))
        if not done:
            return  # asked to stop
    if whole.eval.tasks and int(os.environ.get("RANK", "0")) == 0:
        study.report(whole, runs)


def train(run: Run) -> bool:
    """Train a model to its last step and export it; False if a signal asked for a stop before that."""
    task, optimizer, plan, accelerator = run.task, run.optimizer, run.plan, run.accelerator
    rank, world = accelerator.process_index, accelerator.num_processes
    accumulation = accelerator.gradient_accumulation_steps
    share = {"accumulation": accumulation, "rank": rank, "world": world}
    on_any_rank = any_rank(world)
    since_save: list[float] = []  # of the figure that train.keep_best names
    with run.tracker as tracker, StopRequest() as stop:
        for step in range(run.first, plan.steps):
            task.train()
            seed_step(plan.seed, step, rank)
            num_tokens = run.data.num_tokens(step)  # of the whole batch, over accumulation and ranks
            for group in optimizer.param_groups:
                group["lr"] = plan.lr_at(step)
            sums: dict[str, torch.Tensor] = {}
            log_plain = plan.log_plain and plan.due(step, plan.log_every)
            for batch in run.data.micro_batches(step, **share):
                with accelerator.accumulate(task):
                    loss, parts = task(batch.to(accelerator.device), progress=step / plan.steps, plain=log_plain)
                    if run.private is not None:
                        run.private.backward(loss)
                    else:  # DDP and Accelerate average over ranks and micro-batches; ours is a sum, divided once
                        accelerator.backward(loss * (world * accumulation / num_tokens))
                    sums = {key: part + sums.get(key, 0) for key, part in parts.items()}
            # ---- optimizer step ----
            if run.private is not None:
                grad_norm = run.private.release(step)
            else:
                grad_norm = shards.whole(accelerator.clip_grad_norm_(task.parameters(), plan.max_grad_norm))
            finite = is_finite(sums, grad_norm, scaled=accelerator.mixed_precision == "fp16")
            broken, asked = on_any_rank(not finite, stop.asked)
            if not broken or accelerator.scaler is not None:  # the scaler skips such steps itself
                optimizer.step()
            optimizer.zero_grad()
            # ------------------------
            tracker.advance(num_tokens)
            figures: dict[str, float] = {}
            if broken:
                batches = run.data.micro_batches(step, **share)
                run.non_finite.handle(step, rank, batches, sums | {"grad_norm": grad_norm})
            elif plan.due(step, plan.log_every):
                means = (accelerator.reduce(torch.stack(list(sums.values())), "sum") / num_tokens).tolist()
                figures |= dict(zip(sums, means), grad_norm=float(grad_norm))
                figures |= {"lr": optimizer.param_groups[0]["lr"], "num_tokens": num_tokens}
            if plan.due(step, plan.eval_every) and accelerator.is_main_process:
                figures |= run.probe(accelerator.unwrap_model(task).student)
            if figures:
                tracker.log(**figures)
                since_save += [figures[plan.keep_best]] if plan.keep_best in figures else []
            if (asked or plan.due(step, plan.save_every)) and step + 1 < plan.steps:
                save(run, step + 1, since_save)
                since_save.clear()
                if asked:
                    print(f"stopped after step {step + 1} of {plan.steps}; the same command resumes there", flush=True)
                    return False
    finish(run)
    return True


def save(run: Run, step: int, since_save: list[float]) -> None:
    """Save a checkpoint after `step` steps. since_save: the figure of train.keep_best since the last one."""
    facts: dict[str, Any] = {"keep": run.plan.keep_checkpoints, "skipped": run.non_finite.skipped}
    if run.private is not None:
        facts |= run.private.state()
    if run.data.plan.position:
        facts["stream"] = run.data.plan.position
    if since_save:
        facts["figure"] = sum(since_save) / len(since_save)
    folder = run.folder / "checkpoints"
    checkpoint.save(run.accelerator, run.task, run.optimizer, run.models.tokenizer, folder, step, **facts)


def finish(run: Run) -> None:
    """Export the model, and write run.json: what the run did, with what, and that it is complete."""
    accelerator, tracker = run.accelerator, run.tracker
    checkpoint.export(accelerator, run.task, run.optimizer, run.models.tokenizer, run.folder / "model")
    size = run.data.pairs.size() | {"parameters": run.models.num_parameters}  # a stream counts over all ranks together
    if accelerator.is_main_process:
        ranks, parts = accelerator.num_processes, accelerator.num_processes * accelerator.gradient_accumulation_steps
        ran = {"ranks": ranks, "precision": accelerator.mixed_precision, "skipped": run.non_finite.skipped}
        ran["pair_set"] = str(run.data.pairs.folder) if run.data.pairs.folder else None
        ran["padding"] = run.data.plan.padding(parts)
        here = {
            "steps_here": run.plan.steps - run.first,
            "tokens_here": tracker.tokens,
            "seconds_here": tracker.seconds,
        }
        write_facts(
            run.folder / "run.json", steps=run.plan.steps, **here, **size, **ran, **run.facts, sha256=run.hashes()
        )
    accelerator.wait_for_everyone()
    accelerator.free_memory()
    load_whole_again()


if __name__ == "__main__":
    sys.exit(main())
