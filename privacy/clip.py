"""Gradients of single texts, clipped and summed, for about the price of the gradient of their sum.

N sequences of T positions (P = N·T) belong to U units. A unit is a text: all its windows, and their counterfactuals.
The backward pass computes no gradient of a weight. Each layer's input A and output gradient G are kept instead; from
them follows the norm of each unit's gradient, without that gradient: ‖Aᵀ G‖² = ⟨A Aᵀ, G Gᵀ⟩ (Goodfellow 2015; Li et
al. 2022). Once all norms are known, one product Aᵀ (c ⊙ G) makes the sum of the clipped gradients, c being the clip
factor of each row's unit (Bu et al. 2023). Embeddings that are tied to the head have one gradient, of both uses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

Gradients = Iterator[tuple[nn.Parameter, Tensor]]


class Part(NamedTuple):
    """Of a layer: squared norms of its units' gradients, and the sum of these gradients times a factor each."""

    square_U: Tensor
    total: Callable[[Tensor], Gradients]


class Units:
    """The unit of each of N sequences. groups: (units, their sequences), those of as many sequences together."""

    def __init__(self, unit_N: Tensor):
        self.unit_N = unit_N
        self.number = int(unit_N.max()) + 1 if len(unit_N) else 0
        count_U = unit_N.bincount(minlength=self.number)
        order = unit_N.argsort(stable=True)
        start_U = count_U.cumsum(0) - count_U
        self.groups = [
            (member, order[start_U[member, None] + torch.arange(k, device=unit_N.device)])
            for k in count_U.unique().tolist()
            for member in [(count_U == k).nonzero().ravel()]
            if k
        ]

    def sums(self, value_NX: Tensor) -> Tensor:
        """Of each unit: (U, …)."""
        return value_NX.new_zeros(self.number, *value_NX.shape[1:]).index_add_(0, self.unit_N, value_NX)


def linear(module: Any, units: Units, a_NTX: Tensor, g_NTY: Tensor) -> Part:
    """Weight and bias of Linear and Conv1D. The norms take the cheaper of both ways, and keep what is smaller."""
    weight, bias, turned = module.weight, module.bias, isinstance(module, nn.Linear)
    a_NTX, g_NTY = a_NTX.to(weight.dtype), g_NTY.to(weight.dtype)
    square_U = weight.new_zeros(units.number)
    bias_UY = None
    if bias is not None:
        bias_UY = units.sums(g_NTY.sum(1))
        square_U += bias_UY.square().sum(1)
    length, x, y = len(units.unit_N) * a_NTX.shape[1] / max(units.number, 1), a_NTX.shape[2], g_NTY.shape[2]
    gram = length * (x + y) < x * y
    kept = []
    for member, index in units.groups:
        a_UPX, g_UPY = a_NTX[index].flatten(1, 2), g_NTY[index].flatten(1, 2)
        if gram:
            square_U[member] += (a_UPX @ a_UPX.mT).mul_(g_UPY @ g_UPY.mT).sum((1, 2))
        else:
            own = (g_UPY.mT @ a_UPX if turned else a_UPX.mT @ g_UPY).flatten(1)
            square_U[member] += own.square().sum(1)
            kept.append((member, own))
    inputs = (a_NTX, g_NTY) if gram else None

    def total(factor_U: Tensor) -> Gradients:
        if bias_UY is not None:
            yield bias, factor_U @ bias_UY
        if inputs is None:
            yield weight, sum(factor_U[member] @ own for member, own in kept).view_as(weight)  # type: ignore[union-attr]
            return
        a_PX, g_PY = inputs[0].flatten(0, 1), (inputs[1] * factor_U[units.unit_N][:, None, None]).flatten(0, 1)
        yield weight, g_PY.T @ a_PX if turned else a_PX.T @ g_PY

    return Part(square_U, total)


def norm(module: Any, units: Units, a_NTX: Tensor, g_NTX: Tensor) -> Part:
    """Weight and bias of a layer that is linear in them, element by element: LayerNorm, RMSNorm and their like."""
    named = dict(module.named_parameters(recurse=False))
    zero = {name: torch.zeros_like(parameter) for name, parameter in named.items()}
    one = zero | {"weight": torch.ones_like(module.weight)}
    scaled, shifted = (torch.func.functional_call(module, values, (a_NTX,)) for values in (one, zero))
    own = {"weight": units.sums((g_NTX * (scaled - shifted)).to(module.weight.dtype).flatten(1, -2).sum(1))}
    if "bias" in named:
        own["bias"] = units.sums(g_NTX.to(module.weight.dtype).flatten(1, -2).sum(1))

    def total(factor_U: Tensor) -> Gradients:
        for name, own_UX in own.items():
            yield named[name], factor_U @ own_UX

    return Part(torch.stack([own_UX.square().sum(1) for own_UX in own.values()]).sum(0), total)


class Slots(NamedTuple):
    """Gradient of an embedding: a row for each token that a unit uses."""

    unit_S: Tensor
    id_S: Tensor
    row_SX: Tensor


def slots_of(module: Any, units: Units, id_NT: Tensor, g_NTX: Tensor) -> Slots:
    size = len(module.weight)
    key_P = (units.unit_N[:, None] * size + id_NT.expand(len(units.unit_N), -1)).flatten()
    key_S, slot_P = key_P.unique(return_inverse=True)
    g_PX = g_NTX.flatten(0, 1).to(module.weight.dtype)
    row_SX = g_PX.new_zeros(len(key_S), g_PX.shape[1]).index_add_(0, slot_P, g_PX)
    if module.padding_idx is not None:
        row_SX[key_S % size == module.padding_idx] = 0
    return Slots(key_S // size, key_S % size, row_SX)


def embedding(module: Any, units: Units, id_NT: Tensor, g_NTX: Tensor) -> Part:
    slots = slots_of(module, units, id_NT, g_NTX)

    def total(factor_U: Tensor) -> Gradients:
        row_SX = slots.row_SX * factor_U[slots.unit_S][:, None]
        yield module.weight, torch.zeros_like(module.weight).index_add_(0, slots.id_S, row_SX)

    square_U = slots.row_SX.new_zeros(units.number).index_add_(0, slots.unit_S, slots.row_SX.square().sum(1))
    return Part(square_U, total)


def head(weight: nn.Parameter, units: Units, unit_R: Tensor, h_RX: Tensor, g_RV: Tensor, tied: Slots | None) -> Part:
    """Output embeddings, from hidden states h and the gradient g of their logits; tied: their gradient as inputs.

    A unit at a time: its rows lie anywhere, and the vocabulary is large.
    """
    h_RX, size, width = h_RX.to(weight.dtype), g_RV.shape[1], weight.shape[1]
    square_U = weight.new_zeros(units.number)
    for u in range(units.number):
        row = (unit_R == u).nonzero().ravel()
        h, g = h_RX[row], g_RV[row].to(weight.dtype)
        own = (tied.unit_S == u).nonzero().ravel() if tied is not None else row[:0]
        if len(row) * (size + width) < size * width:
            square_U[u] = (h @ h.T).mul_(g @ g.T).sum()
            if tied is not None:
                cross = g[:, tied.id_S[own]].T @ h
                square_U[u] += (tied.row_SX[own] * (2 * cross + tied.row_SX[own])).sum()
        else:
            product = g.T @ h
            if tied is not None:
                product.index_add_(0, tied.id_S[own], tied.row_SX[own])
            square_U[u] = product.square().sum()

    def total(factor_U: Tensor) -> Gradients:
        found = torch.zeros_like(weight)  # which may be padded beyond the vocabulary
        torch.mm(g_RV.to(weight.dtype).T, h_RX * factor_U[unit_R][:, None], out=found[:size])
        if tied is not None:
            found.index_add_(0, tied.id_S, tied.row_SX * factor_U[tied.unit_S][:, None])
        yield weight, found

    return Part(square_U, total)


def head_bias(bias: nn.Parameter, units: Units, unit_R: Tensor, g_RV: Tensor) -> Part:
    own_UV = bias.new_zeros(units.number, len(bias))
    own_UV[:, : g_RV.shape[1]].index_add_(0, unit_R, g_RV.to(bias.dtype))
    return Part(own_UV.square().sum(1), lambda factor_U: iter([(bias, factor_U @ own_UV)]))


def kind_of(name: str, module: nn.Module) -> Callable[..., Part]:
    """How a layer's gradients are clipped; ValueError for one that is not known to be exact."""
    how: dict[Any, Callable[..., Part]] = {nn.Linear: linear, Conv1D: linear, nn.Embedding: embedding}
    for known, found in how.items():
        if isinstance(module, known) and type(module).forward is known.forward:
            if isinstance(module, nn.Embedding) and (module.max_norm is not None or module.scale_grad_by_freq):
                break
            return found
    weight = getattr(module, "weight", None)
    if type(module).__name__.endswith(("RMSNorm", "LayerNorm")) and isinstance(weight, Tensor) and weight.dim() == 1:
        return norm
    raise ValueError(
        f"privacy: the gradients of {name} ({type(module).__name__}) cannot be clipped text by text; this works for "
        "Linear, Conv1D, Embedding, LayerNorm and RMSNorm"
    )


class UnitGradients:
    """Takes the place of the backward pass of a DistillTask whose student's trained parameters it clips unit by unit.

        >>> gradients = UnitGradients(task)
        >>> loss, _ = task(batch)  # batch.unit_N tells the unit of each sequence, from 0
        >>> norm_U = gradients.add(loss, total, factor)  # adds Σ_u factor(norm)_u · gradient_u to total[parameter]

    The parameters no longer require gradients. ValueError for a layer that cannot be clipped exactly, or parameters
    that layers share, other than the head's with the input embeddings.
    """

    def __init__(self, task: Any):
        student = task.student
        self._head, inputs = student.get_output_embeddings(), student.get_input_embeddings()
        self._units: Units | None = None
        self._parts: dict[nn.Module, Part] = {}
        self._slots: Slots | None = None
        self._called: set[nn.Module] = set()
        self._rows: tuple[Tensor, Tensor, Tensor] | None = None
        trained = {parameter for parameter in task.parameters() if parameter.requires_grad}
        self._trains_head = self._head.weight in trained
        self._tied = inputs if self._trains_head and inputs.weight is self._head.weight else None
        owned: set[nn.Parameter] = set()
        for name, module in student.named_modules():
            own = set(module.parameters(recurse=False))
            if not own & trained or module is self._head:
                continue
            if own & owned or not own <= trained:
                raise ValueError(
                    f"privacy: {name} shares its parameters with another layer, or trains only some of them"
                )
            owned |= own
            how = kind_of(name, module)
            module.register_forward_hook(partial(self._tap, slots_of if module is self._tied else how))
        missing = trained - owned - (set(self._head.parameters(recurse=False)) if self._trains_head else set())
        if missing:
            raise ValueError("privacy: some trained parameters belong to no layer that is known; see privacy/clip.py")
        task.register_forward_pre_hook(self._begin)
        task.tap = self._tap_head if self._trains_head else None
        for parameter in trained:
            parameter.requires_grad_(False)

    def _begin(self, task: Any, given: tuple[Any, ...]) -> None:
        if not torch.is_grad_enabled():  # an evaluation
            return
        batch = given[0]
        self._units, self._length = Units(batch.unit_N[: batch.num_trained]), batch.ids_NT.shape[1]
        self._parts, self._called, self._slots, self._rows = {}, set(), None, None

    def _tap(self, how: Callable[..., Any], module: nn.Module, given: tuple[Any, ...], output: Tensor) -> Tensor | None:
        units = self._units
        if units is None:  # not in training: a small evaluation
            return None
        if module in self._called:
            raise ValueError(
                f"privacy: {type(module).__name__} is used twice in one pass; it cannot be clipped exactly"
            )
        self._called.add(module)
        count = len(units.unit_N)
        if len(output) == 1:  # positions, the same for all sequences
            output = output.expand(count, *output.shape[1:])
        if len(output) != count:
            raise ValueError(
                f"privacy: {type(module).__name__} mixes the sequences of a batch; it cannot be clipped exactly"
            )
        if not output.requires_grad:
            output = output.detach().requires_grad_()
        inputs = [given[0].detach()]

        def keep(gradient: Tensor) -> None:
            found = how(module, units, inputs.pop(), gradient)  # not held as long as the graph is
            if isinstance(found, Slots):
                self._slots = found
            else:
                self._parts[module] = found

        output.register_hook(keep)
        return output

    def _tap_head(self, hidden_PX: Tensor, row_S: Tensor, size: int) -> Tensor:
        gradient_SV = hidden_PX.new_empty(len(row_S), size)
        self._rows = row_S, hidden_PX[row_S].detach(), gradient_SV
        return gradient_SV

    def add(self, loss: Tensor, total: dict[nn.Parameter, Tensor], factor: Callable[[Tensor], Tensor]) -> Tensor:
        """Norms of the units of the latest batch, whose loss this is. factor: norms (U,) → factors (U,)."""
        units, self._units = self._units, None
        assert units is not None
        loss.backward()
        parts = list(self._parts.values())
        if self._rows is not None:
            row_S, h_SX, g_SV = self._rows
            unit_S = units.unit_N[row_S // self._length]
            parts.append(head(self._head.weight, units, unit_S, h_SX, g_SV, self._slots))
            if getattr(self._head, "bias", None) is not None:
                parts.append(head_bias(self._head.bias, units, unit_S, g_SV))
        self._parts, self._rows = {}, None
        square_U = torch.stack([part.square_U for part in parts]).sum(0)
        norm_U = square_U.clamp(min=0).sqrt()
        factor_U = factor(norm_U)
        while parts:
            for parameter, gradient in parts.pop().total(factor_U):
                total[parameter] = total[parameter].add_(gradient) if parameter in total else gradient
        return norm_U
