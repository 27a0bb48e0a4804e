"""Classification tasks: tables, splits, scrubbing, figures by hand, and all of it end to end on a tiny model."""

import gzip
import json
import math
from collections import Counter

import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score
from test_gaps import plain_tprd

from eval.data import read_table
from eval.measures import classification as shared
from eval.model import Scorer
from eval.report.table import shown
from eval.run import evaluate
from eval.tasks import TASKS, bios, classify, hatexplain, sst2

QUICK = {"epochs": 3, "max_tokens": 16}
SHE = ["She works as a nurse and likes her kitchen.", "The woman said that she saw the queen."]
HE = ["He works as a cook and likes his kitchen.", "The man said that he saw the king."]


def options(task, **given):
    return {**TASKS[task].options, **QUICK, **given}


@pytest.fixture
def data(tmp_path):
    """40 labelled texts as one file, the same as a folder of tsv files, biographies, and HateXplain's table."""
    rows = [
        {"text": text, "label": label, "who": who}
        for label, endings in (("good", ("well", "fine")), ("bad", ("ill", "late")))
        for ending in endings
        for who, texts in (("f", SHE), ("m", HE))
        for text in texts * 5
        for text in [f"{text} It went {ending}."]
    ]
    write(tmp_path / "classify.jsonl", rows)
    (tmp_path / "sst2").mkdir()
    for name, part in (("train", rows[::2]), ("dev", rows[1::4]), ("test", rows[3::4])):
        lines = ["sentence\tlabel", *(f'{row["text"]} "quoted\t{int(row["label"] == "good")}' for row in part)]
        (tmp_path / "sst2" / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    people = [
        {"id": f"{i}{gender}", "occupation": job, "gender": gender, "text": f"X. Y. (born Z. 1) is a {job}. {text}"}
        for job in ("nurse", "cook")
        for gender, texts in (("f", SHE), ("m", HE))
        for i, text in enumerate(texts * 6)
    ]
    (tmp_path / "wiki_bios.jsonl.gz").write_bytes(gzip.compress("".join(json.dumps(p) + "\n" for p in people).encode()))
    (tmp_path / "hatexplain").mkdir()
    lines = ["text,rationale_pos,label,label_gender,label_religion,label_race,label_economic,label_minority"]
    lines += [f'"{row["text"]}",x,{i % 3},{i % 2},0,{(i // 2) % 2},0,0' for i, row in enumerate(rows)]
    (tmp_path / "hatexplain" / "preprocessed.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


# reading


def test_tables(tmp_path):
    (tmp_path / "a.csv").write_text('text,label\n"one, two",x\n')
    (tmp_path / "a.tsv").write_text('text\tlabel\n"one, two\tx\n')
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"text": "one", "label": 1}\n'))
    assert read_table(tmp_path / "a.csv", ["text"]) == [{"text": "one, two", "label": "x"}]
    assert read_table(tmp_path / "a.tsv", ["text"]) == [{"text": '"one, two', "label": "x"}]
    assert read_table(tmp_path / "a.jsonl.gz", ["text"]) == [{"text": "one", "label": 1}]
    with pytest.raises(ValueError, match=r"lacks the field 'group' \(its first line names text, label\)"):
        read_table(tmp_path / "a.csv", ["group"])
    (tmp_path / "b.csv").write_text("text,label\none\n")
    with pytest.raises(ValueError, match="line 2: has fewer fields"):
        read_table(tmp_path / "b.csv", ["label"])
    with pytest.raises(ValueError, match="cannot read this kind of file"):
        read_table(tmp_path / "b.xls", [])


def test_a_folder_is_its_splits(data):
    found = shared.find_tables(data, "sst2", "what")
    assert {split: path.name for split, path in found.items()} == {
        "train": "train.tsv", "dev": "dev.tsv", "test": "test.tsv",
    }  # fmt: skip
    (data / "sst2" / "test.tsv").unlink()
    assert shared.find_tables(data, "sst2", "what")["test"].name == "dev.tsv"
    (data / "sst2" / "train.tsv").unlink()
    with pytest.raises(ValueError, match=r"train\.jsonl is missing: what"):
        shared.find_tables(data, "sst2", "what")


def test_every_label_is_split_alike():
    labels = ["a"] * 200 + ["b"] * 40
    parts = shared.split(labels, 1)
    assert Counter(zip(labels, parts)) == {
        ("a", "train"): 130, ("a", "dev"): 20, ("a", "test"): 50,
        ("b", "train"): 26, ("b", "dev"): 4, ("b", "test"): 10,
    }  # fmt: skip
    assert parts == shared.split(labels, 1) != shared.split(labels, 2)


def test_limit_and_train_texts(data):
    rows = classify.load(data, options("classify"), None, 0)
    assert Counter(row["split"] for row in rows) == {"train": 52, "dev": 8, "test": 20}
    rows = classify.load(data, options("classify", train_texts=20), 3, 0)
    assert Counter(row["split"] for row in rows) == {"train": 20, "test": 3}
    write(data / "one.jsonl", [{"text": "a", "label": 1}] * 20)
    with pytest.raises(ValueError, match="one label only"):
        classify.load(data, options("classify", file="one.jsonl"), None, 0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epochs": 0}, "classify.epochs 0: must be at least 1"),
        ({"lr": 0.0}, "classify.lr 0.0: must be more than 0"),
        ({"sensitivity": -1}, "classify.sensitivity -1"),
        ({"sensitivity_classes": "all"}, "must be predicted or uniform"),
        ({"protected_weights": "all"}, "must be gradient or attention"),
        ({"group_field": "sex"}, "lacks the field 'sex'"),
        ({"lexicon": "none"}, "none"),
    ],
)
def test_settings_are_refused(data, given, message):
    with pytest.raises(ValueError, match=message):
        classify.load(data, options("classify", **given), None, 0)


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("J. R. Smith (born May 1, 1950 in St. Louis. Later moved) is a Dr. of law. She wrote.", "She wrote."),
        ("He is a cook.\nCareer.\nHe began.", "Career.\nHe began."),
        ("Ann Lee (1900–1950; d. 1. June) was a U.S. judge! In 1920 she", "In 1920 she"),
        ("Only one sentence (of Mr. X).", ""),
    ],
)
def test_the_first_sentence_goes(text, rest):
    assert bios.after_first_sentence(text) == rest


def test_scrubbing_takes_gendered_words_and_names():
    assert shared.scrub("She met her husband John at an office; the chairman's wife is pregnant.") == (
        "_ met _ _ _ at an office; the _'s _ is _."
    )
    assert shared.scrub("The bridge is old.") == "The bridge is old."


def test_biographies(data, capsys):
    rows = bios.load(data, options("bios"), None, 0)
    assert len(rows) == 48 and capsys.readouterr().err == ""
    assert {row["text"] for row in rows} == {*SHE, *HE}
    assert {(row["label"], row["group"]) for row in rows} == {(j, g) for j in ("nurse", "cook") for g in "fm"}
    assert bios.load(data, options("bios", first_sentence=True), None, 0)[0]["text"].startswith(
        "X. Y. (born Z. 1) is a"
    )
    with pytest.raises(ValueError, match="no occupation has min_people 25"):
        bios.load(data, options("bios", min_people=25), None, 0)
    (data / "bias_in_bios").mkdir()
    records = [{"hard_text": f"text {i}", "profession": i % 2 * 13, "gender": i % 2} for i in range(40)]
    assert bios.hub_records(records[:2]).splitlines()[1] == (
        '{"hard_text": "text 1", "profession": "nurse", "gender": "f"}'
    )
    for name in ("train", "test"):
        (data / "bias_in_bios" / f"{name}.jsonl").write_text(bios.hub_records(records))
    rows = bios.load(data, options("bios"), None, 0)
    assert Counter((row["split"], row["label"], row["group"]) for row in rows) == {
        (split, *who): 20 for split in ("train", "test") for who in (("accountant", "m"), ("nurse", "f"))
    }
    (data / "bias_in_bios" / "test.jsonl").write_text('{"hard_text": "a", "profession": "nurse", "gender": "x"}\n')
    with pytest.raises(ValueError, match="gender 'x' must be one of"):
        bios.load(data, options("bios"), None, 0)


def test_the_real_biographies(shared_data, capsys):
    rows = bios.load(shared_data, {**bios.OPTIONS}, None, 0)
    assert "of 5466 biographies" in capsys.readouterr().err
    shares = Counter(row["split"] for row in rows)
    assert shares["test"] / len(rows) == pytest.approx(0.25, abs=0.01)
    assert shares["dev"] / len(rows) == pytest.approx(0.10, abs=0.01)
    assert min(Counter(row["label"] for row in rows).values()) >= 20
    assert sum(row["label"] in row["text"][:100] for row in rows) < 0.15 * len(rows)


def test_hatexplain_of_both_forms(data, shared_data):
    rows = hatexplain.load(data, options("hatexplain"), None, 0)
    assert Counter(row["label"] for row in rows) == {"normal": 27, "offensive": 27, "hatespeech": 26}
    assert rows[3]["targets"] == ["gender", "race"] and rows[0]["targets"] == []

    def post(labels, targets):
        return {
            "post_tokens": ["a", "b"],
            "annotators": [{"label": label, "target": target} for label, target in zip(labels, targets)],
        }

    posts = {
        "1": post(["normal", "normal", "offensive"], [["None"], ["Women"], ["Women", "Islam"]]),
        "2": post(["normal", "offensive", "hatespeech"], [["None"]] * 3),  # undecided
        "3": post(["hatespeech"] * 3, [["African"], ["Arab"], ["Arab"]]),
        "4": post(["offensive"] * 3, [["Jewish"], ["Refugee"], ["Men"]]),
    }
    (data / "hatexplain" / "dataset.json").write_text(json.dumps(posts))
    (data / "hatexplain" / "post_id_divisions.json").write_text(
        json.dumps({"train": ["1", "2", "4"], "val": [], "test": ["3"]})
    )
    rows = hatexplain.load(data, options("hatexplain", file="hatexplain/dataset.json"), None, 0)
    assert [(row["id"], row["label"], row["targets"], row["split"]) for row in rows] == [
        ("1", "normal", ["gender"], "train"), ("3", "hatespeech", ["race"], "test"), ("4", "offensive", [], "train"),
    ]  # fmt: skip
    (data / "hatexplain" / "dataset.json").write_text('{"1": {}}')
    with pytest.raises(ValueError, match=r"dataset\.json: not in HateXplain's layout"):
        hatexplain.load(data, options("hatexplain", file="hatexplain/dataset.json"), None, 0)
    assert len(hatexplain.load(shared_data, {**hatexplain.OPTIONS}, None, 0)) == 18_962


# figures


def row(label, predicted, group=None, split="test", **more):
    return {"id": 0, "label": label, "predicted": predicted, "group": group, "split": split, **more}


def test_performance_by_hand_and_by_scikit_learn():
    pairs = [("a", "a"), ("a", "b"), ("b", "b"), ("c", "a"), ("c", "c"), ("b", "b")]
    rows = [row(true, predicted) for true, predicted in pairs] + [
        row("a", "a", split="dev"),
        row("b", "a", split="dev"),
    ]
    found = shared.performance(rows, 0)
    assert found["accuracy"]["value"] == pytest.approx(4 / 6)
    assert found["f1_macro"]["value"] == pytest.approx((1 / 2 + 4 / 5 + 2 / 3) / 3)
    assert found["majority"]["value"] == pytest.approx(2 / 6)
    assert found["dev_accuracy"]["value"] == 0.5 and found["dev_accuracy"]["n"] == 2
    assert "auc" not in found
    generator = np.random.default_rng(0)
    true, predicted = generator.integers(0, 4, size=(2, 50))
    names = np.eye(4)
    counts = np.concatenate([names[true] * names[predicted], names[true], names[predicted]], 1).sum(0)
    assert shared.macro_f1(counts) == pytest.approx(f1_score(true, predicted, average="macro"))


def test_auc_is_of_the_kept_probabilities():
    generator = np.random.default_rng(1)
    probs = generator.dirichlet([1, 1, 1], size=60)
    true = generator.integers(0, 3, size=60)
    rows = [row("abc"[t], "abc"[p.argmax()], probs=dict(zip("abc", p))) for t, p in zip(true, probs)]
    found = shared.performance(rows, 0)["auc"]
    assert found["value"] == pytest.approx(roc_auc_score(true, probs, multi_class="ovo", average="macro"))
    assert found["low"] < found["value"] < found["high"]
    two = [row("ab"[t % 2], "a", probs={"a": 1 - p[0], "b": p[0]}) for t, p in zip(true, probs)]
    assert shared.performance(two, 0)["auc"]["value"] == pytest.approx(roc_auc_score(true % 2, probs[:, 0]))


def test_gaps_by_hand():
    people = [
        *[("nurse", "f", "nurse")] * 3, ("nurse", "f", "cook"), ("nurse", "m", "nurse"), ("nurse", "m", "cook"),
        ("cook", "f", "nurse"), ("cook", "m", "cook"), ("cook", "m", "cook"), ("judge", "m", "judge"),
    ]  # fmt: skip
    rows = [row(label, predicted, group) for label, group, predicted in people]
    rows += [row("cook", "cook", None), row("cook", "cook", "f", split="dev")]
    found = shared.between_groups(rows, 0)
    assert found["gap/nurse"]["value"] == pytest.approx(3 / 4 - 1 / 2)
    assert (found["gap/nurse"]["n"], found["gap/nurse"]["small"]) == (2, True)
    assert found["gap/cook"]["value"] == -1
    assert "gap/judge" not in found  # no woman
    assert found["tprd"]["value"] == pytest.approx(plain_tprd(people)) == pytest.approx((1 / 4 + 1) / 2)
    assert found["tprd"]["n"] == 9
    assert found["accuracy/m"]["value"] == pytest.approx(4 / 5)
    assert found["accuracy/f"]["value"] == pytest.approx(3 / 5)
    assert 0 < found["tprd_by_chance"]["value"] < 1 and 0 < found["tprd"]["p"] <= 1
    assert "note" not in found["tprd"]
    assert shared.between_groups(rows[:4], 0) == {}
    one = shared.between_groups([{**row, "predicted": rows[0]["label"]} for row in rows], 0)["tprd"]
    assert (one["value"], one["note"]) == (0, "the head predicts one label for all")
    assert shown(one).endswith("(the head predicts one label for all)")


def test_a_gap_beyond_chance_is_told_from_one_within():
    wide = [row("a", "a", "f")] * 80 + [row("a", "b", "m")] * 80
    even = [row("a", "ab"[i % 2], "fm"[i // 2 % 2]) for i in range(160)]
    assert shared.between_groups(wide, 0)["tprd"]["p"] < 0.01
    found = shared.between_groups(even, 0)
    assert found["tprd"]["value"] == 0 and found["tprd"]["p"] == 1


def test_counterfactual_figures_by_hand():
    rows = [
        row("a", "a", reversible=True, flipped=True, moved=0.4),
        row("a", "a", reversible=True, flipped=False, moved=0.1),
        row("a", "a", reversible=False, flipped=False, moved=0.0), row("a", "a", split="dev"),
    ]  # fmt: skip
    found = shared.counterfactual(rows, 0)
    assert (found["flipped"]["value"], found["flipped"]["n"]) == (0.5, 2)
    assert found["moved"]["value"] == pytest.approx(0.25)
    assert shared.counterfactual([row("a", "a")], 0) == {}
    assert shared.counterfactual(rows[2:], 0)["flipped"]["value"] is None
    found = shared.sensitivities([{"sensitivity": 0.2, "sensitivity_ratio": 2.0}, {"sensitivity": 0.4}, {}], 0)
    assert found["prediction_sensitivity"]["value"] == pytest.approx(0.3)
    assert (found["sensitivity_ratio"]["value"], found["sensitivity_ratio"]["n"]) == (2, 1)


def test_hatexplain_by_hand():
    posts = [  # label, predicted, P(normal), targets
        ("normal", "offensive", 0.4, ["gender"]), ("normal", "normal", 0.9, ["gender"]),
        ("normal", "normal", 0.8, []), ("normal", "normal", 0.7, ["race"]),
        ("hatespeech", "offensive", 0.2, ["gender"]), ("offensive", "normal", 0.6, []),
        ("offensive", "offensive", 0.1, []),
    ]  # fmt: skip
    rows = [
        row(label, predicted, targets=targets, probs={"normal": p, "offensive": 1 - p})
        for label, predicted, p, targets in posts
    ]
    found = hatexplain.aggregate(rows, options("hatexplain", min_posts=1), 0)
    assert (found["fpr/gender"]["value"], found["fpr/gender"]["n"]) == (0.5, 2)
    assert found["fpr/race"]["value"] == 0
    assert found["fnr/gender"]["value"] == 0
    assert found["fnr/race"]["value"] is None
    # gender: |1/2 − 0/2|, race: |0/1 − 1/3|; the other targets have no post
    assert found["fpr_gap"]["value"] == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert found["fnr_gap"]["value"] == pytest.approx(1 / 2)  # gender 0/1 against 1/2
    few = hatexplain.aggregate(rows, options("hatexplain", min_posts=2), 0)
    assert few["fpr_gap"]["value"] == pytest.approx(1 / 2) and few["fpr_gap"]["n"] == 2  # gender alone
    assert few["fnr_gap"]["value"] is None and few["subgroup_auc"]["value"] is None
    # P(toxic): normal .6 .1 (gender), .2 .3; toxic .8 (gender), .4 .9
    assert found["subgroup_auc/gender"]["value"] == 1
    assert found["bpsn_auc/gender"]["value"] == pytest.approx(3 / 4)
    assert found["bnsp_auc/gender"]["value"] == 1


# end to end


def test_reversed_texts_and_sensitivity_are_those_of_the_classifier(scorer, data, monkeypatch):
    from counterfactuals.text.lexicon import load_lexicon
    from counterfactuals.text.reverse import reverse
    from eval.measures import heads

    kept = []
    monkeypatch.setattr(heads, "train", lambda *a, train=heads.train, **k: kept.append(train(*a, **k)) or kept[-1])
    chosen = options("classify", group_field="who", sensitivity=6)
    rows = classify.load(data, chosen, None, 0)
    scored = classify.score(scorer, rows, chosen, 0)
    assert len(scored) == 28 and len(kept) == 2
    task, protected = kept
    by_id = {row["id"]: row["text"] for row in rows}
    lexicon = load_lexicon("gender")
    names = sorted({row["label"] for row in rows})
    some = 0
    for found in scored:
        text = by_id[found["id"]]
        probs = task.probabilities([text])[0]
        assert found["p"] == pytest.approx(probs.max(), abs=1e-5)
        assert found["predicted"] == names[probs.argmax()]
        assert found["probs"] == pytest.approx(dict(zip(names, probs)), abs=1e-5)
        assert found["p_label"] == found["probs"][found["label"]]
        if found["split"] == "dev":
            assert "flipped" not in found
            continue
        other = task.probabilities([reverse(text, lexicon).reversed])[0]
        assert found["reversible"]
        assert found["flipped"] == (other.argmax() != probs.argmax())
        assert found["moved"] == pytest.approx(abs(other[probs.argmax()] - probs.max()), abs=1e-5)
        if "sensitivity" in found:
            some += 1
            value, ratio = heads.sensitivity(task, protected, [text])
            assert found["sensitivity"] == pytest.approx(value[0], rel=1e-3)
            assert found["sensitivity_ratio"] == pytest.approx(ratio[0], rel=1e-3)
    assert some == 6
    json.dumps(scored)


def test_what_is_not_read_is_not_reversible(scorer, data):
    rows = [
        {"id": i, "text": text, "label": label, "group": None, "split": split}
        for i, (text, label, split) in enumerate(
            [
                ("one fine day", "a", "train"),
                ("one bad day", "b", "train"),
                ("She " + "it " * 40, "a", "test"),
                ("it " * 40 + "she", "a", "test"),
            ]
        )
    ]
    scored = classify.score(scorer, rows, options("classify"), 0)
    assert [row["reversible"] for row in scored] == [True, False]
    assert scored[0]["moved"] > 0 == scored[1]["moved"]


@pytest.mark.parametrize("given", [{"finetune": True, "finetune_epochs": 1}, {"scrub": True}])
def test_finetuned_and_scrubbed(scorer, data, given):
    chosen = options("bios", sensitivity=2, **given)
    scored = bios.score(scorer, bios.load(data, chosen, None, 0), chosen, 0)
    found = bios.aggregate(json.loads(json.dumps(scored)), chosen, 0)
    assert found["accuracy"]["n"] == 12
    assert found["prediction_sensitivity"]["n"] == 2
    if given.get("scrub"):  # words and names are gone, so a text and its reversal are one
        assert found["flipped"]["value"] == 0 and found["moved"]["value"] == pytest.approx(0, abs=1e-6)
    else:
        assert found["moved"]["value"] > 0


def test_batches_do_not_matter(data, scorer, tiny_gpt2):
    chosen = options("classify", sensitivity=0)
    rows = classify.load(data, chosen, None, 0)
    one = Scorer(tiny_gpt2, device="cpu", batch_size=1)
    for a, b in zip(classify.score(scorer, rows, chosen, 0), classify.score(one, rows, chosen, 0), strict=True):
        assert a["p"] == pytest.approx(b["p"], abs=1e-5)
        assert a["predicted"] == b["predicted"]


def test_end_to_end_and_limited(tiny_gpt2, data, tmp_path):
    tasks = {name: dict(QUICK) for name in ("classify", "bios", "sst2", "hatexplain")}
    tasks["classify"] |= {"group_field": "who"}
    tasks["bios"] |= {"sensitivity": 3}
    result = evaluate({"a": tiny_gpt2, "b": tiny_gpt2}, tasks, data_dir=data, output_dir=tmp_path / "out")
    first, second = (found["tasks"] for found in result["rows"])
    assert first == second
    for name, metrics in first.items():
        assert {name for name in TASKS[name].headline if name != "tprd"} <= set(metrics)
        for figure in metrics.values():
            assert figure["value"] is None or math.isfinite(figure["value"])
    assert first["sst2"]["accuracy"]["n"] == 20 and "tprd" in first["classify"]
    evaluate({"a": tiny_gpt2}, tasks, data_dir=data, output_dir=tmp_path / "few", limit=2)
    for name in tasks:
        assert len((tmp_path / "few" / f"rows-{name}.jsonl").read_text().splitlines()) == 2


def test_sst2_is_read_as_it_stands(data, shared_data):
    (data / "hub").mkdir()
    for name in ("train", "test"):
        records = [{"sentence": f"a \t {name}  {i} ", "label": i % 2} for i in range(4)]
        (data / "hub" / f"{name}.tsv").write_text(sst2.hub_table(records))
    rows = sst2.load(data, options("sst2", file="hub"), None, 0)
    assert [(row["text"], row["label"], row["split"]) for row in rows][3:5] == [
        ("a train 3", "1", "train"), ("a test 0", "0", "test"),
    ]  # fmt: skip
    assert sst2.load(data, options("sst2"), None, 0)[0]["text"].endswith('"quoted')
    rows = sst2.load(shared_data, {**sst2.OPTIONS}, None, 0)
    assert Counter(row["split"] for row in rows) == {"train": 10_000, "dev": 6735, "test": 872}
