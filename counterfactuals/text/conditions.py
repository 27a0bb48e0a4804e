"""Where a word of the lexicon is reversed: the conditions of its section `only`, each told by the tokens around."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from counterfactuals.text.document import Document


@cache
def data() -> dict[str, Any]:
    """senses.yaml: its `lists` of words, and what senses.py reads."""
    return yaml.safe_load(Path(__file__).with_name("senses.yaml").read_text(encoding="utf-8"))


LISTS = {name: frozenset(words.split()) for name, words in data()["lists"].items()}
JOINTS = frozenset(("and", "or", "&", "/"))
_OPENING = frozenset("\"“‘'[(")
_NATIONAL = ("ish", "an", "ese", "ch", "ic", "gal")
_ASSIGNS = frozenset(":=|>\"'“”‘’*[({")


def is_before_name(document: Document, first: int, last: int) -> bool:
    """ "Sir Ian", "Count of Toulouse", "MISS JONES", "Lord and Lady Day"; not "Yes, Sir" or "Sir I"."""
    if document.words[first][0].islower() or document.word(first - 1) in ("First", "Second"):
        return False
    if document.word(last) in JOINTS and document.word(last + 1) in LISTS["TITLES"]:
        return True
    token = last + (document.word(last) == "\n")  # a line that goes on
    token += document.word(token) == "of"
    token += document.word(token) in _OPENING
    after = document.word(token)
    return after[0].isupper() and after not in LISTS["NO_NAMES"] and not document.glued(last)


def _is_abbreviation(document: Document, first: int, last: int) -> bool:
    """ "Mr. Ito", "Mr Ito", "Mr. and Mrs. Ito", "mr ito", "MR. ITO", "TO MR ITO"; not "5 ms.", "an MS", "MS DOS"."""
    word, before = document.words[first], document.word(first - 1)
    dotted = document.word(last) == "." and document.glued(last)
    after = document.word(last + dotted)
    joined = after in JOINTS and document.word(last + dotted + 1).lower() in ("mr", "mrs", "ms")
    if joined or _key_before(document, first) in LISTS["TITLE_KEYS"]:  # {"title": "Ms"}
        return True
    spelled = before == "*" and document.word(first - 2).isupper() and not document.glued(first - 1)  # Z _ Ms
    if before[-1].isdigit() or spelled:
        return False
    if word.isupper():
        if dotted:  # "patients with MS. The"
            return not after.istitle()
        if not _is_loud(after) or document.glued(last) or after in LISTS["PROGRAMS"]:
            return False
        end = document.word(last + 1)
        return _is_loud(before) or end in "\n:" or _is_loud(end) or (end == "," and _is_loud(document.word(last + 2)))
    if word[0].isupper():
        return dotted or is_before_name(document, first, last)
    named = len(after) > 1 and after.isalpha() and not document.glued(last + dotted)
    return named and after not in LISTS["SMALL_WORDS"] and (word != "ms" or after.islower())


def _is_lower(document: Document, first: int, last: int) -> bool:
    """ "kings", "Kings and queens", "Guy at bar", "THE GUY SAID"; no team and no name."""
    word, after = document.words[first], document.word(last)
    if word[0].islower() or (after == "and" and document.word(last + 1) in LISTS["PARTNERS"]):
        return True
    if word.isupper():
        return _is_loud(document.word(first - 1)) and (_is_loud(after) or not after.isalpha())
    return after in LISTS["HE_WHO"] and document.opens(first)


def _is_not_name(document: Document, first: int, last: int) -> bool:
    """In small letters or a rank: "King Harald", "the Danish King Harald", "the King"; not "Larry King"."""
    word = document.words[first]
    before = document.word(first - 1)
    if not word.istitle() or before.lower() in LISTS["LEADS"] or before in LISTS["BEFORE_RANKS"]:
        return True
    if before.islower() and document.word(first - 2).lower() in LISTS["LEADS"]:  # the little Duke
        return True
    if before[0].isupper() and not before.endswith(_NATIONAL):
        return False
    return is_before_name(document, first, last) or (document.word(last) == "of" and not document.glued(last))


def _is_rank(document: Document, first: int, last: int) -> bool:
    """ "Count Ory", "a visit of the Count"; not "Count on it" or "count"."""
    ranked = document.word(first - 1) in ("the", "The") or _is_not_name(document, first, last)
    return document.words[first].istitle() and ranked


def _is_code(document: Document, first: int, last: int) -> bool:
    """ "Sex: M", "gender": "F", "32-year-old M", "45/F", "45F, reports", "me (25f)"; not "45F outside" or "$45M"."""
    word, before, after = document.words[first], document.word(first - 1), document.word(last)
    if word[0].isdigit():
        if before in "([" and after in ")]/,":
            return True
        return after in LISTS["PRESENTS"] and (document.opens(first) or before in LISTS["BEFORE_AGES"])
    if _key_before(document, first) in ("gender", "sex"):
        return True
    if word.islower() or after in ("'", "’"):
        return False
    aged = before in ("old", "yo") or (before == "o" and document.word(first - 2) == "/")  # 45 y/o F
    near = (document.word(first - 2) if before == "/" else "", document.word(last + 1) if after == "/" else "")
    return aged or any(age.isdigit() and 18 <= int(age) < 110 for age in near)


def _key_before(document: Document, first: int) -> str:
    """The key that a value belongs to, in small letters: gender of {"gender": "F"}, sex of "Sex: M" and "sex=M"."""
    token, assigned = first - 1, False
    while first - token < 6 and document.word(token) in _ASSIGNS:
        assigned = assigned or document.word(token) in ":=|>"
        token -= 1
    return document.word(token).lower() if assigned else ""


def _is_kin(document: Document, first: int, last: int) -> bool:
    """ "my MIL", "his bf", "my MIL and FIL"; "MIL called" where "my MIL" stands too; not "5 mil"."""
    word, words, before = document.words[first], document.words, document.word(first - 1)
    if before.lower() in LISTS["OWNERS"] or (len(word) == 2 and word.islower()):
        return True
    near = before in JOINTS and _is_loud(document.word(first - 2))
    return near or (word.isupper() and any(w == word and b.lower() in LISTS["OWNERS"] for b, w in pairwise(words)))


def _is_called(document: Document, first: int, last: int) -> bool:
    """ "Ma said so", "my pa": in a text of the family; not "Yo-Yo Ma" or "MA"."""
    word, before, after = document.words[first], document.word(first - 1), document.word(last)
    if before.lower() in LISTS["OWNERS"]:
        return not word.isupper()
    if word.islower() or word.isupper() or (after == "." and document.word(last + 1).islower()):
        return False
    place = before == "," and document.word(first - 2)[0].isupper()  # York, Pa.
    if place or (before[0].isupper() and not document.opens(first - 1)):
        return False
    return {"Ma", "Pa"} <= set(document.words) or not LISTS["FAMILY"].isdisjoint(document.words)


def _is_beside(document: Document, first: int, last: int) -> bool:
    """ "a Latino man", "he is Latino"; not "Latino voters", who may be anyone."""
    rules = document.lexicon.rules
    group = rules[document.words[first].lower()].group
    verb = first - 1 - (document.word(first - 1) in ("a", "an", "the"))
    places = [last, *(range(verb - 3, verb) if document.word(verb) in ("is", "was", "s") else ())]
    return any(rule.group == group for token in places if (rule := rules.get(document.word(token).lower())))


def _is_fellow(document: Document, first: int, last: int) -> bool:
    """ "the old fellow", "a fellow who", "poor fellow!"; not "fellow-students", "a fellow of Merton", "Fellow"."""
    second, before, after = document.word(first - 2).lower(), document.word(first - 1), document.word(last)
    if not document.words[first].islower() or not LISTS["ACADEMIC"].isdisjoint((before, second)):
        return False
    if before.lower() in LISTS["OF_FELLOWS"] or (second in LISTS["OF_FELLOWS"] and before.endswith("ing")):
        return after == "I" or not (after[0].isupper() or (after == "-" and document.glued(last)))
    if (after.isalpha() and after not in LISTS["AFTER_FELLOWS"] and after != "I") or after in ("of", "at", "-"):
        return False
    leads = before.lower() in LISTS["LEADS"] or (before.islower() and second in LISTS["LEADS"])
    return leads or (before == "of" and second in LISTS["KIND"])


def _is_master(document: Document, first: int, last: int) -> bool:
    """ "my master", "Master Rolfe", "the master said"; not "Grand Master Day"; "her master's degree" is a sense."""
    word, before, after = document.words[first], document.word(first - 1), document.word(last)
    said = after in LISTS["AFTER_FELLOWS"] or after in ",.;!?"
    if word == "Master" and (document.opens(first) or not before[0].isupper()):
        return is_before_name(document, first, last) or (document.opens(first) and said)
    owned = before.lower() in LISTS["OWNERS"] or (said and word == "master" and before in ("the", "The"))
    return owned and word.islower()


def _is_loud(word: str) -> bool:
    return len(word) > 1 and word.isupper()


CONDITIONS: dict[str, Callable[[Document, int, int], bool]] = {
    "abbreviation": _is_abbreviation,
    "beside": _is_beside,
    "called": _is_called,
    "code": _is_code,
    "fellow": _is_fellow,
    "kin": _is_kin,
    "lower": _is_lower,
    "master": _is_master,
    "not_name": _is_not_name,
    "rank": _is_rank,
    "title": is_before_name,
    "title_or_lower": lambda *place: _is_lower(*place) or is_before_name(*place),
}
