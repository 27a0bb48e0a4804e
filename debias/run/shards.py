"""Whole tensors of a task that is trained in one process, replicated (DDP) or in shards (DeepSpeed ZeRO, FSDP 2).

Checkpoints are written and read through `read` and `write`, one parameter at a time. So they are the same however a run
is distributed, and can be resumed with any number of ranks. All ranks call both functions, in the same order.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

MOMENTS = ("exp_avg", "exp_avg_sq")  # of AdamW; plain gradient descent is checkpointed as if it had them


def kept(optimizer: Any, parameter: nn.Parameter) -> tuple[str, ...]:
    """What a checkpoint holds of a parameter: its weight, and its moments if it is trained."""
    return ("weight", *MOMENTS) if is_trained(optimizer, parameter) else ("weight",)


def parameters(accelerator: Any, task: Any) -> Iterator[tuple[str, nn.Parameter]]:
    """(name in DistillTask, parameter) of everything that is trained, each parameter once."""
    yield from accelerator.unwrap_model(task, keep_torch_compile=False).named_parameters()


def is_trained(optimizer: Any, parameter: nn.Parameter) -> bool:
    """The optimizer changes it. In a private run its gradient does not come from autograd (privacy/clip.py)."""
    return parameter.requires_grad or any(
        parameter is trained for group in _torch(optimizer).param_groups for trained in group["params"]
    )


def shape(parameter: nn.Parameter) -> torch.Size:
    """Shape of the whole parameter."""
    return getattr(parameter, "ds_shape", parameter.shape)  # under ZeRO-3 the tensor is empty between uses


def read(optimizer: Any, parameter: nn.Parameter, what: str) -> torch.Tensor:
    """The full-precision weight ("weight") or a moment (MOMENTS) of a parameter, complete on every rank."""
    zero = _zero(optimizer)
    if zero is not None:
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        if what == "weight":
            return safe_get_full_fp32_param(parameter)
        _link(zero)
        return safe_get_full_optimizer_state(parameter, what)
    tensor = parameter.detach() if what == "weight" else _torch(optimizer).state[parameter].get(what)
    if tensor is None:  # no gradient yet, or no moments
        return torch.zeros(shape(parameter), device=parameter.device)
    return whole(tensor)


def whole(tensor: Any) -> Any:
    """A tensor that FSDP has split, as one; anything else unchanged."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def write(optimizer: Any, parameter: nn.Parameter, what: str, value: torch.Tensor) -> None:
    """Put a whole tensor where `read` would find it; `begin` comes first."""
    zero = _zero(optimizer)
    if zero is not None:
        _write_zero(parameter, what, value)
        return
    with torch.no_grad():
        place: Any = parameter if what == "weight" else _torch(optimizer).state[parameter][what]
        if hasattr(place, "full_tensor"):
            from torch.distributed.tensor import distribute_tensor

            value = distribute_tensor(value, place.device_mesh, place.placements)
        place.copy_(value)


def updates(optimizer: Any) -> int:
    """How many steps the optimizer has taken; 0 for one that does not count them (plain gradient descent)."""
    return max((int(state["step"]) for state in _torch(optimizer).state.values() if "step" in state), default=0)


def begin(optimizer: Any, num_updates: int) -> None:
    """Create the optimizer's state after that many steps, with zero moments for `write` to fill."""
    base, zero = _torch(optimizer), _zero(optimizer)
    owned = [p for group in base.param_groups for p in group["params"]]
    for parameter in getattr(zero, "fp32_partitioned_groups_flat", owned):  # ZeRO-3 empties its groups between steps
        step = torch.tensor(float(num_updates), device=parameter.device)
        empty = {name: torch.zeros_like(parameter, memory_format=torch.preserve_format) for name in MOMENTS}
        base.state[parameter] = {"step": step} | {name: moment.detach() for name, moment in empty.items()}
    _link(zero)


def _torch(optimizer: Any) -> Any:
    """torch's optimizer inside Accelerate's and DeepSpeed's."""
    while hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    return optimizer


def _zero(optimizer: Any) -> Any:
    """DeepSpeed's ZeRO optimizer, or None."""
    while hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
        if type(optimizer).__module__.startswith("deepspeed.runtime"):
            return optimizer
    return None


def _link(zero: Any) -> None:
    """Let parameters of ZeRO-1 and 2 find their moments; ZeRO itself does this only for the first group."""
    if hasattr(zero, "_lazy_init_hp_params_optimizer_state"):
        zero._hp_optimizer_states_linked = False
        zero._lazy_init_hp_params_optimizer_state()


def _write_zero(parameter: Any, what: str, value: torch.Tensor) -> None:
    from deepspeed import zero
    from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state
    from deepspeed.utils.tensor_fragment import safe_set_local_fp32_param, safe_set_local_optimizer_state

    if not hasattr(parameter, "ds_id"):  # stages 1 and 2
        if what == "weight":
            safe_set_full_fp32_param(parameter, value)
            parameter.data.copy_(value)
        else:
            safe_set_full_optimizer_state(parameter, value, what)
        return
    size, rank = parameter.ds_tensor.numel(), torch.distributed.get_rank()
    own = nn.functional.pad(value.flatten(), (0, size * torch.distributed.get_world_size() - value.numel()))
    own = own[rank * size : (rank + 1) * size]
    if what == "weight":
        safe_set_local_fp32_param(parameter, own)
        with zero.GatheredParameters([parameter], modifier_rank=0):
            parameter.data.copy_(value)
    else:
        safe_set_local_optimizer_state(parameter, own, what)
