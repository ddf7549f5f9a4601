"""Evaluation tables, splits and models of a day to one HTML page."""

from mfn.evaluation.report import report
from mfn.job import main

if __name__ == "__main__":
    main(report)
