"""What tests of whole runs share."""

from __future__ import annotations

import itertools
import json
import os
import runpy
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE, STDOUT

import torch
from accelerate.state import AcceleratorState, PartialState

from counterfactuals import sample

ROOT = Path(__file__).resolve().parents[1]


def write_texts(path: Path, number: int = 100) -> Path:
    """The first texts of a sample, as a jsonl file."""
    rows = itertools.islice(sample.generate(200, seed=3), number)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def fresh() -> None:
    """Forget the last run's processes and precision, as a new process would."""
    AcceleratorState._reset_state()
    PartialState._reset_state()


def forked(do: Callable[[], int | None], output: Path) -> int:
    """Call `do` in a process forked from this one, which has imported everything already; its process id.

    Its exit code is what `do` returns, or exits with; its standard output and error are added to the file.
    """
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", 1, closefd=False) for number in (1, 2))
        torch.set_num_threads(1)  # threads do not survive a fork
        code = do() or 0
        sys.stdout.flush()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(bool(stop.code))
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def said(do: Callable[[], int | None], output: Path) -> tuple[int, str]:
    """Exit code and output of `do` in a forked process."""
    output.unlink(missing_ok=True)
    code = os.waitstatus_to_exitcode(os.waitpid(forked(do, output), 0)[1])
    return code, output.read_text(encoding="utf-8")


def script(name: str, *words: str, output: Path) -> tuple[int, str]:
    """Exit code and output of a script of benchmarks/ on the CPU: forked, or by itself where there is a GPU."""
    path = ROOT / "benchmarks" / name
    if torch.cuda.is_available():  # which does not survive a fork
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(path), *words]
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=PIPE, stderr=STDOUT, text=True)
        return done.returncode, done.stdout

    def do() -> None:
        os.chdir(ROOT)
        sys.path.insert(0, str(path.parent))
        sys.argv = [str(path), *words]
        runpy.run_path(str(path), run_name="__main__")

    return said(do, output)


def bitwise(a: Path, b: Path) -> bool:
    """Two runs have the same weights and the same figures."""
    return all(
        (a / name).read_bytes() == (b / name).read_bytes() for name in ("model/model.safetensors", "metrics.jsonl")
    )
