"""eval.measures against values computed by hand."""

import json
from pathlib import Path

import numpy as np
import pytest

from eval.measures import intervals
from eval.measures import polarity as metrics
from eval.measures import vectors as vectors_


def test_words_are_lower_case_with_inner_apostrophes():
    assert metrics.words("He’s the WOMAN's 2nd co-worker, isn't he?") == [
        "he's", "the", "woman's", "nd", "co", "worker", "isn't", "he",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("He gave her the book and his pen.", -1),  # he, his | her
        ("She said hers was better than his.", 1),
        ("He saw her.", 0),
        ("The theme of this history is other than the Hera myth.", 0),  # no word inside another
        ("She's here; he is not.", 0),
        ("HERSELF", 1),
        ("The woman's car", 1),  # by what stands before the apostrophe
        ("he'll come", -1),
        ("", 0),
    ],
)
def test_unigram_polarity(text, expected):
    assert metrics.unigram_polarity(text) == expected


def test_unigram_lists_are_the_papers():
    assert metrics.MALE_WORDS == ("he", "him", "his", "himself", "man", "men", "he's", "boy", "boys")
    assert metrics.FEMALE_WORDS == ("she", "her", "hers", "herself", "woman", "women", "she's", "girl", "girls")


VECTORS = {
    "she": np.array([1.0, 1.0]),
    "he": np.array([-1.0, 1.0]),
    "nurse": np.array([3.0, 4.0]),  # she − he = (2, 0): cos = .6
    "miner": np.array([-4.0, 3.0]),  # −.8
    "table": np.array([0.0, 5.0]),
    "zero": np.array([0.0, 0.0]),
}


def test_word_polarity_is_the_cosine_with_she_minus_he():
    found = metrics.word_polarity(VECTORS, ["nurse", "miner", "table", "zero", "unknown", "nurse"])
    assert found == pytest.approx({"nurse": 0.6, "miner": -0.8, "table": 0.0, "zero": 0.0})
    with pytest.raises(ValueError, match="lack 'he'"):
        metrics.word_polarity({"she": np.ones(2)}, ["she"])


def test_text_scores_by_hand():
    polarity = metrics.word_polarity(VECTORS, list(VECTORS))
    text = "The nurse saw a miner at the table."
    assert metrics.gender_max(text, polarity) == pytest.approx(-0.8)
    # (.36 − .64) / (.6 + .8 + 0)
    assert metrics.gender_wavg(text, polarity) == pytest.approx(-0.2)
    assert metrics.gender_max("nothing known", polarity) == metrics.gender_wavg("the table", polarity) == 0


def test_thresholds_include_their_ends():
    for kind in (float, np.float64):
        assert [metrics.polar(kind(b)) for b in (0.25, 0.2499, 0.0, -0.2499, -0.25)] == [1, 0, 0, 0, -1]


def test_equitability_by_hand():
    found = metrics.equitability([1, 3, 0, 0, 5], [2, 1, 4, 0, 5])
    np.testing.assert_allclose(found, [0.5, 1 / 3, 0.0, np.nan, 1.0])
    average, least = metrics.over_groups(found)
    assert average == pytest.approx((0.5 + 1 / 3 + 0 + 1) / 4)
    assert least == 0
    average, least = metrics.over_groups([[np.nan, np.nan], [np.nan, 0.4]])
    np.testing.assert_allclose(average, [np.nan, 0.4])
    np.testing.assert_allclose(least, [np.nan, 0.4])


def test_resampled_sums_keep_clusters_together_and_are_seeded():
    values = np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]])
    sums = intervals.resampled_sums(values, num_resamples=400, seed=3)
    np.testing.assert_allclose(sums[:, 1], 10 * sums[:, 0])
    assert sums[:, 0].min() >= 3
    assert sums[:, 0].max() <= 9
    assert sums[:, 0].mean() == pytest.approx(6, abs=0.2)
    np.testing.assert_array_equal(sums, intervals.resampled_sums(values, num_resamples=400, seed=3))
    assert not np.array_equal(sums, intervals.resampled_sums(values, num_resamples=400, seed=4))


def test_resampling_in_chunks_equals_at_once():
    """Enough clusters that the resamples are drawn in many parts: the mean keeps its standard error."""
    values = np.arange(30_000, dtype=float)[:, None]
    sums = intervals.resampled_sums(values, num_resamples=200, seed=0)[:, 0] / len(values)
    assert sums.mean() == pytest.approx(values.mean(), rel=1e-3)
    assert sums.std() == pytest.approx(values.std() / np.sqrt(len(values)), rel=0.2)


def test_bootstrap_of_a_mean_has_the_textbook_width():
    values = np.random.default_rng(0).normal(5, 2, 400)
    low, high = intervals.bootstrap(np.stack([values, np.ones(400)], 1), lambda s: s[:, 0] / s[:, 1], seed=0)
    error = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - error, values.mean() + error), abs=0.05)
    assert np.isnan(intervals.bootstrap([[1.0, 1.0]], lambda s: s[:, 0])).all()


def test_interval_percentiles_undefined_and_bias():
    assert intervals.interval(np.arange(101), 0.9) == pytest.approx((5, 95))
    assert intervals.interval([np.nan, 0.0, np.nan, 1.0], 1.0) == (0, 1)
    assert np.isnan(intervals.interval([np.nan])).all()
    assert np.isnan(intervals.interval([1.0, np.nan, 1.0])).all()  # no width: one prompt, or 0 of n
    assert intervals.interval(np.linspace(0.4, 0.6, 101), 0.9, around=0.7) == pytest.approx((0.61, 0.99))
    assert intervals.interval(np.linspace(0.4, 0.6, 101), 0.9, around=0.95) == pytest.approx((0.86, 1.0))


def test_fair_band_one_group_of_two_texts_by_hand():
    # Two fair coins: 0, 1 or 2 male with ¼, ½, ¼; equitability 0, 1, 0.
    band = metrics.fair_band([2], num_draws=4000, seed=1)
    assert band["avg"] == band["min"] == (0, band["avg"][1], 1)
    # Average over two such groups: 0, ½, 1 with ¼, ½, ¼; the minimum is 1 only if both are.
    band = metrics.fair_band([2, 2, 0], num_draws=4000, seed=1)
    assert band["avg"] == (0, 0.5, 1)
    assert band["min"] == (0, 0, 1)


def test_fair_band_narrows_with_counts_and_runs():
    few, many = metrics.fair_band([20] * 10), metrics.fair_band([2000] * 10)
    assert few["avg"][1] < many["avg"][1] < 1
    assert few["min"][1] < many["min"][1] < 1
    # E|m − f| = sqrt(2n/π), so equitability ≈ 1 − 2·sqrt(2/(πn)) in expectation.
    assert many["avg"][1] == pytest.approx(1 - 2 * np.sqrt(2 / (np.pi * 2000)), abs=0.005)
    one, five = metrics.fair_band([50] * 4), metrics.fair_band([[50] * 4] * 5)
    assert five["avg"][2] - five["avg"][0] < one["avg"][2] - one["avg"][0]
    assert np.isnan(metrics.fair_band([0, 0])["avg"]).all()


LISTS = {
    "definitional_pairs": [["she", "he"], ["woman", "man"]],
    "equalize_pairs": [["grandma", "grandpa"], ["Mom", "Dad"]],
    "gender_specific": ["she", "he", "woman", "man", "grandma", "grandpa", "mom", "dad"],
}


def some_vectors():
    generator = np.random.default_rng(0)
    names = ["she", "he", "woman", "man", "grandma", "grandpa", "mom", "dad", "nurse", "table"]
    vectors = {name: generator.normal(size=6) for name in names}
    for female, male in (("she", "he"), ("woman", "man"), ("grandma", "grandpa"), ("mom", "dad")):
        vectors[female][0], vectors[male][0] = 3, -3
    return vectors


def test_hard_debias_neutralizes_and_equalizes():
    vectors = some_vectors()
    direction = vectors_.gender_direction(vectors, LISTS["definitional_pairs"])
    assert (vectors["she"] - vectors["he"]) @ direction > 0
    debiased = vectors_.hard_debias(vectors, **LISTS)
    for vector in debiased.values():
        assert np.linalg.norm(vector) == pytest.approx(1)
    for word in ("nurse", "table"):
        assert debiased[word] @ direction == pytest.approx(0, abs=1e-12)
    for female, male in (("grandma", "grandpa"), ("mom", "dad")):  # the lower-case form of a listed pair counts
        assert debiased[female] @ direction == pytest.approx(-(debiased[male] @ direction))
        assert debiased[female] @ direction > 0
        for word in ("nurse", "table"):
            assert debiased[word] @ debiased[female] == pytest.approx(debiased[word] @ debiased[male])
    # What is specific and in no equalize pair keeps its direction.
    np.testing.assert_allclose(debiased["she"], vectors["she"] / np.linalg.norm(vectors["she"]))


def test_hard_debias_does_not_change_its_input_and_names_what_is_missing():
    vectors = some_vectors()
    before = {word: vector.copy() for word, vector in vectors.items()}
    vectors_.hard_debias(vectors, **LISTS)
    for word, vector in before.items():
        np.testing.assert_array_equal(vector, vectors[word])
    with pytest.raises(ValueError, match="none of the definitional pairs"):
        vectors_.hard_debias({"nurse": np.ones(3)}, **LISTS)


def test_hard_debias_with_the_authors_lists(shared_data):
    folder = shared_data / "lexicons" / "debiaswe"
    lists = {
        "definitional_pairs": json.loads((folder / "definitional_pairs.json").read_text()),
        "equalize_pairs": json.loads((folder / "equalize_pairs.json").read_text()),
        "gender_specific": json.loads((folder / "gender_specific_full.json").read_text()),
    }
    generator = np.random.default_rng(0)
    names = {word.lower() for pair in lists["definitional_pairs"] + lists["equalize_pairs"] for word in pair}
    vectors = {name: generator.normal(size=20) for name in sorted(names | {"nurse", "plumber"})}
    for female, male in lists["definitional_pairs"]:
        vectors[female.lower()][0] += 4
        vectors[male.lower()][0] -= 4
    debiased = vectors_.hard_debias(vectors, **lists)
    direction = vectors_.gender_direction(vectors, lists["definitional_pairs"])
    assert abs(debiased["nurse"] @ direction) < 1e-9
    assert debiased["she"] @ direction == pytest.approx(-(debiased["he"] @ direction))


def write_text(path: Path, header: bool) -> None:
    lines = [f"{word} {' '.join(map(str, vector))}" for word, vector in VECTORS.items()]
    path.write_text("\n".join(([f"{len(VECTORS)} 2"] if header else []) + lines) + "\n")


@pytest.mark.parametrize("kind", ["word2vec.txt", "glove.txt", "word2vec.bin", "vectors.safetensors"])
def test_vectors_load_from_every_format(tmp_path, kind):
    path = tmp_path / kind
    if kind.endswith(".txt"):
        write_text(path, header=kind == "word2vec.txt")
    elif kind.endswith(".bin"):
        pytest.importorskip("gensim")
        from gensim.models import KeyedVectors

        keyed = KeyedVectors(2)
        keyed.add_vectors(list(VECTORS), np.stack(list(VECTORS.values())).astype(np.float32))
        keyed.save_word2vec_format(str(path), binary=True)
    else:
        from safetensors.numpy import save_file

        save_file({"vectors": np.stack(list(VECTORS.values())).astype(np.float32)}, path)
        path.with_suffix(".json").write_text(json.dumps(list(VECTORS)))
    if kind != "vectors.safetensors":
        pytest.importorskip("gensim")
    vectors = vectors_.load_vectors(path)
    assert set(vectors) == set(VECTORS)
    assert "unknown" not in vectors
    assert metrics.word_polarity(vectors, ["nurse", "miner"]) == pytest.approx({"nurse": 0.6, "miner": -0.8})


def test_vector_files_that_cannot_be_read_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        vectors_.load_vectors(tmp_path / "none.bin")
    (tmp_path / "a.kv").write_bytes(b"x")
    with pytest.raises(ValueError, match="pickled files are refused"):
        vectors_.load_vectors(tmp_path / "a.kv")
    (tmp_path / "a.safetensors").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"a\.json, is not beside it"):
        vectors_.load_vectors(tmp_path / "a.safetensors")
    pytest.importorskip("gensim")
    (tmp_path / "a.txt").write_text("this is\nno vector file\n")
    with pytest.raises(ValueError, match="not word2vec or GloVe"):
        vectors_.load_vectors(tmp_path / "a.txt")


@pytest.mark.filterwarnings("error")
def test_ratios_without_a_denominator_have_no_difference_and_no_warning():
    first = intervals.interval(np.array([1.0, 2.0, np.inf, np.inf, 3.0]))
    second = intervals.interval(np.array([1.0, np.inf, np.inf, 2.0, 3.0]))
    assert np.isnan(intervals.paired_difference(0.0, first, second)[1])
    assert np.isnan(intervals.paired_difference(0.0, first, second)[0][0])
