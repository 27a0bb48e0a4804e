"""Nothing is lost when a run is killed or asked to stop, or meets a non-finite step, a full disk, other ranks."""

import importlib.util
import itertools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import kill_many
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import train_distill
from counterfactuals.provenance import model_fingerprint
from debias import task
from debias.run import checkpoint, guard, launch
from tests.runs import forked, fresh, write_texts


@pytest.fixture(autouse=True)
def _fresh_accelerator():
    yield
    fresh()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return write_texts(tmp_path_factory.mktemp("corpus") / "texts.jsonl")


@pytest.fixture(scope="module")
def settings(corpus, tiny_gpt2, few_words) -> list[str]:
    return [
        f"data.source={corpus}",
        f"teacher.model={tiny_gpt2}",
        f"counterfactual.lexicon={few_words}",
        *("data.max_length=64", "counterfactual.augment=true", "loss.op=max", "student.dropout=0.1"),
        *("train.max_steps=6", "train.batch_size=16", "train.micro_batch_size=8", "train.cpu_threads=1"),
        *("train.log_every=1", "train.save_every=2", "optim.lr=3e-3"),
    ]


@pytest.fixture(scope="module")
def whole(settings, tmp_path_factory) -> Path:
    """An undisturbed run."""
    folder = tmp_path_factory.mktemp("whole")
    assert train_distill.main([*settings, f"output_dir={folder}"]) == 0
    fresh()
    return folder


@pytest.fixture
def run(settings, tmp_path):
    """Runs the recipe into tmp_path / "run", with further settings."""

    def start(*more):
        fresh()
        return train_distill.main([*settings, f"output_dir={tmp_path / 'run'}", *more])

    return start


def same(a: Path, b: Path) -> bool:
    names = ["metrics.jsonl", *(f"model/{path.name}" for path in (a / "model").iterdir())]
    return all((a / name).read_bytes() == (b / name).read_bytes() for name in names)


def checkpoints(folder: Path) -> list[str]:
    return [path.name for path in checkpoint.complete(folder / "checkpoints")]


def at_call(monkeypatch, number: int, do) -> None:
    """Calls `do` before the number-th forward pass (from 0); two a step."""
    original, calls = task.DistillTask.forward, itertools.count()

    def forward(self, batch, **options):
        if next(calls) == number:
            do()
        return original(self, batch, **options)

    monkeypatch.setattr(task.DistillTask, "forward", forward)


# ---------------------------------------------------------------- killed


@pytest.mark.parametrize("ranks", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_run_killed_at_random_moments_ends_bitwise_the_same(ranks, monkeypatch, capsys):
    """Forked from this process, which has imported everything; run the script itself for many kills."""
    command = ["kill_many", "--kills", str(3 - ranks), "--ranks", str(ranks), "--seed", str(ranks)]
    command += ["train.max_steps=6", "train.save_every=1", "train.batch_size=16", "train.micro_batch_size=4"]
    monkeypatch.setattr(sys, "argv", command)
    assert kill_many.main() == 0
    assert "every round ended bitwise as undisturbed" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_a_signal_saves_at_the_next_step_and_the_run_resumes(name, run, whole, tmp_path, monkeypatch, capsys):
    before = signal.getsignal(signal.Signals[name])
    at_call(monkeypatch, 5, lambda: os.kill(os.getpid(), signal.Signals[name]))  # in step 3, which none saves
    assert run() == 0
    assert "stopped after step 3 of 6; the same command resumes there" in capsys.readouterr().out
    assert checkpoints(tmp_path / "run") == ["step-0000002", "step-0000003"]
    assert not (tmp_path / "run" / "run.json").exists()
    assert signal.getsignal(signal.Signals[name]) == before
    assert run() == 0 and same(whole, tmp_path / "run")


def test_a_second_ctrl_c_ends_the_process_at_once(tmp_path):
    def press_twice():
        with guard.StopRequest():
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)

    assert kill_many.wait([forked(press_twice, tmp_path / "log")]) == [-signal.SIGINT]


def test_a_signal_in_the_last_step_does_not_prevent_the_end(run, whole, tmp_path, monkeypatch):
    at_call(monkeypatch, 11, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert run() == 0
    assert (tmp_path / "run" / "run.json").exists() and same(whole, tmp_path / "run")


# ---------------------------------------------------------------- checkpoints


def truncate(folder: Path) -> None:
    os.truncate(folder / "training.safetensors", 1000)


def flip_a_byte(folder: Path) -> None:
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-100] ^= 1
    (folder / "model.safetensors").write_bytes(content)


DAMAGE = {
    "truncated": truncate,
    "flipped": flip_a_byte,
    "missing": lambda folder: (folder / "model.safetensors").unlink(),
    "empty facts": lambda folder: (folder / "checkpoint.json").write_text(""),
    "other facts": lambda folder: (folder / "checkpoint.json").write_text("[1]"),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_checkpoint_is_named_and_skipped(how, run, whole, tmp_path, capsys):
    shutil.copytree(whole, tmp_path / "run")
    (tmp_path / "run" / "run.json").unlink()
    DAMAGE[how](tmp_path / "run" / "checkpoints" / "step-0000004")
    assert run() == 0
    said = capsys.readouterr()
    assert (
        "step-0000004: " in said.err
        and "resuming from the checkpoint before it" in said.err
        and "Traceback" not in said.err
    )
    assert "student       3/6" in said.out and same(whole, tmp_path / "run")


def test_with_every_checkpoint_damaged_a_run_starts_over(run, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    (tmp_path / "run" / "run.json").unlink()
    for folder in checkpoint.complete(tmp_path / "run" / "checkpoints"):
        truncate(folder)
    assert run() == 0 and same(whole, tmp_path / "run")


def test_partial_checkpoints_are_removed_and_old_ones_pruned(run, tmp_path):
    torn = tmp_path / "run" / "checkpoints" / "step-0000001.partial"
    torn.mkdir(parents=True)
    (torn / "checkpoint.json").write_text("{}", encoding="utf-8")
    assert checkpoint.complete(torn.parent) == []
    assert run("train.save_every=1", "train.keep_checkpoints=3") == 0
    assert sorted(path.name for path in torn.parent.iterdir()) == [f"step-000000{n}" for n in (3, 4, 5)]


def test_the_best_checkpoint_is_kept_beside_the_newest(run, tmp_path):
    """By the learning rate, which a warm-up over all steps makes lowest in the first."""
    more = ["train.save_every=1", "train.keep_checkpoints=1", "train.keep_best=lr", "optim.warmup=1"]
    assert run(*more) == 0
    assert checkpoints(tmp_path / "run") == ["step-0000001", "step-0000005"]
    assert checkpoint.best(tmp_path / "run" / "checkpoints").name == "step-0000001"


def test_the_best_is_the_lowest_and_stays_while_newer_ones_go(tmp_path):
    for step, figure in ((1, 3.0), (2, 1.0), (3, 2.0)):
        (tmp_path / f"step-000000{step}").mkdir()
        (tmp_path / f"step-000000{step}" / "checkpoint.json").write_text(json.dumps({"step": step, "figure": figure}))
    assert checkpoint.best(tmp_path).name == "step-0000002"


def test_a_checkpoint_is_a_model(whole):
    folder = whole / "checkpoints" / "step-0000004"
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    stored, last = load_file(folder / "model.safetensors"), load_file(whole / "model" / "model.safetensors")
    own = dict(model.named_parameters())
    assert stored.keys() == own.keys() == last.keys()
    assert all(torch.equal(stored[name], own[name]) for name in own)
    assert not all(torch.equal(stored[name], last[name]) for name in own)


def test_a_run_writes_no_pickles(whole):
    kinds = {path.suffix for path in whole.rglob("*") if path.is_file()}
    assert kinds == {".json", ".jsonl", ".safetensors", ".yaml"}


def test_a_run_records_hashes_of_its_inputs_and_its_model(whole, tiny_gpt2):
    found = json.loads((whole / "run.json").read_text())["sha256"]
    assert found["teacher.model"] == model_fingerprint(str(tiny_gpt2))
    assert found["model"] == model_fingerprint(str(whole / "model")) != found["teacher.model"]
    assert set(found) == {"teacher.model", "data.source", "counterfactual.lexicon", "corpus", "pairs", "model"}
    assert all(len(digest) == 64 for digest in found.values())


def test_no_token_is_in_what_a_run_writes_or_says(settings, tmp_path, monkeypatch):
    """In a process of its own: wandb remembers the key that it has seen."""
    secrets = {"WANDB_API_KEY": "0123456789abcdef" * 2 + "deadbeef", "HF_TOKEN": "hf_SECRETsecretSECRETsecretSECRET"}
    for name, secret in secrets.items():
        monkeypatch.setenv(name, secret)
    options = [*settings, f"output_dir={tmp_path / 'run'}", "train.max_steps=3"]
    options += ["tracking={to: wandb, mode: offline}"] if importlib.util.find_spec("wandb") else []
    codes = kill_many.wait(kill_many.start(options, 1, tmp_path))
    said = (tmp_path / "log").read_bytes()
    assert codes == [0] and b"3/3" in said, said[-2000:]
    written = [path for path in (tmp_path / "run").rglob("*") if path.is_file() and not path.is_symlink()]
    assert any("checkpoints" in path.parts for path in written)
    for secret in secrets.values():
        assert secret.encode() not in said
        assert [path for path in written if secret.encode() in path.read_bytes()] == []


def test_a_checkpoint_of_another_model_or_precision_is_refused(run, whole, tmp_path, capsys):
    shutil.copytree(whole, tmp_path / "run")
    assert run("train.precision=bf16") == 2
    assert "train.precision: None, now bf16" in capsys.readouterr().err
    (tmp_path / "run" / "run.json").unlink()
    (tmp_path / "run" / "config.yaml").unlink()
    assert run("train.precision=bf16") == 2
    assert "was made with no, this run has bf16" in capsys.readouterr().err
    assert not (tmp_path / "run" / "config.yaml").exists()  # a refused run leaves no settings of its own
    assert run("student.layers=[0]") == 2
    assert run("student.layers=[0, 1, 2]") == 2
    assert "holds another model (" in capsys.readouterr().err


def test_changed_settings_are_refused_by_name_unless_allowed(run, tmp_path, capsys):
    assert run("train.max_steps=4") == 0
    assert run() == 2
    message = capsys.readouterr().err
    assert "train.max_steps: 4, now 6" in message and "--allow_changes" in message and message.count("\n") == 1
    assert run("train.max_steps=4", "train.micro_batch_size=4", "train.save_every=3", "data.workers=2") == 0
    assert run("train.max_steps=4", "train.log_every=3") == 0, "logging does not train a complete run again"
    assert run("--allow_changes", "optim.lr=1e-3") == 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6] and rows[2]["lr"] < rows[1]["lr"] / 2
    assert json.loads((tmp_path / "run" / "changes.jsonl").read_text())["changed"] == [
        "optim.lr: 0.003, now 0.001",
        "train.max_steps: 4, now 6",
    ]
    assert run("optim.lr=1e-3") == 0 and "complete" in capsys.readouterr().out
    assert run("--allow_changes", "optim.lr=1e-3", "train.max_steps=1") == 2
    assert "has already done 4 steps, more than 1; raise train.max_steps" in capsys.readouterr().err


# ---------------------------------------------------------------- disks


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MB at tmp_path / "run"."""
    (tmp_path / "run").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(tmp_path / "run")]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting needs root")
    yield tmp_path / "run"
    subprocess.run(["umount", "-l", str(tmp_path / "run")], check=True)


def refused(capsys) -> str:
    message = capsys.readouterr().err
    assert message.count("error: ") == 1 and message.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in message
    return message


def test_a_full_disk_is_one_line_and_the_last_checkpoint_stays(run, whole, small_disk, tmp_path, capsys):
    pairs = f"data.pairs_dir={tmp_path / 'pairs'}"
    size = sum(path.stat().st_size for path in (whole / "checkpoints" / "step-0000002").iterdir())
    filler = small_disk / "filler"
    filler.write_bytes(bytes(3_000_000 - round(1.6 * size)))
    assert run(pairs) == 2
    assert "step-0000004: cannot be written (No space left" in (message := refused(capsys))
    assert "step-0000002 is complete: the same command resumes from it" in message
    assert [path.name for path in (small_disk / "checkpoints").iterdir()] == ["step-0000002"]
    filler.unlink()
    assert run(pairs, "train.keep_checkpoints=1") == 0 and same(whole, small_disk)


def test_a_read_only_folder_is_one_line(run, small_disk, capsys):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert run() == 2
    assert "Read-only file system" in refused(capsys)


def test_a_limit_on_file_sizes_is_one_line(run, tmp_path, capsys):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
        assert run() == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert "File too large" in refused(capsys)
    assert not checkpoints(tmp_path / "run") and not (tmp_path / "run" / "model").exists()


# ---------------------------------------------------------------- steps that are not finite


def poison(monkeypatch, *steps: int) -> None:
    """The loss of the second micro-batch of these steps (from 1) is NaN, as often as it is computed."""
    original, now = task.DistillTask.forward, {}
    seed = launch.seed_step

    def seed_step(of, step, rank):
        now.update(step=step + 1, call=0)
        seed(of, step, rank)

    def forward(self, batch, **options):
        loss, parts = original(self, batch, **options)
        now["call"] += 1
        if now["step"] in steps and now["call"] == 2:
            return loss * float("nan"), parts | {"loss": loss.detach() * float("nan")}
        return loss, parts

    monkeypatch.setattr(train_distill, "seed_step", seed_step)
    monkeypatch.setattr(task.DistillTask, "forward", forward)


def test_a_non_finite_step_stops_the_run_and_keeps_its_batch(run, tmp_path, monkeypatch, capsys):
    poison(monkeypatch, 5)
    assert run() == 2
    message = refused(capsys)
    assert "step 5: not finite (loss nan" in message and "train.on_nan skip" in message
    assert checkpoints(tmp_path / "run") == ["step-0000002", "step-0000004"]
    kept = sorted((tmp_path / "run" / "bad_batches").iterdir())
    assert [path.name for path in kept] == [f"step-0000005-rank0-{n}.safetensors" for n in (0, 1)]
    with safe_open(kept[1], "pt") as file:
        facts = json.loads(file.metadata()["facts"])
        rows = file.get_tensor("row_R")
        assert (file.get_tensor("ids_NT").flatten()[rows + 1] == file.get_tensor("label_R")).all()
    assert facts["step"] == 5 and facts["figures"]["loss"] == "nan" and len(rows) > 100


def test_skipped_non_finite_steps_never_reach_the_weights(run, tmp_path, monkeypatch, capsys):
    poison(monkeypatch, 3, 4)
    assert run("train.on_nan=skip", "train.save_every=4") == 0
    assert "step 3: not finite" in capsys.readouterr().err
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 5, 6]
    at_4 = load_file(tmp_path / "run" / "checkpoints" / "step-0000004" / "model.safetensors")
    assert all(weight.isfinite().all() for weight in at_4.values())
    first = (tmp_path / "run" / "model" / "model.safetensors").read_bytes()
    assert json.loads((tmp_path / "run" / "run.json").read_text())["skipped"] == 2
    (tmp_path / "run" / "run.json").unlink()
    assert run("train.on_nan=skip", "train.save_every=4") == 0  # from step 4
    assert (tmp_path / "run" / "model" / "model.safetensors").read_bytes() == first
    assert json.loads((tmp_path / "run" / "run.json").read_text())["skipped"] == 2


def test_the_number_of_skipped_steps_is_bounded(run, monkeypatch, capsys):
    poison(monkeypatch, 1, 3, 4)
    assert run("train.on_nan=skip", "train.max_skips=2") == 2
    assert "step 4: not finite" in (message := refused(capsys)) and "train.max_skips allows 2" in message


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried"),
        MemoryError(),
    ],
)
def test_out_of_memory_says_what_to_lower(error, run, monkeypatch, capsys):
    def fail():
        raise error

    at_call(monkeypatch, 1, fail)
    assert run() == 2
    assert "lower train.micro_batch_size" in refused(capsys)


def test_lora_trains_alone_resumes_exactly_and_is_saved_merged(settings, tiny_gpt2, run, tmp_path):
    lora = ["student.layers=all", "student.lora={rank: 2, targets: [c_attn, c_proj]}", "train.max_steps=4"]
    assert train_distill.main([*settings, *lora, f"output_dir={tmp_path / 'whole'}"]) == 0
    saved = tmp_path / "whole" / "checkpoints" / "step-0000002"
    names = {key.removeprefix("weight/") for key in load_file(saved / "training.safetensors")}
    assert any("lora_A" in name for name in names) and not any("wte" in name for name in names)
    shutil.copytree(saved, tmp_path / "run" / "checkpoints" / "step-0000002")
    for name in ("inputs.json", "config.yaml"):
        shutil.copy(tmp_path / "whole" / name, tmp_path / "run")
    assert run(*lora) == 0
    first, other = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "run"))
    assert first.keys() == other.keys() and all(torch.equal(first[key], other[key]) for key in first)
    teacher, student = (AutoModelForCausalLM.from_pretrained(path) for path in (tiny_gpt2, tmp_path / "run" / "model"))
    changed = {name for name, p in student.named_parameters() if not torch.equal(p, teacher.get_parameter(name))}
    assert changed == {
        f"transformer.h.{i}.{n}.weight" for i in range(4) for n in ("attn.c_attn", "attn.c_proj", "mlp.c_proj")
    }
