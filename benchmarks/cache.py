"""What a teacher cache loses: KL(live target ‖ cached target) in nats a prediction, by sketch size and op.

    python benchmarks/cache.py --teacher runs/wikipedia_small/teacher/model \\
        --texts runs/paragraphs/train.jsonl --held_out runs/paragraphs/heldout.jsonl

The codec is fitted on --texts, the error taken on --held_out: texts and their counterfactuals, aligned, where both have
a row. Every sketch has --row_bytes bytes a row: the more coordinates, the fewer tokens. Temperature 2 but for the first
column; `reversed` is `max` with the reversed vocabulary. The last line is JSON: the error of `max`, largest sketch.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from unittest import mock

import torch
from transformers import AutoModelForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from counterfactuals.text.lexicon import load_lexicon
from counterfactuals.text.reverse import Reverser
from counterfactuals.tokens.batch import PairBatch, collate
from counterfactuals.tokens.corpus import Corpus
from counterfactuals.tokens.pairs import make_pairs
from counterfactuals.tokens.tokenizer import load_tokenizer
from counterfactuals.tokens.vocabulary import role_tokens
from debias.cache import codec as codecs
from debias.cache.codec import CHUNK, Codec
from debias.cache.store import SAMPLE_ROWS
from debias.losses import TeacherRows, model_rows
from debias.ops import VocabularyRoles, perturb

VARIANTS = {  # op, temperature, reversed vocabulary
    "none, τ = 1": ("none", 1.0, False),
    "none": ("none", 2.0, False),
    "max": ("max", 2.0, False),
    "mean": ("mean", 2.0, False),
    "exp_mean": ("exp_mean", 2.0, False),
    "swap": ("swap", 2.0, False),
    "reversed": ("max", 2.0, True),
}
BATCH, MAX_LENGTH = 16, 128


class Batches:
    """Aligned texts with the teacher's last hidden states."""

    def __init__(self, teacher: str):
        self.model = AutoModelForCausalLM.from_pretrained(teacher).eval()
        self.tokenizer = load_tokenizer(teacher)
        self.reverser = Reverser(load_lexicon("gender"), policy="reverse")
        self.head_VD = self.model.get_output_embeddings().weight.detach()
        self.roles = VocabularyRoles.build(role_tokens(self.reverser, self.tokenizer, len(self.head_VD)))

    @torch.no_grad()
    def __call__(self, source: str, max_texts: int) -> Iterator[tuple[PairBatch, torch.Tensor]]:
        texts = islice(Corpus(source), max_texts)
        pairs = (p for p in make_pairs(texts, self.reverser, self.tokenizer, max_length=MAX_LENGTH) if p.reversed)
        while chosen := list(islice(pairs, BATCH)):
            batch = collate(chosen, op="max", augment=True)
            hidden = self.model.base_model(batch.ids_NT).last_hidden_state
            yield batch, hidden.reshape(-1, hidden.shape[-1])


def written(rows: TeacherRows, row_C: torch.Tensor, vocab_size: int) -> torch.Tensor:
    rows(row_C, out := torch.empty(len(row_C), vocab_size))
    return out


@torch.no_grad()
def errors(batches: Batches, held_out: str, max_texts: int, codec: Codec) -> dict[str, float]:
    """KL(live ‖ cached) by variant, the mean over couples' rows of texts."""
    vocab_size, total, count = len(batches.head_VD), dict.fromkeys(VARIANTS, 0.0), 0
    for batch, hidden_PD in batches(held_out, max_texts):
        live = model_rows(hidden_PD, batches.head_VD)
        row_R = batch.row_R[: 2 * batch.num_pairs]
        count += batch.num_pairs
        for row_C in row_R.split(CHUNK):
            live_CV = written(live, row_C, vocab_size)
            stored = codec.rows(codec.encode(hidden_PD[row_C], live_CV))
            sides = [live_CV, written(stored, torch.arange(len(row_C)), vocab_size)]
            context_B = batch.ids_NT.flatten()[row_C[::2]]
            for name, (op, tau, is_reversed) in VARIANTS.items():
                options = {"roles": batches.roles, "context_R": context_B} if is_reversed else {}
                target, cached = (
                    (perturb(op, side_CV[::2], side_CV[1::2], **options) / tau).log_softmax(-1) for side_CV in sides
                )
                total[name] += float((target.exp() * (target - cached)).sum())
    return {name: value / count for name, value in total.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--texts", required=True)
    parser.add_argument("--held_out", required=True)
    parser.add_argument("--row_bytes", type=int, default=150)
    parser.add_argument("--sketches", default="16,32,48,64")
    parser.add_argument("--max_texts", type=int, default=200)
    options = parser.parse_args()
    batches = Batches(options.teacher)
    hidden_ND = torch.cat([hidden_PD[batch.row_R] for batch, hidden_PD in batches(options.texts, options.max_texts)])
    hidden_ND = hidden_ND[:SAMPLE_ROWS]
    found = {}
    print(f"width {hidden_ND.shape[1]}, {len(batches.head_VD):,} tokens, {len(hidden_ND):,} rows fitted")
    print(f"| coordinates, tokens | {' | '.join(VARIANTS)} |\n|---|{'---:|' * len(VARIANTS)}")
    for size in map(int, options.sketches.split(",")):
        with mock.patch.object(codecs, "SKETCH", size):
            codec = Codec.fit(hidden_ND, batches.head_VD, options.row_bytes)
        found[size] = errors(batches, options.held_out, options.max_texts, codec)
        print(f"| {size}, {codec.top_k} | {' | '.join(f'{x:.2g}' for x in found[size].values())} |", flush=True)
    print(json.dumps({"kl_max": found[max(found)]["max"], "bytes": options.row_bytes}))


if __name__ == "__main__":
    main()
