"""The Spark session: made in one place, in UTC, with Delta."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

import delta
from py4j.protocol import Py4JError
from pyspark import SparkConf, SparkContext
from pyspark.sql import SparkSession

from mfn.errors import BadSettings
from mfn.failure import in_a_line
from mfn.settings import Settings

log = logging.getLogger("mfn")

SUBMITTED = "PYSPARK_GATEWAY_PORT"
"""spark-submit sets this for the driver's Python: a JVM with its own options already runs."""


def options(settings: Settings) -> dict[str, str]:
    """The Spark options of a session; those of spark-submit take precedence over the settings.

    It starts no JVM. Under spark-submit one already runs, and is asked.
    """
    chosen = {
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.sql.shuffle.partitions": str(settings.spark.shuffle_partitions),
        # Delta replays a table's log in this many tasks; the default, 50, costs seconds.
        "spark.databricks.delta.snapshotPartitions": "1",
        # A day generates more classes than Spark caches by default (100). With the default, each
        # day of a range would compile all of them again.
        "spark.sql.codegen.cache.maxEntries": "2000",
        # Delta's vacuum lists the folders of a table in this many tasks, even if there are two
        # folders; with the default, 10,000, it takes 45 s per table on two cores.
        "spark.sql.sources.parallelPartitionDiscovery.parallelism": str(
            settings.spark.shuffle_partitions
        ),
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        # Of a key that an object has twice, JSON's readers take the last value.
        "spark.sql.mapKeyDedupPolicy": "LAST_WIN",
        # Times in nanoseconds, which pandas writes, are read as integers instead of refused.
        "spark.sql.legacy.parquet.nanosAsLong": "true",
    }
    submitted: dict[str, str] = {}
    if SUBMITTED in os.environ:
        SparkContext._ensure_initialized()  # else SparkConf does not know the JVM's options
        submitted = dict(SparkConf().getAll())
    else:
        chosen |= {
            "spark.master": settings.spark.master,
            "spark.driver.memory": settings.spark.driver_memory,
            "spark.driver.extraJavaOptions": " ".join(["-Duser.timezone=UTC", *class_sharing()]),
            "spark.ui.enabled": "false",
            "spark.ui.showConsoleProgress": "false",
        }
    given = {**chosen, **settings.spark.options, **submitted}
    if given.get("spark.master", "").startswith("local"):
        # Hadoop's default is 022 for everybody; on a cluster the administrators decide.
        given.setdefault("spark.hadoop.fs.permissions.umask-mode", _umask())
    return {**given, "spark.sql.session.timeZone": "UTC"}


def shared_classes() -> Path:
    """The archive of the classes that Spark loads, which the set-up writes for this environment."""
    return Path(sys.prefix, "spark.jsa")


def class_sharing() -> list[str]:
    """Java options that map this archive into memory, if it exists.

    If the archive does not fit this Java, Java continues without it; its message about that would
    go to standard output, and is switched off.
    """
    archive = shared_classes()
    return [f'"-XX:SharedArchiveFile={archive}"', "-Xlog:cds*=off"] if archive.is_file() else []


def _umask() -> str:
    """The umask of this process, which cannot be read without setting it."""
    own = os.umask(0o077)
    os.umask(own)
    return f"{own:03o}"


class NotStarted(RuntimeError):
    """Spark does not start; the message says why, and Spark's log lines above it say more."""


def start(settings: Settings, name: str) -> SparkSession:
    """A new session for one job, or the one that already runs.

    Raises:
        NotStarted: for example, Java is missing, the master does not answer, or a disk is full.
    """
    builder = SparkSession.builder.appName(name).config(map=dict(options(settings)))
    if SUBMITTED not in os.environ:
        # By default Spark starts its Python workers with the first python3 on the PATH.
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        builder = _with_delta(builder)
    try:
        session = builder.getOrCreate()
    except Exception as error:
        raise NotStarted(f"Spark does not start: {in_a_line(error)}{_about_jars()}") from error
    session.sparkContext.setLogLevel("ERROR")
    return session


@contextlib.contextmanager
def session(settings: Settings, name: str) -> Iterator[SparkSession]:
    """A session that is stopped when the block ends, if its Java process still runs.

    Raises:
        NotStarted: as `start`.
    """
    started = start(settings, name)
    try:
        yield started
    finally:
        try:
            started.stop()
        except (OSError, Py4JError) as error:
            log.warning("could not stop Spark, it had already ended: %s", in_a_line(error))


def slots(options: Mapping[str, str]) -> int | None:
    """Tasks that a session with these options runs at the same time; None if they do not say it.

    Raises:
        BadSettings: an option that should be a number is not one.
    """
    master = options.get("spark.master", "")

    def number(name: str, default: int) -> int:
        text = options.get(name, str(default))
        if not text.isdigit() or int(text) < 1:
            raise BadSettings(f"{name}: expected a whole number above 0, got {text!r}")
        return int(text)

    executors = 1
    if local := re.fullmatch(r"local(?:\[(\d+|\*)(?:,\s*\d+)?\])?", master):
        cores = _cores() if local[1] == "*" else int(local[1] or 1)
    elif cluster := re.fullmatch(r"local-cluster\[\s*(\d+)\s*,\s*(\d+)\s*,.*\]", master):
        executors, cores = int(cluster[1]), int(cluster[2])
    elif master.startswith("spark://") and "spark.cores.max" in options:
        all_cores = number("spark.cores.max", 1)
        cores = number("spark.executor.cores", all_cores)
        executors = all_cores // cores
    elif master.startswith(("yarn", "k8s://")):
        cores = number("spark.executor.cores", 1)
        count, default = "spark.executor.instances", 2
        if options.get("spark.dynamicAllocation.enabled") == "true":
            count, default = "spark.dynamicAllocation.maxExecutors", sys.maxsize
        executors = number(count, default)
    else:
        return None
    return executors * (cores // number("spark.task.cpus", 1))


def _cores() -> int:
    """Cores that this process may use, counted as the JVM does: also within a container."""
    cores = len(os.sched_getaffinity(0))
    limit = Path("/sys/fs/cgroup/cpu.max")
    quota, _, period = limit.read_text().partition(" ") if limit.is_file() else ("max", "", "")
    return cores if quota == "max" else max(1, min(cores, -(-int(quota) // int(period))))


def check_workers(settings: Settings) -> None:
    """Refuse more workers than Spark has slots: they would wait for each other forever.

    Raises:
        BadSettings: train.num_workers is larger than the number of slots by Spark's options.
    """
    chosen = options(settings)
    most = slots(chosen)
    if most is not None and settings.train.num_workers > most:
        raise BadSettings(
            f"train.num_workers: expected at most {most}, the number of tasks that Spark runs at "
            f"once with master {chosen['spark.master']!r}, got {settings.train.num_workers}; give "
            "Spark more slots or the training fewer workers"
        )


def check_horovod(settings: Settings) -> None:
    """Refuse several workers where Horovod is not installed, before anything is done.

    Raises:
        BadSettings: train.num_workers is above 1, and Python finds no Horovod.
    """
    if settings.train.num_workers > 1 and importlib.util.find_spec("horovod") is None:
        raise BadSettings(
            f"train.num_workers: expected 1, since Horovod is not installed, got "
            f"{settings.train.num_workers}; install Horovod (its wheel has to be built against "
            "torch: scripts/set_up.py of the repository does that), or train with one worker"
        )


def jars_folder() -> Path:
    """The folder of the user's cache into which the set-up puts Delta's jars."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "mfn" / "jars" / f"delta-{version('delta-spark')}"


def delta_jars() -> list[Path]:
    """Delta's jars in the user's cache; none if the set-up has not run."""
    return sorted(jars_folder().glob("*.jar"))


def _about_jars() -> str:
    """What to say of a session that does not start where Spark has to download Delta's jars."""
    if SUBMITTED in os.environ or delta_jars():
        return ""
    delta_version = version("delta-spark")
    return (
        f"; Delta's jars are not in {jars_folder()}, so Spark downloads them from Maven Central at "
        "each start. Without a network, put the jars of io.delta:delta-spark_2.13:"
        f"{delta_version}, io.delta:delta-storage:{delta_version} and "
        "org.antlr:antlr4-runtime:4.13.1 there"
    )


def _with_delta(builder: SparkSession.Builder) -> SparkSession.Builder:
    """Use Delta's jars from the user's cache; without them, Spark resolves them."""
    jars = delta_jars()
    if jars:
        return builder.config("spark.jars", ",".join(str(jar) for jar in jars))
    return delta.configure_spark_with_delta_pip(builder)
