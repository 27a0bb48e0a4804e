"""A trained model's README.md: Hub metadata, use, figures with intervals, how it was trained, limits.

The text is card.md, a jinja2 template.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from counterfactuals.files import write_whole
from eval.report.table import headlines, name_of, render, shown
from eval.tasks import TASKS

Result = Mapping[str, Any]


def write_card(
    folder: Path,
    rows: Sequence[Result],
    *,
    model: str,
    title: str,
    settings: Mapping[str, Any],
    facts: Mapping[str, Any],
    versions: Mapping[str, str],
) -> Path:
    """Write FOLDER/README.md for the model of the row named `model`; the other rows stand beside it in the table.

    settings: the run's resolved configuration; facts: its run.json.
    """
    own = next(row for row in rows if row["model"] == model)
    source = settings["data"]["source"]
    figures = [
        (name_of(label, metric), [shown(row["tasks"].get(label, {}).get(metric)) for row in rows])
        for label, metric in headlines([own])
    ]
    content = render(
        Path(__file__).with_name("card.md"),
        **settings,
        metadata=_metadata(own, title, settings),
        title=title,
        models=[row["model"] for row in rows],
        figures=figures,
        tasks=[(label, task) for label in own["tasks"] if (task := TASKS.get(label.partition("@")[0]))],
        source=Path(source).name if Path(source).exists() else source,
        facts={"with_counterfactual": None, "privacy": None, **facts},
        versions=", ".join(f"{name} {number}" for name, number in versions.items()),
    )
    path = folder / "README.md"
    write_whole(path, content)
    return path


def _metadata(own: Result, title: str, settings: Mapping[str, Any]) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    found = [
        EvalResult(
            task_type="text-generation",
            dataset_type=label.replace("@", "-"),
            dataset_name=label,
            metric_type=metric,
            metric_name=name_of(label, metric),
            metric_value=own["tasks"][label][metric]["value"],
        )
        for label, metric in headlines([own])
        if own["tasks"][label][metric]["value"] is not None
    ]
    teacher = settings["teacher"]["model"]
    hub_name = (
        teacher if teacher and not teacher.startswith(("run:", "/", ".")) and not Path(teacher).exists() else None
    )
    data = ModelCardData(
        language="en",
        library_name="transformers",
        pipeline_tag="text-generation",
        base_model=hub_name,
        tags=["evenhand", "distillation", "fairness", "gender-bias"],
        model_name=title,
        eval_results=found or None,
    )
    return data.to_yaml()
