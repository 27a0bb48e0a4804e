"""A tiny GPT-2 and a few texts, so that the examples run anywhere: not part of what they show."""

import json
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from counterfactuals.sample import write_sample
from counterfactuals.tokens.tokenizer import train_bpe


def corpus(folder: Path) -> Path:
    """400 short texts with a known skew, and prompts to measure it with, in FOLDER/sample."""
    path = write_sample(folder / "sample") / "few.jsonl"
    with (folder / "sample" / "train.jsonl").open(encoding="utf-8") as lines:
        path.write_text("".join(line for line, _ in zip(lines, range(400))), encoding="utf-8")
    return path


def model(folder: Path, texts: Path, layers: int = 2) -> Path:
    """An untrained model in the form that from_pretrained loads."""
    words = [json.loads(line)["text"] for line in texts.read_text(encoding="utf-8").splitlines()]
    tokenizer = train_bpe(words, 512)
    torch.manual_seed(0)
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = GPT2Config(vocab_size=len(tokenizer), n_layer=layers, n_embd=32, n_head=2, n_positions=96, **ends)
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
