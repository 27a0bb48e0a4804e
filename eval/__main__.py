"""evenhand eval --model DIR_OR_NAME --tasks a,b --data_dir DIR --output_dir DIR: measure any causal language model."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
import textwrap
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from eval.task import suggest
from eval.tasks import TASKS, find_task

PRESETS = Path(__file__).with_name("presets.yaml")
_LOADING = ("device", "batch_size", "trust_remote_code", "start_token", "chat")
COMMANDS = {  # evenhand NAME: the module whose `main` does it
    "report": "eval.report.page",
    "correlate": "eval.report.correlate",
    "gate": "eval.audit.gate",
    "record": "eval.audit.record",
}


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(
        prog="evenhand eval",
        description="Measure disparity and utility of any causal language model. Writes OUTPUT_DIR/results.json, "
        "report.md and the scores of each row (rows-TASK.jsonl). evenhand report --help: a page that compares "
        "runs. evenhand correlate --help: how measures agree.",
    )
    add = out.add_argument
    add(
        "--model",
        action="append",
        default=[],
        metavar="[LABEL=]DIR_OR_NAME",
        help="a model folder, FILE.gguf, an adapter folder (peft) or a Hub name; repeat it to compare models",
    )
    add(
        "--tasks",
        default="",
        metavar="A,B",
        help="tasks, comma-separated; task@label runs it once more; lm_eval:NAME is one of lm-evaluation-harness; all: "
        "every task whose data is there",
    )
    add("--data_dir", type=Path, default=Path("data"), metavar="DIR", help="of the data (default data)")
    add("--output_dir", type=Path, default=Path("runs/eval"), metavar="DIR", help="default runs/eval")
    add("--set", action="append", default=[], metavar="TASK.OPTION=VALUE", help="an option of a task, see --list")
    add("--limit", type=int, metavar="N", help="at most N rows a task: a quick look, not a result")
    preset = "tasks and options: quick takes under 20 minutes for 135M parameters on two cores, full is for a GPU"
    add("--preset", choices=["quick", "full"], help=preset)
    add("--dry_run", action="store_true", help="show what each task will take")
    add("--seed", type=int, default=0, help="seed of sampling, prompt choice and bootstrap (default 0)")
    add(
        "--seeds",
        metavar="0,1,2",
        help="tasks that sample run once for each seed, and report mean and spread; instead of --seed",
    )
    add("--reference", metavar="LABEL", help="what the others are compared with (default: the first)")
    add("--hub", action="store_true", help="take data that --data_dir lacks from the Hub, and store it there")
    add(
        "--cache_dir",
        type=Path,
        metavar="DIR",
        help="where scored rows are kept between runs (default OUTPUT_DIR/.cache)",
    )
    add("--batch_size", type=int, default=64, metavar="N", help="most rows in a scoring batch (default 64)")
    _add_model_options(add)
    add(
        "--list",
        nargs="?",
        const="",
        metavar="TASK",
        help="list the tasks, or show one in full (data, licence, options, …); markdown: a table of all",
    )
    return out


def _add_model_options(add: Callable[..., Any]) -> None:
    """How models are loaded, and what stands before a text."""
    add("--device", metavar="NAME", help="cuda if there is one, else cpu")
    add(
        "--start_token",
        metavar="TOKEN",
        help="token that texts begin with, e.g. '<|endoftext|>', or none; default: the tokenizer's begin of text, "
        "which for chat models is often a chat marker",
    )
    add(
        "--chat", action="store_true", help="prompts are a user's message in the model's chat template, texts its reply"
    )
    add("--trust_remote_code", action="store_true", help="run code that comes with a Hub model")


def listing(width: int) -> str:
    """A line for each task, of at most `width` characters: name, ideal value, meaning."""
    ideals = {name: task.ideal.partition(" (")[0] for name, task in TASKS.items()}
    columns = [max(map(len, TASKS)), max(map(len, ideals.values()))]
    lines = [("task", "ideal", "meaning"), *((name, ideals[name], task.meaning) for name, task in TASKS.items())]
    out = []
    for name, ideal, meaning in lines:
        line = f"{name:{columns[0]}}  {ideal:{columns[1]}}  {meaning}"
        out.append(line if len(line) <= width else line[: width - 1] + "…")
    out.append("--list TASK: its data, licence, options …; lm_eval:NAME runs a task of lm-evaluation-harness")
    return "\n".join(out)


def catalogue() -> str:
    """The tasks as the table of docs/evaluation.md: meaning, ideal, data with its licence, what is not measured."""
    lines = [
        "| task | what it measures | ideal | data, licence | on the Hub | does not measure |",
        "|---|---|---|---|---|---|",
    ]
    for name, task in TASKS.items():
        hub = ", ".join(dict.fromkeys(f"`{source.dataset}`" for source in task.hub.values())) or "–"
        cells = [f"`{name}`", task.meaning, task.ideal, f"{task.data}. {task.licence}", hub, task.not_measured]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def describe(name: str, width: int) -> str:
    """Everything a task says about itself, with its options and defaults, in lines of at most `width` characters."""
    task = find_task(name)
    if task is None:
        raise ValueError(suggest(name, TASKS, "task"))
    fields = {
        "meaning": task.meaning,
        "ideal": task.ideal,
        "not measured": task.not_measured,
        "data": task.data,
        "licence": task.licence,
        "hub": ", ".join(dict.fromkeys(source.dataset for source in task.hub.values())) or "–",
        "source": task.source,
        "version": task.version,
        "several seeds": "yes" if task.sampled else "no: nothing is sampled",
        "options": " ".join(
            f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in task.options.items()
        ),
    }
    lines = [
        textwrap.fill(
            str(value),
            max(40, width),
            initial_indent=f"  {key:14}",
            subsequent_indent=" " * 16,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for key, value in fields.items()
    ]
    return "\n".join([name, *lines])


def _seeds(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise ValueError(f"--seeds {text!r}: must be whole numbers with commas between") from error


def _labelled(models: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for model in models:
        label, equals, path = model.partition("=")
        if Path(model).exists():  # its name may hold "="
            path, equals, parts = model, "", Path(os.path.abspath(model)).parts
            # runs/NAME/model is what training writes: NAME says more than "model".
            label = parts[-2] if len(parts) > 1 and parts[-1] == "model" else parts[-1].removesuffix(".gguf")
        elif not equals:
            path = label
        if not label or not path:
            raise ValueError(f"--model {model!r}: neither label nor path may be empty")
        if label in found:
            label, equals = (model, "=") if not equals else (label, equals)
        if label in found:
            raise ValueError(f"--model {model!r}: {label!r} is named twice; give labels, --model NAME=PATH")
        found[label] = path
    return found


def _tasks(given: Mapping[str, Mapping[str, Any]], settings: list[str]) -> dict[str, dict[str, Any]]:
    tasks = {label: dict(options) for label, options in given.items()}
    for setting in settings:
        key, equals, value = setting.partition("=")
        label, dot, option = key.rpartition(".")
        if not equals or not dot:
            raise ValueError(f"--set {setting!r}: must be TASK.OPTION=VALUE")
        if label not in tasks:
            raise ValueError(f"--set {setting!r}: {suggest(label, tasks, 'task among --tasks')}")
        tasks[label][option] = value
    return tasks


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code is its own, or 2 after `error: …` on stderr."""
    arguments = sys.argv[1:] if arguments is None else arguments
    named = bool(arguments) and arguments[0] in COMMANDS
    work = import_module(COMMANDS[arguments[0]]).main if named else _main
    try:
        return work(arguments[named:]) or 0
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _main(arguments: list[str]) -> int:
    options = parser().parse_args(arguments)
    if options.list is None:
        return _shared(options)
    width = shutil.get_terminal_size().columns
    shown = {"": lambda: listing(width), "markdown": catalogue}
    print(shown.get(options.list, lambda: describe(options.list, width))())
    return 0


def _shared(options: argparse.Namespace) -> int:
    """Runs the evaluation, with the other processes of a launcher if there are any: their output is discarded."""
    from eval import ranks

    with ranks.joined() as rank:
        options.shared = int(os.environ.get("WORLD_SIZE", "1")) > 1
        if options.shared and not options.device:
            options.device = ranks.own_device()
        if not rank:
            run(options)
            return 0
        with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nowhere:
            options.output_dir, options.cache_dir = Path(folder), None
            with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
                try:
                    run(options)
                except ValueError:  # the first process says it
                    return 2
    return 0


def _dry_run(options: argparse.Namespace, models: Mapping[str, str], tasks: Mapping[str, Any], seeds: list[int]) -> str:
    """What each task will take, measured on the first model, and what is left out."""
    from eval.audit.cost import estimate, table
    from eval.check import check
    from eval.model import Scorer

    skipped: dict[str, str] = {}
    resolved, inputs = check(
        tasks, data_dir=options.data_dir, limit=options.limit, seed=seeds[0], hub=options.hub, skipped=skipped
    )
    loading = {key: getattr(options, key) for key in _LOADING}
    scorer = Scorer(next(iter(models.values())), **loading)
    lines = [f"left out: {label}: {reason}" for label, reason in skipped.items()]
    return "\n".join([*lines, table(estimate(scorer, resolved, inputs, len(seeds)), len(models))])


def run(options: argparse.Namespace) -> None:
    """Evaluate as the command line asks, write results and report, print the table."""
    if not options.model:
        raise ValueError("name a model with --model (a folder, FILE.gguf or a Hub name)")
    seeds = _seeds(options.seeds) if options.seeds else [options.seed]
    names = [name.strip() for name in options.tasks.split(",") if name.strip()]
    preset = yaml.safe_load(PRESETS.read_text(encoding="utf-8"))[options.preset] if options.preset else {}
    every = "all" in names
    names = [*preset, *(TASKS if every else ()), *(name for name in names if name != "all")]
    tasks = _tasks({name: {} for name in names} | preset, options.set)
    if not tasks:
        raise ValueError(f"name tasks with --tasks (there are: {', '.join(TASKS)})")
    models = _labelled(options.model)
    from transformers.utils import logging

    from eval.report.page import Study, write_page
    from eval.report.table import print_report, write_report
    from eval.run import evaluate

    logging.disable_progress_bar()
    same = [*_LOADING, "data_dir", "output_dir", "reference", "hub", "cache_dir", "limit", "shared"]
    given = {name: getattr(options, name) for name in same}
    if options.dry_run:
        print(_dry_run(options, models, tasks, seeds))
        return
    result = evaluate(models, tasks, seeds=seeds, skip_missing=every or bool(preset), **given)
    write_report(result, options.output_dir)
    write_page([Study.load(options.output_dir)], options.output_dir / "report.html")
    print_report(result["rows"])
    for label, reason in result.get("skipped", {}).items():
        print(f"left out: {label}: {reason}")
    print(f"written to {options.output_dir}")


if __name__ == "__main__":
    sys.exit(main())
