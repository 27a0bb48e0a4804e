"""Seeds of a study: its runs, one row for each model over its seeds, where labels stand in the picture."""

import numpy as np
import pytest
import yaml

from configs import schema
from configs.load import differences
from configs.load import load as load_config
from eval.report import charts
from eval.report.canvas import FEW
from eval.report.charts import pareto
from eval.report.labels import BESIDE, label_boxes
from eval.report.page import Study, write_page
from eval.report.seeds import over_training_seeds


def load(tmp_path, **tree):
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({"train": {"max_steps": 1}} | tree, sort_keys=False), encoding="utf-8")
    return load_config(path)


RUNS = {
    "teacher": {"seeds": [], "student": {"init": "random", "config": {"n_layer": 1}}, "tokenizer": {"name": "gpt2"}},
    "plain": {"teacher": {"model": "run:teacher"}},
    "after": {"teacher": {"model": "run:teacher"}, "student": {"init": "pretrained", "model": "run:plain"}},
}
RUNS["teacher"] |= {"loss": {"kd_weight": 0, "lm_weight": 1}}


def test_each_run_is_trained_once_a_seed_and_refers_to_the_model_of_its_own(tmp_path):
    whole, runs = load(tmp_path, runs=RUNS, seeds=[0, 7], seed=3)
    assert list(runs) == ["teacher", "plain-seed0", "plain-seed7", "after-seed0", "after-seed7"]
    assert [config.seed for config in runs.values()] == [3, 0, 7, 0, 7]
    assert runs["plain-seed7"].teacher.model == "run:teacher"
    assert runs["after-seed7"].student.model == "run:plain-seed7" and runs["after-seed0"].seed == 0
    assert all("seeds" not in schema.to_dict(config) for config in runs.values())
    assert "seeds" in schema.to_dict(whole)
    some = {name: run | ({"seeds": [4]} if name != "teacher" else {}) for name, run in RUNS.items()}
    assert list(load(tmp_path, runs=some)[1]) == ["teacher", "plain-seed4", "after-seed4"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"seeds": [0, 0]}, "seeds: a seed is named twice"),
        ({"seeds": "all"}, "seeds: must be"),
        ({"seeds": [0], "runs": {}, "teacher": {"model": "x"}}, "seeds: goes with runs"),
        (
            {"seeds": [0], "runs": RUNS | {"late": {"seeds": [], "student": RUNS["after"]["student"]}}},
            "run:plain is not",
        ),
    ],
)
def test_seeds_that_make_no_sense_are_refused(change, says, tmp_path):
    with pytest.raises(schema.ConfigError, match=says):
        load(tmp_path, **({"runs": RUNS} | change))


def test_a_run_from_before_a_setting_existed_is_the_same_at_the_settings_default(tmp_path):
    _, runs = load(tmp_path, teacher={"model": "x"})
    tree = schema.to_dict(runs[""])
    del tree["teacher"]["cache_bytes"]
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    assert differences(path, runs[""]) == []
    runs[""].teacher.cache_bytes = 100
    assert differences(path, runs[""]) == ["teacher.cache_bytes: 150, now 100"]


def row(name: str, fair: float | None, perplexity: float) -> dict:
    def figure(value, ideal=None):
        return {"value": value, "low": 0.0, "high": 9.0, "n": 40, "ideal": ideal}

    tasks = {
        "next_word": {"equitability_avg": figure(fair, 1.0)},
        "perplexity@balanced": {"perplexity": figure(perplexity)},
    }
    return {"model": name, "tasks": tasks}


ROWS = [row("teacher", 0.3, 2.0), row("era-seed0", 0.8, 2.1), row("era-seed1", 0.9, 2.3), row("era-seed2", 0.7, 2.2)]


def test_the_mean_over_seeds_and_its_interval():
    """Three seeds: t(.975, 2) = 4.3027; the standard deviation of .7, .8, .9 is .1."""
    teacher, era = over_training_seeds(ROWS)
    assert teacher == ROWS[0] and era["model"] == "era"
    found = era["tasks"]["next_word"]["equitability_avg"]
    assert found["value"] == pytest.approx(0.8) and found["seeds"] == 3 and found["ideal"] == 1.0
    assert found["high"] - found["value"] == pytest.approx(4.3027 * 0.1 / 3**0.5, rel=1e-4)
    assert found["value"] - found["low"] == pytest.approx(4.3027 * 0.1 / 3**0.5, rel=1e-4)


def test_means_over_three_seeds_are_no_small_counts(tmp_path):
    """Their marks are full, one seed keeps its chart by group, and the page says what their intervals cover."""
    rows = [row(f"{name}-seed{seed}", 0.5 + seed / 10, 2.0) for name in ("plain", "era") for seed in range(3)]
    for number, one in enumerate(rows):
        share = {"value": 0.1 + number / 10, "low": 0.0, "high": 0.9, "n": 40, "ideal": 0.5}
        one["tasks"]["next_word"]["male_share/nurse"] = share
    means = over_training_seeds(rows)
    assert all(figure.get("n", FEW) >= FEW for figure in charts.group_figures(means, "next_word")["nurse"])
    assert list(charts.group_figures(over_training_seeds(rows[:1]), "next_word")) == ["nurse"]
    text = write_page([Study("s", tmp_path, {"rows": means})], tmp_path / "page.html").read_text(encoding="utf-8")
    assert "the intervals of means over training seeds cover the seed" in text


def test_one_seed_has_no_interval_and_undefined_values_are_left_out():
    (one,) = over_training_seeds(ROWS[1:2])
    assert one["tasks"]["next_word"]["equitability_avg"] == {
        "value": 0.8, "low": None, "high": None, "seeds": 1, "ideal": 1.0
    }  # fmt: skip
    (two,) = over_training_seeds([row("a-seed0", None, 2.0), row("a-seed1", 0.5, 2.0)])
    assert two["tasks"]["next_word"]["equitability_avg"]["value"] == 0.5
    (none,) = over_training_seeds([row("a-seed0", None, 2.0)])
    assert none["tasks"]["next_word"]["equitability_avg"]["value"] is None


def test_many_models_are_told_apart_by_the_front(tmp_path):
    """On the page as in report.md: more than there are colours."""
    for number, blue in ((8, True), (7, False)):
        rows = [row("plain", 0.1, 2.0), *(row(f"m{i}", 0.2 + i / 20, 2.0 + i) for i in range(number - 1))]
        text = write_page([Study("s", tmp_path, {"rows": rows})], tmp_path / "page.html").read_text(encoding="utf-8")
        assert ("Blue: no other model beats it in both" in text) is blue


def test_the_front_holds_the_models_that_no_other_beats_in_both():
    assert pareto([(2.0, 0.3), (2.1, 0.9), (2.2, 0.8), (1.9, 0.2), (2.1, 0.5)]) == [3, 0, 1]


@pytest.mark.parametrize("spread", [0.0, 2.0, 40.0])
def test_labels_of_crowded_points_cover_neither_each_other_nor_a_point(spread):
    rng = np.random.default_rng(0)
    spots = np.array([240.0, 200.0]) + spread * rng.standard_normal((18, 2))
    sizes = np.stack([rng.uniform(20, 110, 18), np.full(18, 10.0)], 1)
    edges = np.array([0.0, 0.0, 480.0, 400.0])
    upright = np.array([[239.0, 100.0, 241.0, 300.0]])  # the line of an interval
    boxes = label_boxes(spots, sizes, upright, edges)
    assert boxes[:, 2:] - boxes[:, :2] == pytest.approx(sizes)
    others = [*boxes, *np.concatenate([spots - 4, spots + 4], 1), *upright]
    for i, box in enumerate(boxes):
        assert (box[:2] >= edges[:2]).all() and (box[2:] <= edges[2:]).all()
        assert not [o for k, o in enumerate(others) if k != i and (box[:2] < o[2:]).all() and (o[:2] < box[2:]).all()]


def test_a_label_alone_is_beside_its_point():
    (box,) = label_boxes(
        np.array([[50.0, 50.0]]), np.array([[30.0, 10.0]]), np.empty((0, 4)), np.array([0, 0, 200, 90])
    )
    assert box[0] == 50 + BESIDE and box[1] < 50 < box[3]
    (box,) = label_boxes(
        np.array([[180.0, 50.0]]), np.array([[30.0, 10.0]]), np.empty((0, 4)), np.array([0, 0, 200, 90])
    )
    assert box[2] == 180 - BESIDE  # where the right side is outside
