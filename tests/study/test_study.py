"""What the study writes: the form of its JSON, when it calls a win, and the causes from figures."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from mfn.evaluation.bootstrap import Interval, auc, draw_users, resampled_aucs
from mfn.models.settings import NAMED_MODELS
from mfn.settings import WindowSettings
from mfn.trials.compare import Compared
from mfn.trials.plan import Choice
from mfn.trials.results import Drawn, Result, Results
from mfn.trials.trial import Point
from mfn.windows import windows
from study.causes import ABLATIONS, RIVALS, cause, effects, gains_on_several, unbeaten
from study.data_sets import FULL, MODELS, QUICK, VARIANTS, WITH_GLOVE, Size, data_set, sources
from study.page import as_json, as_markdown, write
from study.run import Studied
from tests.conftest import RUN_DATE

USERS = np.repeat(np.arange(200), 10)
RANDOM = np.random.default_rng(3)
LABELS = RANDOM.integers(0, 2, len(USERS))
NOISE = RANDOM.normal(size=len(USERS))
DRAWS = draw_users(200, 100, seed=1)


def results(signals: Mapping[str, float]) -> Results:
    """Models that see so much of the labels beside the same noise."""
    drawn = {}
    for name, signal in signals.items():
        scores = LABELS * signal + NOISE
        drawn[name] = Drawn(auc(LABELS, scores), resampled_aucs(LABELS, scores, USERS, DRAWS))
    of_models = {
        name: Result(
            name, 3, one.auc, 0.001, one.auc, 4, 0.4, Interval(5.0, 1.0, 9.0), 1000, 2e4, 1e-3, 2
        )
        for name, one in drawn.items()
    }
    return Results("base", of_models, drawn)


EQUAL = dict.fromkeys(MODELS, 0.5)
ABOVE = {**EQUAL, "mfn": 1.0}


def studied(signals: Mapping[str, float], oracle: float | None = None) -> Studied:
    return of(results(signals), oracle)


def of(found: Results, oracle: float | None = None) -> Studied:
    splits, what = ("pretraining", "train", "test"), ("rows", "candidates")
    counts = {f"{split} {one}": 10 for split in splits for one in what}
    return Studied(
        "A shop",
        "Said of it.",
        Compared(
            {name: {1e-3: [Point(1, 0.6, 0.4)]} for name in NAMED_MODELS},
            {name: Choice(1e-3, 1, 0.6) for name in NAMED_MODELS},
            found,
        ),
        oracle,
        {**counts, "users": 200},
        windows(RUN_DATE, WindowSettings()),
        windows(RUN_DATE - datetime.timedelta(days=1), WindowSettings()),
    )


def test_a_win_is_called_only_where_the_interval_excludes_zero() -> None:
    assert unbeaten(results(ABOVE)) == {}
    assert cause(results(ABOVE)) is None
    assert set(unbeaten(results(EQUAL))) == set(RIVALS)
    assert set(unbeaten(results({**ABOVE, "din": 1.2}))) == {"din"}


def test_a_lead_that_draws_of_users_do_not_show_is_no_win() -> None:
    noise = np.random.default_rng(8).normal(size=(2, len(USERS)))
    scores = LABELS * 0.5 + noise
    first, second = (
        Drawn(auc(LABELS, one), resampled_aucs(LABELS, one, USERS, DRAWS)) for one in scores
    )
    ahead, behind = (first, second) if first.auc > second.auc else (second, first)
    found = results(ABOVE)
    found = dataclasses.replace(found, drawn={**found.drawn, "mfn": ahead, "din": behind})
    assert found.difference("mfn", "din").value > 0
    assert "din" in unbeaten(found)


def test_each_variant_is_called_better_worse_or_neither_by_its_interval() -> None:
    found = results({**ABOVE, "mfn_soft": 1.1, "mfn_k8": 0.7, "mfn_k16": 1.0})
    assert {one.variant: one.verdict for one in effects(found)} == {
        **{name: "worse" for name in MODELS if name.startswith("mfn_")},
        "mfn_soft": "better",
        "mfn_k8": "worse",
        "mfn_k16": "no clear difference",
    }
    rows = [row for row in as_markdown({"a": of(found)}, FULL).splitlines() if "mfn_k16 |" in row]
    assert rows == [
        "| interests | mfn_k16 | 16 similarity interests | +0.00 (+0.00 to +0.00) "
        "| no clear difference |"
    ]


def test_what_mfn_is_not_better_than_is_said_in_a_sentence_for_each_verdict() -> None:
    text = cause(results({**ABOVE, "din": 1.2, "mind": 1.0}))
    assert text is not None
    worse, unclear, attention = text.split(". ")
    assert worse.startswith("MFN is worse than `din` (-")
    assert unclear == (
        "MFN is not clearly better or worse than `mind` (+0.00 points of AUC, +0.00 to +0.00)"
    )
    assert "(`mfn_with_target_attention`) is worse than `din` (-" in attention
    with_attention = cause(results({**ABOVE, "din": 1.2, "mfn_with_target_attention": 1.3}))
    assert "(`mfn_with_target_attention`) is better than `din` (+" in str(with_attention)


def test_every_part_is_varied_and_every_variant_is_a_part() -> None:
    assert set(ABLATIONS) >= {
        "E", "centers", "interests", "temperature", "level", "aggregation",
    }  # fmt: skip
    varied = {variant for of_part in ABLATIONS.values() for variant in of_part}
    assert varied == {name for name in MODELS if name.startswith("mfn_")} | {WITH_GLOVE}
    assert set(NAMED_MODELS) <= set(MODELS)
    assert {**VARIANTS}.keys() == MODELS.keys() - NAMED_MODELS.keys()


def test_only_what_gains_on_more_than_one_data_set_asks_for_other_defaults() -> None:
    soft, sharp = results({**ABOVE, "mfn_soft": 1.1}), results({**ABOVE, "mfn_sharp": 1.1})
    assert gains_on_several({"a": soft, "b": sharp}) == {}
    equal = results({**ABOVE, "mfn_soft": 1.0})
    assert gains_on_several({"a": soft, "b": soft, "c": equal}) == {"mfn_soft": ["a", "b"]}
    worse = results({**ABOVE, "mfn_soft": 0.7})
    assert gains_on_several({"a": soft, "b": soft, "c": worse}) == {}


def test_a_gain_that_chance_would_give_one_of_many_variants_asks_for_no_other_default() -> None:
    """Surely above by an interval of its own, and not by one that is wide enough for all."""
    found = results(ABOVE)
    mfn = found.drawn["mfn"]

    def ahead_in(leads_R: np.ndarray) -> Results:
        ahead = Drawn(mfn.auc + 0.002, mfn.aucs_R + leads_R)
        return dataclasses.replace(found, drawn={**found.drawn, "mfn_soft": ahead})

    leads_R = np.full(len(mfn.aucs_R), 0.002)
    always = ahead_in(leads_R)
    leads_R[0] = -0.002  # of 100 draws one
    nearly = ahead_in(leads_R)
    assert nearly.difference("mfn_soft", "mfn").low > 0
    assert gains_on_several({"a": nearly, "b": nearly}) == {}
    assert gains_on_several({"a": always, "b": always}) == {"mfn_soft": ["a", "b"]}


def test_the_json_has_its_form(tmp_path: Path) -> None:
    write({"shop": studied(ABOVE, 0.8), "movielens": studied(EQUAL)}, FULL, tmp_path)
    told = json.loads((tmp_path / "study.json").read_text())
    assert set(told) == {"data_sets", "causes"}
    assert set(told["data_sets"]) == {"shop", "movielens"}
    assert set(told["causes"]) == {"movielens"}
    for of_models in told["data_sets"].values():
        assert set(of_models) >= set(NAMED_MODELS)
        for one in of_models.values():
            assert set(one) == {
                "auc_mean", "auc_std", "logloss_mean", "relaimpr", "relaimpr_low",
                "relaimpr_high", "seeds", "parameters",
            }  # fmt: skip
            assert one["relaimpr_low"] <= one["relaimpr"] <= one["relaimpr_high"]


def test_a_number_that_is_none_is_null_and_no_nan() -> None:
    found = studied(EQUAL)
    one = dataclasses.replace(found.compared.found.of_models["mfn"], auc_std=float("nan"))
    of_one = Results("base", {"mfn": one}, found.compared.found.drawn)
    found = dataclasses.replace(found, compared=dataclasses.replace(found.compared, found=of_one))
    assert as_json({"shop": found})["data_sets"]["shop"]["mfn"]["auc_std"] is None


def test_the_page_has_a_table_for_each_data_set_its_plots_and_what_is_left_out(
    tmp_path: Path,
) -> None:
    page = write({"shop": studied(ABOVE, 0.8)}, FULL, tmp_path)
    assert page == (tmp_path / "study.md").read_text()
    assert "**MFN wins**" in page
    assert "*oracle* | 0.8000" in page
    assert "Left out: no folder was given" in page
    assert "quick form" not in page
    for plot in ("study-shop.svg", "study-shop-choosing.svg"):
        assert f"]({plot})" in page
        assert (tmp_path / plot).read_text().startswith("<svg xmlns")
    for name in NAMED_MODELS:
        assert page.count(f"\n| {name} | ") == 2  # among all data sets, and of the shop
    with_all = {name: studied(EQUAL) for name in ("shop", "movielens", "online_retail")}
    page = as_markdown(with_all, QUICK)
    assert "Left out" not in page
    assert "**MFN does not win.**" in page
    assert "quick form" in page


@pytest.mark.parametrize("size", [FULL, QUICK])
def test_choices_are_made_before_the_real_test_window_on_what_was_learnt_before(size: Size) -> None:
    found = [data_set(one, size) for one in sources("movielens", "retail", "glove", size)]
    assert [one.name for one in found] == ["shop", "movielens", "online_retail"]
    for one in found:
        real, earlier = (windows(d.date, d.windows) for d in (one.plan.real, one.plan.earlier))
        assert earlier.test[1] < real.test[0]
        assert earlier.pretraining_validation[1] < earlier.train[0] <= earlier.train[1]
        if one.name != "shop":  # whose two dates are neighbours
            assert real.pretraining == earlier.pretraining
        assert ("mfn_with_glove" in one.plan.real.models) == (one.name == "online_retail")


def test_the_days_of_online_retail_are_those_that_the_study_promises() -> None:
    plan = data_set(sources("movielens", "retail", None, FULL)[2], FULL).plan
    days = {
        name: windows(one.date, one.windows)
        for name, one in (("real", plan.real), ("earlier", plan.earlier))
    }

    def text(which: str, name: str) -> list[str]:
        return [day.isoformat() for day in getattr(days[which], name)]

    for which in days:
        assert text(which, "history")[0] == "2010-12-01"
        assert text(which, "pretraining_validation")[1] == "2010-12-31"
    assert text("earlier", "train") == ["2011-01-01", "2011-02-15"]
    assert text("earlier", "test") == ["2011-02-16", "2011-02-28"]
    assert text("real", "train") == ["2011-01-01", "2011-02-28"]
    assert text("real", "test") == ["2011-03-01", "2011-03-31"]


def test_online_retail_is_left_out_where_no_folder_is_given() -> None:
    assert [one.name for one in sources("movielens", None, None, FULL)] == ["shop", "movielens"]
