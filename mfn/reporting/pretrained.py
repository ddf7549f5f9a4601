"""What a day's E and centers are worth, for the report: from the manifests and model.json."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mfn import storage
from mfn.settings import Settings


@dataclass(frozen=True)
class FieldOfE:
    """What E knows of an item field; None where a value is missing.

    Attributes:
        covered: share of the training window's behaviours whose item has a value that E knows.
        start_correlation: of the click model's vectors with the random numbers they started at.
    """

    name: str
    covered: float | None
    start_correlation: float | None


@dataclass(frozen=True)
class Centers:
    """A set of interest centers, and its measures by name (see `CenterMeasures`)."""

    level: str
    interests: int
    marginal: str
    held_norm: float | None
    measures: Mapping[str, Any]

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is unusual about how they were learnt."""
        found = {
            "q for each user": self.marginal == "user",
            "free length": self.held_norm is None,
            "not converged": not self.measures["converged"],
        }
        return tuple(remark for remark, holds in found.items() if holds)

    @property
    def unused(self) -> int:
        """Number of centers that are of no use."""
        return int(self.measures["empty"]) + int(self.measures["duplicates"])


@dataclass(frozen=True)
class TrainedCenters:
    """The centers of a model at one level after its training.

    Attributes:
        start: as they were before; None if they were random.
        norm: mean length, as a multiple of a behaviour's in E.
        largest_share: mean over behaviours of the largest P.
        moved: mean distance from where they started, as a multiple of their length there.
    """

    model: str
    level: str
    start: Centers | None
    norm: float | None
    largest_share: float | None
    moved: float | None


@dataclass(frozen=True)
class Pretrained:
    """What a day's E and centers are worth; parts that an older version did not measure are empty.

    Attributes:
        fields: what E knows of each field.
        next_behaviour_auc: by level, how often a user's next behaviour is nearer to the user's
            history in E than another user's.
        next_behaviour_users: number of users of these AUCs.
        centers: as pretrained.
        trained: the centers after the models' trainings.
        sampled_users: users from whose histories the centers were learnt.
        users: users with a history.
    """

    fields: tuple[FieldOfE, ...] = ()
    next_behaviour_auc: Mapping[str, float | None] = field(default_factory=dict)
    next_behaviour_users: int | None = None
    centers: tuple[Centers, ...] = ()
    trained: tuple[TrainedCenters, ...] = ()
    sampled_users: int | None = None
    users: int | None = None


def read_pretrained(settings: Settings, models: Iterable[str]) -> Pretrained:
    """Read what E, the centers and the models of the run date say about themselves."""
    of_E = _json(settings.layout.embeddings, "pretrain_embeddings", storage.MANIFEST)
    of_E = of_E.get("measures") or {}
    of_centers = _json(settings.layout.centers, "train_centers", storage.MANIFEST)
    centers = tuple(
        Centers(one["level"], one["interests"], one["marginal"], one["held_norm"], one)
        for one in of_centers.get("centers", {}).values()
        if "purity_adjacent" in one  # else an older version's
    )
    return Pretrained(
        fields=tuple(_fields(of_E)),
        next_behaviour_auc=of_E.get("next_behaviour_auc") or {},
        next_behaviour_users=of_E.get("next_behaviour_users"),
        centers=centers,
        trained=tuple(one for name in models for one in _trained(settings, name, centers)),
        sampled_users=of_centers.get("sampled_users"),
        users=of_centers.get("users"),
    )


def _fields(of_E: Mapping[str, Any]) -> list[FieldOfE]:
    covered = of_E.get("covered") or {}
    correlations = (of_E.get("start_correlation") or {}).get("table") or {}
    return [FieldOfE(name, covered[name], correlations.get(name)) for name in covered]


def _trained(settings: Settings, model: str, centers: Iterable[Centers]) -> list[TrainedCenters]:
    description = _json(settings.layout.model(model), "train", storage.MODEL)
    measures = description.get("measures") or {}
    of_model = description.get("settings") or {}
    asked = tuple(
        of_model.get(name) for name in ("similarity_interests", "centers_marginal", "centers_norm")
    )
    starts = {
        one.level: one for one in centers if (one.interests, one.marginal, one.held_norm) == asked
    }
    levels = dict.fromkeys(name.partition("/")[0] for name in measures if "/centers_" in name)
    return [
        TrainedCenters(
            model,
            level,
            starts.get(level),
            *(
                measures.get(f"{level}/centers_{name}")
                for name in ("norm", "largest_share", "moved")
            ),
        )
        for level in levels
    ]


def _json(published: str, job: str, file: str) -> dict[str, Any]:
    """A file of a published folder; empty if it is not there."""
    try:
        return dict(storage.read_json(f"{storage.current(published, job)}/{file}"))
    except FileNotFoundError:
        return {}
