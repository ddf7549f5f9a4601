"""Write the day's report: evaluation, splits and models on one HTML page."""

from mfn.job import main
from mfn.reporting.report import report

if __name__ == "__main__":
    main(report)
