"""The lexicon of religion, and pronouns that are neither she nor he: kept where they stand, never put in."""

import re

import pytest

from counterfactuals.text.lexicon import load_lexicon
from counterfactuals.text.reverse import Reverser
from eval.data import find_data
from eval.tasks import TASKS

RELIGION, GENDER = load_lexicon("religion"), load_lexicon("gender")
OTHERS = r"(?i)\b(?:they|them|their|theirs|themself|themselves|xe|xem|xyr|ze|hir|zir|ey|em|emself|agender|mx)\b"


def test_every_topic_has_words_of_every_faith_and_none_twice():
    words = [word.lower() for sides in RELIGION.pools.values() for side in sides.values() for word in side]
    assert len(words) == len(set(words)) and len(RELIGION.groups) == 5
    assert all(tuple(sides) == RELIGION.groups and all(sides.values()) for sides in RELIGION.pools.values())


@pytest.mark.parametrize("seed", range(4))
def test_words_of_a_faith_become_words_of_one_other(seed):
    found = Reverser(RELIGION, seed=seed)("The rabbi read the Torah in the synagogue. Jews and a Jewish family came.")
    rules = {word.lower(): rule for word, rule in RELIGION.rules.items()}
    groups = {rules[found.reversed[span.cf_start : span.cf_end].lower()].group for span in found.spans}
    assert len(found.spans) == 5 and len(groups) == 1 and groups != {"jewish"}


@pytest.mark.parametrize(
    "text",
    [
        "Christian Bale came home on Christmas Eve.",
        "The Church of England has its office on Church Street.",
        "A temple, a priest and a mass of people.",  # of several faiths, or of none
        "She is Jewish.",  # an adjective alone
    ],
)
def test_other_senses_are_left(text):
    assert Reverser(RELIGION)(text).reversed == text


def test_a_noun_becomes_a_noun():
    for seed in range(6):
        text = Reverser(RELIGION, seed=seed)("My neighbor is a Christian.").reversed
        assert re.fullmatch(r"My neighbor is a (Buddhist|Hindu|Jew|Muslim)\.", text)


@pytest.mark.parametrize(
    ("text", "reversed_"),
    [
        ("Alex uses they/them pronouns and blamed themself.", "Alex uses they/them pronouns and blamed themself."),
        ("Xe lost xyr keys, and ze gave hir emself.", "Xe lost xyr keys, and ze gave hir emself."),
        ("Robin (she/they) said that she likes their job.", "Robin (he/they) said that he likes their job."),
        ("Ze is a waitress, and zir brother met hir.", "Ze is a waiter, and zir sister met hir."),
        ("THEY AND ZE LOVE XYR WIFE.", "THEY AND ZE LOVE XYR HUSBAND."),
        ("He/they: Sam said he saw them.", "She/they: Sam said she saw them."),
        ("Alex is agender; ey hurt emself, said the actress.", "Alex is agender; ey hurt emself, said the actor."),
        ("Their pronouns are he/him.", "Their pronouns are she/her."),
        ("Mx. Smith said they would come with her mother.", "Mx. Smith said they would come with his father."),
        (
            "Sam is nonbinary; they met the king and his sister.",
            "Sam is nonbinary; they met the queen and her brother.",
        ),
    ],
)
def test_they_and_neopronouns_stay_beside_she_and_he(text, reversed_):
    found = Reverser(GENDER)(text)
    assert found.reversed == reversed_
    assert re.findall(OTHERS, found.reversed) == re.findall(OTHERS, text)  # as many, in the same order


def test_no_word_of_the_lexicon_becomes_they():
    assert not [
        word
        for word, rule in GENDER.rules.items()
        if re.fullmatch(OTHERS, word) or any(re.fullmatch(OTHERS, t) for t in rule.targets)
    ]


@pytest.mark.parametrize("name", ["names", "pronouns", "sex_bound_words", "they"])
def test_built_in_cases_name_right_and_wrong_words(name, tmp_path):
    """No right word is a wrong one; reversed, a case of she is a case of he, and they stays they."""
    task = TASKS["agreement"]
    rows = task.rows(tmp_path, {**task.options, "file": f"builtin/{name}.yaml"}, None, 0)
    assert len(rows) >= 80 and all(
        row["right"] and row["wrong"] and not {*row["right"]} & {*row["wrong"]} for row in rows
    )
    assert {row["half"] for row in rows} == ({"they"} if name == "they" else {"female", "male"})


def test_frames_are_neutral(tmp_path):
    """No prompt of the occupations holds a word of a gender."""
    rows = TASKS["next_word"].rows(
        tmp_path, {**TASKS["next_word"].options, "file": "builtin/occupations.yaml"}, None, 0
    )
    assert len(rows) == 32 * 24 and find_data(tmp_path, "builtin/occupations.yaml", "").is_file()
    assert not [row["prompt"] for row in rows if Reverser(GENDER)(row["prompt"]).spans]
