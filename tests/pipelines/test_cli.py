"""The command `mfn`, and the schema of the settings that it prints."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from mfn.errors import BadSettings
from mfn.settings import Settings
from mfn.spark import check_horovod
from pipelines import cli
from pipelines.steps import JOBS, job_of

CONF = Path(__file__).resolve().parents[2] / "conf"
SCHEMA = json.loads((CONF / "settings.schema.json").read_text(encoding="utf-8"))


def test_help_lists_a_day_every_job_and_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([]) == cli.run(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    commands = {line.split()[0]: line for line in lines if re.match(r"  [a-z]", line)}
    jobs = {name.replace("_", "-") for name in JOBS}
    assert commands.keys() == {"day", "settings-schema"} | jobs
    # Descriptions come from the source, so that nothing is loaded; they are those of the jobs.
    for name in ("clean_up", "evaluate"):
        assert job_of(name).description in commands[name.replace("_", "-")]


@pytest.mark.parametrize(
    ("command", "message"),
    [("trian", "did you mean train?"), ("clean", "did you mean clean-up?"), ("xyzzy", "lists all")],
)
def test_an_unknown_command_exits_2_and_names_the_nearest(
    command: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run([command]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("command", ["clean-up", "clean_up"])
def test_a_job_shows_the_settings_that_it_reads_and_all_on_request(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["mfn"])

    def help_of(*words: str) -> str:
        with pytest.raises(SystemExit) as ended:
            cli.run([command, *words])
        assert ended.value.code == 0
        return capsys.readouterr().out

    own = help_of("--help")
    assert own.startswith(f"usage: mfn {command} --date")
    assert "--retention.splits_days" in own
    assert "--train.seed" not in own
    assert "Not read by this job: simulate, ingest" in own
    everything = help_of("--help", "all")
    assert "--train.seed" in everything
    assert "Not read by this job" not in everything


def test_a_wrong_setting_of_a_command_exits_2(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["mfn"])
    with pytest.raises(SystemExit) as ended:
        cli.run(["clean-up", "--date", "2026-03-08", "--retention.split_days", "1"])
    assert ended.value.code == 2
    assert "did you mean retention.splits_days?" in capsys.readouterr().err


def test_several_workers_without_horovod_are_refused_before_anything_is_done(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    two, one = make_settings(train={"num_workers": 2}), make_settings()
    check_horovod(two)  # the control: it is installed here
    for module in [name for name in sys.modules if name.split(".")[0] == "horovod"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "meta_path", sys.meta_path[:3])  # not that of an editable install
    with pytest.raises(BadSettings, match=r"train.num_workers: expected 1.*not installed, got 2"):
        check_horovod(two)
    check_horovod(one)


def test_the_schema_beside_the_configurations_is_that_of_the_settings(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """If this fails: mfn settings-schema > conf/settings.schema.json."""
    assert cli.run(["settings-schema"]) == 0
    assert json.loads(capsys.readouterr().out) == SCHEMA


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.name)
def test_every_configuration_names_the_schema_and_satisfies_it(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=settings.schema.json\n")
    jsonschema.validate(plain(yaml.safe_load(text)), SCHEMA)


@pytest.mark.parametrize(
    "wrong",
    [
        {"train": {"epoch": 1}},
        {"train": {"epochs": "many"}},
        {"models": {"mine": {"extractor": "mfm"}}},
        {"models": {"mfn": {"interest": 8}}},
        {"logs": {"made_by": "nobody"}},
        {"trian": {}},
    ],
    ids=str,
)
def test_the_schema_refuses_what_the_settings_refuse(wrong: dict[str, Any]) -> None:
    right = {"train": {"epochs": 1}, "models": {"mfn": None, "k16": {"extractor": "mfn"}}}
    jsonschema.validate({**right, "spark": {"options": {"spark.x": True}}}, SCHEMA)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**right, **wrong}, SCHEMA)


def plain(content: Any) -> Any:
    """YAML as JSON has it: a date is text."""
    return json.loads(json.dumps(content, default=str))
