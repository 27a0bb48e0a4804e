"""batch → losses. The loop never learns what distillation is."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from counterfactuals.batch import PairBatch
from debias.cache import Codec
from debias.losses import TeacherRows, distillation_loss, model_rows
from debias.ops import VocabularyRoles


class DistillTask(nn.Module):
    """A student learning from a frozen teacher and from text. The trainable parameters are the student's alone.

    teacher None: its predictions come with the batch and are read by `codec` (debias/cache.py), or there are none
    (kd_weight must be 0). Both models share a vocabulary.
    """

    def __init__(
        self,
        student: Any,
        teacher: Any = None,
        *,
        codec: Codec | None = None,
        op: str = "none",
        mix: float = 0.5,
        strength: float = 1.0,
        strength_warmup: float = 0.0,
        roles: VocabularyRoles | None = None,
        divergence: str = "forward",
        tau: float = 2.0,
        kd_weight: float = 0.5,
        lm_weight: float = 0.5,
        chunk_rows: int = 256,
    ):
        super().__init__()
        self.student: Any = student
        self.teacher: Any
        # not a submodule: it is neither trained, nor saved, nor partitioned or synchronised between ranks
        object.__setattr__(self, "teacher", teacher.eval().requires_grad_(False) if teacher is not None else None)
        self.codec, self.roles = codec, roles
        self.strength, self.strength_warmup = strength, strength_warmup
        self.options: dict[str, Any] = {"op": op, "mix": mix, "kind": divergence, "tau": tau, "chunk_rows": chunk_rows}
        self.options |= {"kd_weight": kd_weight, "lm_weight": lm_weight}

    def forward(self, batch: PairBatch, progress: float = 1.0) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Summed loss with gradient, and {"loss", "kd", "lm"} detached sums over batch.num_tokens predictions, in nats.

        progress: share of the training that is done, for what changes with it. The teacher runs once on each sequence
        of the batch, the student once on each that is trained.
        """
        teacher = self.teacher_rows(batch)
        trained_ids = batch.ids_NT[: batch.num_trained]
        hidden = self.student.base_model(input_ids=trained_ids, use_cache=False).last_hidden_state
        total, kd, lm = distillation_loss(
            hidden.flatten(0, 1),
            self.student.get_output_embeddings().weight,
            teacher,
            row_R=batch.row_R,
            label_R=batch.label_R,
            perturb_R=batch.perturb_R,
            trained_R=batch.trained_R,
            context_R=batch.ids_NT.flatten()[batch.row_R],
            num_pairs=batch.num_pairs,
            roles=self.roles,
            strength=self.strength_at(progress),
            **self.options,
        )
        return total, {"loss": total.detach(), "kd": kd, "lm": lm}

    def strength_at(self, progress: float) -> float:
        """Strength of the perturbation (ops.combine): a linear rise from 0 over the warm-up, constant afterwards."""
        return self.strength * (min(progress / self.strength_warmup, 1.0) if self.strength_warmup else 1.0)

    @torch.no_grad()
    def teacher_rows(self, batch: PairBatch) -> TeacherRows | None:
        """Where this batch's teacher predictions come from: one run over all its sequences, or a cache."""
        if not self.options["kd_weight"]:
            return None
        if self.codec is not None and batch.teacher_PB is not None:
            return self.codec.rows(batch.teacher_PB)
        if self.teacher is None:
            return None
        hidden_NTE = self.teacher.base_model(input_ids=batch.ids_NT, use_cache=False).last_hidden_state
        return model_rows(hidden_NTE.flatten(0, 1), self.teacher.get_output_embeddings().weight)
