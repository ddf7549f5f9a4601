"""Publications are whole: killed, raised in, raced or read while they are replaced."""

from __future__ import annotations

import datetime
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from mfn.errors import NotPublished, Superseded
from mfn.storage import (
    ABANDONED_AFTER,
    POINTER,
    Claim,
    claim,
    current,
    holding,
    list_files,
    publish,
    read_json,
    write_json,
    write_whole,
)

PARTS = ("a.json", "b.json")

PUBLISHER = """
import os, signal, sys
import fsspec
from fsspec.implementations.local import LocalFileSystem
from mfn.storage import publish, write_json

folder, content, dies_at = sys.argv[1:]

def reached(phase):
    print(phase, flush=True)
    if phase == dies_at:
        os.kill(os.getpid(), signal.SIGKILL)

class Dying(LocalFileSystem):
    def makedirs(self, path, exist_ok=False):
        reached("before the folder is made")
        super().makedirs(path, exist_ok=exist_ok)

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        reached("filled, before the pointer is written")
        super().pipe_file(path, value, mode=mode, **kwargs)

    def mv(self, path1, path2, **kwargs):
        reached("filled, before the pointer is moved")
        super().mv(path1, path2, **kwargs)
        reached("after the pointer is moved")

    def rm(self, path, recursive=False, maxdepth=None):
        reached("before the old version is removed")
        super().rm(path, recursive=recursive, maxdepth=maxdepth)

fsspec.register_implementation("file", Dying, clobber=True)
with publish(folder) as version:
    write_json(f"{version}/a.json", content)
    reached("half filled")
    write_json(f"{version}/b.json", content)
reached("done")
"""

PHASES = {  # what readers find when a publisher of "new" is killed there
    "before the folder is made": "old",
    "half filled": "old",
    "filled, before the pointer is written": "old",
    "filled, before the pointer is moved": "old",
    "after the pointer is moved": "new",
    "before the old version is removed": "new",
    "nowhere": "new",  # the control: the same publisher, left alone
}


def put(folder: str, content: str) -> str:
    with publish(folder) as version:
        for part in PARTS:
            write_json(f"{version}/{part}", content)
    return version


def contents(folder: str) -> set[str]:
    version = current(folder, "no_job")
    return {read_json(f"{version}/{part}") for part in PARTS}


def versions(folder: str) -> list[str]:
    return sorted(os.listdir(f"{folder}/versions"))


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "splits")


@pytest.mark.process
@pytest.mark.parametrize(("phase", "found"), PHASES.items(), ids=PHASES)
def test_a_killed_publisher_leaves_the_old_or_the_new_version_whole(
    folder: str, phase: str, found: str
) -> None:
    put(folder, "older")
    put(folder, "old")
    killed = subprocess.run(
        [sys.executable, "-c", PUBLISHER, folder, "new", phase],
        capture_output=True,
        text=True,
        check=False,
    )
    expected = 0 if phase == "nowhere" else -signal.SIGKILL
    assert killed.returncode == expected, killed.stdout + killed.stderr
    assert contents(folder) == {found}
    put(folder, "next")
    assert contents(folder) == {"next"}


@pytest.mark.process
@pytest.mark.soak
def test_publishers_killed_at_any_moment_leave_one_version_whole(folder: str) -> None:
    program = (
        "import sys, uuid; from mfn.storage import publish, write_json\n"
        "print('ready', flush=True)\n"
        "while True:\n"
        "    with publish(sys.argv[1]) as version:\n"
        "        content = uuid.uuid4().hex\n"
        "        for part in ('a.json', 'b.json'):\n"
        "            write_json(f'{version}/{part}', content)\n"
    )
    put(folder, "first")
    draw = random.Random(0)
    seen = {"first"}
    for _ in range(300):
        command = [sys.executable, "-c", program, folder]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as publisher:
            assert publisher.stdout is not None
            assert publisher.stdout.readline() == "ready\n"
            time.sleep(draw.random() * 0.05)
            publisher.kill()
        assert publisher.returncode == -signal.SIGKILL
        (content,) = contents(folder)
        seen.add(content)
    assert len(seen) > 100  # else they were killed before they began


def test_a_block_that_raises_leaves_no_half_version(folder: str) -> None:
    def fail_half_way() -> None:
        with publish(folder) as version:
            write_json(f"{version}/a.json", "new")
            raise RuntimeError("no more space")

    put(folder, "old")
    before = versions(folder)
    with pytest.raises(RuntimeError, match="no more space"):
        fail_half_way()
    assert contents(folder) == {"old"}
    assert versions(folder) == before


def test_a_reader_of_the_old_version_reads_on_while_one_more_is_published(folder: str) -> None:
    put(folder, "read")
    reading = current(folder, "no_job")
    put(folder, "published meanwhile")
    assert read_json(f"{reading}/b.json") == "read"
    assert contents(folder) == {"published meanwhile"}


def test_versions_older_than_the_previous_one_do_not_pile_up(folder: str) -> None:
    kept = [put(folder, str(number)) for number in range(5)][-2:]
    assert versions(folder) == sorted(version.rpartition("/")[2] for version in kept)


def test_what_a_dead_publisher_left_is_removed_once_it_is_old_and_not_before(folder: str) -> None:
    def half_filled(age: datetime.timedelta) -> str:
        begun = (datetime.datetime.now(datetime.UTC) - age).strftime("%Y%m%dT%H%M%S")
        name = f"{begun}-{uuid.uuid4().hex[:12]}"
        write = Path(folder) / "versions" / name
        write.mkdir(parents=True)
        (write / "a.json").write_text('"half"')
        return name

    hour = datetime.timedelta(hours=1)
    abandoned, being_filled = half_filled(ABANDONED_AFTER + hour), half_filled(hour)
    published = put(folder, "whole").rpartition("/")[2]
    assert versions(folder) == sorted([being_filled, published])
    assert abandoned not in versions(folder)


def test_a_version_that_was_current_for_weeks_is_not_taken_for_abandoned(folder: str) -> None:
    put(folder, "of last month")
    (name,) = versions(folder)
    old_name = "20200101T000000-0123456789ab"
    os.rename(f"{folder}/versions/{name}", f"{folder}/versions/{old_name}")
    Path(folder, POINTER).write_text(f"versions/{old_name}")
    reading = current(folder, "no_job")
    put(folder, "new")
    assert read_json(f"{reading}/a.json") == "of last month"


def test_of_two_publishers_at_once_the_last_to_end_wins_and_nothing_is_mixed(folder: str) -> None:
    put(folder, "before both")
    with publish(folder) as first:
        write_json(f"{first}/a.json", "first")
        with publish(folder) as second:
            for part in PARTS:
                write_json(f"{second}/{part}", "second")
        assert contents(folder) == {"second"}
        write_json(f"{first}/b.json", "first")
    assert contents(folder) == {"first"}


def test_a_run_that_was_superseded_publishes_nothing_and_leaves_nothing(folder: str) -> None:
    def first_run() -> None:
        with claim(Claim(path)):
            put(folder, "first run")  # the control
            with publish(folder) as version:
                write_json(f"{version}/a.json", "first run, later")
                with holding(()), claim(Claim(path)):
                    put(folder, "second run")
                write_json(f"{version}/b.json", "first run, later")

    path = f"{folder}.claim"
    with pytest.raises(Superseded, match=r"splits\.claim: a later run of the same job took over"):
        first_run()
    assert contents(folder) == {"second run"}
    assert len(versions(folder)) == 2  # the second run's and the one before it


@pytest.mark.process
def test_readers_beside_two_busy_publishers_never_find_a_mixture(folder: str) -> None:
    put(folder, "0")
    program = (
        "import sys; from mfn.storage import publish, write_json\n"
        "for number in range(60):\n"
        "    with publish(sys.argv[1]) as version:\n"
        "        for part in ('a.json', 'b.json'):\n"
        "            write_json(f'{version}/{part}', f'{sys.argv[2]} {number}')\n"
    )
    command = [sys.executable, "-c", program, folder]
    publishers = [subprocess.Popen([*command, name]) for name in ("left", "right")]
    seen: set[str] = set()
    while any(publisher.poll() is None for publisher in publishers):
        version = current(folder, "no_job")  # always there, never a half-written pointer
        try:
            found = {read_json(f"{version}/{part}") for part in PARTS}
        except FileNotFoundError:
            continue  # two newer versions came while this one was read
        assert len(found) == 1
        seen |= found
    assert [publisher.returncode for publisher in publishers] == [0, 0]
    assert len(seen) > 2
    assert contents(folder) < {"left 59", "right 59"}


def test_the_pointer_is_replaced_by_a_rename_on_its_own_disk(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file among temporary ones, perhaps on another disk, would be copied over the pointer."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "no temporary files"))
    put(folder, "old")
    with open(f"{folder}/{POINTER}") as held:
        put(folder, "new")
        assert held.read().startswith("versions/")  # the old file, whole, not one written over
        assert os.fstat(held.fileno()).st_nlink == 0
    assert contents(folder) == {"new"}


def test_a_write_that_fails_names_its_file_and_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_whole(str(path), "before")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match=f"File too large: '{tmp_path}/state.json'"):
            write_whole(str(path), "after" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [one.read_text() for one in tmp_path.iterdir()] == ["before"]
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        write_json("/dev/full", {"of": "a day"})
    write_whole(str(path), "after" * 1000)  # the control
    assert path.read_text() == "after" * 1000


def test_what_a_store_says_of_a_write_that_it_refuses_is_not_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stores raise errors that are a text alone, which a file name would replace."""

    def refuse(*arguments: object, **named: object) -> None:
        raise PermissionError("Access Denied")

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", refuse)
    with pytest.raises(PermissionError) as error:
        write_whole("memory://bucket/state.json", "of a day")
    assert str(error.value) == "/bucket/state.json: Access Denied"


def test_a_store_that_only_fsspec_knows_is_published_to_alike() -> None:
    folder = f"memory://{uuid.uuid4().hex}"
    for content in ("one", "two", "three"):
        put(folder, content)
    assert contents(folder) == {"three"}
    files, path = fsspec.url_to_fs(folder)
    assert len(files.ls(f"{path}/versions", detail=False)) == 2


def test_nothing_published_names_the_job_to_run(folder: str) -> None:
    with pytest.raises(NotPublished, match=r"splits: nothing is published.*jobs/build_splits\.py"):
        current(folder, "build_splits")
    with pytest.raises(RuntimeError), publish(folder):
        raise RuntimeError
    with pytest.raises(NotPublished):
        current(folder, "build_splits")


def test_files_are_listed_in_a_stable_order_and_by_suffix(tmp_path: Path) -> None:
    for name in ("part-2.parquet", "part-10.parquet", "part-1.parquet", "_SUCCESS"):
        (tmp_path / name).touch()
    names = [url.rpartition("/")[2] for url in list_files(str(tmp_path), ".parquet")]
    assert names == ["part-1.parquet", "part-10.parquet", "part-2.parquet"]
    assert list_files(str(tmp_path / "not there"), ".parquet") == []
