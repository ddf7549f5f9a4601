"""Train every model with several seeds on one run date; write the table evaluation/over_seeds."""

from mfn.job import main
from mfn.trials.compare import compare

if __name__ == "__main__":
    main(compare)
