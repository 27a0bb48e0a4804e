import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from debias import models
from debias.models import FAMILIES
from eval import loading

SIZES = {
    "gpt2": {"n_layer": 4, "n_embd": 16, "n_head": 2, "n_positions": 32},
    "gpt_neo": {
        "num_layers": 4,
        "hidden_size": 16,
        "num_heads": 2,
        "max_position_embeddings": 32,
        "attention_types": [[["global", "local"], 2]],
    },
}
LLAMA_LIKE = {
    "num_hidden_layers": 4,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 32,
}


def tiny(model_type: str):
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        model_type, vocab_size=40, **SIZES.get(model_type, LLAMA_LIKE), bos_token_id=0, eos_token_id=0, pad_token_id=0
    )
    return AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_student_blocks_are_the_teachers_with_the_same_tying(model_type):
    teacher = tiny(model_type)
    keep = [0, 3]
    student = models.student_from_layers(teacher, keep)
    ours = student.get_submodule(FAMILIES[model_type].blocks)
    theirs = teacher.get_submodule(FAMILIES[model_type].blocks)
    assert len(ours) == 2 == models.num_layers(student)
    for i, layer in enumerate(keep):
        for (name, a), (_, b) in zip(ours[i].state_dict().items(), theirs[layer].state_dict().items()):
            assert torch.equal(a, b), (i, name)
    for get in ("get_input_embeddings", "get_output_embeddings"):
        assert torch.equal(getattr(student, get)().weight, getattr(teacher, get)().weight)
    tied = [m.get_input_embeddings().weight is m.get_output_embeddings().weight for m in (student, teacher)]
    assert tied[0] == tied[1]
    student(input_ids=torch.arange(6)[None], use_cache=True)  # and it runs, cache included


@pytest.mark.parametrize("model_type", FAMILIES)
def test_a_student_of_all_layers_is_the_teacher(model_type, tmp_path):
    teacher = tiny(model_type).eval()
    student = models.student_from_layers(teacher, models.kept_layers("all", 4)).eval()
    ids = torch.arange(20)[None]
    torch.testing.assert_close(student(ids).logits, teacher(ids).logits)
    student.save_pretrained(tmp_path)
    again = loading.load_model(str(tmp_path), setting="student.model").eval()
    torch.testing.assert_close(again(ids).logits, teacher(ids).logits)


def test_layer_maps():
    assert models.kept_layers("even", 12) == [0, 2, 4, 6, 8, 10]
    assert models.kept_layers("hf", 12) == [0, 2, 4, 7, 9, 11]
    assert models.kept_layers([3, 1], 4) == [3, 1]
    with pytest.raises(ValueError, match="12 layers; this teacher has 6"):
        models.kept_layers("hf", 6)
    with pytest.raises(ValueError, match="layers 0 to 3"):
        models.kept_layers([0, 4], 4)


def test_hidden_states_are_compared_between_kept_blocks():
    """A student of all layers reads and writes what its teacher does; one of half of them, before the next kept one."""
    assert models.hidden_map("last", [0, 2]) == [(-1, -1)]
    assert models.hidden_map("kept", [0, 2]) == [(1, 2), (-1, -1)]
    assert models.hidden_map("kept", [0, 2, 4, 7, 9, 11]) == [(1, 2), (2, 4), (3, 7), (4, 9), (5, 11), (-1, -1)]


def test_dropout_is_set_everywhere():
    model = tiny("gpt2")
    models.set_dropout(model, 0.0)
    model.train()
    ids = torch.arange(20)[None]
    torch.testing.assert_close(model(ids).logits, model(ids).logits)
    assert model.config.resid_pdrop == 0.0


def test_random_students_take_their_sizes_from_the_config(tiny_tokenizer):
    student = models.random_student({"n_layer": 2, "n_embd": 8, "n_head": 2}, tiny_tokenizer, 48)
    assert student.config.n_positions == 48 and student.config.vocab_size == len(tiny_tokenizer)
    with pytest.raises(ValueError, match=r"student\.config: gpt2 has no setting n_layers"):
        models.random_student({"n_layers": 2}, tiny_tokenizer, 48)
    with pytest.raises(ValueError, match="model type 'bert'"):
        models.random_student({"model_type": "bert"}, tiny_tokenizer, 48)


def test_different_vocabularies_are_refused_with_an_example(tiny_tokenizer):
    from counterfactuals.tokens.tokenizer import train_bpe

    other = train_bpe(["a different text altogether, with quite other words in it"] * 5, 300)
    with pytest.raises(ValueError, match=r"teacher\.model and student\.model have different vocabularies.*e\.g\."):
        models.same_vocabulary(tiny_tokenizer, other, this="teacher.model", that="student.model")
    models.same_vocabulary(tiny_tokenizer, tiny_tokenizer, this="a", that="b")


def test_sizes_that_do_not_fit_are_refused(tiny_tokenizer):
    small, large = tiny("gpt2"), models.random_student({"n_layer": 1, "n_embd": 8, "n_head": 2}, tiny_tokenizer, 16)
    with pytest.raises(ValueError, match="40 embeddings for a tokenizer of"):
        models.check_sizes(small, None, tiny_tokenizer, 16)
    with pytest.raises(ValueError, match="sees at most 16 positions"):
        models.check_sizes(large, None, tiny_tokenizer, 64)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "the folder holds: nothing"),
        ({"config.json": '{"model_type": "gpt2", "n_layer": 1}'}, "config.json"),
        ({"config.json": '{"model_type": "gpt2", "n_layer": 1}', "pytorch_model.bin": "x"}, "pickle"),
        ({"config.json": "{"}, "cannot be loaded"),
    ],
)
def test_folders_without_a_model_are_refused_in_one_line(files, says, tmp_path):
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=says) as caught:
        loading.load_model(str(tmp_path), setting="teacher.model")
    assert "teacher.model" in str(caught.value) and "\n" not in str(caught.value)


def test_a_truncated_weights_file_is_refused_in_one_line(tiny_gpt2, tmp_path):
    import shutil

    shutil.copytree(tiny_gpt2, tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"teacher\.model.*cannot be loaded"):
        loading.load_model(str(tmp_path / "model"), setting="teacher.model")
