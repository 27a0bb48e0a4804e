"""The fused loss against float64 autograd of the plain formula, and values by hand."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from counterfactuals.tokens.vocabulary import RoleTokens
from debias.losses import DIVERGENCES, distillation_loss, divergence, model_rows, role_shares
from debias.ops import OPS, VocabularyRoles, amplify, perturb

V, D, E, P = 11, 6, 5, 24
ROLES = VocabularyRoles.build(
    RoleTokens(
        token_L=np.array([0, 1, 2, 3, 4, 5]),
        set_L=np.array([0, 1, 2, 2, 3, 4]),
        partner_S=np.array([1, 0, 3, 2, 4]),
        bare_L=np.array([False, False, False, False, True, True]),
        in_word_V=np.array([True, False] * 5 + [True]),
    )
)


def problem(seed: int = 0) -> dict:
    """Nine couples and three singles over 24 positions; some rows untrained, some unperturbed."""
    g = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    order = torch.randperm(P, generator=g)[:21]
    return {
        "hidden_PD": draw(P, D).requires_grad_(),
        "head_VD": draw(V, D).requires_grad_(),
        "teacher_hidden_PE": draw(P, E),
        "teacher_head_VE": draw(V, E),
        "row_R": order,
        "label_R": torch.randint(V, (21,), generator=g),
        "perturb_R": torch.tensor([True, True, True, False] * 4 + [True, True, True, False, True]),
        "trained_R": torch.tensor([True, True, True, False] * 4 + [True, False, True, True, True]),
        "context_R": torch.randint(V, (21,), generator=g),
        "num_pairs": 9,
    }


def fused_loss(x: dict, **options):
    """distillation_loss with the problem's teacher."""
    x = dict(x)
    head = {key: x.pop(f"teacher_{key}") for key in ("bias_V", "scale", "cap") if f"teacher_{key}" in x}
    teacher = model_rows(x.pop("teacher_hidden_PE"), x.pop("teacher_head_VE"), **head)
    return distillation_loss(teacher=teacher, **x, **options)


def logits_of(hidden_PD, head_VD, bias_V=None, scale=1.0, cap=None):
    z = scale * hidden_PD @ head_VD.T + (0 if bias_V is None else bias_V)
    return cap * torch.tanh(z / cap) if cap else z


def plain_formula(x: dict, *, op, roles, kind, tau, kd_weight, lm_weight, strength=1.0, role_weight=0.0, factor=1.0):
    """One row at a time, as METHOD §1 and §2 print it."""
    heads = [{key: x[side + key] for key in ("bias_V", "scale", "cap") if side + key in x} for side in ("", "teacher_")]
    student = logits_of(x["hidden_PD"], x["head_VD"], **heads[0])[x["row_R"]]
    teacher = logits_of(x["teacher_hidden_PE"], x["teacher_head_VE"], **heads[1])[x["row_R"]].log_softmax(-1)
    kd = lm = torch.zeros((), dtype=torch.float64)
    for r in range(len(x["row_R"])):
        if not x["trained_R"][r]:
            continue
        lm = lm - student[r].log_softmax(-1)[x["label_R"][r]]
        target = teacher[r]
        if x["perturb_R"][r]:
            mate = (r + 1 if r % 2 == 0 else r - 1) if r < 2 * x["num_pairs"] else r
            options = {"roles": roles, "context_R": x["context_R"][r : r + 1], "mix": 0.3}
            combined = perturb(op, teacher[r : r + 1], teacher[mate : mate + 1], **options)[0]
            target = (1 - strength) * target + strength * combined
        if factor != 1 and (not x["perturb_R"][r] or x["turn_R"][r]):
            target = amplify(target[None], factor, roles, x["context_R"][r : r + 1])[0]
        p, q = (target / tau).softmax(-1), (student[r] / tau).softmax(-1)
        m = (p + q) / 2
        value = {
            "forward": (p * (p / q).log()).sum(),
            "reverse": (q * (q / p).log()).sum(),
            "jsd": ((p * (p / m).log()).sum() + (q * (q / m).log()).sum()) / 2,
        }[kind]
        kd = kd + tau**2 * value
        if role_weight:
            p, q = p[roles.token_L], q[roles.token_L]
            shares, own = p / p.sum(), q / q.sum()
            kd = kd + tau**2 * role_weight * p.sum().sqrt() * (shares * (shares / own).log()).sum()
    return kd_weight * kd + lm_weight * lm, kd, lm


MASKS = {  # perturb_R, trained_R of the 21 rows
    "some of each": {},
    "all": {"perturb_R": torch.ones(21, dtype=torch.bool), "trained_R": torch.ones(21, dtype=torch.bool)},
    "originals": {"trained_R": torch.tensor([True, False] * 9 + [True] * 3)},
    "whole chunks untrained": {"trained_R": torch.tensor([False] * 14 + [True, False] * 2 + [False] * 3)},
    "none perturbed": {"perturb_R": torch.zeros(21, dtype=torch.bool)},
}
WEIGHTS = {"tau": 2.0, "kd_weight": 0.7, "lm_weight": 0.4}


@pytest.mark.parametrize(("op", "kind", "roles"), itertools.product(OPS, DIVERGENCES, [None, ROLES]))
@pytest.mark.parametrize("masks", MASKS)
def test_fused_loss_and_gradients_equal_the_plain_formula(op, kind, roles, masks, monkeypatch):
    monkeypatch.setattr("debias.losses.BLOCK_BYTES", 4 * 8 * V)  # a chunk of six rows is two blocks
    x, y = problem() | MASKS[masks], problem() | MASKS[masks]
    fused = fused_loss(x, op=op, kind=kind, roles=roles, mix=0.3, chunk_rows=7, **WEIGHTS)
    plain = plain_formula(y, op=op, kind=kind, roles=roles, **WEIGHTS)
    for a, b in zip(fused, plain):
        torch.testing.assert_close(a, b)
    (fused[0] * 0.3).backward()
    (plain[0] * 0.3).backward()
    torch.testing.assert_close(x["hidden_PD"].grad, y["hidden_PD"].grad)
    torch.testing.assert_close(x["head_VD"].grad, y["head_VD"].grad)


@pytest.mark.parametrize("kind", DIVERGENCES)
@pytest.mark.parametrize(
    ("bias", "scale", "cap"), [(True, 1.0, 0), (False, 0.3, 0), (False, 1.0, 2.5), (True, 1.7, 1.5)]
)
def test_heads_with_bias_scale_and_soft_cap_have_exact_gradients(bias, scale, cap, kind, monkeypatch):
    monkeypatch.setattr("debias.losses.BLOCK_BYTES", 4 * 8 * V)
    heads = {"scale": scale, "cap": cap, "teacher_scale": 1 / scale, "teacher_cap": 2 * cap}
    x, y = problem() | heads, problem() | heads
    for problem_ in (x, y):
        for side in ("", "teacher_") if bias else ():
            problem_[f"{side}bias_V"] = torch.linspace(-1, 1, V, dtype=torch.float64).requires_grad_(not side)
    fused = fused_loss(x, op="max", kind=kind, roles=ROLES, chunk_rows=7, **WEIGHTS)
    plain = plain_formula(y, op="max", kind=kind, roles=ROLES, **WEIGHTS)
    torch.testing.assert_close(fused, plain)
    (fused[0] * 0.3).backward()
    (plain[0] * 0.3).backward()
    for key in ("hidden_PD", "head_VD", *(["bias_V"] if bias else [])):
        torch.testing.assert_close(x[key].grad, y[key].grad)


@pytest.mark.parametrize("kind", DIVERGENCES)
def test_role_shares_equal_the_plain_formula(kind):
    x, y = problem(), problem()
    options = {"op": "max", "kind": kind, "roles": ROLES, "role_weight": 0.3} | WEIGHTS
    fused, plain = fused_loss(x, mix=0.3, **options), plain_formula(y, **options)
    torch.testing.assert_close(fused[1], plain[1])
    fused[0].backward()
    plain[0].backward()
    torch.testing.assert_close(x["hidden_PD"].grad, y["hidden_PD"].grad)
    torch.testing.assert_close(x["head_VD"].grad, y["head_VD"].grad)


def test_role_shares_are_zero_where_they_agree():
    logp = torch.randn(4, V, dtype=torch.float64).log_softmax(-1)[:, :5]
    value, gradient = role_shares(logp, logp + torch.randn(4, 1))  # another mass, the same shares
    assert value.shape == (4,) and value.abs().max() < 1e-12 and gradient.abs().max() < 1e-12


@pytest.mark.parametrize(("wanted", "products"), [("both", 4), ("hidden_PD", 3), ("head_VD", 3), ("neither", 2)])
def test_only_the_gradients_that_are_wanted_are_made(wanted, products):
    """Products of matrices: one for each model's logits, one for each gradient."""

    class Counter(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.count += func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm_)
            return func(*args, **(kwargs or {}))

    x, y = problem(), problem()
    for key in ("hidden_PD", "head_VD"):
        x[key].requires_grad_(wanted in ("both", key))
    with Counter() as counter:
        total, kd, lm = fused_loss(x, op="max", **WEIGHTS)
    assert counter.count == products
    expected = fused_loss(y, op="max", **WEIGHTS)
    torch.testing.assert_close((total, kd, lm), expected)
    expected[0].backward()
    if wanted != "neither":
        total.backward()
    for key in ("hidden_PD", "head_VD"):
        torch.testing.assert_close(x[key].grad, y[key].grad if wanted in ("both", key) else None)


def test_no_trained_row_costs_and_teaches_nothing():
    x = problem() | {"trained_R": torch.zeros(21, dtype=torch.bool)}
    total, kd, lm = fused_loss(x, op="max")
    total.backward()
    assert total == kd == lm == 0 and not x["hidden_PD"].grad.any() and not x["head_VD"].grad.any()


def test_gradients_are_given_away_once():
    total = fused_loss(problem(), op="max")[0]
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="first backward"):
        total.backward()


def test_a_frozen_head_gets_no_gradient():
    x, y = problem(), problem()
    x["head_VD"].requires_grad_(False)
    fused_loss(x, op="max")[0].backward()
    fused_loss(y, op="max")[0].backward()
    assert x["head_VD"].grad is None
    torch.testing.assert_close(x["hidden_PD"].grad, y["hidden_PD"].grad)


@pytest.mark.parametrize("roles", [None, ROLES])
@pytest.mark.parametrize("op", OPS)
def test_strength_leads_from_plain_distillation_to_the_op(op, roles):
    def sums(**options):
        return [float(part.detach()) for part in fused_loss(problem(), roles=roles, mix=0.3, **options)]

    assert sums(op=op, strength=0.0) == sums(op="none")
    assert sums(op=op, strength=1.0) == sums(op=op)
    weights = {"tau": 2.0, "kd_weight": 0.5, "lm_weight": 0.5}
    plain = plain_formula(problem(), op=op, roles=roles, strength=0.5, kind="forward", **weights)
    assert sums(op=op, strength=0.5) == pytest.approx([float(part.detach()) for part in plain])


@pytest.mark.parametrize("masks", MASKS)
def test_predictions_where_a_group_is_named_are_amplified(masks, monkeypatch):
    monkeypatch.setattr("debias.losses.BLOCK_BYTES", 4 * 8 * V)
    options, told = {"op": "exp_mean", "roles": ROLES, **WEIGHTS}, {"turn_R": torch.tensor([0, 0, 1, -1, 0, 0, 1] * 3)}
    fused = fused_loss(problem() | MASKS[masks] | told, amplify=1.3, chunk_rows=7, **options)
    plain = plain_formula(problem() | MASKS[masks] | told, factor=1.3, kind="forward", **options)
    assert [float(part.detach()) for part in fused] == pytest.approx([float(part.detach()) for part in plain])


def test_liger_computes_the_same_loss():
    """An implementation of others, without pairs: its beta 0 is the forward KL, without τ², divided by the rows."""
    chunked = pytest.importorskip("liger_kernel.chunked_loss")
    x, y = problem(), problem()
    rows = torch.arange(P)
    labels = torch.arange(P) % V
    ones = torch.ones(P, dtype=torch.bool)
    masks = {"row_R": rows, "label_R": labels, "perturb_R": ~ones, "trained_R": ones, "context_R": rows, "num_pairs": 0}
    total = fused_loss(x | masks, op="none", chunk_rows=10)[0]
    weights = {"weight_hard_loss": 0.5, "weight_soft_loss": 0.5 * 4, "beta": 0.0, "temperature": 2.0}
    loss = chunked.LigerFusedLinearJSDLoss(**weights, compiled=False, chunk_size=12)
    models = [y[key] for key in ("hidden_PD", "head_VD", "teacher_hidden_PE", "teacher_head_VE")]
    (loss(*models, labels) * P).backward()
    total.backward()
    torch.testing.assert_close(total.detach().float(), (loss(*models, labels) * P).detach().float())
    torch.testing.assert_close(x["hidden_PD"].grad, y["hidden_PD"].grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(x["head_VD"].grad, y["head_VD"].grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("chunk", [2, 4, 5, 100])
def test_the_chunk_size_changes_nothing(chunk):
    one = fused_loss(problem(), op="max", roles=ROLES, chunk_rows=1000)
    other = fused_loss(problem(), op="max", roles=ROLES, chunk_rows=chunk)
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("kind", DIVERGENCES)
def test_divergence_is_zero_with_zero_gradient_at_equality(kind):
    logp = torch.randn(4, V, dtype=torch.float64).log_softmax(-1)
    value, gradient = divergence(kind, logp, logp)
    assert abs(value) < 1e-12 and gradient.abs().max() < 1e-12


def test_divergences_by_hand():
    p, q = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()
    forward = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    reverse = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    jsd = 0.5 * (
        0.5 * math.log(0.5 / 0.375)
        + 0.5 * math.log(0.5 / 0.625)
        + 0.25 * math.log(0.25 / 0.375)
        + 0.75 * math.log(0.75 / 0.625)
    )
    for kind, expected in (("forward", forward), ("reverse", reverse), ("jsd", jsd)):
        assert float(divergence(kind, p, q)[0]) == pytest.approx(expected, rel=1e-5)


def test_jsd_never_exceeds_log_2():
    p, q = torch.tensor([[40.0, -40.0]]).log_softmax(-1), torch.tensor([[-40.0, 40.0]]).log_softmax(-1)
    assert float(divergence("jsd", p, q)[0]) == pytest.approx(math.log(2), rel=1e-5)


def test_op_none_is_plain_distillation():
    x = problem()
    total, kd, lm = fused_loss(x, op="none", kd_weight=1.0, lm_weight=0.0)
    keep = x["trained_R"]
    student = (x["hidden_PD"] @ x["head_VD"].T)[x["row_R"]][keep]
    teacher = (x["teacher_hidden_PE"] @ x["teacher_head_VE"].T)[x["row_R"]][keep]
    expected = 4 * F.kl_div(
        (student / 2).log_softmax(-1), (teacher / 2).log_softmax(-1), log_target=True, reduction="sum"
    )
    torch.testing.assert_close(kd, expected.detach())
    torch.testing.assert_close(total, expected)
    assert lm == 0


def test_a_weight_of_zero_equals_an_absent_term():
    x = problem()
    with_teacher = fused_loss(x, op="max", kd_weight=0.0, lm_weight=1.0)
    del x["teacher_hidden_PE"], x["teacher_head_VE"]
    without = distillation_loss(teacher=None, **x, kd_weight=0.0, lm_weight=1.0)
    torch.testing.assert_close(with_teacher, without)
    with pytest.raises(ValueError, match=r"loss\.kd_weight.*teacher"):
        distillation_loss(teacher=None, **x, kd_weight=0.5)


@pytest.mark.parametrize("wrong", [{"tau": 0}, {"lm_weight": -1}, {"chunk_rows": 1}, {"num_pairs": 11}, {"label_R": 9}])
def test_what_cannot_be_right_is_refused(wrong):
    x = problem()
    wrong = {key: x[key][:value] if key == "label_R" else value for key, value in wrong.items()}
    with pytest.raises(ValueError, match=r"must be above 0|need one length"):
        fused_loss(x | wrong, op="max")


def test_rows_without_a_counterpart_keep_the_teachers_own_row():
    """Whatever happens to the other rows: the target of an unperturbed row does not depend on any counterpart."""
    x, y = problem(), problem()
    only = torch.zeros(21, dtype=torch.bool)
    only[3] = only[19] = True  # unperturbed, one in a couple and one single
    y["teacher_hidden_PE"] = y["teacher_hidden_PE"].clone()
    other = torch.ones(P, dtype=torch.bool)
    other[y["row_R"][only]] = False
    y["teacher_hidden_PE"][other] = 0.0
    a = fused_loss(x | {"trained_R": only}, op="swap", roles=ROLES)
    b = fused_loss(y | {"trained_R": only}, op="swap", roles=ROLES)
    assert torch.equal(a[1], b[1])


def test_half_precision_hidden_states_give_float32_sums():
    x = {k: v.to(torch.bfloat16) if torch.is_tensor(v) and v.is_floating_point() else v for k, v in problem().items()}
    x["hidden_PD"] = x["hidden_PD"].detach().requires_grad_()
    x["head_VD"] = x["head_VD"].detach().requires_grad_()
    total, kd, _ = fused_loss(x, op="max")
    total.backward()
    assert total.dtype == kd.dtype == torch.float32
    assert x["hidden_PD"].grad.dtype == x["head_VD"].grad.dtype == torch.bfloat16
    exact = fused_loss(problem(), op="max")
    torch.testing.assert_close(total.double(), exact[0].detach(), rtol=0.03, atol=0.1)
