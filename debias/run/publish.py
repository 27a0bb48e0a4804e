"""Send finished models and their results to the Hub and to Weights & Biases."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from counterfactuals.files import one_line
from debias.run.tracking import WandbSink, in_a_sweep

Result = Mapping[str, Any]
MAX_TEXTS = 200  # rows of a table of generated pairs


def check_push(repo: str | None, runs: Sequence[str]) -> None:
    """Refuse now what the Hub would refuse after training: a bad name, one name for several models, no token."""
    if repo is None:
        return
    from huggingface_hub import get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    if len(runs) > 1 and "{run}" not in repo:
        raise ValueError(f"hub.repo: {repo}: needs {{run}} in it, since {len(runs)} models are trained")
    try:
        for run in runs:
            validate_repo_id(repo.replace("{run}", run or "student"))
    except HFValidationError as error:
        raise ValueError(f"hub.repo: {repo}: {one_line(error)}") from None
    if not get_token():
        raise ValueError("hub.repo: pushing needs `hf auth login` or HF_TOKEN")


def push(folder: Path, repo: str, *, private: bool) -> str:
    """Upload a model's folder with its card; returns the address of the commit. ValueError if the Hub refuses."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi()
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=repo, folder_path=folder, commit_message="Model trained with Evenhand"))
    except (HfHubHTTPError, OSError) as error:
        raise ValueError(
            f"hub.repo: {repo}: {str(error).splitlines()[0]}; the model is in {folder}, run again to push it"
        ) from None


def to_wandb(
    rows: Sequence[Result],
    headlines: Sequence[tuple[str, str]],
    output: Path,
    runs: Mapping[str, str],
    *,
    title: str,
    pair_sets: Mapping[str, Path] | None = None,
    examples: Sequence[Mapping[str, Any]] = (),
    **options: Any,
) -> None:
    """Results of a study: in the summary of each model's run, and as tables and charts in a run of their own.

    headlines: (task, metric) of the main table. runs: row → folder of its run under `output`. pair_sets: row → pair
    set it was trained on; if given, each model is stored as an artifact, and its pair set by reference. examples: pairs
    of texts, {"prompt", "reversed", "texts": {model: (after one, after the other)}}. options: of WandbSink.
    """
    for row in rows:
        folder = runs.get(row["model"])
        if folder is not None and (output / folder / "wandb.json").exists():
            _finish_run(row, output / folder, pair_sets, options)
    if in_a_sweep():
        return  # an agent's process has one run only, and it has the results by now
    study = WandbSink(output / "evaluation", title=f"{title}-evaluation", job_type="evaluation", **options)
    columns = [f"{task}/{metric}" for task, metric in headlines]
    cells = [[row["tasks"].get(task, {}).get(metric, {}).get("value") for task, metric in headlines] for row in rows]
    study.table("figures", ["model", *columns], [[row["model"], *cell] for row, cell in zip(rows, cells)])
    for row in rows:
        _male_shares(study, row)
    models = [row["model"] for row in rows]
    if examples:
        sides = [[example["texts"].get(model, ("", "")) for model in models] for example in examples]
        generated = [
            [example["prompt"], example["reversed"], *(own for own, _ in texts), *(other for _, other in texts)]
            for example, texts in zip(examples, sides)
        ]
        columns = ["prompt", "reversed prompt", *models, *(f"{model}, reversed" for model in models)]
        study.table("generated_pairs", columns, generated)
    study.summary({f"{row['model']}/{key}": value for row in rows for key, value in _flat(row)})
    study.close()


def _finish_run(row: Result, folder: Path, pair_sets: Mapping[str, Path] | None, options: Mapping[str, Any]) -> None:
    """Add a model's results, and its artifacts if wanted, to the run in which it was trained."""
    known = json.loads((folder / "wandb.json").read_text(encoding="utf-8"))
    figures = dict(_flat(row))
    sink = WandbSink(folder, title=known["title"], **options)
    sink.summary(figures)
    if pair_sets is not None:
        pairs = pair_sets[row["model"]]
        sink.artifact("dataset", pairs.name, pairs, facts={"fingerprint": pairs.name}, reference=True)
        sink.artifact("model", known["title"], folder / "model", facts={**figures, "pairs": pairs.name})
    sink.close()


def _male_shares(study: WandbSink, row: Result) -> None:
    """A bar chart of the male share by group, for each task that has one."""
    for label, metrics in row["tasks"].items():
        shares = {
            key.partition("/")[2]: figure["value"]
            for key, figure in metrics.items()
            if key.startswith("male_share/") and figure["value"] is not None
        }
        if shares:
            study.bars(f"{label}/male_share/{row['model']}", f"Male share, {label}, {row['model']}", shares)


def _flat(row: Result) -> Iterator[tuple[str, float]]:
    """(TASK/METRIC, value) of a model's results."""
    for label, metrics in row["tasks"].items():
        for metric, figure in metrics.items():
            if figure["value"] is not None:
                yield f"{label}/{metric}", figure["value"]
