"""Typed settings of each model, and the default settings of each named model.

This module does not import torch, because jobs that do not train read these settings too.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, PositiveInt

from mfn.settings_types import NonNegativeFloat, Strict

Levels = tuple[Literal["category", "fine"], ...]


class RankerSettings(Strict):
    """Settings that every model has, whatever its extractor."""

    extractor: str
    levels: Levels = Field(
        ("category", "fine"),
        min_length=1,
        description="levels at which interests are computed (a level without varying fields is "
        "skipped); the head always sees all fields of the candidate",
    )
    head_units: tuple[PositiveInt, ...] = Field(
        (64, 32), description="units of each hidden layer of the head (eq. 12)"
    )
    attention_units: PositiveInt = Field(
        32, description="hidden units of the attention networks a1 and a2 over interests (eq. 10)"
    )
    product: bool = Field(
        True,
        description="also give the head the product of R(i_c) and i_c, so that it can compare "
        "the pooled history with the candidate",
    )
    start_at_frozen: bool = Field(
        True,
        description="initialise the trainable embedding from the frozen one, else at random",
    )


class BaseSettings(RankerSettings):
    """Base of Table 1: the mean of the history (Embedding&MLP)."""

    extractor: Literal["base"] = "base"


class RoutingSettings(RankerSettings):
    """Dynamic routing; defaults from the code of ComiRec's authors, who use them for MIND too."""

    interests: PositiveInt = Field(
        4,
        description="number of interests K per level; 4 in Cen et al. (2020) for MIND and ComiRec",
    )
    iterations: PositiveInt = Field(
        3, description="routing iterations; 3 in Li et al. (2019) and Cen et al. (2020)"
    )


class MindSettings(RoutingSettings):
    """MIND (Li et al., 2019): dynamic routing with one shared map."""

    extractor: Literal["mind"] = "mind"
    adaptive: bool = Field(
        True,
        description="use max(1, min(K, log2 n)) interests for a history of n behaviours, as in "
        "the paper; false: always K",
    )


class ComiRecDRSettings(RoutingSettings):
    """ComiRec-DR (Cen et al., 2020): dynamic routing with a map for each step and interest."""

    extractor: Literal["comirec_dr"] = "comirec_dr"


class ComiRecSASettings(RankerSettings):
    """ComiRec-SA (Cen et al., 2020): self-attention with position embeddings."""

    extractor: Literal["comirec_sa"] = "comirec_sa"
    interests: PositiveInt = Field(4, description="number of interests K per level; 4 in the paper")
    width_factor: PositiveInt = Field(
        4, description="width of W1, as a multiple of the item vector's; 4 in the authors' code"
    )


class TransformerRecSettings(RankerSettings):
    """TransformerRec of Table 1: the mean of the history, encoded as in BERT4Rec."""

    extractor: Literal["transformer_rec"] = "transformer_rec"
    layers: PositiveInt = Field(2, description="encoder layers; 2 in Sun et al. (2019)")
    heads: PositiveInt = Field(
        2,
        description="attention heads; must divide the width of an item vector; 2 in Sun et al. "
        "(2019)",
    )
    width_factor: PositiveInt = Field(
        4,
        description="width of the feed-forward layers, as a multiple of the item vector's; 4 in "
        "Sun et al. (2019)",
    )


class TargetAttentionSettings(RankerSettings):
    """The local activation unit of DIN (Zhou et al., 2018)."""

    target_units: tuple[PositiveInt, ...] = Field(
        (36,),
        min_length=1,
        description="units of each hidden layer of the network that weights a behaviour for a "
        "candidate; 36 in figure 2 of the paper, 80,40 in the authors' code",
    )
    target_softmax: bool = Field(
        False,
        description="normalise the weights of a history to sum 1, as in the authors' code but not "
        "in the paper (section 4.3)",
    )


class DinSettings(TargetAttentionSettings):
    """DIN (Zhou et al., 2018): target attention over behaviours."""

    extractor: Literal["din"] = "din"


class InterestsSettings(RankerSettings):
    """Settings that both branches of MFN have."""

    interests: PositiveInt = Field(8, description="number of interests K per branch and level")


class SimilaritySettings(InterestsSettings):
    """The similarity branch of MFN (section 3.2)."""

    similarity_scale: Literal["mass", "sum"] = Field(
        "mass",
        description="scale of R_s: sum as in the paper (eq. 5), or mass: each interest divided by "
        "its total weight, so that it does not grow with the history",
    )


class PretrainedCentersSettings(SimilaritySettings):
    """The similarity branch with the centers from the job `train_centers`."""


class TrainedCentersSettings(SimilaritySettings):
    """The similarity branch with random initial centers that are trained with the task."""

    auxiliary_weight: NonNegativeFloat = Field(
        0.0, description="weight of L_E (eq. 3) of the centers in the loss; 0: cross entropy only"
    )


class CombinationSettings(InterestsSettings):
    """The combination branch of MFN (section 3.3)."""

    heads: PositiveInt = Field(
        2,
        description="heads of the self-attention (eq. 6); must divide the width of an item vector",
    )
    combination_units: PositiveInt = Field(32, description="hidden units h of W1 (eq. 6)")


class MfnSettings(PretrainedCentersSettings, CombinationSettings):
    """MFN (Xie et al., 2021, section 3): similarity and combination interests, at two levels."""

    extractor: Literal["mfn"] = "mfn"


class MfnWithoutPretrainSettings(TrainedCentersSettings, CombinationSettings):
    """MFN with centers trained with the task instead of pretrained; E as in MFN."""

    extractor: Literal["mfn_without_pretrain"] = "mfn_without_pretrain"


class MfnWithoutCombinationSettings(PretrainedCentersSettings):
    """MFN with similarity interests only."""

    extractor: Literal["mfn_without_combination"] = "mfn_without_combination"


class MfnWithoutSimilaritySettings(CombinationSettings):
    """MFN with combination interests only."""

    extractor: Literal["mfn_without_similarity"] = "mfn_without_similarity"


class MfnWithoutFineLevelSettings(PretrainedCentersSettings, CombinationSettings):
    """MFN with interests at the category level only."""

    extractor: Literal["mfn_without_fine_level"] = "mfn_without_fine_level"
    levels: Levels = Field(
        ("category",), min_length=1, description="levels at which interests are computed"
    )


class MfnWithRandomEmbeddingSettings(TrainedCentersSettings, CombinationSettings):
    """MFN with a random E; its centers are trained with the task: pretrained ones would not fit."""

    extractor: Literal["mfn_with_random_embedding"] = "mfn_with_random_embedding"


class MfnWithTargetAttentionSettings(
    PretrainedCentersSettings, CombinationSettings, TargetAttentionSettings
):
    """MFN with DIN's target attention as a third term of R(i_c)."""

    extractor: Literal["mfn_with_target_attention"] = "mfn_with_target_attention"


ModelSettings = Annotated[
    BaseSettings
    | MindSettings
    | ComiRecDRSettings
    | ComiRecSASettings
    | TransformerRecSettings
    | DinSettings
    | MfnSettings
    | MfnWithoutPretrainSettings
    | MfnWithoutCombinationSettings
    | MfnWithoutSimilaritySettings
    | MfnWithoutFineLevelSettings
    | MfnWithRandomEmbeddingSettings
    | MfnWithTargetAttentionSettings,
    Field(discriminator="extractor"),
]

NAMED_MODELS: dict[str, RankerSettings] = {
    kind.model_fields["extractor"].default: kind() for kind in get_args(get_args(ModelSettings)[0])
}
"""Default settings of a model that has one of these names in the configuration."""
