"""The Spark session: made in one place, in UTC, with Delta."""

from __future__ import annotations

import contextlib
import importlib.util
import locale
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import delta
import fsspec
from py4j.protocol import Py4JError
from pyspark import SparkConf, SparkContext
from pyspark.sql import DataFrame, SparkSession

from mfn.errors import BadSettings
from mfn.failure import in_a_line
from mfn.settings import Settings

log = logging.getLogger("mfn")

SUBMITTED = "PYSPARK_GATEWAY_PORT"
"""spark-submit sets this for the driver's Python: a JVM with its own options already runs."""
DEFAULT_FILES = "spark.hadoop.fs.defaultFS"


FIXED = {
    "spark.sql.session.timeZone": "UTC",
    # A file that is cut short or gone stops the job. If it were ignored, nobody would see that its
    # rows are missing.
    "spark.sql.files.ignoreCorruptFiles": "false",
    "spark.sql.files.ignoreMissingFiles": "false",
    # A key that stands twice in a map, as in an event's context: the last one counts. By default
    # one such line stops the job.
    "spark.sql.mapKeyDedupPolicy": "LAST_WIN",
    # Parquet with times in nanoseconds, which pandas writes, is read as integers. By default not
    # even the other columns of the file can be read.
    "spark.sql.legacy.parquet.nanosAsLong": "true",
    # A time is what its text or file says, also long ago: no other parser, no other calendar, no
    # type without a time zone.
    "spark.sql.legacy.timeParserPolicy": "CORRECTED",
    "spark.sql.parquet.datetimeRebaseModeInRead": "CORRECTED",
    "spark.sql.parquet.datetimeRebaseModeInWrite": "CORRECTED",
    "spark.sql.parquet.int96RebaseModeInRead": "CORRECTED",
    "spark.sql.parquet.int96RebaseModeInWrite": "CORRECTED",
    "spark.sql.timestampType": "TIMESTAMP_LTZ",
    # A number that is too large, or a value of another type, is an error where the code does not
    # ask for null; without these it would become null or another number.
    "spark.sql.ansi.enabled": "true",
    "spark.sql.storeAssignmentPolicy": "ANSI",
    # A file may have a column User_ID beside user_id, and JSON's parser tells them apart too.
    "spark.sql.caseSensitive": "true",
    # Of a line of JSON with one value of another type, the others are read; a number that is read
    # as text stays as it is written; and no column of ours takes the text of a bad line.
    "spark.sql.json.enablePartialResults": "true",
    "spark.sql.json.enableExactStringParsing": "true",
    "spark.sql.columnNameOfCorruptRecord": "_corrupt_record",
    # A write replaces what it says, and Delta checks that its rows belong there.
    "spark.sql.sources.partitionOverwriteMode": "STATIC",
    "spark.databricks.delta.replaceWhere.constraintCheck.enabled": "true",
    # A table is read as it is now, with what the step before has written.
    "spark.databricks.delta.stalenessLimit": "0",
    # A split has the files that the settings say; more files would be another order of the rows.
    "spark.sql.files.maxRecordsPerFile": "0",
    # A second copy of a slow worker of a training would take part in it.
    "spark.speculation": "false",
}
"""Options that nobody can choose, since with others rows would be lost or read differently."""


def options(settings: Settings) -> dict[str, str]:
    """The Spark options of a session; those of spark-submit take precedence over the settings.

    Those in FIXED take precedence over both.

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
        if "://" not in settings.root:
            # A site's default may be HDFS, where Spark would then look for a plain path.
            given.setdefault(DEFAULT_FILES, "file:///")
    return {**given, **FIXED}


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
    chosen = options(settings)
    builder = SparkSession.builder.appName(name).config(map=dict(chosen))
    if SUBMITTED not in os.environ:
        # By default Spark starts its Python workers with the first python3 on the PATH.
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        if not _is_utf8(locale.getencoding()):
            # Java writes and reads names of files in the encoding of the locale.
            os.environ["LC_ALL"] = "C.UTF-8"
        builder = _with_delta(builder, chosen.get("spark.jars"))
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


@contextlib.contextmanager
def caching() -> Iterator[Callable[[DataFrame], DataFrame]]:
    """Give a function that caches frames; they are released when the block ends."""
    with contextlib.ExitStack() as to_close:

        def keep(frame: DataFrame) -> DataFrame:
            to_close.callback(frame.unpersist)
            return frame.persist()

        yield keep


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


def check_options(settings: Settings) -> None:
    """Refuse options of the settings that would not count, since the session sets them itself.

    Raises:
        BadSettings: the settings give an option of FIXED another value.
    """
    given = settings.spark.options
    wrong = [name for name in FIXED if given.get(name, FIXED[name]) != FIXED[name]]
    if wrong:
        raise BadSettings(
            "\n".join(
                f"spark.options.{name}: expected {FIXED[name]}, which the session always has, got "
                f"{given[name]}; leave it out"
                for name in wrong
            )
        )


def check_root(settings: Settings) -> None:
    """Refuse a root that Python or the Java of spark-submit would not find.

    A Java that is started for the session finds every root.

    Raises:
        BadSettings: fsspec does not know the URL's scheme, or lacks the package for it; the root
            has other letters than ASCII, and Java's locale has not; or the root is a plain path,
            and Spark's default file system is not this machine's.
    """
    scheme, is_url, _ = settings.root.partition("://")
    if is_url:
        try:
            fsspec.get_filesystem_class(scheme)
        except (ImportError, ValueError) as error:
            raise BadSettings(
                f"root: expected a URL that fsspec can open, got {settings.root}: {error}"
            ) from error
    if SUBMITTED not in os.environ:
        return
    SparkContext._ensure_initialized()
    java: Any = SparkContext._jvm
    encoding = str(java.java.lang.System.getProperty("sun.jnu.encoding"))
    of_site = str(java.org.apache.hadoop.conf.Configuration().get("fs.defaultFS"))
    default = options(settings).get(DEFAULT_FILES, of_site)
    problems = []
    if not (settings.root.isascii() or _is_utf8(encoding)):
        problems.append(
            f"root: expected only ASCII, since Java reads and writes names of files in {encoding}, "
            f"got {settings.root}; start spark-submit with LC_ALL=C.UTF-8, and the executors too"
        )
    if not is_url and not default.startswith("file:"):
        problems.append(
            f"root: expected a URL, since Spark takes a plain path for one in {default}, got "
            f"{settings.root}; write {default.rstrip('/')}{settings.root}, or start spark-submit "
            f"with --conf {DEFAULT_FILES}=file:///"
        )
    if problems:
        raise BadSettings("\n".join(problems))


def _is_utf8(encoding: str) -> bool:
    return encoding.lower().replace("-", "") == "utf8"


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


def _with_delta(builder: SparkSession.Builder, more: str | None) -> SparkSession.Builder:
    """Use Delta's jars from the user's cache, beside `more`; without them, Spark resolves them."""
    jars = [str(jar) for jar in delta_jars()]
    if jars:
        return builder.config("spark.jars", ",".join([*jars, *([more] if more else [])]))
    return delta.configure_spark_with_delta_pip(builder)
