"""Federated runs of a tiny model: equal to central training where theory says so, resumed, robust, and silent."""

import importlib.util
import json
import math
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import train_distill
from configs import build
from configs.load import load
from eval.model import Scorer
from eval.report.page import Study, write_page
from federated import client, engine
from federated.message import pack, unpack
from tests.runs import fresh, write_texts


@pytest.fixture(autouse=True)
def _fresh_accelerator():
    yield
    fresh()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return write_texts(tmp_path_factory.mktemp("corpus") / "texts.jsonl", 30)


@pytest.fixture(scope="module")
def settings(corpus, tiny_gpt2, few_words) -> list[str]:
    return [
        *(f"data.source={corpus}", f"teacher.model={tiny_gpt2}", f"counterfactual.lexicon={few_words}"),
        *("data.max_length=64", "counterfactual.augment=true", "loss.op=max", "student.dropout=0.1"),
        *("train.batch_size=16", "train.micro_batch_size=8", "train.cpu_threads=1"),
        *("train.log_every=1", "train.save_every=1", "optim.lr=3e-3"),
    ]


@pytest.fixture
def run(settings, tmp_path):
    def start(folder: str, *more: str) -> int:
        fresh()
        return train_distill.main([*settings, f"output_dir={tmp_path / folder}", *more])

    return start


@pytest.fixture(scope="module")
def whole(settings, tmp_path_factory) -> Path:
    """An undisturbed run of FEW."""
    folder = tmp_path_factory.mktemp("whole")
    fresh()
    assert train_distill.main([*settings, *FEW, f"output_dir={folder}"]) == 0
    return folder


FEW = ("federated.rounds=2", "federated.clients=4", "federated.per_round=2", "federated.local_steps=2")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def furthest(one: Path, other: Path) -> float:
    first, second = weights(one), weights(other)
    return max(float((first[name] - second[name]).abs().max()) for name in first)


# ---------------------------------------------------------------- equal to central training


def test_one_client_is_central_training(run, tmp_path):
    """AdamW, dropout, augmentation, two micro-batches a step: a client's steps are those of train_distill."""
    assert run("central", "train.max_steps=5") == 0
    one = ("federated.rounds=1", "federated.clients=1", "federated.per_round=1", "federated.local_steps=5")
    assert run("one", *one) == 0
    assert furthest(tmp_path / "central", tmp_path / "one") < 1e-6


def test_all_clients_with_one_full_batch_are_central_training(run, settings, tmp_path):
    """Plain gradient descent on everything, twice; five clients of unequal size, weighted by predictions."""
    config = load(None, [*settings, f"output_dir={tmp_path / 'pairs'}", "train.max_steps=1"])[1][""]
    texts = build.corpus_of(config)
    pairs = build.pairs_of(config, texts, build.reverser_of(config), build.tokenizer_of(config, texts))
    size = int((1 + pairs.has_cf).sum())
    whole = (
        "optim.name=sgd",
        "optim.lr=0.5",
        "optim.max_grad_norm=1e9",
        "student.dropout=0",
        f"train.batch_size={size}",
    )
    whole += (f"train.micro_batch_size={size}",)
    assert run("central", *whole, "train.max_steps=2") == 0
    five = ("federated.rounds=2", "federated.clients=5", "federated.per_round=5", "federated.local_steps=1")
    assert run("five", *whole, *five, "federated.quantity=1") == 0
    assert furthest(tmp_path / "central", tmp_path / "five") < 1e-6
    assert run("uniform", *whole, *five, "federated.quantity=1", "federated.weights=uniform") == 0
    assert furthest(tmp_path / "central", tmp_path / "uniform") > 1e-5  # the weights matter


@pytest.mark.slow
def test_fedprox_with_a_vanishing_mu_is_fedavg(run, tmp_path):
    for name, mu in (("fedavg", "0"), ("vanishing", "1e-30"), ("large", "3")):
        assert run(name, *FEW, f"federated.proximal={mu}", "optim.name=sgd", "optim.lr=0.02") == 0
    assert furthest(tmp_path / "fedavg", tmp_path / "vanishing") == 0
    assert furthest(tmp_path / "fedavg", tmp_path / "large") > 1e-6


def test_the_proximal_gradient_is_that_of_its_term():
    module = torch.nn.Linear(2, 1, bias=False)
    module.weight.grad = torch.ones_like(module.weight)
    before = module.weight.detach().clone()
    sent = {"weight": before - torch.tensor([[0.5, -1.0]])}
    client.pull(module, sent, 0.1)
    assert module.weight.grad.tolist()[0] == pytest.approx([1.05, 0.9])


# ---------------------------------------------------------------- killed, missing, late, broken


@pytest.mark.parametrize("server", [(), ("federated.algorithm=fedyogi", "federated.server_lr=0.01")])
def test_a_killed_run_resumes_bitwise(server, run, whole, tmp_path, monkeypatch, capsys):
    few = (*FEW, *server)
    assert not server or run("whole", *few) == 0
    undisturbed = tmp_path / "whole" if server else whole
    train, calls = client.Client.train, iter([False, False, True])

    def killed(*given):
        if next(calls, False):
            raise KeyboardInterrupt
        return train(*given)

    monkeypatch.setattr(client.Client, "train", killed)
    assert run("killed", *few) == 130 and run("killed", *few) == 0
    for name in ("model/model.safetensors", "metrics.jsonl", "clients.json"):
        assert (undisturbed / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()
    assert run("killed", *few) == 0 and "complete in" in capsys.readouterr().out


def answer_of(monkeypatch, change) -> None:
    """Let `change(client, tensors, facts)` spoil what clients answer."""
    train = client.Client.train

    def spoiled(self, number, folder, message):
        tensors, facts = unpack(train(self, number, folder, message))
        return pack(*change(number, tensors, facts)[:1], **facts)

    monkeypatch.setattr(client.Client, "train", spoiled)


def facts_of(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text(encoding="utf-8"))


def test_weights_that_are_not_finite_are_left_out_and_counted(run, tmp_path, monkeypatch):
    def nan(number, tensors, facts):
        return {name: x * float("nan") if number == 1 else x for name, x in tensors.items()}, facts

    answer_of(monkeypatch, nan)
    assert run("nan", *FEW, "federated.per_round=4") == 0
    facts = facts_of(tmp_path / "nan")
    assert facts["non_finite"] == 2 and facts["answered"] == 6 and facts["asked"] == 8
    assert all(bool(x.isfinite().all()) for x in weights(tmp_path / "nan").values())


def test_clients_that_come_late_are_left_out_and_counted(run, tmp_path, monkeypatch):
    train = engine.InProcess.train

    def late(self, round, chosen, message):
        for number, answer in train(self, round, chosen, message):
            yield number, "late" if round == 1 else answer

    monkeypatch.setattr(engine.InProcess, "train", late)
    assert run("late", *FEW) == 0
    assert facts_of(tmp_path / "late")["late"] == 2 and facts_of(tmp_path / "late")["answered"] == 2


def test_another_model_at_a_client_is_one_line(run, monkeypatch, capsys):
    answer_of(monkeypatch, lambda number, tensors, facts: ({"other": torch.zeros(1)}, facts))
    assert run("other", *FEW) == 2
    assert "trained another model" in capsys.readouterr().err


def test_another_tokenizer_at_a_client_is_one_line(run, monkeypatch, capsys):
    monkeypatch.setattr(client.Client, "hello", lambda self, n, folder: pack({}, client=n, texts=3, tokenizer="x"))
    assert run("other", *FEW) == 2
    assert "client 0: has another tokenizer" in capsys.readouterr().err


# ---------------------------------------------------------------- nothing leaks


def test_nothing_that_is_sent_holds_a_text_pair_or_prediction(run, tmp_path, monkeypatch):
    """Every byte that crosses: tensors with the names and shapes of the weights, and a few numbers."""
    sent: list[bytes] = []
    hello, train = client.Client.hello, client.Client.train
    monkeypatch.setattr(client.Client, "hello", lambda *given: keep(sent, hello(*given)))
    monkeypatch.setattr(client.Client, "train", lambda *given: keep(sent, keep(sent, given[3]) and train(*given)))
    assert run("sent", *FEW, "teacher.cache=auto") == 0
    shapes = {name: x.shape for name, x in unpack(sent[-1])[0].items()}
    assert len(sent) == 4 + 2 * 2 * 2 and sum(shape.numel() for shape in shapes.values()) > 10_000
    for payload in sent:
        tensors, facts = unpack(payload)
        assert not tensors or {name: x.shape for name, x in tensors.items()} == shapes
        words = {key: value for key, value in facts.items() if not isinstance(value, int | float)}
        assert set(words) <= {"tokenizer"} and len(facts) < 12
    (folder,) = (tmp_path / "sent" / "clients").iterdir()
    kept = [path for path in folder.rglob("*") if path.is_file() and path.parent != folder]
    assert {path.name for path in kept} >= {"texts.jsonl", "00000.safetensors", "codec.safetensors", "meta.json"}
    everything = b"".join(sent)
    for path in (path for path in kept if path.name != "meta.json"):  # it holds the tokenizer's fingerprint too
        content = path.read_bytes()[512:] if path.suffix == ".safetensors" else path.read_bytes()
        pieces = [content[at : at + 24] for at in range(0, max(len(content) - 24, 1), 97)]
        assert not [piece for piece in pieces if len(set(piece)) > 8 and piece in everything], path


def keep(sent: list[bytes], payload: bytes) -> bytes:
    sent.append(payload)
    return payload


def test_texts_that_leave_the_window_are_deleted(run, tmp_path):
    few = ("federated.rounds=2", "federated.clients=2", "federated.per_round=2", "federated.local_steps=1")
    assert run("all", *few, "federated.periods=2") == 0
    assert run("last", *few, "federated.periods=2", "federated.keep_periods=1") == 0
    sets = {name: len(list((tmp_path / name).glob("clients/*/00000/pairs/pairs-*"))) for name in ("all", "last")}
    assert sets == {"all": 2, "last": 1}
    (folder,) = (tmp_path / "last").glob("clients/*/00001")
    now = client.Texts(folder, period=1, periods=2, keep=1)
    assert len(list(now)) == now.total - now.total // 2 and list(now) == list(client.Texts(folder))[now.total // 2 :]


# ---------------------------------------------------------------- what benchmarks read from a run


def script(name: str):
    spec = importlib.util.spec_from_file_location(
        name, Path(train_distill.__file__).parent / "benchmarks" / f"{name}.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def last_line(module, monkeypatch, capsys, *words) -> dict:
    monkeypatch.setattr(sys, "argv", ["script", *map(str, words)])
    module.main()
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_clients_with_few_texts_are_told_from_those_with_many(run, tmp_path, tiny_gpt2, monkeypatch, capsys):
    clients = script("clients")
    more, tokens = np.array([2.0, 1.0, 0.0, 4.0]), np.array([2.0, 10.0, 10.0, 20.0])
    found = clients.figures(more, tokens, np.array([1, 7, 8, 9]), np.array([0, 1, 2, 3]))
    wanted = {"all": 7 / 42, "fewest": 2 / 2, "most": 4 / 20, "worst": 2 / 2}
    assert {key: found[key] for key in wanted} == {
        key: pytest.approx(math.exp(x), abs=1e-4) for key, x in wanted.items()
    }
    assert found["asked_fewest"] == 0 and found["asked_most"] == 3
    assert run("one", *FEW, "federated.quantity=1") == 0
    read = last_line(clients, monkeypatch, capsys, "--teacher", tiny_gpt2, tmp_path / "one")
    assert read["one"]["fewest"] > 0 and read["one"]["asked_most"] <= 2
    assert clients.losses(Scorer(tiny_gpt2), next((tmp_path / "one/clients").iterdir()), 1)[0].shape == (4,)


def test_texts_of_deleted_periods_are_attacked(run, tmp_path, tiny_gpt2, monkeypatch, capsys):
    deleted = script("deleted")
    few = ("federated.rounds=2", "federated.clients=4", "federated.per_round=2", "federated.local_steps=2")
    assert run("windows", *few, "federated.periods=2", "federated.keep_periods=1") == 0
    (first, second), never = deleted.sides_of(tmp_path / "windows")
    (folder,) = (tmp_path / "windows/clients").iterdir()
    texts = [text for path in sorted(folder.glob("0*")) for text in client.Texts(path)]
    assert sorted([*first, *second, *never]) == sorted(texts) and len(first) + len(second) < len(never) * 2
    read = last_line(deleted, monkeypatch, capsys, "--teacher", tiny_gpt2, tmp_path / "windows")
    assert set(read) == set(deleted.ATTACKS) and all(0 <= x <= 1 for found in read.values() for x in found)
    assert run("static", *few) == 0
    with pytest.raises(SystemExit, match="needs periods"):
        deleted.sides_of(tmp_path / "static")


# ---------------------------------------------------------------- figures and mistakes


def test_a_run_says_what_it_did(run, tmp_path):
    few = (*FEW, "federated.partition=label", "federated.label=gender+occupation", "eval.every=2")
    prompts = {"job": {"a": ["The nurse said that", "The cook said that"]}}
    (tmp_path / "bold").mkdir()
    (tmp_path / "bold/profession_prompt.json").write_text(json.dumps(prompts))
    rows = [{"prompt": "The girl said that", "right": ["she"], "wrong": ["he"]}]
    (tmp_path / "agreement.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    during = ("eval.during={agreement: {}}", f"eval.data_dir={tmp_path}")
    assert run("said", *few, *during) == 0
    lines = [json.loads(line) for line in (tmp_path / "said/metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 2 and {"loss", "kd", "lm", "worst_client/loss", "asked", "bytes_up"} <= lines[0].keys()
    assert lines[-1]["lowest_client/agreement/agreement"] <= 1 and 0 <= lines[-1]["agreement/agreement"] <= 1
    facts, asked = facts_of(tmp_path / "said"), json.loads((tmp_path / "said/clients.json").read_text())["asked"]
    assert sum(asked) == facts["asked"] == lines[-1]["asked"] == 4 and facts["bytes_down"] > 4 * 10_000 * 4
    page = write_page([Study("said", tmp_path / "said", {"rows": [{"model": "student", "tasks": {}}]})], tmp_path / "p")
    text = page.read_text(encoding="utf-8")
    assert "student: 2 rounds, 4 clients asked, 4 answers used; " in text and "Figures by round" in text
    (folder,) = (tmp_path / "said" / "clients").iterdir()
    held = json.loads((folder / "clients.json").read_text())
    assert sum(held["texts"]) == 30 == sum(sum(labels.values()) for labels in held["labels"])
    assert any(label.startswith("female+") for label in held["labels"][0]) and (folder / "clients.png").stat().st_size


def test_a_private_run_keeps_its_promise_and_resumes(run, tmp_path, monkeypatch, capsys):
    few = (*FEW, "federated.weights=uniform", "privacy.epsilon=8", "privacy.delta=0.01", "privacy.unit=client")
    few += (f"privacy.secret={tmp_path / 'secret'}", "privacy.max_norm=0.1")
    assert run("whole", *few) == 0
    facts = facts_of(tmp_path / "whole")["privacy"]
    assert facts["unit"] == "client" and 7.5 < facts["epsilon"] <= 8 and facts["sampling_rate"] == 0.5
    save, stop = engine.checkpoint.save, iter([True])

    def killed(*given, **options):
        save(*given, **options)
        if next(stop, False):
            raise KeyboardInterrupt

    monkeypatch.setattr(engine.checkpoint, "save", killed)
    assert run("killed", *few) == 130 and run("killed", *few) == 0
    assert furthest(tmp_path / "whole", tmp_path / "killed") == 0
    assert run("killed", *few, "--allow_changes", "optim.lr=1e-3") == 2
    assert "another privacy.secret or setting than there is now" in capsys.readouterr().err


PRIVATE = ("federated.weights=uniform", "privacy.epsilon=8", "privacy.delta=0.01", "privacy.unit=client")
BAD = {
    "p ∝ texts with privacy": ([*PRIVATE, "federated.select=activity"], "nothing may be claimed"),
    "weights with privacy": ([*PRIVATE, "federated.weights=tokens"], "the same weight"),
    "privacy of a text at clients": ([*PRIVATE, "privacy.unit=text"], "privacy.unit: client"),
    "more clients than texts": (["federated.clients=31"], "only 30 texts"),
    "more asked than there are": (["federated.per_round=5"], "there are only 4"),
    "no clients": (["federated.clients=null"], "federated.clients: how many"),
    "no label": (["federated.partition=label"], "federated.label: needed"),
    "unknown label": (["federated.label=occupatio"], "federated.label occupatio: "),
    "empty client": (
        ["federated.partition=label", "federated.label=gender", "federated.alpha=100", "federated.clients=28"],
        "would hold no text",
    ),
    "more periods than rounds": (["federated.periods=9"], "need as many rounds"),
    "streaming": (["data.streaming=true", "train.max_steps=4"], "not together with federated.rounds"),
    "fp16": (["train.precision=fp16"], "fp16"),
    "weight decay with sgd": (["optim.name=sgd", "optim.weight_decay=0.1"], "has no effect with optim.name sgd"),
}


@pytest.mark.parametrize("what", BAD)
def test_mistakes_are_one_line(what, run, capsys):
    more, says = BAD[what]
    assert run("bad", *FEW, *more) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and says in lines[0] and "Traceback" not in lines[0]


def test_an_empty_client_is_one_line(run, whole, tmp_path, capsys):
    shutil.copytree(whole, tmp_path / "empty")
    (folder,) = (tmp_path / "empty" / "clients").iterdir()
    for spoil, says in ((lambda path: path.write_text(""), "has no text"), (Path.unlink, "no texts.jsonl here")):
        (tmp_path / "empty" / "run.json").unlink(missing_ok=True)
        spoil(folder / "00002" / "texts.jsonl")
        assert run("empty", *FEW) == 2
        assert says in capsys.readouterr().err


def test_a_dry_run_counts_what_is_sent(run, whole, tmp_path, capsys):
    assert run("dry", *FEW, "--dry_run") == 0
    said = capsys.readouterr().out
    assert "2 of 2 of 4 clients" in said and not (tmp_path / "dry").exists()
    sent = facts_of(whole)
    parameters = sum(x.numel() for name, x in weights(whole).items() if "lm_head" not in name)
    assert sent["bytes_up"] == pytest.approx(4 * 4 * parameters, rel=0.1)
