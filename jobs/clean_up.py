"""Remove old outputs that the newest models do not need, and compact the Delta tables."""

from mfn.job import main
from mfn.retention import clean_up

if __name__ == "__main__":
    main(clean_up)
