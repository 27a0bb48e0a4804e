"""The dashboard and the sweep file: runs log every figure they name, and every value they try can be loaded."""

import json
from pathlib import Path

import pytest
import yaml

from configs import study
from configs.load import load
from debias.__main__ import main

CONFIGS = Path(__file__).parents[1] / "configs"


def test_the_dashboard_shows_what_runs_log(tmp_path, capsys):
    out = tmp_path / "dashboard.json"
    config = str(CONFIGS / "quickstart.yaml")
    during = ["eval.every=10", "eval.during={next_word: {}}"]
    assert main(["dashboard", "--config", config, "--output", str(out), *during, "tracking.project=p"]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    spec = json.loads(out.read_text(encoding="utf-8"))
    text = json.dumps(spec)
    assert spec["project"] == "p"
    for key in ("loss", "kd", "lm", "tokens_per_s", "next_word/equitability_avg", "perplexity@skewed/perplexity"):
        assert f'"{key}"' in text, key


def test_a_dashboard_without_an_owner_is_refused(capsys):
    assert main(["dashboard", "--config", str(CONFIGS / "quickstart.yaml")]) == 2
    assert "tracking.entity: a dashboard needs" in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted((CONFIGS / "sweeps").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_run_of_a_sweep_loads(path):
    sweep = yaml.safe_load(path.read_text(encoding="utf-8"))
    command = sweep["command"]
    config = command[command.index("--config") + 1]
    fixed = [word for word in command[command.index(config) + 1 :] if not word.startswith("$")]
    for key, choice in sweep["parameters"].items():
        for value in choice["values"]:
            whole, _ = load(CONFIGS.parent / config, [*fixed, f"{key}={json.dumps(value)}"])
    assert sweep["metric"]["name"] in study.figures_of(whole.eval.during)


def test_runs_of_a_sweep_have_folders_of_their_own(monkeypatch):
    whole, runs = load(CONFIGS / "distilgpt2_era.yaml")
    before = whole.output_dir
    study.folder_in_a_sweep(whole, *runs.values())
    assert whole.output_dir == before
    monkeypatch.setenv("WANDB_SWEEP_ID", "s")
    monkeypatch.setenv("WANDB_RUN_ID", "r1")
    study.folder_in_a_sweep(whole, *runs.values())
    assert {config.output_dir for config in (whole, *runs.values())} == {f"{before}/r1"}
    whole, runs = load(CONFIGS / "quickstart.yaml")
    with pytest.raises(ValueError, match="starts one run, this configuration has 4"):
        study.folder_in_a_sweep(whole, *runs.values())
