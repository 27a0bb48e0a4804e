"""Every benchmark by name. To add one: its code in NAME.py here, and what it says of itself in tasks.yaml."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from eval.task import Task
from eval.tasks import harness


def _task(name: str, words: dict[str, Any]) -> Task:
    """A module's load, score, aggregate and OPTIONS, and HUB where the Hub has the data; words: from tasks.yaml."""
    code = import_module(f"eval.tasks.{name}")
    hub = getattr(code, "HUB", {})
    return Task(name, code.load, code.score, code.aggregate, options=code.OPTIONS, hub=hub, **words)


_WORDS = yaml.safe_load(Path(__file__).with_name("tasks.yaml").read_text(encoding="utf-8"))
TASKS = {name: _task(name, words) for name, words in _WORDS.items()}


def find_task(name: str) -> Task | None:
    """The task of that name, or the harness's for `lm_eval:NAME`."""
    return TASKS.get(name) or harness.task(name)
