"""Compute metrics and model comparisons of the run date's predictions."""

from mfn.evaluation.evaluate import evaluate
from mfn.job import main

if __name__ == "__main__":
    main(evaluate)
