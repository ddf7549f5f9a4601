"""A small catalogue with a frozen embedding, request rows and models for tests.

Legend: B requests, N history steps, M candidates.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mfn.models.batch import Batch, Features
from mfn.models.embedding import FrozenEmbedding, TableStart
from mfn.models.ranker import Ranker
from mfn.models.settings import RankerSettings

D = 4
SIZES = {
    "item_id": 30, "category": 9, "shop": 8, "brand": 6, "price": 7, "entity": 12,
    "user.age": 5, "context.hour": 7,
}  # fmt: skip
SCHEMA: dict[str, Any] = {
    "item_fields": ["item_id", "category", "shop", "brand", "price", "entity"],
    "user_fields": ["age"],
    "context_fields": ["hour"],
    "vocabularies": {name: {"size": size} for name, size in SIZES.items()},
    "history_length": 12,
}
FEATURES = Features.from_manifest(SCHEMA)
ITEMS = 33


def item_indices() -> dict[str, Tensor]:
    """The item table; the third entity of each item is padding."""
    random = torch.Generator().manual_seed(5)
    indices = {
        name: torch.randint(3, SIZES[name], (ITEMS,), generator=random)
        for name in ("item_id", "category", "shop", "brand", "price")
    }
    indices["entity"] = torch.randint(3, SIZES["entity"], (ITEMS, 3), generator=random)
    indices["entity"][:, 2] = 0
    for column in indices.values():
        column[0] = 0
    return indices


def frozen(seed: int = 1) -> FrozenEmbedding:
    """A random E in which padding, missing and unknown are not learnt."""
    random = torch.Generator().manual_seed(seed)
    vectors = {name: torch.randn(size, D, generator=random) for name, size in SIZES.items()}
    return FrozenEmbedding(
        vectors,
        {name: torch.arange(size) >= 3 for name, size in SIZES.items()},
        {name: vectors[name].mean(dim=0) for name in FEATURES.item_fields},
        {name: vectors[name].std() for name in FEATURES.item_fields},
    )


def table_start() -> TableStart:
    """The start of the trainable table, at E's vectors."""
    return TableStart(frozen().vectors, frozen().learnt)


def made(settings: RankerSettings, features: Features = FEATURES, seed: int = 1) -> Ranker:
    """A model before training, with E and with random centers from the seed."""
    model = Ranker(settings, features, item_indices(), D, 0.2, seed)
    random = torch.Generator().manual_seed(seed)
    centers = {
        level.name: torch.randn(
            getattr(settings, "similarity_interests", 1), D * len(level.fields), generator=random
        )
        for level in model.levels
    }
    model.load_frozen(frozen(), centers)
    if model.settings.start_at_pretrained:
        model.start_at(table_start())
    return model


def batch(
    B: int = 5, N: int = 6, M: int = 4, seed: int = 3, lengths: list[int] | None = None
) -> Batch:
    """Random rows; if `lengths` is None, the first row has no history."""
    random = torch.Generator().manual_seed(seed)
    length_B = torch.randint(0, N + 1, (B,), generator=random)
    length_B[0] = 0
    if lengths is not None:
        length_B = torch.tensor(lengths)
    count_B = torch.randint(1, M + 1, (B,), generator=random)
    count_B[-1] = M
    history_BN = torch.randint(3, ITEMS, (B, N), generator=random)
    candidates_BM = torch.randint(3, ITEMS, (B, M), generator=random)
    history_BN[torch.arange(N) >= length_B[:, None]] = 0
    candidates_BM[torch.arange(M) >= count_B[:, None]] = 0
    return Batch(
        history_BN,
        length_B,
        candidates_BM,
        count_B,
        torch.randint(0, 2, (B, M), generator=random),
        torch.randint(1, 5, (B, 1), generator=random),
        torch.randint(1, 7, (B, 1), generator=random),
    )


def gradients(model: Ranker, rows: list[Batch]) -> dict[str, Tensor]:
    """Gradients of the loss of all rows, by parameter; parameters without one are left out."""
    model.zero_grad()
    for one in rows:
        model.loss(one).backward()
    return {name: p.grad.to_dense() for name, p in model.named_parameters() if p.grad is not None}
