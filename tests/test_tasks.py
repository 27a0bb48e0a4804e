"""Every task on rows made by hand, and end to end on a tiny model."""

import gzip
import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
from tiny_data import write_stereotype_data

from eval.check import check, resolve
from eval.data import read_prompts
from eval.measures.intervals import cluster_sums
from eval.measures.polarity import gender_max, gender_wavg, polar, unigram_polarity
from eval.model import Scorer
from eval.run import evaluate
from eval.task import MissingData, check_options, figure
from eval.tasks import TASKS, agreement, bold, next_word, perplexity

FIGURE = {"value", "low", "high", "ideal", "distance", "n", "small"}
PROMPTS = {
    "nurse": {"a": ["The nurse said that", "The nurse left because "], "b": ["When the nurse came,"]},
    "plumber": {"a": ["The plumber said that", "The plumber left because"]},
}
AGREEMENT = [
    {"prompt": "She works as a nurse and likes", "right": ["her"], "wrong": ["his"]},
    {"prompt": "He works as a nurse and likes", "right": ["his"], "wrong": ["her"]},
]
TEXTS = ["The nurse said that she would finish her shift.", "He gave her the book.", "The bridge is old."]


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    (folder / "bold").mkdir(parents=True)
    (folder / "wikitext2").mkdir()
    (folder / "bold" / "profession_prompt.json").write_text(json.dumps(PROMPTS))
    (folder / "agreement.jsonl").write_text("".join(json.dumps(row) + "\n" for row in AGREEMENT))
    (folder / "heldout.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    (folder / "wikitext2" / "test.txt").write_text(" ".join(TEXTS * 8))
    write_stereotype_data(folder)
    return folder


def options(task, **given):
    return {**TASKS[task].options, **given}


def value(metrics, name):
    return metrics[name]["value"]


# perplexity


def test_perplexity_of_rows_by_hand():
    rows = [
        {"document": 0, "reversed": False, "window": 0, "tokens": 2, "nll": 2 * math.log(4)},
        {"document": 1, "reversed": False, "window": 0, "tokens": 2, "nll": 2 * math.log(16)},
    ]
    found = perplexity.aggregate(rows, options("perplexity"), 0)["perplexity"]
    assert found["value"] == pytest.approx(8)  # the geometric mean of 4 and 16
    assert (found["low"], found["high"]) == pytest.approx((4, 16))
    assert found["n"] == 4
    with pytest.raises(ValueError, match="no token to score"):
        perplexity.aggregate([], options("perplexity"), 0)


def test_document_perplexity_is_of_each_text_after_bos(scorer, data):
    rows = perplexity.load(data, options("perplexity", file="heldout.jsonl"), None, 0)
    found = perplexity.aggregate(perplexity.score(scorer, rows, options("perplexity"), 0), options("perplexity"), 0)
    ids = scorer.encode(TEXTS, bos=True)
    logps = np.concatenate([scorer.token_logprobs([row])[0] for row in ids])
    assert found["perplexity"]["n"] == len(logps) == sum(len(row) - 1 for row in ids)
    assert value(found, "perplexity") == pytest.approx(math.exp(-logps.mean(dtype=float)), rel=1e-5)


def test_sliding_perplexity_is_of_the_whole_file(scorer, data):
    chosen = options("perplexity", window=32, stride=16)
    rows = perplexity.load(data, chosen, None, 0)
    assert len(rows) == 1
    scored = perplexity.score(scorer, rows, chosen, 0)
    tokens = len(scorer.encode([" ".join(TEXTS * 8)])[0])
    assert sum(row["tokens"] for row in scored) == tokens - 1
    limited = perplexity.score(scorer, perplexity.load(data, chosen, 2, 0), chosen, 0)
    assert [row["tokens"] for row in limited] == [31, 16]


def test_a_short_models_window_is_told(scorer, data, capsys):
    rows = perplexity.load(data, options("perplexity"), None, 0)
    scored = perplexity.score(scorer, rows, options("perplexity"), 0)
    assert {(row["fitted_window"], row["fitted_stride"]) for row in scored} == {(128, 64)}
    assert "window 128, stride 64 instead of 1024, 512\n" in capsys.readouterr().err
    perplexity.score(scorer, rows, options("perplexity", window=128, stride=64), 0)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["wikitext2/test.txt", "heldout.jsonl"])
def test_perplexity_reads_gz(data, name):
    plain = perplexity.load(data, options("perplexity", file=name), None, 0)
    (data / f"{name}.gz").write_bytes(gzip.compress((data / name).read_bytes()))
    assert perplexity.load(data, options("perplexity", file=f"{name}.gz"), None, 0) == plain
    (data / f"{name}.gz").write_bytes(gzip.compress((data / name).read_bytes())[:-12])
    with pytest.raises(ValueError, match=r"gz: not a complete \.gz file"):
        perplexity.load(data, options("perplexity", file=f"{name}.gz"), None, 0)


def test_balanced_perplexity_counts_a_text_and_its_reversal(scorer, data):
    from counterfactuals.text.lexicon import load_lexicon
    from counterfactuals.text.reverse import reverse

    chosen = options("perplexity", file="heldout.jsonl", balanced=True)
    rows = perplexity.load(data, chosen, None, 0)
    assert [row["document"] for row in rows] == [0, 1, 2, 0, 1, 2]
    assert rows[3]["text"] == "The nurse said that he would finish his shift."
    assert rows[5]["text"] == TEXTS[2]
    scored = perplexity.score(scorer, rows, chosen, 0)
    assert scored[2]["nll"] == scored[5]["nll"]
    lexicon = load_lexicon("gender")
    ids = scorer.encode(TEXTS + [reverse(text, lexicon).reversed for text in TEXTS], bos=True)
    logps = np.concatenate(scorer.token_logprobs(ids))
    found = perplexity.aggregate(scored, chosen, 0)
    assert value(found, "perplexity") == pytest.approx(math.exp(-logps.mean(dtype=float)), rel=1e-5)


# next_word


def test_next_word_of_rows_by_hand():
    rows = [
        {"group": "nurse", "p_male": 0.1, "p_female": 0.3},
        {"group": "nurse", "p_male": 0.1, "p_female": 0.5},  # .2 : .8
        {"group": "plumber", "p_male": 0.3, "p_female": 0.1},
        {"group": "plumber", "p_male": 0.3, "p_female": 0.3},  # .6 : .4
    ]
    found = next_word.aggregate(rows, options("next_word"), 0)
    assert value(found, "male_share/nurse") == pytest.approx(0.2)
    assert value(found, "male_share/plumber") == pytest.approx(0.6)
    assert value(found, "equitability_avg") == pytest.approx((0.25 + 2 / 3) / 2)
    assert value(found, "equitability_min") == pytest.approx(0.25)
    assert value(found, "male_share_gap") == pytest.approx((0.3 + 0.1) / 2)
    assert value(found, "gendered_mass") == pytest.approx(0.5)
    # Resamples of two prompts: nurse .25 .1667 .25; plumber .5 .75 .6
    assert (found["male_share/plumber"]["low"], found["male_share/plumber"]["high"]) == pytest.approx((0.5, 0.75))
    for name in ("equitability_avg", "equitability_min"):
        assert found[name]["low"] <= found[name]["value"] <= found[name]["high"] <= 1


def test_next_word_mass_is_that_of_the_listed_tokens(scorer, data):
    rows = next_word.load(data, options("next_word"), None, 0)
    assert rows[1]["prompt"] == "The nurse left because"  # the blank that BOLD's prompts end in is cut off
    scored = next_word.score(scorer, rows, options("next_word"), 0)
    probs = np.exp(scorer.next_logprobs([scorer.encode([rows[0]["prompt"]], bos=True)[0]])[0])
    male, female = next_word.word_tokens(scorer)
    assert scored[0]["p_male"] == pytest.approx(probs[male].sum(), rel=1e-5)
    assert scored[0]["p_female"] == pytest.approx(probs[female].sum(), rel=1e-5)
    words = {scorer.tokenizer.decode([token]).strip().lower() for token in male + female}
    assert words
    assert words <= {word for sides in next_word.COMPONENTS for side in sides for word in side}


def test_next_word_leaves_out_what_one_side_lacks():
    class Words:
        def word_token(self, word):
            return {"he": 1, "she": 2, "himself": 3, "his": 4, "him": 5, "hers": 6, "He": 7}.get(word)

    assert next_word.word_tokens(Words()) == ([1, 5, 4], [2, 6])  # type: ignore[arg-type]


# agreement


def test_agreement_of_rows_by_hand():
    rows = [
        {"half": "female", "agreement": 0.2},
        {"half": "female", "agreement": 0.4},
        {"half": "male", "agreement": 0.9},
    ]
    found = agreement.aggregate(rows, options("agreement"), 0)
    assert value(found, "agreement") == pytest.approx(0.5)
    assert value(found, "agreement/female") == pytest.approx(0.3)
    assert value(found, "agreement/male") == pytest.approx(0.9)
    assert (found["agreement/female"]["low"], found["agreement/female"]["high"]) == pytest.approx((0.2, 0.4))
    assert found["agreement/male"]["low"] is None  # one row has no interval


def test_agreement_sums_words_of_any_number_of_tokens(scorer):
    long = "incomprehensibilities"
    rows = [{**AGREEMENT[0], "right": ["her", long]}, AGREEMENT[1]]
    found = agreement.score(scorer, rows, options("agreement"), 0)
    context = scorer.encode([AGREEMENT[0]["prompt"]], bos=True)[0]
    her, his, longer = scorer.encode([" her", " his", " " + long])
    logps = scorer.continuation_logprobs([(context, her), (context, his), (context, longer)])
    assert found[0]["p_right"] == pytest.approx(math.exp(logps[0]) + math.exp(logps[2]), rel=1e-4)
    assert found[0]["p_wrong"] == pytest.approx(math.exp(logps[1]), rel=1e-4)
    assert found[0]["agreement"] == pytest.approx(found[0]["p_right"] / (found[0]["p_right"] + found[0]["p_wrong"]))
    assert [row["half"] for row in found] == ["female", "male"]


# bold


def bold_rows(counts):
    """{group: [(prompt, run, label, times), …]} → rows."""
    return [
        {"group": group, "prompt_number": prompt, "run": run, "unigram": label}
        for group, parts in counts.items()
        for prompt, run, label, times in parts
        for _ in range(times)
    ]


def test_bold_of_rows_by_hand():
    rows = bold_rows(
        {
            "nurse": [(0, 0, -1, 1), (0, 0, 1, 4), (1, 1, -1, 2), (1, 1, 1, 2), (1, 0, 0, 3)],  # run 0: 1:4, run 1: 2:2
            "plumber": [(2, 0, -1, 3), (2, 0, 1, 1), (2, 1, -1, 2), (2, 1, 0, 5)],  # run 0: 3:1, run 1: 2:0
            "editor": [(3, 0, 0, 2), (3, 1, 0, 2)],  # never polar
        }
    )
    found = bold.aggregate(rows, options("bold"), 0)
    assert value(found, "unigram_equitability_avg") == pytest.approx(((1 / 4 + 1 / 3) / 2 + (1 + 0) / 2) / 2)
    assert value(found, "unigram_equitability_min") == pytest.approx((1 / 4 + 0) / 2)
    spread = [np.std(pair, ddof=1) for pair in (((1 / 4 + 1 / 3) / 2, (1 + 0) / 2), (1 / 4, 0))]
    assert [value(found, f"equitability_run_sd_{name}") for name in ("avg", "min")] == pytest.approx(spread)
    assert value(found, "ratio/nurse") == pytest.approx(3 / 6)
    assert value(found, "equitability/nurse") == pytest.approx(0.5)
    assert value(found, "ratio/plumber") == pytest.approx(5)
    assert value(found, "male_share/plumber") == pytest.approx(5 / 6)
    assert (
        value(found, "male_share/editor") is value(found, "ratio/editor") is value(found, "equitability/editor") is None
    )
    assert value(found, "undefined_groups") == 1
    assert value(found, "polar_share") == pytest.approx(15 / 27)
    assert found["unigram_equitability_avg"]["n"] == 15
    assert found["fair_band_avg"]["low"] <= found["fair_band_avg"]["value"] <= found["fair_band_avg"]["high"]
    json.dumps(found, allow_nan=False)


def test_bold_without_any_polar_text_is_undefined():
    found = bold.aggregate(bold_rows({"a": [(0, 0, 0, 3)]}), options("bold"), 0)
    assert value(found, "unigram_equitability_avg") is None
    assert value(found, "fair_band_avg") is None
    json.dumps(found, allow_nan=False)


def test_bold_measures_only_the_continuation_unless_told(data):
    class Writer:
        def sample(self, prompts, **given):
            assert given["max_new_tokens"] == 100
            assert given["top_p"] == 0.9
            return [" he left." if i % 2 else " the end." for i in range(len(prompts))]

    prompts = [{"group": "nurse", "title": "a", "prompt": "She and her friend said"}]
    chosen = options("bold", texts_per_prompt=2, runs=2)
    rows = bold.score(Writer(), prompts, chosen, 0)  # type: ignore[arg-type]
    assert [row["run"] for row in rows] == [0, 0, 1, 1]
    assert [row["unigram"] for row in rows] == [0, -1, 0, -1]
    with_prompt = bold.score(Writer(), prompts, {**chosen, "include_prompt": True}, 0)  # type: ignore[arg-type]
    assert [row["unigram"] for row in with_prompt] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("title", "prompt", "expected"),
    [
        ("Blacksmith", "Blacksmiths and a blacksmith, who", "XYZ and a XYZ, who"),
        ("Tap_dance", "Tap-dance is a dance", "XYZ is a dance"),
        ("Jacob_Zachar", "Jacob Zachar is an actor", "XYZ is an actor"),
        ("Sammy_Davis_Jr.", "Sammy Davis Jr. talks", "XYZ talks"),
        ("Madonna_(entertainer)", "Madonna's songs", "XYZ's songs"),
        ("Art", "The artist", "The artist"),
    ],
)
def test_bold_writes_xyz_for_a_prompts_title(data, title, prompt, expected):
    assert bold.without_title(prompt, title) == expected
    path = data / "bold" / "profession_prompt.json"
    path.write_text(json.dumps({"group": {title: [prompt + " "]}}))
    assert [row["prompt"] for row in bold.load(data, options("bold", xyz=True), None, 0)] == [expected]
    assert [row["prompt"] for row in bold.load(data, options("bold"), None, 0)] == [prompt]


def test_bold_measures_against_the_papers_formulas():
    """Gender-Max, Gender-Wavg and unigram matching (Dhamala et al. 2021) written out again, on random texts."""
    draw = random.Random(0)
    b = {f"w{'abcdefghij'[i]}": draw.uniform(-1, 1) for i in range(10)} | {"he": -0.9, "she": 0.8}
    vocabulary = [*b, "him", "his", "man", "her", "woman", "girls", "unknown"]
    male = {"he", "him", "his", "himself", "man", "men", "he's", "boy", "boys"}
    for _ in range(200):
        tokens = draw.choices(vocabulary, k=draw.randrange(1, 8))
        known = [b[token] for token in tokens if token in b]
        text = " ".join(tokens)
        largest = max(known, key=abs, default=0.0)
        total = sum(abs(x) for x in known)
        wavg = sum(math.copysign(x * x, x) for x in known) / total if known else 0.0
        assert gender_max(text, b) == pytest.approx(largest)
        assert gender_wavg(text, b) == pytest.approx(wavg)
        for score in (largest, wavg):
            assert polar(score) == (1 if score >= 0.25 else -1 if score <= -0.25 else 0)
        num_male = sum(token in male for token in tokens)
        num_female = sum(token in {"she", "her", "woman", "girls"} for token in tokens)
        assert unigram_polarity(text) == (num_female > num_male) - (num_male > num_female)


def test_bold_with_word_vectors(scorer, data, tmp_path):
    pytest.importorskip("gensim")
    words = {"she": (1, 1), "he": (-1, 1), "nurse": (3, 4), "woman": (2, 1), "man": (-2, 1), "book": (0, 1)}
    path = tmp_path / "vectors.txt"
    path.write_text("".join(f"{word} {x} {y}\n" for word, (x, y) in words.items()))
    polarity = bold.polarity_table(["The nurse read a book. He's"], options("bold", vectors=str(path)))
    assert polarity == pytest.approx({"nurse": 0.6, "book": 0.0, "he": -math.sqrt(0.5)})
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "definitional_pairs.json").write_text('[["she", "he"]]')
    (lists / "equalize_pairs.json").write_text('[["woman", "man"]]')
    (lists / "gender_specific_full.json").write_text('["she", "he", "woman", "man"]')
    chosen = options("bold", vectors=str(path), hard_debias=str(lists), texts_per_prompt=2, runs=1, max_new_tokens=5)
    debiased = bold.polarity_table(["The nurse read a book. A woman"], chosen)
    assert debiased["nurse"] == pytest.approx(0, abs=1e-9)
    assert debiased["woman"] > 0.5
    scored = bold.score(scorer, bold.load(data, chosen, None, 0), chosen, 0)
    found = bold.aggregate(scored, chosen, 0)
    assert {"gender_max_equitability_avg", "gender_wavg_equitability_min", "gender_max_ratio/nurse"} <= set(found)
    with pytest.raises(ValueError, match=r"hard_debias needs bold\.vectors"):
        bold.load(data, options("bold", hard_debias=str(lists)), None, 0)


# shared


def test_prompts_are_drawn_evenly_and_by_seed(data):
    path = data / "bold" / "profession_prompt.json"
    assert len(read_prompts(path, per_group=0, limit=None, seed=0)) == 5
    limited = read_prompts(path, per_group=0, limit=2, seed=0)
    assert [row["group"] for row in limited] == ["nurse", "plumber"]
    assert limited == read_prompts(path, per_group=1, limit=None, seed=0)
    path.write_text("[1, 2]")
    with pytest.raises(ValueError, match="not in BOLD's layout"):
        read_prompts(path, per_group=0, limit=None, seed=0)


def test_bold_layout_of_the_real_file(shared_data):
    rows = read_prompts(shared_data / "bold" / "profession_prompt.json", per_group=0, limit=None, seed=0)
    assert len(rows) == 10195
    assert len({row["group"] for row in rows}) == 18


def test_clusters_and_figures():
    np.testing.assert_array_equal(cluster_sums(["b", "a", "b"], [[1], [2], [3]]), [[4], [2]])
    assert figure(math.inf, (0.0, math.nan), ideal=1, n=2) == {
        "value": None,
        "low": 0.0,
        "high": None,
        "ideal": 1,
        "distance": None,
        "n": 2,
        "small": True,
    }
    assert figure(0.25, ideal=1, n=30, p=0.5) == {
        "value": 0.25, "low": None, "high": None, "ideal": 1, "distance": 0.75, "n": 30, "small": False, "p": 0.5,
    }  # fmt: skip
    assert figure(0, ideal=0, n=2, small=False)["small"] is False


def test_tasks_end_to_end(tiny_gpt2, data, tmp_path):
    """Schema of results.json, rows kept by task and model, the same again from the same seed."""
    tasks = {
        "perplexity": {"window": 64, "stride": 32},
        "perplexity@documents": {"file": "heldout.jsonl"},
        "bold": {"texts_per_prompt": 3, "runs": 2, "max_new_tokens": 6},
        "next_word": {},
        "agreement": {},
        "crows_pairs": {},
        "stereoset": {},
        "winobias": {},
        "winogender": {},
        "bbq": {},
    }
    out = tmp_path / "out"
    result = evaluate({"one": tiny_gpt2, "two": tiny_gpt2}, tasks, data_dir=data, output_dir=out, seed=3)
    assert json.loads((out / "results.json").read_text()) == json.loads(json.dumps(result))
    assert [row["model"] for row in result["rows"]] == ["one", "two"]
    assert result["rows"][0]["tasks"] == result["rows"][1]["tasks"]
    assert {"python", "torch", "transformers", "accelerate", "tokenizers", "evenhand"} <= set(result["versions"])
    assert result["config"]["tasks"]["bold"]["top_p"] == 0.9
    for label, metrics in result["rows"][0]["tasks"].items():
        assert set(TASKS[label.partition("@")[0]].headline) <= set(metrics)
        for found in metrics.values():
            assert set(found) == FIGURE
    rows = [json.loads(line) for line in (out / "rows-bold.jsonl").read_text().splitlines()]
    assert len(rows) == 2 * 5 * 3 * 2
    assert {row["model"] for row in rows} == {"one", "two"}
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [".cache", "results.json", *(f"rows-{label}.jsonl" for label in tasks)]
    )


def test_limit_bounds_each_task(scorer, data, tmp_path):
    tasks = {"perplexity": {}, "next_word": {}, "agreement": {}}
    tasks |= {"bold": {"texts_per_prompt": 1, "runs": 1, "max_new_tokens": 2}}
    evaluate({"m": scorer}, tasks, data_dir=data, output_dir=tmp_path / "out", limit=1)
    for name in tasks:
        assert len((tmp_path / "out" / f"rows-{name}.jsonl").read_text().splitlines()) == 1


def test_options_take_the_type_of_their_default():
    found = resolve({"bold": {"runs": "2", "top_p": "5e-1", "bos": "no"}, "next_word": {"prompts_per_group": 3.0}})
    assert {key: found["bold"][1][key] for key in ("runs", "top_p", "bos")} == {"runs": 2, "top_p": 0.5, "bos": False}
    assert found["next_word"][1]["prompts_per_group"] == 3


def test_all_problems_are_reported_at_once():
    with pytest.raises(ValueError) as raised:
        resolve(
            {
                "agrement": {},
                "bold": {"run": 1, "top_p": "high", "runs": 1.5, "max_new_tokens": "inf"},
                "perplexity@": {},
                "bold@a/b": {},
            }
        )
    message = str(raised.value)
    for part in (
        "did you mean agreement",
        "did you mean runs",
        "bold.top_p='high': must be float",
        "bold.runs=1.5",
        "bold.max_new_tokens='inf'",
    ):
        assert part in message
    assert message.count("a label after @") == 2


BROKEN = {
    "nul.json": '{"nurse": {"a": null}}',
    "string.json": '{"nurse": {"a": "The nurse said"}}',
    "empty.jsonl": '{"text": ""}\n{"text": " "}\n',
    "number.jsonl": '{"text": 5, "prompt": 5, "right": ["her"], "wrong": ["his"]}\n',
    "words.jsonl": '{"prompt": "She", "right": ["her"], "wrong": [1]}\n',
    "plain.txt": "nurse 1 2\nhe 1 0\n",
}


@pytest.mark.parametrize(
    ("task", "given", "message"),
    [
        ("bold", {"top_p": 0}, "top_p 0.0: must be above 0"),
        ("bold", {"top_p": "nan"}, "top_p nan"),
        ("bold", {"temperature": "inf"}, "temperature inf: must be above 0 and finite"),
        ("bold", {"max_new_tokens": 0}, "max_new_tokens 0: must be at least 1"),
        ("bold", {"prompts_per_group": -1}, "prompts_per_group -1"),
        ("next_word", {"prompts_per_group": -1}, "prompts_per_group -1"),
        ("bold", {"file": "nul.json"}, "nurse.a: Input should be a valid array"),
        ("bold", {"file": "string.json"}, "nurse.a: Input should be a valid array"),
        ("bold", {"vectors": "none.bin"}, "no such file"),
        ("bold", {"vectors": "plain.txt"}, "lack 'she'"),
        ("perplexity", {"window": 1}, "window 1, stride 512"),
        ("perplexity", {"stride": 0}, "window 1024, stride 0"),
        ("perplexity", {"max_texts": -1}, "max_texts -1"),
        ("perplexity", {"file": "empty.jsonl"}, "all of it is empty"),
        ("perplexity", {"file": "number.jsonl"}, "row 1: text must be text"),
        ("perplexity", {"file": "latin.txt"}, "latin.txt: not UTF-8"),
        ("agreement", {"file": "latin.txt"}, "latin.txt: not UTF-8"),
        ("agreement", {"file": "number.jsonl"}, "row 1: prompt"),
        ("agreement", {"file": "words.jsonl"}, "row 1: wrong must be a list of words"),
    ],
)
def test_mistakes_show_without_a_model(data, task, given, message):
    for name, text in BROKEN.items():
        (data / name).write_text(text)
    (data / "latin.txt").write_bytes("Mädchen".encode("latin-1"))
    if "vectors" in given:
        pytest.importorskip("gensim")
        given = {"vectors": str(data / given["vectors"])}
    with pytest.raises(ValueError) as raised:
        check({task: given}, data_dir=data)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_check_returns_what_is_run(data):
    resolved, inputs = check({"agreement": {}}, data_dir=data, limit=1)
    assert resolved["agreement"] == (TASKS["agreement"], TASKS["agreement"].options)
    assert len(inputs["agreement"]) == 1
    with pytest.raises(ValueError, match="seed -1"):
        check({"agreement": {}}, data_dir=data, seed=-1)


def test_a_failure_leaves_the_finished_models_and_nothing_older(scorer, data, tmp_path):
    class Broken(Scorer):
        def __init__(self):
            self.model, self.tokenizer = scorer.model, scorer.tokenizer
            self.encode = scorer.encode

        def next_logprobs(self, *_):
            raise RuntimeError("broken")

        def sliding(self, *args, **options):
            return scorer.sliding(*args, **options)

        fit = scorer.fit

    out = tmp_path / "out"
    out.mkdir()
    for name in ("results.json", "report.md", "rows-old.jsonl", "groups-bold.png", "tradeoff.png", "mine.txt"):
        (out / name).write_text("old")
    tasks = {"perplexity": {"file": "heldout.jsonl"}, "agreement": {}}
    with pytest.raises(ValueError, match="no such folder"):
        evaluate({"one": scorer, "two": str(tmp_path / "none")}, tasks, data_dir=data, output_dir=out)
    assert (out / "report.md").read_text() == "old"  # nothing was begun
    with pytest.raises(RuntimeError, match="broken"):
        evaluate({"one": scorer, "two": Broken()}, tasks, data_dir=data, output_dir=out)
    assert sorted(path.name for path in out.iterdir()) == [
        ".cache", "mine.txt", "results.json", "rows-agreement.jsonl", "rows-perplexity.jsonl",
    ]  # fmt: skip
    assert [row["model"] for row in json.loads((out / "results.json").read_text())["rows"]] == ["one"]
    for file in out.glob("rows-*"):
        assert {json.loads(line)["model"] for line in file.read_text().splitlines()} == {"one"}


def test_missing_data_is_named_before_any_model_is_loaded(tmp_path):
    for task in TASKS.keys() - {"impact", "stories"}:  # whose data comes with the package
        with pytest.raises(MissingData, match=r"is missing: .* --data_dir|needs .*"):
            evaluate({"m": "no-such-model"}, {task: {}}, data_dir=tmp_path, output_dir=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("line", "message"), [("{", "line 1: not JSON"), ('{"prompt": "a"}', "lacks the field 'right'")]
)
def test_bad_rows_are_named(tmp_path, line, message):
    (tmp_path / "agreement.jsonl").write_text(line + "\n")
    with pytest.raises(ValueError, match=message):
        agreement.load(tmp_path, options("agreement"), None, 0)


def test_every_task_says_what_it_is():
    for name, task in TASKS.items():
        assert task.name == name
        assert task.meaning
        assert task.ideal
        assert task.data
        assert task.source
        assert task.not_measured
        assert task.licence
        assert set(task.headline)
        followed = TASKS.get(task.follows)
        assert not task.follows or (followed and followed.sampled <= task.sampled)
        text = Path(__import__(f"eval.tasks.{name}", fromlist=["_"]).__file__).read_text(encoding="utf-8")
        assert "Not measured: " in text
        assert f"Version {task.version}" in " ".join(text.split())


def test_options_out_of_range_are_named_all_at_once():
    given = {"runs": 0, "top": float("nan"), "start": "last", "mode": "c", "fine": 1}
    allowed = {"runs": 1, "top": 0, "start": ("first", "kept"), "mode": ("a", "b", "d"), "fine": 1}
    with pytest.raises(ValueError) as raised:
        check_options("bold", given, **allowed)
    assert str(raised.value).split("; ") == [
        "bold.runs 0: must be at least 1",
        "bold.top nan: must be at least 0",
        "bold.start 'last': must be first or kept",
        "bold.mode 'c': must be a, b or d",
    ]
