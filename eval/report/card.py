"""A trained model's README.md: Hub metadata, use, figures with intervals, how it was trained, limits.

The text is card.md, a jinja2 template.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from counterfactuals.files import write_whole
from eval.report.table import headlines, name_of, shown
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
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

    own = next(row for row in rows if row["model"] == model)
    source = settings["data"]["source"]
    figures = [
        (name_of(label, metric), [shown(row["tasks"].get(label, {}).get(metric)) for row in rows])
        for label, metric in headlines([own])
    ]
    texts = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=select_autoescape(["html"]),  # a card is Markdown
        undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    content = texts.get_template("card.md").render(
        **settings,
        metadata=_metadata(own, title, settings),
        title=title,
        trained=_trained(settings),
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


def _trained(settings: Mapping[str, Any]) -> str:
    loss, counterfactual, teacher = settings["loss"], settings["counterfactual"], settings["teacher"]["model"]
    if not teacher:
        return "A language model trained with cross-entropy."
    augmented = " and on the counterfactual texts as well" if counterfactual["augment"] != "none" else ""
    if loss["kd_weight"] == 0:
        return f"A language model trained with cross-entropy{augmented}."
    if loss["op"] == "none":
        return f"A language model distilled from a teacher{augmented}, without changing the teacher's predictions."
    carried = ", carried through the role reversal," if loss["vocabulary"] == "reversed" else ""
    own = " All texts were written by the teacher itself." if settings["data"]["source"] == "self" else ""
    return (
        "A language model distilled with counterfactual role reversal: the teacher's predictions on a text and on its "
        f"counterfactual{carried} were combined (`{loss['op']}`) before the student learned from them{augmented} "
        f"(Gupta et al., Findings of ACL 2022).{own}"
    )
