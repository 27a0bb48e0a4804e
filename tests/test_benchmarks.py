"""The benchmarks of a step run and end with the figures that are read from them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SIZES = json.dumps({"n_layer": 2, "n_embd": 16, "n_head": 2, "vocab_size": 300, "bos_token_id": 0, "eos_token_id": 0})
STEP = {"era_over_bare", "plain_over_bare", "cached_over_live", "cache_bytes_per_token"}
GPU = {"share_of_peak", "era_over_dense_loop", "era_over_bare_time"}


@pytest.mark.parametrize(
    ("script", "options", "keys"),
    [
        ("step.py", ["--length", "16", "--repeats", "1", "--sizes", SIZES], STEP),
        ("gpu.py", ["--tiny", "--eager_only", "--pairs", "1", "--length", "32", "--steps", "1"], GPU),
    ],
)
def test_a_benchmark_ends_with_its_figures(script, options, keys):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(ROOT / "benchmarks" / script), *options]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found) == keys and all(value > 0 for value in found.values())


@pytest.mark.slow
def test_a_run_on_a_corpus_larger_than_its_memory_takes_no_more_than_on_a_quarter_of_it():
    """The limit is the system's: what the process held after a small run and 100 MB more."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(ROOT / "benchmarks" / "memory.py"), "--megabytes", "160"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["corpus_4x"] > found["limit_4x"] and found["texts_held_4x"] == 0
    assert found["peak_4x"] < found["peak_1x"] + 20
