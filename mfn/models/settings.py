"""Typed settings of each model, and the table of named models.

Nothing here imports torch: jobs that train nothing read these settings too.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, PositiveInt

from mfn.settings_types import NonNegativeFloat, Strict

Levels = tuple[Literal["category", "fine"], ...]


class RankerSettings(Strict):
    """What every model has, whatever its extractor."""

    extractor: str
    levels: Levels = Field(
        ("category", "fine"),
        min_length=1,
        description="levels at which there are interests, as far as their fields vary; of the "
        "candidate the head sees all fields either way",
    )
    head_units: tuple[PositiveInt, ...] = Field(
        (64, 32), description="widths of the hidden layers of the head (eq. 12)"
    )
    attention_units: PositiveInt = Field(
        32, description="hidden width of the networks a1 and a2 that weigh interests (eq. 10)"
    )
    product: bool = Field(
        True,
        description="give the head the product of R(i_c) and i_c beside the two; without it a "
        "pooled history cannot be compared with the candidate",
    )
    start_at_frozen: bool = Field(
        True, description="start the trainable embedding at the frozen one instead of at random"
    )


class BaseSettings(RankerSettings):
    """Base of Table 1: the mean of the history (Embedding&MLP)."""

    extractor: Literal["base"] = "base"


class RoutingSettings(RankerSettings):
    """Dynamic routing; its numbers are those of ComiRec's authors, who run MIND with them too."""

    interests: PositiveInt = Field(
        4, description="K, interests per level; 4 in Cen et al. (2020) for MIND and ComiRec"
    )
    iterations: PositiveInt = Field(
        3, description="of the routing; 3 in Li et al. (2019) and Cen et al. (2020)"
    )


class MindSettings(RoutingSettings):
    """MIND (Li et al., 2019): dynamic routing with one shared map."""

    extractor: Literal["mind"] = "mind"
    adaptive: bool = Field(
        True,
        description="only max(1, min(K, log2 n)) interests for a history of n, as in the paper",
    )


class ComiRecDRSettings(RoutingSettings):
    """ComiRec-DR (Cen et al., 2020): dynamic routing with a map for each step and interest."""

    extractor: Literal["comirec_dr"] = "comirec_dr"


class ComiRecSASettings(RankerSettings):
    """ComiRec-SA (Cen et al., 2020): self-attention, with positions."""

    extractor: Literal["comirec_sa"] = "comirec_sa"
    interests: PositiveInt = Field(4, description="K, interests per level; 4 in the paper")
    width_factor: PositiveInt = Field(
        4, description="width of W1 in widths of an item's vector; 4 in the authors' code"
    )


class TransformerRecSettings(RankerSettings):
    """TransformerRec of Table 1: the mean of the encoded history, as BERT4Rec encodes it."""

    extractor: Literal["transformer_rec"] = "transformer_rec"
    layers: PositiveInt = Field(2, description="2 in Sun et al. (2019)")
    heads: PositiveInt = Field(2, description="2 in Sun et al. (2019)")
    width_factor: PositiveInt = Field(
        4,
        description="width of the feed-forward layers in widths of an item's vector; 4 in Sun et "
        "al. (2019)",
    )


class TargetAttentionSettings(RankerSettings):
    """The local activation unit of DIN (Zhou et al., 2018)."""

    target_units: tuple[PositiveInt, ...] = Field(
        (36,),
        min_length=1,
        description="widths of the hidden layers of the network that weighs a behaviour by the "
        "candidate; 36 in figure 2 of the paper, 80,40 in the authors' code",
    )
    target_softmax: bool = Field(
        False,
        description="make the weights of a history add up to 1; not so in the paper (section 4.3), "
        "but in the authors' code",
    )


class DinSettings(TargetAttentionSettings):
    """DIN (Zhou et al., 2018): target attention over single behaviours."""

    extractor: Literal["din"] = "din"


class InterestsSettings(RankerSettings):
    """What both branches of MFN have."""

    interests: PositiveInt = Field(8, description="K, interests per branch and level")


class SimilaritySettings(InterestsSettings):
    """The similarity branch of MFN (section 3.2)."""

    similarity_scale: Literal["mass", "sum"] = Field(
        "mass",
        description="R_s as the paper's sum (eq. 5), or divided by each interest's mass, so that "
        "it does not depend on the history's length",
    )


class PretrainedCentersSettings(SimilaritySettings):
    """The similarity branch with the centers that `train_centers` has learnt."""


class TrainedCentersSettings(SimilaritySettings):
    """The similarity branch with centers that begin at random and are trained with the task."""

    auxiliary_weight: NonNegativeFloat = Field(
        0.0, description="weight of L_E (eq. 3) of the trained centers beside the cross entropy"
    )


class CombinationSettings(InterestsSettings):
    """The combination branch of MFN (section 3.3)."""

    heads: PositiveInt = Field(2, description="heads of the multi-head self-attention (eq. 6)")
    combination_units: PositiveInt = Field(32, description="h, the width of W1 (eq. 6)")


class MfnSettings(PretrainedCentersSettings, CombinationSettings):
    """MFN (Xie et al., 2021), section 3."""

    extractor: Literal["mfn"] = "mfn"


class MfnWithoutPretrainSettings(TrainedCentersSettings, CombinationSettings):
    """MFN whose centers are not pretrained, but trained with the task; E is as in MFN."""

    extractor: Literal["mfn_without_pretrain"] = "mfn_without_pretrain"


class MfnWithoutCombinationSettings(PretrainedCentersSettings):
    """MFN with similarity interests alone."""

    extractor: Literal["mfn_without_combination"] = "mfn_without_combination"


class MfnWithoutSimilaritySettings(CombinationSettings):
    """MFN with combination interests alone."""

    extractor: Literal["mfn_without_similarity"] = "mfn_without_similarity"


class MfnWithoutFineLevelSettings(PretrainedCentersSettings, CombinationSettings):
    """MFN with interests at the category level alone."""

    extractor: Literal["mfn_without_fine_level"] = "mfn_without_fine_level"
    levels: Levels = Field(
        ("category",), min_length=1, description="levels at which there are interests"
    )


class MfnWithRandomEmbeddingSettings(TrainedCentersSettings, CombinationSettings):
    """MFN with a random E; its centers are trained with the task, as pretrained ones do not fit."""

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
"""A model configured under one of these names starts from these settings."""
