"""The probe configuration of a running API: read again without a restart, and no made-up address by mistake."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from api.errors import ApiError
from api.probe_config import EXAMPLES, ProbeConfig

ROUTES = {
    "collectors.json": "/api/v1/collectors",
    "test-helpers.json": "/api/v1/test-helpers",
    "features.json": "/api/v1/check-in",
}
UNREACHABLE = "postgresql://nobody@127.0.0.1:1/none?connect_timeout=1"


def replace(path: Path, text: str) -> None:
    """Put a file in its place at once, as a role does."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(text)
    new.rename(path)


def eventually(condition: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory with a configuration that can be told from the examples."""
    target = tmp_path / "probe"
    shutil.copytree(EXAMPLES, target)
    helpers = json.loads((target / "test-helpers.json").read_text())
    helpers["web-connectivity"] = [{"address": "https://first.helper.example.org", "type": "https"}]
    (target / "test-helpers.json").write_text(json.dumps(helpers))
    return target


def web_helpers(api: Any, times: int = 1) -> list[str]:
    """Return the helpers of web-connectivity; several requests, over fresh connections, so that all workers answer."""
    found: set[str] = set()
    for _ in range(times):
        response = api.http.get("/api/v1/test-helpers", headers={"connection": "close"})
        assert response.status_code == 200, response.text
        found |= {entry["address"] for entry in response.json()["web-connectivity"]}
    return sorted(found)


def test_a_changed_file_is_used_without_a_restart(start_api: Callable[..., Any], directory: Path) -> None:
    api = start_api(UNREACHABLE, probe_config_directory=directory, workers=2)
    assert web_helpers(api) == ["https://first.helper.example.org"]
    assert api.metric("api_probe_config_ok", file="test-helpers.json") == 1
    assert api.metric("api_probe_config_examples") == 0
    path = directory / "test-helpers.json"
    good = path.read_text()
    second, third = (["https://second.helper.example.org"], ["https://third.helper.example.org"])

    replace(path, good.replace("first", "second"))
    eventually(lambda: web_helpers(api, 30) == second, "the new file is not used by all workers")

    replace(path, good.replace('"legacy"', '"https"'))  # would break two tests of every probe
    eventually(lambda: api.metric("api_probe_config_ok", file="test-helpers.json") == 0, "nothing says it is broken")
    assert web_helpers(api, 30) == second
    assert "key tcp-echo: the first entry must have type legacy" in api.log()
    assert api.metric("api_probe_config_ok", file="features.json") == 1

    path.unlink()
    time.sleep(1.5)
    assert web_helpers(api, 30) == second

    replace(path, good.replace("first", "third"))
    eventually(lambda: web_helpers(api, 30) == third, "the mended file is not used by all workers")
    eventually(lambda: api.metric("api_probe_config_ok", file="test-helpers.json") == 1, "nothing says it is mended")


def test_files_that_nobody_asks_for_are_watched_too(start_api: Callable[..., Any], directory: Path) -> None:
    api = start_api(UNREACHABLE, probe_config_directory=directory)
    assert api.metric("api_probe_config_ok", file="bouncer.json") == 1
    replace(directory / "bouncer.json", "{}")
    eventually(lambda: api.metric("api_probe_config_ok", file="bouncer.json") == 0, "nothing says it is broken")


def test_without_a_directory_there_are_examples_until_there_is_one(
    start_api: Callable[..., Any], directory: Path, tmp_path: Path
) -> None:
    place = tmp_path / "later"
    api = start_api(UNREACHABLE, probe_config_directory=place)
    assert "https://0.helper.example.org" in web_helpers(api)
    assert api.metric("api_probe_config_examples") == 1
    assert "probes are told example addresses" in api.log()
    directory.rename(place)
    eventually(lambda: web_helpers(api) == ["https://first.helper.example.org"], "the directory is not used")
    eventually(lambda: api.metric("api_probe_config_examples") == 0, "the metric still says example")
    shutil.rmtree(place)  # it was the real one: examples would be wrong now
    time.sleep(1.5)
    assert web_helpers(api) == ["https://first.helper.example.org"]
    eventually(lambda: api.metric("api_probe_config_ok", file="features.json") == 0, "nothing says that files are gone")


def test_a_file_that_never_was_good_is_a_503_and_no_example(start_api: Callable[..., Any], directory: Path) -> None:
    for name in ROUTES:
        (directory / name).write_text("[")
    api = start_api(UNREACHABLE, probe_config_directory=directory)
    for name, route in ROUTES.items():
        response = api.http.post(route, content=b"{}") if route.endswith("check-in") else api.http.get(route)
        assert response.status_code == 503
        assert name in response.json()["error"]
        assert response.headers["retry-after"] == "60"
        assert response.headers["cache-control"] == "no-cache"
    asked = {"net-tests": [{"name": "ndt", "version": "1"}]}
    assert api.http.post("/bouncer/net-tests", json=asked).status_code == 200


def test_a_restart_while_a_file_is_broken_goes_on_with_its_last_good_content(
    start_api: Callable[..., Any], directory: Path
) -> None:
    api = start_api(UNREACHABLE, probe_config_directory=directory, workers=2)
    copies = api.directory / "state" / "probe-config"
    assert {path.name for path in copies.iterdir()} == {path.name for path in directory.iterdir()}
    assert copies.stat().st_mode & 0o777 == 0o700
    (directory / "test-helpers.json").write_text("{}")
    (directory / "collectors.json").unlink()
    api.restart()
    assert web_helpers(api) == ["https://first.helper.example.org"]
    assert api.http.get("/api/v1/collectors").status_code == 200
    assert api.metric("api_probe_config_ok", file="test-helpers.json") == 0
    assert api.metric("api_probe_config_ok", file="features.json") == 1

    shutil.rmtree(directory)
    (copies / "collectors.json").write_text("[")  # a copy is not trusted either
    api.restart()
    assert web_helpers(api) == ["https://first.helper.example.org"]
    assert api.http.get("/api/v1/collectors").status_code == 503
    assert api.metric("api_probe_config_examples") == 0


def test_a_state_directory_that_cannot_be_written_does_no_harm(start_api: Callable[..., Any], directory: Path) -> None:
    (directory.parent / "file").write_text("")
    api = start_api(UNREACHABLE, probe_config_directory=directory, state_directory=directory.parent / "file")
    assert web_helpers(api) == ["https://first.helper.example.org"]
    assert "check state_directory" in api.log()


def test_a_directory_that_may_not_be_looked_at_is_no_reason_for_examples(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def denied(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_dir", denied)  # the tests may run as a user whom nothing is denied
    config = ProbeConfig(str(tmp_path / "probe"), tmp_path / "copies")
    with pytest.raises(ApiError, match=r"no usable features\.json") as caught:
        config.features()
    assert caught.value.status == 503


def test_empty_setting_means_examples(start_api: Callable[..., Any]) -> None:
    api = start_api(UNREACHABLE, probe_config_directory="")
    assert len(web_helpers(api)) == 5
    assert api.metric("api_probe_config_examples") == 1


# the commands


def run_command(*arguments: object) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("OONI_")}
    command = [str(Path(sys.executable).parent / "ooni-api"), *map(str, arguments)]
    return subprocess.run(command, env=clean, capture_output=True, text=True, timeout=60, check=False)


def test_check_accepts_a_good_directory_and_a_good_file(directory: Path, tmp_path: Path) -> None:
    shutil.copy(directory / "features.json", tmp_path / "source")
    for arguments in ([directory], [directory / "features.json"], [tmp_path / "source", "--as", "features.json"]):
        result = run_command("check-probe-config", *arguments)
        assert (result.returncode, result.stderr) == (0, "")


def test_check_prints_each_problem(directory: Path) -> None:
    (directory / "features.json").write_text('{"a": 1, "b": "no"}')
    (directory / "bouncer.json").unlink()
    (directory / "feature.json").write_text("{}")
    result = run_command("check-probe-config", directory)
    assert result.returncode == 78
    lines = result.stderr.splitlines()
    assert len(lines) == 4
    for line, said in zip(
        lines, ["key a is not", "key b is not", "bouncer.json", "feature.json: no file"], strict=True
    ):
        assert said in line


def test_problems_of_a_draft_bear_the_name_of_the_file_that_it_is_to_be(tmp_path: Path) -> None:
    (tmp_path / "source").write_text("{}")
    result = run_command("check-probe-config", "--as", "test-helpers.json", tmp_path / "source")
    assert result.returncode == 78
    assert result.stderr.startswith("ooni-api: test-helpers.json: ")
    assert result.stderr.endswith("probe-config-schema test-helpers.json\n")


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(["{}", "--as", "features.json"], 78), (["{}/strange.json"], 78), (["{}/none/features.json"], 78), ([], 2)],
)
def test_check_says_what_is_wrong_with_how_it_was_asked(directory: Path, arguments: list[str], status: int) -> None:
    result = run_command("check-probe-config", *(each.format(directory) for each in arguments))
    assert result.returncode == status
    assert result.stderr
    assert "Traceback" not in result.stderr


def test_schemas_are_printed(directory: Path) -> None:
    everything = json.loads(run_command("probe-config-schema").stdout)
    assert set(everything) == {path.name for path in directory.iterdir()}
    assert json.loads(run_command("probe-config-schema", "features.json").stdout) == everything["features.json"]
