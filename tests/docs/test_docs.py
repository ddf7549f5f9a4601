"""What README.md and docs/ say exists: links, commands, paths, settings, tables, columns, figures.

Each check is a function from a text to its problems, and has a control: a text with a fault.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import duckdb
import pytest
import yaml
from pyspark.errors import AnalysisException
from pyspark.sql import SparkSession
from pyspark.sql.pandas.types import to_arrow_schema

from mfn.configuration import load_settings, setting_names
from mfn.errors import BadSettings
from mfn.models.settings import ModelSettings
from mfn.schema import TABLES
from mfn.settings import Settings
from pipelines.cli import DAY, SCHEMA
from pipelines.steps import JOBS, steps
from scripts.docs_pages import settings_page, tables_page

REPOSITORY = Path(__file__).resolve().parents[2]
README = REPOSITORY / "README.md"
PAGES = [
    README,
    REPOSITORY / "CONTRIBUTING.md",
    *sorted(REPOSITORY.glob("docs/*.md")),
]
CHANGELOG = REPOSITORY / "CHANGELOG.md"
"""Whose links are checked, too; it also names what exists no more."""
README_LINES = 150

FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")

FOLDERS = "bench|conf|docs|jobs|mfn|pipelines|scripts|study|tests"
PATH = re.compile(rf"(?<![\w./<-])(?:{FOLDERS})/[\w./-]*\w/?")
YOURS = {"conf/mine.yaml", "jobs"}
"""Paths of the reader's own, and what is left of jobs/$job.py."""


def fences(text: str, language: str | None = None) -> list[str]:
    """What stands in fenced blocks."""
    return [code for name, code in FENCE.findall(text) if language in (None, name)]


def codes(text: str) -> Iterator[str]:
    """Every fenced block, and every code span outside of them."""
    yield from fences(text)
    yield from SPAN.findall(FENCE.sub("", text))


def anchors(text: str) -> set[str]:
    """Anchors of the headings of a page, as GitHub makes them."""
    found = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in found}


def broken_links(text: str, page: Path) -> list[str]:
    """Relative links of a page whose file or heading is not there."""
    problems = []
    for link in LINK.findall(FENCE.sub("", text)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path
        there = not path or target.exists()
        if not there or (anchor and anchor not in anchors(target.read_text() if path else text)):
            problems.append(link)
    return problems


def unknown_targets(text: str) -> list[str]:
    """Targets of make that the Makefile does not have."""
    makefile = (REPOSITORY / "Makefile").read_text()
    known = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    named = [name for code in codes(text) for name in re.findall(r"\bmake ([a-z][a-z-]*)", code)]
    return [name for name in named if name not in known]


def unknown_paths(text: str) -> list[str]:
    """Paths of this repository that are named in code and are not there."""
    named = {path.rstrip("/") for code in codes(text) for path in PATH.findall(code)}
    return sorted(path for path in named - YOURS if not (REPOSITORY / path).exists())


def unknown_commands(text: str) -> list[str]:
    """Subcommands of `mfn` that are neither a job nor one of the others."""
    known = {DAY, SCHEMA, *(name.replace("_", "-") for name in JOBS)}
    named = [
        name
        for code in codes(text)
        for name in re.findall(r"(?:^|[\s/])mfn ([a-z][a-z-]+)", code, re.MULTILINE)
    ]
    return [name for name in named if name not in known]


def unknown_settings(text: str) -> list[str]:
    """Names of settings, as --section.name or in a code span, that are not in the tree."""
    sections = set(Settings.model_fields)
    named = [name for code in codes(text) for name in re.findall(r"--([a-z_]+\.[\w.]+)", code)]
    for span in SPAN.findall(FENCE.sub("", text)):
        name = span.partition(" ")[0].rstrip(":")
        if re.fullmatch(r"[a-z_]+(\.([a-z_]+|\*))+", name) and name.split(".")[0] in sections:
            named.append(name)
    return [name for name in named if not _is_setting(name)]


def _is_setting(name: str) -> bool:
    section, _, rest = name.partition(".")
    if section == "models":
        kinds = get_args(get_args(ModelSettings)[0])
        return any(rest.partition(".")[2] in kind.model_fields for kind in kinds)
    if section == "spark" and rest.partition(".")[0] not in ("options", "master"):
        return "." in rest or f"spark.{rest}" in set(setting_names())  # else one of Spark's own
    return rest == "*" or name in set(setting_names())


def refused_yaml(text: str) -> list[str]:
    """Blocks of settings that would be refused."""
    problems = []
    for block in fences(text, "yaml"):
        given = yaml.safe_load(block)
        arguments = [f"--{name}={json.dumps(value)}" for name, value in given.items()]
        try:
            load_settings(None, [*arguments, "--date", "2026-03-08"], {})
        except BadSettings as error:
            problems.append(str(error))
    return problems


NAMES = {table.name.rpartition("/")[2]: table for table in TABLES}
DELTA_TABLE = re.compile(r"delta\.`([^`]+)`")


def queries(text: str) -> list[str]:
    """The SQL of a page, with plain names of tables."""

    def plain(found: re.Match[str]) -> str:
        known = [name for name, table in NAMES.items() if found[1].endswith(f"/{table.name}")]
        return known[0] if known else found[1].rpartition("/")[2]

    return [DELTA_TABLE.sub(plain, one) for one in fences(text, "sql")]


def refused_by_spark(text: str, spark: SparkSession) -> list[str]:
    """Queries that name a table or a column that is not in the schema; `spark` has the tables."""
    problems = []
    for query in queries(text):
        try:
            spark.sql(query)
        except AnalysisException as error:
            problems.append(str(error).partition("\n")[0])
    return problems


def refused_by_duckdb(text: str) -> list[str]:
    """The same in DuckDB's SQL, for queries that name no path."""
    problems = []
    with duckdb.connect() as connection:
        for name, table in NAMES.items():
            connection.register(name, to_arrow_schema(table.columns).empty_table())
        for query in fences(text, "sql"):
            if "delta." in query:
                continue
            try:
                connection.sql(query).fetchall()
            except duckdb.Error as error:
                problems.append(str(error))
    return problems


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
@pytest.mark.parametrize(
    "check", [unknown_targets, unknown_paths, unknown_commands, unknown_settings, refused_yaml]
)
def test_what_a_page_names_exists(check: Callable[[str], list[str]], page: Path) -> None:
    assert check(page.read_text()) == []


@pytest.mark.parametrize(
    ("check", "text", "problems"),
    [
        (unknown_targets, "`make demo` and\n```\nmake tea  # hot\n```\n", ["tea"]),
        (unknown_paths, "`conf/demo.yaml`, `python jobs/trian.py`", ["jobs/trian.py"]),
        (unknown_commands, "`mfn clean-up`\n```\n.venv/bin/mfn clean_up\n```", ["clean"]),
        (unknown_settings, "`train.epochs`, `train.epoch 3`", ["train.epoch"]),
        (unknown_settings, "`x --train.epoch 3`, `--models.a.interests 4`", ["train.epoch"]),
        (unknown_settings, "`models.mfn.interest`, `retention.*`", ["models.mfn.interest"]),
        (unknown_settings, "`spark.local.dir`, `spark.masters`", ["spark.masters"]),
    ],
)
def test_what_does_not_exist_is_found(
    check: Callable[[str], list[str]], text: str, problems: list[str]
) -> None:
    """The control."""
    assert check(text) == problems


def test_settings_that_would_be_refused_are_found() -> None:
    """The control."""
    assert (
        refused_yaml("```yaml\nmodels:\n  base: {}\n  mfn: {similarity_interests: 4}\n```\n") == []
    )
    (problem,) = refused_yaml("```yaml\nmodels:\n  base: {}\n  mfn: {interest: 4}\n```\n")
    assert "models.mfn.interest: there is no such setting" in problem


@pytest.mark.parametrize("page", [*PAGES, CHANGELOG], ids=lambda page: page.name)
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    assert broken_links(page.read_text(), page) == []


def test_a_broken_link_is_found() -> None:
    """The control."""
    text = "# One day\n[a](docs/nowhere.md) [b](LICENSE) [c](#one-day) [d](#two)\n"
    page = REPOSITORY / "page.md"
    assert broken_links(text, page) == ["docs/nowhere.md", "#two"]
    assert broken_links("[f](CONTRIBUTING.md#to-add-a-modle)", page) == [
        "CONTRIBUTING.md#to-add-a-modle"
    ]


@pytest.fixture(scope="module")
def empty_tables(spark: SparkSession) -> SparkSession:
    """A session with an empty view for each table of the schema."""
    for name, table in NAMES.items():
        spark.createDataFrame([], table.columns).createOrReplaceTempView(name)
    return spark


@pytest.mark.parametrize(
    "page", [page for page in PAGES if fences(page.read_text(), "sql")], ids=lambda page: page.name
)
def test_queries_name_tables_and_columns_of_the_schema(
    page: Path, empty_tables: SparkSession
) -> None:
    assert refused_by_spark(page.read_text(), empty_tables) == []
    assert refused_by_duckdb(page.read_text()) == []


def test_a_query_with_a_wrong_table_or_column_is_found(empty_tables: SparkSession) -> None:
    """The control."""
    right = "```sql\nSELECT auc FROM delta.`x/evaluation/metrics`\n```\n"
    assert refused_by_spark(right, empty_tables) == []
    (problem,) = refused_by_spark(right.replace("auc", "acu"), empty_tables)
    assert "acu" in problem
    (problem,) = refused_by_spark(right.replace("metrics", "metric"), empty_tables)
    assert "`metric` cannot be found" in problem
    assert refused_by_duckdb("```sql\nSELECT auc FROM metrics\n```\n") == []
    (problem,) = refused_by_duckdb("```sql\nSELECT acu FROM metrics\n```\n")
    assert "acu" in problem


def test_the_page_of_tables_is_that_of_the_schema() -> None:
    """If not, python scripts/docs_pages.py writes it again. The control is another text."""
    page = REPOSITORY / "docs" / "tables.md"
    assert page.read_text() == tables_page()
    assert page.read_text().replace("`auc` | `double`", "`auc` | `float`") != tables_page()


def test_the_page_of_settings_has_each_of_them() -> None:
    page = settings_page()
    sections = {name.partition(".")[0] for name in setting_names() if "." in name} | {"models"}
    for name in setting_names():
        assert name in sections or f"| `{name}` |" in page, name
    assert "| `train.epoch` |" not in page


def unknown_messages(text: str) -> list[str]:
    """Messages in quotes at the head of a paragraph that no module of mfn writes."""
    sources = (path.read_text() for path in (REPOSITORY / "mfn").rglob("*.py"))
    # A message of several literals is one text; what it puts in is … or N on the page.
    written = re.sub(r'"\s*\n\s*f?"', "", "\n".join(sources))
    problems = []
    for message in re.findall(r'^\*\*[^"\n]*"([^"\n]+)"', text, re.MULTILINE):
        parts = map(re.escape, re.split(r"…|\bN\b", message))
        if not re.search(r"[^\"\n]{1,60}?".join(parts), written):
            problems.append(message)
    return problems


def test_messages_that_the_page_for_people_on_call_quotes_are_written_by_the_code() -> None:
    text = (REPOSITORY / "docs" / "operations.md").read_text()
    assert unknown_messages(text) == []
    wrong = text.replace("failed before its work", "ended before its work")
    assert unknown_messages(wrong) == ["one of N workers ended before its work was done"]


def lines_of(text: str) -> int:
    return len(text.splitlines())


def test_the_readme_is_short() -> None:
    text = README.read_text()
    assert lines_of(text) <= README_LINES
    assert lines_of(text + "more\n" * README_LINES) > README_LINES


DATA_SETS = ("shop", "online_retail", "movielens")
"""In the order of README's columns."""


def wrong_figures(text: str, study: dict[str, Any]) -> list[str]:
    """Rows of README's table of results that are not those of docs/study.json."""
    rows = re.findall(r"^\| \**(\w+)\** \|((?:[^|\n]*\|){6})$", text, re.MULTILINE)
    problems = [] if len(rows) == 9 else [f"{len(rows)} rows"]
    for model, cells in rows[1:]:  # after the header
        found = [cell.strip().strip("*") for cell in cells.split("|")[:-1]]
        expected = []
        for data_set in DATA_SETS:
            one = study["data_sets"][data_set][model]
            value, low, high = (one[f"relaimpr{end}"] for end in ("", "_low", "_high"))
            gain = f"{value:+.1f} % ({low:.1f} to {high:.1f})" if model != "base" else ""
            expected += [f"{one['auc_mean']:.4f}", gain]
        if found != expected:
            problems.append(f"{model}: expected {expected}, got {found}")
    return problems


def test_the_results_of_the_readme_are_those_of_the_study() -> None:
    text, study = README.read_text(), json.loads((REPOSITORY / "docs" / "study.json").read_text())
    assert wrong_figures(text, study) == []
    auc = f"{study['data_sets']['shop']['mfn']['auc_mean']:.4f}"
    assert auc in text
    (problem,) = wrong_figures(text.replace(auc, "0.9999"), study)
    assert problem.startswith("mfn: ")


def missing_steps(picture: str) -> list[str]:
    names = {step.name for made_by in ("ingest", "simulate_logs") for step in steps(made_by)}
    return sorted(name for name in names if not re.search(rf"\b{name}\b", picture))


def test_both_pictures_of_the_flow_have_every_step_of_a_day() -> None:
    (mermaid,) = fences(README.read_text(), "mermaid")
    drawn = (REPOSITORY / "docs" / "flow.svg").read_text()
    for picture in (mermaid, drawn):
        assert missing_steps(picture) == []
        assert missing_steps(picture.replace("train_centers", "")) == ["train_centers"]


def build(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Build the site into a folder, as `make docs` does."""
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder), *more],
        cwd=REPOSITORY,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


LOADED = re.compile(
    r"<(?:script|img|iframe)[^>]*\ssrc=\"?(?:https?:)?//[^>]*>"
    r"|<link[^>]*rel=\"?stylesheet[^>]*href=\"?(?:https?:)?//[^>]*>"
)


@pytest.mark.process
def test_the_site_is_built_without_a_warning_and_loads_nothing_from_other_hosts(
    tmp_path: Path,
) -> None:
    done = build(tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    pages = {path.relative_to(tmp_path): path.read_text() for path in tmp_path.rglob("*.html")}
    assert Path("reference/engine.html") in pages
    assert "Extractor" in pages[Path("reference/models.html")]
    assert 'class="mermaid"' not in "".join(pages.values())  # which would be loaded
    assert {
        str(path): LOADED.findall(page) for path, page in pages.items() if LOADED.search(page)
    } == {}
    # The control of the last one.
    assert LOADED.search('<script defer src="https://unpkg.com/mermaid"></script>')
    assert LOADED.search('<link rel="stylesheet" href="//fonts.googleapis.com/css">')


@pytest.mark.process
def test_a_page_with_a_fault_fails_the_build(tmp_path: Path) -> None:
    """The control: a site of one page that links to nowhere, with the real configuration."""
    docs = tmp_path / "docs"
    docs.mkdir()
    config = tmp_path / "mkdocs.yml"
    config.write_text(
        yaml.safe_dump(
            {
                "INHERIT": str(REPOSITORY / "mkdocs.yml"),
                "docs_dir": str(docs),
                "hooks": [],
                "plugins": [],
                "nav": ["index.md"],
            }
        )
    )
    page = docs / "index.md"
    page.write_text("# A page\n\n[here](index.md#a-page)\n")
    done = build(tmp_path / "site", "--config-file", str(config))
    assert done.returncode == 0, done.stderr[-3000:]
    page.write_text("# A page\n\n[here](index.md#another)\n")
    done = build(tmp_path / "site", "--config-file", str(config))
    assert done.returncode == 1
    assert "'index.md#another', but there is no such anchor on this page" in done.stderr
