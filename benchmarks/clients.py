"""How well the models of federated runs serve each client: do clients with few texts pay for those with many?

    python benchmarks/clients.py --teacher MODEL [--texts 20] RUN_FOLDER …      # as runs/federated/activity-seed0

Reads each client's folder of the simulation: its first texts, also those that a window deleted. A figure is the
student's perplexity on them over the teacher's, so that what is hard for both counts for neither: `all` clients; the
quarters that hold the `fewest` and the `most` texts; the `worst` tenth, by this figure. Clients of a group count by
their tokens. `asked_fewest`, `asked_most`: how often a client of the quarter was asked, on average. The last line is
JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from eval.model import Scorer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_FOLDER")
    parser.add_argument("--teacher", required=True, metavar="MODEL")
    parser.add_argument("--texts", type=int, default=20, help="of a client, at most (20)")
    a = parser.parse_args()
    teacher, found = Scorer(a.teacher), {}
    known: dict[Path, list[np.ndarray]] = {}  # of the teacher: clients of several runs are the same
    for run in a.runs:
        name = json.loads((run / "inputs.json").read_text(encoding="utf-8"))["clients"]
        folder = next(path for at in (run, run.parent) if (path := at / "clients" / name).is_dir())
        known.setdefault(folder, losses(teacher, folder, a.texts))
        nll_N, tokens_N = losses(Scorer(run / "model"), folder, a.texts)
        counts = json.loads((run / "clients.json").read_text(encoding="utf-8"))
        found[run.name] = figures(
            nll_N - known[folder][0], tokens_N, *map(np.array, (counts["texts"], counts["asked"]))
        )
        print(run.name, json.dumps(found[run.name]), flush=True)
    print(json.dumps(found))


def losses(scorer: Scorer, folder: Path, texts: int) -> list[np.ndarray]:
    """(N,) negative log-likelihood of each client's first texts in nats, and (N,) their tokens."""
    owner, rows = [], []
    for number, client in enumerate(sorted(path for path in folder.iterdir() if path.is_dir())):
        with (client / "texts.jsonl").open(encoding="utf-8") as file:
            own = [json.loads(line)["text"] for line in itertools.islice(file, texts)]
        rows += own
        owner += [number] * len(own)
    scored = scorer.sliding(scorer.encode(rows, bos=True))
    at = [owner[window.text] for window in scored]
    return [np.bincount(at, weights=[getattr(w, key) for w in scored]) for key in ("nll", "num_tokens")]


def figures(more_N: np.ndarray, tokens_N: np.ndarray, texts_N: np.ndarray, asked_N: np.ndarray) -> dict[str, float]:
    """more_N: nats that the student's loss on a client's texts is above the teacher's, summed over tokens."""
    order, quarter = np.argsort(texts_N, kind="stable"), -(-len(texts_N) // 4)
    groups = {"all": order, "fewest": order[:quarter], "most": order[-quarter:]}
    groups["worst"] = np.argsort(-more_N / tokens_N)[: -(-len(texts_N) // 10)]
    found = {name: float(np.exp(more_N[of].sum() / tokens_N[of].sum())) for name, of in groups.items()}
    found |= {f"asked_{name}": float(asked_N[groups[name]].mean()) for name in ("fewest", "most")}
    return {key: round(value, 4) for key, value in found.items()}


if __name__ == "__main__":
    main()
