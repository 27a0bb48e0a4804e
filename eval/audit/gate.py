"""evenhand gate: may model B be released, given reference A and rules? Exit code 0 pass, 1 fail, 3 not enough data."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from counterfactuals.files import write_whole
from eval.audit.judge import FAIL, PASS, UNSURE, Judgement, judge
from eval.audit.measured import Measured, check_comparable, is_run, read, split
from eval.audit.power import plan
from eval.audit.rules import COLUMNS, Rules, read_rules
from eval.report.page import Study
from eval.run import evaluate, write_json
from eval.task import finite, suggest

CODES = {PASS: 0, FAIL: 1, UNSURE: 3}


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(
        prog="evenhand gate",
        description="Judge a model against a reference by rules: pass (exit code 0), fail (1), not enough data (3). "
        "Writes OUTPUT_DIR/gate.json and gate.xml (JUnit).",
    )
    where = "a model (folder or Hub name), or FOLDER:NAME, a row of FOLDER/results.json"
    out.add_argument("--reference", required=True, metavar="A", help=where)
    out.add_argument("--model", metavar="B", help=f"{where}; with --plan it may be left out")
    sets = "rules.yaml, or a built-in set: release, compression, debiasing, verdict (default release)"
    out.add_argument("--rules", default="release", metavar="FILE", help=sets)
    out.add_argument("--plan", action="store_true", help="judge nothing: say how many rows each rule needs")
    out.add_argument("--output_dir", type=Path, default=Path("runs/gate"), metavar="DIR", help="default runs/gate")
    out.add_argument(
        "--data_dir", type=Path, metavar="DIR", help="of models to measure (default the other side's, or data)"
    )
    out.add_argument("--limit", type=int, metavar="N", help="at most N rows a task, where neither side has results yet")
    out.add_argument("--device", metavar="NAME", help="of models to measure: cuda if there is one, else cpu")
    out.add_argument("--trust_remote_code", action="store_true", help="run code that comes with a Hub model")
    return out


def both(options: argparse.Namespace, rules: Rules) -> tuple[Measured, Measured]:
    """The reference and the model, each read from its results or measured now, with what the rules need of both."""
    labels = list(dict.fromkeys(rule.label for rule in rules.rules))
    sources = {"reference": options.reference, "model": options.model or options.reference}
    found = {side: read(source, labels) for side, source in sources.items() if is_run(source)}
    if found and options.limit is not None:
        raise ValueError(f"--limit: the {' and the '.join(found)} has results already; leave it out")
    if len(found) < len(sources):
        found |= _measure(
            {side: source for side, source in sources.items() if side not in found}, options, rules, found
        )
    a, b = found["reference"], found["model"]
    check_comparable(a, b, [label for label in labels if label in a.figures and label in b.figures])
    return a, b


def _measure(
    models: Mapping[str, str], options: argparse.Namespace, rules: Rules, found: Mapping[str, Measured]
) -> dict[str, Measured]:
    """Evaluate what has no results: as the other side was evaluated, or as the rules say."""
    settings: dict[str, Any] = {"data_dir": options.data_dir or "data", "limit": options.limit}
    tasks: Mapping[str, Any] = rules.tasks
    there = options.output_dir / "results.json"
    if there.is_file():
        names = {row["model"] for row in Study.load(there).results["rows"]}
        is_side = any(there.samefile(other.folder / there.name) for other in found.values())
        if is_side or names - {"reference", "model"}:
            raise ValueError(f"--output_dir {options.output_dir}: holds other results; name another folder")
    for source in models.values():
        if ":" in source and not Path(source).exists():
            raise ValueError(f"{source}: there is no results.json in {split(source)[0]}; name a folder that eval wrote")
    for other in found.values():
        for rule in rules.rules:
            if rule.label not in other.config["tasks"]:
                raise ValueError(f"{rule.figure}: {other.name}: {suggest(rule.label, other.config['tasks'], 'task')}")
        tasks = {rule.label: other.config["tasks"][rule.label] for rule in rules.rules}
        same = ("seeds", "limit", "start_token", "chat")
        settings |= {key: other.config[key] for key in same if key in other.config}
        settings["data_dir"] = options.data_dir or other.config["data_dir"]
    given = {"output_dir": options.output_dir, "device": options.device, "trust_remote_code": options.trust_remote_code}
    evaluate(models, tasks, **settings, **given)
    return {side: read(f"{options.output_dir}:{side}") for side in models}


def outcome(judged: Sequence[Judgement]) -> str:
    verdicts = {found.verdict for found in judged}
    return next(verdict for verdict in (FAIL, UNSURE, PASS) if verdict in verdicts)


def summary(judged: Sequence[Judgement]) -> str:
    """One line: the outcome, how many rules came out how, and the first that did not pass."""
    counts = ", ".join(f"{n} {verdict}" for verdict in CODES if (n := sum(f.verdict == verdict for f in judged)))
    first = next((found for found in judged if found.verdict == outcome(judged) != PASS), None)
    return f"gate: {outcome(judged)} ({counts})" + (f"; {first.text}" if first else "")


def as_dict(judged: Sequence[Judgement]) -> list[dict[str, Any]]:
    """The judgements for JSON; undefined numbers are null."""
    fields = [asdict(found) | {"text": found.text, "wanted": found.rule.meaning} for found in judged]
    return [{key: finite(x) for key, x in own.items()} for own in fields]


def junit(judged: Sequence[Judgement], name: str) -> str:
    """JUnit XML: a test case for each rule; what fails is a failure, what needs more data an error."""
    count = {verdict: str(sum(found.verdict == verdict for found in judged)) for verdict in CODES}
    totals = {"tests": str(len(judged)), "failures": count[FAIL], "errors": count[UNSURE]}
    root = ElementTree.Element("testsuites", totals)
    suite = ElementTree.SubElement(root, "testsuite", {"name": f"evenhand gate {name}", **totals})
    for found in judged:
        rule = found.rule
        case = ElementTree.SubElement(
            suite, "testcase", {"classname": rule.label, "name": f"{rule.metric} {rule.meaning}"}
        )
        if found.verdict != PASS:
            kind = "failure" if found.verdict == FAIL else "error"
            ElementTree.SubElement(case, kind, {"message": found.text, "type": found.verdict}).text = found.text
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def show(judged: Sequence[Judgement]) -> str:
    """The judgements, a line each, in the columns that a reader has to keep apart."""
    lines = []
    for column in COLUMNS:
        own = [found for found in judged if found.rule.column == column]
        lines += [f"{column}:", *(f"  {found.text}" for found in own)] if own else []
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    options = parser().parse_args(list(arguments))
    rules = read_rules(options.rules)
    if not options.plan and not options.model:
        raise ValueError("name a model with --model")
    a, b = both(options, rules)
    if options.plan:
        print("\n".join(plan(rules.rules, a, b if options.model else None)))
        return 0
    judged = judge(rules.rules, a, b)
    options.output_dir.mkdir(parents=True, exist_ok=True)
    told = {"outcome": outcome(judged), "rules": rules.name, "reference": options.reference, "model": options.model}
    write_json(options.output_dir / "gate.json", told | {"judgements": as_dict(judged)})
    write_whole(options.output_dir / "gate.xml", junit(judged, rules.name))
    print(f"{show(judged)}\n{summary(judged)}")
    return CODES[outcome(judged)]
