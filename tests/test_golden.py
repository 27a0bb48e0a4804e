"""A recorded loss curve: any change of the method's numbers shows here. The record names its environment.

After an intended change, make a new record with `python tests/test_golden.py`, and say why in the commit.
"""

import itertools
import json
import sys
import tempfile
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden" / "loss_curve.json"
SETTINGS = [
    "data.max_length=64",
    "tokenizer={}",
    "student.dropout=0",
    "train.batch_size=16",
    "train.micro_batch_size=8",
    "train.log_every=1",
    "train.save_every=0",
    "train.cpu_threads=1",
    "optim.lr=3e-3",
    "train.max_steps=8",
    "runs={teacher: {tokenizer: {train_vocab_size: 400}, loss: {kd_weight: 0, lm_weight: 1},"
    " student: {init: random, config: {n_layer: 4, n_embd: 32, n_head: 2}}},"
    " plain: {teacher: {model: 'run:teacher'}},"
    " era: {teacher: {model: 'run:teacher'}, counterfactual: {augment: true}, loss: {op: max}},"
    " even: {teacher: {model: 'run:teacher'}, counterfactual: {augment: true}, loss: {op: max, vocabulary: reversed}}}",
]


def curve(folder: Path) -> dict[str, dict[str, list[float]]]:
    import train_distill
    from counterfactuals import sample

    texts = folder / "texts.jsonl"
    rows = itertools.islice(sample.generate(300, seed=5), 300)
    texts.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert train_distill.main([f"output_dir={folder / 'run'}", f"data.source={texts}", *SETTINGS]) == 0
    found: dict[str, dict[str, list[float]]] = {}
    for name in ("teacher", "plain", "era", "even"):
        lines = (folder / "run" / name / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        found[name] = {key: [json.loads(line)[key] for line in lines] for key in ("kd", "lm", "grad_norm")}
    return found


def test_the_loss_curve_is_the_recorded_one(tmp_path):
    record = json.loads(GOLDEN.read_text(encoding="utf-8"))
    for name, expected in curve(tmp_path).items():
        for key, values in expected.items():
            assert values == pytest.approx(record["curve"][name][key], rel=2e-3, abs=2e-3), (
                f"{name} {key} differs from the record made with {record['environment']}"
            )


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from counterfactuals.provenance import versions

    with tempfile.TemporaryDirectory() as scratch:
        found = curve(Path(scratch))
    GOLDEN.parent.mkdir(exist_ok=True)
    environment = {key: value for key, value in versions().items() if key != "commit"}
    GOLDEN.write_text(json.dumps({"environment": environment, "curve": found}, indent=1) + "\n", encoding="utf-8")
