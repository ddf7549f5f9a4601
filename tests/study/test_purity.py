"""Purity of centers by the shop's truth, against plain loops over pairs of behaviours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from mfn.models.settings import NAMED_MODELS, MfnSettings
from mfn.settings import Settings
from mfn.simulator.shop import catalogue, customers
from mfn.splits.published import Splits
from mfn.trials.plan import finals
from mfn.trials.trial import Final, rows_of_test
from study.purity import FINE, purities
from tests.trials.pretrained import CHOICES, plan, publish

ITEMS = 576


def name_as_the_shop_does(settings: Settings) -> None:
    """Give items and users of the splits the ids of a simulated shop."""
    folder = Path(Splits.published(settings).folder)
    for path in folder.glob("items/*.parquet"):
        table = pq.read_table(path)
        keys = [None if key is None else f"i{7 * row}" for row, key in enumerate(keys_of(table))]
        replace(path, table, "key", keys)
    for path in folder.glob("test/*.parquet"):
        table = pq.read_table(path)
        users = [f"u{name.split()[1]}" for name in table.column("user_id").to_pylist()]
        replace(path, table, "user_id", users)


def keys_of(table: pa.Table) -> list[str | None]:
    keys: list[str | None] = table.column("key").to_pylist()
    return keys


def replace(path: Path, table: pa.Table, name: str, values: list[str | None] | list[str]) -> None:
    table = table.set_column(table.column_names.index(name), name, pa.array(values))
    pq.write_table(table, path, row_group_size=max(len(table), 1))


def naive(final: Final, centers_Ke: torch.Tensor) -> tuple[float, float]:
    """Shares of pairs with one nearest center: of the same interest, and of different ones."""
    shop = final.settings.simulate
    rows = [row for file in rows_of_test(final.splits.folder) for row in file.to_pylist()]
    encoder = final.model().encoder
    together: dict[bool, list[bool]] = {True: [], False: []}
    for user in sorted({row["user_id"] for row in rows}):
        history = next(row["history"] for row in rows if row["user_id"] == user)
        who = customers(shop.seed, np.array([int(user[1:])]))
        real = int(who.interests_R[0])
        pairs = list(zip(who.colours_RJ[0][:real], who.materials_RJ[0][:real], strict=True))
        steps = []
        for item in (item for item in history if item):
            known = catalogue(shop.items, shop.seed).items(np.array([7 * item]))
            pair = (known.colour[0], known.material[0])
            vector_e = encoder.frozen_vectors(torch.tensor([item]))[FINE][0]
            if pair in pairs:
                steps.append((pairs.index(pair), int((centers_Ke @ vector_e).argmax())))
        for place, (interest, center) in enumerate(steps):
            for other_interest, other_center in steps[:place]:
                together[interest == other_interest].append(center == other_center)
    return float(np.mean(together[True])), float(np.mean(together[False]))


def test_purity_before_and_after_the_training_is_that_of_all_pairs(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    of = plan(
        make_settings(
            embeddings={"dimension": 8},
            train={"batch_requests": 16},
            simulate={"items": ITEMS},
            models={"base": NAMED_MODELS["base"], "mfn": MfnSettings(similarity_interests=3)},
        )
    )
    publish(of)
    # With 4 colours and 4 materials, many behaviours serve one of the 2 to 4 interests.
    for place, names in (("COLOURS", "abcd"), ("MATERIALS", "efgh")):
        monkeypatch.setattr(f"mfn.simulator.shop.{place}", tuple(names))
    monkeypatch.setattr("study.purity.MATERIALS", tuple("efgh"))
    monkeypatch.setattr("mfn.simulator.shop.PALETTES", 1)
    monkeypatch.setattr("mfn.simulator.shop.FAMILY", 4)
    monkeypatch.setattr("mfn.simulator.shop.CELLS", 4)
    catalogue.cache_clear()
    name_as_the_shop_does(of.real)
    made = {name: {1: seeds[1]} for name, seeds in finals(of, CHOICES).items()}
    for seeds in made.values():
        seeds[1].run()
    found = purities(made)
    assert set(found) == {"mfn"}
    final = made["mfn"][1]
    name = next(name for name in final.centers() if f".{FINE}." in name)
    start_Ke = dict(final.model().named_parameters())[name].detach()
    for of_time, centers_Ke in (
        (found["mfn"].start, start_Ke),
        (found["mfn"].tuned, final.centers()[name]),
    ):
        assert (of_time.same, of_time.different) == pytest.approx(naive(final, centers_Ke))
    catalogue.cache_clear()
