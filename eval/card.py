"""A trained model's README.md: Hub metadata, use, figures with intervals, how it was trained, limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from counterfactuals.files import write_whole
from eval.report import _name, headlines, shown
from eval.tasks import TASKS

Result = Mapping[str, Any]

LIMITS = """\
* The figures compare two genders in the sentences of the tasks above. They say nothing of people who are neither, of
  other attributes, or of what is said about whom.
* Intervals cover the choice of prompts and documents, not of training data or seed.
* A model that is even here can still harm downstream. Test the task you deploy.
* Role reversal exchanges words and names by rules; where it errs, the model has learned from the error."""

USE = """\
For research on compression and fairness, and as a base for fine-tuning and measuring. It writes text that may be false,
offensive or private; it is not meant to be used without review, nor to decide anything about people."""


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
    parts = [
        f"---\n{_metadata(own, title, settings)}---\n",
        f"# {title}\n",
        f"{_trained(settings)} Made with Evenhand, which measures what distillation does to gender disparity.\n",
        "## Intended use\n",
        USE + "\n",
        "## Figures\n",
        _table(rows, own),
        "In brackets: 95 % bootstrap intervals.\n",
        *[
            f"* **{label}**: {task.meaning}. Ideal: {task.ideal}."
            + (f" It does not measure: {task.not_measured}." if task.not_measured else "")
            for label in own["tasks"]
            if (task := TASKS.get(label.partition("@")[0]))
        ],
        "\n## Training\n",
        *_training(settings, facts),
        "\n## Limits\n",
        LIMITS + "\n",
        f"Versions: {', '.join(f'{name} {number}' for name, number in versions.items())}.\n",
    ]
    path = folder / "README.md"
    write_whole(path, "\n".join(parts))
    return path


def _metadata(own: Result, title: str, settings: Mapping[str, Any]) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    found = [
        EvalResult(
            task_type="text-generation",
            dataset_type=label.replace("@", "-"),
            dataset_name=label,
            metric_type=metric,
            metric_name=_name(label, metric),
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
    return data.to_yaml() + "\n"


def _trained(settings: Mapping[str, Any]) -> str:
    loss, counterfactual, teacher = settings["loss"], settings["counterfactual"], settings["teacher"]["model"]
    if not teacher:
        return "A language model trained with cross-entropy."
    augmented = " and on the counterfactual texts as well" if counterfactual["augment"] else ""
    if loss["kd_weight"] == 0:
        return f"A language model trained with cross-entropy{augmented}."
    if loss["op"] == "none":
        return f"A language model distilled from a teacher{augmented}, without changing the teacher's predictions."
    carried = ", carried through the role reversal," if loss["vocabulary"] == "reversed" else ""
    return (
        "A language model distilled with counterfactual role reversal: the teacher's predictions on a text and on its "
        f"counterfactual{carried} were combined (`{loss['op']}`) before the student learned from them{augmented} "
        "(Gupta et al., Findings of ACL 2022)."
    )


def _table(rows: Sequence[Result], own: Result) -> str:
    lines = ["| figure | " + " | ".join(f"{row['model']}" for row in rows) + " |", "|---|" + "---:|" * len(rows)]
    for label, metric in headlines([own]):
        cells = [shown(row["tasks"].get(label, {}).get(metric)) for row in rows]
        lines.append(f"| {_name(label, metric)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _training(settings: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    data, loss, optim = settings["data"], settings["loss"], settings["optim"]
    share = facts.get("with_counterfactual")
    source = Path(data["source"]).name if Path(data["source"]).exists() else data["source"]
    lines = [f"* Text: `{source}`, at most {data['max_length']} tokens a sequence."]
    if share is not None:
        lines.append(f"* {facts['pairs']:,} sequences, {share:.0%} of them with a counterfactual.")
    lines.append(
        f"* {facts['steps']:,} steps of {settings['train']['batch_size']} sequences, peak learning rate "
        f"{optim['lr']:g}, seed {settings['seed']}; {facts['parameters']:,} parameters."
    )
    lines.append(
        f"* Loss: {loss['lm_weight']:g} × cross-entropy + {loss['kd_weight']:g} × {loss['divergence']} divergence at "
        f"temperature {loss['tau']:g}; op `{loss['op']}`, {loss['vocabulary']} vocabulary."
    )
    return lines
