"""Clipping text by text against a loop over texts, and what a private step adds to it."""

import copy
import dataclasses
import itertools
import math

import numpy as np
import pytest
import test_families
import torch
from test_task import VOCABULARY, gpt2, pairs
from transformers import AutoConfig, AutoModelForCausalLM

from counterfactuals.tokens.align import AlignedPair
from counterfactuals.tokens.batch import collate
from debias import models
from debias.ops import OPS
from debias.task import DistillTask
from privacy import clip
from privacy.account import Schedule
from privacy.clip import UnitGradients, Units
from privacy.mechanism import Mechanism
from privacy.noise import Keys

SMALL = {"vocab_size": VOCABULARY, "hidden_size": 16, "num_attention_heads": 2, "max_position_embeddings": 64}
SMALL |= {"intermediate_size": 24, "initializer_range": 0.3}
FAMILIES = {
    "gpt2": SMALL | {"n_layer": 4},
    "gpt_neo": SMALL | {"num_layers": 4, "num_heads": 2, "attention_types": [[["global"], 4]]},
    "gpt_neox": SMALL | {"num_hidden_layers": 4},
    "llama": SMALL | {"num_hidden_layers": 4},
    "qwen2": SMALL | {"num_hidden_layers": 4, "num_key_value_heads": 1},
}
REFUSED = ("apertus", "gemma2", "gemma3_text", "gemma3", "opt", "falcon", "mamba")
TEXTS = np.array([0, 0, 1, 2, 2, 2, 3, 4])  # of the eight pairs: texts of one, two and three windows
KEYS = Keys(b"s" * 32, b"a test")


def model(family: str, tied: bool, seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    config = AutoConfig.for_model(family, **FAMILIES[family], tie_word_embeddings=tied)
    models.set_dropout(made := AutoModelForCausalLM.from_config(config), 0.0)
    return made


def task_of(teacher, dtype=torch.float64, **options) -> DistillTask:
    torch.manual_seed(1)
    student = models.student_from_layers(teacher, [0, 2])
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return DistillTask(student.to(dtype), copy.deepcopy(teacher).to(dtype), chunk_rows=16, **options)


def looped(task: DistillTask, batch) -> list[dict[str, torch.Tensor]]:
    """The gradient of each text, by a pass in which only its rows are trained."""
    found = []
    unit_R = batch.unit_N[batch.row_R // batch.ids_NT.shape[1]]
    for unit in range(int(batch.unit_N.max()) + 1):
        task.zero_grad()
        loss, _ = task(dataclasses.replace(batch, trained_R=batch.trained_R & (unit_R == unit)))
        loss.backward()
        found.append({name: p.grad.clone() for name, p in task.named_parameters() if p.grad is not None})
    task.zero_grad()
    return found


def norms(gradients: list[dict[str, torch.Tensor]]) -> torch.Tensor:
    return torch.stack([torch.stack([g.square().sum() for g in own.values()]).sum().sqrt() for own in gradients])


def check(task: DistillTask, *, tolerance: float, made=None, **collation) -> None:
    """Norms and the clipped sum equal those of the loop; half of the texts are clipped."""
    batch = collate(made or pairs(), units=TEXTS, **collation)
    assert set(batch.unit_N.tolist()) == set(TEXTS.tolist())  # a counterfactual is no unit of its own
    expected = looped(task, batch)
    norm_U = norms(expected)
    bound = float(norm_U.median())
    named = {name: parameter for name, parameter in task.named_parameters() if parameter.requires_grad}
    gradients, total = UnitGradients(task), {}
    loss, _ = task(batch)
    got = gradients.add(loss, total, lambda norm: (bound / norm).clamp(max=1))
    torch.testing.assert_close(got, norm_U, rtol=tolerance, atol=0)
    for name, parameter in named.items():
        wanted = sum(own[name] * min(1.0, bound / float(n)) for own, n in zip(expected, norm_U))
        scale = float(wanted.norm()) / math.sqrt(wanted.numel())
        torch.testing.assert_close(total[parameter], wanted, rtol=tolerance, atol=10 * tolerance * scale)
        assert parameter.grad is None


CASES = [
    {"op": "none"},
    {"op": "none", "augment": True},
    {"op": "max", "augment": True},
    {"op": "swap", "augment": True, "perturb": "original"},
]


@pytest.mark.parametrize(("family", "tied"), [*itertools.product(FAMILIES, [True, False])])
def test_clipping_equals_a_loop_over_texts(family, tied):
    case = CASES[list(FAMILIES).index(family) % len(CASES)]
    check(task_of(model(family, tied), op="max"), tolerance=1e-12, op="max", augment=True)
    check(task_of(model(family, tied), torch.float32, op=case["op"]), tolerance=1e-4, **case)


@pytest.mark.parametrize("kind", [kind for kind in test_families.FAMILIES if kind != "mixtral"])  # no float64
def test_any_family_is_clipped_exactly_or_refused(kind):
    """Scaled, capped and biased heads among them."""
    made = test_families.tiny(kind)
    models.set_dropout(made, 0.0)
    try:
        check(task_of(made, op="max"), tolerance=1e-7, op="max", augment=True)
    except ValueError as error:
        assert str(error).startswith("privacy: ") and kind in REFUSED
    else:
        assert kind not in REFUSED


def test_low_rank_matrices_are_clipped_exactly():
    task = task_of(gpt2(), op="max")
    models.add_lora(task.student, rank=2)
    for name, parameter in task.named_parameters():
        torch.nn.init.normal_(parameter) if "lora_B" in name else None
    check(task.double(), tolerance=1e-12, op="max", augment=True)


@pytest.mark.parametrize("op", OPS)
def test_every_op_is_clipped_exactly(op):
    for augment in (False, True):
        check(task_of(model("gpt2", True), op=op), tolerance=1e-12, op=op, augment=augment)


@pytest.mark.parametrize("target", ["mean", "own"])
def test_hidden_states_are_clipped_exactly(target):
    options = {"hidden_weight": 0.7, "hidden_layers": [(1, 2), (-1, -1)], "hidden_target": target}
    task = task_of(model("gpt2", True), op="max", **options)
    check(task, tolerance=1e-6, op="max", couple=target == "mean", augment=True)  # that loss is in float32


@pytest.mark.parametrize("op", ["none", "max", "swap"])
def test_one_side_of_each_pair_is_clipped_exactly(op):
    """counterfactual.augment: one. Windows of a text are seen from different sides; the other side only serves."""
    made = [pair.exchanged() if n % 2 else pair for n, pair in enumerate(pairs())]
    check(task_of(model("gpt2", True), op=op), made=made, tolerance=1e-12, op=op)


@pytest.mark.parametrize("family", FAMILIES)
def test_under_autocast_what_is_added_has_the_norm_that_was_clipped(family):
    """bf16 rounds the gradients, not the guarantee: each text's share of the sum is in float32, and at the bound."""
    batch = collate(pairs(), units=TEXTS, op="max", augment=True)
    task = task_of(model(family, True), torch.float32, op="max")
    with torch.autocast("cpu", torch.bfloat16):
        rounded = norms(looped(task, batch))
    bound, gradients = float(rounded.min()) / 2, UnitGradients(task)
    for unit in range(5):
        only = torch.nn.functional.one_hot(torch.tensor(unit), 5)
        with torch.autocast("cpu", torch.bfloat16):
            loss, _ = task(batch)
        total: dict = {}
        norm_U = gradients.add(loss, total, lambda norm_U: only * (bound / norm_U).clamp(max=1))  # noqa: B023
        torch.testing.assert_close(norm_U, rounded, rtol=0.02, atol=0)
        assert all(found.dtype == torch.float32 for found in total.values())
        added = torch.stack([found.square().sum() for found in total.values()]).sum().sqrt()
        assert float(added) == pytest.approx(bound, rel=1e-4)


def test_a_wide_head_and_wide_layers_are_clipped_exactly():
    """Rows and positions are few against the widths here, so that the norms come from inner products."""
    made = [AlignedPair(*[np.arange(n, n + 4, dtype=np.int32)] * 2, np.arange(4, dtype=np.int32)) for n in range(8)]
    task = task_of(gpt2(width=64))
    check(task, made=made, tolerance=1e-12)
    check(task_of(gpt2(width=64, tied=False)), made=made, tolerance=1e-12)


def test_a_text_counts_the_same_whatever_else_is_in_its_batch():
    made = pairs()
    task = task_of(gpt2(), op="max")
    gradients = UnitGradients(task)

    def norm_of(pairs, units):
        loss, _ = task(collate(pairs, units=units, op="max", augment=True))
        return gradients.add(loss, {}, torch.ones_like)

    together = norm_of(made, TEXTS)
    for unit in range(5):
        alone = norm_of([pair for pair, u in zip(made, TEXTS) if u == unit], np.zeros(int((unit == TEXTS).sum()), int))
        torch.testing.assert_close(alone, together[unit : unit + 1], rtol=1e-12, atol=0)


def test_an_evaluation_between_steps_leaves_nothing_behind():
    task, batch = task_of(gpt2(), op="max"), collate(pairs(), units=TEXTS, op="max", augment=True)
    gradients = UnitGradients(task)
    first = gradients.add(task(batch)[0], {}, torch.ones_like)
    with torch.no_grad():
        task(batch)
        task.student(batch.ids_NT[:1])
    assert torch.equal(gradients.add(task(batch)[0], {}, torch.ones_like), first)


def without_cross_term(weight, units, unit_R, h, g, tied):
    apart = clip.head(weight, units, unit_R, h, g, None)
    return clip.Part(apart.square_U.index_add(0, tied.unit_S, tied.row_SX.square().sum(1)), apart.total)


def test_a_pair_as_two_units_or_uses_apart_are_seen(monkeypatch):
    """What the checks above would miss if they were weak: the norm of a pair, and of a tied weight."""
    check(task_of(gpt2(), op="max"), tolerance=1e-12, op="max", augment=True)
    head = clip.head
    monkeypatch.setattr(clip, "head", lambda *a: without_cross_term(*a) if a[-1] is not None else head(*a))
    with pytest.raises(AssertionError):
        check(task_of(gpt2(), op="max"), tolerance=1e-3, op="max", augment=True)
    monkeypatch.undo()
    monkeypatch.setattr(clip, "Units", lambda unit_N: Units(torch.arange(len(unit_N))))
    with pytest.raises(AssertionError):
        check(task_of(gpt2(), op="max"), tolerance=1e-3, op="max", augment=True)


def mechanism(task, noise=0.0, **options) -> Mechanism:
    return Mechanism(task, KEYS, Schedule(0.1, 10), **{"noise_multiplier": noise, "divisor": 4.0} | options)


def private_gradient(task, made, step=0, parts=1, **options) -> tuple[dict[str, torch.Tensor], Mechanism]:
    own = copy.deepcopy(task)
    private = mechanism(own, **options)
    for units in np.array_split(np.unique(TEXTS[: len(made)]), parts):
        chosen = np.flatnonzero(np.isin(TEXTS[: len(made)], units))
        loss, _ = own(collate([made[n] for n in chosen], units=TEXTS[chosen], op="max", augment=True))
        private.backward(loss)
    private.release(step)
    return {name: p.grad for name, p in own.named_parameters()}, private


def test_without_noise_and_bound_it_is_the_plain_step():
    """Whatever the number of texts: it is divided by the same number in every step, not by their tokens."""
    task = task_of(gpt2(), op="max")
    for count in (3, 8):
        plain = copy.deepcopy(task)
        plain(collate(pairs()[:count], op="max", augment=True))[0].backward()
        for parts in (1, 2):
            found, _ = private_gradient(task, pairs()[:count], parts=parts, max_norm=math.inf)
            for name, parameter in plain.named_parameters():
                torch.testing.assert_close(found[name], parameter.grad / 4, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("clip", ["flat", "automatic", "micro"])
def test_one_text_moves_the_sum_by_the_sensitivity_at_most(clip):
    """micro: the text turns round the clipped mean of the micro-batch that it joins."""
    task = task_of(gpt2(), op="max")
    with_it, private = private_gradient(task, pairs()[:7], clip=clip, max_norm=0.5, divisor=1.0)
    without, _ = private_gradient(task, pairs()[:6], clip=clip, max_norm=0.5, divisor=1.0)
    moved = torch.stack([(with_it[name] - without[name]).square().sum() for name in without]).sum().sqrt()
    assert private.sensitivity == {"flat": 0.5, "automatic": 1.0, "micro": 1.0}[clip]
    assert 0.05 * private.sensitivity < float(moved) <= private.sensitivity * (1 + 1e-9)


def test_noise_is_added_once_however_many_ranks_there_are(monkeypatch):
    """Its deviation is noise × sensitivity / divisor after the sums of three ranks were added."""
    torch.manual_seed(0)
    task = task_of(gpt2(width=64))
    for name, options, deviation in (
        ("flat", {"max_norm": 2.0}, 3 * 2.0),
        ("automatic", {}, 3 * 1.0),
        ("micro", {"max_norm": 2.0}, 3 * 4.0),
        ("flat", {"max_norm": 2.0, "adaptive": 0.5}, 3 * 2.0 / math.sqrt(0.99)),
    ):
        private = mechanism(copy.deepcopy(task), noise=3.0, clip=name, **options)
        monkeypatch.setattr("privacy.mechanism._add_ranks_", lambda total: total.mul_(3))
        private.release(0)
        noise = torch.cat([p.grad.ravel() for p in private._parameters])
        assert len(noise) > 1e5 and float(noise.std()) == pytest.approx(deviation / 4, rel=0.01)


def test_noise_decays_from_epoch_to_epoch():
    task = task_of(gpt2(width=64))
    schedule = Schedule(0.1, 30, decay=0.5, epoch_steps=10)
    private = Mechanism(task, KEYS, schedule, noise_multiplier=1.0, divisor=1.0, clip="automatic")
    for step, deviation in ((0, 1), (9, 1), (10, 0.5), (29, 0.25)):
        private.release(step)
        noise = torch.cat([p.grad.ravel() for p in private._parameters])
        assert float(noise.std()) == pytest.approx(deviation, rel=0.01)


def test_the_bound_follows_a_quantile_of_the_norms():
    task = task_of(gpt2(), op="max")
    batch = collate(pairs(), units=TEXTS, op="max", augment=True)
    norm_U = norms(looped(task, batch)).sort().values
    own, start = copy.deepcopy(task), float(norm_U[2])
    private = mechanism(own, max_norm=start / 20, adaptive=0.5, divisor=5.0)
    for step in range(50):
        private.backward(own(batch)[0])
        private.release(step)
    assert norm_U[1] < private.max_norm < norm_U[3] and private.state() == {"max_norm": private.max_norm}


def test_layers_that_are_not_known_are_refused():
    task = task_of(gpt2())
    task.student.transformer.h[0].mlp.c_fc = torch.nn.Bilinear(2, 2, 2)
    with pytest.raises(ValueError, match=r"c_fc \(Bilinear\) cannot be clipped"):
        UnitGradients(task)
    task = task_of(gpt2())
    task.student.transformer.h[0].mlp.c_fc.weight = task.student.transformer.h[1].mlp.c_fc.weight
    with pytest.raises(ValueError, match="shares its parameters with another layer"):
        UnitGradients(task)
    task = task_of(gpt2())
    task.student.transformer.h[1].mlp = task.student.transformer.h[0].mlp
    gradients = UnitGradients(task)
    with pytest.raises(ValueError, match="is used twice in one pass"):
        gradients.add(task(collate(pairs(), units=TEXTS))[0], {}, torch.ones_like)
