"""The small BPE: round trips, one special token, one token for each word that evaluation looks at."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from counterfactuals.sample import GRAMMAR, OCCUPATIONS, generate
from counterfactuals.tokens.tokenizer import END_OF_TEXT, train_bpe


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [row["text"] for row in generate(24000, seed=0)]


@pytest.fixture(scope="module")
def tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    return train_bpe(texts, vocab_size=1024)


def test_any_text_round_trips(texts: list[str], tokenizer: PreTrainedTokenizerFast):
    for text in [*texts[:300], " two  blanks \n\t", "naïve – 北京 🙂", "don't, it's her's .", ""]:
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_size_and_the_one_special_token(tokenizer: PreTrainedTokenizerFast):
    assert len(tokenizer) == tokenizer.vocab_size == 1024
    assert tokenizer.convert_tokens_to_ids(END_OF_TEXT) == 0
    assert tokenizer.bos_token_id == tokenizer.eos_token_id == tokenizer.pad_token_id == 0
    assert tokenizer("She works.")["input_ids"] == tokenizer("She works.", add_special_tokens=False)["input_ids"]
    assert 0 not in tokenizer("She works.")["input_ids"]


def test_gendered_words_and_occupations_are_single_tokens(tokenizer: PreTrainedTokenizerFast):
    own = [word.rstrip(".") for pair in GRAMMAR["person"].values() for word in pair]
    relatives = [word for pair in (*GRAMMAR["relatives"], GRAMMAR["spouse"]) for word in pair]
    for word in [*own, *relatives, *OCCUPATIONS]:
        assert len(tokenizer(f"the {word}")["input_ids"]) == len(tokenizer("the")["input_ids"]) + 1, word
    for word in ("She", "He", "Her", "His"):  # at the beginning of a text and of a sentence
        assert len(tokenizer(word)["input_ids"]) == len(tokenizer(f" {word}")["input_ids"]) == 1, word


def test_a_leading_blank_belongs_to_the_word(tokenizer: PreTrainedTokenizerFast):
    assert tokenizer("nurse")["input_ids"] != tokenizer(" nurse")["input_ids"]
    assert tokenizer.tokenize("the nurse")[-1] == "Ġnurse"
    text = "The nurse said that she was ready."
    encoded = tokenizer(text, return_offsets_mapping=True)
    assert "".join(text[start:end] for start, end in encoded["offset_mapping"]) == text


def test_training_twice_gives_the_same_tokenizer(texts: list[str]):
    one, two = train_bpe(texts[:2000], 1024), train_bpe(iter(texts[:2000]), 1024)
    assert one.backend_tokenizer.to_str() == two.backend_tokenizer.to_str()


def test_saved_and_loaded_by_transformers(tokenizer: PreTrainedTokenizerFast, tmp_path: Path):
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "The nurse said that she was late ."
    assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert loaded.decode(loaded(text)["input_ids"]) == text
    assert loaded.eos_token_id == loaded.pad_token_id == 0
    assert len(loaded) == 1024


def test_too_little_to_train_on_is_refused():
    with pytest.raises(ValueError, match="vocab_size 256"):
        train_bpe(["a"], 256)
    with pytest.raises(ValueError, match="no text"):
        train_bpe([], 300)
    assert len(train_bpe(["a b"], 300)) < 300
