"""Purity of centers by the shop's truth, against plain loops over pairs of behaviours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from mfn.indices import FIRST_INDEX
from mfn.models.settings import NAMED_MODELS, MfnSettings
from mfn.settings import Settings, SimulateSettings
from mfn.simulator.shop import catalogue, customers
from mfn.splits.published import Splits
from mfn.trials.plan import finals
from mfn.trials.trial import Final, rows_of_test
from study.purity import FINE, purities
from tests.trials.pretrained import CHOICES, plan, publish

USERS = 7
INDICES = pa.list_(pa.int32())
Pair = tuple[int, int]


def pairs_of(shop: SimulateSettings, user: str) -> list[Pair]:
    """The interests of a customer: pairs of a colour and a material."""
    who = customers(shop.seed, np.array([int(user[1:])]))
    real = int(who.interests_R[0])
    return list(zip(who.colours_RJ[0][:real], who.materials_RJ[0][:real], strict=True))


def numbers_by_pair(shop: SimulateSettings) -> dict[Pair, int]:
    """For each pair, the number of an item that has it."""
    numbers = np.arange(shop.items)
    known = catalogue(shop.items, shop.seed).items(numbers)
    return dict(zip(zip(known.colour, known.material, strict=True), numbers, strict=True))


def become_a_shop(settings: Settings) -> None:
    """Give users, items and histories of the splits ids and interests of the simulated shop.

    Most behaviours serve one of the user's interests.
    """
    shop, random = settings.simulate, np.random.default_rng(1)
    users = [f"u{number}" for number in range(USERS)]
    pairs = {user: pairs_of(shop, user) for user in users}
    every = [pair for of_user in pairs.values() for pair in of_user]
    folder, number_of = Path(Splits.published(settings).folder), numbers_by_pair(shop)
    (path,) = folder.glob("items/*.parquet")
    items = pq.read_table(path)
    pair_of_row = [every[row % len(every)] for row in range(len(items))]
    keys = [None if row < FIRST_INDEX else f"i{number_of[pair]}" for row, pair in
            enumerate(pair_of_row)]  # fmt: skip
    replace(path, items, key=pa.array(keys))
    for path in folder.glob("test/*.parquet"):
        rows = pq.read_table(path)
        own = [users[int(name.split()[1])] for name in rows.column("user_id").to_pylist()]
        histories = []
        for user, history in zip(own, rows.column("history").to_pylist(), strict=True):
            served = [
                row for row in range(FIRST_INDEX, len(items)) if pair_of_row[row] in pairs[user]
            ]
            histories.append(
                [
                    int(random.choice(served)) if item and random.random() < 0.8 else item
                    for item in history
                ]
            )
        replace(path, rows, user_id=pa.array(own), history=pa.array(histories, INDICES))


def replace(path: Path, table: pa.Table, **columns: pa.Array) -> None:
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), name, values)
    pq.write_table(table, path, row_group_size=max(len(table), 1))


def naive(final: Final, centers_Ke: torch.Tensor) -> tuple[float, float]:
    """Shares of pairs with one nearest center: of the same interest, and of different ones."""
    shop = final.settings.simulate
    rows = [row for file in rows_of_test(final.splits.folder) for row in file.to_pylist()]
    encoder = final.model().encoder
    (path,) = Path(final.splits.folder).glob("items/*.parquet")
    keys = pq.read_table(path).column("key").to_pylist()
    number_of_row = [int(key[1:]) if key else 0 for key in keys]
    together: dict[bool, list[bool]] = {True: [], False: []}
    for user in sorted({row["user_id"] for row in rows}):
        history = next(row["history"] for row in rows if row["user_id"] == user)
        pairs = pairs_of(shop, user)
        steps = []
        for item in (item for item in history if item):
            known = catalogue(shop.items, shop.seed).items(np.array([number_of_row[item]]))
            pair = (known.colour[0], known.material[0])
            vector_e = encoder.frozen_vectors(torch.tensor([item]))[FINE][0]
            if pair in pairs:
                steps.append((pairs.index(pair), int((centers_Ke @ vector_e).argmax())))
        for place, (interest, center) in enumerate(steps):
            for other_interest, other_center in steps[:place]:
                together[interest == other_interest].append(center == other_center)
    return float(np.mean(together[True])), float(np.mean(together[False]))


def test_purity_before_and_after_the_training_is_that_of_all_pairs(
    make_settings: Callable[..., Settings],
) -> None:
    of = plan(
        make_settings(
            embeddings={"dimension": 8},
            train={"batch_requests": 16},
            models={"base": NAMED_MODELS["base"], "mfn": MfnSettings(similarity_interests=3)},
        )
    )
    publish(of)
    become_a_shop(of.real)
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
