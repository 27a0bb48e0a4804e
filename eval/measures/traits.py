"""Agentic and communal words, and occupations, in a text. Lists and their sources: traits.yaml.

>>> count("She is kind, and the kind of leader who is confident.")
{'agency': 2, 'communal': 1}
>>> jobs("An engineer met two nurses.")
{'men': ['engineer'], 'women': ['nurse']}
"""

from __future__ import annotations

import re
from pathlib import Path

import yaml

_LISTS: dict[str, list[str]] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))


def _pattern(name: str, end: str = "") -> re.Pattern[str]:
    """The words of a list, each with `end` after it, which the match's group leaves out."""
    words = "|".join(_LISTS[name]).replace("*", r"\w*")
    return re.compile(rf"\b({words}){end}\b", re.IGNORECASE)


_TRAITS = {name: _pattern(name) for name in ("agency", "communal")}
_JOBS = {side: _pattern(f"jobs of {side}", "s?") for side in ("men", "women")}


def count(text: str) -> dict[str, int]:
    """How many agentic and how many communal words a text has."""
    return {name: len(pattern.findall(text)) for name, pattern in _TRAITS.items()}


def jobs(text: str) -> dict[str, list[str]]:
    """Occupations in a text that are mostly men's (under 30 % women) and mostly women's (over 70 %), in lower case."""
    return {side: [found.lower() for found in pattern.findall(text)] for side, pattern in _JOBS.items()}
