"""Where a run's figures go: metrics.jsonl always, a progress bar for a person; silent off the main rank."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from counterfactuals.files import write_whole
from counterfactuals.provenance import versions


class Tracker:
    """Use as a context manager around a loop of `total` steps that begins at `step`.

    Lines after `step` in an existing metrics.jsonl belong to steps that are about to be done again, and are dropped.
    """

    def __init__(self, path: Path, name: str, total: int, *, step: int = 0, on: bool = True):
        self.path, self.name, self.total, self.on = path, name, total, on
        self.step, self._first, self.tokens, self._start = step, step, 0, time.perf_counter()
        if not on:
            return
        lines = path.read_text(encoding="utf-8").splitlines() if step and path.exists() else []
        write_whole(path, "".join(line + "\n" for line in lines if _step_of(line) <= step))
        columns = (
            TextColumn("{task.description:<10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
        )
        console = Console(stderr=True)
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal)
        self._bar = self._progress.add_task(name, total=total, completed=step, figures="")

    def __enter__(self) -> Tracker:
        if self.on:
            self._file = self.path.open("a", encoding="utf-8")
            self._progress.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self.on:
            self._progress.stop()
            self._file.close()

    @property
    def seconds(self) -> float:
        """Since this process began the loop."""
        return max(time.perf_counter() - self._start, 1e-9)

    def advance(self, num_tokens: int) -> None:
        self.tokens += num_tokens
        self.step += 1
        if self.on:
            self._progress.advance(self._bar)

    def log(self, **figures: float) -> None:
        """Write one line: the step and its figures. Speed is shown, not written: the file depends on the run alone."""
        if not self.on:
            return
        rate = self.tokens / self.seconds
        line = {"step": self.step} | {k: float(f"{v:.6g}") for k, v in figures.items()}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        self._progress.update(self._bar, figures=f"loss {figures['loss']:.3f} · {rate:,.0f} tokens/s")
        if self._progress.disable:
            left = (self.total - self.step) * self.seconds / (self.step - self._first)
            text = f"{self.name:<8} {self.step:>6}/{self.total} · loss {figures['loss']:.4f} · {rate:,.0f} tokens/s"
            print(f"{text} · {left:.0f} s left", flush=True)


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except ValueError:  # torn by a kill
        return math.inf


def write_facts(path: Path, **facts: Any) -> None:
    """A finished run's figures and versions, as JSON; its presence says that the run is complete."""
    facts = {key: round(float(value), 4) if isinstance(value, float) else value for key, value in facts.items()}
    write_whole(path, json.dumps(facts | {"versions": versions()}, indent=2) + "\n")
