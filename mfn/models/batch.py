"""The input of a model: a batch of request rows, and the fields and levels of the data set.

Legend: B requests, M candidates, N history steps, I items, F item fields, X entities of an item,
P profile fields, S context fields.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

ENTITY = "entity"
"""The item field with several indices per item."""

COARSE_FIELDS = ("category", "shop", "brand", "price")
FINE_FIELDS = ("item_id", ENTITY)


@dataclass(frozen=True)
class Level:
    """One granularity: an item vector is the concatenation of the embeddings of these fields."""

    name: str
    fields: tuple[str, ...]


@dataclass(frozen=True)
class Features:
    """The fields that vary in a data set.

    Attributes:
        sizes: number of indices of each field, including padding.
        history_length: N, the maximum number of steps of a history.
    """

    item_fields: tuple[str, ...]
    user_fields: tuple[str, ...]
    context_fields: tuple[str, ...]
    sizes: Mapping[str, int]
    history_length: int

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any]) -> Features:
        """Read from the manifest of a day's splits, or from a model's description.

        Raises:
            ValueError: no item field varies, so all items would have the same vector.
        """
        names = [f"user.{name}" for name in manifest["user_fields"]]
        names += [f"context.{name}" for name in manifest["context_fields"]]
        if not manifest["item_fields"]:
            raise ValueError("item_fields: expected at least one field that varies, got none")
        return cls(
            tuple(manifest["item_fields"]),
            tuple(manifest["user_fields"]),
            tuple(manifest["context_fields"]),
            {
                name: int(manifest["vocabularies"][name]["size"])
                for name in [*manifest["item_fields"], *names]
            },
            int(manifest["history_length"]),
        )

    @property
    def levels(self) -> tuple[Level, ...]:
        """The levels, category and fine, that have at least one varying field."""
        levels = (
            Level("category", tuple(f for f in COARSE_FIELDS if f in self.item_fields)),
            Level("fine", tuple(f for f in FINE_FIELDS if f in self.item_fields)),
        )
        return tuple(level for level in levels if level.fields)


@dataclass(frozen=True)
class Batch:
    """Request rows as tensors; padding has index 0."""

    history_BN: Tensor
    history_length_B: Tensor
    candidates_BM: Tensor
    candidate_count_B: Tensor
    labels_BM: Tensor
    user_fields_BP: Tensor
    context_fields_BS: Tensor

    @classmethod
    def of_columns(cls, tensor: Callable[[str], Tensor]) -> Batch:
        """Build a batch; `tensor` returns the tensor of a column of the request rows by name."""
        return cls(
            history_BN=tensor("history"),
            history_length_B=tensor("history_length"),
            candidates_BM=tensor("candidates"),
            candidate_count_B=tensor("candidate_count"),
            labels_BM=tensor("labels"),
            user_fields_BP=tensor("user_fields"),
            context_fields_BS=tensor("context_fields"),
        )

    @property
    def history_mask_BN(self) -> Tensor:
        """[B, N], True at real behaviours, False at padding."""
        steps_N = torch.arange(self.history_BN.shape[1], device=self.history_BN.device)
        return steps_N < self.history_length_B[:, None]

    @property
    def candidate_mask_BM(self) -> Tensor:
        """[B, M], True at real candidates, False at padding."""
        positions_M = torch.arange(self.candidates_BM.shape[1], device=self.candidates_BM.device)
        return positions_M < self.candidate_count_B[:, None]

    def __len__(self) -> int:
        return int(self.history_BN.shape[0])

    def select(self, rows: Tensor | slice) -> Batch:
        """A batch of some of the rows."""
        return Batch(*(getattr(self, field.name)[rows] for field in fields(self)))

    def trimmed(self) -> Batch:
        """Without the history steps that are padding in every row; keeps at least one step."""
        longest = max(1, int(self.history_length_B.max())) if len(self) else 1
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return Batch(**{**values, "history_BN": self.history_BN[:, :longest]})


def concatenate(batches: Sequence[Batch]) -> Batch:
    """One batch with the rows of several batches, in order."""
    if len(batches) == 1:
        return batches[0]
    return Batch(
        *(torch.cat([getattr(one, field.name) for one in batches]) for field in fields(Batch))
    )
