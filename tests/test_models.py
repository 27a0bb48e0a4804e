import pytest
import torch
from test_families import tiny

from debias import models
from eval import loading


def test_the_blocks_of_a_student_are_its_teachers():
    teacher = tiny("gpt_neo")
    student = models.student_from_layers(teacher, [0, 3])
    ours, theirs = (models.blocks_of(model)[1] for model in (student, teacher))
    assert len(ours) == 2 == models.num_layers(student)
    for i, layer in enumerate([0, 3]):
        for name, weight in ours[i].state_dict().items():
            assert torch.equal(weight, theirs[layer].state_dict()[name]), (i, name)
    assert torch.equal(student.lm_head.weight, teacher.lm_head.weight)
    assert student.get_input_embeddings().weight is student.lm_head.weight
    assert student.config.attention_layers == ["global", "local"]
    student(input_ids=torch.arange(6)[None], use_cache=True)  # and it runs, cache included


def test_a_student_of_all_layers_is_the_teacher(tmp_path):
    teacher = tiny("llama").eval()
    student = models.student_from_layers(teacher, models.kept_layers("all", 4)).eval()
    ids = torch.arange(20)[None]
    torch.testing.assert_close(student(ids).logits, teacher(ids).logits)
    student.save_pretrained(tmp_path)
    again = loading.load_model(str(tmp_path), setting="student.model").eval()
    torch.testing.assert_close(again(ids).logits, teacher(ids).logits)


def test_blocks_that_work_otherwise_at_another_place_are_refused():
    """With this setting, GPT-2 divides its attention scores by the number of the layer."""
    teacher = tiny("gpt2", scale_attn_by_inverse_layer_idx=True)
    models.student_from_layers(teacher, [0, 1, 2])
    with pytest.raises(ValueError, match=r"student\.layers: gpt2: layer 2 works otherwise as layer 1"):
        models.student_from_layers(teacher, [0, 2])


def test_a_nested_configuration_is_the_text_models():
    teacher = tiny("gemma3")
    assert models.num_layers(teacher) == 4 and models.blocks_of(teacher)[0] == "model.language_model.layers"
    student = models.student_from_layers(teacher, [0, 2])
    assert student.config.text_config.num_hidden_layers == 2 == len(student.config.text_config.layer_types)
    assert student.config.vision_config.num_hidden_layers == 4


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda logits: logits.masked_fill(torch.arange(60) == 7, -1e9), "not those of its hidden states"),
        (lambda logits: logits + logits.sin(), "not those of its hidden states"),
    ],
)
def test_logits_that_the_loss_would_not_make_are_refused(change, says, monkeypatch):
    model = tiny("llama")
    forward = model.forward

    def changed(*args, **kwargs):
        found = forward(*args, **kwargs)
        found.logits = change(found.logits)
        return found

    monkeypatch.setattr(model, "forward", changed)
    with pytest.raises(ValueError, match=f"student: llama: .*{says}"):
        models.head_of(model, "student")


@pytest.mark.parametrize(
    ("kind", "more", "expected"),
    [
        ("gemma2", {"final_logit_softcapping": 2.0}, (1.0, 1.0, 2.0)),
        ("granite", {"logits_scaling": 4.0}, (0.25, 0.25, 0.0)),
        ("cohere", {"logit_scale": 0.0625}, (0.0625, 0.0625, 0.0)),
        ("phi", {}, (1.0, 1.0, 0.0)),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_heads_are_measured_exactly(kind, more, expected, dtype):
    head = models.head_of(tiny(kind, **more).to(dtype))
    assert (head.scale, head.after, head.cap) == pytest.approx(expected, rel=1e-6)


def test_layer_maps():
    assert models.kept_layers("even", 12) == [0, 2, 4, 6, 8, 10]
    assert models.kept_layers("hf", 12) == [0, 2, 4, 7, 9, 11]
    assert models.kept_layers([3, 1], 4) == [3, 1]
    assert models.kept_layers("even:2", 4) == [0, 2] and models.kept_layers("even:4", 6) == [0, 1, 3, 4]
    assert models.kept_layers("influence:3", 5, [0.5, 0.1, 0.2, 0.1, 0.9]) == [0, 2, 4]
    assert models.kept_layers("influence:2", 3, [0.5, 0.5, 0.5]) == [0, 1]
    with pytest.raises(ValueError, match="even:5: this teacher has 4 layers"):
        models.kept_layers("even:5", 4)
    with pytest.raises(ValueError, match="12 layers; this teacher has 6"):
        models.kept_layers("hf", 6)
    with pytest.raises(ValueError, match="layers 0 to 3"):
        models.kept_layers([0, 4], 4)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gpt_neo"])
def test_influence_is_how_far_a_block_turns_its_states(kind):
    """Over all tokens of all texts, the last block before the final norm."""
    model = tiny(kind).train()
    texts = [torch.arange(1, 20)[None], torch.arange(30, 35)[None]]
    found = models.block_influence(model, texts)
    assert len(found) == 4 and model.training
    states = [model.eval()(input_ids=ids, output_hidden_states=True).hidden_states for ids in texts]
    for i in range(3):  # what is after the last one has gone through the norm
        cosine = torch.cat([torch.cosine_similarity(state[i], state[i + 1], dim=-1).ravel() for state in states])
        assert found[i] == pytest.approx((1 - cosine).mean().item(), rel=1e-4), i


def test_a_block_that_passes_its_input_on_has_no_influence():
    model = tiny("llama")
    for part in (model.model.layers[2].self_attn.o_proj, model.model.layers[2].mlp.down_proj):
        part.weight.data.zero_()
    found = models.block_influence(model, [torch.arange(20)[None]])
    assert found[2] == pytest.approx(0, abs=1e-6) and min(found[:2] + found[3:]) > 0.01
    assert models.kept_layers("influence:3", 4, found) == [0, 1, 3]


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
    with pytest.raises(ValueError, match="bert"):
        models.random_student({"model_type": "bert"}, tiny_tokenizer, 48)


def test_different_vocabularies_are_refused_with_an_example(tiny_tokenizer):
    from counterfactuals.tokens.tokenizer import train_bpe

    other = train_bpe(["a different text altogether, with quite other words in it"] * 5, 300)
    with pytest.raises(ValueError, match=r"teacher\.model and student\.model have different vocabularies.*e\.g\."):
        models.same_vocabulary(tiny_tokenizer, other, this="teacher.model", that="student.model")
    models.same_vocabulary(tiny_tokenizer, tiny_tokenizer, this="a", that="b")


def test_sizes_that_do_not_fit_are_refused(tiny_tokenizer):
    small, large = tiny("gpt2"), models.random_student({"n_layer": 1, "n_embd": 8, "n_head": 2}, tiny_tokenizer, 16)
    with pytest.raises(ValueError, match="60 embeddings for a tokenizer of"):
        models.check_models(small, None, tiny_tokenizer, 16)
    with pytest.raises(ValueError, match="sees at most 16 positions"):
        models.check_models(large, None, tiny_tokenizer, 64)


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
