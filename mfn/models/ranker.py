"""The ranking model: embeddings, an extractor and an aggregation a level, one head.

Legend: B requests, M candidates, N history steps, U distinct items of a batch, D width of one
field's embedding, d width of an item's vector at a level, P profile fields, S context fields.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from mfn.models.aggregation import Aggregation
from mfn.models.base import MeanPooling
from mfn.models.batch import Batch, Features
from mfn.models.embedding import (
    EmbeddingTable,
    FrozenEmbedding,
    FrozenItems,
    ItemEncoder,
    ItemTable,
    fields_of,
)
from mfn.models.extractor import Extractor, History
from mfn.models.mfn import MfnExtractor
from mfn.models.settings import RankerSettings

EXTRACTORS: dict[str, type[Extractor]] = {"base": MeanPooling, "mfn": MfnExtractor}
"""An extractor by the name that its settings give it."""


class Head(nn.Module):
    """p(x) of eq. 12: a feed-forward network over what is known of a request and a candidate.

    The part of its first layer that reads the request alone is computed once a request.
    """

    def __init__(self, request_width: int, candidate_width: int, units: Sequence[int]) -> None:
        super().__init__()
        widths = [*units, 1]
        self.request = nn.Linear(request_width, widths[0], bias=False) if request_width else None
        self.candidate = nn.Linear(candidate_width, widths[0])
        self.rest = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(widths))

    def forward(self, request_Bx: Tensor, candidates_BMx: Tensor) -> Tensor:
        """Logits, [B, M]."""
        hidden = self.candidate(candidates_BMx)
        if self.request is not None:
            hidden = hidden + self.request(request_Bx)[:, None]
        for layer in self.rest:
            hidden = layer(functional.relu(hidden))
        logits: Tensor = hidden.squeeze(-1)
        return logits


@dataclass(frozen=True)
class Looked:
    """A batch's embeddings: everything that is looked up, looked up once."""

    history: dict[str, History]
    candidates_BMd: dict[str, Tensor]
    request_Bx: Tensor


class Ranker(nn.Module):
    """A model of Table 1. What distinguishes one from another is the extractor."""

    def __init__(
        self,
        settings: RankerSettings,
        features: Features,
        item_indices: Mapping[str, Tensor],
        dimension: int,
        initial_std: float,
        seed: int,
    ) -> None:
        """`item_indices` is the item table, a column a field; the rest are sizes.

        All initial values are drawn from `seed` alone.
        """
        super().__init__()
        self.settings = settings
        self.features = features
        self.levels = features.levels
        generator = torch.Generator().manual_seed(seed)
        self.embedding = EmbeddingTable(features.sizes, dimension, initial_std, generator)
        offsets = self.embedding.offsets
        items = ItemTable(features, item_indices, offsets)
        extractor = EXTRACTORS[getattr(settings, "extractor")]  # noqa: B009
        frozen = FrozenItems(features, dimension)
        self.encoder = ItemEncoder(self.levels, items, frozen if extractor.needs_frozen else None)
        self.user_offsets = [offsets[f"user.{name}"] for name in features.user_fields]
        self.context_offsets = [offsets[f"context.{name}"] for name in features.context_fields]
        self.extractors = nn.ModuleDict()
        self.aggregations = nn.ModuleDict()
        candidate_width = 0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for level in self.levels:
                width = len(level.fields) * dimension
                made = extractor(settings, width)
                self.extractors[level.name] = made
                self.aggregations[level.name] = Aggregation(
                    width, made.groups, settings.attention_units
                )
                candidate_width += width * (3 if settings.product else 2)
            request_width = dimension * (len(self.user_offsets) + len(self.context_offsets))
            self.head = Head(request_width, candidate_width, settings.head_units)

    @torch.no_grad()
    def load_frozen(self, frozen: FrozenEmbedding, centers: Mapping[str, Tensor]) -> None:
        """Take the pretrained E and, by level, the interest centers [K, d].

        With the setting `start_at_frozen` the trainable embedding starts at E too, as far as
        pretraining has met its indices.
        """
        if self.settings.start_at_frozen:
            for name, rows in fields_of(self.embedding.weight, self.features.sizes).items():
                known = min(len(rows), len(frozen.vectors[name]))
                learnt = frozen.learnt[name][:known, None]
                rows[:known] = torch.where(learnt, frozen.vectors[name][:known], rows[:known])
        if self.encoder.frozen is not None:
            self.encoder.frozen.load(frozen)
        for level in self.levels:
            extractor = self.extractors[level.name]
            if isinstance(extractor, MfnExtractor):
                extractor.similarity.centers_Kd.copy_(centers[level.name])

    def look_up(self, batch: Batch) -> Looked:
        """Vectors of all that a batch names; an item that comes again is encoded once."""
        B, N = batch.history_BN.shape
        both = torch.cat([batch.history_BN, batch.candidates_BM], dim=1)
        items_U, inverse = torch.unique(both, return_inverse=True)
        ids_UF, entities_UX, real_UX = self.encoder.rows(items_U)
        users_BP = batch.user_fields_BP + batch.user_fields_BP.new_tensor(self.user_offsets)
        context_BS = batch.context_fields_BS + batch.context_fields_BS.new_tensor(
            self.context_offsets
        )
        ids_UFD, entities_UXD, users_BPD, context_BSD = self.embedding.lookup(
            [ids_UF, entities_UX, users_BP, context_BS]
        )
        trainable = self.encoder.trainable(ids_UFD, entities_UXD, real_UX)
        frozen = {} if self.encoder.frozen is None else self.encoder.frozen_vectors(items_U)
        history_inverse_BN, candidate_inverse_BM = inverse[:, :N], inverse[:, N:]
        mask_BN = batch.history_mask_BN
        return Looked(
            {
                level.name: History(
                    functional.embedding(history_inverse_BN, trainable[level.name]),
                    functional.embedding(history_inverse_BN, frozen[level.name])
                    if frozen
                    else None,
                    mask_BN,
                )
                for level in self.levels
            },
            {
                level.name: functional.embedding(candidate_inverse_BM, trainable[level.name])
                for level in self.levels
            },
            torch.cat([users_BPD.reshape(B, -1), context_BSD.reshape(B, -1)], dim=1),
        )

    def forward(self, batch: Batch) -> Tensor:
        """Logits of a click, [B, M]; what stands at padded candidates has no meaning."""
        looked = self.look_up(batch)
        parts = []
        for level in self.levels:
            # Interests depend on the history alone: they are made once a request.
            interests = self.extractors[level.name](looked.history[level.name])
            candidates_BMd = looked.candidates_BMd[level.name]
            R_BMd = self.aggregations[level.name](interests, candidates_BMd)
            parts += [candidates_BMd, R_BMd]
            if self.settings.product:
                parts.append(R_BMd * candidates_BMd)
        logits: Tensor = self.head(looked.request_Bx, torch.cat(parts, dim=-1))
        return logits

    def loss(self, batch: Batch) -> Tensor:
        """Binary cross entropy in nats (eq. 12), summed over the real candidates."""
        logits_BM = self(batch)
        mask_BM = batch.candidate_mask_BM
        return functional.binary_cross_entropy_with_logits(
            logits_BM[mask_BM], batch.labels_BM[mask_BM].to(logits_BM.dtype), reduction="sum"
        )
