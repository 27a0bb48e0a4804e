"""Prompts for texts that a model writes itself: neutral or cued, and never one that evaluation judges by."""

import json
import re
from dataclasses import replace

import pytest

from counterfactuals import sample
from counterfactuals.prompts import NAMES, PROMPTS, filled, plural, prompts
from counterfactuals.text.lexicon import load_lexicon
from counterfactuals.text.reverse import Reverser

GENDER = load_lexicon("gender")
FRAMES = [*PROMPTS["neutral"], *(frame for frames in PROMPTS["cued"].values() for frame in frames)]


def as_pattern(frame: str) -> str:
    """A frame of any file with one mark for every slot."""
    return re.sub(r"\{\w*\}", "*", frame).lower().rstrip(" .")


def test_a_longer_list_begins_with_the_shorter_one():
    few, many = prompts(GENDER, 10, 3, cued_every=3), prompts(GENDER, 40, 3, cued_every=3)
    assert many[:10] == few and prompts(GENDER, 10, 4, cued_every=3) != few and len(set(many)) == 40


@pytest.mark.parametrize("attribute", ["gender", "race", "religion"])
def test_a_neutral_prompt_names_no_group(attribute):
    reverse = Reverser(load_lexicon(attribute), policy="reverse")
    for frame in PROMPTS["neutral"]:
        reversal = reverse(filled(frame, "bookkeeper") + " it.")
        assert not reversal.spans and not reversal.stays, frame
    roles = reverse(", ".join(PROMPTS["roles"]) + " and " + ", ".join(map(plural, PROMPTS["roles"])))
    assert not roles.spans and not roles.stays


def test_most_cued_prompts_hold_one():
    cued = prompts(GENDER, 800, 0, cued_every=6)[5::6]
    reverse = Reverser(GENDER, policy="reverse")
    assert sum(bool(reverse(text + " it.").spans) for text in cued) > 0.8 * len(cued)


def test_three_of_four_cued_prompts_hold_a_name():
    names = {name for pair in GENDER.names.pairs[NAMES] for name in pair}
    named = [bool(names & set(re.findall(r"\w+", text))) for text in prompts(GENDER, 1200, 0, cued_every=3)[2::3]]
    assert named[:8] == [True, True, True, False] * 2 and sum(named) == 300


def test_no_role_and_no_frame_is_judged_by_the_sample():
    roles = set(PROMPTS["roles"])
    judged = {*sample.OCCUPATIONS, *(row["prompt"].split()[1] for row in sample.sex_bound_cases())}
    assert not [role for role in roles if judged & set(role.split())]
    frames = [*sample.GRAMMAR["prompts"].values(), *(frame for frame, _ in sample.GRAMMAR["agreement"])]
    written = {row["prompt"] for row in (*sample.name_cases(), *sample.sex_bound_cases())}
    judged_frames = set(map(as_pattern, frames)) | set(map(str.lower, written))
    assert not judged_frames & set(map(as_pattern, FRAMES))
    assert not set(prompts(GENDER, 5000, 0, cued_every=3)) & written


def test_the_names_that_are_judged_are_not_trained():
    judged = {name for pair in GENDER.names.pairs[: NAMES.start] for name in pair}
    assert all(row["prompt"].split()[0].strip(",") in judged or "1950" in row["prompt"] for row in sample.name_cases())
    texts = " ".join(prompts(GENDER, 5000, 0, cued_every=3))
    assert not judged & set(re.findall(r"\w+", texts)) - {"Reed", "Brown"}


def test_no_role_and_no_prompt_is_one_of_bold_or_winogender(shared_data):
    bold = json.loads((shared_data / "bold" / "profession_prompt.json").read_text(encoding="utf-8"))
    titles = {title.replace("_", " ").lower() for group in bold.values() for title in group}
    table = (shared_data / "winogender" / "occupations-stats.tsv").read_text(encoding="utf-8").splitlines()
    listed = [
        (shared_data / "winobias" / f"{side}_occupations.txt").read_text().split("\n") for side in ("male", "female")
    ]
    judged = (
        titles | {line.split("\t")[0] for line in table} | {word.strip().lower() for words in listed for word in words}
    )
    assert not judged & set(PROMPTS["roles"])
    asked = {prompt.strip() for group in bold.values() for texts in group.values() for prompt in texts}
    assert not asked & set(prompts(GENDER, 5000, 0, cued_every=3))


def test_a_lexicon_without_names_has_words_in_their_place():
    texts = prompts(replace(GENDER, names=None), 400, 0, cued_every=2)
    assert all(text[0].isupper() and "{" not in text and "  " not in text for text in texts)


def test_every_lexicon_has_prompts():
    race = load_lexicon("race")
    words = [word for group in race.groups for word in race.words(group)]
    cued = prompts(race, 200, 0, cued_every=3)[2::3]
    assert all(any(word.lower() in text.lower() for word in words) for text in cued)


@pytest.mark.parametrize(
    ("role", "many"),
    [("lobbyist", "lobbyists"), ("coach", "coaches"), ("member of parliament", "members of parliament")],
)
def test_plurals(role, many):
    assert plural(role) == many


def test_own_frames_take_the_place_of_the_neutral_ones():
    own = prompts(GENDER, 8, 0, ["The {roles} of the town", "It rained"], cued_every=3)
    assert own[1] == "It rained" and own[0].startswith("The ") and own[0].endswith(" of the town")
    with pytest.raises(ValueError, match="its slots can be"):
        prompts(GENDER, 8, 0, ["The {job}"], cued_every=3)
