"""The job `compare`: trains every model with several seeds on one run date and compares them.

It trains in processes on this machine, `compare.max_parallel` at a time, on the rows that
`build_splits` has written, and writes `evaluation/over_seeds`. Finished trainings are not repeated,
so a run that was stopped can resume.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pyspark.sql import SparkSession

from mfn import tables
from mfn.errors import DataRefused, NotPublished
from mfn.job import Counts, job
from mfn.reporting.numbers import per_cent
from mfn.schema import OVER_SEEDS
from mfn.settings import Settings
from mfn.splits.published import Splits
from mfn.trials.plan import (
    Choice,
    Plan,
    choose,
    curves,
    finals,
    first_test_day,
    mean_points,
    option_curves,
    possible_curves,
    with_option,
)
from mfn.trials.pretrain import pretrain
from mfn.trials.results import Result, Results, results
from mfn.trials.several import run_all
from mfn.trials.trial import Curve, Point


@dataclass(frozen=True)
class Chosen:
    """The choice of settings on the earlier date.

    Attributes:
        points: by model and learning rate, the mean curve from which rate and epochs were chosen.
        choices: by model, the chosen settings.
    """

    points: Mapping[str, Mapping[float, list[Point]]]
    choices: Mapping[str, Choice]


def choose_settings(plan: Plan, title: str) -> Chosen:
    """Choose rate, epochs and options for every model that is tuned; skip finished trainings.

    Args:
        title: shown with the progress.

    Raises:
        NotPublished: splits, E or centers of the earlier date and a seed are missing.
    """
    max_parallel = plan.real.compare.max_parallel
    to_choose = curves(plan)
    run_all(
        [one for rates in to_choose.values() for seeds in rates.values() for one in seeds],
        f"{title}: rates",
        max_parallel,
    )
    points = {
        name: {rate: _mean(seeds) for rate, seeds in rates.items()}
        for name, rates in to_choose.items()
    }
    choices = {name: choose(of_rates) for name, of_rates in points.items()}
    for place in range(plan.rounds):
        found = option_curves(plan, choices, place)
        run_all(
            [one for _, seeds in found.values() for one in seeds],
            f"{title}: option {place + 1} of {plan.rounds}",
            max_parallel,
        )
        choices |= {
            name: with_option(choices[name], option, _mean(seeds))
            for name, (option, seeds) in found.items()
        }
    return Chosen(points, choices)


def _mean(curves_of_seeds: Sequence[Curve]) -> list[Point]:
    return mean_points([one.points() for one in curves_of_seeds])


def train_and_measure(plan: Plan, choices: Mapping[str, Choice], title: str) -> Results:
    """Train all seeds of all models with their choices, and measure; skip finished trainings.

    Args:
        title: shown with the progress.

    Raises:
        NotPublished: splits, E or centers of a seed are missing.
    """
    trials = finals(plan, choices)
    all_finals = [final for seeds in trials.values() for final in seeds.values()]
    run_all(all_finals, f"{title}: seeds", plan.real.compare.max_parallel)
    return results(trials, plan.real.evaluate.base_model)


def pretrain_to_choose(spark: SparkSession, plan: Plan) -> None:
    """Learn E and the centers for all trainings on the earlier date, unless they exist.

    Raises:
        NotPublished: splits of the earlier date are missing.
    """
    pretrain(spark, plan.real.root, possible_curves(plan))


def pretrain_to_measure(spark: SparkSession, plan: Plan, choices: Mapping[str, Choice]) -> None:
    """Learn E and the centers for the trainings with these choices, unless they exist.

    Raises:
        NotPublished: splits of the real date are missing.
    """
    trials = finals(plan, choices)
    pretrain(spark, plan.real.root, [one for seeds in trials.values() for one in seeds.values()])


@job(
    sections=(
        "logs",
        "ingest",
        "windows",
        "embeddings",
        "centers",
        "train",
        "matches",
        "evaluate",
        "compare",
        "models",
    )
)
def compare(spark: SparkSession, settings: Settings) -> Counts:
    """Train every model with several seeds on this run date, and compare them.

    Learning rates and epochs are chosen on the last run date whose test window ends before the
    test window of this run date: with a test window of one day, that is the day before. The choice
    is the one with the highest AUC, as a mean over the trainings with each of
    `compare.choosing_seeds`.

    Raises:
        DataRefused: the splits of one of the two dates are missing, or the root is not a local
            folder.
    """
    earlier = settings.model_copy(
        update={"date": first_test_day(settings) - datetime.timedelta(days=1)}
    )
    plan = Plan(settings, earlier)
    _check(settings, earlier)
    pretrain_to_choose(spark, plan)
    choices = choose_settings(plan, str(settings.date)).choices
    pretrain_to_measure(spark, plan, choices)
    found = train_and_measure(plan, choices, str(settings.date))
    rows = [_row(one, settings) for one in found.of_models.values()]
    # One file per run date: there is only one row per model.
    frame = spark.createDataFrame(rows, OVER_SEEDS.columns).coalesce(1)
    tables.replace(frame, settings.root, OVER_SEEDS, {"run_date": [settings.date]})
    counts: dict[str, int | float | str] = {"rows": len(rows), "chosen_on": str(earlier.date)}
    for one in found.of_models.values():
        counts[f"auc_{one.model}"] = one.auc_mean
        gain = one.relaimpr
        interval = f"{per_cent(gain.low)} to {per_cent(gain.high)}"
        counts[f"relaimpr_{one.model}"] = f"{per_cent(gain.value)} ({interval})"
    return counts


def _check(settings: Settings, earlier: Settings) -> None:
    """Raise DataRefused if the root is not local or splits are missing."""
    if "://" in settings.root:
        raise DataRefused(
            f"root: compare trains in processes of this machine: expected a local folder, got "
            f"{settings.root}"
        )
    for of_date in (earlier, settings):
        try:
            Splits.published(of_date)
        except NotPublished as error:
            raise DataRefused(
                f"{error}; compare trains on {settings.date} and chooses rates and epochs on "
                f"{earlier.date}, so it needs the splits of both: run jobs/validate_logs.py "
                f"and jobs/build_splits.py with --date {of_date.date}"
            ) from error


def _row(one: Result, settings: Settings) -> dict[str, object]:
    """The columns of OVER_SEEDS by name."""
    return {
        "run_date": settings.date,
        "model": one.model,
        "base_model": settings.evaluate.base_model,
        "seeds": one.seeds,
        "learning_rate": one.learning_rate,
        "epochs": one.epochs,
        "auc_mean": one.auc_mean,
        "auc_std": _number(one.auc_std),
        "gauc_mean": _number(one.gauc_mean),
        "users_left_out": one.users_left_out,
        "logloss_mean": one.logloss_mean,
        "relaimpr": _number(one.relaimpr.value),
        "relaimpr_low": _number(one.relaimpr.low),
        "relaimpr_high": _number(one.relaimpr.high),
        "parameters": one.parameters,
        "candidates_per_second": one.candidates_per_second,
        "candidates_from": settings.candidates_from,
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
