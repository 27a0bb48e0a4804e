"""Batch → loss. The training loop never learns what distillation is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from counterfactuals.tokens.batch import PairBatch
from debias.cache.codec import Codec
from debias.losses import Tap, TeacherRows, check_divergence, distillation_loss, hidden_loss, model_rows
from debias.models import Head, body_of, head_of
from debias.ops import VocabularyRoles, check_op


class DistillTask(nn.Module):
    """A student that learns from a frozen teacher and from text. Only the student's parameters are trained.

    op: how the teacher's predictions on a text and on its counterfactual are combined, one of ops.OPS. Batches have to
    be collated with the same op, and with vocabulary "reversed" where roles are given: collate marks what to combine.

    teacher None: its predictions come with the batch and are decoded by `codec`, or there are none (kd_weight must be
    0). Student and teacher share a vocabulary. hidden_weight: weight of `hidden_loss`, averaged over hidden_layers,
    pairs of indices into the student's and the teacher's hidden states; it needs the teacher itself. hidden_target:
    what a row with a counterpart learns, the "mean" of the teacher's states on both texts or its "own". The other
    options are those of `distillation_loss`, whose `kind` is called divergence here.

        >>> task = DistillTask(student, teacher, op="max", roles=roles)
        >>> loss, sums = task(batch)
        >>> (loss / batch.num_tokens).backward()
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
        amplify: float = 1.0,
        roles: VocabularyRoles | None = None,
        divergence: str = "forward",
        tau: float = 2.0,
        kd_weight: float = 0.5,
        lm_weight: float = 0.5,
        role_weight: float = 0.0,
        hidden_weight: float = 0.0,
        hidden_layers: Sequence[tuple[int, int]] = ((-1, -1),),
        hidden_target: str = "mean",
        chunk_rows: int = 256,
    ):
        super().__init__()
        check_op(op)
        check_divergence(divergence)
        self.student: Any = student
        self._no_split_modules = getattr(student, "_no_split_modules", None)  # FSDP: a unit for each of its blocks
        self.teacher: Any
        # not a submodule: it is not trained or saved, nor split or synchronised between ranks
        object.__setattr__(self, "teacher", teacher.eval().requires_grad_(False) if teacher is not None else None)
        self.codec, self.roles = codec, roles
        self.head = head_of(student, "student")
        self.teacher_head = head_of(teacher, "teacher") if teacher is not None else Head()
        sizes = [m.get_output_embeddings().weight.shape[0] for m in (student, teacher) if m is not None]
        self.num_rows = min(sizes)  # of the vocabulary: one of the two may be padded further
        used = {id(p) for part in (body_of(student), student.get_output_embeddings()) for p in part.parameters()}
        for parameter in student.parameters():
            parameter.requires_grad_(parameter.requires_grad and id(parameter) in used)  # no vision tower
        self.strength, self.strength_warmup = strength, strength_warmup
        self.options: dict[str, Any] = {"op": op, "mix": mix, "kind": divergence, "tau": tau, "chunk_rows": chunk_rows}
        self.options |= {"kd_weight": kd_weight, "lm_weight": lm_weight, "role_weight": role_weight, "amplify": amplify}
        self.tap: Tap | None = None  # of distillation_loss
        self.hidden_weight, self.hidden_layers, self.hidden_target = hidden_weight, tuple(hidden_layers), hidden_target

    def forward(
        self, batch: PairBatch, progress: float = 1.0, *, plain: bool = False
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Summed loss with gradient, and {"loss", "kd", "lm"[, "hidden"]}: detached sums over batch.num_tokens rows.

        kd and lm are in nats, hidden in 1 − cosine. progress: fraction of the training that is done, for
        strength_warmup. plain: also report "kd_plain", the divergence from the teacher's unchanged predictions. The
        teacher runs once on each sequence of the batch, the student once on each that is trained.
        """
        if self.options["op"] != "none" and not batch.combined:
            raise ValueError(
                f"batch: collated with op none, but the task's op is {self.options['op']}: give both the same"
            )
        if self.options["op"] != "none" and batch.reversed != (self.roles is not None):
            raise ValueError("batch: collate(vocabulary='reversed') and the task's roles: give both or neither")
        teacher, teacher_states = self.run_teacher(batch)
        states = self._states(self.student, batch.ids_NT[: batch.num_trained])
        head: dict[str, Any] = self.head.options(self.student, self.num_rows)
        masks: dict[str, Any] = {"perturb_R": batch.perturb_R, "trained_R": batch.trained_R}
        masks["num_pairs"] = batch.num_pairs
        rows: dict[str, Any] = {"row_R": batch.row_R, "label_R": batch.label_R}
        rows |= masks | {"context_R": batch.ids_NT.flatten()[batch.row_R]}
        changing: dict[str, Any] = {"turn_R": batch.turn_R, "roles": self.roles, "strength": self.strength_at(progress)}
        changing |= head | {"tap": self.tap}
        total, kd, lm = distillation_loss(states[-1], teacher=teacher, **rows, **changing, **self.options)
        parts = {"kd": kd, "lm": lm}
        if plain and teacher is not None:
            unchanged = {key: self.options[key] for key in ("kind", "tau", "chunk_rows")}
            unchanged |= {"kd_weight": 1.0, "lm_weight": 0.0}
            # detached: the loss computes the gradients of its inputs even under no_grad
            still: dict[str, Any] = {
                key: value.detach() if torch.is_tensor(value) else value for key, value in head.items()
            }
            parts["kd_plain"] = distillation_loss(states[-1].detach(), teacher=teacher, **still, **rows, **unchanged)[1]
        if self.hidden_weight:
            masks["perturb_R"] = batch.perturb_R & (self.hidden_target == "mean")
            pairs = [(states[s], teacher_states[t]) for s, t in self.hidden_layers]
            hidden = torch.stack([hidden_loss(*pair, row_R=batch.row_R, **masks) for pair in pairs]).mean()
            total = total + self.hidden_weight * hidden
            parts["hidden"] = hidden.detach()
        return total, {"loss": total.detach()} | parts

    def strength_at(self, progress: float) -> float:
        """Strength of the op (ops.combine): a linear rise from 0 over the warm-up, constant afterwards."""
        return self.strength * (min(progress / self.strength_warmup, 1.0) if self.strength_warmup else 1.0)

    @torch.no_grad()
    def run_teacher(self, batch: PairBatch) -> tuple[TeacherRows | None, Sequence[torch.Tensor]]:
        """The teacher's predictions on this batch and its hidden states, from one run over all sequences.

        With a cache: the stored predictions, and no states.
        """
        if self.codec is not None and batch.teacher_PB is not None:
            return self.codec.rows(batch.teacher_PB) if self.options["kd_weight"] else None, ()
        if self.teacher is None or not (self.options["kd_weight"] or self.hidden_weight):
            return None, ()
        states = self._states(self.teacher, batch.ids_NT)
        return model_rows(states[-1], **self.teacher_head.options(self.teacher, self.num_rows)), states

    def _states(self, model: Any, ids_NT: torch.Tensor) -> list[torch.Tensor]:
        """Hidden states at flat positions: all of them if any but the last is compared, else only the last."""
        every = bool(self.hidden_weight) and self.hidden_layers != ((-1, -1),)
        found = body_of(model)(input_ids=ids_NT, use_cache=False, output_hidden_states=every)
        states = found.hidden_states if every else (found.last_hidden_state,)
        return [state.flatten(0, 1) for state in states]
