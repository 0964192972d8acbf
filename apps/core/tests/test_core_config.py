"""Settings from files and the environment."""

from pathlib import Path
from typing import Literal

import msgspec
import pytest

from core import config
from core.config import ConfigError, describe, load_settings, public


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    # Address that
    # the service | listens on.
    bind: str = "127.0.0.1:8000"
    workers: int = 2
    """Number of worker processes."""
    timeout_s: float = 1.5
    debug: bool = False
    spool_dir: Path = Path("/var/lib/spool")
    peers: list[str] = []
    mode: Literal["fast", "safe"] = "fast"
    limit: int | None = None
    db_password: str = ""


class Strict(msgspec.Struct, frozen=True, kw_only=True):
    collector_id: str


def _load(tmp_path: Path, toml: str = "", **environ: str) -> Settings:
    file = tmp_path / "app.toml"
    file.write_text(toml)
    return load_settings(Settings, app="my-app", path=file, environ=environ)


def test_without_a_file_and_environment_the_defaults_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "CONFIG_DIRECTORY", tmp_path)
    assert load_settings(Settings, app="my-app", environ={"PATH": "/bin", "OONI_OTHER_X": "1"}) == Settings()


def test_the_file_overlays_the_defaults_and_the_environment_the_file(tmp_path: Path) -> None:
    toml = """
    bind = "0.0.0.0:1"
    workers = 3
    timeout_s = 2
    debug = true
    spool_dir = "/srv"
    peers = ["a", "b"]
    mode = "safe"
    limit = 7
    """
    found = _load(tmp_path, toml, OONI_MY_APP_WORKERS="4")
    assert found == Settings(
        bind="0.0.0.0:1",
        workers=4,
        timeout_s=2.0,
        debug=True,
        spool_dir=Path("/srv"),
        peers=["a", "b"],
        mode="safe",
        limit=7,
    )
    assert isinstance(found.spool_dir, Path)


def test_text_of_the_environment_becomes_every_type(tmp_path: Path) -> None:
    found = _load(
        tmp_path,
        OONI_MY_APP_BIND="123",
        OONI_MY_APP_WORKERS=" 5 ",
        OONI_MY_APP_TIMEOUT_S="3",
        OONI_MY_APP_DEBUG="Yes",
        OONI_MY_APP_SPOOL_DIR="/a b",
        OONI_MY_APP_PEERS="x, y,,",
        OONI_MY_APP_MODE="safe",
        OONI_MY_APP_LIMIT="9",
    )
    assert found == Settings(
        bind="123", workers=5, timeout_s=3.0, debug=True, spool_dir=Path("/a b"), peers=["x", "y"], mode="safe", limit=9
    )


@pytest.mark.parametrize("text", ["1", "true", "ON", "yes"])
def test_what_counts_as_true(tmp_path: Path, text: str) -> None:
    assert _load(tmp_path, OONI_MY_APP_DEBUG=text).debug is True


@pytest.mark.parametrize("text", ["0", "false", "OFF", "no"])
def test_what_counts_as_false(tmp_path: Path, text: str) -> None:
    assert _load(tmp_path, "debug = true", OONI_MY_APP_DEBUG=text).debug is False


def test_unknown_keys_name_the_nearest_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown key wrokers\. The nearest known one is workers"):
        _load(tmp_path, "wrokers = 3")
    with pytest.raises(ConfigError, match=r"variable OONI_MY_APP_WORKER\. The nearest .* OONI_MY_APP_WORKERS\."):
        _load(tmp_path, OONI_MY_APP_WORKER="3")
    with pytest.raises(ConfigError, match="unknown key table"):
        _load(tmp_path, "[table]\nworkers = 3")


@pytest.mark.parametrize(
    ("toml", "sentence"),
    [
        ('workers = "secret"', "key workers must be a whole number. Write it like: 10"),
        ("workers = 1.5", "key workers must be a whole number"),
        ("workers = true", "key workers must be a whole number"),
        ('timeout_s = "secret"', "key timeout_s must be a number. Write it like: 2.5"),
        ("debug = 1", "key debug must be true or false"),
        ("bind = 5", 'key bind must be text. Write it like: "some text"'),
        ("spool_dir = 5", "key spool_dir must be a path"),
        ('peers = "secret"', r'key peers must be a list. Write it like: \["one", "two"\]'),
        ("peers = [1]", "key peers must be a list"),
        ('mode = "secret"', "key mode must be one of fast, safe"),
    ],
)
def test_wrong_types_in_the_file_are_named_with_an_example_but_without_the_value(
    tmp_path: Path, toml: str, sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence) as caught:
        _load(tmp_path, toml)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "sentence"),
    [
        ("WORKERS", "must be a whole number. Write it like: 10"),
        ("TIMEOUT_S", "must be a number"),
        ("DEBUG", "must be true or false. Write it like: true"),
        ("MODE", "must be one of fast, safe. Write it like: fast"),
        ("LIMIT", "must be a whole number"),
    ],
)
def test_wrong_text_in_the_environment(tmp_path: Path, variable: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=f"OONI_MY_APP_{variable} {sentence}") as caught:
        _load(tmp_path, **{f"OONI_MY_APP_{variable}": "secret"})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("text", ["nan", "inf", "-inf"])
def test_numbers_that_are_none_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="must be a number"):
        _load(tmp_path, OONI_MY_APP_TIMEOUT_S=text)


def test_a_mandatory_setting_that_is_missing(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text("")
    with pytest.raises(ConfigError, match=r"Setting collector_id is missing.*OONI_X_COLLECTOR_ID"):
        load_settings(Strict, app="x", path=tmp_path / "x.toml", environ={})
    assert load_settings(Strict, app="x", path=tmp_path / "x.toml", environ={"OONI_X_COLLECTOR_ID": "1"}) == Strict(
        collector_id="1"
    )


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        load_settings(Settings, app="x", path=tmp_path / "absent.toml", environ={})
    with pytest.raises(ConfigError, match="does not exist"):
        load_settings(Settings, app="x", environ={"OONI_X_CONFIG": str(tmp_path / "absent.toml")})
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings(Settings, app="x", path=tmp_path, environ={})
    (tmp_path / "bad.toml").write_text("workers 3")
    with pytest.raises(ConfigError, match="is not TOML"):
        load_settings(Settings, app="x", path=tmp_path / "bad.toml", environ={})
    (tmp_path / "latin.toml").write_bytes(b'bind = "\xe9"')
    with pytest.raises(ConfigError, match="is not TOML"):
        load_settings(Settings, app="x", path=tmp_path / "latin.toml", environ={})


def test_the_argument_wins_over_the_variable_that_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("workers = 5")
    (tmp_path / "b.toml").write_text("workers = 6")
    environ = {"OONI_X_CONFIG": str(tmp_path / "b.toml")}
    assert load_settings(Settings, app="x", environ=environ).workers == 6
    assert load_settings(Settings, app="x", path=tmp_path / "a.toml", environ=environ).workers == 5


def test_describe_is_a_table_with_the_comments_of_the_fields() -> None:
    table = describe(Settings, "my-app").splitlines()
    assert table[0] == "| key | environment | default | meaning |"
    assert "| `bind` | `OONI_MY_APP_BIND` | `127.0.0.1:8000` | Address that the service \\| listens on. |" in table
    assert "| `workers` | `OONI_MY_APP_WORKERS` | `2` | Number of worker processes. |" in table
    assert "| `debug` | `OONI_MY_APP_DEBUG` | `false` |  |" in table
    assert '| `db_password` | `OONI_MY_APP_DB_PASSWORD` | `""` |  |' in table
    assert "| `collector_id` | `OONI_X_COLLECTOR_ID` | (mandatory) |  |" in describe(Strict, "x")


def test_public_hides_what_may_be_secret() -> None:
    assert public(Settings(db_password="hunter2"))["db_password"] == "***"
    assert public(Settings())["db_password"] == ""
    assert public(Settings())["workers"] == 2
