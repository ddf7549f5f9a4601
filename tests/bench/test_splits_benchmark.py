"""The benchmark of splits at a small size: both sides agree, and a wrong peer is detected."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from bench import shops, splits, splits_duckdb, splits_spark
from bench.splits_compare import differences
from mfn.settings import Settings
from mfn.simulator.simulate import simulate_logs
from tests.conftest import SPARK

ROWS, EXTRA = 20_000, 3_000
DIRT = [
    b"",
    b" \t",
    b'{"event_id": "\xe4"}',
    b"[1]",
    b'{"event_id": "cut',
    b'{"event_id": "x", "event_time": 1900000000000, "user_id": "u", "event_type": "cart"'
    b', "item_id": "i1"}',
    b'{"event_id": "x", "context": [1]}',
    b'{"event_id": " ", "event_time": 1}',
    b'{"event_id": "x", "event_time": "2026-03-08T10:00:00Z", "user_id": "u", "event_type": "cart"'
    b', "item_id": "i1", "position": "-1"}',
    b'{"event_id": "x", "event_time": "2026-03-08T25:00:00Z", "user_id": "u", "event_type": "cart"'
    b', "item_id": "i1"}',
    b'{"event_id": "x", "event_time": 1, "user_id": "u", "event_type": "cart", "item_id": "i1"}',
]
"""Lines with faults that do not occur in the simulated logs."""
ITEM = '{{"event_id": "{0}", "event_time": "2026-03-08T12:00:0{1}Z", "user_id": "u0", {2}}}'
AT_ONCE = [
    ITEM.format("z1", 5, '"event_type": "impression", "item_id": "i1", "request_id": "q"'),
    ITEM.format("z2", 5, '"event_type": "impression", "item_id": "i2", "request_id": "q"'),
    ITEM.format("z3", 5, '"event_type": "impression", "item_id": "i2", "position": 0'),
    # A click before its own request: not in that request's history.
    ITEM.format("z4", 3, '"event_type": "click", "item_id": "i1", "request_id": "q"'),
    ITEM.format("z5", 4, '"event_type": "click", "item_id": "i2"'),
    # Belongs to the impression without request id, the later of the two.
    ITEM.format("z6", 7, '"event_type": "click", "item_id": "i1"'),
    # Two behaviours at the same time: the smaller id comes first.
    ITEM.format("z8", 5, '"event_type": "purchase", "item_id": "i3"'),
    ITEM.format("z7", 5, '"event_type": "cart", "item_id": "i4"'),
    # The only impression with a position comes first on its page, although its id is the last.
    ITEM.format("z9", 5, '"event_type": "impression", "item_id": "i5", "position": 7')[:-1]
    + ', "request_id": "q"}',
    *(
        ITEM.format(f"y{n:02}", 6, f'"event_type": "impression", "item_id": "i{n}"')[:-1]
        + ', "request_id": "long"}'
        for n in range(23)
    ),
]
"""Events that do not occur in the simulated logs: equal times, a page of more candidates than fit
into a row, a click before its request."""


class Run:
    """Results of both sides on the same simulated log."""

    def __init__(self, spark: SparkSession, folder: Path) -> None:
        self.folder = folder
        shop = shops.size(ROWS - EXTRA).model_copy(update={"items": 600})
        settings = shops.settings_of(
            folder / "ours",
            folder,
            simulate=shop,
            spark=SPARK,
            validation={"max_user_events": 300, "max_quarantined_share": 0.2, "reference_days": 0},
        )
        self.settings = settings
        simulate_logs(spark, settings)
        shops.add_browsing(settings, EXTRA, "one user", shop.users)
        last = Path(settings.logs_folder("events"), f"dt={settings.date}")
        lines = [*DIRT, *(line.encode() for line in AT_ONCE)]
        Path(last, "dirt.json").write_bytes(b"\n".join(lines) + b"\n")
        self.ours = splits_spark.run(spark, settings)
        self.peers = splits_duckdb.run(settings, folder / "peer")

    def differences_to_peer_with(self, **changes: Any) -> list[str]:
        """Differences to a peer that runs with other settings of splits."""
        changed = self.settings.splits.model_copy(update=changes)
        settings = self.settings.model_copy(update={"splits": changed})
        peers = splits_duckdb.run(settings, self.folder / "other")
        return differences(self.ours, peers, self.folder / "other")


@pytest.fixture(scope="module")
def run(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(spark, tmp_path_factory.mktemp("bench"))


def test_both_sides_have_the_same_outcomes_and_request_rows(run: Run) -> None:
    assert differences(run.ours, run.peers, run.folder / "peer") == []
    assert run.ours["rows"] > 0.9 * ROWS
    outcomes = {name for _, name, _ in run.ours["outcomes"]}
    assert {"clean", "repeat", "blank", "wrong_encoding", "not_json", "bad_context"} <= outcomes
    assert {"missing_event_id", "bad_position", "bad_time", "outside_day"} <= outcomes
    assert {"truncated_line", "future_time", "too_many_events"} <= outcomes


@pytest.mark.parametrize(
    ("wrong", "column"),
    [
        ({"attribution_minutes": 1}, "labels"),
        ({"behaviours": ("click", "cart")}, "history"),
    ],
)
def test_different_request_rows_of_the_peer_are_reported(
    run: Run, wrong: dict[str, Any], column: str
) -> None:
    found = run.differences_to_peer_with(**wrong)
    assert len(found) == 1
    assert found[0].startswith("request rows: ")
    assert f"{column} [" in found[0]


def test_a_different_outcome_of_the_peer_is_reported(run: Run) -> None:
    day, name, rows = run.peers["outcomes"][0]
    peers = {**run.peers, "outcomes": [[day, name, rows + 1], *run.peers["outcomes"][1:]]}
    assert differences(run.ours, peers, run.folder / "peer") == [
        f"{day} {name}: {rows} rows here, {rows + 1} in the peer"
    ]


def test_the_peer_refuses_settings_that_it_does_not_support(run: Run) -> None:
    late = run.settings.validation.model_copy(update={"late_hours": 1.0})
    settings: Settings = run.settings.model_copy(update={"validation": late})
    with pytest.raises(ValueError, match="no late events"):
        splits_duckdb.run(settings, run.folder / "late")


def test_the_line_of_json_has_the_growth_exponent_the_ratios_and_whether_rows_are_equal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def measured(rows: int, seconds: float, **more: Any) -> dict[str, Any]:
        same = dict.fromkeys(
            ("validate_seconds", "build_seconds", "peer_seconds", "peak_memory_mb"), seconds / 2
        )
        rates = dict.fromkeys(("events_per_second", "peer_events_per_second"), rows / seconds)
        peer = {"peer_peak_memory_mb": 1.0, "ratio_to_peer": 2.0, "rows_equal": True}
        return {"name": "run", "rows": rows, "seconds": seconds, **same, **rates, **peer, **more}

    sizes = [measured(1000, 1.0), measured(4000, 8.0)]
    heavy = measured(3000, 4.0, rows_equal=False), measured(3000, 2.0)
    line = json.loads(json.dumps(splits.summary(sizes, *heavy, extra=1000)))
    assert math.isclose(line["growth_exponent"], 1.5)
    assert line["ratio_to_peer"] == 2.0
    assert line["events_per_second"] == 500.0
    assert line["rows_equal"] is False
    assert line["heavy_user"]["build_seconds_ratio"] == 2.0
    splits.print_table(sizes)
    assert "4,000" in capsys.readouterr().out
