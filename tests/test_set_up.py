"""The set-up names what is missing on a machine, and takes no time when it is already done."""

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
    """A new checkout, with a PATH that has only the given tools, and an empty cache."""

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
            "PIP_NO_INDEX": "1",  # a set-up that starts by mistake fails soon
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
        """The lines of `missing` on this machine; nothing is installed."""
        program = "import set_up; print('\\n'.join(set_up.missing()))"
        done = self._run("-c", program, PYTHONPATH=str(self.checkout / "scripts"))
        assert done.returncode == 0, done.stderr
        return done.stdout.split("\n")[:-1] if done.stdout.strip() else []

    def set_up(self) -> subprocess.CompletedProcess[str]:
        return self._run(str(self.checkout / "scripts" / "set_up.py"))

    def module(self) -> ModuleType:
        """The script as a module of this process, with the cache of this machine."""
        path = self.checkout / "scripts" / "set_up.py"
        spec = importlib.util.spec_from_file_location("set_up_of_checkout", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.CACHE = self.cache / "mfn"  # type: ignore[attr-defined]
        return module

    def small(self, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
        """The script as a module, for a real uv without network, and a lock of two packages.

        These are uv and pyspark. In place of uv there is a wheel without content.
        """
        monkeypatch.setenv("UV_OFFLINE", "1")
        monkeypatch.setenv("UV_CACHE_DIR", str(self.cache / "uv"))
        module = self.module()
        module._uv().parent.mkdir(parents=True)
        module._uv().symlink_to(Path(sys.executable).with_name("uv"))
        pins = {name: module._pinned(name) for name in ("uv", "pyspark")}
        module.LOCK.write_text("".join(f"{name}=={pins[name]}\n" for name in pins))
        write_wheel(module._pyspark_wheels(), "uv", pins["uv"])
        return module

    def fill_cache(self) -> None:
        module = self.module()
        for path in (
            module._horovod_wheels() / "horovod-0-cp311.whl",
            module._pyspark_wheels() / "pyspark-0.whl",
            module._jars() / "delta.jar",
            module._uv(),
        ):
            path.parent.mkdir(parents=True)
            path.touch()

    def _run(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *words],
            capture_output=True,
            text=True,
            check=False,
            env={**self.environment, **environment},
        )


def write_wheel(folder: Path, name: str, version: str, files: dict[str, str] | None = None) -> None:
    """Write a wheel with these files, by path and content."""
    folder.mkdir(parents=True, exist_ok=True)
    about = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, content in (files or {}).items():
            entry = zipfile.ZipInfo(path)
            entry.external_attr = 0o100755 << 16  # a program
            wheel.writestr(entry, content)
        wheel.writestr(
            f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path)
    machine.has_all()
    return machine


def test_nothing_is_missing_on_a_complete_machine(machine: Machine) -> None:
    assert machine.missing() == []


def test_a_missing_java_is_named_with_where_to_get_it(machine: Machine) -> None:
    (machine.bin / "java").unlink()
    (line,) = machine.missing()
    assert "the PATH has no `java` that runs" in line
    assert "apt-get install openjdk-17-jre-headless" in line
    assert "https://adoptium.net" in line


@pytest.mark.parametrize(
    ("version", "spoken"), [("1.8.0_402", "8"), ("11.0.22", "11"), ("25", "25")]
)
def test_a_wrong_version_of_java_is_named(machine: Machine, version: str, spoken: str) -> None:
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


def test_a_missing_compiler_is_named_unless_the_wheel_is_built(machine: Machine) -> None:
    (machine.bin / "c++").unlink()
    (line,) = machine.missing()
    assert "there is neither `c++` nor `g++`" in line
    assert "apt-get install g++" in line
    machine.fill_cache()
    assert machine.missing() == []


def test_a_cache_that_cannot_be_written_is_named_before_anything_is_built(machine: Machine) -> None:
    machine.cache.write_text("a file, where a folder should be")
    (line,) = machine.missing()
    assert f"{machine.cache} cannot be written to" in line
    assert "export XDG_CACHE_HOME=" in line


def test_all_that_is_missing_is_named_at_once_and_nothing_is_started(machine: Machine) -> None:
    for tool in ("java", "c++"):
        (machine.bin / tool).unlink()
    done = machine.set_up()
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert [line.split()[1] for line in lines] == ["Java", "A"]
    assert all(line.startswith("set-up: ") for line in lines)
    assert not (machine.checkout / ".venv").exists()
    assert not machine.cache.exists()


def test_an_older_python_can_run_the_script_to_print_that_it_is_too_old() -> None:
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


def test_a_finished_set_up_is_not_done_again(machine: Machine) -> None:
    machine.fill_cache()
    module = machine.module()
    module.PYTHON.parent.mkdir(parents=True)
    module.PYTHON.symlink_to(sys.executable)
    module.STAMP.write_text(module.state())
    start = time.perf_counter()
    done = machine.set_up()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert time.perf_counter() - start < 5
    # The controls: .venv has lost its Python, or the pinned versions have changed.
    module.PYTHON.unlink()
    assert "set-up: make .venv" in machine.set_up().stdout
    (machine.checkout / "requirements.lock").open("a").write("# more\n")
    assert module.STAMP.read_text() != module.state()


@pytest.mark.parametrize("damage", ["no pyvenv.cfg", "another Python", "no Python"])
def test_a_damaged_venv_is_made_again(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    """As after an interruption, in a copy of another checkout, or after a change of Python."""
    module = machine.small(monkeypatch)
    write_wheel(module._pyspark_wheels(), "pyspark", module._pinned("pyspark"))
    venv = machine.checkout / ".venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    (venv / "lib" / "python3.11" / "site-packages" / "old.py").touch()
    about = venv / "pyvenv.cfg"
    if damage == "no pyvenv.cfg":
        about.unlink()
    elif damage == "another Python":
        about.write_text(about.read_text().replace("3.11", "3.12"))
    else:
        module.PYTHON.unlink()
    module.install_packages()
    program = "import sys; print(sys.prefix, sys.version_info[:2])"
    done = subprocess.run(
        [module.PYTHON, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == f"{venv} (3, 11)"
    assert not list(venv.rglob("old.py"))


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


def test_uv_is_put_into_the_cache_where_it_runs(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = machine.module()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    with pytest.raises(SystemExit, match="install uv failed"):
        module.fetch_uv(tmp_path / "work")
    assert not machine.cache.exists()
    version = module._pinned("uv")
    files = {f"uv-{version}.data/scripts/uv": "#!/bin/sh\necho this is uv $*\n"}
    write_wheel(tmp_path / "wheels", "uv", version, files)
    module.fetch_uv(tmp_path / "work")
    done = subprocess.run([module._uv(), "venv"], capture_output=True, text=True, check=True)
    assert done.stdout == "this is uv venv\n"


def test_pyspark_is_installed_from_its_wheel_and_not_built_again(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each checkout downloads 434 MB of source, and leaves 2 GB in uv's cache."""
    module = machine.small(monkeypatch)
    with pytest.raises(SystemExit, match=r"install the packages of .* failed"):
        module.install_packages()  # the control: no wheel, and no network to load the source from
    version = module._pinned("pyspark")
    write_wheel(module._pyspark_wheels(), "pyspark", version)
    module.install_packages()
    packages = machine.checkout / ".venv" / "lib" / "python3.11" / "site-packages"
    assert (packages / f"pyspark-{version}.dist-info").is_dir()


def test_packages_are_compiled_where_processes_must_not_write_bytecode(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each process of a day compiles torch, and all else that it imports, again."""
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    module = machine.small(monkeypatch)
    sources = {"good.py": "x = 1\n", "of_another_python.py": "def f[T]: pass\n"}
    write_wheel(module._pyspark_wheels(), "pyspark", module._pinned("pyspark"), sources)
    packages = machine.checkout / ".venv" / "lib" / "python3.11" / "site-packages"
    load = [str(module.PYTHON), "-c", "import good; print(good.__cached__)"]
    for _ in range(2):  # the second time, both packages come out of uv's cache
        module.install_packages()
        done = subprocess.run(load, capture_output=True, text=True, check=True)
        cached = Path(done.stdout.strip())
        assert [path.name for path in packages.rglob("*.pyc")] == [cached.name]
        assert cached.exists()
        cached.unlink()
        subprocess.run(load, capture_output=True, check=True)
        assert not cached.exists()  # the control: imported, and no bytecode written


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


def test_a_session_maps_the_classes_that_the_set_up_has_archived(spark: SparkSession) -> None:
    """Else each start of Spark takes half as long again, and no error shows it."""
    archive = shared_classes()
    if not archive.exists():
        pytest.skip("the set-up has said that this Java keeps no archive of classes")
    gateway = spark.sparkContext._gateway
    assert gateway is not None
    assert str(archive) in Path(f"/proc/{gateway.proc.pid}/maps").read_text()
