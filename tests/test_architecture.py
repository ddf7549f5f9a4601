"""What keeps a room a room: who may import what, and how thin a script is."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from mfn.models.settings import ModelSettings
from mfn.models.table import EXTRACTORS
from pipelines import jobs

pytestmark = pytest.mark.process

REPOSITORY = Path(__file__).parent.parent
MODULES = sorted(REPOSITORY.glob("mfn/**/*.py"))
JOBS = (
    "simulate_logs",
    "ingest",
    "validate_logs",
    "build_splits",
    "pretrain_embeddings",
    "train_centers",
    "train",
    "predict",
    "evaluate",
    "report",
    "compare",
    "clean_up",
)


def imports(source: str) -> Iterator[str]:
    """Every module that the source imports, wherever in it, by its whole name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            dots = "." * node.level
            yield f"{dots}{node.module or ''}"
            yield from (f"{dots}{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call):
            # importlib.import_module("horovod"), __import__("horovod")
            called = ast.unparse(node.func).rpartition(".")[2]
            if called in ("import_module", "__import__") and isinstance(node.args[0], ast.Constant):
                yield str(node.args[0].value)


def importers(package: str) -> list[str]:
    return [
        str(path.relative_to(REPOSITORY))
        for path in MODULES
        if any(name.split(".")[0] == package for name in imports(path.read_text()))
    ]


def calls(path: Path) -> set[str]:
    return {
        ast.unparse(node.func)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
    }


def test_an_import_is_found_wherever_it_stands() -> None:
    """The control of all tests here."""
    source = (
        "import a.b as c\nfrom d import e\ndef f():\n    from .g import h\n"
        "    import_module('horovod.torch')\n"
    )
    assert set(imports(source)) == {"a.b", "d", "d.e", ".g", ".g.h", "horovod.torch"}


@pytest.mark.parametrize(
    ("package", "home"),
    [("petastorm", "mfn/training/feed.py"), ("horovod", "mfn/training/workers.py")],
)
def test_a_package_that_is_hardly_maintained_is_imported_in_one_place(
    package: str, home: str
) -> None:
    assert importers(package) == [home]


@pytest.mark.parametrize("package", ["jobs", "pipelines", "scripts", "tests", "bench"])
def test_the_library_does_not_know_who_uses_it(package: str) -> None:
    assert importers(package) == []


@pytest.mark.parametrize("package", ["pickle", "cPickle", "dill", "joblib", "shelve", "marshal"])
def test_no_artifact_can_be_a_pickle(package: str) -> None:
    assert importers(package) == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_nothing_is_read_or_written_that_could_run_code(path: Path) -> None:
    dangerous = {"torch.load", "torch.save", "eval", "exec", "yaml.unsafe_load"}
    assert not calls(path) & dangerous


@pytest.mark.parametrize("job", JOBS)
def test_every_job_has_a_thin_script(job: str) -> None:
    script = REPOSITORY / "jobs" / f"{job}.py"
    lines = [line for line in script.read_text().splitlines() if line.strip()]
    assert len(lines) <= 15
    assert lines[0].startswith('"""')
    assert lines[-1] == f"    main({job})"
    assert {name.split(".")[0] for name in imports(script.read_text())} == {"mfn"}


@pytest.mark.parametrize("step", jobs.MODULES)
def test_a_step_of_a_day_is_the_job_that_its_script_runs(step: str) -> None:
    """It is loaded late, so that a wrong name would be found in the midst of a day."""
    script = (REPOSITORY / "jobs" / f"{step}.py").read_text().splitlines()
    assert f"from {jobs.MODULES[step]} import {step}" in script


def test_there_is_no_script_beside_those_of_the_jobs() -> None:
    assert {path.stem for path in REPOSITORY.glob("jobs/*.py")} - {"__init__"} == set(JOBS)


HEAVY = ("torch", "horovod", "petastorm", "pandas")


def loaded(statement: str) -> set[str]:
    """Packages that a fresh Python has loaded after the statement."""
    program = f"import sys\n{statement}\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    return {name.split(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize(
    "module", ["mfn.configuration", "mfn.models.settings", "mfn.schema", "mfn.storage"]
)
def test_what_every_job_imports_is_light(module: str) -> None:
    assert not loaded(f"import {module}") & set(HEAVY)


@pytest.mark.parametrize("job", ["simulate_logs", "ingest", "validate_logs", "build_splits"])
def test_a_job_on_data_alone_does_not_wait_for_torch(job: str) -> None:
    packages = loaded(f"import runpy; runpy.run_path('jobs/{job}.py')")
    assert "mfn" in packages
    assert not packages & {"torch", "horovod", "petastorm"}


def test_a_job_that_trains_loads_torch_but_nothing_that_only_pretraining_needs() -> None:
    """The control of the two above; each worker of a training waits for what it loads."""
    packages = loaded("import runpy; runpy.run_path('jobs/train.py')")
    assert "torch" in packages
    assert not packages & {"sklearn", "scipy"}


def test_tasks_that_predict_load_torch_but_no_pandas() -> None:
    """The control is what a worker of a training loads, since Petastorm does."""
    packages = loaded("import mfn.serving.predict")
    assert "torch" in packages
    assert "pandas" not in packages
    assert "pandas" in loaded("import petastorm.reader")


def test_a_day_loads_what_a_step_needs_when_it_comes_to_it() -> None:
    packages = loaded("import pipelines.daily")
    assert {"pyspark", "altair"} <= packages
    assert not packages & {"torch", "horovod", "petastorm", "sklearn"}
    # The controls: a step that trains, and what a step needs now and then.
    assert "torch" in loaded("from pipelines.jobs import job_of; job_of('train')")
    assert "sklearn" in loaded("import mfn.evaluation.bootstrap")


def test_every_extractor_can_be_configured_and_every_configured_one_is_there() -> None:
    kinds = get_args(get_args(ModelSettings)[0])
    assert {kind.model_fields["extractor"].default for kind in kinds} == set(EXTRACTORS)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_everything_public_says_what_it_is_for(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert path.stat().st_size == 0 or ast.get_docstring(tree), path
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{path.name}: {node.name}"
