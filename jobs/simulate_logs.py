"""Write raw logs of a simulated shop, with the true probability of every click."""

from mfn.job import main
from mfn.simulator.simulate import simulate_logs

if __name__ == "__main__":
    main(simulate_logs)
