"""Time and memory of the fused distillation loss against the plain dense formula, in one run.

    python benchmarks/loss.py [--rows 1024 --vocabulary 50257 --width 768 --op max]

Forward and backward of KL (τ = 2) and cross-entropy over student and teacher hidden states, float32. Memory is the
growth of the process's peak resident set above the inputs (CPU) or of the allocator's peak (GPU), each in a process of
its own. The last line is JSON with the ratios.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from debias.losses import distillation_loss, model_rows
from debias.ops import perturb

KINDS = ("fused", "fused_pairs", "dense", "dense_pairs")


def inputs(rows: int, vocabulary: int, width: int, device: str) -> dict:
    g = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return (torch.randn(*shape, generator=g) * 0.1).to(device)

    return {
        "hidden_PD": draw(rows, width).requires_grad_(),
        "head_VD": draw(vocabulary, width).requires_grad_(),
        "teacher_hidden_PE": draw(rows, width),
        "teacher_head_VE": draw(vocabulary, width),
        "label_R": torch.randint(vocabulary, (rows,), generator=g).to(device),
    }


def fused(x: dict, op: str) -> None:
    rows = len(x["label_R"])
    ones = torch.ones(rows, dtype=torch.bool, device=x["label_R"].device)
    order = torch.arange(rows, device=ones.device)
    pairs = 0 if op == "none" else rows // 2
    rows_of = {"row_R": order, "label_R": x["label_R"], "perturb_R": ones, "trained_R": ones, "context_R": order}
    teacher = model_rows(x["teacher_hidden_PE"], x["teacher_head_VE"])
    distillation_loss(x["hidden_PD"], x["head_VD"], teacher, **rows_of, num_pairs=pairs, op=op, chunk_rows=128)[
        0
    ].backward()


def dense(x: dict, op: str) -> None:
    """As a user would write it: whole logits of both models, F.kl_div and F.cross_entropy."""
    student = x["hidden_PD"] @ x["head_VD"].T
    with torch.no_grad():
        target = (x["teacher_hidden_PE"] @ x["teacher_head_VE"].T).log_softmax(-1)
        if op != "none":
            mate = target.view(-1, 2, target.shape[-1]).flip(1).reshape(target.shape)
            target = perturb(op, target, mate)
        target = (target / 2).softmax(-1)
    kd = F.kl_div((student / 2).log_softmax(-1), target, reduction="sum") * 4
    (kd / 2 + F.cross_entropy(student, x["label_R"], reduction="sum") / 2).backward()


def measure(kind: str, arguments: argparse.Namespace) -> dict[str, float]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    x = inputs(arguments.rows, arguments.vocabulary, arguments.width, device)
    run = fused if kind.startswith("fused") else dense
    op = arguments.op if kind.endswith("pairs") else "none"
    run(inputs(8, 64, arguments.width, device), op)  # loads what the first call loads

    def peak() -> float:
        if device == "cuda":
            return torch.cuda.max_memory_allocated() / 2**20
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10

    before, times = peak(), []
    for _ in range(arguments.repeats):
        x["hidden_PD"].grad = x["head_VD"].grad = None
        start = time.perf_counter()
        run(x, op)
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return {"seconds": min(times), "peak_mb": peak() - before}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--vocabulary", type=int, default=50257)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--op", default="max")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--kind", choices=KINDS, help="measure this one alone (used by the benchmark itself)")
    arguments = parser.parse_args()
    if arguments.kind:
        print(json.dumps(measure(arguments.kind, arguments)))
        return
    found = {}
    for kind in KINDS:
        done = subprocess.run(
            [sys.executable, __file__, *sys.argv[1:], "--kind", kind], capture_output=True, text=True, check=True
        )
        found[kind] = json.loads(done.stdout.splitlines()[-1])
        print(f"{kind:<12} {found[kind]['seconds']:7.2f} s  {found[kind]['peak_mb']:7.0f} MB", flush=True)
    ratios = {
        "peak_mb": round(found["fused_pairs"]["peak_mb"]),
        "time_over_dense": round(found["fused"]["seconds"] / found["dense"]["seconds"], 2),
        "pairs_time_over_dense": round(found["fused_pairs"]["seconds"] / found["dense_pairs"]["seconds"], 2),
        "peak_over_dense": round(found["fused_pairs"]["peak_mb"] / found["dense_pairs"]["peak_mb"], 2),
    }
    print(json.dumps(ratios))


if __name__ == "__main__":
    main()
