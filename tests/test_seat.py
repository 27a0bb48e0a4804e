"""SEAT: the task against the authors' definition on a tiny model, sentence by sentence."""

import json

import numpy as np
import pytest
import torch
from test_association import plain_effect

from eval.data import by_group
from eval.model import Scorer
from eval.tasks import seat

SENTENCES = {
    "targ1": ["This is John.", "That is Paul here.", "Here is Mike."],
    "targ2": ["This is Amy.", "That is Joan here.", "Here is Lisa."],
    "attr1": ["This is a career.", "It is an office.", "That is a salary."],
    "attr2": ["This is a family.", "That is a home.", "They are parents."],
}


@pytest.fixture
def data(tmp_path):
    (tmp_path / "seat").mkdir()
    for name in ("sent-weat6", "mine"):
        test = {part: {"category": part.upper(), "examples": texts} for part, texts in SENTENCES.items()}
        (tmp_path / "seat" / f"{name}.jsonl").write_text(json.dumps(test))
    return tmp_path


def options(**given):
    return {**seat.OPTIONS, "tests": "mine", **given}


def plain_vectors(scorer, pooling):
    """One sentence at a time, by transformers alone; bias-bench takes the mean, May et al. the last state."""
    found = {}
    for part, texts in SENTENCES.items():
        found[part] = []
        for text in texts:
            ids = scorer.tokenizer(text, return_tensors="pt")["input_ids"]
            with torch.inference_mode():
                states = scorer.model.transformer(ids).last_hidden_state[0]
            found[part].append((states[-1] if pooling == "last" else states.mean(0)).tolist())
    return [found[part] for part in seat.SETS]


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_effect_agrees_with_the_authors_definition(scorer, data, pooling):
    chosen = options(pooling=pooling)
    rows = seat.score(scorer, seat.load(data, chosen, None, 0), chosen, 0)
    metrics = seat.aggregate(json.loads(json.dumps(rows)), chosen, 0)
    expected = plain_effect(*plain_vectors(scorer, pooling))
    assert metrics["effect/mine"]["value"] == pytest.approx(expected, abs=1e-4)
    assert metrics["mean_abs_effect"]["value"] == pytest.approx(abs(expected), abs=1e-4)
    other = "mean" if pooling == "last" else "last"
    assert metrics[f"effect/mine@{other}"]["value"] == pytest.approx(
        plain_effect(*plain_vectors(scorer, other)), abs=1e-4
    )
    assert metrics["effect/mine"]["low"] < expected < metrics["effect/mine"]["high"]
    assert metrics["effect/mine"]["n"] == 6
    assert metrics["effect/mine"]["p"] * 20 == pytest.approx(
        round(metrics["effect/mine"]["p"] * 20)
    )  # of 20 partitions


def test_aggregate_by_hand():
    x, y = [0.3, 0.1], [0.2, 0.0]
    rows = [
        {"test": "t", "set": side, "s_last": s, "s_mean": -s}
        for side, values in (("targ1", x), ("targ2", y))
        for s in values
    ]
    metrics = seat.aggregate(rows, options(), 0)
    # difference .1 over the std of {0, .1, .2, .3}, √(.05/3); two of six pairs sum to .4 or more
    assert metrics["effect/t"]["value"] == pytest.approx(0.1 / (0.05 / 3) ** 0.5)
    assert metrics["effect/t"]["p"] == pytest.approx(2 / 6)
    assert metrics["effect/t@mean"]["value"] == pytest.approx(-0.1 / (0.05 / 3) ** 0.5)


def test_batches_and_bos(scorer, data, tiny_gpt2):
    rows = seat.load(data, options(), None, 0)
    one = Scorer(tiny_gpt2, device="cpu", batch_size=1)
    for a, b in zip(seat.score(scorer, rows, options(), 0), seat.score(one, rows, options(), 0), strict=True):
        assert (a["text"], a["s_last"]) == (b["text"], pytest.approx(b["s_last"], abs=1e-5))
    with_bos = seat.score(scorer, rows, options(bos=True), 0)
    assert with_bos[0]["s_last"] != pytest.approx(seat.score(scorer, rows, options(), 0)[0]["s_last"], abs=1e-4)


def test_tests_by_name(data):
    assert seat.test_names(data, "seat", "all", ()) == ["mine", "sent-weat6"]
    assert seat.test_names(data, "seat", "gender", seat.GENDER) == list(seat.GENDER)
    with pytest.raises(ValueError, match="did you mean mine"):
        seat.load(data, options(tests="mien"), None, 0)
    with pytest.raises(ValueError, match=r"sent-weat6b\.jsonl is missing"):
        seat.load(data, options(tests="gender"), None, 0)
    with pytest.raises(ValueError, match="pooling 'first'"):
        seat.load(data, options(pooling="first"), None, 0)
    (data / "seat" / "mine.jsonl").write_text('{"targ1": {"examples": ["a"]}}')
    with pytest.raises(ValueError, match="targ1 must hold a category and a list of two or more"):
        seat.load(data, options(), None, 0)
    (data / "seat" / "mine.jsonl").write_text("{")
    with pytest.raises(ValueError, match="not JSON"):
        seat.load(data, options(), None, 0)


def test_limit_keeps_every_set(data):
    rows = seat.load(data, options(), 8, 0)
    assert {name: len(part) for name, part in by_group(rows, "set").items()} == dict.fromkeys(seat.SETS, 2)


def test_the_real_tests(shared_data):
    rows = seat.load(shared_data, {**seat.OPTIONS}, None, 0)
    assert list(by_group(rows, "test")) == list(seat.GENDER)
    sizes = {
        name: [len(found) for found in by_group(part, "set").values()] for name, part in by_group(rows, "test").items()
    }
    assert sizes["sent-weat6"] == [64, 64, 101, 112]
    assert sizes["sent-weat8b"] == [56, 56, 64, 64]
    assert len(by_group(seat.load(shared_data, {**seat.OPTIONS, "tests": "all"}, None, 0), "test")) == 50


def test_p_needs_more_than_chance():
    generator = np.random.default_rng(0)
    rows = [
        {"test": "t", "set": side, "s_last": mean + s, "s_mean": s}
        for side, mean in (("targ1", 1.0), ("targ2", 0.0))
        for s in generator.normal(size=40)
    ]
    metrics = seat.aggregate(rows, options(permutations=5000), 0)
    assert metrics["effect/t"]["p"] < 0.01 < metrics["effect/t@mean"]["p"]


def test_the_mean_of_absolute_effects_lies_in_its_interval_and_is_held_against_chance():
    """|x| is pushed up by noise: of sets that do not differ, the mean is what chance gives."""
    generator = np.random.default_rng(1)
    tests = ("one", "two", "three")
    for shift, differs in ((0.0, False), (2.0, True)):
        rows = [
            {"test": test, "set": side, "s_last": s + shift * (side == "targ1"), "s_mean": s}
            for test in tests
            for side in ("targ1", "targ2")
            for s in generator.normal(size=12)
        ]
        metrics = seat.aggregate(rows, options(permutations=200), 0)
        mean, chance = metrics["mean_abs_effect"], metrics["mean_abs_effect_by_chance"]
        assert mean["low"] <= mean["value"] <= mean["high"] and mean["low"] >= 0
        assert (chance["low"] <= mean["value"] <= chance["high"]) is not differs
        assert (mean["p"] < 0.01) is differs
        assert 0.2 < chance["value"] < 0.5  # of 12 against 12: the mean of |N(0, 1/6)| is about .33


def test_a_limit_that_leaves_few_sentences_says_so(data, capsys):
    seat.load(data, options(), 200, 0)
    assert capsys.readouterr().err == ""
    seat.load(data, options(), 8, 0)
    assert capsys.readouterr().err == "seat: --limit 8 leaves 2 sentences a set: their effect sizes mean nothing\n"
