"""The command `mfn`: run a day, run one job, or print the JSON Schema of the settings.

    mfn day --config conf/mine.yaml --date YYYY-MM-DD
    mfn train --config conf/mine.yaml --date YYYY-MM-DD --train.epochs 2
    mfn settings-schema > settings.schema.json

Each job is also a script in jobs/, for spark-submit.
"""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Sequence

from pipelines.steps import JOBS, description_of, job_of

DAY, SCHEMA = "day", "settings-schema"

USAGE = """\
usage: mfn COMMAND [--config FILE] [--date YYYY-MM-DD] [--SETTING VALUE ...]

Retrain and evaluate multi-interest ranking models every day. To see the settings of a command, run
mfn COMMAND --help.

Commands:
"""


def main() -> None:
    """Run the command that the first argument names; exit with its code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run a command line without the word `mfn`.

    Returns:
        the exit code: 0 done, 1 failed, 2 a bad command or setting, 3 the data are refused.
    """
    command, *rest = arguments or ["--help"]
    if command in ("-h", "--help", "help"):
        print(f"{USAGE}{_commands()}")
        return 0
    name = command.replace("-", "_")
    # The usage that a command prints begins with the command's own name.
    sys.argv = [f"mfn {command}", *rest]
    if command == DAY:
        from pipelines import daily

        return daily.main(rest)
    if command == SCHEMA:
        from mfn.settings_schema import settings_schema

        print(json.dumps(settings_schema(), indent=2))
        return 0
    if name in JOBS:
        from mfn.job import main as run_job

        run_job(job_of(name))
        return 0
    near = difflib.get_close_matches(command, _names(), n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    print(f"mfn: there is no command {command!r}{hint}; mfn --help lists all", file=sys.stderr)
    return 2


def _names() -> list[str]:
    return [DAY, *(name.replace("_", "-") for name in JOBS), SCHEMA]


def _commands() -> str:
    about = {
        DAY: "Run all steps of a day, or of all days --from one --to another.",
        **{name.replace("_", "-"): description_of(name) for name in JOBS},
        SCHEMA: "Print the JSON Schema of the settings, for editors.",
    }
    return "\n".join(f"  {name:20}{text}" for name, text in about.items())
