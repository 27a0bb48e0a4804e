"""Time of a federated run against central training on as many steps and texts: 100 clients, 50 rounds, the sample.

    python benchmarks/federated.py [--clients 100 --rounds 50 --per_round 10 --local_steps 5 --texts 10000]

Quickstart's sizes; the teacher is not trained, which changes no time. Beside the steps of central training a federated
run opens each client's pair set, sends weights there and back, and averages them. The last line is JSON: minutes of
this process's CPU time for each, their ratio, and bytes sent.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import train_distill
from counterfactuals.sample import write_sample

MODEL = ["tokenizer.train_vocab_size=1024", "student.init=random", "student.config={n_layer: 4, n_embd: 64, n_head: 4}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in {"clients": 100, "rounds": 50, "per_round": 10, "local_steps": 5, "texts": 10_000}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    a = parser.parse_args()
    steps = a.rounds * a.per_round * a.local_steps
    with tempfile.TemporaryDirectory() as folder:
        often = ["log_every=10", "save_every=10", "batch_size=16", "micro_batch_size=16", "cpu_threads=1"]
        texts = write_sample(Path(folder) / "sample", num_texts=a.texts, num_heldout=1) / "train.jsonl"
        both = [f"data.source={texts}", "data.max_length=96", "student.dropout=0"]
        both += [f"train.{item}" for item in often]
        first = [*MODEL, "loss.kd_weight=0", "loss.lm_weight=1", "train.max_steps=1"]
        timed([*both, *first], Path(folder) / "teacher")
        both.append(f"teacher.model={folder}/teacher/model")
        central = timed([*both, f"train.max_steps={steps}"], Path(folder) / "central")
        asked = {"rounds": a.rounds, "clients": a.clients, "per_round": a.per_round, "local_steps": a.local_steps}
        run = Path(folder) / "federated"
        federated = timed([*both, *(f"federated.{key}={value}" for key, value in asked.items())], run)
        facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
    found = {
        "federated_min": federated / 60,
        "central_min": central / 60,
        "federated_over_central": federated / central,
    }
    found |= {"MB_up": facts["bytes_up"] / 1e6, "MB_down": facts["bytes_down"] / 1e6}
    print(json.dumps({key: round(value, 3) for key, value in found.items()}))


def timed(settings: list[str], folder: Path) -> float:
    """Seconds of CPU time of one run, into a folder of its own."""
    began = time.process_time()
    code = train_distill.main([*settings, f"output_dir={folder}"])
    if code:
        sys.exit(code)
    return time.process_time() - began


if __name__ == "__main__":
    main()
