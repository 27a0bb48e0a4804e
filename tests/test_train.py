"""The recipe, end to end, on tiny models: what it writes, resumes and refuses."""

import itertools
import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import train_distill
from configs import build
from counterfactuals.provenance import versions
from debias.run import checkpoint
from debias.run.tracking import Tracker
from tests.runs import fresh, script, write_texts

ROOT = Path(train_distill.__file__).parent


@pytest.fixture(autouse=True)
def _fresh_accelerator():
    yield
    fresh()


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    return write_texts(tmp_path_factory.mktemp("corpus") / "texts.jsonl", 120)


@pytest.fixture
def arguments(corpus, tiny_gpt2, few_words, tmp_path) -> list[str]:
    return [
        f"output_dir={tmp_path / 'run'}",
        f"data.source={corpus}",
        "data.max_length=64",
        f"teacher.model={tiny_gpt2}",
        f"counterfactual.lexicon={few_words}",
        "counterfactual.augment=true",
        "loss.op=max",
        "loss.vocabulary=reversed",
        "train.max_steps=6",
        "train.batch_size=16",
        "train.micro_batch_size=8",
        "train.log_every=1",
        "train.save_every=2",
        "train.cpu_threads=1",
    ]


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def refused(arguments: list[str], capsys) -> str:
    assert train_distill.main(arguments) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and "Traceback" not in message
    return message


def test_a_run_leaves_everything_a_user_expects(arguments, tmp_path, capsys, shared_data):
    (tmp_path / "bold").mkdir()
    prompts = {"a": {"x": ["The nurse said that"]}, "b": {"x": ["The plumber left because"]}}
    (tmp_path / "prompts.json").write_text(json.dumps(prompts), encoding="utf-8")
    tasks = f"eval.tasks={{next_word: {{file: {tmp_path / 'prompts.json'}}}}}"
    assert train_distill.main([*arguments, tasks, f"eval.data_dir={tmp_path}"]) == 0
    run = tmp_path / "run"
    assert {p.name for p in run.iterdir()} >= {"config.yaml", "metrics.jsonl", "checkpoints", "model", "results.json"}
    saved = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    assert saved["loss"]["op"] == "max" and saved["loss"]["tau"] == 2.0 and saved["optim"]["lr"] == 1e-3
    steps = lines(run / "metrics.jsonl")
    assert [line["step"] for line in steps] == [1, 2, 3, 4, 5, 6]
    assert steps[-1]["loss"] < steps[0]["loss"] and set(steps[0]) >= {"kd", "lm", "lr", "grad_norm"}
    model = AutoModelForCausalLM.from_pretrained(run / "model")
    tokenizer = AutoTokenizer.from_pretrained(run / "model")
    assert model.config.n_layer == 2
    text = tokenizer.decode(model.generate(**tokenizer("The nurse", return_tensors="pt"), max_new_tokens=3)[0])
    assert text.startswith("The nurse")
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    assert [row["model"] for row in results["rows"]] == ["teacher", "student"]
    entry = results["rows"][1]["tasks"]["next_word"]["equitability_avg"]
    assert set(entry) == {"value", "low", "high", "ideal", "distance", "n", "small"} and 0 <= entry["value"] <= 1
    assert "student" in capsys.readouterr().out


def test_a_finished_run_is_not_repeated_or_mixed_with_another(arguments, tmp_path, capsys):
    assert train_distill.main(arguments) == 0
    before = (tmp_path / "run" / "model" / "model.safetensors").stat().st_mtime_ns
    assert train_distill.main(arguments) == 0
    assert "complete" in capsys.readouterr().out
    assert (tmp_path / "run" / "model" / "model.safetensors").stat().st_mtime_ns == before
    assert "loss.tau: 2.0, now 3.0" in refused([*arguments, "loss.tau=3"], capsys)


def test_resume_is_bitwise_an_undisturbed_run(arguments, tmp_path, monkeypatch):
    """Dropout on, so that random states matter; killed between two checkpoints."""
    arguments = [*arguments, "student.dropout=0.1", "train.save_every=2"]
    assert train_distill.main([*arguments, f"output_dir={tmp_path / 'whole'}"]) == 0
    fresh()

    original, calls = build.collate, itertools.count()

    def dies(*args, **kwargs):
        if next(calls) == 10:  # two micro-batches a step: in step 6, after the checkpoint of step 4
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    monkeypatch.setattr(build, "collate", dies)
    assert train_distill.main(arguments) == 130
    assert [p.name for p in checkpoint.complete(tmp_path / "run" / "checkpoints")] == ["step-0000002", "step-0000004"]
    monkeypatch.setattr(build, "collate", original)
    fresh()
    assert train_distill.main(arguments) == 0
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "run")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert lines(tmp_path / "whole" / "metrics.jsonl") == lines(tmp_path / "run" / "metrics.jsonl")


def test_a_torn_checkpoint_is_never_picked_up(tmp_path):
    (tmp_path / "step-0000002").mkdir()
    (tmp_path / "step-0000004.partial").mkdir()
    (tmp_path / "step-0000004.partial" / "step.json").write_text("{}", encoding="utf-8")
    assert checkpoint.complete(tmp_path) == []


def test_accumulation_does_not_change_the_result_of_batches_by_tokens(arguments, tmp_path):
    """1 × 16 = 8 × 2, to rounding, with texts of unequal length and augmentation. By sequences: test_ranks.py."""
    arguments = [*arguments, "student.dropout=0", "train.batch_by=tokens"]
    for size in (16, 2):
        options = [f"train.micro_batch_size={size}", f"output_dir={tmp_path / str(size)}"]
        assert train_distill.main([*arguments, *options]) == 0
        fresh()
    one, eight = weights(tmp_path / "16"), weights(tmp_path / "2")
    for name in one:
        torch.testing.assert_close(one[name], eight[name], rtol=1e-4, atol=1e-5)


KINDS = {
    "plain": ["loss.op=none", "loss.vocabulary=plain", "counterfactual.augment=false"],
    "mean": ["loss.op=mean", "loss.vocabulary=plain"],
    "exp_mean_no_augmentation": ["loss.op=exp_mean", "counterfactual.augment=false"],
    "swap": ["loss.op=swap"],
    "original_only": ["counterfactual.perturb=original", "loss.vocabulary=plain"],
    "reverse_kl": ["loss.divergence=reverse"],
    "jsd": ["loss.divergence=jsd"],
    "fair_finetune": ["student.layers=all"],
    "listed_layers": ["student.layers=[3, 1]"],
    "bf16": ["train.precision=bf16"],
    "checkpointing": ["train.gradient_checkpointing=true"],
    "by_tokens": ["train.batch_by=tokens"],
    "cosine": ["optim.schedule=cosine", "optim.weight_decay=0.1"],
}
NO_TEACHER = ["teacher.model=null", "loss.op=none", "loss.vocabulary=plain", "loss.kd_weight=0"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_run_by_config_alone(kind, arguments, tmp_path):
    assert train_distill.main([*arguments, *KINDS[kind], "train.max_steps=2"]) == 0
    expected = {"fair_finetune": 4}.get(kind, 2)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model").config.n_layer == expected


def test_gradients_are_clipped_and_kd_plain_is_logged(arguments, tiny_gpt2, tmp_path):
    """Gradients far below AdamW's epsilon move nothing; the norm that is written is the one before."""
    before, moved = load_file(tiny_gpt2 / "model.safetensors")["transformer.wte.weight"], []
    for number, norm in enumerate((5.0, 1e-9)):
        folder = tmp_path / str(number)
        more = [f"optim.max_grad_norm={norm}", f"output_dir={folder}", "train.max_steps=1", "train.log_plain=true"]
        assert train_distill.main([*arguments, *more]) == 0
        fresh()
        moved.append(float((weights(folder)["transformer.wte.weight"] - before).abs().max()))
        (line,) = lines(folder / "metrics.jsonl")
        assert line["grad_norm"] > 1e-3 and 0 < line["kd_plain"] != line["kd"]
    assert moved[1] < moved[0] / 100


def test_cross_entropy_fine_tuning_and_training_from_scratch(arguments, tiny_gpt2, tmp_path):
    pretrained = [*NO_TEACHER, "student.init=pretrained", f"student.model={tiny_gpt2}"]
    assert train_distill.main([*arguments, *pretrained, "train.max_steps=2"]) == 0
    fresh()
    scratch = [*NO_TEACHER, "student.init=random", "student.config={n_layer: 1, n_embd: 16, n_head: 2}"]
    scratch += ["tokenizer.train_vocab_size=300", f"output_dir={tmp_path / 'scratch'}", "train.max_steps=2"]
    assert train_distill.main([*arguments, *scratch]) == 0
    assert len(AutoTokenizer.from_pretrained(tmp_path / "scratch" / "model")) == 300


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (["counterfactual.direction=left"], "no group 'left'"),
        (["counterfactual.protected=[womn]"], "did you mean woman"),
        (["counterfactual.policy=leave"], "there is reverse, skip, keep_names, or a doubt from 0 to 1"),
        (["data.workers=0"], "data.workers: must be at least 1"),
        (["train.keep_best=los"], "metrics.jsonl will have no 'los'; it will have loss, kd, lm"),
        (["train.keep_best=kd_plain"], "metrics.jsonl will have no 'kd_plain'"),
        (["train.epochs=x"], "must be a number or null"),
    ],
)
def test_mistakes_are_one_clear_line_and_leave_no_run(change, says, arguments, tmp_path, capsys):
    """Others are in test_bad_runs.py."""
    assert says in refused([*arguments, *change], capsys)
    assert not (tmp_path / "run" / "run.json").exists() and not (tmp_path / "run" / "model").exists()


def test_prepared_pairs_are_used_or_refused_by_name(arguments, corpus, tiny_gpt2, few_words, tmp_path, capsys):
    from counterfactuals.__main__ import main as command

    options = ["--source", str(corpus), "--tokenizer", str(tiny_gpt2), "--output_dir", str(tmp_path / "pairs")]
    options += ["--lexicon", str(few_words)]
    assert command(["build", *options, "--max_length", "64", "--workers", "1"]) == 0
    (folder,) = (tmp_path / "pairs").iterdir()
    built = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert "sequences of 120 texts" in capsys.readouterr().out
    given = [*arguments, f"data.pairs_dir={folder}", "train.max_steps=1"]
    assert "made with another max_length" in refused([*given, "data.max_length=32"], capsys)
    assert "made with another lexicon" in refused([*given, "counterfactual.policy=reverse"], capsys)
    assert train_distill.main(given) == 0
    assert built == {file.name: file.read_bytes() for file in folder.iterdir()}


def test_different_vocabularies_are_refused(arguments, tiny_gpt2, tmp_path, capsys):
    from counterfactuals.tokens.tokenizer import train_bpe
    from debias.models import random_student

    tokenizer = train_bpe(["quite another text, of other words"] * 4, 280)
    random_student({"n_layer": 1, "n_embd": 16, "n_head": 2}, tokenizer, 64).save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")
    student = ["student.init=pretrained", f"student.model={tmp_path / 'other'}"]
    assert "different vocabularies" in refused([*arguments, *student], capsys)


def test_the_script_starts(tmp_path):
    words = ["--config", "configs/quickstart.yaml", "--print_config", "seed=7"]
    code, said = script("train_distill.py", *words, output=tmp_path / "said")
    assert code == 0 and yaml.safe_load(said)["seed"] == 7


def test_help_and_print_config(capsys):
    assert train_distill.main(["--config", str(ROOT / "configs" / "quickstart.yaml"), "--print_config", "seed=7"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["seed"] == 7
    with pytest.raises(SystemExit) as stop:
        train_distill.main(["--help"])
    assert stop.value.code == 0 and "--settings" in capsys.readouterr().out


def test_mistakes_in_evaluation_show_before_training(arguments, tmp_path, capsys):
    assert "bolt" in refused([*arguments, "eval.tasks={bolt: {}}", f"eval.data_dir={tmp_path}"], capsys)
    assert "data_dir" in refused([*arguments, "eval.tasks={next_word: {}}"], capsys)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_run_with_a_replaced_teacher_is_not_complete(corpus, few_words, tmp_path, capsys):
    runs = (
        "runs={teacher: {tokenizer: {train_vocab_size: 300}, loss: {kd_weight: 0, lm_weight: 1}, optim: {lr: %s},"
        " student: {init: random, config: {n_layer: 2, n_embd: 16, n_head: 2}}},"
        " plain: {teacher: {model: 'run:teacher'}}}"
    )
    common = [f"output_dir={tmp_path}", f"data.source={corpus}", "data.max_length=48", "train.max_steps=2"]
    common += ["train.batch_size=8", "train.micro_batch_size=8", f"counterfactual.lexicon={few_words}"]
    assert train_distill.main([*common, runs % "1e-3"]) == 0
    shutil.rmtree(tmp_path / "teacher")
    assert "made from another teacher.model" in refused([*common, runs % "1e-2"], capsys)


def test_a_torn_line_of_metrics_does_not_block_resuming(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}\n{"step": 3, "lo', encoding="utf-8")
    with Tracker(path, "student", 4, step=1) as tracker:
        tracker.advance(10)
        tracker.log(loss=0.5)
    assert lines(path) == [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 0.5}]


def test_without_git_the_versions_are_still_written(monkeypatch):
    monkeypatch.setenv("PATH", "")
    found = versions()
    assert "torch" in found and "commit" not in found
