"""Distillation and language-model loss with analytic gradients, chunk by chunk: no (tokens × vocabulary) tensor exists.

P flat positions of a batch, R prediction rows, S of them trained, C rows of a chunk, B rows of a block; D student
width, E teacher width, V vocabulary. Losses are in nats, summed over rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable

from debias.ops import VocabularyRoles, amplify, combine

DIVERGENCES = ("forward", "reverse", "jsd")
BLOCK_BYTES = 2 << 20  # logits that a CPU works on at a time between the matrix products: they fit a core's cache

# (row_C, out_CV): writes the teacher's log-probabilities at flat positions row_C into out_CV, all finite. They come
# from a model's hidden states (model_rows) or from a cache (Codec.rows)
TeacherRows = Callable[[torch.Tensor, torch.Tensor], None]
# (hidden_PD, row_S, V): an (S, V) tensor to write the gradient in the logits of the trained rows into
Tap = Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]


def model_rows(
    hidden_PE: torch.Tensor,
    head_VD: torch.Tensor,
    bias_V: torch.Tensor | None = None,
    *,
    scale: float = 1.0,
    cap: float = 0.0,
) -> TeacherRows:
    """Rows of a teacher that has just run: log-softmax of its logits; its head is as for `distillation_loss`."""
    dtype = _product_dtype(hidden_PE)
    head_VD = head_VD.to(dtype)  # once, not for every chunk

    def write(row_C: torch.Tensor, out_CV: torch.Tensor) -> None:
        _logits(_scaled(hidden_PE[row_C], scale).to(dtype), head_VD, bias_V, cap, out_CV)
        torch.log_softmax(out_CV, -1, out=out_CV)

    return write


def divergence(kind: str, target_RV: torch.Tensor, student_RV: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Divergence of a student's log-probabilities from a target's, and its gradient in the student's logits.

    forward: KL(target ‖ student), reverse: KL(student ‖ target), jsd: Jensen–Shannon with equal weights (≤ log 2).
    All are 0 at equality. target_RV, student_RV: log-probabilities. Returns the sum over rows (a scalar) and (R, V).
    """
    check_divergence(kind)
    student = student_RV.exp()
    if kind == "forward":
        target = target_RV.exp()
        return torch.dot(target.ravel(), (target_RV - student_RV).ravel()), student.sub_(target)
    if kind == "reverse":
        difference = student_RV - target_RV
        row = (student * difference).sum(-1, keepdim=True)
        return row.sum(), student.mul_(difference.sub_(row))
    middle = torch.logaddexp(target_RV, student_RV).sub_(math.log(2))
    difference = student_RV - middle
    row = (student * difference).sum(-1, keepdim=True)
    target_part = torch.dot(target_RV.exp().ravel(), (target_RV - middle).ravel())
    return (row.sum() + target_part) / 2, student.mul_(difference.sub_(row)).div_(2)


def check_divergence(kind: str) -> None:
    """ValueError for a kind that is not in DIVERGENCES."""
    if kind not in DIVERGENCES:
        raise ValueError(f"loss.divergence: must be one of {', '.join(DIVERGENCES)}, not {kind!r}")


def role_shares(target_BL: torch.Tensor, student_BL: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """How the tokens that carry a role share their mass: √mass · KL(target's shares ‖ student's), 0 where they agree.

    In the divergence of whole predictions the shares weigh as much as the target's mass m of these tokens, often below
    a hundredth; √m lets such rows count. Log-probabilities of these tokens. Returns it for each row (B,), and its
    gradient in the student's log-probabilities (B, L).
    """
    mass_B1 = target_BL.logsumexp(-1, keepdim=True)
    share_BL, own_BL = target_BL - mass_B1, student_BL.log_softmax(-1)
    weight_B1 = (mass_B1 / 2).exp()
    shares_B = (weight_B1 * share_BL.exp() * (share_BL - own_BL)).sum(-1)
    return shares_B, weight_B1 * (own_BL.exp() - share_BL.exp())


class _Rows(NamedTuple):
    """The rows of distillation_loss on the models' device, and their masks as running counts on the host.

    before[r], perturbed_before[r]: how many of the first r rows are trained, and trained and perturbed.
    """

    row_R: torch.Tensor
    label_R: torch.Tensor
    perturb_R: torch.Tensor
    context_R: torch.Tensor
    turn_R: torch.Tensor | None
    place_S: torch.Tensor
    before: list[int]
    perturbed_before: list[int]
    num_pairs: int


class _Options(NamedTuple):
    op: str
    mix: float
    strength: float
    amplify: float
    roles: VocabularyRoles | None
    kind: str
    tau: float
    kd_weight: float
    lm_weight: float
    role_weight: float
    chunk_rows: int
    scale: float
    cap: float
    tap: Tap | None


class _FusedDistillation(torch.autograd.Function):
    """The loss and, in the same pass, the gradients that are needed; the backward pass only scales them.

    The matrix products take a chunk of rows at a time, the element-wise work between them a block of it. The gradient
    overwrites the logits, so besides the result only two chunks need memory.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_PD: torch.Tensor,
        head_VD: torch.Tensor,
        bias_V: torch.Tensor | None,
        teacher: TeacherRows | None,
        rows: _Rows,
        options: _Options,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        wide, dtype = torch.promote_types(hidden_PD.dtype, torch.float32), _product_dtype(hidden_PD)
        ctx.head_dtype, head_VD = head_VD.dtype, head_VD.to(dtype)
        ctx.bias_dtype = None if bias_V is None else bias_V.dtype
        grad_hidden = torch.zeros_like(hidden_PD) if ctx.needs_input_grad[0] else None
        grad_head = torch.zeros_like(head_VD, dtype=wide) if ctx.needs_input_grad[1] else None
        grad_bias = hidden_PD.new_zeros(len(head_VD), dtype=wide) if ctx.needs_input_grad[2] else None
        kd, lm = hidden_PD.new_zeros((), dtype=wide), hidden_PD.new_zeros((), dtype=wide)
        num_rows, chunk = (
            len(rows.row_R),
            options.chunk_rows - options.chunk_rows % 2,
        )  # a row and its counterpart stay together
        kept_SV = options.tap and options.tap(_scaled(hidden_PD, options.scale), rows.row_R[rows.place_S], len(head_VD))
        student_CV, teacher_CV = hidden_PD.new_empty(2, min(chunk, num_rows), len(head_VD), dtype=wide)
        for begin in range(0, num_rows, chunk):
            end = min(begin + chunk, num_rows)
            trained = slice(rows.before[begin], rows.before[end])
            place_C = rows.place_S[trained]
            if len(place_C) == 0:
                continue
            student_rows, logits_CV = rows.row_R[place_C], student_CV[: len(place_C)]
            hidden_CD = _scaled(hidden_PD[student_rows], options.scale).to(dtype)
            _logits(hidden_CD, head_VD, bias_V, options.cap, logits_CV)
            if teacher is not None:
                teacher(rows.row_R[begin:end], teacher_CV[: end - begin])
            for block in _blocks(begin, end, 2 * rows.num_pairs, teacher_CV):
                target_BV = None
                place_B = rows.place_S[rows.before[block.start] : rows.before[block.stop]]
                if len(place_B) == 0:
                    continue
                if teacher is not None:
                    own_BV = teacher_CV[block.start - begin : block.stop - begin]
                    target_BV = _target(own_BV, block, place_B, rows, options)
                part = slice(rows.before[block.start] - trained.start, rows.before[block.stop] - trained.start)
                block_kd, block_lm = _gradient_(logits_CV[part], rows.label_R[place_B], target_BV, options)
                kd += block_kd
                lm += block_lm
            grad_CV = logits_CV.to(dtype)
            if kept_SV is not None:
                kept_SV[trained] = grad_CV
            if grad_hidden is not None:
                grad_hidden[student_rows] = _scaled((grad_CV @ head_VD).to(grad_hidden.dtype), options.scale)
            if grad_bias is not None:
                grad_bias += logits_CV.sum(0)
            if grad_head is not None:
                if dtype == wide:
                    grad_head.addmm_(grad_CV.T, hidden_CD)
                else:
                    grad_head += grad_CV.T @ hidden_CD
        ctx.gradients = grad_hidden, grad_head, grad_bias
        ctx.mark_non_differentiable(kd, lm)
        return options.kd_weight * kd + options.lm_weight * lm, kd, lm

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_total: torch.Tensor, *_: Any) -> tuple[torch.Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError("distillation_loss: its gradients are freed by the first backward pass")
        grad_hidden, grad_head, grad_bias = ctx.gradients
        ctx.gradients = None  # so that autograd takes them over without a copy
        if grad_head is not None:
            grad_head = grad_head.mul_(grad_total).to(ctx.head_dtype)
        if grad_hidden is not None:
            grad_hidden = grad_hidden.mul_(grad_total)
        if grad_bias is not None:
            grad_bias = grad_bias.mul_(grad_total).to(ctx.bias_dtype)
        return grad_hidden, grad_head, grad_bias, None, None, None


def _product_dtype(hidden: torch.Tensor) -> torch.dtype:
    """The dtype of matrix products with these hidden states: autocast's where it is on."""
    kind = hidden.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype


def _scaled(x: torch.Tensor, scale: float) -> torch.Tensor:
    return x if scale == 1 else x * scale


def _logits(
    hidden_CD: torch.Tensor, head_VD: torch.Tensor, bias_V: torch.Tensor | None, cap: float, out_CV: torch.Tensor
) -> None:
    if hidden_CD.dtype == out_CV.dtype:
        torch.mm(hidden_CD, head_VD.T, out=out_CV)
    else:
        out_CV.copy_(hidden_CD @ head_VD.T)
    if bias_V is not None:
        out_CV += bias_V
    if cap:
        out_CV.div_(cap).tanh_().mul_(cap)


def _running_count(mask_R: torch.Tensor) -> list[int]:
    return [0, *mask_R.cumsum(0).tolist()]


def _blocks(begin: int, end: int, bound: int, chunk_CV: torch.Tensor) -> Iterator[slice]:
    """Rows [begin, end) in blocks of an even size; none crosses `bound`, after which rows have no counterpart."""
    row_bytes = chunk_CV.shape[1] * chunk_CV.element_size()
    size = max(BLOCK_BYTES // row_bytes // 2 * 2, 2) if chunk_CV.device.type == "cpu" else len(chunk_CV)
    while begin < end:
        stop = min(begin + size, end, bound if begin < bound else end)
        yield slice(begin, stop)
        begin = stop


def _target(own_BV: torch.Tensor, block: slice, place_B: torch.Tensor, rows: _Rows, options: _Options) -> torch.Tensor:
    """Target log-probabilities of the trained rows of a block: combined, amplified, then softened by tau."""
    num_trained = len(place_B)
    num_perturbed = rows.perturbed_before[block.stop] - rows.perturbed_before[block.start]
    teacher_BV, index = own_BV, place_B - block.start
    if num_trained < len(own_BV):
        own_BV = teacher_BV[index]
    perturb_B, scores_BV = rows.perturb_R[place_B], own_BV
    turn_B, context_B = None if rows.turn_R is None else rows.turn_R[place_B], rows.context_R[place_B]
    if num_perturbed:
        other_BV = teacher_BV[index ^ 1] if block.start < 2 * rows.num_pairs else own_BV
        scores_BV = combine(
            options.op,
            own_BV,
            other_BV,
            mix=options.mix,
            strength=options.strength,
            roles=options.roles,
            context_R=context_B,
            turn_R=turn_B,
        )
        if num_perturbed < num_trained:
            scores_BV = torch.where(perturb_B[:, None], scores_BV, own_BV)
    if options.roles is not None and options.amplify != 1:
        told_B = ~perturb_B if turn_B is None else ~perturb_B | (turn_B != 0)  # a group is named
        more_BV = amplify(scores_BV, options.amplify, options.roles, context_B)
        scores_BV = torch.where(told_B[:, None], more_BV, scores_BV)
    return (scores_BV / options.tau).log_softmax(-1)


def _gradient_(
    logits_BV: torch.Tensor, label_B: torch.Tensor, target_BV: torch.Tensor | None, options: _Options
) -> tuple[torch.Tensor | float, torch.Tensor | float]:
    """Overwrite the student's logits with the gradient of both losses; returns the sums of the losses, kd and lm."""
    kd: torch.Tensor | float = 0.0
    lm: torch.Tensor | float = 0.0
    tau, gradient_BV = options.tau, None
    if target_BV is not None:
        logp_BV = (logits_BV / tau).log_softmax(-1)
        kd, gradient_BV = divergence(options.kind, target_BV, logp_BV)
        if options.role_weight and options.roles is not None:
            token_L = options.roles.token_L
            shares_B, gradient_BL = role_shares(target_BV[:, token_L], logp_BV[:, token_L])
            kd = kd + options.role_weight * shares_B.sum()
            gradient_BV[:, token_L] += options.role_weight * gradient_BL
        kd = tau**2 * kd
        gradient_BV.mul_(options.kd_weight * tau)
    if options.lm_weight:
        logp_BV = logits_BV.log_softmax(-1)
        lm = -logp_BV.gather(1, label_B[:, None]).sum()
        lm_gradient_BV = logp_BV.exp_()
        lm_gradient_BV.scatter_add_(1, label_B[:, None], lm_gradient_BV.new_full((len(label_B), 1), -1.0))
        lm_gradient_BV.mul_(options.lm_weight)
        gradient_BV = lm_gradient_BV if gradient_BV is None else gradient_BV.add_(lm_gradient_BV)
    assert gradient_BV is not None
    if options.cap:  # the derivative of cap · tanh(x / cap) is 1 − (what it gives / cap)²
        gradient_BV.mul_((logits_BV / options.cap).square_().neg_().add_(1))
    logits_BV.copy_(gradient_BV)
    return kd, lm


def distillation_loss(
    hidden_PD: torch.Tensor,
    head_VD: torch.Tensor,
    teacher: TeacherRows | None,
    *,
    bias_V: torch.Tensor | None = None,
    scale: float = 1.0,
    cap: float = 0.0,
    row_R: torch.Tensor,
    label_R: torch.Tensor,
    perturb_R: torch.Tensor,
    trained_R: torch.Tensor,
    context_R: torch.Tensor,
    turn_R: torch.Tensor | None = None,
    num_pairs: int,
    op: str = "none",
    mix: float = 0.5,
    strength: float = 1.0,
    amplify: float = 1.0,
    roles: VocabularyRoles | None = None,
    kind: str = "forward",
    tau: float = 2.0,
    kd_weight: float = 0.5,
    lm_weight: float = 0.5,
    role_weight: float = 0.0,
    chunk_rows: int = 256,
    tap: Tap | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """kd_weight · τ² · divergence(target, student) + lm_weight · cross-entropy, summed over the trained rows.

    hidden_PD, head_VD: the student's last hidden states and output embeddings. Its logits are scale · hidden headᵀ +
    bias; with a cap above 0, cap · tanh(these / cap). models.head_of finds all three. Rows are those of PairBatch;
    context_R: the token at each row's position. The target is the teacher's prediction; where perturb_R it is combined
    with its counterpart's (ops.combine), at temperature 1; then, where a group is named (not perturb_R, or turn_R not
    0), amplified (ops.amplify); and then softened by τ.
    kind: see divergence. role_weight: of role_shares, which is added to the divergence. It and amplify need roles.
    tap: keeps the gradient in the student's logits, for privacy/clip.py.
    Returns (total, kd, lm): total carries the gradient; kd (with τ², before its weight) and lm are for reporting.
    Source: Gupta et al. 2022, Eq. 1, in the direction of Sanh et al. 2019.
    """
    if not kd_weight and not lm_weight:
        raise ValueError("loss.kd_weight, loss.lm_weight: both are 0, there is nothing to learn from")
    if roles is None and (role_weight or amplify != 1):
        raise ValueError("loss.role_weight, loss.amplify: need roles, the reversed vocabulary's")
    if tau <= 0 or kd_weight < 0 or lm_weight < 0 or chunk_rows < 2:
        raise ValueError("loss: tau must be above 0, weights at least 0 and chunk_rows at least 2")
    lengths = {len(one_R) for one_R in (row_R, label_R, perturb_R, trained_R, context_R, turn_R) if one_R is not None}
    if len(lengths) > 1 or not 0 <= 2 * num_pairs <= len(row_R):
        raise ValueError(f"row_R, label_R, …: need one length, at least 2 × {num_pairs} pairs; found {sorted(lengths)}")
    if kd_weight and teacher is None:
        raise ValueError("loss.kd_weight: above 0 needs a teacher")
    device = hidden_PD.device
    place_S = trained_R.nonzero().ravel().to(device)
    before, perturbed_before = _running_count(trained_R), _running_count(trained_R & perturb_R)
    perturb_R = perturb_R.to(device)
    rows = _Rows(row_R, label_R, perturb_R, context_R, turn_R, place_S, before, perturbed_before, num_pairs)
    options = _Options(
        op, mix, strength, amplify, roles, kind, tau, kd_weight, lm_weight, role_weight, chunk_rows, scale, cap, tap
    )
    return _FusedDistillation.apply(hidden_PD, head_VD, bias_V, teacher if kd_weight else None, rows, options)


def hidden_loss(
    student_PD: torch.Tensor,
    teacher_PD: torch.Tensor,
    *,
    row_R: torch.Tensor,
    perturb_R: torch.Tensor,
    trained_R: torch.Tensor,
    num_pairs: int,
) -> torch.Tensor:
    """1 − cosine of the student's hidden states with the teacher's, summed over the trained rows; 0 where they agree.

    Both have the same width. Where perturb_R, a row and its counterpart share one target, the mean of the teacher's
    states on the text and on its counterfactual, in which the effect of the role cancels. Other rows learn the
    teacher's own state. Source: Sanh et al. 2019; the mean is ours.
    """
    place_S = trained_R.nonzero().ravel()
    paired_S = perturb_R[place_S] & (place_S < 2 * num_pairs)
    counterpart_S = torch.where(paired_S, place_S ^ 1, place_S)
    own_S, other_S = row_R[place_S.to(row_R.device)], row_R[counterpart_S.to(row_R.device)]
    target_SD = torch.lerp(teacher_PD[own_S].float(), teacher_PD[other_S].float(), 0.5)
    return (1 - torch.cosine_similarity(student_PD[own_S].float(), target_SD, dim=-1)).sum()
