"""What a newcomer's machine lacks is told in plain words, and a finished set-up costs nothing."""

from __future__ import annotations

import ast
import importlib.util
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from types import ModuleType

import pytest
from pyspark.sql import SparkSession

from mfn.spark import shared_classes

pytestmark = pytest.mark.process

REPOSITORY = Path(__file__).parent.parent
SCRIPT = REPOSITORY / "scripts" / "set_up.py"


class Machine:
    """A checkout of its own, with a PATH that holds only the given tools, and an empty cache."""

    def __init__(self, folder: Path) -> None:
        self.checkout = folder / "checkout"
        self.bin = folder / "bin"
        self.cache = folder / "cache"
        (self.checkout / "scripts").mkdir(parents=True)
        self.bin.mkdir()
        for name in ("requirements.lock", "setup.py", "scripts/set_up.py"):
            shutil.copy(REPOSITORY / name, self.checkout / name)
        self.environment = {
            "PATH": str(self.bin),
            "XDG_CACHE_HOME": str(self.cache),
            "PIP_NO_INDEX": "1",  # should a set-up begin after all, it ends soon
        }

    def tool(self, name: str, output: str = "") -> None:
        """Put a program on the PATH that prints `output`."""
        path = self.bin / name
        path.write_text(f"#!/bin/sh\necho '{output}' >&2\n")
        path.chmod(0o755)

    def has_all(self) -> None:
        self.tool("java", 'openjdk version "17.0.15" 2025-04-15')
        self.tool("c++")

    def missing(self) -> list[str]:
        """What `missing` says there; it installs nothing."""
        program = "import set_up; print('\\n'.join(set_up.missing()))"
        done = self._run("-c", program, PYTHONPATH=str(self.checkout / "scripts"))
        assert done.returncode == 0, done.stderr
        return done.stdout.split("\n")[:-1] if done.stdout.strip() else []

    def set_up(self) -> subprocess.CompletedProcess[str]:
        return self._run(str(self.checkout / "scripts" / "set_up.py"))

    def module(self) -> ModuleType:
        """The script as a module, in this process, for its paths and its state."""
        path = self.checkout / "scripts" / "set_up.py"
        spec = importlib.util.spec_from_file_location("set_up_of_checkout", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    def fill_cache(self) -> None:
        module = self.module()
        for path in (
            module._horovod_wheels() / "horovod-0-cp311.whl",
            module._pyspark_wheels() / "pyspark-0.whl",
            module._jars() / "delta.jar",
        ):
            inside = self.cache / path.relative_to(module.CACHE.parent)
            inside.parent.mkdir(parents=True)
            inside.touch()

    def _run(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *words],
            capture_output=True,
            text=True,
            check=False,
            env={**self.environment, **environment},
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path)
    machine.has_all()
    return machine


def test_a_machine_that_has_all_lacks_nothing(machine: Machine) -> None:
    assert machine.missing() == []


def test_no_java_is_told_with_where_to_get_it(machine: Machine) -> None:
    (machine.bin / "java").unlink()
    (line,) = machine.missing()
    assert "the PATH has no `java` that runs" in line
    assert "apt-get install openjdk-17-jre-headless" in line
    assert "https://adoptium.net" in line


@pytest.mark.parametrize(
    ("version", "spoken"), [("1.8.0_402", "8"), ("11.0.22", "11"), ("25", "25")]
)
def test_another_java_is_told(machine: Machine, version: str, spoken: str) -> None:
    machine.tool("java", f'openjdk version "{version}" 2025-04-15')
    (line,) = machine.missing()
    assert f"the PATH has version {spoken}." in line


def test_the_java_of_java_home_is_the_one_that_counts(machine: Machine, tmp_path: Path) -> None:
    machine.environment["JAVA_HOME"] = "/no/java"
    (line,) = machine.missing()
    assert "JAVA_HOME, /no/java, has no `java` that runs" in line
    (tmp_path / "java" / "bin").mkdir(parents=True)
    shutil.move(machine.bin / "java", tmp_path / "java" / "bin" / "java")
    machine.environment["JAVA_HOME"] = str(tmp_path / "java")
    assert machine.missing() == []


def test_no_compiler_is_told_unless_the_wheel_is_there(machine: Machine) -> None:
    (machine.bin / "c++").unlink()
    (line,) = machine.missing()
    assert "there is neither `c++` nor `g++`" in line
    assert "apt-get install g++" in line
    machine.fill_cache()
    assert machine.missing() == []


def test_a_cache_that_cannot_be_written_is_told_before_anything_is_built(machine: Machine) -> None:
    machine.cache.write_text("a file, where a folder should be")
    (line,) = machine.missing()
    assert f"{machine.cache} cannot be written to" in line
    assert "export XDG_CACHE_HOME=" in line


def test_all_that_is_missing_is_told_at_once_and_nothing_is_begun(machine: Machine) -> None:
    for tool in ("java", "c++"):
        (machine.bin / tool).unlink()
    done = machine.set_up()
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert [line.split()[1] for line in lines] == ["Java", "A"]
    assert all(line.startswith("set-up: ") for line in lines)
    assert not (machine.checkout / ".venv").exists()
    assert not machine.cache.exists()


def test_an_older_python_gets_as_far_as_saying_that_it_is_one() -> None:
    """Python 3.9 and older cannot evaluate `X | None`, nor 3.8 and older `list[X]`."""
    tree = ast.parse(SCRIPT.read_text(), feature_version=(3, 7))
    annotations = [
        annotation
        for node in ast.walk(tree)
        for annotation in (getattr(node, "annotation", None), getattr(node, "returns", None))
        if annotation is not None
    ]
    assert len(annotations) > 10
    for annotation in annotations:
        assert isinstance(annotation, ast.Name | ast.Constant), ast.unparse(annotation)


def test_a_finished_set_up_is_found_again_in_no_time(machine: Machine) -> None:
    machine.fill_cache()
    (machine.checkout / ".venv").mkdir()
    stamp = machine.checkout / ".venv" / "set_up"
    stamp.write_text(machine.module().state())
    start = time.perf_counter()
    done = machine.set_up()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert time.perf_counter() - start < 5
    # The control: what was pinned has changed since.
    (machine.checkout / "requirements.lock").open("a").write("# more\n")
    assert stamp.read_text() != machine.module().state()


def test_an_interrupted_or_moved_venv_is_made_anew(machine: Machine) -> None:
    module = machine.module()
    venv = machine.checkout / ".venv"
    (venv / "bin").mkdir(parents=True)
    about = f"version = 3.11.7\ncommand = /usr/bin/python3.11 -m venv {venv}\n"
    (venv / "pyvenv.cfg").write_text(about)
    (venv / "bin" / "python").symlink_to(sys.executable)
    assert not module._venv_is_whole()  # interrupted before it had pip
    (venv / "bin" / "pip").touch()
    assert module._venv_is_whole()
    (venv / "pyvenv.cfg").write_text(about.replace(str(venv), "/elsewhere/.venv"))
    assert not module._venv_is_whole()
    (venv / "pyvenv.cfg").write_text(about.replace("3.11.7", "3.12.1"))
    assert not module._venv_is_whole()


def test_what_goes_into_the_cache_is_there_whole_or_not_at_all(
    machine: Machine, tmp_path: Path
) -> None:
    keep = machine.module()._keep
    made, kept = tmp_path / "made", tmp_path / "cache" / "wheels" / "horovod"
    with pytest.raises(FileNotFoundError):
        keep(made, kept)
    assert list(kept.parent.iterdir()) == []
    made.mkdir()
    (made / "horovod.whl").write_text("built")
    keep(made, kept)
    keep(made, kept)  # as when two checkouts are set up at once
    assert [path.name for path in kept.parent.iterdir()] == ["horovod"]
    assert (kept / "horovod.whl").read_text() == "built"


def test_a_step_that_fails_shows_its_output_and_a_good_one_does_not(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    run = machine.module()._run
    run("say something", sys.executable, "-c", "print('chatter')")
    assert "chatter" not in "".join(capsys.readouterr())
    with pytest.raises(SystemExit, match="set-up: fail failed with exit code 3"):
        run("fail", sys.executable, "-c", "print('the reason'); raise SystemExit(3)")
    assert "the reason" in capsys.readouterr().err


def test_pyspark_is_installed_from_its_wheel_and_not_built_again(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each checkout loads 434 MB of source, and leaves 2 GB in uv's cache."""
    module = machine.module()
    monkeypatch.setattr(module, "CACHE", machine.cache / "mfn")
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(machine.cache / "uv"))
    venv = machine.checkout / ".venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    (venv / "bin" / "uv").symlink_to(Path(sys.executable).with_name("uv"))
    version = module._pinned("pyspark")
    (machine.checkout / "requirements.lock").write_text(f"pyspark=={version}\n")
    wheels = module._pyspark_wheels()
    wheels.mkdir(parents=True)
    with pytest.raises(SystemExit, match=r"install the packages of .* failed"):
        module.install_packages()  # the control: no wheel, and no network to load the source from
    about = f"pyspark-{version}.dist-info"
    with zipfile.ZipFile(wheels / f"pyspark-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr("pyspark/__init__.py", "")
        wheel.writestr(
            f"{about}/METADATA", f"Metadata-Version: 2.1\nName: pyspark\nVersion: {version}\n"
        )
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")
    module.install_packages()
    packages = venv / "lib" / "python3.11" / "site-packages"
    assert (packages / about).is_dir()


def test_packages_are_compiled_where_processes_may_not_leave_bytecode(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each process of a day compiles torch, and what else it loads, for itself."""
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    module = machine.module()
    venv = machine.checkout / ".venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    packages = venv / "lib" / "python3.11" / "site-packages"
    for name, text in {"good.py": "x = 1\n", "of_another_python.py": "def f[T]: pass\n"}.items():
        (packages / name).write_text(text)
    load = [str(venv / "bin" / "python"), "-c", "import good; print(good.__cached__)"]
    cached = Path(subprocess.run(load, capture_output=True, text=True, check=True).stdout.strip())
    assert not cached.exists()  # the control: loaded, and not left
    module.compile_packages()
    assert [path.name for path in packages.rglob("*.pyc")] == [cached.name]
    assert cached.exists()


def test_make_help_lists_every_target() -> None:
    done = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    targets = [line.split()[1] for line in done.stdout.splitlines()]
    phony = next(
        line.split()[1:]
        for line in (REPOSITORY / "Makefile").read_text().splitlines()
        if line.startswith(".PHONY:")
    )
    assert sorted(targets) == sorted(phony)


def test_ci_runs_exactly_make_test() -> None:
    script = REPOSITORY / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text().splitlines()[-1] == "exec make test"


def test_a_session_maps_the_classes_that_the_set_up_has_shared(spark: SparkSession) -> None:
    """Else each start of Spark takes half as much again, and nobody is told."""
    archive = shared_classes()
    if not archive.exists():
        pytest.skip("the set-up has said that this Java keeps no archive of classes")
    gateway = spark.sparkContext._gateway
    assert gateway is not None
    assert str(archive) in Path(f"/proc/{gateway.proc.pid}/maps").read_text()
