"""Which tokens of a conversation the assistant says, told from the token ids by its chat template."""

from __future__ import annotations

from typing import Any

import numpy as np


class AssistantTokens:
    """ids (T,) → boolean (T,): what stands after the assistant's header, up to the token that ends its turn, included.

    Header and end are taken from what the template writes around a message. A sequence that begins inside an answer, as
    the later pieces of a cut conversation may, counts from the next header on. ValueError where the tokenizer has no
    chat template, or one that does not put a header before an answer and the same text before and after adding it.
    """

    def __init__(self, tokenizer: Any) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise ValueError("data.loss_on assistant: the tokenizer has no chat template")
        asked = [{"role": "user", "content": "x"}]
        before = tokenizer.apply_chat_template(asked, tokenize=False)
        whole = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        answered = tokenizer.apply_chat_template([*asked, {"role": "assistant", "content": "x"}], tokenize=False)
        header = whole.removeprefix(before)
        if not header.strip() or header == whole or not answered.startswith(whole + "x"):
            raise ValueError("data.loss_on assistant: the chat template does not mark where an answer begins")

        def encoded(text: str) -> list[int]:
            return tokenizer(text, add_special_tokens=False).input_ids

        self._header = encoded(header.rstrip())
        self._blank = encoded(header)[len(self._header) :]  # the line's end after it
        end = encoded(answered[len(whole) + 1 :])[:1] or [tokenizer.eos_token_id]
        self._end = end[0]

    def __call__(self, ids: np.ndarray) -> np.ndarray:
        said = np.zeros(len(ids), dtype=bool)
        size = len(self._header)
        if len(ids) < size:
            return said
        ends = np.flatnonzero(ids == self._end)
        windows = np.lib.stride_tricks.sliding_window_view(ids, size)
        for start in np.flatnonzero((windows == self._header).all(axis=1)) + size:
            if ids[start : start + len(self._blank)].tolist() == self._blank:
                start += len(self._blank)
            later = ends[ends >= start]
            said[start : later[0] + 1 if len(later) else len(ids)] = True
        return said
