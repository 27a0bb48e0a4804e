"""Checkpoints that are complete or not there, and exact resume.

`step-0000500/` is a model that from_pretrained loads (config.json, model.safetensors, tokenizer), with what training
needs to resume exactly: training.safetensors, the optimizer's moments by parameter, and checkpoint.json, the step and
the hash of each file. There are no pickles, and no random states: they follow from (seed, step, rank).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from counterfactuals.files import sha256_of, write_whole
from debias.run import shards

log = logging.getLogger(__name__)
FACTS = "checkpoint.json"  # written last


def save(
    accelerator: Any, task: Any, optimizer: Any, tokenizer: Any, folder: Path, step: int, *, keep: int, **facts: Any
) -> None:
    """Save what a run needs to resume after `step` steps; delete all but the newest `keep`, and the best.

    facts are stored beside the step; the best checkpoint is the one with the lowest facts["figure"], if there is one.
    The files are written to another folder, which is then renamed: a run killed while saving leaves the last complete
    checkpoint. Raises ValueError where the folder cannot be written to; earlier checkpoints are kept.
    """
    weights, rest = _gather(accelerator, task, optimizer)
    if not accelerator.is_main_process:
        return
    final = folder / f"step-{step:07d}"
    try:
        with _complete_or_not(final) as partial:
            _write_model(accelerator, task, tokenizer, weights, partial)
            save_file(rest, partial / "training.safetensors")
            facts |= {"step": step, "updates": shards.updates(optimizer), "ranks": accelerator.num_processes}
            facts |= {"precision": accelerator.mixed_precision}
            if accelerator.scaler is not None:
                facts["scaler"] = accelerator.scaler.state_dict()
            files = {path.name: sha256_of(path) for path in sorted(partial.iterdir())}
            write_whole(partial / FACTS, json.dumps(facts | {"sha256": files}, indent=1) + "\n")
        for old in set(complete(folder)[:-keep]) - {best(folder)}:
            shutil.rmtree(old)
    except (OSError, SafetensorError) as error:
        there = complete(folder)
        left = f"{there[-1].name} is complete: the same command resumes from it" if there else "nothing is saved yet"
        raise ValueError(f"{final}: cannot be written ({_reason(error)}); {left} once there is room") from None


def complete(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted(path.parent for path in folder.glob(f"step-*/{FACTS}") if path.parent.suffix != ".partial")


def best(folder: Path) -> Path | None:
    """The checkpoint with the lowest figure of train.keep_best; None if that is not set."""
    found = [(facts["figure"], path) for path in complete(folder) if "figure" in (facts := _facts(path))]
    return min(found)[1] if found else None


def restore(accelerator: Any, task: Any, optimizer: Any, folder: Path, *, allow_changes: bool = False) -> dict:
    """Load the newest intact checkpoint into task and optimizer; returns its facts, {"step": 0} if there is none.

    A damaged checkpoint is named and passed over. Every rank takes part, but only the first reads files. The number of
    ranks may differ from when it was saved. Raises ValueError if the checkpoint has another model or precision.
    """
    path, facts = None, {"step": 0}
    if accelerator.is_main_process:
        for path in reversed(complete(folder)):
            facts, problem = _facts(path), _damage(path)
            if not problem:
                break
            log.warning("%s: %s; resuming from the checkpoint before it", path, problem)
            path, facts = None, {"step": 0}
    path, facts = broadcast_object_list([path, facts])
    if path is None:
        return facts
    if facts["precision"] != accelerator.mixed_precision and not allow_changes:
        raise ValueError(
            f"train.precision: {path} was made with {facts['precision']}, this run has {accelerator.mixed_precision}; "
            "set it as it was, or allow the change with --allow_changes"
        )
    _spread(accelerator, task, optimizer, path, facts["updates"])
    if accelerator.scaler is not None and "scaler" in facts:
        accelerator.scaler.load_state_dict(facts["scaler"])
    return facts


def export(accelerator: Any, task: Any, optimizer: Any, tokenizer: Any, folder: Path) -> None:
    """Write the student and its tokenizer so that from_pretrained loads them; the folder is complete or not there."""
    weights, _ = _gather(accelerator, task, optimizer, moments=False)
    if accelerator.is_main_process:
        try:
            with _complete_or_not(folder) as partial:
                _write_model(accelerator, task, tokenizer, weights, partial)
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{folder}: cannot be written ({_reason(error)}); make room and run again") from None


def same_inputs(path: Path, inputs: dict[str, str]) -> None:
    """Record what a run is made from, {what: fingerprint}; or refuse to resume it with something else."""
    if not path.exists():
        write_whole(path, json.dumps(inputs, indent=2) + "\n")
        return
    try:
        saved = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        raise ValueError(f"{path}: not valid JSON; delete this folder, or choose another output_dir") from None
    changed = [what for what, value in inputs.items() if saved.get(what, value) != value]
    if changed:
        raise ValueError(
            f"{path.parent}: was made from another {', '.join(changed)} than there is now; delete this folder too, "
            "or choose another output_dir"
        )


def _gather(
    accelerator: Any, task: Any, optimizer: Any, *, moments: bool = True
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """On the main rank: the student's weights by their own names, and everything else that training needs."""
    weights: dict[str, torch.Tensor] = {}
    rest: dict[str, torch.Tensor] = {}
    for name, parameter in shards.parameters(accelerator, task):
        for what in shards.kept(optimizer, parameter) if moments else ("weight",):
            tensor = shards.read(optimizer, parameter, what)
            if accelerator.is_main_process:
                key = _key(name, what)
                (rest if key.startswith(f"{what}/") else weights)[key] = (
                    tensor.detach().to("cpu", torch.float32).contiguous()
                )
    if accelerator.is_main_process:
        if not all(weight.isfinite().all() for weight in weights.values()):
            raise ValueError(
                "the weights are NaN or infinite after this step, and not saved; lower optim.lr and run again with "
                "--allow_changes"
            )
        _merge_lora(accelerator.unwrap_model(task, keep_torch_compile=False).student, weights)
    return weights, rest


def _merge_lora(student: Any, weights: dict[str, torch.Tensor]) -> None:
    """Add the student's LoRA matrices, if it has any, to the weights that they change."""
    for name, module in student.named_modules():
        if "default" in getattr(module, "lora_A", ()):
            own = getattr(module, "parameter_name", "weight")  # of a mixture's experts
            whole = f"{name}.{own}".replace("base_layer.", "")
            weights[whole] = weights[whole] + module.get_delta_weight("default").detach().to("cpu", torch.float32)


def _spread(accelerator: Any, task: Any, optimizer: Any, path: Path, num_updates: int) -> None:
    """The inverse of _gather: the main rank reads, and every rank keeps its share."""
    tensors = [
        (_key(name, what), parameter, what)
        for name, parameter in shards.parameters(accelerator, task)
        for what in shards.kept(optimizer, parameter)
    ]
    shards.begin(optimizer, num_updates)
    there: dict[str, Any] = {}
    if accelerator.is_main_process:
        for file in ("model", "training"):
            opened = safe_open(path / f"{file}.safetensors", "pt")
            there |= {key: opened.get_slice(key) for key in opened.keys()}  # noqa: SIM118 (no mapping)
        for key in _buffers(accelerator.unwrap_model(task, keep_torch_compile=False).student):
            there.pop(key, None)
        sizes = {key: list(shards.shape(parameter)) for key, parameter, _ in tensors}
        other = [key for key in there.keys() | sizes if key not in there or there[key].get_shape() != sizes.get(key)]
        if other:
            raise ValueError(f"{path}: holds another model ({min(other)} differs); choose another output_dir")
    for key, parameter, what in tensors:
        if not shards.is_trained(optimizer, parameter):  # it is as it was loaded; the file may hold it with LoRA merged
            continue
        value = torch.empty(shards.shape(parameter), device=accelerator.device)
        if accelerator.is_main_process:
            value.copy_(there[key][:] if value.dim() else there[key].get())
        if accelerator.num_processes > 1:
            torch.distributed.broadcast(value, 0)
        shards.write(optimizer, parameter, what, value)


def _key(name: str, what: str) -> str:
    """The name of a parameter's tensor in the files: the student's weights keep their own names, but for LoRA's."""
    own = what == "weight" and name.startswith("student.") and ".lora_" not in name
    return name.removeprefix("student.").replace("base_layer.", "") if own else f"{what}/{name}"


def _write_model(accelerator: Any, task: Any, tokenizer: Any, weights: dict[str, torch.Tensor], folder: Path) -> None:
    student = accelerator.unwrap_model(task, keep_torch_compile=False).student
    folder.mkdir(parents=True)
    student.config.architectures = [type(student).__name__.removeprefix("FSDP")]
    student.config.dtype = "float32"
    student.config.save_pretrained(folder)
    if student.can_generate():
        student.generation_config.save_pretrained(folder)
    save_file(weights | _buffers(student), folder / "model.safetensors", {"format": "pt"})
    tokenizer.save_pretrained(folder)


def _buffers(student: Any) -> dict[str, torch.Tensor]:
    """The constants that a model keeps among its weights, as Apertus does."""
    return {
        f"{name}.{key}".replace("base_layer.", ""): value.detach().cpu().clone()
        for name, module in student.named_modules()
        for key, value in module.named_buffers(recurse=False)
        if key not in module._non_persistent_buffers_set
    }


def _facts(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads((path / FACTS).read_text(encoding="utf-8"))
        return facts if isinstance(facts, dict) else {}
    except (OSError, ValueError):
        return {}


def _damage(path: Path) -> str:
    """What is wrong with a checkpoint; "" if nothing is."""
    facts = _facts(path)
    if not {"step", "updates", "precision", "sha256"} <= facts.keys():
        return f"{FACTS} is damaged"
    for name, digest in facts["sha256"].items():
        try:
            if sha256_of(path / name) != digest:
                return f"{name} has changed since it was written"
        except OSError as error:
            return f"{name}: {error.strerror}"
    return ""


@contextlib.contextmanager
def _complete_or_not(final: Path) -> Iterator[Path]:
    """A folder to write files into, which takes its name, and the place of an older one, once they are on the disk."""
    partial = final.with_name(final.name + ".partial")
    try:
        for stale in final.parent.glob(f"{final.name.partition('-')[0]}*.partial"):  # of a run that was killed
            shutil.rmtree(stale)
        yield partial
        for path in [*partial.iterdir(), partial]:  # a power cut leaves no torn checkpoint either
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
    except (OSError, SafetensorError):
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _reason(error: Exception) -> str:
    number = re.search(r"os error (\d+)", str(error))  # safetensors wraps the system's error
    return os.strerror(int(number[1])) if number else getattr(error, "strerror", None) or str(error)
