"""A study: several runs and seeds, what is done already, what is checked before them, evaluation, publishing."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from configs import build, private, schema, watching
from configs.load import FREE, differences
from configs.schema import Config
from counterfactuals.files import near
from counterfactuals.provenance import model_fingerprint
from counterfactuals.sample import write_sample
from debias.run import checkpoint, publish, tracking

log = logging.getLogger(__name__)

ONLY_LOGGED = ("eval.", "train.log_")  # these change metrics.jsonl alone: no reason to train a complete run again


def changes(folder: Path, config: Config) -> list[str]:
    """Settings that differ from those of the run in `folder` and matter to it, as "key: saved, now"."""
    complete = (folder / "run.json").exists()
    return differences(folder / "config.yaml", config, ignored=FREE + ONLY_LOGGED * complete)


def is_complete(config: Config, folder: Path, *, allow_changes: bool = False) -> bool:
    """Whether `folder` holds this very run, complete. ValueError if it holds a run with other settings.

    With allow_changes that run resumes with the new settings, even if it was complete; changes.jsonl records it.
    """
    if not (folder / "config.yaml").exists():
        return False
    changed = changes(folder, config)
    if changed and not allow_changes:
        raise ValueError(
            f"{folder}: holds a run with other settings ({'; '.join(changed)}); "
            "choose another output_dir, delete the folder, or resume with the new ones: --allow_changes"
        )
    if changed:
        if int(os.environ.get("RANK", "0")) == 0:
            with (folder / "changes.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps({"changed": changed}) + "\n")
            log.info("%s: resumes with other settings: %s", folder, "; ".join(changed))
            (folder / "run.json").unlink(missing_ok=True)
        return False
    if not (folder / "run.json").exists():
        return False
    checkpoint.same_inputs(folder / "inputs.json", build.inputs_of(config))
    try:
        made = json.loads((folder / "run.json").read_text(encoding="utf-8")).get("sha256", {}).get("model")
    except (ValueError, AttributeError):
        raise ValueError(f"{folder / 'run.json'}: damaged; delete it to make the model again") from None
    model = folder / "model"
    if not model.is_dir() or made not in (None, model_fingerprint(str(model))):  # None: of an old version
        raise ValueError(
            f"{model}: is not as the run left it; put it back, or delete {folder / 'run.json'} and "
            "run again: the folder is made again from the last checkpoint, if there is one"
        )
    return True


def select_runs(runs: dict[str, Config], names: Sequence[str]) -> dict[str, Config]:
    """The runs of these names, in their own order; a run:NAME that is not among them must be trained already."""
    unknown = [name for name in names if name not in runs]
    if unknown:
        raise ValueError(f"--runs {unknown[0]}: no such run{near(unknown[0], runs)}; there is {', '.join(runs)}")
    for config in (runs[name] for name in names):
        for model in (config.teacher.model or "", config.student.model or ""):
            run = model.removeprefix("run:")
            if run != model and run not in names and not (Path(config.output_dir) / run / "run.json").exists():
                raise ValueError(f"--runs: {model} is needed and not trained yet; add {run} to --runs")
    return {name: config for name, config in runs.items() if name in names}


def folder_in_a_sweep(*configs: Config) -> None:
    """A run that a Weights & Biases sweep starts gets a folder of its own, named by the run's id.

    ValueError for several runs: the sweep gives one id, and their figures would go into one run.
    """
    if tracking.in_a_sweep():
        _, *runs = configs
        if len(runs) > 1:
            raise ValueError(f"runs: a sweep's agent starts one run, this configuration has {len(runs)}; give it one")
        for config in configs:
            config.output_dir = str(Path(config.output_dir) / os.environ["WANDB_RUN_ID"])


def check(whole: Config, runs: dict[str, Config]) -> None:
    """Refuse what can be known to fail before models are loaded: lexicons, figures, evaluation, tracking, the Hub."""
    for config in runs.values():
        build.reverser_of(config)
        check_keep_best(config)
        private.check(config, runs)
    check_evaluation(whole, list(runs))


def check_keep_best(config: Config) -> None:
    """Refuse a figure in train.keep_best that metrics.jsonl will not have."""
    wanted, loss = config.train.keep_best, config.loss
    known = ["loss", "kd", "lm", "grad_norm", "lr", "num_tokens", *figures_of(config.eval.during)]
    known += ["hidden"] * (loss.hidden_weight > 0) + ["kd_plain"] * (config.train.log_plain and loss.kd_weight > 0)
    if wanted is not None and wanted not in known:
        raise ValueError(f"train.keep_best: metrics.jsonl will have no {wanted!r}; it will have {', '.join(known)}")


def check_evaluation(whole: Config, runs: Sequence[str]) -> None:
    """Refuse mistakes in eval.*, tracking.* and hub.*."""
    tracking.check(whole.tracking.to, whole.tracking.mode)
    publish.check_push(whole.hub.repo, runs)
    if whole.eval.tasks or whole.eval.every:
        from eval.check import check

        if whole.data.source in ("sample", "self"):
            write_sample(Path(whole.output_dir) / "sample")
        if whole.eval.tasks:
            check(whole.eval.tasks, data_dir=watching.evaluation_data(whole), seed=whole.seed)
        watching.probe_of(whole, None)


def figures_of(tasks: dict[str, dict[str, Any]]) -> list[str]:
    """TASK/METRIC of the main figures of these tasks."""
    from eval.check import resolve

    if not tasks:
        return []
    return [f"{label}/{metric}" for label, (task, _) in resolve(tasks).items() for metric in task.headline]


def evaluate(whole: Config, runs: dict[str, Config]) -> dict[str, Any]:
    """Evaluate every model of the command on the same tasks; differences are from the run `plain`, if there is one."""
    from eval.run import evaluate

    output = Path(whole.output_dir)
    found = {name or "student": str(output / name / "model") for name in runs}
    if list(runs) == [""] and runs[""].teacher.model:
        found = {"teacher": runs[""].teacher.model} | found
    return evaluate(
        whole.eval.models | found,
        whole.eval.tasks,
        data_dir=watching.evaluation_data(whole),
        output_dir=output,
        seed=whole.seed,
        reference="plain" if "plain" in runs else None,
        batch_size=whole.eval.batch_size,
        start_token=whole.tokenizer.start_token,
        trust_remote_code=any(config.teacher.trust_remote_code for config in runs.values()),
    )


def report(whole: Config, runs: dict[str, Config]) -> None:
    """Evaluate every model of the command; write results.json, tables and pictures; publish what settings ask for."""
    from eval.report.page import Study, write_page
    from eval.report.seeds import over_training_seeds
    from eval.report.table import print_report, write_report

    results, output = evaluate(whole, runs), Path(whole.output_dir)
    shown = results
    if whole.seeds:  # many runs: show their means
        shown = results | {"rows": over_training_seeds(results["rows"])}
    write_report(shown, output)
    title = output.name.replace("_", " ").capitalize()
    write_page([Study(output.name, output, shown)], output / "report.html", title=title)
    publish_all(whole, runs, results)
    print_report(shown["rows"])
    log.info("written to %s: report.html, report.md, results.json", whole.output_dir)


def publish_all(whole: Config, runs: dict[str, Config], results: dict[str, Any]) -> None:
    """Write a card for each trained model; send to Weights & Biases and the Hub what settings ask for."""
    from eval.report.card import write_card
    from eval.report.page import Study, examples, merged
    from eval.report.table import headlines

    output, rows = Path(whole.output_dir), results["rows"]
    folders = {name or "student": name for name in runs}
    paths = {label: output / name / "run.json" for label, name in folders.items()}
    ran = {label: json.loads(path.read_text(encoding="utf-8")) for label, path in paths.items()}
    for label, name in folders.items():
        given: dict[str, Any] = {"model": label, "title": f"{output.name}-{label}"}
        given["settings"] = schema.to_dict(runs[name])
        write_card(output / name / "model", rows, versions=results["versions"], facts=ran[label], **given)
    if whole.tracking.to == "wandb":
        stored = ran if whole.tracking.artifacts else {}
        if any("pair_set" not in facts for facts in stored.values()):
            raise ValueError("tracking.artifacts: an older version's run.json names no pair set; set it to false")
        sets = {label: Path(facts["pair_set"]) for label, facts in stored.items()} or None
        options = watching.wandb_options(whole, "")
        written = examples(merged([Study(output.name, output, results)]), publish.MAX_TEXTS)
        publish.to_wandb(rows, headlines(rows), output, folders, pair_sets=sets, examples=written, **options)
    if whole.hub.repo:
        for label, name in folders.items():
            repo = whole.hub.repo.replace("{run}", label)
            log.info("pushed   %s", publish.push(output / name / "model", repo, private=whole.hub.private))
