"""A root in an object store: a real S3 server on this machine, in this process.

What uses fsspec alone is tried here. A whole day needs Hadoop's client for S3, whose jars are too
large for every set-up: see `test_a_day_in_an_object_store`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
import torch
from moto.server import ThreadedMotoServer

from mfn import storage
from mfn.engine.feed import Feed
from mfn.engine.shards import shards
from mfn.errors import Superseded
from mfn.locations import files_at
from mfn.logs import raw, snapshots
from mfn.models import artifact
from mfn.settings import Settings
from mfn.splits.published import Splits
from tests.conftest import RUN_DATE
from tests.end_to_end.test_day import MADE_HERE, PROJECT, STEPS
from tests.raw_logs import DAYS, LAST
from tests.synthetic import publish_splits

BUCKET = "s3a://bucket"
JARS = "S3A_JARS"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """The address of a server with an empty bucket; clients find it in the environment."""
    started = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    started.start()
    host, port = started.get_host_and_port()
    address = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", address)
        patch.setenv("AWS_ACCESS_KEY_ID", "a")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "b")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        files, _ = fsspec.url_to_fs(BUCKET)
        files.mkdir("bucket")
        yield address
        type(files).clear_instance_cache()
    started.stop()


@pytest.fixture
def root(endpoint: str, request: pytest.FixtureRequest) -> str:
    return f"{BUCKET}/{request.node.name}"


def write(path: str, text: str = "") -> None:
    files, inner = files_at(path)
    files.pipe_file(inner, text.encode())


def test_the_last_publication_is_current_and_an_earlier_run_may_not_publish(root: str) -> None:
    folder = f"{root}/published"
    with storage.claim(storage.Claim(f"{root}/made/a.claim")):
        for number in range(3):
            with storage.publish(folder) as inside:
                storage.write_json(f"{inside}/a.json", number)
            assert storage.read_json(f"{storage.current(folder, 'x')}/a.json") == number
        assert len(storage.folders(f"{folder}/versions")) == 2
        with storage.claim(storage.Claim(f"{root}/made/a.claim")):
            pass
        with pytest.raises(Superseded), storage.publish(folder) as inside:
            storage.write_json(f"{inside}/a.json", 4)
    assert storage.read_json(f"{storage.current(folder, 'x')}/a.json") == 2
    assert len(storage.folders(f"{folder}/versions")) == 2
    assert storage.list_files(folder, storage.POINTER) == [
        f"s3://bucket/{root.rpartition('/')[2]}/published/{storage.POINTER}"
    ]


def test_what_another_process_has_written_is_seen(root: str) -> None:
    write(f"{root}/models/2026-03-07/mfn/CURRENT")
    assert list(storage.folders(f"{root}/models")) == ["2026-03-07"]
    files, path = fsspec.url_to_fs(f"{root}/models")
    other = type(files)(skip_instance_cache=True)
    other.pipe_file(f"{path}/2026-03-08/mfn/CURRENT", b"")
    assert len(files.ls(path)) == 1  # control: fsspec's own view
    assert list(storage.folders(f"{root}/models")) == ["2026-03-07", "2026-03-08"]
    assert storage.exists(f"{root}/models/2026-03-08/mfn/CURRENT")


def test_days_are_found_and_a_changed_file_changes_their_fingerprint(root: str) -> None:
    for day in DAYS:
        write(f"{root}/dt={day}/a [1].json", "{}\n")
        write(f"{root}/dt={day}/{raw.SUCCESS}")
    assert snapshots.days_of(root, LAST) == DAYS
    before = raw.day_folders(root, DAYS)
    assert [one.json_lines for one in before] == [(f"{root}/dt={day}/a [1].json",) for day in DAYS]
    assert all(one.finished for one in before)
    assert raw.day_folders(root, DAYS) == before
    write(f"{root}/dt={LAST}/a [1].json", "{ }\n")
    changed = raw.day_folders(root, DAYS)
    assert [one == other for one, other in zip(before, changed, strict=True)] == [True] * 3 + [
        False
    ]


def test_every_row_is_fed_and_the_item_table_is_read(root: str, tmp_path: Path) -> None:
    here = Settings(root=str(tmp_path), date=RUN_DATE)
    publish_splits(here, {"train": [7, 5]})
    there = Settings(root=root, date=RUN_DATE)
    files, path = files_at(there.layout.splits)
    files.put(here.layout.splits, path, recursive=True)
    splits = Splits.published(there)
    (shard,) = shards(splits.files("train"), str(RUN_DATE), 0, 1, seed=1)
    batches = Feed(user_fields=1, context_fields=1).epoch(shard, 8)
    assert [len(batch) for batch in batches] == [8, 4]
    items = Splits.published(here).item_indices()
    for name, indices in splits.item_indices().items():
        assert torch.equal(indices, items[name])


def test_tensors_come_back(root: str) -> None:
    tensors = {"a": torch.arange(6.0).reshape(2, 3)}
    for factor in (1, 2):
        artifact.write_tensors(root, {"a": tensors["a"] * factor})
        assert torch.equal(artifact.read_tensors(root)["a"], tensors["a"] * factor)


@pytest.mark.soak
@pytest.mark.process
def test_a_day_in_an_object_store(endpoint: str, tmp_path: Path) -> None:
    """It needs hadoop-aws of Hadoop's version in pyspark and the AWS SDK that this was built with.

    The environment variable S3A_JARS names the folder with both.
    """
    jars = sorted(Path(os.environ.get(JARS, "nowhere")).glob("*.jar"))
    if not jars:
        pytest.skip(f"{JARS}: expected a folder with the jars of hadoop-aws and the AWS SDK")
    options = {
        "spark.jars": ",".join(map(str, jars)),
        "spark.hadoop.fs.s3a.endpoint": endpoint,
        "spark.hadoop.fs.s3a.path.style.access": "true",
    }
    config = tmp_path / "small.yaml"
    config.write_text(MADE_HERE)

    def run_day(root: str, *more: str) -> str:
        done = subprocess.run(
            [
                *(sys.executable, "pipelines/daily.py", "--config", str(config)),
                *("--root", root, "--train.tensorboard", "true", *more),
            ],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return done.stderr

    def evaluated(told: str) -> str:
        """The counts of `evaluate`, in which every step has a part."""
        (line,) = (one for one in told.splitlines() if "evaluate 2026-03-08: done" in one)
        return line.partition(" s: ")[2].partition(", rows_per_second")[0]

    there = f"{BUCKET}/{tmp_path.name}"
    for_s3 = [f"--spark.options.{name}={text}" for name, text in options.items()]
    found = evaluated(run_day(there.replace("s3a", "S3A") + "/", *for_s3))
    assert "auc_mfn=" in found
    assert found == evaluated(run_day(str(tmp_path / "control")))
    kinds = set(storage.folders(there))
    assert kinds >= {"events", "splits", "models", "predictions", "tensorboard", "reports"}
    again = run_day(there, *for_s3)
    for step in STEPS:
        assert f"{step} 2026-03-08: skipped" in again
