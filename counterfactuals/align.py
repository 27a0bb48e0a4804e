"""Token t of a text ↔ token s of its counterfactual.

Only the replaced words are tokenised anew: their ids are spliced between those of the original, so alignment is known
by construction and not guessed by comparing. `cf_index[t] = s`, −1 where token t has no counterpart.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from counterfactuals.reverse import Reversal


@dataclass(frozen=True)
class AlignedPair:
    """Token ids of a text and of its counterfactual.

    input_ids: (T,) int32. cf_input_ids: (S,) int32, equal to input_ids where nothing was replaced.
    cf_index: (T,) int32, the position s that corresponds to t, strictly increasing where not −1.
    A replaced word of as many tokens on both sides is aligned token by token; else only its first token is (what comes
    before it corresponds, so the two predictions of the word's beginning do), and the tokens inside it are −1.
    cue: token from which on a cue of the role stands unreversed, −1 if there is none.
    """

    input_ids: np.ndarray
    cf_input_ids: np.ndarray
    cf_index: np.ndarray
    cue: int = -1

    @property
    def reversed(self) -> bool:
        return len(self.input_ids) != len(self.cf_input_ids) or bool((self.input_ids != self.cf_input_ids).any())


class Splicer:
    """Tokenises reversals with a fast tokenizer that encodes pre-tokens independently (byte-level BPE, WordPiece).

    The ids of a replaced word then depend on its own pre-tokens alone: each distinct replacement is encoded once.
    """

    def __init__(self, tokenizer: Any):
        if not getattr(tokenizer, "is_fast", False):
            raise ValueError("tokenizer: alignment needs a fast tokenizer (tokenizer.json); this one is slow")
        self.backend = tokenizer.backend_tokenizer
        self.bos, self.eos = tokenizer.bos_token_id, tokenizer.eos_token_id
        probe = self.backend.encode("She saw him there", add_special_tokens=False)
        if len(set(probe.word_ids)) < 4:
            raise ValueError(
                "tokenizer: alignment needs one that splits text into words first (a pre_tokenizer); this one does not"
            )
        self._memory: dict[str, list[int]] = {}

    def pairs(self, reversals: list[Reversal]) -> list[AlignedPair]:
        """Aligned tokens of each reversal; a begin and an end token are added where the tokenizer has them."""
        encodings = self.backend.encode_batch([r.text for r in reversals], add_special_tokens=False)
        return [self._pair(r, encoding) for r, encoding in zip(reversals, encodings)]

    def _encode(self, text: str) -> list[int]:
        ids = self._memory.get(text)
        if ids is None:
            ids = self.backend.encode(text, add_special_tokens=False).ids
            if len(self._memory) < 100_000:
                self._memory[text] = ids
        return ids

    def _pair(self, reversal: Reversal, encoding: Any) -> AlignedPair:
        bos = [] if self.bos is None else [self.bos]
        eos = [] if self.eos is None else [self.eos]
        ids = encoding.ids
        cue = -1
        if reversal.spans or reversal.cue is not None:
            offsets = encoding.offsets
        if reversal.cue is not None:
            cue = next((t for t, (_, end) in enumerate(offsets) if end > reversal.cue), len(ids)) + len(bos)
        if not reversal.spans:
            full = np.array(bos + ids + eos, dtype=np.int32)
            return AlignedPair(full, full, np.arange(len(full), dtype=np.int32), cue)

        cf_ids = list(bos)
        index = list(range(len(bos)))
        done = 0  # tokens of the original dealt with
        shift = 0  # how much further on a character outside a span stands in the counterfactual
        for first, last, start, end, cf_end in _regions(reversal, offsets, encoding.word_ids):
            index += range(len(cf_ids), len(cf_ids) + first - done)
            cf_ids += ids[done:first]
            new = self._encode(reversal.reversed[start + shift : cf_end])
            count = last - first
            if len(new) == count:
                index += range(len(cf_ids), len(cf_ids) + count)
            elif new:
                index += [len(cf_ids)] + [-1] * (count - 1)
            else:
                index += [-1] * count
            cf_ids += new
            done, shift = last, cf_end - end
        index += range(len(cf_ids), len(cf_ids) + len(ids) - done + len(eos))
        cf_ids += ids[done:] + eos
        return AlignedPair(
            np.array(bos + ids + eos, dtype=np.int32),
            np.array(cf_ids, dtype=np.int32),
            np.array(index, dtype=np.int32),
            cue,
        )


def _regions(
    reversal: Reversal, offsets: list[tuple[int, int]], words: list[int | None]
) -> Iterator[tuple[int, int, int, int, int]]:
    """Runs of whole pre-tokens that hold replaced words.

    Yields (first token, last token + 1, first character, last character + 1, that end in the counterfactual). The blank
    before a word belongs to it, whether or not the tokenizer's offsets include it.
    """
    t = 0
    spans = list(reversal.spans)
    while spans:
        span = spans.pop(0)
        while t < len(offsets) and offsets[t][1] <= span.start:
            t += 1
        first = t
        while first > 0 and words[first - 1] is not None and words[first - 1] == words[first]:
            first -= 1
        last = t + 1
        while last < len(offsets) and (offsets[last][0] < span.end or words[last] == words[last - 1] is not None):
            last += 1
        while spans and spans[0].start < offsets[last - 1][1]:
            span = spans.pop(0)
            while last < len(offsets) and (offsets[last][0] < span.end or words[last] == words[last - 1] is not None):
                last += 1
        start = offsets[first - 1][1] if first else 0
        end = offsets[last - 1][1]
        yield first, last, start, end, end + span.cf_end - span.end
        t = last


def cut(pair: AlignedPair, max_length: int) -> Iterator[AlignedPair]:
    """Cut a pair into pieces of at most max_length tokens on both sides, never inside a word of unequal token counts.

    Raises ValueError when a single replaced word is longer than max_length.
    """
    total, begin, cf_begin = len(pair.input_ids), 0, 0
    if total <= max_length and len(pair.cf_input_ids) <= max_length:
        if total > 1:
            yield pair
        return
    while begin < total:
        stop = min(begin + max_length, total)
        while stop > begin:
            cf_stop = len(pair.cf_input_ids) if stop == total else int(pair.cf_index[stop])
            if cf_stop >= 0 and cf_stop - cf_begin <= max_length:
                break
            stop -= 1
        if stop == begin:
            raise ValueError(
                f"data.max_length: {max_length} tokens do not hold one replaced word of this text; raise it"
            )
        index = pair.cf_index[begin:stop]
        cue = -1 if pair.cue < 0 or pair.cue >= stop else max(pair.cue - begin, 0)
        if stop - begin > 1:
            yield AlignedPair(
                pair.input_ids[begin:stop],
                pair.cf_input_ids[cf_begin:cf_stop],
                np.where(index < 0, -1, index - cf_begin).astype(np.int32),
                cue,
            )
        begin, cf_begin = stop, cf_stop
