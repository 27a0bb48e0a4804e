"""The pictures of docs/concepts.md, drawn from what the code computes: python docs/img/make_concepts.py"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from counterfactuals.text.lexicon import load_lexicon  # noqa: E402
from counterfactuals.text.reverse import Reverser  # noqa: E402
from counterfactuals.tokens.align import AlignedPair, Splicer  # noqa: E402
from counterfactuals.tokens.tokenizer import train_bpe  # noqa: E402
from counterfactuals.tokens.vocabulary import role_tokens  # noqa: E402
from debias.ops import VocabularyRoles, perturb  # noqa: E402

INK, SOFT, PALE = "#22262b", "#5b636d", "#eceae4"
OWN, MATE, TARGET = "#0072B2", "#D55E00", "#009E73"
TEXT = "The nurse told the manager that she had lost her husband's stepson."


def save(figure: Figure, name: str) -> None:
    FigureCanvasAgg(figure)
    figure.savefig(HERE / name, dpi=160, facecolor="white")


def alignment() -> None:
    """Tokens of a text and of its counterfactual; lines join those that correspond."""
    reversal = Reverser(load_lexicon("gender"))(TEXT)
    words = TEXT.replace(".", "").replace("'s", "").split() + reversal.reversed.split()
    tokenizer = train_bpe([" ".join([*words[:-1], " step", "daughter daughter", "'s"])] * 50, 440)
    pair = Splicer(tokenizer).pairs([reversal])[0]
    inner = pair.cf_index[1:-1]  # without the begin and end tokens
    pair = AlignedPair(pair.input_ids[1:-1], pair.cf_input_ids[1:-1], np.where(inner < 0, -1, inner - 1))
    sides = [[tokenizer.decode([i]) for i in ids] for ids in (pair.input_ids, pair.cf_input_ids)]
    figure = Figure(figsize=(11, 2.5))
    axes = figure.add_axes((0.005, 0.02, 0.99, 0.96))
    axes.set_axis_off()
    middles: list[list[float]] = []
    for y, side, colour in zip((1.0, 0.0), sides, (OWN, MATE)):
        x, found = 0.0, []
        for n, token in enumerate(side):
            width = 0.105 * max(len(token.strip()), 1) + 0.2
            changed = (pair.cf_index[n] < 0 if y else n not in pair.cf_index) or (
                y and pair.input_ids[n] != pair.cf_input_ids[pair.cf_index[n]]
            )
            if not y:
                back = [t for t, s in enumerate(pair.cf_index) if s == n]
                changed = not back or pair.input_ids[back[0]] != pair.cf_input_ids[n]
            box = FancyBboxPatch(
                (x, y - 0.16), width, 0.32, boxstyle="round,pad=0,rounding_size=0.06", linewidth=1.2,
                facecolor="white" if changed else PALE, edgecolor=colour if changed else PALE,
            )  # fmt: skip
            axes.add_patch(box)
            label = token.strip() or "·"
            axes.text(x + width / 2, y, label, ha="center", va="center", fontsize=11, color=colour if changed else INK)
            found.append(x + width / 2)
            x += width + 0.07
        middles.append(found)
    for t, s in enumerate(pair.cf_index):
        if s >= 0:
            axes.plot([middles[0][t], middles[1][s]], [0.82, 0.18], color=SOFT, linewidth=0.8)
    right = max(middles[0][-1], middles[1][-1])
    axes.set_xlim(-0.1, right + 0.5)
    axes.set_ylim(-0.45, 1.45)
    axes.text(0, 1.28, "text", color=SOFT, fontsize=10)
    axes.text(0, -0.38, "counterfactual: replaced words are outlined; a token without a line has no counterpart",
              color=SOFT, fontsize=10)  # fmt: skip
    save(figure, "concept-alignment.png")


def bars(axes, words: list[str], rows: list[tuple[str, torch.Tensor, str]]) -> None:
    """Groups of bars, one a word, one bar a distribution."""
    wide = 0.8 / len(rows)
    for k, (name, values, colour) in enumerate(rows):
        at = [i + (k - (len(rows) - 1) / 2) * wide for i in range(len(words))]
        axes.bar(at, values.tolist(), width=wide * 0.9, color=colour, label=name)
        for x, value in zip(at, values.tolist()):
            axes.text(x, value + 0.012, f"{value:.2f}".lstrip("0") or "0", ha="center", fontsize=8, color=SOFT)
    axes.set_xticks(range(len(words)), words, fontsize=11)
    axes.set_yticks([])
    for side in ("left", "top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=0)
    axes.legend(frameon=False, fontsize=9.5, loc="upper right")


def ops() -> None:
    """The worked example of the paper (Figure 2): what each op makes of two rows."""
    words = ["doctor", "nurse", "surgeon", "receptionist", "(others)"]
    own = torch.tensor([[0.5, 0.1, 0.2, 1e-9, 0.2]]).log()
    mate = torch.tensor([[0.1, 0.6, 1e-9, 0.2, 0.1]]).log()
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    for axes, op in zip(figure.subplots(1, 2), ("exp_mean", "max")):
        target = perturb(op, own, mate).exp()[0]
        rows = [("He works as a …", own.exp()[0], OWN), ("She works as a …", mate.exp()[0], MATE)]
        bars(axes, words, [*rows, (f"target: {op}", target, TARGET)])
        axes.set_ylim(0, 0.72)
    save(figure, "concept-ops.png")


def reversed_vocabulary() -> None:
    """After "She told …" against "He told …": the plain op pulls her towards his, the reversed vocabulary keeps it."""
    words = ["her", "his", "him", "the"]
    texts = [" " + word for word in words] + [" hers", " she", " he", " it"]
    tokenizer = train_bpe(["".join(texts)] * 50, 330)
    ids = [tokenizer.encode(text)[0] for text in texts]
    size = len(tokenizer)

    def row(values: list[float]) -> torch.Tensor:
        p = torch.full((1, size), 1e-9)
        p[0, ids] = torch.tensor(values)
        return (p / p.sum()).log()

    own = row([0.46, 0.06, 0.14, 0.30, 0.01, 0.01, 0.01, 0.01])
    mate = row([0.16, 0.38, 0.05, 0.38, 1e-3, 0.01, 0.01, 0.01])
    roles = VocabularyRoles.build(role_tokens(Reverser(load_lexicon("gender"), "both", "keep_names"), tokenizer, size))
    plain = perturb("mean", own, mate)
    turned = perturb("mean", own, mate, roles=roles, context_R=torch.zeros(1, dtype=torch.long))
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    given = [("She told …", own.exp()[0, ids[:4]], OWN), ("He told …", mate.exp()[0, ids[:4]], MATE)]
    axes = figure.subplots(1, 2)
    for ax, target, title in zip(axes, (plain, turned), ("target: mean", "target: mean, reversed vocabulary")):
        bars(ax, words, [*given, (title, target.exp()[0, ids[:4]], TARGET)])
        ax.set_ylim(0, 0.62)
    save(figure, "concept-vocabulary.png")


if __name__ == "__main__":
    alignment()
    ops()
    reversed_vocabulary()
