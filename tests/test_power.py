"""How many rows a claim needs, answers that flip, and axes that were not treated."""

import numpy as np
import pytest
from test_gate import cases, measured

from eval.audit.flips import flips
from eval.audit.judge import PASS, judge
from eval.audit.power import plan
from eval.audit.rules import Rule
from eval.audit.spill_over import spill_over, statement


def rows_in(line: str) -> int:
    return int(line.split(": ")[1].split()[0].replace(",", ""))


def test_a_plan_by_hand():
    """Standard deviation .2, margin .05, unpaired: (√2 · .2 · (1.96 + .84) / .05)² = 251 rows."""
    values = np.tile([0.6, 1.0], 50)
    line = plan([Rule("agreement.agreement", "worse_by", 0.05)], measured("a", {"agreement": cases(values)}), None)[0]
    assert rows_in(line) == pytest.approx(251, rel=0.1)


def test_a_planned_number_of_rows_gives_the_planned_power():
    """Differences of sd .1 between paired models: so many rows pass a margin of .02 four times in five."""
    rng = np.random.default_rng(0)

    def pair(n):
        first = rng.normal(0.7, 0.3, n)
        return [
            measured(x, {"agreement": cases(first + noise)}) for x, noise in (("a", 0), ("b", rng.normal(0, 0.1, n)))
        ]

    rule = [Rule("agreement.agreement", "worse_by", 0.02)]
    n = rows_in(plan(rule, *pair(400))[0])
    assert n == pytest.approx((0.1 * 2.8 / 0.02) ** 2, rel=0.15)
    passed = sum(judge(rule, *pair(n))[0].verdict == PASS for _ in range(100))
    assert 65 <= passed <= 92


def test_more_texts_a_prompt_need_fewer_prompts():
    """Prompts that differ little: four times the texts, nearly a quarter of the prompts."""
    rng = np.random.default_rng(1)
    rows = [
        {"group": "g", "prompt_number": prompt, "run": 0, "unigram": -1 if male else 1}
        for prompt in range(200)
        for male in rng.random(8) < 0.5
    ]
    model = measured("a", {"bold": rows})
    line = plan([Rule("bold.male_share", "each_group", 0.8)], model, model)[0]
    counts = [tuple(map(int, part.split()[0::3])) for part in line.split("; ")[1].replace(",", "").split(" or ")]
    assert [texts for _, texts in counts] == [2, 8, 32]
    assert counts[0][0] > 2.5 * counts[1][0] and counts[1][0] > 2 * counts[2][0]


def test_flips_are_counted_by_direction():
    def model(name, shares):
        return measured(name, {"next_word": [{"group": "g", "p_male": p, "p_female": 1 - p} for p in shares]})

    found = flips(model("a", [0.9] * 6 + [0.1] * 4), model("b", [0.9] * 5 + [0.1] + [0.9] * 2 + [0.1] * 2))
    assert len(found) == 1 and (found[0].n, found[0].share) == (10, 0.3)
    assert found[0].moves == {"female → male": 2, "male → female": 1}
    assert found[0].low < 0.3 < found[0].high


def test_untreated_axes_are_judged_jointly():
    """Race turns from 50 % to 90 %, religion and age stay; gender, which was treated, is left out."""

    def model(name, race):
        rng = np.random.default_rng(2)  # the other axes: the same rows with noise of their own
        shares = {"gender": 0.9 if name == "b" else 0.5, "race-color": race, "religion": 0.6, "age": 0.4}
        rows = [
            {
                "bias_type": axis,
                "stereo_antistereo": "stereo",
                "logp_more": float(i < share * 80) + noise,
                "logp_less": 0.5,
            }
            for axis, share in shares.items()
            for i, noise in enumerate(rng.normal(0, 0.3, 80) * (name == "b"))
        ]
        return measured(name, {"crows_pairs": rows})

    found = spill_over(model("a", 0.5), model("b", 0.9))
    assert {change.axis: change.changed for change in found} == {"race-color": True, "religion": False, "age": False}
    p = sorted(change.p for change in found)
    assert min(change.adjusted_p for change in found) == pytest.approx(min(3 * p[0], 1.5 * p[1], p[2]))
    assert "1 changed" in statement(found) and "race-color" in statement(found)
    assert spill_over(model("a", 0.5), model("a", 0.5)) and "none changed" in statement(
        spill_over(model("a", 0.5), model("a", 0.5))
    )
    assert "No untreated axis" in statement([])


def test_equal_models_seldom_spill_over():
    """30 pairs of samples over 5 axes: the joint statement names a change in about 5 % of them."""
    rng, named = np.random.default_rng(3), 0
    for _ in range(30):
        a, b = (
            measured(
                name,
                {
                    "crows_pairs": [
                        {"bias_type": axis, "stereo_antistereo": "stereo", "logp_more": x, "logp_less": 0.5}
                        for axis in "vwxyz"
                        for x in rng.random(30)
                    ]
                },
            )
            for name in "ab"
        )
        named += any(change.changed for change in spill_over(a, b))
    assert named <= 5
