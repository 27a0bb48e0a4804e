"""Time and memory of a private training step against the plain one, a loop over texts, and Opacus.

    python benchmarks/privacy.py [--pairs 8 --length 128 --repeats 3 --loop_texts 2]

GPT-2 → DistilGPT-2 with random weights and tied embeddings, era with augmentation; each text and its counterfactual are
one unit. A step is all of it: loss, gradients, clipping, noise, AdamW.
  plain    one backward pass, the norm of the whole gradient clipped
  private  each text clipped, and noise (privacy/)
  loop     a backward pass for each text alone, clipped and added; a few texts are timed, and counted up
  opacus   Opacus in hooks mode with explicit positions: the student alone with dense cross-entropy, against the plain
           step of the same loss; it clips a text and its counterfactual apart. Only if it is installed
Repeats are interleaved and minima taken, on a CPU of the process's CPU time. Memory is the peak of a process of its
own. The last line is JSON with the ratios; null where Opacus is missing.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from transformers import GPT2Config, GPT2LMHeadModel

from counterfactuals.tokens.align import AlignedPair
from counterfactuals.tokens.batch import collate
from debias.models import student_from_layers
from debias.optim import build_optimizer
from debias.task import DistillTask
from privacy.account import Schedule
from privacy.mechanism import Mechanism
from privacy.noise import Keys

KEEP = {12: [0, 2, 4, 7, 9, 11]}  # Sanh et al.'s layers
OPTIMIZER: dict[str, Any] = {"lr": 1e-4, "betas": (0.9, 0.98), "eps": 1e-6, "weight_decay": 0.0}


def made_up(pairs: int, length: int, vocabulary: int) -> list[AlignedPair]:
    """Texts whose counterfactuals differ in one token of eight."""
    draw, index, made = np.random.default_rng(0), np.arange(length, dtype=np.int32), []
    for _ in range(pairs):
        ids = draw.integers(0, vocabulary, length).astype(np.int32)
        other = np.where(index % 8 == 1, draw.integers(0, vocabulary, length), ids).astype(np.int32)
        made.append(AlignedPair(ids, other, index))
    return made


def step_of(kind: str, arguments: argparse.Namespace) -> Callable[[], None]:
    """A training step of this kind; every kind has models of its own, with the same weights."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    teacher = GPT2LMHeadModel(GPT2Config(**json.loads(arguments.sizes))).to(device).eval().requires_grad_(False)
    depth = teacher.config.n_layer
    student = student_from_layers(teacher, KEEP.get(depth, list(range(0, depth, 2)))).to(device).train()
    texts = made_up(arguments.pairs, arguments.length, teacher.config.vocab_size)
    options: dict[str, Any] = {"op": "max", "augment": True, "units": np.arange(len(texts))}
    batch = collate(texts, **options).to(device)
    if kind in ("opacus", "dense"):
        return _dense(student, batch.ids_NT, private=kind == "opacus")
    task = DistillTask(student, teacher, op="max")
    optimizer = build_optimizer(task, **OPTIMIZER)
    if kind == "private":
        keys, schedule = Keys(b"s" * 32, b"benchmark"), Schedule(0.01, 1000)
        mechanism = Mechanism(task, keys, schedule, noise_multiplier=1.0, divisor=arguments.pairs)

    def plain() -> None:
        (task(batch)[0] / batch.num_tokens).backward()
        torch.nn.utils.clip_grad_norm_(task.parameters(), 1.0)

    def private() -> None:
        mechanism.backward(task(batch)[0])
        mechanism.release(0)

    def loop() -> None:
        total = [torch.zeros_like(p) for p in task.parameters()]
        for n in range(arguments.loop_texts):
            optimizer.zero_grad()
            task(collate(texts[n : n + 1], op="max", augment=True).to(device))[0].backward()
            torch.nn.utils.clip_grad_norm_(task.parameters(), 1.0)
            for own, parameter in zip(total, task.parameters()):
                own += parameter.grad

    def step() -> None:
        {"plain": plain, "private": private, "loop": loop}[kind]()
        if kind != "loop":
            optimizer.step()
            optimizer.zero_grad()

    return step


def _dense(student: Any, ids_NT: torch.Tensor, *, private: bool) -> Callable[[], None]:
    model, optimizer = student, build_optimizer(student, **OPTIMIZER)
    position_NT = torch.arange(ids_NT.shape[1], device=ids_NT.device).expand(len(ids_NT), -1).contiguous()
    if private:
        import opacus

        model = opacus.GradSampleModule(student)
        options: dict[str, Any] = {"noise_multiplier": 1.0, "max_grad_norm": 1.0, "expected_batch_size": len(ids_NT)}
        optimizer = opacus.optimizers.DPOptimizer(optimizer, **options)  # type: ignore[assignment]

    def step() -> None:
        logits = model(input_ids=ids_NT, position_ids=position_NT, use_cache=False).logits[:, :-1]
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids_NT[:, 1:].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def seconds(step: Callable[[], None]) -> float:
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    start = clock()
    step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return clock() - start


def peak_mb(step: Callable[[], None]) -> float:
    """The peak of a second step: the first makes the optimizer's moments."""
    step()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        step()
        return torch.cuda.max_memory_allocated() / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is resident
    step()
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 2**10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--loop_texts", type=int, default=2, help="texts of the loop that are timed")
    parser.add_argument("--sizes", default="{}", help="of the teacher, as JSON")
    parser.add_argument("--memory_of", help="print the memory of this kind alone (used by the benchmark itself)")
    arguments = parser.parse_args()
    if arguments.memory_of:
        print(peak_mb(step_of(arguments.memory_of, arguments)))
        return
    kinds = ["plain", "private", "loop"] + ["dense", "opacus"] * bool(importlib.util.find_spec("opacus"))
    steps = {kind: step_of(kind, arguments) for kind in kinds}
    for step in steps.values():
        step()  # the optimizers' moments
    times = {kind: min(seconds(step) for _ in range(arguments.repeats)) for kind, step in steps.items()}
    times["loop"] *= arguments.pairs / arguments.loop_texts
    peaks = {}
    for kind in kinds:
        command = [sys.executable, __file__, *sys.argv[1:], "--memory_of", kind]
        peaks[kind] = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
        print(f"{kind:<8} {times[kind]:8.2f} s  {peaks[kind]:7.0f} MB", flush=True)
    opacus = times["opacus"] / times["dense"] if "opacus" in times else None
    ours = times["private"] / times["plain"]
    figures = {
        "private_over_plain": round(ours, 3),
        "memory_over_plain": round(peaks["private"] / peaks["plain"], 3),
        "loop_over_private": round(times["loop"] / times["private"], 3),
        "opacus_over_private": None if opacus is None else round(opacus / ours, 3),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
