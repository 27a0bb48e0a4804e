"""Random numbers that a secret decides: which texts are in a step, and its noise.

Whoever knows them can subtract the noise, so a published seed must not give them. They are a function of the secret, of
what the run is, and of the step: a run resumes exactly, and two different runs never share their noise.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

import numpy as np
import torch

NUM_BYTES = 32
BLOCK = 1 << 20  # numbers that are drawn at a time


def check_secret(path: Path) -> None:
    """Refuse a secret that others can read, or that could be guessed; one that is not there yet will be made."""
    if not path.exists():
        return
    if path.stat().st_mode & 0o077:
        raise ValueError(
            f"privacy.secret: {path} can be read by others than its owner; chmod 600 it, or make a new one"
        )
    if path.stat().st_size < NUM_BYTES:
        raise ValueError(f"privacy.secret: {path} holds fewer than {NUM_BYTES} bytes; delete it and a new one is made")


def load_secret(path: Path) -> bytes:
    """The bytes of a secret file, which is made if it is missing: random, and for its owner alone."""
    check_secret(path)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(NUM_BYTES))
        try:
            os.link(partial, path)
        except FileExistsError:  # another process was faster
            pass
        finally:
            partial.unlink()
    return path.read_bytes()


class Keys:
    """Streams of random numbers, one for each purpose and step. context: everything that decides the run."""

    def __init__(self, secret: bytes, context: bytes):
        self._key = hmac.digest(secret, hashlib.sha256(context).digest(), "sha256")

    def _digest(self, purpose: str, *numbers: int) -> bytes:
        return hmac.digest(self._key, repr((purpose, *numbers)).encode(), "sha256")

    def tag(self) -> str:
        """Tells two keys apart without giving them away."""
        return self._digest("tag").hex()[:16]

    def draws(self, purpose: str, *numbers: int) -> np.random.Generator:
        """A generator of its own (Philox, keyed with 128 bits) for `purpose` and `numbers`."""
        return np.random.Generator(np.random.Philox(key=int.from_bytes(self._digest(purpose, *numbers)[:16], "little")))

    def add_noise_(self, total: torch.Tensor, deviation: float, *numbers: int) -> None:
        """Add independent normal numbers of this standard deviation to a contiguous tensor, a block at a time.

        On a CPU numpy draws them: torch seeds its own generator there with 32 bits only, which can be tried out.
        """
        if total.is_cuda:
            generator = torch.Generator(total.device)
            generator.manual_seed(int.from_bytes(self._digest("noise", *numbers)[:8], "little", signed=True))
        draws, flat = self.draws("noise", *numbers), total.view(-1)
        buffer = np.empty(min(BLOCK, len(flat)), np.float64 if total.dtype == torch.float64 else np.float32)
        for block in flat.split(BLOCK):
            if total.is_cuda:
                noise = torch.randn(len(block), generator=generator, dtype=total.dtype, device=total.device)
            else:
                noise = torch.from_numpy(draws.standard_normal(out=buffer[: len(block)], dtype=buffer.dtype))
            block.add_(noise, alpha=deviation)
