"""Which trainings a comparison takes, and which settings each model is given: pure functions.

Every model is tuned in the same way: for each learning rate one curve on an earlier run date, of
one seed, and of all points of them the rate and the number of epochs with the highest AUC. Then
each is trained anew with these on the whole training window of the real run date, once a seed. A
seed is also one of E and of the centers, under a root of its own.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mfn.settings import Settings
from mfn.splits.windows import windows
from mfn.trials.trial import Curve, Final, Point


@dataclass(frozen=True)
class Variant:
    """A model that is no name of its own, but another's choice of rate and epochs is taken for it.

    sharpness: what its centers are multiplied by.
    """

    tuned_as: str
    sharpness: float = 1.0


@dataclass(frozen=True)
class Plan:
    """A comparison on one data set.

    Attributes:
        real: settings of the run date whose test window is read once, with all models.
        earlier: the same data on a run date whose test window ends before that one begins.
        variants: those of the models that are not tuned themselves.
        files: most files of training rows that are read.
    """

    real: Settings
    earlier: Settings
    seeds: tuple[int, ...]
    learning_rates: tuple[float, ...]
    most_epochs: int
    variants: Mapping[str, Variant]
    files: int | None = None

    def __post_init__(self) -> None:
        if self.earlier.date >= first_test_day(self.real):
            raise ValueError(
                f"earlier: expected a date before the test window that begins on "
                f"{first_test_day(self.real)}, got {self.earlier.date}"
            )


def first_test_day(settings: Settings) -> datetime.date:
    """The first day of the test window."""
    return windows(settings.date, settings.windows).test[0]


@dataclass(frozen=True)
class Choice:
    """The settings that a model is given, and the AUC that they had on the earlier window."""

    learning_rate: float
    epochs: int
    auc: float


def of_seed(settings: Settings, seed: int) -> Settings:
    """The settings of one seed: of E, the centers and the training, under a root of its own."""
    return settings.model_copy(
        update={
            "root": f"{settings.root}/seeds/{seed}",
            "embeddings": settings.embeddings.model_copy(update={"seed": seed}),
            "centers": settings.centers.model_copy(update={"seed": seed}),
            "train": settings.train.model_copy(update={"seed": seed, "num_workers": 1}),
        }
    )


def curves(plan: Plan) -> dict[str, dict[float, Curve]]:
    """What is trained to choose: by model and learning rate."""
    settings = of_seed(plan.earlier, plan.seeds[0])
    return {
        name: {
            rate: Curve(
                name=name,
                settings=with_training(settings, rate, plan.most_epochs),
                folder=f"{plan.earlier.root}/trials/{plan.earlier.date}/{name}/{rate:g}",
                files=plan.files,
                most_epochs=plan.most_epochs,
            )
            for rate in plan.learning_rates
        }
        for name in plan.earlier.models
        if name not in plan.variants
    }


def choose(points: Mapping[float, Sequence[Point]]) -> Choice:
    """Of all rates and epochs those with the highest AUC; of equal ones the fewest epochs.

    Raises:
        ValueError: no training came to the end of its first epoch.
    """
    found = [(-point.auc, point.epochs, rate) for rate, curve in points.items() for point in curve]
    if not found:
        raise ValueError(f"expected a training to succeed with one of the rates {list(points)}")
    auc, epochs, rate = min(found)
    return Choice(rate, epochs, -auc)


def finals(plan: Plan, choices: Mapping[str, Choice]) -> dict[str, dict[int, Final]]:
    """What is trained with the choices: by model and seed."""
    trials: dict[str, dict[int, Final]] = {}
    for name in plan.real.models:
        variant = plan.variants.get(name, Variant(tuned_as=name))
        choice = choices[variant.tuned_as]
        trials[name] = {
            seed: Final(
                name=name,
                settings=with_training(
                    of_seed(plan.real, seed), choice.learning_rate, choice.epochs
                ),
                folder=f"{plan.real.root}/trials/{plan.real.date}/{name}/seed-{seed}",
                sharpness=variant.sharpness,
                files=plan.files,
            )
            for seed in plan.seeds
        }
    return trials


def with_training(settings: Settings, learning_rate: float, epochs: int) -> Settings:
    """The settings with another rate and number of epochs."""
    train = settings.train.model_copy(update={"learning_rate": learning_rate, "epochs": epochs})
    return settings.model_copy(update={"train": train})
