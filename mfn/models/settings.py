"""Typed settings of each model, and the default settings of each named model.

This module does not import torch, because jobs that do not train read these settings too.
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple, get_args

from pydantic import Field, PositiveInt

from mfn.settings_types import NonNegativeFloat, PositiveFloat, Strict

Levels = tuple[Literal["category", "fine"], ...]


class Centers(NamedTuple):
    """Which interest centers a model needs: their number K, and how Alg. 1 learns them."""

    interests: int
    marginal: Literal["batch", "user"]
    norm: float | None


STARTS_AT_PRETRAINED = (
    "initialise the trainable embedding at the vectors of the pretrained click model, else at "
    "random"
)


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
    start_at_pretrained: bool = Field(True, description=STARTS_AT_PRETRAINED)


class MatchesSettings(Strict):
    """What every model sees of a candidate's matches: behaviours that share one of its fields."""

    enabled: bool = Field(
        False,
        description="give the head, for each item field, how many behaviours of the history share "
        "the candidate's value, and how long ago the last one was",
    )
    hidden_share: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="share of the training requests that do not see their matches, because a model "
        "that always sees them learns its interests late; predictions see all",
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
    positions: bool = Field(
        False,
        description="add a trained vector for the recency of a behaviour to it before the routing; "
        "not in the paper",
    )
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
    target_positions: bool = Field(
        False,
        description="add a trained vector for the recency of a behaviour to the input of the "
        "network that weights it; not in the paper",
    )


class DinSettings(TargetAttentionSettings):
    """DIN (Zhou et al., 2018): target attention over behaviours."""

    extractor: Literal["din"] = "din"


class SimilaritySettings(RankerSettings):
    """The similarity branch of MFN (section 3.2)."""

    similarity_interests: PositiveInt = Field(
        32, description="number of similarity interests K per level, one for each center"
    )
    similarity_scale: Literal["mass", "sum"] = Field(
        "mass",
        description="scale of R_s: sum as in the paper (eq. 5), or mass: each interest divided by "
        "its mass, the sum of its weights, so that it does not grow with the history",
    )
    mass_in_attention: bool = Field(
        True,
        description="add the logarithm of an interest's mass to its attention score (eq. 10): an "
        "interest is as likely as it is frequent, unless the candidate says otherwise",
    )
    assignment_in_attention: bool = Field(
        True,
        description="add the logarithm of the candidate's own weight for each center (P of eq. 4) "
        "to the attention score (eq. 10): the candidate first attends to the interests at its own "
        "centers",
    )
    centers_rate: NonNegativeFloat = Field(
        3.0,
        description="learning rate of the centers in the main training, as a multiple of "
        "train.learning_rate; 0: they are fixed",
    )


class PretrainedCentersSettings(SimilaritySettings):
    """The similarity branch that starts with the centers from the job `train_centers`."""

    centers_marginal: Literal["batch", "user"] = Field(
        "batch",
        description="Alg. 1 takes q of eq. 1 over the whole batch of users, or for each user, as "
        "in the paper",
    )
    centers_norm: PositiveFloat | None = Field(
        1.0,
        description="length at which Alg. 1 holds every center, as a multiple of the mean length "
        "of a behaviour in E; the longer, the harder is P; null: the length is free, as in the "
        "paper",
    )

    @property
    def centers(self) -> Centers:
        """The centers that this model needs."""
        return Centers(self.similarity_interests, self.centers_marginal, self.centers_norm)


class RandomCentersSettings(SimilaritySettings):
    """The similarity branch with random initial centers."""

    auxiliary_weight: NonNegativeFloat = Field(
        0.0, description="weight of L_E (eq. 3) of the centers in the loss; 0: cross entropy only"
    )


class CombinationSettings(RankerSettings):
    """The combination branch of MFN (section 3.3)."""

    combination_interests: PositiveInt = Field(
        8, description="number of combination interests K per level"
    )
    positions: bool = Field(
        True,
        description="add a trained vector for the recency of a behaviour (last, last but one, …) "
        "to the input of the self-attention",
    )
    heads: PositiveInt = Field(
        2,
        description="heads of the self-attention (eq. 6); must divide the width of an item vector",
    )
    combination_units: PositiveInt = Field(32, description="hidden units h of W1 (eq. 6)")


class SeveralReadoutsSettings(RankerSettings):
    """Models with more than one group of interests."""

    readouts: Literal["apart", "sum"] = Field(
        "apart",
        description="what the head gets of the groups of interests at a level: the readout of each "
        "group, or the sum of the readouts, as in the paper (eq. 11)",
    )


class BothBranchesSettings(CombinationSettings, SeveralReadoutsSettings):
    """The combination branch beside another group."""


class MfnSettings(PretrainedCentersSettings, BothBranchesSettings):
    """MFN (Xie et al., 2021, section 3): similarity and combination interests, at two levels."""

    extractor: Literal["mfn"] = "mfn"


class MfnAsPrintedSettings(PretrainedCentersSettings, BothBranchesSettings):
    """MFN with the paper's equations to the letter."""

    extractor: Literal["mfn_as_printed"] = "mfn_as_printed"
    product: bool = Field(
        False, description="also give the head the product of R(i_c) and i_c; not in eq. 12"
    )
    similarity_interests: PositiveInt = Field(
        8, description="number of similarity interests K per level; K is one number in the paper"
    )
    similarity_scale: Literal["mass", "sum"] = Field("sum", description="scale of R_s (eq. 5)")
    mass_in_attention: bool = Field(
        False, description="add the logarithm of an interest's mass to its score; not in eq. 10"
    )
    assignment_in_attention: bool = Field(
        False, description="add the logarithm of the candidate's P to the score; not in eq. 10"
    )
    centers_rate: NonNegativeFloat = Field(
        0.0,
        description="multiple of train.learning_rate at which the centers are trained further",
    )
    centers_marginal: Literal["batch", "user"] = Field(
        "user", description="q of eq. 1 for each user (Alg. 1), or over the whole batch"
    )
    centers_norm: PositiveFloat | None = Field(
        None, description="length at which Alg. 1 holds every center; null: the length is free"
    )
    positions: bool = Field(
        False, description="recency of behaviours in the self-attention; not in eq. 6"
    )
    readouts: Literal["apart", "sum"] = Field(
        "sum", description="the head gets the readouts of the groups apart, or their sum (eq. 11)"
    )


class MfnWithRandomCentersSettings(RandomCentersSettings, BothBranchesSettings):
    """MFN with random initial centers; E as in MFN."""

    extractor: Literal["mfn_with_random_centers"] = "mfn_with_random_centers"


class MfnWithRandomEmbeddingSettings(RandomCentersSettings, BothBranchesSettings):
    """MFN with a random E and so with random centers: pretrained ones would not fit."""

    extractor: Literal["mfn_with_random_embedding"] = "mfn_with_random_embedding"


class MfnWithoutPretrainSettings(RandomCentersSettings, BothBranchesSettings):
    """MFN with nothing pretrained: E, the centers and the trainable embedding start at random."""

    extractor: Literal["mfn_without_pretrain"] = "mfn_without_pretrain"
    start_at_pretrained: bool = Field(False, description=STARTS_AT_PRETRAINED)


class MfnWithoutCombinationSettings(PretrainedCentersSettings):
    """MFN with similarity interests only."""

    extractor: Literal["mfn_without_combination"] = "mfn_without_combination"


class MfnWithoutSimilaritySettings(CombinationSettings):
    """MFN with combination interests only."""

    extractor: Literal["mfn_without_similarity"] = "mfn_without_similarity"


class MfnWithoutFineLevelSettings(PretrainedCentersSettings, BothBranchesSettings):
    """MFN with interests at the category level only."""

    extractor: Literal["mfn_without_fine_level"] = "mfn_without_fine_level"
    levels: Levels = Field(
        ("category",), min_length=1, description="levels at which interests are computed"
    )


class MfnWithTargetAttentionSettings(
    PretrainedCentersSettings, BothBranchesSettings, TargetAttentionSettings
):
    """MFN with DIN's target attention as a third group."""

    extractor: Literal["mfn_with_target_attention"] = "mfn_with_target_attention"


ModelSettings = Annotated[
    BaseSettings
    | MindSettings
    | ComiRecDRSettings
    | ComiRecSASettings
    | TransformerRecSettings
    | DinSettings
    | MfnSettings
    | MfnAsPrintedSettings
    | MfnWithoutPretrainSettings
    | MfnWithRandomCentersSettings
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
