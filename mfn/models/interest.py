"""R(i_c) at one level: the part of the history that is relevant to a candidate (eq. 8 to 11).

Legend: B requests, M candidates, K interests, d width of an item vector.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mfn.models.aggregation import Aggregation
from mfn.models.din import TargetAttention
from mfn.models.extractor import Candidates, Extractor, History, LevelSize
from mfn.models.registry import EXTRACTORS
from mfn.models.settings import RankerSettings, SeveralReadoutsSettings


class Interest(nn.Module):
    """What each part of a model reads out of a history for a candidate.

    Interests are computed once per request; a candidate attends over each group of them. Only
    target attention combines behaviours with candidates.

    Attributes:
        readouts: number of vectors of width d that the head gets for a candidate.
    """

    def __init__(self, settings: RankerSettings, size: LevelSize) -> None:
        super().__init__()
        parts = [part(settings, size) for part in EXTRACTORS[settings.extractor]]
        self.extractors = nn.ModuleList(part for part in parts if isinstance(part, Extractor))
        self.aggregations = nn.ModuleList(
            Aggregation(size.width, part.interests, settings.attention_units)
            for part in parts
            if isinstance(part, Extractor)
        )
        self.attentions = nn.ModuleList(part for part in parts if isinstance(part, TargetAttention))
        # With the sum of eq. 11 the head could not tell the groups apart.
        self.summed = isinstance(settings, SeveralReadoutsSettings) and settings.readouts == "sum"
        self.readouts = 1 if self.summed else len(parts)

    def forward(self, history: History, candidates: Candidates) -> list[Tensor]:
        """The readouts, each [B, M, d]; zeros for a request without history."""
        candidates_BMd = candidates.trainable_BMd
        found: list[Tensor] = []
        for extractor, aggregation in zip(self.extractors, self.aggregations, strict=True):
            assert isinstance(extractor, Extractor)
            affinity_BMK = extractor.log_affinity(candidates)
            found.append(aggregation(extractor(history), candidates_BMd, affinity_BMK))
        found += [attention(history, candidates_BMd) for attention in self.attentions]
        return [torch.stack(found).sum(dim=0)] if self.summed else found
