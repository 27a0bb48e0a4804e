"""Command line of the distillation core: `evenhand cache|dashboard`, or `python -m debias cache|dashboard`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from configs import build, study
from configs.load import load
from configs.schema import Config
from counterfactuals.tokens.pairs import PairSet
from debias import models
from debias.run.command import run_command
from debias.run.dashboard import save, workspace
from debias.run.launch import num_cores


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_intermixed_args(argv)
    return run_command(lambda: COMMANDS[arguments.command](arguments))


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="evenhand",
        description="cache: run a teacher once over the texts and counterfactuals of a configuration, and store its "
        "predictions in teacher.cache. Training then does not run the teacher, whatever the op, number of epochs, "
        "student or seed. A killed build resumes; damaged files are made again. dashboard: make a workspace of Weights "
        "& Biases for the figures of a configuration's runs.",
        epilog="example: evenhand cache --config configs/ablation.yaml",
    )
    found.add_argument("command", choices=list(COMMANDS))
    found.add_argument("--config", metavar="FILE.yaml", help="as for evenhand train")
    found.add_argument("--output_dir", metavar="DIR", help="the same as output_dir=DIR")
    found.add_argument("--output", metavar="FILE.json", type=Path, help="dashboard: write it here, not to the server")
    found.add_argument("override", nargs="*", metavar="key.sub=value", help="settings that win over the file")
    return found


def read(arguments: argparse.Namespace) -> tuple[Config, dict[str, Config]]:
    given = [f"output_dir={arguments.output_dir}"] if arguments.output_dir else []
    return load(arguments.config, [*arguments.override, *given])


def cache_all(arguments: argparse.Namespace) -> None:
    """Make the caches of all runs; several runs may share one."""
    cached = [c for c in read(arguments)[1].values() if c.teacher.cache and c.teacher.model and c.loss.kd_weight]
    cached = [c for c in cached if not c.federated.rounds]  # there each client makes its own
    if not cached:
        raise ValueError("teacher.cache: no run sets it and learns from a teacher; name a folder: teacher.cache=DIR")
    done: set[str] = set()
    for config in cached:
        make_cache(config, done)


def make_dashboard(arguments: argparse.Namespace) -> None:
    whole, _ = read(arguments)
    entity = whole.tracking.entity
    if entity is None and arguments.output is None:
        raise ValueError(
            "tracking.entity: a dashboard needs the user or team it is for; or write it with --output FILE.json"
        )
    during, results = (study.figures_of(tasks) for tasks in (whole.eval.during, whole.eval.tasks))
    made = workspace(project=whole.tracking.project, entity=entity or "", during=during, results=results)
    print(save(made, arguments.output))


def make_cache(config: Config, done: set[str]) -> None:
    """Make one run's cache, unless an earlier run of the command has made the same."""
    corpus = build.corpus_of(config)
    tokenizer = build.tokenizer_of(config, corpus)
    models.check_size("teacher.model", build.teacher_of(config, meta=True), tokenizer, config.data.max_length)
    pairs = build.pairs_of(config, corpus, build.reverser_of(config), tokenizer)
    if not isinstance(pairs, PairSet):
        raise ValueError("data.streaming: the predictions on a stream cannot be stored; set it to false")
    key = f"{build.cache_folder(config)}: {build.cache_parts(config, pairs)}"
    if key in done:
        return
    done.add(key)
    torch.set_num_threads(config.train.cpu_threads or num_cores())
    device = "cuda" if torch.cuda.is_available() else "cpu"
    cache = build.store_teacher(config, pairs, device, config.train.precision or "no")
    facts = cache.meta
    print(
        f"{cache.folder}: {facts['rows']:,} predictions of {facts['row_bytes']} bytes "
        f"({facts['top_k']} tokens, {facts['sketch']} coordinates)"
    )


COMMANDS = {"cache": cache_all, "dashboard": make_dashboard}

if __name__ == "__main__":
    sys.exit(main())
