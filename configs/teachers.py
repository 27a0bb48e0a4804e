"""What a run looks at in its teacher: which layers to keep, what to erase from its states, how much it reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from configs.schema import Config
from counterfactuals.text.reverse import Reverser
from counterfactuals.tokens.corpus import Corpus
from counterfactuals.tokens.pairs import PairSet
from counterfactuals.tokens.tokenizer import encode_texts
from counterfactuals.tokens.vocabulary import role_tokens
from debias import models
from debias.erase import erase_groups

TOKENS = 4096  # of the first texts, to measure the influence of layers with
PAIRS = 512  # to fit an eraser on


def kept_layers(config: Config, teacher: Any, tokenizer: Any, corpus: Corpus) -> tuple[list[int], dict[str, Any]]:
    """The layers that student.layers names, and how they were chosen where the texts decide it: for run.json.

    A pure function of teacher and texts: a run that resumes finds the same.
    """
    rule, facts = config.student.layers, dict[str, Any]()
    if isinstance(rule, str) and rule.startswith("influence:"):
        batches = _first_tokens(replace(corpus, tokenizer=tokenizer), tokenizer, config.data.max_length)
        facts["influence"] = models.block_influence(teacher, batches)
    kept = models.kept_layers(rule, models.num_layers(teacher), facts.get("influence", ()))
    return kept, facts | {"layers": kept}


def pairs_hidden_states(config: Config) -> bool:
    """Whether hidden states learn from both texts, so that the teacher sees counterfactuals whatever the op."""
    return config.loss.hidden_weight > 0 and config.loss.hidden_target == "mean"


def num_read(config: Config, with_cf: float) -> float:
    """Sequences that the teacher reads for each text. with_cf: fraction of the texts that have a counterfactual."""
    uses_cf = config.loss.op != "none" or config.counterfactual.augment != "none" or pairs_hidden_states(config)
    return 1 + with_cf * uses_cf


def _first_tokens(corpus: Corpus, tokenizer: Any, max_length: int) -> Iterator[torch.Tensor]:
    """The first texts as batches of one, cut to max_length, until there are TOKENS tokens."""
    seen = 0
    for text in corpus:
        ids = encode_texts(tokenizer, [text])[0][:max_length]
        if ids:
            yield torch.tensor([ids])
        seen += len(ids)
        if seen >= TOKENS:
            return


def erase(teacher: Any, pairs: Any, reverser: Reverser, tokenizer: Any, device: torch.device) -> dict[str, int]:
    """Erase the group of a text from the teacher's last hidden states, fitted on the run's first pairs."""
    assert isinstance(pairs, PairSet)  # a stream is not for it, see checks.py
    teacher.to(device)
    tokens = role_tokens(reverser, tokenizer, teacher.get_input_embeddings().weight.shape[0])
    return erase_groups(teacher, (pairs[int(i)] for i in pairs.has_cf.nonzero()[0]), tokens, most=PAIRS)
