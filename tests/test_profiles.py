"""Launch profiles: each one loads, says what it is, and points at files that exist."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.utils.deepspeed import HfDeepSpeedConfig

from debias.run.launch import configure_deepspeed

ROOT = Path(__file__).resolve().parents[1]
PROFILES = sorted((ROOT / "configs" / "accelerate").glob("*.yaml"))
DEEPSPEED = sorted((ROOT / "configs" / "deepspeed").glob("*.json"))
PRINT_WORLD = """
from accelerate import Accelerator
accelerator = Accelerator()
accelerator.print("world", accelerator.num_processes, accelerator.device.type)
accelerator.end_training()
"""
AUTO = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping")


def load(path: Path) -> ClusterConfig:
    return load_config_from_file(str(path))


def test_profiles_for_each_kind_of_machine() -> None:
    assert {path.stem for path in PROFILES} >= {
        "cpu",
        "one_gpu",
        "multi_gpu",
        "deepspeed_zero2",
        "deepspeed_zero3",
        "fsdp",
    }


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_profile_loads(path: Path) -> None:
    config = load(path)  # refuses unknown keys
    assert config.num_machines == 1
    if path.stem.startswith("deepspeed_"):
        assert config.distributed_type == "DEEPSPEED"
        target = ROOT / config.deepspeed_config["deepspeed_config_file"]
        assert target in DEEPSPEED and target.stem == path.stem.removeprefix("deepspeed_")
        # Accelerate refuses a profile that says in both files what the JSON must say alone
        assert config.mixed_precision is None and "gradient_accumulation_steps" not in config.deepspeed_config
    else:
        several = "FSDP" if path.stem == "fsdp" else "MULTI_GPU"
        assert config.distributed_type == (several if config.num_processes > 1 else "NO")
        assert config.mixed_precision in ("no", "bf16")


def test_no_profile_claims_several_cpu_ranks() -> None:
    """`accelerate launch` starts one process on the CPU whatever num_processes says: it would not be true."""
    assert {path.stem: load(path).num_processes for path in PROFILES if load(path).use_cpu} == {"cpu": 1}


@pytest.mark.parametrize("path", DEEPSPEED, ids=lambda path: path.stem)
def test_deepspeed_configs_leave_the_runs_settings_on_auto(path: Path) -> None:
    config = HfDeepSpeedConfig(str(path))
    stage = int(path.stem.removeprefix("zero"))
    assert config.get_value("zero_optimization.stage") == stage
    assert config.get_value("zero_optimization.stage3_gather_16bit_weights_on_model_save", False) == (stage == 3)
    for key in AUTO:
        assert config.get_value(key) == "auto"
    assert not {"optimizer", "scheduler"} & set(json.loads(path.read_text(encoding="utf-8")))


def test_batch_sizes_of_deepspeed_are_those_of_the_run() -> None:
    """Also of the second run of a command, when Accelerate has filled in the first's."""
    plugin = SimpleNamespace(deepspeed_config=dict.fromkeys(AUTO, 99))
    state = SimpleNamespace(deepspeed_plugin=plugin)
    accelerator = SimpleNamespace(state=state, gradient_accumulation_steps=3, num_processes=2)
    configure_deepspeed(accelerator, micro_batch_size=4, max_grad_norm=5.0)
    assert plugin.deepspeed_config == dict(zip(AUTO, (24, 4, 3, 5.0)))


def test_the_cpu_profile_gives_the_one_rank_it_says(tmp_path: Path) -> None:
    """Two ranks by torchrun: see test_ranks.py."""
    script = tmp_path / "print_world.py"
    script.write_text(PRINT_WORLD, encoding="utf-8")
    env = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    command = ["-m", "accelerate.commands.launch", "--config_file", "configs/accelerate/cpu.yaml", str(script)]
    done = subprocess.run([sys.executable, *command], cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["world 1 cpu"]
