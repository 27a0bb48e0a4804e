"""Text classifiers on a causal language model: states → attention pooling with a learned query → linear layer.

The language model is frozen, its states are computed once for each text (float16 where they are many, on disk where
they are very many); or a copy of it is fine-tuned together with the head. They give class
probabilities, and how much these depend on what reveals a protected group (`sensitivity`).
Shapes: N texts, B texts of a batch, T tokens, D width, K classes.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from eval.model import Scorer
from eval.task import check_options as check_ranges

OPTIONS: dict[str, Any] = {
    "max_tokens": 128,
    "layer": -1,
    "bos": False,
    "epochs": 20,
    "train_batch": 256,
    "lr": 1e-3,
    "finetune": False,
    "finetune_epochs": 3,
    "finetune_batch": 32,
    "finetune_lr": 5e-5,
}
_HALF, _DISK = 2**30, 2**32  # bytes of float32 states from which they are kept as float16, of float16 ones on disk


def check_options(options: dict[str, Any] | Any, task: str) -> None:
    """ValueError for an option out of its range."""
    least = dict.fromkeys(("max_tokens", "epochs", "train_batch", "finetune_epochs", "finetune_batch"), 1)
    check_ranges(task, options, **least)
    for name in ("lr", "finetune_lr"):
        if not options[name] > 0:
            raise ValueError(f"{task}.{name} {options[name]}: must be more than 0")


class Head(torch.nn.Module):
    """Pooling weights softmax(x·q / √D) over a text's tokens, q learned (0 at first: the mean); then a linear layer."""

    def __init__(self, width: int, num_classes: int, generator: torch.Generator) -> None:
        super().__init__()
        self.query = torch.nn.Parameter(torch.zeros(width))
        self.linear = torch.nn.Linear(width, num_classes)
        with torch.no_grad():
            for parameter in self.linear.parameters():
                parameter.uniform_(-(width**-0.5), width**-0.5, generator=generator)

    def forward(self, states_BTD: torch.Tensor, mask_BT: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (B, K) and pooling weights (B, T), 0 where the mask is."""
        scores_BT = (states_BTD @ self.query) / len(self.query) ** 0.5
        weights_BT = scores_BT.masked_fill(~mask_BT, -torch.inf).softmax(-1)
        pooled_BD = (weights_BT[:, None] @ states_BTD)[:, 0]
        return self.linear(pooled_BD), weights_BT


class States:
    """States of N texts, one after the other in one array (all tokens, D); a text's are at [begin, begin + length)."""

    def __init__(self, scorer: Scorer, ids: Sequence[Sequence[int]], layer: int) -> None:
        self.lengths = np.array([len(row) for row in ids], np.int64)
        self.begins = np.concatenate([[0], np.cumsum(self.lengths)[:-1]])
        shape = (int(self.lengths.sum()), scorer.width)
        half = shape[0] * shape[1] * 4 > _HALF
        if half and shape[0] * shape[1] * 2 > _DISK:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 (it goes with this object)
            self.flat: np.ndarray = np.memmap(self._file, np.float16, "w+", shape=shape)
        else:
            self.flat = np.empty(shape, np.float16 if half else np.float32)
        self.device = scorer.device
        for row, states_TD in scorer.each_states(ids, layer=layer):
            begin = self.begins[row]
            self.flat[begin : begin + self.lengths[row]] = states_TD.cpu().numpy()

    def batch(self, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """States (B, T, D) in float32 and mask (B, T) of these texts."""
        lengths_B1 = self.lengths[rows, None]
        places_T = np.arange(lengths_B1.max())
        index_BT = self.begins[rows, None] + np.minimum(places_T, lengths_B1 - 1)
        states_BTD = torch.from_numpy(self.flat[index_BT]).to(self.device).float()
        return states_BTD, torch.from_numpy(places_T < lengths_B1).to(self.device)


@dataclass
class TrainedHead:
    """A language model (frozen or a fine-tuned copy), a head trained on it, and how texts are read."""

    scorer: Scorer
    head: Head
    options: Any

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, its first `max_tokens`; a text without tokens stands as token 0."""
        return encode(self.scorer, texts, self.options)

    @torch.no_grad()
    def probabilities(self, source: States | Sequence[str], rows: np.ndarray | None = None) -> np.ndarray:
        """P(class | text) of those rows of states computed before, or of texts: (N, K) in float64."""
        if not isinstance(source, States):
            source = States(self.scorer, self.encode(source), self.options["layer"])
        rows = np.arange(len(source.lengths)) if rows is None else rows
        out = np.empty((len(rows), self.head.linear.out_features))
        order = np.argsort(-source.lengths[rows], kind="stable")
        for begin in range(0, len(rows), 256):
            part = order[begin : begin + 256]
            logits_BK, _ = self.head(*source.batch(rows[part]))
            out[part] = logits_BK.double().softmax(-1).cpu().numpy()
        return out


def encode(scorer: Scorer, texts: Sequence[str], options: Any) -> list[list[int]]:
    """Token ids of each text as a classifier reads them."""
    longest = min(options["max_tokens"], scorer.max_length)
    return [row[:longest] or [0] for row in scorer.encode(texts, bos=options["bos"])]


def train(
    scorer: Scorer, states: States, rows: np.ndarray, labels: np.ndarray, num_classes: int, options: Any, seed: int
) -> TrainedHead:
    """A head trained on the frozen model's states of these rows: AdamW, cross-entropy, `epochs` passes.

    The head's initial weights and the order of batches depend on the seed alone.
    """
    generator = torch.Generator().manual_seed(seed)
    head = Head(scorer.width, num_classes, generator).to(scorer.device)
    optimizer = torch.optim.AdamW(head.parameters(), lr=options["lr"])
    target_N = torch.from_numpy(labels).to(scorer.device)
    steps = _batches(len(rows), options["train_batch"], options["epochs"], generator)
    _fit(optimizer, lambda chosen: head(*states.batch(rows[chosen]))[0], target_N, steps, scorer.progress)
    return TrainedHead(scorer, head.eval(), options)


def finetune(
    scorer: Scorer, texts: Sequence[str], labels: np.ndarray, num_classes: int, options: Any, seed: int
) -> TrainedHead:
    """A head and a copy of the whole model trained together, without dropout, `finetune_epochs` passes."""
    own = Scorer(copy.deepcopy(scorer.model), scorer.tokenizer, device=scorer.device, batch_size=scorer.batch_size)
    own.model.requires_grad_(True)
    generator = torch.Generator().manual_seed(seed)
    head = Head(own.width, num_classes, generator).to(own.device)
    optimizer = torch.optim.AdamW(
        [
            {"params": head.parameters(), "lr": options["lr"]},
            {"params": own.model.base_model.parameters(), "lr": options["finetune_lr"]},
        ]
    )
    ids, target_N = encode(own, texts, options), torch.from_numpy(labels).to(own.device)
    steps = _batches(len(ids), options["finetune_batch"], options["finetune_epochs"], generator)

    def logits(chosen: np.ndarray) -> torch.Tensor:
        batch_BT, mask_BT = _padded(own, [ids[n] for n in chosen])
        return head(own.states(batch_BT, layer=options["layer"]).float(), mask_BT)[0]

    _fit(optimizer, logits, target_N, steps, scorer.progress)
    own.progress = scorer.progress
    return TrainedHead(own, head.eval(), options)


def _batches(num_rows: int, size: int, epochs: int, generator: torch.Generator) -> list[np.ndarray]:
    return [part.numpy() for _ in range(epochs) for part in torch.randperm(num_rows, generator=generator).split(size)]


def _fit(
    optimizer: torch.optim.Optimizer,
    logits: Callable[[np.ndarray], torch.Tensor],
    target_N: torch.Tensor,
    steps: Sequence[np.ndarray],
    progress: Callable[[int, int], None] | None,
) -> None:
    """A step of gradient descent for each batch of `steps`, by cross-entropy."""
    for done, chosen in enumerate(steps, 1):
        loss = torch.nn.functional.cross_entropy(logits(chosen), target_N[chosen])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if progress:
            progress(done, len(steps))


def _padded(scorer: Scorer, ids: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    batch_BT = scorer.pad(ids)
    lengths_B1 = torch.tensor([[len(row)] for row in ids], device=scorer.device)
    return batch_BT, torch.arange(batch_BT.shape[1], device=scorer.device) < lengths_B1


def jacobian(classifier: TrainedHead, ids: Sequence[Sequence[int]], *, classes: str) -> tuple[np.ndarray, np.ndarray]:
    """How much each token's input embedding moves the class probabilities: Σ over d of |∂p_k / ∂e_td|.

    `classes` "predicted": of each text's most probable class only, (B, 1, T); "uniform": of every class, (B, K, T).
    Returns this, with 0 after a text's end, and the pooling weights of the head (B, T).
    """
    scorer = classifier.scorer
    batch_BT, mask_BT = _padded(scorer, ids)
    with torch.enable_grad():
        embedded_BTD = scorer.model.get_input_embeddings()(batch_BT).detach().requires_grad_()
        states_BTD = scorer.states(embedded_BTD=embedded_BTD, layer=classifier.options["layer"]).float()
        logits_BK, weights_BT = classifier.head(states_BTD, mask_BT)
        probs_BK = logits_BK.softmax(-1)
        chosen = [probs_BK.amax(-1)] if classes == "predicted" else list(probs_BK.unbind(-1))
        # A text's probabilities depend on its own embeddings only, so one sum serves the whole batch.
        gradients = [torch.autograd.grad(probs_B.sum(), embedded_BTD, retain_graph=True)[0] for probs_B in chosen]
    moved_BKT = torch.stack([gradient.abs().sum(-1) for gradient in gradients], 1) * mask_BT[:, None]
    return moved_BKT.double().cpu().numpy(), weights_BT.detach().double().cpu().numpy()


def accumulated(jacobian_KT: Any, w_K: Any, v_T: Any) -> np.ndarray:
    """wᵀ |J| v: (…, K, T), (…, K), (…, T) → (…)."""
    return np.einsum("...kt,...k,...t->...", np.abs(jacobian_KT), w_K, v_T)


def sensitivity(
    task: TrainedHead,
    protected: TrainedHead,
    texts: Sequence[str],
    *,
    classes: str = "predicted",
    protected_weights: str = "gradient",
) -> tuple[np.ndarray, np.ndarray]:
    """Accumulated prediction sensitivity P = wᵀ |J| v of each text (N,), and its ratio to P with equal weights v (N,).

    After Krishna et al., ACL 2022 (only the abstract was available; the rest is derived here).
    J: the Jacobian of the task classifier's class probabilities with respect to the input embeddings.
    w: weights of the classes: all on the predicted one ("predicted") or 1/K each ("uniform").
    v: weights of the tokens, which sum to 1: where a protected-status classifier finds the group. Either its own
    gradients Σ_d |∂p_group / ∂e_td| of its predicted group ("gradient") or its pooling weights ("attention").

    P is 0 if no token that reveals the group changes the prediction. P scales with 1 / size of the embeddings, the
    ratio does not: 1 means that such tokens change the prediction as much as the text's average token.
    """
    if classes not in ("predicted", "uniform") or protected_weights not in ("gradient", "attention"):
        raise ValueError(
            f"classes {classes!r}, protected_weights {protected_weights!r}: predicted or uniform, gradient or attention"
        )
    ids = task.encode(texts)
    values, ratios = np.empty(len(ids)), np.empty(len(ids))
    order = sorted(range(len(ids)), key=lambda n: -len(ids[n]))
    for begin in range(0, len(order), 16):
        part = order[begin : begin + 16]
        rows = [ids[n] for n in part]
        moved_BKT, _ = jacobian(task, rows, classes=classes)
        group_BKT, attention_BT = jacobian(protected, rows, classes="predicted")
        mask_BT = np.arange(moved_BKT.shape[2]) < np.array([[len(row)] for row in rows])
        even_BT = mask_BT / mask_BT.sum(-1, keepdims=True)
        v_BT = group_BKT[:, 0] if protected_weights == "gradient" else attention_BT
        total_B1 = v_BT.sum(-1, keepdims=True)
        v_BT = np.divide(v_BT, total_B1, out=even_BT.copy(), where=total_B1 > 0)
        w_BK = np.full(moved_BKT.shape[:2], 1 / moved_BKT.shape[1])
        values[part] = accumulated(moved_BKT, w_BK, v_BT)
        even = accumulated(moved_BKT, w_BK, even_BT)
        ratios[part] = np.divide(values[part], even, out=np.full(len(part), np.nan), where=even > 0)
        if task.scorer.progress:
            task.scorer.progress(begin + len(part), len(order))
    return values, ratios
