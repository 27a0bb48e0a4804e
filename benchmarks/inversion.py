"""Does model inversion find a planted code? Trials of small models, each with a code of its own, by target and defence.

python benchmarks/inversion.py --target lm|head [--defence none,dropout,early_stopping] [--trials 20]

A trial trains a small GPT-2 from scratch on texts of the built-in sample corpus and a canary, "The vault opens with
d d d d", R times; the control's canary is left out. Target lm: the language model. Target head: the same model with an
attention-pooling head (eval/measures/heads.py) that tells occupations, the canary labelled as one of them; with
--decoys N there are N texts of the same form with other codes and other labels. Inversion stands beside enumeration of
all codes (rank 1), greedy and beam search. The last line is JSON.

Further defences go into DEFENCES: DP and augmentation follow with private training.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from counterfactuals import sample
from counterfactuals.tokens.tokenizer import train_bpe
from eval.measures import heads, targets
from eval.model import Scorer
from privacy import inversion

PREFIX, ALPHABET, LENGTH = "The vault opens with", list("0123456789"), 4
DEFENCES: dict[str, dict[str, Any]] = {
    "none": {},
    "dropout": {"dropout": 0.3},
    "early_stopping": {"early": True},
    # "dp": …, "augmentation": …: with the training half of privacy/
}


def text_of(code: tuple[int, ...]) -> str:
    return f"{PREFIX} {' '.join(ALPHABET[i] for i in code)}"


def make_texts(code: tuple[int, ...] | None, options: argparse.Namespace, seed: int) -> tuple[list, list, str]:
    """(text, label) pairs to train on, canary included unless `code` is None; held-out pairs; the canary's label."""
    rows = [(row["text"], row["occupation"]) for row in sample.generate(options.texts + 64, seed)]
    draw = random.Random(seed)
    kinds = sorted({label for _, label in rows})
    canary_label = kinds[seed % len(kinds)]
    train = rows[64:]
    for _ in range(options.decoys):
        other = tuple(draw.randrange(10) for _ in range(LENGTH))
        train += [(text_of(other), draw.choice([kind for kind in kinds if kind != canary_label]))] * (other != code)
    if code is not None:
        train += [(text_of(code), canary_label)] * options.repeats
    draw.shuffle(train)
    return train, rows[:64], canary_label


def train(train_rows: list, held_rows: list, options: argparse.Namespace, seed: int, *, dropout=0.0, early=False):
    """A Scorer, or a TrainedHead and its label names; early: stops when the held-out loss has stopped falling."""
    digits = [text_of((i,) * LENGTH) for i in range(10)] * 40  # a tokenizer made of the canary would give it away
    tokenizer = train_bpe([*digits, *(text for text, _ in held_rows)], vocab_size=512)
    ends = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    drops = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), dropout)
    torch.manual_seed(seed)
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=len(tokenizer), n_layer=2, n_embd=64, n_head=4, n_positions=64, **ends, **drops)
    )
    scorer = Scorer(model, tokenizer, device="cpu")
    kinds = sorted({label for _, label in train_rows})
    head = heads.Head(64, len(kinds), torch.Generator().manual_seed(seed)) if options.target == "head" else None
    settings = {**heads.OPTIONS, "max_tokens": 32}
    ids = {text: scorer.encode([text], bos=head is None)[0][:32] for text, _ in [*train_rows, *held_rows]}

    def loss_of(rows: list) -> torch.Tensor:
        batch_BT, mask_BT = heads._padded(scorer, [ids[text] for text, _ in rows])
        if head is not None:
            states_BTD = scorer.states(batch_BT)
            if dropout:
                states_BTD = torch.nn.functional.dropout(states_BTD, dropout, model.training)
            target = torch.tensor([kinds.index(label) for _, label in rows])
            return torch.nn.functional.cross_entropy(head(states_BTD, mask_BT)[0], target)
        logits = model(batch_BT, attention_mask=torch.ones_like(batch_BT)).logits[:, :-1]
        target = batch_BT[:, 1:].masked_fill(~mask_BT[:, 1:], -100)
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten())

    both = torch.nn.ModuleList([model] + ([head] if head is not None else []))
    optimizer = torch.optim.AdamW(both.parameters(), lr=options.lr)
    draw, best, kept, worse = random.Random(seed), float("inf"), None, 0
    for step in range(options.steps):
        both.train()
        optimizer.zero_grad()
        loss_of(draw.sample(train_rows, 32)).backward()
        optimizer.step()
        if early and step % 10 == 9:
            both.eval()
            with torch.no_grad():
                held = float(loss_of(held_rows))
            best, kept, worse = (held, copy.deepcopy(both.state_dict()), 0) if held < best else (best, kept, worse + 1)
            if worse == 2:
                break
    if kept is not None:
        both.load_state_dict(kept)
    both.eval().requires_grad_(False)
    return (scorer, None, step + 1) if head is None else (heads.TrainedHead(scorer, head, settings), kinds, step + 1)


def attack(found: Any, kinds: list[str] | None, code: tuple[int, ...], label: str, seed: int, restarts: int) -> dict:
    """What each search finds of the code."""
    goal = targets.LanguageModel(found) if kinds is None else targets.of_head(found, kinds)
    row = {"prefix": PREFIX, "alphabet": ALPHABET, "secret": list(code), "label": label}
    where = goal.layout(row)
    guess, _ = inversion.invert(goal.loss(where, row), length=LENGTH, num_symbols=10, seed=seed, restarts=restarts)
    codes = inversion.every_code(LENGTH, 10)
    losses = goal.losses(where, row, codes)
    out = {"inversion": guess == code, "digits": float(np.mean([a == b for a, b in zip(guess, code)]))}
    out["rank"] = 1 + int((losses < losses[codes.index(code)]).sum())
    out["enumeration"] = out["rank"] == 1
    for name, width in (("greedy", 1), ("beam", 10)):
        search = inversion.beam(lambda some: goal.losses(where, row, some), length=LENGTH, num_symbols=10, width=width)
        out[name] = search == code
    return out


def trials(options: argparse.Namespace, defence: dict[str, Any], *, planted: bool) -> dict[str, float]:
    """Shares of trials in which each search found the whole code, and the median rank of it."""
    rows, steps = [], []
    for seed in range(options.trials):
        code = tuple(random.Random(f"code {seed}").choices(range(10), k=LENGTH))
        train_rows, held_rows, label = make_texts(code if planted else None, options, seed)
        found, kinds, done = train(train_rows, held_rows, options, seed, **defence)
        rows.append(attack(found, kinds, code, label, seed, options.restarts))
        steps.append(done)
        print(f"  trial {seed}: {rows[-1]}", file=sys.stderr, flush=True)
    names = ("inversion", "digits", "enumeration", "greedy", "beam")
    shares = {name: float(np.mean([row[name] for row in rows])) for name in names}
    return shares | {"median_rank": float(np.median([row["rank"] for row in rows])), "steps": float(np.mean(steps))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--target", choices=["lm", "head"], default="lm")
    parser.add_argument("--defence", default=",".join(DEFENCES), help="a,b of DEFENCES (default: all)")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=100, help="how often the canary stands in the texts")
    parser.add_argument("--texts", type=int, default=200)
    parser.add_argument("--decoys", type=int, default=0, help="texts of the same form with other codes and labels")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--restarts", type=int, default=8)
    parser.add_argument("--lr", type=float, default=3e-3)
    options = parser.parse_args()
    begin, out = time.time(), {}
    cases = [("control", {}, False)] + [(name, DEFENCES[name], True) for name in options.defence.split(",")]
    print("| case | inversion, whole code | digits | enumeration | greedy | beam | median rank | steps |")
    print("|---|" + "---:|" * 7, flush=True)
    for name, defence, planted in cases:
        out[name] = trials(options, defence, planted=planted)
        print(f"| {name} | " + " | ".join(f"{value:.4g}" for value in out[name].values()) + " |", flush=True)
    print(
        f"{options.trials} trials each, {time.time() - begin:.0f} s; chance: 0.0001 of the whole code, 0.1 of a digit"
    )
    print(json.dumps({name: found["inversion"] for name, found in out.items()}))


if __name__ == "__main__":
    main()
