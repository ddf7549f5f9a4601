"""Write an archive of the classes that Spark loads; Java maps it into memory at every start.

    .venv/bin/python scripts/share_classes.py

A session reads, joins, counts and writes a few rows. Then Java stores all classes that it has
loaded (class data sharing). The set-up runs this script. If this Java cannot write an archive, the
script prints that and ends with exit code 0, because sessions also start without one. The archive
is valid only for this Java and for these jars in this folder. Java ignores any other archive.
"""

from __future__ import annotations

import datetime
import os
import tempfile
from pathlib import Path

from pyspark.sql import SparkSession, Window
from pyspark.sql import functions as F

from mfn import spark as sessions
from mfn.settings import Settings, SparkSettings


def main() -> None:
    """Write the archive, whole or not at all."""
    output = sessions.shared_classes()
    for name in [one for one in os.environ if one.startswith(("SPARK_", "PYSPARK_"))]:
        del os.environ[name]  # they may belong to another Spark on this machine
    # On the same disk, because a rename is safe while a running Java has the old archive mapped.
    with tempfile.TemporaryDirectory(dir=output.parent) as folder:
        archive = Path(folder, "spark.jsa")
        # Given in code, so that settings in the environment are ignored.
        settings = Settings(
            date=datetime.date(2026, 3, 8),
            spark=SparkSettings(
                master="local[2]",
                shuffle_partitions=2,
                options={
                    # The archive does not contain compiled code, so use only the fast compiler.
                    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 "
                    f'"-XX:ArchiveClassesAtExit={archive}"'
                },
            ),
        )
        session = sessions.start(settings, "set-up")
        use(session, folder)
        gateway = session.sparkContext._gateway
        assert gateway is not None
        session.stop()
        gateway.proc.stdin.close()  # Java exits and writes the archive
        gateway.proc.wait()
        if archive.exists():
            archive.replace(output)
        else:
            print("set-up: this Java writes no archive of classes; sessions start without one")


def use(session: SparkSession, folder: str) -> None:
    """Do on a few rows what every job does."""
    numbers = session.range(100).select("id", (F.col("id") % 3).alias("group"))
    numbers.write.json(f"{folder}/json")
    rows = session.read.schema("id long, group int").json(f"{folder}/json")
    newest_first = Window.partitionBy("group").orderBy(F.desc("id"))
    ranked = rows.join(numbers, ["id", "group"]).withColumn("rank", F.rank().over(newest_first))
    ranked.write.format("delta").partitionBy("group").save(f"{folder}/delta")
    table = session.read.format("delta").load(f"{folder}/delta")
    table.where("group = 1").groupBy("group").agg(F.max("rank"), F.countDistinct("id")).collect()


if __name__ == "__main__":
    main()
