"""eval.run: differences between models, several seeds, the cache and resuming, tasks that follow others."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from transformers import AutoModelForCausalLM

from configs import schema, study
from eval import run
from eval.check import check
from eval.data import find_data, read_prompts
from eval.measures.intervals import Interval, bootstrap, interval, paired_difference, resampled_sums
from eval.measures.polarity import equitability
from eval.model import Scorer
from eval.probe import Probe
from eval.run import differences, evaluate, over_seeds
from eval.task import MissingData, Task, figure
from eval.tasks import TASKS


@pytest.fixture(scope="module")
def other_model(tiny_gpt2, tiny_tokenizer, tmp_path_factory):
    """A folder with another random model of the same tokenizer."""
    path = tmp_path_factory.mktemp("other")
    model = AutoModelForCausalLM.from_pretrained(tiny_gpt2)
    for parameter in model.parameters():
        parameter.data.mul_(1.5)
    model.save_pretrained(path)
    tiny_tokenizer.save_pretrained(path)
    return path


@pytest.fixture
def data(tmp_path):
    rows = [
        {"prompt": f"{who} works as a {job} and likes", "right": [right], "wrong": [wrong]}
        for job in ("nurse", "cook", "teacher", "plumber")
        for who, right, wrong in (("She", "her", "his"), ("He", "his", "her"))
    ]
    (tmp_path / "agreement.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    texts = [f"The {job} said that she would come." for job in ("nurse", "cook", "doctor")]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    prompts = {"nurse": {"a": ["The nurse said", "A nurse is"]}, "cook": {"a": ["The cook said", "A cook is"]}}
    (tmp_path / "bold").mkdir()
    (tmp_path / "bold" / "profession_prompt.json").write_text(json.dumps(prompts))
    return tmp_path


ROOT = Path(__file__).resolve().parents[1]
SMALL_BOLD = {"texts_per_prompt": 2, "runs": 2, "max_new_tokens": 4}
SETTINGS = {"agreement": {}, "perplexity": {"file": "texts.jsonl"}, "bold": SMALL_BOLD}


# differences


def test_a_paired_difference_of_means_by_hand():
    """b is a + 1 with noise in a only: the difference has no spread, whatever a's own is; without pairing it would."""
    a = np.random.default_rng(0).normal(size=200)
    first, second = (bootstrap(np.stack([x, np.ones(200)], 1), lambda s: s[:, 0] / s[:, 1]) for x in (a, a + 1))
    assert second[1] - second[0] > 0.2
    bounds, p = paired_difference(1.0, first, second)
    np.testing.assert_allclose(second.samples - first.samples, 1.0, atol=1e-12)
    assert np.isnan(bounds).all()  # all resamples agree: as with a single value, no interval
    assert p == pytest.approx(2 / 1001)


def drawn_mean(rng, _):
    return bootstrap(np.stack([rng.normal(size=60), np.ones(60)], 1), lambda s: s[:, 0] / s[:, 1], num_resamples=400)


def drawn_equitability(rng, shares):
    """Average equitability of groups of 20 prompts with 4 polar texts each: folded, so noise pulls it down."""
    value, samples = [], []
    for i, share in enumerate(shares):
        male = rng.binomial(4, np.clip(share + rng.normal(0, 0.1, 20), 0, 1))
        sides = np.stack([male, 4 - male], 1)
        value.append(equitability(*sides.sum(0)))
        samples.append(equitability(*resampled_sums(sides, seed=i, num_resamples=400).T))
    return interval(np.mean(samples, 0), around=float(np.mean(value))), float(np.mean(value))


@pytest.mark.parametrize("drawn", [drawn_mean, drawn_equitability])
def test_the_p_of_a_difference_is_uniform_where_there_is_none(drawn):
    rng = np.random.default_rng(1)
    ps, covered = [], 0
    for _ in range(300):
        shares = rng.uniform(0.2, 0.8, 6)
        first, second = (drawn(rng, shares) for _ in range(2))
        if drawn is drawn_mean:
            value = second.samples.mean() - first.samples.mean()
        else:
            (first, low), (second, high) = first, second
            value = high - low
        bounds, p = paired_difference(value, first, second)
        ps.append(p)
        covered += bounds[0] <= 0 <= bounds[1]
    assert 0.91 < covered / 300 < 0.99
    assert abs(np.mean(np.array(ps) < 0.2) - 0.2) < 0.06
    assert abs(np.mean(np.array(ps) < 0.05) - 0.05) < 0.04


def test_equal_models_do_not_differ_and_lone_values_have_no_p():
    same = interval(np.random.default_rng(0).random(100))
    assert paired_difference(0.0, same, same)[1] == 1.0
    assert np.isnan(paired_difference(0.5, Interval(0, 1), same)[1])


def test_differences_are_of_paired_figures(tiny_gpt2, other_model, data):
    models = {"one": tiny_gpt2, "two": other_model, "again": tiny_gpt2}
    found = evaluate(models, SETTINGS, data_dir=data, output_dir=data / "out", quiet=True)
    assert json.loads((data / "out" / "results.json").read_text())["differences"] == found["differences"]
    two, again = found["differences"]
    assert (two["model"], again["model"], two["minus"]) == ("two", "again", "one")
    assert set(two["tasks"]) == set(SETTINGS)
    value = {row["model"]: row["tasks"]["perplexity"]["perplexity"]["value"] for row in found["rows"]}
    entry = two["tasks"]["perplexity"]["perplexity"]
    assert set(entry) == {"value", "low", "high", "p"}
    assert entry["value"] == pytest.approx(value["two"] - value["one"])
    assert entry["low"] < entry["value"] < entry["high"]
    assert again["tasks"]["perplexity"]["perplexity"] == {"value": 0.0, "low": None, "high": None, "p": 1.0}


def test_differences_are_from_the_reference(tiny_gpt2, other_model, data):
    """Wherever it stands among the models; results.json has them from the moment that its figures are there."""
    tasks, options = {"agreement": {}}, {"data_dir": data, "output_dir": data / "out", "quiet": True}
    models = {"one": tiny_gpt2, "two": other_model, "again": tiny_gpt2}
    found = evaluate(models, tasks, reference="two", **options)
    assert [row["model"] for row in found["rows"]] == list(models)
    assert [(entry["model"], entry["minus"]) for entry in found["differences"]] == [("one", "two"), ("again", "two")]
    assert found["config"]["reference"] == "two"
    first, last = (entry["tasks"]["agreement"]["agreement"] for entry in found["differences"])
    value = {row["model"]: row["tasks"]["agreement"]["agreement"]["value"] for row in found["rows"]}
    assert first == last
    assert first["value"] == pytest.approx(value["one"] - value["two"])
    assert first["value"] != 0
    with pytest.raises(ValueError, match="no model 'twoo'; did you mean two"):
        evaluate(models, tasks, reference="twoo", **options)


@pytest.mark.parametrize(("runs", "reference"), [(["teacher", "plain", "era"], "plain"), (["a", "b"], None)])
def test_training_compares_with_the_plain_run(runs, reference, monkeypatch, tmp_path):
    whole = schema.Config(output_dir=str(tmp_path))
    given = {}
    monkeypatch.setattr("eval.run.evaluate", lambda models, tasks, **options: given.update(options, models=[*models]))
    study.evaluate(whole, dict.fromkeys(runs, whole))
    assert (given["models"], given["reference"]) == (runs, reference)


def test_progress_is_told_in_lines_where_there_is_no_terminal(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(run.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(run, "_console", Console(stderr=True, force_terminal=False))
    with run._Reporter(quiet=False) as reporter, reporter.follow("m · bold") as tell:
        for seconds, done in ((10, 100), (40, 250), (50, 300), (100, 500), (130, 10)):
            now[0] = seconds
            tell(done, 1000)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "m · bold: 250 of 1,000 rows (25%), 2.0 min left",
        "m · bold: 500 of 1,000 rows (50%), 1.7 min left",
        "m · bold: 10 of 1,000 rows (1%), 0.0 min left",  # a second pass over the rows
    ]


def test_rows_cut_otherwise_are_not_paired():
    rows = [{"model": name, "tasks": {"t": {"m": figure(1.0, interval([0.9, 1.1]), ideal=1, n=5)}}} for name in "ab"]
    assert differences(rows[0], rows[1], ["t"])["tasks"]["t"]["m"]["value"] == 0
    assert differences(rows[0], rows[1], [])["tasks"] == {}


def test_models_that_left_out_other_rows_are_not_compared(tiny_gpt2, other_model, data, monkeypatch):
    task = TASKS["agreement"]
    left_out = {}

    def score(scorer, rows, options, seed):
        scored = task.score(scorer, rows, options, seed)
        return [row | ({"left_out": True} if n == left_out[scorer] else {}) for n, row in enumerate(scored)]

    monkeypatch.setitem(TASKS, "agreement", dataclasses.replace(task, score=score))
    models = {name: Scorer(path, device="cpu") for name, path in (("a", tiny_gpt2), ("b", other_model))}
    for second, paired in ((2, ["agreement"]), (3, [])):
        left_out |= {models["a"]: 2, models["b"]: second}
        found = evaluate(models, {"agreement": {}}, data_dir=data, output_dir=data / f"out{second}", quiet=True)
        assert list(found["differences"][0]["tasks"]) == paired


def test_windows_of_other_tokens_are_other_rows():
    """As many windows of the same documents, but of another tokenizer: perplexities that do not compare."""
    rows = [{"document": 0, "window": 0, "tokens": 9}, {"document": 1, "window": 0, "tokens": 7}]
    assert run.extent(rows) == run.extent([{**row, "nll": 1.0} for row in rows])
    assert run.extent(rows) != run.extent([rows[0], {**rows[1], "tokens": 6}])
    texts = [[{"text": "a", "tokens": size}] for size in (3, 4)]  # sampled texts differ and still are of one prompt
    assert run.extent(texts[0]) == run.extent(texts[1])


# several seeds


def test_seeds_are_averaged_by_hand():
    runs = [
        {"m": figure(0.2, interval([0.1, 0.3]), ideal=1, n=20), "x": figure(np.nan, ideal=None, n=1)},
        {"m": figure(0.4, interval([0.4, 0.6]), ideal=1, n=22)},
    ]
    for chance, part in zip((0.6, 0.8), runs):
        part["band"] = figure(chance, (chance - 0.1, chance + 0.2), ideal=None, n=20)
    found = over_seeds(runs)
    assert found["m"]["value"] == pytest.approx(0.3)
    assert found["m"]["spread"] == pytest.approx(np.sqrt(0.02))
    assert found["m"]["by_seed"] == [0.2, 0.4]
    assert found["m"]["n"] == 42
    np.testing.assert_allclose(found["m"].interval.samples, [0.25, 0.45])
    assert (found["x"]["value"], found["x"]["spread"]) == (None, None)
    large = figure(3.0, interval([2.0, 4.0], around=3.0, most=np.inf), ideal=0, n=20)
    assert over_seeds([{"m": large}] * 2)["m"].interval == large.interval
    assert [found["band"][key] for key in ("value", "low", "high")] == pytest.approx([0.7, 0.6, 0.9])


def test_only_sampled_tasks_run_for_each_seed(tiny_gpt2, data):
    out = data / "out"
    found = evaluate({"m": tiny_gpt2}, SETTINGS, data_dir=data, output_dir=out, seeds=[1, 2, 5], quiet=True)
    metrics = found["rows"][0]["tasks"]
    assert len(metrics["bold"]["polar_share"]["by_seed"]) == 3
    assert "by_seed" not in metrics["agreement"]["agreement"]
    rows = [json.loads(line) for line in (out / "rows-bold.jsonl").read_text().splitlines()]
    assert [row["seed"] for row in rows] == [1] * 16 + [2] * 16 + [5] * 16
    alone = evaluate({"m": tiny_gpt2}, {"bold": SMALL_BOLD}, data_dir=data, output_dir=out, seed=2, quiet=True)
    one = alone["rows"][0]["tasks"]["bold"]["polar_share"]["value"]
    assert one == metrics["bold"]["polar_share"]["by_seed"][1]
    with pytest.raises(ValueError, match="seeds 1, 1: must differ"):
        evaluate({"m": tiny_gpt2}, SETTINGS, data_dir=data, output_dir=out, seeds=[1, 1])


# the cache


def counted(monkeypatch, fail_at=None):
    """TASKS whose scoring is counted, in the list returned; the task `fail_at` raises before it scores."""
    calls = []

    def counting(task):
        def score(*arguments):
            if task.name == fail_at:
                raise KeyboardInterrupt
            calls.append(task.name)
            return task.score(*arguments)

        return dataclasses.replace(task, score=score)

    for name, task in TASKS.items():
        monkeypatch.setitem(TASKS, name, counting(task))
    return calls


def test_a_killed_run_goes_on_by_task(tiny_gpt2, data, monkeypatch):
    def go(out):
        evaluate({"m": tiny_gpt2}, SETTINGS, data_dir=data, output_dir=data / out, quiet=True)
        return {path.name: path.read_bytes() for path in (data / out).glob("*.json*")}

    with monkeypatch.context() as patch:
        calls = counted(patch, fail_at="bold")
        with pytest.raises(KeyboardInterrupt):
            go("killed")
        assert calls == ["agreement", "perplexity"]
    assert not (data / "killed" / "results.json").exists()
    with monkeypatch.context() as patch:
        calls = counted(patch)
        resumed = go("killed")
        assert calls == ["bold"]
        assert go("killed") == resumed
        assert calls == ["bold"]
    assert resumed == go("whole")
    assert set(resumed) == {"results.json", *(f"rows-{name}.jsonl" for name in SETTINGS)}


@pytest.mark.slow
def test_a_run_killed_by_signal_goes_on_from_the_command_line(tiny_gpt2, data):
    out = data / "killed"
    settings = [word for key, value in SMALL_BOLD.items() for word in ("--set", f"bold.{key}={value}")]
    arguments = ["--model", str(tiny_gpt2), "--tasks", "agreement,bold", *settings, "--data_dir", str(data)]
    killing = (
        "import dataclasses, os, signal, sys; from eval.tasks import TASKS; from eval.__main__ import main\n"
        "kill = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "TASKS['bold'] = dataclasses.replace(TASKS['bold'], score=kill); main(sys.argv[1:])"
    )
    begin = [sys.executable, "-c", killing, *arguments, "--output_dir", str(out)]
    assert subprocess.run(begin, cwd=ROOT, capture_output=True, check=False).returncode == -9
    assert [path.name for path in out.glob(".rows-*")] != []
    for folder, line in ((out, "kept from before"), (data / "whole", " s")):
        again = [sys.executable, "-m", "eval", *arguments, "--output_dir", str(folder)]
        done = subprocess.run(again, cwd=ROOT, capture_output=True, text=True, check=True)
        assert done.stderr.splitlines()[0].endswith(line)
    names = ("results.json", "rows-agreement.jsonl", "rows-bold.jsonl")
    assert [(out / name).read_bytes() for name in names] == [(data / "whole" / name).read_bytes() for name in names]
    assert not list(out.glob(".rows-*"))


def test_what_changes_a_score_is_scored_again(tiny_gpt2, other_model, data, monkeypatch):
    calls = counted(monkeypatch)

    def go(model=tiny_gpt2, cache_dir=data / "cache", **settings):
        calls.clear()
        given = {"perplexity": {"file": "texts.jsonl", **settings}}
        evaluate({"m": model}, given, data_dir=data, output_dir=data / "out", cache_dir=cache_dir, quiet=True)
        return len(calls)

    assert go() == 1
    assert go() == 0
    assert go(stride=256) == 1  # an option
    assert go(other_model) == 1  # the weights
    assert go(other_model) == 0
    (data / "texts.jsonl").write_text((data / "texts.jsonl").read_text().replace("nurse", "cook"))
    assert go() == 1  # the data
    monkeypatch.setitem(TASKS, "perplexity", dataclasses.replace(TASKS["perplexity"], version=99))
    assert go() == 1  # the task
    assert go() == 0
    for file in (data / "cache").iterdir():
        file.write_bytes(file.read_bytes()[:-9])
    assert go() == 1  # a damaged file is as none
    assert len(list((data / "cache").iterdir())) == 5  # a folder of one's own is never cleared


def test_vectors_that_change_are_scored_again(tmp_path):
    from eval.cache import stamps

    (tmp_path / "a.txt").write_text("she 1")
    before = stamps({"vectors": str(tmp_path / "a.txt"), "folder": str(tmp_path), "none": "", "text": "no such file"})
    assert [entry[:2] for entry in before] == [[str(tmp_path / "a.txt"), 5]] * 2
    (tmp_path / "a.txt").write_text("she 12")
    assert stamps({"vectors": str(tmp_path / "a.txt")}) != before[:1]
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "weights").write_text("1")  # shadow models stand in one option, with commas between
    assert [entry[0] for entry in stamps({"shadows": f"{tmp_path}/b, {tmp_path}/a.txt"})] == [
        str(tmp_path / "b" / "weights"),
        str(tmp_path / "a.txt"),
    ]


def test_the_own_cache_keeps_the_last_run_only(tiny_gpt2, data):
    for stride in (256, 512):
        settings = {"perplexity": {"file": "texts.jsonl", "stride": stride}}
        evaluate({"m": tiny_gpt2}, settings, data_dir=data, output_dir=data / "out", quiet=True)
    assert len(list((data / "out" / ".cache").iterdir())) == 1


def test_a_cached_model_is_not_loaded(tiny_gpt2, data, monkeypatch):
    def go():
        return evaluate({"m": tiny_gpt2}, {"agreement": {}}, data_dir=data, output_dir=data / "out", quiet=True)

    first = go()
    monkeypatch.setattr(run, "Scorer", None)  # would fail to be called; isinstance against None fails too
    monkeypatch.setattr(
        run, "isinstance", lambda thing, kind: kind is not None and isinstance(thing, kind), raising=False
    )
    assert go() == first


def test_fingerprints_tell_models_apart(tiny_gpt2, other_model, tiny_tokenizer, scorer):
    assert scorer.fingerprint() == Scorer(tiny_gpt2, device="cpu").fingerprint()
    assert scorer.fingerprint() != Scorer(other_model, device="cpu").fingerprint()


# tasks that follow, data that is not there


def test_missing_data_says_where_it_comes_from_and_under_what_licence(data):
    with pytest.raises(MissingData) as raised:
        check({"perplexity": {}}, data_dir=data)
    message = str(raised.value)
    for part in (
        "wikitext2/test.txt is missing: the text to score",
        "--data_dir (eval.data_dir), or the file with --set TASK.file=PATH",
        "WikiText-2 (Merity et al. 2017); licence: CC BY-SA 3.0",
        "--hub takes it from the Hub (Salesforce/wikitext)",
    ):
        assert part in message
    assert "\n" not in message
    with pytest.raises(MissingData) as raised:
        check({"fluency": {}}, data_dir=data)
    assert "licence" not in str(raised.value)


def followed_by_length(name="length"):
    return Task(
        name=name,
        rows=lambda data_dir, options, limit, seed: [{"text": "own"}],
        score=lambda scorer, rows, options, seed: [{"length": len(row["text"]), "text": row["text"]} for row in rows],
        aggregate=lambda rows, options, seed: {"length": figure(rows[0]["length"], ideal=None, n=len(rows))},
        options={}, meaning="", ideal="", data="", source="", headline=("length",), sampled=True, follows="bold",
    )  # fmt: skip


def test_a_task_may_score_the_rows_of_another(tiny_gpt2, data, monkeypatch):
    monkeypatch.setitem(TASKS, "length", followed_by_length())
    tasks = {"length": {}, "length@b": {}, "bold": SMALL_BOLD, "bold@b": {**SMALL_BOLD, "runs": 1}}
    out = data / "out"
    found = evaluate({"m": tiny_gpt2}, tasks, data_dir=data, output_dir=out, seeds=[3, 4], quiet=True)
    assert list(found["rows"][0]["tasks"]) == ["bold", "bold@b", "length", "length@b"]
    for label in ("", "@b"):
        texts = [
            [(row["seed"], row["text"]) for row in map(json.loads, (out / f"rows-{task}{label}.jsonl").open())]
            for task in ("bold", "length")
        ]
        assert texts[0] == texts[1]
    evaluate({"m": tiny_gpt2}, {"length": {}}, data_dir=data, output_dir=out, quiet=True)
    assert json.loads((out / "rows-length.jsonl").read_text())["text"] == "own"


def test_who_follows_is_checked_too_and_left_alone_where_the_other_has_no_data(tiny_gpt2, data):
    with pytest.raises(MissingData, match="fluency needs a judge"):
        check({"fluency": {}, "bold": {}}, data_dir=data)
    resolved, inputs = check({"fluency": {"judge": str(tiny_gpt2)}, "bold": {"runs": 2}}, data_dir=data)
    assert list(resolved) == ["bold", "fluency"]
    assert resolved["fluency"][1]["runs"] == 2
    assert inputs["fluency"] == inputs["bold"]  # the prompts whose texts it scores
    skipped = {}
    tasks = {"diversity": {}, "bold": {"file": "none.json"}}
    _, inputs = check(tasks, data_dir=data, skipped=skipped)
    assert list(skipped) == ["bold"]
    assert len(inputs["diversity"]) == 4


def test_a_probe_has_rows_for_tasks_that_follow_others(scorer, data):
    tasks = {"bold": {"max_new_tokens": 4}, "diversity": {"max_new_tokens": 4}}
    found = Probe(tasks, data_dir=data, limit=4, seed=0)(scorer.model, scorer.tokenizer, batch_size=8)
    assert any(name.startswith("diversity/") for name in found)


def test_missing_data_can_be_passed_over(tiny_gpt2, data):
    (data / "agreement.jsonl").unlink()
    found = evaluate({"m": tiny_gpt2}, SETTINGS, data_dir=data, output_dir=data / "out", skip_missing=True, quiet=True)
    assert list(found["rows"][0]["tasks"]) == ["perplexity", "bold"]
    assert list(found["skipped"]) == ["agreement"]
    assert "agreement.jsonl is missing" in found["skipped"]["agreement"]
    with pytest.raises(ValueError, match="has the data of none of these tasks: agreement"):
        evaluate({"m": tiny_gpt2}, {"agreement": {}}, data_dir=data, output_dir=data / "out", skip_missing=True)
    with pytest.raises(MissingData):
        find_data(data, "none.txt", "nothing")


def test_what_a_model_cannot_do_is_passed_over_too(tiny_gpt2, data, monkeypatch):
    def refuse(*_):
        raise ValueError("a sequence of 175 tokens: this needs 1 to 96")

    monkeypatch.setitem(TASKS, "bold", dataclasses.replace(TASKS["bold"], score=refuse))
    tasks = {"agreement": {}, "bold": SMALL_BOLD, "diversity": SMALL_BOLD}
    settings = {"data_dir": data, "output_dir": data / "out", "quiet": True}
    with pytest.raises(ValueError, match=r"^m · bold: a sequence of 175"):
        evaluate({"m": tiny_gpt2}, tasks, **settings)
    found = evaluate({"m": tiny_gpt2, "n": tiny_gpt2}, tasks, **settings, skip_missing=True)
    assert [list(row["tasks"]) for row in found["rows"]] == [["agreement"]] * 2
    assert found["skipped"]["m · bold"] == "a sequence of 175 tokens: this needs 1 to 96"
    assert found["skipped"]["n · diversity"] == "bold, whose texts it scores, failed"
    assert {path.name for path in (data / "out").glob("rows-*")} == {"rows-agreement.jsonl"}
    (data / "damaged").mkdir()
    for file in tiny_gpt2.iterdir():
        (data / "damaged" / file.name).write_bytes(file.read_bytes()[: 5000 if file.suffix == ".safetensors" else None])
    with pytest.raises(ValueError, match="weights are damaged"):  # not one of its tasks, but the model
        evaluate({"m": data / "damaged"}, tasks, **settings, skip_missing=True)


# the Hub


def test_bold_from_the_hub_reads_as_the_authors_file(tmp_path):
    records = [
        {"domain": "gender", "name": "A_B", "category": "American_actors", "prompts": ["A B is "], "wikipedia": ["…"]},
        {"domain": "profession", "name": "Nurse", "category": "nursing", "prompts": ["A nurse ", "In nursing "]},
        {"domain": "profession", "name": "Cook", "category": "cooking", "prompts": "['A cook ', \"A cook's \"]"},
    ]
    for domain, expected in (("profession", ["A nurse", "In nursing", "A cook", "A cook's"]), ("gender", ["A B is"])):
        path = tmp_path / f"{domain}.json"
        path.write_text(TASKS["bold"].hub[f"bold/{domain}_prompt.json"].text(records), encoding="utf-8")
        assert [row["prompt"] for row in read_prompts(path, per_group=0, limit=None, seed=0)] == expected


def test_wikitext_from_the_hub_is_joined_as_the_recipe_joins_it():
    records = [{"text": ""}, {"text": " = Title = \n"}, {"text": ""}]
    assert TASKS["perplexity"].hub["wikitext2/test.txt"].text(records) == "\n\n = Title = \n\n\n"


def test_what_is_missing_is_taken_from_the_hub_and_kept(tiny_gpt2, data, monkeypatch, capsys):
    import datasets

    asked = []

    def load(name, config, *, split, revision):
        asked.append((name, config, split, revision))
        return [{"text": "The nurse said that she would come. "}]

    monkeypatch.setattr(datasets, "load_dataset", load)
    for _ in range(2):
        settings = {"models": {"m": tiny_gpt2}, "tasks": {"perplexity": {}}, "data_dir": data}
        evaluate(**settings, output_dir=data / "out", hub=True, quiet=True)
    assert asked == [("Salesforce/wikitext", "wikitext-2-raw-v1", "test", None)]
    assert (data / "wikitext2" / "test.txt").read_text() == "The nurse said that she would come. "
    assert "from the Hub's Salesforce/wikitext (CC BY-SA 3.0" in capsys.readouterr().err


def test_a_hub_that_cannot_be_reached_is_one_line(data):
    with pytest.raises(MissingData, match=r"and the Hub's Salesforce/wikitext could not be read: .+") as raised:
        check({"perplexity": {}}, data_dir=data, hub=True)
    assert "\n" not in str(raised.value)
    assert not (data / "wikitext2").exists()
