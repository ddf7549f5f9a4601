"""R(i_c) at one level: the part of the history that is relevant to a candidate (eq. 8 to 11).

Legend: B requests, M candidates, K interests, d width of an item vector.
"""

from __future__ import annotations

from torch import Tensor, nn

from mfn.models.aggregation import Aggregation
from mfn.models.din import TargetAttention
from mfn.models.extractor import Extractor, History
from mfn.models.registry import EXTRACTORS
from mfn.models.settings import RankerSettings


class Interest(nn.Module):
    """The sum of the terms that the parts of a model compute.

    Interests are computed once per request; a candidate attends over each group of them. Only
    target attention combines behaviours with candidates.
    """

    def __init__(self, settings: RankerSettings, width: int, steps: int) -> None:
        super().__init__()
        parts = [part(settings, width, steps) for part in EXTRACTORS[settings.extractor]]
        extractors = [part for part in parts if isinstance(part, Extractor)]
        self.extractors = nn.ModuleList(extractors)
        self.aggregation = Aggregation(
            width, [extractor.interests for extractor in extractors], settings.attention_units
        )
        self.attentions = nn.ModuleList(part for part in parts if isinstance(part, TargetAttention))

    def forward(self, history: History, candidates_BMd: Tensor) -> Tensor:
        """R(i_c), [B, M, d]."""
        interests = [extractor(history) for extractor in self.extractors]
        R_BMd: Tensor = self.aggregation(interests, candidates_BMd)
        for attention in self.attentions:
            R_BMd = R_BMd + attention(history, candidates_BMd)
        return R_BMd
