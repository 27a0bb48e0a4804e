"""A study on another machine: pieces that are joined there, a stage that stops in time, and what it goes on from."""

import gzip
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import venv
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import train_distill
from benchmarks.study import gpu, pieces
from debias import task
from tests.runs import bitwise, fresh, write_texts

ROOT = Path(train_distill.__file__).parent


@pytest.fixture(autouse=True)
def _fresh_accelerator():
    yield
    fresh()


# ---------------------------------------------------------------- pieces


@pytest.fixture
def folder(tmp_path) -> Path:
    found = tmp_path / "data"
    (found / "deep").mkdir(parents=True)
    (found / "a.bin").write_bytes(bytes(range(256)) * 40)
    (found / "deep" / "empty.txt").write_text("")
    (found / "deep" / "b.txt").write_text("ü" * 3000, encoding="utf-8")
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_pieces_are_small_and_join_to_the_same_folder(folder, tmp_path):
    listed = pieces.split(folder, tmp_path / "pieces", megabytes=0.004)
    parts = sorted(listed.parent.glob("data.[0-9]*"))
    assert len(parts) > 4 and all(part.stat().st_size <= 4000 for part in parts)
    whole = pieces.join(listed, tmp_path / "there")
    assert whole == tmp_path / "there" / "data" and contents(whole) == contents(folder)
    (whole / "a.bin").write_text("changed there")
    parts[0].unlink()
    assert pieces.join(listed, tmp_path / "there") == whole  # these pieces are joined already
    assert (whole / "a.bin").read_text() == "changed there"


def test_new_pieces_replace_the_folder_and_old_pieces(folder, tmp_path):
    pieces.split(folder, tmp_path / "pieces", megabytes=0.004)
    pieces.join(tmp_path / "pieces" / "data.json", tmp_path)
    (folder / "a.bin").unlink()
    listed = pieces.split(folder, tmp_path / "pieces", megabytes=1)
    assert sorted(path.name for path in listed.parent.iterdir()) == ["data.000", "data.json"]
    assert contents(pieces.join(listed, tmp_path / "there")) == contents(folder)


def test_one_file_travels_too(folder, tmp_path):
    listed = pieces.split(folder / "a.bin", tmp_path / "pieces", megabytes=0.004)
    whole = pieces.join(listed, tmp_path / "there")
    assert whole.read_bytes() == (folder / "a.bin").read_bytes()


def test_wrong_and_missing_pieces_are_named_and_nothing_is_made(folder, tmp_path):
    listed = pieces.split(folder, tmp_path / "pieces", megabytes=0.004)
    first, second = (listed.parent / f"data.00{n}" for n in (0, 1))
    first.write_bytes(b"x" + first.read_bytes()[1:])
    second.unlink()
    command = [sys.executable, "benchmarks/study/pieces.py", "join", str(listed), str(tmp_path / "there")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and not (tmp_path / "there").exists()
    assert done.stderr.splitlines() == [
        f"error: {first}: is not the piece that was split; carry it over again, or split again",
        f"error: {second}: is not here; carry it over",
    ]


# ---------------------------------------------------------------- a stage


def test_a_stage_asks_its_command_to_stop_and_ends_one_that_does_not(capfd):
    code = "trap '{}' TERM; echo up; while :; do sleep 0.1; done"
    assert gpu.bounded(["sh", "-c", "exit 3"], 60) == 3
    assert gpu.bounded(["sh", "-c", code.format("exit 7")], 1) == 7
    assert gpu.bounded(["sh", "-c", code.format(":")], 1, grace=0.5) == -signal.SIGKILL
    assert capfd.readouterr().out.count("up") == 2


def test_a_stopped_run_goes_on_elsewhere_to_the_same_weights(tiny_gpt2, few_words, tmp_path, monkeypatch):
    corpus, study = write_texts(tmp_path / "texts.jsonl"), tmp_path / "one" / "gpt2"
    settings = [f"data.source={corpus}", f"teacher.model={tiny_gpt2}", f"counterfactual.lexicon={few_words}"]
    settings += ["data.max_length=64", "counterfactual.augment=true", "loss.op=max", "train.max_steps=6"]
    settings += ["train.batch_size=8", "train.micro_batch_size=8", "train.log_every=1", "train.save_every=2"]
    settings += ["train.cpu_threads=1", "runs={a: {}, b: {loss: {tau: 1.0}}}"]
    assert train_distill.main([*settings, f"output_dir={tmp_path / 'whole'}"]) == 0
    original, calls = task.DistillTask.forward, itertools.count()

    def forward(self, batch, **options):
        if next(calls) == 8:  # in step 3 of the second run
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, batch, **options)

    fresh()
    with monkeypatch.context() as patched:
        patched.setattr(task.DistillTask, "forward", forward)
        assert train_distill.main([*settings, f"output_dir={study}"]) == 0
    state = {str(path.relative_to(study)) for path in gpu.state_of(study)}
    kept = {name.split("/")[2] for name in state if "checkpoints" in name}
    assert kept == {"step-0000003"} and not any(name.startswith("pairs") for name in state)
    home = {str(path.relative_to(study)) for path in gpu.results_of(study)}
    assert {"a/run.json", "a/metrics.jsonl", "b/config.yaml"} <= home and not any(
        "safetensors" in name for name in home
    )
    listed = pieces.split(study, tmp_path / "back", 0.1, name="gpt2", only=gpu.state_of(study))
    study.rename(tmp_path / "lost")
    there = pieces.join(listed, tmp_path / "two")
    fresh()
    assert train_distill.main([*settings, f"output_dir={there}"]) == 0
    assert all(bitwise(tmp_path / "whole" / name, there / name) for name in "ab")


# ---------------------------------------------------------------- a machine with little on it


@pytest.fixture(scope="module")
def data(tmp_path_factory, tiny_tokenizer) -> Path:
    """A folder like that of public data, with 41 articles, the last of which is held out, and a novel."""
    found = tmp_path_factory.mktemp("data")
    lines = write_texts(found / "texts.jsonl", 90).read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    articles = ["\n".join([texts[n], texts[n + 41], "short"]) for n in range(39)]
    articles += ["She said that her brother had met the king, and he told his wife that he was right about it."] * 2
    for name, rows in (("wikipedia_articles", articles), ("novels", ["\n".join(texts[-8:])])):
        with gzip.open(found / f"{name}.jsonl.gz", "wt", encoding="utf-8") as file:
            file.writelines(json.dumps({"text": text}) + "\n" for text in rows)
    tiny_tokenizer.save_pretrained(found / "gpt2_tokenizer")
    (found / "bold").mkdir()
    (found / "bold" / "profession_prompt.json").write_text(json.dumps({"nurses": {"Nurse": ["The nurse said"]}}))
    (found / "wikitext2").mkdir()
    (found / "wikitext2" / "test.txt").write_text("\n".join(texts[:5]))
    return found


def test_prepare_makes_pieces_and_holds_articles_out(data, tmp_path, capsys):
    for _ in range(2):
        gpu.prepare(data, tmp_path, None, "")
        bytes_of = (tmp_path / "data" / "train.jsonl.gz").read_bytes()
        listed = (tmp_path / "pieces" / "data.json").read_text()
    gpu.prepare(data, tmp_path, None, "")
    assert (tmp_path / "data" / "train.jsonl.gz").read_bytes() == bytes_of and "data.000" in listed
    rows = [json.loads(line)["text"] for line in gzip.decompress(bytes_of).decode().splitlines()]
    held_out = [json.loads(line)["text"] for line in (tmp_path / "data" / "heldout.jsonl").read_text().splitlines()]
    assert rows.count(held_out[0]) == 1  # article 41; the same text as number 40 is held out
    assert "short" not in rows and len(rows) > 40
    with pytest.raises(ValueError, match=r"not there: wikipedia_articles\.jsonl\.gz, novels"):
        gpu.prepare(tmp_path / "nowhere", tmp_path, None, "")


def required(*names: str) -> set[str]:
    """Packages by name, and what they need."""
    todo, found = list(names), set[str]()
    while todo:
        name = re.sub(r"[-_.]+", "-", todo.pop()).lower()
        try:
            needs = [] if name in found else [Requirement(line) for line in distribution(name).requires or []]
        except PackageNotFoundError:
            continue
        found.add(name)
        todo += [need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
    return found


def tops(name: str) -> dict[str, Path]:
    """What a package has in site-packages."""
    files = distribution(name).files or []
    return {
        file.parts[0]: Path(str(distribution(name).locate_file(file.parts[0])))
        for file in files
        if file.parts[0] != ".."
    }


@pytest.mark.slow
def test_a_stage_runs_where_only_the_named_packages_are(data, tmp_path):
    """In an environment of links to gpu.NEEDED and what they need, without gpu.CARRIED, which come as wheels."""
    carried = {re.sub(r"[-_.]+", "-", name) for name in gpu.CARRIED.values()}
    there, root = tmp_path / "there", tmp_path / "root"
    venv.create(there, with_pip=False, symlinks=True)
    site = next(there.glob("lib/python*/site-packages"))
    for name in required(*gpu.NEEDED) - carried:
        for top, path in tops(name).items():
            if not (site / top).exists():
                (site / top).symlink_to(path)
    gpu.prepare(data, root, None, "")
    command = [str(there / "bin" / "python"), "benchmarks/study/gpu.py", "--root", str(root), "stage", "gpt2"]
    command += ["--back", str(tmp_path / "back"), f"data.source={root}/data/train.jsonl.gz"]
    command += [f"eval.data_dir={root}/data"]
    command += [f"runs.teacher.tokenizer.name={root}/data/gpt2_tokenizer", "data.workers=1", "data.max_length=64"]
    command += ["runs.teacher.student.config={n_layer: 2, n_embd: 16, n_head: 2}", "runs.teacher.train.max_steps=2"]
    command += ["train.max_steps=2", "train.batch_size=4", "train.micro_batch_size=4", "train.compile=false"]
    command += ["train.precision=no", "eval.tasks={agreement@names: {file: names.jsonl}, next_word: {}}"]
    options = {"cwd": ROOT, "capture_output": True, "text": True, "check": False}
    done = subprocess.run(command, **options, timeout=60)
    assert done.returncode == 1 and "lacks pydantic, pydantic_core, " in done.stderr
    for name in carried:
        (root / "wheels").mkdir(exist_ok=True)
        with zipfile.ZipFile(root / "wheels" / f"{name}.whl", "w") as wheel:
            for top in tops(name).values():
                for path in [top, *top.rglob("*")]:
                    if path.is_file() and path.suffix != ".pyc":
                        wheel.write(path, path.relative_to(top.parent))
    done = subprocess.run(command, **options, timeout=300)
    assert done.returncode == 0 and done.stdout.endswith("gpt2 is complete\n"), done.stderr[-2000:]
    home = pieces.join(tmp_path / "back" / "gpt2-results.json", tmp_path / "home")
    rows = json.loads((home / "results.json").read_text(encoding="utf-8"))["rows"]
    assert [row["model"] for row in rows] == ["teacher", "plain", "era", "even"] and (home / "report.html").exists()
