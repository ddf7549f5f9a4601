"""Evaluation tables, splits and models of a day to one HTML page."""

from mfn.job import main
from mfn.reporting.report import report

if __name__ == "__main__":
    main(report)
