"""eval.report.correlate against SciPy and small sets solved by hand."""

import itertools
import json

import numpy as np
import pytest
import scipy.stats

from eval.__main__ import main
from eval.measures.intervals import pearson, spearman
from eval.report import correlate


def results(**columns):
    """Rows of models m0, m1, …, each keyword a measure TASK__METRIC of (values, ideal)."""
    number = max(len(values) for values, _ in columns.values())
    rows = [{"model": f"m{i}", "tasks": {}} for i in range(number)]
    for name, (values, ideal) in columns.items():
        task, metric = name.split("__")
        for row, value in zip(rows, values):
            row["tasks"].setdefault(task, {})[metric] = {"value": value, "ideal": ideal, "low": None, "high": None}
    return rows


ROWS = results(
    seat__mean_abs_effect=([0.1, 0.3, 0.2, 0.5, 0.4], 0.0),
    bios__tprd=([0.10, 0.12, 0.15, 0.20, 0.16], 0.0),
    bios__accuracy=([0.9, 0.8, 0.7, 0.6, 0.65], 1.0),
    perplexity__perplexity=([50.0, 40.0, None, 20.0, 10.0], None),
)


def test_coefficients_equal_scipys():
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(2, 12))
    y[3] = y[4] = y[5]  # ties
    assert pearson(x, y) == pytest.approx(scipy.stats.pearsonr(x, y).statistic)
    assert spearman(x, y) == pytest.approx(scipy.stats.spearmanr(x, y).statistic)
    np.testing.assert_allclose(pearson(np.stack([x, -x]), y), np.array([1, -1]) * pearson(x, y))
    assert np.isnan(pearson([0.1] * 3, [1, 2, 3]))


def test_p_is_over_all_orders_of_few_models():
    x, y = [1.0, 2.0, 3.0, 5.0], [1.0, 3.0, 2.0, 9.0]
    found = correlate.correlation(x, y, "pearson")
    r = [abs(scipy.stats.pearsonr(x, order).statistic) for order in itertools.permutations(y)]
    assert found["p"] == pytest.approx(np.mean([value >= r[0] - 1e-9 for value in r]))
    assert found["n"] == 4
    assert correlate.correlation([1, 2, 3], [2, 4, 6], "spearman")["p"] == pytest.approx(
        2 / 6
    )  # 3 models prove nothing


def test_interval_and_p_of_many_models():
    generator = np.random.default_rng(1)
    x = generator.normal(size=60)
    y = 0.6 * x + 0.8 * generator.normal(size=60)
    found = correlate.correlation(x, y, "pearson")
    low, high = scipy.stats.pearsonr(x, y).confidence_interval()
    assert (found["low"], found["high"]) == pytest.approx((low, high), abs=0.06)
    assert found["p"] == pytest.approx(1e-4)
    unrelated = correlate.correlation(x, generator.normal(size=60), "spearman")
    assert unrelated["low"] < 0 < unrelated["high"] and unrelated["p"] > 0.02
    assert found == correlate.correlation(x, y, "pearson")


def test_measures_count_by_their_distance_from_the_ideal():
    np.testing.assert_allclose(correlate.column(ROWS, ("bios", "accuracy")), [0.1, 0.2, 0.3, 0.4, 0.35])
    assert np.isnan(correlate.column(ROWS, ("perplexity", "perplexity"))[2])
    result = correlate.correlate(ROWS)
    assert [measure["name"] for measure in result["measures"]] == [
        "seat.mean_abs_effect", "bios.tprd", "bios.accuracy", "perplexity.perplexity",
    ]  # fmt: skip
    pair = next(p for p in result["pairs"] if (p["a"], p["b"]) == ("seat.mean_abs_effect", "bios.tprd"))
    assert pair["pearson"]["value"] == pytest.approx(
        scipy.stats.pearsonr([0.1, 0.3, 0.2, 0.5, 0.4], [0.10, 0.12, 0.15, 0.20, 0.16]).statistic
    )
    # ranks 1 3 2 5 4 and 1 2 3 5 4: one pair of neighbours exchanged, 1 − 6·2/(5·24)
    assert pair["spearman"]["value"] == pytest.approx(0.9)
    by_utility = [p for p in result["pairs"] if p["b"] == "perplexity.perplexity"]
    assert {p["pearson"]["n"] for p in by_utility} == {4}
    assert len(result["pairs"]) == 6


def test_groups_correlate_by_their_side(tmp_path):
    """Nurses .1 and guards .9 are as far from ½, but on other sides; what only one task has is left out."""
    next_word = {"nurse": 0.1, "guard": 0.9, "cook": 0.5, "king": 0.7}
    texts = {"nurse": 0.2, "guard": 0.8, "cook": 0.6, "story": 0.4}

    def tasks(shares):
        return {f"male_share/{group}": {"value": value, "ideal": 0.5} for group, value in shares.items()}

    row = {"model": "m", "tasks": {"next_word": tasks(next_word), "stories": tasks(texts)}}
    (tmp_path / "results.json").write_text(json.dumps({"rows": [row]}))
    named = ["--by_group", "--measures", "next_word.male_share,stories.male_share"]
    assert main(["correlate", str(tmp_path / "results.json"), *named, "--output_dir", str(tmp_path / "out")]) == 0
    found = json.loads((tmp_path / "out" / "correlations.json").read_text())
    assert found["models"] == ["m: nurse", "m: guard", "m: cook"]
    r = scipy.stats.pearsonr([0.1, 0.9, 0.5], [0.2, 0.8, 0.6]).statistic
    assert found["pairs"][0]["pearson"]["value"] == pytest.approx(r) and found["pairs"][0]["pearson"]["n"] == 3
    assert "3 groups: m: nurse" in (tmp_path / "out" / "correlations.md").read_text()


def test_few_models_or_measures_are_refused():
    with pytest.raises(ValueError, match=r"2 models \(m0, m1\): a correlation needs 3 or more"):
        correlate.correlate(ROWS[:2])
    with pytest.raises(ValueError, match=r"did you mean bios\.tprd"):
        correlate.correlate(ROWS, measures=["bios.tprf"])
    with pytest.raises(ValueError, match="needs two measures that 3 models or more have; found 1"):
        correlate.correlate(results(seat__mean_abs_effect=([1, 2, 3], 0.0), bios__tprd=([1, 2], 0.0)))
    with pytest.raises(ValueError, match="found 1"):  # the same for every model
        correlate.correlate(results(seat__mean_abs_effect=([1, 2, 3], 0.0), bios__tprd=([2, 2, 2], 0.0)))


def test_from_files_to_a_report(tmp_path, capsys):
    (tmp_path / "all.json").write_text(json.dumps({"rows": ROWS[:4]}))
    (tmp_path / "one.json").write_text(json.dumps(ROWS[4]))
    out = tmp_path / "out"
    assert main(["correlate", str(tmp_path / "all.json"), str(tmp_path / "one.json"), "--output_dir", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["correlations.json", "correlations.md", "correlations.png"]
    text = (out / "correlations.md").read_text()
    assert "5 models: m0, m1, m2, m3, m4." in text
    assert text.index("## Intrinsic against extrinsic") < text.index("## Other pairs")
    assert "| seat mean abs effect | bios tprd | 5 |" in text
    assert json.loads((out / "correlations.json").read_text())["models"] == ["m0", "m1", "m2", "m3", "m4"]
    assert (out / "correlations.png").read_bytes()[:4] == b"\x89PNG"
    assert capsys.readouterr().out.startswith("# Do the measures agree?")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a results file"),
        ("[]", "not a results file"),
        (json.dumps({"rows": ROWS[:2]}), "2 models"),
        (json.dumps({"rows": [ROWS[0], {**ROWS[1], "model": "m0"}]}), "m0 has another seat.mean_abs_effect than"),
    ],
)
def test_refusals_are_one_line(content, message, tmp_path, capsys):
    (tmp_path / "results.json").write_text(content)
    assert main(["correlate", str(tmp_path / "results.json"), "--output_dir", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert not (tmp_path / "out").exists()
