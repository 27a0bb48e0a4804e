"""What a run costs, from the sizes of its models and texts: operations, memory, disk, GPU-hours.

A multiplication with its addition counts as two floating-point operations (FLOP). Attention is causal: a token sees
half of the length on average. Only matrix products are counted; test_plan.py holds them against PyTorch's own counter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# FLOP/s of dense 16-bit matrix products, from the makers' data sheets
PEAK = {"t4": 65e12, "v100": 125e12, "l4": 121e12, "a100": 312e12, "h100": 989e12, "h200": 989e12}
PEAK_FRACTION = 0.3  # fraction of the peak that a small model is assumed to reach
PAIR_BYTES = 2  # a token id in a pair set; 4 where the vocabulary is larger than 65,536


@dataclass(frozen=True)
class Shape:
    """Sizes of a causal language model.

    parameters: all, shared ones once; trained: those that are not frozen; blocks: those in the matrices of its blocks;
    head: rows × width of its output embeddings.
    """

    parameters: int
    trained: int
    blocks: int
    head: int
    layers: int
    width: int

    @classmethod
    def of(cls, model: Any) -> Shape:
        """The sizes of a model, which may be on the meta device."""
        weight = model.get_output_embeddings().weight
        layers = model.config.get_text_config().num_hidden_layers
        inside = {id(p) for m in (model.get_input_embeddings(), model.get_output_embeddings()) for p in m.parameters()}
        matrices = sum(p.numel() for p in model.parameters() if p.dim() == 2 and id(p) not in inside)
        positions = getattr(getattr(model, "transformer", None), "wpe", None)
        if positions is not None:  # looked up, not multiplied
            matrices -= positions.weight.numel()
        trained = model.num_parameters(only_trainable=True)
        return cls(model.num_parameters(), trained, matrices, weight.numel(), layers, weight.shape[1])

    def forward(self, length: int) -> float:
        """FLOP of the forward pass per token, in sequences of `length`."""
        return 2 * (self.blocks + self.head) + 2 * self.layers * self.width * length


def training_flop(
    student: Shape, teacher: Shape | None, *, student_tokens: float, teacher_tokens: float, length: float,
    checkpointing: bool = False,
) -> tuple[float, float]:  # fmt: skip
    """FLOP of the teacher (forward) and the student on so many tokens: forward, and twice that backward, half of it for
    the gradients of weights, which frozen ones do not have.
    """
    frozen = 2 * max(0, student.blocks + student.head - student.trained)
    of_student = (3 + checkpointing) * student.forward(int(length)) - frozen
    of_teacher = teacher.forward(int(length)) * teacher_tokens if teacher is not None else 0.0
    return of_teacher, of_student * student_tokens


def memory_bytes(
    student: Shape,
    teacher: Shape | None,
    *,
    micro_tokens: int,
    chunk_rows: int,
    half: bool,
    teacher_bytes: int = 4,
    checkpointing: bool = False,
) -> dict[str, float]:
    """Bytes on one device: weights, and gradients and AdamW's two moments of trained ones, in float32; the teacher's
    weights; what the backward pass needs of each token (17 values a layer and unit of width, Korthikanti et al. 2022;
    one with checkpointing); the loss's chunk of logits and its gradient of the head.
    """
    size = 2 if half else 4
    values = (1 if checkpointing else 17) * student.layers * student.width
    teacher_values = 8 * teacher.width if teacher is not None else 0
    rows = student.head // student.width
    return {
        "student": 4 * student.parameters + 12 * student.trained,
        "teacher": teacher_bytes * teacher.parameters if teacher is not None else 0,
        "activations": micro_tokens * (values + teacher_values) * size,
        "loss": 4.0 * (3 * chunk_rows * rows + student.head),
    }


def disk_bytes(
    *, tokens: float, with_cf: float, vocab: int, cache_bytes: int, student: Shape, keep: int
) -> dict[str, float]:
    """Bytes of the pair set (ids, the counterfactual's ids and index), a teacher cache if any, and checkpoints."""
    width = PAIR_BYTES if vocab <= 65_536 else 4
    return {
        "pairs": tokens * width * (1 + 2 * with_cf),
        "teacher cache": tokens * (1 + with_cf) * cache_bytes,
        "checkpoints": (4.0 * student.parameters + 8 * student.trained) * keep,
    }
