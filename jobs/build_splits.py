"""Clean events and catalogue to vocabularies, item table and the run date's request rows."""

from mfn.job import main
from mfn.splits.build import build_splits

if __name__ == "__main__":
    main(build_splits)
