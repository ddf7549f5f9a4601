"""The peer of `bench/splits.py`: raw logs to request rows in DuckDB, on one machine.

It follows the rules of `mfn.logs.validate` and `mfn.splits`, in efficient SQL: every intermediate
result is a table in memory (DuckDB spills it to disk if it does not fit), users, items and requests
are numbered once, so that joins and groups use integers, and there are no unnecessary sorts. It
does not do all that the pipeline does: it makes no other vocabularies and no item attributes, does
not commit to Delta, and does not shuffle rows into files. Days are in UTC and events cannot be
late; other settings are refused. No request id may occur again after its attribution window.

**Histories.** A user's behaviours are numbered in order and stored in blocks of N. A request with n
earlier behaviours takes the end of the last two blocks. So the work is proportional to behaviours
plus requests, not to their product. Few requests have earlier behaviours with their own request
id; these are joined with the user's behaviours directly.

    python -m bench.splits_duckdb TASK.json RESULT.json
"""

from __future__ import annotations

import datetime
import shutil
import time
from pathlib import Path
from string import Template
from typing import Any

import duckdb

from bench import measure
from mfn.indices import FIRST_INDEX, PADDING, UNKNOWN
from mfn.settings import Settings
from mfn.splits.requests import SPLITS
from mfn.windows import windows

ROWS, EVENTS, QUARANTINE, ITEMS = "rows", "events", "quarantine", "items.parquet"

_READ = """
CREATE TEMP TABLE judged AS
WITH line AS (
    SELECT line, dt, source_file
    FROM read_csv(
        $lines, columns = {'line': 'VARCHAR'}, auto_detect = false, header = false,
        delim = '\x01', quote = '', escape = '', comment = '', new_line = '\\n',
        max_line_size = 16777216, ignore_errors = true, store_rejects = true,
        filename = 'source_file', hive_partitioning = true, hive_types = {'dt': DATE}
    )
), parsed AS (
    SELECT *,
        CASE WHEN starts_with(ltrim(line, E' \\t\\r'), '{') AND json_valid(line) THEN from_json(
            line,
            '{"event_id": "VARCHAR", "event_time": "VARCHAR", "user_id": "VARCHAR",
              "event_type": "VARCHAR", "item_id": "VARCHAR", "request_id": "VARCHAR",
              "position": "VARCHAR", "context": "MAP(VARCHAR, VARCHAR)"}'
        ) END AS event
    FROM line
), timed AS (
    SELECT *, trim(event.event_time) AS given_time,
        CASE
            WHEN regexp_full_match(
                given_time,
                '\\d{4}-\\d\\d-\\d\\d[T ]\\d\\d:\\d\\d(:\\d\\d(\\.\\d{1,9})?)?'
                || '(Z|[+-]\\d\\d(:?\\d\\d)?)?'
            ) THEN try_cast(given_time AS TIMESTAMPTZ)::TIMESTAMP
            WHEN regexp_full_match(given_time, '-?\\d{1,14}')
                THEN make_timestamp(1000 * given_time::BIGINT)
        END AS time,
        nullif(trim(event.position), '') AS place,
        nullif(trim(event.request_id), '') AS request
    FROM parsed
), checked AS (
    SELECT *,
        CASE
            WHEN coalesce(trim(line, E' \\t\\r\\f\\v'), '') = '' THEN 'blank'
            WHEN event IS NULL AND starts_with(trim(line, E' \\t\\r\\f\\v'), '{')
                AND NOT ends_with(trim(line, E' \\t\\r\\f\\v'), '}') THEN 'truncated_line'
            WHEN event IS NULL THEN 'not_json'
            WHEN event.context IS NULL AND contains(line, '"context"')
                AND coalesce(json_type(line, '$$.context'), 'NULL') <> 'NULL' THEN 'bad_context'
            WHEN coalesce(trim(event.event_id), '') = '' THEN 'missing_event_id'
            WHEN coalesce(given_time, '') = '' THEN 'missing_event_time'
            WHEN coalesce(trim(event.user_id), '') = '' THEN 'missing_user_id'
            WHEN coalesce(trim(event.event_type), '') = '' THEN 'missing_event_type'
            WHEN coalesce(trim(event.item_id), '') = '' THEN 'missing_item_id'
            WHEN event.event_type NOT IN ('impression', 'click', 'cart', 'purchase')
                THEN 'unknown_event_type'
            WHEN time IS NULL THEN 'bad_time'
            WHEN time::DATE < dt THEN 'outside_day'
            WHEN time::DATE > dt THEN 'future_time'
            WHEN place IS NOT NULL AND NOT regexp_full_match(place, '\\d{1,9}(\\.0+)?')
                THEN 'bad_position'
            WHEN greatest(
                length(event.event_id), length(event.user_id), length(event.item_id),
                length(request)
            ) > $id_length THEN 'id_too_long'
        END AS reason
    FROM timed
)
SELECT
    dt, reason,
    CASE WHEN reason IS NOT NULL THEN source_file END AS source_file,
    CASE WHEN reason IS NOT NULL THEN line END AS raw,
    event.event_id, time AS event_time, event.user_id, event.event_type, event.item_id,
    request AS request_id,
    CASE WHEN reason IS NULL THEN split_part(place, '.', 1)::INTEGER END AS position,
    event.context
FROM checked;
"""

_REJECTED = """
INSERT INTO judged (dt, reason, source_file, raw)
SELECT
    regexp_extract(file_path, 'dt=([0-9-]{10})', 1)::DATE,
    CASE WHEN bool_or(error_type = 'INVALID ENCODING') THEN 'wrong_encoding' ELSE 'not_json' END,
    file_path, any_value(csv_line)
FROM reject_errors JOIN reject_scans USING (scan_id, file_id)
GROUP BY file_path, line;
"""

_CLEAN = """
CREATE TEMP TABLE twice AS
SELECT dt, event_id FROM judged WHERE reason IS NULL GROUP BY ALL HAVING count(*) > 1;

CREATE TEMP TABLE event AS
SELECT dt, event_id, event_time, user_id, event_type, item_id, request_id, position, context
FROM judged ANTI JOIN twice USING (dt, event_id)
WHERE reason IS NULL
UNION ALL
SELECT dt, event_id, event_time, user_id, event_type, item_id, request_id, position, context
FROM judged SEMI JOIN twice USING (dt, event_id)
WHERE reason IS NULL
QUALIFY row_number() OVER (
    PARTITION BY dt, event_id
    ORDER BY event_time, user_id, event_type, item_id, request_id NULLS FIRST,
        position NULLS FIRST, map_keys(context) NULLS FIRST, map_values(context) NULLS FIRST
) = 1;
"""

_BOTS = """
CREATE TEMP TABLE busy AS
SELECT dt, user_id FROM event GROUP BY ALL HAVING count(*) > $user_events;

CREATE TEMP TABLE too_many AS
SELECT * FROM event SEMI JOIN busy USING (dt, user_id)
QUALIFY row_number() OVER (PARTITION BY dt, user_id ORDER BY event_time, event_id) > $user_events;

DELETE FROM event USING too_many
WHERE event.dt = too_many.dt AND event.event_id = too_many.event_id;
"""

_OUTCOMES = """
WITH outcome AS (
    SELECT dt, coalesce(reason, 'read') AS name, count(*) AS rows FROM judged GROUP BY ALL
    UNION ALL
    SELECT dt, 'clean', count(*) FROM event GROUP BY ALL
    UNION ALL
    SELECT dt, 'too_many_events', count(*) FROM too_many GROUP BY ALL
)
SELECT dt, name, rows FROM outcome WHERE name <> 'read'
UNION ALL
SELECT dt, 'repeat', sum(CASE name WHEN 'read' THEN rows ELSE -rows END)
FROM outcome WHERE name IN ('read', 'clean', 'too_many_events') GROUP BY dt
"""

_VOCABULARY = """
CREATE TEMP TABLE vocabulary AS
SELECT item_id,
    (row_number() OVER (ORDER BY first_day, item_id) + $first_index - 1)::INTEGER AS index
FROM (
    SELECT item_id, min(dt) AS first_day
    FROM read_json(
        $items, format = 'newline_delimited', columns = {'item_id': 'VARCHAR'},
        ignore_errors = true, hive_partitioning = true, hive_types = {'dt': DATE}
    )
    WHERE nullif(item_id, '') IS NOT NULL AND dt <= $last_day
    GROUP BY item_id
);
COPY vocabulary TO $items_file (FORMAT parquet);
"""

_NUMBERED = """
CREATE TEMP TABLE item AS  -- the order of the numbers is that of the ids
SELECT row_number() OVER (ORDER BY item_id)::INTEGER AS item, item_id,
    coalesce(index, $unknown) AS index
FROM (SELECT DISTINCT item_id FROM event) LEFT JOIN vocabulary USING (item_id);

CREATE TEMP TABLE user_ AS
SELECT row_number() OVER ()::INTEGER AS user, user_id FROM (SELECT DISTINCT user_id FROM event);

CREATE TEMP TABLE impression AS
SELECT user, item, event_time AS time, position,
    request_id IS NOT NULL AS named, coalesce(request_id, event_id) AS request
FROM event JOIN item USING (item_id) JOIN user_ USING (user_id)
WHERE event_type = 'impression' AND event_time >= $first_shown AND event_time < $end;

CREATE TEMP TABLE click AS
SELECT user, item, event_time AS time, request_id, event_id
FROM event JOIN item USING (item_id) JOIN user_ USING (user_id)
WHERE event_type = 'click' AND event_time >= $first_shown AND event_time <= $last_clicked;

CREATE TEMP TABLE behaviour AS
SELECT user, event_time AS time, event_id, request_id, index
FROM event JOIN item USING (item_id) JOIN user_ USING (user_id)
WHERE list_contains($behaviours, event_type) AND event_time >= $first AND event_time < $end;
"""

_REQUESTS = """
CREATE TEMP TABLE request AS
SELECT row_number() OVER ()::INTEGER AS r, user, named, request, time,
    len(list_filter($starts, lambda start: start <= time)) - 1 AS split
FROM (
    SELECT user, named, request, min(time) AS time FROM impression GROUP BY user, named, request
);

CREATE TEMP TABLE candidate AS
SELECT r, item, min(shown.time) AS time,
    CASE WHEN count(*) = 1 THEN any_value(position)
        ELSE arg_min_null(position, (shown.time, coalesce(position, 2147483647))) END AS position
FROM impression AS shown JOIN request USING (user, named, request)
WHERE shown.time <= request.time + $attribution
GROUP BY r, item;

-- A click without request id belongs to the request of the latest impression before it.
CREATE TEMP TABLE clicked AS
WITH named_click AS (
    SELECT r, item, click.time
    FROM click JOIN request
        ON click.user = request.user AND request.named AND click.request_id = request.request
    UNION ALL
    SELECT r, item, nearest.time
    FROM (
        SELECT click.user, item, click.time, event_id,
            max((impression.time, named, request)) AS last
        FROM impression JOIN click USING (user, item)
        WHERE click.request_id IS NULL
            AND click.time BETWEEN impression.time AND impression.time + $attribution
        GROUP BY ALL
    ) AS nearest
    JOIN request
        ON nearest.user = request.user AND last[2] = request.named AND last[3] = request.request
)
SELECT DISTINCT r, item
FROM candidate JOIN named_click AS click USING (r, item) JOIN request USING (r)
WHERE click.time BETWEEN candidate.time AND request.time + $attribution;

CREATE TEMP TABLE slate AS
SELECT r,
    list(
        {'index': index, 'label': (clicked.r IS NOT NULL)::INTEGER, 'id': item_id}
        ORDER BY position NULLS LAST, item
    ) AS candidates
FROM candidate JOIN item USING (item) LEFT JOIN clicked USING (r, item)
GROUP BY r;
"""

_HISTORIES = """
CREATE TEMP TABLE counted AS
SELECT user, r, index,
    count(index) OVER (
        PARTITION BY user ORDER BY time, r IS NULL, event_id ROWS UNBOUNDED PRECEDING
    )::INTEGER AS n
FROM (
    SELECT user, time, NULL::INTEGER AS r, event_id, index FROM behaviour
    UNION ALL
    SELECT user, time, r, NULL, NULL FROM request WHERE split >= 0
);

CREATE TEMP TABLE block AS
SELECT user, (n - 1) // $length AS block, list(index ORDER BY n) AS items
FROM counted WHERE index IS NOT NULL GROUP BY ALL;

CREATE TEMP TABLE history AS
WITH last_block AS (
    SELECT r, user, n, (n - 1) // $length AS block, ((n - 1) % $length)::INTEGER + 1 AS filled
    FROM counted WHERE r IS NOT NULL
), own AS (  -- requests with earlier behaviours that have the request's id
    SELECT DISTINCT request.r, request.user, request.time, request.request
    FROM request JOIN behaviour
        ON request.user = behaviour.user AND named AND request.request = behaviour.request_id
        AND behaviour.time < request.time
), without_own AS (
    SELECT r,
        list_reverse(list(index ORDER BY behaviour.time DESC, event_id DESC)[:$length]) AS items
    FROM own JOIN behaviour
        ON own.user = behaviour.user AND behaviour.time < own.time
        AND own.request IS DISTINCT FROM behaviour.request_id
    GROUP BY r
)
SELECT r,
    CASE
        WHEN own.r IS NOT NULL THEN coalesce(without_own.items, [])
        WHEN n = 0 THEN []
        ELSE coalesce(before.items, [])[filled + 1:] || newest.items[:filled]
    END AS items
FROM last_block
LEFT JOIN block AS newest ON n > 0 AND last_block.user = newest.user
    AND last_block.block = newest.block
LEFT JOIN block AS before ON n > 0 AND last_block.user = before.user
    AND last_block.block - 1 = before.block
LEFT JOIN own USING (r)
LEFT JOIN without_own USING (r);
"""

_ROWS = """
CREATE TEMP TABLE written AS
SELECT split, request AS request_id, user_id, request.time AS request_time, items AS history,
    slate, candidates[slate * $width + 1 : (slate + 1) * $width] AS candidates
FROM (
    SELECT r, candidates, unnest(range(0, len(candidates), $width)) // $width AS slate
    FROM slate
) AS slate
JOIN request USING (r) JOIN history USING (r) JOIN user_ USING (user)
WHERE split >= 0 AND request.time + $attribution <= $complete_until;
"""

_WRITE_ROWS = """
COPY (
    SELECT $split_names[split + 1] AS split, request_id, user_id, request_time,
        list_resize(history, $length, $padding) AS history,
        len(history)::INTEGER AS history_length,
        list_resize([one.index FOR one IN candidates], $width, $padding) AS candidates,
        list_resize([one.label FOR one IN candidates], $width, $padding) AS labels,
        len(candidates)::INTEGER AS candidate_count,
        [one.id FOR one IN candidates] AS candidate_ids
    FROM written
) TO $rows_folder (FORMAT parquet, PARTITION_BY (split))
"""

_WRITE_EVENTS = """
COPY event TO $events_folder (FORMAT parquet, PARTITION_BY (dt));
COPY (
    SELECT dt, reason, source_file, raw FROM judged WHERE reason <> 'blank'
    UNION ALL
    SELECT dt, 'too_many_events', NULL, to_json(too_many)::VARCHAR FROM too_many
)
TO $quarantine_folder (FORMAT parquet, PARTITION_BY (dt));
DROP TABLE judged;
"""

_STEPS = {
    "read and check": _READ + _REJECTED,
    "repeats": _CLEAN,
    "bots": _BOTS,
    "count": _OUTCOMES,
    "write events": _WRITE_EVENTS,
    "number": _VOCABULARY + _NUMBERED,
    "requests": _REQUESTS,
    "histories": _HISTORIES,
    "write rows": _ROWS + _WRITE_ROWS,
}
"""Statements in order; those of the step "count" return rows."""


def run(settings: Settings, folder: Path, threads: int = 2) -> dict[str, Any]:
    """Turn the settings' raw logs into `folder`/rows; also write events, quarantine and items.

    Returns:
        seconds, in total; steps, seconds by step; outcomes, lists of day, outcome and rows.

    Raises:
        ValueError: the settings allow late events or have days in another time zone.
    """
    checks, logs = settings.validation, settings.logs
    zones = {logs.time_zone, logs.day_time_zone}
    if checks.late_hours or checks.early_minutes or zones != {"UTC"}:
        raise ValueError("expected days in UTC and no late events: the peer supports only these")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    constants = _constants(settings, folder)
    outcomes: list[list[Any]] = []
    seconds = {}
    with duckdb.connect() as database:
        database.execute(f"SET threads = {threads}; SET TimeZone = 'UTC'")
        database.execute("SET preserve_insertion_order = false")
        database.execute(f"SET temp_directory = {_literal(str(folder / 'spilled'))}")
        start = time.perf_counter()
        for name, statements in _STEPS.items():
            step_start = time.perf_counter()
            result = database.execute(Template(statements).substitute(constants))
            if name == "count":
                outcomes = [[str(day), *rest] for day, *rest in result.fetchall()]
            seconds[name] = time.perf_counter() - step_start
        total = time.perf_counter() - start
    return {"seconds": total, "steps": seconds, "outcomes": outcomes}


def _constants(settings: Settings, folder: Path) -> dict[str, str]:
    """Values of the $names in the statements, as SQL."""
    splits, dates = settings.splits, windows(settings.date, settings.windows)
    starts = [_midnight(getattr(dates, split)[0]) for split in SPLITS]
    end = _midnight(settings.date + datetime.timedelta(days=1))
    attribution = datetime.timedelta(minutes=splits.attribution_minutes)
    values = {
        "lines": [f"{settings.logs_folder('events')}/dt={day}/*.json*" for day in dates.days],
        "items": f"{settings.logs_folder('items')}/dt=*/*.json*",
        "id_length": settings.validation.max_id_length,
        "user_events": settings.validation.max_user_events,
        "first_index": FIRST_INDEX,
        "unknown": UNKNOWN,
        "padding": PADDING,
        "last_day": settings.date,
        "first": _midnight(dates.days[0]),
        "first_shown": starts[0] - attribution,
        "starts": starts,
        "end": end,
        "last_clicked": end + attribution,
        # No folder after the run date is read, so the logs are complete until the end of that day.
        "complete_until": end - datetime.timedelta(microseconds=1),
        "attribution": attribution,
        "behaviours": list(splits.behaviours),
        "length": splits.history_length,
        "width": splits.candidates,
        "split_names": list(SPLITS),
        "rows_folder": str(folder / ROWS),
        "events_folder": str(folder / EVENTS),
        "quarantine_folder": str(folder / QUARANTINE),
        "items_file": str(folder / ITEMS),
    }
    return {name: _literal(value) for name, value in values.items()}


def _midnight(day: datetime.date) -> datetime.datetime:
    return datetime.datetime.combine(day, datetime.time())


def _literal(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    if isinstance(value, datetime.timedelta):
        return f"to_microseconds({value // datetime.timedelta(microseconds=1)})"
    if isinstance(value, datetime.datetime):
        return f"TIMESTAMP '{value}'"
    if isinstance(value, datetime.date):
        return f"DATE '{value}'"
    return str(value) if isinstance(value, int) else "'" + str(value).replace("'", "''") + "'"


def _serve(task: Any) -> dict[str, Any]:
    return run(Settings(**task["settings"]), Path(task["folder"]))


if __name__ == "__main__":
    measure.serve(_serve)
