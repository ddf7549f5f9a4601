"""Check raw events: clean ones to the table events, bad ones to quarantine, all of them counted."""

from mfn.job import main
from mfn.logs.validate import validate_logs

if __name__ == "__main__":
    main(validate_logs)
