"""lexicon × tokenizer → the tokens that carry a role, for carrying a prediction through the role reversal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from counterfactuals.reverse import Reverser


@dataclass(frozen=True)
class RoleTokens:
    """The role-carrying tokens of a vocabulary (L tokens in S sets; a set holds one group's tokens of one component).

    Variants of case and leading blank are components of their own, so each maps to its like.
    token_L, set_L: token id and its set. partner_S: the set that set s is exchanged with (an involution).
    bare_L: the token has no leading blank, so after a letter it continues a word ("per|son") and carries no role.
    in_word_V: (V,) the token ends in a letter or digit, so that a bare token after it continues a word.
    """

    token_L: np.ndarray
    set_L: np.ndarray
    partner_S: np.ndarray
    bare_L: np.ndarray
    in_word_V: np.ndarray


def role_tokens(reverser: Reverser, tokenizer: Any, vocab_size: int | None = None) -> RoleTokens:
    """Tokens of `tokenizer` that are exactly one of the words reversed, in lower case, Capitalised or ALL CAPS.

    Names (unless kept) only with their capital. Words of several tokens are left alone, and so is a component of which
    one side has no token at all.
    vocab_size: rows of the model's embedding, where it is padded beyond the tokenizer's. Two groups only.
    """
    lexicon = reverser.lexicon
    if len(lexicon.groups) != 2:
        raise ValueError(
            f"loss.vocabulary: reversed takes a lexicon of two groups; {lexicon.name} has {len(lexicon.groups)}"
        )
    tokens: list[int] = []
    sets: list[int] = []
    partners: list[int] = []
    bare: list[bool] = []
    seen: set[int] = set()
    for component in reverser.components():
        cases = (str.lower, str.capitalize, str.upper) if component[0][0].islower() else (str, str.upper)
        for case in cases:
            for blank in (" ", ""):
                sides = []
                for words in component:
                    ids = {_single(tokenizer, blank + case(word)) for word in words if word.isalpha()}
                    sides.append(sorted(i for i in ids if i is not None and i not in seen))
                if not all(sides):
                    continue
                number = len(partners)
                partners += [number + 1, number]
                for side, found in enumerate(sides):
                    tokens += found
                    sets += [number + side] * len(found)
                    bare += [not blank] * len(found)
                    seen.update(found)
    if not tokens:
        raise ValueError(
            f"loss.vocabulary: no word of lexicon {lexicon.name} is a single token of this tokenizer; use plain"
        )
    size = max(vocab_size or 0, len(tokenizer))
    ends = [tokenizer.decode([i]) for i in range(len(tokenizer))]
    in_word = np.zeros(size, dtype=bool)
    in_word[: len(ends)] = [text[-1:].isalnum() for text in ends]
    return RoleTokens(np.array(tokens), np.array(sets), np.array(partners), np.array(bare), in_word)


def _single(tokenizer: Any, text: str) -> int | None:
    ids = tokenizer.encode(text, add_special_tokens=False)
    return ids[0] if len(ids) == 1 else None
