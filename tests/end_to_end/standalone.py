"""A real cluster on this machine: Spark's own master and two workers, each with one core.

Its executors' Python has every package of this project's, but not the project itself, so that
what they know of it was sent with the job.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import psutil
import pyspark

from mfn.spark import class_sharing

PROJECT = Path(__file__).resolve().parents[2]
SPARK_HOME = Path(pyspark.__file__).parent
PROPERTIES = PROJECT / "conf" / "spark" / "standalone.conf"
WORKERS = 2


@dataclass(frozen=True)
class Cluster:
    """Where it is, and what runs there.

    Attributes:
        master: its URL.
        status_url: where the master tells, in JSON, who works and for what.
        python: an interpreter that does not know this project.
        package: the archive of this project.
    """

    master: str
    status_url: str
    python: Path
    package: Path

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables for whoever submits."""
        return {
            **_clean(),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYSPARK_PYTHON": str(self.python),
        }

    def status(self) -> Mapping[str, Any]:
        """What the master's own page tells."""
        with urllib.request.urlopen(self.status_url, timeout=10) as answer:
            told: Mapping[str, Any] = json.load(answer)
        return told

    def executors(self, job: str) -> list[psutil.Process]:
        """The processes that work for a job now."""
        running = [one["id"] for one in self.status()["activeapps"] if job in one["name"]]
        found = []
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            is_executor = any("CoarseGrainedExecutorBackend" in word for word in words)
            if is_executor and any(app in words for app in running):
                found.append(process)
        return found

    def kill_executors(
        self, job: str, number: int, when: Callable[[psutil.Process], bool], stop: Event
    ) -> list[int]:
        """Wait until so many executors of a job are there for which `when` holds; kill these.

        Returns:
            their process ids; none where `stop` was set before.
        """
        while not stop.wait(0.05):
            try:
                found = [one for one in self.executors(job) if when(one)][:number]
                if len(found) == number:
                    for one in found:
                        one.kill()
                    return [one.pid for one in found]
            except (OSError, psutil.NoSuchProcess):
                continue  # the master is busy, or a process has ended while it was looked at
        return []


def runs_python(executor: psutil.Process) -> bool:
    """Whether a task of an executor has come to its Python."""
    return bool(executor.children())


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """A cluster whose files lie in a folder, and which ends with the context."""
    package = folder / "mfn.zip"
    subprocess.run(
        [sys.executable, "-m", "scripts.pack", "package", package],
        cwd=PROJECT,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    port, page = _free_port(), _free_port()
    master = f"spark://127.0.0.1:{port}"
    address = ["--host", "127.0.0.1"]
    started = []
    try:
        started.append(
            _start(
                folder / "master.log",
                "master.Master", *address, "--port", str(port), "--webui-port", str(page),
            )
        )  # fmt: skip
        for number in range(WORKERS):
            started.append(
                _start(
                    folder / f"worker-{number}.log",
                    "worker.Worker", *address, "--cores", "1", "--memory", "2g",
                    "--webui-port", "0", "--work-dir", str(folder / f"work-{number}"), master,
                )
            )  # fmt: skip
        made = Cluster(master, f"http://127.0.0.1:{page}/json/", _python(folder), package)
        _wait_for(made)
        yield made
    finally:
        for one in started:
            os.killpg(one.pid, signal.SIGKILL)
            one.wait()


def _clean() -> dict[str, str]:
    # A driver of spark-submit's has its options from there, not from a session's settings.
    java = [os.environ["JDK_JAVA_OPTIONS"], *class_sharing()]
    return {
        **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        "JDK_JAVA_OPTIONS": " ".join(java),
        "SPARK_HOME": str(SPARK_HOME),
        "SPARK_LOCAL_IP": "127.0.0.1",
    }


def _start(log: Path, name: str, *arguments: str) -> subprocess.Popen[bytes]:
    program = [str(SPARK_HOME / "bin" / "spark-class"), f"org.apache.spark.deploy.{name}"]
    with log.open("wb") as output:
        return subprocess.Popen(
            [*program, *arguments],
            env=_clean(),
            cwd=log.parent,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
    return port


def _python(folder: Path) -> Path:
    """An environment that sees this one's packages, but not the project, which is a link there."""
    environment = folder / "python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    packages = Path("lib", f"python{sys.version_info[0]}.{sys.version_info[1]}", "site-packages")
    (environment / packages / "packages.pth").write_text(str(Path(sys.prefix) / packages))
    python = environment / "bin" / "python"
    knows = [str(python), "-c", "import torch, importlib.util as i; print(i.find_spec('mfn'))"]
    found = subprocess.run(knows, cwd=folder, env=_clean(), check=True, stdout=subprocess.PIPE)
    assert found.stdout.strip() == b"None", found.stdout
    return python


def _wait_for(started: Cluster) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if sum(one["state"] == "ALIVE" for one in started.status()["workers"]) == WORKERS:
                return
        except OSError:
            pass
        time.sleep(0.2)
    raise TimeoutError(f"the master at {started.status_url} has not {WORKERS} workers after 60 s")
