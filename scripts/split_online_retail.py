"""Split a CSV of the whole Online Retail data set into one file per day, as `ingest` reads them.

    python scripts/split_online_retail.py data.csv FOLDER

The CSV needs a header with the columns InvoiceNo, StockCode, Description, Quantity, InvoiceDate
(YYYY-MM-DD HH:MM:SS, or M/D/YYYY H:MM as in UCI's file), UnitPrice, CustomerID and Country. Rows
keep their order and their text; only the format of the date changes. A row without a valid date
ends the script with exit code 3.
"""

from __future__ import annotations

import csv
import datetime
import gzip
import sys
from pathlib import Path

COLUMNS = (
    "InvoiceNo",
    "StockCode",
    "Description",
    "Quantity",
    "InvoiceDate",
    "UnitPrice",
    "CustomerID",
    "Country",
)
FORMS = ("%Y-%m-%d %H:%M:%S", "%m/%d/%Y %H:%M")


def main(arguments: list[str]) -> int:
    """Write one file per day and return the exit code."""
    if len(arguments) != 2:
        print("usage: python scripts/split_online_retail.py data.csv FOLDER", file=sys.stderr)
        return 2
    source, folder = map(Path, arguments)
    by_day: dict[str, list[list[str]]] = {}
    with source.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        lacking = [name for name in COLUMNS if name not in (rows.fieldnames or ())]
        if lacking:
            return _refuse(
                f"{source}: expected the columns {', '.join(COLUMNS)} in the first line, but "
                f"{', '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} missing"
            )
        for row in rows:
            time = _time(row["InvoiceDate"])
            if time is None:
                return _refuse(
                    f"{source}, line {rows.line_num}: expected an InvoiceDate such as "
                    f"2010-12-01 08:26:00, got {row['InvoiceDate']!r}"
                )
            row["InvoiceDate"] = f"{time:%Y-%m-%d %H:%M:%S}"
            by_day.setdefault(f"{time:%Y-%m-%d}", []).append([row[name] or "" for name in COLUMNS])
    folder.mkdir(parents=True, exist_ok=True)
    for day, of_day in sorted(by_day.items()):
        path = folder / f"{day}.csv.gz"
        with gzip.open(path, "wt", encoding="utf-8", newline="") as written:
            csv.writer(written, lineterminator="\n").writerows([COLUMNS, *of_day])
    print(f"{sum(map(len, by_day.values()))} rows of {len(by_day)} days", file=sys.stderr)
    print(folder)
    return 0


def _refuse(message: str) -> int:
    print(message, file=sys.stderr)
    return 3


def _time(text: str) -> datetime.datetime | None:
    for form in FORMS:
        try:
            return datetime.datetime.strptime(text, form)
        except ValueError:
            continue
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
