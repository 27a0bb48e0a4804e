"""Publishing: a study's results to Weights & Biases (offline), models with cards to the Hub."""

import json
from pathlib import Path
from typing import ClassVar

import pytest
import yaml
from test_tracking import records, small_run

import train_distill
from debias.run import publish
from eval.report.page import Study, examples, merged
from tests.runs import fresh


@pytest.fixture(autouse=True)
def _fresh_accelerator():
    yield
    fresh()


def arguments(tiny_gpt2: Path, few_words: Path, folder: Path) -> list[str]:
    """Two tiny runs and their evaluation."""
    return [
        *small_run(tiny_gpt2, few_words, folder),
        "train.max_steps=2",
        f"eval.tasks={{next_word: {{file: {folder / 'prompts.json'}}}}}",
        f"eval.data_dir={folder}",
        "runs={plain: {}, even: {counterfactual: {augment: true}, loss: {op: max, vocabulary: reversed}}}",
    ]


@pytest.fixture
def study(tiny_gpt2, few_words, tmp_path) -> list[str]:
    return arguments(tiny_gpt2, few_words, tmp_path)


@pytest.fixture(scope="module")
def finished(tiny_gpt2, few_words, tmp_path_factory) -> tuple[list[str], Path]:
    """The arguments and the folder of a study that is complete, models and evaluation."""
    folder = tmp_path_factory.mktemp("finished")
    given = arguments(tiny_gpt2, few_words, folder)
    assert train_distill.main(given) == 0
    return given, folder / "study"


def offline(folder: Path, number: int = -1) -> dict:
    """The summary of a run's newest attempt."""
    newest = sorted(folder.glob("wandb/offline-run-*"))[number]
    [summary] = records(newest.parent.parent, "--summary", newest=newest)
    return summary


def test_a_study_sends_its_figures_tables_and_models(study, tmp_path, capsys):
    arguments = [*study, "tracking=wandb", "tracking.mode=offline", "tracking.artifacts=true", "tracking.project=p"]
    arguments.append("counterfactual.max_doubt=0.5")
    assert train_distill.main(arguments) == 0
    folder = tmp_path / "study"
    rows = {row["model"]: row["tasks"] for row in json.loads((folder / "results.json").read_text())["rows"]}
    for model in ("plain", "even"):
        value = rows[model]["next_word"]["equitability_avg"]["value"]
        assert offline(folder / model)["summary"]["next_word/equitability_avg"] == pytest.approx(value)
        newest = sorted((folder / model).glob("wandb/offline-run-*"))[-1]
        kept = [record for record in records(folder / model, newest=newest) if record["type"] == "artifact"]
        text = json.dumps(kept)
        assert len(kept) == 2 and f"study-{model}" in text and next((folder / "pairs").glob("pairs-*")).name in text
    summary = offline(folder / "evaluation")["summary"]
    value = rows["even"]["next_word"]["equitability_avg"]["value"]
    assert summary["even/next_word/equitability_avg"] == pytest.approx(value)
    text = json.dumps(summary)
    assert "figures" in text and "male_share/even" in text


def test_generated_pairs_may_hold_any_line_separator(tmp_path):
    row = {"model": "m", "prompt": "He", "reversed": "She", "texts": ["a\u2028b"], "reversed_texts": ["c\x85"]}
    (tmp_path / "rows-pairs.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    study = Study("study", tmp_path, {"rows": [{"model": "m", "tasks": {"pairs": {}}}]})
    texts = {"m": ("a\u2028b", "c\x85")}
    assert examples(merged([study])) == [{"prompt": "He", "reversed": "She", "texts": texts}]


def test_a_run_of_a_sweep_is_one_run(study, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_SWEEP_ID", "s")
    monkeypatch.setenv("WANDB_RUN_ID", "r1")
    arguments = [*study[:-1], "tracking=wandb", "tracking.mode=offline", "tracking.project=p"]
    assert train_distill.main(arguments) == 0
    folder = tmp_path / "study" / "r1"
    rows = json.loads((folder / "results.json").read_text())["rows"]
    figures = [row["tasks"] for row in rows if "next_word" in row["tasks"]][-1]
    value = figures["next_word"]["equitability_avg"]["value"]
    assert offline(folder)["summary"]["next_word/equitability_avg"] == pytest.approx(value)
    # offline-run-TIME-ID, and -1 behind it where the run is opened twice in a second
    assert {path.name.split("-")[3] for path in (tmp_path / "study").rglob("offline-run-*")} == {"r1"}
    assert not (folder / "evaluation").exists()


def test_each_model_has_a_card(finished):
    folder = finished[1]
    text = (folder / "even" / "model" / "README.md").read_text(encoding="utf-8")
    _, head, body = text.split("---\n", 2)
    figures = yaml.safe_load(head)["model-index"][0]["results"][0]["metrics"]
    rows = {row["model"]: row["tasks"] for row in json.loads((folder / "results.json").read_text())["rows"]}
    value = rows["even"]["next_word"]["equitability_avg"]["value"]
    assert figures[0]["value"] == pytest.approx(value) and f"{value:.3f}" in body
    assert "(`max`)" in body and "carried through the role reversal" in body and "2 steps of 8 sequences" in body
    assert str(folder.parent) not in text  # no path of the machine that trained it
    other = (folder / "plain" / "model" / "README.md").read_text(encoding="utf-8")
    assert "without changing the teacher's predictions" in other


class Api:
    """In place of the Hub's: keeps what it was asked to do."""

    calls: ClassVar[list] = []

    def create_repo(self, repo, *, private, exist_ok):
        self.calls.append(("create", repo, private))

    def upload_folder(self, *, repo_id, folder_path, commit_message):
        self.calls.append(("upload", repo_id, sorted(path.name for path in Path(folder_path).iterdir())))
        return f"hub/{repo_id}"


def test_models_are_pushed_with_their_cards(finished, monkeypatch, capsys):
    given, folder = finished
    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "secret-token")
    Api.calls = []
    assert train_distill.main([*given, "hub.repo=someone/evenhand-{run}", "hub.private=false"]) == 0
    assert [call[:2] for call in Api.calls] == [
        (what, f"someone/evenhand-{run}") for run in ("plain", "even") for what in ("create", "upload")
    ]
    assert Api.calls[0][2] is False and {"README.md", "model.safetensors", "tokenizer.json"} <= set(Api.calls[1][2])
    written = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert b"secret-token" not in written + capsys.readouterr().out.encode()


@pytest.mark.parametrize(
    ("repo", "token", "says"),
    [
        ("someone/one-name", "t", "needs {run} in it"),
        ("a b/{run}", "t", "hub.repo: a b/{run}: Repo id must"),
        ("someone/x-{run}", None, "needs `hf auth login` or HF_TOKEN"),
    ],
)
def test_a_push_that_would_fail_is_refused_before_training(study, tmp_path, monkeypatch, capsys, repo, token, says):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: token)
    assert train_distill.main([*study, f"hub.repo={repo}"]) == 2
    assert says in capsys.readouterr().err and not (tmp_path / "study").exists()


def test_a_refused_push_says_where_the_model_is(tmp_path, monkeypatch):
    def refuses(*_, **__):
        raise OSError("no route\nto the Hub")

    monkeypatch.setattr(Api, "create_repo", refuses)
    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    with pytest.raises(ValueError, match=f"no route; the model is in {tmp_path}, run again") as caught:
        publish.push(tmp_path, "a/b", private=True)
    assert "\n" not in str(caught.value)


def test_generated_pairs_are_told_apart_by_model(tmp_path):
    rows = [
        {"model": model, "prompt": "He", "reversed": "She", "texts": [f"{model} 1"], "reversed_texts": [f"{model} 2"]}
        for model in ("plain", "even")
    ]
    (tmp_path / "rows-x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    study = Study("study", tmp_path, {"rows": [{"model": model, "tasks": {"x": {}}} for model in ("plain", "even")]})
    (found,) = examples(merged([study]))
    assert found["texts"] == {"plain": ("plain 1", "plain 2"), "even": ("even 1", "even 2")}
