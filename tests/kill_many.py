"""Kill a training run many times and compare what becomes of it with an undisturbed run, byte by byte.

    python tests/kill_many.py --kills 50 [--ranks 2] [--seed 0] [key.sub=value …]

Rounds of: start the run, SIGKILL it at a random moment (every third time while a checkpoint is being written), start it
again, until it ends by itself. With several ranks all of them are killed, or one; the others, sent SIGTERM as a
launcher does, then have to end within a minute. Processes are forked from this one, which has imported everything.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from conftest import FEW_WORDS, make_tiny_gpt2  # noqa: E402

import train_distill  # noqa: E402
from tests.runs import forked, write_texts  # noqa: E402

SETTINGS = [
    *("data.max_length=64", "counterfactual.augment=true", "loss.op=max", "loss.vocabulary=reversed"),
    *("student.dropout=0.1", "train.batch_size=32", "train.micro_batch_size=8", "train.epochs=2.5", "optim.lr=3e-3"),
    *("train.log_every=1", "train.save_every=3", "train.cpu_threads=1"),
]
PATIENCE = 60  # seconds in which the other ranks have to end when one has died


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("override", nargs="*", metavar="key.sub=value")
    options = parser.parse_intermixed_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        texts, teacher = write_texts(folder / "texts.jsonl"), make_tiny_gpt2(folder / "teacher")
        (folder / "few.yaml").write_text(FEW_WORDS, encoding="utf-8")  # the built-in one takes seconds to prepare
        made_of = [f"data.source={texts}", f"teacher.model={teacher}", f"counterfactual.lexicon={folder / 'few.yaml'}"]
        settings = [*made_of, *SETTINGS, *options.override]
        began = time.monotonic()
        assert wait(start([*settings, f"output_dir={folder / 'whole'}"], options.ranks, folder)) == [0] * options.ranks
        length, expected = time.monotonic() - began, outcome(folder / "whole")
        print(f"undisturbed: {length:.1f} s, {len(expected['metrics.jsonl'].splitlines())} steps", flush=True)

        moments: Counter[str] = Counter()
        rounds, alone = 0, []
        while moments.total() < options.kills:
            run = folder / "run"
            shutil.rmtree(run, ignore_errors=True)
            rounds += 1
            while True:
                ranks = start([*settings, f"output_dir={run}"], options.ranks, folder)
                if moments.total() >= options.kills:
                    break
                if not moment(run, rng, length, in_save=rng.random() < 1 / 3, ranks=ranks):
                    length *= 0.8  # too late: aim earlier
                    break
                moments[where(run)] += 1
                chosen = ranks if options.ranks == 1 or rng.random() < 0.5 else [rng.choice(ranks)]
                for rank in chosen:
                    os.kill(rank, signal.SIGKILL)
                began = time.monotonic()
                for rank in set(ranks) - set(chosen):  # as torchrun does; in the loop it is a request only
                    os.kill(rank, signal.SIGTERM)
                wait(ranks)
                if len(chosen) < len(ranks):
                    alone.append(time.monotonic() - began)
            codes = wait(ranks)
            assert codes == [0] * options.ranks, f"{codes}: {(folder / 'log').read_text()[-3000:]}"
            found = outcome(run)
            differing = [name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)]
            assert not differing, f"round {rounds}: {', '.join(differing)} differ from the undisturbed run's"
            left = [str(path.relative_to(run)) for path in run.rglob("*.partial")]
            assert not left, f"round {rounds}: {left} left behind"
    places = ", ".join(f"{count} {place}" for place, count in sorted(moments.items()))
    print(f"{moments.total()} kills in {rounds} rounds ({places}): every round ended bitwise as undisturbed")
    if alone:
        print(f"{len(alone)} times one rank alone was killed: the others ended within {max(alone):.1f} s")
    return 0


def start(settings: list[str], ranks: int, folder: Path) -> list[int]:
    """Fork the ranks of one training run; their process ids."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])

    def train(rank: int) -> int:
        if ranks > 1:
            where = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks}
            os.environ.update({key: str(value) for key, value in where.items()})
            os.environ.update(MASTER_ADDR="localhost", MASTER_PORT=port, ACCELERATE_USE_CPU="true")
        return train_distill.main(settings)

    return [forked(partial(train, rank), folder / "log") for rank in range(ranks)]


def wait(ranks: list[int]) -> list[int]:
    """Exit codes; a rank that does not end in time is an error."""
    codes: dict[int, int] = {}
    end = time.monotonic() + (PATIENCE if len(ranks) > 1 else 600)
    while len(codes) < len(ranks):
        for pid in [pid for pid in ranks if pid not in codes]:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                codes[pid] = os.waitstatus_to_exitcode(status)
                end = time.monotonic() + PATIENCE
        assert time.monotonic() < end or not codes, f"{len(ranks) - len(codes)} ranks live on"
        time.sleep(0.005)
    return [codes[pid] for pid in ranks]


def moment(run: Path, rng: random.Random, length: float, *, in_save: bool, ranks: list[int]) -> bool:
    """Wait for a moment to kill at; False if the run has ended before it."""
    end = time.monotonic() + rng.uniform(0, length)
    while time.monotonic() < end or in_save:
        if in_save and any((run / "checkpoints").glob("*.partial")):
            time.sleep(rng.uniform(0, 0.02))
            return True
        if any(os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) for pid in ranks):
            return False
        time.sleep(0.0005)
    return True


def where(run: Path) -> str:
    if any((run / "checkpoints").glob("*.partial")):
        return "in a save"
    if (run / "model.partial").exists():
        return "in the export"
    if (run / "metrics.jsonl").exists():
        return "outside a save"
    return "before the first step"


def outcome(run: Path) -> dict[str, bytes]:
    names = ["metrics.jsonl", "inputs.json", *(f"model/{path.name}" for path in sorted((run / "model").iterdir()))]
    return {name: (run / name).read_bytes() for name in names}


if __name__ == "__main__":
    sys.exit(main())
