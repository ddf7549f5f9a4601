"""Which trainings a comparison needs, and with which settings: pure functions.

Every model is tuned in the same way. One seed is trained with each learning rate on an earlier run
date, which gives a curve of AUC over epochs. Of all points of these curves, the learning rate and
the number of epochs with the highest AUC are chosen. Then the model is trained again with them on
the whole training window of the real run date, once per seed. E and the centers are also learnt
once per seed; each seed has its own root for them.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from mfn.settings import Settings
from mfn.trials.trial import Curve, Final, Point
from mfn.windows import windows


@dataclass(frozen=True)
class Variant:
    """A model that is not tuned itself: it takes another model's learning rate and epochs.

    Attributes:
        tuned_as: name of the model whose choice it takes.
        words: its own `embeddings.words`; None for the value in the settings.
    """

    tuned_as: str
    words: str | None = None


@dataclass(frozen=True)
class Plan:
    """A comparison on one data set.

    Attributes:
        real: settings of the run date on whose test window all models are compared; it is read
            only once. Its section `compare` is used for both dates.
        earlier: settings of the same data on a run date whose test window ends before the test
            window of the real one; rates and epochs are chosen there.
        variants: by name, the models that are not tuned themselves.
        files: maximum number of files of training rows to read; None for all.
    """

    real: Settings
    earlier: Settings
    variants: Mapping[str, Variant] = field(default_factory=dict)
    files: int | None = None

    def __post_init__(self) -> None:
        if self.earlier.date >= first_test_day(self.real):
            raise ValueError(
                f"earlier: expected a date before the test window that begins on "
                f"{first_test_day(self.real)}, got {self.earlier.date}"
            )

    @property
    def words(self) -> list[str]:
        """Every `embeddings.words` of a variant; each needs E and centers of its own."""
        return sorted({one.words for one in self.variants.values() if one.words is not None})


def first_test_day(settings: Settings) -> datetime.date:
    """The first day of the test window."""
    return windows(settings.date, settings.windows).test[0]


@dataclass(frozen=True)
class Choice:
    """The settings chosen for a model, and their AUC on the earlier test window."""

    learning_rate: float
    epochs: int
    auc: float


def of_seed(settings: Settings, seed: int, words: str | None = None) -> Settings:
    """Settings with this seed for E, the centers and the training, under the seed's own root.

    Args:
        words: another `embeddings.words`; E then differs, so the root differs too.
    """
    embeddings: dict[str, int | str] = {"seed": seed}
    name = str(seed)
    if words is not None:
        embeddings["words"] = words
        name += f"-{PurePosixPath(words).stem}"
    return settings.model_copy(
        update={
            "root": settings.layout.seed(name),
            "embeddings": settings.embeddings.model_copy(update=embeddings),
            "centers": settings.centers.model_copy(update={"seed": seed}),
            "train": settings.train.model_copy(update={"seed": seed, "num_workers": 1}),
        }
    )


def curves(plan: Plan) -> dict[str, dict[float, Curve]]:
    """The trainings for the choice of settings, by model and learning rate."""
    own = plan.real.compare
    settings = of_seed(plan.earlier, own.seeds[0])
    return {
        name: {
            rate: Curve(
                name=name,
                settings=with_training(settings, rate, own.max_epochs),
                folder=plan.earlier.layout.trial(name, f"{rate:g}"),
                files=plan.files,
                max_epochs=own.max_epochs,
            )
            for rate in own.learning_rates
        }
        for name in plan.earlier.models
        if name not in plan.variants
    }


def choose(points: Mapping[float, Sequence[Point]]) -> Choice:
    """The learning rate and epochs with the highest AUC; of equal ones, those with fewest epochs.

    Raises:
        ValueError: no training has finished its first epoch.
    """
    options = [
        (-point.auc, point.epochs, rate) for rate, curve in points.items() for point in curve
    ]
    if not options:
        raise ValueError(f"expected a training to succeed with one of the rates {list(points)}")
    auc, epochs, rate = min(options)
    return Choice(rate, epochs, -auc)


def finals(plan: Plan, choices: Mapping[str, Choice]) -> dict[str, dict[int, Final]]:
    """The trainings with the chosen settings, by model and seed."""
    trials: dict[str, dict[int, Final]] = {}
    for name in plan.real.models:
        variant = plan.variants.get(name, Variant(tuned_as=name))
        choice = choices[variant.tuned_as]
        trials[name] = {
            seed: Final(
                name=name,
                settings=with_training(
                    of_seed(plan.real, seed, variant.words), choice.learning_rate, choice.epochs
                ),
                folder=plan.real.layout.trial(name, f"seed-{seed}"),
                files=plan.files,
            )
            for seed in plan.real.compare.seeds
        }
    return trials


def with_training(settings: Settings, learning_rate: float, epochs: int) -> Settings:
    """The settings with this learning rate and number of epochs."""
    train = settings.train.model_copy(update={"learning_rate": learning_rate, "epochs": epochs})
    return settings.model_copy(update={"train": train})
