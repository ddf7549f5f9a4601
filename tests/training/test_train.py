"""The job `train`: it skips published models, and warm-starts from an earlier day's model."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pyspark.sql import SparkSession
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from mfn import job, storage
from mfn.errors import Unreadable
from mfn.models import artifact
from mfn.models.artifact import WrongArtifact
from mfn.models.embedding import fields_of
from mfn.pretraining.embeddings import pretrain_embeddings
from mfn.pretraining.published import current_frozen
from mfn.settings import Settings
from mfn.splits.published import Splits
from mfn.training.train import train
from tests.synthetic import CONTEXT_FIELDS, SIZES, USER_FIELDS, publish_splits, publish_vocabularies

ROWS = {"pretraining": [40], "pretraining_validation": [20], "train": [40, 20], "test": [30]}
MORE = {"category": 4, "entity": 3}
NEXT_DAY = datetime.timedelta(days=1)
ALMOST_NOTHING = 1e-30


@pytest.fixture
def make_day(make_settings: Callable[..., Settings]) -> Callable[..., Settings]:
    """Settings of a day with the model Base and a learning rate too small to change a parameter."""

    def make(after: datetime.timedelta = datetime.timedelta(), **sections: Any) -> Settings:
        train_settings = {"learning_rate": ALMOST_NOTHING, **sections.pop("train", {})}
        settings = make_settings(
            models={"base": {}},
            embeddings={"max_epochs": 1, "dimension": 8},
            train=train_settings,
            **sections,
        )
        return settings.model_copy(update={"date": settings.date + after})

    return make


def published(settings: Settings) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and description of the published model."""
    folder = storage.current(settings.layout.model("base"), "train")
    return artifact.read_tensors(folder), storage.read_json(f"{folder}/{storage.MODEL}")


def trained(spark: SparkSession, settings: Settings, more: dict[str, int]) -> dict[str, Tensor]:
    """Train on a synthetic day whose vocabularies have `more` entries; give the tensors."""
    publish_splits(settings, ROWS, more=more)
    pretrain_embeddings(spark, settings)
    train(spark, settings)
    return published(settings)[0]


def test_a_published_model_is_skipped(
    spark: SparkSession, make_day: Callable[..., Settings]
) -> None:
    day = make_day()
    trained(spark, day, {})
    description = published(day)[1]
    assert train(spark, day) == {"rows": 0, "workers": 1, "models_skipped": 1}
    assert published(day)[1] == description
    both = make_day().model_copy(update={"models": {**day.models, "other": day.models["base"]}})
    counts = train(spark, both)
    assert (counts["rows"], counts["models_skipped"]) == (60, 1)
    assert published(day)[1] == description
    # With other settings, or with --force, it is trained again.
    for other in (make_day(train={"seed": 3}), make_day(force=True)):
        assert train(spark, other)["rows"] == 60
        assert published(day)[1] != description
        description = published(day)[1]


def test_a_model_starts_at_the_frozen_embedding_of_its_day(
    spark: SparkSession, make_day: Callable[..., Settings]
) -> None:
    day = make_day()
    starts = fields_of(trained(spark, day, {})["embedding.weight"], sizes({}))
    E = artifact.read_pretrained(current_frozen(day, Splits.published(day))).start
    at_random = day.models["base"].model_copy(update={"start_at_pretrained": False})
    train(spark, day.model_copy(update={"models": {"base": at_random}}))
    control = fields_of(published(day)[0]["embedding.weight"], sizes({}))
    for field, learnt in E.learnt.items():
        assert learnt.any(), field
        assert torch.equal(starts[field][learnt], E.vectors[field][learnt]), field
        assert torch.equal(starts[field][~learnt], control[field][~learnt]), field
        assert not torch.equal(control[field][learnt], E.vectors[field][learnt]), field


def test_settings_that_change_no_parameter_do_not_train_again(
    spark: SparkSession, make_day: Callable[..., Settings]
) -> None:
    def day(**own: Any) -> Settings:
        force = own.pop("force", False)
        return make_day(train={"learning_rate": 0.02, **own}, force=force)

    before = trained(spark, day(), {})
    assert job.run(train, spark, day()).outcome == "done"
    without_change: list[dict[str, Any]] = [
        {"stall_seconds": 7.0}, {"tensorboard": True}, {"table": "sharded"}, {"only": ("base",)}
    ]  # fmt: skip
    for change in without_change:
        assert train(spark, day(**change))["rows"] == 0, change
        if "only" not in change:  # it makes another part of the output, which has its own record
            assert job.run(train, spark, day(**change)).outcome == "skipped", change
        # Trained again they give the same, and so need not.
        assert train(spark, day(**change, force=True))["rows"] == 60
        now = published(day())[0]
        assert all(torch.equal(now[name], before[name]) for name in before), change
    # The control: these change parameters.
    for change in ({"learning_rate": 0.03}, {"epochs": 2}, {"batch_requests": 7}, {"seed": 3}):
        assert train(spark, day(**change))["rows"] != 0, change
        now = published(day())[0]
        assert any(not torch.equal(now[name], before[name]) for name in before), change
        before = now


def test_train_only_trains_one_model_and_a_later_run_trains_the_rest(
    spark: SparkSession, make_day: Callable[..., Settings]
) -> None:
    day = make_day()
    both = {**day.models, "other": day.models["base"]}
    publish_splits(day, ROWS)
    pretrain_embeddings(spark, day)
    one = day.model_copy(
        update={"models": both, "train": day.train.model_copy(update={"only": ("other",)})}
    )
    every = day.model_copy(update={"models": both})
    assert train.claim(one).path != train.claim(every).path
    assert job.run(train, spark, one).counts["rows"] == 60
    assert not storage.exists(f"{day.layout.model('base')}/{storage.POINTER}")
    assert job.run(train, spark, one).outcome == "skipped"
    counts = job.run(train, spark, every).counts
    assert (counts["rows"], counts["models_skipped"]) == (60, 1)
    assert storage.exists(f"{day.layout.model('base')}/{storage.POINTER}")


def test_a_warm_start_copies_yesterdays_parameters_and_draws_rows_for_new_ids(
    spark: SparkSession, make_day: Callable[..., Settings]
) -> None:
    yesterday = make_day(train={"learning_rate": 0.02})
    before = trained(spark, yesterday, {})
    today = make_day(NEXT_DAY, train={"warm_start": True})
    publish_vocabularies(spark, today, MORE)
    now = trained(spark, today, MORE)
    cold = make_day(NEXT_DAY)
    train(spark, cold)
    without, description = published(cold)
    assert description["started_from"] is None

    old = fields_of(before["embedding.weight"], sizes({}))
    new = fields_of(now["embedding.weight"], sizes(MORE))
    control = fields_of(without["embedding.weight"], sizes(MORE))
    for field, rows in old.items():
        assert torch.equal(new[field][: len(rows)], rows), field
        assert len(new[field]) == len(rows) + MORE.get(field, 0)
        assert new[field][len(rows) :].ne(0).all()
    assert not torch.equal(control["category"][: len(old["category"])], old["category"])
    for name in before:
        if name != "embedding.weight":
            assert torch.equal(now[name], before[name]), name
    assert any(not torch.equal(without[name], before[name]) for name in before)


def sizes(more: dict[str, int]) -> dict[str, int]:
    """Vocabulary size of every field, with `more` entries."""
    items = {name: size + more.get(name, 0) for name, size in SIZES.items()}
    return {**items, "user.age": USER_FIELDS["age"], "context.device": CONTEXT_FIELDS["device"]}


def test_a_warm_start_without_an_earlier_model_equals_a_cold_start(
    spark: SparkSession, make_day: Callable[..., Settings]
) -> None:
    cold, warm = make_day(), make_day(train={"warm_start": True})
    one = trained(spark, cold, {})
    train(spark, warm)
    other, description = published(warm)
    assert description["train_settings"]["warm_start"]
    assert description["started_from"] is None
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda description: description["settings"].update(attention_units=5),
            r"made with attention_units of 5",
        ),
        (
            lambda description: description["schema"]["vocabularies"]["brand"].update(
                fingerprint="another"
            ),
            r"made with the vocabulary brand of .*another.*, which is now .*'size': 9",
        ),
        (
            lambda description: description["schema"]["vocabularies"]["price"].update(size=9),
            r"made with the vocabulary price of .*'size': 9.*, which is now .*'size': 7",
        ),
        (
            lambda description: description["schema"].update(user_fields=[]),
            r"made with user_fields of \[\]",
        ),
        (
            lambda description: description.update(dimension=16),
            r"embeddings.dimension of 16, which is now 8",
        ),
    ],
)
def test_an_earlier_model_that_does_not_fit_is_refused_before_training(
    spark: SparkSession,
    make_day: Callable[..., Settings],
    change: Callable[[dict[str, Any]], None],
    message: str,
) -> None:
    yesterday = make_day()
    trained(spark, yesterday, {})
    today = make_day(NEXT_DAY, train={"warm_start": True})
    publish_vocabularies(spark, today, MORE)
    publish_splits(today, ROWS, more=MORE)
    pretrain_embeddings(spark, today)
    folder = storage.current(yesterday.layout.model("base"), "train")
    file = Path(folder, storage.MODEL)
    original = file.read_text()
    description = json.loads(original)
    change(description)
    file.write_text(json.dumps(description))
    with pytest.raises(WrongArtifact, match=message):
        train(spark, today)
    assert not storage.exists(f"{today.layout.model('base')}/{storage.POINTER}")
    file.write_text(original)  # control: unchanged, the model is accepted
    assert train(spark, today)["rows"] == 60
    assert Splits.published(today).manifest["vocabularies"]["category"]["size"] == 16


def test_tensorboard_files_hold_the_loss_and_are_written_only_if_asked_for(
    spark: SparkSession, make_day: Callable[..., Settings]
) -> None:
    day = make_day(train={"tensorboard": True, "batch_requests": 2, "epochs": 2})
    trained(spark, day, {})
    curves = EventAccumulator(day.layout.tensorboard("base")).Reload()
    assert curves.Tags()["scalars"] == [
        "loss", "candidates_per_second", "wait_share", "communication_share"
    ]  # fmt: skip
    losses = curves.Scalars("loss")
    assert [one.step for one in losses] == [10, 20, 30, 40, 50, 60]
    # Nothing is learnt at this rate, so both epochs have the same mean loss. The tolerance is for
    # batches with different numbers of candidates.
    stats = published(day)[1]["train"]
    assert sum(one.value for one in losses) / 6 == pytest.approx(stats["loss"], rel=0.05)
    without = make_day(NEXT_DAY)
    trained(spark, without, {})
    assert not Path(without.layout.tensorboard("base")).exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_damaged_file_of_the_rows_is_refused_by_name_before_the_workers_start(
    spark: SparkSession, make_day: Callable[..., Settings], workers: int
) -> None:
    day = make_day(train={"num_workers": workers})
    folder = publish_splits(day, ROWS)
    pretrain_embeddings(spark, day)
    good, other = (Path(folder, "train", f"part-0000{n}.parquet") for n in (0, 1))
    content = good.read_bytes()
    without_footer = content[:-40]
    for damaged, problem in (
        (content[:-20], "cannot be read as Parquet"),
        (b"", "cannot be read as Parquet"),
        (b"x" * len(content), "cannot be read as Parquet"),
        (without_footer + b"x" * 32 + content[-8:], "cannot be read as Parquet"),
        (other.read_bytes(), "expected 40 rows, .* got 20"),
        (None, "No such file"),
    ):
        good.unlink() if damaged is None else good.write_bytes(damaged)
        expected = rf"train/{good.name}: .*{problem}[^\n]*\n.*jobs/build_splits\.py --force"
        with pytest.raises(Unreadable, match=expected):
            job.run(train, spark, day)
    assert not storage.exists(f"{day.layout.model('base')}/{storage.POINTER}")
    good.write_bytes(content)
    if workers == 1:  # control; `tests/end_to_end` trains with two
        assert train(spark, day)["rows"] == 60


def test_a_damaged_file_of_the_pretraining_rows_is_refused_by_name(
    spark: SparkSession, make_day: Callable[..., Settings]
) -> None:
    day = make_day()
    folder = publish_splits(day, ROWS)
    for split in ("pretraining", "pretraining_validation"):
        file = Path(folder, split, "part-00000.parquet")
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2])
        with pytest.raises(Unreadable, match=rf"{split}/{file.name}: cannot be read as Parquet"):
            pretrain_embeddings(spark, day)
        file.write_bytes(content)
    assert pretrain_embeddings(spark, day)
