"""What every command does around its work: messages on the console, exit codes, faults in plain words."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable

import torch

from counterfactuals.files import explain

PACKAGES = ("configs", "counterfactuals", "debias", "eval", "privacy", "federated")


class Console(logging.Handler):
    """Messages of the libraries as they are, on standard output; warnings on standard error, with "warning: "."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno < logging.WARNING:
            print(record.getMessage(), flush=True)
        else:
            print(f"{record.levelname.lower()}: {record.getMessage()}", file=sys.stderr, flush=True)


_CONSOLE = Console()


def run_command(work: Callable[[], None]) -> int:
    """Do the work of a command; its exit code: 0 done, 2 a mistake (a line says which), 130 interrupted."""
    for name in PACKAGES:
        logging.getLogger(name).addHandler(_CONSOLE)
        logging.getLogger(name).setLevel(logging.INFO)
    try:
        work()
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        print("\n".join(f"error: {line}" for line in in_plain_words(error).splitlines()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command resumes", file=sys.stderr)
        return 130
    return 0


def in_plain_words(error: Exception) -> str:
    """What went wrong on this machine and the way out. An error that says neither of those is raised again."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error):
        return (
            "out of memory: lower train.micro_batch_size (the result stays the same to rounding), loss.chunk_rows or "
            "data.max_length, or set train.gradient_checkpointing; the same command resumes from the last checkpoint"
        )
    if isinstance(error, OSError) and error.errno:
        return explain(error)
    if isinstance(error, ValueError | OSError):
        return str(error)
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if several and any(word in str(error) for word in ("onnection", "imed out", "imeout", "NCCL", "gloo")):
        return "another rank has ended, its message says why; the same command resumes from the last checkpoint"
    raise error
