"""The measures of E, against plain loops, and what is warned about."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from pyspark.sql import SparkSession

from mfn.models.batch import Features
from mfn.models.embedding import FrozenEmbedding, ItemTable
from mfn.pretraining.click_model import ClickModel
from mfn.pretraining.measures import (
    NextBehaviours,
    new_to_the_user,
    next_behaviour_auc,
    next_behaviours,
    start_correlation,
    warnings,
)
from mfn.settings import Settings
from mfn.splits.published import Splits
from tests.synthetic import ITEMS, publish_splits


def test_the_next_behaviour_is_the_last_on_an_item_that_is_new_to_the_user() -> None:
    same_item = torch.arange(20)
    same_item[15] = 5  # another version of item 5
    histories = {
        "the last": ([5, 6, 7, 0], [5, 6, 0, 0], [5, 6, 0, 0], 7),
        "repeated": ([5, 6, 7, 6], [5, 0, 0, 0], [5, 6, 0, 0], 7),
        "another version": ([5, 6, 15, 0], [0, 0, 0, 0], [5, 0, 0, 0], 6),
        "seen in pretraining": ([5, 6, 7, 8], [7, 8, 0, 0], [5, 0, 0, 0], 6),
        "all seen": ([5, 6, 7, 0], [6, 7, 0, 0], None, None),
        "nothing before": ([5, 0, 0, 0], [0, 0, 0, 0], None, None),
    }
    history_UN, seen_UN = (torch.tensor([one[at] for one in histories.values()]) for at in (0, 1))
    found = new_to_the_user(history_UN, seen_UN, same_item)
    expected = [one for one in histories.values() if one[3] is not None]
    assert found.earlier_UN.tolist() == [one[2] for one in expected]
    assert found.next_U.tolist() == [one[3] for one in expected]


FIELDS = Features(("item_id",), (), (), {"item_id": 30}, 4)
TABLE = ItemTable(FIELDS, {"item_id": torch.arange(30)}, {"item_id": 0})


def frozen(vectors: torch.Tensor) -> FrozenEmbedding:
    learnt = {"item_id": torch.arange(len(vectors)) >= 3}
    mean, std = torch.zeros(vectors.shape[1]), torch.ones(())
    return FrozenEmbedding({"item_id": vectors}, learnt, {"item_id": mean}, {"item_id": std})


def drawn(seed: int, like_history: bool) -> tuple[FrozenEmbedding, NextBehaviours]:
    """Users of two tastes, whose items lie on two sides; or items that lie anywhere."""
    random = np.random.default_rng(seed)
    vectors = torch.from_numpy(random.normal(size=(30, 2))).float()
    if like_history:
        vectors[3::2, 0] += 4
        vectors[4::2, 0] -= 4
    users = [random.choice(range(3 + user % 2, 30, 2), 5, replace=False) for user in range(40)]
    steps = torch.tensor(np.array(users))
    steps[:10, 3] = 0
    return frozen(vectors), NextBehaviours(steps[:, :4], steps[:, 4])


@pytest.mark.parametrize("like_history", [True, False])
def test_auc_of_the_next_behaviour_is_that_of_plain_loops(like_history: bool) -> None:
    E, users = drawn(4, like_history)
    vectors = E.vectors["item_id"].double().numpy()
    won = pairs = 0.0
    for user, history in enumerate(users.earlier_UN.tolist()):
        mean = np.mean([vectors[item] for item in history if item], axis=0)

        def near(item: int, mean: np.ndarray = mean) -> float:
            lengths = np.linalg.norm(mean) * np.linalg.norm(vectors[item])
            return round(float(mean @ vectors[item] / lengths), 6)

        own = int(users.next_U[user])
        for other, item in enumerate(users.next_U.tolist()):
            if other != user:
                pairs += 1
                won += (near(own) > near(item)) + (near(own) == near(item)) / 2
    (auc,) = next_behaviour_auc(FIELDS, TABLE, E, users).values()
    assert auc is not None
    assert auc == pytest.approx(won / pairs, abs=1e-3)
    assert (auc > 0.7) is like_history


def test_an_embedding_that_says_nothing_is_at_chance() -> None:
    _, users = drawn(4, True)
    assert next_behaviour_auc(FIELDS, TABLE, frozen(torch.zeros(30, 2)), users) == {"fine": 0.5}
    one = NextBehaviours(users.earlier_UN[:1], users.next_U[:1])
    assert next_behaviour_auc(FIELDS, TABLE, frozen(torch.zeros(30, 2)), one) == {"fine": None}


def test_next_behaviours_of_published_splits(
    spark: SparkSession, make_settings: Callable[..., Settings]
) -> None:
    """Items that the user's latest pretraining history has are none."""
    day = make_settings()
    publish_splits(day, {"pretraining": [9], "pretraining_validation": [30], "train": [5]})
    splits = Splits.published(day)
    found = next_behaviours(spark, splits, seed=1)
    latest: dict[str, dict[str, list[int]]] = {"pretraining": {}, "pretraining_validation": {}}
    for split, of_users in latest.items():
        rows = spark.read.parquet(f"{splits.folder}/{split}").orderBy("request_id").collect()
        of_users |= {row.user_id: row.history for row in rows if row.history_length}
    expected = []
    for user, history in sorted(latest["pretraining_validation"].items()):
        seen = latest["pretraining"].get(user, [])
        for step in range(len(history) - 1, 0, -1):
            if history[step] not in [0, *seen, *history[:step]]:
                expected.append((history[:step] + [0] * (len(history) - step), history[step]))
                break
    assert expected
    assert found.earlier_UN.tolist() == [earlier for earlier, _ in expected]
    assert found.next_U.tolist() == [item for _, item in expected]
    assert int(found.next_U.max()) < ITEMS


def test_correlation_with_the_start_tells_what_was_learnt_from_what_was_drawn() -> None:
    random = torch.Generator().manual_seed(1)
    start, learnt = (torch.randn(500, 8, generator=random) for _ in range(2))
    trained = {"hardly": start + 0.1 * learnt, "much": start + 3 * learnt, "none": start.clone()}
    for name in ("hardly", "much"):
        trained[name][:3] = start[:3]  # not met
    click = ClickModel(dict.fromkeys(trained, start), trained, [], [])
    found = start_correlation(click, ["hardly", "much"])
    assert found["table"]["hardly"] > 0.99
    assert found["table"]["much"] == pytest.approx(1 / 10**0.5, abs=0.05)
    assert found["table"]["none"] == 1
    assert all(abs(value) < 0.1 for value in found["E"].values())


def test_bad_measures_are_warned_about_and_good_ones_are_not() -> None:
    good = {
        "start_correlation": {"table": {"item_id": 0.95, "brand": 0.5}, "E": {"brand": 0.1}},
        "covered": {"item_id": 0.6},
        "next_behaviour_auc": {"fine": 0.6, "category": None},
    }
    assert warnings(good) == []
    bad = {
        "start_correlation": {"table": {"item_id": 0.95}, "E": {"item_id": 0.1}},
        "covered": {"item_id": 0.4},
        "next_behaviour_auc": {"fine": 0.52},
    }
    found = " ".join(warnings(bad))
    assert len(warnings(bad)) == 3
    for expected in ("40%", "windows.pretraining_days", "52%", "embeddings.ids", "0.95"):
        assert expected in found
