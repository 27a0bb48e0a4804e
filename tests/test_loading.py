"""Models from folders, GGUF files and adapters: the same logits, or one line that says why not."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_gguf import make_llama, write_gguf
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from counterfactuals.provenance import model_fingerprint
from counterfactuals.tokens.tokenizer import load_tokenizer
from eval.loading import check_model, fingerprint_path, load_model, meta_model
from eval.model import Scorer

IDS = torch.arange(12)[None]


@pytest.fixture(scope="module")
def llama(tmp_path_factory, tiny_tokenizer) -> Path:
    return make_llama(tmp_path_factory.mktemp("llama"), tiny_tokenizer)


@pytest.fixture(scope="module")
def gguf_file(llama, tmp_path_factory) -> Path:
    return write_gguf(llama, tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture(scope="module")
def adapter(llama, tmp_path_factory) -> Path:
    """A LoRA adapter folder for that model, whose weights are not zero."""
    import peft

    folder = tmp_path_factory.mktemp("adapter")
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    peft.get_peft_model(LlamaForCausalLM.from_pretrained(llama), config).save_pretrained(folder)
    return folder


def test_a_gguf_file_scores_as_its_folder(llama, gguf_file):
    whole, packed = Scorer(llama, device="cpu"), Scorer(gguf_file, device="cpu")
    text = ["The nurse said that she would finish her shift."]
    assert whole.encode(text) == packed.encode(text)
    np.testing.assert_allclose(*(s.token_logprobs(s.encode(text))[0] for s in (whole, packed)), rtol=1e-5)
    assert meta_model(str(gguf_file), setting="teacher.model").num_parameters() == whole.model.num_parameters()


def test_an_adapter_is_merged_into_its_model(llama, adapter):
    from peft import PeftModel

    expected = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(llama), adapter).eval()(IDS).logits
    model = load_model(adapter).eval()
    torch.testing.assert_close(model(IDS).logits, expected)
    assert type(model) is LlamaForCausalLM
    assert (model(IDS).logits - load_model(llama)(IDS).logits).abs().max() > 1e-3
    check_model(adapter)
    assert load_tokenizer(str(adapter)).get_vocab() == load_tokenizer(str(llama)).get_vocab()


def test_a_fingerprint_tells_adapter_and_model_apart(llama, adapter, gguf_file, tmp_path):
    for fingerprint in (model_fingerprint, fingerprint_path):
        assert len({fingerprint(str(path)) for path in (llama, adapter, gguf_file)}) == 3
        base = tmp_path / fingerprint.__name__
        shutil.copytree(llama, base)
        own = tmp_path / f"{fingerprint.__name__}-adapter"
        shutil.copytree(adapter, own)
        config = json.loads((own / "adapter_config.json").read_text())
        (own / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": str(base)}))
        before = fingerprint(str(own))
        model = LlamaForCausalLM.from_pretrained(base)
        model.lm_head.weight.data[0] += 1
        model.save_pretrained(base)
        assert fingerprint(str(own)) != before


def test_a_folder_with_weights_and_an_adapter_is_refused(llama, adapter, tmp_path):
    both = tmp_path / "both"
    shutil.copytree(llama, both)
    shutil.copytree(adapter, both, dirs_exist_ok=True)
    for use in (load_model, check_model, fingerprint_path, lambda name: model_fingerprint(str(name))):
        with pytest.raises(ValueError, match=r"both: .*weights and an adapter"):
            use(both)


def test_an_adapter_without_all_its_weights_is_refused(adapter, tmp_path):
    from safetensors.torch import load_file, save_file

    shutil.copytree(adapter, tmp_path / "part")
    weights = load_file(adapter / "adapter_model.safetensors")
    weights.pop(min(weights))
    save_file(weights, tmp_path / "part" / "adapter_model.safetensors")
    with pytest.raises(ValueError, match="missing adapter keys"):
        load_model(tmp_path / "part")
    (tmp_path / "part" / "adapter_model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"has no adapter_model\.safetensors"):
        load_model(tmp_path / "part")


def quantised(llama: Path, folder: Path) -> Path:
    """The model's folder with the settings of a 4-bit one."""
    shutil.copytree(llama, folder)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_quantised_student_is_refused(llama, tmp_path):
    with pytest.raises(ValueError, match=r"student\.model .*quantised, by bitsandbytes.*cannot be trained"):
        load_model(quantised(llama, tmp_path / "q"), setting="student.model", packed="refuse")


def test_a_quantised_teacher_gives_whole_weights(llama, tmp_path):
    pytest.importorskip("bitsandbytes")
    from transformers import BitsAndBytesConfig

    four = BitsAndBytesConfig(load_in_4bit=True)
    AutoModelForCausalLM.from_pretrained(llama, quantization_config=four, device_map="cpu").save_pretrained(tmp_path)
    kept, whole = (load_model(tmp_path, packed=packed).eval() for packed in ("keep", "unpack"))
    assert {p.dtype for p in whole.parameters()} == {torch.float32}
    assert whole.get_submodule("model.layers.0.mlp.up_proj").weight.shape == (64, 32)
    torch.testing.assert_close(kept(IDS).logits, whole(IDS).logits, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("package", "check"),
    [
        ("bitsandbytes", "transformers.quantizers.quantizer_bnb_4bit.is_bitsandbytes_available"),
        ("gguf", "transformers.modeling_gguf_pytorch_utils.is_gguf_available"),
        ("peft", ""),
    ],
)
def test_a_missing_package_is_one_line(package, check, llama, gguf_file, adapter, tmp_path, monkeypatch):
    name = {"bitsandbytes": quantised(llama, tmp_path / "q"), "gguf": gguf_file, "peft": adapter}[package]
    monkeypatch.setitem(__import__("sys").modules, package, None)
    if check:
        monkeypatch.setattr(check, lambda *_, **__: False)
    with pytest.raises(ValueError, match=rf"teacher\.model .*{package}") as caught:
        load_model(name, setting="teacher.model")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["./nothing", "a/b/c", "./nothing.gguf", __file__])
def test_paths_that_are_no_model_are_refused(name):
    with pytest.raises(ValueError, match="model"):
        check_model(name)


def test_without_a_network_an_unknown_name_is_asked_for_once(monkeypatch):
    """The Hub's client would ask six times for each file, with pauses of up to eight seconds between."""
    asked = []

    def unreachable(url):
        asked.append(url)
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("counterfactuals.tokens.tokenizer.get_hf_file_metadata", unreachable)
    for load, says in ((load_model, "cannot be loaded"), (load_tokenizer, "no tokenizer")):
        with pytest.raises(ValueError, match=f"no-such/model: {says} .Name or service not known.*check .*the network"):
            load("no-such/model")
    assert len(asked) == 2
