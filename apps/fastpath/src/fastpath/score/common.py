"""What several experiments share: the base scores and readings of common structures (the wire contract, 5.1)."""

import msgspec

from fastpath.shape import JsonObject, ShapeError, as_object, get_list


def base_scores() -> JsonObject:
    """Return the scores of a clean measurement; `blocking_global` is kept for readers, no rule sets it."""
    return {
        "blocking_general": 0.0,
        "blocking_global": 0.0,
        "blocking_country": 0.0,
        "blocking_isp": 0.0,
        "blocking_local": 0.0,
    }


def failed_scores() -> JsonObject:
    """Return the scores of a measurement that tells nothing."""
    scores = base_scores()
    scores["accuracy"] = 0.0
    return scores


class EndpointCounts(msgspec.Struct, frozen=True):
    """How many TCP endpoints could be reached, and how many could not."""

    accessible: int
    unreachable: int


def count_endpoints(test_keys: JsonObject) -> EndpointCounts:
    """Count `tcp_connect` entries by `status.success`; entries that say neither true nor false are left out."""
    accessible = unreachable = 0
    for entry in get_list(test_keys, "tcp_connect", "test_keys.tcp_connect"):
        status = as_object(entry, "test_keys.tcp_connect").get("status")
        if status is None:
            continue
        success = as_object(status, "test_keys.tcp_connect.status").get("success")
        if success is True:
            accessible += 1
        elif success is False:
            unreachable += 1
    return EndpointCounts(accessible, unreachable)


def has_unknown_failure(test_keys: JsonObject) -> bool:
    """Tell whether any `*_failure` of the test keys starts with "unknown_failure"."""
    for key, value in test_keys.items():
        if value and key.endswith("_failure"):
            if type(value) is not str:
                raise ShapeError("test_keys.*_failure")
            if value.startswith("unknown_failure"):
                return True
    return False
