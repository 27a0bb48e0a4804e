"""Flower carries the same messages: bitwise what a run in one process gives. Skipped without flwr."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs import fresh, write_texts

pytest.importorskip("flwr", reason="flwr is not installed: pip install 'evenhand[flower]' in an environment of its own")

import train_distill
from federated import flower

ROOT = Path(train_distill.__file__).parent
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _fresh_accelerator(monkeypatch):
    from flwr.supercore.task_identity import TaskIdentity

    for name in ("_run_id", "_node_id", "_task_id"):  # Flower sets them in the processes it starts
        monkeypatch.setattr(TaskIdentity, name, 1)
    yield
    fresh()


@pytest.fixture(scope="module")
def config(tmp_path_factory, tiny_gpt2, few_words) -> Path:
    folder = tmp_path_factory.mktemp("flower")
    write_texts(folder / "texts.jsonl", 40)
    settings = {
        "data": {"source": str(folder / "texts.jsonl"), "max_length": 64},
        "teacher": {"model": str(tiny_gpt2)},
        "student": {"dropout": 0.1},
        "counterfactual": {"lexicon": str(few_words), "augment": True},
        "loss": {"op": "max"},
        "train": {"batch_size": 8, "micro_batch_size": 8, "log_every": 1, "cpu_threads": 1},
        "federated": {"rounds": 2, "clients": 3, "per_round": 2, "local_steps": 2, "quantity": 1.0, "timeout": 300},
    }
    (folder / "config.yaml").write_text(json.dumps(settings), encoding="utf-8")
    return folder / "config.yaml"


@pytest.fixture(scope="module")
def whole(config) -> Path:
    """The run in one process, and its clients' folders."""
    assert train_distill.main(["--config", str(config), f"output_dir={config.parent / 'whole'}"]) == 0
    fresh()
    return config.parent / "whole"


def folders_of(whole: Path) -> list[Path]:
    return sorted(path for path in next((whole / "clients").iterdir()).iterdir() if path.is_dir())


def same(whole: Path, other: Path) -> bool:
    return all(
        (whole / name).read_bytes() == (other / name).read_bytes()
        for name in ("model/model.safetensors", "metrics.jsonl", "clients.json")
    )


class Here:
    """A grid in this process, whose answers come in another order than they were asked for."""

    def __init__(self, folders: list[Path], run_config: dict):
        self.folders, self.run_config = folders, run_config

    def get_node_ids(self):
        return [100 + number for number in range(len(self.folders))]

    def send_and_receive(self, messages, *, timeout=None):
        from flwr.app import Context, RecordDict

        for message in reversed(list(messages)):
            node = message.metadata.dst_node_id
            known = {"client": node - 100, "texts": str(self.folders[node - 100])}
            context = Context(0, node, known, RecordDict(), self.run_config)
            yield flower.client_app(message, context)


def test_messages_through_flower_give_the_same_bytes(config, whole, tmp_path):
    given = {"config": str(config), "run": "", "settings": f"output_dir={tmp_path / 'flower'}"}
    grid = Here(folders_of(whole), given)
    settings, name = flower._settings(given)
    made = flower.make_federation(settings, name, tmp_path / "flower")
    assert flower.run(made, flower.Remote(grid, 3, 5.0))
    assert same(whole, tmp_path / "flower")


def test_too_few_supernodes_are_one_line(config, whole, tmp_path):
    grid = Here(folders_of(whole)[:2], {})
    with pytest.raises(ValueError, match="3 wanted, but 2 SuperNodes"):
        list(flower.Remote(grid, 3, 0.01).hello())


def test_no_superlink_is_one_line(config, capsys):
    assert flower.main(["--config", str(config), "--superlink", f"127.0.0.1:{free_port()}"]) == 2
    assert "no SuperLink there" in capsys.readouterr().err


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.mark.parametrize("way", ["supernodes", "simulation"])
def test_flower_on_this_machine_gives_the_same_bytes(way, config, whole, tmp_path):
    """Seven processes, or Ray's workers, through federated/localhost.py; a minute or two."""
    command = [sys.executable, "-m", "federated.localhost", "--config", str(config)]
    command += ["--clients", str(folders_of(whole)[0].parent), f"output_dir={tmp_path / 'deployed'}"]
    if way == "simulation":
        pytest.importorskip("ray", reason="ray is not installed: pip install 'flwr[simulation]'")
        command.append("--simulation")
    there = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=there, capture_output=True, text=True, timeout=550)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert same(whole, tmp_path / "deployed")
