"""The session's own options win over a site's, and the root's name is checked against Java's."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mfn import job
from mfn import spark as sessions
from mfn.errors import BadSettings
from mfn.logs.raw import SUCCESS
from mfn.settings import Settings, SparkSettings
from tests.conftest import RUN_DATE
from tests.raw_logs import DAYS, deliver, event

PROJECT = Path(__file__).resolve().parents[1]
NOT_ASCII = "ü红"

OF_A_SITE = {
    **dict.fromkeys(
        (
            "spark.sql.files.ignoreCorruptFiles", "spark.sql.files.ignoreMissingFiles",
            "spark.speculation",
        ),
        "true",
    ),
    **dict.fromkeys(
        (
            "spark.sql.json.enablePartialResults", "spark.sql.json.enableExactStringParsing",
            "spark.sql.ansi.enabled", "spark.sql.legacy.parquet.nanosAsLong",
            "spark.sql.caseSensitive",
            "spark.databricks.delta.replaceWhere.constraintCheck.enabled",
        ),
        "false",
    ),
    **dict.fromkeys(
        (
            "spark.sql.legacy.timeParserPolicy", "spark.sql.storeAssignmentPolicy",
            "spark.sql.parquet.datetimeRebaseModeInRead",
            "spark.sql.parquet.datetimeRebaseModeInWrite",
            "spark.sql.parquet.int96RebaseModeInRead", "spark.sql.parquet.int96RebaseModeInWrite",
        ),
        "LEGACY",
    ),
    "spark.sql.session.timeZone": "Asia/Kathmandu",
    "spark.sql.mapKeyDedupPolicy": "EXCEPTION",
    "spark.sql.timestampType": "TIMESTAMP_NTZ",
    "spark.sql.columnNameOfCorruptRecord": "event_id",
    "spark.sql.sources.partitionOverwriteMode": "DYNAMIC",
    "spark.databricks.delta.stalenessLimit": "1h",
    "spark.sql.files.maxRecordsPerFile": "1",
}  # fmt: skip
"""What spark-defaults.conf of a site may say; each loses rows or reads them differently."""

READS_A_DAY = """
import json, sys
from mfn import spark as sessions
from mfn.logs import raw
from tests.conftest import RUN_DATE, SPARK
from mfn.settings import Settings
from tests.raw_logs import DAYS

settings = Settings(root=sys.argv[1], date=RUN_DATE, spark=SPARK)
folder = settings.logs_folder("events")

def rows(session, day):
    try:
        return raw.read_events(session, folder, raw.day_folders(folder, [day])).count()
    except Exception as error:
        return type(error).__name__

with sessions.session(settings, "test") as session:
    conf = dict(session.sparkContext.getConf().getAll())
    found = {name: session.conf.get(name, conf.get(name)) for name in sessions.FIXED}
    whole, cut = rows(session, DAYS[0]), rows(session, DAYS[1])
    session.conf.set("spark.sql.files.ignoreCorruptFiles", "true")
    print(json.dumps([found, whole, cut, rows(session, DAYS[1])]))
"""


def test_every_option_that_a_site_may_not_choose_is_tried() -> None:
    assert OF_A_SITE.keys() == sessions.FIXED.keys()
    for name, value in OF_A_SITE.items():
        assert value != sessions.FIXED[name], name
    settings = Settings(date=RUN_DATE, spark=SparkSettings(options=OF_A_SITE))
    assert sessions.options(settings).items() >= sessions.FIXED.items()
    with pytest.raises(BadSettings) as refused:
        sessions.check_options(settings)
    assert len(str(refused.value).splitlines()) == len(OF_A_SITE)
    sessions.check_options(Settings(date=RUN_DATE, spark=SparkSettings(options=sessions.FIXED)))


def test_a_root_that_fsspec_cannot_open_is_refused() -> None:
    with pytest.raises(BadSettings, match=r"root: .* nosuch://a/b: Protocol not known"):
        job.parse(["--date", "2026-03-08", "--root", "nosuch://a/b"], "x")
    assert job.parse(["--date", "2026-03-08", "--root", "memory://a/b"], "x").root  # control


@pytest.mark.process
def test_options_of_a_site_lose_no_rows_and_java_finds_a_root_that_its_locale_has_no_letters_for(
    tmp_path: Path,
) -> None:
    """Both in one session, which takes seconds to start."""
    settings = Settings(root=str(tmp_path / NOT_ASCII), date=RUN_DATE)
    deliver(settings, DAYS[0], [event("a", DAYS[0])], f"{NOT_ASCII}.json")
    deliver(settings, DAYS[1], [event("a", DAYS[1])])
    cut = deliver(settings, DAYS[1], [], "cut.json.gz")
    content = "".join(json.dumps(event(str(n), DAYS[1])) + "\n" for n in range(3000))
    cut.write_bytes(gzip.compress(content.encode())[:-100])
    cut.with_name(SUCCESS).touch()
    defaults = "".join(f"{name} {value}\n" for name, value in OF_A_SITE.items())
    Path(tmp_path, "spark-defaults.conf").write_text(defaults)
    done = subprocess.run(
        [sys.executable, "-c", READS_A_DAY, settings.root],
        cwd=PROJECT,
        env={**os.environ, "SPARK_CONF_DIR": str(tmp_path), "LC_ALL": "POSIX"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found, whole, of_cut, ignored = json.loads(done.stdout.splitlines()[-1])
    assert found == sessions.FIXED
    assert whole == 1
    assert of_cut == "Py4JJavaError"
    assert 1 <= ignored < 3001  # what the site's option would have done


@pytest.mark.process
def test_a_root_that_the_java_of_spark_submit_would_not_find_is_refused_before_a_session(
    tmp_path: Path,
) -> None:
    """The root is in a file: in the arguments such letters would already have become ?????."""
    config = tmp_path / "of_the_root.yaml"
    config.write_text(f"root: {tmp_path}/{NOT_ASCII}", encoding="utf-8")
    command = [
        str(Path(sys.executable).parent / "spark-submit"),
        *("--master", "local[1]", "--conf", f"{sessions.DEFAULT_FILES}=hdfs://nowhere:8020"),
        *("jobs/report.py", "--date", "2026-03-08", "--config", str(config)),
    ]
    done = subprocess.run(
        command,
        cwd=PROJECT,
        env={**os.environ, "PYSPARK_PYTHON": sys.executable, "LC_ALL": "POSIX"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=600,
        check=False,
    )
    assert done.returncode == 2, done.stderr[-4000:]
    told = (
        done.stdout + done.stderr
    ).splitlines()  # spark-submit takes a script's errors as output
    letters, place = (line for line in told if line.startswith("report: "))
    assert letters.startswith("report: root: expected only ASCII, since Java")
    assert letters.endswith("LC_ALL=C.UTF-8, and the executors too")
    assert place.startswith("report: root: expected a URL")
    assert f"write hdfs://nowhere:8020{tmp_path}/{NOT_ASCII}, or start" in place
