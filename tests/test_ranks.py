"""Several processes give the weights of one, however the model is sharded; a run may change between them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import kill_many
import pytest
import torch
import yaml
from safetensors.torch import load_file

import train_distill
from debias.run.launch import is_sharded, load_whole_again
from tests.runs import bitwise, fresh, write_texts

ROOT = Path(train_distill.__file__).parent


@pytest.fixture(autouse=True)
def _fresh_accelerator():
    yield
    fresh()


@pytest.fixture(scope="module")
def settings(tmp_path_factory, tiny_gpt2, few_words) -> list[str]:
    """ERA with augmentation and texts of unequal length; 16 sequences a step."""
    folder = tmp_path_factory.mktemp("corpus")
    write_texts(folder / "texts.jsonl")
    return [
        *(f"data.source={folder / 'texts.jsonl'}", f"counterfactual.lexicon={few_words}"),
        *(f"teacher.model={tiny_gpt2}", f"data.pairs_dir={folder / 'pairs'}", "data.max_length=64"),
        *("counterfactual.augment=true", "loss.op=max", "loss.vocabulary=reversed", "optim.lr=3e-3"),
        *("train.max_steps=6", "train.batch_size=16", "train.micro_batch_size=4", "train.cpu_threads=1"),
        *("train.log_every=1", "train.save_every=3", "train.precision=no"),
    ]


@pytest.fixture(scope="module")
def one(settings, tmp_path_factory) -> Path:
    """One process, one micro-batch a step."""
    folder = tmp_path_factory.mktemp("one")
    assert train_distill.main([*settings, f"output_dir={folder}", "train.micro_batch_size=16"]) == 0
    fresh()
    return folder


def fork(settings: list[str], folder: Path) -> None:
    """Two ranks of DDP, forked from this process: they need not import everything again."""
    if torch.cuda.is_available():  # autograd's threads of a GPU do not survive a fork
        return launch(settings, folder)
    fresh()
    assert kill_many.wait(kill_many.start([*settings, f"output_dir={folder}"], 2, folder.parent)) == [0, 0]
    assert json.loads((folder / "run.json").read_text(encoding="utf-8"))["ranks"] == 2


def launch(settings: list[str], folder: Path, script: str = "train_distill.py", **environment: str) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += [script, *settings, f"output_dir={folder}"]
    given = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"} | environment
    done = subprocess.run(command, cwd=ROOT, env=given, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-3000:]
    made = list(folder.glob("**/run.json"))
    assert made and all(json.loads(path.read_text(encoding="utf-8"))["ranks"] == 2 for path in made)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def close(a: Path, b: Path) -> None:
    """The same weights and losses to rounding."""
    one, two = weights(a), weights(b)
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-4, atol=2e-5)
    lines = [(folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines() for folder in (a, b)]
    for x, y in zip(*(map(json.loads, rows) for rows in lines), strict=True):
        assert x.keys() == y.keys() and x["step"] == y["step"] and x["num_tokens"] == y["num_tokens"]
        assert x["loss"] == pytest.approx(y["loss"], rel=1e-4) and x["grad_norm"] == pytest.approx(
            y["grad_norm"], rel=1e-3
        )


def interrupted(folder: Path, copy: Path) -> Path:
    """A copy of a finished run as it was after the checkpoint of step 3."""
    shutil.copytree(folder, copy)
    shutil.rmtree(copy / "model")
    (copy / "run.json").unlink()
    return copy


def test_accumulation_and_ranks_give_the_weights_of_one(settings, one, tmp_path):
    """1 × 16, 4 × 4 and 2 ranks × 2 × 4; one process resumes the run of two ranks."""
    assert train_distill.main([*settings, f"output_dir={tmp_path / 'four'}"]) == 0
    close(one, tmp_path / "four")
    fresh()
    fork(settings, tmp_path / "two")
    close(one, tmp_path / "two")
    assert train_distill.main([*settings, f"output_dir={interrupted(tmp_path / 'two', tmp_path / 'on')}"]) == 0
    close(one, tmp_path / "on")
    assert json.loads((tmp_path / "on" / "run.json").read_text(encoding="utf-8"))["steps_here"] == 3


def zero(stage: int) -> dict[str, str]:
    path = ROOT / "configs" / "deepspeed" / f"zero{stage}.json"
    return {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_CONFIG_FILE": str(path)}


@pytest.mark.slow
def test_zero_2_gives_the_weights_of_one_process_and_back(settings, one, tmp_path):
    pytest.importorskip("deepspeed")
    launch(settings, tmp_path / "zero", **zero(2))
    close(one, tmp_path / "zero")
    assert train_distill.main([*settings, f"output_dir={interrupted(tmp_path / 'zero', tmp_path / 'on')}"]) == 0
    close(one, tmp_path / "on")


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_zero_gives_the_weights_of_one_and_resumes_bitwise(stage, settings, one, tmp_path):
    pytest.importorskip("deepspeed")
    launch(settings, tmp_path / "zero", **zero(stage))
    close(one, tmp_path / "zero")
    launch(settings, interrupted(tmp_path / "zero", tmp_path / "on"), **zero(stage))
    assert bitwise(tmp_path / "zero", tmp_path / "on")


@pytest.mark.slow
def test_several_runs_under_zero_3_equal_those_of_one_process(settings, one, tmp_path):
    """The second loads its models when the processes are joined already, and accumulates otherwise."""
    pytest.importorskip("deepspeed")
    launch([*settings, "runs={a: {}, b: {train: {micro_batch_size: 8}}}"], tmp_path / "zero", **zero(3))
    for name in "ab":
        close(one, tmp_path / "zero" / name)
        numbers = [
            json.loads((path / "run.json").read_text())["parameters"] for path in (one, tmp_path / "zero" / name)
        ]
        assert numbers[0] == numbers[1] > 0


@pytest.mark.slow
def test_zero_in_bfloat16_resumes_bitwise_from_float32(settings, one, tmp_path):
    pytest.importorskip("deepspeed")
    settings = [*settings, "train.precision=null"]  # what the profile says
    launch(settings, tmp_path / "zero", **zero(2))
    saved = load_file(tmp_path / "zero" / "checkpoints" / "step-0000003" / "model.safetensors")
    assert not all(torch.equal(w, w.bfloat16().float()) for w in saved.values())
    launch(settings, interrupted(tmp_path / "zero", tmp_path / "on"), **zero(2))
    assert bitwise(tmp_path / "zero", tmp_path / "on")


@pytest.mark.slow
def test_a_replicated_run_resumes_in_shards(settings, one, tmp_path):
    pytest.importorskip("deepspeed")
    launch(settings, interrupted(one, tmp_path / "on"), **zero(3))
    close(one, tmp_path / "on")


def test_another_launch_than_asked_for_is_refused(settings, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert train_distill.main([*settings, f"output_dir={tmp_path / 'run'}"]) == 2
    assert "FSDP was asked for, but Accelerate runs NO on cpu" in capsys.readouterr().err
    assert not (tmp_path / "run" / "run.json").exists()


FSDP_ON_CPU = """
import sys

from accelerate import state
from accelerate.utils import DistributedType

make = state.AcceleratorState.__init__

def pose(self, *args, **options):  # Accelerate knows FSDP on GPUs only; torch runs it anywhere
    make(self, *args, **options)
    if "fsdp_plugin" in options:
        self.fsdp_plugin, self.distributed_type = options["fsdp_plugin"], DistributedType.FSDP
        state.PartialState._shared_state["distributed_type"] = DistributedType.FSDP

state.AcceleratorState.__init__ = pose
import train_distill
sys.exit(train_distill.main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_fsdp_gives_the_weights_of_one_and_resumes_bitwise(settings, one, tmp_path):
    script = tmp_path / "fsdp.py"
    script.write_text(FSDP_ON_CPU, encoding="utf-8")
    profile = yaml.safe_load((ROOT / "configs" / "accelerate" / "fsdp.yaml").read_text(encoding="utf-8"))
    environment = {key.upper(): str(value) for key, value in profile["fsdp_config"].items()}
    environment |= {"ACCELERATE_USE_FSDP": "true", "PYTHONPATH": str(ROOT)}
    launch(settings, tmp_path / "fsdp", str(script), **environment)
    close(one, tmp_path / "fsdp")
    launch(settings, interrupted(tmp_path / "fsdp", tmp_path / "on"), str(script), **environment)
    assert bitwise(tmp_path / "fsdp", tmp_path / "on")


def test_weights_of_nan_are_refused_by_several_ranks_too(settings, tmp_path):
    fresh()
    ranks = kill_many.start([*settings, "optim.lr=1e38", f"output_dir={tmp_path / 'run'}"], 2, tmp_path)
    assert 0 not in kill_many.wait(ranks)
    assert not list(tmp_path.rglob("model.safetensors"))


def test_which_launches_are_sharded():
    def accelerator(kind, stage=None):
        plugin = None if stage is None else SimpleNamespace(zero_stage=stage)
        return SimpleNamespace(distributed_type=kind, state=SimpleNamespace(deepspeed_plugin=plugin))

    shares = [accelerator("FSDP"), accelerator("DEEPSPEED", 3)]
    wholes = [accelerator("NO"), accelerator("MULTI_GPU"), accelerator("DEEPSPEED", 2)]
    assert all(map(is_sharded, shares)) and not any(map(is_sharded, wholes))


def test_after_a_run_under_zero_3_models_are_loaded_whole():
    """The next run's and those to measure: transformers would leave this rank its share of each."""
    pytest.importorskip("deepspeed")
    from transformers.integrations.deepspeed import HfDeepSpeedConfig, is_deepspeed_zero3_enabled

    known = HfDeepSpeedConfig({"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": 3}})
    assert known.is_zero3() and is_deepspeed_zero3_enabled()
    load_whole_again()
    assert not is_deepspeed_zero3_enabled()
