"""signal: the messenger's backend; many probe versions gave wrong results after changes there (5.15)."""

from datetime import datetime
from functools import lru_cache

from packaging.version import InvalidVersion, Version

from fastpath.matcher import Matcher
from fastpath.score.common import base_scores
from fastpath.shape import JsonObject, Measurement, ShapeError, as_text, get_object, get_test_keys
from fastpath.times import parse_time

MAX_VERSION_LENGTH = 128
"""Longest version text that is parsed, in characters."""

# From these times on, probes older than these versions report blocking that is not there.
_CERTIFICATE_CHANGE = datetime.fromisoformat("2023-11-07 00:00:00")
_DOMAIN_CHANGE = datetime.fromisoformat("2022-10-19 00:00:00")
_ENGINE_CHANGE = datetime.fromisoformat("2023-05-02 00:00:00")
_LAST_BEFORE_CERTIFICATE = Version("0.2.3")
_FIRST_WITH_DOMAIN = Version("0.2.2")
_FIRST_WITH_ENGINE = Version("3.17.2")
BROKEN_TEST_VERSION = "0.2.4"


def score(measurement: Measurement, _matcher: Matcher) -> JsonObject:
    """Take the probe's own verdict, unless its version is known to be wrong at that time."""
    scores = base_scores()
    test_keys = get_test_keys(measurement)
    if test_keys.get("failed_operation", True) or test_keys.get("failure", True):
        scores["accuracy"] = 0.0
    try:
        trusted = _is_trusted(measurement)
    except (ValueError, ShapeError):  # a version or a time that cannot be read tells nothing
        trusted = False
    if not trusted:
        scores["accuracy"] = 0.0
        return scores
    status = test_keys.get("signal_backend_status")
    if status == "blocked":
        scores["blocking_general"] = 1.0
        scores["analysis"] = {"signal_backend_failure": test_keys.get("signal_backend_failure")}
    elif status != "ok":
        scores["accuracy"] = 0.0
    return scores


def _is_trusted(measurement: Measurement) -> bool:
    start = parse_time(as_text(measurement.get("measurement_start_time"), "measurement_start_time"))
    if measurement.get("test_version") == BROKEN_TEST_VERSION:
        return False
    test_version = _version(measurement, "test_version")
    if test_version <= _LAST_BEFORE_CERTIFICATE and start >= _CERTIFICATE_CHANGE:
        return False
    if test_version < _FIRST_WITH_DOMAIN and start >= _DOMAIN_CHANGE:
        return False
    engine_version = _version(get_object(measurement, "annotations", "annotations"), "engine_version")
    return not (engine_version < _FIRST_WITH_ENGINE and start >= _ENGINE_CHANGE)


def _version(parent: JsonObject, key: str) -> Version:
    """Return the version under `key`, 0.0.0 where it is absent or null.

    Raises:
        ShapeError: it is not text. InvalidVersion (a ValueError): it does not follow PEP 440.
    """
    value = parent.get(key)
    text = "0.0.0" if value is None else as_text(value, key)
    if len(text) > MAX_VERSION_LENGTH:
        raise InvalidVersion("The version is too long.")
    return _parse_version(text)


@lru_cache(maxsize=512)
def _parse_version(text: str) -> Version:
    """Return the version; few are in use at any time, and parsing one takes longer than all the rest."""
    return Version(text)
