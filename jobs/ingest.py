"""Turn a public data set's own files into raw logs: events, items and users by day."""

from mfn.job import main
from mfn.sources.ingest import ingest

if __name__ == "__main__":
    main(ingest)
