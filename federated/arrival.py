"""When texts arrive and when they go: periods of new texts, and a window of those that are kept.

A client's texts are in the order of their arrival; each period brings an equal part of them. A text that has left the
window is no longer trained on, and the client deletes the pairs and predictions made from it. What the model learned
from it before is not unlearned.
"""

from __future__ import annotations

from typing import Any


def period_of(round: int, rounds: int, periods: int) -> int:
    """The period of a round, both counted from 0: every period has as many rounds, to within one."""
    return round * periods // rounds


def window(num_texts: Any, period: int, periods: int, keep: int | None = None) -> tuple[Any, Any]:
    """(first, end) of the texts at hand in `period`: all that have come, or those of the last `keep` periods.

    num_texts: of a client, or an array of them for many.
    """
    first = max(period + 1 - (keep or periods), 0)
    return num_texts * first // periods, num_texts * (period + 1) // periods
