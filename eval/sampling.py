"""Sampling texts from a causal language model: top-p, cached keys and values, rows that end at different times.

`scorer` is an `eval.model.Scorer` everywhere. Shapes: B rows of a batch, T positions, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

# logits (B, V), the tokens (B,) drawn from them, and which of the sequences they go on; ended ones may come again
Watch = Callable[[torch.Tensor, torch.Tensor, list[int]], None]


def sampling(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those options of a task that `Scorer.sample` takes."""
    return {name: options[name] for name in ("bos", "top_p", "temperature", "max_new_tokens")}


def check_sampling(options: Mapping[str, Any], task: str) -> None:
    """ValueError for a sampling option out of its range."""
    if options["max_new_tokens"] < 1:
        raise ValueError(f"{task}.max_new_tokens {options['max_new_tokens']}: must be at least 1")
    if not 0 < options["top_p"] <= 1:
        raise ValueError(f"{task}.top_p {options['top_p']}: must be above 0 and at most 1")
    if not 0 < options["temperature"] < math.inf:
        raise ValueError(f"{task}.temperature {options['temperature']}: must be above 0 and finite")


def in_nucleus(probs_BV: torch.Tensor, token_B: torch.Tensor, top_p: float) -> torch.Tensor:
    """Whether each row's token belongs to its top-p nucleus: the tokens more probable than it hold less than top_p.

    The smallest set of most probable tokens that reaches top_p (Holtzman et al. 2020); equal tokens enter together.
    Needs no sort. Returns a boolean (B,).
    """
    prob_B1 = probs_BV.gather(1, token_B[:, None])
    above_B = torch.where(probs_BV > prob_B1, probs_BV, 0.0).sum(1)
    return (above_B < top_p) & (prob_B1[:, 0] > 0)


def sample_top_p(logits_BV: torch.Tensor, *, top_p: float, temperature: float, generator: torch.Generator):
    """Draw one token a row from the top-p nucleus of softmax(logits / temperature). Returns token ids (B,).

    Rejection: draw from the whole distribution, keep what lies in the nucleus, draw again for the other rows. That is
    exactly the nucleus distribution and, as a draw is kept with probability ≥ top_p, much cheaper than sorting.
    The uniforms come from a CPU generator, so the draws do not depend on the device's own generator.
    """
    probs_BV = torch.softmax(logits_BV.float() / temperature if temperature != 1 else logits_BV.float(), dim=-1)
    cumulative_BV = probs_BV.cumsum(1)
    token_B = torch.empty(len(probs_BV), dtype=torch.long, device=probs_BV.device)
    rows = torch.arange(len(probs_BV), device=probs_BV.device)
    while len(rows):
        uniform = torch.rand(len(rows), 1, generator=generator, dtype=torch.float64).to(cumulative_BV)
        drawn = torch.searchsorted(cumulative_BV, uniform * cumulative_BV[:, -1:], right=True)[:, 0]
        drawn = drawn.clamp_(max=probs_BV.shape[1] - 1)
        token_B[rows] = drawn
        # A token with more than 1 − top_p of the mass leaves less than top_p above it: no need to look.
        doubtful = (probs_BV.gather(1, drawn[:, None])[:, 0] <= 1 - top_p + 1e-6).nonzero()[:, 0]
        kept = in_nucleus(probs_BV[doubtful], drawn[doubtful], top_p)
        again = doubtful[~kept]
        rows, probs_BV, cumulative_BV = rows[again], probs_BV[again], cumulative_BV[again]
    return token_B


class _RoomyLayer(DynamicLayer):
    """Keys and values in one buffer: transformers' copies all of them each step, most of a small model's time."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self._capacity = capacity
        self._buffers: list[torch.Tensor] = []

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> tuple:
        begin = self.get_seq_length()
        end = begin + key_states.shape[-2]
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._buffers = [
                new.new_empty((*new.shape[:-2], self._capacity, new.shape[-1])) for new in (key_states, value_states)
            ]
        for buffer, new in zip(self._buffers, (key_states, value_states)):
            buffer[..., begin:end, :] = new
        self.keys, self.values = (buffer[..., :end, :] for buffer in self._buffers)
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        end = self.get_seq_length()
        self._buffers = [buffer[indices] for buffer in self._buffers]
        self.keys, self.values = (buffer[..., :end, :] for buffer in self._buffers)


class _Batch:
    """Sequences that grow together, padded on the left, with their own positions. Equal sequences are read once."""

    def __init__(self, scorer: Any, ids: Sequence[Sequence[int]], max_new_tokens: int) -> None:
        self.scorer, device = scorer, scorer.device
        first: dict[tuple[int, ...], int] = {}
        self.copies = torch.tensor([first.setdefault(tuple(row), len(first)) for row in ids], device=device)
        self.num_distinct, longest = len(first), max(len(row) for row in ids)
        padding = torch.tensor([longest - len(row) for row in first], device=device)
        self.tokens = torch.tensor([[0] * (longest - len(row)) + list(row) for row in first], device=device)
        self.mask = (torch.arange(longest, device=device) >= padding[:, None]).long()
        self.positions = (torch.arange(longest, device=device) - padding[:, None]).clamp_(min=0)
        self.rows = torch.arange(len(ids), device=device)  # which of `ids` each row continues
        self.ended = torch.zeros(len(ids), dtype=torch.bool, device=device)
        self.steps = torch.tensor([min(max_new_tokens, scorer.max_length - len(row)) for row in ids], device=device)
        self.cache = DynamicCache(config=scorer.model.config)
        capacity = longest + int(self.steps.max())
        self.cache.layers = [
            _RoomyLayer(capacity) if type(layer) is DynamicLayer else layer for layer in self.cache.layers
        ]

    def logits(self) -> torch.Tensor:
        """The logits (B, V) of the next token of each row."""
        accepts = self.scorer.accepts
        # Newer transformers calls it `cache`, and says that the older name goes with 5.40.
        extra: dict[str, Any] = {"cache" if "cache" in accepts else "past_key_values": self.cache}
        if "logits_to_keep" in accepts:
            extra["logits_to_keep"] = 1
        if "position_ids" in accepts:
            extra["position_ids"] = self.positions
        output = self.scorer.model(self.tokens, attention_mask=self.mask, use_cache=True, **extra)
        logits_BV = output.logits[:, -1]
        if self.num_distinct < len(self.copies):  # after the first step every row stands for itself
            logits_BV = logits_BV[self.copies]
            self.mask, self.positions = self.mask[self.copies], self.positions[self.copies]
            self.cache.batch_select_indices(self.copies)
            self.num_distinct = len(self.copies)
        return logits_BV

    def append(self, token_B: torch.Tensor) -> None:
        """Add a token to each row. Once an eighth of the rows have ended, they leave the batch."""
        # An ended row that stays may not run past the model's last position.
        self.positions = (self.positions[:, -1:] + 1).clamp_(max=self.scorer.max_length - 1)
        self.tokens = token_B[:, None]
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], 1)
        if 8 * int(self.ended.sum()) >= len(self.rows):  # seldom, since it copies the whole cache
            alive = (~self.ended).nonzero()[:, 0]
            for name in ("rows", "steps", "ended", "mask", "tokens", "positions"):
                setattr(self, name, getattr(self, name)[alive])
            self.cache.batch_select_indices(alive)


@torch.inference_mode()
def keeps_state(scorer: Any) -> bool:
    """Whether the model goes on from its cache as from the whole text: measured with three short texts.

    They are padded, two are equal, and one leaves the batch. Recurrent and hybrid models may keep a state that the
    cache does not hold, or that takes padding for text.
    """
    first = [[1, 2, 3, 4, 5, 6], [7, 8, 9], [7, 8, 9]]
    rows = [[token % scorer.vocab_size for token in row] for row in first]
    try:
        batch = _Batch(scorer, rows, 4)
        for step in range(3):
            found = torch.log_softmax(batch.logits().double().cpu(), -1)
            expected = torch.from_numpy(scorer.next_logprobs([rows[n] for n in batch.rows.tolist()])).double()
            half = scorer.model.dtype.itemsize < 4
            if not (found - expected).norm() <= (3e-2 if half else 1e-3) * expected.norm():
                return False
            token_B = torch.tensor([11 + step] * len(batch.rows), device=scorer.device) % scorer.vocab_size
            rows = [[*row, int(token_B[0])] for row in rows]
            batch.ended[:1] = step == 1
            batch.append(token_B)
    except Exception:  # no cache of that kind, or none that can be shortened
        return False
    return True


@torch.inference_mode()
def decode_steps(
    scorer: Any,
    ids: Sequence[Sequence[int]],
    choose: Callable[[torch.Tensor, list[int]], torch.Tensor],
    max_new_tokens: int,
) -> list[list[int]]:
    """Continue one batch of sequences token by token; a token of `scorer.ends` ends a row and is left out.

    `choose(logits_BV, rows)` gives the next token ids (B,) for those rows of `ids`; what it gives for an ended row
    is ignored.
    """
    if not scorer.keeps_state:
        return _decode_whole(scorer, ids, choose, max_new_tokens)
    batch = _Batch(scorer, ids, max_new_tokens)
    ends = torch.tensor(sorted(scorer.ends), dtype=torch.long, device=scorer.device)
    out: list[list[int]] = [[] for _ in ids]
    for step in range(1, max_new_tokens + 1):
        token_B = choose(batch.logits(), batch.rows.tolist())
        batch.ended |= torch.isin(token_B, ends)
        for number, token in zip(batch.rows[~batch.ended].tolist(), token_B[~batch.ended].tolist()):
            out[number].append(token)
        batch.ended |= batch.steps <= step
        if bool(batch.ended.all()):
            break
        batch.append(token_B)
    return out


def _decode_whole(
    scorer: Any,
    ids: Sequence[Sequence[int]],
    choose: Callable[[torch.Tensor, list[int]], torch.Tensor],
    max_new_tokens: int,
) -> list[list[int]]:
    """As `decode_steps`, for any model: the whole text is read again for each token."""
    progress, scorer.progress = scorer.progress, None
    out: list[list[int]] = [[] for _ in ids]
    alive = list(range(len(ids)))
    for _ in range(max_new_tokens):
        alive = [n for n in alive if len(ids[n]) + len(out[n]) < scorer.max_length]
        if not alive:
            break
        logp_BV = torch.from_numpy(scorer.next_logprobs([[*ids[n], *out[n]] for n in alive])).to(scorer.device)
        token_B = choose(logp_BV, alive).tolist()
        for n, token in zip(alive, token_B):
            out[n] += [token] * (token not in scorer.ends)
        alive = [n for n, token in zip(alive, token_B) if token not in scorer.ends]
    scorer.progress = progress
    return out


def sample_ids(
    scorer: Any,
    ids: Sequence[Sequence[int]],
    *,
    top_p: float = 0.9,
    temperature: float = 1.0,
    max_new_tokens: int = 100,
    seed: int = 0,
    batch_size: int | None = None,
    watch: Watch | None = None,
) -> list[list[int]]:
    """One sampled continuation for each sequence (repeat a sequence for more), without prompt and end token.

    Same arguments, same texts on the same machine; another batch size draws other texts from the same distribution.
    Each batch has draws of its own, so that processes may share batches. watch: sees what each token is drawn from.
    """
    if not 0 < top_p <= 1 or temperature <= 0 or max_new_tokens < 1:
        raise ValueError(
            f"top_p {top_p}, temperature {temperature}, max_new_tokens {max_new_tokens}: "
            "needs 0 < top_p ≤ 1, temperature > 0, max_new_tokens ≥ 1"
        )
    for row in ids:
        if not 1 <= len(row) < scorer.max_length:
            raise ValueError(f"a prompt of {len(row)} tokens: sampling needs 1 to {scorer.max_length - 1}")
    generator, batch = torch.Generator(), list[int]()  # batch: of the loop below, for `watch`

    def choose(logits_BV: torch.Tensor, rows: list[int]) -> torch.Tensor:
        token_B = sample_top_p(logits_BV, top_p=top_p, temperature=temperature, generator=generator)
        if watch is not None:
            watch(logits_BV, token_B, [batch[row] for row in rows])
        return token_B

    out: list[list[int]] = [[] for _ in ids]
    lengths = [min(len(row) + max_new_tokens, scorer.max_length) for row in ids]
    for batch in scorer.sampling_batches(lengths, batch_size):
        generator.manual_seed(seed + 1_000_003 * batch[0])
        for number, new in zip(batch, decode_steps(scorer, [ids[i] for i in batch], choose, max_new_tokens)):
            out[number] = new
    return out
