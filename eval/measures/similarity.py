"""How alike two texts are: BLEU, ROUGE-L, cosine of embeddings; and how far two samples of scores are apart.

As langfair's counterfactual metrics (Bouchard 2024): BLEU of lower-case tokens, the smaller of both directions,
smoothed by Chen & Cherry's first method; the F-measure of ROUGE-L with stemmed words; Wasserstein-1 distance for
sentiment. Its tokens of BLEU are NLTK's, whose sentence splitter is a download; here they are words and punctuation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from eval.loading import check_model
from eval.task import MissingData

_TOKEN = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")


def text_similarities(option: str) -> dict[str, Callable[[str, str], float]]:
    """{"bleu", "rouge_l"}: 1 for equal texts (bleu: of four tokens at least), 0 without a common or any word."""
    try:
        from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise MissingData(f"{option} needs two packages: pip install 'evenhand[similarity]'") from error
    smooth, scorer = SmoothingFunction().method1, RougeScorer(["rougeL"], use_stemmer=True)

    def bleu(first: str, second: str) -> float:
        a, b = (_TOKEN.findall(text.lower()) for text in (first, second))
        if not a or not b:
            return 0.0
        return float(min(sentence_bleu([x], y, smoothing_function=smooth) for x, y in ((a, b), (b, a))))

    return {"bleu": bleu, "rouge_l": lambda first, second: scorer.score(first, second)["rougeL"].fmeasure}


@torch.inference_mode()
def embeddings(folder: str, texts: Sequence[str], *, device: Any, batch_size: int) -> np.ndarray:
    """Unit vectors (N, D) of texts: means of the last states over tokens, as most sentence transformers take them."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, use_safetensors=True).to(device).eval()
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    out = []
    for begin in range(0, len(texts), batch_size):
        part = [text or " " for text in texts[begin : begin + batch_size]]
        limit = getattr(model.config, "max_position_embeddings", 512)
        batch = tokenizer(
            part, padding=True, truncation=True, max_length=limit, padding_side="right", return_tensors="pt"
        )
        inputs = {name: batch[name].to(device) for name in ("input_ids", "attention_mask")}
        weight_BT1 = inputs["attention_mask"][..., None].float()
        states_BTD = model(**inputs).last_hidden_state.float()
        mean_BD = (states_BTD * weight_BT1).sum(1) / weight_BT1.sum(1)
        out.append(torch.nn.functional.normalize(mean_BD, dim=-1).cpu().numpy())
    return np.concatenate(out)


def check_embedder(folder: str, option: str) -> None:
    """ValueError if that is not the folder of a model with its tokenizer. Hub names are not looked up."""
    if not Path(folder).is_dir():
        raise ValueError(f"{option} {folder!r}: no such folder; name the folder of a sentence embedding model")
    check_model(folder)


def wasserstein(first: Any, second: Any) -> float:
    """The Wasserstein-1 distance of two samples of equal size: the mean difference of their sorted values."""
    return float(np.abs(np.sort(first, axis=None) - np.sort(second, axis=None)).mean())
