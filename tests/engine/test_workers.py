"""Two real Horovod processes do together what one does alone on all their rows.

They are launched once, and do all that is asked of them one after the other.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

import cloudpickle
import pytest
import torch
from pyspark.sql import SparkSession

from mfn.engine.feed import Feed
from mfn.engine.horovod_workers import launch
from mfn.engine.shards import shards
from mfn.engine.trainer import Schedule, Trainer
from mfn.engine.workers import SingleWorker, Workers
from mfn.models.ranker import Ranker
from mfn.models.settings import MfnSettings
from mfn.settings import Settings
from mfn.splits.published import Splits
from tests.conftest import RUN_DATE
from tests.engine import sharded
from tests.synthetic import publish_splits

SCHEDULE = Schedule(learning_rate=0.02, batch_requests=1000, seed=3, date="2026-03-08")
UNEVEN = [100, 40, 30]
"""Dealt to two workers as 100 and 70 rows."""


class LoadedIn:
    """Pickled here, it is the id of the process that loads it."""

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        return os.getpid, ()


def made(splits: Splits, seed: int) -> Ranker:
    return Ranker(MfnSettings(), splits.features, splits.item_indices(), 8, 0.2, seed)


def gradients(workers: Workers, splits: Splits, batch_rows: int) -> dict[str, torch.Tensor]:
    """Averaged gradients of one step in which each worker takes its first `batch_rows` rows."""
    model = made(splits, seed=1)
    dealt = shards(splits.files("train"), "2026-03-08", 0, workers.size, seed=3)
    batch = next(Feed(user_fields=1, context_fields=1).epoch(dealt[workers.rank], batch_rows))
    model.loss(batch).backward()
    weight = int(batch.candidate_count_B.sum())
    told = workers.average_gradients(list(model.parameters()), weight, [1.0, workers.rank])
    assert told[1:] == [workers.size, sum(range(workers.size))]
    found = {n: p.grad.to_dense() for n, p in model.named_parameters() if p.grad is not None}
    table = model.embedding.weight.grad
    assert table is not None
    indices = table._indices()[0]
    found["sparse"] = torch.tensor([float(table.is_sparse), len(indices) - len(indices.unique())])
    return {**found, "total": torch.tensor(told[:1])}


def digest(tensor: torch.Tensor) -> float:
    """Of all bits, in their order; small enough for a number that workers add up."""
    content = tensor.detach().contiguous().numpy().tobytes()
    return float(int.from_bytes(hashlib.blake2b(content, digest_size=6).digest(), "big"))


def digests(workers: Workers, tensors: Mapping[str, torch.Tensor]) -> dict[str, list[float]]:
    """Of each tensor what it is on every worker."""
    mine = [digest(tensor) for tensor in tensors.values()]
    of_workers = [
        workers.sum(mine if rank == workers.rank else [0.0] * len(mine))
        for rank in range(workers.size)
    ]
    return dict(zip(tensors, map(list, zip(*of_workers, strict=True)), strict=True))


def together(workers: Workers, splits: Splits, folder: str) -> dict[str, Any]:
    torch.set_num_threads(1)
    trainer = Trainer(made(splits, seed=1 + workers.rank), SCHEDULE, workers)
    start = digests(workers, trainer.model.state_dict())
    small = Trainer(made(splits, seed=1), Schedule(0.02, 16, 3, "2026-03-08"), workers)
    account = small.epoch(splits.files("train"), 0, "mfn")
    return {
        "gradients": gradients(workers, splits, 1000),
        "start": start,
        "end": digests(workers, small.model.state_dict()),
        "account": account,
        "log_loss": small.log_loss(splits.files("test")),
        "talked": workers.communication_seconds,
        "sum": workers.sum([1.0, workers.rank]),
        "state": small.model.state_dict(),
        "loaded_in": LoadedIn(),
        "sharded": sharded.together(workers, splits, folder),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("two"))


@pytest.fixture(scope="module")
def splits(folder: str) -> Splits:
    settings = Settings(root=folder, date=RUN_DATE)
    publish_splits(settings, {"train": UNEVEN, "test": [60, 20]})
    return Splits.published(settings)


@pytest.fixture(scope="module")
def of_one(splits: Splits, folder: str) -> dict[str, torch.Tensor]:
    return sharded.alone(splits, folder)


@pytest.fixture(scope="module")
def found(
    spark: SparkSession, splits: Splits, of_one: dict[str, torch.Tensor], folder: str
) -> tuple[Splits, dict[str, Any]]:
    by_value = (sys.modules[__name__], sharded)
    for module in by_value:
        cloudpickle.register_pickle_by_value(module)
    try:
        return splits, launch(partial(together, splits=splits, folder=folder), 2)
    finally:
        for module in by_value:
            cloudpickle.unregister_pickle_by_value(module)


def test_gradients_of_two_workers_are_those_of_one_with_all_rows(
    found: tuple[Splits, dict[str, Any]],
) -> None:
    splits, result = found
    two = result["gradients"]
    assert isinstance(two, dict)
    one = gradients(SingleWorker(), splits, 1000)
    assert two["sparse"].tolist() == [1.0, 0.0]  # still sparse, and each row once
    assert two.keys() == one.keys()
    for name in one:
        torch.testing.assert_close(two[name], one[name], msg=name, atol=1e-6, rtol=1e-4)


def test_workers_begin_and_end_with_the_same_parameters(
    found: tuple[Splits, dict[str, Any]],
) -> None:
    splits, result = found
    names = made(splits, seed=1).state_dict().keys()
    for moment in ("start", "end"):
        assert result[moment].keys() == names
        differ = [name for name, (one, other) in result[moment].items() if one != other]
        assert differ == [], moment
    assert all(result["end"][name][0] == digest(result["state"][name]) for name in names)
    assert result["start"]["embedding.weight"] != result["end"]["embedding.weight"]


def test_a_digest_tells_tensors_apart_that_have_the_same_sum() -> None:
    """The control: workers that hold the same numbers in another order are found out."""
    one = torch.arange(6.0).reshape(2, 3)
    for other in (one.flip(0), one.flip(1), one + torch.tensor([[1.0, -1.0, 0.0]])):
        assert other.sum() == one.sum()
        assert digest(other) != digest(one)
    assert digest(one.clone()) == digest(one)


def test_a_worker_that_runs_out_of_rows_takes_the_agreed_steps(
    found: tuple[Splits, dict[str, Any]],
) -> None:
    splits, result = found
    account = result["account"]
    assert account.steps == 7  # 100 rows in batches of 16; the other worker has 70
    assert account.requests == sum(UNEVEN)
    assert account.candidates == splits.manifest["splits"]["train"]["candidates"]
    assert 0 < account.communication_share < 1


def test_log_loss_is_that_of_one_process(found: tuple[Splits, dict[str, Any]]) -> None:
    splits, result = found
    model = made(splits, seed=9)
    model.load_state_dict(result["state"])
    alone = Trainer(model, SCHEDULE, SingleWorker()).log_loss(splits.files("test"))
    assert result["log_loss"] == pytest.approx(alone, rel=1e-6)


def test_sums_are_over_all_workers(found: tuple[Splits, dict[str, Any]]) -> None:
    assert found[1]["sum"] == [2.0, 1.0]


def test_no_process_on_the_way_loads_what_the_workers_give(
    found: tuple[Splits, dict[str, Any]],
) -> None:
    """Torch is known to a task of Spark's after 3 s only."""
    assert found[1]["loaded_in"] == os.getpid()


def test_a_sharded_table_ends_as_a_replicated_one(
    found: tuple[Splits, dict[str, Any]], of_one: dict[str, torch.Tensor], folder: str
) -> None:
    """Three workers try it in `test_sharding`."""
    splits, result = found
    sharded.check(result["sharded"], of_one, splits, folder, 2)


def test_one_worker_runs_here_without_horovod() -> None:
    assert launch(lambda workers: (workers.rank, workers.size), 1) == (0, 1)
