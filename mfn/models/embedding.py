"""Embeddings of all fields, and the item vectors that are computed from them.

All fields share one table, where each field has its own range of rows. So a batch looks up every
distinct row once, the gradient is one sparse tensor of distinct rows, and the cost of an optimizer
step does not depend on the length of the table.

Legend: V rows of the table, D width of one field's embedding, U distinct items of a batch,
F item fields with one index, X entities of an item, d width of an item vector at one level.
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
    """The first row of each field in a table that concatenates the fields."""
    offsets, total = {}, 0
    for name, size in sizes.items():
        offsets[name] = total
        total += size
    return offsets


class Exchange(Protocol):
    """Communication between the workers that share a table."""

    rank: int
    size: int

    def all_to_all(self, rows: Tensor, counts: Sequence[int]) -> tuple[Tensor, list[int]]:
        """Send the first counts[0] rows to worker 0, the next counts[1] to worker 1, and so on.

        Returns:
            the received rows in the order of their senders, and the number from each sender.
        """
        ...


ROWS_DRAWN_AT_ONCE = 1 << 16
"""Bounds the memory for initial values of rows that other workers keep."""


class EmbeddingTable(nn.Module):
    """One trainable embedding for all fields.

    The rows of `PADDING` and `UNKNOWN` are initialised with zero. Padding stays zero, because
    nothing reads it. Unknown stays zero unless it occurs in training; then unknown values get the
    learnt average.

    A worker may hold only a part of the rows: row `rank` and every `workers`-th row after it.
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
        # zero_V: rows that are initialised with zero, padding and unknown of every field.
        zero_V = torch.zeros(self.rows, dtype=torch.bool)
        for first in self.offsets.values():
            zero_V[[first + PADDING, first + UNKNOWN]] = True
        weight_VD = torch.empty(len(range(rank, self.rows, workers)), dimension)
        held = 0
        # Draw all rows, also those that other workers keep, so that the values of a row do not
        # depend on the number of workers.
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
        """The vectors of the rows in each tensor, [..., D]; each distinct row is read once."""
        flat = torch.cat([one.reshape(-1) for one in rows])
        distinct, inverse = torch.unique(flat, return_inverse=True)
        vectors = functional.embedding(inverse, self.vectors(distinct))
        parts = torch.split(vectors, [one.numel() for one in rows])
        return tuple(
            part.view(*one.shape, part.shape[1]) for part, one in zip(parts, rows, strict=True)
        )

    def vectors(self, rows: Tensor) -> Tensor:
        """The vectors of distinct, increasing rows, [rows, D]; their gradient is sparse."""
        vectors: Tensor = _DistinctRows.apply(self.weight, rows)
        return vectors

    def whole(self) -> Tensor:
        """All rows, [V, D]."""
        return self.weight.detach()

    def field(self, name: str) -> tuple[Tensor, slice]:
        """The rows of a field that this worker holds, and the slice of the field's indices."""
        start, size = self.offsets[name], self.sizes[name]
        # The first row of the field that this worker holds, and its position among the held rows.
        first = start + (self.rank - start) % self.workers
        held = len(range(first, start + size, self.workers))
        position = first // self.workers
        return self.weight[position : position + held], slice(first - start, size, self.workers)


class ShardedTable(EmbeddingTable):
    """A table whose rows are sharded over the workers: worker r mod `workers` holds row r.

    A lookup is a collective operation: all workers must do the same number of them, forward and
    backward. The forward pass sends row numbers to the workers that hold them and their vectors
    back. The backward pass sends gradients to the holders, which sum them over all workers.
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
        """The vectors of distinct rows, [rows, D], from the workers that hold them."""
        # Sort the rows by the worker that holds them.
        owner = rows % self.workers
        order = torch.argsort(owner, stable=True)
        counts = torch.bincount(owner, minlength=self.workers).tolist()
        # Send row numbers, relative to the holder's shard; answer what the others requested.
        requested, requested_counts = self.exchange.all_to_all(rows[order] // self.workers, counts)
        held = functional.embedding(requested, self.weight, sparse=True)
        received: Tensor = _SendRows.apply(held, self.exchange, requested_counts)
        # Restore the order of `rows`.
        inverse = torch.empty_like(order)
        inverse[order] = torch.arange(len(order))
        return functional.embedding(inverse, received)

    def whole(self) -> Tensor:
        """All rows, [V, D], on worker 0, and no rows on other workers: a collective operation."""
        weight = self.weight.detach()
        counts = [len(weight), *[0] * (self.workers - 1)]
        received, received_counts = self.exchange.all_to_all(weight, counts)
        if self.rank:
            return received
        rows_VD = weight.new_empty(self.rows, weight.shape[1])
        for rank, shard in enumerate(torch.split(received, received_counts)):
            rows_VD[rank :: self.workers] = shard
        return rows_VD


class _DistinctRows(torch.autograd.Function):
    """Look up distinct, sorted rows; unlike torch's, its sparse gradient needs no new sort."""

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


class _SendRows(torch.autograd.Function):
    """Send rows to the workers; the backward pass returns their gradients to the sender."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, exchange: Exchange, counts: Sequence[int]) -> Tensor:
        received, ctx.counts = exchange.all_to_all(rows, counts)
        ctx.exchange = exchange
        return received

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        returned, _ = ctx.exchange.all_to_all(gradient.contiguous(), ctx.counts)
        return returned, None, None


def fields_of(table: Tensor, sizes: Mapping[str, int]) -> dict[str, Tensor]:
    """Split a table [V, D] into the rows of each field."""
    offsets = offsets_of(sizes)
    return {name: table[offsets[name] : offsets[name] + size] for name, size in sizes.items()}


class ItemTable(nn.Module):
    """The item table: for each row and field, the row in the embedding table.

    Attributes:
        id_fields: the fields with one index for each item, in the order of `ids_IF`.
        offsets: for each field, its first row in the embedding table.
    """

    ids_IF: Tensor
    entities_IX: Tensor

    def __init__(
        self, features: Features, indices: Mapping[str, Tensor], offsets: Mapping[str, int]
    ) -> None:
        """`indices` holds [I] for each field with one index, and [I, X] for `entity`."""
        super().__init__()
        self.id_fields = tuple(name for name in ITEM_FIELDS if name in features.item_fields)
        self.offsets = {name: offsets[name] for name in features.item_fields}
        items = len(next(iter(indices.values())))
        ids = [indices[name].long() + offsets[name] for name in self.id_fields]
        empty = torch.zeros(items, 0, dtype=torch.long)
        self.register_buffer("ids_IF", torch.stack(ids, dim=1) if ids else empty, persistent=False)
        if ENTITY in features.item_fields:
            entities_IX = indices[ENTITY].long()
            # -1 means no entity; other numbers are rows of the embedding table.
            entities_IX = torch.where(entities_IX == PADDING, -1, entities_IX + offsets[ENTITY])
        else:
            entities_IX = empty
        self.register_buffer("entities_IX", entities_IX, persistent=False)

    def __len__(self) -> int:
        return int(self.ids_IF.shape[0])

    def vectors(self, ids_UFD: Tensor, entities_UXD: Tensor, real_UX: Tensor) -> dict[str, Tensor]:
        """Each field's part of the item vectors, [U, D]; `entity` is the mean over its entities."""
        parts = dict(zip(self.id_fields, ids_UFD.unbind(dim=1), strict=True))
        if entities_UXD.shape[1] > 0:
            parts[ENTITY] = masked_mean(entities_UXD, real_UX)
        return parts


def masked_mean(values_UXD: Tensor, real_UX: Tensor) -> Tensor:
    """Mean over the real steps, [U, D]; zero for rows without real steps."""
    total_UD = (values_UXD * real_UX[..., None]).sum(dim=1)
    return total_UD / real_UX.sum(dim=1, keepdim=True).clamp(min=1)


@dataclass(frozen=True)
class FrozenEmbedding:
    """E: the pretrained vectors of the item fields, with mean and deviation to standardise them.

    Attributes:
        vectors: by field, [size, D], not standardised.
        learnt: by field, [size], True if the index occurred in pretraining.
        mean: by field, [D], over that part of the vectors of the item table's rows.
        std: by field, a scalar over items and dimensions of that part.
    """

    vectors: dict[str, Tensor]
    learnt: dict[str, Tensor]
    mean: dict[str, Tensor]
    std: dict[str, Tensor]

    @property
    def dimension(self) -> int:
        """D, the width of one field's embedding."""
        return int(next(iter(self.vectors.values())).shape[1])


@dataclass(frozen=True)
class TableStart:
    """The vectors at which the trainable table starts, by field, item fields and others.

    Attributes:
        vectors: by field, [size, D].
        learnt: by field, [size], True if the index occurred in pretraining.
    """

    vectors: dict[str, Tensor]
    learnt: dict[str, Tensor]


@dataclass(frozen=True)
class Pretrained:
    """What the job `pretrain_embeddings` publishes: E, and the start of the trainable table."""

    frozen: FrozenEmbedding
    start: TableStart


def freeze(
    features: Features, items: ItemTable, table_VD: Tensor, learnt_V: Tensor
) -> FrozenEmbedding:
    """Build E from a table of all fields.

    Mean and standard deviation of a field are computed over the rows of the item table whose value
    in that field was learnt.
    """
    vectors = {name: fields_of(table_VD, features.sizes)[name] for name in features.item_fields}
    learnt = {name: fields_of(learnt_V, features.sizes)[name] for name in features.item_fields}
    mean: dict[str, Tensor] = {}
    std: dict[str, Tensor] = {}
    for name in features.item_fields:
        part = _learnt_part(items, name, table_VD, learnt_V)
        if len(part) < 2:  # too few for a standard deviation: use mean 0 and std 1
            part = torch.zeros(1, table_VD.shape[1])
        mean[name] = part.mean(dim=0)
        deviation = (part - mean[name]).square().mean().sqrt()
        std[name] = deviation if float(deviation) > 0 else torch.ones(())
    return FrozenEmbedding(vectors, learnt, mean, std)


def _learnt_part(items: ItemTable, name: str, table_VD: Tensor, learnt_V: Tensor) -> Tensor:
    """One field's part of the vectors of all items whose value in it was learnt, [., D]."""
    if name == ENTITY:
        entities_IX = items.entities_IX[FIRST_INDEX:]
        rows_IX = entities_IX.clamp(min=0)
        real_IX = (entities_IX >= 0) & learnt_V[rows_IX]
        return masked_mean(table_VD[rows_IX], real_IX)[real_IX.any(dim=1)]
    rows_I = items.ids_IF[FIRST_INDEX:, items.id_fields.index(name)]
    return table_VD[rows_I[learnt_V[rows_I]]]


class FrozenItems(nn.Module):
    """E of items, with each field's part standardised, so that all fields weigh the same.

    A value that did not occur in pretraining gets the mean, which is zero after standardising. The
    vector of a level, of width d, is scaled by d^(-1/4), and so are the centers that are learnt on
    it. So E Cᵀ is scaled by 1/√d, as in dot product attention, and P of eq. 4 starts soft.
    """

    weight_VD: Tensor
    mean_FD: Tensor
    std_F: Tensor

    def __init__(self, features: Features, dimension: int) -> None:
        super().__init__()
        # Item fields come first in the table of all fields, so row numbers are the same here.
        self.sizes = {name: features.sizes[name] for name in features.item_fields}
        item_fields = self.item_fields = features.item_fields
        self.register_buffer("weight_VD", torch.zeros(sum(self.sizes.values()), dimension))
        self.register_buffer("mean_FD", torch.zeros(len(item_fields), dimension))
        self.register_buffer("std_F", torch.ones(len(item_fields)))

    def load(self, frozen: FrozenEmbedding) -> None:
        """Copy E; indices that are newer than E or were not learnt get the mean."""
        parts = fields_of(self.weight_VD, self.sizes)
        for position, name in enumerate(self.item_fields):
            known = min(len(parts[name]), len(frozen.vectors[name]))
            learnt = frozen.learnt[name][:known, None]
            mean_D = frozen.mean[name]
            parts[name][:] = mean_D
            parts[name][:known] = torch.where(learnt, frozen.vectors[name][:known], mean_D)
            parts[name][PADDING] = 0
            self.mean_FD[position] = mean_D
            self.std_F[position] = frozen.std[name]

    def standardise(self, name: str, part_UD: Tensor, present_U: Tensor) -> Tensor:
        """Standardise one field's part of item vectors; zero where the item has no value."""
        position = self.item_fields.index(name)
        standard_UD = (part_UD - self.mean_FD[position]) / self.std_F[position]
        return torch.where(present_U[:, None], standard_UD, 0)


class RandomItems(FrozenItems):
    """A random E of items, standardised like a pretrained one."""

    def __init__(self, features: Features, items: ItemTable, dimension: int) -> None:
        super().__init__(features, dimension)
        rows = sum(features.sizes.values())
        learnt_V = torch.ones(rows, dtype=torch.bool)
        for field_rows in fields_of(learnt_V, features.sizes).values():
            field_rows[[PADDING, UNKNOWN]] = False
        super().load(freeze(features, items, torch.randn(rows, dimension), learnt_V))

    def load(self, frozen: FrozenEmbedding) -> None:
        """Keep the random E; a pretrained one is ignored."""


class ItemEncoder(nn.Module):
    """Encodes items as vectors at each level, in the trainable and the frozen embedding."""

    def __init__(
        self, levels: Sequence[Level], items: ItemTable, frozen: FrozenItems | None
    ) -> None:
        super().__init__()
        self.levels = tuple(levels)
        self.items = items
        self.frozen = frozen

    def rows(self, items_U: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rows of the embedding table: ids [U, F], entities [U, X], and a mask of real entities."""
        entities_UX = self.items.entities_IX.index_select(0, items_U)
        ids_UF = self.items.ids_IF.index_select(0, items_U)
        return ids_UF, entities_UX.clamp(min=0), entities_UX >= 0

    def trainable(
        self, ids_UFD: Tensor, entities_UXD: Tensor, real_UX: Tensor
    ) -> dict[str, Tensor]:
        """Vectors [U, d] by level, from embeddings that are already looked up."""
        parts = self.items.vectors(ids_UFD, entities_UXD, real_UX)
        return {
            level.name: torch.cat([parts[name] for name in level.fields], dim=1)
            for level in self.levels
        }

    @torch.no_grad()
    def frozen_vectors(self, items_U: Tensor) -> dict[str, Tensor]:
        """The vectors of E by level, [U, d]; zero for padding."""
        if self.frozen is None:
            raise ValueError("this model has no frozen embedding")
        ids_UF, entities_UX, real_UX = self.rows(items_U)
        parts = self.items.vectors(
            functional.embedding(ids_UF, self.frozen.weight_VD),
            functional.embedding(entities_UX, self.frozen.weight_VD),
            real_UX,
        )
        # Standardise each field's part, concatenate the parts of a level, scale by d^(-1/4).
        present_U = items_U != PADDING
        has_entity_U = present_U & real_UX.any(dim=1)
        vectors = {}
        for level in self.levels:
            standardised = [
                self.frozen.standardise(
                    name, parts[name], has_entity_U if name == ENTITY else present_U
                )
                for name in level.fields
            ]
            vector_Ud = torch.cat(standardised, dim=1)
            vectors[level.name] = vector_Ud * vector_Ud.shape[1] ** -0.25
        return vectors
