"""Command line of the distillation core: `python -m debias cache|dashboard --config FILE.yaml [key.sub=value …]`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from configs import build, schema
from configs.schema import Config
from counterfactuals.tokens.pairs import PairSet
from debias import models
from debias.dashboard import save, workspace
from debias.guard import in_plain_words


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_intermixed_args(argv)
    try:
        COMMANDS[arguments.command](arguments)
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        print("\n".join(f"error: {line}" for line in in_plain_words(error).splitlines()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; run again to go on", file=sys.stderr)
        return 130
    return 0


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="python -m debias",
        description="cache: run a teacher once over the texts and counterfactuals of a configuration and store its "
        "predictions in teacher.cache. Any op, number of epochs, students and seeds then train without the teacher. A "
        "killed build goes on; damaged files are made anew. dashboard: make a workspace of Weights & Biases for the "
        "figures of a configuration's runs.",
        epilog="example: python -m debias cache --config configs/ablation.yaml",
    )
    found.add_argument("command", choices=list(COMMANDS))
    found.add_argument("--config", metavar="FILE.yaml", help="as for train_distill.py")
    found.add_argument("--out", metavar="FILE.json", type=Path, help="dashboard: write it here, not to the server")
    found.add_argument("override", nargs="*", metavar="key.sub=value", help="settings that win over the file")
    return found


def cache_all(arguments: argparse.Namespace) -> None:
    runs = schema.load(arguments.config, arguments.override)[1]
    cached = [c for c in runs.values() if c.teacher.cache and c.teacher.model and c.loss.kd_weight]
    if not cached:
        raise ValueError("teacher.cache: no run sets it and learns from a teacher; name a folder: teacher.cache=DIR")
    done: set[str] = set()
    for config in cached:
        store(config, done)


def make_dashboard(arguments: argparse.Namespace) -> None:
    whole = schema.load(arguments.config, arguments.override)[0]
    entity = whole.tracking.entity
    if entity is None and arguments.out is None:
        raise ValueError(
            "tracking.entity: a dashboard needs the user or team it is for; or write it with --out FILE.json"
        )
    names = [build.figures_of(tasks) for tasks in (whole.eval.during, whole.eval.tasks)]
    made = workspace(project=whole.tracking.project, entity=entity or "", during=names[0], results=names[1])
    print(save(made, arguments.out))


def store(config: Config, done: set[str]) -> None:
    """Make one run's cache, unless an earlier run of the command has made the same."""
    corpus = build.corpus_of(config)
    tokenizer = build.make_tokenizer(config, corpus)
    models.check_size("teacher.model", build.load_teacher(config, hollow=True), tokenizer, config.data.max_length)
    pairs = build.make_pairs(config, corpus, build.make_reverser(config), tokenizer)
    if not isinstance(pairs, PairSet):
        raise ValueError("data.streaming: a stream is no pair set whose predictions can be stored; set it to false")
    key = f"{build.cache_folder(config)}: {build.cache_parts(config, pairs)}"
    if key in done:
        return
    done.add(key)
    torch.set_num_threads(config.train.cpu_threads or len(os.sched_getaffinity(0)))
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
