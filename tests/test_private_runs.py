"""Private runs from their settings to run.json: noise, ranks, accumulation, exact resume, refusals."""

import json
import os
import shutil
from pathlib import Path

import kill_many
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import train_distill
from configs.load import load
from counterfactuals.text.lexicon import load_lexicon
from counterfactuals.text.reverse import Reverser
from counterfactuals.tokens import pairs as pairs_module
from counterfactuals.tokens.pairs import build_pairs, make_pairs
from privacy.account import Schedule, epsilon
from tests.runs import bitwise, fresh, write_texts


@pytest.fixture(autouse=True)
def _fresh_accelerator():
    yield
    fresh()


@pytest.fixture(scope="module")
def settings(tmp_path_factory, tiny_gpt2, few_words) -> list[str]:
    """ERA with augmentation; about 16 sequences in each of six steps, ε = 2."""
    folder = tmp_path_factory.mktemp("corpus")
    write_texts(folder / "texts.jsonl")
    with open(os.open(folder / "secret", os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
        file.write(b"the same in every run of the test")
    return [
        *(f"data.source={folder / 'texts.jsonl'}", f"counterfactual.lexicon={few_words}"),
        *(f"teacher.model={tiny_gpt2}", f"data.pairs_dir={folder / 'pairs'}", "data.max_length=24"),
        *("counterfactual.augment=true", "loss.op=max", "loss.vocabulary=reversed", "optim.lr=3e-3"),
        *("train.max_steps=6", "train.batch_size=16", "train.micro_batch_size=4", "train.cpu_threads=1"),
        *("train.log_every=1", "train.save_every=3", "train.precision=no", "privacy.max_norm=2"),
        *("privacy.epsilon=2", "privacy.delta=1e-3", f"privacy.secret={folder / 'secret'}"),
    ]


def train(settings: list[str], folder: Path, *more: str) -> Path:
    assert train_distill.main([*settings, f"output_dir={folder}", *more]) == 0
    fresh()
    return folder


@pytest.fixture(scope="module")
def one(settings, tmp_path_factory) -> Path:
    return train(settings, tmp_path_factory.mktemp("one"))


def weights(folder: Path) -> torch.Tensor:
    return torch.cat([value.ravel() for value in load_file(folder / "model" / "model.safetensors").values()])


def interrupted(folder: Path, copy: Path) -> Path:
    """A copy of a finished run as it was after the checkpoint of step 3."""
    shutil.copytree(folder, copy)
    shutil.rmtree(copy / "model")
    (copy / "run.json").unlink()
    return copy


def test_epsilon_follows_from_run_json(one):
    found = json.loads((one / "run.json").read_text(encoding="utf-8"))["privacy"]
    schedule = Schedule(found["sampling_rate"], found["steps"], found["decay"], found["epoch_steps"])
    assert epsilon(found["noise_multiplier"], schedule, found["delta"]) == found["epsilon"] <= 2
    assert found["epsilon"] > 1.98 and found["texts"] == 100 and found["steps"] == 6
    assert (found["unit"], found["clip"]) == ("text", "flat") and "metrics.jsonl" in found["not_covered"]


def test_a_private_run_resumes_bitwise(settings, one, tmp_path):
    assert bitwise(one, train(settings, interrupted(one, tmp_path / "on")))
    more = ["privacy.adaptive=0.5", "privacy.decay=0.9", "train.max_steps=5"]
    whole = train(settings, tmp_path / "whole", *more)
    on = train(settings, interrupted(whole, tmp_path / "adaptive"), *more)
    assert bitwise(whole, on)
    facts = (whole / "checkpoints" / "step-0000003" / "checkpoint.json").read_text(encoding="utf-8")
    assert json.loads(facts)["max_norm"] != 2


@pytest.mark.parametrize("more", ["counterfactual.augment=one", "train.precision=bf16"])
def test_a_private_run_of_one_side_or_in_bf16_resumes_bitwise(more, settings, one, tmp_path):
    whole = train(settings, tmp_path / "whole", more)
    assert bitwise(whole, train(settings, interrupted(whole, tmp_path / "on"), more))
    assert not bitwise(whole, one)


def test_accumulation_and_ranks_give_the_weights_of_one(settings, one, tmp_path):
    """The same texts, the same noise, once: 4 parts, one part, and 2 ranks of 2 parts."""
    whole = train(settings, tmp_path / "whole", "train.micro_batch_size=16")
    torch.testing.assert_close(weights(whole), weights(one), rtol=1e-4, atol=2e-5)
    assert kill_many.wait(kill_many.start([*settings, f"output_dir={tmp_path / 'two'}"], 2, tmp_path)) == [0, 0]
    torch.testing.assert_close(weights(tmp_path / "two"), weights(one), rtol=1e-4, atol=2e-5)
    assert json.loads((tmp_path / "two" / "run.json").read_text(encoding="utf-8"))["ranks"] == 2


def test_another_secret_gives_other_weights_and_cannot_go_on(settings, one, tmp_path, capsys):
    other = train(settings, tmp_path / "other", f"privacy.secret={tmp_path / 'secret'}")
    assert not torch.isclose(weights(other), weights(one), rtol=1e-3).float().mean() > 0.5
    folder = interrupted(one, tmp_path / "on")
    assert train_distill.main([*settings, f"output_dir={folder}", f"privacy.secret={tmp_path / 'secret'}"]) == 2
    assert "another privacy.secret" in capsys.readouterr().err


def test_the_secret_is_nowhere_in_what_a_run_writes(settings, one):
    secret = Path(next(item for item in settings if item.startswith("privacy.secret")).partition("=")[2]).read_bytes()
    written = b"".join(path.read_bytes() for path in one.rglob("*") if path.is_file())
    assert secret not in written and secret.hex().encode() not in written


def test_a_step_without_a_text_trains_on_noise_alone(settings, tmp_path):
    run = train(
        settings, tmp_path, "train.batch_size=2", "train.micro_batch_size=2", "teacher.cache=auto", "train.max_steps=12"
    )
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    empty = [line for line in lines if line["num_tokens"] == 1]
    assert empty and all(line["loss"] == 0 and line["grad_norm"] > 0 for line in empty)


@pytest.mark.parametrize("clip", ["automatic", "micro"])
def test_other_clipping_runs_and_says_so(clip, settings, tmp_path):
    run = train(settings, tmp_path, f"privacy.clip={clip}", "train.max_steps=2", "loss.hidden_weight=0.5")
    assert json.loads((run / "run.json").read_text(encoding="utf-8"))["privacy"]["clip"] == clip


def test_a_dry_run_shows_the_noise(settings, one, tmp_path, capsys):
    assert train_distill.main([*settings, f"output_dir={tmp_path / 'run'}", "--dry_run"]) == 0
    noise = json.loads((one / "run.json").read_text(encoding="utf-8"))["privacy"]["noise_multiplier"]
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.strip().startswith("privacy")]
    assert "ε 2 at δ 0.001" in line and "× the bound 2" in line
    assert float(line.partition("noise ")[2].split()[0]) == pytest.approx(noise, rel=0.3)
    assert not (tmp_path / "run").exists()


def refused(settings: list[str], tmp_path: Path, capsys, *more: str) -> str:
    assert train_distill.main([*settings, f"output_dir={tmp_path / 'run'}", *more]) == 2
    *_, line = capsys.readouterr().err.strip().splitlines()
    assert not list((tmp_path / "run").glob("**/*.safetensors"))
    return line


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["privacy.epsilon=0"], "privacy.epsilon: must be above 0"),
        (["privacy.delta=null"], "privacy.delta: needed"),
        (["privacy.delta=0.02"], "privacy.delta: 0.02 allows to publish one of 100 texts"),
        (["privacy.epsilon=1e-5", "privacy.delta=1e-9"], "privacy.epsilon: 1e-05 is impossible in 6 steps"),
        (["train.precision=fp16"], "train.precision fp16: not together with privacy.epsilon"),
        (["train.keep_best=loss"], "train.keep_best: would depend on the private texts"),
        (["train.on_nan=skip"], "train.on_nan skip: would depend"),
        (["data.streaming=true", "data.pairs_dir=null", "data.shuffle_buffer=64"], "data.streaming: not together"),
        (["train.batch_by=tokens"], "train.batch_by tokens: not together"),
        (["train.compile=true"], "train.compile: not together"),
        (["privacy.clip=micro", "privacy.adaptive=0.5"], "privacy.adaptive: only with privacy.clip flat"),
        (["train.batch_size=4000"], "train.batch_size: 4000 sequences, but the corpus has only"),
    ],
)
def test_what_breaks_the_guarantee_is_refused_in_one_line(more, said, settings, tmp_path, capsys):
    assert said in refused(settings, tmp_path, capsys, *more)


def test_settings_of_privacy_without_epsilon_are_refused(settings, tmp_path, capsys):
    """Unless it is null by name, as in a run to compare with."""
    without = [item for item in settings if not item.startswith("privacy.")]
    line = refused(without, tmp_path, capsys, "privacy={delta: 1e-6, clip: automatic}")
    assert line.startswith("error: privacy.delta, privacy.clip: no guarantee without privacy.epsilon")
    load(None, [*without, "privacy={epsilon: null, delta: 1e-6}"])


def test_a_tokenizer_of_the_private_texts_is_refused(settings, tmp_path, capsys):
    more = ["tokenizer.train_vocab_size=300", "student={init: random, config: {n_layer: 1, n_embd: 16, n_head: 2}}"]
    more += ["teacher.model=null", "loss={kd_weight: 0, lm_weight: 1}"]
    assert "tokenizer.train_vocab_size: a tokenizer of the private" in refused(settings, tmp_path, capsys, *more)


def test_a_secret_that_others_can_read_is_refused(settings, tmp_path, capsys):
    (tmp_path / "secret").write_bytes(os.urandom(32))
    os.chmod(tmp_path / "secret", 0o644)
    assert "can be read by others" in refused(settings, tmp_path, capsys, f"privacy.secret={tmp_path / 'secret'}")


def test_a_teacher_of_the_same_texts_is_refused(settings, one, tmp_path, capsys):
    """By the name of an earlier run of the command, or by its folder."""
    assert "teacher.model: " in refused(settings, tmp_path, capsys, f"teacher.model={one / 'model'}")
    runs = "runs={first: {privacy: {epsilon: null}}, second: {teacher: {model: run:first}}}"
    assert "teacher.model: run:first was trained on" in refused(settings, tmp_path, capsys, runs)
    out = tmp_path / "trained"
    shutil.copytree(one, out / "first")
    only = (f"output_dir={out}", runs, "--runs", "second")
    assert "teacher.model: run:first was trained on" in refused(settings, tmp_path, capsys, *only)


def test_a_launch_in_shards_is_refused():
    from types import SimpleNamespace

    from accelerate.utils import DistributedType

    from configs import private

    for kind in (DistributedType.FSDP, DistributedType.DEEPSPEED):
        with pytest.raises(ValueError, match=f"not together with {kind.value}"):
            private.check_launch(SimpleNamespace(distributed_type=kind, mixed_precision="no"))
    with pytest.raises(ValueError, match="fp16"):
        private.check_launch(SimpleNamespace(distributed_type=DistributedType.NO, mixed_precision="fp16"))


class Texts(list):
    fingerprint, share = "some texts", None


def test_all_sequences_of_a_text_have_its_number(few_words, tiny_tokenizer, tmp_path, monkeypatch):
    """Windows, passages, and the parts of a text that is too long to be read at once, over shards."""
    monkeypatch.setattr(pairs_module, "LONGEST", 300)
    monkeypatch.setattr(pairs_module, "SHARD_CHARACTERS", 700)
    line = "She said that her brother had met the man, and he told the woman that it was right. "
    texts = Texts([line, line * 12, "x", line * 2, line * 9])
    reverser = Reverser(load_lexicon(str(few_words)))
    found = build_pairs(texts, reverser, tiny_tokenizer, tmp_path, max_length=16)
    assert found.meta["shards"] > 2
    alone = [len(list(make_pairs([text], reverser, tiny_tokenizer, max_length=16))) for text in texts]
    assert np.bincount(found.texts()).tolist() == alone and all(np.diff(found.texts()) >= 0)
    assert alone[1] > 6 * alone[0]
