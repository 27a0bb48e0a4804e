"""One client's part of a round: weights come in; its own texts are reversed, its own pairs and predictions of the
teacher made or read, the student trained for K steps; the difference of the weights goes out.

The texts are in FOLDER/texts.jsonl. Pairs and predictions are made beside them and are never sent.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from counterfactuals.tokens.shards import sha256_of_facts
from debias.run.launch import seed_step
from federated import arrival
from federated.message import pack, unpack

TEXTS = "texts.jsonl"


@dataclass(frozen=True)
class Texts:
    """The texts of a client that are at hand in a period (pairs.Texts)."""

    folder: Path
    period: int = 0
    periods: int = 1
    keep: int | None = None

    def __post_init__(self) -> None:
        if not (self.folder / TEXTS).is_file():
            raise ValueError(f'client {self.folder}: no {TEXTS} here, a text a line: {{"text": …}}')

    @cached_property
    def total(self) -> int:
        """Texts of all periods."""
        with (self.folder / TEXTS).open(encoding="utf-8") as file:
            return sum(1 for _ in file)

    @property
    def share(self) -> None:
        return None

    @cached_property
    def fingerprint(self) -> str:
        return sha256_of_facts(list(self))

    def __iter__(self) -> Iterator[str]:
        first, end = arrival.window(self.total, self.period, self.periods, self.keep)
        with (self.folder / TEXTS).open(encoding="utf-8") as file:
            for number, line in enumerate(file):
                if first <= number < end:
                    yield json.loads(line)["text"]


@dataclass(frozen=True)
class Client:
    """What every client runs, with settings that all of them know.

    task: a DistillTask; optimizer: over its parameters, as in central training, and begun anew each round; open: texts
    → (data, plan, micro-batches of a step), making what is not there yet; probe: a small evaluation on public data.
    """

    task: Any
    optimizer: Any
    accelerator: Any
    open: Callable[[Texts], tuple[Any, Any, int]]
    probe: Callable[[Any], dict[str, float]]
    tokenizer: str  # fingerprint
    rounds: int
    local_steps: int
    proximal: float
    periods: int
    keep_periods: int | None

    def at_hand(self, texts: Any, round: int) -> Any:
        """How many of a client's texts are at hand in a round; texts: a number, or an array of them."""
        period = arrival.period_of(round, self.rounds, self.periods)
        first, end = arrival.window(texts, period, self.periods, self.keep_periods)
        return end - first

    def hello(self, number: int, folder: Path) -> bytes:
        """What a client says before it is asked: its number, how many texts it has, and its tokenizer."""
        return pack({}, client=number, texts=Texts(folder).total, tokenizer=self.tokenizer)

    def train(self, number: int, folder: Path, message: bytes) -> bytes:
        """The answer to `message`. Dropout depends on (seed, step, client), as on (seed, step, rank) elsewhere."""
        weights, asked = unpack(message)
        student = self.accelerator.unwrap_model(self.task).student
        load_weights(student, weights)
        period = arrival.period_of(asked["round"], self.rounds, self.periods)
        data, plan, parts = self.open(Texts(folder, period, self.periods, self.keep_periods))
        self.task.codec = None if data.cache is None else data.cache.codec.to(self.accelerator.device)
        restart(self.optimizer)
        self.task.train()
        totals: dict[str, float] = {}
        trained, first = 0, asked["round"] * self.local_steps
        for step in range(first, first + self.local_steps):
            seed_step(plan.seed, step, number)
            num_tokens = data.num_tokens(step)
            for group in self.optimizer.param_groups:
                group["lr"] = plan.lr_at(step)
            for batch in data.micro_batches(step, accumulation=min(parts, len(data.plan.batch(step)))):
                loss, sums = self.task(batch.to(self.accelerator.device), progress=step / plan.steps)
                self.accelerator.backward(loss / num_tokens)
                totals = {key: float(x) + totals.get(key, 0.0) for key, x in sums.items()}
            if self.proximal:
                pull(student, weights, self.proximal)
            # ---- optimizer step ----
            self.accelerator.clip_grad_norm_(self.task.parameters(), plan.max_grad_norm)
            self.optimizer.step()
            self.optimizer.zero_grad()
            # ------------------------
            trained += num_tokens
        figures = {key: total / trained for key, total in totals.items()}
        figures |= self.probe(student) if asked["evaluate"] else {}
        difference = {name: p.detach().cpu() - weights[name] for name, p in student.named_parameters()}
        every = np.arange(len(data.pairs))
        held = data.predictions(every, np.zeros(len(every), dtype=bool))
        return pack(difference, client=number, held=held, trained=trained, **figures)


def load_weights(student: Any, weights: dict[str, torch.Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in student.named_parameters():
            parameter.copy_(weights[name])


def restart(optimizer: Any) -> None:
    """Forget moments and steps: a client keeps no state between rounds."""
    while hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    optimizer.state.clear()


def pull(student: Any, weights: dict[str, torch.Tensor], mu: float) -> None:
    """Add the gradient of FedProx's term μ/2 · ‖w − w_t‖² (Li et al. 2020)."""
    for name, parameter in student.named_parameters():
        if parameter.grad is not None:
            parameter.grad.add_(parameter.detach() - weights[name].to(parameter.device), alpha=mu)


def forget(folder: Path, kept: Path | None) -> None:
    """Delete everything below `folder` but `kept`: what was made from texts that have left the window."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path != kept:
            shutil.rmtree(path)
