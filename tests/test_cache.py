"""The teacher's stored predictions: how accurate they are, that they are complete, that training needs no teacher."""

import itertools
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from test_task import VOCABULARY, gpt2, pairs
from transformers import GPT2LMHeadModel

import train_distill
from counterfactuals.tokens.batch import collate
from debias import models
from debias.__main__ import main
from debias.cache import codec as codecs
from debias.cache import store
from debias.cache.codec import Codec
from debias.cache.store import TeacherCache, build_cache, open_cache
from debias.losses import model_rows
from debias.models import Head
from debias.ops import OPS, perturb
from debias.task import DistillTask
from eval import loading
from tests.runs import fresh, write_texts


@pytest.fixture(autouse=True)
def _fresh_accelerator():
    yield
    fresh()


class Pairs(list):
    """A pair set in memory."""

    def __init__(self, items):
        super().__init__(items)
        self.lengths = np.array([len(pair.input_ids) for pair in items])
        self.cf_lengths = np.array([len(pair.cf_input_ids) * pair.reversed for pair in items])
        self.has_cf = self.cf_lengths > 0
        self.meta = {"fingerprint": "pairs"}


PARTS = {"teacher": "weights", "dtype": "float32", "pairs": "pairs", "row_bytes": 60, "format": 1}


@pytest.fixture
def teacher() -> GPT2LMHeadModel:
    return gpt2()


def hidden_states(rows: int, width: int, vocab: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states of falling variance and a head with a skewed mean prediction, like a trained model's."""
    g = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, width, generator=g) * (torch.arange(width) + 1.0) ** -0.5
    head = torch.randn(vocab, width, generator=g)
    hidden[:, 0] += 2
    head[:, 0] -= torch.linspace(0, 3, vocab)
    return hidden, head


def logp_of(hidden: torch.Tensor, head: torch.Tensor) -> torch.Tensor:
    return (hidden @ head.T).log_softmax(-1)


def kl(p: torch.Tensor, q: torch.Tensor, tau: float = 1.0) -> float:
    p, q = (p / tau).log_softmax(-1), (q / tau).log_softmax(-1)
    return float((p.exp() * (p - q)).sum(-1).mean())


def through(codec: Codec, hidden: torch.Tensor, head: torch.Tensor) -> torch.Tensor:
    stored = codec.encode(hidden, logp_of(hidden, head))
    assert stored.dtype == torch.uint8 and stored.shape == (len(hidden), codec.row_bytes)
    out = torch.full((len(hidden), len(head)), math.nan)
    codec.rows(stored)(torch.arange(len(hidden)), out)
    return out


@pytest.mark.parametrize("vocab", [300, 50_000, 70_000])
def test_a_row_stores_its_top_tokens_and_the_mass_of_the_rest(vocab):
    """Also where an id needs the sign bit of two bytes, or four bytes."""
    hidden, head = hidden_states(64, 24, vocab)
    codec = Codec.fit(hidden, head, 40)
    assert codec.row_bytes <= 40
    exact, found = logp_of(hidden, head), through(codec, hidden, head)
    top = exact.topk(codec.top_k)
    step = (top.values[:, :1] - top.values[:, -1:]) / 255
    assert ((found.gather(1, top.indices) - top.values).abs() <= 0.6 * step + 2e-3).all()
    assert found.logsumexp(-1).abs().max() < 0.02
    rest = found.scatter(1, top.indices, -math.inf).logsumexp(-1) - exact.scatter(1, top.indices, -math.inf).logsumexp(
        -1
    )
    assert rest.abs().max() < 0.02


def test_a_sketch_of_full_width_loses_only_rounding():
    hidden, head = hidden_states(256, 24, 500)
    codec = Codec.fit(hidden, head, 150)
    assert codec.project_DQ.shape == (24, 24)
    assert kl(logp_of(hidden, head), through(codec, hidden, head), tau=2) < 2e-4


def test_coordinates_are_packed_without_gaps_and_come_back():
    bits = torch.tensor([8, 7, 5, 5, 4, 3, 3], dtype=torch.int32)
    codec = Codec(torch.zeros(7), torch.eye(7), bits, torch.zeros(9, 300), top_k=1)
    levels = torch.stack([torch.zeros(7), 2.0**bits - 2, torch.arange(7)]).to(torch.int32)
    packed = codec._packed(levels)
    assert packed.shape == (3, 5) and packed.dtype == torch.uint8  # 35 bits
    assert torch.equal(codec._unpacked(packed), levels)


def test_bits_go_where_they_reduce_the_error(monkeypatch):
    """At equal bytes less is lost than with eight bits for as many coordinates as have room."""
    hidden, head = hidden_states(600, 96, 500)
    hidden = hidden * torch.linspace(0, 3, 96).neg().exp()
    mixed = Codec.fit(hidden[:400], head, 80)
    monkeypatch.setattr(codecs, "_bits", lambda power, total: [8] * min(total // 8, len(power)))
    even = Codec.fit(hidden[:400], head, 80)
    assert int(mixed.bits_Q.max()) > 2 * int(mixed.bits_Q.min()) and len(mixed.bits_Q) > len(even.bits_Q)
    assert even.row_bytes == mixed.row_bytes == 80 and even.top_k == mixed.top_k
    exact = logp_of(hidden[400:], head)
    losses = [kl(exact, through(codec, hidden[400:], head), tau=2) for codec in (mixed, even)]
    assert losses[0] < 0.5 * losses[1]


@pytest.mark.parametrize("op", [op for op in OPS if op != "none"])
def test_estimating_the_rest_beats_top_k_for_every_op(op, monkeypatch):
    """On rows the codec was not fitted to; at temperature 2, at equal bytes (top-k alone has more tokens)."""
    monkeypatch.setattr(codecs, "SKETCH", 8)
    hidden, head = hidden_states(600, 24, 500)
    codec = Codec.fit(hidden[:400], head, 60)
    exact, found = logp_of(hidden[400:], head), through(codec, hidden[400:], head)
    top = exact.topk(20)
    rest = (1 - top.values.exp().sum(-1, keepdim=True)).log()
    even = (rest - math.log(500 - 20)).expand_as(exact).scatter(1, top.indices, top.values)
    mate = torch.arange(200).flip(0)
    ours, spread = (kl(perturb(op, exact, exact[mate]), perturb(op, x, x[mate]), 2) for x in (found, even))
    assert ours < 0.5 * spread


def test_rows_too_short_for_a_token_are_refused():
    hidden, head = hidden_states(64, 24, 300)
    with pytest.raises(ValueError, match=r"teacher\.cache_bytes: 13 bytes have no room for a token; use at least 14"):
        Codec.fit(hidden, head, 13)


def test_the_teacher_runs_once_on_each_sequence(teacher, tmp_path):
    seen = []
    teacher.base_model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(len(args[0] if args else kwargs["input_ids"])), with_kwargs=True
    )
    texts = Pairs(pairs())
    with torch.no_grad():
        build = store._Build(texts, teacher, store._Layout(texts), Head())
        build.codec(tmp_path / "teacher-x" / "codec.safetensors", 60, "no")
    for_codec = sum(seen)
    build_cache(tmp_path, texts, teacher, PARTS)
    looked = 2 * 2  # at its head, with two short texts
    assert (
        sum(seen) - for_codec == looked + for_codec + 8 + 6
    )  # 8 texts, 6 counterfactuals; the sample is all of so few


def test_every_stored_prediction_is_in_its_place(teacher, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "SHARD_ROWS", 40)
    texts = Pairs(pairs(12))
    stored = build_cache(tmp_path, texts, teacher, PARTS | {"row_bytes": 150})
    assert len(list(stored.folder.glob("0*.safetensors"))) > 2
    chosen = [7, 2, 11, 0]
    batch = stored.attach(collate([texts[i] for i in chosen], op="max", augment=True), chosen)
    with torch.no_grad():
        hidden = teacher.base_model(input_ids=batch.ids_NT).last_hidden_state.flatten(0, 1)
    exact, found = (torch.empty(len(batch.row_R), VOCABULARY) for _ in range(2))
    model_rows(hidden, teacher.get_output_embeddings().weight.detach())(batch.row_R, exact)
    stored.codec.rows(batch.to("cpu").teacher_PB)(batch.row_R, found)
    torch.testing.assert_close(found, exact, atol=0.08, rtol=0)
    plain = stored.attach(collate([texts[i] for i in chosen]), chosen)  # no counterfactuals in the batch
    assert len(plain.teacher_PB) == plain.ids_NT.numel()


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("augment", [False, True])
def test_loss_and_gradients_are_the_live_teachers(op, augment, teacher, tmp_path):
    texts = Pairs(pairs(12))
    stored = build_cache(tmp_path, texts, teacher, PARTS | {"row_bytes": 150})
    student = models.student_from_layers(teacher, [0, 2])
    batch = collate(list(texts), op=op, augment=augment)
    found = []
    for source in ({"teacher": teacher}, {"codec": stored.codec}):
        task = DistillTask(student, op=op, chunk_rows=16, **source)
        student.zero_grad()
        loss, parts = task(stored.attach(batch, range(12)) if "codec" in source else batch)
        loss.backward()
        found.append((float(parts["kd"]), torch.cat([p.grad.flatten() for p in student.parameters()])))
    (live, live_grad), (cached, cached_grad) = found
    assert cached == pytest.approx(live, rel=5e-3)
    assert float((cached_grad - live_grad).norm() / live_grad.norm()) < 0.02


def test_a_killed_build_resumes_and_gives_the_same_bytes(teacher, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "SHARD_ROWS", 40)
    texts, original, calls = Pairs(pairs(12)), store._Build.encoded, itertools.count()
    whole = build_cache(tmp_path / "whole", texts, teacher, PARTS).folder

    def dies(*arguments):
        if next(calls) == 2:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(store._Build, "encoded", dies)
    with pytest.raises(KeyboardInterrupt):
        build_cache(tmp_path / "killed", texts, teacher, PARTS)
    assert open_cache(tmp_path / "killed", texts, PARTS) is None
    first = next((tmp_path / "killed").rglob("00000.safetensors"))
    before = first.stat().st_mtime_ns
    killed = build_cache(tmp_path / "killed", texts, teacher, PARTS).folder
    assert first.stat().st_mtime_ns == before
    for file in whole.iterdir():
        assert file.read_bytes() == (killed / file.name).read_bytes()


def test_a_build_that_resumes_or_repairs_keeps_its_precision(teacher, tmp_path, monkeypatch):
    """Otherwise the rows of a cache would depend on where the first build was killed."""
    monkeypatch.setattr(store, "SHARD_ROWS", 40)
    texts = Pairs(pairs(12))
    whole = build_cache(tmp_path / "whole", texts, teacher, PARTS, precision="bf16")
    exact = build_cache(tmp_path / "exact", texts, teacher, PARTS, precision="no")
    assert (whole.meta["precision"], exact.meta["precision"]) == ("bf16", "no")
    assert (whole.folder / "00001.safetensors").read_bytes() != (exact.folder / "00001.safetensors").read_bytes()
    for lost in ({"meta.json", "00001.safetensors"}, {"00000.safetensors"}):
        before = {file.name: file.read_bytes() for file in whole.folder.iterdir()}
        for name in lost:
            (whole.folder / name).unlink()
        assert build_cache(tmp_path / "whole", texts, teacher, PARTS, precision="no").meta["precision"] == "bf16"
        assert {file.name: file.read_bytes() for file in whole.folder.iterdir()} == before


def test_a_cache_of_something_else_is_refused_by_name(teacher, tmp_path):
    texts = Pairs(pairs())
    folder = build_cache(tmp_path, texts, teacher, PARTS).folder
    with pytest.raises(ValueError, match=r"another teacher\.model, another teacher\.cache_bytes; name another folder"):
        open_cache(folder, texts, PARTS | {"teacher": "other", "row_bytes": 100})
    assert open_cache(tmp_path, texts, PARTS | {"teacher": "other"}) is None
    (folder / "meta.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="not a complete teacher cache"):
        TeacherCache(folder, texts)


@pytest.fixture
def settings(tiny_gpt2, few_words, tmp_path) -> list[str]:
    texts = write_texts(tmp_path / "texts.jsonl", 60)
    found = ["data.max_length=64", "train.max_steps=2", "train.batch_size=8", "train.micro_batch_size=4"]
    found += ["counterfactual.augment=true", "loss.op=max", "loss.vocabulary=reversed", "train.cpu_threads=1"]
    found += [
        f"counterfactual.lexicon={few_words}",
        f"teacher.model={tiny_gpt2}",
        f"teacher.cache={tmp_path / 'cache'}",
        f"data.pairs_dir={tmp_path / 'pairs'}",
    ]
    return [*found, f"output_dir={tmp_path / 'run'}", f"data.source={texts}"]


def shards(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache").rglob("0*.safetensors"))


def test_with_a_cache_training_loads_no_teacher(settings, tiny_gpt2, tmp_path, monkeypatch, capsys):
    assert main(["cache", *settings]) == 0
    assert "predictions of 148 bytes (36 tokens, 32 coordinates)" in capsys.readouterr().out
    before = [file.stat().st_mtime_ns for file in shards(tmp_path)]
    original = loading.load_model

    def load(name, *, setting, **options):
        assert setting != "teacher.model"
        return original(name, setting=setting, **options)

    monkeypatch.setattr(loading, "load_model", load)
    pretrained = ["student.init=pretrained", f"student.model={tiny_gpt2}"]
    assert train_distill.main([*settings, *pretrained]) == 0
    assert before == [file.stat().st_mtime_ns for file in shards(tmp_path)]


def test_a_cache_with_another_number_of_tokens_is_refused(settings, tiny_gpt2, tmp_path, capsys):
    """Embeddings padded beyond the tokenizer, as some families have: rows of another width are no such student's."""
    padded = GPT2LMHeadModel.from_pretrained(tiny_gpt2)
    padded.resize_token_embeddings(448, mean_resizing=False)
    padded.save_pretrained(tmp_path / "padded")
    shutil.copy(tiny_gpt2 / "tokenizer.json", tmp_path / "padded")
    shutil.copy(tiny_gpt2 / "tokenizer_config.json", tmp_path / "padded")
    given = [f"teacher.model={tmp_path / 'padded'}", "student.init=pretrained", f"student.model={tiny_gpt2}"]
    assert train_distill.main([*settings, *given]) == 2
    message = capsys.readouterr().err
    assert "teacher.model: predicts 448 tokens, the student " in message and message.count("\n") == 1
    assert not (tmp_path / "cache").exists()


def test_runs_with_different_cache_folders_each_get_one(settings, tmp_path, capsys):
    second = tmp_path / "second"
    runs = f"runs={{a: {{}}, b: {{}}, c: {{teacher: {{cache: {second}}}}}}}"
    assert main(["cache", *settings, runs]) == 0
    assert len(capsys.readouterr().out.strip().splitlines()) == 5  # progress of pairs, then of and about each cache
    assert shards(tmp_path) and list(second.rglob("meta.json"))


def test_a_cache_is_made_where_nobody_says_which_cores_to_use(settings, tmp_path, monkeypatch):
    """As on macOS."""
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert main(["cache", *settings, "train.cpu_threads=0"]) == 0 and shards(tmp_path)


def test_the_first_run_makes_the_cache_and_other_runs_share_it(settings, tmp_path, monkeypatch):
    assert train_distill.main(settings) == 0
    fresh()
    monkeypatch.setattr(store, "build_cache", None)
    monkeypatch.setattr("configs.build.build_cache", None)
    for change in (["loss.op=none", "loss.vocabulary=plain"], ["loss.op=swap", "seed=5", "student.layers=[1]"]):
        assert train_distill.main([*settings, *change, f"output_dir={tmp_path / change[0]}"]) == 0
        fresh()


@pytest.mark.parametrize(
    ("made", "used", "warned"), [("bf16", "no", True), ("bf16", "bf16", False), ("no", "bf16", False)]
)
def test_a_cache_less_precise_than_the_run_is_reported(made, used, warned, settings, capsys):
    assert main(["cache", *settings, f"train.precision={made}"]) == 0
    capsys.readouterr()
    assert train_distill.main([*settings, f"train.precision={used}"]) == 0
    assert (f"was made with train.precision {made}, this run has {used}" in capsys.readouterr().err) == warned


def test_a_damaged_shard_is_one_clear_line_and_is_repaired(settings, tmp_path, capsys):
    assert main(["cache", *settings]) == 0
    file = shards(tmp_path)[0]
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    capsys.readouterr()
    assert train_distill.main(settings) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and f"{file}: missing or damaged; run `evenhand cache`" in message
    assert main(["cache", *settings]) == 0
    assert file.read_bytes() == content


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (["teacher.cache=null"], "teacher.cache: no run sets it"),
        (["teacher.cache_bytes=10"], "teacher.cache_bytes: 10 bytes have no room for a token"),
        (["teacher.cache_bytes=0"], "teacher.cache_bytes: must be at least 1"),
        (["teacher.model=nowhere"], "teacher.model nowhere: "),
        (["data.max_length=500"], "teacher.model sees at most 128 positions"),
        (["teacher.cash=x"], "did you mean cache"),
    ],
)
def test_mistakes_are_one_clear_line(change, says, settings, tmp_path, capsys):
    assert main(["cache", *settings, *change]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and says in message and "Traceback" not in message
    assert not list((tmp_path / "cache").rglob("meta.json"))
