"""Make this checkout ready to run: .venv with pinned packages, wheels and Delta's jars.

uv makes .venv, installs the packages and compiles them. A last step writes an archive of the
classes that Spark loads, which Java maps into memory: a session that writes and reads a small table
then takes 11 seconds instead of 17.

It needs only the standard library of Python 3.11. An older Python can still run it, to print that
3.11 is missing. For that reason some annotations are quoted: an older Python cannot evaluate them.

uv itself, the wheels and the jars go into the user's cache (XDG_CACHE_HOME, else ~/.cache), where
every later checkout finds them. A set-up with nothing to do takes less than a second. After an
interruption, run it again: it makes a new .venv and reuses what is in the caches.
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
CMAKE = "3.31.10"  # cmake 4 refuses the gloo that Horovod bundles
HOROVOD_BUILD = {
    "HOROVOD_WITH_PYTORCH": "1",
    "HOROVOD_WITHOUT_TENSORFLOW": "1",
    "HOROVOD_WITHOUT_MXNET": "1",
    "HOROVOD_WITH_GLOO": "1",
    "HOROVOD_WITHOUT_MPI": "1",
    "HOROVOD_CPU_OPERATIONS": "GLOO",
}


def missing() -> "list[str]":
    """What is missing on this machine, one line each, with the way to install it."""
    lacks = []
    if sys.version_info[:2] != (3, 11):
        lacks.append(
            f"Python 3.11 is needed, but {sys.executable} is {sys.version.split()[0]}; Spark, "
            "Petastorm and Horovod run together only on 3.11. Install it (Debian: apt-get install "
            "python3.11 python3.11-dev python3.11-venv; elsewhere: pyenv install 3.11) and run "
            "make again, or give its path: make PYTHON=/path/to/python3.11"
        )
    elif not _all_is_cached() and importlib.util.find_spec("ensurepip") is None:
        lacks.append(
            f"Python's venv module is needed, but {sys.executable} does not have it. Install it "
            "(Debian: apt-get install python3.11-venv)"
        )
    lacks += _missing_java()
    if not _horovod_wheel():
        if not (shutil.which("c++") or shutil.which("g++")):
            lacks.append(
                "A C++ compiler is needed to build Horovod, but there is neither `c++` nor `g++`. "
                "Install one (Debian: apt-get install g++; Fedora: dnf install gcc-c++)"
            )
        if not Path(sysconfig.get_paths()["include"], "Python.h").exists():
            lacks.append(
                f"Python's headers are needed to build Horovod, but {sys.executable} has no "
                "Python.h. Install them (Debian: apt-get install python3.11-dev; Fedora: dnf "
                "install python3.11-devel)"
            )
    if not _all_is_cached():
        there = next(folder for folder in (CACHE, *CACHE.parents) if folder.exists())
        if not (there.is_dir() and os.access(there, os.W_OK)):
            lacks.append(
                f"The cache {CACHE} is needed for the files that are built once, but {there} "
                "cannot be written to. Choose another folder: export XDG_CACHE_HOME=/path/to/folder"
            )
    return lacks


@functools.lru_cache(maxsize=1)
def _java_version() -> str:
    """The version of the java that Spark uses: that of JAVA_HOME, or else the one on the PATH."""
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
        + ("set JAVA_HOME to its folder" if home else "put its bin folder first on the PATH")
    )
    where = f"JAVA_HOME, {home}," if home else "the PATH"
    if found is None:
        return [
            f"Java 17 (or 21) is needed for Spark, but {where} has no `java` that runs. {get_it}"
        ]
    if found[1] not in ("17", "21"):
        return [
            f"Java 17 (or 21) is needed for Spark, but {where} has version {found[1]}. {get_it}"
        ]
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
    """The folder of Horovod's wheel, which fits only one version of torch and of Python."""
    return CACHE / "wheels" / f"horovod-{HOROVOD}-torch-{_pinned('torch')}-cp311"


def _horovod_wheel() -> "list[Path]":
    """One path, or none if the wheel is not built yet."""
    return sorted(_horovod_wheels().glob("*.whl"))[:1]


def _pyspark_wheels() -> Path:
    return CACHE / "wheels" / f"pyspark-{_pinned('pyspark')}"


def _uv() -> Path:
    return CACHE / "tools" / f"uv-{_pinned('uv')}" / "bin" / "uv"


def _run(what: str, *command: "str | Path", **environment: str) -> None:
    """Run one step and print a dot every ten seconds; print its output only if it fails."""
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


def _run_uv(what: str, *arguments: "str | Path", **environment: str) -> None:
    """Run the cached uv on .venv; it compiles what it installs."""
    environment.update(UV_PYTHON=str(PYTHON), UV_COMPILE_BYTECODE="1")
    _run(what, _uv(), *arguments, **environment)


def _run_pip(what: str, folder: Path, *arguments: "str | Path") -> None:
    """Run pip, from an environment in `folder`, for the steps that uv has no command for."""
    python = folder / "pip" / "bin" / "python"
    if not python.exists():
        _run("make a temporary environment with pip", sys.executable, "-m", "venv", folder / "pip")
    _run(what, python, "-m", "pip", *arguments)


def fetch_uv(folder: Path) -> None:
    """The pinned uv, which makes .venv and so cannot come from it."""
    _run_pip("install uv", folder, "install", "--target", folder / "uv", f"uv=={_pinned('uv')}")
    _keep(folder / "uv", _uv().parent.parent)


def build_pyspark(folder: Path) -> None:
    """Pyspark's wheel, because the registry has only its source, 434 MB.

    uv would build a wheel too, but it keeps one only if the registry says for how long the source
    stays the same. Many mirrors do not say it. Then each set-up would download and build pyspark
    again, and leave 2.2 GB in uv's cache.
    """
    wheel = ["wheel", "--no-deps", "--no-cache-dir", f"--wheel-dir={folder / 'pyspark'}"]
    pyspark = f"pyspark=={_pinned('pyspark')}"
    _run_pip("build pyspark's wheel (once per machine)", folder, *wheel, pyspark)
    _keep(folder / "pyspark", _pyspark_wheels())


def install_packages() -> None:
    """A new .venv with the pinned packages and their bytecode; pyspark comes from its wheel.

    .venv is always made again, so it does not matter whether an old one is incomplete, was copied
    from another folder or belongs to another Python. Also, uv compiles only what it installs. The
    bytecode is needed where PYTHONDONTWRITEBYTECODE is set, as in many images: without it, each
    process compiles what it imports, and torch takes 3.3 seconds instead of 1.5.
    """
    _run_uv("make .venv", "venv", "--clear", "--force", "--python", sys.executable, VENV)
    what = f"install the packages of {LOCK.name} (3 GB when they are not cached)"
    _run_uv(what, "pip", "sync", "--find-links", _pyspark_wheels(), LOCK)


def build_horovod(folder: Path) -> None:
    """Horovod's wheel, from its source with the C++ standard that today's torch needs."""
    requirement = folder / "horovod.txt"
    requirement.write_text(f"horovod=={HOROVOD} --hash=sha256:{HOROVOD_SHA256}\n")
    download = [
        "download",
        "--no-deps",
        "--no-binary=:all:",
        "--require-hashes",
        f"--dest={folder}",
    ]
    _run_pip("download Horovod's source", folder, *download, "--requirement", requirement)
    shutil.unpack_archive(folder / f"horovod-{HOROVOD}.tar.gz", folder)
    source = folder / f"horovod-{HOROVOD}"
    for name in ("CMakeLists.txt", "horovod/torch/CMakeLists.txt"):
        path = source / name
        text = path.read_text()
        before, after = "set(CMAKE_CXX_STANDARD 14)", "set(CMAKE_CXX_STANDARD 17)"
        if before not in text:
            raise SystemExit(f"set-up: {name} of Horovod {HOROVOD} does not contain {before!r}")
        path.write_text(text.replace(before, after))
    tools = folder / "tools"
    _run_uv("install cmake", "pip", "install", "--target", tools, f"cmake=={CMAKE}")
    build = ["build", "--wheel", "--no-build-isolation", f"--out-dir={folder / 'wheel'}"]
    _run_uv(
        "build Horovod's wheel (minutes, once per machine)",
        *build,
        source,
        PATH=f"{tools / 'bin'}{os.pathsep}{VENV / 'bin'}{os.pathsep}{os.environ['PATH']}",
        PYTHONPATH=str(tools),
        **HOROVOD_BUILD,
    )
    _keep(folder / "wheel", _horovod_wheels())


def install_project() -> None:
    """This project, as a link to the checkout, and Horovod from its wheel."""
    install = ["pip", "install", "--no-deps", "--editable"]
    _run_uv("install this project and Horovod", *install, HERE, *_horovod_wheel())


def fetch_jars(folder: Path) -> None:
    """Delta's jars. Spark resolves and downloads them once, and later runs read them here."""
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


def share_classes() -> None:
    """An archive of the classes that Spark loads. Without it, sessions only start more slowly."""
    try:
        _run("archive the classes that Spark loads", PYTHON, HERE / "scripts/share_classes.py")
    except SystemExit as error:
        print(f"{error}\nset-up: continues without the archive; Spark sessions start more slowly")


def _jars() -> Path:
    return CACHE / "jars" / f"delta-{_pinned('delta-spark')}"


def _all_is_cached() -> bool:
    found = _horovod_wheel(), [*_pyspark_wheels().glob("*.whl")], [*_jars().glob("*.jar")]
    return _uv().exists() and all(found)


def _keep(made: Path, kept: Path) -> None:
    """Put a finished folder into the cache by a rename, so it is there whole or not at all."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as name:
        staged = Path(name) / kept.name
        shutil.copytree(made, staged)
        try:
            staged.rename(kept)
        except OSError:
            if not any(kept.glob("*")):  # else another set-up has just put the same files there
                raise


def state() -> str:
    """A hash of all inputs of a set-up; when it changes, the next set-up starts again."""
    inputs = [LOCK, HERE / "setup.py", Path(__file__)]
    return hashlib.sha256(
        b"".join(
            [str(HERE).encode(), _java_version().encode(), *(path.read_bytes() for path in inputs)]
        )
    ).hexdigest()


def main() -> None:
    """Do the set-up, unless a finished one with the same inputs is there."""
    lacks = missing()
    if lacks:
        raise SystemExit("\n".join(f"set-up: {line}" for line in lacks))
    if _all_is_cached() and PYTHON.exists() and STAMP.exists() and STAMP.read_text() == state():
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if not _uv().exists():
            fetch_uv(folder)
        if not any(_pyspark_wheels().glob("*.whl")):
            build_pyspark(folder)
        install_packages()
        if not _horovod_wheel():
            build_horovod(folder)
        install_project()
        if not any(_jars().glob("*.jar")):
            fetch_jars(folder)
    share_classes()
    STAMP.write_text(state())
    print("set-up: done", flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit("\nset-up: interrupted; run it again to continue") from None
