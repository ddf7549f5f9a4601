"""Whatever is wrong with a setting is found and named before anything starts."""

from __future__ import annotations

import datetime
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from mfn.configuration import SERVICE_LINK, load_settings, setting_names
from mfn.errors import BadSettings
from mfn.models.settings import NAMED_MODELS, MfnSettings
from mfn.settings import Settings, TrainSettings
from mfn.settings_help import ALL_SECTIONS, describe_settings

DATE = ("--date", "2026-03-08")


def load(
    *arguments: str, file: str | None = None, environment: dict[str, str] | None = None
) -> Settings:
    return load_settings(file, [*DATE, *arguments], environment or {})


def refused(
    *arguments: str, file: str | None = None, environment: dict[str, str] | None = None
) -> list[str]:
    with pytest.raises(BadSettings) as raised:
        load(*arguments, file=file, environment=environment)
    return str(raised.value).splitlines()


@pytest.fixture
def yaml_file(tmp_path: Path) -> Any:
    def write(text: str) -> str:
        path = tmp_path / "conf.yaml"
        path.write_text(text)
        return str(path)

    return write


# Names.


@pytest.mark.parametrize(
    ("text", "name", "nearest"),
    [
        ("trian: {epochs: 2}", "trian", "train"),
        ("train: {epoch: 2}", "train.epoch", "train.epochs"),
        ("models: {mind: {interest: 2}}", "models.mind.interest", "models.mind.interests"),
        ("num_workers: 2", "num_workers", "train.num_workers"),
        ("dates: 2026-03-08", "dates", "date"),
    ],
)
def test_a_name_unknown_in_a_file_is_told_with_the_nearest(
    yaml_file: Any, text: str, name: str, nearest: str
) -> None:
    file = yaml_file(text)
    line = f"{name}: there is no such setting ({file}); did you mean {nearest}?"
    assert refused(file=file) == [line]


@pytest.mark.parametrize(
    ("argument", "nearest"),
    [
        ("train.learning_rte", "train.learning_rate"),
        ("train.learning-rate", "train.learning_rate"),
        ("workers", "train.num_workers"),
        ("conf", "config"),
        ("centers.interests", "models.NAME.interests"),
        ("model.mind.interests", "models.NAME.interests"),
    ],
)
def test_a_name_unknown_among_arguments_is_told_with_the_nearest(
    argument: str, nearest: str
) -> None:
    line = f"{argument}: there is no such setting (argument); did you mean {nearest}?"
    assert refused(f"--{argument}", "2") == [line]


def test_a_name_like_none_points_to_help() -> None:
    assert refused("--xyzzy", "2") == [
        "xyzzy: there is no such setting (argument); --help lists all"
    ]


def test_a_name_unknown_in_the_environment_is_told_with_the_nearest() -> None:
    assert refused(environment={"MFN_TRAIN__EPOCH": "2", "HOME": "/root"}) == [
        "train.epoch: there is no such setting (environment variable MFN_TRAIN__EPOCH); "
        "did you mean train.epochs?"
    ]


SERVICE_LINKS = (
    "MFN_SERVICE_HOST", "MFN_SERVICE_PORT", "MFN_SERVICE_PORT_HTTP", "MFN_PORT", "MFN_PORT_80_TCP",
    "MFN_PORT_80_TCP_ADDR", "MFN_PORT_80_TCP_PORT", "MFN_PORT_53_UDP_PROTO",
    "MFN_TRAIN_SERVICE_HOST", "MFN_TRAIN_PORT", "MFN_TRAIN_PORT_443_TCP_ADDR",
)  # fmt: skip


def test_variables_that_kubernetes_sets_for_a_service_are_no_settings() -> None:
    links = dict.fromkeys(SERVICE_LINKS, "tcp://10.0.0.1:80")
    assert load(environment={**links, "MFN_TRAIN__EPOCHS": "2"}).train.epochs == 2
    for variable in ("MFN_PORTS", "MFN_TRAIN__PORT", "MFN_PORT_80", "MFN_SERVICE"):
        assert len(refused(environment={variable: "1"})) == 1, variable


def test_no_setting_has_the_name_of_such_a_variable() -> None:
    names = {f"MFN_{name.upper().replace('.', '__')}" for name in setting_names()}
    assert not list(filter(SERVICE_LINK.fullmatch, names))
    option = {"MFN_SPARK__OPTIONS__SPARK__DRIVER__PORT": "4040"}
    assert load(environment=option).spark.options == {"spark.driver.port": "4040"}


def test_a_setting_of_another_extractor_is_unknown() -> None:
    assert "interests" in NAMED_MODELS["mind"].model_dump()
    (line,) = refused("--models.base.interests", "4")
    assert line.startswith("models.base.interests: there is no such setting (argument)")


def test_a_dotted_name_in_a_file_is_told_how_to_be_written(yaml_file: Any) -> None:
    (line,) = refused(file=yaml_file("train.epochs: 2"))
    assert line.endswith("in a file, write a section's settings under its name, not with dots")


# Types and values.


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("train.epochs", "many", "a valid integer"),
        ("train.epochs", "1.5", "a valid integer"),
        ("train.epochs", "", "a valid integer"),
        ("train.learning_rate", "fast", "a valid number"),
        ("train.learning_rate", "-1e-3", "greater than 0"),
        ("train.learning_rate", "0", "greater than 0"),
        ("train.learning_rate", "nan", "a finite number"),
        ("train.num_workers", "0", "greater than 0"),
        ("splits.history_length", "0", "greater than 0"),
        ("validation.max_quarantined_share", "1.5", "less than or equal to 1"),
        ("windows.test_days", "0", "greater than 0"),
        ("models.mfn.similarity_interests", "0", "greater than 0"),
        ("models.mfn.product", "perhaps", "a valid boolean"),
        ("spark.driver_memory", "3 GB", "a size such as 3g or 512m"),
        ("ingest.source", "movie", "'csv', 'movielens'"),
        ("models.mfn.centers_marginal", "item", "'batch' or 'user'"),
        ("logs.day_time_zone", "Mars/Base", "the name of a time zone, such as UTC or Europe/Paris"),
        ("logs.time_zone", "Europe", "the name of a time zone, such as UTC or Europe/Paris"),
    ],
)
def test_an_impossible_value_is_told_with_what_was_expected(
    name: str, value: str, expected: str
) -> None:
    (line,) = refused(f"--{name}={value}")
    assert line.startswith(f"{name}: expected {expected}")
    assert line.endswith(f", got {value!r} (argument)")


@pytest.mark.parametrize("date", ["2026-02-30", "20260308", "yesterday", "8.3.2026", "1772928000"])
@pytest.mark.parametrize("place", ["argument", "file", "quoted in a file", "environment"])
def test_a_date_that_is_none_is_told(yaml_file: Any, date: str, place: str) -> None:
    file = None
    if "file" in place:
        file = yaml_file(f"date: {date}" if place == "file" else f"date: '{date}'")
    arguments = ["--date", date] if place == "argument" else []
    environment = {"MFN_DATE": date} if place == "environment" else {}
    with pytest.raises(BadSettings, match=r"^date: expected a day of the calendar as YYYY-MM-DD, "):
        load_settings(file, arguments, environment)


def test_a_date_is_read_alike_from_everywhere(yaml_file: Any) -> None:
    day = datetime.date(2026, 3, 8)
    assert load_settings(yaml_file("date: 2026-03-08"), [], {}).date == day
    assert load_settings(None, [], {"MFN_DATE": "2026-03-08"}).date == day
    assert load_settings(None, ["--date=2026-03-08"], {}).date == day


def test_a_missing_date_is_told() -> None:
    with pytest.raises(BadSettings, match=r"^date: expected a value, got none$"):
        load_settings(None, [], {})


def leaves(kind: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    for name, field in kind.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from leaves(field.annotation, (*path, name))
        else:
            yield ".".join((*path, name)), field.annotation


FLOATS = [name for name, kind in leaves(Settings) if kind is float]


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_no_number_may_be_nan_or_endless(name: str, value: str) -> None:
    (line,) = refused(f"--{name}={value}")
    assert line.startswith(f"{name}: expected ")


@pytest.mark.parametrize("kind", dict.fromkeys(type(model) for model in NAMED_MODELS.values()))
def test_no_number_of_a_model_may_be_nan_or_endless(kind: type[BaseModel]) -> None:
    for name, annotation in leaves(kind):
        if annotation is float:
            for value in (math.nan, math.inf):
                with pytest.raises(ValidationError):
                    kind(**{name: value})


def test_a_first_day_is_a_day_and_not_of_movielens() -> None:
    day = ("--ingest.first_day", "2017-11-25")
    assert load("--ingest.source", "taobao", *day).ingest.first_day == datetime.date(2017, 11, 25)
    (line,) = refused(*day)
    assert line.startswith("ingest: expected no first_day for movielens, which is always taken ")
    (line,) = refused("--ingest.source", "taobao", "--ingest.first_day", "25")
    assert line.startswith("ingest.first_day: expected a day of the calendar as YYYY-MM-DD")


def test_windows_that_leave_nothing_to_learn_from_are_told() -> None:
    assert refused("--windows.pretraining_days", "1") == [
        "windows: expected pretraining_days to be more than pretraining_validation_days (1), "
        "got 1 (argument)"
    ]


def test_everything_wrong_is_told_at_once(yaml_file: Any) -> None:
    file = yaml_file("trian: {epochs: 2}\nsplits: {history_length: 0}\n")
    lines = refused(
        "--train.epochs", "x", "stray", file=file, environment={"MFN_PREDICT__BATCH": "9"}
    )
    names = [line.partition(":")[0] for line in lines]
    assert sorted(names) == [
        "predict.batch",
        "splits.history_length",
        "stray",
        "train.epochs",
        "trian",
    ]
    assert f"({file})" in lines[names.index("splits.history_length")]
    assert "(argument)" in lines[names.index("train.epochs")]


# Who wins.


def test_arguments_win_over_the_environment_and_that_over_the_file(yaml_file: Any) -> None:
    file = yaml_file("train: {learning_rate: 1e-1, epochs: 5, batch_requests: 7}")
    settings = load(
        "--train.learning_rate",
        "1e-3",
        file=file,
        environment={"MFN_TRAIN__LEARNING_RATE": "1e-2", "MFN_TRAIN__EPOCHS": "4"},
    )
    assert settings.train.learning_rate == 1e-3
    assert settings.train.epochs == 4
    assert settings.train.batch_requests == 7
    assert settings.train.seed == Settings(date=settings.date).train.seed


def test_settings_made_in_code_do_not_read_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MFN_TRAIN__EPOCHS", "9")
    assert Settings(date=datetime.date(2026, 3, 8)).train.epochs == 1
    assert load_settings(None, DATE).train.epochs == 9  # the control: the environment does hold it


def test_a_section_may_be_given_whole_or_be_empty(yaml_file: Any) -> None:
    file = yaml_file("train:\nsplits:\n  # files: 4\n")
    settings = load("--train", '{"epochs": 3}', "--train.seed", "5", file=file)
    assert (settings.train.epochs, settings.train.seed) == (3, 5)


def test_lists_are_read_with_commas_or_brackets() -> None:
    settings = load(
        "--splits.user_fields",
        "age, city",
        "--splits.behaviours=[click, cart]",
        "--splits.context_fields",
        "",
        "--models.mfn.head_units",
        "64,32,16",
    )
    assert settings.splits.user_fields == ("age", "city")
    assert settings.splits.behaviours == ("click", "cart")
    assert settings.splits.context_fields == ()
    assert settings.models["mfn"].head_units == (64, 32, 16)


def test_a_wrong_item_of_a_list_is_told_alone() -> None:
    assert refused("--splits.behaviours", "clicks") == [
        "splits.behaviours.0: expected 'click', 'cart' or 'purchase', got 'clicks' (argument)"
    ]
    assert refused("--splits.behaviours", "") == [
        "splits.behaviours: expected to have at least 1 item, got [] (argument)"
    ]


def test_spark_options_keep_their_dots_and_become_text(yaml_file: Any) -> None:
    file = yaml_file("spark:\n  options:\n    spark.sql.adaptive.enabled: true\n    spark.x: 4\n")
    settings = load("--spark.options.spark.executor.memory", "2g", file=file)
    assert settings.spark.options == {
        "spark.sql.adaptive.enabled": "true",
        "spark.x": "4",
        "spark.executor.memory": "2g",
    }


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (
            ("--spark.options.spark.hadoop.fs.s3a.secret.key", "hidden"),
            "spark.options.spark.hadoop",
        ),
        (("--spark.options.spark.x", "-Da=b -Djavax.net.ssl.trustStorePassword=hidden"), "spark"),
        (("--root", "s3a://key:hidden@bucket/mfn"), "root"),
        (("--root", "s3a://key:hid/den@bucket/hidden"), "root"),
        (("--logs.events", "s3a://key:hidden@bucket/raw"), "logs.events"),
        (("--root", "s3a://hidden@bucket/mfn"), "root"),
        (("--root", "https://account/mfn?sig=hidden"), "root"),
        (("--ingest.path", "S3A://bucket/mfn?token=hidden"), "ingest.path"),
        (("--embeddings.words", "s3a://key:hidden@bucket/glove.txt"), "embeddings.words"),
        *(
            ((f"--spark.options.{option}", "hidden"), "spark.options")
            for option in (
                "spark.ssl.keyStorePasswd",
                "spark.ssl.keyStorePassw",
                "spark.hadoop.javax.jdo.option.ConnectionPwd",
                "spark.geocoder.api.key",
                "spark.hadoop.fs.s3a.encryption.key",
                "spark.hadoop.fs.s3a.server-side-encryption.key",
            )
        ),
        (("--spark.options.spark.x", "-Dkey.store.pwd=hidden"), "spark"),
    ],
)
def test_a_secret_among_the_settings_is_refused_and_not_shown(
    arguments: tuple[str, str], name: str
) -> None:
    (line,) = refused(*arguments)
    assert line.startswith(name)
    assert "environment" in line
    assert "hidden" not in line


@pytest.mark.parametrize(
    "option",
    ["spark.io.encryption.keySizeBits", "spark.hadoop.fs.s3a.aws.credentials.provider"],
)
def test_an_option_about_secrets_that_holds_none_is_accepted(option: str) -> None:
    assert load(f"--spark.options.{option}", "256").spark.options == {option: "256"}


def test_a_value_of_the_file_can_be_taken_back(yaml_file: Any) -> None:
    file = yaml_file("logs: {users: /somewhere}")
    assert load(file=file).logs.users == "/somewhere"
    assert load("--logs.users", "null", file=file).logs.users is None


@pytest.mark.parametrize("root", ["warehouse/demo", "./warehouse/demo/", "~/warehouse/demo"])
def test_a_relative_root_is_made_absolute_since_workers_start_elsewhere(root: str) -> None:
    home = os.path.expanduser("~") if root.startswith("~") else os.getcwd()
    assert load("--root", root).root == f"{home}/warehouse/demo"


def test_any_location_is_made_absolute(yaml_file: Any) -> None:
    file = yaml_file("root: a\nlogs: {events: b}\ningest: {path: ~/c.csv}\nembeddings: {words: d}")
    settings = load(file=file)
    assert settings.root == f"{os.getcwd()}/a"
    assert settings.logs.events == f"{os.getcwd()}/b"
    assert settings.ingest.path == os.path.expanduser("~/c.csv")
    assert settings.embeddings.words == f"{os.getcwd()}/d"
    assert load("--embeddings.words", "word2vec").embeddings.words == "word2vec"


@pytest.mark.parametrize(
    ("root", "expected"),
    [
        *((same, same) for same in ("s3a://bucket/mfn", "hdfs://name:8020/mfn", "hdfs:///mfn")),
        ("hdfs://name:8020/a@b", "hdfs://name:8020/a@b"),
        ("abfss://container@account.dfs.core.windows.net/a", None),
        ("S3A://Bucket//a/./b/../c/", "s3a://Bucket/a/c"),
        ("s3a://bucket/", "s3a://bucket"),
        ("hdfs:/mfn", "hdfs:///mfn"),
        ("file:/data/mfn", "/data/mfn"),
        ("file:///data/mfn/", "/data/mfn"),
        ("FILE://localhost/data/mfn", "/data/mfn"),
        ("//data/mfn", "/data/mfn"),
        ("$HOME/mfn", os.path.expanduser("~/mfn")),
        ("${HOME}/mfn", os.path.expanduser("~/mfn")),
    ],
)
def test_a_root_has_one_form_whatever_way_it_is_written(root: str, expected: str | None) -> None:
    found = load("--root", root).root
    assert found == (expected or root)
    assert load("--root", found).root == found


GOOD_NAMES = ("%", "%20", "&", "+", ";", ":", '"', "'", ",", "a b", "ü", "红", "=", "$", "@")


@pytest.mark.parametrize("name", GOOD_NAMES)
def test_a_root_may_have_such_a_name(name: str) -> None:
    assert load("--root", f"/data/{name}/mfn").root == f"/data/{name}/mfn"


@pytest.mark.parametrize("setting", ["root", "logs.events"])
@pytest.mark.parametrize("name", ["[x]", "{a,b}", "a\\b", "#", "a?b", "*", "`"])
def test_a_folder_with_a_name_that_some_reader_takes_for_a_pattern_is_refused(
    setting: str, name: str
) -> None:
    (line,) = refused(f"--{setting}", f"/data/{name}/mfn")
    assert line.startswith(f"{setting}: expected no * ? [ ] {{ }} # \\ ` in the path")
    assert f"/data/{name}/mfn has " in line
    assert "rename" in line
    assert load("--ingest.path", f"/data/{name}/x.csv").ingest.path == f"/data/{name}/x.csv"


@pytest.mark.parametrize(
    ("root", "what"),
    [
        (" /data", "no blank at an end"),
        ("/data ", "no blank at an end"),
        ("/da\nta", "no line break"),
        ("/data/\udcff", "a valid string"),  # a name that is not UTF-8
        ("$NO_SUCH_VARIABLE/mfn", "there is no $NO_SUCH_VARIABLE"),
        ("s3a://bucket/${NO_SUCH_VARIABLE}", "there is no ${NO_SUCH_VARIABLE}"),
        ("~nobody-of-this-name/mfn", "there is no ~nobody-of-this-name"),
        ("a::b", "'::'"),
        ("s3a:/bucket/mfn", "s3a://NAME/FOLDER"),
        ("s3a:bucket", "s3a://NAME/FOLDER, or ./s3a:bucket"),
        ("file://data/mfn", "file:///data/mfn"),
        ("/", "below the top"),
        ("file:///", "below the top"),
    ],
)
def test_a_root_that_would_lead_elsewhere_is_refused(root: str, what: str) -> None:
    (line,) = refused("--root", root)
    assert line.startswith("root: expected ")
    assert what in line


# Models.


def test_a_name_of_ones_own_starts_from_its_extractor(yaml_file: Any) -> None:
    file = yaml_file("models:\n  base:\n  mfn_k16: {extractor: mfn, similarity_interests: 16}\n")
    settings = load(file=file)
    assert list(settings.models) == ["base", "mfn_k16"]
    model = settings.models["mfn_k16"]
    assert isinstance(model, MfnSettings)
    assert model == MfnSettings(**{**NAMED_MODELS["mfn"].model_dump(), "similarity_interests": 16})


def test_a_setting_of_one_model_leaves_the_other_models_configured() -> None:
    settings = load("--models.mfn.similarity_interests", "4")
    assert settings.models == {
        "base": NAMED_MODELS["base"],
        "mfn": MfnSettings(similarity_interests=4),
    }


def test_a_file_s_models_are_all_there_are(yaml_file: Any) -> None:
    file = yaml_file("models: {base: {}}")
    assert list(load(file=file).models) == ["base"]
    added = load(
        file=file, environment={"MFN_MODELS__MFN_K4": "{extractor: mfn, similarity_interests: 4}"}
    )
    assert list(added.models) == ["base", "mfn_k4"]


def test_one_setting_of_a_named_model_changes_only_that(yaml_file: Any) -> None:
    file = yaml_file("models: {base: {}, mfn: {heads: 1}}")
    settings = load("--models.mfn.similarity_interests", "4", file=file)
    assert settings.models["mfn"] == MfnSettings(heads=1, similarity_interests=4)
    assert settings.models["base"] == NAMED_MODELS["base"]


def test_every_named_model_needs_no_more_than_its_name() -> None:
    for name, expected in NAMED_MODELS.items():
        settings = load(f"--models.{name}", "{}", f"--evaluate.base_model={name}")
        assert settings.models[name] == expected


@pytest.mark.parametrize("name", ["Mfn", "16k", "a-b", "oracle", "popularity", "a b"])
def test_a_model_s_name_fits_tables_and_folders(yaml_file: Any, name: str) -> None:
    (line,) = refused(file=yaml_file(f"models: {{base: {{}}, '{name}': {{extractor: mfn}}}}"))
    assert line.startswith(f"models: {name!r} cannot be a model's name; expected lower case")


def test_a_model_without_an_extractor_is_told_with_the_nearest_named_model() -> None:
    (line,) = refused("--models.mnf.heads", "2")
    assert line.startswith("models.mnf.extractor: expected one of 'base', 'mind', ")
    assert line.endswith("got none (argument); did you mean mfn?")


@pytest.mark.parametrize("extractor", ["transformer_xl", "[mfn]", "null"])
def test_an_unknown_extractor_is_told(extractor: str) -> None:
    (line,) = refused("--models.mine.extractor", extractor)
    assert line.startswith("models.mine.extractor: expected one of 'base', 'mind', ")


def test_a_base_model_that_is_not_configured_is_told(yaml_file: Any) -> None:
    assert refused(file=yaml_file("models: {mfn: {}}")) == [
        "evaluate.base_model: expected one of the models ['mfn'], got 'base'"
    ]
    assert load("--evaluate.base_model", "mfn", file=yaml_file("models: {mfn: {}}")).models


def test_a_model_to_train_that_is_not_configured_is_told() -> None:
    assert refused("--train.only", "din") == [
        "train.only: expected some of the models ['base', 'mfn'], got 'din'"
    ]
    assert list(load("--train.only", "mfn").models_to_train) == ["mfn"]
    assert list(load().models_to_train) == ["base", "mfn"]


@pytest.mark.parametrize("text", ["models: [mfn]", "models: mfn", "models: {}", "models: {mfn: 3}"])
def test_models_that_are_no_models_are_told(yaml_file: Any, text: str) -> None:
    (line,) = refused(file=yaml_file(text))
    assert line.startswith("models")
    assert "expected" in line


# Files and arguments as such.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train: {epochs: 2", "is not YAML"),
        ("train: {epochs: 2}\ntrain: {seed: 3}", "'train' is given twice"),
        ("train:\n  epochs: 2\n  epochs: 3", "'epochs' is given twice"),
        ("- train", "to hold settings by name"),
        ("", "to hold settings by name"),
        ("root: \0", "is not YAML"),
        ("? [a, b]\n: 1", "expected a name, got a list or a section"),
        (f"root: {'[' * 1000}", "nested too deeply"),
        (f"train: {{seed: {'9' * 6000}}}", "value has 6000 digits"),
    ],
)
def test_a_file_that_holds_no_settings_is_told(yaml_file: Any, text: str, expected: str) -> None:
    file = yaml_file(text)
    message = "\n".join(refused(file=file))
    assert message.startswith("config: ")
    assert expected in message
    assert file in message


def test_an_argument_that_cannot_be_read_is_told_and_cut() -> None:
    for text in ("[" * 1000, f"[{'9' * 6000}]"):
        (line,) = refused("--train.epochs", text)
        assert line.startswith(f"train.epochs: expected a YAML value, got '{text[:50]}")
        assert len(line) < 300
    (line,) = refused("--train.epochs", "9" * 6000)
    assert line.startswith("train.epochs: expected ")
    assert len(line) < 400


def test_a_value_whose_text_would_have_no_end_is_told_in_a_line(yaml_file: Any) -> None:
    doubled = "".join(f"  &a{n} [{', '.join([f'*a{n - 1}'] * 9)}],\n" for n in range(1, 40))
    (line,) = refused(file=yaml_file(f"root: [\n  &a0 [x, x, x],\n{doubled}]\n"))
    assert line.startswith("root: expected a valid string, got [")
    assert len(line) < 1000


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    (line,) = refused("--config", "conf/dmeo.yaml")
    assert line.startswith("config: expected a YAML file, got 'conf/dmeo.yaml', which cannot be")
    assert "No such file" in line
    (line,) = refused("--config", str(tmp_path))
    assert line.startswith("config: expected a YAML file")


def test_a_switch_needs_no_value_and_takes_one(yaml_file: Any) -> None:
    assert not load().force
    assert load("--force").force
    assert load("--force", "--train.epochs", "2").train.epochs == 2
    assert load("--force", "true").force
    assert not load("--force", "false", file=yaml_file("force: true")).force
    assert not load("--force=false").force
    assert refused("--force", "twice") == [
        "twice: expected --NAME VALUE, with the name of a setting"
    ]


def test_the_file_named_by_an_argument_wins_over_the_caller_s(yaml_file: Any) -> None:
    assert load("--config", yaml_file("train: {epochs: 4}"), file="nowhere").train.epochs == 4


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--train.epochs"], "train.epochs: expected a value after --train.epochs, got none"),
        (["--config", "--root", "x"], "config: expected a value after --config, got none"),
        (["--root", "a", "--root=b"], "root: given twice, as 'a' and as 'b'"),
        (["--root", "a", "b"], "b: expected --NAME VALUE, with the name of a setting"),
        (["-d", "x"], "-d: expected --NAME VALUE, with the name of a setting"),
        (["--train", "{epochs: 2"], "train: expected a YAML value, got '{epochs: 2' (argument)"),
    ],
)
def test_an_argument_that_is_none_is_told(arguments: list[str], line: str) -> None:
    assert line in refused(*arguments)


def test_every_setting_of_train_but_these_is_one_that_parameters_follow_from() -> None:
    own = Settings(root="root", date=datetime.date(2026, 3, 8)).train
    others = set(type(own).model_fields) - set(own.of_the_result)
    assert others == {"only", "stall_seconds", "tensorboard", "table"}


def test_all_files_in_conf_load() -> None:
    for file in sorted(Path(__file__).parent.parent.glob("conf/*.yaml")):
        assert load(file=str(file)).models, file


# Help.


def test_every_setting_says_what_it_is() -> None:
    missing = []
    kinds: list[type[BaseModel]] = [Settings, *{type(model) for model in NAMED_MODELS.values()}]
    for kind in kinds:
        for name, field in kind.model_fields.items():
            inner = field.annotation
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                fields = {f"{name}.{n}": f for n, f in inner.model_fields.items()}
            else:
                fields = {} if name == "extractor" else {f"{kind.__name__}: {name}": field}
            missing += [name for name, field in fields.items() if not field.description]
    assert missing == []


def test_help_lists_every_setting_with_its_description_and_default() -> None:
    text = describe_settings(ALL_SECTIONS, 100)
    words = " ".join(text.split())
    for name in setting_names():
        assert f"{name}:" in text or f"--{name} " in words, name
    assert "--models.NAME.combination_interests number of combination interests K" in words
    assert "--train.learning_rate learning rate of Adam; 1e-4 in the paper; default 0.0001" in words
    assert max(map(len, text.splitlines())) <= 100


def test_a_copy_with_a_setting_that_does_not_exist_is_refused() -> None:
    train = TrainSettings()
    assert train.model_copy(update={"epochs": 7}).epochs == 7  # the control
    with pytest.raises(ValueError, match="TrainSettings has no settings epoch, seeds"):
        train.model_copy(update={"seeds": 1, "epoch": 7})
