"""Print how well two probes and the oracle do on the simulated shop and on its control.

    python scripts/probe_shop.py --date 2026-03-08 [--simulate.users 4000 …]

The probes are those of `mfn.logs.probe`. In the shop "closest" must be ahead of "average" by 0.02
or more; in the control, where no click needs both attributes of one interest, it must not.
"""

import logging
import sys
import tempfile

from mfn import spark as sessions
from mfn.errors import BadSettings
from mfn.job import BAD_SETTINGS, parse, refuse
from mfn.logs.probe import PROBES, probe
from mfn.logs.simulate import simulate_logs

SEEDS = (7, 8, 9)


def main() -> None:
    """One line for each kind of shop and seed."""
    try:
        settings = parse(sys.argv[1:], "Probe the simulated shop.")
    except BadSettings as error:
        sys.exit(refuse("probe_shop", error, BAD_SETTINGS))
    logging.basicConfig(level=logging.WARNING)
    session = sessions.start(settings, "probe_shop")
    print(f"{'shop':10}{'seed':>6}" + "".join(f"{name:>10}" for name in (*PROBES, "gain")))
    for how in ("joint", "additive"):
        for seed in SEEDS:
            shop = settings.simulate.model_copy(update={"interest_match": how, "seed": seed})
            with tempfile.TemporaryDirectory() as root:
                one = settings.model_copy(update={"root": root, "simulate": shop})
                simulate_logs(session, one)
                found = probe(session, one)
            gain = found["closest"] - found["average"]
            numbers = "".join(f"{number:10.4f}" for number in (*found.values(), gain))
            print(f"{how:10}{seed:6}{numbers}", flush=True)
    session.stop()


if __name__ == "__main__":
    main()
