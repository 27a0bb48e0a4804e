"""Which tokens carry a role, and which is exchanged for which."""

from dataclasses import replace

import numpy as np
import pytest

from counterfactuals.text.lexicon import load_lexicon, parse_lexicon
from counterfactuals.text.reverse import Reverser
from counterfactuals.tokens.tokenizer import encode_after, train_bpe
from counterfactuals.tokens.vocabulary import role_tokens
from tests.test_align import llama_2, metaspace

WHOLE = load_lexicon("gender")
GENDER = replace(WHOLE, names=replace(WHOLE.names, pairs=WHOLE.names.pairs[:500]))  # encoding all names takes seconds
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


def test_a_word_of_two_tokens_is_exchanged_at_the_second():
    """ "step|son" ↔ "step|daughter"; only after a beginning with a blank, since another may stand within a word."""
    tokenizer = train_bpe([" step", "step", "son", "daughter", "mother", "father"] * 50, 400)
    roles = role_tokens(Reverser(GENDER), tokenizer)
    step = tokenizer.encode(" stepson")[0]
    assert tokenizer.decode([step]) == " step" and len(tokenizer.encode(" stepson")) == 2
    found = {tokenizer.decode([t]) for t, s in zip(roles.token_L, roles.set_L) if s in roles.after[step]}
    assert found == {"son", "daughter", "mother", "father"}
    assert all(tokenizer.decode([token]).startswith(" ") for token in roles.after)


def test_several_groups_have_a_set_each():
    text = "Nigeria China Germany Mexico Kenya Japan Italy Cuba African Asian European Hispanic"
    tokenizer = train_bpe([f"{text} {text}"] * 50, 600)
    race = load_lexicon("race")
    roles = role_tokens(Reverser(race), tokenizer)
    assert roles.num_groups == 4 and len(roles.partner_S) % 4 == 0
    group = {tokenizer.decode([t]).strip(): s % 4 for t, s in zip(roles.token_L, roles.set_L)}
    assert {word: race.groups[number] for word, number in group.items()} == {
        word: rule.group for word, rule in race.rules.items() if word in text.split()
    }
    following = [int(s) for s in roles.partner_S[:4]]
    assert following == [1, 2, 3, 0]


def test_too_many_groups_are_refused(tokenizer):
    groups = list("abcdefg")
    many = parse_lexicon(
        {
            "name": "many", "version": 1, "licence": "x", "source": "x", "groups": groups,
            "pools": {"topic": {g: [f"{g}word"] for g in groups}},
        }
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"loss\.vocabulary: reversed takes at most 6 groups; many has 7"):
        role_tokens(Reverser(many), tokenizer)


@pytest.mark.parametrize("made", [llama_2, metaspace])
def test_a_blank_that_a_tokenizer_puts_before_every_text_is_no_part_of_the_word(made):
    """Llama 2's: " she" as a text of its own has one blank more, and "she" is what stands after one."""
    tokenizer = made()
    roles = role_tokens(Reverser(GENDER), tokenizer)
    (she,), (he,) = encode_after(tokenizer, [" she", " he"])
    assert tokenizer.convert_ids_to_tokens([she, he]) == ["▁she", "▁he"]
    place = {int(token): n for n, token in enumerate(roles.token_L)}
    assert not roles.bare_L[place[she]]
    assert roles.partner_S[roles.set_L[place[she]]] == roles.set_L[place[he]]
