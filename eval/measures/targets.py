"""What a canary is sought in: a language model, a head trained on one, or a classifier from a folder.

All three give a layout (how the tokenizer cuts a canary), a loss that gradients flow through, and losses of codes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from eval.classifier import check_classifier, named_classifier
from eval.data import find_data, read_table
from eval.measures import heads
from eval.model import Scorer
from eval.task import MissingData, Row
from privacy import audit, inversion

OPTIONS: dict[str, Any] = {
    "file": "planted.json",
    "classifier": "",
    "labelled": "",
    "text_field": "text",
    "label_field": "label",
    **heads.OPTIONS,
    "finetune": True,
}


def load(task: str, data_dir: Path, options: Mapping[str, Any], limit: int | None) -> list[Row]:
    """A row for each canary of the record; what the target needs is checked."""
    path = find_data(data_dir, options["file"], "the record of canaries that `evenhand privacy plant` wrote")
    record = audit.Record.read(path)
    if options["classifier"] and options["labelled"]:
        raise ValueError(f"{task}: give classifier or labelled, not both")
    if options["classifier"]:
        check_classifier(options["classifier"], f"{task}.classifier")
    if options["labelled"]:
        heads.check_options(options, task)
        find_data(data_dir, options["labelled"], "the labelled texts that the head is trained on")
    rows = [
        {
            "id": number,
            "prefix": canary.prefix,
            "secret": [record.alphabet.index(symbol) for symbol in canary.secret],
            "planted": canary.planted,
            "label": canary.label,
            "alphabet": list(record.alphabet),
            "data_dir": str(data_dir),
        }
        for number, canary in enumerate(record.canaries)
    ]
    if (options["classifier"] or options["labelled"]) and rows[0]["label"] is None:
        raise MissingData(f"{task}: {path} holds no labels; plant with --label_field to attack a classifier")
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
            [-sum(logp_CK[number[(*ids[:t],)], column[ids[t]]] for t in range(begin, len(ids))) for ids in rows]
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


def target(task: str, scorer: Scorer, rows: Sequence[Row], options: Mapping[str, Any], seed: int) -> Any:
    """What the options name: `classifier`, a folder; `labelled`, texts to train a head on; else the language model."""
    if options["classifier"]:
        found = named_classifier(task, {**options, "classifier_labels": ""}, scorer)
        names = found.model.config.label2id
        return Labelled(
            lambda text: found.tokenizer(text, truncation=True, max_length=found.max_length).input_ids,
            found.model.get_input_embeddings(),
            lambda embedded: found.model(inputs_embeds=embedded).logits,
            {name: int(number) for name, number in names.items()},
        )
    if not options["labelled"]:
        return LanguageModel(scorer)
    path = find_data(Path(rows[0]["data_dir"]), options["labelled"], "labelled texts")
    table = read_table(path, [options["text_field"], options["label_field"]])
    names = sorted({str(record[options["label_field"]]) for record in table})
    texts = [record[options["text_field"]] for record in table]
    numbers = np.array([names.index(str(record[options["label_field"]])) for record in table])
    return of_head(train_head(scorer, texts, numbers, len(names), options, seed), names)


def train_head(
    scorer: Scorer, texts: Sequence[str], labels: np.ndarray, num_classes: int, options: Mapping[str, Any], seed: int
) -> heads.TrainedHead:
    """A head with a copy of the model (`finetune`), or on its states alone."""
    if options["finetune"]:
        return heads.finetune(scorer, texts, labels, num_classes, options, seed)
    states = heads.States(scorer, heads.encode(scorer, texts, options), options["layer"])
    return heads.train(scorer, states, np.arange(len(texts)), labels, num_classes, options, seed)


def of_head(trained: heads.TrainedHead, names: Sequence[str]) -> Labelled:
    def logits(embedded_RTD: torch.Tensor) -> torch.Tensor:
        states_RTD = trained.scorer.states(embedded_BTD=embedded_RTD, layer=trained.options["layer"]).float()
        return trained.head(states_RTD, torch.ones(states_RTD.shape[:2], dtype=torch.bool, device=states_RTD.device))[0]

    embedding = trained.scorer.model.get_input_embeddings()
    return Labelled(lambda text: trained.encode([text])[0], embedding, logits, {n: i for i, n in enumerate(names)})
