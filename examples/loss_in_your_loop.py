"""Only the fused loss, in a plain PyTorch loop: no config, no accelerate, no tokens × vocabulary matrix."""

import tempfile
from pathlib import Path

import tiny
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from evenhand import (
    DistillTask,
    Reverser,
    VocabularyRoles,
    collate,
    load_lexicon,
    make_pairs,
    role_tokens,
    student_from_layers,
)

folder = Path(tempfile.mkdtemp())
name = tiny.model(folder / "teacher", tiny.corpus(folder))
teacher, tokenizer = AutoModelForCausalLM.from_pretrained(name), AutoTokenizer.from_pretrained(name)
student = student_from_layers(teacher, [0])

texts = ["The nurse told her brother that she was late.", "He gave the engineer his keys.", "It rained."] * 8
reverser = Reverser(load_lexicon("gender"))
pairs = list(make_pairs(texts, reverser, tokenizer, max_length=64))

roles = VocabularyRoles.build(role_tokens(reverser, tokenizer, len(tokenizer)))
task = DistillTask(student, teacher, op="max", roles=roles, tau=2.0, kd_weight=0.5, lm_weight=0.5)
optimizer = torch.optim.AdamW(task.parameters(), lr=1e-3)
for step in range(6):
    batch = collate(pairs[4 * step : 4 * step + 4], op="max", vocabulary="reversed", augment=True)
    loss, parts = task(batch)  # sums over batch.num_tokens predictions, in nats
    (loss / batch.num_tokens).backward()
    optimizer.step()
    optimizer.zero_grad()
    print(f"step {step + 1}: {float(parts['loss']) / batch.num_tokens:.3f} nats a token")
