"""Checkpoints that are whole or not there, and the step to go on from."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

from counterfactuals.files import write_whole

# tied embeddings are saved once and tied again on loading (test_train.py resumes bitwise): no need to warn each time
logging.getLogger("accelerate.utils.other").setLevel(logging.ERROR)


def save(accelerator: Any, folder: Path, step: int, *, keep: int) -> None:
    """Save model, optimizer, schedule and random states after `step` steps; delete all but the newest `keep`.

    Written beside its place and renamed: a run killed while saving leaves the last complete checkpoint to go on from.
    """
    partial, final = folder / f"step-{step:07d}.partial", folder / f"step-{step:07d}"
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(partial))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        (partial / "step.json").write_text(json.dumps({"step": step}) + "\n", encoding="utf-8")
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        for old in complete(folder)[:-keep]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()


def complete(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted(path.parent for path in folder.glob("step-*/step.json") if path.parent.suffix != ".partial")


def restore(accelerator: Any, folder: Path) -> int:
    """Load the newest complete checkpoint into everything prepared; returns its step, 0 if there is none."""
    found = complete(folder)
    if not found:
        return 0
    accelerator.load_state(str(found[-1]))
    return int(json.loads((found[-1] / "step.json").read_text(encoding="utf-8"))["step"])


def export(accelerator: Any, task: Any, tokenizer: Any, folder: Path) -> None:
    """Write the student and its tokenizer so that from_pretrained loads them; complete or not there."""
    weights = accelerator.get_state_dict(task)  # every rank takes part: they may hold a share each
    if accelerator.is_main_process:
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        weights = {key.removeprefix("student."): value for key, value in weights.items()}
        accelerator.unwrap_model(task).student.save_pretrained(partial, state_dict=weights)
        tokenizer.save_pretrained(partial)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)


def same_inputs(path: Path, inputs: dict[str, str]) -> None:
    """Record what a run is made from, or refuse to go on with something else: {what: fingerprint}."""
    if not path.exists():
        write_whole(path, json.dumps(inputs, indent=2) + "\n")
        return
    saved = json.loads(path.read_text(encoding="utf-8"))
    changed = [what for what, value in inputs.items() if saved.get(what) != value]
    if changed:
        raise ValueError(
            f"{path.parent}: was made from another {', '.join(changed)} than is there now; delete this folder too, "
            "or choose another output_dir"
        )
