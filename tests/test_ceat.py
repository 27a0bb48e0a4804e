"""CEAT: contexts, embeddings, draws and their combination against plain computations."""

import json
import math

import numpy as np
import pytest
import torch
from test_association import plain_effect, plain_random_effects, plain_s, plain_std

from eval.tasks import ceat

WORDS = {
    "targ1": ["man", "he"],
    "targ2": ["woman", "she"],
    "attr1": ["doctor", "engineer"],
    "attr2": ["nurse", "teacher"],
}
TEXTS = [
    "The man said that he would wait for the doctor, and she told the woman about the engineer.\n"
    "The nurse (a teacher) left.",
    "She and he are here: a man, a woman. He's no teacher; she is the nurse of the woman.",
    "When the engineer came the doctor and the nurse had gone, he thought, but the man and the teacher had not.",
]  # fmt: skip


@pytest.fixture
def data(tmp_path):
    (tmp_path / "seat").mkdir()
    test = {part: {"category": part, "examples": words} for part, words in WORDS.items()}
    (tmp_path / "seat" / "weat6.jsonl").write_text(json.dumps(test))
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return tmp_path


def options(**given):
    return {**ceat.OPTIONS, "corpus": "corpus.jsonl", "tests": "weat6", "draws": 50, **given}


@pytest.mark.parametrize(
    ("word", "window", "expected"),
    [
        ("six", 5, "four five six seven eight"),
        ("two", 5, "one two three four five"),
        ("ten", 5, "six, seven eight nine ten"),
        ("six", 0, "one two three four five six seven eight nine ten"),
        ("six", 99, "one two three four five six seven eight nine ten"),
    ],
)
def test_the_words_around(word, window, expected):
    line = "one two three four five six seven eight nine ten"
    text = f"before\n{line}\nafter"
    expected = expected.replace(",", "")
    found, offset = ceat.around(text, text.index(word), window)
    assert found == expected
    assert found[offset : offset + len(word)] == word


def test_contexts_are_whole_words_in_their_case():
    words = {"he", "man", "queen"}
    others = ['he/she and (he) or man-made; un man? "man" he\'s, _he, he_']
    found = ceat.find_contexts([*TEXTS, *others], words, most=10, window=0, seed=0)
    assert [text[offset : offset + 2] for text, offset in found["he"]] == ["he"] * 3  # not She, the, He, He's
    assert len(found["man"]) == 4 and found["queen"] == []
    assert found["he"][0][0].startswith("The man said")
    assert all("\n" not in text for part in found.values() for text, _ in part)


def test_contexts_are_drawn_evenly():
    texts = [f"the man {i}" for i in range(30)]
    counts = np.zeros(30)
    for seed in range(300):
        for text, _ in ceat.find_contexts(texts, {"man"}, most=5, window=0, seed=seed)["man"]:
            counts[int(text.split()[-1])] += 1
    assert counts.sum() == 1500
    assert counts.min() > 25 and counts.max() < 80  # 50 expected, standard deviation 6.5


def test_vectors_are_the_last_sub_tokens_state_in_the_whole_context(scorer, data):
    row = ceat.load(data, options(), None, 0)[0]
    vectors = ceat.embed(scorer, row["contexts"], layer=-1, bos=False)
    several = 0
    for word, contexts in row["contexts"].items():
        for vector, (text, offset) in zip(vectors[word], contexts, strict=True):
            coded = scorer.tokenizer(" " + text, return_offsets_mapping=True, add_special_tokens=False)
            end = offset + len(word) + 1  # behind the blank
            places = [i for i, (a, b) in enumerate(coded["offset_mapping"]) if a < end and b > offset + 1]
            several += len(places) > 1
            with torch.inference_mode():
                output = scorer.model(torch.tensor([coded["input_ids"]]), output_hidden_states=True)
            np.testing.assert_allclose(vector, output.hidden_states[-1][0, places[-1]].numpy(), atol=1e-5)
    assert several  # some words have more than one token here


def test_the_whole_agrees_with_the_paper(scorer, data):
    row = ceat.load(data, options(window=5), None, 7)[0]
    rows = ceat.score(scorer, [row], options(window=5), 7)
    vectors = ceat.embed(scorer, row["contexts"], layer=-1, bos=False)
    words = [word for part in ceat.SETS for word in row["words"][part]]
    chosen = ceat.drawn([len(vectors[word]) for word in words], 50, 7)
    effects, variances = [], []
    for draw in range(50):
        one = {word: vectors[word][chosen[draw, i]].astype(float) for i, word in enumerate(words)}
        x, y, a, b = ([one[word] for word in row["words"][part]] for part in ceat.SETS)
        effects.append(plain_effect(x, y, a, b))
        variances.append(plain_std([plain_s(w, a, b) for w in [*x, *y]]) ** 2)
    np.testing.assert_allclose([r["effect"] for r in rows], effects, atol=1e-6)
    np.testing.assert_allclose([r["variance"] for r in rows], variances, rtol=1e-6)
    ces, error, _ = plain_random_effects(effects, variances)
    metrics = ceat.aggregate(json.loads(json.dumps(rows)), options(), 7)
    assert metrics["ces/weat6"]["value"] == pytest.approx(ces, abs=1e-6)
    assert metrics["se/weat6"]["value"] == pytest.approx(error, abs=1e-6)
    assert metrics["ces/weat6"]["p"] == pytest.approx(math.erfc(abs(ces / error) / math.sqrt(2)), abs=1e-9)
    assert metrics["mean_abs_ces"]["value"] == pytest.approx(abs(ces), abs=1e-6)
    assert metrics["ces/weat6"]["n"] == 50
    assert metrics["ces/weat6"]["low"] < ces < metrics["ces/weat6"]["high"]


def test_same_seed_same_draws(scorer, data):
    one, again, other = (
        ceat.score(scorer, ceat.load(data, options(), None, seed), options(), seed) for seed in (1, 1, 2)
    )
    assert one == again != other


def test_what_is_missing_is_told(data, capsys):
    test = {part: {"category": part, "examples": words} for part, words in WORDS.items()}
    test["attr1"]["examples"] = ["doctor", "engineer", "smith"]
    (data / "seat" / "weat6.jsonl").write_text(json.dumps(test))
    row = ceat.load(data, options(), None, 0)[0]
    assert row["words"]["attr1"] == ["doctor", "engineer"]
    assert capsys.readouterr().err == "ceat: weat6: without smith, which corpus.jsonl does not have\n"
    (data / "corpus.jsonl").write_text('{"text": "the man"}\n')
    with pytest.raises(ValueError, match="too few words of weat6 targ1; name a longer corpus"):
        ceat.load(data, options(), None, 0)
    with pytest.raises(ValueError, match=r"none\.jsonl is missing"):
        ceat.load(data, options(corpus="none.jsonl"), None, 0)
    with pytest.raises(ValueError, match="draws 1: must be at least 2"):
        ceat.load(data, options(draws=1), None, 0)


def test_a_limit_bounds_the_draws_and_the_contexts(scorer, data):
    rows = ceat.load(data, options(), 3, 0)
    assert len(ceat.score(scorer, rows, options(), 0)) == 3
    assert max(len(found) for row in rows for found in row["contexts"].values()) <= 3
