"""The files of the probe configuration: what is taken, and what is said about everything else."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from api.probe_config import EXAMPLES
from api.probe_files import MAX_FILE_BYTES, PARSERS, ProbeFileError, load
from api.probe_shapes import schema


def example(name: str) -> Any:
    return json.loads((EXAMPLES / name).read_text())


def problems(directory: Path, name: str, content: object) -> list[str]:
    """Return what is said about a file with this content: bytes as they are, anything else as JSON."""
    path = directory / name
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    try:
        load(path, name)
    except ProbeFileError as error:
        return error.problems
    return []


def test_examples_are_every_file_and_can_be_used() -> None:
    assert {path.name for path in EXAMPLES.iterdir()} == set(PARSERS)
    for name in PARSERS:
        assert load(EXAMPLES / name, name)


@pytest.mark.parametrize("name", sorted(set(PARSERS) - {"nettest-inputs.json"}))
def test_examples_hold_no_address_of_a_real_operator(name: str) -> None:
    text = (EXAMPLES / name).read_text()
    for address in re.findall(r"\d+\.\d+\.\d+\.\d+", text):
        assert address.startswith(("192.0.2.", "198.51.100.")), address
    for host in re.findall(r"//([a-z0-9.-]*[a-z][a-z0-9.-]*)", text):
        assert host.endswith((".example.org", ".example.net", "example.onion")), host


@pytest.mark.parametrize("name", PARSERS)
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"1",
        b'"x"',
        b"NaN",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":1,"a":2}',
        b" " * (MAX_FILE_BYTES + 1),
    ],
)
def test_no_file_may_be_anything_else(tmp_path: Path, name: str, content: bytes) -> None:
    found = problems(tmp_path, name, content)
    assert found
    assert all(problem.startswith(f"{name}: ") and problem.endswith((".", name)) for problem in found)


@pytest.mark.parametrize("name", PARSERS)
def test_a_file_that_is_not_there_is_a_problem(tmp_path: Path, name: str) -> None:
    with pytest.raises(ProbeFileError, match="does not exist"):
        load(tmp_path / name, name)


def test_a_key_that_appears_twice_is_named(tmp_path: Path) -> None:
    assert (
        "torsf_enabled appears twice"
        in problems(tmp_path, "features.json", b'{"torsf_enabled": true, "torsf_enabled": false}')[0]
    )


@pytest.mark.parametrize("value", [0, 1, "true", None, [], {}, 1.5])
def test_a_feature_that_is_no_boolean_is_named(tmp_path: Path, value: object) -> None:
    found = problems(tmp_path, "features.json", {"torsf_enabled": True, "ndt_enabled": value})
    assert found == ["features.json: key ndt_enabled is not true or false. Write it without quotes: true."]


def entry(**values: object) -> dict[str, object]:
    return {"address": "https://0.helper.example.org", "type": "https", **values}


CDN = entry(type="cloudfront", front="x.example.net", address="https://x.example.net")

BROKEN_HELPERS: list[tuple[str, object, str]] = [
    ("web-connectivity", [], "key web-connectivity: the list is empty"),
    ("web-connectivity", None, "key web-connectivity: Expected `array`"),
    ("web-connectivity", [entry(type="legacy")], "types other than https and cloudfront"),
    ("web-connectivity", [CDN, entry()], "cloudfront must come last"),
    ("web-connectivity", [entry(), CDN, entry()], "cloudfront must come last"),
    ("web-connectivity", [entry(type="htps")], "key web-connectivity[0].type"),
    ("web-connectivity", [entry(address="")], "key web-connectivity[0].address"),
    ("web-connectivity", [entry(address="http://0.helper.example.org")], "start with https://"),
    ("web-connectivity", [entry(front="x")], "key web-connectivity[0] has a front"),
    (
        "web-connectivity",
        [entry(), entry(type="cloudfront")],
        "key web-connectivity[1] has type cloudfront but no front",
    ),
    ("web-connectivity", [entry(adress="x")], "unknown field `adress`"),
    ("web-connectivity", [{"type": "https"}], "missing required field `address`"),
    ("tcp-echo", [], "key tcp-echo: the first entry must have type legacy"),
    ("tcp-echo", [entry()], "key tcp-echo: the first entry must have type legacy"),
    ("tcp-echo", [entry(), entry(type="legacy", address="192.0.2.1")], "key tcp-echo: the first entry must"),
    ("tcp-echo", [entry(type="legacy", address="192.0.2.1:7")], "key tcp-echo[0]: a legacy helper of this kind is"),
    ("http-return-json-headers", [entry()], "key http-return-json-headers: the first entry must have type legacy"),
    ("http-return-json-headers", [entry(type="legacy", address="192.0.2.1")], "is http://host:port"),
    ("dns", [entry(type="legacy", address="192.0.2.1")], "key dns[0]: a legacy helper of this kind is host:port"),
    ("dns", "192.0.2.1", "key dns: Expected `array`"),
    ("dsn", [], "unknown field `dsn`"),
]


@pytest.mark.parametrize(("key", "value", "said"), BROKEN_HELPERS)
def test_helpers_that_would_break_probes_are_refused(tmp_path: Path, key: str, value: object, said: str) -> None:
    found = problems(tmp_path, "test-helpers.json", {**example("test-helpers.json"), key: value})
    assert any(said in problem for problem in found), found


@pytest.mark.parametrize("key", list(example("test-helpers.json")))
def test_all_six_kinds_of_helpers_are_needed(tmp_path: Path, key: str) -> None:
    helpers = example("test-helpers.json")
    del helpers[key]
    assert f"missing required field `{key}`" in problems(tmp_path, "test-helpers.json", helpers)[0]


def test_every_problem_of_the_helpers_is_named_at_once(tmp_path: Path) -> None:
    helpers = {**example("test-helpers.json"), "web-connectivity": [], "tcp-echo": [entry()]}
    assert len(problems(tmp_path, "test-helpers.json", helpers)) == 2


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ({"fingerprint": "", "protocol": "or_port"}, "key 192.0.2.1:1: Object missing required field `address`"),
        ({"address": "192.0.2.1:1", "protocol": "or_port"}, "missing required field `fingerprint`"),
        ({"address": "192.0.2.1:1", "fingerprint": ""}, "missing required field `protocol`"),
        ({"address": 1, "fingerprint": "", "protocol": "or_port"}, "key 192.0.2.1:1.address"),
        ({"address": "a", "fingerprint": "", "protocol": "obfs4", "params": {"cert": "x"}}, "key 192.0.2.1:1.params"),
        (None, "key 192.0.2.1:1: Expected `object`"),
    ],
)
def test_tor_targets_that_no_probe_could_decode_are_refused(tmp_path: Path, target: object, said: str) -> None:
    found = problems(tmp_path, "tor-targets.json", {"192.0.2.1:1": target})
    assert len(found) == 1
    assert said in found[0]


def test_unknown_keys_of_tor_targets_stay_as_they_are() -> None:
    text = b'{ "t": {"address":"192.0.2.1:1","fingerprint":"","protocol":"or_port","source":"private","new":[1] } }'
    assert PARSERS["tor-targets.json"](text) == text


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("collectors.json", lambda value: value.clear(), "the list is empty"),
        ("collectors.json", lambda value: value[2].pop("front"), "key [2] has type cloudfront but no front"),
        ("bouncer.json", lambda value: value.pop("collector"), "missing required field `collector`"),
        ("bouncer.json", lambda value: value["test-helpers"].pop("tcp-echo"), "key test-helpers lacks tcp-echo"),
        ("bouncer.json", lambda value: value.update(extra=1), "unknown field `extra`"),
        ("psiphon-config.json", lambda value: value.clear(), "the object is empty"),
        ("nettest-inputs.json", lambda value: value.update(ndt=[]), "key ndt is not a test that takes inputs"),
        ("nettest-inputs.json", lambda value: value.pop("dnscheck"), "key dnscheck is missing"),
        ("nettest-inputs.json", lambda value: value["dnscheck"].append("dns.example.org"), "key dnscheck[6]"),
        ("nettest-inputs.json", lambda value: value.update(dnscheck=[1]), "key dnscheck[0]: Expected `str`"),
    ],
)
def test_other_files(tmp_path: Path, name: str, change: Callable[[Any], object], said: str) -> None:
    value = example(name)
    change(value)
    found = problems(tmp_path, name, value)
    assert any(said in problem for problem in found), found


@pytest.mark.parametrize("name", PARSERS)
def test_schemas_accept_the_examples_and_refuse_what_the_parsers_refuse(name: str) -> None:
    validator = jsonschema.Draft202012Validator(schema(name))
    validator.check_schema(schema(name))
    validator.validate(example(name))
    assert not validator.is_valid(None)
    assert not validator.is_valid("text")


def test_schema_of_helpers_knows_the_keys() -> None:
    validator = jsonschema.Draft202012Validator(schema("test-helpers.json"))
    assert not validator.is_valid({**example("test-helpers.json"), "dsn": []})
    assert not validator.is_valid({**example("test-helpers.json"), "dns": [entry(type="htps")]})
    assert not jsonschema.Draft202012Validator(schema("features.json")).is_valid({"a": 1})
