"""The configuration files that say what probes are told to use: reading them, their rules, what is wrong with one.

Each file is JSON. A parser takes its bytes and returns what the routes hand out, ready made, or raises with every
problem that it can name: file, key, and what to do.
"""

import ipaddress
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from api.probe_shapes import (
    BOUNCER,
    COLLECTORS,
    FEATURES,
    INPUT_TESTS,
    INPUTS,
    PSIPHON_CONFIG,
    TEST_HELPERS,
    TOR_TARGETS,
    Bouncer,
    Entry,
    TestHelpers,
    Text,
    TorTarget,
)

MAX_FILE_BYTES = 4 * 1024 * 1024
"""Largest file read, in bytes; probes take replies of up to 16 MiB."""

_HOST_AND_PORT = re.compile(r"[^\s:/]+:[0-9]{1,5}", re.ASCII)
_INPUT = re.compile(r"[a-z][a-z0-9+.-]*://\S+", re.ASCII)
_SEEN_BY_PEOPLE = 80


class ProbeFileError(Exception):
    """A file cannot be used; `problems` has a sentence for each thing that is wrong with it."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        super().__init__(" ".join(self.problems))


@dataclass(frozen=True, slots=True)
class Helpers:
    """Test helpers as they are handed out; `nearest` are tried in turn, `fallback` comes after all of them."""

    fixed: dict[str, list[dict[str, str]]]
    nearest: list[dict[str, str]]
    fallback: list[dict[str, str]]


def parse_collectors(raw: bytes) -> list[dict[str, str]]:
    """Parse `collectors.json`: a list of entries, as it is handed out. Raises ProbeFileError."""
    name = COLLECTORS
    entries = _converted(name, _value(name, raw, list), list[Entry])
    problems = [] if entries else [f"{name}: the list is empty. Name at least one collector."]
    _refuse(problems + _fronts(name, "", entries))
    return [_plain(entry) for entry in entries]


def parse_test_helpers(raw: bytes) -> Helpers:
    """Parse `test-helpers.json`: an object with the six kinds of helpers. Raises ProbeFileError.

    Two middlebox tests of every probe fail unless the first helper of their kind has type legacy, and probes try the
    helpers of web-connectivity in the order given, so those behind a content delivery network come last.
    """
    name = TEST_HELPERS
    helpers = _converted(name, _value(name, raw, dict), TestHelpers)
    kinds: dict[str, list[Entry]] = {
        key: getattr(helpers, field)
        for field, key in zip(helpers.__struct_fields__, helpers.__struct_encode_fields__, strict=True)
    }
    problems = [problem for key, entries in kinds.items() for problem in _fronts(name, key, entries)]
    problems += [
        f"{name}: key {key}: the first entry must have type legacy. Put the legacy helper first."
        for key in ("tcp-echo", "http-return-json-headers")
        if not kinds[key] or kinds[key][0].type != "legacy"
    ]
    problems += _misfits(name, kinds)
    web = kinds.pop("web-connectivity")
    if not web:
        problems.append(f"{name}: key web-connectivity: the list is empty. Name at least one https helper.")
    if any(entry.type not in {"https", "cloudfront"} for entry in web):
        problems.append(f"{name}: key web-connectivity: probes skip entries of types other than https and cloudfront.")
    types = [entry.type for entry in web]
    if "https" in types[types.index("cloudfront") :] if "cloudfront" in types else False:
        problems.append(f"{name}: key web-connectivity: cloudfront must come last. Move it below the https entries.")
    _refuse(problems)
    return Helpers(
        fixed={key: [_plain(entry) for entry in entries] for key, entries in kinds.items()},
        nearest=[_plain(entry) for entry in web if entry.type == "https"],
        fallback=[_plain(entry) for entry in web if entry.type == "cloudfront"],
    )


def parse_features(raw: bytes) -> dict[str, bool]:
    """Parse `features.json`: names to true or false. Raises ProbeFileError.

    One value that is no boolean breaks the whole check-in reply on the probe.
    """
    name = FEATURES
    value: dict[str, Any] = _value(name, raw, dict)
    _refuse(
        f"{name}: key {_shown(key)} is not true or false. Write it without quotes: true."
        for key, flag in value.items()
        if not isinstance(flag, bool)
    )
    _refuse(f"{name}: a key is empty. Name the feature." for key in value if not key.strip())
    return value


def parse_tor_targets(raw: bytes) -> bytes:
    """Parse `tor-targets.json`: target ids to targets; handed out byte for byte. Raises ProbeFileError."""
    name = TOR_TARGETS
    problems = []
    for key, target in _value(name, raw, dict).items():
        try:
            _converted(name, target, TorTarget, at=_shown(key))
        except ProbeFileError as error:
            problems += error.problems
    _refuse(problems)
    return raw


def parse_psiphon_config(raw: bytes) -> bytes:
    """Parse `psiphon-config.json`: an object that only Psiphon's library understands. Raises ProbeFileError."""
    if not _value(PSIPHON_CONFIG, raw, dict):
        raise ProbeFileError(
            [f"{PSIPHON_CONFIG}: the object is empty. Put in the configuration that Psiphon gave you."]
        )
    return raw


def parse_bouncer(raw: bytes) -> dict[str, Any]:
    """Parse `bouncer.json`: the part of the reply that does not depend on the request. Raises ProbeFileError."""
    name = BOUNCER
    bouncer = _converted(name, _value(name, raw, dict), Bouncer)
    problems = _fronts(name, "collector-alternate", bouncer.collector_alternate)
    for key, entries in bouncer.test_helpers_alternate.items():
        problems += _fronts(name, f"test-helpers-alternate.{_shown(key)}", entries)
    for helper in ("tcp-echo", "http-return-json-headers", "web-connectivity"):
        if helper not in bouncer.test_helpers:
            problems.append(f"{name}: key test-helpers lacks {helper}. Old probes ask for it; name its address.")
    _refuse(problems)
    built: dict[str, Any] = msgspec.to_builtins(bouncer)
    return built


def parse_inputs(raw: bytes) -> dict[str, list[str]]:
    """Parse `nettest-inputs.json`: names of tests to the addresses that they measure. Raises ProbeFileError."""
    name = INPUTS
    value: dict[str, Any] = _value(name, raw, dict)
    problems = [
        f"{name}: key {_shown(key)} is not a test that takes inputs from here. Known: {', '.join(INPUT_TESTS)}."
        for key in value
        if key not in INPUT_TESTS
    ]
    for key in INPUT_TESTS:
        if key not in value:
            problems.append(f"{name}: key {key} is missing. Give a list of addresses, or [] for none.")
            continue
        for position, item in enumerate(_converted(name, value[key], list[Text], at=key)):
            if not _INPUT.fullmatch(item):
                problems.append(f"{name}: key {key}[{position}] is not an address like scheme://host:port.")
    _refuse(problems)
    return value


PARSERS: dict[str, Callable[[bytes], Any]] = {
    COLLECTORS: parse_collectors,
    TEST_HELPERS: parse_test_helpers,
    FEATURES: parse_features,
    TOR_TARGETS: parse_tor_targets,
    PSIPHON_CONFIG: parse_psiphon_config,
    BOUNCER: parse_bouncer,
    INPUTS: parse_inputs,
}
"""What makes the content of each file, by its name."""


def read(path: Path, name: str) -> bytes:
    """Return the bytes of the file at `path`, which is to serve as `name`. Raises ProbeFileError."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise ProbeFileError([f"{name}: the file does not exist. Put it there."]) from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ProbeFileError([f"{name}: {reason}. Let the service's user read it."]) from None
    if len(raw) > MAX_FILE_BYTES:
        raise ProbeFileError([f"{name}: larger than {MAX_FILE_BYTES} bytes. Make it smaller."])
    return raw


def load(path: Path, name: str) -> Any:
    """Return the content of the file at `path`, which is to serve as `name`. Raises ProbeFileError."""
    return PARSERS[name](read(path, name))


def _value(name: str, raw: bytes, wanted: type) -> Any:
    """Return the JSON value of a file's content, checked to be an object or a list without repeated keys."""
    repeated: list[str] = []

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        seen = dict(pairs)
        if len(seen) < len(pairs):
            keys = [key for key, _ in pairs]
            repeated.extend(sorted({key for key in keys if keys.count(key) > 1}))
        return seen

    try:
        msgspec.json.decode(raw)  # stricter than the standard library: no NaN, UTF-8 only
        value = json.loads(raw, object_pairs_hook=members)
    except (ValueError, RecursionError) as error:
        raise ProbeFileError([f"{name}: not JSON: {error}. Try: python3 -m json.tool {name}"]) from None
    _refuse(f"{name}: key {_shown(key)} appears twice in one object. Remove one." for key in repeated)
    if not isinstance(value, wanted):
        form = "an object, {…}" if wanted is dict else "a list, […]"
        raise ProbeFileError([f"{name}: the file must hold {form}."])
    return value


def _converted(name: str, value: Any, wanted: Any, *, at: str = "") -> Any:
    try:
        return msgspec.convert(value, wanted)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$")
        key = (at + path.rstrip("`")).lstrip(".")
        where = f"{name}: key {key}" if key else name
        raise ProbeFileError(
            [f"{where}: {message}. Compare with the schema: ooni-api probe-config-schema {name}"]
        ) from None


def _fronts(name: str, key: str, entries: list[Entry]) -> list[str]:
    """Return what is wrong with fronts: an entry has one exactly when its type is cloudfront."""
    problems = []
    for position, entry in enumerate(entries):
        where = f"{name}: key {key}[{position}]"
        if entry.type == "cloudfront" and entry.front is None:
            problems.append(f"{where} has type cloudfront but no front. Add the name of the distribution as front.")
        if entry.type != "cloudfront" and entry.front is not None:
            problems.append(f"{where} has a front but type {entry.type}. Remove front, or make the type cloudfront.")
        if entry.type in {"https", "cloudfront"} and not entry.address.startswith("https://"):
            problems.append(f"{where} has type {entry.type}. Let its address start with https://.")
    return problems


def _misfits(name: str, kinds: Mapping[str, list[Entry]]) -> list[str]:
    """Return legacy helpers whose address does not have the form that probes expect of their kind."""
    forms: dict[str, tuple[Callable[[str], bool], str]] = {
        "dns": (lambda text: _HOST_AND_PORT.fullmatch(text) is not None, "host:port, such as 192.0.2.10:57004"),
        "http-return-json-headers": (lambda text: text.startswith("http://"), "http://host:port"),
        "ssl": (lambda text: text.startswith("https://"), "https://host"),
        "tcp-echo": (_is_address, "an IP address without a port"),
        "traceroute": (_is_address, "an IP address without a port"),
    }
    return [
        f"{name}: key {key}[{position}]: a legacy helper of this kind is {form}. Write its address so."
        for key, (fits, form) in forms.items()
        for position, entry in enumerate(kinds[key])
        if entry.type == "legacy" and not fits(entry.address)
    ]


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _plain(entry: Entry) -> dict[str, str]:
    built: dict[str, str] = msgspec.to_builtins(entry)
    return built


def _shown(key: str) -> str:
    return key if len(key) <= _SEEN_BY_PEOPLE else f"{key[:_SEEN_BY_PEOPLE]}…"


def _refuse(problems: Iterable[str]) -> None:
    found = list(problems)
    if found:
        raise ProbeFileError(found)
