"""corpus × lexicon × tokenizer → prepared pairs on disk: sharded over processes, fingerprinted, read piece by piece.

A pair set is a folder `pairs-<fingerprint>`: shards `00000.safetensors`, … of consecutive texts, and `meta.json`, which
is written last. While it is built it is called `….partial`; a killed build goes on there. The bytes do not depend on
the number of workers.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors import SafetensorError, safe_open

from counterfactuals.files import write_whole
from counterfactuals.text.reverse import Reversal, Reverser
from counterfactuals.tokens.align import AlignedPair, Splicer, cut

HERE = Path(__file__).parents[1]
CODE = ("text/*", "tokens/corpus.py", "tokens/align.py", "tokens/pairs.py")
SHARD_CHARACTERS = 4_000_000  # a shard's texts; about 5 MB on disk
BATCH = 256  # texts that are tokenised together
LONGEST = 250_000  # characters of a text; longer ones are cut at the end of a line or a word
PARTS = {  # of a fingerprint, and what they are called in a refusal
    "source": "corpus",
    "reverser": "lexicon, names or policy",
    "tokenizer": "tokenizer",
    "max_length": "max_length",
    "code": "version of counterfactuals/",
}


class Texts(Protocol):
    """What pairs are made from, corpus.Corpus for one. share: what part of it the iteration under way has read."""

    @property
    def fingerprint(self) -> str: ...

    @property
    def share(self) -> float | None: ...

    def __iter__(self) -> Iterator[str]: ...


@dataclass(frozen=True)
class Progress:
    """How far a build is. texts, pairs: of all finished shards; the rate and the time left are those of this run."""

    texts: int
    pairs: int
    characters_per_second: float
    share: float | None  # of the corpus, if known
    seconds_left: float | None

    def __str__(self) -> str:
        share = "" if self.share is None else f" ({self.share:.0%})"
        left = "" if self.seconds_left is None else f", {self.seconds_left / 60:,.1f} min left"
        return f"{self.texts:,} texts{share}, {self.pairs:,} pairs, {self.characters_per_second / 1e6:.1f} MB/s{left}"


def make_pairs(texts: Iterable[str], reverser: Reverser, tokenizer: Any, *, max_length: int) -> Iterator[AlignedPair]:
    """Reverse, tokenise, align and cut texts, as a stream. Pieces of fewer than two tokens are left out.

    tokenizer: a fast one, or a Splicer of one, which remembers.
    """
    splicer = tokenizer if isinstance(tokenizer, Splicer) else Splicer(tokenizer)
    for _, pieces in _made(_parts(texts), reverser, splicer, max_length):
        yield from pieces


def _made(
    texts: Iterable[str], reverser: Reverser, splicer: Splicer, max_length: int
) -> Iterator[tuple[Reversal, list[AlignedPair]]]:
    for batch in _batches(texts):
        reversals = list(reverser.many(batch, brief=True))
        for reversal, pair in zip(reversals, splicer.pairs(reversals)):
            yield reversal, list(cut(pair, max_length))


def _parts(texts: Iterable[str]) -> Iterator[str]:
    """Texts of bounded length: a book in parts, so that memory does not depend on what a corpus holds."""
    for text in texts:
        begin = 0
        while len(text) - begin > LONGEST:
            stop = begin + LONGEST
            line, word = text.rfind("\n", begin, stop) + 1, text.rfind(" ", begin, stop)
            stop = line if line > begin else word if word > begin else stop
            yield text[begin:stop]
            begin = stop
        yield text[begin:]


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    characters = 0
    for text in texts:
        batch.append(text)
        characters += len(text)
        if len(batch) == BATCH or characters >= LONGEST * 4:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def fingerprint_parts(source_fingerprint: str, reverser: Reverser, tokenizer: Any, max_length: int) -> dict[str, Any]:
    """Everything that decides a pair set, by the keys of PARTS."""
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError("tokenizer: alignment needs a fast tokenizer (tokenizer.json); this one is slow")
    files = sorted(file for name in CODE for file in HERE.glob(name) if file.suffix in (".py", ".json", ".yaml"))
    code = [file.read_text(encoding="utf-8") for file in files]
    ends = [tokenizer.bos_token_id, tokenizer.eos_token_id]
    return {
        "source": source_fingerprint,
        "reverser": reverser.fingerprint,
        "tokenizer": _sha256([tokenizer.backend_tokenizer.to_str(), ends]),
        "max_length": max_length,
        "code": _sha256([code, SHARD_CHARACTERS]),
    }


def _sha256(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def build_pairs(
    texts: Texts,
    reverser: Reverser,
    tokenizer: Any,
    directory: str | Path,
    *,
    max_length: int,
    workers: int = 1,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> PairSet:
    """The pair set of a corpus below `directory`, built if it is not there yet; finished shards are not built again.

    `directory` may also be a pair set itself, which is then only checked. progress is called after each shard.
    A script that asks for several workers needs `if __name__ == "__main__":`. Raises ValueError where a set was made
    from something else, the disk is full or a worker died; finished shards stay.
    """
    parts = fingerprint_parts(texts.fingerprint, reverser, tokenizer, max_length)
    if (Path(directory) / "meta.json").exists():
        return PairSet(directory, parts)
    fingerprint = _sha256(parts)
    folder = Path(directory) / f"pairs-{fingerprint[:16]}"
    if not (folder / "meta.json").exists():
        unfinished = folder.with_name(folder.name + ".partial")
        largest_id = max(tokenizer.get_vocab().values(), default=0)
        work = _Work(reverser, Splicer(tokenizer), max_length, largest_id, unfinished, fingerprint)
        counts: list[dict[str, Any]] = []
        rate = _Rate(time.perf_counter())
        for count, new, share in _shards_done(texts, work, workers):
            counts.append(count)
            done = [sum(shard[key] for shard in counts) for key in ("texts", "pairs")]
            progress(Progress(done[0], done[1], *rate(count["characters"], new, share)))
        total = _added(counts)
        if not total["pairs"]:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise ValueError(f"{directory}: the corpus gave no text of two tokens or more; nothing to train on")
        meta = {"fingerprint": fingerprint, "parts": parts, "lexicon": reverser.lexicon.name, "shards": len(counts)}
        meta |= {"counts": total | _shares(total), "by_shard": counts}
        for part in unfinished.glob(".*"):  # of a run that was killed
            part.unlink(missing_ok=True)
        write_whole(unfinished / "meta.json", json.dumps(meta, indent=1) + "\n")
        try:
            unfinished.rename(folder)
        except OSError:
            if not (folder / "meta.json").exists():  # unless another process has just finished the same set
                raise
    return PairSet(folder, parts)


@dataclass
class _Rate:
    began: float
    characters: int = 0
    first_share: float = 0.0

    def __call__(self, characters: int, new: bool, share: float | None) -> tuple[float, float | None, float | None]:
        now = time.perf_counter()
        if not new:  # a shard of an earlier run
            self.began, self.first_share = now, share or 0.0
            return 0.0, share, None
        self.characters += characters
        seconds = now - self.began
        left = seconds * (1 - share) / (share - self.first_share) if share and share > self.first_share else None
        return self.characters / seconds, share, left


def _shards_done(texts: Texts, work: _Work, workers: int) -> Iterator[tuple[dict[str, Any], bool, float | None]]:
    """Counts of each shard in order, whether it was built now, and the share of the corpus read up to it."""
    pool = None
    others = set(multiprocessing.active_children())
    waiting: deque[tuple[Callable[[], dict[str, Any]], bool, float | None]] = deque()
    try:
        for number, shard in enumerate(_shards(texts)):
            count = work.finished(number, shard)
            if count is not None:
                waiting.append((lambda count=count: count, False, texts.share))  # type: ignore[misc]
            elif workers < 2:
                waiting.append((partial(work, number, shard), True, texts.share))
            else:
                pool = pool or _pool(work, workers)
                waiting.append((_submit(pool, number, shard), True, texts.share))
            while len(waiting) > (workers if pool else 0):  # no more texts than these are in memory
                result, new, share = waiting.popleft()
                yield result(), new, share
        for result, new, share in waiting:
            yield result(), new, share
    except (KeyboardInterrupt, GeneratorExit):  # the shards under way are given up
        for worker in set(multiprocessing.active_children()) - others:
            worker.kill()
            worker.join()
            for part in work.folder.glob(f".*.{worker.pid}"):
                part.unlink(missing_ok=True)
        raise
    except BrokenProcessPool:
        raise ValueError(
            f"{work.folder}: a worker process died (killed, or out of memory); run again to go on from there, with "
            "fewer workers if memory is short"
        ) from None
    finally:
        if pool:
            pool.shutdown(cancel_futures=True)


def _shards(texts: Iterable[str]) -> Iterator[list[str]]:
    shard: list[str] = []
    characters = 0
    for text in _parts(texts):
        shard.append(text)
        characters += len(text)
        if characters >= SHARD_CHARACTERS:
            yield shard
            shard, characters = [], 0
    if shard:
        yield shard


@dataclass(frozen=True)
class _Work:
    """Makes the pairs of one shard and writes them; sent to each worker once."""

    reverser: Reverser
    splicer: Splicer
    max_length: int
    largest_id: int
    folder: Path
    fingerprint: str

    def file(self, number: int) -> Path:
        return self.folder / f"{number:05d}.safetensors"

    def finished(self, number: int, texts: list[str]) -> dict[str, Any] | None:
        """The counts of a shard that an earlier run has written from the same texts."""
        try:
            with safe_open(self.file(number), framework="np") as file:
                made = json.loads(file.metadata()["made"])  # one key: safetensors writes several in any order
            counts = made["counts"]
            same = made["fingerprint"] == self.fingerprint and counts["texts"] == len(texts)
            return counts if same and counts["characters"] == sum(map(len, texts)) else None
        except (OSError, SafetensorError, KeyError, TypeError, json.JSONDecodeError):
            return None

    def __call__(self, number: int, texts: list[str]) -> dict[str, Any]:
        pairs: list[AlignedPair] = []
        counts = dict.fromkeys(COUNTS, 0) | {"texts": len(texts)}
        rules: Counter[str] = Counter()
        flags: Counter[str] = Counter()
        for reversal, pieces in _made(texts, self.reverser, self.splicer, self.max_length):
            pairs += pieces
            counts["characters"] += len(reversal.text)
            counts["reversed_texts"] += bool(reversal.spans)
            counts["flagged_texts"] += bool(reversal.flags)
            rules.update(span.rule for span in reversal.spans)
            flags.update({flag.kind for flag in reversal.flags})
        mated = [pair for pair in pairs if pair.reversed]
        counts["pairs"], counts["reversed_pairs"] = len(pairs), len(mated)
        counts["tokens"] = sum(len(pair.input_ids) for pair in pairs)
        counts["reversed_tokens"] = sum(len(pair.input_ids) for pair in mated)
        counts["cf_tokens"] = sum(len(pair.cf_input_ids) for pair in mated)
        counts["aligned_tokens"] = sum(int((pair.cf_index >= 0).sum()) for pair in mated)
        found = counts | {"spans": dict(sorted(rules.items())), "flags": dict(sorted(flags.items()))}
        self._write(number, pairs, found)
        return found

    def _write(self, number: int, pairs: list[AlignedPair], counts: dict[str, Any]) -> None:
        from safetensors.numpy import save

        id_type = np.uint16 if self.largest_id < 1 << 16 else np.int32
        index_type = np.int16 if self.max_length < 1 << 15 else np.int32
        mated = [pair.reversed for pair in pairs]
        lengths = [len(pair.input_ids) for pair in pairs]
        cf_lengths = [len(pair.cf_input_ids) if has_cf else 0 for pair, has_cf in zip(pairs, mated)]

        def joined(arrays: Iterable[np.ndarray], kind: type) -> np.ndarray:
            return np.concatenate([np.zeros(0, dtype=np.int32), *arrays]).astype(kind)

        arrays = {
            "ids": joined((pair.input_ids for pair in pairs), id_type),
            "length": np.array(lengths, dtype=np.int32),
            "cue": np.array([pair.cue for pair in pairs], dtype=np.int32),
            "turn": np.array([pair.turn for pair in pairs], dtype=np.uint8),
            "cf_ids": joined((pair.cf_input_ids for pair, has_cf in zip(pairs, mated) if has_cf), id_type),
            "cf_length": np.array(cf_lengths, dtype=np.int32),
            "cf_index": joined((pair.cf_index for pair, has_cf in zip(pairs, mated) if has_cf), index_type),
        }
        content = save(arrays, {"made": json.dumps({"fingerprint": self.fingerprint, "counts": counts})})
        path = self.file(number)
        try:
            write_whole(path, content)
        except OSError as error:
            raise ValueError(
                f"{path}: cannot be written ({error.strerror}); make room, or name another folder, and run again: "
                "finished shards stay"
            ) from None


COUNTS = (
    *("texts", "characters", "reversed_texts", "flagged_texts", "pairs", "reversed_pairs"),
    *("tokens", "reversed_tokens", "cf_tokens", "aligned_tokens"),  # the last two of reversed pairs
)


def _added(counts: list[dict[str, Any]]) -> dict[str, Any]:
    total: dict[str, Any] = {key: sum(shard[key] for shard in counts) for key in COUNTS}
    for key in ("spans", "flags"):
        total[key] = dict(sum((Counter(shard[key]) for shard in counts), Counter()))
    return total


def _shares(total: dict[str, Any]) -> dict[str, float]:
    return {
        "reversed_share": total["reversed_texts"] / max(total["texts"], 1),
        "aligned_share": total["aligned_tokens"] / max(total["reversed_tokens"], 1),
    }


def _pool(work: _Work, workers: int) -> ProcessPoolExecutor:
    """Processes that start side by side: an argument as large as `work` would keep each one waiting for the last."""
    context = multiprocessing.get_context("spawn")
    works: multiprocessing.Queue[_Work] = context.Queue()
    works.cancel_join_thread()  # a build that is given up does not wait until all have read it
    for _ in range(workers):
        works.put(work)
    return ProcessPoolExecutor(workers, context, _start_worker, (works,))


def _submit(pool: ProcessPoolExecutor, number: int, texts: list[str]) -> Callable[[], dict[str, Any]]:
    """A worker that this starts inherits what is blocked: Ctrl-C, which goes to this process alone; it stops them."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return pool.submit(_in_worker, number, texts).result
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


_work: _Work


def _start_worker(works: multiprocessing.Queue[_Work]) -> None:
    global _work
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _work = works.get()


def _in_worker(number: int, texts: list[str]) -> dict[str, Any]:
    return _work(number, texts)


class PairSet:
    """Prepared pairs; `set[i]` is an AlignedPair. Five bytes a pair stay in memory: the rest is read when asked for.

    lengths, cf_lengths: (P,) tokens of each text and of its counterfactual, 0 where it has none. has_cf: (P,) whether
    it has. meta["counts"]: totals. At most MAPPED shards are mapped at a time, however many there are.
    Raises ValueError where the folder is no complete pair set, or was not made from what `parts` says.
    """

    MAPPED = 32
    STRIDE = 64  # pairs between two whose places in their shard are kept

    def __init__(self, folder: str | Path, parts: dict[str, Any] | None = None):
        self.folder = Path(folder)
        try:
            self.meta = json.loads((self.folder / "meta.json").read_text(encoding="utf-8"))
            made_from = self.meta["parts"]
            if parts is not None:
                other = [name for key, name in PARTS.items() if made_from.get(key) != parts[key]]
                if other:
                    raise ValueError(
                        f"{folder}: made with another {', another '.join(other)}; name another folder to build a new "
                        "pair set in, or delete this one"
                    )
            # signed, and such that a pair's two lengths can be added
            kind = np.int16 if made_from["max_length"] < 1 << 14 else np.int32
            columns = [self._lengths_of(number, kind) for number in range(self.meta["shards"])]
        except (OSError, KeyError, TypeError, AttributeError, json.JSONDecodeError, SafetensorError) as error:
            raise ValueError(f"{folder}: not a complete pair set ({error}); delete it and run again") from None
        self._first = np.cumsum([0] + [len(length) for length, _ in columns])  # pair of each shard
        self.lengths, self.cf_lengths = map(np.concatenate, zip(*columns))
        self.has_cf = self.cf_lengths > 0
        padding = (0, -len(self.lengths) % self.STRIDE)
        strides = [
            np.pad(x, padding).reshape(-1, self.STRIDE).sum(axis=1, dtype=np.int64)
            for x in (self.lengths, self.cf_lengths, np.where(self.has_cf, self.lengths, 0))
        ]
        self._before = np.pad(np.cumsum(strides, axis=1), ((0, 0), (1, 0)))  # (3, P / STRIDE)
        self._base = np.array([self._before_pair(int(first)) for first in self._first])  # (shards + 1, 3)
        self._mapped = lru_cache(self.MAPPED)(self._map)

    def _lengths_of(self, number: int, kind: type) -> tuple[np.ndarray, np.ndarray]:
        file = self._map(number)
        return file["length"][:].astype(kind), file["cf_length"][:].astype(kind)

    def _map(self, number: int) -> dict[str, Any]:
        """The arrays of a shard, mapped into memory as long as this is kept; no file stays open."""
        file = safe_open(self.folder / f"{number:05d}.safetensors", framework="np")
        return {k: file.get_slice(k) for k in ("ids", "length", "cue", "turn", "cf_ids", "cf_length", "cf_index")}

    def _before_pair(self, i: int) -> np.ndarray:
        """Entries of ids, cf_ids and cf_index before pair i, from the set's beginning."""
        begin = i - i % self.STRIDE
        length, cf_length = self.lengths[begin:i], self.cf_lengths[begin:i]
        return self._before[:, i // self.STRIDE] + (length.sum(), cf_length.sum(), length[cf_length > 0].sum())

    def __len__(self) -> int:
        return len(self.lengths)

    def predictions(self, chosen: np.ndarray, *, augment: bool) -> int:
        """How many tokens of these pairs are predicted: all but the first of each text, and of counterfactuals too."""
        number = self.lengths[chosen].astype(np.int64) - 1
        return int((number + (self.cf_lengths[chosen] - 1) * self.has_cf[chosen] * augment).sum())

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
        length, cf_length, place = int(self.lengths[i]), int(self.cf_lengths[i]), i - int(self._first[shard])
        cue = int(read["cue"][place : place + 1][0])
        ids = read["ids"][start : start + length].astype(np.int32)
        if not cf_length:
            return AlignedPair(ids, ids, np.arange(length, dtype=np.int32), cue)
        cf_ids = read["cf_ids"][cf_start : cf_start + cf_length].astype(np.int32)
        index = read["cf_index"][index_start : index_start + length].astype(np.int32)
        return AlignedPair(ids, cf_ids, index, cue, int(read["turn"][place : place + 1][0]))
