"""Rule: given names. Which capitalised words are a person's given name, and what becomes of each."""

from __future__ import annotations

from counterfactuals.text.document import Document


def find(document: Document) -> None:
    """Add a mention for each given name of a person."""


def doubt(document: Document) -> None:
    """Add reasons "name:…" where a name stays beside a pronoun that turns."""
