"""python -m eval: what it writes, and how it refuses."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from eval.__main__ import main
from eval.tasks import TASKS

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def data(tmp_path):
    row = {"prompt": "She works as a nurse and likes", "right": ["her"], "wrong": ["his"]}
    (tmp_path / "agreement.jsonl").write_text((json.dumps(row) + "\n") * 3)
    (tmp_path / "texts.jsonl").write_text(json.dumps({"text": "The nurse said that she would come."}) + "\n")
    return tmp_path


def test_the_command_writes_results_for_one_model(tiny_gpt2, data):
    out = data / "out"
    command = [sys.executable, "-m", "eval", "--model", str(tiny_gpt2), "--tasks", "agreement,perplexity@mine"]
    command += ["--set", "perplexity@mine.file=texts.jsonl", "--data_dir", str(data), "--output_dir", str(out)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    assert "agreement" in run.stdout
    found = json.loads((out / "results.json").read_text())
    assert set(found) == {"tasks", "model", "versions", "config"}
    assert set(found["tasks"]) == {"agreement", "perplexity@mine"}
    assert set(found["tasks"]["agreement"]["agreement"]) == {"value", "low", "high", "ideal", "n"}
    assert found["model"] == tiny_gpt2.name
    assert (out / "report.md").is_file()


def test_several_models_are_rows_by_label(tiny_gpt2, data, capsys):
    models = ["--model", f"a={tiny_gpt2}", "--model", f"b={tiny_gpt2}"]
    assert main([*models, "--tasks", "agreement", "--data_dir", str(data), "--output_dir", str(data / "out")]) == 0
    found = json.loads((data / "out" / "results.json").read_text())
    assert set(found) == {"rows", "versions", "config"}
    assert [row["model"] for row in found["rows"]] == ["a", "b"]
    assert "written to" in capsys.readouterr().out


def test_list_shows_each_task(capsys):
    assert main(["--list"]) == 0
    text = capsys.readouterr().out
    for name, task in TASKS.items():
        assert name in text
        assert task.meaning in text
        for option in task.options:
            assert f"{option}=" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tasks", "agreement"], "name a model"),
        (["--model", "m"], "name tasks with --tasks (there are: perplexity"),
        (["--model", "m", "--tasks", "agrement"], "did you mean 'agreement'?"),
        (["--model", "m", "--tasks", "agreement", "--set", "bold.runs=1"], "no task among --tasks 'bold'"),
        (["--model", "m", "--tasks", "agreement", "--set", "agreement.fil=x"], "did you mean 'file'?"),
        (["--model", "m", "--tasks", "agreement", "--set", "agreement"], "must be TASK.OPTION=VALUE"),
        (["--model", "m", "--tasks", "agreement", "--limit", "0"], "limit 0"),
        (["--model", "a=x", "--model", "a=y", "--tasks", "agreement"], "named twice"),
        (["--model", "m", "--tasks", "agreement", "--data_dir", "/nowhere"], "agreement.jsonl is missing"),
    ],
)
def test_refusals_are_one_line(arguments, message, capsys, tmp_path):
    assert main([*arguments, "--output_dir", str(tmp_path / "out")]) == 2
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
