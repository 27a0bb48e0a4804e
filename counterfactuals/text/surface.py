"""How a replaced word is written: a or an before it, the apostrophe after it, a stutter before it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from counterfactuals.text.document import Document, Mention


class Edit(NamedTuple):
    """`text[start:end]` becomes `target`."""

    start: int
    end: int
    target: str
    rule: str
    confidence: float


def edits(document: Document, mentions: Iterable[Mention]) -> Iterator[Edit]:
    """What is written for each mention with a target, in order, and the articles before them."""
    text = document.text
    for mention in mentions:
        assert mention.target is not None
        edit = Edit(mention.start, mention.end, mention.target, _rule(document, mention), mention.confidence)
        if text[edit.end : edit.end + 1] in ("'", "’"):
            edit = _owner(text, edit)
        if text[edit.start - 1 : edit.start] == "-":
            edit = _stutter(text, edit)
        if text[edit.start - 2 : edit.start] in ("a ", "n ", "A ", "N ") and (article := _article(text, edit)):
            yield article
        yield edit


def _rule(document: Document, mention: Mention) -> str:
    """A name that the table has not, or spells with other accents, comes back as another: one way."""
    names = document.lexicon.names
    respelt = mention.rule == "name" and names is not None and not names.entries.get(mention.word, (0, ""))[1]
    return "one_way" if respelt and not mention.word.isupper() and not mention.word.islower() else mention.rule


def _article(text: str, edit: Edit) -> Edit | None:
    """ "a" becomes "an", or the other way, where the word after it now begins with another sound."""
    found = _ARTICLE.search(text, max(0, edit.start - 4), edit.start)
    old, new = (_VOWEL.match(word) is not None for word in (text[edit.start : edit.end], edit.target))
    if found is None or old == new or old != (len(found[1]) == 2):
        return None
    article = found[1]
    loud = article == "A" and text[edit.start : edit.end].isupper()
    written = article[0] if old else article + ("N" if loud else "n")
    return Edit(found.start(1), found.end(1), written, "article", 1.0)


def _owner(text: str, edit: Edit) -> Edit:
    """ "the ladies' room" ⇌ "the gentlemen's room", "the princess' room" → "the prince's …"; not 'Yes, ladies' he."""
    start, end, target, rule, confidence = edit
    word, apostrophe = text[start:end], text[end]
    ends_in_s = word[-1] in "sS"
    if ends_in_s == (target[-1] in "sS"):
        return edit
    if not ends_in_s:
        plural = word[-3:].lower() == "men" and _S.match(text, end + 1)
        return Edit(start, end + 2, target + apostrophe, rule, confidence) if plural else edit
    if not _OWNED.match(text, end + 1) or _QUOTE_OPEN.search(text, max(0, start - 200), start):
        return edit
    back = rule if target[-3:].lower() == "men" else "one_way"  # the prince's → the princess's
    return Edit(start, end + 1, target + apostrophe + ("S" if word.isupper() else "s"), back, confidence)


def _stutter(text: str, edit: Edit) -> Edit:
    """ "Sh-she said h-he" → "H-he said sh-she": the letters before the hyphen are the word's first ones."""
    found = _STUTTERED.search(text, max(0, edit.start - 4), edit.start)
    word = text[edit.start : edit.end].lower()
    if found is None or not word.startswith(found[1].lower()):
        return edit
    start = "sh" if edit.target.lower().startswith("sh") else edit.target[0].lower()
    written = start.capitalize() if found[1][0].isupper() else start
    return Edit(found.start(1), edit.end, f"{written}-{edit.target}", "one_way", edit.confidence)


_S = re.compile(r"[sS](?!\w)")
_OWNED = re.compile(r"\s\w|[:;,.!?)]|\s*$")
_QUOTE_OPEN = re.compile(r"(?<!\w)['‘](?=\w)")
_ARTICLE = re.compile(r"(?<![\w'’.-])(an?) $", re.IGNORECASE)
_STUTTERED = re.compile(r"(?<![\w'’-])([^\W\d_]{1,2})-$")
_VOWEL = re.compile(
    r"(?!eu|ewe|one\b|once|uni|use|usu|uti|uk|ur[aiou]|uga)[aeiou]|heir|hono|hour|[à-æè-ïò-öù-ü]", re.IGNORECASE
)
