"""Prompts for texts that a model writes itself: neutral ones, and ones with a word or name that tells a group.

>>> from counterfactuals.text.lexicon import load_lexicon
>>> prompts(load_lexicon("gender"), 2, seed=0, cued_every=3)
['The explorer said that', 'Yesterday the interior decorator told us that']
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from counterfactuals.text.lexicon import Lexicon
from counterfactuals.text.reverse import Reverser

PROMPTS: dict[str, Any] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
NAMES = slice(25, 275)  # pairs of given names, by how common they are; the first are kept for judging


def prompts(lexicon: Lexicon, number: int, seed: int, neutral: Sequence[str] = (), *, cued_every: int) -> list[str]:
    """`number` prompts of `lexicon`'s attribute; the frames take turns, roles, names and words are drawn by `seed`.

    A longer list begins with the shorter one; `kind` says what each is. neutral: frames instead of the built-in neutral
    ones; they may hold {role}, {a_role} and {roles}. ValueError for a frame with another slot.
    """
    drawn = random.Random(f"prompts {seed}")
    cued = PROMPTS["cued"].get(lexicon.name, PROMPTS["cued"]["other"])
    by_name = [frame for frame in cued if "{name}" in frame] if lexicon.names else []
    by_word = [frame for frame in cued if "{name}" not in frame]
    names, words = _cues(lexicon)
    turns = {
        "neutral": itertools.cycle(list(neutral) or PROMPTS["neutral"]),
        "name": itertools.cycle(by_name or by_word),
        "word": itertools.cycle(by_word),
    }
    frames = (next(turns[kind(i, cued_every)]) for i in range(number))
    return [filled(frame, *map(drawn.choice, (PROMPTS["roles"], names, words))) for frame in frames]


def own_prompts(path: str, lexicon: Lexicon) -> list[str]:
    """The neutral frames in a user's file, one a line.

    ValueError if there is no such file or nothing in it, and for a frame that names a group or has another slot.
    """
    if not Path(path).is_file():
        raise ValueError(f"data.prompts {path}: no such file; it holds neutral beginnings of texts, one a line")
    read, cues = Reverser(lexicon), [some[0] for some in _cues(lexicon)]
    try:
        frames = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
        for frame in frames:
            told = read(filled(frame, "person", *cues))
            if told.spans or told.stays:
                raise ValueError(f"{frame!r} names a group; these prompts must be neutral")
    except ValueError as error:  # what cannot be decoded is one, too
        raise ValueError(f"data.prompts {path}: {error}") from None
    if not frames:
        raise ValueError(f"data.prompts {path}: no prompt in it; one a line")
    return frames


def _cues(lexicon: Lexicon) -> tuple[list[str], list[str]]:
    """The given names and the words that fill {name} and {word}."""
    names = [name for pair in lexicon.names.pairs[NAMES] for name in pair] if lexicon.names else [""]
    return names, sorted(word for group in lexicon.groups for word in lexicon.words(group))


def kind(number: int, cued_every: int) -> str:
    """What the prompt of this number, from 0, is: each cued_every-th is cued, three of four by a "name", else a "word".

    The others are "neutral". A lexicon without names has words in their place.
    """
    turn, place = divmod(number, cued_every)
    if place < cued_every - 1:
        return "neutral"
    return "word" if turn % 4 == 3 else "name"


def filled(frame: str, role: str, name: str = "", word: str = "") -> str:
    """A frame with its slots filled and a capital at its beginning."""
    a_role = ("an " if role[0] in "aeiou" else "a ") + role
    try:
        text = frame.format(role=role, a_role=a_role, roles=plural(role), name=name, word=word)
    except (LookupError, ValueError, AttributeError, TypeError):
        raise ValueError(f"prompt {frame!r}: its slots can be {{role}}, {{a_role}} and {{roles}}") from None
    return text[:1].upper() + text[1:]


def plural(role: str) -> str:
    """The plural of a role, of its first part in "director of studies"."""
    head, of, rest = role.partition(" of ")
    if head.endswith(("s", "x", "ch", "sh")):
        return head + "es" + of + rest
    if head.endswith("y") and head[-2] not in "aeiou":
        return head[:-1] + "ies" + of + rest
    return head + "s" + of + rest
