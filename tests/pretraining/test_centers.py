"""The job `train_centers`: entropies compared with plain loops, the descent, the sample of users.

Legend: B users, N history steps, K centers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession
from torch import Tensor

from mfn import storage, tables
from mfn.errors import DataRefused
from mfn.models.artifact import WrongArtifact
from mfn.models.entropies import Marginal, entropies
from mfn.models.settings import NAMED_MODELS, Centers
from mfn.pretraining import centers
from mfn.pretraining.centers import sample_of_users, wanted
from mfn.pretraining.descent import start
from mfn.pretraining.embeddings import pretrain_embeddings
from mfn.pretraining.published import read_centers
from mfn.schema import INTEREST_CENTERS
from mfn.settings import Settings
from mfn.splits.published import Splits
from tests.synthetic import publish_splits, publish_vocabularies


def oracle(P: list[list[list[float]]], marginal: str) -> tuple[float, float]:
    """L_ME and L_SE by eq. 1 and 2, one number at a time; users without behaviours count as 0."""

    def plogp(p: float) -> float:
        return p * math.log(p) if p > 0 else 0.0

    K = len(next(step for user in P for step in user))
    singles, marginals = [], []
    everything = [step for user in P for step in user]
    for user in P:
        n = max(len(user), 1)
        singles.append(-sum(plogp(p) for step in user for p in step) / (K * n))
        q = [sum(step[j] for step in user) / n for j in range(K)]
        marginals.append(-sum(plogp(one) for one in q) / K)
    if marginal == "batch":
        q = [sum(step[j] for step in everything) / len(everything) for j in range(K)]
        return -sum(plogp(one) for one in q) / K, sum(singles) / len(P)
    return sum(marginals) / len(P), sum(singles) / len(P)


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 4), min_size=1, max_size=4).filter(any),
    K=st.integers(1, 4),
    scale=st.sampled_from([0.5, 30.0]),
    marginal=st.sampled_from(["user", "batch"]),
    seed=st.integers(0, 500),
)
def test_entropies_are_equations_1_and_2(
    lengths: list[int], K: int, scale: float, marginal: Marginal, seed: int
) -> None:
    random = torch.Generator().manual_seed(seed)
    N = max(lengths) + 1
    logits_BNK = scale * torch.randn(len(lengths), N, K, generator=random, dtype=torch.double)
    P_BNK = torch.softmax(logits_BNK, -1)
    mask_BN = torch.arange(N) < torch.tensor(lengths)[:, None]
    found = entropies(P_BNK, mask_BN, marginal)
    real = [[P_BNK[b, t].tolist() for t in range(n)] for b, n in enumerate(lengths)]
    expected = oracle(real, marginal)
    assert float(found.marginal) == pytest.approx(expected[0], abs=1e-12)
    assert float(found.single) == pytest.approx(expected[1], abs=1e-12)
    assert float(found.loss) == pytest.approx(expected[1] - expected[0], abs=1e-12)


def test_a_hard_uniform_assignment_has_the_lowest_loss() -> None:
    hard = torch.eye(2, dtype=torch.double)[None]
    mask = torch.ones(1, 2, dtype=torch.bool)
    found = entropies(hard, mask, "user")
    assert float(found.loss) == pytest.approx(-math.log(2) / 2)
    soft = torch.full((1, 2, 2), 0.5, dtype=torch.double)
    assert float(entropies(soft, mask, "user").loss) == pytest.approx(0.0)


def test_the_gradient_is_finite_for_a_hard_assignment() -> None:
    centers_Kd = torch.tensor([[500.0, 0], [0, 500.0]], requires_grad=True)
    frozen_BNd = torch.tensor([[[3.0, 0], [0, 3.0]]])
    P_BNK = torch.softmax(frozen_BNd @ centers_Kd.T, -1)
    entropies(P_BNK, torch.ones(1, 2, dtype=torch.bool), "user").loss.backward()
    assert centers_Kd.grad is not None
    assert torch.isfinite(centers_Kd.grad).all()


def test_initial_centers_are_behaviours_that_lie_far_apart() -> None:
    clusters = torch.tensor([[10.0, 0], [0, 10], [-10, 0]])
    behaviours = torch.cat([clusters + 0.01 * k for k in range(20)])
    chosen = start(behaviours, 3, seed=1)
    assert sorted(int(torch.cdist(c[None], clusters).argmin()) for c in chosen) == [0, 1, 2]
    assert all((behaviours == c).all(dim=1).any() for c in chosen)


def test_all_centers_are_initialised_with_fewer_behaviours_than_centers() -> None:
    assert start(torch.tensor([[1.0, 2.0]]), 3, seed=1).tolist() == [[1.0, 2.0]] * 3


def test_centers_are_learnt_only_for_models_with_pretrained_centers(
    make_settings: Callable[..., Settings],
) -> None:
    with_centers = {
        "mfn": {"similarity_interests": 5},
        "mfn_as_printed": {},
        "mfn_without_fine_level": {"similarity_interests": 6, "centers_marginal": "user"},
        "mfn_without_combination": {"similarity_interests": 5},
        "mfn_with_target_attention": {"similarity_interests": 5, "centers_norm": 2.0},
    }
    without = [name for name in NAMED_MODELS if name not in with_centers]
    models = {**with_centers, **dict.fromkeys(without)}
    assert wanted(make_settings(models=models)) == [
        Centers(5, "batch", 1.0),
        Centers(8, "user", None),
        Centers(6, "user", 1.0),
        Centers(5, "batch", 2.0),
    ]
    assert wanted(make_settings(models=dict.fromkeys(without))) == []


@pytest.fixture
def day(spark: SparkSession, make_settings: Callable[..., Settings]) -> Settings:
    settings = make_settings(
        embeddings={"max_epochs": 1, "dimension": 8},
        centers={"max_steps": 40, "batch_users": 32},
        models={"base": {}, "mfn": {"similarity_interests": 8}, "mfn_as_printed": {}},
    )
    rows = {"pretraining": [60, 50], "pretraining_validation": [30], "train": [40]}
    publish_splits(settings, rows)
    publish_vocabularies(spark, settings)
    pretrain_embeddings(spark, settings)
    return settings


def test_each_user_is_in_the_sample_once_with_the_latest_history(
    spark: SparkSession, day: Settings
) -> None:
    splits = Splits.published(day)
    found = sample_of_users(spark, splits, day.centers)
    rows = spark.read.parquet(f"{splits.folder}/pretraining").where("history_length > 0").collect()
    latest: dict[str, tuple[str, list[int]]] = {}
    for row in rows:
        candidate = (row.request_id, row.history)
        latest[row.user_id] = max(latest.get(row.user_id, candidate), candidate)
    assert sorted(found.history_UN.tolist()) == sorted(history for _, history in latest.values())
    assert found.users == len(latest)
    few = sample_of_users(spark, splits, day.centers.model_copy(update={"sample_users": 3}))
    assert (few.history_UN.shape, few.users) == ((3, 6), len(latest))
    assert {tuple(row) for row in few.history_UN.tolist()} <= {
        tuple(row) for row in found.history_UN.tolist()
    }


def test_the_descent_lowers_the_loss_and_its_centers_are_published(
    spark: SparkSession, day: Settings
) -> None:
    counts = centers.train_centers(spark, day)
    folder = storage.current(day.layout.centers, "train_centers")
    manifest = storage.read_json(f"{folder}/{storage.MANIFEST}")
    assert manifest["sampled_users"] == manifest["users"] == counts["rows"] == counts["users"]
    of_fine = manifest["centers"]["fine.8.batch.1"]
    assert (of_fine["level"], of_fine["interests"], of_fine["held_norm"]) == ("fine", 8, 1)
    assert of_fine["L_E"] == pytest.approx(of_fine["L_SE"] - of_fine["L_ME"])
    assert of_fine["L_E"] < of_fine["L_E_at_start"]
    assert of_fine["L_E"] == counts["L_E_fine.8.batch.1"]
    assert of_fine["norm"] == pytest.approx(1, abs=0.01)
    assert sum(of_fine["behaviour_share"]) == pytest.approx(1, abs=1e-3)
    assert manifest["centers"]["fine.8.user.free"]["norm"] > 1.5
    found = read_centers(day, Splits.published(day), Centers(8, "batch", 1.0))
    assert {name: tuple(t.shape) for name, t in found.items()} == {
        "category": (8, 32),
        "fine": (8, 16),
    }
    with pytest.raises(WrongArtifact, match=r"expected the centers category\.5\.batch\.1"):
        read_centers(day, Splits.published(day), Centers(5, "batch", 1.0))


def test_pretraining_rows_without_any_history_are_refused(
    spark: SparkSession, make_settings: Callable[..., Settings]
) -> None:
    settings = make_settings(embeddings={"max_epochs": 1, "dimension": 8})
    rows = {"pretraining": [20], "pretraining_validation": [10]}
    publish_splits(settings, rows, longest_history=0)
    pretrain_embeddings(spark, settings)
    with pytest.raises(DataRefused, match="expected users with a history"):
        centers.train_centers(spark, settings)


def test_the_same_seed_gives_the_same_centers(spark: SparkSession, day: Settings) -> None:
    def trained() -> dict[str, Tensor]:
        centers.train_centers(spark, day)
        return read_centers(day, Splits.published(day), Centers(8, "batch", 1.0))

    one, other = trained(), trained()
    assert all(torch.equal(one[level], other[level]) for level in one)


def test_profiles_of_the_centers_are_in_the_delta_table_and_in_the_manifest(
    spark: SparkSession, day: Settings
) -> None:
    centers.train_centers(spark, day)
    centers.train_centers(spark, day)  # a rerun leaves the same rows
    rows = tables.read(spark, day.root, INTEREST_CENTERS, "train_centers").collect()
    kinds_of_centers = {("batch", 1.0), ("user", None)}
    assert sorted((row.level, row.marginal, row.center) for row in rows) == [
        (level, marginal, center)
        for level in ("category", "fine")
        for marginal in ("batch", "user")
        for center in range(8)
    ]
    assert {(row.marginal, row.norm) for row in rows} == kinds_of_centers
    for level, marginal in product(("category", "fine"), ("batch", "user")):
        of_level = [row for row in rows if (row.level, row.marginal) == (level, marginal)]
        assert sum(row.behaviour_share for row in of_level) == pytest.approx(1)
        assert all((0 < row.user_share <= 1) == bool(row["items"]) for row in of_level)
        assert all((row.mean_weight is None) == (not row["items"]) for row in of_level)
        named = {name for row in of_level for name in [*row["items"], *row.categories, *row.words]}
        kinds = {name.rstrip("0123456789").strip() for name in named}
        assert kinds == {"item", "category", "entity"}
    folder = storage.current(day.layout.centers, "train_centers")
    in_manifest = storage.read_json(f"{folder}/{storage.MANIFEST}")["profiles"]
    in_table = [
        {name: value for name, value in row.asDict().items() if name != "run_date"} for row in rows
    ]
    for side in (in_manifest, in_table):
        side.sort(key=lambda row: (row["level"], row["marginal"], row["center"]))
    assert in_manifest == in_table
