"""Causal language models from disk or the Hub, for training and evaluation alike: the only file that loads one.

A name is a folder, FILE.gguf, a folder with an adapter (peft), or a Hub name. Weights are read from safetensors or
GGUF, never from pickles.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.utils.peft_utils import find_adapter_config_file

from counterfactuals.files import one_line, sha256_of
from counterfactuals.provenance import adapter_base
from counterfactuals.tokens.tokenizer import TOKENIZER_FILES, check_hub

ADAPTER = "adapter_model.safetensors"


def load_model(
    name: str | Path,
    *,
    setting: str = "model",
    dtype: str | torch.dtype = "float32",
    trust_remote_code: bool = False,
    packed: str = "keep",
) -> PreTrainedModel:
    """A causal language model. GGUF weights are unpacked to `dtype`; an adapter is merged into its model.

    packed: what is done with other 4- and 8-bit weights: "keep" them (they take the least memory), "unpack" them, so
    that they can be copied, or "refuse" them, as training would change some weights and not the others. Raises
    ValueError, one line that begins with `setting` and the name, for whatever cannot be loaded.
    """
    try:
        return _load(str(name), packed=packed, dtype=dtype, trust_remote_code=trust_remote_code)
    except Exception as error:  # transformers, peft and the readers of weights raise anything
        raise ValueError(f"{setting} {name}: cannot be loaded ({_reason(error)}){_hint(str(name))}") from error


def _load(name: str, *, packed: str, **options: Any) -> PreTrainedModel:
    adapter = _adapter_folder(name)
    if adapter is not None:
        return _merged(_load(adapter_base(adapter) or "", packed="unpack", **options), adapter)
    source, extra = _source(name)
    config = AutoConfig.from_pretrained(source, trust_remote_code=options["trust_remote_code"], **extra)
    if kind := quantisation(config):
        if packed == "refuse":
            raise ValueError(f"its weights are quantised, by {kind}: they cannot be trained; name the whole model")
        # each rank its own device
        extra["device_map"] = {"": int(os.environ.get("LOCAL_RANK", 0)) if torch.cuda.is_available() else "cpu"}
    if "gguf_file" in extra and hasattr(transformers, "GgufConfig"):  # before it came, GGUF was always unpacked
        extra["quantization_config"] = transformers.GgufConfig(dequantize=True)
    found: Any = AutoModelForCausalLM.from_pretrained(
        source, use_safetensors=True, output_loading_info=True, **options, **extra
    )
    model, loaded = found
    if loaded["missing_keys"]:  # transformers would draw them at random
        raise ValueError(f"weights are missing: {', '.join(sorted(loaded['missing_keys'])[:3])} …")
    return model.dequantize() if packed == "unpack" and quantisation(model.config) else model


def _merged(model: Any, adapter: str) -> PreTrainedModel:
    from peft import PeftModel

    if not (Path(adapter) / ADAPTER).is_file():  # peft would read a pickle
        raise ValueError(f"the adapter has no {ADAPTER}")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*missing adapter keys")  # peft would draw them at random
        adapted: Any = PeftModel.from_pretrained(model, adapter)
    if not hasattr(adapted.base_model, "merge_and_unload"):
        raise ValueError(f"an adapter of type {adapted.active_peft_config.peft_type} cannot be merged into its model")
    return adapted.merge_and_unload()


def quantisation(config: Any) -> str:
    """How a model's weights are packed, e.g. "bitsandbytes"; "" where they are not."""
    found = getattr(config, "quantization_config", None) or getattr(config.get_text_config(), "quantization_config", {})
    found = found if isinstance(found, dict) else found.to_dict()
    return str(getattr(found.get("quant_method", ""), "value", found.get("quant_method", "")))


def read_config(name: str, *, setting: str, trust_remote_code: bool = False) -> Any:
    """A model's configuration; that of its model for an adapter."""
    try:
        adapter = _adapter_folder(name)
        if adapter is not None:
            return read_config(adapter_base(adapter) or "", setting=setting, trust_remote_code=trust_remote_code)
        source, extra = _source(name)
        return AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code, **extra)
    except Exception as error:
        raise ValueError(f"{setting} {name}: {_reason(error)}") from error


def meta_model(name: str, *, setting: str, trust_remote_code: bool = False) -> PreTrainedModel:
    """A causal language model on the meta device, from its configuration alone: sizes without weights."""
    config = read_config(name, setting=setting, trust_remote_code=trust_remote_code)
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    except Exception as error:
        raise ValueError(f"{setting} {name}: {_reason(error)}") from error


def _source(name: str) -> tuple[str, dict[str, Any]]:
    """What transformers calls this model: the folder or repository of a GGUF file, and the file."""
    if name.endswith(".gguf"):
        return str(Path(name).parent), {"gguf_file": Path(name).name}
    return name, {}


def _adapter_folder(name: str) -> str | None:
    """The folder of an adapter, fetched from the Hub if need be; None where the name is a model's."""
    path = Path(name)
    if path.exists():
        return name if adapter_base(name) else None
    if name.endswith(".gguf"):
        check_hub(str(path.parent), path.name)
        return None
    check_hub(name)
    if find_adapter_config_file(name) is None:
        return None
    return snapshot_download(name, allow_patterns=["adapter_config.json", ADAPTER])


def _reason(error: Exception) -> str:
    return ("its weights are damaged or incomplete: " if isinstance(error, SafetensorError) else "") + one_line(error)


def _hint(name: str) -> str:
    path = Path(name)
    if path.is_dir():
        if not list(path.glob("*.safetensors")) and list(path.glob("*.bin")):
            return "; its weights are a pickle: convert them with model.save_pretrained() where you trust them"
        return f"; the folder holds: {', '.join(sorted(p.name for p in path.iterdir())[:8]) or 'nothing'}"
    return "" if path.is_file() else "; name a local folder or .gguf file, or check the name and the network"


def check_model(name: str | Path) -> None:
    """ValueError for a path that is not there, and for a folder without weights or tokenizer. Hub names pass."""
    path = Path(name)
    if path.is_dir():
        if adapter_base(path):
            return
        if not (path / "config.json").is_file() or not any(path.glob("*.safetensors")):
            raise ValueError(
                f"{path}: not a model folder (needs config.json and *.safetensors weights); "
                "save one with model.save_pretrained(folder)"
            )
        if not any((path / file).is_file() for file in TOKENIZER_FILES):
            raise ValueError(
                f"{path}: the folder has no tokenizer; save it there with tokenizer.save_pretrained(folder)"
            )
    elif path.is_file():
        if path.suffix != ".gguf":
            raise ValueError(f"model {str(name)!r}: neither a folder nor a .gguf file")
    elif str(name).startswith((".", "/", "~")) or str(name).count("/") > 1 + str(name).endswith(".gguf"):
        raise ValueError(f"model {str(name)!r}: no such folder or file")


def fingerprint_path(path: str | Path) -> str:
    """SHA-256 over what says how a local model scores: a folder's weights, JSON files, vocabulary and templates."""
    path = Path(path)
    if path.is_file():
        return sha256_of(path)
    found = hashlib.sha256()
    for file in sorted(path.iterdir()):
        if file.suffix in {".safetensors", ".json", ".jinja"} or file.name in {*TOKENIZER_FILES, "merges.txt"}:
            found.update(f"{file.name} {file.stat().st_size} {sha256_of(file)}\n".encode())
    base = adapter_base(path)
    if base:
        found.update((fingerprint_path(base) if Path(base).exists() else base).encode())
    return found.hexdigest()
