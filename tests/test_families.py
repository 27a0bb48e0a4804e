"""Every family of models: looked at, cut, trained a step, saved, loaded again, scored and sampled."""

import pytest
import torch
from accelerate import Accelerator
from test_task import pairs, plain_loop
from transformers import AutoConfig, AutoModelForCausalLM

from counterfactuals.tokens.batch import collate
from debias import models
from debias.optim import build_optimizer
from debias.run import checkpoint
from debias.task import DistillTask
from eval.model import Scorer
from tests.runs import fresh

GPT = {"n_layer": 4, "n_embd": 16, "n_head": 2, "n_positions": 64}
LLAMA = {"num_hidden_layers": 4, "hidden_size": 16, "num_attention_heads": 2, "num_key_value_heads": 1}
LLAMA |= {"intermediate_size": 32, "max_position_embeddings": 64}
WIDE = LLAMA | {"head_dim": 8}
FAMILIES = {
    "gpt2": GPT,
    "gpt_neo": {"num_layers": 4, "hidden_size": 16, "num_heads": 2, "max_position_embeddings": 64}
    | {"attention_types": [[["global", "local"], 2]], "window_size": 4},
    "gpt_neox": LLAMA,
    "llama": LLAMA,
    "mistral": LLAMA | {"sliding_window": 5},
    "qwen2": LLAMA | {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 2},
    "qwen3": WIDE,
    "gemma2": WIDE | {"sliding_window": 5, "query_pre_attn_scalar": 8, "final_logit_softcapping": 2.0},
    "gemma3_text": WIDE | {"sliding_window": 5, "query_pre_attn_scalar": 8},
    "gemma3": {
        "text_config": WIDE | {"vocab_size": 60, "sliding_window": 5, "num_hidden_layers": 4},
        "vision_config": {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2}
        | {"image_size": 28, "patch_size": 14},
        "mm_tokens_per_image": 4,
        "image_token_index": 59,
    },
    "phi": LLAMA,
    "phi3": LLAMA | {"pad_token_id": 0},
    "olmo2": LLAMA,
    "opt": {"num_hidden_layers": 4, "hidden_size": 16, "ffn_dim": 32, "num_attention_heads": 2}
    | {"max_position_embeddings": 64, "word_embed_proj_dim": 8},
    "stablelm": LLAMA,
    "smollm3": LLAMA,
    "falcon": {"num_hidden_layers": 4, "hidden_size": 16, "num_attention_heads": 2},
    "bloom": {"n_layer": 4, "hidden_size": 16, "n_head": 2},
    "mpt": {"n_layers": 4, "d_model": 16, "n_heads": 2, "max_seq_len": 64},
    # kinds that the documentation does not name
    "apertus": LLAMA | {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}},
    "cohere": LLAMA,
    "granite": LLAMA | {"logits_scaling": 3.0},
    "gptj": GPT | {"rotary_dim": 4},
    "gpt_bigcode": GPT,
    "mixtral": LLAMA | {"num_local_experts": 2},
    "mamba": {"num_hidden_layers": 4, "hidden_size": 16, "state_size": 4},
}


def tiny(kind: str, **more):
    torch.manual_seed(0)
    options = {"vocab_size": 60, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None, "initializer_range": 0.3}
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **(options | FAMILIES[kind] | more)))


@pytest.fixture(autouse=True)
def _fresh_accelerator():
    yield
    fresh()


class Numbers:
    """A tokenizer of 60 tokens, as far as scoring and saving need one."""

    eos_token_id = bos_token_id = 0

    def __len__(self) -> int:
        return 60

    def save_pretrained(self, folder) -> None:
        pass


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_family_trains_saves_loads_and_scores(kind, tmp_path):
    teacher = tiny(kind)
    student = models.student_from_layers(teacher, [0, 1, 2, 3] if kind == "granite" else [0, 2])
    models.set_dropout(student, 0.0)
    task = DistillTask(student, teacher, op="max", chunk_rows=16)
    batch = collate(pairs(), op="max", augment=True)
    with torch.no_grad():
        expected = plain_loop(task.eval(), pairs(), "max", True)  # from the logits that the models give themselves
        sums = task(batch)[1]
    for key in ("kd", "lm"):
        assert float(sums[key]) == pytest.approx(expected[key], rel=1e-4), key

    accelerator = Accelerator(cpu=True)
    optimizer = build_optimizer(task.train(), lr=1e-2, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.0)
    task(batch)[0].backward()
    used = [p for p in task.parameters() if p.requires_grad]
    assert sum(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in used) > 0.8 * len(used)
    optimizer.step()
    checkpoint.export(accelerator, task, optimizer, Numbers(), tmp_path / "model")

    student.eval()
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    prompts = [[5, 9, 13, 2, 41, 7], [33, 8], [12, 22, 17]]
    for row in prompts:
        torch.testing.assert_close(again(torch.tensor([row])).logits, student(torch.tensor([row])).logits)
    scorer = Scorer(again, Numbers(), device="cpu")
    for row, scores in zip(prompts, scorer.token_logprobs(prompts)):
        logp_TV = student(torch.tensor([row])).logits[0].log_softmax(-1)
        torch.testing.assert_close(
            torch.from_numpy(scores), logp_TV[range(len(row) - 1), row[1:]], atol=1e-4, rtol=1e-4
        )
    greedy = scorer.sample_ids(prompts, top_p=1e-6, max_new_tokens=4)
    for row, new in zip(prompts, greedy):
        text = list(row)
        for _ in range(4):
            token = int(student(torch.tensor([text])).logits[0, -1].argmax())
            if token == 0:
                break
            text.append(token)
        assert text[len(row) :] == new


@pytest.mark.parametrize("kind", [kind for kind in FAMILIES if kind != "mamba"])  # peft refuses mamba's out_proj
def test_lora_is_merged_into_what_is_saved(kind, tmp_path):
    student = tiny(kind)
    models.add_lora(student, rank=2)
    for name, parameter in student.named_parameters():
        if ".lora_" in name:
            torch.nn.init.normal_(parameter)
    task = DistillTask(student.eval(), tiny(kind))
    optimizer = build_optimizer(task, lr=1e-2, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.0)
    checkpoint.export(Accelerator(cpu=True), task, optimizer, Numbers(), tmp_path / "model")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    ids = torch.tensor([[5, 9, 13, 2, 41, 7]])
    torch.testing.assert_close(again(ids).logits, student(ids).logits, atol=1e-3, rtol=1e-3)
    assert (again(ids).logits - task.teacher(ids).logits).abs().max() > 0.1


def test_a_model_with_constants_resumes(tmp_path):
    task = DistillTask(tiny("apertus"), tiny("apertus"))
    optimizer = build_optimizer(task, lr=1e-2, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.0)
    task(collate(pairs(), op="none"))[0].backward()
    optimizer.step()
    accelerator = Accelerator(cpu=True)
    checkpoint.save(accelerator, task, optimizer, Numbers(), tmp_path, 1, keep=1)
    assert checkpoint.restore(accelerator, task, optimizer, tmp_path)["step"] == 1


def test_a_layer_that_cannot_have_lora_is_refused():
    with pytest.raises(ValueError, match=r"Mamba.*choose other layers with student\.lora\.targets"):
        models.add_lora(tiny("mamba"), rank=2)
