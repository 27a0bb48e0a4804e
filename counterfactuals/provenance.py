"""What a figure was made with: versions, commit, hashes of files."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from counterfactuals.files import sha256_of


def versions() -> dict[str, str]:
    """Versions of what figures depend on, and the commit of this code where git and a checkout are there."""
    found = {"python": platform.python_version()}
    for name in ("torch", "transformers", "accelerate", "tokenizers", "evenhand"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    here = Path(__file__).parent
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True)
        changes = subprocess.run(["git", "status", "--porcelain", "-uno"], cwd=here, capture_output=True, check=True)
        found["commit"] = commit.stdout.strip() + ("+changes" if changes.stdout else "")
    except (OSError, subprocess.CalledProcessError):
        pass
    return found


def model_fingerprint(name: str) -> str:
    """sha256 over a local model folder's weights and tokenizer; a Hub name stands for itself."""
    folder = Path(name)
    if not folder.is_dir():
        return name
    digest = hashlib.sha256()
    for file in sorted([*folder.glob("*.safetensors"), *folder.glob("tokenizer.json")]):
        digest.update(bytes.fromhex(sha256_of(file)))
    return digest.hexdigest()
