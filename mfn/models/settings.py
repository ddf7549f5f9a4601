"""Typed settings of each model, and the table of named models.

Nothing here imports torch: jobs that train nothing read these settings too.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Strict(BaseModel):
    """Settings that refuse unknown keys and cannot be changed once read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RankerSettings(Strict):
    """What every model has, whatever its extractor."""

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


class MfnSettings(RankerSettings):
    """MFN (Xie et al., 2021), section 3."""

    extractor: Literal["mfn"] = "mfn"
    interests: PositiveInt = Field(8, description="K, interests per branch and level")
    heads: PositiveInt = Field(2, description="heads of the multi-head self-attention (eq. 6)")
    combination_units: PositiveInt = Field(32, description="h, the width of W1 (eq. 6)")
    similarity_scale: Literal["mass", "sum"] = Field(
        "mass",
        description="R_s as the paper's sum (eq. 5), or divided by each interest's mass, so that "
        "it does not depend on the history's length",
    )


ModelSettings = Annotated[BaseSettings | MfnSettings, Field(discriminator="extractor")]

NAMED_MODELS: dict[str, RankerSettings] = {
    "base": BaseSettings(),
    "mfn": MfnSettings(),
}
"""A model configured under one of these names starts from these settings."""
