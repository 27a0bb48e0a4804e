"""Rules between several settings: each check yields a line for what no run can have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from configs.schema import Config
from counterfactuals.files import near
from counterfactuals.prompts import own_prompts
from counterfactuals.text.lexicon import load_lexicon


def problems(config: Config, earlier: Sequence[str]) -> list[str]:
    """A line for each rule that `config` breaks. earlier: names of the runs that are trained before this one."""
    found = list(models_of_earlier_runs(config, earlier))
    for check in CHECKS:
        found += check(config)
    return found


def models_of_earlier_runs(c: Config, earlier: Sequence[str]) -> Iterator[str]:
    for key, model in (("teacher.model", c.teacher.model), ("student.model", c.student.model)):
        name = (model or "").removeprefix("run:")
        if (model or "").startswith("run:") and name not in earlier:
            known = ", ".join(earlier) or "none"
            yield f"{key}: {model} is not an earlier run{near(name, earlier)}; earlier: {known}"


def teacher(c: Config) -> Iterator[str]:
    for key in ("prompts", "cued_every"):
        if getattr(c.data, key) != getattr(type(c.data)(), key) and c.data.source != "self":
            yield f"data.{key}: matters only with data.source self"
    if c.data.prompts and c.data.source == "self":
        try:
            own_prompts(c.data.prompts, load_lexicon(c.counterfactual.lexicon))
        except ValueError as error:
            yield str(error)
    if c.data.choose_from > 1 and (c.data.source, c.loss.vocabulary) != ("self", "reversed"):
        yield "data.choose_from: needs data.source self and loss.vocabulary reversed; else set it to 1"
    if c.teacher.model is None:
        if c.data.source == "self":
            yield "data.source: self needs teacher.model, which writes the texts"
        if c.loss.kd_weight:
            yield "loss.kd_weight: without a teacher it must be 0; or name one in teacher.model"
        if c.student.init == "layers":
            yield "student.init: layers needs teacher.model; without one use pretrained or random"
        if c.loss.hidden_weight:
            yield "loss.hidden_weight: above 0 needs teacher.model"
    if c.teacher.erase != "none":
        apart = {"teacher.cache": c.teacher.cache, "loss.hidden_weight": c.loss.hidden_weight}
        apart |= {"data.streaming": c.data.streaming, "federated.rounds": c.federated.rounds}
        apart |= {"privacy.epsilon": c.privacy.epsilon}
        yield from (f"teacher.erase: not together with {key}" for key, value in apart.items() if value)
        if not c.loss.kd_weight:
            yield "teacher.erase: has no effect when loss.kd_weight is 0; use none"
    if c.loss.hidden_weight and c.teacher.cache:
        yield "loss.hidden_weight: needs the teacher's hidden states, and teacher.cache does not store them"


def student(c: Config) -> Iterator[str]:
    if (c.student.model is not None) != (c.student.init == "pretrained"):
        yield "student.model: goes with student.init pretrained, and only with it"
    if bool(c.student.config) != (c.student.init == "random"):
        yield "student.config: goes with student.init random, and only with it"
    kinds: dict[str, Any] = {"rank": int, "alpha": (int, float), "targets": (str, list), "dropout": (int, float)}
    wrong = [key for key, item in c.student.lora.items() if not isinstance(item, kinds.get(key, ()))]
    if wrong or (c.student.lora and "rank" not in c.student.lora):
        yield "student.lora: {rank: 8, alpha: 16, targets: [q_proj, v_proj], dropout: 0}; all but rank may be left out"
    if c.student.lora and c.student.init == "random":
        yield "student.lora: changes a trained model; with student.init random leave it out"
    if c.student.init != "layers" and c.student.layers != "even":
        yield "student.layers: matters only with student.init layers"
    if str(c.student.layers).startswith("influence") and (c.federated.rounds or c.privacy.epsilon is not None):
        yield "student.layers: influence looks at the texts; not together with federated.rounds or privacy.epsilon"


def tokenizer(c: Config) -> Iterator[str]:
    from_scratch = c.student.init == "random" and c.teacher.model is None
    if c.tokenizer.train_vocab_size is not None:
        if c.tokenizer.name is not None:
            yield "tokenizer.name: not together with tokenizer.train_vocab_size"
        if not from_scratch:
            yield "tokenizer.train_vocab_size: only for a random student without a teacher"
    elif from_scratch and not c.tokenizer.name:
        yield "tokenizer.name: needed to train from scratch (or tokenizer.train_vocab_size)"


def weights(c: Config) -> Iterator[str]:
    if c.loss.kd_weight == c.loss.lm_weight == 0:
        yield "loss.kd_weight, loss.lm_weight: both are 0, there is nothing to learn from"
    if c.loss.kd_weight == 0 and c.loss.op != "none":
        yield "loss.op: has no effect when loss.kd_weight is 0; use none"


def op(c: Config) -> Iterator[str]:
    if c.loss.op == "none":
        if c.loss.vocabulary != "plain":
            yield "loss.vocabulary: reversed needs an op that combines; with loss.op none use plain"
        if c.loss.strength != 1 or c.loss.strength_warmup:
            yield "loss.strength, loss.strength_warmup: have no effect with loss.op none"
    if c.loss.role_weight and c.loss.vocabulary != "reversed":
        yield "loss.role_weight: needs loss.vocabulary reversed"
    if c.loss.amplify != 1 and c.loss.vocabulary != "reversed":
        yield "loss.amplify: needs loss.vocabulary reversed"
    if c.loss.amplify != 1 and (c.counterfactual.perturb != "both" or not c.counterfactual.stop_at_cue):
        yield "loss.amplify: needs counterfactual.perturb both and stop_at_cue; else bias grows"
    if c.loss.mix != 0.5 and c.loss.op != "mix":
        yield "loss.mix: matters only with loss.op mix"
    if c.counterfactual.perturb == "original" and (c.counterfactual.augment != "both" or c.loss.op == "none"):
        yield "counterfactual.perturb: original matters only with counterfactual.augment both and an op; use both"
    if not c.counterfactual.stop_at_cue and c.loss.vocabulary != "reversed":
        yield "counterfactual.stop_at_cue: matters only with loss.vocabulary reversed"


def optimizer(c: Config) -> Iterator[str]:
    if c.optim.name == "sgd" and c.optim.weight_decay:
        yield "optim.weight_decay: has no effect with optim.name sgd; use adamw, or 0"


def hidden_states(c: Config) -> Iterator[str]:
    if not c.loss.hidden_weight and (c.loss.hidden_layers, c.loss.hidden_target) != ("last", "mean"):
        yield "loss.hidden_layers, loss.hidden_target: matter only with loss.hidden_weight above 0"
    if c.loss.hidden_weight and c.loss.hidden_layers == "kept" and c.student.init != "layers":
        yield "loss.hidden_layers: kept uses student.layers, with student.init layers; use last"


def steps(c: Config) -> Iterator[str]:
    t = c.train
    if t.epochs is None and t.max_steps is None and not c.federated.rounds:
        yield "train.epochs or train.max_steps: one of them must be set"
    if t.batch_size % t.micro_batch_size:
        yield f"train.batch_size: {t.batch_size} is not a multiple of train.micro_batch_size {t.micro_batch_size}"
    if c.counterfactual.augment == "both" and t.micro_batch_size < 2:
        yield "train.micro_batch_size: at least 2 with counterfactual.augment both (a text and its counterfactual)"


def streaming(c: Config) -> Iterator[str]:
    if not c.data.streaming:
        return
    apart = {"data.pairs_dir": c.data.pairs_dir, "teacher.cache": c.teacher.cache}
    apart["tokenizer.train_vocab_size"] = str(c.tokenizer.train_vocab_size or "") or None
    yield from (f"{key}: not together with data.streaming" for key, value in apart.items() if value is not None)
    if c.counterfactual.augment == "one":
        yield "counterfactual.augment: one is not for data.streaming, where no text is seen twice; use none or both"
    if c.tracking.artifacts:
        yield "tracking.artifacts: not together with data.streaming, which keeps no pair set"
    if c.train.max_steps is None:
        yield "train.max_steps: needed with data.streaming, whose corpus has no length"
    if c.data.shuffle_buffer < c.train.batch_size:
        yield f"data.shuffle_buffer: at least train.batch_size {c.train.batch_size}, not {c.data.shuffle_buffer}"


def small_evaluations(c: Config) -> Iterator[str]:
    if bool(c.eval.during) != (c.eval.every > 0):
        yield "eval.every, eval.during: set both (steps between small evaluations, and their tasks) or neither"


def federated(c: Config) -> Iterator[str]:
    f = c.federated
    if not f.rounds:
        return
    apart: dict[str, object] = {
        "data.streaming": c.data.streaming,
        "data.pairs_dir": c.data.pairs_dir,
        "train.log_plain": c.train.log_plain,
    }
    apart |= {"tokenizer.train_vocab_size": c.tokenizer.train_vocab_size, "train.keep_best": c.train.keep_best}
    apart |= {"tracking.artifacts": c.tracking.artifacts, "train.batch_by tokens": c.train.batch_by == "tokens"}
    yield from (f"{key}: not together with federated.rounds" for key, value in apart.items() if value)
    if c.train.max_steps not in (None, f.rounds * f.local_steps):
        yield f"train.max_steps: is federated.rounds × local_steps, {f.rounds * f.local_steps}; leave it out"
    if (f.clients is None) != (f.partition == "key"):
        yield "federated.clients: how many there are; null only with partition key, which has one for each value"
    if f.partition in ("label", "key") and f.label is None:
        yield f"federated.label: needed with federated.partition {f.partition}, e.g. a field of the corpus"
    if f.clients is not None and f.per_round > f.clients:
        yield f"federated.per_round: {f.per_round} clients a round, but there are only {f.clients}"
    if f.periods > f.rounds:
        yield f"federated.periods: {f.periods} periods need as many rounds, not {f.rounds}"
    if c.privacy.epsilon is None:
        return
    if f.clients is None:
        yield "federated.partition: with key the number of clients is not known; privacy.epsilon needs it"
    if f.select != "uniform":
        yield f"federated.select: {f.select} depends on the clients' texts, so nothing may be claimed; use uniform"
    if f.weights != "uniform":
        yield "federated.weights: with privacy.epsilon all clients must have the same weight; use uniform"
    if (c.privacy.unit, c.privacy.clip, c.privacy.adaptive, c.privacy.decay) != ("client", "flat", None, 1.0):
        yield "privacy.unit: client, with clip flat, and without adaptive and decay, is what federated.rounds has"


def privacy(c: Config) -> Iterator[str]:
    p, t = c.privacy, c.train
    if p.epsilon is None:
        given = [key for key, value in p if value != getattr(type(p)(), key)]
        if given and "epsilon" not in p.model_fields_set:
            keys = ", ".join(f"privacy.{key}" for key in given)
            yield f"{keys}: no guarantee without privacy.epsilon; set it, or to null to train without it all the same"
        return
    if p.unit == "client" and not c.federated.rounds:
        yield "privacy.unit: client goes with federated.rounds; use text"
    if p.delta is None:
        yield "privacy.delta: needed with privacy.epsilon; well below 1 / number of texts, e.g. 1e-6"
    if p.adaptive is not None and p.clip != "flat":
        yield "privacy.adaptive: only with privacy.clip flat"
    if c.tokenizer.train_vocab_size is not None:
        yield "tokenizer.train_vocab_size: a tokenizer of the private texts would give them away; name another's"
    unsafe = {"train.keep_best": t.keep_best is not None, "train.on_nan skip": t.on_nan == "skip"}
    yield from (f"{key}: would depend on the private texts, outside the guarantee" for key, on in unsafe.items() if on)
    inexact = {"data.streaming": c.data.streaming, "train.batch_by tokens": t.batch_by == "tokens"}
    inexact |= {"train.compile": t.compile, "train.gradient_checkpointing": t.gradient_checkpointing}
    inexact |= {"train.precision fp16": t.precision == "fp16", "student.lora": bool(c.student.lora)}
    yield from (f"{key}: not together with privacy.epsilon" for key, on in inexact.items() if on)


CHECKS = (
    teacher, student, tokenizer, weights, op, optimizer, hidden_states, privacy, steps, streaming, small_evaluations,
    federated,
)  # fmt: skip
