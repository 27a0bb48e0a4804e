"""A teacher's predictions for every text and counterfactual of a pair set, stored once in shards (codec.py).

R rows (predictions) of a shard, B bytes of a row, P flat positions of a batch, N sequences, T positions, D width.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from counterfactuals.files import write_whole
from counterfactuals.tokens.batch import PairBatch
from counterfactuals.tokens.pairs import PairSet
from debias.cache.codec import CHUNK, FORMAT, Codec
from debias.losses import model_rows
from debias.models import Head, body_of, head_of

SHARD_ROWS = 1 << 16  # 10 MB on disk: the most work that a kill can cost
SAMPLE_ROWS = 1 << 14  # rows of the corpus from which the codec is fitted
FORWARD_TOKENS = 1 << 12  # tokens, with padding, in one forward pass of the teacher
PARTS = {  # keys of a fingerprint, and their names in a message
    "teacher": "teacher.model",
    "dtype": "teacher.dtype",
    "pairs": "corpus, tokenizer or counterfactual settings (pair set)",
    "row_bytes": "teacher.cache_bytes",
    "format": "version of debias/cache/codec.py",
}
DTYPES = {"no": "bfloat16", "bf16": "bfloat16", "fp16": "float16"}  # autocast is off for the first


class TeacherCache:
    """Stored predictions of a pair set; `attach` adds to a batch its own.

    Raises ValueError where the folder is incomplete, a file is damaged, or the cache was not made from `parts`.
    """

    def __init__(self, folder: str | Path, pairs: PairSet, parts: dict[str, Any] | None = None):
        self.folder, self._pairs = Path(folder), pairs
        try:
            self.meta = json.loads((self.folder / "meta.json").read_text(encoding="utf-8"))
            made_from, made = self.meta["parts"], self.meta["made"]
            other = [name for key, name in PARTS.items() if parts is not None and made_from.get(key) != parts[key]]
            if other:
                raise ValueError(
                    f"{folder}: made with another {', another '.join(other)}; name another folder in teacher.cache, or "
                    "delete this one"
                )
            self.codec = Codec.load(self.folder / "codec.safetensors")
        except (OSError, KeyError, TypeError, AttributeError, json.JSONDecodeError, SafetensorError) as error:
            raise ValueError(f"{folder}: not a complete teacher cache ({error}); delete it and run again") from None
        self._layout = _Layout(pairs)
        self._rows = []
        for number, count in enumerate(self._layout.rows_by_shard):
            file = _open(_file(self.folder, number), made, (int(count), self.codec.row_bytes))
            if file is None:
                raise ValueError(
                    f"{_file(self.folder, number)}: missing or damaged; run `evenhand cache` with this configuration: "
                    "it makes this file again and keeps the others"
                )
            self._rows.append(file.get_slice("rows"))

    def attach(
        self,
        batch: PairBatch,
        indices: Sequence[int] | np.ndarray,
        exchanged: Sequence[bool] | np.ndarray | None = None,
    ) -> PairBatch:
        """`batch`, collated from the pairs `indices`, with its stored rows at flat positions: teacher_PB.

        exchanged: which of them were exchanged (AlignedPair.exchanged) before they were collated.
        """
        sides = [0] * len(indices) if exchanged is None else [int(side) for side in exchanged]
        num_sequences, width = batch.ids_NT.shape
        stored = np.zeros((num_sequences, width, self.codec.row_bytes), dtype=np.uint8)
        own = list(zip(indices, sides))
        others = [(i, 1 - side) for i, side in own if self._pairs.has_cf[i]] if num_sequences > len(indices) else []
        for n, (i, side) in enumerate([*own, *others]):
            shard, start, count = self._layout.place(int(i), side)
            stored[n, :count] = self._rows[shard][start : start + count]
        return replace(batch, teacher_PB=torch.from_numpy(stored.reshape(-1, self.codec.row_bytes)))


class _Layout:
    """Where each prediction of a pair set is stored: shards of consecutive pairs, a text before its counterfactual."""

    def __init__(self, pairs: PairSet):
        own, other = np.maximum(pairs.lengths - 1, 0), np.maximum(pairs.cf_lengths - 1, 0)
        self._counts = np.stack([own, other])
        self._starts = np.cumsum(own + other, dtype=np.int64) - own - other
        shard = (self._starts // SHARD_ROWS).astype(np.int64)
        self._shard = np.unique(shard, return_inverse=True)[1]  # no shard is empty, however long a text
        self.first_pair = np.searchsorted(self._shard, np.arange(self._shard[-1] + 2))
        ends = np.append(self._starts, self._starts[-1] + own[-1] + other[-1])
        self._first_row = ends[self.first_pair]
        self.rows_by_shard = np.diff(self._first_row)

    def place(self, i: int, side: int) -> tuple[int, int, int]:
        """Shard, first row in it and number of rows of pair i's text (side 0) or counterfactual (1)."""
        shard = int(self._shard[i])
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
    """Run `teacher` once on every text and counterfactual and store its predictions; a killed build resumes.

    precision: no, bf16 or fp16 autocast. A build that resumes, or repairs a shard, keeps the precision it began with
    (meta["precision"]). Raises ValueError where a file cannot be written.
    """
    folder = folder_of(directory, parts)
    layout, precision = _Layout(pairs), _begun_in(folder / "codec.safetensors") or precision
    teacher = teacher.eval() if teacher.device == torch.device(device) else teacher.eval().to(device)
    head = head_of(teacher, "teacher.model")
    if head.cap:
        raise ValueError("teacher.cache: cannot store predictions with a soft cap, as this teacher's; set it to null")
    build = _Build(pairs, teacher, layout, head)
    try:
        with torch.autocast(torch.device(device).type, getattr(torch, DTYPES[precision]), precision != "no"):
            codec = build.codec(folder / "codec.safetensors", parts["row_bytes"], precision).to(device)
            # rows belong to the very codec that made them: another machine would fit a slightly different one
            made = _fingerprint(parts) + hashlib.sha256((folder / "codec.safetensors").read_bytes()).hexdigest()
            build.shards(folder, codec, made, progress)
        meta = {"made": made, "parts": parts, "rows": int(layout.rows_by_shard.sum()), "top_k": codec.top_k}
        meta |= {"sketch": codec.project_DQ.shape[1], "row_bytes": codec.row_bytes, "precision": precision}
        write_whole(folder / "meta.json", json.dumps(meta, indent=1) + "\n")
    except OSError as error:
        raise ValueError(
            f"{folder}: cannot be written ({error.strerror or error}); make room, or name another folder in "
            "teacher.cache, and run again: finished shards are kept"
        ) from None
    return TeacherCache(folder, pairs, parts)


def _file(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.safetensors"


def _open(path: Path, made: str, shape: tuple[int, int]) -> Any:
    """The open shard if it is complete and of this cache, else None."""
    try:
        file = safe_open(path, framework="np")
        same = (file.metadata() or {}).get("made") == made
        return file if same and tuple(file.get_slice("rows").get_shape()) == shape else None
    except (OSError, SafetensorError):
        return None


def _begun_in(codec_file: Path) -> str | None:
    """The precision of the build that wrote this file; None if there is none."""
    with contextlib.suppress(OSError, SafetensorError):
        return (safe_open(codec_file, framework="np").metadata() or {}).get("precision")
    return None


class _Side(NamedTuple):
    """A text (side 0) or counterfactual (1) of a pair, and its number of tokens."""

    length: int
    pair: int
    side: int


@dataclass(frozen=True)
class _Build:
    """The runs of a teacher over a pair set."""

    pairs: PairSet
    teacher: Any
    layout: _Layout
    head: Head

    def codec(self, path: Path, row_bytes: int, precision: str) -> Codec:
        """The codec of an earlier, killed build, or one fitted to a sample spread evenly over the corpus."""
        with contextlib.suppress(OSError, SafetensorError, KeyError):
            return Codec.load(path)
        share = min(1.0, SAMPLE_ROWS / float((self.pairs.lengths + self.pairs.cf_lengths).sum()))
        chosen = np.unique(np.linspace(0, len(self.pairs) - 1, math.ceil(len(self.pairs) * share)).astype(int))
        found = [
            hidden_NTD[n, : side.length - 1].float()
            for group, hidden_NTD in self._hidden(chosen)
            for n, side in enumerate(group)
        ]
        head = self.head.options(self.teacher)
        head_VD = head["head_VD"]
        with torch.autocast(head_VD.device.type, enabled=False):
            codec = Codec.fit(torch.cat(found), head["scale"] * head_VD, row_bytes, head["bias_V"])
        codec.save(path, precision=precision)
        return codec

    def shards(self, folder: Path, codec: Codec, made: str, progress: Callable[[str], None]) -> None:
        """Write every shard that is not there yet."""
        began, new, counts = time.perf_counter(), 0, self.layout.rows_by_shard
        for number, count in enumerate(counts):
            path, shape = _file(folder, number), (int(count), codec.row_bytes)
            if _open(path, made, shape) is not None:
                continue
            rows_RB = torch.empty(shape, dtype=torch.uint8)
            for start, part_CB in self.encoded(codec, number):
                rows_RB[start : start + len(part_CB)] = part_CB
            write_whole(path, save({"rows": rows_RB}, {"made": made}))
            new += int(count)
            rate = new / (time.perf_counter() - began)
            left = counts[number + 1 :].sum() / rate / 60
            progress(f"{number + 1} of {len(counts)} shards, {rate:,.0f} tokens/s, {left:.0f} min left")

    def encoded(self, codec: Codec, number: int) -> Iterator[tuple[int, torch.Tensor]]:
        """(first row in the shard, rows on the CPU) of every text and counterfactual of shard `number`."""
        head = self.head.options(self.teacher)
        head_VD = head["head_VD"]
        chosen = np.arange(self.layout.first_pair[number], self.layout.first_pair[number + 1])
        for group, hidden_NTD in self._hidden(chosen):
            hidden_PD = torch.cat([hidden_NTD[n, : side.length - 1] for n, side in enumerate(group)])
            write = model_rows(hidden_PD, **head)
            parts = []
            for row_C in torch.arange(len(hidden_PD), device=hidden_PD.device).split(CHUNK):
                logp_CV = torch.empty(len(row_C), len(head_VD), device=hidden_PD.device)
                write(row_C, logp_CV)
                with torch.autocast(head_VD.device.type, enabled=False):
                    parts.append(codec.encode(hidden_PD[row_C], logp_CV))
            rows_PB = torch.cat(parts).cpu()
            begin = 0
            for side in group:
                yield self.layout.place(side.pair, side.side)[1], rows_PB[begin : begin + side.length - 1]
                begin += side.length - 1

    def _hidden(self, chosen: np.ndarray) -> Iterator[tuple[list[_Side], torch.Tensor]]:
        """The teacher's last hidden states (N, T, D) of the chosen pairs, sequences of similar length together."""
        pairs, device = self.pairs, next(self.teacher.parameters()).device
        sides = [_Side(int(pairs.lengths[i]), int(i), 0) for i in chosen]
        sides += [_Side(int(pairs.cf_lengths[i]), int(i), 1) for i in chosen if pairs.has_cf[i]]
        sides.sort(reverse=True)
        begin = 0
        while begin < len(sides):
            width = sides[begin].length
            group = sides[begin : begin + max(1, FORWARD_TOKENS // width)]
            ids_NT = np.zeros((len(group), width), dtype=np.int64)
            for n, (length, i, side) in enumerate(group):
                ids_NT[n, :length] = pairs[i].cf_input_ids if side else pairs[i].input_ids
            ids = torch.from_numpy(ids_NT).to(device)
            yield group, body_of(self.teacher)(input_ids=ids, use_cache=False).last_hidden_state
            begin += len(group)
