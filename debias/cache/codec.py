"""A teacher's prediction as at most 150 bytes, and back. Measured in docs/speed.md.

C rows (predictions), D teacher width, V vocabulary, K most likely tokens, Q sketch size, B bytes of a row.

A row stores the log-probabilities (temperature 1) of its K most likely tokens, in 8 bits between the first and the
last, and a sketch of the hidden state they came from: its Q principal coordinates, with more bits for those that
explain more. The rest of the vocabulary is estimated from the sketch, log p̂(v) = offset + mean(v) + sketch ·
basis(v), with the offset that gives the rest its true mass, m. The coordinates are those that explain most of the
logits, each token weighted by its mean probability at temperature 2; bits go where they reduce the squared error of
the logits most (reverse water-filling). Where Q equals D (small teachers) only rounding is lost.

Bias. The stored tokens and m are exact but for rounding. So the expected error of a row, in forward KL at temperature
1, is KL(p ‖ p̂) = m · KL(p_rest ‖ p̂_rest), and the error of the gradient in the student's logits is p − p̂: 0 on the
stored tokens, with sum 0 over the rest. Softening gives the rest more weight, and the ops mix it. A top-k cache that
renormalises would overstate each stored token by 1 / (1 − m) and give all others probability 0.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save

from counterfactuals.files import write_whole
from debias.losses import TeacherRows

FORMAT = 2  # of a row's bytes; another number is another cache
SKETCH = 128  # the largest Q: reading a row costs a product of this width
TOKENS = 12  # K, where the coordinates can use all other bytes (docs/speed.md)
CHUNK = 256  # rows whose logits are in memory at one time


@dataclass(frozen=True)
class Codec:
    """Predictions as bytes, and back.

    Bytes of a row, in order: K ids (most likely first), K levels (uint8, steps below the first), Q coordinates (packed,
    bits_Q each), first, step, offset, scale (float16).
    centre_D, project_DQ: hidden state → coordinates of variance 1. basis_XV, X = Q + 2: coordinates, in levels of the
    row's scale → logits; its last two rows, the mean and ones, add the mean and the offset in the same product.
    """

    centre_D: torch.Tensor
    project_DQ: torch.Tensor
    bits_Q: torch.Tensor
    basis_XV: torch.Tensor
    top_k: int

    @classmethod
    def fit(
        cls, hidden_ND: torch.Tensor, head_VD: torch.Tensor, row_bytes: int, bias_V: torch.Tensor | None = None
    ) -> Codec:
        """Find the coordinates from a sample of hidden states. ValueError if row_bytes has no room for a token."""
        hidden_ND, head_VD = hidden_ND.float(), head_VD.float()
        bias_V = head_VD.new_zeros(len(head_VD)) if bias_V is None else bias_V.float()
        (num_rows, width), vocab_size = hidden_ND.shape, len(head_VD)
        size, token_bytes = min(SKETCH, width, num_rows), _id_bytes(vocab_size) + 1
        top_k = min(TOKENS, (row_bytes - 8) // 2 // token_bytes)
        if top_k < 1:
            raise ValueError(
                f"teacher.cache_bytes: {row_bytes} bytes have no room for a token; use at least {8 + 2 * token_bytes}"
            )
        weight_V = torch.zeros(vocab_size, device=head_VD.device)
        for part_CD in hidden_ND.split(CHUNK):
            weight_V += ((part_CD @ head_VD.T + bias_V) / 2).softmax(-1).sum(0)
        weight_V /= num_rows
        head_VD = head_VD - weight_V @ head_VD  # adding the same to all logits of a row changes nothing
        centre_D = hidden_ND.mean(0)
        # hidden states that differ by x have logits that differ by x · head; their weighted square is x · metric · x
        metric_DD = (head_VD * weight_V[:, None]).double().T @ head_VD.double()
        values_D, vectors_DD = torch.linalg.eigh(metric_DD)
        root_D = values_D.clamp(min=float(values_D[-1]) * 1e-9).sqrt()
        moved_ND = ((hidden_ND - centre_D).double() @ vectors_DD) * root_D
        _, lengths, axes = torch.linalg.svd(moved_ND, full_matrices=False)
        spread_Q = (lengths[:size] / math.sqrt(num_rows)).clamp(min=1e-9)
        bits = _bits((spread_Q**2).tolist(), 8 * (row_bytes - 8 - top_k * token_bytes))
        bits_Q = torch.tensor(bits, dtype=torch.int32)
        size = len(bits_Q)
        top_k = min((row_bytes - 8 - _bytes(bits_Q)) // token_bytes, vocab_size)  # tokens fill what is left
        axes_DQ, spread_Q = axes[:size].T, spread_Q[:size]
        project_DQ = (vectors_DD * root_D) @ axes_DQ / spread_Q
        basis_QV = (
            head_VD.double() @ ((vectors_DD / root_D) @ axes_DQ * (spread_Q / _max_level(bits_Q).to(spread_Q)))
        ).T
        rows = [basis_QV.float(), (head_VD @ centre_D + bias_V)[None], torch.ones(1, vocab_size, device=head_VD.device)]
        return cls(centre_D, project_DQ.float(), bits_Q.to(head_VD.device), torch.cat(rows), top_k)

    @property
    def row_bytes(self) -> int:
        return self.top_k * (_id_bytes(self.basis_XV.shape[1]) + 1) + _bytes(self.bits_Q) + 8

    def to(self, device: torch.device | str) -> Codec:
        tensors: dict[str, Any] = {name: x.to(device) for name, x in vars(self).items() if torch.is_tensor(x)}
        return replace(self, **tensors)

    def encode(self, hidden_CD: torch.Tensor, logp_CV: torch.Tensor) -> torch.Tensor:
        """(C, B) uint8 from last hidden states and the log-probabilities they give."""
        top_CK, ids_CK = logp_CV.topk(self.top_k)
        first_C1 = top_CK[:, :1].half()
        step_C1 = ((first_C1.float() - top_CK[:, -1:]) / 255).clamp(min=1e-4).half()
        level_CK = ((first_C1.float() - top_CK) / step_C1.float()).round().clamp(0, 255)
        place_CQ, max_Q = (hidden_CD.float() - self.centre_D) @ self.project_DQ, _max_level(self.bits_Q)
        scale_C1 = place_CQ.abs().amax(-1, keepdim=True).clamp(min=1e-4).half()
        place_CQ = (place_CQ / scale_C1.float() * max_Q).round().clamp(-max_Q, max_Q)
        coordinates_CX = self._coordinates(place_CQ, scale_C1, torch.zeros_like(scale_C1))
        estimate_CV = (coordinates_CX @ self.basis_XV).scatter_(1, ids_CK, -math.inf)
        rest_C1 = logp_CV.scatter(1, ids_CK, -math.inf).logsumexp(-1, keepdim=True)
        offset_C1 = rest_C1 - estimate_CV.logsumexp(-1, keepdim=True)
        offset_C1 = offset_C1.nan_to_num(0.0, 0.0, -1e4)  # no rest: every token is stored
        fields = [
            ids_CK.to(torch.int16 if _id_bytes(self.basis_XV.shape[1]) == 2 else torch.int32),
            level_CK.to(torch.uint8),
            self._packed((place_CQ + max_Q).to(torch.int32)),
            torch.cat([first_C1, step_C1, offset_C1.half(), scale_C1], 1),
        ]
        return torch.cat([field.contiguous().view(torch.uint8) for field in fields], 1)

    def decode(self, row_CB: torch.Tensor, out_CV: torch.Tensor) -> None:
        """Write log-probabilities: one product of width Q + 2 and a scatter."""
        k, wide = self.top_k, _id_bytes(self.basis_XV.shape[1])
        ids, level, place, numbers = row_CB.split([wide * k, k, _bytes(self.bits_Q), 8], 1)
        ids_CK = ids.contiguous().view(torch.int16 if wide == 2 else torch.int32).long()
        if wide == 2:
            ids_CK &= 0xFFFF
        first_C1, step_C1, offset_C1, scale_C1 = numbers.contiguous().view(torch.float16).split(1, 1)
        place_CQ = (self._unpacked(place) - _max_level(self.bits_Q)).float()
        torch.mm(self._coordinates(place_CQ, scale_C1, offset_C1), self.basis_XV, out=out_CV)
        out_CV.scatter_(1, ids_CK, first_C1.float() - step_C1.float() * level.float())

    def _packed(self, level_CQ: torch.Tensor) -> torch.Tensor:
        """Levels as bytes, bits_Q bits each without gaps: a level may cross from one byte into the next."""
        byte_Q, shift_Q = self._places()
        shifted_CQ = level_CQ << shift_Q
        packed = level_CQ.new_zeros(len(level_CQ), _bytes(self.bits_Q) + 1)
        packed.index_add_(1, byte_Q, shifted_CQ & 255).index_add_(1, byte_Q + 1, shifted_CQ >> 8)
        return packed[:, :-1].to(torch.uint8)

    def _unpacked(self, packed: torch.Tensor) -> torch.Tensor:
        """The inverse of `_packed`."""
        byte_Q, shift_Q = self._places()
        packed = packed.to(torch.int32)
        both_CQ = packed[:, byte_Q] | packed[:, (byte_Q + 1).clamp(max=packed.shape[1] - 1)] << 8
        return both_CQ >> shift_Q & (2 * _max_level(self.bits_Q) + 1)

    def _places(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The byte in which each level begins, and its first bit there."""
        begin_Q = self.bits_Q.cumsum(0) - self.bits_Q
        return begin_Q // 8, (begin_Q % 8).to(torch.int32)

    @staticmethod
    def _coordinates(place_CQ: torch.Tensor, scale_C1: torch.Tensor, offset_C1: torch.Tensor) -> torch.Tensor:
        return torch.cat([place_CQ * scale_C1.float(), torch.ones_like(offset_C1.float()), offset_C1.float()], 1)

    def rows(self, stored_PB: torch.Tensor) -> TeacherRows:
        """The stored rows as the `teacher` of distillation_loss."""
        return lambda row_C, out_CV: self.decode(stored_PB[row_C], out_CV)

    def save(self, path: Path, **facts: str) -> None:
        tensors = {name: x.contiguous().cpu() for name, x in vars(self).items() if torch.is_tensor(x)}
        write_whole(path, save(tensors | {"top_k": torch.tensor(self.top_k)}, facts))

    @classmethod
    def load(cls, path: Path) -> Codec:
        """Raises OSError, SafetensorError or KeyError where the file is missing or damaged."""
        tensors: dict[str, Any] = load_file(path)
        return cls(**(tensors | {"top_k": int(tensors["top_k"])}))


def _bits(power_Q: Sequence[float], total: int) -> list[int]:
    """Bits of each coordinate, 3 to 8, `total` at most; coordinates at the end that get none are left out.

    With b bits the share of a coordinate's power that is lost is about 1 / (2^(b−1) − 1)². Each step of the greedy
    choice adds the bits that reduce the sum of losses most.
    """

    def offer(i: int, now: int) -> tuple[float, int, int]:
        more = 3 if now == 0 else 1
        left = 1.0 if now == 0 else 1 / (2 ** (now - 1) - 1) ** 2
        return power_Q[i] * (1 / (2 ** (now + more - 1) - 1) ** 2 - left) / more, i, more

    bits = [0] * len(power_Q)
    offers = [offer(i, 0) for i in range(len(power_Q))]
    heapq.heapify(offers)
    while offers:
        _, i, more = heapq.heappop(offers)
        if more <= total:
            bits[i] += more
            total -= more
            if bits[i] < 8:
                heapq.heappush(offers, offer(i, bits[i]))
    return bits[: bits.index(0)] if 0 in bits else bits


def _max_level(bits_Q: torch.Tensor) -> torch.Tensor:
    """Largest level: a coordinate of b bits has the levels −max … max."""
    return 2 ** (bits_Q - 1) - 1


def _bytes(bits_Q: torch.Tensor) -> int:
    """Bytes of all coordinates of a row."""
    return -(-int(bits_Q.sum()) // 8)


def _id_bytes(vocab_size: int) -> int:
    return 2 if vocab_size <= 1 << 16 else 4
