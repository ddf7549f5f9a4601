"""Train every model on every data set, and write the results.

    python -m study --movielens FOLDER [--retail FOLDER [--glove FILE]] [--quick]

It resumes where it stopped. It writes docs/study.md, its charts and docs/study.json. With --quick,
it takes a few minutes and writes the same files to the folder of its data.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown

from mfn import errors, job
from mfn import spark as sessions
from mfn.log_setup import set_up_logging
from mfn.trials.compare import Chosen, choose_settings
from mfn.trials.plan import finals, possible_curves
from study.data_sets import FULL, QUICK, DataSet, data_set, sources
from study.estimate import log_estimate
from study.page import write
from study.prepare import prepare, pretrain
from study.run import Studied, study

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
    data_sets = {
        source.name: data_set(source, size)
        for source in sources(
            str(Path(chosen.movielens).resolve()),
            str(Path(chosen.retail).resolve()) if chosen.retail else None,
            str(Path(chosen.glove).resolve()) if chosen.glove else None,
            size,
        )
    }
    try:
        studied = run(data_sets)
    except errors.REFUSALS as error:
        return job.refuse("study", error, job.DATA_REFUSED)
    page = write(studied, size, folder)
    Console().print(Markdown(page))
    print(f"study: {folder}/study.md")
    return job.DONE


def run(data_sets: Mapping[str, DataSet]) -> dict[str, Studied]:
    """Study one data set after the other: if this is stopped, the first ones are finished.

    Models are trained only while no Spark session runs: Java would take memory and the cores.
    """
    chosen: dict[str, Chosen] = {}
    studied: dict[str, Studied] = {}
    for name, one in data_sets.items():
        plan = one.plan
        with sessions.session(plan.real, "study") as spark:
            prepare(spark, one)
        log_estimate(one)
        if plan.earlier is not None:
            pretrain(plan, possible_curves(plan))
            chosen[name] = choose_settings(plan, one.source.title)
        choice = chosen[one.source.choices_of or name]
        trials = finals(plan, choice.choices)
        pretrain(plan, [trial for seeds in trials.values() for trial in seeds.values()])
        studied[name] = study(one, choice)
    return studied


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
