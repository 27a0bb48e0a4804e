"""lexicon × tokenizer → the tokens that carry a role, for carrying a prediction through the role reversal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from counterfactuals.text.lexicon import MOST_GROUPS
from counterfactuals.text.reverse import Reverser
from counterfactuals.tokens.tokenizer import encode_after, encode_texts


@dataclass(frozen=True)
class RoleTokens:
    """The role-carrying tokens of a vocabulary (L tokens in S sets; a set holds one group's tokens of one component).

    Variants of case and leading blank are components of their own, so each maps to its like.
    token_L, set_L: token id and its set; a component's sets are neighbours, in the order of the groups. partner_S: the
    set that set s is exchanged with (an involution); of three groups and more, that of the next group.
    bare_L: the token has no leading blank, so after a letter it continues a word ("per|son") and carries no role …
    in_word_V: (V,) the token ends in a letter or digit, so that a bare token after it continues a word.
    after: … unless the two are a word of the lexicon ("step|son"): token → the sets that are exchanged after it.
    """

    token_L: np.ndarray
    set_L: np.ndarray
    partner_S: np.ndarray
    bare_L: np.ndarray
    in_word_V: np.ndarray
    num_groups: int = 2
    after: dict[int, tuple[int, ...]] = field(default_factory=dict)


def role_tokens(reverser: Reverser, tokenizer: Any, vocab_size: int | None = None) -> RoleTokens:
    """Tokens of `tokenizer` that are exactly one of the words reversed, in lower case, Capitalised or ALL CAPS.

    Names (unless kept) only with their capital. A word of two tokens is exchanged at the second where its counterpart
    begins with the same ("step|son", "step|daughter") and the second alone is such a word, too. Other words of several
    tokens are left alone: their first tokens begin many other words. So is a component of which one group has no token.
    vocab_size: rows of the model's embedding, where it is padded beyond the tokenizer's.
    """
    lexicon = reverser.lexicon
    num_groups = len(lexicon.groups)
    if num_groups > MOST_GROUPS:
        raise ValueError(
            f"loss.vocabulary: reversed takes at most {MOST_GROUPS} groups; {lexicon.name} has {num_groups}; use plain"
        )
    tokens: list[int] = []
    sets: list[int] = []
    bare: list[bool] = []
    set_of: dict[int, int] = {}
    of_two: list[tuple[list[int], list[int]]] = []  # words of two tokens and their counterparts
    components = [*reverser.components(), *reverser.pools()]
    forms = sorted({case(word) for words in components for case in _cases(words) for side in words for word in side})
    ids_of = {
        " ": dict(zip(forms, encode_after(tokenizer, [" " + form for form in forms]))),
        "": dict(zip(forms, encode_texts(tokenizer, forms))),
    }
    for component in components:
        is_word = component[0][0].islower()
        for case in _cases(component):
            for blank in (" ", ""):
                ids = [[ids_of[blank][case(word)] for word in words if word.isalpha()] for words in component]
                if is_word and blank and num_groups == 2:
                    of_two += [(a, b) for a in ids[0] for b in ids[1] if len(a) == len(b) == 2 and a[0] == b[0]]
                sides = [sorted({i[0] for i in side if len(i) == 1 and i[0] not in set_of}) for side in ids]
                if not all(sides):
                    continue
                for number, side in enumerate(sides, sets[-1] + 1 if sets else 0):
                    set_of.update((token, number) for token in side)
                    tokens += side
                    sets += [number] * len(side)
                    bare += [not blank] * len(side)
    if not tokens:
        raise ValueError(
            f"loss.vocabulary: no word of lexicon {lexicon.name} is a single token of this tokenizer; use plain"
        )
    after: dict[int, tuple[int, ...]] = {}
    for (token, end), (_, other) in of_two:
        first = set_of.get(end, -1)
        if first >= 0 and first % 2 == 0 and set_of.get(other) == first + 1:
            after[token] = (*after.get(token, ()), first, first + 1)
    component_S, group_S = np.divmod(np.arange(sets[-1] + 1), num_groups)
    partner_S = component_S * num_groups + (group_S + 1) % num_groups
    size = max(vocab_size or 0, len(tokenizer))
    ends = [tokenizer.decode([i]) for i in range(len(tokenizer))]
    in_word = np.zeros(size, dtype=bool)
    in_word[: len(ends)] = [text[-1:].isalnum() for text in ends]
    return RoleTokens(np.array(tokens), np.array(sets), partner_S, np.array(bare), in_word, num_groups, after)


def _cases(component: Sequence[Sequence[str]]) -> tuple[Callable[[str], str], ...]:
    """How the words of a component may be written; names keep their capital."""
    return (str.lower, str.capitalize, str.upper) if component[0][0].islower() else (str, str.upper)
