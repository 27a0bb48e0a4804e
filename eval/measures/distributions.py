"""Distances between next-word distributions, as they are and with the roles in the vocabulary exchanged.

Shapes: N pairs, V vocabulary. Distances are symmetric and in [0, 1]: 0 for equal distributions, 1 for disjoint ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from counterfactuals.tokens.vocabulary import RoleTokens


def total_variation(p_NV: np.ndarray, q_NV: np.ndarray) -> np.ndarray:
    """½ Σ |p − q|: the largest difference in the probability of any event. (N,)"""
    return 0.5 * np.abs(p_NV - q_NV).sum(-1)


def jensen_shannon(p_NV: np.ndarray, q_NV: np.ndarray) -> np.ndarray:
    """The Jensen–Shannon distance: the square root of the divergence in bits (Endres & Schindelin 2003). (N,)"""
    from scipy.special import rel_entr

    m_NV = (p_NV + q_NV) / 2
    bits = (rel_entr(p_NV, m_NV).sum(-1) + rel_entr(q_NV, m_NV).sum(-1)) / (2 * np.log(2))
    return np.sqrt(np.clip(bits, 0, 1))


def exchanged(q_NV: np.ndarray, own_NV: np.ndarray, roles: RoleTokens, context_N: Sequence[int]) -> np.ndarray:
    """π q: each set of role words gets the mass that its partner set has in q, split by the ratio in `own`. (N, V)

    As the reversed vocabulary of training (debias/ops.py): exact for one-to-one words. Where a set has no mass in `own`
    its words share equally. context_N: the last token before each row of `own`; where it ends in a letter, bare tokens
    continue a word and stay, unless the lexicon has that word. Of several groups, a set's partner is the next.
    """
    order = np.argsort(roles.set_L, kind="stable")
    starts = np.searchsorted(roles.set_L[order], np.arange(len(roles.partner_S)))

    def masses(probs_NV: np.ndarray) -> np.ndarray:
        return np.add.reduceat(probs_NV[:, roles.token_L[order]], starts, axis=1)

    own_NL, mass_NL = own_NV[:, roles.token_L], masses(own_NV)[:, roles.set_L]
    equal_NL = np.broadcast_to(1 / np.bincount(roles.set_L)[roles.set_L], own_NL.shape)
    ratio_NL = np.divide(own_NL, mass_NL, out=equal_NL.copy(), where=mass_NL > 0)
    moved_NL = ratio_NL * masses(q_NV)[:, roles.partner_S[roles.set_L]]
    a_word_NL = np.array([np.isin(roles.set_L, roles.after.get(token, ())) for token in context_N])
    stays_NL = roles.in_word_V[list(context_N)][:, None] & roles.bare_L & ~a_word_NL
    out_NV = q_NV.copy()
    out_NV[:, roles.token_L] = np.where(stays_NL, q_NV[:, roles.token_L], moved_NL)
    return out_NV
