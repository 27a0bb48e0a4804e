"""Finished models and their figures, sent where others see them: the Hub, Weights & Biases."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from debias.tracking import WandbSink, in_a_sweep

Result = Mapping[str, Any]
MAX_TEXTS = 200  # rows of a table of generated pairs


def check_push(repo: str | None, runs: Sequence[str]) -> None:
    """Refuse what the Hub would refuse after hours of training: a bad name, one name for several models, no token."""
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
        raise ValueError(f"hub.repo: {repo}: {' '.join(str(error).split())}") from None
    if not get_token():
        raise ValueError("hub.repo: pushing needs `hf auth login` or HF_TOKEN")


def push(folder: Path, repo: str, *, private: bool) -> str:
    """Upload a model's folder with its card; returns the address of the commit. ValueError, one line, if refused."""
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
    pair_sets: Mapping[str, Path] | None = None,
    **options: Any,
) -> None:
    """Figures of a study: in the summary of each model's run, and as tables and charts in a run of their own.

    headlines: (task, metric) of the main table. runs: row → folder of its run under `output`. pair_sets: row → what it
    was trained on; given, each run's model is kept as an artifact, and its pair set by reference, named alike where
    runs share it. options: of WandbSink.
    """
    title = options.pop("title")
    for row in rows:
        folder = runs.get(row["model"])
        if folder is not None and (output / folder / "wandb.json").exists():
            known = json.loads((output / folder / "wandb.json").read_text(encoding="utf-8"))
            sink = WandbSink(output / folder, title=known["title"], **options)
            sink.summary(dict(_flat(row)))
            if pair_sets is not None:
                pairs, figures = pair_sets[row["model"]], dict(_flat(row))
                sink.artifact("dataset", pairs.name, pairs, facts={"fingerprint": pairs.name}, reference=True)
                facts = {**figures, "pairs": pairs.name}
                sink.artifact("model", known["title"], output / folder / "model", facts=facts)
            sink.close()
    if in_a_sweep():
        return  # whatever is opened in an agent's process is its one run, which has the figures by now
    study = WandbSink(output / "evaluation", title=f"{title}-evaluation", job_type="evaluation", **options)
    columns = [f"{task}/{metric}" for task, metric in headlines]
    cells = [[row["tasks"].get(task, {}).get(metric, {}).get("value") for task, metric in headlines] for row in rows]
    study.table("figures", ["model", *columns], [[row["model"], *cell] for row, cell in zip(rows, cells)])
    for row in rows:
        for label, metrics in row["tasks"].items():
            shares = {
                key.partition("/")[2]: figure["value"]
                for key, figure in metrics.items()
                if key.startswith("male_share/") and figure["value"] is not None
            }
            if shares:
                study.bars(f"{label}/male_share/{row['model']}", f"Male share, {label}, {row['model']}", shares)
    models = [row["model"] for row in rows]
    generated = list(_generated(output, models))
    if generated:
        columns = ["prompt", "reversed prompt", *models, *(f"{model}, reversed" for model in models)]
        study.table("generated_pairs", columns, generated)
    study.summary({f"{row['model']}/{key}": value for row in rows for key, value in _flat(row)})
    study.close()


def _flat(row: Result) -> Iterator[tuple[str, float]]:
    for label, metrics in row["tasks"].items():
        for metric, figure in metrics.items():
            if figure["value"] is not None:
                yield f"{label}/{metric}", figure["value"]


def _generated(output: Path, models: Sequence[str]) -> Iterator[list[str]]:
    """A prompt, its reversal, and each model's text after either, from the rows that tasks keep."""
    texts: dict[tuple[str, str], dict[str, tuple[str, str]]] = {}
    for path in sorted(output.glob("rows-*.jsonl")):
        with path.open(encoding="utf-8") as file:
            for row in map(json.loads, file):
                if {"prompt", "reversed", "texts", "reversed_texts"} <= row.keys():
                    found = texts.setdefault((row["prompt"], row["reversed"]), {})
                    found.setdefault(row["model"], (row["texts"][0], row["reversed_texts"][0]))
    for (prompt, reverse), found in list(texts.items())[:MAX_TEXTS]:
        sides = [[found.get(model, ("", ""))[side] for model in models] for side in (0, 1)]
        yield [prompt, reverse, *sides[0], *sides[1]]
