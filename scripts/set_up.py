"""Make this checkout ready to run: a .venv with pinned versions, wheels, and Delta's jars.

Last, the packages are compiled, and Spark's classes put into an archive beside them, which Java
maps into memory: a session that writes and reads a small table then takes 11 seconds instead of 17.

Needs nothing but Python 3.11's standard library, and with an older Python gets as far as saying
so. Whatever takes long is built once into the user's cache (XDG_CACHE_HOME, else ~/.cache) and
found there by every later checkout; a set-up that has nothing to do ends in well under a second,
and one that was interrupted goes on when it is run again.

Some annotations are quoted for the sake of that older Python, which could not evaluate them.
"""

import functools
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
LOCK = HERE / "requirements.lock"
VENV = HERE / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "set_up"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mfn"

HOROVOD = "0.28.1"
HOROVOD_SHA256 = "92a43f5a94c43907a56805bad15f19700c62ffc83b7ca483f9e104e229f67ef0"
CMAKE = "3.31.10"  # Horovod's bundled gloo is refused by cmake 4
HOROVOD_BUILD = {
    "HOROVOD_WITH_PYTORCH": "1",
    "HOROVOD_WITHOUT_TENSORFLOW": "1",
    "HOROVOD_WITHOUT_MXNET": "1",
    "HOROVOD_WITH_GLOO": "1",
    "HOROVOD_WITHOUT_MPI": "1",
    "HOROVOD_CPU_OPERATIONS": "GLOO",
}


def missing() -> "list[str]":
    """What this machine lacks, in plain words, with where to get it."""
    lacks = []
    if sys.version_info[:2] != (3, 11):
        lacks.append(
            f"Python 3.11 is needed, the one on which all of Spark, Petastorm and Horovod run, and "
            f"{sys.executable} is {sys.version.split()[0]}. Install it (Debian: apt-get install "
            "python3.11 python3.11-dev python3.11-venv; elsewhere: pyenv install 3.11) and run "
            "make again, or name it: make PYTHON=/path/to/python3.11"
        )
    elif not _venv_is_whole() and importlib.util.find_spec("ensurepip") is None:
        lacks.append(
            f"Python's venv module is needed, and {sys.executable} comes without it. Install it "
            "(Debian: apt-get install python3.11-venv)"
        )
    lacks += _missing_java()
    if _horovod_wheel() is None:
        if not (shutil.which("c++") or shutil.which("g++")):
            lacks.append(
                "A C++ compiler is needed to build Horovod, and there is neither `c++` nor `g++`. "
                "Install one (Debian: apt-get install g++; Fedora: dnf install gcc-c++)"
            )
        if not Path(sysconfig.get_paths()["include"], "Python.h").exists():
            lacks.append(
                f"Python's headers are needed to build Horovod, and {sys.executable} has no "
                "Python.h. Install them (Debian: apt-get install python3.11-dev; Fedora: dnf "
                "install python3.11-devel)"
            )
    if not _all_is_cached():
        there = next(folder for folder in (CACHE, *CACHE.parents) if folder.exists())
        if not (there.is_dir() and os.access(there, os.W_OK)):
            lacks.append(
                f"The cache {CACHE} is needed for what is built once, and {there} cannot be "
                "written to. Name another folder: export XDG_CACHE_HOME=/path/to/folder"
            )
    return lacks


@functools.lru_cache(maxsize=1)
def _java_version() -> str:
    """Of the java of JAVA_HOME if that is set, else of the one on the PATH, as Spark takes it."""
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home, "bin", "java")) if home else "java"
    found = re.search(r'version "([^"]*)', _output(java, "-version"))
    return found[1] if found else ""


def _missing_java() -> "list[str]":
    home = os.environ.get("JAVA_HOME")
    found = re.match(r"(?:1\.)?(\d+)", _java_version())
    get_it = (
        "Install Java 17 (Debian: apt-get install openjdk-17-jre-headless; elsewhere: "
        "https://adoptium.net) and "
        + ("point JAVA_HOME at it" if home else "put its bin first on the PATH")
    )
    where = f"JAVA_HOME, {home}," if home else "the PATH"
    if found is None:
        return [
            f"Java 17 (or 21) is needed by Spark, and {where} has no `java` that runs. {get_it}"
        ]
    if found[1] not in ("17", "21"):
        return [f"Java 17 (or 21) is needed by Spark, and {where} has version {found[1]}. {get_it}"]
    return []


def _output(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return ""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return process.communicate()[0].decode(errors="replace")


def _pinned(package: str) -> str:
    found = re.search(rf"^{package}==(\S+)$", LOCK.read_text(), re.MULTILINE)
    if found is None:
        raise SystemExit(f"set-up: {LOCK.name} does not pin {package}; run `make lock`")
    return found[1]


def _horovod_wheels() -> Path:
    """Horovod links against torch, so a wheel fits one version of it and of Python."""
    return CACHE / "wheels" / f"horovod-{HOROVOD}-torch-{_pinned('torch')}-cp311"


def _horovod_wheel() -> "Path | None":
    return next(iter(sorted(_horovod_wheels().glob("horovod-*.whl"))), None)


def _pyspark_wheels() -> Path:
    return CACHE / "wheels" / f"pyspark-{_pinned('pyspark')}"


def _run(what: str, *command: "str | Path", **environment: str) -> None:
    """Run one step, with a dot every ten seconds; its output is shown only where it fails."""
    print(f"set-up: {what} ..", end="", flush=True)
    start = time.perf_counter()
    words = [str(word) for word in command]
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        process = subprocess.Popen(
            words,
            cwd=HERE,
            env={**os.environ, **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        while process.poll() is None:
            print(".", end="", flush=True)
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                continue
        print(f" {time.perf_counter() - start:.0f} s", flush=True)
        if process.returncode != 0:
            output.seek(0)
            print(output.read()[-6000:], file=sys.stderr)
            raise SystemExit(
                f"set-up: {what} failed with exit code {process.returncode}: {' '.join(words)}"
            )


def _venv_is_whole() -> bool:
    """Whether .venv was made to its end, here (its scripts name this folder) and by Python 3.11."""
    about = VENV / "pyvenv.cfg"
    if not (PYTHON.exists() and (VENV / "bin" / "pip").exists() and about.exists()):
        return False
    lines = about.read_text().splitlines()
    return any(line.endswith(f" {VENV}") for line in lines) and any(
        line.startswith("version = 3.11.") for line in lines
    )


def make_venv() -> None:
    """.venv with pip and uv, unless it is there."""
    if not _venv_is_whole():
        _run("make .venv", sys.executable, "-m", "venv", "--clear", VENV)
    _run("install uv", PYTHON, "-m", "pip", "install", "--quiet", f"uv=={_pinned('uv')}")


def build_pyspark(folder: Path) -> None:
    """Pyspark comes as source only, 434 MB, so whoever installs it builds a wheel.

    uv keeps what it builds for as long as the registry says that the source stays the same. Many
    mirrors do not say: then each set-up would load and build it again, and leave 2.2 GB in uv's
    cache.
    """
    _run(
        "build pyspark's wheel (once a machine)",
        PYTHON,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-cache-dir",
        "--wheel-dir",
        folder / "pyspark",
        f"pyspark=={_pinned('pyspark')}",
    )
    _keep(folder / "pyspark", _pyspark_wheels())


def _install(what: str, *arguments: "str | Path") -> None:
    uv = VENV / "bin" / "uv"
    _run(f"install {what}", uv, "pip", "install", "--python", PYTHON, *arguments)


def install_packages() -> None:
    """The pinned packages, pyspark from its own wheel."""
    _install(
        "the packages of requirements.lock (3 GB when they are not cached)",
        "--find-links",
        _pyspark_wheels(),
        "--requirement",
        LOCK,
    )


def build_horovod(folder: Path) -> None:
    """Horovod's sdist, patched to the C++ standard that today's torch asks for, as a wheel."""
    requirement = folder / "horovod.txt"
    requirement.write_text(f"horovod=={HOROVOD} --hash=sha256:{HOROVOD_SHA256}\n")
    _run(
        "download Horovod's source",
        PYTHON,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--no-binary=:all:",
        "--require-hashes",
        "--dest",
        folder,
        "--requirement",
        requirement,
    )
    shutil.unpack_archive(folder / f"horovod-{HOROVOD}.tar.gz", folder)
    source = folder / f"horovod-{HOROVOD}"
    for name in ("CMakeLists.txt", "horovod/torch/CMakeLists.txt"):
        path = source / name
        text = path.read_text()
        before, after = "set(CMAKE_CXX_STANDARD 14)", "set(CMAKE_CXX_STANDARD 17)"
        if before not in text:
            raise SystemExit(f"set-up: {name} of Horovod {HOROVOD} does not hold {before!r}")
        path.write_text(text.replace(before, after))
    tools = folder / "tools"
    _install("cmake", "--target", tools, f"cmake=={CMAKE}")
    _run(
        "build Horovod's wheel (minutes, once a machine)",
        PYTHON,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        folder / "wheel",
        source,
        PATH=f"{tools / 'bin'}{os.pathsep}{VENV / 'bin'}{os.pathsep}{os.environ['PATH']}",
        PYTHONPATH=str(tools),
        **HOROVOD_BUILD,
    )
    _keep(folder / "wheel", _horovod_wheels())


def fetch_jars(folder: Path) -> None:
    """Delta's jars, resolved by Spark itself, kept where no later run has to resolve them."""
    program = folder / "fetch.py"
    program.write_text(
        "import delta\n"
        "from pyspark.sql import SparkSession\n"
        "builder = SparkSession.builder.master('local[1]').config('spark.ui.enabled', 'false')\n"
        f"builder = builder.config('spark.jars.ivy', {str(folder / 'ivy')!r})\n"
        "delta.configure_spark_with_delta_pip(builder).getOrCreate().stop()\n"
    )
    _run("fetch Delta's jars", PYTHON, program)
    _keep(folder / "ivy" / "jars", _jars())


def compile_packages() -> None:
    """The packages' bytecode, which no process can leave where PYTHONDONTWRITEBYTECODE is set.

    As in many images, or where .venv cannot be written to: there each process would compile what
    it loads, torch in 3.3 seconds instead of 1.5. uv would compile what it installs now, and of
    an older .venv nothing. What is in the syntax of another Python stays as it is.
    """
    program = (
        "import compileall, sysconfig\n"
        "compileall.compile_dir(sysconfig.get_path('purelib'), quiet=2, workers=0)\n"
    )
    _run("compile the packages", PYTHON, "-c", program)


def share_classes() -> None:
    """An archive of the classes that Spark loads; sessions start without one, too, but slower."""
    try:
        _run(
            "share Spark's classes among sessions",
            PYTHON,
            HERE / "scripts" / "share_classes.py",
        )
    except SystemExit as error:
        print(f"{error}\nset-up: goes on: sessions start without them, only slower")


def _jars() -> Path:
    return CACHE / "jars" / f"delta-{_pinned('delta-spark')}"


def _all_is_cached() -> bool:
    wheels = _horovod_wheels(), _pyspark_wheels()
    return all(any(one.glob("*.whl")) for one in wheels) and any(_jars().glob("*.jar"))


def _keep(made: Path, kept: Path) -> None:
    """Put what was made in its place in the cache, whole: by a rename, on the same disk."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as name:
        staged = Path(name) / kept.name
        shutil.copytree(made, staged)
        try:
            staged.rename(kept)
        except OSError:
            if not any(kept.glob("*")):  # else another set-up was faster, with the same thing
                raise


def state() -> str:
    """What a finished set-up depends on; if that changes, it is done again."""
    inputs = [LOCK, HERE / "setup.py", Path(__file__)]
    return hashlib.sha256(
        b"".join(
            [str(HERE).encode(), _java_version().encode(), *(path.read_bytes() for path in inputs)]
        )
    ).hexdigest()


def main() -> None:
    """Do what is not done yet."""
    lacks = missing()
    if lacks:
        raise SystemExit("\n".join(f"set-up: {line}" for line in lacks))
    if _all_is_cached() and STAMP.exists() and STAMP.read_text() == state():
        return
    make_venv()
    with tempfile.TemporaryDirectory() as name:
        if not any(_pyspark_wheels().glob("*.whl")):
            build_pyspark(Path(name))
        install_packages()
        _install("this project", "--no-deps", "--editable", HERE)
        if _horovod_wheel() is None:
            build_horovod(Path(name))
        if not any(_jars().glob("*.jar")):
            fetch_jars(Path(name))
    wheel = _horovod_wheel()
    assert wheel is not None
    _install("Horovod's wheel", "--no-deps", wheel)
    compile_packages()
    share_classes()
    STAMP.write_text(state())
    print("set-up: done", flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit("\nset-up: interrupted; run it again, it goes on from here") from None
