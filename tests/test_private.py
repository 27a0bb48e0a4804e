"""Clipping text by text against a loop over texts, and what a private step adds to it."""

import copy
import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from test_task import VOCABULARY, pairs
from transformers import AutoConfig, AutoModelForCausalLM

from counterfactuals.tokens.batch import collate
from debias import models
from debias.task import DistillTask
from privacy.clip import UnitGradients
from privacy.noise import Keys

SMALL = {"vocab_size": VOCABULARY, "hidden_size": 16, "num_attention_heads": 2, "max_position_embeddings": 64}
SMALL |= {"intermediate_size": 24, "initializer_range": 0.3}
FAMILIES = {
    "gpt2": {"n_embd": 16, "n_head": 2, "n_positions": 64, "n_layer": 4, "vocab_size": VOCABULARY, "initializer_range": 0.3},
    "gpt_neo": SMALL | {"num_layers": 4, "num_heads": 2, "attention_types": [[["global"], 4]]},
    "gpt_neox": SMALL | {"num_hidden_layers": 4},
    "llama": SMALL | {"num_hidden_layers": 4},
    "qwen2": SMALL | {"num_hidden_layers": 4, "num_key_value_heads": 1},
}  # fmt: skip
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


def check(task: DistillTask, *, tolerance: float, **collation) -> None:
    """Norms and the clipped sum equal those of the loop; half of the texts are clipped."""
    batch = collate(pairs(), units=TEXTS, **collation)
    expected = looped(task, batch)
    norm_U = norms(expected)
    bound = float(norm_U.median())
    named = dict(task.named_parameters())
    gradients, total = UnitGradients(task), {}
    loss, _ = task(batch)
    got = gradients.add(loss, total, lambda norm: (bound / norm).clamp(max=1))
    torch.testing.assert_close(got, norm_U, rtol=tolerance, atol=0)
    for name, parameter in named.items():
        wanted = sum(own[name] * min(1.0, bound / float(n)) for own, n in zip(expected, norm_U))
        scale = float(wanted.norm()) / math.sqrt(wanted.numel())
        torch.testing.assert_close(total[parameter], wanted, rtol=tolerance, atol=10 * tolerance * scale)
        assert parameter.grad is None


CASES = [{"op": "none"}, {"op": "none", "augment": True}, {"op": "max", "augment": True}, {"op": "swap"}]


@pytest.mark.parametrize(("family", "tied"), [*itertools.product(FAMILIES, [True, False])])
def test_clipping_equals_a_loop_over_texts(family, tied):
    for case in CASES:
        op = case["op"]
        check(task_of(model(family, tied), op=op), tolerance=1e-12, **case)
        check(task_of(model(family, tied), torch.float32, op=op), tolerance=1e-4, **case)
