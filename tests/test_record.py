"""audit.json and audit.html: complete, valid by its schema, and marked where the user has not spoken."""

import json

import pytest
import yaml
from test_gate import cases, measured

from eval.__main__ import main
from eval.audit.record import MAPPING, NO_ADVICE, About, Measure, Record, make, page, read_about, signs
from eval.run import evaluate
from eval.tasks import TASKS


@pytest.fixture(scope="module")
def run(tiny_gpt2, tmp_path_factory):
    folder = tmp_path_factory.mktemp("record")
    from tiny_data import write_stereotype_data

    write_stereotype_data(folder)
    tasks = {"next_word": {"file": "builtin/occupations.yaml", "limit": 96}, "crows_pairs": {"bias_type": "all"}}
    tasks["agreement@names"] = {"file": "builtin/names.yaml", "limit": 40}
    evaluate({"a": tiny_gpt2, "b": tiny_gpt2}, tasks, data_dir=folder, output_dir=folder / "out", quiet=True)
    return folder / "out"


def test_the_command_writes_a_record_that_its_schema_accepts(run, tmp_path, capsys):
    jsonschema = pytest.importorskip("jsonschema")
    about = tmp_path / "about.yaml"
    about.write_text("intended_use: letters <b>to</b> customers\naffected_groups: [customers]\n")
    command = ["record", "--model", f"{run}:b", "--reference", f"{run}:a", "--about", str(about)]
    assert main([*command, "--output_dir", str(tmp_path / "out")]) == 0
    capsys.readouterr()
    assert main(["record", "--schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    record = json.loads((tmp_path / "out" / "audit.json").read_text())
    jsonschema.validate(record, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**record, "outcome": None}, schema)
    assert record["model"]["sha256"] == record["reference"]["sha256"] and len(record["model"]["sha256"]) == 64
    assert "intended_use" not in record["missing"] and "training_data" in record["missing"]
    assert {measure["task"]: measure["tier"] for measure in record["measures"]} == {
        "next_word": "exploratory", "agreement@names": "exploratory", "crows_pairs": "disputed",
    }  # fmt: skip
    assert "blimp" in record["rules"]  # named as not measured
    html = (tmp_path / "out" / "audit.html").read_text()
    assert "letters &lt;b&gt;to&lt;/b&gt; customers" in html and NO_ADVICE.partition(":")[0] in html
    assert html.index("Appendix") < html.index('id="crows_pairs"') and html.index('id="next_word"') < html.index(
        "Appendix"
    )
    assert "<script" not in html and html.count("missing</span>") == len(record["missing"])


def test_a_record_needs_no_reference(run, tmp_path):
    assert main(["record", "--model", f"{run}:b", "--output_dir", str(tmp_path / "out")]) == 0
    record = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert record["reference"] is None and record["flips"] == []
    rules = tmp_path / "rules.yaml"
    rules.write_text("rules: [{figure: next_word.equitability_avg, worse_by: .05}]")
    assert main(["record", "--model", f"{run}:b", "--rules", str(rules), "--output_dir", str(tmp_path / "out")]) == 0
    record = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert (record["outcome"], record["judgements"]) == ("not judged", [])
    assert record["rules"] == "rules (without next_word.equitability_avg worse_by: no reference)"


def test_every_task_has_a_tier_with_its_reason_and_sources():
    for task in TASKS.values():
        assert task.tier in ("established", "disputed", "exploratory") and task.why and task.sources


def test_every_field_is_mapped_to_the_four_texts():
    mapping = yaml.safe_load(MAPPING.read_text())
    named = " ".join(line["field"] for line in mapping).replace(",", " ").replace(":", " ").replace(";", " ").split()
    assert not set(About.model_fields) - set(named)
    assert all(set(line) == {"field", "LL144", "AI Act", "AI RMF", "IEEE"} for line in mapping)
    known = {*Record.model_fields, *About.model_fields, *Measure.model_fields, "about", "n", "intervals"}
    assert set(named) <= known


def test_signs_say_who_is_favoured_before_and_after():
    def model(name, shares):
        rows = [(g, p + d) for g, p in shares.items() for d in (-0.02, 0.02) for _ in range(20)]
        return measured(name, {"next_word": [{"group": g, "p_male": p, "p_female": 1 - p} for g, p in rows]})

    before, after = (
        model("a", {"nurse": 0.1, "guard": 0.9, "cook": 0.5}),
        model("b", {"nurse": 0.7, "guard": 0.5, "cook": 0.5}),
    )
    found = {sign["group"]: sign for sign in signs(before, after)}
    sides = {group: (sign["favoured_before"], sign["favoured_after"], sign["turned"]) for group, sign in found.items()}
    assert sides == {
        "nurse": ("female", "male", True), "guard": ("male", "neither", False), "cook": ("neither", "neither", False),
    }  # fmt: skip


def test_undefined_figures_are_null_and_pages_still_written():
    model = measured("a", {"agreement@names": cases([0.9] * 3)})
    record = make(model, None, "verdict", About())
    assert json.loads(record.model_dump_json())["judgements"][0]["verdict"] == "not enough data"
    assert "not enough data" in page(record)


@pytest.mark.parametrize(
    ("text", "said"), [("intendeduse: x", "intendeduse"), ("affected_groups: all", "affected_groups"), ("[", "YAML")]
)
def test_fields_of_no_meaning_are_one_line(tmp_path, text, said):
    (tmp_path / "about.yaml").write_text(text)
    with pytest.raises(ValueError, match=said) as error:
        read_about(tmp_path / "about.yaml")
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_one_line(run, capsys):
    assert main(["record", "--model", f"{run}:b", "--about", "none.yaml"]) == 2
    assert capsys.readouterr().err == "error: --about none.yaml: No such file or directory\n"


def test_rules_on_other_tasks_are_refused(run, tmp_path, capsys):
    (tmp_path / "rules.yaml").write_text("rules: [{figure: perplexity.perplexity, at_most: 10}]")
    assert main(["record", "--model", f"{run}:b", "--rules", str(tmp_path / "rules.yaml")]) == 2
    assert "perplexity" in capsys.readouterr().err
