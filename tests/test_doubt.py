"""Doubt as a number: what a passage's doubt is made of, what a policy does with it, how it is fitted."""

import math
from pathlib import Path

import numpy as np
import pytest

from counterfactuals.learn.doubts import COMMON, Marked, calibration, fit, known, read_marks, write
from counterfactuals.text import reverse as module
from counterfactuals.text.document import DOUBTS, doubts
from counterfactuals.text.lexicon import load_lexicon
from counterfactuals.text.reverse import POLICIES, Reverser, part, reverse, threshold

GENDER = load_lexicon("gender")
FILLER = "The meeting went on for a long time, and then there was coffee for everybody in the room next door. " * 3
SURE, DOUBTED = "She told her sister about it. ", "She was pregnant, her doctor said. "
DOCUMENT = "\n".join([SURE + FILLER, DOUBTED + FILLER, SURE + FILLER])


def test_every_reason_has_a_probability():
    assert doubts().keys() >= set(COMMON) and all(0 <= p <= 1 for p in doubts().values())
    kinds = {key.partition(":")[0] for key in doubts()} - set(COMMON)
    assert kinds == {"sex_bound", "name", "sense", "pronoun"}


def test_a_document_keeps_its_other_passages():
    done = reverse(DOCUMENT, GENDER, policy="skip")
    assert [passage.reversed for passage in done.passages] == [True, False, True]
    lines = done.reversed.split("\n")
    assert lines[0].startswith("He told his brother") and lines[2].startswith("He told his brother")
    assert lines[1] == (DOUBTED + FILLER).strip("\n")
    assert done.stays and DOCUMENT[done.stays[0] :].startswith("She was pregnant")


def test_a_passage_is_reversed_up_to_the_policy_and_its_doubt_is_the_product_over_reasons():
    done = reverse(DOCUMENT, GENDER)
    assert all(passage.reversed for passage in done.passages)
    for passage in done.passages:
        assert passage.doubt == pytest.approx(1 - math.prod(1 - doubts()[r] for r in passage.reasons), abs=1e-4)
    low, high = done.passages[0].doubt, done.passages[1].doubt
    assert 0 < low < high
    for policy in (0.0, low / 2, (low + high) / 2, 1.0):
        decided = reverse(DOCUMENT, GENDER, policy=policy).passages
        assert [passage.reversed for passage in decided] == [passage.doubt <= policy for passage in done.passages]
    assert done.doubt == pytest.approx(1 - (1 - low) ** 2 * (1 - high), abs=1e-3)


def test_text_without_a_role_has_no_doubt():
    done = reverse(FILLER, GENDER)
    assert [(p.doubt, p.reversed) for p in done.passages] == [(0, False)] * len(done.passages) and not done.flags


def test_a_flag_says_where_what_and_how_likely():
    (flag,) = reverse(DOUBTED, GENDER).flags
    assert DOUBTED[flag.start : flag.end] == "pregnant" and flag.kind == "sex_bound"
    assert flag.doubt == doubts()[f"{flag.kind}:{flag.reason}"] > module.LEAST


def test_policies_are_names_or_numbers():
    assert threshold("reverse") == threshold("1") == threshold(1) == 1.0
    assert threshold("skip") == POLICIES["skip"] and threshold("0.25") == 0.25
    assert Reverser(GENDER, policy="skip").fingerprint == Reverser(GENDER, policy=POLICIES["skip"]).fingerprint
    assert Reverser(GENDER, policy="keep_names").fingerprint != Reverser(GENDER, policy="reverse").fingerprint
    for wrong in ("keep", "-0.1", 1.5, "nan"):
        with pytest.raises(
            ValueError, match=r"policy: no .*; there is reverse, skip, keep_names, or a doubt from 0 to"
        ):
            Reverser(GENDER, policy=wrong)


def test_fields_of_a_record_are_reversed_together_or_not_at_all():
    reverser = Reverser(GENDER, policy="skip")
    assert reverser.fields(["Her brother left.", "", "Did he?"]) == ["His sister left.", "", "Did she?"]
    assert reverser.fields(["Her brother left.", "He was pregnant."]) == ["Her brother left.", "He was pregnant."]
    assert reverser.fields([]) == []


def test_a_part_of_a_reversal_has_its_own_offsets():
    text = "his aunt and her uncle"
    done = reverse(text, GENDER)
    assert part(done, 0, 8) == "her uncle" and part(done, 9, 12) == "and" and part(done, 13, 22) == "his aunt"


def test_the_fit_finds_the_probabilities_that_made_the_marks():
    draw = np.random.default_rng(0)
    truth = {"named": 0.01, "name:a": 0.3, "sense:b": 0.05}
    marked = []
    for _ in range(20_000):
        reasons = ("named",) * int(draw.integers(1, 5))
        reasons += tuple(r for r in ("name:a", "sense:b") if draw.random() < 0.2)
        right = math.prod(1 - truth[r] for r in reasons)
        marked.append(Marked(reasons, bool(draw.random() > right)))
    found = fit(marked, [*truth, "name:never"])
    for reason, p in truth.items():
        assert found[reason] == pytest.approx(p, rel=0.15)
    rate = sum(passage.wrong for passage in marked) / len(marked)
    assert found["name:never"] == pytest.approx(rate, abs=0.01)  # the mean, where nothing was marked
    for row in calibration(marked, found, [0, 0.05, 0.1, 0.5]):
        assert row["wrong"] == pytest.approx(row["doubt"], abs=0.02)


def test_marks_are_read_and_doubts_written_back(tmp_path: Path):
    marks = tmp_path / "marks.csv"
    marks.write_text("id,verdict,reasons\na,ok,base*2\nb,wrong,base name:x\nc,,base\n", encoding="utf-8")
    marked = read_marks([marks])
    assert marked == [Marked(("base", "base"), False), Marked(("base", "name:x"), True)]
    out = tmp_path / "doubts.yaml"
    write(fit(marked, ["base", "name:x"]), marked, out, "a command")
    assert known(out) == ["base", "name:x"] and "1 of 1" in out.read_text(encoding="utf-8")
    (tmp_path / "other.csv").write_text("id,verdict\na,ok\n", encoding="utf-8")
    with pytest.raises(ValueError, match="no column reasons"):
        read_marks([tmp_path / "other.csv"])
    assert set(known(DOUBTS)) == set(doubts())
