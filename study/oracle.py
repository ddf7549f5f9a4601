"""AUC of the probabilities from which a simulated shop drew its clicks."""

from __future__ import annotations

import numpy as np
import pyarrow.dataset as ds

from mfn.evaluation.bootstrap import auc
from mfn.settings import Settings
from mfn.splits.published import Splits
from mfn.trials.trial import read_candidates
from mfn.windows import days_between, windows

_CANDIDATE = ("user_id", "request_id", "item_id")


def oracle_auc(settings: Settings) -> float | None:
    """AUC of the true probabilities on the test window; None if the logs are not simulated.

    Raises:
        KeyError: the true probability of a candidate is missing.
    """
    if settings.logs.made_by != "simulate_logs":
        return None
    folder = settings.logs_folder("truth")
    test = days_between(windows(settings.date, settings.windows).test)
    table = ds.dataset([ds.dataset(f"{folder}/dt={day}", format="parquet") for day in test])
    columns = table.to_table(columns=[*_CANDIDATE, "probability"]).to_pydict()
    truth = dict(
        zip(
            zip(*(columns[name] for name in _CANDIDATE), strict=True),
            columns["probability"],
            strict=True,
        )
    )
    candidates = read_candidates(Splits.published(settings).folder)
    return auc(candidates.labels_n, np.array([truth[name] for name in candidates.names_n]))
