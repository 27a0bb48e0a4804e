"""A random Llama, and GGUF files of it."""

import json
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from counterfactuals.tokens.tokenizer import load_tokenizer

NAMES = {"embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output"}
INNER = {"q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output"}
INNER |= {"gate_proj": "ffn_gate", "up_proj": "ffn_up", "down_proj": "ffn_down"}
INNER |= {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}


def make_llama(folder: Path, tokenizer) -> Path:
    """A folder with a random Llama and the tokenizer."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=len(tokenizer), **sizes, num_key_value_heads=2, max_position_embeddings=64)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_gguf(folder: Path, path: Path, kind: str = "F32") -> Path:
    """That model as a GGUF file, matrices as `kind`, written as llama.cpp does: query and key rows in its order."""
    import gguf

    model, tokenizer = LlamaForCausalLM.from_pretrained(folder), load_tokenizer(str(folder))
    c = model.config
    out = gguf.GGUFWriter(path, "llama")
    out.add_block_count(c.num_hidden_layers)
    out.add_context_length(c.max_position_embeddings)
    out.add_embedding_length(c.hidden_size)
    out.add_feed_forward_length(c.intermediate_size)
    out.add_head_count(c.num_attention_heads)
    out.add_head_count_kv(c.num_key_value_heads)
    out.add_layer_norm_rms_eps(c.rms_norm_eps)
    out.add_rope_freq_base(10000.0)
    out.add_rope_dimension_count(c.hidden_size // c.num_attention_heads)
    out.add_vocab_size(c.vocab_size)
    vocabulary = tokenizer.get_vocab()
    bpe = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    out.add_tokenizer_model("gpt2")
    out.add_token_list(sorted(vocabulary, key=vocabulary.__getitem__))
    out.add_token_types([3] + [1] * (len(vocabulary) - 1))
    out.add_token_merges([" ".join(pair) for pair in bpe["merges"]])
    out.add_bos_token_id(0)
    out.add_eos_token_id(0)
    for key, value in model.state_dict().items():
        parts = key.removeprefix("model.").split(".")
        heads = {"q_proj": c.num_attention_heads, "k_proj": c.num_key_value_heads}.get(parts[-2])
        if heads:
            value = value.reshape(heads, 2, -1, c.hidden_size).transpose(1, 2).reshape(value.shape)
        name = f"blk.{parts[1]}.{INNER[parts[-2]]}" if parts[0] == "layers" else NAMES[parts[0]]
        kept = gguf.GGMLQuantizationType[kind if value.ndim == 2 else "F32"]
        out.add_tensor(f"{name}.weight", gguf.quantize(np.ascontiguousarray(value.numpy()), kept), raw_dtype=kept)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return path
