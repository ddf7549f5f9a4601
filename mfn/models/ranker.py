"""The ranking model: embeddings, R(i_c) at each level, one head.

Legend: B requests, M candidates, N history steps, U distinct items of a batch, D width of one
field's embedding, d width of an item vector at a level, e the same in E, K interests, P profile
fields, S context fields.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from mfn.models.batch import Batch, Features
from mfn.models.embedding import (
    EmbeddingTable,
    Exchange,
    FrozenEmbedding,
    FrozenItems,
    ItemEncoder,
    ItemTable,
    ShardedTable,
    TableStart,
)
from mfn.models.extractor import Candidates, Extractor, History, LevelSize
from mfn.models.interest import Interest
from mfn.models.matches import Matches
from mfn.models.settings import MatchesSettings, RankerSettings
from mfn.models.similarity import PretrainedCenters, Similarity


class Head(nn.Module):
    """p(x) of eq. 12: a feed-forward network over the features of a request and a candidate.

    The first layer's product with the request features is computed once per request.
    """

    def __init__(self, request_width: int, candidate_width: int, units: Sequence[int]) -> None:
        super().__init__()
        widths = [*units, 1]
        self.request = nn.Linear(request_width, widths[0], bias=False) if request_width else None
        self.candidate = nn.Linear(candidate_width, widths[0])
        self.rest = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(widths))

    def forward(self, request_Bx: Tensor, candidates_BMx: Tensor) -> Tensor:
        """Logits of a click, [B, M]."""
        hidden = self.candidate(candidates_BMx)
        if self.request is not None:
            hidden = hidden + self.request(request_Bx)[:, None]
        for layer in self.rest:
            hidden = layer(functional.relu(hidden))
        logits: Tensor = hidden.squeeze(-1)
        return logits


@dataclass(frozen=True)
class Embedded:
    """The embeddings of a batch; each is looked up once.

    Candidates have vectors at all levels, histories only at the levels with interests.
    `matches_BMx` is None if the model does not see matches.
    """

    history: dict[str, History]
    candidates: dict[str, Candidates]
    request_Bx: Tensor
    matches_BMx: Tensor | None


class Ranker(nn.Module):
    """A ranking model, of Table 1 or beyond. Models differ only in how they compute R(i_c)."""

    def __init__(
        self,
        settings: RankerSettings,
        features: Features,
        item_indices: Mapping[str, Tensor],
        dimension: int,
        initial_std: float,
        seed: int,
        exchange: Exchange | None = None,
        frozen_dimension: int | None = None,
        matches: MatchesSettings | None = None,
    ) -> None:
        """Build the model; all initial values depend only on `seed`.

        Args:
            settings: of the model.
            features: the fields that vary, and their sizes.
            item_indices: the item table, a tensor for each field.
            dimension: D.
            initial_std: standard deviation of the initial embedding.
            seed: of all initial values.
            exchange: if given, the trainable embedding is sharded over the workers.
            frozen_dimension: the width of one field in E; None if it is D.
            matches: whether the head sees the candidates' matches; None: it does not.

        Raises:
            ValueError: no field varies at any level of the settings.
        """
        super().__init__()
        self.settings = settings
        self.features = features
        self.levels = features.levels
        self.frozen_dimension = frozen_dimension or dimension
        generator = torch.Generator().manual_seed(seed)
        table = (features.sizes, dimension, initial_std, generator)
        self.embedding = (
            EmbeddingTable(*table) if exchange is None else ShardedTable(*table, exchange)
        )
        offsets = self.embedding.offsets
        items = ItemTable(features, item_indices, offsets)
        self.matches = Matches(matches, items, seed) if matches and matches.enabled else None
        self.user_offsets = [offsets[f"user.{name}"] for name in features.user_fields]
        self.context_offsets = [offsets[f"context.{name}"] for name in features.context_fields]
        self.interests = nn.ModuleDict()
        candidate_width = self.matches.width if self.matches else 0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for level in self.levels:
                width = len(level.fields) * dimension
                candidate_width += width
                if level.name in settings.levels:
                    size = LevelSize(
                        width, len(level.fields) * self.frozen_dimension, features.history_length
                    )
                    interest = Interest(settings, size)
                    self.interests[level.name] = interest
                    candidate_width += width * interest.readouts * (2 if settings.product else 1)
            if not self.interests:
                possible = [level.name for level in self.levels]
                raise ValueError(
                    f"levels: expected one of {possible}, whose fields vary in these data, "
                    f"got {list(settings.levels)}"
                )
            request_width = dimension * (len(self.user_offsets) + len(self.context_offsets))
            self.head = Head(request_width, candidate_width, settings.head_units)
            # A random E is drawn last, so that it does not change the other initial values.
            self.encoder = ItemEncoder(
                self.levels, items, self._frozen_items(items, self.frozen_dimension)
            )

    def _frozen_items(self, items: ItemTable, dimension: int) -> FrozenItems | None:
        """The E that the extractors share, or None if no extractor uses E."""
        modules = (
            extractor.frozen_items(self.features, items, dimension)
            for _, extractor in self.extractors()
        )
        return next(filter(None, modules), None)

    def extractors(self) -> Iterator[tuple[str, Extractor]]:
        """All extractors, each with the name of its level."""
        for name, interest in self.interests.items():
            yield from ((name, part) for part in interest.modules() if isinstance(part, Extractor))

    @torch.no_grad()
    def load_frozen(self, frozen: FrozenEmbedding, centers: Mapping[str, Tensor]) -> None:
        """Copy the pretrained E and the initial interest centers, [K, e] by level."""
        if self.encoder.frozen is not None:
            self.encoder.frozen.load(frozen)
        for name, extractor in self.extractors():
            if isinstance(extractor, PretrainedCenters):
                extractor.load(centers[name])

    @torch.no_grad()
    def start_at(self, start: TableStart) -> None:
        """Initialise the trainable embedding, for the indices that pretraining learnt."""
        for name in self.features.sizes:
            rows, indices = self.embedding.field(name)
            vectors = start.vectors[name][indices][: len(rows)]
            learnt = start.learnt[name][indices][: len(rows), None]
            known = rows[: len(vectors)]
            known[:] = torch.where(learnt, vectors, known)

    def learning_rates(self) -> dict[nn.Parameter, float]:
        """By parameter, its multiple of the learning rate, where that is not 1."""
        return {
            extractor.get_parameter(name): multiple
            for _, extractor in self.extractors()
            for name, multiple in extractor.learning_rates().items()
        }

    @torch.no_grad()
    def measures(self, batch: Batch) -> dict[str, float]:
        """What similarity interests measure, by level and name: `fine/centers_norm`, …

        Unlike a lookup in a sharded table, this needs no other worker.
        """
        if self.encoder.frozen is None:
            return {}
        items_U, inverse_BN = torch.unique(batch.history_BN, return_inverse=True)
        frozen = self.encoder.frozen_vectors(items_U)
        return {
            f"{level}/{name}": value
            for level, extractor in self.extractors()
            if isinstance(extractor, Similarity)
            for name, value in extractor.measures(
                functional.embedding(inverse_BN, frozen[level]), batch.history_mask_BN
            ).items()
        }

    def full_state_dict(self) -> dict[str, Tensor]:
        """All tensors by name; a sharded embedding is gathered (see `EmbeddingTable.whole`)."""
        return {**self.state_dict(), "embedding.weight": self.embedding.whole()}

    def look_up(self, batch: Batch) -> Embedded:
        """The embeddings of a batch; each distinct item is encoded once."""
        # Distinct items of histories and candidates together; `inverse` [B, N + M] points at them.
        B, N = batch.history_BN.shape
        both = torch.cat([batch.history_BN, batch.candidates_BM], dim=1)
        items_U, inverse = torch.unique(both, return_inverse=True)
        ids_UF, entities_UX, real_UX = self.encoder.rows(items_U)
        users_BP = batch.user_fields_BP + batch.user_fields_BP.new_tensor(self.user_offsets)
        context_BS = batch.context_fields_BS + batch.context_fields_BS.new_tensor(
            self.context_offsets
        )
        # One lookup for all fields, in the shared table.
        ids_UFD, entities_UXD, users_BPD, context_BSD = self.embedding.lookup(
            [ids_UF, entities_UX, users_BP, context_BS]
        )
        # Item vectors by level, [U, d], then gathered for each step and candidate.
        trainable = self.encoder.trainable(ids_UFD, entities_UXD, real_UX)
        frozen = {} if self.encoder.frozen is None else self.encoder.frozen_vectors(items_U)
        history_inverse_BN, candidate_inverse_BM = inverse[:, :N], inverse[:, N:]

        def in_E(inverse: Tensor, level: str) -> Tensor | None:
            return functional.embedding(inverse, frozen[level]) if frozen else None

        mask_BN = batch.history_mask_BN
        return Embedded(
            {
                name: History(
                    functional.embedding(history_inverse_BN, trainable[name]),
                    in_E(history_inverse_BN, name),
                    mask_BN,
                )
                for name in self.interests
            },
            {
                level.name: Candidates(
                    functional.embedding(candidate_inverse_BM, trainable[level.name]),
                    in_E(candidate_inverse_BM, level.name)
                    if level.name in self.interests
                    else None,
                )
                for level in self.levels
            },
            torch.cat([users_BPD.reshape(B, -1), context_BSD.reshape(B, -1)], dim=1),
            None if self.matches is None else self.matches(batch),
        )

    def forward(self, batch: Batch) -> Tensor:
        """Logits of a click, [B, M]; values at padded candidates have no meaning."""
        return self.logits(self.look_up(batch))

    def logits(self, embedded: Embedded) -> Tensor:
        """As `forward`, from embeddings that are already looked up."""
        parts = [candidates.trainable_BMd for candidates in embedded.candidates.values()]
        if embedded.matches_BMx is not None:
            parts.append(embedded.matches_BMx.to(parts[0].dtype))
        for name, interest in self.interests.items():
            candidates = embedded.candidates[name]
            for R_BMd in interest(embedded.history[name], candidates):
                parts.append(R_BMd)
                if self.settings.product:
                    parts.append(R_BMd * candidates.trainable_BMd)
        logits_BM: Tensor = self.head(embedded.request_Bx, torch.cat(parts, dim=-1))
        return logits_BM

    def loss(self, batch: Batch) -> Tensor:
        """Binary cross entropy in nats (eq. 12), summed over the real candidates.

        The auxiliary losses of the extractors are added once for each real candidate.
        """
        embedded = self.look_up(batch)
        logits_BM = self.logits(embedded)
        mask_BM = batch.candidate_mask_BM
        entropy = functional.binary_cross_entropy_with_logits(
            logits_BM[mask_BM], batch.labels_BM[mask_BM].to(logits_BM.dtype), reduction="sum"
        )
        auxiliary = [
            extractor.auxiliary_loss(embedded.history[name])
            for name, extractor in self.extractors()
        ]
        return entropy + sum(auxiliary) * mask_BM.sum()
