"""Where a run's figures go: metrics.jsonl, the console, and Weights & Biases or TensorBoard if asked.

Only the main rank writes. A sink is anything with `log(step, figures)` and `close()`.
"""

from __future__ import annotations

import json
import math
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from counterfactuals.files import one_line, write_whole
from counterfactuals.provenance import versions

Watching = Literal["auto", "lines", "json", "quiet"]


class Sink(Protocol):
    def log(self, step: int, figures: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class Tracker:
    """A context manager around a loop of `total` steps that begins at `step`.

    Lines after `step` in an existing metrics.jsonl are dropped: their steps are about to be repeated. watching: auto
    is a progress bar on a terminal and lines elsewhere; json prints each line of metrics.jsonl with the run's name and
    speed; quiet prints nothing.
    """

    def __init__(
        self,
        path: Path,
        name: str,
        total: int,
        *,
        step: int = 0,
        on: bool = True,
        watching: Watching = "auto",
        sinks: Sequence[Sink] = (),
    ):
        self.path, self.name, self.total, self.on = path, name, total, on
        self.step, self._first, self.tokens, self._start = step, step, 0, time.perf_counter()
        self.sinks = sinks if on else ()
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
        bar = watching == "auto" and console.is_terminal
        self._watching = "bar" if bar else "lines" if watching == "auto" else watching
        self._progress = Progress(*columns, console=console, disable=not bar)
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
        for sink in self.sinks:
            sink.close()

    @property
    def seconds(self) -> float:
        """Seconds since this process began the loop."""
        return max(time.perf_counter() - self._start, 1e-9)

    def advance(self, num_tokens: int) -> None:
        """Count a step and its tokens."""
        self.tokens += num_tokens
        self.step += 1
        if self.on:
            self._progress.advance(self._bar)

    def log(self, **figures: float) -> None:
        """Write one line: the step and its figures. Speed is only shown: the file must not depend on the machine."""
        if not self.on:
            return
        rate = self.tokens / self.seconds
        known = {k: float(f"{v:.6g}") for k, v in figures.items() if math.isfinite(v)}  # JSON has no infinity
        line = {"step": self.step} | known
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        for sink in self.sinks:
            sink.log(self.step, {**figures, "tokens_per_s": rate})
        self._show(line, rate)

    def _show(self, line: Mapping[str, float], rate: float) -> None:
        if self._watching == "json":
            print(json.dumps({"run": self.name, **line, "tokens_per_s": round(rate)}), flush=True)
        if "loss" not in line:
            return
        self._progress.update(self._bar, figures=f"loss {line['loss']:.3f} · {rate:,.0f} tokens/s")
        if self._watching == "lines":
            left = (self.total - self.step) * self.seconds / (self.step - self._first)
            text = f"{self.name:<8} {self.step:>6}/{self.total} · loss {line['loss']:.4f} · {rate:,.0f} tokens/s"
            print(f"{text} · {left:.0f} s left", flush=True)


def check(to: str, mode: str) -> None:
    """Refuse a missing library or login before anything is trained."""
    if to == "wandb":
        wandb = _wandb()
        if mode == "online" and not wandb.login(prompt=False):
            raise ValueError("tracking.mode: online needs `wandb login` or WANDB_API_KEY; or set it to offline")
    if to == "tensorboard":
        _summary_writer()


def _wandb() -> Any:
    try:
        import wandb
    except ImportError:
        raise ValueError("tracking.to: wandb is not installed: pip install 'evenhand[wandb]'") from None
    return wandb


def _summary_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ValueError("tracking.to: tensorboard is not installed: pip install 'evenhand[tensorboard]'") from None
    return SummaryWriter


class TensorBoardSink:
    """Event files in FOLDER/tensorboard; those an interrupted attempt wrote after `step` are hidden."""

    def __init__(self, folder: Path, *, step: int = 0):
        self._writer = _summary_writer()(str(folder / "tensorboard"), purge_step=step + 1 if step else None)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        for key, value in figures.items():
            self._writer.add_scalar(key, value, step)

    def close(self) -> None:
        self._writer.close()


def in_a_sweep() -> bool:
    """Whether an agent of a Weights & Biases sweep started this process, which then has one run with a given id."""
    return "WANDB_SWEEP_ID" in os.environ and "WANDB_RUN_ID" in os.environ


class WandbSink:
    """A run of Weights & Biases. Its id is stored in FOLDER/wandb.json, so that a resumed run continues it.

    mode: online, offline (written to FOLDER/wandb, for `wandb sync`) or disabled. It is sent settings and figures,
    never a key or token.
    """

    def __init__(
        self,
        folder: Path,
        *,
        title: str,
        config: Mapping[str, Any],
        project: str = "evenhand",
        entity: str | None = None,
        group: str | None = None,
        tags: Sequence[str] = (),
        mode: str = "online",
        job_type: str = "train",
    ):
        wandb = _wandb()
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "wandb.json"
        new = os.environ.get("WANDB_RUN_ID") or uuid.uuid4().hex[:12]  # set by the agent of a sweep
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"id": new}
        try:
            self.run = wandb.init(
                dir=str(folder),
                id=known["id"],
                resume="allow",
                mode=mode,
                project=project,
                entity=entity,
                group=group,
                tags=list(tags),
                name=title,
                job_type=job_type,
                config=dict(config),
                settings=wandb.Settings(quiet=True, silent=mode != "online"),
            )
        except (wandb.Error, OSError) as error:
            raise ValueError(f"tracking: Weights & Biases: {one_line(error)}") from None
        write_whole(path, json.dumps({"id": known["id"], "project": project, "title": title}) + "\n")

    def log(self, step: int, figures: Mapping[str, Any]) -> None:
        self.run.log(dict(figures), step=step)

    def summary(self, figures: Mapping[str, Any]) -> None:
        self.run.summary.update(dict(figures))

    def table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        self.run.log({key: _wandb().Table(columns=list(columns), data=[list(row) for row in rows])})

    def bars(self, key: str, title: str, bars: Mapping[str, float]) -> None:
        """A bar chart, one bar a name."""
        wandb = _wandb()
        table = wandb.Table(columns=["group", "value"], data=[[name, value] for name, value in bars.items()])
        self.run.log({key: wandb.plot.bar(table, "group", "value", title=title)})

    def artifact(
        self, kind: str, name: str, folder: Path, *, facts: Mapping[str, Any], reference: bool = False
    ) -> None:
        """Store a version of a folder. reference: only the hashes of its files, which stay where they are."""
        artifact = _wandb().Artifact(name, kind, metadata=dict(facts))
        if reference:
            artifact.add_reference(folder.resolve().as_uri())
        else:
            artifact.add_dir(str(folder))
        if kind == "dataset" and not self.run.offline:  # an input of the run; offline it can only be logged
            self.run.use_artifact(artifact)
        else:
            self.run.log_artifact(artifact)

    def close(self) -> None:
        self.run.finish()


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except ValueError:  # torn by a kill
        return math.inf


def write_facts(path: Path, **facts: Any) -> None:
    """A finished run's figures and versions, as JSON; where the file exists, the run is complete."""
    facts = {key: round(float(value), 4) if isinstance(value, float) else value for key, value in facts.items()}
    write_whole(path, json.dumps(facts | {"versions": versions()}, indent=2) + "\n")
