"""Which trainings a comparison takes, and which settings each model is given: pure functions.

Every model is tuned in the same way: for each learning rate one curve on an earlier run date, of
one seed, and of all points of them the rate and the number of epochs with the highest AUC. Then
each is trained anew with these on the whole training window of the real run date, once a seed. A
seed is also one of E and of the centers, under a root of its own.
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
    """A model that is no name of its own, but another's choice of rate and epochs is taken for it.

    Attributes:
        sharpness: what its centers are multiplied by.
        words: its own `embeddings.words`; None for those of the settings.
    """

    tuned_as: str
    sharpness: float = 1.0
    words: str | None = None


@dataclass(frozen=True)
class Plan:
    """A comparison on one data set.

    Attributes:
        real: settings of the run date whose test window is read once, with all models; those of
            `compare` hold for both dates.
        earlier: the same data on a run date whose test window ends before that one begins.
        variants: those of the models that are not tuned themselves.
        files: most files of training rows that are read.
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
        """Each `embeddings.words` of a variant, for which E and centers are learnt beside."""
        return sorted({one.words for one in self.variants.values() if one.words is not None})


def first_test_day(settings: Settings) -> datetime.date:
    """The first day of the test window."""
    return windows(settings.date, settings.windows).test[0]


@dataclass(frozen=True)
class Choice:
    """The settings that a model is given, and the AUC that they had on the earlier window."""

    learning_rate: float
    epochs: int
    auc: float


def of_seed(settings: Settings, seed: int, words: str | None = None) -> Settings:
    """The settings of one seed: of E, the centers and the training, under a root of its own.

    With words of its own, E and so the root is another again.
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
    """What is trained to choose: by model and learning rate."""
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
                    of_seed(plan.real, seed, variant.words), choice.learning_rate, choice.epochs
                ),
                folder=plan.real.layout.trial(name, f"seed-{seed}"),
                sharpness=variant.sharpness,
                files=plan.files,
            )
            for seed in plan.real.compare.seeds
        }
    return trials


def with_training(settings: Settings, learning_rate: float, epochs: int) -> Settings:
    """The settings with another rate and number of epochs."""
    train = settings.train.model_copy(update={"learning_rate": learning_rate, "epochs": epochs})
    return settings.model_copy(update={"train": train})
