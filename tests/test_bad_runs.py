"""Training and evaluation on bad input: configurations, corpora, pair sets, models, folders, options.

Each gives one line on stderr and exit code 2, and leaves nothing that a later run would take for complete.
test_bad_input.py does the same for the text side.
"""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import train_distill
from eval.__main__ import main as evaluate
from tests.runs import fresh

TEXT = "The nurse said that she would finish her shift before the doctor came back with his notes."
FEW_WORDS = "name: few\nversion: 1\nlicence: x\nsource: x\ngroups: [female, male]\npairs: {all: [she he, her him]}\n"


@pytest.fixture(autouse=True)
def _fresh_accelerator():
    yield
    fresh()


@pytest.fixture
def place(tmp_path, tiny_gpt2, monkeypatch):
    """The folder in which everything lies, by relative names: texts.jsonl, few.yaml, a good model, a copy to spoil."""
    monkeypatch.chdir(tmp_path)
    Path("texts.jsonl").write_text(json.dumps({"text": TEXT}) * 0 + (json.dumps({"text": TEXT}) + "\n") * 40)
    Path("few.yaml").write_text(FEW_WORDS)
    shutil.copytree(tiny_gpt2, "good")
    shutil.copytree(tiny_gpt2, "bad")
    return tmp_path


SETTINGS = [
    *("output_dir=run", "data.source=texts.jsonl", "data.max_length=64", "teacher.model=good"),
    *("counterfactual.lexicon=few.yaml", "counterfactual.augment=true", "loss.op=max", "train.max_steps=1"),
    *("train.batch_size=8", "train.micro_batch_size=8", "train.cpu_threads=1"),
]


def refused(code, capsys) -> str:
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if not line.startswith("warning: ")]
    assert code == 2 and lines and all(line.startswith("error: ") for line in lines), (code, error)
    assert len(lines) == 1 and len(lines[0]) < 700, error
    return error


def trained(*more, capsys) -> str:
    """The one line with which training refuses; it leaves no complete run."""
    error = refused(train_distill.main([*SETTINGS, *more]), capsys)
    assert not Path("run/run.json").exists() and not Path("run/model").exists()
    return error


# ---------------------------------------------------------------- models


def cut(path: str, keep: int) -> None:
    os.truncate(path, keep)


def index_of_missing_shards() -> None:
    Path("bad/model.safetensors").unlink()
    names = {"transformer.wte.weight": "model-00001-of-00002.safetensors"}
    Path("bad/model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))


def change_config(**change) -> None:
    config = json.loads(Path("bad/config.json").read_text())
    Path("bad/config.json").write_text(json.dumps(config | change))


def pickle_only() -> None:
    weights = load_file("bad/model.safetensors")
    Path("bad/model.safetensors").unlink()
    torch.save(weights, "bad/pytorch_model.bin")


def small_embedding() -> None:
    weights = load_file("bad/model.safetensors")
    weights["transformer.wte.weight"] = weights["transformer.wte.weight"][:300].contiguous()
    save_file(weights, "bad/model.safetensors", {"format": "pt"})
    change_config(vocab_size=300)


def no_numbers() -> None:
    weights = load_file("bad/model.safetensors")
    save_file(
        {k: torch.full_like(v, float("nan")) for k, v in weights.items()}, "bad/model.safetensors", {"format": "pt"}
    )


def emptied() -> None:
    shutil.rmtree("bad")
    Path("bad").mkdir()


BAD_MODELS = {  # how the copy is damaged, the message when it is the teacher
    "no weights": (lambda: Path("bad/model.safetensors").unlink(), "teacher.model bad: cannot be loaded"),
    "half the weights": (lambda: cut("bad/model.safetensors", 50_000), "teacher.model bad: cannot be loaded"),
    "empty weights": (lambda: cut("bad/model.safetensors", 0), "teacher.model bad: cannot be loaded"),
    "weights are text": (
        lambda: Path("bad/model.safetensors").write_text("version https://git-lfs"),
        "cannot be loaded",
    ),
    "index of missing shards": (index_of_missing_shards, "teacher.model bad: cannot be loaded"),
    "a pickle": (pickle_only, "its weights are a pickle: convert them"),
    "no configuration": (lambda: Path("bad/config.json").unlink(), "teacher.model bad: "),
    "half a configuration": (lambda: cut("bad/config.json", 40), "teacher.model bad: "),
    "no model type": (lambda: Path("bad/config.json").write_text("{}"), "teacher.model bad: "),
    "another model type": (lambda: change_config(model_type="bloom"), "teacher.model bad: "),
    "weights of another width": (lambda: change_config(n_embd=64), "teacher.model bad: cannot be loaded"),
    "more layers than weights": (lambda: change_config(n_layer=9), "teacher.model bad: cannot be loaded"),
    "fewer embeddings than tokens": (small_embedding, "300 embeddings for a tokenizer of"),
    "no tokenizer": (lambda: [p.unlink() for p in Path("bad").glob("tokenizer*")], "teacher.model bad: no tokenizer"),
    "half a tokenizer": (lambda: cut("bad/tokenizer.json", 100), "teacher.model bad: no tokenizer"),
    "an empty folder": (emptied, "teacher.model bad: "),
    "weights that are no numbers": (no_numbers, "hidden states are not finite"),
}


@pytest.mark.parametrize("how", BAD_MODELS)
def test_bad_teachers(how, place, capsys):
    spoil, says = BAD_MODELS[how]
    spoil()
    assert says in trained("teacher.model=bad", capsys=capsys)


@pytest.mark.parametrize("how", ["no weights", "half the weights", "a pickle", "fewer embeddings than tokens"])
def test_bad_students(how, place, capsys):
    BAD_MODELS[how][0]()
    assert "student" in trained("student.init=pretrained", "student.model=bad", capsys=capsys)


@pytest.mark.parametrize("how", [how for how in BAD_MODELS if how != "another model type"])
def test_bad_models_to_measure(how, place, capsys):
    BAD_MODELS[how][0]()
    options = ["--model", "bad", "--tasks", "perplexity", "--set", "perplexity.file=texts.jsonl", "--data_dir", "."]
    assert "bad" in refused(evaluate([*options, "--output_dir", "out"]), capsys)
    assert not Path("out/results.json").exists()


# ---------------------------------------------------------------- settings and files


def write(name: str, content: str | bytes) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_bytes(content.encode() if isinstance(content, str) else content)


def spoil_pairs(do) -> None:
    """Prepares pairs and spoils them."""
    assert train_distill.main([*SETTINGS, "output_dir=first", "data.pairs_dir=pairs"]) == 0
    (folder,) = Path("pairs").glob("pairs-*")
    do(folder)


BAD_RUNS = {  # preparation, settings, message
    "no corpus": (None, ["data.source=none.jsonl"], "none.jsonl: no such file"),
    "empty corpus": (lambda: write("a.jsonl", ""), ["data.source=a.jsonl"], "no text in it"),
    "blank corpus": (lambda: write("a.txt", "\n \n"), ["data.source=a.txt"], "no text in it"),
    "broken line": (
        lambda: write("a.jsonl", '{"text": "a b"}\n{'),
        ["data.source=a.jsonl"],
        "a.jsonl, line 2: not JSON",
    ),
    "not UTF-8": (lambda: write("a.txt", b"\xff\xfe"), ["data.source=a.txt"], "a.txt, line 1: not UTF-8"),
    "other field": (None, ["data.text_field=body"], "no text field 'body'; found: text"),
    "corpus below a batch": (None, ["train.batch_size=4096"], "lower it"),
    "half a shard": (
        lambda: spoil_pairs(lambda folder: os.truncate(folder / "00000.safetensors", 900)),
        ["data.pairs_dir=pairs"],
        "not a complete pair set",
    ),
    "lost shard": (
        lambda: spoil_pairs(lambda folder: (folder / "00000.safetensors").unlink()),
        ["data.pairs_dir=pairs"],
        "not a complete pair set",
    ),
    "broken meta.json": (
        lambda: spoil_pairs(lambda folder: (folder / "meta.json").write_text("{")),
        ["data.pairs_dir=pairs"],
        "not a complete pair set",
    ),
    "context too short": (None, ["data.max_length=500"], "sees at most 128 positions"),
    "no such layer": (None, ["student.layers=[7]"], "layers 0 to 3"),
    "layers for twelve": (None, ["student.layers=hf"], "12 layers"),
    "no such teacher": (None, ["teacher.model=none"], "teacher.model none: cannot be loaded"),
    "teacher is a file": (None, ["teacher.model=texts.jsonl"], "teacher.model texts.jsonl: cannot be loaded"),
    "no such lexicon": (None, ["counterfactual.lexicon=none"], "no lexicon 'none'"),
    "broken lexicon": (lambda: write("a.yaml", "a: ["), ["counterfactual.lexicon=a.yaml"], "not valid YAML"),
    "output is a file": (lambda: write("run", ""), [], "run"),
    "output below a file": (None, ["output_dir=texts.jsonl/run"], "texts.jsonl"),
    "output below a device": (None, ["output_dir=/dev/null/run"], "/dev/null"),
    "pairs are a file": (None, ["data.pairs_dir=texts.jsonl"], "texts.jsonl"),
    "no such configuration": (None, ["--config", "none.yaml"], "none.yaml: No such file"),
    "configuration is a folder": (None, ["--config", "good"], "--config good: Is a directory"),
    "broken YAML": (lambda: write("c.yaml", "a: ["), ["--config", "c.yaml"], "not valid YAML"),
    "tabs in YAML": (lambda: write("c.yaml", "train:\n\tepochs: 1"), ["--config", "c.yaml"], "not valid YAML"),
    "configuration not UTF-8": (lambda: write("c.yaml", b"\xff"), ["--config", "c.yaml"], "not valid YAML"),
    "configuration is a list": (lambda: write("c.yaml", "- 1"), ["--config", "c.yaml"], "expected a mapping"),
    "a section twice": (
        lambda: write("c.yaml", "loss: {op: max}\nloss: {tau: 3}"),
        ["--config", "c.yaml"],
        "c.yaml: line 2: 'loss' stands twice",
    ),
    "code in YAML": (
        lambda: write("c.yaml", "seed: !!python/object/apply:os.system ['touch owned']"),
        ["--config", "c.yaml"],
        "not valid YAML",
    ),
    "run above the folder": (None, ["runs={../up: {}}"], "a run's name is letters, digits"),
    "run at the root": (None, ["runs={/tmp/up: {}}"], "a run's name is letters, digits"),
    "run named model": (None, ["runs={model: {}}"], "this folder has another use"),
    "run named evaluation": (None, ["runs={evaluation: {}}"], "this folder has another use"),
    "two students": (None, ["eval.models={student: x}"], "eval.models.student: is also the name of a model"),
    "two teachers": (None, ["eval.models={teacher: x}"], "eval.models.teacher: is also the name of a model"),
    "no setting": (None, ["bogus"], "bogus: expected key.sub=value"),
    "no such setting": (None, ["train.epoch=1"], "did you mean epochs"),
    "not a number": (None, ["optim.lr=fast"], "optim.lr: must be a number"),
    "a number in octal": (None, ["seed=010"], "seed=010: 010 would be read as 8; write numbers in decimal digits"),
    "a time of day": (None, ["data.source=1:30"], "1:30 would be read as 90"),
    "infinite": (None, ["optim.lr=.inf"], "optim.lr: must be a number"),
    "negative skips": (None, ["train.max_skips=-1"], "must be at least 0"),
    "unknown policy": (None, ["train.on_nan=ignore"], "must be one of stop, skip"),
    "broken settings of an earlier run": (
        lambda: write("run/config.yaml", "a: ["),
        [],
        "run/config.yaml: not valid YAML",
    ),
    "broken inputs of an earlier run": (lambda: write("run/inputs.json", "{"), [], "run/inputs.json: not valid JSON"),
    "a setting twice in a word": (None, ["train={epochs: 1, epochs: 2}"], "'epochs' stands twice"),
    "a run that needs another": (
        None,
        ["runs={a: {}, b: {student: {init: pretrained, model: 'run:a'}}}", "--runs", "b"],
        "run:a is needed and not trained yet; add a",
    ),
    "a bound that is none": (None, ["--tokens", "0"], "must be a number above 0"),
    "no bound at all": (None, ["--minutes", "inf"], "must be a number above 0"),
    "rounds and steps": (
        None,
        ["federated.rounds=2", "federated.local_steps=2", "federated.clients=3", "federated.per_round=2"],
        "train.max_steps: is federated.rounds × local_steps, 4",
    ),
    "no such task": (None, ["eval.tasks={bolt: {}}", "eval.data_dir=."], "bolt"),
    "no data to measure with": (None, ["eval.tasks={perplexity: {}}"], "eval.data_dir"),
}


@pytest.mark.parametrize("what", BAD_RUNS)
def test_bad_runs(what, place, capsys):
    prepare, settings, says = BAD_RUNS[what]
    if prepare:
        prepare()
        fresh()
        capsys.readouterr()
    assert says in trained(*settings, capsys=capsys)
    assert not Path("owned").exists()


def test_a_complete_run_is_refused_once_its_texts_or_its_model_have_changed(place, capsys):
    assert train_distill.main(SETTINGS) == 0
    fresh()
    model, texts = Path("run/model/model.safetensors"), Path("texts.jsonl").read_text()
    Path("texts.jsonl").write_text(texts.replace("nurse", "pilot"))
    assert "was made from another data.source" in refused(train_distill.main(SETTINGS), capsys)
    Path("texts.jsonl").write_text(texts)
    model.rename("kept")
    assert "run/model: is not as the run left it" in refused(train_distill.main(SETTINGS), capsys)
    Path("kept").rename(model)
    assert train_distill.main(SETTINGS) == 0 and "complete in run" in capsys.readouterr().out
    model.unlink()
    facts = json.loads(Path("run/run.json").read_text())
    Path("run/run.json").unlink()
    assert train_distill.main(SETTINGS) == 0 and model.exists()
    fresh()
    Path("run/run.json").write_text(json.dumps({**facts, "sha256": {}}))  # as an old version left it
    shutil.rmtree("good")  # what it was made from may be gone
    Path("texts.jsonl").unlink()
    assert train_distill.main(SETTINGS) == 0
    Path("few.yaml").write_text(FEW_WORDS.replace(" her him", ""))
    assert "was made from another counterfactual.lexicon" in refused(train_distill.main(SETTINGS), capsys)


@pytest.mark.parametrize("more", [["train.max_steps=1"], ["train.max_steps=3", "train.save_every=1"]])
def test_a_step_that_diverges_leaves_neither_model_nor_checkpoint(place, capsys, more):
    assert "weights are NaN or infinite" in trained("optim.lr=1e38", *more, capsys=capsys)
    assert not list(Path("run").rglob("model.safetensors"))


def test_a_failed_evaluation_keeps_the_results_before_it(place, capsys):
    options = ["--tasks", "perplexity", "--set", "perplexity.file=texts.jsonl"]
    options += ["--data_dir", ".", "--output_dir", "out"]
    assert evaluate(["--model", "good", *options]) == 0
    before = {path: path.read_bytes() for path in Path("out").iterdir() if path.is_file()}
    no_numbers()
    capsys.readouterr()
    assert "its predictions are NaN" in refused(evaluate(["--model", "bad", *options]), capsys)
    assert before and {path: path.read_bytes() for path in Path("out").iterdir() if path.is_file()} == before


EVALUATIONS = {
    "no model": ([], ["--tasks", "perplexity"], "name a model with --model"),
    "no task": (["good"], [], "name tasks with --tasks"),
    "no such task": (["good"], ["--tasks", "bolt"], "bolt"),
    "no such option": (["good"], ["--tasks", "perplexity", "--set", "perplexity.fil=x"], "fil"),
    "an option of no task": (["good"], ["--tasks", "perplexity", "--set", "bold.runs=1"], "bold.runs"),
    "an option without value": (["good"], ["--tasks", "perplexity", "--set", "perplexity.file"], "TASK.OPTION=VALUE"),
    "no data": (["good"], ["--tasks", "perplexity", "--set", "perplexity.file=none.jsonl"], "none.jsonl"),
    "no rows": (["good"], ["--tasks", "perplexity", "--limit", "0"], "limit 0: must be at least 1"),
    "no batch": (["good"], ["--tasks", "perplexity", "--batch_size", "0"], "batch_size 0: must be at least 1"),
    "negative seed": (["good"], ["--tasks", "perplexity", "--seed", "-1"], "seed -1: "),
    "no such device": (["good"], ["--tasks", "perplexity", "--device", "abacus"], "abacus"),
    "no such folder": (["nowhere"], ["--tasks", "perplexity"], "nowhere"),
    "twice the same label": (["a=good", "a=good"], ["--tasks", "perplexity"], "named twice"),
    "a label alone": (["a="], ["--tasks", "perplexity"], "neither label nor path"),
    "a label with a colon": (["good"], ["--tasks", "perplexity@a:b"], "colon"),
    "a label with a way out": (["good"], ["--tasks", "perplexity@../up"], "slash"),
}


@pytest.mark.parametrize("what", EVALUATIONS)
def test_bad_evaluations(what, place, capsys):
    models, options, says = EVALUATIONS[what]
    given = [option for model in models for option in ("--model", model)]
    options = ["--set", "perplexity.file=texts.jsonl", *options] if "perplexity" in options else options
    assert says in refused(evaluate([*given, "--data_dir", ".", "--output_dir", "out", *options]), capsys)
    assert not Path("out/results.json").exists()
