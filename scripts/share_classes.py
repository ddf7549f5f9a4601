"""Put the classes that Spark loads into an archive, which Java maps into memory at every start.

    python scripts/share_classes.py .venv/spark.jsa

Two small jobs run, and what Java has loaded by then is kept (class data sharing). The set-up calls
this; where this Java keeps no archive, it says so and ends well, since sessions start without, too.
The archive fits this Java and these jars in this place alone; for others it is as if not there.
"""

from __future__ import annotations

import datetime
import os
import sys
import tempfile
from pathlib import Path

from mfn import job, spark
from mfn.logs.simulate import simulate_logs
from mfn.logs.validate import validate_logs
from mfn.settings import Settings, SimulateSettings, SparkSettings, WindowSettings


def main(output: Path) -> None:
    """Run the two jobs, and put the archive in its place, whole."""
    for name in [one for one in os.environ if one.startswith(("SPARK_", "PYSPARK_"))]:
        del os.environ[name]  # of another Spark that may be here
    # On the same disk, so that it can be put there by a rename: Java may have the old one mapped.
    with tempfile.TemporaryDirectory(dir=output.parent) as folder:
        archive = Path(folder, "spark.jsa")
        # In code, so that settings in the environment don't count.
        settings = Settings(
            root=f"{folder}/root",
            date=datetime.date(2026, 3, 8),
            windows=WindowSettings(pretraining_days=2, training_days=1),
            simulate=SimulateSettings(
                users=50, items=50, requests_per_day=50, browsing_per_day=100, days=5
            ),
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
        session = spark.start(settings, "set-up")
        for one in (simulate_logs, validate_logs):
            job.run(one, session, settings)
        gateway = session.sparkContext._gateway
        assert gateway is not None
        session.stop()
        gateway.proc.stdin.close()  # Java ends, and writes the archive
        gateway.proc.wait()
        if archive.exists():
            archive.replace(output)
        else:
            print("set-up: this Java keeps no archive of classes; sessions start without one")


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
