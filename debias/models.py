"""Teacher and student: a student made of teacher layers, families of models."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel


@dataclass(frozen=True)
class Family:
    """A model type: the path of its blocks, and the names of its settings for depth and dropout."""

    blocks: str
    num_layers: str
    dropouts: tuple[str, ...] = ()


_GPT2_DROPOUTS = ("resid_pdrop", "embd_pdrop", "attn_pdrop")
FAMILIES = {
    "gpt2": Family("transformer.h", "n_layer", _GPT2_DROPOUTS),
    "gpt_neo": Family("transformer.h", "num_layers", ("resid_dropout", "embed_dropout", "attention_dropout")),
    "gpt_neox": Family("gpt_neox.layers", "num_hidden_layers", ("hidden_dropout", "attention_dropout")),
    "llama": Family("model.layers", "num_hidden_layers", ("attention_dropout",)),
    "mistral": Family("model.layers", "num_hidden_layers", ("attention_dropout",)),
    "qwen2": Family("model.layers", "num_hidden_layers", ("attention_dropout",)),
}


def family_of(config: Any) -> Family:
    """The family of a model configuration; ValueError names those that are supported."""
    if config.model_type not in FAMILIES:
        raise ValueError(
            f"model type {config.model_type!r}: not supported; supported: {', '.join(FAMILIES)} "
            "(to add one, add a row to FAMILIES in debias/models.py)"
        )
    return FAMILIES[config.model_type]


def _first_line(error: Exception) -> str:
    return (str(error).strip().split("\n")[0] or type(error).__name__)[:200]


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


def kept_layers(rule: str | Sequence[int], depth: int) -> list[int]:
    """Teacher layers that a student keeps: even = 0, 2, 4 …; hf = Sanh et al.'s [0, 2, 4, 7, 9, 11]; all; or a list."""
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


def hidden_map(rule: str, keep: Sequence[int]) -> list[tuple[int, int]]:
    """Which hidden state of a student learns from which of its teacher: pairs of indices into `hidden_states`.

    last: the last state of each, (-1, -1). kept: the student's state after each of its blocks. Its block i + 1 is the
    teacher's block keep[i + 1] and expects that block's input, so this input is what block i learns to produce.
    """
    between = [(i, layer) for i, layer in enumerate(keep) if i] if rule == "kept" else []
    return [*between, (-1, -1)]


def student_from_layers(teacher: PreTrainedModel, keep: Sequence[int]) -> PreTrainedModel:
    """A float32 model with copies of the teacher's blocks `keep`, embeddings, final norm and head."""
    family = family_of(teacher.config)
    depth = num_layers(teacher)
    config = copy.deepcopy(teacher.config)
    for key, value in vars(teacher.config).items():  # settings with an entry per layer
        if isinstance(value, list) and len(value) == depth:
            setattr(config, key, [value[i] for i in keep])
    if teacher.config.model_type == "gpt_neo":  # it lists its layers a second time, as [[kinds, count]]
        config.attention_types = [[[kind], 1] for kind in config.attention_layers]
    setattr(config, family.num_layers, len(keep))
    config.dtype = "float32"
    student = AutoModelForCausalLM.from_config(config)
    weights = {}
    for key, value in teacher.state_dict().items():
        if key.startswith(family.blocks + "."):
            number, _, rest = key[len(family.blocks) + 1 :].partition(".")
            for place, layer in enumerate(keep):
                if layer == int(number):
                    weights[f"{family.blocks}.{place}.{rest}"] = value.float()
        else:
            weights[key] = value.float()
    student.load_state_dict(weights)
    student.tie_weights()
    return student


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
        family_of(known)
        unknown = [key for key in options if not hasattr(known, key)]
        if unknown:
            raise ValueError(f"{model_type} has no setting {', '.join(unknown)}")
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **(defaults | options)))
        if num_layers(model) < 1:
            raise ValueError("at least one layer")
    except Exception as error:  # configuration classes raise anything on a bad value
        raise ValueError(f"student.config: {_first_line(error)}") from None
    return model


def set_dropout(model: PreTrainedModel, rate: float | None) -> None:
    """Set every dropout of a model to `rate`; None leaves the model's own."""
    if rate is None:
        return
    for name in family_of(model.config).dropouts:
        setattr(model.config, name, rate)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = rate
        elif isinstance(getattr(module, "attention_dropout", None), float):
            setattr(module, "attention_dropout", rate)  # noqa: B010 (mypy: modules have no plain attributes)


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
        for block in model.get_submodule(family_of(model.config).blocks).children():
            block.compile(dynamic=True)


def num_layers(model: PreTrainedModel) -> int:
    """Number of transformer blocks."""
    return getattr(model.config, family_of(model.config).num_layers)


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
    family_of(model.config)
    if getattr(model.get_output_embeddings(), "bias", None) is not None:
        raise ValueError(f"{setting}: a language-model head without bias is needed")
    rows = model.get_output_embeddings().weight.shape[0]
    if rows < len(tokenizer):
        raise ValueError(f"{setting}: {rows} embeddings for a tokenizer of {len(tokenizer)} tokens")
    longest = getattr(model.config, "max_position_embeddings", None)
    if longest is not None and longest < max_length:
        raise ValueError(f"data.max_length: {max_length}, but {setting} sees at most {longest} positions")


def check_sizes(student: PreTrainedModel, teacher: PreTrainedModel | None, tokenizer: Any, max_length: int) -> None:
    """Refuse sizes that would fail during training, or silently be wrong."""
    if teacher is not None:
        check_size("teacher.model", teacher, tokenizer, max_length)
    check_size("student", student, tokenizer, max_length)
    if teacher is not None:
        sizes = [m.get_output_embeddings().weight.shape[0] for m in (teacher, student)]
        if sizes[0] != sizes[1]:
            raise ValueError(f"teacher.model: predicts {sizes[0]} tokens, the student {sizes[1]}; they must agree")
