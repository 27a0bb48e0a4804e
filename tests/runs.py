"""What tests of whole runs share."""

from __future__ import annotations

from pathlib import Path

from accelerate.state import AcceleratorState, PartialState


def fresh() -> None:
    """Forget the last run's processes and precision, as a new process would."""
    AcceleratorState._reset_state()
    PartialState._reset_state()


def bitwise(a: Path, b: Path) -> bool:
    """Two runs have the same weights and the same figures."""
    return all(
        (a / name).read_bytes() == (b / name).read_bytes() for name in ("model/model.safetensors", "metrics.jsonl")
    )
