"""Settings: loading, checking, overriding, printing and comparing them."""

import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import yaml

import train_distill
from configs import schema, study
from configs.load import load
from debias.losses import DIVERGENCES
from debias.ops import OPS

RUN_CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))
SMALL = ["teacher.model=gpt2", "train.max_steps=1"]


def problems(*overrides: str) -> list[str]:
    with pytest.raises(schema.ConfigError) as caught:
        load(None, [*SMALL, *overrides])
    return str(caught.value).splitlines()


@pytest.mark.parametrize("path", RUN_CONFIGS, ids=lambda p: p.name)
def test_every_config_loads_and_survives_its_own_printing(path, tmp_path):
    whole, runs = load(path)
    assert runs
    again = tmp_path / "again.yaml"
    again.write_text(schema.to_yaml(whole), encoding="utf-8")
    assert load(again) == (whole, runs)


def test_overrides_win_and_take_the_settings_type():
    _, runs = load(None, [*SMALL, "optim.lr=3e-4", "loss.op=max", "data.max_texts=5", "student.layers=[0, 3]"])
    config = runs[""]
    assert config.optim.lr == pytest.approx(3e-4) and config.loss.op == "max"
    assert config.data.max_texts == 5 and config.student.layers == [0, 3]


def test_what_yaml_reads_as_something_else_is_taken_as_meant(tmp_path):
    """A bare no, a number as the key of a mapping, a section without content."""
    path = tmp_path / "a.yaml"
    path.write_text("teacher: gpt2\ntrain: {max_steps: 1, precision: no}\nloss:\neval: {models: {3: x}, tasks:}\n")
    whole, _ = load(path)
    assert whole.train.precision == "no" and whole.loss == schema.Loss()
    assert whole.eval.models == {"3": "x"} and whole.eval.tasks == {}


@pytest.mark.parametrize(("given", "kept"), [("a #1", "a #1"), ("'a: b #c'", "a: b #c")])
def test_a_path_may_hold_what_begins_a_comment(given, kept):
    assert load(None, [*SMALL, f"output_dir={given}"])[0].output_dir == kept


def test_an_override_of_a_run_does_not_reach_its_yaml_alias(tmp_path):
    shared = tmp_path / "shared.yaml"
    shared.write_text(
        "teacher: gpt2\ntrain: {max_steps: 1}\nruns: {a: {loss: &loss {op: max}}, b: {loss: *loss}}\n",
        encoding="utf-8",
    )
    _, runs = load(shared, ["runs.b.loss.tau=1", "runs.b.loss.op=mean"])
    assert [(run.loss.op, run.loss.tau) for run in runs.values()] == [("max", 2), ("mean", 1)]


def test_all_problems_are_reported_at_once():
    found = problems("loss.opp=max", "loss.tau=warm", "train.batch_size=10", "train.micro_batch_size=4", "data=3")
    assert len(found) == 4
    assert "loss.opp: unknown setting; did you mean op?" in found
    assert "loss.tau: must be a number, not 'warm'" in found
    assert any("10 is not a multiple" in line for line in found)
    assert "data: expected settings, found 3" in found


def test_a_wrong_setting_is_not_reported_a_second_time_by_a_rule():
    assert problems("train.max_steps=true") == ["train.max_steps: must be a whole number or null, not True"]
    assert problems("loss.kd_weight=-1", "loss.lm_weight=0") == ["loss.kd_weight: must be at least 0, not -1"]


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("loss.op=maxx", "did you mean max"),
        ("loss.divergence=kl", "must be one of forward, reverse, jsd"),
        ("loss.tau=0", "must be above 0"),
        ("loss.chunk_rows=1", "must be at least 2"),
        ("loss.strength=0", "must be above 0"),
        ("loss.mix=1.5", "must be at most 1"),
        ("student.dropout=1", "must be below 1"),
        ("optim.lr=.inf", "must be a number"),
        ("optim.betas=[0.9]", "two numbers"),
        ("data.source=''", "must not be empty"),
        ("student.layers=odd", "must be even, hf, all"),
        ("student.layers=[0, true]", "must be even, hf, all"),
        ("student.layers=influence", "influence:N (N layers)"),
        ("student.layers=even:0", "even:N"),
        ("counterfactual.protected=queen", "must be a list of texts"),
        ("eval.tasks={bold: 3}", "must be a mapping"),
        ("seeds=[1, 1]", "a seed is named twice"),
        ("teacher.model=null", "without a teacher it must be 0"),
        ("loss.vocabulary=reversed", "needs an op"),
        ("counterfactual.perturb=original", "only with counterfactual.augment"),
        ("student.init=random", "student.config: goes with"),
        ("student.init=pretrained", "student.model: goes with"),
        ("teacher.model=run:x", "not an earlier run"),
        ("train.max_steps=null", "one of them must be set"),
        ("loss.hidden_layers=kept", "only with loss.hidden_weight"),
        ("loss.mix=0.3", "matters only with loss.op mix"),
        ("loss.amplify=1.2", "loss.amplify: needs loss.vocabulary reversed"),
        ("loss.strength_warmup=0.5", "no effect with loss.op none"),
        ("tokenizer.train_vocab_size=300", "only for a random student"),
        ("eval.every=3", "set both"),
        ("train.lr=3", "unknown setting; did you mean optim.lr?"),
        ("runs={a: {eval: {}}}", "cannot differ between runs"),
        ("runs={a/b: {}}", "letters, digits"),
        ("runs={a: 3}", "must be a mapping"),
        ("lossop", "expected key.sub=value"),
        ("seed.x=3", "seed holds a value"),
    ],
)
def test_wrong_settings_say_what_and_the_way_out(override, says):
    extra = ["seed=1"] if override.startswith("seed.") else []
    assert any(says in line for line in problems(*extra, override)), problems(*extra, override)


def test_reading_settings_does_not_wait_for_torch():
    code = "import sys, configs.load; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], check=False).returncode == 0


def test_a_run_may_not_have_the_name_of_anothers_seed():
    found = problems("seeds=[3]", "runs={a: {}, a-seed3: {seeds: []}}")
    assert "runs.a-seed3: is also the name of a with seed 3" in found


def test_a_run_overrides_only_what_it_names():
    _, runs = load(None, [*SMALL, "loss.tau=3", "runs={a: {}, b: {teacher: {model: 'run:a'}, loss: {op: max}}}"])
    assert list(runs) == ["a", "b"]
    assert runs["b"].loss.op == "max" and runs["b"].loss.tau == 3 and runs["a"].loss.op == "none"


def test_broken_files_are_one_line(tmp_path):
    broken = tmp_path / "broken.yaml"
    for text, says in [("a: [", "not valid YAML"), ("- 1", "expected a mapping")]:
        broken.write_text(text, encoding="utf-8")
        with pytest.raises(schema.ConfigError, match=says) as caught:
            load(broken)
        assert "\n" not in str(caught.value)
    with pytest.raises(schema.ConfigError, match="No such file"):
        load(tmp_path / "missing.yaml")


def test_the_schema_knows_every_op_and_divergence():
    assert tuple(OPS) == get_args(schema.Op)
    assert get_args(schema.Loss.model_fields["divergence"].annotation) == DIVERGENCES


def test_settings_that_matter_to_a_run_are_compared(tmp_path):
    _, runs = load(None, SMALL)
    (tmp_path / "config.yaml").write_text(schema.to_yaml(runs[""]), encoding="utf-8")
    assert yaml.safe_load((tmp_path / "config.yaml").read_text(encoding="utf-8"))["loss"]["tau"] == 2.0
    _, same = load(None, [*SMALL, "eval.batch_size=5", "output_dir=elsewhere"])
    assert study.changes(tmp_path, same[""]) == []
    _, other = load(None, [*SMALL, "loss.tau=3", "student.layers=all"])
    assert study.changes(tmp_path, other[""]) == ["student.layers: even, now all", "loss.tau: 2.0, now 3.0"]


def test_a_word_in_place_of_a_section_is_its_first_setting():
    _, runs = load(None, ["teacher=gpt2", "train.max_steps=1", "tracking=wandb", "tracking.mode=offline"])
    assert runs[""].teacher.model == "gpt2"
    assert (runs[""].tracking.to, runs[""].tracking.mode) == ("wandb", "offline")
    _, runs = load(None, [*SMALL, "data.max_length=32", "data=texts.jsonl"])
    assert (runs[""].data.source, runs[""].data.max_length) == ("texts.jsonl", 32)  # other settings stay
    assert "tracking.to: must be one of none, wandb, tensorboard, not 'wandbb'; did you mean wandb?" in problems(
        "tracking=wandbb"
    )


def test_help_fits_a_screen_and_every_setting_can_be_listed(capsys):
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


def test_a_flag_is_the_same_as_its_setting(capsys):
    assert train_distill.main(["--output_dir", "there", "--seed", "7", "--print_config", *SMALL]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert (printed["output_dir"], printed["seed"]) == ("there", 7)


def test_every_setting_has_a_meaning():
    for key, item in schema.names().items():
        assert item.description and len(item.description) > 8, key


@pytest.mark.parametrize(("given", "kept"), [("reverse", "reverse"), (0.25, 0.25), ("0.25", 0.25), (1, 1.0)])
def test_a_policy_is_a_name_or_a_doubt(given, kept):
    assert schema.Counterfactual(policy=given).policy == kept


@pytest.mark.parametrize("given", ["keep", 2, -0.1, True])
def test_other_policies_are_refused(given):
    with pytest.raises(ValueError, match="policy: no"):
        schema.Counterfactual(policy=given)
