"""Prepared pairs on disk: how a shard is written, and the pair set that reads shards piece by piece.

A pair set is a folder `pairs-<fingerprint>`: shards `00000.safetensors`, … of consecutive texts, and `meta.json`, which
is written last. A shard's arrays, P sequences of which C have a counterfactual: ids, all tokens one sequence after the
other; length (P,), cue, turn and doubt; first (P,), 1 where a
text begins; cf_ids, cf_index and cf_length (P,), 0 where there is no counterfactual.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from counterfactuals.files import write_whole
from counterfactuals.tokens.align import AlignedPair

ARRAYS = ("ids", "length", "cue", "turn", "doubt", "first", "cf_ids", "cf_length", "cf_index")
PARTS = {  # of a fingerprint, and what they are called in a refusal
    "source": "corpus",
    "reverser": "lexicon, names or policy",
    "tokenizer": "tokenizer",
    "max_length": "max_length",
    "code": "version of counterfactuals/",
}


def sha256_of_facts(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def fingerprint_of(parts: dict[str, Any], max_doubt: float | None = None) -> str:
    """Of a pair set made from `parts`, as it is seen with `max_doubt`."""
    made = sha256_of_facts(parts)
    return made if max_doubt is None else sha256_of_facts([made, max_doubt])


def shard_path(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.safetensors"


def write_shard(
    path: Path,
    pairs: Sequence[AlignedPair],
    first: Sequence[bool],
    made: dict[str, Any],
    *,
    largest_id: int,
    max_length: int,
) -> None:
    """One shard, in the smallest types that hold its numbers. first: whether a pair begins a text.

    ValueError, one line, where the disk is full.
    """
    from safetensors.numpy import save

    id_type = np.uint16 if largest_id < 1 << 16 else np.int32
    index_type = np.int16 if max_length < 1 << 15 else np.int32
    reversed_ = [pair for pair in pairs if pair.reversed]

    def joined(arrays: Iterable[np.ndarray], kind: type) -> np.ndarray:
        return np.concatenate([np.zeros(0, dtype=np.int32), *arrays]).astype(kind)

    arrays = {
        "ids": joined((pair.input_ids for pair in pairs), id_type),
        "length": np.array([len(pair.input_ids) for pair in pairs], dtype=np.int32),
        "cue": np.array([pair.cue for pair in pairs], dtype=np.int32),
        "turn": np.array([pair.turn for pair in pairs], dtype=np.uint8),
        "doubt": np.array([pair.doubt for pair in pairs], dtype=np.float32),
        "first": np.array(first, dtype=np.uint8),
        "cf_ids": joined((pair.cf_input_ids for pair in reversed_), id_type),
        "cf_length": np.array([len(pair.cf_input_ids) * pair.reversed for pair in pairs], dtype=np.int32),
        "cf_index": joined((pair.cf_index for pair in reversed_), index_type),
    }
    try:
        write_whole(path, save(arrays, {"made": json.dumps(made)}))  # one key: several are written in any order
    except OSError as error:
        raise ValueError(
            f"{path}: cannot be written ({error.strerror}); make room, or name another folder, and run again: "
            "finished shards stay"
        ) from None


def how_made(path: Path) -> dict[str, Any] | None:
    """What `write_shard` was told of a shard; None where there is no whole one."""
    try:
        with safe_open(path, framework="np") as file:
            return json.loads(file.metadata()["made"])
    except (OSError, SafetensorError, KeyError, TypeError, json.JSONDecodeError):
        return None


class PairSet:
    """Prepared pairs; `set[i]` is an AlignedPair. Five bytes a pair stay in memory: the rest is read when asked for.

    lengths, cf_lengths: (P,) tokens of each sequence and of its counterfactual, 0 where it has none. has_cf: (P,)
    whether it has. meta["counts"]: totals. At most MAPPED shards are mapped at a time, however many there are.
    max_doubt: sequences with more doubt than this lose their counterfactual, without building again; they are then as
    AlignedPair.within says, and the set's meta["fingerprint"] is another one.
    Raises ValueError where the folder is no complete pair set, or was not made from what `parts` says.
    """

    MAPPED = 32
    STRIDE = 64  # pairs between two whose places in their shard are kept

    def __init__(
        self, folder: str | Path, parts: dict[str, Any] | None = None, *, max_doubt: float | None = None
    ) -> None:
        self.folder, self._max_doubt = Path(folder), max_doubt
        try:
            self.meta = json.loads((self.folder / "meta.json").read_text(encoding="utf-8"))
            made_from = self.meta["parts"]
            _check_parts(self.folder, made_from, parts)
            # signed, and such that a pair's two lengths can be added
            kind = np.int16 if made_from["max_length"] < 1 << 14 else np.int32
            columns = [self._columns(number, kind) for number in range(self.meta["shards"])]
        except (OSError, KeyError, TypeError, AttributeError, json.JSONDecodeError, SafetensorError) as error:
            raise ValueError(f"{folder}: not a complete pair set ({error}); delete it and run again") from None
        self._first = np.cumsum([0] + [len(column[0]) for column in columns])  # pair of each shard
        self.lengths, self._stored, self.has_cf = map(np.concatenate, zip(*columns))
        self.cf_lengths = self._stored if max_doubt is None else self._stored * self.has_cf
        self.meta["fingerprint"] = fingerprint_of(made_from, max_doubt)
        padding = (0, -len(self.lengths) % self.STRIDE)
        strides = [
            np.pad(x, padding).reshape(-1, self.STRIDE).sum(axis=1, dtype=np.int64)
            for x in (self.lengths, self._stored, np.where(self._stored > 0, self.lengths, 0))
        ]
        self._before = np.pad(np.cumsum(strides, axis=1), ((0, 0), (1, 0)))  # (3, P / STRIDE)
        self._base = np.array([self._before_pair(int(first)) for first in self._first])  # (shards + 1, 3)
        self._mapped = lru_cache(self.MAPPED)(self._map)

    def _columns(self, number: int, kind: type) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of a shard's pairs: tokens, tokens of the stored counterfactual, and whether it counts."""
        file = self._map(number)
        cf_length = file["cf_length"][:].astype(kind)
        has_cf = cf_length > 0
        if self._max_doubt is not None:
            has_cf &= file["doubt"][:] <= np.float32(self._max_doubt)
        return file["length"][:].astype(kind), cf_length, has_cf

    def _map(self, number: int) -> dict[str, Any]:
        """The arrays of a shard, mapped into memory as long as this is kept; no file stays open."""
        file = safe_open(shard_path(self.folder, number), framework="np")
        return {name: file.get_slice(name) for name in ARRAYS}

    def _before_pair(self, i: int) -> np.ndarray:
        """Entries of ids, cf_ids and cf_index before pair i, from the set's beginning."""
        begin = i - i % self.STRIDE
        length, cf_length = self.lengths[begin:i], self._stored[begin:i]
        return self._before[:, i // self.STRIDE] + (length.sum(), cf_length.sum(), length[cf_length > 0].sum())

    def __len__(self) -> int:
        return len(self.lengths)

    def texts(self) -> np.ndarray:
        """(P,) the number of the text that each sequence comes from, from 0."""
        first = [self._map(number)["first"][:] for number in range(self.meta["shards"])]
        return np.cumsum(np.concatenate(first), dtype=np.int64) - 1

    def predictions(self, chosen: np.ndarray, *, augment: bool, exchanged: np.ndarray | None = None) -> int:
        """How many tokens of these pairs are predicted: all but the first of each text, and of counterfactuals too.

        exchanged: which of the pairs are seen from their other side (BatchPlan.exchanged).
        """
        number = self.lengths[chosen].astype(np.int64)
        if exchanged is not None:
            number = np.where(exchanged, self.cf_lengths[chosen], number)
        return int((number - 1 + (self.cf_lengths[chosen] - 1) * self.has_cf[chosen] * augment).sum())

    def size(self) -> dict[str, float]:
        return {"pairs": len(self), "with_counterfactual": float(self.has_cf.mean())}

    def __getitem__(self, i: int) -> AlignedPair:
        if not 0 <= i < len(self):
            raise IndexError(f"pair {i} of {len(self)}")
        i = int(i)
        shard = int(np.searchsorted(self._first, i, side="right")) - 1
        try:
            read = self._mapped(shard)
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{self.folder}: shard {shard} cannot be read any more ({error})") from None
        start, cf_start, index_start = (self._before_pair(i) - self._base[shard]).tolist()
        length, cf_length, place = int(self.lengths[i]), int(self._stored[i]), i - int(self._first[shard])
        cue, turn, doubt = (read[name][place : place + 1][0].item() for name in ("cue", "turn", "doubt"))
        ids = read["ids"][start : start + length].astype(np.int32)
        if not cf_length:
            return AlignedPair(ids, ids, np.arange(length, dtype=np.int32), cue, turn, doubt)
        cf_ids = read["cf_ids"][cf_start : cf_start + cf_length].astype(np.int32)
        index = read["cf_index"][index_start : index_start + length].astype(np.int32)
        return AlignedPair(ids, cf_ids, index, cue, turn, doubt).within(self._max_doubt)


def _check_parts(folder: Path, made_from: dict[str, Any], parts: dict[str, Any] | None) -> None:
    other = [name for key, name in PARTS.items() if parts is not None and made_from.get(key) != parts[key]]
    if other:
        raise ValueError(
            f"{folder}: made with another {', another '.join(other)}; name another folder to build a new pair set in, "
            "or delete this one"
        )
