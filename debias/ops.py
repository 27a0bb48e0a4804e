"""Perturbation of the teacher's prediction by its counterfactual (Gupta et al. 2022, Table 1); reversed vocabulary.

R rows (positions), V vocabulary, L role-carrying tokens, S sets of them. All inputs are natural-log probabilities that
sum to 1 over V, as log-softmax gives them: `max` and `exp_mean` are not invariant to offsets.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from counterfactuals.vocabulary import RoleTokens

# own row, counterpart's row, the latter's share (for mix alone) → combined scores, before they are normalised again
OPS: dict[str, Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]] = {
    "none": lambda own, mate, share: own,
    "max": lambda own, mate, share: torch.maximum(own, mate),
    "mean": lambda own, mate, share: torch.lerp(own, mate, 0.5),
    "exp_mean": lambda own, mate, share: torch.logaddexp(own, mate).sub_(math.log(2)),
    "swap": lambda own, mate, share: mate,
    "mix": torch.lerp,
}


@dataclass(frozen=True)
class VocabularyRoles:
    """Tensors that carry a row through the role reversal; fields as in counterfactuals.vocabulary.RoleTokens.

    member_SM: the tokens of each set, as positions in L, padded with L.
    """

    token_L: torch.Tensor
    set_L: torch.Tensor
    partner_L: torch.Tensor
    bare_L: torch.Tensor
    in_word_V: torch.Tensor
    member_SM: torch.Tensor

    @classmethod
    def build(cls, tokens: RoleTokens, device: torch.device | str = "cpu") -> VocabularyRoles:
        members = [torch.from_numpy((tokens.set_L == s).nonzero()[0]) for s in range(len(tokens.partner_S))]
        member_SM = torch.nn.utils.rnn.pad_sequence(members, batch_first=True, padding_value=len(tokens.token_L))

        def tensor(array: np.ndarray) -> torch.Tensor:
            return torch.as_tensor(array, device=device)

        return cls(
            token_L=tensor(tokens.token_L),
            set_L=tensor(tokens.set_L),
            partner_L=tensor(tokens.partner_S[tokens.set_L]),
            bare_L=tensor(tokens.bare_L),
            in_word_V=tensor(tokens.in_word_V),
            member_SM=member_SM.to(device),
        )


def reversed_roles(
    own_RL: torch.Tensor, mate_RL: torch.Tensor, roles: VocabularyRoles, in_word_R: torch.Tensor
) -> torch.Tensor:
    """The counterpart's log-probabilities of the role-carrying tokens, carried through the role reversal: π z'. (R, L)

    A set receives the summed mass of its partner set in the counterpart's row and splits it by the receiving row's own
    ratio: exact for one-to-one words, and for many-to-one words (her ↔ him, his) equivariant in summed mass.
    in_word_R: the row's last context token ends in a letter; bare tokens then continue a word and are not reversed.
    """
    pad = own_RL.new_full((len(own_RL), 1), -math.inf)
    mass_RS = torch.cat([mate_RL, pad], 1)[:, roles.member_SM].logsumexp(-1)
    own_mass_RS = torch.cat([own_RL, pad], 1)[:, roles.member_SM].logsumexp(-1)
    carried_RL = own_RL + mass_RS[:, roles.partner_L] - own_mass_RS[:, roles.set_L]
    return torch.where(in_word_R[:, None] & roles.bare_L, mate_RL, carried_RL)


def combine(
    op: str,
    own_RV: torch.Tensor,
    mate_RV: torch.Tensor,
    *,
    mix: float = 0.5,
    strength: float = 1.0,
    roles: VocabularyRoles | None = None,
    context_R: torch.Tensor | None = None,
) -> torch.Tensor:
    """Scores of predictions combined with their counterparts', (R, V), before normalisation.

    own_RV, mate_RV: the teacher's rows on a text and on its counterfactual. mix: share of the counterpart in op "mix".
    strength: how far from the own row (0, the very row) towards what the op gives (1), in log space. roles: reversed
    vocabulary, op(z, π z') instead of op(z, z'); needs context_R, the token that each prediction follows.
    """
    if op not in OPS:
        raise ValueError(f"loss.op: must be one of {', '.join(OPS)}, not {op!r}")
    if op == "none" or strength == 0:
        return own_RV
    scores_RV = OPS[op](own_RV, mate_RV, mix)
    if roles is not None:
        if context_R is None:
            raise ValueError("combine: roles needs context_R")
        own_RL, mate_RL = own_RV[:, roles.token_L], mate_RV[:, roles.token_L]
        if op == "swap":  # its scores are the counterpart's row itself, which is not ours to write in
            scores_RV = scores_RV.clone()
        carried_RL = reversed_roles(own_RL, mate_RL, roles, roles.in_word_V[context_R])
        scores_RV[:, roles.token_L] = OPS[op](own_RL, carried_RL, mix)
    return scores_RV if strength == 1 else torch.lerp(own_RV, scores_RV, strength)


def perturb(op: str, own_RV: torch.Tensor, mate_RV: torch.Tensor, **options: Any) -> torch.Tensor:
    """`combine`, normalised: log-probabilities (R, V). op "none" returns the own row unchanged.

    >>> own, mate = torch.tensor([[.5, .1, .2, .2]]).log(), torch.tensor([[.1, .6, .1, .2]]).log()
    >>> [round(p, 2) for p in perturb("exp_mean", own, mate).exp()[0].tolist()]
    [0.3, 0.35, 0.15, 0.2]
    """
    scores_RV = combine(op, own_RV, mate_RV, **options)
    return own_RV if scores_RV is own_RV else torch.log_softmax(scores_RV, dim=-1)
