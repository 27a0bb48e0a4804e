"""corpus × lexicon × tokenizer → prepared pairs on disk: cached, fingerprinted, read back piece by piece."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from counterfactuals.align import AlignedPair, Splicer, cut
from counterfactuals.lexicon import Lexicon
from counterfactuals.reverse import reverse

CODE = (
    "corpus.py",
    "lexicon.py",
    "pronouns.py",
    "reverse.py",
    "align.py",
    "pairs.py",
)  # a change makes old pair sets unfit
SHARD_TOKENS = 16_000_000


def make_pairs(
    texts: Iterable[str], lexicon: Lexicon, tokenizer: Any, *, max_length: int, batch: int = 256
) -> Iterator[AlignedPair]:
    """Reverse, tokenise, align and cut texts, as a stream. Pieces of fewer than two tokens are left out."""
    splicer = Splicer(tokenizer)
    iterator = iter(texts)
    while chunk := list(itertools.islice(iterator, batch)):
        for pair in splicer.pairs([reverse(text, lexicon) for text in chunk]):
            yield from cut(pair, max_length)


def pairs_fingerprint(source_fingerprint: str, lexicon: Lexicon, tokenizer: Any, max_length: int) -> str:
    """sha256 over everything that decides a pair set."""
    tokens = tokenizer.backend_tokenizer.to_str()
    code = [(Path(__file__).parent / name).read_text(encoding="utf-8") for name in CODE]
    ends = [tokenizer.bos_token_id, tokenizer.eos_token_id]
    facts = [code, source_fingerprint, lexicon.fingerprint, tokens, ends, max_length]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def build_pairs(
    texts: Callable[[], Iterable[str]],
    lexicon: Lexicon,
    tokenizer: Any,
    directory: str | Path,
    *,
    source_fingerprint: str,
    max_length: int,
    progress: Callable[[int], None] = lambda num_pairs: None,
) -> PairSet:
    """The pair set of a corpus below `directory`, built if it is not there yet.

    Written to a temporary folder and renamed when complete: a killed build leaves nothing to trust by mistake.
    """
    fingerprint = pairs_fingerprint(source_fingerprint, lexicon, tokenizer, max_length)
    folder = Path(directory) / f"pairs-{fingerprint[:16]}"
    if not (folder / "meta.json").exists():
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        shard: list[AlignedPair] = []
        shards, tokens = 0, 0
        for number, pair in enumerate(make_pairs(texts(), lexicon, tokenizer, max_length=max_length), 1):
            shard.append(pair)
            tokens += len(pair.input_ids) + len(pair.cf_input_ids)
            if tokens >= SHARD_TOKENS:
                _write_shard(shard, partial / f"{shards:05d}.safetensors")
                shards, tokens, shard = shards + 1, 0, []
            if number % 1000 == 0:
                progress(number)
        if shard:
            _write_shard(shard, partial / f"{shards:05d}.safetensors")
            shards += 1
        if not shards:
            raise ValueError(f"{directory}: the corpus gave no text of two tokens or more; nothing to train on")
        meta = {"fingerprint": fingerprint, "lexicon": lexicon.name, "shards": shards}
        (partial / "meta.json").write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")
        partial.rename(folder)
    return PairSet(folder, fingerprint)


def _write_shard(pairs: list[AlignedPair], path: Path) -> None:
    from safetensors.numpy import save_file

    mated = [pair for pair in pairs if pair.reversed]
    empty = [np.zeros(0, dtype=np.int32)]  # concatenate wants at least one array
    save_file(
        {
            "ids": np.concatenate([pair.input_ids for pair in pairs]),
            "length": np.array([len(pair.input_ids) for pair in pairs], dtype=np.int32),
            "cue": np.array([pair.cue for pair in pairs], dtype=np.int32),
            "cf_ids": np.concatenate([pair.cf_input_ids for pair in mated] or empty),
            "cf_length": np.array([len(pair.cf_input_ids) * pair.reversed for pair in pairs], dtype=np.int32),
            "cf_index": np.concatenate([pair.cf_index for pair in mated] or empty),
        },
        path,
    )


class PairSet:
    """Prepared pairs; `set[i]` is an AlignedPair. Lengths stay in memory, tokens are read from disk when asked for.

    lengths: (P,) tokens of each text. has_cf: (P,) whether its counterfactual differs from it.
    """

    def __init__(self, folder: str | Path, fingerprint: str | None = None):
        from safetensors import SafetensorError, safe_open

        self.folder = Path(folder)
        try:
            self.meta = json.loads((self.folder / "meta.json").read_text(encoding="utf-8"))
            if fingerprint is not None and self.meta["fingerprint"] != fingerprint:
                raise ValueError(f"{folder}: made from another corpus, lexicon, tokenizer or version; delete it")
            files = [self.folder / f"{n:05d}.safetensors" for n in range(self.meta["shards"])]
            self._files = [safe_open(file, framework="np") for file in files]
        except (OSError, KeyError, json.JSONDecodeError, SafetensorError) as error:
            raise ValueError(f"{folder}: not a complete pair set ({error}); delete it and run again") from None
        lengths, cf_lengths, cues, places = [], [], [], []
        for number, file in enumerate(self._files):
            length, cf_length = file.get_tensor("length"), file.get_tensor("cf_length")
            with_cf = np.where(cf_length > 0, length, 0)
            starts = [np.cumsum(x, dtype=np.int64) - x for x in (length, cf_length, with_cf)]
            places.append(np.stack([np.full(len(length), number, dtype=np.int64), *starts], axis=1))
            lengths.append(length)
            cf_lengths.append(cf_length)
            cues.append(file.get_tensor("cue"))
        self.lengths, self.cf_lengths = np.concatenate(lengths), np.concatenate(cf_lengths)
        self.has_cf = self.cf_lengths > 0
        self._cues, self._places = np.concatenate(cues), np.concatenate(places)
        self._slices = [{k: file.get_slice(k) for k in ("ids", "cf_ids", "cf_index")} for file in self._files]

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, i: int) -> AlignedPair:
        number, start, cf_start, index_start = self._places[i].tolist()
        length, cf_length = int(self.lengths[i]), int(self.cf_lengths[i])
        read = self._slices[number]
        ids = read["ids"][start : start + length]
        if not cf_length:
            return AlignedPair(ids, ids, np.arange(length, dtype=np.int32), int(self._cues[i]))
        cf_ids = read["cf_ids"][cf_start : cf_start + cf_length]
        return AlignedPair(ids, cf_ids, read["cf_index"][index_start : index_start + length], int(self._cues[i]))
