"""Teacher and student: what a model is made of, found by looking at it; a student made of teacher layers."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from counterfactuals.files import one_line

log = logging.getLogger(__name__)
# logits that show what a model does with those of its head, exact in every precision: the second tells the slope, the
# last the cap
PROBE = (0.0, 2.0**-10, -1.0, 7.0, -40.0, 300.0, -(2.0**100), 2.0**100)


def body_of(model: Any) -> Any:
    """The part that turns token ids into the hidden states that the head reads."""
    decoder = model.get_decoder()
    return model.base_model if decoder is model.get_output_embeddings() else decoder  # some call their head so


def num_layers(model: PreTrainedModel) -> int:
    """Number of transformer blocks, as the configuration of the text model says."""
    return getattr(model.config.get_text_config(), "num_hidden_layers", 0)


def blocks_of(model: PreTrainedModel) -> tuple[str, torch.nn.ModuleList]:
    """The blocks and their path within the model: the outermost list of modules as long as the model is deep."""
    body = body_of(model)
    lists = [
        (name, module)
        for name, module in body.named_modules()
        if isinstance(module, torch.nn.ModuleList) and len(module) == num_layers(model)
    ]
    outer = [(name, module) for name, module in lists if name.count(".") == min(n.count(".") for n, _ in lists)]
    if len(outer) != 1:
        kind = model.config.model_type
        raise ValueError(f"{kind}: its {num_layers(model)} layers are not found ({len(outer)} lists are that long)")
    path = next(name for name, module in model.named_modules() if module is outer[0][1])
    return path, outer[0][1]


@dataclass(frozen=True)
class Head:
    """How a model makes logits of its last hidden states: cap · tanh((scale · hidden Wᵀ + after · bias) / cap).

    W, bias: its output embeddings. cap 0: no tanh.
    """

    scale: float = 1.0
    after: float = 1.0
    cap: float = 0.0

    def options(self, model: Any, num_rows: int | None = None) -> dict[str, Any]:
        """Options of `distillation_loss` and `model_rows`. num_rows: of the first rows of the vocabulary only."""
        output = model.get_output_embeddings()
        weight_VD, bias_V = output.weight, getattr(output, "bias", None)
        if num_rows is not None and num_rows < len(weight_VD):
            weight_VD, bias_V = weight_VD[:num_rows], None if bias_V is None else bias_V[:num_rows]
        bias_V = bias_V if bias_V is None or self.after == 1 else self.after * bias_V
        return {"head_VD": weight_VD, "bias_V": bias_V, "scale": self.scale, "cap": self.cap}


@torch.no_grad()
def head_of(model: Any, setting: str = "model") -> Head:
    """The head of a model, measured: two forward passes over a few tokens, one with its logits replaced by PROBE.

    Raises ValueError where the hidden states and the head do not give the model's logits to within rounding, and where
    a prediction depends on later tokens.
    """
    output, kind = model.get_output_embeddings(), f"{setting}: {model.config.model_type}"
    if output is None or getattr(output, "weight", None) is None:
        raise ValueError(f"{kind}: has no language-model head")
    seen: dict[str, torch.Tensor] = {}

    def replace(module: Any, given: Any, made: torch.Tensor) -> torch.Tensor:
        probe = torch.tensor(PROBE, device=made.device).repeat(made.numel() // len(PROBE) + 1)
        seen.update(read=given[0], made=made, probe=probe[: made.numel()].view(made.shape))
        return seen["probe"]

    was_training = model.training
    model.eval()
    handle = output.register_forward_hook(replace)
    try:
        hidden = body_of(model)(**_tokens(model), use_cache=False).last_hidden_state
        logits = model(**_tokens(model), use_cache=False).logits
    except Exception as error:
        raise ValueError(f"{kind}: cannot read a few tokens ({one_line(error)})") from error
    finally:
        handle.remove()
        model.train(was_training)
    if not hidden.isfinite().all():
        raise ValueError(f"{kind}: its hidden states are not finite; its weights are damaged")
    if not _close(hidden[0, :-1], hidden[1, :-1]):
        raise ValueError(f"{kind}: its predictions depend on later tokens; a causal language model is needed")
    wide = hidden.double()
    before = _snap(float((seen["read"].double() * wide).sum() / (wide * wide).sum()))
    probe, found = seen["probe"].double(), logits.double()
    after = _snap(float(found[probe == PROBE[1]].mean() / PROBE[1]))
    top = float(found[probe == PROBE[-1]].max())
    cap = 0.0 if abs(top / (after * PROBE[-1]) - 1) < 1e-3 else top
    expected = cap * torch.tanh(after * probe / cap) if cap else after * probe
    weight, bias = output.weight, getattr(output, "bias", None)
    linear = before * hidden.to(weight.dtype) @ weight.T + (0 if bias is None else bias)
    if (
        found.shape != expected.shape
        or not torch.allclose(found, expected, 1e-2, 1e-5)
        or not _close(linear, seen["made"])
    ):
        raise ValueError(
            f"{kind}: its logits are not those of its hidden states and its head; it cannot be trained with"
        )
    return Head(before * after, after, cap)


def _tokens(model: Any) -> dict[str, torch.Tensor]:
    """Two short texts that differ in their last token, to look at a model with."""
    size = model.get_input_embeddings().weight.shape[0]
    ids = torch.arange(1, 17, device=model.device).repeat(2, 1) * 7 % size
    ids[1, -1] = (ids[1, -1] + 1) % size
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether two tensors are equal but for rounding: half precision has errors of a few percent."""
    half = 2 in (found.element_size(), expected.element_size())
    error, size = (found.double() - expected.double()).norm(), expected.double().norm()
    return bool(error <= (3e-2 if half else 1e-4) * size)


def _snap(value: float) -> float:
    return 1.0 if abs(value - 1) < 1e-4 else value


def same_vocabulary(tokenizer: Any, other: Any, *, this: str, that: str) -> None:
    """Refuse two tokenizers that give different ids to a token: their predictions cannot be compared."""
    mine, yours = tokenizer.get_vocab(), other.get_vocab()
    if mine == yours:
        return
    differing = sorted(token for token in mine.keys() | yours.keys() if mine.get(token) != yours.get(token))
    first = differing[0]
    raise ValueError(
        f"{this} and {that} have different vocabularies ({len(mine)} and {len(yours)} tokens, {len(differing)} differ; "
        f"e.g. {first!r} is {mine.get(first)} and {yours.get(first)}): distillation compares them token by token; "
        "use a student of the teacher's tokenizer"
    )


def kept_layers(rule: str | Sequence[int], depth: int, influence: Sequence[float] = ()) -> list[int]:
    """Teacher layers that a student keeps: even = 0, 2, 4 …; hf = Sanh et al.'s [0, 2, 4, 7, 9, 11]; all; or a list.

    even:N: N layers, spread evenly from the first on. influence:N: the N of most `influence` (block_influence), the
    earlier of equal ones.
    """
    kind, _, number = rule.partition(":") if isinstance(rule, str) else ("", "", "")
    if number:
        if int(number) > depth:
            raise ValueError(f"student.layers: {rule}: this teacher has {depth} layers")
        if kind == "even":
            return [i * depth // int(number) for i in range(int(number))]
        return sorted(sorted(range(depth), key=lambda i: -influence[i])[: int(number)])
    if rule == "even":
        return list(range(0, depth, 2))
    if rule == "all":
        return list(range(depth))
    keep = [0, 2, 4, 7, 9, 11] if rule == "hf" else [int(i) for i in rule]
    if rule == "hf" and depth != 12:
        raise ValueError(f"student.layers: hf is a map for 12 layers; this teacher has {depth}; use even or a list")
    wrong = [i for i in keep if not 0 <= i < depth]
    if wrong or not keep:
        raise ValueError(f"student.layers: {list(keep)}: the teacher has layers 0 to {depth - 1}")
    return keep


@torch.no_grad()
def block_influence(model: Any, batches: Iterable[torch.Tensor]) -> list[float]:
    """How much each block changes what it reads: 1 − cosine of its input and its output, mean over all tokens.

    0: the block passes its input on; 2: it turns it round. batches: ids_NT without padding. Source: Men et al. 2024
    (ShortGPT).
    """
    blocks = dict(enumerate(blocks_of(model)[1]))
    total_L, num_tokens, training = torch.zeros(len(blocks), dtype=torch.float64), 0, model.training
    model.eval()
    with _states_of(blocks) as (read, wrote):
        for ids_NT in batches:
            body_of(model)(input_ids=ids_NT.to(model.device), use_cache=False)
            alike = [torch.cosine_similarity(read[i].float(), wrote[i].float(), dim=-1) for i in blocks]
            total_L += torch.stack([(1 - cosine_NT).double().sum() for cosine_NT in alike]).cpu()
            num_tokens += ids_NT.numel()
    model.train(training)
    return (total_L / num_tokens).tolist()


@contextmanager
def _states_of(blocks: Mapping[int, Any]) -> Iterator[tuple[dict[int, torch.Tensor], dict[int, torch.Tensor]]]:
    """What these blocks read and wrote when their model last ran, by number."""
    read, wrote = dict[int, torch.Tensor](), dict[int, torch.Tensor]()

    def record(i: int) -> Any:
        def hook(module: Any, given: Any, named: Any, output: Any) -> None:
            read[i] = given[0] if given else named["hidden_states"]
            wrote[i] = output if torch.is_tensor(output) else output[0]

        return hook

    handles = [block.register_forward_hook(record(i), with_kwargs=True) for i, block in blocks.items()]
    try:
        yield read, wrote
    finally:
        for handle in handles:
            handle.remove()


def hidden_map(rule: str, keep: Sequence[int]) -> list[tuple[int, int]]:
    """Which hidden state of a student learns from which of its teacher: pairs of indices into `hidden_states`.

    last: the last state of each, (-1, -1). kept: the student's state after each of its blocks. Its block i + 1 is the
    teacher's block keep[i + 1] and expects that block's input, so this input is what block i learns to produce.
    """
    between = [(i, layer) for i, layer in enumerate(keep) if i] if rule == "kept" else []
    return [*between, (-1, -1)]


def student_from_layers(teacher: PreTrainedModel, keep: str | Sequence[int]) -> PreTrainedModel:
    """A float32 model with copies of the teacher's blocks `keep` (see kept_layers), embeddings, final norm and head.

    ValueError for a block that the teacher does not have, and where one would work otherwise at its new place.
    """
    path, _ = blocks_of(teacher)
    keep = kept_layers(keep, num_layers(teacher))
    depth, config = num_layers(teacher), copy.deepcopy(teacher.config)
    text = config.get_text_config()
    for key, value in list(vars(text).items()):  # settings with an entry per layer
        if isinstance(value, list) and len(value) == depth and "token" not in key and key != "architectures":
            setattr(text, key, [value[i] for i in keep])
    if text.model_type == "gpt_neo":  # it lists its layers a second time, as [[kinds, count]]
        text.attention_types = [[[kind], 1] for kind in text.attention_layers]
    text.num_hidden_layers = len(keep)
    config.dtype = text.dtype = "float32"
    weights: dict[str, torch.Tensor] = {}
    for key, value in teacher.state_dict().items():
        number, _, rest = key.removeprefix(path + ".").partition(".")
        if key.startswith(path + "."):
            weights |= {f"{path}.{i}.{rest}": value for i, layer in enumerate(keep) if layer == int(number)}
        else:
            weights[key] = value
    try:
        student = type(teacher)._from_config(config).float()
        student.load_state_dict(
            {key: value.float() if value.is_floating_point() else value for key, value in weights.items()}
        )
    except Exception as error:  # what differs from layer to layer is not in a list that we know
        raise ValueError(
            f"student.layers: {config.model_type} cannot be cut to {list(keep)} ({one_line(error)})"
        ) from error
    student.tie_weights()
    if teacher.device.type != "meta":
        head_of(teacher, "teacher.model")
        _check_blocks(student, teacher, keep)
    return student


@torch.no_grad()
def _check_blocks(student: PreTrainedModel, teacher: PreTrainedModel, keep: Sequence[int]) -> None:
    """Refuse a student whose block i, given what the teacher's block keep[i] reads, gives something else."""
    theirs, ours = (blocks_of(model)[1] for model in (teacher, student))

    def feed(i: int) -> Any:
        def before(module: Any, given: Any, named: Any) -> Any:
            value = read[keep[i]].to(student.device, torch.float32)
            return ((value, *given[1:]), named) if given else (given, named | {"hidden_states": value})

        return before

    training = teacher.training, student.training
    with _states_of({i: theirs[i] for i in keep}) as (read, wrote), _states_of(dict(enumerate(ours))) as (_, made):
        handles = [block.register_forward_pre_hook(feed(i), with_kwargs=True) for i, block in enumerate(ours)]
        try:
            for model in (teacher, student):
                body_of(model.eval())(**_tokens(model), use_cache=False)
        finally:
            for handle in handles:
                handle.remove()
            teacher.train(training[0])
            student.train(training[1])
    wrong = [i for i, layer in enumerate(keep) if not _close(made[i].to(wrote[layer].device), wrote[layer])]
    if wrong:
        kind = teacher.config.model_type
        raise ValueError(
            f"student.layers: {kind}: layer {keep[wrong[0]]} works otherwise as layer {wrong[0]} of a student; use "
            "all layers or another student.init"
        )


def random_student(options: dict[str, Any], tokenizer: Any, max_length: int) -> PreTrainedModel:
    """A randomly initialised model; options are those of its configuration class, model_type gpt2 unless given."""
    options = dict(options)
    model_type = options.pop("model_type", "gpt2")
    defaults = {"vocab_size": len(tokenizer), "bos_token_id": tokenizer.bos_token_id}
    defaults |= {"eos_token_id": tokenizer.eos_token_id}
    if model_type == "gpt2":
        defaults["n_positions"] = max_length
    try:
        known = AutoConfig.for_model(model_type)
        unknown = [key for key in options if not hasattr(known, key)]
        if unknown:
            raise ValueError(f"{model_type} has no setting {', '.join(unknown)}")
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **(defaults | options)))
        if num_layers(model) < 1:
            raise ValueError("at least one layer")
    except Exception as error:  # configuration classes raise anything on a bad value
        raise ValueError(f"student.config: {one_line(error)}") from None
    if model.device.type != "meta":
        head_of(model, "student.config")
    return model


def set_dropout(model: PreTrainedModel, rate: float | None) -> None:
    """Set every dropout of a model to `rate`; None leaves the model's own."""
    if rate is None:
        return
    for owner in [*_configs(model.config), *model.modules()]:
        for name, value in list(vars(owner).items()):
            if isinstance(value, float) and ("dropout" in name or "pdrop" in name):
                setattr(owner, name, rate)
        if isinstance(owner, torch.nn.Dropout):
            owner.p = rate


def _configs(config: PreTrainedConfig) -> Iterator[PreTrainedConfig]:
    yield config
    for value in vars(config).values():
        if isinstance(value, PreTrainedConfig):
            yield from _configs(value)


def add_lora(
    student: PreTrainedModel,
    *,
    rank: int,
    alpha: float | None = None,
    targets: str | list[str] = "all-linear",
    dropout: float = 0.0,
) -> None:
    """Freeze a student and add LoRA matrices of this rank to its layers `targets`, scaled by alpha / rank (2)."""
    from peft import LoraConfig, inject_adapter_in_model

    options: dict[str, Any] = {"r": rank, "lora_alpha": 2 * rank if alpha is None else alpha, "lora_dropout": dropout}
    options["fan_in_fan_out"] = any(isinstance(module, Conv1D) for module in student.modules())  # else peft warns
    try:
        inject_adapter_in_model(LoraConfig(target_modules=targets, **options), student)
    except Exception as error:
        raise ValueError(f"student.lora: {one_line(error)}; choose other layers with student.lora.targets") from error


def checkpoint_activations(model: Any) -> None:
    """Store only the input of each block, and recompute the block in the backward pass."""
    # transformers 5 renamed this; the old name warns, and is removed in 6
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def compile_layers(*compiled: PreTrainedModel) -> None:
    """torch.compile each block of some models, in place, for any batch and length; the blocks of a model share code.

    Compiling the whole body is slower: PyTorch before 2.14 then writes out the causal mask, which excludes flash
    attention. Earlier compilations are dropped: PyTorch keeps eight versions of a function, and would silently leave
    the models of a later run uncompiled.
    """
    torch.compiler.reset()
    for model in compiled:
        for block in blocks_of(model)[1]:
            block.compile(dynamic=True)


def check_widths(student: PreTrainedModel, teacher: PreTrainedModel) -> None:
    """Refuse to compare hidden states of unequal width."""
    mine, yours = (m.get_output_embeddings().weight.shape[1] for m in (student, teacher))
    if mine != yours:
        raise ValueError(
            f"loss.hidden_weight: the teacher's hidden states have width {yours}, the student's {mine}; they can "
            "only be compared if the widths are equal: use student.init layers, or set it to 0"
        )


def check_size(setting: str, model: PreTrainedModel, tokenizer: Any, max_length: int) -> None:
    """Refuse a model with fewer embeddings than tokens, or fewer positions than max_length."""
    blocks_of(model)
    rows = model.get_output_embeddings().weight.shape[0]
    if rows < len(tokenizer):
        raise ValueError(f"{setting}: {rows} embeddings for a tokenizer of {len(tokenizer)} tokens")
    text = model.config.get_text_config()
    longest = getattr(text, "max_position_embeddings", None) or getattr(text, "max_seq_len", None)
    if longest is not None and longest < max_length:
        raise ValueError(f"data.max_length: {max_length}, but {setting} sees at most {longest} positions")


def check_models(student: Any, teacher: Any | None, tokenizer: Any, max_length: int, *, cached: bool = False) -> None:
    """Refuse what would fail during training, or silently be wrong. cached: the teacher's predictions are stored."""
    for setting, model in {"teacher.model": teacher, "student": student}.items():
        if model is None:
            continue
        check_size(setting, model, tokenizer, max_length)
        if model.device.type != "meta":
            head_of(model, setting)
    sizes = [m.get_output_embeddings().weight.shape[0] for m in (teacher, student) if m is not None]
    if len({*sizes}) > 1:
        how = f"teacher.model: predicts {sizes[0]:,} tokens, the student {sizes[1]:,}"
        if cached:
            raise ValueError(f"{how}; with teacher.cache they must agree")
        log.warning("%s; training compares the %s that both have", how, f"{min(sizes):,}")
