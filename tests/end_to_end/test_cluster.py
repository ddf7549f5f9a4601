"""A job by spark-submit on a real cluster whose nodes have none of the packages.

What a whole day there does, and when executors are lost, `test_day` tells.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from mfn.spark import delta_jars
from tests.end_to_end.standalone import PROJECT, PROPERTIES, cluster

pytestmark = pytest.mark.process

SMALL = (
    "--simulate.users", "50", "--simulate.items", "50", "--simulate.requests_per_day", "40",
    "--simulate.browsing_per_day", "100", "--simulate.days", "2",
)  # fmt: skip


def test_an_environment_without_torch_sent_along_is_enough_for_a_job_on_data(
    spark: SparkSession, tmp_path: Path
) -> None:
    archive = tmp_path / "environment.tar.gz"
    pack = [sys.executable, "-m", "scripts.pack", "environment", str(archive)]
    subprocess.run(pack, cwd=PROJECT, check=True)
    with cluster(tmp_path) as made:
        done = subprocess.run(
            [
                "spark-submit", "--master", made.master, "--properties-file", PROPERTIES,
                "--jars", ",".join(map(str, delta_jars())), "--py-files", made.package,
                "--archives", f"{archive}#environment",
                PROJECT / "jobs" / "simulate_logs.py", "--date", "2026-03-08",
                "--root", tmp_path / "warehouse", *SMALL,
            ],
            env={
                **made.environment,
                "PYSPARK_PYTHON": "environment/bin/python",
                "PYSPARK_DRIVER_PYTHON": sys.executable,
            },
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    unpacked = list(tmp_path.glob("work-*/app-*/*/environment/bin/python"))
    assert unpacked, "no executor has unpacked the environment"
    assert not list(tmp_path.glob("work-*/app-*/*/environment/lib/*/site-packages/torch"))
    items = spark.read.json(f"{tmp_path}/warehouse/raw/items")
    assert items.where("dt = '2026-03-08'").count() > 0
