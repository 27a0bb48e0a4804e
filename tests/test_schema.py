from pathlib import Path

import pytest
import yaml

from configs import schema
from debias.losses import DIVERGENCES
from debias.ops import OPS

RUN_CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))
SMALL = ["teacher.model=gpt2", "train.max_steps=1"]


def problems(*overrides: str) -> list[str]:
    with pytest.raises(schema.ConfigError) as caught:
        schema.load(None, [*SMALL, *overrides])
    return str(caught.value).splitlines()


@pytest.mark.parametrize("path", RUN_CONFIGS, ids=lambda p: p.name)
def test_every_config_loads_and_survives_its_own_printing(path, tmp_path):
    whole, runs = schema.load(path)
    assert runs
    again = tmp_path / "again.yaml"
    again.write_text(schema.to_yaml(whole), encoding="utf-8")
    assert schema.load(again) == (whole, runs)


def test_the_configs_the_readme_names_are_there():
    names = {path.stem for path in RUN_CONFIGS}
    assert names >= {"quickstart", "distilgpt2_plain", "distilgpt2_era", "gpt2_fair_finetune", "ce_finetune"}
    assert "wikipedia_small" in names


def test_overrides_win_and_take_the_settings_type():
    _, runs = schema.load(None, [*SMALL, "optim.lr=3e-4", "loss.op=max", "data.max_texts=5", "student.layers=[0, 3]"])
    config = runs[""]
    assert config.optim.lr == pytest.approx(3e-4) and config.loss.op == "max"
    assert config.data.max_texts == 5 and config.student.layers == [0, 3]


def test_an_override_of_one_run_leaves_those_that_share_its_yaml_alias(tmp_path):
    shared = tmp_path / "shared.yaml"
    shared.write_text(
        "teacher: gpt2\ntrain: {max_steps: 1}\nruns: {a: {loss: &loss {op: max}}, b: {loss: *loss}}\n",
        encoding="utf-8",
    )
    _, runs = schema.load(shared, ["runs.b.loss.tau=1", "runs.b.loss.op=mean"])
    assert [(run.loss.op, run.loss.tau) for run in runs.values()] == [("max", 2), ("mean", 1)]


def test_all_problems_are_reported_at_once():
    found = problems("loss.opp=max", "loss.tau=warm", "train.batch_size=10", "train.micro_batch_size=4", "data=3")
    assert len(found) == 4
    assert "loss.opp: unknown setting; did you mean op?" in found
    assert "loss.tau: must be a number, not 'warm'" in found
    assert any("10 is not a multiple" in line for line in found)
    assert "data: expected settings, found 3" in found


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("loss.op=maxx", "did you mean max"),
        ("loss.divergence=kl", "must be one of forward, reverse, jsd"),
        ("loss.tau=0", "above 0"),
        ("loss.kd_weight=-1", "must not be negative"),
        ("teacher.model=null", "without a teacher it must be 0"),
        ("loss.vocabulary=reversed", "needs an op"),
        ("counterfactual.perturb=original", "only with counterfactual.augment"),
        ("student.init=random", "student.config: goes with"),
        ("student.init=pretrained", "student.model: goes with"),
        ("student.layers=odd", "must be even, hf, all"),
        ("teacher.model=run:x", "not an earlier run"),
        ("train.max_steps=null", "one of them must be set"),
        ("train.max_steps=true", "whole number or null"),
        ("train.batch_size=0", "at least 1"),
        ("loss.hidden_weight=-1", "must not be negative"),
        ("loss.hidden_layers=kept", "only with loss.hidden_weight"),
        ("loss.mix=0.3", "matters only with loss.op mix"),
        ("loss.strength=0", "for 0 use op none"),
        ("loss.strength_warmup=0.5", "no effect with loss.op none"),
        ("data.max_length=1", "at least 2"),
        ("optim.betas=[0.9]", "two numbers"),
        ("optim.warmup=5", "between 0 and 1"),
        ("tokenizer.train_vocab_size=100", "at least 257"),
        ("train.lr=3", "unknown setting; did you mean optim.lr?"),
        ("runs={a: {eval: {}}}", "cannot differ between runs"),
        ("runs={a/b: {}}", "letters, digits"),
        ("lossop", "expected key.sub=value"),
    ],
)
def test_wrong_settings_say_what_and_the_way_out(override, says):
    assert any(says in line for line in problems(override)), problems(override)


def test_a_run_may_not_have_the_name_of_anothers_seed():
    found = problems("seeds=[3]", "runs={a: {}, a-seed3: {seeds: []}}")
    assert "runs.a-seed3: is also the name of a with seed 3" in found


def test_a_run_overrides_only_what_it_names():
    _, runs = schema.load(None, [*SMALL, "loss.tau=3", "runs={a: {}, b: {teacher: {model: 'run:a'}, loss: {op: max}}}"])
    assert list(runs) == ["a", "b"]
    assert runs["b"].loss.op == "max" and runs["b"].loss.tau == 3 and runs["a"].loss.op == "none"


def test_broken_files_are_one_line(tmp_path):
    broken = tmp_path / "broken.yaml"
    for text, says in [("a: [", "not valid YAML"), ("- 1", "expected a mapping")]:
        broken.write_text(text, encoding="utf-8")
        with pytest.raises(schema.ConfigError, match=says) as caught:
            schema.load(broken)
        assert "\n" not in str(caught.value)
    with pytest.raises(schema.ConfigError, match="No such file"):
        schema.load(tmp_path / "missing.yaml")


def test_the_schema_knows_every_op_and_divergence():
    assert tuple(OPS) == schema.OPS
    for kind in DIVERGENCES:
        schema.load(None, [*SMALL, f"loss.divergence={kind}"])


def test_help_names_every_setting_with_its_meaning():
    text = schema.describe()
    for key in ("loss.op", "counterfactual.augment", "train.micro_batch_size", "eval.tasks", "output_dir"):
        assert f"{key} " in text
    assert len(text.splitlines()) > 40


def test_differences_name_the_keys_that_decide_a_run(tmp_path):
    _, runs = schema.load(None, SMALL)
    saved = tmp_path / "config.yaml"
    saved.write_text(schema.to_yaml(runs[""]), encoding="utf-8")
    assert yaml.safe_load(saved.read_text(encoding="utf-8"))["loss"]["tau"] == 2.0
    _, same = schema.load(None, [*SMALL, "eval.batch_size=5", "output_dir=elsewhere"])
    assert schema.differences(saved, same[""]) == []
    _, other = schema.load(None, [*SMALL, "loss.tau=3", "student.layers=all"])
    assert schema.differences(saved, other[""]) == ["student.layers: even, now all", "loss.tau: 2.0, now 3.0"]


def test_a_word_in_place_of_a_section_is_its_first_setting():
    _, runs = schema.load(None, ["teacher=gpt2", "train.max_steps=1", "tracking=wandb", "tracking.mode=offline"])
    assert runs[""].teacher.model == "gpt2"
    assert (runs[""].tracking.to, runs[""].tracking.mode) == ("wandb", "offline")
    _, runs = schema.load(None, [*SMALL, "data.max_length=32", "data=texts.jsonl"])
    assert (runs[""].data.source, runs[""].data.max_length) == ("texts.jsonl", 32)  # what it does not name stays
    assert "tracking.to: must be one of none, wandb, tensorboard, not 'wandbb'; did you mean wandb?" in problems(
        "tracking=wandbb"
    )


def test_help_fits_a_screen_and_every_setting_can_be_listed(capsys):
    import train_distill

    with pytest.raises(SystemExit):
        train_distill.main(["--help"])
    assert len(capsys.readouterr().out.splitlines()) <= 30
    assert train_distill.main(["--settings"]) == 0
    listed = capsys.readouterr().out
    assert all(any(line.startswith(key + " ") for line in listed.splitlines()) for key in schema.names())
    assert train_distill.main(["--settings", "loss"]) == 0
    assert all(line.startswith("loss.") for line in capsys.readouterr().out.splitlines())
    assert train_distill.main(["--settings", "los"]) == 2
    assert "did you mean loss?" in capsys.readouterr().err
