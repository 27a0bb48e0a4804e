"""results.json of one or more runs → report.html: one file, no scripts, readable on a phone, in the dark and on paper.

It says first in words what changed and how sure that is (findings.py), then shows it (charts.py), then says how it was
measured. Layout and style: page.html, a jinja2 template.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from counterfactuals.files import write_whole
from eval.report import canvas, charts, privacy
from eval.report.findings import VERDICTS, changes, not_compared, sentences
from eval.report.table import column, fairness_and_utility, headlines, labels, method, name_of, notes, render
from eval.task import file_name

Result = Mapping[str, Any]
MAX_EXAMPLES = 12
MAX_COLUMNS = 6  # of the first table; the other figures are folded
# Gupta et al. 2022, Table 2: perplexity on WikiText-2 over that of their plain DistilGPT-2 (40.88), BOLD equitability.
PAPER_PLAIN = 40.88
PAPER = (
    ("paper: max", 41.11, 0.565),
    ("paper: plain", 40.88, 0.492),
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
            if "rows" not in results:  # older, of a single model
                results = {**results, "rows": [results]}
            assert isinstance(results.get("config", {}), dict)
            for row in results["rows"]:
                assert isinstance(row["model"], str)
                for figure in (figure for metrics in row["tasks"].values() for figure in metrics.values()):
                    assert isinstance(figure["value"], int | float | None)
        except FileNotFoundError:
            raise ValueError(f"{path}: no such file; name a folder that eval or train_distill.py wrote") from None
        except (ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
            raise ValueError(f"{path}: not a results file of this project ({error})") from None
        return cls(path.parent.resolve().name, path.parent, results)


class Section(NamedTuple):
    """A part of the page with pictures: heading, words, and HTML that is safe as it is."""

    name: str
    heading: str
    words: str
    content: str


def merged(studies: Sequence[Study]) -> list[dict[str, Any]]:
    """The rows of all studies; where two share a model's name, the study's name or folder stands before it.

    ValueError for a model that is there twice.
    """
    names = [row["model"] for study in studies for row in study.results["rows"]]
    folders, rows, seen = [study.name for study in studies], list[dict[str, Any]](), set[tuple[Path, str]]()
    for study in studies:
        name = study.name if folders.count(study.name) == 1 else str(study.folder)
        for row in study.results["rows"]:
            label = row["model"] if names.count(row["model"]) == 1 else f"{name}: {row['model']}"
            one = study.folder.resolve(), row["model"]
            if one in seen:
                raise ValueError(f"{study.folder}: model {row['model']!r} is there twice; name each folder once")
            seen.add(one)
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
    found = changes(rows, base)
    columns = chosen_columns(headlines(rows))
    others = [key for key in dict.fromkeys([*headlines(rows), *privacy.figures(rows)]) if key not in columns]
    content = render(
        Path(__file__).with_name("page.html"),
        title=title,
        base=base,
        models=known,
        sentences=sentences(rows, base, found),
        notes=[*_warnings(studies), *not_compared(rows, base)],
        changes=found,
        verdicts=VERDICTS,
        columns=[column(rows, *key) for key in columns],
        others=[column(rows, *key) for key in others],
        sections=[section for make in SECTIONS for section in make(rows, base)],
        examples=examples(rows),
        method=method(rows),
        studies=[_reproduce(study) for study in studies],
    )
    write_whole(path, content)
    return path


def _warnings(studies: Sequence[Study]) -> list[str]:
    """One line for each study that looked at some of the rows only."""
    configs = [study.results.get("config", {}) for study in studies]
    return list(dict.fromkeys(notes(config)[0] for config in configs if config.get("limit")))


# ---------------------------------------------------------------- tables


def chosen_columns(keys: Sequence[tuple[str, str]], most: int = MAX_COLUMNS) -> list[tuple[str, str]]:
    """The figures of the first table: one of each task, then one of each label, then others, while there is room."""
    tasks = {label.partition("@")[0]: (label, metric) for label, metric in reversed(keys)}
    labels = {label: (label, metric) for label, metric in reversed(keys)}
    order = dict.fromkeys([*reversed(tasks.values()), *reversed(labels.values()), *keys])
    chosen = set(list(order)[:most])
    return [key for key in keys if key in chosen]


# ---------------------------------------------------------------- pictures


def _by_group(rows: Sequence[Result], base: str) -> Iterator[Section]:
    """Male share by group, for every task that gives it."""
    first = [row["model"] for row in rows].index(base)
    for label in labels(rows):
        if charts.group_figures(rows, label):
            drawn = canvas.picture(
                lambda width, label=label: charts.groups(rows, label, width=width, reference=first),  # type: ignore[misc]
                f"Male share by group, {label}, one mark for each model",
            )
            words = (
                f"The share of male among male and female, group by group, sorted by {base}. Lines are 95 % "
                "intervals; hollow marks were counted over fewer than 5, or have no interval."
            )
            title = "Which groups moved, and where to" if len(rows) > 1 else "Share by group"
            yield Section(f"groups-{label}", f"{title} ({label})", words, drawn)


def _tradeoff(rows: Sequence[Result], base: str) -> Iterator[Section]:
    """Fairness against perplexity over that of `base`, with the paper's own figures beside."""
    keys = fairness_and_utility(rows)
    if not keys:
        return
    fairness, utility = keys
    level = next(
        row["tasks"].get(utility[0], {}).get(utility[1], {}).get("value") for row in rows if row["model"] == base
    )
    both = [row for row in rows if all(row["tasks"].get(t, {}).get(m, {}).get("value") is not None for t, m in keys)]
    if not level or len(both) < 2:
        return
    spots = charts.spots(both, utility, fairness, level=level)
    words = f"Perplexity of each model divided by {base}’s; crosses are 95 % intervals."
    words += " Blue: no other model beats it in both." * charts.is_crowded(spots)
    if base == "plain":
        spots += [charts.Spot(name, ppl / PAPER_PLAIN, fair, hollow=True) for name, ppl, fair in PAPER]
        words += (
            " Hollow: the figures of Gupta et al. (2022), GPT-2 to DistilGPT-2, BOLD and WikiText-2: other data and "
            "another measure. Compare directions, not values."
        )
    drawn = canvas.picture(
        lambda width: charts.tradeoff(
            spots,
            x_name=f"perplexity over that of {base} (left is better)",
            y_name=f"{name_of(*fairness)} (up is fairer)",
            width=width,
        ),
        "Equitability against perplexity, one mark for each model",
    )
    yield Section("tradeoff", "Fairness against perplexity", words, drawn)


def _gaps(rows: Sequence[Result], base: str) -> Iterator[Section]:
    """Further headline figures with an ideal value: one panel each."""
    panels = {}
    for label, metric in headlines(rows):
        figures = [row["tasks"].get(label, {}).get(metric) or {} for row in rows]
        known = [f if f.get("value") is not None and f.get("ideal") is not None else None for f in figures]
        if any(known) and not metric.endswith(("equitability_avg", "equitability_min")):
            panels[name_of(label, metric)] = known
    if panels:
        names = [row["model"] for row in rows]
        drawn = canvas.picture(
            lambda width: charts.strips(panels, names, width=width), "Other measures, one mark for each model"
        )
        words = "The upright line marks the ideal value; lines through marks are 95 % intervals. Scales differ."
        yield Section("gaps", "Other measures", words, drawn)


def _polarity(rows: Sequence[Result], base: str) -> Iterator[Section]:
    """How many sampled texts turned out male, neutral, female."""
    for label in labels(rows):
        if label.partition("@")[0] not in ("bold", "stories"):
            continue
        found = {row["model"]: {"male": 0, "neutral": 0, "female": 0} for row in rows}
        for model, scored in _scored(rows, label):
            if not scored.get("side"):  # a prompt that says which is no choice
                found[model][("male", "neutral", "female")[scored["unigram"] + 1]] += 1
        counts = {model: parts for model, parts in found.items() if any(parts.values())}
        if counts:
            described = "; ".join(
                f"{model}: {', '.join(f'{name} {count:,}' for name, count in parts.items())}"
                for model, parts in counts.items()
            )
            drawn = canvas.picture(lambda width, c=counts: charts.shares(c, width=width), described)  # type: ignore[misc]
            words = "Sampled texts by which words they hold more of, male or female; neutral: as many of both, or none."
            yield Section(f"polarity-{label}", f"What was written ({label})", words, drawn)


def _training(rows: Sequence[Result], base: str) -> Iterator[Section]:
    """Losses, and the figures that were taken while training; of a federated run, by round."""
    lines = {row["model"]: line for row in rows if (line := _metrics(row))}
    keys = {key: None for line in lines.values() for entry in line for key in entry if "/" in key or key == "loss"}
    panels = {}
    for key in keys:
        panels[_panel(key)] = {
            model: found
            for model, line in lines.items()
            if (found := [(entry["step"], entry[key]) for entry in line if entry.get(key) is not None])
        }
    panels = {name: found for name, found in panels.items() if found}
    if panels:
        rounds = {model: line[-1] for model, line in lines.items() if "asked" in line[-1]}
        unit = "optimizer step" if not rounds else "round" if len(rounds) == len(lines) else "optimizer step or round"
        drawn = canvas.picture(lambda width: charts.curves(panels, unit, width=width), f"Figures by {unit}")
        words = "Each model’s own objective; losses of models trained with different objectives cannot be compared."
        for model, last in rounds.items():
            asked, used = f"{last['asked']:,.0f}", f"{last.get('answered', 0):,.0f}"
            down, up = (f"{last.get(key, 0) / 1e6:,.1f} MB" for key in ("bytes_down", "bytes_up"))
            words += (
                f" {model}: {last['step']:,} rounds, {asked} clients asked, {used} answers used; {down} down, {up} up."
            )
        yield Section("training", "Training", words, drawn)


def _panel(key: str) -> str:
    """What a figure of metrics.jsonl is called above its panel."""
    which, _, rest = key.partition("_client/")
    if rest:
        return f"{which} client: {_panel(rest)}"
    return "training loss, nats a token" if key == "loss" else name_of(*key.split("/", 1))


def _privacy(rows: Sequence[Result], base: str) -> Iterator[Section]:
    """What attacks found."""
    for label in labels(rows):
        part = None
        if label.partition("@")[0] == "membership":
            scored: dict[str, list[Result]] = {}
            for model, entry in _scored(rows, label):
                scored.setdefault(model, []).append(entry)
            settings = next(row["study"].results["config"]["tasks"][label] for row in rows if label in row["tasks"])
            part = privacy.roc(scored, settings, label)
        elif label.partition("@")[0] == "exposure":
            part = privacy.epsilons(rows, label)
        if part:
            yield Section(label, *part)


SECTIONS = (_by_group, _tradeoff, _gaps, _polarity, _privacy, _training)


def examples(rows: Sequence[Result], most: int = MAX_EXAMPLES) -> list[dict[str, Any]]:
    """Continuations of a prompt and of its reversal, side by side: {"prompt", "reversed", "texts": {model: both}}."""
    texts: dict[tuple[str, str], dict[str, tuple[str, str]]] = {}
    for label in labels(rows):
        for model, scored in _scored(rows, label):
            if {"prompt", "reversed", "texts", "reversed_texts"} <= scored.keys():
                by_model = texts.setdefault((scored["prompt"], scored["reversed"]), {})
                by_model.setdefault(model, (scored["texts"][0], scored["reversed_texts"][0]))
    return [
        {"prompt": prompt, "reversed": reverse, "texts": found}
        for (prompt, reverse), found in list(texts.items())[:most]
    ]


def _metrics(row: Result) -> list[dict[str, Any]]:
    folder = row["study"].folder
    path = folder / row["label"] / "metrics.jsonl"
    return list(_jsonl(folder / "metrics.jsonl" if row["label"] == "student" and not path.is_file() else path))


def _scored(rows: Sequence[Result], label: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(model, score) of each row that a task scored; each file beside a results.json is read once, for all models."""
    models = {(row["study"].folder, row["label"]): row["model"] for row in rows if label in row["tasks"]}
    for folder in dict.fromkeys(folder for folder, _ in models):
        for entry in _jsonl(folder / f"rows-{file_name(label)}.jsonl"):
            if (folder, entry.get("model")) in models:
                yield models[folder, entry["model"]], entry


def _jsonl(path: Path) -> Iterator[dict[str, Any]]:
    if path.is_file():
        with path.open(encoding="utf-8") as file:  # splitlines would cut a text at U+2028 and its like
            try:
                yield from (json.loads(line) for line in file if line.strip())
            except ValueError as error:
                raise ValueError(f"{path}: cannot be read ({error}); evaluate the model once more") from None


# ---------------------------------------------------------------- how it was measured


def _reproduce(study: Study) -> dict[str, Any]:
    """A study's settings and versions, and the configuration files of its runs."""
    config, versions = dict(study.results.get("config", {})), study.results.get("versions", {})
    if len(seeds := config.get("seeds", ())) > 1:
        config["seed"] = ", ".join(map(str, seeds))
    facts = {"models": ", ".join(f"{k} = {v}" for k, v in config.get("models", {}).items())}
    facts |= {
        key: str(config[key])
        for key in ("reference", "data_dir", "seed", "batch_size", "device", "limit", "start_token", "chat")
        if config.get(key) not in (None, False)
    }
    facts |= {"tasks": json.dumps(config.get("tasks", {}), ensure_ascii=False)}
    facts |= {"versions": ", ".join(f"{name} {number}" for name, number in versions.items())}
    for file in sorted([*study.folder.glob("run.json"), *study.folder.glob("*/run.json")]):
        if found := json.loads(file.read_text(encoding="utf-8")).get("privacy"):
            own = f"ε = {found['epsilon']:.3g} at δ = {found['delta']:.1e} for one {found['unit']}"
            facts[f"privacy of {file.parent.name}"] = f"{own}. It does not cover {found['not_covered']}."
    files = sorted([*study.folder.glob("config.yaml"), *study.folder.glob("*/config.yaml")])
    settings = {str(file.relative_to(study.folder)): file.read_text(encoding="utf-8") for file in files}
    return {"name": study.name, "facts": {key: value for key, value in facts.items() if value}, "files": settings}


def main(arguments: Sequence[str]) -> None:
    """evenhand report RUN [RUN …]: one page that compares the models of finished runs."""
    parser = argparse.ArgumentParser(
        prog="evenhand report",
        description="Write a page that compares the models of runs: folders with results.json, as eval and "
        "train_distill.py leave them.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run's folder, or its results.json")
    parser.add_argument("--output", type=Path, default=Path("report.html"), metavar="FILE", help="default report.html")
    parser.add_argument(
        "--reference", metavar="MODEL", help="compare with this one (a lone run's own, else plain, else the first)"
    )
    parser.add_argument("--title", default="Evaluation", help="heading of the page")
    options = parser.parse_args(list(arguments))
    if options.output.suffix.lower() not in (".html", ".htm") or options.output.is_dir():
        raise ValueError(f"--output {options.output}: must be the name of an .html file")
    studies = [Study.load(run) for run in options.runs]
    print(write_page(studies, options.output, title=options.title, reference=options.reference))
