"""Training speed of GPT-2 → DistilGPT-2 at length 1024 against a plain loop with dense losses, in the same run.

    python benchmarks/gpu.py [--pairs 4 --length 1024 --steps 10] [--tiny]

Random weights, bfloat16 autocast, fused AdamW; each kind eager and compiled:
  dense   what a user would write: whole logits of both models, F.kl_div and F.cross_entropy
  bare    teacher forward, student forward and backward with its own cross-entropy, no distillation
  plain   distillation, op none, on the same sequences
  era     op max and augmentation
Prints tokens/s, peak memory and the share of the matrix-product peak measured at the start: the products of forward
and backward passes over the time (2 FLOP a weight and token forward, 4 backward; causal attention counted by half).
The last line is JSON. --tiny: a model that a CPU runs in seconds, to see that it works.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from step import KEEP, Texts
from transformers import GPT2Config, GPT2LMHeadModel

from counterfactuals.tokens.batch import collate
from debias.models import compile_layers, student_from_layers
from debias.optim import build_optimizer
from debias.task import DistillTask

TINY = {"n_layer": 4, "n_embd": 32, "n_head": 2, "vocab_size": 500, "bos_token_id": 0, "eos_token_id": 0}
KINDS = ("dense", "bare", "plain", "era")


def matmul_peak(device: str, size: int) -> float:
    """FLOP/s of a bfloat16 product of two square matrices, the best of ten."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    best = float("inf")
    for _ in range(11):
        start = time.perf_counter()
        a @ b
        synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def flop_a_token(model: GPT2LMHeadModel, length: int) -> float:
    """Of a forward pass: products with weights (the head among them, embeddings not) and causal attention."""
    c = model.config
    weights = 12 * c.n_layer * c.n_embd**2 + c.vocab_size * c.n_embd
    return 2.0 * weights + 2.0 * c.n_layer * c.n_embd * length


def step_of(kind: str, teacher: GPT2LMHeadModel, student: GPT2LMHeadModel, texts: Texts, device: str) -> Callable:
    op = "max" if kind == "era" else "none"
    task = DistillTask(student, teacher, op=op)
    batch = collate(texts, op=op, augment=True).to(device)
    ids_NT = batch.ids_NT

    def loss() -> torch.Tensor:
        if kind in ("plain", "era"):
            return task(batch)[0] / batch.num_tokens
        with torch.no_grad():
            target = teacher(input_ids=ids_NT, use_cache=False).logits
        if kind == "bare":
            return student(input_ids=ids_NT, labels=ids_NT, use_cache=False).loss
        logits = student(input_ids=ids_NT, use_cache=False).logits[:, :-1].flatten(0, 1).float()
        soft = (target[:, :-1].flatten(0, 1).float() / 2).log_softmax(-1)
        kd = F.kl_div((logits / 2).log_softmax(-1), soft, reduction="batchmean", log_target=True) * 4
        return (kd + F.cross_entropy(logits, ids_NT[:, 1:].flatten())) / 2

    optimizer = build_optimizer(task, lr=1e-5, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.0)

    def step() -> None:
        with torch.autocast(device, torch.bfloat16):
            value = loss()
        value.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def measure(kind: str, compiled: bool, arguments: argparse.Namespace, device: str, peak: float) -> dict[str, float]:
    gc.collect()  # models of an earlier kind, which hold themselves once compiled
    torch.manual_seed(0)
    teacher = GPT2LMHeadModel(GPT2Config(**(TINY if arguments.tiny else {}))).to(device).eval().requires_grad_(False)
    depth = teacher.config.n_layer
    student = student_from_layers(teacher, KEEP.get(depth, list(range(0, depth, 2)))).to(device).train()
    if compiled:
        compile_layers(teacher, student)
    step = step_of(kind, teacher, student, Texts(arguments.pairs, arguments.length, teacher.config.vocab_size), device)
    for _ in range(3):
        step()
    synchronize(device)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    for _ in range(arguments.steps):
        step()
    synchronize(device)
    seconds = (time.perf_counter() - start) / arguments.steps
    tokens = arguments.pairs * 2 * arguments.length
    flop = tokens * (flop_a_token(teacher, arguments.length) + 3 * flop_a_token(student, arguments.length))
    memory = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else float("nan")
    return {"tokens_per_second": tokens / seconds, "memory_gb": memory, "share_of_peak": flop / seconds / peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=4, help="texts, each with its counterfactual")
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--eager_only", action="store_true", help="without torch.compile")
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not arguments.tiny:
        sys.exit("error: no GPU here; --tiny runs a small model on the CPU, to see that it works")
    peak = matmul_peak(device, 256 if arguments.tiny else 8192)
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    print(f"{name}: {peak / 1e12:.2f} TFLOP/s in a bfloat16 product; torch {torch.__version__}")
    found: dict[str, dict[str, float]] = {}
    for compiled in (False,) if arguments.eager_only else (False, True):
        for kind in KINDS:
            label = f"{kind} {'compiled' if compiled else 'eager'}"
            found[label] = measure(kind, compiled, arguments, device, peak)
            row = found[label]
            print(
                f"{label:<16}{row['tokens_per_second']:12,.0f} tokens/s {row['memory_gb']:7.1f} GB "
                f"{row['share_of_peak']:7.1%} of the peak",
                flush=True,
            )
    best = "eager" if arguments.eager_only else "compiled"
    speed = {label: row["tokens_per_second"] for label, row in found.items()}
    ratios = {
        "share_of_peak": round(found[f"era {best}"]["share_of_peak"], 3),
        "era_over_dense_loop": round(speed[f"era {best}"] / speed["dense eager"], 2),
        "era_over_bare_time": round(speed[f"bare {best}"] / speed[f"era {best}"], 3),
    }
    print(json.dumps(ratios))


if __name__ == "__main__":
    main()
