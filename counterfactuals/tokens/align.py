"""Token t of a text ↔ token s of its counterfactual.

A text is tokenised in pieces that cannot influence each other, each distinct piece once. Only the pieces that hold a
replaced word differ between the two sides, so everything else is aligned by construction; inside them tokens are
aligned by their character offsets. `cf_index[t] = s`, −1 where token t has no counterpart.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, filterfalse, pairwise
from typing import Any

import numpy as np

from counterfactuals.text.reverse import Passage, Reversal, Span

MEMORY, LONGEST = 300_000, 48  # distinct pieces whose ids are kept (about 70 MB), and their characters at most
_BETWEEN = re.compile(r" (?<=\S )(?=\S)")  # one blank between two words: the second piece begins with it
_STARTS = re.compile(r" \S")
_PROBE = (
    "He'd  said: “She's 42!”\n\nMr. O’Neil's \t(ex-)wife—über-naïve ☃ 日本 of\u00a0 his\u200d.\n Her e-mail, 1,234.5 "
)


@dataclass(frozen=True)
class AlignedPair:
    """Token ids of a sequence and of its counterfactual; T and S tokens.

    input_ids: (T,) int32. cf_input_ids: (S,) int32, equal to input_ids where nothing was replaced.
    cf_index: (T,) int32, the position s that corresponds to t, strictly increasing where not −1.
    A replaced word of as many tokens on both sides is aligned token by token; else only its first token is (what comes
    before it corresponds, so the two predictions of the word's beginning do), and the tokens inside it are −1.
    cue: the first token that carries a role and stays, −1 if there is none. turn: as in Reversal.
    doubt: the probability that the reversal of this sequence is wrong, 0 without a role.
    """

    input_ids: np.ndarray
    cf_input_ids: np.ndarray
    cf_index: np.ndarray
    cue: int = -1
    turn: int = 0
    doubt: float = 0.0

    @property
    def reversed(self) -> bool:
        return len(self.input_ids) != len(self.cf_input_ids) or bool((self.input_ids != self.cf_input_ids).any())

    @property
    def first_replaced(self) -> int:
        """The first token that differs from its counterpart."""
        both = min(len(self.input_ids), len(self.cf_input_ids))
        differs = np.flatnonzero(self.input_ids[:both] != self.cf_input_ids[:both])
        return int(differs[0]) if len(differs) else min(both, len(self.input_ids) - 1)

    def exchanged(self) -> AlignedPair:
        """The same pair with its two sides exchanged: the counterfactual is the text."""
        index = np.full(len(self.cf_input_ids), -1, dtype=np.int32)
        aligned = np.flatnonzero(self.cf_index >= 0)
        index[self.cf_index[aligned]] = aligned
        cue = -1 if self.cue < 0 else max(int(self.cf_index[: self.cue + 1].max()), 0)
        # collate counts turns from 1, and negative ones against the cyclic order
        return AlignedPair(self.cf_input_ids, self.input_ids, index, cue, -self.turn - 2, self.doubt)

    def within(self, max_doubt: float | None) -> AlignedPair:
        """This pair, or, with more doubt than that, the sequence without its counterfactual.

        It is then as if it had been left: its cue is the first token that was replaced, or that stayed.
        """
        if max_doubt is None or self.doubt <= np.float32(max_doubt) or not self.reversed:
            return self
        cue = self.first_replaced if self.cue < 0 else min(self.first_replaced, self.cue)
        return _alone(self.input_ids, cue, self.doubt)


def _alone(ids: np.ndarray, cue: int = -1, doubt: float = 0.0) -> AlignedPair:
    return AlignedPair(ids, ids, np.arange(len(ids), dtype=np.int32), cue, 0, doubt)


@dataclass(frozen=True)
class AlignedText:
    """pair: of a whole text. passages: those with a role, their places in tokens. stays: tokens of what stays."""

    pair: AlignedPair
    passages: tuple[Passage, ...] = ()
    stays: tuple[int, ...] = ()

    def part(self, begin: int, stop: int) -> AlignedPair:
        """Tokens [begin, stop) and their counterparts, with the cue and the doubt of what stands in them."""
        pair = self.pair
        cf_begin, cf_stop = _counterpart(pair, begin), _counterpart(pair, stop)
        index = pair.cf_index[begin:stop]
        n = bisect_left(self.stays, begin)
        cue = self.stays[n] - begin if n < len(self.stays) and self.stays[n] < stop else -1
        first = bisect_right(self.passages, begin, key=lambda passage: passage.end)
        last = bisect_left(self.passages, stop, key=lambda passage: passage.start)
        return AlignedPair(
            pair.input_ids[begin:stop],
            pair.cf_input_ids[cf_begin:cf_stop],
            np.where(index < 0, -1, index - cf_begin).astype(np.int32),
            cue,
            pair.turn,
            _doubt(self.passages[first:last]),
        )


def _counterpart(pair: AlignedPair, place: int) -> int:
    """Position of the counterfactual that token `place` corresponds to, −1 for none; the end, to the end."""
    return len(pair.cf_input_ids) if place == len(pair.input_ids) else int(pair.cf_index[place])


def _doubt(passages: Iterable[Passage]) -> float:
    return float(np.float32(1 - math.prod(1 - passage.doubt for passage in passages)))  # as it is stored


class Splicer:
    """Tokenises reversals; the ids are those of the tokenizer's own `encode` on both sides, for any fast tokenizer.

    by_word: the tokenizer never joins what stands before a blank with what follows (GPT-2's, Llama's, BERT's, T5's), so
    that a text can be tokenised word by word. Else a text is one piece and both sides are tokenised whole: slower.
    """

    def __init__(self, tokenizer: Any):
        if not getattr(tokenizer, "is_fast", False):
            raise ValueError("tokenizer: alignment needs a fast tokenizer (tokenizer.json); this one is slow")
        self._backend = type(tokenizer.backend_tokenizer).from_str(tokenizer.backend_tokenizer.to_str())  # our own
        self._backend.no_padding()
        self._backend.no_truncation()
        self._bos, self._eos = (
            np.array([] if i is None else [i], dtype=np.int32).tobytes()
            for i in (tokenizer.bos_token_id, tokenizer.eos_token_id)
        )
        self._start_every = getattr(tokenizer, "start_every", False)
        self._ids: dict[str, bytes] = {}  # of a piece, int32
        self._ends: dict[str, list[int]] = {}  # of a piece's tokens, in characters
        self._replaced: dict[tuple, _Region] = {}
        self.by_word = _splits_at_blanks(self._backend)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_ids": {}, "_ends": {}, "_replaced": {}}

    def sequences(self, reversals: Sequence[Reversal], max_length: int) -> list[list[AlignedPair]]:
        """The sequences of each reversal: see `cut`. The first begins with the start token; all do by `start_every`."""
        texts = self.texts(reversals)
        if not self._start_every:
            return [list(cut(text, max_length)) for text in texts]
        cuts = (cut(text, max_length - len(self._bos) // 4) for text in texts)
        return [[self._begun(pair) if n else pair for n, pair in enumerate(parts)] for parts in cuts]

    def _begun(self, pair: AlignedPair) -> AlignedPair:
        """The pair with a start token before both sides."""
        bos = np.frombuffer(self._bos, dtype=np.int32)
        shift, index = len(bos), pair.cf_index
        ids, cf_ids = (np.concatenate([bos, side]) for side in (pair.input_ids, pair.cf_input_ids))
        index = np.concatenate(
            [np.arange(shift, dtype=np.int32), np.where(index < 0, -1, index + shift).astype(np.int32)]
        )
        return AlignedPair(ids, cf_ids, index, pair.cue + shift * (pair.cue >= 0), pair.turn, pair.doubt)

    def pairs(self, reversals: Sequence[Reversal]) -> list[AlignedPair]:
        """Each reversal as one pair."""
        return [text.pair for text in self.texts(reversals)]

    def texts(self, reversals: Sequence[Reversal]) -> list[AlignedText]:
        """Aligned tokens of each reversal; a begin and an end token are added where the tokenizer has them."""
        pieces = [self._pieces(reversal.text) for reversal in reversals]
        missing = self._learn(chain.from_iterable(pieces))
        texts = [self._text(reversal, own) for reversal, own in zip(reversals, pieces)]
        self._forget(missing)
        return texts

    def _pieces(self, text: str) -> list[str]:
        if not self.by_word:
            return [text]
        first, *words = _BETWEEN.split(text)
        return [first, *[" " + word for word in words]]

    def _learn(self, pieces: Iterable[str]) -> list[str]:
        """Tokenise the pieces that are not known yet, and return them."""
        missing = list(set(filterfalse(self._ids.__contains__, pieces)))
        encoding = self._backend.encode(missing, is_pretokenized=True, add_special_tokens=False)
        ids = np.array(encoding.ids, dtype=np.int32).tobytes()
        ends = (4 * np.searchsorted(encoding.word_ids, range(len(missing) + 1))).tolist()  # word_ids: number of piece
        self._ids.update((piece, ids[a:b]) for piece, a, b in zip(missing, ends, ends[1:]))
        return missing

    def _forget(self, missing: list[str]) -> None:
        full = len(self._ids) > MEMORY
        for piece in missing:
            if full or len(piece) > LONGEST:
                del self._ids[piece]

    def _text(self, reversal: Reversal, pieces: list[str]) -> AlignedText:
        encoded = list(map(self._ids.__getitem__, pieces))
        ids = np.frombuffer(b"".join([self._bos, *encoded, self._eos]), dtype=np.int32)
        roles = [passage for passage in reversal.passages if passage.doubt or passage.reversed]
        if not roles and not reversal.spans and not reversal.stays:
            return AlignedText(_alone(ids))
        chars = list(accumulate(map(len, pieces), initial=0))  # where piece n begins in the text …
        tokens = list(accumulate(map(len, encoded), initial=len(self._bos)))  # … and, times 4, in ids
        spliced = self._spliced(reversal, ids, chars, tokens)
        if spliced is None:
            missing = self._learn([reversal.text])
            text = self._text(reversal, [reversal.text])
            self._forget(missing)
            return text

        ends: dict[int, list[int]] = {}

        def token_at(place: int) -> int:
            """The first token that ends after this character; the begin and the end token are the text's."""
            if place in (0, len(reversal.text)):
                return len(ids) if place else 0
            n = bisect_right(chars, place) - 1
            if place == chars[n]:
                return tokens[n] // 4
            if n not in ends:
                ends[n] = self._ends_of(pieces[n])
            return tokens[n] // 4 + bisect_right(ends[n], place - chars[n])

        at = {place: token_at(place) for passage in roles for place in (passage.start, passage.end)}
        passages = tuple(passage._replace(start=at[passage.start], end=at[passage.end]) for passage in roles)
        stays = tuple(token_at(place) or len(self._bos) // 4 for place in reversal.stays)
        cue = stays[0] if stays else -1
        return AlignedText(AlignedPair(ids, *spliced, cue, reversal.turn, _doubt(passages)), passages, stays)

    def _ends_of(self, piece: str) -> list[int]:
        """Where the tokens of a piece end, in characters."""
        ends = self._ends.get(piece)
        if ends is None:
            ends = [end for _, end in self._backend.encode(piece, add_special_tokens=False).offsets]
            if len(self._ends) < MEMORY and len(piece) <= LONGEST:
                self._ends[piece] = ends
        return ends

    def _spliced(
        self, reversal: Reversal, ids: np.ndarray, chars: list[int], tokens: list[int]
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """cf_input_ids and cf_index; None where what was replaced takes a blank between two pieces, or brings one."""
        cf_ids: list[np.ndarray] = []
        index: list[np.ndarray] = []
        done = shift = 0  # tokens of ids that are in cf_ids; how much further on the next one stands there
        indexed = 0  # tokens that are in index
        for first, last, spans in _regions(reversal.spans, chars):
            start, end = chars[first], chars[last]
            cf_start = start + spans[0].cf_start - spans[0].start
            cf_text = reversal.reversed[cf_start : end + spans[-1].cf_end - spans[-1].end]
            if (first and not _STARTS.match(cf_text)) or (last < len(chars) - 1 and not cf_text[-1:].strip()):
                return None
            region = self._region(reversal.text[start:end], cf_text, start, cf_start, spans)
            begin, stop = tokens[first] // 4, tokens[last] // 4
            cf_ids += (ids[done:begin], region.ids)
            if region.index is not None:
                index.append(np.arange(indexed + shift, begin + shift, dtype=np.int32))
                index.append(np.where(region.index < 0, -1, region.index + (begin + shift)))
                indexed = stop
            done, shift = stop, shift + len(region.ids) - (stop - begin)
        index.append(np.arange(indexed + shift, len(ids) + shift, dtype=np.int32))
        return np.concatenate([*cf_ids, ids[done:]]), np.concatenate(index)

    def _region(self, text: str, cf_text: str, start: int, cf_start: int, spans: Sequence[Span]) -> _Region:
        key: tuple
        if len(spans) == 1:
            key = (text, cf_text, spans[0].start - start, spans[0].end - start)
        else:
            key = (text, cf_text, *((s.start - start, s.end - start, s.cf_start - cf_start) for s in spans))
        region = self._replaced.get(key)
        if region is None:
            places = [(s.start - start, s.end - start, s.cf_start - cf_start, s.cf_end - cf_start) for s in spans]
            old = self._backend.encode(text, add_special_tokens=False)
            new = self._backend.encode(cf_text, add_special_tokens=False)
            index = _aligned(old, new, places)
            straight = np.array_equal(index, np.arange(len(new.ids)))
            region = _Region(np.array(new.ids, dtype=np.int32), None if straight else index)
            if len(self._replaced) < MEMORY and len(text) <= 2 * LONGEST:
                self._replaced[key] = region
        return region


@dataclass(frozen=True, slots=True)
class _Region:
    ids: np.ndarray  # of the counterfactual
    index: np.ndarray | None  # cf_index, both sides counted from the region's first token; None for 0, 1, 2, …


def _splits_at_blanks(backend: Any) -> bool:
    """Whether a text's ids are those of its pieces: no entry of the vocabulary crosses a blank, and a probe agrees."""
    for token, i in backend.get_vocab(with_added_tokens=True).items():
        if _CROSSES.search(token.translate(_BLANKS)) and _CROSSES.search(
            backend.decode([i], skip_special_tokens=False)
        ):
            return False
    if any(token.rstrip for token in backend.get_added_tokens_decoder().values()):
        return False
    first, *words = _BETWEEN.split(_PROBE)
    pieces = [first, *[" " + word for word in words]]
    options = {"add_special_tokens": False}
    return backend.encode(_PROBE, **options).ids == backend.encode(pieces, is_pretokenized=True, **options).ids


_BLANKS = str.maketrans("▁ĠĊčĉ", " \u0020\n\r\t")  # how Metaspace and byte-level vocabularies write them
_CROSSES = re.compile(r"\S \S|\S $")


def _regions(spans: Sequence[Span], starts: Sequence[int]) -> Iterator[tuple[int, int, Sequence[Span]]]:
    """Runs of pieces that hold replaced words: first piece, last piece + 1, their spans."""
    i = 0
    while i < len(spans):
        begin, first = i, bisect_right(starts, spans[i].start) - 1
        last = first + 1
        while i < len(spans) and spans[i].start < starts[last]:
            while starts[last] < spans[i].end:
                last += 1
            i += 1
        yield first, last, spans[begin:i]


def _aligned(old: Any, new: Any, spans: Sequence[tuple[int, int, int, int]]) -> np.ndarray:
    """cf_index of two encodings. spans: (start, end, cf_start, cf_end), characters from where both begin."""
    kept = _outside(old, [span[:2] for span in spans], [span[3] - span[1] for span in spans])
    cf_kept = _outside(new, [span[2:] for span in spans], [0] * len(spans))
    index = np.full(len(old.ids), -1, dtype=np.int32)
    same = []
    i = j = 0
    while i < len(kept) and j < len(cf_kept):
        (t, *token), (s, *cf_token) = kept[i], cf_kept[j]
        if token == cf_token:
            same.append((t, s))
        i, j = i + (token[1] <= cf_token[1]), j + (cf_token[1] <= token[1])
    t = s = 0
    for next_t, next_s in [*same, (len(old.ids), len(new.ids))]:
        if next_t - t == next_s - s:
            index[t:next_t] = np.arange(s, next_s)
        elif t < next_t and s < next_s:
            index[t] = s
        if next_t < len(index):
            index[next_t] = next_s
        t, s = next_t + 1, next_s + 1
    return index


def _outside(encoding: Any, spans: list[tuple[int, int]], shifts: list[int]) -> list[tuple[int, int, int, int]]:
    """Tokens that touch no span: (position, start, end, id), in the characters of the counterfactual."""
    kept, n, shift = [], 0, 0
    for t, ((start, end), token) in enumerate(zip(encoding.offsets, encoding.ids)):
        while n < len(spans) and spans[n][1] <= start:
            shift, n = shifts[n], n + 1
        if n == len(spans) or end <= spans[n][0]:
            kept.append((t, start + shift, end + shift, token))
    return kept


def cut(text: AlignedText, max_length: int) -> Iterator[AlignedPair]:
    """Cut a text where the decision on its passages changes, then into sequences of at most max_length tokens.

    So each sequence was reversed, or left, as a whole. One that was left has no counterfactual, whatever became of the
    rest of its text, and its cue is the first role in it. Passages without a role go with those before them, the first
    ones with those after. Both sides keep to max_length, and no word of unequal token counts is cut. Sequences of
    fewer than two tokens predict nothing and are left out.
    Raises ValueError when a single replaced word is longer than max_length.
    """
    pair, begin = text.pair, 0
    changes = [b.start for a, b in pairwise(text.passages) if a.reversed != b.reversed]
    for end in [*(place for place in changes if pair.cf_index[place] >= 0), len(pair.input_ids)]:
        while begin < end:
            stop = _stop(pair, begin, end, max_length)
            if stop - begin > 1:
                yield text.part(begin, stop)
            begin = stop


def _stop(pair: AlignedPair, begin: int, end: int, max_length: int) -> int:
    """The last place up to `end` where a sequence from `begin` may end."""
    cf_begin = _counterpart(pair, begin)
    for stop in range(min(begin + max_length, end), begin, -1):
        cf_stop = _counterpart(pair, stop)
        if cf_stop >= 0 and cf_stop - cf_begin <= max_length:
            return stop
    raise ValueError(f"data.max_length: {max_length} tokens do not hold one replaced word of this text; raise it")
