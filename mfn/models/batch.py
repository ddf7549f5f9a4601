"""What a model is given: a batch of request rows, and what the data set knows of fields and items.

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
"""The item field that holds several indices an item."""

COARSE_FIELDS = ("category", "shop", "brand", "price")
FINE_FIELDS = ("item_id", ENTITY)


@dataclass(frozen=True)
class Level:
    """One granularity: an item's vector is the concatenation of these fields' embeddings."""

    name: str
    fields: tuple[str, ...]


@dataclass(frozen=True)
class Features:
    """The fields that vary in a data set.

    Attributes:
        sizes: how many indices each field has, padding included.
        history_length: the most steps that a history has.
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
            ValueError: no item field varies, so that nothing tells items apart.
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
        """The levels that have a field: category and fine, as far as their fields vary."""
        levels = (
            Level("category", tuple(f for f in COARSE_FIELDS if f in self.item_fields)),
            Level("fine", tuple(f for f in FINE_FIELDS if f in self.item_fields)),
        )
        return tuple(level for level in levels if level.fields)


@dataclass(frozen=True)
class Batch:
    """Request rows as tensors; padding is index 0."""

    history_BN: Tensor
    history_length_B: Tensor
    candidates_BM: Tensor
    candidate_count_B: Tensor
    labels_BM: Tensor
    user_fields_BP: Tensor
    context_fields_BS: Tensor

    @classmethod
    def of_columns(cls, tensor: Callable[[str], Tensor]) -> Batch:
        """From what `tensor` gives for each of these columns of the request rows."""
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
        """True at real behaviours."""
        steps_N = torch.arange(self.history_BN.shape[1], device=self.history_BN.device)
        return steps_N < self.history_length_B[:, None]

    @property
    def candidate_mask_BM(self) -> Tensor:
        """True at real candidates."""
        places_M = torch.arange(self.candidates_BM.shape[1], device=self.candidates_BM.device)
        return places_M < self.candidate_count_B[:, None]

    def __len__(self) -> int:
        return int(self.history_BN.shape[0])

    def select(self, rows: Tensor | slice) -> Batch:
        """Some of the rows."""
        return Batch(*(getattr(self, field.name)[rows] for field in fields(self)))

    def trimmed(self) -> Batch:
        """Without the columns of the history that are padding in every row; one is always left."""
        longest = max(1, int(self.history_length_B.max())) if len(self) else 1
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return Batch(**{**values, "history_BN": self.history_BN[:, :longest]})


def concatenate(batches: Sequence[Batch]) -> Batch:
    """The rows of several batches, one after the other."""
    if len(batches) == 1:
        return batches[0]
    return Batch(
        *(torch.cat([getattr(one, field.name) for one in batches]) for field in fields(Batch))
    )
