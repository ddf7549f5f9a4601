"""What an output was made from is told from what it was not."""

from __future__ import annotations

import os
from pathlib import Path

from mfn import fingerprint
from mfn.logs import gates, outcomes


def test_the_same_is_told_from_another_and_from_nothing() -> None:
    assert fingerprint.of_values("a", {"b": 1, "c": 2}) == fingerprint.of_values(
        "a", {"c": 2, "b": 1}
    )
    assert fingerprint.of_values("a", "b") != fingerprint.of_values("b", "a")
    assert fingerprint.of_values("ab") != fingerprint.of_values("a", "b")
    assert fingerprint.of_values("a", ["b"]) != fingerprint.of_values("a", "b")
    assert fingerprint.of_values(None) != fingerprint.of_values()


def test_files_that_come_go_or_change_are_seen(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    found = [fingerprint.of_files(str(folder))]
    folder.mkdir()
    assert fingerprint.of_files(str(folder)) == found[0]

    def now() -> str:
        assert fingerprint.of_files(str(folder)) == fingerprint.of_files(str(folder))
        return fingerprint.of_files(str(folder))

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
    assert fingerprint.of_source(gates) == fingerprint.of_source(gates)
    assert fingerprint.of_source(gates) != fingerprint.of_source(outcomes)
