"""Config → Federation: what a federated run is made of, built once, like build.Run. Nothing below it sees a Config."""

from __future__ import annotations

import itertools
import json
import os
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from configs import build, private, schema, watching
from configs.build import Data, Models, Plan
from configs.schema import Config
from counterfactuals.files import write_whole
from counterfactuals.tokens.corpus import Corpus
from counterfactuals.tokens.pairs import build_pairs
from counterfactuals.tokens.pairs import fingerprint_parts as pair_parts
from counterfactuals.tokens.shards import sha256_of_facts
from debias.cache.store import build_cache, open_cache
from debias.run import checkpoint
from debias.run.launch import make_accelerator
from debias.run.tracking import Tracker
from federated import partition, select
from federated.client import TEXTS, Client, Texts, forget
from federated.engine import Federation, InProcess, run
from federated.private import Guarantee
from federated.server import ServerOptimizer
from privacy.account import Schedule, epsilon

OPEN = 256  # clients whose pair set is kept open
NOT_COVERED = (  # ends a sentence that begins "The guarantee does not cover"
    "what the server sees, metrics.jsonl and the progress that is shown, the number of clients, the choice of settings "
    "after looking at private texts, or what else was published from them"
)


def make_federation(config: Config, name: str, folder: Path, *, allow_changes: bool = False) -> Federation:
    """Build the server's side and what each client runs; resume from the newest checkpoint, if there is one."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("federated.rounds: a federated run is one process; start it without accelerate or torchrun")
    f = config.federated
    client, parts = client_of(config)
    student = client.accelerator.unwrap_model(client.task).student
    options: dict[str, Any] = {"lr": f.server_lr, "betas": f.server_betas, "eps": f.server_eps}
    server = ServerOptimizer(student.parameters(), f.algorithm, **options)
    folder.mkdir(parents=True, exist_ok=True)
    saved = checkpoint.restore(
        client.accelerator, client.task, server, folder / "checkpoints", allow_changes=allow_changes
    )
    write_whole(folder / "config.yaml", schema.to_yaml(config))
    first = saved["step"]
    shown: dict[str, Any] = {"watching": config.tracking.watching}
    shown["sinks"] = watching.sinks_of(config, name, folder, step=first)
    tracker = Tracker(folder / "metrics.jsonl", name or "student", f.rounds, step=first, **shown)
    chosen: dict[str, Any] = {"number": f.per_round, "rule": f.select, "seed": config.seed}
    chosen |= {"exponent": f.activity, "uniform_share": f.mixture}
    inputs = build.inputs_of(config)
    guarantee = guarantee_of(config, inputs) if config.privacy.epsilon is not None else None
    if guarantee is not None:
        inputs["privacy.secret or setting"] = guarantee.keys.tag()
    return Federation(
        folder=folder,
        first=first,
        counters=saved.get("counters", {}),
        inputs=inputs,
        client=client,
        tokenizer=parts.tokenizer,
        student=student,
        server=server,
        plan=build.steps_of(config, f.rounds),
        choose=guarantee.choose if guarantee is not None else partial(select.choose, **chosen),
        uniform=f.weights == "uniform",
        tracker=tracker,
        guarantee=guarantee,
    )


def guarantee_of(config: Config, inputs: dict[str, str]) -> Guarantee:
    """What protects each client, with all its texts, and what run.json says of it."""
    p, f = config.privacy, config.federated
    clients = f.clients or 0
    schedule = Schedule(f.per_round / clients, f.rounds)
    noise = private.noise_of(config, schedule, clients)
    facts: dict[str, Any] = {"epsilon": epsilon(noise, schedule, p.delta or 0.0), "delta": p.delta, "unit": p.unit}
    facts |= {"noise_multiplier": noise, "sampling_rate": schedule.sampling_rate, "steps": f.rounds}
    facts |= {"max_norm": p.max_norm, "clip": p.clip, "not_covered": NOT_COVERED}
    return Guarantee(private.keys_of(config, inputs), schedule.sampling_rate, p.max_norm, noise, facts)


def train(config: Config, name: str, folder: Path, *, allow_changes: bool = False) -> bool:
    """A federated run whose clients are simulated in this process; False if a signal asked for a stop."""
    made = make_federation(config, name, folder, allow_changes=allow_changes)
    f = config.federated
    return run(made, InProcess(made.client, clients_of(config), f.missing, config.seed))


def client_of(config: Config) -> tuple[Client, Models]:
    """What each client runs, from settings and public models alone."""
    config = config.model_copy(update={"privacy": schema.Privacy()})  # a client's steps are plain ones
    f, t = config.federated, config.train
    parts = build.models_of(config, build.corpus_of(config))
    sizes = {"batch_size": t.micro_batch_size, "micro_batch_size": t.micro_batch_size}  # one backward pass is one step
    accelerator = make_accelerator(**sizes, precision=t.precision, cpu_threads=t.cpu_threads)
    if accelerator.mixed_precision == "fp16":
        raise ValueError("train.precision: fp16 skips steps, and federated clients do not count them; use no or bf16")
    reverser = build.reverser_of(config)
    task, optimizer = build.task_of(config, reverser, parts, accelerator, None)
    opened = lru_cache(OPEN)(partial(open_texts, config, reverser, parts.tokenizer, accelerator))
    return Client(
        task=task,
        optimizer=optimizer,
        accelerator=accelerator,
        open=opened,
        probe=watching.probe_of(config, parts.tokenizer),
        tokenizer=pair_parts("", reverser, parts.tokenizer, config.data.max_length)["tokenizer"],
        rounds=f.rounds,
        local_steps=f.local_steps,
        proximal=f.proximal,
        periods=f.periods,
        keep_periods=f.keep_periods,
    ), parts


def open_texts(config: Config, reverser: Any, tokenizer: Any, accelerator: Any, texts: Texts) -> tuple[Data, Plan, int]:
    """A client's data and plan, and the micro-batches of a step. Its pairs and cache are made in its own folder.

    A client with fewer texts than a batch is to hold takes all of them in each step.
    """
    f, t, c = config.federated, config.train, config.counterfactual
    options: dict[str, Any] = {"max_length": config.data.max_length, "max_doubt": c.max_doubt}
    pairs = build_pairs(texts, reverser, tokenizer, texts.folder / "pairs", **options)
    cache = None
    if config.teacher.cache and config.teacher.model and config.loss.kd_weight:
        where, made_from = texts.folder / "teacher_cache", build.cache_parts(config, pairs)
        how: dict[str, Any] = {"device": accelerator.device, "precision": accelerator.mixed_precision}
        cache = open_cache(where, pairs, made_from)
        cache = cache or build_cache(where, pairs, build.teacher_of(config), made_from, **how)
    if texts.keep:
        forget(texts.folder / "pairs", pairs.folder)
        forget(texts.folder / "teacher_cache", cache.folder if cache else None)
    size = min(t.batch_size, int((1 + pairs.has_cf * (c.augment == "both")).sum()))
    own = t.model_copy(update={"batch_size": size, "max_steps": f.rounds * f.local_steps, "epochs": None})
    batches, plan = build.plan_of(config.model_copy(update={"train": own}), pairs, {})
    data = Data(pairs, batches, cache, build.collation_of(config, tokenizer), c.augment == "one")
    return data, plan, -(-size // t.micro_batch_size)


# ---------------------------------------------------------------- clients of a simulation


def clients_of(config: Config) -> Path:
    """The folder with a folder for each client, made from the corpus if it is not there; clients.json is written last.

    clients.json: "texts", the number of each client, and "labels", for each of them {label: number}.
    """
    f, corpus = config.federated, build.corpus_of(config)
    divided = {key: getattr(f, key) for key in ("clients", "partition", "label", "alpha", "quantity", "clusters")}
    fingerprint = sha256_of_facts([corpus.fingerprint, divided, f.partition_seed])
    folder = Path(config.output_dir) / "clients" / fingerprint[:16]
    if (folder / "clients.json").exists():
        return folder
    texts, label_T, names, owner = divide(config, corpus)
    order = np.argsort(owner, kind="stable")  # a client's texts stay in the order of the corpus
    bounds = np.searchsorted(owner[order], np.arange(owner.max() + 2))
    labels = []
    for number, (begin, end) in enumerate(itertools.pairwise(bounds.tolist())):
        own = order[begin:end]
        lines = (json.dumps({"text": texts[i]}) + "\n" for i in own)
        write_whole(folder / f"{number:05d}" / TEXTS, "".join(lines))
        found = np.bincount(label_T[own], minlength=len(names))
        labels.append({names[k]: int(found[k]) for k in np.flatnonzero(found)})
    held = {"texts": np.diff(bounds).tolist(), "labels": labels}
    write_picture(held, folder / "clients.png")
    write_whole(folder / "clients.json", json.dumps(held) + "\n")
    return folder


def divide(config: Config, corpus: Corpus) -> tuple[list[str], np.ndarray, list[str], np.ndarray]:
    """Texts, labels as numbers, the labels' names, and the client of each text."""
    f, fields = config.federated, (config.federated.label or "").split("+")
    if f.label:
        try:
            rows = list(corpus.labelled(fields))
        except ValueError as error:
            raise ValueError(f"federated.label {f.label}: {str(error).partition('; name it')[0]}") from None
        texts, (label_T, names) = [text for text, _ in rows], partition.numbered([label for _, label in rows])
    else:
        texts = list(corpus)
        label_T, names = np.zeros(len(texts), dtype=np.int32), ["texts"]
    if f.partition == "key":
        return texts, label_T, names, label_T
    if f.partition == "cluster":
        label_T, names = partition.clusters(texts, f.clusters, f.partition_seed)
    alpha = f.alpha if f.partition in ("label", "cluster") else None
    skew: dict[str, Any] = {"alpha": alpha, "concentration": f.quantity, "seed": f.partition_seed}
    return texts, label_T, names, partition.divide(label_T, f.clients or 0, **skew)


def write_picture(held: dict[str, Any], path: Path) -> None:
    """Who holds what, as far as it can be read: the first 100 clients and the 30 most frequent labels."""
    from eval.report import canvas, charts

    names = sorted({name for labels in held["labels"] for name in labels})
    table = np.array([[labels.get(name, 0) for name in names] for labels in held["labels"][:100]])
    common = np.sort(np.argsort(-table.sum(axis=0), kind="stable")[:30])
    canvas.save(charts.holdings(table[:, common], [names[k] for k in common], held["texts"][:100]), path)
