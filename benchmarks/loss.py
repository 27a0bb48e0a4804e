"""Time and memory of the fused distillation loss against the plain dense formula and Liger's chunked one, in one run.

    python benchmarks/loss.py [--rows 1024 --vocabulary 50257 --width 768 --op max]

Forward and backward of KL (τ = 2) and cross-entropy over student and teacher hidden states, float32. "pairs": the rows
are couples, combined by --op; "reversed": with the counterpart's row carried through a role reversal of 700 tokens,
about as many as the gender lexicon has in GPT-2's vocabulary. Times are minima over rounds that take each kind in turn.
Memory is the peak above the inputs: of a process's resident set (Linux), or of the GPU's allocator; each kind has a
process of its own. The last line is JSON; figures of Liger are null where liger-kernel is not installed.
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

import numpy as np
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from counterfactuals.tokens.vocabulary import RoleTokens
from debias.losses import distillation_loss, model_rows
from debias.ops import VocabularyRoles, perturb

TAU, WEIGHT, ROLES = 2.0, 0.5, 700


def inputs(rows: int, vocabulary: int, width: int, device: str) -> dict[str, torch.Tensor]:
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


def fused(x: dict, op: str, roles: VocabularyRoles | None = None) -> torch.Tensor:
    rows = len(x["label_R"])
    ones = torch.ones(rows, dtype=torch.bool)
    masks = {"perturb_R": ones, "trained_R": ones, "num_pairs": 0 if op == "none" else rows // 2}
    order = torch.arange(rows, device=x["label_R"].device)
    places = {"row_R": order, "label_R": x["label_R"], "context_R": x["label_R"]}
    options = {"op": op, "roles": roles, "tau": TAU, "kd_weight": WEIGHT, "lm_weight": WEIGHT}
    teacher = model_rows(x["teacher_hidden_PE"], x["teacher_head_VE"])
    return distillation_loss(x["hidden_PD"], x["head_VD"], teacher, **places, **masks, **options)[0]


def dense(x: dict, op: str) -> torch.Tensor:
    """As a user would write it: whole logits of both models, F.kl_div and F.cross_entropy."""
    student = x["hidden_PD"] @ x["head_VD"].T
    with torch.no_grad():
        target = (x["teacher_hidden_PE"] @ x["teacher_head_VE"].T).log_softmax(-1)
        if op != "none":
            mate = target.view(-1, 2, target.shape[-1]).flip(1).reshape(target.shape)
            target = perturb(op, target, mate)
        target = (target / TAU).softmax(-1)
    kd = F.kl_div((student / TAU).log_softmax(-1), target, reduction="sum") * TAU**2
    return WEIGHT * kd + WEIGHT * F.cross_entropy(student, x["label_R"], reduction="sum")


def liger(x: dict, compiled: bool) -> torch.Tensor:
    """beta 0 is the forward KL; without τ², so its weight has it, and divided by the rows."""
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

    options = {"beta": 0.0, "temperature": TAU, "compiled": compiled, "chunk_size": min(256, len(x["label_R"]))}
    loss = LigerFusedLinearJSDLoss(weight_hard_loss=WEIGHT, weight_soft_loss=WEIGHT * TAU**2, **options)
    models = (x["hidden_PD"], x["head_VD"], x["teacher_hidden_PE"], x["teacher_head_VE"])
    return loss(*models, x["label_R"]) * len(x["label_R"])


def kinds(arguments: argparse.Namespace, device: str) -> dict[str, Callable[[dict], torch.Tensor]]:
    draw = np.random.default_rng(0)
    token_L = draw.permutation(arguments.vocabulary)[: min(ROLES, arguments.vocabulary // 2 * 2)]
    set_L = np.arange(len(token_L))
    in_word_V = draw.random(arguments.vocabulary) < 0.8
    roles = VocabularyRoles.build(
        RoleTokens(token_L, set_L, set_L ^ 1, draw.random(len(set_L)) < 0.3, in_word_V), device
    )
    found: dict[str, Callable[[dict], torch.Tensor]] = {
        "fused": lambda x: fused(x, "none"),
        "fused_pairs": lambda x: fused(x, arguments.op),
        "fused_reversed": lambda x: fused(x, arguments.op, roles),
        "dense": lambda x: dense(x, "none"),
        "dense_pairs": lambda x: dense(x, arguments.op),
    }
    if importlib.util.find_spec("liger_kernel"):
        found |= {"liger": lambda x: liger(x, False), "liger_compiled": lambda x: liger(x, True)}
    return found


def seconds(run: Callable[[dict], torch.Tensor], x: dict) -> tuple[float, float]:
    """How long forward and backward take, and the loss."""
    x["hidden_PD"].grad = x["head_VD"].grad = None
    start = time.perf_counter()
    loss = run(x)
    loss.backward()
    if x["label_R"].is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start, float(loss.detach())


def memory_mb(run: Callable[[dict], torch.Tensor], x: dict) -> float:
    """Peak during forward and backward, above what is held before."""
    if x["label_R"].is_cuda:
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        seconds(run, x)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    small = inputs(8, len(x["head_VD"]), 8, "cpu")  # loads what the first call loads
    seconds(run, small)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is resident
    before = _peak_mb()
    seconds(run, x)
    return _peak_mb() - before


def _peak_mb() -> float:
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 2**10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--vocabulary", type=int, default=50257)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--op", default="max")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory_of", help="print the memory of this kind alone (used by the benchmark itself)")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    x = inputs(arguments.rows, arguments.vocabulary, arguments.width, device)
    runs = kinds(arguments, device)
    if arguments.memory_of:
        print(memory_mb(runs[arguments.memory_of], x))
        return
    times: dict[str, list[float]] = {kind: [] for kind in runs}
    losses: dict[str, float] = {}
    for _ in range(arguments.repeats):
        for kind, run in runs.items():
            took, losses[kind] = seconds(run, x)
            times[kind].append(took)
    best = {kind: min(took) for kind, took in times.items()}
    peak = {}
    for kind in runs:
        command = [sys.executable, __file__, *sys.argv[1:], "--memory_of", kind]
        peak[kind] = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
        print(f"{kind:<15} {best[kind]:7.2f} s  {peak[kind]:7.0f} MB  loss {losses[kind]:.1f}", flush=True)

    def ratio(kind: str, *others: str) -> float | None:
        known = [best[other] for other in others if other in best]
        return round(best[kind] / min(known), 3) if known else None

    figures = {
        "peak_mb": round(peak["fused_pairs"]),
        "time_over_dense": ratio("fused", "dense"),
        "time_over_liger": ratio("fused", "liger", "liger_compiled"),
        "pairs_time_over_dense": ratio("fused_pairs", "dense"),
        "pairs_time_over_dense_pairs": ratio("fused_pairs", "dense_pairs"),
        "reversed_over_plain": ratio("fused_reversed", "fused_pairs"),
        "reversed_peak_mb": round(peak["fused_reversed"]),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
