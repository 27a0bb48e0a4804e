"""Which tokens carry a role, and which is exchanged for which."""

import numpy as np
import pytest

from counterfactuals.lexicon import load_lexicon
from counterfactuals.reverse import Reverser
from counterfactuals.tokenizer import train_bpe
from counterfactuals.vocabulary import role_tokens

GENDER = load_lexicon("gender")
TEXTS = [
    "She met Mary and James; he met Paris, Grace and a Queen. she he her him his hers Mary James king queen King"
] * 30


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(TEXTS, 400)


def exchanged(reverser: Reverser, tokenizer) -> dict[str, set[str]]:
    """Token → the tokens its set is exchanged with, as text."""
    roles = role_tokens(reverser, tokenizer)
    text = [tokenizer.decode([token]) for token in roles.token_L]
    mates = {s: {t for t, of in zip(text, roles.set_L) if of == roles.partner_S[s]} for s in set(roles.set_L.tolist())}
    assert (roles.partner_S[roles.partner_S] == np.arange(len(roles.partner_S))).all()
    return {t: mates[s] for t, s in zip(text, roles.set_L.tolist())}


def test_words_and_names_are_exchanged_in_the_same_writing(tokenizer):
    found = exchanged(Reverser(GENDER), tokenizer)
    assert found[" she"] == {" he"} and found[" her"] == {" him", " his"} and found[" King"] == {" Queen"}
    assert found[" Mary"] == {" James"} and found[" James"] == {" Mary"}
    assert not {" Paris", " Grace", " mary", " MARY"} & found.keys()


def test_what_is_not_reversed_is_not_exchanged(tokenizer):
    assert " Mary" not in exchanged(Reverser(GENDER, policy="keep_names"), tokenizer)
    found = exchanged(Reverser(GENDER, protected=("Mary", "queen")), tokenizer)
    assert not {" Mary", " James", " King", " queen"} & found.keys() and " she" in found


def test_rows_beyond_the_tokenizer_are_in_no_word(tokenizer):
    roles = role_tokens(Reverser(GENDER), tokenizer, len(tokenizer) + 64)
    assert len(roles.in_word_V) == len(tokenizer) + 64 and not roles.in_word_V[len(tokenizer) :].any()


def test_more_than_two_groups_are_refused(tokenizer):
    with pytest.raises(ValueError, match=r"loss\.vocabulary: reversed takes a lexicon of two groups; race has 4"):
        role_tokens(Reverser(load_lexicon("race")), tokenizer)
