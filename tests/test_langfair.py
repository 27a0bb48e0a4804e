"""Likeness of texts, co-occurrence, and HONEST on sampled texts, against langfair 0.8.0.

The constants are what langfair's own functions gave for these texts, with the tokens, stop words and word lists that
are used here (its own need a download).
"""

import json

import numpy as np
import pytest
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS
from tiny_data import write_table

from eval.measures import similarity
from eval.run import evaluate
from eval.task import MissingData
from eval.tasks import TASKS, cooccurrence, counterfactual_prompts, honest

TEXTS = [
    "She met the old nurse, and the nurse thanked her. The doctor waited for him.",
    "He is a doctor and his wife is a nurse; the engineer likes her house.",
    "The women saw the engineer in the garden with a man, a boy and his dog.",
    "The bridge is old.",
    "",
    "The girl's teacher, a kind nurse, gave himself a book. He's a cook; so is she.",
]
FIRST = ["The nurse said that she had finished her shifts.", "He walked home, tired.", "a b", "Old bridges fall"]
SECOND = ["The nurses said that she finished the shift.", "He was walking home; tired.", "c d", "Old bridges fall"]


def options(task, **given):
    return {**TASKS[task].options, **given}


def value(metrics, name):
    return metrics[name]["value"]


def rows_of(texts):
    chosen = frozenset(cooccurrence.TARGETS)
    return [
        {"prompt_number": n % 3, **cooccurrence.counts(text, chosen, 0.95, ENGLISH_STOP_WORDS)}
        for n, text in enumerate(texts)
    ]


@pytest.fixture
def data(tmp_path):
    (tmp_path / "bold").mkdir()
    prompts = {"nurse": {"a": ["The nurse said", "She is a nurse"]}, "men": {"b": ["He said that", "The boy and"]}}
    for name in ("profession_prompt", "gender_prompt"):
        (tmp_path / "bold" / f"{name}.json").write_text(json.dumps(prompts))
    return tmp_path


def test_cooccurrence_is_langfairs():
    found = cooccurrence.aggregate(rows_of(TEXTS), options("cooccurrence"), 0)
    assert value(found, "cobs") == pytest.approx(0.17778201132714327, rel=1e-12)
    assert value(found, "association") == pytest.approx(0.10952380952380951, rel=1e-12)
    assert value(found, "targets_seen") == 5  # nurse, doctor, engineer, teacher, cook
    for name in ("cobs", "association"):
        assert found[name]["low"] <= found[name]["value"] <= found[name]["high"]


def test_cooccurrence_by_hand():
    rows = rows_of(["he nurse", "she nurse", "nurse x x she"])
    found = cooccurrence.aggregate(rows, options("cooccurrence"), 0)
    assert value(found, "association") == pytest.approx(2 / 3 - 1 / 2)
    near = [0.95 + 0.95**3, 0.95]  # female, male; all words: x and x too
    every = [near[0] + 0.95**2 + 0.95, 0.95]
    assert value(found, "cobs") == pytest.approx(abs(np.log10((near[0] / every[0] / 2) / (near[1] / every[1] / 1))))
    nothing = cooccurrence.aggregate(rows_of(["The bridge", "he nurse"]), options("cooccurrence"), 0)
    assert (value(nothing, "cobs"), value(nothing, "association")) == (None, 0.5)
    json.dumps(nothing, allow_nan=False)


def test_cooccurrence_judges_the_texts_of_bold(tiny_gpt2, data):
    (data / "words.txt").write_text("Nurse\nbridge\n")
    sampling = {"texts_per_prompt": 2, "runs": 1, "max_new_tokens": 12}
    tasks = {"bold": sampling, "cooccurrence": {"targets": str(data / "words.txt")}}
    evaluate({"m": tiny_gpt2}, tasks, data_dir=data, output_dir=data / "out", quiet=True)
    texts = [[json.loads(line)["text"] for line in (data / "out" / f"rows-{task}.jsonl").open()] for task in tasks]
    assert texts[0] == texts[1]
    for wrong, message in (({"targets": "none.txt"}, "none.txt is missing"), ({"beta": 2.0}, "must be 0 to 1")):
        with pytest.raises(ValueError, match=message):
            cooccurrence.load(data, options("cooccurrence", **wrong), None, 0)


def test_likeness_of_texts_is_langfairs():
    measures = similarity.text_similarities("x")
    found = {name: [alike(*pair) for pair in zip(FIRST, SECOND)] for name, alike in measures.items()}
    assert found["bleu"] == pytest.approx([0.1242188995129533, 0.08307018474412793, 0, 0.5623413251903491])
    assert found["rouge_l"] == pytest.approx([0.823529411764706, 0.888888888888889, 0, 1])
    assert measures["bleu"]("", "a") == 0
    lengths = [np.array([len(text) / 100 for text in side]) for side in (FIRST, SECOND)]
    assert similarity.wasserstein(*lengths) == pytest.approx(0.0225)


def test_a_missing_package_is_one_line(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "rouge_score.rouge_scorer", None)
    with pytest.raises(MissingData, match=r"pip install 'evenhand\[similarity\]'"):
        similarity.text_similarities("x")


def test_embeddings_are_means_over_tokens(tiny_gpt2, scorer):
    found = similarity.embeddings(str(tiny_gpt2), ["The nurse said", "a", "he and she"], device="cpu", batch_size=2)
    for text, vector in zip(("The nurse said", "a", "he and she"), found):
        states = scorer.hidden_states(scorer.encode([text]))[0].mean(0)
        np.testing.assert_allclose(vector, states / np.linalg.norm(states), atol=1e-5)


def test_likeness_of_rows_by_hand(few_words):
    base = {"tv": 0.1, "js": 0.1, "side": "female"}
    rows = [
        {**base, "bleu": 0.2, "bleu_same": 0.5, "texts_negative": [0.1, 0.9], "reversed_texts_negative": [0.2, 0.2]},
        {**base, "bleu": 0.4, "bleu_same": 0.5, "texts_negative": [0.3, 0.3], "reversed_texts_negative": [0.7, 0.1]},
    ]
    rows[1]["side"] = "male"
    for row in rows:
        row |= {"texts_sentiment": 0.0, "reversed_texts_sentiment": 0.0}
    found = counterfactual_prompts.aggregate(rows, options("counterfactual_prompts", lexicon=str(few_words)), 0)
    assert (value(found, "bleu"), value(found, "bleu_gap")) == pytest.approx((0.3, 0.2))
    # female .1 .1 .7 .9, male .2 .2 .3 .3
    assert value(found, "sentiment_parity") == pytest.approx((0.1 + 0.1 + 0.4 + 0.6) / 4)
    assert found["sentiment_parity"]["low"] <= 0.3 <= found["sentiment_parity"]["high"]


def test_texts_that_differ_in_the_role_alone_are_alike(scorer, data, tiny_gpt2, few_words, monkeypatch):
    def sample(prompts, **_):
        texts = {"She": " said that she saw the woman.", "He ": " said that he saw the man."}
        return [next((text for start, text in texts.items() if p.startswith(start)), " x") for p in prompts]

    monkeypatch.setattr(scorer, "sample", sample)
    given = options("counterfactual_prompts", texts_per_prompt=2, similarity=True, embedder=str(tiny_gpt2))
    given["lexicon"] = str(few_words)
    scored = counterfactual_prompts.score(scorer, counterfactual_prompts.load(data, given, None, 0), given, 0)
    first = next(row for row in scored if row["prompt"] == "She is a nurse")
    assert first["texts"] != first["reversed_texts"]
    for name in ("bleu", "rouge_l", "cosine"):
        assert first[name] == pytest.approx(first[f"{name}_same"]) == pytest.approx(1)
    found = counterfactual_prompts.aggregate(scored, given, 0)
    assert {"bleu", "rouge_l", "cosine", "bleu_gap", "rouge_l_gap", "cosine_gap"} <= set(found)
    for wrong in ({"similarity": True}, {"embedder": str(tiny_gpt2)}):
        with pytest.raises(ValueError, match="give texts_per_prompt too"):
            counterfactual_prompts.load(data, options("counterfactual_prompts", **wrong), None, 0)
    with pytest.raises(ValueError, match="embedder 'none': no such folder"):
        counterfactual_prompts.load(data, {**given, "embedder": "none"}, None, 0)


def test_honest_judges_sampled_texts(scorer, tmp_path, monkeypatch):
    header = ["template_masked", "raw", "identity", "number", "category", "type"]
    rows = [
        (f"{who} likes [M].", "[I] likes [M]", who, "singular", side, "x")
        for who, side in (("she", "female"), ("he", "male"))
    ]
    write_table(tmp_path / "honest" / "en_template.tsv", header, rows, "\t")
    words = [("hurt", "EN1", "cds", "conservative"), ("cafe", "EN2", "qas", "conservative")]
    write_table(tmp_path / "hurtlex.tsv", ["lemma", "id", "category", "level"], words, "\t")
    given = options("honest", texts_per_prompt=3, max_new_tokens=5, lexicon=str(tmp_path / "hurtlex.tsv"))
    loaded = honest.load(tmp_path, given, None, 0)
    texts = honest.score(scorer, loaded, given, 0)[0]["texts"]
    assert texts == scorer.sample(["she likes"] * 3 + ["he likes"] * 3, max_new_tokens=5)[:3]
    sampled = [" a Café, a café.", " the idiot", " books", " hurt", " hurts", " nothing"]
    monkeypatch.setattr(scorer, "sample", lambda *_, **__: sampled)
    found = honest.aggregate(honest.score(scorer, loaded, given, 0), given, 0)
    assert value(found, "honest_sampled") == pytest.approx(2 / 6)  # texts, not words
    assert value(found, "honest_sampled_gap") == 0
    assert value(found, "listed_sampled/female") == pytest.approx(1 / 3)
    assert found["listed_sampled"]["n"] == 6
