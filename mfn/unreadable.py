"""What Spark says of a file that it cannot read, as a refusal for people: one place for all jobs.

Events, catalogue, profiles, truth and splits are read lazily, so such an error comes anywhere in a
job, and from a task only as text. Files that Python reads (manifests, tensors, the item table) are
refused where they are read, in `mfn.storage`, `mfn.models.artifact` and `mfn.splits.published`.
"""

from __future__ import annotations

import re

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException

from mfn.errors import DataRefused
from mfn.failure import in_a_line

_OF_FILES = re.compile(
    r"\[(?P<name>(?:FAILED_READ_FILE|CANNOT_READ_FILE_FOOTER|CANNOT_MERGE_SCHEMAS|PATH_NOT_FOUND"
    r"|UNABLE_TO_INFER_SCHEMA|PARQUET_TYPE_\w+|PARQUET_CONVERSION_FAILURE|COLUMN_ALREADY_EXISTS"
    r"|INVALID_ATTRIBUTE_NAME_SYNTAX|FAILED_TO_READ_PARQUET\w*)[.\w]*)\]\s*(?P<text>[^\n]*)"
)
_CAUSES = re.compile(r"^Caused by: (?:[\w.$]+\.)?(.*)$", re.MULTILINE)


def refusal(error: Exception) -> DataRefused | None:
    """The refusal of a file that Spark cannot read; None if the error is about something else."""
    if not isinstance(error, PySparkException | Py4JJavaError):
        return None
    text = str(error)
    found = _OF_FILES.search(text)
    if found is None:
        return None
    root = [cause.strip() for cause in _CAUSES.findall(text) if "FAILED_READ_FILE" not in cause]
    because = f" ({root[-1]})" if root else ""
    return DataRefused(
        f"a file cannot be read to its end; it may be cut short, have another format than its name "
        f"says, or have been changed during the run. Deliver it again, or run the job again that "
        f"made it. Spark says: [{found['name']}] {found['text'] or in_a_line(error)}{because}"
    )
