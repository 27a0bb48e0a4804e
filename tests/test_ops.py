import dataclasses
import math

import numpy as np
import pytest
import torch

from counterfactuals.text.lexicon import cycles
from counterfactuals.tokens.vocabulary import RoleTokens
from debias.ops import OPS, ROUND, VocabularyRoles, amplify, perturb, reversed_roles

# a vocabulary of nine tokens: she, he, her, hers, him, his, nurse, and without a blank "son" and "daughter"
TOKENS = RoleTokens(
    token_L=np.array([0, 1, 2, 3, 4, 5, 7, 8]),
    set_L=np.array([0, 1, 2, 2, 3, 3, 4, 5]),
    partner_S=np.array([1, 0, 3, 2, 5, 4]),
    bare_L=np.array([False] * 6 + [True] * 2),
    in_word_V=np.array([True] * 8 + [False]),
)
SHE, HE, HER, HERS, HIM, HIS, NURSE, SON, DAUGHTER = range(9)
OUTSIDE = torch.full((6,), 8)  # contexts after which a word may begin


def rows(count: int, vocabulary: int = 9, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, vocabulary, generator=generator, dtype=torch.float64).mul(2).log_softmax(-1)


@pytest.fixture
def roles() -> VocabularyRoles:
    return VocabularyRoles.build(TOKENS)


@pytest.mark.parametrize("op", OPS)
def test_every_op_is_normalised_finite_and_keeps_equal_rows(op):
    own, mate = rows(5), rows(5, seed=1)
    result = perturb(op, own, mate)
    assert torch.isfinite(result).all()
    torch.testing.assert_close(result.exp().sum(-1), torch.ones(5, dtype=torch.float64))
    torch.testing.assert_close(perturb(op, own, own), own)


@pytest.mark.parametrize(
    ("op", "expected"),
    [
        ("none", [0.5, 0.1, 0.4]),
        ("swap", [0.1, 0.6, 0.3]),
        ("exp_mean", [0.3, 0.35, 0.35]),
        ("max", [0.5 / 1.5, 0.6 / 1.5, 0.4 / 1.5]),
        ("mix", [x / sum(map(math.sqrt, (0.05, 0.06, 0.12))) for x in map(math.sqrt, (0.05, 0.06, 0.12))]),
        ("mean", [x / sum(map(math.sqrt, (0.05, 0.06, 0.12))) for x in map(math.sqrt, (0.05, 0.06, 0.12))]),
    ],
)
def test_ops_by_hand(op, expected):
    own, mate = torch.tensor([[0.5, 0.1, 0.4]]).log(), torch.tensor([[0.1, 0.6, 0.3]]).log()
    torch.testing.assert_close(perturb(op, own, mate).exp()[0], torch.tensor(expected))


def test_mix_is_weighted_and_the_mean_at_one_half():
    own, mate = rows(3), rows(3, seed=1)
    torch.testing.assert_close(perturb("mix", own, mate, mix=0.5), perturb("mean", own, mate))
    torch.testing.assert_close(perturb("mix", own, mate, mix=1.0), mate)
    expected = own.exp() ** 0.75 * mate.exp() ** 0.25
    torch.testing.assert_close(perturb("mix", own, mate, mix=0.25).exp(), expected / expected.sum(-1, keepdim=True))


@pytest.mark.parametrize("op", OPS)
def test_strength_0_is_the_very_row_and_1_the_op(op, roles):
    own, mate, options = rows(3), rows(3, seed=1), {"roles": roles, "context_R": OUTSIDE[:3]}
    assert perturb(op, own, mate, strength=0.0, **options) is own
    assert torch.equal(perturb(op, own, mate, strength=1.0, **options), perturb(op, own, mate, **options))
    half = (own + perturb(op, own, mate, **options)).div(2).log_softmax(-1)
    torch.testing.assert_close(perturb(op, own, mate, strength=0.5, **options), half)


def test_amplified_rows_have_larger_log_odds_between_the_groups_and_the_same_mass(roles):
    own = rows(3)
    more = amplify(own, 1.3, roles, OUTSIDE[:3])
    torch.testing.assert_close(more.exp().sum(-1), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(more[:, NURSE], own[:, NURSE])
    torch.testing.assert_close(more[:, HE] - more[:, SHE], 1.3 * (own[:, HE] - own[:, SHE]))
    for pair in ([SHE, HE], [HER, HERS, HIM, HIS], [SON, DAUGHTER]):
        torch.testing.assert_close(more[:, pair].logsumexp(-1), own[:, pair].logsumexp(-1))
    hers, his = ([HER, HERS], [HIM, HIS])
    odds, odds_before = (row[:, hers].logsumexp(-1) - row[:, his].logsumexp(-1) for row in (more, own))
    torch.testing.assert_close(odds, 1.3 * odds_before)
    torch.testing.assert_close(amplify(own, 1.0, roles, OUTSIDE[:3]), own)
    inside = amplify(own, 1.3, roles, torch.full((3,), NURSE))  # "nurse" + "son" is no son
    torch.testing.assert_close(inside[:, [SON, DAUGHTER]], own[:, [SON, DAUGHTER]])


def test_figure_2_of_the_paper():
    # doctor .5/.1, nurse .1/.6, surgeon .2/0, receptionist 0/.2, and what is left
    own = torch.tensor([[0.5, 0.1, 0.2, 0.0, 0.2]]).log()
    mate = torch.tensor([[0.1, 0.6, 0.0, 0.2, 0.1]]).log()
    result = perturb("exp_mean", own, mate).exp()[0]
    torch.testing.assert_close(result, torch.tensor([0.3, 0.35, 0.1, 0.1, 0.15]))


def test_an_unknown_op_is_refused():
    with pytest.raises(ValueError, match=r"loss.op.*none, max"):
        perturb("maximum", rows(1), rows(1))


def test_inputs_are_not_written_in(roles):
    for op in OPS:
        own, mate = rows(3), rows(3, seed=1)
        kept = own.clone(), mate.clone()
        perturb(op, own, mate, roles=roles, context_R=OUTSIDE[:3])
        assert torch.equal(own, kept[0]) and torch.equal(mate, kept[1])


def test_mass_is_summed_and_split_in_the_receiving_rows_ratio(roles):
    own = torch.tensor([[0.1, 0.1, 0.3, 0.1, 0.05, 0.05, 0.1, 0.1, 0.1]]).log()
    mate = torch.tensor([[0.02, 0.2, 0.01, 0.01, 0.3, 0.06, 0.2, 0.15, 0.05]]).log()
    carried = reversed_roles(own[:, TOKENS.token_L], mate[:, TOKENS.token_L], roles, OUTSIDE[:1]).exp()[0]
    # she ← he .2; he ← she .02; her, hers ← him + his = .36, split 3 : 1; him, his ← her + hers = .02, split 1 : 1
    torch.testing.assert_close(carried, torch.tensor([0.2, 0.02, 0.27, 0.09, 0.01, 0.01, 0.05, 0.15]))


def test_bare_tokens_after_a_letter_are_left_alone(roles):
    own, mate = rows(2)[:, TOKENS.token_L], rows(2, seed=1)[:, TOKENS.token_L]
    carried = reversed_roles(own, mate, roles, torch.tensor([NURSE - 1, 8]))
    torch.testing.assert_close(carried[0, 6:], mate[0, 6:])
    torch.testing.assert_close(carried[1, 6:], mate[1, [7, 6]])


@pytest.mark.parametrize("op", ["max", "mean", "exp_mean"])
def test_symmetric_ops_are_equivariant(op, roles):
    """Swapping the roles of an input swaps the roles of the target: exactly one-to-one, in summed mass many-to-one."""
    x, cf = rows(6), rows(6, seed=1)
    target = perturb(op, x, cf, roles=roles, context_R=OUTSIDE).exp()
    mirrored = perturb(op, cf, x, roles=roles, context_R=OUTSIDE).exp()
    for a, b in [(SHE, HE), (HE, SHE), (SON, DAUGHTER), (NURSE, NURSE)]:
        torch.testing.assert_close(target[:, a], mirrored[:, b])
    torch.testing.assert_close(target[:, [HER, HERS]].sum(1), mirrored[:, [HIM, HIS]].sum(1))
    torch.testing.assert_close(target[:, [HIM, HIS]].sum(1), mirrored[:, [HER, HERS]].sum(1))


@pytest.mark.parametrize("op", ["max", "mean", "exp_mean"])
def test_without_a_gendered_word_both_roles_get_equal_mass(op, roles):
    own = rows(4)
    target = perturb(op, own, own, roles=roles, context_R=OUTSIDE[:4]).exp()
    torch.testing.assert_close(target[:, SHE], target[:, HE])
    torch.testing.assert_close(target[:, [HER, HERS]].sum(1), target[:, [HIM, HIS]].sum(1))


def test_role_reversal_of_very_unlikely_words_stays_finite(roles):
    own = torch.full((1, 9), -200.0)
    own[0, NURSE] = 0.0
    result = perturb("max", own, own, roles=roles, context_R=OUTSIDE[:1])
    assert torch.isfinite(result).all()


def test_the_end_of_a_lexicon_word_is_exchanged():
    """NURSE stands for "step" here: "step|son" is a word, so son ↔ daughter after it; not after another letter."""
    own, mate = rows(2), rows(2, seed=1)
    roles = VocabularyRoles.build(dataclasses.replace(TOKENS, after={NURSE: (4, 5)}))
    carried = reversed_roles(own[:, TOKENS.token_L], mate[:, TOKENS.token_L], roles, torch.tensor([NURSE, SHE]))
    torch.testing.assert_close(carried[0, 6:], mate[0, [DAUGHTER, SON]])
    torch.testing.assert_close(carried[1, 6:], mate[1, [SON, DAUGHTER]])


# three groups, two components: one word each (0, 1, 2); one, two and three words (3; 4, 5; 6, 7, 8); 9 and 10: no role
SEVERAL = RoleTokens(
    token_L=np.arange(9),
    set_L=np.array([0, 1, 2, 3, 4, 4, 5, 5, 5]),
    partner_S=np.array([1, 2, 0, 4, 5, 3]),
    bare_L=np.zeros(9, dtype=bool),
    in_word_V=np.zeros(11, dtype=bool),
    num_groups=3,
)


def masses(target: torch.Tensor) -> torch.Tensor:
    """Mass of each set, (R, component, group)."""
    sets = [target[:, SEVERAL.token_L[SEVERAL.set_L == s]].sum(1) for s in range(6)]
    return torch.stack(sets, 1).view(-1, 2, 3)


@pytest.mark.parametrize("turn", [0, 1])
@pytest.mark.parametrize("op", ["max", "mean", "exp_mean"])
def test_several_groups_are_treated_alike_on_both_texts(op, turn):
    """What the target says of a group on the text, it says of the group that took its place on the counterfactual."""
    roles = VocabularyRoles.build(SEVERAL)
    x, cf, context = rows(4, 11), rows(4, 11, seed=1), torch.zeros(4, dtype=torch.long)
    forth = torch.full((4,), turn + 1)
    target = perturb(op, x, cf, roles=roles, context_R=context, turn_R=forth).exp()
    mirrored = perturb(op, cf, x, roles=roles, context_R=context, turn_R=-forth).exp()
    after = list(cycles(3)[turn])
    torch.testing.assert_close(masses(target), masses(mirrored)[:, :, after])
    torch.testing.assert_close(target[:, [0, 1, 2]], mirrored[:, after])
    torch.testing.assert_close(target[:, 9:], mirrored[:, 9:])
    other = perturb(op, x, cf, roles=roles, context_R=context, turn_R=-forth).exp()
    assert (masses(other) - masses(target)).abs().max() > 0.01  # the order matters


@pytest.mark.parametrize("op", ["max", "mean", "exp_mean"])
def test_several_groups_get_equal_mass_where_no_role_is_named(op):
    own, nowhere = rows(4, 11), torch.zeros(4, dtype=torch.long)
    options = {"roles": VocabularyRoles.build(SEVERAL), "context_R": nowhere, "turn_R": nowhere}
    found = masses(perturb(op, own, own, **options).exp())
    torch.testing.assert_close(found, found[:, :, [1, 2, 0]])
    assert torch.isfinite(perturb("swap", own, own, **options)).all()
    assert torch.isfinite(perturb("mix", own, own, mix=0.2, **options)).all()


def test_log_odds_between_several_groups_are_amplified_alike():
    own, nowhere, roles = rows(4, 11), torch.zeros(4, dtype=torch.long), VocabularyRoles.build(SEVERAL)
    more, before = masses(amplify(own, 1.3, roles, nowhere).exp()).log(), masses(own.exp()).log()
    torch.testing.assert_close(more.diff(dim=-1), 1.3 * before.diff(dim=-1))
    torch.testing.assert_close(more.logsumexp(-1), before.logsumexp(-1))


@pytest.mark.parametrize("op", [op for op in OPS if op not in ("none", "swap", "mix")])
def test_two_groups_named_nowhere_are_the_pair_with_oneself(op, roles):
    """What several groups do where no role is named is, for two, what they do anyway."""
    own = rows(4)[:, TOKENS.token_L]
    carried = reversed_roles(own, own, roles, OUTSIDE[:4])
    torch.testing.assert_close(ROUND[op](torch.stack([own, carried]), 0.5), OPS[op](own, carried, 0.5))


@pytest.mark.parametrize("shape", [(1, 5), (5,), (3, 1)])
def test_rows_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match="the same shape"):
        perturb("max", torch.zeros(3, 5), torch.zeros(shape))
