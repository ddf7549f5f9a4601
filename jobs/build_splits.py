"""Build the run date's splits: vocabularies, item table and request rows."""

from mfn.job import main
from mfn.splits.build import build_splits

if __name__ == "__main__":
    main(build_splits)
