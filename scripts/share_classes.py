"""Put the classes that Spark loads into an archive, which Java maps into memory at every start.

    .venv/bin/python scripts/share_classes.py

A session reads, joins, counts and writes a few rows, and what Java has loaded by then is kept
(class data sharing). The set-up calls this; where this Java keeps no archive, it says so and ends
well, since sessions start without, too. The archive fits this Java and these jars in this place
alone; for others it is as if not there.
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
    """Put the archive in its place, whole."""
    output = sessions.shared_classes()
    for name in [one for one in os.environ if one.startswith(("SPARK_", "PYSPARK_"))]:
        del os.environ[name]  # of another Spark that may be here
    # On the same disk, so that it can be put there by a rename: Java may have the old one mapped.
    with tempfile.TemporaryDirectory(dir=output.parent) as folder:
        archive = Path(folder, "spark.jsa")
        # In code, so that settings in the environment don't count.
        settings = Settings(
            date=datetime.date(2026, 3, 8),
            spark=SparkSettings(
                master="local[2]",
                shuffle_partitions=2,
                options={
                    # What the second compiler would make is not kept, so don't wait for it.
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
        gateway.proc.stdin.close()  # Java ends, and writes the archive
        gateway.proc.wait()
        if archive.exists():
            archive.replace(output)
        else:
            print("set-up: this Java keeps no archive of classes; sessions start without one")


def use(session: SparkSession, folder: str) -> None:
    """What every job does, on a few rows."""
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
