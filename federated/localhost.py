"""Federated distillation with Flower on one machine: a SuperLink, a SuperNode for each client, one run.

python -m federated.localhost --config CONFIG.yaml --clients OUTPUT_DIR/clients/FINGERPRINT [key.sub=value …]

--simulation: no SuperNodes, but Flower's own simulation, a Ray worker for each core (pip install 'flwr[simulation]').

CLIENTS holds a folder for each client, 00000, 00001, …, with its texts.jsonl; `evenhand federated` writes such folders.
On several machines start the same two commands there, with TLS instead of --insecure; see docs/federated.md.
"""

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from federated import flower

BIN = Path(sys.executable).parent


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True)
    parser.add_argument("--clients", required=True, type=Path)
    parser.add_argument("--run", default="")
    parser.add_argument("--simulation", action="store_true")
    parser.add_argument("override", nargs="*")
    arguments = parser.parse_intermixed_args()
    folders = sorted(path for path in arguments.clients.resolve().iterdir() if path.is_dir())
    port = free_port()
    with tempfile.TemporaryDirectory() as home:
        there = os.environ | {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_HOME": home}
        there["PATH"] = f"{BIN}{os.pathsep}{there.get('PATH', '')}"  # Flower's programs start each other by name
        link: list[str | Path] = [
            BIN / "flower-superlink",
            "--insecure",
            "--port",
            str(port),
            "--disable-runtime-dependency-installation",
        ]
        link += ["--simulation"] * arguments.simulation
        started = [subprocess.Popen(link, env=there)]
        try:
            wait_for(port)
            for number, folder in enumerate([] if arguments.simulation else folders):
                known = f'client={number} texts="{folder}"'
                node: list[str | Path] = [BIN / "flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{port}"]
                node += ["--port", str(free_port()), "--node-config", known]
                started.append(subprocess.Popen(node, env=there))
            given = ["--config", arguments.config, "--run", arguments.run, "--superlink", f"127.0.0.1:{port}"]
            given += ["--simulate", str(arguments.clients)] * arguments.simulation
            return flower.main([*given, *arguments.override])
        finally:
            for process in reversed(started):
                process.terminate()
            for process in started:
                process.wait(timeout=30)


def wait_for(port: int, seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > until:
                raise SystemExit("error: the SuperLink did not start") from None
            time.sleep(0.5)


if __name__ == "__main__":
    sys.exit(main())
