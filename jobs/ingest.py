"""Convert a public data set's files to raw logs: events, items and users by day."""

from mfn.job import main
from mfn.sources.ingest import ingest

if __name__ == "__main__":
    main(ingest)
