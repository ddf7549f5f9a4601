"""Remove what has become old, but for what the newest models need; compact the Delta tables."""

from mfn.job import main
from mfn.retention import clean_up

if __name__ == "__main__":
    main(clean_up)
