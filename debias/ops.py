"""How a teacher's prediction is combined with its counterpart's (Gupta et al. 2022, Table 1); reversed vocabulary.

The counterpart of a prediction on a text is the one at the aligned place of its counterfactual, and the other way
round. R rows (predictions), V vocabulary, L tokens that carry a role, S sets of them. Inputs are natural-log
probabilities that sum to 1 over V, as log-softmax gives them: `max` and `exp_mean` depend on that.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from counterfactuals.text.lexicon import cycles
from counterfactuals.tokens.vocabulary import RoleTokens

# own row, counterpart's row, weight of the counterpart (mix only) → combined scores, not normalised
OPS: dict[str, Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]] = {
    "none": lambda own, other, share: own,
    "max": lambda own, other, share: torch.maximum(own, other),
    "mean": lambda own, other, share: torch.lerp(own, other, 0.5),
    "exp_mean": lambda own, other, share: torch.logaddexp(own, other).sub_(math.log(2)),
    "swap": lambda own, other, share: other,
    "mix": torch.lerp,
}


# (k, R, L): a prediction, then the same with its roles moved to each other group → combined scores
ROUND: dict[str, Callable[[torch.Tensor, float], torch.Tensor]] = {
    "max": lambda all_KRL, share: all_KRL.amax(0),
    "mean": lambda all_KRL, share: all_KRL.mean(0),
    "exp_mean": lambda all_KRL, share: all_KRL.logsumexp(0) - math.log(len(all_KRL)),
    "swap": lambda all_KRL, share: all_KRL[1:].logsumexp(0) - math.log(len(all_KRL) - 1),
    "mix": lambda all_KRL, share: torch.lerp(all_KRL[0], all_KRL[1:].mean(0), share),
}


@dataclass(frozen=True)
class VocabularyRoles:
    """Tensors that swap the roles in a row; fields as in counterfactuals.tokens.vocabulary.RoleTokens.

    partner_TS: by turn (as PairBatch.turn_R, negative ones count from the end), the set whose mass set s receives.
    round_KS: the same for one, two, … steps along a cyclic order, with three groups or more; else empty. prefix_V,
    allowed_QL: after token v, the tokens allowed_QL[prefix_V[v]] carry a role although they continue a word. first_S:
    the first token of each set, as a position in L. several_U, member_UM: the sets of several tokens, and those
    tokens, padded with L.
    """

    token_L: torch.Tensor
    set_L: torch.Tensor
    bare_L: torch.Tensor
    in_word_V: torch.Tensor
    partner_TS: torch.Tensor
    round_KS: torch.Tensor
    prefix_V: torch.Tensor
    allowed_QL: torch.Tensor
    first_S: torch.Tensor
    several_U: torch.Tensor
    member_UM: torch.Tensor

    @classmethod
    def build(cls, tokens: RoleTokens, device: torch.device | str = "cpu") -> VocabularyRoles:
        """Index tables for `tokens` on `device`."""
        num_sets, num_groups = len(tokens.partner_S), tokens.num_groups
        along_KS, steps = tokens.partner_S[None], []
        if num_groups > 2:
            component_S, group_S = np.divmod(np.arange(num_sets), num_groups)
            along_KS = np.stack([component_S * num_groups + np.array(c)[group_S] for c in cycles(num_groups)])
            steps = [component_S * num_groups + (group_S + step) % num_groups for step in range(1, num_groups)]
        members = [(tokens.set_L == s).nonzero()[0] for s in range(num_sets)]
        several = [s for s, positions in enumerate(members) if len(positions) > 1]
        member_UM = np.full((len(several), max(map(len, members))), len(tokens.token_L))
        for u, s in enumerate(several):
            member_UM[u, : len(members[s])] = members[s]
        prefix_V = np.zeros(len(tokens.in_word_V), dtype=np.int64)
        prefix_V[list(tokens.after)] = 1 + np.arange(len(tokens.after))
        arrays = {
            "token_L": tokens.token_L,
            "set_L": tokens.set_L,
            "bare_L": tokens.bare_L,
            "in_word_V": tokens.in_word_V,
            "partner_TS": np.concatenate([along_KS[:1], along_KS, np.argsort(along_KS, axis=1)[::-1]]),
            "round_KS": np.array(steps, dtype=np.int64).reshape(len(steps), num_sets),
            "prefix_V": prefix_V,
            "allowed_QL": np.stack([np.isin(tokens.set_L, sets) for sets in ((), *tokens.after.values())]),
            "first_S": np.array([positions[0] for positions in members]),
            "several_U": np.array(several, dtype=np.int64),
            "member_UM": member_UM,
        }
        return cls(**{name: torch.as_tensor(array, device=device) for name, array in arrays.items()})

    def alone(self) -> VocabularyRoles:
        """The same for rows of the tokens token_L alone."""
        return replace(self, token_L=torch.arange(len(self.token_L), device=self.token_L.device))


def _set_mass(logp_RL: torch.Tensor, roles: VocabularyRoles) -> torch.Tensor:
    """Log of the summed probability of each set, (R, S)."""
    mass_RS = logp_RL[:, roles.first_S]
    if len(roles.several_U):
        last = logp_RL.shape[1] - 1
        member_RUM = logp_RL[:, roles.member_UM.clamp(max=last)].masked_fill_(roles.member_UM > last, -math.inf)
        mass_RS[:, roles.several_U] = member_RUM.logsumexp(-1)
    return mass_RS


def reversed_roles(
    own_RL: torch.Tensor,
    other_RL: torch.Tensor,
    roles: VocabularyRoles,
    context_R: torch.Tensor,
    turn_R: torch.Tensor | None = None,
) -> torch.Tensor:
    """The counterpart's log-probabilities of the tokens that carry a role, with the roles swapped: π z'. (R, L)

    A set receives the summed mass of its partner set in the counterpart's row, and splits it in the ratio of the own
    row: exact for one-to-one words; for many-to-one words (her ↔ him, his) the sums are exact.
    context_R: the token before each prediction; where it ends in a letter, bare tokens continue a word and are not
    swapped, unless the lexicon has that word. turn_R: as in PairBatch, for three groups or more.
    """
    mass_RS, own_mass_RS = _set_mass(other_RL, roles), _set_mass(own_RL, roles)
    if len(roles.round_KS) == 0 or turn_R is None:
        mass_RS = mass_RS[:, roles.partner_TS[1]]
    else:
        mass_RS = mass_RS.gather(1, roles.partner_TS[turn_R])
    carried_RL = mass_RS.sub_(own_mass_RS)[:, roles.set_L].add_(own_RL)
    return torch.where(_no_role(roles, context_R), other_RL, carried_RL)


def _no_role(roles: VocabularyRoles, context_R: torch.Tensor) -> torch.Tensor:
    """(R, L): whether the token would continue a word that is not in the lexicon."""
    return roles.in_word_V[context_R, None] & roles.bare_L & ~roles.allowed_QL[roles.prefix_V[context_R]]


def _all_groups(
    op: str, own_RL: torch.Tensor, roles: VocabularyRoles, context_R: torch.Tensor, mix: float
) -> torch.Tensor:
    """Where the context names no group, the text is its own counterfactual for every group: all take part equally."""
    mass_RS = _set_mass(own_RL, roles)
    carried = [(mass_RS[:, partner_S] - mass_RS)[:, roles.set_L].add_(own_RL) for partner_S in roles.round_KS]
    return torch.where(_no_role(roles, context_R), own_RL, ROUND[op](torch.stack([own_RL, *carried]), mix))


def check_op(op: str) -> None:
    """ValueError for an op that is not in OPS."""
    if op not in OPS:
        raise ValueError(f"loss.op: must be one of {', '.join(OPS)}, not {op!r}")


def combine(
    op: str,
    own_RV: torch.Tensor,
    other_RV: torch.Tensor,
    *,
    mix: float = 0.5,
    strength: float = 1.0,
    roles: VocabularyRoles | None = None,
    context_R: torch.Tensor | None = None,
    turn_R: torch.Tensor | None = None,
) -> torch.Tensor:
    """Scores of predictions combined with their counterparts', (R, V), before normalisation.

    own_RV, other_RV: the teacher's rows and their counterparts. mix: weight of the counterpart in op "mix". strength:
    how far to go, in log space, from the own row (0: that row unchanged) to what the op gives (1). roles: use the
    reversed vocabulary, op(z, π z') instead of op(z, z'). It needs context_R, the token before each prediction, and
    with three groups or more turn_R (PairBatch); where turn_R is 0 no group is named yet, and all take part equally.
    """
    check_op(op)
    if op == "none" or strength == 0:
        return own_RV
    scores_RV = OPS[op](own_RV, other_RV, mix)
    if roles is not None:
        if context_R is None:
            raise ValueError("combine: roles needs context_R")
        own_RL, other_RL = own_RV[:, roles.token_L], other_RV[:, roles.token_L]
        if op == "swap":  # its scores are the counterpart's row itself, which must not be written to
            scores_RV = scores_RV.clone()
        scores_RL = OPS[op](own_RL, reversed_roles(own_RL, other_RL, roles, context_R, turn_R), mix)
        if turn_R is not None and len(roles.round_KS):
            equal_RL = _all_groups(op, own_RL, roles, context_R, mix)
            scores_RL = torch.where(turn_R[:, None] == 0, equal_RL, scores_RL)
        scores_RV[:, roles.token_L] = scores_RL
    return scores_RV if strength == 1 else torch.lerp(own_RV, scores_RV, strength)


def amplify(own_RV: torch.Tensor, factor: float, roles: VocabularyRoles, context_R: torch.Tensor) -> torch.Tensor:
    """Rows, (R, V), in which the log-odds between words of the groups are `factor` times as large.

    A word and its partners keep their summed probability. own_RV: log-probabilities, or these plus a number for each
    row. context_R: the token before each prediction.
    """

    def even(op: str, row_RL: torch.Tensor) -> torch.Tensor:  # turn 0: all groups take part
        told: dict[str, Any] = {"context_R": context_R, "turn_R": torch.zeros_like(context_R)}
        return combine(op, row_RL, row_RL, roles=alone, **told)

    alone = roles.alone()
    own_RL = own_RV[:, roles.token_L]
    more_RL = torch.lerp(even("mean", own_RL), own_RL, factor)
    more_RL = more_RL + even("exp_mean", own_RL) - even("exp_mean", more_RL)
    return own_RV.index_copy(1, roles.token_L, more_RL)


def perturb(op: str, own_RV: torch.Tensor, other_RV: torch.Tensor, **options: Any) -> torch.Tensor:
    """`combine`, normalised: log-probabilities (R, V). op "none" returns the own row unchanged.

    The paper's worked example (its Figure 2), a row of four words:

        >>> own, other = torch.tensor([[.5, .1, .2, .2]]).log(), torch.tensor([[.1, .6, .1, .2]]).log()
        >>> [round(p, 2) for p in perturb("exp_mean", own, other).exp()[0].tolist()]
        [0.3, 0.35, 0.15, 0.2]

    ValueError unless both have the same shape (R, V).
    """
    if own_RV.shape != other_RV.shape or own_RV.dim() != 2:
        shapes = f"{tuple(own_RV.shape)} and {tuple(other_RV.shape)}"
        raise ValueError(f"own_RV and other_RV must have the same shape (R, V), not {shapes}")
    scores_RV = combine(op, own_RV, other_RV, **options)
    return own_RV if scores_RV is own_RV else torch.log_softmax(scores_RV, dim=-1)
