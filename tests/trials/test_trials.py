"""Trainings of a comparison: what chooses reads no test window, and a stop changes nothing."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mfn import errors, storage
from mfn.models.settings import NAMED_MODELS, MfnSettings
from mfn.settings import Settings
from mfn.trials.plan import Choice, Plan, choose, curves, finals
from mfn.trials.results import Results, results
from mfn.trials.several import run_all
from mfn.trials.trial import Final, Point, read_candidates
from tests.trials.pretrained import CHOICES, SEEDS, plan, publish

REPOSITORY = Path(__file__).parent.parent.parent
MODELS = {"base": NAMED_MODELS["base"], "mfn": MfnSettings(similarity_interests=3)}


@pytest.fixture
def make_plan(tmp_path: Path, make_settings: Callable[..., Settings]) -> Callable[..., Plan]:
    """A plan under a folder of this name."""

    def make(name: str, **models: Any) -> Plan:
        return plan(
            make_settings(
                root=str(tmp_path / name),
                embeddings={"dimension": 8},
                train={"batch_requests": 16},
                models={**MODELS, **models},
            )
        )

    return make


def run_curves(of: Plan) -> dict[str, dict[float, list[Point]]]:
    made = curves(of)
    for rates in made.values():
        for curve in rates.values():
            if not curve.finished():
                curve.run()
    return {name: {rate: one.points() for rate, one in r.items()} for name, r in made.items()}


def numbers(found: Results) -> dict[str, dict[str, Any]]:
    """All that a table says, but for the time that it took."""
    told = {name: dataclasses.asdict(one) for name, one in found.of_models.items()}
    for one in told.values():
        del one["candidates_per_second"]
    return told


def test_choices_follow_from_the_earlier_date_and_never_from_the_test_window(
    make_plan: Callable[..., Plan],
) -> None:
    chosen = []
    for place, (earlier, real) in enumerate(
        [({}, {}), ({}, {"test": 2, "train": 2}), ({"test": 2}, {})]
    ):
        of = make_plan(f"{place}")
        publish(of, earlier, real)
        chosen.append({name: choose(points) for name, points in run_curves(of).items()})
    same, with_other_real_rows, with_other_earlier_rows = chosen
    assert same == with_other_real_rows
    assert same != with_other_earlier_rows


def test_nothing_of_the_real_date_need_be_there_to_choose(make_plan: Callable[..., Plan]) -> None:
    of = make_plan("one")
    publish(of)
    for inner in Path(of.real.root).glob(f"**/{of.real.date}"):
        inner.rename(inner.with_name("moved away"))
    assert set(run_curves(of)) == set(MODELS)
    with pytest.raises(errors.NotPublished):
        finals(of, CHOICES)["base"][1].run()


def test_an_earlier_date_within_the_test_window_is_refused(make_plan: Callable[..., Plan]) -> None:
    of = make_plan("one")
    with pytest.raises(ValueError, match="earlier: expected a date before"):
        dataclasses.replace(of, earlier=of.real)


def test_the_best_point_is_chosen_and_of_equal_ones_the_shortest() -> None:
    points = {
        0.1: [Point(1, 0.6, 0.4), Point(2, 0.7, 0.3), Point(3, 0.65, 0.2)],
        0.2: [Point(1, 0.7, 0.9), Point(2, 0.7, 0.1)],
        0.3: [],
    }
    assert choose(points) == Choice(0.2, 1, 0.7)
    with pytest.raises(ValueError, match="to succeed"):
        choose({0.1: []})


def test_a_curve_is_the_auc_after_each_epoch_and_its_last_point_that_of_a_training(
    make_plan: Callable[..., Plan],
) -> None:
    of = make_plan("one")
    publish(of, {"test": 1}, {"test": 1})
    curve = curves(of)["mfn"][0.003]
    curve.run()
    points = curve.points()
    assert [one.epochs for one in points] == list(range(1, len(points) + 1))
    settings = curve.settings
    for point in points:
        train = settings.train.model_copy(update={"epochs": point.epochs})
        final = Final("mfn", settings.model_copy(update={"train": train}), f"{of.real.root}/again")
        final.run()
        labels = read_candidates(final.splits.folder).labels_n
        assert point.auc == pytest.approx(roc_auc_score(labels, final.scores()), abs=1e-9)


def test_a_rate_at_which_a_model_fails_is_not_chosen(make_plan: Callable[..., Plan]) -> None:
    of = make_plan("one")
    rates = of.real.compare.model_copy(update={"learning_rates": (0.01, 1e30)})
    of = dataclasses.replace(of, real=of.real.model_copy(update={"compare": rates}))
    publish(of)
    points = run_curves(of)["mfn"]
    assert points[1e30] == []
    assert choose(points).learning_rate == 0.01


def test_scores_are_in_the_order_of_the_candidates_users_and_labels(
    make_plan: Callable[..., Plan],
) -> None:
    of = make_plan("one")
    publish(of)
    final = finals(of, CHOICES)["base"][1]
    final.run()
    rows = read_candidates(final.splits.folder)
    assert len(final.scores()) == len(rows.labels_n) == len(rows.users_n) == len(rows.names_n)
    assert rows.users == 7
    requests = [request for _, request, _ in rows.names_n]
    assert requests[0] == "test-0-0"
    assert requests[-1] == "test-1-39"
    # What the model has learnt it says of the right candidates: shuffled ones tell nothing.
    shuffled = np.random.default_rng(1).permutation(final.scores())
    assert roc_auc_score(rows.labels_n, final.scores()) > 0.65
    assert abs(roc_auc_score(rows.labels_n, shuffled) - 0.5) < 0.1


def test_a_variant_has_its_own_settings_and_the_choice_of_the_model_it_is_tuned_as(
    make_plan: Callable[..., Plan],
) -> None:
    of = make_plan("one", mfn_sharp=MfnSettings(similarity_interests=3, centers_norm=4.0))
    publish(of)
    assert "mfn_sharp" not in curves(of)
    made = finals(of, CHOICES)
    plain, sharp = made["mfn"][1], made["mfn_sharp"][1]
    assert sharp.settings.train == plain.settings.train
    for one in (plain, sharp):
        one.run()
    assert not np.array_equal(plain.scores(), sharp.scores())
    assert np.array_equal(plain.scores(), made["mfn"][1].scores())


@pytest.mark.parametrize("change", [{"files": 1}, {"learning_rate": 0.02}, {"splits": 2}])
def test_a_training_is_left_alone_until_something_it_follows_from_changes(
    make_plan: Callable[..., Plan], change: dict[str, Any]
) -> None:
    of = make_plan("one")
    publish(of)
    final = finals(of, CHOICES)["base"][1]
    assert not final.finished()
    final.run()
    assert final.finished()
    if "learning_rate" in change:
        choices = {**CHOICES, "base": Choice(0.02, 1, 0.6)}
        final = finals(of, choices)["base"][1]
    elif "splits" in change:
        publish(of, real={"train": 2})
    else:
        final = dataclasses.replace(final, **change)
    assert not final.finished()


@pytest.mark.process
def test_results_say_what_scikit_learn_says_of_each_seed(make_plan: Callable[..., Plan]) -> None:
    of = make_plan("one")
    publish(of)
    made = finals(of, CHOICES)
    run_all([one for seeds in made.values() for one in seeds.values()], "test", 2)
    found = results(made, "base")
    labels = read_candidates(made["base"][1].splits.folder).labels_n
    for name, result in found.of_models.items():
        aucs = [roc_auc_score(labels, one.scores()) for one in made[name].values()]
        assert result.auc_mean == pytest.approx(np.mean(aucs))
        assert result.auc_std == pytest.approx(np.std(aucs, ddof=1))
        assert result.auc_std > 0
        assert result.seeds == 2
        assert result.parameters > 0
        assert set(result.as_json()) == {
            "auc_mean", "auc_std", "logloss_mean", "relaimpr", "relaimpr_low", "relaimpr_high",
            "seeds", "parameters",
        }  # fmt: skip
    base = found.of_models["base"].relaimpr
    assert (base.value, base.low, base.high) == (0, 0, 0)
    assert found.difference("mfn", "mfn").value == 0


PROGRAM = """
import sys
from mfn.settings import Settings
from mfn.trials.plan import finals
from mfn.trials.several import run_all
from tests.trials.pretrained import CHOICES, plan

if __name__ == "__main__":
    made = finals(plan(Settings.model_validate_json(sys.argv[1])), CHOICES)
    run_all([one for seeds in made.values() for one in seeds.values()], "finals", 2)
"""


@pytest.mark.process
def test_a_comparison_that_was_killed_ends_as_an_undisturbed_one(
    make_plan: Callable[..., Plan], tmp_path: Path
) -> None:
    undisturbed, killed = make_plan("undisturbed"), make_plan("killed")
    for of in (undisturbed, killed):
        publish(of)
    for seeds in finals(undisturbed, CHOICES).values():
        for one in seeds.values():
            one.run()
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, str(program), killed.real.model_dump_json()],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            start_new_session=True,
        )

    def published() -> dict[Path, str]:
        found = Path(killed.real.root, "trials").glob(f"**/{storage.POINTER}")
        return {path: path.read_text() for path in found}

    running = start()
    while not published():
        assert running.poll() is None
        time.sleep(0.02)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    before = published()
    assert 0 < len(before) < len(MODELS) * len(SEEDS)
    assert start().wait() == 0
    after = published()
    assert len(after) == len(MODELS) * len(SEEDS)
    assert {path: after[path] for path in before} == before  # these were not made again
    told, expected = (numbers(results(finals(of, CHOICES), "base")) for of in (killed, undisturbed))
    assert told == expected
