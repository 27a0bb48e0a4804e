"""The rounds of a federated run: choose clients, ask them, average what they answer, step, evaluate, save.

Whoever carries the messages is a `Clients`: InProcess, for clients whose folders are on this machine, one after the
other; or flower.Remote. Both call the same functions, and give the same bytes.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from counterfactuals.files import write_whole
from counterfactuals.provenance import model_fingerprint
from debias.run import checkpoint
from debias.run.guard import StopRequest
from debias.run.tracking import Tracker, write_facts
from federated import select
from federated.client import Client, load_weights
from federated.message import Tensors, pack, unpack
from federated.private import Guarantee
from federated.server import Mean, ServerOptimizer, apply

log = logging.getLogger(__name__)


class Clients(Protocol):
    """Carries messages. `train` yields (client, answer) in the order of the clients; where there is no answer, a word
    says why: missing, late or failed. `name`: what a run's inputs.json records of them."""

    @property
    def name(self) -> str: ...

    def hello(self) -> Iterator[bytes]: ...

    def train(self, round: int, chosen: np.ndarray, message: bytes) -> Iterator[tuple[int, bytes | str]]: ...


@dataclass(frozen=True)
class InProcess:
    """Clients 0, 1, …, whose folders are below `folder`. missing: share of those asked that do not answer."""

    client: Client
    folder: Path
    missing: float = 0.0
    seed: int = 0

    @property
    def name(self) -> str:
        return self.folder.name

    def hello(self) -> Iterator[bytes]:
        for number in range(len(json.loads((self.folder / "clients.json").read_text(encoding="utf-8"))["texts"])):
            yield self.client.hello(number, self.folder / f"{number:05d}")

    def train(self, round: int, chosen: np.ndarray, message: bytes) -> Iterator[tuple[int, bytes | str]]:
        answers = select.answers(chosen, self.missing, seed=self.seed, round=round)
        for number, comes in zip(chosen.tolist(), answers):
            yield number, self.client.train(number, self.folder / f"{number:05d}", message) if comes else "missing"


@dataclass(frozen=True)
class Federation:
    """A federated run on the server's side, restored from its newest checkpoint. first: rounds that are done.

    choose: (texts at hand of each client, round) → clients to ask. counters: what was counted in those rounds.
    guarantee: for each client, or None.
    """

    folder: Path
    first: int
    counters: dict[str, int]
    inputs: dict[str, str]
    client: Client
    tokenizer: Any
    student: Any
    server: ServerOptimizer
    plan: Any
    choose: Callable[..., np.ndarray]
    uniform: bool
    tracker: Tracker
    guarantee: Guarantee | None

    def weights(self) -> Tensors:
        return {name: p.detach().cpu().clone() for name, p in self.student.named_parameters()}


def run(f: Federation, clients: Clients) -> bool:
    """Do all rounds and export the model; False if a signal asked for a stop before that."""
    texts_N = greet(f, clients)
    checkpoint.same_inputs(f.folder / "inputs.json", f.inputs | {"clients": clients.name})
    counters, weights = Counter(f.counters), f.weights()
    with f.tracker as tracker, StopRequest() as stop:
        for round in range(f.first, f.plan.steps):
            chosen = f.choose(f.client.at_hand(texts_N, round), round=round)
            evaluate = f.plan.due(round, f.plan.eval_every)
            message = pack(weights, round=round, evaluate=evaluate)
            mean = f.guarantee.mean(weights, round, len(texts_N)) if f.guarantee else Mean()
            answers: list[dict[str, Any]] = []
            for number, answer in clients.train(round, chosen, message):
                counters += Counter(asked=1, bytes_down=len(message), bytes_up=len(answer) * isinstance(answer, bytes))
                answers += taken(mean, number, answer, weights, f.uniform, counters)
            # ---- server step ----
            load_weights(f.student, weights)
            if mean.weight:
                apply(f.student, mean.result(), f.server)
            weights = f.weights()
            # ---------------------
            tracker.advance(sum(facts["trained"] for facts in answers))
            figures = summary(answers) | {key: float(number) for key, number in counters.items()}
            figures |= f.client.probe(f.student) if evaluate else {}
            if evaluate or f.plan.due(round, f.plan.log_every):
                tracker.log(**figures)
            if (stop.asked or f.plan.due(round, f.plan.save_every)) and round + 1 < f.plan.steps:
                facts: dict[str, Any] = {"keep": f.plan.keep_checkpoints, "counters": counters}
                where = f.folder / "checkpoints"
                checkpoint.save(f.client.accelerator, f.client.task, f.server, f.tokenizer, where, round + 1, **facts)
                if stop.asked:
                    log.info("stopped after round %d of %d; the same command resumes there", round + 1, f.plan.steps)
                    return False
    finish(f, texts_N, counters)
    return True


def greet(f: Federation, clients: Clients) -> np.ndarray:
    """(N,) texts of each client. ValueError for one without texts, or with another tokenizer than the server."""
    known: dict[int, int] = {}
    for _, said in map(unpack, clients.hello()):
        if said["tokenizer"] != f.client.tokenizer:
            raise ValueError(f"client {said['client']}: has another tokenizer than the server; give it the same models")
        if not said["texts"]:
            raise ValueError(f"client {said['client']}: has no text; leave it out")
        known[said["client"]] = said["texts"]
    if sorted(known) != list(range(len(known))) or not known:
        raise ValueError(f"clients: their numbers must be 0 to {len(known) - 1}, each once, not {sorted(known)}")
    return np.array([known[number] for number in range(len(known))])


def taken(
    mean: Mean, number: int, answer: bytes | str, weights: Tensors, uniform: bool, counters: Counter[str]
) -> list[dict[str, Any]]:
    """Add an answer to the mean, and return its facts; none, and a count, for one that cannot be used."""
    if isinstance(answer, str):
        counters[answer] += 1
        return []
    difference, facts = unpack(answer)
    if {name: x.shape for name, x in difference.items()} != {name: x.shape for name, x in weights.items()}:
        raise ValueError(f"client {number}: trained another model than the server sent; give it the same settings")
    if not mean.add(difference, 1.0 if uniform else float(facts["held"])):
        counters["non_finite"] += 1
        log.warning("client %d: its weights are not finite; left out", number)
        return []
    counters["answered"] += 1
    return [facts]


def summary(answers: list[dict[str, Any]]) -> dict[str, float]:
    """Figures of a round over the clients that count: means and maximum of the losses, and each figure's minimum."""
    found: dict[str, float] = {}
    for key in answers[0] if answers else ():
        values = [facts[key] for facts in answers if key in facts]
        if "/" in key:  # of each client's own model
            found[f"lowest_client/{key}"] = min(values)
        elif key not in ("client", "held", "trained"):
            found[key] = sum(values) / len(values)
    return found | ({"worst_client/loss": max(facts["loss"] for facts in answers)} if answers else {})


def finish(f: Federation, texts_N: np.ndarray, counters: Counter[str]) -> None:
    """Export the model and write run.json: what the run did, and that it is complete; clients.json: who was asked."""
    asked = np.zeros(len(texts_N), dtype=int)
    for round in range(f.plan.steps):
        asked[f.choose(f.client.at_hand(texts_N, round), round=round)] += 1
    write_whole(f.folder / "clients.json", json.dumps({"texts": texts_N.tolist(), "asked": asked.tolist()}) + "\n")
    accelerator = f.client.accelerator
    checkpoint.export(accelerator, f.client.task, f.server, f.tokenizer, f.folder / "model")
    here = {"steps_here": f.plan.steps - f.first, "tokens_here": f.tracker.tokens, "seconds_here": f.tracker.seconds}
    facts = {"ranks": 1, "precision": accelerator.mixed_precision, "parameters": f.student.num_parameters()}
    hashes = json.loads((f.folder / "inputs.json").read_text(encoding="utf-8"))
    hashes |= {"model": model_fingerprint(str(f.folder / "model"))}
    done: dict[str, Any] = {"clients": len(texts_N), "clients_asked": int((asked > 0).sum())}
    done |= {"privacy": f.guarantee.facts} if f.guarantee else {}
    write_facts(f.folder / "run.json", steps=f.plan.steps, **here, **facts, **done, **counters, sha256=hashes)
    accelerator.free_memory()
