"""Train every model on every data set, and write the results.

    python -m study --movielens FOLDER [--retail FOLDER [--glove FILE]] [--quick]

It resumes where it stopped. It writes docs/study.md, its charts and docs/study.json. With --quick,
it takes a few minutes and writes the same files to the folder of its data.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown

from mfn import errors, job
from mfn import spark as sessions
from mfn.log_setup import set_up_logging
from study.data_sets import FULL, QUICK, data_set, sources
from study.page import write
from study.prepare import prepare
from study.run import study

REPOSITORY = Path(__file__).resolve().parent.parent


def main(arguments: Sequence[str]) -> int:
    """Run the study; return the exit code, 3 if data are refused."""
    parser = argparse.ArgumentParser(prog="study", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--movielens", required=True, help="folder of MovieLens-100k")
    parser.add_argument("--retail", help="folder of Online Retail, one file per day; optional")
    parser.add_argument("--glove", help="file of word vectors for Online Retail; optional")
    parser.add_argument("--quick", action="store_true", help="a small study of a few minutes")
    chosen = parser.parse_args(arguments)
    size = QUICK if chosen.quick else FULL
    folder = Path(size.root).resolve() if chosen.quick else REPOSITORY / "docs"
    set_up_logging()
    data_sets = [
        data_set(one, size)
        for one in sources(
            str(Path(chosen.movielens).resolve()),
            str(Path(chosen.retail).resolve()) if chosen.retail else None,
            str(Path(chosen.glove).resolve()) if chosen.glove else None,
            size,
        )
    ]
    try:
        with sessions.session(data_sets[0].plan.real, "study") as session:
            for one in data_sets:
                prepare(session, one)
    except errors.REFUSALS as error:
        return job.refuse("study", error, job.DATA_REFUSED)
    # The Spark session has ended, so Java uses no memory while models are trained.
    studied = {one.name: study(one.source.title, one.source.about, one.plan) for one in data_sets}
    page = write(studied, size, folder)
    Console().print(Markdown(page))
    print(f"study: {folder}/study.md")
    return job.DONE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
