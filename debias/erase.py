"""A teacher whose last hidden states do not tell a text's group: LEACE (Belrose et al. 2023), in closed form.

N states, D their width, G groups, V vocabulary, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

import numpy as np
import torch

from counterfactuals.tokens.align import AlignedPair
from counterfactuals.tokens.vocabulary import RoleTokens
from debias.models import body_of


def leace(states_ND: torch.Tensor, concept_NG: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(matrix_DD, shift_D): x ↦ matrix x + shift leaves no linear trace of the concept and changes x least.

    With W = Σ^(−1/2) and P the projection onto the columns of W · Cov(x, concept): r(x) = x − W⁺ P W (x − mean), the
    r of smallest mean squared change with Cov(r(x), concept) = 0, whatever linear predictor is used (Theorem 4.3).

        >>> x, z = torch.tensor([[1.0, 0.2], [3.0, 0.1], [1.2, 0.8], [2.9, 0.9]]), torch.tensor([[0.0], [1], [0], [1]])
        >>> matrix, shift = leace(x, z)
        >>> erased = x @ matrix.T + shift
        >>> torch.allclose(erased[[0, 2]].mean(0), erased[[1, 3]].mean(0), atol=1e-5)
        True
    """
    x_ND, z_NG = states_ND.double(), concept_NG.double()
    mean_D = x_ND.mean(0)
    x_ND, z_NG = x_ND - mean_D, z_NG - z_NG.mean(0)
    values, vectors = torch.linalg.eigh(x_ND.T @ x_ND / len(x_ND))
    kept = values > values[-1] * 1e-10  # directions that the states have
    root, vectors = values[kept].sqrt(), vectors[:, kept]
    whiten, unwhiten = vectors / root @ vectors.T, vectors * root @ vectors.T
    left, size, _ = torch.linalg.svd(whiten @ (x_ND.T @ z_NG / len(x_ND)), full_matrices=False)
    left = left[:, size > 1e-6]
    matrix_DD = torch.eye(len(mean_D), dtype=torch.float64, device=x_ND.device) - unwhiten @ left @ left.T @ whiten
    return matrix_DD.to(states_ND.dtype), (mean_D - matrix_DD @ mean_D).to(states_ND.dtype)


def group_of_tokens(tokens: RoleTokens, vocab_size: int) -> np.ndarray:
    """(V,) the group that a token names, −1 for none."""
    group_V = np.full(vocab_size, -1)
    group_V[tokens.token_L] = tokens.set_L % tokens.num_groups
    return group_V


def told_groups(pair: AlignedPair, group_V: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(2, n) and (2, n): places that correspond in a text and its counterfactual, and the group that each side is of.

    It is that of the last replaced word, from that word on; places before the first are left out.
    """
    own = np.flatnonzero(pair.cf_index >= 0)
    place_2T = np.stack([own, pair.cf_index[own]])
    ids_2T = np.stack([pair.input_ids[place_2T[0]], pair.cf_input_ids[place_2T[1]]])
    group_2T = group_V[ids_2T]
    names = (ids_2T[0] != ids_2T[1]) & (group_2T >= 0).all(0)
    last = np.maximum.accumulate(np.where(names, np.arange(len(own)), -1))
    told = last >= 0
    return place_2T[:, told], group_2T[:, last[told]]


@torch.no_grad()
def erase_groups(model: Any, pairs: Iterable[AlignedPair], tokens: RoleTokens, *, most: int) -> dict[str, int]:
    """Erase the group from a model's last hidden states, in place; fitted on the first `most` pairs that tell one.

    The model's predictions are then those of its head on erased states. Returns what it was fitted on. ValueError where
    no pair tells its group.
    """
    body, group_V = body_of(model.eval()), group_of_tokens(tokens, model.get_input_embeddings().weight.shape[0])
    found = ((pair, *told_groups(pair, group_V)) for pair in pairs if pair.reversed)
    states: list[torch.Tensor] = []
    groups: list[np.ndarray] = []
    telling = 0
    for pair, place_2T, group_2T in islice((item for item in found if item[1].size), most):
        for ids, place, group in zip((pair.input_ids, pair.cf_input_ids), place_2T, group_2T):
            ids_1T = torch.from_numpy(ids.astype(np.int64))[None].to(model.device)
            states.append(body(input_ids=ids_1T, use_cache=False).last_hidden_state[0, torch.from_numpy(place)].float())
            groups.append(group)
        telling += 1
    if not telling:
        raise ValueError("teacher.erase: no text that names a group has a counterfactual; see counterfactual.max_doubt")
    states_ND, group_N = torch.cat(states), torch.from_numpy(np.concatenate(groups)).to(model.device)
    matrix_DD, shift_D = leace(states_ND, torch.nn.functional.one_hot(group_N, tokens.num_groups))

    def erased(module: Any, given: Any, output: Any) -> Any:
        state = output.last_hidden_state
        output.last_hidden_state = (state.float() @ matrix_DD.T + shift_D).to(state.dtype)
        return output

    body.register_forward_hook(erased)
    return {"pairs": telling, "states": len(states_ND)}
