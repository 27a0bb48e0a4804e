"""results.json of one or more runs → report.html: one file, no scripts, readable on a phone, in the dark and on paper.

It says first in words what changed and how sure that is, then shows it, then says how it was measured. Layout and
style: page.html; drawings: charts.py.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from counterfactuals.files import write_whole
from eval import charts
from eval.charts import Point, Spot
from eval.report import _name, headlines, shown
from eval.tasks import TASKS

Result = Mapping[str, Any]
MAX_EXAMPLES = 12
# Gupta et al. 2022, Table 2: perplexity on WikiText-2 over that of their plain DistilGPT-2 (40.88), BOLD equitability.
PAPER_PLAIN = 40.88
PAPER = (
    ("paper: GPT-2", 25.17, 0.561),
    ("paper: plain", 40.88, 0.492),
    ("paper: max", 41.11, 0.565),
    ("paper: aug", 40.93, 0.748),
    ("paper: max + aug", 41.73, 0.901),
)


@dataclass(frozen=True)
class Study:
    """A folder with results.json, as `eval` and `train_distill.py` write it."""

    name: str
    folder: Path
    results: Result

    @classmethod
    def load(cls, folder: str | Path) -> Study:
        """ValueError, one line, if there is no results.json or it is not ours."""
        path = Path(folder)
        path = path if path.is_file() else path / "results.json"
        try:
            results = json.loads(path.read_text(encoding="utf-8"))
            if "rows" not in results:  # of a single model
                results = {"rows": [{"model": results.pop("model"), "tasks": results.pop("tasks")}], **results}
            for row in results["rows"]:
                for metrics in row["tasks"].values():
                    assert all("value" in figure for figure in metrics.values())
        except FileNotFoundError:
            raise ValueError(f"{path}: no such file; name a folder that eval or train_distill.py wrote") from None
        except (ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
            raise ValueError(f"{path}: not a results file of this project ({error})") from None
        return cls(path.parent.name, path.parent, results)


def merged(studies: Sequence[Study]) -> list[dict[str, Any]]:
    """The rows of all studies; a model's name is led by its study's where two share it."""
    names = [row["model"] for study in studies for row in study.results["rows"]]
    rows = []
    for study in studies:
        for row in study.results["rows"]:
            label = row["model"] if names.count(row["model"]) == 1 else f"{study.name}: {row['model']}"
            rows.append({**row, "model": label, "label": row["model"], "study": study})
    return rows


def write_page(
    studies: Sequence[Study], path: Path, *, title: str = "Evaluation", reference: str | None = None
) -> Path:
    """Write the page. `reference`: the model the others are compared with.

    By default that of the results, if they are of one study; else plain, else the first model.
    """
    rows = merged(studies)
    if not rows:
        raise ValueError("no model in these results")
    known = [row["model"] for row in rows]
    if reference is not None and reference not in known:
        raise ValueError(f"reference {reference!r}: not among the models ({', '.join(known)})")
    own = studies[0].results.get("config", {}).get("reference", "") if len(studies) == 1 else ""
    base: str = reference or next((name for name in (own, "plain") if name in known), known[0])
    template = Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
    pictures = [picture for make in PICTURES if (picture := make(rows, base))]
    content = template.substitute(
        title=escape(title),
        subtitle=escape(", ".join(known)),
        findings=_findings(rows, base),
        table=_table(rows),
        sprite=charts.sprite(),
        pictures="\n".join(pictures),
        method=_method(rows),
        reproduce="\n".join(_reproduce(study) for study in studies),
    )
    write_whole(path, content)
    return path


# ---------------------------------------------------------------- in words


def _lower_is_better(metric: str) -> bool:
    return metric.startswith("perplexity")


def _findings(rows: Sequence[Result], base: str) -> str:
    """What each model gained and lost against `base`, by whether the intervals lie apart."""
    first = next(row for row in rows if row["model"] == base)
    lines = []
    for row in rows:
        if row is first:
            continue
        said: dict[str, list[str]] = {}
        for label, metric in headlines(rows):
            difference = _differences(row, first).get(label, {}).get(metric)
            verdict, sentence = _change(label, metric, first["tasks"], row["tasks"], difference)
            if sentence:
                said.setdefault(verdict, []).append(sentence)
        if said:
            parts = [
                f"<span><i class='{kind}'>{verdict}</i>: {'; '.join(said[verdict])}</span>"
                for verdict, kind in VERDICTS.items()
                if verdict in said
            ]
            lines.append(f"<li><b>{escape(row['model'])}</b>{''.join(parts)}</li>")
    if not lines:
        cells = [
            f"{escape(_name(label, metric))} <b>{escape(shown(first['tasks'].get(label, {}).get(metric)))}</b>"
            for label, metric in headlines(rows)
        ]
        return f"<p>{escape(base)}: {'; '.join(cells)}. In brackets: 95 % intervals.</p>"
    return (
        f"<p>Compared with <b>{escape(base)}</b>:</p><ul class='findings'>{''.join(lines)}</ul>"
        "<p class='soft'>Clearly: the 95 % interval of the difference over the same prompts and texts leaves out 0; "
        "of models not measured together, their intervals lie apart. They cover the "
        "training seed only where rows are means over seeds.</p>"
    )


VERDICTS = {"Clearly better": "good", "Clearly worse": "bad", "Clearly different": "", "No clear difference": "soft"}


def _differences(row: Result, first: Result) -> Mapping[str, Any]:
    """The row's figures minus those of `first`, over the same resamples; none where they are of two studies."""
    if row["study"] is first["study"]:
        for found in row["study"].results.get("differences") or ():
            if (found["model"], found["minus"]) == (row["label"], first["label"]):
                return found["tasks"]
    return {}


def _change(
    label: str, metric: str, before: Result, after: Result, difference: Result | None = None
) -> tuple[str, str]:
    one, two = (tasks.get(label, {}).get(metric) for tasks in (before, after))
    if not one or not two or one.get("value") is None or two.get("value") is None:
        return "", ""
    a, b = one["value"], two["value"]
    bounds = [figure.get(key) for figure in (one, two) for key in ("low", "high")]
    apart = None not in bounds and (bounds[1] < bounds[2] or bounds[3] < bounds[0])
    if difference and difference.get("low") is not None:
        apart = difference["low"] > 0 or difference["high"] < 0
    ideal = one.get("ideal")
    if not apart:
        verdict = "No clear difference"
    elif ideal is not None and (a - ideal) * (b - ideal) < 0 and not _far_apart(one, two, ideal):
        verdict = "Clearly different"  # on either side of the ideal: neither is clearly the nearer
    elif ideal is not None:
        verdict = "Clearly better" if abs(b - ideal) < abs(a - ideal) else "Clearly worse"
    elif _lower_is_better(metric):
        verdict = "Clearly better" if b < a else "Clearly worse"
    else:
        verdict = "Clearly different"
    percent = f" ({100 * (b / a - 1):+.1f} %)".replace("-", "−") if _lower_is_better(metric) and a > 0 else ""
    return verdict, f"{escape(_name(label, metric))} {shown({'value': a})} → {shown({'value': b})}{percent}"


def _far_apart(one: Result, two: Result, ideal: float) -> bool:
    """Whether the intervals of two figures' distances from the ideal lie apart."""
    ranges = []
    for figure in (one, two):
        if figure.get("low") is None or figure.get("high") is None:
            return False
        ends = sorted(abs(figure[key] - ideal) for key in ("low", "high"))
        ranges.append((0.0 if figure["low"] <= ideal <= figure["high"] else ends[0], ends[1]))
    (low, high), (other_low, other_high) = ranges
    return high < other_low or other_high < low


def _table(rows: Sequence[Result]) -> str:
    columns = headlines(rows)
    heads = []
    for label, metric in columns:
        figures = [row["tasks"].get(label, {}).get(metric) or {} for row in rows]
        ideal = next((f["ideal"] for f in figures if f.get("ideal") is not None), None)
        hint = f"ideal {ideal:g}" if ideal is not None else "lower is better" if _lower_is_better(metric) else ""
        name = escape(_name(label, metric)).replace("@", "<wbr>@")
        heads.append(f"<th class='n'>{name}<small>{hint}</small></th>")
    body = []
    for k, row in enumerate(rows):
        cells = []
        for label, metric in columns:
            value, bracket, bounds = shown(row["tasks"].get(label, {}).get(metric)).partition(" [")
            cells.append(f"<td class='n'>{value}<small>{bracket.strip() + bounds}</small></td>")
        body.append(f"<tr><th scope='row'>{charts.mark(k)}{escape(row['model'])}</th>{''.join(cells)}</tr>")
    return f"<table><thead><tr><th>Model</th>{''.join(heads)}</tr></thead><tbody>{''.join(body)}</tbody></table>"


# ---------------------------------------------------------------- in pictures


def _section(name: str, heading: str, words: str, content: str) -> str:
    return f'<section id="{name}"><h2>{escape(heading)}</h2><p class="soft">{words}</p>{content}</section>'


def _point(series: int, figure: Result) -> Point:
    return Point(series, figure["value"], figure.get("low"), figure.get("high"))


def _by_group(rows: Sequence[Result], base: str) -> str:
    """Male share by group, or another share that a task gives for each group."""
    names = [row["model"] for row in rows]
    first = names.index(base)
    out = []
    for label in dict.fromkeys(label for row in rows for label in row["tasks"]):
        groups: dict[str, list[Point]] = {}
        for k, row in enumerate(rows):
            for metric, figure in row["tasks"].get(label, {}).items():
                kind, slash, group = metric.partition("/")
                if kind == "male_share" and slash and figure.get("value") is not None:
                    groups.setdefault(group.replace("_", " "), []).append(_point(k, figure))
        if not groups:
            continue

        def place(item: tuple[str, Sequence[Point]]) -> float:
            return next((point.value for point in item[1] if point.series == first), 0.5)

        drawn = charts.dots(
            dict(sorted(groups.items(), key=place)),
            names,
            span=(0, 1),
            reference=0.5,
            labels={0: "all female", 0.5: "parity", 1: "all male"},
            describe=f"Male share by group, {label}, one mark for each model",
        )
        words = (
            f"{escape(_name(label, label))}: the share of male among male and female, group by group, in the order of "
            f"{escape(base)}. The line marks parity; bars are 95 % intervals."
        )
        out.append(
            _section(f"groups-{label}", f"Who moved, and where to ({label})", words, charts.legend(names) + drawn)
        )
    return "\n".join(out)


def _tradeoff(rows: Sequence[Result], base: str) -> str:
    """Fairness against perplexity over that of `base`, with the paper's own figures beside."""
    lines = headlines(rows)
    utility = next((key for key in lines if _lower_is_better(key[1])), None)
    fairness = next((key for key in lines if key[1].endswith("equitability_avg")), None)
    if not utility or not fairness:
        return ""

    def figure(row: Result, key: tuple[str, str]) -> Result:
        return row["tasks"].get(key[0], {}).get(key[1]) or {}

    level = next((figure(row, utility).get("value") for row in rows if row["model"] == base), None)
    if not level:
        return ""
    spots = []
    for k, row in enumerate(rows):
        x, y = figure(row, utility), figure(row, fairness)
        if x.get("value") is None or y.get("value") is None:
            continue
        spots.append(
            Spot(
                row["model"],
                x["value"] / level,
                y["value"],
                k,
                None if x.get("low") is None else (x["low"] / level, x["high"] / level),
                None if y.get("low") is None else (y["low"], y["high"]),
            )
        )
    if len(spots) < 2:
        return ""
    paper = base == "plain"
    if paper:
        spots += [Spot(name, ppl / PAPER_PLAIN, fair, hollow=True) for name, ppl, fair in PAPER[1:]]
    drawn = charts.scatter(
        spots,
        x_name=f"perplexity over that of {base} ({utility[0]}), left is better",
        y_name=f"{_name(*fairness)}, up is fairer",
        y_span=(-0.02, 1.06),
        y_reference=(1.0, "parity"),
        describe="Equitability against perplexity, one mark for each model",
    )
    words = f"Perplexity of each model divided by {escape(base)}’s; crosses are 95 % intervals."
    if paper:
        words += (
            " Hollow: the figures of Gupta et al. (2022), GPT-2 to DistilGPT-2, BOLD and WikiText-2: other data and "
            "another measure. Compare directions, not values."
        )
    return _section("tradeoff", "Fairness against perplexity", words, drawn)


def _polarity(rows: Sequence[Result], base: str) -> str:
    """How many sampled texts turned out male, neutral, female."""
    out = []
    for label in dict.fromkeys(label for row in rows for label in row["tasks"]):
        if label.partition("@")[0] != "bold":
            continue
        found = {row["model"]: {-1: 0, 0: 0, 1: 0} for row in rows}
        for model, scored in _scored(rows, label):
            found[model][scored["unigram"]] += 1
        counts = {
            model: [("male", polar[-1]), ("neutral", polar[0]), ("female", polar[1])]
            for model, polar in found.items()
            if any(polar.values())
        }
        if counts:
            words = "Sampled texts by which words they hold more of, male or female; neutral: as many of both, or none."
            out.append(_section(f"polarity-{label}", f"What was written ({label})", words, charts.shares(counts)))
    return "\n".join(out)


def _training(rows: Sequence[Result], base: str) -> str:
    """Losses, and the figures that were taken while training."""
    lines = {row["model"]: _metrics(row) for row in rows}
    keys = {key: None for line in lines.values() for entry in line for key in entry if "/" in key or key == "loss"}
    parts = []
    for key in keys:
        series = {
            model: found
            for model, line in lines.items()
            if (found := [(entry["step"], entry[key]) for entry in line if entry.get(key) is not None])
        }
        name = "training loss, nats a token" if key == "loss" else _name(*key.split("/", 1))
        drawn = charts.curves(series, x_name="optimizer step", y_name=name, describe=f"{name} by step")
        parts.append(charts.legend(list(series)) + drawn)
    if not parts:
        return ""
    words = "Each model’s own objective; losses of models trained with different objectives cannot be compared."
    return _section("training", "Training", words, "".join(parts))


def _metrics(row: Result) -> list[dict[str, Any]]:
    folder = row["study"].folder
    path = folder / row["label"] / "metrics.jsonl"
    return list(_jsonl(folder / "metrics.jsonl" if row["label"] == "student" and not path.is_file() else path))


def _gaps(rows: Sequence[Result], base: str) -> str:
    """Further headline figures with an ideal: one panel each."""
    names = [row["model"] for row in rows]
    panels = []
    for label, metric in headlines(rows):
        points = [
            _point(k, figure)
            for k, row in enumerate(rows)
            if (figure := row["tasks"].get(label, {}).get(metric)) and figure.get("value") is not None
        ]
        ideal = next((f["ideal"] for row in rows if (f := row["tasks"].get(label, {}).get(metric))), None)
        if ideal is None or metric.endswith(("equitability_avg", "equitability_min")) or not points:
            continue
        values = [v for p in points for v in (p.value, p.low, p.high, ideal) if v is not None]
        pad = 0.06 * ((max(values) - min(values)) or 1)
        panel = charts.dots(
            {_name(label, metric): points}, names, span=(min(values) - pad, max(values) + pad), reference=ideal
        )
        panels.append(panel)
    if not panels:
        return ""
    words = "The line marks the ideal value; bars are 95 % intervals. Scales differ."
    return _section("gaps", "Other measures", words, charts.legend(names) + "".join(panels))


def _examples(rows: Sequence[Result], base: str) -> str:
    """Continuations of a prompt and of its reversal, side by side."""
    texts: dict[tuple[str, str], dict[str, tuple[str, str]]] = {}
    for label in dict.fromkeys(label for row in rows for label in row["tasks"]):
        for model, scored in _scored(rows, label):
            if {"prompt", "reversed", "texts", "reversed_texts"} <= scored.keys():
                by_model = texts.setdefault((scored["prompt"], scored["reversed"]), {})
                by_model.setdefault(model, (scored["texts"][0], scored["reversed_texts"][0]))
    if not texts:
        return ""
    parts = []
    for (prompt, reverse), found in list(texts.items())[:MAX_EXAMPLES]:
        lines = "".join(
            f"<tr><th scope='row'>{escape(model)}</th><td>{escape(text)}</td><td>{escape(other)}</td></tr>"
            for model, (text, other) in found.items()
        )
        head = f"<tr><th></th><th>{escape(prompt)} …</th><th>{escape(reverse)} …</th></tr>"
        parts.append(
            f"<div class='scroll'><table class='pairs'><thead>{head}</thead><tbody>{lines}</tbody></table></div>"
        )
    words = "Sampled with one seed; the first text of each, not the best. What models write is not what we say."
    return _section("examples", "A prompt and its reversal", words, "".join(parts))


PICTURES = (_by_group, _tradeoff, _gaps, _polarity, _examples, _training)


def _scored(rows: Sequence[Result], label: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(model, score) of each row that a task scored; each file beside a results.json is read once, for all models."""
    models = {(row["study"].folder, row["label"]): row["model"] for row in rows if label in row["tasks"]}
    for folder in dict.fromkeys(folder for folder, _ in models):
        for entry in _jsonl(folder / f"rows-{label}.jsonl"):
            if (folder, entry.get("model")) in models:
                yield models[folder, entry["model"]], entry


def _jsonl(path: Path) -> Iterator[dict[str, Any]]:
    if path.is_file():
        with path.open(encoding="utf-8") as file:  # splitlines would cut a text at U+2028 and its like
            yield from (json.loads(line) for line in file if line.strip())


# ---------------------------------------------------------------- how it was measured


def _method(rows: Sequence[Result]) -> str:
    lines = []
    for label in dict.fromkeys(label for row in rows for label in row["tasks"]):
        task = TASKS.get(label.partition("@")[0])
        if task is None:
            continue
        limits = f" It does not measure: {escape(task.not_measured)}." if task.not_measured else ""
        lines.append(
            f"<dt>{escape(label)}</dt><dd>{escape(task.meaning)}. Ideal: {escape(task.ideal)}.{limits} "
            f"<span class='soft'>{escape(task.source)}</span></dd>"
        )
        bands = [
            f"{escape(row['model'])} {escape(shown(band))}"
            for row in rows
            if (band := row["tasks"].get(label, {}).get("fair_band_avg")) and band["value"] is not None
        ]
        if bands:
            lines.append(
                "<dt></dt><dd>A perfectly fair model with as many polar texts would by chance score on average over "
                f"groups: {'; '.join(bands)}.</dd>"
            )
    return f"<dl>{''.join(lines)}</dl>"


def _reproduce(study: Study) -> str:
    config, versions = dict(study.results.get("config", {})), study.results.get("versions", {})
    if len(seeds := config.get("seeds", ())) > 1:
        config["seed"] = ", ".join(map(str, seeds))
    facts = [("models", ", ".join(f"{k} = {v}" for k, v in config.get("models", {}).items()))]
    facts += [
        (key, str(config[key]))
        for key in ("reference", "data_dir", "seed", "batch_size", "device", "limit")
        if key in config
    ]
    facts += [("tasks", json.dumps(config.get("tasks", {}), ensure_ascii=False))]
    facts += [("versions", ", ".join(f"{name} {number}" for name, number in versions.items()))]
    items = "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in facts if value)
    files = sorted([*study.folder.glob("config.yaml"), *study.folder.glob("*/config.yaml")])
    settings = "".join(
        f"<details><summary>{escape(str(file.relative_to(study.folder)))}</summary>"
        f"<pre>{escape(file.read_text(encoding='utf-8'))}</pre></details>"
        for file in files
    )
    return f"<h3>{escape(study.name)}</h3><dl>{items}</dl>{settings}"


def main(arguments: Sequence[str]) -> int:
    """python -m eval report RUN [RUN …]: one page that compares the models of finished runs."""
    parser = argparse.ArgumentParser(
        prog="python -m eval report",
        description="Write a page that compares the models of runs: folders with results.json, as eval and "
        "train_distill.py leave them.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run's folder, or its results.json")
    parser.add_argument("--out", type=Path, default=Path("report.html"), metavar="FILE", help="default report.html")
    parser.add_argument(
        "--reference", metavar="MODEL", help="compare with this one (a lone run's own, else plain, else the first)"
    )
    parser.add_argument("--title", default="Evaluation", help="heading of the page")
    options = parser.parse_args(list(arguments))
    try:
        studies = [Study.load(run) for run in options.runs]
        print(write_page(studies, options.out, title=options.title, reference=options.reference))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
