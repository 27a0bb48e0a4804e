"""What a figure was made with: versions, commit, hashes of files."""

from __future__ import annotations

import hashlib
import json
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
    """sha256 over a local model's weights and tokenizer, and over an adapter's model; a Hub name stands for itself."""
    folder = Path(name)
    if folder.is_file():
        return sha256_of(folder)
    if not folder.is_dir():
        return name
    digest = hashlib.sha256()
    for file in sorted([*folder.glob("*.safetensors"), *folder.glob("tokenizer.json")]):
        digest.update(bytes.fromhex(sha256_of(file)))
    base = adapter_base(name)
    if base:
        digest.update(model_fingerprint(base).encode())
    return digest.hexdigest()


def adapter_base(name: str | Path) -> str | None:
    """Path or Hub name of the model that an adapter folder (peft) changes; None where `name` is no adapter folder.

    ValueError where the folder holds a whole model too: whether the adapter is part of it cannot be seen.
    """
    folder = Path(name)
    if not (folder / "adapter_config.json").is_file():
        return None
    if any(folder.glob("model*.safetensors")):
        raise ValueError(
            f"{name}: holds a model's weights and an adapter; move adapter_config.json and adapter_model.safetensors "
            "to a folder of their own, and name the one that is meant"
        )
    try:
        base = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (ValueError, KeyError, TypeError):
        base = None
    if not base:
        raise ValueError(f"{name}: adapter_config.json does not name the adapter's model (base_model_name_or_path)")
    return base
