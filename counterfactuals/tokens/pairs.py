"""corpus × lexicon × tokenizer → pairs: as a stream, or as a pair set on disk (shards.py), built by many processes.

While a pair set is built its folder is called `….partial`; a killed build goes on there. The bytes do not depend on the
number of workers, nor of machines that build parts of it (build_part).
"""

from __future__ import annotations

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
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from counterfactuals.files import write_whole
from counterfactuals.text.reverse import Reversal, Reverser
from counterfactuals.tokens.align import AlignedPair, Splicer
from counterfactuals.tokens.shards import PairSet, fingerprint_of, how_made, sha256_of_facts, shard_path, write_shard

HERE = Path(__file__).parents[1]
CODE = ("text/*", *(f"tokens/{name}.py" for name in ("corpus", "align", "pairs", "shards")))
SHARD_CHARACTERS = 4_000_000  # a shard's texts; about 5 MB on disk
BATCH = 256  # texts that are tokenised together
LONGEST = 250_000  # characters of a text; longer ones are cut at the end of a paragraph, a line or a word


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
    """Reverse, tokenise, align and cut texts (align.cut), as a stream.

    tokenizer: a fast one, or a Splicer of one, which remembers. TypeError for a single text.
    """
    if isinstance(texts, str):
        raise TypeError("make_pairs: needs several texts, such as a list; put a single one in [ ]")
    splicer = tokenizer if isinstance(tokenizer, Splicer) else Splicer(tokenizer)
    for _, pairs in _made(_parts(texts), reverser, splicer, max_length):
        yield from pairs


def _made(
    texts: Iterable[str], reverser: Reverser, splicer: Splicer, max_length: int
) -> Iterator[tuple[Reversal, list[AlignedPair]]]:
    for batch in _batches(texts):
        reversals = list(reverser.many(batch))
        yield from zip(reversals, splicer.sequences(reversals, max_length))


class _Later(str):
    """A part of a text that is not its first."""


def _parts(texts: Iterable[str]) -> Iterator[str]:
    """Texts of bounded length: a book in parts, so that memory does not depend on what a corpus holds."""
    for text in texts:
        begin = 0
        while len(text) - begin > LONGEST:
            stop = _end_of_part(text, begin, begin + LONGEST)
            yield (_Later if begin else str)(text[begin:stop])
            begin = stop
        yield (_Later if begin else str)(text[begin:])


def _end_of_part(text: str, begin: int, last: int) -> int:
    for mark, length in (("\n\n", 2), ("\n", 1), (" ", 0)):
        found = text.rfind(mark, begin, last)
        if found >= 0 and found + length > begin:
            return found + length
    return last


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
    """Everything that decides a pair set, by the keys of shards.PARTS."""
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError("tokenizer: alignment needs a fast tokenizer (tokenizer.json); this one is slow")
    files = sorted(file for name in CODE for file in HERE.glob(name) if file.suffix in (".py", ".json", ".yaml"))
    code = [file.read_text(encoding="utf-8") for file in files]
    ends = [
        tokenizer.bos_token_id,
        tokenizer.eos_token_id,
        *(["start_every"] * getattr(tokenizer, "start_every", False)),
    ]
    return {
        "source": source_fingerprint,
        "reverser": reverser.fingerprint,
        "tokenizer": sha256_of_facts([tokenizer.backend_tokenizer.to_str(), ends]),
        "max_length": max_length,
        "code": sha256_of_facts([code, SHARD_CHARACTERS]),
    }


def build_pairs(
    texts: Texts,
    reverser: Reverser,
    tokenizer: Any,
    directory: str | Path,
    *,
    max_length: int,
    max_doubt: float | None = None,
    workers: int = 1,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> PairSet:
    """The pair set of a corpus below `directory`, built if it is not there yet; finished shards are not built again.

    `directory` may also be a pair set itself, which is then only checked. max_doubt: of the set that is returned, not
    of what is stored (PairSet). progress is called after each shard. A script that asks for several workers needs
    `if __name__ == "__main__":`. Raises ValueError where a set was made from something else, the disk is full or a
    worker died; finished shards stay.
    """
    parts = fingerprint_parts(texts.fingerprint, reverser, tokenizer, max_length)
    if (Path(directory) / "meta.json").exists():
        return PairSet(directory, parts, max_doubt=max_doubt)
    folder, work = _planned(directory, parts, reverser, tokenizer)
    if not (folder / "meta.json").exists():
        unfinished, fingerprint = work.folder, work.fingerprint
        counts = _built(texts, work, workers, progress)
        total = _added(counts)
        if not total["pairs"]:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise ValueError(f"{directory}: the corpus gave no text of two tokens or more; nothing to train on")
        meta = {"fingerprint": fingerprint, "parts": parts, "lexicon": reverser.lexicon.name, "shards": len(counts)}
        _finish(unfinished, folder, meta | {"counts": total, "by_shard": counts})
    return PairSet(folder, parts, max_doubt=max_doubt)


def build_part(
    texts: Texts,
    reverser: Reverser,
    tokenizer: Any,
    directory: str | Path,
    *,
    max_length: int,
    part: tuple[int, int],
    workers: int = 1,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> int:
    """Builds the shards i, i + n, i + 2n, … of a pair set for part (i, n), and says how many; for jobs side by side.

    Once all parts are in one folder, `build_pairs` finds their shards, makes those that are missing and finishes the
    set: the bytes are those of one machine. Every job reads the whole corpus, which takes little beside reversing it.
    """
    if not 0 <= part[0] < part[1]:
        raise ValueError(f"part {part[0]} of {part[1]}: parts of n are numbered 0 to n − 1")
    parts = fingerprint_parts(texts.fingerprint, reverser, tokenizer, max_length)
    folder, work = _planned(directory, parts, reverser, tokenizer)
    return 0 if (folder / "meta.json").exists() else len(_built(texts, work, workers, progress, part))


def _planned(directory: str | Path, parts: dict[str, Any], reverser: Reverser, tokenizer: Any) -> tuple[Path, _Work]:
    """The folder of a pair set, and the work to be done in another one until it is complete."""
    fingerprint = fingerprint_of(parts)
    folder = Path(directory) / f"pairs-{fingerprint[:16]}"
    largest_id = max(tokenizer.get_vocab().values(), default=0)
    unfinished = folder.with_name(folder.name + ".partial")
    return folder, _Work(reverser, Splicer(tokenizer), parts["max_length"], largest_id, unfinished, fingerprint)


def _finish(unfinished: Path, folder: Path, meta: dict[str, Any]) -> None:
    for part in unfinished.glob(".*"):  # of a run that was killed
        part.unlink(missing_ok=True)
    write_whole(unfinished / "meta.json", json.dumps(meta, indent=1) + "\n")
    try:
        unfinished.rename(folder)
    except OSError:
        if not (folder / "meta.json").exists():  # unless another process has just finished the same set
            raise


def _built(
    texts: Texts, work: _Work, workers: int, progress: Callable[[Progress], None], part: tuple[int, int] = (0, 1)
) -> list[dict[str, Any]]:
    """The counts of all shards of a part, in order."""
    counts: list[dict[str, Any]] = []
    began, characters, first_share = time.perf_counter(), 0, 0.0
    for count, new, share in _shards_done(texts, work, workers, part):
        counts.append(count)
        rate, left = 0.0, None
        if new:
            characters += count["characters"]
            seconds = time.perf_counter() - began
            rate = characters / seconds
            left = seconds * (1 - share) / (share - first_share) if share and share > first_share else None
        else:  # a shard of an earlier run
            began, first_share = time.perf_counter(), share or 0.0
        num_texts, num_pairs = (sum(shard[key] for shard in counts) for key in ("texts", "pairs"))
        progress(Progress(num_texts, num_pairs, rate, share, left))
    return counts


def _shards_done(
    texts: Texts, work: _Work, workers: int, part: tuple[int, int]
) -> Iterator[tuple[dict[str, Any], bool, float | None]]:
    """Counts of a part's shards in order, whether each was built now, and the share of the corpus read up to it."""
    pool = None
    others = set(multiprocessing.active_children())
    waiting: deque[tuple[Callable[[], dict[str, Any]], bool, float | None]] = deque()
    try:
        for number, shard in islice(enumerate(_shards(texts)), part[0], None, part[1]):
            count = work.finished(number, shard)
            if count is not None:
                waiting.append((partial(dict, count), False, texts.share))
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
            for file in work.folder.glob(f".*.{worker.pid}"):
                file.unlink(missing_ok=True)
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

    def finished(self, number: int, texts: list[str]) -> dict[str, Any] | None:
        """The counts of a shard that an earlier run has written from the same texts."""
        made = how_made(shard_path(self.folder, number))
        if made is None or made["fingerprint"] != self.fingerprint:
            return None
        same = made["counts"]["texts"] == len(texts) and made["counts"]["characters"] == sum(map(len, texts))
        return made["counts"] if same else None

    def __call__(self, number: int, texts: list[str]) -> dict[str, Any]:
        made = list(_made(texts, self.reverser, self.splicer, self.max_length))
        pairs = [pair for _, sequences in made for pair in sequences]
        counts = _counts([reversal for reversal, _ in made], pairs)
        facts = {"fingerprint": self.fingerprint, "counts": counts}
        first = _first(texts, [len(sequences) for _, sequences in made])
        sizes = {"largest_id": self.largest_id, "max_length": self.max_length}
        write_shard(shard_path(self.folder, number), pairs, first, facts, **sizes)
        return counts


def _first(texts: list[str], numbers: list[int]) -> list[bool]:
    """Of each sequence whether it begins a text; numbers[n]: how many sequences texts[n] gave."""
    first: list[bool] = []
    begins = False
    for text, number in zip(texts, numbers, strict=True):
        begins = begins or not isinstance(text, _Later)
        for _ in range(number):
            first.append(begins)
            begins = False
    return first


def _counts(reversals: list[Reversal], pairs: list[AlignedPair]) -> dict[str, Any]:
    """Of a shard; pairs are sequences: all, those with a role, those with a counterfactual."""
    with_counterfactual = [pair for pair in pairs if pair.reversed]
    rules = Counter(span.rule for reversal in reversals for span in reversal.spans)
    flags = Counter(kind for reversal in reversals for kind in {flag.kind for flag in reversal.flags})
    return {
        "texts": len(reversals),
        "characters": sum(len(reversal.text) for reversal in reversals),
        "reversed_texts": sum(bool(reversal.spans) for reversal in reversals),
        "flagged_texts": sum(bool(reversal.flags) for reversal in reversals),
        "pairs": len(pairs),
        "role_pairs": sum(pair.doubt > 0 or pair.reversed for pair in pairs),
        "reversed_pairs": len(with_counterfactual),
        "tokens": sum(len(pair.input_ids) for pair in pairs),
        "reversed_tokens": sum(len(pair.input_ids) for pair in with_counterfactual),
        "cf_tokens": sum(len(pair.cf_input_ids) for pair in with_counterfactual),
        "aligned_tokens": sum(int((pair.cf_index >= 0).sum()) for pair in with_counterfactual),
        "spans": dict(sorted(rules.items())),
        "flags": dict(sorted(flags.items())),
    }


def _added(counts: list[dict[str, Any]]) -> dict[str, Any]:
    total: dict[str, Any] = _counts([], [])
    for shard in counts:
        for key, value in shard.items():
            total[key] = dict(Counter(total[key]) + Counter(value)) if isinstance(value, dict) else total[key] + value
    total["reversed_share"] = total["reversed_texts"] / max(total["texts"], 1)
    total["aligned_share"] = total["aligned_tokens"] / max(total["reversed_tokens"], 1)
    return total


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
