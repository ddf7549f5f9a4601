"""Who may import what, and how thin a script is."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from mfn.models.registry import EXTRACTORS
from mfn.models.settings import ModelSettings
from pipelines.steps import JOBS

REPOSITORY = Path(__file__).parent.parent


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Check the contracts of pyproject.toml on the packages in a folder."""
    return subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        cwd=folder,
        env={"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages and the contracts, to be broken."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copy(REPOSITORY / "pyproject.toml", folder)
    for package in ("mfn", "pipelines"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / package, folder / package, ignore=ignored)
    return folder


@pytest.mark.process
def test_the_contracts_on_imports_hold(copy: Path) -> None:
    """The control of the next test."""
    done = lint_imports(copy)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.process
@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("mfn/logs/gates.py", "import mfn.splits.build", "way of the data"),
        ("mfn/new_module.py", "", "way of the data"),
        ("mfn/job.py", "import pipelines.daily", "does not know who uses it"),
        ("mfn/training/loop.py", "import petastorm", "Petastorm"),
        ("mfn/engine/trainer.py", "import horovod.torch", "Horovod"),
        ("mfn/models/artifact.py", "import pickle", "pickle"),
        ("mfn/models/batch.py", "import mfn.tables", "without Spark"),
        ("mfn/splits/build.py", "import mfn.splits.published", "does not load torch"),
        ("mfn/engine/feed.py", "import sklearn", "scikit-learn"),
    ],
)
def test_a_wrong_import_breaks_its_contract(
    copy: Path, module: str, line: str, contract: str
) -> None:
    path = copy / module
    before = path.read_text() if path.exists() else None
    path.write_text(f"{before or ''}\n{line}\n")
    try:
        done = lint_imports(copy)
    finally:
        path.unlink() if before is None else path.write_text(before)
    assert done.returncode == 1, done.stdout + done.stderr
    broken = [one for one in done.stdout.splitlines() if " BROKEN" in one]
    assert any(contract in one for one in broken), done.stdout


@pytest.mark.parametrize("job", JOBS)
def test_every_job_has_a_thin_script(job: str) -> None:
    script = (REPOSITORY / "jobs" / f"{job}.py").read_text()
    lines = [line for line in script.splitlines() if line.strip()]
    assert len(lines) <= 15
    assert lines[0].startswith('"""')
    assert lines[-1] == f"    main({job})"
    # The job is loaded late, so a wrong module in the table of steps would be found during a day.
    assert f"from {JOBS[job].module} import {job}" in lines


def test_there_is_no_script_without_a_job() -> None:
    assert {path.stem for path in REPOSITORY.glob("jobs/*.py")} - {"__init__"} == set(JOBS)


def loaded(module: str) -> set[str]:
    """Packages that a fresh Python has loaded after it imports the module."""
    program = f"import sys\nimport {module}\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    return {name.split(".")[0] for name in done.stdout.split()}


@pytest.mark.process
def test_tasks_that_predict_load_torch_but_no_pandas() -> None:
    """Other packages would load pandas, which no contract on our own imports can see.

    The control is Petastorm, which loads it.
    """
    packages = loaded("mfn.serving.predict")
    assert "torch" in packages
    assert "pandas" not in packages
    assert "pandas" in loaded("petastorm.reader")


def test_every_extractor_can_be_configured_and_every_configured_one_is_there() -> None:
    kinds = get_args(get_args(ModelSettings)[0])
    assert {kind.model_fields["extractor"].default for kind in kinds} == set(EXTRACTORS)
