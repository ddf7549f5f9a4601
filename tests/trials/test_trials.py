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
from mfn.models.settings import (
    NAMED_MODELS,
    MfnSettings,
    MfnWithoutCombinationSettings,
    MindSettings,
)
from mfn.settings import Settings
from mfn.trials.plan import (
    PARTS,
    Changes,
    Choice,
    Plan,
    Variant,
    choose,
    curves,
    curves_by_step,
    finals,
    mean_points,
    option_curves,
    possible_curves,
    pretrainings,
    with_option,
)
from mfn.trials.results import Results, results
from mfn.trials.several import run_all
from mfn.trials.trial import Final, Point, read_candidates, rows_of_test
from tests.trials.pretrained import CHOICES, EARLIER, SEEDS, plan, publish

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
    """The mean curve of the seeds, by model and rate."""
    made = curves(of)
    for curve in (one for rates in made.values() for seeds in rates.values() for one in seeds):
        if not curve.finished():
            curve.run()
    return {
        name: {rate: mean_points([one.points() for one in seeds]) for rate, seeds in rates.items()}
        for name, rates in made.items()
    }


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
    assert choose(points) == Choice(0.2, 1, 0.7, 0.7)
    with pytest.raises(ValueError, match="to succeed"):
        choose({0.1: []})


def test_a_curve_is_the_auc_after_each_epoch_and_its_last_point_that_of_a_training(
    make_plan: Callable[..., Plan],
) -> None:
    of = make_plan("one")
    publish(of, {"test": 1}, {"test": 1})
    curve, _ = curves(of)["mfn"][0.003]
    curve.run()
    points = curve.points()
    assert [one.epochs for one in points] == list(range(1, len(points) + 1))
    in_parts = dataclasses.replace(curve, parts=2, folder=f"{curve.folder}-in-parts")
    in_parts.run()
    parts = [one.epochs for one in in_parts.points()]
    assert parts == [(part + 1) / 2 for part in range(len(parts))]
    assert in_parts.fingerprint() != curve.fingerprint()
    settings = curve.settings
    for point in points:
        train = settings.train.model_copy(update={"epochs": int(point.epochs)})
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
    assert len(final.scores()) == len(rows.labels_n) == len(rows.users_n)
    assert rows.users == 7
    expected: dict[str, list[int]] = {}
    for file in rows_of_test(final.splits.folder):
        for row in file.to_pylist():
            expected.setdefault(row["user_id"], []).extend(row["labels"][: row["candidate_count"]])
    for number, user in enumerate(sorted(expected)):
        assert rows.labels_n[rows.users_n == number].tolist() == expected[user]
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


def test_the_mean_of_the_seeds_decides_and_a_rate_at_which_one_of_them_fails_is_out() -> None:
    lucky = [[Point(1, 0.8, 0.4)], [Point(1, 0.5, 0.6)]]
    steady = [[Point(1, 0.66, 0.4), Point(2, 0.7, 0.4)], [Point(1, 0.7, 0.4)]]
    failed = [[Point(1, 0.9, 0.1)], []]
    means = {0.1: mean_points(lucky), 0.2: mean_points(steady), 0.3: mean_points(failed)}
    (mean,) = means[0.1]
    assert (mean.epochs, mean.auc, mean.log_loss) == pytest.approx((1, 0.65, 0.5))
    assert [one.epochs for one in means[0.2]] == [1]  # the second epoch has one of two seeds
    assert means[0.3] == []
    assert choose(means).learning_rate == 0.2


def test_an_option_is_kept_only_if_it_is_better_and_the_next_is_tried_on_top_of_it() -> None:
    first = Choice(0.1, 2, 0.7, 0.7)
    better = with_option(first, {"model.interests": 8}, [Point(1, 0.71, 0.4), Point(2, 0.69, 0.4)])
    assert (better.epochs, better.auc, better.default_auc) == (1, 0.71, 0.7)
    assert better.changes == {"model.interests": 8}
    equal = with_option(better, {"model.product": False}, [Point(1, 0.71, 0.3)])
    failed = with_option(equal, {"model.interests": 16}, [])
    assert (failed.changes, failed.auc) == (better.changes, better.auc)
    assert [one.kept for one in failed.tried] == [True, False, False]


def test_options_are_tried_one_by_one_at_the_chosen_rate_of_each_model(
    make_plan: Callable[..., Plan],
) -> None:
    options: dict[str, list[Changes]] = {
        "mind": [{"model.interests": 8}, {"model.positions": True}],
        "mfn": [{"embeddings.dimension": 4}],
    }
    of = dataclasses.replace(make_plan("one", mind=NAMED_MODELS["mind"]), options=options)
    assert of.rounds == 2
    choices = {
        "base": Choice(0.03, 1, 0.6, 0.6),
        "mind": Choice(0.01, 1, 0.6, 0.6, {"model.interests": 8}),
        "mfn": Choice(0.02, 1, 0.6, 0.6),
    }
    first, second = (option_curves(of, choices, place) for place in range(2))
    assert set(first) == {"mind", "mfn"}
    assert set(second) == {"mind"}
    option, seeds = second["mind"]
    assert option == {"model.positions": True}
    assert [one.settings.train.seed for one in seeds] == list(SEEDS)
    for one in seeds:
        model = one.settings.models["mind"]
        assert isinstance(model, MindSettings)
        assert (model.interests, model.positions) == (8, True)
        assert one.settings.train.learning_rate == 0.01
        assert one.settings.date == of.real.date - EARLIER
    # Another E has a root of its own, whose E and centers are learnt before anything is chosen.
    roots = {one.settings.root for _, seeds in first.values() for one in seeds}
    assert len(roots) == 2 * len(SEEDS)
    assert {one.root for one in pretrainings(possible_curves(of))} >= roots
    with pytest.raises(ValueError, match="no_such_setting"):
        option_curves(
            dataclasses.replace(of, options={"mind": [{"model.no_such_setting": 1}]}), choices, 0
        )


def test_a_variant_takes_kept_options_but_not_for_what_it_varies(
    make_plan: Callable[..., Plan],
) -> None:
    of = make_plan(
        "one",
        mfn_sharp=MfnSettings(similarity_interests=3, centers_norm=4.0),
        mfn_without_combination=MfnWithoutCombinationSettings(similarity_interests=3),
        mfn_other_e=MfnSettings(similarity_interests=3),
    )
    variants = {
        **{name: Variant("mfn") for name in ("mfn_sharp", "mfn_without_combination")},
        "mfn_other_e": Variant("mfn", {"embeddings.dimension": 4}),
    }
    of = dataclasses.replace(of, variants=variants)
    kept = {
        "model.similarity_interests": 5, "model.centers_norm": 0.3, "model.readouts": "sum"
    }  # fmt: skip
    choices = {**CHOICES, "mfn": Choice(0.01, 2, 0.6, 0.6, kept)}
    made = {name: seeds[1].settings for name, seeds in finals(of, choices).items()}
    varied = made["mfn_sharp"].models["mfn_sharp"]
    assert isinstance(varied, MfnSettings)
    assert (varied.similarity_interests, varied.centers_norm, varied.readouts) == (5, 4.0, "sum")
    without = made["mfn_without_combination"].models["mfn_without_combination"]
    assert isinstance(without, MfnWithoutCombinationSettings)
    assert (without.similarity_interests, without.centers_norm) == (5, 0.3)
    own_rate = dataclasses.replace(
        of,
        variants={},
        options_of=dict.fromkeys(variants, "mfn"),
    )
    rates = {**choices, **{name: Choice(0.05, 1, 0.6, 0.6) for name in variants}}
    (final, _) = finals(own_rate, rates)["mfn_sharp"].values()
    assert final.settings.train.learning_rate == 0.05
    assert final.settings.models["mfn_sharp"] == varied
    assert made["mfn_other_e"].embeddings.dimension == 4
    assert made["mfn_other_e"].root != made["mfn"].root
    assert made["mfn_sharp"].root == made["mfn"].root


def test_curves_by_step_have_one_rate_and_differ_only_in_what_they_start_from(
    make_plan: Callable[..., Plan],
) -> None:
    of = make_plan("one", mfn_without_pretrain=NAMED_MODELS["mfn_without_pretrain"])
    choice = Choice(0.01, 2, 0.6, 0.6, {"model.readouts": "sum"})
    made = curves_by_step(of, ["mfn", "mfn_without_pretrain"], "mfn", choice)
    assert set(made) == {"mfn", "mfn_without_pretrain"}
    for name, seeds in made.items():
        assert [one.settings.train.seed for one in seeds] == list(SEEDS)
        for one in seeds:
            assert (one.parts, one.settings.train.learning_rate) == (PARTS, 0.01)
            assert one.settings.models[name].model_dump()["readouts"] == "sum"
            assert one.settings.date == of.real.date - EARLIER


def test_choices_of_another_plan_are_cut_to_the_epochs_of_this_one(
    make_plan: Callable[..., Plan],
) -> None:
    of = dataclasses.replace(make_plan("one"), earlier=None)
    choices = {**CHOICES, "mfn": Choice(0.01, 9, 0.6, 0.6)}
    made = finals(of, choices)
    assert made["mfn"][1].settings.train.epochs == of.real.compare.max_epochs
    with pytest.raises(ValueError, match="earlier date"):
        curves(of)


def test_a_final_training_keeps_its_tuned_centers(make_plan: Callable[..., Plan]) -> None:
    of = make_plan("one")
    publish(of)
    made = finals(of, CHOICES)
    for name in ("base", "mfn"):
        made[name][1].run()
    assert made["base"][1].centers() == {}
    tuned = made["mfn"][1].centers()
    start = made["mfn"][1].model().state_dict()
    assert {name.rpartition(".")[2] for name in tuned} == {"centers_Ke"}
    for name, centers_Ke in tuned.items():
        assert centers_Ke.shape == start[name].shape
        assert not centers_Ke.equal(start[name])


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
        choices = {**CHOICES, "base": Choice(0.02, 1, 0.6, 0.6)}
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


def test_a_variant_with_fewer_seeds_is_compared_with_the_same_seeds_of_the_others(
    make_plan: Callable[..., Plan],
) -> None:
    of = make_plan("one", mfn_sharp=MfnSettings(similarity_interests=3, centers_norm=4.0))
    of = dataclasses.replace(of, variants={"mfn_sharp": Variant("mfn", seeds=1)})
    publish(of)
    made = finals(of, CHOICES)
    assert list(made["mfn_sharp"]) == list(SEEDS[:1])
    for one in (one for seeds in made.values() for one in seeds.values()):
        one.run()
    found = results(made, "base")
    labels = read_candidates(made["base"][1].splits.folder).labels_n
    first = {name: roc_auc_score(labels, seeds[1].scores()) for name, seeds in made.items()}
    both = {
        name: roc_auc_score(labels, np.mean([one.scores() for one in made[name].values()], axis=0))
        for name in ("base", "mfn")
    }
    assert found.difference("mfn_sharp", "mfn").value == pytest.approx(
        first["mfn_sharp"] - first["mfn"]
    )
    assert found.difference("mfn", "base").value == pytest.approx(both["mfn"] - both["base"])
    gain = 100 * ((first["mfn_sharp"] - 0.5) / (first["base"] - 0.5) - 1)
    assert found.of_models["mfn_sharp"].relaimpr.value == pytest.approx(gain)


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
