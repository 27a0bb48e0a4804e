"""What tests of whole runs share."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

from accelerate.state import AcceleratorState, PartialState

from counterfactuals import sample


def write_texts(path: Path, number: int = 100) -> Path:
    """The first texts of a sample, as a jsonl file."""
    rows = itertools.islice(sample.generate(200, seed=3), number)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def fresh() -> None:
    """Forget the last run's processes and precision, as a new process would."""
    AcceleratorState._reset_state()
    PartialState._reset_state()


def bitwise(a: Path, b: Path) -> bool:
    """Two runs have the same weights and the same figures."""
    return all(
        (a / name).read_bytes() == (b / name).read_bytes() for name in ("model/model.safetensors", "metrics.jsonl")
    )
