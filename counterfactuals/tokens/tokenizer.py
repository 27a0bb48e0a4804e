"""A byte-level BPE like GPT-2's, trained on the texts at hand: what the quickstart needs instead of a download."""

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from counterfactuals.provenance import adapter_base

END_OF_TEXT = "<|endoftext|>"
NUM_BYTES = 256
TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "tokenizer.model", "spiece.model", "vocab.txt")


def train_bpe(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE over `texts`: every string can be encoded and decodes to itself.

    As in GPT-2 a leading blank belongs to the word, none is added, and `<|endoftext|>` (id 0) is the one special
    token: beginning, end and padding. The same texts in the same order give the same tokenizer. Texts with too few
    distinct pairs give fewer than `vocab_size` entries: read the size from `len(tokenizer)`.

    Raises ValueError if `vocab_size` cannot hold the 256 bytes and the special token, or if there is no text.
    """
    if vocab_size <= NUM_BYTES:
        raise ValueError(f"vocab_size {vocab_size} is too small: 256 bytes and {END_OF_TEXT} need at least 257")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    num_texts = 0

    def counted() -> Iterable[str]:
        nonlocal num_texts
        for text in texts:
            num_texts += 1
            yield text

    tokenizer.train_from_iterator(counted(), trainer)
    if num_texts == 0:
        raise ValueError("no text to train a tokenizer on: texts is empty")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        clean_up_tokenization_spaces=False,
    )


def encode_texts(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text, without special tokens."""
    if not texts:
        return []
    ids = tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
    return [list(row) for row in ids]


def encode_after(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of texts such as " she" where they follow a word, without special tokens.

    Not as texts of their own: before those some tokenizers (Llama 2's) put one more blank.
    """
    (word,) = encode_texts(tokenizer, ["a"])
    found = [
        row[len(word) :] if text.startswith(" ") and row[: len(word)] == word else None
        for text, row in zip(texts, encode_texts(tokenizer, [f"a{text}" for text in texts]))
    ]
    # What goes on with a word, and tokens that go across words, cannot be asked for that way.
    alone = iter(encode_texts(tokenizer, [text for text, ids in zip(texts, found) if ids is None]))
    return [next(alone) if ids is None else ids for ids in found]


def set_start(tokenizer: Any, token: str | None, *, setting: str, every: bool = False) -> None:
    """Name the token that texts begin with, or "none"; None leaves the tokenizer's own begin-of-text token.

    every: the later pieces of a text that is cut into several begin with it too.
    """
    tokenizer.start_every = every
    if token == "none":
        tokenizer.bos_token = None
    elif token is not None:
        if token not in tokenizer.get_vocab():
            raise ValueError(f"{setting}: {token!r} is no token of this tokenizer; name one, such as its end of text")
        tokenizer.bos_token = token


def check_hub(name: str, *own: str) -> None:
    """Raise at once what stands in the way of a name that is neither here nor in the Hub's cache. own: files it has.

    The Hub's client asks for each file again and again, so that without a network it gives up after most of a minute.
    """
    files = (*own, "config.json", "adapter_config.json", *TOKENIZER_FILES)
    here = Path(name).exists() or any(isinstance(try_to_load_from_cache(name, file), str) for file in files)
    if not here and not constants.HF_HUB_OFFLINE:
        with contextlib.suppress(HfHubHTTPError):  # it answers, whatever it says of this one file
            get_hf_file_metadata(hf_hub_url(name, files[0]))


def load_tokenizer(name: str, *, setting: str = "tokenizer", trust_remote_code: bool = False) -> Any:
    """A tokenizer from a folder, FILE.gguf, a tokenizer.json or the Hub. ValueError, one line with `setting`, if none.

    An adapter folder without a tokenizer has that of its model. A bare tokenizer.json does not say which token ends a
    text: `<|endoftext|>` if it is in the vocabulary.
    """
    tokenizer: Any
    path = Path(name)
    try:
        if name.endswith(".json"):
            tokenizer = PreTrainedTokenizerFast(tokenizer_file=name)
        elif name.endswith(".gguf"):
            check_hub(str(path.parent), path.name)
            tokenizer = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
        else:
            if path.is_dir() and not any((path / file).is_file() for file in TOKENIZER_FILES):
                base = adapter_base(name)
                if base is None:
                    raise FileNotFoundError("the folder has none")  # transformers would make an empty one
                name = base
            check_hub(name)
            tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=trust_remote_code)
    except Exception as error:  # tokenizers raises bare Exception for a broken or missing file
        reason = (str(error).strip().split("\n")[0] or type(error).__name__)[:200]
        raise ValueError(
            f"{setting} {name}: no tokenizer ({reason}); name a folder or a tokenizer.json, or check the network"
        ) from None
    if tokenizer.eos_token is None and END_OF_TEXT in tokenizer.get_vocab():
        tokenizer.add_special_tokens({"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT})
    return tokenizer
