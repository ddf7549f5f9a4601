"""The registry of models: for each `extractor` name of the settings, the parts of the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mfn.models.combination import Combination
from mfn.models.comirec_dr import ComiRecDR
from mfn.models.comirec_sa import ComiRecSA
from mfn.models.din import TargetAttention
from mfn.models.extractor import Extractor, LevelSize
from mfn.models.mean_pooling import MeanPooling
from mfn.models.mind import Mind
from mfn.models.similarity import PretrainedCenters, RandomCenters, RandomEmbedding
from mfn.models.transformer_rec import TransformerRec

Part = Callable[[Any, LevelSize], Extractor | TargetAttention]
"""Builds a part from the model's settings and the size of the level."""

EXTRACTORS: dict[str, tuple[Part, ...]] = {
    "base": (MeanPooling,),
    "mind": (Mind,),
    "comirec_dr": (ComiRecDR,),
    "comirec_sa": (ComiRecSA,),
    "transformer_rec": (TransformerRec,),
    "din": (TargetAttention,),
    "mfn": (PretrainedCenters, Combination),
    "mfn_as_printed": (PretrainedCenters, Combination),
    "mfn_without_pretrain": (RandomEmbedding, Combination),
    "mfn_with_random_centers": (RandomCenters, Combination),
    "mfn_without_combination": (PretrainedCenters,),
    "mfn_without_similarity": (Combination,),
    "mfn_without_fine_level": (PretrainedCenters, Combination),
    "mfn_with_random_embedding": (RandomEmbedding, Combination),
    "mfn_with_target_attention": (PretrainedCenters, Combination, TargetAttention),
}
"""Each part computes one term of R(i_c) (eq. 11), at every level of the settings."""
