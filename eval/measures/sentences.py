"""Log-probabilities of whole sentences, as the stereotype tests need them. Natural logarithms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eval.model import Scorer

STARTS = ("first", "kept")  # values of the option `start`, see sentence_logprobs
BOS = ("auto", "true", "false")  # values of the option `bos`, see after_context


def start_tokens(scorer: Scorer) -> list[int]:
    """What stands before a text: `Scorer.bos` or, without one, end-of-text (GPT-2's serves as both)."""
    found = scorer.bos or [token for token in [scorer.tokenizer.eos_token_id] if token is not None]
    if found:
        return found
    raise ValueError("the tokenizer has no begin-of-text and no end-of-text token to score a sentence's first token by")


def sentence_logprobs(scorer: Scorer, texts: Sequence[str], *, start: str) -> list[np.ndarray]:
    """The log-probability of every token of each text: float64 arrays, one value a token.

    start "kept": all tokens after the start token. "first": only the first token after it, the others as if it were not
    there, which is how the StereoSet (Nadeem et al. 2021) and bias-bench (Meade et al. 2022) code scores GPT-2. With
    `Scorer.chat` either way all tokens of the text, in reply to an empty message.
    """
    begin = start_tokens(scorer)
    distinct = list(dict.fromkeys(texts))
    ids = scorer.encode(distinct)
    for text, row in zip(distinct, ids):
        if not row:
            raise ValueError(f"a sentence without tokens: {text!r}")
    if start == "kept" or scorer.chat:
        found = scorer.token_logprobs([[*begin, *row] for row in ids], [len(row) for row in ids])
    else:
        first = sorted({row[0] for row in ids})
        logp = dict(zip(first, scorer.next_logprobs([begin], first)[0]))
        found = [np.append(logp[row[0]], rest) for row, rest in zip(ids, scorer.token_logprobs(ids))]
    table = {text: row.astype(np.float64) for text, row in zip(distinct, found)}
    return [table[text] for text in texts]


def after_context(scorer: Scorer, texts: Sequence[tuple[str, str]], bos: str) -> list[tuple[list[int], list[int]]]:
    """Token ids of (context, what follows it); a context that is too long for the model loses its beginning.

    bos "auto": the begin-of-text token stands first where the tokenizer puts it there by itself (Llama and Gemma, not
    GPT-2), which is what lm-evaluation-harness does.
    """
    first = scorer.tokenizer("").input_ids[:1] == scorer.bos if bos == "auto" else bos == "true"
    pairs = scorer.encode_pairs(texts, bos=first)
    return [(context[-(scorer.max_length - len(follows)) :], follows) for context, follows in pairs]
