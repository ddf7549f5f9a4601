"""What an output was made from is told from what it was not."""

from __future__ import annotations

import os
from pathlib import Path

from mfn import made_from
from mfn.logs import gates, outcomes


def test_the_same_is_told_from_another_and_from_nothing() -> None:
    assert made_from.fingerprint("a", {"b": 1, "c": 2}) == made_from.fingerprint(
        "a", {"c": 2, "b": 1}
    )
    assert made_from.fingerprint("a", "b") != made_from.fingerprint("b", "a")
    assert made_from.fingerprint("ab") != made_from.fingerprint("a", "b")
    assert made_from.fingerprint("a", ["b"]) != made_from.fingerprint("a", "b")
    assert made_from.fingerprint(None) != made_from.fingerprint()


def test_files_that_come_go_or_change_are_seen(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    found = [made_from.of_files(str(folder))]
    folder.mkdir()
    assert made_from.of_files(str(folder)) == found[0]

    def now() -> str:
        assert made_from.of_files(str(folder)) == made_from.of_files(str(folder))
        return made_from.of_files(str(folder))

    (folder / "inner").mkdir()
    (folder / "inner" / "a").write_text("a")
    found.append(now())
    (folder / "b").write_text("b")
    found.append(now())
    (folder / "b").write_text("bb")
    found.append(now())
    os.utime(folder / "b", (1, 1))
    found.append(now())
    (folder / "inner" / "a").rename(folder / "inner" / "c")
    found.append(now())
    assert len(set(found)) == len(found)


def test_rules_are_their_source() -> None:
    assert made_from.of_source(gates) == made_from.of_source(gates)
    assert made_from.of_source(gates) != made_from.of_source(outcomes)
