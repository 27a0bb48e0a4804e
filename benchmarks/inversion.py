"""Does model inversion find a planted code? Trials of small models, each with a code of its own, by target and case.

python benchmarks/inversion.py --target lm|head [--cases control,none,dp] [--trials 20]

A trial trains a small GPT-2 from scratch on texts of the built-in sample corpus and a canary, "The vault opens with
d d d d", R times; the control's canary is left out. Target lm: the language model, by the loop's own parts. Target
head: the same model with an attention-pooling head (eval/measures/heads.py) that tells occupations, the canary labelled
as one of them, beside decoys, texts of the same form with other codes and other labels. Inversion stands beside
enumeration of all codes (rank 1), greedy and beam search. The last line is JSON.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from counterfactuals import sample
from counterfactuals.text.lexicon import load_lexicon
from counterfactuals.text.reverse import Reverser
from counterfactuals.tokens.align import AlignedPair
from counterfactuals.tokens.batch import BatchPlan, PairBatch, collate
from counterfactuals.tokens.pairs import make_pairs
from counterfactuals.tokens.tokenizer import train_bpe
from debias.task import DistillTask
from eval.measures import heads, targets
from eval.model import Scorer
from privacy import inversion
from privacy.account import Schedule, calibrate
from privacy.mechanism import Mechanism
from privacy.noise import Keys
from privacy.plan import PoissonPlan

PREFIX, ALPHABET, LENGTH, WIDTH = "The vault opens with", list("0123456789"), 4, 64
DELTA = 1e-4
SIZES = {"lm": {"decoys": 0, "steps": 60}, "head": {"decoys": 600, "steps": 250}}
CASES: dict[str, dict[str, Any]] = {
    "control": {"planted": False},
    "none": {},
    "dropout": {"dropout": 0.3},
    "early_stopping": {"early": True},
    "augmentation": {"augment": True},
    "dp": {"epsilon": 3.0},
    "dp_joined": {"epsilon": 3.0, "joined": True},  # all copies of the canary are one text
}


class Texts(NamedTuple):
    """Pairs, their labels, and the texts that they are of, rising."""

    pairs: list[AlignedPair]
    labels: list[str]
    numbers: np.ndarray


def text_of(code: tuple[int, ...]) -> str:
    return f"{PREFIX} {' '.join(ALPHABET[i] for i in code)}"


def make_rows(code: tuple[int, ...] | None, options: argparse.Namespace, seed: int) -> tuple[list, list, list, str]:
    """(text, label) to train on, without and with the canary's; held out ones; the canary's label."""
    made = sample.generate(options.texts + 64, seed)
    rows = [(" ".join(row["text"].split()[: options.words]), row["occupation"]) for row in made]
    draw = random.Random(seed)
    kinds = sorted({label for _, label in rows})
    canary_label = kinds[seed % len(kinds)]
    decoys = []
    for _ in range(options.decoys):
        other = tuple(draw.randrange(10) for _ in range(LENGTH))
        decoys += [(text_of(other), draw.choice([kind for kind in kinds if kind != canary_label]))] * (other != code)
    canaries = [(text_of(code), canary_label)] * options.repeats if code is not None else []
    return [*rows[64:], *decoys], canaries, rows[:64], canary_label


class HeadTask(torch.nn.Module):
    """A language model and a head on it, both trained; each token is read by Linear layers, which privacy/ can clip."""

    tap = None

    def __init__(self, scorer: Scorer, head: heads.Head, kinds: list[str], dropout: float):
        super().__init__()
        self.student, self._scorer, self._kinds, self._dropout = scorer.model, [scorer], kinds, dropout
        self.student.lm_head.requires_grad_(False)
        self.student.query = torch.nn.Linear(WIDTH, 1, bias=False)
        self.student.query.weight.data = head.query.data[None]  # in the same memory
        self.student.classes = head.linear

    def forward(self, batch: PairBatch, labels: list[str]) -> tuple[torch.Tensor, int]:
        """Summed cross-entropy, and the number of sequences; the end token is not read."""
        states_NTD = self._scorer[0].states(batch.ids_NT)
        states_NTD = torch.nn.functional.dropout(states_NTD, self._dropout, self.training)
        score_NT = self.student.query(states_NTD)[..., 0] / WIDTH**0.5
        read_NT = torch.zeros_like(batch.ids_NT, dtype=torch.bool).view(-1)
        read_NT[batch.row_R] = True  # every token but the last predicts one
        weight_NT = score_NT.masked_fill(~read_NT.view_as(score_NT), -torch.inf).softmax(-1)
        logits_NK = (weight_NT[..., None] * self.student.classes(states_NTD)).sum(1)
        target_N = torch.tensor([self._kinds.index(label) for label in labels])
        return torch.nn.functional.cross_entropy(logits_NK, target_N, reduction="sum"), len(labels)


def losses(task: Any, texts: Texts, chosen: Any, *, augment: bool = False) -> tuple[torch.Tensor, int]:
    """Summed loss of these pairs, and how many terms it has."""
    pairs = [texts.pairs[n] for n in chosen]
    batch = collate(pairs, augment=augment, units=texts.numbers[chosen])
    if isinstance(task, HeadTask):
        labels = [texts.labels[n] for n in chosen]
        return task(batch, labels + [label for label, pair in zip(labels, pairs) if pair.reversed and augment])
    return task(batch)[0], batch.num_tokens


def train(rows: list, canaries: list, held_rows: list, options: argparse.Namespace, seed: int, **defence: Any):
    """A Scorer, or a TrainedHead; its label names; steps done; loss on held-out texts."""
    digits = [text_of((i,) * LENGTH) for i in range(10)] * 40  # a tokenizer made of the canary would give it away
    tokenizer = train_bpe([*digits, *(text for text, _ in held_rows)], vocab_size=512)
    reverser = Reverser(load_lexicon("gender"))

    def texts_of(some: list, last: int = 0) -> Texts:
        pairs = list(make_pairs([text for text, _ in some], reverser, tokenizer, max_length=WIDTH))
        if len(pairs) != len(some):
            raise ValueError(f"{len(some)} texts, {len(pairs)} sequences: a text is too long")
        return Texts(pairs, [label for _, label in some], np.minimum(np.arange(len(some)), len(some) - 1 - last))

    texts = texts_of([*rows, *canaries], max(len(canaries) - 1, 0) * defence.get("joined", False))
    held = texts_of(held_rows)
    kinds = sorted({*texts.labels, *held.labels}) if options.target == "head" else None
    task, found = build(tokenizer, kinds, seed, defence.get("dropout", 0.0))
    steps, augment = 0, defence.get("augment", False)
    optimizer = torch.optim.AdamW([p for p in task.parameters() if p.requires_grad], lr=options.lr)
    plan, private = plan_of(task, texts, options, seed, augment, defence.get("epsilon"))
    best, kept, worse = float("inf"), None, 0
    for step in range(options.steps):
        task.train()
        [chosen] = plan.micro_batches(step, accumulation=1)
        if len(chosen):
            loss, number = losses(task, texts, chosen, augment=augment)
            private.backward(loss) if private else (loss / number).backward()
        if private:
            private.release(step)
        optimizer.step()
        optimizer.zero_grad()
        steps += 1
        if defence.get("early") and step % 10 == 9:
            value = held_loss(task, held)
            best, kept, worse = (
                (value, copy.deepcopy(task.state_dict()), 0) if value < best else (best, kept, worse + 1)
            )
            if worse == 2:
                break
    if kept is not None:
        task.load_state_dict(kept)
    value = held_loss(task, held)
    task.requires_grad_(False)
    return found, kinds, steps, value


def build(tokenizer: Any, kinds: list[str] | None, seed: int, dropout: float) -> tuple[Any, Any]:
    """What is trained, and what of it is attacked: a Scorer or a TrainedHead."""
    torch.manual_seed(seed)
    settings: dict[str, Any] = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), 0)
    settings |= dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), dropout)
    settings |= {"n_layer": 2, "n_embd": WIDTH, "n_head": 4, "n_positions": WIDTH}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), tie_word_embeddings=kinds is None, **settings))
    scorer = Scorer(model, tokenizer, device="cpu")
    model.requires_grad_(True)
    if kinds is None:
        return DistillTask(model, kd_weight=0.0, lm_weight=1.0), scorer
    head = heads.Head(WIDTH, len(kinds), torch.Generator().manual_seed(seed))
    return HeadTask(scorer, head, kinds, dropout), heads.TrainedHead(scorer, head, heads.OPTIONS | {"bos": True})


def plan_of(task: Any, texts: Texts, options: argparse.Namespace, seed: int, augment: bool, epsilon: float | None):
    """Which pairs are in which step; with an ε also what clips and adds noise."""
    lengths = np.array([max(len(pair.input_ids), len(pair.cf_input_ids)) for pair in texts.pairs])
    sequences = np.array([1 + (augment and pair.reversed) for pair in texts.pairs])
    if epsilon is None:
        return BatchPlan(lengths, sequences, batch_size=options.batch_size, seed=seed), None
    keys = Keys(seed.to_bytes(32, "little"), b"a trial, which nobody needs to protect")
    plan = PoissonPlan(texts.numbers, lengths, sequences, batch_size=options.batch_size, keys=keys)
    schedule = Schedule(plan.rate, options.steps)
    noise = calibrate(epsilon, schedule, DELTA)
    divisor = plan.rate * plan.num_texts
    return plan, Mechanism(task, keys, schedule, noise_multiplier=noise, divisor=divisor, clip="automatic")


@torch.no_grad()
def held_loss(task: Any, held: Texts) -> float:
    """Nats a token, or a text, of texts that were not trained on."""
    task.eval()
    total, number = losses(task, held, np.arange(len(held.pairs)))
    return float(total) / number


def of_head(trained: heads.TrainedHead, names: list[str]) -> targets.Labelled:
    """A head as the tasks train it on a language model's states; names: of its classes, in order."""

    def logits(embedded_RTD: torch.Tensor) -> torch.Tensor:
        states_RTD = trained.scorer.states(embedded_BTD=embedded_RTD, layer=trained.options["layer"]).float()
        return trained.head(states_RTD, torch.ones(states_RTD.shape[:2], dtype=torch.bool, device=states_RTD.device))[0]

    embedding = trained.scorer.model.get_input_embeddings()
    return targets.Labelled(
        lambda text: trained.encode([text])[0], embedding, logits, {n: i for i, n in enumerate(names)}
    )


def attack(found: Any, kinds: list[str] | None, code: tuple[int, ...], label: str, seed: int, restarts: int) -> dict:
    """What each search finds of the code."""
    goal = targets.LanguageModel(found) if kinds is None else of_head(found, kinds)
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


def trials(options: argparse.Namespace, *, planted: bool = True, **defence: Any) -> dict[str, float]:
    """Shares of trials in which each search found the whole code, and the median rank of it."""
    rows = []
    for seed in range(options.trials):
        code = tuple(random.Random(f"code {seed}").choices(range(10), k=LENGTH))
        *texts, label = make_rows(code if planted else None, options, seed)
        found, kinds, steps, held = train(*texts, options, seed, **defence)
        rows.append(attack(found, kinds, code, label, seed, options.restarts) | {"held_loss": held, "steps": steps})
        print(f"  trial {seed}: {rows[-1]}", file=sys.stderr, flush=True)
    names = ("inversion", "digits", "enumeration", "greedy", "beam", "held_loss", "steps")
    means = {name: float(np.mean([row[name] for row in rows])) for name in names}
    return means | {"median_rank": float(np.median([row["rank"] for row in rows]))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--target", choices=["lm", "head"], default="lm")
    parser.add_argument("--cases", default=",".join(CASES), help="a,b of CASES (default: all)")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=100, help="how often the canary stands in the texts")
    parser.add_argument("--texts", type=int, default=200)
    parser.add_argument("--words", type=int, default=12, help="of each text that are kept, for speed")
    parser.add_argument("--decoys", type=int, help="texts of the same form with other codes and labels; lm 0, head 600")
    parser.add_argument("--steps", type=int, help="lm 60, head 250")
    parser.add_argument("--restarts", type=int, default=32)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=3e-3)
    options = parser.parse_args()
    for name, size in SIZES[options.target].items():
        setattr(options, name, size if getattr(options, name) is None else getattr(options, name))
    begin, out = time.time(), {}
    print(
        "| case | inversion, whole code | digits | enumeration | greedy | beam | held-out loss | steps | median rank |"
    )
    print("|---|" + "---:|" * 8, flush=True)
    for name in options.cases.split(","):
        out[name] = trials(options, **CASES[name])
        print(f"| {name} | " + " | ".join(f"{value:.4g}" for value in out[name].values()) + " |", flush=True)
    print(
        f"{options.trials} trials each, {time.time() - begin:.0f} s; chance: 0.0001 of the whole code, 0.1 of a digit"
    )
    print(json.dumps({"target": options.target, "trials": options.trials, "cases": out}))


if __name__ == "__main__":
    main()
