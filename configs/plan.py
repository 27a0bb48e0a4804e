"""What the runs of a configuration will cost, before anything is trained: `--dry_run` and `--plan GPU`."""

from __future__ import annotations

import copy
import itertools
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from configs import build, private, teachers
from configs.load import path_of
from configs.schema import Config
from configs.selfwritten import TEXTS, WITH_COUNTERFACTUAL
from debias.models import add_lora, kept_layers, num_layers, random_student, student_from_layers
from debias.run.cost import PEAK, PEAK_FRACTION, Shape, disk_bytes, memory_bytes, training_flop
from eval.loading import meta_model
from privacy.account import Schedule

NUM_READ = 300  # texts that are read to estimate the rest
ASSUMED_TOKENS = 1_100  # in a document of OpenWebText
ASSUMED_SHARE = 0.78  # texts with a counterfactual, in the paper
NUM_GPUS = (1, 8, 64)
CLIENT_FLOPS, CLIENT_BANDWIDTH = 5e10, 1.25e6  # of an ordinary laptop: FLOP and bytes a second


@dataclass(frozen=True)
class Texts:
    """A corpus in numbers. pieces: of at most max_length tokens; with_cf: fraction of them with a counterfactual."""

    number: float
    pieces: float
    tokens: float
    with_cf: float
    how: str


@dataclass(frozen=True)
class Estimate:
    """The cost of one run. work: FLOP of teacher and student; memory, disk: bytes by use."""

    texts: Texts
    student: Shape
    teacher: Shape | None
    steps: int
    student_tokens: float
    work: tuple[float, float]
    memory: dict[str, float]
    disk: dict[str, float]


def describe(whole: Config, runs: dict[str, Config], gpu: str | None = None) -> str:
    """Lines for each run; `gpu`: NAME or NAME:PRICE (an hour) adds the time on 1, 8 and 64 of them."""
    name, price = _gpu(gpu) if gpu else ("", None)
    shapes: dict[str, Any] = {}
    lines: list[str] = []
    texts: dict[str, Texts] = {}
    for run, config in runs.items():
        c = config.counterfactual
        key = str((config.data, config.tokenizer.name, c.lexicon, c.direction, c.policy, c.max_doubt, c.protected))
        student, teacher = shapes_of(config, shapes)
        shapes[run] = student
        if key not in texts:
            texts[key] = texts_of(config)
        found = estimate(config, texts[key], student, teacher)
        lines.append(f"{run or 'student'}: {Path(config.output_dir) / run}")
        facts = Path(config.output_dir) / run / "run.json"
        shown = [*_lines(config, found), *(_sent(config, found) if config.federated.rounds else ())]
        shown += [*_measured(found, facts), *(_hours(found, name, price) if name else ())]
        lines += [f"  {line}" for line in shown]
    return "\n".join(lines)


def _gpu(given: str) -> tuple[str, float | None]:
    """Name and price of `--plan`."""
    name, _, price = given.partition(":")
    if name not in PEAK:
        raise ValueError(f"--plan {given}: knows {', '.join(PEAK)}; and a price an hour, --plan a100:1.80")
    try:
        if price and not 0 <= float(price) < math.inf:
            raise ValueError
        return name, float(price) if price else None
    except ValueError:
        raise ValueError(f"--plan {given}: {price!r} is not a price") from None


def estimate(config: Config, texts: Texts, student: Any, teacher: Any) -> Estimate:
    """The cost of a run. student, teacher: models, which may be on the meta device."""
    t, c = config.train, config.counterfactual
    trained = 1 + texts.with_cf * (c.augment == "both")  # sequences per text
    length, by_tokens = texts.tokens / texts.pieces, t.batch_by == "tokens"
    unit = config.data.max_length if by_tokens else length  # tokens of what the batch sizes count
    units = texts.tokens / unit if by_tokens else texts.pieces
    steps = t.max_steps or math.ceil(max(1, int(units * trained) // t.batch_size) * (t.epochs or 1))
    if config.federated.rounds:  # of all clients together
        steps = config.federated.rounds * config.federated.per_round * config.federated.local_steps
    student_tokens = steps * t.batch_size * unit
    learns = config.loss.kd_weight > 0 or config.loss.hidden_weight > 0
    teacher_tokens = student_tokens / trained * teachers.num_read(config, texts.with_cf) if learns else 0.0
    if config.student.lora:
        student = copy.deepcopy(student)  # a later run's teacher is without
        add_lora(student, **config.student.lora)
    small, large = Shape.of(student), Shape.of(teacher) if teacher is not None and learns else None
    running = None if config.teacher.cache else large
    tokens: dict[str, float] = {"student_tokens": student_tokens, "teacher_tokens": teacher_tokens, "length": length}
    work = training_flop(small, running, checkpointing=t.gradient_checkpointing, **tokens)
    memory = memory_bytes(
        small,
        running,
        micro_tokens=int(t.micro_batch_size * min(unit * 1.2, config.data.max_length)),
        chunk_rows=config.loss.chunk_rows,
        half=t.precision in ("bf16", "fp16"),
        teacher_bytes=4 if config.teacher.dtype == "float32" else 2,
        checkpointing=t.gradient_checkpointing,
    )
    disk = disk_bytes(
        tokens=texts.tokens * (not config.data.streaming),
        with_cf=texts.with_cf,
        vocab=small.head // small.width,
        cache_bytes=config.teacher.cache_bytes if config.teacher.cache else 0,
        student=small,
        keep=t.keep_checkpoints,
    )
    return Estimate(texts, small, large, steps, student_tokens, work, memory, disk)


def _lines(config: Config, e: Estimate) -> Iterator[str]:
    t = config.train
    share = f"{e.texts.with_cf:.0%} with a counterfactual"
    yield f"texts    {e.texts.pieces:,.0f} sequences, {_count(e.texts.tokens)} tokens, {share}"
    yield f"         {e.texts.how}"
    teacher = f", teacher {_count(e.teacher.parameters)}" if e.teacher is not None else ""
    yield f"models   student {_count(e.student.parameters)} parameters{teacher}"
    by_tokens = t.batch_by == "tokens"
    size = f"{t.batch_size} × {config.data.max_length} tokens" if by_tokens else f"{t.batch_size} sequences"
    yield f"steps    {e.steps:,} of {size}: {_count(e.student_tokens)} tokens for the student"
    yield f"work     {_count(sum(e.work))}FLOP: teacher {_count(e.work[0])}, student {_count(e.work[1])}"
    yield f"memory   {_size(sum(e.memory.values()))} a device: " + _parts(e.memory)
    if config.privacy.epsilon is not None and config.privacy.unit == "text":
        sequences = e.texts.pieces * (1 + e.texts.with_cf * (config.counterfactual.augment == "both"))
        yield "privacy  " + private.describe(config, num_texts=e.texts.number, num_sequences=sequences, steps=e.steps)
    yield f"disk     {_size(sum(e.disk.values()))}: " + _parts(e.disk)


def _sent(config: Config, e: Estimate) -> Iterator[str]:
    """Rounds, bytes and hours of a federated run. The steps above are those of all clients together."""
    f = config.federated
    weights = 4 * e.student.parameters
    times = f.rounds * f.per_round
    yield f"rounds   {f.rounds} of {f.per_round} of {f.clients or 'all'} clients, {f.local_steps} steps each"
    both = f"{_size(times * weights)} down and as much up, {_size(weights)} a client, round and direction"
    yield f"sent     {both}"
    if config.privacy.epsilon is not None:
        noise = private.noise_of(config, Schedule(f.per_round / (f.clients or 1), f.rounds), f.clients or 1)
        guarantee = f"ε {config.privacy.epsilon:g} at δ {config.privacy.delta:g} for each client"
        yield f"privacy  {guarantee}: noise {noise:.3g} × the bound {config.privacy.max_norm:g} on the sum of a round"
    seconds = sum(e.work) / times / CLIENT_FLOPS + 2 * weights / CLIENT_BANDWIDTH
    speed = f"{_count(CLIENT_FLOPS)}FLOP/s and {_size(CLIENT_BANDWIDTH)}/s"
    yield f"hours    {f.rounds * seconds / 3600:,.2f} if the clients of a round work at once, each with {speed}"


def _measured(e: Estimate, facts: Path) -> Iterator[str]:
    """The speed of a run that is complete."""
    if facts.is_file():
        ran = json.loads(facts.read_text(encoding="utf-8"))
        speed = sum(e.work) * ran["tokens_here"] / e.student_tokens / ran["seconds_here"]
        rate = f"{ran['tokens_here'] / ran['seconds_here']:,.0f} tokens/s on {ran['ranks']} rank(s)"
        yield f"measured {rate}: {_count(speed)}FLOP/s"


def _hours(e: Estimate, gpu: str, price: float | None) -> Iterator[str]:
    hours = sum(e.work) / (PEAK_FRACTION * PEAK[gpu]) / 3600
    reached = f"{PEAK_FRACTION:.0%} of {PEAK[gpu] / 1e12:,.0f} TFLOP/s"
    yield f"{gpu:<8} at {reached}, without evaluation and communication between GPUs:"
    for number in NUM_GPUS:
        cost = "" if price is None else f", {hours * price:,.2f} at {price:g} an hour"
        yield f"         {number:>3} × {hours / number:,.2f} h = {hours:,.1f} GPU-hours{cost}"


def shapes_of(config: Config, earlier: dict[str, Any]) -> tuple[Any, Any]:
    """Student and teacher on the meta device, from config.json alone. earlier: students of earlier runs."""
    teacher: Any = _model(config.teacher.model, earlier, config, "teacher.model") if config.teacher.model else None
    if config.student.init == "pretrained":
        return _model(config.student.model or "", earlier, config, "student.model"), teacher
    with torch.device("meta"):
        if config.student.init == "layers":
            depth = num_layers(teacher)
            keep = kept_layers(config.student.layers, depth, [0.0] * depth)  # which ones does not change the cost
            return student_from_layers(teacher, keep), teacher
        return random_student(config.student.config, _vocabulary(config), config.data.max_length), teacher


def _vocabulary(config: Config) -> Any:
    """The tokenizer; or, if it is still to be trained, an object with its length and special tokens."""
    size = config.tokenizer.train_vocab_size or 0
    if not size:
        return build.tokenizer_of(config)

    class Untrained(SimpleNamespace):
        def __len__(self) -> int:
            return size

    return Untrained(bos_token_id=0, eos_token_id=0, pad_token_id=0)


def _model(name: str, earlier: dict[str, Any], config: Config, setting: str) -> Any:
    if name.startswith("run:") and name[4:] in earlier:
        return earlier[name[4:]]
    remote = config.teacher.trust_remote_code and setting == "teacher.model"
    return meta_model(path_of(config, name), setting=setting, trust_remote_code=remote)


def texts_of(config: Config) -> Texts:
    """The corpus in numbers, from its first texts; for one on the Hub, from what is usual."""
    limit = config.data.max_length
    if config.data.source == "self":  # not written yet
        written = config.data.max_texts or TEXTS
        with_cf = 0.0 if config.counterfactual.max_doubt == 0 else WITH_COUNTERFACTUAL
        how = f"assumed: {limit} tokens a text and that share; the teacher writes them first"
        if config.data.choose_from > 1:
            how += f", chosen from {config.data.choose_from} times as many"
        return Texts(written, written, written * limit, with_cf, how)
    corpus = build.corpus_of(config)
    if not Path(corpus.source).exists():
        if config.data.max_texts is None:
            raise ValueError(f"data.max_texts: {corpus.source} is not here; say how many of its texts will be read")
        tokens = config.data.max_texts * ASSUMED_TOKENS
        pieces = config.data.max_texts * max(1.0, ASSUMED_TOKENS / limit)
        how = f"assumed: {ASSUMED_TOKENS:,} tokens a text and that share, since {corpus.source} is not here"
        return Texts(config.data.max_texts, pieces, tokens, ASSUMED_SHARE, how)
    reverser, most = build.reverser_of(config), config.counterfactual.max_doubt
    tokenizer = None if _has_no_tokenizer(config) else build.tokenizer_of(config, corpus)
    read = tokens = pieces = reversed_ = 0
    found: float | None = None
    corpus = replace(corpus, tokenizer=tokenizer)
    for text in itertools.islice(corpus, NUM_READ):
        count = len(tokenizer(text)["input_ids"]) if tokenizer else max(1, len(text) // 4)
        cut = max(1, math.ceil(count / limit))
        read, tokens, pieces = read + 1, tokens + count, pieces + cut
        turned = (passage for passage in reverser(text).passages if passage.reversed)
        reversed_ += cut * any(most is None or passage.doubt <= most for passage in turned)
        found = corpus.share
    times = 1.0 if read < NUM_READ else 1 / max(found or 1.0, read / (config.data.max_texts or math.inf))
    counted = "" if tokenizer else ", assuming four characters a token (the tokenizer is not made yet)"
    how = f"estimated from the first {read:,} texts{counted}" if times > 1 or counted else "counted"
    return Texts(read * times, pieces * times, tokens * times, reversed_ / pieces, how)


def _has_no_tokenizer(config: Config) -> bool:
    """Whether the command itself has still to make the tokenizer."""
    model = config.teacher.model or config.student.model or ""
    made_here = model.startswith("run:") and not Path(path_of(config, model)).exists()
    return config.tokenizer.train_vocab_size is not None or (made_here and config.tokenizer.name is None)


def _count(number: float) -> str:
    for power, name in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= power:
            return f"{number / power:.3g} {name}"
    return f"{number:.3g} "


def _size(number: float) -> str:
    return _count(number).strip() + "B"


def _parts(sizes: dict[str, float]) -> str:
    return ", ".join(f"{name} {_size(size)}" for name, size in sizes.items() if size)
