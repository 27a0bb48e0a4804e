"""A causal language model as the tasks see it: log-probabilities, windows, hidden states, sampled texts.

Shapes: B rows of a batch, T positions, V vocabulary, K chosen tokens, D width. Log-probabilities are natural, float32.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from counterfactuals.files import one_line
from counterfactuals.tokens.tokenizer import encode_after, encode_texts, load_tokenizer, set_start
from eval import sampling
from eval.loading import check_model, load_model

Ids = Sequence[int]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Window:
    """The targets of one window: sequence `text`, their number and the sum of their negative log-likelihoods (nats)."""

    text: int
    num_tokens: int
    nll: float


def windows(length: int, window: int, stride: int) -> list[tuple[int, int, int]]:
    """Cut `length` tokens as Hugging Face's perplexity recipe does: (begin, end, first target) for each window.

    Targets are [first, end), so every token but the first of the text is scored once, with at least window − stride
    tokens before it where the text has them. At stride == window the first token of each window is not scored.
    (The recipe's code weights later windows by one token less than it scored; here every token weighs the same.)
    """
    if not 1 <= stride <= window or window < 2:
        raise ValueError(f"window {window}, stride {stride}: needs window ≥ 2 and 1 ≤ stride ≤ window")
    cuts, previous_end = [], 0
    for begin in range(0, length, stride):
        end = min(begin + window, length)
        cuts.append((begin, end, max(previous_end, begin + 1)))
        previous_end = end
        if end == length:
            break
    return [cut for cut in cuts if cut[2] < cut[1]]


def find_device(device: str | torch.device | None) -> torch.device:
    """The device of that name; by default cuda if there is one, else cpu. ValueError if this machine lacks it."""
    try:
        found = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=found)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {str(device)!r}: {one_line(error)}") from error
    return found


def _moments(logits_TV: torch.Tensor) -> torch.Tensor:
    """Mean and standard deviation of log p(token) where tokens are drawn from p: (2, T)."""
    logp_TV = logits_TV.log_softmax(-1)
    p_TV = logp_TV.exp()
    mean_T = (p_TV * logp_TV).sum(-1)
    return torch.stack([mean_T, (p_TV * (logp_TV - mean_T[:, None]) ** 2).sum(-1).sqrt()])


def chat_text(tokenizer: Any, prompt: str) -> str:
    """A user's message in the tokenizer's chat template, up to where the reply begins."""
    if not getattr(tokenizer, "chat_template", None):
        raise ValueError("chat: the model's tokenizer has no chat template")
    message = [{"role": "user", "content": prompt}]
    return tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)


class Scorer:
    """A causal language model and its tokenizer, loaded once and shared by all tasks.

    `model`: a name that `eval.loading` can load (a folder, FILE.gguf, an adapter folder, a Hub name), or a loaded model
    (then `tokenizer` is needed too). Weights are float32 unless `dtype` says otherwise. `batch_size` caps
    the rows of a batch; long rows or big vocabularies get smaller batches by themselves. Results do not depend on it
    beyond float rounding. `start_token` is what texts begin with, or "none"; default: the tokenizer's begin of text.
    `chat` makes a prompt the user's message in the model's own chat template, and what is scored or sampled the reply.
    """

    chat = False

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        *,
        device: str | torch.device | None = None,
        batch_size: int = 64,
        dtype: torch.dtype = torch.float32,
        trust_remote_code: bool = False,
        start_token: str | None = None,
        chat: bool = False,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size {batch_size}: must be at least 1")
        self.device = find_device(device)
        if isinstance(model, (str, Path)):
            check_model(model)
            name = str(model)
            model = load_model(name, dtype=dtype, trust_remote_code=trust_remote_code)
            tokenizer = tokenizer or load_tokenizer(name, setting="model", trust_remote_code=trust_remote_code)
        elif tokenizer is None:
            raise ValueError("a loaded model needs its tokenizer: Scorer(model, tokenizer)")
        if start_token is not None:
            tokenizer = copy.deepcopy(tokenizer)
            set_start(tokenizer, start_token, setting="start token")
        if chat:
            chat_text(tokenizer, "")
        self.chat = chat
        rows = model.get_input_embeddings().weight.shape[0]
        if rows < len(tokenizer):
            raise ValueError(
                f"model {model.name_or_path!r}: {rows} embeddings for a tokenizer of {len(tokenizer)} tokens"
            )
        # weights of 4 and 8 bits are where they were loaded, and some refuse to move
        self.model = (model if model.device == self.device else model.to(self.device)).eval()
        self.tokenizer = tokenizer
        told = getattr(getattr(model, "generation_config", None), "eos_token_id", None)  # chat models': end of turn
        told = told if isinstance(told, list) else [told]
        self.ends: set[int] = {tokenizer.eos_token_id, *told} - {None}  # the tokens that end a text
        self.batch_size = batch_size
        self.progress: Callable[[int, int], None] | None = None  # called with rows done and rows in all
        config = model.config.get_text_config()  # of the text part, where there are others
        names = ("n_positions", "max_position_embeddings", "n_ctx", "max_seq_len")
        limits = [getattr(config, name, None) for name in names]
        self.max_length: int = next((limit for limit in limits if isinstance(limit, int) and limit > 0), 2048)
        self.name = str(model.name_or_path)
        self.width: int = model.get_input_embeddings().weight.shape[1]  # of a hidden state: D
        self.vocab_size: int = model.get_output_embeddings().weight.shape[0]
        self.accepts = set(inspect.signature(model.forward).parameters)
        self._logit_budget = 2**27 if self.device.type == "cpu" else 2**30
        self._cache_budget = 2**30 if self.device.type == "cpu" else 2**34
        self.num_layers: int = config.num_hidden_layers
        self._cache_bytes_a_token = 8 * self.num_layers * getattr(config, "hidden_size", 768)
        if np.isnan(self.next_logprobs([[0]])).any():  # almost any weight that is no number does that
            raise ValueError(
                f"model {model.name_or_path!r}: its predictions are NaN, so its weights are damaged or overflow in "
                f"{dtype}; fetch or save it again, or load it in float32"
            )

    def fingerprint(self) -> str:
        """SHA-256 over the weights and the tokenizer: models of one fingerprint score alike."""
        found = hashlib.sha256(type(self).__qualname__.encode())
        for name, tensor in sorted(self.model.state_dict().items()):
            found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        found.update(self.model.config.to_json_string().encode())
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        vocabulary = backend.to_str() if backend else json.dumps(self.tokenizer.get_vocab(), sort_keys=True)
        found.update(f"{vocabulary} {self.tokenizer.special_tokens_map}".encode())
        return found.hexdigest()

    @property
    def bos(self) -> list[int]:
        """What stands before a text of the model's own: the start token, if any; with `chat`, an empty message."""
        if self.chat:
            return self.encode_prompts([""])[0]
        return [] if self.tokenizer.bos_token_id is None else [self.tokenizer.bos_token_id]

    def encode(self, texts: Sequence[str], *, bos: bool = False) -> list[list[int]]:
        """Token ids of each text without special tokens; `bos` puts what is called so first."""
        start = self.bos if bos else []
        return [start + row for row in encode_texts(self.tokenizer, texts)]

    def encode_prompts(self, prompts: Sequence[str], *, bos: bool = True) -> list[list[int]]:
        """Token ids that the model goes on from: the prompt after the start token (`bos`); a chat up to its reply."""
        if not self.chat:
            return self.encode(prompts, bos=bos)
        return encode_texts(self.tokenizer, [chat_text(self.tokenizer, prompt) for prompt in prompts])

    def continuation(self, text: str) -> str:
        """What follows a prompt, " she", as this model writes it: a reply (`chat`) has no blank before it."""
        return text.lstrip() if self.chat else text

    def encode_pairs(self, pairs: Sequence[tuple[str, str]], *, bos: bool = False) -> list[tuple[list[int], list[int]]]:
        """Token ids of (context, what follows it): encoded as one text, and cut after the tokens of the context alone.

        Spaces at a context's end go to what follows, as in the lm-evaluation-harness. See `continuation`.
        """
        if self.chat:
            prompts = self.encode_prompts([context for context, _ in pairs])
            return list(zip(prompts, self.encode([self.continuation(text) for _, text in pairs])))
        bare = [context.rstrip() for context, _ in pairs]
        contexts = list(dict.fromkeys(bare))
        length = dict(zip(contexts, map(len, self.encode(contexts, bos=bos))))
        rows = self.encode([context + text for context, text in pairs], bos=bos)
        return [(row[: length[context]], row[length[context] :]) for context, row in zip(bare, rows)]

    def word_token(self, word: str) -> int | None:
        """The id of the word after a space (with `chat`: at the reply's beginning) if that is one token, else None."""
        ids = encode_after(self.tokenizer, [self.continuation(f" {word}")])[0]
        return ids[0] if len(ids) == 1 else None

    def decode_after(self, before: Sequence[int], ids: Sequence[Ids]) -> list[str]:
        """The text that each row of ids adds after the token of `before`, without special tokens.

        The row alone would not do: decoders such as SentencePiece's drop a text's leading space.
        """

        def texts(rows: Sequence[Ids]) -> list[str]:
            return self.tokenizer.batch_decode(rows, skip_special_tokens=True, clean_up_tokenization_spaces=False)

        tokens = list(dict.fromkeys(before))
        length = dict(zip(tokens, map(len, texts([[token] for token in tokens]))))
        whole = texts([[token, *row] for token, row in zip(before, ids)])
        return [text[length[token] :] for token, text in zip(before, whole)]

    def _batches(
        self, lengths: Sequence[int], *, cap: int | None = None, cost: int, budget: int
    ) -> Iterator[list[int]]:
        """Row numbers in batches, longest first, rows × longest × cost ≤ budget."""
        order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
        done = 0
        while done < len(order):
            size = max(1, min(cap or self.batch_size, budget // max(1, lengths[order[done]] * cost)))
            yield order[done : done + size]
            done = min(len(order), done + size)
            if self.progress:
                self.progress(done, len(order))

    def _logits(self, rows: Sequence[Ids], **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids padded on the right (B, T) and their logits."""
        batch_BT = self.pad(rows)
        # An all-ones mask costs nothing and spares the user transformers' advice to pass one.
        mask_BT = torch.ones_like(batch_BT)
        return batch_BT, self.model(batch_BT, attention_mask=mask_BT, use_cache=False, **options).logits

    def beside(self, load: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """A further model that a task needs (a judge, a reference): what `load` makes, on the same device."""
        return load(*args, device=self.device, batch_size=self.batch_size, **options)

    def states(
        self, batch_BT: torch.Tensor | None = None, *, embedded_BTD: torch.Tensor | None = None, layer: int = -1
    ):
        """Hidden states (B, T, D) of one batch padded on the right, from token ids or from their input embeddings.

        `layer` −1 is what the output layer reads (GPT-2: after the final norm), 0 the embeddings, k what block k gives.
        Gradients flow: this is what a classifier is trained through.
        """
        given = {"input_ids": batch_BT} if embedded_BTD is None else {"inputs_embeds": embedded_BTD}
        shape = next(iter(given.values())).shape[:2]  # type: ignore[union-attr]
        mask_BT = torch.ones(shape, dtype=torch.long, device=self.device)
        last = layer in (-1, self.num_layers)
        output = self.model.base_model(
            **given, attention_mask=mask_BT, use_cache=False, output_hidden_states=not last, return_dict=True
        )
        return output.last_hidden_state if last else output.hidden_states[layer]

    def pad(self, ids: Sequence[Ids]) -> torch.Tensor:
        """Ids padded on the right (B, T). With causal attention the padding is never seen."""
        longest = max(len(row) for row in ids)
        return torch.tensor([[*row, *([0] * (longest - len(row)))] for row in ids], device=self.device)

    @torch.inference_mode()
    def each_states(self, ids: Sequence[Ids], *, layer: int = -1) -> Iterator[tuple[int, torch.Tensor]]:
        """(number of the sequence, its states (T, D) in float32) one by one, longest first; nothing is kept."""
        self.check_layer(layer)
        self._check_lengths(ids, 1)
        cost = 16 * self.width * (1 if layer in (-1, self.num_layers) else self.num_layers)
        for rows in self._batches([len(row) for row in ids], cost=cost, budget=self._logit_budget):
            states_BTD = self.states(self.pad([ids[row] for row in rows]), layer=layer).float()
            for row, states_TD in zip(rows, states_BTD):
                yield row, states_TD[: len(ids[row])]

    def check_layer(self, layer: int) -> None:
        """ValueError for a layer that this model does not have."""
        if not -1 <= layer <= self.num_layers:
            raise ValueError(f"layer {layer}: must be 0 (embeddings) to {self.num_layers}, or -1 for the last")

    def hidden_states(
        self, ids: Sequence[Ids], positions: Sequence[Sequence[int]] | None = None, *, layer: int = -1
    ) -> list[np.ndarray]:
        """States of each sequence at its chosen positions: a float32 array (positions, D) each; None: all positions.

        Negative positions count from the end (−1: the last token). `layer` as in `states`.
        """
        out: list[np.ndarray] = [np.zeros(0, np.float32)] * len(ids)
        for row, states_TD in self.each_states(ids, layer=layer):
            chosen = states_TD if positions is None else states_TD[list(positions[row])]
            out[row] = chosen.cpu().numpy()
        return out

    def _check_lengths(self, ids: Sequence[Ids], least: int) -> None:
        for row in ids:
            if not least <= len(row) <= self.max_length:
                raise ValueError(f"a text of {len(row)} tokens: this model takes {least} to {self.max_length}")

    def token_logprobs(self, ids: Sequence[Ids], last: Sequence[int] | None = None) -> list[np.ndarray]:
        """log P(token t | tokens before it) for t = 1 … T−1: a float32 array of T−1 for each sequence of T ≥ 1 ids.

        `last`: how many scores of each sequence are wanted, counted from the end (0 … T−1); others are not computed.
        """
        return self._token_scores(ids, last)[0]

    def token_moments(self, ids: Sequence[Ids]) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """As `token_logprobs`, and mean and standard deviation of log p over the vocabulary there: (2, T−1) each."""
        logps, _, moments = self._token_scores(ids, None, moments=True)
        return logps, moments

    @torch.inference_mode()
    def _token_scores(
        self,
        ids: Sequence[Ids],
        last: Sequence[int] | None,
        *,
        first: bool = False,
        moments: bool = False,
    ) -> tuple[list[np.ndarray], list[bool], list[np.ndarray]]:
        """As `token_logprobs`; first: whether all of these tokens are the likeliest; moments: see `token_moments`."""
        self._check_lengths(ids, 1)
        out: list[np.ndarray] = [np.zeros(0, np.float32)] * len(ids)
        likeliest = [True] * len(ids)
        spread: list[np.ndarray] = [np.zeros((2, 0), np.float32)] * len(ids)
        # On a CPU parts that fit its cache are normalised twice as fast.
        part_size = max(1, 2**20 // self.vocab_size) if self.device.type == "cpu" else self.max_length
        for rows in self._batches([len(row) for row in ids], cost=self.vocab_size, budget=self._logit_budget):
            longest = max(len(ids[row]) for row in rows)
            begins = [0 if last is None else len(ids[row]) - 1 - last[row] for row in rows]
            options = {"logits_to_keep": longest - min(begins)} if "logits_to_keep" in self.accepts else {}
            batch_BT, logits_BTV = self._logits([ids[row] for row in rows], **options)
            left_out = longest - logits_BTV.shape[1]
            for i, (row, begin) in enumerate(zip(rows, begins)):  # by row: a float32 copy of all doubles the memory
                end = len(ids[row]) - 1
                logits_TV = logits_BTV[i, begin - left_out : end - left_out].float()
                chosen_T = logits_TV.gather(1, batch_BT[i, begin + 1 : end + 1, None])[:, 0]
                total_T = torch.cat([part.logsumexp(-1) for part in logits_TV.split(part_size)])
                out[row] = (chosen_T - total_T).cpu().numpy()
                if moments:
                    spread[row] = torch.cat([_moments(part) for part in logits_TV.split(part_size)], 1).cpu().numpy()
                if first:
                    likeliest[row] = bool((logits_TV.argmax(-1) == batch_BT[i, begin + 1 : end + 1]).all())
        return out, likeliest, spread

    @torch.inference_mode()
    def next_logprobs(self, ids: Sequence[Ids], keep: Sequence[int] | None = None) -> np.ndarray:
        """log P(next token) after each sequence: float32 (N, V), or (N, K) for the token ids in `keep`."""
        self._check_lengths(ids, 1)
        columns = None if keep is None else torch.tensor(list(keep), dtype=torch.long, device=self.device)
        out = np.zeros((len(ids), self.vocab_size if keep is None else len(keep)), np.float32)
        for rows in self._batches([len(row) for row in ids], cost=self.vocab_size, budget=self._logit_budget):
            lengths = [len(ids[row]) for row in rows]
            spread = max(lengths) - min(lengths) + 1
            options = {"logits_to_keep": spread} if "logits_to_keep" in self.accepts else {}
            _, logits_BTV = self._logits([ids[row] for row in rows], **options)
            first = max(lengths) - logits_BTV.shape[1]
            last_B = torch.tensor(lengths, device=self.device) - 1 - first
            logits_BV = logits_BTV[torch.arange(len(rows), device=self.device), last_B].float()
            logp = torch.log_softmax(logits_BV, -1)
            out[rows] = (logp if columns is None else logp[:, columns]).cpu().numpy()
        return out

    def continuation_logprobs(self, pairs: Sequence[tuple[Ids, Ids]]) -> np.ndarray:
        """log P(continuation | context) for pairs of token ids, neither empty: (N,), summed over the continuation."""
        return np.array([score.sum() for score in self._pair_scores(pairs)[0]])

    def greedy_continuations(self, pairs: Sequence[tuple[Ids, Ids]]) -> tuple[np.ndarray, np.ndarray]:
        """As `continuation_logprobs`, and whether greedy decoding writes the continuation: (N,), boolean (N,)."""
        scores, likeliest = self._pair_scores(pairs, first=True)
        return np.array([score.sum() for score in scores]), np.array(likeliest)

    def _pair_scores(self, pairs: Sequence[tuple[Ids, Ids]], **options: Any) -> tuple[list[np.ndarray], list[bool]]:
        for context, continuation in pairs:
            if not context or not continuation:
                raise ValueError("a continuation and its context need a token each (an empty prompt needs a BOS token)")
        rows, last = [[*context, *continuation] for context, continuation in pairs], [len(pair[1]) for pair in pairs]
        return self._token_scores(rows, last, **options)[:2]

    def fit(self, window: int, stride: int) -> tuple[int, int]:
        """Window and stride for this model: where it is shorter than `window`, both shrink in proportion."""
        if window > self.max_length:
            return self.max_length, max(1, stride * self.max_length // window)
        return window, stride

    def sliding(self, ids: Sequence[Ids], *, window: int = 1024, stride: int = 512, start: Ids = ()) -> list[Window]:
        """Score sequences of any length in windows (see `windows` and `fit`). Each sequence is its own context.

        start: tokens that stand before every window, the first and the later ones, and count as part of it.
        """
        window, stride = self.fit(window, stride)
        inside, stride = window - len(start), min(stride, window - len(start)) if start else stride
        cuts = [(n, *cut) for n, row in enumerate(ids) for cut in windows(len(row), inside, stride)]
        if start:  # the first token of a text has something before it
            cuts = [(text, begin, end, 0 if begin == 0 else first) for text, begin, end, first in cuts]
        rows = [[*start, *ids[text][begin:end]] for text, begin, end, _ in cuts]
        last = [end - first for _, _, end, first in cuts]
        return [
            Window(cut[0], num_tokens, float(-score.sum(dtype=np.float64)))
            for cut, num_tokens, score in zip(cuts, last, self.token_logprobs(rows, last))
        ]

    @cached_property
    def keeps_state(self) -> bool:
        """Whether texts can be continued from the model's cache; if not, each token costs a run over the whole text."""
        kept = self.max_length < 10 or sampling.keeps_state(self)
        if not kept:
            log.warning(
                "%s: its cache cannot continue padded texts; each token is sampled from the whole text, which is slow",
                self.model.config.model_type,
            )
        return kept

    def sampling_batches(self, lengths: Sequence[int], batch_size: int | None) -> Iterator[list[int]]:
        """Row numbers in batches whose keys, values and logits fit into memory."""
        cap = batch_size or max(1, min(1024, self._logit_budget // (2 * self.vocab_size)))
        yield from self._batches(lengths, cap=cap, cost=1, budget=self._cache_budget // self._cache_bytes_a_token)

    def sample_ids(self, ids: Sequence[Ids], **options: Any) -> list[list[int]]:
        """One sampled continuation for each sequence; see `eval.sampling.sample_ids`."""
        return sampling.sample_ids(self, ids, **options)

    def sample(self, prompts: Sequence[str], *, bos: bool = True, **options: Any) -> list[str]:
        """One sampled continuation text for each prompt; options as in `sample_ids`. The prompt is not repeated."""
        ids = self.encode_prompts(prompts, bos=bos)
        new = self.sample_ids(ids, **options)
        return self.decode_after([row[-1] for row in ids], new)
