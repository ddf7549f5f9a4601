"""Train every configured model on the run date's training rows."""

from mfn.job import main
from mfn.training.train import train

if __name__ == "__main__":
    main(train)
