"""Two processes share an evaluation: figures, rows and texts are those of one."""

import json
import multiprocessing
import os
import socket
from pathlib import Path

import pytest

from eval import __main__ as command

PROMPTS = {
    group: {"a": [f"The {group} said that", f"The {group} left because of the", f"A {group} and"], "b": [f"No {group}"]}
    for group in ("nurse", "plumber", "teacher")
}
TASKS = "bold,next_word,crows_pairs,last_word,seat,membership"
SETTINGS = ["bold.texts_per_prompt=2", "bold.runs=1", "bold.max_new_tokens=6", "seat.tests=sent-weat6"]
SETTINGS += ["membership.any_split=true"]


@pytest.fixture
def data(tmp_path):
    for name in ("bold", "crows_pairs", "lambada", "seat"):
        (tmp_path / name).mkdir()
    (tmp_path / "bold" / "profession_prompt.json").write_text(json.dumps(PROMPTS))
    pairs = ["sent_more,sent_less,stereo_antistereo,bias_type"]
    texts = []
    for number in range(7):
        pairs.append(f"She was {'very ' * number}old.,He was {'very ' * number}old.,stereo,gender")
        texts.append(json.dumps({"text": f"The nurse {'and he ' * number}said that she left"}) + "\n")
    (tmp_path / "crows_pairs" / "crows_pairs_anonymized.csv").write_text("\n".join(pairs) + "\n")
    (tmp_path / "lambada" / "test.jsonl").write_text("".join(texts))
    (tmp_path / "members.jsonl").write_text("".join(texts[::2]))
    (tmp_path / "nonmembers.jsonl").write_text("".join(texts[1::2]))
    sets = {"targ1": ["She is here", "The girl"], "targ2": ["He is here", "The boy is"]}
    sets |= {"attr1": ["This is a kitchen", "pupils"], "attr2": ["This is a bridge", "an engineer and his work"]}
    content = {name: {"category": name, "examples": examples} for name, examples in sets.items()}
    (tmp_path / "seat" / "sent-weat6.jsonl").write_text(json.dumps(content))
    return tmp_path


def arguments(model, data, name, tasks=TASKS, settings=SETTINGS):
    given = ["--model", str(model), "--tasks", tasks, "--data_dir", str(data), "--output_dir", str(data / name)]
    return [*given, "--device", "cpu", "--batch_size", "2", *(part for item in settings for part in ("--set", item))]


def rank(number, port, given, codes):
    os.environ |= {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    codes[number] = command.main(given)


def two(given):
    """Runs the command in two processes, forked from this one, which has imported everything; their exit codes."""
    context = multiprocessing.get_context("fork")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    codes = context.Array("i", [-1, -1])
    ranks = [context.Process(target=rank, args=(number, port, given, codes)) for number in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(120)
        process.kill()
    return list(codes)


def figures(folder: Path):
    found = json.loads((folder / "results.json").read_text())
    rows = {path.name: path.read_text() for path in folder.glob("rows-*.jsonl")}
    return found["rows"][0]["tasks"], rows


def test_two_processes_give_the_figures_of_one(tiny_gpt2, data, capfd):
    assert command.main(arguments(tiny_gpt2, data, "one")) == 0
    alone = capfd.readouterr()
    assert two(arguments(tiny_gpt2, data, "two")) == [0, 0]
    told = capfd.readouterr()
    assert figures(data / "two") == figures(data / "one")
    assert set(figures(data / "one")[0]) == set(TASKS.split(","))
    assert told.out.replace("/two", "/one") == alone.out  # one of them prints
    assert told.err.count("bold:") == alone.err.count("bold:") == 1
    before = {path: path.stat().st_mtime_ns for path in (data / "two" / ".cache").iterdir()}
    assert two(arguments(tiny_gpt2, data, "two")) == [0, 0]  # from kept rows, which the first one reads for both
    assert {path: path.stat().st_mtime_ns for path in (data / "two" / ".cache").iterdir()} == before
    assert figures(data / "two") == figures(data / "one")


def test_texts_sampled_without_a_cache_are_shared(tiny_gpt2, data, monkeypatch):
    monkeypatch.setattr("eval.model.Scorer.keeps_state", False)
    assert command.main(arguments(tiny_gpt2, data, "one", "bold", SETTINGS[:3])) == 0
    assert two(arguments(tiny_gpt2, data, "two", "bold", SETTINGS[:3])) == [0, 0]
    assert figures(data / "two") == figures(data / "one")


def test_each_process_does_its_part(tiny_gpt2, data, monkeypatch):
    """The rows that a process runs the model on are told in a file of its own."""
    from eval.model import Scorer

    pad = Scorer.pad

    def told(self, ids):
        with (data / f"rank{os.environ['RANK']}").open("a") as file:
            file.writelines(f"{list(row)}\n" for row in ids)
        return pad(self, ids)

    monkeypatch.setattr(Scorer, "pad", told)
    given = arguments(tiny_gpt2, data, "two", tasks="last_word,seat", settings=["seat.tests=sent-weat6"])
    assert two(given) == [0, 0]
    own = [(data / f"rank{number}").read_text().splitlines() for number in range(2)]
    assert len(own[0]) > 5 and len(own[1]) > 5
    assert not set(own[0]) & set(own[1])


def test_a_mistake_is_said_once(tiny_gpt2, data, capfd):
    assert two(arguments(tiny_gpt2, data, "two", tasks="bols", settings=[])) == [2, 2]
    assert capfd.readouterr().err.count("error: ") == 1
