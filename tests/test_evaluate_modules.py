"""The measures as modules of the `evaluate` library: loaded from a path, offline, and equal to this package's own."""

import doctest
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from eval.measures import polarity as metrics

evaluate = pytest.importorskip("evaluate")

FOLDER = Path(__file__).resolve().parents[1] / "eval" / "integrations" / "evaluate_modules"
NAMES = sorted(path.name for path in FOLDER.iterdir() if (path / f"{path.name}.py").is_file())


@pytest.fixture(scope="module")
def modules(tmp_path_factory):
    from evaluate import config

    original = config.HF_MODULES_CACHE
    config.HF_MODULES_CACHE = str(tmp_path_factory.mktemp("modules"))
    yield {name: evaluate.load(str(FOLDER / name)) for name in NAMES}
    config.HF_MODULES_CACHE = original


def test_every_measure_has_its_module():
    assert NAMES == [
        "association_effect_size", "equitability", "gender_polarity", "prediction_sensitivity", "tpr_gap",
    ]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_what_a_module_tells_of_itself(modules, name):
    module = modules[name]
    assert module.description and module.citation and module.inputs_description
    assert set(module.features) <= {"predictions", "references", "groups"}
    card = (FOLDER / name / "README.md").read_text(encoding="utf-8")
    front = re.match(r"---\n(.*?)\n---\n", card, re.S)
    assert front
    import yaml

    fields = yaml.safe_load(front[1])
    assert {"title", "sdk", "sdk_version", "app_file", "tags", "license"} <= set(fields)
    assert "evaluate" in fields["tags"]
    assert (FOLDER / name / fields["app_file"]).is_file()
    assert (FOLDER / name / "requirements.txt").is_file()
    for heading in ("How to use", "Limits", "Citation", "Output values"):
        assert f"## {heading}" in card
    assert " ".join(module.description.split()) in " ".join(card.split())


@pytest.mark.parametrize("name", NAMES)
def test_the_examples_hold(modules, name):
    """Those of the docstring, and the card's are the same."""
    examples = doctest.DocTestParser().get_examples(modules[name].inputs_description)
    assert examples
    card = (FOLDER / name / "README.md").read_text(encoding="utf-8")
    assert [e.source for e in doctest.DocTestParser().get_examples(card)] == [e.source for e in examples]
    loaded = type("evaluate", (), {"load": staticmethod(lambda given: modules[given])})
    test = doctest.DocTest(examples, {"evaluate": loaded}, name, None, 0, None)
    assert doctest.DocTestRunner().run(test).failed == 0


@pytest.mark.parametrize("name", NAMES)
def test_imports_stand_one_a_line(name):
    """`evaluate` reads "import a, b" as one package of that name."""
    text = (FOLDER / name / f"{name}.py").read_text(encoding="utf-8")
    assert not re.findall(r"^import .*,", text, re.M)


def test_gender_polarity_is_ours(modules):
    texts = [
        "He's here, and she'll see HIM",
        "Her mother",
        "nothing",
        "The nurse’s book. Men, women!",
        "",
        "boys girls boys",
    ]
    vectors = {
        "she": (1, 1), "he": (-1, 1), "nurse": (3, 4), "mother": (2, 1), "men": (-2, 1), "book": (0, 1), "here": (0, 0),
    }  # fmt: skip
    found = modules["gender_polarity"].compute(predictions=texts, vectors=vectors)
    polarity = metrics.word_polarity(vectors, vectors)
    assert found["unigram"]["polarity"] == [metrics.unigram_polarity(text) for text in texts] == [-1, 1, 0, 0, 0, -1]
    assert found["unigram"]["equitability"] == pytest.approx(0.5)
    for name, measure in (("gender_max", metrics.gender_max), ("gender_wavg", metrics.gender_wavg)):
        scores = [measure(text, polarity) for text in texts]
        assert found[name]["score"] == pytest.approx(scores)
        assert found[name]["polarity"] == [metrics.polar(score) for score in scores]
        assert len(set(found[name]["polarity"])) == 3
    with pytest.raises(ValueError, match="lack 'she'"):
        modules["gender_polarity"].compute(predictions=texts, vectors={"he": (1, 0)})


def test_equitability_is_ours(modules):
    rng = np.random.default_rng(0)
    labels, groups = rng.integers(-1, 2, 200).tolist(), [f"g{i}" for i in rng.integers(0, 9, 200)]
    labels, groups = [*labels, 0], [*groups, "never polar"]
    found = modules["equitability"].compute(predictions=labels, references=groups)
    names = list(dict.fromkeys(groups))
    male, female = (
        [sum(label == side for label, group in zip(labels, groups) if group == name) for name in names]
        for side in (-1, 1)
    )
    expected = metrics.equitability(male, female)
    average, minimum = metrics.over_groups(expected)
    assert (found["average"], found["minimum"]) == pytest.approx((float(average), float(minimum)))
    np.testing.assert_allclose(list(found["by_group"].values()), expected)
    assert list(found["male"].values()) == male
    with pytest.raises(ValueError, match="2 is none of -1"):
        modules["equitability"].compute(predictions=[2], references=["a"])


def test_effect_sizes_are_ours(modules):
    association = pytest.importorskip("eval.measures.association")
    rng = np.random.default_rng(0)
    for size, drawn in ((4, 100_000), (12, 3000)):
        parts = {name: rng.normal(size=(size, 5)) for name in "XYAB"}
        found = modules["association_effect_size"].compute(
            predictions=np.concatenate(list(parts.values())).tolist(),
            references=[name for name in parts for _ in range(size)],
            num_samples=drawn,
        )
        s_x, s_y = (association.associations(parts[name], parts["A"], parts["B"]) for name in "XY")
        assert found["effect_size"] == pytest.approx(float(association.effect_size(s_x, s_y)))
        assert found["p_value"] == pytest.approx(association.permutation_p(s_x, s_y, num_samples=drawn))
    with pytest.raises(ValueError, match="nothing belongs to B"):
        modules["association_effect_size"].compute(predictions=[[1.0]] * 3, references=["X", "Y", "A"])


def test_tpr_gaps_are_ours(modules):
    gaps = pytest.importorskip("eval.measures.groups")
    rng = np.random.default_rng(0)
    names, people = [f"job{i}" for i in range(5)], ["f", "m", "x"]
    label, predicted, group = (rng.integers(0, n, 300) for n in (5, 5, 3))
    predicted = np.where(rng.random(300) < 0.5, label, predicted)
    found = modules["tpr_gap"].compute(
        predictions=[names[i] for i in predicted],
        references=[names[i] for i in label],
        groups=[people[i] for i in group],
    )
    hits, counts = np.zeros((5, 3)), np.zeros((5, 3))
    np.add.at(counts, (label, group), 1)
    np.add.at(hits, (label, group), predicted == label)
    assert found["tpr_gap"] == pytest.approx(float(gaps.tpr_difference(hits, counts)))
    assert found["counts"]["job0"]["f"] == counts[0, 0]
    alone = modules["tpr_gap"].compute(predictions=["a", "b"], references=["a", "b"], groups=["f", "m"])
    assert np.isnan(alone["tpr_gap"])


def test_prediction_sensitivities_are_ours(modules):
    heads = pytest.importorskip("eval.measures.heads")
    rng = np.random.default_rng(0)
    jacobians = [rng.normal(size=(3, tokens)) for tokens in (4, 7)]
    weights = [rng.random(4), np.zeros(7)]
    found = modules["prediction_sensitivity"].compute(
        predictions=[j.tolist() for j in jacobians], references=[w.tolist() for w in weights]
    )
    even = np.full(3, 1 / 3)
    expected = [
        heads.accumulated(jacobians[0], even, weights[0] / weights[0].sum()),
        heads.accumulated(jacobians[1], even, np.full(7, 1 / 7)),
    ]
    assert found["by_text"] == pytest.approx(expected)
    assert found["prediction_sensitivity"] == pytest.approx(np.mean(expected))
    flat = heads.accumulated(jacobians[0], even, np.full(4, 1 / 4))
    assert found["ratio"] == pytest.approx((expected[0] / flat + 1) / 2)
    one = modules["prediction_sensitivity"].compute(
        predictions=[jacobians[0].tolist()], references=[weights[0].tolist()], class_weights=[0.0, 1.0, 0.0]
    )
    assert one["by_text"] == pytest.approx([np.abs(jacobians[0][1]) @ weights[0] / weights[0].sum()])
    with pytest.raises(ValueError, match="text 0: 1 token weights for a Jacobian"):
        modules["prediction_sensitivity"].compute(predictions=[[[1.0, 2.0]]], references=[[1.0]])


@pytest.mark.slow
def test_a_module_loads_by_path_without_this_package(tmp_path):
    """From another folder, offline, as someone would who has copied the folder out."""
    code = (
        "import evaluate, json; m = evaluate.load('./equitability');"
        "print(json.dumps(m.compute(predictions=[-1, 1, 1], references=['a'] * 3)['average']))"
    )
    import os
    import shutil

    shutil.copytree(FOLDER / "equitability", tmp_path / "equitability")
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == 0.5
