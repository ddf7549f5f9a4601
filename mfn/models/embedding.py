"""Embeddings of every field, and the vectors of items made from them.

All fields share one table, each in a range of rows of its own, so that a batch looks every row up
once, its gradient is one sparse tensor of distinct rows, and an optimizer step costs the same
however long the table is.

Legend: V rows of the table, D width of one field's embedding, U distinct items of a batch,
F item fields of one index, X entities of an item, d width of an item's vector at one level.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from mfn.indices import FIRST_INDEX, ITEM_FIELDS, PADDING, UNKNOWN
from mfn.models.batch import ENTITY, Features, Level


def offsets_of(sizes: Mapping[str, int]) -> dict[str, int]:
    """First row of each field in a table that holds them one after the other."""
    offsets, total = {}, 0
    for name, size in sizes.items():
        offsets[name] = total
        total += size
    return offsets


class Exchange(Protocol):
    """The workers that share a table, as one of them sees them."""

    rank: int
    size: int

    def all_to_all(self, rows: Tensor, counts: Sequence[int]) -> tuple[Tensor, list[int]]:
        """Send the first rows to worker 0, the next to worker 1, and so on, as many as counted.

        Returns:
            what came, that of worker 0 first, and how many rows came from each.
        """
        ...


ROWS_DRAWN_AT_ONCE = 1 << 16


class EmbeddingTable(nn.Module):
    """One trainable embedding for all fields.

    The rows of `PADDING` and `UNKNOWN` start at zero. Padding stays there, as nothing reads it;
    unknown does unless training meets it, and then an unknown value is an average one.

    A worker may hold a part of the rows alone: row number `rank` and each `workers`-th after it.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        dimension: int,
        initial_std: float,
        generator: torch.Generator,
        rank: int = 0,
        workers: int = 1,
    ) -> None:
        super().__init__()
        self.sizes = dict(sizes)
        self.offsets = offsets_of(sizes)
        self.rank, self.workers = rank, workers
        self.rows = sum(sizes.values())
        zero_V = torch.zeros(self.rows, dtype=torch.bool)
        for first in self.offsets.values():
            zero_V[[first + PADDING, first + UNKNOWN]] = True
        weight_VD = torch.empty(len(range(rank, self.rows, workers)), dimension)
        held = 0
        # All rows are drawn, whichever are kept: a row's values don't depend on who holds it.
        for first in range(0, self.rows, ROWS_DRAWN_AT_ONCE):
            rows = slice(first, min(first + ROWS_DRAWN_AT_ONCE, self.rows))
            drawn = torch.empty(rows.stop - first, dimension)
            drawn.normal_(0.0, initial_std, generator=generator)
            drawn[zero_V[rows]] = 0
            kept = drawn[(rank - first) % workers :: workers]
            weight_VD[held : held + len(kept)] = kept
            held += len(kept)
        self.weight = nn.Parameter(weight_VD)

    def lookup(self, rows: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Vectors of the rows in each tensor (shape [..., D]); each distinct row is read once."""
        flat = torch.cat([one.reshape(-1) for one in rows])
        distinct, inverse = torch.unique(flat, return_inverse=True)
        vectors = functional.embedding(inverse, self.vectors(distinct))
        parts = torch.split(vectors, [one.numel() for one in rows])
        return tuple(
            part.view(*one.shape, part.shape[1]) for part, one in zip(parts, rows, strict=True)
        )

    def vectors(self, rows: Tensor) -> Tensor:
        """Vectors of distinct rows that rise, [rows, D], whose gradient is sparse."""
        vectors: Tensor = _DistinctRows.apply(self.weight, rows)
        return vectors

    def whole(self) -> Tensor:
        """All rows, [V, D]."""
        return self.weight.detach()

    def field(self, name: str) -> tuple[Tensor, slice]:
        """The rows of a field that are held here, and which of its indices they are."""
        start, size = self.offsets[name], self.sizes[name]
        first = start + (self.rank - start) % self.workers
        held = len(range(first, start + size, self.workers))
        place = first // self.workers
        return self.weight[place : place + held], slice(first - start, size, self.workers)


class ShardedTable(EmbeddingTable):
    """A table whose rows are spread over the workers: row r lies with worker r mod their number.

    A lookup is a collective: all workers take part in as many, forward and backward. It sends each
    worker the rows asked of it, and their vectors back; backward goes the other way, and leaves
    every worker with the gradient of its own rows, summed over all workers.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        dimension: int,
        initial_std: float,
        generator: torch.Generator,
        exchange: Exchange,
    ) -> None:
        super().__init__(sizes, dimension, initial_std, generator, exchange.rank, exchange.size)
        self.exchange = exchange

    def vectors(self, rows: Tensor) -> Tensor:
        """Vectors of distinct rows, [rows, D], from whoever holds them."""
        owner = rows % self.workers
        order = torch.argsort(owner, stable=True)
        counts = torch.bincount(owner, minlength=self.workers).tolist()
        asked, asked_counts = self.exchange.all_to_all(rows[order] // self.workers, counts)
        held = functional.embedding(asked, self.weight, sparse=True)
        came: Tensor = _Sent.apply(held, self.exchange, asked_counts)
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order))
        return functional.embedding(back, came)

    def whole(self) -> Tensor:
        """All rows, [V, D], on worker 0, and none elsewhere: a collective."""
        weight = self.weight.detach()
        counts = [len(weight), *[0] * (self.workers - 1)]
        came, held = self.exchange.all_to_all(weight, counts)
        if self.rank:
            return came
        whole_VD = weight.new_empty(self.rows, weight.shape[1])
        for place, part in enumerate(torch.split(came, held)):
            whole_VD[place :: self.workers] = part
        return whole_VD


class _DistinctRows(torch.autograd.Function):
    """Rows of a table, whose gradient nobody needs to sort again: torch's own would be."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.shape = table.shape
        return functional.embedding(rows, table)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (rows,) = ctx.saved_tensors
        sparse = torch.sparse_coo_tensor(
            rows[None], gradient, ctx.shape, is_coalesced=True, check_invariants=False
        )
        return sparse, None


class _Sent(torch.autograd.Function):
    """Rows sent to the workers; their gradients come back the same way."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, exchange: Exchange, counts: Sequence[int]) -> Tensor:
        came, ctx.counts = exchange.all_to_all(rows, counts)
        ctx.exchange = exchange
        return came

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        back, _ = ctx.exchange.all_to_all(gradient.contiguous(), ctx.counts)
        return back, None, None


def fields_of(table: Tensor, sizes: Mapping[str, int]) -> dict[str, Tensor]:
    """The rows of each field of a table [V, D]."""
    offsets = offsets_of(sizes)
    return {name: table[offsets[name] : offsets[name] + size] for name, size in sizes.items()}


class ItemTable(nn.Module):
    """The catalogue as indices: for each item row, its row in the embedding table by field."""

    ids_IF: Tensor
    entities_IX: Tensor

    def __init__(
        self, features: Features, indices: Mapping[str, Tensor], offsets: Mapping[str, int]
    ) -> None:
        """`indices` holds a column [I] for each field of one index, and `entity` [I, X]."""
        super().__init__()
        self.id_fields = tuple(name for name in ITEM_FIELDS if name in features.item_fields)
        items = len(next(iter(indices.values())))
        ids = [indices[name].long() + offsets[name] for name in self.id_fields]
        empty = torch.zeros(items, 0, dtype=torch.long)
        self.register_buffer("ids_IF", torch.stack(ids, dim=1) if ids else empty, persistent=False)
        if ENTITY in features.item_fields:
            entities_IX = indices[ENTITY].long()
            # -1 is no entity; every other number is a row of the embedding table.
            entities_IX = torch.where(entities_IX == PADDING, -1, entities_IX + offsets[ENTITY])
        else:
            entities_IX = empty
        self.register_buffer("entities_IX", entities_IX, persistent=False)

    def __len__(self) -> int:
        return int(self.ids_IF.shape[0])

    def vectors(self, ids_UFD: Tensor, entities_UXD: Tensor, real_UX: Tensor) -> dict[str, Tensor]:
        """Each field's part of the items' vectors, [U, D]; `entity` is the mean of its entities."""
        parts = dict(zip(self.id_fields, ids_UFD.unbind(dim=1), strict=True))
        if entities_UXD.shape[1] > 0:
            parts[ENTITY] = masked_mean(entities_UXD, real_UX)
        return parts


def masked_mean(values_UXD: Tensor, real_UX: Tensor) -> Tensor:
    """Mean over the real steps, [U, D]; zero where there are none."""
    total_UD = (values_UXD * real_UX[..., None]).sum(dim=1)
    return total_UD / real_UX.sum(dim=1, keepdim=True).clamp(min=1)


@dataclass(frozen=True)
class FrozenEmbedding:
    """E: what pretraining learnt, by field, and how its parts are standardised.

    Attributes:
        vectors: by field, [size, D], as pretraining left them.
        learnt: by field, [size], whether pretraining has met that index.
        mean: by field, [D], of that part of the catalogue's items.
        std: by field, of that part of the catalogue's items, all its dimensions together.
    """

    vectors: dict[str, Tensor]
    learnt: dict[str, Tensor]
    mean: dict[str, Tensor]
    std: dict[str, Tensor]

    @property
    def dimension(self) -> int:
        """D, the width of one field's embedding."""
        return int(next(iter(self.vectors.values())).shape[1])


def freeze(
    features: Features, items: ItemTable, table_VD: Tensor, learnt_V: Tensor
) -> FrozenEmbedding:
    """E from the table of all fields, with what standardises each field's part of an item.

    Mean and spread are taken over the catalogue's items whose value in that field was learnt.
    """
    vectors = fields_of(table_VD, features.sizes)
    learnt = fields_of(learnt_V, features.sizes)
    mean: dict[str, Tensor] = {}
    std: dict[str, Tensor] = {}
    for name in features.item_fields:
        part = _learnt_part(items, name, table_VD, learnt_V)
        if len(part) < 2:
            part = torch.zeros(1, table_VD.shape[1])
        mean[name] = part.mean(dim=0)
        spread = (part - mean[name]).square().mean().sqrt()
        std[name] = spread if float(spread) > 0 else torch.ones(())
    return FrozenEmbedding(vectors, learnt, mean, std)


def _learnt_part(items: ItemTable, name: str, table_VD: Tensor, learnt_V: Tensor) -> Tensor:
    """That field's part of the vectors of all items that have a learnt value there, [., D]."""
    if name == ENTITY:
        entities_IX = items.entities_IX[FIRST_INDEX:]
        rows_IX = entities_IX.clamp(min=0)
        real_IX = (entities_IX >= 0) & learnt_V[rows_IX]
        return masked_mean(table_VD[rows_IX], real_IX)[real_IX.any(dim=1)]
    rows_I = items.ids_IF[FIRST_INDEX:, items.id_fields.index(name)]
    return table_VD[rows_I[learnt_V[rows_I]]]


class FrozenItems(nn.Module):
    """E of items: each field's part standardised, so that no origin outweighs another.

    A value that pretraining has not met is the average one: zero after standardising. A level's
    vector of width d is scaled by d^(-1/4), and so are the centers that are learnt on it: then
    E Cᵀ is scaled as a dot product of attention is, by 1/√d, and P of eq. 4 starts soft.
    """

    weight_VD: Tensor
    mean_FD: Tensor
    std_F: Tensor

    def __init__(self, features: Features, dimension: int) -> None:
        super().__init__()
        # Item fields come first in the table of all fields, so their rows are the same here.
        self.sizes = {name: features.sizes[name] for name in features.item_fields}
        item_fields = self.item_fields = features.item_fields
        self.register_buffer("weight_VD", torch.zeros(sum(self.sizes.values()), dimension))
        self.register_buffer("mean_FD", torch.zeros(len(item_fields), dimension))
        self.register_buffer("std_F", torch.ones(len(item_fields)))

    def load(self, frozen: FrozenEmbedding) -> None:
        """Take E; indices that came after it was learnt, or were not met, are average."""
        parts = fields_of(self.weight_VD, self.sizes)
        for place, name in enumerate(self.item_fields):
            known = min(len(parts[name]), len(frozen.vectors[name]))
            learnt = frozen.learnt[name][:known, None]
            mean_D = frozen.mean[name]
            parts[name][:] = mean_D
            parts[name][:known] = torch.where(learnt, frozen.vectors[name][:known], mean_D)
            parts[name][PADDING] = 0
            self.mean_FD[place] = mean_D
            self.std_F[place] = frozen.std[name]

    def standardise(self, name: str, part_UD: Tensor, present_U: Tensor) -> Tensor:
        """One field's part of items' vectors; zero where the item has nothing there."""
        place = self.item_fields.index(name)
        standard_UD = (part_UD - self.mean_FD[place]) / self.std_F[place]
        return torch.where(present_U[:, None], standard_UD, 0)


class RandomItems(FrozenItems):
    """An E of items drawn at random and standardised as a pretrained one is."""

    def __init__(self, features: Features, items: ItemTable, dimension: int) -> None:
        super().__init__(features, dimension)
        rows = sum(features.sizes.values())
        learnt_V = torch.ones(rows, dtype=torch.bool)
        for field_rows in fields_of(learnt_V, features.sizes).values():
            field_rows[[PADDING, UNKNOWN]] = False
        super().load(freeze(features, items, torch.randn(rows, dimension), learnt_V))

    def load(self, frozen: FrozenEmbedding) -> None:
        """Nothing: it stays as it was drawn."""


class ItemEncoder(nn.Module):
    """Items to their vectors at each level, in the trainable and the frozen embedding."""

    def __init__(
        self, levels: Sequence[Level], items: ItemTable, frozen: FrozenItems | None
    ) -> None:
        super().__init__()
        self.levels = tuple(levels)
        self.items = items
        self.frozen = frozen

    def rows(self, items_U: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rows of the embedding table: ids [U, F], entities [U, X], and which of these are real."""
        entities_UX = self.items.entities_IX.index_select(0, items_U)
        ids_UF = self.items.ids_IF.index_select(0, items_U)
        return ids_UF, entities_UX.clamp(min=0), entities_UX >= 0

    def trainable(
        self, ids_UFD: Tensor, entities_UXD: Tensor, real_UX: Tensor
    ) -> dict[str, Tensor]:
        """Vectors [U, d] by level, from embeddings that have been looked up."""
        parts = self.items.vectors(ids_UFD, entities_UXD, real_UX)
        return {
            level.name: torch.cat([parts[name] for name in level.fields], dim=1)
            for level in self.levels
        }

    @torch.no_grad()
    def frozen_vectors(self, items_U: Tensor) -> dict[str, Tensor]:
        """E of items, [U, d] by level; zero for padding."""
        if self.frozen is None:
            raise ValueError("this model has no frozen embedding")
        ids_UF, entities_UX, real_UX = self.rows(items_U)
        parts = self.items.vectors(
            functional.embedding(ids_UF, self.frozen.weight_VD),
            functional.embedding(entities_UX, self.frozen.weight_VD),
            real_UX,
        )
        present_U = items_U != PADDING
        has_entity_U = present_U & real_UX.any(dim=1)
        vectors = {}
        for level in self.levels:
            standard = [
                self.frozen.standardise(
                    name, parts[name], has_entity_U if name == ENTITY else present_U
                )
                for name in level.fields
            ]
            vector_Ud = torch.cat(standard, dim=1)
            vectors[level.name] = vector_Ud * vector_Ud.shape[1] ** -0.25
        return vectors
