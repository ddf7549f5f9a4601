"""Where everything lies under the root: the one module that knows a path.

```
<root>/raw/<kind>/dt=<day>/             raw logs, unless the settings name another folder
<root>/<table>                          Delta tables (mfn.schema)
<root>/splits/<date>/                   published versions: request rows and item table
<root>/embeddings/<date>/               published versions: the frozen embedding E
<root>/centers/<date>/                  published versions: the interest centers C
<root>/models/<date>/<model>/           published versions of a model, and its checkpoints
<root>/tensorboard/<date>/<model>/      event files
<root>/reports/<date>.html, .json       the page, and the summary for the terminal
<root>/made/<date>/<job>.json           what a job's last run was made from
<root>/seeds, <root>/trials             what `compare` trains
```
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass

SPLITS, EMBEDDINGS, CENTERS = "splits", "embeddings", "centers"
MODELS, TENSORBOARD, RECORDS = "models", "tensorboard", "made"
STAGED = ".staged-"
"""Beginning of the names of folders beside the days of raw logs, into which days are written before
they are moved into place."""


def all_dates(root: str, kind: str) -> str:
    """The folder that holds a folder of this kind for each run date."""
    return f"{root}/{kind}"


def table(root: str, name: str) -> str:
    """A Delta table."""
    return f"{root}/{name}"


def validated(root: str) -> str:
    """The file that holds what the table `validation` says of each day, for a version of it."""
    return f"{root}/{RECORDS}/all/validated.json"


@dataclass(frozen=True)
class Layout:
    """The paths of one run date under one root."""

    root: str
    date: datetime.date

    def folder(self, kind: str) -> str:
        """The folder of this kind for the run date."""
        return f"{all_dates(self.root, kind)}/{self.date}"

    def raw(self, kind: str) -> str:
        """Raw logs of one kind: a folder dt=YYYY-MM-DD for each day."""
        return f"{self.root}/raw/{kind}"

    @property
    def splits(self) -> str:
        """The splits, as published versions."""
        return self.folder(SPLITS)

    @property
    def embeddings(self) -> str:
        """The frozen embedding E, as published versions."""
        return self.folder(EMBEDDINGS)

    @property
    def centers(self) -> str:
        """The interest centers C, as published versions."""
        return self.folder(CENTERS)

    def model(self, name: str) -> str:
        """A model, as published versions."""
        return f"{self.folder(MODELS)}/{name}"

    def checkpoints(self, name: str) -> str:
        """The checkpoints of a model's training."""
        return f"{self.model(name)}/checkpoints"

    def tensorboard(self, name: str) -> str:
        """Event files of a model's training."""
        return f"{self.folder(TENSORBOARD)}/{name}"

    @property
    def report(self) -> str:
        """The report page."""
        return f"{self.root}/reports/{self.date}.html"

    @property
    def summary(self) -> str:
        """The summary of the day for the terminal."""
        return f"{self.root}/reports/{self.date}.json"

    def record(self, job: str) -> str:
        """The file that says what the job's last run was made from."""
        return f"{self.folder(RECORDS)}/{job}.json"

    def claim(self, job: str, all_dates: bool) -> str:
        """The file that says which run of a job may publish, for this date or for all dates."""
        of = "all" if all_dates else str(self.date)
        return f"{self.root}/{RECORDS}/{of}/{job}.claim"

    def seed(self, name: str) -> str:
        """The root under which `compare` learns E and centers of a seed."""
        return f"{self.root}/seeds/{name}"

    def trial(self, model: str, name: str) -> str:
        """One training of `compare`."""
        return f"{self.root}/trials/{self.date}/{model}/{name}"
