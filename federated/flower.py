"""The same rounds on Flower (flwr): a ServerApp that runs engine.py, and a ClientApp that runs client.py.

A SuperNode says which client it is, and where that client's texts are, in its node config:

    flower-supernode --superlink HOST:PORT --node-config 'client=3 texts="clients/00003"' …
    python -m federated.flower --config CONFIG.yaml --superlink HOST:PORT [key.sub=value …]

Every machine needs this package, the configuration and its public models at the same paths. Flower's telemetry is off.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"  # it is on by default, and read when flwr is imported

import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from configs.federation import client_of, make_federation
from configs.load import load
from configs.schema import Config
from debias.run.command import run_command
from federated.engine import run
from federated.message import unpack

server_app = ServerApp()
client_app = ClientApp()


# ---------------------------------------------------------------- server


@dataclass
class Remote:
    """Clients on SuperNodes (engine.Clients). Answers come in any order; they are handed on in that of the clients.

    wanted: clients that must be connected before the run begins. timeout: seconds for them to connect, and for the
    answers of a round.
    """

    grid: Grid
    wanted: int
    timeout: float
    name: str = "SuperNodes"
    nodes: dict[int, int] = field(default_factory=dict)  # client: node

    def hello(self) -> Iterator[bytes]:
        until = time.monotonic() + self.timeout
        while len(found := list(self.grid.get_node_ids())) < self.wanted and time.monotonic() < until:
            time.sleep(min(1.0, self.timeout))
        if len(found) != self.wanted:
            raise ValueError(f"federated.clients: {self.wanted} wanted, but {len(found)} SuperNodes are connected")
        for node, answer in self.ask("query", found, b"", "hello").items():
            if isinstance(answer, str):
                raise ValueError(f"SuperNode {node}: did not say who it is ({answer}); see its log")
            self.nodes[unpack(answer)[1]["client"]] = node
            yield answer

    def train(self, round: int, chosen: np.ndarray, message: bytes) -> Iterator[tuple[int, bytes | str]]:
        found = self.ask("train", [self.nodes[client] for client in chosen.tolist()], message, str(round))
        for client in chosen.tolist():
            yield client, found[self.nodes[client]]

    def ask(self, what: str, nodes: Sequence[int], payload: bytes, group: str) -> dict[int, bytes | str]:
        """What each node answers; "failed" for an error there, "late" if nothing comes in time."""
        found: dict[int, bytes | str] = dict.fromkeys(nodes, "late")
        asked = [Message(wrapped(payload), dst_node_id=node, message_type=what, group_id=group) for node in nodes]
        for reply in self.grid.send_and_receive(asked, timeout=self.timeout):
            node = reply.metadata.src_node_id
            found[node] = "failed" if reply.has_error() else unwrapped(reply)
        return found


@server_app.main()
def serve(grid: Grid, context: Context) -> None:
    """Flower's entry point on the server."""
    config, name = _settings(context.run_config)
    made = make_federation(config, name, Path(config.output_dir) / name)
    run(made, Remote(grid, config.federated.clients or 0, config.federated.timeout))


# ---------------------------------------------------------------- client


@client_app.query()
def hello(message: Message, context: Context) -> Message:
    client, number, folder = here(context)
    return Message(wrapped(client.hello(number, folder)), reply_to=message)


@client_app.train()
def train(message: Message, context: Context) -> Message:
    client, number, folder = here(context)
    return Message(wrapped(client.train(number, folder, unwrapped(message))), reply_to=message)


def here(context: Context) -> tuple[Any, int, Path]:
    """What this node runs, its number, and the folder with its texts."""
    known = dict(context.node_config)
    if "clients" in context.run_config:  # Flower's simulation numbers its nodes itself
        number = int(str(known["partition-id"]))
        known = {"client": number, "texts": f"{context.run_config['clients']}/{number:05d}"}
    if not {"client", "texts"} <= known.keys():
        raise ValueError('--node-config: say which client this is, and where its texts are: client=3 texts="FOLDER"')
    client = _client(json.dumps(context.run_config, sort_keys=True))
    return client, int(str(known["client"])), Path(str(known["texts"]))


@lru_cache(1)
def _client(run_config: str) -> Any:
    return client_of(_settings(json.loads(run_config))[0])[0]


# ---------------------------------------------------------------- both


def _settings(run_config: dict[str, Any]) -> tuple[Config, str]:
    """The configuration of the run that is federated, and its name."""
    name = run_config["run"]
    return load(run_config["config"], shlex.split(run_config["settings"]))[1][name], name


def wrapped(payload: bytes) -> RecordDict:
    return RecordDict({"message": ConfigRecord({"bytes": payload})})


def unwrapped(message: Message) -> bytes:
    return message.content["message"]["bytes"]


# ---------------------------------------------------------------- command

APP = """[project]
name = "evenhand-federated"
version = "1.0.0"
dependencies = []
[tool.flwr.app]
publisher = "evenhand"
[tool.flwr.app.components]
serverapp = "federated.flower:server_app"
clientapp = "federated.flower:client_app"
[tool.flwr.app.config]
"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m federated.flower", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--config", metavar="FILE.yaml", required=True, help="as for evenhand train")
    parser.add_argument(
        "--run", metavar="NAME", default="", help="which of its runs; its teacher must be there already"
    )
    parser.add_argument("--superlink", metavar="HOST:PORT", default="127.0.0.1:8000", help="address of the SuperLink")
    parser.add_argument(
        "--simulate", metavar="CLIENTS", type=Path, help="on a SuperLink with --simulation: the clients' folders"
    )
    parser.add_argument("override", nargs="*", metavar="key.sub=value", help="settings that win over the file")
    arguments = parser.parse_intermixed_args(argv)
    return run_command(lambda: submit(arguments))


def submit(arguments: argparse.Namespace) -> None:
    """Send the run to a SuperLink and wait for its end, showing what it prints. ValueError, one line, if it fails."""
    runs = load(arguments.config, arguments.override)[1]
    if arguments.run not in runs or not runs[arguments.run].federated.rounds:
        known = ", ".join(name for name, config in runs.items() if config.federated.rounds) or "none"
        raise ValueError(f"--run {arguments.run}: no such federated run; there is {known}")
    host, _, port = arguments.superlink.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, ValueError) as error:
        raise ValueError(f"--superlink {arguments.superlink}: no SuperLink there ({error}); start it first") from None
    given = {"config": str(Path(arguments.config).resolve()), "run": arguments.run}
    given["settings"] = shlex.join(arguments.override)
    command: list[str | Path] = [Path(sys.executable).with_name("flwr"), "run", "app", "here", "--stream"]
    if arguments.simulate:
        given["clients"] = str(arguments.simulate.resolve())
        nodes = runs[arguments.run].federated.clients
        command += ["--federation-config", f"num-supernodes={nodes} client-resources-num-cpus=1"]
    with tempfile.TemporaryDirectory() as folder:
        app = Path(folder) / "app"
        app.mkdir()
        lines = [f"{key} = {json.dumps(value)}\n" for key, value in given.items()]
        (app / "pyproject.toml").write_text(APP + "".join(lines), encoding="utf-8")
        link = f'[superlink]\ndefault = "here"\n[superlink.here]\naddress = "{arguments.superlink}"\ninsecure = true\n'
        (Path(folder) / "config.toml").write_text(link, encoding="utf-8")
        done = subprocess.run(command, cwd=folder, env=os.environ | {"FLWR_HOME": folder})
    facts = Path(runs[arguments.run].output_dir) / arguments.run / "run.json"
    if done.returncode or not facts.exists():
        raise ValueError("the run did not end; its messages above, or the SuperLink's, say why")


if __name__ == "__main__":
    sys.exit(main())
