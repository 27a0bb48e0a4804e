"""Model inversion: a secret is read out of the weights by gradient descent on the input (ModIvA, Parikh et al. 2022).

A canary is a known prefix and a secret of n symbols. Each symbol is a block of k tokens; instead of one block the model
reads a mixture of all of them, softmax(z) · embeddings, and z is moved until the model's own loss is least. The same
models are searched without gradients too: all codes, greedily, by beam.
Shapes: R restarts or rows, n places, A symbols, k tokens of a symbol, L and E tokens before and after, D width.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

Code = tuple[int, ...]  # n numbers of symbols
Loss = Callable[[torch.Tensor], torch.Tensor]  # mixtures (R, n, A), each place's sum 1 → nats (R,)


@dataclass(frozen=True)
class Layout:
    """Where a secret's tokens stand in a text: `left` tokens, n blocks of k (one row of `symbols` each), `right`."""

    left: tuple[int, ...]
    right: tuple[int, ...]
    symbols: np.ndarray  # (A, k)

    def ids(self, code: Sequence[int], *, whole: bool = True) -> list[int]:
        """The tokens of the text with this code; whole: with what stands after it."""
        return [*self.left, *self.symbols[list(code)].ravel().tolist(), *(self.right if whole else ())]


def layout(encode: Callable[[str], Sequence[int]], prefix: str, alphabet: Sequence[str], length: int) -> Layout:
    """The layout of prefix + " " + symbols with spaces between, as this tokenizer cuts it.

    ValueError where symbols are not blocks of tokens of one size that do not depend on what stands around them.
    """
    rows = [list(encode(f"{prefix} {' '.join([symbol] * length)}")) for symbol in alphabet]
    first, other = rows[0], rows[1]
    left = next((i for i, pair in enumerate(zip(first, other)) if pair[0] != pair[1]), 0)
    right = next((i for i, pair in enumerate(zip(first[::-1], other[::-1])) if pair[0] != pair[1]), 0)
    for begin in range(left, max(left - 4, -1), -1):  # a block may begin with tokens that all symbols share
        inner = [row[begin : len(row) - right] for row in rows]
        k, rest = divmod(len(inner[0]), length)
        blocks = [row[:k] for row in inner]
        if k and not rest and all(row == block * length for row, block in zip(inner, blocks)):
            found = Layout(tuple(first[:begin]), tuple(first[len(first) - right :]), np.array(blocks))
            mixed = [i % len(alphabet) for i in range(length)]
            if found.ids(mixed) == list(encode(f"{prefix} {' '.join(alphabet[i] for i in mixed)}")):
                return found
    raise ValueError(
        f"{prefix!r}: the tokenizer does not cut the symbols {' '.join(alphabet[:10])} into blocks of one size; "
        "choose another alphabet"
    )


def one_hot(codes: Sequence[Code], num_symbols: int) -> torch.Tensor:
    """Codes as mixtures (R, n, A) of one symbol each."""
    return torch.nn.functional.one_hot(torch.tensor(codes), num_symbols).float()


# ---------------------------------------------------------------- what is minimised


def _embedded(embedding: Any, where: Layout, mixture_RnA: torch.Tensor) -> torch.Tensor:
    """Embeddings (R, L + n·k + E, D) of the text with a mixture of symbols at each place."""
    weight_VD = embedding.weight
    blocks_AkD = weight_VD[torch.tensor(where.symbols, device=weight_VD.device)]
    mixed_RnkD = torch.einsum("rna,akd->rnkd", mixture_RnA.to(weight_VD), blocks_AkD)
    mixed_RTD = mixed_RnkD.flatten(1, 2)
    ends = [
        weight_VD[torch.tensor(side, dtype=torch.long)].expand(len(mixed_RTD), -1, -1)
        for side in (where.left, where.right)
    ]
    return torch.cat([ends[0], mixed_RTD, ends[1]], 1)


def language_model_loss(model: Any, where: Layout) -> Loss:
    """−Σ_t softmax(z_t) · log p_t: how unlikely the mixture of symbols is to a causal language model that reads it."""
    symbols_Ak = torch.tensor(where.symbols, device=model.device)

    def loss(mixture_RnA: torch.Tensor) -> torch.Tensor:
        embedded_RTD = _embedded(model.get_input_embeddings(), where, mixture_RnA)
        length, k = mixture_RnA.shape[1], symbols_Ak.shape[1]
        begin = len(where.left) - 1
        logits_RTV = model(inputs_embeds=embedded_RTD, use_cache=False).logits[:, begin : begin + length * k].float()
        logp_RnkV = logits_RTV.log_softmax(-1).unflatten(1, (length, k))
        logp_RnA = torch.stack([logp_RnkV[:, :, j][..., symbols_Ak[:, j]] for j in range(k)]).sum(0)
        return -(mixture_RnA.to(logp_RnA) * logp_RnA).sum((1, 2))

    if not where.left:
        raise ValueError("a language model needs a token before the secret: a prefix, or a begin-of-text token")
    return loss


def label_loss(logits: Callable[[torch.Tensor], torch.Tensor], embedding: Any, where: Layout, label: int) -> Loss:
    """Cross-entropy to the canary's label of a classifier; logits: embeddings (R, T, D) without padding → (R, K)."""

    def loss(mixture_RnA: torch.Tensor) -> torch.Tensor:
        return -logits(_embedded(embedding, where, mixture_RnA)).float().log_softmax(-1)[:, label]

    return loss


# ---------------------------------------------------------------- searches


def invert(
    loss: Loss,
    *,
    length: int,
    num_symbols: int,
    restarts: int = 32,
    steps: int = 1000,
    lr: float = 0.1,
    patience: int = 30,
    temperature: float = 0.1,
    seed: int = 0,
) -> tuple[Code, float]:
    """The code that gradient descent finds, and its loss in nats: the best of `restarts`, all in one batch.

    Adam on z, mixtures softmax(z / temperature), from z of standard deviation 0.1: at the default temperature a start
    leans to some symbols already. From even mixtures all restarts go one way. Stops once no restart's most likely code
    has changed for `patience` steps.
    """
    generator = torch.Generator().manual_seed(seed)
    z_RnA = torch.randn(restarts, length, num_symbols, generator=generator).mul_(0.1).requires_grad_()
    optimizer = torch.optim.Adam([z_RnA], lr=lr)
    best_Rn, unchanged = z_RnA.argmax(-1), 0
    for _ in range(steps):
        optimizer.zero_grad()
        value = loss((z_RnA / temperature).softmax(-1)).sum()
        (z_RnA.grad,) = torch.autograd.grad(value, [z_RnA])
        optimizer.step()
        found_Rn = z_RnA.detach().argmax(-1)
        unchanged = unchanged + 1 if torch.equal(found_Rn, best_Rn) else 0
        best_Rn = found_Rn
        if unchanged >= patience:
            break
    codes = sorted({tuple(code) for code in best_Rn.tolist()})
    losses = discrete_losses(loss, codes, num_symbols)
    return codes[int(losses.argmin())], float(losses.min())


@torch.no_grad()
def discrete_losses(loss: Loss, codes: Sequence[Code], num_symbols: int, *, batch: int = 512) -> np.ndarray:
    """The loss of each code (N,), all of one length."""
    parts = [codes[i : i + batch] for i in range(0, len(codes), batch)]
    return np.concatenate([loss(one_hot(part, num_symbols)).double().cpu().numpy() for part in parts])


def every_code(length: int, num_symbols: int) -> list[Code]:
    return list(itertools.product(range(num_symbols), repeat=length))


def beam(loss_of: Callable[[list[Code]], Any], *, length: int, num_symbols: int, width: int) -> Code:
    """The code found from left to right, keeping the `width` best beginnings of each length; width 1 is greedy.

    loss_of: codes of one length, at most `length` → losses (N,).
    """
    kept: list[Code] = [()]
    for _ in range(length):
        grown = [(*code, symbol) for code in kept for symbol in range(num_symbols)]
        kept = [grown[i] for i in np.argsort(np.asarray(loss_of(grown)), kind="stable")[:width]]
    return kept[0]
