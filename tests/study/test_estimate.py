"""The estimate counts every training that the study may run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from mfn.models.settings import NAMED_MODELS
from mfn.settings import Settings
from mfn.trials.plan import Variant
from study.estimate import REQUESTS, SECONDS, seconds
from tests.synthetic import publish_splits
from tests.trials.pretrained import ROWS, plan


def test_the_estimate_counts_rates_options_seeds_and_curves_by_step(
    make_settings: Callable[..., Settings],
) -> None:
    models = {name: NAMED_MODELS[name] for name in ("base", "mind", "mfn_without_pretrain")}
    of = plan(
        make_settings(models=models),
        options={"mind": [{"model.interests": 8}]},
        variants={"mfn_without_pretrain": Variant("mind", seeds=1)},
    )
    publish_splits(of.real, ROWS)
    # 2 epochs each; 2 rates and an option with 2 seeds; then 2 seeds, and 1 of the variant.
    epochs = 2 * (
        SECONDS["base"] * (2 * 2 + 2) + SECONDS["mind"] * (2 * 2 + 2 + 2) + SECONDS["mfn"] * 1
    )
    per_epoch = sum(ROWS["train"]) / REQUESTS / of.real.compare.max_parallel
    assert seconds(of, []) == pytest.approx(epochs * per_epoch)
    by_step = 2 * 2 * SECONDS["mind"]
    assert seconds(of, ["mind"]) == pytest.approx((epochs + by_step) * per_epoch)
    large = dataclasses.replace(of, earlier=None)
    finals = 2 * (2 * SECONDS["base"] + 2 * SECONDS["mind"] + SECONDS["mfn"])
    assert seconds(large, []) == pytest.approx(finals * per_epoch)
