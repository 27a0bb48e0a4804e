"""Rule: a word of the lexicon in a sense that is no person's role: ships, titles of works, idioms, animals."""

from __future__ import annotations

from counterfactuals.text.document import Document


def doubt(document: Document) -> None:
    """Add reasons "sense:…" to mentions that may carry no role here."""
