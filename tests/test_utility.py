"""The utility tasks: last_word, fluency, diversity, and any task of lm-evaluation-harness."""

import json
import math

import numpy as np
import pytest

from eval.check import check
from eval.model import Scorer
from eval.run import evaluate
from eval.task import MissingData
from eval.tasks import TASKS, diversity, find_task, fluency, harness, last_word

PASSAGES = [
    "The nurse said that she would finish her shift",
    "He gave her the book, and the girl thanked him",
    "The engineer repaired the old bridge",
]
PROMPTS = {"nurse": {"a": ["The nurse said", "A nurse is"]}, "cook": {"a": ["The cook said", "A cook is"]}}


@pytest.fixture
def data(tmp_path):
    (tmp_path / "lambada").mkdir()
    lines = [json.dumps({"text": text}) + "\n" for text in PASSAGES]
    (tmp_path / "lambada" / "test.jsonl").write_text("".join(lines))
    (tmp_path / "bold").mkdir()
    (tmp_path / "bold" / "profession_prompt.json").write_text(json.dumps(PROMPTS))
    return tmp_path


def options(task, **given):
    return {**TASKS[task].options, **given}


# last_word


def test_last_word_of_rows_by_hand():
    rows = [{"correct": True, "logp": math.log(1 / 2)}, {"correct": False, "logp": math.log(1 / 8)}]
    found = last_word.aggregate(rows, options("last_word"), 0)
    assert found["accuracy"]["value"] == 0.5
    assert found["perplexity"]["value"] == pytest.approx(4)
    assert found["perplexity"]["low"] == pytest.approx(2)
    assert found["perplexity"]["high"] == pytest.approx(8)


def test_last_word_is_scored_after_its_context(scorer, data):
    rows = last_word.load(data, options("last_word"), None, 0)
    assert rows[1] == {"context": "He gave her the book, and the girl thanked", "word": "him"}
    found = last_word.score(scorer, rows, options("last_word"), 0)
    for row, text in zip(found, PASSAGES):
        context, _, word = text.rpartition(" ")
        pair = (scorer.encode([context])[0], scorer.encode([" " + word])[0])
        assert row["logp"] == pytest.approx(float(scorer.continuation_logprobs([pair])[0]), abs=1e-5)
    limited = last_word.load(data, options("last_word"), 1, 0)
    assert len(limited) == 1


def test_greedy_is_what_greedy_decoding_writes(scorer):
    contexts = scorer.encode(PASSAGES)
    written = scorer.sample_ids(contexts, top_p=1e-9, max_new_tokens=3)
    pairs = list(zip(contexts, written))
    logps, greedy = scorer.greedy_continuations(pairs)
    np.testing.assert_array_equal(logps, scorer.continuation_logprobs(pairs))
    assert greedy.all()
    other = [(context, [*new[:-1], (new[-1] + 1) % scorer.vocab_size]) for context, new in pairs]
    assert not scorer.greedy_continuations(other)[1].any()


def test_a_passage_too_long_loses_its_beginning(scorer, data):
    long = "The nurse said that " * 200 + "she"
    path = data / "lambada" / "test.jsonl"
    path.write_text(json.dumps({"text": long}) + "\n")
    rows = last_word.load(data, options("last_word"), None, 0)
    found = last_word.score(scorer, rows, options("last_word"), 0)
    ids = scorer.encode([long.rpartition(" ")[0]])[0]
    word = scorer.encode([" she"])[0]
    expected = scorer.continuation_logprobs([(ids[len(word) - scorer.max_length :], word)])[0]
    assert found[0]["logp"] == pytest.approx(float(expected), abs=1e-5)
    path.write_text(json.dumps({"text": "word"}) + "\n")
    with pytest.raises(ValueError, match="row 1: text must be text of two words"):
        last_word.load(data, options("last_word"), None, 0)


def test_lambada_from_the_hub_reads_as_a_file(tmp_path):
    text = last_word.HUB["lambada/test.jsonl"].text([{"text": "In my palm is a clear stone\nand it’s “his”"}])
    (tmp_path / "a.jsonl").write_text(text, encoding="utf-8")
    rows = last_word.load(tmp_path, options("last_word", file="a.jsonl"), None, 0)
    assert rows == [{"context": "In my palm is a clear stone\nand it’s", "word": "“his”"}]


# fluency


def test_fluency_of_rows_by_hand():
    rows = [
        {"group": "nurse", "prompt_number": 0, "nll": 2 * math.log(4), "tokens": 2},
        {"group": "nurse", "prompt_number": 1, "nll": 2 * math.log(16), "tokens": 2},
        {"group": "cook", "prompt_number": 2, "nll": 5 * math.log(2), "tokens": 5},
    ]
    found = fluency.aggregate(rows, options("fluency"), 0)
    assert found["fluency/nurse"]["value"] == pytest.approx(8)
    assert found["fluency"]["value"] == pytest.approx((8 + 2) / 2)  # macro: groups weigh alike
    assert (found["fluency"]["low"], found["fluency"]["high"]) == pytest.approx(((4 + 2) / 2, (16 + 2) / 2))


def test_fluency_is_the_judges_perplexity_of_the_text_alone(scorer, tiny_gpt2):
    rows = [
        {"group": "nurse", "prompt": "The nurse said", "prompt_number": 0, "run": 0, "text": " that she left."},
        {"group": "nurse", "prompt": "The nurse said", "prompt_number": 0, "run": 0, "text": ""},
        {"group": "nurse", "prompt": "A nurse is", "prompt_number": 1, "run": 0, "text": " a nurse" * 100},
    ]
    found = fluency.score(scorer, rows, options("fluency", judge=str(tiny_gpt2)), 0)
    assert [row["text"] for row in found] == [row["text"] for row in rows]
    assert (found[1]["tokens"], found[1]["nll"]) == (0, 0)
    prompt, text = scorer.encode(["The nurse said"], bos=True)[0], scorer.encode([" that she left."])[0]
    assert found[0]["tokens"] == len(text)
    assert found[0]["nll"] == pytest.approx(-float(scorer.continuation_logprobs([(prompt, text)])[0]), rel=1e-5)
    assert found[2]["tokens"] == scorer.max_length - 1
    empty = {**found[1], "group": "cook", "prompt_number": 2}
    whole, without = (
        fluency.aggregate(part, options("fluency"), 0) for part in ([*found, empty], [found[0], found[2]])
    )
    assert whole["fluency"]["n"] == without["fluency"]["n"] == 2
    assert {name: figure["value"] for name, figure in whole.items()} == {
        name: figure["value"] for name, figure in without.items()
    }
    with pytest.raises(ValueError, match="no text with a token"):
        fluency.aggregate([empty], options("fluency"), 0)


def test_fluency_needs_a_judge(data):
    with pytest.raises(MissingData, match=r"--set fluency\.judge=gpt2-large"):
        fluency.load(data, options("fluency"), None, 0)
    with pytest.raises(ValueError, match="no such folder"):
        fluency.load(data, options("fluency", judge="./none"), None, 0)


def test_generated_texts_are_shared_and_the_judge_is_loaded_once(tiny_gpt2, data, monkeypatch):
    sampled = []
    original = Scorer.sample
    monkeypatch.setattr(Scorer, "sample", lambda self, *a, **k: sampled.append(1) or original(self, *a, **k))
    small = {"texts_per_prompt": 2, "runs": 1, "max_new_tokens": 8}
    tasks = {"fluency": {"judge": str(tiny_gpt2), **small}, "diversity": small, "bold": small}
    fluency._loaded_judge.cache_clear()
    out = data / "out"
    found = evaluate({"a": tiny_gpt2, "b": tiny_gpt2}, tasks, data_dir=data, output_dir=out, quiet=True)
    assert len(sampled) == 1  # b has a's fingerprint
    assert fluency._loaded_judge.cache_info().misses == 1
    texts = {
        name: [json.loads(line)["text"] for line in (out / f"rows-{name}.jsonl").open()]
        for name in ("bold", "diversity")
    }
    assert texts["bold"] == texts["diversity"]
    del tasks["bold"]
    alone = evaluate({"a": tiny_gpt2}, tasks, data_dir=data, output_dir=out, quiet=True)
    for task in ("fluency", "diversity"):
        assert alone["rows"][0]["tasks"][task] == found["rows"][0]["tasks"][task]


# diversity


def test_diversity_of_texts_by_hand():
    texts = {
        0: ["a b a b a b", "a b c"],  # bigrams: ab ba ab ba ab | ab bc; 4-grams: abab baba abab
        1: ["It's new, it's new."],  # It's new , it's new . : all different
    }
    rows = [
        {"group": "g", "prompt": "p", "prompt_number": number, "run": 0, "text": text}
        for number, part in texts.items()
        for text in part
    ]
    scored = diversity.score(None, rows, options("diversity"), 0)
    assert [(row["grams_2"], row["repeated_2"]) for row in scored] == [(5, 3), (2, 0), (5, 0)]
    assert [(row["grams_4"], row["repeated_4"]) for row in scored] == [(3, 1), (0, 0), (3, 0)]
    found = diversity.aggregate(scored, options("diversity"), 0)
    value = {name: entry["value"] for name, entry in found.items()}
    assert value["distinct_1"] == pytest.approx((3 / 9 + 5 / 6) / 2)
    assert value["distinct_2"] == pytest.approx((3 / 7 + 1) / 2)
    assert value["rep_2"] == pytest.approx((3 / 5 + 0 + 0) / 3)
    assert value["rep_3"] == pytest.approx((2 / 4 + 0 + 0) / 3)
    assert value["seq_rep_4"] == pytest.approx((1 / 3 + 0) / 2)  # a text of three words has no 4-gram
    assert value["diversity"] == pytest.approx((1 - 1 / 5) * (1 - 1 / 6) * (1 - 1 / 6))
    assert found["seq_rep_4"]["n"] == 2


def test_diversity_of_empty_texts_is_undefined():
    rows = [{"group": "g", "prompt": "p", "prompt_number": 0, "run": 0, "text": ""}]
    found = diversity.aggregate(diversity.score(None, rows, options("diversity"), 0), options("diversity"), 0)
    assert found["distinct_1"]["value"] is found["seq_rep_4"]["value"] is None


# lm_eval:NAME


LAMBADA = """\
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
output_type: loglikelihood
test_split: test
doc_to_text: "{{{{text.split(' ')[:-1]|join(' ')}}}}"
doc_to_target: "{{{{' '+text.split(' ')[-1]}}}}"
metric_list:
  - {{metric: perplexity, aggregation: perplexity, higher_is_better: false}}
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
metadata: {{version: 1.0}}
"""


@pytest.fixture
def pack(data, lm_eval, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(data / "cache"))
    folder = data / "pack"
    folder.mkdir()
    for name in ("endings", "endings_too"):
        text = LAMBADA.format(name=name, file=data / "lambada" / "test.jsonl")
        (folder / f"{name}.yaml").write_text(text)
    return folder


def test_the_harness_agrees_with_last_word(tiny_gpt2, data, pack):
    tasks = {"lm_eval:endings": {"include_path": str(pack)}, "last_word": {}}
    out = data / "out"
    result = evaluate({"m": tiny_gpt2, "n": tiny_gpt2}, tasks, data_dir=data, output_dir=out, quiet=True)
    theirs, ours = (result["rows"][0]["tasks"][label] for label in tasks)
    assert theirs["perplexity"]["value"] == pytest.approx(ours["perplexity"]["value"], rel=1e-5)
    assert theirs["acc"]["value"] == ours["accuracy"]["value"]
    assert theirs["acc"]["n"] == 3
    rows = [json.loads(line) for line in (out / "rows-lm_eval-endings.jsonl").open()]
    assert [row["doc"] for row in rows if row["model"] == "m" and "doc" in row] == [0, 1, 2]
    error = next(row["stderr"] for row in rows if row.get("metric") == "acc")
    assert theirs["acc"]["high"] == pytest.approx(theirs["acc"]["value"] + 1.96 * error)
    assert "acc" in result["differences"][0]["tasks"]["lm_eval:endings"]
    limited = evaluate({"m": tiny_gpt2}, tasks, data_dir=data, output_dir=out, limit=2, quiet=True)
    assert limited["rows"][0]["tasks"]["lm_eval:endings"]["acc"]["n"] == 2


def test_groups_and_filters_of_the_harness_have_names_of_their_own():
    found = {
        "results": {
            "all": {"alias": "all", "acc,none": 0.5, "acc_stderr,none": 0.1},
            "one": {"alias": "one", "acc,none": 0.4, "acc_stderr,none": "N/A", "acc,strict": 0.25},
        },
        "groups": {"all": {"acc,none": 0.5, "acc_stderr,none": 0.1}},
        "n-samples": {"one": {"original": 4, "effective": 4}},
        "samples": {"one": [{"doc_id": i, "filter": "none", "metrics": ["acc"], "acc": i == 0} for i in range(4)]},
    }
    rows = json.loads(json.dumps(harness.harness_rows(found)))
    metrics = harness.aggregate("all", rows, {}, 0)
    assert {name: entry["value"] for name, entry in metrics.items()} == {
        "acc": 0.5, "acc/one": 0.4, "acc.strict/one": 0.25,
    }  # fmt: skip
    assert metrics["acc"]["low"] == pytest.approx(0.5 - 1.96 * 0.1)
    assert metrics["acc/one"]["low"] is None
    assert metrics["acc"]["n"] == metrics["acc/one"]["n"] == 4


def test_what_the_harness_lacks_is_one_line(data, pack, monkeypatch):
    monkeypatch.setattr(
        "lm_eval.tasks.TaskManager", lambda include_path, **_: type("M", (), {"all_tasks": ["endings"]})
    )
    with pytest.raises(ValueError, match=r"no task of the harness 'ending'; did you mean endings\?") as raised:
        check({"lm_eval:ending": {"include_path": str(pack)}}, data_dir=data)
    assert "\n" not in str(raised.value)
    with pytest.raises(ValueError, match="no such folder"):
        check({"lm_eval:x": {"include_path": str(data / "none")}}, data_dir=data)
    with pytest.raises(ValueError, match="no task 'lm_eval:'"):
        check({"lm_eval:": {}}, data_dir=data)
    assert find_task("lm_eval:") is None
