"""Pages of the documentation that are made from the code, and the hooks of the site.

    python scripts/docs_pages.py      writes docs/tables.md from mfn/schema.py

docs/tables.md is committed, so that it can be read without the site; a test compares it with the
schema. The other pages exist in the site only: settings, one page of reference for each package,
CONTRIBUTING.md and CHANGELOG.md. mkdocs.yml names this file as its hooks.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File
from pyspark.sql.types import StructType

from mfn import schema
from mfn.schema import TABLES
from mfn.settings import Settings
from mfn.settings_help import ALL_SECTIONS, MODELS

REPOSITORY = Path(__file__).resolve().parents[1]
INCLUDED = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Files at the top of the repository that are pages of the site."""
_LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")

WRITTEN_BY = {
    "events": ("validate_logs", "The clean events: one row for each event of the raw logs."),
    "quarantine": ("validate_logs", "The rows of the raw logs that are not events, and why."),
    "validation": ("validate_logs", "How many rows of a day had which outcome."),
    "validation_measures": (
        "validate_logs",
        "What the gates measured of a day, also of a day that they refused.",
    ),
    "vocabularies": ("build_splits", "The index of each item, category and other value."),
    "interest_centers": ("train_centers", "What each interest center is about, in words."),
    "predictions": ("predict", "One row for each model and candidate of the test window."),
    "evaluation/metrics": ("evaluate", "AUC and log loss of each model, for each slice."),
    "evaluation/comparisons": ("evaluate", "RelaImpr of each model over the base model."),
    "evaluation/over_seeds": (
        "compare",
        "Each model trained with several seeds, with an interval for RelaImpr.",
    ),
    "evaluation/runs": ("every job", "One row for each step that ran, was skipped or failed."),
}
"""The job that writes each Delta table, and what a row is."""

FILES = {
    "raw/events/dt=YYYY-MM-DD": (
        schema.RAW_EVENT,
        "Your log of a day: JSON lines or Parquet. Every value is read as text and checked later.",
    ),
    "raw/items/dt=YYYY-MM-DD": (schema.RAW_ITEM, "The catalogue as it was in the morning."),
    "raw/users/dt=YYYY-MM-DD": (schema.RAW_USER, "The users' profiles, if you have any."),
    "raw/truth/dt=YYYY-MM-DD": (schema.TRUTH, "Written by `simulate_logs` only."),
    "splits/DATE/{pretraining,pretraining_validation,train,test}": (
        schema.REQUEST_ROWS,
        "Written by `build_splits`: one row for each request.",
    ),
    "splits/DATE/items": (schema.ITEM_ROWS, "Written by `build_splits`: the item table."),
}
"""Folders of plain files, by their path under the root."""


def tables_page() -> str:
    """docs/tables.md: every table and folder with its path, partitions and columns."""
    parts = [
        "# Tables and columns\n",
        "This page is made from `mfn/schema.py` by `python scripts/docs_pages.py`: change the "
        "schema, not the page. `ROOT` is the setting `root`, a folder or URL. "
        "[Questions and queries](analysts.md) shows how to read the tables.\n",
        "## Delta tables\n",
        "| table | written by | content |\n|---|---|---|\n"
        + "\n".join(
            f"| [`{table.name}`](#{_anchor(table.name)}) | {WRITTEN_BY[table.name][0]} | "
            f"{WRITTEN_BY[table.name][1]} |"
            for table in TABLES
        )
        + "\n",
    ]
    for table in TABLES:
        job, what = WRITTEN_BY[table.name]
        by = job if " " in job else f"`{job}`"
        partitions = ", ".join(f"`{name}`" for name in table.partitions)
        parts += [
            f"### {table.name}\n",
            f"{what} Written by {by}. Path: `ROOT/{table.name}`, partitioned by {partitions}.\n",
            _columns(table.columns),
        ]
    parts.append("## Files\n")
    for path, (columns, what) in FILES.items():
        parts += [f"### {path}\n", f"{what} Path: `ROOT/{path}`.\n", _columns(columns)]
    parts += [
        "## Other folders\n",
        "| path under `ROOT` | what |\n|---|---|\n"
        "| `embeddings/DATE`, `centers/DATE` | the frozen embedding E and the centers C |\n"
        "| `models/DATE/NAME` | a model: safetensors and JSON |\n"
        "| `reports/DATE.html`, `reports/DATE.json` | the report page; its summary for the "
        "terminal |\n"
        "| `tensorboard/DATE/NAME` | event files, if `train.tensorboard` is true |\n"
        "| `made/DATE` | for each job: a fingerprint of its inputs, and which run may write |\n"
        "| `made/all` | which run of `validate_logs` may write; the validated days, to find them "
        "quickly |\n",
        "A published folder holds `versions/` and a small file `CURRENT`, which names the version "
        "to read.\n",
    ]
    return "\n".join(parts)


def _columns(columns: StructType) -> str:
    lines = ["| column | type | meaning |", "|---|---|---|"]
    for column in columns:
        kind = f"`{column.dataType.simpleString()}`"
        null = "" if column.nullable else ", never null"
        lines.append(f"| `{column.name}` | {kind}{null} | {column.metadata['comment']} |")
    return "\n".join(lines) + "\n"


def _anchor(heading: str) -> str:
    """A heading's anchor, as GitHub and the site make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def settings_page() -> str:
    """Every setting with its default and meaning, section by section."""
    parts = [
        "# Settings\n",
        "Each setting can be given in the YAML file that `--config` names, in the environment "
        "(`MFN_TRAIN__EPOCHS=2`) or as an argument (`--train.epochs 2`). An argument wins over the "
        "environment, and the environment wins over the file. The settings of the models are in "
        "the [reference](reference/models.md).\n",
    ]
    tree = Settings.model_fields
    sections: dict[str, Any] = {"": {n: one for n, one in tree.items() if n not in ALL_SECTIONS}}
    for section in ALL_SECTIONS:
        if section != MODELS:
            kind: Any = tree[section].annotation
            sections[section] = kind.model_fields
    for section, fields in sections.items():
        if section:
            summary = (tree[section].annotation.__doc__ or "").splitlines()[0]
            parts.append(f"## {section}\n\n{summary}\n")
        lines = ["| setting | default | meaning |", "|---|---|---|"]
        for name, field in fields.items():
            full = f"{section}.{name}".lstrip(".")
            lines.append(f"| `{full}` | {_default(field)} | {field.description} |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _default(field: Any) -> str:
    if field.is_required():
        return "*required*"
    value = field.default
    if value in (None, (), "", {}):
        return "–"
    if isinstance(value, tuple):
        value = ",".join(map(str, value))
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def reference_pages() -> Iterator[tuple[str, str]]:
    """A page for each package of mfn: its modules with what they offer, from their docstrings."""
    packages: dict[str, list[str]] = {}
    for path in sorted((REPOSITORY / "mfn").rglob("*.py")):
        module = path.relative_to(REPOSITORY).with_suffix("").parts
        if module[-1] != "__init__":
            packages.setdefault(".".join(module[:-1]), []).append(".".join(module))
    for package, modules in packages.items():
        directives = "\n\n".join(f"::: {module}" for module in modules)
        yield _reference(package), f"# {package}\n\n{directives}\n"


def _reference(package: str) -> str:
    return f"reference/{package.removeprefix('mfn.')}.md"


def on_config(config: Any) -> Any:
    """Put the pages of reference into the navigation."""
    section = next(one["Reference"] for one in config.nav if "Reference" in one)
    section += [
        {page.partition("\n")[0].removeprefix("# "): name} for name, page in reference_pages()
    ]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made from the code, and those of the top of the repository."""
    pages = {"settings.md": settings_page(), **dict(reference_pages())}
    for source, name in INCLUDED.items():
        pages[name] = (REPOSITORY / source).read_text(encoding="utf-8")
    for name, content in pages.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Replace links out of docs/ by links to the site's page of the same, or by their text."""
    folder = "" if page.file.src_uri in INCLUDED.values() else "docs"

    def replaced(found: re.Match[str]) -> str:
        text, link = found.groups()
        target = _target(link, folder)
        return text if target is None else f"[{text}]({target})"

    return _LINK.sub(replaced, markdown)


def _target(link: str, folder: str) -> str | None:
    """The site's link for a link of a page in this folder; None if the site has no such page."""
    path, _, anchor = link.partition("#")
    if not path or "://" in link or path.startswith("mailto:"):
        return link
    path = posixpath.normpath(posixpath.join(folder, path))
    anchor = f"#{anchor}" if anchor else ""
    if path in INCLUDED:
        return f"{INCLUDED[path]}{anchor}"
    if path.startswith("docs/"):
        return f"{path.removeprefix('docs/')}{anchor}"
    if path.startswith("mfn/") and path.endswith(".py"):
        module = path.removesuffix(".py").replace("/", ".")
        return f"{_reference(module.rpartition('.')[0])}#{module}"
    return None


if __name__ == "__main__":
    (REPOSITORY / "docs" / "tables.md").write_text(tables_page(), encoding="utf-8")
