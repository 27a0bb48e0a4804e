"""Training speed of GPT-2 → DistilGPT-2 at length 1024 against a plain loop with dense losses, in the same run.

    python benchmarks/gpu.py [--pairs 4 --length 1024 --steps 10] [--tiny]

Random weights, bfloat16 autocast, fused AdamW; each kind eager and compiled:
  dense   what a user would write: whole logits of both models, F.kl_div and F.cross_entropy
  bare    teacher forward, student forward and backward with its own cross-entropy, no distillation
  plain   distillation, op none, on the same sequences
  era     op max and augmentation
  liger   plain distillation with the chunked loss of liger-kernel, where that is installed
Prints tokens/s, peak memory and the share of the matrix-product peak measured at the start: the products of forward
and backward passes over the time (2 FLOP a weight and token forward, 4 backward; causal attention counted by half).
Before that both heads and the loss alone, forward and backward from hidden states, in ms per 8,192 tokens: era with
several loss.chunk_rows, dense, liger; steps of plain and era use the fastest. The last line is JSON, of era and of the
compiled kinds unless it says otherwise; null where it was not measured. --tiny: a model that a CPU runs in seconds.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import math
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
from debias.losses import distillation_loss, model_rows
from debias.models import compile_layers, student_from_layers
from debias.optim import build_optimizer
from debias.task import DistillTask

TINY = {"n_layer": 4, "n_embd": 32, "n_head": 2, "vocab_size": 500, "bos_token_id": 0, "eos_token_id": 0}
KINDS = ("dense", "bare", "plain", "era", *["liger"] * (importlib.util.find_spec("liger_kernel") is not None))
TAU = 2.0


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


def dense_loss(student_RV: torch.Tensor, teacher_RV: torch.Tensor, label_R: torch.Tensor) -> torch.Tensor:
    """The mean over rows of τ² KL and of the cross-entropy, half each, from logits."""
    student_RV, soft = student_RV.float(), (teacher_RV.float() / TAU).log_softmax(-1)
    kd = F.kl_div((student_RV / TAU).log_softmax(-1), soft, reduction="batchmean", log_target=True) * TAU**2
    return (kd + F.cross_entropy(student_RV, label_R)) / 2


def liger_loss(compiled: bool) -> Callable[..., torch.Tensor]:
    """The same from hidden states and heads, (student's, its head, teacher's, its head, labels); KL without τ²."""
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

    weights = {"weight_hard_loss": 0.5, "weight_soft_loss": 0.5 * TAU**2}
    return LigerFusedLinearJSDLoss(beta=0.0, temperature=TAU, compiled=compiled, chunk_size=1024, **weights)


def models_of(arguments: argparse.Namespace, device: str) -> tuple[GPT2LMHeadModel, GPT2LMHeadModel, Texts]:
    torch.manual_seed(0)
    teacher = GPT2LMHeadModel(GPT2Config(**(TINY if arguments.tiny else {}))).to(device).eval().requires_grad_(False)
    depth = teacher.config.n_layer
    student = student_from_layers(teacher, KEEP.get(depth, list(range(0, depth, 2)))).to(device).train()
    return teacher, student, Texts(arguments.pairs, arguments.length, teacher.config.vocab_size)


def step_of(kind: str, compiled: bool, arguments: argparse.Namespace, device: str) -> tuple[Callable[[], None], float]:
    """A whole training step, and the operations of its products."""
    teacher, student, texts = models_of(arguments, device)
    if compiled:
        compile_layers(teacher, student)
    op = "max" if kind == "era" else "none"
    task = DistillTask(student, teacher, op=op, chunk_rows=arguments.fastest)
    batch = collate(texts, op=op, augment=True).to(device)
    ids_NT = batch.ids_NT
    chunked = liger_loss(compiled) if kind == "liger" else None

    def hidden(model: GPT2LMHeadModel) -> torch.Tensor:
        return model.base_model(input_ids=ids_NT, use_cache=False).last_hidden_state[:, :-1].flatten(0, 1)

    def loss() -> torch.Tensor:
        if kind in ("plain", "era"):
            return task(batch)[0] / batch.num_tokens
        if chunked is not None:
            with torch.no_grad():
                states = hidden(teacher)
            heads = student.lm_head.weight, teacher.lm_head.weight
            return chunked(hidden(student), heads[0], states, heads[1], ids_NT[:, 1:].flatten())
        with torch.no_grad():
            target = teacher(input_ids=ids_NT, use_cache=False).logits
        if kind == "bare":
            return student(input_ids=ids_NT, labels=ids_NT, use_cache=False).loss
        logits = student(input_ids=ids_NT, use_cache=False).logits[:, :-1].flatten(0, 1)
        return dense_loss(logits, target[:, :-1].flatten(0, 1), ids_NT[:, 1:].flatten())

    optimizer = build_optimizer(task, lr=1e-5, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.0)

    def step() -> None:
        with torch.autocast(device, torch.bfloat16):
            value = loss()
        value.backward()
        optimizer.step()
        optimizer.zero_grad()

    tokens = arguments.pairs * 2 * arguments.length
    flop = flop_a_token(teacher, arguments.length) + 3 * flop_a_token(student, arguments.length)
    return step, tokens * flop


def head_and_loss_of(kind: str, rows: int, arguments: argparse.Namespace, device: str) -> Callable[[], None]:
    """Both heads and the loss, forward and backward, from hidden states. rows: loss.chunk_rows."""
    teacher, student, texts = models_of(arguments, device)
    batch = collate(texts, op="max" if kind == "era" else "none", augment=True).to(device)
    student_PD, teacher_PD = torch.randn(2, batch.ids_NT.numel(), teacher.config.n_embd, device=device)
    student_PD.requires_grad_()
    heads = student.lm_head.weight, teacher.lm_head.weight
    chunked = liger_loss(compiled=not arguments.eager_only) if kind == "liger" else None
    masks = {"perturb_R": batch.perturb_R, "trained_R": batch.trained_R, "num_pairs": batch.num_pairs}
    places = {"row_R": batch.row_R, "label_R": batch.label_R, "context_R": batch.ids_NT.flatten()[batch.row_R]}
    options = {"op": "max", "tau": TAU, "kd_weight": 0.5, "lm_weight": 0.5, "chunk_rows": rows}

    def loss() -> torch.Tensor:
        if kind == "era":
            states = model_rows(teacher_PD, heads[1])
            return distillation_loss(student_PD, heads[0], states, **places, **masks, **options)[0] / batch.num_tokens
        inputs = student_PD[batch.row_R], teacher_PD[batch.row_R]
        if chunked is not None:
            return chunked(inputs[0], heads[0], inputs[1], heads[1], batch.label_R)
        with torch.no_grad():
            target = F.linear(inputs[1], heads[1])
        return dense_loss(F.linear(inputs[0], heads[0]), target, batch.label_R)

    def run() -> None:
        with torch.autocast(device, torch.bfloat16):
            value = loss()
        value.backward()
        student_PD.grad = heads[0].grad = None

    return run


def timed(run: Callable[[], None], steps: int, device: str) -> tuple[float, float]:
    """Seconds of one call, the mean of `steps` after three others, and the peak of the memory held in GB."""
    for _ in range(3):
        run()
    synchronize(device)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    for _ in range(steps):
        run()
    synchronize(device)
    seconds = (time.perf_counter() - start) / steps
    return seconds, torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else math.nan


def whole_steps(arguments: argparse.Namespace, device: str, peak: float) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    tokens = arguments.pairs * 2 * arguments.length
    for compiled in (False,) if arguments.eager_only else (False, True):
        for kind in KINDS:
            gc.collect()  # models of an earlier kind, which hold themselves once compiled
            step, flop = step_of(kind, compiled, arguments, device)
            seconds, memory = timed(step, arguments.steps, device)
            del step
            row = {"tokens_per_second": tokens / seconds, "memory_gb": memory, "share_of_peak": flop / seconds / peak}
            label = f"{kind} {'compiled' if compiled else 'eager'}"
            found[label] = row
            speed = f"{row['tokens_per_second']:12,.0f} tokens/s {memory:7.1f} GB"
            print(f"{label:<16}{speed} {row['share_of_peak']:7.1%} of the peak", flush=True)
    return found


def heads_and_losses(arguments: argparse.Namespace, device: str) -> dict[str, float]:
    """ms per 8,192 tokens, by kind; of era by chunk_rows too."""
    found: dict[str, float] = {}
    tokens = arguments.pairs * 2 * arguments.length
    kinds = [("era", rows) for rows in arguments.chunk_rows] + [
        (kind, 0) for kind in KINDS if kind in ("dense", "liger")
    ]
    for kind, rows in kinds:
        gc.collect()
        run = head_and_loss_of(kind, rows, arguments, device)
        label = f"{kind} {rows}" if rows else kind
        found[label] = timed(run, arguments.steps, device)[0] * 1000 * 8192 / tokens
        print(f"{label:<16}{found[label]:12.2f} ms for head and loss of 8,192 tokens", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=4, help="texts, each with its counterfactual")
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--chunk_rows", type=int, nargs="+", default=[256, 1024, 4096], help="of the loss")
    parser.add_argument("--eager_only", action="store_true", help="without torch.compile")
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not arguments.tiny:
        sys.exit("error: no GPU here; --tiny runs a small model on the CPU, to see that it works")
    peak = matmul_peak(device, 256 if arguments.tiny else 8192)
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    print(f"{name}: {peak / 1e12:.2f} TFLOP/s in a bfloat16 product; torch {torch.__version__}")
    losses = heads_and_losses(arguments, device)
    best = arguments.fastest = min(arguments.chunk_rows, key=lambda rows: losses[f"era {rows}"])
    steps = whole_steps(arguments, device, peak)
    how = "eager" if arguments.eager_only else "compiled"
    speed = {label: row["tokens_per_second"] for label, row in steps.items()}
    era, liger = steps[f"era {how}"], speed.get(f"liger {how}")
    figures = {
        "peak_tflops": peak / 1e12,
        "tokens_per_second": era["tokens_per_second"],
        "plain_tokens_per_second": speed[f"plain {how}"],
        "share_of_peak": era["share_of_peak"],
        "memory_gb": None if math.isnan(era["memory_gb"]) else era["memory_gb"],
        "head_and_loss_ms": losses[f"era {best}"],
        "chunk_rows": best,
        "dense_head_and_loss_ms": losses["dense"],
        "liger_head_and_loss_ms": losses.get("liger"),
        "era_over_dense_loop": era["tokens_per_second"] / speed["dense eager"],
        "era_over_liger": liger and era["tokens_per_second"] / liger,
        "era_over_bare_time": speed[f"bare {how}"] / era["tokens_per_second"],
    }
    print(json.dumps({key: value and float(f"{value:.4g}") for key, value in figures.items()}))


if __name__ == "__main__":
    main()
