import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counterfactuals.text import doubts, reverse, scan
from counterfactuals.text.lexicon import load_lexicon

PATTERN, ENTRIES, SCANNER = reverse._compiled(load_lexicon("gender"), ("First Lady", "& Daughters"))
WORDS = sorted({*ENTRIES, *(s for phrase in load_lexicon("gender").fixed for s in reverse._spellings(phrase))})
GLUE = [" ", " ", " ", "", "’s ", "-", "] ", "@", "\u0301", "_", ", ", "\n", "\xa0", ". ", "日本", "🙂", "\ud800", "1"]
OTHER = ["the", "The", "of", "&", "& Daughters", "First Lady", "https://he.is/her", "www.him.org", "é", "sHe", "s", "a"]
text = st.lists(st.sampled_from([*WORDS, *OTHER * 60, *GLUE * 200]), max_size=40).map("".join)


def spans(matches):
    return [match.span() for match in matches]


@settings(max_examples=300, deadline=None)
@given(st.lists(text, max_size=4), st.sampled_from([1, 30, scan.GROUP]))
def test_every_match_of_the_pattern_is_found_in_every_text(texts, group):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan, "GROUP", group)
        found = [spans(matches) for matches, _ in SCANNER(texts)]
    assert found == [spans(PATTERN.finditer(text)) for text in texts]


def test_every_word_and_phrase_of_the_lexicon_is_found_between_any_neighbours():
    rng = random.Random(0)
    texts = [rng.choice(GLUE) + word + rng.choice(GLUE) + rng.choice(WORDS) for word in WORDS]
    found = [spans(matches) for matches, _ in SCANNER(texts)]
    assert found == [spans(PATTERN.finditer(text)) for text in texts]
    assert sum(map(len, found)) > len(WORDS)


def test_words_that_begin_with_a_sign_or_have_several_parts():
    words = ["& Sons", "son-in-law", "sons", "'tis she"]
    scanner = scan.Scanner(re.compile("|".join(map(re.escape, words))), words)
    assert [[m[0] for m in found] for found, _ in scanner(["Day & Sons", "a son-in-law, sons", "", "x 'tis she"])] == [
        ["& Sons"],
        ["son-in-law", "sons"],
        [],
        ["'tis she"],
    ]


def test_every_word_of_ships_and_beasts_is_heard_in_its_own_text_only():
    for sign, (kind, phrases) in enumerate(zip((doubts._SHIP, doubts._BEAST), doubts.SIGNS)):
        texts = [f"He saw, {phrase}, and then they went home." for phrase in phrases]
        mixed = [text for one in texts for text in ("They went home.", one, "")]
        assert [heard for _, heard in SCANNER(mixed)] == [(text in texts) << sign for text in mixed]
        silent = [phrase for phrase, text in zip(phrases, texts) if not kind.search(text)]
        assert silent == (["guns"] if sign == 0 else [])  # "20 guns"; ", master" is found because of the comma here


def test_many_texts_are_reversed_as_each_alone():
    reverser = reverse.Reverser(load_lexicon("gender"))
    texts = ["She told Mary Smith about his mother.", "", "no role", "The King of Spain & Son, her.", "He" * 3]
    assert list(reverser.many(texts)) == [reverser(text) for text in texts]
    assert list(reverser.many([])) == []
