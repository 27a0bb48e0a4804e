"""What a canary is sought in: a language model, a head trained on one, or a classifier from a folder.

All three give a layout (how the tokenizer cuts a canary), a loss that gradients flow through, and losses of codes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from eval.classifier import Classifier, check_classifier
from eval.data import find_data
from eval.model import Scorer
from eval.task import MissingData, Row
from privacy import audit, inversion

OPTIONS = {"file": "planted.json", "classifier": ""}


def load(task: str, data_dir: Path, options: Mapping[str, Any], limit: int | None) -> list[Row]:
    """A row for each canary of the record; ValueError if it has no labels, and a classifier is to be attacked."""
    path = find_data(data_dir, options["file"], "the record of canaries that `evenhand privacy plant` wrote")
    record = audit.Record.read(path)
    if options["classifier"]:
        check_classifier(options["classifier"], f"{task}.classifier")
        if record.canaries[0].label is None:
            raise MissingData(f"{task}: {path} holds no labels; plant with --label_field to attack a classifier")
    rows = [
        {
            "id": number,
            "prefix": canary.prefix,
            "secret": [record.alphabet.index(symbol) for symbol in canary.secret],
            "planted": canary.planted,
            "label": canary.label,
            "alphabet": list(record.alphabet),
        }
        for number, canary in enumerate(record.canaries)
    ]
    return rows[:limit]


class LanguageModel:
    """log P(secret | prefix), the begin-of-text token before it if there is one, as in training."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer

    def layout(self, row: Row) -> inversion.Layout:
        return inversion.layout(self._encode, row["prefix"], row["alphabet"], len(row["secret"]))

    def _encode(self, text: str) -> list[int]:
        return self.scorer.encode([text], bos=True)[0]

    def loss(self, where: inversion.Layout, row: Row) -> inversion.Loss:
        return inversion.language_model_loss(self.scorer.model, where)

    def losses(self, where: inversion.Layout, row: Row, codes: Sequence[inversion.Code]) -> np.ndarray:
        """−log P(code | prefix) of codes, which may be beginnings: each context that they share is read once."""
        rows, begin = [where.ids(code, whole=False) for code in codes], len(where.left)
        contexts = {(*ids[:t],): 0 for ids in rows for t in range(begin, len(ids))}
        number = {context: i for i, context in enumerate(contexts)}
        tokens = sorted(set(where.symbols.ravel().tolist()))
        logp_CK = self.scorer.next_logprobs(list(contexts), keep=tokens).astype(np.float64)
        column = {token: i for i, token in enumerate(tokens)}
        return np.array(
            [-sum(logp_CK[number[tuple(ids[:t])], column[ids[t]]] for t in range(begin, len(ids))) for ids in rows]
        )


class Labelled:
    """−log P(label | text) of a classifier. logits: embeddings (R, T, D) → (R, K)."""

    def __init__(
        self,
        encode: Callable[[str], Sequence[int]],
        embedding: torch.nn.Module,
        logits: Callable[[torch.Tensor], torch.Tensor],
        labels: Mapping[str, int],
    ) -> None:
        self.encode, self.embedding, self.logits, self.labels = encode, embedding, logits, labels

    def layout(self, row: Row) -> inversion.Layout:
        return inversion.layout(self.encode, row["prefix"], row["alphabet"], len(row["secret"]))

    def loss(self, where: inversion.Layout, row: Row) -> inversion.Loss:
        if row["label"] not in self.labels:
            raise ValueError(f"label {row['label']!r} of a canary: the classifier knows {', '.join(self.labels)}")
        return inversion.label_loss(self.logits, self.embedding, where, self.labels[row["label"]])

    def losses(self, where: inversion.Layout, row: Row, codes: Sequence[inversion.Code]) -> np.ndarray:
        return inversion.discrete_losses(self.loss(where, row), codes, len(row["alphabet"]))


def target(task: str, scorer: Scorer, options: Mapping[str, Any]) -> LanguageModel | Labelled:
    """What the options name: the classifier in a folder, else the language model itself."""
    if not options["classifier"]:
        return LanguageModel(scorer)
    found = scorer.beside(Classifier, options["classifier"], option=f"{task}.classifier")
    return Labelled(
        lambda text: found.tokenizer(text, truncation=True, max_length=found.max_length).input_ids,
        found.model.get_input_embeddings(),
        lambda embedded: found.model(inputs_embeds=embedded).logits,
        {name: int(number) for name, number in found.model.config.label2id.items()},
    )
