"""Where figures go: metrics.jsonl, console, Weights & Biases offline, TensorBoard; figures taken during training."""

import json
import math
import sys
from functools import partial
from pathlib import Path

import pytest

import train_distill
from configs import watching
from configs.load import load
from debias.run import tracking
from debias.run.tracking import TensorBoardSink, Tracker, WandbSink
from tests.runs import fresh, said

PROMPTS = {"a": {"x": ["The nurse said that"]}, "b": {"x": ["The plumber left because"]}}


@pytest.fixture(autouse=True)
def _fresh_accelerator():
    yield
    fresh()


def small_run(tiny_gpt2: Path, few_words: Path, folder: Path) -> list[str]:
    """Arguments of a run that takes a second; FOLDER/prompts.json is for next_word."""
    texts = ["The nurse said that she would help him.", "He told his wife about the work.", "It rains in the north."]
    corpus = folder / "texts.jsonl"
    corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts * 6), encoding="utf-8")
    (folder / "prompts.json").write_text(json.dumps(PROMPTS), encoding="utf-8")
    return [
        f"output_dir={folder / 'study'}",
        f"data.source={corpus}",
        "data.max_length=32",
        f"teacher.model={tiny_gpt2}",
        f"counterfactual.lexicon={few_words}",
        "train.max_steps=4",
        "train.batch_size=8",
        "train.micro_batch_size=8",
        "train.log_every=2",
    ]


@pytest.fixture
def arguments(tiny_gpt2, few_words, tmp_path) -> list[str]:
    return small_run(tiny_gpt2, few_words, tmp_path)


def records(folder: Path, *options: str, newest: Path | None = None) -> list[dict]:
    """What an offline run of Weights & Biases holds, as its own reader prints it."""
    from wandb.cli.cli import cli

    file = next((newest or next(folder.glob("wandb/offline-run-*"))).glob("*.wandb"))
    words = ["leet", "inspect", "--json", *options, str(file)]
    code, output = said(partial(cli, words), folder / "inspected")
    assert code == 0, output
    return [json.loads(output)] if options else [json.loads(line) for line in output.splitlines()]


def test_a_run_offline_holds_every_figure_and_setting(arguments, tmp_path, capsys):
    more = ["tracking=wandb", "tracking.mode=offline", "tracking.tags=[tiny]", "tracking.project=p", "optim.lr=2e-3"]
    assert train_distill.main([*arguments, *more]) == 0
    folder = tmp_path / "study"
    [summary] = records(folder, "--summary")
    text = json.dumps(summary)
    last = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()][-1]
    found = summary["summary"]
    for key in ("loss", "kd", "lm", "grad_norm", "lr", "num_tokens"):
        assert found[key] == pytest.approx(last[key], rel=1e-4), key
    assert found["tokens_per_s"] > 0 and found["_step"] == 4
    assert '"lr": 0.002' in text.replace('\\"', '"') and "study" in text
    run = next(record for record in records(folder) if record["type"] == "run")
    assert json.loads((folder / "wandb.json").read_text())["id"] in json.dumps(run)
    assert "tiny" in json.dumps(run)


def test_a_resumed_run_keeps_its_id(tmp_path, monkeypatch):
    given = {"title": "t", "config": {}, "mode": "offline"}
    first = WandbSink(tmp_path, **given)
    first.log(1, {"loss": 2.0})
    first.close()
    second = WandbSink(tmp_path, **given)
    second.close()
    assert first.run.id == second.run.id == json.loads((tmp_path / "wandb.json").read_text())["id"]


def test_online_without_a_key_is_refused_before_training(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    assert train_distill.main([*arguments, "tracking=wandb"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: tracking.mode: online needs") and not (tmp_path / "study").exists()


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match=r"pip install 'evenhand\[wandb\]'"):
        tracking.check("wandb", "offline")


def test_tensorboard_hides_repeated_steps(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for step, values in ((0, (3.0, 2.0, 1.0)), (1, (1.5, 0.5))):
        sink = TensorBoardSink(tmp_path, step=step)
        for i, value in enumerate(values):
            sink.log(step + 1 + i, {"loss": value})
        sink.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(1, 3.0), (2, 1.5), (3, 0.5)]


def test_non_finite_figures_are_not_written(tmp_path):
    """The norm of the first gradients in fp16, before their scale is found: JSON knows no infinity."""
    with Tracker(tmp_path / "metrics.jsonl", "even", 1, watching="quiet") as tracker:
        tracker.advance(10)
        tracker.log(loss=0.5, grad_norm=math.inf)
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 1, "loss": 0.5}


def test_console_forms(tmp_path, capsys):
    def printed(watching: str) -> str:
        with Tracker(tmp_path / "metrics.jsonl", "even", 2, watching=watching) as tracker:
            tracker.advance(10)
            tracker.log(loss=0.5)
            tracker.log(figure=0.25)
        return capsys.readouterr().out

    first, second = map(json.loads, printed("json").splitlines())
    assert first["run"] == "even" and first["loss"] == 0.5 and second["figure"] == 0.25
    assert printed("quiet") == ""
    assert printed("auto").startswith("even          1/2 · loss 0.5000") and "figure" not in printed("lines")


def test_small_evaluations_do_not_change_the_training(arguments, tmp_path, capsys):
    during = f"eval.during={{next_word: {{file: {tmp_path / 'prompts.json'}}}}}"
    probed = [*arguments, "eval.every=2", during, f"eval.data_dir={tmp_path}", "student.dropout=0.1"]
    assert train_distill.main(probed) == 0
    lines = [json.loads(line) for line in (tmp_path / "study" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4]
    assert all(0 <= line["next_word/equitability_avg"] <= 1 for line in lines)
    fresh()
    other = [*arguments, "student.dropout=0.1", f"output_dir={tmp_path / 'other'}"]
    assert train_distill.main(other) == 0
    one, two = ((tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("study", "other"))
    assert one == two


def test_the_small_evaluation_reads_no_more_rows_than_it_may(arguments, tmp_path):
    given = ["eval.every=2", "eval.during={next_word: {file: prompts.json}}", f"eval.data_dir={tmp_path}"]
    for limit in (1, 2):
        _, runs = load(None, [*arguments, *given, f"eval.during_limit={limit}"])
        assert len(watching.probe_of(runs[""], None).func.rows["next_word"]) == limit


def test_mistakes_of_the_small_evaluation_are_refused_early(arguments, tmp_path, capsys):
    assert train_distill.main([*arguments, "eval.every=2"]) == 2
    assert "eval.every, eval.during: set both" in capsys.readouterr().err
    wrong = [*arguments, "eval.every=2", "eval.during={nxt_word: {}}", f"eval.data_dir={tmp_path}"]
    assert train_distill.main(wrong) == 2
    assert "did you mean next_word?" in capsys.readouterr().err and not (tmp_path / "study").exists()
