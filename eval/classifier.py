"""A text classifier from a folder: any Hugging Face sequence classification model with safetensors weights.

Its labels stand for values: negative −1, neutral 0, positive 1. `python -m eval.train_classifier` trains one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError

from counterfactuals.files import one_line
from eval.model import Scorer

VALUES = {
    **dict.fromkeys(("negative", "neg", "-1", "toxic", "hate", "offensive"), -1),
    **dict.fromkeys(("neutral", "other", "0"), 0),
    **dict.fromkeys(("positive", "pos", "1", "non-toxic", "normal"), 1),
}


def check_classifier(folder: str | Path, option: str) -> None:
    """ValueError if the folder does not hold a classifier. Hub names are not looked up."""
    path = Path(folder)
    if not path.is_dir():
        raise ValueError(
            f"{option} {str(folder)!r}: no such folder; name the folder of a sequence classification model"
        )
    if not (path / "config.json").is_file() or not any(path.glob("*.safetensors")):
        raise ValueError(f"{option} {str(folder)!r}: needs config.json and *.safetensors weights")


def label_values(names: Mapping[int, str], given: str, option: str) -> list[int]:
    """The value (−1, 0, 1) of each label id, from `given` ("negative,…") or else from the config's label names."""
    labels = [part.strip() for part in given.split(",") if part.strip()] or [names[i] for i in sorted(names)]
    if len(labels) != len(names):
        raise ValueError(f"{option} {given!r}: names {len(labels)} labels, the classifier has {len(names)}")
    found = [VALUES.get(label.lower()) for label in labels]
    if None in found:
        raise ValueError(
            f"{option}: is label {labels[found.index(None)]!r} negative, neutral or positive? "
            f"Say so for each of the {len(names)} labels in order, as in negative,neutral,positive"
        )
    return [value for value in found if value is not None]


class Classifier:
    """Probabilities of classes, and of the values −1, 0, 1. `labels`: what classes mean, if the config does not say."""

    def __init__(
        self, folder: str | Path, *, labels: str = "", option: str = "classifier", device: Any = "cpu", batch_size=64
    ) -> None:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        check_classifier(folder, option)
        try:
            model = AutoModelForSequenceClassification.from_pretrained(str(folder), use_safetensors=True)
            self.tokenizer = AutoTokenizer.from_pretrained(str(folder))
        except (OSError, ValueError, SafetensorError) as error:
            reason = one_line(error)
            raise ValueError(f"{option} {str(folder)!r}: {reason}") from error
        self.model = model.to(device).eval()
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        if model.config.pad_token_id is None:
            model.config.pad_token_id = self.tokenizer.pad_token_id
        self.option, self.given, self.batch_size = option, labels, batch_size
        limits = [getattr(model.config, name, None) for name in ("max_position_embeddings", "n_positions")]
        self.max_length = next((limit for limit in limits if limit), 512)
        if model.config.model_type in ("roberta", "xlm-roberta", "camembert"):
            self.max_length -= 2  # positions begin after the padding's

    @property
    def values(self) -> list[int]:
        """−1, 0 or 1 for each class; ValueError if neither the config's label names nor `labels` say which."""
        return label_values(self.model.config.id2label, self.given, f"{self.option} labels")

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """P(negative), P(neutral), P(positive) of each text: (N, 3), classes of equal value summed."""
        values = self.values
        probs_NC = self.class_probabilities(texts)
        return np.stack([probs_NC[:, [v == value for v in values]].sum(1) for value in (-1, 0, 1)], axis=1)

    @torch.inference_mode()
    def class_probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """The probability of each class: (N, C)."""
        distinct = list(dict.fromkeys(texts))
        order = sorted(range(len(distinct)), key=lambda i: -len(distinct[i]))
        out = np.zeros((len(distinct), len(self.model.config.id2label)))
        for begin in range(0, len(order), self.batch_size):
            rows = order[begin : begin + self.batch_size]
            batch = self.tokenizer(
                [distinct[i] or " " for i in rows],
                padding=True,
                truncation=True,
                max_length=self.max_length,
                padding_side="right",
                return_tensors="pt",
            )
            inputs = {name: batch[name].to(self.model.device) for name in ("input_ids", "attention_mask")}
            out[rows] = torch.softmax(self.model(**inputs).logits.float(), -1).cpu().numpy()
        number = {text: i for i, text in enumerate(distinct)}
        return out[[number[text] for text in texts]]


def named_classifier(task: str, options: Mapping[str, Any], scorer: Scorer) -> Classifier:
    """The classifier named by a task's options `classifier` and `classifier_labels`, on the scorer's device."""
    return Classifier(
        options["classifier"],
        labels=options["classifier_labels"],
        option=f"{task}.classifier",
        device=scorer.device,
        batch_size=scorer.batch_size,
    )
