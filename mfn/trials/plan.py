"""Which trainings a comparison needs, and with which settings: pure functions.

Every model is tuned by the same rule, on an earlier run date:

1. It is trained with each learning rate and several seeds, which gives curves of AUC over epochs.
   The learning rate and the number of epochs with the highest mean AUC are chosen.
2. Its options, if it has any, are tried one after the other: the model is trained with the option
   at this learning rate. An option that gives a higher mean AUC is kept, with the epochs of its own
   curve; the next option is tried on top of it.

Then the model is trained again with its choice on the whole training window of the real run date,
once per seed. E and the centers are also learnt once per seed; each seed has its own root for them.
"""

from __future__ import annotations

import datetime
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Any

from mfn.settings import Settings
from mfn.trials.trial import Curve, Final, Point, Trial
from mfn.windows import windows

Changes = Mapping[str, Any]
"""Other values of settings, by dotted name; `model.x` is setting x of the trained model itself."""

MODEL = "model"
PRETRAINING = ("embeddings", "centers")
"""Sections from which E and the centers follow."""
UNCHANGED: Changes = {}
PARTS = 4
"""How many times an epoch AUC is measured in a curve by step."""


@dataclass(frozen=True)
class Variant:
    """A model that is not tuned itself: it takes another model's choice.

    Of the options that were kept for that model it takes those that hold for it (`holding`). So a
    variant keeps what it varies.

    Attributes:
        tuned_as: name of the model whose choice it takes.
        changes: settings outside the section `models` that it changes.
        seeds: number of its trainings, with the first of `compare.seeds`; None: with all of them.
    """

    tuned_as: str
    changes: Changes = field(default_factory=dict)
    seeds: int | None = None


@dataclass(frozen=True)
class Plan:
    """A comparison on one data set.

    Attributes:
        real: settings of the run date on whose test window all models are compared; it is read
            only once. Its section `compare` is used for both dates.
        earlier: settings of the same data on a run date whose test window ends before the test
            window of the real one; rates, epochs and options are chosen there. None: they are
            those of another plan.
        options: by model, other settings to try, in this order.
        options_of: by model with a rate and epochs of its own, the model whose kept options it
            takes.
        variants: by name, the models that are not tuned themselves.
        files: maximum number of files of training rows to read; None for all.
    """

    real: Settings
    earlier: Settings | None
    options: Mapping[str, Sequence[Changes]] = field(default_factory=dict)
    options_of: Mapping[str, str] = field(default_factory=dict)
    variants: Mapping[str, Variant] = field(default_factory=dict)
    files: int | None = None

    def __post_init__(self) -> None:
        if self.earlier is not None and self.earlier.date >= first_test_day(self.real):
            raise ValueError(
                f"earlier: expected a date before the test window that begins on "
                f"{first_test_day(self.real)}, got {self.earlier.date}"
            )

    @property
    def tuned(self) -> list[str]:
        """Names of the models that are tuned themselves."""
        return [name for name in self.real.models if name not in self.variants]

    def seeds(self, name: str) -> tuple[int, ...]:
        """The seeds of a model's trainings on the real date."""
        variant = self.variants.get(name)
        return self.real.compare.seeds[: None if variant is None else variant.seeds]

    @property
    def rounds(self) -> int:
        """The largest number of options of a model."""
        return max((len(self.options.get(name, ())) for name in self.tuned), default=0)


def first_test_day(settings: Settings) -> datetime.date:
    """The first day of the test window."""
    return windows(settings.date, settings.windows).test[0]


@dataclass(frozen=True)
class Tried:
    """An option that was tried: its highest mean AUC on the earlier test window."""

    changes: Changes
    auc: float
    kept: bool


@dataclass(frozen=True)
class Choice:
    """The settings chosen for a model.

    Attributes:
        auc: their mean AUC on the earlier test window.
        default_auc: the same with the model's default settings.
        changes: what the kept options change.
        tried: the options that were tried.
    """

    learning_rate: float
    epochs: int
    auc: float
    default_auc: float
    changes: Changes = field(default_factory=dict)
    tried: tuple[Tried, ...] = ()


# How the choice is made.


def mean_points(curves_of_seeds: Sequence[Sequence[Point]]) -> list[Point]:
    """The mean curve of several seeds, up to the last epoch that all of them have measured."""
    return [
        Point(
            same[0].epochs,
            sum(one.auc for one in same) / len(same),
            sum(one.log_loss for one in same) / len(same),
        )
        for same in zip(*curves_of_seeds, strict=False)
    ]


def choose(points: Mapping[float, Sequence[Point]]) -> Choice:
    """The learning rate and epochs with the highest AUC; of equal ones, those with fewest epochs.

    Args:
        points: by learning rate, the mean curve of the seeds.

    Raises:
        ValueError: no training has finished its first epoch.
    """
    tried = [(-point.auc, point.epochs, rate) for rate, one in points.items() for point in one]
    if not tried:
        raise ValueError(f"expected a training to succeed with one of the rates {list(points)}")
    auc, epochs, rate = min(tried)
    return Choice(rate, int(epochs), -auc, -auc)


def with_option(choice: Choice, option: Changes, points: Sequence[Point]) -> Choice:
    """The choice after an option was tried: it is kept if its mean curve rises higher."""
    best = max(points, key=lambda one: (one.auc, -one.epochs), default=None)
    if best is None:
        return replace(choice, tried=(*choice.tried, Tried(option, float("nan"), kept=False)))
    kept = best.auc > choice.auc
    tried = (*choice.tried, Tried(option, best.auc, kept))
    if not kept:
        return replace(choice, tried=tried)
    changes = {**choice.changes, **option}
    epochs = int(best.epochs)
    return replace(choice, epochs=epochs, auc=best.auc, changes=changes, tried=tried)


# The settings of a training.


def changed(settings: Settings, name: str, changes: Changes) -> Settings:
    """The settings with these changes, for the training of model `name`.

    Raises:
        pydantic.ValidationError: there is no such setting, or it cannot have this value.
    """
    sections: dict[str, dict[str, Any]] = {}
    for dotted, value in changes.items():
        section, _, setting = dotted.partition(".")
        sections.setdefault(section, {})[setting] = value
    update: dict[str, Any] = {}
    for section, own in sections.items():
        before = settings.models[name] if section == MODEL else getattr(settings, section)
        after = type(before).model_validate({**before.model_dump(), **own})
        if section == MODEL:
            update["models"] = {**settings.models, name: after}
        else:
            update[section] = after
    return settings.model_copy(update=update)


def changes_of(plan: Plan, name: str, choices: Mapping[str, Choice]) -> Changes:
    """What a model changes: the kept options, as far as they hold for it, and its own changes."""
    variant = plan.variants.get(name)
    other = plan.options_of.get(name) if variant is None else variant.tuned_as
    if other is None:
        return choices[name].changes
    kept = holding(plan, name, other, choices[other].changes)
    return kept if variant is None else {**kept, **variant.changes}


def holding(plan: Plan, name: str, tuned: str, changes: Changes) -> Changes:
    """Of the kept options of a tuned model those that hold for another model too.

    A setting of the model itself holds if both models have it with the same default.
    """
    own, other = plan.real.models[name], plan.real.models[tuned]

    def holds(dotted: str) -> bool:
        section, _, setting = dotted.partition(".")
        return section != MODEL or (
            hasattr(own, setting) and getattr(own, setting) == getattr(other, setting)
        )

    return {dotted: value for dotted, value in changes.items() if holds(dotted)}


def of_seed(settings: Settings, seed: int, changes: Changes = UNCHANGED) -> Settings:
    """Settings with this seed for E, the centers and the training, under the seed's own root.

    Args:
        changes: those that concern E or the centers; they are then others, so the root is another.
    """
    name = "-".join([str(seed), *itertools.starmap(_part, _of_pretraining(changes).items())])
    return settings.model_copy(
        update={
            "root": settings.layout.seed(name),
            "embeddings": settings.embeddings.model_copy(update={"seed": seed}),
            "centers": settings.centers.model_copy(update={"seed": seed}),
            "train": settings.train.model_copy(update={"seed": seed, "num_workers": 1}),
        }
    )


def _of_pretraining(changes: Changes) -> Changes:
    return {name: one for name, one in changes.items() if name.partition(".")[0] in PRETRAINING}


def _part(dotted: str, value: Any) -> str:
    """A part of a folder's name; of a path, only its last part without the suffix."""
    setting = dotted.rpartition(".")[2]
    text = re.sub(r"[^A-Za-z0-9.]", "_", PurePath(str(value)).name)
    return f"{setting}-{text.removesuffix('.txt')}"


def with_training(settings: Settings, learning_rate: float, epochs: int) -> Settings:
    """The settings with this learning rate and number of epochs."""
    train = settings.train.model_copy(update={"learning_rate": learning_rate, "epochs": epochs})
    return settings.model_copy(update={"train": train})


# The trainings.


def curves(plan: Plan) -> dict[str, dict[float, list[Curve]]]:
    """The trainings for the choice of rates and epochs: by model and rate, one for each seed."""
    own = plan.real.compare
    return {
        name: {
            rate: _curves(plan, name, rate, UNCHANGED, f"{rate:g}") for rate in own.learning_rates
        }
        for name in plan.tuned
    }


def option_curves(
    plan: Plan, choices: Mapping[str, Choice], place: int
) -> dict[str, tuple[Changes, list[Curve]]]:
    """The trainings with the option at this place: by model, the option and one for each seed."""
    found = {}
    for name in plan.tuned:
        options = plan.options.get(name, ())
        if place < len(options):
            choice, option = choices[name], options[place]
            changes = {**choice.changes, **option}
            of_option = _curves(plan, name, choice.learning_rate, changes, f"option-{place}")
            found[name] = (option, of_option)
    return found


def possible_curves(plan: Plan) -> list[Curve]:
    """All trainings that the choice may need, whichever options are kept; not all of them run.

    E and the centers of all of them are learnt beforehand. The learning rates do not matter there.
    """
    rate = plan.real.compare.learning_rates[0]
    found = []
    for name in plan.tuned:
        options = plan.options.get(name, ())
        kept = itertools.product((False, True), repeat=len(options))
        distinct: list[Changes] = []
        for these in kept:
            both = {k: v for one in itertools.compress(options, these) for k, v in one.items()}
            if both not in distinct:
                distinct.append(both)
        for changes in distinct:
            found += _curves(plan, name, rate, changes, "possible")
    return found


def _curves(plan: Plan, name: str, rate: float, changes: Changes, folder: str) -> list[Curve]:
    if plan.earlier is None:
        raise ValueError("expected a plan with an earlier date, got one without")
    own, settings = plan.real.compare, changed(plan.earlier, name, changes)
    return [
        Curve(
            name=name,
            settings=with_training(of_seed(settings, seed, changes), rate, own.max_epochs),
            folder=plan.earlier.layout.trial(name, f"{folder}-seed-{seed}"),
            files=plan.files,
            max_epochs=own.max_epochs,
        )
        for seed in own.choosing_seeds
    ]


def curves_by_step(
    plan: Plan, names: Iterable[str], tuned: str, choice: Choice
) -> dict[str, list[Curve]]:
    """Trainings on the earlier date whose AUC is measured `PARTS` times an epoch, by model.

    All have the learning rate and the kept options of one tuned model, so that only what they start
    from makes them differ.
    """
    rate = choice.learning_rate
    return {
        name: [
            replace(one, parts=PARTS)
            for one in _curves(
                plan, name, rate, holding(plan, name, tuned, choice.changes), "by-step"
            )
        ]
        for name in names
    }


def finals(plan: Plan, choices: Mapping[str, Choice]) -> dict[str, dict[int, Final]]:
    """The trainings with the chosen settings, by model and seed.

    No training has more epochs than `compare.max_epochs`, also if the choices are those of another
    plan.
    """
    trials: dict[str, dict[int, Final]] = {}
    for name in plan.real.models:
        variant = plan.variants.get(name)
        choice = choices[name if variant is None else variant.tuned_as]
        changes = changes_of(plan, name, choices)
        settings = changed(plan.real, name, changes)
        epochs = min(choice.epochs, plan.real.compare.max_epochs)
        trials[name] = {
            seed: Final(
                name=name,
                settings=with_training(
                    of_seed(settings, seed, changes), choice.learning_rate, epochs
                ),
                folder=plan.real.layout.trial(name, f"seed-{seed}"),
                files=plan.files,
            )
            for seed in plan.seeds(name)
        }
    return trials


def pretrainings(trials: Iterable[Trial]) -> list[Settings]:
    """Settings of E and the centers of these trainings, one for each root.

    The models of each are all those that are trained with this E, so that all their centers are
    learnt.
    """
    by_root: dict[str, list[Trial]] = {}
    for one in trials:
        by_root.setdefault(one.settings.root, []).append(one)
    found = []
    for of_root in by_root.values():
        settings = of_root[0].settings
        models = [one.settings.models[one.name] for one in of_root]
        distinct = [one for place, one in enumerate(models) if one not in models[:place]]
        named = {f"model_{place}": one for place, one in enumerate(distinct)}
        found.append(settings.model_copy(update={"models": named}))
    return found
