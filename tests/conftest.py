"""Fixtures that every test may use. The Hub's offline switches are set first: no test reaches the network."""

import gc
import os

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

gc.disable()  # until everything is imported

# a lexicon that takes no time to prepare, unlike the built-in one with its names
FEW_WORDS = "name: few\nversion: 1\nlicence: x\nsource: x\ngroups: [female, male]\npairs: {all: [she he, woman man]}\n"
TINY_TEXTS = [
    "The nurse said that she would finish her shift before the doctor came back with his notes.",
    "He gave her his book, and the girl thanked him. They're in the mother's house; it isn't hers.",
    "The engineer repaired the old bridge, while her brother and his wife waited for the workers.",
    "Mr. Smith told the woman that the men, the boys and the women had seen themselves on the screen.",
    "A plumber explained to the king and the queen how he had mended the pipes by himself.",
    "She works as a teacher and likes her pupils; he works as a cook and likes his kitchen.",
]


def pytest_collection_finish() -> None:
    """What was imported stays: the garbage collector, which every run calls, need not look at it each time."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def _same_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeds every generator before each test, and keeps the Hub out of reach of this process and its children.

    Nothing waits for the disk: files need not survive a power cut.
    """
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of public data beside the checkout, ../shared/data. Missing: skips, or fails if CI=true."""
    path = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    if not path.is_dir():
        reason = f"no folder {path}: this test reads public data that is kept beside the checkout, not in it"
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path


@pytest.fixture(scope="session")
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer like GPT-2's with 400 tokens at most, trained on TINY_TEXTS."""
    from counterfactuals.tokens.tokenizer import train_bpe

    return train_bpe(TINY_TEXTS, vocab_size=400)


def make_tiny_gpt2(path: Path, tokenizer: PreTrainedTokenizerFast | None = None) -> Path:
    """A folder with a tokenizer and a random GPT-2 for it: 4 layers, width 32, 4 heads, 128 positions."""
    from transformers import GPT2Config, GPT2LMHeadModel

    from counterfactuals.tokens.tokenizer import train_bpe

    tokenizer = tokenizer or train_bpe(TINY_TEXTS, vocab_size=400)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_layer=4,
        n_embd=32,
        n_head=4,
        n_positions=128,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        GPT2LMHeadModel(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def few_words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a small lexicon."""
    path = tmp_path_factory.mktemp("lexicon") / "few.yaml"
    path.write_text(FEW_WORDS, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def tiny_gpt2(tiny_tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_gpt2(tmp_path_factory.mktemp("tiny_gpt2"), tiny_tokenizer)


@pytest.fixture(scope="module")
def scorer(tiny_gpt2: Path) -> Any:
    """What tasks run the tiny model through, on the CPU."""
    from eval.model import Scorer

    return Scorer(tiny_gpt2, device="cpu")
