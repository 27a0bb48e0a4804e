"""Settings → what their runs will cost, before anything is trained: `train_distill.py --dry_run` and `--plan GPU`."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from configs import build
from configs.schema import Config
from debias.cost import PEAK, SHARE, Shape, disk_bytes, memory_bytes, training_flop
from debias.models import hollow_model, kept_layers, num_layers, random_student, student_from_layers

LOOK = 300  # texts that are read to estimate the rest
ASSUMED_TOKENS, ASSUMED_SHARE = 1_100, 0.78  # of an OpenWebText document; of texts with a counterfactual (the paper)
NUM_GPUS = (1, 8, 64)


@dataclass(frozen=True)
class Texts:
    """A corpus in numbers: pieces of at most max_length tokens, and the share of them with a counterfactual."""

    pieces: float
    tokens: float
    with_cf: float
    how: str


def describe(whole: Config, runs: dict[str, Config], gpu: str | None = None) -> str:
    """Lines for each run; `gpu`: NAME or NAME:PRICE (an hour) adds the time on 1, 8 and 64 of them."""
    name, _, price = (gpu or "").partition(":")
    if gpu and name not in PEAK:
        raise ValueError(f"--plan {gpu}: knows {', '.join(PEAK)}; and a price an hour, --plan a100:1.80")
    try:
        rate = float(price) if price else None
    except ValueError:
        raise ValueError(f"--plan {gpu}: {price!r} is not a price") from None
    shapes: dict[str, Any] = {}
    lines: list[str] = []
    found: dict[str, Texts] = {}
    for run, config in runs.items():
        lines.append(f"{run or 'student'}: {Path(config.output_dir) / run}")
        lines += [f"  {line}" for line in _run(config, run, shapes, found, name, rate)]
    return "\n".join(lines)


def _run(
    config: Config, run: str, shapes: dict[str, Any], known: dict[str, Texts], gpu: str, rate: float | None
) -> Iterator[str]:
    student, teacher = _models(config, shapes)
    shapes[run] = student
    t, c = config.train, config.counterfactual
    key = str((config.data, config.tokenizer.name, c.lexicon, c.direction, c.policy, c.protected))
    if key not in known:
        known[key] = _texts(config)
    texts = known[key]
    trained = 1 + texts.with_cf * c.augment
    length, by_tokens = texts.tokens / texts.pieces, t.batch_by == "tokens"
    unit = config.data.max_length if by_tokens else length  # tokens of what the batch sizes count
    units = texts.tokens / unit if by_tokens else texts.pieces
    steps_an_epoch = max(1, int(units * trained) // t.batch_size)
    steps = t.max_steps or math.ceil(steps_an_epoch * (t.epochs or 1))
    student_tokens = steps * t.batch_size * unit
    learns = config.loss.kd_weight > 0 or config.loss.hidden_weight > 0
    uses_cf = config.loss.op != "none" or c.augment or build.repairs_hidden(config)
    teacher_tokens = student_tokens / trained * (1 + texts.with_cf * uses_cf) if learns else 0.0
    small, large = Shape.of(student), Shape.of(teacher) if teacher is not None and learns else None
    live = None if config.teacher.cache else large
    work = training_flop(
        small, live, student_tokens=student_tokens, teacher_tokens=teacher_tokens, length=length,
        checkpointing=t.gradient_checkpointing,
    )  # fmt: skip
    memory = memory_bytes(
        small, live, micro_tokens=int(t.micro_batch_size * min(unit * 1.2, config.data.max_length)),
        chunk_rows=config.loss.chunk_rows, half=t.precision in ("bf16", "fp16"),
        teacher_bytes=4 if config.teacher.dtype == "float32" else 2, checkpointing=t.gradient_checkpointing,
    )  # fmt: skip
    disk = disk_bytes(
        tokens=texts.tokens * (not config.data.streaming), with_cf=texts.with_cf, vocab=small.head // small.width,
        cache_bytes=config.teacher.cache_bytes if config.teacher.cache else 0, student=small, keep=t.keep_checkpoints,
    )  # fmt: skip
    share = f"{texts.with_cf:.0%} with a counterfactual"
    yield f"texts    {texts.pieces:,.0f} sequences, {_count(texts.tokens)} tokens, {share}"
    yield f"         {texts.how}"
    yield f"models   student {_count(small.parameters)} parameters" + (
        f", teacher {_count(large.parameters)}" if large is not None else ""
    )
    size = f"{t.batch_size} × {config.data.max_length} tokens" if by_tokens else f"{t.batch_size} sequences"
    yield f"steps    {steps:,} of {size}: {_count(student_tokens)} tokens for the student"
    yield f"work     {_count(sum(work))}FLOP: teacher {_count(work[0])}, student {_count(work[1])}"
    yield f"memory   {_size(sum(memory.values()))} a device: " + _parts(memory)
    yield f"disk     {_size(sum(disk.values()))}: " + _parts(disk)
    facts = Path(config.output_dir) / run / "run.json"
    if facts.is_file():
        ran = json.loads(facts.read_text(encoding="utf-8"))
        speed = sum(work) * ran["tokens_here"] / student_tokens / ran["seconds_here"]
        tokens_a_second = f"{ran['tokens_here'] / ran['seconds_here']:,.0f} tokens/s on {ran['ranks']} rank(s)"
        yield f"measured {tokens_a_second}: {_count(speed)}FLOP/s"
    if gpu:
        hours = sum(work) / (SHARE * PEAK[gpu]) / 3600
        reached = f"{SHARE:.0%} of {PEAK[gpu] / 1e12:,.0f} TFLOP/s"
        yield f"{gpu:<8} at {reached}, without the evaluation and what GPUs tell each other:"
        for number in NUM_GPUS:
            cost = "" if rate is None else f", {hours * rate:,.2f} at {rate:g} an hour"
            yield f"         {number:>3} × {hours / number:,.2f} h = {hours:,.1f} GPU-hours{cost}"


def _models(config: Config, earlier: dict[str, Any]) -> tuple[Any, Any]:
    """Student and teacher without values: from config.json alone."""
    teacher = _hollow(config.teacher.model, earlier, config, "teacher.model") if config.teacher.model else None
    if config.student.init == "pretrained":
        return _hollow(config.student.model or "", earlier, config, "student.model"), teacher
    if config.student.init == "random":
        size = config.tokenizer.train_vocab_size
        tokenizer = _Vocabulary(size) if size else build.make_tokenizer(config, build.corpus_of(config))
        with torch.device("meta"):
            return random_student(config.student.config, tokenizer, config.data.max_length), teacher
    assert teacher is not None
    with torch.device("meta"):
        return student_from_layers(teacher, kept_layers(config.student.layers, num_layers(teacher))), teacher


class _Vocabulary:
    """In place of a tokenizer that is not trained yet."""

    bos_token_id = eos_token_id = pad_token_id = 0

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size


def _hollow(name: str, earlier: dict[str, Any], config: Config, setting: str) -> Any:
    if name.startswith("run:"):
        return earlier[name[4:]]
    remote = config.teacher.trust_remote_code and setting == "teacher.model"
    return hollow_model(build.path_of(config, name), setting=setting, trust_remote_code=remote)


def _texts(config: Config) -> Texts:
    """From the first texts of the corpus; of one on the Hub only if a number of texts is set, by what is usual."""
    corpus, limit = build.corpus_of(config), config.data.max_length
    if not Path(corpus.source).exists():
        if config.data.max_texts is None:
            raise ValueError(f"data.max_texts: {corpus.source} is not here; say how many texts of it are meant")
        tokens = config.data.max_texts * ASSUMED_TOKENS
        pieces = config.data.max_texts * max(1.0, ASSUMED_TOKENS / limit)
        how = f"assumed: {ASSUMED_TOKENS:,} tokens a text and that share, since {corpus.source} is not here"
        return Texts(pieces, tokens, ASSUMED_SHARE, how)
    reverser = build.make_reverser(config)
    read = tokens = pieces = reversed_ = characters = 0
    tokenizer = None if _untrained(config) else build.make_tokenizer(config, corpus)
    share = None
    for text in itertools.islice(corpus, LOOK):
        count = len(tokenizer(text)["input_ids"]) if tokenizer else max(1, len(text) // 4)
        cut = max(1, math.ceil(count / limit))
        read, tokens, pieces, characters = read + 1, tokens + count, pieces + cut, characters + len(text)
        reversed_ += cut * bool(reverser(text).spans)
        share = corpus.share
    times = 1.0 if read < LOOK else 1 / max(share or 1.0, read / (config.data.max_texts or math.inf))
    counted = "" if tokenizer else ", four characters a token (its tokenizer is not there yet)"
    how = f"by the first {read:,} texts{counted}" if times > 1 or counted else "counted"
    return Texts(pieces * times, tokens * times, reversed_ / pieces, how)


def _untrained(config: Config) -> bool:
    """Whether the tokenizer is one that the command itself has still to make."""
    model = config.teacher.model or config.student.model or ""
    made_here = model.startswith("run:") and not Path(build.path_of(config, model)).exists()
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
