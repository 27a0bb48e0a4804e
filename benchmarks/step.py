"""Time of a whole training step against the bare models on the same tokens, and with a cached teacher.

    python benchmarks/step.py [--pairs 4 --length 64 --op max --repeats 5 --precision no]

GPT-2 → DistilGPT-2 with random weights, on texts of which one token in eight is replaced in the counterfactual. Without
the optimizer, which is the same for all:
  bare    teacher forward with its logits; student forward and backward with its own (dense) cross-entropy
  plain   distillation, op none, on the same sequences
  era     perturbation by --op, texts and counterfactuals both trained
  cached  era with the teacher's predictions read from disk
Repeats are interleaved and minima taken; on a CPU of the process's CPU time, which other processes disturb less than
the clock on the wall. The last line is JSON with the ratios.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
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
from debias.cache.store import build_cache
from debias.losses import distillation_loss, model_rows
from debias.models import student_from_layers
from debias.task import DistillTask

KEEP = {12: [0, 2, 4, 7, 9, 11]}  # Sanh et al.'s layers


class Texts(list):
    """A pair set in memory: texts of `length` tokens and counterfactuals that differ in one token of eight."""

    def __init__(self, pairs: int, length: int, vocabulary: int):
        draw = np.random.default_rng(0)
        index = np.arange(length, dtype=np.int32)
        for _ in range(pairs):
            ids = draw.integers(0, vocabulary, length).astype(np.int32)
            other = np.where(index % 8 == 1, draw.integers(0, vocabulary, length), ids).astype(np.int32)
            self.append(AlignedPair(ids, other, index))
        self.lengths = self.cf_lengths = np.full(pairs, length)
        self.has_cf = np.ones(pairs, dtype=bool)
        self.meta = {"fingerprint": "made up"}


def steps(arguments: argparse.Namespace, folder: str) -> tuple[dict[str, Callable[[], Any]], int]:
    """What is timed, by name, and the bytes of a cached prediction."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    sizes = json.loads(arguments.sizes)
    teacher = GPT2LMHeadModel(GPT2Config(**sizes)).to(device).eval().requires_grad_(False)
    depth = teacher.config.n_layer
    student = student_from_layers(teacher, KEEP.get(depth, list(range(0, depth, 2)))).to(device).train()
    vocabulary = teacher.config.vocab_size
    texts = Texts(arguments.pairs, arguments.length, vocabulary)
    chosen = range(len(texts))
    parts = {"teacher": "random", "dtype": "float32", "pairs": "made up", "row_bytes": 150, "format": 1}
    stored = build_cache(folder, texts, teacher, parts, device=device)  # type: ignore[arg-type]
    options: dict[str, Any] = {"chunk_rows": arguments.chunk_rows}
    plain = DistillTask(student, teacher, op="none", **options)
    era = DistillTask(student, teacher, op=arguments.op, **options)
    cached = DistillTask(student, codec=stored.codec.to(device), op=arguments.op, **options)
    batches = {op: collate(texts, op=op, augment=True).to(device) for op in ("none", arguments.op)}
    ids_NT = batches["none"].ids_NT

    def autocast() -> Any:
        if arguments.precision == "no":
            return contextlib.nullcontext()
        return torch.autocast(device, getattr(torch, {"bf16": "bfloat16", "fp16": "float16"}[arguments.precision]))

    def run(task: DistillTask, op: str, attach: bool = False) -> None:
        batch = stored.attach(batches[op], chosen).to(device) if attach else batches[op]
        with autocast():
            loss, _ = task(batch)
        loss.backward()

    def bare() -> None:
        with autocast():
            with torch.no_grad():
                teacher(input_ids=ids_NT, use_cache=False).logits  # noqa: B018
            loss = student(input_ids=ids_NT, labels=ids_NT, use_cache=False).loss
        loss.backward()

    def teacher_layers() -> torch.Tensor:
        with torch.no_grad(), autocast():
            return teacher.base_model(input_ids=ids_NT, use_cache=False).last_hidden_state

    def student_layers() -> None:
        with autocast():
            hidden = student.base_model(input_ids=ids_NT, use_cache=False).last_hidden_state
        hidden.backward(torch.ones_like(hidden))

    hidden_PD = torch.randn(ids_NT.numel(), teacher.config.n_embd, device=device, requires_grad=True)
    teacher_hidden = teacher_layers()

    def loss_alone(task: DistillTask, op: str) -> None:
        batch = stored.attach(batches[op], chosen).to(device)
        with autocast():
            if task.codec is not None:
                rows = task.codec.rows(batch.teacher_PB)  # type: ignore[arg-type]
            else:
                rows = model_rows(teacher_hidden.flatten(0, 1), teacher.get_output_embeddings().weight)
            found = distillation_loss(
                hidden_PD,
                student.get_output_embeddings().weight,
                rows,
                row_R=batch.row_R,
                label_R=batch.label_R,
                perturb_R=batch.perturb_R,
                trained_R=batch.trained_R,
                context_R=batch.ids_NT.flatten()[batch.row_R],
                num_pairs=batch.num_pairs,
                **task.options,
            )
        found[0].backward()

    optimizer = torch.optim.AdamW(student.parameters(), lr=0.0, fused=True)
    bare()  # gradients for the optimizer
    kinds: dict[str, Callable[[], Any]] = {
        "bare": bare,
        "plain": lambda: run(plain, "none"),
        "era": lambda: run(era, arguments.op),
        "cached": lambda: run(cached, arguments.op, attach=True),
        "teacher layers": teacher_layers,
        "student layers": student_layers,
        "loss, plain": lambda: loss_alone(plain, "none"),
        "loss, era": lambda: loss_alone(era, arguments.op),
        "loss, cached": lambda: loss_alone(cached, arguments.op),
        "optimizer": optimizer.step,
    }
    return kinds, stored.codec.row_bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--op", default="max")
    parser.add_argument("--chunk_rows", type=int, default=256)
    parser.add_argument("--precision", choices=("no", "bf16", "fp16"), default="no")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sizes", default="{}", help="settings of GPT2Config as JSON, for a model of another size")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        kinds, row_bytes = steps(arguments, folder)
        clock = time.perf_counter if torch.cuda.is_available() else time.process_time
        seconds: dict[str, list[float]] = {name: [] for name in kinds}
        for repeat in range(arguments.repeats + 1):
            for name, run in kinds.items():
                start = clock()
                run()
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                if repeat:  # the first loads what first calls load
                    seconds[name].append(clock() - start)
    best = {name: min(times) for name, times in seconds.items()}
    tokens = arguments.pairs * 2 * arguments.length
    for name, value in best.items():
        print(f"{name:<16}{value:8.3f} s {tokens / value:10,.0f} tokens/s {value / best['bare']:8.2f} of bare")
    ratios = {
        "era_over_bare": round(best["era"] / best["bare"], 3),
        "plain_over_bare": round(best["plain"] / best["bare"], 3),
        "cached_over_live": round(best["cached"] / best["era"], 3),
        "cache_bytes_per_token": row_bytes,
    }
    print(json.dumps(ratios))


if __name__ == "__main__":
    main()
