"""Memory of a whole run, pairs and training, on corpora larger than what it may take.

    python benchmarks/memory.py [--megabytes 200 --allowance 100 --steps 20]

A corpus of that size, and one of four times it, each in a process of its own: first a small run (imports, models, every
cache that fills once), then RLIMIT_DATA is set to what the process holds plus the allowance, and train_distill.py
makes the pairs of the whole corpus and trains. A third process under the same limit tries to hold the larger corpus's
texts. The last line is JSON: mapped files count in the resident sizes (MB), not in the limit.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from counterfactuals.sample import generate
from counterfactuals.tokens.corpus import Corpus

ROOT = Path(__file__).resolve().parents[1]
CPU = os.environ | {"CUDA_VISIBLE_DEVICES": ""}  # a driver's mappings would count
MODEL = "{n_layer: 1, n_embd: 16, n_head: 2}"


def write_corpus(path: Path, size: int) -> None:
    """Articles of 20 kB: words without a role, of which there are 500; in one of ten, four sentences with some."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghiklmnoprstuvw", k=draw.randint(4, 9))) for _ in range(500)]
    sentences = [row["text"] for row in islice(generate(500, seed=1), 500)]
    filler = [" ".join(draw.choices(words, k=300)).capitalize() + "." for _ in range(500)]
    with path.open("w", encoding="utf-8") as file:
        while file.tell() < size:
            parts = [*draw.choices(filler, k=9), *draw.choices(sentences, k=4 * (draw.random() < 0.1))]
            file.write(json.dumps({"text": " ".join(draw.sample(parts, len(parts)))}) + "\n")


def run(source: Path, output: Path, steps: int) -> None:
    import train_distill

    settings = {
        "output_dir": output,
        "data.source": source,
        "data.max_length": 128,
        "tokenizer.name": source.parent / "tokenizer",
        "student.init": "random",
        "student.config": MODEL,
        "loss.kd_weight": 0,
        "loss.lm_weight": 1,
        "counterfactual.augment": "true",
        "counterfactual.policy": "keep_names",
        "train.max_steps": steps,
        "train.batch_size": 16,
        "train.micro_batch_size": 16,
        "train.log_every": 5,
        "train.save_every": 0,
        "train.cpu_threads": 1,
    }
    if train_distill.main([f"{key}={value}" for key, value in settings.items()]):
        sys.exit("train_distill.py failed; see above")


def held() -> int:
    """Bytes of private memory, what RLIMIT_DATA counts."""
    return _status("VmData")


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith(f"{key}:")).split()[1]) * 1024


def child(arguments: argparse.Namespace) -> None:
    folder = Path(arguments.child)
    run(folder / "small.jsonl", folder / f"small-{arguments.corpus}", 3)
    before, limit = _status("VmRSS"), held() + arguments.allowance * 2**20
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    began, source = time.perf_counter(), folder / f"{arguments.corpus}.jsonl"
    if arguments.hold:
        try:
            texts = list(Corpus(str(source)))
            print(json.dumps({"holds": len(texts)}))
        except MemoryError:
            print(json.dumps({"holds": 0}))
        return
    run(source, folder / f"run-{arguments.corpus}", arguments.steps)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"limit": limit, "start": before, "peak": peak, "seconds": time.perf_counter() - began}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=200, help="of the smaller corpus")
    parser.add_argument("--allowance", type=int, default=100, help="MB beyond what the process held before")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--corpus", help=argparse.SUPPRESS)
    parser.add_argument("--hold", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments)
        return
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for corpus, size in (("small", 4), ("1x", arguments.megabytes), ("4x", 4 * arguments.megabytes)):
            write_corpus(folder / f"{corpus}.jsonl", size * 10**6)
        from counterfactuals.tokens.tokenizer import train_bpe

        train_bpe(Corpus(str(folder / "small.jsonl"), max_texts=50), 2000).save_pretrained(folder / "tokenizer")
        for corpus, extra in (("1x", []), ("4x", []), ("4x", ["--hold"])):
            options = ["--child", name, "--corpus", corpus, "--allowance", str(arguments.allowance), *extra]
            command = [sys.executable, __file__, *options, "--steps", str(arguments.steps)]
            done = subprocess.run(command, cwd=ROOT, env=CPU, stdout=subprocess.PIPE, text=True, check=True)
            facts = json.loads(done.stdout.splitlines()[-1])
            if extra:
                found["texts_held_4x"] = facts["holds"]
                continue
            resident = f"{facts['start'] / 1e6:.0f} → {facts['peak'] / 1e6:.0f} MB"
            print(f"{corpus}: {facts['seconds']:.0f} s, resident {resident}", flush=True)
            found |= {f"corpus_{corpus}": (folder / f"{corpus}.jsonl").stat().st_size / 1e6}
            found |= {f"limit_{corpus}": facts["limit"] / 1e6, f"peak_{corpus}": facts["peak"] / 1e6}
    print(json.dumps({key: round(value, 1) for key, value in found.items()}))


if __name__ == "__main__":
    main()
