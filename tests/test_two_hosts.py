"""Training across two hosts: two network namespaces, joined by a virtual cable (tests/two_hosts.sh)."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0 or not shutil.which("ip"), reason="needs root and iproute2")
def test_two_hosts_give_the_weights_of_one_process():
    script = Path(__file__).with_name("two_hosts.sh")
    done = subprocess.run(
        ["bash", str(script)], env={**os.environ, "PYTHON": sys.executable}, capture_output=True, text=True, timeout=300
    )
    if "Operation not permitted" in done.stderr:
        pytest.skip("no network namespaces here")
    assert done.returncode == 0 and done.stdout.strip().endswith("at most"), done.stdout + done.stderr
