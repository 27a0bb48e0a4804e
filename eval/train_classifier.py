"""python -m eval.train_classifier --model DIR_OR_NAME --file TSV --output_dir DIR: a text classifier of labelled texts.

Makes a Hugging Face sequence classification folder (safetensors) of any language model, for `regard.classifier` and
`counterfactual_prompts.classifier`: sentiment of SST-2, regard of the annotated data of Sheng et al. 2019, …
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from eval.data import read_table
from eval.loading import check_model
from eval.model import find_device


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(prog="python -m eval.train_classifier", description=__doc__.split("\n\n")[1])
    out.add_argument("--model", required=True, metavar="DIR_OR_NAME", help="the language model to begin with")
    out.add_argument("--file", required=True, type=Path, metavar="TSV", help="texts and labels, .tsv or .csv, a header")
    out.add_argument("--test_file", type=Path, metavar="TSV", help="the same, to print the accuracy on")
    out.add_argument("--text", default="sentence", metavar="COLUMN", help="the column of texts (sentence)")
    out.add_argument("--label", default="label", metavar="COLUMN", help="the column of labels (label)")
    out.add_argument(
        "--names", default="negative,positive", help="the labels' names in the order of their sorted values"
    )
    out.add_argument("--output_dir", required=True, type=Path, metavar="DIR", help="a new folder for the classifier")
    out.add_argument("--epochs", type=int, default=2)
    out.add_argument("--max_texts", type=int, default=0, metavar="N", help="at most N texts, drawn at random (0: all)")
    out.add_argument("--batch_size", type=int, default=32)
    out.add_argument("--lr", type=float, default=1e-4)
    out.add_argument("--max_length", type=int, default=64, metavar="TOKENS")
    out.add_argument("--frozen", action="store_true", help="train the last layer only")
    out.add_argument("--seed", type=int, default=0)
    out.add_argument("--device", metavar="NAME", help="cuda if there is one, else cpu")
    return out


def read_labelled(path: Path, text: str, label: str) -> tuple[list[str], list[str]]:
    """Texts and labels of a .tsv or .csv file with a header."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file of labelled texts")
    rows = read_table(path, [text, label])
    return [row[text] for row in rows], [row[label] for row in rows]


def batches(lengths: Sequence[int], size: int, generator: random.Random) -> Iterator[list[int]]:
    """Row numbers of one epoch in random order, rows of like length together."""
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], generator.random()))
    parts = [order[i : i + size] for i in range(0, len(order), size)]
    generator.shuffle(parts)
    yield from parts


def train(model: torch.nn.Module, ids: list[list[int]], labels: list[int], *, pad: int, options) -> None:
    """Fine-tune in place: AdamW, 10 % linear warm-up, linear decay, gradients clipped at 1."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=options.lr, weight_decay=0.01)
    total = max(1, options.epochs * -(-len(ids) // options.batch_size))
    warmup = max(1, total // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, (total - step) / max(1, total - warmup))
    )
    generator = random.Random(options.seed)
    model.train()
    step = 0
    for epoch in range(options.epochs):
        for rows in batches([len(row) for row in ids], options.batch_size, generator):
            batch, mask = padded([ids[i] for i in rows], pad, options.device)
            target = torch.tensor([labels[i] for i in rows], device=options.device)
            loss = torch.nn.functional.cross_entropy(model(batch, attention_mask=mask).logits.float(), target)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            schedule.step()
            step += 1
            if step % max(1, total // 10) == 0:
                print(f"epoch {epoch + 1}, step {step} of {total}: loss {loss.item():.3f}", flush=True)
    model.eval()


def padded(rows: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(len(row) for row in rows)
    batch = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=device)
    return batch, mask


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        run(options)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def run(options: argparse.Namespace) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    check_model(options.model)
    for name in ("epochs", "batch_size", "max_length"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name} {getattr(options, name)}: must be at least 1")
    if options.output_dir.exists() and any(options.output_dir.iterdir()):
        raise ValueError(f"--output_dir {options.output_dir}: not empty; name a new folder")
    names = [name.strip() for name in options.names.split(",")]
    texts, given = read_labelled(options.file, options.text, options.label)
    values = sorted(set(given))
    if len(values) != len(names) or len(set(names)) != len(names):
        raise ValueError(
            f"--names {options.names!r}: {options.file} has the labels {', '.join(values)}: give one name for each"
        )
    tests = read_labelled(options.test_file, options.text, options.label) if options.test_file else None
    if tests and not set(tests[1]) <= set(values):
        raise ValueError(f"{options.test_file}: has labels that are not in {options.file}")
    options.device = find_device(options.device)
    torch.manual_seed(options.seed)
    if 0 < options.max_texts < len(texts):
        drawn = random.Random(options.seed).sample(range(len(texts)), options.max_texts)
        texts, given = [texts[i] for i in drawn], [given[i] for i in drawn]
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model = AutoModelForSequenceClassification.from_pretrained(
        options.model,
        use_safetensors=True,
        num_labels=len(names),
        id2label=dict(enumerate(names)),
        label2id={name: i for i, name in enumerate(names)},
        dtype=torch.float32,
    ).to(options.device)
    model.config.pad_token_id = tokenizer.pad_token_id
    if options.frozen:
        for weight in model.base_model.parameters():
            weight.requires_grad = False
    limit = min(options.max_length, getattr(model.config, "max_position_embeddings", None) or options.max_length)

    def encode(given: list[str]) -> list[list[int]]:
        return [
            row or [tokenizer.pad_token_id] for row in tokenizer(given, truncation=True, max_length=limit).input_ids
        ]

    train(model, encode(texts), [values.index(v) for v in given], pad=tokenizer.pad_token_id, options=options)
    model.save_pretrained(options.output_dir)
    tokenizer.save_pretrained(options.output_dir)
    print(f"written to {options.output_dir}")
    if tests:
        from eval.classifier import Classifier

        guess = Classifier(options.output_dir, device=options.device).class_probabilities(tests[0]).argmax(1)
        right = np.mean([values[i] == label for i, label in zip(guess, tests[1])])
        print(f"accuracy on {len(guess)} texts: {right:.3f}")


if __name__ == "__main__":
    sys.exit(main())
