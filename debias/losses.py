"""Distillation and language-model loss in one chunked pass with analytic gradients: (tokens × vocabulary) never exists.

R prediction rows, C rows of a chunk, D student width, E teacher width, V vocabulary. Losses are in nats, summed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from debias.ops import VocabularyRoles, perturb

DIVERGENCES = ("forward", "reverse", "jsd")

# (row_C, out_CV): writes the teacher's log-probabilities at flat positions row_C into out_CV. Where they come from
# (a model's hidden states, a cache) is all that differs between teachers
TeacherRows = Callable[[torch.Tensor, torch.Tensor], None]


def model_rows(hidden_PE: torch.Tensor, head_VE: torch.Tensor) -> TeacherRows:
    """The rows of a teacher that has just run: log-softmax of its last hidden states times its output embeddings."""
    if torch.is_autocast_enabled(hidden_PE.device.type):  # once, not for every chunk
        head_VE = head_VE.to(torch.get_autocast_dtype(hidden_PE.device.type))

    def write(row_C: torch.Tensor, out_CV: torch.Tensor) -> None:
        torch.log_softmax(_wide(hidden_PE[row_C] @ head_VE.T), -1, out=out_CV)

    return write


def divergence(kind: str, target_RV: torch.Tensor, student_RV: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Divergence of a student's log-probabilities from a target's, and its gradient in the student's logits.

    forward: KL(target ‖ student), reverse: KL(student ‖ target), jsd: Jensen–Shannon with equal weights (≤ log 2).
    All are 0 at equality. target_RV, student_RV: log-probabilities. Returns the sum over rows (a scalar) and (R, V).
    """
    student = student_RV.exp()
    if kind == "forward":
        target = target_RV.exp()
        return (target * (target_RV - student_RV)).sum(), student - target
    if kind == "reverse":
        difference = student_RV - target_RV
        row = (student * difference).sum(-1, keepdim=True)
        return row.sum(), student * (difference - row)
    if kind == "jsd":
        middle = torch.logaddexp(target_RV, student_RV) - math.log(2)
        difference = student_RV - middle
        row = (student * difference).sum(-1, keepdim=True)
        target_part = (target_RV.exp() * (target_RV - middle)).sum()
        return (row.sum() + target_part) / 2, student * (difference - row) / 2
    raise ValueError(f"loss.divergence: must be one of {', '.join(DIVERGENCES)}, not {kind!r}")


class _FusedDistillation(torch.autograd.Function):
    """The loss and, in the same pass, its gradients; the backward pass only scales them."""

    @staticmethod
    def forward(ctx: Any, hidden_PD, head_VD, teacher, rows, options):
        row_R, label_R, perturb_R, trained_R, context_R, num_pairs = rows
        op, roles, kind, tau, kd_weight, lm_weight, chunk_rows = options
        ctx.head_dtype = head_VD.dtype
        grad_hidden = torch.zeros_like(hidden_PD)
        wide = torch.promote_types(hidden_PD.dtype, torch.float32)
        grad_head = torch.zeros_like(head_VD, dtype=wide) if ctx.needs_input_grad[1] else None
        kd, lm = hidden_PD.new_zeros((), dtype=wide), hidden_PD.new_zeros((), dtype=wide)
        if torch.is_autocast_enabled(hidden_PD.device.type):  # once, not for every chunk
            dtype = torch.get_autocast_dtype(hidden_PD.device.type)
            head_VD = head_VD.to(dtype)
        chunk_rows -= chunk_rows % 2  # a row and its counterpart stay together
        for begin in range(0, len(row_R), chunk_rows):
            part = slice(begin, begin + chunk_rows)
            trained_C = trained_R[part]
            student_rows = row_R[part][trained_C]
            hidden_CD = hidden_PD[student_rows]
            logits_CV = _wide(hidden_CD @ head_VD.T)
            labels = label_R[part][trained_C, None]
            grad_CV: torch.Tensor | None = None
            if lm_weight:
                logp_CV = logits_CV.log_softmax(-1)
                lm -= logp_CV.gather(1, labels).sum()
                grad_CV = logp_CV.exp_().mul_(lm_weight)
                grad_CV.scatter_add_(1, labels, grad_CV.new_full(labels.shape, -lm_weight))
            if kd_weight:
                target_CV = torch.empty(len(row_R[part]), len(head_VD), dtype=wide, device=head_VD.device)
                teacher(row_R[part], target_CV)
                target_CV = _targets(target_CV, perturb_R[part], num_pairs - begin // 2, op, roles, context_R[part])
                target_CV = (target_CV[trained_C] / tau).log_softmax(-1)
                value, gradient = divergence(kind, target_CV, (logits_CV / tau).log_softmax(-1))
                kd += tau**2 * value
                gradient.mul_(kd_weight * tau)
                grad_CV = gradient if grad_CV is None else grad_CV.add_(gradient)
            assert grad_CV is not None
            grad_CV = grad_CV.to(hidden_CD.dtype)
            grad_hidden[student_rows] = (grad_CV @ head_VD).to(grad_hidden.dtype)
            if grad_head is not None:
                grad_head += grad_CV.T @ hidden_CD
        ctx.save_for_backward(grad_hidden, grad_head)
        ctx.mark_non_differentiable(kd, lm)
        return kd_weight * kd + lm_weight * lm, kd, lm

    @staticmethod
    def backward(ctx: Any, grad_total, *_):
        grad_hidden, grad_head = ctx.saved_tensors
        if grad_head is not None:
            grad_head = (grad_head * grad_total).to(ctx.head_dtype)
        return (grad_hidden * grad_total).to(grad_hidden.dtype), grad_head, None, None, None


def _wide(x: torch.Tensor) -> torch.Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _targets(own_CV, perturb_C, num_pairs: int, op: str, roles, context_C) -> torch.Tensor:
    """Rows to learn from: those marked in perturb_C combined with their neighbour (couples) or themselves (singles)."""
    chosen = torch.nonzero(perturb_C).ravel()
    if op == "none" or len(chosen) == 0:
        return own_CV
    mate = torch.where(chosen < 2 * num_pairs, chosen ^ 1, chosen)
    in_word = roles.in_word_V[context_C[chosen]] if roles is not None else None
    combined = perturb(op, own_CV[chosen], own_CV[mate], roles=roles, in_word_R=in_word)
    return own_CV.index_copy(0, chosen, combined)


def distillation_loss(
    hidden_PD: torch.Tensor,
    head_VD: torch.Tensor,
    teacher: TeacherRows | None,
    *,
    row_R: torch.Tensor,
    label_R: torch.Tensor,
    perturb_R: torch.Tensor,
    trained_R: torch.Tensor,
    context_R: torch.Tensor,
    num_pairs: int,
    op: str = "none",
    roles: VocabularyRoles | None = None,
    kind: str = "forward",
    tau: float = 2.0,
    kd_weight: float = 0.5,
    lm_weight: float = 0.5,
    chunk_rows: int = 256,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """kd_weight · τ² · divergence(target, student) + lm_weight · cross-entropy, summed over the trained rows.

    hidden_PD: the student's last hidden states at flat positions P; head: its output embeddings. Rows are as in
    counterfactuals.batch.PairBatch; context_R: the token id at each row's position. The target is the teacher's
    prediction (`model_rows`, or a cache's), combined with its counterpart's by `op` at temperature 1 where perturb_R,
    and softened by τ afterwards; rows without a counterpart keep the teacher's own.
    Returns (total, kd, lm): total carries the gradient; kd (with τ², before its weight) and lm are for reporting.
    Source: Gupta et al. 2022, Eq. 1, in the direction of Sanh et al. 2019.
    """
    if not kd_weight and not lm_weight:
        raise ValueError("loss.kd_weight, loss.lm_weight: both are 0: nothing to learn from")
    if kd_weight and teacher is None:
        raise ValueError("loss.kd_weight: above 0 needs a teacher")
    return _FusedDistillation.apply(
        hidden_PD,
        head_VD,
        teacher,
        (row_R, label_R, perturb_R, trained_R, context_R, num_pairs),
        (op, roles, kind, tau, kd_weight, lm_weight, chunk_rows),
    )
