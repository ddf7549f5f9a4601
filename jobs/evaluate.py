"""Predictions to the Delta tables evaluation/metrics and evaluation/comparisons."""

from mfn.evaluation.evaluate import evaluate
from mfn.job import main

if __name__ == "__main__":
    main(evaluate)
