import copy
import os
import socket

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import GPT2Config, GPT2LMHeadModel

from counterfactuals.tokens.align import AlignedPair
from counterfactuals.tokens.batch import collate
from counterfactuals.tokens.vocabulary import RoleTokens
from debias import models
from debias.losses import distillation_loss
from debias.ops import OPS, VocabularyRoles, perturb
from debias.task import DistillTask

VOCABULARY = 60


def gpt2(layers: int = 4, seed: int = 0, tied: bool = True, width: int = 16) -> GPT2LMHeadModel:
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=VOCABULARY, n_layer=layers, n_embd=width, tie_word_embeddings=tied, n_head=2, n_positions=64,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, initializer_range=0.3,
    )  # fmt: skip
    return GPT2LMHeadModel(config)


def pairs(count: int = 8, seed: int = 0) -> list[AlignedPair]:
    """Random texts of unequal lengths; three in four have a counterfactual with one longer word."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(count):
        ids = rng.integers(1, VOCABULARY, rng.integers(6, 20)).astype(np.int32)
        if i % 4 == 3:
            made.append(AlignedPair(ids, ids, np.arange(len(ids), dtype=np.int32)))
            continue
        cf = np.concatenate([ids[:3], rng.integers(1, VOCABULARY, 2), ids[4:]]).astype(np.int32)
        index = np.concatenate([np.arange(4), np.arange(5, len(cf))]).astype(np.int32)
        made.append(AlignedPair(ids, cf, index))
    return made


@pytest.fixture
def task() -> DistillTask:
    teacher = gpt2()
    return DistillTask(models.student_from_layers(teacher, [0, 2]), teacher, op="max", chunk_rows=16)


def test_only_the_student_is_trained_and_saved(task):
    assert all(name.startswith("student.") for name in task.state_dict())
    assert all(not p.requires_grad for p in task.teacher.parameters())
    task.train()
    assert not task.teacher.training and task.student.training
    loss, _ = task(collate(pairs(), op="max", augment=True))
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in task.parameters())


def test_what_would_train_otherwise_than_asked_is_refused(task):
    with pytest.raises(ValueError, match=r"batch: collated with op none, but the task's op is max"):
        task(collate(pairs()))
    with pytest.raises(ValueError, match=r"loss\.op: must be one of none, max"):
        DistillTask(task.student, task.teacher, op="maks")
    with pytest.raises(ValueError, match=r"loss\.divergence: must be one of forward"):
        DistillTask(task.student, task.teacher, divergence="foward")
    for wrong in ({"augment": "some"}, {"vocabulary": "revers"}, {"perturb": "none"}):
        with pytest.raises(ValueError, match=f"collate: {next(iter(wrong))} must be"):
            collate(pairs(), op="max", **wrong)
    with pytest.raises(ValueError, match="the teacher has layers 0 to 3"):
        models.student_from_layers(task.teacher, [5])


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("augment", [False, True])
def test_each_sequence_costs_one_run_of_teacher_and_student(op, augment, task):
    task.options["op"] = op
    seen = {"teacher": [], "student": []}
    for name in seen:
        body = getattr(task, name).base_model
        body.register_forward_pre_hook(
            lambda _, args, kwargs, name=name: seen[name].append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
        )
    batch = collate(pairs(), op=op, augment=augment)
    task(batch)
    counterfactuals = 6 if op != "none" or augment else 0
    assert [shape[0] for shape in seen["teacher"]] == [8 + counterfactuals]
    assert [shape[0] for shape in seen["student"]] == [8 + 6 * augment]


def plain_loop(task: DistillTask, texts: list[AlignedPair], op: str, augment: bool) -> dict[str, float]:
    """The method as a reader would write it down: one text at a time, whole logits, F.kl_div-free."""
    kd = lm = count = 0.0
    for pair in texts:
        sides = [(pair.input_ids, pair.cf_input_ids, {t: s for t, s in enumerate(pair.cf_index) if s >= 0})]
        if augment and pair.reversed:
            sides.append((pair.cf_input_ids, pair.input_ids, {s: t for t, s in sides[0][2].items()}))
        for own_ids, mate_ids, index in sides:
            own, mate = (torch.from_numpy(np.asarray(x)).long()[None] for x in (own_ids, mate_ids))
            z, z_mate = (task.teacher(x).logits[0].log_softmax(-1) for x in (own, mate))
            student = task.student(own).logits[0]
            for t in range(1, own.shape[1]):
                target = z[t - 1]
                if pair.reversed and index.get(t, -1) > 0:
                    target = perturb(op, z[t - 1 : t], z_mate[index[t] - 1 : index[t]])[0]
                p, q = (target / 2).log_softmax(-1), (student[t - 1] / 2).log_softmax(-1)
                kd += 4 * float((p.exp() * (p - q)).sum())
                lm -= float(student[t - 1].log_softmax(-1)[own[0, t]])
                count += 1
    return {"kd": kd, "lm": lm, "loss": (kd + lm) / 2, "count": count}


@pytest.mark.parametrize(("op", "augment"), [("none", False), ("max", False), ("max", True), ("swap", True)])
def test_the_whole_step_equals_a_plain_loop(op, augment, task):
    task.options["op"] = op
    batch = collate(pairs(), op=op, augment=augment)
    with torch.no_grad():
        total, sums = task(batch)
        expected = plain_loop(task, pairs(), op, augment)
    assert batch.num_tokens == expected["count"]
    for key in ("kd", "lm", "loss"):
        assert float(sums[key]) == pytest.approx(expected[key], rel=1e-5)
    assert float(total) == pytest.approx(expected["loss"], rel=1e-5)


def test_strength_rises_with_progress_from_none_to_the_op(task):
    batch = collate(pairs(), op="max")
    task.strength, task.strength_warmup = 0.8, 0.5
    assert [task.strength_at(p) for p in (0.0, 0.25, 0.5, 1.0)] == pytest.approx([0.0, 0.4, 0.8, 0.8])
    with torch.no_grad():
        begin = task(batch, progress=0.0)[1]["kd"]
        whole = task(batch)[1]["kd"]
        task.options["op"] = "none"
        plain = task(batch)[1]["kd"]
    assert begin == plain != whole


def test_targets_where_the_op_does_not_apply_are_amplified(task):
    tokens = RoleTokens(
        np.array([1, 2]), np.array([0, 1]), np.array([1, 0]), np.zeros(2, bool), np.zeros(VOCABULARY, bool)
    )
    options = {"op": "max", "roles": VocabularyRoles.build(tokens), "chunk_rows": 16}
    tasks = [DistillTask(task.student, task.teacher, amplify=factor, **options) for factor in (1.0, 1.3)]
    batch = collate(pairs(), op="max", augment=True, vocabulary="reversed")
    plain, amplified = (one(batch, plain=True)[1] for one in tasks)
    assert plain["kd"] != amplified["kd"] and plain["kd_plain"] == amplified["kd_plain"]
    with pytest.raises(ValueError, match=r"loss\.amplify: need roles"):
        DistillTask(task.student, task.teacher, op="max", amplify=1.3)(collate(pairs(), op="max"))
    with pytest.raises(ValueError, match="give both or neither"):
        DistillTask(task.student, task.teacher, op="max")(batch)


def test_the_divergence_from_the_plain_target_is_reported_beside(task, monkeypatch):
    batch = collate(pairs(), op="max", augment=True)
    learning = []

    def spy(hidden, **options):
        learning.append((hidden.requires_grad, options["head_VD"].requires_grad))
        return distillation_loss(hidden, **options)

    monkeypatch.setattr("debias.task.distillation_loss", spy)
    loss, parts = task(batch, plain=True)
    assert learning == [(True, True), (False, False)]  # no gradient is made to be thrown away
    alone, without = task(batch)
    assert torch.equal(loss, alone) and "kd_plain" not in without
    task.options["op"] = "none"
    expected = task(collate(pairs(), op="none", augment=True))[1]["kd"]
    assert float(parts["kd_plain"]) == pytest.approx(float(expected), rel=1e-5)
    assert float(parts["kd_plain"]) != pytest.approx(float(parts["kd"]), rel=1e-3)


def gradients(task: DistillTask, groups: list[list[AlignedPair]], **options) -> dict[str, torch.Tensor]:
    task = copy.deepcopy(task)
    batches = [collate(group, op="max", augment=True, **options) for group in groups]
    num_tokens = sum(batch.num_tokens for batch in batches)
    for batch in batches:
        loss, _ = task(batch)
        (loss / num_tokens).backward()
    return {name: p.grad for name, p in task.named_parameters()}


def test_one_batch_of_eight_equals_eight_of_one(task):
    """Sum and count: the loss does not depend on how texts of unequal length are shared out."""
    whole, single = gradients(task, [pairs()]), gradients(task, [[pair] for pair in pairs()])
    for name in whole:
        torch.testing.assert_close(whole[name], single[name], rtol=1e-4, atol=1e-7)


def test_padding_changes_nothing(task):
    short, long = pairs(4), pairs(8)
    with torch.no_grad():
        alone = task(collate(short, op="max"))[1]["loss"]
        parts = [task(collate([pair], op="max"))[1]["loss"] for pair in short]
        beside = task(collate(long, op="max"))[1]["loss"] - task(collate(long[4:], op="max"))[1]["loss"]
    assert float(sum(parts)) == pytest.approx(float(alone), rel=1e-5)
    assert float(beside) == pytest.approx(float(alone), rel=1e-4)


def test_a_student_equal_to_its_teacher_has_no_distance_to_it():
    teacher = gpt2()
    task = DistillTask(models.student_from_layers(teacher, range(4)), teacher, op="none", kd_weight=1.0, lm_weight=0.0)
    loss, sums = task(collate(pairs()))
    loss.backward()
    assert abs(float(sums["kd"])) < 1e-4
    assert max(p.grad.abs().max() for p in task.parameters()) < 1e-4


def test_without_a_teacher_it_is_cross_entropy():
    student = gpt2(2)
    task = DistillTask(student, kd_weight=0.0, lm_weight=1.0)
    loss, _ = task(collate(pairs()))
    expected = sum(
        student(ids, labels=ids).loss.item() * (ids.shape[1] - 1)
        for ids in (torch.from_numpy(pair.input_ids).long()[None] for pair in pairs())
    )
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)


def test_bfloat16_autocast_stays_close(task):
    batch = collate(pairs(), op="max", augment=True)
    exact = task(batch)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = task(batch)[0]
    rough.backward()
    assert float(rough) == pytest.approx(float(exact), rel=0.02)


def dense_gradients(task: DistillTask, group: list[AlignedPair]) -> dict[str, torch.Tensor]:
    """Autograd through the whole logits in float64, plain distillation: F.kl_div and F.cross_entropy."""
    task = copy.deepcopy(task).double()
    teacher = copy.deepcopy(task.teacher).double()
    total = torch.zeros((), dtype=torch.float64)
    for pair in group:
        for ids in [pair.input_ids, *([pair.cf_input_ids] if pair.reversed else [])]:
            ids = torch.from_numpy(np.asarray(ids)).long()[None]
            student, target = task.student(ids).logits[0, :-1], teacher(ids).logits[0, :-1]
            kd = F.kl_div((student / 2).log_softmax(-1), (target / 2).softmax(-1), reduction="sum") * 4
            total = total + (kd + F.cross_entropy(student, ids[0, 1:], reduction="sum")) / 2
    total.backward()
    return {name: p.grad for name, p in task.named_parameters()}


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("tied", [True, False])
def test_gradients_of_the_whole_model_equal_autograd(tied, checkpointing):
    student, teacher = gpt2(2, seed=1, tied=tied), gpt2(tied=tied)
    task = DistillTask(student, teacher, chunk_rows=16)
    expected = dense_gradients(task, pairs())
    if checkpointing:
        models.checkpoint_activations(student)
    task.train()
    task(collate(pairs(), augment=True))[0].backward()
    found = {name: p.grad for name, p in task.named_parameters()}
    assert found.keys() == expected.keys() and ("student.lm_head.weight" in found) != tied
    for name in found:
        torch.testing.assert_close(found[name].double(), expected[name], rtol=2e-4, atol=2e-4)


def test_gradients_accumulate_over_backward_passes(task):
    """Twice the same batch gives twice the gradient: what a first pass left is added to, not written over."""
    batch = collate(pairs(), op="max", augment=True)
    once, twice = copy.deepcopy(task), copy.deepcopy(task)
    once(batch)[0].backward()
    for _ in range(2):
        twice(batch)[0].backward()
    for a, b in zip(once.parameters(), twice.parameters()):
        torch.testing.assert_close(2 * a.grad, b.grad)


def _rank(rank: int, port: int, task: DistillTask, expected: dict[str, torch.Tensor]) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    wrapped = torch.nn.parallel.DistributedDataParallel(task)
    share = [pairs()[:3], pairs()[3:]][rank]
    (2 * wrapped(collate(share, op="max", augment=True), progress=1.0)[0]).backward()  # DDP averages; ours is a sum
    for name, p in task.named_parameters():
        torch.testing.assert_close(p.grad, expected[name], rtol=1e-4, atol=1e-5)
    torch.distributed.barrier()
    os._exit(0)  # else DDP's end may wait, holding the GIL, for a thread of gloo that waits for the GIL


def test_two_ranks_of_ddp_give_the_gradients_of_one(task):
    task.hidden_weight = 0.5
    whole = copy.deepcopy(task)
    whole(collate(pairs(), op="max", augment=True))[0].backward()
    expected = {name: p.grad for name, p in whole.named_parameters()}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # a fork need not import everything again, but autograd's threads of a GPU do not survive it
    how = "spawn" if torch.cuda.is_available() else "fork"
    torch.multiprocessing.start_processes(_rank, (port, task, expected), nprocs=2, start_method=how)


def plain_hidden(task: DistillTask, layers: list[tuple[int, int]], repaired: bool) -> float:
    """One text at a time: cosine to the teacher's own state or to the mean with the counterpart's."""
    total = 0.0
    for pair in pairs():
        own, mate = (torch.from_numpy(np.asarray(x)).long()[None] for x in (pair.input_ids, pair.cf_input_ids))
        z, z_mate = (task.teacher.base_model(x, output_hidden_states=True).hidden_states for x in (own, mate))
        student = task.student.base_model(own, output_hidden_states=True).hidden_states
        for i, j in layers:
            for t in range(1, own.shape[1]):
                target = z[j][0, t - 1]
                if repaired and pair.reversed and pair.cf_index[t] > 0:
                    target = (target + z_mate[j][0, pair.cf_index[t] - 1]) / 2
                total += float(1 - F.cosine_similarity(student[i][0, t - 1], target, dim=0)) / len(layers)
    return total


@pytest.mark.parametrize("repaired", [False, True])
@pytest.mark.parametrize("layers", [[(-1, -1)], models.hidden_map("kept", [0, 2])])
def test_hidden_states_learn_the_mean_of_both_texts(layers, repaired, task):
    task.hidden_weight, task.hidden_layers = 0.3, tuple(layers)
    without = copy.deepcopy(task)
    without.hidden_weight = 0.0
    task.options["op"] = without.options["op"] = "none"
    batch = collate(pairs(), couple=repaired)
    total, sums = task(batch)
    plain, parts = without(batch)
    assert "hidden" not in parts and torch.equal(sums["kd"], parts["kd"])
    with torch.no_grad():
        expected = plain_hidden(task, layers, repaired)
    assert float(sums["hidden"]) == pytest.approx(expected, rel=1e-5)
    assert float(total.detach()) == pytest.approx(float(plain.detach()) + 0.3 * expected, rel=1e-5)
    total.backward()


@pytest.mark.parametrize("target", ["mean", "own"])
def test_the_hidden_states_to_learn_do_not_depend_on_the_op(target, task):
    """An op couples rows too; own states stay own."""
    task.hidden_weight, task.hidden_target = 1.0, target
    with torch.no_grad():
        hidden = float(task(collate(pairs(), op="max"))[1]["hidden"])
        assert hidden == pytest.approx(plain_hidden(task, [(-1, -1)], target == "mean"), rel=1e-5)


@pytest.mark.parametrize("rule", ["last", "kept"])
def test_a_student_equal_to_its_teacher_has_its_hidden_states(rule):
    teacher = gpt2()
    student = models.student_from_layers(teacher, range(4))
    layers = models.hidden_map(rule, range(4))
    task = DistillTask(student, teacher, hidden_weight=1.0, hidden_layers=layers)
    assert abs(float(task(collate(pairs()))[1]["hidden"])) < 1e-4


def test_weight_0_asks_for_no_hidden_states(task):
    asked = []
    for model in (task.teacher, task.student):
        model.base_model.register_forward_pre_hook(
            lambda module, args, kwargs: asked.append(kwargs["output_hidden_states"]), with_kwargs=True
        )
    task(collate(pairs(), op="max"))
    assert asked == [False, False]


def test_unequal_widths_are_refused():
    models.check_widths(gpt2(2), gpt2())
    with pytest.raises(ValueError, match=r"loss\.hidden_weight: .* width 16, the student's 8"):
        models.check_widths(gpt2(2, width=8), gpt2())


@pytest.mark.parametrize("sizes", [(60, 64), (64, 60)])
def test_unequal_padded_vocabularies_train_on_the_common_rows(sizes):
    """Models of one tokenizer whose embeddings are padded to other sizes: as if both had the smaller one."""
    batch, found = collate(pairs(), op="max"), []
    teacher, student = gpt2(2, tied=False), gpt2(2, seed=1, tied=False)
    found.append(DistillTask(copy.deepcopy(student), teacher, op="max")(batch))
    for model, size in zip((student, teacher), sizes):
        model.resize_token_embeddings(size, mean_resizing=False)
    task = DistillTask(student, teacher, op="max")
    found.append(task(batch))
    torch.testing.assert_close(found[1], found[0])
    found[1][0].backward()
    head = student.lm_head.weight.grad
    assert head[:60].abs().sum() > 0 and not head[60:].any()
