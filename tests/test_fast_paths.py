"""What makes a step cheaper changes nothing beyond rounding: autocast, fused AdamW, SDPA, checkpointing, compile."""

import copy
from types import SimpleNamespace

import pytest
import torch
from test_task import gpt2, pairs

from counterfactuals.tokens.batch import collate
from debias import models
from debias.optim import build_optimizer
from debias.task import DistillTask


@pytest.fixture
def task() -> DistillTask:
    teacher = gpt2()
    return DistillTask(models.student_from_layers(teacher, [0, 2]), teacher, op="max", chunk_rows=16)


def step(task: DistillTask, dtype: torch.dtype | None = None) -> tuple[float, torch.Tensor]:
    """Loss and all gradients in a row, in training mode."""
    task.train().zero_grad()
    with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
        loss, _ = task(collate(pairs(), op="max", augment=True))
    loss.backward()
    return float(loss), torch.cat([p.grad.flatten() for p in task.parameters()])


@pytest.mark.parametrize(("dtype", "loss_error", "gradient_error"), [("bfloat16", 0.01, 0.05), ("float16", 1e-3, 0.01)])
def test_autocast(dtype, loss_error, gradient_error, task):
    exact, exact_gradient = step(task)
    rough, gradient = step(task, getattr(torch, dtype))
    assert gradient.dtype == torch.float32
    assert rough == pytest.approx(exact, rel=loss_error) and rough != exact
    assert float((gradient - exact_gradient).norm() / exact_gradient.norm()) < gradient_error


def test_fused_adamw_is_adamw(task):
    other = copy.deepcopy(task.student)
    fused = build_optimizer(task, lr=1e-2, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.1)
    assert all(group["fused"] for group in fused.param_groups)
    matrices = [p for p in other.parameters() if p.dim() >= 2]
    vectors = [p for p in other.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    plain = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.98), eps=1e-6, foreach=False, fused=False)
    for _ in range(5):
        step(task)
        for mine, yours in zip(task.student.parameters(), other.parameters()):
            yours.grad = mine.grad.clone()
        fused.step()
        plain.step()
        for mine, yours in zip(task.student.parameters(), other.parameters()):
            torch.testing.assert_close(mine, yours, rtol=1e-5, atol=1e-6)


def test_attention_is_sdpa_and_equals_the_written_out_one(task):
    assert task.student.config._attn_implementation == task.teacher.config._attn_implementation == "sdpa"
    loss, gradient = step(task)
    for model in (task.student, task.teacher):
        model.set_attn_implementation("eager")
    eager, eager_gradient = step(task)
    assert eager == pytest.approx(loss, rel=1e-5)
    torch.testing.assert_close(eager_gradient, gradient, rtol=1e-3, atol=1e-4)


@pytest.mark.filterwarnings("error::FutureWarning")  # of transformers, about names it has given up
def test_activation_checkpointing(task):
    loss, gradient = step(task)
    calls = []
    task.student.base_model.h[0].attn.register_forward_pre_hook(lambda *_: calls.append(1))
    models.checkpoint_activations(task.student)
    again, same = step(task)
    assert len(calls) == 2  # forward, and once more in the backward pass
    assert again == loss
    torch.testing.assert_close(same, gradient, rtol=1e-5, atol=1e-6)


def test_activation_checkpointing_of_a_transformers_that_knows_the_older_name_alone():
    older = SimpleNamespace(gradient_checkpointing_enable=lambda options: given.append(options))
    given: list[dict] = []
    models.checkpoint_activations(older)
    assert given == [{"use_reentrant": False}]


@pytest.mark.slow
def test_compiled_layers(task):
    loss, gradient = step(task)
    names = list(task.state_dict())
    models.compile_layers(task.student, task.teacher)
    compiled, same = step(task)
    assert list(task.state_dict()) == names  # checkpoints stay interchangeable
    assert compiled == pytest.approx(loss, rel=1e-5)
    torch.testing.assert_close(same, gradient, rtol=1e-3, atol=1e-4)


def test_compiled_attention_stays_causal_and_every_model_is_compiled(monkeypatch):
    """PyTorch keeps so many versions of a function (eight; here one), and runs a further model as it is written."""
    attention = []

    def backend(graph, inputs):
        nodes = [node.kwargs for node in graph.graph.nodes if "scaled_dot_product" in str(node.target)]
        attention.extend((kwargs["attn_mask"], kwargs["is_causal"]) for kwargs in nodes)
        return graph.forward

    original = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **given: original(self, backend=backend, **given))
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 1)
    monkeypatch.setattr(torch._dynamo.config, "fail_on_recompile_limit_hit", True)
    for width in (16, 32):
        model = gpt2(3, width=width)
        models.compile_layers(model)
        model.base_model(input_ids=torch.zeros(2, 7, dtype=torch.long), use_cache=False)
    assert attention == [(None, True)] * 2  # one graph for all blocks of a model
