"""Are texts of deleted periods still told apart from texts that no client trained on?

    python benchmarks/deleted.py --teacher MODEL [--texts 500] RUN_FOLDER …  # runs/federated/uniform_continual-seed0

For runs in this process with federated.periods, keep_periods: 1 and select: uniform. Members of a period: the texts of
the clients that were asked in it, which came in it and went with it. Non-members: texts of clients that were not asked
while they had them: chance alone decides between the two, if nothing but their place among the clients is known. Each
period is a membership task of its own (eval/tasks/membership.py), with the teacher as reference, which saw both
sides alike. The last line is JSON: for each attack the AUC by period, oldest first, mean of the runs.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from eval.run import evaluate
from federated import arrival, select
from federated.client import Texts

Sides = tuple[list[list[str]], list[str]]
ATTACKS = ("loss", "min_k", "reference")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_FOLDER")
    parser.add_argument("--teacher", required=True, metavar="MODEL", help="as reference")
    parser.add_argument("--texts", type=int, default=500, help="of each side and period, at most (500)")
    a = parser.parse_args()
    found = []
    for run in a.runs:
        with tempfile.TemporaryDirectory() as folder:
            found.append(attacked(run, a.teacher, sides_of(run), a.texts, Path(folder)))
        print(run.name, json.dumps(found[-1]), flush=True)
    mean = {attack: np.mean([row[attack] for row in found], axis=0).round(4).tolist() for attack in ATTACKS}
    print(json.dumps(mean))


def sides_of(run: Path) -> Sides:
    """The texts that were trained on, of each period, and those that never were."""
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    f = SimpleNamespace(**config["federated"])
    if f.periods < 2 or f.keep_periods != 1 or f.select != "uniform":
        raise SystemExit(f"error: {run}: needs periods of 2 or more, keep_periods 1 and select uniform")
    name = json.loads((run / "inputs.json").read_text(encoding="utf-8"))["clients"]
    folder = next(path for at in (run, run.parent) if (path := at / "clients" / name).is_dir())
    texts_N = np.array(json.loads((folder / "clients.json").read_text(encoding="utf-8"))["texts"])
    asked: list[set[int]] = [set() for _ in range(f.periods)]
    for round in range(f.rounds):
        period = arrival.period_of(round, f.rounds, f.periods)
        first, end = arrival.window(texts_N, period, f.periods, 1)
        asked[period].update(
            select.choose(end - first, f.per_round, f.select, seed=config["seed"], round=round).tolist()
        )
    held = [[list(Texts(folder / f"{n:05d}", p, f.periods, 1)) for n in range(len(texts_N))] for p in range(f.periods)]
    members = [[text for n in sorted(asked[p]) for text in held[p][n]] for p in range(f.periods)]
    trained = {text for texts in members for text in texts}  # a text that stands twice may be on both sides
    never = [text for p in range(f.periods) for n in range(len(texts_N)) if n not in asked[p] for text in held[p][n]]
    return members, [text for text in never if text not in trained]


def attacked(run: Path, teacher: str, sides: Sides, most: int, folder: Path) -> dict[str, list[float]]:
    """AUC of each attack, by period."""
    draw = random.Random(0)
    members, never = sides
    number = min(most, len(never), *map(len, members))
    files = {f"members-{period}": texts for period, texts in enumerate(members)} | {"nonmembers": never}
    for name, texts in files.items():
        lines = "".join(json.dumps({"text": text}) + "\n" for text in draw.sample(texts, number))
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    options = {"nonmembers": "nonmembers.jsonl", "reference": teacher, "twins": False}
    tasks = {f"membership@{p}": options | {"members": f"members-{p}.jsonl"} for p in range(len(members))}
    rows = evaluate({"student": run / "model"}, tasks, data_dir=folder, output_dir=folder / "out", quiet=True)["rows"]
    return {a: [rows[0]["tasks"][task][f"auc/{a}"]["value"] for task in tasks] for a in ATTACKS}


if __name__ == "__main__":
    main()
