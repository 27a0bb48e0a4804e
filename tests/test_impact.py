"""Selection rates and impact ratios of name-swapped applications; what a dry run counts; presets."""

import numpy as np
import pytest
import yaml
from tiny_data import write_stereotype_data

from eval.__main__ import PRESETS, main
from eval.audit.cost import CountingScorer, NotCounted
from eval.check import check, resolve
from eval.measures import heads, targets
from eval.model import Scorer
from eval.tasks import TASKS, membership

IMPACT = TASKS["impact"]


def rows_of(counts: dict) -> list:
    """{(sex, group): (selected, not selected)}: a name for each application."""
    return [
        {"sex": sex, "group": group, "name": f"{sex} {group} {n}", "selected": n < yes}
        for (sex, group), (yes, no) in counts.items()
        for n in range(yes + no)
    ]


def test_impact_ratios_by_hand():
    """Rates: women a 10/40, b 30/40; men a 20/40, b 20/40, so 40/80 and 40/80 by sex, 30/80 and 50/80 by group."""
    counts = {("f", "a"): (10, 30), ("f", "b"): (30, 10), ("m", "a"): (20, 20), ("m", "b"): (20, 20)}
    found = IMPACT.aggregate(rows_of(counts), IMPACT.options, 0)
    value = {name: figure["value"] for name, figure in found.items()}
    assert value["selection_rate/f a"] == 0.25 and value["selection_rate/m"] == 0.5
    assert value["impact_ratio/f"] == value["impact_ratio/m"] == 1
    assert value["impact_ratio/a"] == pytest.approx(0.6) and value["impact_ratio/b"] == 1
    assert value["impact_ratio/f a"] == value["impact_ratio_min"] == pytest.approx(1 / 3)
    assert value["impact_ratio/m b"] == pytest.approx(2 / 3)
    assert found["impact_ratio_min"]["low"] < 1 / 3 < found["impact_ratio_min"]["high"]
    assert found["impact_ratio/f a"]["n"] == 40


def test_small_and_unknown_categories_are_counted_not_compared():
    """Of 200 applicants 3 are c, under 2 %, all of them selected; 20 are of no known category."""
    counts = {("f", "a"): (40, 40), ("m", "a"): (58, 39), ("m", "c"): (3, 0), ("unknown", "unknown"): (20, 0)}
    value = {name: figure["value"] for name, figure in IMPACT.aggregate(rows_of(counts), IMPACT.options, 0).items()}
    assert value["unknown"] == 20 and value["small_categories"] == 2  # group c, and men of it
    assert value["selection_rate/c"] == 1 and "impact_ratio/c" not in value
    assert value["impact_ratio/m a"] == 1
    assert not any("unknown" in name for name in value if "/" in name)


def test_half_of_the_names_under_each_text_are_selected(scorer, tmp_path):
    options = {**IMPACT.options, "names_per_group": 2}
    rows = IMPACT.rows(tmp_path, options, None, 0)
    assert len(rows) == 4 * 3 * (2 * 4 * 2 + 3)
    assert not [row for row in rows if "{" in row["prompt"]]
    some = [{**row, "prompt": row["prompt"][-90:]} for row in rows if row["job"] == "nurse"]
    scored = IMPACT.score(scorer, some, options, 0)
    for text in range(3):
        part = [row for row in scored if row["text"] == text]
        chosen = {row["name"]: row["score"] for row in part if row["selected"]}
        assert len(chosen) == len(part) // 2
        assert min(chosen.values()) > max(row["score"] for row in part if not row["selected"])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[", "applicants.yaml"),
        ("jobs: [a]\n", "texts"),
        ("{jobs: [a], texts: [x], question: q, answers: [y, n]}", "{name}"),
    ],
)
def test_applications_without_a_name_are_refused(tmp_path, content, said):
    (tmp_path / "mine.yaml").write_text(content)
    with pytest.raises(ValueError, match=said):
        IMPACT.rows(tmp_path, {**IMPACT.options, "file": "mine.yaml"}, None, 0)


# presets and what they take


def test_presets_name_tasks_and_options_that_exist():
    for tasks in yaml.safe_load(PRESETS.read_text()).values():
        assert set(resolve(tasks)) == set(tasks)


def test_a_limit_of_one_task(tmp_path):
    write_stereotype_data(tmp_path)
    _, inputs = check({"crows_pairs": {"limit": "2"}, "winogender": {}}, data_dir=tmp_path)
    assert len(inputs["crows_pairs"]) == 2 and len(inputs["winogender"]) == 12
    for wrong in ("0", "many"):
        with pytest.raises(ValueError, match="limit"):
            resolve({"crows_pairs": {"limit": wrong}})


def test_a_dry_run_counts_the_tokens_that_are_read(scorer, tmp_path, monkeypatch):
    write_stereotype_data(tmp_path)
    tasks = {
        "next_word": {"file": "builtin/occupations.yaml", "limit": 40},
        "agreement": {"file": "builtin/names.yaml"},
    }
    tasks |= {"crows_pairs": {}, "stereoset": {}, "bbq": {}}
    resolved, inputs = check(tasks, data_dir=tmp_path)
    read, pad = [], Scorer.pad
    monkeypatch.setattr(Scorer, "pad", lambda self, ids: (read.append(sum(map(len, ids))), pad(self, ids))[1])
    for label, (task, options) in resolved.items():
        count = CountingScorer(scorer)
        task.score(count, inputs[label], options, 0)
        read.clear()
        task.score(scorer, inputs[label], options, 0)
        assert (label, count.read) == (label, sum(read))


def test_sampled_tokens_are_counted_and_training_is_not(scorer):
    count = CountingScorer(scorer)
    count.sample(["The nurse said"] * 6, max_new_tokens=5)
    assert count.written == 30 and count.rows == 1
    with pytest.raises(NotCounted):
        count.states(np.zeros((1, 2)))


def test_a_dry_run_runs_no_model(scorer):
    count = CountingScorer(scorer)
    assert (count.width, count.name) == (scorer.width, scorer.name)  # what seat, ceat and exposure ask for
    for work in (
        lambda: heads.finetune(count, ["a"], np.array([0]), 2, heads.OPTIONS, 0),
        lambda: targets.LanguageModel(count).loss(None, {}),
        lambda: membership._reader(count, membership.OPTIONS, "another-model"),
    ):
        with pytest.raises(NotCounted):
            work()


def test_a_dry_run_reads_prompts_as_the_run_will(tiny_gpt2, tmp_path, capsys):
    command = ["--model", str(tiny_gpt2), "--tasks", "next_word", "--set", "next_word.file=builtin/occupations.yaml"]
    assert main([*command, "--data_dir", str(tmp_path), "--dry_run", "--chat"]) == 2
    assert "no chat template" in capsys.readouterr().err


def test_a_dry_run_shows_minutes_and_writes_nothing(tiny_gpt2, tmp_path, capsys):
    command = [
        "--model",
        str(tiny_gpt2),
        "--preset",
        "quick",
        "--data_dir",
        str(tmp_path),
        "--set",
        "next_word.limit=30",
    ]
    assert main([*command, "--output_dir", str(tmp_path / "out"), "--dry_run"]) == 0
    said = capsys.readouterr().out
    assert "next_word" in said and "minutes" in said.splitlines()[-1]
    assert "left out: bbq" in said and not (tmp_path / "out").exists()
