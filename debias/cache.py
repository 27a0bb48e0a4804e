"""A teacher paid for once: its predictions for every text and counterfactual of a pair set, at most 150 bytes each.

C rows (predictions), D teacher width, V vocabulary, K most likely tokens, Q sketch size, B bytes a row.

A row keeps the log-probabilities (temperature 1) of its K likeliest tokens, in 8 bits between the first and the last,
and a sketch of the hidden state they came from: its Q principal coordinates, the more bits the more they explain. The
rest of the vocabulary is estimated from the sketch, log p̂(v) = offset + mean(v) + sketch · basis(v), with the offset
that makes the mass of the rest, m, the teacher's own. The coordinates are those that explain most of the logits, each
token weighted by its mean probability at temperature 2, and bits go where they lessen the squared error of the logits
most (reverse water-filling). Where Q reaches D (small teachers) nothing but rounding is lost.

Bias. The stored tokens and m are exact but for rounding, so the expected error of a row in forward KL at temperature 1
is KL(p ‖ p̂) = m · KL(p_rest ‖ p̂_rest), and that of the gradient in the student's logits is p − p̂: 0 on the stored
tokens, summing to 0 over the rest. Softening weighs the rest more and the ops mix it: docs/speed.md has what was
measured. Leaving the rest out and renormalising, as top-k caches do, would overstate each stored token by 1 / (1 − m)
and say "never" to all others.
"""

from __future__ import annotations

import contextlib
import hashlib
import heapq
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from counterfactuals.files import write_whole
from counterfactuals.tokens.batch import PairBatch
from counterfactuals.tokens.pairs import PairSet
from debias.losses import TeacherRows, model_rows

FORMAT = 2  # of a row's bytes; another number is another cache
SKETCH = 128  # the largest Q: reading a row costs a product of this width
TOKENS = 12  # K, where the coordinates can use all other bytes (docs/speed.md)
SHARD_ROWS = 1 << 16  # 10 MB on disk: what a kill may cost
SAMPLE_ROWS = 1 << 14  # of the corpus, from which the coordinates are found
FORWARD_TOKENS = 1 << 12  # padded, in one run of the teacher
CHUNK = 256  # rows whose logits exist at one time
PARTS = {  # of a fingerprint, and what they are called in a refusal
    "teacher": "teacher.model",
    "dtype": "teacher.dtype",
    "pairs": "corpus, tokenizer or counterfactual settings (pair set)",
    "row_bytes": "teacher.cache_bytes",
    "format": "version of debias/cache.py",
}


@dataclass(frozen=True)
class Codec:
    """Predictions as bytes, and back.

    Bytes of a row, in order: K ids (likeliest first), K levels (uint8, steps below the first), Q coordinates (packed,
    bits_Q each), first, step, offset, scale (float16).
    centre_D, project_DQ: hidden state → coordinates of variance 1. basis_XV, X = Q + 2: coordinates, counted in levels
    of the row's scale → logits; the last two rows are the mean and ones, which take the offset along in one product.
    """

    centre_D: torch.Tensor
    project_DQ: torch.Tensor
    bits_Q: torch.Tensor
    basis_XV: torch.Tensor
    top_k: int

    @classmethod
    def fit(cls, hidden_ND: torch.Tensor, head_VD: torch.Tensor, row_bytes: int) -> Codec:
        """Find the coordinates from a sample of hidden states. ValueError if row_bytes holds no token."""
        hidden_ND, head_VD = hidden_ND.float(), head_VD.float()
        (num_rows, width), vocab_size = hidden_ND.shape, len(head_VD)
        size, token_bytes = min(SKETCH, width, num_rows), _id_bytes(vocab_size) + 1
        top_k = min(TOKENS, (row_bytes - 8) // 2 // token_bytes)
        if top_k < 1:
            raise ValueError(f"teacher.cache_bytes: {row_bytes} bytes hold no token; at least {8 + 2 * token_bytes} do")
        weight_V = torch.zeros(vocab_size, device=head_VD.device)
        for part_CD in hidden_ND.split(CHUNK):
            weight_V += (part_CD @ head_VD.T / 2).softmax(-1).sum(0)
        weight_V /= num_rows
        head_VD = head_VD - weight_V @ head_VD  # adding the same to all logits of a row changes nothing
        centre_D = hidden_ND.mean(0)
        # logits differ by x · head; their weighted square is x · metric · x, and root turns it into a plain square
        metric_DD = (head_VD * weight_V[:, None]).double().T @ head_VD.double()
        values_D, vectors_DD = torch.linalg.eigh(metric_DD)
        root_D = values_D.clamp(min=float(values_D[-1]) * 1e-9).sqrt()
        moved_ND = ((hidden_ND - centre_D).double() @ vectors_DD) * root_D
        _, lengths, axes = torch.linalg.svd(moved_ND, full_matrices=False)
        spread_Q = (lengths[:size] / math.sqrt(num_rows)).clamp(min=1e-9)
        bits = _bits((spread_Q**2).tolist(), 8 * (row_bytes - 8 - top_k * token_bytes))
        bits_Q = torch.tensor(bits, dtype=torch.int32)
        size = len(bits_Q)
        top_k = min((row_bytes - 8 - _bytes(bits_Q)) // token_bytes, vocab_size)  # what the coordinates do not need
        axes_DQ, spread_Q = axes[:size].T, spread_Q[:size]
        project_DQ = (vectors_DD * root_D) @ axes_DQ / spread_Q
        basis_QV = (head_VD.double() @ ((vectors_DD / root_D) @ axes_DQ * (spread_Q / _most(bits_Q).to(spread_Q)))).T
        rows = [basis_QV.float(), (head_VD @ centre_D)[None], torch.ones(1, vocab_size, device=head_VD.device)]
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
        place_CQ, most_Q = (hidden_CD.float() - self.centre_D) @ self.project_DQ, _most(self.bits_Q)
        scale_C1 = place_CQ.abs().amax(-1, keepdim=True).clamp(min=1e-4).half()
        place_CQ = (place_CQ / scale_C1.float() * most_Q).round().clamp(-most_Q, most_Q)
        coordinates_CX = self._coordinates(place_CQ, scale_C1, torch.zeros_like(scale_C1))
        estimate_CV = (coordinates_CX @ self.basis_XV).scatter_(1, ids_CK, -math.inf)
        rest_C1 = logp_CV.scatter(1, ids_CK, -math.inf).logsumexp(-1, keepdim=True)
        offset_C1 = rest_C1 - estimate_CV.logsumexp(-1, keepdim=True)
        offset_C1 = offset_C1.nan_to_num(0.0, 0.0, -1e4)  # no rest: every token is stored
        fields = [
            ids_CK.to(torch.int16 if _id_bytes(self.basis_XV.shape[1]) == 2 else torch.int32),
            level_CK.to(torch.uint8),
            self._packed((place_CQ + most_Q).to(torch.int32)),
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
        place_CQ = (self._unpacked(place) - _most(self.bits_Q)).float()
        torch.mm(self._coordinates(place_CQ, scale_C1, offset_C1), self.basis_XV, out=out_CV)
        out_CV.scatter_(1, ids_CK, first_C1.float() - step_C1.float() * level.float())

    def _packed(self, level_CQ: torch.Tensor) -> torch.Tensor:
        """Levels, bits_Q bits each without gaps, as bytes: one may lie across two."""
        byte_Q, shift_Q = self._places()
        shifted_CQ = level_CQ << shift_Q
        packed = level_CQ.new_zeros(len(level_CQ), _bytes(self.bits_Q) + 1)
        packed.index_add_(1, byte_Q, shifted_CQ & 255).index_add_(1, byte_Q + 1, shifted_CQ >> 8)
        return packed[:, :-1].to(torch.uint8)

    def _unpacked(self, packed: torch.Tensor) -> torch.Tensor:
        byte_Q, shift_Q = self._places()
        packed = packed.to(torch.int32)
        both_CQ = packed[:, byte_Q] | packed[:, (byte_Q + 1).clamp(max=packed.shape[1] - 1)] << 8
        return both_CQ >> shift_Q & (2 * _most(self.bits_Q) + 1)

    def _places(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The byte that each level begins in, and its first bit there."""
        begin_Q = self.bits_Q.cumsum(0) - self.bits_Q
        return begin_Q // 8, (begin_Q % 8).to(torch.int32)

    @staticmethod
    def _coordinates(place_CQ: torch.Tensor, scale_C1: torch.Tensor, offset_C1: torch.Tensor) -> torch.Tensor:
        return torch.cat([place_CQ * scale_C1.float(), torch.ones_like(offset_C1.float()), offset_C1.float()], 1)

    def rows(self, stored_PB: torch.Tensor) -> TeacherRows:
        """What distillation_loss takes for a teacher: rows by flat position."""
        return lambda row_C, out_CV: self.decode(stored_PB[row_C], out_CV)

    def save(self, path: Path, **facts: str) -> None:
        tensors = {name: x.contiguous().cpu() for name, x in vars(self).items() if torch.is_tensor(x)}
        write_whole(path, save(tensors | {"top_k": torch.tensor(self.top_k)}, facts))

    @classmethod
    def load(cls, path: Path) -> Codec:
        tensors: dict[str, Any] = load_file(path)
        return cls(**(tensors | {"top_k": int(tensors["top_k"])}))


def _bits(power_Q: Sequence[float], total: int) -> list[int]:
    """Bits of each coordinate (3 to 8; the last ones may get none and are left out), at most `total` together.

    The error that b bits leave of a coordinate's power is about 1 / (2^(b−1) − 1)²; each step of the greedy choice
    takes the bits that lessen the sum most.
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


def _most(bits_Q: torch.Tensor) -> torch.Tensor:
    """Levels on either side of zero."""
    return 2 ** (bits_Q - 1) - 1


def _bytes(bits_Q: torch.Tensor) -> int:
    return -(-int(bits_Q.sum()) // 8)


def _id_bytes(vocab_size: int) -> int:
    return 2 if vocab_size <= 1 << 16 else 4


class TeacherCache:
    """Stored predictions of a pair set; `attach` gives a batch its own.

    Raises ValueError where the folder is not complete, a file is damaged, or it was not made from `parts`.
    """

    def __init__(self, folder: str | Path, pairs: PairSet, parts: dict[str, Any] | None = None):
        self.folder, self._pairs = Path(folder), pairs
        try:
            self.meta = json.loads((self.folder / "meta.json").read_text(encoding="utf-8"))
            made_from = self.meta["parts"]
            other = [name for key, name in PARTS.items() if parts is not None and made_from.get(key) != parts[key]]
            if other:
                raise ValueError(
                    f"{folder}: made with another {', another '.join(other)}; name another folder in teacher.cache, or "
                    "delete this one"
                )
            self.codec = Codec.load(self.folder / "codec.safetensors")
            made = self.meta["made"]
        except (OSError, KeyError, TypeError, AttributeError, json.JSONDecodeError, SafetensorError) as error:
            raise ValueError(f"{folder}: not a complete teacher cache ({error}); delete it and run again") from None
        self._plan = _Plan(pairs)
        self._rows = []
        for number, count in enumerate(self._plan.rows_by_shard):
            file = _open(_file(self.folder, number), made, (int(count), self.codec.row_bytes))
            if file is None:
                raise ValueError(
                    f"{_file(self.folder, number)}: missing or damaged; run `python -m debias cache` with this "
                    "configuration: it makes this file anew and keeps the others"
                )
            self._rows.append(file.get_slice("rows"))

    def attach(self, batch: PairBatch, indices: Sequence[int] | np.ndarray) -> PairBatch:
        """`batch`, collated from the pairs `indices`, with its rows at flat positions: teacher_PB."""
        num_sequences, width = batch.ids_NT.shape
        stored = np.zeros((num_sequences, width, self.codec.row_bytes), dtype=np.uint8)
        mated = [i for i in indices if self._pairs.has_cf[i]] if num_sequences > len(indices) else []
        for n, (i, side) in enumerate([*((i, 0) for i in indices), *((i, 1) for i in mated)]):
            shard, start, count = self._plan.place(int(i), side)
            stored[n, :count] = self._rows[shard][start : start + count]
        return replace(batch, teacher_PB=torch.from_numpy(stored.reshape(-1, self.codec.row_bytes)))


class _Plan:
    """Where each prediction of a pair set stands: shards of consecutive pairs, a text before its counterfactual."""

    def __init__(self, pairs: PairSet):
        own, other = np.maximum(pairs.lengths - 1, 0), np.maximum(pairs.cf_lengths - 1, 0)
        self._counts = np.stack([own, other])
        self._starts = np.cumsum(own + other, dtype=np.int64) - own - other
        self.shard = (self._starts // SHARD_ROWS).astype(np.int64)
        self.shard = np.unique(self.shard, return_inverse=True)[1]  # none is empty, however long a text
        self.first_pair = np.searchsorted(self.shard, np.arange(self.shard[-1] + 2))
        ends = np.append(self._starts, self._starts[-1] + own[-1] + other[-1])
        self._first_row = ends[self.first_pair]
        self.rows_by_shard = np.diff(self._first_row)

    def place(self, i: int, side: int) -> tuple[int, int, int]:
        """Shard, first row in it and number of rows of pair i's text (side 0) or counterfactual (1)."""
        shard = int(self.shard[i])
        start = int(self._starts[i] - self._first_row[shard]) + side * int(self._counts[0, i])
        return shard, start, int(self._counts[side, i])


def fingerprint_parts(teacher: str, dtype: str, pairs: PairSet, row_bytes: int) -> dict[str, Any]:
    """Everything that decides a cache, by the keys of PARTS. teacher: fingerprint of its weights."""
    made_from = {"teacher": teacher, "dtype": dtype, "pairs": pairs.meta["fingerprint"]}
    return made_from | {"row_bytes": row_bytes, "format": FORMAT}


def folder_of(directory: str | Path, parts: dict[str, Any]) -> Path:
    """The cache made from `parts` below `directory`, or `directory` itself if it is a cache."""
    if (Path(directory) / "meta.json").exists():
        return Path(directory)
    return Path(directory) / f"teacher-{_fingerprint(parts)[:16]}"


def _fingerprint(parts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def open_cache(directory: str | Path, pairs: PairSet, parts: dict[str, Any]) -> TeacherCache | None:
    """The complete cache made from `parts`, checked; None if there is none yet."""
    folder = folder_of(directory, parts)
    return TeacherCache(folder, pairs, parts) if (folder / "meta.json").exists() else None


@torch.no_grad()
def build_cache(
    directory: str | Path,
    pairs: PairSet,
    teacher: Any,
    parts: dict[str, Any],
    *,
    device: torch.device | str = "cpu",
    precision: str = "no",
    progress: Callable[[str], None] = lambda line: None,
) -> TeacherCache:
    """Run `teacher` once over every text and counterfactual and store its predictions; a killed build goes on.

    precision: no, bf16 or fp16 autocast of the runs; a build that goes on, or mends, keeps the one that it began with
    (meta["precision"]). Raises ValueError where a file cannot be written.
    """
    folder = folder_of(directory, parts)
    teacher = teacher.eval().to(device)
    plan = _Plan(pairs)
    precision = _begun_in(folder / "codec.safetensors") or precision
    autocast = torch.autocast(torch.device(device).type, getattr(torch, _DTYPES[precision]), precision != "no")
    try:
        with autocast:
            codec = _codec(folder / "codec.safetensors", pairs, teacher, parts["row_bytes"], precision).to(device)
            # rows belong to the very codec that made them, which another machine would fit a little otherwise
            made = _fingerprint(parts) + hashlib.sha256((folder / "codec.safetensors").read_bytes()).hexdigest()
            began, new = time.perf_counter(), 0
            for number, count in enumerate(plan.rows_by_shard):
                path, shape = _file(folder, number), (int(count), codec.row_bytes)
                if _open(path, made, shape) is not None:
                    continue
                rows_RB = torch.empty(shape, dtype=torch.uint8)
                for place, part_CB in _encoded(pairs, teacher, codec, plan, number):
                    rows_RB[place : place + len(part_CB)] = part_CB
                write_whole(path, save({"rows": rows_RB}, {"made": made}))
                new += int(count)
                rate = new / (time.perf_counter() - began)
                left = plan.rows_by_shard[number + 1 :].sum() / rate / 60
                progress(f"{number + 1} of {len(plan.rows_by_shard)} shards, {rate:,.0f} tokens/s, {left:.0f} min left")
        total = int(plan.rows_by_shard.sum())
        meta = {"made": made, "parts": parts, "rows": total, "top_k": codec.top_k}
        meta |= {"sketch": codec.project_DQ.shape[1], "row_bytes": codec.row_bytes, "precision": precision}
        write_whole(folder / "meta.json", json.dumps(meta, indent=1) + "\n")
    except OSError as error:
        raise ValueError(
            f"{folder}: cannot be written ({error.strerror or error}); make room, or name another folder in "
            "teacher.cache, and run again: finished shards stay"
        ) from None
    return TeacherCache(folder, pairs, parts)


_DTYPES = {"no": "bfloat16", "bf16": "bfloat16", "fp16": "float16"}  # autocast is off for the first


def _file(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.safetensors"


def _open(path: Path, made: str, shape: tuple[int, int]) -> Any:
    """The open file if it is whole and belongs here, else None."""
    try:
        file = safe_open(path, framework="np")
        same = (file.metadata() or {}).get("made") == made
        return file if same and tuple(file.get_slice("rows").get_shape()) == shape else None
    except (OSError, SafetensorError):
        return None


def _sides(pairs: PairSet, chosen: Sequence[int] | np.ndarray) -> list[tuple[int, int, int]]:
    """(length, pair, side) of each text and counterfactual, longest first."""
    own = [(int(pairs.lengths[i]), int(i), 0) for i in chosen]
    other = [(int(pairs.cf_lengths[i]), int(i), 1) for i in chosen if pairs.has_cf[i]]
    return sorted(own + other, reverse=True)


def _hidden(
    pairs: PairSet, teacher: Any, sides: Sequence[tuple[int, int, int]]
) -> Iterator[tuple[list[tuple[int, int, int]], torch.Tensor]]:
    """The teacher's last hidden states (N, T, D) of sequences of like length, a few thousand tokens at a time."""
    device = next(teacher.parameters()).device
    begin = 0
    while begin < len(sides):
        width = sides[begin][0]
        group = list(sides[begin : begin + max(1, FORWARD_TOKENS // width)])
        ids_NT = np.zeros((len(group), width), dtype=np.int64)
        for n, (length, i, side) in enumerate(group):
            ids_NT[n, :length] = pairs[i].cf_input_ids if side else pairs[i].input_ids
        ids = torch.from_numpy(ids_NT).to(device)
        yield group, teacher.base_model(input_ids=ids, use_cache=False).last_hidden_state
        begin += len(group)


def _begun_in(codec_file: Path) -> str | None:
    """The precision of the build that left this file; None if there is none."""
    with contextlib.suppress(OSError, SafetensorError):
        return (safe_open(codec_file, framework="np").metadata() or {}).get("precision")
    return None


def _codec(path: Path, pairs: PairSet, teacher: Any, row_bytes: int, precision: str) -> Codec:
    """The codec of an earlier, killed build, or one fitted to an even sample of the corpus."""
    with contextlib.suppress(OSError, SafetensorError, KeyError):
        return Codec.load(path)
    share = min(1.0, SAMPLE_ROWS / float((pairs.lengths + pairs.cf_lengths).sum()))
    chosen = np.unique(np.linspace(0, len(pairs) - 1, math.ceil(len(pairs) * share)).astype(int))
    found = [
        hidden_NTD[n, : length - 1].float()
        for group, hidden_NTD in _hidden(pairs, teacher, _sides(pairs, chosen))
        for n, (length, _, _) in enumerate(group)
    ]
    head_VD = teacher.get_output_embeddings().weight
    with torch.autocast(head_VD.device.type, enabled=False):
        codec = Codec.fit(torch.cat(found), head_VD, row_bytes)
    codec.save(path, precision=precision)
    return codec


def _encoded(
    pairs: PairSet, teacher: Any, codec: Codec, plan: _Plan, number: int
) -> Iterator[tuple[int, torch.Tensor]]:
    """(first row in the shard, rows on the CPU) of every text and counterfactual of shard `number`."""
    head_VD = teacher.get_output_embeddings().weight
    chosen = np.arange(plan.first_pair[number], plan.first_pair[number + 1])
    for group, hidden_NTD in _hidden(pairs, teacher, _sides(pairs, chosen)):
        hidden_PD = torch.cat([hidden_NTD[n, : length - 1] for n, (length, _, _) in enumerate(group)])
        write = model_rows(hidden_PD, head_VD)
        parts = []
        for row_C in torch.arange(len(hidden_PD), device=hidden_PD.device).split(CHUNK):
            logp_CV = torch.empty(len(row_C), len(head_VD), device=hidden_PD.device)
            write(row_C, logp_CV)
            with torch.autocast(head_VD.device.type, enabled=False):
                parts.append(codec.encode(hidden_PD[row_C], logp_CV))
        rows_PB = torch.cat(parts).cpu()
        begin = 0
        for length, i, side in group:
            yield plan.place(i, side)[1], rows_PB[begin : begin + length - 1]
            begin += length - 1
