"""python -m eval: what it writes, and how it refuses."""

import json
from pathlib import Path

import pytest

from eval.__main__ import _labelled, main
from eval.report.page import Study
from eval.tasks import TASKS, find_task

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def data(tmp_path):
    row = {"prompt": "She works as a nurse and likes", "right": ["her"], "wrong": ["his"]}
    (tmp_path / "agreement.jsonl").write_text((json.dumps(row) + "\n") * 3)
    (tmp_path / "texts.jsonl").write_text(json.dumps({"text": "The nurse said that she would come."}) + "\n")
    return tmp_path


def test_the_command_writes_results_for_one_model(tiny_gpt2, data, capsys):
    out = data / "out"
    command = ["--model", str(tiny_gpt2), "--tasks", "agreement,perplexity@mine"]
    command += ["--set", "perplexity@mine.file=texts.jsonl", "--data_dir", str(data), "--output_dir", str(out)]
    assert main(command) == 0
    said = capsys.readouterr()
    lines = said.err.splitlines()  # one for each task, so that a log shows how far it is
    assert [line.partition(":")[0] for line in lines] == [
        f"{tiny_gpt2.name} · agreement",
        f"{tiny_gpt2.name} · perplexity@mine",
    ]
    assert "agreement" in said.out
    found = json.loads((out / "results.json").read_text())
    assert set(found) == {"rows", "differences", "versions", "config"}
    (row,) = found["rows"]
    assert row["tasks"]["agreement"]["agreement"]["small"] is True
    assert set(row["tasks"]) == {"agreement", "perplexity@mine"}
    assert set(row["tasks"]["agreement"]["agreement"]) == {"value", "low", "high", "ideal", "distance", "n", "small"}
    assert (row["model"], row["start"]) == (tiny_gpt2.name, "<|endoftext|>")
    (out / "results.json").write_text(json.dumps({**row, "versions": {}, "config": {}}))  # as older versions wrote it
    assert Study.load(out).results["rows"][0]["start"] == row["start"]
    assert (out / "report.md").is_file()


def test_several_models_are_rows_by_label(tiny_gpt2, data, capsys):
    models = ["--model", f"a={tiny_gpt2}", "--model", f"b={tiny_gpt2}", "--reference", "b"]
    assert main([*models, "--tasks", "agreement", "--data_dir", str(data), "--output_dir", str(data / "out")]) == 0
    found = json.loads((data / "out" / "results.json").read_text())
    assert set(found) == {"rows", "differences", "versions", "config"}
    assert [row["model"] for row in found["rows"]] == ["a", "b"]
    assert [(entry["model"], entry["minus"]) for entry in found["differences"]] == [("a", "b")]
    assert "written to" in capsys.readouterr().out


def test_models_are_named_after_their_folders(tmp_path, monkeypatch):
    for name in ("run/model", "a=b", "x/y"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "run")
    assert _labelled(["."]) == {"run": "."}
    monkeypatch.chdir(tmp_path / "run" / "model")
    assert _labelled(["."]) == {"run": "."}
    monkeypatch.chdir(tmp_path)
    assert _labelled(["run/model", "a=b", "x/y/", "n=x/y", "gpt2", "org/model"]) == {
        "run": "run/model", "a=b": "a=b", "y": "x/y/", "n": "x/y", "gpt2": "gpt2", "org/model": "org/model",
    }  # fmt: skip


def test_list_is_a_line_a_task(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:-1]] == list(TASKS)
    assert max(map(len, lines[:-1])) <= 80
    monkeypatch.setenv("COLUMNS", "400")
    assert main(["--list"]) == 0
    text = capsys.readouterr().out
    assert all(task.meaning in text for task in TASKS.values())


def test_the_table_of_tasks_and_licences_is_that_of_the_docs(capsys):
    """To renew it: evenhand eval --list markdown."""
    assert main(["--list", "markdown"]) == 0
    page = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    for line in capsys.readouterr().out.splitlines():
        assert line in page.splitlines() or not line


@pytest.mark.parametrize("name", [*TASKS, "lm_eval:hellaswag"])
def test_list_tells_all_about_one(capsys, monkeypatch, name):
    task = find_task(name)
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["--list", name]) == 0
    lines = capsys.readouterr().out.splitlines()
    text = " ".join(" ".join(lines).split())
    for part in (task.meaning, task.ideal, task.not_measured, task.data, task.licence, task.source, f"{task.version}"):
        assert part
        assert part in text
    assert len(lines) <= 24
    assert all(len(line) <= 80 or len(line.split()) == 1 for line in lines)
    for source in task.hub.values():
        assert source.dataset in text
    for option in task.options:
        assert f"{option}=" in text


def test_all_runs_what_has_data_and_names_the_rest(tiny_gpt2, data, capsys):
    out = data / "out"
    arguments = ["--model", str(tiny_gpt2), "--data_dir", str(data), "--output_dir", str(out), "--limit", "2"]
    assert main([*arguments, "--tasks", "all,agreement@again", "--set", "perplexity.file=texts.jsonl"]) == 0
    text = capsys.readouterr().out
    found = json.loads((out / "results.json").read_text())
    tasks = set(found["rows"][0]["tasks"])
    assert {"agreement", "perplexity"} <= tasks
    assert {"bold", "next_word"} <= set(found["skipped"])
    assert f"left out: bold: {found['skipped']['bold']}" in text
    left = {label.split(" · ")[-1] for label in found["skipped"]}  # a model may be too short for a task
    assert tasks | left == {*TASKS, "agreement@again"}
    assert "was left out" in (out / "report.md").read_text()


def test_seeds_and_a_cache_of_ones_own(tiny_gpt2, data):
    arguments = ["--model", str(tiny_gpt2), "--data_dir", str(data), "--output_dir", str(data / "out")]
    arguments += ["--tasks", "agreement", "--seeds", "3,4", "--cache_dir", str(data / "cache")]
    assert main(arguments) == 0
    assert json.loads((data / "out" / "results.json").read_text())["config"]["seeds"] == [3, 4]
    assert len(list((data / "cache").iterdir())) == 1
    assert not (data / "out" / ".cache").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tasks", "agreement"], "name a model"),
        (["--model", "m"], "name tasks with --tasks (there are: perplexity"),
        (["--model", "m", "--tasks", "agrement"], "did you mean agreement?"),
        (["--model", "m", "--tasks", "agreement", "--set", "bold.runs=1"], "no task among --tasks 'bold'"),
        (["--model", "m", "--tasks", "agreement", "--set", "agreement.fil=x"], "did you mean file?"),
        (["--model", "m", "--tasks", "agreement", "--set", "agreement"], "must be TASK.OPTION=VALUE"),
        (["--model", "m", "--tasks", "agreement", "--limit", "0"], "limit 0"),
        (["--model", "a=x", "--model", "a=y", "--tasks", "agreement"], "named twice"),
        (["--model", "m", "--tasks", "agreement", "--data_dir", "/nowhere"], "agreement.jsonl is missing"),
        (["--model", "m", "--tasks", "agreement", "--data_dir", "/nowhere"], "`evenhand sample --output_dir"),
        (["--model", "m", "--tasks", "bold", "--set", "bold.runs=inf"], "bold.runs='inf': must be int"),
        (["--model", "m", "--tasks", "agreement", "--seed", "-1"], "seed -1"),
        (["--model", "m", "--tasks", "agreement", "--seeds", "1,x"], "--seeds '1,x': must be whole numbers"),
        (["--model", "m", "--tasks", "agreement", "--seeds", "1,1"], "seeds 1, 1: must differ"),
        (["--model", "m", "--tasks", "perplexity", "--hub"], "the Hub's Salesforce/wikitext could not be read"),
        (["--list", "agrement"], "did you mean agreement?"),
        (["--model", "m", "--tasks", "agreement", "--device", "foo"], "device 'foo'"),
        (["--model", "m", "--tasks", "agreement", "--device", "cuda:99"], "device 'cuda:99'"),
        (["--model", "m", "--model", "/no/model", "--tasks", "agreement"], "model '/no/model': no such folder"),
        (["--model", ".", "--tasks", "agreement"], "not a model folder"),
        (["--model", "damaged", "--tasks", "agreement"], "weights are damaged or incomplete"),
        (["--model", "m", "--tasks", "perplexity", "--set", "perplexity.file=empty.jsonl"], "all of it is empty"),
        (["--model", "m", "--tasks", "bold", "--set", "bold.file=null.json"], "nurse.a: Input should be a valid array"),
        (["--model", "m", "--tasks", "agreement", "--set", "agreement.file=wrong.jsonl"], "row 1: prompt"),
    ],
)
def test_refusals_are_one_line(arguments, message, capsys, data, tiny_gpt2, monkeypatch):
    (data / "empty.jsonl").write_text('{"text": ""}\n')
    (data / "null.json").write_text('{"nurse": {"a": null}}')
    (data / "wrong.jsonl").write_text('{"prompt": 1, "right": ["her"], "wrong": ["his"]}\n')
    (data / "damaged").mkdir()
    for file in tiny_gpt2.iterdir():
        (data / "damaged" / file.name).write_bytes(file.read_bytes()[: 5000 if file.suffix == ".safetensors" else None])
    monkeypatch.chdir(data)
    assert main(["--data_dir", str(data), *arguments, "--output_dir", str(data / "out")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err


def test_a_folder_that_is_no_model_is_refused(data, capsys):
    arguments = [
        "--model",
        str(data),
        "--tasks",
        "agreement",
        "--data_dir",
        str(data),
        "--output_dir",
        str(data / "out"),
    ]
    assert main(arguments) == 2
    assert "not a model folder" in capsys.readouterr().err
