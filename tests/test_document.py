"""The document: tokens with exact places, sentences, passages, and mentions that never overlap."""

import gzip
import json
from itertools import islice, pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counterfactuals.text.document import LONG, SHORT, TOKEN, Document, Mention, passages
from counterfactuals.text.lexicon import load_lexicon

GENDER = load_lexicon("gender")
ANY_TEXT = st.text(alphabet=st.sampled_from("aB é.\n\t\r _'’\"-@[]\u0301\u00a0😀h"), max_size=40) | st.text(max_size=20)


def mention(first: int, last: int) -> Mention:
    return Mention(first, last, first, last, "word", 0, "x", "pair")


@settings(max_examples=100, deadline=None)
@given(ANY_TEXT)
def test_tokens_stand_where_the_document_says(text: str):
    document = Document(text, GENDER)
    assert document.words == TOKEN.findall(document.text)
    for word, start, end in zip(document.words, document.starts, document.ends, strict=True):
        assert document.text[start:end] == word and (word == "\n" or not word.isspace())
    assert "".join(document.words) == "".join(c for c in document.text if c == "\n" or not c.isspace())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("She'd seen ex-wife’s", ["She", "'", "d", "seen", "ex", "-", "wife", "’", "s"]),
        ("see https://a.org/her she@b.org", ["see", "https://a.org/her", "she@b.org"]),
        ("[T]he fiance\u0301e\nran", ["[T]he", "fiance\u0301e", "\n", "ran"]),
        ("_she_ she_wolf", ["*", "she", "*", "she_wolf"]),
    ],
)
def test_what_a_token_is(text: str, words: list[str]):
    assert Document(text, GENDER).words == words


def test_a_sentence_opens_after_a_stop_whatever_quotes_it():
    document = Document('He ran. "She sat," said Ann', GENDER)
    opening = [word for token, word in enumerate(document.words) if document.opens(token) and word.isalpha()]
    assert opening == ["He", "She"]


def test_fenced_code_is_known():
    text = "She ran.\n```\nshe = wife()\n```\nShe sat."
    ((start, end),) = Document(text, GENDER).code
    assert text[start:end] == "```\nshe = wife()\n```"


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["word ", "Stop. ", "\n", "x" * 300 + " ", "A line. " * 60]), max_size=30).map("".join))
def test_passages_are_the_text_in_order(text: str):
    found = passages(text)
    assert found[0][0] == 0 and found[-1][1] == len(text)
    assert all(end == start for (_, end), (start, _) in pairwise(found))
    for start, end in found[:-1]:
        assert end - start >= SHORT and (text[end - 1] == "\n" or text[:end].rstrip().endswith("."))


def test_long_lines_are_split_at_sentences():
    text = "This sentence has some words in it. " * 200
    assert all(end - start <= LONG + 40 for start, end in passages(text))


def test_short_lines_are_one_passage():
    assert len(passages("- Hi.\n- Hello, she said.\n" * 4)) == 1


def test_mentions_are_sorted_and_never_overlap():
    document = Document("a b c d e f g", GENDER)
    document.add([mention(4, 6), mention(1, 2)])
    document.add([mention(5, 7), mention(0, 1)])
    assert [m.first for m in document.mentions] == [0, 1, 4]
    assert document.mention_at(5) is document.mentions[2] and document.mention_at(6) is None
    document.remove(document.mentions[2])
    assert document.mention_at(5) is None
    document.add([mention(5, 7)])
    assert [m.first for m in document.mentions] == [0, 1, 5]


def test_passages_of_real_documents_are_short(shared_data: Path):
    with gzip.open(shared_data / "wikipedia_articles.jsonl.gz", "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in islice(lines, 300)]
    lengths = [end - start for text in texts for start, end in passages(text)]
    assert sum(length <= 2 * LONG for length in lengths) > 0.98 * len(lengths)
