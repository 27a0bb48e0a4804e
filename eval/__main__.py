"""python -m eval --model DIR_OR_NAME --tasks a,b --data_dir DIR --output_dir DIR: measure any causal language model."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from eval.task import suggest
from eval.tasks import TASKS


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(
        prog="python -m eval",
        description="Measure disparity and utility of any causal language model. Writes OUTPUT_DIR/results.json, "
        "report.md and the scores of each row (rows-TASK.jsonl). python -m eval correlate --help: how measures agree.",
    )
    out.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="[LABEL=]DIR_OR_NAME",
        help="a local model folder or a Hub name; repeat it to compare models",
    )
    out.add_argument("--tasks", default="", metavar="A,B", help="tasks, comma-separated; task@label runs it once more")
    out.add_argument("--data_dir", type=Path, default=Path("data"), metavar="DIR", help="where the data lies (data)")
    out.add_argument("--output_dir", type=Path, default=Path("runs/eval"), metavar="DIR", help="default runs/eval")
    out.add_argument(
        "--set", action="append", default=[], metavar="TASK.OPTION=VALUE", help="an option of a task, see --list"
    )
    out.add_argument("--limit", type=int, metavar="N", help="at most N rows a task: a quick look, not a result")
    out.add_argument("--seed", type=int, default=0, help="of sampling, prompt choice and bootstrap (0)")
    out.add_argument("--batch_size", type=int, default=64, metavar="N", help="rows of a scoring batch at most (64)")
    out.add_argument("--device", metavar="NAME", help="cuda if there is one, else cpu")
    out.add_argument("--trust_remote_code", action="store_true", help="run code that comes with a Hub model")
    out.add_argument("--list", action="store_true", help="show the tasks: meaning, ideal, data, options")
    return out


def listing() -> str:
    """Every task: its meaning, ideal value, data, source and options with their defaults."""
    lines = []
    for name, task in TASKS.items():
        options = " ".join(
            f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in task.options.items()
        )
        lines += [
            name,
            f"  meaning  {task.meaning}",
            f"  ideal    {task.ideal}",
            f"  data     {task.data}",
            f"  source   {task.source}",
            f"  options  {options}",
        ]
    return "\n".join(lines)


def _labelled(models: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for model in models:
        label, equals, path = model.partition("=")
        if Path(model).is_dir():  # a folder's name may hold "="
            path, equals, parts = model, "", Path(os.path.abspath(model)).parts
            # runs/NAME/model is what training writes: NAME says more than "model".
            label = parts[-2] if len(parts) > 1 and parts[-1] == "model" else parts[-1]
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


def _tasks(names: str, settings: list[str]) -> dict[str, dict[str, str]]:
    tasks: dict[str, dict[str, str]] = {name.strip(): {} for name in names.split(",") if name.strip()}
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
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["correlate"]:
        from eval.correlate import main as correlate

        return correlate(arguments[1:])
    options = parser().parse_args(arguments)
    if options.list:
        print(listing())
        return 0
    try:
        if not options.model:
            raise ValueError("name a model with --model (a folder or a Hub name)")
        tasks = _tasks(options.tasks, options.set)
        if not tasks:
            raise ValueError(f"name tasks with --tasks (there are: {', '.join(TASKS)})")
        models = _labelled(options.model)
        from transformers.utils import logging

        from eval.report import print_report, write_report
        from eval.run import evaluate, write_json

        logging.disable_progress_bar()
        result = evaluate(
            models,
            tasks,
            data_dir=options.data_dir,
            output_dir=options.output_dir,
            seed=options.seed,
            batch_size=options.batch_size,
            device=options.device,
            limit=options.limit,
            trust_remote_code=options.trust_remote_code,
        )
        write_report(result, options.output_dir)
        if len(models) == 1:
            single = {**result["rows"][0], "versions": result["versions"], "config": result["config"]}
            write_json(options.output_dir / "results.json", single)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print_report(result["rows"])
    print(f"written to {options.output_dir}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
