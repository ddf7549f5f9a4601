"""AUC of the probabilities from which a simulated shop drew its clicks."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from mfn.evaluation.bootstrap import auc
from mfn.settings import Settings
from mfn.splits.published import Splits
from mfn.trials.trial import read_candidates, rows_of_test
from mfn.windows import days_between, windows

NAMES = ("user_id", "request_id", "item_id")


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
    truth = table.to_table(columns=[*NAMES, "probability"]).to_pandas().set_index([*NAMES])
    splits = Splits.published(settings).folder
    names = pa.Table.from_batches([_names(rows) for rows in rows_of_test(splits)]).to_pandas()
    probability_n = truth["probability"].reindex(list(names.itertuples(index=False, name=None)))
    missing = probability_n.index[probability_n.isna()]
    if len(missing):
        raise KeyError(f"{folder}: expected the true probability of {missing[0]}, got none")
    return auc(read_candidates(splits).labels_n, np.asarray(probability_n))


def _names(rows: pa.RecordBatch) -> pa.RecordBatch:
    """User, request id and item id of each candidate of some rows."""
    ids = rows.column("candidate_ids")
    row_of_candidate = pc.list_parent_indices(ids)
    columns = [rows.column(name).take(row_of_candidate) for name in NAMES[:2]]
    return pa.RecordBatch.from_arrays([*columns, pc.list_flatten(ids)], names=[*NAMES])
