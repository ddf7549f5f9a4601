"""Check raw events: write clean ones to the table events, bad ones to quarantine; count all."""

from mfn.job import main
from mfn.logs.validate import validate_logs

if __name__ == "__main__":
    main(validate_logs)
