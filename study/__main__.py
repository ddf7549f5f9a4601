"""Train every model on every data set, and write what came of it.

    python -m study --movielens FOLDER [--retail FOLDER [--glove FILE]] [--quick]

It goes on where it stopped. Without --quick the pages are docs/study.md, its plots, and
docs/study.json; with it, the same of a few minutes lie beside its data.
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
    """Run the study; exit 3 where data are refused."""
    parser = argparse.ArgumentParser(prog="study", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--movielens", required=True, help="folder of MovieLens-100k")
    parser.add_argument("--retail", help="folder of Online Retail, a file a day; without, left out")
    parser.add_argument("--glove", help="file of word vectors; without, none is tried")
    parser.add_argument("--quick", action="store_true", help="a few minutes of it")
    chosen = parser.parse_args(arguments)
    size = QUICK if chosen.quick else FULL
    folder = Path(size.root).resolve() if chosen.quick else REPOSITORY / "docs"
    set_up_logging()
    found = [
        data_set(one, size)
        for one in sources(
            str(Path(chosen.movielens).resolve()),
            str(Path(chosen.retail).resolve()) if chosen.retail else None,
            str(Path(chosen.glove).resolve()) if chosen.glove else None,
            size,
        )
    ]
    try:
        with sessions.session(found[0].plan.real, "study") as session:
            for one in found:
                prepare(session, one)
    except errors.REFUSALS as error:
        return job.refuse("study", error, job.DATA_REFUSED)
    # Java has given its memory back before the first training begins.
    studied = {one.name: study(one.source.title, one.source.about, one.plan) for one in found}
    page = write(studied, size, folder)
    Console().print(Markdown(page))
    print(f"study: {folder}/study.md")
    return job.DONE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
