"""What goes between server and clients: tensors by name and a few numbers, as bytes (safetensors).

Down: the student's weights and the round. Up: the difference of the weights and the client's figures. Nothing else is
sent, whatever carries it.
"""

from __future__ import annotations

import json
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

Tensors = dict[str, torch.Tensor]


def pack(tensors: Tensors, **facts: float | str | bool) -> bytes:
    """Tensors and facts as bytes."""
    return save({name: x.detach().cpu().contiguous() for name, x in tensors.items()}, {"facts": json.dumps(facts)})


def unpack(payload: bytes) -> tuple[Tensors, dict[str, Any]]:
    """The inverse of `pack`; ValueError if the bytes are damaged."""
    try:
        header = json.loads(payload[8 : 8 + int.from_bytes(payload[:8], "little")])
        return load(payload), json.loads(header["__metadata__"]["facts"])
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"a message is damaged ({error})") from None
