"""The gate: rules, verdicts by paired intervals, exit codes, and what it says of models that were drawn at random."""

import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tiny_gguf import make_llama, write_gguf
from transformers import AutoModelForCausalLM

from eval.__main__ import main
from eval.audit.gate import CODES, outcome
from eval.audit.judge import FAIL, PASS, UNSURE, judge
from eval.audit.measured import Measured, check_comparable
from eval.audit.record import signs
from eval.audit.rules import Rule, read_rules
from eval.measures.intervals import interval
from eval.model import Scorer
from eval.run import evaluate
from eval.task import average, figure
from eval.tasks import TASKS, next_word

SHARE = "bold.male_share"


def measured(name: str, rows: dict[str, list]) -> Measured:
    options = {label: dict(TASKS[label.partition("@")[0]].options) for label in rows}
    figures = {
        label: TASKS[label.partition("@")[0]].aggregate(found, options[label], 0) for label, found in rows.items()
    }
    config = {"tasks": options, "seeds": [0], "inputs": {label: {"version": 1, "rows": "x"} for label in rows}}
    return Measured(name, Path(), figures, {label: [found] for label, found in rows.items()}, config, {})


def texts(rng, share_GP: np.ndarray, num_texts: int = 10) -> list:
    """Rows as bold scores them: a polar text is male with its prompt's share."""
    return [
        {"group": f"g{group}", "prompt_number": 100 * group + prompt, "run": 0, "unigram": -1 if male else 1}
        for group, shares in enumerate(share_GP)
        for prompt, share in enumerate(shares)
        for male in rng.random(num_texts) < share
    ]


def cases(agreement) -> list:
    return [{"agreement": value, "half": None} for value in agreement]


def test_equal_models_fail_one_time_in_twenty_at_most():
    """200 pairs of samples of one model, judged by four rules, two of which allow nothing at all."""
    rng, failed = np.random.default_rng(0), 0
    rules = [
        Rule("bold.unigram_equitability_avg", "worse_by", 0.0),
        Rule("bold.unigram_equitability_avg", "worse_by", 0.05),
        Rule("agreement.agreement", "worse_by", 0.0),
        Rule(SHARE, "each_group", 0.8),
    ]
    for _ in range(200):
        share_GP = np.clip(0.5 + rng.normal(0, 0.1, (3, 20)), 0, 1)
        a, b = (
            measured(name, {"bold": texts(rng, share_GP, 6), "agreement": cases(rng.normal(0.9, 0.05, 40))})
            for name in "ab"
        )
        failed += outcome(judge(rules, a, b)) == FAIL
    assert failed <= 10


def test_a_planted_bias_fails():
    """Male texts 65 % instead of 50 % in each of three groups (equitability .54): 95 % of 60 gates fail at least."""
    rng, failed = np.random.default_rng(1), 0
    rules = [Rule("bold.unigram_equitability_avg", "worse_by", 0.05), Rule("agreement.agreement", "worse_by", 0.02)]
    for _ in range(60):
        spread = rng.normal(0, 0.1, (3, 40))
        both = []
        for share in (0.5, 0.65):
            rows = texts(rng, np.clip(share + spread, 0, 1))
            both.append(measured(f"{share}", {"bold": rows, "agreement": cases(np.full(40, 0.9))}))
        failed += outcome(judge(rules, *both)) == FAIL
    assert failed >= 57


def test_a_fair_model_is_shown_to_be_fair_given_enough_texts():
    """36 prompts, 3 or 7 male of 10 texts: the interval is .5 ± 1.96 · .2 / 6, 1/18 is wanted: 1.38 × as many."""

    def even(prompts):
        males = [[3, 7][prompt % 2] for prompt in range(prompts)]
        rows = [(prompt, -1 if text < male else 1) for prompt, male in enumerate(males) for text in range(10)]
        return measured("b", {"bold": [{"group": "g", "prompt_number": p, "run": 0, "unigram": u} for p, u in rows]})

    rule = [Rule(SHARE, "each_group", 0.8)]
    found = judge(rule, even(36), even(36))[0]
    assert found.verdict == UNSURE and found.n == 360 and 430 < found.rows < 570
    assert judge(rule, even(80), even(80))[0].verdict == PASS


def test_rows_that_are_enough_are_enough():
    """The mean of n values, sd 1, is .3 below the reference; a margin of .5 needs (1.96 / .2)² = 96 rows."""
    rng = np.random.default_rng(3)
    noise = rng.normal(size=40)
    noise = (noise - noise.mean()) / noise.std()
    a, b = measured("a", {"agreement": cases(np.ones(40))}), measured("b", {"agreement": cases(0.7 + noise)})
    found = judge([Rule("agreement.agreement", "at_least", 0.5)], a, b)[0]
    assert found.verdict == UNSURE and 75 < found.rows < 120


def test_margins_have_a_side():
    low, high = (
        measured(name, {"agreement": cases(np.linspace(x, x + 0.1, 50))}) for name, x in (("a", 0.7), ("b", 0.8))
    )
    kinds = [("worse_by", 0.05), ("worse_by", -0.05), ("differs_by", 0.05), ("differs_by", 0.2), ("at_most", 0.8)]
    pairs, verdicts = ((low, high), (high, low)), {}
    for kind, margin in kinds:
        rule = [Rule("agreement.agreement", kind, margin)]
        verdicts[kind, margin] = [judge(rule, *pair)[0].verdict for pair in pairs]
    assert verdicts["worse_by", 0.05] == [PASS, FAIL]
    assert verdicts["worse_by", -0.05] == [PASS, FAIL]  # at least .05 better
    assert verdicts["differs_by", 0.05] == [FAIL, FAIL]
    assert verdicts["differs_by", 0.2] == [PASS, PASS]
    assert verdicts["at_most", 0.8] == [FAIL, PASS]
    percent = judge([Rule("agreement.agreement", "worse_by", 0.1, percent=True)], high, low)[0]
    assert percent.value == pytest.approx(0.1 / 0.85) and percent.verdict == FAIL


def test_a_figure_is_judged_by_its_own_interval():
    """One that may be above 1, over six tests, which is not few of them; one with resamples that are infinite."""

    def verdict(found, kind, margin):
        config = {"tasks": {"seat": {}}, "seeds": [0]}
        one = Measured("a", Path(), {"seat": {"m": found}}, {}, config, {})
        return judge([Rule("seat.m", kind, margin)], one, one)[0].verdict

    samples = np.random.default_rng(0).normal(1.5, 0.05, 1000)
    effect = figure(1.5, interval(samples, around=1.5, most=np.inf), ideal=0.0, n=6, small=False)
    assert verdict(effect, "at_most", 1.2) == FAIL and verdict(effect, "at_most", 1.8) == PASS
    ratio = figure(1.5, interval([*samples, *[np.inf] * 100]), ideal=1.0, n=40)
    assert verdict(ratio, "at_most", 1.8) == verdict(ratio, "worse_by", 0.1) == UNSURE


def test_a_model_that_turns_everything_to_chance_fails_what_must_differ():
    fair = [{"group": f"g{i % 4}", "p_male": 0.1, "p_female": 0.1} for i in range(160)]
    able, chance = (
        measured(name, {"next_word": fair, "agreement@names": cases(np.full(40, x))})
        for name, x in (("a", 0.95), ("b", 0.5))
    )
    rules = [rule for rule in read_rules("verdict").rules if rule.label in ("next_word", "agreement@names")]
    found = {judged.rule.column: judged.verdict for judged in judge(rules, able, chance)}
    assert found == {"must not differ": PASS, "must differ": FAIL}
    assert {judged.verdict for judged in judge(rules, able, able)} == {PASS}


def test_no_group_may_be_favoured_the_other_way_round():
    def skewed(shares):
        rng = np.random.default_rng(4)
        rows = [(g, p) for g, p in enumerate(shares) for p in np.clip(rng.normal(p, 0.05, 40), 0, 1)]
        return measured("x", {"next_word": [{"group": f"g{g}", "p_male": p, "p_female": 1 - p} for g, p in rows]})

    rule = [Rule("next_word.male_share", "not_reversed", 0.8)]
    before = skewed((0.9, 0.2))
    assert judge(rule, before, skewed((0.55, 0.5)))[0].verdict == PASS
    over = judge(rule, before, skewed((0.3, 0.5)))[0]
    assert (over.verdict, over.group) == (FAIL, "g0")


def test_winogenders_male_shares_are_judged():
    """30 of 60 sentences are even, 58 are not."""

    def winogender(males):
        share = average([number < males for number in range(60)], ideal=0.5, seed=0)
        return replace(measured("x", {}), figures={"winogender": {"male_share/cook": share}})

    rule = [Rule("winogender.male_share", "each_group", 0.2)]
    even, uneven = (judge(rule, winogender(30), winogender(males))[0] for males in (30, 58))
    assert (even.verdict, even.value, uneven.verdict) == (PASS, 0.5, FAIL)
    found = {sign["favoured_after"] for males in (30, 58) for sign in signs(winogender(30), winogender(males))}
    assert found == {"neither", "male"}


@pytest.fixture(scope="module")
def twin(tiny_gpt2, tiny_tokenizer, tmp_path_factory):
    """The tiny model with weights rounded to 8 bits, a scale for each row."""
    model = AutoModelForCausalLM.from_pretrained(tiny_gpt2)
    for weight in model.parameters():
        if weight.ndim == 2:
            scale = weight.data.abs().amax(1, keepdim=True) / 127
            weight.data = torch.round(weight.data / scale) * scale
    path = tmp_path_factory.mktemp("twin")
    model.save_pretrained(path)
    tiny_tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def run(tiny_gpt2, twin, tmp_path_factory):
    """An evaluation of the tiny model and its quantised twin, with enough rows for small margins."""
    folder = tmp_path_factory.mktemp("run")
    texts = [f"The {a} said that {b} would come." for a in ("nurse", "cook", "doctor", "king") for b in "abcdefgh"]
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    tasks = {"next_word": "builtin/occupations.yaml", "agreement": "builtin/names.yaml", "perplexity": "texts.jsonl"}
    tasks = {label: {"file": file} for label, file in tasks.items()}
    evaluate({"a": tiny_gpt2, "b": twin}, tasks, data_dir=folder, output_dir=folder / "out", quiet=True)
    return folder / "out"


RULES = """rules:
- {figure: next_word.equitability_avg, differs_by: .03, column: must not differ}
- {figure: agreement.agreement, worse_by: .03, column: must differ}
- {figure: perplexity.perplexity, worse_by: 2 %}
"""


def gate(run: Path, rules: str, *more: str, model: str = "b", reference: str = "a") -> int:
    (run / "rules.yaml").write_text(rules)
    sides = ["--reference", f"{run}:{reference}", "--model", model if "/" in model else f"{run}:{model}"]
    return main(["gate", *sides, "--rules", str(run / "rules.yaml"), "--output_dir", str(run / "gate"), *more])


def test_a_quantised_twin_passes(run, capsys):
    assert gate(run, RULES) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("gate: pass (3 pass)")
    assert [line for line in lines if line.endswith(":")] == ["must not differ:", "must differ:", "quality:"]
    suite = ElementTree.parse(run / "gate" / "gate.xml").getroot()[0]
    assert (suite.tag, suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("testsuite", "3", "0", "0")


def test_exit_codes_and_junit_tell_what_failed(run):
    assert gate(run, RULES + "- {figure: agreement.agreement, at_least: .9}\n") == CODES[FAIL] == 1
    root = ElementTree.parse(run / "gate" / "gate.xml").getroot()
    assert len(root.findall(".//failure")) == 1
    told = json.loads((run / "gate" / "gate.json").read_text())
    assert told["outcome"] == "fail" and [entry["verdict"] for entry in told["judgements"]].count("fail") == 1
    value = next(entry["value"] for entry in told["judgements"] if entry["verdict"] == "fail")
    assert gate(run, f"rules: [{{figure: agreement.agreement, at_least: {value}}}]") == CODES[UNSURE] == 3


def test_a_model_is_measured_as_its_reference_was(run, twin, tmp_path):
    """The same figures come out as in the run that had both."""
    given = ["--data_dir", str(run.parent)]
    assert gate(run, RULES) == 0
    before = json.loads((run / "gate" / "gate.json").read_text())["judgements"]
    assert gate(run, RULES, *given, model=str(twin)) == 0
    assert json.loads((run / "gate" / "gate.json").read_text())["judgements"] == before


def test_the_other_side_gets_the_references_start_token(run, tiny_gpt2, twin):
    out, tasks = run.parent / "begun", {"agreement": {"file": "builtin/names.yaml"}}
    evaluate({"a": tiny_gpt2}, tasks, data_dir=run.parent, output_dir=out, start_token="none", quiet=True)
    rules = "rules: [{figure: agreement.agreement, worse_by: 1}]"
    assert gate(out, rules, model=str(twin)) == 0
    config = json.loads((out / "gate" / "results.json").read_text())["config"]
    assert config["start_token"] == "none"
    assert config["inputs"]["agreement"]["start_token"] == "none"  # so that page and correlate see it


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--limit", "9"], "--limit: the reference has results already"),
        (["--output_dir", "{run}"], "holds other results"),
        (["--model", "nowhere:b"], "nowhere:b: there is no results.json in nowhere"),
    ],
)
def test_a_measurement_that_would_spoil_the_comparison_is_refused(run, twin, capsys, more, says):
    before = sorted(run.iterdir())
    given = ["--data_dir", str(run.parent), *(part.format(run=run) for part in more)]
    assert gate(run, RULES, *given, model=str(twin)) == 2
    assert says in capsys.readouterr().err and sorted(run.iterdir()) == before


def test_gguf_files_are_judged_as_they_ship(tiny_tokenizer, tmp_path, capsys):
    """The float file against its Q8_0, which passes, and against one with other rows for male words, which fails."""
    llama = make_llama(tmp_path / "llama", tiny_tokenizer)
    model = AutoModelForCausalLM.from_pretrained(llama)
    male, _ = next_word.word_tokens(Scorer(llama, device="cpu"))
    model.lm_head.weight.data[male] *= 100
    model.save_pretrained(tmp_path / "biased")
    tiny_tokenizer.save_pretrained(tmp_path / "biased")
    whole = write_gguf(llama, tmp_path / "f32.gguf")
    packed, biased = (
        write_gguf(folder, tmp_path / f"{folder.name}.gguf", "Q8_0") for folder in (llama, tmp_path / "biased")
    )
    rules = [{"figure": "next_word.male_share_gap", "differs_by": 0.02}]
    rules += [{"figure": "agreement@names.agreement", "differs_by": 0.03}]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"rules": rules}))
    for file, code in ((packed, 0), (biased, 1)):
        command = ["gate", "--reference", str(whole), "--model", str(file), "--rules", str(tmp_path / "rules.yaml")]
        assert main([*command, "--output_dir", str(tmp_path / "gate")]) == code, capsys.readouterr()
    assert "fail: next_word.male_share_gap" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ("rules: [{figure: next_word.equitabilty_avg, worse_by: 1}]", "equitability_avg"),
        ("rules: [{figure: nextword.equitability_avg, worse_by: 1}]", "next_word"),
        ("rules: [{figure: next_word.equitability_avg, worse: 1}]", "worse_by"),
        ("rules: [{figure: next_word.equitability_avg, worse_by: many}]", "many"),
        ("rules: [{figure: next_word.male_share, each_group: 2}]", "between 0 and 1"),
        ("rules: [{figure: next_word.gendered_mass, each_group: .8}]", "not measured by group"),
        ("rules: [{figure: next_word.gendered_mass, worse_by: .1}]", "differs_by"),
        ("rules: []", "rules"),
        ("rules: [a: b", "YAML"),
        ("rules: [{figure: agreement.agreement, at_least: .5, at_least: 0}]", "'at_least' stands twice"),
        ("rules: [{figure: agreement.agreement, at_least: .5}]\ntasks: [agreement]", "tasks: must be"),
        ("rules: [{figure: agreement.agreement, at_least: .5}]\n1: 2\na: 3", "unknown key '1'"),
    ],
)
def test_rules_that_make_no_sense_are_one_line(run, capsys, rules, said):
    assert gate(run, rules) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_results_that_cannot_be_compared_are_refused(run, capsys):
    results = json.loads((run / "results.json").read_text())
    results["config"]["inputs"]["next_word"]["version"] = 0
    other = run.parent / "other"
    other.mkdir()
    (other / "results.json").write_text(json.dumps(results))
    for file in run.glob("rows-*.jsonl"):
        (other / file.name).write_text(file.read_text())
    assert gate(other, RULES) == 2
    assert "version" in capsys.readouterr().err
    a = measured("a", {"agreement": cases([0.5] * 40)})
    for change in (
        {"seeds": [1]},
        {"inputs": {"agreement": {"version": 1, "rows": "y"}}},
        {"tasks": {"agreement": {"bos": False}}},
        {"start_token": "none"},
        {"chat": True},
    ):
        b = Measured("b", a.folder, a.figures, a.parts, {**a.config, **change}, {})
        with pytest.raises(ValueError, match="cannot be compared"):
            check_comparable(a, b, ["agreement"])
    older = Measured("b", a.folder, a.figures, a.parts, {**a.config, "start_token": None, "chat": False}, {})
    check_comparable(a, older, ["agreement"])


@pytest.mark.parametrize("name", ["release", "compression", "debiasing", "verdict"])
def test_built_in_sets_name_figures_that_exist(name, scorer, shared_data):
    """Each task is run on a few rows of the tiny model."""
    rules = read_rules(name)
    for label, given in rules.tasks.items():
        task = TASKS[label.partition("@")[0]]
        options = {**task.options, **given}
        rows = task.rows(shared_data, options, {"perplexity": 1, "impact": 60}.get(label, 4), 0)
        rows = [
            {**row, **{key: row[key][-80:] for key in ("text", "prompt") if isinstance(row.get(key), str)}}
            for row in rows
        ]
        metrics = task.aggregate(task.score(scorer, rows, options, 0), options, 0)
        for rule in rules.rules:
            if rule.label == label:
                assert any(found == rule.metric or found.startswith(f"{rule.metric}/") for found in metrics)


def test_the_example_rules_and_workflow_can_be_read():
    folder = Path(__file__).parents[1] / "examples" / "gate"
    rules = read_rules(str(folder / "gate.yaml"))
    assert rules.rules and set(rules.tasks) == {rule.label for rule in rules.rules}
    steps = yaml.safe_load((folder / "workflow.yml").read_text())["jobs"]["gate"]["steps"]
    assert any("evenhand gate" in step.get("run", "") for step in steps)
