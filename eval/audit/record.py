"""evenhand record: what was audited, how and with what outcome, as audit.json and a page to print, audit.html.

`Record` defines audit.json; its JSON Schema comes from it (--schema). Fields under `about` are the user's to say.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from counterfactuals.files import read_yaml, write_whole
from counterfactuals.provenance import versions
from eval.audit.flips import flips
from eval.audit.gate import COLUMNS, as_dict, outcome
from eval.audit.judge import judge
from eval.audit.measured import Measured, check_comparable, read
from eval.audit.rules import read_rules
from eval.audit.spill_over import spill_over, statement
from eval.data import what_differs
from eval.report.table import render
from eval.task import finite
from eval.tasks import TASKS, find_task

MAPPING = Path(__file__).with_name("mapping.yaml")
NO_ADVICE = (
    "This record is no legal advice: whether it meets a law or standard is for the user and their counsel to judge."
)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class About(_Strict):
    """What only the user can say; null: not entered."""

    organisation: str | None = Field(None, description="who answers for this record")
    auditor: str | None = Field(None, description="who ran the audit, and their independence")
    intended_use: str | None = Field(None, description="what the model is for, by whom, on whom")
    out_of_scope: str | None = Field(None, description="uses that this audit does not cover")
    affected_groups: list[str] | None = Field(None, description="people whom its output affects")
    training_data: str | None = Field(None, description="what it was trained on")
    quantisation: str | None = Field(None, description="number format of the weights that ship")
    mitigation: str | None = Field(None, description="what was done against bias; the reference is the model before")
    remaining_risk: str | None = Field(None, description="what may still go wrong, for whom")
    human_oversight: str | None = Field(None, description="who can see, stop and correct its output")
    new_audit_when: list[str] | None = Field(None, description="what triggers a new audit")


class Model(_Strict):
    name: str
    source: str = Field(description="folder or Hub name, as it was evaluated")
    sha256: str | None = Field(description="over weights, configuration and tokenizer")


class Measure(_Strict):
    """One task: what it measures, how far it is trusted, and its figures."""

    task: str
    definition: str
    ideal: str
    limits: str = Field(description="what a good score does not say")
    tier: str = Field(description="established, disputed or exploratory")
    tier_reason: str
    sources: list[str]
    data: str
    data_sha256: str = Field(description="over the rows that were scored")
    version: int
    options: dict[str, Any]
    figures: dict[str, dict[str, Any]] = Field(description="name or name/group: value, low, high (95 %), ideal, n")
    reference: dict[str, dict[str, Any]] = Field(description="the same of the reference, before mitigation")


class Record(_Strict):
    """An audit record of Evenhand, version 1."""

    made: str = Field(description="date and time, UTC")
    about: About
    missing: list[str] = Field(description="fields of `about` that were not entered")
    model: Model
    reference: Model | None
    versions: dict[str, str] = Field(description="of the software, with its commit")
    seeds: list[int]
    limit: int | None = Field(description="at most so many rows a task: a quick look, not a result")
    outcome: str = Field(description="pass, fail, not enough data or not judged, by `rules`")
    rules: str
    judgements: list[dict[str, Any]]
    signs: list[dict[str, Any]] = Field(description="which side each group's texts favour, before and after")
    spill_over: dict[str, Any] = Field(description="axes that were not treated: a joint statement and each figure")
    flips: list[dict[str, Any]] = Field(description="single answers that differ from the reference's")
    measures: list[Measure]
    note: str = NO_ADVICE


def make(model: Measured, reference: Measured | None, rules: str, about: About) -> Record:
    """The record of one model; the reference, if there is one, is the model before mitigation or compression."""
    both = reference or model
    named = read_rules(rules)
    measured = [rule for rule in named.rules if rule.label in model.figures]
    if not measured:
        wanted = ", ".join(named.tasks)
        raise ValueError(f"rules {rules}: the results have none of their tasks ({wanted}); evaluate them first")
    shared = [label for label in both.figures if label in model.figures]
    check_comparable(both, model, shared)
    known = [rule for rule in measured if reference or not rule.is_relative]
    judged = judge(known, both, model)
    left_out = {
        "not measured": list(dict.fromkeys(rule.label for rule in named.rules if rule not in measured)),
        "no reference": [f"{rule.figure} {rule.kind}" for rule in measured if rule not in known],
    }
    changes = spill_over(both, model) if reference else []
    return Record(
        made=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        about=about,
        missing=[name for name in About.model_fields if not getattr(about, name)],
        model=_model(model),
        reference=_model(reference) if reference else None,
        versions=dict(versions()),
        seeds=model.config["seeds"],
        limit=model.config.get("limit"),
        outcome=outcome(judged) if judged else "not judged",
        rules=named.name + "".join(f" (without {', '.join(own)}: {why})" for why, own in left_out.items() if own),
        judgements=as_dict(judged),
        signs=signs(both, model),
        spill_over={"statement": statement(changes), "figures": [_finite(c) | {"changed": c.changed} for c in changes]},
        flips=[_finite(found) for found in flips(both, model)] if reference else [],
        measures=[_measure(label, model, reference) for label in model.figures],
    )


def _finite(found: Any) -> dict[str, Any]:
    return {key: finite(x) for key, x in found._asdict().items()}


def _model(found: Measured) -> Model:
    source = str(found.config.get("models", {}).get(found.name, found.name))
    return Model(name=found.name, source=source, sha256=found.config.get("fingerprints", {}).get(found.name))


def _measure(label: str, model: Measured, reference: Measured | None) -> Measure:
    task = find_task(label.partition("@")[0])
    assert task is not None
    return Measure(
        task=label,
        definition=task.meaning,
        ideal=task.ideal,
        limits=task.not_measured,
        tier=task.tier,
        tier_reason=task.why,
        sources=list(dict.fromkeys([task.source, *task.sources])),
        data=f"{task.data}. {task.licence}",
        data_sha256=model.config["inputs"][label]["rows"],
        version=task.version,
        options=model.config["tasks"][label],
        figures={name: dict(figure) for name, figure in model.figures[label].items()},
        reference={name: dict(figure) for name, figure in reference.figures.get(label, {}).items()}
        if reference
        else {},
    )


def signs(a: Measured, b: Measured) -> list[dict[str, Any]]:
    """For each group: the share of male among male and female before and after, and which side its interval favours."""
    found = []
    for label, figures in b.figures.items():
        for name in figures:
            kind, _, group = name.partition("/")
            if kind == "male_share" and group and name in a.figures.get(label, {}):
                (before, one), (after, two) = (_side(side.figures[label][name]) for side in (a, b))
                sign = {"before": before, "after": after, "turned": {one, two} == {"male", "female"}}
                found.append({"task": label, "group": group, **sign, "favoured_before": one, "favoured_after": two})
    return found


def _side(figure: dict[str, Any]) -> tuple[float | None, str]:
    """A male share and the side that it favours."""
    if figure["low"] is None:
        return figure["value"], "not known"
    return figure["value"], "male" if figure["low"] > 0.5 else "female" if figure["high"] < 0.5 else "neither"


def read_about(path: Path | None) -> About:
    """The user's fields from a YAML file; ValueError, one line, for unknown fields and wrong types."""
    if path is None:
        return About.model_validate({})
    try:
        return About.model_validate(read_yaml(path) or {})
    except OSError as error:
        raise ValueError(f"--about {path}: {error.strerror}") from None
    except ValidationError as error:
        raise ValueError(f"{path}: {what_differs(error)} (fields: {', '.join(About.model_fields)})") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def page(record: Record) -> str:
    """The record as HTML: one file, without scripts, for a screen and for A4."""
    axes = {change["label"].partition("@")[0] for change in record.spill_over["figures"]}
    return render(
        Path(__file__).with_name("record.html"),
        record=record,
        about=[(name, field.description, getattr(record.about, name)) for name, field in About.model_fields.items()],
        columns=[(name, [j for j in record.judgements if j["rule"]["column"] == name]) for name in COLUMNS],
        disputed=any(TASKS[name].tier == "disputed" for name in axes),
        body=[measure for measure in record.measures if measure.tier != "disputed"],
        appendix=[measure for measure in record.measures if measure.tier == "disputed"],
        mapping=yaml.safe_load(MAPPING.read_text(encoding="utf-8")),
    )


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="evenhand record", description="Write an audit record: OUTPUT_DIR/audit.json and audit.html."
    )
    parser.add_argument("--model", metavar="B", help="FOLDER:NAME, a row of FOLDER/results.json")
    parser.add_argument("--reference", metavar="A", help="the same: the model before mitigation or compression")
    parser.add_argument("--rules", default="verdict", metavar="FILE", help="as for evenhand gate (default verdict)")
    parser.add_argument("--about", type=Path, metavar="FILE", help="YAML: " + ", ".join(About.model_fields))
    parser.add_argument("--output_dir", type=Path, default=Path("runs/audit"), metavar="DIR", help="default runs/audit")
    parser.add_argument("--schema", action="store_true", help="print the JSON Schema of audit.json and stop")
    options = parser.parse_args(list(arguments))
    if options.schema:
        print(json.dumps(Record.model_json_schema(), indent=1))
        return
    if not options.model:
        raise ValueError("name a model with --model FOLDER:NAME")
    reference = read(options.reference) if options.reference else None
    record = make(read(options.model), reference, options.rules, read_about(options.about))
    write_whole(options.output_dir / "audit.json", record.model_dump_json(indent=1) + "\n")
    write_whole(options.output_dir / "audit.html", page(record))
    print(f"{record.outcome}; {len(record.missing)} fields of --about missing; written to {options.output_dir}")
