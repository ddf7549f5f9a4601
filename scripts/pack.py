"""Pack for a cluster: this package, or an environment with the packages that Spark's tasks import.

    python -m scripts.pack package build/mfn.zip                    for --py-files
    python -m scripts.pack environment build/environment.tar.gz     for --archives

The environment is for jobs whose tasks do not import torch: all jobs except `predict`, and `train`
with several workers. Torch would make it 5 GB instead of about a hundred MB. The environment links
to the Python interpreter that made it, so each node needs Python at the same path. It has no
pyspark, because Spark brings it. Each archive is written whole or not at all. The archive of the
package has the same bytes for the same source.
"""

from __future__ import annotations

import argparse
import os
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from scripts.environments import uv

HERE = Path(__file__).resolve().parent.parent
LOCK = HERE / "requirements.lock"
IMPORTED_BY_TASKS = (
    "cloudpickle", "delta-spark", "fsspec", "numpy", "pandas", "pyarrow", "pydantic",
    "python-json-logger", "pyyaml", "scipy", "tenacity",
)  # fmt: skip
"""Imported by the tasks of `simulate_logs` and `build_splits`, directly or through mfn."""
NOT_NEEDED = ("pyspark", "py4j")
"""Part of Spark on every node."""
SOURCE = (".py", ".html")


def package(output: Path) -> None:
    """Write the source of mfn as a zip."""
    with zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted((HERE / "mfn").rglob("*")):
            if path.suffix in SOURCE:
                # ZipInfo's default date is 1980, so that the bytes are the same each time.
                name = zipfile.ZipInfo(str(path.relative_to(HERE)))
                archive.writestr(name, path.read_bytes(), zipfile.ZIP_DEFLATED)


def environment(output: Path) -> None:
    """Write a relocatable virtual environment as a gzipped tar."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "environment"
        pins = Path(name) / "pins.txt"
        left_out = [f"--no-emit-package={one}" for one in NOT_NEEDED]
        wanted = "\n".join(IMPORTED_BY_TASKS)
        uv("pip", "compile", "-", "-c", LOCK, *left_out, "--output-file", pins, stdin=wanted)
        uv("venv", "--relocatable", "--python", sys.executable, folder)
        uv("pip", "install", "--python", folder / "bin/python", "--no-deps", "-r", pins)
        with tarfile.open(output, "w:gz", compresslevel=1) as archive:
            archive.add(folder, arcname=".")


def main() -> None:
    """Write the archive that the arguments ask for."""
    makers = {"package": package, "environment": environment}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=makers)
    parser.add_argument("output", type=Path)
    chosen = parser.parse_args()
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    staged = chosen.output.with_name(f".{chosen.output.name}.{os.getpid()}")
    try:
        makers[chosen.what](staged)
        staged.replace(chosen.output)
    finally:
        staged.unlink(missing_ok=True)
    print(f"{chosen.output}: {chosen.output.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
